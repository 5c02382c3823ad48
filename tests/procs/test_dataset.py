"""`alpha dataset`: what it says is what the file holds, and what cannot be made is refused before the work."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from common.dataset import Dataset
from procs import dataset as module
from procs.dataset import dataset


def run(*arguments) -> Result:
    return CliRunner().invoke(dataset, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def capture(recordings) -> str:
    return str(recordings / "binance" / "usdm_ethusdt_20240718.gz")


@pytest.fixture(scope="module")
def made(capture, tmp_path_factory):
    """A dataset by a real process, and its report."""
    out = tmp_path_factory.mktemp("dataset") / "a.npz"
    done = subprocess.run([
        sys.executable, "-m", "procs.cli", "dataset", capture, "--out", str(out), "--features", "default,vpin_50",
        "--horizon", "2s,50ticks", "--every", "100ms", "--classes", "3", "--threshold", "half-spread", "--folds", "2",
        "--window", "20", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Dataset.load(out), json.loads(done.stdout), out


def test_the_report_is_what_the_file_holds(made):
    data, told, out = made
    assert told["schema"] == 1 and told["digest"] == data.digest() and told["bytes"] == out.stat().st_size
    assert (told["rows"], told["samples"]) == (len(data.values), len(data.sample))
    assert told["windows"] == data.has_window(20).sum() and told["features"] == list(data.features.names)
    assert told["parameters"] == {"vpin_50": {"ETHUSDT": list(data.features.parameters["vpin_50"]["ETHUSDT"])}}
    assert set(told["horizons"]) == {"2s", "50ticks"} and told["compared"] > 500 and told["memory"] == data.nbytes
    for place, (name, one) in enumerate(told["horizons"].items()):
        assert sum(one["classes"].values()) == one["labelled"] == (data.labels[:, place] >= 0).sum()
        assert len(one["folds"]) == 2
        for fold, shown in zip(data.folds(place, 20), one["folds"]):
            assert sum(shown["train"].values()) == fold.train.sum() and sum(shown["test"].values()) == fold.test.sum()
            assert shown["leakage"] == []
    assert told["leakage"] == "none"


def test_it_is_said_to_people(capture, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    result = run(capture, "--out", tmp_path / "a.parquet", "--horizon", "2s", "--folds", "1", "--smooth", "next",
                 "--embargo", "3s")
    assert result.exit_code == 0, result.output
    for part in ("ETHUSDT, 24 features", "look-ahead none: ", "leakage    none; embargo 3 s", "2s: ", "fold 1: train",
                 "not finite: 0"):
        assert part in result.stdout
    assert "% done" not in result.stdout and "messages" in result.stderr and "s left" in result.stderr
    assert Dataset.load(tmp_path / "a.parquet").about["options"]["smooth"] == "next"


@pytest.mark.parametrize("arguments, code, what", [
    (("--out", "a.csv"), 2, "npz or .parquet"), (("--out", "nowhere/a.npz"), 2, "no such folder"),
    (("--out", "there.npz"), 2, "there is a file already"),
    (("--out", "a.npz", "--horizon", "soon"), 2, "horizon=soon"),
    (("--out", "a.npz", "--classes", "3"), 2, "three classes need a threshold"),
    (("--out", "a.npz", "--threshold", "wide"), 2, "threshold=wide"),
    (("--out", "a.npz", "--fit-until", "noon"), 2, "--fit-until=noon"),
    (("--out", "a.npz", "--symbols", "DOGE"), 2, "known: ETHUSDT"),
    (("--out", "a.npz", "--features", "nothing"), 3, "no such feature")])
def test_what_cannot_be_made_is_refused(capture, tmp_path, monkeypatch, arguments, code, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npz").touch()
    result = run(capture, *arguments)
    assert result.exit_code == code and what in result.stderr and not result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["there.npz"]


def test_recordings_that_are_too_short_are_refused_with_what_helps(capture, tmp_path):
    result = run(capture, "--out", tmp_path / "a.npz", "--features", "vpin_50", "--fit-until", "2024-07-18T00:00:00")
    assert result.exit_code == 2 and "vpin_50 of ETHUSDT" in result.stderr and "remedy" not in result.stderr


def test_how_much_was_read_is_known_for_any_format(capture, tmp_path):
    """From what is open: a file that was open and is no more has been read."""
    small = tmp_path / "small"
    small.write_bytes(b"x" * 1000)
    large = tmp_path / "large"
    large.write_bytes(b"x" * 3000)
    progress = module._Progress([str(small), str(large)])
    progress.watch(None)
    assert progress._share() == 0
    with open(small, "rb", buffering=0) as file:
        file.read(500)
        assert progress._share() == 0.125
    assert progress._share() == 0.25
    with open(large, "rb", buffering=0) as file:
        file.read(1500)
        assert progress._share() == 0.625
    assert progress._share() == 1.0
