"""What is particular to Binance; what holds for every venue stands in test_venues.py."""

import itertools
from collections import Counter

import orjson
import pytest

from common import captures, fixed
from common.clock import ManualClock
from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Notice, Precision, Quote, Snapshot, Trade
from common.imports import sessions
from common.market import Market
from common.ring import Books
from common.venues import create, fields
from tests import frames as vectrade

ONE = fixed.SCALE
FUTURES = ("binance-usdm", "binance-coinm")


# ---- recordings of coin-m


def market(venue, capacity: int = 1024) -> Market:
    return Market(venue, Books.private(venue.symbols, capacity), ManualClock(10**18), seed=1)


def replayed(recordings, frames) -> Market:
    played = market(create("binance-coinm", ["BTCUSD_PERP"]))
    for recv_ns, frame in frames:
        if captures.is_snapshot(frame):
            played.on_snapshot(0, frame, recv_ns)
        else:
            played.on_frame(frame, recv_ns)
    return played


def coin(recordings, *days: str):
    return captures.read([recordings / "binance" / f"cm_btcusd_perp_{day}.gz" for day in days])


def test_recorded_coinm_books_agree_with_every_quote_of_the_same_update(recordings):
    played = replayed(recordings, coin(recordings, "20240808", "20240809"))
    counts = played.counts
    assert (counts.quote_checks, counts.quote_mismatches) == (1885, 0)
    assert counts.gaps == counts.crossed == counts.malformed == counts.resyncs == counts.venue_errors == 0
    assert counts.snapshots == 1 and played.valid_symbols == 1
    played.symbols[0].book._check()


@pytest.mark.parametrize("lost", [100, 150, 250])
def test_a_coinm_update_that_is_lost_is_found_by_the_next_one(recordings, lost):
    frames = list(itertools.islice(coin(recordings, "20240808"), 1000))
    del frames[[i for i, (_, frame) in enumerate(frames) if b"depthUpdate" in frame][lost]]
    assert replayed(recordings, frames).counts.gaps == 1


def test_templates_take_every_frame_of_the_coinm_recordings(recordings):
    venue = create("binance-coinm", ["BTCUSD_PERP"])
    kinds = Counter(venue._scanner.match(frame)[0] for _, frame in coin(recordings, "20240808", "20240809"))
    assert kinds == {0: 19136 + 29219, 1: 2286 + 2949, 2: 26847 + 17948, 3: 1}


def session(recordings, name: str) -> list[sessions.Entry]:
    return sessions.entries(recordings / "venues_ws" / f"{name}.jsonl.zst")


def test_a_recorded_session_of_many_coinm_symbols_joins_all_its_snapshots(recordings):
    """Ten symbols on one connection, each snapshot given at its time, once asked for."""
    entries = session(recordings, "BINANCE_DELIVERY")
    symbols = sorted({entry.name.partition("symbol=")[2].partition("&")[0] for entry in entries
                      if entry.kind == "http" and "/depth?" in entry.name})
    venue = create("binance-coinm", symbols)
    verdicts = Counter()
    for rule in ("bridges", "follows"):
        def spied(last_id, delta, rule=rule, asked=getattr(venue, rule)):
            verdict = asked(last_id, delta)
            verdicts[rule, verdict] += 1
            return verdict

        setattr(venue, rule, spied)
    played = market(venue)
    for entry in entries:
        played._clock.set(max(entry.recv_ns, 10**18))
        if entry.kind == "recv":
            played.on_frame(entry.data, entry.recv_ns)
            played.work()
        elif entry.kind == "http" and "/depth?" in entry.name:
            symbol = symbols.index(entry.name.partition("symbol=")[2].partition("&")[0])
            played.wants_snapshot.remove(symbol)
            played.on_snapshot(symbol, entry.data, entry.recv_ns)
    assert verdicts == {("bridges", OLDER): 259, ("bridges", JOINS): 10, ("follows", JOINS): 1778}
    counts = played.counts
    assert counts.gaps == counts.crossed == counts.malformed == counts.quote_mismatches == counts.venue_errors == 0
    assert played.valid_symbols == counts.snapshots == len(symbols) and counts.quote_checks == 213


# ---- where it is


