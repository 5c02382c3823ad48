"""The scores against their definitions and against scikit-learn."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from models import score


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    p = np.round(random.random(3000), 2)  # with ties
    return (random.random(3000) < p).astype(float), p


def test_scores_equal_those_of_scikit_learn(sample):
    truth, p = sample
    assert score.auc(truth, p) == pytest.approx(metrics.roc_auc_score(truth, p))
    assert score.brier(truth, p) == pytest.approx(metrics.brier_score_loss(truth, p))
    assert score.log_loss(truth, p) == pytest.approx(metrics.log_loss(truth, np.clip(p, 1e-9, 1 - 1e-9)))
    assert score.accuracy(truth, p) == pytest.approx(metrics.accuracy_score(truth, p > 0.5))


def test_auc_of_perfect_useless_and_reversed_scores():
    truth = np.array([0, 0, 1, 1.0])
    assert score.auc(truth, truth) == 1 and score.auc(truth, -truth) == 0 and score.auc(truth, np.zeros(4)) == 0.5
    assert np.isnan(score.auc(np.ones(3), np.arange(3.0)))


def test_the_calibration_of_true_probabilities_is_good_and_of_others_bad(sample):
    truth, p = sample
    table = score.calibration(truth, p)
    assert sum(rows for _, _, rows in table) == len(p)
    assert score.expected_calibration_error(truth, p) < 0.04 < 0.2 < score.expected_calibration_error(truth, p**4)


def test_an_interval_holds_the_value_and_is_wider_where_rows_come_in_blocks(sample):
    truth, p = sample
    alone = score.interval(score.auc, truth, p, np.arange(len(p)))
    assert alone[0] < score.auc(truth, p) < alone[1]
    tenfold, blocks = np.repeat(np.arange(300), 10), np.repeat(np.arange(300), 10)
    wide = score.interval(score.auc, truth[tenfold], p[tenfold], blocks)
    assert wide[1] - wide[0] > 2 * (alone[1] - alone[0])


@pytest.fixture(scope="module")
def three() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    p = random.dirichlet([2, 1, 0.5], 2000)
    return (p.cumsum(1) < random.random((2000, 1))).sum(1), p


def test_scores_of_several_classes_equal_those_of_scikit_learn(three):
    truth, p = three
    guess = p.argmax(1)
    assert score.macro_f1(truth, guess, 3) == pytest.approx(metrics.f1_score(truth, guess, average="macro"))
    assert score.class_log_loss(truth, p) == pytest.approx(metrics.log_loss(truth, p))
    assert score.macro_f1(np.array([0, 0]), np.array([0, 0]), 2) == 0.5


def test_of_two_classes_they_are_the_usual_ones(sample):
    truth, p = sample
    both = np.stack([1 - p, p], axis=1)
    assert score.class_brier(truth.astype(int), both) == pytest.approx(score.brier(truth, p))
    assert score.class_calibration_error(truth.astype(int), both) == pytest.approx(
        score.expected_calibration_error(truth, p), abs=0.01)  # a probability on the border of two bins
    assert score.class_log_loss(truth.astype(int), both) == pytest.approx(score.log_loss(truth, p))


def test_the_information_coefficient_is_spearmans(sample):
    truth, p = sample
    move = truth * 3 + np.random.default_rng(0).standard_normal(len(truth)).round(1)
    assert score.information_coefficient(p, move) == pytest.approx(stats.spearmanr(p, move).statistic)
    assert score.information_coefficient(p, -p**3) == pytest.approx(-1)
    assert np.isnan(score.information_coefficient(np.ones(5), np.arange(5.0)))


def test_a_draw_is_of_whole_blocks_in_equal_number():
    blocks = np.array([5, 5, 7, 7, 7, 9])
    for rows in score.resampled(blocks, 50, 1):
        counts = {block: (blocks[rows] == block).sum() / (blocks == block).sum() for block in (5, 7, 9)}
        assert sum(counts.values()) == 3 and all(count == int(count) for count in counts.values())


def test_the_interval_of_what_is_never_a_number_is_none():
    low, high = score.interval_of(lambda rows: float("nan"), np.arange(5), 10)
    assert np.isnan(low) and np.isnan(high)
