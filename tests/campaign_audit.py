"""What must hold after every run of `tests.campaign`: the exchange's record against the journal. Pure.

Value is counted at the prices at which the executor must have counted it: an order at its limit price, what is held
of other symbols at their mid, which does not move in a run.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from common.fixed import SCALE, text
from common.matching import Accepted, Cancelled, Event, Filled, Rejected, Request


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


class Mark(NamedTuple):
    """A moment after which nothing may leave, or not everything."""

    at_ns: int  #: Unix ns
    seqs: Sequence[int]  #: by symbol, the newest prediction that had been offered by then

    def before(self, client_id: str, decided_ns: int) -> bool:
        """Whether an order is of an earlier prediction, and was decided earlier."""
        symbol, seq = (int(word) for word in client_id.split("-")[1:])
        return seq <= self.seqs[symbol] and decided_ns <= self.at_ns


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
    wrong += [f"order {request.client_order_id} still rests at the exchange" for request, _ in
              open_orders(record).values()]
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
            if (event.price - request.limit_price) * request.side > 0:
                wrong.append(f"order {request.client_order_id} was filled at {text(event.price)}, beyond its limit "
                             f"{text(request.limit_price)}")
        elif isinstance(event, Accepted):
            request = requests[event.order_id] = event.request
            times.append(event.time_ms)
            wrong += _exceeded(request, held, mids, bounds)
            wrong += _too_fast(times, bounds, request.client_order_id)
    return wrong


def late(record: Sequence[Event], decided: Mapping[str, int], mark: Mark, delay_ms: int, reducing: bool = False
         ) -> list[str]:
    """Every order that was accepted and should not have left after `mark`; while `reducing`, that did not shrink what
    was held. `decided` are times by client id, Unix ns; `delay_ms` is the longest way to the exchange."""
    wrong = []
    for index, event in enumerate(record):
        if not isinstance(event, Accepted):
            continue
        name = event.request.client_order_id
        if not mark.before(name, decided.get(name, 0)):
            if not reducing:
                wrong.append(f"order {name} is of a prediction, or was decided, after nothing might leave")
            elif not shrinks(event.request, record[:index]):
                wrong.append(f"order {name} does not shrink what is held, and nothing else might leave")
        elif not reducing and event.time_ms > mark.at_ns / 1e6 + delay_ms:
            after_ms = event.time_ms - mark.at_ns / 1e6
            wrong.append(f"order {name} was accepted {after_ms:.0f} ms after nothing might leave")
    return wrong


def shrinks(request: Request, record: Sequence[Event]) -> bool:
    """Whether an order, with those of its side that rest, is no more than closes what is held."""
    resting = sum(left for other, left in open_orders(record).values()
                  if (other.symbol, other.side) == (request.symbol, request.side))
    return resting + request.quantity <= -request.side * held(record)[request.symbol]


def growing(record: Sequence[Event]) -> list[str]:
    """What rests and may, with the others of its side, make larger what is held, or turn it around: client ids."""
    now, left = held(record), Counter()
    resting = open_orders(record).values()
    for request, quantity in resting:
        left[request.symbol, request.side] += quantity
    return [request.client_order_id for request, _ in resting
            if left[request.symbol, request.side] > -request.side * now[request.symbol]]


def collared(record: Iterable[Event], decided: Mapping[str, int], first: Mapping[str, int], last: Mapping[str, int],
             mark: Mark, collar_bps: float) -> list[str]:
    """Every order beyond the collar around the mid: `first` before the market jumped at `mark`, then `last`."""
    wrong = []
    for event in record:
        if isinstance(event, Accepted):
            request = event.request
            name, price = request.client_order_id, request.limit_price
            mids = [last[request.symbol]]
            if mark.before(name, 0):  # of a prediction from before; when it was decided, it may have been after
                mids.append(first[request.symbol])
            away = min(abs(price / mid - 1) * 10_000 for mid in mids)
            if away > collar_bps * (1 + 1e-9):
                wrong.append(f"order {name} at {text(price)} is {away:.2f} bps from the mid, the collar "
                             f"{collar_bps:g}")
    return wrong


def held(record: Iterable[Event]) -> Counter:
    """Signed quantity by symbol."""
    found, requests = Counter(), _orders(record)
    for event in record:
        if isinstance(event, Filled):
            request = requests[event.order_id]
            found[request.symbol] += request.side * event.quantity
    return found


def open_orders(record: Iterable[Event]) -> dict[str, tuple[Request, int]]:
    """What rests: the request, and what is left of it, by the exchange's id."""
    found = {}
    for event in record:
        if isinstance(event, Accepted):
            found[event.order_id] = event.request, event.request.quantity
        elif isinstance(event, Filled):
            request, left = found[event.order_id]
            found[event.order_id] = request, left - event.quantity
        elif isinstance(event, (Cancelled, Rejected)):
            found.pop(event.order_id, None)
    return {name: (request, left) for name, (request, left) in found.items() if left}


def profit(record: Iterable[Event], mids: Mapping[str, int]) -> int:
    """Profit with what is held valued at `mids`, fees included; 1e-16."""
    total, requests = 0, _orders(record)
    for event in record:
        if isinstance(event, Filled):
            request = requests[event.order_id]
            total += request.side * event.quantity * (mids[request.symbol] - event.price) - event.fee * SCALE
    return total


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
