"""Orders over VecTrade's HTTP API.

    submit      POST   /api/trade/v1/bot/orders                        201 the order; 200 the first of its client id
    query       GET    /api/trade/v1/bot/orders?client_order_id=X      200 {"orders": [...]}, empty if unknown
    cancel      DELETE /api/trade/v1/bot/orders/{id}                   200 the order; 409 it is final already
    portfolio   GET    /api/trade/v1/bot/portfolio

    status of a submit     means
    200, 201               the order, as it stands after what it could do at once
    400 401 403 404 422    refused: it has no effect
    429                    refused; come back after Retry-After
    none, nothing left     refused by ourselves: it never left; and a pause, since the venue is not there
    anything else          unknown

The key is read from $ALPHA_BOT_KEY and travels in the header X-Bot-Key; it is never put into an error or a log.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from common import fixed
from common.config import ENV_BOT_KEY, Config
from common.errors import ConfigError, VenueError
from common.events import HttpRequest
from common.gateways import (
    Absent,
    Acked,
    Ended,
    Event,
    Filled,
    NoPortfolio,
    Portfolio,
    Throttled,
    Unanswered,
    Unknown,
    fits,
    is_loopback,
)
from common.gateways.joint import Joint
from common.http import TOO_LATE, HttpClient, Reply, address
from common.orders import SIDE_NAMES, Order, State
from common.positions import Position
from common.ring import Books

ORDERS = "/api/trade/v1/bot/orders"
PORTFOLIO = "/api/trade/v1/bot/portfolio"
LOOPBACK_KEY = "loopback"  #: what a loopback exchange expects where no key is set

_SUBMIT, _QUERY, _CANCEL, _PORTFOLIO = "submit", "query", "cancel", "portfolio"
_REFUSED = frozenset({400, 401, 403, 404, 405, 413, 422, 429})  # not 409: that may say that it is there already
_ENDS = {"FILLED": State.FILLED, "CANCELLED": State.CANCELLED, "REJECTED": State.REJECTED}
_ALIVE = ("OPEN", "PARTIALLY_FILLED")
_PATIENCE_NS = 1_000_000_000  # after a 429 that does not say how long
_UNREACHED_NS = 250_000_000


def bot_key(base_url: str, environ: Mapping[str, str]) -> str:
    """The secret; a loopback exchange has a default, any other host must be given one."""
    key, url = environ.get(ENV_BOT_KEY, ""), address(base_url)
    if url.scheme != "https" and not is_loopback(url.hostname or ""):
        raise ConfigError("the key of the order gateway would travel in clear", where=f"host={url.hostname}",
                          remedy="use an https:// address")
    if not key:
        if not is_loopback(url.hostname or ""):
            raise ConfigError("no key for the order gateway", where=f"host={url.hostname}",
                              remedy=f"set {ENV_BOT_KEY} in the environment")
        return LOOPBACK_KEY
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError("the key for the order gateway has characters that no key has", where=ENV_BOT_KEY,
                          remedy="set it without spaces or line ends")
    return key


class VecTrade:
    """`spare` carries the question for positions, so that no order waits behind its answer."""

    name = "vectrade"
    wants_write = False

    def __init__(self, http: HttpClient, spare: HttpClient, key: str, asset_types: Mapping[str, str], clock) -> None:
        self._http, self._spare, self._joint = http, spare, Joint(http, spare)
        self._clock, self._asset_types = clock, asset_types
        self._headers = (("X-Bot-Key", key), ("Accept", "application/json"))
        self._json_headers = (*self._headers, ("Content-Type", "application/json"))

    def attach(self, books: Books) -> None:
        """The venue has its own books."""

    def restore(self, positions: Mapping[str, Position]) -> None:
        """The venue has its own record."""

    def observe(self) -> None:
        """It does nothing by itself."""

    def submit(self, order: Order, start_by_ns: int = 0) -> None:
        body = orjson.dumps({
            "symbol": order.symbol, "asset_type": self._asset_types.get(order.symbol, "CRYPTO"),
            "side": SIDE_NAMES[order.side], "order_type": order.order_type, "quantity": fixed.text(order.qty),
            "limit_price": fixed.text(order.price), "time_in_force": order.time_in_force,
            "client_order_id": order.client_id})
        self._http.submit(HttpRequest("POST", ORDERS, self._json_headers, body), (_SUBMIT, order), start_by_ns)

    def query(self, order: Order) -> None:
        path = f"{ORDERS}?client_order_id={quote(order.client_id, safe='')}"
        self._http.submit(HttpRequest("GET", path, self._headers), (_QUERY, order))

    def withdraw(self) -> None:
        self._http.withdraw()

    def cancel(self, order: Order, venue_id: str) -> None:
        path = f"{ORDERS}/{quote(venue_id, safe='')}"
        self._http.submit(HttpRequest("DELETE", path, self._headers), (_CANCEL, order))

    def portfolio(self) -> None:
        self._spare.submit(HttpRequest("GET", PORTFOLIO, self._headers), (_PORTFOLIO, None))

    def work(self) -> list[Event]:
        events: list[Event] = []
        for reply in (*self._http.work(), *self._spare.work()):
            kind, order = reply.token
            pause = _pause_ns(reply)
            if pause:
                events.append(Throttled(self._clock.monotonic_ns() + pause))
            try:
                events += _ANSWERS[kind](order, reply)
            except VenueError as error:
                events.append(_without_answer(kind, order, str(error)))
        return events

    @property
    def busy(self) -> bool:
        return self._http.in_flight + self._spare.in_flight > 0

    def fileno(self) -> int:
        return self._joint.fileno()

    def due_ns(self) -> int:
        return min(filter(None, (self._http.deadline_ns(), self._spare.deadline_ns())), default=0)

    def close(self) -> None:
        self._http.close()
        self._spare.close()
        self._joint.close()


def create(config: Config, clock, environ: Mapping[str, str]) -> VecTrade:
    url = config.executor.base_url
    asset_types = {symbol: config.instrument(symbol).asset_type for symbol in config.market.symbols}
    key = bot_key(url, environ)
    clients = [HttpClient(url, config.executor.timeout_s, clock, secrets=() if key == LOOPBACK_KEY else (key,))
               for _ in range(2)]
    return VecTrade(*clients, key, asset_types, clock)


# ---- answers: each takes the order and the reply, returns events, and raises VenueError for nonsense

def _submitted(order: Order, reply: Reply) -> list[Event]:
    if reply.status in (200, 201):
        return _order_events(order, _parsed(reply), reply)
    if reply.status in _REFUSED:
        return [Ended(order.client_id, State.REJECTED, 0, _complaint(reply))]
    if not reply.sent:
        return [Ended(order.client_id, State.REJECTED, 0, f"it never left: {reply.error}")]
    return [Unknown(order.client_id, _complaint(reply))]


def _queried(order: Order, reply: Reply) -> list[Event]:
    if reply.status != 200:
        return [Unanswered(order.client_id, _complaint(reply))]
    found = _field(_parsed(reply), "orders", list)
    if not found:
        return [Absent(order.client_id)]
    return _order_events(order, found[0], reply._replace(sent_ns=0))


def _cancelled(order: Order, reply: Reply) -> list[Event]:
    if reply.status != 200:
        return [Unanswered(order.client_id, _complaint(reply))]
    return _order_events(order, _parsed(reply), reply._replace(sent_ns=0))


def _held(order: None, reply: Reply) -> list[Event]:
    if reply.status != 200:
        return [NoPortfolio(_complaint(reply))]
    positions = {}
    for told in _field(_parsed(reply), "positions", list):
        qty = fixed.parse(_field(told, "quantity", str), "quantity")
        if qty:
            price = fixed.parse(_field(told, "average_price", str), "average_price")
            if not fits(qty, price):
                raise VenueError("what is held does not fit 64 bits",
                                 where=f"quantity={told['quantity']}, average_price={told['average_price']}")
            positions[_field(told, "symbol", str)] = (qty, price)
    return [Portfolio(positions)]


_ANSWERS = {_SUBMIT: _submitted, _QUERY: _queried, _CANCEL: _cancelled, _PORTFOLIO: _held}


def _without_answer(kind: str, order: Order | None, reason: str) -> Event:
    if kind == _PORTFOLIO:
        return NoPortfolio(reason)
    return (Unknown if kind == _SUBMIT else Unanswered)(order.client_id, reason)


def _order_events(order: Order, told: Any, reply: Reply) -> list[Event]:
    """The whole order as the venue tells it: that it has it, its fills, and its end if it is there.

    `id`, `status`, `filled_quantity` and `filled_price` are what every answer has. What else is told of the order
    must be ours. Where the single fills are not told, all of them count as one, at the average price, when the
    order is at its end."""
    if not isinstance(told, dict):
        raise VenueError("an answer is not an order", where=f"{type(told).__name__}")
    for name, ours in (("client_order_id", order.client_id), ("symbol", order.symbol),
                       ("side", SIDE_NAMES[order.side])):
        if name in told and told[name] != ours:
            raise VenueError("the venue answers with another order", where=f"{name}={told[name]!r}, ours {ours!r}")
    if "quantity" in told and fixed.parse(_field(told, "quantity", str), "quantity") != order.qty:
        raise VenueError("the venue answers with another order",
                         where=f"quantity={told['quantity']}, ours {fixed.text(order.qty)}")
    events: list[Event] = [Acked(order.client_id, _field(told, "id", str), reply.sent_ns, reply.done_ns)]
    status = _field(told, "status", str)
    if status not in _ENDS and status not in _ALIVE:
        raise VenueError("an order has a status that does not exist", where=f"status={status!r}")
    filled = fixed.parse(_field(told, "filled_quantity", str), "filled_quantity") if status in _ENDS else 0
    if "fills" in told:
        for fill in _field(told, "fills", list):
            qty, price, fee = (fixed.parse(_field(fill, name, str), name) for name in ("quantity", "price", "fee"))
            events.append(_filled(order, _field(fill, "id", str), qty, price, fee,
                                  _field(fill, "timestamp", int) * 1_000_000))
    elif filled:
        price = fixed.parse(_field(told, "filled_price", str), "filled_price")
        events.append(_filled(order, "all", filled, price, 0, 0))
    if status in _ENDS:
        events.append(Ended(order.client_id, _ENDS[status], filled, str(told.get("rejection_reason") or "")[:200]))
    return events


def _filled(order: Order, fill_id: str, qty: int, price: int, fee: int, event_ns: int) -> Filled:
    if qty <= 0 or price <= 0:
        raise VenueError("a fill has no quantity or no price", where=f"quantity={qty}, price={price}")
    if not fits(qty, price, fee) or not 0 <= event_ns <= fixed.MAX:
        raise VenueError("a fill does not fit 64 bits", where=(
            f"quantity={fixed.text(qty)}, price={fixed.text(price)}, fee={fixed.text(fee)}, time={event_ns} ns"))
    return Filled(order.client_id, fill_id, qty, price, fee, event_ns)


def _parsed(reply: Reply) -> Any:
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        raise VenueError("an answer is not JSON", where=f"status={reply.status}, body={reply.body[:80]!r}") from None


def _field(told: Any, name: str, kind: type) -> Any:
    """`told[name]`; ids may come as numbers."""
    value = told.get(name) if isinstance(told, dict) else None
    if kind is str and name == "id" and type(value) is int:
        return str(value)
    if type(value) is not kind:
        raise VenueError("an answer lacks a field or has it in another type",
                         where=f"{name}={value!r}, expected {kind.__name__}")
    return value


def _complaint(reply: Reply) -> str:
    """What went wrong, in the venue's own words where it has some."""
    if not reply.status:
        return reply.error
    text = ""
    try:
        error = orjson.loads(reply.body)["error"]
        text = ": " + " ".join(str(error[key]) for key in ("code", "field", "message") if error.get(key))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        text = f": {reply.body[:80]!r}" if reply.body else ""
    return f"HTTP {reply.status}{text}"[:200]


def _pause_ns(reply: Reply) -> int:
    """How long to leave the venue alone: as it says after a 429; a little while if it cannot be reached."""
    if reply.status == 429:
        text = reply.headers.get("retry-after", "")
        return int(text) * 1_000_000_000 if text.isdecimal() and len(text) < 6 else _PATIENCE_NS
    return 0 if reply.status or reply.sent or reply.error == TOO_LATE else _UNREACHED_NS
