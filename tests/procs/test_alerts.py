"""Alerts for real: a pipeline, `kill -9`, a halt, a command and a webhook."""

import json
import os
import signal

import pytest
from click.testing import CliRunner

from common.alarms import FILE
from common.alerts import FIRING, WARNING, Alert
from common.telemetry import Telemetry
from procs.cli import main
from tests.pipeline import Pipeline, command, environment
from tests.waiting import until
from tests.webhook_server import WebhookServer, collector, lines

ALERT = Alert("trading-halted", "", FIRING, WARNING, 1, 1, "halted: x (by me)", None, None, "alpha resume")


def shown(env, *arguments: str, code: int = 0):
    found = CliRunner().invoke(main, ["alerts", *arguments], env=env)
    assert found.exit_code == code, found.output
    return found


@pytest.mark.kill
def test_a_killed_stage_and_a_halt_are_told_by_command_and_webhook_and_that_they_are_over(instance, tmp_path, run_dir):
    telling, target = collector(tmp_path)
    with WebhookServer((503,)) as server:  # the first attempt fails
        pipeline = Pipeline(instance, tmp_path, run_dir, ALPHA_ALERTS__COMMAND=json.dumps(telling),
                            ALPHA_ALERTS_WEBHOOK=server.url, ALPHA_ALERTS__RESTART_WINDOW_S="4.0",
                            ALPHA_ALERTS__CLEAR_S="1.0", ALPHA_ALERTS__FOR_S="0.5")
        try:
            pipeline.until_count("executor", "decisions", 10, 300)
            until(lambda: pipeline.overview.refresh() or pipeline.overview.ready("monitor"), 300)
            until(lambda: (tmp_path / FILE).exists(), 60, "the first look")
            os.kill(pipeline.overview.stages["feature"].get("pid"), signal.SIGKILL)

            def told(name: str, subject: str) -> list[list[str]]:
                return [[one["state"] for one in where if (one["name"], one["subject"]) == (name, subject)]
                        for where in (lines(target), server.received)]

            over = [[FIRING, "resolved"], [FIRING, "resolved"]]
            until(lambda: told("stage-restarted", "feature") == over, 300, "feature, told and over")
            process = command("halt", "looks wrong", env=pipeline.env)
            process.communicate(timeout=60)
            until(lambda: told("trading-halted", "") == [[FIRING], [FIRING]], 120, "the halt")
            assert "halted: looks wrong" in shown(pipeline.env, code=1).stdout
            command("resume", env=pipeline.env).communicate(timeout=60)
            until(lambda: told("trading-halted", "") == over, 120, "the end of the halt")
            until(lambda: json.loads((tmp_path / FILE).read_text())["sinks"]["webhook"]["retries"] == 1, 10)
            # The same in both, and the address in no log.
            assert sorted(lines(target), key=str) == sorted(server.received, key=str)
            said = "".join(path.read_text() for path in (tmp_path / "log").glob("*.log"))
            assert "alert firing trading-halted" in said and "s3cret" not in said
            # Under supervision a log is for programs: one JSON object a line.
            events = [json.loads(line) for line in (tmp_path / "log" / "monitor.log").read_text().splitlines()]
            assert {"at", "level", "stage", "pid", "event"} <= set(events[0])
        finally:
            pipeline.close()


@pytest.fixture
def env(instance, tmp_path, run_dir):
    return environment(instance, tmp_path, run_dir)


def test_what_is_firing_is_shown_and_told_by_the_exit_code(env, instance, tmp_path):
    assert "nobody watches" in shown(env, code=7).stderr
    monitor = Telemetry.create(instance, "monitor", ())
    monitor.set("ready", 1)
    try:
        assert "nothing is firing" in shown(env).stdout
        (tmp_path / FILE).write_text(json.dumps({"firing": [ALERT._asdict()], "sinks": {"webhook": {
            "sent": 3, "failed": 1, "dropped": 0, "retries": 5, "error": "status 500"}}}))
        text = shown(env, code=1).stdout
        assert "WARNING  trading-halted" in text and "alpha resume" in text and "webhook: 3, given up 1" in text
        told = json.loads(shown(env, "--json", code=1).stdout)
        assert told["watched"] and told["firing"] == [ALERT._asdict()] and told["sinks"]["webhook"]["failed"] == 1
    finally:
        monitor.close()
    # A monitor that has gone claims nothing.
    text = shown(env, code=7)
    assert "nobody watches" in text.stderr and "WARNING  trading-halted" in text.stdout and "min)" not in text.stdout
    (tmp_path / FILE).write_text(json.dumps({"firing": [ALERT._asdict()], "sinks": {}, "stopped_ns": 60 * 10**9}))
    assert "until it was stopped at 1970-01-01T00:01:00" in shown(env, code=7).stdout
    told = json.loads(shown(env, "--json", code=7).stdout)
    assert told["firing"] == [] and told["former"] == [ALERT._asdict()] and told["stopped_ns"] == 60 * 10**9


def test_a_test_alert_goes_to_all_that_is_configured(env, tmp_path):
    telling, target = collector(tmp_path)
    assert "nowhere to tell" in shown(env, "--test", code=2).stderr
    with WebhookServer() as server:
        both = env | {"ALPHA_ALERTS__COMMAND": json.dumps(telling), "ALPHA_ALERTS_WEBHOOK": server.url}
        assert shown(both, "--test").stdout == "command: arrived\nwebhook: arrived\n"
        assert lines(target) == server.received and server.received[0]["name"] == "test"
    found = shown(both, "--test", "--json", code=5)
    assert json.loads(found.stdout)["command"] == ""
    assert "webhook: the webhook for alerts cannot be reached" in found.stderr
    assert "s3cret" not in found.output
    failed = shown(both, "--test", code=5)
    assert failed.stdout == "command: arrived\n" and failed.output.count("cannot be reached") == 1


def test_the_log_of_the_sink_says_nothing_beside_the_answer_of_a_test(env):
    # The same in a process of its own, whose log has nowhere else to go.
    process = command("alerts", "--test", env=env | {"ALPHA_ALERTS_WEBHOOK": "http://127.0.0.1:9/x"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 5 and out == "" and len(err.splitlines()) == 1
