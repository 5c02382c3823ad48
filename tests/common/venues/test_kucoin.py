"""What is particular to KuCoin; what holds for every venue stands in test_venues.py."""

from decimal import Decimal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import fixed
from common.clock import ManualClock
from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, HttpRequest, Notice, Precision, Quote, Snapshot, Trade
from common.imports import sessions
from common.market import Market
from common.ring import Books
from common.venues import create, fields
from tests.common.venues.samples import kucoin as frames

ONE = fixed.SCALE
#: of the recording; prices of the last three have ten decimals
SYMBOLS = ("BCHSV-USDT", "SNX-BTC", "FET-BTC", "NRG-BTC", "COV-BTC", "EQZ-BTC", "ANKR-BTC", "DAPPT-BTC", "CAPP-BTC")
FINE = SYMBOLS[6:]
SEQUENCES = 3844


@pytest.fixture
def venue():
    return create("kucoin", ["BTC-USDT"])


# ---- the recording


def recorded(recordings) -> list[sessions.Entry]:
    return sessions.entries(recordings / "venues_ws" / "KUCOIN.jsonl.zst")


def moved(entry: sessions.Entry) -> sessions.Entry:
    """With the prices of the fine symbols times 10,000, so that eight decimals hold them."""
    if not any(symbol.encode() in entry.data[-400:] or symbol in entry.name for symbol in FINE):
        return entry
    message = orjson.loads(entry.data)
    data = message.get("data")
    if not isinstance(data, dict) or "symbol" in entry.name and "level2" not in entry.name:
        return entry
    for sides in (data, data.get("changes", {})):
        for level in sides.get("bids", []) + sides.get("asks", []):
            level[0] = _moved(level[0])
    for name in ("price", "bestBid", "bestAsk"):
        if name in data:
            data[name] = _moved(data[name])
    return entry._replace(data=orjson.dumps(message))


def _moved(price: str) -> str:
    return f"{Decimal(price).scaleb(4):f}"


def best_100(body: bytes) -> bytes:
    """What level2_100 would have answered, in place of the whole book that was recorded."""
    message = orjson.loads(body)
    message["data"] |= {side: message["data"][side][:100] for side in ("bids", "asks")}
    return orjson.dumps(message)


class Played:
    """A market that is given recorded frames in their order, and the snapshots, each at its time, once asked."""

    def __init__(self, symbols) -> None:
        self.venue = create("kucoin", symbols)
        self.clock = ManualClock(0)
        self.market = Market(self.venue, Books.private(symbols, 4096), self.clock, seed=1)
        self.joined, follows = 0, self.venue.follows

        def spied(last_id, delta):
            verdict = follows(last_id, delta)
            self.joined += verdict == JOINS
            return verdict

        self.venue.follows = spied

    def feed(self, entries) -> "Played":
        for entry in entries:
            self.clock.set(entry.recv_ns)
            if entry.kind == "recv":
                self.market.on_frame(entry.data, entry.recv_ns)
                self.market.work()
            elif entry.kind == "http" and "level2?" in entry.name:
                symbol = entry.name.partition("symbol=")[2]
                if symbol in self.venue.symbols:
                    index = self.venue.symbols.index(symbol)
                    self.market.wants_snapshot.remove(index)
                    self.market.on_snapshot(index, best_100(entry.data), entry.recv_ns)
        return self


def is_change(entry: sessions.Entry) -> bool:
    return entry.kind == "recv" and b"trade.l2update" in entry.data


def test_the_numbers_of_recorded_changes_have_no_hole(recordings):
    venue, last, verdicts = create("kucoin", SYMBOLS), {}, []
    for entry in filter(is_change, recorded(recordings)):
        delta, = venue.decode(moved(entry).data)
        if delta.symbol in last:
            verdicts.append(venue.follows(last[delta.symbol], delta))
        last[delta.symbol] = delta.last_id
    assert verdicts == [JOINS] * SEQUENCES


