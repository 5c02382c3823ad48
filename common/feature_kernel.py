"""The features in compiled code: one pass over new ticks, O(1) per tick, for one live tick or a day of history.

Every windowed feature is a sum of integers over the last k ticks of a run: each tick adds one record of
increments to a history ring, and each sum adds the new record and subtracts the one that leaves. Integer sums
do not drift, do not depend on where they began, and are the same bits tick by tick or in bulk; floats appear
only in the last step, from sums to a row. No sum can overflow:

    return     |r| <= ln(2^64) < 2^6 in steps of 2^-47: below 2^53; 200 of them: below 2^61
    square     at most 2^-10 in steps of 2^-63: 2^53; 250 of them: below 2^61
    quantity   two words, q = hi * 2^32 + lo with |hi| <= 2^31 and 0 <= lo < 2^32; a record adds at most ten
               of them and a sum at most 250 records: below 2^32 * 10 * 250 < 2^44 in each word

What ends a run and what bridges two is told in `common.features`. ROW_RUN of a row is the number of rows up to
it that are warm and that no invalid, resynchronised or lost tick divides; 0 while there are none. The row of a
tick on an invalid book is written too, all zeros, with ROW_RUN 0.
"""

import hashlib
import math
from collections.abc import Callable
from enum import IntEnum

import numpy as np

from common import layout
from common.compiled import compiled_fence, kernel
from common.layout import (
    ASK_PX,
    ASK_QTY,
    BID_PX,
    BID_QTY,
    BOOK_NS,
    EVENT_NS,
    FLAG_RESET,
    FLAG_VALID,
    FLAGS,
    KIND,
    KIND_TRADE,
    RECV_NS,
    ROW_ASK,
    ROW_BID,
    ROW_BOOK_NS,
    ROW_EVENT_NS,
    ROW_FLAGS,
    ROW_KIND,
    ROW_RECV_NS,
    ROW_RUN,
    ROW_SEQ,
    ROW_VENUE_ID,
    ROW_VOL,
    ROW_WRITTEN_NS,
    SEQ,
    TICK_WIDTH,
    TRADE_QTY,
    VENUE_ID,
)


class Column(IntEnum):
    """The features in the order in which the kernel computes them; `common.features` orders the rows."""

    obi_1 = 0
    obi_3 = 1
    obi_5 = 2
    obi_10 = 3
    weighted_mid = 4
    micro_price = 5
    spread = 6
    micro_spread = 7
    return_1 = 8
    return_10 = 9
    return_50 = 10
    return_200 = 11
    vol_20 = 12
    vol_100 = 13
    vol_250 = 14
    ofi_1 = 15
    ofi_20 = 16
    ofi_100 = 17
    trade_imbalance_20 = 18
    trade_imbalance_100 = 19
    trade_imbalance_250 = 20
    trade_age = 21
    front_tilt = 22
    depth_250 = 23


# One record of the history: the increments of one tick. Quantities take two words, hi and lo.
RETURN, SQUARE, FLOW, SIGNED, TRADED, TOP, DEPTH = 0, 1, 2, 4, 6, 8, 10
RECORD = 12
HISTORY = 256  #: records kept, a power of two above the longest window

# The sums, each of one word over the last so many records.
SUMS = [(RETURN, 1), (RETURN, 10), (RETURN, 50), (RETURN, 200), (SQUARE, 20), (SQUARE, 100), (SQUARE, 250)]
SUMS += [(word + half, window) for word, window in (
    (FLOW, 1), (FLOW, 20), (FLOW, 100), (SIGNED, 20), (SIGNED, 100), (SIGNED, 250), (TRADED, 20),
    (TRADED, 100), (TRADED, 250), (TOP, 100), (DEPTH, 250)) for half in (0, 1)]
_WORDS = np.array([word for word, _ in SUMS])
_WINDOWS = np.array([window for _, window in SUMS])
RETURN_1, RETURN_10, RETURN_50, RETURN_200, SQUARE_20, SQUARE_100, SQUARE_250 = range(7)
(FLOW_1, FLOW_20, FLOW_100, SIGNED_20, SIGNED_100, SIGNED_250, TRADED_20, TRADED_100, TRADED_250, TOP_100,
 DEPTH_250) = range(7, 29, 2)

