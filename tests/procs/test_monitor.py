"""The monitor: every outcome found, every figure recomputed from its journal, through swaps, restarts and kills."""

import dataclasses
import json
import math
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from common import deployment, judged, manifest
from common.calibration import probability
from common.clock import ManualClock
from common.config import Config, Inference, Instance
from common.config import Monitor as Settings
from common.drift import statistics
from common.errors import LayoutError
from common.features.choice import DEFAULT
from common.features.rows import Features
from common.judged import model_text, read
from common.layout import EVENT_NS
from common.links import LocalLink
from common.onnx_file import model_id
from common.ring import Books, Rows
from common.telemetry import Telemetry
from common.wire import Prediction, encode
from models import score
from procs.monitor import COUNTERS, Monitor
from tests.pipeline import Pipeline, command, environment
from tests.ticks import write_ticks
from tests.waiting import until

MODELS = Path(__file__).resolve().parents[2] / "models"
MS = 10**6
TURN = 250 * MS


def variant(folder: Path, name: str, factor: float = 1.0, horizon_s: float = 1.0, told: dict | None = None) -> Path:
    """The default model under another name, with other weights, another horizon and statistics of our own."""
    onnx = pytest.importorskip("onnx")
    from models import export

    model = onnx.load(MODELS / "default.onnx")
    for weights in model.graph.initializer:
        scaled = onnx.numpy_helper.to_array(weights) * np.float32(factor)
        weights.CopyFrom(onnx.numpy_helper.from_array(scaled, weights.name))
    del model.metadata_props[:]
    path = folder / f"{name}.onnx"
    export.save(model, path, dataclasses.replace(manifest.read(MODELS / "default.onnx"), name=name, horizon_s=horizon_s,
                                                 golden={}, sha256="", statistics=told or {}))
    return path


def noise(rows: int = 2000) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (rows, len(DEFAULT))).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """Champion, with statistics, and challenger, without."""
    folder = tmp_path_factory.mktemp("models")
    return variant(folder, "champion", told=statistics(noise())), variant(folder, "challenger", 0.5)


class Bench:
    """A monitor on private memory, and the hands of the workers."""

    def __init__(self, folder: Path, model: Path, shadow: Path | None = None, sample_ms: float = 0.0,
                 telemetry: Telemetry | None = None) -> None:
        self.config = Config(instance=Instance(state_dir=str(folder)), monitor=Settings(sample_ms=sample_ms),
                             inference=Inference(model=str(model), shadow=str(shadow or "")))
        self.folder, self.ids = folder, [model_id(path) for path in (model, shadow) if path]
        self.clock, self.inbox = ManualClock(10**9), LocalLink()
        self.telemetry = telemetry or Telemetry.private("monitor", COUNTERS)
        self.begin(1)
        self.monitor = Monitor(self.config, self.clock, self.telemetry, self.inbox, lambda: self.books,
                               lambda: self.rows)
        assert self.monitor.on_start()

    def begin(self, epoch: int) -> None:
        """A stream of ticks and its rows."""
        self.books = Books(("A", "B"), 1024, epoch, None)
        self.rows = Rows.private(("A", "B"), DEFAULT.labels, 1024, epoch)
        self.features = Features(self.books, self.rows)

    def tick(self, count: int, symbol: int = 0) -> None:
        """10 ms of venue time each."""
        self.features.advance(symbol, write_ticks(self.books, symbol, count), 7)

    def predict(self, p_up: float, model: int = 0, symbol: int = 0, seq: int = 0, back: int = 0) -> Prediction:
        tick = self.books.read(symbol, seq or int(self.books.heads[symbol]) - back)
        found = Prediction(symbol, 0, self.books.tag, tick[0], 0, 1, tick[EVENT_NS], self.ids[model], p_up, 1 - p_up,
                           0.1, tick[16], tick[36], *[0] * 6)
        self.inbox.send(encode([found]))
        return found

    def turn(self, ns: int = 4 * TURN) -> None:
        self.clock.set(self.clock.now_ns + ns)
        self.monitor.do_work()

    def told(self, name: str) -> dict:
        return next(model for model in self.telemetry.told()["models"] if model["name"] == name)

    def count(self, name: str) -> int:
        return self.telemetry.get(name)


