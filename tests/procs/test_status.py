"""The status command: what runs, what waits, and exit codes for programs."""

import json
import subprocess
import sys
import time

from common.telemetry import Telemetry
from tests.pipeline import command, environment


def test_nothing_running_is_told_and_gives_7(instance, run_dir, tmp_path):
    process = command("status", env=environment(instance, tmp_path, run_dir))
    assert "alpha run" in process.communicate()[0] and process.returncode == 7


def test_a_waiting_stage_is_told_with_what_it_waits_for_and_gives_1(instance, run_dir, tmp_path):
    env = environment(instance, tmp_path, run_dir)
    ingest = Telemetry.create(instance, "ingest", ("frames", "ticks"), ("book",))
    monitor = Telemetry.create(instance, "monitor", ("judged",))
    feature = Telemetry.create(instance, "feature", ("rows",))
    try:
        feature.tell({"waiting_for": "the books ring, which ingest makes"})
        ingest.tell({"cores": [0], "kept_awake": True, "deployment": {"state": "ready", "error": "", "pair": ["x"]}})
        ingest.add("ticks", 12)
        model = {"name": "best", "id": "00ff", "role": "live", "known": 5, "brier": None, "drift": None}
        monitor.tell({"models": [model], "challenger": None})
        monitor.add("judged", 5)
        for stage in (ingest, feature, monitor):
            stage.set("heartbeat_ns", time.monotonic_ns() + 60_000_000_000)
        ingest.set("ready", 1)
        process = command("status", env=env)
        out, _ = process.communicate()
        assert process.returncode == 1 and "waiting for the books ring" in out and "cores=[0]" in out
        assert "live   best 00ff  judged 5" in out and "models=" not in out
        assert "deployment state=ready" in out and "pair" not in out and "deployment error" not in out
        process = command("status", "--json", env=env)
        told = json.loads(process.communicate()[0])
        assert not told["ready"] and told["ticks"] == 12 and told["stages"]["ingest"]["ready"]
        assert told["judged"] == 5 and told["models"] == [model] and told["challenger"] is None
        assert told["stages"]["ingest"]["kept_awake"] and told["stages"]["feature"]["starts"] == 1
    finally:
        ingest.close()
        monitor.close()
        feature.close()


def test_a_stage_is_named_by_how_it_stands_and_what_one_that_has_gone_said_is_marked_with_its_age(
        instance, run_dir, tmp_path):
    env = environment(instance, tmp_path, run_dir)
    stages = {name: Telemetry.create(instance, name, ("connected",) if name == "ingest" else ())
              for name in ("ingest", "feature", "inference-0", "inference-1", "executor")}
    sleeper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        for name, telemetry in stages.items():
            telemetry.set("ready", name != "inference-0")
            telemetry.set("heartbeat_ns", time.monotonic_ns() + 60_000_000_000)
        stages["ingest"].tell({"waiting_for": "the venue at ws://x: cannot connect"})
        stages["executor"].tell({"state": "ACTIVE"})
        stages["executor"].set("heartbeat_ns", time.monotonic_ns() - 100_000_000_000)
        stages["feature"].tell({"waiting_for": "the books ring"})
        stages["feature"].set("pid", sleeper.pid)
        stages["inference-0"].set("heartbeat_ns", time.monotonic_ns() - 60_000_000_000)  # as one that compiles
        sleeper.kill()
        sleeper.wait()
        process = command("status", env=env)
        out, _ = process.communicate(timeout=60)
        lines = {line.split()[0]: line for line in out.splitlines()[1:] if line.split()}
        assert process.returncode == 1
        assert "exchange     absent" in out and "  inference-0  waiting" in out and "  inference-1  ready" in out
        assert "connecting to the venue at ws://x: cannot connect" in lines["ingest"]
        assert "gone   " in lines["feature"] and f"last pid {sleeper.pid}" in lines["feature"]
        assert "the books ring" not in lines["feature"] and "  executor     silent" in out
        assert "ago:  state=ACTIVE" in out and "the executor is silent: decisions" in out
        process = command("status", "--json", env=env)
        told = json.loads(process.communicate(timeout=60)[0])
        assert told["stale"] == ["executor", "feature"] and told["stages"]["exchange"]["standing"] == "absent"
    finally:
        sleeper.stdin.close()
        for telemetry in stages.values():
            telemetry.close()


def test_where_all_have_gone_nothing_runs(instance, run_dir, tmp_path):
    sleeper = subprocess.Popen([sys.executable, "-c", ""])
    sleeper.wait()
    telemetry = Telemetry.create(instance, "feature", ())
    try:
        telemetry.set("pid", sleeper.pid)
        process = command("status", env=environment(instance, tmp_path, run_dir))
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 7 and "gone" in out and "absent" not in out
    finally:
        telemetry.close()
