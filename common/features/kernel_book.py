"""Features of the newest book alone, and its place among the books of the minute before: levels, z-scores, shape."""

import math

import numpy as np

from common.features.kernel_state import (
    ALL_LEVELS,
    APART_AT,
    BLOCK,
    NOW_AT,
    PA,
    PB,
    QA,
    QB,
    SCRATCH_AT,
    TIME,
    Z_AT,
    Z_BLOCK,
    Z_BLOCKS,
    Z_STATS,
    Z_WHOLE,
    kernel,
    some,
)
from common.layout import LEVELS

_BLOCK_NS, _BLOCKS = 10_000_000_000, 6
_COLUMNS = 4 * LEVELS
_UNIT = 1e-8
_Z_CAP = 10.0
_BPS = 1e4


@kernel
def raw_levels(state, row):
    """float64[40] in the order of DeepLOB; an absent level is 0."""
    now = state[NOW_AT:NOW_AT + _COLUMNS]
    for level in range(LEVELS):
        bid, ask = now[LEVELS + level], now[3 * LEVELS + level]
        row[4 * level] = float(now[2 * LEVELS + level] if ask else 0) * _UNIT
        row[4 * level + 1] = float(ask) * _UNIT
        row[4 * level + 2] = float(now[level]) * _UNIT
        row[4 * level + 3] = float(bid) * _UNIT


@kernel
def add_scores(state):
    """Take the levels of the tick in hand into the block in hand, beginning it if t has reached a new one. Columns
    here are in the order of the state: bid prices, quantities, ask prices, quantities."""
    t = state[TIME]
    if t == 0:
        return
    block = t // _BLOCK_NS
    at = Z_AT + (block & (Z_BLOCKS - 1)) * Z_BLOCK
    if state[BLOCK] != block:
        state[BLOCK], state[Z_WHOLE] = block, 0
        state[at] = block
        for k in range(at + 1, at + Z_BLOCK):
            state[k] = 0
        _judge(state, block)
    now = state[NOW_AT:NOW_AT + _COLUMNS]
    reference = state[at + 1 + _COLUMNS:at + 1 + 2 * _COLUMNS]
    counts = state[at + 1:at + 1 + _COLUMNS].view(np.float64)
    sums = state[at + 1 + 2 * _COLUMNS:at + 1 + 3 * _COLUMNS].view(np.float64)
    squares = state[at + 1 + 3 * _COLUMNS:at + 1 + 4 * _COLUMNS].view(np.float64)
    if not (state[Z_WHOLE] and state[ALL_LEVELS]):
        _add_some(state, now, reference, counts, sums, squares)
        return
    apart = state[APART_AT:APART_AT + _COLUMNS].view(np.float64)
    for k in range(_COLUMNS):
        apart[k] = float(now[k] - reference[k])
    for k in range(some(state, _COLUMNS)):
        d = apart[k]
        counts[k] += 1.0
        sums[k] += d
        squares[k] += d * d


@kernel
def _add_some(state, now, reference, counts, sums, squares):
    """As above, where levels are absent or have no reference yet."""
    base = state[Z_STATS:Z_STATS + _COLUMNS]
    stats = state[Z_STATS + _COLUMNS:Z_STATS + 4 * _COLUMNS].view(np.float64)
    apart = state[APART_AT:APART_AT + _COLUMNS].view(np.float64)
    whole = 1
    for k in range(_COLUMNS):
        d = 0.0
        level, side = k % LEVELS, k // (2 * LEVELS)
        if now[2 * LEVELS * side + LEVELS + level]:
            if reference[k] == 0:
                reference[k] = now[k]
                stats[2 * _COLUMNS + k] = float(now[k] - base[k]) - stats[k]
            d = float(now[k] - reference[k])
            counts[k] += 1.0
            sums[k] += d
            squares[k] += d * d
        elif reference[k] == 0:
            whole = 0
        apart[k] = d
    state[Z_WHOLE] = whole


@kernel
def _judge(state, block):
    """Mean and deviation of each column over the complete blocks before `block`, the oldest first."""
    base = state[Z_STATS:Z_STATS + _COLUMNS]
    stats = state[Z_STATS + _COLUMNS:Z_STATS + 4 * _COLUMNS].view(np.float64)
    for k in range(_COLUMNS):
        base[k] = 0
        count = mean = squares = 0.0
        for one in range(max(block - _BLOCKS, 1), block):
            at = Z_AT + (one & (Z_BLOCKS - 1)) * Z_BLOCK
            told = state[at + 1:at + Z_BLOCK]
            floats = told.view(np.float64)
            if state[at] != one or floats[k] == 0.0:
                continue
            n, total = floats[k], floats[2 * _COLUMNS + k]
            if base[k] == 0:
                base[k] = told[_COLUMNS + k]
            apart = total / n + float(told[_COLUMNS + k] - base[k]) - mean
            count += n
            mean += apart * n / count
            squares += max(floats[3 * _COLUMNS + k] - total * total / n, 0.0) + apart * apart * n * (count - n) / count
        stats[k] = mean
        stats[_COLUMNS + k] = 1.0 / math.sqrt(squares / count) if squares > 0.0 else 0.0
        stats[2 * _COLUMNS + k] = 0.0


