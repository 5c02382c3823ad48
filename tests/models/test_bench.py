"""The model for benchmarks."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import models
from common.features.choice import DEFAULT
from common.model import Model
from models import bench

SHIPPED = Path(models.__file__).with_name("bench_w100.onnx")


def test_the_model_that_ships_is_one_for_this_version():
    model = Model.load(SHIPPED)
    assert (model.name, model.window, model.batch_exact) == ("bench_w100", bench.WINDOW, True)
    assert sum(model.predict(np.zeros((bench.WINDOW, len(DEFAULT.names)), np.float32))) == pytest.approx(1)


def test_it_is_made_again_byte_for_byte(tmp_path):
    result = CliRunner().invoke(bench.main, ["--out", str(tmp_path / "bench_w100.onnx")])
    assert result.exit_code == 0, result.output
    for suffix in (".onnx", ".json"):
        assert (tmp_path / "bench_w100").with_suffix(suffix).read_bytes() == SHIPPED.with_suffix(suffix).read_bytes()
