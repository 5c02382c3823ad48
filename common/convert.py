"""Recordings of any known format into captures of ours, or into ticks for research.

    summary = convert(sources, target, say)

`sources` are files of one format, which is found out by their names and first lines:

    capture       captures of ours, and foreign recordings of Binance (`common.captures`)
    session       JSON lines of one client of one exchange (`common.imports.sessions`); one file
    lobster       message and book files, or the .zip with both (`common.imports.lobster`)
    tardis        CSV of incremental_book_L2 and of trades (`common.imports.tardis`)
    hftbacktest   .npz of events (`common.imports.hftbacktest`)

The ending of `target` says what is written:

    .parquet            ticks, one row each (`common.parquet_out`): what ingest would have made of it, by its market
    .zst, .gz, others   a capture: in the venue's own frames, or where there never were any, in those of VecTrade,
                        whose event times are milliseconds

Files are read and written as they go: memory does not grow with their length, but for sessions, which are some MB.
`say` is told of progress and of everything odd. Nothing half stays at `target` after an error, and no file is
overwritten.
"""

import contextlib
import logging
import os
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Protocol, Sequence

import numpy as np

from common import capture_lines, captures
from common.capture_lines import Connect, Disconnect, End, Frame, Header, Missed
from common.errors import AlphaError, ConfigError, ResourceError, VenueError
from common.imports import files, hftbacktest, lobster, sessions, tardis
from common.imports.source import Prepared, Source, Words
from common.layout import BOOK_NS, RECV_NS
from common.market import Market
from common.parquet_out import ParquetFile
from common.player import Player
from common.recorder import MANIFEST, CaptureFile
from common.ring import Books
from common.venues import create

FORMATS = ("capture", "session", "lobster", "tardis", "hftbacktest")
SAY_EVERY = 500_000  #: messages between two words about progress
_RING = 1 << 13  #: ticks of a symbol that are held before they are written
_FRAME_TICKS = 1 << 12  #: and as many, a single frame may cause

Say = Callable[[str], None]
_log = logging.getLogger(__name__)


class Options(NamedTuple):
    """What cannot be found out, or should be otherwise. Each belongs to the formats named."""

    format: str = ""  #: one of FORMATS, where the names of the files mislead
    venue: str = ""  #: session: who reads the frames
    connection: str = ""  #: session: which connection
    symbols: tuple[str, ...] = ()  #: tardis: only these; hftbacktest: how the one is called
    tick: str = ""  #: hftbacktest: increment of prices
    lot: str = ""  #: hftbacktest: increment of quantities
    exact: bool = False  #: .parquet: counts of 1e-8 as int64 instead of doubles


class Summary(NamedTuple):
    target: str
    format: str  #: of the sources
    venue: str  #: in whose words the capture is; of whose frames the ticks are
    symbols: tuple[str, ...]
    messages: int  #: frames and control lines, or rows that belong together
    ticks: int  #: written; 0 for a capture
    counts: dict[str, int]  #: of the format, and of the market where ticks were made: those that are not 0


def convert(sources: Sequence[str | PathLike], target: str | PathLike, say: Say = _log.warning,
            options: Options = Options()) -> Summary:
    """Raises ConfigError for what was asked wrongly, VenueError naming file, line and field for what is wrong in a
    file, ResourceError where `target` cannot be written."""
    name = fspath(target)
    if os.path.exists(name):
        raise ConfigError("there is a file already", where=f"target={name}", remedy="remove it, or name another")
    found = open_sources(sources, say, options)
    if name.endswith(".parquet"):
        return _to_ticks(found, name, say, options.exact)
    return _to_capture(found, name, say)


