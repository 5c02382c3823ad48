"""The two rings: `Books` (one record per tick) and `Rows` (one feature row per tick), each per symbol.

One class serves shared memory and plain memory alike, so that replay, backtest and tests run the code that
runs live. Layouts stand in `common.layout`. Compiled writers fill the arrays directly; what is here is
attaching, and reading with the check that makes a read safe: SEQ before and after.

Capacity, in records per symbol, is a power of two. Memory: 448 bytes a tick, 128 + 8 F bytes a row.
"""

import struct
import time
from typing import NamedTuple, Sequence

import numpy as np

from common import layout
from common.errors import ConfigError
from common.shm import Block, fence

_TICK = struct.Struct(f"<{layout.TICK_WIDTH}q")
_META = struct.Struct(f"<{layout.META_WIDTH}q")
_INT = struct.Struct("<q")
#: SEQ, FLAGS, RECV_NS, BOOK_NS and the best level of each side, in one go
_TOP_COLUMNS = (layout.SEQ, layout.FLAGS, layout.RECV_NS, layout.BOOK_NS, layout.BID_PX, layout.BID_QTY,
                layout.ASK_PX, layout.ASK_QTY)
_TOP = struct.Struct("<" + "".join(f"{8 * (column - before - 1)}xq" for before, column in zip(
    (-1, *_TOP_COLUMNS), _TOP_COLUMNS)))


class Top(NamedTuple):
    """The best prices of a symbol now, 1e-8; zeros where a side is empty."""

    seq: int
    flags: int
    recv_ns: int
    book_ns: int
    bid: int
    bid_qty: int
    ask: int
    ask_qty: int


class _Ring:
    """What both rings share: symbols, heads, and the life of the block beneath.

    `epoch` is the birth of the stream of ticks, Unix ns: sequences start at 1 in each, and go on through
    restarts of any stage. The rows ring has the epoch of the books ring that it was computed from."""

    def __init__(self, symbols: Sequence[str], capacity: int, epoch: int, block: Block | None) -> None:
        if capacity <= 0 or capacity & (capacity - 1):
            raise ConfigError("the capacity of a ring is not a power of two", where=f"capacity={capacity}")
        self.symbols, self.capacity, self.epoch, self.block = tuple(symbols), capacity, epoch, block
        self.heads: np.ndarray  #: int64[n_symbols], newest published seq, 0 = none

    @property
    def tag(self) -> int:
        """The low 32 bits of the epoch: names the stream of ticks in every message behind it."""
        return self.epoch & 0xFFFFFFFF

    @property
    def retired(self) -> bool:
        """True when the writer has gone for good or has begun a new block: attach again."""
        return self.block is not None and self.block.retired

    def close(self) -> None:
        """The writer removes its block; a reader has nothing to do."""
        if self.block is not None:
            self.block.remove()


class Books(_Ring):
    """ticks[s] = table[s]: int64[capacity, TICK_WIDTH]; tick `seq` of symbol s stands in row seq % capacity."""

    def __init__(self, symbols: Sequence[str], capacity: int, epoch: int, block: Block | None) -> None:
        super().__init__(symbols, capacity, epoch, block)
        count, width = len(self.symbols), layout.TICK_WIDTH
        if block is None:
            self.heads = np.zeros(count, np.int64)
            ticks = np.zeros((count, capacity, width), np.int64)
        else:
            self.heads = block.array(np.int64, (count,))
            ticks = block.array(np.int64, (count, capacity, width), _aligned(8 * count))
        self.table, self.ticks = ticks, [ticks[s] for s in range(count)]  # of all symbols, and of each
        self._bytes = [memoryview(t).cast("B") for t in self.ticks]
        self._heads = memoryview(self.heads)

    @classmethod
    def private(cls, symbols: Sequence[str], capacity: int = 4096) -> "Books":
        return cls(symbols, capacity, time.time_ns(), None)

    @classmethod
    def create(cls, instance: str, symbols: Sequence[str], capacity: int, name: str = "books") -> "Books":
        block = Block.create(instance, name, cls.size(symbols, capacity), cls._description(symbols, capacity))
        return cls(symbols, capacity, block.epoch, block)

    @staticmethod
    def size(symbols: Sequence[str], capacity: int) -> int:
        """Bytes of the body of such a block."""
        return _aligned(8 * len(symbols)) + len(symbols) * capacity * layout.TICK_WIDTH * 8

    @classmethod
    def attach(cls, instance: str, name: str = "books") -> "Books":
        """Raises FileNotFoundError while no writer has made it, LayoutError if it is of another layout."""
        block = Block.attach(instance, name, {"ring": "books", "tick": ["int64", layout.TICK_WIDTH],
                                              "levels": layout.LEVELS})
        return cls(block.description["symbols"], block.description["capacity"], block.epoch, block)

    @staticmethod
    def _description(symbols: Sequence[str], capacity: int) -> dict:
        return {"ring": "books", "tick": ["int64", layout.TICK_WIDTH], "levels": layout.LEVELS,
                "capacity": capacity, "symbols": list(symbols)}

    def read(self, symbol: int, seq: int) -> tuple[int, ...] | None:
        """Tick `seq` as TICK_WIDTH ints; None if it was overwritten or is not there. About 2 us."""
        offset = (seq & (self.capacity - 1)) * _TICK.size
        record = _TICK.unpack_from(self._bytes[symbol], offset)
        fence()
        if record[layout.SEQ] != seq or _INT.unpack_from(self._bytes[symbol], offset)[0] != seq:
            return None
        return record

    def newest(self, symbol: int) -> tuple[int, ...] | None:
        """The newest tick; None before the first, or if it was overwritten while being read."""
        head = self._heads[symbol]
        return self.read(symbol, head) if head else None

    def peek(self, symbol: int) -> Top | None:
        """As `top`, unchecked: for the process that writes, between two ticks."""
        head = self._heads[symbol]
        if not head:
            return None
        return tuple.__new__(Top, _TOP.unpack_from(self._bytes[symbol], (head & (self.capacity - 1)) * _TICK.size))

    def top(self, symbol: int) -> Top | None:
        """The best prices of the newest tick; None as for `newest`. About 0.5 us."""
        head = self._heads[symbol]
        if not head:
            return None
        offset, raw = (head & (self.capacity - 1)) * _TICK.size, self._bytes[symbol]
        top = tuple.__new__(Top, _TOP.unpack_from(raw, offset))
        fence()
        return top if top.seq == head and _INT.unpack_from(raw, offset)[0] == head else None


