"""Live figures equal those computed over all rows at once, by the code that judges models in training."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.calibration import MIN_BLOCKS, RECENT, Calibration, Comparison, probability
from models import score

S = 10**9
probabilities = st.floats(0, 1)
rows = st.lists(st.tuples(probabilities, probabilities, st.sampled_from([-2.5, -1.0, 0.0, 0.5, 3.0])), min_size=1,
                max_size=60)


def judged(found: list[tuple[float, float, float]]) -> Calibration:
    calibration = Calibration()
    for p_up, p_down, move in found:
        calibration.add(p_up, p_down, move)
    return calibration


@given(rows)
@settings(max_examples=100)
def test_each_figure_is_that_of_training_over_the_same_rows(found):
    told = judged(found).report()
    moved = [(probability(p_up, p_down), move > 0) for p_up, p_down, move in found if move]
    assert told["known"] == len(found) and told["flat"] == len(found) - len(moved)
    if not moved:
        assert told["brier"] is None and told["bins"] == []
        return
    p, truth = np.array([p for p, _ in moved]), np.array([up for _, up in moved], float)
    assert told["base_rate"] == pytest.approx(truth.mean())
    assert told["brier"] == pytest.approx(score.brier(truth, p))
    assert told["brier_base"] == pytest.approx(score.brier(truth, np.full(len(p), truth.mean())), abs=1e-12)
    assert told["log_loss"] == pytest.approx(score.log_loss(truth, p))
    assert told["hit_rate"] == pytest.approx(score.accuracy(truth, p))
    assert told["ece"] == pytest.approx(score.expected_calibration_error(truth, p), abs=1e-12)
    for mine, theirs in zip(told["bins"], score.calibration(truth, p), strict=True):
        assert mine == pytest.approx(theirs)


@given(rows)
@settings(max_examples=50)
def test_the_correlation_is_that_of_all_rows_at_once(found):
    told = judged(found).report()["ic"]
    lean = np.array([p_up - p_down for p_up, p_down, _ in found])
    move = np.array([move for _, _, move in found])
    if told is None:
        assert np.ptp(lean) < 1e-9 or np.ptp(move) == 0
    elif np.std(lean) > 1e-6:
        assert told == pytest.approx(np.corrcoef(lean, move)[0, 1], abs=1e-6)


def test_recent_figures_forget():
    found = [(0.9, 0.1, 1.0)] * (5 * RECENT) + [(0.9, 0.1, -1.0)] * (5 * RECENT)
    told = judged(found).report()
    assert told["brier"] == pytest.approx(0.41) and told["base_rate"] == 0.5
    assert told["brier_recent"] == pytest.approx(0.81, abs=0.01) and told["brier_base_recent"] < 0.01


def test_three_classes_are_asked_which_way_it_goes_if_it_goes():
    assert probability(0.3, 0.1) == pytest.approx(0.75) and probability(0.0, 0.0) == 0.5


def paired(random: np.random.Generator, gain: float, blocks: int) -> tuple[np.ndarray, Comparison]:
    """Differences that are alike within a block, as overlapping outcomes are."""
    rows = random.integers(1, 20, blocks)
    shared = np.repeat(random.normal(0, 0.02, blocks), rows)
    differences = gain + shared + random.normal(0, 0.01, rows.sum())
    comparison = Comparison(60 * S)
    for block, difference in zip(np.repeat(np.arange(blocks), rows).tolist(), differences.tolist()):
        comparison.add(block * 60 * S + 5, 0.25 + difference, 0.25)
    comparison.add(blocks * 60 * S, 0.0, 0.0)  # closes the last block, and stands in an open one
    return np.stack([np.repeat(np.arange(blocks), rows), differences]), comparison


def test_the_standard_error_is_that_of_a_ratio_over_blocks():
    (which, differences), comparison = paired(np.random.default_rng(1), 0.01, 40)
    sums = np.array([differences[which == block].sum() for block in range(40)])
    counts = np.array([(which == block).sum() for block in range(40)])
    mean = sums.sum() / counts.sum()
    expected = math.sqrt(((sums - mean * counts) ** 2).sum() * 40 / 39) / counts.sum()
    assert (comparison.rows, comparison.blocks) == (counts.sum(), 40)
    assert comparison.gain == pytest.approx(mean) and comparison.standard_error == pytest.approx(expected)


def test_the_interval_holds_what_it_promises():
    """Of many comparisons without a difference about one in twenty shows one; counting rows instead of blocks would
    show one in two or three."""
    random = np.random.default_rng(7)
    shown = sum("no difference" not in paired(random, 0.0, 40)[1].verdict() for _ in range(300))
    assert 3 <= shown <= 33


@pytest.mark.parametrize("gain, words", [(0.05, "the challenger is better"), (-0.05, "the champion is better"),
                                         (0.0, "no difference is shown")])
def test_the_verdict_is_plain(gain, words):
    assert paired(np.random.default_rng(3), gain, 60)[1].verdict().startswith(words)


def test_nothing_is_told_apart_too_early():
    _, comparison = paired(np.random.default_rng(3), 5.0, MIN_BLOCKS - 1)
    assert comparison.verdict().startswith(f"too early to tell: {MIN_BLOCKS - 1} of")
    assert Comparison(S).report()["standard_error"] is None
