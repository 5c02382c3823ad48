"""replay CAPTURE...: a recording through the same stages, in one process, on a clock that the recording drives.

Nothing here computes anything: the market core of ingest, the feature stage, one worker and the executor are the
live ones, joined by links in memory and stepped line by line. Twice the same input gives the same bytes; and
rows and probabilities are those of a live run on the same frames, for every tick that both predicted, because
features depend on nothing but the frames. (A live run skips rows when it is overloaded; a replay never is.)

`Desk` is the executor on recorded time, here and in `alpha backtest`. What happens there, and when:

    a tick         at its time of receipt
    its decision   `latency_ns` later, on the book as of then
    its order      arrives executor.paper_latency_ms after that, and meets the book as of then
    what rests     is looked at with every tick

What falls on the very time of a tick comes after it, arrivals before decisions.
"""

import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from common import captures, venues
from common.clock import ManualClock
from common.config import SPOT_GATEWAY, Config, load
from common.decision_telemetry import COUNTER_OF, DecisionTelemetry
from common.errors import ConfigError
from common.gateways import create
from common.gateways.paper import Paper
from common.journal import Journal
from common.layout import KIND_NAMES
from common.links import LocalLink
from common.manifest import features_wanted
from common.market import Market
from common.model import Model
from common.overview import Overview
from common.player import Player
from common.ring import Books, Rows
from common.risk import Refusal
from common.stage import exit_on_error
from common.telemetry import Telemetry
from common.wire import CLOCK, Prediction, decode, encode
from procs import executor as executor_stage
from procs import feature as feature_stage
from procs import inference as inference_stage

_NEVER = 2**63 - 1


_TURN_NS = 250_000_000  # between looks at positions and their loss; live it is 100 ms, which would take a tenth longer


class _Tally(DecisionTelemetry):
    """Counts turn by turn what is decided, without the latencies: they mean nothing on a recorded clock, and cost a
    third of the executor's turn."""

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(telemetry)
        self._asked = 0  # by the clock, since the last turn
        self._counted: defaultdict[str, int] = defaultdict(int)  # decisions by the reason of the refusal, or ""

    def count(self, prediction: Prediction, refusal: Refusal | None, decided: int) -> None:
        self._counted[refusal.reason if refusal else ""] += 1
        if prediction.worker == CLOCK:
            self._asked += 1

    def tell(self) -> None:
        add, counted = self._telemetry.add, self._counted
        decisions = sum(counted.values())
        add("predictions", decisions - self._asked)
        add("watched", self._asked)
        self._asked = 0
        add("decisions", decisions)
        add("refusals", decisions - counted.pop("", 0))
        for reason, count in counted.items():
            add(COUNTER_OF[reason], count)
        counted.clear()


class _Executor(executor_stage.Executor):
    """The executor without looks at a kill switch that nobody else can reach, and without what its journal would need
    if it were kept."""

    def _look(self) -> None:
        pass

    def _look_for_reduction(self) -> None:
        pass

    def _keep_configuration(self) -> None:
        pass