def recomputed(lines: list[dict]) -> dict[str, float]:
    """The figures of one model, from its lines in the journal, by the code that judges models in training."""
    moves = np.array([line["then_bid"] + line["then_ask"] - line["bid"] - line["ask"] for line in lines])
    p = np.array([probability(line["p_up"], line["p_down"]) for line in lines])[moves != 0]
    truth = (moves[moves != 0] > 0).astype(float)
    return {"known": len(lines), "flat": int((moves == 0).sum()), "base_rate": truth.mean(),
            "brier": score.brier(truth, p), "log_loss": score.log_loss(truth, p), "hit_rate": score.accuracy(truth, p),
            "ece": score.expected_calibration_error(truth, p)}


def assert_figures(told: dict, lines: list[dict]) -> None:
    for name, value in recomputed(lines).items():
        assert told[name] == pytest.approx(value, rel=2e-5, abs=1e-9), name


def test_predictions_are_judged_once_their_horizon_has_passed(tmp_path, models):
    bench = Bench(tmp_path, models[0])
    random = np.random.default_rng(1)
    for _ in range(100):
        bench.tick(5)
        bench.tick(5, symbol=1)
        bench.predict(float(random.random()))
        bench.predict(float(random.random()), symbol=1)
        bench.turn()
    # 100 ticks are a second: of the last 20 predictions of a symbol the outcome lies ahead, and of one it is the
    # newest tick, which another may follow in the same moment.
    assert (bench.count("judged"), bench.count("pending"), bench.count("lost")) == (158, 42, 0)
    lines = list(read(tmp_path))
    assert len(lines) == bench.count("journaled") == 158
    assert Counter(line["symbol"] for line in lines) == {"A": 79, "B": 79}
    assert all(line["then_seq"] == line["seq"] + 100 and line["model"] == model_text(bench.ids[0]) for line in lines)
    told = bench.told("champion")
    assert_figures(told, lines)
    assert told["role"] == "live" and told["pending"] == 42 and bench.telemetry.told()["challenger"] is None
    bench.monitor.on_close()


def test_champion_and_challenger_are_compared_on_the_rows_of_both(tmp_path, models, monkeypatch):
    monkeypatch.setattr("procs.monitor._LEAST_BLOCK_NS", 0)  # then a block is two horizons
    bench = Bench(tmp_path, *models)
    for i in range(300):
        bench.tick(20)
        champion, challenger = (bench.predict(p, model) for model, p in enumerate((0.5, 0.8)))
        if i % 7 == 0:
            bench.predict(0.1, 1, symbol=0, back=7)  # a row that the champion did not predict
        bench.turn()
    told = bench.telemetry.told()
    assert [model["role"] for model in told["models"]] == ["live", "shadow"]
    lines = list(read(tmp_path))
    by_row: dict = {}
    for line in lines:
        by_row.setdefault(line["seq"], {})[line["name"]] = line
    gains = []
    for row in by_row.values():
        if len(row) == 2:
            moves = [line["then_bid"] + line["then_ask"] - line["bid"] - line["ask"] for line in row.values()]
            assert moves[0] == moves[1]
            if moves[0]:
                gains.append(0.25 - (0.8 - (moves[0] > 0)) ** 2)
    assert 0 < told["challenger"]["rows"] <= len(gains) < told["challenger"]["rows"] + 25  # an open block
    assert told["challenger"]["gain"] == pytest.approx(np.mean(gains[:told["challenger"]["rows"]]), rel=1e-4)
    assert told["challenger"]["blocks"] >= 28 and "champion is better" in told["challenger"]["verdict"]
    assert_figures(bench.told("challenger"), [line for line in lines if line["name"] == "challenger"])


def test_models_with_other_horizons_are_not_compared(tmp_path, models):
    bench = Bench(tmp_path, models[0], variant(tmp_path, "slower", 0.5, horizon_s=2.0))
    bench.tick(300)
    bench.predict(0.5, 0)
    bench.predict(0.5, 1)
    bench.tick(150)
    bench.turn()
    assert bench.monitor.comparison is None and (bench.count("judged"), bench.count("pending")) == (1, 1)


def test_of_several_rows_in_a_stretch_of_time_one_is_judged(tmp_path, models):
    bench = Bench(tmp_path, *models, sample_ms=100.0)
    for _ in range(50):
        bench.tick(5)
        bench.predict(0.6, 0)
        bench.predict(0.6, 1)
    bench.turn()
    assert bench.count("received") == 2 * 26 and bench.count("thinned") == 100 - 52
    bench.predict(0.6, back=30)  # another worker's, which comes late
    bench.turn()
    assert bench.count("received") == 52


