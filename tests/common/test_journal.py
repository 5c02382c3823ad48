"""The journal: what it has promised survives, what it holds is exact, and damage is noticed."""

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError, ContractError, InstanceError, ResourceError
from common.journal import LAST, Journal, Reader
from common.orders import BUY, SELL, Order, State
from common.positions import Position

S = State


def order(n: int, symbol: str = "BTC-USD", side: int = BUY, qty: int = 100, epoch: int = 7) -> Order:
    return Order(f"{epoch:08x}-0-{n}", symbol, side, qty, 5, epoch, n)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def journal(path):
    journal = Journal.open(path)
    yield journal
    journal.close()


def reopened(journal: Journal, path) -> Journal:
    journal.close()
    return Journal.open(path)


def test_a_new_journal_is_virgin_and_an_intent_ends_that(journal, path):
    assert journal.restore() == ({}, [], {}, True, [], {})
    journal.intent(order(1), "{}", 10)
    again = reopened(journal, path)
    found = again.restore()
    assert not found.virgin and found.streams == {"BTC-USD": [(7, 1)]}
    assert [(w.order, w.state) for w in found.working] == [(order(1), S.INTENT)]
    again.close()


def test_the_same_client_id_is_never_written_twice(journal):
    journal.intent(order(1), "{}", 10)
    with pytest.raises(ContractError, match="00000007-0-1"):
        journal.intent(order(1, qty=999), "{}", 11)


def test_an_order_comes_back_in_its_state_with_its_fills(journal, path):
    one, two, three = order(1), order(2, side=SELL), order(3)
    for item in (one, two, three):
        journal.intent(item, "{}", 10)
    journal.advance(one.client_id, S.SENT, 11)
    journal.advance(one.client_id, S.ACKNOWLEDGED, 12, venue_id="v1")
    assert journal.fill(one, "f1", 40, 7, 3, S.PARTLY_FILLED, 13)
    journal.advance(two.client_id, S.REJECTED, 14, "no money")
    again = reopened(journal, path)
    working = again.restore().working
    assert [(w.order, w.state, w.venue_id, w.filled, w.fill_ids) for w in working] == [
        (one, S.PARTLY_FILLED, "v1", 40, {"f1"}), (three, S.INTENT, "", 0, set())]
    assert again.find(two.client_id).state is S.REJECTED and again.find("nobody") is None
    again.close()


def test_a_fill_is_booked_once_however_often_it_is_told(journal):
    journal.intent(order(1), "{}", 10)
    assert journal.fill(order(1), "f", 60, 7, 3, S.PARTLY_FILLED, 11)
    assert not journal.fill(order(1), "f", 60, 7, 3, S.PARTLY_FILLED, 12)
    assert journal.fill(order(1), "g", 40, 7, 3, S.FILLED, 13)
    assert journal.restore().positions["BTC-USD"].qty == 100
    assert journal.find(order(1).client_id).filled == 100


fills = st.lists(st.tuples(st.sampled_from(["A", "B"]), st.sampled_from([BUY, SELL]), st.integers(1, 10**12),
                           st.integers(1, 10**13), st.integers(-10**9, 10**9), st.booleans()), max_size=25)


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


def test_the_opening_of_a_day_is_written_once(journal):
    assert journal.day("2024-07-18") is None
    journal.open_day("2024-07-18", -5)
    journal.open_day("2024-07-18", 99)
    assert journal.day("2024-07-18") == (-5, -5)


def test_the_peak_of_a_day_only_rises_and_is_summed(journal, path):
    journal.raise_peak("2024-07-18", 3, 99)  # a day that has not begun
    assert journal.day("2024-07-18") is None
    journal.open_day("2024-07-18", 3)
    journal.open_day("2024-07-19", 4)
    for peak, found in ((50, 50), (40, 50), (50, 50), (51, 51)):
        journal.raise_peak("2024-07-18", 3, peak)
        assert journal.day("2024-07-18") == (3, found)
    journal.raise_peak("2024-07-18", 4, 99)  # not the day that we think it is
    assert (journal.day("2024-07-18"), journal.day("2024-07-19")) == ((3, 51), (4, 4))
    journal = reopened(journal, path)
    journal.restore()
    journal.close()
    reader = Reader(path)
    assert reader.verify()["days"] == 2 and reader.days() == {"2024-07-18": 3, "2024-07-19": 4}
    reader.close()


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