# The state of one symbol: int64[STATE].
KERNEL = 0  #: names the kernel that filled the state
LAST = 1  #: sequence of the last tick taken in
WRITTEN = 2  #: sequence of the last row written
LOST = 3  #: ticks that were gone before they were read
COUNT = 4  #: ticks of the run so far
PB, QB, PA, QA = 5, 6, 7, 8  #: level 1 of the tick before; an absent side is _NO_BID or _NO_ASK, 0
LOG_MID = 9  #: ln(Pb_1 + Pa_1) of the tick before, in steps of 2^-47; 0 where undefined (it is above 0 else)
TRADE_AT, TRADE_NS = 10, 11  #: COUNT and venue time of the last trade; COUNT 0: none in this run
BROKEN = 12  #: 1 after a tick on an invalid book
BRIDGED = 13  #: COUNT before the last bridge: rows after it are undivided
NS = 14  #: venue time of the tick before
SUMS_AT = 16
TICK_AT = 48  #: a private copy of the tick in hand
ROW_AT = 104  #: the row in hand, as float64
HISTORY_AT = 128
STATE = HISTORY_AT + HISTORY * RECORD
assert SUMS_AT + len(SUMS) <= TICK_AT and TICK_AT + TICK_WIDTH <= ROW_AT and ROW_AT + len(Column) <= HISTORY_AT

_NO_BID, _NO_ASK = 0, 2**63 - 1
_LOG_STEPS, _SQUARE_STEPS, _SQUARE_CAP = 2.0**47, 2.0**63, 2.0**-10
_HIGH, _LOW = 2.0**32, 2**32 - 1
_BRIDGE_NS = 10_000_000_000
_BPS = 1e4
_BOUND = 1e6
_TRADE_AGE_CAP, _TRADE_WINDOW = 60.0, 250


def new_state() -> np.ndarray:
    """The state of one symbol before its first tick."""
    return np.zeros(STATE, np.int64)


@kernel
def _begin_run(state):
    """What came before counts no more. Old records stay, but no sum reaches back beyond the run."""
    state[COUNT] = state[LOG_MID] = state[TRADE_AT] = state[BROKEN] = state[BRIDGED] = 0
    for k in range(SUMS_AT, SUMS_AT + _WORDS.size):
        state[k] = 0


@kernel
def _quantity(state, px, qty, level):
    """The quantity of a level of the tick in hand; 0 if the level is absent."""
    quantity = state[TICK_AT + qty + level]
    return quantity if quantity > 0 and state[TICK_AT + px + level] > 0 else 0


@kernel
def _add(state, word, quantity, sign):
    """Add a signed quantity to the two words of a record."""
    state[word] += sign * (quantity >> 32)
    state[word + 1] += sign * (quantity & _LOW)


@kernel
def _total(state, word):
    """Two words as one float: exact parts, rounded once."""
    return float(state[word]) * _HIGH + float(state[word + 1])


@kernel
def _bridges(state):
    """Whether the tick in hand, the first after a resynchronisation, goes on with the run before it."""
    before, now = state[NS], state[TICK_AT + EVENT_NS]
    return state[COUNT] > 0 and before > 0 and now > 0 and abs(now - before) <= _BRIDGE_NS


@kernel
def _absorb(state, bridge):
    """Take the tick in hand into the history, and move the sums on by one."""
    count = state[COUNT] + 1
    record = HISTORY_AT + (count & (HISTORY - 1)) * RECORD
    for k in range(record, record + RECORD):
        state[k] = 0
    qb, qa = _quantity(state, BID_PX, BID_QTY, 0), _quantity(state, ASK_PX, ASK_QTY, 0)
    pb = state[TICK_AT + BID_PX] if qb else _NO_BID
    pa = state[TICK_AT + ASK_PX] if qa else _NO_ASK

    log_mid = 0
    if qb and qa:
        if pb == state[PB] and pa == state[PA] and state[LOG_MID]:
            log_mid = state[LOG_MID]
        else:
            log_mid = int(np.rint(math.log(float(pb) + float(pa)) * _LOG_STEPS))
    if log_mid and state[LOG_MID]:
        step = log_mid - state[LOG_MID]
        state[record + RETURN] = step
        if not bridge:
            r = float(step) / _LOG_STEPS
            state[record + SQUARE] = int(np.rint(min(r * r, _SQUARE_CAP) * _SQUARE_STEPS))
    if count > 1 and not bridge:
        if pb >= state[PB]:
            _add(state, record + FLOW, qb, 1)
        if pb <= state[PB]:
            _add(state, record + FLOW, state[QB], -1)
        if pa <= state[PA]:
            _add(state, record + FLOW, qa, -1)
        if pa >= state[PA]:
            _add(state, record + FLOW, state[QA], 1)
    if state[TICK_AT + KIND] == KIND_TRADE:
        traded = max(state[TICK_AT + TRADE_QTY], -_NO_ASK)
        _add(state, record + SIGNED, traded, 1)
        _add(state, record + TRADED, abs(traded), 1)
        state[TRADE_AT], state[TRADE_NS] = count, state[TICK_AT + EVENT_NS]
    _add(state, record + TOP, qb, 1)
    _add(state, record + TOP, qa, 1)
    for level in range(5):
        _add(state, record + DEPTH, _quantity(state, BID_PX, BID_QTY, level), 1)
        _add(state, record + DEPTH, _quantity(state, ASK_PX, ASK_QTY, level), 1)

    for k in range(_WORDS.size):
        word, window = _WORDS[k], _WINDOWS[k]
        state[SUMS_AT + k] += state[record + word]
        if count > window:
            state[SUMS_AT + k] -= state[HISTORY_AT + ((count - window) & (HISTORY - 1)) * RECORD + word]
    state[COUNT], state[PB], state[QB], state[PA], state[QA], state[LOG_MID] = count, pb, qb, pa, qa, log_mid
    state[NS] = state[TICK_AT + EVENT_NS]


