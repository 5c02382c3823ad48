"""The process driver: one of each, an orderly end, and words for those who look."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common import shm
from common.telemetry import Telemetry
from tests.waiting import until

PROGRAM = """
import sys
from common.config import load
from common.stage import Stage, exit_on_error, run

class Counting(Stage):
    def __init__(self, telemetry): self.telemetry, self.turns = telemetry, 0
    def on_start(self):
        self.turns += 1
        self.telemetry.tell({"waiting_for": "the third try"})
        return self.turns >= 3 and "wait" not in sys.argv
    def do_work(self):
        if "crash" in sys.argv: raise RuntimeError("planned")
        self.telemetry.add("turns")
        return 0
    def wait(self, timeout_ms):
        import time; time.sleep(0.001)
    def on_close(self): print("closed", flush=True)

with exit_on_error():
    run("counting", load(), lambda network, telemetry: Counting(telemetry), ("turns",))
"""


@pytest.fixture
def start(instance, run_dir):
    started = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "ALPHA_INSTANCE__NAME": instance,
                 "ALPHA_INSTANCE__RUN_DIR": str(run_dir), **environment})
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    shm.sweep(instance)


def attached(instance: str) -> Telemetry:
    def look():
        try:
            return Telemetry.attach(instance, "counting")
        except FileNotFoundError:
            return None

    return until(look)


def test_a_stage_waits_until_it_can_start_and_ends_cleanly_on_sigterm(start, instance):
    process = start()
    telemetry = attached(instance)
    until(lambda: telemetry.get("ready"))
    until(lambda: telemetry.get("turns") > 10)
    assert telemetry.get("pid") == process.pid and telemetry.told()["waiting_for"] == ""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "closed\n") and "ready" in err
    assert err.count("waiting for the third try") == 1 and "stopping" in err
    assert shm.leaked(instance) == [] and telemetry.block.retired


def test_a_stage_that_is_stopped_while_it_waits_has_never_been_ready(start, instance, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        process = start("wait", NOTIFY_SOCKET=str(tmp_path / "notify"))
        telemetry = attached(instance)
        until(lambda: telemetry.told())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out) == (0, "closed\n") and telemetry.get("ready") == 0
        assert "ready" not in err and err.count("waiting for the third try") == 1 and "stopping" in err
        told = [manager.recv(4096)]
        while not told[-1].startswith(b"STOPPING"):
            told.append(manager.recv(4096))
        assert told[0] == b"STATUS=waiting for the third try" and not any(b"READY" in one for one in told)


def test_a_second_one_is_refused_and_told_who_is_first(start, instance):
    first = start()
    until(lambda: attached(instance).get("ready"))
    second = start()
    out, err = second.communicate(timeout=10)
    assert second.returncode == 6 and f"pid {first.pid}" in err and "stage counting" in err


def test_a_killed_stage_counts_on_when_it_starts_again(start, instance):
    first = start()
    telemetry = attached(instance)
    until(lambda: telemetry.get("turns") > 10)
    first.kill()
    first.wait()
    turns = telemetry.get("turns")
    start()
    until(lambda: telemetry.get("starts") == 2 and telemetry.get("turns") > turns)


def test_a_crash_is_logged_told_by_the_exit_code_and_leaves_nothing(start, instance):
    process = start("crash")
    out, err = process.communicate(timeout=10)
    assert process.returncode == 1 and "planned" in err and out == "closed\n"
    assert shm.leaked(instance) == []


def test_a_crash_under_a_supervisor_is_counted_and_seen_after_the_restart(start, instance):
    for crashes in (1, 2):
        process = start("crash", ALPHA_SUPERVISED="1")
        assert process.wait(10) == 1
        telemetry = Telemetry.attach(instance, "counting")
        assert (telemetry.get("errors"), telemetry.get("starts")) == (crashes, crashes)


def test_a_supervised_stage_dies_with_its_supervisor(instance, run_dir):
    supervisor = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])", PROGRAM],
        cwd=Path(__file__).resolve().parents[2], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        env={**os.environ, "ALPHA_INSTANCE__NAME": instance, "ALPHA_SUPERVISED": "1",
             "ALPHA_INSTANCE__RUN_DIR": str(run_dir)})
    try:
        telemetry = attached(instance)
        until(lambda: telemetry.get("ready"))
        pid = telemetry.get("pid")
    finally:
        supervisor.kill()
        supervisor.wait()
    until(lambda: not Path(f"/proc/{pid}").exists())
    shm.sweep(instance)
