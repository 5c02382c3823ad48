"""ingest: frames of the venue become validated books and ticks.

    in    WebSocket   frames of the venue; snapshots over HTTP where the venue has them there
    out   books ring  one record per tick
    out   ticks       TickRef, one per symbol that moved and burst: a doorbell
    tap   ticks, frames (8 bytes of monotonic receive time, then a line of a recording: see `common.captures`)

What frames mean is decided in `common.market`, what becomes of a connection in `common.feed`; here several feeds share
one loop, one ring and one doorbell. It never waits for anyone downstream: a ref that nobody takes is counted, and the
ring holds what it told of.
"""

import logging
import select
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from common import feed, market, venues
from common.capture_lines import text
from common.clock import SystemClock
from common.config import Config, load
from common.config import Market as Settings
from common.errors import ConfigError
from common.events import Venue
from common.feed import Feed
from common.links import FRAMES, Network
from common.ring import Books
from common.stage import Stage, exit_on_error, run
from common.telemetry import Telemetry
from common.wire import encode

COUNTERS = (
    *market.COUNTERS, *feed.COUNTERS,
    "refs", "refs_dropped",
    "connected", "valid_symbols",  #: now
)
TIMERS = ("book", "ref")  #: frame received to book updated, and to its ref sent

_TURN_NS = 50_000_000
_TELL_NS = 1_000_000_000

log = logging.getLogger("ingest")


class Planned(NamedTuple):
    """A feed that is to be kept, and where its symbols begin in the books ring."""

    name: str
    settings: Settings
    venue: Venue
    first: int


class Ingest(Stage):
    """`outbox` takes refs (`send(bytes) -> bool`); `frames` of each feed takes what it hears (`send(bytes)`, only
    while `wanted`). `books_source` makes the ring, or attaches that of another ingest process: then this one writes
    the symbols of its own feeds and nothing else."""

    name = "ingest"

    def __init__(self, plan: list[Planned], clock, telemetry: Telemetry, books_source: Callable[[], Books], outbox,
                 frames=(), owner: bool = True) -> None:
        self._plan, self._clock, self._telemetry, self._outbox = plan, clock, telemetry, outbox
        self._books_source, self._owner = books_source, owner
        self._taps = [*frames, *[None] * len(plan)][:len(plan)]
        self._tellers = [self._teller(number) for number in range(len(plan))]
        self._mirrors = [self._mirror(tell) for tell in self._tellers]
        self._base = {name: telemetry.get(name) for name in market.COUNTERS}
        self._turn_ns = self._tell_ns = 0
        self._stood: list[tuple[bool, str]] = []
        self._logged: dict[str, tuple[int, int]] = {}
        self._poll = select.poll()
        self._waits_for: tuple[tuple[int, int], ...] = ()
        self.feeds: list[Feed] = []

    # ---- the stage

    def on_start(self) -> bool:
        market.warm_up()
        try:
            books = self._books_source()
        except FileNotFoundError:
            self._telemetry.tell({"waiting_for": "the books ring, which the first ingest makes"})
            return False
        self._begin(books)
        return True

    def _begin(self, books: Books) -> None:
        self.books = books
        self._told_state = [0] * len(self._plan)  # listeners that know where the books stood when they came
        self.feeds = [Feed(one.name, one.settings, one.venue, books, one.first, self._clock, tell, self._telemetry.add)
                      for one, tell in zip(self._plan, self._tellers)]

    def do_work(self) -> int:
        handled = 0
        for number, one in enumerate(self.feeds):
            handled += one.receive(self._tap_of(number))
        self._send_refs()
        now = self._clock.monotonic_ns()
        answers = 0
        for one in self.feeds:
            answers += one.work(now)
        self._send_refs()
        if now >= self._turn_ns:
            self._turn(now)
        return handled + answers

    def wait(self, timeout_ms: float) -> None:
        waits_for = tuple((thing.fileno(), select.POLLIN | (select.POLLOUT if thing.wants_write else 0))
                          for one in self.feeds for thing in one.waits_for() if thing.fileno() >= 0)
        if waits_for != self._waits_for:
            self._poll = select.poll()
            for fd, events in waits_for:
                self._poll.register(fd, events)
            self._waits_for = waits_for
        self._poll.poll(timeout_ms)

    def on_close(self) -> None:
        """Downstream is told that no book is kept any more."""
        for one in self.feeds:
            one.close()
        self._send_refs()
        self._count()
        if self._owner and self.feeds:
            self.books.close()

    def status(self) -> list[dict[str, Any]]:
        """Each feed with its connection and symbols, for people."""
        now = self._clock.monotonic_ns()
        return [one.status(now) for one in self.feeds]

    # ---- what recorders hear

    def _tap_of(self, number: int):
        """Where the frames of a feed go, or None while nobody listens. Whoever begins to listen is told first what
        is heard and where the books stand."""
        tap = self._taps[number]
        if tap is None or not tap.wanted:
            return None
        if tap.joined != self._told_state[number]:
            self._told_state[number] = tap.joined
            for line in self.feeds[number].opening():
                self._tellers[number](line, self._clock.monotonic_ns())
        return self._mirrors[number]

    @staticmethod
    def _mirror(tell):
        """What a feed calls with each frame."""
        return lambda frame, recv_ns: tell(text(frame), recv_ns)

    def _teller(self, number: int):
        def tell(text: bytes | bytearray, recv_ns: int) -> None:
            tap = self._taps[number]
            if tap is not None and tap.wanted:
                tap.send(recv_ns.to_bytes(8, "little") + text)

        return tell

    # ---- what is told

    def _send_refs(self) -> None:
        refs = []
        for one in self.feeds:
            refs += one.market.take_refs()
        if not refs:
            return
        telemetry = self._telemetry
        if not self._outbox.send(encode(refs)):
            telemetry.add("refs_dropped", len(refs))
        sent = self._clock.monotonic_ns()
        telemetry.add("refs", len(refs))
        for ref in refs:
            telemetry.observe("book", ref.book_ns - ref.recv_ns)
            telemetry.observe("ref", sent - ref.recv_ns)

    def _turn(self, now: int) -> None:
        """A few times a second: the counters, the log, a ring that began anew."""
        self._turn_ns = now + _TURN_NS
        if not self._owner and self.books.retired:
            self._begin_anew()
        self._count()
        stands = [(one.open, one.error) for one in self.feeds]
        if now >= self._tell_ns or stands != self._stood:
            self._stood = stands
            self._tell_ns = now + _TELL_NS
            self._tell()
            for one in self.feeds:
                self._log(one)

    def _begin_anew(self) -> None:
        """The process that made the ring has replaced it: begin again in the new one."""
        try:
            books = self._books_source()
        except FileNotFoundError:
            return
        self._count()
        self._base = {name: self._telemetry.get(name) for name in market.COUNTERS}
        for one in self.feeds:
            one.close("the books ring was replaced")
        self._begin(books)

    def _count(self) -> None:
        for name, base in self._base.items():
            self._telemetry.set(name, base + sum(getattr(one.market.counts, name) for one in self.feeds))
        self._telemetry.set("connected", all(one.open for one in self.feeds))
        self._telemetry.set("valid_symbols", sum(one.market.valid_symbols for one in self.feeds))

    def _tell(self) -> None:
        waiting = []
        for one in self.feeds:
            invalid = [symbol.name for symbol in one.market.symbols if symbol.state is not market.State.VALID]
            if not one.open:
                waiting.append(f"the venue at {one.url}: {one.error}")
            elif invalid:
                waiting.append(f"books of {', '.join(invalid[:8])}{' and more' if len(invalid) > 8 else ''}")
        self._telemetry.tell({**self._telemetry.told(), "waiting_for": "; ".join(waiting),
                              "venue": ", ".join(dict.fromkeys(one.venue.name for one in self.feeds)),
                              "connection": ", ".join(one.state for one in self.feeds)})

    def _log(self, one: Feed) -> None:
        """What came since the last time that should not have come: how much, and the newest."""
        counts = one.market.counts
        before = self._logged.get(one.name, (0, 0))
        errors, refused = counts.venue_errors - before[0], counts.malformed - before[1]
        self._logged[one.name] = counts.venue_errors, counts.malformed
        if errors:
            log.warning("%d error messages from the venue, the last: %s", errors, one.market.notices[-1].text)
        if refused:
            log.warning("%d frames refused, the last: %s", refused, one.market.refused[-1].error)


