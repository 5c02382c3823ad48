"""What came of a backtest, from what went by and what was done. Pure: numbers in, a tree of numbers out.

    tree, curves = report(symbols, orders, fills, horizon_s)

Profit is exact: every fill is booked in integers, as the executor does it (`common.positions`), and what is held at the
end is worth the last mid. It is then taken apart, each part in quote currency, above 0 where it cost:

    signal            side * quantity * (mid at the end - mid at the decision), summed: what would have been earned had
                      every fill been at the mid at the moment of its decision, and free
    - latency         side * quantity * (mid at the fill - mid at the decision): the market moved meanwhile
    - spread          side * quantity * (price - mid at the fill): half the spread, and depth eaten into; below 0 for a
                      fill that rested
    - fees
    = net profit

The markout of a fill is side * (mid after tau - price), in bps of the price: what it was worth a little later, fees
apart. Its fall from tau = 0 on is adverse selection: the market went against those who traded with us less than it
went against us. Mids are those of the newest tick received at or before the time; there is none while a book is not
valid, and what needs one leaves such fills out and says how many there were.

A drawdown is the fall of equity below its highest, seen at every fill and on a grid of STEPS times over the run.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from common.calibration import Calibration
from common.fixed import SCALE
from common.orders import BUY, SIDE_NAMES
from common.positions import MONEY, Position

STEPS = 2000  #: of the grid on which equity is seen
MARKOUTS_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_S = 1_000_000_000
_BPS = 1e4


class Fill(NamedTuple):
    """What was traded; prices and quantities in 1e-8, times in ns of the recording."""

    symbol: int
    side: int
    qty: int
    price: int
    fee: int  #: 1e-8 of quote currency
    at_ns: int
    decided_ns: int


class Track:
    """The mid of one symbol at any time. `ticks` is int64[n, 4]: recv_ns, bid, ask, valid."""

    def __init__(self, ticks: np.ndarray) -> None:
        self.times = np.maximum.accumulate(ticks[:, 0]) if len(ticks) else ticks[:, 0]
        sound = (ticks[:, 3] != 0) & (ticks[:, 1] > 0) & (ticks[:, 2] > 0)
        self.doubled = np.where(sound, ticks[:, 1] + ticks[:, 2], 0)  #: bid + ask, 1e-8; 0 where there is no mid
        self.spread = np.where(sound, ticks[:, 2] - ticks[:, 1], 0)

    def at(self, times: np.ndarray) -> np.ndarray:
        """float64[n], the mid in quote currency; NaN before the first tick, after the last, and where there is none."""
        place = np.searchsorted(self.times, times, side="right") - 1
        known = (place >= 0) & (times <= (self.times[-1] if len(self.times) else -1))
        found = np.where(known, self.doubled[place] if len(self.times) else 0, 0)
        return np.where(found > 0, found / (2 * SCALE), np.nan)

    def last(self) -> int:
        """The last mid there was, doubled, 1e-8; 0 if there never was one."""
        found = np.flatnonzero(self.doubled)
        return int(self.doubled[found[-1]]) if found.size else 0


class Symbol(NamedTuple):
    name: str
    ticks: np.ndarray  #: int64[n, 4]: recv_ns, bid, ask, valid
    predicted_ns: np.ndarray  #: int64[m]
    answers: np.ndarray  #: float64[m, 2]: p_up, p_down


class Curves(NamedTuple):
    """For pictures: what changes over time, on one grid. Money in quote currency."""

    times: np.ndarray  #: int64[k], Unix ns
    equity: np.ndarray  #: float64[k], fees included
    gross: np.ndarray  #: float64[k], without fees
    drawdown: np.ndarray  #: float64[k], 0 or below
    positions: np.ndarray  #: float64[symbols, k], value held, sales negative
    traded_ns: np.ndarray  #: int64[fills]


def report(symbols: Sequence[Symbol], fills: Sequence[Fill], orders: int, horizon_s: float) -> tuple[dict, Curves]:
    """(tree, curves). Cost: 3 us a prediction, 10 us a fill."""
    tracks = [Track(symbol.ticks) for symbol in symbols]
    table = np.array(fills, np.int64).reshape(-1, len(Fill._fields)) if fills else np.zeros((0, 7), np.int64)
    span = _span(symbols)
    curves = _curves(tracks, table, span)
    books = [_book(track, [fill for fill in fills if fill.symbol == i]) for i, track in enumerate(tracks)]
    net = sum(book["net_1e16"] for book in books)
    seconds = (span[1] - span[0]) / _S
    turnover = sum(book["turnover"] for book in books)
    told = {
        "time": {"from_ns": span[0], "to_ns": span[1], "seconds": seconds},
        "profit": {
            "net": _money(net), "gross": _money(sum(book["gross_1e16"] for book in books)),
            "fees": sum(book["fees"] for book in books),
            "net_1e16": str(net),
            "net_bps_of_turnover": _ratio(_money(net) * _BPS, turnover),
            "max_drawdown": float(-curves.drawdown.min(initial=0.0)),
            "highest": float(curves.equity.max(initial=0.0)), "lowest": float(curves.equity.min(initial=0.0))},
        "trading": {
            "orders": orders, "fills": len(fills), "turnover": turnover,
            "turnover_per_hour": _ratio(turnover * 3600, seconds),
            "largest_position": float(np.abs(curves.positions).max(initial=0.0))},
        "costs": _costs(tracks, table, net),
        "fills": _quality(tracks, table, horizon_s),
        "symbols": {symbol.name: {**{key: value for key, value in book.items() if not key.endswith("_1e16")},
                                  "ticks": len(symbol.ticks), "predictions": len(symbol.predicted_ns),
                                  "spread_bps": _spread(track)}
                    for symbol, book, track in zip(symbols, books, tracks)},
        "calibration": {symbol.name: _calibration(symbol, track, horizon_s)
                        for symbol, track in zip(symbols, tracks)},
    }
    return told, curves


def _span(symbols: Sequence[Symbol]) -> tuple[int, int]:
    ends = [(int(symbol.ticks[0, 0]), int(symbol.ticks[:, 0].max())) for symbol in symbols if len(symbol.ticks)]
    return (min(a for a, _ in ends), max(b for _, b in ends)) if ends else (0, 0)


def _book(track: Track, fills: Sequence[Fill]) -> dict[str, Any]:
    """One symbol's account, exact until it is shown."""
    position, volume, traded = Position(), 0, 0
    for fill in fills:
        position.fill(fill.side, fill.qty, fill.price, fill.fee)
        volume += fill.qty
        traded += fill.qty * fill.price
    unrealised = position.qty * track.last() // 2 - position.cost if position.qty else 0
    gross = position.realised + unrealised
    return {"fills": len(fills), "bought": sum(fill.side == BUY for fill in fills), "volume": volume / SCALE,
            "turnover": _money(traded), "realised": _money(position.realised), "unrealised": _money(unrealised),
            "fees": position.fees / SCALE, "net": _money(gross - position.fees * SCALE),
            "position": position.qty / SCALE, "gross_1e16": gross, "net_1e16": gross - position.fees * SCALE}


