"""What a stage tells about itself: counters, latency histograms and a few words, in a block of its own.

One writer, no lock, no system call: a counter is one store, an observation three. Anyone may read at any time
and disturbs nothing. The block survives `kill -9` of its stage, so totals count on after a restart
(`starts` tells how often). Counters are int64; money and positions are counts of 1e-8.

Histograms are log-linear: values below 64 have a bucket each, above that every power of two is divided into
32, so a quantile is right within 1/32 of its value. Unit: nanoseconds.

A stage may keep the last few events of a kind one by one, beside the counters that tell how many there were: its
notes. Each record has a stamp, its number from 1 on, which is 0 while the record is written; one whose stamp is not
the same before and after it was read is left out.
"""

import json
import os
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Sequence

import numpy as np

from common.shm import Block, fence

STANDARD = ("pid", "starts", "started_ns", "heartbeat_ns", "ready", "errors")  #: every stage has these counters
_SUB_BITS = 5
_BUCKETS = (40 - _SUB_BITS + 1) << _SUB_BITS  # up to 2**40 ns, 18 minutes
_INFO = 8192  # bytes of JSON


class Note(NamedTuple):
    """One event: which counter counted it, when and of which symbol; the value that was found and its limit."""

    at_ns: int  #: monotonic
    symbol: int  #: index in the books ring
    counter: str
    value: float
    limit: float


_NOTE_FIELDS = "stamp:i8 at_ns:i8 symbol:i8 counter:i8 value:f8 limit:f8"  # `counter` by its place in the block
_NOTE = np.dtype([tuple(field.split(":")) for field in _NOTE_FIELDS.split()])
_STAMP, _REST = struct.Struct("<q"), struct.Struct("<qqqdd")


