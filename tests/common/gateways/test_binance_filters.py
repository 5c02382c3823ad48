"""Filters of exchangeInfo: read as both markets tell them, and each of them alone refuses."""

import pytest

from common.errors import VenueError
from common.fixed import SCALE, parse
from common.gateways.binance_filters import Filters, clash, rounded
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


def test_an_order_that_only_reduces_may_be_worth_as_little_as_it_likes():
    known = read({"symbols": [USDM]})["BTCUSDT"]
    assert known.refusal(n("60000"), n("0.001"), reduces=True) == ""
    assert known.refusal(n("60000"), n("0.0005"), reduces=True) == "LOT_SIZE: quantity 0.0005 is below 0.001"


def test_only_what_is_asked_for_is_read_and_a_limit_that_is_too_large_limits_nothing():
    large = {**SPOT, "filters": [{"filterType": "NOTIONAL", "minNotional": "5", "maxNotional": "1e20"}]}
    found = read({"symbols": [{"symbol": "ODD"}, large]}, ("ETHUSDT",))
    assert found == {"ETHUSDT": Filters("ETH", "USDT", min_notional=n("5"), max_notional=2**63 - 1)}


@pytest.mark.parametrize(("assets", "words"), [
    ({"BTCUSDT": ("BTC", "USDT"), "ETHUSDT": ("ETH", "USDT")}, ""),
    ({"BTCUSDT": ("BTC", "USDT"), "BTCUSDC": ("BTC", "USDC")}, "BTCUSDC and BTCUSDT both trade BTC"),
    ({"BTCUSDT": ("BTC", "USDT"), "ETHBTC": ("ETH", "BTC")}, "BTCUSDT trades BTC, in which ETHBTC is paid")])
def test_symbols_that_balances_do_not_tell_apart_are_named(assets, words):
    assert clash({symbol: Filters(base, quote) for symbol, (base, quote) in assets.items()}) == words


@pytest.mark.parametrize("told", [None, [], {}, {"symbols": [{}]}, {"symbols": [{**USDM, "filters": [{}]}]},
                                  {"symbols": [{**USDM, "baseAsset": []}]}, {"symbols": [{**USDM, "quoteAsset": 5}]},
                                  {"symbols": [{**USDM, "symbol": []}]}, {"symbols": [7]}, {"symbols": 7},
                                  {"symbols": [{**USDM, "filters": [{"filterType": "LOT_SIZE", "minQty": "many"}]}]}])
def test_nonsense_is_an_error_of_the_venue(told):
    with pytest.raises(VenueError):
        read(told)


def test_numbers_of_any_length_are_rounded():
    assert rounded("0.123456789", "x") == 12345678 and rounded("0.123456781", "x", up=True) == 12345679
    assert rounded("-1.5", "x") == -SCALE * 3 // 2 and rounded("1" + "." + "9" * 40, "x") == 199_999_999
    assert rounded(3, "x") == 3 * SCALE and rounded(0.5, "x") == SCALE // 2 and rounded("1e-5", "x") == 1000
    assert rounded("92233720368.54775807", "x") == 2**63 - 1


@pytest.mark.parametrize("value", [
    "", "NaN", "Infinity", "-inf", None, "1,5", "1e999999", "1e-999999", "1e30", [], ["1"], {}, True, False,
    float("nan"), float("inf"), 1e308, 2**63, "9" * 400, "\uff11\uff12", "0x1", " 1", "1_0", (0, (1,), 0)])
def test_what_is_no_plain_number_or_too_large_is_an_error_of_the_venue(value):
    with pytest.raises(VenueError):
        rounded(value, "x")
