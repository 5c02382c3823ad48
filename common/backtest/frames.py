"""Frames of recordings played many at a time: what `captures.tape` through a `Player` gives, to the last bit.

    frames, tape = Frames(player, clock, books), Tape(captures.runs(paths))
    while frames.play(tape, 1024, 1024):
        for recv_ns, heads in frames.moved: ...

Most frames are quotes, trades and changes that follow a book, of the shapes that their venue names
(`common.venues.shapes`). One call of compiled code reads them, changes the books, and publishes ticks, line after line,
until a line is anything else: the `Player` takes that one. So nothing here decides what a frame means, or what becomes
of a book that is wrong. The market's symbols keep their numbers in one array, which both ways read and write.

Cost: on recorded Binance futures, of which a third of the frames make a tick, 2 us a frame beyond the reading of the
lines; 0.6 us of it are the reading of the text.
"""

from collections.abc import Iterator

import numpy as np

from common.book import CROSSED, FULL, apply_levels
from common.captures import Lines
from common.clock import ManualClock
from common.compiled import direct, kernel
from common.errors import VenueError
from common.events import Quote
from common.layout import (
    ASK_PX,
    ASK_QTY,
    BID_PX,
    BID_QTY,
    BOOK_NS,
    EVENT_NS,
    FLAG_VALID,
    FLAGS,
    KIND,
    KIND_BOOK,
    KIND_TRADE,
    RECV_NS,
    SEQ,
    TRADE_PX,
    TRADE_QTY,
    VENUE_ID,
)
from common.market import JUMP_NS, QUOTES, State, Symbol, publish, tick_of_update
from common.player import Player
from common.ring import Books
from common.scan import FIELDS_AT, LEVELS_AT, match
from common.venues import shapes
from common.wire import TickRef, make

# Columns of a symbol: its attributes of the same names
_NUMBERS = ("slot", "state", "seq", "last_id", "joined", "rejoins", "recv_ns", "book_ns", "change_ns", "book_seq",
            "reset_seq", "trade_id", "trade_floor", "event_ns", "ahead_ns")
(_SLOT, _STATE, _SEQ, _LAST_ID, _JOINED, _REJOINS, _RECV_NS, _BOOK_NS, _CHANGE_NS, _BOOK_SEQ, _RESET_SEQ, _TRADE_ID,
 _TRADE_FLOOR, _EVENT_NS, _AHEAD_NS) = range(len(_NUMBERS))
_FIRST, _COUNT = len(_NUMBERS), len(_NUMBERS) + 1  # of the quotes that wait, as in `_Quotes`
_WIDTH = len(_NUMBERS) + 2

# Counters of the market
_COUNTED = ("frames", "ticks", "trades", "quotes", "crossed", "ignored", "quote_checks", "clock_jumps")
_FRAMES, _TICKS, _TRADES, _QUOTES, _CROSSED, _IGNORED, _CHECKS, _JUMPS = range(len(_COUNTED))

_VALID = int(State.VALID)
_FAR = 1 << 62  # the distance of two leads below it is a number of 64 bits

# Why no more lines were played: enough, the next one is for the player, or the last one left a book that is crossed, or
# is contradicted by the first of the quotes that waited for it
_PLAYED, _OTHER, _WRONG, _DOUBTED = range(4)

_OUT = 1 << 14  # a frame of more levels than this has room for is one for the player


@kernel
def _tick(row, kind, update, event_ns, recv_ns, now, price, qty, ticks, heads, book, head, counts):
    """As `Market._tick`."""
    row[_SEQ] += 1
    row[_RECV_NS], row[_BOOK_NS] = recv_ns, now
    if event_ns != 0:
        ahead = event_ns - recv_ns
        if row[_EVENT_NS] != 0 and not -JUMP_NS < ahead - row[_AHEAD_NS] < JUMP_NS:
            counts[_JUMPS] += 1
        row[_EVENT_NS], row[_AHEAD_NS] = event_ns, ahead
    head[0] = row[_SLOT]
    head[1 + SEQ], head[1 + KIND], head[1 + FLAGS] = row[_SEQ], kind, FLAG_VALID
    head[1 + VENUE_ID], head[1 + EVENT_NS], head[1 + RECV_NS], head[1 + BOOK_NS] = update, event_ns, recv_ns, now
    head[1 + TRADE_PX], head[1 + TRADE_QTY] = price, qty
    publish(ticks[row[_SLOT]], heads, book, head)
    counts[_TICKS] += 1