def test_drift_is_measured_in_the_rows_that_were_predicted_from(tmp_path, models):
    bench = Bench(tmp_path, *models)
    for _ in range(600):
        bench.tick(2)
        bench.predict(0.6)
        bench.turn(TURN)
    bench.predict(0.6, 1)
    bench.turn()
    told = bench.told("champion")["drift"]
    assert told["rows"] == bench.count("drift_rows") == 600 and told["changed"] > 10
    assert told["worst"][0][0] in DEFAULT.names and len(told["worst"]) == 5
    challenger = bench.told("challenger")
    assert challenger["drift"] is None and "no statistics" in challenger["note"]
    # A row that was overwritten is not read.
    gone = bench.predict(0.6)
    bench.tick(1023)
    bench.tick(1)
    bench.turn()
    assert gone.seq and bench.count("drift_missed") == 1


def test_rows_without_the_models_columns_leave_the_rest_as_it_is(tmp_path, models):
    bench = Bench(tmp_path, models[0])
    bench.monitor.judges[bench.ids[0]].fit(Rows.private(("A", "B"), DEFAULT.labels[1:], 1024, 1))
    bench.tick(200)
    bench.predict(0.6)
    bench.tick(200)
    bench.turn()
    assert (bench.count("judged"), bench.count("drift_missed")) == (1, 1)
    with pytest.raises(LayoutError):
        DEFAULT.places(DEFAULT.labels[1:])


def test_a_model_that_is_deployed_is_found_and_takes_its_place(tmp_path, models):
    champion, challenger = models
    bench = Bench(tmp_path, champion)
    bench.ids.append(model_id(challenger))
    bench.tick(10)
    bench.predict(0.6, 1)
    bench.turn()
    assert bench.count("unknown_model") == 1 and bench.count("received") == 0
    ref = deployment.store(challenger, tmp_path)
    mine = deployment.configured(bench.config)
    deployment.write(tmp_path, deployment.Deployment(1, mine, deployment.Pair(ref, None), mine))
    bench.turn()
    bench.tick(10)
    bench.predict(0.6, 1)
    bench.predict(0.6, 0)  # what was under way when it was changed
    bench.tick(150)
    bench.turn()
    assert bench.count("judged") == 2 and bench.count("unknown_model") == 1
    assert [(model["name"], model["role"]) for model in bench.telemetry.told()["models"]] == [
        ("challenger", "live"), ("champion", "former")]


def test_an_unknown_model_is_searched_for_less_and_less(tmp_path, models, monkeypatch):
    bench = Bench(tmp_path, models[0])
    bench.ids.append(12345)
    bench.tick(10)
    looks = []
    monkeypatch.setattr(bench.monitor, "_look", lambda: looks.append(bench.clock.now_ns))
    for _ in range(2000):
        bench.predict(0.6, 1)
        bench.turn()
    pauses = np.diff(looks)
    assert bench.count("unknown_model") == 2000 and len(looks) < 50
    assert pauses[0] <= 2 * 10**9 and pauses[-1] >= 60 * 10**9


def test_a_new_stream_of_ticks_is_followed_and_what_waited_in_the_old_is_lost(tmp_path, models):
    bench = Bench(tmp_path, models[0])
    bench.tick(50)
    bench.predict(0.6)
    bench.turn()
    old = bench.predict(0.6, back=1)
    bench.turn()
    retired, bench.books.block = bench.books, type("Block", (), {"retired": True})()
    bench.rows.block = retired.block
    bench.begin(2)
    bench.tick(50)
    bench.predict(0.6)
    bench.tick(150)
    bench.turn()
    assert (bench.count("judged"), bench.count("lost"), bench.count("pending")) == (1, 2, 0)
    bench.inbox.send(encode([old]))
    bench.turn()
    assert bench.count("lost") == 3 and bench.told("champion")["lost"] == 3
    assert bench.count("drift_rows") == 3


def test_what_waited_in_a_process_that_died_is_counted_as_lost(tmp_path, models):
    bench = Bench(tmp_path, models[0])
    bench.tick(50)
    bench.predict(0.6)
    bench.predict(0.6, symbol=0, back=3)
    bench.turn()
    assert bench.count("pending") == 2
    again = Bench(tmp_path, models[0], telemetry=bench.telemetry)
    assert (again.count("received"), again.count("lost"), again.count("pending")) == (2, 2, 0)


