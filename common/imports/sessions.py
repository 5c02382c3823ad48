"""Recorded sessions as JSON lines, plain or .zst: what one client saw of one exchange, over all its connections.

    {"t": "header", "exchange", "config", ...}           once, first
    {"t": "http", "ts", "url", "data"}                   a request and the body of its answer
    {"t": "connect", "conn", "ts", "addr"}               a WebSocket opened
    {"t": "send", "conn", "ts", "data"}                  a frame that the client sent
    {"t": "recv", "conn", "ts", "data" or "b64"}         a frame that came: its text, or base64 of a binary one

`ts` is the receive time in Unix seconds. The lines of a file are grouped by connection; they are given by time here.

As a capture a session is one connection of it, because a venue numbers what it sends by connection: the one that has
the books, or the one that is named. HTTP answers are told of the symbol for which the venue would ask there; others
stay as answers of none. The header names exchanges and symbols in words of its own; which venue of ours reads the
frames, and how it calls the symbols, is found by reading them.
"""

import base64
import re
from collections import Counter
from os import PathLike, fspath
from typing import Any, Callable, Iterator, NamedTuple, Sequence
from urllib.parse import parse_qsl, urlsplit

import orjson

from common import capture_lines
from common.capture_lines import Connect, Http, Send
from common.errors import ConfigError, VenueError
from common.events import Delta, Snapshot, Venue
from common.imports import files
from common.imports.source import Message, Source
from common.venues import create, registry

#: what exchanges are called here, where that is not their name in small letters, with or without more behind it
_CALLED = {"BINANCE": ("binance-spot",), "BINANCE_US": ("binance-spot",), "BINANCE_FUTURES": ("binance-usdm",),
           "BINANCE_DELIVERY": ("binance-coinm",)}
_LOOKED_AT = 1000  #: frames in which names of symbols are looked for
_NAME = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_/:.\-]{1,62}[A-Za-z0-9]")


class Entry(NamedTuple):
    """One line. `name` is the URL of an HTTP answer, and the connection of everything else."""

    kind: str  #: http, connect, send or recv
    recv_ns: int
    name: str
    data: bytes  #: frame or body; of "connect" the address


def header(path: str | PathLike) -> dict[str, Any]:
    """The first line."""
    for _, line in _lines(fspath(path)):
        if isinstance(line, dict) and line.get("t") == "header":
            return line
        break
    raise VenueError("a recorded session does not begin with its header", where=fspath(path))


def entries(path: str | PathLike) -> list[Entry]:
    """All lines but the header, by time; equal times in the order of the file. Whole sessions are some MB."""
    found = [_entry(fspath(path), number, line) for number, line in _lines(fspath(path)) if line.get("t") != "header"]
    return sorted(found, key=lambda entry: entry.recv_ns)


def frames(path: str | PathLike) -> Iterator[tuple[int, bytes]]:
    """(recv_ns, frame) of what came, by time, all connections together."""
    return ((entry.recv_ns, entry.data) for entry in entries(path) if entry.kind == "recv")


def recognise(first_line: bytes) -> bool:
    """Whether a file that begins so is a session."""
    return first_line.startswith(b"{") and re.match(rb'\{\s*"t"\s*:\s*"header"', first_line) is not None


def source(path: str | PathLike, say: Callable[[str], None], venue: str = "", connection: str = "") -> Source:
    """One connection of a session as lines of a capture. `venue`: who reads the frames, where that is not to be
    found out; `connection`: which one. Raises ConfigError where no venue of ours reads them."""
    name, exchange = fspath(path), str(header(path).get("exchange"))
    found = entries(path)
    known = list(dict.fromkeys(entry.name for entry in found if entry.kind in ("connect", "recv")))
    if connection and connection not in known:
        raise ConfigError("a session has no such connection", where=f"{name}: connection={connection!r}",
                          remedy=f"it has {', '.join(known)}")
    best: tuple[int, tuple[str, ...], str, str] = (0, (), "", "")
    for conn in [connection] if connection else known:
        part = [entry for entry in found if entry.name == conn and entry.kind != "http"]
        for reader in [venue] if venue else _venues(exchange):
            count, symbols = _read_by(reader, part, _candidates(part))
            best = max(best, (count, symbols, reader, conn), key=lambda told: told[0])
    count, symbols, reader, conn = best
    if not count:
        raise ConfigError("no venue finds books in a session", where=f"{name}: exchange={exchange!r}",
                          remedy=f"known venues: {', '.join(sorted(registry()))}")
    if len(known) > 1:
        say(f"{name}: of {len(known)} connections, {conn} is taken, the one "
            + ("named" if connection else "with the most changes of books"))
    counts = {"frames": 0, "answers": 0, "snapshot_answers": 0}
    return Source("session", reader, symbols, _messages(found, conn, create(reader, symbols), counts), False, counts)


