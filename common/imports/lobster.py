"""LOBSTER: messages and book of one NASDAQ symbol and day, as two CSV files or the .zip that they come in.

    message   seconds after midnight in New York, type, order id, shares, price in 1e-4 dollars, side of the order
    book      ask price, ask shares, bid price, bid shares, best level first; row k is the book after message k

The book begins as the first row of the book file and is rebuilt from the messages by order id. A message says what
becomes of the levels within the recorded depth; when one of them vanishes, the next one comes in from beyond that
depth, and what rests there only the book file tells: it is adopted. Everything else of each row must be what the
messages make of the row before. Where it is not, that is counted and said, and the row is taken as a new snapshot.

    rows                 of the file
    equal_1, _5, _10     rows whose best 1, 5, 10 levels a side (as far as recorded) are as rebuilt, nothing adopted
    returned             levels that came in from beyond the recorded depth as they once had left it,
    returned_changed     or otherwise: orders came and went there, unrecorded,
    appeared             or that had never been within it, or had become empty there: from before the file begins,
                         or built up beyond
    contradictions       rows that are not what the messages make of the row before
    orders_before        messages about orders that rested before the file begins
    orders_beyond        messages about orders that came to rest, or were last seen, beyond the recorded depth
    orders_wrong         messages that contradict what is known of their order: its price, side or size
    halts, crosses       trading halts, during which no book is valid; auction trades, which no side began

An execution is a trade by the other side, a hidden one, too, and comes before the change of the book that it causes.
There is no other clock: the time of a message is both when it happened and when it was received.
"""

import datetime
import os
import re
import zipfile
import zoneinfo
from contextlib import ExitStack
from heapq import merge
from itertools import islice
from operator import itemgetter
from os import PathLike, fspath
from typing import Callable, Iterable, Iterator, NamedTuple, Sequence

import numpy as np

from common.errors import ConfigError, VenueError
from common.events import Event, Lost, Trade
from common.fixed import SCALE
from common.imports import files
from common.imports.lobster_rows import Bad, compare, parse
from common.imports.source import Message, Numbers, Source

DEPTHS = (1, 5, 10)  #: for which equal rows are counted
COUNTERS = ("rows", *(f"equal_{depth}" for depth in DEPTHS), "returned", "returned_changed", "appeared",
            "contradictions", "orders_before", "orders_beyond", "orders_wrong", "halts", "crosses")
_EQUAL = tuple((depth, f"equal_{depth}") for depth in DEPTHS)

_NAME = re.compile(r"(?P<symbol>[^/_]+)_(?P<date>\d{4}-\d\d-\d\d)_\d+_\d+_message_(?P<levels>\d+)\.csv(\.gz|\.zst)?$")
_ADD, _CANCEL, _DELETE, _EXECUTE, _HIDDEN, _CROSS, _HALT = range(1, 8)
_OF_ORDERS = frozenset((_ADD, _CANCEL, _DELETE, _EXECUTE))  #: those that change the book
BLOCK = 4096  #: rows read at a time
_MESSAGE = np.array([9, 0, 0, 0, 0, 0])  #: decimals of the columns of a message
_PX, _QTY = SCALE // 10_000, SCALE
_SCALES = np.array([_PX, _QTY])
_SAID = 5  #: contradictions that are told one by one


class _Day(NamedTuple):
    symbol: str
    date: str
    levels: int
    name: str  #: for errors: of the message file
    book: str
    archive: str  #: the .zip, or ""


def recognise(path: str | PathLike) -> bool:
    """Whether a file is called as LOBSTER calls its message files, or holds one."""
    name = fspath(path)
    return bool(_NAME.search(name)) or name.endswith(".zip")


def source(paths: Iterable[str | PathLike], say: Callable[[str], None]) -> Source:
    """Message files, beside each of which its book file lies, or .zip files with both. Days of one symbol follow
    one another, symbols are merged by time."""
    days: dict[str, list[_Day]] = {}
    for day in sorted(map(_day, paths), key=lambda day: (day.symbol, day.date)):
        days.setdefault(day.symbol, []).append(day)
    counts = dict.fromkeys(COUNTERS, 0)
    streams = [_symbol(index, found, counts, say) for index, found in enumerate(days.values())]
    return Source("lobster", "vectrade", tuple(days), merge(*streams, key=itemgetter(0)), True, counts)


