"""What is particular to Binance; what holds for every venue stands in test_venues.py."""

import orjson
import pytest

from common import fixed
from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Notice, Trade
from common.venues import create
from tests import frames as vectrade

ONE = fixed.SCALE

def test_binance_puts_its_streams_into_the_path():
    assert create("binance-usdm", ["BTCUSDT"]).path() == \
        "/stream?streams=btcusdt@depth@0ms/btcusdt@bookTicker/btcusdt@trade"
    assert create("binance-spot", ["A", "B"]).path() == (
        "/stream?streams=a@depth@100ms/a@bookTicker/a@trade/b@depth@100ms/b@bookTicker/b@trade")
    assert create("binance-usdm", ["BTCUSDT"]).snapshot_request(0)[:2] == (
        "GET", "/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
    assert create("binance-spot", ["BTCUSDT"]).snapshot_request(0).path == "/api/v3/depth?symbol=BTCUSDT&limit=1000"


@pytest.mark.parametrize(("first", "last", "before", "verdict"), [
    (90, 99, 80, OLDER), (90, 100, 80, JOINS), (100, 110, 90, JOINS), (90, 110, 80, JOINS), (101, 110, 99, GAP),
    (105, 110, 100, JOINS)])
def test_the_first_futures_delta_contains_the_snapshot(first, last, before, verdict):
    venue = create("binance-usdm", ["A"])
    assert venue.bridges(100, venue.decode(vectrade.depth("A", first, last, before))[0]) == verdict


@pytest.mark.parametrize(("first", "last", "before", "verdict"), [
    (105, 110, 100, JOINS), (101, 110, 99, GAP), (105, 110, 101, GAP), (90, 100, 80, OLDER), (80, 90, 70, OLDER)])
def test_any_later_futures_delta_names_the_one_before(first, last, before, verdict):
    venue = create("binance-usdm", ["A"])
    assert venue.follows(100, venue.decode(vectrade.depth("A", first, last, before))[0]) == verdict


def spot_depth(first: int, last: int) -> bytes:
    return orjson.dumps({"stream": "a@depth@100ms", "data": {
        "e": "depthUpdate", "E": 5, "s": "A", "U": first, "u": last, "b": [], "a": []}})


@pytest.mark.parametrize(("first", "last", "bridges", "follows"), [
    (90, 100, OLDER, OLDER), (90, 101, JOINS, GAP), (101, 105, JOINS, JOINS), (102, 105, GAP, GAP),
    (101, 101, JOINS, JOINS)])
def test_spot_deltas_adjoin(first, last, bridges, follows):
    venue = create("binance-spot", ["A"])
    delta = venue.decode(spot_depth(first, last))[0]
    assert (venue.bridges(100, delta), venue.follows(100, delta)) == (bridges, follows)
    assert delta.event_ns == 5 * 10**6 and delta.prev_id == 0


def usdm_trade(**changes) -> bytes:
    return orjson.dumps({"stream": "a@trade", "data": {
        "e": "trade", "E": 3, "T": 2, "s": "A", "t": 9, "p": "100.10", "q": "0.5", "X": "MARKET", "m": False,
        **changes}})


def test_the_maker_tells_the_aggressor():
    venue = create("binance-usdm", ["A"])
    assert venue.decode(usdm_trade()) == (Trade(0, 9, 2 * 10**6, 10010 * ONE // 100, ONE // 2),)
    assert venue.decode(usdm_trade(m=True))[0].qty == -ONE // 2


@pytest.mark.parametrize(("frame", "level"), [
    (usdm_trade(X="INSURANCE_FUND", p="0"), "info"), (usdm_trade(s="Z"), "info"),
    (usdm_trade(e="markPriceUpdate"), "info"),
    (b'{"result":null,"id":1}', "info"), (b'{"error":{"code":2,"msg":"Invalid request"},"id":1}', "error"),
    (b'{"code":3,"msg":"Invalid JSON"}', "error"), (b'{"stream":"x","data":{"e":"serverShutdown","E":1}}', "info")])
def test_binance_notices(frame, level):
    event, = create("binance-usdm", ["A"]).decode(frame)
    assert isinstance(event, Notice) and event.level == level


def test_a_raw_frame_without_its_stream_is_understood():
    venue = create("binance-usdm", ["A"])
    inner = orjson.dumps(orjson.loads(usdm_trade())["data"])
    assert venue.decode(inner) == venue.decode(usdm_trade())


def test_a_futures_delta_without_pu_is_refused():
    data = orjson.loads(vectrade.depth("A", 1, 2, 0))
    del data["data"]["pu"]
    with pytest.raises(VenueError, match="pu"):
        create("binance-usdm", ["A"]).decode(orjson.dumps(data))
