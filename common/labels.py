"""Labels: what became of the mid after a row. The only place that looks ahead, and how far is told with each label.

    move      of the mid over a horizon, in bps, from the mid at the row or a mean of mids
    until_ns  the venue time at which the move is known: nothing that was known before it may have learnt from it
    class     of a move: its sign, or which side of a threshold it lies on

A horizon is a time ("30s", "500ms") or a number of ticks ("100ticks"). Its end is the newest tick at or before that
time, or the tick so many further on. Where the book was lost in between, or the stream ends before, there is no label:
a price that nobody saw is none. Ways to take the move, p_n the mid after tick n, k the ticks of the horizon:

    ""      p_(n+k) / p_n - 1
    "next"  m+ / p_n - 1,  m+ the mean of p_(n+1) .. p_(n+k): equation 3 of Zhang, Zohren, Roberts 2019, DeepLOB,
            arXiv:1808.03668, and the labels of FI-2010 (Ntakaris et al. 2018, arXiv:1705.03233)
    "both"  m+ / m- - 1,  m- the mean of p_(n-k+1) .. p_n: equation 4 of DeepLOB, after Tsantekidis et al. 2017,
            doi:10.1109/CBI.2017.23. DeepLOB's sum for m- has one term more than it divides by; here it has k.

Means are of integer sums, so they are the same wherever a recording begins.
"""

from typing import Literal, NamedTuple

import numpy as np

from common.errors import ConfigError

SMOOTH = ("", "next", "both")
UNKNOWN = -1  #: the class of a row without label
TWO, THREE = ("down", "up"), ("down", "flat", "up")
MOST_S, MOST_TICKS = 7 * 86_400.0, 10**9
_UNITS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_BPS = 1e4


class Horizon(NamedTuple):
    kind: Literal["s", "ticks"]
    length: float  #: seconds of venue time, or ticks

    def __str__(self) -> str:
        return f"{self.length:g}{self.kind}"


def duration(text: str, what: str) -> float:
    """`500ms`, `30s`, `5min`, `1h` or `0` in seconds. Raises ConfigError naming `what`."""
    for unit in sorted(_UNITS, key=len, reverse=True):
        number = text.strip().removesuffix(unit)
        if text.strip().endswith(unit) or text.strip() == "0":
            try:
                found = float(number) * _UNITS[unit]
            except ValueError:
                break
            if 0 <= found <= MOST_S:
                return found
            break
    raise ConfigError("not a duration", where=f"{what}={text}", remedy="write it as 500ms, 30s, 5min or 1h, a week "
                      "at most")


def horizon(text: str) -> Horizon:
    """A horizon from its text. Raises ConfigError where it is none."""
    count = text.strip().removesuffix("ticks").removesuffix("tick").strip()
    if text.strip().endswith(("tick", "ticks")):
        if not count.isdigit() or not 0 < int(count) <= MOST_TICKS:
            raise ConfigError("not a horizon", where=f"horizon={text}", remedy="write it as 30s or 100ticks")
        return Horizon("ticks", int(count))
    seconds = duration(text, "horizon")
    if seconds * 1e9 < 1:
        raise ConfigError("a horizon must be above 0", where=f"horizon={text}")
    return Horizon("s", seconds)


class Way(NamedTuple):
    """The way of one symbol's mid: m rows in order, one a tick on a valid book."""

    time_ns: np.ndarray  #: int64[m], never going back
    bid: np.ndarray  #: int64[m], 1e-8; 0 where that side is empty
    ask: np.ndarray
    seq: np.ndarray  #: int64[m]: where numbers are missing, the book was lost in between


class Moves(NamedTuple):
    move: np.ndarray  #: float64[n], bps; NaN where there is none
    until_ns: np.ndarray  #: int64[n], venue time; where there is none, the end of what was seen of the horizon
    lost: np.ndarray  #: bool[n]: there is none because the book was lost, not because the stream ends
    short: np.ndarray  #: bool[n]: there is none because there are too few ticks to take a mean of


