"""Binance over a synthetic market, usd-m or spot: the server's side of what `common.venues.binance` and
`common.gateways.binance` speak as clients.

    /stream?streams=a/b, /public/stream   depth, bookTicker and trade of each symbol, and SUBSCRIBE, UNSUBSCRIBE
    /private/ws/KEY (usd-m)               what happens to orders: ORDER_TRADE_UPDATE
    /ws-api/v3 (spot)                     userDataStream.subscribe.signature, then executionReport
    /fapi/v1, /api/v3                     ping, time, exchangeInfo, depth, trades, ticker/bookTicker, ticker/price
                                          order (POST, GET, DELETE), openOrders, userTrades or myTrades, listenKey,
                                          countdownCancelAll (usd-m)
    /fapi/v3/positionRisk, /api/v3/account

Requests for an account are signed, as in the documentation: X-MBX-APIKEY (-2014, -2015), signature (-1102, -1022),
timestamp and recvWindow (-1021, unless timestamp < now + 1000 and now - timestamp <= recvWindow; now is the exchange's
own clock, which exchange.clock_s and the fault order-clock put off). Filters are the increments of the instrument and
MIN_NOTIONAL (-1013; -1111, -4014 and -4164 on usd-m). Above requests_per_minute or orders_per_minute comes 429 with
-1003 or -1015 and Retry-After, and 418 for who goes on.

Where it differs from Binance: a client order id is never taken twice (there it is free again when its order is over);
the standing of an account at the beginning is cash alone, so that spot sells nothing before it has bought; fees are in
the quote asset, unless `fees_in` says otherwise; there are limit and market orders only, one account, one-way mode, no
liquidation and no funding.
"""

from __future__ import annotations

import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import orjson

from common import fixed
from common.config import Config
from common.errors import ResourceError, VenueError
from common.fixed import SCALE
from common.loopback.connections import Client, HttpCall, framed
from common.loopback.vectrade import Limit, Synthetic
from common.matching import Accepted, Cancelled, Filled, Order, Plan, Rejected, Request
from common.signing import Credentials
from common.synthetic import Step

DEFAULT_KEY = "loopback"  #: key and secret where the environment gives none
MIN_NOTIONAL = 5 * SCALE
MOST_RECENT = 500  #: public trades of a symbol that can be asked for
PAGE, MAX_PAGE = 500, 1000  #: own trades that one request tells, and those that it tells at most
AHEAD_MS = 1000  #: a timestamp must be less than so much later than now
WINDOW_MS, MAX_WINDOW_MS = 5000, 60_000
PATIENCE = 10  #: answers of 429 in a row, before 418
BAN_S = 120
QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "USD", "EUR", "BTC")  #: assets that names of symbols end with

_CLIENT_ID = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")
_LISTEN_KEY = "loopback0listen0key"
_KINDS = ("depth", "bookTicker", "trade")
_STATES = {"OPEN": "NEW", "PARTIALLY_FILLED": "PARTIALLY_FILLED", "FILLED": "FILLED", "REJECTED": "REJECTED"}
_LATE = "REJECTED_LATE"  # reason of a cancellation: the exchange thought better of it

log = logging.getLogger("exchange")


class Complaint(Exception):
    """A request that is refused: HTTP status, code and words as Binance has them."""

    def __init__(self, status: int, code: int, words: str, *headers: tuple[str, str]) -> None:
        super().__init__(words)
        self.status, self.code, self.words, self.headers = status, code, words, headers


class Told(NamedTuple):
    """Something that happened to an order, with what it had come to by then."""

    kind: str  #: NEW, TRADE, CANCELED, EXPIRED or REJECTED
    status: str
    order: Order
    filled: int
    spent: int  #: 1e-16
    time_ms: int
    fill: Filled | None


