"""Playing captures: what each line does to the books, and that a recording gives what its market had."""

import itertools

import pytest

from common import captures, venues
from common.capture_lines import Connect, Disconnect, End, Frame, Header, Http, Missed, Send, Stale, State, encode
from common.clock import ManualClock
from common.errors import VenueError
from common.market import Market
from common.market import State as Book
from common.player import Player
from common.ring import Books
from common.synthetic import SyntheticMarket

SYMBOLS = ("BTC-USD", "AAPL")
HEADER = encode(Header("vectrade", SYMBOLS))


def player(venue: str = "vectrade", symbols=SYMBOLS, books: Books | None = None) -> Player:
    of, clock = venues.create(venue, symbols), ManualClock()
    return Player(Market(of, books or Books.private(symbols), clock, seed=0), of, clock)


def by_hand(lines, venue: str, symbols, books: Books) -> None:
    """What a market makes of `lines` without a player."""
    clock = ManualClock()
    market = Market(venues.create(venue, symbols), books, clock, seed=0)
    for recv_ns, text in lines:
        clock.set(recv_ns)
        if captures.is_snapshot(text):
            market.on_snapshot(0, text, recv_ns)
        else:
            market.on_frame(text, recv_ns)


def same(one: Books, other: Books) -> bool:
    return bool(one.heads.min() > 100) and all((a == b).all() for a, b in zip(one.ticks, other.ticks))


def play(into: Player, *texts: bytes, at: int = 1) -> list[int]:
    """Each line a nanosecond after the one before; the ticks of each."""
    return [into.play(at + i, text) for i, text in enumerate(texts)]


def states(of: Player) -> list[Book]:
    return [symbol.state for symbol in of.market.symbols]


def snapshot(symbol: str, sequence: int) -> bytes:
    return (b'{"channel":"orderbook:%b","type":"snapshot","sequence":%d,"timestamp":1,"bids":[["1","1"]],'
            b'"asks":[["2","1"]]}' % (symbol.encode(), sequence))


def delta(symbol: str, sequence: int) -> bytes:
    return (b'{"channel":"orderbook:%b","type":"delta","sequence":%d,"timestamp":1,"bids":[["1","%d"]],"asks":[]}'
            % (symbol.encode(), sequence, sequence))


BEGUN = (HEADER, encode(Connect("ws://x")), snapshot("BTC-USD", 1), snapshot("AAPL", 1))


def test_frames_are_played_on_the_clock_of_the_recording():
    it = player()
    assert play(it, *BEGUN, delta("AAPL", 2), at=1000) == [0, 0, 1, 1, 1]
    assert states(it) == [Book.VALID, Book.VALID]
    assert it.market.symbols[1].recv_ns == it.market.symbols[1].book_ns == 1004


@pytest.mark.parametrize("line", [Connect("ws://x"), Disconnect("gone"), Missed(7), Header("vectrade", SYMBOLS)])
def test_no_book_outlives_a_connection_a_hole_or_a_recording(line):
    it = player()
    play(it, *BEGUN)
    assert it.play(9, encode(line)) == 2 and states(it) == [Book.WAITING, Book.WAITING]
    assert it.missed == (7 if isinstance(line, Missed) else 0)


@pytest.mark.parametrize("line", [Send(b"ping"), End(3, 0), Http("", "/token", 200, b"{}"), Http("X", "/", 200, b"{}"),
                                  Http("AAPL", "/", 429, b"{}"), State("X", b"{}"), Connect("ws://x", True)])
def test_what_changes_no_book_changes_none(line):
    it = player()
    play(it, *BEGUN)
    assert it.play(9, encode(line)) == 0 and states(it) == [Book.VALID, Book.VALID]
    assert play(it, delta("BTC-USD", 2)) == [1] and it.market.counts.malformed == 0


def test_a_state_begins_a_recording_in_the_middle_and_repeats_nothing():
    it = player()
    assert play(it, HEADER, delta("AAPL", 6), encode(State("AAPL", snapshot("AAPL", 7))), delta("AAPL", 8)) \
        == [0, 0, 1, 1]
    assert it.play(9, encode(State("AAPL", snapshot("AAPL", 8)))) == 0, "the book is followed already"
    assert play(it, delta("AAPL", 9)) == [1] and it.market.counts.snapshots == 1


