"""Cancelling working orders beside an executor that hangs: what the kill switch does when nobody answers it.

The journal says which orders are not at their end; it is only read. Each is asked for at the venue by its client id,
since one that hangs may not have written down what it was told, and what is alive is cancelled. Nothing is written: an
executor that wakes up again finds the halt, asks the venue itself, and books what happened.
"""

import select
from collections.abc import Iterable
from typing import NamedTuple

from common.config import Config
from common.errors import AlphaError
from common.gateways import Absent, Acked, Ended, Event, Gateway, Throttled, Unanswered, create
from common.journal import Reader, located
from common.ledger import ABSENCE_NS
from common.orders import SIDES, Order, State

PATIENCE_S = 5.0  #: for the venue's answers
_PAUSE_NS = 250_000_000  # between questions about one order
_TURN_S = 0.05


class Outcome(NamedTuple):
    """What became of one order. `done` if nothing of it can trade any more, as far as the venue says."""

    client_id: str
    symbol: str
    done: bool
    what: str


def cancel_working(config: Config, clock, patience_s: float = PATIENCE_S) -> list[Outcome]:
    """Cancel what the journal of `config` holds as unfinished, oldest first. Takes as long as the venue takes, at most
    `patience_s`; nothing to do without a journal. Raises AlphaError if the journal cannot be read or there is no way
    to the venue: what must then be looked after by hand is in the error."""
    path = located(config)
    if config.executor.gateway == "paper" or not path.exists():
        return []  # a paper book is a part of the executor: nothing of it rests anywhere else
    reader = Reader(path)
    try:
        orders = [order_of(row) for row in reader.open_orders()]
    finally:
        reader.close()
    if not orders:
        return []
    try:
        gateway = create(config, clock)
    except AlphaError as error:
        named = ", ".join(order.client_id for order in orders)
        raise type(error)(error.what, where=f"{error.where}; not cancelled: {named}", remedy=error.remedy) from None
    gateway.restore({})
    try:
        return cancel(orders, gateway, clock, patience_s)
    finally:
        gateway.close()


def order_of(row: dict) -> Order:
    """The order of a row of the journal."""
    return Order(row["client_id"], row["symbol"], SIDES[row["side"]], row["qty"], row["price"], row["epoch"],
                 row["seq"], row["order_type"], row["time_in_force"])


def cancel(orders: Iterable[Order], gateway: Gateway, clock, patience_s: float) -> list[Outcome]:
    """Ask for each order and cancel those that are alive, until all are at their end or the time is over."""
    tasks = {order.client_id: _Task(order) for order in orders}
    end = clock.monotonic_ns() + round(patience_s * 1e9)
    quiet_ns = 0
    while (now := clock.monotonic_ns()) < end and not all(task.outcome for task in tasks.values()):
        for task in tasks.values():
            if now >= max(task.next_ns, quiet_ns) and not task.asking and not task.outcome:
                task.ask(gateway)
        heard = set()
        for event in gateway.work():
            if type(event) is Throttled:
                quiet_ns = event.until_ns
            elif (task := tasks.get(getattr(event, "client_id", ""))) is not None:
                task.hear(event, now)
                heard.add(task)
        for task in heard:  # an acknowledgement and the end may come together
            if task.alive and not task.cancelled and not task.outcome:
                task.next_ns = 0
        _wait(gateway, clock)
    return [Outcome(task.order.client_id, task.order.symbol, *(task.outcome or (False, task.said)))
            for task in tasks.values()]


class _Task:
    """One order, and what is known of it."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.venue_id, self.said = "", "the venue has not answered"
        self.alive = self.cancelled = self.asking = False
        self.next_ns = self.absent_ns = 0
        self.outcome: tuple[bool, str] | None = None

    def ask(self, gateway: Gateway) -> None:
        self.asking = True
        if self.alive and not self.cancelled:
            self.cancelled = True  # and if that has no answer, asked for before it is cancelled again
            gateway.cancel(self.order, self.venue_id)
        else:
            self.cancelled = False
            gateway.query(self.order)

    def hear(self, event: Event, now: int) -> None:
        self.asking, self.next_ns = False, now + _PAUSE_NS
        match event:
            case Acked():
                self.venue_id, self.alive, self.said = event.venue_id, True, "it rests at the venue"
            case Ended():
                self.outcome = True, event.state.value + ("" if event.state is not State.REJECTED else
                                                          f": {event.reason}")
            case Absent():
                self.alive, self.said = False, "the venue does not know it"
                if self.absent_ns and now - self.absent_ns >= ABSENCE_NS:  # no longer on its way
                    self.outcome = True, self.said
                self.absent_ns = self.absent_ns or now
            case Unanswered():
                self.said = event.reason


def _wait(gateway: Gateway, clock) -> None:
    """Until the gateway has something to do, or a moment."""
    fd = gateway.fileno() if gateway.busy else -1
    readers = [fd] if fd >= 0 else []
    timeout, due = _TURN_S, gateway.due_ns()
    if due:
        timeout = min(timeout, max(0.0, (due - clock.monotonic_ns()) / 1e9))
    select.select(readers, readers if gateway.wants_write else [], [], timeout)
