"""What is particular to Kraken futures; what holds for every venue stands in test_venues.py."""

import orjson
import pytest

from common.clock import ManualClock
from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Notice, Precision
from common.imports import sessions
from common.market import Market
from common.ring import Books
from common.venues import create
from tests.common.venues.samples.kraken_futures import book, trade


@pytest.fixture
def venue():
    return create("kraken-futures", ["PF_XBTUSD"])


@pytest.fixture(scope="module")
def recorded(recordings):
    return sessions.entries(recordings / "venues_ws" / "KRAKEN_FUTURES.jsonl.zst")


def played(entries, frames) -> Market:
    sent = next(orjson.loads(entry.data) for entry in entries if entry.kind == "send")
    venue = create("kraken-futures", sent["product_ids"])  # in lower case, as they were asked for
    market = Market(venue, Books.private(venue.symbols, 4096), ManualClock(10**18), seed=0)
    market.begin()
    for frame in frames:
        market.on_frame(frame, 10**18)
    return market


def test_every_change_of_a_recording_joins_the_one_before(recorded):
    market = played(recorded, [entry.data for entry in recorded if entry.kind == "recv"])
    counts = market.counts
    assert market.valid_symbols == counts.snapshots == 10 and counts.trades == 3
    assert counts.ticks == 7014 + 10 + 3, "every change made a tick"
    assert counts.gaps == counts.crossed == counts.malformed == counts.venue_errors == 0


def test_a_change_that_is_missing_in_a_recording_is_a_gap_of_its_product(recorded):
    frames = [entry.data for entry in recorded if entry.kind == "recv"]
    changes = [i for i, frame in enumerate(frames) if b'"feed":"book","product_id":"PI_ETHUSD"' in frame]
    for missing in changes[10:15]:
        market = played(recorded, frames[:missing] + frames[missing + 1:])
        assert market.counts.gaps == 1 and market.valid_symbols == 9


def test_increments_are_those_of_the_recorded_list_of_instruments(recorded):
    body = next(entry.data for entry in recorded if entry.kind == "http")
    venue = create("kraken-futures", ["PI_XBTUSD", "fi_xrpusd_210924", "NO_SUCH"])
    assert venue.decode_precision(body) == {
        "PI_XBTUSD": Precision(5 * 10**7, 0), "fi_xrpusd_210924": Precision(10**4, 0)}
    assert venue.precision_request().path == "/derivatives/api/v3/instruments"


def instruments(**instrument) -> bytes:
    return orjson.dumps({"result": "success", "instruments": [
        {"symbol": "in_xbtusd", "tradeable": False}, {"symbol": "PF_XBTUSD", "tickSize": 1} | instrument]})


@pytest.mark.parametrize(("precision", "lot"), [(4, 10**4), (0, 10**8), (-3, 10**11), (8, 1)])
def test_the_lot_has_as_many_decimals_as_are_told_and_they_may_be_below_0(venue, precision, lot):
    found = venue.decode_precision(instruments(contractValueTradePrecision=precision))
    assert found == {"PF_XBTUSD": Precision(10**8, lot)}


@pytest.mark.parametrize(("body", "named"), [
    (instruments(tickSize=1e-10), "PF_XBTUSD.tickSize='1E-10'"), (instruments(tickSize=0), "PF_XBTUSD.tickSize=0"),
    (instruments(tickSize=None), "PF_XBTUSD.tickSize=None"),
    (instruments(contractValueTradePrecision=9), "PF_XBTUSD.contractValueTradePrecision='1e-9'"),
    (instruments(contractValueTradePrecision="4"), "PF_XBTUSD.contractValueTradePrecision='4'"),
    (instruments(contractValueTradePrecision=-10**9), "contractValueTradePrecision"),
    (b'{"result":"error","error":"apiLimitExceeded"}', "apiLimitExceeded"), (b'{"result":"success"}', "instruments")])
def test_increments_that_are_too_fine_or_no_increments_are_refused(venue, body, named):
    with pytest.raises(VenueError) as refusal:
        venue.decode_precision(body)
    assert named in refusal.value.where


def test_it_counts_by_one(venue):
    for seq, verdict in ((4, OLDER), (5, OLDER), (6, JOINS), (7, GAP)):
        delta, = venue.decode(book(seq, "buy", "100.5", "1"))
        assert venue.follows(5, delta) == venue.bridges(5, delta) == verdict


def test_a_change_is_one_level_of_one_side(venue):
    bid, = venue.decode(book(7, "buy", "100.5", "0.0"))
    ask, = venue.decode(book(8, "sell", "0.1", "123456789.12345678"))
    assert (bid.levels.tolist(), bid.n_bids, bid.n_asks, bid.first_id) == ([[10050 * 10**6, 0]], 1, 0, 7)
    assert (ask.levels.tolist(), ask.n_bids, ask.n_asks) == ([[10**7, 12345678912345678]], 0, 1), "not by a float"
    assert ask.event_ns == 1_700_000_000_456_000_000


