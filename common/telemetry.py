"""What a stage tells about itself: counters, latency histograms and a few words, in a block of its own.

One writer, no lock, no system call: a counter is one store, an observation three. Anyone may read at any time
and disturbs nothing. The block survives `kill -9` of its stage, so totals count on after a restart
(`starts` tells how often). Counters are int64; money and positions are counts of 1e-8.

Histograms are log-linear: values below 64 have a bucket each, above that every power of two is divided into
32, so a quantile is right within 1/32 of its value. Unit: nanoseconds.
"""

import json
import os
import time
from typing import Any, Sequence

import numpy as np

from common.shm import Block

STANDARD = ("pid", "starts", "started_ns", "heartbeat_ns", "ready", "errors")  #: every stage has these counters
_SUB_BITS = 5
_BUCKETS = (40 - _SUB_BITS + 1) << _SUB_BITS  # up to 2**40 ns, 18 minutes
_INFO = 8192  # bytes of JSON


class Telemetry:
    """The telemetry of one stage; the same class for the stage and for those who look."""

    def __init__(self, stage: str, counters: Sequence[str], timers: Sequence[str], block: Block | None) -> None:
        self.stage, self.block = stage, block
        self.counters, self.timers = tuple(counters), tuple(timers)
        sizes = len(self.counters), len(self.timers) * _BUCKETS
        if block is None:
            values, buckets = np.zeros(sizes[0], np.int64), np.zeros(sizes[1], np.int64)
            self._text = np.zeros(_INFO, np.uint8)
        else:
            values = block.array(np.int64, (sizes[0],))
            buckets = block.array(np.int64, (sizes[1],), 8 * sizes[0])
            self._text = block.array(np.uint8, (_INFO,), 8 * sum(sizes))
        self._buckets = buckets.reshape(len(self.timers), _BUCKETS)
        self._values, self._cells = memoryview(values), memoryview(buckets)
        self._index = {name: i for i, name in enumerate(self.counters)}
        self._offset = {name: i * _BUCKETS for i, name in enumerate(self.timers)}

    @classmethod
    def private(cls, stage: str, counters: Sequence[str], timers: Sequence[str] = ()) -> "Telemetry":
        return cls(stage, (*STANDARD, *counters), timers, None)

    @classmethod
    def create(cls, instance: str, stage: str, counters: Sequence[str], timers: Sequence[str] = ()) -> "Telemetry":
        names = (*STANDARD, *counters)
        size = 8 * (len(names) + len(timers) * _BUCKETS) + _INFO
        block = Block.create(instance, f"telemetry-{stage}", size,
                             {"stage": stage, "counters": list(names), "timers": list(timers), "buckets": _BUCKETS})
        telemetry = cls(stage, names, timers, block)
        telemetry.set("pid", os.getpid())
        telemetry.add("starts")
        telemetry.set("started_ns", time.monotonic_ns())
        telemetry.set("heartbeat_ns", time.monotonic_ns())
        telemetry.set("ready", 0)
        return telemetry

    @classmethod
    def attach(cls, instance: str, stage: str) -> "Telemetry":
        """Raises FileNotFoundError while the stage has not been started."""
        block = Block.attach(instance, f"telemetry-{stage}", {"buckets": _BUCKETS})
        told = block.description
        return cls(stage, told["counters"], told["timers"], block)

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
        """Count a duration; negative ones count as 0. About 300 ns."""
        self._cells[self._offset[timer] + _bucket(ns)] += 1

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

    def tell(self, info: dict[str, Any]) -> None:
        """Leave a few words for `alpha status`: what is in force, what is waited for."""
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


def _bucket(ns: int) -> int:
    if ns < 64:
        return ns if ns > 0 else 0
    shift = ns.bit_length() - 1 - _SUB_BITS
    return min((shift << _SUB_BITS) + (ns >> shift), _BUCKETS - 1)


def _middle(bucket: int) -> int:
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
    found = {name: _middle(int(np.searchsorted(cumulative, rank))) for name, rank in ranks.items()}
    return {**found, "count": total}
