"""What an answer of Binance's REST API says, whatever it was asked: its JSON, its error, how long to leave the venue
alone. Pure.
"""

from typing import Any

import orjson

from common.errors import VenueError
from common.http import TOO_LATE, Reply

BUSY_STATUS, _BUSY_CODES = frozenset({403, 418, 429}), frozenset({-1003, -1008, -1015})
_PAUSES_NS = {418: 120_000_000_000, 403: 60_000_000_000}  # where no Retry-After says how long
_PAUSE_NS = 1_000_000_000
_UNREACHED_NS = 250_000_000


def parsed(reply: Reply) -> Any:
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        raise VenueError("an answer is not JSON", where=f"status={reply.status}, body={reply.body[:80]!r}") from None


def field(told: Any, name: str, kind: type) -> Any:
    value = told.get(name) if isinstance(told, dict) else None
    if type(value) is not kind:
        raise VenueError("an answer lacks a field or has it in another type",
                         where=f"{name}={value!r}, expected {kind.__name__}"[:200])
    return value


def error(reply: Reply) -> tuple[int, str]:
    """Code and words of a refusal; 0 and nothing where there are none."""
    try:
        told = orjson.loads(reply.body)
        return told["code"] if type(told["code"]) is int else 0, str(told.get("msg", ""))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return 0, ""


def complaint(reply: Reply) -> str:
    """What went wrong, in the venue's own words where it has some."""
    if not reply.status:
        return reply.error
    code, words = error(reply)
    if code or words:
        return f"HTTP {reply.status}: {code} {words}"[:200]
    return f"HTTP {reply.status}{f': {reply.body[:80]!r}' if reply.body else ''}"


def pause_ns(reply: Reply) -> int:
    """How long to leave the venue alone: as it says, or a little while if it cannot be reached."""
    if reply.status in BUSY_STATUS or reply.status >= 400 and error(reply)[0] in _BUSY_CODES:
        text = reply.headers.get("retry-after", "")
        if text.isdecimal() and 0 < len(text) < 7:
            return int(text) * 1_000_000_000
        return _PAUSES_NS.get(reply.status, _PAUSE_NS)
    return 0 if reply.status or reply.sent or reply.error == TOO_LATE else _UNREACHED_NS
