"""dataset CAPTURE... --out X: recordings in, matrices and labels to train on out, by the code that runs live.

Reads files and nothing that runs; the work is done by `common.collect`. Progress goes to standard error, the report to
standard output. Nothing half stays at --out.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from common import captures, labels
from common.collect import Options, about_files, make, sources
from common.dataset import Dataset, ending
from common.errors import ConfigError
from common.features.choice import expand
from common.features.table import GROUPS
from common.instant import parse, utc
from common.stage import exit_on_error

SCHEMA = 1  #: of the report
_PAUSE_S, _TERMINAL_S = 10.0, 0.5  #: between two words about progress; on a terminal, where they replace each other


@click.command()
@click.argument("paths", metavar="CAPTURE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False),
                callback=lambda context, parameter, paths: captures.without_manifests(paths))
@click.option("--out", required=True, help="What to write: .npz or .parquet.")
@click.option("--features", "names", multiple=True, default=("default",), show_default=True,
              help=f"Names of features and of groups, with commas between: {', '.join(GROUPS)}.")
@click.option("--horizon", "horizons", multiple=True, default=("30s",), show_default=True,
              help="How far a label looks ahead: 30s, 500ms, 100ticks. Several may be named.")
@click.option("--classes", type=click.Choice(["2", "3"]), default="2", show_default=True,
              help="down and up, or down, flat and up.")
@click.option("--threshold", default="0", show_default=True,
              help="What a move must exceed: bps, spread, half-spread, or balanced (a third flat in training).")
@click.option("--fee-bps", type=click.FloatRange(0), default=0.0, show_default=True,
              help="Of one trade; twice that is added to the threshold.")
@click.option("--smooth", type=click.Choice(labels.SMOOTH[1:]),
              help="The move to the mean of the next ticks, or between the means of both sides.")
@click.option("--every", default="500ms", show_default=True, help="A sample of a symbol in each; 0: every warm row.")
@click.option("--folds", type=click.IntRange(1), default=4, show_default=True, help="Walk-forward test spans.")
@click.option("--embargo", help="Between what is known in training and the test (default: the longest horizon).")
@click.option("--symbols", multiple=True, help="Only these, with commas between (default: all).")
@click.option("--fit-until", help="Numbers of fitted features come from rows before this time, UTC: "
                                  "2024-07-19T00:01:00 (default: the end of the first training span).")
@click.option("--window", type=click.IntRange(1), default=1, show_default=True,
              help="Rows of a sample that the model will take: for the report on leakage.")
@click.option("--verify/--no-verify", default=True, show_default=True,
              help="Compute some rows anew with nothing after them, and compare bits.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def dataset(paths: tuple[str, ...], out: str, names: tuple[str, ...], horizons: tuple[str, ...], classes: str,
            threshold: str, fee_bps: float, smooth: str | None, every: str, folds: int, embargo: str | None,
            symbols: tuple[str, ...], fit_until: str | None, window: int, verify: bool, as_json: bool) -> None:
    """Make rows and labels of recordings, to train on.

    A CAPTURE is a file of `alpha record`, of any venue, or of any format that `alpha capture convert` reads: Binance,
    LOBSTER, Tardis, hftbacktest, sessions. Rows come from the market core and the kernel that run live. Fitted features
    are fitted on rows before the first test span, for which the files are read twice.

    \b
    Examples
      alpha dataset day1.gz day2.gz --out btc.npz --horizon 5s --every 100ms
      alpha dataset day.zst --out deep.npz --features levels_z --horizon 100ticks --classes 3 --threshold balanced
    """
    with exit_on_error():
        options = Options(
            features=expand(_split(names)), horizons=tuple(map(labels.horizon, _split(horizons))), classes=int(classes),
            threshold=labels.threshold(threshold), fee_bps=fee_bps, smooth=smooth or "",
            every_s=labels.duration(every, "--every"), folds=folds,
            embargo_s=labels.duration(embargo, "--embargo") if embargo else None, symbols=tuple(_split(symbols)),
            fit_until_ns=parse(fit_until, "--fit-until") if fit_until else None, verify=Options.verify if verify else 0)
        ending(out)
        if os.path.exists(out):
            raise ConfigError("there is a file already", where=f"--out={out}", remedy="remove it, or name another")
        if not Path(out).resolve().parent.is_dir():
            raise ConfigError("there is no such folder", where=f"--out={out}", remedy="make it first")
        progress = _Progress(paths)
        made = make(lambda: progress.watch(sources(paths, _say)), options, {"files": about_files(paths)}, progress.tell,
                    _say)
        progress.end()
        made.save(out)
        told = report(made, window) | {"out": out, "bytes": os.path.getsize(out), "seconds": progress.seconds,
                                       "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10}
        click.echo(json.dumps(told, indent=1) if as_json else "\n".join(_lines(told)))


def report(made: Dataset, window: int = 1) -> dict[str, Any]:
    """What a dataset holds, and whether its folds are clean."""
    horizons = {}
    for place, horizon in enumerate(made.horizons):
        folds = []
        for fold in made.folds(place, window):
            folds.append({
                "test_from": utc(fold.begin_ns), "test_to": utc(fold.end_ns),
                "train": _balance(made, place, fold.train), "test": _balance(made, place, fold.test),
                "leakage": [violation._asdict() for violation in made.leakage(fold, place, window)]})
        horizons[str(horizon)] = {**made.about["labels"][str(horizon)],
                                  "limits_bps": made.about["limits_bps"][str(horizon)],
                                  "classes": _balance(made, place, np.ones(len(made.sample), bool)), "folds": folds}
    flaws = [violation for told in horizons.values() for fold in told["folds"] for violation in fold["leakage"]]
    return {
        "schema": SCHEMA, "digest": made.digest(), "features_schema": made.features.schema,
        "symbols": list(made.symbols), "venues": made.about["venues"], "features": list(made.features.names),
        "parameters": made.features.parameters, "fit_until": utc(made.about.get("fit_until_ns", 0)),
        "from": utc(int(made.time_ns.min())), "to": utc(int(made.time_ns.max())), "rows": len(made.values),
        "warm": made.about["warm"], "samples": len(made.sample), "window": window,
        "windows": int(made.has_window(window).sum()), "not_finite": 0, "receive_time": made.about["receive_time"],
        "time_back_s": dict(zip(made.symbols, made.about["time_back_s"])),
        "embargo_s": made.about["folds"]["embargo_ns"] / 1e9, "horizons": horizons, "compared": made.about["compared"],
        "leakage": "found" if any(flaw["kind"] != "empty" for flaw in flaws) else "none", "memory": made.nbytes}


def _balance(made: Dataset, horizon: int, chosen: np.ndarray) -> dict[str, int]:
    label = made.labels[chosen, horizon]
    return {name: int((label == index).sum()) for index, name in enumerate(made.classes)}


def _lines(told: dict[str, Any]) -> list[str]:
    """The report for people."""
    found = [
        f"{told['out']}: {told['bytes']:,} bytes, {', '.join(told['symbols'])}, {len(told['features'])} features",
        f"  {'time':<10} {told['from']} to {told['to']}" + (
            f" (time of receipt: {', '.join(told['receive_time'])})" if told["receive_time"] else "") + "".join(
            f"; {name}'s goes back by {back:,.1f} s" for name, back in told["time_back_s"].items() if back >= 1),
        f"  {'rows':<10} {told['rows']:,}: {told['warm']:,} warm; samples: {told['samples']:,}, with windows of "
        f"{told['window']}: {told['windows']:,}; not finite: 0",
        f"  {'memory':<10} {told['memory'] / 1e6:,.1f} MB; of the process at most {told['peak_memory'] / 1e6:,.0f} MB",
        f"  {'look-ahead':<10} " + (f"none: {told['compared']:,} rows are the same with nothing after them"
                                    if told["compared"] else "not looked for"),
        f"  {'leakage':<10} {told['leakage']}; embargo {told['embargo_s']:g} s"]
    for name, numbers in told["parameters"].items():
        found.append(f"  {'fitted':<10} {name} on rows before {told['fit_until']}")
        found += [f"  {'':<10} {symbol}: {', '.join(f'{value:.4g}' for value in values[:10])}"
                  + (f", ... ({len(values)})" if len(values) > 10 else "") for symbol, values in numbers.items()]
    for horizon, one in told["horizons"].items():
        lost = ", ".join(f"{name}: {one[name]:,}" for name in ("stream ends before", "book lost within",
                                                              "too few ticks to smooth", "no move",
                                                              "dropped within the threshold") if one[name])
        low, middle, high = one["limits_bps"]
        limit = f"{middle:.3g} bps" if low == high else f"{low:.3g} to {high:.3g} bps, {middle:.3g} in the median"
        found.append(f"  {horizon}: {one['labelled']:,} labels: {_shares(one['classes'])}; threshold {limit}"
                     + (f"; {lost}" if lost else ""))
        for number, fold in enumerate(one["folds"], 1):
            flaws = "; ".join(f"{flaw['kind']}: {flaw['text']} ({flaw['count']:,})" if flaw["count"] else flaw["text"]
                              for flaw in fold["leakage"])
            found.append(f"    fold {number}: train {sum(fold['train'].values()):,} ({_shares(fold['train'])}), test "
                         f"{sum(fold['test'].values()):,} ({_shares(fold['test'])}); leakage {flaws or 'none'}")
    return found


def _shares(counts: dict[str, int]) -> str:
    whole = sum(counts.values())
    return ", ".join(f"{name} {count / whole:.1%}" for name, count in counts.items()) if whole else "none"


def _split(words: Sequence[str]) -> list[str]:
    return [part.strip() for word in words for part in word.split(",") if part.strip()]


def _say(words: str) -> None:
    click.echo(words, err=True)


class _Progress:
    """Tells how far reading has come, how fast it goes and how long it will take, on standard error: in place on a
    terminal, else a line every ten seconds. How far is read from the system: what is open here, and at which byte. So
    it holds for any format, compressed or not."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._sizes = {os.path.realpath(path): max(os.path.getsize(path), 1) for path in paths}
        self._terminal = sys.stderr.isatty()
        self._pause_s = _TERMINAL_S if self._terminal else _PAUSE_S
        self._begun = self._pass_begun = self._told = time.monotonic()
        self._seen: dict[str, int] = {}
        self._passes = 0

    def watch(self, found: Any) -> Any:
        """A pass over the files begins."""
        self._passes, self._pass_begun = self._passes + 1, time.monotonic()
        self._seen.clear()
        return found

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._begun, 3)

    def tell(self, messages: int, ticks: int) -> None:
        now = time.monotonic()
        if now - self._told < self._pause_s:
            return
        self._told = now
        taken, share = now - self._pass_begun, self._share()
        left = f", {share:.0%}, {taken * (1 / share - 1):,.0f} s left" if share > 0.005 else ""
        words = (f"reading{' again' if self._passes > 1 else ''}: {messages:,} messages, {ticks:,} ticks, "
                 f"{messages / taken:,.0f}/s{left}")
        click.echo(f"\r\x1b[K{words}" if self._terminal else words, err=True, nl=not self._terminal)

    def end(self) -> None:
        if self._terminal:
            click.echo("\r\x1b[K", err=True, nl=False)

    def _share(self) -> float:
        """Of the bytes of all files, those that have been read. A file that was open and is no more has been read."""
        now = {path: place for path, place in _open_files() if path in self._sizes}
        for path in self._seen:
            self._seen[path] = now.get(path, self._sizes[path])
        self._seen |= now
        return min(sum(self._seen.values()) / sum(self._sizes.values()), 1.0)


def _open_files() -> list[tuple[str, int]]:
    """(path, byte at which it is read) of what this process has open."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            told = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        except OSError:
            continue  # closed meanwhile
        found.append((path, int(told.split()[1])))
    return found
