"""From a stream of frames to rows and labels, by the very code that runs live.

Frames -> `common.market` -> books ring -> feature kernel -> rows ring, from which the rows are copied out. There is
no second implementation that training could disagree with.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from common import layout, venues
from common.clock import ManualClock
from common.features import COLUMNS, Features
from common.market import Market
from common.ring import Books, Rows
from common.synthetic import SyntheticMarket

_FRAMES = 512  #: between two turns: far fewer ticks than the rings hold


@dataclass(frozen=True)
class Dataset:
    """n warm rows of several symbols, in order of time within each symbol."""

    values: np.ndarray  #: float32[n, F]
    symbol: np.ndarray  #: int64[n]
    time_ns: np.ndarray  #: int64[n], venue time
    mid: np.ndarray  #: float64[n]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, chosen: np.ndarray) -> "Dataset":
        return Dataset(self.values[chosen], self.symbol[chosen], self.time_ns[chosen], self.mid[chosen])


def synthetic(symbols: Sequence[str], seed: int, rate: float, seconds: float,
              progress: Callable[[float], None] = lambda seconds: None) -> Dataset:
    """The rows of a synthetic market; `progress` is told the seconds of event time done. About 40 us a frame."""
    market = SyntheticMarket(symbols, seed, rate, start_ms=1_700_000_000_000)
    return collect("vectrade", symbols, market.frames(seconds), progress)


def collect(venue: str, symbols: Sequence[str], frames: Iterable[tuple[int, bytes]],
            progress: Callable[[float], None] = lambda seconds: None) -> Dataset:
    """The warm rows that `frames`, (time_ns, frame) of a venue whose snapshots come in band, lead to."""
    clock = ManualClock()
    books, rows = Books.private(symbols), Rows.private(symbols, COLUMNS)
    market, features = Market(venues.create(venue, symbols), books, clock, seed=0), Features(books, rows)
    parts: list[tuple[int, np.ndarray, np.ndarray]] = []

    def drain() -> None:
        for symbol in range(len(symbols)):
            count = features.advance(symbol, int(books.heads[symbol]), clock.now_ns)
            if count:
                head = int(rows.heads[symbol])
                at = np.arange(head - count + 1, head + 1) & (rows.capacity - 1)
                meta = rows.meta[symbol][at]
                warm = (meta[:, layout.ROW_RUN] > 0) & (meta[:, layout.ROW_BID] > 0) & (meta[:, layout.ROW_ASK] > 0)
                parts.append((symbol, rows.values[symbol][at[warm]], meta[warm]))

    start = 0
    for i, (time_ns, frame) in enumerate(frames):
        start = start or time_ns
        clock.set(time_ns)
        market.on_frame(frame, time_ns)
        if i % _FRAMES == 0:
            drain()
            progress((time_ns - start) / 1e9)
    drain()
    parts.sort(key=lambda part: part[0])  # stable: time order stays within a symbol
    meta = np.concatenate([part[2] for part in parts]) if parts else np.zeros((0, layout.META_WIDTH), np.int64)
    values = np.concatenate([part[1] for part in parts]) if parts else np.zeros((0, len(COLUMNS)), np.float32)
    symbol = np.concatenate([np.full(len(part[1]), part[0]) for part in parts]) if parts else np.zeros(0, np.int64)
    mid = (meta[:, layout.ROW_BID].astype(float) + meta[:, layout.ROW_ASK]) / 2
    return Dataset(values, symbol, meta[:, layout.ROW_EVENT_NS], mid)


def moves(data: Dataset, horizon_s: float) -> np.ndarray:
    """float64[n]: the relative move of the mid from each row to the last row within `horizon_s`, in bps; NaN where
    the stream of the symbol ends before the horizon does."""
    found = np.full(len(data), np.nan)
    horizon = int(horizon_s * 1e9)
    for symbol in np.unique(data.symbol):
        mine = np.flatnonzero(data.symbol == symbol)
        time = np.maximum.accumulate(data.time_ns[mine])
        until = np.searchsorted(time, time + horizon, side="right") - 1
        known = time + horizon <= time[-1]
        found[mine[known]] = (data.mid[mine[until[known]]] / data.mid[mine[known]] - 1) * 1e4
    return found


def every(data: Dataset, seconds: float) -> np.ndarray:
    """Indices of the first row of each symbol in each stretch of `seconds`: neighbours tell little more."""
    stretch = data.time_ns // int(seconds * 1e9)
    keys = np.stack([data.symbol, stretch])
    first = np.ones(len(data), bool)
    first[1:] = (keys[:, 1:] != keys[:, :-1]).any(0)
    return np.flatnonzero(first)


def split(time_ns: np.ndarray, shares: Sequence[float], embargo_s: float) -> list[np.ndarray]:
    """Masks of consecutive spans of time with the given shares of it; between two spans, rows within `embargo_s`
    before the border are in neither, since their labels look across it."""
    first, last = time_ns.min(), time_ns.max() + 1
    edges = first + (np.cumsum([0.0, *shares]) / sum(shares) * (last - first)).astype(np.int64)
    masks = [(time_ns >= start) & (time_ns < end - int(embargo_s * 1e9)) for start, end in zip(edges, edges[1:])]
    masks[-1] = time_ns >= edges[-2]
    return masks
