"""Journals for tests: orders, fills, and the damage that is done to them."""

import sqlite3

from hypothesis import strategies as st

from common.journal import Journal
from common.orders import BUY, SELL, Order, State

S = State


def order(n: int, symbol: str = "BTC-USD", side: int = BUY, qty: int = 100, epoch: int = 7) -> Order:
    return Order(f"{epoch:08x}-0-{n}", symbol, side, qty, 5, epoch, n)


def reopened(journal: Journal, path) -> Journal:
    journal.close()
    return Journal.open(path)


fills = st.lists(st.tuples(st.sampled_from(["A", "B"]), st.sampled_from([BUY, SELL]), st.integers(1, 10**12),
                           st.integers(1, 10**13), st.integers(-10**9, 10**9), st.booleans()), max_size=25)


def fill_with_orders(path, count: int = 200) -> None:
    journal = Journal.open(path)
    for n in range(1, count):
        journal.intent(order(n), "x" * 500, 1)
    journal.close()


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


def change(path, sql: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql)
    db.close()


def traded(journal, path, sql: str = "") -> None:
    """A journal with an order that is filled, closed, and then changed by `sql`."""
    journal.intent(order(1), "{}", 10)
    journal.advance(order(1).client_id, S.SENT, 11)
    journal.fill(order(1), "f", 100, 5, 3, S.FILLED, 12)
    journal.close()
    change(path, sql or "SELECT 1")