def open_sources(sources: Sequence[str | PathLike], say: Say = _log.warning, options: Options = Options()) -> Source:
    """The stream of messages of `sources`, not yet read. Raises as `convert`."""
    if not sources:
        raise ConfigError("nothing to convert", where="sources=()", remedy="name at least one file")
    kinds = {options.format or recognise(path) for path in sources}
    if len(kinds) > 1:
        raise ConfigError("files of several formats cannot be converted together", where=f"{sorted(kinds)}",
                          remedy="convert them one by one")
    match kinds.pop():
        case "capture":
            told = captures.describe(sources)
            return Source("capture", told.venue, told.symbols, captures.tape(sources, say), False, {})
        case "session":
            if len(sources) > 1:
                raise ConfigError("sessions are converted one by one", where=f"{len(sources)} files")
            return sessions.source(sources[0], say, options.venue, options.connection)
        case "lobster":
            return lobster.source(sources, say)
        case "tardis":
            return tardis.source(sources, say, options.symbols)
        case "hftbacktest":
            if len(options.symbols) > 1:
                raise ConfigError("an .npz file is of one symbol", where=f"symbols={options.symbols}")
            return hftbacktest.source(sources, say, *(options.symbols or ("",)), options.tick, options.lot)
        case other:
            raise ConfigError("unknown format", where=f"format={other!r}", remedy=f"known: {', '.join(FORMATS)}")


def recognise(path: str | PathLike) -> str:
    """The format of a file, one of FORMATS. Raises ConfigError where it is none of them."""
    if hftbacktest.recognise(path):
        return "hftbacktest"
    if lobster.recognise(path):
        return "lobster"
    line = files.first(path)
    if tardis.recognise(line):
        return "tardis"
    if sessions.recognise(line):
        return "session"
    stamp, _, text = line.partition(b" ")
    if stamp.isdigit() and text[:1] in capture_lines.OPENING:
        return "capture"
    raise ConfigError("a file of no known format", where=f"{fspath(path)}: {line[:80]!r}",
                      remedy=f"name the format: {', '.join(FORMATS)}")


