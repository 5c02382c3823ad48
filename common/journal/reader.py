"""The reader's end of the journal, for commands and pages. It sees what is committed, beside a living writer or after a
dead one, disturbs nobody, and gives no row that is not as it was written.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import ConfigError, ResourceError
from common.journal import state as state_of
from common.journal.checks import DISAGREE, altered, examine, examine_checkpoint, examine_scope
from common.journal.file import LASTING, MOST_NS, TERMINAL_SQL, connect, damaged, pages_fit, version_of
from common.orders import CORRECTION, SIDE_NAMES
from common.positions import Position

LAST = "last"  #: the newest order that was decided, where one is asked for by its id


class News(NamedTuple):
    """What of a journal a reader has not seen: rows as `Reader` has them, oldest first."""

    orders: list[dict[str, Any]]  #: new, or changed since; without their contexts
    fills: list[dict[str, Any]]
    through: tuple[int, int, int]  #: newest rows of orders, events and fills: what `Reader.news` takes at the next look


class Reader:
    """Looks at a journal. Raises ResourceError if there is none, or it is damaged, or no journal of ours; also where a
    row that is asked for is not what its checksum says. Rows are dicts by column, but for the checksum; `side` is BUY
    or SELL. Times are Unix ns, from `since_ns` on and before `until_ns`; ConfigError for one beyond `MOST_NS`."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise ResourceError("there is no journal", where=str(path), remedy="start the executor first")
        self._path = path
        with self._reading():
            self._db = connect(path, "ro")
            self._version = version_of(self._db, path)

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
        return self._rows("orders", f"SELECT * FROM orders WHERE state NOT IN ({TERMINAL_SQL}) ORDER BY id")

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
            recent = "1" if until_ns is not None else f"id > {state_of.through(self._db, 'fills')}"
            examine_scope(self._db, self._path, "fills", recent, self._altered("fills"))
            examine_checkpoint(self._db, self._path)
            now = state_of.positions(self._db)
            if until_ns is None:
                return now
            found = state_of.adopted(self._db, now)
            for symbol, side, qty, price, fee in self._db.execute(
                    "SELECT symbol, side, qty, price, fee FROM fills WHERE at_ns < ? ORDER BY id", (until_ns,)):
                found.setdefault(symbol, Position()).fill(side, qty, price, fee)
            return found

    def days(self) -> dict[str, int]:
        """Profit (1e-8) when each UTC day began."""
        with self._reading():
            examine_scope(self._db, self._path, "days", "1", self._altered("days"))
            return dict(self._db.execute("SELECT day, opening FROM days ORDER BY day"))

    def config(self, name: str) -> str | None:
        """The configuration of that id as JSON; None if it is not kept, as in journals of older versions."""
        if self._version < 2:
            return None
        with self._reading():
            row = self._db.execute("SELECT text FROM configs WHERE id = ?", (name,)).fetchone()
        if row and hashlib.sha256(row[0].encode()).hexdigest()[:16] != name:
            raise damaged(self._path, f"configs: {name} is not what was written")
        return row[0] if row else None

    def verify(self) -> dict[str, int]:
        """Examine pages, checksums and what must agree: every order is in the state of its last event, for a reason
        that one of them gives, and filled by as much as its fills come to. Returns how many rows there are by table,
        and `unsummed`, how many of them are from before there were checksums. ResourceError naming the first that is
        wrong. About 6 us a row."""
        with self._reading(), self.at_once():
            pages_fit(self._db, self._path)
            counts = {table: self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in LASTING}
            if self._version < 2:
                return {**counts, "unsummed": sum(counts.values())}
            unsummed = examine(self._db, self._path, self._version)
            for what, wrong in DISAGREE.items():
                row = self._db.execute(wrong).fetchone()
                if row:
                    raise damaged(self._path, f"orders: {row[0]} {what}")
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
                raise damaged(self._path, f"{table}: the row of {row['client_id']} is not what was written")
            row.pop("crc", None)
            if "side" in row:
                row["side"] = SIDE_NAMES.get(row["side"], row["side"])
        return found

    def _altered(self, table: str) -> str:
        """SQL of whether a row is not as it was written. About 3 us a row."""
        return altered(table, self._version)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise damaged(self._path, str(error)) from None


def within(*times_ns: int, where: str = "") -> None:
    """ConfigError, which says `where` it was written, for a time that no row can have."""
    for ns in times_ns:
        if not -MOST_NS <= ns <= MOST_NS:
            raise ConfigError("a time that no journal can hold", where=where or f"{ns} ns since 1970",
                              remedy="name one from 1677-09-22 to 2262-04-11")
