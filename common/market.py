"""The pure core of ingest: frames in; validated books and ticks out.

Each symbol goes its own way, and what befalls one disturbs no other:

              first delta              snapshot that the deltas join
    WAITING ---------------> BUFFERING -----------------------------> VALID
       |        (snapshots by HTTP)                                     ^ |
       |                                                                | |
       '----------------- snapshot in band -----------------------------' |
       ^                                                                  |
       '--------- gap, crossed book, disconnect: a KIND_STATE tick -------'

A tick is written for each delta and each trade while the book is valid, and one, with FLAG_RESET, for a
snapshot and all deltas that were waiting for it. Quotes make no ticks: they audit the book, wherever the
venue's quote and a delta end on the same update id, whichever of the two comes first.

The market never waits and never asks by itself: what it needs stands in `wants_snapshot` and `outbox`, and
the same object is driven by ingest, by replay and by tests.

Cost, decoding included: about 2 us a quote, 4 us a trade or a small delta.
"""

import enum
import struct
from collections import deque
from typing import NamedTuple

import numpy as np

from common.backoff import HEALTHY_S, Backoff
from common.book import CROSSED, Book, write_top
from common.clock import ManualClock
from common.compiled import compiled_fence, direct, kernel
from common.errors import VenueError
from common.events import ALL, GAP, JOINS, OLDER, Delta, Lost, Notice, Quote, Reply, Snapshot, Trade, Venue
from common.layout import (
    ASK_PX,
    ASK_QTY,
    BID_PX,
    BID_QTY,
    FLAG_RESET,
    FLAG_VALID,
    FLAGS,
    KIND,
    KIND_BOOK,
    KIND_STATE,
    KIND_TRADE,
    LEVELS,
    SEQ,
    TRADE_QTY,
    VENUE_ID,
)
from common.ring import Books
from common.venues import create
from common.wire import TickRef, make

COUNTERS = (
    "frames", "ticks", "trades", "quotes",
    "snapshots",  #: loaded
    "gaps",  #: holes in a sequence
    "crossed",  #: books whose bid was above their ask
    "resyncs",  #: books made valid again
    "malformed",  #: frames and snapshots refused
    "ignored",  #: events without effect: older than the book, not asked for, or while the book was not valid
    "venue_errors",  #: error messages from the venue
    "quote_checks", "quote_mismatches",
    "checksums", "checksum_mismatches",  #: of books, against the venue's
    "lost",  #: holes in the venue's own numbering of what it sends
    "stale",  #: books given up because nothing had changed them for too long
    "handovers",  #: to a younger connection
    "clock_jumps",  #: of the venue's time against ours, by more than ten seconds from one tick of a symbol to the next
)

KEPT = 8  #: refused frames kept for inspection
KEPT_BYTES = 4096  #: of each
_BUFFERED = 1000  #: deltas held per symbol while a snapshot is on its way
_BUFFERED_LEVELS = 1 << 18
QUOTES = 4096  #: quotes per symbol ahead of the book, at most; a power of two
_NEVER = 2**63 - 1
JUMP_NS = 10_000_000_000  #: see clock_jumps
_HEALTHY_NS = int(HEALTHY_S * 1e9)

_HEAD = struct.Struct("<10q")  # symbol, then the columns SEQ to TRADE_QTY
assert TRADE_QTY == _HEAD.size // 8 - 2


class State(enum.IntEnum):
    WAITING = 0
    BUFFERING = 1
    VALID = 2


class Counts:
    """The market's counters: plain integers."""

    __slots__ = COUNTERS

    def __init__(self) -> None:
        for name in COUNTERS:
            setattr(self, name, 0)


class Refused(NamedTuple):
    """A frame that was not understood, kept for inspection."""

    recv_ns: int
    error: str
    frame: bytes  #: its first KEPT_BYTES