class Desk:
    """The executor, with a paper venue and a journal in memory, on recorded time.

    `books` shows the market as of the line that was told last, `clock` is moved by this."""

    def __init__(self, config: Config, clock: ManualClock, books: Books, latency_ns: int = 0,
                 journal: Journal | None = None, gateway: Paper | None = None) -> None:
        self.telemetry = Telemetry.private("executor", executor_stage.COUNTERS, executor_stage.TIMERS)
        self.gateway = gateway or create(config, clock)
        # A folder of its own: the kill switch of a live pipeline is none of a replay's, nor the reverse.
        self._folder = tempfile.TemporaryDirectory(prefix="alpha-replay-")
        self.executor = _Executor(
            config, clock, self.telemetry, LocalLink(), self.gateway, journal or Journal.private(), lambda: books,
            Path(self._folder.name), tally=_Tally(self.telemetry))
        self._clock, self._latency_ns, self._consider = clock, latency_ns, self.executor.consider
        self._waiting: deque[tuple[int, list[Prediction]]] = deque()  # by the time of their decision
        self._next_ns = _NEVER  # of whatever comes first
        self._turn_ns = 0
        self.executor.on_start()
        self.executor.do_work()  # it has long been there when the first tick comes
        self._settle()

    def before(self, now_ns: int) -> None:
        """All that happens before `now_ns`, when a line will change the market. About 100 ns where nothing does."""
        while self._next_ns < now_ns:
            self._step()

    def after(self, now_ns: int, predictions: Sequence[Prediction]) -> None:
        """A line brought ticks, at `now_ns`, and with them these predictions."""
        if self.gateway.resting:
            self._clock.set(now_ns)
            self.executor.do_work()
            self._settle()
        if predictions:
            self._waiting.append((now_ns + self._latency_ns,
                                  predictions if len(predictions) == 1 else _newest(predictions)))
            decides = self._waiting[0][0]
            if decides < self._next_ns:
                self._next_ns = decides
        while self._next_ns <= now_ns:
            self._step()

    def finish(self) -> None:
        """All that is still under way, and a last look at what is held."""
        self.before(_NEVER)
        self._clock.set(self._clock.now_ns + _TURN_NS)
        self.executor.do_work()

    def close(self) -> None:
        self.gateway.close()  # what rests is nobody's any more
        self.executor.on_close()
        self._folder.cleanup()

    def _step(self) -> None:
        """What comes first: an arrival at the venue, or a decision."""
        now = self._next_ns
        self._clock.set(now)
        if self.gateway.arrives_ns == now:
            self.executor.do_work()
        else:
            for prediction in self._waiting.popleft()[1]:
                self._consider(prediction)
            if now >= self._turn_ns:
                self._turn_ns = now + _TURN_NS
                self.executor.do_work()
        self._settle()

    def _settle(self) -> None:
        arrives, decides = self.gateway.arrives_ns, self._waiting[0][0] if self._waiting else _NEVER
        self._next_ns = arrives if 0 < arrives < decides else decides


def _newest(predictions: Sequence[Prediction]) -> Sequence[Prediction]:
    """Of each symbol the newest, as live, where all of a line arrive together."""
    newest: dict[int, Prediction] = {}
    for prediction in predictions:
        newest[prediction.symbol] = prediction
    return list(newest.values())


class Replay:
    """The stages of one pipeline, composed. `step` takes a line and returns the predictions that it caused; each is
    decided `latency_ns` later. `finish` after the last line decides what is left."""

    def __init__(self, config: Config, latency_ns: int = 0, journal: Journal | None = None) -> None:
        self.config = config
        self.clock = ManualClock()
        symbols = config.market.symbols
        venue = venues.create(config.market.venue, symbols)
        self.books = Books.private(symbols, config.ring.ticks)
        self.books.epoch = 1  # nothing of this run depends on when it is made
        features = features_wanted(config)
        self.rows = Rows.private(symbols, features.labels, config.ring.rows, self.books.epoch)
        self.market = Market(venue, self.books, self.clock, seed=0)
        self.player = Player(self.market, venue, self.clock)
        self._inbox, self._work = LocalLink(), LocalLink()  # feature's: ticks and credits; the worker's
        self._predictions = LocalLink()
        telemetry = {name: Telemetry.private(name, module.COUNTERS, module.TIMERS) for name, module in (
            ("feature", feature_stage), ("inference-0", inference_stage))}
        settings = config.inference
        model = Model.configured(config.path(settings.model), settings)
        self.feature = feature_stage.Feature(
            config, self.clock, telemetry["feature"], self._inbox, lambda worker: self._work, features,
            lambda: self.books, lambda books: self.rows)
        self.worker = inference_stage.Inference(
            config, self.clock, telemetry["inference-0"], 0, self._work, self._inbox, self._predictions, model,
            lambda: self.rows)
        self.desk = Desk(config, self.clock, self.books, latency_ns, journal)
        self.executor = self.desk.executor
        self.overview = Overview("replay")
        self.overview.stages = {**telemetry, "executor": self.desk.telemetry}
        for stage in (self.feature, self.worker):
            while not stage.on_start():
                stage.do_work()

    def step(self, recv_ns: int, text: bytes) -> list[Prediction]:
        """One line of a recording, which came at `recv_ns`, Unix ns."""
        self.desk.before(recv_ns)
        self.player.play(recv_ns, text)
        refs = self.market.take_refs()
        if not refs:
            return []  # nothing has changed for anybody
        self._inbox.send(encode(refs))
        found: list[Prediction] = []
        while self.feature.do_work() or self.worker.do_work():
            while (message := self._predictions.recv()) is not None:
                found += decode(message, Prediction)
        self.desk.after(recv_ns, found)
        return found

    def finish(self) -> None:
        """The recording is at its end."""
        self.desk.finish()

    def summary(self) -> dict[str, Any]:
        """The counts of `alpha run`, without latencies, which mean nothing on a manual clock."""
        self.feature.count()
        told = self.overview.summary()
        told.pop("latency_us")
        counts = self.market.counts
        return {**told, "missed": self.player.missed, **{name: getattr(counts, name) for name in (
            "frames", "ticks", "gaps", "malformed", "quote_checks", "quote_mismatches")}}

    def close(self) -> None:
        self.desk.close()
        for stage in (self.worker, self.feature):
            stage.on_close()