def test_a_batch_is_all_or_nothing(journal):
    with pytest.raises(ZeroDivisionError):
        with journal.batch():
            journal.intent(order(1), "{}", 1)
            journal.advance(order(1).client_id, S.SENT, 2)
            raise ZeroDivisionError
    assert journal.find(order(1).client_id) is None
    with journal.batch():
        journal.intent(order(1), "{}", 1)
        journal.advance(order(1).client_id, S.SENT, 2)
    assert journal.find(order(1).client_id).state is S.SENT


def test_the_file_belongs_to_this_user_alone(journal, path):
    journal.intent(order(1), "{}", 1)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes) >= {"journal.db", "journal.db-wal", "journal.db-shm"} and set(modes.values()) == {0o600}


@pytest.mark.parametrize("durability, expected", [("process", 1), ("power", 2)])
def test_durability_is_what_the_setting_says(path, durability, expected):
    journal = Journal.open(path, durability)
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (expected,)
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    journal.close()


def test_a_second_writer_is_refused_and_told_who_has_it(journal, path):
    with pytest.raises(InstanceError, match=str(os.getpid())):
        Journal.open(path)


def test_a_full_disk_is_a_clear_error_and_harms_nothing(journal, path):
    journal.intent(order(1), "{}", 1)
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ResourceError, match="full"):
        for n in range(2, 1000):
            journal.intent(order(n), "x" * 1000, 1)
    with pytest.raises(ResourceError, match="full"):
        with journal.batch():
            journal.advance(order(1).client_id, S.SENT, 1)
            journal.intent(order(n), "x" * 100_000, 1)
    assert journal.find(order(1).client_id).state is S.INTENT
    journal._db.execute("PRAGMA max_page_count = 100000")
    journal.intent(order(n), "x" * 1000, 1)
    again = reopened(journal, path)
    assert len(again.restore().working) == n
    again.close()


def fill_with_orders(path, count: int = 200) -> None:
    journal = Journal.open(path)
    for n in range(1, count):
        journal.intent(order(n), "x" * 500, 1)
    journal.close()


@pytest.mark.parametrize("damage", [
    lambda data: b"not a database" * 100,
    lambda data: data[:5000],
    lambda data: data[:4096] + b"\xff" * 8192 + data[12288:],
])
def test_a_damaged_file_is_noticed_and_left_as_it_is(path, damage):
    fill_with_orders(path)
    broken = damage(path.read_bytes())
    path.write_bytes(broken)
    with pytest.raises(ResourceError, match="damaged.*move it away"):
        Journal.open(path)
    assert path.read_bytes() == broken
    with pytest.raises(ResourceError):
        Journal.open(path)  # and the lock was given back


def flip(path, text: bytes) -> None:
    """One bit of the first place where `text` stands in the file."""
    data = bytearray(path.read_bytes())
    data[data.index(text)] ^= 1
    path.write_bytes(data)


def filled(path, context: str = "{}") -> None:
    journal = Journal.open(path)
    journal.restore()
    journal.intent(order(1), context, 1)
    journal.advance(order(1).client_id, S.SENT, 2)
    journal.fill(order(1), "fill-one", 60, 7, 3, S.PARTLY_FILLED, 3)
    journal.advance(order(1).client_id, S.CANCELLED, 4, "a long enough reason")
    journal.open_day("2024-07-18", 5)
    journal.close()


