"""record: what the venues send, kept in files. Attaches to the tap `frames` of ingest, takes nothing from the link.

    in    tap frames   what each feed of ingest hears and says (common.capture_lines)
    out   files        captures with their manifests, one series for each feed (common.recorder)
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from common.clock import SystemClock
from common.config import Config, load
from common.errors import InstanceError, ResourceError
from common.links import FRAMES, Network, Poller
from common.locks import lock_file
from common.overview import Overview
from common.recorder import Recorder, is_header
from common.stage import exit_on_error

_LOCK = ".recording.lock"
_WAIT_MS = 100
_TURN_NS = 500_000_000
_BATCH = 20_000  # messages between two looks at everything else
_ASK_NS = 1_000_000_000  # for ingest to notice that somebody listens anew
_LAST_S = 2.0  # for what is under way when recording ends
_NOTHING = 7  # exit code: as `alpha status` where nothing runs


class Track:
    """The recording of one feed: its tap, and the files."""

    def __init__(self, network: Network, who: str, recorder: Recorder, overview: Overview, poller: Poller) -> None:
        self._network, self._who, self.recorder, self._overview = network, who, recorder, overview
        self._listener = network.listen(FRAMES, who)
        poller.add(self._listener)
        self._asking: tuple[Any, int] | None = None
        self._missed = 0

    def take(self) -> int:
        """Write what has come; returns how many messages."""
        listener, recorder = self._listener, self.recorder
        for count in range(_BATCH):
            message = listener.recv(0)
            if message is None:
                return count
            if listener.missed > self._missed:
                recorder.lost(listener.missed - self._missed)
                self._missed = listener.missed
            if is_header(message):
                self._overview.refresh()
                recorder.began(self._overview.get("ingest", "started_ns"), message)
            recorder.take(message)
        return _BATCH

    def work(self, now: int) -> None:
        """Every half second: find an ingest that has come back, and ask for the state of the books where it is needed:
        a listener that comes is told of it, and what it is told everybody hears."""
        self._listener.discover()
        if self._asking is not None and now >= self._asking[1]:
            self._asking[0].close()
            self._asking = None
        if self.recorder.asks and self._asking is None:
            self.recorder.asks = False
            self._asking = self._network.listen(FRAMES, self._who), now + _ASK_NS


class Recording:
    """All feeds of a pipeline into one folder, until `stop` holds anything or the time is over."""

    def __init__(self, config: Config, folder: Path, max_mb: float, max_minutes: float) -> None:
        self._config, self._folder = config, folder
        self._limits = {"max_bytes": int(max_mb * 2**20), "max_s": max_minutes * 60.0}
        self.tracks: dict[str, Track] = {}
        self.files: list[dict[str, Any]] = []  #: manifests
        self._clock = SystemClock()
        self._overview = Overview(config.instance.name)
        self._poller = Poller()
        self._lively = sys.stderr.isatty()

    def go(self, seconds: float | None, stop: list[int]) -> dict[str, Any]:
        """Records; returns the summary. Raises InstanceError where the folder is being recorded into."""
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, _hold(self._folder))
            network = Network(self._config.run_dir)
            stack.callback(network.close)
            start = time.monotonic()
            end = start + seconds if seconds else None
            next_turn = 0
            while not stop and (end is None or time.monotonic() < end):
                now = self._clock.monotonic_ns()
                if now >= next_turn:
                    next_turn = now + _TURN_NS
                    self._discover(network, stack)
                    self._show(time.monotonic() - start)
                if not self._step():
                    self._poller.wait(_WAIT_MS)
            last = time.monotonic() + _LAST_S
            while self._step() and time.monotonic() < last:
                pass
            took = time.monotonic() - start
        if self._lively:
            print(file=sys.stderr)
        return self._summary(took)

    def _step(self) -> int:
        count = 0
        for track in self.tracks.values():
            count += track.take()
            track.recorder.work()
        return count

    def _discover(self, network: Network, stack: contextlib.ExitStack) -> None:
        """Feeds that have appeared: each has a tap of its own."""
        begin = f"tap.{FRAMES}."
        for path in sorted(self._config.run_dir.glob(f"{begin}*.sock")):
            who = path.name.removeprefix(begin).removesuffix(".sock")
            if who not in self.tracks:
                # The feed of `[market]` goes by the name of its venue.
                recorder = Recorder(self._folder, self._clock, name="" if who == "ingest" else who,
                                    done=self.files.append, **self._limits)
                stack.callback(recorder.close)
                self.tracks[who] = Track(network, who, recorder, self._overview, self._poller)
        now = self._clock.monotonic_ns()
        for track in self.tracks.values():
            track.work(now)

    def _count(self, name: str) -> int:
        return sum(getattr(track.recorder, name) for track in self.tracks.values())

    def _show(self, seconds: float) -> None:
        if self._lively:
            frames, missed, size = (self._count(name) for name in ("frames", "missed", "bytes"))
            waiting = "" if self._count("control") else "  waiting for ingest"
            print(f"\r{seconds:7.0f} s  {frames:,} frames  {missed:,} missed  {size / 2**20:,.1f} MB{waiting}\x1b[K",
                  end="", file=sys.stderr, flush=True)

    def _summary(self, seconds: float) -> dict[str, Any]:
        return {"folder": str(self._folder), "seconds": round(seconds, 3), "frames": self._count("frames"),
                "control_lines": self._count("control"), "missed": self._count("missed"),
                "bytes": self._count("bytes"), "files": self.files}


def _hold(folder: Path) -> int:
    """The folder, made where it does not exist, for this recorder alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return lock_file(folder / _LOCK, "the folder of the recording")
    except OSError as error:
        raise ResourceError("cannot record into this folder", where=f"{folder}: {error.strerror}",
                            remedy="name another with --out") from None
    except InstanceError as error:
        raise InstanceError(error.what, where=error.where,
                            remedy="stop that process, or name another folder with --out") from None


