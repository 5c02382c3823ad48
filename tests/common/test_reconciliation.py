"""Two pictures are compared, one lost fill is one difference, and what moves is looked at again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.fixed import SCALE
from common.gateways import Ended, Filled
from common.orders import BUY, SELL, Order, State
from common.positions import Position
from common.reconciliation import (
    LOOKS,
    MOST,
    Comparison,
    Held,
    Journaled,
    OrderSight,
    Row,
    Sight,
    Told,
    compare,
    corrections,
    following,
    remedy,
    remedy_of_position,
)

ORDER = Order("o-1", "A", BUY, 10, 100, 1, 1, time_in_force="GTC")
ALIVE = Told(True, "v1")
OURS = Journaled(ORDER, State.ACKNOWLEDGED, "v1", {})


def fill(name: str, qty: int) -> Filled:
    return Filled("o-1", name, qty, 100, 0, 0)


def end(state: State, filled: int, *fills: Filled, reason: str = "") -> Told:
    return Told(True, "v1", Ended("o-1", state, filled, reason), fills)


def sight(ours: Journaled = OURS, told: Told = ALIVE, held: int = 0, theirs: int = 0, still: bool = True) -> Sight:
    return Sight("A", still, (OrderSight(ours, told),), Held(held, 100), Held(theirs, 100))


@pytest.mark.parametrize("ours, told, words", [
    (OURS, ALIVE, ""),
    (OURS._replace(state=State.PARTLY_FILLED, fills={"f": 3}), Told(True, "v1", None, (fill("f", 3),)), ""),
    (OURS._replace(state=State.CANCELLING), ALIVE, ""),
    (OURS._replace(state=State.SENT), ALIVE, "alive at the venue, which the journal has not heard"),
    (OURS._replace(state=State.UNKNOWN), ALIVE, "alive at the venue, which the journal has not heard"),
    (OURS, Told(False), "the venue does not know it"),
    (OURS, end(State.EXPIRED, 0, reason="too late"), "expired: too late"),
    (OURS, end(State.FILLED, 10, fill("f", 4), fill("g", 6)), "filled; 2 fills of 0.0000001 are not in the journal"),
    (OURS._replace(fills={"x": 3}), ALIVE, "1 fill of 0.00000003 is in the journal and not at the venue"),
])
def test_what_differs_about_an_order_is_said_in_words(ours, told, words):
    found = OrderSight(ours, told)
    assert (words in found.difference) if words else found.difference == ""
    assert bool(remedy(found, False)) == bool(remedy(found, True)) == bool(words)


def test_a_fill_that_is_missing_explains_the_position_that_it_makes():
    lost = sight(told=end(State.FILLED, 10, fill("f", 10)), held=5, theirs=15)
    assert lost.differs and lost.unexplained == 0 and remedy_of_position(lost, False) == ""
    short = OURS._replace(order=ORDER._replace(side=SELL))
    assert sight(short, end(State.FILLED, 10, fill("f", 10)), 5, -5).unexplained == 0
    stranger = sight(held=5, theirs=7)
    assert stranger.differs and stranger.unexplained == 2 and "adopt" in remedy_of_position(stranger, False)
    assert not sight(held=7, theirs=7).differs


def test_a_symbol_is_still_if_nothing_moved_while_it_was_looked_at():
    row = Row((OURS,), Position(5, 500), 3)
    look = lambda after, again: compare({"A": row}, {"A": after}, {"o-1": ALIVE}, {"o-1": again},  # noqa: E731
                                        {"A": (5, 100)})["A"]
    assert look(row, ALIVE).still and not look(row, ALIVE).differs
    assert not look(row, end(State.FILLED, 10, fill("f", 10))).still
    for after in (row._replace(position=Position(6, 600)), row._replace(last_order=4), row._replace(orders=()),
                  row._replace(orders=(OURS._replace(state=State.CANCELLING),)),
                  row._replace(orders=(OURS._replace(fills={"f": 1}),))):
        assert not look(after, ALIVE).still


def test_what_there_is_to_compare():
    rows = following([OURS], ["B"], {"C": Position(1, 1), "D": Position()}, {"A": 7})
    assert list(rows) == ["A", "B", "C"] and rows["A"] == Row((OURS,), None, 7) and rows["C"].position.qty == 1


def test_agreement_counts_at_once_and_a_difference_when_it_stays():
    found = Comparison()
    assert not found.over
    found.take({"A": sight(), "B": sight(held=1, theirs=2)})
    assert found.settled("A") and not found.settled("B") and not found.over
    found.take({"A": sight(held=9), "B": sight(held=1, theirs=3)})  # A is settled, B differs in another way
    for _ in range(LOOKS - 2):
        found.take({"B": sight(held=2, theirs=4)})  # by as much: it trades on
    assert not found.settled("B")
    found.take({"B": sight(held=2, theirs=4)})
    assert found.over and not found.agrees and found.sights["A"] == sight()
    assert found.taken == LOOKS + 1


def test_a_difference_that_goes_away_was_none_and_what_never_stands_still_is_not_settled():
    found = Comparison()
    for _ in range(LOOKS - 1):
        found.take({"A": sight(held=1, theirs=2)})
    found.take({"A": sight(held=2, theirs=2)})
    assert found.over and found.agrees
    found = Comparison()
    while not found.over:
        found.take({"A": sight(held=2, theirs=2, still=False)})
    assert found.taken == MOST and not found.agrees and not found.settled("A")
    found = Comparison()
    for still in (True, False) * LOOKS:
        found.take({"A": sight(held=1, theirs=2, still=still)})
    assert not found.settled("A"), "in a row"


amounts = st.integers(-10**12, 10**12)


@given(st.lists(st.tuples(st.sampled_from([BUY, SELL]), st.integers(1, 10**12), st.integers(1, 10**12)), max_size=6),
       amounts, st.integers(1, 10**12))
def test_corrections_bring_any_position_to_any_other_and_what_is_given_up_earns_next_to_nothing(fills, theirs, price):
    ours = Position()
    for side, qty, at in fills:
        ours.fill(side, qty, at, 0)
    before, held = ours.realised, ours.qty
    found = corrections(ours, Held(theirs, price))
    assert len(found) <= 2 and all(part.qty > 0 for part in found) and bool(found) == (theirs != held)
    for part in found:
        ours.fill(part.side, part.qty, part.price, 0)
    assert ours.qty == theirs
    assert abs(ours.realised - before) <= abs(held), "of 1e-16, by the rounding of an average"
    if held * theirs <= 0 and theirs:
        assert ours.average_price == price


def test_a_venue_that_tells_no_price_is_taken_at_our_own():
    assert corrections(Position(2 * SCALE, 2 * SCALE * 50), Held(3 * SCALE, 0)) == [(BUY, SCALE, 50)]
    assert corrections(Position(), Held(SCALE, 0))[0].price == 0, "which the one who books refuses"
