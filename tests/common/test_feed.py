"""A feed: what becomes of a connection that grows old, of books that nobody changes, of a venue that says no."""


import orjson
import pytest

from common.clock import ManualClock
from common.config import Market as Settings
from common.feed import Feed
from common.layout import FLAG_RESET, FLAG_VALID, FLAGS, KIND, KIND_STATE, KIND_TRADE, VENUE_ID
from common.ring import Books
from common.venues import create
from tests.frames import delta, depth, rest, snapshot, trade
from tests.venue_server import VenueServer
from tests.waiting import until

S = 10**9


class Fed:
    """A feed on a manual clock, stepped by the test."""

    def __init__(self, server, venue="vectrade", symbols=("A", "B"), **settings) -> None:
        self.clock, self.books, self.lines, self.counts = ManualClock(S), Books.private(symbols, 1024), [], {}
        settings = {"ws_url": server.ws_url, "rest_url": server.http_url, "stale_s": 1000.0, "stale_book_s": 0.0,
                    **settings}
        self.feed = Feed("", Settings(venue=venue, symbols=tuple(symbols), **settings), create(venue, symbols),
                         self.books, 0, self.clock, lambda line, at: self.lines.append(line), self.count)

    def count(self, name: str, n: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + n

    def step(self) -> int:
        handled = self.feed.receive(lambda frame, at: self.lines.append(bytes(frame)))
        return handled + self.feed.work(self.clock.now_ns)

    def until(self, condition, what="the condition") -> None:
        until(lambda: self.step() and None or condition(), what=what)

    def after(self, seconds: float) -> "Fed":
        self.clock.set(self.clock.now_ns + int(seconds * S))
        return self

    def valid(self, count: int) -> None:
        self.until(lambda: self.feed.market.valid_symbols == count, f"{count} valid symbols")

    def ticks(self, symbol: int) -> list[tuple[int, ...]]:
        return [self.books.read(symbol, seq) for seq in range(1, int(self.books.heads[symbol]) + 1)]


@pytest.fixture
def feed():
    made = []

    def make(*args, **settings) -> Fed:
        made.append(Fed(*args, **settings))
        return made[-1]

    yield make
    for fed in made:
        fed.feed.close()


def opening(peer, *more: bytes) -> None:
    peer.recv()
    peer.send(snapshot("A", 1), snapshot("B", 1), *more)


# ---- a connection that grows old


def test_a_younger_connection_takes_over_and_nothing_is_missed_or_told_twice(feed):
    first = [delta("A", 2), trade("A", 7)]
    with VenueServer(lambda peer: (opening(peer, *first), peer.hold())) as server:
        fed = feed(server, max_age_s=100.0)
        fed.until(lambda: fed.books.heads[0] == 3)
        fed.after(89).step()
        assert len(server.peers) == 1
        # The younger one comes ahead of the older: a change and a trade that the older has not told of.
        server.talk = lambda peer: (opening(peer, *first, trade("A", 8), delta("A", 3, bids=[(98, 1)])), peer.hold())
        fed.after(2).until(lambda: fed.feed._younger and fed.feed._younger[1].counts.frames == 6)
        assert fed.books.heads[0] == 3 and not fed.counts.get("disconnects")
        older = server.peers[0]
        older.send(delta("A", 3, bids=[(98, 1)]))
        fed.until(lambda: fed.books.heads[0] == 4)
        assert fed.feed.market.counts.handovers == 0, "the trade that only the younger has told of is waited for"
        older.send(trade("A", 8))
        fed.until(lambda: fed.feed.market.counts.handovers == 1)
        server.peers[1].send(trade("A", 9), delta("A", 4))
        fed.until(lambda: fed.books.heads[0] == 7)
        ticks = fed.ticks(0)
        assert [tick[VENUE_ID] for tick in ticks if tick[KIND] == KIND_TRADE] == [7, 8, 9]
        assert [tick[VENUE_ID] for tick in ticks if tick[KIND] != KIND_TRADE] == [1, 2, 3, 4]
        assert all(tick[FLAGS] & FLAG_VALID for tick in ticks)
        assert not any(tick[FLAGS] & FLAG_RESET for tick in ticks[1:])
        assert fed.counts == {"connects": 2} and fed.feed.market.counts.gaps == 0
        assert [line for line in fed.lines if b'"handover":true' in line]


def test_a_younger_connection_that_fails_leaves_the_older_alone(feed):
    with VenueServer(lambda peer: (opening(peer), peer.hold())) as server:
        fed = feed(server, max_age_s=100.0)
        fed.valid(2)
        server.talk = lambda peer: None
        fed.after(91).until(lambda: fed.feed._younger is not None)
        fed.until(lambda: fed.feed._younger is None)
        server.peers[0].send(delta("A", 2))
        fed.until(lambda: fed.books.heads[0] == 2)
        assert not fed.counts.get("disconnects") and fed.feed.market.valid_symbols == 2


def test_a_venue_that_refuses_younger_connections_is_not_asked_in_a_tight_loop(feed):
    with VenueServer(lambda peer: (opening(peer), peer.hold())) as server:
        fed = feed(server, max_age_s=100.0, live=True, backoff_min_s=2.0, backoff_max_s=60.0)
        fed.valid(2)
        server.answer = lambda path: (429, {"Retry-After": "30"}, b"no")
        fed.after(91).until(lambda: len(server.asked) == 2)
        fed.until(lambda: fed.feed._younger is None)
        for _ in range(100):
            fed.after(0.29).step()
        assert len(server.asked) == 2, "as long as it says"
        fed.after(2).until(lambda: len(server.asked) == 3)
        assert fed.feed.market.valid_symbols == 2 and not fed.counts.get("disconnects")


def test_a_younger_connection_gets_its_own_snapshots_over_http(feed):
    frames = [depth("A", 10, 12, 9), depth("A", 13, 15, 12), depth("A", 16, 20, 15, bids=[(98, 2)])]
    with VenueServer(lambda peer: (peer.send(*frames), peer.hold()),
                     lambda path: (200, {}, rest(11)) if path.startswith("/fapi") else None) as server:
        fed = feed(server, "binance-usdm", ("A",), max_age_s=100.0)
        fed.valid(1)
        fed.until(lambda: fed.feed.market.symbols[0].last_id == 20)
        fed.after(91).until(lambda: fed.feed.market.counts.handovers == 1)
        server.peers[1].send(depth("A", 21, 22, 20))
        fed.until(lambda: fed.feed.market.symbols[0].last_id == 22)
        assert fed.feed.market.counts.gaps == 0 and sum(path.startswith("/fapi") for path in server.asked) == 2


# ---- books that nobody changes


def test_a_stale_book_is_given_up_alone_and_asked_for_again(feed):
    with VenueServer(lambda peer: (opening(peer), peer.hold())) as server:
        fed = feed(server, stale_book_s=60.0)
        fed.valid(2)
        fed.after(50)
        server.peers[0].send(delta("B", 2), trade("A", 7))  # a trade is no sign of a live book
        fed.until(lambda: fed.books.heads[0] == fed.books.heads[1] == 2)
        fed.after(11).until(lambda: len(server.peers[0].received) == 3)
        assert [symbol.state.name for symbol in fed.feed.market.symbols] == ["WAITING", "VALID"]
        assert fed.ticks(0)[-1][KIND] == KIND_STATE and fed.feed.market.counts.stale == 1
        asked = [orjson.loads(frame) for frame in server.peers[0].received[1:]]
        assert asked == [{"action": action, "channels": ["orderbook:A"]} for action in ("unsubscribe", "subscribe")]
        server.peers[0].send(snapshot("A", 30))
        fed.valid(2)
        assert not fed.counts.get("disconnects")


def test_a_stale_book_whose_snapshots_come_over_http_is_made_valid_without_a_change(feed):
    with VenueServer(lambda peer: (peer.send(depth("A", 10, 12, 9)), peer.hold()),
                     lambda path: (200, {}, rest(11)) if path.startswith("/fapi") else None) as server:
        fed = feed(server, "binance-usdm", ("A",), stale_book_s=60.0)
        fed.valid(1)
        fed.after(61).until(lambda: fed.feed.market.counts.stale == 1)
        fed.after(1).valid(1)
        assert fed.feed.market.counts.resyncs == 1


# ---- a venue that says no


@pytest.mark.parametrize(("status", "headers", "least"), [
    (418, {"Retry-After": "120"}, 120), (418, {}, 60), (403, {}, 60), (429, {}, 5), (429, {"Retry-After": "17"}, 17),
    (429, {"Retry-After": "2"}, 2)])
def test_a_venue_that_has_had_enough_is_left_alone_for_as_long_as_it_says(feed, status, headers, least):
    def answer(path):
        return (status, headers, b"no") if path.startswith("/fapi") else None

    with VenueServer(lambda peer: (peer.send(depth("A", 10, 12, 9)), peer.hold()), answer) as server:
        fed = feed(server, "binance-usdm", ("A",))
        fed.until(lambda: fed.counts.get("snapshot_failures") == 1)
        server.answer = lambda path: (200, {}, rest(11)) if path.startswith("/fapi") else None
        for _ in range(20):
            fed.after((least - 1) / 20).step()
        assert sum(path.startswith("/fapi") for path in server.asked) == 1
        fed.after(12).valid(1)


@pytest.mark.parametrize("status", [403, 418])
def test_a_connection_that_is_refused_for_good_reason_waits_a_minute(feed, status):
    with VenueServer(answer=lambda path: (status, {}, b"no")) as server:
        fed = feed(server)
        fed.until(lambda: fed.counts.get("connect_failures") == 1)
        fed.after(59).step()
        assert len(server.asked) == 1 and str(status) in fed.feed.error
