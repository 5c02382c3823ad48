"""Recorded sessions as JSON lines, plain or .zst: what one client saw of one exchange, over all its connections.

    {"t": "header", "exchange", "config", ...}           once, first
    {"t": "http", "ts", "url", "data"}                   a request and the body of its answer
    {"t": "connect", "conn", "ts", "addr"}               a WebSocket opened
    {"t": "send", "conn", "ts", "data"}                  a frame that the client sent
    {"t": "recv", "conn", "ts", "data" or "b64"}         a frame that came: its text, or base64 of a binary one

`ts` is the receive time in Unix seconds. The lines of a file are grouped by connection; they are given by time here.
"""

import base64
import io
from os import PathLike, fspath
from typing import Any, Iterator, NamedTuple

import orjson

from common.errors import ConfigError, VenueError


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


def _entry(name: str, number: int, line: dict[str, Any]) -> Entry:
    try:
        kind, recv_ns = line["t"], round(line["ts"] * 1_000_000) * 1000  # a double holds microseconds, no more
        if kind == "http":
            return Entry(kind, recv_ns, line["url"], line["data"].encode())
        if kind == "connect":
            return Entry(kind, recv_ns, line["conn"], line["addr"].encode())
        if kind in ("send", "recv"):
            data = base64.b64decode(line["b64"]) if "b64" in line else line["data"].encode()
            return Entry(kind, recv_ns, line["conn"], data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise VenueError("a line of a recorded session lacks something",
                         where=f"{name}:{number}: {type(error).__name__} {error}") from None
    raise VenueError("a line of a recorded session is of no known kind", where=f"{name}:{number}: t={kind!r}")


def _lines(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        file: Any = open(name, "rb")
    except OSError as error:
        raise ConfigError("cannot open a recorded session", where=f"{name}: {error.strerror}") from None
    with file:
        if name.endswith(".zst"):
            try:
                import zstandard
            except ImportError:
                raise ConfigError("zstd is not installed", where=name,
                                  remedy="pip install 'predictive-alpha[zstd]'") from None
            file = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file))
        for number, line in enumerate(file, 1):
            try:
                value = orjson.loads(line)
            except ValueError as error:
                raise VenueError("a line of a recorded session is not JSON",
                                 where=f"{name}:{number}: {error}") from None
            yield number, value
