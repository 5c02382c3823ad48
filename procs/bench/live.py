"""The parts that run processes side by side: latency, throughput, overload, placement, taps.

Everyone is fed by the same source from the same tape, one after the other in rounds, so that a machine that drifts
drifts for all. Nobody else of the benchmark is alive while one is measured: what keeps cores awake for ours would
help the others too.
"""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import numpy as np

from common.config import Placement
from common.features.choice import DEFAULT
from procs.bench.article import Article
from procs.bench.bed import TIMER, Bed, cpu_s, latency_us, memory_mb, settled
from procs.bench.floor import Floor
from procs.bench.model import dense, describe
from procs.bench.ours import Ours, cpu_us_per_tick
from procs.bench.source import Source, Tape, backlog
from procs.bench.table import Goal, Part, latency_line

SYSTEMS: dict[str, Callable[..., Any]] = {"floor": Floor, "article": Article, "ours": Ours}
WARM_RATE = 2000.0
_BURST = 10_000.0  # frames/s for warming up where latency does not matter
_MOST = 8000.0  # frames/s offered in overload: ten times what a model of 1.25 ms can take


@dataclass
class Run:
    """What the parts share."""

    bed: Bed
    say: Callable[[str], None]
    symbols: list[str]
    model: Path
    wide_model: Path  #: of 100-row windows
    workers: int
    rate: float
    rounds: int
    seconds: float  #: of one measurement
    overload_s: float
    tapes: dict[tuple, Tape] = field(default_factory=dict)

    def tape(self, frames: int, rate: float, symbols: int | None = None) -> Tape:
        """A tape of at least so many frames, recorded once."""
        names = self.symbols[:symbols]
        known = self.tapes.get((rate, len(names)))
        if known is None or known.frames < frames:
            self.say(f"recording {frames:,} frames")
            path = self.bed.folder / f"tape{len(self.tapes)}"
            known = self.tapes[rate, len(names)] = Tape.record(path, names, frames, rate)
        return known

    def warm_frames(self, window: int, symbols: int | None = None) -> int:
        """Enough for every symbol to be warm, though which of them moves is drawn by lot."""
        return int(1.2 * (DEFAULT.warm_up + window) * len(self.symbols[:symbols])) + 500

    def settings(self, model: Path, **more: Any) -> dict[str, Any]:
        return {"MARKET__SYMBOLS": self.symbols, "INFERENCE__MODEL": str(model), "INFERENCE__WORKERS": self.workers,
                **more}


@contextlib.contextmanager
def playing(run: Run, name: str, tape: Tape, settings: dict[str, Any], **options: Any) -> Iterator[tuple[Source, Any]]:
    """A source and a system that is subscribed to it and ready."""
    environment = run.bed.environment(name, **settings)
    source = Source(run.bed, tape, environment)
    system = None
    try:
        system = SYSTEMS[name](run.bed, source.url, environment, **options)
        source.await_subscriber()
        system.ready()
        yield source, system
    finally:
        if system is not None:
            system.stop()
        source.stop()


@dataclass
class Measured:
    """One interval of one system. Histograms are int64 buckets of ns."""

    frames: int
    decided: np.ndarray
    stations: dict[str, np.ndarray]
    cpu: dict[str, float]  #: us per tick, by process
    late_us: dict[str, float]  #: of the source
    in_force: dict[str, Any]


def measure(run: Run, name: str, tape: Tape, settings: dict[str, Any], seconds: float) -> Measured:
    """Latency over `seconds` at the run's rate, after a warm-up."""
    window = describe(Path(settings["INFERENCE__MODEL"]))["window"]
    with playing(run, name, tape, settings) as (source, system):
        source.play(run.warm_frames(window) / WARM_RATE, WARM_RATE)
        settled(lambda: system.telemetry.get("decisions"))
        before, cpu = system.telemetry.histogram(TIMER), cpu_s(system.processes)
        stations = _histograms(system)
        told = source.play(seconds, run.rate)
        settled(lambda: system.telemetry.get("decisions"))
        run.bed.check()
        now = _histograms(system)
        return Measured(told["frames"], system.telemetry.histogram(TIMER) - before,
                        {key: now[key] - stations[key] for key in now},
                        cpu_us_per_tick(system, cpu, told["frames"]), told["late_us"],
                        system.in_force() if name == "ours" else {})


