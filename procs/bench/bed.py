"""The bed that benchmarks run in: processes of their own, a folder of their own, and nothing left behind.

Everything that is measured side by side reads the same configuration, with the same overrides in its
environment, and counts its decisions in a telemetry block of the same kind; only what it does differs.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from common import placement, shm
from common.config import ENV_CONFIG, Config, load
from common.errors import AlphaError, ResourceError
from common.telemetry import Telemetry, quantiles

ROOT = Path(__file__).resolve().parents[2]
TIMER = "tick_to_decision"  #: frame received to decision made; everyone who is measured keeps it
T = TypeVar("T")


class Bed:
    """Owns the processes, blocks and files of one run of the benchmark. A context manager."""

    def __init__(self, config_path: str | None = None) -> None:
        shm.sweep("bench*")  # left by a benchmark that was killed; what a living one holds stays
        self._config_path = config_path
        self._processes: list[subprocess.Popen] = []
        self._instances: list[str] = []
        self.folder = Path(tempfile.mkdtemp(prefix="alpha-bench-"))  # 0700; short, for the paths of sockets

    def __enter__(self) -> "Bed":
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not leave half of it behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.stop()
            for instance in self._instances:
                shm.sweep(instance)
            shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            signal.signal(signal.SIGINT, before)

    def environment(self, system: str, **settings: Any) -> dict[str, str]:
        """An environment for a new instance; `settings` are SECTION__KEY=value, over the user's file."""
        instance = f"bench{os.getpid()}-{len(self._instances)}-{system}"
        self._instances.append(instance)
        folder = self.folder / f"{len(self._instances)}-{system}"
        overrides = {
            "INSTANCE__NAME": instance, "INSTANCE__RUN_DIR": str(folder / "run"),
            "INSTANCE__STATE_DIR": str(folder / "state"), "MARKET__VENUE": "vectrade", "MARKET__LIVE": False,
            "EXECUTOR__GATEWAY": "paper", "MONITOR__PAGE": False, "LOG__LEVEL": "warning", **settings}
        (folder / "run").mkdir(parents=True, exist_ok=True, mode=0o700)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if self._config_path:
            environment[ENV_CONFIG] = str(Path(self._config_path).resolve())
        for key, value in overrides.items():
            environment[f"ALPHA_{key}"] = value if isinstance(value, str) else json.dumps(value)
        return environment

    def spawn(self, *arguments: str, environment: dict[str, str], talks: bool = False,
              python: tuple[str, ...] = (sys.executable, "-m")) -> subprocess.Popen:
        """`python -m ARGUMENTS`, dead when we are; `talks` opens its standard input and output as text."""
        log = open(self.folder / f"{len(self._processes)}.log", "w+")
        process = subprocess.Popen(
            [*python, *arguments], env=environment, cwd=ROOT, process_group=0, text=True,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else subprocess.DEVNULL, stderr=log, preexec_fn=placement.die_with_parent)
        process.log = log  # type: ignore[attr-defined]
        self._processes.append(process)
        return process

    def stop(self, processes: list[subprocess.Popen] | None = None) -> None:
        """End these processes, or all: politely, then not."""
        ending = list(self._processes if processes is None else processes)
        for process in ending:
            if process.poll() is None:
                process.terminate()
        limit = time.monotonic() + 10
        for process in ending:
            try:
                process.wait(max(0.1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for stream in (process.stdin, process.stdout, process.log):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self._processes.remove(process)

    def check(self) -> None:
        """Raises ResourceError with the last words of a process that has ended by itself."""
        for process in self._processes:
            if process.poll() is not None:
                process.log.flush()
                process.log.seek(0)
                said = process.log.read().strip().splitlines()
                raise ResourceError("a process of the benchmark has ended",
                                    where=f"{' '.join(process.args[2:4])}: {said[-1] if said else 'without a word'}")

    def until(self, condition: Callable[[], T], what: str, seconds: float = 60.0) -> T:
        """The first true value of `condition`; an error if it takes longer, or if a process has ended."""
        limit = time.monotonic() + seconds
        while not (value := condition()):
            self.check()
            if time.monotonic() > limit:
                raise AlphaError(f"{what} took longer than {seconds:.0f} s", remedy="is the machine busy?")
            time.sleep(0.01)
        return value


def settled(read: Callable[[], T], quiet_s: float = 0.12, limit_s: float = 10.0) -> tuple[T, float]:
    """The value of `read` once it has not changed for `quiet_s`, and after how many seconds it last did."""
    start = moved = time.monotonic()
    before = read()
    while time.monotonic() - moved < quiet_s and time.monotonic() - start < limit_s:
        time.sleep(0.005)
        now = read()
        if now != before:
            before, moved = now, time.monotonic()
    return before, moved - start


def attached(instance: str, stage: str) -> Telemetry | None:
    """The telemetry of a stage that is ready, or None."""
    try:
        telemetry = Telemetry.attach(instance, stage)
    except FileNotFoundError:
        return None
    return telemetry if telemetry.get("ready") else None


def instance_of(environment: dict[str, str]) -> str:
    return environment["ALPHA_INSTANCE__NAME"]


def config_of(environment: dict[str, str]) -> Config:
    return load(None, environment)


def latency_us(buckets: np.ndarray) -> dict[str, float]:
    """p50, p99 and p999 in microseconds, and the count, of a histogram of nanoseconds."""
    return {key: value if key == "count" else round(value / 1000, 1) for key, value in quantiles(buckets).items()}


def cpu_s(processes: list[subprocess.Popen]) -> list[float]:
    """Processor seconds that each process has used, its children that live included."""
    tick = os.sysconf("SC_CLK_TCK")
    used = []
    for process in processes:
        ticks = 0
        for pid in (process.pid, *_children(process.pid)):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        used.append(ticks / tick)
    return used


def memory_mb(processes: list[subprocess.Popen]) -> float:
    """Memory of the processes' own, in MB of a million bytes: what they map of the rings is reserved at the start
    and counts only once it has been touched."""
    total = 0
    for process in processes:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            total += 1024 * int(status.partition("RssAnon:")[2].split()[0])
    return total / 1e6


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield int(child)
            yield from _children(int(child))
