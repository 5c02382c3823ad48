"""The formulas of the table of features, written out over whole columns of floats: slow, plain, sharing nothing with
the kernel. Each takes the `Levels` of one run and gives float64[N]."""

import functools
import math
from collections.abc import Callable

import numpy as np

from common import layout


class Levels:
    """The columns of `ticks` as floats, as the formulas name them; level i at index i - 1."""

    def __init__(self, ticks: np.ndarray) -> None:
        def take(first: int) -> np.ndarray:
            return ticks[:, first:first + layout.LEVELS].astype(float)

        self.Pb, self.Qb, self.Pa, self.Qa = map(take, (
            layout.BID_PX, layout.BID_QTY, layout.ASK_PX, layout.ASK_QTY))
        self.mid = (self.Pb[:, 0] + self.Pa[:, 0]) / 2
        self.two_sided = (self.Qb[:, 0] > 0) & (self.Qa[:, 0] > 0)
        self.time = ticks[:, layout.EVENT_NS]
        self.flags = ticks[:, layout.FLAGS]
        self.trade = ticks[:, layout.KIND] == layout.KIND_TRADE
        self.price = ticks[:, layout.TRADE_PX].astype(float)
        self.t = elapsed(self.time)
        self.x = np.where(ticks[:, layout.KIND] == layout.KIND_TRADE, ticks[:, layout.TRADE_QTY], 0).astype(float)

    def depths(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self.Qb[:, :k].sum(1), self.Qa[:, :k].sum(1)


def quotient(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole != 0)


def last(k: int, values: np.ndarray) -> np.ndarray:
    """sum_k: over the last k ticks, fewer at the beginning."""
    padded = np.concatenate([np.zeros(k), values])
    return np.lib.stride_tricks.sliding_window_view(padded, k)[1:].sum(1)


def obi(b: Levels, k: int) -> np.ndarray:
    bid, ask = b.depths(k)
    return quotient(bid - ask, bid + ask)


def in_bps_of_mid(b: Levels, value: np.ndarray) -> np.ndarray:
    return 1e4 * quotient(np.where(b.two_sided, value, 0.0), b.mid)


def mean_prices(b: Levels) -> tuple[np.ndarray, np.ndarray]:
    """vb - mid and va - mid over 5 levels."""
    return tuple(quotient((quantity[:, :5] * (price[:, :5] - b.mid[:, None])).sum(1), quantity[:, :5].sum(1))
                 for price, quantity in ((b.Pb, b.Qb), (b.Pa, b.Qa)))


def weighted_mid(b: Levels) -> np.ndarray:
    pb, qb, pa, qa = b.Pb[:, 0] - b.mid, b.Qb[:, 0], b.Pa[:, 0] - b.mid, b.Qa[:, 0]
    return in_bps_of_mid(b, quotient(pb * qa + pa * qb, qa + qb))


def micro_price(b: Levels) -> np.ndarray:
    (bid, ask), (vb, va) = b.depths(5), mean_prices(b)
    return in_bps_of_mid(b, quotient(ask * vb + bid * va, ask + bid))


def log_return(b: Levels) -> np.ndarray:
    r = np.zeros(len(b.mid))
    defined = b.two_sided[1:] & b.two_sided[:-1]
    r[1:][defined] = np.log(b.mid[1:][defined] / b.mid[:-1][defined])
    return r


def volatility(b: Levels, k: int) -> np.ndarray:
    return 1e4 * np.sqrt(last(k, np.minimum(log_return(b)**2, 2.0**-10)) / k)


def order_flow(b: Levels) -> np.ndarray:
    pb, pa = np.where(b.Qb[:, 0] > 0, b.Pb[:, 0], -np.inf), np.where(b.Qa[:, 0] > 0, b.Pa[:, 0], np.inf)
    qb, qa = b.Qb[:, 0], b.Qa[:, 0]
    e = np.zeros(len(pb))
    e[1:] = ((pb[1:] >= pb[:-1]) * qb[1:] - (pb[1:] <= pb[:-1]) * qb[:-1]
             - (pa[1:] <= pa[:-1]) * qa[1:] + (pa[1:] >= pa[:-1]) * qa[:-1])
    return e


def ofi(b: Levels, k: int) -> np.ndarray:
    return quotient(last(k, order_flow(b)), last(100, (b.Qb[:, 0] + b.Qa[:, 0]) / 2) / 100)


def trade_imbalance(b: Levels, k: int) -> np.ndarray:
    return quotient(last(k, b.x), last(k, np.abs(b.x)))


def trade_age(b: Levels) -> np.ndarray:
    age = np.full(len(b.x), 60.0)
    for n in range(len(age)):
        trades = np.flatnonzero(b.x[max(0, n - 249):n + 1])
        if len(trades):
            age[n] = np.clip((b.time[n] - b.time[max(0, n - 249) + trades[-1]]) / 1e9, 0, 60)
    return age


def front_tilt(b: Levels) -> np.ndarray:
    bid, ask = b.depths(5)
    return quotient(b.Qb[:, 0], bid) - quotient(b.Qa[:, 0], ask)


def depth_250(b: Levels) -> np.ndarray:
    depth = sum(b.depths(5))
    return np.log(np.where(depth > 0, quotient(depth, last(250, depth) / 250), 1.0))


REFERENCES: dict[str, Callable[[Levels], np.ndarray]] = {
    "obi_1": lambda b: obi(b, 1),
    "obi_3": lambda b: obi(b, 3),
    "obi_5": lambda b: obi(b, 5),
    "obi_10": lambda b: obi(b, 10),
    "weighted_mid": weighted_mid,
    "micro_price": micro_price,
    "spread": lambda b: in_bps_of_mid(b, b.Pa[:, 0] - b.Pb[:, 0]),
    "micro_spread": lambda b: in_bps_of_mid(b, mean_prices(b)[1] - mean_prices(b)[0]),
    "return_1": lambda b: 1e4 * log_return(b),
    "return_10": lambda b: 1e4 * last(10, log_return(b)),
    "return_50": lambda b: 1e4 * last(50, log_return(b)),
    "return_200": lambda b: 1e4 * last(200, log_return(b)),
    "vol_20": lambda b: volatility(b, 20),
    "vol_100": lambda b: volatility(b, 100),
    "vol_250": lambda b: volatility(b, 250),
    "ofi_1": lambda b: ofi(b, 1),
    "ofi_20": lambda b: ofi(b, 20),
    "ofi_100": lambda b: ofi(b, 100),
    "trade_imbalance_20": lambda b: trade_imbalance(b, 20),
    "trade_imbalance_100": lambda b: trade_imbalance(b, 100),
    "trade_imbalance_250": lambda b: trade_imbalance(b, 250),
    "trade_age": trade_age,
    "front_tilt": front_tilt,
    "depth_250": depth_250,
}


def elapsed(time: np.ndarray) -> np.ndarray:
    """t of each tick, ns: venue time where it goes on, carried on where not (no step back of more than 10 s here)."""
    return np.maximum.accumulate(np.maximum(time, 0))


def since(b: Levels, seconds: float) -> np.ndarray:
    """For each tick the index of the first tick in its window of so many seconds."""
    buckets = b.t // int(seconds * 1e9 / 64)
    return np.searchsorted(buckets, buckets - 64, side="right")


def in_time(b: Levels, seconds: float, values: np.ndarray) -> np.ndarray:
    """sum_T."""
    begins = since(b, seconds)
    return np.array([values[begins[n]:n + 1].sum() for n in range(len(values))], float)


def sides(b: Levels) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Prices and quantities of bids and asks, absent levels as a price beyond all others and quantity 0."""
    present_b, present_a = (b.Pb > 0) & (b.Qb > 0), (b.Pa > 0) & (b.Qa > 0)
    return ((np.where(present_b, b.Pb, -np.inf), np.where(present_b, b.Qb, 0)),
            (np.where(present_a, b.Pa, np.inf), np.where(present_a, b.Qa, 0)))


def level_flow(b: Levels, i: int) -> np.ndarray:
    (pb, qb), (pa, qa) = ((p[:, i - 1], q[:, i - 1]) for p, q in sides(b))
    e = np.zeros(len(pb))
    e[1:] = ((pb[1:] >= pb[:-1]) * qb[1:] - (pb[1:] <= pb[:-1]) * qb[:-1]
             - (pa[1:] <= pa[:-1]) * qa[1:] + (pa[1:] >= pa[:-1]) * qa[:-1])
    return e


def deep(b: Levels) -> np.ndarray:
    """mean_100 D_10."""
    return last(100, (sides(b)[0][1] + sides(b)[1][1]).sum(1) / 20) / 100


def top(b: Levels) -> np.ndarray:
    """mean_100 (Qb_1 + Qa_1)/2."""
    return last(100, (b.Qb[:, 0] + b.Qa[:, 0]) / 2) / 100


def ofi_level(b: Levels, i: int, k: int) -> np.ndarray:
    return quotient(last(k, level_flow(b, i)), deep(b))


def raw(b: Levels, column: str, i: int) -> np.ndarray:
    (pb, qb), (pa, qa) = sides(b)
    taken = {"ask_px": pa, "ask_qty": qa, "bid_px": pb, "bid_qty": qb}[column][:, i - 1]
    return np.where(np.isfinite(taken), taken, 0) / 1e8


def z_score(b: Levels, column: str, i: int) -> np.ndarray:
    values, present = raw(b, column, i), raw(b, column.replace("px", "qty"), i) > 0
    blocks = b.t // 10**10
    found = np.zeros(len(values))
    for block in np.unique(blocks):
        past = values[(blocks < block) & (blocks >= block - 6) & present]
        inside = (blocks == block) & present
        if len(past) and np.ptp(past) > 0:
            centre = past[0]  # near all of them, so that nothing is lost
            found[inside] = np.clip((values[inside] - centre - np.mean(past - centre)) / np.std(past - centre), -10, 10)
    return found


def depth_shape(b: Levels, side: int, what: str) -> np.ndarray:
    prices, quantities = sides(b)[side]
    found = np.zeros(len(prices))
    for n in np.flatnonzero(b.two_sided):
        here = quantities[n] > 0
        q = quantities[n][here]
        d, c = 1e4 * np.abs(prices[n][here] - b.mid[n]) / b.mid[n], np.cumsum(q) / q.sum()
        if what == "concavity":
            found[n] = np.mean(c - d / d[-1])
        elif len(q) > 1:
            d, c = d - np.average(d, weights=q), c - np.average(c, weights=q)
            found[n] = (q * d * c).sum() / (q * d * d).sum()
    return found


def change(b: Levels, k: int, window: int) -> np.ndarray:
    value = obi(b, k)
    return np.concatenate([np.zeros(min(window, len(value))), value[window:] - value[:-window]])


@functools.cache
def events(b: Levels, side: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """add and cut of each tick, from two books as dictionaries."""
    prices, quantities = sides(b)[side]
    add, cut = np.zeros(len(prices)), np.zeros(len(prices))
    for n in range(1, len(prices)):
        old, new = ({p: q for p, q in zip(prices[k][:depth], quantities[k][:depth]) if q > 0} for k in (n - 1, n))
        if side:
            old, new = ({-p: q for p, q in book.items()} for book in (old, new))
        ends = [min(book) for book in (old, new) if len(book) == depth]
        if depth == 1:  # only the best of both
            best = max([*old, *new], default=0)
            ends = [best]
        end = max(ends, default=-np.inf)
        for price in {*old, *new}:
            if price >= end:
                more = new.get(price, 0) - old.get(price, 0)
                add[n] += max(more, 0)
                cut[n] += max(-more, 0)
    return add, cut


def event_rate(b: Levels, name: str) -> np.ndarray:
    parts = name.split("_")
    side, depth = int("ask" in parts), 10 if parts[0] == "deep" else 1
    over = parts[-1]

    def total(values: np.ndarray) -> np.ndarray:
        return in_time(b, 10, values) / 10 if over == "10s" else last(100, values)

    add, cut = events(b, side, depth)
    unit = deep(b) if depth == 10 else top(b)
    if "add" in parts:
        return quotient(total(add), unit)
    hit = np.maximum(b.x, 0) if side else np.maximum(-b.x, 0)
    return quotient(np.maximum(total(cut) - total(hit), 0), unit)


def squares(b: Levels) -> np.ndarray:
    return np.minimum(log_return(b)**2, 2.0**-10)


def products(b: Levels) -> np.ndarray:
    r = np.abs(log_return(b))
    return np.concatenate([[0.0], np.minimum(r[1:] * r[:-1], 2.0**-10)])


def jump(total: Callable[[np.ndarray], np.ndarray], b: Levels) -> np.ndarray:
    whole = total(squares(b))
    return np.where(whole > 0, np.maximum(1 - quotient(math.pi / 2 * total(products(b)), whole), 0), 0.0)


def pairs(b: Levels) -> list[tuple[int, int]]:
    """Trades in a row at most 250 ticks apart: indices of both."""
    trades = np.flatnonzero(b.trade)
    return [(i, j) for i, j in zip(trades[:-1], trades[1:]) if j - i <= 250]


def sign_autocorrelation(b: Levels) -> np.ndarray:
    product, count = np.zeros(len(b.x)), np.zeros(len(b.x))
    for i, j in pairs(b):
        product[j], count[j] = np.sign(b.x[i]) * np.sign(b.x[j]), 1
    return quotient(last(250, product), last(250, count))


def kyle_lambda(b: Levels) -> np.ndarray:
    xy, xx = np.zeros(len(b.x)), np.zeros(len(b.x))
    for i, j in pairs(b):
        if b.two_sided[i] and b.two_sided[j]:
            xy[j], xx[j] = b.x[i] * np.log(b.mid[j] / b.mid[i]), b.x[i]**2
    return 1e4 * quotient(last(250, xy), last(250, xx)) * top(b)


def roll_spread(b: Levels) -> np.ndarray:
    product, count, steps = np.zeros(len(b.x)), np.zeros(len(b.x)), {}
    for i, j in pairs(b):
        if b.price[i] > 0 and b.price[j] > 0:
            steps[j] = np.log(b.price[j] / b.price[i])
            if i in steps:
                product[j], count[j] = np.clip(steps[j] * steps[i], -2.0**-10, 2.0**-10), 1
    return 2e4 * np.sqrt(np.maximum(-quotient(last(250, product), last(250, count)), 0))


def by_buckets(b: Levels, what: str) -> np.ndarray:
    """Price impact over the complete buckets of the last 60 s."""
    buckets, r = b.t // 937_500_000, log_return(b)
    numbers, firsts = np.unique(buckets, return_index=True)
    X, Y, V = (np.add.reduceat(values, firsts) for values in (b.x, r, np.abs(b.x)))
    found = np.zeros(len(r))
    for n in range(len(r)):
        inside = (numbers < buckets[n]) & (numbers > buckets[n] - 64)
        if what == "kyle" and (X[inside]**2).sum() > 0:
            found[n] = (X[inside] * Y[inside]).sum() / (X[inside]**2).sum()
        if what == "amihud" and (V[inside] > 0).any():
            found[n] = np.mean(np.abs(Y[inside & (V > 0)]) / V[inside & (V > 0)])
    return 1e4 * found * top(b)


def faded(b: Levels, half: str, values: np.ndarray) -> np.ndarray:
    """Sums with exponential weights; means where the half-life is in ticks."""
    seconds = half.endswith("s")
    at = b.t / 1e9 / float(half[:-1]) if seconds else np.arange(len(values)) / float(half)
    found, total = np.zeros(len(values)), 0.0
    for n in range(len(values)):
        total = total * 2.0**(at[n - 1] - at[n] if n else 0) + values[n]
        found[n] = total
    return found if seconds else found * (1 - 2.0**(-1 / float(half)))


def ewma(b: Levels, name: str) -> np.ndarray:
    _, what, half = name.split("_")
    if what == "return":
        return 1e4 * faded(b, half, log_return(b))
    if what == "vol":
        return 1e4 * np.sqrt(faded(b, half, squares(b)))
    if what == "ofi":
        return quotient(faded(b, half, order_flow(b)), top(b))
    return quotient(faded(b, half, b.x), faded(b, half, np.abs(b.x)))


def changed(b: Levels) -> np.ndarray:
    """For each tick the index of the last tick at which the best prices changed; the first of the run is one."""
    (pb, _), (pa, _) = sides(b)
    moved = np.concatenate([[True], (pb[1:, 0] != pb[:-1, 0]) | (pa[1:, 0] != pa[:-1, 0])])
    return np.maximum.accumulate(np.where(moved, np.arange(len(moved)), 0))


def day(b: Levels) -> np.ndarray:
    return 2 * math.pi * (b.t % 86_400_000_000_000) / 86_400_000_000_000


# Numbers of the fitted features, such as they could be.

WEIGHTS = [0.19, 0.14, 0.12, 0.11, 0.1, 0.09, 0.08, 0.07, 0.06, 0.04]
BUCKETS = (10, 3)  #: of imbalance, of spread
MOVES = [[(i - 4.5) * (0.1 + 0.03 * j) for j in range(3)] for i in range(10)]  #: g*, in ticks


def parameters(tick: int, volume: int, symbol: str = "X") -> dict[str, dict[str, list[float]]]:
    table = [float(tick), *map(float, BUCKETS), *(move for row in MOVES for move in row)]
    return {"integrated_ofi_100": {symbol: WEIGHTS}, "micro_price_fitted": {symbol: table},
            "vpin_50": {symbol: [float(volume)]}}


def integrated(b: Levels, told: dict) -> np.ndarray:
    return sum(weight * ofi_level(b, i, 100) for i, weight in enumerate(WEIGHTS, 1))


def expected_move(b: Levels, told: dict) -> np.ndarray:
    tick = told["micro_price_fitted"]["X"][0]
    found = np.zeros(len(b.mid))
    for n in np.flatnonzero(b.two_sided):
        i = min(int(b.Qb[n, 0] / (b.Qb[n, 0] + b.Qa[n, 0]) * BUCKETS[0]), BUCKETS[0] - 1)
        j = min(max(round((b.Pa[n, 0] - b.Pb[n, 0]) / tick), 1), BUCKETS[1]) - 1
        found[n] = 1e4 * MOVES[i][j] * tick / b.mid[n]
    return found


def vpin(b: Levels, told: dict) -> np.ndarray:
    """With each trade cut where it fills a bucket: the running sums of what was traded and of its sign tell."""
    volume, found = int(told["vpin_50"]["X"][0]), np.zeros(len(b.x))
    buckets: list[int] = []
    filled = signed = 0
    for n, x in enumerate(b.x.astype(int).tolist()):
        left = abs(x)
        while left:
            part = min(left, volume - filled)
            filled, signed, left = filled + part, signed + (part if x > 0 else -part), left - part
            if filled == volume:
                buckets.append(abs(signed))
                filled = signed = 0
        if buckets:
            found[n] = sum(buckets[-50:]) / (len(buckets[-50:]) * volume)
    return found


_COLUMNS = ("ask_px", "ask_qty", "bid_px", "bid_qty")
for _i in range(1, 11):
    for _column in _COLUMNS:
        REFERENCES[f"{_column}_{_i}"] = lambda b, c=_column, i=_i: raw(b, c, i)
        REFERENCES[f"{_column}_{_i}_z"] = lambda b, c=_column, i=_i: z_score(b, c, i)
    REFERENCES[f"ofi_level_{_i}"] = lambda b, i=_i: ofi_level(b, i, 100)
    REFERENCES[f"ofi_20_level_{_i}"] = lambda b, i=_i: ofi_level(b, i, 20)
for _side, _name in enumerate(("bid", "ask")):
    for _what in ("slope", "concavity"):
        REFERENCES[f"depth_{_what}_{_name}"] = lambda b, s=_side, w=_what: depth_shape(b, s, w)
    for _over in ("100", "10s"):
        for _deep in ("", "deep_"):
            for _what in ("add", "cancel"):
                _key = f"{_deep}{_what}_{_name}_{_over}"
                REFERENCES[_key] = lambda b, key=_key: event_rate(b, key)
for _k in (1, 5):
    for _window in (1, 10, 50):
        REFERENCES[f"obi_{_k}_change_{_window}"] = lambda b, k=_k, w=_window: change(b, k, w)
for _window in (100, 250):
    REFERENCES[f"bipower_{_window}"] = lambda b, k=_window: 1e4 * np.sqrt(math.pi / 2 * last(k, products(b)) / k)
REFERENCES["jump_250"] = lambda b: jump(lambda values: last(250, values), b)
REFERENCES["jump_60s"] = lambda b: jump(lambda values: in_time(b, 60, values), b)
for _s in (1, 10, 60):
    REFERENCES[f"return_{_s}s"] = lambda b, s=_s: 1e4 * in_time(b, s, log_return(b))
    REFERENCES[f"vol_{_s}s"] = lambda b, s=_s: 1e4 * np.sqrt(in_time(b, s, squares(b)))
    REFERENCES[f"bipower_{_s}s"] = lambda b, s=_s: 1e4 * np.sqrt(math.pi / 2 * in_time(b, s, products(b)))
    REFERENCES[f"trade_rate_{_s}s"] = lambda b, s=_s: in_time(b, s, b.trade) / s
    REFERENCES[f"tick_rate_{_s}s"] = lambda b, s=_s: in_time(b, s, np.ones(len(b.x))) / s
    REFERENCES[f"trade_imbalance_{_s}s"] = lambda b, s=_s: quotient(in_time(b, s, b.x), in_time(b, s, np.abs(b.x)))
    REFERENCES[f"turnover_{_s}s"] = lambda b, s=_s: quotient(in_time(b, s, np.abs(b.x)) / s, top(b))
REFERENCES["sign_autocorrelation_250"] = sign_autocorrelation
REFERENCES["kyle_lambda_250"] = kyle_lambda
REFERENCES["kyle_lambda_60s"] = lambda b: by_buckets(b, "kyle")
REFERENCES["amihud_60s"] = lambda b: by_buckets(b, "amihud")
REFERENCES["roll_spread_250"] = roll_spread
for _half in ("16", "128", "1024", "1s", "10s"):
    for _what in ("return", "vol", "ofi", "imbalance"):
        _key = f"ewma_{_what}_{_half}"
        REFERENCES[_key] = lambda b, key=_key: ewma(b, key)
REFERENCES["book_age"] = lambda b: np.minimum((b.t - b.t[changed(b)]) / 1e9, 60)
REFERENCES["book_age_ticks"] = lambda b: np.minimum(np.arange(len(b.t)) - changed(b), 250)
REFERENCES["day_sin"] = lambda b: np.sin(day(b))
REFERENCES["day_cos"] = lambda b: np.cos(day(b))

FITTED: dict[str, Callable[[Levels, dict], np.ndarray]] = {
    "integrated_ofi_100": integrated, "micro_price_fitted": expected_move, "vpin_50": vpin}
