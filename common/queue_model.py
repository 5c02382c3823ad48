"""How much stands in front of an order that rests at a price, where the venue shows quantities and not orders. Pure.

    place = model.join(shown)              the order arrives at the end of what is shown
    model.trade(place, qty)                so much was traded at its price: what that leaves for the order
    model.change(place, before, shown)     the quantity shown at its price has changed, not by our doing

Two answers to the one question that the feed leaves open, whether what was cancelled stood in front of us or behind:

    risk-averse   behind, always: the queue in front shrinks by trades, and when less is shown than was thought to be in
                  front. Nobody is filled earlier in truth than here.
    power         in front with probability front^n / (front^n + back^n): who stands in a long part of the queue is the
                  likelier to leave. After E. Rigtorp, Estimating order queue position (2013), with a power in place
                  of his logarithm, as in hftbacktest's PowerProbQueueFunc; n = 3 by default.

Quantities are counts of 1e-8; what is estimated is rounded up, against us. Costs: below 1 us each.
"""

import math
from typing import Protocol

from common.errors import ConfigError

UNSEEN = 2**63 - 1  #: in front of an order at a price that the feed does not show
RISK_AVERSE, POWER = "risk-averse", "power"
MODELS = (RISK_AVERSE, POWER)


class Place:
    """Where an order stands at its price. `ahead` never grows."""

    __slots__ = ("ahead", "traded")

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead  #: what must trade or leave before it is our turn
        self.traded = 0  #: at the price since the shown quantity changed last: that change is partly this


class QueueModel(Protocol):
    def join(self, shown: int) -> Place:
        """The order arrives; `shown` is what is shown at its price, UNSEEN where the feed does not reach so deep."""

    def trade(self, place: Place, qty: int) -> int:
        """`qty` was traded at the price: returns how much of it was for us, if we wanted as much."""

    def change(self, place: Place, before: int, shown: int) -> None:
        """What is shown at the price was `before` and is `shown`; UNSEEN as for `join`."""


class RiskAverse:
    """Who leaves stood behind us."""

    def join(self, shown: int) -> Place:
        return Place(shown)

    def trade(self, place: Place, qty: int) -> int:
        place.traded += qty
        ahead, place.ahead = place.ahead, max(0, place.ahead - qty)
        return max(0, qty - ahead)

    def change(self, place: Place, before: int, shown: int) -> None:
        place.traded = 0
        place.ahead = min(place.ahead, shown)


class Power(RiskAverse):
    """Who leaves stood in front with a probability."""

    def __init__(self, n: float = 3.0) -> None:
        self.n = n

    def change(self, place: Place, before: int, shown: int) -> None:
        known = UNSEEN not in (before, shown)
        before -= place.traded  # what was traded has left from the front, and is known
        front, back, left = place.ahead, before - place.ahead, before - shown
        place.traded = 0
        if known and left > 0 and front > 0:
            # More cannot have left from behind us than stood there.
            front -= math.floor(max(left / (1.0 + (max(back, 0) / front) ** self.n), left - back))
        place.ahead = max(0, min(front, shown))


def create(name: str) -> QueueModel:
    """The model called `name`, one of MODELS."""
    if name not in MODELS:
        raise ConfigError("there is no such queue model", where=f"executor.paper_queue={name!r}",
                          remedy=f"use {' or '.join(MODELS)}")
    return RiskAverse() if name == RISK_AVERSE else Power()
