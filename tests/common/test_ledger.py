"""The ledger: what the checks read is what the orders and fills add up to, whatever order they come in."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from common.errors import AlphaError, LifeCycleError, VenueError
from common.fixed import SCALE
from common.gateways import Acked, Ended, Filled
from common.journal import Journal, Reader
from common.ledger import ABSENCE_NS, ASK_AGAIN_NS, FOLLOW_UP_NS, Ledger, worse
from common.orders import BUY, CORRECTION, SELL, TERMINAL, Order, State, Working
from common.positions import Position
from common.risk import Account, Rate, exposure

SYMBOLS = ("X", "Y")
MARK = 100 * SCALE


def order(n: int, symbol: str = "X", side: int = BUY, qty: int = 100) -> Order:
    return Order(f"o-{n}", symbol, side, qty, MARK, 7, n)


@pytest.fixture
def ledger():
    ledger = Ledger(Account(Rate(20.0)))
    ledger.follow(SYMBOLS, 7, {})
    return ledger


def out(ledger: Ledger, n: int = 1, **changes) -> Working:
    working = ledger.opened(order(n, **changes), MARK, 1, 2)
    ledger.sent(working, 0)
    return working


def acked(n: int = 1) -> Acked:
    return Acked(f"o-{n}", f"v-{n}", 1, 2)


def fill(n: int, fill_id: str, qty: int) -> Filled:
    return Filled(f"o-{n}", fill_id, qty, MARK, 1, 0)


def test_an_open_order_counts_until_it_is_filled_and_then_the_position_does(ledger):
    working, standing = out(ledger), ledger.standings[0]
    assert (standing.open_buy, standing.position, standing.order_ns) == (100, 0, 2)
    assert ledger.account.gross == standing.exposure == exposure(0, 100, 0, MARK)
    assert ledger.acked(working, acked(), 10, 0)
    assert ledger.filled(working, fill(1, "a", 60), 0)
    assert (standing.open_buy, standing.position) == (40, 60)
    ledger.ended(working, Ended("o-1", State.CANCELLED, 60, ""), 0)
    assert (standing.open_buy, standing.position, ledger.orders) == (0, 60, {})
    assert [entry[0] for entry in ledger.entries] == ["advance", "advance", "fill", "advance"]


def test_rejections_are_counted_until_the_venue_takes_an_order(ledger):
    standing, account = ledger.standings[0], ledger.account
    account.offset_ns = 1_000
    for n in (1, 2):
        ledger.ended(out(ledger, n), Ended(f"o-{n}", State.REJECTED, 0, "no"), 5_000 + n)
    assert (standing.rejects, standing.rejected_ns) == (2, 4_002) and ledger.standings[1].rejects == 0
    ledger.ended(out(ledger, 3), Ended("o-3", State.EXPIRED, 0, ""), 6_000)
    assert standing.rejects == 2  # nobody has said that it was taken
    ledger.acked(out(ledger, 4), acked(4), 10, 0)
    assert standing.rejects == 0


def test_an_order_that_is_being_cancelled_may_turn_out_to_be_rejected(ledger):
    """As a flatten after a start may find it: what was asked about is there, is to be cancelled, and was refused."""
    working = out(ledger)
    ledger.acked(working, acked(), 10, 0)
    ledger.cancelling(working, 20, 0)
    ledger.ended(working, Ended("o-1", State.REJECTED, 0, "no"), 0)
    assert working.state is State.REJECTED and not ledger.orders


@pytest.mark.parametrize("side", [BUY, SELL])
def test_a_fill_worse_than_the_limit_is_booked_and_told_in_words(ledger, side):
    working = out(ledger, side=side)
    bad, rounded = MARK + side * (MARK // 1_000_000 + 1), MARK + side * (MARK // 1_000_000)
    for fill_id, price, words in (("a", rounded, ""), ("b", MARK - side * MARK // 2, ""), ("c", bad, "worse than the")):
        event = fill(1, fill_id, 10)._replace(price=price)
        assert ledger.filled(working, event, 0) and words in worse(working.order, event)
        assert bool(words) == bool(worse(working.order, event))
    assert ledger.positions["X"].qty == side * 30


def test_a_new_ring_of_books_is_no_way_around_rejections(ledger):
    ledger.ended(out(ledger), Ended("o-1", State.REJECTED, 0, "no"), 5_000)
    ledger.follow(("Y", "X"), 8, {})
    assert ledger.standings[1].rejects == 1 and ledger.standings[0].rejects == 0


@pytest.mark.parametrize("side", [BUY, SELL])
def test_a_fee_in_the_base_asset_is_taken_of_what_is_held_whichever_side(ledger, side):
    working = out(ledger, side=side, qty=1000)
    assert ledger.filled(working, fill(1, "a", 1000)._replace(fee=7 * MARK // SCALE, base_fee=7), 0)
    position = ledger.positions["X"]
    assert position.qty == side * 1000 - 7
    assert position.realised + position.qty * MARK - position.cost == 0  # the fee itself is all that it cost
    kept = next(arguments[0] for method, arguments in ledger.entries if method == "intent")
    assert (kept.side, kept.qty, kept.order_type) == (SELL, 7, CORRECTION)


def test_the_same_acknowledgement_and_the_same_fill_are_no_news(ledger):
    working = out(ledger)
    assert ledger.acked(working, acked(), 10, 0) and not ledger.acked(working, acked(), 11, 0)
    assert ledger.filled(working, fill(1, "a", 60), 0) and not ledger.filled(working, fill(1, "a", 60), 0)
    assert ledger.positions["X"].qty == 60


def test_an_unknown_order_blocks_its_symbol_and_no_other(ledger):
    working = out(ledger)
    assert ledger.unknown(working, "lost", 10, 0) and not ledger.unknown(working, "lost", 11, 0)
    assert [standing.unresolved for standing in ledger.standings] == [1, 0]
    ledger.acked(working, acked(), 12, 0)
    assert ledger.standings[0].unresolved == 0 and working.state is State.ACKNOWLEDGED


def test_absence_must_be_said_twice_and_far_enough_apart(ledger):
    working = out(ledger)
    ledger.unknown(working, "lost", 10, 0)
    assert ledger.to_ask(10) == [working]
    assert not ledger.absent(working, 20, 0)
    assert ledger.to_ask(20 + ABSENCE_NS - 1) == [] and ledger.to_ask(20 + ABSENCE_NS) == [working]
    assert not ledger.absent(working, 20 + ABSENCE_NS - 1, 0), "too early, although asked"
    assert ledger.absent(working, 20 + ABSENCE_NS, 0)
    assert working.state is State.REJECTED and ledger.standings[0].unresolved == 0


def test_a_word_from_the_venue_ends_the_counting_of_absences(ledger):
    working = out(ledger)
    ledger.unknown(working, "lost", 10, 0)
    ledger.absent(working, 20, 0)
    ledger.acked(working, acked(), 30, 0)
    with pytest.raises(VenueError, match="o-1"):
        ledger.absent(working, 20 + 2 * ABSENCE_NS, 0)


def test_nets_are_the_sums_of_what_each_symbol_can_come_to(ledger):
    bought, sold = out(ledger, 1, qty=SCALE), out(ledger, 2, symbol="Y", side=SELL, qty=3 * SCALE)
    account, (one, other) = ledger.account, ledger.standings
    assert (one.low, one.high, other.low, other.high) == (0, 100 * SCALE, -300 * SCALE, 0)
    assert (account.net_low, account.net_high, account.gross, account.open_orders) == (
        -300 * SCALE, 100 * SCALE, 400 * SCALE, 2)
    ledger.filled(bought, fill(1, "a", SCALE), 0)
    ledger.ended(sold, Ended("o-2", State.CANCELLED, 0, ""), 0)
    assert (account.net_low, account.net_high, account.open_orders) == (100 * SCALE, 100 * SCALE, 0)
    ledger.mark("X", 90 * SCALE)
    assert account.net_low == account.net_high == 90 * SCALE and one.cost == 100 * SCALE


def test_the_age_of_a_position_is_that_of_its_first_order(ledger):
    steps = [(BUY, 100, 1), (BUY, 50, 1), (SELL, 100, 1), (SELL, 80, 4), (BUY, 30, 5)]
    for n, (side, qty, begun) in enumerate(steps, 1):
        working = ledger.opened(order(n, side=side, qty=qty), MARK, 1, n)
        ledger.sent(working, 0)
        ledger.filled(working, fill(n, "a", qty), 0)
        assert ledger.standings[0].entered_ns == begun
    ledger.follow(SYMBOLS, 8, {})
    assert ledger.standings[0].entered_ns == 5, "another stream of ticks, the same position"


def test_the_last_orders_of_a_side_are_remembered_over_streams():
    ledger = Ledger(Account(Rate(20.0)), repeats=2)
    ledger.follow(SYMBOLS, 7, {})
    for n, side in enumerate((BUY, SELL, BUY, BUY), 1):
        ledger.opened(order(n, side=side), MARK, 1, n)
    assert ledger.standings[0].repeat_buy_ns == 3 and ledger.standings[0].repeat_sell_ns < 0
    last = ledger.standings[0]
    assert (last.last_side, last.last_qty, last.last_price) == (BUY, 100, MARK)
    ledger.follow(SYMBOLS, 8, {})
    assert ledger.standings[0].repeat_buy_ns == 3 and ledger.standings[1].repeat_buy_ns < 0


def test_while_reducing_what_may_grow_a_position_is_cancelled_and_no_more(ledger):
    ledger.restore({"X": Position(150, 150)}, (), 0)
    for n, side, qty in ((1, BUY, 10), (2, SELL, 150), (3, SELL, 151)):
        ledger.acked(out(ledger, n, side=side, qty=qty), acked(n), 10, 0)
    assert [working.order.client_id for working in ledger.to_cancel(growing=True)] == ["o-1", "o-3"]
    assert len(ledger.to_cancel()) == 3


def test_while_reducing_what_rests_closes_a_position_together_and_does_not_turn_it_around(ledger):
    ledger.restore({"X": Position(150, 150), "Y": Position(-50, -50)}, (), 0)
    for n, side, qty in ((1, SELL, 100), (2, SELL, 60), (3, SELL, 50)):
        ledger.acked(out(ledger, n, side=side, qty=qty), acked(n), 10, 0)
    ledger.acked(out(ledger, 4, symbol="Y", side=BUY, qty=50), acked(4), 10, 0)
    assert [working.order.client_id for working in ledger.to_cancel(growing=True)] == ["o-2"]


@pytest.mark.parametrize("event", [Ended("o-1", State.CANCELLED, 70, ""), Ended("o-1", State.FILLED, 60, ""),
                                   Ended("o-1", State.CANCELLED, 0, "")])
def test_an_end_that_does_not_fit_its_fills_is_not_believed(ledger, event):
    working = out(ledger)
    ledger.filled(working, fill(1, "a", 60), 0)
    with pytest.raises(VenueError, match="add up"):
        ledger.ended(working, event, 0)
    assert working.state is State.PARTLY_FILLED and ledger.positions["X"].qty == 60


def test_more_fills_than_were_ordered_are_not_booked(ledger):
    working = out(ledger)
    with pytest.raises(LifeCycleError, match="exceeds"):
        ledger.filled(working, fill(1, "a", 101), 0)
    assert "X" not in ledger.positions and ledger.entries[1:] == []


def test_a_late_fill_of_a_finished_order_is_booked(ledger):
    working = out(ledger)
    ledger.ended(working, Ended("o-1", State.CANCELLED, 0, ""), 0)
    assert ledger.ended_lately["o-1"] is working
    assert ledger.filled(working, fill(1, "late", 30), 0)
    assert ledger.positions["X"].qty == 30 and working.state is State.CANCELLED


def test_what_rests_is_looked_after_and_what_was_not_answered_asked_again(ledger):
    working = out(ledger)
    ledger.acked(working, acked(), 10, 0)
    assert ledger.to_ask(10 + FOLLOW_UP_NS - 1) == [] and ledger.to_ask(10 + FOLLOW_UP_NS) == [working]
    working.asking = True
    assert ledger.to_ask(10**12) == []
    ledger.unanswered(working, 50)
    assert ledger.to_ask(50 + ASK_AGAIN_NS) == [working] == ledger.to_cancel()
    ledger.cancelling(working, 60, 0)
    assert working.state is State.CANCELLING and ledger.to_cancel() == []


def test_profit_is_marked_to_market_and_net_of_nothing(ledger):
    working = out(ledger, qty=2 * SCALE)
    ledger.filled(working, fill(1, "a", 2 * SCALE), 0)
    assert ledger.profit() == (0, 0, 1) and ledger.net_cost() == 200 * SCALE
    ledger.mark("X", 103 * SCALE)
    assert ledger.profit() == (0, 6 * SCALE, 1) and ledger.account.gross == 206 * SCALE
    sold = out(ledger, 2, side=SELL, qty=2 * SCALE)
    ledger.filled(sold, Filled("o-2", "b", 2 * SCALE, 104 * SCALE, 1, 0), 0)
    assert ledger.profit() == (8 * SCALE, 0, 2) and ledger.account.gross == 0


def test_what_is_held_without_a_price_is_known(ledger):
    ledger.restore({"Z": Position(5, 50)}, (), 0)
    assert not ledger.marked()
    ledger.mark("Z", 10)
    assert ledger.marked()


def test_differences_are_those_of_what_we_hold_or_follow(ledger):
    ledger.restore({"X": Position(5, 50), "Z": Position(1, 1), "W": Position()}, (), 0)
    assert ledger.differences({"X": (5, 9), "Z": (1, 1), "other": (9, 9)}) == {}
    assert ledger.differences({"X": (4, 9), "Y": (2, 9)}) == {"X": (5, 4), "Y": (0, 2), "Z": (1, 0)}


def test_a_restart_makes_unfinished_orders_unknown_and_goes_on_after_the_last_sequence():
    ledger = Ledger(Account(Rate(20.0)))
    ledger.restore({}, [Working(order(1)), Working(order(2), State.UNKNOWN)], 0)
    ledger.follow(SYMBOLS, 7, {"X": [(6, 99), (7, 41)]})
    assert [standing.seq for standing in ledger.standings] == [41, 0]
    assert ledger.standings[0].unresolved == 2 and len(ledger.to_ask(1)) == 2
    assert ledger.entries == [("advance", ("o-1", State.UNKNOWN, 0, "the executor started again", ""))]


def test_what_is_held_is_as_old_in_a_new_life_and_so_is_what_an_order_of_another_life_fills():
    account = Account(Rate(20.0))
    account.offset_ns = 1_000  # Unix ns less monotonic ns
    ledger = Ledger(account)
    late = Working(order(9, symbol="Y"), created_ns=1_300)
    ledger.restore({"X": Position(5, 50)}, [late], 1_500, {"X": 1_200})
    ledger.follow(SYMBOLS, 7, {})
    assert ledger.standings[0].entered_ns == 200 and ledger.standings[1].entered_ns < -(2**60)
    ledger.filled(late, Filled("o-9", "f", 10, 100, 0, 0), 1_500)
    assert ledger.standings[1].entered_ns == 300
    ledger.restore({"X": Position(5, 50)}, (), 1_500, {"X": 9_999})
    ledger.follow(SYMBOLS, 7, {})
    assert ledger.standings[0].entered_ns == 500, "no position is younger than now, whatever became of the clock"


class Bookkeeping(RuleBasedStateMachine):
    """Any events in any order: sums hold, and the journal, told the entries, holds the same."""

    placed = Bundle("placed")

    def __init__(self) -> None:
        super().__init__()
        self.ledger, self.journal = Ledger(Account(Rate(20.0))), Journal.private()
        self.ledger.follow(SYMBOLS, 7, {})
        self.all: list[Working] = []
        self.now = 0

    def teardown(self) -> None:
        self.journal.close()

    @rule(target=placed, symbol=st.sampled_from(SYMBOLS), side=st.sampled_from([BUY, SELL]), qty=st.integers(1, 100))
    def place(self, symbol, side, qty):
        item = order(len(self.all), symbol, side, qty)
        self.journal.intent(item, "{}", 0)
        self.all.append(self.ledger.opened(item, MARK, 1, 2))
        self.ledger.sent(self.all[-1], 0)
        return self.all[-1]

    @rule(working=placed, what=st.sampled_from(["acked", "unknown", "absent", "cancelling", "unanswered"]),
          pause=st.sampled_from([0, ABSENCE_NS]))
    def hear(self, working, what, pause):
        self.now += pause
        calls = {"acked": (Acked(working.order.client_id, "v", 0, 0), self.now, 0), "unknown": ("?", self.now, 0),
                 "absent": (self.now, 0), "cancelling": (self.now, 0), "unanswered": (self.now,)}
        self.attempt(what, working, *calls[what])

    @rule(working=placed, fill_id=st.sampled_from("abc"), qty=st.integers(1, 60))
    def fill(self, working, fill_id, qty):
        self.attempt("filled", working, Filled(working.order.client_id, fill_id, qty, MARK + qty, 1, 0), 0)

    @rule(working=placed, state=st.sampled_from(sorted(TERMINAL)), off=st.sampled_from([0, 0, 0, 1]))
    def end(self, working, state, off):
        self.attempt("ended", working, Ended(working.order.client_id, state, working.filled + off, ""), 0)

    @rule()
    def flush(self):
        for _ in range(2):  # twice does no harm
            with self.journal.batch():
                for method, arguments in self.ledger.entries:
                    getattr(self.journal, method)(*arguments)
        self.ledger.entries.clear()
        restored = self.journal.restore()
        assert {s: p.qty for s, p in restored.positions.items() if p.qty} == {
            s: p.qty for s, p in self.ledger.positions.items() if p.qty}
        assert {w.order: (w.state, w.filled) for w in restored.working} == {
            w.order: (w.state, w.filled) for w in self.ledger.orders.values()}

    def attempt(self, method, *arguments):
        try:
            getattr(self.ledger, method)(*arguments)
        except AlphaError:
            pass  # an illegal step is refused; the invariants say that it changed nothing

    @invariant()
    def the_numbers_of_the_checks_add_up(self):
        gross = 0
        for symbol, standing in zip(SYMBOLS, self.ledger.standings):
            mine = [w for w in self.all if w.order.symbol == symbol]
            held = sum(w.order.side * w.filled for w in mine)
            buys, sells = (sum(w.open_qty for w in mine if w.order.side == side) for side in (BUY, SELL))
            assert (standing.position, standing.open_buy, standing.open_sell) == (held, buys, sells)
            assert standing.unresolved == sum(w.state is State.UNKNOWN for w in mine)
            gross += standing.exposure
        assert self.ledger.account.gross == gross
        assert set(self.ledger.orders) == {w.order.client_id for w in self.all if w.state not in TERMINAL}


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = settings(max_examples=50, stateful_step_count=25)


def test_a_fee_that_was_taken_of_what_was_bought_makes_the_position_smaller(tmp_path):
    ledger, journal = Ledger(Account(Rate(10))), Journal.open(tmp_path / "j.db")
    order = Order("00000001-0-1", "A", BUY, 2 * SCALE, 100 * SCALE, 1, 1)
    journal.intent(order, "{}", 5)
    ledger.orders[order.client_id] = working = Working(order, State.SENT)
    fee = 100 * SCALE // 500
    assert ledger.filled(working, Filled(order.client_id, "7", 2 * SCALE, 100 * SCALE, fee, 0, SCALE // 500), 6)
    assert not ledger.filled(working, Filled(order.client_id, "7", 2 * SCALE, 100 * SCALE, fee, 0, SCALE // 500), 7)
    held = ledger.positions["A"]
    assert (held.qty, held.fees) == (2 * SCALE - SCALE // 500, fee)
    assert held.realised - held.cost == -200 * SCALE * SCALE + fee * SCALE, "what was paid, but for the fee"
    with journal.batch():
        for method, arguments in ledger.entries:
            getattr(journal, method)(*arguments)
    restored = journal.restore()
    assert restored.positions["A"].qty == held.qty and not restored.working
    assert [row[0] for row in restored.recent] == ["A"], "what was only booked counts to no limit of orders in a time"
    journal.close()
    reader = Reader(tmp_path / "j.db")
    reader.verify()
    assert reader.order("last")["client_id"] == order.client_id
    assert reader.orders(1)[0]["order_type"] == CORRECTION and reader.fills(1)[0]["qty"] == SCALE // 500
    reader.close()
