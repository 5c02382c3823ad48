"""Orders over Binance's REST API, for usd-m futures and spot, and what its user stream tells of them.

                usd-m                        spot
    submit      POST   /fapi/v1/order        /api/v3/order                     newClientOrderId is ours
    query       GET    /fapi/v1/order        /api/v3/order                     by origClientOrderId
    cancel      DELETE /fapi/v1/order        /api/v3/order                     by origClientOrderId
    fills       GET    /fapi/v1/userTrades   /api/v3/myTrades                  by order id, in pages by fromId
    portfolio   GET    /fapi/v3/positionRisk /api/v3/account, then the prices of what is held
    filters     GET    /fapi/v1/exchangeInfo /api/v3/exchangeInfo
    time        GET    /fapi/v1/time         /api/v3/time                      (common.gateways.binance_clock)
    stream      listenKey, ORDER_TRADE_UPDATE   WebSocket API, executionReport   (common.gateways.binance_stream)

    answer to a submit           means
    200                          the order as it stands
    4xx with a code              refused: it has no effect (-2010, -1013, -1021 and the like)
    401, 403, 404, 413, 418, 429 refused, code or not: it came no further than the door
    -1008 on usd-m               refused, under 503 too: documented there as a failure for certain
    408, 409, other 4xx, 5xx     unknown, other codes or not; also -1000, -1001, -1006 and -1007 under whatever status
    -4116, or "duplicate"        unknown: an order of this client id is there, and has to be asked for
    429, 418, 403, and -1003, -1008, -1015 under whatever status   besides: come back after Retry-After
    none, nothing left           refused by ourselves: it never left; and a pause, since the venue is not there
    none otherwise               unknown

    answer to a query or cancel  means
    -2013 to a query             absent; unanswered if the order was acknowledged: the answer is older than that
    -2026 to a query             cancelled or expired long ago, with nothing filled
    -2011, -2013 to a cancel     nothing to cancel: the order is asked for
    other                        unanswered

Fills come from the stream, and from a request where it has not told all of them within PATIENCE; the end of an order is
told when they add up to it (common.gateways.binance_followed). A client id is sent once in the life of a gateway:
Binance takes one anew when its order is over, so asked again it is looked up instead. `recvWindow` is the time after
which an answer is not waited for any longer: what arrives later than that is refused (-1021), and does not trade behind
our back.

What a fee is worth in the quote asset is told by common.gateways.binance_fills. It takes the filters, where the assets
of a symbol are named: new orders, requests for fills and the user stream wait for them, cancels and queries do not.

The stream tells of all orders of the account. Of symbols that are not ours, what others do is passed over; of ours
their fills are told, since they move what is held. But neither is anything asked for on their behalf, nor waited for.

While orders of ours rest on usd-m, a dead man's timer runs there (countdownCancelAll), and is wound up again every
third of COUNTDOWN: if this process hangs or is gone, the venue cancels all open orders of those symbols, whosever they
are. It is stopped once none of ours has rested for as long. Spot has no such timer.

After a 429, 418 or 403, until the venue's time is over, nothing is asked for that the caller has not asked for or that
his answer takes (the fills of an order, the prices of what is held), and no user stream is opened or its key renewed.

Requests are stamped by the venue's clock, which is measured. What has to be signed waits until that is known, at the
start and after a time was refused (-1021); an order not beyond its own time.

The account must be in one-way mode on usd-m. Spot sells only what it has, and its positions are the balances of the
base assets: symbols that share one, or where one's is paid for another, are refused. The portfolio is asked for once
clock and filters are known and the stream is open, so nothing trades before.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from common import fixed
from common.config import Config
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
)
from common.gateways import binance_answers as answers
from common.gateways import binance_fills as fills
from common.gateways import binance_filters as filters
from common.gateways import binance_holdings as holdings
from common.gateways.binance_answers import complaint, field, parsed, pause_ns
from common.gateways.binance_clock import VenueClock
from common.gateways.binance_fills import Trade
from common.gateways.binance_filters import Filters
from common.gateways.binance_followed import ALIVE, ENDS, Followed, Following
from common.gateways.binance_stream import UserStream
from common.gateways.binance_venue import LOOPBACK_KEY, SPOT, USDM, VENUES, Venue, assets, credentials, stream_url
from common.gateways.joint import Joint
from common.http import TOO_LATE, HttpClient, Reply
from common.orders import SIDE_NAMES, Order, State
from common.positions import Position
from common.ring import Books
from common.signing import Credentials

HOLD_NS = 20_000_000  #: what the stream says of an order waits so long for the answer to the order itself
PATIENCE_NS = 300_000_000  #: for the stream, before the fills of an order are asked for
AGAIN_NS = 1_000_000_000  #: between requests for fills that are not all there yet
COUNTDOWN_NS = 30_000_000_000  #: of the dead man's timer
MAX_WINDOW_MS = 60_000  #: recvWindow that Binance takes at most
PAGE = 1000  #: fills that one request tells at most
MAX_FILLS = 100 * PAGE  #: of one order
AT_ONCE = 8  #: orders that are asked for in one go after the stream was away

_UNKNOWN_CODES = frozenset({-1000, -1001, -1006, -1007})
_NO_SUCH_ORDER, _CANCEL_REJECTED, _WRONG_TIME, _ARCHIVED, _DUPLICATE = -2013, -2011, -1021, -2026, -4116
_OVERLOADED = -1008  # on usd-m a failure for certain, under 503 too; on spot 5xx says nothing
_DOOR = frozenset({401, 403, 404, 413, 418, 429})  # statuses of a request that nobody behind the door has seen
_FILLS = ("TRADE", "CALCULATED")  # the second: a liquidation
_LIVES = ("GTC", "IOC", "FOK", "GTX")


class _Asked(NamedTuple):
    """What a reply is the answer to: `told` makes events of it, `lost` of the reason why it is of no use."""

    told: Callable[[Reply], list[Event]]
    lost: Callable[[str], list[Event]]
    signed_ns: int = 0  #: when it was signed, monotonic; 0: it was not


class _Unsigned(NamedTuple):
    """A request that waits for the venue's clock to be known, and for the filters if its answer may tell `fills`."""

    client: HttpClient
    method: str
    path: str
    parameters: dict[str, object]
    asked: _Asked
    start_by_ns: int
    by_ns: int  #: then it has waited long enough
    fills: bool


