"""Ingest against a real venue server: frames from recordings, real HTTP snapshots, and every way to fail."""

import itertools
import socket
import threading

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from common import captures
from common.backoff import HEALTHY_S
from common.clock import ManualClock, SystemClock
from common.config import Config, Market
from common.errors import ConfigError
from common.layout import BID_PX, BOOK_NS, FLAG_RESET, FLAG_VALID, FLAGS, KIND, KIND_STATE, RECV_NS
from common.links import LocalLink
from common.market import Market as MarketCore
from common.player import Player
from common.ring import Books
from common.telemetry import Telemetry
from common.venues import create
from common.websocket import Untrusted
from common.wire import TickRef, decode
from procs.ingest import COUNTERS, TIMERS, Ingest, Planned, plan
from procs.ingest import ingest as command
from tests.frames import delta, depth, rest, snapshot, ticker, trade
from tests.venue_server import VenueServer
from tests.waiting import until

S = 10**9


class FramesTap:
    def __init__(self, wanted: bool) -> None:
        self.wanted, self.messages, self.joined = wanted, [], 1

    def send(self, message: bytes) -> None:
        self.messages.append(message)


class Driven:
    """An ingest with its surroundings, stepped by the test. A ManualClock stands still unless it is moved, so
    that nothing is given up, or tried again, before the test says so."""

    def __init__(self, server: VenueServer, venue="vectrade", symbols=("A", "B"), clock=None, frames=None,
                 outbox=None, telemetry=None, **settings) -> None:
        market = Market(venue=venue, ws_url=settings.pop("ws_url", server.ws_url), rest_url=server.http_url,
                        symbols=tuple(symbols), **settings)
        self.clock = clock or ManualClock(S)
        self.telemetry = telemetry or Telemetry.private("ingest", COUNTERS, TIMERS)
        self.books, self.outbox = Books.private(symbols, 4096), LocalLink() if outbox is None else outbox
        self.ingest = Ingest([Planned("", market, create(venue, symbols), 0)], self.clock, self.telemetry,
                             lambda: self.books, self.outbox, [frames])
        self.ingest.on_start()
        self.feed = self.ingest.feeds[0]
        self.counts = self.feed.market.counts

    def until(self, condition, what="the condition") -> None:
        """Step until `condition` holds."""
        def step():
            if not self.ingest.do_work():
                self.ingest.wait(2)
            return condition()

        until(step, what=what)

    def after(self, seconds: float) -> "Driven":
        self.clock.set(self.clock.now_ns + int(seconds * S))
        return self

    def valid(self, count: int) -> None:
        self.until(lambda: self.feed.market.valid_symbols == count, f"{count} valid symbols")

    def refs(self) -> list[TickRef]:
        found = []
        while (message := self.outbox.recv()) is not None:
            found += decode(message, TickRef)
        return found

    def told(self, name: str) -> int:
        self.feed._turn(self.clock.monotonic_ns())
        self.ingest._turn(self.clock.monotonic_ns())
        return self.telemetry.get(name)


@pytest.fixture
def drive():
    made = []

    def make(*args, **settings) -> Driven:
        made.append(Driven(*args, **settings))
        return made[-1]

    yield make
    for driven in made:
        driven.ingest.on_close()


def open_market(peer, *more: bytes) -> None:
    """What a VecTrade server says first: both books, and `more`."""
    peer.recv()
    peer.send(snapshot("A", 1), snapshot("B", 1), *more)


# ---- the ordinary day


