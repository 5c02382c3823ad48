"""inference K: rows become predictions, one ONNX session per process.

    in    work-K       Work: rows first..last of a symbol, read in place in the rows ring
    out   predictions  Prediction, one per row
    out   credits      Credit: idle, with the lease that is done
    out   judged       Prediction, for the monitor: what the champion said, and what its challenger says
    tap   predictions, credits, judged

A window is a view of shared memory. It is used, and checked afterwards: a row that was overwritten meanwhile
gives no prediction and is counted.

A challenger predicts in the shadow, on the rows that are judged (`monitor.sample_ms`; 0: all that time allows): after
the champion's answer and the credit have left, when no work waits, and for a tenth of the time at most.

A deployed model is loaded while the old one serves, and takes over between two messages (`common.succession`); each
prediction carries the id of the model that made it.
"""

import dataclasses
import logging

import click

from common import deployment, succession
from common.clock import SystemClock
from common.config import Config, load
from common.errors import ModelError
from common.features.table import TABLE_HASH
from common.layout import ROW_KIND, ROW_RUN, ROW_VOL
from common.links import Network
from common.model import Model
from common.ring import Rows
from common.stage import Stage, exit_on_error, run
from common.succession import Engines, Succession
from common.telemetry import Telemetry
from common.wire import Credit, Prediction, Work, decode, encode, make

COUNTERS = ("work", "rows", "predictions", "invalid", "cold", "model_errors", "stale_refs", "batches",
            "predictions_refused", "credits_refused", "swaps", "shadow_predictions", "shadow_skipped", "shadow_invalid",
            "shadow_errors", "judged", "judged_refused", "fresh_errors", "fresh_shadow_errors")
TIMERS = ("inference", "shadow")

_GREETING_NS = 100_000_000
_TURN_NS = 100_000_000  #: between two looks at what is deployed
_SHADOW_REST = 9  #: a challenger rests for so many times as long as it ran
_HEAP, _HEAP_NS = 64, 50_000_000  #: predictions for the monitor leave when there are so many, or so old
_log = logging.getLogger("inference")