def latency(run: Run) -> Part:
    model = describe(run.model)
    part = Part("latency", f"frame received to order decided, {run.rate:,.0f} ticks/s, model {model['file']}, window "
                f"{model['window']}, {run.rounds} rounds of {run.seconds:g} s each")
    tape = run.tape(run.warm_frames(model["window"]) + round(run.seconds * run.rate) + 100, run.rate)
    found: dict[str, list[Measured]] = {name: [] for name in SYSTEMS}
    for turn in range(run.rounds):
        for name in SYSTEMS:
            run.say(f"latency, round {turn + 1} of {run.rounds}: {name}")
            found[name].append(measure(run, name, tape, run.settings(run.model), run.seconds))
    pooled = {name: latency_us(sum(one.decided for one in many)) for name, many in found.items()}
    for name, many in found.items():
        medians, frames = [latency_us(one.decided)["p50"] for one in many], sum(one.frames for one in many)
        part.lines.append(latency_line(name, pooled[name],
                                       f"decided of {frames:,}; p50 by round {min(medians):,.0f} to "
                                       f"{max(medians):,.0f} us"))
        part.figures[name] = {**pooled[name], "frames": frames, "p50_by_round": medians,
                              "source_late_us": [one.late_us for one in many],
                              "cpu_us_per_tick": _mean([one.cpu for one in many])}
    ours = found["ours"]
    stations = {key: latency_us(sum(one.stations[key] for one in ours)) for key in ours[0].stations if key != TIMER}
    part.figures["ours"] |= {"stations": stations, "in_force": ours[-1].in_force}
    part.lines += [latency_line(f"  ours: {key}", measured) for key, measured in stations.items() if measured["count"]]
    part.lines += [f"processor time per tick, {name}: " + ", ".join(
        f"{who} {us:,.0f} us" for who, us in part.figures[name]["cpu_us_per_tick"].items()) for name in SYSTEMS]
    part.lines.append("source late by p99 " + ", ".join(
        f"{max(one.late_us['p99'] for one in many):,.0f} us ({name})" for name, many in found.items()))
    part.lines.append("in force for ours: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value
                                                        in ours[-1].in_force.items()).replace("'", ""))
    p50 = {name: pooled[name]["p50"] for name in SYSTEMS}
    if all(p50.values()):
        part.goals = [Goal("p50 against the floor", p50["ours"] / p50["floor"], 1.4, " x"),
                      Goal("p50 against the article's", p50["ours"] / p50["article"], 0.5, " x"),
                      Goal("p99", pooled["ours"]["p99"], 500.0, " us")]
    part.hides = ("the way from a venue over a network, TLS, and the time a frame waits in the socket before it is "
                  "read; frames are synthetic, some 140 bytes long")
    return part


