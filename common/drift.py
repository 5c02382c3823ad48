"""Whether features still look as they did in training: the population stability index of each column.

    PSI = sum over 10 bins of (a - e) ln(a / e)        e, a: shares of rows in training, and now

Bins are cut at the deciles of the training rows; a value equal to a cut lies below it. Below 0.1 is taken as stable,
0.1 to 0.25 as a shift worth a look, above as another population (Siddiqi 2006, Credit Risk Scorecards, ISBN
978-0-471-75451-0). Without any drift, n rows against many in training give about 9 / n, hence MIN_ROWS (Yurdakul and
Naranjo 2020, Statistical properties of the population stability index, Journal of Risk Model Validation 14). But n
counts rows that tell something new: a slow feature over a few minutes is one stretch of its life, and looks drifted.

What "now" is: the last rows, by exponential weights. Symbols are taken together, as they are in training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.errors import ModelError

MINOR, MAJOR = 0.1, 0.25  #: the usual bounds
ROWS = 5000  #: that the weights look back over
MIN_ROWS = 500  #: before anything is told
_FLOOR = 1e-4  #: of a share, for the logarithm: an empty bin
_RESCALE = 1e12


def statistics(values: np.ndarray) -> dict[str, Any]:
    """What a manifest keeps of its training rows, float[n, F]: `deciles`, F lists of 9; `shares`, F lists of 10, of
    the rows in each bin, which deciles alone do not tell where many rows have one value; `low` and `high`, F each."""
    deciles = np.quantile(values, np.arange(1, 10) / 10, axis=0).T.astype(np.float64)
    bins = np.stack([np.searchsorted(cuts, column) for cuts, column in zip(deciles, values.T)])
    shares = np.stack([np.bincount(column, minlength=10) for column in bins]) / len(values)
    shares = shares.round(6)
    return {"rows": len(values), "deciles": deciles.tolist(), "shares": shares.tolist(),
            "low": values.min(axis=0).tolist(), "high": values.max(axis=0).tolist()}


class Drift:
    """The columns of one model against its training rows. Memory: 300 bytes a column."""

    def __init__(self, columns: Sequence[str], told: Mapping[str, Any], rows: int = ROWS) -> None:
        """`told` is a manifest's `statistics`; `shares`, `low` and `high` may be missing. Raises ModelError naming an
        entry that does not fit the columns."""
        self.columns = tuple(columns)
        count = len(self.columns)
        cuts = _array(told, "deciles", (count, 9))
        if "shares" in told:
            self._expected = _array(told, "shares", (count, 10))
        else:
            cuts, self._expected = _from_deciles(cuts)
        self._cuts = cuts
        self._low, self._high = (_array(told, name, (count,)) if name in told else None for name in ("low", "high"))
        #: columns of which the deciles alone cannot tell anything: one value nearly everywhere
        self.untold = tuple(name for name, shares in zip(self.columns, self._expected)
                            if "shares" not in told and shares.max() > 0.999)
        self._counts, self._outside = np.zeros((count, 10)), np.zeros(count)
        self._each, self._growth = np.arange(count), 1 / (1 - 1 / rows)
        self._limit, self._weight, self._total = rows, 1.0, 0.0
        self.rows = 0  #: taken in so far

    def add(self, row: np.ndarray) -> None:
        """Take in one row, float32[F]. About 12 us. Newer rows weigh more, instead of older ones less."""
        weight = self._weight
        self._counts[self._each, (self._cuts < row[:, None]).sum(axis=1)] += weight
        if self._low is not None and self._high is not None:
            self._outside += weight * ((row < self._low) | (row > self._high))
        self._total += weight
        self.rows += 1
        self._weight = weight * self._growth
        if self._weight > _RESCALE:
            for sums in (self._counts, self._outside):
                sums /= self._weight
            self._total /= self._weight
            self._weight = 1.0

    def psi(self) -> np.ndarray:
        """float64[F]; zeros before the first row."""
        if not self.rows:
            return np.zeros(len(self.columns))
        actual = np.maximum(self._counts / self._total, _FLOOR)
        expected = np.maximum(self._expected, _FLOOR)
        return ((actual - expected) * np.log(actual / expected)).sum(axis=1)

    def outside(self) -> np.ndarray | None:
        """float64[F]: share of rows outside of the range of the training rows; None where that is not known."""
        if self._low is None or self._high is None:
            return None
        return self._outside / self._total if self.rows else self._outside.copy()

    def report(self, worst: int = 5) -> dict[str, Any]:
        """Rows behind it; how many columns shifted, how many of them are another population, and how many cannot be
        judged (`untold`); the `worst` columns as (column, PSI, share outside of the training range or None). Before
        MIN_ROWS the first two are None and no column is told."""
        psi, outside = self.psi(), self.outside()
        order = np.argsort(-psi, kind="stable")[:worst]
        enough = self.rows >= MIN_ROWS
        return {"rows": min(self.rows, self._limit), "shifted": int((psi > MINOR).sum()) if enough else None,
                "changed": int((psi > MAJOR).sum()) if enough else None, "untold": len(self.untold),
                "worst": [(self.columns[i], float(psi[i]), None if outside is None else float(outside[i]))
                          for i in order] if enough else []}


def _array(told: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        found = np.array(told[name], np.float64)
    except (KeyError, ValueError, TypeError):
        found = np.zeros(0)
    if found.shape != shape or np.isnan(found).any():
        raise ModelError("the manifest's statistics do not fit its columns",
                         where=f"statistics.{name}: {list(found.shape)}, wanted {list(shape)}",
                         remedy="train it again, or leave the statistics out")
    return found


def _from_deciles(deciles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts and shares where only deciles are known. A decile that comes twice is a value of many rows, of which it is
    not known how many lie at or below: it is no cut, and the bins beside it are one."""
    cuts, below = deciles.copy(), np.tile(np.arange(1, 10) / 10, (len(deciles), 1))
    for column, own in enumerate(deciles):
        cut, share = np.inf, 1.0
        for i in range(8, -1, -1):
            if (own == own[i]).sum() == 1:
                cut, share = own[i], (i + 1) / 10
            cuts[column, i], below[column, i] = cut, share
    edges = np.concatenate([np.zeros((len(deciles), 1)), below, np.ones((len(deciles), 1))], axis=1)
    return cuts, np.diff(edges, axis=1)
