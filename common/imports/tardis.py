"""Tardis CSV, plain, .gz or .zst: changes of books by price, and trades.

    exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount    incremental_book_L2
    exchange,symbol,timestamp,local_timestamp,id,side,price,amount             trades

Times are Unix microseconds: `timestamp` the exchange's, `local_timestamp` when the message was received. Rows that
follow one another with the same symbol, `local_timestamp` and `is_snapshot` were one message; an amount is the new one
of its price, 0 removes it; a snapshot after changes replaces the book. `side` is that of the book (bid, ask), and of a
trade that of the aggressor (buy, sell, or unknown: such a trade is counted and left out, as it has no sign).

Where a trade and a change of the book came at the same time, the trade is told first.
"""

from functools import lru_cache
from heapq import merge
from operator import itemgetter
from os import PathLike, fspath
from typing import Callable, Iterable, Iterator, Sequence

from common import fixed
from common.errors import VenueError
from common.events import Event, Trade
from common.imports import files
from common.imports.source import Message, Numbers, Source

COUNTERS = ("rows", "others", "unsigned_trades", "empty_trades")

_BOOK = ("exchange", "symbol", "timestamp", "local_timestamp", "is_snapshot", "side", "price", "amount")
_TRADES = ("exchange", "symbol", "timestamp", "local_timestamp", "id", "side", "price", "amount")
_US = 1000  #: ns in a microsecond
_SNAPSHOT = {b"true": True, b"false": False, b"1": True, b"0": False}


def recognise(first_line: bytes) -> bool:
    """Whether a file that begins so is one of these."""
    columns = set(first_line.decode("utf-8", "replace").split(","))
    return columns >= set(_BOOK) or columns >= set(_TRADES)


def source(paths: Iterable[str | PathLike], say: Callable[[str], None], symbols: Sequence[str] = ()) -> Source:
    """Files of any days and symbols, merged by time. `symbols`: only these; by default each file is of the one symbol
    that its first row names."""
    names = [fspath(path) for path in paths]
    found = {name: _peek(name) for name in names}
    chosen = tuple(dict.fromkeys(symbols or (symbol for _, symbol in found.values() if symbol)))
    if not chosen:
        raise VenueError("a Tardis file has no rows", where=", ".join(names))
    counts = dict.fromkeys(COUNTERS, 0)
    numbers = {symbol.encode(): Numbers(index) for index, symbol in enumerate(chosen)}
    trades_first = sorted(names, key=lambda name: "id" not in found[name][0])
    streams = [_messages(name, found[name][0], numbers, bool(symbols), counts) for name in trades_first]
    return Source("tardis", "vectrade", chosen, merge(*streams, key=itemgetter(0)), True, counts)


def _peek(name: str) -> tuple[list[str], str]:
    """The columns of a file, and the symbol of its first row."""
    rows = files.lines(name)
    head = next(rows, (0, b""))[1]
    if not recognise(head):
        raise VenueError("not a Tardis file of book changes or trades", where=f"{name}:1: {head[:200]!r}",
                         remedy=f"its first line must name {','.join(_BOOK)}, or {','.join(_TRADES)}")
    columns = head.decode().split(",")
    row = next(rows, (0, b""))[1].split(b",")
    place = columns.index("symbol")
    return columns, row[place].decode() if len(row) > place else ""


def _messages(name: str, columns: list[str], numbers: dict[bytes, Numbers], filtered: bool,
              counts: dict[str, int]) -> Iterator[Message]:
    """The messages of one file."""
    is_book = "is_snapshot" in columns
    wanted = itemgetter(*(columns.index(column) for column in (_BOOK if is_book else _TRADES)[1:]))
    width = len(columns)
    key: tuple = ()
    sides: dict[bytes, dict[int, int]] = {}
    event_ns = 0
    rows = files.lines(name)
    next(rows)
    for number, line in rows:
        row = line.split(b",")
        if len(row) != width:
            raise VenueError("a row has another number of columns than the first",
                             where=f"{name}:{number}: {len(row)}, expected {width}")
        symbol, stamp, local, fifth, side, price, amount = wanted(row)
        if symbol not in numbers:
            if filtered:
                counts["others"] += 1
                continue
            raise VenueError("a file has rows of several symbols", where=f"{name}:{number}: symbol={symbol!r}",
                             remedy="name the symbols that are wanted")
        counts["rows"] += 1
        recv_ns, time_ns = _time(local, name, number, "local_timestamp"), _time(stamp, name, number, "timestamp")
        px, qty = _number(price, name, number, "price"), _number(amount, name, number, "amount")
        if px <= 0 or qty < 0:
            raise VenueError("a price is not above 0, or an amount below it",
                             where=f"{name}:{number}: price={price!r}, amount={amount!r}")
        if not is_book:
            yield from _trade(numbers[symbol].symbol, recv_ns, time_ns, fifth, side, px, qty, counts, name, number)
            continue
        if (symbol, recv_ns, fifth) != key:
            if key:
                yield key[1], [_change(numbers[key[0]], key[2], event_ns, sides)]
            if fifth.lower() not in _SNAPSHOT:
                raise VenueError("neither true nor false", where=f"{name}:{number}: is_snapshot={fifth!r}")
            key, sides = (symbol, recv_ns, fifth), {b"bid": {}, b"ask": {}}
        if side not in sides:
            raise VenueError("unknown side", where=f"{name}:{number}: side={side!r}")
        sides[side][px] = qty
        event_ns = time_ns
    if key:
        yield key[1], [_change(numbers[key[0]], key[2], event_ns, sides)]


def _change(numbers: Numbers, snapshot: bytes, event_ns: int, sides: dict[bytes, dict[int, int]]) -> Event:
    if _SNAPSHOT[snapshot.lower()]:
        return numbers.snapshot(event_ns, sides[b"bid"], sides[b"ask"])
    return numbers.delta(event_ns, list(sides[b"bid"].items()), list(sides[b"ask"].items()))


def _trade(symbol: int, recv_ns: int, event_ns: int, identity: bytes, side: bytes, px: int, qty: int,
           counts: dict[str, int], name: str, number: int) -> Iterator[Message]:
    if side == b"unknown":
        counts["unsigned_trades"] += 1
    elif side not in (b"buy", b"sell"):
        raise VenueError("unknown side", where=f"{name}:{number}: side={side!r}")
    elif not qty:
        counts["empty_trades"] += 1
    else:
        trade_id = int(identity) if identity.isdigit() and len(identity) < 19 else 0
        yield recv_ns, [Trade(symbol, trade_id, event_ns, px, qty if side == b"buy" else -qty)]


def _time(value: bytes, name: str, number: int, column: str) -> int:
    if not value.isdigit() or len(value) > 16:
        raise VenueError("a time is not Unix microseconds", where=f"{name}:{number}: {column}={value!r}")
    return int(value) * _US


def _number(value: bytes, name: str, number: int, column: str) -> int:
    try:
        return _parsed(value)
    except VenueError:
        try:
            return fixed.parse(value.decode("ascii", "replace"), column)
        except VenueError as error:
            raise VenueError(error.what, where=f"{name}:{number}: {error.where}") from None


@lru_cache(maxsize=1 << 16)
def _parsed(value: bytes) -> int:
    """The same prices and amounts come again and again."""
    return fixed.parse(value.decode("ascii", "replace"))