def throughput(run: Run) -> Part:
    model = describe(run.wide_model)
    part = Part("throughput", f"sustained ticks/s end to end, every tick predicted and none lost, "
                f"model {model['file']}, window {model['window']}")
    settings = run.settings(run.wide_model)
    warm = run.warm_frames(model["window"])
    step_s = run.seconds / 2
    tape = run.tape(warm + round(80_000 * min(run.seconds, 2.0)), 10_000.0)
    article = [_article_rate(run, tape, settings, warm)]
    ours, steps = _our_rate(run, tape, {**settings, "FEATURE__DISPATCH": "every"}, warm, 3 * article[0], step_s)
    article.append(_article_rate(run, tape, settings, warm))
    best = max(article)
    part.lines = [f"article                {best:,.0f}/s, the better of {article[0]:,.0f} and {article[1]:,.0f}: "
                  "its reader waits for the queue instead of dropping",
                  f"ours                   {ours:,.0f}/s, the highest of {len(steps)} rates tried at which every"
                  " tick's prediction reaches the executor, the last within 0.1 s"]
    part.lines += [f"  at {step['rate']:>9,.0f}/s        {step['verdict']}: of {step['frames']:,} ticks "
                   f"{step['decisions']:,} decided one by one, {step['superseded']:,} together with a newer one of "
                   f"their symbol; done after {step['drain_s'] * 1000:,.0f} ms, source blocked "
                   f"{step['blocked_s'] * 1000:,.0f} ms" for step in steps]
    part.figures = {"article": article, "ours": ours, "steps": steps}
    part.goals = [Goal("ticks/s against the article's", ours / best, 4.0, " x", at_least=True)]
    part.hides = ("what happens over hours; source and stages share the cores, so a venue elsewhere leaves more room; "
                  f"a step lasts {step_s:g} s")
    return part


def _article_rate(run: Run, tape: Tape, settings: dict[str, Any], warm: int) -> float:
    """Decisions per second while frames are offered as fast as they are taken, and none is dropped."""
    run.say("throughput: article")
    with playing(run, "article", tape, settings, wait=True) as (source, article):
        source.play(warm / _BURST, _BURST)
        get = article.telemetry.get
        run.bed.until(lambda: get("decisions") == get("rows"), "the article's backlog")
        before, start = get("decisions"), time.monotonic()
        frames = min(source.left, round(run.seconds * 6000))
        source.flood(frames)
        source.result(120)
        run.bed.until(lambda: get("decisions") - before >= frames, "the article's decisions")
        return frames / (time.monotonic() - start)


def _our_rate(run: Run, tape: Tape, settings: dict[str, Any], warm: int, guess: float,
              step_s: float) -> tuple[float, list[dict[str, Any]]]:
    """The highest rate at which nothing is lost: up by halves until something is, then between, within 4 %."""
    steps: list[dict[str, Any]] = []
    with playing(run, "ours", tape, settings) as (source, ours):
        source.play(warm / _BURST, _BURST)
        ours.settle()

        def holds(rate: float) -> bool:
            run.say(f"throughput: ours at {rate:,.0f}/s")
            if source.left < rate * step_s:
                source.rewind()
                source.play(warm / _BURST, _BURST)
                ours.settle()
            steps.append(_step(source, ours, rate, min(step_s, source.left / rate)))
            run.bed.check()
            return steps[-1]["verdict"] == "holds"

        low, high = 0.0, guess
        while holds(high) and len(steps) < 6:
            low, high = high, high * 1.5
        while low < high * 0.96 and len(steps) < 12:
            middle = (low + high) / 2 if low else high / 2
            if holds(middle):
                low = middle
            else:
                high = middle
    return low, steps


def _step(source: Source, ours: Ours, rate: float, seconds: float) -> dict[str, Any]:
    before = ours.counts()
    told = source.play(seconds, rate)
    after, drain_s = ours.settle()
    grown = {key: after[key] - before[key] for key in after}
    arrived = grown["decisions"] + grown["superseded"]
    whole = arrived == grown["ticks"] == told["frames"] and not grown["losses"]
    on_time = told["seconds"] < 1.03 * seconds and drain_s < 0.1
    verdict = "holds" if whole and on_time else "loses" if not whole else "falls behind"
    return {"rate": rate, "verdict": verdict, "drain_s": round(drain_s, 3), **told, **grown}


