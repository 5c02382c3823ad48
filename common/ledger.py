"""What we hold and what is out, in memory: positions, working orders, and the numbers that the checks read.
Pure: what a gateway says goes in, and `entries` collects what the journal must be told.

An entry is a method of the journal and its arguments; entries may be written more than once without harm. Memory
moves first: an entry that cannot be written yet is kept by the caller, and if the process dies before it
is, the journal still has the order as unfinished and the venue is asked at the next start.

Monotonic times are called `now`, Unix times `wall`; both in ns.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from common.errors import VenueError
from common.fixed import SCALE, text
from common.gateways import Acked, Ended, Filled
from common.orders import BUY, CORRECTION, SELL, SIDE_NAMES, TERMINAL, Order, State, Working
from common.positions import Position, to_fixed
from common.risk import Account, Standing, exposure

ASK_AGAIN_NS = 500_000_000  #: after a question that had no useful answer
FOLLOW_UP_NS = 1_000_000_000  #: between looks at an order that rests at the venue
ABSENCE_NS = 1_000_000_000  #: between the two times that a venue must say that it does not know an order

REMEMBERED = 1000  #: orders at their end that a late word may still concern; older ones are in the journal

_NEVER = -(2**62)
_ALIVE = (State.ACKNOWLEDGED, State.PARTLY_FILLED)


def absence_ns(timeout_s: float) -> int:
    """As ABSENCE_NS, where a request may be on its way for so long."""
    return max(ABSENCE_NS, round(timeout_s * 1e9))


def worse(order: Order, fill: Filled) -> str:
    """In words how the fill is worse than the limit of its order, by more than a millionth, which may be rounding; ""
    where it is not. It has happened all the same."""
    if order.side * (fill.price - order.price) * 1_000_000 <= order.price:
        return ""
    return (f"a fill is worse than the limit of its order (order={order.client_id}, {SIDE_NAMES[order.side]} "
            f"limit={text(order.price)}, fill={fill.fill_id}, price={text(fill.price)})")


class Ledger:
    """`repeats` is risk.max_repeats: so many orders of a symbol and side are remembered by their time."""

    def __init__(self, account: Account, repeats: int = 0, absence_ns: int = ABSENCE_NS) -> None:
        self.account, self._repeats, self._absence_ns = account, repeats, absence_ns
        self.positions: dict[str, Position] = {}
        self.orders: dict[str, Working] = {}  #: not at their end, by client id
        self.ended_lately: OrderedDict[str, Working] = OrderedDict()  #: at their end, the last few
        self.marks: dict[str, int] = {}  #: last usable mid price
        self.standings: list[Standing] = []  #: by index in the books ring
        self.entries: list[tuple[str, tuple]] = []
        self._by_name: dict[str, Standing] = {}
        self._worth: dict[str, tuple[int, int, int]] = {}  #: exposure, low and high, as in `Standing`
        self._entered: dict[str, int] = {}  #: when what is held was begun, monotonic
        self._last: dict[str, tuple[int, int, int, int]] = {}  #: of the last order: time, side, quantity, price
        self._times: dict[tuple[str, int], deque[int]] = {}  #: of the last orders of a symbol and side

    def restore(self, positions: Mapping[str, Position], working: Iterable[Working], wall: int,
                begun: Mapping[str, int] = MappingProxyType({})) -> None:
        """Begin where the journal ended: what became of its unfinished orders is unknown until asked. `begun`: when
        what is held was, Unix ns."""
        self.positions.update(positions)
        self._entered.update({symbol: self._monotonic(at, wall) for symbol, at in begun.items()})
        for found in working:
            self.orders[found.order.client_id] = found
            if found.state is not State.UNKNOWN:
                self._advance(found, State.UNKNOWN, wall, "the executor started again")
        self.account.open_orders = len(self.orders)

    def follow(self, symbols: Sequence[str], tag: int, streams: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """Follow the stream `tag` of these symbols; `streams` holds (epoch, newest sequence ordered on)."""
        before = self._by_name
        self.standings = [Standing(tag, dict(streams.get(symbol, ())).get(tag, 0)) for symbol in symbols]
        self._by_name = dict(zip(symbols, self.standings))
        for symbol in before.keys() & self._by_name.keys():
            now, then = self._by_name[symbol], before[symbol]
            now.rejects, now.rejected_ns = then.rejects, then.rejected_ns
        for symbol in {*symbols, *self.positions, *(w.order.symbol for w in self.orders.values())}:
            self._restate(symbol)

    def recall(self, recent: Iterable[tuple[str, int, int, int, int]], now: int, wall: int) -> None:
        """Orders of an earlier life, (symbol, side, quantity, price, Unix ns), oldest first: they count wherever
        orders in a time are limited, so that a start is no way around."""
        for symbol, side, qty, price, at in recent:
            then = min(now, now - (wall - at))
            self.account.rate.take(then)
            self._note(symbol, side, qty, price, then)
            self._restate(symbol)

    # ---- an order goes out

    def opened(self, order: Order, mark: int, recv_ns: int, decided_ns: int) -> Working:
        """The intent of `order` is in the journal; its symbol is worth `mark`."""
        symbol, side, qty = order.symbol, order.side, order.qty
        self.marks[symbol] = mark
        working = self.orders[order.client_id] = Working(order, recv_ns=recv_ns, decided_ns=decided_ns)
        self.account.open_orders = len(self.orders)
        standing = self._by_name[symbol]
        standing.order_ns = decided_ns
        standing.last_side, standing.last_qty, standing.last_price = side, qty, order.price
        if side == BUY:
            standing.open_buy += qty
        else:
            standing.open_sell += qty
        self._note(symbol, side, qty, order.price, decided_ns)
        if self._repeats:
            self._count_repeats(symbol, standing)
        self._value(symbol, standing, mark)
        return working

    def sent(self, working: Working, wall: int) -> None:
        self._advance(working, State.SENT, wall)

    def cancelling(self, working: Working, now: int, wall: int) -> None:
        self._advance(working, State.CANCELLING, wall)
        working.asking, working.query_ns = True, now + ASK_AGAIN_NS

    # ---- and this is what comes back

    def acked(self, working: Working, event: Acked, now: int, wall: int) -> bool:
        """True if that is news. The order is looked after from now on until its end."""
        working.asking, working.absent_ns, working.query_ns = False, 0, now + FOLLOW_UP_NS
        news = not working.venue_id
        working.venue_id = event.venue_id
        self._standing(working.order.symbol).rejects = 0
        if working.state in (State.SENT, State.UNKNOWN):
            self._advance(working, State.PARTLY_FILLED if working.filled else State.ACKNOWLEDGED, wall,
                          venue_id=event.venue_id)
        return news

    def filled(self, working: Working, event: Filled, wall: int) -> bool:
        """Book a fill; False if it is booked already. LifeCycleError if there is more than was ordered: then nothing is
        booked."""
        if event.fill_id in working.fill_ids:
            return False
        order = working.order
        working.fill(event.qty)
        working.fill_ids.add(event.fill_id)
        position = self.positions.setdefault(order.symbol, Position())
        held = position.qty
        position.fill(order.side, event.qty, event.price, event.fee)
        if position.qty * held <= 0:  # begun, turned around or ended
            self._entered[order.symbol] = working.decided_ns or self._monotonic(working.created_ns, wall)
        self.entries.append(("fill", (order, event.fill_id, event.qty, event.price, event.fee, working.state, wall)))
        if event.base_fee:
            # It was taken out of what is held, whichever side: as if sold for what the fee is worth.
            kept = Order(f"fee-{order.client_id}-{event.fill_id}", order.symbol, SELL, event.base_fee,
                         event.price, order.epoch, order.seq, CORRECTION)
            position.fill(kept.side, kept.qty, kept.price, 0)
            self.entries += corrected(kept, "{}", "the fee was taken of what is held", wall)
        self._settle(working)
        return True

    def ended(self, working: Working, event: Ended, wall: int) -> None:
        """The order is at its end. VenueError if the venue's total is not that of the fills it told."""
        working.asking = False
        short = event.state is State.FILLED and working.filled < working.order.qty
        if event.filled != working.filled or short:
            raise VenueError("the fills of an order do not add up to its end", where=(
                f"order={working.order.client_id}, state={event.state}, the venue says {event.filled} and told "
                f"{working.filled} of {working.order.qty}"))
        if working.state not in TERMINAL:
            self._advance(working, event.state, wall, event.reason)

    def unknown(self, working: Working, reason: str, now: int, wall: int) -> bool:
        """What became of the order is not known: ask soon. True if it was not unknown before."""
        working.asking, working.query_ns = False, now + (ASK_AGAIN_NS if working.state is State.UNKNOWN else 0)
        if working.state is State.UNKNOWN or working.state in TERMINAL:
            return False
        self._advance(working, State.UNKNOWN, wall, reason)
        return True

    def absent(self, working: Working, now: int, wall: int) -> bool:
        """The venue does not know the order. True if that settles it: said twice, long enough apart, of an order
        of which nothing was ever heard."""
        working.asking = False
        if working.state is not State.UNKNOWN or working.filled or working.venue_id:
            raise VenueError("the venue does not know an order that it has acknowledged",
                             where=f"order={working.order.client_id}, venue_id={working.venue_id}")
        if working.absent_ns and now - working.absent_ns >= self._absence_ns:
            self._advance(working, State.REJECTED, wall, "it never arrived")
            return True
        working.absent_ns = working.absent_ns or now
        working.query_ns = working.absent_ns + self._absence_ns
        return False

    def unanswered(self, working: Working, now: int) -> None:
        working.asking, working.query_ns = False, now + ASK_AGAIN_NS

    def to_ask(self, now: int) -> list[Working]:
        """Orders that the venue should be asked about now."""
        return [working for working in self.orders.values() if not working.asking and now >= working.query_ns
                and (working.state is State.UNKNOWN or working.state in _ALIVE or working.state is State.CANCELLING)]

    def to_cancel(self, growing: bool = False) -> list[Working]:
        """Orders that rest at the venue; with `growing` those that may make a position larger, or with the others of
        their side turn it around: the oldest may stay."""
        alive = [working for working in self.orders.values() if working.state in _ALIVE]
        if not growing:
            return alive
        room = {symbol: -position.qty for symbol, position in self.positions.items()}  # signed as what closes it
        found = []
        for working in alive:
            order, left = working.order, room.get(working.order.symbol, 0)
            if order.side * left >= working.open_qty:
                room[order.symbol] = left - order.side * working.open_qty
            else:
                found.append(working)
        return found

    def _monotonic(self, at: int, wall: int) -> int:
        """A time of another life, Unix ns, by the clock of this one; long ago if it is not known."""
        return min(at, wall) - self.account.offset_ns if at else _NEVER

    # ---- what it is worth

    def mark(self, symbol: str, price: int) -> None:
        """The symbol is worth `price` now."""
        self.marks[symbol] = price
        standing = self._by_name.get(symbol)
        if standing is not None:
            self._value(symbol, standing, price)
        elif symbol in self._worth:
            self._restate(symbol)

    def marked(self) -> bool:
        """Whether everything held has a price."""
        return all(symbol in self.marks for symbol, position in self.positions.items() if position.qty)

    def profit(self) -> tuple[int, int, int]:
        """Realised, unrealised, fees; 1e-8. What has no price counts at cost."""
        realised = unrealised = fees = 0
        for symbol, position in self.positions.items():
            realised += position.realised
            fees += position.fees
            if position.qty and symbol in self.marks:
                unrealised += position.unrealised(self.marks[symbol])
        return to_fixed(realised), to_fixed(unrealised), fees

    def net_cost(self) -> int:
        """Cost of all positions, sales negative, 1e-8."""
        return to_fixed(sum(position.cost for position in self.positions.values()))

    def differences(self, held: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """symbol -> (ours, the venue's) where they are not the same; of what we hold or follow."""
        names = {symbol for symbol, position in self.positions.items() if position.qty} | set(self._by_name)
        pairs = {name: (self.positions[name].qty if name in self.positions else 0, held.get(name, (0, 0))[0])
                 for name in sorted(names)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def _advance(self, working: Working, state: State, wall: int, detail: str = "", venue_id: str = "") -> None:
        before = working.state
        working.move(state)
        self.entries.append(("advance", (working.order.client_id, state, wall, detail, venue_id)))
        if state is State.REJECTED:
            standing = self._standing(working.order.symbol)
            standing.rejects, standing.rejected_ns = standing.rejects + 1, self._monotonic(wall, wall)
        if state in TERMINAL or State.UNKNOWN in (state, before):  # else the checks read the same numbers as before
            self._settle(working)

    def _settle(self, working: Working) -> None:
        if working.state in TERMINAL and self.orders.pop(working.order.client_id, None):
            self.ended_lately[working.order.client_id] = working
            self.account.open_orders = len(self.orders)
            if len(self.ended_lately) > REMEMBERED:
                self.ended_lately.popitem(last=False)
        self._restate(working.order.symbol)

    def _standing(self, symbol: str) -> Standing:
        """Nobody asks where one stands that is not followed."""
        return self._by_name.get(symbol) or Standing(0)

    def _note(self, symbol: str, side: int, qty: int, price: int, at: int) -> None:
        """An order of the symbol was decided."""
        self._last[symbol] = at, side, qty, price
        if self._repeats:
            self._times.setdefault((symbol, side), deque(maxlen=self._repeats)).append(at)

    def _restate(self, symbol: str) -> None:
        """The numbers of `symbol` that the checks read, anew from its orders and its position."""
        position = self.positions.get(symbol)
        held = position.qty if position else 0
        buys = sells = unresolved = 0
        for working in self.orders.values():
            order = working.order
            if order.symbol == symbol:
                unresolved += working.state is State.UNKNOWN
                if order.side == BUY:
                    buys += working.open_qty
                else:
                    sells += working.open_qty
        standing = self._standing(symbol)
        standing.position, standing.open_buy, standing.open_sell = held, buys, sells
        standing.unresolved = unresolved
        standing.order_ns, standing.last_side, standing.last_qty, standing.last_price = self._last.get(
            symbol, (_NEVER, 0, 0, 0))
        standing.cost, standing.entered_ns = position.average_price if held else 0, self._entered.get(symbol, _NEVER)
        if self._repeats:
            self._count_repeats(symbol, standing)
        self._value(symbol, standing, self.marks.get(symbol) or (position.average_price if position else 0))

    def _value(self, symbol: str, standing: Standing, price: int) -> None:
        """What `symbol` comes to at `price`, here and in the account."""
        position, account = standing.position, self.account
        worth = exposure(position, standing.open_buy, standing.open_sell, price)
        low = (position - standing.open_sell) * price // SCALE
        high = -((-position - standing.open_buy) * price // SCALE)  # rounded up, as `low` is rounded down
        was, was_low, was_high = self._worth.get(symbol, (0, 0, 0))
        account.gross += worth - was
        account.net_low += low - was_low
        account.net_high += high - was_high
        standing.exposure, standing.low, standing.high = self._worth[symbol] = worth, low, high

    def _count_repeats(self, symbol: str, standing: Standing) -> None:
        """When the `repeats`-th last order of each side was decided; long ago if there were fewer."""
        found = [self._times.get((symbol, side), ()) for side in (BUY, SELL)]
        standing.repeat_buy_ns, standing.repeat_sell_ns = (
            times[0] if len(times) == self._repeats else _NEVER for times in found)


def corrected(order: Order, context: str, why: str, wall: int) -> list[tuple[str, tuple]]:
    """The entries of an order of type CORRECTION: filled as soon as it is there, and without a fee."""
    return [("intent", (order, context, wall)), ("advance", (order.client_id, State.UNKNOWN, wall, why)),
            ("fill", (order, "corrected", order.qty, order.price, 0, State.FILLED, wall))]
