"""What is particular to Bitget; what holds for every venue stands in test_venues.py, what it shares with OKX in
test_okx.py."""

import zlib

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import fixed
from common.clock import ManualClock
from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Heartbeat, HttpRequest, Notice, Precision, Snapshot, Trade
from common.imports import sessions
from common.market import Market, State
from common.ring import Books
from common.venues import create
from tests.common.venues.samples.bitget import arg, book, frame, trade, trades
from tests.common.venues.samples.okx import TS, Teller

SPOT = ("EOSUSDT", "GOGUSDT", "VVSUSDT", "AVAXUSDT", "CULTUSDT", "HOTUSDT", "SUNUSDT", "STGUSDT")
FUTURES = ("DASHUSDT", "UNIUSDT")
ONE = fixed.SCALE


def session(recordings):
    return recordings / "venues_ws" / "BITGET.jsonl.zst"


def recorded(recordings, connection: str) -> list[bytes]:
    return [entry.data for entry in sessions.entries(session(recordings))
            if entry.kind == "recv" and entry.name == connection]


def played(name: str, symbols, frames) -> Market:
    clock = ManualClock(10**18)
    market = Market(create(name, symbols), Books.private(symbols, 4096), clock, seed=0)
    market.begin()
    market.on_connect(clock.now_ns)
    for data in frames:
        market.on_frame(data, clock.now_ns)
    return market


# ---- the recording, of API v1


@pytest.mark.parametrize(("name", "symbols", "connection", "frames", "checksums", "trades"), [
    ("bitget", SPOT, "BITGET.ws.1", 684, 443, 30), ("bitget-usdt-futures", FUTURES, "BITGET.ws.2", 473, 194, 25)])
def test_every_checksum_of_the_recording_is_right(recordings, name, symbols, connection, frames, checksums, trades):
    """637 of both together."""
    market = played(name, symbols, recorded(recordings, connection))
    counts = market.counts
    assert (counts.checksums, counts.checksum_mismatches) == (checksums, 0)
    assert counts.gaps == counts.lost == counts.malformed == counts.crossed == counts.venue_errors == 0
    assert (counts.frames, counts.snapshots, counts.trades) == (frames, len(symbols), trades)
    assert market.valid_symbols == len(symbols)


def test_an_update_that_is_dropped_from_the_recording_invalidates_its_symbol_alone(recordings):
    frames = recorded(recordings, "BITGET.ws.1")
    updates = [i for i, data in enumerate(frames)
               if b'"update"' in data and b'"books"' in data and b'"EOSUSDT"' in data]
    for dropped in updates[:50:10]:
        market = played("bitget", SPOT, frames[:dropped] + frames[dropped + 1:])
        assert market.counts.checksum_mismatches == 1
        assert [symbol.state is State.VALID for symbol in market.symbols] == [False] + [True] * 7


def test_a_book_that_it_writes_keeps_the_decimals_of_the_recording(recordings):
    """So the checksums of what follows are right for whoever begins with it."""
    frames = recorded(recordings, "BITGET.ws.2")
    middle = len(frames) // 2
    market = played("bitget-usdt-futures", FUTURES, frames[:middle])
    said = [market._venue.encode_snapshot(Snapshot(symbol.index, 0, 10**18, *symbol.book.levels()))
            for symbol in market.symbols]
    later = played("bitget-usdt-futures", FUTURES, said + frames[middle:])
    assert later.counts.checksums > 50 and later.counts.checksum_mismatches == later.counts.gaps == 0
    assert all(len(price.partition(".")[2]) == 2 for price, _ in orjson.loads(said[0])["data"][0]["bids"])


@pytest.mark.parametrize(("name", "url", "increments"), [
    ("bitget", "/api/spot/v1/public/products",
     {"EOSUSDT": ("0.0001", "0.0001"), "CULTUSDT": ("0.00000001", "1"), "HOTUSDT": ("0.0000001", "0.0001")}),
    ("bitget-usdt-futures", "/api/mix/v1/market/contracts?productType=umcbl",
     {"DASHUSDT": ("0.01", "0.01"), "UNIUSDT": ("0.001", "1"), "BTCUSDT": ("0.5", "0.001")})])
