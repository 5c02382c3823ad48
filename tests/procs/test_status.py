"""The status command: what runs, what waits, and exit codes for programs."""

import json
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
