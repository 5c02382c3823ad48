"""Gradient-boosted trees, by LightGBM.

LightGBM and not scikit-learn's, because it publishes its trees (`dump_model`), so that the graph is made of the very
splits; stops by rows of our choice, which come later in time; and gives the same trees for the same seed on any number
of threads. Its thresholds are float64 and those of a graph are float32: rounded down, a threshold parts float32 rows as
before, so every row ends in the same leaf, and only the sum over the trees rounds otherwise.
"""

from collections.abc import Sequence
from typing import Any

import lightgbm
import numpy as np
from onnx import ModelProto, helper

from models.calibrate import Calibration
from models.export import calibrated, graph
from models.recipes import Effort, Rows

_ROUNDS, _PATIENCE = 500, 30
_CANDIDATES = {f"{leaves} leaves, rate {rate:g}": {"num_leaves": leaves, "learning_rate": rate}
               for leaves, rate in ((4, 0.05), (15, 0.05), (31, 0.02))}


class Boosting:
    name, window = "boosting", 1

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(names)

    def candidates(self) -> tuple[str, ...]:
        return tuple(_CANDIDATES)

    def fit(self, candidate: str, rows: Rows, train: np.ndarray, held_out: np.ndarray, effort: Effort) -> "Trees":
        classes = len(rows.classes)
        objective = {"objective": "binary"} if classes == 2 else {"objective": "multiclass", "num_class": classes}
        settings = {
            **objective, **_CANDIDATES[candidate], "min_data_in_leaf": max(20, len(train) // 200), "lambda_l2": 1.0,
            "feature_fraction": 0.7, "bagging_fraction": 0.7, "bagging_freq": 1, "seed": effort.seed,
            "deterministic": True, "force_row_wise": True, "num_threads": effort.threads, "verbosity": -1}
        learnt = lightgbm.Dataset(rows.take(train), rows.labels[train])
        later = learnt.create_valid(rows.take(held_out), rows.labels[held_out])
        booster = lightgbm.train(settings, learnt, _ROUNDS, valid_sets=[later],
                                 callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)])
        return Trees(booster, len(rows.columns), classes)


class Trees:
    """A fitted ensemble, as far as its best round."""

    def __init__(self, booster: lightgbm.Booster, width: int, classes: int) -> None:
        self._booster, self._width, self._classes = booster, width, classes

    def logits(self, rows: np.ndarray) -> np.ndarray:
        score = self._booster.predict(rows, raw_score=True, num_iteration=self._booster.best_iteration)
        return score if score.ndim == 2 else np.stack([np.zeros(len(score)), score], axis=1)

    def as_onnx(self, calibration: Calibration) -> ModelProto:
        trees = self._booster.dump_model(num_iteration=self._booster.best_iteration)["tree_info"]
        lists = _Lists()
        for number, tree in enumerate(trees):
            lists.add(number, tree["tree_structure"], 1 if self._classes == 2 else number % self._classes)
        node = helper.make_node("TreeEnsembleRegressor", ["rows"], ["logits"], domain="ai.onnx.ml",
                                n_targets=self._classes, post_transform="NONE", aggregate_function="SUM",
                                **lists.attributes)
        nodes, weights = calibrated([node], [], calibration)
        return graph(nodes, weights, ["N", self._width], self._classes)


class _Lists:
    """Trees as the parallel lists that the operator takes."""

    def __init__(self) -> None:
        names = ("nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_modes", "nodes_values",
                 "nodes_truenodeids", "nodes_falsenodeids", "nodes_missing_value_tracks_true",
                 "target_treeids", "target_nodeids", "target_ids", "target_weights")
        self.attributes: dict[str, list[Any]] = {name: [] for name in names}

    def add(self, tree: int, root: dict[str, Any], target: int) -> None:
        waiting, count = [(0, root)], 1
        while waiting:
            number, node = waiting.pop()
            if "leaf_value" in node:
                self._append("nodes", tree, number, 0, "LEAF", 0.0, 0, 0, 0)
                self._append("target", tree, number, target, node["leaf_value"])
                continue
            left, right, count = count, count + 1, count + 2
            self._append("nodes", tree, number, node["split_feature"], "BRANCH_LEQ", _down(node["threshold"]),
                         left, right, 0)
            waiting += [(left, node["left_child"]), (right, node["right_child"])]

    def _append(self, kind: str, *values: Any) -> None:
        lists = [values_ for name, values_ in self.attributes.items() if name.startswith(kind)]
        for each, value in zip(lists, values, strict=True):
            each.append(value)


def _down(threshold: float) -> float:
    """The greatest float32 that is not above `threshold`: x <= threshold says the same of any float32 x."""
    found = np.float32(threshold)
    below = np.nextafter(found, np.float32(-np.inf))
    return float(found) if float(found) <= threshold else float(below)  # a comparison of float32 would round


RECIPE = Boosting()
