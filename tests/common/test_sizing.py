"""Sizes: properties that hold for every probability, and a few worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Decision
from common.fixed import SCALE
from common.sizing import Curve, g, lean, notional, quantity

leanings = st.floats(-0.5, 0.5)
vols = st.floats(0, 1e4)
curves = st.builds(Curve, threshold=st.floats(0, 0.4), q_max=st.integers(0, 10**6 * SCALE),
                   power=st.floats(0, 4), vol_target=st.floats(0.01, 100))


@given(curves, leanings, vols)
def test_it_is_symmetric(curve, leaning, vol):
    assert notional(leaning, vol, curve) == -notional(-leaning, vol, curve)


@given(curves, leanings, leanings, vols)
def test_more_confidence_never_gives_less(curve, one, other, vol):
    weak, strong = sorted((abs(one), abs(other)))
    assert notional(weak, vol, curve) <= notional(strong, vol, curve)


@given(curves, leanings, vols, vols)
def test_more_volatility_never_gives_more(curve, leaning, one, other):
    calm, wild = sorted((one, other))
    assert abs(notional(leaning, wild, curve)) <= abs(notional(leaning, calm, curve))


@given(curves, leanings, vols)
def test_it_never_exceeds_the_largest_size_and_has_the_sign_of_the_leaning(curve, leaning, vol):
    size = notional(leaning, vol, curve)
    assert abs(size) <= curve.q_max
    assert size == 0 or (size > 0) == (leaning > 0)


@given(curves, leanings, vols)
def test_it_is_zero_inside_the_threshold(curve, leaning, vol):
    if abs(leaning) < curve.threshold or leaning == 0:
        assert notional(leaning, vol, curve) == 0


@given(st.integers(0, 10**6 * SCALE), st.integers(1, 10**6 * SCALE), st.integers(1, 10 * SCALE))
def test_a_quantity_is_the_largest_number_of_lots_that_can_be_paid(size, price, lot):
    count = quantity(size, price, lot)
    assert count % lot == 0 and count * price <= size * SCALE < (count + lot) * price


@given(st.floats(0, 1))
def test_with_two_classes_the_leaning_is_the_distance_from_one_half(p):
    assert lean(p, 1 - p) == pytest.approx(p - 0.5)


def test_a_class_for_no_move_takes_from_both_sides():
    assert lean(0.3, 0.3) == 0 and lean(0.5, 0.1) == pytest.approx(0.2)


@given(st.floats(0.25, 4))
def test_the_curve_runs_from_nothing_to_all(power):
    assert g(0.0, power) == 0 and g(1.0, power) == 1


def test_by_hand():
    curve = Curve.of(Decision(threshold=0.0, order_notional=5000.0, power=1.0, vol_target_bps=3.0))
    assert notional(0.01, 1.0, curve) == pytest.approx(100 * SCALE)
    assert notional(0.35, 1.0, curve) == pytest.approx(3500 * SCALE)
    assert notional(-0.35, 6.0, curve) == pytest.approx(-1750 * SCALE)
    assert quantity(3500 * SCALE, 61000 * SCALE, 10_000) == 5_730_000  # 0.05737... rounded down to 0.0573
