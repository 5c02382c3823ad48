"""The journal's picture beside the venue's: what agrees, what differs, and what to do about it. Pure.

Both are taken symbol by symbol. An order that the journal has as unfinished agrees if it is alive at the venue with the
same fills. A position agrees if the venue holds what the journal says and what the fills that it lacks come to, so one
lost fill is one difference and not two.

Somebody may trade meanwhile. A symbol is `still` if its rows of the journal and the venue's orders were the same before
and after the positions were asked for; only then does a look count. It agrees once a look says so; it differs once
LOOKS of them, one after the other, have said the same. What the journal is about to write by itself is gone by then.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from common.fixed import text
from common.gateways import Ended, Filled
from common.orders import Order, State
from common.positions import Position

LOOKS = 6  #: times that a difference must be seen, LOOK_S apart: over more than a second, so an order may arrive
LOOK_S = 0.2
MOST = 40  #: looks altogether, before what never stood still counts as not settled

_UNHEARD = (State.INTENT, State.SENT, State.UNKNOWN)


class Journaled(NamedTuple):
    """An unfinished order as the journal has it."""

    order: Order
    state: State
    venue_id: str
    fills: Mapping[str, int]  #: fill id -> quantity

    @property
    def filled(self) -> int:
        return sum(self.fills.values())


class Told(NamedTuple):
    """What a venue says of an order."""

    known: bool  #: it has it
    venue_id: str = ""
    end: Ended | None = None  #: None: it is alive, if it is known
    fills: tuple[Filled, ...] = ()  #: each once, as they came

    @property
    def filled(self) -> int:
        return sum(fill.qty for fill in self.fills)


class Held(NamedTuple):
    """A position, as one side has it; `price` is its average."""

    qty: int
    price: int


FLAT = Held(0, 0)


class OrderSight(NamedTuple):
    """One order, from both sides."""

    ours: Journaled
    theirs: Told

    @property
    def missing(self) -> tuple[Filled, ...]:
        """Fills that the venue tells and the journal lacks."""
        return tuple(fill for fill in self.theirs.fills if fill.fill_id not in self.ours.fills)

    @property
    def surplus(self) -> dict[str, int]:
        """Fills that the journal has and the venue does not tell."""
        told = {fill.fill_id for fill in self.theirs.fills}
        return {name: qty for name, qty in self.ours.fills.items() if name not in told}

    @property
    def missing_qty(self) -> int:
        """What the position of the journal lacks by it, signed."""
        return sum(self.ours.order.side * fill.qty - fill.base_fee for fill in self.missing)

    @property
    def difference(self) -> str:
        """What differs, in words; "" if nothing does."""
        told, found = self.theirs, []
        if not told.known:
            return "the venue does not know it"
        if told.end is not None:
            reason = f": {told.end.reason}" if told.end.reason else ""
            found.append(f"at its end at the venue, {told.end.state}{reason}")
        elif self.ours.state in _UNHEARD:
            found.append("it is alive at the venue, which the journal has not heard")
        if self.missing:
            qtys = [fill.qty for fill in self.missing]
            found.append(f"{fills_of(qtys)} {'is' if len(qtys) == 1 else 'are'} not in the journal")
        if self.surplus:
            qtys = list(self.surplus.values())
            found.append(f"{fills_of(qtys)} {'is' if len(qtys) == 1 else 'are'} in the journal and not at the venue")
        return "; ".join(found)


def fills_of(qtys: Sequence[int]) -> str:
    """How many fills, of what, in words."""
    return f"{len(qtys)} {'fill' if len(qtys) == 1 else 'fills'} of {text(sum(qtys))}"


class Sight(NamedTuple):
    """One symbol, as of one moment."""

    symbol: str
    still: bool  #: neither side moved while it was looked at
    orders: tuple[OrderSight, ...]
    ours: Held
    theirs: Held

    @property
    def unexplained(self) -> int:
        """What the venue holds beyond the journal and the fills that it lacks, signed."""
        return self.theirs.qty - self.ours.qty - sum(sight.missing_qty for sight in self.orders)

    @property
    def differs(self) -> bool:
        return bool(self.unexplained) or any(sight.difference for sight in self.orders)

    @property
    def what(self) -> tuple:
        """What makes two looks the same."""
        return self.unexplained, tuple((sight.ours.order.client_id, sight.difference) for sight in self.orders
                                       if sight.difference)


class Row(NamedTuple):
    """All that the journal has of one symbol which a look depends on."""

    orders: tuple[Journaled, ...]
    position: Position | None
    last_order: int  #: number of the newest order of all, so that one that came and went is seen

    @property
    def picture(self) -> tuple:
        qty = self.position.qty if self.position else 0
        return qty, self.last_order, tuple((one.order.client_id, one.state, one.venue_id, tuple(sorted(
            one.fills.items()))) for one in self.orders)


def compare(before: Mapping[str, Row], after: Mapping[str, Row], told: Mapping[str, Told],
            told_again: Mapping[str, Told], held: Mapping[str, tuple[int, int]]) -> dict[str, Sight]:
    """By symbol: the journal `before` and `after` the venue said what it holds, and its orders before and after."""
    sights = {}
    for symbol, row in before.items():
        names = [one.order.client_id for one in row.orders]
        still = row.picture == after[symbol].picture if symbol in after else False
        still &= all(told[name] == told_again.get(name) for name in names)
        position = row.position or Position()
        sights[symbol] = Sight(symbol, still, tuple(OrderSight(one, told[one.order.client_id]) for one in row.orders),
                               Held(position.qty, position.average_price), Held(*held.get(symbol, FLAT)))
    return sights


class Comparison:
    """Looks, one after the other, until each symbol is settled."""

    def __init__(self, looks: int = LOOKS, most: int = MOST) -> None:
        self._looks, self._most = looks, most
        self.sights: dict[str, Sight] = {}  #: the look that counts; of what is not settled the last one
        self._times: dict[str, int] = {}
        self._what: dict[str, tuple] = {}
        self.taken = 0

    def take(self, sights: Mapping[str, Sight]) -> None:
        self.taken += 1
        for symbol, sight in sights.items():
            if self.settled(symbol):
                continue
            self.sights[symbol] = sight
            if not sight.still:
                self._times[symbol] = 0
            elif not sight.differs:
                self._times[symbol] = self._looks
            else:
                same = self._what.get(symbol) == sight.what
                self._times[symbol] = self._times.get(symbol, 0) + 1 if same else 1
                self._what[symbol] = sight.what

    def settled(self, symbol: str) -> bool:
        return self._times.get(symbol, 0) >= self._looks

    @property
    def over(self) -> bool:
        return self.taken >= self._most or self.taken > 0 and all(map(self.settled, self.sights))

    @property
    def agrees(self) -> bool:
        return all(self.settled(symbol) and not sight.differs for symbol, sight in self.sights.items())


class Correction(NamedTuple):
    """A fill that nobody told, which brings a position to what the venue holds."""

    side: int
    qty: int
    price: int


def corrections(ours: Position, theirs: Held) -> list[Correction]:
    """From the journal's position, with all fills booked, to the venue's. What is given up leaves at our own average
    cost, so it earns and loses nothing; what is taken over comes at the average price that the venue tells, or where it
    tells none at our own. Both, if it turns around."""
    gap = theirs.qty - ours.qty
    if not gap:
        return []
    side = 1 if gap > 0 else -1
    closed = min(abs(gap), abs(ours.qty)) if ours.qty * side < 0 else 0
    parts = [Correction(side, closed, ours.average_price)] if closed else []
    if abs(gap) > closed:
        parts.append(Correction(side, abs(gap) - closed, theirs.price or ours.average_price))
    return parts


def remedy(sight: OrderSight, running: bool) -> str:
    """What to do about an order that differs."""
    if not sight.difference:
        return ""
    if sight.surplus and sight.theirs.known and sight.theirs.end is None:
        return "cancel it at the venue, and look again: fills of an order that is alive cannot be taken back"
    if running:
        return "the executor asks by itself; if this stays, stop it and adopt"
    if not sight.theirs.known and (sight.ours.venue_id or sight.ours.fills):
        return "adopt: the executor would go on asking for it; a venue forgets old orders, or these are other keys"
    return "adopt, or start the executor, which asks for it"


def remedy_of_position(sight: Sight, running: bool) -> str:
    """What to do about a position that differs."""
    if not sight.unexplained:
        return ""
    found = "somebody else traded on this account, or a fill or a fee in the asset was never told: look at its trades"
    return f"{found}; then mend it at the venue, or {'stop the executor and adopt' if running else 'adopt'}"


def following(rows: Iterable[Journaled], symbols: Iterable[str], positions: Mapping[str, Position],
              last_orders: Mapping[str, int]) -> dict[str, Row]:
    """By symbol what there is to compare: of those that are followed, held, or have unfinished orders."""
    by_symbol: dict[str, list[Journaled]] = {}
    for one in rows:
        by_symbol.setdefault(one.order.symbol, []).append(one)
    names = {*symbols, *by_symbol, *(name for name, position in positions.items() if position.qty)}
    return {name: Row(tuple(by_symbol.get(name, ())), positions.get(name), last_orders.get(name, 0))
            for name in sorted(names)}
