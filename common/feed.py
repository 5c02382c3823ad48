"""A feed: some symbols of one venue, kept up to date over one connection, whatever happens to it.

    locate --> connect --> subscribe --> frames --> Market --> ticks
                  ^                                    |
                  '--- backoff <--- lost, dead, refused '--- snapshots over HTTP

The market decides what frames mean; here are the timers and the requests. A connection that has come near the age at
which the venue ends it is replaced before: a younger one is opened beside it, with a market of its own, and takes over
at a moment when both have the same books, so that nothing is missed and nothing told twice.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from common.backoff import Backoff
from common.capture_lines import Connect, Control, Disconnect, Header, Http, Stale, encode
from common.capture_lines import State as Stand
from common.config import Market as Settings
from common.connection import Connection
from common.events import Venue
from common.http import HttpClient, Reply
from common.market import Market
from common.ring import Books
from common.venues import create
from common.websocket import Closed, Refused, Untrusted, retry_after_s

COUNTERS = (
    "connects",  #: connections that opened
    "connect_failures",
    "disconnects",  #: of connections that were open
    "snapshot_failures",  #: requests that brought no snapshot
)

_HTTP_TIMEOUT_S = 5.0
_TURN_NS = 50_000_000
_NEAR_ANSWER_S, _FAR_ANSWER_S = 5.0, 20.0  # patience with a snapshot in band: some have megabytes to bring
_LOOPBACK_BACKOFF_S = 0.25  #: longest pause towards our own exchange, which is not disturbed by being asked
_BANNED = (403, 418)  #: statuses by which a venue says that it has had enough of us
_BANNED_S = 60.0  #: the least pause then
_LIMITED_S = 5.0  #: the least pause after 429 without a Retry-After
_YOUNG = 0.9  #: of the greatest age of a connection: then a younger one is opened
_RIPE_NS = 30_000_000_000  # a younger connection that has not taken over by then is given up

log = logging.getLogger("ingest")


class Feed:
    """`say` takes control lines, and HTTP answers, for whoever records; `add(counter, n)` counts. `books` is written
    from symbol `first` on. Raises Untrusted, which ends the process, where TLS will not work by trying again."""

    def __init__(self, name: str, settings: Settings, venue: Venue, books: Books, first: int, clock,
                 say: Callable[[bytes, int], None], add: Callable[[str, int], None]) -> None:
        self.name, self._settings, self.venue, self._clock, self._add = name, settings, venue, clock, add
        self._tell = say
        self._pause_s = settings.backoff_max_s if settings.live else min(settings.backoff_max_s, _LOOPBACK_BACKOFF_S)
        self.market = self._market(venue, books, first)
        self._backoff = Backoff(settings.backoff_min_s, self._pause_s)
        by_http = venue.snapshot_request(0) is not None or venue.locate() is not None
        self._http = HttpClient(settings.rest_url or venue.rest_url, _HTTP_TIMEOUT_S, clock,
                                proxy=settings.proxy) if by_http else None
        self._silence_s = min(settings.stale_s, 3 * venue.silence_s) if venue.silence_s else settings.stale_s
        self._max_age_ns = int((settings.max_age_s or venue.max_age_s) * _YOUNG * 1e9)
        self.connection: Connection | None = None
        self._younger: tuple[Connection, Market] | None = None
        self.error = ""  #: why there is no connection
        self._connect_ns = self._younger_ns = 0  # when to try next
        self._younger_backoff = Backoff(settings.backoff_min_s, self._pause_s)
        self._url = "" if venue.locate() is not None else (settings.ws_url or venue.ws_url).rstrip("/") + venue.path()
        self._locating = False
        self._requested: set[tuple[Market, int, int]] = set()  # whose snapshot is on its way
        self._hold_ns = 0  # no request before: the venue asked for a pause
        self._session = 0  # an answer to a request of an earlier connection is worthless
        self._turn_ns = 0
        self._moved = False  # since the books were last compared with those of the younger connection

    def _market(self, venue: Venue, books: Books, first: int) -> Market:
        return Market(venue, books, self._clock, backoff_min_s=self._settings.backoff_min_s,
                      backoff_max_s=self._pause_s, first=first,
                      answer_s=_FAR_ANSWER_S if self._settings.live else _NEAR_ANSWER_S)

    # ---- what the stage calls

    def receive(self, tap: Callable[[bytes | bytearray, int], None] | None) -> int:
        """Everything up to one read's worth of frames, which `tap` sees before; returns how many."""
        connection = self.connection
        if connection is None:
            self._connect()
            return 0
        opened = connection.opened_ns
        try:
            frames = connection.recv()
        except Closed as error:  # Untrusted is not among them: that is the end of this process
            self._lose(error)
            return 0
        if not opened and connection.opened_ns:
            self._opened(connection)
        if not frames:
            return 0
        self._moved = True
        on_frame = self.market.on_frame
        for frame, recv_ns in frames:
            on_frame(frame, recv_ns)
            if tap is not None:
                tap(frame, recv_ns)
        return len(frames)

    def work(self, now: int) -> int:
        """What the time and the market ask for; returns how many answers were taken."""
        handled = 0
        if self.connection is not None and self.connection.opened_ns:
            self._serve(self.connection, self.market, now)
        if self._younger is not None:
            handled += self._raise_younger(now)
        if self._http is not None:
            handled += self._talk(now)
        if now >= self._turn_ns:
            self._turn_ns = now + _TURN_NS
            self._turn(now)
        return handled

    def waits_for(self) -> Iterator[Any]:
        """What to poll."""
        if self.connection is not None:
            yield self.connection
        if self._younger is not None:
            yield self._younger[0]
        if self._http is not None and (self._requested or self._locating):
            yield self._http

    def close(self, why: str = "stopped") -> None:
        self._drop(why)
        if self._http is not None:
            self._http.close()

    def opening(self) -> Iterator[bytes]:
        """The control lines with which a recording begins: what it is of, and where the books stand."""
        yield encode(Header(self.venue.name, self.venue.symbols))
        if self.open:
            yield encode(Connect(self._url))
        for index, name in enumerate(self.venue.symbols):
            whole = self.market.whole(index)
            if whole is not None:
                yield encode(Stand(name, self.venue.encode_snapshot(whole)))

    @property
    def open(self) -> bool:
        return self.connection is not None and self.connection.opened_ns > 0

    @property
    def state(self) -> str:
        """For people."""
        return self.connection.state if self.connection is not None else "waiting"

    @property
    def url(self) -> str:
        return self._url or self._settings.ws_url

    def status(self, now: int) -> dict[str, Any]:
        """The connection and every symbol, for people."""
        return {
            "feed": self.name, "venue": self.venue.name, "url": self.url, "connection": self.state,
            "error": self.error, "younger": self._younger[0].state if self._younger else "",
            "frame_age_ms": (now - self.connection.frame_ns) // 1_000_000 if self.open else None,
            "symbols": {symbol.name: {"state": symbol.state.name.lower(), "seq": symbol.seq,
                                      "age_ms": (now - symbol.recv_ns) // 1_000_000 if symbol.recv_ns else None}
                        for symbol in self.market.symbols},
            "refused": [refused.error for refused in self.market.refused],
        }

    # ---- the connection

    def _connect(self) -> None:
        if self._clock.monotonic_ns() < self._connect_ns:
            return
        if not self._url:
            self._locate()
            return
        self.venue.begin()
        self.connection = self._dial(self.venue, self._say)

    def _dial(self, venue: Venue, say: Callable[[Control], None]) -> Connection:
        return Connection(self._url, venue, self._clock, max_frame=self._settings.max_frame_bytes,
                          silence_s=self._silence_s, say=say, proxy=self._settings.proxy)

    def _say(self, line: Control) -> None:
        self._tell(encode(line), self._clock.monotonic_ns())

    def _locate(self) -> None:
        """Ask where to connect; the answer comes to `_take`."""
        if not self._locating and self._clock.monotonic_ns() >= self._hold_ns:
            self._locating = True
            self._http.submit(self.venue.locate(), None)

    def _opened(self, connection: Connection) -> None:
        self.error = ""
        self._add("connects", 1)
        log.info("connected venue=%s url=%s", self.venue.name, self._url)
        self.market.on_connect(connection.opened_ns)

    def _lose(self, error: Closed) -> None:
        """The connection has ended or did not come to be: every book is invalid, and a new one is made later."""
        pause_s = _pause_after(error, self._backoff)
        self._add("disconnects" if self.open else "connect_failures", 1)
        if str(error) != self.error:  # and not for every attempt that fails in the same way
            log.warning("no connection: %s; again in %.2f s", error, pause_s)
        self._drop(str(error))
        self._connect_ns = self._clock.monotonic_ns() + int(pause_s * 1e9)

    def _drop(self, why: str) -> None:
        if self.connection is not None:
            if self.connection.opened_ns:
                self._say(Disconnect(why))
            self.connection.close()
        self._forget_younger()
        self.connection, self.error = None, why
        if self.venue.locate() is not None:
            self._url, self._locating = "", False
        self._session += 1
        self._requested.clear()
        self.market.on_disconnect(self._clock.monotonic_ns())

    def _serve(self, connection: Connection, market: Market, now: int) -> None:
        """Send what the market and the clock want sent."""
        market.work()
        try:
            if market.outbox:
                frames, market.outbox = market.outbox, []
                connection.send(frames)
            connection.work(now)
        except Closed as error:
            if market is self.market:
                self._lose(error)
            else:
                self._lose_younger(error)

    # ---- a younger connection beside one that grows old

    def _open_younger(self, now: int) -> None:
        venue = create(self.venue.name, self.venue.symbols)
        venue.begin()
        market = self._market(venue, Books.private(venue.symbols, 16), 0)
        self._younger = self._dial(venue, lambda line: None), market
        log.info("connection grows old venue=%s age_s=%.0f; opening another beside it", self.venue.name,
                 (now - self.connection.opened_ns) / 1e9)

    def _raise_younger(self, now: int) -> int:
        connection, market = self._younger
        opened = connection.opened_ns
        try:
            frames = connection.recv()
        except Closed as error:
            self._lose_younger(error)
            return 0
        if not opened and connection.opened_ns:
            market.on_connect(connection.opened_ns)
        for frame, recv_ns in frames:
            market.on_frame(frame, recv_ns)
        if connection.opened_ns:
            self._serve(connection, market, now)
        if self._younger is not None and (frames or self._moved):
            self._moved = False
            if self.market.agrees(market):
                self._hand_over(connection, market, now)
        return len(frames)

    def _hand_over(self, connection: Connection, market: Market, now: int) -> None:
        self._say(Connect(connection.url, True))
        self.market.hand_over(market)
        self.connection.close()
        self.connection, self.venue, self._younger = connection, connection.venue, None
        self._younger_backoff.reset()
        self._add("connects", 1)
        log.info("handed over to the younger connection venue=%s", self.venue.name)

    def _lose_younger(self, error: Closed) -> None:
        """It has ended, or did not come to be: another is opened later, and the older goes on."""
        pause_s = _pause_after(error, self._younger_backoff)
        log.warning("the younger connection failed: %s; again in %.2f s", error, pause_s)
        self._forget_younger()
        self._younger_ns = self._clock.monotonic_ns() + int(pause_s * 1e9)

    def _forget_younger(self) -> None:
        if self._younger is not None:
            self._younger[0].close()
            self._requested = {asked for asked in self._requested if asked[0] is self.market}
            self._younger = None

    # ---- answers over HTTP

    def _talk(self, now: int) -> int:
        if now >= self._hold_ns:
            for market in (self.market, self._younger[1] if self._younger else None):
                if market is None or not market.wants_snapshot:
                    continue
                for symbol in sorted(market.wants_snapshot):
                    token = market, symbol, self._session
                    if token not in self._requested:
                        market.wants_snapshot.discard(symbol)
                        self._requested.add(token)
                        self._http.submit(self.venue.snapshot_request(symbol), token)
        if not self._requested and not self._locating:
            return 0
        replies = self._http.work()
        for reply in replies:
            self._take(reply)
        return len(replies)

    def _take(self, reply: Reply) -> None:
        if reply.untrusted:
            raise Untrusted(reply.error, where=self._settings.rest_url or self.venue.rest_url,
                            remedy="check market.rest_url, the clock and the system's certificates")
        if reply.status != 200:
            self._refused(reply)
            return
        if reply.token is None:
            self._locating = False
            if self.connection is None:
                self._url = self.venue.located(reply.body)
            return
        market, symbol, session = reply.token
        self._requested.discard(reply.token)
        if session != self._session:
            return
        if market is self.market:
            path = self.venue.snapshot_request(symbol).path
            self._tell(encode(Http(self.venue.symbols[symbol], path, reply.status, reply.body)), reply.done_ns)
            market.on_snapshot(symbol, reply.body, reply.done_ns)
        elif self._younger is not None and market is self._younger[1]:
            market.on_snapshot(symbol, reply.body, reply.done_ns)
            self._moved = True

    def _refused(self, reply: Reply) -> None:
        """No answer, or one that is none. A venue that says how long to wait is not asked before."""
        pause_s = _pause_of(reply.status, retry_after_s(reply.headers.get("retry-after", "")))
        self._hold_ns = max(self._hold_ns, reply.done_ns + int(pause_s * 1e9))
        self._add("snapshot_failures", 1)
        what = "where to connect" if reply.token is None else f"snapshot of {self.venue.symbols[reply.token[1]]}"
        log.warning("no %s: %s", what, reply.error or f"status {reply.status}: {reply.body[:200]!r}")
        if reply.token is None:
            self._locating = False
            self._hold_ns = max(self._hold_ns, reply.done_ns + int(self._backoff.failed() * 1e9))
            return
        market, symbol, session = reply.token
        self._requested.discard(reply.token)
        if session == self._session:
            market.on_snapshot_failed(symbol, reply.done_ns, pause_s)

    # ---- watchdogs

    def _turn(self, now: int) -> None:
        connection = self.connection
        if connection is None or not connection.opened_ns:
            return
        settings = self._settings
        if now - connection.frame_ns > settings.stale_s * 1e9:
            self._lose(Closed(f"no frame for {settings.stale_s:g} s", where=self._url))
            return
        if connection.is_dead(now):  # it has less patience where the venue sends something all the time
            self._lose(Closed(f"nothing heard for {self._silence_s:g} s", where=self._url))
            return
        self._backoff.good(connection.frame_ns)
        if settings.stale_book_s:
            for index in self.market.watch(now, int(settings.stale_book_s * 1e9)):
                self._say(Stale(self.venue.symbols[index]))
        if self._max_age_ns:
            if self._younger is None:
                if now >= max(connection.opened_ns + self._max_age_ns, self._younger_ns):
                    self._open_younger(now)
            elif 0 < self._younger[0].opened_ns < now - _RIPE_NS:
                self._lose_younger(Closed(f"it never had the same books in {_RIPE_NS / 1e9:g} s", where=self._url))


def _pause_after(error: Closed, backoff: Backoff) -> float:
    """Seconds before the next attempt: those of the backoff, or more where the venue asks for more."""
    pause_s = backoff.failed()
    return max(pause_s, _pause_of(error.status, error.retry_after_s)) if isinstance(error, Refused) else pause_s


def _pause_of(status: int, told_s: float) -> float:
    """The least pause after an answer with this status, in seconds; `told_s` is what the venue asks for, 0: nothing."""
    if status in _BANNED:
        return max(_BANNED_S, told_s)
    return told_s or (_LIMITED_S if status == 429 else 0.0)
