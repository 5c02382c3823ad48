"""Folds: trained on what was known, tested on what came after; and what is not so is found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.folds import Fold, edges, leakage, walk_forward

S = 10**9


def kinds(*args, **more) -> list[str]:
    return [violation.kind for violation in leakage(*args, **more)]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=60),
       st.integers(1, 5), st.integers(0, 40), st.booleans())
def test_nothing_that_a_fold_learns_is_known_after_its_test_begins(samples, folds, embargo, sliding):
    time, horizon, back = (np.array(column, np.int64) for column in zip(*samples))
    if time.max() - time.min() < folds:
        return
    until, start = time + horizon, time - back
    found = walk_forward(time, until, folds, embargo, sliding=sliding, start_ns=start)
    assert len(found) == folds
    tested = np.zeros(len(time), int)
    for fold in found:
        tested += fold.test
        assert (time[fold.test] >= fold.begin_ns).all() and (time[fold.test] < fold.end_ns).all()
        assert (until[fold.train] <= fold.begin_ns - embargo).all()
        assert (start[fold.test] >= fold.begin_ns - embargo).all()
        assert set(kinds(fold, time, until, embargo, start_ns=start)) <= {"empty"}
    assert tested.max() <= 1


def test_training_expands_or_slides():
    time = np.arange(100) * S
    expanding, sliding = (walk_forward(time, time + 2 * S, 4, 3 * S, sliding=slides, borders=[
        20 * S * k for k in range(6)]) for slides in (False, True))
    assert [int(fold.test.sum()) for fold in expanding] == [20] * 4
    assert [int(fold.train.sum()) for fold in expanding] == [16, 36, 56, 76]  # 2 s of label and 3 s of embargo less
    assert [int(fold.train.sum()) for fold in sliding] == [16] * 4
    assert expanding[0].begin_ns == 20 * S and expanding[-1].end_ns == 100 * S


def test_each_kind_of_leakage_is_found():
    time = np.arange(100) * S
    until = time + 5 * S
    fold = walk_forward(time, until, 1, 10 * S)[0]
    assert kinds(fold, time, until, 10 * S, start_ns=time, keys=np.stack([time, time], 1)) == []
    purged = fold._replace(train=time < fold.begin_ns)  # as if nobody had thought of labels
    assert kinds(purged, time, until) == ["label"]
    assert kinds(fold, time, until + 20 * S) == ["label"]  # a label that looks further than it was said to
    assert kinds(fold, time, until, 12 * S) == ["label"]
    assert kinds(fold, time, until, start_ns=time - 30 * S) == ["window"]
    assert kinds(Fold(fold.test, fold.train, 0, 0), time, until) == ["order", "label"]
    assert kinds(fold._replace(train=fold.train | fold.test), time, until)[0] == "both"
    again = np.where(fold.test, time - 50 * S, time)  # what is tested was trained on, under another number
    assert kinds(fold, time, until, keys=np.stack([again, np.ones(100, np.int64)], 1)) == ["duplicate"]
    assert kinds(fold._replace(train=fold.train & False), time, until) == ["empty"]
    violation = leakage(purged, time, until)[0]
    assert violation.count == 4 and f"after {50 * S}," in violation.text


@pytest.mark.parametrize("call, what", [
    (lambda: edges(0, 10, 0), "folds=0"), (lambda: edges(5, 6, 4), "too short"),
    (lambda: walk_forward(np.zeros(0, np.int64), np.zeros(0, np.int64), 2, 0), "nothing to make folds of"),
    (lambda: walk_forward(np.arange(9), np.arange(9), 2, -1), "below 0")])
def test_what_cannot_be_parted_is_refused(call, what):
    with pytest.raises(ConfigError, match=what):
        call()