def test_it_subscribes_and_keeps_the_books_and_rings_one_bell_per_symbol(drive):
    def talk(peer):
        open_market(peer, delta("A", 2), ticker("A", 2), trade("A", 7), b'{"type":"heartbeat","timestamp":1}')
        peer.hold()

    with VenueServer(talk) as server:
        driven = drive(server)
        driven.until(lambda: driven.counts.frames == 6)
        assert orjson.loads(server.peers[0].received[0])["channels"][:2] == ["orderbook:A", "trades:A"]
        assert server.peers[0].path == "/ws"
        newest = {ref.symbol: ref for ref in driven.refs()}
        assert {symbol: ref.seq for symbol, ref in newest.items()} == {0: 3, 1: 1}
        assert newest[0].epoch == driven.books.tag and newest[0].recv_ns == driven.books.newest(0)[RECV_NS]
        assert driven.told("ticks") == 4 and driven.told("connected") == 1 and driven.told("valid_symbols") == 2
        assert driven.told("quote_checks") == 1 and driven.told("quote_mismatches") == 0
        assert driven.telemetry.quantiles("book")["count"] == driven.told("refs")


def test_a_recording_over_real_sockets_gives_the_book_that_it_gives_without(drive, recordings):
    path = recordings / "binance" / "usdm_btcusdt_20240718.gz"
    lines = [frame for _, frame in itertools.islice(captures.lines(path), 4000)]
    at = next(i for i, frame in enumerate(lines) if captures.is_snapshot(frame))
    asked = threading.Event()

    def talk(peer):
        peer.send(*lines[:at])
        asked.wait(10)
        peer.send(*lines[at + 1:])
        peer.hold()

    def answer(path):
        if path.startswith("/stream"):
            return None
        assert path == "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
        asked.set()
        return 200, {}, lines[at]

    with VenueServer(talk, answer) as server:
        driven = drive(server, "binance-usdm", ("BTCUSDT",))
        driven.until(lambda: driven.counts.frames == len(lines) - 1 and driven.counts.snapshots)
    alone = MarketCore(create("binance-usdm", ["BTCUSDT"]), Books.private(["BTCUSDT"]), ManualClock())
    for frame in lines:
        alone.on_snapshot(0, frame, 1) if captures.is_snapshot(frame) else alone.on_frame(frame, 1)
    ours, theirs = driven.feed.market.symbols[0], alone.symbols[0]
    assert ours.last_id == theirs.last_id
    assert (ours.book.bids(), ours.book.asks()) == (theirs.book.bids(), theirs.book.asks())
    assert driven.counts.gaps == driven.counts.malformed == driven.counts.quote_mismatches == 0
    assert driven.counts.quote_checks > 50 and driven.counts.snapshots == 1


def test_raw_frames_go_to_the_tap_only_while_somebody_listens(drive):
    with VenueServer(lambda peer: (open_market(peer), peer.recv(), peer.send(delta("A", 2)), peer.hold())) as server:
        tap = FramesTap(wanted=False)
        driven = drive(server, frames=tap)
        driven.valid(2)
        assert tap.messages == []
        tap.wanted = True
        driven.feed.connection._socket.send(b"{}")
        driven.until(lambda: tap.messages and tap.messages[-1].endswith(delta("A", 2)))
        lines = [(message[:8], message[8:]) for message in tap.messages]
        assert {stamp for stamp, _ in lines} == {S.to_bytes(8, "little")} and lines[-1][1] == delta("A", 2)
        told = [orjson.loads(line) for _, line in lines[:-1]]
        assert [line["alpha"] for line in told] == ["capture", "connect", "state", "state"]
        assert told[0] == {"alpha": "capture", "version": 1, "venue": "vectrade", "symbols": ["A", "B"]}
        whole = driven.feed.venue.decode(orjson.dumps(told[2]["frame"]))[0]
        assert (whole.symbol, whole.last_id) == (0, 1)
        assert whole.levels.tolist()[:2] == [[99 * 10**8, 10**8], [101 * 10**8, 10**8]]


def test_nobody_downstream_is_waited_for(drive):
    deltas = [delta("A", i) for i in range(2, 500)]
    with VenueServer(lambda peer: (open_market(peer, *deltas), peer.hold())) as server:
        driven = drive(server, outbox=LocalLink(capacity=0))
        driven.until(lambda: driven.books.heads[0] == 499)
        assert driven.told("refs_dropped") == driven.told("refs") > 0


