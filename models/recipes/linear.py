"""What the recipes of scikit-learn share: a StandardScaler before an estimator, as matrix products in the graph."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from models.calibrate import Calibration
from models.export import as_products, calibrated, graph, layers
from models.recipes import Effort, Rows


class Estimator:
    """A recipe of one row and of candidates that are estimators; `make` takes the seed."""

    window = 1

    def __init__(self, name: str, make: dict[str, Callable[[int], Any]]) -> None:
        self.name, self._make = name, make

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(names)

    def candidates(self) -> tuple[str, ...]:
        return tuple(self._make)

    def fit(self, candidate: str, rows: Rows, train: np.ndarray, held_out: np.ndarray, effort: Effort) -> "Layers":
        pipeline = make_pipeline(StandardScaler(), self._make[candidate](effort.seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a network is stopped early on purpose
            pipeline.fit(rows.take(train).astype(float), rows.labels[train])
        return Layers(pipeline)


class Layers:
    """A fitted pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._around = pipeline[0].mean_.astype(np.float32)
        self._layers = layers(pipeline, self._around)

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """In float64, and not as logarithms of scikit-learn's probabilities, which end at those of the least float."""
        flow = rows.astype(float) - self._around
        for weight, bias in self._layers[:-1]:
            flow = np.maximum(flow @ weight + bias, 0)
        weight, bias = self._layers[-1]
        return flow @ weight + bias

    def as_onnx(self, calibration: Calibration) -> ModelProto:
        nodes, weights = calibrated(*as_products(self._layers, self._around), calibration)
        return graph(nodes, weights, ["N", len(self._layers[0][0])], len(self._layers[-1][1]))
