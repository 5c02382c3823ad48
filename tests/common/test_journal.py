"""The journal: what it has promised survives, what it holds is exact, and damage is noticed."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ContractError, InstanceError, ResourceError
from common.journal import Journal, Reader
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
    assert journal.restore() == ({}, [], {}, True)
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
@settings(max_examples=40, deadline=None)
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
    assert journal.opening("2024-07-18") is None
    journal.open_day("2024-07-18", -5)
    journal.open_day("2024-07-18", 99)
    assert journal.opening("2024-07-18") == -5


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
    journal = Journal.open(path)
    found = journal.restore()
    [(epoch, seq)] = found.streams["A"]
    assert epoch == 7 and promised <= seq <= promised + 1
    assert promised * 10 <= found.positions["A"].qty <= (promised + 1) * 10
    journal.close()
