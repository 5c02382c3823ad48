"""Fills and their fees, as both markets tell them."""

import pytest

from common.errors import VenueError
from common.fixed import SCALE
from common.gateways import Filled
from common.gateways.binance_fills import Trade, filled
from common.gateways.binance_filters import Filters
from common.gateways.binance_venue import SPOT, USDM

BTC = Filters(base="BTC", quote="USDT")
BNB = Filters(base="BNB", quote="USDT")
TRADE = Trade(7, "2", "100", "0.02", "USDT", 5)


@pytest.fixture(params=[USDM, SPOT], ids=["usdm", "spot"])
def venue(request):
    return request.param


def fee_of(venue, told: str, asset, known: Filters = BTC, symbol: str = "BTCUSDT") -> tuple[int, int]:
    fill = filled(venue, known, "x", symbol, TRADE._replace(fee=told, asset=asset))
    return fill.fee, fill.base_fee


def test_a_fill_is_what_was_told_in_units_of_1e_8(venue):
    fill = filled(venue, BTC, "x", "BTCUSDT", TRADE)
    assert fill == Filled("x", "7", 2 * SCALE, 100 * SCALE, 2_000_000, 5_000_000, 0)


def test_a_fee_is_counted_in_the_quote_asset_whatever_it_was_paid_in(venue):
    kept = SCALE // 500 if venue is SPOT else 0
    assert fee_of(venue, "0.02", "USDT") == (2_000_000, 0) and fee_of(venue, "-0.01", "USDT") == (-1_000_000, 0)
    assert fee_of(venue, "0.002", "BTC") == (2 * SCALE // 10, kept), "at the price of its fill"
    assert fee_of(venue, "0.0001", "BNB") == (200 * SCALE * venue.fee_bps // 10_000, 0)
    assert fee_of(venue, "0", None) == (0, 0) and fee_of(venue, "0.000000001", "USDT") == (1, 0), "rounded up"


def test_a_commission_in_the_base_asset_comes_out_of_what_is_held_on_spot_and_out_of_the_wallet_on_usdm():
    assert fee_of(USDM, "0.0005", "BNB", BNB, "BNBUSDT") == (SCALE // 20, 0)
    assert fee_of(SPOT, "0.0005", "BNB", BNB, "BNBUSDT") == (SCALE // 20, SCALE // 2000)
    assert fee_of(SPOT, "-0.0005", "BNB", BNB, "BNBUSDT") == (-SCALE // 20, 0), "what is given is none that is taken"


def test_before_the_filters_are_known_the_name_of_the_symbol_says_the_assets(venue):
    assert fee_of(venue, "0.02", "USDT", Filters()) == (2_000_000, 0)
    assert fee_of(venue, "0.002", "BTC", Filters()) == (2 * SCALE // 10, SCALE // 500 if venue is SPOT else 0)


@pytest.mark.parametrize("change", [
    {"qty": "0"}, {"qty": "-1"}, {"price": "0"}, {"price": "0.000000001"}, {"qty": "1e11"}, {"price": "1e99"},
    {"qty": "90000000000", "price": "90000000000"}, {"qty": "922337203.7", "price": "100"}, {"qty": "1e999999"},
    {"qty": "NaN"}, {"price": "Infinity"}, {"fee": None}, {"fee": []}, {"fee": True}, {"asset": []}, {"asset": 7},
    {"fee": "2.1", "asset": "BTC"}, {"fee": "99999999999", "asset": "BTC"}, {"fee": "200.01"}, {"fee": "92233720368"},
    {"ms": -1}, {"ms": 2**63}])
def test_what_no_fill_can_be_is_an_error_of_the_venue(venue, change):
    with pytest.raises(VenueError):
        filled(venue, BTC, "x", "BTCUSDT", TRADE._replace(**change))
