"""The synthetic market as rows and the way of the mid, for the default model's recipe: a thin use of `common.collect`.

Of hours of ticks only the sampled rows are kept, unlike in a `common.dataset.Dataset`, which has all.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from common import layout
from common.collect import Collector, sampled, stream
from common.features.choice import DEFAULT
from common.imports.source import Source
from common.synthetic import SyntheticMarket


@dataclass(frozen=True)
class Dataset:
    """n sampled rows, in order of time within each symbol, and the whole way of each symbol's mid."""

    values: np.ndarray  #: float32[n, F]
    symbol: np.ndarray  #: int64[n]
    time_ns: np.ndarray  #: int64[n], venue time
    mid: np.ndarray  #: float64[n]
    ways: list[np.ndarray]  #: of each symbol: float64[2, m], venue time and mid of every tick
    ticks: int  #: seen

    def __len__(self) -> int:
        return len(self.values)


def synthetic(symbols: Sequence[str], seed: int, rate: float, seconds: float, every_s: float,
              progress: Callable[[float], None] = lambda seconds: None) -> Dataset:
    """The rows of a synthetic market; `progress` is told the seconds of event time done. About 40 us a frame."""
    market = SyntheticMarket(symbols, seed, rate, start_ms=1_700_000_000_000)
    return collect("vectrade", symbols, market.frames(seconds), every_s, progress)


def collect(venue: str, symbols: Sequence[str], frames: Iterable[tuple[int, bytes]], every_s: float,
            progress: Callable[[float], None] = lambda seconds: None) -> Dataset:
    """The rows that `frames`, (time_ns, frame) of a venue whose snapshots come in band, lead to: of each symbol the
    first warm row in each stretch of `every_s` seconds."""
    source = Source("frames", venue, tuple(symbols), iter(frames), False, {})
    collector = Collector(symbols, DEFAULT)
    first, ticks, latest = 0, 0, [-1] * len(symbols)
    kept: list[list[tuple[np.ndarray, ...]]] = [[] for _ in symbols]  # values, time and mid of samples
    ways: list[list[np.ndarray]] = [[] for _ in symbols]
    for symbol, block in stream([source], symbols):
        part = collector.take(symbol, block)
        both = (part.bid > 0) & (part.ask > 0)
        mid = (part.bid.astype(float) + part.ask) / 2
        ways[symbol].append(np.stack([part.event_ns[both], mid[both]]))
        rows, latest[symbol] = sampled(part.event_ns, both & (part.run > 0), int(every_s * 1e9), latest[symbol])
        kept[symbol].append((part.values[rows], part.event_ns[rows], mid[rows]))
        ticks += len(block)
        first = first or int(part.recv_ns[0]) if len(part.recv_ns) else first
        progress((int(block[-1, layout.RECV_NS]) - first) / 1e9)
    values, time_ns, mid = (np.concatenate([each[k] for of_symbol in kept for each in of_symbol]) for k in range(3))
    counts = [sum(len(each[0]) for each in of_symbol) for of_symbol in kept]
    return Dataset(values, np.repeat(np.arange(len(symbols)), counts), time_ns, mid,
                   [np.concatenate(of_symbol, axis=1) for of_symbol in ways], ticks)


def moves(data: Dataset, horizon_s: float) -> np.ndarray:
    """float64[n]: the relative move of the mid, in bps, from each row to the newest tick `horizon_s` later; NaN
    where the symbol's stream ends before that."""
    found = np.full(len(data), np.nan)
    for symbol, (time, mid) in enumerate(data.ways):
        mine = np.flatnonzero(data.symbol == symbol)
        time = np.maximum.accumulate(time)
        target = data.time_ns[mine] + horizon_s * 1e9
        known = target <= time[-1]
        until = np.searchsorted(time, target[known], side="right") - 1
        found[mine[known]] = (mid[until] / data.mid[mine[known]] - 1) * 1e4
    return found


def split(time_ns: np.ndarray, shares: Sequence[float], embargo_s: float) -> list[np.ndarray]:
    """Masks of consecutive spans of time with the given shares of it; between two spans, rows within `embargo_s`
    before the border are in neither, since their labels look across it."""
    first, last = time_ns.min(), time_ns.max() + 1
    edges = first + (np.cumsum([0.0, *shares]) / sum(shares) * (last - first)).astype(np.int64)
    masks = [(time_ns >= start) & (time_ns < end - int(embargo_s * 1e9)) for start, end in zip(edges, edges[1:])]
    masks[-1] = time_ns >= edges[-2]
    return masks
