"""record: what the venues send, kept in files. Attaches to the tap `frames` of ingest, takes nothing from the link.

    in    tap frames   what each feed of ingest hears and says (common.capture_lines)
    out   files        captures with their manifests, one series for each feed (common.recorder)

With --session, what the pipeline makes of them as well, so that `alpha parity` can compare it with a replay:

    in    books and rows rings, read from behind their heads; taps predictions and decisions
    out   a folder for each stream of ticks (common.session_log)
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from common.capture_lines import Header
from common.clock import SystemClock
from common.config import Config, load, told
from common.deployment import known
from common.errors import AlphaError, InstanceError, LayoutError, ResourceError
from common.features.choice import FeatureSet
from common.features.table import TABLE_HASH
from common.links import DECISIONS, FRAMES, Listener, Network, Poller
from common.locks import lock_file
from common.manifest import features_wanted, read
from common.onnx_file import model_id
from common.overview import Overview
from common.recorder import Recorder, is_header
from common.ring import Books, Rows
from common.session_log import Capture, Known, SessionLog, follow
from common.stage import exit_on_error
from common.wire import Prediction, decode

_LOCK = ".recording.lock"
_WAIT_MS = 100
_TURN_NS = 500_000_000
_BATCH = 20_000  # messages between two looks at everything else
_ASK_NS = 1_000_000_000  # for ingest to notice that somebody listens anew
_LAST_S = 2.0  # for what is under way when recording ends
_FOLLOW_NS = 100_000_000  # between looks at the rings: at 20,000 ticks/s of one symbol half of a ring
_PATIENCE_NS = 10_000_000_000  #: for workers to tell which models take the columns of the rows
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


class Live:
    """What the pipeline makes of the frames: the rings, followed from behind, and two taps."""

    def __init__(self, network: Network, config: Config, folder: Path, clock) -> None:
        self._config, self._folder, self._clock = config, folder, clock
        self._predictions = _Heard(network.listen("predictions"))
        self._decisions = _Heard(network.listen(DECISIONS))
        self._books: Books | None = None
        self._rows: Rows | None = None
        self._last: dict[str, list[int]] = {}  # sequences up to which ticks and rows have been written, by symbol
        self._captures: list[Capture] = []
        self._models: dict[int, Known] = {}
        self.log: SessionLog | None = None
        self.told: list[dict[str, Any]] = []  #: of each folder, for people
        self._next_ns = self._since_ns = 0

    def captured(self, header: Header, offset_ns: int) -> None:
        """A file of frames has been begun."""
        self._captures.append(Capture(header.session, header.part, offset_ns))
        if self.log is not None:
            self.log.captured(self._captures[-1])

    def work(self, now: int) -> None:
        """Write what there is; call it at every turn."""
        if now < self._next_ns:
            return
        self._next_ns = now + _FOLLOW_NS
        self._follow()
        self._hear()
        if self._books is None or self._books.retired or self._rows.retired:
            self._attach()

    def discover(self) -> None:
        """Find taps that have appeared."""
        self._predictions.listener.discover()
        self._decisions.listener.discover()

    def close(self) -> None:
        if self.log is not None:
            self._follow()
            self._hear()
            self._end()

    def _attach(self) -> None:
        """Both rings of one stream, as soon as they are there; a folder for each stream and each set of columns."""
        try:
            books = Books.attach(self._config.instance.name)
            rows = Rows.attach(self._config.instance.name, TABLE_HASH)
        except FileNotFoundError:
            return
        if rows.epoch != books.epoch or rows.symbols != books.symbols or rows.retired or books.retired:
            return  # one of them is about to be made anew
        former = self._books, self._rows
        if self.log is not None:
            self._follow()  # to their ends
        self._books, self._rows = books, rows
        if self.log is not None:
            if (books.epoch, books.symbols, rows.columns) == (former[0].epoch, former[0].symbols, former[1].columns):
                return
            self._end()
        self._begin()

    def _begin(self) -> None:
        now = self._clock.monotonic_ns()
        self._since_ns = self._since_ns or now
        try:
            config = told(self._config, "feature")  # who made these rows; this command may know another
            books, features = self._books, _columns(config, self._rows.columns)
        except LayoutError:
            if now - self._since_ns > _PATIENCE_NS:
                raise
            self._books = self._rows = None  # the workers, who know, may not be up yet; the rings hold what comes
            return
        self._since_ns = 0
        seconds, ns = divmod(self._clock.wall_ns(), 1_000_000_000)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds)) + f".{ns // 1000:06}Z"
        self.log = SessionLog(self._folder / f"session-{stamp}", config, books.epoch, books.symbols, features)
        for capture in self._captures:
            self.log.captured(capture)
        self._models.clear()
        self._last = {kind: [-1] * len(books.symbols) for kind in ("ticks", "rows")}
        self._follow()

    def _end(self) -> None:
        log, self.log = self.log, None
        log.close()
        self.told.append({"folder": log.folder.name, **log.counts, "bytes": log.bytes})

    def _follow(self) -> None:
        log = self.log
        if log is None:
            return
        for kind, ring in (("ticks", self._books), ("rows", self._rows)):
            last = self._last[kind]
            for symbol in range(len(last)):
                found = follow(ring, symbol, last[symbol])
                if found is None:
                    continue
                last[symbol] = found.last
                for first, end in found.lost:
                    log.missed(kind, end - first + 1, symbol, first, end)
                if kind == "ticks":
                    log.write_ticks(symbol, found.meta)
                else:
                    log.write_rows(symbol, found.meta, found.values)

    def _hear(self) -> None:
        """Messages: before there is a folder, they are of no use."""
        predictions = [found for message in self._predictions.take() for found in decode(message, Prediction)]
        decisions = b"".join(self._decisions.take())
        if self.log is None:
            return
        for kind, heard in (("predictions", self._predictions), ("decisions", self._decisions)):
            if missed := heard.missed():
                self.log.missed(kind, missed)
        if predictions:
            for number in sorted({found.model for found in predictions} - self._models.keys()):
                self._models[number] = _model(told(self._config, "feature"), number)
                self.log.model(self._models[number])
            self.log.write_predictions(predictions)
        if decisions:
            self.log.write_decisions(decisions)


class _Heard:
    """A tap, and how much of it was missed."""

    def __init__(self, listener: Listener) -> None:
        self.listener, self._missed = listener, 0

    def take(self) -> list[bytes]:
        found = []
        while len(found) < _BATCH and (message := self.listener.recv(0)) is not None:
            found.append(message)
        return found

    def missed(self) -> int:
        """Messages, since the last call."""
        count, self._missed = self.listener.missed - self._missed, self.listener.missed
        return count


def _in_use(config: Config) -> list[Path]:
    """The models of the workers, as they tell: they may have been started with another configuration."""
    overview = Overview(config.instance.name)
    overview.refresh()
    return overview.models() or known(config)


def _columns(config: Config, labels: tuple[str, ...]) -> FeatureSet:
    """The features behind the columns of a ring. Raises LayoutError where no model tells of one of them."""
    found = {column.label: column for column in features_wanted(config, _in_use(config)).columns}
    missing = [label for label in labels if label not in found]
    if missing:
        raise LayoutError("the rows have a column that none of the models here takes",
                          where=f"{missing[0]} (of {len(missing)})",
                          remedy="record with the configuration that the pipeline runs with")
    return FeatureSet(found[label] for label in labels)


def _model(config: Config, number: int) -> Known:
    """The model whose id predictions carry, among those that may be in use; without a path where it is none of them."""
    for path in dict.fromkeys([*_in_use(config), *known(config)]):
        with contextlib.suppress(AlphaError, OSError):
            if model_id(path) == number:
                return Known(number, str(path), hashlib.sha256(path.read_bytes()).hexdigest(), read(path).name)
    return Known(number, "", "", "")


class Recording:
    """All feeds of a pipeline into one folder, until `stop` holds anything or the time is over; with `session`, what
    becomes of them as well."""

    def __init__(self, config: Config, folder: Path, max_mb: float, max_minutes: float, session: bool = False) -> None:
        self._config, self._folder, self._with_session = config, folder, session
        self._limits = {"max_bytes": int(max_mb * 2**20), "max_s": max_minutes * 60.0}
        self.tracks: dict[str, Track] = {}
        self.files: list[dict[str, Any]] = []  #: manifests
        self.live: Live | None = None
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
            if self._with_session:
                self.live = Live(network, self._config, self._folder, self._clock)
                stack.callback(self.live.close)
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
        if self.live is not None:
            self.live.work(self._clock.monotonic_ns())
        return count

    def _discover(self, network: Network, stack: contextlib.ExitStack) -> None:
        """Feeds that have appeared: each has a tap of its own."""
        begin = f"tap.{FRAMES}."
        for path in sorted(self._config.run_dir.glob(f"{begin}*.sock")):
            who = path.name.removeprefix(begin).removesuffix(".sock")
            if who not in self.tracks:
                # The feed of `[market]` goes by the name of its venue.
                recorder = Recorder(self._folder, self._clock, name="" if who == "ingest" else who,
                                    begun=self._begun, done=self.files.append, **self._limits)
                stack.callback(recorder.close)
                self.tracks[who] = Track(network, who, recorder, self._overview, self._poller)
        now = self._clock.monotonic_ns()
        for track in self.tracks.values():
            track.work(now)
        if self.live is not None:
            self.live.discover()

    def _begun(self, header: Header, offset_ns: int) -> None:
        if self.live is not None:
            self.live.captured(header, offset_ns)

    def _count(self, name: str) -> int:
        return sum(getattr(track.recorder, name) for track in self.tracks.values())

    def _show(self, seconds: float) -> None:
        if self._lively:
            frames, missed, size = (self._count(name) for name in ("frames", "missed", "bytes"))
            waiting = "" if self._count("control") else "  waiting for ingest"
            print(f"\r{seconds:7.0f} s  {frames:,} frames  {missed:,} missed  {size / 2**20:,.1f} MB{waiting}\x1b[K",
                  end="", file=sys.stderr, flush=True)

    def _summary(self, seconds: float) -> dict[str, Any]:
        told = {"folder": str(self._folder), "seconds": round(seconds, 3), "frames": self._count("frames"),
                "control_lines": self._count("control"), "missed": self._count("missed"),
                "bytes": self._count("bytes"), "files": self.files}
        return told if self.live is None else {**told, "sessions": self.live.told}


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
@click.option("--session", is_flag=True, help="Keep ticks, rows, predictions and decisions, too: some 1,100 bytes a "
              "tick.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, the manifests of all files in it.")
def record(folder: Path, path: str | None, seconds: float | None, max_mb: float, max_minutes: float, session: bool,
           as_json: bool) -> None:
    """Record what the running ingest hears, from all its feeds, until Ctrl-C.

    Files hold frames as they came, what was sent, and what became of the connections; recording may begin in the
    middle. They can be read while they are written, and after a kill up to the last half second. A file that is whole
    has a manifest beside it. Starts and stops at any time; waits for ingest, and goes on when that comes back.

    Reads the taps of the running ingest (with --session, of all stages). Writes into the folder --out.

    \b
    Examples
      alpha record --out today
      alpha record --out today --for 3600 --max-minutes 10 --json
      alpha replay today/*.zst
      alpha record --out today --session
      alpha parity today today/*.zst
    """
    with exit_on_error():
        config = load(path)
        stop: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, frame: stop.append(received))
        _give_way()
        told = Recording(config, folder, max_mb, max_minutes, session).go(seconds, stop)
        if as_json:
            print(json.dumps(told, indent=1))
        else:
            for file in told["files"]:
                print(f"{folder / file['file']}: {file['frames']:,} frames of {file['venue']}, {file['missed']:,} "
                      f"missed, {file['bytes'] / 2**20:,.1f} MB", file=sys.stderr)
            for one in told.get("sessions", ()):
                print(f"{folder / one['folder']}: {one['ticks']:,} ticks, {one['rows']:,} rows, "
                      f"{one['predictions']:,} predictions, {one['decisions']:,} decisions, {one['missed']:,} missed, "
                      f"{one['bytes'] / 2**20:,.1f} MB", file=sys.stderr)
    if not told["files"]:
        print(f"alpha: nothing came to be recorded: no ingest of instance {config.instance.name!r} was heard; start it "
              "with: alpha run", file=sys.stderr)
        sys.exit(_NOTHING)
