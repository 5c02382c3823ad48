"""alpha top: without a terminal, in a real one, and beside `alpha status`."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios

import pytest

from common import killswitch, shm
from tests.pipeline import ROOT, Pipeline, command, environment
from tests.waiting import until

ESCAPES = re.compile(r"\x1b\[[0-9;?=>]*[a-zA-Z]|\x1b[=>()][A-Z0-9]?")
_PATIENCE_S = 180.0  # it runs when a core is idle; where others keep both busy, that is seldom


def alpha(*arguments: str, env: dict[str, str]) -> tuple[int, str, str]:
    process = command(*arguments, env=env)
    out, err = process.communicate(timeout=_PATIENCE_S)
    return process.returncode, out, err


def test_where_nothing_runs_it_says_so(instance, tmp_path, run_dir):
    for more in ((), ("--once",), ("--json",)):
        code, out, err = alpha("top", *more, env=environment(instance, tmp_path, run_dir))
        assert (code, out) == (7, "") and "alpha run" in err


class Terminal:
    """`alpha top` in a pseudo-terminal."""

    def __init__(self, env: dict[str, str], columns: int = 80, lines: int = 24) -> None:
        self.fd, other = pty.openpty()
        self._size = lambda lines, columns: fcntl.ioctl(self.fd, termios.TIOCSWINSZ,
                                                        struct.pack("HHHH", lines, columns, 0, 0))
        self._size(lines, columns)
        self.process = subprocess.Popen([sys.executable, "-m", "procs.cli", "top"], cwd=ROOT, stdin=other, stdout=other,
                                        stderr=other, start_new_session=True, env={**env, "TERM": "xterm-256color"})
        os.close(other)
        self.seen = ""

    def read(self) -> str:
        while select.select([self.fd], [], [], 0)[0]:
            try:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:
                break
        return ESCAPES.sub("", self.seen)

    def until(self, words: str, after: int = 0) -> None:
        until(lambda: words in self.read()[after:], _PATIENCE_S, f"{words!r} on the terminal: {self.read()[-2000:]}")

    def press(self, keys: str) -> int:
        """Returns how much had been shown before."""
        shown = len(self.read())
        os.write(self.fd, keys.encode())
        return shown

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.fd)


@pytest.mark.kill
def test_a_real_pipeline_in_a_real_terminal_and_beside_status(instance, tmp_path, run_dir):
    pipeline = Pipeline(instance, tmp_path, run_dir)
    try:
        pipeline.until_count("executor", "decisions", 100)
        env = pipeline.env

        terminal = Terminal(env)
        try:
            terminal.until("RATES")
            terminal.until("inference-1")
            assert os.sched_getscheduler(terminal.process.pid) == os.SCHED_IDLE
            shown = terminal.press("h")
            terminal.until("Halt?", shown)
            terminal.press("y")
            until(lambda: killswitch.state(tmp_path), _PATIENCE_S)
            terminal.until("HALTED", shown)
            shown = terminal.press("u")
            terminal.until("Resume trading?", shown)
            terminal.press("y")
            until(lambda: killswitch.state(tmp_path) is None, _PATIENCE_S)
            # A q that comes while the dialog still goes is an answer to it, and no more.
            until(lambda: terminal.process.poll() is not None or terminal.press("q") and None, _PATIENCE_S, "the end")
            assert terminal.process.returncode == 0
        finally:
            terminal.close()

        # Without a terminal: a line a second, and said so once.
        # (A shell that starts tests in the background has Ctrl-C ignored, and that is inherited.)
        process = command("top", env=env, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_PATIENCE_S)
        assert process.returncode == 0 and err.count("no terminal") == 1 == len(err.splitlines())
        assert all("ticks" in line and "pnl" in line for line in lines)

        # A reader that has had enough ends it, too.
        process = command("top", "--json", env=env)
        assert json.loads(process.stdout.readline())["instance"] == instance
        process.stdout.close()
        assert process.wait(_PATIENCE_S) == 0 and process.stderr.read() == ""
        process.stderr.close()

        code, out, err = alpha("top", "--once", env=env)
        assert (code, err) == (0, "") and "STAGES" in out and "\x1b" not in out

        # Stopped, but not swept: what both tell no longer changes, and is the same.
        pids = [pipeline.process.pid, *_children(pipeline.process.pid)]
        for pid in pids:  # who starts others first: a stage that it began anew meanwhile would outlive this
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        pipeline.process.wait()
        until(lambda: not any(map(_lives, pids)), 30)
        pipeline.overview.refresh()
        until(lambda: not any(map(pipeline.overview.ready, pipeline.overview.stages)), 30)
        until(lambda: not any(_lives(stage.get("pid")) for stage in pipeline.overview.stages.values()), 30)
        _, out, _ = alpha("status", "--json", env=env)
        status = json.loads(out)
        code, out, err = alpha("top", "--json", "--once", env=env)
        told = json.loads(out)
        assert (code, err) == (0, "") and told["numbers"]["decisions"] > 0
        assert {key: value for key, value in told["numbers"].items() if key in status} == {
            key: status[key] for key in told["numbers"] if key in status}
        assert len(set(told["numbers"]) & set(status)) > 20
        assert told["refusals"] == status["refusals"]
        assert {name: one["all"] for name, one in told["latency_us"].items()} == status["latency_us"]
        for stage in told["stages"]:
            assert stage["state"] == "gone" and stage["starts"] == status["stages"][stage["name"]]["starts"]
    finally:
        pipeline.close()
        shm.sweep(instance)


def _children(pid: int) -> list[int]:
    """All that descend from a process, the nearest first."""
    found = [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]
    return found + [other for child in found for other in _children(child)]


def _lives(pid: int) -> bool:
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
