"""Verdicts: what is better is called better, what is not is not, and chance is not called skill."""

import json

import numpy as np
import pytest

from models import baselines, judge
from models.baselines import Answers
from models.judge import BETTER, NOT_SHOWN, WORSE, Outcome

CLASSES = ("down", "up")


def answers(p: np.ndarray) -> Answers:
    return baselines.of_model(np.stack([1 - p, p], axis=1), np.array([0.5, 0.5]), CLASSES)


def case(skill: float, n: int = 3000, block: int = 30, seed: int = 0) -> tuple[Outcome, Answers, dict[str, Answers]]:
    """A model that knows `skill` of the move, beside a baseline that knows half of it."""
    random = np.random.default_rng(seed)
    known, other = random.standard_normal((2, n))
    move = 0.5 * known + other
    truth = (move > 0).astype(int)
    outcome = Outcome(truth, move, np.arange(n) // block, CLASSES)
    p = 1 / (1 + np.exp(-2 * (0.5 * known + skill * other)))
    plain = 1 / (1 + np.exp(-known))
    both = {"half": answers(plain),
            "base rate": Answers(np.full((n, 2), 0.5), np.zeros(n, int), np.zeros(n, int), np.zeros(n))}
    return outcome, answers(p), both


def test_a_model_that_knows_more_beats_the_best_of_them():
    found = judge.judged(*case(0.7), draws=100)
    assert found["differences"]["brier"]["baseline"] == found["differences"]["macro_f1"]["baseline"] == "half"
    assert all(each["shown"] == BETTER for each in found["differences"].values())
    assert found["verdict"].endswith("It beats the baselines.")
    json.dumps(found, allow_nan=False)


def test_a_model_that_knows_as_much_is_not_called_better():
    outcome, _, both = case(0.0)
    found = judge.judged(outcome, both["half"], both, draws=100)
    assert all(each["difference"] == 0 and each["shown"] == NOT_SHOWN for each in found["differences"].values())
    assert "is not shown" in found["verdict"]


def test_a_model_that_is_wrong_is_called_worse():
    found = judge.judged(*case(-0.7), draws=100)
    assert all(found["differences"][name]["shown"] == WORSE for name in ("macro_f1", "brier"))
    assert found["verdict"].endswith("It does not beat the baselines.")


def test_chance_is_not_called_skill(monkeypatch):
    """Of two models that know nothing, drawn in blocks of time, hardly ever one is called better: 5 % would be the rate
    of a right interval, and rows taken for independent ones would give several times as many."""
    monkeypatch.setattr(judge, "COMPARED", ("brier",))
    monkeypatch.setattr(judge, "verdict", lambda found: "")
    called = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        block = np.repeat(np.arange(60), 20)
        truth = np.repeat(random.integers(0, 2, 60), 20)  # one outcome a block
        p = np.repeat(random.uniform(0.2, 0.8, (2, 60)), 20, axis=1)
        one, two = (answers(q) for q in p)
        found = judge.judged(Outcome(truth, truth - 0.5, block, CLASSES), one, {"other": two}, draws=100)
        called += found["differences"]["brier"]["shown"] != NOT_SHOWN
    assert called <= 6


def test_few_blocks_show_nothing():
    found = judge.judged(*case(0.7, n=900, block=100), draws=50)
    assert found["blocks"] == 9 and all(each["shown"] == NOT_SHOWN for each in found["differences"].values())
    assert "Only 9 blocks of time" in found["verdict"]


def test_rows_of_one_class_only_are_judged_without_a_number_that_is_none():
    outcome, model, both = case(0.7, n=600)
    one = outcome._replace(truth=np.ones_like(outcome.truth))
    found = judge.judged(one, model, both, draws=20)
    assert found["contenders"]["model"]["auc"] is None and found["differences"]["auc"]["low"] is None
    json.dumps(found, allow_nan=False)


def test_blocks_are_longer_than_labels():
    time = np.arange(1000) * 10**8
    block, seconds = judge.blocks(time, time + 30 * 10**9)
    assert seconds == pytest.approx(60) and len(np.unique(block)) == 2
    assert judge.blocks(time, time + 10**6)[1] == 5


def test_a_calibrated_model_of_a_rarer_class_is_not_taken_for_one_that_never_names_it():
    random = np.random.default_rng(0)
    p = random.uniform(0.1, 0.45, 4000)  # it never thinks "up" likelier than "down"
    truth = (random.random(4000) < p).astype(int)
    outcome = Outcome(truth, truth - 0.5, np.arange(4000) // 40, CLASSES)
    often = np.array([1 - truth.mean(), truth.mean()])
    found = judge.measures(outcome, baselines.of_model(np.stack([1 - p, p], axis=1), often, CLASSES))
    assert found["accuracy"] == (truth == 0).mean() and found["macro_f1"] > 0.55
