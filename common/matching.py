"""Matching of our users' orders against a book, and the account behind them. Pure: no clock, file or socket.

What happens is decided first and done after. `submit`, `cancel`, `on_market` and `expire` only look, and
return a `Plan`: events, and the displayed liquidity that they use up. `apply` is the one place where state
changes, an event at a time. So the caller writes the events to its record in between, and a record read back
through `apply` gives the same state, because it is the same code.

    order      accepted; its fills follow as events of their own
    fill       part of an order, at a price, with a fee
    trigger    a stop was reached: from here on the order is a market or limit order
    cancel     what is left of an order is withdrawn, by whom or why
    reject     a well-formed order refused by a rule of this exchange

Rules. A taker fills at the displayed prices, best first. A resting limit order is not displayed; it fills at
its own price when a trade goes through it (strictly beyond) or the other side is quoted at or beyond it, in
order of price, then age. Stops watch trade prices. DAY ends with the UTC day of the order. Exposure, the
sum of |position| at mid prices, may not grow beyond LEVERAGE times the equity.

All amounts are ints of 1e-8; a price times a quantity is rounded half up to 1e-8 once, at the fill.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

import orjson

from common import fixed
from common.errors import ContractError, VenueError
from common.fixed import SCALE

OPENING_CASH = 1_000_000 * SCALE
LEVERAGE = 4
REMEMBERED = 50_000  #: final orders kept in memory; older ones are in the record only
DAY_MS = 86_400_000

SIDES = {"BUY": 1, "SELL": -1}
TYPES = ("MARKET", "LIMIT", "STOP", "STOP_LIMIT")
LIFETIMES = ("GTC", "DAY", "IOC", "FOK")
FINAL = frozenset({"FILLED", "CANCELLED", "REJECTED"})

Levels = Sequence[tuple[int, int]]  #: (price, quantity), best first


class Refused(Exception):
    """An order that is not well formed: `code`, `field` and a message, for an answer with status 422."""

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(message)
        self.code, self.field, self.message = code, field, message


class Request(NamedTuple):
    """What a user asks for. A price that the type does not use is 0."""

    client_order_id: str
    symbol: str
    side: int  #: 1 buys, -1 sells
    order_type: str
    time_in_force: str
    quantity: int
    limit_price: int
    stop_price: int


class Fill(NamedTuple):
    id: str
    price: int
    quantity: int
    fee: int
    time_ms: int


@dataclass(slots=True)
class Order:
    id: str
    created_ms: int
    request: Request
    status: str = "OPEN"
    filled: int = 0
    spent: int = 0  #: sum of price * quantity over the fills, in 1e-16
    triggered: bool = False
    reason: str = ""
    fills: list[Fill] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.request.quantity - self.filled

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def resting_price(self) -> int:
        """The limit price of an order that works in the book now; 0 of one that waits for its stop."""
        kind = self.request.order_type
        return self.request.limit_price if kind == "LIMIT" or (kind == "STOP_LIMIT" and self.triggered) else 0

    def as_dict(self) -> dict[str, Any]:
        """The order as the API answers with it."""
        r = self.request
        return {
            "id": self.id, "client_order_id": r.client_order_id, "symbol": r.symbol,
            "side": "BUY" if r.side > 0 else "SELL", "order_type": r.order_type, "time_in_force": r.time_in_force,
            "quantity": fixed.text(r.quantity),
            "limit_price": fixed.text(r.limit_price) if r.limit_price else None,
            "stop_price": fixed.text(r.stop_price) if r.stop_price else None,
            "status": self.status, "filled_quantity": fixed.text(self.filled),
            "filled_price": fixed.text((2 * self.spent + self.filled) // (2 * self.filled)) if self.filled else None,
            "rejection_reason": self.reason or None, "created_at": self.created_ms,
            "fills": [{"id": f.id, "price": fixed.text(f.price), "quantity": fixed.text(f.quantity),
                       "fee": fixed.text(f.fee), "timestamp": f.time_ms} for f in self.fills],
        }


class Accepted(NamedTuple):
    order_id: str
    time_ms: int
    request: Request


class Rejected(NamedTuple):
    order_id: str
    time_ms: int
    request: Request
    reason: str


class Filled(NamedTuple):
    order_id: str
    time_ms: int
    fill_id: str
    price: int
    quantity: int
    fee: int


class Triggered(NamedTuple):
    order_id: str
    time_ms: int


class Cancelled(NamedTuple):
    order_id: str
    time_ms: int
    reason: str


Event = Accepted | Rejected | Filled | Triggered | Cancelled


class Taken(NamedTuple):
    """Displayed liquidity that a plan uses: asks where `buy`. `printed`: it is a trade of its own."""

    symbol: str
    buy: bool
    levels: list[tuple[int, int]]
    printed: bool


class Plan(NamedTuple):
    events: list[Event]
    taken: list[Taken]


@dataclass(slots=True)
class Position:
    quantity: int = 0
    cost: int = 0  #: what the position was bought for, of the same sign as `quantity`

    @property
    def average_price(self) -> int:
        return (2 * self.cost * SCALE + self.quantity) // (2 * self.quantity) if self.quantity else 0


def amount(price: int, quantity: int) -> int:
    """price * quantity in 1e-8, rounded half up; the sign is that of `quantity`."""
    size = (price * abs(quantity) * 2 + SCALE) // (2 * SCALE)
    return size if quantity >= 0 else -size


class Matching:
    """Orders, positions and cash. `fee_bps` is charged on each fill. Invariant, exact in ints:

        cash + sum of position costs == OPENING_CASH + realised - fees
    """

    def __init__(self, fee_bps: float = 1.0) -> None:
        self._fee_rate = round(fee_bps * SCALE / 10_000)
        self.cash, self.realised, self.fees = OPENING_CASH, 0, 0
        self.positions: dict[str, Position] = {}
        self.orders: dict[str, Order] = {}
        self.by_client_id: dict[str, str] = {}
        self.working: dict[str, dict[str, Order]] = {}  #: symbol -> orders that are not final, by id
        self.counts = {"orders": 0, "fills": 0, "rejected": 0}

    # Looking: nothing changes here.

    def find(self, client_order_id: str) -> Order | None:
        return self.orders.get(self.by_client_id.get(client_order_id, ""))

    def submit(self, request: Request, book: tuple[Levels, Levels], last: int, now_ms: int,
               marks: Mapping[str, int]) -> Plan:
        """A new order against `book` (bids, asks); `last` is the newest trade price, `marks` the mid prices
        by symbol. The caller has asked `find` first. Cost: about 10 us and 2 us a level."""
        order_id = f"O{self.counts['orders'] + 1}"
        reason = self._refusal(request, marks)
        if reason:
            return Plan([Rejected(order_id, now_ms, request, reason)], [])
        events: list[Event] = [Accepted(order_id, now_ms, request)]
        taken: list[Taken] = []
        order = Order(order_id, now_ms, request)
        if request.stop_price and not _reached(request, last):
            return Plan(events, taken)
        if request.stop_price:
            events.append(Triggered(order_id, now_ms))
        self._take(order, book, now_ms, events, taken)
        return Plan(events, taken)

    def cancel(self, order: Order, now_ms: int, reason: str = "USER") -> Plan:
        """Withdraws what is left of an order that is not final."""
        return Plan([Cancelled(order.id, now_ms, reason)], [])

    def on_market(self, symbol: str, book: tuple[Levels, Levels], trades: Iterable[tuple[int, int]],
                  now_ms: int) -> Plan:
        """The market of `symbol` moved: `trades` are (price, quantity) in order. Fills resting orders and
        sets off stops. Free where no order works in the symbol, which the caller may see in `working`."""
        events: list[Event] = []
        taken: list[Taken] = []
        bids, asks = [list(book[0]), list(book[1])]
        prints = [[price, abs(qty)] for price, qty in trades]
        queue = sorted(self.working.get(symbol, {}).values(), key=lambda o: -o.request.side * o.resting_price)
        for order in queue:
            r = order.request
            if r.stop_price and not order.triggered:
                if any(_reached(r, price) for price, _ in prints):
                    events.append(Triggered(order.id, now_ms))
                    before = len(taken)
                    self._take(order, (bids, asks), now_ms, events, taken)
                    for levels in taken[before:]:
                        _remove(asks if r.side > 0 else bids, levels.levels)
                continue
            left, limit = order.left, order.resting_price
            for entry in prints:
                if left and entry[1] and (limit - entry[0]) * r.side > 0:
                    qty = min(left, entry[1])
                    entry[1] -= qty
                    left -= qty
                    events.append(self._filled(order, limit, qty, now_ms, events))
            other = asks if r.side > 0 else bids
            used = _crossing(other, r.side, limit, left)
            if used:
                events.append(self._filled(order, limit, sum(qty for _, qty in used), now_ms, events))
                taken.append(Taken(symbol, r.side > 0, used, printed=False))
                _remove(other, used)
        return Plan(events, taken)

    def expire(self, now_ms: int) -> Plan:
        """DAY orders of an earlier UTC day than `now_ms`."""
        return Plan([Cancelled(order.id, now_ms, "EXPIRED") for orders in self.working.values()
                     for order in orders.values()
                     if order.request.time_in_force == "DAY" and order.created_ms // DAY_MS < now_ms // DAY_MS], [])

    def equity(self, marks: Mapping[str, int]) -> int:
        return self.cash + sum(amount(marks.get(symbol) or p.average_price, p.quantity)
                               for symbol, p in self.positions.items())

    def portfolio(self, marks: Mapping[str, int]) -> dict[str, Any]:
        """As the API answers. `marks`: mid prices by symbol."""
        return {"cash": fixed.text(self.cash), "equity": fixed.text(self.equity(marks)),
                "realised": fixed.text(self.realised), "fees": fixed.text(self.fees),
                "positions": [{"symbol": symbol, "quantity": fixed.text(p.quantity),
                               "average_price": fixed.text(p.average_price)}
                              for symbol, p in sorted(self.positions.items()) if p.quantity]}

    # Doing: the only place where state changes.

    def apply(self, event: Event) -> None:
        """One event, of a plan of this state or of its record. Raises ContractError where it does not fit."""
        if isinstance(event, (Accepted, Rejected)):
            order = Order(event.order_id, event.time_ms, event.request)
            if event.order_id in self.orders or event.request.client_order_id in self.by_client_id:
                raise ContractError("an order is there already", where=f"order_id={event.order_id}")
            self.orders[order.id] = order
            self.by_client_id[event.request.client_order_id] = order.id
            self.counts["orders"] += 1
            self.working.setdefault(order.request.symbol, {})[order.id] = order
            if isinstance(event, Rejected):
                self.counts["rejected"] += 1
                order.reason = event.reason
                self._finish(order, "REJECTED")
            return
        order = self.orders.get(event.order_id)
        if order is None or order.final:
            raise ContractError("an event has no working order", where=f"order_id={event.order_id}")
        if isinstance(event, Filled):
            self._settle(order, event)
        elif isinstance(event, Triggered):
            order.triggered = True
        else:
            self._finish(order, "CANCELLED")

    def _settle(self, order: Order, event: Filled) -> None:
        r = order.request
        if not 0 < event.quantity <= order.left:
            raise ContractError("a fill is larger than what is left", where=f"order_id={order.id}, "
                                f"quantity={fixed.text(event.quantity)}, left={fixed.text(order.left)}")
        self.counts["fills"] += 1
        order.fills.append(Fill(event.fill_id, event.price, event.quantity, event.fee, event.time_ms))
        order.filled += event.quantity
        order.spent += event.price * event.quantity
        signed = event.quantity * r.side
        value = amount(event.price, signed)
        self.cash -= value + event.fee
        self.fees += event.fee
        position = self.positions.setdefault(r.symbol, Position())
        if position.quantity * signed < 0:  # part or all of it closes
            closed = min(abs(position.quantity), event.quantity) * r.side
            value_closed = value * closed // signed
            cost_closed = -position.cost * closed // position.quantity
            self.realised -= value_closed + cost_closed * -1 if False else value_closed + (
                position.cost * -closed // position.quantity) * 1
            position.cost -= cost_closed
            position.quantity += closed
            signed -= closed
            value -= value_closed
        position.quantity += signed
        position.cost += value
        if order.left:
            order.status = "PARTIALLY_FILLED"
        else:
            self._finish(order, "FILLED")

    def _finish(self, order: Order, status: str) -> None:
        order.status = status
        del self.working[order.request.symbol][order.id]
