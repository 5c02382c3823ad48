"""ingest: frames of the venue become validated books and ticks.

    in    WebSocket   frames of the venue; snapshots over HTTP where the venue has them there
    out   books ring  one record per tick
    out   ticks       TickRef, one per symbol that moved and burst: a doorbell
    tap   ticks, frames (8 bytes of monotonic receive time, then the frame or the snapshot as it came)

What is decided about frames is decided in `common.market`; here are the socket, the timers and the requests.
It never waits for anyone downstream: a ref that nobody takes is counted, and the ring holds what it told of.
"""

import logging
import select
from typing import Any

import click

from common import market, venues
from common.backoff import Backoff
from common.clock import SystemClock
from common.config import Config, load
from common.events import Venue
from common.http import HttpClient, Reply
from common.links import FRAMES, Network
from common.market import Market
from common.ring import Books
from common.stage import Stage, exit_on_error, run
from common.telemetry import Telemetry
from common.websocket import Closed, Refused, State, WebSocket, retry_after_s
from common.wire import encode

COUNTERS = (
    *market.COUNTERS,
    "connects",  #: connections that opened
    "connect_failures",
    "disconnects",  #: of connections that were open
    "refs", "refs_dropped",
    "snapshot_failures",  #: requests that brought no snapshot
    "connected", "valid_symbols",  #: now
)
TIMERS = ("book",)  #: frame received to book updated

_HTTP_TIMEOUT_S = 5.0
_TURN_NS = 50_000_000
_TELL_NS = 1_000_000_000
_LOOPBACK_BACKOFF_S = 0.25  #: longest pause towards our own exchange, which is not disturbed by being asked

log = logging.getLogger("ingest")