# ---- what breaks


def test_a_gap_is_healed_by_asking_for_that_book_again(drive):
    def talk(peer):
        open_market(peer, delta("A", 3))
        assert [orjson.loads(peer.recv())["action"] for _ in range(2)] == ["unsubscribe", "subscribe"]
        peer.send(snapshot("A", 9), delta("A", 10), delta("B", 2))
        peer.hold()

    with VenueServer(talk) as server:
        driven = drive(server)
        driven.until(lambda: driven.counts.gaps == 1)
        assert driven.books.newest(0)[KIND] == KIND_STATE and not driven.books.newest(0)[FLAGS] & FLAG_VALID
        driven.after(1)
        driven.until(lambda: driven.books.heads.tolist() == [4, 2])
        assert server.peers[0].received[1:] == [
            b'{"action":"%b","channels":["orderbook:A"]}' % action for action in (b"unsubscribe", b"subscribe")]
        assert driven.books.read(0, 3)[FLAGS] == FLAG_VALID | FLAG_RESET and driven.counts.resyncs == 1
        assert [driven.books.read(1, seq)[FLAGS] for seq in (1, 2)] == [FLAG_VALID | FLAG_RESET, FLAG_VALID]


def test_a_connection_that_ends_invalidates_the_books_until_the_next_brings_them_back(drive):
    def talk(peer):
        open_market(peer)
        if len(server.peers) > 1:
            peer.hold()

    with VenueServer(talk) as server:
        driven = drive(server)
        driven.until(lambda: driven.counts.ticks == 4, "two books, twice withdrawn")
        assert driven.ingest.status()[0]["connection"] == "waiting" and "closed" in driven.ingest.status()[0]["error"]
        assert {ref.seq for ref in driven.refs()[-2:]} == {2}, "downstream is told at once"
        driven.after(1).valid(2)
        assert [driven.books.read(0, seq)[FLAGS] for seq in (1, 2, 3)] == [3, 0, 3]
        assert (driven.told("connects"), driven.told("disconnects")) == (2, 1)


def test_a_malformed_frame_ends_nothing(drive):
    bad = (b"\xff" * 50, b"{", b'{"channel":"orderbook:A","type":"delta"}')
    with VenueServer(lambda peer: (open_market(peer, *bad, delta("A", 2)), peer.hold())) as server:
        driven = drive(server)
        driven.until(lambda: driven.books.heads[0] == 2)
        assert driven.told("malformed") == 3 and driven.told("connects") == 1
        refused = driven.ingest.status()[0]["refused"][-1]
        assert "sequence" in refused or "bids" in refused


def test_a_frame_above_the_limit_ends_the_connection_and_not_the_process(drive):
    with VenueServer(lambda peer: (open_market(peer, b"x" * 3000), peer.hold())) as server:
        driven = drive(server, max_frame_bytes=2000)
        driven.until(lambda: driven.told("disconnects") == 1)
        assert "too big" in driven.ingest.status()[0]["error"] or "exceeds" in driven.ingest.status()[0]["error"]


def test_a_silent_connection_is_given_up_and_made_again(drive):
    with VenueServer(lambda peer: (open_market(peer), peer.hold())) as server:
        driven = drive(server, stale_s=10.0)
        driven.valid(2)
        driven.after(9.9).ingest.do_work()
        assert driven.told("disconnects") == 0 and driven.ingest.status()[0]["frame_age_ms"] == 9900
        driven.after(0.2).ingest.do_work()
        assert driven.told("disconnects") == 1 and "no frame for 10 s" in driven.ingest.status()[0]["error"]
        assert driven.feed.market.valid_symbols == 0
        driven.after(1).valid(2)


def lost(driven: Driven) -> int:
    """Connections that ended: one that is closed in the same breath as it opens counts as never opened."""
    return driven.told("disconnects") + driven.told("connect_failures")


