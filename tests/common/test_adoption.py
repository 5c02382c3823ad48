"""What the venue says goes into the journal, whole or not at all, and the journal stays sound; procs/test_reconcile has
it with real exchanges."""

import pytest

from common.adoption import adopt
from common.errors import ContractError, LifeCycleError
from common.fixed import SCALE
from common.gateways import Ended, Filled
from common.journal import Journal, Reader
from common.orders import BUY, CORRECTION, SELL, Order, State
from common.reconciliation import Held, Journaled, OrderSight, Sight, Told

ORDER = Order("00000001-0-1", "A", BUY, 4 * SCALE, 100 * SCALE, 1, 9, time_in_force="GTC")
WALL = 1_721_300_000_000_000_000


@pytest.fixture
def journal(tmp_path):
    made = Journal.open(tmp_path / "j.db")
    made.intent(ORDER, "{}", WALL - 5)
    made.advance(ORDER.client_id, State.SENT, WALL - 4)
    yield made
    made.close()
    Reader(tmp_path / "j.db").verify()


def fill(name: str, qty: int) -> Filled:
    return Filled(ORDER.client_id, name, qty * SCALE, 100 * SCALE, 7, 0)


def end(state: State, filled: int) -> Ended:
    return Ended(ORDER.client_id, state, filled * SCALE, "")


def seen(told: Told, ours=0, theirs=0, fills=(), state=State.SENT, venue_id="") -> Sight:
    return Sight("A", True, (OrderSight(Journaled(ORDER, state, venue_id, dict(fills)), told),),
                 Held(ours * SCALE, 100 * SCALE), Held(theirs * SCALE, 120 * SCALE))


def state_of(journal: Journal) -> str:
    return journal._db.execute("SELECT state, filled, venue_id FROM orders WHERE client_id = ?",
                               (ORDER.client_id,)).fetchone()


@pytest.mark.parametrize("told, theirs, becomes", [
    (Told(True, "v"), 0, ("acknowledged", 0, "v")),
    (Told(True, "v", None, (fill("f", 1),)), 1, ("partly filled", SCALE, "v")),
    (Told(True, "v", end(State.CANCELLED, 3), (fill("f", 1), fill("g", 2))), 3, ("cancelled", 3 * SCALE, "v")),
    (Told(True, "v", end(State.FILLED, 4), (fill("f", 4),)), 4, ("filled", 4 * SCALE, "v")),
    (Told(False), 0, ("rejected", 0, "")),
])
def test_an_order_becomes_what_the_venue_says(journal, told, theirs, becomes):
    assert len(adopt(journal, [seen(told, theirs=theirs)], 5, WALL)) == 1
    assert state_of(journal) == becomes
    found = journal.restore().positions
    assert (found["A"].qty if found else 0) == theirs * SCALE
    assert adopt(journal, [], 5, WALL) == []


def test_what_it_was_filled_by_and_the_venue_denies_is_corrected_beside_it(journal):
    journal.fill(ORDER, "x", 2 * SCALE, 100 * SCALE, 0, State.PARTLY_FILLED, WALL - 3)
    told = Told(True, "v", end(State.CANCELLED, 1), (fill("f", 1),))
    done = adopt(journal, [seen(told, 2, 1, [("x", 2 * SCALE)], State.PARTLY_FILLED)], 5, WALL)
    assert state_of(journal) == ("cancelled", 3 * SCALE, "v") and len(done) == 2
    assert journal.restore().positions["A"].qty == SCALE
    row = journal._db.execute("SELECT client_id, side, qty, price, order_type, state, epoch, seq FROM orders"
                              " ORDER BY id DESC").fetchone()
    assert row == ("adopt-1721300000-1", SELL, 2 * SCALE, 100 * SCALE, CORRECTION, "filled", 1, 9)
    assert journal.restore().streams == {"A": [(1, 9)]}, "no stream has moved"


def test_one_that_is_alive_with_fills_too_many_is_left_and_nothing_is_booked(journal):
    journal.fill(ORDER, "x", SCALE, 100 * SCALE, 0, State.PARTLY_FILLED, WALL - 3)
    alive = seen(Told(True, "v"), 1, 0, [("x", SCALE)], State.PARTLY_FILLED)
    other = Sight("B", True, (), Held(0, 0), Held(SCALE, SCALE))
    with pytest.raises(ContractError, match="cancel it at the venue"):
        adopt(journal, [other, alive], 5, WALL)
    assert "B" not in journal.restore().positions and state_of(journal)[0] == "partly filled"
    with pytest.raises(LifeCycleError):  # more than was ordered
        adopt(journal, [other, seen(Told(True, "v", end(State.FILLED, 4), (fill("f", 4),)), 1, 4,
                                    [("x", SCALE)], State.PARTLY_FILLED)], 5, WALL)
    assert "B" not in journal.restore().positions


def test_a_position_without_a_price_is_not_taken_over(journal):
    with pytest.raises(ContractError, match="symbol=B"):
        adopt(journal, [Sight("B", True, (), Held(0, 0), Held(SCALE, 0))], 5, WALL)
