"""alpha restart: by the supervisord of the instance, and what it says where there is none."""

import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from common.telemetry import Telemetry
from procs.cli import main
from procs.run import supervisor_at
from tests.pipeline import Pipeline, environment
from tests.waiting import until


@pytest.fixture
def env(instance, tmp_path, run_dir):
    return environment(instance, tmp_path, run_dir)


def asked(env, *arguments: str, code: int = 0):
    found = CliRunner().invoke(main, ["restart", *arguments], env=env)
    assert found.exit_code == code, found.output
    return found


def test_where_nothing_runs_and_where_there_is_no_such_stage(env):
    assert "start it with: alpha run" in asked(env, "feature", code=7).stderr
    found = asked(env, "inference-2", code=2)
    assert "there is no stage inference-2" in found.stderr and "inference-0, inference-1, ingest" in found.stderr


def test_a_stage_that_no_supervisor_keeps_is_for_who_started_it(env, instance):
    feature = Telemetry.create(instance, "feature", ())
    try:
        assert f"kill {os.getpid()}, then alpha feature" in asked(env, "feature", code=6).stderr
        assert "it does not run): alpha inference --worker 1" in asked(env, "inference-1", code=6).stderr
    finally:
        feature.close()


def test_a_stage_under_systemd_is_for_systemctl(env, instance):
    waiting = subprocess.Popen([sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               env={**os.environ, "ALPHA_SUPERVISED": "systemd"})
    feature = Telemetry.create(instance, "feature", ())
    try:
        waiting.stdout.readline()
        feature.set("pid", waiting.pid)
        feature.set("started_ns", time.monotonic_ns())
        for stage, service in (("feature", "feature"), ("inference-1", "inference@1"), ("ingest", "ingest@0")):
            said = asked(env, stage, code=6).stderr
            assert "systemctl" in said and f"restart alpha-{instance}-{service}.service" in said
    finally:
        waiting.communicate()
        feature.close()


def test_each_kind_of_stage_is_started_again_and_the_run_goes_on(instance, tmp_path, run_dir):
    pipeline = Pipeline(instance, tmp_path, run_dir, ALPHA_INFERENCE__WORKERS="1")
    try:
        pipeline.until_count("executor", "decisions", 1, 300)
        until(lambda: pipeline.overview.refresh() or pipeline.overview.ready("monitor"), 60, "the monitor")
        for stage in ("feature", "ingest-0", "inference-0", "monitor", "executor"):
            name = "ingest" if stage == "ingest-0" else stage
            pid = pipeline.overview.stages[name].get("pid")
            said = asked(pipeline.env, stage).stdout
            pipeline.overview.refresh()
            now = pipeline.overview.stages[name].get("pid")
            assert now != pid and said.startswith(f"{name} is ready again after") and f"pid {now}" in said
            assert pipeline.overview.ready(name)
        pipeline.until_count("executor", "decisions", 1, 60)
        assert pipeline.stop()["shm_leaked"] == 0
    finally:
        pipeline.close()


def test_a_stage_that_does_not_become_ready_is_told_with_what_it_waits_for(instance, tmp_path, run_dir):
    pipeline = Pipeline(instance, tmp_path, run_dir, ALPHA_INFERENCE__WORKERS="1")
    try:
        pipeline.until_count("executor", "decisions", 1, 300)
        # Without ingest there is no books ring.
        supervisor_at(run_dir / "supervisor.sock").stopProcess("ingest:ingest-0", True)
        said = asked(pipeline.env, "executor", "--timeout", "3s", code=5).stderr
        assert "executor is not ready again" in said and "the books ring" in said
        asked(pipeline.env, "ingest")  # one that was stopped is started
        until(lambda: pipeline.overview.refresh() or pipeline.overview.ready("executor"), 60, "the executor")
    finally:
        pipeline.close()