def lose(driven: Driven, count: int) -> None:
    """Let time pass until `count` connections have ended."""
    driven.until(lambda: lost(driven) >= count or driven.after(0.05) is None, f"{count} lost connections")


def test_a_server_that_hangs_up_at_once_is_not_called_in_a_tight_loop(drive):
    with VenueServer(lambda peer: None) as server:
        driven = drive(server, live=True, backoff_min_s=1.0, backoff_max_s=100.0)
        began = driven.clock.now_ns
        lose(driven, 6)
        assert driven.clock.now_ns - began > (1 + 2 + 4 + 8 + 16) / 2 * S


def test_our_own_exchange_is_asked_often(drive):
    with VenueServer(lambda peer: None) as server:
        driven = drive(server, live=False)
        lose(driven, 12)
        assert driven.clock.now_ns < 6 * S


def test_healthy_data_make_the_next_pause_short_again(drive):
    with VenueServer(lambda peer: None) as server:
        driven = drive(server, stale_s=100.0)
        lose(driven, 3)
        server.talk = lambda peer: (open_market(peer), peer.recv(), peer.send(delta("A", 2)), peer.hold())
        driven.until(lambda: driven.feed.market.valid_symbols == 2 or driven.after(0.05) is None)
        assert driven.told("connected") and driven.feed._backoff.failures >= 3
        driven.after(HEALTHY_S).feed.connection._socket.send(b"{}")
        driven.until(lambda: driven.books.heads[0] == 2)
        assert driven.told("connected") and driven.feed._backoff.failures == 0


def test_a_refused_connection_waits_as_long_as_it_is_told_to(drive):
    with VenueServer(answer=lambda path: (429, {"Retry-After": "30"}, b"slow down")) as server:
        driven = drive(server)
        driven.until(lambda: driven.told("connect_failures") == 1)
        assert "429" in driven.ingest.status()[0]["error"]
        assert "429" in driven.telemetry.told()["waiting_for"]
        driven.after(29).until(lambda: not driven.ingest.wait(1))
        assert len(server.asked) == 1
        server.answer, server.talk = lambda path: None, lambda peer: (open_market(peer), peer.hold())
        driven.after(2).valid(2)


def test_a_venue_that_is_not_there_yet_is_waited_for(drive):
    with VenueServer() as gone:
        pass
    driven = drive(gone)
    driven.until(lambda: driven.told("connect_failures") == 1)
    assert driven.ingest.status()[0]["connection"] == "waiting"
    assert f"the venue at {gone.ws_url}/ws" in driven.telemetry.told()["waiting_for"]
    assert "refused" in driven.telemetry.told()["waiting_for"]


def test_tls_that_cannot_work_ends_the_process(drive):
    with socket.create_server(("127.0.0.1", 0)) as listener, VenueServer() as server:
        driven = drive(server, ws_url=f"wss://127.0.0.1:{listener.getsockname()[1]}")
        driven.until(lambda: driven.ingest.status()[0]["connection"] == "encrypting")
        peer, _ = listener.accept()
        with peer, pytest.raises(Untrusted) as error:
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            driven.until(lambda: False)
        assert error.value.exit_code == 4


# ---- snapshots by HTTP


class Futures:
    """A futures venue: what it streams to each connection, and its answers to snapshot requests, in order."""

    def __init__(self, *answers, frames=()) -> None:
        self.answers, self.frames, self.asked = list(answers), frames, []
        self.server = VenueServer(self.talk, self.answer)

    def talk(self, peer) -> None:
        peer.send(*self.frames)
        peer.hold()

    def answer(self, path: str):
        if path.startswith("/stream"):
            return None
        self.asked.append(path)
        answer = self.answers.pop(0)
        return answer() if callable(answer) else answer


FRAMES = (depth("A", 5, 10, 4), depth("A", 11, 20, 10), depth("B", 1, 10, 0))


