"""One contract for all recipes: they learn, they are the same for a seed, and their graph says what they say."""

import importlib.util
import sys

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from common.errors import ConfigError, ContractError, ModelError
from common.features import table as features
from common.features.choice import DEFAULT, FeatureSet
from common.manifest import Manifest
from models import recipes
from models.calibrate import Calibration, fit, softmax
from models.export import save
from models.recipes import Effort
from models.training import Examples
from tests.models.planted import planted

TABULAR = ("logistic", "boosting", "mlp")
SCALE = 1.7
PLAIN = Calibration(1.0, (0.0, 0.0))


def needs(name: str) -> None:
    if name == "deeplob":
        pytest.importorskip("torch", reason="the extra `torch` is not installed")


class Case:
    """A recipe fitted once, on rows or windows of which one column tells the class."""

    def __init__(self, name: str, classes: int) -> None:
        self.recipe = recipes.load(name)
        if name == "deeplob":  # small windows, and easy ones: it must learn within seconds
            window, self.effort = 20, Effort(epochs=5)
            data = planted(500, classes, 3.0, FeatureSet.of(features.LEVELS_Z), steady=40)
        else:
            window, self.effort = 1, Effort()
            data = planted(900, classes, 3.0)
        self.examples = Examples(data, self.recipe.columns(data.features.names), window, 0)
        usable = np.flatnonzero((self.examples.labels >= 0) & data.has_window(window))
        cut = [len(usable) * share // 10 for share in (6, 8)]
        self.train, self.held_out, self.test = np.split(usable, cut)
        self.candidate = self.recipe.candidates()[0]
        self.fitted = self.fit()

    def fit(self):
        return self.recipe.fit(self.candidate, self.examples, self.train, self.held_out, self.effort)

    def manifest(self) -> Manifest:
        told = self.examples
        return Manifest("m", told.features.schema, told.columns, told.window, 5.0, told.classes, output="probabilities")


CASES = [(name, classes) for name in TABULAR for classes in (2, 3)] + [("deeplob", 3)]  # an export of that takes 10 s


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request) -> Case:
    needs(request.param[0])
    return Case(*request.param)


def test_it_learns_what_there_is(case):
    held_out, test = (case.examples.labels[part] for part in (case.held_out, case.test))
    calibration = fit(case.fitted.logits(case.examples.take(case.held_out)), held_out)
    p = calibration.apply(case.fitted.logits(case.examples.take(case.test)))
    assert p.shape == (len(test), len(case.examples.classes))
    base = np.bincount(test).max() / len(test)
    assert (p.argmax(1) == test).mean() > base + 0.15


def test_a_seed_gives_the_same_bits(case):
    rows = case.examples.take(case.test)
    assert case.fit().logits(rows).tobytes() == case.fitted.logits(rows).tobytes()


def test_the_graph_gives_the_calibrated_probabilities_and_batches_the_bits_of_single_rows(case, tmp_path):
    classes = case.examples.classes
    calibration = Calibration(SCALE, tuple(np.linspace(-0.3, 0.4, len(classes)).tolist()))
    model = save(case.fitted.as_onnx(calibration), tmp_path / "m.onnx", case.manifest())
    rows = case.examples.take(case.test[:300])
    windows = rows.reshape(len(rows), model.window, -1)
    expected = softmax(SCALE * case.fitted.logits(rows) + np.array(calibration.shift))
    np.testing.assert_allclose(model.predict_batch(windows), expected[:, [classes.index("up"), classes.index("down")]],
                               atol=3e-6)
    assert model.batch_exact and model.output == "probabilities"
    assert b"/models/" not in model.path.read_bytes()  # no path of the machine that it was made on


