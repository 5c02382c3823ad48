"""inference K: rows become predictions, one ONNX session per process.

    in    work-K       Work: rows first..last of a symbol, read in place in the rows ring
    out   predictions  Prediction, one per row
    out   credits      Credit: idle, with the lease that is done
    tap   predictions, credits

A window is a view of shared memory. It is used, and checked afterwards: a row that was overwritten meanwhile
gives no prediction and is counted.
"""

import logging

import click

from common.clock import SystemClock
from common.config import Config, load
from common.errors import ModelError
from common.features import TABLE_HASH
from common.layout import ROW_KIND, ROW_RUN, ROW_VOL
from common.links import Network
from common.model import Model
from common.ring import Rows
from common.stage import Stage, exit_on_error, run
from common.telemetry import Telemetry
from common.wire import Credit, Prediction, Work, decode, encode, make

COUNTERS = ("work", "rows", "predictions", "invalid", "cold", "model_errors", "stale_refs", "batches",
            "predictions_refused", "credits_refused")
TIMERS = ("inference",)

_GREETING_NS = 100_000_000
_log = logging.getLogger("inference")


class Inference(Stage):
    """One worker; stateless between messages, so any worker serves any symbol."""

    def __init__(self, config: Config, clock, telemetry: Telemetry, worker: int, work, credits, predictions,
                 model: Model, rows_source=None) -> None:
        self.name = f"inference-{worker}"
        self._worker, self._clock, self._telemetry = worker, clock, telemetry
        self._work, self._credits, self._predictions = work, credits, predictions
        self._rows_source = rows_source or (lambda: Rows.attach(config.instance.name, TABLE_HASH))
        self.model = model
        self.rows: Rows | None = None
        self._incarnation = clock.monotonic_ns()
        self._lease = 0
        self._quiet_since = 0
        self._spent: list[int] = []  # of the runs since the last message, for the histogram
        self._places: slice | list[int] = []  # of the model's columns in the rows

    def on_start(self) -> bool:
        try:
            self.rows = self._rows_source()
        except FileNotFoundError:
            self._telemetry.tell({"waiting_for": "the rows ring, which feature makes"})
            return False
        self._fit()
        self._telemetry.tell({"waiting_for": "", "model": self.model.name, "provider": self.model.provider,
                              "window": self.model.window})
        self._greet()
        return True

    def do_work(self) -> int:
        handled = 0
        while (message := self._work.take()) is not None:
            handled += 1
            self._serve(decode(message, Work))
        if not handled and self._clock.monotonic_ns() - self._quiet_since > _GREETING_NS:
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

    def _predict(self, item: Work, predictions: list[Prediction]) -> None:
        """One row. The oldest row of the window is looked at before and after: the writer overwrites it first."""
        rows, model, length = self.rows, self.model, self.model.window
        symbol, seq = item.symbol, item.last
        start = self._clock.monotonic_ns()
        meta = rows.read_meta(symbol, seq)
        if meta is None or not rows.holds(symbol, seq - length + 1):
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
        if self._telemetry.get("model_errors") <= 10:
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

    def _greet(self) -> None:
        """Also says again what a feature stage that died did not hear; and finds its new rows."""
        if self.rows is not None and self.rows.retired:
            self._attach_again()
        self._credit(0, 0)

    def _fit(self) -> None:
        """Whether these rows serve the model, and where its columns stand in them."""
        self._places = self.model.features.places(self.rows.columns)
        if self.model.window > self.rows.capacity // 2:
            raise ModelError("the model's window is too long for the rows ring",
                             where=f"window {self.model.window}, ring.rows {self.rows.capacity}",
                             remedy="set ring.rows to twice the window or more")

    def _attach_again(self) -> Rows | None:
        try:
            self.rows = self._rows_source()
            self._fit()
        except FileNotFoundError:
            self._telemetry.tell({"waiting_for": "the rows ring, which feature makes"})
        return self.rows


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--worker", type=click.IntRange(0, 63), default=0, show_default=True, help="Number of this worker.")
@click.option("--check", is_flag=True, help="Load the model, say what it is, and end.")
def inference(path: str | None, worker: int, check: bool) -> None:
    """Predict rows with an ONNX model.

    \b
    Receives  work-K (Work, from feature); binds it.
    Sends     predictions (Prediction, to executor) and credits (Credit, to feature).
    Memory    reads the rows ring in place.
    Taps      alpha tap predictions, alpha tap credits
    Starts in any order: it waits for the rows ring. Several workers: --worker 0, --worker 1, ...
    """
    with exit_on_error():
        config = load(path)
        settings = config.inference
        # A wrong model is refused before anything is bound.
        model = Model.load(config.path(settings.model), settings.providers, settings.allow_fallback)
        if check:
            click.echo(f"{model.name}: window {model.window}, provider {model.provider}")
            return
        run(f"inference-{worker}", config, lambda network, telemetry: _build(config, worker, model, network, telemetry),
            COUNTERS, TIMERS, core="inference")


def _build(config: Config, worker: int, model: Model, network: Network, telemetry: Telemetry) -> Inference:
    taps = [network.tap(link, str(worker)) if config.tap.enabled else None for link in ("credits", "predictions")]
    return Inference(config, SystemClock(), telemetry, worker, network.pull(f"work-{worker}"),
                     network.push("credits", taps[0]), network.push("predictions", taps[1]), model)