@kernel
def _ratio(part, whole):
    return part / whole if whole else 0.0


@kernel
def _imbalance(bid, ask):
    return _ratio(bid - ask, bid + ask)


@kernel
def _volatility(state, k, window):
    return math.sqrt(float(state[SUMS_AT + k]) / _SQUARE_STEPS / window) * _BPS


@kernel
def _compute(state, row):
    """The row after the tick in hand, from the sums and the newest book."""
    bid_1, ask_1 = float(state[QB]), float(state[QA])
    bid = ask = bid_3 = ask_3 = bid_5 = ask_5 = bid_far = ask_far = 0.0
    for level in range(layout.LEVELS):
        qb, qa = float(_quantity(state, BID_PX, BID_QTY, level)), float(_quantity(state, ASK_PX, ASK_QTY, level))
        bid += qb
        ask += qa
        if level < 5:  # prices from the best, which keeps them exact
            bid_far += qb * float(state[PB] - state[TICK_AT + BID_PX + level])
            ask_far += qa * float(state[TICK_AT + ASK_PX + level] - state[PA])
        if level == 2:
            bid_3, ask_3 = bid, ask
        if level == 4:
            bid_5, ask_5 = bid, ask

    spread = weighted = micro_spread = micro = 0.0
    if bid_1 and ask_1:
        mid = 0.5 * (float(state[PB]) + float(state[PA]))
        gap = float(state[PA] - state[PB])
        below = 0.5 * gap + bid_far / bid_5  # mid - vb
        above = 0.5 * gap + ask_far / ask_5  # va - mid
        spread = gap / mid * _BPS
        weighted = 0.5 * spread * _imbalance(bid_1, ask_1)
        micro_spread = (below + above) / mid * _BPS
        micro = (bid_5 * above - ask_5 * below) / (bid_5 + ask_5) / mid * _BPS

    to_bps = _BPS / _LOG_STEPS
    count = state[COUNT]
    depth = _total(state, HISTORY_AT + (count & (HISTORY - 1)) * RECORD + DEPTH)
    top = _total(state, SUMS_AT + TOP_100) / 200.0
    age = _TRADE_AGE_CAP
    if state[TRADE_AT] and count - state[TRADE_AT] < _TRADE_WINDOW:
        now = state[TICK_AT + EVENT_NS]
        if now > 0 and state[TRADE_NS] > 0:
            age = min(max(float(now - state[TRADE_NS]) / 1e9, 0.0), _TRADE_AGE_CAP)
    row[Column.obi_1] = _imbalance(bid_1, ask_1)
    row[Column.obi_3] = _imbalance(bid_3, ask_3)
    row[Column.obi_5] = _imbalance(bid_5, ask_5)
    row[Column.obi_10] = _imbalance(bid, ask)
    row[Column.weighted_mid] = weighted
    row[Column.micro_price] = micro
    row[Column.spread] = spread
    row[Column.micro_spread] = micro_spread
    row[Column.return_1] = float(state[SUMS_AT + RETURN_1]) * to_bps
    row[Column.return_10] = float(state[SUMS_AT + RETURN_10]) * to_bps
    row[Column.return_50] = float(state[SUMS_AT + RETURN_50]) * to_bps
    row[Column.return_200] = float(state[SUMS_AT + RETURN_200]) * to_bps
    row[Column.vol_20] = _volatility(state, SQUARE_20, 20.0)
    row[Column.vol_100] = _volatility(state, SQUARE_100, 100.0)
    row[Column.vol_250] = _volatility(state, SQUARE_250, 250.0)
    row[Column.ofi_1] = _ratio(_total(state, SUMS_AT + FLOW_1), top)
    row[Column.ofi_20] = _ratio(_total(state, SUMS_AT + FLOW_20), top)
    row[Column.ofi_100] = _ratio(_total(state, SUMS_AT + FLOW_100), top)
    row[Column.trade_imbalance_20] = _ratio(_total(state, SUMS_AT + SIGNED_20), _total(state, SUMS_AT + TRADED_20))
    row[Column.trade_imbalance_100] = _ratio(_total(state, SUMS_AT + SIGNED_100), _total(state, SUMS_AT + TRADED_100))
    row[Column.trade_imbalance_250] = _ratio(_total(state, SUMS_AT + SIGNED_250), _total(state, SUMS_AT + TRADED_250))
    row[Column.trade_age] = age
    row[Column.front_tilt] = _ratio(bid_1, bid_5) - _ratio(ask_1, ask_5)
    row[Column.depth_250] = math.log(depth * 250.0 / _total(state, SUMS_AT + DEPTH_250)) if depth else 0.0


