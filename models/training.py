"""Training, walk-forward: choose, calibrate, judge on later data, and export what was found.

For each fold of the dataset, whose test comes after its training (`common.folds`):

    training   |---- fitted on ----|x| held out: choice, calibration |x|   test   |
                                   purged                        purged, embargo

1. Each candidate is fitted on the earlier three quarters of the training rows. Rows whose label is known only after
   the held-out rows begin are in neither part.
2. On the rows held out it is calibrated (`models.calibrate`); the candidate with the least log loss there is taken.
   It is not fitted again on them: that would be another model than the one that was calibrated.
3. It answers the test rows, of which nothing before has seen anything, beside the baselines fitted on the same rows.

The model of the last fold is the one that is exported: it has learnt from all but the last test span, and what it says
of that span is what it says of data that it never saw. The graph is compared with it there.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.dataset import Dataset
from common.drift import statistics
from common.errors import ConfigError, ContractError, ModelError
from common.features.choice import FeatureSet
from common.folds import Fold
from common.labels import UNKNOWN
from common.manifest import Manifest
from common.model import Model
from common.verify import utc
from models import baselines, calibrate, judge, score
from models.baselines import Answers
from models.calibrate import Calibration
from models.checkpoints import Checkpoints
from models.export import save
from models.judge import Outcome
from models.recipes import Effort, Fitted, Recipe

SCHEMA = 1  #: of the report
FITTED_SHARE = 0.75  #: of the training rows; the later ones are held out
TOLERANCE = 1e-4  #: of a probability, between the graph and what was fitted
GOLDEN, COMPARED = 8, 2000  #: rows
_CHUNK = 1024  #: examples that are read and answered at a time
_PACKAGES = ("numpy", "scikit-learn", "lightgbm", "torch", "onnx", "onnxruntime")


class Options(NamedTuple):
    """How to train."""

    horizon: int = 0  #: which of the dataset's
    window: int = 0  #: rows; 0: as many as the recipe takes
    columns: tuple[str, ...] = ()  #: of the dataset's; empty: all
    seed: int = 0
    epochs: int = 20
    sliding: bool = False  #: training spans of one length, instead of all that came before
    draws: int = 400  #: of the intervals
    threads: int = 1


class Examples:
    """The samples of a dataset as a recipe takes them (`models.recipes.Rows`): some of its columns, windows read when
    they are asked for."""

    def __init__(self, data: Dataset, columns: Sequence[str], window: int, horizon: int) -> None:
        self.features = FeatureSet.of(columns, data.features.parameters)
        places = self.features.places(data.features.labels)
        self._data = dataclasses.replace(data, features=self.features, values=data.values[:, places])
        self.columns, self.window, self.classes = tuple(columns), window, data.classes
        self.labels = data.labels[:, horizon].astype(np.int64)

    def take(self, index: np.ndarray) -> np.ndarray:
        rows = self._data.sample[index]
        return self._data.values[rows] if self.window == 1 else self._data.windows(rows, self.window)

    def newest(self, index: np.ndarray) -> np.ndarray:
        """float32[k, F]: the newest row of each."""
        return self._data.values[self._data.sample[index]]


class Found(NamedTuple):
    """What was chosen on one fold."""

    fitted: Fitted
    calibration: Calibration
    candidate: str
    losses: dict[str, float]  #: candidate -> log loss of the rows held out

    def answer(self, examples: Examples, index: np.ndarray) -> np.ndarray:
        """float64[k, C]: calibrated probabilities."""
        return np.concatenate([self.calibration.apply(logits) for logits in _logits(self.fitted, examples, index)])


def train(data: Dataset, recipe: Recipe, out: Path, options: Options = Options(), source: str = "",
          tell: Callable[[str], None] = lambda words: None) -> dict[str, Any]:
    """Train on `data`, write `out` with its manifest and `NAME.report.json` beside it, and return the report.

    What is done is kept in `NAME.train` beside it until all is. Raises ConfigError for what the dataset does not have,
    ContractError for data that cannot be learnt from honestly (a fold whose test could be known in training, a class
    that never comes), ModelError if the graph does not answer as what was fitted."""
    run = _Run(data, recipe, out, options, source, tell)
    with contextlib.closing(run.checkpoints):
        return run.all()


class _Run:
    """One training: what it is made of, and its steps."""

    def __init__(self, data: Dataset, recipe: Recipe, out: Path, options: Options, source: str,
                 tell: Callable[[str], None]) -> None:
        self.data, self.recipe, self.out, self.options, self.source, self.tell = (
            data, recipe, out, options, source, tell)
        names = recipe.columns(_columns(data, options.columns))
        self.examples = Examples(data, names, options.window or recipe.window, options.horizon)
        self.horizon = str(data.horizons[options.horizon])
        self.time_ns = data.time_ns[data.sample]
        self.until_ns = data.until_ns[:, options.horizon]
        self.folds = data.folds(options.horizon, self.examples.window, sliding=options.sliding)
        self._refuse_leaks()
        usable = self.examples.labels != UNKNOWN
        block, self.block_s = judge.blocks(self.time_ns[usable], self.until_ns[usable])
        self.block = np.zeros(len(usable), np.int64)
        self.block[usable] = block
        self.digest = data.digest()
        self.signals = _signals(data)
        self.checkpoints = Checkpoints(out.with_suffix(".train"), self._key(), tell)

    def all(self) -> dict[str, Any]:
        """Train on every fold, judge, export: the report."""
        data, folds, draws = self.data, self.folds, self.options.draws
        tests = [np.flatnonzero(fold.test) for fold in folds]
        parts = [self.fold(number, fold) for number, fold in enumerate(folds[:-1])]
        found = self.choose(len(folds) - 1, folds[-1])
        parts.append((found.answer(self.examples, tests[-1]), self.chosen(found)))
        models = [self.answers(p, fold) for (p, _), fold in zip(parts, folds)]
        plain = [self.baselines(fold) for fold in folds]
        report = {
            "schema": SCHEMA, "recipe": self.recipe.name, "model": str(self.out), "data": self.source,
            "digest": self.digest, "symbols": list(data.symbols), "horizon": self.horizon,
            "classes": list(data.classes), "window": self.examples.window, "columns": list(self.examples.columns),
            "seed": self.options.seed, "block_s": round(self.block_s, 3), "draws": draws, "folds": []}
        for number, fold in enumerate(folds):
            self._say(number, "intervals")
            report["folds"].append({
                **self.spans(fold), **parts[number][1],
                **judge.judged(self.outcome(tests[number]), models[number], plain[number], draws)})
        report["all"] = judge.judged(self.outcome(np.concatenate(tests)), _joined(models), {
            name: _joined([each[name] for each in plain]) for name in plain[0]}, draws)
        report["export"] = self.export(found, report)
        _write(self.out.with_suffix(".report.json"), json.dumps(report, indent=1) + "\n")
        self.checkpoints.remove()
        return report

    def fold(self, number: int, fold: Fold) -> tuple[np.ndarray, dict[str, Any]]:
        """(calibrated probabilities of the test rows, what was chosen), from the checkpoint if it is done."""
        kept = self.checkpoints.get(f"fold-{number}")
        if kept is not None:
            return kept["p"], json.loads(str(kept["told"]))
        found = self.choose(number, fold)
        p, told = found.answer(self.examples, np.flatnonzero(fold.test)), self.chosen(found)
        self.checkpoints.put(f"fold-{number}", p=p, told=json.dumps(told))
        return p, told

    def choose(self, number: int, fold: Fold) -> Found:
        """The candidate that is best on the rows held out."""
        index, held_out = self._parts(number, fold)
        losses: dict[str, float] = {}
        best: Found | None = None
        for place, candidate in enumerate(self.recipe.candidates()):
            part = f"fold-{number}-candidate-{place}"
            kept = self.checkpoints.get(part)
            found = None
            if kept is None:
                found = self._fit(number, place, candidate, index, held_out)
                p = found.answer(self.examples, held_out)
                losses[candidate] = score.class_log_loss(self.examples.labels[held_out], p)
                self.checkpoints.put(part, loss=losses[candidate])
                self._say(number, f"{candidate}: log loss of {len(held_out):,} rows held out {losses[candidate]:.4f}")
            else:
                losses[candidate] = float(kept["loss"])
            if losses[candidate] == min(losses.values()):
                best = found
        chosen = min(losses, key=losses.__getitem__)
        if best is None or best.candidate != chosen:  # it was fitted before an interruption
            best = self._fit(number, list(losses).index(chosen), chosen, index, held_out)
        self._say(number, f"chosen: {chosen}, fitted on {len(index):,} rows")
        return best._replace(losses=losses)

    def chosen(self, found: Found) -> dict[str, Any]:
        return {"chosen": found.candidate, "losses": {name: round(loss, 5) for name, loss in found.losses.items()},
                "calibration": {"scale": found.calibration.scale, "shift": list(found.calibration.shift)}}

    def answers(self, p: np.ndarray, fold: Fold) -> Answers:
        often = baselines.shares(self.examples.labels[fold.train], len(self.data.classes))
        return baselines.of_model(p, often, self.data.classes)

    def baselines(self, fold: Fold) -> dict[str, Answers]:
        return baselines.answers(self.signals, np.flatnonzero(fold.train), np.flatnonzero(fold.test),
                                 self.examples.labels, self.data.classes)

    def outcome(self, index: np.ndarray) -> Outcome:
        return Outcome(self.examples.labels[index], self.data.moves[index, self.options.horizon], self.block[index],
                       self.data.classes)

    def spans(self, fold: Fold) -> dict[str, Any]:
        return {what: {"from": utc(int(self.time_ns[mask].min())), "to": utc(int(self.time_ns[mask].max())),
                       "rows": int(mask.sum())} for what, mask in (("train", fold.train), ("test", fold.test))}

    def export(self, found: Found, report: Mapping[str, Any]) -> dict[str, Any]:
        """Write the model, compare it with what was fitted on the last test span, and put it in its place."""
        fold = self.folds[-1]
        train, test = np.flatnonzero(fold.train), np.flatnonzero(fold.test)
        golden = self._windows(_spread(test, GOLDEN))
        draft = self.checkpoints.folder / "export.onnx"
        made = save(found.fitted.as_onnx(found.calibration), draft, self._manifest(found, train, report), golden)
        told = self._compare(made, found, _spread(test, COMPARED))
        self.out.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".onnx", ".json"):
            os.replace(draft.with_suffix(suffix), self.out.with_suffix(suffix))
        return {**told, "bytes": self.out.stat().st_size, "batch_exact": made.batch_exact, "id": f"{made.id:016x}"}

    def _compare(self, made: Model, found: Found, index: np.ndarray) -> dict[str, Any]:
        """Refuse a graph that answers otherwise than what was fitted."""
        graph = made.predict_batch(self._windows(index))
        fitted = found.answer(self.examples, index)
        up, down = (self.data.classes.index(name) for name in ("up", "down"))
        apart = np.abs(graph - fitted[:, [up, down]]).max(axis=1)
        worst = int(apart.argmax())
        if not apart[worst] <= TOLERANCE:  # a NaN is refused, too
            row = int(self.data.sample[index[worst]])
            raise ModelError(
                "the exported model does not answer as the one that was fitted",
                where=f"{self.data.symbols[self.data.symbol[row]]}, seq {self.data.seq[row]}: graph (up, down) "
                      f"{graph[worst].tolist()}, fitted {fitted[worst, [up, down]].tolist()}, tolerance {TOLERANCE}",
                remedy="the recipe's as_onnx computes something else than its logits")
        whole = np.empty_like(fitted)
        whole[:, up], whole[:, down] = graph.T
        if len(self.data.classes) == 3:
            whole[:, self.data.classes.index("flat")] = 1 - graph.sum(axis=1)
        return {"compared": len(index), "difference": float(apart[worst]),
                "disagreements": int((whole.argmax(1) != fitted.argmax(1)).sum())}

    def _manifest(self, found: Found, train: np.ndarray, report: Mapping[str, Any]) -> Manifest:
        horizon = self.data.horizons[self.options.horizon]
        seconds = float(np.median(self.until_ns[train] - self.time_ns[train])) / 1e9
        rows = self.examples.newest(train)
        features = self.examples.features
        return Manifest(
            self.out.stem, features.schema, features.names, self.examples.window,
            horizon.length if horizon.kind == "s" else max(round(seconds, 3), 0.001), self.data.classes,
            parameters={name: {symbol: list(numbers) for symbol, numbers in of.items()}
                        for name, of in features.parameters.items()},
            output="probabilities",
            trained={"recipe": self.recipe.name, "candidate": found.candidate, "seed": self.options.seed,
                     "data": self.source, "digest": self.digest, "symbols": list(self.data.symbols),
                     "horizon": self.horizon, **self.spans(self.folds[-1])["train"],
                     "fitted_share": FITTED_SHARE, "versions": _versions()},
            metrics={"last span": {"test": report["folds"][-1]["test"], **_brief(report["folds"][-1])},
                     "all folds": _brief(report["all"])},
            statistics=statistics(rows))

    def _windows(self, index: np.ndarray) -> np.ndarray:
        """float32[k, W, F]."""
        return self.examples.take(index).reshape(len(index), self.examples.window, -1)

    def _parts(self, number: int, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
        """(indices fitted on, indices held out) of the training rows; every class must be in the former."""
        index = np.flatnonzero(fold.train)
        border = int(np.quantile(self.time_ns[index], FITTED_SHARE, method="higher"))
        parts = index[self.until_ns[index] < border], index[self.time_ns[index] >= border]
        counts = np.bincount(self.examples.labels[parts[0]], minlength=len(self.data.classes))
        if not counts.all() or not len(parts[1]):
            raise ContractError(
                "there is too little to learn from: a class never comes, or no row is held out",
                where=f"fold {number + 1}: fitted on {dict(zip(self.data.classes, counts.tolist()))}, held out "
                      f"{len(parts[1])}",
                remedy="take longer recordings, another threshold, a shorter horizon or fewer folds")
        return parts

    def _fit(self, number: int, place: int, candidate: str, index: np.ndarray, held_out: np.ndarray) -> Found:
        effort = Effort(self.options.seed, self.options.epochs, self.options.threads,
                        self.checkpoints.folder / f"fold-{number}-candidate-{place}.pt",
                        lambda words: self._say(number, f"{candidate}: {words}"))
        fitted = self.recipe.fit(candidate, self.examples, index, held_out, effort)
        logits = np.concatenate(list(_logits(fitted, self.examples, held_out)))
        independent = len(np.unique(self.block[held_out]))
        return Found(fitted, calibrate.fit(logits, self.examples.labels[held_out], independent), candidate, {})

    def _refuse_leaks(self) -> None:
        for number, fold in enumerate(self.folds):
            found = self.data.leakage(fold, self.options.horizon, self.examples.window)
            if found:
                raise ContractError(
                    "a fold cannot be judged honestly",
                    where=f"fold {number + 1}: {found[0].kind}: {found[0].count} {found[0].text}",
                    remedy="make the dataset anew with `alpha dataset`, of longer recordings, fewer folds or a shorter "
                           "horizon if a span is empty")

    def _key(self) -> dict[str, str]:
        """What the parts depend on."""
        sources = "".join(inspect.getsource(module) for module in (
            inspect.getmodule(type(self.recipe)), inspect.getmodule(self), calibrate))
        return {"dataset": self.digest, "recipe": self.recipe.name,
                "recipe's source": hashlib.sha256(sources.encode()).hexdigest()[:16],
                "candidates": ", ".join(self.recipe.candidates()), "columns": ",".join(self.examples.columns),
                "window": str(self.examples.window), "horizon": self.horizon, "seed": str(self.options.seed),
                "epochs": str(self.options.epochs), "threads": str(self.options.threads),
                "sliding": str(self.options.sliding),
                "versions": json.dumps(_versions())}

    def _say(self, number: int, words: str) -> None:
        self.tell(f"fold {number + 1} of {len(self.folds)}: {words}")


def horizon_of(data: Dataset, text: str) -> int:
    """Which of the dataset's horizons `text` names; the first if it names none. Raises ConfigError."""
    known = [str(horizon) for horizon in data.horizons]
    if not text:
        return 0
    if text not in known:
        raise ConfigError("the dataset has no labels for this horizon", where=f"horizon={text}, it has "
                          f"{', '.join(known)}", remedy=f"alpha dataset --horizon {text}")
    return known.index(text)