class Inference(Stage):
    """One worker; stateless between messages, so any worker serves any symbol.

    Without `judged` nothing is told to a monitor; without `follow` the models stay as they are."""

    def __init__(self, config: Config, clock, telemetry: Telemetry, worker: int, work, credits, predictions,
                 model: Model, rows_source=None, shadow: Model | None = None, judged=None,
                 follow: Succession | None = None) -> None:
        self.name = f"inference-{worker}"
        self._worker, self._clock, self._telemetry = worker, clock, telemetry
        self._work, self._credits, self._predictions, self._judged = work, credits, predictions, judged
        self._rows_source = rows_source or (lambda: Rows.attach(config.instance.name, TABLE_HASH))
        self.model, self.shadow = model, shadow if judged is not None else None
        self._follow = follow
        self._origin = {"configured": deployment.configured(config), "state_dir": str(config.state_dir)}
        self.rows: Rows | None = None
        self._incarnation = clock.monotonic_ns()
        self._lease = 0
        self._quiet_since = self._next_turn = 0
        self._spent: list[int] = []  # of the runs since the last message, for the histogram
        self._places: slice | list[int] = []  # of the model's columns in the rows
        self._shadow_places: slice | list[int] = []
        self._owed: Prediction | None = None  # what the challenger is to predict too
        self._shadow_rests = 0  # until then
        self._sample_ns = int(config.monitor.sample_ms * 1e6)
        self._due: dict[int, int] = {}  # symbol -> venue time of its next sample
        self._heap: list[Prediction] = []  # for the monitor
        self._heap_since = 0

    def on_start(self) -> bool:
        try:
            self.rows = self._rows_source()
        except FileNotFoundError:
            self._tell(waiting_for="the rows ring, which feature makes")
            return False
        self._fit()
        self._begin_counting()
        self._tell(waiting_for="")
        self._tell_models()
        self._greet()
        return True

    def do_work(self) -> int:
        handled = 0
        while (message := self._work.take()) is not None:
            handled += 1
            self._serve(decode(message, Work))
        now = self._quiet_since if handled else self._clock.monotonic_ns()
        if self._owed is not None:
            self._challenge()
        if self._heap and (len(self._heap) >= _HEAP or now - self._heap_since >= _HEAP_NS):
            self._tell_monitor()
        if now >= self._next_turn:
            self._turn(now)
        if not handled and now - self._quiet_since > _GREETING_NS:
            self._greet()
        return handled

    def wait(self, timeout_ms: float) -> None:
        self._work.wait(timeout_ms)

    def _serve(self, work: list[Work]) -> None:
        rows = self.rows
        if work[0].epoch != rows.tag:
            rows = self._attach_again()
        predictions: list[Prediction] = []
        asked = 0
        for item in work:
            asked += item.last - item.first + 1
            if rows is None or item.epoch != rows.tag:
                self._telemetry.add("stale_refs")
            elif item.first == item.last:
                self._predict(item, predictions)
            else:
                self._predict_run(item, predictions)
        # First what the executor waits for; counting comes last.
        refused = predictions and not self._predictions.send(encode(predictions))
        self._lease = work[0].lease
        self._credit(asked, asked - len(predictions))
        telemetry = self._telemetry
        for spent_ns in self._spent:
            telemetry.observe("inference", spent_ns)
        self._spent.clear()
        telemetry.add("work", len(work))
        telemetry.add("rows", asked)
        telemetry.add("predictions", len(predictions))
        if refused:
            telemetry.add("predictions_refused", len(predictions))
        if predictions and self._judged is not None:
            self._choose(predictions)

    def _predict(self, item: Work, predictions: list[Prediction]) -> None:
        """One row. The oldest row of the window is looked at before and after: the writer overwrites it first."""
        rows, model, length = self.rows, self.model, self.model.window
        symbol, seq = item.symbol, item.last
        start = self._clock.monotonic_ns()
        meta = rows.read_meta(symbol, seq)
        if meta is None or not rows.holds(symbol, seq - length + 1):
            if self._replaced():
                self._predict(item, predictions)
            else:
                self._telemetry.add("invalid")
            return
        if meta[ROW_RUN] < length:
            self._telemetry.add("cold")
            return
        window = rows.window(symbol, seq, length)[:, self._places]
        try:
            p_up, p_down = model.predict(window)
        except ModelError as error:
            self._refuse(error, 1)
            return
        end = self._clock.monotonic_ns()
        if not rows.holds(symbol, seq - length + 1):
            self._telemetry.add("invalid")
            return
        self._spent.append(end - start)
        predictions.append(self._prediction(item, meta, p_up, p_down, start, end))

    def _predict_run(self, item: Work, predictions: list[Prediction]) -> None:
        """Consecutive rows of one symbol as one batch."""
        rows, model, length = self.rows, self.model, self.model.window
        symbol = item.symbol
        start = self._clock.monotonic_ns()
        metas = [(seq, rows.read_meta(symbol, seq)) for seq in range(item.first, item.last + 1)]
        usable = [(seq, meta) for seq, meta in metas if meta is not None and meta[ROW_RUN] >= length
                  and rows.holds(symbol, seq - length + 1)]
        if len(usable) < len(metas) and self._replaced():
            self._predict_run(item, predictions)
            return
        self._telemetry.add("invalid", len(metas) - len(usable))
        if not usable:
            return
        places = self._places
        windows = [rows.window(symbol, seq, length)[:, places] for seq, _ in usable]
        try:
            found = model.predict_batch(windows)
        except ModelError as error:
            self._refuse(error, len(usable))
            return
        end = self._clock.monotonic_ns()
        self._spent.append(end - start)
        self._telemetry.add("batches")
        for (seq, meta), (p_up, p_down) in zip(usable, found.tolist()):
            if rows.holds(symbol, seq - length + 1):
                predictions.append(self._prediction(item, meta, p_up, p_down, start, end))
            else:
                self._telemetry.add("invalid")

    def _refuse(self, error: ModelError, rows: int) -> None:
        """The model answered nonsense (NaN, say): no prediction, and the worker lives on."""
        self._telemetry.add("model_errors", rows)
        self._telemetry.add("fresh_errors", rows)
        if self._telemetry.get("fresh_errors") <= 10:
            _log.error("%s", error)

    def _prediction(self, item: Work, meta: tuple[int, ...], p_up: float, p_down: float, start: int,
                    end: int) -> Prediction:
        seq, _, _, venue_id, event_ns, recv_ns, book_ns, row_ns, bid, ask, kind = meta[:ROW_KIND + 1]
        volatility = meta[ROW_VOL] * 1e-9
        return make(Prediction, (item.symbol, self._worker, item.epoch, seq, venue_id, kind, event_ns, self.model.id,
                                 p_up, p_down, volatility, bid, ask, recv_ns, book_ns, row_ns, item.dispatched_ns,
                                 start, end))

    def _credit(self, done: int, invalid: int) -> None:
        self._quiet_since = self._clock.monotonic_ns()
        if not self._credits.send(encode([Credit(self._worker, self._incarnation, self._lease, done, invalid,
                                                 self.model.window)])):
            self._telemetry.add("credits_refused")

    def _choose(self, predictions: list[Prediction]) -> None:
        """What the monitor is to judge: of each symbol one row in `monitor.sample_ms` of venue time. With a challenger
        a row is told once that has answered it too."""
        for found in predictions:
            at, due = found.event_ns or found.recv_ns, self._due.get(found.symbol, 0)
            if due - self._sample_ns <= at < due:  # not where venue time has gone back
                continue
            if self.shadow is not None:
                self._owed = found
            else:
                self._due[found.symbol] = at + self._sample_ns
                self._keep(found)

    def _challenge(self) -> None:
        """The challenger's answer for a row that the champion has answered. Real work comes first."""
        found, self._owed, telemetry = self._owed, None, self._telemetry
        if self._quiet_since < self._shadow_rests or self._work.pending():
            telemetry.add("shadow_skipped")
            return
        rows, shadow = self.rows, self.shadow
        symbol, first = found.symbol, found.seq - shadow.window + 1
        start = self._clock.monotonic_ns()
        meta = rows.read_meta(symbol, found.seq) if found.epoch == rows.tag else None
        if meta is None or meta[ROW_RUN] < shadow.window or not rows.holds(symbol, first):
            telemetry.add("shadow_invalid")
            return
        try:
            p_up, p_down = shadow.predict(rows.window(symbol, found.seq, shadow.window)[:, self._shadow_places])
        except ModelError as error:
            telemetry.add("shadow_errors")
            telemetry.add("fresh_shadow_errors")
            if telemetry.get("fresh_shadow_errors") <= 10:
                _log.error("challenger: %s", error)
            return
        end = self._clock.monotonic_ns()
        self._shadow_rests = end + _SHADOW_REST * (end - start)
        if not rows.holds(symbol, first):
            telemetry.add("shadow_invalid")
            return
        self._due[symbol] = (found.event_ns or found.recv_ns) + self._sample_ns
        telemetry.add("shadow_predictions")
        telemetry.observe("shadow", end - start)
        self._keep(found)
        self._keep(found._replace(model=shadow.id, p_up=p_up, p_down=p_down, start_ns=start, end_ns=end))

    def _keep(self, found: Prediction) -> None:
        if not self._heap:
            self._heap_since = self._quiet_since
        self._heap.append(found)

    def _tell_monitor(self) -> None:
        heap, self._heap = self._heap, []
        for start in range(0, len(heap), _HEAP):
            part = heap[start:start + _HEAP]
            self._telemetry.add("judged" if self._judged.send(encode(part)) else "judged_refused", len(part))

    def _greet(self) -> None:
        """Also says again what a feature stage that died did not hear; and finds its new rows."""
        self._replaced()
        self._credit(0, 0)

    def _turn(self, now: int) -> None:
        """A few times a second: is another model deployed?"""
        self._next_turn = now + _TURN_NS
        if self._follow is None:
            return
        self._replaced()
        before = self._follow.state
        engines = self._follow.turn(self._places_of)
        if engines is not None:
            self.model, self.shadow = engines.model, engines.shadow if self._judged is not None else None
            self._fit()
            self._owed, self._shadow_rests = None, 0
            self._due.clear()
            self._telemetry.add("swaps")
            self._begin_counting()
        if engines is not None or self._follow.state != before:
            self._tell_models()

    def _begin_counting(self) -> None:
        """Errors since these models came: whoever deployed them watches."""
        for counter in ("fresh_errors", "fresh_shadow_errors"):
            self._telemetry.set(counter, 0)

    def _fit(self) -> None:
        """Where the models' columns stand in the rows."""
        self._places, self._shadow_places = self._places_of((None, self.model, self.shadow))

    def _places_of(self, engines: Engines | tuple) -> list[slice | list[int]]:
        """Of the columns of the model and of its challenger. Raises LayoutError where the rows lack one, ModelError
        where a window is too long for the ring."""
        found: list[slice | list[int]] = []
        for model in engines[1:]:
            if model is not None and model.window > self.rows.capacity // 2:
                raise ModelError("the model's window is too long for the rows ring",
                                 where=f"{model.name}: window {model.window}, ring.rows {self.rows.capacity}",
                                 remedy="set ring.rows to twice the window or more")
            found.append([] if model is None else model.features.places(self.rows.columns))
        return found

    def _replaced(self) -> bool:
        """Whether the rows ring has made way for another, which is then attached."""
        before = self.rows
        return before is not None and before.retired and self._attach_again() is not before

    def _attach_again(self) -> Rows | None:
        try:
            self.rows = self._rows_source()
        except FileNotFoundError:
            self._tell(waiting_for="the rows ring, which feature makes")
        else:
            self._fit()
            self._tell(waiting_for="")
        return self.rows

    def _tell_models(self) -> None:
        model, shadow = self.model, self.shadow
        self._tell(model=model.name, model_id=f"{model.id:016x}", provider=model.provider, window=model.window,
                   shadow=shadow.name if shadow else "", shadow_id=f"{shadow.id:016x}" if shadow else "",
                   deployment={"pair": self._follow.engines.pair, **self._origin, **self._follow.state}
                   if self._follow else {})

    def _tell(self, **words: object) -> None:
        self._telemetry.tell({**self._telemetry.told(), **words})


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--worker", type=click.IntRange(0, 63), default=0, show_default=True, help="Number of this worker.")
@click.option("--shadow", help="ONNX model to run in the shadow of the one that trades (default: inference.shadow).")
@click.option("--check", is_flag=True, help="Load the model, say what it is, and end.")
def inference(path: str | None, worker: int, shadow: str | None, check: bool) -> None:
    """Predict rows with an ONNX model: the one that is deployed (alpha model deploy), else inference.model.

    \b
    Receives  work-K (Work, from feature); binds it.
    Sends     predictions (Prediction, to executor), credits (Credit, to feature) and judged (Prediction, to monitor).
    Memory    reads the rows ring in place.
    Taps      alpha tap predictions, alpha tap credits, alpha tap judged
    Starts in any order: it waits for the rows ring. Several workers: --worker 0, --worker 1, ...

    \b
    Examples
      alpha inference --worker 1
      alpha inference --check
      alpha inference --shadow models/mine.onnx

    Exit codes: 0 stopped, or checked; 2 the configuration is wrong, 3 the model does not fit, 6 it runs already.

    With --shadow, feature must be told too, so that the rows carry what the challenger takes: set inference.shadow
    for all stages, or deploy it.
    """
    with exit_on_error():
        config = load(path)
        if shadow is not None:
            config = dataclasses.replace(config, inference=dataclasses.replace(config.inference, shadow=shadow))
        # A wrong model is refused before anything is bound.
        engines = succession.load(deployment.in_force(config), config.inference)
        if check:
            for model in engines[1:]:
                if model is not None:
                    click.echo(f"{model.name}: window {model.window}, provider {model.provider}")
            return
        run(f"inference-{worker}", config,
            lambda network, telemetry: _build(config, worker, engines, network, telemetry),
            COUNTERS, TIMERS, core="inference")


def _build(config: Config, worker: int, engines: Engines, network: Network, telemetry: Telemetry) -> Inference:
    links = ("credits", "predictions", "judged") if config.monitor.enabled else ("credits", "predictions")
    taps = [network.tap(link, str(worker)) if config.tap.enabled else None for link in links]
    credits, predictions, *judged = [network.push(link, tap) for link, tap in zip(links, taps)]
    return Inference(config, SystemClock(), telemetry, worker, network.pull(f"work-{worker}"), credits, predictions,
                     engines.model, None, engines.shadow, judged[0] if judged else None, Succession(config, engines))
