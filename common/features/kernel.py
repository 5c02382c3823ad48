"""The features in compiled code: one pass over new ticks, O(1) per tick, for one live tick or a day of history.

Every feature over a window is a sum of integers over the last ticks of a run, the difference of two records of running
totals (`common.features.kernel_state`). Integer sums do not drift, do not depend on where they began, and are the same
bits tick by tick or in bulk; floats appear in the last step, from sums to a row. No sum can overflow:

    return     |r| <= ln(2^64) < 2^6 in steps of 2^-47: below 2^53; in two words, as all that follow
    square     at most 2^-10 in steps of 2^-63: 2^53
    quantity   q = hi * 2^32 + lo with |hi| <= 2^31 and 0 <= lo < 2^32; a record adds at most twenty of them
    product    of a pair of trades: factors of at most 26 and 27 bits, four words: 250 of them below 2^62 in each

Only what the columns that are asked for need is computed: a plan (`plan_of`) says which of the WORKS that is.

What ends a run and what bridges two is told in `common.features.table`. ROW_RUN of a row is the number of rows up to
it that are warm and that no invalid, resynchronised or lost tick divides; 0 while there are none. The row of a
tick on an invalid book is written too, all zeros, with ROW_RUN 0.
"""

import hashlib
import math
from collections.abc import Callable, Mapping

import numpy as np

from common import layout
from common.compiled import compiled_fence
from common.errors import ContractError
from common.features.choice import FeatureSet
from common.features.kernel_book import add_scores, expected_move, raw_levels, scores, shape
from common.features.kernel_flow import (
    LOG_STEPS,
    SQUARE_CAP,
    SQUARE_STEPS,
    add_events,
    add_levels,
    add_trade,
    fill_buckets,
    look,
)
from common.features.kernel_state import (
    BIPOWER,
    BRIDGED,
    BROKEN,
    BUCKETS_AT,
    CHANGED_AT,
    CHANGED_TIME,
    COUNT,
    DEPTH,
    DEPTH_10,
    EVENTS,
    EWMA_AT,
    FITTED,
    FLOW,
    IMPACT,
    KERNEL,
    LAST,
    LAST_STEP,
    LEVEL_FLOW,
    LOG_MID,
    LOST,
    NO_ASK,
    NOW_AT,
    NS,
    OBI_1,
    PA,
    PAIR_AT,
    PB,
    QA,
    QB,
    QUEUE_AT,
    RECORD,
    RETURN,
    ROLL,
    ROLL_PAIRS,
    ROW,
    ROW_AT,
    SIGN_PAIRS,
    SIGNED,
    SIGNS,
    SQUARE,
    STATE,
    TICK_AT,
    TICKS,
    TIME,
    TOP,
    TRADE_AT,
    TRADE_NS,
    TRADED,
    TRADES,
    VOLUME_2,
    VPIN,
    VPIN_AT,
    VPIN_BUCKETS,
    WARM_AT,
    WINDOWS,
    WRITTEN,
    add,
    before,
    begin_run,
    entry,
    imbalance,
    kernel,
    newest,
    quantity_at,
    ratio,
    span,
)
from common.features.kernel_time import HALVES, fade, move_time, move_windows
from common.features.table import FEATURES, GROUPS, HALF_SECONDS, HALF_TICKS, LEVELS, LEVELS_Z, WINDOWS_S
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

#: the kernel computes the features in the order of the table, and behind them the fitted columns of the plan
PLACES: dict[str, int] = {feature.name: place for place, feature in enumerate(FEATURES)}
_FITTED_AT = len(FEATURES)
_BASE = len(GROUPS["default"])
_LEVELS, _LEVELS_Z = PLACES[LEVELS[0]], PLACES[LEVELS_Z[0]]
assert _LEVELS == _BASE and LEVELS_Z == tuple(f"{name}_z" for name in LEVELS)


def _at(name: str, *following: str) -> int:
    """Where a feature stands in the row; those that the kernel takes to be `following` it must."""
    assert [PLACES[other] - PLACES[name] for other in following] == list(range(1, 1 + len(following)))
    return PLACES[name]


