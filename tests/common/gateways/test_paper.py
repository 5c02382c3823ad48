"""The paper venue: what is displayed can be had, once, after the latency, at the displayed price."""

from hypothesis import given
from hypothesis import strategies as st

from common import layout
from common.clock import ManualClock
from common.fixed import SCALE
from common.gateways import Absent, Acked, Ended, Filled, Portfolio
from common.gateways.paper import Paper
from common.orders import BUY, SELL, Order, State
from common.positions import Position
from common.ring import Books

LATENCY = 1_000_000


class World:
    """A book, a clock, the venue."""

    def __init__(self, fee_bps: float = 1.0) -> None:
        self.books = Books.private(("X",), 1024)
        self.clock = ManualClock(10**9)
        self.venue = Paper(self.clock, LATENCY, fee_bps)
        self.venue.attach(self.books)
        self.venue.restore({})
        self.seq = self.orders = 0

    def show(self, bids, asks, flags: int = layout.FLAG_VALID) -> None:
        """A tick with these (price, quantity) levels."""
        self.seq += 1
        tick = self.books.ticks[0][self.seq]
        tick[:] = 0
        tick[layout.FLAGS], tick[layout.EVENT_NS] = flags, 77
        for levels, px, size in ((bids, layout.BID_PX, layout.BID_QTY), (asks, layout.ASK_PX, layout.ASK_QTY)):
            for i, (price, qty) in enumerate(levels):
                tick[px + i], tick[size + i] = price, qty
        tick[layout.SEQ] = self.books.heads[0] = self.seq

    def trade(self, side: int, qty: int, price: int, symbol: str = "X", **changes) -> list:
        self.orders += 1
        self.venue.submit(Order(f"o-{self.orders}", symbol, side, qty, price, 1, 1)._replace(**changes))
        return self.arrive()

    def arrive(self) -> list:
        self.clock.set(self.clock.now_ns + LATENCY)
        return self.venue.work()


def fills(events) -> list[tuple[int, int]]:
    return [(e.price, e.qty) for e in events if type(e) is Filled]


def test_an_order_walks_the_displayed_levels_up_to_its_limit():
    world = World()
    world.show([], [(100, 5), (101, 5), (102, 5)])
    events = world.trade(BUY, 20, 101)
    assert fills(events) == [(100, 5), (101, 5)]
    assert events[-1] == Ended("o-1", State.CANCELLED, 10, "nothing more within the limit")


def test_a_sale_takes_the_bids_best_first():
    world = World()
    world.show([(99, 5), (98, 5)], [])
    assert fills(world.trade(SELL, 7, 98)) == [(99, 5), (98, 2)]


def test_depth_that_was_taken_is_gone_until_the_next_tick():
    world = World()
    world.show([], [(100, 5)])
    assert fills(world.trade(BUY, 3, 100)) == [(100, 3)]
    assert fills(world.trade(BUY, 3, 100)) == [(100, 2)]
    assert fills(world.trade(BUY, 3, 100)) == []
    world.show([], [(100, 5)])
    assert fills(world.trade(BUY, 3, 100)) == [(100, 3)]


def test_the_order_meets_the_book_of_its_arrival_and_not_of_its_departure():
    world = World()
    world.show([], [(100, 5)])
    world.venue.submit(Order("late", "X", BUY, 5, 100, 1, 1))
    sent = world.clock.now_ns
    assert world.venue.busy and world.venue.due_ns() == sent + LATENCY
    world.clock.set(sent + LATENCY - 1)
    assert world.venue.work() == []
    world.show([], [(101, 5)])
    events = world.arrive()
    assert events[0] == Acked("late", "paper-late", sent, world.clock.now_ns) and fills(events) == []


def test_an_invalid_an_empty_and_an_unknown_book_fill_nothing():
    world = World()
    assert fills(world.trade(BUY, 5, 100)) == []
    world.show([], [(100, 5)], flags=0)
    assert fills(world.trade(BUY, 5, 100)) == []
    world.show([(99, 5)], [])
    assert fills(world.trade(BUY, 5, 100)) == []
    assert world.trade(BUY, 5, 100, symbol="Y")[-1].state is State.CANCELLED


def test_the_fee_is_on_the_notional_and_rounded_up():
    world = World(fee_bps=2.5)
    world.show([], [(100 * SCALE, 5 * SCALE)])
    assert [e.fee for e in world.trade(BUY, 2 * SCALE, 100 * SCALE) if type(e) is Filled] == [5 * SCALE // 100]
    assert [e.fee for e in world.trade(BUY, 1, 100 * SCALE) if type(e) is Filled] == [1]


def test_orders_that_could_rest_are_rejected():
    world = World()
    world.show([], [(100, 5)])
    assert world.trade(BUY, 5, 100, time_in_force="GTC")[-1].state is State.REJECTED
    assert fills(world.trade(BUY, 5, 100)) == [(100, 5)]


def test_it_starts_from_the_positions_of_the_journal_and_knows_no_order_of_another_life():
    world = World()
    world.venue.restore({"X": Position(7 * SCALE, 7 * SCALE * 50), "Y": Position()})
    world.venue.portfolio()
    assert world.arrive() == [Portfolio({"X": (7 * SCALE, 50)})]
    world.venue.query(Order("before", "X", BUY, 5, 100, 1, 1))
    assert world.arrive() == [Absent("before")]


orders = st.lists(st.tuples(st.sampled_from([BUY, SELL]), st.integers(1, 30), st.integers(95, 106), st.booleans()),
                  max_size=20)


@given(orders)
def test_it_is_deterministic_and_never_sells_what_is_not_displayed(history):
    def play() -> list:
        world, told = World(), []
        for side, qty, price, moved in history:
            if moved or not world.seq:
                world.show([(99, 10), (98, 10)], [(101, 10), (102, 10)])
                shown = {(BUY, 101): 10, (BUY, 102): 10, (SELL, 99): 10, (SELL, 98): 10}
            events = world.trade(side, qty, price)
            for event in events:
                if type(event) is Filled:
                    shown[side, event.price] -= event.qty
                    assert shown[side, event.price] >= 0 and (price - event.price) * side >= 0
            told += events
        return told

    assert play() == play()
