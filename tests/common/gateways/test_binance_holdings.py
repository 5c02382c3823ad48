"""What an account holds, as both markets tell it."""

import pytest

from common.errors import VenueError
from common.fixed import SCALE
from common.gateways.binance_holdings import balances, positions, priced

POSITION = {"symbol": "BTCUSDT", "positionAmt": "-1.5", "entryPrice": "5.123456789", "positionSide": "BOTH"}
BALANCE = {"asset": "BTC", "free": "1", "locked": "0.5"}
BASES = {"BTCUSDT": "BTC", "ETHUSDT": "ETH"}


def test_positions_have_a_side_and_a_price_and_what_is_flat_is_left_out():
    assert positions([POSITION, POSITION | {"symbol": "X", "positionAmt": "0.000"}]) == {
        "BTCUSDT": (-150_000_000, 512_345_678)}
    assert positions([]) == {}


@pytest.mark.parametrize("told", [
    {}, None, 7, POSITION, [7], [{}], [POSITION | {"positionAmt": 1.5}], [POSITION | {"symbol": []}],
    [POSITION | {"positionAmt": "1e11"}], [POSITION | {"entryPrice": "NaN"}],
    [POSITION | {"positionAmt": "90000000000", "entryPrice": "90000000000"}]])
def test_positions_that_are_none_are_an_error_of_the_venue(told):
    with pytest.raises(VenueError):
        positions(told)


def test_hedge_mode_is_refused():
    with pytest.raises(VenueError, match="hedge mode.*one-way"):
        positions([POSITION | {"positionSide": "SHORT"}])


def test_only_balances_of_what_is_traded_are_read_and_need_a_price():
    """Some coins are held by the trillion."""
    pepe = BALANCE | {"asset": "PEPE", "free": "1000000000000"}
    held = balances({"balances": [pepe, BALANCE, {"asset": "ETH", "free": "0", "locked": "0"}]}, BASES)
    assert held == {"BTCUSDT": SCALE * 3 // 2} and balances({"balances": []}, BASES) == {}
    prices = [{"symbol": "ETHUSDT", "price": "1"}, {"symbol": "BTCUSDT", "price": "60000.5"}]
    assert priced(held, prices) == {"BTCUSDT": (SCALE * 3 // 2, 60_000 * SCALE + SCALE // 2)}


@pytest.mark.parametrize("told", [{}, [], None, {"balances": {}}, {"balances": [7]}, {"balances": [{}]},
                                  {"balances": [BALANCE | {"free": "1e11"}]}, {"balances": [BALANCE | {"asset": []}]},
                                  {"balances": [{"asset": "BTC", "free": "1"}]}])
def test_balances_that_are_none_are_an_error_of_the_venue(told):
    with pytest.raises(VenueError):
        balances(told, BASES)


@pytest.mark.parametrize("told", [{}, None, [], [{"symbol": "BTCUSDT"}], [{"symbol": "ETHUSDT", "price": "1"}],
                                  [{"symbol": "BTCUSDT", "price": "90000"}]])
def test_prices_that_are_missing_or_too_large_are_an_error_of_the_venue(told):
    with pytest.raises(VenueError):
        priced({"BTCUSDT": 90_000_000_000 * SCALE}, told)