def ticks(found: Source, say: Say = _log.warning, counts: dict[str, int] | None = None,
          ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices of symbols, int64[n, TICK_WIDTH] ticks) of a stream, block by block, in its order. `counts` is given
    the number of messages and, at the end, those of the market."""
    stream = _Stream(found)
    counts = {} if counts is None else counts
    counts["messages"] = waiting = 0
    for recv_ns, message in found.messages:
        waiting += stream.take(recv_ns, message)
        counts["messages"] += 1
        if counts["messages"] % SAY_EVERY == 0:
            say(f"{counts['messages']:,} messages, {stream.market.counts.ticks:,} ticks")
        if waiting > _FRAME_TICKS:
            yield stream.drain()
            waiting = 0
    if waiting:
        yield stream.drain()
    counts |= {name: getattr(stream.market.counts, name) for name in stream.market.counts.__slots__}
    for refused in stream.market.refused:
        say(f"refused at {refused.recv_ns}: {refused.error}")


class _Order:
    """A clock that counts: what is stamped by it has an order, over all symbols."""

    def __init__(self) -> None:
        self._now = 0

    def set(self, now_ns: int) -> None:
        """The recording's time is not this one's."""

    def monotonic_ns(self) -> int:
        self._now += 1
        return self._now


class _Stream:
    """The market that a source is played into, and the ticks that it has written and nobody has taken."""

    def __init__(self, found: Source) -> None:
        venue = Prepared(found.symbols) if found.prepared else create(found.venue, found.symbols)
        self._books = Books.private(found.symbols, _RING)
        clock = _Order()
        self.market = Market(venue, self._books, clock, seed=0)
        self.take: Callable[[int, Any], int] = (
            (lambda recv_ns, events: self.market.on_frame(events, recv_ns)) if found.prepared
            else Player(self.market, venue, clock).play)
        self._taken = [0] * len(found.symbols)

    def drain(self) -> tuple[np.ndarray, np.ndarray]:
        parts, owners = [], []
        for index, head in enumerate(self._books.heads.tolist()):
            new = head - self._taken[index]
            if new > _RING:
                raise VenueError("one frame has more events than can be held", where=f"{new} ticks")
            if new:
                rows = np.arange(self._taken[index] + 1, head + 1) % _RING
                parts.append(self._books.ticks[index][rows])
                owners.append(np.full(new, index))
                self._taken[index] = head
        found, symbols = np.concatenate(parts), np.concatenate(owners)
        order = np.argsort(found[:, BOOK_NS])
        found, symbols = found[order], symbols[order]
        found[:, BOOK_NS] = found[:, RECV_NS]
        return symbols, found


def _to_ticks(found: Source, target: str, say: Say, exact: bool) -> Summary:
    counts: dict[str, int] = {}
    file = ParquetFile(target, found.symbols, exact, {"venue": found.venue, "format": found.format})
    try:
        for symbols, block in ticks(found, say, counts):
            file.write(symbols, block)
        file.close()
    except BaseException:
        file.abandon()
        raise
    if file.inexact:
        say(f"{target}: {file.inexact:,} numbers have more digits than a double: convert with exact counts instead")
    messages = counts.pop("messages")
    return Summary(target, found.format, found.venue, found.symbols, messages, file.rows,
                   _met({**found.counts, **counts, "inexact": file.inexact}))


class _Writer(Protocol):
    """What of `common.recorder.CaptureFile` is used here."""

    frames: int
    control: int
    missed: int

    def write(self, recv_ns: int, text: bytes) -> None: ...
    def close(self) -> Any: ...


class _Plain:
    """A capture that is not compressed; as `CaptureFile`, without a manifest."""

    def __init__(self, path: str, header: Header, recv_ns: int) -> None:
        self.frames = self.control = self.missed = 0
        self._path, self._last_ns = path, recv_ns
        try:
            self._file = open(path, "xb", buffering=1 << 18)
        except OSError as error:
            raise self._refused(error) from None
        self.write(recv_ns, capture_lines.encode(header))

    def write(self, recv_ns: int, text: bytes) -> None:
        self._last_ns = recv_ns
        try:
            self._file.write(b"%d %b\n" % (recv_ns, text))
        except OSError as error:
            raise self._refused(error) from None

    def close(self) -> None:
        self.write(self._last_ns, capture_lines.encode(End(self.frames, self.missed)))
        try:
            self._file.close()
        except OSError as error:
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> ResourceError:
        return ResourceError("cannot write a capture", where=f"{self._path}: {error.strerror}",
                             remedy="make room, or name another place")


def _to_capture(found: Source, target: str, say: Say) -> Summary:
    header = Header(found.venue, found.symbols)
    file: _Writer | None = None
    messages = 0
    try:
        for recv_ns, text in _lines(found):
            if file is None:
                make = CaptureFile if target.endswith((".zst", ".gz")) else _Plain
                file = make(Path(target), header, recv_ns)
            messages += 1
            if messages % SAY_EVERY == 0:
                say(f"{messages:,} messages")
            line = capture_lines.parse(text) if text.startswith(capture_lines.MARK) else None
            is_frame = line is None or isinstance(line, Frame)
            file.frames += is_frame
            file.control += not is_frame
            file.missed += line.count if isinstance(line, Missed) else 0
            file.write(recv_ns, text)
        if file is None:
            raise VenueError("nothing in it", where=f"{', '.join(found.symbols)}: no line to write")
        file.close()
    except BaseException:
        if file is not None:
            with contextlib.suppress(AlphaError, OSError):
                file.close()
            for name in (target, target + MANIFEST):
                if os.path.exists(name):
                    os.unlink(name)
        raise
    return Summary(target, found.format, found.venue, found.symbols, messages, 0, _met(found.counts))


def _lines(found: Source) -> Iterator[tuple[int, bytes]]:
    """The lines of a capture, but for its first and its last."""
    if found.prepared:
        words, begun = Words(found.symbols), False
        for recv_ns, events in found.messages:
            if not begun:
                begun = True
                yield recv_ns, capture_lines.encode(Connect(""))
            for text in words.lines(events):
                yield recv_ns, text
        return
    before: Header | None = None
    begun = False
    for recv_ns, text in found.messages:
        line = capture_lines.parse(text) if text.startswith(capture_lines.MARK) else None
        if isinstance(line, Header):
            follows = before is not None and line.session and (line.session, line.part) == (
                before.session, before.part + 1)
            if before is not None and not follows:
                yield recv_ns, capture_lines.encode(Disconnect("another recording begins"))
                yield recv_ns, capture_lines.encode(Connect(""))
            before, begun = line, True
        elif not isinstance(line, End):
            if not begun and found.format == "capture":  # foreign: it does not tell of its connection
                yield recv_ns, capture_lines.encode(Connect(""))
            begun = True
            yield recv_ns, text


def _met(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
