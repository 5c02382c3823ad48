"""The contract of every order gateway, checked on each because it is registered. Each meets a real venue: the
stand-in over HTTP, the loopback exchange over a market that stands still, or a book of our own."""

import contextlib
import select

import pytest

from common import layout
from common.clock import SystemClock
from common.config import GATEWAYS, Config, Executor, Market
from common.fixed import SCALE
from common.gateways import (
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
from tests.still_binance import still
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


@contextlib.contextmanager
def stand_in():
    venue = StandIn()
    try:
        yield venue
    finally:
        venue.close()


@pytest.fixture(params=GATEWAYS)
def gateway(request, tmp_path):
    with contextlib.ExitStack() as stack:
        url = "http://127.0.0.1:1"
        if request.param == "vectrade":
            url = stack.enter_context(stand_in()).url
        elif request.param != "paper":
            url = stack.enter_context(still(tmp_path, request.param)).url
        config = Config(executor=Executor(gateway=request.param, base_url=url), market=Market(symbols=("BTC-USD",)))
        gateway = create(config, SystemClock(), {})
        gateway.attach(books())
        gateway.restore({})
        stack.callback(gateway.close)
        if listens(gateway):  # no order before what becomes of it can be heard
            gateway.portfolio()
            answers(gateway, Portfolio)
        yield gateway


def listens(gateway) -> bool:
    """Whether its venue speaks by itself: then it is busy until it is closed."""
    return gateway.name.startswith("binance")


def is_quiet(gateway) -> bool:
    return gateway.work() == [] and (listens(gateway) or not gateway.busy)


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
    assert is_quiet(gateway)


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
    last = SCALE if gateway.name == "binance-spot" else 4 * SCALE  # which sells nothing that it does not have
    for n, (side, qty) in enumerate([(BUY, 3 * SCALE), (SELL, SCALE), (SELL, last)]):
        gateway.submit(order(n, side, qty))
        answers(gateway, Ended)
    gateway.portfolio()
    assert answers(gateway, Portfolio)[-1] == Portfolio({"BTC-USD": (2 * SCALE - last, PRICE)})


def test_a_cancel_of_a_finished_order_does_no_harm(gateway):
    gateway.submit(order(1))
    acked = answers(gateway, Ended)[0]
    gateway.cancel(order(1), acked.venue_id)
    events = []
    until(lambda: events.extend(gateway.work()) or (events if listens(gateway) else not gateway.busy))
    assert {type(e) for e in events} <= {Acked, Filled, Ended, Unanswered} and events


def test_answers_come_in_the_order_of_the_questions(gateway):
    for n in range(5):
        gateway.submit(order(n))
    gateway.portfolio()  # which need not wait for them
    events: list = []
    until(lambda: events.extend(gateway.work()) or (
        [type(event) for event in events].count(Ended) == 5 and Portfolio in map(type, events)))
    assert [event.client_id for event in events if type(event) is Ended] == [f"t-0-{n}" for n in range(5)]


def test_closing_drops_what_is_under_way(gateway):
    gateway.submit(order(1))
    gateway.close()
    assert not gateway.busy and gateway.work() == [] and gateway.due_ns() == 0


def test_nothing_to_do_is_not_busy(gateway):
    assert is_quiet(gateway) and (listens(gateway) or gateway.due_ns() == 0)
    assert not any(isinstance(e, (Unknown, NoPortfolio)) for e in gateway.work())


def test_it_can_be_waited_for(gateway):
    """What a venue answers makes `fileno` ready, or is due: nobody has to look again and again."""
    gateway.submit(order(1))
    events = gateway.work()
    while not any(type(event) is Ended for event in events):
        poller, due = select.poll(), gateway.due_ns()
        if gateway.fileno() >= 0:
            poller.register(gateway.fileno(), select.POLLOUT if gateway.wants_write else select.POLLIN)
        wait_ms = max(0, due - SystemClock().monotonic_ns()) / 1e6 if due else 10_000
        ready = poller.poll(wait_ms)
        assert ready or wait_ms < 1000, "nothing became ready for long"
        events += gateway.work()


def test_restoring_positions_does_not_share_them(gateway):
    held = {"BTC-USD": Position(5 * SCALE, 5 * SCALE * PRICE)}
    gateway.restore(held)
    gateway.submit(order(1))
    answers(gateway, Ended)
    assert held["BTC-USD"].qty == 5 * SCALE
