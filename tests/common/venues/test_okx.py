"""What is particular to OKX; what holds for every venue stands in test_venues.py."""

import zlib

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import fixed
from common.clock import ManualClock
from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Delta, Heartbeat, HttpRequest, Notice, Precision, Snapshot, Trade
from common.imports import sessions
from common.market import Market, State
from common.ring import Books
from common.venues import create
from tests.common.venues.samples.okx import TS, Teller, arg, frame, trade

RECORDED = ("BTC-USD-220527", "UNI-USD-SWAP", "BTC-USDT")
ONE = fixed.SCALE


def session(recordings):
    return recordings / "venues_ws" / "OKX.jsonl.zst"


def played(frames, symbols=RECORDED) -> Market:
    clock = ManualClock(10**18)
    market = Market(create("okx", symbols), Books.private(symbols, 4096), clock, seed=0)
    market.begin()
    market.on_connect(clock.now_ns)
    for data in frames:
        market.on_frame(data, clock.now_ns)
    return market


def update(last: int | None, previous: int | None, bids=(), asks=()) -> bytes:
    """Without a checksum, as OKX sends it now."""
    return frame("update", {"bids": list(bids), "asks": list(asks), "checksum": 0}, last, previous)


def book(**changes) -> bytes:
    row = {"asks": [["101", "1", "0", "1"]], "bids": [["100", "2", "0", "1"]], "ts": TS, "checksum": 0, "seqId": 10,
           "prevSeqId": 7, **changes}
    return orjson.dumps({"arg": arg("books"), "action": "update", "data": [row]})


# ---- the recording


def test_every_checksum_of_the_recording_is_right(recordings):
    market = played(data for _, data in sessions.frames(session(recordings)))
    counts = market.counts
    assert (counts.checksums, counts.checksum_mismatches) == (290, 0)
    assert counts.gaps == counts.lost == counts.malformed == counts.crossed == counts.venue_errors == 0
    assert (counts.frames, counts.snapshots, counts.trades, market.valid_symbols) == (410, 3, 71, 3)


def test_an_update_that_is_dropped_from_the_recording_invalidates_its_symbol_alone(recordings):
    """If it reaches into the best 25 levels, as these do: the recording is from before there were numbers."""
    frames = [data for _, data in sessions.frames(session(recordings))]
    updates = [i for i, data in enumerate(frames) if b'"update"' in data and b'"BTC-USDT"' in data]
    for dropped in updates[1:50:12]:
        market = played(frames[:dropped] + frames[dropped + 1:])
        assert market.counts.checksum_mismatches == 1
        assert [symbol.state is State.VALID for symbol in market.symbols] == [True, True, False]


def test_the_venue_removes_what_leaves_its_400_levels(recordings):
    market = played(data for _, data in sessions.frames(session(recordings)))
    _, bids, asks = market.symbols[2].book.levels()
    assert market._venue.depth == 400 and (bids, asks) == (400, 400)


@pytest.mark.parametrize(("symbol", "tick", "lot"), [
    ("BTC-USDT", "0.1", "0.00000001"), ("UNI-USD-SWAP", "0.001", "1"), ("BTC-USD-220527", "0.1", "1")])
def test_the_recorded_instruments_tell_the_increments(recordings, symbol, tick, lot):
    venue = create("okx", [symbol])
    path = venue.precision_request().path
    bodies = [entry.data for entry in sessions.entries(session(recordings))
              if entry.kind == "http" and entry.name.endswith(path)]
    assert venue.decode_precision(bodies[0]) == {symbol: Precision(fixed.parse(tick), fixed.parse(lot))}


# ---- numbers


@pytest.mark.parametrize(("last", "previous", "verdict"), [
    (107, 100, JOINS), (100, 100, JOINS), (3, 100, JOINS), (107, 101, GAP), (101, 101, GAP), (107, 93, GAP),
    (3, 101, GAP), (100, 93, OLDER)])
def test_an_update_follows_the_one_that_it_names(last, previous, verdict):
    venue = create("okx", ["BTC-USDT"])
    delta = venue.decode(update(last, previous))[0]
    assert venue.follows(100, delta) == venue.bridges(100, delta) == verdict


def test_a_sign_of_life_keeps_the_book_and_a_restart_of_the_numbers_does_too():
    whole = Teller().change({"100": "1"}, {"101": "1"})
    market = played([frame("snapshot", whole, 100, -1), update(100, 100), update(3, 100, [("100", "2")]),
                     update(8, 3)], ["BTC-USDT"])
    assert market.valid_symbols == 1 and market.counts.gaps == 0
    assert market.symbols[0].book.bids() == [(100 * ONE, 2 * ONE)] and market.symbols[0].last_id == 8


def test_a_restart_of_the_numbers_that_was_missed_is_seen():
    whole = Teller().change({"100": "1"}, {"101": "1"})
    market = played([frame("snapshot", whole, 100, -1), update(8, 3)], ["BTC-USDT"])
    assert market.valid_symbols == 0 and market.counts.gaps == 1


