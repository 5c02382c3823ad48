"""The journal: what we meant to do, durable before it is done, and what came of it. SQLite, one writer.

    orders     one row per order: the intent, and the state it has reached
    events     every change of state, with its time and reason, in the order it was learnt
    fills      one row per fill, unique by (order, the venue's fill id): booked twice is booked once
    checkpoint positions and stream sequences as of `orders_through` and `fills_through` in `meta`; what came
               after is replayed from the two tables above, so a start costs what happened since the last one
    days       profit at the beginning of each UTC day, against which the day's loss is counted

Durability "process" (WAL, synchronous NORMAL) survives `kill -9` of the process: an intent costs about 40 us.
"power" (synchronous FULL) survives a power cut too, for one fsync per commit: 250 us and more. Times are Unix ns,
quantities and prices counts of 1e-8; costs and profits, 1e-16, exceed 64 bits and are kept as text.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import ContractError, ResourceError
from common.locks import lock_file
from common.orders import SIDE_NAMES, TERMINAL, Order, State, Working
from common.positions import Position

VERSION = 1
_APPLICATION = 0x414C5048  # "ALPH", in the file's header
_TERMINAL_SQL = ", ".join(f"'{state}'" for state in sorted(TERMINAL))
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, client_id TEXT NOT NULL UNIQUE, symbol TEXT NOT NULL, side INTEGER NOT NULL,
    qty INTEGER NOT NULL, price INTEGER NOT NULL, order_type TEXT NOT NULL, time_in_force TEXT NOT NULL,
    epoch INTEGER NOT NULL, seq INTEGER NOT NULL, created_ns INTEGER NOT NULL, state TEXT NOT NULL,
    venue_id TEXT NOT NULL DEFAULT '', filled INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    context TEXT NOT NULL);
CREATE INDEX unfinished ON orders (id) WHERE state NOT IN ({_TERMINAL_SQL});
CREATE TABLE events (
    id INTEGER PRIMARY KEY, client_id TEXT NOT NULL, at_ns INTEGER NOT NULL, state TEXT NOT NULL,
    detail TEXT NOT NULL);
CREATE TABLE fills (
    id INTEGER PRIMARY KEY, client_id TEXT NOT NULL, fill_id TEXT NOT NULL, symbol TEXT NOT NULL,
    side INTEGER NOT NULL, qty INTEGER NOT NULL, price INTEGER NOT NULL, fee INTEGER NOT NULL,
    at_ns INTEGER NOT NULL, UNIQUE (client_id, fill_id));
CREATE TABLE checkpoint_positions (
    symbol TEXT PRIMARY KEY, qty INTEGER NOT NULL, cost TEXT NOT NULL, realised TEXT NOT NULL,
    fees INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE checkpoint_streams (
    symbol TEXT, epoch INTEGER, seq INTEGER NOT NULL, latest INTEGER NOT NULL,
    PRIMARY KEY (symbol, epoch)) WITHOUT ROWID;
CREATE TABLE days (day TEXT PRIMARY KEY, opening INTEGER NOT NULL) WITHOUT ROWID;
"""
_ORDER_COLUMNS = "client_id, symbol, side, qty, price, epoch, seq, order_type, time_in_force"


class Restored(NamedTuple):
    """What a start finds."""

    positions: dict[str, Position]
    working: list[Working]  #: orders not at their end, oldest first
    streams: dict[str, list[tuple[int, int]]]  #: symbol -> (epoch, newest seq ordered on), the latest epoch last
    virgin: bool  #: nothing was ever ordered or adopted


