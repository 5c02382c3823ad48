"""What a fill at Binance is, and its fee in the quote asset. Pure.

    commission taken in     usd-m                          spot
    the quote asset         as told                        as told
    the base asset          at the price of its fill       the same, and what is held becomes smaller by it
    another, such as BNB    the standard rate of a taker, which is at least what was paid

A contract is no coin: whatever a commission on usd-m is taken in, it comes out of the wallet, also BNB on BNBUSDT. On
spot it comes out of the balance that the position is read from, on a sale as on a purchase. Fees are rounded up to
1e-8.

VenueError for what no fill can be: no quantity or price, a fee larger than the fill, numbers that do not fit 64 bits.
"""

from typing import Any, NamedTuple

from common.errors import VenueError
from common.fixed import MAX, SCALE, text
from common.gateways import Filled, fits
from common.gateways.binance_filters import Filters, rounded
from common.gateways.binance_venue import SPOT, Venue

_MAX_MS = MAX // 1_000_000  #: as ns it fits 64 bits


class Trade(NamedTuple):
    """As it was told."""

    id: int
    qty: str
    price: str
    fee: Any  #: commission
    asset: Any  #: that it was taken in; None: none was
    ms: int  #: Unix


def filled(venue: Venue, known: Filters, client_id: str, symbol: str, trade: Trade) -> Filled:
    """`known`: of `symbol`, empty where the venue has not told its filters."""
    qty, price = rounded(trade.qty, "quantity"), rounded(trade.price, "price")
    told = f"quantity={trade.qty}, price={trade.price}, commission={trade.fee} {trade.asset}"[:200]
    if qty <= 0 or price <= 0:
        raise VenueError("a fill has no quantity or no price", where=told)
    if not 0 <= trade.ms <= _MAX_MS:
        raise VenueError("a fill has a time that is none", where=f"{trade.ms} ms"[:100])
    fee, base_fee = _fee(venue, known, symbol, qty, price, trade)
    if not fits(qty, price, fee):
        raise VenueError("a fill does not fit 64 bits", where=told)
    if base_fee > qty or abs(fee) > -(-qty * price // SCALE):
        raise VenueError("the fee of a fill is larger than the fill", where=f"{told}; in the quote asset {text(fee)}")
    return Filled(client_id, str(trade.id), qty, price, fee, trade.ms * 1_000_000, base_fee)


def _fee(venue: Venue, known: Filters, symbol: str, qty: int, price: int, trade: Trade) -> tuple[int, int]:
    """In the quote asset, and what of it was taken out of what is held."""
    fee, asset = rounded(trade.fee, "commission", up=True), trade.asset
    if not isinstance(asset, (str, type(None))):
        raise VenueError("the asset of a commission is no name", where=f"commissionAsset={asset!r}"[:100])
    if not fee or not asset or asset == known.quote or not known.quote and symbol.endswith(asset):
        return fee, 0
    if asset == known.base or not known.base and symbol.startswith(asset):
        return -(-fee * price // SCALE), max(fee, 0) if venue is SPOT else 0
    return -(-qty * price * venue.fee_bps // (SCALE * 10_000)), 0
