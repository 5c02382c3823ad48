"""Cancelling working orders beside an executor that hangs: what the kill switch does when nobody answers it.

The journal says which orders are not at their end; it is only read. Each is asked for at the venue by its client id,
since one that hangs may not have written down what it was told, and what is alive is cancelled. Nothing is written: an
executor that wakes up again finds the halt, asks the venue itself, and books what happened.
"""

from collections.abc import Iterable
from typing import NamedTuple

from common.asking import PATIENCE_S, Topic, order_of, talk
from common.config import Config
from common.errors import AlphaError
from common.gateways import Absent, Acked, Ended, Event, Gateway, Unanswered, create
from common.journal import Reader, located
from common.ledger import ABSENCE_NS, absence_ns
from common.orders import Order, State


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
    gateway.observe()  # a dead man's timer would outlive this, and cancel what others have there
    gateway.restore({})
    try:
        return cancel(orders, gateway, clock, patience_s, absence_ns(config.executor.timeout_s))
    finally:
        gateway.close()


def cancel(orders: Iterable[Order], gateway: Gateway, clock, patience_s: float,
           absent_ns: int = ABSENCE_NS) -> list[Outcome]:
    """Ask for each order and cancel those that are alive, until all are at their end or the time is over."""
    tasks = {order.client_id: _Task(order, absent_ns) for order in orders}
    talk(tasks, gateway, clock, patience_s)
    return [Outcome(task.order.client_id, task.order.symbol, *(task.outcome or (False, task.said)))
            for task in tasks.values()]


class _Task(Topic):
    """One order, and what is known of it."""

    def __init__(self, order: Order, absence_ns: int) -> None:
        super().__init__(absence_ns)
        self.order, self.venue_id = order, ""
        self.alive = self.cancelled = False
        self.outcome: tuple[bool, str] | None = None

    @property
    def over(self) -> bool:
        return self.outcome is not None

    def ask(self, gateway: Gateway) -> None:
        if self.alive and not self.cancelled:
            self.cancelled = True  # and if that has no answer, asked for before it is cancelled again
            gateway.cancel(self.order, self.venue_id)
        else:
            self.cancelled = False
            gateway.query(self.order)

    def hear(self, event: Event, now: int) -> None:
        match event:
            case Acked():
                self.venue_id, self.alive, self.said = event.venue_id, True, "it rests at the venue"
            case Ended():
                self.outcome = True, event.state.value + ("" if event.state is not State.REJECTED else
                                                          f": {event.reason}")
            case Absent():
                self.alive = False
                if self.is_absent(now):
                    self.outcome = True, self.said
            case Unanswered():
                self.said = event.reason

    def settle(self) -> None:
        """An acknowledgement and the end may come together; what is alive is cancelled at once."""
        if self.alive and not self.cancelled:
            self.next_ns = 0