@kernel
def scores(state, row):
    """float64[40] in the order of DeepLOB."""
    block = state[BLOCK]
    found = state[SCRATCH_AT:SCRATCH_AT + _COLUMNS].view(np.float64)
    stats = state[Z_STATS + _COLUMNS:Z_STATS + 4 * _COLUMNS].view(np.float64)
    if block and state[Z_WHOLE] and state[ALL_LEVELS]:
        apart = state[APART_AT:APART_AT + _COLUMNS].view(np.float64)
        for k in range(some(state, _COLUMNS)):
            z = (apart[k] + stats[2 * _COLUMNS + k]) * stats[_COLUMNS + k]
            z = z if z < _Z_CAP else _Z_CAP
            found[k] = z if z > -_Z_CAP else -_Z_CAP
    else:
        at = Z_AT + (block & (Z_BLOCKS - 1)) * Z_BLOCK
        now = state[NOW_AT:NOW_AT + _COLUMNS]
        reference = state[at + 1 + _COLUMNS:at + 1 + 2 * _COLUMNS]
        for k in range(_COLUMNS):
            z = 0.0
            if block and now[2 * LEVELS * (k // (2 * LEVELS)) + LEVELS + k % LEVELS]:
                z = (float(now[k] - reference[k]) + stats[2 * _COLUMNS + k]) * stats[_COLUMNS + k]
            found[k] = min(max(z, -_Z_CAP), _Z_CAP)
    for level in range(LEVELS):
        for part in range(4):
            row[4 * level + part] = found[(2 * LEVELS + LEVELS * part) % _COLUMNS + level]


@kernel
def shape(state, row):
    """float64[4]: slope and concavity of the bids, of the asks. Distances are counted from the best price in units of
    prices, and shares in quantity. The sides go hand in hand: one after the other they take twice as long, since each
    is a chain of sums that wait for one another."""
    if not (state[QB] and state[QA]):
        row[:4] = 0.0
        return
    book = state[NOW_AT:NOW_AT + _COLUMNS]
    bids = asks = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for level in range(LEVELS):
        bids = _take_in(bids, float(book[LEVELS + level]), float(book[0] - book[level]))
        asks = _take_in(asks, float(book[3 * LEVELS + level]), float(book[2 * LEVELS + level] - book[2 * LEVELS]))
    bps = (float(state[PB]) + float(state[PA])) * (0.5 / _BPS)
    half = 0.5 * float(state[PA] - state[PB])
    row[0], row[1] = _form(bids, half, bps)
    row[2], row[3] = _form(asks, half, bps)


@kernel
def _take_in(sums, q, d):
    """One more level of a side: its quantity q (0: absent), d from the best price; c = the quantity up to it."""
    c, qd, qc, qdd, qdc, last, ways, shares, levels = sums
    present = 1.0 if q else 0.0
    d = d if q else 0.0
    c += q
    return (c, qd + q * d, qc + q * c, qdd + q * d * d, qdc + q * d * c, d if q else last, ways + d,
            shares + c * present, levels + present)


@kernel
def _form(sums, half, bps):
    """Slope and concavity of one side, of which the best level is present; `bps` units of prices are a basis point. The
    moments about the means come from those about the best price: a book has ten levels, so the difference costs a few
    digits at most."""
    total, qd, qc, qdd, qdc, last, ways, shares, levels = sums
    share = 1.0 / total
    dd = qdd - qd * qd * share
    last += half
    slope = (qdc - qd * qc * share) / dd * share * bps if dd else 0.0
    return slope, shares * share / levels - (ways / levels + half) / last if last > 0.0 else 0.0


@kernel
def expected_move(state, numbers):
    """Stoikov's table at the book in hand, in bps of mid. numbers: tick, n, m, then g* [n, m]."""
    if not (state[QB] and state[QA]):
        return 0.0
    tick, n, m = numbers[0], int(numbers[1]), int(numbers[2])
    qb, qa = float(state[QB]), float(state[QA])
    i = min(int(qb / (qb + qa) * n), n - 1)
    apart = np.rint(float(state[PA] - state[PB]) / tick)
    j = int(min(max(apart, 1.0), float(m))) - 1
    return numbers[3 + i * m + j] * tick / (0.5 * (float(state[PB]) + float(state[PA]))) * _BPS
