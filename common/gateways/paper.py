"""A venue of our own: limit orders, immediate-or-cancel, filled against the newest tick of the books ring.

An order arrives `latency` after it was submitted, takes what is displayed at its limit or better, best price
first, pays the fee, and ends. What it took from a tick is not there for the next order on the same tick; our
orders do not move the market otherwise. With a manual clock the same input gives the same fills.

The account lives in the journal: `restore` brings the positions back, and an order that was not filled when the
process died never was: nobody knows of it.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from common import layout
from common.config import Config
from common.fixed import SCALE
from common.gateways import Absent, Acked, Ended, Event, Filled, Portfolio
from common.orders import BUY, Order, State
from common.positions import Position
from common.ring import Books

REMEMBERED = 10_000  #: finished orders that a query can still find


class Paper:
    name = "paper"
    wants_write = False

    def __init__(self, clock, latency_ns: int, fee_bps: float) -> None:
        self._clock, self._latency = clock, latency_ns
        self._fee = round(fee_bps * 1_000_000)  # of 1e10
        self._books: Books | None = None
        self._index: dict[str, int] = {}
        self._positions: dict[str, Position] = {}
        self._pending: deque[tuple[int, Callable[[int], list[Event]]]] = deque()
        self._told: OrderedDict[str, list[Event]] = OrderedDict()  # what was said of each order
        self._taken: dict[int, tuple[int, dict[int, int]]] = {}  # symbol -> (tick, price -> quantity taken)

    def attach(self, books: Books) -> None:
        self._books = books
        self._index = {symbol: index for index, symbol in enumerate(books.symbols)}
        self._taken.clear()

    def restore(self, positions: Mapping[str, Position]) -> None:
        self._positions = {symbol: Position(p.qty, p.cost, p.realised, p.fees) for symbol, p in positions.items()}

    def submit(self, order: Order, start_by_ns: int = 0) -> None:
        sent = self._clock.monotonic_ns()
        self._later(lambda now: self._match(order, sent, now))

    def query(self, order: Order) -> None:
        self._later(lambda now: self._told.get(order.client_id) or [Absent(order.client_id)])

    def cancel(self, order: Order, venue_id: str) -> None:
        self.query(order)  # an order here is at its end as soon as it is known

    def portfolio(self) -> None:
        self._later(lambda now: [Portfolio({symbol: (p.qty, p.average_price)
                                            for symbol, p in self._positions.items() if p.qty})])

    def work(self) -> list[Event]:
        events: list[Event] = []
        now = self._clock.monotonic_ns()
        while self._pending and self._pending[0][0] <= now:
            events += self._pending.popleft()[1](now)
        return events

    @property
    def busy(self) -> bool:
        return bool(self._pending)

    def fileno(self) -> int:
        return -1

    def due_ns(self) -> int:
        return self._pending[0][0] if self._pending else 0

    def close(self) -> None:
        self._pending.clear()

    def _later(self, action: Callable[[int], list[Event]]) -> None:
        self._pending.append((self._clock.monotonic_ns() + self._latency, action))

    def _match(self, order: Order, sent: int, now: int) -> list[Event]:
        """What happens when the order arrives. The same client id again is the first order."""
        if order.client_id in self._told:
            return self._told[order.client_id]
        client_id = order.client_id
        events: list[Event] = [Acked(client_id, f"paper-{client_id}", sent, now)]
        if (order.order_type, order.time_in_force) != ("LIMIT", "IOC"):
            events.append(Ended(client_id, State.REJECTED, 0, "only LIMIT orders with IOC are known here"))
        else:
            events += self._take(order)
            filled = sum(event.qty for event in events if type(event) is Filled)
            full = filled == order.qty
            events.append(Ended(client_id, State.FILLED if full else State.CANCELLED, filled,
                                "" if full else "nothing more within the limit"))
        self._told[client_id] = events
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return events

    def _take(self, order: Order) -> list[Event]:
        """The fills of `order` against what the newest tick displays and nobody here has taken yet."""
        index = self._index.get(order.symbol)
        tick = self._books.newest(index) if index is not None else None
        if tick is None or not tick[layout.FLAGS] & layout.FLAG_VALID:
            return []
        seq, taken = self._taken.get(index, (0, {}))
        if seq != tick[layout.SEQ]:
            taken = {}
            self._taken[index] = tick[layout.SEQ], taken
        prices, sizes = ((layout.ASK_PX, layout.ASK_QTY) if order.side == BUY else (layout.BID_PX, layout.BID_QTY))
        position = self._positions.setdefault(order.symbol, Position())
        wanted, fills = order.qty, []
        for level in range(layout.LEVELS):
            price, shown = tick[prices + level], tick[sizes + level]
            if price <= 0 or (price - order.price) * order.side > 0 or not wanted:
                break
            qty = min(wanted, shown - taken.get(price, 0))
            if qty <= 0:
                continue
            taken[price] = taken.get(price, 0) + qty
            wanted -= qty
            fee = -(-qty * price * self._fee // (SCALE * 10**10))  # rounded up
            position.fill(order.side, qty, price, fee)
            fills.append(Filled(order.client_id, str(len(fills) + 1), qty, price, fee, tick[layout.EVENT_NS]))
        return fills


def create(config: Config, clock, environ: Mapping[str, str]) -> Paper:
    return Paper(clock, round(config.executor.paper_latency_ms * 1e6), config.executor.paper_fee_bps)