def test_a_snapshot_that_is_refused_is_asked_for_when_the_venue_allows_it_and_no_other_before(drive):
    venue = Futures((429, {"Retry-After": "60"}, b"{}"), (200, {}, rest(15)), (200, {}, rest(5)), frames=FRAMES[:2])
    with venue.server as server:
        driven = drive(server, "binance-usdm", stale_s=1000.0)
        driven.until(lambda: driven.told("snapshot_failures") == 1)
        server.peers[0].send(FRAMES[2])
        driven.after(59).until(lambda: driven.counts.frames == 3)
        driven.ingest.do_work()
        assert len(venue.asked) == 1
        driven.after(2).valid(2)
        assert [path.partition("symbol=")[2][0] for path in venue.asked] == ["A", "A", "B"]
        assert driven.counts.gaps == 0 and driven.books.newest(0)[BID_PX] == 99 * 10**8


@pytest.mark.parametrize("failure", [
    (500, {}, b"oops"), (200, {}, b"<html>"), (200, {}, rest(2)), (400, {}, b'{"code":-1121}')])
def test_a_snapshot_that_is_no_use_is_asked_for_again(drive, failure):
    venue = Futures(failure, (200, {}, rest(15)), frames=FRAMES[:2])
    with venue.server as server:
        driven = drive(server, "binance-usdm", ("A",), stale_s=1000.0)
        driven.until(lambda: driven.feed.market.valid_symbols or driven.after(0.02) is None)
        assert len(venue.asked) == 2


def test_an_answer_to_a_request_of_the_connection_before_is_not_used(drive):
    hold = threading.Event()
    venue = Futures(lambda: hold.wait(10) and (200, {}, rest(15)), (200, {}, rest(7)), frames=FRAMES[:2])
    with venue.server as server:
        driven = drive(server, "binance-usdm", ("A",), stale_s=1000.0)
        driven.until(lambda: venue.asked)
        venue.frames = FRAMES[:1]
        server.peers[0].connection.close()
        driven.until(lambda: driven.told("disconnects") == 1)
        driven.until(lambda: driven.counts.frames == 3 or driven.after(0.02) is None, "a delta of the second")
        driven.until(lambda: driven.feed._http.in_flight == 2, "a request that has to wait")
        hold.set()
        driven.valid(1)
        assert len(venue.asked) == 2 and driven.feed.market.symbols[0].last_id == 10


# ---- its life


def test_stopping_tells_downstream_that_no_book_is_kept(drive):
    with VenueServer(lambda peer: (open_market(peer), peer.hold())) as server:
        driven = drive(server)
        driven.valid(2)
        driven.refs()
        driven.ingest.on_close()
        assert [(ref.symbol, ref.seq) for ref in driven.refs()] == [(0, 2), (1, 2)]
        assert driven.books.newest(0)[KIND] == KIND_STATE and driven.telemetry.get("connected") == 0


def test_counters_go_on_after_a_restart(drive):
    telemetry = Telemetry.private("ingest", COUNTERS, TIMERS)
    with VenueServer(lambda peer: (open_market(peer), peer.hold())) as server:
        for count in (1, 2):
            driven = drive(server, telemetry=telemetry)
            driven.valid(2)
            assert driven.told("snapshots") == 2 * count and driven.told("connects") == count
            driven.ingest.on_close()


def test_the_state_of_every_symbol_is_told(drive):
    with VenueServer(lambda peer: (peer.recv(), peer.send(snapshot("A", 1)), peer.hold())) as server:
        driven = drive(server)
        driven.valid(1)
        status = driven.ingest.status()[0]
        assert status["symbols"] == {"A": {"state": "valid", "seq": 1, "age_ms": 0},
                                     "B": {"state": "waiting", "seq": 0, "age_ms": None}}
        assert (status["connection"], status["venue"]) == ("open", "vectrade")
        driven.after(2).ingest.do_work()
        assert driven.telemetry.told()["waiting_for"] == "books of B"


