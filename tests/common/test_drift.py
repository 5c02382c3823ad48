"""Drift: the index as defined, quiet where nothing changed, loud where something did."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.drift import MAJOR, MIN_ROWS, MINOR, Drift, statistics
from common.errors import ModelError

NAMES = ("normal", "often 0", "constant", "two values")


def values(random: np.random.Generator, rows: int, shift: float = 0.0) -> np.ndarray:
    """float32[rows, 4]: columns of the kinds that features have."""
    normal = random.normal(shift, 1, rows)
    often = np.where(random.random(rows) < 0.35 + 0.3 * shift, 0.0, random.normal(0, 1, rows))
    two = (random.random(rows) < 0.31 + 0.4 * shift).astype(float)
    return np.stack([normal, often, np.full(rows, 7.0), two], axis=1).astype(np.float32)


def fed(drift: Drift, rows: np.ndarray) -> Drift:
    for row in rows:
        drift.add(row)
    return drift


@pytest.fixture(scope="module")
def told() -> dict:
    return statistics(values(np.random.default_rng(0), 20_000))


def test_statistics_are_deciles_shares_and_range(told):
    rows = values(np.random.default_rng(0), 20_000)
    assert told["rows"] == 20_000 and np.shape(told["deciles"]) == (4, 9) and np.shape(told["shares"]) == (4, 10)
    assert np.allclose(np.sum(told["shares"], axis=1), 1) and np.allclose(told["shares"][0], 0.1, atol=1e-3)
    assert told["low"] == rows.min(axis=0).tolist() and told["high"] == rows.max(axis=0).tolist()
    assert told["shares"][2] == [1.0] + [0.0] * 9
    assert sorted(share for share in told["shares"][3] if share) == pytest.approx([0.31, 0.69], abs=0.02)


def test_the_index_is_the_sum_of_its_definition(told):
    """Weights that forget nothing: the shares are those of the rows."""
    rows = values(np.random.default_rng(5), 3000, 0.3)
    drift = fed(Drift(NAMES, told, rows=10**9), rows)
    for column in range(4):
        bins = np.searchsorted(np.array(told["deciles"][column]), rows[:, column].astype(float), side="left")
        actual = np.maximum(np.bincount(bins, minlength=10) / len(rows), 1e-4)
        expected = np.maximum(told["shares"][column], 1e-4)
        assert drift.psi()[column] == pytest.approx(((actual - expected) * np.log(actual / expected)).sum(), abs=1e-5)


def test_the_same_market_does_not_drift_and_another_does(told):
    same = fed(Drift(NAMES, told), values(np.random.default_rng(1), 4000)).report()
    assert (same["rows"], same["shifted"], same["changed"]) == (4000, 0, 0)
    other = fed(Drift(NAMES, told), values(np.random.default_rng(1), 4000, 1.0)).report()
    assert other["shifted"] == 3 and other["changed"] >= 2 and other["worst"][0][1] > MAJOR
    assert {name for name, _, _ in other["worst"][:3]} == {"normal", "often 0", "two values"}


def test_old_rows_are_forgotten(told):
    drift = fed(Drift(NAMES, told, rows=500), values(np.random.default_rng(1), 5000, 1.0))
    assert drift.psi()[0] > MAJOR
    fed(drift, values(np.random.default_rng(2), 5000))
    assert (drift.psi() < MINOR).all()


def test_weights_that_grow_are_brought_back_and_change_nothing(told, monkeypatch):
    rows = values(np.random.default_rng(1), 600, 0.5)
    plain = fed(Drift(NAMES, told, rows=50), rows)
    monkeypatch.setattr("common.drift._RESCALE", 10.0)
    assert np.allclose(fed(Drift(NAMES, told, rows=50), rows).psi(), plain.psi())


def test_a_column_that_was_constant_may_stay_so_and_may_not_move(told):
    rows = values(np.random.default_rng(1), MIN_ROWS)
    assert fed(Drift(NAMES, told), rows).psi()[2] == 0
    rows[:, 2] = 8
    drift = fed(Drift(NAMES, told), rows)
    assert drift.psi()[2] > MAJOR and drift.outside()[2] == 1.0


def test_the_share_outside_of_the_training_range_is_told_where_it_is_known(told):
    rows = values(np.random.default_rng(1), 1000)
    rows[::4, 0] = 100
    drift = fed(Drift(NAMES, told, rows=10**9), rows)
    assert drift.outside()[0] == pytest.approx(0.25) and drift.report()["worst"][0][0] == "normal"
    bare = Drift(NAMES, {"deciles": told["deciles"]})
    assert bare.outside() is None and fed(bare, rows).report()["worst"][0][2] is None


def test_too_few_rows_tell_nothing(told):
    drift = fed(Drift(NAMES, told), values(np.random.default_rng(1), MIN_ROWS - 1, 3.0))
    assert drift.report()["shifted"] is None and drift.report()["worst"] == []
    assert Drift(NAMES, told).psi().tolist() == [0.0] * 4


def test_deciles_alone_raise_no_false_alarm_and_say_what_they_cannot_tell(told):
    bare = Drift(NAMES, {"deciles": told["deciles"]})
    assert (fed(bare, values(np.random.default_rng(1), 4000)).psi() < MINOR).all()
    assert bare.untold == ("constant", "two values") and bare.report()["untold"] == 2
    assert fed(Drift(NAMES, {"deciles": told["deciles"]}), values(np.random.default_rng(1), 4000, 1.0)).psi()[0] > MAJOR


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=10, max_size=300))
@settings(max_examples=50)
def test_training_rows_never_drift_from_themselves(column):
    rows = np.array(column, np.float32)[:, None]
    drift = fed(Drift(("x",), statistics(rows), rows=10**9), rows)
    assert drift.psi()[0] < 1e-5 and drift.outside()[0] == 0


@pytest.mark.parametrize("wrong", [{}, {"deciles": [[1.0] * 9]}, {"deciles": [["x"] * 9] * 4},
                                   {"deciles": [[float("nan")] * 9] * 4},
                                   {"deciles": [[1.0] * 9] * 4, "shares": [[0.1] * 9] * 4}])
def test_statistics_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ModelError, match="statistics"):
        Drift(NAMES, wrong)
