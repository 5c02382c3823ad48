"""Positions and profit, exactly. Pure.

Quantities and fees are counts of 1e-8; money that is a price times a quantity is kept as a count of 1e-16, in
Python integers that have no upper bound, so nothing is rounded away. A position is carried at average cost. When a
part of it is closed, that part of the cost is released, rounded down to 1e-16; what the rounding leaves stays
in the cost of the rest, so that at every moment, and to the last digit,

    realised + quantity * mark - cost  ==  sum over all fills of -(signed quantity) * price, + quantity * mark
"""

from common.fixed import SCALE

MONEY = SCALE * SCALE  #: counts of 1e-16 in one unit of quote currency


class Position:
    """What is held of one symbol. `qty` is signed (1e-8); `cost` (1e-16) has its sign; `realised` (1e-16) is
    before fees; `fees` is in quote currency (1e-8)."""

    __slots__ = ("qty", "cost", "realised", "fees")

    def __init__(self, qty: int = 0, cost: int = 0, realised: int = 0, fees: int = 0) -> None:
        self.qty, self.cost, self.realised, self.fees = qty, cost, realised, fees

    def __repr__(self) -> str:
        return f"Position(qty={self.qty}, cost={self.cost}, realised={self.realised}, fees={self.fees})"

    def fill(self, side: int, qty: int, price: int, fee: int) -> None:
        """Book a fill of `qty` (above 0) at `price`; `side` is 1 for a purchase, -1 for a sale."""
        self.fees += fee
        if self.qty * side < 0:  # it closes, wholly or in part
            closed = min(qty, abs(self.qty))
            released = self.cost * closed // abs(self.qty)
            self.cost -= released
            self.realised -= side * closed * price + released
            self.qty += side * closed
            qty -= closed
        self.qty += side * qty
        self.cost += side * qty * price

    @property
    def average_price(self) -> int:
        """Average cost of what is held, 1e-8, rounded down; 0 when flat."""
        return self.cost // self.qty if self.qty else 0

    def unrealised(self, mark: int) -> int:
        """Profit (1e-16) if the rest were closed at `mark` (1e-8), before fees."""
        return self.qty * mark - self.cost

    def notional(self, mark: int) -> int:
        """Unsigned value at `mark`, 1e-8, rounded down."""
        return abs(self.qty) * mark // SCALE


def to_fixed(money: int) -> int:
    """1e-16 -> 1e-8, rounded down."""
    return money // SCALE