@kernel
def publish(ticks, heads, state, head):
    """Tick head[1:] with the top of the book into its slot; see `common.layout` for the order of writes."""
    seq = head[1 + SEQ]
    record = ticks[seq & (ticks.shape[0] - 1)]
    record[SEQ] = 0
    compiled_fence()
    for column in range(KIND, TRADE_QTY + 1):
        record[column] = head[1 + column]
    write_top(state, record)
    compiled_fence()
    record[SEQ] = seq
    compiled_fence()
    heads[head[0]] = seq


@kernel
def tick_of_update(ticks, newest, oldest, update_id):
    """The seq of the newest of the ticks oldest..newest that is of update `update_id` of the book; 0 if none is, or it
    was overwritten. Update ids rise among them."""
    for seq in range(newest, max(oldest, newest - ticks.shape[0] + 1, 1) - 1, -1):
        record = ticks[seq & (ticks.shape[0] - 1)]
        if record[KIND] == KIND_BOOK and record[VENUE_ID] <= update_id:
            return seq if record[VENUE_ID] == update_id else 0
    return 0


class Symbol:
    """Where one symbol stands."""

    __slots__ = ("index", "slot", "name", "state", "book", "ticks", "seq", "last_id", "joined", "recv_ns", "book_ns",
                 "change_ns", "moved", "valid_since_ns", "was_valid", "buffer", "buffered_levels", "quotes", "book_seq",
                 "reset_seq", "ask_ns", "backoff", "trade_id", "trade_floor", "rejoins", "event_ns", "ahead_ns")

    def __init__(self, index: int, slot: int, name: str, ticks, seq: int, backoff: Backoff) -> None:
        self.index, self.slot, self.name, self.ticks, self.backoff = index, slot, name, ticks, backoff
        self.change_ns = 0  #: when the book changed last
        self.event_ns = self.ahead_ns = 0  #: the venue's time of the newest tick that has one, and its lead over ours
        self.trade_id = 0  #: the highest seen
        self.trade_floor = 0  #: trades up to it have been told by the connection before this one
        self.rejoins = False  #: the next change joins whatever its number
        self.state = State.WAITING
        self.book = Book()
        self.seq = seq  #: of the newest tick
        self.last_id = 0  #: the venue's id of the newest change in the book
        self.joined = False  #: a delta has followed the snapshot
        self.recv_ns = self.book_ns = 0  #: stamps of the newest tick
        self.moved = False  #: has ticks that no ref has told of
        self.valid_since_ns = 0
        self.was_valid = False
        self.buffer: deque[Delta] = deque()
        self.buffered_levels = 0
        self.quotes: deque[Quote] = deque(maxlen=QUOTES)  #: ahead of the book
        self.book_seq = 0  #: of the newest tick of the book
        self.reset_seq = _NEVER  #: of the tick since which update ids are of one kind
        self.ask_ns = _NEVER  #: when to ask for a snapshot