def overload(run: Run) -> Part:
    """Ten times more than a slow model can take, from one symbol and from all."""
    slow = dense(run.bed.folder / "slow.onnx", hidden=512, layers=120)
    part = Part("overload", f"ten times what a slow model can take, newest wins, {run.overload_s:g} s, one worker")
    for count in (1, len(run.symbols)):
        run.say(f"overload: {count} of {len(run.symbols)} symbols")
        figures = part.figures[f"{count} symbols"] = _overloaded(run, slow, count)
        age, inference = figures["age_us"], figures["inference_us"]
        part.lines += [
            latency_line(f"age, {count} symbol{'s' if count > 1 else ''}", age, f"inference p50 "
                         f"{inference['p50']:,.0f} us, offered {figures['rate']:,.0f}/s, "
                         f"{figures['rate'] * inference['p50'] / 1e6:.1f} times what it can take"),
            f"  offered {figures['offered']:,} = dispatched {figures['dispatched']:,} + skipped {figures['skipped']:,} "
            f"+ waiting {figures['waiting']:,}: {'exact' if figures['unaccounted'] == 0 else figures['unaccounted']}; "
            f"socket: source blocked {figures['blocked_s'] * 1000:,.0f} ms, most bytes under way "
            f"{figures['most_backlog']:,}; memory {figures['memory_mb'][0]:,.1f} to {figures['memory_mb'][1]:,.1f} MB"]
        what = f"{count} symbols: " if count > 1 else "one symbol: "
        part.goals += [
            Goal(what + "p99 age less 2 x inference", age["p99"] - 2 * inference["p50"], 1000.0, " us"),
            Goal(what + "ticks not accounted for", abs(figures["unaccounted"]), 0),
            Goal(what + "source blocked", figures["blocked_s"] * 1000, 0, " ms"),
            Goal(what + "growth of memory", figures["memory_mb"][1] / figures["memory_mb"][0], 1.02, " x")]
    part.hides = "a model on a device of its own; the model here competes with the stages for the cores"
    return part


def _overloaded(run: Run, model: Path, symbols: int) -> dict[str, Any]:
    settings = run.settings(model, MARKET__SYMBOLS=run.symbols[:symbols], INFERENCE__WORKERS=1)
    warm = run.warm_frames(1, symbols)
    tape = run.tape(warm + round((run.overload_s + 2) * _MOST), _MOST, symbols)
    with playing(run, "ours", tape, settings) as (source, ours):
        source.play(warm / WARM_RATE, WARM_RATE)
        ours.settle()
        inference_us = latency_us(ours.overview.histograms()["inference"])["p50"]
        rate = min(10e6 / inference_us, _MOST)
        source.play(1.0, rate)
        ours.settle()
        before, histograms, memory = ours.counts(), ours.overview.histograms(), memory_mb(ours.processes)
        frames = source.begin(run.overload_s, rate)
        most, end = 0, time.monotonic() + run.overload_s
        while time.monotonic() < end:
            time.sleep(0.1)
            most = max(most, backlog(source.port))
        told = source.result(30)
        grown_memory = memory_mb(ours.processes)
        after, _ = ours.settle()
        grown = {key: after[key] - before[key] for key in after}
        spent = {key: value - histograms[key] for key, value in ours.overview.histograms().items()}
        unaccounted = (grown["offered"] - grown["dispatched"] - grown["skipped"] - grown["waiting"]
                       + abs(grown["offered"] - frames))
        return {"rate": rate, "age_us": latency_us(spent[TIMER]), "inference_us": latency_us(spent["inference"]),
                "stations": {key: latency_us(value) for key, value in spent.items()},
                **grown, "unaccounted": unaccounted, "blocked_s": told["blocked_s"], "late_us": told["late_us"],
                "most_backlog": most, "memory_mb": [round(memory, 2), round(grown_memory, 2)]}


