"""What is particular to Coinbase; what holds for every venue stands in test_venues.py."""

import orjson
import pytest

from common import fixed
from common.clock import ManualClock
from common.errors import VenueError
from common.events import ALL, JOINS, OLDER, Delta, Lost, Notice, Precision, Snapshot, Trade
from common.imports import sessions
from common.market import Market, State
from common.ring import Books
from common.venues import create
from tests.common.venues.samples.coinbase import book, change, heartbeat, message, trade, trades

ONE = fixed.SCALE
SYMBOLS = ("BTC-USD", "ETH-USD")
TIME = 1_767_323_045_100_000_000  #: event_time of `change`
WHOLE = book(10, ("bid", "100", "1"), ("offer", "101", "2"), kind="snapshot")


@pytest.fixture
def venue():
    return create("coinbase", SYMBOLS)


@pytest.fixture
def market(venue):
    """Has the books of both symbols, at number 11."""
    market = Market(venue, Books.private(venue.symbols, 4096), ManualClock(10**18), seed=0)
    market.begin()
    market.on_connect(10**18)
    for frame in (WHOLE, book(11, ("bid", "9", "1"), ("offer", "10", "2"), symbol="ETH-USD", kind="snapshot")):
        market.on_frame(frame, 10**18)
    assert market.valid_symbols == 2
    return market


@pytest.fixture(scope="module")
def session(recordings):
    return sessions.entries(recordings / "venues_ws" / "COINBASE.jsonl.zst")


@pytest.fixture(scope="module")
def frames(session):
    return [(entry.recv_ns, entry.data) for entry in session if entry.kind == "recv"]


def played(frames) -> Market:
    market = Market(create("coinbase", SYMBOLS), Books.private(SYMBOLS, 4096), ManualClock(frames[0][0]), seed=0)
    market.begin()
    market.on_connect(frames[0][0])
    for recv_ns, frame in frames:
        market.on_frame(frame, recv_ns)
    return market


# ---- what is sent


def test_each_channel_is_asked_for_by_itself_and_heartbeats_first(venue):
    assert [orjson.loads(frame) for frame in venue.subscriptions()] == [
        {"type": "subscribe", "channel": "heartbeats"},
        {"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USD", "ETH-USD"]},
        {"type": "subscribe", "channel": "level2", "product_ids": ["BTC-USD", "ETH-USD"]}]


def test_one_book_is_asked_for_anew_by_leaving_and_joining_its_channel(venue):
    assert [orjson.loads(frame) for frame in venue.resync(1)] == [
        {"type": action, "channel": "level2", "product_ids": ["ETH-USD"]} for action in ("unsubscribe", "subscribe")]


def test_the_other_side_acknowledges_what_it_is_asked_for(venue):
    asked = [*venue.subscriptions(), *venue.resync(0)]
    answers = [orjson.loads(answer) for frame in asked for answer in venue.answer(frame)]
    assert [answer["events"][0]["subscriptions"] for answer in answers] == [
        {"heartbeats": ["heartbeats"]}, {"market_trades": ["BTC-USD", "ETH-USD"]}, {"level2": ["BTC-USD", "ETH-USD"]},
        {}, {"level2": ["BTC-USD"]}]
    assert [venue.subscribed(frame) for frame in asked] == [[], [], [0, 1], [], [0]]


def test_what_the_other_side_says_by_itself_stands_outside_the_count(venue, market):
    """A playback has a count of its own, which must not be disturbed."""
    whole = venue.encode_snapshot(venue.decode(book(12, ("bid", "7", "3"), kind="snapshot"))[0])
    assert isinstance(venue.decode(whole)[0], Snapshot)
    assert market.on_frame(whole, 10**18) == 1 and market.symbols[0].book.bids() == [(7 * ONE, 3 * ONE)]
    assert market.on_frame(book(13, ("bid", "7", "4")), 10**18) == 1
    assert market.counts.lost == market.counts.gaps == 0


# ---- books


