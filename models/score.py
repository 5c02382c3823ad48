"""How good probabilities are, with confidence intervals that know that neighbouring rows are alike. Pure NumPy.

Of two classes, `truth` is 1 for an up-move and 0 for a down-move, and a probability is that of "up"; these functions
take float[n]. Of two classes or three, `truth` is the index of the class, and probabilities are [n, C].
"""

from collections.abc import Callable, Iterator

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """float64[n]: 1 for the least; equal values share the mean of theirs. O(n) of places as `places` gives them."""
    if values.dtype != np.intp:
        values = places(values)
    counts = np.bincount(values)
    return (np.cumsum(counts) - (counts - 1) / 2)[values]


def places(values: np.ndarray) -> np.ndarray:
    """intp[n]: which of the different values, in order, each one is. O(n log n), once; their ranks then cost O(n)."""
    return np.unique(values, return_inverse=True)[1]


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Probability that an up-move scores above a down-move, ties half; NaN with one class."""
    ups = int(truth.sum())
    downs = len(truth) - ups
    if not ups or not downs:
        return float("nan")
    return float((ranks(score)[truth.astype(bool)].sum() - ups * (ups + 1) / 2) / (ups * downs))


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


# ---- two classes or three


def macro_f1(truth: np.ndarray, guess: np.ndarray, classes: int) -> float:
    """Mean over the classes of 2 TP / (2 TP + FP + FN); a class that is neither there nor guessed counts 0."""
    table = np.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)
    right = table.diagonal()
    return float((2 * right / np.maximum(table.sum(0) + table.sum(1), 1)).mean())


def class_brier(truth: np.ndarray, p: np.ndarray) -> float:
    """Half the mean squared distance of the probabilities from what happened: of two classes, `brier`."""
    return float(((p - np.eye(p.shape[1])[truth]) ** 2).sum(1).mean() / 2)


def class_log_loss(truth: np.ndarray, p: np.ndarray) -> float:
    return float(-np.log(np.clip(p[np.arange(len(p)), truth], 1e-9, 1)).mean())


def class_calibration_error(truth: np.ndarray, p: np.ndarray) -> float:
    """Mean over the classes of the expected calibration error of each against the rest (Kull et al. 2019,
    arXiv 1910.12656: classwise-ECE)."""
    return float(np.mean([expected_calibration_error((truth == k).astype(float), p[:, k])
                          for k in range(p.shape[1])]))


def information_coefficient(score: np.ndarray, move: np.ndarray) -> float:
    """Spearman's rank correlation of a score with the realised move; NaN where either does not vary."""
    a, b = ranks(score), ranks(move)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else float("nan")


# ---- intervals


def interval(measure: Callable[[np.ndarray, np.ndarray], float], truth: np.ndarray, score: np.ndarray,
             blocks: np.ndarray, draws: int = 200, seed: int = 0) -> tuple[float, float]:
    """95 % interval of `measure` by drawing whole blocks (rows of one number in `blocks`) with replacement."""
    return interval_of(lambda rows: measure(truth[rows], score[rows]), blocks, draws, seed)


def interval_of(measure: Callable[[np.ndarray], float], blocks: np.ndarray, draws: int = 200,
                seed: int = 0) -> tuple[float, float]:
    """The same of any `measure` of row numbers, such as the difference of two models on the same rows.

    (NaN, NaN) where no draw gives a number. Cost: `draws` times that of `measure`."""
    found = np.array([measure(rows) for rows in resampled(blocks, draws, seed)])
    if np.isnan(found).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def resampled(blocks: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of `draws` samples of as many whole blocks as there are (Künsch 1989, with blocks that do not
    overlap: Carlstein 1986)."""
    order = np.argsort(blocks, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1)
    random = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.concatenate([members[i] for i in random.integers(0, len(members), len(members))])
