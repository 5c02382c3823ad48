"""What is particular to Deribit; what holds for every venue stands in test_venues.py."""

import orjson
import pytest

from common import fixed
from common.clock import ManualClock
from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Delta, Notice, Precision, Reply, Snapshot, Trade
from common.imports import sessions
from common.market import Market
from common.ring import Books
from common.venues import create
from tests.common.venues.samples.deribit import SYMBOL, answer, book, heartbeat, notification, trade, trades

ONE = fixed.SCALE
BOTH = ["book.BTC-PERPETUAL.100ms", "trades.BTC-PERPETUAL.100ms"]


@pytest.fixture
def venue():
    return create("deribit", [SYMBOL])


@pytest.fixture(scope="module")
def session(recordings):
    return sessions.entries(recordings / "venues_ws" / "DERIBIT.jsonl.zst")


@pytest.fixture(scope="module")
def symbols(session):
    asked, = [orjson.loads(entry.data)["params"]["channels"] for entry in session if entry.kind == "send"]
    return [channel.split(".")[1] for channel in asked if channel.startswith("book.")]


def played(symbols, frames) -> Market:
    market = Market(create("deribit", symbols), Books.private(symbols, 256), ManualClock(frames[0][0]), seed=0)
    market.begin()
    market.on_connect(frames[0][0])
    for recv_ns, frame in frames:
        market.on_frame(frame, recv_ns)
    return market


# ---- what is sent


def test_heartbeats_are_set_and_channels_asked_for_that_need_no_login():
    venue = create("deribit", ["A-1", "B_USDC"])
    assert venue.path() == "/ws/api/v2"
    assert [orjson.loads(frame) for frame in venue.subscriptions()] == [
        {"jsonrpc": "2.0", "id": 1, "method": "public/set_heartbeat", "params": {"interval": 10}},
        {"jsonrpc": "2.0", "id": 3, "method": "public/subscribe", "params": {"channels": [
            "book.A-1.100ms", "trades.A-1.100ms", "book.B_USDC.100ms", "trades.B_USDC.100ms"]}}]


def test_each_request_has_an_id_of_its_own():
    venue = create("deribit", ["A", "B", "C"])
    requests = [orjson.loads(frame) for frame in (*venue.subscriptions(), *venue.resync(0), *venue.resync(1),
                                                  *venue.resync(2), venue.decode(heartbeat("test_request"))[0].frame)]
    assert len({request["id"] for request in requests}) == len(requests)


def test_one_book_is_asked_for_anew_by_leaving_and_joining_its_channel():
    leave, join = map(orjson.loads, create("deribit", ["A", "B"]).resync(1))
    assert leave["method"] == "public/unsubscribe" and join["method"] == "public/subscribe"
    assert leave["params"] == join["params"] == {"channels": ["book.B.100ms"]}


def test_a_test_request_is_answered(venue):
    reply, = venue.decode(heartbeat("test_request"))
    assert isinstance(reply, Reply)
    assert orjson.loads(reply.frame) == {"jsonrpc": "2.0", "id": 2, "method": "public/test", "params": {}}
    said, = venue.answer(reply.frame)
    assert venue.decode(said)[0].level == "info"


def test_the_market_sends_the_answer_to_a_test_request(venue):
    market = played([SYMBOL], [(10**18, heartbeat("test_request"))])
    assert [orjson.loads(frame)["method"] for frame in market.outbox] == ["public/test"]


def test_the_other_side_writes_numbers_that_no_float_rounds(venue):
    levels = fixed.parse("123456789.12345678"), 1
    said = venue.encode_snapshot(Snapshot(0, 7, 10**18, venue.decode(book("snapshot", 1, asks=[("new", 1, 1)]))[
        0].levels * 0 + levels, 0, 1))
    assert b'"asks":[["new",123456789.12345678,0.00000001]]' in said
    assert venue.decode(said)[0].levels.tolist() == [list(levels)]


# ---- books


