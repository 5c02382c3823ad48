"""What Binance demands of a price and a quantity, and what it takes a fee in: `exchangeInfo`, checked here before an
order leaves. Pure.

    PRICE_FILTER   minPrice <= price <= maxPrice; a multiple of tickSize above minPrice       0: not asked for
    LOT_SIZE       minQty <= quantity <= maxQty; a multiple of stepSize above minQty
    MIN_NOTIONAL   price * quantity, at least (usd-m: `notional`, spot: `minNotional`)
    NOTIONAL       the same, and at most `maxNotional`

usd-m asks for no least notional of an order that only reduces: what is left of a position can always be closed.
"""

import re
from collections.abc import Collection
from decimal import ROUND_DOWN, ROUND_UP, Context, Decimal
from typing import Any, NamedTuple

from common.errors import VenueError
from common.fixed import DECIMALS, MAX, SCALE, text

_NUMBER = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,2})?", re.ASCII)
_EXACT = Context(prec=200)  # more digits than a number that `_NUMBER` lets pass can have


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

    def refusal(self, price: int, qty: int, reduces: bool = False) -> str:
        """Which filter refuses a limit order, with limit and value; "" where none does. `reduces`: it is reduce-only
        on usd-m."""
        notional = price * qty // SCALE
        for name, value, least, most in (("PRICE_FILTER: price", price, self.min_price, self.max_price),
                                         ("LOT_SIZE: quantity", qty, self.min_qty, self.max_qty),
                                         ("NOTIONAL: price * quantity", notional,
                                          0 if reduces else self.min_notional, self.max_notional)):
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


def parse(told: Any, symbols: Collection[str] | None = None) -> dict[str, Filters]:
    """symbol -> Filters of an answer to exchangeInfo; only of `symbols` where they are given. Raises VenueError where
    it is none."""
    try:
        return {item["symbol"]: _of_symbol(item) for item in told["symbols"]
                if symbols is None or item["symbol"] in symbols}
    except (KeyError, TypeError, AttributeError) as error:
        raise VenueError("exchangeInfo lacks what it should have",
                         where=f"{type(error).__name__}: {error}"[:200]) from None


def _of_symbol(item: dict) -> Filters:
    found = {"base": item["baseAsset"], "quote": item["quoteAsset"]}
    for name in found.values():
        if not isinstance(name, str) or not name:
            raise VenueError("exchangeInfo has an asset without a name", where=f"asset={name!r}"[:100])
    for rule in item["filters"]:
        for ours, theirs in _FIELDS.get(rule["filterType"], {}).items():
            names = (theirs,) if isinstance(theirs, str) else theirs
            value = next((rule[name] for name in names if name in rule), "0")
            found[ours] = max(-MAX, min(MAX, _counted(value, ours, ROUND_DOWN)))  # a limit that large limits nothing
    return Filters(**found)


def clash(known: dict[str, Filters]) -> str:
    """Which symbols cannot be kept apart by the balances of an account, and why: "" where all can. On spot a position
    is the balance of its base asset, so no other symbol may trade that asset or be paid in it."""
    for one, mine in known.items():
        for other, theirs in known.items():
            if one < other and mine.base == theirs.base:
                return f"{one} and {other} both trade {mine.base}"
            if mine.base == theirs.quote:
                return f"{one} trades {mine.base}, in which {other} is paid"
    return ""


def rounded(value: Any, field: str, up: bool = False) -> int:
    """A decimal of any length as a count of 1e-8, rounded towards 0, or away from it if `up`. Raises VenueError for
    what is no number, and for one that does not fit 64 bits."""
    number = _counted(value, field, ROUND_UP if up else ROUND_DOWN)
    if not -MAX <= number <= MAX:
        raise VenueError(f"{field} is outside the range of 64 bits", where=f"{field}={value!r}"[:200])
    return number


def _counted(value: Any, field: str, rounding: str) -> int:
    if type(value) not in (str, int, float) or not _NUMBER.fullmatch(str(value)):
        raise VenueError(f"{field} is not a decimal number", where=f"{field}={value!r}"[:200])
    return int(Decimal(str(value)).scaleb(DECIMALS, _EXACT).to_integral_value(rounding, _EXACT))
