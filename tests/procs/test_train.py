"""The command: a dataset in, a model, its manifest and a report out; and a long one that is interrupted."""

import json
import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from common.dataset import Dataset
from common.model import Model
from procs.dataset import dataset
from procs.replay import replay
from procs.train import INTERRUPTED, RECIPES, train
from tests.models.planted import planted
from tests.pipeline import ROOT, command

pytest.importorskip("sklearn", reason="the extra `train` is not installed")


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    found = tmp_path_factory.mktemp("data") / "planted.npz"
    planted(column=5).save(found)
    return str(found)


def alpha(*arguments) -> Result:
    return CliRunner().invoke(train, [str(argument) for argument in arguments])


def test_a_model_comes_of_a_dataset(path, tmp_path):
    out = tmp_path / "mine.onnx"
    result = alpha("logistic", "--data", path, "--out", out, "--draws", "20", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "mine.report.json").read_text()) and report["data"] == "planted.npz"
    assert Model.load(out).manifest.trained["recipe"] == "logistic"
    assert "fold 1 of 3: C=1: log loss" in result.stderr


def test_people_are_told_the_same(path, tmp_path):
    result = alpha("logistic", "--data", path, "--out", tmp_path / "m.onnx", "--draws", "20",
                   "--columns", "ofi_1,obi_1")
    assert result.exit_code == 0, result.output
    for said in ("logistic on planted.npz: BTC-USD, AAPL, 5s ahead, down / up, 2 columns, window 1",
                 "fold 3: trained on", "base rate", "last move", "sign of OBI", "difference to the best baseline, 95 %",
                 "All folds: macro F1", "Last span: macro F1", "batches give the bits of single rows: yes"):
        assert said in result.stdout


@pytest.mark.parametrize("arguments, code, said", [
    (["--out", "m.pkl"], 2, "a model is written as .onnx"),
    (["--out", "m.onnx", "--horizon", "1h"], 2, "horizon=1h, it has 5s"),
    (["--out", "m.onnx", "--window", "9"], 2, "the recipe takes one row"),
    (["--out", "m.onnx", "--columns", "obi_1,odds"], 2, "no such column"),
])
def test_what_cannot_be_is_refused(path, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    result = alpha("logistic", "--data", path, *arguments)
    assert result.exit_code == code and said in result.stderr and not list(tmp_path.iterdir())


def test_a_missing_file_and_an_unknown_recipe_are_refused(tmp_path):
    result = alpha("logistic", "--data", tmp_path / "none.npz", "--out", tmp_path / "m.onnx")
    assert result.exit_code == 2 and "none.npz" in result.stderr
    assert alpha("oracle", "--data", "x.npz", "--out", "m.onnx").exit_code == 2


def test_without_the_extra_it_says_what_to_install(path, tmp_path):
    code = "import sys; sys.modules['onnx'] = None; from procs.train import train; train()"
    result = subprocess.run([sys.executable, "-c", code, "logistic", "--data", path, "--out", str(tmp_path / "m.onnx")],
                            capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2 and "onnx" in result.stderr and "predictive-alpha[train]" in result.stderr


def test_the_recipes_on_offer_are_those_that_there_are():
    from models import recipes

    assert set(RECIPES) == set(recipes.EXTRAS)


def test_interrupted_from_the_keyboard_it_keeps_what_is_done_and_goes_on(path, tmp_path):
    arguments = ("train", "mlp", "--data", path, "--out", str(tmp_path / "m.onnx"), "--draws", "20")
    with command(*arguments, env=dict(os.environ)) as process:
        next(line for line in process.stderr if "log loss of" in line)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate()
    assert process.returncode == INTERRUPTED, rest
    assert "m.train keeps what is done" in rest and "Traceback" not in rest
    with command(*arguments, env=dict(os.environ)) as process:
        _, told = process.communicate()
    assert process.returncode == 0, told
    assert "continues in" in told and not (tmp_path / "m.train").exists() and (tmp_path / "m.onnx").exists()


def test_what_trained_on_recordings_answers_live_what_it_answered_in_training(recordings, tmp_path):
    """Recordings to dataset, dataset to model, and the model run on a replay of the same recordings: the same bits."""
    files = [str(recordings / "binance" / f"usdm_btcusdt_202407{day}.gz") for day in (18, 19)]
    result = CliRunner().invoke(dataset, [*files, "--out", str(tmp_path / "d.npz"), "--horizon", "5s", "--folds", "2"])
    assert result.exit_code == 0, result.output
    out = tmp_path / "mine.onnx"
    result = alpha("logistic", "--data", tmp_path / "d.npz", "--out", out, "--draws", "10")
    assert result.exit_code == 0, result.output
    said = tmp_path / "said.jsonl"
    result = CliRunner().invoke(replay, [*files, "--model", str(out), "--out", str(said), "--limit", "15000"])
    assert result.exit_code == 0, result.output
    data, model = Dataset.load(tmp_path / "d.npz"), Model.load(out)
    rows = dict(zip(data.seq.tolist(), data.values))
    found = [json.loads(line) for line in said.read_text().splitlines()]
    assert len(found) > 1000
    assert all((each["p_up"], each["p_down"]) == model.predict(rows[each["seq"]][None]) for each in found)
