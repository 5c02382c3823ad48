"""What telemetry costs on the way of a tick: each call by itself, and those that a tick makes in each stage.

Calls are timed on a block in shared memory. How many a tick makes is counted, not estimated: the real stages are
composed in one process, on a clock that moves with a synthetic market, and what they ask of their telemetry is passed
on and counted. So the numbers of calls are those of a rate, exact, and the same at each run.
"""

import dataclasses
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.clock import ManualClock
from common.config import Config, load
from common.gateways import create
from common.journal import Journal
from common.links import LocalLink
from common.manifest import features_wanted
from common.model import Model
from common.overview import Overview
from common.ring import Books, Rows
from common.synthetic import SyntheticMarket
from common.telemetry import Telemetry
from common.watch.health import expected
from common.watch.metrics import exposition
from common.wire import STATIONS
from procs import exchange as exchange_stage
from procs import executor as executor_stage
from procs import feature as feature_stage
from procs import inference as inference_stage
from procs import ingest as ingest_stage
from procs import monitor as monitor_stage
from procs.bench.child import alone, child, tell
from procs.bench.live import Run
from procs.bench.table import Part

STAGES = {"ingest": ingest_stage, "feature": feature_stage, "inference": inference_stage, "executor": executor_stage}
RATE = 2000.0  #: ticks per second
_WARM_S, _COUNTED_S = 5.0, 5.0  # of the market
_BEGIN_NS = 10**18


