"""What people look at has the alerts that `alpha alerts` tells."""

import json
import time

import pytest
from click.testing import CliRunner

from common import config as settings
from common.telemetry import Telemetry
from common.watch.snapshot import Snapshots
from common.watch.watched import Watched
from procs.alerts import alerts

ALERT = {"name": "stage_silent", "subject": "executor", "state": "firing", "severity": "critical", "since_ns": 5,
         "at_ns": 6, "what": "gave no sign of life", "value": None, "limit": None, "remedy": "alpha status"}


@pytest.fixture
def config(instance, tmp_path, run_dir, monkeypatch):
    for name, value in (("NAME", instance), ("STATE_DIR", str(tmp_path)), ("RUN_DIR", str(run_dir))):
        monkeypatch.setenv(f"ALPHA_INSTANCE__{name}", value)
    return settings.load(None)


def test_a_stage_that_compiles_at_its_start_waits_and_is_not_called_silent(config, instance):
    stage = Telemetry.create(instance, "executor", ("armed",))
    stage.set("heartbeat_ns", time.monotonic_ns() - 10_000_000_000)
    try:
        told, plain = Watched(config).take(), Snapshots(config).take()
        assert told["stages"][0]["state"] == "waiting" and told["executor"]["speaks"]
        assert plain["stages"][0]["state"] == "silent"
        stage.set("ready", 1)
        assert Watched(config).take()["stages"][0]["state"] == "silent"
    finally:
        stage.close()


def test_alerts_are_those_of_the_command_the_worst_and_the_oldest_first(config, instance, tmp_path):
    watched = Watched(config)
    assert watched.take()["alerts"] == {"wanted": True, "watched": False, "firing": [], "former": []}
    warning, newer = ALERT | {"severity": "warning", "since_ns": 1}, ALERT | {"since_ns": 7, "subject": "feature"}
    (tmp_path / "alerts.json").write_text(json.dumps({"firing": [warning, newer, ALERT], "former": [warning],
                                                      "sinks": {}}))
    monitor = Telemetry.create(instance, "monitor", ("received",))
    try:
        monitor.set("ready", 1)
        monitor.set("heartbeat_ns", time.monotonic_ns())
        watched._next_look = watched._next_read = 0.0
        told = watched.take()["alerts"]
        assert told["watched"] and told["firing"] == [ALERT, newer, warning] and told["former"] == [warning]
        command = json.loads(CliRunner().invoke(alerts, ["--json"]).stdout)
        for key in ("firing", "former"):
            assert sorted(map(str, command[key])) == sorted(map(str, told[key]))
    finally:
        monitor.close()
    watched._next_look = watched._next_read = 0.0
    told = watched.take()["alerts"]
    assert not told["watched"] and told["firing"] == [] and len(told["former"]) == 4, "of now nothing is known"
