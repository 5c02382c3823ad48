"""Deploying to a pipeline of real processes under load: no row lost, no answer that is not one model's for its row, and
whatever goes wrong leaves the model that was there."""

import json
import os
import shutil
import signal
import tempfile
import uuid
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from common import deployment, shm
from common.config import load
from common.deployment import Pair
from common.errors import InstanceError, ModelError
from common.features.table import TABLE_HASH
from common.links import Network
from common.model import Model
from common.ring import Rows
from common.rollout import deploy
from common.wire import Prediction, decode
from tests.onnx_made import make_model
from tests.pipeline import Pipeline, command
from tests.waiting import until

NARROW, WIDE = ("obi_1", "spread", "return_10"), ("spread", "micro_spread", "vol_20", "ofi_20", "obi_1")


class Running:
    """A pipeline of two workers at 2,000 messages a second, its models, and what its taps told."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self.models.mkdir()
        self.one = make_model(self.models / "one.onnx", NARROW)
        self.two = make_model(self.models / "two.onnx", WIDE, window=20, seed=2)
        self.instance, self.run_dir = f"t{os.getpid()}-{uuid.uuid4().hex[:8]}", Path(tempfile.mkdtemp(prefix="at"))
        self.pipeline = Pipeline(self.instance, folder, self.run_dir, "--rate", "2000", "--workers", "2",
                                 "--model", str(self.one), ALPHA_MONITOR__SAMPLE_MS="20")
        self.env = self.pipeline.env
        self.config = load(environ=self.env)  # as the command line has it: without the model that `alpha run` was given
        self.network = Network(self.run_dir)
        self.known: dict[int, Model] = {}
        self.rows: Rows | None = None
        self.kills = 0

    def deploy(self, path: Path | None, shadow: Path | None = None, **how) -> None:
        """As `alpha model deploy`, without its second of starting."""
        def choose(live: Pair, folder: Path) -> Pair:
            return Pair(deployment.store(path, folder) if path else live.model,
                        deployment.store(shadow, folder) if shadow else None)

        outcome = deploy(self.config, choose, **{"timeout_s": 30.0, "watch_s": 0.2, **how})
        assert outcome.workers == ("inference-0", "inference-1")

    def words(self) -> list[dict]:
        self.pipeline.overview.refresh()
        return [self.pipeline.overview.stages[f"inference-{k}"].told() for k in (0, 1)]

    def live(self) -> set[str]:
        return {words.get("model", "") for words in self.words()}

    def until_predictions(self, more: int) -> None:
        count = self.pipeline.count("inference", "predictions")
        self.pipeline.until_count("inference", "predictions", count + more)

    def kill(self, worker: int) -> None:
        self.kills += 1
        starts = self.pipeline.count(f"inference-{worker}", "starts")
        os.kill(self.pipeline.overview.stages[f"inference-{worker}"].get("pid"), signal.SIGKILL)
        until(lambda: self.pipeline.count(f"inference-{worker}", "starts") > starts, 30, "a new worker")
        until(lambda: self.pipeline.overview.ready(f"inference-{worker}"), 30, "a worker that is ready")

    def answer(self, found: Prediction) -> tuple[float, float] | None:
        """What the model that `found` names says of its row, by itself; None if the row is not there any more."""
        model = self.model(found.model)
        if self.rows is None or self.rows.retired:
            self.rows = Rows.attach(self.instance, TABLE_HASH)
        rows, first = self.rows, found.seq - model.window + 1
        if not (rows.holds(found.symbol, found.seq) and rows.holds(found.symbol, first)):
            return None
        window = rows.window(found.symbol, found.seq, model.window)[:, model.features.places(rows.columns)].copy()
        return model.predict(window) if rows.holds(found.symbol, first) else None

    def model(self, number: int) -> Model:
        if number not in self.known:
            for path in self.models.glob("*.onnx"):
                found = Model.load(path)
                self.known[found.id] = found
        return self.known[number]

    def close(self) -> None:
        self.network.close()
        self.pipeline.close()
        left = shm.leaked(self.instance)
        shm.sweep(self.instance)
        shutil.rmtree(self.run_dir, ignore_errors=True)
        assert left == []


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    found = Running(tmp_path_factory.mktemp("rollout"))
    try:
        found.pipeline.until_count("executor", "decisions", 50)
        yield found
        told = found.pipeline.stop()
        assert told["errors"] == 0 and told["restarts"] == found.kills
    finally:
        found.close()


def check(running: Running, listener, name: str, at_least: int = 100) -> set[str]:
    """Compares what a tap tells with the models' own answers, until so many of model `name` agreed; whose it met."""
    compared: dict[str, int] = {}
    while compared.get(name, 0) < at_least:
        message = listener.recv(5000)
        assert message is not None
        for found in decode(message, Prediction):
            answer = running.answer(found)
            if answer is not None:
                assert answer == (found.p_up, found.p_down), found
                whose = running.model(found.model).name
                compared[whose] = compared.get(whose, 0) + 1
    return set(compared)


