"""The stage: the shape that every process shares, and the driver that makes a process of it.

A stage is given all that it uses, so the same object can be driven three ways: as its own process (`run`),
stepped by a test, or composed with the others in one process on a manual clock.
"""

import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import log, placement
from common.config import Config, tell
from common.errors import AlphaError, ResourceError
from common.links import Network
from common.locks import lock_file, private_folder, stage_lock
from common.log import SUPERVISED
from common.notify import Notifier, words
from common.telemetry import Telemetry

_HOUSEKEEPING_NS = 100_000_000
_IDLE_MS = 50.0
BY_SYSTEMD = "systemd"  #: what $ALPHA_SUPERVISED says in a unit of `alpha units`; supervisord.conf sets it to 1


class Stage:
    """One station on the way of a tick."""

    name: str

    def on_start(self) -> bool:
        """Called until it returns True: what the stage waits for may not be there yet. Says so in telemetry."""
        return True

    def do_work(self) -> int:
        """Handle what has arrived, without blocking; returns how much that was."""
        raise NotImplementedError

    def wait(self, timeout_ms: float) -> None:
        """Block until something may have arrived; only the process driver calls it."""
        raise NotImplementedError

    def on_close(self) -> None:
        """Let go of everything; what was journaled stays."""


def run(name: str, config: Config, build: Callable[[Network, Telemetry], Stage],
        counters: tuple[str, ...], timers: tuple[str, ...] = (), core: str = "", notes: int = 0) -> None:
    """Run a stage as this process until SIGTERM or SIGINT; returns after an orderly end.

    Raises InstanceError if the stage runs already. `core` names the placement (workers share one); `notes`: how many
    of its last events the telemetry keeps."""
    supervised = begin_supervised()
    gc.disable()  # until all is loaded: `freeze_collector` has the word then
    log.start(name, config)
    say = logging.getLogger(name)
    stopping = hear_signals()
    os.umask(0o077)
    own_folder(config.run_dir)
    if supervised:  # supervisord makes the log files, and sets no umask of its own in the foreground
        own_folder(config.state_dir / "log")
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, lock_file(stage_lock(config.run_dir, name), f"stage {name}"))
        placement.pin(core or name, config.placement)
        tell(config, name)
        telemetry = Telemetry.create(config.instance.name, name, counters, timers, notes)
        try:
            _live(core or name, config, telemetry, build, stopping, say, supervised)
        except Exception as error:
            # Under a supervisor the blocks stay, as after `kill -9`: the next start counts on and the crash is seen.
            telemetry.add("errors")
            telemetry.set("ready", 0)
            if not supervised:
                telemetry.close()
            if isinstance(error, AlphaError):
                raise
            say.exception("crashed")
            sys.exit(1)
        telemetry.close()


def _live(core: str, config: Config, telemetry: Telemetry, build: Callable[[Network, Telemetry], Stage],
          stopping: list[int], say: logging.Logger, supervised: bool) -> None:
    """From building the stage to closing it."""
    with contextlib.ExitStack() as stack:
        cores = sorted(os.sched_getaffinity(0))
        awake = placement.keep_awake(config.placement)
        if awake is not None:
            stack.callback(os.close, awake)
        network = Network(config.run_dir)
        stack.callback(network.close)
        notifier = Notifier()
        stack.callback(notifier.close)
        telemetry.heard = _Waiting(notifier, say)
        stage = build(network, telemetry)
        # Now that the threads of zmq run: they only carry bytes, and are to go before all that computes.
        niceness = placement.order(core, config.placement)
        try:
            # A signal handler only notes the signal; the loop sees it within one idle turn.
            while not stopping and not stage.on_start():
                telemetry.set("heartbeat_ns", time.monotonic_ns())
                time.sleep(0.02)
            telemetry.heard = (lambda told: notifier.status(words(told))) if notifier else None
            if not stopping:
                frozen = placement.freeze_collector(config.placement)
                telemetry.tell({**telemetry.told(), "waiting_for": "", "cores": cores, "niceness": niceness,
                                "kept_awake": awake is not None, "collector_frozen": frozen})
                telemetry.set("ready", 1)
                notifier.ready()
                say.info("ready pid=%d cores=%s kept_awake=%s", os.getpid(), cores, awake is not None)
                _loop(stage, network, telemetry, stopping, notifier)
        except Exception:
            if not supervised:
                stage.on_close()
            raise
        say.info("stopping")
        notifier.stopping()
        stage.on_close()


class _Waiting:
    """Hears what a stage tells while it starts: systemd is told, and the log, each time it waits for something else."""

    def __init__(self, notifier: Notifier, say: logging.Logger) -> None:
        self._notifier, self._say, self._last = notifier, say, ""

    def __call__(self, told: dict[str, Any]) -> None:
        self._notifier.status(words(told))
        waits = told.get("waiting_for") or ""
        if waits and waits != self._last:
            self._say.info("waiting for %s", waits)
        self._last = waits or self._last


def _loop(stage: Stage, network: Network, telemetry: Telemetry, stopping: list[int], notifier: Notifier) -> None:
    do_work, wait = stage.do_work, stage.wait
    next_turn = last_collection = 0
    while not stopping:
        # Always by way of `wait`, which returns at once if there is more: a second look that finds nothing would
        # keep the next stage, where it shares this core, from what was just sent to it.
        do_work()
        wait(_IDLE_MS)
        now = time.monotonic_ns()
        if now >= next_turn:
            next_turn = now + _HOUSEKEEPING_NS
            telemetry.set("heartbeat_ns", now)
            notifier.alive(now)
            for tap in network.taps:
                tap.poll()
            if now - last_collection > 1_000_000_000:
                last_collection = now
                gc.collect(0)
                log.tend()


def own_folder(folder: Path) -> None:
    """Make `folder` for this user alone, or make sure that it is; raises ResourceError where it cannot be."""
    try:
        private_folder(folder)
    except OSError as error:
        raise ResourceError("a folder cannot be made", where=f"{error.filename or folder}: {error.strerror}",
                            remedy="set instance.state_dir and instance.run_dir to folders of your own") from None


def hear_signals() -> list[int]:
    """A list to which each SIGTERM and SIGINT adds itself from now on, before anything is made that must be let go."""
    heard: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: heard.append(received))
    return heard


def begin_supervised() -> bool:
    """Whether a supervisor starts this process again when it ends. One of supervisord's then dies with it, since the
    next supervisord would not know it. systemd keeps its services in control groups, which outlive systemd itself
    (`daemon-reexec`), and ends all that is in one: there a process must not die with its parent."""
    by = os.environ.get(SUPERVISED, "")
    if by and by != BY_SYSTEMD:
        placement.die_with_parent()
    return bool(by)


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Around a command: our own errors become one line on standard error and a stable exit code."""
    try:
        yield
    except AlphaError as error:
        print(f"alpha: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