_OFI = _at("ofi_level_1", *(f"ofi_level_{i}" for i in range(2, 11)), *(f"ofi_20_level_{i}" for i in range(1, 11)))
_SHAPE = _at("depth_slope_bid", "depth_concavity_bid", "depth_slope_ask", "depth_concavity_ask")
_CHANGE = _at(*(f"obi_{k}_change_{window}" for k in (1, 5) for window in (1, 10, 50)))
_EVENT = _at(*(f"{deep}{what}_{side}_{over}" for over in ("100", "10s") for deep in ("", "deep_")
               for side in ("bid", "ask") for what in ("add", "cancel")))
_BIPOWER = _at("bipower_100", "bipower_250", "jump_250")
_MOVES = _at(*(f"{name}_{s}s" for s in WINDOWS_S for name in ("return", "vol", "bipower")), "jump_60s")
_RATES = _at(*(f"{name}_{s}s" for s in WINDOWS_S for name in ("trade_rate", "tick_rate", "trade_imbalance",
                                                                       "turnover")))
_PAIRS = _at("sign_autocorrelation_250", "kyle_lambda_250", "kyle_lambda_60s", "amihud_60s", "roll_spread_250")
_EWMA = _at(*(f"ewma_{name}_{half}" for half in (*HALF_TICKS, *(f"{s}s" for s in HALF_SECONDS))
              for name in ("return", "vol", "ofi", "imbalance")))
_AGE = _at("book_age", "book_age_ticks", "day_sin", "day_cos")

WORKS = ("levels", "levels_z", "mlofi", "shape", "changes", "events", "volatility", "flow", "ewma", "clock", "times")
_RAW, _Z, _MULTI, _FORM, _CHANGES, _CAME, _JUMPS, _TRADES, _FADED, _CLOCK, _TIMES = (1 << k for k in range(len(WORKS)))
KINDS = ("integrated_ofi_100", "micro_price_fitted", "vpin_50")
_INTEGRATED, _EXPECTED, _VPIN = range(len(KINDS))

# The plan: int64[...]. What to compute, for one set of columns.
P_WORKS, P_WARM_UP, P_WARM_UP_NS, P_FITTED = range(4)
P_KINDS = 4  #: of each fitted column: its kind, and where its numbers begin
P_RUNS = P_KINDS + 2 * FITTED  #: of each run of columns that stand side by side in the row, too: RUN numbers
RUN = 3  #: place in the row, length, and whether its columns are bounded, as all but prices and quantities are

_LOW = 2**32 - 1
_BIDS, _ASKS, _QTY = NOW_AT, NOW_AT + 2 * layout.LEVELS, layout.LEVELS
_BRIDGE_NS = 10_000_000_000
_BPS = 1e4
_BOUND = 1e6
_TRADE_AGE_CAP, _TRADE_WINDOW = 60.0, 250
_AGE_CAP, _AGE_TICKS = 60.0, 250
_DAY_NS = 86_400_000_000_000
_PER_SECOND = 1.0 / np.array(WINDOWS_S, np.float64)
_CHANGE_WINDOWS = np.array([1, 10, 50])
_MEANS = np.array([1.0 - 2.0**(-1.0 / half) for half in HALF_TICKS] + [1.0] * len(HALF_SECONDS))
_MICRO_HEAD = 3


def new_state() -> np.ndarray:
    """The state of one symbol before its first tick."""
    return np.zeros(STATE, np.int64)