@pytest.mark.parametrize("text, told", [
    (b"the context of it", "orders: the row of 00000007-0-1"),
    (b"fill-oneBTC-USD", "fills: the row of 00000007-0-1"),
    (b"2024-07-18", "days: the row of 3024-07-18"),
])
def test_a_flipped_bit_in_what_a_start_takes_up_is_noticed(path, text, told):
    filled(path, "the context of it")
    flip(path, text)
    journal = Journal.open(path)  # every page is whole
    with pytest.raises(ResourceError, match=f"damaged.*{told}"):
        journal.restore()
    journal.close()


def change(path, sql: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql)
    db.close()


@pytest.mark.parametrize("sql, told", [
    ("UPDATE fills SET price = price + 1", "fills: the row of 00000007-0-1"),
    ("UPDATE fills SET fee = 0", "fills: the row of 00000007-0-1"),
    ("UPDATE orders SET qty = 99", "orders: the row of 00000007-0-1"),
    ("UPDATE days SET opening = 6", "days: the row of 2024-07-18"),
    ("UPDATE days SET peak = 7", "days: the row of 2024-07-18"),
    ("UPDATE meta SET value = 7 WHERE key = 'checkpoint_crc'", "the checkpoint"),
    ("INSERT INTO checkpoint_positions VALUES ('A', 1, '1', '0', 0)", "the checkpoint"),
    ("DELETE FROM orders", "events: there is no order 00000007-0-1"),
    ("DELETE FROM events WHERE state = 'sent'", "events: 1 rows are missing"),
])
def test_a_number_that_has_changed_is_noticed_at_the_next_start(path, sql, told):
    filled(path)
    change(path, sql)
    journal = Journal.open(path)
    with pytest.raises(ResourceError, match=f"damaged.*{told}"):
        journal.restore()
    journal.close()


@pytest.mark.parametrize("sql, told", [
    ("UPDATE events SET at_ns = 9 WHERE state = 'sent'", "events: the row of 00000007-0-1"),
    ("UPDATE orders SET state = 'filled'", "orders: 00000007-0-1 is not in the state of its last event"),
    ("UPDATE orders SET filled = 61", "orders: 00000007-0-1 is not filled by as much"),
    ("UPDATE orders SET reason = 'another'", "orders: 00000007-0-1 has a reason that no event of it has"),
    ("UPDATE fills SET qty = 61", "fills: the row of 00000007-0-1"),
    ("DELETE FROM orders", "events: there is no order 00000007-0-1"),
    ("DELETE FROM events WHERE id = 1", "events: 1 rows are missing"),
    ("DELETE FROM events WHERE id = 3", "orders: 00000007-0-1 is not in the state of its last event"),
    ("DELETE FROM fills", "orders: 00000007-0-1 is not filled by as much"),
])
def test_verify_examines_every_row_and_what_must_agree(path, sql, told):
    filled(path)
    Journal.open(path).restore()  # a checkpoint: a start looks at none of it any more
    reader = Reader(path)
    assert reader.verify() == {"orders": 1, "events": 3, "fills": 1, "days": 1, "unsummed": 0}
    reader.close()
    change(path, sql)
    reader = Reader(path)
    with pytest.raises(ResourceError, match=f"damaged.*{told}"):
        reader.verify()
    reader.close()


def test_an_empty_file_and_a_lost_one_are_damage_and_no_new_beginning(path):
    filled(path)
    data = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(ResourceError, match="damaged.*it is empty"):
        Journal.open(path)
    path.unlink()
    log = path.with_name("journal.db-wal")
    log.write_bytes(b"what was committed last")
    with pytest.raises(ResourceError, match="damaged.*it is gone"):
        Journal.open(path)
    log.unlink()
    path.write_bytes(data)
    Journal.open(path).close()


def test_what_an_unfinished_first_start_left_is_no_hindrance(path):
    path.parent.mkdir(parents=True)
    path.with_suffix(".new").write_bytes(b"half")
    Journal.open(path).close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.db", "journal.lock"]