def test_binance_puts_its_streams_into_the_path():
    assert create("binance-usdm", ["BTCUSDT"]).path() == \
        "/stream?streams=btcusdt@depth@0ms/btcusdt@bookTicker/btcusdt@trade"
    assert create("binance-spot", ["A", "B"]).path() == (
        "/stream?streams=a@depth@100ms/a@bookTicker/a@trade/b@depth@100ms/b@bookTicker/b@trade")
    assert create("binance-usdm", ["BTCUSDT"]).snapshot_request(0)[:2] == (
        "GET", "/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
    assert create("binance-spot", ["BTCUSDT"]).snapshot_request(0).path == "/api/v3/depth?symbol=BTCUSDT&limit=1000"
    coin = create("binance-coinm", ["BTCUSD_PERP"])
    assert coin.path() == "/stream?streams=btcusd_perp@depth@0ms/btcusd_perp@bookTicker/btcusd_perp@trade"
    assert coin.snapshot_request(0).path == "/dapi/v1/depth?symbol=BTCUSD_PERP&limit=1000"


@pytest.mark.parametrize(("name", "streams"), [("binance-usdm", 200), ("binance-coinm", 200), ("binance-spot", 1024)])
def test_a_connection_has_no_more_streams_than_the_venue_allows(name, streams):
    path = create(name, [str(i) for i in range(create(name, ()).max_symbols)]).path()
    assert streams - 3 < path.partition("=")[2].count("/") + 1 <= streams


# ---- rules of joining


@pytest.mark.parametrize(("first", "last", "before", "verdict"), [
    (90, 99, 80, OLDER), (90, 100, 80, JOINS), (100, 110, 90, JOINS), (90, 110, 80, JOINS), (101, 110, 99, GAP),
    (105, 110, 100, JOINS)])
@pytest.mark.parametrize("name", FUTURES)
def test_the_first_futures_delta_contains_the_snapshot(name, first, last, before, verdict):
    venue = create(name, ["A"])
    assert venue.bridges(100, venue.decode(vectrade.depth("A", first, last, before))[0]) == verdict


@pytest.mark.parametrize(("first", "last", "before", "verdict"), [
    (105, 110, 100, JOINS), (101, 110, 99, GAP), (105, 110, 101, GAP), (90, 100, 80, OLDER), (80, 90, 70, OLDER)])
@pytest.mark.parametrize("name", FUTURES)
def test_any_later_futures_delta_names_the_one_before(name, first, last, before, verdict):
    venue = create(name, ["A"])
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


# ---- frames


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
@pytest.mark.parametrize("name", FUTURES)
def test_binance_notices(name, frame, level):
    event, = create(name, ["A"]).decode(frame)
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


COIN_QUOTE = (b'{"stream":"a_perp@bookTicker","data":{"u":9,"e":"bookTicker","s":"A_PERP","ps":"A","b":"5","B":"12",'
              b'"a":"6","A":"3","T":1,"E":2}}')


@pytest.mark.parametrize("frame", [COIN_QUOTE, COIN_QUOTE.replace(b'"ps":"A",', b""),
                                   COIN_QUOTE.replace(b'"ps":"A"', b'"ps":null')])
def test_the_pair_of_a_coinm_frame_is_not_needed(frame):
    assert create("binance-coinm", ["A_PERP"]).decode(frame) == (Quote(0, 9, 5 * ONE, 12 * ONE, 6 * ONE, 3 * ONE),)


@pytest.mark.parametrize("name", [*FUTURES, "binance-spot"])
def test_a_snapshot_that_is_written_fits_the_template_of_those_that_are_read(name):
    venue = create(name, ["A_PERP", "B_PERP"])
    whole = Snapshot(1, 9, 5 * 10**6, fields.stacked([(5 * ONE, ONE), (6 * ONE, ONE)]), 1, 1)
    body = venue.encode_snapshot(whole)
    assert venue._scanner.match(body)[0] == 3
    assert venue.decode_snapshot(1, body)[:2] == (1, 9)
    assert (b'"symbol":"B_PERP","pair":"B"' in body) == (name == "binance-coinm")


# ---- increments


@pytest.mark.parametrize(("name", "recording", "symbol", "tick", "lot"), [
    ("binance-usdm", "BINANCE_FUTURES", "BTCUSDT", "0.01", "0.001"),
    ("binance-coinm", "BINANCE_DELIVERY", "BTCUSD_PERP", "0.1", "1"),
    ("binance-spot", "BINANCE", "BTCUSDT", "0.01", "0.00001")])
def test_increments_are_read_from_the_recorded_answer(recordings, name, recording, symbol, tick, lot):
    body, = (entry.data for entry in session(recordings, recording) if entry.name.endswith("/exchangeInfo"))
    assert create(name, [symbol, "NOSUCH"]).decode_precision(body) == {
        symbol: Precision(fixed.parse(tick), fixed.parse(lot))}


def test_increments_are_asked_for_where_they_are_told():
    assert [create(name, ["A", "B"]).precision_request().path for name in (*FUTURES, "binance-spot")] == [
        "/fapi/v1/exchangeInfo", "/dapi/v1/exchangeInfo", "/api/v3/exchangeInfo?symbols=%5B%22A%22,%22B%22%5D"]


def test_what_is_not_told_of_an_increment_is_0_and_what_is_wrong_is_refused():
    venue = create("binance-usdm", ["A"])
    assert venue.decode_precision(b'{"symbols":[{"symbol":"A","filters":[]}]}') == {"A": Precision(0, 0)}
    for body, name in ((b'{"code":-1121,"msg":"Invalid symbol."}', "symbols"), (b'{"symbols":[{}]}', "symbol"),
                       (b'{"symbols":[{"symbol":"A","filters":[{"filterType":"LOT_SIZE"}]}]}', "stepSize")):
        with pytest.raises(VenueError, match=name):
            venue.decode_precision(body)