def _give_way() -> None:
    """Run after the stages, and never take a core from one that has just woken; but, unlike a tap, not only when a
    core is idle: what is not taken in time is lost."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        os.nice(19)


@click.command()
@click.option("--out", "folder", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the recording; made where it does not exist.")
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--for", "seconds", type=click.FloatRange(0, min_open=True), help="Stop after so many seconds.")
@click.option("--max-mb", type=click.FloatRange(0), default=256.0, show_default=True,
              help="Begin another file once one has so many MB, compressed; 0: never.")
@click.option("--max-minutes", type=click.FloatRange(0), default=60.0, show_default=True,
              help="Begin another file once one is so old; 0: never.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, the manifests of all files in it.")
def record(folder: Path, path: str | None, seconds: float | None, max_mb: float, max_minutes: float,
           as_json: bool) -> None:
    """Record what the running ingest hears, from all its feeds, until Ctrl-C.

    Files hold frames as they came, what was sent, and what became of the connections; recording may begin in the
    middle. They can be read while they are written, and after a kill up to the last half second. A file that is whole
    has a manifest beside it. Starts and stops at any time; waits for ingest, and goes on when that comes back.

    \b
    alpha record --out today
    alpha record --out today --for 3600 --max-minutes 10 --json
    alpha replay today/*.zst
    """
    with exit_on_error():
        config = load(path)
        stop: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, frame: stop.append(received))
        _give_way()
        told = Recording(config, folder, max_mb, max_minutes).go(seconds, stop)
        if as_json:
            print(json.dumps(told, indent=1))
        else:
            for file in told["files"]:
                print(f"{folder / file['file']}: {file['frames']:,} frames of {file['venue']}, {file['missed']:,} "
                      f"missed, {file['bytes'] / 2**20:,.1f} MB", file=sys.stderr)
    if not told["files"]:
        print(f"alpha: nothing came to be recorded: no ingest of instance {config.instance.name!r} was heard; start it "
              "with: alpha run", file=sys.stderr)
        sys.exit(_NOTHING)