class Journal:
    """The writer's end. Raises InstanceError if another process writes this journal, ResourceError if the file
    is damaged or cannot be written; after such an error nothing of the failed change is in it."""

    def __init__(self, connection: sqlite3.Connection, lock: int | None) -> None:
        self._db, self._lock = connection, lock

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
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            os.chmod(path, 0o600)
            connection = _connect(path)
            try:
                _prepare(connection, path, durability)
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
        return cls(connection, lock)

    @classmethod
    def private(cls) -> "Journal":
        """A journal in memory: replay, backtest, tests."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        _prepare(connection, Path(":memory:"), "process")
        return cls(connection, None)

    def restore(self) -> Restored:
        """Everything a start needs; and a checkpoint, so that the next start is short."""
        with self.batch() as db:
            positions, streams = _positions(db), _streams(db)
            virgin = not positions and db.execute("SELECT 1 FROM orders LIMIT 1").fetchone() is None
            _checkpoint(db, positions, streams)
            rows = db.execute(f"SELECT id FROM orders WHERE state NOT IN ({_TERMINAL_SQL}) ORDER BY id").fetchall()
            working = [_working(db, "id", row[0]) for row in rows]
        return Restored(positions, working, {symbol: list(found) for symbol, found in streams.items()}, virgin)

    def intent(self, order: Order, context: str, now: int) -> None:
        """The order, durable when this returns. ContractError if its client id is known: never twice."""
        try:
            self._db.execute(
                f"INSERT INTO orders ({_ORDER_COLUMNS}, created_ns, state, context) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (order.client_id, order.symbol, order.side, order.qty, order.price, order.epoch, order.seq,
                 order.order_type, order.time_in_force, now, State.INTENT.value, context))
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
            db.execute("INSERT INTO events (client_id, at_ns, state, detail) VALUES (?,?,?,?)",
                       (client_id, now, state.value, detail))

    def fill(self, order: Order, fill_id: str, qty: int, price: int, fee: int, state: State, now: int) -> bool:
        """A fill, and the state it brought the order to. False, and nothing booked, if it is known."""
        with self.batch() as db:
            found = db.execute("INSERT OR IGNORE INTO fills (client_id, fill_id, symbol, side, qty, price, fee,"
                               " at_ns) VALUES (?,?,?,?,?,?,?,?)",
                               (order.client_id, fill_id, order.symbol, order.side, qty, price, fee, now))
            news = found.rowcount > 0
            db.execute("UPDATE orders SET state = ?, filled = filled + ? WHERE client_id = ?",
                       (state.value, qty if news else 0, order.client_id))
            if news:
                db.execute("INSERT INTO events (client_id, at_ns, state, detail) VALUES (?,?,?,?)",
                           (order.client_id, now, state.value, f"fill {fill_id}"))
        return news

    def find(self, client_id: str) -> Working | None:
        """An order by its client id, at its end or not."""
        try:
            return _working(self._db, "client_id", client_id)
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def adopt(self, positions: dict[str, tuple[int, int]]) -> None:
        """Take over positions that the venue holds, symbol -> (signed quantity, average price), into a virgin
        journal."""
        with self.batch() as db:
            known = _positions(db)
            known.update({symbol: Position(qty, qty * price) for symbol, (qty, price) in positions.items()})
            _checkpoint(db, known, _streams(db))

    def opening(self, day: str) -> int | None:
        """Profit (1e-8) when `day` (UTC, 2024-07-18) began; None if it has not begun here."""
        try:
            row = self._db.execute("SELECT opening FROM days WHERE day = ?", (day,)).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return row[0] if row else None

    def open_day(self, day: str, opening: int) -> None:
        with self.batch() as db:
            db.execute("INSERT OR IGNORE INTO days VALUES (?, ?)", (day, opening))

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


class Reader:
    """A reader's end, for commands: sees what is committed, disturbs nobody. Raises ResourceError if there is no
    journal or it is damaged."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise ResourceError("there is no journal", where=str(path), remedy="start the executor first")
        self._path = path
        with self._reading():
            self._db = _connect(path, "ro")
            _check_version(self._db, path)

    def counts(self) -> dict[str, int]:
        """Orders by state, and `fills`."""
        with self._reading():
            found = dict(self._db.execute("SELECT state, count(*) FROM orders GROUP BY state ORDER BY state"))
            found["fills"] = self._db.execute("SELECT count(*) FROM fills").fetchone()[0]
            return found

    def orders(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest orders, newest first."""
        with self._reading():
            cursor = self._db.execute("SELECT * FROM orders ORDER BY id DESC LIMIT ?", (limit,))
            return [_named(cursor, row, SIDE_NAMES) for row in cursor]

    def fills(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest fills, newest first."""
        with self._reading():
            cursor = self._db.execute("SELECT * FROM fills ORDER BY id DESC LIMIT ?", (limit,))
            return [_named(cursor, row, SIDE_NAMES) for row in cursor]

    def history(self, client_id: str) -> list[dict[str, Any]]:
        """What happened to one order, in order."""
        with self._reading():
            cursor = self._db.execute("SELECT at_ns, state, detail FROM events WHERE client_id = ? ORDER BY id",
                                      (client_id,))
            return [_named(cursor, row) for row in cursor]

    def positions(self) -> dict[str, Position]:
        with self._reading():
            return _positions(self._db)

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _damaged(self._path, str(error)) from None


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=1.0)


