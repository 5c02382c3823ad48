"""What a journal's rows come to: exact, wherever the checkpoints fell."""


from hypothesis import given, settings
from hypothesis import strategies as st

from common.journal import Journal
from common.orders import BUY, SELL
from common.positions import Position
from tests.journals import S, fills, order, reopened


@given(fills)
@settings(max_examples=40)
def test_positions_are_the_replay_of_all_fills_wherever_the_checkpoints_fell(history):
    journal, expected, last = Journal.private(), {}, {}
    for n, (symbol, side, qty, price, fee, checkpoint) in enumerate(history, 1):
        item = order(n, symbol, side, qty)
        journal.intent(item, "{}", n)
        journal.fill(item, "f", qty, price, fee, S.FILLED, n)
        expected.setdefault(symbol, Position()).fill(side, qty, price, fee)
        last[symbol] = [(7, n)]
        if checkpoint:
            journal.restore()
    found = journal.restore()
    assert repr(found.positions) == repr(expected) or {k: repr(v) for k, v in found.positions.items()} == {
        k: repr(v) for k, v in expected.items()}
    assert found.streams == last and found.working == []
    journal.close()


def test_streams_come_back_with_the_one_traded_last_at_the_end(journal):
    for epoch, n in ((9, 5), (9, 6), (3, 1)):
        journal.intent(order(n, epoch=epoch), "{}", 1)
    assert journal.restore().streams == {"BTC-USD": [(9, 6), (3, 1)]}
    journal.intent(order(2, epoch=3), "{}", 1)
    journal.intent(order(1, epoch=4), "{}", 1)
    assert journal.restore().streams == {"BTC-USD": [(9, 6), (3, 2), (4, 1)]} == journal.restore().streams


def test_adopted_positions_are_the_beginning(journal, path):
    journal.adopt({"BTC-USD": (300, 20), "AAPL": (-5, 7)})
    journal.intent(order(1, side=SELL), "{}", 1)
    journal.fill(order(1, side=SELL), "f", 100, 25, 0, S.FILLED, 1)
    again = reopened(journal, path)
    found = again.restore()
    assert not found.virgin
    assert (found.positions["BTC-USD"].qty, found.positions["BTC-USD"].realised) == (200, 500)
    assert found.positions["AAPL"].average_price == 7
    again.close()


@given(st.lists(st.tuples(st.sampled_from(["A", "B"]), st.sampled_from([BUY, SELL]), st.integers(1, 5)), max_size=30),
       st.integers(0, 30))
def test_what_is_held_began_with_the_order_that_crossed_zero(history, checkpoint):
    journal, held, begun = Journal.private(), {}, {}
    for n, (symbol, side, qty) in enumerate(history, 1):
        if n == checkpoint:
            journal.restore()
        sent = order(n, symbol, side, qty)
        journal.intent(sent, "{}", 100 * n)
        for part in range(qty):  # in several fills
            journal.fill(sent, f"f{part}", 1, 5, 0, S.PARTLY_FILLED, 100 * n + part)
            before, held[symbol] = held.get(symbol, 0), held.get(symbol, 0) + side
            if before * held[symbol] <= 0:
                begun[symbol] = 100 * n
    assert journal.restore().begun == {symbol: begun[symbol] for symbol, qty in held.items() if qty}


def test_nobody_knows_when_what_was_taken_over_began(journal):
    journal.adopt({"A": (5, 1), "B": (5, 1)})
    journal.intent(order(1, "B", SELL, 7), "{}", 70)
    journal.fill(order(1, "B", SELL, 7), "f", 7, 5, 0, S.FILLED, 71)
    assert journal.restore().begun == {"B": 70}