def test_a_disk_that_takes_no_more_is_a_clear_error_and_harms_nothing(journal, path):
    journal.intent(order(1), "{}", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name("journal.db-wal").stat().st_size + 50_000, hard))
        with pytest.raises(ResourceError, match="cannot be written"):
            for n in range(2, 1000):
                journal.intent(order(n), "x" * 1000, 1)
        with pytest.raises(ResourceError, match="cannot be written"):
            journal.advance(order(1).client_id, S.SENT, 1, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert n > 2 and journal.find(order(1).client_id).state is S.INTENT
    journal.intent(order(n), "{}", 1)
    again = reopened(journal, path)
    assert [w.order.seq for w in again.restore().working] == list(range(1, n + 1))
    again.close()
    reader = Reader(path)
    assert reader.verify()["orders"] == n
    reader.close()


_VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE orders (id INTEGER PRIMARY KEY, client_id TEXT NOT NULL UNIQUE, symbol TEXT NOT NULL,
    side INTEGER NOT NULL, qty INTEGER NOT NULL, price INTEGER NOT NULL, order_type TEXT NOT NULL,
    time_in_force TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, created_ns INTEGER NOT NULL,
    state TEXT NOT NULL, venue_id TEXT NOT NULL DEFAULT '', filled INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '', context TEXT NOT NULL);
CREATE TABLE events (id INTEGER PRIMARY KEY, client_id TEXT NOT NULL, at_ns INTEGER NOT NULL, state TEXT NOT NULL,
    detail TEXT NOT NULL);
CREATE TABLE fills (id INTEGER PRIMARY KEY, client_id TEXT NOT NULL, fill_id TEXT NOT NULL, symbol TEXT NOT NULL,
    side INTEGER NOT NULL, qty INTEGER NOT NULL, price INTEGER NOT NULL, fee INTEGER NOT NULL, at_ns INTEGER NOT NULL,
    UNIQUE (client_id, fill_id));
CREATE TABLE checkpoint_positions (symbol TEXT PRIMARY KEY, qty INTEGER NOT NULL, cost TEXT NOT NULL,
    realised TEXT NOT NULL, fees INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE checkpoint_streams (symbol TEXT, epoch INTEGER, seq INTEGER NOT NULL, latest INTEGER NOT NULL,
    PRIMARY KEY (symbol, epoch)) WITHOUT ROWID;
CREATE TABLE days (day TEXT PRIMARY KEY, opening INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO orders VALUES (1, '00000007-0-1', 'BTC-USD', 1, 100, 5, 'LIMIT', 'IOC', 7, 1, 10, 'sent', '', 0, '', '{}');
INSERT INTO events VALUES (1, '00000007-0-1', 11, 'sent', '');
INSERT INTO days VALUES ('2024-07-18', 4);
PRAGMA application_id = 0x414C5048; PRAGMA user_version = 1;
"""


def test_a_journal_of_the_first_version_is_read_as_it_is_and_brought_to_ours_by_the_next_writer(path):
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.executescript(_VERSION_1)
    db.close()
    reader = Reader(path)
    assert [row["state"] for row in reader.orders()] == ["sent"] and reader.config("x") is None
    assert reader.verify() == {"orders": 1, "events": 1, "fills": 0, "days": 1, "unsummed": 3}
    reader.close()
    journal = Journal.open(path)
    assert [w.order for w in journal.restore().working] == [order(1)] and journal.day("2024-07-18") == (4, 4)
    journal.intent(order(2), "{}", 12)
    journal.close()
    reader = Reader(path)
    assert reader.verify() == {"orders": 2, "events": 1, "fills": 0, "days": 1, "unsummed": 3}
    reader.close()


#: as the version before ours wrote it, checksums and all: an order with a fill, a day, a configuration, a checkpoint
_VERSION_2 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, client_id TEXT NOT NULL UNIQUE, symbol TEXT NOT NULL, side INTEGER NOT NULL,
    qty INTEGER NOT NULL, price INTEGER NOT NULL, order_type TEXT NOT NULL, time_in_force TEXT NOT NULL,
    epoch INTEGER NOT NULL, seq INTEGER NOT NULL, created_ns INTEGER NOT NULL, state TEXT NOT NULL,
    venue_id TEXT NOT NULL DEFAULT '', filled INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    context TEXT NOT NULL, crc INTEGER);
CREATE INDEX unfinished ON orders (id) WHERE state NOT IN ('cancelled', 'expired', 'filled', 'rejected');
CREATE TABLE events (
    id INTEGER PRIMARY KEY, client_id TEXT NOT NULL, at_ns INTEGER NOT NULL, state TEXT NOT NULL,
    detail TEXT NOT NULL, crc INTEGER);
CREATE TABLE fills (
    id INTEGER PRIMARY KEY, client_id TEXT NOT NULL, fill_id TEXT NOT NULL, symbol TEXT NOT NULL,
    side INTEGER NOT NULL, qty INTEGER NOT NULL, price INTEGER NOT NULL, fee INTEGER NOT NULL,
    at_ns INTEGER NOT NULL, crc INTEGER, UNIQUE (client_id, fill_id));
CREATE TABLE checkpoint_positions (
    symbol TEXT PRIMARY KEY, qty INTEGER NOT NULL, cost TEXT NOT NULL, realised TEXT NOT NULL,
    fees INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE checkpoint_streams (
    symbol TEXT, epoch INTEGER, seq INTEGER NOT NULL, latest INTEGER NOT NULL,
    PRIMARY KEY (symbol, epoch)) WITHOUT ROWID;
CREATE TABLE days (day TEXT PRIMARY KEY, opening INTEGER NOT NULL, crc INTEGER) WITHOUT ROWID;
CREATE TABLE configs (id TEXT PRIMARY KEY, at_ns INTEGER NOT NULL, text TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO orders VALUES (1, '00000007-0-1', 'BTC-USD', 1, 100, 5, 'LIMIT', 'IOC', 7, 1, 10, 'partly filled', '', 60,
    '', '{}', 1571490210);
INSERT INTO events VALUES (1, '00000007-0-1', 11, 'sent', '', 825703895);
INSERT INTO events VALUES (2, '00000007-0-1', 12, 'partly filled', 'fill f', 1908249040);
INSERT INTO fills VALUES (1, '00000007-0-1', 'f', 'BTC-USD', 1, 60, 7, 3, 12, 1989522050);
INSERT INTO checkpoint_positions VALUES ('BTC-USD', 60, '420', '0', 3);
INSERT INTO checkpoint_streams VALUES ('BTC-USD', 7, 1, 0);
INSERT INTO days VALUES ('2024-07-18', 4, 3494459777);
INSERT INTO configs VALUES ('f9d86028c6e0d64e', 5, '{"a": 1}');
INSERT INTO meta VALUES ('checkpoint_crc', 2012621274), ('fills_through', 1), ('orders_through', 1);
PRAGMA application_id = 0x414C5048; PRAGMA user_version = 2;
"""
_WHOLE = {"orders": 1, "events": 2, "fills": 1, "days": 1, "unsummed": 0}


@pytest.fixture
def second(path):
    """A journal of the version before ours."""
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.executescript(_VERSION_2)
    db.close()
    return path


def test_a_journal_of_the_second_version_is_read_as_it_is_and_brought_to_ours_by_the_next_writer(second):
    reader = Reader(second)
    assert reader.verify() == _WHOLE and reader.days() == {"2024-07-18": 4}
    assert reader.config("f9d86028c6e0d64e") == '{"a": 1}' and reader.positions()["BTC-USD"].qty == 60
    reader.close()
    journal = Journal.open(second)
    found = journal.restore()
    assert [w.order for w in found.working] == [order(1)] and found.positions["BTC-USD"].qty == 60
    assert found.begun == {"BTC-USD": 10} and journal.day("2024-07-18") == (4, 4)
    journal.raise_peak("2024-07-18", 4, 9)
    journal.close()
    journal = Journal.open(second)
    journal.restore()
    assert journal.day("2024-07-18") == (4, 9)
    journal.close()
    reader = Reader(second)
    assert reader.verify() == _WHOLE and reader.days() == {"2024-07-18": 4}
    reader.close()


def test_a_day_that_was_damaged_in_the_second_version_is_not_made_good_by_ours(second):
    change(second, "UPDATE days SET opening = 5")
    reader = Reader(second)
    with pytest.raises(ResourceError, match="days: the row of 2024-07-18"):
        reader.verify()
    reader.close()
    for _ in range(2):
        journal = Journal.open(second)
        with pytest.raises(ResourceError, match="days: the row of 2024-07-18"):
            journal.restore()
        journal.close()


def test_a_configuration_is_kept_once(journal, path):
    name = journal.configured('{"a": 1}', 5)
    assert name == journal.configured('{"a": 1}', 6) != journal.configured('{"a": 2}', 7)
    reader = Reader(path)
    assert reader.config(name) == '{"a": 1}' and reader.config("nobody") is None
    reader.close()
    change(path, "UPDATE configs SET text = '{}'")
    reader = Reader(path)
    with pytest.raises(ResourceError, match="damaged.*configs"):
        reader.config(name)
    reader.close()


def test_a_torn_tail_of_the_log_is_cut_off_and_the_rest_stands(path, tmp_path):
    journal = Journal.open(path)
    for n in range(1, 20):
        journal.intent(order(n), "{}", 1)
    copy = tmp_path / "copy" / "journal.db"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    log = path.with_name("journal.db-wal").read_bytes()
    copy.with_name("journal.db-wal").write_bytes(log[:-100])
    journal.close()
    survivor = Journal.open(copy)
    assert len(survivor.restore().working) == 18
    survivor.close()


def test_a_flipped_bit_within_the_log_is_noticed_and_left_as_it_is(path, tmp_path):
    journal = Journal.open(path)
    for n in range(1, 20):
        journal.intent(order(n), "{}", 1)
    copy = tmp_path / "copy" / "journal.db"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    data = bytearray(path.with_name("journal.db-wal").read_bytes())
    journal.close()
    data[len(data) // 2] ^= 1
    log = copy.with_name("journal.db-wal")
    log.write_bytes(data)
    for _ in range(2):
        with pytest.raises(ResourceError, match="damaged.*its log is damaged, and at least .* commits"):
            Journal.open(copy)
        assert log.read_bytes() == data


def test_a_database_of_someone_else_is_refused(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(ResourceError, match="not a journal"):
        Journal.open(path)


def test_a_journal_of_another_version_is_refused(path):
    Journal.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ResourceError, match="version 99"):
        Journal.open(path)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot open the journal"):
        Journal.open(tmp_path / "file" / "journal.db")


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


_WRITER = """
import sys
from pathlib import Path
from common.journal import Journal
from common.orders import Order, State
journal = Journal.open(Path(sys.argv[1]))
for n in range(1, 10**9):
    order = Order(f"x-{n}", "A", 1, 10, 5, 7, n)
    journal.intent(order, "{}", n)
    journal.fill(order, "f", 10, 5, 0, State.FILLED, n)
    print(n, flush=True)
"""


def test_what_was_committed_survives_a_kill(path):
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    promised = 0
    while promised < 50:
        promised = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    for line in writer.communicate()[0].splitlines():
        promised = int(line)
    reader = Reader(path)  # before anyone has put the log in order
    assert promised <= len(reader.fills(10**9)) <= promised + 1
    reader.verify()
    reader.close()
    journal = Journal.open(path)
    found = journal.restore()
    [(epoch, seq)] = found.streams["A"]
    assert epoch == 7 and promised <= seq <= promised + 1
    assert promised * 10 <= found.positions["A"].qty <= (promised + 1) * 10
    journal.close()


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


def traded(journal, path, sql: str = "") -> None:
    """A journal with an order that is filled, closed, and then changed by `sql`."""
    journal.intent(order(1), "{}", 10)
    journal.advance(order(1).client_id, S.SENT, 11)
    journal.fill(order(1), "f", 100, 5, 3, S.FILLED, 12)
    journal.close()
    change(path, sql or "SELECT 1")


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
