"""Judging a recording: what it holds, what is wrong with it, and whether it can be relied upon.

    judge = Judge(venue)
    judge.line(recv_ns, text, name, number)     every line, in order; `name` and `number` say where it stood
    judge.report()                              what was found, as plain JSON

Each line goes through the market core of ingest, so what is judged is what a replay would make of the recording:
a book that is not valid here is not valid there. Beside it stand a few sums over the events. The verdict is

    ok        all that was checked holds; the notes say what is worth knowing
    flawed    usable, but something is missing, contradicts itself or the venue, and does not say so
    unusable  no book was ever valid

A reconnection that the recording tells of is no flaw: the books are invalid for so long, and nobody is misled.

Two clocks stamp an event, the venue's when it happened and the recorder's when its frame came: `common.skew` compares
them.

Cost: about 2 us a frame beyond the market's own; with reading, 110,000 frames a second in all. Memory does not grow
with the length of a recording.
"""

from collections import deque
from typing import Any, NamedTuple, Sequence

import numpy as np

from common import capture_lines, fixed
from common.capture_lines import MARK, Connect, Control, Disconnect, End, Frame, Header, Http, Missed, Stale
from common.clock import ManualClock
from common.errors import VenueError
from common.events import GAP, Delta, Event, Quote, Snapshot, Trade, Venue
from common.instant import utc
from common.layout import ASK_PX, BID_PX, TICK_WIDTH
from common.market import Market, State
from common.player import Player
from common.ring import Books
from common.skew import Clocks

SCHEMA = 1  #: of the report; entries are added under the same number, and never change their meaning
OK, FLAWED, UNUSABLE = "ok", "flawed", "unusable"
VERDICTS = (OK, FLAWED, UNUSABLE)  #: from good to bad

KEPT = 20  #: findings of each kind that are kept with time and place; all are counted
QUIET_S = 10.0  #: a silence worth a note, where the venue promises nothing
_TICKS = 4096  #: of each symbol, for quotes that come late
_RECENT = 4096  #: trade ids per symbol among which a duplicate is looked for
_S = 1_000_000_000

#: counts of the market that end the validity of a book, or may
_TROUBLES = ("gaps", "crossed", "malformed", "quote_mismatches", "checksum_mismatches", "lost", "venue_errors")
#: and what the spell without a valid book is called after them
_CAUSES = {"gaps": "gap", "crossed": "crossed", "malformed": "malformed", "quote_mismatches": "quote",
           "checksum_mismatches": "checksum", "lost": "lost"}


class Spell(NamedTuple):
    """A time in which the book of a symbol was not valid."""

    symbol: str
    from_ns: int
    to_ns: int
    cause: str  #: start, gap, crossed, checksum, quote, lost, malformed, disconnect, missed, stale


class Findings:
    """Things of one kind: all are counted, the first of them kept with time and place."""

    def __init__(self) -> None:
        self.count = self.total_ns = self.longest_ns = 0
        self.first: list[dict[str, Any]] = []

    def add(self, at_ns: int, symbol: str, where: str, text: str = "") -> None:
        self.count += 1
        if len(self.first) < KEPT:
            self.first.append({"at": utc(at_ns), "at_ns": at_ns, "symbol": symbol, "where": where, "text": text})

    def lasted(self, ns: int) -> None:
        """How long the newest one was."""
        self.total_ns += ns
        self.longest_ns = max(self.longest_ns, ns)

    def report(self) -> dict[str, Any]:
        return {"count": self.count, "total_s": self.total_ns / _S, "longest_s": self.longest_ns / _S,
                "first": self.first}


class Watched:
    """A venue that keeps the events of what it decoded last: `events` is all that was decoded since it was emptied."""

    def __init__(self, venue: Venue) -> None:
        self._venue, self._decode = venue, venue.decode
        self.events: Sequence[Event] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        self.events = events = self._decode(frame)
        return events

    def decode_snapshot(self, symbol: int, body: bytes) -> Snapshot:
        snapshot = self._venue.decode_snapshot(symbol, body)
        self.events = (snapshot,)
        return snapshot


