"""The paper venue: what is displayed can be had, once, after the latency, at the displayed price."""

from hypothesis import given
from hypothesis import strategies as st

from common import layout, queue_model
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

    def __init__(self, fee_bps: float = 1.0, maker_bps: float | None = None, queue=None) -> None:
        self.books = Books.private(("X",), 1024)
        self.clock = ManualClock(10**9)
        self.venue = Paper(self.clock, LATENCY, fee_bps, maker_bps, queue)
        self.venue.attach(self.books)
        self.venue.restore({})
        self.seq = self.orders = 0

    def show(self, bids, asks, flags: int = layout.FLAG_VALID, trade: tuple[int, int] = (0, 0)) -> list:
        """A tick with these (price, quantity) levels, and a trade if one is given as (price, signed quantity)."""
        self.seq += 1
        tick = self.books.ticks[0][self.seq % self.books.capacity]
        tick[:] = 0
        tick[layout.FLAGS], tick[layout.EVENT_NS] = flags, 77
        for levels, px, size in ((bids, layout.BID_PX, layout.BID_QTY), (asks, layout.ASK_PX, layout.ASK_QTY)):
            for i, (price, qty) in enumerate(levels):
                tick[px + i], tick[size + i] = price, qty
        tick[layout.KIND] = layout.KIND_TRADE if trade[1] else layout.KIND_BOOK
        tick[layout.TRADE_PX], tick[layout.TRADE_QTY] = trade
        tick[layout.SEQ] = self.books.heads[0] = self.seq
        return self.venue.work()

    def rest(self, side: int, qty: int, price: int, life: str = "GTC") -> str:
        """An order that rests; returns its id."""
        assert type(self.trade(side, qty, price, time_in_force=life)[-1]) is not Ended
        return f"o-{self.orders}"

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


def test_orders_of_another_kind_are_rejected():
    world = World()
    world.show([], [(100, 5)])
    assert world.trade(BUY, 5, 100, time_in_force="FOK")[-1].state is State.REJECTED
    assert world.trade(BUY, 5, 100, order_type="MARKET")[-1].state is State.REJECTED
    assert fills(world.trade(BUY, 5, 100)) == [(100, 5)]


# ---- orders that rest

def test_an_order_rests_behind_what_is_shown_and_is_filled_by_trades_beyond_it():
    world = World()
    book = [(99, 10)], [(101, 10)]
    world.show(*book)
    client_id = world.rest(BUY, 5, 99)
    assert world.show(*book, trade=(99, -8)) == []
    assert world.show([(99, 2)], book[1]) == []
    assert fills(world.show([(99, 2)], book[1], trade=(99, -4))) == [(99, 2)]
    events = world.show([], book[1], trade=(99, -9))
    assert fills(events) == [(99, 3)] and events[-1] == Ended(client_id, State.FILLED, 5, "")
    assert not world.venue.busy


def test_a_trade_of_the_other_side_or_at_a_better_price_fills_nothing():
    world = World()
    book = [(99, 10)], [(101, 10)]
    world.show(*book)
    world.rest(BUY, 5, 98)
    assert world.show(*book, trade=(98, 50)) == [], "a buyer was the aggressor"
    assert world.show(*book, trade=(99, -50)) == [], "it was sold at a better price"
    assert fills(world.show(*book, trade=(97, -3))) == [(98, 3)], "beyond our price: we were there before"


def test_the_other_side_coming_to_our_price_fills_us_there():
    world = World()
    world.show([(99, 10)], [(101, 10)])
    client_id = world.rest(SELL, 7, 103)
    events = world.show([(104, 4), (103, 1), (99, 10)], [(105, 10)])
    assert fills(events) == [(103, 5)]
    assert [e for e in world.venue._said(client_id) if type(e) is Filled] == events


def test_better_prices_and_earlier_orders_come_first_and_a_trade_is_shared():
    world = World()
    book = [(97, 10)], [(101, 10)]
    world.show(*book)
    first, second, better = world.rest(BUY, 5, 98), world.rest(BUY, 5, 98), world.rest(BUY, 5, 99)
    events = world.show(*book, trade=(98, -12))
    assert [(e.client_id, e.qty) for e in events if type(e) is Filled] == [(better, 5), (first, 5), (second, 2)]


def test_a_post_only_order_expires_rather_than_take():
    world = World()
    world.show([(99, 5)], [(101, 5)])
    assert world.trade(BUY, 5, 101, time_in_force="GTX")[-1].state is State.EXPIRED
    world.rest(BUY, 5, 100, "GTX")


