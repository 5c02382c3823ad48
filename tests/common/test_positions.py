"""Positions against a replay of the same fills by the definition."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from common.fixed import SCALE, parse
from common.positions import MONEY, Position, to_fixed

fills = st.lists(st.tuples(st.sampled_from([1, -1]), st.integers(1, 5 * SCALE), st.integers(1, 10**5 * SCALE),
                           st.integers(-SCALE, SCALE)), max_size=40)


def booked(history) -> Position:
    position = Position()
    for fill in history:
        position.fill(*fill)
    return position


def by_definition(history) -> tuple[int, Fraction, Fraction]:
    """Quantity, average cost and realised profit in exact fractions, one unit of 1e-8 rules."""
    qty, average, realised = 0, Fraction(0), Fraction(0)
    for side, count, price, _ in history:
        closing = min(count, abs(qty)) if qty * side < 0 else 0
        realised += closing * (price - average) * (-side)
        qty += side * closing
        opening = count - closing
        if opening:
            average = (average * abs(qty) + price * opening) / (abs(qty) + opening) if qty else Fraction(price)
            qty += side * opening
    return qty, average, realised


@given(fills)
def test_it_agrees_with_the_definition_but_for_the_last_digits(history):
    position, (qty, average, realised) = booked(history), by_definition(history)
    assert position.qty == qty
    assert position.fees == sum(fill[3] for fill in history)
    # Each close rounds once, by less than one unit of 1e-16 for the whole position.
    assert abs(position.realised - realised) <= len(history)
    assert abs(position.cost - qty * average) <= len(history)


@given(fills, st.integers(1, 10**5 * SCALE))
def test_realised_and_unrealised_together_are_the_cash_flow_to_the_last_digit(history, mark):
    position = booked(history)
    cash = -sum(side * qty * price for side, qty, price, _ in history)
    assert position.realised + position.unrealised(mark) == cash + position.qty * mark


@given(fills)
def test_a_flat_position_costs_nothing(history):
    position = booked(history)
    if position.qty:
        position.fill(-1 if position.qty > 0 else 1, abs(position.qty), 10**8, 0)
    assert position.qty == 0 and position.cost == 0 and position.average_price == 0
    assert position.unrealised(123) == 0 and position.notional(123) == 0


@given(fills)
def test_cost_has_the_sign_of_the_position(history):
    position = booked(history)
    assert position.cost * position.qty >= 0


def test_by_hand():
    position = Position()
    position.fill(1, parse("2"), parse("100"), parse("0.02"))
    position.fill(1, parse("1"), parse("103"), parse("0.01"))
    assert position.average_price == parse("101")
    position.fill(-1, parse("2"), parse("104"), parse("0.02"))
    assert position.realised == 6 * MONEY and position.qty == parse("1")
    assert position.unrealised(parse("99")) == -2 * MONEY
    position.fill(-1, parse("3"), parse("100"), 0)
    assert position.qty == parse("-2") and position.realised == 5 * MONEY
    assert position.average_price == parse("100") and position.unrealised(parse("90")) == 20 * MONEY
    assert position.notional(parse("90")) == parse("180")
    assert to_fixed(position.realised - position.fees * SCALE) == parse("4.95")
