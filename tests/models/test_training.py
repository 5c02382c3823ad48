"""Training: what is there is found and nothing else, what is dishonest is refused, what is done is not lost."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from common.dataset import Dataset
from common.errors import ConfigError, ContractError, ModelError
from common.features.choice import DEFAULT, FeatureSet
from common.folds import walk_forward
from common.labels import Horizon
from common.manifest import METADATA_KEY, Manifest
from common.model import Model
from models import recipes, training
from models.calibrate import Calibration
from models.training import Examples, Options
from tests.models.planted import HORIZON_NS, planted

SEEN = DEFAULT.names.index("ofi_100")  #: what tells the move, unknown to the baselines
QUICK = Options(draws=10)
LOGISTIC = recipes.load("logistic")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted(column=SEEN)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "deep" / "mine.onnx"
    said: list[str] = []
    report = training.train(data, LOGISTIC, out, Options(draws=30), "planted", said.append)
    return out, report, said


def weights(path) -> dict[str, bytes]:
    return {each.name: numpy_helper.to_array(each).tobytes() for each in onnx.load(path).graph.initializer}


# ---- what it finds


def test_what_is_there_is_found_and_said(trained):
    _, report, _ = trained
    assert report["all"]["verdict"].endswith("It beats the baselines.")
    assert report["all"]["contenders"]["model"]["auc"] == pytest.approx(0.84, abs=0.04)  # the best there is
    assert [fold["test"]["rows"] for fold in report["folds"]] and len(report["folds"]) == 3
    assert report["all"]["rows"] == sum(fold["rows"] for fold in report["folds"])
    assert set(report["all"]["contenders"]) == {"model", "base rate", "last move", "sign of OBI"}


def test_what_is_not_there_is_not_found(tmp_path):
    report = training.train(planted(strength=0.0), LOGISTIC, tmp_path / "m.onnx", QUICK)
    assert not report["all"]["verdict"].endswith("It beats the baselines.")
    assert abs(report["all"]["contenders"]["model"]["ic"]) < 0.1


def test_the_manifest_tells_all_of_it(trained, data):
    out, report, _ = trained
    told = Model.load(out).manifest
    assert (told.name, told.window, told.horizon_s, told.classes) == ("mine", 1, 5.0, ("down", "up"))
    assert told.schema == data.features.schema and told.columns == data.features.names
    assert told.trained["digest"] == data.digest() and told.trained["candidate"] == report["folds"][-1]["chosen"]
    assert told.metrics["all folds"]["verdict"] == report["all"]["verdict"]
    assert len(told.golden["inputs"]) == training.GOLDEN
    fold = data.folds()[-1]
    assert told.statistics["rows"] == told.trained["rows"] == fold.train.sum()
    deciles = np.array(told.statistics["deciles"])
    assert deciles.shape == (len(told.columns), 9)
    np.testing.assert_allclose(deciles[:, 4], np.median(data.rows_of_samples[fold.train], axis=0), atol=1e-6)
    assert json.loads(out.with_suffix(".report.json").read_text()) == report
    assert sorted(file.name for file in out.parent.iterdir()) == ["mine.json", "mine.onnx", "mine.report.json"]


def test_the_graph_answers_as_the_model_that_was_judged(trained, data):
    """The probabilities of the last span, from the file, give the very figures of the report."""
    from models import judge
    from models.baselines import of_model

    out, report, _ = trained
    test = np.flatnonzero(data.folds()[-1].test)
    up, down = Model.load(out).predict_batch(data.rows_of_samples[test][:, None, :]).T
    outcome = judge.Outcome(data.labels[test, 0].astype(int), data.moves[test, 0], test, data.classes)
    often = np.bincount(data.labels[data.folds()[-1].train, 0]) / data.folds()[-1].train.sum()
    found = judge.measures(outcome, of_model(np.stack([down, up], axis=1), often, data.classes))
    for name, value in report["folds"][-1]["contenders"]["model"].items():
        assert found[name] == pytest.approx(value, abs=2e-3)
    assert report["export"]["difference"] < 1e-5 and report["export"]["disagreements"] == 0


def test_three_classes_some_columns_and_a_horizon_in_ticks(tmp_path):
    data = planted(classes=3, column=SEEN)
    data = dataclasses.replace(data, horizons=(Horizon("ticks", 50),))
    report = training.train(data, LOGISTIC, tmp_path / "m.onnx", QUICK._replace(columns=("ofi_100", "spread")))
    told = Model.load(tmp_path / "m.onnx").manifest
    assert told.columns == ("ofi_100", "spread") and told.classes == ("down", "flat", "up")
    assert told.schema == FeatureSet.of(told.columns).schema
    assert told.trained["horizon"] == "50ticks" and told.horizon_s == 5.0
    assert report["all"]["differences"]["brier"]["shown"] == "better"


def test_the_same_seed_gives_the_same_bytes(trained, data, tmp_path):
    out, report, _ = trained
    training.train(data, LOGISTIC, tmp_path / "mine.onnx", Options(draws=30), "planted")
    assert (tmp_path / "mine.onnx").read_bytes() == out.read_bytes()


# ---- what it must not have seen


def test_nothing_of_the_last_span_is_in_the_model(trained, data, tmp_path):
    """Other rows, moves and labels after the last test begins change no weight, and no fold before."""
    out, report, _ = trained
    begin = data.folds()[-1].begin_ns
    values, moves, labels = data.values.copy(), data.moves.copy(), data.labels.copy()
    values[data.time_ns >= begin] *= -3
    late = data.until_ns[:, 0] >= begin
    moves[late], labels[late] = -moves[late], np.where(labels[late] >= 0, 1 - labels[late], -1)
    other = dataclasses.replace(data, values=values, moves=moves, labels=labels)
    after = training.train(other, LOGISTIC, tmp_path / "m.onnx", Options(draws=30))
    assert weights(tmp_path / "m.onnx") == weights(out)
    for fold, same in ((0, True), (2, False)):  # labels of the second test look into the last
        assert (after["folds"][fold]["contenders"] == report["folds"][fold]["contenders"]) is same


def test_no_label_of_what_is_fitted_is_known_after_the_rows_held_out_begin(data, tmp_path):
    run = training._Run(data, LOGISTIC, tmp_path / "m.onnx", QUICK, "", print)
    for number, fold in enumerate(run.folds):
        index, held_out = run._parts(number, fold)
        assert data.until_ns[index, 0].max() < run.time_ns[held_out].min()
        assert fold.train[index].all() and fold.train[held_out].all()
        assert 0.2 < len(held_out) / (len(index) + len(held_out)) < 0.5


# ---- planted faults


def test_labels_that_look_into_the_test_are_found(data, tmp_path, monkeypatch):
    """Folds that forgot to purge: the labels of the last training rows are those of the first test rows."""
    def careless(self, horizon=0, window=1, **options):
        time, known = self.time_ns[self.sample], self.labels[:, horizon] >= 0
        return [fold._replace(train=fold.train & known, test=fold.test & known) for fold in walk_forward(
            time, time, 3, 0)]

    monkeypatch.setattr(Dataset, "folds", careless)
    with pytest.raises(ContractError, match="fold 1: label: .* training labels are known only after"):
        training.train(data, LOGISTIC, tmp_path / "m.onnx", QUICK)
    assert not list(tmp_path.iterdir())


def test_a_value_that_is_no_number_is_refused_by_name(data):
    values = data.values.copy()
    values[data.sample[700], 5] = np.nan
    with pytest.raises(ContractError, match=f"{DEFAULT.names[5]} of BTC-USD, seq {data.seq[data.sample[700]]}"):
        dataclasses.replace(data, values=values)


def test_columns_in_another_order_than_in_the_dataset_are_refused(trained, tmp_path):
    """The manifest of a trained model with two columns swapped: beside the graph, in it, and in both."""
    out, _, _ = trained
    told = Manifest.parse(out.with_suffix(".json").read_text(), "test")
    swapped = dataclasses.replace(told, columns=(told.columns[1], told.columns[0], *told.columns[2:]))
    with pytest.raises(ModelError, match="columns=.*metadata"):
        Model.load(out, manifest=swapped)
    model = onnx.load(out)
    onnx.helper.set_model_props(model, {METADATA_KEY: swapped.as_json(metadata=True)})
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=f"another order.*model {told.schema[:16]}, the same names here"):
        Model.load(tmp_path / "m.onnx", manifest=dataclasses.replace(swapped, sha256=""))


def test_a_dataset_of_other_definitions_is_refused(data, tmp_path):
    data.save(tmp_path / "d.npz")
    with np.load(tmp_path / "d.npz") as file:
        arrays = dict(file)
    head = json.loads(arrays["head"].tobytes())
    head["schema"] = "0" * 64
    arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ContractError, match=f"dataset {'0' * 16}, the same names here {DEFAULT.schema[:16]}"):
        Dataset.load(tmp_path / "d.npz")


class _Lying:
    """A recipe whose graph says something else than its logits."""

    name, window = "lying", 1
    columns, candidates = LOGISTIC.columns, LOGISTIC.candidates

    def fit(self, *arguments):
        fitted = LOGISTIC.fit(*arguments)
        as_onnx = fitted.as_onnx
        fitted.as_onnx = lambda calibration: as_onnx(Calibration(calibration.scale * 1.01, calibration.shift))
        return fitted


def test_a_graph_that_answers_otherwise_is_refused_by_row(data, tmp_path):
    with pytest.raises(ModelError, match=r"(BTC-USD|AAPL), seq \d+: graph \(up, down\) \[.*\], fitted \[.*\]"):
        training.train(data, _Lying(), tmp_path / "m.onnx", QUICK)
    assert not (tmp_path / "m.onnx").exists() and not (tmp_path / "m.json").exists()


def test_a_class_that_never_comes_is_named(data, tmp_path):
    labels = np.where(data.labels == 1, 0, data.labels)
    with pytest.raises(ContractError, match="too little to learn from.*'up': 0"):
        training.train(dataclasses.replace(data, labels=labels), LOGISTIC, tmp_path / "m.onnx", QUICK)


def test_what_the_dataset_does_not_have_is_named(data, tmp_path):
    assert training.horizon_of(data, "") == training.horizon_of(data, "5s") == 0
    with pytest.raises(ConfigError, match="horizon=30s, it has 5s"):
        training.horizon_of(data, "30s")
    with pytest.raises(ConfigError, match="no such column.*nonsense"):
        training.train(data, LOGISTIC, tmp_path / "m.onnx", QUICK._replace(columns=("nonsense",)))


# ---- interruption


class _Counting:
    """Logistic regression that counts its fits, and is interrupted before one of them."""

    name, window = "counting", 1
    columns, candidates = LOGISTIC.columns, LOGISTIC.candidates

    def __init__(self, stop: int = -1) -> None:
        self.fits, self.stop = 0, stop

    def fit(self, *arguments):
        if self.fits == self.stop:
            raise KeyboardInterrupt
        self.fits += 1
        return LOGISTIC.fit(*arguments)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """(fits, report, bytes) of a training that was not interrupted."""
    out, recipe = tmp_path_factory.mktemp("whole") / "m.onnx", _Counting()
    return recipe, training.train(data, recipe, out, QUICK), out.read_bytes()


@pytest.mark.parametrize("stop", [1, 6, 11])
def test_an_interrupted_training_goes_on_and_ends_as_one_that_was_not(data, whole, tmp_path, stop):
    complete, expected, graph = whole
    out, said = tmp_path / "m.onnx", []
    with pytest.raises(KeyboardInterrupt):
        training.train(data, _Counting(stop), out, QUICK)
    assert (tmp_path / "m.train").is_dir() and not out.exists()
    rest = _Counting()
    report = training.train(data, rest, out, QUICK, tell=said.append)
    assert "continues" in said[0]
    assert complete.fits == 12 and 12 - stop <= rest.fits <= 12 - stop + 1  # one more where the best of a fold was lost
    assert out.read_bytes() == graph
    assert {**report, "model": ""} == {**expected, "model": ""}
    assert not (tmp_path / "m.train").exists()


def test_what_was_done_with_other_data_is_not_used(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        training.train(data, _Counting(9), tmp_path / "m.onnx", QUICK)
    said, again = [], _Counting()
    training.train(planted(seed=1, column=SEEN), again, tmp_path / "m.onnx", QUICK, tell=said.append)
    assert "starts anew" in said[0] and "dataset was" in said[0] and again.fits == 12


# ---- windows


def test_windows_are_read_when_asked_for_and_end_at_the_row(data):
    examples = Examples(data, ("spread", "obi_1"), 10, 0)
    index = np.array([0, 5, len(data.sample) - 1])
    windows = examples.take(index)
    assert windows.shape == (3, 10, 2) and windows.dtype == np.float32
    for window, sample in zip(windows, data.sample[index]):
        assert np.array_equal(window, data.values[sample - 9:sample + 1][:, [DEFAULT.names.index("spread"), 0]])
    assert np.array_equal(examples.newest(index), windows[:, -1])
    assert HORIZON_NS == 5 * 10**9
