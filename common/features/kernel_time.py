"""What the features count in venue time: t, the windows in seconds, and exponential weights."""

import math

import numpy as np

from common.features.kernel_state import (
    BUCKETS_AT,
    CHANGED_TIME,
    COUNT,
    END_AT,
    ENTRIES,
    EWMA_AT,
    HISTORY,
    HISTORY_AT,
    QUEUE_AT,
    RECORD,
    RETURN,
    SIGNED,
    TIME,
    TIME_0,
    TIME_WORDS,
    TRADED,
    TRADES,
    WARM_AT,
    begin_time,
    entry,
    kernel,
    span,
)
from common.features.table import HALF_SECONDS, HALF_TICKS, WINDOWS_S

_LAST_NS = 2**63 - 1
_BACK_NS = 10_000_000_000
_WIDTHS = np.array([seconds * 1_000_000_000 // ENTRIES for seconds in WINDOWS_S])  #: of the buckets, ns
assert all(seconds * 1_000_000_000 % ENTRIES == 0 for seconds in WINDOWS_S)
_KEPT = np.array([2.0**(-1.0 / half) for half in HALF_TICKS])  #: of a weight, from tick to tick
_FADE = np.array([-math.log(2.0) / 1e9 / half for half in HALF_SECONDS])  #: of a weight, exponent a ns
_TINY = 1e-150  #: below it a faded sum is 0: numbers that are not normal are slow
HALVES = _KEPT.size + _FADE.size


@kernel
def move_time(state, event_ns, warm_up_ns):
    """Move t on to a tick of this venue time; returns by how much it moved, ns, 0 if it began anew."""
    t = state[TIME]
    if event_ns > t:
        moved = event_ns - t
    elif event_ns > 0 and t - event_ns > _BACK_NS:
        begin_time(state)
        t = moved = 0
    else:
        event_ns, moved = t, 0
    if t == 0:
        state[TIME_0] = state[CHANGED_TIME] = event_ns
        moved = 0
    state[TIME] = event_ns
    if state[WARM_AT] == 0 and event_ns > 0 and event_ns - state[TIME_0] >= warm_up_ns:
        state[WARM_AT] = state[COUNT] + 1
    return moved


@kernel
def move_windows(state):
    """Let the windows in seconds move on to t: after COUNT has moved, before the tick in hand is in the history."""
    t = state[TIME]
    if t == 0:
        return
    for window in range(_WIDTHS.size):
        if t < state[END_AT + window]:
            continue
        bucket = t // _WIDTHS[window]
        state[END_AT + window] = min((bucket + 1) * _WIDTHS[window], _LAST_NS)
        queue = QUEUE_AT + 2 * window
        used = state[queue + 1]
        if used and entry(state, window, used - 1)[0] == bucket:
            continue
        while used and entry(state, window, 0)[0] <= bucket - ENTRIES:
            state[queue] += 1
            used -= 1
        state[queue + 1] = used + 1
        fresh = entry(state, window, used)
        fresh[0] = bucket
        at = HISTORY_AT + ((state[COUNT] - 1) & (HISTORY - 1)) * RECORD
        totals = state[at:at + TIME_WORDS]
        for k in range(TIME_WORDS):
            fresh[1 + k] = totals[k]
        if window == _WIDTHS.size - 1:
            _regress(state, window, used)


@kernel
def _regress(state, window, count):
    """What the complete buckets of a window tell of price impact: anew for each bucket, in the order of time."""
    xy = xx = illiquid = 0.0
    traded_in = 0
    for place in range(count):
        old, new = entry(state, window, place)[1:], entry(state, window, place + 1)[1:]
        x, y = span(new, old, SIGNED), span(new, old, RETURN)
        xy += x * y
        xx += x * x
        if new[TRADES] != old[TRADES]:
            traded = span(new, old, TRADED)
            if traded:
                illiquid += abs(y) / traded
                traded_in += 1
    found = state[BUCKETS_AT:BUCKETS_AT + 4].view(np.float64)
    found[0], found[1], found[2], found[3] = xy, xx, illiquid, traded_in


@kernel
def fade(state, moved, r, r2, e, x):
    """Take one tick into the exponential weights."""
    sums = state[EWMA_AT:EWMA_AT + 5 * HALVES].view(np.float64)
    for half in range(HALVES):
        if half < _KEPT.size:
            kept = _KEPT[half]
        else:
            kept = math.exp(_FADE[half - _KEPT.size] * float(moved)) if moved else 1.0
        at = 5 * half
        sums[at] = _normal(sums[at] * kept + r)
        sums[at + 1] = _normal(sums[at + 1] * kept + r2)
        sums[at + 2] = _normal(sums[at + 2] * kept + e)
        sums[at + 3] = _normal(sums[at + 3] * kept + x)
        sums[at + 4] = _normal(sums[at + 4] * kept + abs(x))


@kernel
def _normal(value):
    return value if abs(value) > _TINY else 0.0
