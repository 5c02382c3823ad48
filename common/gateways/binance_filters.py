"""What Binance demands of a price and a quantity, and what it takes a fee in: `exchangeInfo`, checked here before an
order leaves. Pure.

    PRICE_FILTER   minPrice <= price <= maxPrice; a multiple of tickSize above minPrice       0: not asked for
    LOT_SIZE       minQty <= quantity <= maxQty; a multiple of stepSize above minQty
    MIN_NOTIONAL   price * quantity, at least (usd-m: `notional`, spot: `minNotional`)
    NOTIONAL       the same, and at most `maxNotional`
"""

from decimal import ROUND_DOWN, ROUND_UP, Decimal, InvalidOperation
from typing import Any, NamedTuple

from common.errors import VenueError
from common.fixed import DECIMALS, MAX, SCALE, text


class Filters(NamedTuple):
    """Of one symbol; amounts are counts of 1e-8, 0 where nothing is asked for."""

    base: str = ""  #: asset that is traded
    quote: str = ""  #: asset that prices and positions are counted in
    tick: int = 0
    min_price: int = 0
    max_price: int = 0
    step: int = 0
    min_qty: int = 0
    max_qty: int = 0
    min_notional: int = 0
    max_notional: int = 0

    def refusal(self, price: int, qty: int) -> str:
        """Which filter refuses a limit order, with limit and value; "" where none does."""
        notional = price * qty // SCALE
        for name, value, least, most in (("PRICE_FILTER: price", price, self.min_price, self.max_price),
                                         ("LOT_SIZE: quantity", qty, self.min_qty, self.max_qty),
                                         ("NOTIONAL: price * quantity", notional, self.min_notional,
                                          self.max_notional)):
            if value < least:
                return f"{name} {text(value)} is below {text(least)}"
            if most and value > most:
                return f"{name} {text(value)} is above {text(most)}"
        for name, value, least, step in (("PRICE_FILTER: price", price, self.min_price, self.tick),
                                         ("LOT_SIZE: quantity", qty, self.min_qty, self.step)):
            if step and (value - least) % step:
                return f"{name} {text(value)} is no multiple of {text(step)}"
        return ""


_FIELDS = {  # of Filters <- name in the filter
    "PRICE_FILTER": {"tick": "tickSize", "min_price": "minPrice", "max_price": "maxPrice"},
    "LOT_SIZE": {"step": "stepSize", "min_qty": "minQty", "max_qty": "maxQty"},
    "MIN_NOTIONAL": {"min_notional": ("notional", "minNotional")},
    "NOTIONAL": {"min_notional": "minNotional", "max_notional": "maxNotional"},
}


def parse(told: Any) -> dict[str, Filters]:
    """symbol -> Filters of an answer to exchangeInfo. Raises VenueError where it is none."""
    try:
        return {item["symbol"]: _of_symbol(item) for item in told["symbols"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise VenueError("exchangeInfo lacks what it should have", where=f"{type(error).__name__}: {error}") from None


def _of_symbol(item: dict) -> Filters:
    found = {"base": item["baseAsset"], "quote": item["quoteAsset"]}
    for rule in item["filters"]:
        for ours, theirs in _FIELDS.get(rule["filterType"], {}).items():
            names = (theirs,) if isinstance(theirs, str) else theirs
            value = next((rule[name] for name in names if name in rule), "0")
            found[ours] = rounded(value, ours)
    return Filters(**found)


def rounded(value: Any, field: str, up: bool = False) -> int:
    """A decimal of any length as a count of 1e-8, rounded towards 0, or away from it if `up`; what is too large
    counts as the largest."""
    try:
        number = Decimal(value).scaleb(DECIMALS).to_integral_value(ROUND_UP if up else ROUND_DOWN)
        return max(-MAX, min(MAX, int(number)))
    except (InvalidOperation, TypeError, ValueError, OverflowError):
        raise VenueError(f"{field} is not a decimal number", where=f"{field}={value!r}") from None
