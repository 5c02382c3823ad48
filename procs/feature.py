"""feature: ticks become rows; rows are handed to idle workers.

    in    ticks       TickRef, one doorbell per symbol and burst; the ticks themselves are read in the books ring
    in    credits     Credit, from each worker that is idle
    out   work-K      Work, over the own socket of worker K
    out   rows ring   one row per tick, written twice so that each window is one contiguous matrix
    tap   work

A doorbell may be lost, since the ring holds what it announced: the next one, or the idle turn, catches up.
"""

import click

from common import layout
from common.clock import SystemClock
from common.config import Config, load
from common.dispatch import Assignment, Dispatcher
from common.feature_rows import Features
from common.features import COLUMNS, SCHEMA_HASH
from common.links import Network, Poller, Push, Tap
from common.ring import Books, Rows
from common.stage import Stage, exit_on_error, run
from common.telemetry import Telemetry
from common.wire import Credit, TickRef, Work, decode, encode

COUNTERS = ("refs", "rows", "warm_rows", "offered", "dispatched", "skipped", "waiting", "under_lease", "done",
            "lost", "invalid", "workers_seen", "leases_expired", "send_refused", "stale_refs", "lapped")
TIMERS = ("feature",)


class Feature(Stage):
    """`books_source` and `rows_sink` make the rings (attach and create, or hand out private ones); `worker_link`
    makes the sending end of a worker's own link."""

    name = "feature"

    def __init__(self, config: Config, clock, telemetry: Telemetry, ticks, credits, worker_link,
                 books_source=None, rows_sink=None) -> None:
        self._config, self._clock, self._telemetry = config, clock, telemetry
        self._ticks, self._credits, self._worker_link = ticks, credits, worker_link
        self._books_source = books_source or (lambda: Books.attach(config.instance.name))
        self._rows_sink = rows_sink or self._shared_rows
        self.books: Books | None = None
        self.rows: Rows | None = None
        self._window = 1
        self._links: dict[int, Push] = {}
        settings = config.feature
        self.dispatcher = Dispatcher(settings.dispatch == "every", int(settings.lease_ms * 1e6), settings.max_batch)
        self._base = {name: telemetry.get(name) for name in ("offered", "dispatched", "skipped", "done", "lost")}
        self._next_turn = 0
        self._poller: Poller | None = None

    def on_start(self) -> bool:
        try:
            self.books = self._books_source()
        except FileNotFoundError:
            self._telemetry.tell({"waiting_for": "the books ring, which ingest makes"})
            return False
        self.rows = self._rows_sink(self.books)
        self._features = Features(self.books, self.rows)
        self._features.warm_up()
        self._done = [int(head) for head in self.rows.heads]
        for symbol, head in enumerate(self._done):
            if head:
                self._features.rebuild(symbol, head)
        self._telemetry.tell({"waiting_for": "", "symbols": list(self.books.symbols),
                              "dispatch": self._config.feature.dispatch, "schema": SCHEMA_HASH[:12]})
        return True

    def do_work(self) -> int:
        targets: dict[int, int] = {}
        handled = 0
        while self._ticks.pending():
            for ref in decode(self._ticks.recv(), TickRef):
                handled += 1
                if ref.epoch == self.books.tag:
                    targets[ref.symbol] = ref.seq
                else:
                    self._telemetry.add("stale_refs")
        for symbol, seq in targets.items():
            self._advance(symbol, seq)
        self._telemetry.add("refs", handled)
        while self._credits.pending():
            for credit in decode(self._credits.recv(), Credit):
                handled += 1
                self._take(credit)
        now = self._clock.monotonic_ns()
        if now >= self._next_turn:
            self._turn(now)
        while (assignment := self.dispatcher.next(now)) is not None:
            self._send(assignment, now)
        return handled

    def wait(self, timeout_ms: float) -> None:
        if self._poller is None:
            self._poller = Poller()
            self._poller.add(self._ticks)
            self._poller.add(self._credits)
        # With rows waiting for a worker that may have died, look again when its lease can have run out.
        self._poller.wait(min(timeout_ms, 10.0) if self.dispatcher.under_lease else timeout_ms)

    def on_close(self) -> None:
        self.count()
        for link in self._links.values():
            link.close()
        if self.rows is not None:
            self.rows.close()

    def _advance(self, symbol: int, seq: int) -> None:
        """Rows for all ticks of `symbol` up to `seq`, and the offer of those that are warm."""
        done = self._done[symbol]
        if seq <= done:
            return
        start = self._clock.monotonic_ns()
        self._features.advance(symbol, seq, start)
        head = self._done[symbol] = int(self.rows.heads[symbol])
        if head == done:
            return
        telemetry = self._telemetry
        telemetry.observe("feature", self._clock.monotonic_ns() - start)
        telemetry.add("rows", head - done)
        run_length = int(self.rows.meta[symbol][head & (self.rows.capacity - 1), layout.ROW_RUN])
        warm_first = head - (run_length - self._window)
        if run_length >= self._window:
            first = max(done + 1, warm_first)
            telemetry.add("warm_rows", head - first + 1)
            self.dispatcher.offer(symbol, first, head)
            if self.dispatcher.every:
                # What the writer may overwrite before a worker has read it is not offered any more.
                self.dispatcher.withdraw(symbol, head - self.rows.capacity * 3 // 4 + self._window)
        else:
            self.dispatcher.withdraw(symbol, head + 1)

    def _take(self, credit: Credit) -> None:
        if self.dispatcher.credit(credit.worker, credit.incarnation, credit.lease):
            self._telemetry.add("workers_seen")
            self._window = credit.window
            # A new incarnation reads a new pipe: nothing that was meant for the old one may reach it.
            if credit.worker in self._links:
                self._links.pop(credit.worker).close()
        self._telemetry.add("invalid", credit.invalid)

    def _send(self, assignment: Assignment, now: int) -> None:
        link = self._links.get(assignment.worker)
        if link is None:
            link = self._links[assignment.worker] = self._worker_link(assignment.worker)
        tag = self.rows.tag
        message = encode([Work(item.symbol, tag, assignment.lease, item.first, item.last, now)
                          for item in assignment.items])
        if not link.send(message):
            self._telemetry.add("send_refused")
            self.dispatcher.refuse(assignment.worker)

    def _turn(self, now: int) -> None:
        """A few hundred times a second: expired leases, lost doorbells, a stream that began anew."""
        self._next_turn = now + 5_000_000
        for _ in self.dispatcher.expire(now):
            self._telemetry.add("leases_expired")
        if self.books.retired:
            self._begin_anew()
        for symbol, head in enumerate(self.books.heads.tolist()):
            if head > self._done[symbol]:
                self._advance(symbol, head)
        self.count()

    def _begin_anew(self) -> None:
        """Ingest has replaced the books ring: rows start again at 1 in a new block."""
        try:
            books = self._books_source()
        except FileNotFoundError:
            return
        self.books = books
        self.rows = self._rows_sink(books)
        self._features = Features(books, self.rows)
        self._done = [0] * len(books.symbols)
        self.dispatcher.forget()

    def count(self) -> None:
        """Bring the telemetry up to date with the dispatcher."""
        dispatcher, telemetry = self.dispatcher, self._telemetry
        for name, base in self._base.items():
            telemetry.set(name, base + getattr(dispatcher, name))
        telemetry.set("waiting", dispatcher.waiting)
        telemetry.set("under_lease", dispatcher.under_lease)

    def _shared_rows(self, books: Books) -> Rows:
        return Rows.create(self._config.instance.name, books.symbols, COLUMNS, self._config.ring.rows,
                           SCHEMA_HASH, books.epoch)


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
def feature(path: str | None) -> None:
    """Turn ticks into feature rows and hand the newest to idle workers.

    \b
    Receives  ticks (TickRef, from ingest) and credits (Credit, from workers); binds both.
    Sends     work-K (Work, to worker K).
    Memory    reads the books ring, writes the rows ring.
    Tap       alpha tap work
    Starts in any order: it waits for the books ring and for workers.
    """
    with exit_on_error():
        config = load(path)
        run("feature", config, lambda network, telemetry: _build(config, network, telemetry), COUNTERS, TIMERS)


def _build(config: Config, network: Network, telemetry: Telemetry) -> Feature:
    tap: Tap | None = network.tap("work", "feature") if config.tap.enabled else None
    return Feature(config, SystemClock(), telemetry, network.pull("ticks"), network.pull("credits"),
                   lambda worker: network.push(f"work-{worker}", tap))
