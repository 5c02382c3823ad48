"""Which worker predicts what next: the pure core of work-conserving dispatch.

Feature keeps two sets: symbols that have a row nobody was given, and workers that are idle. Whenever both are
non-empty the symbols that have waited longest go, in one message, to the worker that became idle last: its caches
are warm and its core awake, and under light load the others sleep instead of taking turns at being cold. A
worker earns its next work by returning a credit; if it does not within its lease, the rows it held count as
lost, and go back to the set unless newer ones of their symbol have been given out or wait.

Two policies. "newest": a symbol offers only its newest row, and every row passed over is counted as skipped.
"every": a symbol offers the run of its rows not yet given out, cut only by what the ring still holds.

    offered = dispatched + skipped + waiting                     dispatched = done + lost + under lease
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple


class Item(NamedTuple):
    """Rows first..last of a symbol."""

    symbol: int
    first: int
    last: int


class Assignment(NamedTuple):
    worker: int
    lease: int
    items: list[Item]


class _Lease:
    __slots__ = ("number", "items", "deadline_ns")

    def __init__(self, number: int, items: list[Item], deadline_ns: int) -> None:
        self.number, self.items, self.deadline_ns = number, items, deadline_ns


@dataclass
class _Worker:
    incarnation: int
    lease: _Lease | None = None


@dataclass
class Dispatcher:
    """No clock and no sockets; times are given. All operations are O(1) in symbols and workers, but `expire`,
    which looks at each worker."""

    every: bool
    lease_ns: int
    max_batch: int
    offered: int = 0
    dispatched: int = 0
    skipped: int = 0
    done: int = 0
    lost: int = 0
    _waiting: OrderedDict[int, Item] = field(default_factory=OrderedDict)
    _idle: list[int] = field(default_factory=list)
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _given: dict[int, int] = field(default_factory=dict)  #: symbol -> newest row given out
    _leases: int = 0

    def offer(self, symbol: int, first: int, last: int) -> None:
        """Rows first..last of `symbol` are written and may be predicted."""
        self.offered += last - first + 1
        waiting = self._waiting.get(symbol)
        if self.every:
            # Runs are consecutive but after a break (a reset, a row not warm): then the old run is passed over.
            if waiting is not None and waiting.last + 1 != first:
                self.skipped += waiting.last - waiting.first + 1
                waiting = None
            self._waiting[symbol] = Item(symbol, waiting.first if waiting else first, last)
        else:
            self.skipped += last - first + (waiting is not None)
            self._waiting[symbol] = Item(symbol, last, last)

    def withdraw(self, symbol: int, before: int) -> None:
        """Rows of `symbol` below `before` are gone from the ring, or must not be predicted any more."""
        waiting = self._waiting.get(symbol)
        if waiting is None or waiting.first >= before:
            return
        self.skipped += min(waiting.last + 1, before) - waiting.first
        if waiting.last < before:
            del self._waiting[symbol]
        else:
            self._waiting[symbol] = Item(symbol, before, waiting.last)

    def credit(self, worker: int, incarnation: int, lease: int) -> bool:
        """`worker` is idle: it greets, or it has finished `lease`. True if this incarnation is new: whatever
        the one before it held is lost."""
        known = self._workers.get(worker)
        if known is None or known.incarnation != incarnation:
            if known is not None:
                self._lose(worker, known)
            self._workers[worker] = _Worker(incarnation)
            if worker not in self._idle:
                self._idle.append(worker)
            return True
        if known.lease is not None:
            if lease != known.lease.number:
                return False  # a greeting that crossed with work
            self.done += sum(item.last - item.first + 1 for item in known.lease.items)
            known.lease = None
        if worker not in self._idle:
            self._idle.append(worker)
        return False

    def next(self, now_ns: int) -> Assignment | None:
        """The next message to send, or None if no worker is idle or nothing waits."""
        if not self._idle or not self._waiting:
            return None
        worker, waiting = self._idle.pop(), self._waiting
        items, room = [], self.max_batch
        while room and waiting:
            symbol, item = waiting.popitem(last=False)
            if item.last - item.first >= room:  # what does not fit keeps its place at the front
                waiting[symbol] = Item(symbol, item.first + room, item.last)
                waiting.move_to_end(symbol, last=False)
                item = Item(symbol, item.first, item.first + room - 1)
            items.append(item)
            self._given[symbol] = item.last
            room -= item.last - item.first + 1
        self._leases += 1
        self.dispatched += self.max_batch - room
        self._workers[worker].lease = _Lease(self._leases, items, now_ns + self.lease_ns)
        return Assignment(worker, self._leases, items)

    def refuse(self, worker: int) -> None:
        """The message could not be sent: undo the assignment; the worker is not idle until it greets again."""
        self._return(self._workers[worker])

    def expire(self, now_ns: int) -> list[int]:
        """Workers whose lease has run out; they get nothing more until they greet or finish."""
        late = [number for number, worker in self._workers.items()
                if worker.lease is not None and now_ns >= worker.lease.deadline_ns]
        # The latest work first: what is newest takes its place before older rows ask for it, and runs join up.
        for number in sorted(late, key=lambda number: -self._workers[number].lease.number):
            self._lose(number, self._workers[number])
        return late

    def forget(self) -> None:
        """The rows of this stream are gone: nothing of it is given out any more. Workers stay known."""
        self.skipped += self.waiting
        self._waiting.clear()
        self._given.clear()
        for worker in self._workers.values():
            if worker.lease is not None:
                self.lost += sum(item.last - item.first + 1 for item in worker.lease.items)
                worker.lease.items = []

    @property
    def waiting(self) -> int:
        """Rows that are offered and not yet given out."""
        return sum(item.last - item.first + 1 for item in self._waiting.values())

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def leased(self) -> bool:
        """Whether any worker holds work. O(1)."""
        return self.dispatched > self.done + self.lost

    @property
    def under_lease(self) -> int:
        """Rows that workers hold now."""
        return sum(item.last - item.first + 1 for worker in self._workers.values()
                   if worker.lease is not None for item in worker.lease.items)

    def _lose(self, number: int, worker: _Worker) -> None:
        """Take back a lease: its rows were perhaps not predicted, and are offered once more if still newest."""
        if number in self._idle:
            self._idle.remove(number)
        if worker.lease is None:
            return
        items, worker.lease = worker.lease.items, None
        for item in items:
            self.lost += item.last - item.first + 1
            if not self.every and item.last < self._given.get(item.symbol, 0):
                continue  # newer rows of the symbol have been given out since
            if item.symbol not in self._waiting:
                self.offered += item.last - item.first + 1
                self._waiting[item.symbol] = item
            elif self.every and self._waiting[item.symbol].first == item.last + 1:
                self.offered += item.last - item.first + 1
                self._waiting[item.symbol] = Item(item.symbol, item.first, self._waiting[item.symbol].last)

    def _return(self, worker: _Worker) -> None:
        if worker.lease is None:
            return
        items, worker.lease = worker.lease.items, None
        for item in reversed(items):
            count = item.last - item.first + 1
            self.dispatched -= count
            waiting = self._waiting.get(item.symbol)
            if waiting is None:
                self._waiting[item.symbol] = item
            elif self.every and waiting.first == item.last + 1:
                self._waiting[item.symbol] = Item(item.symbol, item.first, waiting.last)
            else:
                self.skipped += count
            self._waiting.move_to_end(item.symbol, last=False)
