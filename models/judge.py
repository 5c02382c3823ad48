"""Is a model better than plain guesses, on rows that it has not seen? Measures, differences, intervals and a verdict.

    accuracy    share of rows whose likeliest class happened
    macro_f1    mean F1 of the classes, which it weighs alike; so does the decision behind it: the class whose
                probability is highest against how often it came in training. (The likeliest class would hardly ever be
                one that is a little rarer, and F1 would measure that and nothing else.)
    auc         chance that a rise is ranked above what is none, and a fall below what is none: mean of the two; of two
                classes the usual AUC
    brier       half the squared distance of the probabilities from what happened; less is better
    ece         mean over the classes of the expected calibration error; less is better
    ic          information coefficient: Spearman's correlation of p_up - p_down with the realised move

The difference to a baseline is taken to the one that was best on these very rows, which is hard on the model. Its
interval draws blocks of time, all symbols together: labels that overlap are not independent, nor are two symbols.
Something is better only where the whole 95 % interval says so.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from models import score
from models.baselines import Answers

BETTER, WORSE, NOT_SHOWN = "better", "worse", "not shown"
FEWEST_BLOCKS = 10  #: with fewer an interval means nothing
LESS_IS_BETTER = ("brier", "ece")
COMPARED = ("accuracy", "macro_f1", "auc", "brier", "ic")  #: an ECE is no contest: the base rate has almost none
DECIDING = ("macro_f1", "brier")
NAMES = {"macro_f1": "macro F1", "brier": "Brier score"}


class Outcome(NamedTuple):
    """What became of n rows."""

    truth: np.ndarray  #: int64[n], a class
    move: np.ndarray  #: float64[n], bps
    block: np.ndarray  #: int64[n]: rows of one number are alike
    classes: tuple[str, ...]

    def take(self, rows: np.ndarray) -> "Outcome":
        return Outcome(self.truth[rows], self.move[rows], self.block[rows], self.classes)


def blocks(time_ns: np.ndarray, until_ns: np.ndarray) -> tuple[np.ndarray, float]:
    """(int64[n], seconds): blocks of time of twice the longest labels (but the longest twentieth), 5 s at least."""
    length = max(2 * float(np.quantile(until_ns - time_ns, 0.95)), 5e9)
    return time_ns // int(length), length / 1e9


def measures(outcome: Outcome, answers: Answers) -> dict[str, float]:
    """All measures of one contender; NaN where one is not defined. O(n log n)."""
    return {name: measure(outcome, answers) for name, measure in _MEASURES.items()}


def judged(outcome: Outcome, model: Answers, baselines: Mapping[str, Answers], draws: int = 400) -> dict[str, Any]:
    """JSON: rows, blocks, `contenders` (measures of the model and of each baseline), `differences` to the best baseline
    with their 95 % intervals, and the `verdict`. Cost: `draws` times that of some measures."""
    # Only the order of these counts: their places make ranks, and so each draw, a matter of counting.
    outcome = outcome._replace(move=score.places(outcome.move))
    model, baselines = _placed(model), {name: _placed(answers) for name, answers in baselines.items()}
    contenders = {"model": measures(outcome, model)}
    contenders |= {name: measures(outcome, answers) for name, answers in baselines.items()}
    count = len(np.unique(outcome.block))
    found: dict[str, Any] = {
        "rows": len(outcome.truth), "blocks": count,
        "balance": {name: _round((outcome.truth == k).mean()) for k, name in enumerate(outcome.classes)},
        "contenders": {name: {key: _round(value) for key, value in each.items()} for name, each in contenders.items()},
        "differences": {}}
    for name in COMPARED:
        best = _best({key: each[name] for key, each in contenders.items() if key != "model"}, name)
        difference = contenders["model"][name] - contenders[best][name]
        low, high = score.interval_of(lambda rows: _difference(name, outcome, model, baselines[best], rows),
                                      outcome.block, draws)
        found["differences"][name] = {
            "baseline": best, "difference": _round(difference), "low": _round(low), "high": _round(high),
            "shown": _shown(name, low, high) if count >= FEWEST_BLOCKS else NOT_SHOWN}
    found["verdict"] = verdict(found)
    return found


def verdict(found: Mapping[str, Any]) -> str:
    """One sentence on the measures that decide."""
    parts = []
    for name in DECIDING:
        each, model = found["differences"][name], found["contenders"]["model"][name]
        theirs = found["contenders"][each["baseline"]][name]
        parts.append(f"{NAMES[name]} {_text(model)} against {_text(theirs)} of the best baseline ({each['baseline']}), "
                     f"difference {_text(each['difference'], '+')} "
                     f"({_text(each['low'], '+')} to {_text(each['high'], '+')}): {each['shown']}")
    shown = [found["differences"][name]["shown"] for name in DECIDING]
    if all(each == BETTER for each in shown):
        whole = "It beats the baselines."
    elif WORSE in shown:
        whole = "It does not beat the baselines."
    else:
        whole = "That it beats the baselines in both is not shown."
    if found["blocks"] < FEWEST_BLOCKS:
        whole += f" Only {found['blocks']} blocks of time: too few for intervals."
    return f"{'; '.join(parts)}. {whole}"


def _shown(name: str, low: float, high: float) -> str:
    if name in LESS_IS_BETTER:
        low, high = -high, -low
    return BETTER if low > 0 else WORSE if high < 0 else NOT_SHOWN


def _best(values: Mapping[str, float], name: str) -> str:
    sign = -1 if name in LESS_IS_BETTER else 1
    return max(values, key=lambda key: -math.inf if math.isnan(values[key]) else sign * values[key])


def _difference(name: str, outcome: Outcome, ours: Answers, theirs: Answers, rows: np.ndarray) -> float:
    measure, part = _MEASURES[name], outcome.take(rows)
    return measure(part, _take(ours, rows)) - measure(part, _take(theirs, rows))


def _take(answers: Answers, rows: np.ndarray) -> Answers:
    return Answers(*(each[rows] for each in answers))


def _placed(answers: Answers) -> Answers:
    return answers._replace(rise=score.places(answers.rise))


def _auc(outcome: Outcome, answers: Answers) -> float:
    up, down = (score.auc(outcome.truth == outcome.classes.index(name), answers.rise) for name in ("up", "down"))
    return (up + 1 - down) / 2


def _ic(outcome: Outcome, answers: Answers) -> float:
    found = score.information_coefficient(answers.rise, outcome.move)
    return 0.0 if math.isnan(found) else found  # what says the same of all rows tells nothing


_MEASURES = {
    "accuracy": lambda outcome, answers: float((answers.guess == outcome.truth).mean()),
    "macro_f1": lambda outcome, answers: score.macro_f1(outcome.truth, answers.even, len(outcome.classes)),
    "auc": _auc,
    "brier": lambda outcome, answers: score.class_brier(outcome.truth, answers.p),
    "ece": lambda outcome, answers: score.class_calibration_error(outcome.truth, answers.p),
    "ic": _ic,
}


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


def _text(value: float | None, sign: str = "") -> str:
    return "unknown" if value is None else f"{value:{sign}.4f}"
