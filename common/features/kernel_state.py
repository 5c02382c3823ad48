"""The state of one symbol in the feature kernel: where what stands, and sums over windows of it.

Each tick of a run adds one record to a history ring. Its words are running totals since the run began, modulo 2^64, so
that the sum over any window is one difference of two records: integers do not drift, do not depend on where they
began, and are exact as long as the sum itself fits. Most quantities take two words, q = hi * 2^32 + lo with
0 <= lo < 2^32, for a sum of 64-bit numbers does not fit one:

    a record adds at most 20 quantities of |hi| <= 2^31 to a total: 2^27 ticks before either word of a sum is full

The windows in seconds are entries: one for each bucket of time that has ticks, which holds the totals before its first
tick. So a sum over time is a difference, too, and of 64 buckets at most 64 entries are kept, oldest first.
"""

from common.compiled import ieee_kernel as kernel
from common.compiled import view
from common.features.table import FEATURES
from common.layout import LEVELS, TICK_WIDTH

# One record: totals, of two words, hi and lo, where nothing else is said. Those up to TIME_WORDS are summed over time.
RETURN, SQUARE, SIGNED, TRADED, BIPOWER = 0, 2, 4, 6, 8
TRADES, TICKS = 10, 11  #: one word
EVENTS = 12  #: came to, went from: best bid, best ask, ten bids, ten asks
TIME_WORDS = 28
FLOW, TOP, DEPTH, DEPTH_10 = 28, 30, 32, 34
LEVEL_FLOW = 36  #: ten hi words, then ten lo words
SIGNS, SIGN_PAIRS, ROLL_PAIRS = 56, 57, 58  #: one word
ROLL = 60
IMPACT = 62  #: x y of a pair in four words of 26 or 27 bits a factor: hh, hl, lh, ll
VOLUME_2 = 66  #: x^2 of a pair: hh, 2 hl, ll
OBI_1, OBI_5 = 70, 71  #: no totals: the values of the tick, as float64
RECORD = 72
HISTORY = 256  #: records kept, a power of two above the longest window

# The state: int64[STATE].
KERNEL = 0  #: names the kernel that filled the state
LAST = 1  #: sequence of the last tick taken in
WRITTEN = 2  #: sequence of the last row written
LOST = 3  #: ticks that were gone before they were read
COUNT = 4  #: ticks of the run so far
PB, QB, PA, QA = 5, 6, 7, 8  #: level 1 of the tick before; an absent side is NO_BID or NO_ASK, 0
LOG_MID = 9  #: ln(Pb_1 + Pa_1) of the tick before, in steps of 2^-47; 0 where undefined (it is above 0 else)
TRADE_AT, TRADE_NS = 10, 11  #: COUNT and venue time of the last trade; COUNT 0: none in this run
BROKEN = 12  #: 1 after a tick on an invalid book
BRIDGED = 13  #: COUNT before the last bridge: rows after it are undivided
NS = 14  #: venue time of the tick before
TIME = 15  #: t of the tick before, 0 while unknown
TIME_0 = 16  #: t of the first tick that is counted in time
WARM_AT = 17  #: COUNT when enough time had passed; 0: not yet
LAST_STEP = 18  #: |r| of the tick before in steps of 2^-47; 0 at a bridge
CHANGED_AT, CHANGED_TIME = 19, 20  #: COUNT and t when the best prices last changed
PAIR_AT, PAIR_X, PAIR_LOG, PAIR_PRICE = 21, 22, 23, 24  #: last trade: COUNT, x, ln(2 mid), ln price; 0: undefined
PAIR_STEP, PAIR_STEPS = 25, 26  #: ln of its price to the one before it; whether that is defined
BLOCK = 27  #: number of the block of the z-scores in hand
Z_WHOLE = 28  #: 1 once each column has a reference in this block
ALL_LEVELS = 29  #: 1 if no level of the tick in hand is absent
TICK_AT = 32  #: a private copy of the tick in hand
NOW_AT = TICK_AT + TICK_WIDTH  #: its levels: bid prices, quantities, ask prices, quantities, absent ones as above
BEFORE_AT = NOW_AT + 4 * LEVELS  #: those of the tick before
WINDOWS = 3  #: windows in seconds
ENTRIES = 64  #: buckets of each
ENTRY = TIME_WORDS + 1  #: number of the bucket, totals before it
QUEUE_AT = BEFORE_AT + 4 * LEVELS  #: per window: first entry, entries
END_AT = QUEUE_AT + 2 * WINDOWS  #: per window: where the bucket in hand ends, ns
BUCKETS_AT = END_AT + WINDOWS  #: float64: sum X Y, sum X^2, sum |Y|/|x|, buckets with trades of the last window
EWMA_AT = BUCKETS_AT + 4  #: float64[5 half-lives, 5]: r, r2, e, x, |x|
Z_AT = EWMA_AT + 25  #: of 8 blocks: number, then per column: n (float64), reference, sum, sum of squares (float64)
Z_BLOCK, Z_BLOCKS = 1 + 16 * LEVELS, 8
Z_STATS = Z_AT + Z_BLOCK * Z_BLOCKS  #: per column: base, then float64: mean above base, 1 / deviation, reference - mean
VPIN_AT = Z_STATS + 16 * LEVELS  #: of FITTED columns: full buckets, filled, signed, sum of |signed|, and 50 of |signed|
VPIN_BUCKETS = 50
VPIN = 4 + VPIN_BUCKETS
FITTED = 8  #: fitted columns of a ring, at most
APART_AT = VPIN_AT + FITTED * VPIN  #: float64: the levels of the tick in hand less their references
SCRATCH_AT = APART_AT + 4 * LEVELS  #: float64[4 * LEVELS], of one feature at a time
ENTRIES_AT = SCRATCH_AT + 4 * LEVELS
HISTORY_AT = ENTRIES_AT + WINDOWS * ENTRIES * ENTRY
ROW_AT = HISTORY_AT + HISTORY * RECORD  #: float64[ROW]: the row in hand, which is made anew for each tick
ROW = len(FEATURES) + FITTED
STATE = ROW_AT + ROW