def test_a_packed_frame_is_played():
    it = player()
    play(it, *BEGUN)
    assert it.play(9, encode(Frame(delta("AAPL", 2)))) == 1
    assert it.play(9, encode(Frame(b"\xff"))) == 0 and it.market.counts.malformed == 1


def test_files_of_one_session_go_on_with_the_same_books_and_a_missing_one_is_noticed():
    it = player()
    first, *rest = BEGUN
    play(it, encode(Header("vectrade", SYMBOLS, "today", 3)), *rest, encode(End(2, 0)))
    assert it.play(9, encode(Header("vectrade", SYMBOLS, "today", 4))) == 0
    assert it.play(10, delta("AAPL", 2)) == 1
    assert it.play(11, encode(Header("vectrade", SYMBOLS, "today", 6))) == 2
    assert states(it) == [Book.WAITING, Book.WAITING]


def test_a_recording_of_another_venue_is_refused():
    with pytest.raises(VenueError, match="binance-spot"):
        player().play(1, encode(Header("binance-spot", ("BTCUSDT",))))


def test_what_the_market_wants_sent_is_not_kept():
    it = player()
    play(it, *BEGUN, *(delta("AAPL", 10 * i) for i in range(1, 100)))
    it.market.work()
    play(it, delta("AAPL", 5000))
    assert it.market.outbox == []


def test_a_session_played_equals_the_market_that_it_came_from():
    live, again = Books.private(SYMBOLS), Books.private(SYMBOLS)
    lines = list(SyntheticMarket(SYMBOLS, seed=5, rate=100.0).frames(10))
    by_hand(lines, "vectrade", SYMBOLS, live)
    it = player(books=again)
    for recv_ns, text in [(lines[0][0], HEADER), *lines]:
        it.play(recv_ns, text)
    assert same(live, again)


@pytest.mark.parametrize("name", ["usdm_btcusdt_20240718", "spot_btcusdt_20240808"])
def test_a_foreign_recording_is_played_as_it_was_received(recordings, name):
    path = recordings / "binance" / f"{name}.gz"
    venue, symbols = captures.describe([path])
    live, again = Books.private(symbols), Books.private(symbols)
    by_hand(itertools.islice(captures.read([path]), 20_000), venue, symbols, live)
    it = player(venue, symbols, again)
    for recv_ns, text in itertools.islice(captures.tape([path]), 20_000):
        it.play(recv_ns, text)
    assert same(live, again) and it.market.counts.gaps == 0


def test_a_state_by_http_joins_the_deltas_around_it(recordings):
    """Cut the first part off a recording and put the state there in its place: the books go on as they were."""
    path = recordings / "binance" / "usdm_btcusdt_20240718.gz"
    whole, cut = player("binance-usdm", ("BTCUSDT",)), player("binance-usdm", ("BTCUSDT",))
    lines = list(itertools.islice(captures.tape([path]), 12_000))
    for recv_ns, text in lines[:6000]:
        whole.play(recv_ns, text)
    state = State("BTCUSDT", whole.venue.encode_snapshot(whole.market.whole(0)))
    cut.play(lines[5990][0], encode(Header("binance-usdm", ("BTCUSDT",))))
    for recv_ns, text in lines[5990:6000]:  # some frames come before the state is told
        cut.play(recv_ns, text)
    cut.play(lines[6000][0], encode(state))
    for recv_ns, text in lines[6000:]:
        whole.play(recv_ns, text)
        cut.play(recv_ns, text)
    assert cut.market.counts.gaps == 0 and states(cut) == [Book.VALID]
    assert whole.market.symbols[0].book.equals(cut.market.symbols[0].book)


def test_a_book_that_was_given_up_is_given_up_and_another_connection_goes_on_with_the_rest():
    it = player()
    play(it, *BEGUN)
    assert it.play(9, encode(Stale("AAPL"))) == 1 and it.market.counts.stale == 1
    assert it.play(10, encode(Stale("AAPL"))) == 0, "it is not valid any more"
    assert it.play(11, encode(Connect("ws://x", True))) == 0 and it.market.valid_symbols == 1
    assert it.play(12, delta("BTC-USD", 77)) == 1, "the numbers of the new connection are its own"
    assert it.play(13, delta("BTC-USD", 79)) == 1 and it.market.counts.gaps == 1
