"""What is particular to Kraken spot; what holds for every venue stands in test_venues.py."""

import zlib

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import fixed
from common.clock import ManualClock
from common.errors import VenueError
from common.events import JOINS, Delta, Notice, Precision, Snapshot
from common.imports import sessions
from common.market import Market
from common.ring import Books
from common.venues import create
from common.venues.kraken import _text
from tests.common.venues.samples import kraken as sample

#: the example of the venue's documentation, as (price, quantity), best first
ASKS = [("45285.2", "0.00100000"), ("45286.4", "1.54571953"), ("45286.6", "1.54571109"), ("45289.6", "1.54560911"),
        ("45290.2", "0.15890660"), ("45291.8", "1.54553491"), ("45294.7", "0.04454749"), ("45296.1", "0.35380000"),
        ("45297.5", "0.09945542"), ("45299.5", "0.18772827")]
BIDS = [("45283.5", "0.10000000"), ("45283.4", "1.54582015"), ("45282.1", "0.10000000"), ("45281.0", "0.10000000"),
        ("45280.3", "1.54592586"), ("45279.0", "0.07990000"), ("45277.6", "0.03310103"), ("45277.5", "0.30000000"),
        ("45277.3", "1.54602737"), ("45276.6", "0.15445238")]
CHECKSUM = 3310070434


def v1(*pairs: str):
    return create("kraken-v1", pairs or ["XBT/USD"])


def v2(*pairs: str):
    return create("kraken", pairs or ["BTC/USD"])


def market_of(venue, depth: int = 64) -> Market:
    market = Market(venue, Books.private(venue.symbols, depth), ManualClock(10**18), seed=0)
    market.begin()
    return market


def feed(market: Market, *frames: bytes) -> Market:
    for frame in frames:
        market.on_frame(frame, 10**18)
    return market


def old(content, *more, channel: str = "book-1000", pair: str = "XBT/USD") -> bytes:
    return orjson.dumps([1, content, *more, channel, pair])


def book(kind: str, bids=(), asks=(), checksum: int = 0, symbol: str = "BTC/USD") -> bytes:
    sides = {name: [{"price": orjson.Fragment(price), "qty": orjson.Fragment(quantity)} for price, quantity in side]
             for name, side in (("bids", bids), ("asks", asks))}
    return orjson.dumps({"channel": "book", "type": kind, "data": [{"symbol": symbol, **sides, "checksum": checksum}]})


def instrument(price: int, quantity: int, status: str = "online", symbol: str = "BTC/USD") -> bytes:
    return orjson.dumps({"channel": "instrument", "type": "update", "data": {"pairs": [
        {"symbol": symbol, "status": status, "price_precision": price, "qty_precision": quantity}]}})


def exact(rows) -> list[tuple[int, int]]:
    return [(fixed.parse(price), fixed.parse(quantity)) for price, quantity in rows]


# ---- against what was recorded


@pytest.fixture(scope="module")
def recorded(recordings):
    return sessions.entries(recordings / "venues_ws" / "KRAKEN.jsonl.zst")


def pairs_of(entries) -> list[str]:
    return next(orjson.loads(entry.data)["pair"] for entry in entries if entry.kind == "send")


def test_every_checksum_of_a_recording_is_right(recorded):
    market = market_of(v1(*pairs_of(recorded)), 4096)
    for entry in recorded:
        if entry.kind == "recv":
            market.on_frame(entry.data, entry.recv_ns)
    counts = market.counts
    assert (counts.checksums, counts.checksum_mismatches, counts.snapshots, counts.trades) == (4269, 0, 10, 10)
    assert market.valid_symbols == 10 and counts.crossed == counts.malformed == counts.venue_errors == 0


def test_an_update_that_is_missing_in_a_recording_is_seen_and_disturbs_no_other_pair(recorded):
    frames = [entry.data for entry in recorded if entry.kind == "recv"]
    of_pair = [i for i, frame in enumerate(frames) if b'"c":' in frame and b'"SC/EUR"' in frame]
    seen = 0
    for missing in of_pair[100:110]:
        market = feed(market_of(v1(*pairs_of(recorded)), 4096), *frames[:missing], *frames[missing + 1:missing + 500])
        assert market.counts.checksum_mismatches <= 1  # it is not valid again: nobody has sent what was asked for
        assert market.valid_symbols == 10 - market.counts.checksum_mismatches
        seen += market.counts.checksum_mismatches
    assert seen >= 7, "the few that are not lay below the tenth level, or were changed again at once"


