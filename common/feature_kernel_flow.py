"""What one tick adds to the totals of the history: order flow by level, what came and went, trades and their pairs."""

import math

import numpy as np

from common.feature_kernel_state import (
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
)
from common.layout import ASK_PX, ASK_QTY, BID_PX, BID_QTY, LEVELS, TRADE_PX

LOG_STEPS, SQUARE_STEPS, SQUARE_CAP = 2.0**47, 2.0**63, 2.0**-10
_LOW = 2**32 - 1
_X_CAP = 2**52
_X_LOW, _X_BITS, _Y_LOW, _Y_BITS = 2**26 - 1, 26, 2**27 - 1, 27
PAIR_TICKS = 250  #: two trades further apart are no pair


@kernel
def look(state):
    """The levels of the tick in hand beside those of the tick before."""
    for k in range(4 * LEVELS):
        state[BEFORE_AT + k] = state[NOW_AT + k]
    whole = 1
    for side in range(2):
        px, qty, none = (BID_PX, BID_QTY, NO_BID) if side == 0 else (ASK_PX, ASK_QTY, NO_ASK)
        at = NOW_AT + 2 * LEVELS * side
        for level in range(LEVELS):
            price, quantity = state[TICK_AT + px + level], state[TICK_AT + qty + level]
            present = price > 0 and quantity > 0
            state[at + level] = price if present else none
            state[at + LEVELS + level] = quantity if present else 0
            whole &= present
    state[ALL_LEVELS] = whole


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
    for level in range(LEVELS):
        pb, pb_0, pa, pa_0 = now[level], old[level], now[level + 2 * LEVELS], old[level + 2 * LEVELS]
        a = now[level + LEVELS] if pb >= pb_0 else 0
        b = old[level + LEVELS] if pb <= pb_0 else 0
        c = now[level + 3 * LEVELS] if pa <= pa_0 else 0
        d = old[level + 3 * LEVELS] if pa >= pa_0 else 0
        flow[level] += (a >> 32) - (b >> 32) - (c >> 32) + (d >> 32)
        flow[level + LEVELS] += (a & _LOW) - (b & _LOW) - (c & _LOW) + (d & _LOW)


@kernel
def add_events(state, record):
    """What came to and went from each side since the tick before: at the best level, and over ten."""
    for side in range(2):
        at = 2 * LEVELS * side
        now, old = state[NOW_AT + at:NOW_AT + at + 2 * LEVELS], state[BEFORE_AT + at:BEFORE_AT + at + 2 * LEVELS]
        sign = -1 if side else 1
        word = EVENTS + 4 * side
        better = sign if now[0] > old[0] else -sign
        if now[0] == old[0]:
            more = now[LEVELS] - old[LEVELS]
            add(record, word if more > 0 else word + 2, abs(more), 1)
        elif better > 0:
            add(record, word, now[LEVELS], 1)
        else:
            add(record, word + 2, old[LEVELS], 1)
        word += 8
        same = True
        for level in range(LEVELS):
            same &= now[level] == old[level]
        if same:
            came_hi = came_lo = went_hi = went_lo = 0
            for level in range(LEVELS):
                more = now[LEVELS + level] - old[LEVELS + level]
                came, went = more if more > 0 else 0, -more if more < 0 else 0
                came_hi += came >> 32
                came_lo += came & _LOW
                went_hi += went >> 32
                went_lo += went & _LOW
            record[word] += came_hi
            record[word + 1] += came_lo
            record[word + 2] += went_hi
            record[word + 3] += went_lo
        else:
            _merge(record, word, now, old, sign)


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


