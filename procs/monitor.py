"""monitor: judges what the workers predicted, once the outcome is known, and the drift of what they predicted from.

    in    judged        Prediction, a sample, of the model that trades and of its challenger alike
    in    books ring    the mid at each prediction's horizon (common.outcomes)
    in    rows ring     the row behind each prediction, against the model's training rows (common.drift)
    out   judged.jsonl  each prediction with its outcome (common.judged)
    out   alerts        what is wrong with the pipeline, to a command and a webhook (common.alarms)
    out   the page      what the pipeline does now, /metrics, /healthz and /readyz, over HTTP (common.watch.server)

Figures are those of one life of this process and stand in its telemetry, for `alpha status`; totals go on. It looks on
and disturbs nothing: it runs when a core has nothing else to do, and what it does not take in time is counted as lost.
The page is served in a thread of its own, from the beginning, and no error of it ends the judging.
"""

import logging
import os
import time
from typing import Any

import click
import numpy as np

from common import deployment
from common.alarms import Alarms
from common.alert_sink import configured
from common.calibration import Calibration, Comparison
from common.clock import SystemClock
from common.config import Config, load
from common.drift import Drift
from common.errors import AlphaError
from common.features.table import TABLE_HASH
from common.judged import Journal, model_text
from common.links import Network
from common.manifest import Manifest, features_of, read
from common.onnx_file import model_id
from common.outcomes import Outcome, Outcomes
from common.placement import step_back
from common.ring import Books, Rows
from common.stage import SUPERVISED, Stage, exit_on_error, run
from common.telemetry import Telemetry
from common.watch import server
from common.watch.access import ENV_TOKEN, Access
from common.watch.server import Server
from common.wire import Prediction, decode

COUNTERS = ("received", "judged", "unmoved", "lost", "pending", "thinned", "unknown_model", "drift_rows",
            "drift_missed", "journaled", "journal_errors", *server.COUNTERS)

_TURN_NS = 250_000_000
_TELL_NS = 1_000_000_000
_LOOK_NS = 1_000_000_000, 60_000_000_000  # shortest and longest pause between two searches for an unknown model
_OUT_OF_ORDER = 100  # stretches of time
_BURST = 1000  # messages between two looks at everything else
_PAIRS = 10_000  # rows that wait for the prediction of the other model
_TOLD = 4  # models of which telemetry has room to tell
_LEAST_BLOCK_NS = 10_000_000_000
_SUPERVISED_S = 1.5  # supervisord takes an end within `startsecs` for a failed start, whatever the exit code
_log = logging.getLogger("monitor")


class Judge:
    """One model: what it is, and how it does."""

    def __init__(self, number: int, manifest: Manifest, source: str) -> None:
        self.id, self.name = number, manifest.name
        self.horizon_ns = round(manifest.horizon_s * 1e9)
        self.calibration = Calibration()
        self.received = self.lost = 0
        self.note = ""  #: why drift is not measured
        self.places: slice | list[int] | None = None  #: of its columns in the rows
        self.drift: Drift | None = None
        try:
            self.features = features_of(manifest, source)
            if manifest.statistics:
                self.drift = Drift(self.features.names, manifest.statistics)
            else:
                self.note = "its manifest has no statistics of training rows"
        except AlphaError as error:
            self.note = str(error)
        if self.note:
            _log.warning("drift of %s is not measured: %s", self.name, self.note)

    def fit(self, rows: Rows) -> None:
        """Find its columns in the rows; a ring without them leaves drift unmeasured until there is another."""
        self.places = None
        if self.drift is not None:
            try:
                self.places = self.features.places(rows.columns)
            except AlphaError as error:
                _log.warning("drift of %s is not measured in these rows: %s", self.name, error)

    def report(self, role: str) -> dict[str, Any]:
        told = self.calibration.report()
        return {"name": self.name, "id": model_text(self.id), "role": role, "horizon_s": self.horizon_ns / 1e9,
                "pending": self.received - told["known"] - self.lost, "lost": self.lost, **told,
                "drift": self.drift.report() if self.drift else None, "note": self.note}