class Market:
    """`venue` decodes, `books` is written from symbol `first` on, `clock` stamps. Waits between requests for a
    snapshot of one symbol grow from backoff_min_s to backoff_max_s; one that was sent in band and not answered within
    answer_s is sent again."""

    def __init__(self, venue: Venue, books: Books, clock, *, backoff_min_s: float = 0.1, backoff_max_s: float = 10.0,
                 answer_s: float = 5.0, seed: int | None = None, first: int = 0) -> None:
        self._venue, self._books, self._clock = venue, books, clock
        self._decode = venue.decode
        self._answer_ns = int(answer_s * 1e9)
        self._by_http = [venue.snapshot_request(i) is not None for i in range(len(venue.symbols))]
        self._raw = bytearray(_HEAD.size)
        self._head = np.frombuffer(self._raw, np.int64)
        self._handlers = {Quote: self._on_quote, Delta: self._on_delta, Trade: self._on_trade,
                          Snapshot: self._on_snapshot, Notice: self._on_notice, Lost: self._on_lost,
                          Reply: self._on_reply}
        self._depth, self._checksum_depth = venue.depth, venue.checksum_depth
        self._moved: list[Symbol] = []
        self.counts = Counts()
        self.refused: deque[Refused] = deque(maxlen=KEPT)
        self.notices: deque[Notice] = deque(maxlen=KEPT)  #: the newest error messages of the venue
        self.outbox: list[bytes] = []  #: frames to send
        self.wants_snapshot: set[int] = set()  #: symbols whose snapshot is to be requested by HTTP, once
        self.symbols = [Symbol(i, first + i, name, books.ticks[first + i], int(books.heads[first + i]),
                               Backoff(backoff_min_s, backoff_max_s, None if seed is None else seed + i))
                        for i, name in enumerate(venue.symbols)]
        spare = Books.private(["-"], 1)
        self._publish = direct(publish, spare.ticks[0], spare.heads, Book().state, self._head)
        self._next_ask_ns = _NEVER  # the earliest of all symbols
        for symbol in self.symbols:
            self._adopt(symbol)

    # ---- what the shell calls

    def begin(self) -> None:
        """A connection is about to begin: before any of its frames."""
        self._venue.begin()

    def on_connect(self, now_ns: int) -> None:
        """The connection stands and the subscriptions have been sent."""
        for symbol in self.symbols:
            if not self._by_http[symbol.index]:
                self._ask_at(symbol, now_ns + self._answer_ns)

    def on_frame(self, frame: bytes | bytearray, recv_ns: int) -> int:
        """One frame; returns the number of ticks written. What is wrong with a frame ends here."""
        self.counts.frames += 1
        try:
            events = self._decode(frame)
        except VenueError as error:
            self._refuse(recv_ns, error, frame)
            return 0
        written = 0
        for event in events:
            written += self._handlers[type(event)](event, recv_ns)
        return written

    def on_snapshot(self, symbol: int, body: bytes, recv_ns: int) -> int:
        """The answer to the HTTP request for `symbol`'s snapshot; returns the number of ticks written."""
        try:
            snapshot = self._venue.decode_snapshot(symbol, body)
        except VenueError as error:
            self._refuse(recv_ns, error, body)
            self.on_snapshot_failed(symbol, recv_ns)
            return 0
        if self.symbols[symbol].state is State.VALID:  # the book is newer than this
            self.counts.ignored += 1
            return 0
        return self._on_snapshot(snapshot, recv_ns)

    def on_snapshot_failed(self, symbol: int, now_ns: int, retry_after_s: float = 0.0) -> None:
        """The request brought no snapshot: ask again later, not before `retry_after_s`."""
        target = self.symbols[symbol]
        if target.state is State.BUFFERING:
            self._ask_at(target, now_ns + int(max(target.backoff.failed(), retry_after_s) * 1e9))

    def on_disconnect(self, recv_ns: int) -> int:
        """The connection is gone: no book is valid. Returns the number of ticks written."""
        written = 0
        for symbol in self.symbols:
            written += self._invalidate(symbol, 0, recv_ns)
            symbol.quotes.clear()
            symbol.last_id = symbol.book_seq = 0  # ids may begin anew
            symbol.reset_seq = symbol.ask_ns = _NEVER
            symbol.trade_id = symbol.trade_floor = 0
        self.outbox.clear()
        self.wants_snapshot.clear()
        return written

    def work(self) -> None:
        """Ask for the snapshots that are due: fills `outbox` and `wants_snapshot`."""
        now = self._clock.monotonic_ns()
        if now < self._next_ask_ns:
            return
        for symbol in self.symbols:
            if symbol.ask_ns > now:
                continue
            if self._by_http[symbol.index]:
                symbol.ask_ns = _NEVER
                self.wants_snapshot.add(symbol.index)
            else:
                symbol.ask_ns = now + self._answer_ns
                self.outbox += self._venue.resync(symbol.index)
        self._next_ask_ns = min(symbol.ask_ns for symbol in self.symbols)

    def watch(self, now_ns: int, limit_ns: int) -> list[int]:
        """Give up books that nothing has changed for `limit_ns`, each by itself: the venue may have forgotten the
        subscription, and what says nothing cannot be told from what is quiet. Returns which."""
        stale = [symbol.index for symbol in self.symbols
                 if symbol.state is State.VALID and now_ns - symbol.change_ns > limit_ns]
        for index in stale:
            self.give_up(index, now_ns)
        return stale

    def give_up(self, index: int, now_ns: int) -> int:
        """Do not believe the book of a symbol any more, and ask for another. Returns the number of ticks written."""
        symbol = self.symbols[index]
        if symbol.state is not State.VALID:
            return 0
        self.counts.stale += 1
        self._ask_again(symbol, now_ns)
        written = self._invalidate(symbol, 0, now_ns)
        if self._by_http[index]:
            symbol.state = State.BUFFERING  # without a delta to wait for
        return written

    def whole(self, index: int) -> Snapshot | None:
        """The book of a symbol as a snapshot that would make it; None while it is not valid."""
        symbol = self.symbols[index]
        if symbol.state is not State.VALID:
            return None
        return Snapshot(index, symbol.last_id, symbol.event_ns, *symbol.book.levels())

    def agrees(self, younger: "Market") -> bool:
        """Whether `younger`, of the same symbols over another connection, has the very same books at this moment, and
        has told of no trade that this one has not told of yet (where the venue numbers trades)."""
        return all(ours.state is theirs.state is State.VALID and theirs.trade_id <= ours.trade_id
                   and ours.book.equals(theirs.book) for ours, theirs in zip(self.symbols, younger.symbols))

    def hand_over(self, younger: "Market") -> None:
        """Go on with the connection of `younger`, once `agrees`."""
        self.counts.handovers += 1
        self._venue, self._decode = younger._venue, younger._decode
        for ours, theirs in zip(self.symbols, younger.symbols):
            ours.book, ours.last_id, ours.joined = theirs.book, theirs.last_id, theirs.joined
            ours.trade_floor = ours.trade_id

    def resume(self) -> None:
        """In a recording: the frames that follow are those of another connection, which stood where this one stands.
        Its numbers are not known, so the next change joins whatever number it has."""
        self.counts.handovers += 1
        self._venue.begin()
        for symbol in self.symbols:
            symbol.rejoins, symbol.trade_floor = symbol.state is State.VALID, symbol.trade_id

    @property
    def valid_symbols(self) -> int:
        return sum(symbol.state is State.VALID for symbol in self.symbols)

    def take_refs(self) -> list[TickRef]:
        """One ref to the newest tick of each symbol that moved since the last call."""
        if not self._moved:
            return []
        tag = self._books.tag
        refs = []
        for symbol in self._moved:
            symbol.moved = False
            refs.append(make(TickRef, (symbol.slot, tag, symbol.seq, symbol.recv_ns, symbol.book_ns)))
        self._moved.clear()
        return refs

    # ---- events; each returns the number of ticks written

    def _on_quote(self, quote: Quote, recv_ns: int) -> int:
        self.counts.quotes += 1
        symbol, update_id = self.symbols[quote.symbol], quote.update_id
        if update_id > symbol.last_id:
            symbol.quotes.append(quote)
        elif update_id == symbol.last_id and symbol.book_seq:
            self._audit(symbol, quote, symbol.book_seq)
        else:
            self._audit_late(symbol, quote)
        return 0

    def _on_trade(self, trade: Trade, recv_ns: int) -> int:
        symbol = self.symbols[trade.symbol]
        if symbol.state is not State.VALID:
            self.counts.ignored += 1
            return 0
        if trade.trade_id:
            if trade.trade_id <= symbol.trade_floor:
                self.counts.ignored += 1
                return 0
            symbol.trade_id = max(symbol.trade_id, trade.trade_id)
        self.counts.trades += 1
        return self._tick(symbol, KIND_TRADE, FLAG_VALID, trade.trade_id, trade.event_ns, recv_ns,
                          trade.price, trade.qty)

    def _on_delta(self, delta: Delta, recv_ns: int) -> int:
        symbol = self.symbols[delta.symbol]
        if symbol.state is not State.VALID:
            return self._hold(symbol, delta, recv_ns)
        verdict = self._verdict(symbol, delta)
        if verdict == OLDER:
            self.counts.ignored += 1
            return 0
        if verdict == GAP:
            self.counts.gaps += 1
            written = self.distrust(symbol, delta.event_ns, recv_ns)
            self._hold(symbol, delta, recv_ns)
            return written
        if not self._apply(symbol, delta, recv_ns):
            return self.distrust(symbol, delta.event_ns, recv_ns)
        return self._book_tick(symbol, 0, delta.event_ns, recv_ns)

    def _on_snapshot(self, snapshot: Snapshot, recv_ns: int) -> int:
        """Load it, apply the deltas that were waiting for it, and publish all of that as one tick."""
        symbol = self.symbols[snapshot.symbol]
        self.counts.snapshots += 1
        symbol.joined, symbol.last_id = False, snapshot.last_id
        event_ns, buffer = snapshot.event_ns, symbol.buffer
        sound = self._load(symbol, snapshot, recv_ns)
        while buffer and sound:
            verdict = self._verdict(symbol, buffer[0])
            if verdict == GAP:  # too old, or there is a hole in what was buffered: what comes after is still good
                self.counts.gaps += symbol.joined
                self._ask_again(symbol, recv_ns)
                return 0
            delta = self._release(symbol)
            if verdict != OLDER:
                sound = self._apply(symbol, delta, recv_ns)
                event_ns = delta.event_ns
        if not sound:
            return self.distrust(symbol, event_ns, recv_ns)
        self.counts.resyncs += symbol.was_valid and symbol.state is not State.VALID
        symbol.state, symbol.was_valid, symbol.valid_since_ns = State.VALID, True, recv_ns
        symbol.ask_ns, symbol.reset_seq = _NEVER, symbol.seq + 1
        self.wants_snapshot.discard(symbol.index)
        return self._book_tick(symbol, FLAG_RESET, event_ns, recv_ns)

    def _on_notice(self, notice: Notice, recv_ns: int) -> int:
        if notice.level == "error":
            self.counts.venue_errors += 1
            self.notices.append(notice)
        else:
            self.counts.ignored += 1
        return 0

    def _on_lost(self, lost: Lost, recv_ns: int) -> int:
        """A hole in what the venue sends, found by its own numbering: whatever it concerns is not to be believed."""
        self.counts.lost += 1
        written = 0
        for symbol in self.symbols if lost.symbol == ALL else (self.symbols[lost.symbol],):
            if symbol.state is State.VALID:
                written += self.distrust(symbol, 0, recv_ns)
        return written

    def _on_reply(self, reply: Reply, recv_ns: int) -> int:
        self.outbox.append(reply.frame)
        return 0

    # ---- one symbol's way

    def _verdict(self, symbol: Symbol, delta: Delta) -> int:
        if symbol.rejoins:
            symbol.rejoins = False
            return JOINS
        return (self._venue.follows if symbol.joined else self._venue.bridges)(symbol.last_id, delta)

    def _load(self, symbol: Symbol, snapshot: Snapshot, recv_ns: int) -> bool:
        try:
            found = symbol.book.load(snapshot.levels, snapshot.n_bids, snapshot.n_asks)
        except VenueError as error:
            self._refuse(recv_ns, error, b"")
            return False
        self.counts.crossed += found == CROSSED
        return found != CROSSED and self._proven(symbol, snapshot.checksum)

    def _apply(self, symbol: Symbol, delta: Delta, recv_ns: int) -> bool:
        """Change the book; False if it is wrong now."""
        try:
            found = symbol.book.apply(delta.levels, delta.n_bids, delta.n_asks)
        except VenueError as error:
            self._refuse(recv_ns, error, b"")
            return False
        symbol.last_id, symbol.joined = delta.last_id, True
        if found == CROSSED:
            self.counts.crossed += 1
            return False
        return self._proven(symbol, delta.checksum)

    def _proven(self, symbol: Symbol, checksum: int | None) -> bool:
        """Cut the book to the depth that the venue keeps; False if the venue's checksum of it differs from ours."""
        if self._depth:
            symbol.book.cut(self._depth)
        if checksum is None:
            return True
        depth, book = self._checksum_depth, symbol.book
        self.counts.checksums += 1
        if self._venue.checksum(symbol.index, book.bids(depth), book.asks(depth)) == checksum:
            return True
        self.counts.checksum_mismatches += 1
        return False

    def _hold(self, symbol: Symbol, delta: Delta, recv_ns: int) -> int:
        """Keep a delta for the snapshot to come; where that comes in band, all that precedes it is worthless."""
        if not self._by_http[symbol.index]:
            self.counts.ignored += 1
            return 0
        if symbol.state is State.WAITING:
            symbol.state = State.BUFFERING
            if symbol.ask_ns == _NEVER:
                self._ask_at(symbol, recv_ns)
        count = delta.n_bids + delta.n_asks
        symbol.buffer.append(delta._replace(levels=delta.levels[:count].copy()))
        symbol.buffered_levels += count
        while len(symbol.buffer) > _BUFFERED or symbol.buffered_levels > _BUFFERED_LEVELS:
            self._release(symbol)
        return 0

    def _release(self, symbol: Symbol) -> Delta:
        delta = symbol.buffer.popleft()
        symbol.buffered_levels -= delta.n_bids + delta.n_asks
        return delta

    def distrust(self, symbol: Symbol, event_ns: int, recv_ns: int) -> int:
        """The book of a symbol was found wrong: it is not valid, and another is asked for. Returns the number of ticks
        written."""
        self._ask_again(symbol, recv_ns)
        return self._invalidate(symbol, event_ns, recv_ns)

    def _invalidate(self, symbol: Symbol, event_ns: int, recv_ns: int) -> int:
        """The book of this symbol is not to be believed: say so at once."""
        was_valid = symbol.state is State.VALID
        symbol.state, symbol.rejoins = State.WAITING, False
        symbol.buffer.clear()
        symbol.buffered_levels = 0
        return self._tick(symbol, KIND_STATE, 0, symbol.last_id, event_ns, recv_ns, 0, 0) if was_valid else 0

    def _ask_again(self, symbol: Symbol, now_ns: int) -> None:
        """At once if the book was good for long, else after a pause that grows."""
        healthy = symbol.was_valid and now_ns - symbol.valid_since_ns >= _HEALTHY_NS
        if healthy:
            symbol.backoff.reset()
        self._ask_at(symbol, now_ns if healthy else now_ns + int(symbol.backoff.failed() * 1e9))

    def _ask_at(self, symbol: Symbol, at_ns: int) -> None:
        symbol.ask_ns = at_ns
        self._next_ask_ns = min(self._next_ask_ns, at_ns)

    def _adopt(self, symbol: Symbol) -> None:
        """Continue the ring of a process that died: its last tick may call a book valid that nobody keeps."""
        last = self._books.newest(symbol.slot)
        if last is None or not last[FLAGS] & FLAG_VALID:
            return
        bids, asks = ([(last[px + i], last[qty + i]) for i in range(LEVELS) if last[px + i]]
                      for px, qty in ((BID_PX, BID_QTY), (ASK_PX, ASK_QTY)))
        symbol.book.load(np.array(bids + asks, np.int64).reshape(-1, 2), len(bids), len(asks))
        now = self._clock.monotonic_ns()
        self._tick(symbol, KIND_STATE, 0, last[VENUE_ID], 0, now, 0, 0)

    # ---- ticks

    def _book_tick(self, symbol: Symbol, flags: int, event_ns: int, recv_ns: int) -> int:
        """The tick of a changed book, and the audit of it by quotes that came before."""
        self._tick(symbol, KIND_BOOK, flags | FLAG_VALID, symbol.last_id, event_ns, recv_ns, 0, 0)
        symbol.book_seq, symbol.change_ns = symbol.seq, recv_ns
        self.audit(symbol)
        return 1

    def audit(self, symbol: Symbol) -> None:
        """The newest tick, which is of a changed book, by the quotes that came before it."""
        update, quotes = symbol.last_id, symbol.quotes
        while quotes and quotes[0].update_id <= update:
            quote = quotes.popleft()
            if quote.update_id == update:
                self._audit(symbol, quote, symbol.seq)

    def _tick(self, symbol: Symbol, kind: int, flags: int, venue_id: int, event_ns: int, recv_ns: int,
              price: int, qty: int) -> int:
        seq = symbol.seq = symbol.seq + 1
        symbol.recv_ns, symbol.book_ns = recv_ns, self._clock.monotonic_ns()
        if event_ns:
            ahead_ns = event_ns - recv_ns
            if symbol.event_ns and not -JUMP_NS < ahead_ns - symbol.ahead_ns < JUMP_NS:
                self.counts.clock_jumps += 1
            symbol.event_ns, symbol.ahead_ns = event_ns, ahead_ns
        _HEAD.pack_into(self._raw, 0, symbol.slot, seq, kind, flags, venue_id, event_ns, recv_ns,
                        symbol.book_ns, price, qty)
        self._publish(symbol.ticks, self._books.heads, symbol.book.state, self._head)
        self.counts.ticks += 1
        if not symbol.moved:
            symbol.moved = True
            self._moved.append(symbol)
        return 1

    def _audit(self, symbol: Symbol, quote: Quote, seq: int) -> None:
        """Our best prices after tick `seq` against the venue's own."""
        record = self._books.read(symbol.slot, seq)
        if record is None:  # overwritten since
            return
        self.counts.quote_checks += 1
        ours = record[BID_PX], record[BID_QTY], record[ASK_PX], record[ASK_QTY]
        if ours != quote[2:]:  # as good as a wrong checksum: the book is not the venue's
            self.counts.quote_mismatches += 1
            if symbol.state is State.VALID:
                self.distrust(symbol, 0, symbol.recv_ns)

    def _audit_late(self, symbol: Symbol, quote: Quote) -> None:
        """A quote that the book has overtaken: its tick may still be in the ring."""
        seq = tick_of_update(symbol.ticks, symbol.seq, symbol.reset_seq, quote.update_id)
        if seq:
            self._audit(symbol, quote, seq)

    def _refuse(self, recv_ns: int, error: VenueError, frame: bytes | bytearray) -> None:
        self.counts.malformed += 1
        self.refused.append(Refused(recv_ns, str(error), bytes(frame[:KEPT_BYTES])))


def warm_up() -> None:
    """Compile all that a market runs, or load what was compiled."""
    market = Market(create("vectrade", ["A"]), Books.private(["A"], 2), ManualClock())
    Book().cut(1)
    body = b'"sequence":%d,"timestamp":1,"bids":[["1","1"]],"asks":[["2","1"]]}'
    market.on_frame(b'{"channel":"orderbook:A","type":"snapshot",' + body % 1, 0)
    market.on_frame(b'{"channel":"orderbook:A","type":"delta",' + body % 2, 0)
    tick_of_update(market.symbols[0].ticks, 2, 1, 1)
    assert market.counts.ticks == 2
