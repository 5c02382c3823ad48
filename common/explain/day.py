"""What a day came to, from the journal: orders, fills, profit, positions and latency, as one tree. Pure.

Profits of the day are exact: positions when it began follow from the journal (`journal.Reader.positions`), and each
fill of the day is booked upon them. What is still held is worth something only at a price, so unrealised profit, and
with it the equity of the day, is told only where marks are given; refusals only where telemetry is, for the journal
holds orders alone. A day is one of UTC. In the tree money, prices and quantities are decimal text, latencies us.
"""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np

from common import fixed
from common.errors import ConfigError
from common.fixed import SCALE
from common.orders import SIDE_NAMES, State
from common.positions import Position, to_fixed
from common.wire import CLOCK, STATIONS, Prediction

_EPOCH = date(1970, 1, 1)
_DAY_NS = 86_400_000_000_000
_FIRST, _LAST = -(2**63 // _DAY_NS), 2**63 // _DAY_NS - 1  # whole days that Unix ns of 64 bits have
_STAMPS = Prediction._fields[Prediction._fields.index("recv_ns"):]
_SIDES = {name: side for side, name in SIDE_NAMES.items()}
#: what is measured from one event of an order to another, by the wall clock
_AFTER = (("journal", State.INTENT, State.SENT), ("ack", State.SENT, State.ACKNOWLEDGED),
          ("fill", State.SENT, State.FILLED))


def bounds(day: str) -> tuple[int, int]:
    """Unix ns when `day`, as 2024-07-18, begins and ends. Raises ConfigError if it is none, or beyond 64 bits."""
    try:
        number = (date.fromisoformat(day) - _EPOCH).days
    except ValueError:
        raise ConfigError("not a day", where=f"DAY={day}", remedy="write it as 2024-07-18, in UTC") from None
    if not _FIRST <= number <= _LAST:
        raise ConfigError("a day that no journal can hold", where=f"DAY={day}",
                          remedy="name one from 1677-09-22 to 2262-04-10, in UTC")
    return number * _DAY_NS, (number + 1) * _DAY_NS


def day_of(ns: int) -> str:
    """The day of a time, Unix ns."""
    return (_EPOCH + timedelta(ns // _DAY_NS)).isoformat()


def report(day: str, orders: Sequence[Mapping[str, Any]], contexts: Sequence[Mapping[str, Any]],
           events: Sequence[Mapping[str, Any]], fills: Sequence[Mapping[str, Any]], before: Mapping[str, Position],
           opening: int | None = None, marks: Mapping[str, int] | None = None,
           refusals: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Rows as `journal.Reader` gives them, of this day alone and oldest first; `contexts` those of `orders`; `before`
    the positions when it began. `opening` is the profit (1e-8) that the executor noted then, `marks` are prices now,
    1e-8. About 25 us an order."""
    begin, end = bounds(day)
    positions = {symbol: copy.copy(position) for symbol, position in before.items()}
    symbols: dict[str, dict[str, Any]] = {}

    def of(symbol: str) -> dict[str, Any]:
        return symbols.setdefault(symbol, {"orders": 0, "fills": 0, "bought": 0, "sold": 0, "turnover": 0, "fees": 0})

    for symbol, position in before.items():
        if position.qty:
            of(symbol)
    for row in orders:
        of(row["symbol"])["orders"] += 1
    realised = fees = 0
    curve = [_point(begin, 0, 0, positions)]
    for row in fills:
        told, position = of(row["symbol"]), positions.setdefault(row["symbol"], Position())
        earned = -position.realised
        position.fill(_SIDES[row["side"]], row["qty"], row["price"], row["fee"])
        earned += position.realised
        realised, fees = realised + earned, fees + row["fee"]
        told["fills"] += 1
        told["bought" if row["side"] == "BUY" else "sold"] += row["qty"]
        told["turnover"] += row["qty"] * row["price"]
        told["fees"] += row["fee"]
        curve.append(_point(row["at_ns"], realised, fees, positions))
    tree = {
        "day": day, "from_ns": begin, "to_ns": end,
        "orders": {"count": len(orders), "states": dict(sorted(Counter(row["state"] for row in orders).items())),
                   "reasons": dict(Counter(row["reason"] for row in orders if row["reason"]).most_common(20))},
        "fills": {"count": len(fills), "turnover": _money(sum(told["turnover"] for told in symbols.values())),
                  "fees": fixed.text(fees)},
        "profit": {"realised": _money(realised), "fees": fixed.text(fees), "net": fixed.text(to_fixed(realised) - fees),
                   **_equity(positions, opening, marks)},
        "symbols": {symbol: _symbol(told, before.get(symbol, Position()), positions.get(symbol, Position()),
                                    (marks or {}).get(symbol)) for symbol, told in sorted(symbols.items())},
        "latency_us": _latencies(orders, contexts, events),
        "refusals": dict(sorted(refusals.items(), key=lambda item: -item[1])) if refusals is not None else None,
        "curve": curve,
    }
    return tree


def _point(at_ns: int, realised: int, fees: int, positions: Mapping[str, Position]) -> dict[str, Any]:
    return {"at_ns": at_ns, "realised": _money(realised), "net": fixed.text(to_fixed(realised) - fees),
            "held": {symbol: _money(position.cost) for symbol, position in positions.items()}}


def _equity(positions: Mapping[str, Position], opening: int | None, marks: Mapping[str, int] | None) -> dict[str, Any]:
    """Profit on what is held, and since the day began as the executor counts the day's loss; None where not known."""
    told = {"unrealised": None, "since_opening": None, "opening": None if opening is None else fixed.text(opening)}
    held = {symbol: position for symbol, position in positions.items() if position.qty}
    if marks is None or not set(held) <= set(marks):
        return told
    unrealised = to_fixed(sum(position.unrealised(marks[symbol]) for symbol, position in held.items()))
    told["unrealised"] = fixed.text(unrealised)
    if opening is not None:
        profit = to_fixed(sum(position.realised for position in positions.values())) + unrealised - sum(
            position.fees for position in positions.values())
        told["since_opening"] = fixed.text(profit - opening)
    return told


def _symbol(told: Mapping[str, Any], before: Position, after: Position, mark: int | None) -> dict[str, Any]:
    return {"orders": told["orders"], "fills": told["fills"], "bought": fixed.text(told["bought"]),
            "sold": fixed.text(told["sold"]), "turnover": _money(told["turnover"]), "fees": fixed.text(told["fees"]),
            "realised": _money(after.realised - before.realised), "position": fixed.text(after.qty),
            "before": fixed.text(before.qty), "average_cost": fixed.text(after.average_price),
            "mark": fixed.text(mark) if mark else None,
            "unrealised": _money(after.unrealised(mark)) if mark and after.qty else None}


def _latencies(orders: Sequence[Mapping[str, Any]], contexts: Sequence[Mapping[str, Any]],
               events: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Quantiles per station, of orders on a prediction, up to the decision by the stamps that came along; `journal`,
    `ack` and `fill` by the wall clock, at which the executor wrote down that it knew."""
    found: dict[str, list[int]] = {name: [] for name in (*STATIONS, "tick_to_decision", *(a[0] for a in _AFTER))}
    for context in contexts:
        prediction, decided = context.get("prediction"), context.get("decided_ns")
        if prediction and decided and prediction.get("worker") != CLOCK:
            stamps = [*(prediction[name] for name in _STAMPS), decided]
            for name, begin, end in zip(STATIONS, stamps, stamps[1:]):
                found[name].append(end - begin)
            found["tick_to_decision"].append(stamps[-1] - stamps[0])
    reached = {(row["client_id"], State.INTENT.value): row["created_ns"] for row in orders}
    for row in events:
        reached.setdefault((row["client_id"], row["state"]), row["at_ns"])
    for name, first, last in _AFTER:
        found[name] = [reached[row["client_id"], last.value] - reached[row["client_id"], first.value] for row in orders
                       if {(row["client_id"], first.value), (row["client_id"], last.value)} <= reached.keys()]
    return {name: _quantiles(values) for name, values in found.items()}


def _quantiles(values: Sequence[int]) -> dict[str, Any]:
    if not values:
        return {"count": 0, "p50": None, "p99": None, "max": None}
    p50, p99, most = np.quantile(np.array(values, float) / 1e3, (0.5, 0.99, 1.0), method="inverted_cdf").tolist()
    return {"count": len(values), "p50": p50, "p99": p99, "max": most}


def _money(value: int) -> str:
    """1e-16 as text, rounded down to 1e-8."""
    return fixed.text(value // SCALE)