class Monitor(Stage):
    """`inbox` receives predictions. `books_source` and `rows_source` attach to the rings, or hand out private ones.
    `page`, where there is one, is closed at the end."""

    name = "monitor"

    def __init__(self, config: Config, clock, telemetry: Telemetry, inbox, books_source=None, rows_source=None,
                 alarms: Alarms | None = None) -> None:
        self._config, self._clock, self._telemetry, self._inbox = config, clock, telemetry, inbox
        self._books_source = books_source or (lambda: Books.attach(config.instance.name))
        self._rows_source = rows_source or (lambda: Rows.attach(config.instance.name, TABLE_HASH))
        self._step_ns = int(config.monitor.sample_ms * 1e6)
        self._journal = Journal(config.state_dir)
        self._alarms = alarms
        self.newest: dict[int, Prediction] = {}  #: symbol -> what the model that trades said last, as far as is told
        self.page: Server | None = None
        self.books: Books | None = None
        self.rows: Rows | None = None
        self.outcomes: Outcomes | None = None
        self.judges: dict[int, Judge] = {}
        self.live = self.shadow = 0  #: ids; 0: there is none
        self.comparison: Comparison | None = None
        self._alone: dict[tuple[int, int, int], tuple[int, float]] = {}  # row -> model and squared error of the first
        self._taken: dict[tuple[int, int], int] = {}  # symbol and model -> stretch of time of the last one judged
        self._watch = deployment.Watch(config.state_dir)
        self._next_turn = self._next_tell = self._next_look = 0
        self._pause = _LOOK_NS[0]
        # What waited in the process before this one has no outcome.
        telemetry.add("lost", telemetry.get("pending"))
        telemetry.set("pending", 0)

    def on_start(self) -> bool:
        if self._alarms is not None:
            self._alarms.turn(self._clock.monotonic_ns())
        if not self._attach():
            self._telemetry.tell({"waiting_for": "the books ring, which ingest makes"})
            return False
        self._telemetry.tell({"waiting_for": ""})
        self._look()
        return True

    def do_work(self) -> int:
        handled = 0
        message = self._inbox.take()
        while message is not None:
            handled += 1
            for prediction in decode(message, Prediction):
                self._hear(prediction)
            message = self._inbox.recv() if handled < _BURST else None
        now = self._clock.monotonic_ns()
        if now >= self._next_turn:
            self._turn(now)
        return handled

    def wait(self, timeout_ms: float) -> None:
        self._inbox.wait(timeout_ms)

    def on_close(self) -> None:
        if self.outcomes is not None:
            self._settle()
            self._tell()
        self._journal.close()
        if self._alarms is not None:
            self._alarms.close()
        if self.page is not None:
            self.page.close()

    def _hear(self, prediction: Prediction) -> None:
        telemetry = self._telemetry
        judge = self.judges.get(prediction.model) or self._meet(prediction.model)
        if judge is None:
            telemetry.add("unknown_model")
            return
        if prediction.model == self.live:
            self.newest[prediction.symbol] = prediction
        if self._step_ns:
            # Workers sample each for itself: of several the first counts, and the same row for both models. Venue time
            # may go back, by a little between workers and by much for good.
            key, stretch = (prediction.symbol, prediction.model), prediction.event_ns // self._step_ns
            if 0 <= self._taken.get(key, -1) - stretch < _OUT_OF_ORDER:
                telemetry.add("thinned")
                return
            self._taken[key] = stretch
        telemetry.add("received")
        judge.received += 1
        if prediction.epoch != self.books.tag:
            self._attach()
        if prediction.epoch != self.books.tag:
            judge.lost += 1
            telemetry.add("lost")
            return
        self.outcomes.add(prediction, judge.horizon_ns)
        if judge.drift is not None:
            row = self._row(judge, prediction)
            if row is not None:
                judge.drift.add(row)
            telemetry.add("drift_rows" if row is not None else "drift_missed")

    def _row(self, judge: Judge, prediction: Prediction) -> np.ndarray | None:
        """A copy of the model's columns of the row that it predicted from last; None if it is gone."""
        rows, symbol, seq = self.rows, prediction.symbol, prediction.seq
        if rows is None or judge.places is None or prediction.epoch != rows.tag:
            return None
        row = rows.window(symbol, seq, 1)[0, judge.places].copy()
        return row if rows.holds(symbol, seq) else None

    def _turn(self, now: int) -> None:
        self._next_turn = now + _TURN_NS
        self._attach()
        if self._watch.changed():
            self._look()
        self._settle()
        if now >= self._next_tell:
            self._next_tell = now + _TELL_NS
            self._tell()
            if self._alarms is not None:
                self._alarms.turn(now)

    def _attach(self) -> bool:
        """Follow the stream of ticks and its rows, also where they have begun anew. False if there is none yet."""
        if self.books is None or self.books.retired:
            try:
                books = self._books_source()
            except FileNotFoundError:
                return self.books is not None
            if self.books is None or books.epoch != self.books.epoch:
                if self.outcomes is not None:
                    self._lose(self.outcomes.abandon())
                self.outcomes = Outcomes(books)
                self._taken.clear()
                self._alone.clear()
            self.books = books
        if self.rows is None or self.rows.retired:
            try:
                self.rows = self._rows_source()
            except FileNotFoundError:
                return True  # feature has not made it yet: only drift waits for it
            for judge in self.judges.values():
                judge.fit(self.rows)
        return True

    # Models.

    def _meet(self, number: int) -> Judge | None:
        """A model that was not known: it may have been deployed just now."""
        now = self._clock.monotonic_ns()
        if now < self._next_look:
            return None
        self._look()
        found = self.judges.get(number)
        self._pause = _LOOK_NS[0] if found else min(2 * self._pause, _LOOK_NS[1])
        self._next_look = now + self._pause
        if found is None:
            _log.warning("predictions of a model that is neither configured nor deployed: id %s", model_text(number))
        return found

    def _look(self) -> None:
        """Read what is configured and deployed. Files that are being replaced are read at the next look."""
        try:
            pair, paths = deployment.in_force(self._config), deployment.known(self._config)
        except AlphaError as error:
            _log.warning("%s", error)
            return
        numbers: dict[str, int] = {}
        for path in paths:
            try:
                number = numbers[str(path)] = model_id(path)
                if number not in self.judges:
                    judge = self.judges[number] = Judge(number, read(path), str(path))
                    if self.rows is not None:
                        judge.fit(self.rows)
            except AlphaError as error:
                _log.warning("%s", error)
        live = numbers.get(pair.model.path, 0)
        shadow = numbers.get(pair.shadow.path, 0) if pair.shadow else 0
        if (live, shadow) != (self.live, self.shadow):
            self.live, self.shadow = live, shadow
            self._alone.clear()
            self.comparison = self._compare_anew()

    def _compare_anew(self) -> Comparison | None:
        """For two models that answer the same question."""
        champion, challenger = self.judges.get(self.live), self.judges.get(self.shadow)
        if champion is None or challenger is None or champion is challenger or (
                champion.horizon_ns != challenger.horizon_ns):
            return None
        return Comparison(max(_LEAST_BLOCK_NS, 2 * champion.horizon_ns))

    # Outcomes.

    def _settle(self) -> None:
        telemetry, journal, symbols = self._telemetry, self._journal, self.books.symbols
        for outcome in self.outcomes.settle():
            prediction, move = outcome.prediction, outcome.move
            judge = self.judges[prediction.model]
            error = judge.calibration.add(prediction.p_up, prediction.p_down, move)
            telemetry.add("judged")
            if error is None:
                telemetry.add("unmoved")
            else:
                self._compare(outcome, error)
            journal.add(outcome, judge.name, symbols[prediction.symbol], judge.horizon_ns)
        self._lose(self.outcomes.take_lost())
        telemetry.set("pending", self.outcomes.pending)
        try:
            telemetry.add("journaled", journal.write())
        except OSError as error:  # judging goes on
            if not telemetry.get("journal_errors"):
                _log.error("what is judged cannot be journaled in %s: %s", self._config.state_dir, error)
            telemetry.add("journal_errors")

    def _lose(self, predictions: list[Prediction]) -> None:
        for prediction in predictions:
            self.judges[prediction.model].lost += 1
        self._telemetry.add("lost", len(predictions))

    def _compare(self, outcome: Outcome, error: float) -> None:
        """Pair it with that of the other model on the same row, whichever came first."""
        prediction = outcome.prediction
        if self.comparison is None or prediction.model not in (self.live, self.shadow):
            return
        row = prediction.symbol, prediction.epoch, prediction.seq
        model, other = self._alone.setdefault(row, (prediction.model, error))
        if model != prediction.model:
            del self._alone[row]
            champion, challenger = (error, other) if model == self.shadow else (other, error)
            self.comparison.add(prediction.event_ns, champion, challenger)
        elif len(self._alone) > _PAIRS:
            del self._alone[next(iter(self._alone))]

    def _tell(self) -> None:
        roles = {self.shadow: "shadow", self.live: "live"}
        order = sorted(self.judges.values(), key=lambda judge: (roles.get(judge.id, "~"), -judge.received))
        models = [judge.report(roles.get(judge.id, "former")) for judge in order[:_TOLD]
                  if judge.id in roles or judge.received]
        self._telemetry.tell({**self._telemetry.told(), "models": _rounded(models), "challenger": _rounded(
            self.comparison.report() if self.comparison else None)})


