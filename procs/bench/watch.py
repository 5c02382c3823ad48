"""What it costs the pipeline that people look at it: latency with nobody, and with ten pages and a scraper.

One start of the stages and of the monitor; rounds in turns, so that a machine that drifts drifts for both. Where
$ALPHA_BENCH_BROWSER names a Chromium, the pages are tabs of it: the one in front draws, those behind rest.
"""

import contextlib
import json
import os
import socket
import subprocess
import time

import numpy as np

from common.overview import Overview
from procs.bench.bed import TIMER, cpu_s, instance_of, latency_us
from procs.bench.live import WARM_RATE, Run, playing
from procs.bench.model import describe
from procs.bench.ours import Ours
from procs.bench.source import Source
from procs.bench.table import Goal, Part, latency_line

PAGES = 10
BROWSER = "ALPHA_BENCH_BROWSER"  #: a Chromium whose tabs are to be the pages
_LOADED = 40  # snapshots after which the tab in front has been drawn
_STATES = ("nobody looks", f"{PAGES} pages and a scrape a second")


def watch(run: Run) -> Part:
    """Tick to decision, without pages and with them."""
    browser = os.environ.get(BROWSER, "")
    part = Part("watch", f"latency of ours at {run.rate:,.0f} ticks/s with {PAGES} {'tabs' if browser else 'pages'} "
                f"open at `alpha monitor` and /metrics scraped once a second, against nobody looking; {2 * run.rounds} "
                "rounds in turns")
    warm = run.warm_frames(describe(run.model)["window"])
    turns = [state for turn in range(2 * run.rounds) for state in (_STATES if turn % 2 else reversed(_STATES))]
    tape = run.tape(warm + round(len(turns) * run.seconds * run.rate) + 100, run.rate)
    found: dict[str, list[np.ndarray]] = {state: [] for state in _STATES}
    counted = {state: {"frames": 0, "decisions": 0, "skipped": 0, "losses": 0, "taken": 0, "snapshots": 0, "bytes": 0,
                       "scrapes": 0, "monitor_cpu_s": 0.0, "seconds": 0.0} for state in _STATES}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with playing(run, "ours", tape, run.settings(run.model, MONITOR__PAGE=True, MONITOR__PORT=port)) as (source, ours):
        monitor = run.bed.spawn("procs.cli", "monitor", environment=ours.environment)
        overview = Overview(instance_of(ours.environment))
        run.bed.until(lambda: overview.refresh() or overview.ready("monitor"), "the start of the monitor", 120)
        source.play(warm / WARM_RATE, WARM_RATE)
        ours.settle()
        for turn, state in enumerate(turns):
            run.say(f"watch, {turn + 1} of {len(turns)}: {state}")
            with contextlib.ExitStack() as stack:
                lookers = None
                if state == _STATES[1]:
                    lookers = run.bed.spawn("procs.bench.lookers", str(port), str(PAGES), *filter(None, [browser]),
                                            environment=ours.environment, talks=True)
                    stack.callback(run.bed.stop, [lookers])
                    if not lookers.stdout.readline():
                        run.bed.check()
                    run.bed.until(lambda: overview.get("monitor", "page_clients") == PAGES, "the pages", 120)
                    if browser:  # to load them takes more than to look at them
                        shown = overview.get("monitor", "page_snapshots") + _LOADED
                        run.bed.until(lambda: overview.get("monitor", "page_snapshots") >= shown, "the browser", 120)
                told = _measure(run, source, ours, monitor, overview, found[state])
                if lookers is not None:
                    lookers.stdin.write("\n")
                    lookers.stdin.flush()
                    told |= json.loads(lookers.stdout.readline() or "{}")
                    run.bed.check()
                for name, value in told.items():
                    counted[state][name] += value
        run.bed.stop([monitor])
    for state, many in found.items():
        told, by_round = counted[state], [latency_us(one) for one in many]
        part.figures[state] = {**latency_us(sum(many)), **told, "p50_by_round": [one["p50"] for one in by_round],
                               "p99_by_round": [one["p99"] for one in by_round]}
        part.lines.append(latency_line(state, part.figures[state], f"decided of {told['frames']:,}, "
                                       f"{told['skipped']:,} skipped, {told['losses']:,} lost"))
    looked = counted[_STATES[1]]
    came = "" if browser else f" ({looked['snapshots']:,} came, {looked['bytes'] / 1e6:,.1f} MB)"
    part.lines.append(f"{looked['taken']:,} snapshots were taken for them{came}, {looked['scrapes']:,} scrapes came; "
                      "the monitor used " + " and ".join(
                          f"{100 * told['monitor_cpu_s'] / max(told['seconds'], 1e-9):.1f} % of a core ({state})"
                          for state, told in counted.items()))
    if not looked["taken"] or not looked["scrapes"]:
        part.error = "the pages got nothing, so nothing was measured: is the machine busy?"
    for key in ("p50", "p99"):
        # Rounds are neighbours in time: the median of their ratios is spared what befell one of them.
        ratios = [later / earlier for earlier, later in zip(*(
            part.figures[state][f"{key}_by_round"] for state in _STATES)) if earlier]
        if ratios:
            part.figures[f"{key}_ratios"] = [round(ratio, 3) for ratio in ratios]
            part.goals.append(Goal(f"{key} with pages against nobody, median of rounds", float(np.median(ratios)), 1.05,
                                   " x"))
    pages = "of the tabs here one is in front" if browser else "the pages here read and draw nothing"
    part.hides = (f"what a browser takes that runs on the same machine and does not stand back: {pages}; they and the "
                  "monitor run when a core is idle")
    return part


def _measure(run: Run, source: Source, ours: Ours, monitor: subprocess.Popen, overview: Overview,
             found: list[np.ndarray]) -> dict[str, float]:
    """One round: its histogram goes to `found`, its counts are returned."""
    before, decided, used, began = ours.counts(), ours.telemetry.histogram(TIMER), cpu_s([monitor]), time.monotonic()
    taken = overview.get("monitor", "page_snapshots")
    told = source.play(run.seconds, run.rate)
    after, _ = ours.settle()
    found.append(ours.telemetry.histogram(TIMER) - decided)
    return {"frames": told["frames"], "seconds": time.monotonic() - began,
            "monitor_cpu_s": cpu_s([monitor])[0] - used[0], "taken": overview.get("monitor", "page_snapshots") - taken,
            **{name: after[name] - before[name] for name in ("decisions", "skipped", "losses")}}