def test_without_numbers_the_checksum_alone_tells():
    teller = Teller()
    frames = [frame("snapshot", teller.change({"100": "1"}, {"101": "1"}), None, None)]
    frames += [frame("update", teller.change({"99": str(i)}, {}), None, None) for i in (1, 2)]
    assert played(frames, ["BTC-USDT"]).valid_symbols == 1
    frames.append(frame("update", {**teller.change({"99": "3"}, {}), "checksum": 1}, None, None))
    market = played(frames, ["BTC-USDT"])
    assert market.valid_symbols == 0 and market.counts.checksum_mismatches == 1 and market.counts.gaps == 0


# ---- frames


def test_books_and_trades_are_read_exactly():
    venue = create("okx", ["OTHER", "BTC-USDT"])
    delta, = venue.decode(book(asks=[["101.00000001", "0", "0", "0"]], checksum=-5))
    assert delta[:5] == (1, 10, 10, 7, int(TS) * 10**6) and delta.checksum == -5
    assert delta.levels.tolist() == [[100 * ONE, 2 * ONE], [101 * ONE + 1, 0]] and delta[6:8] == (1, 1)
    assert venue.decode(trade(7)) == [Trade(1, 7, int(TS) * 10**6, fixed.parse("101.5"), ONE // 4)]
    assert venue.decode(trade(8, "sell", "100", "2"))[0][3:] == (100 * ONE, -2 * ONE)


def test_a_checksum_of_0_says_nothing():
    assert create("okx", ["BTC-USDT"]).decode(book(checksum=0))[0].checksum is None


def test_a_frame_without_a_checksum_is_read():
    row = orjson.loads(book())["data"][0]
    del row["checksum"]
    data = {"arg": arg("books"), "action": "snapshot", "data": [row]}
    found, = create("okx", ["BTC-USDT"]).decode(orjson.dumps(data))
    assert isinstance(found, Snapshot) and found.checksum is None and found.last_id == 10


@pytest.mark.parametrize(("frame", "notice"), [
    (b"pong", Notice("info", "pong")),
    (b'{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a"}',
     Notice("info", "subscribe: channel='books', instId='BTC-USDT'")),
    (b'{"event":"unsubscribe","arg":{"channel":"books","instId":"BTC-USDT"}}',
     Notice("info", "unsubscribe: channel='books', instId='BTC-USDT'")),
    (b'{"event":"channel-conn-count","channel":"books","connCount":"2","connId":"a"}',
     Notice("info", "channel-conn-count")),
    (b'{"event":"channel-conn-count-error","channel":"books","connCount":"30","connId":"a"}',
     Notice("error", "channel-conn-count-error: code=None, msg=None")),
    (b'{"event":"error","code":"60018","msg":"wrong instId","connId":"a"}',
     Notice("error", "error: code='60018', msg='wrong instId'")),
    (b'{"event":"notice","code":"64008","msg":"about to close","connId":"a"}',
     Notice("error", "notice: code='64008', msg='about to close'")),
    (b'{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[]}',
     Notice("info", "not asked for: channel='tickers', instId='BTC-USDT'")),
    (b'{"arg":{"channel":"books","instId":"X"},"action":"update","data":[]}',
     Notice("info", "not asked for: channel='books', instId='X'"))])
def test_notices(frame, notice):
    assert create("okx", ["BTC-USDT"]).decode(frame) == (notice,)


@pytest.mark.parametrize(("frame", "named"), [
    (b'{"event":"strange"}', "event='strange'"), (b'{"data":[]}', "arg in "), (b"ping", "ping"),
    (b'{"arg":{"channel":"books"}}', "instId in "),
    (b'{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"partial","data":[]}', "action='partial'"),
    (b'{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[1]}', "data=1"),
    (trade(side="UP"), "side='UP'"), (trade(price="0"), "px='0'"),
    (trade(size="-1"), "sz='-1'"), (trade(tradeId="x"), "tradeId='x'"), (trade(ts="9" * 19), "ts="),
    (book(asks=[["101"]]), "asks: ['101']"), (book(bids=[["0.123456789", "1", "0", "1"]]), "bids.price="),
    (book(checksum=2**31), "checksum=2147483648"), (book(checksum="1"), "checksum='1'"), (book(seqId=-2), "seqId=-2"),
    (book(prevSeqId=None), "prevSeqId=None"), (book(ts=1), "ts=1")])
def test_errors_name_field_and_value(frame, named):
    with pytest.raises(VenueError) as refusal:
        create("okx", ["BTC-USDT"]).decode(frame)
    assert named in refusal.value.where


# ---- checksums


PRICES = st.lists(st.integers(1, 10**13), max_size=30, unique=True)


@given(PRICES, PRICES, st.integers(1, 10**12))
def test_a_checksum_takes_turns_between_the_sides_as_long_as_both_have_levels(bids, asks, quantity):
    venue = create("okx", ["A"])
    bids, asks = ([(price, quantity) for price in side[:25]] for side in (bids, asks))
    parts = []
    for i in range(25):
        parts += [f"{fixed.text(price)}:{fixed.text(size)}" for side in (bids, asks) for price, size in side[i:i + 1]]
    found = venue.checksum(0, bids, asks)
    assert found % 2**32 == zlib.crc32(":".join(parts).encode()) and -2**31 <= found < 2**31


def test_the_checksum_of_a_documented_shape():
    """Two bids and three asks: bid, ask, bid, ask, ask."""
    levels = [(fixed.parse(price), fixed.parse(size)) for price, size in (
        ("3366.1", "7"), ("3366", "6.5"), ("3366.8", "9"), ("3368", "8"), ("3372", "8"))]
    said = zlib.crc32(b"3366.1:7:3366.8:9:3366:6.5:3368:8:3372:8")
    assert create("okx", ["A"]).checksum(0, levels[:2], levels[2:]) % 2**32 == said


# ---- what is sent, and the other side


def test_it_subscribes_to_trades_before_books_and_in_frames_of_bearable_size():
    venue = create("okx", ["A-B", "C-D"])
    assert (venue.ws_url, venue.path()) == ("wss://ws.okx.com:8443", "/ws/v5/public")
    assert [orjson.loads(frame) for frame in venue.subscriptions()] == [{"op": "subscribe", "args": [
        {"channel": channel, "instId": symbol} for channel in ("trades", "books") for symbol in ("A-B", "C-D")]}]
    assert [orjson.loads(frame) for frame in venue.resync(1)] == [
        {"op": op, "args": [{"channel": "books", "instId": "C-D"}]} for op in ("unsubscribe", "subscribe")]
    many = create("okx", [f"BTC-USD-270326-{i:06}-C" for i in range(350)])
    frames = many.subscriptions()
    assert len(frames) == 4 and max(map(len, frames)) < 2**16
    assert [symbol for frame in frames for symbol in many.subscribed(frame)] == list(range(350))


def test_the_heartbeat_is_text_and_is_answered_in_kind():
    venue = create("okx", ["A-B"])
    assert venue.heartbeat() == Heartbeat(20.0, b"ping") and venue.silence_s > 20.0
    assert venue.answer(b"ping") == [b"pong"] and venue.subscribed(b"ping") == []
    assert venue.decode(bytearray(b"pong")) == (Notice("info", "pong"),)


def test_each_channel_is_acknowledged_by_itself():
    venue = create("okx", ["A-B"])
    assert [orjson.loads(answer) for answer in venue.answer(venue.subscriptions()[0])] == [
        {"event": "subscribe", "arg": {"channel": channel, "instId": "A-B"}} for channel in ("trades", "books")]
    assert venue.subscribed(venue.resync(0)[0]) == [] and venue.subscribed(venue.resync(0)[1]) == [0]


@pytest.mark.parametrize("last_id", [0, 12345])
def test_a_snapshot_that_it_writes_has_its_checksum_and_a_number_if_there_is_one(last_id):
    venue = create("okx", ["A-B"])
    levels = np.array([[100 * ONE, ONE], [101 * ONE, 2 * ONE]], np.int64)
    said = venue.encode_snapshot(Snapshot(0, last_id, 10**18, levels, 1, 1))
    row = orjson.loads(said)["data"][0]
    assert row["bids"] == [["100", "1", "0", "1"]] and ("seqId" in row) == bool(last_id)
    found, = venue.decode(said)
    assert found.last_id == last_id and found.checksum == venue.checksum(0, [(100 * ONE, ONE)], [(101 * ONE, 2 * ONE)])
    assert not isinstance(found, Delta)


# ---- increments


@pytest.mark.parametrize(("symbol", "query"), [
    ("BTC-USDT", "SPOT"), ("BTC-USDT-SWAP", "SWAP"), ("BTC-USD-270326", "FUTURES"),
    ("BTC-USD-270326-90000-C", "OPTION&instFamily=BTC-USD")])
def test_the_request_for_increments_names_the_kind_of_instrument(symbol, query):
    assert create("okx", [symbol]).precision_request() == HttpRequest(
        "GET", f"/api/v5/public/instruments?instType={query}")
    assert create("okx", []).precision_request() is None


def test_increments_that_the_venue_does_not_say_are_0_and_a_refusal_is_an_error():
    venue = create("okx", ["A-B"])
    rows = [{"instId": "A-B", "tickSz": "", "lotSz": "0.5"}, {"instId": "X", "tickSz": "0.0000000001"}]
    assert venue.decode_precision(orjson.dumps({"code": "0", "data": rows})) == {"A-B": Precision(0, ONE // 2)}
    with pytest.raises(VenueError, match="instruments") as refusal:
        venue.decode_precision(b'{"code":"50011","msg":"too many","data":[]}')
    assert "50011" in refusal.value.where and "too many" in refusal.value.where
    with pytest.raises(VenueError, match="missing"):
        venue.decode_precision(b'{"code":"0","data":[{"instId":"A-B","lotSz":"1"}]}')
