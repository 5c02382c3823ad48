"""What is examined of a journal, so that damage is an error and never a position.

SQLite sees a page that is not whole, and cuts off a log where it is torn. It does not see a number that has changed
within a page, so each row carries a checksum of what of it never changes; nor commits that stand behind a damaged place
of the log (common.journal.log); nor rows that are gone. A start examines the log, the pages, and the checksums of what
it takes up: the checkpoint, what came after it, and unfinished orders. A reader examines what it gives: the checksum of
each row, and of positions those that they are made of; `Reader.verify` every row, and whether they agree.

All raise ResourceError, which names the journal and what in it is wrong.
"""

import sqlite3
from pathlib import Path

from common.journal.file import LASTING, LASTING_BEFORE, TERMINAL_SQL, VERSION, damaged
from common.journal.log import lost_commits
from common.journal.state import checkpoint_sum, through
from common.orders import State

#: what cannot be of an order, and how to find one of which it is
DISAGREE = {
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


def examine_log(path: Path) -> None:
    """Raises ResourceError if commits would be lost with what SQLite cuts off, before it does."""
    log = path.with_name(f"{path.name}-wal")
    lost = lost_commits(log.read_bytes()) if log.exists() else 0
    if lost:
        raise damaged(path, f"its log is damaged, and at least {lost} commits behind that place are lost")


def examine(db: sqlite3.Connection, path: Path, version: int = VERSION, since_checkpoint: bool = False) -> int:
    """Raises ResourceError for a row whose checksum is not that of what it says; returns how many rows have none.
    `since_checkpoint`: only the checkpoint, orders and fills after it, and orders that are not at their end."""
    unsummed = 0
    recent = {table: f"id > {through(db, table)}" for table in ("orders", "fills")}
    scopes = {"orders": (recent["orders"], f"state NOT IN ({TERMINAL_SQL})"), "fills": (recent["fills"],),
              "days": ("1",)}  # each by an index
    for table in LASTING:
        for scope in scopes.get(table, ()) if since_checkpoint else ("1",):
            examine_scope(db, path, table, scope, altered(table, version))
        if not since_checkpoint:
            unsummed += db.execute(f"SELECT count(*) FROM {table} WHERE crc IS NULL").fetchone()[0]
    examine_checkpoint(db, path)
    examine_whole(db, path)
    return unsummed


def examine_whole(db: sqlite3.Connection, path: Path) -> None:
    """Raises ResourceError where rows have gone: they are numbered without a gap, and none is of an order that is not
    there. About 0.2 us a row, at each start, of every row."""
    for table in ("orders", "events", "fills"):
        count, last = db.execute(f"SELECT count(*), coalesce(max(id), 0) FROM {table}").fetchone()
        if count != last:
            raise damaged(path, f"{table}: {last - count} rows are missing")
    for table in ("events", "fills"):
        row = db.execute(f"SELECT client_id FROM {table} WHERE client_id NOT IN (SELECT client_id FROM orders) LIMIT 1"
                         ).fetchone()
        if row:
            raise damaged(path, f"{table}: there is no order {row[0]}")


def examine_checkpoint(db: sqlite3.Connection, path: Path) -> None:
    """Raises ResourceError for a checkpoint that is not as it was written."""
    row = db.execute("SELECT value FROM meta WHERE key = 'checkpoint_crc'").fetchone()
    if row and row[0] != checkpoint_sum(db):
        raise damaged(path, "the checkpoint is not what was written")


def examine_scope(db: sqlite3.Connection, path: Path, table: str, scope: str, altered: str) -> None:
    """Raises ResourceError for a row of `scope` that is not as it was written."""
    key = LASTING[table].partition(",")[0]
    row = db.execute(f"SELECT {key} FROM {table} WHERE {scope} AND {altered} LIMIT 1").fetchone()
    if row:
        raise damaged(path, f"{table}: the row of {row[0]} is not what was written")


def altered(table: str, version: int) -> str:
    """SQL of whether a row is not as it was written; never, where it has no checksum."""
    columns = LASTING_BEFORE.get(version, {}).get(table, LASTING[table])
    return "0" if version < 2 else f"ifnull(crc != checksum({columns}), 0)"
