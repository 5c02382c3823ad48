"""The scores against their definitions and against scikit-learn."""

import numpy as np
import pytest
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
