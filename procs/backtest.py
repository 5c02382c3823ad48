"""backtest CAPTURE...: recordings traded through the same stages, in one process, in bulk, and a report of what came of
it.

Book, features, model, executor and paper venue are the live ones. What does not depend on decisions runs ahead in
chunks (`common.backtest.chunks`); then the executor sees one line after the other on recorded time
(`procs.replay.Desk`), with the market as of then. Orders, fills and probabilities are those of `alpha replay
--latency-us` on the same recording, to the last bit, at several times the speed.

What is assumed of the world, all of it settable: a tick is decided --latency-us after its receipt; an order reaches the
venue --paper-latency-ms later and takes what is displayed then, at the taker's fee; the market does not mind us. Orders
that rest are filled after those before them (`common.queue_model`). A recording made elsewhere has the latency of where
it was made.
"""

import contextlib
import dataclasses
import gc
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from common import captures, instant, queue_model
from common.backtest import html as backtest_html
from common.backtest import plot as backtest_plot
from common.backtest.chunks import Chunks
from common.backtest.frames import Tape
from common.backtest.report import Curves, Fill, Symbol, report
from common.clock import ManualClock
from common.config import Config, load
from common.errors import ConfigError, ContractError, ResourceError
from common.journal import Restored
from common.orders import Order, State, Working
from common.overview import Overview
from common.stage import exit_on_error
from common.venues import create
from procs.replay import Desk, configure

SCHEMA = 1  #: of the JSON
LATENCY_US = 300.0  #: frame received to order decided: what `alpha bench` measured as the median on two cores


class Ordered(NamedTuple):
    """An order as it went into the journal."""

    order: Order
    at_ns: int
    context: str  #: JSON: the prediction and the market behind it


class Booked(NamedTuple):
    """A fill as it went into the journal."""

    order: Order
    qty: int
    price: int
    fee: int
    at_ns: int


