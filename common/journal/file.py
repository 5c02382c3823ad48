"""The journal's file: where it lies, what its tables are, how it is opened, and what an error of it says. SQLite.

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

Times are Unix ns, quantities and prices counts of 1e-8; costs and profits, 1e-16, exceed 64 bits and are kept as text.
Each row carries a checksum of what of it never changes (common.journal.checks).
"""

import contextlib
import os
import sqlite3
import zlib
from pathlib import Path
from typing import Any

from common.config import Config
from common.errors import ResourceError
from common.fixed import MAX
from common.orders import TERMINAL

VERSION = 3
MOST_NS = MAX  #: the last time that a journal can hold, Unix ns: in 2262; the first is as long before 1970
_OLDEST = 1  # version that is still read, and brought to ours by the next writer
_APPLICATION = 0x414C5048  # "ALPH", in the file's header
TERMINAL_SQL = ", ".join(f"'{state}'" for state in sorted(TERMINAL))
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, client_id TEXT NOT NULL UNIQUE, symbol TEXT NOT NULL, side INTEGER NOT NULL,
    qty INTEGER NOT NULL, price INTEGER NOT NULL, order_type TEXT NOT NULL, time_in_force TEXT NOT NULL,
    epoch INTEGER NOT NULL, seq INTEGER NOT NULL, created_ns INTEGER NOT NULL, state TEXT NOT NULL,
    venue_id TEXT NOT NULL DEFAULT '', filled INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    context TEXT NOT NULL, crc INTEGER);
CREATE INDEX unfinished ON orders (id) WHERE state NOT IN ({TERMINAL_SQL});
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
NEW = (f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION};"
        " COMMIT;")
ORDER_COLUMNS = "client_id, symbol, side, qty, price, epoch, seq, order_type, time_in_force"
#: what of a row never changes, in the order in which its checksum covers it
LASTING = {"orders": f"{ORDER_COLUMNS}, created_ns, context", "events": "client_id, at_ns, state, detail",
           "fills": "client_id, fill_id, symbol, side, qty, price, fee, at_ns",
           "days": "day, opening, peak"}  # the checksum of a day is written anew with its peak
#: as `LASTING`, of the tables that were others in an older version
LASTING_BEFORE = {2: {"days": "day, opening"}}


def located(config: Config) -> Path:
    """The journal of what the configuration trades: a paper account has one of its own."""
    paper = config.executor.gateway == "paper"
    return config.state_dir / (config.executor.journal or ("paper.db" if paper else "journal.db"))


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """The database at `path`, which must be there; with mode "ro" it cannot be written. sqlite3.Error if it cannot be
    opened."""
    return summing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None,
                                   timeout=1.0))


def summing(db: sqlite3.Connection) -> sqlite3.Connection:
    """With checksum(...) for its statements."""
    db.create_function("checksum", -1, checksum, deterministic=True)
    return db


def make(path: Path) -> None:
    """A new journal at `path` if none is there: whole or not at all, so that an empty file is a damaged one."""
    if path.exists():
        if not path.stat().st_size:
            raise damaged(path, "it is empty")
        return
    if path.with_name(f"{path.name}-wal").exists():
        raise damaged(path, "it is gone, and its -wal file is there")
    draft = path.with_suffix(".new")
    for leftover in (draft, draft.with_name(f"{draft.name}-journal")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        with contextlib.closing(connect(draft)) as db:
            db.executescript(NEW)
    except sqlite3.Error as error:
        raise unusable(path, error) from None
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def prepare(db: sqlite3.Connection, path: Path, durability: str) -> None:
    """Check the file, bring an older one to our version, and set how it is written."""
    try:
        pages_fit(db, path)
        for version in range(version_of(db, path), VERSION):
            db.executescript(f"BEGIN IMMEDIATE; {_STEPS[version]} PRAGMA user_version = {version + 1}; COMMIT;")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        db.execute("PRAGMA wal_autocheckpoint = 0")  # `tidy` does it, when there is time
    except sqlite3.OperationalError as error:
        raise unusable(path, error) from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from None


def pages_fit(db: sqlite3.Connection, path: Path) -> None:
    """Raises ResourceError unless the pages of the file fit one another."""
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise damaged(path, verdict.splitlines()[-1])


def version_of(db: sqlite3.Connection, path: Path) -> int:
    """The version of the journal. Raises ResourceError if it is none, or one that we cannot read."""
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application != _APPLICATION:
        raise ResourceError("a file is not a journal of this project", where=str(path),
                            remedy="name another state folder")
    if not _OLDEST <= version <= VERSION:
        raise ResourceError("a journal has another version", where=f"{path}: version {version}, ours {VERSION}",
                            remedy="use the version of alpha that wrote it")
    return version


def checksum(*fields: Any) -> int:
    """Of the text of all fields. About 1.5 us."""
    return zlib.crc32("\x1f".join(map(str, fields)).encode())


def unusable(path: Path, error: sqlite3.Error) -> ResourceError:
    """To be raised where SQLite cannot open or write the file."""
    return ResourceError("cannot open the journal", where=f"{path}: {error}",
                         remedy="make room on its disk, and its folder writable")


def damaged(path: Path, what: str) -> ResourceError:
    """To be raised where the file is not what was written; `what` of it."""
    return ResourceError(
        "the journal is damaged", where=f"{path}: {what}",
        remedy="move it away together with its -wal and -shm files; a new journal takes over the positions that "
               "the venue holds, so compare those with your own records first")
