"""Points in time as people write and read them: UTC, to Unix ns and back."""

from datetime import UTC, datetime

from common.errors import ConfigError

_S = 1_000_000_000


def parse(text: str, where: str) -> int:
    """Unix ns of a time in the form of ISO 8601, to the microsecond; in UTC where it names no zone. Raises ConfigError,
    which says `where` it was written, if it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("not a time", where=f"{where}={text}",
                          remedy="write it as 2024-07-19T00:01:00, in UTC") from None
    whole = (found if found.tzinfo else found.replace(tzinfo=UTC)).replace(microsecond=0)
    return int(whole.timestamp()) * _S + found.microsecond * 1000


def utc(ns: int) -> str:
    """Unix ns as JSON and its readers want it, to the millisecond: 2024-07-18T23:57:00.984Z; "-" where unknown."""
    return f"{_whole(ns):%Y-%m-%dT%H:%M:%S}.{ns // 1_000_000 % 1000:03d}Z" if ns > 0 else "-"


def exact(ns: int) -> str:
    """Unix ns, all of them: 2024-07-18T23:57:00.984123456Z."""
    return f"{_whole(ns):%Y-%m-%dT%H:%M:%S}.{ns % _S:09d}Z"


def to_the_second(ns: int) -> str:
    """Unix ns as a caption wants it: 2024-07-18 23:57:00; "-" where unknown."""
    return f"{_whole(ns):%Y-%m-%d %H:%M:%S}" if ns > 0 else "-"


def _whole(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // _S, UTC)
