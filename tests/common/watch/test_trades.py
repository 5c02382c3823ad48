"""The journal, followed: at every moment the same as reading all of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.journal import Journal, Reader
from common.orders import BUY, SELL, Order, State
from common.watch import trades
from common.watch.trades import Trades


def order(n: int, symbol: str = "A", side: int = BUY, qty: int = 100) -> Order:
    return Order(f"00000007-0-{n}", symbol, side, qty, 5, 7, n)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path):
    journal = Journal.open(path)
    yield journal
    journal.close()


def shown(found: Trades) -> list[tuple]:
    return [(row["client_id"], row["state"], row["filled"]) for row in found.orders]


def plain(positions) -> dict:
    return {name: (held.qty, held.cost, held.realised, held.fees) for name, held in positions.items()}


def test_a_state_that_is_learnt_later_and_a_fill_reach_an_order_that_is_known(journal, path):
    found = Trades(Reader(path))
    found.look()
    assert found.orders == [] and not found.fills and found.positions == {}
    journal.intent(order(1), "{}", 10)
    found.look()
    assert shown(found) == [("00000007-0-1", "intent", 0)]
    journal.advance("00000007-0-1", State.SENT, 11)
    journal.fill(order(1), "f1", 40, 5, 1, State.PARTLY_FILLED, 12)
    found.look()
    assert shown(found) == [("00000007-0-1", "partly filled", 40)]
    journal.advance("00000007-0-1", State.EXPIRED, 13, "the rest was not there")
    journal.intent(order(2), "{}", 14)
    journal.advance("00000007-0-2", State.REJECTED, 15, "no")
    found.look()
    assert shown(found) == [("00000007-0-1", "expired", 40), ("00000007-0-2", "rejected", 0)]
    assert [row["reason"] for row in found.orders] == ["the rest was not there", "no"]
    assert [fill["fill_id"] for fill in found.fills] == ["f1"] and found.positions["A"].qty == 40
    found.close()


def test_positions_that_are_taken_over_from_the_venue_are_seen(journal, path):
    found = Trades(Reader(path))
    found.look()
    journal.adopt({"A": (500, 7)})
    found.look()
    assert plain(found.positions) == {"A": (500, 3500, 0, 0)}
    found.close()


def test_only_the_newest_are_kept(journal, path):
    found = Trades(Reader(path), keep=3)
    found.look()
    for n in range(1, 8):
        journal.intent(order(n), "{}", n)
        journal.fill(order(n), "f", 1, 5, 0, State.FILLED, n)
    found.look()
    assert [row["seq"] if "seq" in row else row["client_id"][-1] for row in found.orders] == ["5", "6", "7"]
    assert [fill["client_id"][-1] for fill in found.fills] == ["5", "6", "7"] and found.positions["A"].qty == 7
    found.close()


actions = st.lists(st.tuples(st.sampled_from(["order", "fill", "end", "look", "restart"]), st.integers(0, 5),
                             st.sampled_from([BUY, SELL]), st.integers(1, 90)), max_size=40)


@settings(max_examples=25)
@given(actions, st.sampled_from([2, 5, 1000]))
def test_whatever_happens_between_looks_it_knows_what_reading_everything_tells(tmp_path_factory, steps, most):
    path = tmp_path_factory.mktemp("j") / "journal.db"
    journal, known = Journal.open(path), trades._MOST
    trades._MOST = most
    found = Trades(Reader(path), keep=8)
    placed: list[Order] = []
    try:
        for at, (what, which, side, qty) in enumerate([*steps, ("look", 0, BUY, 1)]):
            if what == "order":
                placed.append(order(len(placed) + 1, "AB"[which % 2], side, qty))
                journal.intent(placed[-1], "{}", at)
            elif what == "fill" and placed:
                journal.fill(placed[which % len(placed)], f"f{at % 7}", qty, 5 + which, 1, State.PARTLY_FILLED, at)
            elif what == "end" and placed:
                journal.advance(placed[which % len(placed)].client_id, State.EXPIRED, at, f"because {at}")
            elif what == "restart":
                journal.restore()
            elif what == "look":
                found.look()
                reader = Reader(path)
                expected = [(row["client_id"], row["state"], row["filled"], row["reason"])
                            for row in reader.orders(8)[::-1]]
                assert [(row["client_id"], row["state"], row["filled"], row["reason"])
                        for row in found.orders] == expected
                assert [fill["id"] for fill in found.fills] == [row["id"] for row in reader.fills(8)[::-1]]
                assert plain(found.positions) == plain(reader.positions())
                reader.close()
    finally:
        trades._MOST = known
        found.close()
        journal.close()