def test_a_book_and_its_changes(venue):
    whole, = venue.decode(WHOLE)
    assert whole[:3] == (0, 10, TIME) and whole.levels.tolist() == [[100 * ONE, ONE], [101 * ONE, 2 * ONE]]
    delta, = venue.decode(book(11, ("offer", "101", "0"), ("bid", "99.5", "0.00000001"), symbol="ETH-USD"))
    assert isinstance(delta, Delta) and delta[:5] == (1, 11, 11, 0, TIME)
    assert delta.levels.tolist() == [[9950 * ONE // 100, 1], [101 * ONE, 0]] and delta[6:8] == (1, 1)


def test_one_message_may_change_several_books_and_one_of_them_twice(market):
    market.on_frame(message("l2_data", 12, change(("bid", "100", "3")), change(("bid", "100.5", "1")),
                            change(("offer", "10", "9"), symbol="ETH-USD")), 10**18)
    assert market.symbols[0].book.bids() == [(1005 * ONE // 10, ONE), (100 * ONE, 3 * ONE)]
    assert market.symbols[1].book.asks() == [(10 * ONE, 9 * ONE)]
    assert market.counts.ignored == market.counts.gaps == 0


def test_a_message_without_levels_has_its_own_time(venue):
    delta, = venue.decode(book(1))
    assert delta.event_ns == 1_767_323_045_123_456_789 and (delta.n_bids, delta.n_asks) == (0, 0)


def test_numbers_instead_of_texts_are_read_exactly(venue):
    text = WHOLE.replace(b'"100"', b"123456789.12345678").replace(b'"101"', b"223456789")
    assert venue.decode(text)[0].levels.tolist() == [[12345678912345678, ONE], [22345678900000000, 2 * ONE]]


@pytest.mark.parametrize("price", ['100","1"],["99', "1e2", "+100", '"', "\u0661"])
def test_what_the_fast_reading_of_levels_does_not_take_is_read_again(venue, price):
    frame = book(1, ("bid", price, "1"))
    if price in ("1e2", "+100"):
        assert venue.decode(frame)[0].levels.tolist() == [[100 * ONE, ONE]]
    else:
        with pytest.raises(VenueError, match="updates.price"):
            venue.decode(frame)


# ---- the count


def test_a_hole_in_the_count_loses_every_book(market):
    assert market.on_frame(heartbeat(13), 10**18) == 2
    assert market.counts.lost == 1 and market.valid_symbols == 0
    market._clock.set(10**18 + 10**9)
    market.work()
    assert [orjson.loads(frame)["type"] for frame in market.outbox] == ["unsubscribe", "subscribe"] * 2
    market.on_frame(book(14, ("bid", "100", "1"), kind="snapshot"), 10**18)
    assert [symbol.state for symbol in market.symbols] == [State.VALID, State.WAITING] and market.counts.lost == 1


def test_a_snapshot_right_after_a_hole_is_good(venue):
    venue.decode(heartbeat(7))
    lost, whole = venue.decode(WHOLE)
    assert lost == Lost(ALL, "sequence_num=10 came after 7") and isinstance(whole, Snapshot)


@pytest.mark.parametrize("number", [9, 10, 11])
def test_a_number_that_has_been_passed_is_never_read_again(market, number):
    found = market._venue.decode(book(number, ("bid", "100", "5")))
    assert found == (Notice("info", f"came before: sequence_num={number}, the newest is 11"),)
    assert market._venue.decode(trades(number, trade(1, "1", "1", "BUY")))[0].level == "info"
    assert not isinstance(market._venue.decode(heartbeat(12))[0], Lost)


def test_what_comes_late_is_lost_and_not_applied(market):
    market.on_frame(book(13, ("bid", "100", "5")), 10**18)
    assert market.counts.lost == 1 and market.valid_symbols == 0
    market.on_frame(book(12, ("bid", "100", "5")), 10**18)
    assert market.counts.lost == 1 and market.valid_symbols == 0


def test_the_count_is_that_of_a_connection(venue):
    venue.decode(heartbeat(7))
    venue.begin()
    assert venue.decode(heartbeat(0)) == (Notice("info", "heartbeat"),)
    assert venue.decode(heartbeat(1)) == (Notice("info", "heartbeat"),)


def test_a_refused_change_of_a_book_is_a_hole_and_any_other_refused_message_is_none(venue):
    venue.decode(WHOLE)
    with pytest.raises(VenueError):
        venue.decode(trades(11, trade(1, "1", "1", "UP")))
    assert not isinstance(venue.decode(heartbeat(12))[0], Lost)
    with pytest.raises(VenueError):
        venue.decode(book(13, ("bid", "100", "-5")))
    assert isinstance(venue.decode(heartbeat(14))[0], Lost)


def test_a_hole_before_a_refused_message_is_still_a_hole(venue):
    venue.decode(WHOLE)
    with pytest.raises(VenueError):
        venue.decode(trades(12, trade(1, "1", "1", "UP")))
    assert isinstance(venue.decode(heartbeat(13))[0], Lost)


def test_the_ids_of_changes_rise(venue):
    delta, = venue.decode(book(20))
    assert [venue.follows(last, delta) for last in (0, 19, 20, 21)] == [JOINS, JOINS, JOINS, OLDER]
    assert venue.bridges(10, delta) == JOINS


# ---- trades


def test_the_side_of_a_trade_is_that_of_the_maker_and_the_oldest_comes_first(venue):
    found = venue.decode(trades(1, trade(9, "101", "0.5", "SELL"), trade(8, "100", "2", "BUY", "ETH-USD")))
    time = TIME + 150_000_000
    assert found == [Trade(1, 8, time, 100 * ONE, -2 * ONE), Trade(0, 9, time, 101 * ONE, ONE // 2)]


def test_a_trade_whose_id_is_no_number_is_still_a_trade(venue):
    assert venue.decode(trades(1, trade("7f3a-1", "1", "1", "SELL")))[0].trade_id == 0


# ---- notices and errors


@pytest.mark.parametrize(("frame", "notice"), [
    (heartbeat(1), Notice("info", "heartbeat")),
    (message("subscriptions", 1, {"subscriptions": {}}), Notice("info", "subscriptions: [{'subscriptions': {}}]")),
    (message("candles", 1, {"type": "update"}), Notice("info", "not asked for: channel='candles'")),
    (book(1, symbol="A-B"), Notice("info", "not asked for: product_id='A-B'")),
    (trades(1, trade(1, "1", "1", "BUY", "A-B")), Notice("info", "not asked for: product_id='A-B'")),
    (trades(1, trade(1, "1", "1", "BUY"), kind="snapshot"), Notice("info", "trades of before: 1")),
    (b'{"type":"error","message":"no such product"}', Notice("error", "'no such product'"))])
def test_coinbase_notices(venue, frame, notice):
    assert list(venue.decode(frame)) == [notice]


@pytest.mark.parametrize(("frame", "named"), [
    (b'{"type":"hello"}', "type='hello'"), (b'{"type":"error"}', "message in"),
    (book(1, kind="delta"), "type='delta'"), (trades(1, kind="delta"), "type='delta'"),
    (book(1, ("ask", "1", "1")), "side='ask'"), (trades(1, trade(1, "1", "1", "bid")), "side='bid'"),
    (book(1, ("bid", "0", "1")), "updates.price='0'"), (book(1, ("bid", "1", "-1")), "updates.quantity='-1'"),
    (book(1, ("bid", "0.000000001", "1")), "updates.price='0.000000001'"),
    (trades(1, trade(1, "1", "1e30", "BUY")), "size='1e30'"),
    (message("l2_data", 1, {"type": "update", "product_id": "BTC-USD"}), "updates in"),
    (b'{"channel":"l2_data","timestamp":"2026-01-02T03:04:05Z","events":[{"type":"update","product_id":"BTC-USD",'
     b'"updates":[]}]}', "sequence_num in"),
    (b'{"channel":"heartbeats","sequence_num":"1"}', "sequence_num='1'")])
def test_coinbase_errors_name_field_and_value(venue, frame, named):
    with pytest.raises(VenueError) as refusal:
        venue.decode(frame)
    assert named in refusal.value.where


# ---- increments


def test_increments_are_asked_for_by_name(venue):
    assert venue.precision_request().path == \
        "/api/v3/brokerage/market/products?product_ids=BTC-USD&product_ids=ETH-USD"
    with pytest.raises(VenueError, match="price_increment"):
        venue.decode_precision(b'{"products":[{"product_id":"BTC-USD","base_increment":"1"}]}')


def test_the_recorded_answer_has_the_increments_of_both(venue, session):
    body, = [entry.data for entry in session if entry.kind == "http"]
    assert venue.decode_precision(body) == {symbol: Precision(ONE // 100, 1) for symbol in SYMBOLS}


# ---- the recorded session: 1,030 messages without a hole, 775 of them of two books


def test_the_recorded_session_has_no_hole_and_no_crossed_book(frames):
    market = played(frames)
    counts = market.counts
    assert (counts.frames, counts.snapshots, counts.trades) == (1030, 2, 78) and market.valid_symbols == 2
    assert counts.ticks == 775 + 78
    assert counts.lost == counts.gaps == counts.crossed == counts.malformed == counts.venue_errors == 0
    for symbol in market.symbols:
        symbol.book._check()


def test_the_recorded_books_are_those_of_a_plain_reference(frames):
    """Every level of both, kept in dictionaries from the JSON itself."""
    sides: dict = {}
    for _, frame in frames:
        data = orjson.loads(frame)
        for event in data["events"] if data["channel"] == "l2_data" else ():
            for update in event["updates"]:
                side = sides.setdefault((event["product_id"], update["side"]), {})
                price, quantity = (fixed.parse(update[name]) for name in ("price_level", "new_quantity"))
                side[price] = quantity
                if not quantity:
                    del side[price]
    market = played(frames)
    for symbol in market.symbols:
        bids, asks = (sides[symbol.name, side] for side in ("bid", "offer"))
        assert symbol.book.bids(10**6) == sorted(bids.items(), reverse=True) and len(bids) > 6000
        assert symbol.book.asks(10**6) == sorted(asks.items()) and len(asks) > 16000


def test_recorded_buyers_lift_the_ask_and_sellers_hit_the_bid(frames):
    """The proof of whose side it is that a trade names: prices of trades against the book of the time just before."""
    venue, market = create("coinbase", SYMBOLS), played(frames[:1])
    tops: dict = {0: [], 1: []}
    found = []
    for recv_ns, frame in frames:
        for event in venue.decode(frame):
            if isinstance(event, Trade):
                found.append(event)
            elif isinstance(event, (Delta, Snapshot)):
                market._handlers[type(event)](event, recv_ns)
                its = market.symbols[event.symbol].book
                tops[event.symbol].append((event.event_ns, its.bids(1)[0][0], its.asks(1)[0][0]))
    sides = []
    for trade_ in found:
        before = [top for top in tops[trade_.symbol] if top[0] < trade_.event_ns]
        if before:
            _, bid, ask = before[-1]
            sides.append((trade_.qty > 0, (trade_.price >= ask) - (trade_.price <= bid)))
    assert sides.count((True, 1)) == 49 and sides.count((False, -1)) == 28 and len(sides) == 78
    assert (True, -1) not in sides and (False, 1) not in sides


@pytest.mark.parametrize("missing", [40, 300, 301, 777, 1028])
def test_a_recorded_message_that_is_missing_is_seen_at_the_next(frames, missing):
    """Of whatever channel it was."""
    frames = frames[:30] + frames[missing - 5:missing + 2]  # from both snapshots on: the jump is one hole already
    venue = create("coinbase", SYMBOLS)
    holes = [number for number, (_, frame) in enumerate(frames) if number != len(frames) - 2 and any(
        isinstance(event, Lost) for event in venue.decode(frame))]
    assert holes == [30, len(frames) - 1]