def test_a_book_and_its_changes(venue):
    whole, = venue.decode(book("snapshot", 900, bids=[("new", 50000.5, 10.0)], asks=[("new", 50001, 2)]))
    assert whole[:3] == (0, 900, 1_700_000_000_123_000_000) and (whole.n_bids, whole.n_asks) == (1, 1)
    assert whole.levels.tolist() == [[500005 * ONE // 10, 10 * ONE], [50001 * ONE, 2 * ONE]]
    delta, = venue.decode(book("change", 905, 900, asks=[("delete", 50001.0, 0.0), ("change", 0.0001, 1e-05)]))
    assert isinstance(delta, Delta) and delta[:5] == (0, 905, 905, 900, whole.event_ns)
    assert delta.levels.tolist() == [[50001 * ONE, 0], [ONE // 10000, ONE // 100000]] and delta[6:8] == (0, 2)


def test_what_is_deleted_is_gone_whatever_its_amount(venue):
    assert venue.decode(book("change", 2, 1, bids=[("delete", 5.0, 7.0)]))[0].levels.tolist() == [[5 * ONE, 0]]


@pytest.mark.parametrize("interval", ["raw", "100ms", "agg2"])
def test_books_and_trades_of_every_interval_are_read(venue, interval):
    assert isinstance(venue.decode(book("change", 2, 1, interval=interval))[0], Delta)
    assert isinstance(venue.decode(trades(trade("1", 1, 1, "buy"), interval=interval))[0], Trade)


@pytest.mark.parametrize(("before", "number", "verdict"), [
    (100, 105, JOINS), (101, 105, GAP), (105, 110, GAP), (90, 100, OLDER), (80, 90, OLDER), (99, 101, GAP)])
def test_a_change_names_the_one_before(venue, before, number, verdict):
    delta, = venue.decode(book("change", number, before))
    assert venue.follows(100, delta) == venue.bridges(100, delta) == verdict


# ---- trades


def test_the_direction_of_a_trade_is_that_of_the_aggressor(venue):
    found = venue.decode(trades(trade("48079269", 50001.5, 30.0, "buy"), trade("ETH-34066065", 0.0005, 0.1, "sell")))
    time = 1_700_000_000_456_000_000
    assert found == [Trade(0, 48079269, time, 500015 * ONE // 10, 30 * ONE),
                     Trade(0, 34066065, time, ONE // 2000, -ONE // 10)]


@pytest.mark.parametrize("number", ["", "ETH-", "x7", "9" * 19, "9" * 30, "\u0663"])
def test_a_trade_whose_id_is_no_number_is_still_a_trade(venue, number):
    assert venue.decode(trades(trade(number, 1, 1, "buy")))[0].trade_id == 0


def test_a_block_trade_is_none_of_the_book(venue):
    assert venue.decode(trades(trade("1", 1, 1, "buy", block_trade_id="154"))) == [
        Notice("info", "not of the book: block_trade_id='154'")]


# ---- notices and errors

RAW = ('{"jsonrpc":"2.0","id":3,"error":{"message":"raw_subscriptions_not_available_for_unauthorized","code":13778},'
       '"testnet":false}').encode()


@pytest.mark.parametrize(("frame", "notice"), [
    (heartbeat("heartbeat"), Notice("info", "heartbeat")),
    (answer(1, "ok"), Notice("info", "id=1, result='ok'")),
    (answer(3, BOTH[::-1]), Notice("info", f"id=3, result={BOTH[::-1]!r}")),
    (answer(3, BOTH[:1]), Notice("error", f"no such channel: {BOTH[1:]!r}")),
    (answer(3, []), Notice("error", f"no such channel: {BOTH!r}")),
    (answer(4, []), Notice("info", "id=4, result=[]")),
    (answer(5, BOTH[:1]), Notice("info", f"id=5, result={BOTH[:1]!r}")),
    (answer(5, []), Notice("error", f"no such channel: {BOTH[:1]!r}")),
    (answer(7, []), Notice("info", "id=7, result=[]")),
    (answer("another's", {}), Notice("info", "id=\"another's\", result={}")),
    (RAW, Notice("error", "id=3, code=13778, message='raw_subscriptions_not_available_for_unauthorized', data=None")),
    (b'{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params","data":{"param":"channels"}}}',
     Notice("error", "id=None, code=-32602, message='Invalid params', data={'param': 'channels'}")),
    (notification("ticker.BTC-PERPETUAL.100ms", {}), Notice("info", "not asked for: channel="
                                                                   "'ticker.BTC-PERPETUAL.100ms'")),
    (notification("book.BTC-PERPETUAL.none.20.100ms", {}), Notice("info", "not asked for: channel="
                                                                       "'book.BTC-PERPETUAL.none.20.100ms'")),
    (book("change", 2, 1, symbol="A"), Notice("info", "not asked for: channel='book.A.100ms'")),
    (trades(symbol="A"), Notice("info", "not asked for: channel='trades.A.100ms'")),
    (b'{"jsonrpc":"2.0","method":"news","params":{}}', Notice("info", "not asked for: method='news'"))])
def test_deribit_notices(venue, frame, notice):
    assert list(venue.decode(frame)) == [notice]


@pytest.mark.parametrize(("frame", "named"), [
    (b'{"id":1}', "result in"), (answer(3, "ok"), "result='ok'"), (book("update", 2, 1), "type='update'"),
    (book("change", 2), "prev_change_id in"), (book("snapshot", -1), "change_id=-1"),
    (book("change", 2, 1, bids=[("drop", 1, 1)]), "bids: ['drop', 1, 1]"),
    (book("change", 2, 1, asks=[(1, 1)]), "asks: [1, 1]"), (book("change", 2, 1, asks=[None]), "asks: None"),
    (book("change", 2, 1, asks=[("new", 0, 1)]), "asks.price=0"),
    (book("change", 2, 1, bids=[("new", 1, -0.5)]), "bids.quantity=Decimal('-0.5')"),
    (book("change", 2, 1, bids=[("new", 1e-09, 1)]), "bids.price='1E-9'"),
    (book("change", 2, 1, bids=[("new", True, 1)]), "bids.price=True"),
    (trades(trade("1", 1, 1, "zero")), "direction='zero'"), (trades(trade(1, 1, 1, "buy")), "trade_id=1"),
    (notification("trades.BTC-PERPETUAL.100ms", {}), "data={}"),
    (b'{"method":"heartbeat","params":[]}', "params=[]")])
def test_deribit_errors_name_field_and_value(venue, frame, named):
    with pytest.raises(VenueError) as refusal:
        venue.decode(frame)
    assert named in refusal.value.where


# ---- increments


def test_the_recorded_answers_have_the_increments_of_all(symbols, session):
    venue, found = create("deribit", [*symbols, "BTC-PERPETUAL", "UNI_USDC-PERPETUAL"]), {}
    assert venue.precision_request().path == "/api/v2/public/get_instruments?currency=any&expired=false"
    for entry in session:
        if entry.kind == "http":
            found |= venue.decode_precision(entry.data)
    assert found == {symbol: Precision(ONE // 2000, ONE // 10 if symbol.startswith("BTC") else ONE)
                     for symbol in symbols} | {"BTC-PERPETUAL": Precision(ONE // 2, 10 * ONE),
                                               "UNI_USDC-PERPETUAL": Precision(ONE // 1000, ONE)}


def test_the_tick_is_the_finest_of_an_instrument(venue):
    body = ('{"result":[{"instrument_name":"BTC-PERPETUAL","min_trade_amount":0.1,"tick_size":0.0001,'
            '"tick_size_steps":[{"above_price":0.005,"tick_size":0.0005}]}]}')
    assert venue.decode_precision(body.encode()) == {SYMBOL: Precision(ONE // 10000, ONE // 10)}


# ---- the recorded session: ten options, raw channels


def test_the_recorded_session_has_no_gap(symbols, session):
    frames = [(entry.recv_ns, entry.data) for entry in session if entry.kind == "recv"]
    market = played(symbols, frames)
    counts = market.counts
    assert (counts.frames, counts.snapshots, counts.ticks) == (136, 10, 10 + 36) and market.valid_symbols == 10
    assert counts.gaps == counts.crossed == counts.malformed == counts.venue_errors == 0


def test_the_recorded_tickers_tell_the_tops_of_our_books(symbols, session):
    """What the venue says of best prices at the time of a change."""
    names = "best_bid_price", "best_bid_amount", "best_ask_price", "best_ask_amount"
    frames = [(entry.recv_ns, entry.data) for entry in session if entry.kind == "recv"]
    told = {}
    for _, frame in frames:
        data = orjson.loads(frame).get("params", {})
        if data.get("channel", "").startswith("ticker."):
            its = data["data"]
            told[its["instrument_name"], its["timestamp"]] = tuple(fixed.parse(str(its[name])) for name in names)
    market, checked = played(symbols, frames[:1]), 0
    for recv_ns, frame in frames[1:]:
        market.on_frame(frame, recv_ns)
        data = orjson.loads(frame)["params"]["data"]
        if "change_id" in data and (data["instrument_name"], data["timestamp"]) in told:
            its = market.symbols[symbols.index(data["instrument_name"])].book
            top = (*(its.bids(1) or [(0, 0)])[0], *(its.asks(1) or [(0, 0)])[0])
            assert top == told[data["instrument_name"], data["timestamp"]]
            checked += 1
    assert checked >= 30


def test_a_recorded_change_that_is_missing_is_a_gap_and_asks_for_that_book_alone(symbols, session):
    frames = [(entry.recv_ns, entry.data) for entry in session if entry.kind == "recv"]
    name = max(symbols, key=lambda symbol: sum(f'"book.{symbol}.raw"'.encode() in frame for _, frame in frames))
    changes = [i for i, (_, frame) in enumerate(frames)
               if f'"book.{name}.raw"'.encode() in frame and b'"change"' in frame]
    for missing in changes[:-1]:
        market = played(symbols, frames[:missing] + frames[missing + 1:])
        assert market.counts.gaps == 1 and market.valid_symbols == 9
        market._clock.set(frames[-1][0] + 10**9)
        market.work()
        assert [orjson.loads(frame)["params"]["channels"] for frame in market.outbox] == \
            [[f"book.{name}.100ms"]] * 2