def test_models_change_five_times_under_load_and_no_row_is_lost(running):
    listener = running.network.listen("predictions")
    until(lambda: listener.discover() == 2)
    rings, lapped = (running.pipeline.count("feature", name) for name in ("rings", "lapped"))
    assert check(running, listener, "one") == {"one"}
    for path in (running.two, running.one, running.two, running.one, running.two):
        running.deploy(path)
        assert running.live() == {path.stem}
        assert check(running, listener, path.stem) <= {"one", "two"}
    assert running.pipeline.count("feature", "rings") == rings + 1  # it lacked columns once
    listener.close()
    # The market stands still: all that was begun comes to its end, and the sums must be equal.
    count, exchange = running.pipeline.count, running.pipeline.overview.stages["exchange"].get("pid")
    os.kill(exchange, signal.SIGSTOP)
    try:
        # (Before this began, a feature stage that had to compile its kernels may have been lapped.)
        until(lambda: count("ingest", "ticks") == count("feature", "rows") + lapped
              and not count("feature", "waiting") and not count("feature", "under_lease"), what="all given out")
        assert count("feature", "offered") == count("feature", "dispatched") + count("feature", "skipped")
        assert count("feature", "dispatched") == count("feature", "done") + count("feature", "lost")
        # A lease that ran out on a machine that was busy may have been worked off all the same.
        late = count("inference", "rows") - count("feature", "done")
        assert 0 <= late <= count("feature", "lost")
        assert count("inference", "rows") == sum(count("inference", name) for name in (
            "predictions", "invalid", "cold", "model_errors", "stale_refs"))
        assert count("feature", "lost") == count("inference", "model_errors") == 0
        assert count("inference", "invalid") == count("inference", "stale_refs") == 0
        assert count("feature", "lapped") == lapped
    finally:
        os.kill(exchange, signal.SIGCONT)


def test_a_challenger_is_judged_on_the_rows_of_the_champion_and_never_traded(running):
    running.deploy(running.one, shadow=running.two)
    judged, traded = running.network.listen("judged"), running.network.listen("predictions")
    until(lambda: judged.discover() == 2 and traded.discover() == 2)
    ids = {model.name: number for number, model in running.known.items()}
    pairs = 0
    while pairs < 20:
        message = judged.recv(5000)
        assert message is not None
        found = decode(message, Prediction)
        assert len(found) <= 64
        if {p.model for p in found} != {ids["one"], ids["two"]}:
            continue  # told before it came
        for champion, challenger in zip(found[::2], found[1::2]):
            assert (champion.model, challenger.model) == (ids["one"], ids["two"])
            assert champion[:4] == challenger[:4] and champion.bid == challenger.bid
            assert challenger.start_ns >= champion.end_ns
            assert (answer := running.answer(challenger)) is None or answer == (challenger.p_up, challenger.p_down)
            pairs += 1
    assert check(running, traded, "one", 300) == {"one"}
    judged.close()
    traded.close()
    running.deploy(None)
    assert {words["shadow"] for words in running.words()} == {""}


