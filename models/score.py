"""How good probabilities are, with confidence intervals that know that neighbouring rows are alike. Pure NumPy."""

from collections.abc import Callable

import numpy as np


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Probability that an up-move scores above a down-move, ties half; NaN with one class."""
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    first = np.searchsorted(ranked, ranked, side="left")
    last = np.searchsorted(ranked, ranked, side="right")
    rank = np.empty(len(score))
    rank[order] = (first + last + 1) / 2
    ups = int(truth.sum())
    downs = len(truth) - ups
    if not ups or not downs:
        return float("nan")
    return float((rank[truth.astype(bool)].sum() - ups * (ups + 1) / 2) / (ups * downs))


def accuracy(truth: np.ndarray, p: np.ndarray) -> float:
    return float(((p > 0.5) == truth.astype(bool)).mean())


def brier(truth: np.ndarray, p: np.ndarray) -> float:
    """Mean squared error of the probability; 0.25 for a coin."""
    return float(((p - truth) ** 2).mean())


def log_loss(truth: np.ndarray, p: np.ndarray) -> float:
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return float(-np.where(truth > 0, np.log(p), np.log(1 - p)).mean())


def calibration(truth: np.ndarray, p: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean probability, share of up-moves, rows) in bins of equal width, empty ones left out."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    return [(float(p[which == i].mean()), float(truth[which == i].mean()), int((which == i).sum()))
            for i in range(bins) if (which == i).any()]


def expected_calibration_error(truth: np.ndarray, p: np.ndarray, bins: int = 10) -> float:
    return sum(abs(mean - share) * rows for mean, share, rows in calibration(truth, p, bins)) / len(p)


def interval(measure: Callable[[np.ndarray, np.ndarray], float], truth: np.ndarray, score: np.ndarray,
             blocks: np.ndarray, draws: int = 200, seed: int = 0) -> tuple[float, float]:
    """95 % interval of `measure` by drawing whole blocks (rows of one number in `blocks`) with replacement."""
    order = np.argsort(blocks, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1)
    random = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        rows = np.concatenate([members[i] for i in random.integers(0, len(members), len(members))])
        found.append(measure(truth[rows], score[rows]))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)
