"""The journal: what we meant to do, durable before it is done, and what came of it. SQLite, one writer.

    orders     one row per order: the intent, and the state it has reached
    events     every change of state, with its time and reason, in the order it was learnt
    fills      one row per fill, unique by (order, the venue's fill id): booked twice is booked once
    checkpoint positions and stream sequences as of `orders_through` and `fills_through` in `meta`; what came
               after is replayed from the two tables above, so a start costs what happened since the last one
    days       profit at the beginning of each UTC day, against which the day's loss is counted, and its peak, against
               which the drawdown is; the peak is written when it has risen, about once a second, so that a crash loses
               what it rose by in the last second or two
    configs    every configuration that orders were decided under, and every layout of their contexts, by the hash that
               contexts name

Durability "process" (WAL, synchronous NORMAL) survives `kill -9` of the process: an intent costs about 55 us, 10 of
them for its checksum and what its context tells. "power" (synchronous FULL) survives a power cut too, for one fsync per
commit: 430 us and more. Times are Unix ns, quantities and prices counts of 1e-8; costs and profits, 1e-16, exceed 64
bits and are kept as text.

Damage. SQLite sees a page that is not whole, and cuts off a log where it is torn. It does not see a number that has
changed within a page, so each row carries a checksum of what of it never changes; nor commits that stand behind a
damaged place of the log (common.journal_log). A start examines the log, the pages, and the checksums of what it takes
up: the checkpoint, what came after it, and unfinished orders. A reader examines what it gives: the checksum of each
row, and of positions those that they are made of; `Reader.verify` every row, and whether they agree.
"""

import contextlib
import hashlib
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.config import Config
from common.errors import ConfigError, ContractError, ResourceError
from common.fixed import MAX
from common.journal_log import lost_commits
from common.locks import lock_file
from common.orders import CORRECTION, SIDE_NAMES, TERMINAL, Order, State, Working
from common.positions import Position

VERSION = 3
MOST_NS = MAX  #: the last time that a journal can hold, Unix ns: in 2262; the first is as long before 1970
LAST = "last"  #: the newest order that was decided, where one is asked for by its id
_OLDEST = 1  # version that is still read, and brought to ours by the next writer
_RECENT = 1000  # orders that a start looks back at, for the limits that count orders in a time
_APPLICATION = 0x414C5048  # "ALPH", in the file's header
_TERMINAL_SQL = ", ".join(f"'{state}'" for state in sorted(TERMINAL))
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, client_id TEXT NOT NULL UNIQUE, symbol TEXT NOT NULL, side INTEGER NOT NULL,
    qty INTEGER NOT NULL, price INTEGER NOT NULL, order_type TEXT NOT NULL, time_in_force TEXT NOT NULL,
    epoch INTEGER NOT NULL, seq INTEGER NOT NULL, created_ns INTEGER NOT NULL, state TEXT NOT NULL,
    venue_id TEXT NOT NULL DEFAULT '', filled INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    context TEXT NOT NULL, crc INTEGER);
