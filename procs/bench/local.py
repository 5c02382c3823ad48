"""The parts that need one process: books, features over history, backtest; and the start of the whole.

Each runs in a process of its own (`python -m procs.bench.local NAME ...`), on one core, and prints JSON.
"""

import contextlib
import dataclasses
import gc
import importlib.util
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import capture_lines, captures, venues
from common.clock import ManualClock, SystemClock
from common.collect import CHUNK
from common.config import load
from common.features.choice import DEFAULT, FeatureSet
from common.features.rows import Features
from common.features.table import FEATURES
from common.market import Market
from common.overview import Overview
from common.ring import Books, Rows
from common.synthetic import SyntheticMarket
from procs.bench.bed import instance_of
from procs.bench.child import alone, child, tell
from procs.bench.live import Run
from procs.bench.table import Goal, Part

FILES = "usdm_*.gz"  #: the recorded Binance futures files
HFT = "ALPHA_HFTBACKTEST"  #: an interpreter that has hftbacktest, to be measured beside ours
_START_LIMIT_S = 60.0
_PASSES = 9
#: what one process computes by itself is judged by the best pass: what it takes longer than that is the machine's
_JUDGED = "goals are judged by the best pass, the rest is what others took of the machine"


def recorded(folder: str) -> list[str]:
    """The recordings that the parts read, or none."""
    return sorted(str(path) for path in Path(folder).rglob(FILES)) if folder else []


def frames(run: Run, folder: str) -> Part:
    files = recorded(folder)
    part = Part("frames", "validated book updates from raw venue frames, one process, "
                + (f"{len(files)} recorded Binance usd-m files" if files else "synthetic VecTrade frames"))
    run.say("frames")
    told = child(run, __name__, "frames", *files)
    rate, split = told["frames_per_s"], told["us"]
    part.lines = [f"{told['frames']:,} frames, {told['ticks']:,} ticks: {rate:,.0f} frames/s, median of "
                  f"{told['passes']} passes",
                  f"a frame takes {split['all']:.2f} us: decoding {split['decode']:.2f}, book {split['book']:.2f}, "
                  f"publishing {split['publish']:.2f}"]
    part.figures, part.goals = told, [Goal("frames/s", rate, 150_000, at_least=True)]
    part.hides = "the socket and WebSocket framing; frames come from memory"
    return part


def features(run: Run) -> Part:
    every = [feature.name for feature in FEATURES if not feature.fitted]
    part = Part("features", f"features over history, one core: {len(DEFAULT)}, and all {len(every)} not fitted")
    run.say("features")
    told = child(run, __name__, "features")
    told["all"] = child(run, __name__, "features", *every)
    part.lines = [f"{count}: {one['ticks_per_s']:,.0f} ticks/s, median of {one['passes']} passes, best "
                  f"{one['best']:,.0f}; a tick by itself {one['us_per_live_tick']:.2f} us, best {one['best_us']:.2f}"
                  for count, one in ((len(DEFAULT), told), (len(every), told["all"]))]
    part.lines.append(_JUDGED)
    whole = told["all"]
    part.figures, part.goals = told, [
        Goal("ticks/s", told["best"], 1_000_000, at_least=True),
        Goal(f"ticks/s with {len(every)}", whole["best"], 1_000_000, at_least=True),
        Goal(f"live tick with {len(every)}", whole["best_us"], 3.0, " us")]
    part.hides = "reading history from disk; the ring of ticks fits the cache of the processor"
    return part


def backtest(run: Run, folder: str) -> Part:
    """Ours, in bulk and line by line; and beside it hftbacktest, where an interpreter has it."""
    files = recorded(folder)
    part = Part("backtest", "backtest from raw capture, model on every tick, " + (
        f"{len(files)} recorded Binance usd-m files" if files else "synthetic VecTrade frames"))
    run.say("backtest")
    told = child(run, __name__, "backtest", str(run.model), *files)
    run.say("backtest, line by line")
    told["replay"] = child(run, __name__, "replay", str(run.model), *files)
    part.lines = [f"{told['frames']:,} frames, {told['predictions']:,} predictions, {told['orders']:,} orders in "
                  f"{told['seconds']:.2f} s: {told['frames_per_s']:,.0f} frames/s, median of {told['passes']} passes "
                  f"(best {told['best']:,.0f}); {_JUDGED}",
                  f"line by line, as `alpha replay`: {told['replay']['frames_per_s']:,.0f} frames/s"]
    if files:
        run.say("hftbacktest")
        told["hftbacktest"], line = _others(run, files, told)
        part.lines.append(line)
    part.figures, part.goals = told, [Goal("frames/s", told["best"], 100_000, at_least=True)]
    part.hides = "the report, which takes some seconds"
    return part