class Counted:
    """Stands in for a stage's telemetry: passes everything on, and counts it. `items`: so many came with the calls that
    take several, decisions of `observe_all` and notes of `note_all`."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry, self.calls, self.items = telemetry, Counter(), Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.telemetry, name)
        if not callable(found):
            return found

        def counted(*arguments: Any) -> Any:
            self.calls[name] += 1
            if name.endswith("_all"):
                self.items[name] += np.shape(arguments[-1])[-1] if name == "observe_all" else len(arguments[0])
            return found(*arguments)

        return counted


class _Line:
    """A feed whose frames come from memory, one at each turn; in all else the real one."""

    def __init__(self, feed: Any, clock: ManualClock) -> None:
        self._feed, self._clock, self.frame = feed, clock, b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)

    def receive(self, tap: Any) -> int:
        self._feed.market.on_frame(self.frame, self._clock.monotonic_ns())
        return 1

    def work(self, now: int) -> int:
        return 0


def calls(config: Config, model: Path, rate: float = RATE, warm_s: float = _WARM_S,
          counted_s: float = _COUNTED_S) -> dict[str, Any]:
    """How often each stage calls what of its telemetry, per tick: {"ticks", "items", stage: {call: number}}; `items`
    is how many things come with one call of those that take several."""
    symbols = config.market.symbols
    config = dataclasses.replace(
        config, market=dataclasses.replace(config.market, venue="vectrade", live=False), feeds={},
        executor=dataclasses.replace(config.executor, gateway="paper"),
        inference=dataclasses.replace(config.inference, model=str(model), shadow=""))
    clock = ManualClock(_BEGIN_NS)
    told = {name: Counted(Telemetry.private(name, stage.COUNTERS, stage.TIMERS, getattr(stage, "NOTES", 0)))
            for name, stage in STAGES.items()}
    ticks, work, predictions = LocalLink(), LocalLink(), LocalLink()  # ticks and credits share feature's inbox
    columns = features_wanted(config)
    books = Books.private(symbols, config.ring.ticks)
    rows = Rows.private(symbols, columns.labels, config.ring.rows, books.epoch)
    with tempfile.TemporaryDirectory(prefix="alpha-bench-") as folder:
        ingest = ingest_stage.Ingest(ingest_stage.plan(config), clock, told["ingest"], lambda: books, ticks)
        feature = feature_stage.Feature(config, clock, told["feature"], ticks, lambda worker: work, columns,
                                        lambda: books, lambda books: rows)
        worker = inference_stage.Inference(config, clock, told["inference"], 0, work, ticks, predictions,
                                           Model.configured(model, config.inference), lambda: rows, None, LocalLink())
        executor = executor_stage.Executor(config, clock, told["executor"], predictions, create(config, clock),
                                           Journal.private(), lambda: books, Path(folder))
        for stage in (ingest, feature, worker, executor):
            while not stage.on_start():
                pass
        line = ingest.feeds[0] = _Line(ingest.feeds[0], clock)
        before: dict[str, Counter] = {}
        since = 0
        # Not each message is a tick: those are counted, too.
        for at_ns, line.frame in SyntheticMarket(symbols, 1, rate / 1.2).frames(warm_s + counted_s):
            clock.set(_BEGIN_NS + at_ns)
            if not before and at_ns >= warm_s * 1e9:
                before = {name: counted.calls.copy() for name, counted in told.items()}
                since = int(books.heads.sum())
            ingest.do_work()
            while feature.do_work() or worker.do_work():
                pass
            executor.do_work()
        ticks_counted = int(books.heads.sum()) - since
        found = {name: {what: number / ticks_counted for what, number in (counted.calls - before[name]).items()}
                 for name, counted in told.items()}
        decided = told["executor"]
        for stage in (executor, worker, feature, ingest):
            stage.on_close()
    return {"ticks": ticks_counted, "items": {what: count / decided.calls[what]
                                              for what, count in decided.items.items()}, **found}


def costs(instance: str, items: Mapping[str, float], batches: int = 200) -> dict[str, np.ndarray]:
    """ns of processor time of each call, with so many `items` where it takes several, less those of calling nothing:
    float64[2], median and best of batches."""
    def each(call: Callable[[], object], calls: int = 500) -> np.ndarray:
        ours, nothing = np.array([[_batch(call, calls), _batch(_nothing, calls)] for _ in range(batches)]).T
        return np.maximum(0.0, [np.median(ours) - np.median(nothing), ours.min() - nothing.min()])

    executor = Telemetry.create(instance, "executor", executor_stage.COUNTERS, executor_stage.TIMERS,
                                executor_stage.NOTES)
    try:
        spans = np.random.default_rng(1).integers(1_000, 1_000_000, (
            len(STATIONS), max(1, round(items.get("observe_all", 1)))))
        notes = [(1, 0, "decisions", 0.5, 0.5)] * max(1, round(items.get("note_all", 1)))
        words = {"waiting_for": "", "cores": [1], "niceness": 0, "gateway": "paper", "state": "ACTIVE", "why": ""}
        several = each(lambda: executor.observe_all(STATIONS, spans), 20)
        one = each(lambda: executor.observe_all(("tick_to_decision",), spans[:1]), 20)
        return {
            "add": each(lambda: executor.add("decisions")),
            "set": each(lambda: executor.set("halted", 0)),
            "get": each(lambda: executor.get("halted")),
            "observe": each(lambda: executor.observe("ack", 123_456)),
            "observe_all": (several + one) / 2,  # the executor makes them in pairs: all stations, and the whole way
            "note_all": each(lambda: executor.note_all(notes), 20),
            "tell": each(lambda: executor.tell(words), 20),
            "told": each(executor.told, 20)}
    finally:
        executor.close()


def _batch(call: Callable[[], object], calls: int) -> float:
    began = time.thread_time_ns()
    for _ in range(calls):
        call()
    return (time.thread_time_ns() - began) / calls


def _nothing() -> None:
    pass


def scrape(instance: str, config: Config, scrapes: int = 50) -> dict[str, float]:
    """CPU ms of one exposition of a whole pipeline, p50, and its bytes."""
    modules = {**STAGES, "exchange": exchange_stage, "monitor": monitor_stage}
    blocks: list[Telemetry] = []
    try:
        for name in (*expected(config), "monitor"):
            stage = modules[name.partition("-")[0]]
            blocks.append(Telemetry.create(instance, name, stage.COUNTERS, getattr(stage, "TIMERS", ())))
        overview = Overview(instance)
        overview.refresh()
        spent, size = [], 0
        for _ in range(scrapes):
            began = time.process_time_ns()
            size = len(exposition(overview, config))
            spent.append((time.process_time_ns() - began) / 1e6)
        return {"cpu_ms": statistics.median(spent), "best_ms": min(spent), "bytes": size}
    finally:
        for block in blocks:
            block.close()


def measure(model: str) -> dict[str, Any]:
    """All of it, for the process that `local` starts."""
    config = load()
    found = calls(config, Path(model))
    ns = costs(config.instance.name, found["items"])
    stages = {}
    for name in STAGES:
        unknown = set(found[name]) - set(ns)
        if unknown:
            raise SystemExit(f"nobody has timed {', '.join(sorted(unknown))} of telemetry")
        stages[name] = {"calls_per_tick": {what: round(number, 4) for what, number in sorted(found[name].items())},
                        **_both(sum(number * ns[what] for what, number in found[name].items()))}
    return {"rate": RATE, "ticks": found["ticks"], "items": found["items"],
            "ns": {what: _both(spent) for what, spent in ns.items()}, "stages": stages,
            "scrape": scrape(config.instance.name, config)}


def _both(ns: np.ndarray) -> dict[str, float]:
    return {"p50_ns": round(float(ns[0]), 1), "best_ns": round(float(ns[1]), 1)}


def telemetry(run: Run) -> Part:
    """The part of the benchmark."""
    part = Part("telemetry", f"what telemetry costs, at {RATE:,.0f} ticks/s; processor time, p50 and best of batches")
    run.say("telemetry")
    told = child(run, __name__, str(run.model))
    items = told["items"]

    def spent(what: str, us: bool = False) -> str:
        one = told["ns"][what]
        return f"{what} {one['p50_ns'] / 1e3:.1f} ({one['best_ns'] / 1e3:.1f}) us" if us else (
            f"{what} {one['p50_ns']:.0f} ({one['best_ns']:.0f}) ns")

    part.lines = ["a call: " + ", ".join(map(spent, ("add", "set", "get", "observe"))),
                  f"of several: {spent('observe_all', True)} for {items.get('observe_all', 0):.0f} decisions, "
                  f"{spent('note_all', True)} for {items.get('note_all', 0):.0f} refusals; {spent('tell', True)}"]
    for name, stage in told["stages"].items():
        made = ", ".join(f"{what} {number:.3g}" for what, number in stage["calls_per_tick"].items())
        part.lines.append(f"{name:<9} {stage['p50_ns']:>6,.0f} ({stage['best_ns']:,.0f}) ns a tick: {made}")
    part.lines.append(f"one scrape of everything: {told['scrape']['cpu_ms']:.1f} ({told['scrape']['best_ms']:.1f}) ms, "
                      f"{told['scrape']['bytes'] / 1000:,.0f} kB; by the one who looks, no stage takes part")
    part.figures = told
    part.hides = "what else of a turn is spent for telemetry, such as taking differences of stamps; cold caches"
    return part


if __name__ == "__main__":
    alone()
    tell(measure(sys.argv[1]))
