"""The numbers of fitted features, found on training rows and nothing else. What the features make of them stands in
`common.features.table`.

    integrated_ofi_100   10 weights: the first principal component of ofi_level_1 .. 10 by their covariance, its sign
                         so that the sum is above 0, divided by the sum of its absolute values (Cont, Cucuringu, Zhang
                         2023, arXiv:2112.13213)
    micro_price_fitted   [tick, n_imbalance, n_spread, g* by imbalance and spread in ticks]: how far from the mid its
                         expectation settles (Stoikov 2018, doi:10.1080/14697688.2018.1489139)
    vpin_50              [quantity of a bucket in 1e-8] (Easley, Lopez de Prado, O'Hara 2012, doi:10.1093/rfs/hhs053)

All functions are pure. Adding a fitted feature is adding a `Fitter`; the numbers are kept by symbol.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from common.errors import ConfigError
from common.layout import ASK_QTY, BID_QTY, KIND, KIND_TRADE, TRADE_QTY

TICK_COLUMNS = (KIND, TRADE_QTY, BID_QTY, ASK_QTY)  #: of the ticks beside the rows
LEAST_ROWS = 500  #: to fit anything on
IMBALANCES = 10  #: buckets of Qb / (Qb + Qa); even, so that each has a mirror image
MOST_SPREADS = 5
_DAY_NS = 86_400 * 10**9


class Seen(NamedTuple):
    """Rows of one symbol that may be learnt from: m, in order, each of a tick on a valid book."""

    symbol: str
    values: Mapping[str, np.ndarray]  #: of the features that are needed, float32[m] each
    run: np.ndarray  #: int64[m]: above 0 on a warm row
    seq: np.ndarray
    time_ns: np.ndarray
    bid: np.ndarray  #: int64[m], 1e-8; 0 where that side is empty
    ask: np.ndarray
    ticks: np.ndarray  #: int64[m, len(TICK_COLUMNS)]


class Fitter(NamedTuple):
    needs: tuple[str, ...]  #: features
    fit: Callable[[Seen], list[float]]


def integrated_ofi(seen: Seen) -> list[float]:
    """The 10 weights. Raises ConfigError where there is too little."""
    flows = np.stack(list(seen.values.values()), axis=1)[seen.run > 0].astype(float)
    _enough(seen, len(flows), "warm rows", "integrated_ofi_100")
    weights = np.linalg.eigh(np.cov(flows, rowvar=False))[1][:, -1]
    weights *= np.sign(weights.sum()) or 1.0
    return [float(weight) for weight in weights / np.abs(weights).sum()]


def vpin(seen: Seen) -> list[float]:
    """So much that 50 buckets hold what is traded in a day, as the authors have it; or in a fifth of the training span
    where that is shorter, so that its windows are not all one."""
    kind, quantity = seen.ticks[:, 0], np.abs(seen.ticks[:, 1].astype(float))
    traded = float(quantity[kind == KIND_TRADE].sum())
    if not traded:
        raise ConfigError("there is nothing to fit a feature on", where=f"vpin_50 of {seen.symbol}: no trade among "
                          f"{len(kind)} ticks", remedy="leave the feature out, or take recordings with trades")
    span_ns = max(int(seen.time_ns[-1] - seen.time_ns[0]), 1)
    share = min(_DAY_NS / span_ns, 1 / 5)
    return [max(float(round(traded * share / 50)), 1.0)]


def micro_price(seen: Seen) -> list[float]:
    """Imbalance and spread make the state; ticks are the steps, and a change of the mid absorbs. With the mirror image
    of each observation counted, too, as in the paper:

        Q[x, y]  probability of going from x to y with the mid unchanged
        T[x, y]  of going from x to y with a change of the mid; k[x] the mean of that change
        G1 = (1 - Q)^-1 k,  B = (1 - Q)^-1 T,  g* = sum over i of B^i G1

    Ticks of any number between two changes say the same, so that nothing depends on how often the book is told. The
    tick of prices is the greatest number that divides all of them; spreads above that of nine rows in ten, or above
    MOST_SPREADS, share the last bucket: it is a model of books whose spread is a few ticks. A state that was not seen
    has 0. g* is a limit, not what the next few ticks bring: on the recorded futures it needs about a hundred."""
    bid, ask, bid_qty, ask_qty = (column.astype(np.int64) for column in (
        seen.bid, seen.ask, seen.ticks[:, 2], seen.ticks[:, 3]))
    both = (bid > 0) & (ask > 0)
    _enough(seen, int(both.sum()), "rows with both sides", "micro_price_fitted")
    tick = int(np.gcd.reduce(np.concatenate([np.unique(bid[both]), np.unique(ask[both])])))
    spreads = np.maximum(np.rint((ask - bid) / tick).astype(np.int64), 1)
    count = int(np.clip(np.quantile(spreads[both], 0.9), 1, MOST_SPREADS))
    qty = bid_qty.astype(float)
    share = np.divide(qty, qty + ask_qty, out=np.zeros(len(qty)), where=both)
    imbalance = np.minimum((share * IMBALANCES).astype(np.int64), IMBALANCES - 1)
    spread = np.minimum(spreads, count) - 1

    follows = np.flatnonzero(both[:-1] & both[1:] & (np.diff(seen.seq) == 1))
    move = ((bid + ask)[follows + 1] - (bid + ask)[follows]) / (2 * tick)
    size = IMBALANCES * count
    stay, gone, moved, visits = np.zeros((size, size)), np.zeros((size, size)), np.zeros(size), np.zeros(size)
    for i, change in ((imbalance, move), (IMBALANCES - 1 - imbalance, -move)):
        state = i * count + spread
        before, after, still = state[follows], state[follows + 1], change == 0
        np.add.at(stay, (before[still], after[still]), 1)
        np.add.at(gone, (before[~still], after[~still]), 1)
        np.add.at(moved, before, change)
        np.add.at(visits, before, 1)
    each = np.maximum(visits, 1)[:, None]
    # A hair less than 1, for states from which the recording saw no way to a change.
    leave = np.linalg.inv(np.eye(size) - (1 - 1e-9) * stay / each)
    step, jump = leave @ (moved / each[:, 0]), leave @ (gone / each)
    return [float(tick), float(IMBALANCES), float(count), *map(float, _settled(step, jump, count))]


def _settled(step: np.ndarray, jump: np.ndarray, count: int) -> np.ndarray:
    """sum of jump^i step, in powers of two of them at a time. It converges because each is antisymmetric in the
    imbalance; what rounding leaves of the other part is taken away, since that would add up."""
    def odd(g: np.ndarray) -> np.ndarray:
        table = g.reshape(IMBALANCES, count)
        return ((table - table[::-1]) / 2).reshape(-1)

    total, power = odd(step), jump
    for _ in range(60):
        more = odd(power @ total)
        total = total + more
        if np.abs(more).max() <= 1e-12 * max(np.abs(total).max(), 1e-300):
            break
        power = power @ power
    return total


def _enough(seen: Seen, count: int, what: str, feature: str) -> None:
    if count < LEAST_ROWS:
        raise ConfigError("there is too little to fit a feature on",
                          where=f"{feature} of {seen.symbol}: {count} {what} in the training span, of {LEAST_ROWS}",
                          remedy="take longer recordings, fewer folds or a later --fit-until")


FITTERS: dict[str, Fitter] = {
    "integrated_ofi_100": Fitter(tuple(f"ofi_level_{level}" for level in range(1, 11)), integrated_ofi),
    "micro_price_fitted": Fitter((), micro_price),
    "vpin_50": Fitter((), vpin),
}