@kernel
def _agrees(record, bid, bid_qty, ask, ask_qty):
    return record[BID_PX] == bid and record[BID_QTY] == bid_qty and record[ASK_PX] == ask and record[ASK_QTY] == ask_qty


@kernel
def _tellable(row, event_ns, recv_ns):
    """Whether the venue's lead over us, and its change, are numbers of 64 bits."""
    return event_ns == 0 or (-_FAR < event_ns - recv_ns < _FAR and -_FAR < row[_AHEAD_NS] < _FAR)


@kernel
def _play(text, begins, ends, stamps, program, roles, out, symbols, quotes, memory, parts, ticks, heads, head, counts,
          moved, now):
    """Play lines of `text` one after the other: (how many, ticks of theirs, why no more, of which symbol, the venue's
    time of that, the clock). A line that is not played has left no trace.

    program, out: see `common.scan.match`; roles: see `common.venues.shapes`
    symbols: int64[n, _WIDTH]; quotes: int64[n, QUOTES, 5]; memory, parts: the book of symbol i is
    memory[parts[i]:parts[i + 1]]
    head, counts: scratch for a tick, and by how much each of _COUNTED grew
    moved: int64[k, 4], receipt, slot, seq and clock of each line with a tick; when it is full, no more are played
    """
    written = 0
    for i in range(stamps.size):
        if written == moved.shape[0]:
            return i, written, _PLAYED, 0, 0, now
        template = match(text[begins[i]:ends[i]], program, out)[0]
        if template < 0:
            return i, written, _OTHER, 0, 0, now
        role, found, recv_ns = roles[template], out[FIELDS_AT:LEVELS_AT], stamps[i]
        kind = role[shapes.KIND]
        if kind == shapes.OTHER:
            return i, written, _OTHER, 0, 0, now
        index = found[role[shapes.SYMBOL]]
        row, clock = symbols[index], max(now, recv_ns)
        if kind == shapes.QUOTE:
            update = found[role[shapes.UPDATE_ID]]
            bid, bid_qty = found[role[shapes.BID]], found[role[shapes.BID_QTY]]
            ask, ask_qty = found[role[shapes.ASK]], found[role[shapes.ASK_QTY]]
            if update > row[_LAST_ID]:
                if row[_COUNT] == QUOTES:
                    row[_FIRST] += 1
                    row[_COUNT] -= 1
                kept = quotes[index, (row[_FIRST] + row[_COUNT]) & (QUOTES - 1)]
                row[_COUNT] += 1
                kept[0], kept[1], kept[2], kept[3], kept[4] = update, bid, bid_qty, ask, ask_qty
            else:
                own = ticks[row[_SLOT]]
                seq = row[_BOOK_SEQ]
                if update < row[_LAST_ID] or seq == 0:
                    seq = tick_of_update(own, row[_SEQ], row[_RESET_SEQ], update)
                record = own[seq & (own.shape[0] - 1)]
                if seq != 0 and record[SEQ] == seq:
                    if not _agrees(record, bid, bid_qty, ask, ask_qty):
                        return i, written, _OTHER, 0, 0, now
                    counts[_CHECKS] += 1
            counts[_QUOTES] += 1
        elif kind == shapes.TRADE:
            number, event_ns = found[role[shapes.TRADE_ID]], found[role[shapes.TRADE_NS]]
            if row[_STATE] != _VALID or 0 < number <= row[_TRADE_FLOOR]:
                counts[_IGNORED] += 1
            else:
                if not _tellable(row, event_ns, recv_ns):
                    return i, written, _OTHER, 0, 0, now
                row[_TRADE_ID] = max(row[_TRADE_ID], number)
                sells, qty = role[shapes.SELLS], found[role[shapes.QTY]]
                if sells == shapes.ALWAYS or (sells >= 0 and found[sells] != 0):
                    qty = -qty
                _tick(row, KIND_TRADE, number, event_ns, recv_ns, clock, found[role[shapes.PRICE]], qty, ticks, heads,
                      memory[parts[index]:parts[index + 1]], head, counts)
                counts[_TRADES] += 1
                moved[written] = recv_ns, row[_SLOT], row[_SEQ], clock
                written += 1
        else:
            event_ns = found[role[shapes.DELTA_NS]]
            if row[_STATE] != _VALID or row[_JOINED] == 0 or row[_REJOINS] != 0 or (
                    found[role[shapes.JOINS]] != row[_LAST_ID] + role[shapes.STEP]) or (
                    not _tellable(row, event_ns, recv_ns)):
                return i, written, _OTHER, 0, 0, now
            book = memory[parts[index]:parts[index + 1]]
            became = apply_levels(book, out[LEVELS_AT:].reshape(-1, 2), found[role[shapes.N_BIDS]],
                                  found[role[shapes.N_ASKS]])
            if became == FULL:
                return i, written, _OTHER, 0, 0, now
            update = row[_LAST_ID] = found[role[shapes.LAST_ID]]
            counts[_FRAMES] += 1
            now = clock
            if became == CROSSED:
                counts[_CROSSED] += 1
                return i + 1, written, _WRONG, index, event_ns, now
            _tick(row, KIND_BOOK, update, event_ns, recv_ns, now, 0, 0, ticks, heads, book, head, counts)
            row[_BOOK_SEQ], row[_CHANGE_NS] = row[_SEQ], recv_ns
            record = ticks[row[_SLOT], row[_SEQ] & (ticks.shape[1] - 1)]
            while row[_COUNT] > 0:
                kept = quotes[index, row[_FIRST] & (QUOTES - 1)]
                if kept[0] > update:
                    break
                if kept[0] == update:
                    if not _agrees(record, kept[1], kept[2], kept[3], kept[4]):
                        return i + 1, written, _DOUBTED, index, event_ns, now
                    counts[_CHECKS] += 1
                row[_FIRST] += 1
                row[_COUNT] -= 1
            moved[written] = recv_ns, row[_SLOT], row[_SEQ], now
            written += 1
            continue
        counts[_FRAMES] += 1
        now = clock
    return stamps.size, written, _PLAYED, 0, 0, now