class Telemetry:
    """The telemetry of one stage; the same class for the stage and for those who look. `notes`: so many are kept."""

    def __init__(self, stage: str, counters: Sequence[str], timers: Sequence[str], block: Block | None,
                 notes: int = 0) -> None:
        self.stage, self.block = stage, block
        self.heard: Callable[[dict[str, Any]], None] | None = None  #: called with what `tell` is given
        self.counters, self.timers = tuple(counters), tuple(timers)
        sizes = len(self.counters), len(self.timers) * _BUCKETS
        if block is None:
            values, buckets = np.zeros(sizes[0], np.int64), np.zeros(sizes[1], np.int64)
            self._text, self._notes = np.zeros(_INFO, np.uint8), np.zeros(notes, _NOTE)
        else:
            values = block.array(np.int64, (sizes[0],))
            buckets = block.array(np.int64, (sizes[1],), 8 * sizes[0])
            self._text = block.array(np.uint8, (_INFO,), 8 * sum(sizes))
            self._notes = block.array(_NOTE, (notes,), 8 * sum(sizes) + _INFO)
        self._noted = int(self._notes["stamp"].max(initial=0))  # a stage that was killed goes on where it was
        self._note_bytes = memoryview(self._notes.view(np.uint8))
        self._buckets = buckets.reshape(len(self.timers), _BUCKETS)
        self._values, self._cells = memoryview(values), memoryview(buckets)
        self._index = {name: i for i, name in enumerate(self.counters)}
        self._offset = {name: i * _BUCKETS for i, name in enumerate(self.timers)}

    @classmethod
    def private(cls, stage: str, counters: Sequence[str], timers: Sequence[str] = (), notes: int = 0) -> "Telemetry":
        return cls(stage, (*STANDARD, *counters), timers, None, notes)

    @classmethod
    def create(cls, instance: str, stage: str, counters: Sequence[str], timers: Sequence[str] = (),
               notes: int = 0) -> "Telemetry":
        names = (*STANDARD, *counters)
        block = Block.create(instance, f"telemetry-{stage}", cls.size(counters, timers, notes),
                             {"stage": stage, "counters": list(names), "timers": list(timers), "buckets": _BUCKETS,
                              "note": _NOTE_FIELDS, "notes": notes})
        telemetry = cls(stage, names, timers, block, notes)
        telemetry.set("pid", os.getpid())
        telemetry.add("starts")
        telemetry.set("started_ns", time.monotonic_ns())
        telemetry.set("heartbeat_ns", time.monotonic_ns())
        telemetry.set("ready", 0)
        return telemetry

    @staticmethod
    def size(counters: Sequence[str], timers: Sequence[str] = (), notes: int = 0) -> int:
        """Bytes of the body of such a block; `counters` without the standard ones."""
        return 8 * (len(STANDARD) + len(counters) + len(timers) * _BUCKETS) + _INFO + notes * _NOTE.itemsize

    @classmethod
    def attach(cls, instance: str, stage: str) -> "Telemetry":
        """Raises FileNotFoundError while the stage has not been started, LayoutError if it is of another version."""
        block = Block.attach(instance, f"telemetry-{stage}", {"buckets": _BUCKETS, "note": _NOTE_FIELDS})
        told = block.description
        return cls(stage, told["counters"], told["timers"], block, told["notes"])

    def add(self, name: str, n: int = 1) -> None:
        """About 120 ns."""
        self._values[self._index[name]] += n

    def set(self, name: str, value: int) -> None:
        self._values[self._index[name]] = value

    def get(self, name: str) -> int:
        return self._values[self._index[name]]

    def values(self) -> dict[str, int]:
        return dict(zip(self.counters, self._values.tolist()))

    def observe(self, timer: str, ns: int) -> None:
        """Count a duration; negative ones count as 0. About 500 ns."""
        self._cells[self._offset[timer] + bucket_of(ns)] += 1

    def observe_all(self, timers: Sequence[str], ns: np.ndarray) -> None:
        """Count ns[i], int64[len(timers), n], under timers[i], as n calls of `observe` each would. About 25 us."""
        ns = ns.clip(0)
        shift = (np.frexp(ns)[1] - 1 - _SUB_BITS).clip(0)
        buckets = ((shift << _SUB_BITS) + (ns >> shift)).clip(max=_BUCKETS - 1)
        np.add.at(self._buckets, ([[self.timers.index(timer)] for timer in timers], buckets), 1)

    def histogram(self, timer: str) -> np.ndarray:
        """A copy of the buckets: int64[buckets]. Subtract two to have an interval."""
        return self._buckets[self.timers.index(timer)].copy()

    def quantiles(self, timer: str, since: np.ndarray | None = None) -> dict[str, int]:
        """p50, p99, p999 in ns and count, of all observations or of those after the copy `since`."""
        return quantiles(self._buckets[self.timers.index(timer)] - (0 if since is None else since))

    def note_all(self, notes: Sequence[tuple[int, int, str, float, float]]) -> None:
        """Keep these events, oldest first, as `Note` has them; nothing where none are kept. About 1 us each of the last
        that there is room for."""
        room, raw, index = len(self._notes), self._note_bytes, self._index
        for at_ns, symbol, counter, value, limit in notes[-room:] if room else ():
            self._noted += 1
            offset = self._noted % room * _NOTE.itemsize
            _STAMP.pack_into(raw, offset, 0)
            fence()
            _REST.pack_into(raw, offset + _STAMP.size, at_ns, symbol, index[counter], value, limit)
            fence()
            _STAMP.pack_into(raw, offset, self._noted)

    def notes(self) -> list[Note]:
        """The last events, oldest first, but for those that are being written at this moment. About 1 us each."""
        before = self._notes["stamp"].copy()
        fence()
        found = self._notes.copy()
        fence()
        whole = (before == self._notes["stamp"]) & (before > 0)
        order = np.flatnonzero(whole)[np.argsort(before[whole])]
        return [Note(at_ns, symbol, self.counters[counter], value, limit)
                for _, at_ns, symbol, counter, value, limit in found[order].tolist()]

    def tell(self, info: dict[str, Any]) -> None:
        """Leave a few words for `alpha status`: what is in force, what is waited for."""
        if self.heard is not None:
            self.heard(info)
        raw = json.dumps(info).encode()[:_INFO - 1]
        self._text[:len(raw)] = np.frombuffer(raw, np.uint8)
        self._text[len(raw):] = 0

    def told(self) -> dict[str, Any]:
        try:
            return json.loads(bytes(self._text).rstrip(b"\0") or b"{}")
        except ValueError:  # read in the middle of a write, or cut to fit
            return {}

    def close(self) -> None:
        if self.block is not None:
            self.block.remove()


def bucket_of(ns: int) -> int:
    """The bucket in which a duration is counted."""
    if ns < 64:
        return ns if ns > 0 else 0
    shift = ns.bit_length() - 1 - _SUB_BITS
    return min((shift << _SUB_BITS) + (ns >> shift), _BUCKETS - 1)


def middle_of(bucket: int) -> int:
    """The middle of the values that share `bucket`."""
    if bucket < 64:
        return bucket
    shift = (bucket >> _SUB_BITS) - 1
    low = (bucket - (shift << _SUB_BITS)) << shift
    return low + (1 << shift >> 1)


def quantiles(buckets: np.ndarray) -> dict[str, int]:
    """Nearest-rank quantiles of a histogram; zeros where it is empty."""
    total = int(buckets.sum())
    if not total:
        return {"p50": 0, "p99": 0, "p999": 0, "count": 0}
    cumulative = np.cumsum(buckets)
    ranks = {name: -(-total * part // 1000) for name, part in (("p50", 500), ("p99", 990), ("p999", 999))}
    found = {name: middle_of(int(np.searchsorted(cumulative, rank))) for name, rank in ranks.items()}
    return {**found, "count": total}
