"""bench: the figures that we hold ourselves to, measured beside the floor and the article's architecture.

    source.py    one WebSocket server that plays a tape by schedule: it feeds everyone
    floor.py     the cheapest thing of the pipeline's shape
    article.py   the architecture of the article as it stands
    ours.py      the real stages
    live.py      latency, throughput, overload, placement, taps
    local.py     frames, features, backtest, start
    watch.py     what it costs that people look; lookers.py: pages without a browser
    decision.py  what a decision costs, and the write of its order
    telemetry.py what telemetry costs
    hft.py       hftbacktest on the same recordings, where an interpreter has it
    bed.py       processes and what they leave; table.py: figures, goals, machine; model.py: models to measure with
"""

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable

import click

from common.config import load
from common.errors import ConfigError
from common.stage import exit_on_error

DEFAULT = ("latency", "throughput", "overload", "decision", "frames", "features", "backtest", "start")
PARTS = (*DEFAULT, "placement", "taps", "telemetry", "watch")
_ROOT = Path(__file__).resolve().parents[2]
_SHARED = _ROOT.parent / "shared" / "data"  # recordings beside the checkout


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--only", "names", multiple=True, type=click.Choice(PARTS), help="Run this part only; may be repeated.")
@click.option("--quick", is_flag=True, help="A second of each: shows that it works, proves nothing.")
@click.option("--long", is_flag=True, help="60 s of overload, and twice as long for latency.")
@click.option("--placement", "with_placement", is_flag=True, help="Also: what pinning and staying awake give.")
@click.option("--taps", "with_taps", is_flag=True, help="Also: what a tap costs that listens, and one that stalls.")
@click.option("--rate", type=click.FloatRange(100, 20_000), default=2000.0, show_default=True,
              help="Ticks/s for latency.")
@click.option("--rounds", type=click.IntRange(1, 100), help="Rounds of latency (default 3).")
@click.option("--workers", type=click.IntRange(1, 64),
              help="Inference workers (default: one less than there are cores; the floor is one chain, too).")
@click.option("--model", type=click.Path(exists=True, dir_okay=False), help="Small model, for latency.")
@click.option("--recordings", envvar="ALPHA_RECORDINGS", type=click.Path(file_okay=False),
              help="Folder with recorded usdm_*.gz files ($ALPHA_RECORDINGS).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(path: str | None, names: tuple[str, ...], with_placement: bool, with_taps: bool,
          as_json: bool, **options: Any) -> None:
    """Measure this installation on this machine, beside the floor and the article's architecture.

    \b
    latency     frame received to order decided            throughput  sustained ticks/s, none lost
    overload    ten times what a slow model can take       frames      validated book updates/s
    features    history through the features               backtest    raw capture through everything
    start       `alpha run` to its first decision          decision    prediction to order at the gateway
    placement   (with --placement)                         taps        (with --taps)
    telemetry   (with --only telemetry)                    watch       (with --only watch)

    Leave the machine alone meanwhile: everything here is about waking up in time. Takes four minutes on two cores.
    Starts instances of its own, in a temporary folder, and leaves nothing.

    \b
    Examples
      alpha bench
      alpha bench --quick
      alpha bench --only latency --only frames --json
    """
    with exit_on_error():
        from procs.bench.bed import Bed
        from procs.bench.table import Others, Part, machine, machine_line

        extra = {"placement": with_placement, "taps": with_taps}
        wanted = [name for name in PARTS if name in (names or DEFAULT) or extra.get(name)]
        told = {"command": shlex.join(["alpha", *sys.argv[1:]]), "machine": machine(), "quick": options["quick"]}
        say, show = _progress(), (lambda text: None) if as_json else (lambda text: print(text, flush=True))
        show(machine_line(told["machine"]) + "\n")
        began, parts = time.monotonic(), []
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            with Bed(path) as bed:
                measuring = _parts(bed, say, path, **options)
                for name in wanted:
                    others = Others()
                    part = _attempt(name, measuring[name], Part)
                    part.others = others.cores()
                    parts.append(part)
                    say("")
                    show(part.text() + "\n")
        except KeyboardInterrupt:
            say("interrupted; everything has been stopped\n")
            sys.exit(130)
        told |= {"seconds": round(time.monotonic() - began, 1), "parts": {part.name: part.tree() for part in parts}}
        goals = [goal for part in parts for goal in part.goals]
        if as_json:
            print(json.dumps(told, indent=1))
        show(f"{told['command']}: {sum(goal.met for goal in goals)} of {len(goals)} goals met, "
             f"{told['seconds']:.0f} s. All of it on one machine over loopback: no network, no venue, no TLS."
             + (" --quick proves nothing." if options["quick"] else ""))
        sys.exit(1 if any(part.error for part in parts) else 0)


def _parts(bed, say, path, *, quick, long, rate, rounds, workers, model, recordings) -> dict[str, Callable]:
    """The parts, ready to be called."""
    from procs.bench import decision, live, local
    from procs.bench.model import dense
    from procs.bench.telemetry import telemetry
    from procs.bench.watch import watch

    config = load(path)
    small = Path(model).resolve() if model else config.path(config.inference.model)
    if not small.exists():
        raise ConfigError("there is no model to measure with", where=f"inference.model={small}",
                          remedy="name one with --model")
    if recordings and not local.recorded(recordings):
        raise ConfigError("no recordings to measure with", where=f"{recordings}: no {local.FILES}",
                          remedy="leave --recordings out to measure with synthetic frames")
    folder = recordings or (str(_SHARED) if _SHARED.is_dir() else "")
    wide = _ROOT / "models" / "bench_w100.onnx"
    run = live.Run(
        bed, say, list(config.market.symbols), small,
        wide if wide.exists() else dense(bed.folder / "wide.onnx", window=100),
        workers or max(1, len(os.sched_getaffinity(0)) - 1), rate, rounds or (1 if quick else 3),
        seconds=1.0 if quick else 10.0 if long else 5.0, overload_s=2.0 if quick else 60.0 if long else 20.0)
    return {"latency": lambda: live.latency(run), "throughput": lambda: live.throughput(run),
            "overload": lambda: live.overload(run), "placement": lambda: live.placement(run),
            "decision": lambda: decision.decision(run),
            "taps": lambda: live.taps(run), "telemetry": lambda: telemetry(run), "watch": lambda: watch(run),
            "frames": lambda: local.frames(run, folder), "features": lambda: local.features(run),
            "backtest": lambda: local.backtest(run, folder), "start": lambda: local.start(run)}


def _attempt(name: str, call: Callable, kind: type):
    """A part that fails does not take the others with it."""
    try:
        return call()
    except Exception as error:
        return kind(name, "not measured", error=f"{type(error).__name__}: {error}")


def _progress() -> Callable[[str], None]:
    """What is being done, on standard error; each word takes the place of the last where there is a terminal."""
    lively = sys.stderr.isatty()

    def say(text: str) -> None:
        if lively:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()
        elif text:
            print(text.rstrip(), file=sys.stderr, flush=True)

    return say


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
