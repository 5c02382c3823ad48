"""Ticks made by hand: a valid book that wanders, for tests that need rows and no venue."""

import numpy as np

from common import layout
from common.fixed import SCALE
from common.ring import Books


def write_ticks(books: Books, symbol: int, count: int, flags: int = layout.FLAG_VALID, seed: int = 1,
                now_ns: int = 0) -> int:
    """`count` more ticks of `symbol`; the very first has FLAG_RESET. Returns the new head."""
    for seq in range(int(books.heads[symbol]) + 1, int(books.heads[symbol]) + count + 1):
        random = np.random.default_rng((seed, symbol, seq))
        record = np.zeros(layout.TICK_WIDTH, np.int64)
        mid = 100 * SCALE + int(random.integers(-50, 50)) * SCALE // 100
        trade = seq % 7 == 0
        record[layout.SEQ] = seq
        record[layout.KIND] = layout.KIND_TRADE if trade else layout.KIND_BOOK
        record[layout.FLAGS] = flags | (layout.FLAG_RESET if seq == 1 else 0)
        record[layout.VENUE_ID] = 1000 + seq
        record[layout.EVENT_NS] = 1_700_000_000_000_000_000 + seq * 10_000_000
        record[layout.RECV_NS] = record[layout.BOOK_NS] = now_ns or seq
        if trade:
            record[layout.TRADE_PX], record[layout.TRADE_QTY] = mid, int(random.integers(-5, 6)) * SCALE
        for level in range(layout.LEVELS):
            record[layout.BID_PX + level] = mid - (level + 1) * SCALE // 100
            record[layout.ASK_PX + level] = mid + (level + 1) * SCALE // 100
            record[layout.BID_QTY + level], record[layout.ASK_QTY + level] = random.integers(1, 100, 2) * SCALE
        slot = books.ticks[symbol][seq & (books.capacity - 1)]
        slot[layout.SEQ] = 0
        slot[1:] = record[1:]
        slot[layout.SEQ] = seq
        books.heads[symbol] = seq
    return int(books.heads[symbol])


def write_top(books: Books, symbol: int, bid: int, ask: int, recv_ns: int, flags: int = layout.FLAG_VALID) -> None:
    """One more tick of `symbol`, with these best prices and nothing else."""
    seq = int(books.heads[symbol]) + 1
    slot = books.ticks[symbol][seq & (books.capacity - 1)]
    slot[:] = 0
    slot[[layout.KIND, layout.FLAGS, layout.RECV_NS, layout.BOOK_NS]] = layout.KIND_BOOK, flags, recv_ns, recv_ns
    slot[layout.BID_PX], slot[layout.ASK_PX] = bid, ask
    slot[layout.SEQ] = books.heads[symbol] = seq