def _others(run: Run, files: list[str], ours: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """hftbacktest on the same files, and a line about it."""
    interpreter = os.environ.get(HFT) or (sys.executable if importlib.util.find_spec("hftbacktest") else "")
    if not interpreter:
        return None, f"hftbacktest: not measured, no interpreter has it (${HFT} may name one)"
    process = run.bed.spawn(str(Path(__file__).with_name("hft.py")), *files, python=(interpreter, "-P"),
                            environment=run.bed.environment("hft"), talks=True)
    try:
        text = process.stdout.read()
        if process.wait(60):
            return None, f"hftbacktest: {interpreter} failed at it"
    finally:
        run.bed.stop([process])
    told = json.loads(text.splitlines()[-1])  # it says what it does, too
    lines = ours["frames"]
    both = told["convert_s"] + told["replay_s"]
    return told, (f"hftbacktest {told['version']}, {told['feeds']:,} feed events, no features and no model: converting "
                  f"the raw files {lines / told['convert_s']:,.0f} lines/s, then "
                  f"{told['feeds'] / told['replay_s']:,.0f} events/s in its engine; both {lines / both:,.0f} lines/s")


def start(run: Run) -> Part:
    """From the command to the first decision, caches warm."""
    part = Part("start", "`alpha run` to its first decision, with a warm cache")
    run.say("start")
    port = _free_port()
    environment = run.bed.environment("start", **run.settings(run.model), EXECUTOR__GATEWAY="vectrade", **{
        "EXCHANGE__PORT": port, "MARKET__WS_URL": f"ws://127.0.0.1:{port}",
        "MARKET__REST_URL": f"http://127.0.0.1:{port}", "EXECUTOR__BASE_URL": f"http://127.0.0.1:{port}"})
    overview = Overview(instance_of(environment))
    ready: dict[str, float] = {}
    began = time.monotonic()
    process = run.bed.spawn("procs.cli", "run", "--for", f"{_START_LIMIT_S:.0f}s", environment=environment)

    def decided() -> bool:
        overview.refresh()
        for name in overview.stages:
            if name not in ready and overview.ready(name):
                ready[name] = round(time.monotonic() - began, 2)
        return overview.get("executor", "decisions") > 0

    try:
        run.bed.until(decided, "the first decision", _START_LIMIT_S)
        seconds = time.monotonic() - began
    finally:
        process.terminate()  # it stops what it has started
        with contextlib.suppress(Exception):
            process.wait(45)
        run.bed.stop([process])
    part.lines = [f"{seconds:.2f} s; stages ready after " + ", ".join(f"{name} {at:.1f}" for name, at in ready.items())]
    part.figures = {"seconds": seconds, "ready_s": ready}
    part.goals = [Goal("seconds", seconds, 5.0, " s")]
    part.hides = "the installation, and the first compilation of the kernels"
    return part


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- in the child


def _frames(*files: str) -> dict[str, Any]:
    """Every frame decoded and nothing else; then decoded, applied and published, on the same frames."""
    if files:
        told = captures.describe(files)
        venue_name, symbols = told.venue, told.symbols
        tape = _read(files, symbols)
    else:
        venue_name, symbols = "vectrade", ("BTC-USD", "ETH-USD")
        tape = [(frame, 0) for _, frame in SyntheticMarket(symbols).frames(100.0)]

    def decode() -> int:
        venue = venues.create(venue_name, symbols)
        for frame, _ in tape:
            if not captures.is_snapshot(frame):
                venue.decode(frame)
        return 0

    def whole(publish: bool = True) -> int:
        market = Market(venues.create(venue_name, symbols), Books.private(symbols), SystemClock())
        if not publish:
            market._publish = lambda *_: None
        for i, (frame, symbol) in enumerate(tape):
            if captures.is_snapshot(frame):
                market.on_snapshot(symbol, frame, i)
            else:
                market.on_frame(frame, i)
            if not i & 63:
                market.take_refs()
        counts = market.counts
        if counts.gaps or counts.malformed:
            raise SystemExit(f"not a clean pass: {counts.gaps} gaps, {counts.malformed} malformed")
        return counts.ticks

    whole()
    decoding, unpublished, all_of_it, ticks = [], [], [], 0
    for _ in range(3):
        decoding.append(_timed(decode)[0])
        unpublished.append(_timed(lambda: whole(publish=False))[0])
        seconds, ticks = _timed(whole)
        all_of_it.append(seconds)
    count, best = len(tape), statistics.median(all_of_it)
    share, books = statistics.median(decoding), statistics.median(unpublished)
    return {"frames": count, "ticks": ticks, "passes": len(all_of_it), "frames_per_s": count / best,
            "us": {"all": best / count * 1e6, "decode": share / count * 1e6, "book": (books - share) / count * 1e6,
                   "publish": (best - books) / count * 1e6}}


def _read(files: tuple[str, ...], symbols: tuple[str, ...]) -> list[tuple[bytes, int]]:
    def one(path: str):
        symbol = symbols.index(captures.describe([path]).symbols[0])
        return ((recv_ns, frame, symbol) for recv_ns, frame in captures.lines(path))

    return [(frame, symbol) for _, frame, symbol in captures.merge([one(path) for path in files])]


def _features(*names: str) -> dict[str, Any]:
    """A history of ticks of one symbol, chunk by chunk through the ring of rows, as `alpha dataset` computes it; and
    the same tick by tick, as live."""
    capacity, symbols, wanted = 16384, ("BTC-USD",), FeatureSet.of(names) if names else DEFAULT
    books = Books.private(symbols, capacity)
    market = Market(venues.create("vectrade", symbols), books, ManualClock(1))
    for _, frame in SyntheticMarket(symbols).frames(capacity / 480 * 0.95):
        market.on_frame(frame, 1)
    last = int(books.heads[0])

    rows = Rows.private(symbols, wanted.labels, CHUNK, books.epoch)

    def run(step: int) -> float:
        advance = Features(books, rows, wanted).advance

        def pass_over() -> None:
            for seq in range(step, last + step, step):
                advance(0, min(seq, last), 1)

        return _timed(pass_over)[0]

    run(CHUNK)
    runs, single = [run(CHUNK) for _ in range(25)], [run(1) for _ in range(9)]
    return {"ticks": last, "features": len(wanted), "passes": len(runs), "ticks_per_s": last / statistics.median(runs),
            "best": last / min(runs), "us_per_live_tick": statistics.median(single) / last * 1e6,
            "best_us": min(single) / last * 1e6}


def _backtest(model: str, *files: str) -> dict[str, Any]:
    """As `alpha backtest` does it, reading and unpacking included, the report not."""
    from procs import backtest as bulk
    from procs.replay import configure

    with tempfile.TemporaryDirectory() as folder:
        paths = files or (_synthetic(folder),)
        config = configure(load(), paths)
        config = dataclasses.replace(config, inference=dataclasses.replace(config.inference, model=model))
        seconds: list[float] = []
        for _ in range(_PASSES + 1):  # the first compiles, or loads what was compiled
            running = bulk.Backtest(config, round(bulk.LATENCY_US * 1000))
            with contextlib.closing(running):
                seconds.append(bulk.play(running, tuple(paths)))
                told = running.summary()
        typical, best = statistics.median(seconds[1:]), min(seconds[1:])
    return {"frames": running.lines, "passes": _PASSES, "seconds": typical, "frames_per_s": running.lines / typical,
            "best": running.lines / best, "ticks": told["recording"]["ticks"],
            **{key: told["decisions"][key] for key in ("predictions", "orders", "fills")}}


def _synthetic(folder: str) -> str:
    path = Path(folder) / "synthetic"
    with path.open("wb") as file:
        file.write(b"1 %b\n" % capture_lines.encode(capture_lines.Header("vectrade", ("BTC-USD", "ETH-USD"))))
        for at_ns, frame in SyntheticMarket(("BTC-USD", "ETH-USD")).frames(60.0):
            file.write(b"%d %b\n" % (at_ns, frame))
    return str(path)


def _replay(model: str, *files: str) -> dict[str, Any]:
    """As `alpha replay` does it, reading and unpacking included."""
    from procs import replay as composed

    config = load()
    if files:
        config = composed.configure(config, files)
        stream = captures.tape(files)
    else:
        stream = iter(list(SyntheticMarket(config.market.symbols).frames(60.0)))
    config = dataclasses.replace(config, inference=dataclasses.replace(config.inference, model=model))
    replaying = composed.Replay(config)
    count, begun = 0, time.monotonic()
    with contextlib.closing(replaying):
        for recv_ns, text in stream:
            replaying.step(recv_ns, text)
            count += 1
        replaying.finish()
        seconds = time.monotonic() - begun
        told = replaying.summary()
    return {"frames": count, "seconds": seconds, "frames_per_s": count / seconds,
            **{key: told[key] for key in ("ticks", "predictions", "skipped", "decisions")}}


def _timed(work: Any) -> tuple[float, Any]:
    gc.collect()
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    alone()
    parts = {"frames": _frames, "features": _features, "backtest": _backtest, "replay": _replay}
    tell(parts[sys.argv[1]](*sys.argv[2:]))
