"""Any venue as it was recorded: the other side of the protocol that its class in `common.venues` speaks as a client.

    WebSocket at Venue.path()            the recorded frames, byte for byte, of the symbols that were subscribed to
    the path of Venue.snapshot_request   the book as of the frame just played
    Venue.locate                         this exchange
    the path of a recorded HTTP answer   that answer: increments

The frames are decoded on their way, so the exchange knows the book of each symbol at any moment. Who subscribes gets a
snapshot of it, in the words of the venue, and then what follows: the ids are the recorded ones, so they join. All that
is known of a venue is its contract.

A playback begins with the first subscriber and is one for all; while nobody listens it rests. Where the recording tells
of the end of a connection, or of frames that are missing, the clients' connections end, too: what comes afterwards
joins nothing that they have. So it is where a recording that is played several times begins again. At speed 0 the
clients set the pace: it goes on as long as none of them has anything left to read.

Recorded answers to requests are played as well, since some venues count everything that they send; errors are not:
they were meant for somebody else.

Cost at speed 0: that of the market, and 3 us a frame.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs

from common import capture_lines, captures, faults
from common.capture_lines import Connect, Control, Disconnect, Frame, Header, Http, Missed, State
from common.clock import ManualClock
from common.config import Config
from common.errors import AlphaError, VenueError
from common.events import Delta, Event, Notice, Quote, Snapshot, Trade, Venue
from common.loopback import no_orders
from common.loopback.connections import Client, HttpCall, Mode, framed
from common.market import Market
from common.market import State as Standing
from common.player import Player
from common.ring import Books
from common.venues import create

TURN_S = 0.005  #: longest work between two looks at the sockets
LATE_S = 1.0  #: a playback that has fallen behind by more goes on from now, and does not rush
LONGEST_PAUSE_S = 10.0  #: a longer silence in a recording is played as this
HOLD_S = 1.0  #: how long a playback at the clients' pace waits for the snapshot of a symbol to be asked for

log = logging.getLogger("exchange")


class Played(Mode):
    """`Client.channels` here: symbol -> None, those that the client has subscribed to."""

    name = "capture"
    without = faults.OF_ORDERS

    def __init__(self, config: Config, loop: Any, telemetry: Any, repeat: int = 1) -> None:
        super().__init__(loop, telemetry)
        settings = config.exchange
        self._paths = [str(config.path(name)) for name in settings.captures]
        self.venue, self.symbols = captures.describe(self._paths)
        self._speed, self._repeat = settings.speed, repeat
        self._ear = Ear(create(self.venue, self.symbols))
        clock = ManualClock(1)
        self._market = Market(self._ear, Books.private(self.symbols, 16), clock)
        self._player = Player(self._market, self._ear, clock)
        self._path = self._ear.path().partition("?")[0]
        requests = [self._ear.snapshot_request(i) for i in range(len(self.symbols))]
        self._requests = {_target(request.path): i for i, request in enumerate(requests) if request is not None}
        self._recorded: dict[str, Http] = {}  # answers to other requests, by path
        self._event_ns = [0] * len(self.symbols)
        self._waiting: dict[int, list[HttpCall]] = {}  # requests for a book that is not known yet
        self._expected: set[int] = set()  # symbols of which a client has had no change yet, and so asks for no snapshot
        self._held: dict[int, float] = {}  # symbols whose snapshot should be asked for now -> how long that is awaited
        self._source: Iterator[tuple[int, bytes]] = iter(())
        self._next: tuple[int, bytes] | None = None
        self._due = 0.0
        self._played = self._times = 0
        self._fresh = True  # no frame has been played since the recorded connection began
        self._finished = False
        self._error = ""
        self._timer: Any = None

    def begin(self) -> None:
        self._source = self._lines()
        self._next = next(self._source, None)
        self._finished = self._next is None

    def status(self) -> dict[str, Any]:
        return super().status() | {
            "venue": self.venue, "symbols": self.symbols, "files": self._paths, "speed": self._speed,
            "played": self._played, "times": self._times, "finished": self._finished, "error": self._error,
            "valid_symbols": self._market.valid_symbols,
            "snapshots_waiting": [self.symbols[symbol] for symbol, calls in self._waiting.items() if calls]}

    def book(self, symbol: int) -> Snapshot | None:
        """The book of a symbol as of the line just played, with the checksum where the venue has any; None while it is
        not known."""
        whole = self._market.whole(symbol)
        if whole is None:
            return None
        depth, book = self._ear.checksum_depth, self._market.symbols[symbol].book
        checksum = self._ear.checksum(symbol, book.bids(depth), book.asks(depth)) if depth else None
        return whole._replace(event_ns=self._event_ns[symbol], checksum=checksum)

    # The clients.

    def socket_path(self, path: str) -> bool:
        return path == self._path or self._ear.locate() is not None

    def opened(self, client: Client, query: str) -> None:
        """Where nothing is subscribed to by frames, the query does it."""
        super().opened(client, query)
        if not self._ear.subscriptions():
            named = [i for i, symbol in enumerate(self.symbols) if symbol.lower() in query.lower()]
            self._subscribe(client, named or list(range(len(self.symbols))))

    def closed(self, client: Client) -> None:
        super().closed(client)
        self._schedule()  # the others need not wait for it any more

    def writable(self, client: Client) -> None:
        self._schedule()

    def message(self, client: Client, text: bytes) -> None:
        try:
            answers, symbols = self._ear.answer(text), self._ear.subscribed(text)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            log.warning("client %s sent what is no request of %s: %r (%r)", client.name, self.venue, text[:200],
                        error)
            return
        for answer in answers:
            self.send(client, answer)
        self._subscribe(client, symbols)

    def _subscribe(self, client: Client, symbols: list[int]) -> None:
        for symbol in symbols:
            client.channels[self.symbols[symbol]] = None
            if self._requests:
                self._expected.add(symbol)
            else:
                self._tell_book(client, symbol)
        if symbols and self._timer is None:
            self._due = self.loop.time()
        self._schedule()

    def _tell_book(self, client: Client, symbol: int) -> None:
        whole = self.book(symbol)
        if whole is not None:
            self.send(client, self._ear.encode_snapshot(whole))

    # The playback.

    def _schedule(self) -> None:
        """The next turn, unless it is planned, or nobody listens, or the clients set the pace and one is not ready."""
        if self._timer is None and self._next is not None and self._ready():
            self._timer = self.later(self._due if self._speed else self._held_until(), self._turn)

    def _ready(self) -> bool:
        listening = [client for client in self.clients if client.channels]
        return bool(listening) and (self._speed > 0 or not any(client.paused for client in listening))

    def _held_until(self) -> float:
        """When the next line may be played at the clients' pace. All of a recording could be on its way before the
        first request for a snapshot is: it waits, once a change has made the client ask for one."""
        return max(self._held.values(), default=0.0)

    def _turn(self) -> None:
        """Every line that is due; at the clients' pace, until one of them has enough."""
        self._timer = None
        now = self.loop.time()
        if self._speed and now - self._due > LATE_S:
            self._due = now
        while self._next is not None and self.loop.time() - now < TURN_S:
            if not self._ready() or (self._due > now if self._speed else self._held_until() > self.loop.time()):
                break
            recv_ns, text = self._next
            self._play(recv_ns, text)
            self._load(recv_ns)
            if not self._speed:
                self.flush()  # tells who is paused
        self.flush()
        self._schedule()

    def _load(self, before_ns: int) -> None:
        """The next line, and when it is due."""
        self._next = next(self._source, None)
        if self._next is not None:
            pause_s = (self._next[0] - before_ns) / 1e9
            self._due += min(max(pause_s, 0.0), LONGEST_PAUSE_S) / (self._speed or 1.0)
            return
        self._times += 1
        if self._times == self._repeat or self._error:
            self._finished = True
            log.info("played to the end: %d lines", self._played)
            for symbol in list(self._waiting):
                self._answer_waiting(symbol)
        else:
            self._source = self._lines()
            self._next = before_ns, capture_lines.encode(capture_lines.Disconnect("it begins again"))

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The recording. Ends early where a file does."""
        try:
            yield from captures.tape(self._paths)
        except AlphaError as error:
            self._error = str(error)
            log.error("the recording ends early: %s", error)

    def _play(self, recv_ns: int, text: bytes) -> None:
        self._played += 1
        self._ear.events = ()
        try:
            line = capture_lines.parse(text) if capture_lines.is_control(text) else Frame(text)
            self._player.play(recv_ns, text)
        except VenueError as error:
            self._error = str(error)
            self._source = iter(())
            return
        self._market.take_refs()
        for event in self._ear.events:
            if isinstance(event, (Delta, Snapshot)):
                self._event_ns[event.symbol] = event.event_ns
        if isinstance(line, Frame):
            self._fresh = False
            self._forward(line.frame, self._ear.events)
        elif isinstance(line, State):
            self._tell_state(line)
        elif isinstance(line, Http) and _target(line.path) not in self._requests:
            self._recorded[line.path] = line
        elif isinstance(line, (Header, Connect, Disconnect, Missed)):
            self._break(line)
        for symbol in list(self._waiting):
            self._answer_waiting(symbol)

    def _forward(self, frame: bytes, events: Sequence[Event]) -> None:
        """To everybody whom it concerns. What is malformed concerns everybody."""
        symbols = {event.symbol for event in events if isinstance(event, (Delta, Snapshot, Trade, Quote))}
        names = {self.symbols[symbol] for symbol in symbols}
        if any(isinstance(event, Notice) and event.level == "error" for event in events):
            return
        concerned = [client for client in self.clients
                     if client.channels and (not names or not names.isdisjoint(client.channels))]
        self.send_framed(concerned, framed(frame))
        if self._expected and concerned and any(isinstance(event, Delta) for event in events):
            for symbol in symbols & self._expected:
                if self._market.symbols[symbol].state is Standing.VALID:
                    self._expected.discard(symbol)
                    self._held[symbol] = self.loop.time() + HOLD_S

    def _tell_state(self, line: State) -> None:
        """Recording began in the middle: who waits for the book can have it now."""
        if not self._requests and line.symbol in self.symbols:
            for client in self.clients:
                if line.symbol in client.channels:
                    self._tell_book(client, self.symbols.index(line.symbol))

    def _break(self, line: Control) -> None:
        """What comes from here on joins nothing that came before: those who have that must begin anew."""
        goes_on = isinstance(line, Connect) and line.handover or isinstance(line, Header) and self._market.valid_symbols
        if not self._fresh and not goes_on:
            self._fresh = True
            self._expected.clear()
            self._held.clear()
            for client in list(self.clients):
                client.channels.clear()
                client.say_goodbye()

    # Requests.

    def http(self, call: HttpCall) -> None:
        symbol, locate = self._requests.get(_target(call.target)), self._ear.locate()
        if locate is not None and (call.method, call.target) == (locate.method, locate.path):
            call.answer(200, self._ear.encode_location(f"ws://{call.headers['host']}/"))
        elif call.target not in self._recorded and no_orders.answered(call):
            pass
        elif symbol is not None and call.method != "GET":
            call.refuse(405, "METHOD_NOT_ALLOWED", f"no {call.method} here", ("Allow", "GET"))
        elif symbol is not None:
            if not self.hindered(call, self.symbols[symbol]):
                self._ask_book(call, symbol)
        elif call.target in self._recorded:
            call.answer(self._recorded[call.target].status, self._recorded[call.target].body)
        else:
            call.refuse(404, "NOT_FOUND", f"nothing at {call.target}")

    def _ask_book(self, call: HttpCall, symbol: int) -> None:
        self._waiting.setdefault(symbol, []).append(call)
        self._answer_waiting(symbol)

    def _answer_waiting(self, symbol: int) -> None:
        """Answers who waits for the book of `symbol`, if it is known, or never will be."""
        whole = self.book(symbol)
        if whole is None and not self._finished:
            return
        for call in self._waiting.pop(symbol, ()):
            if whole is None:
                call.refuse(503, "NO_BOOK", "the recording has ended, and this book is not known")
            else:
                call.answer(200, self._ear.encode_snapshot(whole))
        if self._held.pop(symbol, 0.0) and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._schedule()


class Ear:
    """A venue that remembers what the last frame meant."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self.events: Sequence[Event] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    def decode(self, frame: bytes) -> Sequence[Event]:
        self.events = self._venue.decode(frame)
        return self.events


def _target(path: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """What makes two requests the same: path and query, in any order."""
    path, _, query = path.partition("?")
    return path, frozenset((key, values[-1]) for key, values in parse_qs(query).items())