def _curves(tracks: Sequence[Track], table: np.ndarray, span: tuple[int, int]) -> Curves:
    """Equity at each step of the grid and at each fill."""
    grid = np.linspace(*span, STEPS + 1).astype(np.int64) if span[1] > span[0] else np.array([span[0]])
    times = np.unique(np.concatenate((grid, table[:, 5])))
    equity, fees = np.zeros(len(times)), np.zeros(len(times))
    positions = np.zeros((len(tracks), len(times)))
    for i, track in enumerate(tracks):
        mine = table[table[:, 0] == i]
        order = np.argsort(mine[:, 5], kind="stable")
        mine = mine[order]
        signed = mine[:, 1] * mine[:, 2] / SCALE
        count = np.searchsorted(mine[:, 5], times, side="right")
        held = np.concatenate(([0.0], np.cumsum(signed)))[count]
        cash = np.concatenate(([0.0], np.cumsum(-signed * mine[:, 3] / SCALE)))[count]
        fees += np.concatenate(([0.0], np.cumsum(mine[:, 4] / SCALE)))[count]
        positions[i] = held * _filled(track.at(times))
        equity += cash + positions[i]
    net = equity - fees
    highest = np.maximum.accumulate(np.maximum(net, 0.0))
    return Curves(times, net, equity, net - highest, positions, np.sort(table[:, 5]))


