"""When a position is left: a table, and that both sides are treated alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Decision
from common.exits import EXITS, Exit, Policy, due, turned

S = 10**9
ALL = Policy.of(Decision(exit_on_signal=True, hold_threshold=0.01, exit_after_s=30.0, stop_bps=20.0, min_hold_s=2.0))


def leave(side: int, leaning: float, age_ns: int, cost: int, price: int, policy: Policy) -> Exit | None:
    """What is due comes first, whatever is predicted."""
    return due(side, age_ns, cost, price, policy) or turned(side, leaning, age_ns, policy)


def test_by_default_nothing_is_ever_left():
    policy = Policy.of(Decision())
    assert policy.idle and policy == Policy() and not ALL.idle
    assert ALL.timed and not policy.timed and not Policy.of(Decision(exit_on_signal=True, min_hold_s=1.0)).timed
    assert Policy.of(Decision(stop_bps=1.0)).timed and Policy.of(Decision(exit_after_s=1.0)).timed
    assert leave(1, -0.5, 10**18, 100, 1, policy) is None


@pytest.mark.parametrize("leaning, age_s, price, left", [
    (0.2, 10, 10_000, None), (0.01, 10, 10_000, None),  # still leans its way, as much as it takes to stay
    (0.009, 10, 10_000, "EXIT_SIGNAL"), (-0.2, 10, 10_000, "EXIT_SIGNAL"),
    (-0.2, 1, 10_000, None), (-0.2, 2, 10_000, "EXIT_SIGNAL"),  # the least that it is held
    (0.2, 29, 10_000, None), (0.2, 30, 10_000, "EXIT_HORIZON"),
    (0.2, 10, 9_981, None), (0.2, 10, 9_980, "EXIT_STOP"), (0.2, 1, 9_980, "EXIT_STOP"),  # a stop waits for nothing
    (-0.2, 30, 9_000, "EXIT_STOP"), (-0.2, 30, 10_000, "EXIT_HORIZON"),
    (0.2, 10, 0, None),  # a price that is not known
])
def test_a_long_position_is_left(leaning, age_s, price, left):
    found = leave(1, leaning, age_s * S, 10_000, price, ALL)
    assert (found and found.reason) == left and (left is None or left in EXITS)


def test_an_exit_names_value_and_limit():
    assert leave(1, 0.2, S, 10_000, 9_950, ALL) == ("EXIT_STOP", 50.0, 20.0)
    assert leave(1, 0.2, 31 * S, 10_000, 10_000, ALL) == ("EXIT_HORIZON", 31 * S, 30 * S)
    assert leave(1, -0.2, 3 * S, 10_000, 10_000, ALL) == ("EXIT_SIGNAL", -0.2, 0.01)


@given(st.floats(-0.5, 0.5), st.integers(0, 60 * S), st.integers(1, 10**6), st.integers(-10**5, 10**5))
def test_both_sides_are_treated_alike(leaning, age, cost, change):
    if abs(change) < cost:
        assert leave(1, leaning, age, cost, cost + change, ALL) == leave(-1, -leaning, age, cost, cost - change, ALL)


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.integers(0, 60 * S), st.integers(9_000, 11_000))
def test_who_leans_further_its_way_never_leaves_sooner(one, other, age, price):
    less, more = sorted((one, other))
    if leave(1, less, age, 10_000, price, ALL) is None:
        assert leave(1, more, age, 10_000, price, ALL) is None
