"""What one tick adds to the totals of the history: order flow by level, what came and went, trades and their pairs."""

import math

import numpy as np

from common.features.kernel_state import (
    ALL_LEVELS,
    BEFORE_AT,
    DEPTH_10,
    EVENTS,
    IMPACT,
    LEVEL_FLOW,
    LOG_MID,
    NO_ASK,
    NO_BID,
    NOW_AT,
    PAIR_AT,
    PAIR_LOG,
    PAIR_PRICE,
    PAIR_STEP,
    PAIR_STEPS,
    PAIR_X,
    ROLL,
    ROLL_PAIRS,
    SIGN_PAIRS,
    SIGNS,
    TICK_AT,
    TRADES,
    VOLUME_2,
    VPIN,
    VPIN_AT,
    VPIN_BUCKETS,
    add,
    kernel,
    some,
)
from common.layout import BID_PX, LEVELS, TRADE_PX

LOG_STEPS, SQUARE_STEPS, SQUARE_CAP = 2.0**47, 2.0**63, 2.0**-10
_LOW = 2**32 - 1
_TEN = np.uint64(LEVELS)
_X_CAP = 2**52
_X_LOW, _X_BITS, _Y_LOW, _Y_BITS = 2**26 - 1, 26, 2**27 - 1, 27
PAIR_TICKS = 250  #: two trades further apart are no pair


@kernel
def look(state):
    """The levels of the tick in hand beside those of the tick before."""
    now, old = state[NOW_AT:NOW_AT + 4 * LEVELS], state[BEFORE_AT:BEFORE_AT + 4 * LEVELS]
    tick = state[TICK_AT + BID_PX:TICK_AT + BID_PX + 4 * LEVELS]
    absent = 0
    for k in range(some(state, 4 * LEVELS)):
        old[k] = now[k]
        now[k] = tick[k]
        absent |= tick[k] | (tick[k] - 1)  # below 0 if one of them is not above 0
    state[ALL_LEVELS] = 1
    if absent < 0:
        state[ALL_LEVELS] = 0
        for k in range(LEVELS):
            if tick[k] <= 0 or tick[LEVELS + k] <= 0:
                now[k], now[LEVELS + k] = NO_BID, 0
            if tick[2 * LEVELS + k] <= 0 or tick[3 * LEVELS + k] <= 0:
                now[2 * LEVELS + k], now[3 * LEVELS + k] = NO_ASK, 0


@kernel
def add_levels(state, record, seen):
    """Depth over ten levels; and where the tick before was `seen`, the order flow of each level."""
    now, old = state[NOW_AT:NOW_AT + 4 * LEVELS], state[BEFORE_AT:BEFORE_AT + 4 * LEVELS]
    hi = lo = 0
    for level in range(LEVELS):
        bid, ask = now[LEVELS + level], now[3 * LEVELS + level]
        hi += (bid >> 32) + (ask >> 32)
        lo += (bid & _LOW) + (ask & _LOW)
    record[DEPTH_10] += hi
    record[DEPTH_10 + 1] += lo
    if not seen:
        return
    flow = record[LEVEL_FLOW:LEVEL_FLOW + 2 * LEVELS]
    for level in range(some(state, LEVELS)):
        pb, pb_0, pa, pa_0 = now[level], old[level], now[level + 2 * LEVELS], old[level + 2 * LEVELS]
        a = now[level + LEVELS] if pb >= pb_0 else 0
        b = old[level + LEVELS] if pb <= pb_0 else 0
        c = now[level + 3 * LEVELS] if pa <= pa_0 else 0
        d = old[level + 3 * LEVELS] if pa >= pa_0 else 0
        bids, asks = a - b, d - c
        flow[level] += (bids >> 32) + (asks >> 32)
        flow[level + LEVELS] += (bids & _LOW) + (asks & _LOW)


@kernel
def add_events(state, record):
    """What came to and went from each side since the tick before: at the best level, and over ten."""
    _add_side(state, record[EVENTS:EVENTS + 12], NOW_AT, BEFORE_AT, 1)
    _add_side(state, record[EVENTS + 4:EVENTS + 16], NOW_AT + 2 * LEVELS, BEFORE_AT + 2 * LEVELS, -1)