def _messages(found: Sequence[Entry], conn: str, venue: Venue, counts: dict[str, int]) -> Iterator[Message]:
    for entry in found:
        if entry.kind == "http":
            symbol, url = _asked(venue, entry.name), urlsplit(entry.name)
            path = url.path + (f"?{url.query}" if url.query else "")
            counts["answers"] += 1
            counts["snapshot_answers"] += bool(symbol)
            yield entry.recv_ns, capture_lines.encode(Http(symbol, path, 200, entry.data))
        elif entry.name != conn:
            continue
        elif entry.kind == "connect":
            yield entry.recv_ns, capture_lines.encode(Connect(entry.data.decode()))
        elif entry.kind == "send":
            yield entry.recv_ns, capture_lines.encode(Send(entry.data))
        else:
            counts["frames"] += 1
            yield entry.recv_ns, bytes(capture_lines.text(entry.data))


def _entry(name: str, number: int, line: dict[str, Any]) -> Entry:
    try:
        kind, recv_ns = line["t"], round(line["ts"] * 1_000_000) * 1000  # a double holds microseconds, no more
        if kind == "http":
            return Entry(kind, recv_ns, line["url"], line["data"].encode())
        if kind == "connect":
            return Entry(kind, recv_ns, line["conn"], line["addr"].encode())
        if kind in ("send", "recv"):
            data = base64.b64decode(line["b64"], validate=True) if "b64" in line else line["data"].encode()
            return Entry(kind, recv_ns, line["conn"], data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise VenueError("a line of a recorded session lacks something",
                         where=f"{name}:{number}: {type(error).__name__} {error}") from None
    raise VenueError("a line of a recorded session is of no known kind", where=f"{name}:{number}: t={kind!r}")


def _venues(exchange: str) -> list[str]:
    """The venues of ours that may read what this exchange sends."""
    base = exchange.lower().replace("_", "-")
    return [name for name in sorted(registry()) if name in _CALLED.get(exchange, (base,))
            or (exchange not in _CALLED and name.startswith(f"{base}-"))]


def _read_by(name: str, found: Sequence[Entry], candidates: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """How many changes of books the venue `name` reads in `found`, and the symbols that they are of."""
    venue = create(name, candidates)
    venue.begin()
    counts: Counter[int] = Counter()
    for entry in found:
        if entry.kind == "recv":
            try:
                counts.update(event.symbol for event in venue.decode(entry.data) if isinstance(event, Delta | Snapshot))
            except VenueError:
                continue
    return counts.total(), tuple(candidates[index] for index in sorted(counts))


def _candidates(found: Sequence[Entry]) -> tuple[str, ...]:
    """Everything in the first frames and in what was asked for that could be the name of a symbol."""
    names: dict[bytes, None] = {}
    frames_seen = 0
    for entry in found:
        frames_seen += entry.kind == "recv"
        if frames_seen > _LOOKED_AT:
            break
        if entry.kind != "http":
            for word in _NAME.findall(entry.data):
                names.update(dict.fromkeys([word, *re.split(rb"[:.,@/]", word)]))
    return tuple(name.decode() for name in names if 2 <= len(name) <= 64 and re.search(rb"[A-Za-z]", name))


def _asked(venue: Venue, url: str) -> str:
    """The symbol whose snapshot `url` asks for; empty where it asks for something else."""
    asked = urlsplit(url)
    query = set(parse_qsl(asked.query))
    for index, symbol in enumerate(venue.symbols):
        request = venue.snapshot_request(index)
        if request is None:
            break
        ours = urlsplit(request.path)
        # How many levels are asked for may differ, and the version of the API: only what names the symbol may not.
        naming = {(key, value) for key, value in parse_qsl(ours.query) if symbol.lower() in value.lower()}
        if _place(asked.path) == _place(ours.path) and naming <= query:
            return symbol
    return ""


def _place(path: str) -> str:
    return re.sub(r"/v\d+(?=/)|_\d+$", "", path)


def _lines(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in files.lines(name):
        try:
            value = orjson.loads(line)
        except ValueError as error:
            raise VenueError("a line of a recorded session is not JSON", where=f"{name}:{number}: {error}") from None
        if not isinstance(value, dict):
            raise VenueError("a line of a recorded session is not a JSON object", where=f"{name}:{number}")
        yield number, value