class Notes:
    """The journal of a backtest: plain lists in place of a database, with the same answers to the executor."""

    def __init__(self) -> None:
        self.orders: list[Ordered] = []
        self.fills: list[Booked] = []
        self._known: dict[str, Working] = {}
        self._days: dict[str, tuple[int, int]] = {}

    def restore(self) -> Restored:
        return Restored({}, [], {}, True, [], {})

    def intent(self, order: Order, context: str, now: int) -> None:
        if order.client_id in self._known:
            raise ContractError("an order is in the journal already", where=f"client_id={order.client_id}")
        self._known[order.client_id] = Working(order)
        self.orders.append(Ordered(order, now, context))

    def advance(self, client_id: str, state: State, now: int, detail: str = "", venue_id: str = "") -> None:
        working = self._known[client_id]
        working.state, working.venue_id = state, venue_id or working.venue_id

    def fill(self, order: Order, fill_id: str, qty: int, price: int, fee: int, state: State, now: int) -> bool:
        working = self._known[order.client_id]
        working.state = state
        if fill_id in working.fill_ids:
            return False
        working.fill_ids.add(fill_id)
        working.filled += qty
        self.fills.append(Booked(order, qty, price, fee, now))
        return True

    def find(self, client_id: str) -> Working | None:
        return self._known.get(client_id)

    def adopt(self, positions: dict[str, tuple[int, int]]) -> None:
        """A paper venue holds nothing that is not from here."""

    def day(self, day: str) -> tuple[int, int] | None:
        return self._days.get(day)

    def open_day(self, day: str, opening: int) -> None:
        self._days.setdefault(day, (opening, opening))

    def raise_peak(self, day: str, opening: int, peak: int) -> None:
        self._days[day] = opening, peak

    def batch(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def tidy(self) -> None:
        pass

    def close(self) -> None:
        pass


class Backtest:
    """Chunks and a desk. `wanted` are the symbols that are traded, all if empty; decisions only on ticks received
    from `from_ns` on."""

    def __init__(self, config: Config, latency_ns: int = 0, wanted: tuple[str, ...] = (), from_ns: int = 0) -> None:
        self.config, self._from_ns = config, from_ns
        self.chunks = Chunks(config, wanted)
        self.notes = Notes()
        self.desk = Desk(config, ManualClock(), self.chunks.seen, latency_ns, self.notes)
        self.lines = 0

    def run(self, paths: tuple[str, ...], limit: int | None = None, to_ns: int | None = None) -> Iterator[int]:
        """Play recordings to their end, or up to a number of lines or a time of receipt; yields the lines so far after
        each chunk."""
        runs = captures.runs(paths)
        tape = Tape(runs if to_ns is None else _until(runs, to_ns))
        before, after, follow = self.desk.before, self.desk.after, self.chunks.seen.follow
        while count := self.chunks.play(tape, limit - self.lines if limit else None):
            self.lines += count
            for recv_ns, heads, predictions in self.chunks.moved:
                before(recv_ns)
                follow(heads)
                after(recv_ns, predictions if recv_ns >= self._from_ns else ())
            yield self.lines
            if self.lines == limit:
                break
        self.desk.finish()

    def summary(self) -> dict[str, Any]:
        """What is counted, by stage."""
        counts, told = self.chunks.market.counts, self.desk.telemetry.values()
        overview = Overview("backtest")
        overview.stages = {"executor": self.desk.telemetry}
        return {"recording": {
                    "lines": self.lines, "missed": self.chunks.player.missed,
                    **{name: getattr(counts, name) for name in (
                        "frames", "ticks", "trades", "quotes", "gaps", "crossed", "malformed", "quote_checks",
                        "quote_mismatches")}},
                "decisions": {
                    "predictions": told["predictions"], "watched": told["watched"],
                    "model_errors": self.chunks.model_errors,
                    "orders": told["orders"], "fills": told["fills"], "cancels": told["cancels"],
                    "rejects": told["rejects"], "halted": bool(told["halted"]),
                    "refusals": dict(sorted(overview.refusals().items()))}}

    def report(self) -> tuple[dict[str, Any], Curves]:
        """`common.backtest.report.report`, with what is counted and what was run."""
        names = self.config.market.symbols
        symbols = [Symbol(name, history.ticks(), *history.predictions())
                   for name, history in zip(names, self.chunks.history)]
        decided = {ordered.order.client_id: ordered.at_ns for ordered in self.notes.orders}
        fills = [Fill(names.index(booked.order.symbol), booked.order.side, booked.qty, booked.price, booked.fee,
                      booked.at_ns, decided[booked.order.client_id]) for booked in self.notes.fills]
        model = self.chunks.model
        found, curves = report(symbols, fills, len(self.notes.orders), model.manifest.horizon_s)
        return {"schema": SCHEMA, **self.summary(), **found,
                "model": {"name": model.name, "sha256": model.sha256, "id": f"{model.id:016x}", "window": model.window,
                          "horizon_s": model.manifest.horizon_s, "features": len(model.features),
                          "provider": model.provider, "in_sample": in_sample(model.manifest.trained, symbols)}}, curves

    def close(self) -> None:
        self.desk.close()


def in_sample(trained: Mapping[str, Any], symbols: Sequence[Symbol]) -> float | None:
    """The share of the ticks that lie in the span of time that the model was trained on, where its manifest tells one:
    what it earns there says nothing."""
    try:
        first, last = (instant.parse(trained[name], name) for name in ("from", "to"))
    except (KeyError, TypeError, ConfigError):
        return None
    times = np.concatenate([symbol.ticks[:, 0] for symbol in symbols])
    return round(float(((times >= first) & (times <= last)).mean()), 4) if times.size else None


def _until(runs: Iterator[captures.Lines], to_ns: int) -> Iterator[captures.Lines]:
    for lines in runs:
        late = np.flatnonzero(lines.recv_ns > to_ns)
        if late.size:
            yield lines.part(0, int(late[0]))
            return
        yield lines


def _captures(paths: tuple[str, ...]) -> list[dict[str, Any]]:
    told = []
    for path in paths:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            told.append({"name": os.path.basename(path), "bytes": file.tell(), "sha256": digest.hexdigest()})
    return told


def _settings(config: Config) -> dict[str, Any]:
    """The configuration that bears on what was found; no path is in it."""
    executor = {key: value for key, value in dataclasses.asdict(config.executor).items() if key.startswith("paper_")}
    return {"decision": dataclasses.asdict(config.decision), "risk": dataclasses.asdict(config.risk),
            "executor": executor, "ring": dataclasses.asdict(config.ring), "venue": config.market.venue,
            "instruments": {symbol: dataclasses.asdict(config.instrument(symbol)) for symbol in config.market.symbols}}


def _parse(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    return instant.parse(text, parameter.opts[0]) if text is not None else None


@click.command()
@click.argument("paths", metavar="CAPTURE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False),
                callback=lambda context, parameter, paths: captures.without_manifests(paths))
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--model", help="ONNX model to use.")
@click.option("--out", "outs", multiple=True, help="Write the report: .html with pictures, or .json; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--latency-us", type=click.FloatRange(0), default=LATENCY_US, show_default=True,
              help="From the receipt of a tick to its decision.")
@click.option("--paper-latency-ms", type=click.FloatRange(0), help="From the decision to the venue.")
@click.option("--taker-fee-bps", type=float, help="Fee of orders that take.")
@click.option("--maker-fee-bps", type=float, help="Fee of orders that rested; below 0 a rebate.")
@click.option("--queue", type=click.Choice(queue_model.MODELS), help="Where resting orders stand in the queue.")
@click.option("--symbols", help="Trade only these, separated by commas.")
@click.option("--from", "from_ns", metavar="TIME", callback=_parse,
              help="Decide only on what was received from this time on (UTC); what comes before builds the books.")
@click.option("--to", "to_ns", metavar="TIME", callback=_parse, help="Stop after this time.")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many lines.")
def backtest(paths: tuple[str, ...], path: str | None, model: str | None, outs: tuple[str, ...], as_json: bool,
             latency_us: float, symbols: str | None, from_ns: int | None, to_ns: int | None, limit: int | None,
             **paper: Any) -> None:
    """Trade recordings through the live stages in one process, fast, and report what came of it.

    Orders go to a paper venue with latency, fees and queues; nothing live is touched. The same input gives the same
    bytes, in JSON and in HTML. A CAPTURE is a file of `alpha record`, of any venue, or a foreign recording of Binance;
    of several symbols at once. Thresholds, sizes and limits come from the configuration.

    \b
    Examples
      alpha backtest day1.gz day2.gz --out report.html
      ALPHA_DECISION__THRESHOLD=0.1 alpha backtest day1.gz --model my.onnx --json | jq .profit
    """
    with exit_on_error():
        for out in outs:
            if Path(out).suffix not in (".html", ".json"):
                raise ConfigError("a report is .html or .json", where=f"--out {out}")
            if out.endswith(".html"):
                backtest_plot.check(f"--out {out}")
        config = _with(configure(load(path), paths), model, **paper)
        if create(config.market.venue, config.market.symbols).inverse:
            raise ConfigError("contracts of this venue are inverse: profit would be counted wrongly",
                              where=config.market.venue, remedy="`alpha replay` makes the same decisions")
        wanted = tuple(symbols.split(",")) if symbols else ()
        if unknown := sorted({*wanted} - {*config.market.symbols}):
            raise ConfigError("the recordings have no such symbol", where=f"--symbols {unknown[0]}",
                              remedy=f"they have {', '.join(config.market.symbols)}")
        run = Backtest(config, round(latency_us * 1000), wanted, from_ns or 0)
        with contextlib.closing(run):
            seconds = play(run, paths, limit, to_ns)
            tree, curves = run.report()
        tree |= {"timing": {"latency_us": latency_us, "paper_latency_ms": config.executor.paper_latency_ms,
                            "from_ns": from_ns, "to_ns": to_ns, "limit": limit, "symbols": wanted},
                 "config": _settings(config), "captures": _captures(paths)}
        text = json.dumps(tree, indent=1) + "\n"
        for out in outs:
            _write(out, text if out.endswith(".json") else backtest_html.page(
                tree, backtest_plot.pictures(tree, curves)))
        if as_json:
            click.echo(text, nl=False)
        else:
            _tell(run, tree, seconds)


def _with(config: Config, model: str | None, paper_latency_ms: float | None, taker_fee_bps: float | None,
          maker_fee_bps: float | None, queue: str | None) -> Config:
    given = {"paper_latency_ms": paper_latency_ms, "paper_fee_bps": taker_fee_bps, "paper_maker_fee_bps": maker_fee_bps,
             "paper_queue": queue}
    config = dataclasses.replace(config, executor=dataclasses.replace(
        config.executor, **{key: value for key, value in given.items() if value is not None}))
    if model:
        config = dataclasses.replace(config, inference=dataclasses.replace(
            config.inference, model=str(Path(model).resolve())))
    return config


def play(run: Backtest, paths: tuple[str, ...], limit: int | None = None, to_ns: int | None = None) -> float:
    """All of it, with a word about progress each second; returns the seconds it took."""
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here is cyclic, and what is kept would be looked through again and again
    start = last = time.monotonic()
    lively = sys.stderr.isatty()
    try:
        for count in run.run(paths, limit, to_ns):
            now = time.monotonic()
            if now - last > (0.5 if lively else 10.0):
                last = now
                text = f"{count:,} lines, {count / (now - start):,.0f}/s"
                print(f"\r\033[K{text}" if lively else text, file=sys.stderr, end="" if lively else "\n", flush=True)
    finally:
        gc.enable()
        if lively:
            print("\r\033[K", file=sys.stderr, end="", flush=True)
    return time.monotonic() - start


def _write(out: str, text: str) -> None:
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResourceError("the report cannot be written", where=f"{out}: {error.strerror}",
                            remedy="name a folder that exists and may be written") from None


def _tell(run: Backtest, tree: dict[str, Any], seconds: float) -> None:
    profit, trading, costs, fills = tree["profit"], tree["trading"], tree["costs"], tree["fills"]
    print(f"{run.lines:,} lines in {seconds:.1f} s ({run.lines / seconds:,.0f}/s)", file=sys.stderr)
    lines = {
        "net profit": f"{profit['net']:,.2f} ({_shown(profit['net_bps_of_turnover'])} bps of turnover)",
        "made of": ", ".join(f"{name} {costs[name] * sign + 0.0:+,.2f}" for name, sign in (
            ("signal", 1), ("latency", -1), ("spread", -1), ("fees", -1))),
        "drawdown": f"{profit['max_drawdown']:,.2f}",
        "turnover": f"{trading['turnover']:,.0f} in {trading['orders']:,} orders, {trading['fills']:,} fills",
        "slippage": f"{_shown(fills['slippage_bps']['mean'])} bps; markout "
                    + ", ".join(f"{tau} s {_shown(told['mean'])}" for tau, told in fills["markout_bps"].items()),
        "predictions": f"{tree['decisions']['predictions']:,}; " + "; ".join(
            f"{name} Brier {_shown(told['brier'])} (base rate {_shown(told['brier_base'])})"
            for name, told in tree["calibration"].items()),
        "refusals": ", ".join(f"{name} {count:,}" for name, count in tree["decisions"]["refusals"].items()) or "none",
    }
    if tree["model"]["in_sample"]:
        lines["in sample"] = f"{tree['model']['in_sample']:.0%} of the ticks are of the time that the model learnt from"
    if tree["decisions"]["halted"]:
        lines["halted"] = "the executor stopped trading: see risk.max_daily_loss"
    for name, value in lines.items():
        click.echo(f"  {name:<12} {value}")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
