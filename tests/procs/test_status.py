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
    feature = Telemetry.create(instance, "feature", ("rows",))
    try:
        feature.tell({"waiting_for": "the books ring, which ingest makes"})
        ingest.tell({"cores": [0], "kept_awake": True})
        ingest.add("ticks", 12)
        for stage in (ingest, feature):
            stage.set("heartbeat_ns", time.monotonic_ns() + 60_000_000_000)
        ingest.set("ready", 1)
        process = command("status", env=env)
        out, _ = process.communicate()
        assert process.returncode == 1 and "waiting for the books ring" in out and "cores=[0]" in out
        process = command("status", "--json", env=env)
        told = json.loads(process.communicate()[0])
        assert not told["ready"] and told["ticks"] == 12 and told["stages"]["ingest"]["ready"]
        assert told["stages"]["ingest"]["kept_awake"] and told["stages"]["feature"]["starts"] == 1
    finally:
        ingest.close()
        feature.close()