def test_an_order_takes_what_it_can_and_rests_with_what_is_left_at_two_fees():
    world = World(fee_bps=10.0, maker_bps=-5.0)
    book = [(99 * SCALE, SCALE)], [(101 * SCALE, 2 * SCALE)]
    world.show(*book)
    taken = world.trade(BUY, 5 * SCALE, 101 * SCALE, time_in_force="GTC")
    assert fills(taken) == [(101 * SCALE, 2 * SCALE)] and taken[-1].fee == 2 * 101 * SCALE // 1000
    rested = world.show([(101 * SCALE, SCALE)], [], trade=(101 * SCALE, -3 * SCALE))
    assert fills(rested) == [(101 * SCALE, 3 * SCALE)] and rested[0].fee == -(3 * 101 * SCALE * 5 // 10_000)
    assert [e.fill_id for e in taken + rested if type(e) is Filled] == ["1", "2"]


def test_a_cancelled_order_ends_with_what_it_had_and_is_not_filled_any_more():
    world = World()
    book = [(97, 10)], [(101, 10)]
    world.show(*book)
    client_id = world.rest(BUY, 5, 98)
    world.show(*book, trade=(98, -2))
    world.venue.cancel(Order(client_id, "X", BUY, 5, 98, 1, 1), "")
    events = world.arrive()
    assert events[-1] == Ended(client_id, State.CANCELLED, 2, "as asked") and fills(events) == [(98, 2)]
    assert world.show(*book, trade=(98, -9)) == [] and not world.venue.busy
    world.venue.query(Order(client_id, "X", BUY, 5, 98, 1, 1))
    assert world.arrive() == events


def test_an_invalid_book_and_missed_ticks_fill_nothing():
    world = World()
    book = [(97, 10)], [(101, 10)]
    world.show(*book)
    world.rest(BUY, 5, 98)
    assert world.show(*book, flags=0, trade=(98, -9)) == []
    for _ in range(2000):  # more than the ring holds, unseen
        world.seq += 1
    assert world.show(*book) == []
    assert fills(world.show(*book, trade=(98, -9))) == [(98, 5)]


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


prices = st.integers(96, 104)
steps = st.lists(st.one_of(
    st.tuples(st.just("rest"), st.sampled_from([BUY, SELL]), st.integers(1, 20), prices,
              st.sampled_from(["GTC", "GTX"])),
    st.tuples(st.just("trade"), prices, st.integers(-30, 30)),
    st.tuples(st.just("book"), st.integers(96, 103), st.integers(1, 30), st.integers(1, 30))), max_size=25)


@given(steps, st.sampled_from(["risk-averse", "power"]))
def test_resting_orders_are_never_filled_beyond_what_was_ordered_or_traded_and_better_prices_first(history, name):
    world, book = World(queue=queue_model.create(name)), ([(98, 10)], [(102, 10)])
    placed: dict[str, Order] = {}
    filled: dict[str, int] = {}
    world.show(*book)

    def hear(events: list) -> dict[str, int]:
        now: dict[str, int] = {}
        for event in events:
            if type(event) is Filled:
                now[event.client_id] = now.get(event.client_id, 0) + event.qty
                filled[event.client_id] = filled.get(event.client_id, 0) + event.qty
            if type(event) is Ended:
                assert event.filled == filled.get(event.client_id, 0)
                assert (event.state is State.FILLED) == (event.filled == placed[event.client_id].qty)
        for client_id in now:
            assert filled[client_id] <= placed[client_id].qty
        return now

    def touched(order: Order) -> bool:
        """The other side shows a price at which the order trades."""
        bids, asks = book
        return asks[0][0] <= order.price if order.side == BUY else bids[0][0] >= order.price

    for step in history:
        if step[0] == "rest":
            order = Order(f"o-{world.orders + 1}", "X", *step[1:4], 1, 1, time_in_force=step[4])
            placed[order.client_id] = order
            hear(world.trade(*step[1:4], time_in_force=step[4]))
        elif step[0] == "book":
            book = [(step[1], step[2])], [(step[1] + 1, step[3])]
            for client_id in hear(world.show(*book)):
                assert touched(placed[client_id])
        elif step[2]:
            waiting = {c: o.qty - filled.get(c, 0) for c, o in placed.items() if c in world.venue.resting}
            now = hear(world.show(*book, trade=step[1:]))
            aggressor = BUY if step[2] > 0 else SELL
            now = {client_id: qty for client_id, qty in now.items() if not touched(placed[client_id])}
            assert sum(now.values()) <= abs(step[2])
            for client_id in now:
                order = placed[client_id]
                assert order.side == -aggressor and (order.price - step[1]) * order.side >= 0
                better = [c for c, left in waiting.items() if placed[c].side == order.side
                          and (placed[c].price - order.price) * order.side > 0]
                assert all(now.get(c, 0) == waiting[c] for c in better if not touched(placed[c])), "price before time"
