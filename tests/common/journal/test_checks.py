"""Damage of a journal is noticed, named, and left as it is."""


import pytest

from common.errors import ResourceError
from common.journal import Journal, Reader
from tests.journals import change, fill_with_orders, filled, flip, order


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


def logged(path, folder) -> tuple:
    """A copy of a journal without its log, and the log: of 19 orders that no checkpoint of SQLite has taken in yet."""
    journal = Journal.open(path)
    for n in range(1, 20):
        journal.intent(order(n), "{}", 1)
    copy = folder / "copy" / "journal.db"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    data = path.with_name("journal.db-wal").read_bytes()
    journal.close()
    return copy, data


def test_a_torn_tail_of_the_log_is_cut_off_and_the_rest_stands(path, tmp_path):
    copy, data = logged(path, tmp_path)
    copy.with_name("journal.db-wal").write_bytes(data[:-100])
    survivor = Journal.open(copy)
    assert len(survivor.restore().working) == 18
    survivor.close()


def test_a_flipped_bit_within_the_log_is_noticed_and_left_as_it_is(path, tmp_path):
    copy, data = logged(path, tmp_path)
    data = data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1:]
    log = copy.with_name("journal.db-wal")
    log.write_bytes(data)
    for _ in range(2):
        with pytest.raises(ResourceError, match="damaged.*its log is damaged, and at least .* commits"):
            Journal.open(copy)
        assert log.read_bytes() == data
