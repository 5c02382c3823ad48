"""Ticks made by hand and the way from them to rows, for the tests of the features and of their kernel."""

import numpy as np

from common import layout
from common.feature_rows import Features
from common.feature_set import DEFAULT
from common.ring import Books, Rows

MS = 1_000_000
BEGIN_NS = 1_700_000_000_000 * MS
MAX = 2**63 - 1


def make_tick(seq: int, bids: list, asks: list, *, flags: int = layout.FLAG_VALID, traded: int = 0,
              event_ns: int | None = None) -> np.ndarray:
    tick = np.zeros(layout.TICK_WIDTH, np.int64)
    tick[layout.SEQ], tick[layout.FLAGS] = seq, flags
    tick[layout.KIND] = layout.KIND_TRADE if traded else layout.KIND_BOOK
    tick[layout.TRADE_QTY] = traded
    tick[layout.VENUE_ID] = seq + 1000
    tick[layout.EVENT_NS] = BEGIN_NS + 10 * MS * seq if event_ns is None else event_ns
    tick[layout.RECV_NS], tick[layout.BOOK_NS] = seq + 1, seq + 2
    for start, levels in ((layout.BID_PX, bids), (layout.ASK_PX, asks)):
        for i, (price, quantity) in enumerate(levels):
            tick[start + i], tick[start + layout.LEVELS + i] = price, quantity
    return tick


def random_ticks(count: int, seed: int = 1) -> np.ndarray:
    """A walk of books with every kind of tick in it: trades, one-sided and empty books."""
    random = np.random.default_rng(seed)
    found, price = [], 6_000_000
    for seq in range(1, count + 1):
        price += int(random.integers(-1, 2))
        bids = [((price - i) * 10**6, int(random.integers(1, 10**10))) for i in range(10)]
        asks = [((price + 1 + i) * 10**6, int(random.integers(1, 10**10))) for i in range(10)]
        traded = int(random.integers(-10**9, 10**9)) if random.random() < 0.2 else 0
        kept_bids, kept_asks = random.choice([0, 10], 2, p=[0.02, 0.98])
        found.append(make_tick(seq, bids[:kept_bids], asks[:kept_asks], traded=traded))
    return np.array(found)


class Pipe:
    """A books ring, a rows ring and the features between them."""

    def __init__(self, capacity: int = 1024, rows: Rows | None = None, books: Books | None = None) -> None:
        self.books = books or Books.private(("X",), capacity)
        self.rows = rows or Rows.private(("X",), DEFAULT.names, capacity)
        self.features = Features(self.books, self.rows)

    def publish(self, ticks: np.ndarray) -> None:
        for tick in ticks:
            self.books.ticks[0][tick[layout.SEQ] & (self.books.capacity - 1)] = tick
            self.books.heads[0] = tick[layout.SEQ]

    def pass_on(self, ticks: np.ndarray, step: int = 256) -> None:
        """Publish `ticks` and advance after each `step` of them."""
        for start in range(0, len(ticks), step):
            self.publish(ticks[start:start + step])
            self.features.advance(0, int(self.books.heads[0]), 0)

    def row(self, seq: int) -> np.ndarray:
        assert self.rows.meta[0][seq & (self.rows.capacity - 1), layout.ROW_SEQ] == seq
        return self.rows.values[0][seq & (self.rows.capacity - 1)].copy()

    def meta(self, seq: int, name: int) -> int:
        return int(self.rows.meta[0][seq & (self.rows.capacity - 1), name])


def matrix(ticks: np.ndarray, step: int = 256) -> np.ndarray:
    """The rows of `ticks` (numbered on from the first), passed on `step` at a time."""
    capacity = 1 << (len(ticks) + step).bit_length()
    pipe = Pipe(capacity)
    renumbered = ticks.copy()
    renumbered[:, layout.SEQ] = np.arange(1, len(ticks) + 1)
    pipe.pass_on(renumbered, step)
    return pipe.rows.values[0][1:len(ticks) + 1].copy()