def test_increments_are_those_of_the_recorded_list_of_pairs(recorded):
    body = next(entry.data for entry in recorded if entry.kind == "http")
    found = v1("XBT/CHF", "OCEAN/XBT", "NO/SUCH").decode_precision(body)
    assert found == {"XBT/CHF": Precision(10**7, 1), "OCEAN/XBT": Precision(1, 1)}
    assert v2("BTC/CHF", "DOGE/USD").decode_precision(body) == {
        "BTC/CHF": Precision(10**7, 1), "DOGE/USD": Precision(10, 1)}
    assert v1().precision_request() == v2().precision_request()
    assert v1().precision_request().path == "/0/public/AssetPairs"


# ---- increments


def pairs_answer(**pair) -> bytes:
    return orjson.dumps({"error": [], "result": {"XXBTZUSD": {
        "wsname": "XBT/USD", "pair_decimals": 1, "lot_decimals": 8} | pair, "XETHXXBT.d": {"pair_decimals": 5}}})


def test_a_tick_that_is_told_goes_before_the_number_of_decimals():
    assert v1().decode_precision(pairs_answer(tick_size="0.5")) == {"XBT/USD": Precision(5 * 10**7, 1)}
    assert v1().decode_precision(pairs_answer(wsname=["XBT/USD"])) == {}


@pytest.mark.parametrize(("body", "named"), [
    (pairs_answer(pair_decimals=10), "XBT/USD.pair_decimals='1e-10'"),
    (pairs_answer(lot_decimals=9), "XBT/USD.lot_decimals='1e-9'"),
    (pairs_answer(pair_decimals=10**9), "XBT/USD.pair_decimals"), (pairs_answer(pair_decimals=-1), "pair_decimals=-1"),
    (pairs_answer(tick_size="0"), "tick_size='0'"),
    (b'{"error":["EGeneral:Temporary lockout"],"result":{}}', "Temporary lockout"),
    (b'{"error":[],"result":{"X":1}}', "X=1"), (b'{"error":[]}', "result")])
def test_increments_that_are_too_fine_or_no_increments_are_refused(body, named):
    with pytest.raises(VenueError) as refusal:
        v1().decode_precision(body)
    assert named in refusal.value.where


# ---- checksums


def test_the_checksum_is_that_of_the_documented_example():
    venue = v2()
    market = feed(market_of(venue), instrument(1, 8), book("snapshot", BIDS, ASKS, CHECKSUM))
    assert market.valid_symbols == market.counts.checksums == 1
    assert venue.checksum(0, exact(BIDS), exact(ASKS)) == CHECKSUM


def test_decimals_are_learned_where_the_venue_has_not_told_them_and_what_it_tells_goes_first():
    learned = feed(market_of(v2()), book("snapshot", BIDS, ASKS, CHECKSUM))
    assert learned.valid_symbols == 1
    bare = [[(price.removesuffix(".0"), quantity.rstrip("0")) for price, quantity in side] for side in (BIDS, ASKS)]
    assert feed(market_of(v2()), instrument(1, 8), book("snapshot", *bare, CHECKSUM)).valid_symbols == 1
    assert feed(market_of(v2()), instrument(2, 8), book("snapshot", BIDS, ASKS, CHECKSUM)).valid_symbols == 0
    corrected = feed(market_of(v2()), instrument(2, 8), instrument(1, 8), book("snapshot", BIDS, ASKS, CHECKSUM))
    assert corrected.valid_symbols == 1


def test_an_update_never_lowers_the_number_of_decimals_and_a_snapshot_does():
    venue = v2()
    feed(market_of(venue), book("snapshot", BIDS, ASKS, CHECKSUM))
    venue.decode(book("update", [("45283.5", "0")]))
    assert venue._decimals(0) == (1, 8)
    venue.decode(book("update", [("45283.55", "1")]))
    assert venue._decimals(0) == (2, 8)
    venue.decode(book("snapshot", [("45283", "0.1")]))
    assert venue._decimals(0) == (0, 1)


def test_a_new_connection_knows_no_decimals():
    venue = v2()
    feed(market_of(venue), instrument(1, 4))
    venue.begin()
    assert venue._decimals(0) == (8, 8)