@pytest.mark.parametrize(("symbols", "change", "joined", "checks"), [
    (SYMBOLS[:6], lambda entry: entry, 3308, 636), (SYMBOLS, moved, 3805, 819)])
def test_recorded_books_join_their_snapshots_and_agree_with_every_ticker(recordings, symbols, change, joined, checks):
    """All changes but those that are older than the snapshot, as are the tickers that find nothing to agree with."""
    played = Played(symbols).feed(map(change, recorded(recordings)))
    counts = played.market.counts
    assert counts.gaps == counts.crossed == counts.malformed == counts.resyncs == counts.venue_errors == 0
    assert (counts.quote_checks, counts.quote_mismatches) == (checks, 0)
    assert played.market.valid_symbols == counts.snapshots == len(symbols)
    assert played.joined == joined


@pytest.mark.parametrize("lost", [400, 1000, 2000])
def test_a_change_that_is_lost_is_found_by_the_next_one(recordings, lost):
    entries = [entry for entry in recorded(recordings) if b"BCHSV-USDT" in entry.data[:400] or entry.kind == "http"]
    del entries[[i for i, entry in enumerate(entries) if is_change(entry)][lost]]
    played = Played(SYMBOLS[:1]).feed(entries)
    assert played.market.counts.gaps == 1 and played.market.valid_symbols == 0


def test_a_ticker_that_contradicts_the_book_invalidates_it(venue):
    market = Market(venue, Books.private(["BTC-USDT"], 64), ManualClock(10**18), seed=1)
    market.on_frame(frames.change(5, 5), 0)
    market.on_snapshot(0, frames.snapshot(4, [["9", "1"]], [["11", "2"]]), 0)
    market.on_frame(frames.ticker(5, ("9", "1"), ("11", "2")), 0)
    assert (market.counts.quote_checks, market.counts.quote_mismatches, market.valid_symbols) == (1, 0, 1)
    market.on_frame(frames.ticker(5, ("9", "1"), ("10", "2")), 0)
    assert (market.counts.quote_checks, market.counts.quote_mismatches, market.valid_symbols) == (2, 1, 0)


def test_prices_finer_than_eight_decimals_are_refused_by_name(recordings):
    played = Played(FINE)
    change = next(entry for entry in filter(is_change, recorded(recordings)) if b"DAPPT-BTC" in entry.data)
    played.market.on_frame(change.data, 0)
    assert played.market.counts.malformed == 1 and "more than 8 decimals" in played.market.refused[0].error
    body = next(entry.data for entry in recorded(recordings) if entry.name.endswith("/symbols"))
    with pytest.raises(VenueError, match="priceIncrement has more than 8 decimals"):
        played.venue.decode_precision(body)


def test_dust_finer_than_eight_decimals_far_from_the_best_prices_is_out_of_reach(recordings, venue):
    """It was recorded: a bid at 0.121, where the best is at 242.649."""
    body = next(entry.data for entry in recorded(recordings) if entry.name.endswith("level2?symbol=BCHSV-USDT"))
    with pytest.raises(VenueError, match="bids.quantity='0.00019434546'"):
        venue.decode_snapshot(0, body)
    assert venue.decode_snapshot(0, best_100(body)).n_bids == 100


