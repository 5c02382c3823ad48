"""What the venue says goes into the journal, where the two differ and a person has agreed to it.

Orders are booked by the executor's own rules (common.ledger): fills that were missing as fills, ends as ends. What a
position then still lacks is a correction: an order of its own, type CORRECTION, filled at once and without a fee, whose
client id begins with `adopt-` and whose reason says why. So it is a fill among fills: positions, days and the journal's
own examination stay right, and everybody sees it.
"""

import json
from collections.abc import Iterable

from common.errors import ContractError
from common.fixed import text
from common.gateways import Acked
from common.journal import Journal
from common.ledger import Ledger, corrected
from common.orders import CORRECTION, TERMINAL, Order, State
from common.positions import Position
from common.reconciliation import OrderSight, Sight, corrections, fills_of
from common.risk import Account, Rate

REASON = "taken over from the venue by hand"


def adopt(journal: Journal, sights: Iterable[Sight], now: int, wall: int) -> list[str]:
    """Book what differs, all of it or nothing; returns what was done, in words. `now` is monotonic, `wall` Unix ns.
    ContractError for what cannot be booked."""
    done: list[str] = []
    with journal.batch():
        found = [sight for sight in sights if sight.differs]
        for sight in found:
            for order in sight.orders:
                if order.difference:
                    done.append(_adopt_order(journal, order, now, wall))
        restored = journal.restore()
        number = 0
        for sight in found:
            if not sight.unexplained:
                continue
            symbol, ours = sight.symbol, restored.positions.get(sight.symbol, Position())
            epoch, seq = (restored.streams.get(symbol) or [(0, 0)])[-1]
            if any(one.theirs.known and one.theirs.end is None for one in sight.orders):
                raise ContractError("what an order that is alive has filled may not be told yet",
                                    where=f"symbol={symbol}", remedy="cancel it at the venue, and look again")
            why = f"{REASON}: it holds {text(sight.theirs.qty)}, the journal {text(ours.qty)}"
            for part in corrections(ours, sight.theirs):
                if not part.price:
                    raise ContractError("a position has no price to take it over at", where=f"symbol={symbol}",
                                        remedy="close it at the venue")
                number += 1
                order = Order(f"adopt-{wall // 1_000_000_000}-{number}", symbol, part.side, part.qty, part.price,
                              epoch, seq, CORRECTION)
                context = json.dumps({"adopted": {"journal": ours.qty, "venue": sight.theirs.qty}})
                for method, arguments in corrected(order, context, why, wall):
                    getattr(journal, method)(*arguments)
                done.append(f"{symbol}: {'bought' if part.side > 0 else 'sold'} {text(part.qty)} at {text(part.price)} "
                            f"as {order.client_id}, a correction")
    return done


def _adopt_order(journal: Journal, sight: OrderSight, now: int, wall: int) -> str:
    """What the venue says of one order."""
    name, told = sight.ours.order.client_id, sight.theirs
    working = journal.find(name)
    if working is None:
        raise ContractError("an order is not in the journal any more", where=f"client_id={name}")
    if told.known and told.end is None and sight.surplus:
        raise ContractError("fills of an order that is alive cannot be taken back", where=f"client_id={name}",
                            remedy="cancel it at the venue, and look again")
    ledger = Ledger(Account(Rate(1.0)))
    ledger.orders[name] = working
    ledger.unknown(working, REASON, now, wall)
    entries = ledger.entries
    if told.known:
        ledger.acked(working, Acked(name, told.venue_id, 0, now), now, wall)
        for fill in sight.missing:
            ledger.filled(working, fill, wall)
    if not told.known or told.end is not None and told.end.filled != working.filled:
        heard = working.filled or working.venue_id
        state = told.end.state if told.end else State.CANCELLED if heard else State.REJECTED
        detail = (f"{REASON}: it says {text(told.end.filled)} was filled" if told.end else
                  f"{REASON}: it does not know it")
        if working.state not in TERMINAL:  # full by what both say together
            working.move(state)
            entries.append(("advance", (name, state, wall, detail, "")))
    elif told.end is not None:
        ledger.ended(working, told.end, wall)
    for method, arguments in entries:
        getattr(journal, method)(*arguments)
    booked = f", {fills_of([fill.qty for fill in sight.missing])} booked" if sight.missing else ""
    return f"{name}: {working.state}{booked}"
