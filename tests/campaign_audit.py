"""What must hold after every run of `tests.campaign`: the exchange's record against the journal. Pure.

Value is counted at the prices at which the executor must have counted it: an order at its limit price, what is held
of other symbols at their mid, which does not move in a run.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from common.fixed import SCALE, text
from common.matching import Accepted, Event, Filled, Rejected, Request


class Bounds(NamedTuple):
    """Limits of the configuration, money in 1e-8."""

    order: int
    position: int
    gross: int
    orders_per_s: float
    delay_ms: int  #: longest time between a decision and the order's arrival


class Booked(NamedTuple):
    """An order as the journal has it at the end."""

    client_id: str
    qty: int
    filled: int
    state: str


Fill = tuple[str, str, int, int, int]  #: client id, fill id, quantity, price, fee


def same(record: Iterable[Event], orders: Sequence[Booked], fills: Sequence[Fill], held: Mapping[str, int],
         arrivals: Mapping[str, int]) -> list[str]:
    """Everything in which the journal and the exchange differ; `held` are the journal's positions, `arrivals` counts
    how often an order arrived."""
    wrong = [f"order {name} arrived {count} times" for name, count in arrivals.items() if count > 1]
    requests, theirs = _orders(record), _fills(record)
    accepted = Counter(request.client_order_id for request in requests.values())
    wrong += [f"order {name} was accepted {count} times" for name, count in accepted.items() if count > 1]
    ours = {order.client_id: order for order in orders}
    wrong += [f"order {name} is at the exchange and not in the journal" for name in accepted.keys() - ours.keys()]
    counted = Counter(fills)
    wrong += [f"a fill is lost: {fill}" for fill in (Counter(theirs) - counted).elements()]
    wrong += [f"a fill was made up, or booked twice: {fill}" for fill in (counted - Counter(theirs)).elements()]
    filled = Counter()
    for name, _, qty, _, _ in theirs:
        filled[name] += qty
    rejected = {event.request.client_order_id for event in record if isinstance(event, Rejected)}
    for order in orders:
        done = filled[order.client_id]
        if order.client_id not in accepted or order.client_id in rejected:
            expected = "rejected"
        else:
            expected = "filled" if done == order.qty else "cancelled"
        if (order.state, order.filled) != (expected, done):
            wrong.append(f"order {order.client_id} is {order.state} with {text(order.filled)} in the journal, "
                         f"{expected} with {text(done)} at the exchange")
    positions = Counter()
    by_id = {request.client_order_id: request for request in requests.values()}
    for name, _, qty, _, _ in theirs:
        positions[by_id[name].symbol] += by_id[name].side * qty
    for symbol in sorted(positions.keys() | held.keys()):
        if positions[symbol] != held.get(symbol, 0):
            wrong.append(f"{symbol}: {text(held.get(symbol, 0))} in the journal, {text(positions[symbol])} at the "
                         "exchange")
    return wrong


def bounded(record: Iterable[Event], mids: Mapping[str, int], bounds: Bounds) -> list[str]:
    """Every moment of the record at which a limit was exceeded."""
    wrong, held = [], Counter()
    requests: dict[str, Request] = {}
    times = []
    for event in record:
        if isinstance(event, Filled):
            request = requests[event.order_id]
            held[request.symbol] += request.side * event.quantity
        elif isinstance(event, Accepted):
            request = requests[event.order_id] = event.request
            times.append(event.time_ms)
            wrong += _exceeded(request, held, mids, bounds)
            wrong += _too_fast(times, bounds, request.client_order_id)
    return wrong


def _exceeded(request: Request, held: Mapping[str, int], mids: Mapping[str, int], bounds: Bounds) -> list[str]:
    name, price = request.client_order_id, request.limit_price
    before, after = (abs(qty) * price // SCALE for qty in (
        held[request.symbol], held[request.symbol] + request.side * request.quantity))
    others = sum(abs(qty) * mids[symbol] // SCALE for symbol, qty in held.items() if symbol != request.symbol)
    order = -(-request.quantity * price // SCALE)
    values = {"order": (order, bounds.order)}
    if after > before:  # what reduces may always pass
        values |= {"position": (after, bounds.position), "gross": (others + after, bounds.gross)}
    return [f"order {name}: {what} {text(value)} is above {text(limit)}" for what, (value, limit) in values.items()
            if value > limit]


def _too_fast(times: Sequence[int], bounds: Bounds, name: str) -> list[str]:
    """A token bucket with a burst of a second's worth. What arrives together may have left `delay_ms` apart."""
    for index, first in enumerate(times):
        allowed = bounds.orders_per_s * (1 + (times[-1] - first + bounds.delay_ms) / 1000)
        if len(times) - index > allowed:
            return [f"order {name} is number {len(times) - index} within {times[-1] - first} ms, above "
                    f"{bounds.orders_per_s:g} orders a second"]
    return []


def _orders(record: Iterable[Event]) -> dict[str, Request]:
    return {event.order_id: event.request for event in record if isinstance(event, (Accepted, Rejected))}


def _fills(record: Iterable[Event]) -> list[Fill]:
    requests = _orders(record)
    return [(requests[event.order_id].client_order_id, event.fill_id, event.quantity, event.price, event.fee)
            for event in record if isinstance(event, Filled)]
