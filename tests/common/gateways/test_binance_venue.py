"""Where Binance is, and who may trade there."""

import pytest

from common.clock import SystemClock
from common.config import Config, Executor, Market
from common.errors import ConfigError
from common.gateways import binance, binance_venue, is_live
from common.positions import Position

SYMBOL = "BTCUSDT"


@pytest.mark.parametrize(("url", "environ", "words"), [
    ("https://fapi.binance.com", {}, "set ALPHA_BINANCE_KEY and ALPHA_BINANCE_SECRET"),
    ("https://fapi.binance.com", {"ALPHA_BINANCE_KEY": "k"}, "set ALPHA_BINANCE_KEY"),
    ("http://fapi.binance.com", {"ALPHA_BINANCE_KEY": "k", "ALPHA_BINANCE_SECRET": "s"}, "in clear"),
    ("https://elsewhere.example", {"ALPHA_BINANCE_KEY": "k", "ALPHA_BINANCE_SECRET": "s"}, "known are"),
    ("https://fapi.binance.com", {"ALPHA_BINANCE_KEY": "k", "ALPHA_BINANCE_SECRET": "s 3"}, "no key has")])
def test_a_live_venue_needs_its_address_and_both_keys(url, environ, words):
    config = Config(executor=Executor(gateway="binance-usdm", base_url=url), market=Market(symbols=(SYMBOL,)))
    assert is_live(config)
    with pytest.raises(ConfigError, match=words):
        binance.create(config, SystemClock(), environ)


def test_where_the_user_streams_are():
    assert binance_venue.stream_url(binance_venue.USDM, "https://fapi.binance.com") == "wss://fstream.binance.com/private"
    assert binance_venue.stream_url(binance_venue.SPOT, "https://api.binance.com") == "wss://ws-api.binance.com:443/ws-api/v3"
    assert binance_venue.stream_url(binance_venue.USDM, "http://127.0.0.1:8765") == "ws://127.0.0.1:8765/private"


@pytest.mark.parametrize(("symbol", "both"), [("BTCUSDT", ("BTC", "USDT")), ("ETHBTC", ("ETH", "BTC")),
                                              ("ODD", ("", "")), ("BTC", ("", "")), ("BTC-USD", ("", ""))])
def test_a_name_shows_its_assets_where_it_ends_with_a_well_known_one(symbol, both):
    assert binance_venue.assets(symbol) == both


def test_symbols_that_cannot_be_traded_together_on_spot_are_refused_at_the_start():
    def start(venue: str, *symbols: str, looks: bool = False, held: tuple[str, ...] = ()) -> None:
        config = Config(executor=Executor(gateway=venue, base_url="http://127.0.0.1:1"), market=Market(symbols=symbols))
        gateway = binance.create(config, SystemClock(), {})
        try:
            if looks:
                gateway.observe()
            for _ in range(2):
                gateway.restore({symbol: Position(1, 1) for symbol in held})
        finally:
            gateway.close()

    for symbols in (("BTCUSDT", "BTCUSDC"), ("BTCUSDT", "ETHBTC")):
        with pytest.raises(ConfigError, match="BTC.*market.symbols"):
            start("binance-spot", *symbols)
        start("binance-usdm", *symbols)
        start("binance-spot", *symbols, looks=True)
    start("binance-spot", "BTCUSDT", "ETHUSDT", "ODD", "ODDER")
    start("binance-spot", "BTCUSDT", held=("BTCUSDC",))  # which is said where it can be mended
