"""An order, and its life as one table. Pure.

`TRANSITIONS` is the law: what is not in it raises LifeCycleError. The words:

    intent         journaled, not yet handed to the gateway
    sent           handed to the gateway; no answer yet
    acknowledged   the venue has it and it may trade
    partly filled  as acknowledged, with fills
    cancelling     we have asked the venue to cancel it
    unknown        it may or may not have reached the venue: its symbol is blocked until the venue has said
    filled, cancelled, rejected, expired   the end
                   rejected: the venue refused it, or it never reached the venue

A fill is booked by its own identity whatever the state, so a late one is never lost; the state says only what
may happen next.
"""

from enum import StrEnum
from typing import NamedTuple

from common.errors import LifeCycleError

BUY, SELL = 1, -1
SIDE_NAMES = {BUY: "BUY", SELL: "SELL"}
SIDES = {name: side for side, name in SIDE_NAMES.items()}
CORRECTION = "CORRECTION"  #: type of an order that is only booked: what is held is corrected by it, and nothing leaves


class Order(NamedTuple):
    """What we decided to send: immutable, and the same for every retry."""

    client_id: str
    symbol: str
    side: int  #: BUY or SELL
    qty: int  #: 1e-8, above 0
    price: int  #: limit, 1e-8
    epoch: int  #: of the stream behind the decision
    seq: int
    order_type: str = "LIMIT"
    time_in_force: str = "IOC"
    reduce_only: bool = False  #: can only make a position smaller; checked before it leaves, and not journaled


def client_order_id(epoch: int, symbol: int, seq: int) -> str:
    """The identity of the decision on tick `seq` of `symbol` in stream `epoch`: the same decision can only
    ever be the same order. At most 8 + 1 + 5 + 1 + 19 = 34 characters of [A-Za-z0-9_-]."""
    return f"{epoch & 0xFFFFFFFF:08x}-{symbol}-{seq}"


class State(StrEnum):
    __hash__ = str.__hash__  # that of Enum is Python's, and tables of states are looked up with every order

    INTENT = "intent"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"
    PARTLY_FILLED = "partly filled"
    FILLED = "filled"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


_S = State
_ENDS = {_S.FILLED, _S.CANCELLED, _S.EXPIRED}
_LIVE = {_S.ACKNOWLEDGED, _S.PARTLY_FILLED}

TRANSITIONS: dict[State, frozenset[State]] = {
    _S.INTENT: frozenset({_S.SENT, _S.REJECTED, _S.UNKNOWN}),
    _S.SENT: frozenset({*_LIVE, *_ENDS, _S.REJECTED, _S.UNKNOWN}),
    _S.ACKNOWLEDGED: frozenset({_S.PARTLY_FILLED, *_ENDS, _S.CANCELLING, _S.REJECTED, _S.UNKNOWN}),
    _S.PARTLY_FILLED: frozenset({_S.PARTLY_FILLED, *_ENDS, _S.CANCELLING, _S.UNKNOWN}),
    # A fill or a refused cancel may cross the request: the order is then alive again, or at its end; and the venue may
    # refuse what it had accepted, as it may while nothing is asked of it.
    _S.CANCELLING: frozenset({*_LIVE, *_ENDS, _S.CANCELLING, _S.REJECTED, _S.UNKNOWN}),
    _S.UNKNOWN: frozenset({*_LIVE, *_ENDS, _S.REJECTED}),
    _S.FILLED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.REJECTED: frozenset(),
    _S.EXPIRED: frozenset(),
}
TERMINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)


def diagram() -> str:
    """The table above as a Mermaid state diagram, from the first state to the last."""
    names = {state: state.value.replace(" ", "_") for state in State}
    lines = ["stateDiagram-v2"]
    lines += [f"    state \"{state.value}\" as {name}" for state, name in names.items() if name != state.value]
    lines.append(f"    [*] --> {names[State.INTENT]}")
    for state in State:
        lines += [f"    {names[state]} --> {names[after]}" for after in State if after in TRANSITIONS[state]]
    lines += [f"    {names[state]} --> [*]" for state in State if state in TERMINAL]
    return "\n".join(lines) + "\n"


class Working:
    """An order and where it stands. `filled` is the quantity of the fills that are booked."""

    __slots__ = ("order", "state", "venue_id", "filled", "fill_ids", "recv_ns", "decided_ns", "absent_ns",
                 "query_ns", "asking", "queried", "created_ns")

    def __init__(self, order: Order, state: State = State.INTENT, venue_id: str = "", filled: int = 0,
                 recv_ns: int = 0, decided_ns: int = 0, created_ns: int = 0) -> None:
        self.order, self.state, self.venue_id, self.filled = order, state, venue_id, filled
        self.fill_ids: set[str] = set()  #: the venue's ids of the fills that are booked
        self.recv_ns, self.decided_ns = recv_ns, decided_ns  #: stamps of the tick and the decision; 0: another life
        self.created_ns = created_ns  #: of one of another life: its intent, Unix ns; 0: not known
        self.absent_ns = 0  #: when the venue first said that it does not know the order; 0: it has not
        self.query_ns = 0  #: when to ask the venue about it
        self.asking = False  #: asked, and not answered yet
        self.queried = False  #: the last question was what became of it, not that it be cancelled

    @property
    def open_qty(self) -> int:
        """What may still be filled."""
        return 0 if self.state in TERMINAL else self.order.qty - self.filled

    def move(self, state: State) -> None:
        """To `state`; raises LifeCycleError naming both states if the table does not allow it."""
        if state not in TRANSITIONS[self.state]:
            raise LifeCycleError(f"an order cannot go from {self.state} to {state}",
                                 where=f"order={self.order.client_id}")
        self.state = state

    def fill(self, qty: int) -> None:
        """Book `qty` more. A live order moves to partly filled or filled; one that is being cancelled stays
        so until it is full; the state of an order at its end does not change, however late the fill."""
        if qty <= 0 or self.filled + qty > self.order.qty:
            raise LifeCycleError("a fill exceeds its order", where=f"order={self.order.client_id}, qty={qty}, "
                                 f"filled={self.filled} of {self.order.qty}")
        if self.state is State.INTENT:
            raise LifeCycleError("an order cannot go from intent to partly filled",
                                 where=f"order={self.order.client_id}")
        self.filled += qty
        if self.state in TERMINAL:
            return
        if self.filled == self.order.qty:
            self.move(State.FILLED)
        elif self.state is not State.CANCELLING:
            self.move(State.PARTLY_FILLED)
