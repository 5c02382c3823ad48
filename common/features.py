"""The features: one table of all there are. A model names those that it takes (`common.feature_set`).

Each feature is a function of the ticks of one symbol up to and including the newest, and of nothing else: no
receive time, no clock, no state older than its window. So live, replay and backtest give the same bits, and a
process that restarts gives them again as soon as its windows are full. `common.feature_kernel` computes them.

A run is a stretch of ticks on a synchronised book. It ends at a tick that was overwritten before it was read.
Where the book was lost and found again (a tick without FLAG_VALID, then one with FLAG_RESET), the new tick
begins a run if more than 10 s of venue time lie between, or if either time is unknown; else it bridges: the run
goes on, the return over the gap counts, its square and its order flow, which nobody saw, are 0.

Words used in the formulas, for tick n of a run, which is not its first:

    Pb_i Qb_i Pa_i Qa_i   price and quantity of level i, 1 = best. A level is present if both are above 0; an
                          absent level counts as quantity 0, and an absent best bid (ask) as a price below
                          (above) all others
    B_k, A_k              sums of Qb_i, Qa_i over levels 1..k
    mid                   (Pb_1 + Pa_1) / 2, defined while both best levels are present
    r_n                   ln(mid_n / mid_(n-1)), in steps of 2^-47; 0 where either mid is undefined
    r2_n                  min(r_n^2, 2^-10), in steps of 2^-63: one tick counts for at most 312 bps; 0 at a bridge
    e_n                   order flow of tick n at level 1, 0 at a bridge:
                          [Pb_n >= Pb_(n-1)] Qb_n - [Pb_n <= Pb_(n-1)] Qb_(n-1)
                          - [Pa_n <= Pa_(n-1)] Qa_n + [Pa_n >= Pa_(n-1)] Qa_(n-1)
    x_n                   traded quantity of tick n, above 0 if a buyer lifted the ask; 0 if it is no trade
    sum_k, mean_k         over the last k ticks

"bps of mid" is 10,000 times the quotient by mid; where mid is undefined the feature is 0, and so is any
quotient whose divisor is 0. Every value is held within +-1e6, so a row is always finite.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_ALWAYS = ("name", "formula", "unit", "window_ticks", "warm_up", "source")


class Feature(NamedTuple):
    name: str
    formula: str
    unit: str
    window_ticks: int  #: the newest ticks that it looks at
    warm_up: int  #: ticks of a run before its window is full
    source: str
    window_s: float = 0.0  #: the venue time that it looks back over, 0: none
    warm_up_s: float = 0.0  #: venue time of a run before its window is full
    fitted: bool = False  #: has numbers that were fitted on training data, for each symbol: they stand in the manifest

    def declaration(self) -> dict[str, Any]:
        """What defines it, for hashing; entries that say nothing are left out."""
        told = self._asdict()
        return {name: value for name, value in told.items() if value or name in _ALWAYS}


_ARTICLE = "Predictive Alpha: Pipeline Engineering for Real-Time Machine Learning Inference"
_CONT = "Cont, Kukanov, Stoikov 2014, The Price Impact of Order Book Events, doi:10.1093/jjfinec/nbt003"
_STOIKOV = "Stoikov 2018, The Micro-Price, doi:10.1080/14697688.2018.1489139 (its starting point)"
_CARTEA = "Cartea, Jaimungal, Penalva 2015, Algorithmic and High-Frequency Trading, ISBN 978-1-107-09114-6"


def _now(name: str, formula: str, unit: str, source: str) -> Feature:
    """A feature of the newest book alone."""
    return Feature(name, formula, unit, 1, 1, source)


def _over(name: str, formula: str, unit: str, window: int, source: str) -> Feature:
    """A feature of increments from tick to tick: the first one needs the tick before it."""
    return Feature(name, formula, unit, window, window + 1, source)


FEATURES: tuple[Feature, ...] = (
    _now("obi_1", "(B_1 - A_1) / (B_1 + A_1)", "ratio", _ARTICLE),
    _now("obi_3", "(B_3 - A_3) / (B_3 + A_3)", "ratio", _ARTICLE),
    _now("obi_5", "(B_5 - A_5) / (B_5 + A_5)", "ratio", _ARTICLE),
    _now("obi_10", "(B_10 - A_10) / (B_10 + A_10)", "ratio", _ARTICLE),
    _now("weighted_mid", "(Pb_1 Qa_1 + Pa_1 Qb_1) / (Qb_1 + Qa_1) - mid", "bps of mid", _STOIKOV),
    _now("micro_price", "(A_5 vb + B_5 va) / (A_5 + B_5) - mid, with vb (va) the mean bid (ask) price over 5 "
         "levels weighted by quantity", "bps of mid", _STOIKOV),
    _now("spread", "Pa_1 - Pb_1", "bps of mid", _ARTICLE),
    _now("micro_spread", "va - vb, as in micro_price", "bps of mid", _ARTICLE),
    _over("return_1", "sum_1 r", "bps", 1, _CARTEA),
    _over("return_10", "sum_10 r", "bps", 10, _CARTEA),
    _over("return_50", "sum_50 r", "bps", 50, _CARTEA),
    _over("return_200", "sum_200 r", "bps", 200, _CARTEA),
    _over("vol_20", "sqrt(mean_20 r2)", "bps per tick", 20, _ARTICLE),
    _over("vol_100", "sqrt(mean_100 r2)", "bps per tick", 100, _ARTICLE),
    _over("vol_250", "sqrt(mean_250 r2)", "bps per tick", 250, _ARTICLE),
    _over("ofi_1", "e / mean_100 (Qb_1 + Qa_1)/2", "level-1 depths", 100, _CONT),
    _over("ofi_20", "sum_20 e / mean_100 (Qb_1 + Qa_1)/2", "level-1 depths", 100, _CONT),
    _over("ofi_100", "sum_100 e / mean_100 (Qb_1 + Qa_1)/2", "level-1 depths", 100, _CONT),
    _over("trade_imbalance_20", "sum_20 x / sum_20 |x|", "ratio", 20, _CARTEA),
    _over("trade_imbalance_100", "sum_100 x / sum_100 |x|", "ratio", 100, _CARTEA),
    _over("trade_imbalance_250", "sum_250 x / sum_250 |x|", "ratio", 250, _CARTEA),
    _over("trade_age", "venue time since the last trade among the last 250 ticks, within 0..60; 60 if there is "
          "none or either tick has no venue time", "s", 250, _CARTEA),
    _now("front_tilt", "Qb_1 / B_5 - Qa_1 / A_5", "ratio", _CARTEA),
    _over("depth_250", "ln((B_5 + A_5) / mean_250 (B_5 + A_5)); 0 on an empty book", "log ratio", 250, _CARTEA),
)

VERSION = 1  #: of the definitions at the head of this file: to be raised where they change and no entry above does

BY_NAME: dict[str, Feature] = {feature.name: feature for feature in FEATURES}


def schema_hash(features: Sequence[Feature], parameters: Mapping[str, Mapping[str, Sequence[float]]] = {}) -> str:
    """SHA-256 over these entries of the table as canonical JSON: changes with any entry, with the order, and with the
    numbers of fitted features (feature -> symbol -> numbers)."""
    table: dict[str, Any] = {"version": VERSION, "features": [feature.declaration() for feature in features]}
    if parameters:
        table["parameters"] = parameters
    return hashlib.sha256(json.dumps(table, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


TABLE_HASH: str = schema_hash(FEATURES)  #: of all: writer and readers of a ring must have the same table