def moves(way: Way, rows: np.ndarray, horizon: Horizon, smooth: str = "") -> Moves:
    """The moves of the mid from `rows`, int64[n] indices of rows that have both sides, over `horizon`.

    Cost: about 0.3 us a row. Raises ConfigError for a way of smoothing that does not exist."""
    if smooth not in SMOOTH:
        raise ConfigError("no such smoothing", where=f"smooth={smooth}", remedy=f"known: {', '.join(SMOOTH[1:])}")
    if not len(rows):
        return Moves(np.empty(0), np.empty(0, np.int64), np.empty(0, bool), np.empty(0, bool))
    time = way.time_ns
    first, last = _stretches(way.seq)
    if horizon.kind == "s":
        length = round(horizon.length * 1e9)
        target = time[rows] + length
        known = time[last[rows]] >= target
        end = np.minimum(np.searchsorted(time, target, side="right") - 1, last[rows])
        start = np.maximum(np.searchsorted(time, time[rows] - length, side="right"), first[rows])
        reaches_back = time[first[rows]] <= time[rows] - length
        until = np.where(known, target, time[last[rows]])
    else:
        length = int(horizon.length)
        known = rows + length <= last[rows]
        end = np.minimum(rows + length, last[rows])
        start = np.maximum(rows - length + 1, first[rows])
        reaches_back = rows - length + 1 >= first[rows]
        until = time[end]
    lost, short = ~known & (last[rows] < len(time) - 1), np.zeros(len(rows), bool)

    # Twice the mid, above what it was at first; rows without both sides have that of the row before.
    both = (way.bid > 0) & (way.ask > 0)
    carried = np.maximum.accumulate(np.where(both, np.arange(len(both)), 0))
    base = int(way.bid[rows[0]] + way.ask[rows[0]])
    above = (way.bid + way.ask - base)[carried]
    after = before = base + above[rows].astype(float)
    if smooth:
        sums = np.concatenate([[0], np.cumsum(above)])
        after = base + (sums[end + 1] - sums[rows + 1]) / np.maximum(end - rows, 1)
        short = known & (end == rows)
        if smooth == "both":
            before = base + (sums[rows + 1] - sums[start]) / (rows + 1 - start)
            # Before the first row with both sides there is no mid to be carried.
            short |= known & (~reaches_back | (start < np.argmax(both)))
        known &= ~short
    else:
        after = base + above[end].astype(float)
    return Moves(np.where(known, (after / before - 1) * _BPS, np.nan), until, lost, short)


def _stretches(seq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row the first and the last row of its stretch, within which no tick is missing."""
    begins = np.concatenate([[0], np.flatnonzero(np.diff(seq) != 1) + 1])
    lengths = np.diff(begins, append=len(seq))
    return np.repeat(begins, lengths), np.repeat(begins + lengths - 1, lengths)


class Threshold(NamedTuple):
    """What a move must exceed to count. "bps": `value`; "spread", "half-spread": that at the row; "balanced": what a
    third of the training rows do not exceed (0, where more than that do not move). To the others, fees are added."""

    kind: Literal["bps", "spread", "half-spread", "balanced"] = "bps"
    value: float = 0.0

    def __str__(self) -> str:
        return f"{self.value:g}bps" if self.kind == "bps" else self.kind


def threshold(text: str) -> Threshold:
    """A threshold from its text: a number of bps, or one of the kinds. Raises ConfigError."""
    if text in ("spread", "half-spread", "balanced"):
        return Threshold(text)
    try:
        value = float(text.removesuffix("bps"))
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e4:
        raise ConfigError("not a threshold", where=f"threshold={text}",
                          remedy="name bps as 1.5, or one of spread, half-spread, balanced")
    return Threshold("bps", value)


def limits(threshold: Threshold, move: np.ndarray, bid: np.ndarray, ask: np.ndarray, train: np.ndarray,
           fee_bps: float = 0.0, classes: int = 3) -> np.ndarray:
    """float64[n]: what |move| of each row must exceed, in bps. `bid`, `ask` are those at the row; `train`, bool[n], the
    rows that "balanced" may look at; `fee_bps` is paid when a position is opened and again when it is closed.

    Raises ConfigError where "balanced" has nothing to look at, or is asked for two classes."""
    fees = 2 * fee_bps
    if threshold.kind == "bps":
        return np.full(len(move), threshold.value + fees)
    if threshold.kind == "balanced":
        if classes != 3:
            raise ConfigError("only three classes can be balanced by a threshold", where=f"classes={classes}")
        seen = np.abs(move[train & ~np.isnan(move)])
        if not len(seen):
            raise ConfigError("a balanced threshold has no training rows to look at", where="threshold=balanced",
                              remedy="take longer recordings, fewer folds or a shorter horizon")
        return np.full(len(move), np.quantile(seen, 1 / 3))
    spread = (ask - bid) / ((ask + bid) / 2) * _BPS
    return spread / (1 if threshold.kind == "spread" else 2) + fees


def classify(move: np.ndarray, limit: np.ndarray, classes: int) -> np.ndarray:
    """int8[n], an index into TWO or THREE; UNKNOWN where there is no move, and with two classes where it does not
    exceed its limit."""
    found = np.full(len(move), UNKNOWN, np.int8)
    up, down = move > limit, move < -limit
    if classes == 3:
        found[~np.isnan(move)] = THREE.index("flat")
    names = THREE if classes == 3 else TWO
    found[up], found[down] = names.index("up"), names.index("down")
    return found
