"""default.onnx: the probability of an up-move of the mid over the next 30 s, learnt on the synthetic market.

    python -m models.recipe                       the default artefact, about ten minutes
    python -m models.recipe --minutes 20 --out /tmp/small.onnx

1. Rows of one synthetic market, by the code that runs live; its seed is not the one that `alpha exchange` serves.
2. Label: the sign of the move over the horizon; rows whose mid ends where it began are dropped (and counted).
3. Time is cut into train, validation and test, with an embargo of the horizon before each border.
4. Candidates (logistic regression, a small network), each behind a StandardScaler, are compared on validation by
   log loss; the best is fitted again on train and validation together.
5. It is scored once on the test span, and on a market with another seed, beside plain baselines.
6. Export to ONNX, compared with scikit-learn on rows of the test span.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from common.config import Market
from common.drift import statistics
from common.features.choice import DEFAULT
from common.manifest import Manifest
from models import score
from models.data import Dataset, moves, split, synthetic
from models.export import as_onnx, save

HORIZON_S = 30.0
SAMPLE_S = 0.5  #: between two rows of one symbol
BLOCK_S = 120.0  #: rows of one symbol within it are drawn together for the intervals
SHARES = (0.6, 0.2, 0.2)  #: train, validation, test
GOLDEN = 8

CANDIDATES: dict[str, Callable[[], Any]] = {
    "logistic C=1": lambda: LogisticRegression(C=1.0, max_iter=1000),
    "logistic C=0.01": lambda: LogisticRegression(C=0.01, max_iter=1000),
    "logistic C=0.001": lambda: LogisticRegression(C=0.001, max_iter=1000),
    "network 16, alpha=1": lambda: MLPClassifier((16,), alpha=1.0, max_iter=30, random_state=0),
    "network 16, alpha=10": lambda: MLPClassifier((16,), alpha=10.0, max_iter=30, random_state=0),
}

PLAIN = "obi_10"  #: the one feature of the plainest model
#: What anyone would try first: a score whose sign is the guess.
BASELINES = {
    "sign of OBI, 1 level": "obi_1",
    "sign of OBI, 10 levels": "obi_10",
    "last move, 200 ticks": "return_200",
}


@click.command()
@click.option("--minutes", default=300.0, show_default=True, help="Event time of the market that is learnt from.")
@click.option("--fresh-minutes", default=60.0, show_default=True, help="Event time of the market with another seed.")
@click.option("--seed", default=20_001, show_default=True, help="Of the market; the next one gives the other market.")
@click.option("--rate", default=400.0, show_default=True, help="Steps per second over all symbols.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).with_name("default.onnx"))
def main(minutes: float, fresh_minutes: float, seed: int, rate: float, out: Path) -> None:
    """Train and export the default model; print how good it is on data that it was not trained on."""
    symbols = Market().symbols
    seen = _labelled(synthetic(symbols, seed, rate, minutes * 60, SAMPLE_S, _progress("market", minutes)))
    fresh = _labelled(synthetic(symbols, seed + 1, rate, fresh_minutes * 60, SAMPLE_S,
                                _progress("another market", fresh_minutes)))
    train, validation, test = split(seen.data.time_ns, SHARES, HORIZON_S)
    click.echo(f"{seen.data.ticks:,} ticks, {len(seen.truth):,} rows kept of one every {SAMPLE_S} s, "
               f"{seen.dropped:,} dropped without a move; train {train.sum():,}, validation {validation.sum():,}, "
               f"test {test.sum():,}; another market {len(fresh.truth):,}")

    name = _choose(seen, train, validation)
    model = _fit(CANDIDATES[name](), seen, train | validation)
    plain = _fit(LogisticRegression(), seen, train | validation, [DEFAULT.names.index(PLAIN)])
    spans = {"test span": seen.take(test), "another market": fresh}
    metrics = {where: _report(where, part, model, plain) for where, part in spans.items()}

    proto = as_onnx(model)
    golden = seen.data.values[np.flatnonzero(test)[:: max(1, test.sum() // GOLDEN)][:GOLDEN]]
    manifest = Manifest(
        out.stem, DEFAULT.schema, DEFAULT.names, 1, HORIZON_S, ("down", "up"), output="probabilities",
        trained={"data": "common.synthetic", "symbols": list(symbols), "seed": seed, "rate": rate, "minutes": minutes,
                 "sample_s": SAMPLE_S, "rows": int((train | validation).sum()), "estimator": name,
                 "scikit-learn": sklearn.__version__},
        metrics=metrics, statistics=statistics(seen.data.values[train | validation]))
    loaded = save(proto, out, manifest, golden[:, None, :])
    rows = seen.data.values[test]
    ours, theirs = loaded.predict_batch(rows[:, None, :]), model.predict_proba(rows)
    difference = np.abs(ours[:, 0] - theirs[:, 1]).max()
    click.echo(f"\n{out}: {out.stat().st_size:,} bytes; largest difference to scikit-learn over {len(rows):,} rows "
               f"{difference:.1e}; batches give the bits of single rows: {'yes' if loaded.batch_exact else 'no'}")
    if difference > 1e-4:
        raise click.ClickException(f"the exported model differs from the trained one by {difference}")


class _Labelled:
    """Rows that moved, and whether up."""

    def __init__(self, data: Dataset, move: np.ndarray, dropped: int) -> None:
        self.data, self.move, self.dropped = data, move, dropped
        self.truth = (move > 0).astype(float)
        #: rows of one number are alike
        self.blocks = data.symbol * (1 << 40) + data.time_ns // int(BLOCK_S * 1e9)

    def take(self, chosen: np.ndarray) -> "_Labelled":
        return _Labelled(_chosen(self.data, chosen), self.move[chosen], 0)


def _chosen(data: Dataset, chosen: np.ndarray) -> Dataset:
    return Dataset(data.values[chosen], data.symbol[chosen], data.time_ns[chosen], data.mid[chosen], data.ways,
                   data.ticks)


def _labelled(data: Dataset) -> _Labelled:
    move = moves(data, HORIZON_S)
    known = ~np.isnan(move)
    usable = known & (move != 0)
    return _Labelled(_chosen(data, usable), move[usable], int((known & (move == 0)).sum()))


def _choose(seen: _Labelled, train: np.ndarray, validation: np.ndarray) -> str:
    """The candidate with the least log loss on validation."""
    click.echo("\nvalidation               log loss    AUC")
    losses = {}
    held_out = seen.take(validation)
    for name, candidate in CANDIDATES.items():
        p = _fit(candidate(), seen, train).predict_proba(held_out.data.values)[:, 1]
        losses[name] = score.log_loss(held_out.truth, p)
        click.echo(f"  {name:<22} {losses[name]:8.4f} {score.auc(held_out.truth, p):6.3f}")
    best = min(losses, key=losses.__getitem__)
    click.echo(f"  chosen: {best}")
    return best


def _fit(estimator: Any, seen: _Labelled, chosen: np.ndarray, columns: Sequence[int] | None = None) -> Pipeline:
    model = make_pipeline(StandardScaler(), estimator)
    values = seen.data.values[chosen]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the networks are stopped early on purpose
        return model.fit(values if columns is None else values[:, columns], seen.truth[chosen])


def _report(where: str, part: _Labelled, model: Pipeline, plain: Pipeline) -> dict[str, Any]:
    """Print and return the figures of one span."""
    truth, values = part.truth, part.data.values
    p = model.predict_proba(values)[:, 1]
    q = plain.predict_proba(values[:, [DEFAULT.names.index(PLAIN)]])[:, 1]
    click.echo(f"\n{where}: {len(truth):,} rows, {truth.mean():.1%} up\n"
               f"  {'':<24} {'AUC':>5}   {'95 %':^13}   {'accuracy':>8}   {'95 %':^13}   {'Brier':>6}")
    found = {"model": (p, p), f"logistic on {PLAIN} alone": (q, q)}
    for name, feature in BASELINES.items():
        ranking = values[:, DEFAULT.names.index(feature)]
        found[name] = ranking, (ranking > 0).astype(float)
    figures: dict[str, Any] = {"rows": len(truth), "up": round(float(truth.mean()), 4)}
    for name, (ranking, guess) in found.items():
        auc, right = score.auc(truth, ranking), score.accuracy(truth, guess)
        auc_span = score.interval(score.auc, truth, ranking, part.blocks)
        right_span = score.interval(score.accuracy, truth, guess, part.blocks)
        brier = score.brier(truth, guess)
        click.echo(f"  {name:<24} {auc:5.3f}   {auc_span[0]:5.3f}..{auc_span[1]:5.3f}   {right:8.3f}   "
                   f"{right_span[0]:5.3f}..{right_span[1]:5.3f}   {brier:6.4f}")
        figures[name] = {"auc": round(auc, 4), "auc_95": [round(x, 4) for x in auc_span], "accuracy": round(right, 4),
                         "accuracy_95": [round(x, 4) for x in right_span], "brier": round(brier, 4)}
    constant = score.brier(truth, np.full(len(truth), 0.5))
    click.echo(f"  {'always 0.5':<24} {0.5:5.3f}   {'':13}   {'':8}   {'':13}   {constant:6.4f}")
    click.echo("  calibration: predicted -> happened (rows)")
    table = score.calibration(truth, p)
    for mean, share, rows in table:
        click.echo(f"    {mean:.3f} -> {share:.3f} ({rows:,})")
    figures["model"]["ece"] = round(score.expected_calibration_error(truth, p), 4)
    figures["model"]["calibration"] = [[round(mean, 4), round(share, 4), rows] for mean, share, rows in table]
    click.echo(f"  expected calibration error {figures['model']['ece']:.4f}")
    return figures


def _progress(what: str, minutes: float) -> Callable[[float], None]:
    """A line on standard error every few seconds."""
    start = told = time.monotonic()

    def tell(seconds: float) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= 5:
            told = now
            share = max(seconds / (minutes * 60), 1e-6)
            left = (now - start) * (1 / share - 1)
            click.echo(f"{what}: {seconds / 60:.0f} of {minutes:.0f} minutes, {left:.0f} s left", err=True)

    return tell


if __name__ == "__main__":
    main()
