"""The features: one table of all there are. A model names those that it takes (`common.features.choice`).

Each feature is a function of the ticks of one symbol up to and including the newest, and of nothing else: no
receive time, no clock, no state older than its window (those marked `from_run` remember their whole run, with weights
that fade). So live, replay and backtest give the same bits, and a process that restarts gives them again as soon as
its windows are full. `common.features.kernel` computes them.

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
    e^i_n                 order flow at level i: as e_n, with Pb_i, Qb_i, Pa_i, Qa_i of both ticks
    D_k                   mean depth, (1/k) sum_(i<=k) (Qb_i + Qa_i)/2, a side and level
    bp_n                  min(|r_n r_(n-1)|, 2^-10), in steps of 2^-63; 0 where either return is over a bridge
    s_j                   sign of the j-th trade; a pair is two trades in a row, at most 250 ticks apart
    t_n                   venue time as the windows in seconds count it, below
    add, cut              quantity that came to, went from the best level of a side since the tick before (0 at a
                          bridge): at the same price what it grew or shrank by; at a better price all of the new
                          level came; at a worse one all of the old level went. add^10, cut^10: over ten levels a
                          side, matched by price, as far down as both books show every level
    sold, bought          traded quantity of sellers, of buyers: (|x| - x)/2, (|x| + x)/2

Time. t_n is the venue time of the tick where that is above t_(n-1), else t_(n-1) goes on: also where the venue gives
none, or steps back a little. A venue time more than 10 s below t_(n-1) sets t_n to it, and what is counted in time
begins anew. A jump ahead lets the windows run empty, as a long silence does. Until a run has its first venue time, t
is unknown, and what is counted in time is 0. A window of T seconds is 64 buckets of T/64, aligned in venue time: the
one that holds t_n and the 63 before it, so between 63/64 T and T; sum_T is over the ticks in it. A feature with
warm_up_s is warm once so much venue time of the run has passed; ROW_RUN is 0 before.

A z-score is (value - mean) / standard deviation, within +-10, 0 where the deviation is 0, with mean and deviation of
the ticks in the last six complete blocks of 10 s, aligned in venue time: of the past alone. A level that is absent
counts in none, and its z-score is 0.

"bps of mid" is 10,000 times the quotient by mid; where mid is undefined the feature is 0, and so is any
quotient whose divisor is 0. Every value but the raw levels, which are below 1e11, is held within +-1e6, so a row is
always finite.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
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
    from_run: bool = False  #: remembers its whole run, not only the window: it needs the ticks, or a checkpoint

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


_BASE: tuple[Feature, ...] = (
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

_DEEPLOB = "Zhang, Zohren, Roberts 2019, DeepLOB, arXiv:1808.03668"
_MLOFI = "Xu, Gould, Howison 2019, Multi-Level Order-Flow Imbalance, arXiv:1907.06230; divided by depth as in " \
         "arXiv:2112.13213"
_INTEGRATED = "Cont, Cucuringu, Zhang 2023, Cross-Impact of Order Flow Imbalance, arXiv:2112.13213"
_MICRO = "Stoikov 2018, The Micro-Price, doi:10.1080/14697688.2018.1489139"
_NAES = "after Naes, Skjeltorp 2006, Order book characteristics, doi:10.1016/j.finmar.2006.04.001"
_LORENZ = "the area between a Lorenz curve and its diagonal, doi:10.2307/2276207"
_GOULD = "Gould, Bonart 2016, Queue Imbalance as a One-Tick-Ahead Price Predictor, arXiv:1512.03492"
_RATES = "Cont, Stoikov, Talreja 2010, A Stochastic Model for Order Book Dynamics, doi:10.1287/opre.1090.0780"
_BNS = "Barndorff-Nielsen, Shephard 2004, Power and Bipower Variation, doi:10.1093/jjfinec/nbh001"
_REALISED = "Andersen, Bollerslev, Diebold, Labys 2003, doi:10.1111/1468-0262.00418"
_SIGNS = "Lillo, Farmer 2004, The Long Memory of the Efficient Market, arXiv:cond-mat/0311053"
_DURATIONS = "Engle, Russell 1998, Autoregressive Conditional Duration, doi:10.2307/2999632"
_KYLE = "Kyle 1985, Continuous Auctions and Insider Trading, doi:10.2307/1913210"
_AMIHUD = "Amihud 2002, Illiquidity and stock returns, doi:10.1016/S1386-4181(01)00024-6"
_ROLL = "Roll 1984, doi:10.1111/j.1540-6261.1984.tb03897.x, on trades"
_VPIN = "Easley, Lopez de Prado, O'Hara 2012, doi:10.1093/rfs/hhs053; sides as the venue tells them"
_EWMA = "J.P. Morgan, Reuters 1996, RiskMetrics: exponential weights"

_SIDES = (("ask_px", "Pa", "price"), ("ask_qty", "Qa", "units"), ("bid_px", "Pb", "price"), ("bid_qty", "Qb", "units"))
_TOP_DEPTH = "mean_100 (Qb_1 + Qa_1)/2"
HALF_TICKS = (16, 128, 1024)  #: half-lives of the exponential weights, in ticks
HALF_SECONDS = (1, 10)  #: and in seconds of t
WINDOWS_S = (1, 10, 60)  #: the windows in seconds of t


def _timed(name: str, formula: str, unit: str, seconds: float, source: str, ticks: int = 1) -> Feature:
    """A feature of increments over a window in time, maybe divided by a mean over `ticks`."""
    return Feature(name, formula, unit, ticks, ticks + 1, source, float(seconds), float(seconds))


def _faded(name: str, formula: str, unit: str, half: str, source: str, ticks: int = 1) -> Feature:
    """A feature with exponential weights: warm after two half-lives, when it has three quarters of its weight."""
    if half.endswith("s"):
        return Feature(name, formula, unit, ticks, ticks + 1, source, 0.0, 2.0 * float(half[:-1]), from_run=True)
    return Feature(name, formula, unit, ticks, max(2 * int(half), ticks) + 1, source, from_run=True)


def _exponential() -> tuple[Feature, ...]:
    found: list[Feature] = []
    halves = [(str(half), f"w = 2^(-age in ticks / {half})", "(1 - 2^(-1/%d)) sum w" % half) for half in HALF_TICKS]
    halves += [(f"{half}s", f"w = 2^(-age in s / {half})", "sum w") for half in HALF_SECONDS]
    for half, weight, mean in halves:
        unit = "bps" if half.endswith("s") else "bps per tick"
        found += [
            _faded(f"ewma_return_{half}", f"{mean} r over the run, {weight}", unit, half, _EWMA),
            _faded(f"ewma_vol_{half}", f"sqrt({mean} r2) over the run, {weight}", unit, half, _EWMA),
            _faded(f"ewma_ofi_{half}", f"{mean} e over the run / {_TOP_DEPTH}, {weight}", "level-1 depths", half, _EWMA,
                   100),
            _faded(f"ewma_imbalance_{half}", f"sum w x / sum w |x| over the run, {weight}", "ratio", half, _EWMA)]
    return tuple(found)


def _events(over: str, per: str, unit: str, make: Callable[..., Feature]) -> tuple[Feature, ...]:
    """Quantity that came and that went, of one window."""
    found = []
    for head, mark, depth in (("", "", _TOP_DEPTH), ("deep_", "^10", "mean_100 D_10")):
        for side, hit in (("bid", "sold"), ("ask", "bought")):
            found.append(make(f"{head}add_{side}_{over}", f"sum_{over} add{mark} of the {side} / {depth}{per}", unit))
            found.append(make(f"{head}cancel_{side}_{over}", f"max(sum_{over} cut{mark} of the {side} - "
                              f"sum_{over} {hit}, 0) / {depth}{per}", unit))
    return tuple(found)


#: the 40 columns of DeepLOB in its order: ask price, ask quantity, bid price, bid quantity, level by level
_LEVELS = tuple(_now(f"{name}_{i}", f"{symbol}_{i}, 0 if the level is absent", unit, _DEEPLOB)
                for i in range(1, 11) for name, symbol, unit in _SIDES)
_LEVELS_Z = tuple(Feature(f"{name}_{i}_z", f"z-score of {symbol}_{i}", "deviations", 1, 1, _DEEPLOB, 70.0, 70.0)
                  for i in range(1, 11) for name, symbol, _ in _SIDES)
_MULTI = tuple(_over(f"ofi_level_{i}", f"sum_100 e^{i} / mean_100 D_10", "level depths", 100, _MLOFI)
               for i in range(1, 11))
_MULTI += tuple(_over(f"ofi_20_level_{i}", f"sum_20 e^{i} / mean_100 D_10", "level depths", 100, _MLOFI)
                for i in range(1, 11))
_SHAPE = tuple(
    feature for side, price in (("bid", "Pb"), ("ask", "Pa")) for feature in (
        _now(f"depth_slope_{side}", f"least squares of c_i on d_i, weighted by quantity, over the levels of the {side} "
             f"that are present: d_i = |{price}_i - mid| in bps of mid, c_i the share of its quantity up to level i",
             "share per bp", _NAES),
        _now(f"depth_concavity_{side}", f"mean over the levels of the {side} that are present of c_i - d_i / d_last, "
             f"as in depth_slope_{side}: above 0 where quantity is near the best price", "ratio", _LORENZ)))
_CHANGES = tuple(_over(f"obi_{k}_change_{window}", f"obi_{k} - obi_{k} of {window} ticks before, 0 if there is none",
                       "difference", window, _GOULD) for k in (1, 5) for window in (1, 10, 50))
_EVENTS = _events("100", "", "depths", lambda *told: _over(*told, 100, _RATES))
_EVENTS += _events("10s", " / 10 s", "depths per s", lambda *told: _timed(*told, 10, _RATES, 100))
_VOLATILITY = (
    Feature("bipower_100", "sqrt(pi/2 mean_100 bp)", "bps per tick", 101, 102, _BNS),
    Feature("bipower_250", "sqrt(pi/2 mean_250 bp)", "bps per tick", 251, 252, _BNS),
    Feature("jump_250", "max(1 - pi/2 sum_250 bp / sum_250 r2, 0)", "share", 251, 252, _BNS),
    *(feature for s in WINDOWS_S for feature in (
        _timed(f"return_{s}s", f"sum_{s}s r", "bps", s, _CARTEA),
        _timed(f"vol_{s}s", f"sqrt(sum_{s}s r2)", "bps", s, _REALISED),
        _timed(f"bipower_{s}s", f"sqrt(pi/2 sum_{s}s bp)", "bps", s, _BNS, 2))),
    _timed("jump_60s", "max(1 - pi/2 sum_60s bp / sum_60s r2, 0)", "share", 60, _BNS, 2),
)
_FLOW = (
    *(feature for s in WINDOWS_S for feature in (
        _timed(f"trade_rate_{s}s", f"trades in the window / {s} s", "1/s", s, _DURATIONS),
        _timed(f"tick_rate_{s}s", f"ticks in the window / {s} s", "1/s", s, _DURATIONS),
        _timed(f"trade_imbalance_{s}s", f"sum_{s}s x / sum_{s}s |x|", "ratio", s, _CARTEA),
        _timed(f"turnover_{s}s", f"sum_{s}s |x| / {s} s / {_TOP_DEPTH}", "level-1 depths per s", s, _CARTEA, 100))),
    Feature("sign_autocorrelation_250", "mean of s_j s_(j-1) over the pairs whose later trade is in the last 250 "
            "ticks", "ratio", 500, 501, _SIGNS),
    Feature("kyle_lambda_250", f"sum x_(j-1) y_j / sum x_(j-1)^2 over the pairs whose later trade is in the last 250 "
            f"ticks, y_j = ln(mid at j / mid at j-1), |x| held at 2^52, times {_TOP_DEPTH}",
            "bps per level-1 depth", 500, 501, _KYLE),
    _timed("kyle_lambda_60s", f"sum X Y / sum X^2 over the 63 complete buckets of the window, X, Y = sums of x, r in "
           f"a bucket, times {_TOP_DEPTH}", "bps per level-1 depth", 60, _KYLE, 100),
    _timed("amihud_60s", f"mean of |Y| / sum |x| over the complete buckets of the window with trades, times "
           f"{_TOP_DEPTH}", "bps per level-1 depth", 60, _AMIHUD, 100),
    Feature("roll_spread_250", "2 sqrt(max(-mean of d_j d_(j-1), 0)) over pairs of pairs whose last trade is in the "
            "last 250 ticks, d_j = ln(trade price j / trade price j-1), |d_j d_(j-1)| held at 2^-10", "bps", 750, 751,
            _ROLL),
)
_CLOCK = (
    Feature("book_age", "t since the best prices last changed in the run, at most 60", "s", 1, 1, _DURATIONS, 60.0,
            60.0),
    Feature("book_age_ticks", "ticks since the best prices last changed in the run, at most 250", "ticks", 250, 251,
            _DURATIONS),
    _now("day_sin", "sin(2 pi t / day), UTC", "ratio", "the hour on a circle"),
    _now("day_cos", "cos(2 pi t / day), UTC; 0 where t is unknown", "ratio", "the hour on a circle"),
)
_FITTED = (
    Feature("integrated_ofi_100", "sum_m w_m ofi_level_m; numbers: the 10 weights w, of the first principal component, "
            "with sum |w| = 1", "level depths", 100, 101, _INTEGRATED, fitted=True),
    Feature("micro_price_fitted", "g*[imbalance bucket, spread bucket] tick, what mid is expected to move by; numbers: "
            "tick (1e-8), n, m, then g* by rows [n, m] in ticks; buckets: min(floor(n Qb_1/(Qb_1 + Qa_1)), n - 1) and "
            "min(max(round((Pa_1 - Pb_1) / tick), 1), m) - 1", "bps of mid", 1, 1, _MICRO, fitted=True),
    Feature("vpin_50", "sum |bought - sold| / sum traded over the last 50 full buckets of volume of the run, fewer "
            "while there are fewer; numbers: the volume of a bucket (1e-8). A trade is split where it fills a bucket",
            "share", 1, 2, _VPIN, fitted=True, from_run=True),
)

FEATURES: tuple[Feature, ...] = (
    *_BASE, *_LEVELS, *_LEVELS_Z, *_MULTI, *_SHAPE, *_CHANGES, *_EVENTS, *_VOLATILITY, *_FLOW, *_exponential(), *_CLOCK,
    *_FITTED)


def _names(features: Sequence[Feature]) -> tuple[str, ...]:
    return tuple(feature.name for feature in features)


LEVELS, LEVELS_Z = _names(_LEVELS), _names(_LEVELS_Z)

#: sets by name, for command lines: each feature is in one of them, and in "all" where it needs no fitting
GROUPS: dict[str, tuple[str, ...]] = {
    "default": _names(_BASE), "levels": LEVELS, "levels_z": LEVELS_Z, "mlofi": _names(_MULTI), "shape": _names(_SHAPE),
    "changes": _names(_CHANGES), "events": _names(_EVENTS), "volatility": _names(_VOLATILITY), "flow": _names(_FLOW),
    "ewma": _names(_exponential()), "clock": _names(_CLOCK), "fitted": _names(_FITTED),
    "all": _names([feature for feature in FEATURES if not feature.fitted])}

#: the range of a feature that is bounded, by its unit
LIMITS: dict[str, tuple[float, float]] = {
    "ratio": (-1, 1), "share": (0, 1), "difference": (-2, 2), "s": (0, 60), "ticks": (0, 250), "deviations": (-10, 10)}

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
