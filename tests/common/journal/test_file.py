"""The journal's file: private, of one version, and made whole or not at all."""

import sqlite3
import stat

import pytest

from common.errors import ResourceError
from common.journal import Journal, Reader
from tests.journals import change, filled, order


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