def placement(run: Run) -> Part:
    """Latency of ours with each of its helps switched off."""
    part = Part("placement",
                f"latency of ours at {run.rate:,.0f} ticks/s with each help switched off, {run.rounds} rounds")
    helps = [item.name for item in dataclasses.fields(Placement) if item.type is bool]
    variants: dict[str, dict[str, Any]] = {
        "all on": {}, **{f"without {key}": {f"PLACEMENT__{key.upper()}": False} for key in helps},
        "all off": {f"PLACEMENT__{key.upper()}": False for key in helps}}
    window = describe(run.model)["window"]
    tape = run.tape(run.warm_frames(window) + round(run.seconds * run.rate) + 100, run.rate)
    found: dict[str, list[np.ndarray]] = {name: [] for name in variants}
    for turn in range(run.rounds):
        for name, off in variants.items():
            run.say(f"placement, round {turn + 1} of {run.rounds}: {name}")
            found[name].append(measure(run, "ours", tape, run.settings(run.model, **off), run.seconds).decided)
    for name, many in found.items():
        part.figures[name] = latency_us(sum(many))
        part.lines.append(latency_line(name, part.figures[name]))
    part.hides = "what the same helps give on a machine with other sleep states, or with more cores"
    return part


def taps(run: Run) -> Part:
    """Latency and counts of ours without a tap, with one that listens, and with one that is stopped."""
    states = ("no tap", "a tap that listens", "a tap that is stalled")
    part = Part("taps", f"latency of ours at {run.rate:,.0f} ticks/s with `alpha tap predictions` beside it, one "
                f"start of the stages, {2 * run.rounds} rounds in turns")
    warm = run.warm_frames(describe(run.model)["window"])
    turns = [state for turn in range(2 * run.rounds) for state in (states if turn % 2 else reversed(states))]
    tape = run.tape(warm + round(len(turns) * run.seconds * run.rate) + 100, run.rate)
    found: dict[str, list[np.ndarray]] = {state: [] for state in states}
    counted = {state: {"frames": 0, "decisions": 0, "skipped": 0, "losses": 0} for state in states}
    with playing(run, "ours", tape, run.settings(run.model)) as (source, ours):
        source.play(warm / WARM_RATE, WARM_RATE)
        ours.settle()
        for turn, state in enumerate(turns):
            run.say(f"taps, {turn + 1} of {len(turns)}: {state}")
            with contextlib.ExitStack() as stack:
                if state != states[0]:
                    tap = run.bed.spawn("procs.cli", "tap", "predictions", environment=ours.environment)
                    stack.callback(run.bed.stop, [tap])
                    time.sleep(1.0)  # it attaches; the stages look for listeners ten times a second
                    run.bed.check()
                    if state == states[2]:
                        tap.send_signal(signal.SIGSTOP)
                        stack.callback(tap.send_signal, signal.SIGCONT)
                before, decided = ours.counts(), ours.telemetry.histogram(TIMER)
                told = source.play(run.seconds, run.rate)
                after, _ = ours.settle()
                found[state].append(ours.telemetry.histogram(TIMER) - decided)
                for name, value in counted[state].items():
                    counted[state][name] = value + (told["frames"] if name == "frames" else after[name] - before[name])
    for state, many in found.items():
        medians = [latency_us(one)["p50"] for one in many]
        part.figures[state] = {**latency_us(sum(many)), **counted[state], "p50_by_round": medians}
        part.lines.append(latency_line(state, part.figures[state], f"decided of {counted[state]['frames']:,}, "
                                       f"{counted[state]['skipped']:,} skipped, {counted[state]['losses']:,} lost; p50 "
                                       f"by round {min(medians):,.0f} to {max(medians):,.0f} us"))
    bare = part.figures[states[0]]["p50"]
    part.goals = [Goal(f"p50 with {state} against none", part.figures[state]["p50"] / bare, 1.1, " x")
                  for state in states[1:] if bare]
    part.hides = "a listener on a machine with a core to spare: here it takes its share of the two that decide"
    return part


def _histograms(system: Any) -> dict[str, np.ndarray]:
    """Of our stations, and of ingest alone: from a frame to its ref on the way."""
    if not isinstance(system, Ours):
        return {}
    return {**system.overview.histograms(), "frame to ref": system.overview.stages["ingest"].histogram("ref")}


def _mean(many: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(sum(one[key] for one in many) / len(many), 1) for key in many[0]}