class Ingest(Stage):
    """`outbox` takes refs (`send(bytes) -> bool`), `frames` raw frames (`send(bytes)`, only while `wanted`)."""

    name = "ingest"

    def __init__(self, config: Config, clock, telemetry: Telemetry, venue: Venue, books: Books, outbox,
                 frames=None) -> None:
        settings = config.market
        self._settings, self._clock, self._telemetry, self._venue = settings, clock, telemetry, venue
        self._books, self._outbox, self._frames = books, outbox, frames
        pause = settings.backoff_max_s if settings.live else min(settings.backoff_max_s, _LOOPBACK_BACKOFF_S)
        self.market = Market(venue, books, clock, backoff_min_s=settings.backoff_min_s, backoff_max_s=pause)
        self._backoff = Backoff(settings.backoff_min_s, pause)
        self._url = settings.ws_url.rstrip("/") + venue.path()
        self._socket: WebSocket | None = None
        self._open = False
        self._error = ""  # why there is no connection
        self._connect_ns = 0  # when to try next
        self._frame_ns = 0  # when the newest frame came, or the connection opened
        by_http = venue.snapshot_request(0) is not None
        self._http = HttpClient(settings.rest_url, _HTTP_TIMEOUT_S, clock) if by_http else None
        self._requested: set[int] = set()  # symbols whose snapshot is on its way
        self._hold_ns = 0  # no request before: the venue asked for a pause
        self._session = 0  # an answer to a request of an earlier connection is worthless
        self._base = {name: telemetry.get(name) for name in market.COUNTERS}
        self._turn_ns = self._tell_ns = 0
        self._logged = 0, 0
        self._poll = select.poll()
        self._waits_for: tuple[tuple[int, int], ...] = ()

    # ---- the stage

    def on_start(self) -> bool:
        market.warm_up()
        return True

    def do_work(self) -> int:
        handled = self._receive()
        self._send_refs()
        if self._ask_for_snapshots():
            self._send_refs()
        now = self._clock.monotonic_ns()
        if now >= self._turn_ns:
            self._turn(now)
        return handled

    def wait(self, timeout_ms: float) -> None:
        things = (self._socket, self._http if self._requested else None)
        waits_for = tuple((thing.fileno(), select.POLLIN | (select.POLLOUT if thing.wants_write else 0))
                          for thing in things if thing is not None and thing.fileno() >= 0)
        if waits_for != self._waits_for:
            self._poll = select.poll()
            for fd, events in waits_for:
                self._poll.register(fd, events)
            self._waits_for = waits_for
        self._poll.poll(timeout_ms)

    def on_close(self) -> None:
        """Downstream is told that no book is kept any more."""
        self._drop("stopped")
        self._count()
        if self._http is not None:
            self._http.close()
        self._books.close()

    def status(self) -> dict[str, Any]:
        """The connection and every symbol, for people."""
        now = self._clock.monotonic_ns()
        return {
            "venue": self._venue.name, "url": self._url, "connection": self._connection(), "error": self._error,
            "frame_age_ms": (now - self._frame_ns) // 1_000_000 if self._open else None,
            "symbols": {symbol.name: {"state": symbol.state.name.lower(), "seq": symbol.seq,
                                      "age_ms": (now - symbol.recv_ns) // 1_000_000 if symbol.recv_ns else None}
                        for symbol in self.market.symbols},
            "refused": [refused.error for refused in self.market.refused],
        }

    # ---- the connection

    def _receive(self) -> int:
        """Everything up to one read's worth of frames; returns how many."""
        socket = self._socket
        if socket is None:
            self._connect()
            return 0
        try:
            frames = socket.recv()
        except Closed as error:  # Untrusted is not among them: that is the end of this process
            self._lose(error)
            return 0
        if not self._open and socket.state is State.OPEN:
            self._opened(socket)
            if not self._open:  # it went while the subscriptions were sent
                return 0
        if not frames:
            return 0
        on_frame, tapped = self.market.on_frame, self._tapped
        for frame, recv_ns in frames:
            on_frame(frame, recv_ns)
            if tapped:
                self._tap(frame, recv_ns)
        self._frame_ns = frames[-1][1]
        return len(frames)

    @property
    def _tapped(self) -> bool:
        return self._frames is not None and self._frames.wanted

    def _tap(self, frame: bytes | bytearray, recv_ns: int) -> None:
        self._frames.send(recv_ns.to_bytes(8, "little") + frame)

    def _connect(self) -> None:
        if self._clock.monotonic_ns() < self._connect_ns:
            return
        self._socket = WebSocket(self._url, self._clock, max_frame=self._settings.max_frame_bytes)

    def _opened(self, socket: WebSocket) -> None:
        self._open, self._error, self._tell_ns = True, "", 0
        self._frame_ns = self._clock.monotonic_ns()
        self._telemetry.add("connects")
        log.info("connected venue=%s url=%s", self._venue.name, self._url)
        self._send(self._venue.subscriptions())
        self.market.on_connect(self._frame_ns)

    def _send(self, frames: list[bytes]) -> None:
        try:
            for frame in frames:
                self._socket.send(frame)
        except Closed as error:
            self._lose(error)

    def _lose(self, error: Closed) -> None:
        """The connection has ended or did not come to be: every book is invalid, and a new one is made later."""
        pause_s = self._backoff.failed()
        if isinstance(error, Refused):
            pause_s = max(pause_s, error.retry_after_s)
        self._telemetry.add("disconnects" if self._open else "connect_failures")
        if str(error) != self._error:  # and not for every attempt that fails in the same way
            log.warning("no connection: %s; again in %.2f s", error, pause_s)
        self._drop(str(error))
        self._connect_ns = self._clock.monotonic_ns() + int(pause_s * 1e9)

    def _drop(self, why: str) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._open, self._error = None, False, why
        self._session += 1
        self._tell_ns = 0
        self.market.on_disconnect(self._clock.monotonic_ns())
        self._send_refs()

    def _connection(self) -> str:
        return self._socket.state.name.lower() if self._socket is not None else "waiting"

    # ---- snapshots

    def _ask_for_snapshots(self) -> int:
        """Send what the market wants to send, and take what answers have come; returns how many."""
        self.market.work()
        if self.market.outbox and self._open:
            frames, self.market.outbox = self.market.outbox, []
            self._send(frames)
        if self._http is None:
            return 0
        if self.market.wants_snapshot and self._clock.monotonic_ns() >= self._hold_ns:
            due = self.market.wants_snapshot - self._requested
            self.market.wants_snapshot -= due
            self._requested |= due
            for symbol in sorted(due):
                self._http.submit(self._venue.snapshot_request(symbol), (symbol, self._session))
        if not self._requested:
            return 0
        replies = self._http.work()
        for reply in replies:
            self._take(reply)
        return len(replies)

    def _take(self, reply: Reply) -> None:
        symbol, session = reply.token
        self._requested.discard(symbol)
        if reply.status != 200:
            pause_s = retry_after_s(reply.headers.get("retry-after", ""))
            self._hold_ns = max(self._hold_ns, reply.done_ns + int(pause_s * 1e9))
            self._telemetry.add("snapshot_failures")
            log.warning("no snapshot of %s: %s", self._venue.symbols[symbol],
                        reply.error or f"status {reply.status}: {reply.body[:200]!r}")
            if session == self._session:
                self.market.on_snapshot_failed(symbol, reply.done_ns, pause_s)
        elif session == self._session:
            self.market.on_snapshot(symbol, reply.body, reply.done_ns)
            if self._tapped:
                self._tap(reply.body, reply.done_ns)

    # ---- what is told

    def _send_refs(self) -> None:
        refs = self.market.take_refs()
        if not refs:
            return
        telemetry = self._telemetry
        if not self._outbox.send(encode(refs)):
            telemetry.add("refs_dropped", len(refs))
        telemetry.add("refs", len(refs))
        for ref in refs:
            telemetry.observe("book", ref.book_ns - ref.recv_ns)

    def _turn(self, now: int) -> None:
        """A few times a second: the watchdog, the counters, the log."""
        self._turn_ns = now + _TURN_NS
        if self._open:
            if now - self._frame_ns > self._settings.stale_s * 1e9:
                self._lose(Closed(f"no frame for {self._settings.stale_s:g} s", where=self._url))
            else:
                self._backoff.good(self._frame_ns)
        self._count()
        if now >= self._tell_ns:
            self._tell_ns = now + _TELL_NS
            self._tell()
            self._log()

    def _count(self) -> None:
        for name, base in self._base.items():
            self._telemetry.set(name, base + getattr(self.market.counts, name))
        self._telemetry.set("connected", self._open)
        self._telemetry.set("valid_symbols", self.market.valid_symbols)

    def _tell(self) -> None:
        invalid = [symbol.name for symbol in self.market.symbols if symbol.state is not market.State.VALID]
        waiting = f"the venue at {self._url}: {self._error}" if not self._open else (
            f"books of {', '.join(invalid[:8])}{' and more' if len(invalid) > 8 else ''}" if invalid else "")
        self._telemetry.tell({**self._telemetry.told(), "waiting_for": waiting, "venue": self._venue.name,
                              "connection": self._connection()})

    def _log(self) -> None:
        """What came since the last time that should not have come: how much, and the newest."""
        counts = self.market.counts
        errors, refused = counts.venue_errors - self._logged[0], counts.malformed - self._logged[1]
        self._logged = counts.venue_errors, counts.malformed
        if errors:
            log.warning("%d error messages from the venue, the last: %s", errors, self.market.notices[-1].text)
        if refused:
            log.warning("%d frames refused, the last: %s", refused, self.market.refused[-1].error)


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
def ingest(path: str | None) -> None:
    """Keep the order books of the venue, and tell of every tick.

    \b
    Receives  frames of the venue over WebSocket (market.ws_url), snapshots over HTTP (market.rest_url).
    Sends     ticks (TickRef, to feature).
    Memory    writes the books ring.
    Taps      alpha tap ticks, alpha tap frames
    Starts in any order: it waits for the venue, and for nobody else.
    """
    with exit_on_error():
        config = load(path)
        venue = venues.create(config.market.venue, config.market.symbols)
        run("ingest", config, lambda network, telemetry: _build(config, venue, network, telemetry), COUNTERS, TIMERS)


def _build(config: Config, venue: Venue, network: Network, telemetry: Telemetry) -> Ingest:
    ticks, frames = (network.tap(link, "ingest") if config.tap.enabled else None for link in ("ticks", FRAMES))
    books = Books.create(config.instance.name, venue.symbols, config.ring.ticks)
    return Ingest(config, SystemClock(), telemetry, venue, books, network.push("ticks", ticks), frames)
