"""Matching of users' orders against a book, and the account behind them. Pure: no clock, file or socket.

What happens is decided first and done after. `submit`, `cancel`, `on_market` and `expire` only look, and
return a `Plan`: events, and the displayed liquidity that they use up. `apply` is the one place where state
changes, an event at a time. The caller writes the events to its record in between; and a record that is read
back through `apply` gives the same state, because it is the same code.

    order      accepted; its fills follow as events of their own
    reject     a well-formed order that a rule of this exchange refuses
    fill       a part of an order, at a price, with a fee
    trigger    a stop was reached: from here on the order is a market or a limit order
    cancel     what is left of an order is withdrawn, and why

Rules. A taker fills at the displayed prices, best first. A resting limit order is not displayed; it fills at
its own price when a trade goes through it (strictly beyond) or when the other side is quoted at or beyond it,
best price first, then age. Stops watch trade prices. DAY ends with the UTC day of the order. Exposure, the
sum of |position| at mid prices, may not grow above LEVERAGE times the equity.

All amounts are ints of 1e-8; a price times a quantity is rounded half up to 1e-8 once, at the fill.
"""

from __future__ import annotations

import re
from collections import deque
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
Book = tuple[Levels, Levels]  #: bids, asks
Marks = Mapping[str, int]  #: mid price by symbol


class Request(NamedTuple):
    """What a user asks for. A price that the order type does not have is 0."""

    client_order_id: str
    symbol: str
    side: int  #: 1 buys, -1 sells
    order_type: str
    time_in_force: str
    quantity: int
    limit_price: int
    stop_price: int


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
    """Displayed liquidity that a plan uses: asks where `buy`, else bids. `printed`: it is a public trade."""

    symbol: str
    buy: bool
    levels: list[tuple[int, int]]
    printed: bool


class Plan(NamedTuple):
    events: list[Event]
    taken: list[Taken]


@dataclass(slots=True)
class Order:
    id: str
    created_ms: int
    request: Request
    status: str = "OPEN"
    filled: int = 0
    spent: int = 0  #: sum of price * quantity over the fills, in 1e-16
    triggered: bool = False
    reason: str = ""  #: of a rejection
    fills: list[Filled] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.request.quantity - self.filled

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def waits_for_stop(self) -> bool:
        return bool(self.request.stop_price) and not self.triggered

    @property
    def average_price(self) -> int:
        return _divide(self.spent, self.filled) if self.filled else 0

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
            "filled_price": fixed.text(self.average_price) if self.filled else None,
            "rejection_reason": self.reason or None, "created_at": self.created_ms,
            "fills": [{"id": f.fill_id, "price": fixed.text(f.price), "quantity": fixed.text(f.quantity),
                       "fee": fixed.text(f.fee), "timestamp": f.time_ms} for f in self.fills],
        }


@dataclass(slots=True)
class Position:
    quantity: int = 0  #: below 0 when short
    cost: int = 0  #: what the position was opened for, of the sign of `quantity`

    @property
    def average_price(self) -> int:
        return _divide(self.cost * SCALE, self.quantity) if self.quantity else 0


def amount(price: int, quantity: int) -> int:
    """price * quantity in 1e-8, rounded half up; has the sign of `quantity`."""
    size = _divide(price * abs(quantity), SCALE)
    return size if quantity >= 0 else -size


def _divide(a: int, b: int) -> int:
    """a / b rounded half up."""
    return (2 * a + b) // (2 * b)