def test_increments_are_read_from_the_recorded_answer(recordings):
    body = next(entry.data for entry in recorded(recordings) if entry.name.endswith("/symbols"))
    assert create("kucoin", ["BCHSV-USDT", "NO-SUCH"]).decode_precision(body) == {
        "BCHSV-USDT": Precision(ONE // 1000, 1)}


# ---- changes


@pytest.mark.parametrize(("first", "last", "verdict"), [
    (101, 101, JOINS), (101, 105, JOINS), (90, 101, JOINS), (100, 102, JOINS), (102, 103, GAP), (90, 100, OLDER),
    (50, 60, OLDER)])
def test_a_change_follows_that_begins_no_later_than_one_above_the_last(venue, first, last, verdict):
    delta, = venue.decode(frames.change(first, last))
    assert venue.follows(100, delta) == venue.bridges(100, delta) == verdict


@pytest.mark.parametrize("price", ["0", "0.0", "000", 0])
def test_a_level_without_a_price_changes_nothing_but_counts(venue, price):
    delta, = venue.decode(frames.change(5, 6, bids=[[price, "0", "5"], ["9", "1", "6"]], asks=[[price, "3", "6"]]))
    assert (delta.first_id, delta.last_id, delta.n_bids, delta.n_asks) == (5, 6, 1, 0)
    assert delta.levels.tolist() == [[9 * ONE, ONE]]


def test_bids_come_first_though_the_venue_tells_asks_first(venue):
    delta, = venue.decode(frames.change(5, 7, bids=[["9", "1", "5"]], asks=[["10", "2", "6"], ["11", "0", "7"]]))
    assert (delta.n_bids, delta.n_asks) == (1, 2) and delta.event_ns == (frames.MS + 7) * 10**6
    assert delta.levels[:, 0].tolist() == [9 * ONE, 10 * ONE, 11 * ONE]


def without(frame: bytes, *names: str) -> bytes:
    data = orjson.loads(frame)
    for name in names:
        data["data"].pop(name)
    return orjson.dumps(data)


def test_a_change_may_have_no_time(venue):
    assert venue.decode(without(frames.change(5, 6), "time"))[0].event_ns == 0


def test_trades_and_tickers_are_read(venue):
    assert venue.decode(frames.trade(5, "buy", "9.5", "0.25")) == (
        Trade(0, 10**15 + 5, frames.MS * 10**6 + 5, 95 * ONE // 10, ONE // 4),)
    assert venue.decode(frames.trade(5, "sell", "9.5", "0.25"))[0].qty == -ONE // 4
    assert venue.decode(frames.ticker(7, ("9", "1"), ("10", "0.5"))) == (Quote(0, 7, 9 * ONE, ONE, 10 * ONE, ONE // 2),)


@pytest.mark.parametrize("number", ["6085c09769bc506996295e36", "9" * 24, str(2**63), "", "\u0663"])
def test_the_id_of_a_trade_that_is_no_number_is_0(venue, number):
    message = orjson.loads(frames.trade(5, "buy", "9.5", "0.25"))
    message["data"]["tradeId"] = number
    assert venue.decode(orjson.dumps(message))[0].trade_id == 0


@pytest.mark.parametrize(("frame", "names"), [
    (frames.change(-1, 5), "sequenceStart"), (frames.change(1, 5, bids=[["1"]]), "bids: "),
    (frames.change(1, 5, asks=[["-1", "1", "1"]]), "asks.price"), (frames.change(1, 5, asks=["x"]), "asks: "),
    (without(frames.change(1, 5), "changes"), "changes"), (frames.trade(5, "BUY", "1", "1"), "side="),
    (frames.ticker(5, ("1", None), ("2", "1")), "bestBidSize"), (b'{"type":"surprise"}', "type="),
    (b'{"id":"1"}', "type")])
def test_what_is_wrong_is_refused_by_name(venue, frame, names):
    with pytest.raises(VenueError) as refusal:
        venue.decode(frame)
    assert names in refusal.value.where


@pytest.mark.parametrize(("frame", "level"), [
    (b'{"id":"NSkIrWGB1s","type":"welcome"}', "info"), (b'{"id":"1","type":"ack"}', "info"),
    (b'{"id":"1","type":"pong","timestamp":1760000000000000}', "info"),
    (b'{"id":"1","type":"error","code":404,"data":"topic /market/x is not found"}', "error"),
    (b'{"type":"message","topic":"/market/level2:OTHER-USDT","subject":"trade.l2update","data":{}}', "info"),
    (b'{"type":"message","topic":"/market/candles:BTC-USDT_1min","data":{}}', "info")])
def test_kucoin_notices(venue, frame, level):
    event, = venue.decode(frame)
    assert isinstance(event, Notice) and event.level == level
    assert level == "info" or event.text == "code=404, data='topic /market/x is not found'"


# ---- where it is, what we say


def bullet(token="2neAiuYv/+ A==", endpoint="wss://ws-api-spot.kucoin.com/", ping=20_000, servers=1) -> bytes:
    server = {"endpoint": endpoint, "encrypt": True, "protocol": "websocket", "pingInterval": ping,
              "pingTimeout": 10_000}
    return orjson.dumps({"code": "200000", "data": {"token": token, "instanceServers": [server] * servers}})


def test_the_place_the_token_and_the_pause_between_pings_are_asked_for(venue):
    assert venue.locate() == HttpRequest("POST", "/api/v1/bullet-public")
    assert venue.heartbeat().every_s == 18
    url = venue.located(bullet())
    assert url.startswith("wss://ws-api-spot.kucoin.com/?token=2neAiuYv%2F%2B%20A==&connectId=")
    assert venue.heartbeat().every_s == 20 and orjson.loads(venue.heartbeat().frame)["type"] == "ping"
    assert venue.located(bullet()) == url != venue.located(bullet(token="other"))


@pytest.mark.parametrize(("body", "names"), [
    (bullet(endpoint="https://example.com"), "endpoint="), (bullet(ping=0), "pingInterval"), (bullet(token=1), "token"),
    (bullet(servers=0), "instanceServers"), (b'{"code":"429000","msg":"Too Many Requests"}', "Too Many Requests"),
    (b"<html>", "<html>")])
def test_a_place_that_is_none_is_refused(venue, body, names):
    with pytest.raises(VenueError) as refusal:
        venue.located(body)
    assert names in refusal.value.where and venue.heartbeat().every_s == 18


def test_a_place_that_the_other_side_names_is_found(venue):
    assert venue.located(venue.encode_location("ws://127.0.0.1:8765/kucoin")).startswith(
        "ws://127.0.0.1:8765/kucoin?token=loopback&connectId=")


def test_one_request_for_each_channel_names_all_symbols():
    venue = create("kucoin", ["A-B", "C-D"])
    assert [orjson.loads(frame)["topic"] for frame in venue.subscriptions()] == [
        "/market/level2:A-B,C-D", "/market/match:A-B,C-D", "/market/ticker:A-B,C-D"]
    assert [venue.subscribed(frame) for frame in venue.subscriptions()] == [[0, 1], [], []]
    assert [venue.answer(frame) for frame in venue.subscriptions()] == [
        [b'{"id":"%d","type":"ack"}' % number] for number in (1, 2, 3)]
    assert venue.answer(venue.heartbeat().frame) == [b'{"id":"1","type":"pong"}']
    assert venue.subscribed(venue.heartbeat().frame) == []


def test_snapshots_come_from_where_no_key_is_needed(venue):
    assert venue.snapshot_request(0) == HttpRequest("GET", "/api/v1/market/orderbook/level2_100?symbol=BTC-USDT")
    assert venue.precision_request() == HttpRequest("GET", "/api/v2/symbols")
    with pytest.raises(VenueError, match="400001.*KC-API-KEY"):
        venue.decode_snapshot(0, b'{"code":"400001","msg":"Please check the header of your request for KC-API-KEY"}')


PRICES = st.lists(st.tuples(st.integers(1, 2**62), st.integers(0, 2**62)), max_size=5)


@settings(max_examples=50)
@given(bids=PRICES, asks=PRICES, number=st.integers(0, 2**62))
def test_any_snapshot_that_is_written_is_read_as_it_was(bids, asks, number):
    venue = create("kucoin", ["A", "B"])
    whole = Snapshot(1, number, 5 * 10**6, fields.stacked(bids + asks), len(bids), len(asks))
    found = venue.decode_snapshot(1, venue.encode_snapshot(whole))
    assert found[:3] + found[4:] == whole[:3] + whole[4:] and found.levels.tolist() == whole.levels.tolist()
