"""From a stream of frames to rows and labels, by the very code that runs live.

Frames -> `common.market` -> books ring -> feature kernel -> rows ring, from which the rows are copied out. There is
no second implementation that training could disagree with.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from common import layout, venues
from common.clock import ManualClock
from common.feature_rows import Features
from common.feature_set import DEFAULT
from common.market import Market
from common.ring import Books, Rows
from common.synthetic import SyntheticMarket

_FRAMES = 512  #: between two turns: far fewer ticks than the rings hold


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
    first warm row in each stretch of `every_s` seconds, since its neighbours tell little more."""
    clock = ManualClock()
    books, rows = Books.private(symbols), Rows.private(symbols, DEFAULT.names)
    market, features = Market(venues.create(venue, symbols), books, clock, seed=0), Features(books, rows)
    step, latest = int(every_s * 1e9), [-1] * len(symbols)
    values: list[list[np.ndarray]] = [[] for _ in symbols]
    metas: list[list[np.ndarray]] = [[] for _ in symbols]
    ways: list[list[np.ndarray]] = [[] for _ in symbols]

    def drain() -> None:
        for symbol in range(len(symbols)):
            count = features.advance(symbol, int(books.heads[symbol]), clock.now_ns)
            if not count:
                continue
            head = int(rows.heads[symbol])
            at = np.arange(head - count + 1, head + 1) & (rows.capacity - 1)
            meta = rows.meta[symbol][at]
            usable = (meta[:, layout.ROW_BID] > 0) & (meta[:, layout.ROW_ASK] > 0)
            way = meta[usable & (meta[:, layout.ROW_FLAGS] & layout.FLAG_VALID > 0)]
            ways[symbol].append(np.stack([way[:, layout.ROW_EVENT_NS], _mid(way)]))
            warm = np.flatnonzero(usable & (meta[:, layout.ROW_RUN] > 0))
            stretch = meta[warm, layout.ROW_EVENT_NS] // step
            chosen = warm[np.diff(stretch, prepend=latest[symbol]) != 0]
            latest[symbol] = stretch[-1] if len(stretch) else latest[symbol]
            values[symbol].append(rows.values[symbol][at[chosen]])
            metas[symbol].append(meta[chosen])

    start = 0
    for i, (time_ns, frame) in enumerate(frames):
        start = start or time_ns
        clock.set(time_ns)
        market.on_frame(frame, time_ns)
        if i % _FRAMES == 0:
            drain()
            progress((time_ns - start) / 1e9)
    drain()
    meta = np.concatenate([part for of_symbol in metas for part in of_symbol])
    counts = [sum(map(len, of_symbol)) for of_symbol in metas]
    return Dataset(np.concatenate([part for of_symbol in values for part in of_symbol]),
                   np.repeat(np.arange(len(symbols)), counts), meta[:, layout.ROW_EVENT_NS], _mid(meta),
                   [np.concatenate(of_symbol, axis=1) for of_symbol in ways], market.counts.ticks)


def _mid(meta: np.ndarray) -> np.ndarray:
    return (meta[:, layout.ROW_BID].astype(float) + meta[:, layout.ROW_ASK]) / 2


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
