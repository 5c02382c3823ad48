"""The journal's writer: what it has promised survives, and what cannot be written harms nothing."""

import os
import resource
import signal
import subprocess
import sys

import pytest

from common.errors import ContractError, InstanceError, ResourceError
from common.journal import Journal, Reader
from common.orders import SELL
from tests.journals import S, change, order, reopened


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