def plan(config: Config, process: int = 0) -> list[Planned]:
    """The feeds that an ingest process keeps: one for each of its markets, more where a venue limits the symbols of
    one connection. Raises ConfigError on an unknown venue."""
    feeds, first = [], 0
    for name, settings in (("", config.market), *config.feeds.items()):
        size = venues.create(settings.venue, settings.symbols).max_symbols or len(settings.symbols)
        for start in range(0, len(settings.symbols), size):
            part = settings.symbols[start:start + size]
            if settings.process == process:
                number = f"/{start // size + 1}" if start else ""
                feeds.append(Planned(name + number, settings, venues.create(settings.venue, part), first))
            first += len(part)
    if not feeds:
        raise ConfigError("this ingest process has nothing to keep", where=f"process={process}",
                          remedy=f"set feeds.NAME.process; there are {config.ingests} processes")
    return feeds


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--process", type=click.IntRange(0, 63), default=0, show_default=True,
              help="Number of this process: it keeps the feeds that name it.")
def ingest(path: str | None, process: int) -> None:
    """Keep the order books of the venues, and tell of every tick.

    \b
    Receives  frames of the venue over WebSocket (market.ws_url), snapshots over HTTP (market.rest_url).
    Sends     ticks (TickRef, to feature).
    Memory    writes the books ring.
    Taps      alpha tap ticks, alpha tap frames
    Starts in any order: it waits for the venue; process 1 and above, also for the ring that process 0 makes.

    \b
    Examples
      alpha ingest
      alpha ingest --process 1 --config venues.toml

    Exit codes: 0 stopped, 2 the configuration is wrong, 4 the venue's certificate is not to be trusted, 5 no memory,
    6 it runs already.
    """
    with exit_on_error():
        config = load(path)
        feeds = plan(config, process)
        name = f"ingest-{process}" if process else "ingest"
        run(name, config, lambda network, telemetry: _build(config, feeds, process, network, telemetry), COUNTERS,
            TIMERS, core="ingest")


def _build(config: Config, feeds: list[Planned], process: int, network: Network, telemetry: Telemetry) -> Ingest:
    ticks, frames = None, []
    who = f"ingest-{process}" if process else "ingest"
    if config.tap.enabled:
        ticks = network.tap("ticks", who)
        frames = [network.tap(FRAMES, feed.name.replace("/", "-") or who) for feed in feeds]
    name = config.instance.name
    source = (lambda: Books.attach(name)) if process else (
        lambda: Books.create(name, config.symbols, config.ring.ticks))
    return Ingest(feeds, SystemClock(), telemetry, source, network.push("ticks", ticks), frames, not process)
