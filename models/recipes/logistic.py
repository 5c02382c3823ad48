"""Logistic regression: the plainest model that weighs all columns, and hard to beat on little data."""

from functools import partial

from sklearn.linear_model import LogisticRegression

from models.recipes.linear import Estimator

RECIPE = Estimator("logistic", {
    f"C={c:g}": partial(lambda c, seed: LogisticRegression(C=c, max_iter=1000), c) for c in (1.0, 0.1, 0.01, 0.001)})