NO_BID, NO_ASK = 0, 2**63 - 1
_HIGH, _LOW = 2.0**32, 2**32 - 1


@kernel
def begin_run(state):
    """What came before counts no more."""
    for k in range(COUNT, TICK_AT):
        if k != NS:
            state[k] = 0
    for k in range(HISTORY_AT, HISTORY_AT + RECORD):  # of COUNT 0
        state[k] = 0
    for k in range(NOW_AT, QUEUE_AT):
        state[k] = 0
    for k in range(VPIN_AT, APART_AT):
        state[k] = 0
    begin_time(state)


@kernel
def begin_time(state):
    """What is counted in time counts no more."""
    state[TIME] = state[WARM_AT] = state[TIME_0] = state[CHANGED_TIME] = state[BLOCK] = state[Z_WHOLE] = 0
    for k in range(QUEUE_AT, Z_AT):
        state[k] = 0
    for k in range(Z_BLOCKS):
        state[Z_AT + k * Z_BLOCK] = 0
    for k in range(Z_STATS, VPIN_AT):
        state[k] = 0


@kernel
def some(state, count):
    """`count` (above 0), but so that the compiler does not know it: it would unroll a loop of so few rounds before it
    could make vectors of it."""
    return state.size - (STATE - count)


@kernel
def quantity_at(state, px, qty, level):
    """The quantity of a level of the tick in hand; 0 if the level is absent."""
    quantity = state[TICK_AT + qty + level]
    return quantity if quantity > 0 and state[TICK_AT + px + level] > 0 else 0


@kernel
def add(record, word, quantity, sign):
    """Add a signed quantity to the two words of a total."""
    record[word] += sign * (quantity >> 32)
    record[word + 1] += sign * (quantity & _LOW)


@view
def newest(state):
    """The record of the newest tick."""
    at = HISTORY_AT + (state[COUNT] & (HISTORY - 1)) * RECORD
    return state[at:at + RECORD]


@view
def before(state, window):
    """The record `window` ticks before the newest, or the one with which the run began."""
    count = state[COUNT]
    at = HISTORY_AT + ((count - min(window, count)) & (HISTORY - 1)) * RECORD
    return state[at:at + RECORD]


@kernel
def span(new, old, word):
    """The sum of a quantity between two records as a float: exact parts, rounded once."""
    return float(new[word] - old[word]) * _HIGH + float(new[word + 1] - old[word + 1])


@view
def entry(state, window, place):
    """Entry `place` of a window in seconds, 0 = oldest."""
    at = ENTRIES_AT + (window * ENTRIES + ((state[QUEUE_AT + 2 * window] + place) & (ENTRIES - 1))) * ENTRY
    return state[at:at + ENTRY]


@kernel
def ratio(part, whole):
    return part / whole if whole else 0.0


@kernel
def imbalance(bid, ask):
    return ratio(bid - ask, bid + ask)