def _prepare(db: sqlite3.Connection, path: Path, durability: str) -> None:
    """Check the file, make the schema if it is new, and set how it is written."""
    try:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _damaged(path, verdict.splitlines()[-1])
        if not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {_APPLICATION};"
                             f" PRAGMA user_version = {VERSION}; COMMIT;")
        _check_version(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        db.execute("PRAGMA wal_autocheckpoint = 0")  # `tidy` does it, when there is time
    except sqlite3.OperationalError as error:
        raise ResourceError("cannot open the journal", where=f"{path}: {error}",
                            remedy="make room on its disk, and its folder writable") from None
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from None


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application != _APPLICATION:
        raise ResourceError("a file is not a journal of this project", where=str(path),
                            remedy="name another state folder")
    if version != VERSION:
        raise ResourceError("a journal has another version", where=f"{path}: version {version}, ours {VERSION}",
                            remedy="use the version of alpha that wrote it")


def _damaged(path: Path, what: str) -> ResourceError:
    return ResourceError(
        "the journal is damaged", where=f"{path}: {what}",
        remedy="move it away together with its -wal and -shm files; a new journal takes over the positions that "
               "the venue holds, so compare those with your own records first")


def _positions(db: sqlite3.Connection) -> dict[str, Position]:
    """The checkpoint, and the fills since."""
    positions = {symbol: Position(qty, int(cost), int(realised), fees) for symbol, qty, cost, realised, fees in
                 db.execute("SELECT symbol, qty, cost, realised, fees FROM checkpoint_positions")}
    for symbol, side, qty, price, fee in db.execute(
            "SELECT symbol, side, qty, price, fee FROM fills WHERE id > ? ORDER BY id", (_through(db, "fills"),)):
        positions.setdefault(symbol, Position()).fill(side, qty, price, fee)
    return positions


def _streams(db: sqlite3.Connection) -> dict[str, Sequence[tuple[int, int]]]:
    """Per symbol the newest sequence of each epoch, in the order in which the epochs were last traded on."""
    newest: dict[tuple[str, int], tuple[int, int]] = {}
    for symbol, epoch, seq, latest in db.execute(
            "SELECT symbol, epoch, seq, latest FROM checkpoint_streams UNION ALL"
            " SELECT symbol, epoch, max(seq), max(id) FROM orders WHERE id > ? GROUP BY symbol, epoch",
            (_through(db, "orders"),)):
        known = newest.get((symbol, epoch), (0, 0))
        newest[symbol, epoch] = max(known[0], seq), max(known[1], latest)
    streams: dict[str, list[tuple[int, int]]] = {}
    for (symbol, epoch), (seq, _) in sorted(newest.items(), key=lambda item: item[1][1]):
        streams.setdefault(symbol, []).append((epoch, seq))
    return streams


def _checkpoint(db: sqlite3.Connection, positions: dict[str, Position],
                streams: dict[str, Sequence[tuple[int, int]]]) -> None:
    db.executemany("INSERT OR REPLACE INTO checkpoint_positions VALUES (?,?,?,?,?)",
                   [(s, p.qty, str(p.cost), str(p.realised), p.fees) for s, p in positions.items()])
    db.executemany("INSERT OR REPLACE INTO checkpoint_streams VALUES (?,?,?,?)",
                   [(symbol, epoch, seq, rank) for symbol, found in streams.items()
                    for rank, (epoch, seq) in enumerate(found)])
    for table in ("orders", "fills"):
        db.execute(f"INSERT OR REPLACE INTO meta VALUES (?, (SELECT coalesce(max(id), 0) FROM {table}))",
                   (f"{table}_through",))


def _through(db: sqlite3.Connection, table: str) -> int:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (f"{table}_through",)).fetchone()
    return row[0] if row else 0


def _working(db: sqlite3.Connection, key: str, value: str | int) -> Working | None:
    row = db.execute(f"SELECT state, venue_id, {_ORDER_COLUMNS} FROM orders WHERE {key} = ?", (value,)).fetchone()
    if row is None:
        return None
    state, venue_id, *fields = row
    working = Working(Order(*fields), State(state), venue_id)
    for fill_id, qty in db.execute("SELECT fill_id, qty FROM fills WHERE client_id = ?", (working.order.client_id,)):
        working.fill_ids.add(fill_id)
        working.filled += qty
    return working


def _named(cursor: sqlite3.Cursor, row: tuple, sides: dict[int, str] | None = None) -> dict[str, Any]:
    named = {column[0]: value for column, value in zip(cursor.description, row)}
    if sides:
        named["side"] = sides[named["side"]]
    return named