CREATE INDEX unfinished ON orders (id) WHERE state NOT IN ({_TERMINAL_SQL});
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
CREATE TABLE days (
    day TEXT PRIMARY KEY, opening INTEGER NOT NULL, crc INTEGER, peak INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE configs (id TEXT PRIMARY KEY, at_ns INTEGER NOT NULL, text TEXT NOT NULL) WITHOUT ROWID;
"""
#: what brings a journal of each older version to the next one
_STEPS = {1: """
ALTER TABLE orders ADD COLUMN crc INTEGER;
ALTER TABLE events ADD COLUMN crc INTEGER;
ALTER TABLE fills ADD COLUMN crc INTEGER;
ALTER TABLE days ADD COLUMN crc INTEGER;
CREATE TABLE configs (id TEXT PRIMARY KEY, at_ns INTEGER NOT NULL, text TEXT NOT NULL) WITHOUT ROWID;
""", 2: """
ALTER TABLE days ADD COLUMN peak INTEGER NOT NULL DEFAULT 0;
UPDATE days SET peak = opening;
UPDATE days SET crc = checksum(day, opening, peak) WHERE crc = checksum(day, opening);
"""}  # a row that was damaged keeps its checksum, and stays so
_NEW = (f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION};"
        " COMMIT;")
_ORDER_COLUMNS = "client_id, symbol, side, qty, price, epoch, seq, order_type, time_in_force"
#: what of a row never changes, in the order in which its checksum covers it
_LASTING = {"orders": f"{_ORDER_COLUMNS}, created_ns, context", "events": "client_id, at_ns, state, detail",
            "fills": "client_id, fill_id, symbol, side, qty, price, fee, at_ns",
            "days": "day, opening, peak"}  # the checksum of a day is written anew with its peak


def located(config: Config) -> Path:
    """The journal of what the configuration trades: a paper account has one of its own."""
    paper = config.executor.gateway == "paper"
    return config.state_dir / (config.executor.journal or ("paper.db" if paper else "journal.db"))


class Restored(NamedTuple):
    """What a start finds."""

    positions: dict[str, Position]
    working: list[Working]  #: orders not at their end, oldest first
    streams: dict[str, list[tuple[int, int]]]  #: symbol -> (epoch, newest seq ordered on), the latest epoch last
    virgin: bool  #: nothing was ever ordered or adopted
    recent: list[tuple[str, int, int, int, int]]  #: (symbol, side, quantity, price, Unix ns) of the last orders
    begun: dict[str, int]  #: symbol -> when what is held was begun: intent of the order, Unix ns; where that is known


class News(NamedTuple):
    """What of a journal a reader has not seen: rows as `Reader` has them, oldest first."""

    orders: list[dict[str, Any]]  #: new, or changed since; without their contexts
    fills: list[dict[str, Any]]
    through: tuple[int, int, int]  #: newest rows of orders, events and fills: what `Reader.news` takes at the next look


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
            _make(path)
            _examine_log(path)
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
        return cls(connection, lock, path)

    @classmethod
    def private(cls) -> "Journal":
        """A journal in memory: replay, backtest, tests."""
        connection = _summing(sqlite3.connect(":memory:", isolation_level=None))
        connection.executescript(_NEW)
        _prepare(connection, Path(":memory:"), "process")
        return cls(connection, None, Path(":memory:"))

    def restore(self) -> Restored:
        """Everything a start needs; and a checkpoint, so that the next start is short. ResourceError if a row of what
        it takes up is not as it was written."""
        with self.batch() as db:
            _examine(db, self._path, since_checkpoint=True)
            positions, streams = _positions(db), _streams(db)
            virgin = not positions and db.execute("SELECT 1 FROM orders LIMIT 1").fetchone() is None
            _checkpoint(db, positions, streams)
            rows = db.execute(f"SELECT id FROM orders WHERE state NOT IN ({_TERMINAL_SQL}) ORDER BY id").fetchall()
            working = [_working(db, "id", row[0]) for row in rows]
            recent = db.execute("SELECT symbol, side, qty, price, created_ns FROM orders WHERE order_type != ?"
                                f" ORDER BY id DESC LIMIT {_RECENT}", (CORRECTION,)).fetchall()[::-1]
            begun = _begun(db, {symbol: position.qty for symbol, position in positions.items() if position.qty})
        return Restored(positions, working, {symbol: list(found) for symbol, found in streams.items()}, virgin, recent,
                        begun)

    def intent(self, order: Order, context: str, now: int) -> None:
        """The order, durable when this returns. ContractError if its client id is known: never twice."""
        lasting = (order.client_id, order.symbol, order.side, order.qty, order.price, order.epoch, order.seq,
                   order.order_type, order.time_in_force, now, context)
        try:
            self._db.execute(
                f"INSERT INTO orders ({_LASTING['orders']}, state, crc) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (*lasting, State.INTENT.value, _crc(*lasting)))
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
            found = db.execute(f"INSERT OR IGNORE INTO fills ({_LASTING['fills']}, crc) VALUES (?,?,?,?,?,?,?,?,?)",
                               (*lasting, _crc(*lasting)))
            news = found.rowcount > 0
            db.execute("UPDATE orders SET state = ?, filled = filled + ? WHERE client_id = ?",
                       (state.value, qty if news else 0, order.client_id))
            if news:
                _event(db, order.client_id, now, state, f"fill {fill_id}")
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

    def day(self, day: str) -> tuple[int, int] | None:
        """Profit (1e-8) when `day` (UTC, 2024-07-18) began, and its best since; None if it has not begun here."""
        try:
            return self._db.execute("SELECT opening, peak FROM days WHERE day = ?", (day,)).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def open_day(self, day: str, opening: int) -> None:
        """The day begins, once."""
        with self.batch() as db:
            db.execute(f"INSERT OR IGNORE INTO days ({_LASTING['days']}, crc) VALUES (?, ?, ?, ?)",
                       (day, opening, opening, _crc(day, opening, opening)))

    def raise_peak(self, day: str, opening: int, peak: int) -> None:
        """The best profit of a day that began with `opening` is `peak` now; a lower one changes nothing. As an intent,
        it costs about 50 us."""
        with self.batch() as db:
            db.execute("UPDATE days SET peak = ?, crc = ? WHERE day = ? AND opening = ? AND peak < ?",
                       (peak, _crc(day, opening, peak), day, opening, peak))

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


class Reader:
    """A reader's end, for commands: sees what is committed, beside a living writer or after a dead one, and disturbs
    nobody. Raises ResourceError if there is no journal, or it is damaged, or no journal of ours; also where a row that
    is asked for is not what its checksum says. Rows are dicts by column, but for the checksum; `side` is BUY or SELL.
    Times are Unix ns, from `since_ns` on and before `until_ns`; ConfigError for one beyond `MOST_NS`."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise ResourceError("there is no journal", where=str(path), remedy="start the executor first")
        self._path = path
        with self._reading():
            self._db = _connect(path, "ro")
            self._version = _check_version(self._db, path)

    def counts(self) -> dict[str, int]:
        """Orders by state, and `fills`."""
        with self._reading():
            found = dict(self._db.execute("SELECT state, count(*) FROM orders GROUP BY state ORDER BY state"))
            found["fills"] = self._db.execute("SELECT count(*) FROM fills").fetchone()[0]
            return found

    def orders(self, limit: int = 100, *, states: Sequence[str] = (), symbol: str = "", since_ns: int = 0,
               until_ns: int = MOST_NS) -> list[dict[str, Any]]:
        """The newest orders, newest first; those in one of `states`, of `symbol`, where these are given. One that is
        not filled by as much as its fills come to is damage, too."""
        where, values = "created_ns >= ? AND created_ns < ?", [since_ns, until_ns]
        if states:
            where, values = f"{where} AND state IN ({', '.join('?' * len(states))})", [*values, *states]
        if symbol:
            where, values = f"{where} AND symbol = ?", [*values, symbol]
        within(since_ns, until_ns)
        return self._rows(
            "orders", f"SELECT *, {self._altered('orders')} OR filled != coalesce((SELECT sum(qty) FROM fills WHERE"
            f" fills.client_id = orders.client_id), 0) AS altered FROM orders WHERE {where} ORDER BY id DESC LIMIT ?",
            (*values, limit))

    def open_orders(self) -> list[dict[str, Any]]:
        """Those not at their end, oldest first. Costs what they are, however many others there are. Their checksums are
        not looked at: they are to be cancelled, damaged or not."""
        return self._rows("orders", f"SELECT * FROM orders WHERE state NOT IN ({_TERMINAL_SQL}) ORDER BY id")

    def order(self, words: str) -> dict[str, Any]:
        """One order: by its client id, by a beginning of it that no other has, or `LAST`. ConfigError for none,
        or several."""
        rows = f"SELECT *, {self._altered('orders')} AS altered FROM orders"
        if words == LAST:
            found = self._rows("orders", f"{rows} WHERE order_type != ? ORDER BY id DESC LIMIT 1", (CORRECTION,))
        else:
            found = self._rows("orders", f"{rows} WHERE client_id = ?", (words,)) or self._rows(
                "orders", f"{rows} WHERE substr(client_id, 1, ?) = ? ORDER BY id DESC LIMIT 4", (len(words), words))
        if not found:
            raise ConfigError("there is no such order", where=f"{words!r} in {self._path}",
                              remedy="`alpha orders --all` lists them")
        if len(found) > 1:
            names = [row["client_id"] for row in found[:3]] + ["..."] * (len(found) > 3)
            raise ConfigError("several orders begin so", where=f"{words!r}: {', '.join(names)}",
                              remedy="write more of the id")
        return found[0]

    def fills(self, limit: int = 100, *, client_id: str = "", symbol: str = "", since_ns: int = 0,
              until_ns: int = MOST_NS) -> list[dict[str, Any]]:
        """The newest fills, newest first; of one order or one symbol, where these are given."""
        where, values = "at_ns >= ? AND at_ns < ?", [since_ns, until_ns]
        for column, value in (("client_id", client_id), ("symbol", symbol)):
            if value:
                where, values = f"{where} AND {column} = ?", [*values, value]
        within(since_ns, until_ns)
        return self._rows("fills", f"SELECT *, {self._altered('fills')} AS altered FROM fills WHERE {where}"
                          " ORDER BY id DESC LIMIT ?", (*values, limit))

    def history(self, client_id: str) -> list[dict[str, Any]]:
        """What happened to one order, in order."""
        found = self._events("client_id = ?", client_id)
        return [{name: row[name] for name in ("at_ns", "state", "detail")} for row in found]

    def events(self, since_ns: int = 0, until_ns: int = MOST_NS) -> list[dict[str, Any]]:
        """What happened to all orders, in order."""
        within(since_ns, until_ns)
        return self._events("at_ns >= ? AND at_ns < ?", since_ns, until_ns)

    def _events(self, where: str, *values: Any) -> list[dict[str, Any]]:
        return self._rows("events", "SELECT client_id, at_ns, state, detail,"
                          f" {self._altered('events')} AS altered FROM events WHERE {where} ORDER BY id", values)

    def news(self, since: tuple[int, int, int] | None = None, most: int = 100) -> News:
        """What came after `since`, the `through` of the last look; with None, the newest orders and fills. At most
        `most` of each, the newest: what lies between is passed over. By indexes, so a look costs what it finds; 50 us
        for nothing."""
        orders, events, fills = since or (0, 0, 0)
        changed, values = ("", ()) if since is None else (
            "UNION SELECT o.id FROM events e CROSS JOIN orders o USING (client_id) WHERE e.id > ?", (events,))
        with self.at_once():
            through = self._db.execute("SELECT (SELECT max(id) FROM orders), (SELECT max(id) FROM events),"
                                       " (SELECT max(id) FROM fills)").fetchone()
            through = tuple(number or 0 for number in through)
            if through == since:
                return News([], [], through)
            return News(
                self._rows("orders", "SELECT id, client_id, symbol, side, qty, price, order_type, time_in_force,"
                           f" created_ns, state, filled, reason, {self._altered('orders')} AS altered FROM orders"
                           " WHERE id IN (SELECT id FROM orders WHERE id > ?"
                           f" {changed} ORDER BY 1 DESC LIMIT ?) ORDER BY id DESC",
                           (orders, *values, most))[::-1],
                self._rows("fills", "SELECT id, client_id, fill_id, symbol, side, qty, price, fee, at_ns,"
                           f" {self._altered('fills')} AS altered FROM fills WHERE id > ? ORDER BY id DESC LIMIT ?",
                           (fills, most))[::-1], through)

    def symbols(self) -> set[str]:
        """Those that were ever ordered or taken over. Looks at every order: about 0.1 us each."""
        with self._reading():
            return {row[0] for row in self._db.execute(
                "SELECT DISTINCT symbol FROM orders UNION SELECT symbol FROM checkpoint_positions")}

    def checkpoint(self) -> int | None:
        """Changes when positions are written down anew: at a start, and where those of the venue are taken over. None
        before there are any."""
        with self._reading():
            row = self._db.execute("SELECT value FROM meta WHERE key = 'checkpoint_crc'").fetchone()
            return row[0] if row else None

    def positions(self, until_ns: int | None = None) -> dict[str, Position]:
        """As of now, or as they were after the last fill before `until_ns`, exactly: what was taken over from the venue
        follows from what is held and every fill since. About 6 us a fill."""
        within(until_ns or 0)
        with self._reading(), self.at_once():
            recent = "1" if until_ns is not None else f"id > {_through(self._db, 'fills')}"
            _unaltered(self._db, self._path, "fills", recent, self._altered("fills"))
            _examine_checkpoint(self._db, self._path)
            now = _positions(self._db)
            if until_ns is None:
                return now
            found = _adopted(self._db, now)
            for symbol, side, qty, price, fee in self._db.execute(
                    "SELECT symbol, side, qty, price, fee FROM fills WHERE at_ns < ? ORDER BY id", (until_ns,)):
                found.setdefault(symbol, Position()).fill(side, qty, price, fee)
            return found

    def days(self) -> dict[str, int]:
        """Profit (1e-8) when each UTC day began."""
        with self._reading():
            _unaltered(self._db, self._path, "days", "1", self._altered("days"))
            return dict(self._db.execute("SELECT day, opening FROM days ORDER BY day"))

    def config(self, name: str) -> str | None:
        """The configuration of that id as JSON; None if it is not kept, as in journals of older versions."""
        if self._version < 2:
            return None
        with self._reading():
            row = self._db.execute("SELECT text FROM configs WHERE id = ?", (name,)).fetchone()
        if row and hashlib.sha256(row[0].encode()).hexdigest()[:16] != name:
            raise _damaged(self._path, f"configs: {name} is not what was written")
        return row[0] if row else None

    def verify(self) -> dict[str, int]:
        """Examine pages, checksums and what must agree: every order is in the state of its last event, for a reason
        that one of them gives, and filled by as much as its fills come to. Returns how many rows there are by table,
        and `unsummed`, how many of them are from before there were checksums. ResourceError naming the first that is
        wrong. About 6 us a row."""
        with self._reading(), self.at_once():
            _pages(self._db, self._path)
            counts = {table: self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _LASTING}
            if self._version < 2:
                return {**counts, "unsummed": sum(counts.values())}
            unsummed = _examine(self._db, self._path, self._version)
            for what, wrong in _DISAGREE.items():
                row = self._db.execute(wrong).fetchone()
                if row:
                    raise _damaged(self._path, f"orders: {row[0]} {what}")
            return {**counts, "unsummed": unsummed}

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """All that is read inside is as of one moment, which the outermost of several sets."""
        if self._db.in_transaction:
            yield
            return
        with self._reading():
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            with contextlib.suppress(sqlite3.Error):  # nothing was written, and what is damaged was told already
                self._db.execute("ROLLBACK")

    def close(self) -> None:
        self._db.close()

    def _rows(self, table: str, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        with self._reading():
            cursor = self._db.execute(sql, values)
            columns = [column[0] for column in cursor.description]
            found = [dict(zip(columns, row)) for row in cursor]
        for row in found:
            if row.pop("altered", 0):
                raise _damaged(self._path, f"{table}: the row of {row['client_id']} is not what was written")
            row.pop("crc", None)
            if "side" in row:
                row["side"] = SIDE_NAMES.get(row["side"], row["side"])
        return found

    def _altered(self, table: str) -> str:
        """SQL of whether a row is not as it was written. About 3 us a row."""
        return _altered(table, self._version)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _damaged(self._path, str(error)) from None


def within(*times_ns: int, where: str = "") -> None:
    """ConfigError, which says `where` it was written, for a time that no row can have."""
    for ns in times_ns:
        if not -MOST_NS <= ns <= MOST_NS:
            raise ConfigError("a time that no journal can hold", where=where or f"{ns} ns since 1970",
                              remedy="name one from 1677-09-22 to 2262-04-11")


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    return _summing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None,
                                    timeout=1.0))


