"""What is particular to Bybit; what holds for every venue stands in test_venues.py."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import fixed
from common.clock import ManualClock
from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Delta, Notice, Precision, Snapshot, Trade
from common.imports import sessions
from common.market import Market
from common.ring import Books
from common.venues import create, fields

ONE = fixed.SCALE
NAMES = ["bybit-linear", "bybit-spot"]
SYMBOLS = {"bybit-linear": ("BTCUSDT", "ETHUSDT", "SOLUSDT", "DOGEUSDT"), "bybit-spot": ("BTCUSDT", "ETHUSDT")}


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


def book(kind: str, number: int, symbol="A", bids=(), asks=(), **rest) -> bytes:
    """A frame of the order book, in no particular order of keys."""
    return orjson.dumps({"data": {"s": symbol, "b": bids, "a": asks, "u": number, "seq": 1}, "ts": 7, "type": kind,
                         "topic": f"orderbook.200.{symbol}", **rest})


def trades(*items: dict, symbol="A") -> bytes:
    return orjson.dumps({"topic": f"publicTrade.{symbol}", "type": "snapshot", "ts": 9, "data": [
        {"T": 8, "s": symbol, "S": "Buy", "v": "0.5", "p": "100.1", "i": "77", "BT": False, **item} for item in items]})


# ---- the recording


def recorded(recordings, name: str) -> list[bytes]:
    """The frames of the connection to this category."""
    found = sessions.entries(recordings / "venues_ws" / "BYBIT.jsonl.zst")
    connection, = (entry.name for entry in found if entry.kind == "connect" and
                   entry.data.decode().endswith(create(name, ()).path()))
    return [entry.data for entry in found if entry.kind == "recv" and entry.name == connection]


def market(name: str) -> Market:
    symbols = SYMBOLS[name]
    return Market(create(name, symbols), Books.private(symbols, 1024), ManualClock(10**18), seed=1)


@pytest.mark.parametrize(("name", "joined", "told"), [("bybit-linear", 1594, 327), ("bybit-spot", 548, 20)])
def test_a_recorded_connection_has_no_gap_and_always_200_levels_a_side(recordings, name, joined, told):
    """The venue removes what leaves the best 200, so any change that was misread would show in their number."""
    played = market(name)
    for frame in recorded(recordings, name):
        played.on_frame(frame, 0)
        for symbol in played.symbols:
            if b"orderbook" in frame and symbol.book_seq:
                assert symbol.book.levels()[1:] == (200, 200)
    counts = played.counts
    assert counts.gaps == counts.malformed == counts.crossed == counts.resyncs == counts.venue_errors == 0
    assert played.valid_symbols == counts.snapshots == len(SYMBOLS[name])
    assert counts.ticks - counts.trades - counts.snapshots == joined and counts.trades == told


def test_templates_take_every_book_and_every_single_trade_of_the_recording(recordings, name):
    venue = create(name, SYMBOLS[name])
    missed = [frame for frame in recorded(recordings, name) if venue._scanner.match(frame)[0] < 0 and (
        b"orderbook" in frame or b"publicTrade" in frame and len(orjson.loads(frame)["data"]) == 1)]
    assert missed == []


@pytest.mark.parametrize("lost", [100, 200, 300])
def test_an_update_that_is_lost_is_found_by_the_next_one(recordings, name, lost):
    frames = [frame for frame in recorded(recordings, name) if b"orderbook" in frame]
    del frames[lost]
    played = market(name)
    for frame in frames:
        played.on_frame(frame, 0)
    assert played.counts.gaps == 1 and played.valid_symbols == len(SYMBOLS[name]) - 1


def test_trades_of_spot_are_numbered_upwards(recordings):
    venue, last = create("bybit-spot", SYMBOLS["bybit-spot"]), [0, 0]
    for frame in recorded(recordings, "bybit-spot"):
        for event in venue.decode(frame):
            if isinstance(event, Trade):
                assert last[event.symbol] < event.trade_id
                last[event.symbol] = event.trade_id
    assert all(last)


# ---- the order book


@pytest.mark.parametrize(("number", "verdict"), [(101, JOINS), (102, GAP), (100, OLDER), (7, OLDER)])
def test_each_update_is_one_above_the_last(name, number, verdict):
    venue = create(name, ["A"])
    delta, = venue.decode(book("delta", number))
    assert venue.follows(100, delta) == venue.bridges(100, delta) == verdict


@pytest.mark.parametrize("kind", ["snapshot", "delta"])
def test_number_1_is_a_restart_and_thus_a_snapshot_on_both_paths(name, kind):
    venue = create(name, ["A"])
    slow = book(kind, 1, bids=[["5", "1"]], cts=6)
    head = b'"type":"%s","ts":7' if name == "bybit-linear" else b'"ts":7,"type":"%s"'
    fast = (b'{"topic":"orderbook.200.A",' + head % kind.encode() +
            b',"data":{"s":"A","b":[["5","1"]],"a":[],"u":1,"seq":1},"cts":6}')
    assert venue._scanner.match(fast)[0] >= 0 > venue._scanner.match(slow)[0]
    for frame in (slow, fast):
        event, = venue.decode(frame)
        assert isinstance(event, Snapshot) and (event.last_id, event.event_ns, event.n_bids) == (1, 6 * 10**6, 1)


def test_a_restart_puts_a_new_book_in_the_place_of_the_old_one(name):
    played = market(name)
    for frame in (book("snapshot", 900, "BTCUSDT", [["5", "1"]]), book("delta", 901, "BTCUSDT", [["6", "1"]]),
                  book("snapshot", 1, "BTCUSDT", [["4", "1"]]), book("delta", 2, "BTCUSDT", [["3", "2"]])):
        played.on_frame(frame, 0)
    assert played.counts.gaps == played.counts.ignored == 0 and played.counts.snapshots == 2
    assert played.symbols[0].book.bids() == [(4 * ONE, ONE), (3 * ONE, 2 * ONE)]


def test_a_gap_is_healed_by_subscribing_anew(name):
    played = market(name)
    played.on_frame(book("snapshot", 5, "ETHUSDT"), 0)
    played.on_frame(book("delta", 7, "ETHUSDT"), 0)
    played._clock.set(2 * 10**18)
    played.work()
    assert played.outbox == [b'{"op":"unsubscribe","args":["orderbook.200.ETHUSDT"]}',
                             b'{"op":"subscribe","args":["orderbook.200.ETHUSDT"]}']


def test_the_time_is_that_of_the_matching_engine_where_it_is_told(name):
    venue = create(name, ["A"])
    assert venue.decode(book("delta", 5, cts=6))[0].event_ns == 6 * 10**6
    assert venue.decode(book("delta", 5))[0].event_ns == 7 * 10**6


@pytest.mark.parametrize(("frame", "names"), [
    (book("partial", 5), "type"), (book("delta", -1), "u="), (book("delta", 5, bids=[["1"]]), "b:"),
    (book("delta", 5, cts="6"), "cts"), (trades({"S": "BUY"}), "S="), (trades({"BT": 0}), "BT"),
    (trades({"p": "0"}), "p="), (b'{"topic":"publicTrade.A","data":{}}', "data="), (b'{"op":"subscribe"}', "success"),
    (b'{"success":1,"op":"subscribe"}', "success")])
def test_what_is_wrong_is_refused_by_name(name, frame, names):
    with pytest.raises(VenueError) as refusal:
        create(name, ["A"]).decode(frame)
    assert names in refusal.value.where


# ---- trades


def test_a_frame_of_several_trades_is_as_many_trades(name):
    numbered = name == "bybit-spot"
    events = create(name, ["A"]).decode(trades({}, {"S": "Sell", "i": "78", "T": 9}, {"BT": True}, {"i": "not-77"}))
    price = 10010 * ONE // 100
    assert list(events) == [
        Trade(0, 77 * numbered, 8 * 10**6, price, ONE // 2), Trade(0, 78 * numbered, 9 * 10**6, price, -ONE // 2),
        Notice("info", "a block trade"), Trade(0, 0, 8 * 10**6, price, ONE // 2)]


@pytest.mark.parametrize("number", [str(2**63), "9" * 30, "-1", "", "\u0663", None, True, 1.5, []])
def test_the_id_of_a_trade_that_is_no_number_is_0(number):
    assert create("bybit-spot", ["A"]).decode(trades({"i": number}))[0].trade_id == 0


# ---- what else the venue says


@pytest.mark.parametrize(("frame", "level"), [
    (b'{"success":true,"ret_msg":"","conn_id":"d8","req_id":"","op":"subscribe"}', "info"),
    (b'{"success":true,"ret_msg":"subscribe","conn_id":"d9","op":"subscribe"}', "info"),
    (b'{"success":true,"ret_msg":"pong","conn_id":"d8","req_id":"","op":"ping"}', "info"),
    (b'{"success":true,"ret_msg":"pong","conn_id":"d9","op":"ping"}', "info"),
    (b'{"req_id":"t","op":"pong","args":["1675418560633"],"conn_id":"c"}', "info"),
    (b'{"success":false,"ret_msg":"args size >10","conn_id":"0a","op":"subscribe"}', "error"),
    (b'{"topic":"tickers.A","type":"snapshot","data":{},"cs":1,"ts":2}', "info"),
    (book("snapshot", 5, "Z"), "info"), (b'{"topic":"orderbook.50.A","type":"delta","data":{}}', "info")])
def test_bybit_notices(name, frame, level):
    event, = create(name, ["A"]).decode(frame)
    assert isinstance(event, Notice) and event.level == level
    assert level == "info" or "args size" in event.text


# ---- what we say


def test_it_is_found_under_its_category():
    assert [create(name, ["A"]).path() for name in NAMES] == ["/v5/public/linear", "/v5/public/spot"]


def test_no_request_has_more_topics_than_spot_allows(name):
    venue = create(name, [f"S{i}USDT" for i in range(23)])
    topics = [orjson.loads(frame)["args"] for frame in venue.subscriptions()]
    assert [len(part) for part in topics] == [10, 10, 10, 10, 6]
    assert [index for frame in venue.subscriptions() for index in venue.subscribed(frame)] == list(range(23))


def test_the_topics_of_as_many_symbols_as_are_allowed_are_short_enough(name):
    venue = create(name, [f"{i:020}" for i in range(create(name, ()).max_symbols)])
    assert sum(len(orjson.dumps(orjson.loads(frame)["args"])) for frame in venue.subscriptions()) <= 21_000


def test_a_ping_leaves_every_20_s(name):
    beat = create(name, ["A"]).heartbeat()
    assert beat.every_s == 20 and orjson.loads(beat.frame) == {"op": "ping"}
    assert create(name, ["A"]).subscribed(b'{"op":"unsubscribe","args":["orderbook.200.A"]}') == []


@pytest.mark.parametrize(("name", "tick", "lot"), [
    ("bybit-linear", ONE // 10, ONE // 1000), ("bybit-spot", ONE // 10, ONE // 10**6)])
def test_increments_are_read_from_the_recorded_answer(recordings, name, tick, lot):
    venue = create(name, ["BTCUSDT", "NOSUCH"])
    body, = (entry.data for entry in sessions.entries(recordings / "venues_ws" / "BYBIT.jsonl.zst")
             if entry.kind == "http" and f"category={venue.path().rpartition('/')[2]}" in entry.name)
    assert venue.decode_precision(body) == {"BTCUSDT": Precision(tick, lot)}


def test_increments_are_asked_for_by_name_where_there_is_one_and_refusals_are_told(name):
    one, two = (create(name, symbols).precision_request().path for symbols in (["A"], ["A", "B"]))
    assert one.endswith("&symbol=A") and two.endswith("&limit=1000")
    with pytest.raises(VenueError, match="10001.*params error"):
        create(name, ["A"]).decode_precision(b'{"retCode":10001,"retMsg":"params error","result":{}}')


PRICES = st.lists(st.tuples(st.integers(1, 2**62), st.integers(0, 2**62)), max_size=5)


@settings(max_examples=50)
@given(bids=PRICES, asks=PRICES, number=st.integers(0, 2**62), name=st.sampled_from(NAMES))
def test_any_snapshot_that_is_written_is_read_as_it_was(bids, asks, number, name):
    venue = create(name, ["A", "B"])
    whole = Snapshot(1, number, 5 * 10**6, fields.stacked(bids + asks), len(bids), len(asks))
    found, = venue.decode(venue.encode_snapshot(whole))
    assert isinstance(found, Snapshot) and not isinstance(found, Delta)
    assert found[:3] + found[4:] == whole[:3] + whole[4:]
    assert found.levels[:len(bids + asks)].tolist() == whole.levels.tolist()
