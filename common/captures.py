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
    describe(paths)  the venue and the symbols
    header(path)     the first line of a capture of ours

The files of one session of a recorder are read in the order in which it wrote them. Other files that follow each
other are read one after the other whatever order they are given in; files of the same time (other symbols) are
interleaved by time. The order within a file is never changed. A recorder that was killed leaves a file that is cut
off: it is read up to its last whole line, and `say` is told.

Cost: about 1.8 us a line, of which 1.3 are the decompression of a .gz file.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
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


def teller(path: str | PathLike) -> Callable[[bytes], bytes] | None:
    """What makes a snapshot of a foreign file the control line that it is; None where the file is a capture."""
    if header(path) is not None:
        return None
    symbol = next(iter(_recognise(itertools.islice(lines(path, _silent), _LOOKED_AT))), "")
    return lambda text: capture_lines.encode(capture_lines.Http(symbol, "", 200, text))


def is_snapshot(frame: bytes) -> bool:
    """Whether a line of a foreign recording is a REST depth snapshot."""
    return frame.startswith(b'{"lastUpdateId"')


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
        found = _alike(block)
        if found is None:  # one by one, so that those before a wrong one are read
            for raw in block[:-1].split(b"\n"):
                number += 1
                yield line(name, number, raw)
        else:
            yield from found
            number += len(found)


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
    return np.flatnonzero(np.frombuffer(block, np.uint8) == _END_OF_LINE)


def line(name: str, number: int, raw: bytes) -> tuple[int, bytes]:
    """(recv_ns, text) of line `number` of the file `name`. Raises VenueError naming both."""
    stamp, _, frame = raw.partition(b" ")
    if stamp.isdigit() and frame[:1] in _OPENING and frame[-1:] in _CLOSING:
        return int(stamp), frame
    stripped = raw.rstrip(b"\r ")
    if stripped != raw:  # a carriage return at its end is forgiven
        return line(name, number, stripped)
    raise VenueError("a line of a recording is not `<recv_ns> <json>`", where=f"{name}:{number}: {raw[:80]!r}",
                     remedy="another format is made one with `alpha capture convert`; else remove the line")


_OPENING = (b"{", b"[")
_CLOSING = (b"}", b"]")
_END_OF_LINE, _SPACE, _ZERO, _BRACES, _BRACKETS = 10, 32, 48, b"{}", b"[]"
_STAMP = 19  #: digits of Unix ns, since 2001
_PLACES = 10 ** np.arange(_STAMP - 1, -1, -1)


def _alike(whole: bytes) -> list[tuple[int, bytes]] | None:
    """The lines of `whole` all at once, a third of the cost of one by one: if each has a stamp of the usual length and
    looks as it should. None if one does not."""
    text = np.frombuffer(whole, np.uint8)
    ends = ends_of_lines(whole)
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    if (ends - starts).min() < _STAMP + 3:
        return None
    digits = text[starts[:, None] + np.arange(_STAMP)] - np.uint8(_ZERO)  # below "0" it wraps to above 9
    first, last = text[starts + _STAMP + 1], text[ends - 1]
    if (digits > 9).any() or (text[starts + _STAMP] != _SPACE).any() or not (
            ((first == _BRACES[0]) | (first == _BRACKETS[0])).all()
            and ((last == _BRACES[1]) | (last == _BRACKETS[1])).all()):
        return None
    stamps = digits.astype(np.int64) @ _PLACES
    if (stamps < 0).any():  # more than 63 bits
        return None
    begin = _STAMP + 1
    return list(zip(stamps.tolist(), [line[begin:] for line in whole[:-1].split(b"\n")]))


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