def test_trades_have_the_side_of_the_aggressor_and_a_number(venue):
    assert [tuple(event) for event in venue.decode(trade(71, "sell", "100.5", "2"))] == [
        (0, 71, 1_700_000_000_789_000_000, 10050 * 10**6, -2 * 10**8)]
    assert venue.decode(trade(72, "buy", "100.5", "2", "liquidation"))[0].qty == 2 * 10**8


@pytest.mark.parametrize(("frame", "notice"), [
    (b'{"event":"info","version":1}', Notice("info", "info")),
    (b'{"event":"pong"}', Notice("info", "pong")),
    (b'{"event":"subscribed","feed":"trade","product_ids":["PF_XBTUSD"]}',
     Notice("info", "subscribed feed='trade' product_ids=['PF_XBTUSD']")),
    (b'{"event":"unsubscribed","feed":"book","product_ids":["PF_XBTUSD"]}',
     Notice("info", "unsubscribed feed='book' product_ids=['PF_XBTUSD']")),
    (b'{"event":"subscribed_failed","feed":"book"}', Notice("error", "subscribed_failed feed='book'")),
    (b'{"event":"unsubscribed_failed","feed":"book"}', Notice("error", "unsubscribed_failed feed='book'")),
    (b'{"event":"error","message":"Invalid product id"}', Notice("error", "error message='Invalid product id'")),
    (b'{"event":"alert","message":"Bad websocket message"}',
     Notice("error", "alert message='Bad websocket message'")),
    (b'{"feed":"heartbeat","time":1700000000000}', Notice("info", "heartbeat")),
    (b'{"feed":"ticker_lite","product_id":"PF_XBTUSD"}', Notice("info", "not asked for: feed='ticker_lite'")),
    (b'{"feed":"trade_snapshot","product_id":"PF_XBTUSD","trades":[]}',
     Notice("info", "not asked for: feed='trade_snapshot'")),
    (b'{"feed":"book","product_id":"PF_ETHUSD"}', Notice("info", "not asked for: product_id='PF_ETHUSD'")),
    (trade(1, "buy", "1", "1", "block"), Notice("info", "not a market trade: type='block'"))])
def test_notices(venue, frame, notice):
    assert venue.decode(frame) == (notice,)


@pytest.mark.parametrize(("frame", "named"), [
    (b'{"event":"strange"}', "event='strange'"), (book(1, "up", "1", "1"), "side='up'"),
    (book(1, "buy", "0.0", "1"), "book.price="), (book(1, "buy", "1", "-1"), "book.quantity=-1"),
    (book(1, "buy", "0.0000000001", "1"), "1E-10"), (book(1, "buy", "1", "0.12345678901"), "0.12345678901"),
    (book(-1, "buy", "1", "1"), "seq=-1"), (trade(1, "b", "1", "1"), "side='b'"),
    (trade(1, "buy", "1", "1").replace(b"1700000000789", b'"now"'), "time='now'"),
    (b'{"feed":"book_snapshot","product_id":"PF_XBTUSD","seq":1,"timestamp":1,"bids":[]}', "asks in"),
    (b'{"feed":"book_snapshot","product_id":"PF_XBTUSD","seq":1,"timestamp":1,"bids":[[1,1]],"asks":[]}',
     "bids=[1, 1]"),
    (b'{"feed":"book_snapshot","product_id":"PF_XBTUSD","seq":1,"timestamp":1,"bids":[{"price":1}],"asks":[]}',
     "qty in")])
def test_errors_name_field_and_value(venue, frame, named):
    with pytest.raises(VenueError) as refusal:
        venue.decode(frame)
    assert named in refusal.value.where


def test_it_subscribes_to_books_trades_and_heartbeats(venue):
    assert venue.ws_url + venue.path() == "wss://futures.kraken.com/ws/v1"
    assert [orjson.loads(frame) for frame in venue.subscriptions()] == [
        {"event": "subscribe", "feed": "book", "product_ids": ["PF_XBTUSD"]},
        {"event": "subscribe", "feed": "trade", "product_ids": ["PF_XBTUSD"]},
        {"event": "subscribe", "feed": "heartbeat"}]
    assert [orjson.loads(frame) for frame in venue.resync(0)] == [
        {"event": event, "feed": "book", "product_ids": ["PF_XBTUSD"]} for event in ("unsubscribe", "subscribe")]
    frames = (*venue.subscriptions(), venue.heartbeat().frame)
    assert [venue.subscribed(frame) for frame in frames] == [[0], [], [], []]
    assert venue.subscribed(b'{"event":"subscribe","feed":"book","product_ids":["pf_ethusd","pf_xbtusd"]}') == [0]


def test_the_other_side_acknowledges_each_product_and_answers_pings(venue):
    assert venue.answer(b'{"event":"subscribe","feed":"book","product_ids":["pf_a","PF_B"]}') == [
        b'{"event":"subscribed","feed":"book","product_ids":["PF_A"]}',
        b'{"event":"subscribed","feed":"book","product_ids":["PF_B"]}']
    assert venue.answer(venue.subscriptions()[2]) == [b'{"event":"subscribed","feed":"heartbeat"}']
    assert venue.answer(venue.heartbeat().frame) == [b'{"event":"pong"}'] and venue.heartbeat().every_s < 60