def _day(path: str | PathLike) -> _Day:
    name, archive = fspath(path), ""
    if name.endswith(".zip"):
        archive = name
        try:
            with zipfile.ZipFile(name) as file:
                found = [member for member in file.namelist() if _NAME.search(member)]
        except (OSError, zipfile.BadZipFile) as error:
            raise ConfigError("cannot open a LOBSTER archive", where=f"{name}: {error}") from None
        if len(found) != 1:
            raise VenueError("an archive does not hold one LOBSTER message file", where=f"{name}: {len(found)} found")
        name = found[0]
    parts = _NAME.search(name)
    if parts is None:
        raise ConfigError("not the name of a LOBSTER message file", where=name,
                          remedy="keep its name: SYMBOL_DATE_START_END_message_LEVELS.csv")
    head, tail = os.path.split(name)
    return _Day(parts["symbol"], parts["date"], int(parts["levels"]), name,
                os.path.join(head, tail.replace("_message_", "_orderbook_")), archive)


def _symbol(index: int, days: Sequence[_Day], counts: dict[str, int], say: Callable[[str], None]) -> Iterator[Message]:
    numbers = Numbers(index)
    for day in days:
        yield from _Rebuilt(day, numbers, counts, say).messages()


class _Rebuilt:
    """One day, BLOCK rows at a time. `_orders` has the shares left of each order that was seen, by side and price,
    forgotten where its level leaves the recorded depth."""

    def __init__(self, day: _Day, numbers: Numbers, counts: dict[str, int], say: Callable[[str], None]) -> None:
        self._day, self._numbers, self._counts, self._say = day, numbers, counts, say
        self._midnight = _midnight(day)
        self._width = 4 * day.levels
        self._orders: dict[int, dict[int, dict[int, int]]] = {1: {}, -1: {}}
        self._left: dict[int, dict[int, int]] = {1: {}, -1: {}}  # shares of levels that left the recorded depth
        self._first_id = 0  # of the orders that are new in this file
        self._halted = False
        self._changes, self._told = np.zeros((self._width + 2, 2), np.int64), np.zeros(5, np.int64)
        self._rows = np.zeros((1, self._width), np.int64)  # of this block, behind the last of the one before

    def messages(self) -> Iterator[Message]:
        with ExitStack() as stack:
            messages, rows = (_lines(self._day, name, stack) for name in (self._day.name, self._day.book))
            done = 0
            while block := list(islice(messages, BLOCK)):
                book = list(islice(rows, len(block)))
                if len(book) < len(block):
                    raise VenueError("a LOBSTER book has fewer rows than there are messages",
                                     where=f"{self._day.book}:{done + len(book) + 1}")
                yield from self._block(done, block, book)
                done += len(block)
            if next(rows, None) is not None:
                raise VenueError("a LOBSTER book has more rows than there are messages",
                                 where=f"{self._day.book}:{done + 1}")

    def _block(self, done: int, messages: list[bytes], book: list[bytes]) -> Iterator[Message]:
        found = _parsed(self._day.name, done, messages, _MESSAGE)
        rows = _parsed(self._day.book, done, book, np.zeros(self._width, np.int64))
        surplus = [number for number, line in enumerate(book) if line.count(b",") != self._width - 1]
        if surplus:
            raise VenueError("a row of a LOBSTER book has another number of columns than its levels need",
                             where=f"{self._day.book}:{done + surplus[0] + 1}: {book[surplus[0]][:80]!r}")
        self._rows = np.concatenate((self._rows[-1:], rows))
        for number, (since, *message) in enumerate(found.tolist(), 1):
            kind, _, shares, price, side = message
            if not (_ADD <= kind <= _HALT and side in (1, -1) and since >= 0 and shares >= 0
                    and (kind == _HALT or (price > 0 and shares > 0))):
                raise VenueError("a LOBSTER message is not as documented",
                                 where=f"{self._day.name}:{done + number}: {messages[number - 1][:80]!r}")
            time_ns = self._midnight + since
            events = self._step(done + number, number, time_ns, *message)
            if events:
                yield time_ns, events

    def _step(self, line: int, number: int, time_ns: int, kind: int, order: int, shares: int, price: int,
              side: int) -> list[Event]:
        """The events of one message and row `number` of the block, which is after it."""
        counts = self._counts
        counts["rows"] += 1
        if kind == _ADD and not self._first_id:
            self._first_id = order
        if line == 1:  # what the first message did is in the first row
            if kind == _ADD:
                self._order(kind, order, shares, price, side)
            for _, name in _EQUAL:
                counts[name] += 1
            return [self._snapshot(number, time_ns)]
        events: list[Event] = []
        more = 0  # shares at the price
        if kind == _ADD:
            more = shares
        elif kind in _OF_ORDERS:
            more = -shares
        elif kind == _HALT:
            events += self._halt(number, time_ns, price)
        elif kind == _CROSS:
            counts["crosses"] += 1
        if kind in (_EXECUTE, _HIDDEN) and not self._halted:
            events.append(Trade(self._numbers.symbol, line, time_ns, price * _PX, -side * shares * _QTY))
        if more:
            self._order(kind, order, shares, price, side)
        compare(self._rows, number, side, price, more, self._changes, self._told)
        explained, n_changes, n_new, pushed, pushed_shares = self._told.tolist()
        if not explained:
            counts["contradictions"] += 1
            if counts["contradictions"] <= _SAID:
                self._say(f"{self._day.book}:{line} is not the row before changed by its message: taken as it is")
            if not self._halted:
                events.append(self._snapshot(number, time_ns))
            return events
        first_new = self._day.levels - n_new
        for depth, name in _EQUAL:
            counts[name] += first_new >= min(depth, self._day.levels)
        if n_changes:
            changes = self._changes[:n_changes]
            self._remember(changes, n_new, pushed, pushed_shares, side)
            if not self._halted:
                bids = n_changes if side > 0 else 0
                events.append(self._numbers.change(time_ns, changes * _SCALES, bids, n_changes - bids))
        return events

    def _remember(self, changes: np.ndarray, n_new: int, pushed: int, pushed_shares: int, side: int) -> None:
        """What becomes known of the levels at the end of the recorded depth."""
        orders, left = self._orders[side], self._left[side]
        if pushed:
            left[pushed] = pushed_shares
            orders.pop(pushed, None)
        price, shares = changes[0].tolist()
        if shares == 0:
            orders.pop(price, None)
        elif price != pushed:
            left.pop(price, None)  # what is remembered of it is outdated
        for price, shares in changes[len(changes) - n_new:].tolist():
            last = left.pop(price, None)
            self._counts["appeared" if last is None else "returned" if last == shares else "returned_changed"] += 1

    def _snapshot(self, number: int, time_ns: int) -> Event:
        row = self._rows[number].tolist()
        return self._numbers.snapshot(time_ns, *(
            {price * _PX: shares * _QTY for price, shares in zip(row[at::4], row[at + 1::4])} for at in (2, 0)))

    def _halt(self, number: int, time_ns: int, price: int) -> Iterator[Event]:
        """Price -1: trading halts; 0: quotes again; 1: trades again."""
        if price == 1:
            self._halted = False
            yield self._snapshot(number, time_ns)
        elif price == -1:
            self._counts["halts"] += 1
            self._halted = True
            yield Lost(self._numbers.symbol, "trading halts")

    def _order(self, kind: int, order: int, shares: int, price: int, side: int) -> None:
        """What the message says of its order, against what is known of it."""
        orders = self._orders[side].setdefault(price, {})
        known = orders.get(order)
        if kind == _ADD:
            self._counts["orders_wrong"] += known is not None
            orders[order] = shares
        elif known is None:
            elsewhere = any(order in level for levels in self._orders.values() for level in levels.values())
            early = not self._first_id or order < self._first_id
            self._counts["orders_wrong" if elsewhere else "orders_before" if early else "orders_beyond"] += 1
        else:
            left = known - shares
            self._counts["orders_wrong"] += left < 0 or (kind == _DELETE and left != 0)
            if left > 0 and kind != _DELETE:
                orders[order] = left
            else:
                del orders[order]


