"""Calibration finds what is wrong with logits, and nothing where nothing is."""

import numpy as np
import pytest

from models import calibrate
from models.score import class_calibration_error, class_log_loss


def drawn(logits: np.ndarray, seed: int = 0) -> np.ndarray:
    """Classes that come as often as softmax(logits) says."""
    p = calibrate.softmax(logits)
    return (p.cumsum(1) < np.random.default_rng(seed).random((len(p), 1))).sum(1)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (0.3, 0.8), (4.0, -0.5)])
def test_it_finds_the_curve_that_the_logits_were_bent_by(classes, scale, shift):
    true = np.random.default_rng(1).standard_normal((20_000, classes)) * 1.5
    truth = drawn(true)
    bent = true.copy()
    bent[:, -1] -= shift
    found = calibrate.fit(bent / scale, truth)
    assert found.scale == pytest.approx(scale, rel=0.1)
    assert found.shift[-1] - found.shift[0] == pytest.approx(shift, abs=0.1)
    p = found.apply(bent / scale)
    assert p.sum(1) == pytest.approx(1) and class_calibration_error(truth, p) < 0.02
    assert class_log_loss(truth, p) <= class_log_loss(truth, calibrate.softmax(bent / scale)) + 1e-4


def test_logits_that_tell_nothing_give_the_base_rate():
    random = np.random.default_rng(2)
    truth = (random.random(5000) < 0.3).astype(int)
    found = calibrate.fit(random.standard_normal((5000, 2)) * 10, truth)
    assert found.scale < 0.01 and found.apply(np.zeros((1, 2)))[0, 1] == pytest.approx(truth.mean(), abs=0.01)


def test_logits_that_are_the_wrong_way_round_are_not_turned():
    """A model that is wrong on the rows held out is switched off, and not reversed: that would be luck."""
    true = np.random.default_rng(3).standard_normal((2000, 2))
    assert calibrate.fit(-true, drawn(true)).scale == 0


def test_one_fall_of_the_price_is_one_observation():
    """A thousand rows whose labels are all the same fall say little about the base rate."""
    logits, truth = np.random.default_rng(4).standard_normal((1000, 2)), np.zeros(1000, int)
    assert calibrate.fit(logits, truth).apply(np.zeros((1, 2)))[0, 0] > 0.95
    assert calibrate.fit(logits, truth, 2).apply(np.zeros((1, 2)))[0, 0] < 0.65


def test_huge_logits_do_no_harm():
    found = calibrate.fit(np.array([[1e6, 0.0], [0.0, 1e6], [0.0, 1e6]]), np.array([0, 1, 0]))
    assert np.isfinite(found.apply(np.array([[1e6, 0.0], [-1e6, 1e6]]))).all()