class _Symbol(Symbol):
    """A symbol whose numbers stand in a row that the kernel shares, int64[_WIDTH], and its waiting quotes in `ring`."""

    __slots__ = ("row",)

    def __init__(self, symbol: Symbol, row: np.ndarray, ring: np.ndarray) -> None:
        self.row = memoryview(row)
        for name in Symbol.__slots__:
            setattr(self, name, getattr(symbol, name))
        self.quotes = _Quotes(symbol.index, self.row, ring)

    @property
    def state(self) -> State:
        return _STATES[self.row[_STATE]]

    @state.setter
    def state(self, state: State) -> None:
        self.row[_STATE] = state


def _number(column: int) -> property:
    def read(symbol: _Symbol) -> int:
        return symbol.row[column]

    def write(symbol: _Symbol, value: int) -> None:
        symbol.row[column] = value

    return property(read, write)


_STATES = tuple(State)
for _column, _name in enumerate(_NUMBERS):
    if _name != "state":
        setattr(_Symbol, _name, _number(_column))


class _Quotes:
    """The quotes ahead of a book, as the deque that they are in a market by itself. ring: int64[QUOTES, 5]"""

    def __init__(self, symbol: int, row: memoryview, ring: np.ndarray) -> None:
        self._symbol, self._row, self._ring = symbol, row, ring

    def __len__(self) -> int:
        return self._row[_COUNT]

    def __getitem__(self, i: int) -> Quote:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return Quote(self._symbol, *self._ring[(self._row[_FIRST] + i) & (QUOTES - 1)].tolist())

    def append(self, quote: Quote) -> None:
        if len(self) == QUOTES:
            self.popleft()
        self._ring[(self._row[_FIRST] + len(self)) & (QUOTES - 1)] = quote[1:]
        self._row[_COUNT] += 1

    def popleft(self) -> Quote:
        quote = self[0]
        self._row[_FIRST] += 1
        self._row[_COUNT] -= 1
        return quote

    def clear(self) -> None:
        self._row[_COUNT] = 0


class Tape:
    """Runs of lines, as of `captures.runs`, and how many of the lines were played."""

    def __init__(self, runs: Iterator[Lines]) -> None:
        self._runs = runs
        self._lines, self._at = Lines(b"", *(np.zeros(0, np.int64),) * 3), 0
        self.played = 0

    def next(self, most: int) -> Lines:
        """Lines that come next, at most `most`; none at the end."""
        while self._at == self._lines.recv_ns.size and (lines := next(self._runs, None)) is not None:
            self._lines, self._at = lines, 0
        return self._lines.part(self._at, self._at + most)

    def advance(self, count: int) -> None:
        """So many more of the lines were played."""
        self._at += count
        self.played += count