def _parsed(name: str, done: int, lines: list[bytes], places: np.ndarray) -> np.ndarray:
    found = parse(b"\n".join(lines) + b"\n", places, len(lines))
    if isinstance(found, Bad):
        raise VenueError("a line of a LOBSTER file is not the numbers that it should be",
                         where=f"{name}:{done + found.row + 1}: {lines[found.row][:80]!r}")
    return found


def _midnight(day: _Day) -> int:
    """Of the day in New York, Unix ns."""
    try:
        zone = zoneinfo.ZoneInfo("America/New_York")
        midnight = datetime.datetime.combine(datetime.date.fromisoformat(day.date), datetime.time(), zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError("the time of a LOBSTER file cannot be told", where=f"{day.name}: {error}",
                          remedy="install the time zones: the package tzdata") from None
    return int(midnight.timestamp()) * 10**9


def _lines(day: _Day, name: str, stack: ExitStack) -> Iterator[bytes]:
    if not day.archive:
        return (line for _, line in files.lines(name))
    archive = stack.enter_context(zipfile.ZipFile(day.archive))
    try:
        return _unpacked(day, stack.enter_context(archive.open(name)))
    except KeyError:
        raise VenueError("a LOBSTER archive lacks its book file", where=f"{day.archive}: {name}") from None


def _unpacked(day: _Day, file: Iterable[bytes]) -> Iterator[bytes]:
    try:
        for line in file:
            yield line.rstrip(b"\r\n")
    except (EOFError, OSError, zipfile.BadZipFile) as error:
        raise VenueError("a LOBSTER archive is damaged", where=f"{day.archive}: {error}") from None
