"""train: a model from a dataset, judged walk-forward beside plain baselines, as ONNX with its manifest."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from common.dataset import Dataset
from common.errors import ConfigError
from common.stage import exit_on_error

RECIPES = ("logistic", "boosting", "mlp", "deeplob")
INTERRUPTED = 130

_MEASURES = ("accuracy", "macro_f1", "auc", "brier", "ece", "ic")


@click.command()
@click.argument("recipe", type=click.Choice(RECIPES))
@click.option("--data", "path", required=True, help="The dataset, .npz or .parquet, as `alpha dataset` makes it.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="The model, .onnx; its manifest and a report stand beside it.")
@click.option("--horizon", default="", help="Which of the dataset's (default: its first).")
@click.option("--columns", default="", help="Only these columns of the dataset, separated by commas.")
@click.option("--window", type=click.IntRange(1), help="Rows that a model of sequences takes.  [default: 100]")
@click.option("--epochs", type=click.IntRange(1), default=20, show_default=True, help="deeplob: at most so many.")
@click.option("--sliding", is_flag=True, help="Train each fold on a span of one length, not on all before it.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--draws", type=click.IntRange(10), default=400, show_default=True, help="Resamples behind an interval.")
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="all cores",
              help="boosting, deeplob. The bits of deeplob depend on it.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def train(recipe: str, path: str, out: Path, horizon: str, columns: str, window: int | None, epochs: int,
          sliding: bool, seed: int, draws: int, threads: int, as_json: bool) -> None:
    """Train a model on a dataset, judge it on later data, and export it.

    \b
    logistic  logistic regression                          one row
    boosting  gradient-boosted trees, LightGBM             one row
    mlp       a small network                              one row
    deeplob   convolutions and an LSTM, PyTorch            windows of the columns of the group levels_z

    Each fold of the dataset is trained on what came before its test and judged on the test, beside the base rate, the
    sign of the order-book imbalance and the last move. Written is the model of the last fold, which never saw the last
    test span: NAME.onnx, NAME.json and NAME.report.json. It can be interrupted: what is done stands in NAME.train, and
    the same command goes on from there.

    \b
    Examples
      alpha dataset day1.gz day2.gz --horizon 5s --out day.npz
      alpha train logistic --data day.npz --out models/mine.onnx
    """
    with exit_on_error():
        if out.suffix != ".onnx":
            raise ConfigError("a model is written as .onnx", where=f"--out {out}")
        recipes, training = _training()
        chosen = recipes.load(recipe)
        if window not in (None, chosen.window) and chosen.window == 1:
            raise ConfigError("the recipe takes one row", where=f"{recipe}, --window {window}",
                              remedy="deeplob takes windows")
        data = Dataset.load(path)
        options = training.Options(
            training.horizon_of(data, horizon), window or 0, tuple(filter(None, map(str.strip, columns.split(",")))),
            seed, epochs, sliding, draws, threads)
        start = time.monotonic()
        try:
            report = training.train(data, chosen, out, options, Path(path).name,
                                    lambda words: click.echo(f"{time.monotonic() - start:6.1f} s  {words}", err=True))
        except KeyboardInterrupt:
            click.echo(f"interrupted: {out.with_suffix('.train')} keeps what is done, to go on from", err=True)
            sys.exit(INTERRUPTED)
        click.echo(json.dumps(report, indent=1) if as_json else "\n".join(_table(report)))


def _training() -> tuple[Any, Any]:
    """The modules of training, which need the extra `train`."""
    try:
        from models import recipes, training
    except ModuleNotFoundError as error:
        raise ConfigError("training needs a package that is not installed", where=str(error.name),
                          remedy="pip install 'predictive-alpha[train]'") from None
    return recipes, training


def _table(report: dict[str, Any]) -> list[str]:
    """For people."""
    lines = [f"{report['recipe']} on {report['data']}: {', '.join(report['symbols'])}, {report['horizon']} ahead, "
             f"{' / '.join(report['classes'])}, {len(report['columns'])} columns, window {report['window']}"]
    for number, fold in enumerate(report["folds"], 1):
        lines += ["", f"fold {number}: trained on {fold['train']['rows']:,} rows to {fold['train']['to']}, tested on "
                  f"{fold['test']['rows']:,} from {fold['test']['from']} to {fold['test']['to']}; {fold['chosen']}"]
        lines += _contenders(fold)
    whole = report["all"]
    lines += ["", f"all folds: {whole['rows']:,} rows, {whole['blocks']} blocks of {report['block_s']:g} s; "
              + ", ".join(f"{share:.1%} {name}" for name, share in whole["balance"].items())]
    lines += _contenders(whole)
    lines += ["", "difference to the best baseline, 95 %"]
    for name, each in whole["differences"].items():
        lines.append(f"  {name:<10} {_number(each['difference'], '+')}   {_number(each['low'], '+')} to "
                     f"{_number(each['high'], '+')}   {each['baseline']:<12} {each['shown']}")
    export = report["export"]
    return lines + [
        "", f"All folds: {whole['verdict']}", f"Last span: {report['folds'][-1]['verdict']}", "",
        f"{report['model']}: {export['bytes']:,} bytes, the model of the last fold; over {export['compared']:,} rows "
        f"the graph differs by {export['difference']:.1e} at most and decides otherwise in {export['disagreements']}; "
        f"batches give the bits of single rows: {'yes' if export['batch_exact'] else 'no'}"]


def _contenders(judged: dict[str, Any]) -> list[str]:
    lines = [f"  {'':<14}" + "".join(f"{name:>10}" for name in _MEASURES)]
    for name, measures in judged["contenders"].items():
        lines.append(f"  {name:<14}" + "".join(f"{_number(measures[each]):>10}" for each in _MEASURES))
    return lines


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.4f}"
