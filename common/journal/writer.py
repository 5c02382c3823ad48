"""The writer's end of the journal, of which there is one: an intent is durable when `Journal.intent` returns.

Durability "process" (WAL, synchronous NORMAL) survives `kill -9` of the process: an intent costs about 55 us, 10 of
them for its checksum and what its context tells. "power" (synchronous FULL) survives a power cut too, for one fsync per
commit: 430 us and more.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.errors import ContractError, ResourceError
from common.journal import state as state_of
from common.journal.checks import examine, examine_log
from common.journal.file import LASTING, NEW, TERMINAL_SQL, checksum, connect, make, prepare, summing
from common.locks import lock_file
from common.orders import CORRECTION, Order, State, Working
from common.positions import Position

_RECENT = 1000  # orders that a start looks back at, for the limits that count orders in a time


class Restored(NamedTuple):
    """What a start finds."""

    positions: dict[str, Position]
    working: list[Working]  #: orders not at their end, oldest first
    streams: dict[str, list[tuple[int, int]]]  #: symbol -> (epoch, newest seq ordered on), the latest epoch last
    virgin: bool  #: nothing was ever ordered or adopted
    recent: list[tuple[str, int, int, int, int]]  #: (symbol, side, quantity, price, Unix ns) of the last orders
    begun: dict[str, int]  #: symbol -> when what is held was begun: intent of the order, Unix ns; where that is known


class Journal:
    """The writer's end. Raises InstanceError if another process writes this journal, ResourceError if the file
    is damaged or cannot be written; after such an error nothing of the failed change is in it."""

    def __init__(self, connection: sqlite3.Connection, lock: int | None, path: Path) -> None:
        self._db, self._lock, self._path = connection, lock, path

    @classmethod
    def open(cls, path: Path, durability: str = "process") -> "Journal":
        """The journal at `path`, made if it is not there. Checks the whole file: about 1 s per 300 MB."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = lock_file(path.with_suffix(".lock"), f"the journal {path}")
        except OSError as error:
            raise ResourceError("cannot open the journal", where=f"{path}: {error.strerror}",
                                remedy="make its folder writable") from None
        try:
            make(path)
            examine_log(path)
            os.chmod(path, 0o600)
            connection = connect(path)
            try:
                prepare(connection, path, durability)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            os.close(lock)
            raise ResourceError("cannot open the journal", where=f"{path}: {error.strerror}",
                                remedy="make it readable and writable for this user") from None
        except BaseException:
            os.close(lock)
            raise
        return cls(connection, lock, path)

    @classmethod
    def private(cls) -> "Journal":
        """A journal in memory: replay, backtest, tests."""
        connection = summing(sqlite3.connect(":memory:", isolation_level=None))
        connection.executescript(NEW)
        prepare(connection, Path(":memory:"), "process")
        return cls(connection, None, Path(":memory:"))

    def restore(self) -> Restored:
        """Everything a start needs; and a checkpoint, so that the next start is short. ResourceError if a row of what
        it takes up is not as it was written."""
        with self.batch() as db:
            examine(db, self._path, since_checkpoint=True)
            positions, streams = state_of.positions(db), state_of.streams(db)
            virgin = not positions and db.execute("SELECT 1 FROM orders LIMIT 1").fetchone() is None
            state_of.write_checkpoint(db, positions, streams)
            rows = db.execute(f"SELECT id FROM orders WHERE state NOT IN ({TERMINAL_SQL}) ORDER BY id").fetchall()
            working = [state_of.working(db, "id", row[0]) for row in rows]
            recent = db.execute("SELECT symbol, side, qty, price, created_ns FROM orders WHERE order_type != ?"
                                f" ORDER BY id DESC LIMIT {_RECENT}", (CORRECTION,)).fetchall()[::-1]
            begun = state_of.begun(db, {symbol: position.qty for symbol, position in positions.items() if position.qty})
        return Restored(positions, working, {symbol: list(found) for symbol, found in streams.items()}, virgin, recent,
                        begun)

    def intent(self, order: Order, context: str, now: int) -> None:
        """The order, durable when this returns. ContractError if its client id is known: never twice."""
        lasting = (order.client_id, order.symbol, order.side, order.qty, order.price, order.epoch, order.seq,
                   order.order_type, order.time_in_force, now, context)
        try:
            self._db.execute(
                f"INSERT INTO orders ({LASTING['orders']}, state, crc) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (*lasting, State.INTENT.value, checksum(*lasting)))
        except sqlite3.IntegrityError:
            raise ContractError("an order is in the journal already",
                                where=f"client_id={order.client_id}") from None
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def advance(self, client_id: str, state: State, now: int, detail: str = "", venue_id: str = "") -> None:
        """The order has reached `state`."""
        with self.batch() as db:
            db.execute("UPDATE orders SET state = ?, reason = CASE ? WHEN '' THEN reason ELSE ? END,"
                       " venue_id = CASE ? WHEN '' THEN venue_id ELSE ? END WHERE client_id = ?",
                       (state.value, detail, detail, venue_id, venue_id, client_id))
            _event(db, client_id, now, state, detail)

    def fill(self, order: Order, fill_id: str, qty: int, price: int, fee: int, state: State, now: int) -> bool:
        """A fill, and the state it brought the order to. False, and nothing booked, if it is known."""
        lasting = (order.client_id, fill_id, order.symbol, order.side, qty, price, fee, now)
        with self.batch() as db:
            found = db.execute(f"INSERT OR IGNORE INTO fills ({LASTING['fills']}, crc) VALUES (?,?,?,?,?,?,?,?,?)",
                               (*lasting, checksum(*lasting)))
            news = found.rowcount > 0
            db.execute("UPDATE orders SET state = ?, filled = filled + ? WHERE client_id = ?",
                       (state.value, qty if news else 0, order.client_id))
            if news:
                _event(db, order.client_id, now, state, f"fill {fill_id}")
        return news

    def find(self, client_id: str) -> Working | None:
        """An order by its client id, at its end or not."""
        try:
            return state_of.working(self._db, "client_id", client_id)
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def adopt(self, positions: dict[str, tuple[int, int]]) -> None:
        """Take over positions that the venue holds, symbol -> (signed quantity, average price), into a virgin
        journal."""
        with self.batch() as db:
            known = state_of.positions(db)
            known.update({symbol: Position(qty, qty * price) for symbol, (qty, price) in positions.items()})
            state_of.write_checkpoint(db, known, state_of.streams(db))

    def day(self, day: str) -> tuple[int, int] | None:
        """Profit (1e-8) when `day` (UTC, 2024-07-18) began, and its best since; None if it has not begun here."""
        try:
            return self._db.execute("SELECT opening, peak FROM days WHERE day = ?", (day,)).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def open_day(self, day: str, opening: int) -> None:
        """The day begins, once."""
        with self.batch() as db:
            db.execute(f"INSERT OR IGNORE INTO days ({LASTING['days']}, crc) VALUES (?, ?, ?, ?)",
                       (day, opening, opening, checksum(day, opening, opening)))

    def raise_peak(self, day: str, opening: int, peak: int) -> None:
        """The best profit of a day that began with `opening` is `peak` now; a lower one changes nothing. As an intent,
        it costs about 50 us."""
        with self.batch() as db:
            db.execute("UPDATE days SET peak = ?, crc = ? WHERE day = ? AND opening = ? AND peak < ?",
                       (peak, checksum(day, opening, peak), day, opening, peak))

    def configured(self, text: str, now: int) -> str:
        """Keep `text`, a configuration as JSON, once; returns the id by which contexts of orders name it."""
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        with self.batch() as db:
            db.execute("INSERT OR IGNORE INTO configs VALUES (?, ?, ?)", (name, now, text))
        return name

    @contextlib.contextmanager
    def batch(self) -> Iterator[sqlite3.Connection]:
        """All that is written inside is one transaction; inside another batch it is a part of that one."""
        if self._db.in_transaction:
            yield self._db
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(error) from None
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def tidy(self) -> None:
        """Move what is in the write-ahead log into the file. Some milliseconds: for idle turns."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _failed(self, error: sqlite3.Error) -> ResourceError:
        return ResourceError("the journal cannot be written", where=str(error),
                             remedy="make room on its disk, or see to its file; nothing trades until then")


def _event(db: sqlite3.Connection, client_id: str, now: int, state: State, detail: str) -> None:
    lasting = (client_id, now, state.value, detail)
    db.execute(f"INSERT INTO events ({LASTING['events']}, crc) VALUES (?,?,?,?,?)", (*lasting, checksum(*lasting)))