def plan_of(features: FeatureSet, symbol: str) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel is to compute for one symbol: the plan, int64, and the numbers of the fitted columns, float64.

    Raises ContractError naming feature and symbol where its numbers are missing or wrong, or where there are more than
    FITTED such columns."""
    plan = np.zeros(P_RUNS, np.int64)
    places: list[int] = []
    numbers: list[float] = []
    works, fitted = 0, 0
    for feature, parameters in features.columns:
        works |= _works_of(feature.name, feature.window_s)
        if not feature.fitted:
            places.append(PLACES[feature.name])
            continue
        if fitted == FITTED:
            raise ContractError("there are too many fitted columns", where=f"{feature.name} is one more than {FITTED}",
                                remedy="run fewer models with fitted features side by side")
        plan[P_KINDS + 2 * fitted:P_KINDS + 2 * fitted + 2] = KINDS.index(feature.name), len(numbers)
        places.append(_FITTED_AT + fitted)
        numbers += _checked(feature.name, symbol, parameters)
        fitted += 1
    plan[:P_KINDS] = works, features.warm_up, features.warm_up_ns, fitted
    return np.concatenate([plan, _runs_of(places)]), np.array(numbers or [0.0])


def _runs_of(places: list[int]) -> np.ndarray:
    """The runs of columns that follow one another and are bounded, or not."""
    places_of = np.array(places, np.int64)
    bounded = (places_of < _LEVELS) | (places_of >= _LEVELS_Z)
    begins = np.flatnonzero((np.diff(places_of, prepend=-2) != 1) | np.diff(bounded, prepend=~bounded[:1]))
    return np.stack([places_of[begins], np.diff(begins, append=len(places)), bounded[begins]], axis=1).ravel()


def _works_of(name: str, window_s: float) -> int:
    group = next(group for group, names in GROUPS.items() if name in names)
    if name == "integrated_ofi_100":
        return _MULTI
    if group in ("default", "fitted"):
        return 0
    works = 1 << WORKS.index(group)
    if window_s and works & (_CAME | _JUMPS | _TRADES):
        works |= _TIMES
    return works


def _checked(name: str, symbol: str, parameters: Mapping[str, "np.typing.ArrayLike"]) -> list[float]:
    """The numbers of a fitted feature for one symbol, if they are such as it takes."""
    if symbol not in parameters:
        raise ContractError("a fitted feature has no numbers for a symbol",
                            where=f"{name}: {symbol}; it has {', '.join(sorted(parameters)) or 'none'}",
                            remedy="fit it on recordings of this symbol too (`alpha dataset`), or trade the others")
    numbers = [float(number) for number in parameters[symbol]]
    if not all(map(math.isfinite, numbers)):
        wrong = "they are not all finite"
    elif name == "integrated_ofi_100":
        wrong = "10 weights are needed" if len(numbers) != layout.LEVELS else ""
    elif name == "vpin_50":
        fits = len(numbers) == 1 and 1 <= numbers[0] <= 2**53 and numbers[0].is_integer()
        wrong = "" if fits else "one volume is needed, a whole number of 1e-8 between 1 and 2^53"
    else:
        head = numbers[:_MICRO_HEAD]
        fits = len(head) == _MICRO_HEAD and head[0] > 0 and all(1 <= n <= 1000 and n.is_integer() for n in head[1:])
        fits = fits and len(numbers) == _MICRO_HEAD + int(head[1] * head[2])
        wrong = "" if fits else "tick > 0, n, m (1 to 1000) and n * m moves are needed"
    if wrong:
        raise ContractError("the numbers of a fitted feature are wrong", where=f"{name}: {symbol}: {wrong}; there are "
                            f"{len(numbers)}: {numbers[:4]}", remedy="fit it anew with `alpha dataset`")
    return numbers


@kernel
def _bridges(state):
    """Whether the tick in hand, the first after a resynchronisation, goes on with the run before it."""
    now_before, now = state[NS], state[TICK_AT + EVENT_NS]
    return state[COUNT] > 0 and now_before > 0 and now > 0 and abs(now - now_before) <= _BRIDGE_NS


@kernel
def _absorb(state, bridge, plan, numbers):
    """Take the tick in hand into the history."""
    works = plan[P_WORKS]
    old = newest(state)
    moved = move_time(state, state[TICK_AT + EVENT_NS], plan[P_WARM_UP_NS])
    count = state[COUNT] + 1
    state[COUNT] = count
    if works & _TIMES:
        move_windows(state)
    record = newest(state)
    for k in range(RECORD if works else BIPOWER):
        record[k] = old[k]
    for k in range(FLOW, DEPTH + 2):
        record[k] = old[k]
    look(state)
    pb, qb, pa, qa = state[_BIDS], state[_BIDS + _QTY], state[_ASKS], state[_ASKS + _QTY]

    log_mid = 0
    if qb and qa:
        if pb == state[PB] and pa == state[PA] and state[LOG_MID]:
            log_mid = state[LOG_MID]
        else:
            log_mid = int(np.rint(math.log(float(pb) + float(pa)) * LOG_STEPS))
    step = square = unbroken = 0
    if log_mid and state[LOG_MID]:
        step = log_mid - state[LOG_MID]
        add(record, RETURN, step, 1)
        if not bridge:
            r = float(step) / LOG_STEPS
            square = int(np.rint(min(r * r, SQUARE_CAP) * SQUARE_STEPS))
            add(record, SQUARE, square, 1)
            unbroken = abs(step)
    seen = count > 1 and not bridge
    if seen:
        if pb >= state[PB]:
            add(record, FLOW, qb, 1)
        if pb <= state[PB]:
            add(record, FLOW, state[QB], -1)
        if pa <= state[PA]:
            add(record, FLOW, qa, -1)
        if pa >= state[PA]:
            add(record, FLOW, state[QA], 1)
    traded = 0
    trade = state[TICK_AT + KIND] == KIND_TRADE
    if trade:
        traded = max(state[TICK_AT + TRADE_QTY], -NO_ASK)
        add(record, SIGNED, traded, 1)
        add(record, TRADED, abs(traded), 1)
        state[TRADE_AT], state[TRADE_NS] = count, state[TICK_AT + EVENT_NS]
    add(record, TOP, qb, 1)
    add(record, TOP, qa, 1)
    hi = lo = 0
    for level in range(5):
        bid, ask = state[_BIDS + _QTY + level], state[_ASKS + _QTY + level]
        hi += (bid >> 32) + (ask >> 32)
        lo += (bid & _LOW) + (ask & _LOW)
    record[DEPTH] += hi
    record[DEPTH + 1] += lo

    if works:
        record[TICKS] += 1
        if state[PB] != pb or state[PA] != pa or count == 1:
            state[CHANGED_AT], state[CHANGED_TIME] = count, state[TIME]
        if works & _JUMPS:
            product = float(unbroken) / LOG_STEPS * (float(state[LAST_STEP]) / LOG_STEPS)
            add(record, BIPOWER, int(np.rint(min(product, SQUARE_CAP) * SQUARE_STEPS)), 1)
        state[LAST_STEP] = unbroken
        if works & _FADED:
            x = float(traded)
            flow = span(record, old, FLOW)
            fade(state, moved, float(step) / LOG_STEPS, float(square) / SQUARE_STEPS, flow, x)
        if works & (_MULTI | _CAME):
            add_levels(state, record, seen)
        if works & _CAME and seen:
            add_events(state, record)
        if works & _Z:
            add_scores(state)
        if works & _CHANGES:
            _keep_imbalances(state, record)
        if works & _TRADES:
            if bridge:
                state[PAIR_AT] = 0
            if trade:
                state[LOG_MID] = log_mid
                add_trade(state, record, count, traded)
    state[PB], state[QB], state[PA], state[QA], state[LOG_MID] = pb, qb, pa, qa, log_mid
    state[NS] = state[TICK_AT + EVENT_NS]
    for slot in range(plan[P_FITTED]):
        if trade and plan[P_KINDS + 2 * slot] == _VPIN:
            fill_buckets(state, slot, int(numbers[plan[P_KINDS + 2 * slot + 1]]), traded)


@kernel
def _keep_imbalances(state, record):
    bid = ask = 0.0
    kept = record[OBI_1:OBI_1 + 2].view(np.float64)
    for level in range(5):
        bid += float(state[_BIDS + _QTY + level])
        ask += float(state[_ASKS + _QTY + level])
        if level == 0:
            kept[0] = imbalance(bid, ask)
    kept[1] = imbalance(bid, ask)


@kernel
def _root_mean(new, old, word, count):
    return math.sqrt(span(new, old, word) / SQUARE_STEPS / count) * _BPS


@kernel
def _compute(state, row):
    """The base of the row after the tick in hand, from the sums and the newest book."""
    bid_1, ask_1 = float(state[QB]), float(state[QA])
    bid = ask = bid_3 = ask_3 = bid_5 = ask_5 = bid_far = ask_far = 0.0
    for level in range(layout.LEVELS):
        qb, qa = float(state[_BIDS + _QTY + level]), float(state[_ASKS + _QTY + level])
        bid += qb
        ask += qa
        if level < 5:  # prices from the best, which keeps them exact
            bid_far += qb * float(state[PB] - state[_BIDS + level])
            ask_far += qa * float(state[_ASKS + level] - state[PA])
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
        weighted = 0.5 * spread * imbalance(bid_1, ask_1)
        micro_spread = (below + above) / mid * _BPS
        micro = (bid_5 * above - ask_5 * below) / (bid_5 + ask_5) / mid * _BPS

    to_bps = _BPS / LOG_STEPS
    count = state[COUNT]
    new = newest(state)
    old_1, old_10, old_20, old_50 = before(state, 1), before(state, 10), before(state, 20), before(state, 50)
    old_100, old_200, old_250 = before(state, 100), before(state, 200), before(state, 250)
    depth = span(new, old_1, DEPTH)
    top = span(new, old_100, TOP) / 200.0
    age = _TRADE_AGE_CAP
    if state[TRADE_AT] and count - state[TRADE_AT] < _TRADE_WINDOW:
        now = state[TICK_AT + EVENT_NS]
        if now > 0 and state[TRADE_NS] > 0:
            age = min(max(float(now - state[TRADE_NS]) / 1e9, 0.0), _TRADE_AGE_CAP)
    row[0] = imbalance(bid_1, ask_1)
    row[1] = imbalance(bid_3, ask_3)
    row[2] = imbalance(bid_5, ask_5)
    row[3] = imbalance(bid, ask)
    row[4] = weighted
    row[5] = micro
    row[6] = spread
    row[7] = micro_spread
    row[8] = span(new, old_1, RETURN) * to_bps
    row[9] = span(new, old_10, RETURN) * to_bps
    row[10] = span(new, old_50, RETURN) * to_bps
    row[11] = span(new, old_200, RETURN) * to_bps
    row[12] = _root_mean(new, old_20, SQUARE, 20.0)
    row[13] = _root_mean(new, old_100, SQUARE, 100.0)
    row[14] = _root_mean(new, old_250, SQUARE, 250.0)
    row[15] = ratio(span(new, old_1, FLOW), top)
    row[16] = ratio(span(new, old_20, FLOW), top)
    row[17] = ratio(span(new, old_100, FLOW), top)
    row[18] = ratio(span(new, old_20, SIGNED), span(new, old_20, TRADED))
    row[19] = ratio(span(new, old_100, SIGNED), span(new, old_100, TRADED))
    row[20] = ratio(span(new, old_250, SIGNED), span(new, old_250, TRADED))
    row[21] = age
    row[22] = ratio(bid_1, bid_5) - ratio(ask_1, ask_5)
    row[23] = math.log(depth * 250.0 / span(new, old_250, DEPTH)) if depth else 0.0


@kernel
def _compute_more(state, row, works):
    """The other groups of the row."""
    new = newest(state)
    old_100, old_250 = before(state, 100), before(state, 250)
    top = span(new, old_100, TOP) / 200.0
    per_top = ratio(1.0, top)
    per_depth = ratio(2000.0, span(new, old_100, DEPTH_10)) if works & (_MULTI | _CAME) else 0.0
    if works & _RAW:
        raw_levels(state, row[_LEVELS:_LEVELS + 40])
    if works & _Z:
        scores(state, row[_LEVELS_Z:_LEVELS_Z + 40])
    if works & _MULTI:
        old_20 = before(state, 20)
        for level in range(layout.LEVELS):
            row[_OFI + level] = _flow_at(new, old_100, level) * per_depth
            row[_OFI + layout.LEVELS + level] = _flow_at(new, old_20, level) * per_depth
    if works & _FORM:
        shape(state, row[_SHAPE:_SHAPE + 4])
    if works & _CHANGES:
        for k in range(3):
            window = _CHANGE_WINDOWS[k]
            row[_CHANGE + k] = row[_CHANGE + 3 + k] = 0.0
            if state[COUNT] > window:
                old = before(state, window)[OBI_1:OBI_1 + 2].view(np.float64)
                now = new[OBI_1:OBI_1 + 2].view(np.float64)
                row[_CHANGE + k] = now[0] - old[0]
                row[_CHANGE + 3 + k] = now[1] - old[1]
    if works & _CAME:
        _rates(new, old_100, row[_EVENT:_EVENT + 8], per_top, per_depth)
        if works & _TIMES and state[QUEUE_AT + 3]:
            _rates(new, entry(state, 1, 0)[1:], row[_EVENT + 8:_EVENT + 16], per_top * 0.1, per_depth * 0.1)
        else:
            row[_EVENT + 8:_EVENT + 16] = 0.0
    if works & _JUMPS:
        for k in range(2):
            old, window = (old_100, 100.0) if k == 0 else (old_250, 250.0)
            row[_BIPOWER + k] = _root_mean(new, old, BIPOWER, window) * _HALF_PI_ROOT
        row[_BIPOWER + 2] = _jump(new, old_250)
    if works & _TRADES:
        row[_PAIRS] = ratio(float(new[SIGNS] - old_250[SIGNS]), float(new[SIGN_PAIRS] - old_250[SIGN_PAIRS]))
        row[_PAIRS + 1] = _impact(new, old_250) * top * (_BPS / LOG_STEPS)
        pairs = float(new[ROLL_PAIRS] - old_250[ROLL_PAIRS])
        row[_PAIRS + 4] = 2.0 * _BPS * math.sqrt(max(0.0, -ratio(span(new, old_250, ROLL), pairs)) / SQUARE_STEPS)
    if works & _TIMES:
        _compute_times(state, new, row, works, top, per_top)
    if works & _FADED:
        sums = state[EWMA_AT:EWMA_AT + 5 * HALVES].view(np.float64)
        for half in range(HALVES):
            mean = _MEANS[half]
            row[_EWMA + 4 * half] = sums[5 * half] * mean * _BPS
            row[_EWMA + 4 * half + 1] = math.sqrt(sums[5 * half + 1] * mean) * _BPS
            row[_EWMA + 4 * half + 2] = sums[5 * half + 2] * mean * per_top
            row[_EWMA + 4 * half + 3] = ratio(sums[5 * half + 3], sums[5 * half + 4])
    if works & _CLOCK:
        t = state[TIME]
        row[_AGE] = min(float(t - state[CHANGED_TIME]) / 1e9, _AGE_CAP)
        row[_AGE + 1] = float(min(state[COUNT] - state[CHANGED_AT], _AGE_TICKS))
        angle = float(t % _DAY_NS) * (2.0 * math.pi / _DAY_NS)
        row[_AGE + 2] = math.sin(angle)
        row[_AGE + 3] = math.cos(angle) if t else 0.0


@kernel
def _flow_at(new, old, level):
    hi = float(new[LEVEL_FLOW + level] - old[LEVEL_FLOW + level])
    lo = float(new[LEVEL_FLOW + layout.LEVELS + level] - old[LEVEL_FLOW + layout.LEVELS + level])
    return hi * 2.0**32 + lo


_HALF_PI_ROOT = math.sqrt(math.pi / 2.0)


@kernel
def _rates(new, old, row, per_top, per_depth):
    """float64[8]: came and cancelled, of the best bid, the best ask, ten bids, ten asks."""
    signed, traded = span(new, old, SIGNED), span(new, old, TRADED)
    for k in range(4):
        per = per_top if k < 2 else per_depth
        hit = 0.5 * (traded - signed) if k & 1 == 0 else 0.5 * (traded + signed)
        row[2 * k] = span(new, old, EVENTS + 4 * k) * per
        row[2 * k + 1] = max(span(new, old, EVENTS + 4 * k + 2) - hit, 0.0) * per


@kernel
def _jump(new, old):
    """The share of the realised variance that is not in the bipower variation."""
    total = span(new, old, SQUARE)
    return max(1.0 - 0.5 * math.pi * span(new, old, BIPOWER) / total, 0.0) if total else 0.0


@kernel
def _impact(new, old):
    """sum x y / sum x^2 of pairs of trades, in steps of 2^-47 a 1e-8."""
    xy = xx = 0.0
    for k in range(4):
        scale = 2.0**53 if k == 0 else 2.0**26 if k == 1 else 2.0**27 if k == 2 else 1.0
        xy += float(new[IMPACT + k] - old[IMPACT + k]) * scale
    for k in range(3):
        scale = 2.0**52 if k == 0 else 2.0**26 if k == 1 else 1.0
        xx += float(new[VOLUME_2 + k] - old[VOLUME_2 + k]) * scale
    return ratio(xy, xx)


@kernel
def _compute_times(state, new, row, works, top, per_top):
    """What is summed over the windows in seconds."""
    for window in range(WINDOWS):
        known = state[QUEUE_AT + 2 * window + 1] > 0
        old = entry(state, window, 0)[1:] if known else new
        per_second = _PER_SECOND[window]
        if works & _JUMPS:
            at = _MOVES + 3 * window
            row[at] = span(new, old, RETURN) * (_BPS / LOG_STEPS)
            row[at + 1] = _root_mean(new, old, SQUARE, 1.0)
            row[at + 2] = _root_mean(new, old, BIPOWER, 1.0) * _HALF_PI_ROOT
            if window == WINDOWS - 1:
                row[_MOVES + 9] = _jump(new, old)
        if works & _TRADES:
            at = _RATES + 4 * window
            traded = span(new, old, TRADED)
            row[at] = float(new[TRADES] - old[TRADES]) * per_second
            row[at + 1] = float(new[TICKS] - old[TICKS]) * per_second
            row[at + 2] = ratio(span(new, old, SIGNED), traded)
            row[at + 3] = traded * per_second * per_top
    if not works & _TRADES:
        return
    found = state[BUCKETS_AT:BUCKETS_AT + 4].view(np.float64)
    row[_PAIRS + 2] = ratio(found[0], found[1]) * top * (_BPS / LOG_STEPS)
    row[_PAIRS + 3] = ratio(found[2], found[3]) * top * (_BPS / LOG_STEPS)


@kernel
def _compute_fitted(state, row, plan, numbers):
    for slot in range(plan[P_FITTED]):
        kind, at = plan[P_KINDS + 2 * slot], plan[P_KINDS + 2 * slot + 1]
        value = 0.0
        if kind == _INTEGRATED:
            for level in range(layout.LEVELS):
                value += numbers[at + level] * min(max(row[_OFI + level], -_BOUND), _BOUND)
        elif kind == _EXPECTED:
            value = expected_move(state, numbers[at:])
        else:
            slots = VPIN_AT + slot * VPIN
            full = min(state[slots], VPIN_BUCKETS)
            value = ratio(float(state[slots + 3]), float(full) * numbers[at])
        row[_FITTED_AT + slot] = value


@kernel
def _write(row, runs, one, other):
    """Each run of columns to where it stands, twice, and within its bounds."""
    at = 0
    for run in range(0, runs.size, RUN):
        size, bound = runs[run + 1], _BOUND if runs[run + 2] else math.inf
        part, here, there = row[runs[run]:runs[run] + size], one[at:at + size], other[at:at + size]
        for k in range(size):
            value = part[k]
            value = value if value < bound else bound
            held = np.float32(value if value > -bound else -bound)
            here[k] = held
            there[k] = held
        at += size


def build(table: str) -> Callable[..., int]:
    """The kernel that writes rows; `table` is the hash of the table of features.

    What it closes over is part of the key under which its machine code is cached, so a change of the table of
    features or of the layouts compiles it anew (a changed global alone would not)."""
    values_of_layout = sorted((name, value) for name, value in vars(layout).items() if name.isupper())
    identity = int(hashlib.sha256(f"{table} {values_of_layout}".encode()).hexdigest()[:15], 16)

    @kernel
    def advance(ticks, state, values, meta, last, write_from, now_ns, plan, numbers):
        """Take in the ticks after state[LAST] up to `last`; write the rows from `write_from` on.

        ticks int64[capacity, TICK_WIDTH]; state int64[STATE]; values float32[2 * rows, F];
        meta int64[rows, META_WIDTH]; plan and numbers as of `plan_of`.
        Returns the number of rows written."""
        state[KERNEL] = identity
        first = state[LAST] + 1
        oldest = last - ticks.shape[0] + 1
        if first < oldest:
            if first > 1:
                state[LOST] += oldest - first
            begin_run(state)
            first = oldest
        capacity, written, works = meta.shape[0], 0, plan[P_WORKS]
        runs = plan[P_RUNS:]
        row = state[ROW_AT:ROW_AT + ROW].view(np.float64)
        row[:] = 0.0
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
                begin_run(state)
                continue
            flags, run = state[TICK_AT + FLAGS], 0
            if flags & FLAG_VALID:
                bridge = False
                if flags & FLAG_RESET or state[BROKEN]:
                    bridge = _bridges(state)
                    if not bridge:
                        begin_run(state)
                    state[BROKEN], state[BRIDGED] = 0, state[COUNT]
                _absorb(state, bridge, plan, numbers)
                warm_at = plan[P_WARM_UP]
                if plan[P_WARM_UP_NS]:
                    warm_at = max(warm_at, state[WARM_AT]) if state[WARM_AT] else state[COUNT] + 1
                run = max(min(state[COUNT] - warm_at + 1, state[COUNT] - state[BRIDGED]), 0)
            else:
                state[BROKEN] = 1
            if n < write_from:
                continue
            if flags & FLAG_VALID:
                _compute(state, row)
                if works:
                    _compute_more(state, row, works)
                if plan[P_FITTED]:
                    _compute_fitted(state, row, plan, numbers)
            else:
                row[:] = 0.0
            slot = n & (capacity - 1)
            record = meta[slot]
            record[ROW_SEQ] = 0
            compiled_fence()
            _write(row, runs, values[slot], values[slot + capacity])
            record[ROW_RUN] = run
            record[ROW_FLAGS] = flags
            record[ROW_VENUE_ID] = state[TICK_AT + VENUE_ID]
            record[ROW_EVENT_NS] = state[TICK_AT + EVENT_NS]
            record[ROW_RECV_NS] = state[TICK_AT + RECV_NS]
            record[ROW_BOOK_NS] = state[TICK_AT + BOOK_NS]
            record[ROW_WRITTEN_NS] = now_ns
            record[ROW_BID] = state[TICK_AT + BID_PX] if quantity_at(state, BID_PX, BID_QTY, 0) else 0
            record[ROW_ASK] = state[TICK_AT + ASK_PX] if quantity_at(state, ASK_PX, ASK_QTY, 0) else 0
            record[ROW_KIND] = state[TICK_AT + KIND]
            record[ROW_VOL] = int(np.rint(row[13] * 1e9)) if flags & FLAG_VALID else 0
            compiled_fence()
            record[ROW_SEQ] = n
            state[WRITTEN] = n
            written += 1
        return written

    return advance
