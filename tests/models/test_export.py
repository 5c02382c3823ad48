"""Exported models compute what scikit-learn computed, and what a general converter writes is accepted too."""

import json

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.features.choice import DEFAULT
from common.manifest import Manifest
from common.model import Model
from models.export import as_onnx, save

WIDTH = len(DEFAULT.names)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    random = np.random.default_rng(2)
    return (random.standard_normal((400, WIDTH)) * random.uniform(0.01, 50, WIDTH) + 5).astype(np.float32)


@pytest.fixture(scope="module")
def truth(rows) -> np.ndarray:
    random = np.random.default_rng(3)
    z = (rows - rows.mean(0)) / rows.std(0) @ random.standard_normal(WIDTH)
    return (z + random.standard_normal(len(z)) > 0).astype(float)


def manifest(**more) -> Manifest:
    return Manifest("m", DEFAULT.schema, DEFAULT.names, 1, 30.0, ("down", "up"), **more)


@pytest.mark.parametrize("estimator", [
    LogisticRegression(), MLPClassifier((8,), max_iter=20, random_state=0),
    MLPClassifier((8, 4), max_iter=20, random_state=0)], ids=str)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_exported_model_gives_the_probabilities_of_scikit_learn(tmp_path, rows, truth, estimator):
    trained = make_pipeline(StandardScaler(), estimator).fit(rows, truth)
    golden = [rows[i:i + 1] for i in range(3)]
    model = save(as_onnx(trained), tmp_path / "deep" / "m.onnx", manifest(output="probabilities"), golden)
    found = model.predict_batch(rows[:, None, :])
    np.testing.assert_allclose(found, trained.predict_proba(rows)[:, ::-1], atol=2e-6)
    assert model.batch_exact and model.manifest.golden["outputs"][2] == list(model.predict(golden[2]))
    assert found.tolist() == [list(model.predict(row[None])) for row in rows]


def test_the_same_model_is_exported_to_the_same_bytes(tmp_path, rows, truth):
    trained = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, truth)
    for name in ("a", "b"):
        save(as_onnx(trained), tmp_path / name / "m.onnx", manifest(), [rows[:1]])
    for suffix in ("onnx", "json"):
        assert (tmp_path / "a" / f"m.{suffix}").read_bytes() == (tmp_path / "b" / f"m.{suffix}").read_bytes()
    assert json.loads((tmp_path / "a" / "m.json").read_text())["sha256"]


@pytest.mark.parametrize("estimator", [LogisticRegression(), GradientBoostingClassifier(n_estimators=5)], ids=str)
@pytest.mark.parametrize("zipmap", [True, False])
def test_what_a_general_converter_writes_is_accepted(tmp_path, rows, truth, estimator, zipmap):
    trained = make_pipeline(StandardScaler(), estimator).fit(rows, truth.astype(int))
    proto = to_onnx(trained, rows[:1], target_opset={"": 17, "ai.onnx.ml": 3},
                    options={id(trained): {"zipmap": zipmap}})
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = Model.load(tmp_path / "m.onnx", manifest=manifest())
    found = model.predict_batch(rows[:50, None, :])
    np.testing.assert_allclose(found, trained.predict_proba(rows[:50])[:, ::-1], atol=1e-5)
    assert found.tolist() == [list(model.predict(row[None])) for row in rows[:50]]
