"""What an account at Binance holds, from what it answers. Pure; amounts are counts of 1e-8.

    usd-m   positionRisk: a signed quantity and the price it was entered at
    spot    account: balances. One has no price it was bought at: today's stands for it

VenueError for an answer that is none, for hedge mode, and for what does not fit 64 bits.
"""

from collections.abc import Mapping
from typing import Any

from common.errors import VenueError
from common.fixed import text
from common.gateways import fits
from common.gateways.binance_answers import field
from common.gateways.binance_filters import rounded


def positions(told: Any) -> dict[str, tuple[int, int]]:
    """symbol -> quantity and price, of an answer to positionRisk."""
    found = {}
    for item in _listed(told):
        qty = rounded(field(item, "positionAmt", str), "positionAmt")
        if qty:
            if item.get("positionSide", "BOTH") != "BOTH":
                raise VenueError("the account is in hedge mode", where=f"positionSide={item['positionSide']!r}"[:100],
                                 remedy="set one-way mode at the venue")
            found[field(item, "symbol", str)] = qty, rounded(field(item, "entryPrice", str), "entryPrice")
    return _checked(found)


def balances(told: Any, bases: Mapping[str, str]) -> dict[str, int]:
    """symbol -> what is held of its base asset, free or locked, of an answer to account; `bases`: symbol -> asset. Of
    other assets nothing is read: some coins are held by the trillion."""
    wanted = set(bases.values())
    found = {item["asset"]: sum(rounded(field(item, part, str), part) for part in ("free", "locked"))
             for item in field(told, "balances", list) if field(item, "asset", str) in wanted}
    return {symbol: found[base] for symbol, base in bases.items() if found.get(base)}


def priced(held: Mapping[str, int], told: Any) -> dict[str, tuple[int, int]]:
    """`held` with the prices of an answer to ticker/price."""
    prices = {field(item, "symbol", str): rounded(field(item, "price", str), "price") for item in _listed(told)}
    if held.keys() - prices.keys():
        raise VenueError("the venue does not tell the price of everything that is held",
                         where=", ".join(sorted(held.keys() - prices.keys())))
    return _checked({symbol: (qty, prices[symbol]) for symbol, qty in held.items()})


def _listed(told: Any) -> list:
    if not isinstance(told, list):
        raise VenueError("what is held, or its prices, are no list", where=f"{type(told).__name__}")
    return told


def _checked(found: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    for symbol, (qty, price) in found.items():
        if not fits(qty, price):
            raise VenueError("what is held does not fit 64 bits", where=f"{symbol}: {text(qty)} at {text(price)}"[:200])
    return found
