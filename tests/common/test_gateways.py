"""The contract of every order gateway, checked on each because it is registered. Each meets a real venue: the
stand-in over HTTP, or a book of our own."""

import pytest

from common import layout
from common.clock import SystemClock
from common.config import Config, Executor, Market
from common.fixed import SCALE
from common.gateways import (
    GATEWAYS,
    Absent,
    Acked,
    Ended,
    Filled,
    NoPortfolio,
    Portfolio,
    Unanswered,
    Unknown,
    create,
)
from common.orders import BUY, SELL, TERMINAL, Order
from common.positions import Position
from common.ring import Books
from tests.standin import StandIn
from tests.waiting import until

PRICE = 100 * SCALE


def order(n: int, side: int = BUY, qty: int = SCALE, **changes) -> Order:
    return Order(f"t-0-{n}", "BTC-USD", side, qty, PRICE, 7, n)._replace(**changes)


def books() -> Books:
    """One symbol, 100 bid and offered: both sides can be had at the price of `order`."""
    books = Books.private(("BTC-USD",), 1024)
    tick = books.ticks[0][1]
    tick[layout.FLAGS] = layout.FLAG_VALID
    tick[[layout.BID_PX, layout.ASK_PX]] = PRICE
    tick[[layout.BID_QTY, layout.ASK_QTY]] = 50 * SCALE
    tick[layout.SEQ] = books.heads[0] = 1
    return books


@pytest.fixture(params=GATEWAYS)
def gateway(request):
    venue = StandIn() if request.param == "vectrade" else None
    config = Config(executor=Executor(gateway=request.param, base_url=venue.url if venue else "http://127.0.0.1:1"),
                    market=Market(symbols=("BTC-USD",)))
    gateway = create(config, SystemClock(), {})
    gateway.attach(books())
    gateway.restore({})
    yield gateway
    gateway.close()
    if venue:
        venue.close()


def answers(gateway, last: type) -> list:
    """Events up to the first of kind `last`."""
    events = []

    def work():
        assert gateway.busy
        events.extend(gateway.work())
        return any(type(event) is last for event in events)

    until(work)
    return events


def test_it_says_its_registered_name(gateway):
    assert gateway.name in GATEWAYS


def test_an_order_is_acknowledged_then_filled_then_ended(gateway):
    gateway.submit(order(1))
    events = answers(gateway, Ended)
    assert [type(e) for e in events][0] is Acked and [type(e) for e in events][-1] is Ended
    fills = [e for e in events if type(e) is Filled]
    assert sum(fill.qty for fill in fills) == SCALE == events[-1].filled
    assert events[-1].state in TERMINAL and {e.client_id for e in events} == {"t-0-1"}
    assert all(fill.price == PRICE and fill.fee >= 0 for fill in fills)
    assert len({fill.fill_id for fill in fills}) == len(fills)
    assert 0 < events[0].sent_ns <= events[0].at_ns
    assert not gateway.busy and gateway.work() == []


def test_a_query_tells_the_same_fills_again(gateway):
    gateway.submit(order(1))
    first = answers(gateway, Ended)
    gateway.query(order(1))
    again = answers(gateway, Ended)
    assert first[1:] == again[1:] and again[0].venue_id == first[0].venue_id


def test_the_same_client_id_is_the_same_order(gateway):
    gateway.submit(order(1))
    first = answers(gateway, Ended)
    gateway.submit(order(1))
    assert answers(gateway, Ended)[1:] == first[1:]
    gateway.portfolio()
    assert answers(gateway, Portfolio)[-1].positions["BTC-USD"][0] == SCALE


def test_an_order_that_never_came_is_absent(gateway):
    gateway.query(order(404))
    assert answers(gateway, Absent) == [Absent("t-0-404")]


def test_the_portfolio_is_what_the_fills_make(gateway):
    for n, (side, qty) in enumerate([(BUY, 3 * SCALE), (SELL, SCALE), (SELL, 4 * SCALE)]):
        gateway.submit(order(n, side, qty))
        answers(gateway, Ended)
    gateway.portfolio()
    assert answers(gateway, Portfolio)[-1] == Portfolio({"BTC-USD": (-2 * SCALE, PRICE)})


def test_a_cancel_of_a_finished_order_does_no_harm(gateway):
    gateway.submit(order(1))
    acked = answers(gateway, Ended)[0]
    gateway.cancel(order(1), acked.venue_id)
    events = []
    until(lambda: events.extend(gateway.work()) or not gateway.busy)
    assert {type(e) for e in events} <= {Acked, Filled, Ended, Unanswered} and events


def test_answers_come_in_the_order_of_the_questions(gateway):
    for n in range(5):
        gateway.submit(order(n))
    gateway.portfolio()
    ended = [e.client_id for e in answers(gateway, Portfolio) if type(e) is Ended]
    assert ended == [f"t-0-{n}" for n in range(5)]


def test_closing_drops_what_is_under_way(gateway):
    gateway.submit(order(1))
    gateway.close()
    assert not gateway.busy and gateway.work() == [] and gateway.due_ns() == 0


def test_nothing_to_do_is_not_busy(gateway):
    assert not gateway.busy and gateway.due_ns() == 0 and gateway.work() == []
    assert not any(isinstance(e, (Unknown, NoPortfolio)) for e in gateway.work())


def test_restoring_positions_does_not_share_them(gateway):
    held = {"BTC-USD": Position(5 * SCALE, 5 * SCALE * PRICE)}
    gateway.restore(held)
    gateway.submit(order(1))
    answers(gateway, Ended)
    assert held["BTC-USD"].qty == 5 * SCALE
