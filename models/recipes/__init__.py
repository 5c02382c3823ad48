"""Recipes: each a way to fit logits of the classes to rows or windows, and to write them as an ONNX graph.

Around them `models.training` chooses among a recipe's candidates, calibrates, judges and exports: the same for all.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from onnx import ModelProto

from common.errors import ConfigError
from models.calibrate import Calibration

EXTRAS = {"logistic": "train", "boosting": "train", "mlp": "train", "deeplob": "torch"}  #: recipe -> what it needs


class Rows(Protocol):
    """The examples, read when asked for: a window each, or a row each where the window is 1."""

    window: int
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray  #: int64[n]: index into classes, -1 unknown

    def take(self, index: np.ndarray) -> np.ndarray:
        """float32[k, F] of the examples `index`, or [k, W, F]."""


class Effort(NamedTuple):
    """How a fit is to be made."""

    seed: int = 0
    epochs: int = 20  #: at most; of recipes that learn in epochs
    threads: int = 1
    file: Path | None = None  #: where a long fit keeps its state, to go on from after an interruption
    tell: Callable[[str], None] = lambda words: None  #: hears of the progress


class Fitted(Protocol):
    """What a recipe found."""

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """float64[k, C] for what `Rows.take` gives."""

    def as_onnx(self, calibration: Calibration) -> ModelProto:
        """float32 `rows` [N, F] or [N, W, F] -> `probabilities` [N, C], calibrated."""


class Recipe(Protocol):
    """One way to learn."""

    name: str
    window: int  #: rows that it takes if nothing else is said

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those that it takes of the columns that there are. Raises ContractError where it lacks some."""

    def candidates(self) -> tuple[str, ...]:
        """Settings to choose among, by name."""

    def fit(self, candidate: str, rows: Rows, train: np.ndarray, held_out: np.ndarray, effort: Effort) -> Fitted:
        """Fit on the examples `train`; those `held_out`, which come later, may say when to stop."""


def load(name: str) -> Recipe:
    """The recipe `name`, imported now. Raises ConfigError where a package that it needs is not there."""
    try:
        module: Any = importlib.import_module(f"models.recipes.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"the recipe {name} needs a package that is not installed", where=str(error.name),
                          remedy=f"pip install 'predictive-alpha[{EXTRAS[name]}]'") from None
    return module.RECIPE