def test_the_recorded_symbols_tell_the_increments(recordings, name, url, increments):
    body = next(entry.data for entry in sessions.entries(session(recordings))
                if entry.kind == "http" and entry.name.endswith(url))
    assert create(name, list(increments)).decode_precision(body) == {
        symbol: Precision(fixed.parse(tick), fixed.parse(lot)) for symbol, (tick, lot) in increments.items()}


# ---- numbers


def change(**numbers) -> bytes:
    return frame("update", {"bids": [["100.0", "1"]], "asks": []}, **numbers)


@pytest.mark.parametrize(("seq", "pseq", "bridges", "follows"), [
    (107, 100, JOINS, JOINS), (100, 100, OLDER, JOINS), (107, 93, JOINS, GAP), (107, 101, GAP, GAP),
    (100, 93, OLDER, OLDER), (93, 90, OLDER, GAP), (3, 101, OLDER, GAP), ("107", "100", JOINS, JOINS),
    (107, 0, JOINS, JOINS), (107, None, JOINS, JOINS), (100, None, OLDER, OLDER), (93, None, OLDER, GAP),
    (None, None, JOINS, JOINS)])
def test_an_update_follows_the_one_that_it_names_or_any_before_it(seq, pseq, bridges, follows):
    venue = create("bitget", ["BTCUSDT"])
    numbers = {name: value for name, value in (("seq", seq), ("pseq", pseq)) if value is not None}
    delta = venue.decode(change(**numbers))[0]
    assert (venue.bridges(100, delta), venue.follows(100, delta)) == (bridges, follows)


def test_an_update_that_is_missing_is_seen_by_its_number_where_no_checksum_is_sent():
    teller = Teller()
    frames = [frame("snapshot", teller.change({"100.0": "1"}, {"101.0": "1"}), seq=1, pseq=0)]
    frames += [frame("update", {**teller.change({"99.0": str(i)}, {}), "checksum": 0}, seq=i + 1, pseq=i)
               for i in (1, 2, 3)]
    assert played("bitget", ["BTCUSDT"], frames).valid_symbols == 1
    market = played("bitget", ["BTCUSDT"], frames[:2] + frames[3:])
    assert market.valid_symbols == 0 and market.counts.gaps == 1


# ---- decimals


@pytest.mark.parametrize("numbers", [{}, {"seq": 1000}, {"seq": 1000, "pseq": 0}])
def test_a_book_is_proven_with_and_without_numbers(numbers):
    market = played("bitget", ["BTCUSDT"], book("SPOT", **numbers))
    assert (market.counts.checksums, market.counts.checksum_mismatches, market.counts.gaps) == (7, 0, 0)


LEVELS = st.lists(st.integers(1, 10**9), min_size=1, max_size=30, unique=True)


@given(LEVELS, LEVELS, st.integers(0, 8), st.integers(0, 8), st.booleans())
def test_a_checksum_is_of_the_texts_that_were_sent(bids, asks, places, sizes, padded):
    """Whether the venue fills up its decimals or writes the shortest form."""
    def said(value: int, decimals: int) -> str:
        shortest = fixed.text(value * 10**(8 - decimals))
        whole, point, part = shortest.partition(".")
        return f"{whole}.{part.ljust(decimals, '0')}" if padded and decimals else shortest

    def side(values):
        return [[said(value, places), said(value + 1, sizes)] for value in values]

    venue = create("bitget", ["BTCUSDT"])
    told = {"bids": side(sorted(bids, reverse=True)), "asks": side(sorted(asks))}
    found = venue.decode(frame("snapshot", told))[0]
    levels = [tuple(level) for level in found.levels.tolist()]
    parts = [":".join(level) for i in range(25) for name in ("bids", "asks") for level in told[name][i:i + 1]]
    ours = venue.checksum(0, levels[:found.n_bids][:25], levels[found.n_bids:][:25])
    assert ours % 2**32 == zlib.crc32(":".join(parts).encode())


def test_decimals_are_learned_from_updates_too_and_from_each_snapshot_anew():
    venue = create("bitget", ["BTCUSDT"])
    levels = np.array([[100 * ONE, ONE], [101 * ONE, ONE]], np.int64)

    def written() -> list:
        row = orjson.loads(venue.encode_snapshot(Snapshot(0, 0, 10**18, levels, 1, 1)))["data"][0]
        return row["bids"] + row["asks"]

    assert written() == [["100", "1"], ["101", "1"]]
    venue.decode(frame("update", {"bids": [["99.50", "0"]], "asks": [["102.13", "1.000"]]}))
    assert written() == [["100.00", "1.000"], ["101.00", "1.000"]]
    venue.decode(frame("snapshot", {"bids": [["99.5", "1"]], "asks": [["102.0", "2"]]}))
    assert written() == [["100.0", "1"], ["101.0", "1"]]
    venue.begin()
    assert written() == [["100", "1"], ["101", "1"]]