def test_waiting_ends_with_the_first_byte(drive):
    go = threading.Event()
    with VenueServer(lambda peer: (open_market(peer), go.wait(10), peer.send(delta("A", 2)), peer.hold())) as server:
        driven = drive(server, clock=SystemClock())
        driven.valid(2)
        while driven.ingest.do_work():
            pass
        go.set()
        driven.ingest.wait(60_000)
        driven.until(lambda: driven.books.heads[0] == 2)


def test_the_command_says_what_it_links_and_refuses_an_unknown_venue(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(command, ["--help"])
    assert shown.exit_code == 0 and "TickRef" in shown.output and "books ring" in shown.output
    refused = CliRunner().invoke(command, env={"ALPHA_MARKET__VENUE": "mtgox"})
    assert refused.exit_code == 2


# ---- several feeds, several processes


def two_feeds(first: VenueServer, second: VenueServer, process: int = 0) -> Config:
    def market(server, venue, symbols, **more):
        return Market(venue=venue, ws_url=server.ws_url, rest_url=server.http_url, symbols=symbols, **more)

    return Config(market=market(first, "vectrade", ("A", "B")),
                  feeds={"far": market(second, "binance-usdm", ("A",), process=process)})


def test_a_plan_divides_the_symbols_where_a_venue_limits_those_of_one_connection(monkeypatch):
    monkeypatch.setattr("common.venues.vectrade.VecTrade.max_symbols", 2)
    config = Config(market=Market(symbols=tuple("ABCDE")), feeds={"more": Market(symbols=("A", "B", "C"))})
    assert [(one.name, one.venue.symbols, one.first) for one in plan(config)] == [
        ("", ("A", "B"), 0), ("/2", ("C", "D"), 2), ("/3", ("E",), 4), ("more", ("A", "B"), 5), ("more/2", ("C",), 7)]


def test_a_process_that_no_feed_names_is_refused():
    with pytest.raises(ConfigError, match="process=3"):
        plan(Config(), 3)


def test_several_venues_share_one_ring_and_one_that_fails_leaves_the_other_alone():
    with VenueServer(lambda peer: (open_market(peer), peer.hold())) as first, \
            VenueServer(lambda peer: (peer.send(*FRAMES[:2]), peer.hold()),
                        lambda path: (200, {}, rest(15)) if path.startswith("/fapi") else None) as second:
        config, outbox, clock = two_feeds(first, second), LocalLink(), ManualClock(S)
        books = Books.private(config.symbols, 1024)
        telemetry = Telemetry.private("ingest", COUNTERS, TIMERS)
        ingest = Ingest(plan(config), clock, telemetry, lambda: books, outbox)
        ingest.on_start()
        until(lambda: ingest.do_work() and None or sum(one.market.valid_symbols for one in ingest.feeds) == 3)
        assert books.symbols == ("A", "B", "far:A") and books.newest(2)[BID_PX] == 99 * 10**8
        refs = {ref.symbol for message in iter(outbox.recv, None) for ref in decode(message, TickRef)}
        assert refs == {0, 1, 2}
        second.peers[0].connection.close()
        until(lambda: ingest.do_work() and None or not ingest.feeds[1].open)
        assert books.newest(2)[KIND] == KIND_STATE and ingest.feeds[0].market.valid_symbols == 2
        ingest._turn(clock.now_ns)
        assert telemetry.get("valid_symbols") == 2 and telemetry.get("connected") == 0
        assert telemetry.told()["venue"] == "vectrade, binance-usdm"
        ingest.on_close()


def test_two_processes_write_one_ring_each_its_own_symbols_and_both_survive_its_replacement(instance):
    name = instance
    with VenueServer(lambda peer: (open_market(peer), peer.hold())) as first, \
            VenueServer(lambda peer: (peer.send(*FRAMES[:2]), peer.hold()),
                        lambda path: (200, {}, rest(15)) if path.startswith("/fapi") else None) as second:
        config, clock = two_feeds(first, second, process=1), ManualClock(S)

        def make(process: int) -> Ingest:
            source = (lambda: Books.attach(name)) if process else (lambda: Books.create(name, config.symbols, 1024))
            return Ingest(plan(config, process), clock, Telemetry.private("ingest", COUNTERS, TIMERS), source,
                          LocalLink(), owner=not process)

        other = make(1)
        assert other.on_start() is False and "first ingest" in other._telemetry.told()["waiting_for"]
        owner = make(0)
        owner.on_start()
        assert other.on_start()
        until(lambda: (owner.do_work(), other.do_work()) and None or owner.books.heads.all())
        assert owner.books.newest(2)[BID_PX] == 99 * 10**8 and other.feeds[0].market.valid_symbols == 1
        owner.on_close()
        owner = make(0)
        owner.on_start()
        assert not owner.books.heads[2]
        until(lambda: other._turn(clock.now_ns) or other.do_work() and None or owner.books.heads[2])
        assert owner.books.newest(2)[FLAGS] & FLAG_VALID
        other.on_close()
        assert owner.books.newest(2)[KIND] == KIND_STATE, "who goes says that nobody keeps its books"
        owner.on_close()


def test_what_was_recorded_of_a_live_session_gives_the_same_ticks_bit_for_bit(drive):
    """With all that can befall it: a gap, a frame that is malformed, a lost connection, and a book that
    grows stale."""
    def talk(peer):
        open_market(peer, *(delta("A", i, bids=[(90 + i % 9, i)]) for i in range(2, 40)), trade("A", 7), b'{"type":',
                    *(delta("B", i, asks=[(102 + i % 5, i)]) for i in range(2, 20)))
        peer.hold()

    with VenueServer(talk) as server:
        tap = FramesTap(wanted=True)
        driven = drive(server, frames=tap, stale_s=1000.0, stale_book_s=60.0)
        driven.until(lambda: driven.counts.frames == 60)
        server.peers[0].send(delta("A", 41))
        driven.until(lambda: driven.counts.gaps == 1)
        driven.after(1).until(lambda: len(server.peers[0].received) == 3)
        server.peers[0].send(snapshot("A", 50), delta("A", 51), trade("A", 8))
        driven.until(lambda: driven.counts.trades == 2)
        server.peers[0].connection.close()
        driven.until(lambda: driven.counts.frames == 124 or driven.after(0.02) is None)
        driven.after(61)
        server.peers[1].send(delta("A", 40))
        driven.until(lambda: driven.counts.stale == 1)
        server.peers[1].send(snapshot("B", 19, asks=[(102 + i % 5, i) for i in range(15, 20)]))
        driven.until(lambda: driven.feed.market.valid_symbols == 2)
        lines = [(int.from_bytes(message[:8], "little"), message[8:]) for message in tap.messages]
        venue, clock = create("vectrade", ("A", "B")), ManualClock()
        market = MarketCore(venue, Books.private(("A", "B"), 4096), clock)
        player = Player(market, venue, clock)
        for recv_ns, line in lines:
            player.play(recv_ns, line)
        for symbol in (0, 1):
            head = int(driven.books.heads[symbol])
            assert head == market.symbols[symbol].seq > 20
            ours, theirs = driven.books.ticks[symbol][1:head + 1], market._books.ticks[symbol][1:head + 1]
            ours, theirs = (np.delete(ticks, [RECV_NS, BOOK_NS], axis=1) for ticks in (ours, theirs))
            assert np.array_equal(ours, theirs)
            assert driven.feed.market.symbols[symbol].book.equals(market.symbols[symbol].book)
        for name in ("ticks", "trades", "gaps", "stale", "malformed", "snapshots", "resyncs"):
            assert getattr(driven.counts, name) == getattr(market.counts, name), name