def build(table: str) -> Callable[..., int]:
    """The kernel that writes rows; `table` is the hash of the table of features.

    What it closes over is part of the key under which its machine code is cached, so a change of the table of
    features or of the layouts compiles it anew (a changed global alone would not)."""
    numbers = sorted((name, value) for name, value in vars(layout).items() if name.isupper())
    identity = int(hashlib.sha256(f"{table} {numbers}".encode()).hexdigest()[:15], 16)

    @kernel
    def advance(ticks, state, values, meta, last, write_from, now_ns, codes, warm_up):
        """Take in the ticks after state[LAST] up to `last`; write the rows from `write_from` on.

        ticks int64[capacity, TICK_WIDTH]; state int64[STATE]; values float32[2 * rows, F];
        meta int64[rows, META_WIDTH]; codes int64[F], the Column of each column of the ring; warm_up in ticks.
        Returns the number of rows written."""
        state[KERNEL] = identity
        first = state[LAST] + 1
        oldest = last - ticks.shape[0] + 1
        if first < oldest:
            if first > 1:
                state[LOST] += oldest - first
            _begin_run(state)
            first = oldest
        capacity, written = meta.shape[0], 0
        for n in range(first, last + 1):
            state[LAST] = n
            tick = ticks[n & (ticks.shape[0] - 1)]
            whole = tick[SEQ] == n
            compiled_fence()
            for k in range(TICK_WIDTH):
                state[TICK_AT + k] = tick[k]
            compiled_fence()
            if not (whole and tick[SEQ] == n):
                state[LOST] += 1
                _begin_run(state)
                continue
            flags, run = state[TICK_AT + FLAGS], 0
            if flags & FLAG_VALID:
                bridge = False
                if flags & FLAG_RESET or state[BROKEN]:
                    bridge = _bridges(state)
                    if not bridge:
                        _begin_run(state)
                    state[BROKEN], state[BRIDGED] = 0, state[COUNT]
                _absorb(state, bridge)
                run = max(min(state[COUNT] - warm_up + 1, state[COUNT] - state[BRIDGED]), 0)
            else:
                state[BROKEN] = 1
            if n < write_from:
                continue
            row = state[ROW_AT:HISTORY_AT].view(np.float64)
            if flags & FLAG_VALID:
                _compute(state, row)
            else:
                row[:] = 0.0
            slot = n & (capacity - 1)
            record = meta[slot]
            record[ROW_SEQ] = 0
            compiled_fence()
            for k in range(codes.size):
                value = np.float32(min(max(row[codes[k]], -_BOUND), _BOUND))
                values[slot, k] = value
                values[slot + capacity, k] = value
            record[ROW_RUN] = run
            record[ROW_FLAGS] = flags
            record[ROW_VENUE_ID] = state[TICK_AT + VENUE_ID]
            record[ROW_EVENT_NS] = state[TICK_AT + EVENT_NS]
            record[ROW_RECV_NS] = state[TICK_AT + RECV_NS]
            record[ROW_BOOK_NS] = state[TICK_AT + BOOK_NS]
            record[ROW_WRITTEN_NS] = now_ns
            record[ROW_BID] = state[TICK_AT + BID_PX] if _quantity(state, BID_PX, BID_QTY, 0) else 0
            record[ROW_ASK] = state[TICK_AT + ASK_PX] if _quantity(state, ASK_PX, ASK_QTY, 0) else 0
            record[ROW_KIND] = state[TICK_AT + KIND]
            record[ROW_VOL] = int(np.rint(min(row[Column.vol_100], _BOUND) * 1e9))
            compiled_fence()
            record[ROW_SEQ] = n
            state[WRITTEN] = n
            written += 1
        return written

    return advance