class Frames:
    """Plays frames into the market of `player`, a new one on `clock` in plain memory, whose symbols it takes over."""

    def __init__(self, player: Player, clock: ManualClock, books: Books) -> None:
        self._player, self._market, self._clock = player, player.market, clock
        self._shapes, self._tag = player.venue.shapes, books.tag
        self._failed: VenueError | None = None
        #: receipt of each of the lines just played that brought ticks, and its newest tick of each symbol
        self.moved: list[tuple[int, list[TickRef]]] = []
        if self._shapes is None:
            return
        symbols, count = self._market.symbols, len(self._market.symbols)
        self._rows, self._quotes = np.zeros((count, _WIDTH), np.int64), np.zeros((count, QUOTES, 5), np.int64)
        symbols[:] = [_Symbol(*parts) for parts in zip(symbols, self._rows, self._quotes)]
        self._ticks, self._heads = books.table, books.heads
        self._out = np.zeros(_OUT, np.int64)
        self._out[:FIELDS_AT] = self._shapes.scanner.head
        self._head, self._counts = np.zeros(TRADE_QTY + 2, np.int64), np.zeros(len(_COUNTED), np.int64)
        self._memory, self._parts = np.zeros(0, np.int64), np.zeros(count + 1, np.int64)
        nothing = np.zeros(0, np.int64)
        self._compiled = direct(_play, *self._arguments(Lines(b"", nothing, nothing, nothing), 1))

    def play(self, tape: Tape, lines: int, ticks: int) -> int:
        """The next lines of the tape, at most `lines`, and not many more ticks than `ticks`: returns how many, 0 at the
        end, and leaves in `moved` what they brought. Raises VenueError for a line that cannot be played, when those
        before it have been."""
        self.moved = []
        if self._failed is not None:
            raise self._failed
        begun, counts = tape.played, self._market.counts
        ticks += counts.ticks
        try:
            while (left := lines - tape.played + begun) and counts.ticks < ticks:
                following = tape.next(left)
                if not following.recv_ns.size:
                    break
                if self._shapes is not None:
                    done = self._many(following, ticks - counts.ticks)
                    tape.advance(done)
                    if done:
                        continue
                self._single(following)
                tape.advance(1)
        except VenueError as error:
            if tape.played == begun:
                raise
            self._failed = error  # what was played is seen first
        return tape.played - begun

    def _single(self, lines: Lines) -> None:
        """The first of the lines, by the player."""
        recv_ns = int(lines.recv_ns[0])
        self._player.play(recv_ns, lines.line(0))
        self._collect(recv_ns)

    def _collect(self, recv_ns: int) -> None:
        refs = self._market.take_refs()
        if refs:
            self.moved.append((recv_ns, refs))

    def _many(self, lines: Lines, ticks: int) -> int:
        """Those that the kernel takes, until one that it does not: returns how many."""
        market, arguments = self._market, self._arguments(lines, ticks)
        done, written, why, index, event_ns, self._clock.now_ns = self._compiled(*arguments)
        for name, count in zip(_COUNTED, self._counts.tolist()):
            if count:
                setattr(market.counts, name, getattr(market.counts, name) + count)
        tag = self._tag
        self.moved += [(recv_ns, [make(TickRef, (slot, tag, seq, recv_ns, book_ns))])
                       for recv_ns, slot, seq, book_ns in self._moved[:written].tolist()]
        if why != _PLAYED and why != _OTHER:
            symbol, recv_ns = market.symbols[index], int(lines.recv_ns[done - 1])
            if why == _WRONG:
                market.distrust(symbol, event_ns, recv_ns)
            else:
                market.audit(symbol)
            self._collect(recv_ns)
        return done

    def _arguments(self, lines: Lines, ticks: int) -> tuple:
        """Those of the kernel, for all of these lines and at most `ticks` ticks."""
        if any(symbol.book.state.base is not self._memory for symbol in self._market.symbols):
            self._gather()
        self._counts[:] = 0
        self._moved = np.empty((min(ticks, lines.recv_ns.size), 4), np.int64)
        return (np.frombuffer(lines.text, np.uint8), lines.begins, lines.ends, lines.recv_ns,
                self._shapes.scanner.program, self._shapes.roles, self._out, self._rows, self._quotes, self._memory,
                self._parts, self._ticks, self._heads, self._head, self._counts, self._moved, self._clock.now_ns)

    def _gather(self) -> None:
        """All books in one memory: at the beginning, and when one has grown out of it."""
        books = [symbol.book for symbol in self._market.symbols]
        self._parts[1:] = np.cumsum([book.state.size for book in books])
        self._memory = np.concatenate([book.state for book in books])
        for book, first, last in zip(books, self._parts, self._parts[1:]):
            book.state = self._memory[first:last]
