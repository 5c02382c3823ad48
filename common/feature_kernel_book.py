"""Features of the newest book alone, and its place among the books of the minute before: levels, z-scores, shape."""

import math

import numpy as np

from common.feature_kernel_state import (
    ALL_LEVELS,
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
)
from common.layout import LEVELS

_BLOCK_NS, _BLOCKS = 10_000_000_000, 6
_COLUMNS = 4 * LEVELS
_UNIT = 1e8
_Z_CAP = 10.0
_BPS = 1e4


@kernel
def raw_levels(state, row):
    """float64[40] in the order of DeepLOB; an absent level is 0."""
    for level in range(LEVELS):
        for side in range(2):
            at = NOW_AT + 2 * LEVELS * (1 - side) + level
            quantity = state[at + LEVELS]
            row[4 * level + 2 * side] = float(state[at]) / _UNIT if quantity else 0.0
            row[4 * level + 2 * side + 1] = float(quantity) / _UNIT


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
    for k in range(_COLUMNS):
        d = float(now[k] - reference[k])
        counts[k] += 1.0
        sums[k] += d
        squares[k] += d * d


@kernel
def _add_some(state, now, reference, counts, sums, squares):
    """As above, where levels are absent or have no reference yet."""
    base = state[Z_STATS:Z_STATS + _COLUMNS]
    stats = state[Z_STATS + _COLUMNS:Z_STATS + 4 * _COLUMNS].view(np.float64)
    whole = 1
    for k in range(_COLUMNS):
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
    at = Z_AT + (block & (Z_BLOCKS - 1)) * Z_BLOCK
    now = state[NOW_AT:NOW_AT + _COLUMNS]
    reference = state[at + 1 + _COLUMNS:at + 1 + 2 * _COLUMNS]
    stats = state[Z_STATS + _COLUMNS:Z_STATS + 4 * _COLUMNS].view(np.float64)
    for level in range(LEVELS):
        for side in range(2):
            for half in range(2):
                k = 2 * LEVELS * (1 - side) + LEVELS * half + level
                z = 0.0
                if block and now[2 * LEVELS * (1 - side) + LEVELS + level]:
                    z = (float(now[k] - reference[k]) + stats[2 * _COLUMNS + k]) * stats[_COLUMNS + k]
                row[4 * level + 2 * side + half] = min(max(z, -_Z_CAP), _Z_CAP)


@kernel
def shape(state, row):
    """float64[4]: slope and concavity of the bids, of the asks."""
    scratch = state[SCRATCH_AT:SCRATCH_AT + 2 * LEVELS].view(np.float64)
    for k in range(4):
        row[k] = 0.0
    if not (state[QB] and state[QA]):
        return
    mid = 0.5 * (float(state[PB]) + float(state[PA]))
    half = 0.5 * float(state[PA] - state[PB])
    for side in range(2):
        at = NOW_AT + 2 * LEVELS * side
        best = state[at]
        total = mean_d = mean_c = 0.0
        levels = 0
        for level in range(LEVELS):
            quantity = float(state[at + LEVELS + level])
            if quantity:
                total += quantity
                away = best - state[at + level] if side == 0 else state[at + level] - best
                d = (half + float(away)) / mid * _BPS
                scratch[level], scratch[LEVELS + level] = d, total
                mean_d += quantity * d
                mean_c += quantity * total
                levels += 1
        last, mean_d, mean_c = 0.0, mean_d / total, mean_c / total / total
        dd = dc = shares = ways = 0.0
        for level in range(LEVELS):
            quantity = float(state[at + LEVELS + level])
            if quantity:
                d, c = scratch[level], scratch[LEVELS + level] / total
                dd += quantity * (d - mean_d) * (d - mean_d)
                dc += quantity * (d - mean_d) * (c - mean_c)
                shares += c
                ways += d
                last = d
        row[2 * side] = dc / dd if dd else 0.0
        row[2 * side + 1] = (shares - ways / last) / levels if last > 0.0 else 0.0


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
