"""Calibration: from a model's logits to probabilities that mean what they say, on rows that it was not fitted on.

    p = softmax(scale * z + shift)

Of two classes this is the logistic curve of Platt (1999, Probabilistic Outputs for Support Vector Machines) on
z_up - z_down; of three, temperature scaling (Guo et al. 2017, arXiv 1706.04599) with a shift for each class. So few
numbers fit into the ONNX graph as two operators; isotonic regression is freer, and on few rows follows the noise.

Rows a second apart whose labels look a minute ahead are one observation and not sixty. Taken for sixty, a minute in
which the price fell would make "down" nearly sure for good. So the log loss counts as much as there are independent
labels, against a Gaussian prior: scale 1 +- 1, and shift 0 +- 0.5, the base rate of the rows that were fitted on.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

_SCALE_SPREAD, _SHIFT_SPREAD = 1.0, 0.5
_MOST = 100.0  #: of the scale


class Calibration(NamedTuple):
    scale: float  #: 0..100; 0: the logits told nothing on the rows held out, and the answer is their base rate
    shift: tuple[float, ...]  #: one for each class

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """float64[n, C]: probabilities of the classes from logits [n, C]."""
        return softmax(self.scale * np.asarray(logits, float) + np.array(self.shift))


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def fit(logits: np.ndarray, truth: np.ndarray, independent: float | None = None) -> Calibration:
    """The likeliest calibration after rows with `logits` [n, C] and classes `truth` int[n], which hold as much as
    `independent` rows (default: n). Convex: one answer, some milliseconds."""
    logits = np.asarray(logits, float)
    classes = logits.shape[1]
    happened = np.eye(classes)[truth]
    count = len(truth) if independent is None else independent
    spread = count * np.array([_SCALE_SPREAD, *[_SHIFT_SPREAD] * classes]) ** 2
    middle = np.array([1.0, *[0.0] * classes])

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        p = softmax(x[0] * logits + x[1:])
        error = (p - happened) / len(p)
        away = x - middle
        gradient = np.concatenate([[(error * logits).sum()], error.sum(0)]) + away / spread
        return -np.log(np.maximum((p * happened).sum(1), 1e-300)).mean() + (away**2 / spread).sum() / 2, gradient

    bounds = [(0.0, _MOST)] + [(None, None)] * classes
    found = minimize(loss, middle, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500}).x
    return Calibration(float(found[0]), tuple(float(x) for x in found[1:]))