class _Symbol:
    """What is kept of one symbol."""

    def __init__(self, index: int, name: str, ticks: np.ndarray) -> None:
        self.index, self.name = index, name
        self.top = memoryview(ticks).cast("B").cast("q")
        self.mask = ticks.shape[0] - 1
        self.valid = False
        self.cause = "start"
        self.since_ns = 0  #: of the spell without a valid book
        self.valid_ns = 0
        self.first_valid_ns = 0
        self.locked_ns = 0  #: since when the book is locked; 0: it is not
        self.chain = 0  #: last id of the newest delta, valid book or not; 0: unknown
        self.deltas = self.trades = self.quotes = self.snapshots = 0
        self.delta_ns = self.trade_ns = 0  #: event times of the newest
        self.changed_ns = self.quiet_ns = 0  #: when the newest delta came, and the longest wait for one
        self.trade_id = 0  #: the highest; 0: none yet
        self.trades_anew = False  #: no trade since the connection began
        self.recent: set[int] = set()
        self.order: deque[int] = deque()


class Judge:
    """Judges the recording of one connection to `venue`, over all its files and reconnections."""

    STEP_NS = 1_000_000  #: files may overlap so much: each has an offset of its own from the monotonic clock

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self._watched = Watched(venue)
        self.books = Books.private(venue.symbols, _TICKS)
        clock = ManualClock()
        self.market = Market(self._watched, self.books, clock, seed=0)
        self._player = Player(self.market, self._watched, clock)
        self._header: Header | None = None
        self._controls = 0  # control lines of the file
        self.symbols = [_Symbol(i, name, self.books.ticks[i]) for i, name in enumerate(venue.symbols)]
        self.clocks = Clocks()
        self.spells: list[Spell] = []
        self.found = {name: Findings() for name in (
            "gaps", "lost", "checksums_wrong", "crossed", "locked", "quote_mismatches", "recv_reversals",
            "event_reversals", "trade_duplicates", "trade_reversals", "trade_holes", "silences", "malformed",
            "venue_errors", "missed", "stale", "cut_off", "manifest")}
        self.lines = self.connections = self.disconnects = self.missed_messages = self.missing_trades = 0
        self.trades_missed_between = 0  #: connections
        self.first_ns = self.last_ns = 0
        self.ended = False  #: by the recorder's own word; always so of a foreign recording, which has none
        self._silent_ns = int((venue.silence_s or QUIET_S) * _S)
        self._window_end = 0
        self._connected = True
        self._troubles = dict.fromkeys(_TROUBLES, 0)
        self._trouble = 0
        self._contiguous = venue.contiguous_trades
        self._in_band = bool(venue.symbols) and venue.snapshot_request(0) is None
        self._name, self._number = "", 0

    # ---- what the shell calls

    def line(self, recv_ns: int, text: bytes, name: str, number: int) -> None:
        """Line `number` of the file called `name`, as `common.player` plays it."""
        self._name, self._number = name, number
        self.lines += 1
        if recv_ns > fixed.MAX:
            self._add("malformed", self.last_ns, "", f"a time of receipt is out of range: {recv_ns}")
            return
        if recv_ns < self.last_ns:
            if number > 1 or self.last_ns - recv_ns > self.STEP_NS:
                self._reversal("recv_reversals", recv_ns, "", self.last_ns - recv_ns)
            else:
                self.last_ns = recv_ns
        else:
            if recv_ns - self.last_ns > self._silent_ns:
                self._silence(recv_ns)
            self.last_ns = recv_ns
            if recv_ns >= self._window_end:
                self._turn(recv_ns)
        watched, market = self._watched, self.market
        watched.events = ()
        if text.startswith(MARK):
            self._control(recv_ns, text)
        else:
            self._player.play(recv_ns, text)
        shown = False  # a snapshot: a book may have become valid
        for event in watched.events:
            kind = type(event)
            if kind is Quote:
                self.symbols[event.symbol].quotes += 1
            elif kind is Delta:
                self._delta(event, recv_ns)
            elif kind is Trade:
                self._trade(event, recv_ns)
            elif kind is Snapshot:
                shown = True
                self.symbols[event.symbol].snapshots += 1
                if self._in_band:
                    self.symbols[event.symbol].chain = 0
        counts = market.counts
        trouble = (counts.gaps + counts.crossed + counts.malformed + counts.quote_mismatches
                   + counts.checksum_mismatches + counts.lost + counts.venue_errors)
        if shown or trouble != self._trouble:
            self._trouble = trouble
            self._settle(recv_ns, watched.events)

    @property
    def events(self) -> Sequence[Event]:
        """Of the newest line; levels in them are valid until the next."""
        return self._watched.events

    def cut_off(self, text: str) -> None:
        """The reader says that a file ends, or cannot be read on, before its end."""
        self.found["cut_off"].add(self.last_ns, "", self._where(), text)

    def contradiction(self, name: str, problems: Sequence[str]) -> None:
        """What the manifest of a file says, and the file does not bear out."""
        for problem in problems:
            self.found["manifest"].add(self.last_ns, "", name, problem)

    def report(self) -> dict[str, Any]:
        """What was found, as plain JSON: the recording ends here, and this is asked for once."""
        self._turn(self.last_ns)
        if not self.ended:
            self._unended()
            self.ended = True
        for symbol in self.symbols:
            self._unlock(symbol, self.last_ns)
            self._close(symbol, self.last_ns)
        counts, found = self.market.counts, self.found
        reasons, notes = self._reasons(), self._notes()
        usable = any(symbol.first_valid_ns for symbol in self.symbols)
        if not usable:
            reasons.insert(0, "no line at all" if not self.lines else "no frame" if not counts.frames
                           else "no book was ever valid")
        return {
            "verdict": UNUSABLE if not usable else FLAWED if reasons else OK,
            "reasons": reasons, "notes": notes,
            "venue": self.venue.name,
            "from_ns": self.first_ns, "to_ns": self.last_ns, "from": utc(self.first_ns), "to": utc(self.last_ns),
            "span_s": (self.last_ns - self.first_ns) / _S,
            "lines": self.lines, "frames": counts.frames, "ticks": counts.ticks,
            "trades": sum(symbol.trades for symbol in self.symbols), "quotes": counts.quotes,
            "snapshots": counts.snapshots, "resyncs": counts.resyncs, "ignored": counts.ignored,
            "connections": self.connections, "disconnects": self.disconnects,
            "missed_messages": self.missed_messages,
            "checksums": {"right": counts.checksums - counts.checksum_mismatches,
                          "wrong": counts.checksum_mismatches},
            "quote_checks": {"equal": counts.quote_checks - counts.quote_mismatches,
                             "unequal": counts.quote_mismatches},
            "trade_ids": {"contiguous": self._contiguous, "missing": self.missing_trades,
                          "missed_between_connections": self.trades_missed_between},
            "clock": self.clocks.report(),
            "silence_s": self._silent_ns / _S,
            "symbols": {symbol.name: self._symbol(symbol) for symbol in self.symbols},
            "findings": {name: kind.report() for name, kind in found.items()},
        }

    # ---- lines

    def _control(self, recv_ns: int, text: bytes) -> None:
        """A control line: what it says of the recording is noted, what it means for the books is the player's."""
        cause = ""
        try:
            line = capture_lines.parse(text)
            self._controls += not isinstance(line, Frame)
            self._player.play(recv_ns, text)
            cause = self._heed(recv_ns, line)
        except VenueError as error:
            self._add("malformed", recv_ns, "", str(error))
        self._settle(recv_ns, self._watched.events, cause)

    def _heed(self, recv_ns: int, line: Control) -> str:
        """Note what a control line says; returns why a book is not valid after it."""
        match line:
            case Header():
                if not self.ended:
                    self._unended()
                before, self._header, self.ended, self._controls = self._header, line, False, 1
                if before is not None and before.session and before.session == line.session:
                    if line.part == before.part + 1:
                        return ""
                    self._add("missed", recv_ns, "", f"part {line.part} of the recording follows part {before.part}")
                    self._anew()
                    return "missed"
                self._connected = False  # nothing is promised before a connection is there
                self._anew()
                return "disconnect"
            case Connect():
                self.connections += 1
                self._connected = True
                self._anew(line.handover)
                return "disconnect"
            case Disconnect():
                self.disconnects += 1
                self._connected = False
                self._anew()
                return "disconnect"
            case Missed():
                self.missed_messages += line.count
                self._add("missed", recv_ns, "", f"{line.count:,} messages did not reach the recorder")
                self._anew()
                return "missed"
            case Stale():
                self._add("stale", recv_ns, line.symbol)
                return "stale"
            case Http() if line.status != 200:
                self._add("venue_errors", recv_ns, line.symbol, f"HTTP {line.status} for {line.path}")
            case End():
                self.ended = True
                frames = self._number - self._controls
                if frames != line.frames:
                    self._add("manifest", recv_ns, "", f"{self._name} has {frames:,} frames, and by its own last line "
                              f"{line.frames:,}")
        return ""

    def _unended(self) -> None:
        """What came before has no orderly end."""
        if self._header is not None:
            part = f"part {self._header.part} of {self._header.session}" if self._header.session else "the recording"
            self._add("cut_off", self.last_ns, "", f"{part} has no orderly end: it was cut off, or is still written")

    def _anew(self, handover: bool = False) -> None:
        """What follows is not numbered after what came before; in a handover, the changes of books are."""
        for symbol in self.symbols:
            symbol.trades_anew = True
            if not handover:
                symbol.chain = symbol.delta_ns = symbol.trade_ns = 0

    def _turn(self, recv_ns: int) -> None:
        self.clocks.turn(recv_ns)
        self._window_end = recv_ns + Clocks.WINDOW_NS

    def _silence(self, recv_ns: int) -> None:
        if not self.last_ns:
            self.first_ns = recv_ns
            for symbol in self.symbols:
                symbol.since_ns = recv_ns
            return
        if not self._connected:
            return
        silent = recv_ns - self.last_ns
        self._add("silences", self.last_ns, "", f"nothing for {silent / _S:.1f} s")
        self.found["silences"].lasted(silent)

    def _reversal(self, name: str, at_ns: int, symbol: str, ns: int) -> None:
        self._add(name, at_ns, symbol, f"{ns / 1e6:,.3f} ms back")
        self.found[name].lasted(ns)

    # ---- events

    def _delta(self, delta: Delta, recv_ns: int) -> None:
        symbol = self.symbols[delta.symbol]
        symbol.deltas += 1
        if delta.event_ns:
            self.clocks.pending.append(recv_ns - delta.event_ns)
            if delta.event_ns < symbol.delta_ns:
                self._reversal("event_reversals", recv_ns, symbol.name, symbol.delta_ns - delta.event_ns)
            else:
                symbol.delta_ns = delta.event_ns
        if symbol.valid:
            base = (self.market.symbols[delta.symbol].seq & symbol.mask) * TICK_WIDTH
            if symbol.top[base + BID_PX] == symbol.top[base + ASK_PX] != 0:
                self._lock(symbol, recv_ns)
            elif symbol.locked_ns:
                self._unlock(symbol, recv_ns)
        elif symbol.chain and self.venue.follows(symbol.chain, delta) == GAP:  # the market does not look at it
            self._add("gaps", recv_ns, symbol.name, f"{delta.first_id} does not follow {symbol.chain}; the book was "
                      "not valid anyway")
        if delta.last_id > symbol.chain:
            symbol.chain = delta.last_id
        if symbol.changed_ns and recv_ns - symbol.changed_ns > symbol.quiet_ns:
            symbol.quiet_ns = recv_ns - symbol.changed_ns
        symbol.changed_ns = recv_ns

    def _trade(self, trade: Trade, recv_ns: int) -> None:
        symbol = self.symbols[trade.symbol]
        symbol.trades += 1
        if trade.event_ns:
            self.clocks.pending.append(recv_ns - trade.event_ns)
            if trade.event_ns < symbol.trade_ns:
                self._reversal("event_reversals", recv_ns, symbol.name, symbol.trade_ns - trade.event_ns)
            else:
                symbol.trade_ns = trade.event_ns
        number, last = trade.trade_id, symbol.trade_id
        if not number:
            return
        if number > last:
            if self._contiguous and last and number != last + 1:
                self._hole(symbol, recv_ns, last, number)
            symbol.trade_id = number
        elif symbol.trades_anew:  # told again to a new subscriber, or numbered anew
            symbol.trade_id = number
            symbol.recent.clear()
            symbol.order.clear()
        elif number in symbol.recent:
            self._add("trade_duplicates", recv_ns, symbol.name, f"trade {number} again")
            return
        else:
            self._add("trade_reversals", recv_ns, symbol.name, f"trade {number} after {last}")
            self.missing_trades -= self._contiguous and self.missing_trades > 0
        symbol.trades_anew = False
        symbol.recent.add(number)
        symbol.order.append(number)
        if len(symbol.order) > _RECENT:
            symbol.recent.discard(symbol.order.popleft())

    def _hole(self, symbol: _Symbol, recv_ns: int, last: int, number: int) -> None:
        missing = number - last - 1
        if symbol.trades_anew:
            self.trades_missed_between += missing
            return
        self.missing_trades += missing
        self._add("trade_holes", recv_ns, symbol.name, f"{missing:,} trades between {last} and {number}")

    def _lock(self, symbol: _Symbol, recv_ns: int) -> None:
        if not symbol.locked_ns:
            symbol.locked_ns = recv_ns
            self._add("locked", recv_ns, symbol.name)

    def _unlock(self, symbol: _Symbol, recv_ns: int) -> None:
        if symbol.locked_ns:
            self.found["locked"].lasted(recv_ns - symbol.locked_ns)
            symbol.locked_ns = 0

    # ---- validity

    def _settle(self, recv_ns: int, events: Sequence[Event], cause: str = "") -> None:
        """Note what the market has counted since, and which books have become valid or ceased to be."""
        counts = self.market.counts
        grown = {name: getattr(counts, name) - self._troubles[name] for name in _TROUBLES
                 if getattr(counts, name) != self._troubles[name]}
        self._troubles = {name: getattr(counts, name) for name in _TROUBLES}
        cause = cause or next((_CAUSES[name] for name in grown if name in _CAUSES), "")
        hit = []
        for symbol, state in zip(self.symbols, self.market.symbols):
            valid = state.state is State.VALID
            if valid and not symbol.valid:
                self._close(symbol, recv_ns)
                symbol.valid, symbol.since_ns = True, recv_ns
                symbol.first_valid_ns = symbol.first_valid_ns or recv_ns
            elif symbol.valid and not valid:
                hit.append(symbol.name)
                self._unlock(symbol, recv_ns)
                self._close(symbol, recv_ns)
                symbol.valid, symbol.since_ns, symbol.cause = False, recv_ns, cause
        if grown:
            self._blame(recv_ns, grown, events, ", ".join(hit))

    def _blame(self, recv_ns: int, grown: dict[str, int], events: Sequence[Event], hit: str) -> None:
        """Add what has `grown` to the findings."""
        hit = hit or ", ".join(dict.fromkeys(self.symbols[event.symbol].name for event in events
                                             if getattr(event, "symbol", -1) >= 0))
        market = self.market
        delta = next((event for event in events if type(event) is Delta), None)
        for name, count in grown.items():
            if name == "gaps":
                if delta is None:  # found in what was waiting for a snapshot, where it has been noted already
                    continue
                text = f"{delta.first_id} does not follow {market.symbols[delta.symbol].last_id}"
            elif name == "malformed":
                text = market.refused[-1].error
            elif name == "venue_errors":
                text = market.notices[-1].text
            else:
                text = next((event.text for event in events if name == "lost" and hasattr(event, "text")), "")
            for _ in range(count):
                self._add(_FINDING.get(name, name), recv_ns, hit, text)

    def _close(self, symbol: _Symbol, recv_ns: int) -> None:
        """A spell of this symbol, valid or not, ends."""
        lasted = max(recv_ns - symbol.since_ns, 0)
        if symbol.valid:
            symbol.valid_ns += lasted
            symbol.since_ns = recv_ns
            return
        if len(self.spells) < _SPELLS:
            self.spells.append(Spell(symbol.name, symbol.since_ns, recv_ns, symbol.cause))
        kind = _OF_CAUSE.get(symbol.cause)
        if kind:
            self.found[kind].lasted(lasted)
        symbol.since_ns = recv_ns

    # ---- words

    def _add(self, name: str, at_ns: int, symbol: str, text: str = "") -> None:
        self.found[name].add(at_ns, symbol, self._where(), text)

    def _where(self) -> str:
        return f"{self._name}:{self._number}" if self._name else ""

    def _symbol(self, symbol: _Symbol) -> dict[str, Any]:
        span = self.last_ns - self.first_ns
        return {"valid_share": symbol.valid_ns / span if span else float(symbol.valid),
                "valid_at_end": symbol.valid,
                "first_valid_s": (symbol.first_valid_ns - self.first_ns) / _S if symbol.first_valid_ns else None,
                "deltas": symbol.deltas, "trades": symbol.trades, "quotes": symbol.quotes,
                "snapshots": symbol.snapshots, "longest_quiet_s": symbol.quiet_ns / _S,
                "invalid": [{"from_ns": spell.from_ns, "to_ns": spell.to_ns, "cause": spell.cause}
                            for spell in self.spells if spell.symbol == symbol.name][:KEPT]}

    def _reasons(self) -> list[str]:
        """Why the recording is not ok."""
        found = self.found
        told = [
            _told(found["gaps"], "gap", "gaps"),
            _told(found["lost"], "hole in the venue's numbering", "holes in the venue's numbering"),
            _told(found["checksums_wrong"], "wrong checksum", "wrong checksums"),
            _told(found["quote_mismatches"], "best price that is not the venue's", "best prices not the venue's"),
            _told(found["crossed"], "crossed book", "crossed books"),
            _told(found["malformed"], "malformed frame", "malformed frames"),
            _told(found["recv_reversals"], "line received before the one above it",
                  "lines received before the one above"),
            _told(found["trade_duplicates"], "trade told twice", "trades told twice"),
        ]
        if self.missing_trades:
            told.append(f"{self.missing_trades:,} trades missing in {found['trade_holes'].count:,} holes")
        if self._contiguous:
            told.append(_told(found["trade_reversals"], "trade out of order", "trades out of order"))
        if self.venue.silence_s:
            told.append(_told(found["silences"], "silence longer than the venue allows",
                              "silences longer than the venue allows"))
        if found["missed"].count:
            told.append(f"{self.missed_messages:,} messages missed by the recorder")
        told += [entry["text"] for name in ("cut_off", "manifest") for entry in found[name].first]
        if any(symbol.first_valid_ns for symbol in self.symbols):
            never = [symbol.name for symbol in self.symbols if not symbol.first_valid_ns]
            told += [f"no valid book of {', '.join(never)}"] * bool(never)
        lost = [symbol for symbol in self.symbols if symbol.first_valid_ns and not symbol.valid
                and symbol.cause not in ("disconnect", "missed", "stale")]
        told += [f"{symbol.name} has no valid book from {utc(self._lost_at(symbol))} to the end ({symbol.cause})"
                 for symbol in lost]
        return [reason for reason in told if reason]

    def _lost_at(self, symbol: _Symbol) -> int:
        return max((spell.from_ns for spell in self.spells if spell.symbol == symbol.name), default=symbol.since_ns)

    def _notes(self) -> list[str]:
        """What is worth knowing and no flaw."""
        found, clock, counts = self.found, self.clocks.report(), self.market.counts
        told = []
        if counts.ignored > counts.frames // 2:
            told.append(f"{counts.ignored:,} events had no effect: of other symbols or channels, older than the book, "
                        "or while it was not valid")
        if clock["envelope_ms"] is not None:
            low = clock["envelope_ms"]
            told.append(f"the recorder's clock is at least {-low:,.1f} ms behind the venue's (recv - event: median "
                        f"{clock['median_ms']:,.1f} ms)" if low < 0 else
                        f"recv - event: at least {low:,.1f} ms, median {clock['median_ms']:,.1f} ms")
        if self.disconnects:
            told.append(f"{self.disconnects:,} disconnects; the books are invalid from each to the next snapshot")
        if self.trades_missed_between:
            told.append(f"{self.trades_missed_between:,} trades between connections")
        told.append(_told(found["stale"], "book given up because nothing changed it",
                          "books given up because nothing changed them"))
        told.append(_told(found["locked"], "locked book", "locked books"))
        told.append(_told(found["event_reversals"], "event older than the one before of its kind",
                          "events older than the one before of their kind"))
        if not self._contiguous:
            told.append(_told(found["trade_reversals"], "trade number below the one before",
                              "trade numbers below the one before"))
        if not self.venue.silence_s:
            told.append(_told(found["silences"], f"silence above {QUIET_S:g} s", f"silences above {QUIET_S:g} s"))
        told.append(_told(found["venue_errors"], "error message of the venue", "error messages of the venue"))
        return [note for note in told if note]


_FINDING = {"checksum_mismatches": "checksums_wrong"}  #: the findings that a count of the market goes to
#: the findings whose spells without a book are summed, by cause
_OF_CAUSE = {"gap": "gaps", "crossed": "crossed", "checksum": "checksums_wrong", "quote": "quote_mismatches",
             "lost": "lost", "missed": "missed", "stale": "stale"}
_SPELLS = 10_000  #: kept


def worst(verdicts: Sequence[str]) -> str:
    """The verdict on all of them."""
    return max(verdicts, key=VERDICTS.index, default=UNUSABLE)


def _told(kind: Findings, one: str, many: str) -> str:
    if not kind.count:
        return ""
    first = kind.first[0]
    place = " ".join(filter(None, (first["at"], first["symbol"], first["where"])))
    return f"{kind.count:,} {one if kind.count == 1 else many} ({'at' if kind.count == 1 else 'first at'} {place})"