def test_more_decimals_than_are_kept_are_written_if_they_are_zeros():
    venue = create("bitget", ["BTCUSDT"])
    venue.decode(frame("snapshot", {"bids": [["0.1234567800", "1"]], "asks": []}))
    assert venue.checksum(0, [(12345678, ONE)], []) % 2**32 == zlib.crc32(b"0.1234567800:1")


def test_a_frame_that_is_refused_teaches_nothing():
    venue = create("bitget", ["BTCUSDT"])
    with pytest.raises(VenueError):
        venue.decode(frame("snapshot", {"bids": [["99.50", "1"]], "asks": [["102.00", "x"]]}))
    assert venue.checksum(0, [(100 * ONE, ONE)], []) % 2**32 == zlib.crc32(b"100:1")


# ---- trades


def test_trades_of_both_versions_come_oldest_first():
    venue = create("bitget", ["OTHER", "BTCUSDT"])
    later = str(int(TS) + 1)
    ns = int(TS) * 10**6
    found = venue.decode(trades(trade(9, "sell", ms=later), trade(8), trade(7)))
    assert found == [Trade(1, 7, ns, 1015 * ONE // 10, ONE // 4), Trade(1, 8, ns, 1015 * ONE // 10, ONE // 4),
                     Trade(1, 9, ns + 10**6, 1015 * ONE // 10, -ONE // 4)]
    found = venue.decode(trades([later, "101.5", "2", "buy"], [TS, "100", "1", "sell"], market="sp"))
    assert found == [Trade(1, 0, ns, 100 * ONE, -ONE), Trade(1, 0, ns + 10**6, 1015 * ONE // 10, 2 * ONE)]


def test_the_first_snapshot_of_trades_on_a_connection_is_past():
    venue = create("bitget", ["BTCUSDT"])
    past = trades(trade(2), trade(1), action="snapshot")
    assert venue.decode(past) == (Notice("info", "trades before the subscription: 2"),)
    assert [event.trade_id for event in venue.decode(past)] == [1, 2]
    venue.begin()
    assert isinstance(venue.decode(past)[0], Notice)
    venue.begin()
    assert [event.trade_id for frame in (trades(trade(3)), past) for event in venue.decode(frame)] == [3, 1, 2]


# ---- frames


@pytest.mark.parametrize(("name", "market"), [
    ("bitget", "SPOT"), ("bitget", "sp"), ("bitget", "SP"), ("bitget-usdt-futures", "USDT-FUTURES"),
    ("bitget-usdt-futures", "mc"), ("bitget-usdt-futures", "MC")])
def test_each_market_hears_its_own_frames_in_the_words_of_both_versions(name, market):
    other = "bitget" if name != "bitget" else "bitget-usdt-futures"
    data = frame("snapshot", {"bids": [["1", "1"]], "asks": []}, market)
    assert isinstance(create(name, ["BTCUSDT"]).decode(data)[0], Snapshot)
    assert create(other, ["BTCUSDT"]).decode(data) == (
        Notice("info", f"not asked for: instType='{market}', channel='books', instId='BTCUSDT'"),)


@pytest.mark.parametrize(("frame", "notice"), [
    (b"pong", Notice("info", "pong")),
    (orjson.dumps({"event": "subscribe", "arg": arg("books")}),
     Notice("info", "subscribe: instType='SPOT', channel='books', instId='BTCUSDT'")),
    (orjson.dumps({"event": "unsubscribe", "arg": arg("books", "sp")}),
     Notice("info", "unsubscribe: instType='sp', channel='books', instId='BTCUSDT'")),
    (orjson.dumps({"event": "error", "arg": arg("books", symbol="X"), "code": 30001, "msg": "does not exist"}),
     Notice("error", "error: code=30001, msg='does not exist'")),
    (orjson.dumps({"action": "snapshot", "arg": arg("ticker"), "data": []}),
     Notice("info", "not asked for: instType='SPOT', channel='ticker', instId='BTCUSDT'")),
    (orjson.dumps({"action": "update", "arg": arg("books", symbol="X"), "data": []}),
     Notice("info", "not asked for: instType='SPOT', channel='books', instId='X'"))])
def test_notices(frame, notice):
    assert create("bitget", ["BTCUSDT"]).decode(frame) == (notice,)


@pytest.mark.parametrize(("frame", "named"), [
    (b'{"event":"strange"}', "event='strange'"), (b'{"action":"update","data":[]}', "arg in "),
    (b'{"action":"update","arg":{"channel":"books","instId":"BTCUSDT"},"data":[]}', "instType in "),
    (orjson.dumps({"action": "whole", "arg": arg("books"), "data": []}), "action='whole'"),
    (trades(trade(side="UP")), "side='UP'"), (trades(trade(price="0")), "price='0'"),
    (trades(trade(size="-1")), "size='-1'"), (trades(trade(tradeId="x")), "tradeId='x'"),
    (trades(["1", "2", "3"]), "data=['1', '2', '3']"), (trades(1), "data=1"), (trades([TS, "1", "x", "buy"]), "size="),
    (change(seq="x"), "seq='x'"), (change(seq=-1), "seq=-1"), (change(seq=1, pseq=None), "pseq=None"),
    (change(checksum=2**31), "checksum=2147483648")])
def test_errors_name_field_and_value(frame, named):
    with pytest.raises(VenueError) as refusal:
        create("bitget", ["BTCUSDT"]).decode(frame)
    assert named in refusal.value.where


# ---- what is sent


def test_it_subscribes_in_the_words_of_version_2():
    venue = create("bitget-usdt-futures", ["A", "B"])
    assert (venue.ws_url, venue.path()) == ("wss://ws.bitget.com", "/v2/ws/public")
    assert [orjson.loads(frame) for frame in venue.subscriptions()] == [{"op": "subscribe", "args": [
        {"instType": "USDT-FUTURES", "channel": channel, "instId": symbol}
        for channel in ("trade", "books") for symbol in ("A", "B")]}]
    assert [orjson.loads(frame)["args"] for frame in create("bitget", ["A", "B"]).resync(1)] == [
        [{"instType": "SPOT", "channel": "books", "instId": "B"}]] * 2


def test_it_keeps_the_limits_of_the_venue():
    venue = create("bitget", ["A"])
    assert venue.heartbeat() == Heartbeat(25.0, b"ping") and venue.silence_s > 25.0
    assert (venue.max_age_s, venue.max_symbols, venue.sends_per_s) == (86_400.0, 25, 10.0)


# ---- increments


def test_the_increments_of_version_2():
    venue = create("bitget", ["BTCUSDT"])
    assert venue.precision_request() == HttpRequest("GET", "/api/v2/spot/public/symbols")
    row = {"symbol": "BTCUSDT", "pricePrecision": "2", "quantityPrecision": "6"}
    other = {"symbol": "X", "pricePrecision": "12"}
    assert venue.decode_precision(orjson.dumps({"code": "00000", "data": [row, other]})) == {
        "BTCUSDT": Precision(10**6, 100)}
    venue = create("bitget-usdt-futures", ["BTCUSDT"])
    assert venue.precision_request() == HttpRequest("GET", "/api/v2/mix/market/contracts?productType=USDT-FUTURES")
    row = {"symbol": "BTCUSDT", "pricePlace": "1", "priceEndStep": "5", "volumePlace": "3", "sizeMultiplier": "0.002"}
    assert venue.decode_precision(orjson.dumps({"code": "00000", "data": [row]})) == {
        "BTCUSDT": Precision(ONE // 2, ONE // 500)}


def test_increments_that_are_refused_or_too_fine_are_errors():
    venue = create("bitget", ["A"])
    with pytest.raises(VenueError, match="symbols") as refusal:
        venue.decode_precision(b'{"code":"429","msg":"too many","data":null}')
    assert "429" in refusal.value.where
    with pytest.raises(VenueError, match="more than 8 decimals") as refusal:
        venue.decode_precision(orjson.dumps({"code": "00000", "data": [
            {"symbol": "A", "pricePrecision": "9", "quantityPrecision": "0"}]}))
    assert refusal.value.where == "pricePrecision=9"
