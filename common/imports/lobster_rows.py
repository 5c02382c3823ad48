"""Compiled parts of reading LOBSTER files: text to rows of integers, and what one row of a book is to the next.

A row of a book of N levels is int64[4 N]: ask price, ask shares, bid price, bid shares, best level first; an empty
level has no shares. Costs: 4 ns a digit, and 0.8 us a comparison.
"""

from typing import NamedTuple

import numpy as np

from common.compiled import kernel

_DOT, _COMMA, _MINUS, _NEWLINE, _ZERO = (ord(sign) for sign in ".,-\n0")
_DIGITS = 18  #: that fit into 64 bits whatever they are

EXPLAINED, N_CHANGES, N_NEW, PUSHED, PUSHED_SHARES = range(5)  #: columns of `told`


class Bad(NamedTuple):
    """Where a text is not as it should be."""

    row: int  #: from 0


def parse(text: bytes, places: np.ndarray, rows: int) -> np.ndarray | Bad:
    """int64[rows, n] from `rows` lines, each ended, of at least n = len(places) decimals with commas between; the
    i-th column in units of 10 ** -places[i]. What stands behind the n-th column is not looked at."""
    out = np.empty((rows, len(places)), np.int64)
    bad = _parse(np.frombuffer(text, np.uint8), places, out)
    return out if bad < 0 else Bad(bad)


@kernel
def _parse(text, places, out):
    """The first row that is wrong, or -1."""
    at, width = 0, places.size
    for row in range(out.shape[0]):
        for column in range(width):
            negative = at < text.size and text[at] == _MINUS
            if negative:
                at += 1
            value, digits, after = 0, 0, -1
            while at < text.size and text[at] != _COMMA and text[at] != _NEWLINE:
                sign = text[at]
                at += 1
                if sign == _DOT and after < 0:
                    after = 0
                    continue
                digit = int(sign) - _ZERO
                if digit < 0 or digit > 9 or digits == _DIGITS:
                    return row
                value = 10 * value + digit
                digits += 1
                if after >= 0:
                    after += 1
            after = max(after, 0)
            if digits == 0 or after > places[column] or digits + places[column] - after > _DIGITS:
                return row
            for _ in range(places[column] - after):
                value *= 10
            out[row, column] = -value if negative else value
            if column + 1 < width:
                if at == text.size or text[at] != _COMMA:
                    return row
                at += 1
        while at < text.size and text[at] != _NEWLINE:
            at += 1
        at += 1
    return -1


@kernel
def compare(rows, number, side, price, shares, changes, told):
    """Whether rows[number] is rows[number - 1] with `shares` more (fewer, below 0) at `price` of `side` (1 bids, -1
    asks; 0 shares: nothing changes), one level too many pushed out, and one there was room for come in behind.

    `told`, int64[5]: EXPLAINED or not; N_CHANGES rows of `changes`, int64[>= 2 N + 2, 2], as (price, new shares);
    N_NEW of them, the last, came in; the level PUSHED out, or 0, and its shares."""
    before, now = rows[number - 1], rows[number]
    levels = before.size // 4
    mine = 2 if side > 0 else 0
    told[:] = 0
    for level in range(levels):
        at = 4 * level + 2 - mine
        if before[at + 1] != now[at + 1] or (before[at] != now[at] and now[at + 1] != 0):
            return
    # The side as it should be, walked beside the side as it is. Without a change to place, nothing is waited for.
    placed = shares == 0
    held = count = changed = 0  # levels before; as it should be; rows of `changes`
    for level in range(levels + 1):
        at = 4 * level + mine
        there = level < levels and before[at + 1] != 0
        if there:
            held += 1
        if not placed and (not there or side * price >= side * before[at]):
            placed = True
            left = shares + (before[at + 1] if there and before[at] == price else 0)
            if left < 0 or (shares < 0 and not (there and before[at] == price)):
                return
            if left == 0 or count < levels:
                changes[changed, 0], changes[changed, 1] = price, left
                changed += 1
            if left > 0:
                if not _agrees(now, count, mine, price, left, told):
                    return
                count += 1
            if there and before[at] == price:
                continue
        if there:
            if not _agrees(now, count, mine, before[at], before[at + 1], told):
                return
            count += 1
        else:
            break
    if told[PUSHED] != 0:
        changes[changed, 0], changes[changed, 1] = told[PUSHED], 0
        changed += 1
    for level in range(count, levels):
        at = 4 * level + mine
        if now[at + 1] != 0:
            if held < levels:  # only a full row has more behind it
                return
            changes[changed, 0], changes[changed, 1] = now[at], now[at + 1]
            changed += 1
            told[N_NEW] += 1
    told[N_CHANGES], told[EXPLAINED] = changed, 1


@kernel
def _agrees(now, level, mine, price, shares, told):
    """Whether this level of `now` is so; one behind the last is pushed out."""
    at = 4 * level + mine
    if at < now.size:
        return now[at] == price and now[at + 1] == shares
    told[PUSHED], told[PUSHED_SHARES] = price, shares
    return True
