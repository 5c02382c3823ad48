"""hftbacktest .npz: one structured array of events, `data`, of one symbol.

    ev         kind in the low byte; bit 31 seen by the exchange, 30 seen locally, 29 buy or bid, 28 sell or ask
    exch_ts    local_ts    Unix ns: when it happened, and when it was received
    px, qty    doubles

    1 the new quantity of a price   2 a trade, of the aggressor's side   3 a side is empty from its best price up to
    `px` (both sides entirely where neither is named)   4 a level of a snapshot

Only rows that are seen locally count: the others are the same events in the exchange's order. Rows that follow one
another with the same two times are one change of the book. Prices and quantities come back as the decimals that they
were, see `common.imports.doubles`. Best quotes (5) and single orders (10 to 13) are counted and passed over.
"""

import io
import os
import re
import zipfile
from os import PathLike, fspath
from typing import IO, Callable, Iterable, Iterator

import numpy as np

from common.errors import ConfigError, VenueError
from common.events import Event, Trade
from common.imports.doubles import exact, increment
from common.imports.source import Message, Numbers, Source

DEPTH, TRADE, CLEAR, SNAPSHOT = 1, 2, 3, 4  #: kinds of events
EXCHANGE, LOCAL, BUY, SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28  #: flags

COUNTERS = ("rows", "exchange_only", "passed_over", "unsigned_trades", "empty_trades")
_COLUMNS = ("ev", "exch_ts", "local_ts", "px", "qty")
_PASSED_OVER = (5, 10, 11, 12, 13)
_BLOCK = 1 << 15  #: rows read at a time


def recognise(path: str | PathLike) -> bool:
    return fspath(path).endswith(".npz")


def source(paths: Iterable[str | PathLike], say: Callable[[str], None], symbol: str = "", tick: str = "",
           lot: str = "") -> Source:
    """Files of one symbol, which follow one another: a snapshot to begin with, and days. `symbol` is by default how
    the first file is called. `tick`, `lot`: the increments of its prices and quantities."""
    names = sorted(map(fspath, paths), key=_begin)
    symbol = symbol or re.sub(r"[^!#-\[\]-~]", "_", os.path.basename(names[0]).removesuffix(".npz"))[:64]
    counts = dict.fromkeys(COUNTERS, 0)
    steps = increment(tick, "tick"), increment(lot, "lot")
    return Source("hftbacktest", "vectrade", (symbol,), _Book(counts, *steps).messages(names), True, counts)


