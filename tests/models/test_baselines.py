"""The plain guesses say what they say they say, and have seen only the training rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models import baselines

CLASSES = ("down", "flat", "up")


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([10, 11, 12])), min_size=1, max_size=60))
def test_the_last_move_is_the_last_change_of_the_mid_in_its_stream(rows):
    rows = sorted(rows, key=lambda row: row[0])
    symbol, bid = (np.array(column, dtype=np.int64) for column in zip(*rows))
    starts = np.flatnonzero(np.diff(symbol, prepend=-1))
    found = baselines.last_move(bid, bid + 2, starts)
    last = 0
    for i, (of, price) in enumerate(rows):
        if i == 0 or rows[i - 1][0] != of:
            last = 0
        elif price != rows[i - 1][1]:
            last = 2 * (price - rows[i - 1][1])
        assert found[i] == last


def test_the_answers_by_hand():
    labels = np.array([0, 2, 2, 2, 0, 1, 2])
    signal = np.array([-1.0, 5.0, 2.0, 1.0, 3.0, -0.5, 0.0])
    found = baselines.answers({"s": signal}, np.arange(5), np.array([5, 6, 1]), labels, CLASSES)
    often = np.array([2 + 1 / 3, 1 / 3, 3 + 1 / 3]) / 6
    assert np.allclose(found["base rate"].p, often) and found["base rate"].guess.tolist() == [2, 2, 2]
    s = found["s"]
    assert s.guess.tolist() == [0, 2, 2]  # falls; without a sign what comes most often; rises
    assert np.allclose(s.p[0], (np.array([1, 0, 0]) + often) / 2)  # one row was below 0, it fell
    assert np.allclose(s.p[1], often)  # none was 0
    assert np.allclose(s.p[2], (np.array([1, 0, 3]) + often) / 5)
    assert s.rise.tolist() == [-0.5, 0.0, 5.0]


def test_they_have_not_seen_what_they_are_asked_about():
    random = np.random.default_rng(0)
    labels, signal = random.integers(0, 3, 200), random.standard_normal(200)
    train, test = np.arange(100), np.arange(100, 200)
    before = baselines.answers({"s": signal}, train, test, labels, CLASSES)
    labels[100:] = 0
    after = baselines.answers({"s": signal}, train, test, labels, CLASSES)
    for name in before:
        assert all(np.array_equal(a, b) for a, b in zip(before[name], after[name]))


def test_a_models_answers_follow_from_its_probabilities():
    found = baselines.of_model(np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]), np.array([0.2, 0.6, 0.2]), CLASSES)
    assert found.guess.tolist() == [1, 0] and np.allclose(found.rise, [0.1, -0.5])
    assert found.even.tolist() == [2, 0]  # 0.3 is more above its 0.2 than 0.5 is above its 0.6
