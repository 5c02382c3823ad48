"""Alarms: from a pipeline's blocks to what sinks are given, across lives of the monitor."""

import dataclasses
import json
import stat
import time

import pytest

from common import killswitch
from common.alarms import FILE, Alarms, told
from common.alerts import Alert
from common.clock import ManualClock
from common.config import Alerts, Config, Instance
from common.telemetry import Telemetry

S = 10**9


class Kept:
    """A sink that keeps what it is given."""

    name = "kept"

    def __init__(self) -> None:
        self.got: list[dict] = []
        self.closed = False

    def put(self, content: bytes) -> None:
        self.got.append(json.loads(content))

    def counts(self) -> dict:
        return {"sent": len(self.got), "failed": 0, "dropped": 0, "retries": 0, "error": ""}

    def close(self) -> None:
        self.closed = True

    def states(self) -> list[tuple[str, str]]:
        return [(one["name"], one["state"]) for one in self.got]


@pytest.fixture
def config(instance, tmp_path, run_dir):
    return Config(instance=Instance(name=instance, state_dir=str(tmp_path), run_dir=str(run_dir)),
                  alerts=Alerts(for_s=2.0, clear_s=3.0, silent_s=0.0, stale_s=0.0))


def test_a_halt_is_told_and_that_it_is_over(config, tmp_path, instance):
    clock, sink = ManualClock(1000 * S), Kept()
    alarms = Alarms(config, clock, [sink])

    def turn(seconds: int) -> None:
        for _ in range(seconds * 10):  # however often it is asked
            clock.set(clock.now_ns + S // 10)
            alarms.turn(clock.now_ns)

    turn(3)
    assert sink.got == []
    killswitch.halt(tmp_path, "looks wrong", "me")
    turn(5)
    assert sink.states() == [("trading-halted", "firing")]
    assert sink.got[0]["what"] == "halted: looks wrong (by me)" and sink.got[0]["instance"] == instance
    assert [alert.name for alert in told(config).firing] == ["trading-halted"]
    assert told(config).sinks["kept"]["sent"] == 1 and not told(config).stopped_ns
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    # Another life of the monitor: not told again.
    alarms.close()
    assert sink.closed and told(config).stopped_ns == clock.wall_ns()
    alarms = Alarms(config, clock, [sink])
    assert [alert.name for alert in told(config).former] == ["trading-halted"] and told(config).firing == []
    turn(5)
    assert len(sink.got) == 1 and told(config).firing and told(config).former == []
    killswitch.resume(tmp_path)
    turn(6)
    assert sink.states() == [("trading-halted", "firing"), ("trading-halted", "resolved")] and told(config).firing == []
    alarms.close()


def test_a_stage_that_was_started_again_is_told(config, instance):
    clock, sink = ManualClock(1000 * S), Kept()
    telemetry = Telemetry.create(instance, "feature", ("x",))
    alarms = Alarms(config, clock, [sink])
    try:
        for _ in range(3):
            clock.set(clock.now_ns + S)
            alarms.turn(clock.now_ns)
        telemetry.add("starts")  # as whoever takes the block over after `kill -9`
        for _ in range(3):
            clock.set(clock.now_ns + S)
            alarms.turn(clock.now_ns)
        assert sink.states() == [("stage-restarted", "firing")] and sink.got[0]["subject"] == "feature"
    finally:
        telemetry.close()
        alarms.close()


def test_a_silent_stage_is_told_but_not_one_that_the_configuration_does_not_want(config, instance):
    config = dataclasses.replace(config, alerts=Alerts(silent_s=1.0, stale_s=0.0))
    clock, sink = ManualClock(1000 * S), Kept()
    stages = [Telemetry.create(instance, name, (), ("inference",)) for name in ("inference-0", "inference-7")]
    alarms = Alarms(config, clock, [sink])
    try:
        for telemetry in stages:
            telemetry.set("ready", 1)
            telemetry.set("heartbeat_ns", time.monotonic_ns() - 10 * S)
        for _ in range(4):
            clock.set(clock.now_ns + S)
            alarms.turn(clock.now_ns)
        assert [(one["name"], one["subject"], one["severity"]) for one in sink.got] == [
            ("stage-silent", "inference-0", "critical")]
    finally:
        for telemetry in stages:
            telemetry.close()
        alarms.close()


def test_a_stage_that_compiles_at_its_start_is_not_silent_but_one_that_was_ready_is(config, instance, monkeypatch):
    config = dataclasses.replace(config, alerts=Alerts(silent_s=1.0, stale_s=0.0))
    clock, sink = ManualClock(1000 * S), Kept()
    stages = {name: Telemetry.create(instance, name, ()) for name in ("feature", "executor")}
    stages["executor"].set("ready", 1)
    alarms = Alarms(config, clock, [sink])
    try:
        for telemetry in stages.values():
            telemetry.set("heartbeat_ns", time.monotonic_ns() - 10 * S)
        for silent in (["executor"], ["executor", "feature"]):
            for _ in range(4):
                clock.set(clock.now_ns + S)
                alarms.turn(clock.now_ns)
            assert [one["subject"] for one in sink.got if one["name"] == "stage-silent"] == silent
            monkeypatch.setattr("common.overview._START_NS", 0)  # no start takes so long
    finally:
        for telemetry in stages.values():
            telemetry.close()
        alarms.close()


@pytest.mark.parametrize("starts", [1, 2])
def test_what_a_life_before_told_is_not_claimed_until_it_is_found_and_told_to_be_over_once(config, instance, starts):
    """starts=2: the monitor alone was started again, by its supervisor."""
    old = Alert("stage-silent", "feature", "firing", "critical", 5 * S, 5 * S, "it gives no sign of life", 4.0, 3.0, "")
    halted = Alert("trading-halted", "", "firing", "warning", 6 * S, 6 * S, "halted: x (by me)", None, None, "")
    (config.state_dir / FILE).write_text(json.dumps({"firing": [old._asdict(), halted._asdict()], "sinks": {}}))
    killswitch.halt(config.state_dir, "x", "me")
    monitor = Telemetry.create(instance, "monitor", ())
    monitor.set("starts", starts)
    clock, sink = ManualClock(1000 * S), Kept()
    alarms = Alarms(config, clock, [sink])
    try:
        assert told(config).firing == [] and {one.name for one in told(config).former} == {old.name, halted.name}
        began_ns = clock.wall_ns()
        for _ in range(6):
            clock.set(clock.now_ns + S)
            alarms.turn(clock.now_ns)
        assert sink.states() == [("stage-silent", "resolved")] and told(config).former == []
        [firing] = told(config).firing
        assert firing.name == "trading-halted"
        assert firing.since_ns == 6 * S if starts == 2 else firing.since_ns >= began_ns
    finally:
        monitor.close()
        alarms.close()


def test_the_log_names_what_has_no_subject_without_an_empty_place(config, caplog):
    killswitch.halt(config.state_dir, "x", "me")
    clock = ManualClock(1000 * S)
    alarms = Alarms(config, clock, [])
    for _ in range(4):
        clock.set(clock.now_ns + S)
        alarms.turn(clock.now_ns)
    alarms.close()
    assert "alert firing trading-halted: halted: x (by me)" in caplog.text


def test_switched_off_it_looks_at_nothing(config, tmp_path):
    sink = Kept()
    alarms = Alarms(dataclasses.replace(config, alerts=Alerts(enabled=False)), ManualClock(), [sink])
    killswitch.halt(tmp_path, "x")
    for k in range(9):
        alarms.turn(k * S)
    alarms.close()
    assert sink.got == []


def test_a_look_that_fails_ends_nothing_and_the_next_one_looks_again(config, tmp_path, caplog, monkeypatch):
    clock, sink = ManualClock(1000 * S), Kept()
    alarms = Alarms(config, clock, [sink])
    killswitch.halt(tmp_path, "x")
    with monkeypatch.context() as patch:
        patch.setattr(alarms._snapshots, "take", lambda depth: 1 / 0)
        alarms.turn(clock.now_ns)
    assert "could not be looked for" in caplog.text and "ZeroDivisionError" in caplog.text
    for _ in range(4):
        clock.set(clock.now_ns + S)
        alarms.turn(clock.now_ns)
    assert sink.states() == [("trading-halted", "firing")]
    alarms.close()


@pytest.mark.parametrize("content", ["", "nonsense", "[]", '{"firing": [{"x": 1}], "sinks": {}}'])
def test_a_file_that_cannot_be_read_is_none(config, tmp_path, content):
    (tmp_path / FILE).write_text(content)
    assert told(config) == ([], [], {}, 0)


def test_a_disk_that_refuses_ends_nothing(config, tmp_path, caplog):
    clock, sink = ManualClock(1000 * S), Kept()
    (tmp_path / f".{FILE}.new").mkdir()
    alarms = Alarms(config, clock, [sink])
    killswitch.halt(tmp_path, "x")
    for _ in range(5):
        clock.set(clock.now_ns + S)
        alarms.turn(clock.now_ns)
    assert sink.states() == [("trading-halted", "firing")] and "cannot be written down" in caplog.text
    alarms.close()