def configure(config: Config, paths: tuple[str, ...]) -> Config:
    """`config` for these recordings: their venue and symbols, a paper book, and one worker that is always idle. Raises
    ConfigError where they are of several connections, of which each has a fate of its own."""
    told = captures.describe(paths)
    heads = [captures.header(files[0]) for files in captures.order(paths)]
    if len({head and head.symbols for head in heads}) > 1:
        raise ConfigError("captures of several connections cannot be replayed together",
                          where="; ".join(f"{len(head.symbols)} symbols from {head.symbols[0]}" if head else "foreign"
                                          for head in heads), remedy="replay those of each feed by themselves")
    return dataclasses.replace(
        config, feeds={},
        decision=dataclasses.replace(config.decision,
                                     long_only=config.decision.long_only or config.executor.gateway == SPOT_GATEWAY),
        market=dataclasses.replace(config.market, venue=told.venue, symbols=told.symbols, live=False),
        executor=dataclasses.replace(config.executor, gateway="paper"))


def record(replay: Replay, prediction: Prediction, with_rows: bool) -> dict[str, Any]:
    """A prediction for a file: named by what the venue named, so that runs can be compared."""
    fields = {"symbol": replay.config.market.symbols[prediction.symbol], "kind": KIND_NAMES[prediction.kind],
              "venue_id": prediction.venue_id, "seq": prediction.seq, "event_ns": prediction.event_ns,
              "p_up": prediction.p_up, "p_down": prediction.p_down}
    if with_rows:
        fields["row"] = replay.rows.window(prediction.symbol, prediction.seq, 1)[0].tolist()
    return fields


@click.command()
@click.argument("paths", metavar="CAPTURE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False),
                callback=lambda context, parameter, paths: captures.without_manifests(paths))
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--model", help="ONNX model to use.")
@click.option("--out", type=click.File("w"), help="Write each prediction here, one JSON object a line (- for stdout).")
@click.option("--rows", is_flag=True, help="With --out: the feature row, too.")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many lines.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def replay(paths: tuple[str, ...], path: str | None, model: str | None, out: TextIO | None, rows: bool,
           limit: int | None, as_json: bool) -> None:
    """Run recordings through the same stages in one process; deterministic.

    Orders go to a paper book of its own; nothing is journaled to disk and nothing live is touched. A CAPTURE is a file
    of `alpha record`, of any venue, or a foreign recording of Binance.

    \b
    Examples
      alpha replay day1.gz day2.gz --out predictions.jsonl --rows
    """
    with exit_on_error():
        config = configure(load(path), paths)
        if model:
            config = dataclasses.replace(config, inference=dataclasses.replace(
                config.inference, model=str(Path(model).resolve())))
        run = Replay(config)
        start = last = time.monotonic()
        count = 0
        with contextlib.closing(run):
            for recv_ns, text in captures.tape(paths):
                found = run.step(recv_ns, text)
                count += 1
                if out is not None:
                    for prediction in found:
                        out.write(json.dumps(record(run, prediction, rows)) + "\n")
                if count % 1000 == 0 and time.monotonic() - last > 1:
                    last = time.monotonic()
                    print(f"{count:,} lines, {count / (last - start):,.0f}/s", file=sys.stderr)
                if count == limit:
                    break
            run.finish()
            seconds = time.monotonic() - start
            told = run.summary()
        if as_json:
            # No wall time in it: the same input gives the same bytes.
            print(json.dumps(told, indent=1))
        else:
            print(f"{count:,} lines in {seconds:.1f} s ({count / seconds:,.0f}/s)", file=sys.stderr)
            for name, value in told.items():
                print(f"  {name:<18} {value}")