@kernel
def _add_side(state, events, now_at, old_at, sign):
    """events int64[12]: came, went of the best level, and of ten 8 words further on."""
    now, old = state[now_at:now_at + 2 * LEVELS], state[old_at:old_at + 2 * LEVELS]
    came = now[LEVELS] if sign * now[0] >= sign * old[0] else 0
    went = old[LEVELS] if sign * now[0] <= sign * old[0] else 0
    more = came - went
    add(events, 0, max(more, 0), 1)
    add(events, 2, max(-more, 0), 1)
    moved = 0
    for level in range(some(state, LEVELS)):
        moved |= now[level] ^ old[level]
    came_hi = came_lo = went_hi = went_lo = 0
    if moved == 0:
        for level in range(some(state, LEVELS)):
            more = now[LEVELS + level] - old[LEVELS + level]
            came, went = max(more, 0), max(-more, 0)
            came_hi += came >> 32
            came_lo += came & _LOW
            went_hi += went >> 32
            went_lo += went & _LOW
    elif now[2 * LEVELS - 1] and old[2 * LEVELS - 1]:  # as _merge, of ten levels each
        i = j = np.uint64(0)
        while i < _TEN and j < _TEN:
            price, price_0 = sign * now[i], sign * old[j]
            came = now[i + _TEN] if price >= price_0 else 0
            went = old[j + _TEN] if price <= price_0 else 0
            more = came - went
            came, went = max(more, 0), max(-more, 0)
            came_hi += came >> 32
            came_lo += came & _LOW
            went_hi += went >> 32
            went_lo += went & _LOW
            i += np.uint64(price >= price_0)
            j += np.uint64(price <= price_0)
    else:
        _merge(events, 8, now, old, sign)
    events[8] += came_hi
    events[9] += came_lo
    events[10] += went_hi
    events[11] += went_lo


@kernel
def _merge(record, word, now, old, sign):
    """Match the levels of two books of one side by price, as far down as both show every level: one that shows all
    ten may have more below."""
    i = j = n_now = n_old = 0
    for level in range(LEVELS):
        n_now += now[LEVELS + level] > 0
        n_old += old[LEVELS + level] > 0
    while i < n_now or j < n_old:
        if (j == n_old and n_old == LEVELS) or (i == n_now and n_now == LEVELS):
            return
        if j == n_old or (i < n_now and sign * now[i] > sign * old[j]):
            add(record, word, now[LEVELS + i], 1)
            i += 1
        elif i == n_now or now[i] != old[j]:
            add(record, word + 2, old[LEVELS + j], 1)
            j += 1
        else:
            more = now[LEVELS + i] - old[LEVELS + j]
            add(record, word if more > 0 else word + 2, abs(more), 1)
            i += 1
            j += 1


@kernel
def add_trade(state, record, count, traded):
    """A trade, and its pair with the one before; LOG_MID is of the tick in hand."""
    record[TRADES] += 1
    log_mid, price = state[LOG_MID], state[TICK_AT + TRADE_PX]
    log_price = int(np.rint(math.log(float(price)) * LOG_STEPS)) + 1 if price > 0 else 0
    if state[PAIR_AT] and count - state[PAIR_AT] <= PAIR_TICKS:
        x = state[PAIR_X]
        record[SIGNS] += _sign(x) * _sign(traded)
        record[SIGN_PAIRS] += 1
        if log_mid and state[PAIR_LOG]:
            y = log_mid - state[PAIR_LOG]
            xh, xl, yh, yl = x >> _X_BITS, x & _X_LOW, y >> _Y_BITS, y & _Y_LOW
            record[IMPACT] += xh * yh
            record[IMPACT + 1] += xh * yl
            record[IMPACT + 2] += xl * yh
            record[IMPACT + 3] += xl * yl
            record[VOLUME_2] += xh * xh
            record[VOLUME_2 + 1] += 2 * xh * xl
            record[VOLUME_2 + 2] += xl * xl
        if log_price and state[PAIR_PRICE]:
            step = log_price - state[PAIR_PRICE]
            if state[PAIR_STEPS]:
                product = float(step) / LOG_STEPS * (float(state[PAIR_STEP]) / LOG_STEPS)
                product = min(max(product, -SQUARE_CAP), SQUARE_CAP)
                add(record, ROLL, int(np.rint(product * SQUARE_STEPS)), 1)
                record[ROLL_PAIRS] += 1
            state[PAIR_STEP], state[PAIR_STEPS] = step, 1
        else:
            state[PAIR_STEPS] = 0
    else:
        state[PAIR_STEPS] = 0
    state[PAIR_AT], state[PAIR_LOG], state[PAIR_PRICE] = count, log_mid, log_price
    state[PAIR_X] = min(max(traded, -_X_CAP), _X_CAP)


@kernel
def _sign(value):
    return 1 if value > 0 else -1 if value < 0 else 0


@kernel
def fill_buckets(state, slot, volume, traded):
    """Put a trade into the volume buckets of fitted column `slot`."""
    at = VPIN_AT + slot * VPIN
    sign, left = _sign(traded), abs(traded)
    if left >= volume * (VPIN_BUCKETS + 1):  # all that is kept becomes buckets of this trade
        left -= (left // volume - VPIN_BUCKETS - 1) * volume
    while left > 0:
        part = min(left, volume - state[at + 1])
        state[at + 1] += part
        state[at + 2] += sign * part
        left -= part
        if state[at + 1] == volume:
            place = at + 4 + state[at] % VPIN_BUCKETS
            state[at + 3] += abs(state[at + 2]) - state[place]
            state[place] = abs(state[at + 2])
            state[at] += 1
            state[at + 1] = state[at + 2] = 0


