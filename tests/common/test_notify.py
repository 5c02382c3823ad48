"""What is told to systemd: datagrams to a socket that the test binds, and a hung process that tells nothing."""

import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from common.notify import Notifier, words
from common.telemetry import Telemetry
from tests.common.test_stage import PROGRAM
from tests.pipeline import ROOT, command, environment
from tests.waiting import until


class Listener:
    """The receiving end, as systemd has it."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard: list[str] = []

    def lines(self) -> list[str]:
        """All that has been heard so far."""
        while True:
            try:
                self.heard += self.socket.recv(4096, socket.MSG_DONTWAIT).decode().split("\n")
            except BlockingIOError:
                return self.heard

    def until(self, line: str, seconds: float = 30.0) -> None:
        until(lambda: line in self.lines(), seconds, f"{line} in {self.heard}")


@pytest.fixture(params=["path", "abstract"])
def listener(request, run_dir):
    address = str(run_dir / "notify") if request.param == "path" else f"@alpha-test-{uuid.uuid4().hex}"
    listener = Listener(address)
    listener.address = address
    yield listener
    listener.socket.close()


def test_each_word_is_one_datagram_and_a_status_is_told_once(listener):
    notifier = Notifier({"NOTIFY_SOCKET": listener.address})
    assert notifier
    notifier.status("waiting for\nthe venue")
    notifier.status("waiting for the venue")
    notifier.ready()
    notifier.stopping()
    notifier.close()
    assert listener.lines() == ["STATUS=waiting for the venue", "READY=1", "STOPPING=1", "STATUS=stopping"]


def test_the_watchdog_is_fed_four_times_in_its_time_and_only_if_it_is_set(listener):
    notifier = Notifier({"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "2000000"})
    for ms in range(0, 2000, 100):
        notifier.alive(1 + ms * 1_000_000)
    assert listener.lines() == ["WATCHDOG=1"] * 4
    without = Notifier({"NOTIFY_SOCKET": listener.address})
    without.alive(1)
    assert listener.lines() == ["WATCHDOG=1"] * 4
    notifier.close(), without.close()


def test_nothing_is_opened_without_the_variable_and_nothing_fails_where_nobody_listens(run_dir):
    silent = Notifier({})
    silent.ready(), silent.status("x"), silent.alive(1), silent.close()
    assert not silent
    nobody = Notifier({"NOTIFY_SOCKET": str(run_dir / "nobody"), "WATCHDOG_USEC": "4"})
    nobody.ready(), nobody.alive(1), nobody.close()
    assert not nobody


def test_what_a_full_queue_refuses_is_told_the_next_time(run_dir):
    listener = Listener(str(run_dir / "notify"))
    notifier = Notifier({"NOTIFY_SOCKET": str(run_dir / "notify")})
    sent = 0
    while notifier._send("X=1"):
        sent += 1
        assert sent < 100_000
    notifier.status("kept")
    assert len(listener.lines()) == sent
    notifier.status("kept")
    assert listener.lines()[-1] == "STATUS=kept"
    notifier.close()
    listener.socket.close()


@pytest.mark.parametrize("told, text", [
    ({}, "ready"), ({"waiting_for": "the venue"}, "waiting for the venue"),
    ({"waiting_for": "", "state": "HALTED", "why": "by hand"}, "HALTED: by hand"),
    ({"state": "ACTIVE", "why": ""}, "ACTIVE")])
def test_a_status_says_what_is_waited_for_or_the_state_and_why(told, text):
    assert words(told) == text


def test_a_stage_tells_what_it_waits_for_that_it_is_ready_that_it_lives_and_that_it_stops(instance, run_dir):
    listener = Listener(str(run_dir / "notify"))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "ALPHA_INSTANCE__NAME": instance, "ALPHA_INSTANCE__RUN_DIR": str(run_dir),
             "ALPHA_SUPERVISED": "systemd", "NOTIFY_SOCKET": str(run_dir / "notify"), "WATCHDOG_USEC": "400000"})
    try:
        listener.until("STATUS=waiting for the third try")
        listener.until("READY=1")
        listener.until("WATCHDOG=1")
        told = listener.lines()
        assert told.index("STATUS=waiting for the third try") < told.index("READY=1") < told.index("WATCHDOG=1")
        assert told.count("READY=1") == 1 and "STATUS=ready" in told
        telemetry = Telemetry.attach(instance, "counting")

        # One that hangs tells nothing: as many turns as fed the watchdog pass without it.
        process.send_signal(signal.SIGSTOP)
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        listener.lines()
        listener.heard.clear()
        beats = telemetry.get("heartbeat_ns")
        with pytest.raises(AssertionError, match="WATCHDOG=1"):
            listener.until("WATCHDOG=1", 0.8)
        assert telemetry.get("heartbeat_ns") == beats and listener.lines() == []
        process.send_signal(signal.SIGCONT)
        listener.until("WATCHDOG=1")

        process.send_signal(signal.SIGTERM)
        listener.until("STOPPING=1")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        listener.socket.close()


def test_the_exchange_which_has_a_loop_of_its_own_tells_the_same(instance, tmp_path, run_dir):
    listener = Listener(str(run_dir / "notify"))
    process = command("exchange", env=environment(
        instance, tmp_path, run_dir, NOTIFY_SOCKET=str(run_dir / "notify"), WATCHDOG_USEC="400000"))
    try:
        listener.until("READY=1")
        listener.until("WATCHDOG=1")
        process.terminate()
        listener.until("STOPPING=1")
        assert process.wait(10) == 0 and any(line.startswith("STATUS=listens on") for line in listener.heard)
    finally:
        process.kill()
        process.communicate()
        listener.socket.close()
