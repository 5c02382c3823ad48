"""What is particular to the VecTrade gateway; what holds for every venue stands in test_venues.py."""

import orjson
import pytest

from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Notice
from common.venues import create
from tests import frames as vectrade


def test_vectrade_subscribes_to_the_three_channels_of_each_symbol():
    venue = create("vectrade", ["A", "B"])
    assert orjson.loads(venue.subscriptions()[0]) == {"action": "subscribe", "channels": [
        "orderbook:A", "trades:A", "ticker:A", "orderbook:B", "trades:B", "ticker:B"]}
    assert [orjson.loads(frame) for frame in venue.resync(1)] == [
        {"action": action, "channels": ["orderbook:B"]} for action in ("unsubscribe", "subscribe")]


def test_vectrade_counts_by_one():
    venue = create("vectrade", ["A"])
    for sequence, verdict in ((4, OLDER), (5, OLDER), (6, JOINS), (7, GAP)):
        delta = venue.decode(vectrade.delta("A", sequence))[0]
        assert venue.follows(5, delta) == venue.bridges(5, delta) == verdict


@pytest.mark.parametrize(("frame", "notice"), [
    (b'{"type":"subscribed","channels":["trades:A"]}', Notice("info", "subscribed")),
    (b'{"type":"unsubscribed","channels":[]}', Notice("info", "unsubscribed")),
    (b'{"type":"heartbeat","timestamp":1}', Notice("info", "heartbeat")),
    (b'{"type":"error","code":"C","message":"m"}', Notice("error", "C: m")),
    (vectrade.delta("Z", 1), Notice("info", "not asked for: 'orderbook:Z'"))])
def test_vectrade_notices(frame, notice):
    assert create("vectrade", ["A"]).decode(frame) == (notice,)


@pytest.mark.parametrize(("frame", "named"), [
    (b'{"type":"strange"}', "type='strange'"), (vectrade.trade("A", 1, side="UP"), "side='UP'"),
    (vectrade.trade("A", 1, price=0), "price='0'"), (vectrade.trade("A", 1, quantity="-1"), "quantity='-1'"),
    (b'{"channel":"orderbook:A","type":"trade"}', "type='trade'"),
    (vectrade.delta("A", 1, bids=[("0.123456789", 1)]), "bids.price='0.123456789'"),
    (vectrade.delta("A", 1, asks=[(1, "1e20")]), "asks.quantity='1e20'")])
def test_vectrade_errors_name_field_and_value(frame, named):
    with pytest.raises(VenueError) as refusal:
        create("vectrade", ["A"]).decode(frame)
    assert named in refusal.value.where
