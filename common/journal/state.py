"""What a journal's rows come to: positions, when each was begun, stream sequences, orders; and the checkpoint, which
holds positions and sequences as of some row, so that a start costs what came since.
"""

import sqlite3
from collections.abc import Sequence

from common.journal.file import ORDER_COLUMNS, checksum
from common.orders import Order, State, Working
from common.positions import Position


def positions(db: sqlite3.Connection) -> dict[str, Position]:
    """The checkpoint, and the fills since."""
    positions = {symbol: Position(qty, int(cost), int(realised), fees) for symbol, qty, cost, realised, fees in
                 db.execute("SELECT symbol, qty, cost, realised, fees FROM checkpoint_positions")}
    for symbol, side, qty, price, fee in db.execute(
            "SELECT symbol, side, qty, price, fee FROM fills WHERE id > ? ORDER BY id", (through(db, "fills"),)):
        positions.setdefault(symbol, Position()).fill(side, qty, price, fee)
    return positions


def adopted(db: sqlite3.Connection, now: dict[str, Position]) -> dict[str, Position]:
    """Positions before the first fill. Exact: realised - cost is, at every moment, the sum of what was paid and earned
    (common.positions)."""
    found = {symbol: Position(position.qty, position.cost - position.realised)
             for symbol, position in now.items()}
    for symbol, side, qty, price in db.execute("SELECT symbol, side, qty, price FROM fills"):
        found[symbol].qty -= side * qty
        found[symbol].cost -= side * qty * price
    return {symbol: position for symbol, position in found.items() if position.qty}


def begun(db: sqlite3.Connection, held: dict[str, int]) -> dict[str, int]:
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


def streams(db: sqlite3.Connection) -> dict[str, Sequence[tuple[int, int]]]:
    """Per symbol the newest sequence of each epoch, in the order in which the epochs were last traded on."""
    newest: dict[tuple[str, int], tuple[int, int]] = {}
    for symbol, epoch, seq, latest in db.execute(
            "SELECT symbol, epoch, seq, latest FROM checkpoint_streams UNION ALL"
            " SELECT symbol, epoch, max(seq), max(id) FROM orders WHERE id > ? GROUP BY symbol, epoch",
            (through(db, "orders"),)):
        known = newest.get((symbol, epoch), (0, 0))
        newest[symbol, epoch] = max(known[0], seq), max(known[1], latest)
    streams: dict[str, list[tuple[int, int]]] = {}
    for (symbol, epoch), (seq, _) in sorted(newest.items(), key=lambda item: item[1][1]):
        streams.setdefault(symbol, []).append((epoch, seq))
    return streams


def working(db: sqlite3.Connection, key: str, value: str | int) -> Working | None:
    """The order whose column `key` is `value`, with its fills; None if there is none."""
    row = db.execute(f"SELECT state, venue_id, created_ns, {ORDER_COLUMNS} FROM orders WHERE {key} = ?", (value,)
                     ).fetchone()
    if row is None:
        return None
    state, venue_id, created_ns, *fields = row
    working = Working(Order(*fields), State(state), venue_id, created_ns=created_ns)
    for fill_id, qty in db.execute("SELECT fill_id, qty FROM fills WHERE client_id = ?", (working.order.client_id,)):
        working.fill_ids.add(fill_id)
        working.filled += qty
    return working


def write_checkpoint(db: sqlite3.Connection, positions: dict[str, Position],
                     streams: dict[str, Sequence[tuple[int, int]]]) -> None:
    """From here on a start takes up these, and the rows that come after the newest ones of now. In a transaction."""
    db.executemany("INSERT OR REPLACE INTO checkpoint_positions VALUES (?,?,?,?,?)",
                   [(s, p.qty, str(p.cost), str(p.realised), p.fees) for s, p in positions.items()])
    db.executemany("INSERT OR REPLACE INTO checkpoint_streams VALUES (?,?,?,?)",
                   [(symbol, epoch, seq, rank) for symbol, found in streams.items()
                    for rank, (epoch, seq) in enumerate(found)])
    for table in ("orders", "fills"):
        db.execute(f"INSERT OR REPLACE INTO meta VALUES (?, (SELECT coalesce(max(id), 0) FROM {table}))",
                   (f"{table}_through",))
    db.execute("INSERT OR REPLACE INTO meta VALUES ('checkpoint_crc', ?)", (checkpoint_sum(db),))


def checkpoint_sum(db: sqlite3.Connection) -> int:
    """The checksum of the checkpoint, and of the rows as of which it is."""
    return checksum(*(row for table in ("checkpoint_positions", "checkpoint_streams")
                      for row in db.execute(f"SELECT * FROM {table} ORDER BY 1, 2")),
                    through(db, "orders"), through(db, "fills"))


def through(db: sqlite3.Connection, table: str) -> int:
    """The newest row of `table` that is in the checkpoint; 0 without one."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (f"{table}_through",)).fetchone()
    return row[0] if row else 0
