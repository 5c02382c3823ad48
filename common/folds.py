"""Walk-forward folds: train on what was known, test on what came after, and a check that it is so.

    edges |----- training of fold 1 -----|- test 1 -|- test 2 -|- test 3 -|
          |--- training of fold 2 (expanding) ------|
                     |- of fold 2 (sliding) --------|

Purged and with an embargo (Lopez de Prado 2018, Advances in Financial Machine Learning, ISBN 978-1-119-48208-6, ch. 7):
what a fold learns is known `embargo` before its test begins, labels included, and no window of its test begins before
that. So no price stands in a label of the one and in a window of the other. Training comes before the test always,
so nothing after it has to be purged.

Times are venue times in Unix ns. All functions are pure.
"""

from typing import NamedTuple

import numpy as np

from common.errors import ConfigError


class Fold(NamedTuple):
    train: np.ndarray  #: bool[n]
    test: np.ndarray  #: bool[n]
    begin_ns: int  #: of the test span
    end_ns: int  #: behind its end


class Violation(NamedTuple):
    """Something that a fold must not have."""

    kind: str  #: "order", "label", "window", "duplicate", "both", "empty"
    count: int  #: samples concerned
    text: str


def edges(first_ns: int, last_ns: int, folds: int) -> list[int]:
    """folds + 2 borders that part the span into equal times: the first training span, then one test span each. Raises
    ConfigError where the span is too short to be parted."""
    if folds < 1:
        raise ConfigError("there must be a fold at least", where=f"folds={folds}")
    span = last_ns + 1 - first_ns
    if span < folds + 1:
        raise ConfigError("the recordings are too short for folds",
                          where=f"folds={folds}, {max(span, 0) / 1e9:g} s once warm",
                          remedy="take longer recordings, fewer folds, or features with shorter windows")
    return [first_ns + span * i // (folds + 1) for i in range(folds + 2)]


def walk_forward(time_ns: np.ndarray, until_ns: np.ndarray, folds: int, embargo_ns: int, *, sliding: bool = False,
                 start_ns: np.ndarray | None = None, borders: list[int] | None = None) -> list[Fold]:
    """The folds over n samples, in any order of time.

    `time_ns` int64[n] when each was made; `until_ns` when its label is known; `start_ns` the time of the first row of
    its window (default: `time_ns`); `borders` as `edges` makes them (default: over `time_ns`). Raises ConfigError."""
    if embargo_ns < 0:
        raise ConfigError("an embargo cannot be below 0", where=f"embargo={embargo_ns} ns")
    if not len(time_ns):
        raise ConfigError("there is nothing to make folds of", where="no sample",
                          remedy="take longer recordings, or a shorter horizon")
    borders = borders or edges(int(time_ns.min()), int(time_ns.max()), folds)
    start = time_ns if start_ns is None else start_ns
    found = []
    for begin, end in zip(borders[1:], borders[2:]):
        known = begin - embargo_ns
        train = (time_ns < begin) & (until_ns <= known)
        if sliding:
            train &= time_ns >= begin - (borders[1] - borders[0])
        test = (time_ns >= begin) & (time_ns < end) & (start >= known)
        found.append(Fold(train, test, begin, end))
    return found


def leakage(fold: Fold, time_ns: np.ndarray, until_ns: np.ndarray, embargo_ns: int = 0, *,
            start_ns: np.ndarray | None = None, keys: np.ndarray | None = None) -> list[Violation]:
    """What of the test could have been known in training: empty if nothing. Found from the samples themselves, whoever
    made the fold. `keys`, [n, k] integers, name what each sample is of: one that is on both sides is a duplicate."""
    train, test = fold.train, fold.test
    found = [Violation("empty", 0, f"no sample to {what}") for what, mask in (("train on", train), ("test", test))
             if not mask.any()]
    if found:
        return found

    def add(kind: str, count: int, text: str) -> None:
        if count:
            found.append(Violation(kind, int(count), text))

    add("both", (train & test).sum(), "samples are trained on and tested")
    begin = int(time_ns[test].min())
    add("order", (time_ns[train] >= begin).sum(), f"training samples are not before the test, which begins at {begin}")
    late = until_ns[train] > begin - embargo_ns
    add("label", late.sum(), f"training labels are known only after {begin - embargo_ns}, {embargo_ns} ns before the "
        f"test begins; the latest at {until_ns[train].max()}")
    if start_ns is not None:
        known = int(until_ns[train].max())
        add("window", (start_ns[test] < known).sum(), f"test windows begin before {known}, up to which training labels "
            "look")
    if keys is not None:
        seen = _rows(keys)
        add("duplicate", np.isin(seen[test], seen[train]).sum(), "test samples are among the training samples, too")
    return found


def _rows(keys: np.ndarray) -> np.ndarray:
    """A row of integers as one value that can be compared."""
    keys = np.ascontiguousarray(keys, np.int64)
    return keys.view([("", np.int64)] * keys.shape[1]).reshape(len(keys))