def test_a_frame_that_is_refused_teaches_nothing():
    venue = v2()
    wrong = book("snapshot", [("1.5", "0.001")]).replace(b'"checksum":0', b'"checksum":-1')
    with pytest.raises(VenueError, match="integer"):
        venue.decode(wrong)
    with pytest.raises(VenueError, match="integer"):
        venue.decode(instrument(3, -3))
    assert venue._decimals(0) == (8, 8)


DECIMALS = st.integers(0, 12)


@given(st.integers(1, 10**18), DECIMALS)
def test_what_is_written_is_read_back_whole(value, decimals):
    text = _text(value, decimals)
    assert fixed.parse(text) == value
    assert len(text.partition(".")[2]) >= decimals and text[-1] != "."


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**9)), max_size=10), st.integers(0, 8),
       st.integers(0, 8))
def test_the_checksum_is_that_of_the_texts(rows, price_decimals, quantity_decimals):
    venue = v2()
    venue.decode(instrument(price_decimals, quantity_decimals))
    pairs = [(price * 10**(8 - price_decimals), quantity * 10**(8 - quantity_decimals)) for price, quantity in rows]
    texts = [f"{value // 10**8}.{value % 10**8:08d}"[:len(str(value // 10**8)) + 1 + decimals]
             for pair in pairs for value, decimals in zip(pair, (price_decimals, quantity_decimals))]
    told = "".join(text.replace(".", "").lstrip("0") for text in texts)
    assert venue.checksum(0, [], pairs) == venue.checksum(0, pairs, []) == zlib.crc32(told.encode())


@pytest.mark.parametrize("name", ["kraken", "kraken-v1"])
def test_a_book_taken_over_keeps_its_decimals_and_its_checksums(name):
    """As a recording that begins in the middle does."""
    found = sample.SAMPLES[name](None)
    frames, pair = list(found.frames), found.symbols[1]
    ours = feed(market_of(create(name, [pair])), *frames[:-3])
    state = ours._venue.encode_snapshot(ours.whole(0)._replace(event_ns=1_700_000_000_123_456_000))
    assert b"7.5000" in state and b"250.20" in state
    theirs = feed(market_of(create(name, [pair])), state, *frames[-3:])
    assert theirs.counts.checksum_mismatches == 0 and theirs.counts.checksums >= 2 and theirs.valid_symbols == 1
    assert theirs.symbols[0].book.bids() == feed(ours, *frames[-3:]).symbols[0].book.bids()
    assert theirs._venue.decode(state)[0].event_ns == 1_700_000_000_123_456_000


def test_levels_behind_the_subscribed_depth_are_cut_off():
    venue = v1()
    levels = np.array([[price * 10**8, 10**8] for price in (*range(2000, 1000, -1), *range(2001, 3001))], np.int64)
    market = feed(market_of(venue), venue.encode_snapshot(Snapshot(0, 0, 0, levels, 1000, 1000)))
    feed(market, old({"b": [["2000.50000000", "1.00000000", "1.0"]], "c": str(venue.checksum(
        0, [(200050000000, 10**8), *((price * 10**8, 10**8) for price in range(2000, 1991, -1))],
        [(price * 10**8, 10**8) for price in range(2001, 2011)]))}))
    bids = market.symbols[0].book.bids()
    assert market.valid_symbols == 1 and len(bids) == venue.depth == 1000
    assert bids[0] == (200050000000, 10**8) and bids[-1] == (1002 * 10**8, 10**8)


# ---- frames of the first protocol


def test_a_change_in_two_parts_is_one_change():
    delta, = v1().decode(old({"a": [["2.0", "1.5", "1700000000.5"]]},
                             {"b": [["1.0", "0.0", "1700000000.25"], ["1.5", "2.5", "1699999999.0", "r"]], "c": "7"}))
    assert delta._replace(levels=delta.levels.tolist()) == Delta(
        0, 0, 0, 0, 1_700_000_000_500_000_000,
        [[10**8, 0], [15 * 10**7, 25 * 10**7], [2 * 10**8, 15 * 10**7]], 2, 1, 7)
    assert v1().follows(0, delta) == v1().bridges(0, delta) == JOINS


@pytest.mark.parametrize(("times", "newest"), [
    (["1700000000.000001", "1700000000.000002", "1700000000.000000"], 1_700_000_000_000_002_000),
    (["1700000000.5", "1700000000.25", "999999999.9"], 1_700_000_000_500_000_000), (["1700000000"], 17 * 10**17)])
def test_a_book_is_as_old_as_its_newest_level(times, newest):
    snapshot, = v1().decode(old({"as": [], "bs": [[str(i + 1), "1", time] for i, time in enumerate(times)]}))
    assert snapshot.event_ns == newest


def test_an_empty_book_is_a_book():
    snapshot, = v1().decode(old({"as": [], "bs": []}))
    assert (snapshot.n_bids, snapshot.n_asks, snapshot.event_ns) == (0, 0, 0)


def test_trades_of_the_first_protocol_have_the_side_of_the_aggressor_and_no_number():
    trades = v1().decode(old([["2.5", "0.1", "1700000000.123456", "b", "m", ""],
                              ["2.4", "0.2", "1700000000.2", "s", "l", ""]], channel="trade"))
    assert [tuple(trade) for trade in trades] == [
        (0, 0, 1_700_000_000_123_456_000, 25 * 10**7, 10**7),
        (0, 0, 1_700_000_000_200_000_000, 24 * 10**7, -2 * 10**7)]


@pytest.mark.parametrize(("frame", "notice"), [
    (b'{"event":"heartbeat"}', Notice("info", "heartbeat")),
    (b'{"event":"pong","reqid":42}', Notice("info", "pong")),
    (b'{"event":"systemStatus","connectionID":1,"status":"online"}', Notice("info", "the venue is 'online'")),
    (b'{"event":"systemStatus","connectionID":1,"status":"maintenance"}',
     Notice("error", "the venue is 'maintenance'")),
    (b'{"event":"subscriptionStatus","status":"subscribed","channelName":"trade","pair":"XBT/USD"}',
     Notice("info", "subscribed: 'trade' of 'XBT/USD'")),
    (b'{"event":"subscriptionStatus","status":"unsubscribed","channelName":"trade","pair":"XBT/USD"}',
     Notice("info", "unsubscribed: 'trade' of 'XBT/USD'")),
    (b'{"event":"subscriptionStatus","status":"error","errorMessage":"Subscription depth not supported",'
     b'"pair":"XBT/USD"}', Notice("error", "Subscription depth not supported: 'XBT/USD'")),
    (b'{"event":"error","errorMessage":"Malformed request"}', Notice("error", "Malformed request")),
    (b'{"Error":"Exceeded msg rate"}', Notice("error", "Exceeded msg rate")),
    (old({}, channel="ticker"), Notice("info", "not asked for: 'ticker' of 'XBT/USD'")),
    (old({}, channel="book-10"), Notice("info", "not asked for: 'book-10' of 'XBT/USD'")),
    (old({}, pair="ETH/USD"), Notice("info", "not asked for: 'book-1000' of 'ETH/USD'"))])
def test_notices_of_the_first_protocol(frame, notice):
    assert v1().decode(frame) == (notice,)


@pytest.mark.parametrize(("frame", "named"), [
    (b'{"event":"strange"}', "event='strange'"), (b'[1,{},"trade"]', "frame=[1, {}, 'trade']"),
    (b'[1,{},2,"XBT/USD"]', "channel=2"), (b'[1,{},"trade",["XBT/USD"]]', "pair=['XBT/USD']"),
    (old([]), "content=[[]]"), (old({"a": []}, {"a": [], "c": "1"}), "content=[{'a'"),
    (old({"b": []}), "c in"), (old({"b": [], "c": 5}), "c=5"), (old({"b": [], "c": "-1"}), "c='-1'"),
    (old({"as": []}), "bs in"),
    (old({"b": [["1.0", "1.0"]], "c": "1"}), "['1.0', '1.0']"),
    (old({"b": [["1.0", "1.0", "1.0", "r", 5]], "c": "1"}), "'r', 5]"),
    (old({"b": [["1.0", "1.0", "soon"]], "c": "1"}), "time of a level='soon'"),
    (old({"b": [["0.0", "1.0", "1.0"]], "c": "1"}), "b.price='0.0'"),
    (old({"b": [["0.0000000001", "1.0", "1.0"]], "c": "1"}), "b.price='0.0000000001'"),
    (old({"a": [["0.123456789", "1.0", "1.0"]], "c": "1"}), "a.price='0.123456789'"),
    (old({"as": [], "bs": [["1.0", "0.00000000001", "1.0"]]}), "bs.quantity='0.00000000001'"),
    (old([["1.0", "1.0", "1.0", "x"]], channel="trade"), "side='x'"),
    (old([["1.0", "1.0", "1.0"]], channel="trade"), "trade=['1.0'"),
    (old([{}], channel="trade"), "trade={}"), (old({}, channel="trade"), "trade={}"),
    (old([["0.0000000001", "1.0", "1.0", "b"]], channel="trade"), "trade.price='0.0000000001'")])
def test_errors_of_the_first_protocol_name_field_and_value(frame, named):
    with pytest.raises(VenueError) as refusal:
        v1().decode(frame)
    assert named in refusal.value.where


def test_more_decimals_than_we_hold_are_well_if_they_are_zeros():
    delta, = v1().decode(old({"b": [["0.000022900", "1.0000000000", "1.0"]], "c": "1"}))
    assert delta.levels.tolist() == [[2290, 10**8]]


# ---- frames of the second protocol


@pytest.mark.parametrize(("frame", "notices"), [
    (b'{"channel":"heartbeat"}', [Notice("info", "heartbeat")]),
    (b'{"channel":"ticker","type":"update","data":[]}', [Notice("info", "not asked for: channel='ticker'")]),
    (b'{"method":"pong","req_id":1}', [Notice("info", "pong")]),
    (b'{"method":"subscribe","result":{"symbol":"BTC/USD","channel":"book"},"success":true}',
     [Notice("info", "subscribe: 'book' 'BTC/USD'")]),
    (b'{"method":"unsubscribe","success":true}', [Notice("info", "unsubscribe: ")]),
    (b'{"method":"subscribe","success":false}', [Notice("error", "subscribe: ")]),
    (b'{"error":"Currency pair not supported XBT/USD","method":"subscribe","success":false,"symbol":"XBT/USD"}',
     [Notice("error", "Currency pair not supported XBT/USD: 'XBT/USD'")]),
    (b'{"error":"Malformed request","method":"","success":false}', [Notice("error", "Malformed request: ''")]),
    (b'{"Error":"Exceeded msg rate"}', [Notice("error", "Exceeded msg rate: 'request'")]),
    (b'{"channel":"status","type":"update","data":[{"system":"online"},{"system":"cancel_only"}]}',
     [Notice("info", "the venue is 'online'"), Notice("error", "the venue is 'cancel_only'")]),
    (instrument(1, 8), [Notice("info", "BTC/USD is 'online'")]),
    (instrument(1, 8, "maintenance"), [Notice("error", "BTC/USD is 'maintenance'")]),
    (instrument(1, 8, symbol="ETH/USD"), [Notice("info", "not asked for: other pairs")]),
    (b'{"channel":"instrument","type":"update","data":{"assets":[]}}', [Notice("info", "not asked for: other pairs")]),
    (book("snapshot", symbol="ETH/USD"), [Notice("info", "not asked for: symbol='ETH/USD'")]),
    (b'{"channel":"trade","type":"snapshot","data":[]}', [Notice("info", "not asked for: trades of the past")]),
    (b'{"channel":"trade","type":"update","data":[{"symbol":"ETH/USD"}]}',
     [Notice("info", "not asked for: symbol='ETH/USD'")])])
def test_notices_of_the_second_protocol(frame, notices):
    assert list(v2().decode(frame)) == notices


TRADE = ('{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":2.5,"qty":0.1,'
         '"trade_id":9,"timestamp":"2023-11-14T22:13:20.123456Z"}]}')


@pytest.mark.parametrize(("frame", "named"), [
    (b'{"method":"strange"}', "method='strange'"), (b'{"method":"subscribe"}', "success in"),
    (b'{"method":"subscribe","success":true,"result":[]}', "result=[]"),
    (b'{"channel":"book","data":[]}', "type in"), (b'{"channel":"book","type":"delta","data":[]}', "type='delta'"),
    (b'{"channel":"book","type":"update","data":{}}', "data={}"),
    (b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[]}]}', "asks in"),
    (book("update", [("0.0", "1")]), "book.price="), (book("update", [("1.5", "-1")]), "book.quantity=-1"),
    (book("update", [("0.0000000001", "1")]), "book.price='1E-10'"),
    (book("update", [("1E-9", "1")]), "book.price='1E-9'"),
    (book("snapshot", [], [("1.5", "0.000000001")]), "book.quantity='1E-9'"),
    (book("update", checksum=-1), "checksum=-1"),
    (instrument(41, 8), "price_precision=41"), (instrument(1, 2**62), "qty_precision=4611686018427387904"),
    (instrument(-1, 8), "price_precision=-1"), (b'{"channel":"instrument","type":"update","data":[]}', "data=[]"),
    (TRADE.replace("buy", "up").encode(), "side='up'"), (TRADE.replace("2.5", "0").encode(), "trade.price=0"),
    (TRADE.replace(":9,", ':"9",').encode(), "trade_id='9'"),
    (TRADE.replace("Z", "").encode(), "timestamp='2023-11-14T22:13:20.123456'"),
    (TRADE.replace("2.5", "0.12345678901").encode(), "trade.price='0.12345678901'")])
def test_errors_of_the_second_protocol_name_field_and_value(frame, named):
    with pytest.raises(VenueError) as refusal:
        v2().decode(frame)
    assert named in refusal.value.where


def test_trades_of_the_second_protocol_are_numbered():
    assert [tuple(trade) for trade in v2().decode(TRADE.encode())] == [
        (0, 9, 1_700_000_000_123_456_000, 25 * 10**7, 10**7)]
    assert v2().decode(TRADE.replace("buy", "sell").encode())[0].qty == -10**7


def test_several_books_of_one_frame_are_several_changes():
    frame = orjson.loads(book("update", [("1.5", "1")], [], 1))
    frame["data"].append(orjson.loads(book("update", [], [("2", "0")], 2, "ETH/USD"))["data"][0])
    first, second = v2("BTC/USD", "ETH/USD").decode(orjson.dumps(frame))
    assert (first.symbol, first.levels.tolist(), first.checksum) == (0, [[15 * 10**7, 10**8]], 1)
    assert (second.symbol, second.levels.tolist(), second.checksum) == (1, [[2 * 10**8, 0]], 2)


# ---- what is sent, and the other side


def test_the_first_protocol_subscribes_to_books_and_trades():
    venue = v1("XBT/USD", "ETH/USD")
    assert venue.ws_url + venue.path() == "wss://ws.kraken.com/"
    assert [orjson.loads(frame) for frame in venue.subscriptions()] == [
        {"event": "subscribe", "pair": ["XBT/USD", "ETH/USD"], "subscription": {"name": "book", "depth": 1000}},
        {"event": "subscribe", "pair": ["XBT/USD", "ETH/USD"], "subscription": {"name": "trade"}}]
    assert [orjson.loads(frame) for frame in venue.resync(1)] == [
        {"event": event, "pair": ["ETH/USD"], "subscription": {"name": "book", "depth": 1000}}
        for event in ("unsubscribe", "subscribe")]
    assert [venue.subscribed(frame) for frame in (*venue.subscriptions(), venue.heartbeat().frame)] == [[0, 1], [], []]
    assert v1("ETH/USD").subscribed(venue.subscriptions()[0]) == [0], "pairs that we have not are passed over"


def test_the_second_protocol_asks_for_instruments_first_and_for_no_trades_of_the_past():
    venue = v2("BTC/USD", "ETH/USD")
    assert venue.ws_url + venue.path() == "wss://ws.kraken.com/v2"
    books = {"channel": "book", "depth": 1000, "snapshot": True}
    assert [orjson.loads(frame) for frame in venue.subscriptions()] == [
        {"method": "subscribe", "params": params} for params in (
            {"channel": "instrument", "snapshot": True}, books | {"symbol": ["BTC/USD", "ETH/USD"]},
            {"channel": "trade", "symbol": ["BTC/USD", "ETH/USD"], "snapshot": False})]
    assert [orjson.loads(frame) for frame in venue.resync(1)] == [
        {"method": method, "params": books | {"symbol": ["ETH/USD"]}} for method in ("unsubscribe", "subscribe")]
    assert v2("ETH/USD").subscribed(venue.subscriptions()[1]) == [0]


def test_the_other_side_tells_the_decimals_that_it_has_been_told():
    theirs, ours = v2("BTC/USD", "ETH/USD"), v2()
    theirs.decode(instrument(1, 4))
    for frame in theirs.answer(ours.subscriptions()[0]):
        ours.decode(frame)
    assert ours._decimals(0) == (1, 4)


def test_a_ping_is_answered_with_its_number():
    assert v1().answer(b'{"event":"ping","reqid":42}') == [b'{"event":"pong","reqid":42}']
    assert v2().answer(b'{"method":"ping","req_id":42}') == [b'{"method":"pong","req_id":42}']
    assert v1().heartbeat().every_s < v1().silence_s