class SyntheticBinance(Synthetic):
    """`market.venue` of the configuration says which of the two it is."""

    without = ()
    fees_in = ""  #: asset of all fees, such as BNB; "bought": of a purchase what was bought; "": the quote asset

    def __init__(self, config: Config, clock: Any, loop: Any, telemetry: Any) -> None:
        super().__init__(config, clock, loop, telemetry)
        self.venue = config.market.venue
        self._spot = self.venue == "binance-spot"
        key, secret = (os.environ.get(name) or DEFAULT_KEY for name in ("ALPHA_BINANCE_KEY", "ALPHA_BINANCE_SECRET"))
        self._credentials = Credentials(key, secret)
        self._streams: dict[str, set[Client]] = {f"{symbol.lower()}@{kind}": set() for symbol in self.symbols
                                                 for kind in _KINDS}
        self._listeners: dict[Client, None] = {}
        self._recent: dict[str, deque[dict[str, Any]]] = {symbol: deque(maxlen=MOST_RECENT) for symbol in self.symbols}
        self._withdrawn: dict[str, str] = {}  # order id -> status, of those that are not simply cancelled
        self._refused = 0  # requests in a row
        self._countdowns: dict[str, Any] = {}  # symbol -> timer that cancels all of its orders
        self._late: dict[str, float] = {}  # order id -> loop time before which nothing of it is pushed
        settings = config.exchange
        self._weights, self._placed = Limit(settings.requests_per_minute), Limit(settings.orders_per_minute)

    # The market.

    def _spread(self, steps: list[Step]) -> None:
        now = self._now_ms()
        for step in steps:
            book, name = self.market.books[step.symbol], self.symbols[step.symbol]
            stream = name.lower()
            for number, price, signed in step.trades:
                trade = {"e": "trade", "E": now, **({} if self._spot else {"T": step.time_ms}), "s": name, "t": number,
                         "p": fixed.text(price), "q": fixed.text(abs(signed)),
                         **({"T": step.time_ms, "m": signed < 0, "M": True} if self._spot else
                            {"X": "MARKET", "m": signed < 0})}
                self._recent[name].append({
                    "id": number, "price": trade["p"], "qty": trade["q"], "time": step.time_ms,
                    "quoteQty": fixed.text(price * abs(signed) // SCALE), "isBuyerMaker": signed < 0})
                self._say(f"{stream}@trade", trade)
            ids = {"U": step.sequence, "u": step.sequence}
            sides = {"b": _pairs(step.bids), "a": _pairs(step.asks)}
            self._say(f"{stream}@depth", {"e": "depthUpdate", "E": now, "s": name, **ids, **sides} if self._spot else {
                "e": "depthUpdate", "E": now, "T": step.time_ms, "s": name, **ids, "pu": step.sequence - 1, **sides})
            bid, bid_qty, ask, ask_qty, _ = map(fixed.text, book.top())
            top = {"u": step.sequence, "s": name, "b": bid, "B": bid_qty, "a": ask, "A": ask_qty}
            self._say(f"{stream}@bookTicker", top if self._spot else {"e": "bookTicker", **top, "T": step.time_ms,
                                                                      "E": now})

    def _say(self, stream: str, data: dict[str, Any]) -> None:
        clients = self._streams[stream]
        for client in clients:
            self.send_framed((client,), framed(orjson.dumps({"stream": client.channels[stream], "data": data})))

    def _beat(self) -> None:
        """Nothing is said where nothing happens."""

    # Sockets.

    def socket_path(self, path: str) -> bool:
        if self._spot:
            return path in ("/stream", "/ws-api/v3")
        return path in ("/stream", "/public/stream", f"/private/ws/{_LISTEN_KEY}", f"/ws/{_LISTEN_KEY}")

    def opened(self, client: Client, query: str) -> None:
        super().opened(client, query)
        if client.path.endswith(_LISTEN_KEY):
            self._listeners[client] = None
        for name, value in parse_qsl(query):
            if name == "streams":
                self._subscribe(client, value.split("/"))

    def closed(self, client: Client) -> None:
        super().closed(client)
        self._listeners.pop(client, None)
        for clients in self._streams.values():
            clients.discard(client)

    def _subscribe(self, client: Client, streams: Iterable[str]) -> None:
        for stream in streams:
            name = "@".join(stream.split("@")[:2])  # any update speed is the one there is
            if name in self._streams:
                client.channels[name] = stream
                self._streams[name].add(client)

    def message(self, client: Client, text: bytes) -> None:
        number = None
        try:
            asked = orjson.loads(text)
            number, method, parameters = asked.get("id"), asked["method"], asked.get("params") or []
            if client.path == "/ws-api/v3":
                self.send(client, {"id": number, "status": 200, "result": self._call(client, method, parameters)})
                return
            if method == "SUBSCRIBE":
                self._subscribe(client, parameters)
            elif method == "UNSUBSCRIBE":
                for stream in parameters:
                    name = "@".join(stream.split("@")[:2])
                    client.channels.pop(name, None)
                    self._streams.get(name, set()).discard(client)
            else:
                raise ValueError(f"unknown method {method!r}")
        except Complaint as complaint:
            self.send(client, {"id": number, "status": complaint.status,
                               "error": {"code": complaint.code, "msg": complaint.words}})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.send(client, {"id": number, "error": {"code": 2, "msg": f"Invalid request: {error!r}"}})
        else:
            self.send(client, {"result": None, "id": number})

    def _call(self, client: Client, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """A request of the WebSocket API."""
        if method == "ping":
            return {}
        if method == "time":
            return {"serverTime": self._now_ms()}
        if method != "userDataStream.subscribe.signature":
            raise Complaint(400, -1130, "Data sent for parameter 'method' is not valid.")
        given = {name: str(value) for name, value in parameters.items()}
        signature, key = given.pop("signature", ""), given.get("apiKey", "")
        text = "&".join(f"{name}={value}" for name, value in sorted(given.items()))
        self._check_signature(key, text, signature)
        self._check_time(given)
        self._listeners[client] = None
        return {"subscriptionId": 0}

    # What happens to orders is pushed.

    def _applied(self, plan: Plan) -> None:
        orders = self.matching.orders
        before: dict[str, list[int]] = {}  # order id -> filled, spent before this plan
        for event in plan.events:
            if isinstance(event, Filled):
                order = orders[event.order_id]
                sums = before.setdefault(event.order_id, [order.filled, order.spent])
                sums[0] -= event.quantity
                sums[1] -= event.price * event.quantity
        for event in plan.events:
            if not isinstance(event, (Accepted, Filled, Cancelled)):
                continue
            order = orders[event.order_id]
            sums = before.setdefault(event.order_id, [order.filled, order.spent])
            if isinstance(event, Filled):
                sums[0] += event.quantity
                sums[1] += event.price * event.quantity
                status = "FILLED" if sums[0] == order.request.quantity else "PARTIALLY_FILLED"
                self._push(Told("TRADE", status, order, *sums, event.time_ms, event))
            elif isinstance(event, Accepted):
                self._push(Told("NEW", "NEW", order, *sums, event.time_ms, None))
            else:
                if event.reason != "USER_REQUEST":
                    self._withdrawn[order.id] = "REJECTED" if event.reason == _LATE and self._spot else "EXPIRED"
                status = self._withdrawn.get(order.id, "CANCELED")
                self._push(Told(status, status, order, *sums, event.time_ms, None))

    def _push(self, told: Told) -> None:
        """To everybody who listens; a fault may have it twice, later or not at all."""
        now, order_id = self.loop.time(), told.order.id
        fault = self._beset_fill(told.fill) if told.fill is not None else None
        name = fault.name if fault is not None and fault.how != "asked" else ""
        if name == "fill-lost":
            return
        if name == "fill-late":
            self._late[order_id] = now + fault.seconds
        event = self._report(told) if self._spot else self._update(told)
        when = self._late.get(order_id, 0.0)
        if when > now:
            self.later(when, lambda: self._push_now(event))
        else:
            for _ in range(2 if name == "fill-twice" else 1):
                self._push_now(event)

    def _push_now(self, event: dict[str, Any]) -> None:
        message = orjson.dumps({"subscriptionId": 0, "event": event} if self._spot else event)
        for client in self._listeners:
            self.send(client, message)
        self.flush()

    def _update(self, told: Told) -> dict[str, Any]:
        order, r, fill = told.order, told.order.request, told.fill
        fee, fee_asset = self._commission(order, fill) if fill else (0, assets(r.symbol)[1])
        return {"e": "ORDER_TRADE_UPDATE", "E": self._now_ms(), "T": told.time_ms, "o": {
            "s": r.symbol, "c": r.client_order_id, "S": "BUY" if r.side > 0 else "SELL", "o": r.order_type,
            "f": r.time_in_force, "q": fixed.text(r.quantity), "p": fixed.text(r.limit_price),
            "ap": fixed.text(told.spent // told.filled if told.filled else 0), "sp": "0", "x": told.kind,
            "X": told.status, "i": _number(order.id), "l": fixed.text(fill.quantity if fill else 0),
            "z": fixed.text(told.filled), "L": fixed.text(fill.price if fill else 0), "N": fee_asset,
            "n": fixed.text(fee), "T": told.time_ms, "t": _number(fill.fill_id) if fill else 0,
            "b": "0", "a": "0", "m": False, "R": False, "wt": "CONTRACT_PRICE", "ot": r.order_type, "ps": "BOTH",
            "cp": False, "rp": "0", "V": "NONE"}}

    def _report(self, told: Told) -> dict[str, Any]:
        order, r, fill = told.order, told.order.request, told.fill
        cancelled = told.kind == "CANCELED"
        fee, fee_asset = self._commission(order, fill) if fill else (0, None)
        return {"e": "executionReport", "E": self._now_ms(), "s": r.symbol,
                "c": f"cancel-{order.id}" if cancelled else r.client_order_id, "S": "BUY" if r.side > 0 else "SELL",
                "o": r.order_type, "f": r.time_in_force, "q": fixed.text(r.quantity), "p": fixed.text(r.limit_price),
                "P": "0", "F": "0", "g": -1, "C": r.client_order_id if cancelled else "", "x": told.kind,
                "X": told.status, "r": "NONE", "i": _number(order.id), "l": fixed.text(fill.quantity if fill else 0),
                "z": fixed.text(told.filled), "L": fixed.text(fill.price if fill else 0),
                "n": fixed.text(fee), "N": fee_asset,
                "T": told.time_ms, "t": _number(fill.fill_id) if fill else -1, "I": 0,
                "w": told.status in ("NEW", "PARTIALLY_FILLED"), "m": False, "M": False, "O": order.created_ms,
                "Z": fixed.text(told.spent // SCALE), "Q": "0", "V": "NONE",
                "Y": fixed.text(fill.price * fill.quantity // SCALE if fill else 0)}

    # Requests.

    def http(self, call: HttpCall) -> None:
        base = "/api/v3/" if self._spot else "/fapi/v1/"
        place = call.path.removeprefix(base) if call.path.startswith(base) else call.path
        try:
            self._count(call)
            self._route(call, place)
        except Complaint as complaint:
            call.answer(complaint.status, {"code": complaint.code, "msg": complaint.words}, *complaint.headers)
        except ResourceError as error:
            log.error("%s", error)
            call.answer(503, {"code": -1016, "msg": "This service is no longer available."}, ("Retry-After", "1"))

    def _count(self, call: HttpCall) -> None:
        """Too many requests are refused, and who goes on is told so in other words."""
        wait = self._weights.wait(self.loop.time())
        self._refused = self._refused + 1 if wait else 0
        if self._refused > PATIENCE:
            raise Complaint(418, -1003, "Way too many requests; IP banned until "
                            f"{self._now_ms() + BAN_S * 1000}.", ("Retry-After", str(BAN_S)))
        if wait:
            raise Complaint(429, -1003, "Too many requests; current limit is exceeded.", ("Retry-After", str(wait)))

    def _route(self, call: HttpCall, place: str) -> None:
        public: dict[str, Callable[[HttpCall], Any]] = {
            "ping": lambda call: {}, "time": lambda call: {"serverTime": self._now_ms()},
            "exchangeInfo": self._exchange_info, "depth": self._depth, "trades": self._trades,
            "ticker/bookTicker": lambda call: self._each(call, self._top),
            "ticker/price": lambda call: self._each(call, self._price)}
        signed: dict[tuple[str, str], Callable[[dict[str, str]], Any]] = {
            ("GET", "order"): lambda given: self._told_order(self._find(given)),
            ("DELETE", "order"): self._withdraw,
            ("GET", "openOrders"): self._open_orders}
        if self._spot:
            signed |= {("GET", "account"): self._balances, ("GET", "myTrades"): self._own_trades}
        else:
            signed |= {("GET", "/fapi/v2/positionRisk"): self._positions,
                       ("GET", "/fapi/v3/positionRisk"): self._positions, ("GET", "userTrades"): self._own_trades,
                       ("POST", "countdownCancelAll"): self._count_down}
        if place == "depth" and call.method == "GET" and self.hindered(call, call.query.get("symbol", "")):
            return
        if place in public and call.method == "GET":
            call.answer(200, public[place](call))
        elif place == "listenKey" and not self._spot and call.method in ("POST", "PUT", "DELETE"):
            self._check_key(call)
            call.answer(200, {} if call.method == "DELETE" else {"listenKey": _LISTEN_KEY})
        elif (call.method, place) == ("POST", "order"):
            self._place_order(call, self._account_request(call))
        elif (call.method, place) in signed:
            call.answer(200, signed[call.method, place](self._account_request(call)))
        else:
            raise Complaint(404, -5000, f"Path {call.path}, Method {call.method} is invalid")

    # Who asks.

    def _check_key(self, call: HttpCall) -> None:
        key = call.headers.get("x-mbx-apikey", "")
        if not key:
            raise Complaint(401, -2014, "API-key format invalid.")
        if not self._credentials.knows(key):
            raise Complaint(401, -2015, "Invalid API-key, IP, or permissions for action")

    def _check_signature(self, key: str, text: str, signature: str) -> None:
        if not signature:
            raise Complaint(400, -1102, "Mandatory parameter 'signature' was not sent, was empty/null, or malformed.")
        if not self._credentials.verifies(key, text, signature):
            raise Complaint(400, -1022, "Signature for this request is not valid.")

    def _check_time(self, given: dict[str, str]) -> None:
        stamp, window = (given.get(name, usual) for name, usual in (("timestamp", ""), ("recvWindow", str(WINDOW_MS))))
        if not stamp.isdecimal():
            raise Complaint(400, -1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed.")
        if not window.isdecimal() or not 0 < int(window) <= MAX_WINDOW_MS:
            raise Complaint(400, -1131, "recvWindow must be less than 60000")
        now = self._now_ms()
        if int(stamp) >= now + AHEAD_MS:
            raise Complaint(400, -1021, "Timestamp for this request was 1000ms ahead of the server's time.")
        if now - int(stamp) > int(window):
            raise Complaint(400, -1021, "Timestamp for this request is outside of the recvWindow.")

    def _account_request(self, call: HttpCall) -> dict[str, str]:
        """The parameters of a signed request, in its query, its body, or both."""
        self._check_key(call)
        query = call.target.partition("?")[2]
        parts = [part for text in (query, call.body.decode("ascii", "replace")) for part in text.split("&") if part]
        signatures = [part for part in parts if part.startswith("signature=")]
        # What is signed is both put together, without an & between them.
        rest = ["&".join(part for part in text.split("&") if part and not part.startswith("signature="))
                for text in (query, call.body.decode("ascii", "replace"))]
        self._check_signature(call.headers["x-mbx-apikey"], "".join(rest),
                              unquote(signatures[0].partition("=")[2]) if signatures else "")
        given = dict(parse_qsl("&".join(part for part in parts if part not in signatures)))
        self._check_time(given)
        return given

    # The market, asked for.

    def _symbol(self, given: dict[str, str]) -> str:
        symbol = _mandatory(given, "symbol")
        if symbol not in self.symbols:
            raise Complaint(400, -1121, "Invalid symbol.")
        return symbol

    def _exchange_info(self, call: HttpCall) -> dict[str, Any]:
        limit = "minNotional" if self._spot else "notional"
        listed = []
        for symbol in self.symbols:
            base, quote = assets(symbol)
            tick, lot = (fixed.text(value) for value in self._increments[symbol])
            listed.append({
                "symbol": symbol, "status": "TRADING", "baseAsset": base, "quoteAsset": quote,
                "baseAssetPrecision": 8, "quotePrecision": 8, "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
                **({"isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "permissions": ["SPOT"],
                    "quoteAssetPrecision": 8} if self._spot else
                   {"pair": symbol, "contractType": "PERPETUAL", "marginAsset": quote, "pricePrecision": 8,
                    "quantityPrecision": 8, "deliveryDate": 4133404800000, "onboardDate": 1569398400000,
                    "underlyingType": "COIN", "timeInForce": ["GTC", "IOC", "FOK", "GTX"]}),
                "filters": [
                    {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "10000000", "tickSize": tick},
                    {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "10000000", "stepSize": lot},
                    {"filterType": "NOTIONAL" if self._spot else "MIN_NOTIONAL", limit: fixed.text(MIN_NOTIONAL)}]})
        return {"timezone": "UTC", "serverTime": self._now_ms(), "rateLimits": [], "exchangeFilters": [],
                "symbols": listed}

    def _depth(self, call: HttpCall) -> dict[str, Any]:
        symbol, limit = self._symbol(call.query), call.query.get("limit", "500")
        if not limit.isdecimal() or not 0 < int(limit) <= 5000:
            raise Complaint(400, -1130, "Data sent for parameter 'limit' is not valid.")
        index, now = self.symbols.index(symbol), self._now_ms()
        bids, asks = (_pairs(side[:int(limit)]) for side in self._book(index))
        return {"lastUpdateId": self.market.books[index].sequence, **({} if self._spot else {"E": now, "T": now}),
                "bids": bids, "asks": asks}

    def _trades(self, call: HttpCall) -> list[dict[str, Any]]:
        limit = call.query.get("limit", str(MOST_RECENT))
        if not limit.isdecimal() or not int(limit):
            raise Complaint(400, -1130, "Data sent for parameter 'limit' is not valid.")
        return list(self._recent[self._symbol(call.query)])[-int(limit):]

    def _each(self, call: HttpCall, of: Callable[[str], dict[str, Any]]) -> Any:
        """Of the symbol that is named, or of several, or of all."""
        if "symbol" in call.query:
            return of(self._symbol(call.query))
        try:
            names = orjson.loads(call.query["symbols"]) if "symbols" in call.query else self.symbols
        except orjson.JSONDecodeError:
            raise Complaint(400, -1100, "Illegal characters found in parameter 'symbols'.") from None
        return [of(self._symbol({"symbol": name})) for name in names]

    def _top(self, symbol: str) -> dict[str, Any]:
        bid, bid_qty, ask, ask_qty, _ = map(fixed.text, self.market.books[self.symbols.index(symbol)].top())
        return {"symbol": symbol, "bidPrice": bid, "bidQty": bid_qty, "askPrice": ask, "askQty": ask_qty,
                "time": self._now_ms()}

    def _price(self, symbol: str) -> dict[str, Any]:
        return {"symbol": symbol, "price": fixed.text(self.market.books[self.symbols.index(symbol)].last)}

    # Orders.

    def _place_order(self, call: HttpCall, given: dict[str, str]) -> None:
        fault = self.beset(call, given.get("symbol", ""))
        name = fault.name if fault is not None else ""
        if name == "order-cut":
            return
        if name == "order-429":
            raise Complaint(429, -1003, "Too many requests.", ("Retry-After", f"{fault.seconds:.0f}"))
        if name == "order-clock":
            self.ahead_ns += round(fault.seconds * 1e9)
        if name == "order-503" and fault.how == "not-taken":
            raise Complaint(503, -1007, "Timeout waiting for response from backend server. Send status unknown; "
                            "execution status unknown.")
        if wait := self._placed.wait(self.loop.time()):
            raise Complaint(429, -1015, "Too many new orders.", ("Retry-After", str(wait)))
        request = self._request(given)
        if self.matching.find(request.client_order_id) is not None:
            self.telemetry.add("duplicates")
            raise Complaint(400, *((-2010, "Duplicate order sent.") if self._spot else
                                   (-4116, "ClientOrderId is duplicated.")))
        index = self.symbols.index(request.symbol)
        book = self._book(index)
        self._check_order(given, request, book)
        plan = self.matching.submit(request, book, self.market.books[index].last, self._now_ms(), self._marks())
        if isinstance(plan.events[0], Rejected):
            raise Complaint(400, *_INSUFFICIENT[self._spot])
        if name == "order-rejected":
            plan = Plan(plan.events[:1], [])
        self._execute(plan)
        order = self.matching.orders[plan.events[0].order_id]
        if name == "order-503":
            call.answer(503, {"code": -1007, "msg": "Timeout waiting for response from backend server. Send status "
                              "unknown; execution status unknown."})
        else:
            call.answer(200, self._placed_order(order))
        if name == "order-rejected" and not order.final:
            self._execute(self.matching.cancel(order, self._now_ms(), _LATE))

    def _request(self, given: dict[str, str]) -> Request:
        """The order that is asked for, well formed and within the filters."""
        symbol, kind = self._symbol(given), _mandatory(given, "type")
        side = {"BUY": 1, "SELL": -1}.get(_mandatory(given, "side"))
        if side is None:
            raise Complaint(400, -1117, "Invalid side.")
        if kind not in ("LIMIT", "MARKET", *(("LIMIT_MAKER",) if self._spot else ())):
            raise Complaint(400, -1116, "Invalid orderType.")
        life = given.get("timeInForce", "") if kind == "LIMIT" else {"MARKET": "IOC"}.get(kind, "GTC")
        if kind == "LIMIT":
            _mandatory(given, "timeInForce")
        if life not in ("GTC", "IOC", "FOK", *(() if self._spot else ("GTX",))):
            raise Complaint(400, -1115, "Invalid timeInForce.")
        client_id = given.get("newClientOrderId") or f"web-{self.matching.counts['orders'] + 1}"
        if not _CLIENT_ID.fullmatch(client_id):
            raise Complaint(400, -1100, "Illegal characters found in parameter 'newClientOrderId'.")
        tick, lot = self._increments[symbol]
        price = 0 if kind == "MARKET" else self._decimal(given, "price", tick, "PRICE_FILTER", -4014)
        qty = self._decimal(given, "quantity", lot, "LOT_SIZE", -1111)
        worth = (price or self._marks()[symbol]) * qty // SCALE
        if worth < MIN_NOTIONAL and given.get("reduceOnly") != "true":
            raise Complaint(400, *((-1013, "Filter failure: NOTIONAL") if self._spot else
                                   (-4164, "Order's notional must be no smaller than 5 (unless you choose reduce only)."
                                    )))
        # The order book knows no post-only orders: whether one would take is looked at before.
        return Request(client_id, symbol, side, "MARKET" if kind == "MARKET" else "LIMIT",
                       "GTC" if life == "GTX" else life, qty, price, 0)

    def _decimal(self, given: dict[str, str], name: str, increment: int, rule: str, code: int) -> int:
        text = _mandatory(given, name)
        try:
            value = fixed.parse(text, name)
        except VenueError:
            raise Complaint(400, -1100, f"Illegal characters found in parameter '{name}'.") from None
        if value <= 0 or value % increment:
            raise Complaint(400, *((-1013, f"Filter failure: {rule}") if self._spot else
                                   (code, f"{name} does not fit its increment {fixed.text(increment)}.")))
        return value

    def _check_order(self, given: dict[str, str], request: Request, book: tuple[list, list]) -> None:
        """What depends on the market and the account."""
        other = book[1] if request.side > 0 else book[0]
        crosses = bool(other) and (request.limit_price - other[0][0]) * request.side >= 0
        if crosses and "GTX" == given.get("timeInForce"):
            raise Complaint(400, -5022, "Due to the order could not be executed as maker, the Post Only order will be "
                            "rejected. The order will not be recorded in the order history")
        if crosses and given["type"] == "LIMIT_MAKER":
            raise Complaint(400, -2010, "Order would immediately match and take.")
        held = self.matching.positions.get(request.symbol)
        quantity = (held.quantity if held else 0) - self._fees_of(assets(request.symbol)[0])
        if self._spot and request.side < 0:
            resting = sum(order.left for order in self.matching.working.get(request.symbol, {}).values()
                          if order.request.side < 0)
            if request.quantity + resting > quantity:
                raise Complaint(400, *_INSUFFICIENT[True])
        if given.get("reduceOnly") == "true" and (quantity * request.side >= 0 or request.quantity > abs(quantity)):
            raise Complaint(400, -2022, "ReduceOnly Order is rejected.")

    def _find(self, given: dict[str, str]) -> Order:
        symbol = self._symbol(given)
        if "origClientOrderId" in given:
            order = self.matching.find(given["origClientOrderId"])
        else:
            order = self.matching.orders.get(f"O{_mandatory(given, 'orderId')}")
        if order is None or order.request.symbol != symbol or order.status == "REJECTED":
            raise Complaint(400, -2013, "Order does not exist.")
        return order

    def _withdraw(self, given: dict[str, str]) -> dict[str, Any]:
        try:
            order = self._find(given)
        except Complaint as complaint:
            if complaint.code != -2013:
                raise
            raise Complaint(400, -2011, "Unknown order sent.") from None
        if order.final:
            raise Complaint(400, -2011, "Unknown order sent.")
        self._execute(self.matching.cancel(order, self._now_ms()))
        told = self._told_order(order)
        if self._spot:
            told |= {"origClientOrderId": order.request.client_order_id, "clientOrderId": f"cancel-{order.id}"}
        return told

    def _open_orders(self, given: dict[str, str]) -> list[dict[str, Any]]:
        symbols = [self._symbol(given)] if "symbol" in given else self.symbols
        return [self._told_order(order) for symbol in symbols
                for order in self.matching.working.get(symbol, {}).values()]

    def _count_down(self, given: dict[str, str]) -> dict[str, Any]:
        """All orders of a symbol are cancelled after a while, unless this is asked for again; 0: they are not."""
        symbol, text = self._symbol(given), _mandatory(given, "countdownTime")
        if not text.isdecimal():
            raise Complaint(400, -1130, "Data sent for parameter 'countdownTime' is not valid.")
        if symbol in self._countdowns:
            self._countdowns.pop(symbol).cancel()
        if int(text):
            self._countdowns[symbol] = self.later(self.loop.time() + int(text) / 1000, lambda: self._time_out(symbol))
        return {"symbol": symbol, "countdownTime": text}

    def _time_out(self, symbol: str) -> None:
        del self._countdowns[symbol]
        for order in list(self.matching.working.get(symbol, {}).values()):
            with self._patience():
                self._execute(self.matching.cancel(order, self._now_ms()))
        self.flush()

    def _status(self, order: Order) -> str:
        """As Binance has it: what is not filled at once of an order that may not wait has expired."""
        if order.status != "CANCELLED":
            return _STATES[order.status]
        at_once = order.request.time_in_force in ("IOC", "FOK")
        return self._withdrawn.get(order.id, "EXPIRED" if at_once else "CANCELED")

    def _told_order(self, order: Order) -> dict[str, Any]:
        r, spent = order.request, fixed.text(order.spent // SCALE)
        time_ms = order.fills[-1].time_ms if order.fills else order.created_ms
        told = {"symbol": r.symbol, "orderId": _number(order.id), "clientOrderId": r.client_order_id,
                "price": fixed.text(r.limit_price), "origQty": fixed.text(r.quantity),
                "executedQty": fixed.text(order.filled), "status": self._status(order),
                "timeInForce": r.time_in_force, "type": r.order_type, "side": "BUY" if r.side > 0 else "SELL",
                "stopPrice": "0", "time": order.created_ms, "updateTime": time_ms}
        if self._spot:
            return told | {"orderListId": -1, "cummulativeQuoteQty": spent, "isWorking": True,
                           "origQuoteOrderQty": "0", "selfTradePreventionMode": "NONE"}
        return told | {"avgPrice": fixed.text(order.average_price), "cumQuote": spent, "reduceOnly": False,
                       "closePosition": False, "positionSide": "BOTH", "origType": r.order_type,
                       "workingType": "CONTRACT_PRICE", "priceProtect": False}

    def _placed_order(self, order: Order) -> dict[str, Any]:
        """The answer to a new order; on spot with its fills."""
        told = self._told_order(order)
        if self._spot:
            told |= {"transactTime": told["updateTime"], "fills": [
                {"price": fixed.text(fill.price), "qty": fixed.text(fill.quantity), "commission": fixed.text(fee),
                 "commissionAsset": fee_asset, "tradeId": _number(fill.fill_id)}
                for fill in self._fills_told(order) for fee, fee_asset in [self._commission(order, fill)]]}
        return told

    def _own_trades(self, given: dict[str, str]) -> list[dict[str, Any]]:
        """Oldest first: from `fromId` on, or the newest."""
        symbol, number = self._symbol(given), given.get("orderId")
        start, limit = given.get("fromId", "0"), given.get("limit", str(PAGE))
        for name, text in (("fromId", start), ("limit", limit)):
            if not text.isdecimal():
                raise Complaint(400, -1130, f"Data sent for parameter '{name}' is not valid.")
        orders = [order for order in self.matching.orders.values() if order.request.symbol == symbol
                  and (number is None or order.id == f"O{number}")]
        trades = sorted(((_number(fill.fill_id), order, fill) for order in orders for fill in self._fills_told(order)
                         if _number(fill.fill_id) >= int(start)), key=lambda trade: trade[0])
        count = max(1, min(int(limit), MAX_PAGE))
        return [self._own_trade(order, fill)
                for _, order, fill in (trades[:count] if "fromId" in given else trades[-count:])]

    def _own_trade(self, order: Order, fill: Filled) -> dict[str, Any]:
        fee, fee_asset = self._commission(order, fill)
        buys = order.request.side > 0
        return {"symbol": order.request.symbol, "id": _number(fill.fill_id), "orderId": _number(order.id),
                "price": fixed.text(fill.price), "qty": fixed.text(fill.quantity),
                "quoteQty": fixed.text(fill.price * fill.quantity // SCALE), "commission": fixed.text(fee),
                "commissionAsset": fee_asset, "time": fill.time_ms, "maker": False, "realizedPnl": "0",
                "side": "BUY" if buys else "SELL", "positionSide": "BOTH", "buyer": buys, "isBuyer": buys,
                "isMaker": False}

    def _commission(self, order: Order, fill: Filled) -> tuple[int, str]:
        """The fee of a fill, and the asset it is taken in."""
        base, quote = assets(order.request.symbol)
        asset = self.fees_in or quote
        if asset == "bought":
            asset = base if order.request.side > 0 else quote
        if asset == quote:
            return fill.fee, quote
        price = fill.price if asset == base else self._marks().get(f"{asset}{quote}", SCALE)
        return fill.fee * SCALE // price, asset

    def _fees_of(self, asset: str) -> int:
        """What has been taken of an asset for fees, on spot; the cash is charged whatever they are taken in."""
        if not self.fees_in or not self._spot:
            return 0
        return sum(fee for order in self.matching.orders.values() for fill in order.fills
                   for fee, taken in [self._commission(order, fill)] if taken == asset)

    def _positions(self, given: dict[str, str]) -> list[dict[str, Any]]:
        marks = self._marks()
        return [{"symbol": symbol, "positionAmt": fixed.text(position.quantity), "positionSide": "BOTH",
                 "entryPrice": fixed.text(position.average_price), "markPrice": fixed.text(marks.get(symbol, 0)),
                 "updateTime": self._now_ms()}
                for symbol, position in sorted(self.matching.positions.items())
                if position.quantity and given.get("symbol", symbol) == symbol]

    def _balances(self, given: dict[str, str]) -> dict[str, Any]:
        bases = {assets(symbol)[0]: symbol for symbol in self.matching.positions}
        held = {base: self.matching.positions[symbol].quantity - self._fees_of(base) for base, symbol in bases.items()}
        held[assets(self.symbols[0])[1]] = self.matching.cash
        return {"canTrade": True, "accountType": "SPOT", "balances": [
            {"asset": asset, "free": fixed.text(qty), "locked": "0"} for asset, qty in sorted(held.items())]}


_INSUFFICIENT = {True: (-2010, "Account has insufficient balance for requested action."),
                 False: (-2019, "Margin is insufficient.")}


def assets(symbol: str) -> tuple[str, str]:
    """Base and quote of a name: BTCUSDT, or BTC-USD."""
    base, dash, quote = symbol.partition("-")
    if dash:
        return base, quote
    for quote in QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol.removesuffix(quote), quote
    return symbol, "USDT"


def _mandatory(given: dict[str, str], name: str) -> str:
    if not given.get(name):
        raise Complaint(400, -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return given[name]


def _number(text: str) -> int:
    """Of an order or a fill: O12 -> 12."""
    return int(text[1:])


def _pairs(levels: Iterable[tuple[int, int]]) -> list[list[str]]:
    return [[fixed.text(price), fixed.text(qty)] for price, qty in levels]
