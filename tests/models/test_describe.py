"""A model from elsewhere gets its manifest by command."""

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

import models
from common.features.choice import DEFAULT
from common.model import Model
from models import describe


@pytest.fixture
def mine(tmp_path) -> Path:
    """A model that has never heard of a manifest."""
    model = onnx.load(Path(models.__file__).with_name("bench_w100.onnx"))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "mine.onnx")
    return tmp_path / "mine.onnx"


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(describe.main, [str(path), *arguments])


def test_a_fitting_model_is_described(mine):
    result = run(mine, "--window", "100", "--horizon", "10", "--classes", "up,down")
    assert result.exit_code == 0 and "output probabilities" in result.output and DEFAULT.names[0] in result.output
    told = json.loads(mine.with_suffix(".json").read_text())
    assert (told["window"], told["horizon_s"], told["schema"]) == (100, 10.0, DEFAULT.schema)
    assert Model.load(mine).manifest.classes == ("up", "down")


@pytest.mark.parametrize("arguments, said", [
    (["--window", "3"], "[3, 24]"),
    (["--window", "100", "--classes", "down,flat,up"], "2 values"),
    (["--window", "100", "--classes", "down,sideways"], "sideways"),
    (["--window", "100", "--output", "odds"], "odds"),
    (["--window", "100", "--columns", "levels"], "[100, 40]"),
    (["--window", "100", "--columns", "default,odds"], "'odds'"),
    (["--window", "100", "--columns", "fitted"], "no numbers"),
])
def test_a_wrong_description_is_refused_and_nothing_is_written(mine, arguments, said):
    result = run(mine, *arguments)
    assert result.exit_code != 0 and said in result.output
    assert not mine.with_suffix(".json").exists()


def test_a_description_that_contradicts_the_metadata_is_refused(tmp_path):
    path = tmp_path / "bench_w100.onnx"
    path.write_bytes(Path(models.__file__).with_name("bench_w100.onnx").read_bytes())
    result = run(path, "--window", "100", "--horizon", "5")
    assert result.exit_code != 0 and "horizon_s=5.0, metadata 30.0" in result.output


def test_columns_are_named_one_by_one_or_by_group(mine):
    result = run(mine, "--window", "100", "--columns", ", ".join(DEFAULT.names[::-1]))
    assert result.exit_code == 0, result.output
    told = Model.load(mine).manifest
    assert told.columns == DEFAULT.names[::-1] and told.schema != DEFAULT.schema
