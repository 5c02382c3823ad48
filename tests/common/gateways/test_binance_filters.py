"""Filters of exchangeInfo: read as both markets tell them, and each of them alone refuses."""

import pytest

from common.errors import VenueError
from common.fixed import SCALE, parse
from common.gateways.binance_filters import Filters, rounded
from common.gateways.binance_filters import parse as read

USDM = {"symbol": "BTCUSDT", "baseAsset": "BTC", "quoteAsset": "USDT", "filters": [
    {"filterType": "PRICE_FILTER", "minPrice": "261.10", "maxPrice": "809484", "tickSize": "0.10"},
    {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
    {"filterType": "MARKET_LOT_SIZE", "minQty": "0.001", "maxQty": "120", "stepSize": "0.001"},
    {"filterType": "MIN_NOTIONAL", "notional": "100"}]}
SPOT = {"symbol": "ETHUSDT", "baseAsset": "ETH", "quoteAsset": "USDT", "filters": [
    {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
    {"filterType": "LOT_SIZE", "minQty": "0.0001", "maxQty": "9000", "stepSize": "0.0001"},
    {"filterType": "NOTIONAL", "minNotional": "5", "maxNotional": "9000000", "applyMinToMarket": True}]}


def n(text: str) -> int:
    return parse(text)


def test_both_markets_are_read():
    found = read({"symbols": [USDM, SPOT]})
    assert found["BTCUSDT"] == Filters("BTC", "USDT", n("0.1"), n("261.1"), n("809484"), n("0.001"), n("0.001"),
                                       n("1000"), n("100"), 0)
    assert found["ETHUSDT"] == Filters("ETH", "USDT", n("0.01"), n("0.01"), n("1000000"), n("0.0001"), n("0.0001"),
                                       n("9000"), n("5"), n("9000000"))


@pytest.mark.parametrize(("price", "qty", "words"), [
    ("60000.1", "0.002", ""),
    ("261", "1", "PRICE_FILTER: price 261 is below 261.1"),
    ("809484.1", "1", "PRICE_FILTER: price 809484.1 is above 809484"),
    ("60000.15", "1", "PRICE_FILTER: price 60000.15 is no multiple of 0.1"),
    ("809000", "0.0005", "LOT_SIZE: quantity 0.0005 is below 0.001"),
    ("60000", "1000.001", "LOT_SIZE: quantity 1000.001 is above 1000"),
    ("60000", "1.0005", "LOT_SIZE: quantity 1.0005 is no multiple of 0.001"),
    ("60000", "0.001", "NOTIONAL: price * quantity 60 is below 100")])
def test_each_of_them_alone_refuses_with_limit_and_value(price, qty, words):
    assert read({"symbols": [USDM]})["BTCUSDT"].refusal(n(price), n(qty)) == words


def test_there_may_be_a_largest_notional_or_no_filter_at_all():
    assert read({"symbols": [SPOT]})["ETHUSDT"].refusal(n("3000"), n("3001")) == (
        "NOTIONAL: price * quantity 9003000 is above 9000000")
    assert Filters().refusal(1, 1) == ""


@pytest.mark.parametrize("told", [None, [], {}, {"symbols": [{}]}, {"symbols": [{**USDM, "filters": [{}]}]},
                                  {"symbols": [{**USDM, "filters": [{"filterType": "LOT_SIZE", "minQty": "many"}]}]}])
def test_nonsense_is_an_error_of_the_venue(told):
    with pytest.raises(VenueError):
        read(told)


def test_numbers_of_any_length_are_rounded():
    assert rounded("0.123456789", "x") == 12345678 and rounded("0.123456781", "x", up=True) == 12345679
    assert rounded("-1.5", "x") == -SCALE * 3 // 2 and rounded("1e30", "x") == 2**63 - 1
    for text in ("", "NaN", "Infinity", None, "1,5"):
        with pytest.raises(VenueError):
            rounded(text, "x")