def test_the_same_fit_is_exported_to_the_same_bytes(case):
    if case.recipe.name == "deeplob":
        pytest.skip("an export takes 10 s")
    calibration = Calibration(SCALE, (0.0,) * len(case.examples.classes))
    one, two = (case.fitted.as_onnx(calibration).SerializeToString(deterministic=True) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("name", TABULAR)
def test_a_column_that_hardly_varies_about_a_large_mean_costs_no_digits(name, tmp_path):
    """A spread of one increment, and now and then of two: its weight is huge, and its products cancel."""
    case = Case(name, 2)
    values = case.examples.newest(np.arange(len(case.examples.labels))).copy()
    values[:, 6] = 1000 + 0.001 * (values[:, 6] > 2)
    case.examples.take = lambda index: values[index]
    fitted = case.fit()
    model = save(fitted.as_onnx(PLAIN), tmp_path / "m.onnx", case.manifest())
    rows = values[case.test]
    assert len(np.unique(rows[:, 6])) == 2
    up = model.predict_batch(rows[:, None, :])[:, 0]
    np.testing.assert_allclose(up, softmax(fitted.logits(rows))[:, 1], atol=5e-6)


@pytest.mark.parametrize("name", TABULAR)
def test_every_candidate_can_be_fitted(name):
    case = Case(name, 2)
    for candidate in case.recipe.candidates():
        case.recipe.fit(candidate, case.examples, case.train[:100], case.held_out, Effort())


def test_every_split_of_a_tree_parts_float32_rows_as_lightgbm_does():
    """Rows that lie on the thresholds and on both sides as near as can be."""
    boosting = importlib.import_module("models.recipes.boosting")
    case = Case("boosting", 2)
    (trees,) = (node for node in case.fitted.as_onnx(PLAIN).graph.node if node.op_type == "TreeEnsembleRegressor")
    lists = {each.name: helper.get_attribute_value(each) for each in trees.attribute}
    thresholds = [(feature, np.float32(value)) for feature, value, mode in zip(
        lists["nodes_featureids"], lists["nodes_values"], lists["nodes_modes"]) if mode == b"BRANCH_LEQ"]
    rows = np.repeat(case.examples.take(case.test[:1]), 3 * len(thresholds), axis=0)
    for i, (feature, value) in enumerate(thresholds):
        rows[3 * i:3 * i + 3, feature] = np.nextafter(value, np.float32(-9)), value, np.nextafter(value, np.float32(9))
    assert len(thresholds) > 20 and len(np.unique(case.fitted.logits(rows)[:, 1])) > 5
    graph = ReferenceEvaluator(case.fitted.as_onnx(PLAIN)).run(None, {"rows": rows})[0]
    np.testing.assert_allclose(graph, softmax(case.fitted.logits(rows)), atol=1e-6)
    for value in (0.1, 1 / 3, -1e-40, 1e-35, 16777217.0):
        down = boosting._down(value)
        assert np.float32(down) == down <= value < float(np.nextafter(np.float32(down), np.float32(np.inf)))


def test_a_package_that_is_missing_is_named_with_what_installs_it(monkeypatch):
    if importlib.util.find_spec("torch"):
        monkeypatch.setitem(sys.modules, "torch", None)
        monkeypatch.delitem(sys.modules, "models.recipes.deeplob", raising=False)
    with pytest.raises(ConfigError, match=r"torch.*predictive-alpha\[torch\]"):
        recipes.load("deeplob")


def test_the_sequence_model_refuses_columns_that_are_not_the_levels_and_windows_too_short():
    needs("deeplob")
    recipe = recipes.load("deeplob")
    with pytest.raises(ContractError, match="alpha dataset --features levels_z"):
        recipe.columns(DEFAULT.names)
    data = planted(200, features=FeatureSet.of(features.LEVELS_Z))
    with pytest.raises(ModelError, match="window=10"):
        recipe.fit(recipe.candidates()[0], Examples(data, data.features.names, 10, 0), np.arange(50), np.arange(50, 60),
                   Effort())


def test_an_interrupted_fit_of_the_sequence_model_ends_as_one_that_was_not(tmp_path):
    needs("deeplob")
    case = Case("deeplob", 2)
    rows = case.examples.take(case.test)

    def interrupt(words: str) -> None:
        if words.startswith("epoch 2"):
            raise KeyboardInterrupt

    whole, said = [], []
    case.recipe.fit(case.candidate, case.examples, case.train, case.held_out, case.effort._replace(tell=whole.append))
    with pytest.raises(KeyboardInterrupt):
        case.recipe.fit(case.candidate, case.examples, case.train, case.held_out,
                        case.effort._replace(file=tmp_path / "state.pt", tell=interrupt))
    again = case.recipe.fit(case.candidate, case.examples, case.train, case.held_out,
                            case.effort._replace(file=tmp_path / "state.pt", tell=said.append))
    assert said == ["continues after epoch 1", *whole[1:]] and len(whole) > 2
    assert again.logits(rows).tobytes() == case.fitted.logits(rows).tobytes()