class Binance:
    """`spare` carries what is asked besides orders, so that no order waits behind it."""

    def __init__(self, venue: Venue, orders: HttpClient, spare: HttpClient, stream_url: str, credentials: Credentials,
                 symbols: tuple[str, ...], known: Mapping[str, Filters], timeout_s: float, clock) -> None:
        self.name, self._venue, self._clock = venue.name, venue, clock
        self._orders, self._spare, self._credentials = orders, spare, credentials
        self._traded = self._symbols = symbols
        self._timeout_ns = int(timeout_s * 1e9)
        self._window_ms = min(int(timeout_s * 1000), MAX_WINDOW_MS)
        self._filters, self._filters_known, self._filters_ns = dict(known), False, 0
        self._filters_error = "they have not been asked for yet"
        self._time = VenueClock(clock)
        self._unsigned: list[_Unsigned] = []
        key = bool(venue.listen_key)
        self._stream = UserStream(stream_url, clock, timeout_s, ask_key=self._ask_key if key else None,
                                  renew_key=self._renew_key if key else None, hello=None if key else self._hello,
                                  refused=self._refused)
        self._hello_ns = 0  # when it was signed
        self._openings = 0
        self._following = Following()
        self._missed: list[Followed] = []  # ours, to be asked for since the stream was away
        self._events: list[Event] = []  # for the next `work`
        self._portfolio_by_ns = 0  # until when a portfolio may wait for its turn; 0: none is wanted
        self._winds_up, self._observes = bool(venue.countdown), False
        self._timers: dict[str, int] = {}  # symbol -> when its dead man's timer is to be wound up again, or stopped
        self._quiet_ns = 0  # until when the venue wants to be left alone
        self._unwritten = False  # something was asked since the last `work`
        self._joint = Joint(orders, spare, self._stream)
        self._closed = False

    def attach(self, books: Books) -> None:
        """The venue has its own books."""

    def restore(self, positions: Mapping[str, Position]) -> None:
        """The venue has its own record. What is held of a symbol that is not traded any more is asked for, too.
        Raises ConfigError for symbols that cannot be traded together, as far as their names show it: who only looks
        is not hindered."""
        if self._venue is SPOT:
            named = {symbol: Filters(*pair) for symbol in self._traded if any(pair := assets(symbol))}
            if not self._observes and (clash := filters.clash(named)):
                raise ConfigError("balances do not tell the positions of these symbols apart", where=clash,
                                  remedy="leave one out of market.symbols, with nothing held of it")
            symbols = tuple(dict.fromkeys((*self._symbols, *(s for s, held in positions.items() if held.qty))))
            if symbols != self._symbols:
                self._symbols, self._filters_known, self._filters_ns = symbols, False, 0

    def observe(self) -> None:
        """No dead man's timer: it would cancel what others look after."""
        self._winds_up, self._observes = False, True

    # ---- what is asked of it

    def submit(self, order: Order, start_by_ns: int = 0) -> None:
        if order.client_id in self._following:
            return self.query(order)
        parameters = self._order_parameters(order)
        known = self._filters.get(order.symbol)
        refusal = known.refusal(order.price, order.qty, order.reduce_only and self._venue is USDM) if known else (
            f"the venue does not list {order.symbol}" if self._filters_known else "")
        if refusal:
            self._events.append(Ended(order.client_id, State.REJECTED, 0, f"not sent: {refusal}"))
            return
        followed = self._following.begin(order.client_id, order.symbol)
        followed.posted = followed.ours = True

        def lost(reason: str) -> list[Event]:
            followed.posted = False
            return [Unknown(order.client_id, reason), *self._let_go(followed)]

        self._ask(self._orders, "POST", f"{self._venue.rest}/order", parameters, _Asked(
            lambda reply: [*self._submitted(order, followed, reply), *self._let_go(followed)], lost), start_by_ns,
            fills=True)

    def query(self, order: Order) -> None:
        if followed := self._following.get(order.client_id):
            followed.ours = True
        self._query(order.client_id, order.symbol, order)

    def withdraw(self) -> None:
        self._orders.withdraw()
        self._unsigned = [one._replace(start_by_ns=one.start_by_ns and 1) for one in self._unsigned]

    def cancel(self, order: Order, venue_id: str) -> None:
        self._ask(self._orders, "DELETE", f"{self._venue.rest}/order", self._which(order.client_id, order.symbol),
                  _Asked(lambda reply: self._cancelled(order, reply),
                         lambda reason: [Unanswered(order.client_id, reason)]))

    def portfolio(self) -> None:
        self._portfolio_by_ns = self._clock.monotonic_ns() + self._timeout_ns

    def work(self) -> list[Event]:
        if self._closed:
            return []
        now = self._clock.monotonic_ns()
        events, self._events = self._events, []
        for told in self._stream.work(now) if self._may_listen else ():
            if told["e"] == self._venue.event:
                events += self._listened(told, now)
        for followed in self._following:
            if 0 < followed.hold_ns <= now:
                events += self._let_go(followed)
        self._follow_up(now)
        events += self._sign(now)
        while replies := [*self._orders.work(), *self._spare.work()]:
            for reply in replies:
                events += self._answered(reply)
            self._follow_up(now)
            events += self._sign(now)
        self._unwritten = False
        return events

    @property
    def busy(self) -> bool:
        """Until it is closed: the stream may speak at any time."""
        return not self._closed

    @property
    def wants_write(self) -> bool:
        return False

    def fileno(self) -> int:
        """One descriptor for all connections: who waits for it wakes for each of them."""
        return self._joint.fileno()

    def due_ns(self) -> int:
        if self._closed:
            return 0
        later = [self._time.due_ns(), 0 if self._filters_known else self._filters_ns,
                 *(followed.ask_ns for followed in self._following)]
        dues = [self._orders.deadline_ns(), self._spare.deadline_ns(), self._portfolio_by_ns,
                self._stream.due_ns() if self._may_listen else 0, 1 if self._events or self._unwritten else 0,
                *(time for waiting in self._unsigned for time in (waiting.start_by_ns, waiting.by_ns)),
                *(followed.hold_ns for followed in self._following),
                *(max(time, self._quiet_ns) for time in later if time),
                self._quiet_ns if self._missed and self._asks_few else 0]
        return min(filter(None, dues), default=0)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._orders.close()
        self._spare.close()
        self._stream.close()
        self._joint.close()
        self._events.clear()
        self._unsigned.clear()

    @property
    def _may_listen(self) -> bool:
        """What it tells of fills can be valued once the filters are known. Where it is subscribed to by a signed
        request, it has to wait for the clock, too."""
        return self._filters_known and (bool(self._venue.listen_key) or self._time.ever)

    @property
    def _asks_few(self) -> bool:
        return self._spare.in_flight + len(self._unsigned) < AT_ONCE

    def _answered(self, reply: Reply) -> list[Event]:
        asked: _Asked = reply.token
        pause = pause_ns(reply)
        if pause:
            self._quiet_ns = max(self._quiet_ns, self._clock.monotonic_ns() + pause)
            self._stream.leave_alone(self._quiet_ns)
        if asked.signed_ns and reply.status >= 400 and answers.error(reply)[0] == _WRONG_TIME:
            self._time.doubt(asked.signed_ns)
        events: list[Event] = [Throttled(self._clock.monotonic_ns() + pause)] if pause else []
        try:
            return events + asked.told(reply)
        except VenueError as error:
            return events + asked.lost(str(error))

    # ---- requests

    def _ask(self, client: HttpClient, method: str, path: str, parameters: dict[str, object], asked: _Asked,
             start_by_ns: int = 0, fills: bool = False) -> None:
        """To be signed as soon as what it waits for is known."""
        by_ns = self._clock.monotonic_ns() + self._timeout_ns
        self._unsigned.append(_Unsigned(client, method, path, parameters, asked, start_by_ns, by_ns, fills))
        if self._time.known:
            self._sign(0)  # none of them is too late for that
        self._unwritten = True

    def _sign(self, now: int) -> list[Event]:
        """What waits to be signed is signed, by the venue's time now; in alphabetical order, as others put it, so that
        both can be compared. What has waited for too long ends: it never left."""
        events = self._give_up(now) if self._unsigned else []
        ready = [one for one in self._unsigned if not self._waits_for(one)]
        self._unsigned = [one for one in self._unsigned if self._waits_for(one)]
        for one in ready:
            stamped = one.parameters | {"recvWindow": self._window_ms, "timestamp": self._time.now_ms()}
            request = HttpRequest(one.method, f"{one.path}?{self._credentials.query(dict(sorted(stamped.items())))}",
                                  (self._credentials.header,))
            one.client.submit(request, one.asked._replace(signed_ns=self._clock.monotonic_ns()), one.start_by_ns)
        return events

    def _waits_for(self, one: _Unsigned) -> str:
        """What must be known before it is signed, and is not yet."""
        if not self._time.known:
            return f"the venue's clock is not known: {self._time.error}"
        if one.fills and not self._filters_known:
            return f"the filters are not known: {self._filters_error}"
        return ""

    def _give_up(self, now: int, every: bool = False) -> list[Event]:
        """What has waited for too long, or `every` one, ends without having left."""
        ended = [one for one in self._unsigned if every or now >= one.by_ns or 0 < one.start_by_ns < now]
        self._unsigned = [one for one in self._unsigned if one not in ended]
        return [event for one in ended for event in self._answered(Reply(
            one.asked, 0, {}, b"", TOO_LATE if 0 < one.start_by_ns < now else
            self._waits_for(one), False, 0, now))]

    def _ask_plain(self, method: str, path: str, asked: _Asked) -> None:
        """Not signed; with the key, which some of them want."""
        self._spare.submit(HttpRequest(method, path, (self._credentials.header,)), asked)
        self._unwritten = True

    def _order_parameters(self, order: Order) -> dict[str, object]:
        """Raises VenueError for an order that Binance has no words for."""
        if order.order_type != "LIMIT" or order.time_in_force not in _LIVES:
            raise VenueError("this gateway sends limit orders only",
                             where=f"{order.order_type} {order.time_in_force}", remedy=f"with {', '.join(_LIVES)}")
        kind = self._venue.post_only if order.time_in_force == "GTX" else {
            "type": "LIMIT", "timeInForce": order.time_in_force}
        return {"symbol": order.symbol, "side": SIDE_NAMES[order.side], **kind, "quantity": fixed.text(order.qty),
                "price": fixed.text(order.price), "newClientOrderId": order.client_id,
                "newOrderRespType": self._venue.response,
                **({"reduceOnly": "true"} if order.reduce_only and self._venue is USDM else {})}

    @staticmethod
    def _which(client_id: str, symbol: str) -> dict[str, object]:
        return {"symbol": symbol, "origClientOrderId": client_id}

    def _query(self, client_id: str, symbol: str, order: Order | None) -> None:
        self._ask(self._spare, "GET", f"{self._venue.rest}/order", self._which(client_id, symbol), _Asked(
            lambda reply: self._queried(client_id, symbol, order, reply),
            lambda reason: [Unanswered(client_id, reason)] if order is not None else []))

    def _ask_fills(self, followed: Followed, told: Callable[[list], list[Event]], lost: Callable[[str], list[Event]],
                   from_id: int = -1, earlier: tuple = ()) -> None:
        """`told` gets all fills of an order. Asked without `fromId` the venue tells the newest PAGE of them; where they
        fill it, they are told from the first one on, page by page."""
        def page(reply: Reply) -> list[Event]:
            if reply.status != 200:
                raise VenueError(complaint(reply))
            trades = parsed(reply)
            if not isinstance(trades, list):
                raise VenueError("the fills of an order are no list", where=f"{type(trades).__name__}")
            if len(trades) < PAGE:
                return told([*earlier, *trades])
            last = max(field(trade, "id", int) for trade in trades)
            if last < from_id or len(earlier) >= MAX_FILLS:
                raise VenueError("the fills of an order have no end", where=f"{followed.symbol} {followed.venue_id}")
            self._ask_fills(followed, told, lost, 0 if from_id < 0 else last + 1,
                            () if from_id < 0 else (*earlier, *trades))
            return []

        self._ask(self._spare, "GET", self._venue.trades,
                  {"symbol": followed.symbol, "orderId": followed.venue_id, "limit": PAGE,
                   **({"fromId": from_id} if from_id >= 0 else {})}, _Asked(page, lost), fills=True)

    # ---- what time asks for

    def _follow_up(self, now: int) -> None:
        if self._portfolio_by_ns:
            self._look_at_portfolio(now)
        if now < self._quiet_ns:
            return
        if self._time.due(now):
            self._ask_time()
        if not self._filters_known and now >= self._filters_ns:
            self._filters_ns = now + self._timeout_ns
            self._ask_filters()
        if self._stream.openings > self._openings:
            if self._openings:  # what happened meanwhile was told to nobody
                self._missed = [followed for followed in self._following if followed.ours]
            self._openings = self._stream.openings
        while self._missed and self._asks_few:
            followed = self._missed.pop(0)
            if not followed.over:
                self._query(followed.client_id, followed.symbol, None)
        for followed in self._following:
            if 0 < followed.ask_ns <= now:
                followed.ask_ns = 0  # until this is answered
                self._ask_fills(followed, lambda trades, followed=followed: self._caught_up(followed, trades),
                                lambda reason, followed=followed: self._ask_later(followed))
        if self._winds_up:
            resting = {f.symbol for f in self._following if f.ours and f.venue_id and f.end is None}
            for symbol in resting | self._timers.keys():
                if now >= self._timers.get(symbol, 0):
                    self._set_timer(symbol, symbol in resting, now)

    def _set_timer(self, symbol: str, wind_up: bool, now: int) -> None:
        """The dead man's timer of a symbol begins anew, or ends; tried again soon where that was not taken."""
        def told(reply: Reply) -> list[Event]:
            if reply.status != 200:
                return lost("")
            if not wind_up:
                self._timers.pop(symbol, None)
            return []

        def lost(reason: str) -> list[Event]:
            self._timers[symbol] = self._clock.monotonic_ns() + AGAIN_NS
            return []

        self._timers[symbol] = now + COUNTDOWN_NS // 3
        self._ask(self._spare, "POST", self._venue.countdown,
                  {"symbol": symbol, "countdownTime": COUNTDOWN_NS // 1_000_000 if wind_up else 0}, _Asked(told, lost))

    def _look_at_portfolio(self, now: int) -> None:
        """Its turn has come when it can be compared with the fills that were told."""
        waits_for = ("" if self._time.known else f"the venue's clock: {self._time.error}") or (
            "" if self._filters_known else f"the filters: {self._filters_error}") or (
            "" if self._stream.live else f"the user stream: {self._stream.error}") or (
            "answers to orders that were sent" if self._orders.in_flight else "") or (
            "answers about orders, since the user stream was away" if self._missed else "") or next(
            (f"fills of {f.client_id} ({f.symbol}), of which {fixed.text(sum(f.fills.values()))} of "
             f"{fixed.text(f.executed)} are told" for f in self._following if f.ours and f.short), "")
        if not waits_for:
            self._portfolio_by_ns = 0
            self._ask(self._spare, "GET", self._venue.account, {}, _Asked(self._held, lambda why: [NoPortfolio(why)]))
        elif now >= self._portfolio_by_ns:
            self._portfolio_by_ns = 0
            self._events.append(NoPortfolio(f"it waits for {waits_for}"))

    def _ask_time(self) -> None:
        def told(reply: Reply) -> list[Event]:
            if reply.status != 200:
                return lost(complaint(reply))
            self._time.told(field(parsed(reply), "serverTime", int), reply.sent_ns, reply.done_ns)
            return []

        def lost(reason: str) -> list[Event]:
            self._time.missed(reason)
            return [] if self._time.known else self._give_up(self._clock.monotonic_ns(), every=True)

        self._time.asked()
        self._ask_plain("GET", f"{self._venue.rest}/time", _Asked(told, lost))

    def _ask_filters(self) -> None:
        names = f"?symbols={quote(orjson.dumps(self._symbols), safe='')}" if self._venue is SPOT else ""
        self._ask_plain("GET", f"{self._venue.rest}/exchangeInfo{names}", _Asked(self._learn_filters,
                                                                               self._miss_filters))

    def _learn_filters(self, reply: Reply) -> list[Event]:
        if reply.status != 200:
            return self._miss_filters(complaint(reply))
        found = filters.parse(parsed(reply), self._symbols)
        missing = [symbol for symbol in self._symbols if symbol not in found]
        if missing:
            return self._miss_filters(f"the venue does not list {', '.join(missing)}")
        if self._venue is SPOT and not self._observes and (clash := filters.clash(found)):
            return self._miss_filters(f"{clash}: the balances of the account do not tell their positions apart; leave "
                                      "one out of market.symbols, with nothing held of it")
        self._filters, self._filters_known = found, True
        return []

    def _miss_filters(self, reason: str) -> list[Event]:
        self._filters_error, self._filters_ns = reason, self._clock.monotonic_ns() + AGAIN_NS
        return []

    def _ask_key(self) -> None:
        def told(reply: Reply) -> list[Event]:
            if reply.status != 200:
                return self._no_key(complaint(reply))
            try:
                key = field(parsed(reply), "listenKey", str)
            except VenueError:  # whose text would quote the answer
                return self._no_key("the answer makes no sense")
            self._stream.key_told(key)
            return []

        self._ask_plain("POST", self._venue.listen_key, _Asked(told, self._no_key))

    def _renew_key(self, key: str) -> None:
        """The key is known by the account; whether it is still the same one shows when it is not."""
        def told(reply: Reply) -> list[Event]:
            if 400 <= reply.status < 500 and reply.status not in answers.BUSY_STATUS:
                self._stream.failed(f"the listen key was not renewed: {complaint(reply)}")
            return []

        self._ask_plain("PUT", self._venue.listen_key, _Asked(told, lambda reason: []))

    def _no_key(self, reason: str) -> list[Event]:
        self._stream.failed(f"no listen key: {reason}")
        return []

    def _hello(self) -> bytes:
        self._hello_ns = self._clock.monotonic_ns()
        parameters = {"recvWindow": self._window_ms, "timestamp": self._time.now_ms()}
        return orjson.dumps({"id": "stream", "method": "userDataStream.subscribe.signature",
                             "params": self._credentials.frame(parameters)})

    def _refused(self, code: int) -> None:
        """The venue has not taken `hello`."""
        if code == _WRONG_TIME:
            self._time.doubt(self._hello_ns)

    # ---- answers: each returns events, and raises VenueError for nonsense

    def _submitted(self, order: Order, followed: Followed, reply: Reply) -> list[Event]:
        client_id, (code, words) = order.client_id, answers.error(reply)
        followed.posted = False
        if followed.over:  # the stream was faster, by far
            return []
        if reply.status == 200:
            told = parsed(reply)
            events = [*self._order_told(followed, order, told, reply, reply.sent_ns), *self._following.finish(followed)]
            if followed.short:
                followed.ask_ns = self._clock.monotonic_ns() + PATIENCE_NS
            return events
        refused = reply.status in _DOOR or 400 <= reply.status < 500 and code and reply.status not in (408, 409) or (
            code == _OVERLOADED and self._venue is USDM)
        if refused and code not in _UNKNOWN_CODES and code != _DUPLICATE and "duplicate" not in words.lower():
            self._following.forget(followed)
            return [Ended(client_id, State.REJECTED, 0, complaint(reply))]
        if not reply.status and not reply.sent:
            self._following.forget(followed)
            return [Ended(client_id, State.REJECTED, 0, f"it never left: {reply.error}")]
        return [Unknown(client_id, complaint(reply))]

    def _queried(self, client_id: str, symbol: str, order: Order | None, reply: Reply) -> list[Event]:
        """`order`: who asked; None: we did, for ourselves."""
        followed = self._following.get(client_id)
        if reply.status != 200:
            code = answers.error(reply)[0]
            if order is None:
                return []
            if code == _ARCHIVED:
                return [Ended(client_id, State.CANCELLED, 0, complaint(reply))]
            if code != _NO_SUCH_ORDER or followed and followed.venue_id:
                return [Unanswered(client_id, complaint(reply))]
            self._following.settle(client_id)
            return [Absent(client_id)]
        followed = followed or self._following.begin(client_id, symbol)
        followed.ours |= order is not None
        told = parsed(reply)
        followed.over = False  # it is to be told again
        events = self._order_told(followed, order, told, reply, 0)
        if not filters.rounded(field(told, "executedQty", str), "executedQty"):
            return [*events, *self._following.finish(followed)]

        def lost(reason: str) -> list[Event]:
            self._ask_later(followed)
            return [Unanswered(client_id, reason)] if order is not None else []

        self._ask_fills(followed, lambda trades: [*events, *self._fills_told(followed, trades)], lost)
        return []

    def _cancelled(self, order: Order, reply: Reply) -> list[Event]:
        if reply.status == 200:
            return self._queried(order.client_id, order.symbol, order, reply)
        if answers.error(reply)[0] in (_CANCEL_REJECTED, _NO_SUCH_ORDER):
            self.query(order)
            return []
        return [Unanswered(order.client_id, complaint(reply))]

    def _order_told(self, followed: Followed, order: Order | None, told: Any, reply: Reply,
                    sent_ns: int) -> list[Event]:
        """An order as a request for it was answered: that the venue has it, and its fills where they are told with it.
        A cancelled one may be named by the request that did it, and by itself beside it."""
        ours, symbol = followed.client_id, field(told, "symbol", str)
        named = told.get("origClientOrderId") or field(told, "clientOrderId", str)
        if (named, symbol) != (ours, followed.symbol):
            raise VenueError("the venue answers with another order", where=f"{symbol} {named!r}, ours {ours!r}"[:200])
        side, qty = field(told, "side", str), field(told, "origQty", str)
        if order is not None and (side, filters.rounded(qty, "origQty")) != (SIDE_NAMES[order.side], order.qty):
            raise VenueError("the venue answers with another order", where=(
                f"{side} {qty}, ours {SIDE_NAMES[order.side]} {fixed.text(order.qty)}")[:200])
        trades = [self._fill(followed, Trade(field(fill, "tradeId", int), field(fill, "qty", str),
                                             field(fill, "price", str), fill.get("commission", "0"),
                                             fill.get("commissionAsset"), field(told, "transactTime", int)))
                  for fill in (field(told, "fills", list) if "fills" in told else ())]
        self._following.stands(followed, field(told, "status", str), field(told, "executedQty", str))
        followed.venue_id = str(field(told, "orderId", int))
        return [Acked(ours, followed.venue_id, sent_ns, reply.done_ns), *followed.note(trades)]

    def _listened(self, event: dict, now: int) -> list[Event]:
        """Something has happened to an order, says the stream. Of one whose sending is not answered yet it is told a
        little later: the answer comes first, as a rule, and so it should. What others do with other symbols of the
        account is no concern of ours."""
        try:
            told = field(event, self._venue.order, dict) if self._venue.order else event
            # An order that was cancelled is named by the request that did it, on spot, and by itself beside it.
            client_id = told.get("x") == "CANCELED" and told.get("C") and field(told, "C", str) or field(told, "c", str)
            symbol = field(told, "s", str)
            if symbol not in self._symbols and client_id not in self._following:
                return []
            followed = self._following.get(client_id) or self._following.begin(client_id, symbol)
            if not followed.posted:
                return self._heard(followed, told, now)
        except VenueError as error:
            self._stream.failed(f"an event of the user stream makes no sense: {error}")
            return []
        followed.heard.append(told)
        followed.hold_ns = followed.hold_ns or now + HOLD_NS
        return []

    def _let_go(self, followed: Followed) -> list[Event]:
        """What the stream has said of an order, and was kept."""
        told, followed.heard, followed.hold_ns = followed.heard, [], 0
        events: list[Event] = []
        try:
            for item in told:
                events += self._heard(followed, item, self._clock.monotonic_ns())
        except VenueError as error:
            self._stream.failed(f"an event of the user stream makes no sense: {error}")
        return events

    def _heard(self, followed: Followed, told: dict, now: int) -> list[Event]:
        """What is news of what the stream says of an order."""
        kind, client_id, news = field(told, "x", str), followed.client_id, not followed.venue_id
        trades: list[Filled] = []
        if kind in _FILLS and str(told.get("t")) not in followed.fills:
            trades.append(self._fill(followed, Trade(
                field(told, "t", int), field(told, "l", str), field(told, "L", str), told.get("n") or "0",
                told.get("N"), field(told, "T", int))))
        reason, venue_id, status = told.get("r"), str(field(told, "i", int)), field(told, "X", str)
        if status in ENDS or status in ALIVE:
            self._following.stands(followed, status, field(told, "z", str),
                                   reason if isinstance(reason, str) and reason != "NONE" else "")
        elif followed.ours:  # the answer may say it in words that are known
            self._query(client_id, followed.symbol, None)
        followed.venue_id = venue_id
        events = [*([Acked(client_id, venue_id, 0, now)] if kind == "NEW" and news else []),
                  *followed.note(trades), *self._following.finish(followed)]
        followed.ask_ns = (followed.ask_ns or now + PATIENCE_NS) if followed.ours and followed.short else 0
        return events

    def _fills_told(self, followed: Followed, told: list) -> list[Event]:
        """All fills of an order, and its end if they add up to it; Unanswered if they should and do not."""
        trades = [self._fill(followed, Trade(field(fill, "id", int), field(fill, "qty", str), field(fill, "price", str),
                                             field(fill, "commission", str), fill.get("commissionAsset"),
                                             field(fill, "time", int))) for fill in told]
        events: list[Event] = [*followed.note(trades), *self._following.finish(followed)]
        if followed.short:
            self._ask_later(followed)
            events.append(Unanswered(followed.client_id, "the venue has not told all fills yet"))
        return events

    def _caught_up(self, followed: Followed, told: list) -> list[Event]:
        if followed.over:  # the stream has told it meanwhile
            return []
        return [event for event in self._fills_told(followed, told) if type(event) is not Unanswered]

    def _ask_later(self, followed: Followed) -> list[Event]:
        followed.ask_ns = self._clock.monotonic_ns() + AGAIN_NS
        return []

    def _held(self, reply: Reply) -> list[Event]:
        if reply.status != 200:
            return [NoPortfolio(complaint(reply))]
        if self._venue is USDM:
            return [Portfolio(holdings.positions(parsed(reply)))]
        if not self._filters_known:  # any more: another symbol has come to be looked after
            return [NoPortfolio("it waits for the filters of all symbols")]
        held = holdings.balances(parsed(reply), {symbol: self._filters[symbol].base for symbol in self._symbols})
        if not held:
            return [Portfolio({})]

        def priced(reply: Reply) -> list[Event]:
            return [Portfolio(holdings.priced(held, parsed(reply))) if reply.status == 200 else
                    NoPortfolio(complaint(reply))]

        names = quote(orjson.dumps(sorted(held)), safe="")
        self._ask_plain("GET", f"{self._venue.rest}/ticker/price?symbols={names}",
                        _Asked(priced, lambda why: [NoPortfolio(why)]))
        return []

    def _fill(self, followed: Followed, trade: Trade) -> Filled:
        return fills.filled(self._venue, self._filters.get(followed.symbol, Filters()), followed.client_id,
                            followed.symbol, trade)


def create(config: Config, clock, environ: Mapping[str, str]) -> Binance:
    settings, venue = config.executor, VENUES[config.executor.gateway]
    given = credentials(settings.base_url, environ)
    known = {symbol: Filters(tick=fixed.parse(item.tick), step=fixed.parse(item.lot))
             for symbol, item in config.instruments.items()}
    key = given.header[1]
    clients = [HttpClient(settings.base_url, settings.timeout_s, clock, secrets=() if key == LOOPBACK_KEY else (key,))
               for _ in range(2)]
    return Binance(venue, *clients, stream_url(venue, settings.base_url), given, config.market.symbols, known,
                   settings.timeout_s, clock)
