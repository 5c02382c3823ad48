"""feature: ticks become rows; rows are handed to idle workers.

    in    ticks       TickRef, one doorbell per symbol and burst; the ticks themselves are read in the books ring
    in    credits     Credit, from each worker that is idle
    out   work-K      Work, over the own socket of worker K
    out   rows ring   one row per tick, written twice so that each window is one contiguous matrix
    tap   work

A doorbell may be lost, since the ring holds what it announced: the next one, or the idle turn, catches up.

A model that is deployed may take columns that the rows have not. Then rows with those columns too are computed aside,
from the ticks that are still there on, until they are as warm as the ones in use; these make way for them in one go,
and workers attach the new ring when they look for a row that the old one has not.

The state of the features is saved ten times a second, so that what remembers more than the books ring holds survives
`kill -9` (`common.features.state`).
"""

import logging

import click

from common import deployment
from common.clock import SystemClock
from common.config import Config, load
from common.dispatch import Assignment, Dispatcher
from common.errors import AlphaError, ResourceError
from common.features.choice import FeatureSet
from common.features.rows import Features
from common.features.state import Checkpoints
from common.features.table import TABLE_HASH
from common.layout import ROW_RUN
from common.links import Network, Push, Tap
from common.manifest import features_wanted, read
from common.ring import Books, Rows
from common.stage import Stage, exit_on_error, run
from common.telemetry import Telemetry
from common.wire import Credit, TickRef, Work, decode, encode, kind_of

COUNTED = ("refs", "rows", "warm_rows", "invalid")  #: counted by the stage, told at each turn
TOTALS = ("offered", "dispatched", "skipped", "done", "lost")  #: counted by the dispatcher
COUNTERS = (*COUNTED, *TOTALS, "waiting", "under_lease", "workers_seen", "leases_expired", "send_refused",
            "stale_refs", "malformed", "lapped", "rings")
TIMERS = ("feature",)

_PATIENCE_MS = 10.0
_LOOK_TURNS = 20  #: turns between two looks at what is deployed
_SAVE_TURNS = 20  #: turns in which the state of every symbol is saved once
_BEHIND = 512  #: ticks of a symbol that are caught up in one turn, where rows are computed aside
_log = logging.getLogger("feature")


class _Aside:
    """Rows of other columns, computed beside those in use until they can take their place."""

    def __init__(self, books: Books, rows: Rows, columns: FeatureSet, window: int) -> None:
        self.columns = columns
        self._window = window  #: the longest that a model looks back
        self.rows = Rows.private(books.symbols, columns.labels, rows.capacity, books.epoch)
        self.features = Features(books, self.rows, columns)
        for symbol, head in enumerate(rows.heads.tolist()):
            self.features.rebuild(symbol, max(head - books.capacity + _BEHIND, 0))

    def advance(self, heads: list[int], now: int) -> None:
        for symbol, head in enumerate(heads):
            last = self.features.last(symbol)
            if last < head:
                self.features.advance(symbol, min(head, last + _BEHIND), now)

    def as_warm_as(self, rows: Rows) -> bool:
        """Whether every symbol has come as far as in `rows`, with as long a run, if a model looks back so far."""
        for symbol, head in enumerate(rows.heads.tolist()):
            if self.features.last(symbol) < head:
                return False
            slot = head & (rows.capacity - 1)
            if self.rows.meta[symbol][slot, ROW_RUN] < min(rows.meta[symbol][slot, ROW_RUN], self._window):
                return False
        return True


