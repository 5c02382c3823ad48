"""Sizes: properties that hold for every probability, and a few worked by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Decision
from common.fixed import SCALE
from common.sizing import Curve, break_even, g, half_spread_bps, kelly, lean, move_bps, notional, quantity, room

leanings = st.floats(-0.5, 0.5)
vols = st.floats(0, 1e4)
plain = dict(threshold=st.floats(0, 0.4), q_max=st.integers(0, 10**6 * SCALE), power=st.floats(0, 4),
             vol_target=st.floats(0.01, 100))
#: those of which more volatility never makes more
power_curves = st.builds(Curve, **plain)
curves = power_curves | st.builds(
    Curve, **plain, toll_bps=st.floats(0, 20), move_bps=st.floats(0, 50), sqrt_ticks=st.floats(0, 50),
    fraction=st.sampled_from([0.0, 0.25, 1.0]), capital=st.integers(0, 10**7 * SCALE), inventory=st.floats(0, 3),
    drawdown=st.integers(0, 10**4 * SCALE))
worlds = st.tuples(st.floats(0, 20) | st.just(math.inf), st.floats(-2, 2), st.integers(0, 10**5 * SCALE))


@given(curves, leanings, vols, worlds)
def test_it_is_symmetric(curve, leaning, vol, world):
    assert notional(leaning, vol, curve, *world) == -notional(-leaning, vol, curve, *world)


@given(curves, leanings, leanings, vols, worlds)
def test_more_confidence_never_gives_less(curve, one, other, vol, world):
    weak, strong = sorted((abs(one), abs(other)))
    assert notional(weak, vol, curve, *world) <= notional(strong, vol, curve, *world)


@given(curves, leanings, vols, worlds, worlds)
def test_a_wider_spread_a_fuller_position_or_a_deeper_drawdown_never_gives_more(curve, leaning, vol, one, other):
    better, worse = map(min, zip(one, other)), map(max, zip(one, other))
    assert abs(notional(leaning, vol, curve, *worse)) <= abs(notional(leaning, vol, curve, *better))


@given(power_curves, leanings, vols, vols)
def test_more_volatility_never_gives_more(curve, leaning, one, other):
    calm, wild = sorted((one, other))
    assert abs(notional(leaning, wild, curve)) <= abs(notional(leaning, calm, curve))


@given(curves, leanings, vols, worlds)
def test_it_never_exceeds_the_largest_size_and_has_the_sign_of_the_leaning(curve, leaning, vol, world):
    size = notional(leaning, vol, curve, *world)
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


@pytest.mark.parametrize("decision, sizes", [  # of |p - 0.5| = 0.1, 0.2, 0.4
    (dict(sizing="linear", power=3.0), (1000, 2000, 4000)),
    (dict(sizing="power", power=2.0), (200, 800, 3200)),
    # m = 20 bps, c = 2 * (0.5 + 1) = 3 bps: 0.0001 * 10000 * (0.2 * 20 - 3) bps / (20 bps) ** 2
    (dict(sizing="kelly", capital=10_000.0, kelly_fraction=0.0001, move_bps=20.0), (25, 125, 325)),
    (dict(sizing="kelly", capital=10_000.0, kelly_fraction=0.005, move_bps=20.0), (1250, 5000, 5000)),
    (dict(sizing="kelly", capital=10_000.0, kelly_fraction=0.0001, move_ticks=100.0), (0, 100, 500)),  # m = 10 bps
])
def test_the_curves_by_hand(decision, sizes):
    curve = Curve.of(Decision(threshold=0.0, order_notional=5000.0, fee_bps=1.0, **decision))
    found = [notional(leaning, 1.0, curve, half_spread=0.5) for leaning in (0.1, 0.2, 0.4)]
    assert found == [pytest.approx(size * SCALE, abs=1) for size in sizes]


@pytest.mark.parametrize("decision, vol, least", [
    (dict(move_bps=10.0), 1.0, 0.25), (dict(move_bps=10.0), 9.0, 0.25),
    (dict(move_bps=10.0, slippage_bps=1.5), 1.0, 0.4),
    (dict(move_ticks=25.0), 2.0, 0.25), (dict(move_ticks=25.0), 0.5, 1.0), (dict(move_ticks=25.0), 0.0, math.inf)])
def test_the_break_even_by_hand(decision, vol, least):
    curve = Curve.of(Decision(cost_aware=True, fee_bps=2.0, **decision))
    assert break_even(0.5, vol, curve) == pytest.approx(least)


@given(st.floats(0.01, 0.5), st.floats(0, 10), st.floats(0, 10), st.floats(0.1, 100))
def test_from_the_break_even_on_a_trade_earns_its_costs(strength, half_spread, toll, move):
    curve = Curve(0.0, SCALE, 1.0, 1.0, costed=True, toll_bps=toll, move_bps=move, fraction=1.0, capital=SCALE)
    profit = 2 * strength * move - 2 * (half_spread + toll)  # (p_up - p_down) * m - c
    if abs(profit) > 1e-9:
        assert (strength > break_even(half_spread, 1.0, curve)) == (profit > 0)
        assert (kelly(strength, half_spread, 1.0, curve) > 0) == (profit > 0)


def test_without_a_market_nothing_earns_its_costs():
    assert half_spread_bps(99 * SCALE, 101 * SCALE) == 100.0 and half_spread_bps(SCALE, SCALE) == 0.0
    assert half_spread_bps(0, SCALE) == half_spread_bps(2 * SCALE, SCALE) == math.inf
    curve = Curve.of(Decision(cost_aware=True, move_bps=5.0))
    assert break_even(math.inf, 1.0, curve) == math.inf and kelly(0.5, math.inf, 1.0, curve) == 0.0


def test_what_adds_to_a_position_shrinks_and_so_does_all_in_a_drawdown():
    curve = Curve.of(Decision(order_notional=1000.0, inventory=2.0, drawdown=400.0))
    assert notional(0.5, 1.0, curve) == 1000 * SCALE
    assert notional(0.5, 1.0, curve, used=0.5) == 250 * SCALE and notional(0.5, 1.0, curve, used=1.5) == 0
    assert notional(0.5, 1.0, curve, used=-0.5) == 1000 * SCALE, "the way out is not made smaller"
    assert notional(0.5, 1.0, curve, lost=100 * SCALE) == 750 * SCALE
    assert notional(0.5, 1.0, curve, lost=400 * SCALE) == 0


def test_by_default_a_size_depends_on_nothing_but_the_prediction():
    assert Curve.of(Decision()).plain
    for changes in (dict(cost_aware=True), dict(sizing="kelly"), dict(inventory=1.0), dict(drawdown=1.0)):
        assert not Curve.of(Decision(**changes)).plain
    assert move_bps(3.0, Curve.of(Decision(move_ticks=4.0))) == 6.0


@given(st.integers(0, 10**7 * SCALE), st.integers(0, 10**6 * SCALE), st.integers(-10**4 * SCALE, 10**4 * SCALE),
       st.integers(1, 10**5 * SCALE))
def test_what_there_is_room_for_is_the_most_that_stays_within_the_capital(capital, others, filled, price):
    qty = room(capital, others, filled, price)
    if qty and filled + qty > 0:
        assert others + (filled + qty) * price // SCALE <= capital
    assert (others * SCALE + (filled + qty + 1) * price) > capital * SCALE