def _rounded(value: Any) -> Any:
    """Six digits of each float: enough to read, and room is scarce."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
def monitor(path: str | None) -> None:
    """Judge predictions once their outcome is known, and the drift of features.

    \b
    Receives  judged (Prediction, a sample, from workers); binds it.
    Memory    reads the books ring and the rows ring.
    Files     writes judged.jsonl in the state folder: each prediction with its outcome; alerts.json: what is firing.
    Tells     alerts, to [alerts] command and to $ALPHA_ALERTS_WEBHOOK.
    Shows     alpha status, section `models`; alpha alerts; a page at http://127.0.0.1:8766/, and /metrics, /healthz and
              /readyz there

    Of each model: Brier score beside that of always saying the base rate, log loss, calibration, hit rate, correlation
    with the move, and the columns that look least as in training. A challenger (inference.shadow) is compared with the
    model that trades on the rows that both predicted.

    The page shows alerts, books, probabilities, orders, latency, limits and health as they are now.
    $ALPHA_MONITOR_TOKEN, 16 characters or more, gives it buttons: halt, reduce, flatten, resume; open /#token=TOKEN
    once. Without it nobody can act. Beyond loopback (monitor.host) the monitor does not start without one, and no
    figure is told without it: only the page's own files are. A scraper sends `Authorization: Bearer TOKEN` there.

    Starts in any order: it waits for the books ring. It runs when a core is idle, and takes none from the stages. With
    monitor.enabled = false it ends at once, with exit code 0.

    \b
    Examples
      alpha monitor
      alpha monitor --config alpha.toml
    """
    with exit_on_error():
        config = load(path)
        if not config.monitor.enabled:
            click.echo("alpha monitor: switched off (monitor.enabled = false)", err=True)
            if os.environ.get(SUPERVISED):
                time.sleep(_SUPERVISED_S)
            return
        run("monitor", config, lambda network, telemetry: _build(config, network, telemetry), COUNTERS)


def _build(config: Config, network: Network, telemetry: Telemetry) -> Monitor:
    step_back()
    clock = SystemClock()
    monitor = Monitor(config, clock, telemetry, network.pull("judged"),
                      alarms=Alarms(config, clock, configured(config)))
    if config.monitor.page:
        access = Access(config.monitor.host, os.environ.get(ENV_TOKEN, ""))
        monitor.page = Server(config, access, telemetry, monitor.newest)
        monitor.page.start()
        everywhere = "" if config.monitor.host.strip("[]") in monitor.page.url else (
            f", and at port {monitor.page.port} of every address of this machine")
        _log.info("the page is at %s%s", monitor.page.url, everywhere)
    return monitor
