"""A small network: one or two hidden layers, held small by a penalty on its weights."""

from functools import partial

from sklearn.neural_network import MLPClassifier

from models.recipes.linear import Estimator


def _network(units: tuple[int, ...], penalty: float, seed: int) -> MLPClassifier:
    return MLPClassifier(units, alpha=penalty, max_iter=40, random_state=seed)


RECIPE = Estimator("mlp", {
    f"{'-'.join(map(str, units))} units, alpha={penalty:g}": partial(_network, units, penalty)
    for units in ((16,), (32, 16)) for penalty in (0.01, 1.0)})
