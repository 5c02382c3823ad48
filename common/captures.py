"""Recordings of a venue: lines `<recv_ns> <text>`, plain, .gz or .zst, read lazily and in order.

`recv_ns` is the recorder's wall clock in Unix ns, `text` a frame exactly as it came or a control line (see
`common.capture_lines`). Files without a first control line are foreign recordings of Binance, one symbol a file, in
which a REST depth snapshot that the recorder asked for stands among the frames, at the time of its answer.

    tape(paths)      what `common.player` plays: (recv_ns, text), foreign snapshots as the control lines that they are
    read(paths)      several files as one stream, as they are: (recv_ns, text)
    lines(path)      one file
    blocks(path)     the same as blocks of whole lines
    order(paths)     which files are one stream, and in which order
    merge(streams)   streams of tuples that begin with recv_ns, as one, by time
    runs(paths)      what `tape` gives, many lines at a time
    describe(paths)  the venue and the symbols
    header(path)     the first line of a capture of ours

The files of one session of a recorder are read in the order in which it wrote them. Other files that follow each
other are read one after the other whatever order they are given in; files of the same time (other symbols) are
interleaved by time. The order within a file is never changed. A recorder that was killed leaves a file that is cut
off: it is read up to its last whole line, and `say` is told.

Cost: about 1.8 us a line, of which 1.3 are the decompression of a .gz file; 0.5 us beyond that in runs.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import re
import zlib
from decimal import Decimal
from operator import itemgetter
from os import PathLike, fspath
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence

import numpy as np
import orjson

from common import capture_lines
from common.capture_lines import Header
from common.errors import ConfigError, VenueError
from common.scan import split

BLOCK = 1 << 18  #: bytes read at a time

Say = Callable[[str], None]
_log = logging.getLogger(__name__)


def _silent(words: str) -> None:
    """For a first look at a file that is read afterwards."""


def read(paths: Iterable[str | PathLike], say: Say = _log.warning) -> Iterator[tuple[int, bytes]]:
    """(recv_ns, text) of all `paths` as one stream. Raises ConfigError for a file that cannot be opened,
    VenueError naming file and line for a line that is not `<recv_ns> <json>`."""
    return merge([_chain(lines, files, say) for files in order(paths)])


def tape(paths: Iterable[str | PathLike], say: Say = _log.warning) -> Iterator[tuple[int, bytes]]:
    """As `read`, for `common.player`: a snapshot of a foreign file, which does not name its symbol, comes as the
    answer over HTTP that it is."""
    return merge([_chain(_told, files, say) for files in order(paths)])


def without_manifests(paths: Iterable[str | PathLike]) -> tuple[str, ...]:
    """`paths` less the manifests that stand beside a recording: so that all of a folder may be named."""
    names = [fspath(path) for path in paths]
    return tuple(name for name in names if not (name.endswith(".json") and os.path.exists(name.removesuffix(".json"))))


def order(paths: Iterable[str | PathLike]) -> list[list[str]]:
    """The files of each session in the order in which they were written; every other file by itself."""
    found: dict[str, list[tuple[int, str]]] = {}
    for path in paths:
        name = fspath(path)
        head = header(name)
        key, part = (f"session {head.session}", head.part) if head is not None and head.session else (name, 0)
        found.setdefault(key, []).append((part, name))
    return [[name for _, name in sorted(files)] for files in found.values()]


def header(path: str | PathLike) -> Header | None:
    """What a capture says of itself in its first line; None of a foreign recording."""
    for block in blocks(path, _silent):
        _, text = line(fspath(path), 1, block.partition(b"\n")[0])
        if not capture_lines.is_control(text):
            return None
        first = capture_lines.parse(text)
        return first if isinstance(first, Header) else None
    return None


def _chain(reader: Callable, files: list[str], say: Say) -> Iterator[tuple[int, bytes]]:
    return itertools.chain.from_iterable(reader(name, say) for name in files)


def _told(name: str, say: Say) -> Iterator[tuple[int, bytes]]:
    """The lines of one file, for `tape`."""
    told = teller(name)
    if told is None:
        return lines(name, say)
    return ((recv_ns, told(text) if is_snapshot(text) else text) for recv_ns, text in lines(name, say))


class Lines(NamedTuple):
    """Lines by time: line i came at recv_ns[i] and is text[begins[i]:ends[i]]. int64[n] each."""

    text: bytes
    recv_ns: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    def line(self, i: int) -> bytes:
        return self.text[self.begins[i]:self.ends[i]]

    def part(self, first: int, last: int | None) -> "Lines":
        """Lines first..last, `last` not included; the text is not copied."""
        return Lines(self.text, self.recv_ns[first:last], self.begins[first:last], self.ends[first:last])


_Run = tuple[np.ndarray, Lines]  # by what each line is ordered, int64[n], and the lines


def runs(paths: Iterable[str | PathLike], say: Say = _log.warning) -> Iterator[Lines]:
    """As `tape`, some hundred lines at a time, at least one: the same lines in the same order. What raises does so when
    all the lines before it have been given."""
    return _woven([_runs(files, say) for files in order(paths)])


def _runs(files: list[str], say: Say) -> Iterator[_Run]:
    """The lines of files that follow each other. A line is ordered by the latest stamp so far, as a merge of the
    lines one by one has it: a stamp that went back does not overtake what stood before it."""
    latest = 0
    for name in files:
        number, told = 0, teller(name)
        for block in blocks(name, say):
            found, error = _split(block, name, number)
            if told is not None and (np.frombuffer(block, np.uint8)[found.begins + 2] == _SNAPSHOT[2]).any():
                block = _SNAPSHOT_LINE.sub(lambda found: found[1] + told(found[2]), block)
                found, error = _split(block, name, number)
            if found.recv_ns.size:
                number += found.recv_ns.size
                by = np.maximum(np.maximum.accumulate(found.recv_ns), latest)
                latest = by[-1]
                yield by, found
            if error is not None:
                raise error


def _woven(streams: list[Iterator[_Run]]) -> Iterator[Lines]:
    """Several streams as one, equal times in the order given."""
    open_, heads = dict(enumerate(streams)), {}  # heads: what was read of a stream and not given yet
    while True:
        for i in list(open_):
            if i not in heads and (run := next(open_[i], None)) is not None:
                heads[i] = run
            elif i not in heads:
                del open_[i]
        if not heads:
            return
        # What can still come of a stream is not older than its last line here: so all that comes before the first of
        # those can go. That stream is read on before any later line is given, and may fail then, not before.
        first = min(heads, key=lambda i: (heads[i][0][-1], i))
        latest = heads[first][0][-1]
        given: list[_Run] = []
        for i in sorted(heads):
            by, lines_ = heads.pop(i)
            cut = int(by.searchsorted(latest, "right" if i <= first else "left"))
            if cut:
                given.append((by[:cut], lines_.part(0, cut)))
            if cut < by.size:
                heads[i] = by[cut:], lines_.part(cut, None)
        yield given[0][1] if len(given) == 1 else _sorted(given)


def _sorted(given: list[_Run]) -> Lines:
    """Lines of several streams, of which each is in order, as one, with a text of their own."""
    place = np.concatenate([by for by, _ in given]).argsort(kind="stable")
    texts, shifts, size = [], [], 0
    for _, run in given:
        first, last = int(run.begins[0]), int(run.ends[-1])
        texts.append(run.text[first:last])
        shifts.append(size - first)
        size += last - first
    return Lines(b"".join(texts), *(np.concatenate(columns)[place] for columns in (
        [run.recv_ns for _, run in given], [run.begins + shift for (_, run), shift in zip(given, shifts)],
        [run.ends + shift for (_, run), shift in zip(given, shifts)])))


def teller(path: str | PathLike) -> Callable[[bytes], bytes] | None:
    """What makes a snapshot of a foreign file the control line that it is; None where the file is a capture."""
    if header(path) is not None:
        return None
    symbol = next(iter(_recognise(itertools.islice(lines(path, _silent), _LOOKED_AT))), "")
    return lambda text: capture_lines.encode(capture_lines.Http(symbol, "", 200, text))


def is_snapshot(frame: bytes) -> bool:
    """Whether a line of a foreign recording is a REST depth snapshot."""
    return frame.startswith(_SNAPSHOT)


_SNAPSHOT = b'{"lastUpdateId"'
_SNAPSHOT_LINE = re.compile(rb'^(\d+ )(\{"lastUpdateId".*[}\]])(?=[\r ]*$)', re.MULTILINE)  # as `line` reads it


def merge(streams: Sequence[Iterator[tuple]]) -> Iterator[tuple]:
    """`streams` as one, by the time that each tuple begins with; equal times in the order given."""
    if len(streams) == 1:
        return iter(streams[0])
    return heapq.merge(*streams, key=itemgetter(0))


def lines(path: str | PathLike, say: Say = _log.warning) -> Iterator[tuple[int, bytes]]:
    """(recv_ns, text) of one file."""
    name = fspath(path)
    number = 0
    for block in blocks(name, say):
        found, error = _split(block, name, number)
        number += found.recv_ns.size
        yield from zip(found.recv_ns.tolist(), [block[begin:end] for begin, end in zip(
            found.begins.tolist(), found.ends.tolist())])
        if error is not None:
            raise error


def blocks(path: str | PathLike, say: Say = _log.warning) -> Iterator[bytes]:
    """One file as blocks of whole lines, each with its end of line; a last line that is cut off is left out."""
    name = fspath(path)
    tail = b""
    for content in _content(name, say):
        block = tail + content
        end = block.rfind(b"\n") + 1
        if end:
            yield block[:end]
        tail = block[end:]
    if tail:
        # The last line has no end: whole if it can be parsed, otherwise cut off.
        try:
            stamp, _, frame = tail.partition(b" ")
            int(stamp)
            orjson.loads(frame)
        except ValueError:
            number = sum(content.count(b"\n") for content in _content(name, _silent))  # rare: read once more
            say(f"{name}:{number + 1} is cut off; the {number} lines before it were read")
        else:
            yield tail + b"\n"


def ends_of_lines(block: bytes) -> np.ndarray:
    """Where its ends of line stand. A tenth of the cost of counting them with `bytes.count`."""
    return np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))


def line(name: str, number: int, raw: bytes) -> tuple[int, bytes]:
    """(recv_ns, text) of line `number` of the file `name`. Raises VenueError naming both."""
    found, error = _split(raw + b"\n", name, number - 1)
    if error is not None:
        raise error
    return int(found.recv_ns[0]), found.line(0)


def _split(block: bytes, name: str, number: int) -> tuple[Lines, VenueError | None]:
    """The lines of a block, and what is wrong with the one after them: line `number` of the file went before."""
    ends = ends_of_lines(block)
    begins, stops, stamps = np.empty((3, ends.size), np.int64)
    good = split(np.frombuffer(block, np.uint8), ends, begins, stops, stamps)
    found = Lines(block, stamps[:good], begins[:good], stops[:good])
    if good == ends.size:
        return found, None
    raw = block[ends[good - 1] + 1 if good else 0:ends[good]]
    return found, VenueError("a line of a recording is not `<recv_ns> <json>`",
                             where=f"{name}:{number + good + 1}: {raw[:80]!r}",
                             remedy="another format is made one with `alpha capture convert`; else remove the line")


def _content(name: str, say: Say) -> Iterator[bytes]:
    """The decompressed content of a file in blocks."""
    try:
        file = open(name, "rb", buffering=0)
    except OSError as error:
        raise ConfigError("cannot open a recording", where=f"{name}: {error.strerror}") from None
    with file:
        if name.endswith(".gz"):
            yield from _inflate(name, file, lambda: zlib.decompressobj(31), zlib.error, say)
        elif name.endswith(".zst"):
            zstandard = _zstandard(name)
            make = zstandard.ZstdDecompressor
            yield from _inflate(name, file, lambda: make().decompressobj(), zstandard.ZstdError, say)
        else:
            while block := file.read(BLOCK):
                yield block


def _inflate(name: str, file: Any, make: Callable[[], Any], failure: type[Exception], say: Say) -> Iterator[bytes]:
    """Decompresses `file`, which may be several compressed files end to end."""
    inflater, read = None, False
    while block := file.read(BLOCK // 4):
        while block:
            inflater = inflater or make()
            try:
                content = inflater.decompress(block)
            except failure as error:
                if not read:
                    raise VenueError("a recording is not compressed as its name says", where=f"{name}: {error}",
                                     remedy="give it the ending of what it is: .gz, .zst or another") from None
                raise VenueError("a recording is damaged", where=f"{name}: {error}",
                                 remedy="read the part before the damage, or name another file") from None
            read = True
            if content:
                yield content
            block = b""
            if inflater.eof:
                block, inflater = inflater.unused_data, None
    if inflater is not None:
        say(f"{name} is cut off: its compressed data have no end")


def _zstandard(name: str) -> Any:
    try:
        import zstandard
    except ImportError:
        raise ConfigError("a .zst recording needs the module zstandard", where=name,
                          remedy="pip install zstandard") from None
    return zstandard


class Description(NamedTuple):
    venue: str  #: as `market.venue` names it
    symbols: tuple[str, ...]  #: in the order of first appearance


def describe(paths: Iterable[str | PathLike]) -> Description:
    """What a set of recordings is of, from the first line of each, or from the first frames where it is foreign.
    Raises VenueError where a file is of no venue that is known here, or not of the same one as the others."""
    found: dict[str, str] = {}  # symbol -> venue
    for path in paths:
        name = fspath(path)
        symbols = _recognise(itertools.islice(lines(name, _silent), _LOOKED_AT))
        if not symbols:
            raise VenueError("a recording does not say what it is of, and is none of Binance's futures or spot",
                             where=name, remedy="its first line must be that of a capture, or its first frames must "
                             "have a combined-stream `depthUpdate`")
        found |= symbols
    if len(set(found.values())) != 1:
        raise VenueError("recordings of several venues cannot be served together", where=f"{found}")
    return Description(next(iter(found.values())), tuple(found))


_LOOKED_AT = 10_000  #: frames looked at to recognise a recording


def _recognise(stream: Iterable[tuple[int, bytes]]) -> dict[str, str]:
    """Symbols and their venue. A foreign file of Binance is of one symbol; a VecTrade connection, whose frames a tap
    may have printed without the line that comes first, carries several."""
    found: dict[str, str] = {}
    for _, text in stream:
        if capture_lines.is_control(text):
            line = capture_lines.parse(text)
            if isinstance(line, Header):
                return dict.fromkeys(line.symbols, line.venue)
        elif b'"depthUpdate"' in text[:200]:
            data = orjson.loads(text).get("data")
            if isinstance(data, dict) and isinstance(data.get("s"), str):
                market = "coinm" if "ps" in data else "usdm" if "pu" in data else "spot"
                return {data["s"]: f"binance-{market}"}
        elif text.startswith(b'{"channel":"orderbook:'):
            found[orjson.loads(text)["channel"].partition(":")[2]] = "vectrade"
    return found


class RecordedDepth:
    """What a venue's REST depth endpoint would answer at any point of a playback, for one symbol.

    The recorded snapshot is the base. Frames are only kept when they are played, and applied when an answer
    needs them: those with `u` above the snapshot's `lastUpdateId`, quantities absolute, "0" removes. The
    answer carries the `u` of the last one, so it bridges to the next frame by the rules of futures
    (`U <= lastUpdateId <= u`, or `pu == lastUpdateId`) and spot (`U <= lastUpdateId + 1 <= u`) alike."""

    PENDING = 1 << 16  #: frames kept before they are applied anyway

    def __init__(self) -> None:
        self.recorded: bytes | None = None  #: the newest recorded snapshot that was played
        self._head: dict[str, Any] = {}
        self._sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
        self._frames: list[bytes] = []

    def snapshot(self, frame: bytes) -> None:
        """A recorded snapshot was played."""
        self.recorded = frame
        fields = orjson.loads(frame)
        self._head = {key: value for key, value in fields.items() if key not in ("bids", "asks")}
        self._sides = ({price: qty for price, qty in fields["bids"]}, {price: qty for price, qty in fields["asks"]})

    def frame(self, frame: bytes) -> None:
        """A depth frame of the symbol was played."""
        self._frames.append(frame)
        if len(self._frames) > self.PENDING and self.recorded:
            self._apply()

    def answer(self, limit: int, recorded: bool) -> bytes:
        """The best `limit` levels a side: as recorded, or as of the last frame played."""
        if recorded:
            fields = orjson.loads(self.recorded)
            if max(len(fields["bids"]), len(fields["asks"])) <= limit:
                return self.recorded
            return orjson.dumps(fields | {side: fields[side][:limit] for side in ("bids", "asks")})
        self._apply()
        bids, asks = self._sides
        return orjson.dumps(self._head | {"bids": _best(bids, limit, reverse=True), "asks": _best(asks, limit)})

    def _apply(self) -> None:
        for frame in self._frames:
            data = orjson.loads(frame)["data"]
            if data["u"] <= self._head["lastUpdateId"]:
                continue
            self._head |= {"lastUpdateId": data["u"]} | {key: data[key] for key in ("E", "T") if key in self._head}
            for side, changes in zip(self._sides, (data["b"], data["a"])):
                for price, qty in changes:
                    if qty.strip("0."):
                        side[price] = qty
                    else:
                        side.pop(price, None)
        self._frames.clear()


def _best(side: dict[str, str], limit: int, reverse: bool = False) -> list[tuple[str, str]]:
    return sorted(side.items(), key=lambda level: Decimal(level[0]), reverse=reverse)[:limit]
