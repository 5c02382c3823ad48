"""The VecTrade gateway over a synthetic market: the server's side of the protocol that `common.venues.vectrade`
speaks as a client.

    /ws                  one multiplexed connection: order books, trades, tickers, heartbeats
    /api/trade/v1/bot/   orders and portfolio, with header X-Bot-Key

The market moves by the time of the event loop, whether anybody listens or not.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import math
import os
from collections import deque
from typing import Any, Callable, Iterator, Sequence

import orjson

from common import faults, fixed
from common.config import ENV_BOT_KEY, Config
from common.errors import AlphaError, ConfigError, ResourceError, VenueError
from common.loopback.connections import Client, HttpCall, Mode, framed
from common.loopback.record import Record
from common.matching import Accepted, Filled, Matching, Order, Plan, Refused, Rejected, parse_request
from common.synthetic import Step, SyntheticMarket

API = "/api/trade/v1/bot/"
DEFAULT_KEY = "loopback"  #: where the environment gives none
TURN_S = 0.005  #: longest work between two looks at the sockets
LATE_S = 1.0  #: a market that has fallen behind by more goes on from now, and does not rush

log = logging.getLogger("exchange")


class Synthetic(Mode):
    """A market, its subscribers, and the orders against it. Prices and quantities of orders must be multiples
    of the configured increments of their instrument."""

    name, venue = "synthetic", "vectrade"
    without: Sequence[str] = (*faults.OF_SNAPSHOTS, "fill-lost")  # no snapshot is asked for, and no fill pushed

    def __init__(self, config: Config, clock: Any, loop: Any, telemetry: Any) -> None:
        super().__init__(loop, telemetry)
        settings = config.exchange
        self._clock, self.symbols = clock, config.market.symbols
        self.ahead_ns = round(settings.clock_s * 1e9)  #: of its clock against this machine's
        self._key = (os.environ.get(ENV_BOT_KEY) or DEFAULT_KEY).encode()
        if settings.rate <= 0:
            raise ConfigError("a configuration value is out of range", where=f"exchange.rate={settings.rate}",
                              remedy="use more than 0")
        self._increments = {symbol: (_increment(config, symbol, "tick"), _increment(config, symbol, "lot"))
                            for symbol in config.market.symbols}
        self._requests, self._orders = Limit(settings.requests_per_minute), Limit(settings.orders_per_minute)
        self._record = Record(config.state_dir / "exchange.jsonl")
        try:
            self.matching = Matching(settings.fee_bps)
            self.matching.restore(self._record.lines(), str(self._record.path))
        except AlphaError:
            self._record.close()
            raise
        # The books start anew, but near the prices that the positions were traded at.
        prices = {order.request.symbol: order.fills[-1].price
                  for order in self.matching.orders.values() if order.fills}
        self.market = SyntheticMarket(config.market.symbols, settings.seed, settings.rate, self._now_ms(), prices)
        self._fans: dict[str, set[Client]] = {f"{kind}:{symbol}": set() for symbol in self.market.symbols
                                              for kind in ("orderbook", "trades", "ticker")}
        self._by_symbol = [tuple(self._fans[f"{kind}:{symbol}"] for kind in ("orderbook", "trades", "ticker"))
                           for symbol in self.market.symbols]
        self._tops: list[tuple] = [()] * len(self.market.symbols)
        self._zero = 0.0  # loop time at which step 0 would have been
        self._silent_until = 0.0
        self._late_fills: dict[str, float] = {}  # fill id -> loop time before which nothing tells of it
        self._twice: set[str] = set()  # fills that are told twice

    def _now_ms(self) -> int:
        return (self._clock.wall_ns() + self.ahead_ns) // 1_000_000

    def begin(self) -> None:
        self._zero = self.loop.time()
        self.later(self._zero, self._turn)
        self.later(self._zero + 1.0, self._heartbeat)

    def closed(self, client: Client) -> None:
        super().closed(client)
        for fan in self._fans.values():
            fan.discard(client)

    def end(self) -> None:
        self._record.close()

    def status(self) -> dict[str, Any]:
        return super().status() | {"symbols": self.market.symbols, "rate": self.market.rate,
                                   "played": self.market.steps, "finished": False, **self.matching.counts}

    # The market.

    def _turn(self) -> None:
        """Every step that is due."""
        now, rate, market = self.loop.time(), self.market.rate, self.market
        if now - self._zero - market.steps / rate > LATE_S:
            self._zero = now - market.steps / rate
        due = int((now - self._zero) * rate)
        while market.steps < due:
            self._publish([market.step()])
            if self.loop.time() - now > TURN_S:
                break
        self.flush()
        self.later(self._zero + (market.steps + 1) / rate, self._turn)

    def _publish(self, steps: list[Step]) -> None:
        """Tells the subscribers, then lets resting orders see it."""
        self._spread(steps)
        for step in steps:
            name = self.market.symbols[step.symbol]
            if self.matching.working.get(name):
                prints = [(price, qty) for _, price, qty in step.trades]
                plan = self.matching.on_market(name, self._book(step.symbol), prints, self._now_ms())
                with self._patience():
                    self._execute(plan)

    def _spread(self, steps: list[Step]) -> None:
        """Tells the subscribers."""
        market = self.market
        for step in steps:
            books, trades, _ = self._by_symbol[step.symbol]
            if trades:
                for frame in market.trades(step):
                    self.send_framed(trades, framed(frame))
            if books:
                self.send_framed(books, framed(market.delta(step)))
        for symbol in {step.symbol for step in steps}:
            tickers = self._by_symbol[symbol][2]
            if tickers and self._tops[symbol] != (top := market.books[symbol].top()):
                self._tops[symbol] = top
                self.send_framed(tickers, framed(market.ticker(symbol)))

    def _heartbeat(self) -> None:
        self.later(self.loop.time() + 1.0, self._heartbeat)
        self._beat()
        with self._patience():
            self._execute(self.matching.expire(self._now_ms()))
        self.flush()

    def _beat(self) -> None:
        """What every client is told each second."""
        beat = framed(orjson.dumps({"type": "heartbeat", "timestamp": self._now_ms()}))
        self.send_framed(self.clients, beat)

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """What the market does to resting orders waits where it cannot be recorded: the next step tries again."""
        try:
            yield
        except ResourceError as error:
            if self.loop.time() > self._silent_until:
                self._silent_until = self.loop.time() + 1.0
                log.error("%s", error)

    def _book(self, symbol: int) -> tuple[list, list]:
        book = self.market.books[symbol]
        return book.levels(True), book.levels(False)

    # Channels.

    def socket_path(self, path: str) -> bool:
        return path == "/ws"

    def message(self, client: Client, text: bytes) -> None:
        try:
            asked = orjson.loads(text)
            action, channels = asked["action"], list(dict.fromkeys(asked["channels"]))
            known = [name for name in channels if name in self._fans]
            if action not in ("subscribe", "unsubscribe"):
                raise ValueError(f"unknown action {action!r}")
        except (KeyError, TypeError, ValueError) as error:
            self.send(client, {"type": "error", "code": "MALFORMED_MESSAGE",
                               "message": f'send {{"action":"subscribe","channels":[...]}}; {error!r}'})
            return
        for name in channels:
            if name not in self._fans:
                self.send(client, {"type": "error", "code": "UNKNOWN_CHANNEL", "message": f"no channel {name!r}"})
        if known or not channels:
            self.send(client, {"type": f"{action}d", "channels": known})
        for name in known:
            if action == "unsubscribe":
                self._fans[name].discard(client)
                continue
            self._fans[name].add(client)
            kind, _, symbol = name.partition(":")
            index = self.market.symbols.index(symbol)
            if kind == "orderbook":
                self.send(client, self.market.snapshot(index))
            elif kind == "ticker":
                self.send(client, self.market.ticker(index))

    # Orders.

    def http(self, call: HttpCall) -> None:
        if not call.path.startswith(API):
            return call.refuse(404, "NOT_FOUND", f"nothing at {call.path}")
        if not hmac.compare_digest(call.headers.get("x-bot-key", "").encode(), self._key):
            return call.refuse(401, "UNAUTHORIZED", "X-Bot-Key is missing or wrong")
        if wait := self._requests.wait(self.loop.time()):
            return call.refuse(429, "TOO_MANY_REQUESTS", "above requests_per_minute", ("Retry-After", str(wait)))
        what, _, order_id = call.path.removeprefix(API).partition("/")
        routes: dict[str, Callable[[HttpCall], None]] = {}
        if what == "orders" and order_id:
            routes = {"GET": lambda call: self._show(call, order_id),
                      "DELETE": lambda call: self._cancel(call, order_id)}
        elif what == "orders":
            routes = {"POST": self._place, "GET": self._list}
        elif what == "portfolio" and not order_id:
            routes = {"GET": lambda call: call.answer(200, self.matching.portfolio(self._marks()))}
        if not routes:
            return call.refuse(404, "NOT_FOUND", f"nothing at {call.path}")
        if call.method not in routes:
            return call.refuse(405, "METHOD_NOT_ALLOWED", f"no {call.method} here", ("Allow", ", ".join(routes)))
        try:
            routes[call.method](call)
        except Refused as refused:
            call.refuse(422, refused.code, refused.message, field=refused.field)
        except ResourceError as error:
            log.error("%s", error)
            call.refuse(503, "RECORD_UNAVAILABLE", "nothing was done: the exchange cannot write its record",
                        ("Retry-After", "1"))

    def _place(self, call: HttpCall) -> None:
        request = parse_request(call.body, self._increments)
        first = self.matching.find(request.client_order_id)
        if first is not None:
            self.telemetry.add("duplicates")
            return call.answer(200, self._told(first))
        if wait := self._orders.wait(self.loop.time()):
            return call.refuse(429, "TOO_MANY_ORDERS", "above orders_per_minute", ("Retry-After", str(wait)))
        symbol = self.market.symbols.index(request.symbol)
        fault = self.beset(call, request.symbol)
        name = fault.name if fault is not None else ""
        if name == "order-cut":
            return
        if name == "order-429":
            return call.refuse(429, "FAULT", "refused by a fault", ("Retry-After", f"{fault.seconds:.0f}"))
        if name == "order-clock":
            self.ahead_ns += round(fault.seconds * 1e9)
        if name == "order-503" and fault.how == "not-taken":
            return call.refuse(503, "FAULT", "nothing was done")
        plan = self.matching.submit(request, self._book(symbol), self.market.books[symbol].last, self._now_ms(),
                                    self._marks())
        if name == "order-rejected":
            plan = Plan(plan.events[:1], [])
        self._execute(plan)
        order = self.matching.orders[plan.events[0].order_id]
        if name == "order-503":
            call.refuse(503, "FAULT", "it may have been taken")
        else:
            call.answer(201, self._told(order))
        if name == "order-rejected" and not order.final:
            self._execute(self.matching.cancel(order, self._now_ms(), "REJECTED_LATE"))

    def _list(self, call: HttpCall) -> None:
        """The order with a client order id, or all that are not final."""
        client_id = call.query.get("client_order_id")
        if client_id is None:
            orders = [order for working in self.matching.working.values() for order in working.values()]
        else:
            orders = [order for order in (self.matching.find(client_id),) if order is not None]
        call.answer(200, {"orders": [self._told(order) for order in orders]})

    def _show(self, call: HttpCall, order_id: str) -> None:
        order = self.matching.orders.get(order_id)
        if order is None:
            return call.refuse(404, "UNKNOWN_ORDER", f"no order {order_id!r}")
        call.answer(200, self._told(order))

    def _cancel(self, call: HttpCall, order_id: str) -> None:
        order = self.matching.orders.get(order_id)
        if order is None:
            return call.refuse(404, "UNKNOWN_ORDER", f"no order {order_id!r}")
        if order.final:
            return call.refuse(409, "ORDER_FINAL", f"order {order_id} is {order.status}")
        self._execute(self.matching.cancel(order, self._now_ms()))
        call.answer(200, self._told(order))

    def _marks(self) -> dict[str, int]:
        return {book.name: book.mid for book in self.market.books}

    def _execute(self, plan: Plan) -> None:
        """Record first, then do. Raises ResourceError, with nothing done, if the record cannot be written."""
        if not plan.events:
            return
        self._record.append(plan.events)
        for event in plan.events:
            self.matching.apply(event)
        self._applied(plan)
        for name, kinds in (("orders", (Accepted, Rejected)), ("fills", Filled), ("rejected", Rejected)):
            self.telemetry.add(name, sum(isinstance(event, kinds) for event in plan.events))
        self._publish([self.market.take(self.market.symbols.index(symbol), buy, levels, printed)
                       for symbol, buy, levels, printed in plan.taken])

    def _applied(self, plan: Plan) -> None:
        """What has become of orders; a protocol that pushes it does more."""
        for event in plan.events:
            if isinstance(event, Filled):
                self._beset_fill(event)

    def _beset_fill(self, fill: Filled) -> faults.Fault | None:
        """The fault that befalls the news of a fill; what answers to requests make of it is seen to."""
        symbol = self.matching.orders[fill.order_id].request.symbol
        fault = self.plan.fill(symbol) if self.plan is not None else None
        if fault is not None and fault.how != "pushed":
            if fault.name == "fill-late":
                self._late_fills[fill.fill_id] = self.loop.time() + fault.seconds
            elif fault.name == "fill-twice":
                self._twice.add(fill.fill_id)
        return fault

    def _fills_told(self, order: Order) -> list[Filled]:
        """What a request is told of the fills of an order."""
        now = self.loop.time()
        return [fill for fill in order.fills if self._late_fills.get(fill.fill_id, 0.0) <= now
                for _ in range(1 + (fill.fill_id in self._twice))]

    def _told(self, order: Order) -> dict[str, Any]:
        told = order.as_dict()
        fills = {fill["id"]: fill for fill in told["fills"]}
        return told | {"fills": [fills[fill.fill_id] for fill in self._fills_told(order)]}


def _increment(config: Config, symbol: str, name: str) -> int:
    """The configured increment of price (`tick`) or quantity (`lot`)."""
    text = getattr(config.instrument(symbol), name)
    try:
        value = fixed.parse(text, name)
    except VenueError:
        value = 0
    if value <= 0:
        raise ConfigError("an increment is not a decimal above 0", where=f"instruments.{symbol}.{name}={text!r}",
                          remedy='write it like "0.01"')
    return value


class Limit:
    """At most `per_minute` in any minute; 0: no limit."""

    def __init__(self, per_minute: int) -> None:
        self._most = per_minute
        self._times: deque[float] = deque()

    def wait(self, now: float) -> int:
        """0 if one more is allowed, which is then counted; else the whole seconds until it will be."""
        if not self._most:
            return 0
        while self._times and self._times[0] <= now - 60.0:
            self._times.popleft()
        if len(self._times) < self._most:
            self._times.append(now)
            return 0
        return math.ceil(self._times[0] + 60.0 - now) or 1
