"""A talk with a venue about orders, with patience: asked again after answers of no use, left alone where it wants.

For commands that look at a venue beside the executor, or instead of it. A topic is one thing that is to be known or
done; `talk` drives all of them over one gateway until each is over, or the time is.
"""

import select
from collections.abc import Iterable, Mapping
from typing import Any

from common.gateways import Absent, Acked, Ended, Event, Filled, Gateway, NoPortfolio, Portfolio, Throttled, Unanswered
from common.ledger import ABSENCE_NS
from common.orders import SIDES, Order
from common.reconciliation import Told

PATIENCE_S = 5.0  #: for the venue's answers
PAUSE_NS = 250_000_000  #: between questions about one thing
_TURN_S = 0.05


class Topic:
    """`said` is the last that was heard, for people. `absence_ns`: between the two times that the venue must say that
    it does not know an order."""

    def __init__(self, absence_ns: int = ABSENCE_NS) -> None:
        self.said = "the venue has not answered"
        self.asking = False
        self.next_ns = 0  #: not asked before
        self._absence_ns, self._absent_ns = absence_ns, 0

    @property
    def over(self) -> bool:
        raise NotImplementedError

    def ask(self, gateway: Gateway) -> None:
        raise NotImplementedError

    def hear(self, event: Event, now: int) -> None:
        """One event of this topic; `settle` comes after all that came with it."""
        raise NotImplementedError

    def settle(self) -> None:
        """All events that came together have been heard."""

    def is_absent(self, now: int) -> bool:
        """The venue says that it does not know the order: whether that is believed, for it may be on its way."""
        self.said = "the venue does not know it"
        self._absent_ns = self._absent_ns or now
        return now - self._absent_ns >= self._absence_ns


def talk(topics: Mapping[str, Topic], gateway: Gateway, clock, patience_s: float) -> None:
    """Until all topics are over or `patience_s` is. They are named by client ids; "" is what is no order."""
    end = clock.monotonic_ns() + round(patience_s * 1e9)
    quiet_ns = 0
    while (now := clock.monotonic_ns()) < end:
        for topic in topics.values():
            if now >= max(topic.next_ns, quiet_ns) and not topic.asking and not topic.over:
                topic.asking = True
                topic.ask(gateway)
        heard = {}
        for event in gateway.work():
            if type(event) is Throttled:
                quiet_ns = max(quiet_ns, event.until_ns)
                continue
            name = getattr(event, "client_id", "")
            if name in topics:
                topics[name].asking, topics[name].next_ns = False, now + PAUSE_NS
                topics[name].hear(event, now)
                heard[name] = topics[name]
        for topic in heard.values():
            topic.settle()
        if all(topic.over for topic in topics.values()):
            return
        _wait(gateway, clock)


def order_of(row: Mapping[str, Any]) -> Order:
    """The order of a row of the journal, as its reader gives it."""
    return Order(row["client_id"], row["symbol"], SIDES[row["side"]], row["qty"], row["price"], row["epoch"],
                 row["seq"], row["order_type"], row["time_in_force"])


class OrderTopic(Topic):
    """What became of one order; `told` once that is known."""

    def __init__(self, order: Order, absence_ns: int = ABSENCE_NS) -> None:
        super().__init__(absence_ns)
        self.order, self.told = order, None
        self._acked: Acked | None = None
        self._fills: dict[str, Filled] = {}
        self._end: Ended | None = None

    @property
    def over(self) -> bool:
        return self.told is not None

    def ask(self, gateway: Gateway) -> None:
        gateway.query(self.order)

    def hear(self, event: Event, now: int) -> None:
        match event:
            case Acked():
                self._acked = event
            case Filled():
                self._fills[event.fill_id] = event
            case Ended():
                self._end = event
            case Absent():
                if self.is_absent(now):
                    self.told = Told(False)
            case Unanswered():
                self.said, self._acked = event.reason, None

    def settle(self) -> None:
        """An answer begins with the acknowledgement; what a stream says by the way may be a fill alone."""
        if self._acked is not None or self._end is not None:
            self.told = Told(True, self._acked.venue_id if self._acked else "", self._end, tuple(self._fills.values()))


class PortfolioTopic(Topic):
    """What the venue holds: symbol -> (signed quantity, average price)."""

    def __init__(self) -> None:
        super().__init__()
        self.positions: dict[str, tuple[int, int]] | None = None

    @property
    def over(self) -> bool:
        return self.positions is not None

    def ask(self, gateway: Gateway) -> None:
        gateway.portfolio()

    def hear(self, event: Event, now: int) -> None:
        match event:
            case Portfolio():
                self.positions = event.positions
            case NoPortfolio():
                self.said = event.reason


def ask_orders(orders: Iterable[Order], gateway: Gateway, clock, patience_s: float,
               absence_ns: int = ABSENCE_NS) -> dict[str, Told | str]:
    """By client id what the venue says of each order; the last complaint as text where it says nothing in time."""
    topics = {order.client_id: OrderTopic(order, absence_ns) for order in orders}
    talk(topics, gateway, clock, patience_s)
    return {name: topic.told or topic.said for name, topic in topics.items()}


def ask_portfolio(gateway: Gateway, clock, patience_s: float) -> dict[str, tuple[int, int]] | str:
    """What the venue holds, or why it does not say so in time."""
    topic = PortfolioTopic()
    talk({"": topic}, gateway, clock, patience_s)
    return topic.said if topic.positions is None else topic.positions


def _wait(gateway: Gateway, clock) -> None:
    """Until the gateway has something to do, or a moment."""
    fd = gateway.fileno() if gateway.busy else -1
    readers = [fd] if fd >= 0 else []
    timeout, due = _TURN_S, gateway.due_ns()
    if due:
        timeout = min(timeout, max(0.0, (due - clock.monotonic_ns()) / 1e9))
    select.select(readers, readers if gateway.wants_write else [], [], timeout)