class Matching:
    """Orders, positions and cash of one account. `fee_bps` is charged on each fill. Always, exactly:

        cash + sum of position costs == OPENING_CASH + realised - fees
    """

    def __init__(self, fee_bps: float = 1.0) -> None:
        self._fee_rate = round(fee_bps * SCALE / 10_000)
        self.cash, self.realised, self.fees = OPENING_CASH, 0, 0
        self.positions: dict[str, Position] = {}
        self.orders: dict[str, Order] = {}
        self.by_client_id: dict[str, str] = {}
        self.working: dict[str, dict[str, Order]] = {}  #: symbol -> orders that are not final, oldest first
        self.counts = {"orders": 0, "fills": 0, "rejected": 0}
        self._done: deque[str] = deque()  #: final orders, oldest first

    # Looking: nothing changes here.

    def find(self, client_order_id: str) -> Order | None:
        return self.orders.get(self.by_client_id.get(client_order_id, ""))

    def submit(self, request: Request, book: Book, last: int, now_ms: int, marks: Marks) -> Plan:
        """A new order; `last` is the price of the newest trade. The caller has asked `find` first."""
        order = Order(f"O{self.counts['orders'] + 1}", now_ms, request)
        reason = self._refusal(request, marks)
        if reason:
            return Plan([Rejected(order.id, now_ms, request, reason)], [])
        plan = Plan([Accepted(order.id, now_ms, request)], [])
        if not request.stop_price:
            self._take(order, book, now_ms, plan)
        elif _reached(request, last):
            plan.events.append(Triggered(order.id, now_ms))
            self._take(order, book, now_ms, plan)
        return plan

    def cancel(self, order: Order, now_ms: int, reason: str = "USER_REQUEST") -> Plan:
        """Withdraws what is left of an order that is not final."""
        return Plan([Cancelled(order.id, now_ms, reason)], [])

    def expire(self, now_ms: int) -> Plan:
        """Withdraws the DAY orders of an earlier UTC day than that of `now_ms`."""
        return Plan([Cancelled(order.id, now_ms, "TIF_DAY") for orders in self.working.values()
                     for order in orders.values()
                     if order.request.time_in_force == "DAY" and order.created_ms // DAY_MS < now_ms // DAY_MS], [])

    def on_market(self, symbol: str, book: Book, trades: Iterable[tuple[int, int]], now_ms: int) -> Plan:
        """The market of `symbol` moved to `book` with `trades` (price, quantity) on the way: fills resting
        orders and sets off stops. Nothing to do where `working` has no order of the symbol."""
        plan = Plan([], [])
        bids, asks = list(book[0]), list(book[1])
        prints = [[price, abs(qty)] for price, qty in trades]
        waiting = sorted(self.working.get(symbol, {}).values(),
                         key=lambda order: -order.request.side * order.request.limit_price)
        for order in waiting:
            other = asks if order.request.side > 0 else bids
            taken = len(plan.taken)
            if not order.waits_for_stop:
                self._fill_resting(order, other, prints, now_ms, plan)
            elif any(_reached(order.request, price) for price, _ in prints):
                plan.events.append(Triggered(order.id, now_ms))
                self._take(order, (bids, asks), now_ms, plan)
            for used in plan.taken[taken:]:
                _remove(other, used.levels)
        return plan

    def equity(self, marks: Marks) -> int:
        return self.cash + sum(amount(marks.get(symbol) or p.average_price, p.quantity)
                               for symbol, p in self.positions.items())

    def portfolio(self, marks: Marks) -> dict[str, Any]:
        """As the API answers."""
        return {"cash": fixed.text(self.cash), "equity": fixed.text(self.equity(marks)),
                "realised": fixed.text(self.realised), "fees": fixed.text(self.fees),
                "positions": [{"symbol": symbol, "quantity": fixed.text(p.quantity),
                               "average_price": fixed.text(p.average_price)}
                              for symbol, p in sorted(self.positions.items()) if p.quantity]}

    def _refusal(self, request: Request, marks: Marks) -> str:
        """Which rule of this exchange forbids the order, or ""."""
        held = {symbol: p.quantity for symbol, p in self.positions.items()}
        prices = {symbol: marks.get(symbol) or p.average_price for symbol, p in self.positions.items()}
        prices[request.symbol] = marks.get(request.symbol) or request.limit_price
        before = sum(abs(amount(prices[symbol], qty)) for symbol, qty in held.items())
        held[request.symbol] = held.get(request.symbol, 0) + request.side * request.quantity
        after = sum(abs(amount(prices[symbol], qty)) for symbol, qty in held.items())
        return "RISK_EXPOSURE" if after > max(before, LEVERAGE * self.equity(marks)) else ""

    def _take(self, order: Order, book: Book, now_ms: int, plan: Plan) -> None:
        """`order` takes what it may from `book`; the rest is cancelled where it may not wait."""
        r = order.request
        used = _crossing(book[1] if r.side > 0 else book[0], r.side, r.limit_price, order.left)
        left = order.left - sum(qty for _, qty in used)
        if left and r.time_in_force == "FOK":
            plan.events.append(Cancelled(order.id, now_ms, "TIF_FOK"))
            return
        for price, qty in used:
            self._fill(order, price, qty, now_ms, plan)
        if used:
            plan.taken.append(Taken(r.symbol, r.side > 0, used, printed=True))
        if left and r.time_in_force == "IOC":
            plan.events.append(Cancelled(order.id, now_ms, "TIF_IOC"))
        elif left and not r.limit_price:
            plan.events.append(Cancelled(order.id, now_ms, "MARKET_NO_LIQUIDITY"))

    def _fill_resting(self, order: Order, other: Levels, prints: list[list[int]], now_ms: int, plan: Plan) -> None:
        """A limit order that waits fills at its own price: from trades beyond it, which it uses up, then from
        quotes at or beyond it."""
        r, left = order.request, order.left
        for entry in prints:
            qty = min(left, entry[1]) if (r.limit_price - entry[0]) * r.side > 0 else 0
            if qty:
                entry[1] -= qty
                left -= qty
                self._fill(order, r.limit_price, qty, now_ms, plan)
        used = _crossing(other, r.side, r.limit_price, left)
        if used:
            self._fill(order, r.limit_price, sum(qty for _, qty in used), now_ms, plan)
            plan.taken.append(Taken(r.symbol, r.side > 0, used, printed=False))

    def _fill(self, order: Order, price: int, qty: int, now_ms: int, plan: Plan) -> None:
        number = self.counts["fills"] + 1 + sum(isinstance(event, Filled) for event in plan.events)
        fee = _divide(amount(price, qty) * self._fee_rate, SCALE)
        plan.events.append(Filled(order.id, now_ms, f"F{number}", price, qty, fee))

    # Doing: the only place where state changes.

    def apply(self, event: Event) -> None:
        """One event, of a plan for this state or of its record. Raises ContractError where it does not fit."""
        if isinstance(event, (Accepted, Rejected)):
            self._open(event)
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

    def restore(self, lines: Iterable[bytes], name: str = "record") -> None:
        """Applies the lines of a record. Raises ContractError naming the line."""
        for number, line in enumerate(lines, 1):
            try:
                self.apply(record_event(line))
            except ContractError as error:
                raise ContractError(error.what, where=f"{name}:{number}, {error.where}",
                                    remedy="move the record away to begin with an empty account") from None

    def _open(self, event: Accepted | Rejected) -> None:
        client_id = event.request.client_order_id
        if event.order_id in self.orders or client_id in self.by_client_id:
            raise ContractError("an order is there already",
                                where=f"order_id={event.order_id}, client_order_id={client_id}")
        order = Order(event.order_id, event.time_ms, event.request)
        self.orders[order.id] = order
        self.by_client_id[client_id] = order.id
        self.working.setdefault(order.request.symbol, {})[order.id] = order
        self.counts["orders"] += 1
        if isinstance(event, Rejected):
            self.counts["rejected"] += 1
            order.reason = event.reason
            self._finish(order, "REJECTED")

    def _settle(self, order: Order, fill: Filled) -> None:
        if not 0 < fill.quantity <= order.left:
            raise ContractError("a fill does not fit what is left of its order", where=f"order_id={order.id}, "
                                f"quantity={fixed.text(fill.quantity)}, left={fixed.text(order.left)}")
        self.counts["fills"] += 1
        order.fills.append(fill)
        order.filled += fill.quantity
        order.spent += fill.price * fill.quantity
        r = order.request
        value = amount(fill.price, fill.quantity * r.side)
        self.cash -= value + fill.fee
        self.fees += fill.fee
        self._move(self.positions.setdefault(r.symbol, Position()), fill.quantity * r.side, value)
        if order.left:
            order.status = "PARTIALLY_FILLED"
        else:
            self._finish(order, "FILLED")

    def _move(self, position: Position, signed: int, value: int) -> None:
        """Adds `signed`, worth `value`, to a position at average cost; what closes is realised."""
        if position.quantity * signed < 0:
            closed = min(abs(position.quantity), abs(signed))
            result = -(value * closed // abs(signed)) - position.cost * closed // abs(position.quantity)
            self.realised += result
            value += result  # the worth of the closed part leaves, at what it was opened for
        position.cost += value
        position.quantity += signed

    def _finish(self, order: Order, status: str) -> None:
        order.status = status
        del self.working[order.request.symbol][order.id]
        self._done.append(order.id)
        if len(self._done) > REMEMBERED:
            forgotten = self.orders.pop(self._done.popleft())
            del self.by_client_id[forgotten.request.client_order_id]


def _reached(request: Request, price: int) -> bool:
    """Whether a trade at `price` sets off the stop: at or above it for a buyer, at or below it for a seller."""
    return (price - request.stop_price) * request.side >= 0


def _crossing(levels: Levels, side: int, limit: int, quantity: int) -> list[tuple[int, int]]:
    """What `quantity` may take of the other side's `levels` at `limit` (0: at any price)."""
    used = []
    for price, displayed in levels:
        if not quantity or (limit and (limit - price) * side < 0):
            break
        used.append((price, min(quantity, displayed)))
        quantity -= used[-1][1]
    return used


def _remove(levels: list[tuple[int, int]], used: Levels) -> None:
    """Takes `used`, a best-first part of `levels`, out of it."""
    for price, qty in used:
        left = levels[0][1] - qty
        if left:
            levels[0] = (price, left)
        else:
            del levels[0]


# What users send.

class Refused(Exception):
    """An order that is not well formed: `code`, `field` and `message`, for an answer with status 422."""

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(message)
        self.code, self.field, self.message = code, field, message


_CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{1,36}")
_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


def parse_request(body: bytes, increments: Mapping[str, tuple[int, int]]) -> Request:
    """The JSON body of an order. `increments`: those of price and quantity by symbol. Raises Refused."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused("MALFORMED_JSON", "", f"the body is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise Refused("MALFORMED_JSON", "", "the body is not a JSON object")
    symbol = _choice(given, "symbol", increments)
    side = SIDES[_choice(given, "side", SIDES)]
    order_type = _choice(given, "order_type", TYPES)
    lifetime = _choice(given, "time_in_force", LIFETIMES)
    client_id = given.get("client_order_id")
    if not isinstance(client_id, str) or not _CLIENT_ID.fullmatch(client_id):
        raise Refused("INVALID_CLIENT_ORDER_ID", "client_order_id",
                      f"client_order_id must be 1 to 36 letters, digits, - and _; got {client_id!r}")
    if not isinstance(given.get("asset_type", ""), str):
        raise Refused("INVALID_CHOICE", "asset_type", f"asset_type must be text; got {given['asset_type']!r}")
    tick, lot = increments[symbol]
    prices = []
    for name, types in (("limit_price", ("LIMIT", "STOP_LIMIT")), ("stop_price", ("STOP", "STOP_LIMIT"))):
        if order_type in types:
            prices.append(_decimal(given, name, tick))
        elif given.get(name) is not None:
            raise Refused("UNEXPECTED_FIELD", name, f"{name} does not belong to order_type {order_type}")
        else:
            prices.append(0)
    return Request(client_id, symbol, side, order_type, lifetime, _decimal(given, "quantity", lot), *prices)


def _choice(given: dict, name: str, choices: Iterable[str]) -> str:
    value = given.get(name)
    if not isinstance(value, str) or value not in choices:
        raise Refused("INVALID_CHOICE", name, f"{name} must be one of {', '.join(choices)}; got {value!r}")
    return value


def _decimal(given: dict, name: str, increment: int) -> int:
    value = given.get(name)
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        raise Refused("INVALID_DECIMAL", name, f"{name} must be a decimal in a string; got {value!r}")
    try:
        number = fixed.parse(value, name)
    except VenueError as error:
        raise Refused("INVALID_DECIMAL", name, str(error)) from None
    if number <= 0:
        raise Refused("OUT_OF_RANGE", name, f"{name} must be above 0; got {value!r}")
    if number % increment:
        raise Refused("INVALID_INCREMENT", name,
                      f"{name} must be a multiple of {fixed.text(increment)}; got {value!r}")
    return number


# What the record holds.

_NAMES: dict[type, str] = {Accepted: "order", Rejected: "reject", Filled: "fill", Triggered: "trigger",
                           Cancelled: "cancel"}
_KINDS = {name: kind for kind, name in _NAMES.items()}
_AMOUNTS = frozenset({"price", "quantity", "fee", "limit_price", "stop_price"})


def record_line(event: Event) -> bytes:
    """One line of the record: a JSON object with "event" first, amounts as decimals in text."""
    fields = event._asdict()
    if "request" in fields:
        fields |= fields.pop("request")._asdict()
        fields["side"] = "BUY" if fields["side"] > 0 else "SELL"
    return orjson.dumps({"event": _NAMES[type(event)]} | {
        key: fixed.text(value) if key in _AMOUNTS else value for key, value in fields.items()}) + b"\n"


def record_event(line: bytes) -> Event:
    """The reverse of `record_line`. Raises ContractError on anything else."""
    try:
        fields = orjson.loads(line)
        kind = _KINDS[fields.pop("event")]
        fields = {key: fixed.parse(value, key) if key in _AMOUNTS else value for key, value in fields.items()}
        if "request" in kind._fields:
            fields["side"] = SIDES[fields["side"]]
            fields["request"] = Request(**{key: fields.pop(key) for key in Request._fields})
        return kind(**fields)
    except (AttributeError, KeyError, TypeError, ValueError, VenueError) as error:
        raise ContractError("a line of the exchange's record cannot be read",
                            where=f"{line[:120]!r}: {error}") from None
