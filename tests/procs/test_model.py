"""The commands for models: what they tell, their exit codes, and published models in a live pipeline."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from common.config import load
from common.deployment import Pair, Ref, store
from common.features.choice import FeatureSet
from common.features.table import LEVELS_Z, TABLE_HASH
from common.links import Network
from common.manifest import Manifest
from common.model import Model
from common.ring import Rows
from common.rollout import deploy
from common.wire import Prediction, decode
from procs.model import _wanted, model, synthetic_windows
from tests.onnx_made import make_model
from tests.pipeline import Pipeline, command
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "models" / "default.onnx"


@pytest.fixture
def run(tmp_path, instance, monkeypatch):
    """Runs a command in this process, against an instance of which nothing runs."""
    monkeypatch.setenv("ALPHA_INSTANCE__NAME", instance)
    monkeypatch.setenv("ALPHA_INSTANCE__STATE_DIR", str(tmp_path))
    return lambda *arguments: CliRunner().invoke(model, [str(argument) for argument in arguments])


def test_check_tells_all_about_a_model_that_fits(run):
    result = run("check", SHIPPED, "--json")
    assert result.exit_code == 0, result.output
    told, loaded = json.loads(result.stdout), Model.load(SHIPPED)
    assert told["ok"] and told["id"] == f"{loaded.id:016x}" and told["provider"] == loaded.provider
    assert told["features"] == list(loaded.features.names) and told["schema"] == loaded.features.schema
    assert (told["window"], told["classes"], told["batch_exact"]) == (1, ["down", "up"], loaded.batch_exact)
    assert told["input"].startswith("rows: tensor(float)") and told["bytes"] == SHIPPED.stat().st_size
    assert set(told["latency_us"]) == {"1", "2", "4", "8", "16", "32"}
    assert all(0 < found["p50"] <= found["p99"] for found in told["latency_us"].values())
    assert told["sample_rows"] == "golden" and 0 <= told["samples"][0]["p_up"] <= 1
    text = run("check", SHIPPED)
    assert text.exit_code == 0 and "fits this pipeline" in text.stdout and told["id"] in text.stdout


def test_check_predicts_synthetic_rows_where_there_are_no_golden_ones(run, tmp_path):
    path = make_model(tmp_path / "m.onnx", ("obi_1", "vol_100"), window=30)
    tree = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**tree, "golden": {}}))
    told = json.loads(run("check", path, "--json").stdout)
    assert told["ok"] and told["sample_rows"] == "synthetic" and any("golden" in remark for remark in told["remarks"])
    windows = synthetic_windows(FeatureSet.of(("obi_1", "vol_100")), 30, ("BTC-USD",))
    assert windows.shape == (32, 30, 2) and np.isfinite(windows).all() and np.ptp(windows[:, -1, 0]) > 0
    assert np.array_equal(windows[1:, :-1], windows[:-1, 1:])  # one after another
    found = Model.load(path).predict(windows[0])
    assert told["samples"][0] == {"p_up": found[0], "p_down": found[1]}


def test_check_refuses_what_does_not_fit_with_exit_code_3(run, tmp_path):
    path = make_model(tmp_path / "m.onnx", ("obi_1", "spread"))
    tree = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**tree, "columns": ["spread", "obi_1"]}))
    result = run("check", path, "--json")
    assert result.exit_code == 3 and not json.loads(result.stdout)["ok"] and "another order" in result.stderr
    assert run("check", tmp_path / "none.onnx").exit_code == 3
    long = make_model(tmp_path / "long.onnx", ("obi_1",), window=3000)
    assert "ring.rows 4096" in run("check", long).stderr


def test_list_tells_of_every_model_and_of_what_is_wrong_with_one(run, tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHA_INFERENCE__MODEL", str(make_model(tmp_path / "mine.onnx", ("obi_1",), window=7)))
    (tmp_path / "odd.onnx").write_bytes(b"not a model")
    told = {entry["name"]: entry for entry in json.loads(run("list", "--json").stdout)["models"]}
    assert {"mine", "odd", "default", "bench_w100"} <= set(told)
    assert (told["mine"]["window"], told["mine"]["features"], told["mine"]["role"]) == (7, 1, "")
    assert told["odd"]["problem"] and not told["default"]["problem"] and told["default"]["metrics"]
    assert "mine" in run("list").stdout


def test_deploy_without_a_pipeline_or_with_nothing_to_do_says_so(run):
    assert run("deploy", SHIPPED).exit_code == 7
    assert run("deploy").exit_code == 2
    assert run("deploy", SHIPPED, "--no-shadow").exit_code == 2


def test_a_challenger_that_is_promoted_leaves_the_shadow(tmp_path):
    one, two = (make_model(tmp_path / f"{name}.onnx", ("obi_1",), seed=seed) for name, seed in (("a", 1), ("b", 2)))
    live = Pair(Ref(str(one), ""), None)
    judged = _wanted(live, tmp_path, two, shadow=True)
    assert judged.model == live.model and judged.shadow.path.endswith("b.onnx")
    assert _wanted(judged, tmp_path, two, shadow=False) == Pair(judged.shadow, None)
    assert _wanted(judged, tmp_path, one, shadow=False).shadow == judged.shadow
    assert _wanted(judged, tmp_path, None, shadow=False) == live


PUBLISHED = {"cflob": 10, "deeplob": 100}


def published(recordings: Path, folder: Path, name: str) -> Path:
    """A published model, copied, with the manifest that it lacks."""
    for file in (f"{name}.onnx", f"{name}.onnx.data"):
        shutil.copy(recordings / "onnx_models" / file, folder / file)
    features = FeatureSet.of(LEVELS_Z)
    told = Manifest(name, features.schema, features.names, PUBLISHED[name], 10.0, ("up", "flat", "down"))
    (folder / f"{name}.json").write_text(told.as_json())
    return folder / f"{name}.onnx"


def test_published_models_are_deployed_to_a_live_pipeline_and_answer_as_they_do_alone(
        recordings, tmp_path, instance, run_dir):
    """CFLOB and DeepLOB take columns that the rows of a running pipeline lack and that need 70 s of past. The pipeline
    goes on with the model that it has until they are there."""
    narrow = make_model(tmp_path / "narrow.onnx", ("obi_1", "spread"))
    paths = {name: published(recordings, tmp_path, name) for name in PUBLISHED}
    models = {found.id: found for found in map(Model.load, (narrow, *paths.values()))}
    tape = [str(recordings / "binance" / f"usdm_btcusdt_{day}.gz") for day in ("20240718", "20240719")]
    state = tmp_path / "state"
    state.mkdir()
    pipeline = Pipeline(instance, state, run_dir, "--capture", tape[0], "--capture", tape[1], "--speed", "20",
                        "--workers", "1", "--model", str(narrow))
    network = Network(run_dir)
    try:
        pipeline.until_count("inference", "predictions", 50)
        config, rows = load(environ=pipeline.env), None
        for name, path in paths.items():
            predictions = pipeline.count("inference", "predictions")
            deploy(config, lambda live, folder: live._replace(model=store(path, folder)), 60.0, 0.2)
            assert pipeline.count("inference", "predictions") > predictions
            listener = network.listen("predictions")
            until(listener.discover)
            compared = 0
            while compared < 50:
                message = listener.recv(5000)
                assert message is not None, pipeline.said()
                for found in decode(message, Prediction):
                    rows = Rows.attach(instance, TABLE_HASH) if rows is None or rows.retired else rows
                    used, first = models[found.model], found.seq - PUBLISHED[name] + 1
                    if used.name != name or not rows.holds(0, first):
                        continue
                    window = rows.window(0, found.seq, used.window)[:, used.features.places(rows.columns)]
                    assert used.predict(window) == (found.p_up, found.p_down)
                    compared += 1
            listener.close()
        listed = json.loads(command("model", "list", "--json", env=pipeline.env).communicate()[0])["models"]
        assert {entry["name"] for entry in listed if entry["role"] == "live"} == {"deeplob"}
        told = pipeline.stop()
        assert told["errors"] == told["restarts"] == 0
    finally:
        network.close()
        pipeline.close()