def _summing(db: sqlite3.Connection) -> sqlite3.Connection:
    """With checksum(...) for its statements."""
    db.create_function("checksum", -1, _crc, deterministic=True)
    return db


def _make(path: Path) -> None:
    """A new journal at `path` if none is there: whole or not at all, so that an empty file is a damaged one."""
    if path.exists():
        if not path.stat().st_size:
            raise _damaged(path, "it is empty")
        return
    if path.with_name(f"{path.name}-wal").exists():
        raise _damaged(path, "it is gone, and its -wal file is there")
    draft = path.with_suffix(".new")
    for leftover in (draft, draft.with_name(f"{draft.name}-journal")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        with contextlib.closing(_connect(draft)) as db:
            db.executescript(_NEW)
    except sqlite3.Error as error:
        raise _unusable(path, error) from None
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _examine_log(path: Path) -> None:
    """Raises ResourceError if commits would be lost with what SQLite cuts off, before it does."""
    log = path.with_name(f"{path.name}-wal")
    lost = lost_commits(log.read_bytes()) if log.exists() else 0
    if lost:
        raise _damaged(path, f"its log is damaged, and at least {lost} commits behind that place are lost")


def _prepare(db: sqlite3.Connection, path: Path, durability: str) -> None:
    """Check the file, bring an older one to our version, and set how it is written."""
    try:
        _pages(db, path)
        for version in range(_check_version(db, path), VERSION):
            db.executescript(f"BEGIN IMMEDIATE; {_STEPS[version]} PRAGMA user_version = {version + 1}; COMMIT;")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        db.execute("PRAGMA wal_autocheckpoint = 0")  # `tidy` does it, when there is time
    except sqlite3.OperationalError as error:
        raise _unusable(path, error) from None
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from None


def _pages(db: sqlite3.Connection, path: Path) -> None:
    """Raises ResourceError if the pages of the file do not fit one another."""
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise _damaged(path, verdict.splitlines()[-1])


def _examine(db: sqlite3.Connection, path: Path, version: int = VERSION, since_checkpoint: bool = False) -> int:
    """Raises ResourceError for a row whose checksum is not that of what it says; returns how many rows have none.
    `since_checkpoint`: only the checkpoint, orders and fills after it, and orders that are not at their end."""
    unsummed = 0
    recent = {table: f"id > {_through(db, table)}" for table in ("orders", "fills")}
    scopes = {"orders": (recent["orders"], f"state NOT IN ({_TERMINAL_SQL})"), "fills": (recent["fills"],),
              "days": ("1",)}  # each by an index
    for table in _LASTING:
        for scope in scopes.get(table, ()) if since_checkpoint else ("1",):
            _unaltered(db, path, table, scope, _altered(table, version))
        if not since_checkpoint:
            unsummed += db.execute(f"SELECT count(*) FROM {table} WHERE crc IS NULL").fetchone()[0]
    _examine_checkpoint(db, path)
    _examine_rows(db, path)
    return unsummed


def _examine_rows(db: sqlite3.Connection, path: Path) -> None:
    """Raises ResourceError where rows have gone: they are numbered without a gap, and none is of an order that is not
    there. About 0.2 us a row, at each start, of every row."""
    for table in ("orders", "events", "fills"):
        count, last = db.execute(f"SELECT count(*), coalesce(max(id), 0) FROM {table}").fetchone()
        if count != last:
            raise _damaged(path, f"{table}: {last - count} rows are missing")
    for table in ("events", "fills"):
        row = db.execute(f"SELECT client_id FROM {table} WHERE client_id NOT IN (SELECT client_id FROM orders) LIMIT 1"
                         ).fetchone()
        if row:
            raise _damaged(path, f"{table}: there is no order {row[0]}")


def _altered(table: str, version: int) -> str:
    """SQL of whether a row is not as it was written; never, where it has no checksum."""
    columns = _LASTING_BEFORE.get(version, {}).get(table, _LASTING[table])
    return "0" if version < 2 else f"ifnull(crc != checksum({columns}), 0)"


def _unaltered(db: sqlite3.Connection, path: Path, table: str, scope: str, altered: str) -> None:
    """Raises ResourceError for a row of `scope` that is not as it was written."""
    key = _LASTING[table].partition(",")[0]
    row = db.execute(f"SELECT {key} FROM {table} WHERE {scope} AND {altered} LIMIT 1").fetchone()
    if row:
        raise _damaged(path, f"{table}: the row of {row[0]} is not what was written")


def _examine_checkpoint(db: sqlite3.Connection, path: Path) -> None:
    row = db.execute("SELECT value FROM meta WHERE key = 'checkpoint_crc'").fetchone()
    if row and row[0] != _checkpoint_crc(db):
        raise _damaged(path, "the checkpoint is not what was written")


#: as `_LASTING`, of the tables that were others in an older version
_LASTING_BEFORE = {2: {"days": "day, opening"}}

#: what cannot be of an order, and how to find one of which it is
_DISAGREE = {
    "is not in the state of its last event":
        "SELECT o.client_id FROM orders o LEFT JOIN (SELECT client_id, state, max(id) FROM events GROUP BY client_id) e"
        f" ON e.client_id = o.client_id WHERE o.state != coalesce(e.state, '{State.INTENT.value}') LIMIT 1",
    "is not filled by as much as its fills come to":
        "SELECT o.client_id FROM orders o LEFT JOIN (SELECT client_id, sum(qty) AS qty FROM fills GROUP BY client_id) f"
        " ON f.client_id = o.client_id WHERE o.filled != coalesce(f.qty, 0) LIMIT 1",
    "has a reason that no event of it has":
        "SELECT o.client_id FROM orders o LEFT JOIN (SELECT DISTINCT client_id, detail FROM events) e"
        " ON e.client_id = o.client_id AND e.detail = o.reason WHERE o.reason != '' AND e.client_id IS NULL LIMIT 1",
}


def _crc(*fields: Any) -> int:
    """Of the text of all fields. About 1.5 us."""
    return zlib.crc32("\x1f".join(map(str, fields)).encode())


def _checkpoint_crc(db: sqlite3.Connection) -> int:
    return _crc(*(row for table in ("checkpoint_positions", "checkpoint_streams")
                  for row in db.execute(f"SELECT * FROM {table} ORDER BY 1, 2")),
                _through(db, "orders"), _through(db, "fills"))


def _event(db: sqlite3.Connection, client_id: str, now: int, state: State, detail: str) -> None:
    lasting = (client_id, now, state.value, detail)
    db.execute(f"INSERT INTO events ({_LASTING['events']}, crc) VALUES (?,?,?,?,?)", (*lasting, _crc(*lasting)))


def _check_version(db: sqlite3.Connection, path: Path) -> int:
    """The version of the journal. Raises ResourceError if it is none, or one that we cannot read."""
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application != _APPLICATION:
        raise ResourceError("a file is not a journal of this project", where=str(path),
                            remedy="name another state folder")
    if not _OLDEST <= version <= VERSION:
        raise ResourceError("a journal has another version", where=f"{path}: version {version}, ours {VERSION}",
                            remedy="use the version of alpha that wrote it")
    return version


def _unusable(path: Path, error: sqlite3.Error) -> ResourceError:
    return ResourceError("cannot open the journal", where=f"{path}: {error}",
                         remedy="make room on its disk, and its folder writable")


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


def _adopted(db: sqlite3.Connection, now: dict[str, Position]) -> dict[str, Position]:
    """Positions before the first fill. Exact: realised - cost is, at every moment, the sum of what was paid and earned
    (common.positions)."""
    found = {symbol: Position(position.qty, position.cost - position.realised)
             for symbol, position in now.items()}
    for symbol, side, qty, price in db.execute("SELECT symbol, side, qty, price FROM fills"):
        found[symbol].qty -= side * qty
        found[symbol].cost -= side * qty * price
    return {symbol: position for symbol, position in found.items() if position.qty}


def _begun(db: sqlite3.Connection, held: dict[str, int]) -> dict[str, int]:
    """symbol -> intent of the order whose fill began what is held or turned it around, Unix ns; `held` signed, none 0.
    Looks back from the last fill as far as it must: about 1 us a fill, all of them where something was taken over."""
    begun: dict[str, int] = {}
    cursor = db.execute("SELECT symbol, side, qty, client_id FROM fills ORDER BY id DESC")
    while held and (row := cursor.fetchone()) is not None:
        symbol, side, qty, client_id = row
        if symbol not in held:
            continue
        after, before = held[symbol], held[symbol] - side * qty
        held[symbol] = before
        if before * after <= 0:
            del held[symbol]
            found = db.execute("SELECT created_ns FROM orders WHERE client_id = ?", (client_id,)).fetchone()
            if found:
                begun[symbol] = found[0]
    return begun


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
    db.execute("INSERT OR REPLACE INTO meta VALUES ('checkpoint_crc', ?)", (_checkpoint_crc(db),))


def _through(db: sqlite3.Connection, table: str) -> int:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (f"{table}_through",)).fetchone()
    return row[0] if row else 0


def _working(db: sqlite3.Connection, key: str, value: str | int) -> Working | None:
    row = db.execute(f"SELECT state, venue_id, created_ns, {_ORDER_COLUMNS} FROM orders WHERE {key} = ?", (value,)
                     ).fetchone()
    if row is None:
        return None
    state, venue_id, created_ns, *fields = row
    working = Working(Order(*fields), State(state), venue_id, created_ns=created_ns)
    for fill_id, qty in db.execute("SELECT fill_id, qty FROM fills WHERE client_id = ?", (working.order.client_id,)):
        working.fill_ids.add(fill_id)
        working.filled += qty
    return working