def _filled(mids: np.ndarray) -> np.ndarray:
    """The last known mid where there is none; 0 before the first."""
    place = np.maximum.accumulate(np.where(np.isnan(mids), -1, np.arange(len(mids))))
    return np.where(place >= 0, mids[place], 0.0)


def _mids(tracks: Sequence[Track], table: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The mid of each fill's symbol at `times`."""
    found = np.full(len(table), np.nan)
    for i, track in enumerate(tracks):
        mine = table[:, 0] == i
        found[mine] = track.at(times[mine])
    return found


def _columns(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Side, quantity and price of fills as floats."""
    return table[:, 1].astype(float), table[:, 2] / SCALE, table[:, 3] / SCALE


def _costs(tracks: Sequence[Track], table: np.ndarray, net: int) -> dict[str, Any]:
    side, qty, price = _columns(table)
    decided, filled = _mids(tracks, table, table[:, 6]), _mids(tracks, table, table[:, 5])
    later = _mids(tracks, table, table[:, 5] + 10 * _S)
    known = ~(np.isnan(decided) | np.isnan(filled))
    latency = float((side * qty * (filled - decided))[known].sum())
    spread = float((side * qty * (price - filled))[known].sum())
    fees = float(table[:, 4].sum() / SCALE)
    seen = known & ~np.isnan(later)
    return {"signal": _money(net) + latency + spread + fees, "latency": latency, "spread": spread, "fees": fees,
            "net": _money(net), "adverse_selection_10s": float((side * qty * (filled - later))[seen].sum()),
            "without_mid": int((~known).sum())}


def _quality(tracks: Sequence[Track], table: np.ndarray, horizon_s: float) -> dict[str, Any]:
    """Slippage and markouts in bps: means weighted by value, medians of fills, and the share that earned."""
    side, qty, price = _columns(table)
    value = qty * price
    decided = _mids(tracks, table, table[:, 6])
    slippage = side * (price - decided) / decided * _BPS
    taus = sorted({*MARKOUTS_S, horizon_s})
    marks = {}
    for tau in taus:
        later = _mids(tracks, table, table[:, 5] + round(tau * _S))
        marks[f"{tau:g}"] = _summary(side * (later - price) / price * _BPS, value)
    moved = side * (_mids(tracks, table, table[:, 5] + round(horizon_s * _S)) - decided)
    known = moved[~np.isnan(moved) & (moved != 0)]
    return {"slippage_bps": _summary(slippage, value), "markout_bps": marks,
            "fee_bps": _ratio(float(table[:, 4].sum() / SCALE) * _BPS, float(value.sum())),
            "hit_rate": _ratio(float((known > 0).sum()), len(known)), "hits_of": len(known),
            "delay_ms": _ratio(float((table[:, 5] - table[:, 6]).sum()) / 1e6, len(table))}


def _summary(values: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    known = ~np.isnan(values)
    found, weights = values[known], weights[known]
    if not found.size:
        return {"mean": None, "median": None, "earned": None, "count": 0}
    return {"mean": float((found * weights).sum() / weights.sum()), "median": float(np.median(found)),
            "earned": float((found > 0).mean()), "count": int(found.size)}


def _calibration(symbol: Symbol, track: Track, horizon_s: float) -> dict[str, Any]:
    """`common.calibration` of every prediction whose outcome is known. Predictions within one horizon share most of
    their outcome: there are about seconds / horizon independent ones."""
    times = symbol.predicted_ns
    before, after = track.at(times), track.at(times + round(horizon_s * _S))
    known = ~(np.isnan(before) | np.isnan(after))
    judged = Calibration()
    moves = (after[known] - before[known]) / before[known] * _BPS
    for (p_up, p_down), move in zip(symbol.answers[known].tolist(), moves.tolist()):
        judged.add(p_up, p_down, move)
    return {"horizon_s": horizon_s, "unknown": int((~known).sum()), **judged.report()}


def _spread(track: Track) -> float | None:
    """Mean over ticks, bps of the mid."""
    sound = track.doubled > 0
    return float((2 * track.spread[sound] / track.doubled[sound]).mean() * _BPS) if sound.any() else None


def _money(value: int) -> float:
    return value / MONEY


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


assert SIDE_NAMES[BUY] == "BUY" and Fill._fields[5:] == ("at_ns", "decided_ns")
