"""alpha units: what systemd says of them, and a pipeline under a real systemd."""

import json
import os
import shutil
import signal
import subprocess

import pytest
from click.testing import CliRunner

from common import shm
from common.overview import Overview
from common.programs import parse
from procs.cli import main
from procs.run import ROOT
from tests.manager import Manager
from tests.pipeline import environment
from tests.waiting import until

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


def made(*arguments: str, env: dict[str, str], code: int = 0) -> str:
    result = CliRunner().invoke(main, ["units", *arguments], env={"ALPHA_CONFIG": str(ROOT / "alpha.toml"), **env})
    assert result.exit_code == code, result.output
    return result.output


@needs_systemd
@pytest.mark.parametrize("kind", ["system", "user"])
def test_systemd_finds_no_fault_in_them(kind, tmp_path):
    made(f"--{kind}", "--out", str(tmp_path / "units"), env={"ALPHA_INSTANCE__STATE_DIR": str(tmp_path / "state")})
    done = subprocess.run(["systemd-analyze", "verify", f"--{kind}", *map(str, (tmp_path / "units").iterdir())],
                          env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert (tmp_path / "state").is_dir()


def test_json_has_every_unit_and_what_is_configured_is_in_them():
    told = json.loads(CliRunner().invoke(main, ["units", "--json"], env={
        "ALPHA_INSTANCE__NAME": "mine", "ALPHA_INFERENCE__WORKERS": "3", "ALPHA_MONITOR__ENABLED": "false"}).stdout)
    assert told["target"] == "alpha-mine.target" and "alpha-mine-monitor.service" not in told["units"]
    assert told["units"]["alpha-mine.target"].count("Wants=alpha-mine-inference@") == 3
    programs = {program.name for program in parse((ROOT / "supervisord.conf").read_text())} - {"monitor"}
    assert len(told["units"]) == len(programs) + 1
    assert "ALPHA_SUPERVISED=systemd" in told["units"]["alpha-mine-executor.service"]
    assert 'Environment="ALPHA_INFERENCE__WORKERS=3"' in told["units"]["alpha-mine-executor.service"]


def test_the_loopback_exchange_is_left_out_where_nobody_speaks_with_it():
    elsewhere = {"ALPHA_MARKET__WS_URL": "", "ALPHA_MARKET__REST_URL": "", "ALPHA_EXECUTOR__GATEWAY": "paper"}
    assert "alpha exchange" in made(env={}) and "alpha exchange" not in made(env=elsewhere)


def test_secrets_are_never_written(tmp_path):
    secret = {"ALPHA_BOT_KEY": "k-secret", "ALPHA_MARKET__PROXY": "http://me:p-secret@proxy:3128",
              "ALPHA_ALERTS__COMMAND": '["curl", "-H", "Authorization: k-secret"]'}
    out = made("--secrets", str(tmp_path / "x.env"), env=secret)
    assert "secret@" not in out and "k-secret" not in out and "ALPHA_MARKET__PROXY is set and not written" in out
    assert f"EnvironmentFile=-{tmp_path / 'x.env'}" in out
    (tmp_path / "x.env").touch(0o644)
    assert "chmod 600" in made("--secrets", str(tmp_path / "x.env"), env=secret, code=5)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    assert "--out" in made("--out", str(tmp_path / "file" / "x"), code=5,
                           env={"ALPHA_INSTANCE__STATE_DIR": str(tmp_path / "state")})


@pytest.mark.kill
@needs_systemd
def test_a_real_systemd_starts_watches_restarts_and_stops_a_pipeline(instance, tmp_path, run_dir):
    env = environment(instance, tmp_path / "state", run_dir / "r", ALPHA_INFERENCE__WORKERS="1",
                      PYTHONPATH=str(ROOT), ALPHA_CONFIG=str(ROOT / "alpha.toml"))
    folder = run_dir / "units"
    made("--system", "--out", str(folder), env=env)
    ended = run_dir / "ended"
    for unit in folder.glob("*.service"):
        # A user's manager that is root can do all that the system's can; but a container's /proc may lack what these
        # two cover. A hang is seen sooner than for people. Each end is written down, and how.
        lines = [line for line in unit.read_text().splitlines()
                 if not line.startswith(("ProtectKernelLogs=", "ProtectKernelTunables="))]
        unit.write_text("\n".join(lines).replace("systemctl -q", "systemctl --user -q").replace(
            "WatchdogSec=30s", "WatchdogSec=3s").replace(
            "Restart=", f"ExecStopPost=/bin/sh -c 'echo %p $$SERVICE_RESULT >> {ended}'\n"
                        f"StandardError=append:{run_dir}/log\nRestart=", 1))
    try:
        manager = Manager(folder)
    except OSError as error:
        pytest.skip(str(error))
    target, feature = f"alpha-{instance}.target", f"alpha-{instance}-feature.service"

    def said(what: str) -> str:
        logs = [path.read_text()[-3000:] for path in (ended, run_dir / "log") if path.exists()]
        return f"{what}: {manager.said()} {' '.join(logs)}"

    overview = Overview(instance)
    try:
        manager.systemctl("start", "--no-block", target)
        until(lambda: manager.show(target, "ActiveState") == "active", 90, lambda: said("the target active"))
        stages = "exchange", "ingest", "feature", "inference-0", "executor"
        # Their own word: their process ids are, out here, those of other processes or of none.
        until(lambda: overview.refresh() or all(overview.get(stage, "ready") for stage in stages), 60,
              lambda: said("all ready"))
        assert manager.show(feature, "StatusText") == "ready"
        until(lambda: overview.get("executor", "decisions"), 30, "a decision")
        # Under all of that hardening: rings in /dev/shm, machine code, sockets, and cores kept awake where they may be.
        told = overview.stages["feature"].told()
        assert manager.show(feature, "ProtectSystem") == "strict" and manager.show(feature, "NoNewPrivileges") == "yes"
        assert told["kept_awake"] == os.access("/dev/cpu_dma_latency", os.W_OK) and told["cores"]

        # One that hangs is killed by the watchdog, and started again.
        first = overview.stages["feature"].get("pid")
        outside = next(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _inside(pid) == first
                       and manager.holds(pid))
        os.kill(outside, signal.SIGSTOP)
        until(lambda: int(manager.show(feature, "NRestarts") or 0) == 1, 30, "the watchdog")
        until(lambda: manager.show(feature, "ActiveState") == "active", 60, "feature again")
        assert overview.stages["feature"].get("pid") != first and overview.get("feature", "starts") == 2

        assert ended.read_text() == f"alpha-{instance}-feature watchdog\n"
        manager.systemctl("stop", target)
        programs = [program.name for program in parse((ROOT / "supervisord.conf").read_text())]
        until(lambda: len(ended.read_text().splitlines()) > len(programs), 60, "the stop")
        assert set(ended.read_text().splitlines()[1:]) == {f"alpha-{instance}-{name} success" for name in programs}
        # As supervisord stops them: ticks first. (The exchange does not log its stop.)
        events = map(json.loads, (run_dir / "log").read_text().splitlines())
        assert [event["stage"] for event in events if event["event"] == "stopping"] == [
            "ingest", "feature", "inference-0", "executor", "monitor"]
    finally:
        manager.close()
        left = shm.sweep(instance)
    assert left == []


def _inside(pid: int) -> int:
    """What a process is called in the innermost of its namespaces."""
    try:
        return int(next(line for line in open(f"/proc/{pid}/status") if line.startswith("NSpid")).split()[-1])
    except (OSError, StopIteration):
        return 0
