"""A venue of our own: limit orders against the books ring, with latency, fees, and a place in the queue.

An order arrives `latency` after it was submitted, and takes what is displayed at its limit or better, best price
first, at the taker's fee. What it took from a tick is not there for the next order on the same tick; our orders do not
move the market otherwise. Then

    IOC   ends
    GTC   rests at its limit with what is left
    GTX   post-only: expires instead if it would take anything, else rests

A resting order is looked at with every tick that follows, at the maker's fee and its own price, best price first and
then by arrival:

    trade at its price   fills what of it goes beyond the queue in front (`common.queue_model`)
    trade beyond it      fills; all orders of ours together never more than was traded
    book at its price    the other side has come to it: fills against what is displayed there
    book                 moves the queue in front

While its book is not valid, or ticks of it were missed, an order keeps its place and fills by nothing. With a manual
clock the same input gives the same fills.

The account lives in the journal: `restore` brings the positions back, and an order that was not filled when the
process died never was: nobody knows of it.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from common import layout, queue_model
from common.config import Config
from common.fixed import SCALE
from common.gateways import Absent, Acked, Ended, Event, Filled, Portfolio
from common.layout import ASK_PX, ASK_QTY, BID_PX, BID_QTY, LEVELS
from common.orders import BUY, Order, State
from common.positions import Position
from common.queue_model import UNSEEN, Place, QueueModel
from common.ring import Books

REMEMBERED = 10_000  #: finished orders that a query can still find
IOC, GTC, GTX = "IOC", "GTC", "GTX"
_LOOK_NS = 1_000_000  # between looks at the market for orders that rest
_SIDES = {BUY: (BID_PX, BID_QTY), -BUY: (ASK_PX, ASK_QTY)}


class Resting:
    """An order that rests."""

    __slots__ = ("order", "left", "place", "shown", "events")

    def __init__(self, order: Order, left: int, place: Place, shown: int, events: list[Event]) -> None:
        self.order, self.left, self.place = order, left, place
        self.shown = shown  #: at its price as of the last tick
        self.events = events  #: all that was said of it


class Paper:
    """`taker_bps` and `maker_bps` are of the notional, below 0 a rebate."""

    name = "paper"
    wants_write = False

    def __init__(self, clock, latency_ns: int, taker_bps: float, maker_bps: float | None = None,
                 queue: QueueModel | None = None) -> None:
        self._clock, self._latency, self._queue = clock, latency_ns, queue or queue_model.RiskAverse()
        self._taker = round(taker_bps * 1_000_000)  # of 1e10
        self._maker = self._taker if maker_bps is None else round(maker_bps * 1_000_000)
        self._books: Books | None = None
        self._index: dict[str, int] = {}
        self._positions: dict[str, Position] = {}
        self._pending: deque[tuple[int, Callable[[int], list[Event]]]] = deque()
        self._told: OrderedDict[str, list[Event]] = OrderedDict()  # what was said of each order at its end
        self.resting: dict[str, Resting] = {}  #: by client id, in the order of arrival: worth a look at every tick
        self._walked: dict[int, int] = {}  # symbol -> newest tick that its resting orders have seen
        self._taken: dict[int, tuple[int, dict[int, int]]] = {}  # symbol -> (tick, price -> quantity taken)
        self.arrives_ns = 0  #: when what is on its way arrives, monotonic ns; 0 where nothing is

    def attach(self, books: Books) -> None:
        self._books = books
        self._index = {symbol: index for index, symbol in enumerate(books.symbols)}
        self._taken.clear()
        self._walked = dict(enumerate(books.heads.tolist()))

    def restore(self, positions: Mapping[str, Position]) -> None:
        self._positions = {symbol: Position(p.qty, p.cost, p.realised, p.fees) for symbol, p in positions.items()}

    def observe(self) -> None:
        """It does nothing by itself."""

    def submit(self, order: Order, start_by_ns: int = 0) -> None:
        sent = self._clock.monotonic_ns()
        self._later(lambda now: self._arrive(order, sent, now))

    def query(self, order: Order) -> None:
        self._later(lambda now: self._said(order.client_id) or [Absent(order.client_id)])

    def withdraw(self) -> None:
        """An order is at this venue as soon as it is submitted."""

    def cancel(self, order: Order, venue_id: str) -> None:
        self._later(lambda now: self._cancel(order.client_id))

    def portfolio(self) -> None:
        self._later(lambda now: [Portfolio({symbol: (p.qty, p.average_price)
                                            for symbol, p in self._positions.items() if p.qty})])

    def work(self) -> list[Event]:
        now = self._clock.monotonic_ns()
        events = self._walk() if self.resting else []
        pending = self._pending
        while pending and pending[0][0] <= now:
            events += pending.popleft()[1](now)
        self.arrives_ns = pending[0][0] if pending else 0
        return events

    @property
    def busy(self) -> bool:
        return bool(self._pending or self.resting)

    def fileno(self) -> int:
        return -1

    def due_ns(self) -> int:
        look = self._clock.monotonic_ns() + _LOOK_NS if self.resting else 0
        return min(self.arrives_ns or look, look or self.arrives_ns)

    def close(self) -> None:
        self._pending.clear()
        self.resting.clear()
        self.arrives_ns = 0

    def _later(self, action: Callable[[int], list[Event]]) -> None:
        arrives = self._clock.monotonic_ns() + self._latency
        self._pending.append((arrives, action))
        self.arrives_ns = self.arrives_ns or arrives

    def _said(self, client_id: str) -> list[Event]:
        resting = self.resting.get(client_id)
        return list(resting.events) if resting else self._told.get(client_id, [])

    def _arrive(self, order: Order, sent: int, now: int) -> list[Event]:
        """What happens when the order arrives. The same client id again is the first order."""
        if said := self._said(order.client_id):
            return said
        client_id, life = order.client_id, order.time_in_force
        events: list[Event] = [Acked(client_id, f"paper-{client_id}", sent, now)]
        tick = self._tick(order.symbol)
        if order.order_type != "LIMIT" or life not in (IOC, GTC, GTX):
            return self._end(order, events, State.REJECTED, "only LIMIT orders with IOC, GTC or GTX are known here")
        if life == GTX and tick and self._within(order, tick):
            return self._end(order, events, State.EXPIRED, "post-only, and it would have taken")
        left = order.qty
        for price, qty in self._take(order, left, tick):
            events.append(self._fill(order, events, qty, price, self._taker, tick))
            left -= qty
        if not left:
            return self._end(order, events, State.FILLED)
        if life == IOC or order.symbol not in self._index:
            return self._end(order, events, State.CANCELLED, "nothing more within the limit")
        shown = _shown(order, tick) if tick else UNSEEN
        self.resting[client_id] = Resting(order, left, self._queue.join(shown), shown, events)
        if tick:
            self._walked[self._index[order.symbol]] = tick[layout.SEQ]
        return list(events)

    def _cancel(self, client_id: str) -> list[Event]:
        resting = self.resting.get(client_id)
        if resting is None:
            return self._said(client_id) or [Absent(client_id)]
        return self._end(resting.order, resting.events, State.CANCELLED, "as asked")

    def _end(self, order: Order, events: list[Event], state: State, reason: str = "") -> list[Event]:
        """The order is at its end; returns all that was said of it."""
        self.resting.pop(order.client_id, None)
        events.append(Ended(order.client_id, state, sum(e.qty for e in events if type(e) is Filled), reason))
        self._told[order.client_id] = events
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return events

    def _fill(self, order: Order, events: list[Event], qty: int, price: int, rate: int, tick: tuple) -> Filled:
        fee = -(-qty * price * rate // (SCALE * 10**10))  # rounded up
        self._positions.setdefault(order.symbol, Position()).fill(order.side, qty, price, fee)
        number = 1 + sum(type(e) is Filled for e in events)
        return Filled(order.client_id, str(number), qty, price, fee, tick[layout.EVENT_NS])

    # ---- taking

    def _tick(self, symbol: str) -> tuple[int, ...] | None:
        """The newest tick of a symbol, if its book is valid."""
        index = self._index.get(symbol)
        tick = self._books.newest(index) if index is not None else None
        return tick if tick is not None and tick[layout.FLAGS] & layout.FLAG_VALID else None

    @staticmethod
    def _within(order: Order, tick: tuple[int, ...]) -> bool:
        """Whether the other side of the book is at the order's limit or better for it."""
        best = tick[_SIDES[-order.side][0]]
        return best > 0 and (best - order.price) * order.side <= 0

    def _take(self, order: Order, wanted: int, tick: tuple[int, ...] | None) -> list[tuple[int, int]]:
        """(price, quantity) of what the tick displays within the limit and nobody here has taken yet."""
        if tick is None:
            return []
        index = self._index[order.symbol]
        seq, taken = self._taken.get(index, (0, {}))
        if seq != tick[layout.SEQ]:
            taken = {}
            self._taken[index] = tick[layout.SEQ], taken
        prices, sizes = _SIDES[-order.side]
        found = []
        for level in range(LEVELS):
            price, shown = tick[prices + level], tick[sizes + level]
            if price <= 0 or (price - order.price) * order.side > 0 or not wanted:
                break
            qty = min(wanted, shown - taken.get(price, 0))
            if qty <= 0:
                continue
            taken[price] = taken.get(price, 0) + qty
            wanted -= qty
            found.append((price, qty))
        return found

    # ---- resting

    def _walk(self) -> list[Event]:
        """Every tick since the last look, for the orders that rest."""
        events: list[Event] = []
        for index in sorted({self._index[resting.order.symbol] for resting in self.resting.values()}):
            head = int(self._books.heads[index])
            first = max(self._walked.get(index, 0) + 1, head - self._books.capacity + 1)
            for seq in range(first, head + 1):
                tick = self._books.read(index, seq)
                if tick is not None and tick[layout.FLAGS] & layout.FLAG_VALID:
                    events += self._pass(self._books.symbols[index], tick)
            self._walked[index] = head
        return events

    def _pass(self, symbol: str, tick: tuple[int, ...]) -> list[Event]:
        """One tick, for the orders that rest on `symbol`; price before time."""
        events: list[Event] = []
        ours = sorted((resting for resting in self.resting.values() if resting.order.symbol == symbol),
                      key=lambda resting: -resting.order.side * resting.order.price)
        traded = tick[layout.TRADE_QTY] if tick[layout.KIND] == layout.KIND_TRADE else 0
        price, left = tick[layout.TRADE_PX], abs(traded)
        for resting in ours:
            order, filled = resting.order, 0
            if left and traded * order.side < 0:
                beyond = (order.price - price) * order.side  # above 0: the trade was at a price worse than ours
                if beyond > 0:
                    filled = min(left, resting.left)
                elif beyond == 0:
                    filled = min(self._queue.trade(resting.place, left), resting.left)
                left -= filled
            shown = _shown(order, tick)
            if shown != resting.shown:
                self._queue.change(resting.place, resting.shown, shown)
                resting.shown = shown
            filled += sum(qty for _, qty in self._take(order, resting.left - filled, tick))
            if filled:
                resting.left -= filled
                fill = self._fill(order, resting.events, filled, order.price, self._maker, tick)
                resting.events.append(fill)
                events.append(fill)
                if not resting.left:
                    events.append(self._end(order, resting.events, State.FILLED)[-1])
        return events


def _shown(order: Order, tick: tuple[int, ...]) -> int:
    """The quantity shown at the order's price on its side; UNSEEN behind the last level that a tick carries."""
    prices, sizes = _SIDES[order.side]
    for level in range(LEVELS):
        price = tick[prices + level]
        if price == order.price:
            return tick[sizes + level]
        if price <= 0 or (order.price - price) * order.side > 0:
            return 0
    return UNSEEN


def create(config: Config, clock, environ: Mapping[str, str]) -> Paper:
    settings = config.executor
    return Paper(clock, round(settings.paper_latency_ms * 1e6), settings.paper_fee_bps, settings.paper_maker_fee_bps,
                 queue_model.create(settings.paper_queue))
