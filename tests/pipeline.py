"""A whole pipeline of real processes under supervisord, for tests: started, watched, killed, stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from common.overview import Overview
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[1]
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(instance: str, state_dir: Path, run_dir: Path, **more: str) -> dict[str, str]:
    """An instance of its own: name, folders, port."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    return {**os.environ, "ALPHA_INSTANCE__NAME": instance, "ALPHA_INSTANCE__STATE_DIR": str(state_dir),
            "ALPHA_INSTANCE__RUN_DIR": str(run_dir), "ALPHA_EXCHANGE__PORT": str(port),
            "ALPHA_MARKET__WS_URL": f"ws://{address}", "ALPHA_MARKET__REST_URL": f"http://{address}",
            "ALPHA_EXECUTOR__BASE_URL": f"http://{address}", "ALPHA_MONITOR__PAGE": "false", **more}


def command(*arguments: str, env: dict[str, str], **more) -> subprocess.Popen:
    """An `alpha` command as a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "procs.cli", *arguments], env=env, cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


class Pipeline:
    """`alpha run`, from outside."""

    def __init__(self, instance: str, state_dir: Path, run_dir: Path, *arguments: str, **more: str) -> None:
        self.state_dir = state_dir
        self.env = environment(instance, state_dir, run_dir, **more)
        self.summary_path = state_dir / "out.json"
        self.log = (state_dir / "run.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "procs.cli", "run", "--summary", str(self.summary_path), *arguments],
            env=self.env, cwd=ROOT, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        self.overview = Overview(instance)

    def count(self, stage: str, counter: str) -> int:
        self.overview.refresh()
        return self.overview.get(stage, counter)

    def until_count(self, stage: str, counter: str, at_least: int, seconds: float = 60.0) -> None:
        def reached() -> bool:
            assert self.process.poll() is None, f"alpha run has ended: {self.said()}"
            return self.count(stage, counter) >= at_least

        until(reached, seconds, f"{stage} {counter} >= {at_least}")

    def kill(self, stage: str) -> float:
        """`kill -9` a stage, wait until its successor has started and decisions come again; returns the seconds
        from the start of the new process to the first decision after it."""
        telemetry = self.overview.stages[stage]
        pid, starts = telemetry.get("pid"), telemetry.get("starts")
        os.kill(pid, signal.SIGKILL)
        until(lambda: not _alive(pid), what=f"the end of {stage}")
        until(lambda: self.count(stage, "starts") > starts, 30, f"a new {stage}")
        born = _started(self.overview.stages[stage].get("pid"))
        until(lambda: self.overview.ready(stage), 30, f"{stage} ready")
        # What was decided before is no proof: a decision counts if it came after this stage was ready again.
        decisions = self.count("executor", "decisions")
        self.until_count("executor", "decisions", decisions + 1, 30)
        return time.monotonic() - born

    def stop(self) -> dict:
        """Ctrl-C; returns the summary."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        assert self.process.returncode == 0, self.said()
        return json.loads(self.summary_path.read_text())

    def said(self) -> str:
        self.log.flush()
        text = Path(self.log.name).read_text()[-3000:]
        for path in sorted((self.state_dir / "log").glob("*.log")):
            text += f"\n--- {path.name}\n" + path.read_text()[-1500:]
        return text

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _started(pid: int) -> float:
    """When a process was started, on the monotonic clock."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / TICKS_PER_SECOND - (time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic())
