"""A talk with a venue: what it says is put together, asked for again where it is of no use, and no longer than patience
lasts. test_guard has pauses and throttling."""

import pytest

from common.asking import OrderTopic, ask_orders, ask_portfolio, order_of, talk
from common.clock import ManualClock
from common.fixed import SCALE
from common.gateways import Absent, Acked, Ended, Filled, NoPortfolio, Portfolio, Unanswered
from common.journal import Journal, Reader
from common.orders import BUY, SELL, Order, State
from common.reconciliation import Told

ORDER = Order("o-0-1", "BTC-USD", BUY, SCALE, 100 * SCALE, 1, 1, time_in_force="GTC")
S = 10**9


class Script:
    """A gateway that answers as it is told, a list of events for each question; the clock moves with each look."""

    busy, wants_write = False, False

    def __init__(self, clock: ManualClock, *answers: list) -> None:
        self.clock, self.answers, self.asked, self.due = clock, list(answers), 0, []

    def query(self, order: Order) -> None:
        self.asked += 1
        self.due = self.answers.pop(0) if self.answers else []

    def portfolio(self) -> None:
        self.query(ORDER)

    def work(self) -> list:
        self.clock.set(self.clock.now_ns + S // 10)
        found, self.due = self.due, []
        return found

    def fileno(self) -> int:
        return -1

    def due_ns(self) -> int:
        return 1


ALIVE = Acked("o-0-1", "v1", 0, 0)
FILL, OTHER = Filled("o-0-1", "f1", SCALE // 2, 5, 0, 0), Filled("o-0-1", "f2", SCALE // 2, 5, 0, 0)
END = Ended("o-0-1", State.FILLED, SCALE, "")


@pytest.mark.parametrize("answers, told, asked", [
    ([[ALIVE]], Told(True, "v1"), 1),
    ([[Absent("o-0-1")]] * 99, Told(False), None),
    ([[Absent("o-0-1")]] * 3 + [[ALIVE]], Told(True, "v1"), 4),  # it was on its way
    ([[Absent("o-0-1")]], "the venue does not know it", 2),
    ([[ALIVE, FILL]], Told(True, "v1", None, (FILL,)), 1),
    ([[ALIVE, FILL, FILL, OTHER, END]], Told(True, "v1", END, (FILL, OTHER)), 1),
    ([[Unanswered("o-0-1", "busy")], [ALIVE]], Told(True, "v1"), 2),
    ([[ALIVE, FILL, Unanswered("o-0-1", "not all fills yet")], [ALIVE, FILL, OTHER, END]],
     Told(True, "v1", END, (FILL, OTHER)), 2),
    ([[FILL], [ALIVE, FILL]], Told(True, "v1", None, (FILL,)), 2),  # by the way, from a stream
    ([[Unanswered("o-0-1", "no route")]] * 99, "no route", None),
    ([], "the venue has not answered", 1),
])
def test_what_becomes_of_an_order(answers, told, asked):
    clock = ManualClock(S)
    gateway = Script(clock, *answers)
    assert ask_orders([ORDER], gateway, clock, 5.0) == {"o-0-1": told}
    assert asked in (None, gateway.asked)


def test_what_is_held():
    clock = ManualClock(S)
    assert ask_portfolio(Script(clock, [NoPortfolio("later")], [Portfolio({"A": (1, 2)})]), clock, 5.0) == {"A": (1, 2)}
    assert ask_portfolio(Script(clock, *[[NoPortfolio("never")]] * 99), clock, 1.0) == "never"


def test_patience_ends_and_nothing_is_asked_of_nobody():
    clock = ManualClock(S)
    gateway = Script(clock)
    talk({"o-0-1": OrderTopic(ORDER)}, gateway, clock, 2.0)
    assert 3 * S <= clock.now_ns < 3 * S + S // 2 and gateway.asked == 1
    assert ask_orders([], gateway, clock, 5.0) == {} and clock.now_ns < 4 * S and gateway.asked == 1


def test_an_order_is_made_of_its_row(tmp_path):
    orders = [ORDER, ORDER._replace(client_id="o-0-2", side=SELL, seq=2)]
    journal = Journal.open(tmp_path / "j.db")
    for order in orders:
        journal.intent(order, "{}", 0)
    journal.close()
    reader = Reader(tmp_path / "j.db")
    assert [order_of(row) for row in reader.open_orders()] == orders
    reader.close()
