"""A reader sees what is committed, and nothing that is not as it was written."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError, ResourceError
from common.journal import LAST, Journal, Reader
from common.positions import Position
from tests.journals import S, change, fill_with_orders, fills, order, traded


def test_a_reader_sees_what_is_committed_while_the_writer_writes(journal, path):
    for n in (1, 2, 3):
        journal.intent(order(n), "{}", n)
    journal.advance(order(1).client_id, S.SENT, 4)
    journal.fill(order(1), "f", 100, 5, 1, S.FILLED, 5)
    reader = Reader(path)
    assert reader.counts() == {"filled": 1, "intent": 2, "fills": 1}
    assert [row["client_id"] for row in reader.orders(2)] == [order(3).client_id, order(2).client_id]
    assert reader.orders()[-1]["side"] == "BUY" and reader.fills()[0]["qty"] == 100
    assert [row["state"] for row in reader.history(order(1).client_id)] == ["sent", "filled"]
    assert reader.positions()["BTC-USD"].qty == 100
    journal.intent(order(4), "{}", 9)
    assert reader.counts()["intent"] == 3
    reader.close()


def test_a_reader_finds_orders_by_state_symbol_and_time(journal, path):
    for n, symbol in ((1, "A"), (2, "B"), (3, "A")):
        journal.intent(order(n, symbol), "{}", 10 * n)
    journal.advance(order(1).client_id, S.SENT, 40)
    journal.fill(order(3, "A"), "f", 100, 5, 1, S.FILLED, 50)
    reader = Reader(path)

    def found(**wanted):
        return [row["seq"] for row in reader.orders(**wanted)]

    assert found(states=("sent", "filled")) == [3, 1] and found(symbol="B") == [2]
    assert found(since_ns=20) == [3, 2] and found(until_ns=20) == [1] and found(limit=1, symbol="A") == [3]
    assert [row["seq"] for row in reader.open_orders()] == [1, 2]
    assert [row["qty"] for row in reader.fills(client_id=order(3).client_id)] == [100]
    assert reader.fills(symbol="B") == [] == reader.fills(since_ns=51)
    assert [row["state"] for row in reader.events()] == ["sent", "filled"] and reader.events(until_ns=40) == []
    reader.close()


def test_one_order_by_its_id_a_beginning_of_it_or_as_the_last(journal, path):
    for n in (1, 2, 21):
        journal.intent(order(n), "{}", n)
    reader = Reader(path)
    assert reader.order("00000007-0-1")["seq"] == 1 and reader.order(LAST)["seq"] == 21
    assert reader.order("00000007-0-2")["seq"] == 2, "whole ids come before beginnings of others"
    assert reader.order("00000007-0-21")["seq"] == 21
    with pytest.raises(ConfigError, match="several orders begin so.*00000007-0-21, 00000007-0-2, 00000007-0-1"):
        reader.order("0000")
    for words in ("00000008", "0_", "%"):
        with pytest.raises(ConfigError, match="no such order"):
            reader.order(words)
    reader.close()


@given(fills, st.integers(0, 26))
@settings(max_examples=40)
def test_positions_of_an_earlier_time_are_exact_whatever_was_taken_over(tmp_path_factory, history, until):
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    journal = Journal.open(path)
    journal.adopt({"A": (300, 20), "B": (-7, 11)})
    expected = {"A": Position(300, 6000), "B": Position(-7, -77)}
    for n, (symbol, side, qty, price, fee, checkpoint) in enumerate(history, 1):
        item = order(n, symbol, side, qty)
        journal.intent(item, "{}", n)
        journal.fill(item, "f", qty, price, fee, S.FILLED, n)
        if n < until:
            expected[symbol].fill(side, qty, price, fee)
        if checkpoint:
            journal.restore()
    journal.close()
    reader = Reader(path)
    found = reader.positions(until)
    assert {symbol: repr(position) for symbol, position in found.items()} == {
        symbol: repr(position) for symbol, position in expected.items()}
    reader.close()


def test_what_is_read_at_once_is_of_one_moment(journal, path):
    journal.intent(order(1), "{}", 1)
    reader = Reader(path)
    with reader.at_once():
        assert reader.counts()["intent"] == 1 and reader.positions(5) == {}
        journal.intent(order(2), "{}", 2)
        assert len(reader.orders()) == 1
    assert len(reader.orders()) == 2
    reader.close()


def test_a_reader_works_without_a_writer_and_cannot_write(path):
    fill_with_orders(path, 5)
    reader = Reader(path)
    assert reader.counts() == {"intent": 4, "fills": 0}
    with pytest.raises(sqlite3.OperationalError):
        reader._db.execute("DELETE FROM orders")
    reader.close()


def test_a_reader_of_nothing_says_so(tmp_path):
    with pytest.raises(ResourceError, match="there is no journal"):
        Reader(tmp_path / "journal.db")
    (tmp_path / "journal.db").write_bytes(b"junk" * 1000)
    with pytest.raises(ResourceError, match="damaged"):
        Reader(tmp_path / "journal.db")


@pytest.mark.parametrize("sql", [
    "UPDATE orders SET qty = 99", "UPDATE orders SET side = 7", "UPDATE fills SET qty = 1"])
def test_orders_that_are_not_what_was_written_are_not_given(journal, path, sql):
    traded(journal, path, sql)
    reader = Reader(path)
    for look in (reader.orders, lambda: reader.orders(symbol="BTC-USD")):
        with pytest.raises(ResourceError, match="damaged.*orders: the row of 00000007-0-1"):
            look()
    reader.close()


@pytest.mark.parametrize("sql", ["UPDATE fills SET qty = 61", "UPDATE fills SET fee = 0", "UPDATE fills SET side = 7"])
def test_positions_are_not_made_of_fills_that_are_not_what_was_written(journal, path, sql):
    traded(journal, path, sql)
    reader = Reader(path)
    for look in (reader.fills, reader.positions, lambda: reader.positions(5), reader.news):
        with pytest.raises(ResourceError, match="damaged.*fills: the row of 00000007-0-1"):
            look()
    assert reader.open_orders() == [], "these are to be cancelled, whatever else there is"
    reader.close()


def test_a_checkpoint_that_is_not_what_was_written_makes_no_positions(journal, path):
    traded(journal, path)
    Journal.open(path).restore()
    change(path, "UPDATE checkpoint_positions SET qty = 7")
    reader = Reader(path)
    with pytest.raises(ResourceError, match="damaged.*checkpoint"):
        reader.positions()
    reader.close()


@pytest.mark.parametrize("sql, look", [
    ("UPDATE events SET detail = 'x'", lambda reader: reader.history("00000007-0-1")),
    ("UPDATE events SET at_ns = 9", Reader.events), ("UPDATE orders SET price = 9", lambda reader: reader.order(LAST)),
    ("UPDATE days SET opening = 9", Reader.days)])
def test_nothing_else_is_given_that_is_not_what_was_written(journal, path, sql, look):
    journal.open_day("2024-07-18", 5)
    traded(journal, path, sql)
    reader = Reader(path)
    with pytest.raises(ResourceError, match="damaged.*is not what was written"):
        look(reader)
    reader.close()


@pytest.mark.parametrize("ns", [2**63, -2**63 - 1])
def test_a_time_beyond_what_a_journal_can_hold_is_an_error_of_who_asks(journal, path, ns):
    reader = Reader(path)
    for look in (reader.orders, reader.fills):
        with pytest.raises(ConfigError, match="a time that no journal can hold"):
            look(since_ns=ns)
    for look in (reader.events, reader.positions):
        with pytest.raises(ConfigError, match="a time that no journal can hold"):
            look(ns)
    reader.close()


def test_pages_of_garbage_are_damage_within_a_look_at_one_moment(journal, path):
    for n in range(300):
        journal.intent(order(n), "{}" * 50, n)
    journal.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    reader = Reader(path)
    with pytest.raises(ResourceError, match="the journal is damaged"), reader.at_once():
        reader.orders()
    reader.close()