class Feature(Stage):
    """`inbox` receives both ticks and credits. `books_source` and `rows_sink` make the rings (attach and create, or
    hand out private ones); `worker_link` makes the sending end of a worker's own link. `live`: the state is saved, and
    the rows are given the columns of models that are deployed."""

    name = "feature"

    def __init__(self, config: Config, clock, telemetry: Telemetry, inbox, worker_link, features: FeatureSet,
                 books_source=None, rows_sink=None, live: bool = False) -> None:
        self._config, self._clock, self._telemetry = config, clock, telemetry
        self._inbox, self._worker_link, self._columns = inbox, worker_link, features
        self._books_source = books_source or (lambda: Books.attach(config.instance.name))
        self._rows_sink = rows_sink or self._shared_rows
        self.books: Books | None = None
        self.rows: Rows | None = None
        self._window = 1
        self._links: dict[int, Push] = {}
        settings = config.feature
        every = settings.dispatch == "every"
        self.dispatcher = Dispatcher(every, int(settings.lease_ms * 1e6), settings.max_batch or (32 if every else 1))
        self._base = {name: telemetry.get(name) for name in COUNTED + TOTALS}  # of the process before this one
        self._refs = self._rows = self._warm_rows = self._invalid = 0
        self._next_turn = self._started_ns = 0
        self._watch = deployment.Watch(config.state_dir) if live else None
        self._checkpoints: Checkpoints | None = None
        self._aside: _Aside | None = None
        self._turns = self._saved = self._deployed = 0
        self._said: dict[str, object] = {}

    def on_start(self) -> bool:
        try:
            books = self._books_source()
        except FileNotFoundError:
            self._telemetry.tell({"waiting_for": "the books ring, which ingest makes"})
            return False
        self._telemetry.tell({"waiting_for": "its kernels, compiled at the first start"})
        self._begin(books)
        for symbol, head in enumerate(self._done):
            if head:
                self._restore(symbol, head)
        self._telemetry.tell({"waiting_for": "", "symbols": list(books.symbols),
                              "dispatch": self._config.feature.dispatch, "columns": len(self._columns)})
        if self._watch is not None:
            self._follow()
        return True

    def do_work(self) -> int:
        handled = 0
        while (message := self._inbox.take()) is not None:
            handled += 1
            kind = kind_of(message)
            if kind is TickRef:
                for ref in decode(message, TickRef):
                    self._hear(ref)
            elif kind is Credit:
                for credit in decode(message, Credit):
                    self._take(credit)
            else:
                self._telemetry.add("malformed")
        now = self._clock.monotonic_ns()
        if now >= self._next_turn:
            self._turn(now)
        while (assignment := self.dispatcher.next(now)) is not None:
            self._send(assignment, now)
        if self._started_ns:  # counted once the work is on its way
            self._telemetry.observe("feature", now - self._started_ns)
            self._started_ns = 0
        return handled

    def wait(self, timeout_ms: float) -> None:
        # Rows may be in the hands of a worker that died: look again when its lease can have run out. Always the
        # same timeout, for to set another costs a microsecond and the lease comes and goes with each tick.
        self._inbox.wait(_PATIENCE_MS)

    def on_close(self) -> None:
        if self.rows is not None:
            self.count()
            self._let_go()
        for link in self._links.values():
            link.close()

    def _begin(self, books: Books) -> None:
        """Follow a stream of ticks from where its rows ring stands."""
        self.books, self.rows = books, self._rows_sink(books)
        self._features = Features(books, self.rows, self._columns)
        if self._watch is not None:
            self._checkpoints = Checkpoints.create(self._config.instance.name, books.symbols, self._columns,
                                                   books.epoch)
        self._tag = books.tag
        self._ticks_heads, self._rows_heads = memoryview(books.heads), memoryview(self.rows.heads)
        self._meta = [memoryview(meta) for meta in self.rows.meta]
        self._done = self.rows.heads.tolist()
        self._capacity = self.rows.capacity
        self._lost = 0

    def _hear(self, ref: TickRef) -> None:
        """A doorbell. What it announces is the least there is: the ring's own head is the truth, so of several
        doorbells in a row the first does the work and the others find it done."""
        self._refs += 1
        if ref.epoch != self._tag:
            self._telemetry.add("stale_refs")
        elif self._ticks_heads[ref.symbol] > self._done[ref.symbol]:
            self._advance(ref.symbol)

    def _advance(self, symbol: int) -> None:
        """Rows for all ticks of `symbol`, and the offer of those that are warm."""
        start = self._clock.monotonic_ns()
        rows = self._features.advance(symbol, self._ticks_heads[symbol], start)
        if not rows:
            return
        self._rows += rows
        done, head = self._done[symbol], self._rows_heads[symbol]
        self._done[symbol] = head
        dispatcher, window, capacity = self.dispatcher, self._window, self._capacity
        warm = self._meta[symbol][head & (capacity - 1), ROW_RUN] - window + 1  # rows with a whole warm window behind
        if warm > 0:
            first = max(done, head - warm) + 1
            self._warm_rows += head - first + 1
            dispatcher.offer(symbol, first, head)
            if dispatcher.every:
                # What the writer may overwrite before a worker has read it is not offered any more.
                dispatcher.withdraw(symbol, head - capacity * 3 // 4 + window)
        else:
            dispatcher.withdraw(symbol, head + 1)
        self._started_ns = self._started_ns or start

    def _take(self, credit: Credit) -> None:
        if self.dispatcher.credit(credit.worker, credit.incarnation, credit.lease):
            self._telemetry.add("workers_seen")
            # A new incarnation reads a new pipe: nothing that was meant for the old one may reach it.
            if credit.worker in self._links:
                self._links.pop(credit.worker).close()
        self._window = credit.window  # changes with the model
        self._invalid += credit.invalid

    def _send(self, assignment: Assignment, now: int) -> None:
        link = self._links.get(assignment.worker)
        if link is None:
            link = self._links[assignment.worker] = self._worker_link(assignment.worker)
        lease, tag = assignment.lease, self._tag
        if not link.send(encode([Work(symbol, tag, lease, first, last, now)
                                 for symbol, first, last in assignment.items])):
            self._telemetry.add("send_refused")
            self.dispatcher.refuse(assignment.worker)

    def _turn(self, now: int) -> None:
        """Two hundred times a second: expired leases, lost doorbells, a stream that began anew."""
        self._next_turn = now + 5_000_000
        self._turns += 1
        if self._watch is not None:
            self._live_turn(now)
        for _ in self.dispatcher.expire(now):
            self._telemetry.add("leases_expired")
        if self.books.retired:
            self._begin_anew()
        for symbol, head in enumerate(self._ticks_heads.tolist()):
            if head > self._done[symbol]:
                self._advance(symbol)
        self.count()

    def _begin_anew(self) -> None:
        """Ingest has replaced the books ring: rows start again at 1 in a new block."""
        try:
            books = self._books_source()
        except FileNotFoundError:
            return
        self.dispatcher.forget()
        self._let_go()
        self._begin(books)
        self._aside = None
        if self._watch is not None:
            self._follow()

    def _restore(self, symbol: int, head: int) -> None:
        """Go on where the process before this one stood, behind row `head`."""
        state = self._checkpoints.load(symbol) if self._checkpoints is not None else None
        if state is None:
            self._features.rebuild(symbol, head)
        else:
            self._features.resume(symbol, state, head)

    def _let_go(self) -> None:
        """Of the blocks: their locks would stand in the way of new ones."""
        self.rows.close()
        if self._checkpoints is not None:
            self._checkpoints.close()

    def _live_turn(self, now: int) -> None:
        symbols = len(self._done)
        if self._turns % max(1, _SAVE_TURNS // symbols) == 0:
            self._saved = (self._saved + 1) % symbols
            self._checkpoints.save(self._saved, self._features)
        if self._turns % _LOOK_TURNS == 0 and self._watch.changed():
            self._follow()
        if self._aside is not None:
            self._aside.advance(self._done, now)
            if self._aside.as_warm_as(self.rows):
                self._take_over(self._aside)

    def _follow(self) -> None:
        """Something is deployed: see that the rows carry what it takes. What they carry already stays."""
        self._aside = None
        try:
            told = deployment.read(self._config.state_dir)
            if told is None or told.configured != deployment.configured(self._config):
                return
            self._deployed = told.number
            # First what is to trade, its columns side by side, so that its windows need no copy.
            paths = [*(told.next.paths if told.next else ()), *told.live.paths]
            wanted = features_wanted(self._config, paths)
            if set(wanted.labels) <= set(self.rows.columns):
                self._say("carried")
                return
            self._aside = _Aside(self.books, self.rows, wanted, max(read(path).window for path in paths))
            self._say("warming", f"new columns gather a past of {wanted.warm_up} ticks, {wanted.warm_up_ns / 1e9:g} s")
        except AlphaError as error:
            _log.error("the rows are not given the columns of a deployed model: %s", error)
            self._say("failed", str(error))

    def _take_over(self, aside: _Aside) -> None:
        """Another rows ring. Rows that were given out are in the old one too, which those who read it keep mapped."""
        self._aside, before = None, (self._columns, self.rows, self._features)
        self._let_go()
        try:
            self._begin_with(aside.columns, aside.rows, aside.features)
            self._telemetry.add("rings")
            self._telemetry.tell({**self._telemetry.told(), "columns": len(self._columns)})
            self._say("carried")
        except ResourceError as error:
            self._let_go()
            self._begin_with(*before)  # there was room for it a moment ago
            _log.error("the rows are not given the columns of a deployed model: %s", error)
            self._say("failed", str(error))

    def _begin_with(self, columns: FeatureSet, rows: Rows, features: Features) -> None:
        """A new ring with the content of `rows`, going on from the state of `features`, which wrote them."""
        self._columns = columns
        self._begin(self.books)
        for symbol, head in enumerate(rows.heads.tolist()):
            self.rows.values[symbol][:] = rows.values[symbol]
            self.rows.meta[symbol][:] = rows.meta[symbol]
            self.rows.heads[symbol] = head
            self._features.resume(symbol, features.state(symbol), head)
        self._done = self.rows.heads.tolist()

    def _say(self, state: str, why: str = "") -> None:
        """Of the columns that a deployment wants."""
        said = {"number": self._deployed, "state": state, "why": why}
        if said != self._said:
            self._said = said
            self._telemetry.tell({**self._telemetry.told(), "deployment": said})

    def count(self) -> None:
        """Bring the telemetry up to date."""
        telemetry, base, dispatcher = self._telemetry, self._base, self.dispatcher
        for name in COUNTED:
            telemetry.set(name, base[name] + getattr(self, f"_{name}"))
        for name in TOTALS:
            telemetry.set(name, base[name] + getattr(dispatcher, name))
        telemetry.set("waiting", dispatcher.waiting)
        telemetry.set("under_lease", dispatcher.under_lease)
        lost = sum(self._features.lost(symbol) for symbol in range(len(self._done)))
        if lost > self._lost:
            telemetry.add("lapped", lost - self._lost)
            self._lost = lost

    def _shared_rows(self, books: Books) -> Rows:
        return Rows.create(self._config.instance.name, books.symbols, self._columns.labels,
                           self._config.ring.rows, TABLE_HASH, books.epoch)


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

    \b
    Examples
      alpha feature
      ALPHA_FEATURE__DISPATCH=every alpha feature

    Exit codes: 0 stopped, 2 the configuration is wrong, 3 the books ring is laid out otherwise, 5 no memory, 6 it runs
    already.
    """
    with exit_on_error():
        config = load(path)
        # A wrong model is refused before anything is bound.
        features = features_wanted(config, deployment.in_force(config).paths)
        run("feature", config, lambda network, telemetry: _build(config, features, network, telemetry), COUNTERS,
            TIMERS)


def _build(config: Config, features: FeatureSet, network: Network, telemetry: Telemetry) -> Feature:
    tap: Tap | None = network.tap("work", "feature") if config.tap.enabled else None
    return Feature(config, SystemClock(), telemetry, network.pull("ticks", "credits"),
                   lambda worker: network.push(f"work-{worker}", tap), features, live=True)