def _columns(data: Dataset, asked: Sequence[str]) -> tuple[str, ...]:
    missing = [name for name in asked if name not in data.features.names]
    if missing:
        raise ConfigError("the dataset has no such column", where=f"{missing[0]}; it has "
                          f"{', '.join(data.features.names)[:300]}", remedy="alpha dataset --features names them")
    return tuple(asked) or data.features.names


def _signals(data: Dataset) -> dict[str, np.ndarray]:
    """What the baselines look at: of each sample, the last change of the mid, and `obi_1` if there."""
    starts = np.flatnonzero(np.diff(data.symbol, prepend=-1))
    found = {"last move": baselines.last_move(data.bid, data.ask, starts)[data.sample]}
    if "obi_1" in data.features.names:
        found["sign of OBI"] = data.rows_of_samples[:, data.features.names.index("obi_1")]
    return found


def _logits(fitted: Fitted, examples: Examples, index: np.ndarray):
    for start in range(0, len(index), _CHUNK):
        yield fitted.logits(examples.take(index[start:start + _CHUNK]))


def _joined(parts: Sequence[Answers]) -> Answers:
    return Answers(*(np.concatenate(each) for each in zip(*parts)))


def _spread(index: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of them, evenly."""
    return index[np.linspace(0, len(index) - 1, min(count, len(index))).astype(int)]


def _brief(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("rows", "blocks", "balance", "contenders", "differences", "verdict")}


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    os.replace(part, path)