class _Book:
    """The book, by price, as far as it is needed to say what an event that empties a side removes."""

    def __init__(self, counts: dict[str, int], tick: int, lot: int) -> None:
        self._counts, self._tick, self._lot = counts, tick, lot
        self._numbers = Numbers(0)
        self._sides: dict[int, dict[int, int]] = {BUY: {}, SELL: {}}
        self._changes: dict[int, dict[int, int]] = {BUY: {}, SELL: {}}
        self._whole = False  # the change is a new book
        self._at = (0, 0)  # exch_ts, local_ts of the change

    def messages(self, names: Iterable[str]) -> Iterator[Message]:
        for name in names:
            first_row = 0
            for block in _blocks(name):
                yield from self._block(name, first_row, block)
                first_row += len(block)
        yield from self._flush()

    def _block(self, name: str, first_row: int, block: np.ndarray) -> Iterator[Message]:
        self._counts["rows"] += len(block)
        rows = np.flatnonzero(block["ev"] & LOCAL)
        self._counts["exchange_only"] += len(block) - len(rows)
        prices, quantities = np.zeros(len(block), np.int64), np.zeros(len(block), np.int64)
        for column, step, target in (("px", self._tick, prices), ("qty", self._lot, quantities)):
            used = np.isin(block["ev"] & 0xFF, (DEPTH, TRADE, SNAPSHOT) + ((CLEAR,) if column == "px" else ()))
            used &= (block["ev"] & LOCAL) != 0
            if used.any():
                target[used] = _exact(block, column, used, step, name, first_row)
        for row, ev, exch_ns, local_ns, px, qty in zip(rows.tolist(), *(values[rows].tolist() for values in (
                block["ev"], block["exch_ts"], block["local_ts"], prices, quantities))):
            kind, side = ev & 0xFF, ev & (BUY | SELL)
            if (exch_ns, local_ns) != self._at or kind == TRADE:
                yield from self._flush()
                self._at = exch_ns, local_ns
            if min(exch_ns, local_ns) < 0 or qty < 0 or (kind in (DEPTH, TRADE, SNAPSHOT) and px <= 0):
                raise VenueError("a time or a number is out of range",
                                 where=f"{name}, row {first_row + row}: {block[row]}")
            if kind == TRADE:
                yield from self._trade(side, exch_ns, local_ns, px, qty)
            elif kind == CLEAR:
                self._clear(side, px)
            elif kind in (DEPTH, SNAPSHOT):
                if side not in self._sides:
                    raise VenueError("a level of neither side or of both",
                                     where=f"{name}, row {first_row + row}: ev={ev:#x}")
                self._whole |= kind == SNAPSHOT
                self._set(side, px, qty)
            elif kind in _PASSED_OVER:
                self._counts["passed_over"] += 1
            else:
                raise VenueError("an event of no known kind", where=f"{name}, row {first_row + row}: ev={ev:#x}")

    def _trade(self, side: int, exch_ns: int, local_ns: int, px: int, qty: int) -> Iterator[Message]:
        if side not in self._sides:
            self._counts["unsigned_trades"] += 1
        elif not qty:
            self._counts["empty_trades"] += 1
        else:
            yield local_ns, [Trade(0, 0, exch_ns, px, qty if side == BUY else -qty)]

    def _set(self, side: int, px: int, qty: int) -> None:
        self._changes[side][px] = qty
        if qty:
            self._sides[side][px] = qty
        else:
            self._sides[side].pop(px, None)

    def _clear(self, side: int, px: int) -> None:
        self._whole = True
        for way in (BUY, SELL):
            if side == way:
                for price in [price for price in self._sides[way] if (price >= px if way == BUY else price <= px)]:
                    del self._sides[way][price]
            elif side not in (BUY, SELL):
                self._sides[way].clear()

    def _flush(self) -> Iterator[Message]:
        """The change that is complete now."""
        changed, whole = any(self._changes.values()), self._whole
        event: Event
        if not changed and not whole:
            return
        exch_ns, local_ns = self._at
        if whole:
            event = self._numbers.snapshot(exch_ns, self._sides[BUY], self._sides[SELL])
        else:
            event = self._numbers.delta(exch_ns, *(list(self._changes[side].items()) for side in (BUY, SELL)))
        self._changes, self._whole = {BUY: {}, SELL: {}}, False
        yield local_ns, [event]


def _exact(block: np.ndarray, column: str, used: np.ndarray, step: int, name: str, first_row: int) -> np.ndarray:
    """`exact`, with the row that is wrong named as it is counted in the file."""
    try:
        return exact(block[column][used], step, "")
    except VenueError:
        for row in np.flatnonzero(used).tolist():
            exact(block[column][row:row + 1], step, f"{name}, {column}", first_row + row)
        raise


def _begin(name: str) -> int:
    """When a file begins."""
    return next((int(block["local_ts"][0]) for block in _blocks(name)), 0)


def _blocks(name: str) -> Iterator[np.ndarray]:
    """The array of a file, some rows at a time: a day is larger than a memory."""
    try:
        archive = zipfile.ZipFile(name)
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError("cannot open an .npz file", where=f"{name}: {error}") from None
    with archive:
        members = archive.namelist()
        member = "data.npy" if "data.npy" in members or len(members) != 1 else members[0]
        if member not in members:
            raise VenueError("an .npz file has no array called data", where=f"{name}: {', '.join(members)}")
        with archive.open(member) as file:
            dtype, count = _header(name, file)
            while count:
                want = min(count, _BLOCK) * dtype.itemsize
                try:
                    content = _read(file, want)
                except (EOFError, OSError, zipfile.BadZipFile) as error:
                    raise VenueError("an .npz file is damaged", where=f"{name}: {error}") from None
                if len(content) < want:
                    raise VenueError("an .npz file is cut off", where=f"{name}: {count} rows are missing")
                count -= want // dtype.itemsize
                yield np.frombuffer(content, dtype)


def _read(file: IO[bytes], size: int) -> bytes:
    parts = io.BytesIO()
    while parts.tell() < size and (part := file.read(size - parts.tell())):
        parts.write(part)
    return parts.getvalue()


def _header(name: str, file: IO[bytes]) -> tuple[np.dtype, int]:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except ValueError as error:
        raise VenueError("an .npz file holds no array", where=f"{name}: {error}") from None
    lacking = [column for column in _COLUMNS if column not in (dtype.names or ())]
    if lacking or len(shape) != 1 or dtype.hasobject:
        raise VenueError("an .npz file is not of the layout of hftbacktest 2", where=(
            f"{name}: {dtype}, shape {shape}"), remedy=f"a structured array with {', '.join(_COLUMNS)} was expected")
    return dtype, shape[0]