def test_a_disk_that_refuses_stops_nothing(tmp_path, models):
    folder = tmp_path / "state"
    bench = Bench(folder, models[0])
    bench.tick(10)
    (folder / judged.NAME).mkdir(parents=True)
    for _ in range(3):
        bench.predict(0.6)
        bench.tick(150)
        bench.turn()
    assert (bench.count("judged"), bench.count("journaled"), bench.count("journal_errors")) == (3, 0, 3)
    (folder / judged.NAME).rmdir()
    bench.predict(0.6)
    bench.tick(150)
    bench.turn()
    assert bench.count("journaled") == 1 and len(list(read(folder))) == 1


def test_it_waits_for_the_books_and_ends_well_without_them(tmp_path):
    def absent():
        raise FileNotFoundError

    config = Config(instance=Instance(state_dir=str(tmp_path)), inference=Inference(model=str(MODELS / "default.onnx")))
    telemetry = Telemetry.private("monitor", COUNTERS)
    monitor = Monitor(config, ManualClock(), telemetry, LocalLink(), absent, absent)
    assert not monitor.on_start() and "books ring" in telemetry.told()["waiting_for"]
    monitor.on_close()


def test_what_is_told_fits_however_many_models_there_were(tmp_path, models):
    bench = Bench(tmp_path, models[0])
    judge = bench.monitor.judges[bench.ids[0]]
    for number in range(1, 30):
        other = bench.monitor.judges[number] = type(judge)(number, dataclasses.replace(
            manifest.read(models[0]), name="n" * 100), "x")
        other.received = 5
        for i in range(20):
            other.calibration.add(i / 20 + 1e-9, 1 - i / 20, math.pi * (-1) ** i)
        for row in noise(600):
            other.drift.add(row * 1.2345678)
    bench.turn()
    assert len(bench.telemetry.told()["models"]) == 4


def test_switched_off_it_ends_at_once(instance, run_dir, tmp_path):
    process = command("monitor", env=environment(instance, tmp_path, run_dir, ALPHA_MONITOR__ENABLED="false"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out == "" and "monitor.enabled" in err


@pytest.mark.kill
def test_a_pipeline_with_a_challenger_is_judged_and_the_monitor_may_be_killed(instance, run_dir, tmp_path, models):
    champion, challenger = models
    state = tmp_path / "state"
    state.mkdir()
    pipeline = Pipeline(instance, state, run_dir, "--rate", "400", "--model", str(champion), "--shadow",
                        str(challenger), ALPHA_MONITOR__SAMPLE_MS="100", ALPHA_MONITOR__ENABLED="true")
    try:
        pipeline.until_count("monitor", "judged", 60)
        telemetry = pipeline.overview.stages["monitor"]
        pid, starts, before = telemetry.get("pid"), telemetry.get("starts"), telemetry.get("judged")
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
        os.kill(pid, signal.SIGKILL)
        until(lambda: pipeline.count("monitor", "starts") > starts, 60, "a new monitor")
        earlier = len(list(read(state)))
        assert earlier > 0
        pipeline.until_count("monitor", "judged", before + 150)
        process = command("status", "--json", env=pipeline.env)
        told = json.loads(process.communicate(timeout=60)[0])
        assert told["judged"] > before and {model["role"] for model in told["models"]} == {"live", "shadow"}
        shown = command("status", env=pipeline.env).communicate(timeout=60)[0]
        assert "champion" in shown and "Brier" in shown and "challenger: too early to tell" in shown
        told = pipeline.stop()
    finally:
        pipeline.close()
    lines = list(read(state))[earlier:]
    by_name = {model["name"]: model for model in told["models"]}
    assert set(by_name) == {"champion", "challenger"}
    for path in models:
        mine = [line for line in lines if line["model"] == model_text(model_id(path))]
        assert len(mine) > 30 and {line["horizon_ns"] for line in mine} == {10**9}
        assert_figures(by_name[path.stem], mine)
    assert told["restarts"] == 1 and told["errors"] == told["shm_leaked"] == 0
    assert told["judged"] >= len(lines) and by_name["champion"]["brier"] != by_name["challenger"]["brier"]
