"""The recipe runs, and the model that ships is what it says it is."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import models
from common.features.choice import DEFAULT
from common.model import Model
from models import recipe

SHIPPED = Path(models.__file__).with_name("default.onnx")


def test_the_model_that_ships_is_one_for_this_version():
    model = Model.load(SHIPPED)
    assert (model.name, model.window, model.batch_exact) == ("default", 1, True)
    assert sum(model.predict(np.zeros((1, len(DEFAULT.names)), np.float32))) == pytest.approx(1)


def test_it_is_better_than_its_baselines_on_data_that_it_has_not_seen():
    metrics = Model.load(SHIPPED).manifest.metrics
    for where in ("test span", "another market"):
        figures = metrics[where]
        ours = figures["model"]
        assert ours["auc_95"][0] > 0.5 and ours["brier"] < 0.25 and ours["ece"] < 0.1
        assert all(ours["auc"] > figures[name]["auc"] for name in recipe.BASELINES)


def test_the_recipe_runs_from_end_to_end_and_the_model_that_it_makes_loads(tmp_path):
    out = tmp_path / "small.onnx"
    result = CliRunner().invoke(recipe.main, [
        "--minutes", "5", "--fresh-minutes", "2", "--seed", "3", "--rate", "200", "--out", str(out)])
    assert result.exit_code == 0, result.output
    for part in ("chosen:", "test span", "another market", "calibration", "largest difference to scikit-learn"):
        assert part in result.output
    told = Model.load(out).manifest
    assert told.trained["seed"] == 3 and told.horizon_s == 30.0 and len(told.golden["inputs"]) == recipe.GOLDEN
    assert set(told.metrics) == {"test span", "another market"}