class Rows(_Ring):
    """values[s]: float32[2 * capacity, F]; meta[s]: int64[capacity, META_WIDTH].

    Row `seq` stands in meta[s][seq % capacity] and twice in values[s], at seq % capacity and capacity further,
    so that the W rows that end at `seq` are one contiguous view whatever their position."""

    def __init__(self, symbols: Sequence[str], columns: Sequence[str], capacity: int, epoch: int,
                 block: Block | None) -> None:
        super().__init__(symbols, capacity, epoch, block)
        self.columns = tuple(columns)
        count, width = len(self.symbols), len(self.columns)
        if block is None:
            self.heads = np.zeros(count, np.int64)
            meta = np.zeros((count, capacity, layout.META_WIDTH), np.int64)
            values = np.zeros((count, 2 * capacity, width), np.float32)
        else:
            self.heads = block.array(np.int64, (count,))
            offset = _aligned(8 * count)
            meta = block.array(np.int64, (count, capacity, layout.META_WIDTH), offset)
            offset += meta.nbytes
            values = block.array(np.float32, (count, 2 * capacity, width), offset)
        self.meta = [meta[s] for s in range(count)]
        self.values = [values[s] for s in range(count)]
        self._meta_bytes = [memoryview(m).cast("B") for m in self.meta]
        self._heads = memoryview(self.heads)

    @classmethod
    def private(cls, symbols: Sequence[str], columns: Sequence[str], capacity: int = 4096,
                epoch: int = 1) -> "Rows":
        return cls(symbols, columns, capacity, epoch, None)

    @classmethod
    def create(cls, instance: str, symbols: Sequence[str], columns: Sequence[str], capacity: int,
               table: str, epoch: int, name: str = "rows") -> "Rows":
        """`table` is the hash of the table of features, which readers compare with their own; `epoch` that of the books
        ring: rows of another stream of ticks are another block, as are rows of other columns."""
        block = Block.create(instance, name, cls.size(symbols, columns, capacity), {
            "ring": "rows", "meta": ["int64", layout.META_WIDTH], "columns": list(columns), "table": table,
            "capacity": capacity, "symbols": list(symbols), "epoch": epoch})
        return cls(symbols, columns, capacity, epoch, block)

    @staticmethod
    def size(symbols: Sequence[str], columns: Sequence[str], capacity: int) -> int:
        """Bytes of the body of such a block."""
        count = len(symbols)
        return _aligned(8 * count) + count * capacity * (8 * layout.META_WIDTH + 8 * len(columns))

    @classmethod
    def attach(cls, instance: str, table: str, name: str = "rows") -> "Rows":
        """Raises FileNotFoundError while no writer has made it, LayoutError naming what differs. Which columns it has
        stands in `columns`: a reader takes its own by their labels (`common.features.choice`)."""
        block = Block.attach(instance, name, {"ring": "rows", "meta": ["int64", layout.META_WIDTH], "table": table})
        told = block.description
        return cls(told["symbols"], told["columns"], told["capacity"], told["epoch"], block)

    def window(self, symbol: int, last: int, length: int) -> np.ndarray:
        """The rows last - length + 1 .. last as a [length, F] view, nothing copied, nothing checked."""
        start = (last - length + 1) & (self.capacity - 1)
        return self.values[symbol][start:start + length]

    def read_meta(self, symbol: int, seq: int) -> tuple[int, ...] | None:
        """Meta of row `seq` as META_WIDTH ints; None if it was overwritten or is not there."""
        record = _META.unpack_from(self._meta_bytes[symbol], (seq & (self.capacity - 1)) * _META.size)
        fence()
        return record if record[layout.ROW_SEQ] == seq and self.holds(symbol, seq) else None

    def holds(self, symbol: int, seq: int) -> bool:
        """Whether row `seq` is there and whole. Asked of the oldest row of a window before and after its use:
        the writer overwrites the oldest first, so if that one stands, all stand. About 200 ns."""
        fence()
        offset = (seq & (self.capacity - 1)) * _META.size
        return _INT.unpack_from(self._meta_bytes[symbol], offset)[0] == seq


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