def refused(running: Running, *arguments: str) -> str:
    """A deployment from the command line that must fail and leave everything as it was."""
    before = running.live()
    process = command("model", "deploy", *arguments, env=running.env)
    said = process.communicate(timeout=90)[1]
    assert process.returncode == 3, said
    assert running.live() == before
    running.until_predictions(100)
    return said


def test_a_model_of_another_schema_disturbs_no_worker(running):
    path = make_model(running.models / "swapped.onnx", NARROW)
    tree = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**tree, "columns": [*NARROW[1:], NARROW[0]]}))
    before = deployment.read(running.config.state_dir)
    assert "another order" in refused(running, str(path))
    assert deployment.read(running.config.state_dir) == before
    path.unlink()


def test_a_model_that_fails_on_live_rows_is_taken_back(running):
    path = make_model(running.models / "bad.onnx", ("spread", "micro_spread"), window=10, head="fails live")
    running.deploy(running.one)
    former = deployment.read(running.config.state_dir).live
    said = refused(running, str(path), "--watch", "5")
    assert "rolled back" in said and "no answer on live rows" in said
    assert deployment.read(running.config.state_dir).live == former
    assert running.pipeline.count("inference", "fresh_errors") == 0


def test_a_worker_that_is_not_ready_in_time_ends_the_deployment(running):
    running.deploy(running.one)
    pid = running.pipeline.overview.stages["inference-1"].get("pid")
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ModelError, match="not ready in time .*inference-1"):
            running.deploy(running.two, timeout_s=0.8)
    finally:
        os.kill(pid, signal.SIGCONT)
    told = deployment.read(running.config.state_dir)
    assert told.next is None and Path(told.live.model.path).stem == "one"
    running.until_predictions(100)
    assert running.live() == {"one"}


def test_what_was_deployed_outlives_its_original_and_a_kill(running):
    path = make_model(running.models / "three.onnx", NARROW, seed=3)
    running.model(Model.load(path).id)
    running.deploy(path)
    path.unlink()
    running.kill(0)
    assert running.live() == {"three"}
    running.until_predictions(100)


def in_the_middle(running: Running) -> bool:
    told = deployment.read(running.config.state_dir)
    return told is not None and told.next is not None


def test_a_worker_killed_in_the_middle_comes_back_and_takes_part(running):
    new = running.two if running.live() == {"one"} else running.one
    deploying = Thread(target=running.deploy, args=(new,))
    deploying.start()
    until(lambda: in_the_middle(running), what="a deployment in the middle")
    running.kill(1)
    deploying.join()
    assert running.live() == {new.stem} and not in_the_middle(running)
    running.until_predictions(100)


def test_a_deployer_killed_in_the_middle_leaves_what_was_there_and_another_may_deploy(running):
    before = running.live()
    new = running.two if before == {"one"} else running.one
    stopped = running.pipeline.overview.stages["inference-1"].get("pid")
    os.kill(stopped, signal.SIGSTOP)  # so that it cannot come to its end
    try:
        process = command("model", "deploy", str(new), env=running.env)
        until(lambda: in_the_middle(running), 60, "a deployment in the middle")
        process.kill()
        process.communicate()
    finally:
        os.kill(stopped, signal.SIGCONT)
    running.until_predictions(100)
    assert running.live() == before and in_the_middle(running)
    running.deploy(new)
    assert running.live() == {new.stem}


def test_a_pipeline_that_does_not_run_is_said_so(tmp_path, instance, run_dir):
    config = load(environ={"ALPHA_INSTANCE__NAME": instance, "ALPHA_INSTANCE__STATE_DIR": str(tmp_path)})
    with pytest.raises(InstanceError, match="no worker of this instance runs"):
        deploy(config, lambda live, folder: live)


def test_the_answers_of_a_made_model_differ(running):
    """Else to compare them would prove nothing."""
    one, two = (Model.load(path) for path in (running.one, running.two))
    random = np.random.default_rng(5).standard_normal
    assert len({one.predict(random((1, 3), np.float32))[0] for _ in range(20)}) == 20
    assert len({two.predict(random((20, 5), np.float32))[0] for _ in range(20)}) == 20
