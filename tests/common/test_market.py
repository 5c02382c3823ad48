"""Frames in, validated books and ticks out: on recordings, and through everything that can go wrong."""

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import captures, fixed
from common.clock import ManualClock
from common.layout import (
    ASK_PX,
    ASK_QTY,
    BID_PX,
    BID_QTY,
    BOOK_NS,
    EVENT_NS,
    FLAG_RESET,
    FLAG_VALID,
    FLAGS,
    KIND,
    KIND_BOOK,
    KIND_STATE,
    KIND_TRADE,
    RECV_NS,
    SEQ,
    TRADE_PX,
    TRADE_QTY,
    VENUE_ID,
)
from common.market import KEPT, KEPT_BYTES, Market, State, warm_up
from common.ring import Books
from common.venues import create
from tests.frames import delta, depth, rest, snapshot, ticker, trade

S = 10**9
ONE = fixed.SCALE


class Driven:
    """A market with its clock and its ring."""

    def __init__(self, venue="vectrade", symbols=("A", "B"), capacity=64, books=None, **settings) -> None:
        self.clock = ManualClock(1000)
        self.books = books or Books.private(symbols, capacity)
        self.market = Market(create(venue, symbols), self.books, self.clock, seed=1, **settings)
        self.counts = self.market.counts

    def feed(self, *frames: bytes) -> int:
        return sum(self.market.on_frame(frame, self.clock.monotonic_ns()) for frame in frames)

    def after(self, seconds: float) -> "Driven":
        self.clock.set(self.clock.now_ns + int(seconds * S))
        self.market.work()
        return self

    def newest(self, symbol=0) -> tuple:
        return self.books.newest(symbol)

    def kinds(self, symbol=0) -> list[tuple[int, int]]:
        """(kind, flags) of every tick in the ring."""
        ticks = (self.books.read(symbol, seq) for seq in range(1, int(self.books.heads[symbol]) + 1))
        return [(tick[KIND], tick[FLAGS]) for tick in ticks]

    def states(self) -> list[State]:
        return [symbol.state for symbol in self.market.symbols]


BOOK, TRADE, GONE = (KIND_BOOK, FLAG_VALID), (KIND_TRADE, FLAG_VALID), (KIND_STATE, 0)
RESET = (KIND_BOOK, FLAG_VALID | FLAG_RESET)


# ---- recordings


def replay(files, venue, symbol) -> Driven:
    driven = Driven(venue, (symbol,), capacity=1024)
    for recv_ns, frame in captures.read(files):
        driven.clock.set(recv_ns)
        if captures.is_snapshot(frame):
            driven.market.on_snapshot(0, frame, recv_ns)
        else:
            driven.market.on_frame(frame, recv_ns)
    return driven


@pytest.mark.parametrize(("venue", "symbol", "days", "checks", "ticks"), [
    ("binance-usdm", "BTCUSDT", ("usdm_btcusdt_20240718", "usdm_btcusdt_20240719"), 625, 19718),
    ("binance-usdm", "ETHUSDT", ("usdm_ethusdt_20240718", "usdm_ethusdt_20240719"), 834, 22577),
    ("binance-spot", "BTCUSDT", ("spot_btcusdt_20240808", "spot_btcusdt_20240809"), 1072, 26396)])
def test_recorded_books_agree_with_every_quote_of_the_same_update(recordings, venue, symbol, days, checks, ticks):
    driven = replay([recordings / "binance" / f"{day}.gz" for day in days], venue, symbol)
    counts = driven.counts
    assert (counts.quote_checks, counts.quote_mismatches) == (checks, 0)
    assert counts.gaps == counts.crossed == counts.malformed == counts.resyncs == counts.venue_errors == 0
    assert counts.ticks == ticks == driven.books.heads[0] and counts.snapshots == 1
    driven.market.symbols[0].book._check()
    assert driven.newest()[BID_PX] == driven.market.symbols[0].book.best()[0]


def test_the_same_recording_gives_the_same_bytes(recordings):
    files = [recordings / "binance" / "usdm_btcusdt_20240718.gz"]
    first, second = (replay(files, "binance-usdm", "BTCUSDT") for _ in range(2))
    assert np.array_equal(first.books.ticks[0], second.books.ticks[0])


# ---- ticks


def test_a_tick_says_what_happened_and_how_the_book_stands():
    driven = Driven()
    driven.feed(snapshot("A", 7, bids=[(99, 1), (98, 2)], asks=[(101, 3)]))
    driven.clock.set(2000)
    assert driven.feed(delta("A", 8, bids=[("99.5", "0.25"), (98, 0)])) == 1
    tick = driven.newest()
    columns = SEQ, KIND, FLAGS, VENUE_ID, EVENT_NS, RECV_NS, BOOK_NS, TRADE_PX, TRADE_QTY
    assert [tick[column] for column in columns] == [2, KIND_BOOK, FLAG_VALID, 8, 1008 * 10**6, 2000, 2000, 0, 0]
    assert tick[BID_PX:BID_PX + 3] == (9950000000, 99 * ONE, 0) and tick[BID_QTY:BID_QTY + 3] == (25000000, ONE, 0)
    assert tick[ASK_PX:ASK_PX + 2] == (101 * ONE, 0) and tick[ASK_QTY:ASK_QTY + 2] == (3 * ONE, 0)


def test_a_trade_is_a_tick_signed_by_its_aggressor_with_the_book_as_it_stands():
    driven = Driven()
    driven.feed(snapshot("A", 1), trade("A", 5, "100.5", "2"), trade("A", 6, 99, 3, "SELL"))
    assert driven.kinds() == [RESET, TRADE, TRADE]
    first, second = driven.books.read(0, 2), driven.books.read(0, 3)
    assert (first[VENUE_ID], first[EVENT_NS], first[TRADE_PX], first[TRADE_QTY]) == (
        5, 2005 * 10**6, 10050000000, 2 * ONE)
    assert second[TRADE_QTY] == -3 * ONE and second[BID_PX] == 99 * ONE


def test_trades_are_ticks_only_while_the_book_is_valid():
    driven = Driven()
    assert driven.feed(trade("A", 1)) == 0
    assert (driven.counts.trades, driven.counts.ignored) == (0, 1)


def test_each_symbol_has_its_own_sequence_and_one_ref_for_all_it_did():
    driven = Driven()
    driven.feed(snapshot("A", 1), snapshot("B", 1), delta("A", 2), delta("A", 3))
    refs = driven.market.take_refs()
    assert [(ref.symbol, ref.seq, ref.epoch) for ref in refs] == [(0, 3, driven.books.tag), (1, 1, driven.books.tag)]
    assert driven.market.take_refs() == []


# ---- synchronisation in band


def test_a_gap_invalidates_that_symbol_alone_and_says_so_at_once():
    driven = Driven()
    driven.feed(snapshot("A", 1), snapshot("B", 1), delta("A", 3), delta("A", 4), delta("B", 2), trade("A", 1))
    assert driven.kinds(0) == [RESET, GONE] and driven.kinds(1) == [RESET, BOOK]
    assert driven.states() == [State.WAITING, State.VALID]
    assert driven.counts.gaps == 1 and driven.newest(0)[BID_PX] == 99 * ONE


def test_a_resync_is_asked_for_and_its_first_tick_is_a_reset():
    driven = Driven()
    driven.feed(snapshot("A", 1))
    driven.after(60).feed(delta("A", 3))
    driven.after(0)
    assert [b"unsubscribe" in driven.market.outbox[0], b"orderbook:A" in driven.market.outbox[1]] == [True, True]
    driven.feed(delta("A", 4), snapshot("A", 5, bids=[(90, 1)]), delta("A", 6))
    assert driven.kinds() == [RESET, GONE, RESET, BOOK]
    assert driven.counts.resyncs == 1 and driven.newest()[BID_PX] == 90 * ONE


def test_a_book_that_breaks_again_and_again_is_asked_for_at_growing_distances():
    driven = Driven(backoff_min_s=1.0, backoff_max_s=60.0)
    waits = []
    for sequence in range(1, 50, 10):
        driven.feed(snapshot("A", sequence), delta("A", sequence + 2))
        began = driven.clock.now_ns
        driven.market.outbox.clear()
        while not driven.after(0.1).market.outbox:
            pass
        waits.append((driven.clock.now_ns - began) / S)
    assert all(limit * 0.5 <= wait <= limit + 0.2 for wait, limit in zip(waits, (1, 2, 4, 8, 16)))


def test_a_snapshot_that_does_not_come_is_asked_for_again():
    driven = Driven(answer_s=5.0)
    driven.market.on_connect(driven.clock.now_ns)
    assert driven.after(4.9).market.outbox == []
    assert len(driven.after(0.2).market.outbox) == 4
    assert len(driven.after(5.1).market.outbox) == 8


def test_an_old_delta_is_dropped_and_a_repeated_snapshot_is_a_reset():
    driven = Driven()
    driven.feed(snapshot("A", 5), delta("A", 4), delta("A", 5), delta("A", 6), snapshot("A", 6), delta("A", 7))
    assert driven.kinds() == [RESET, BOOK, RESET, BOOK]
    assert (driven.counts.ignored, driven.counts.resyncs) == (2, 0)


@pytest.mark.parametrize("wrong", [delta("A", 2, bids=[(102, 1)]), snapshot("A", 9, bids=[(102, 1)])])
def test_a_crossed_book_is_never_published(wrong):
    driven = Driven()
    driven.feed(snapshot("A", 1), wrong)
    assert driven.kinds() == [RESET, GONE] and driven.counts.crossed == 1
    assert driven.states()[0] is State.WAITING


def test_a_locked_book_is_a_book():
    driven = Driven()
    driven.feed(snapshot("A", 1), delta("A", 2, bids=[(101, 1)]))
    assert driven.kinds() == [RESET, BOOK] and driven.counts.crossed == 0


# ---- synchronisation by HTTP


def futures(**settings) -> Driven:
    return Driven("binance-usdm", ("A", "B"), **settings)


def test_a_snapshot_and_the_deltas_that_waited_for_it_are_one_tick():
    driven = futures()
    assert driven.after(0).market.wants_snapshot == set()
    driven.feed(depth("A", 1, 10, 0, bids=[(50, 1)]), depth("A", 12, 20, 10, bids=[("99.5", 1)]),
                depth("A", 21, 30, 20, asks=[("100.5", 2)]))
    assert driven.states()[0] is State.BUFFERING and driven.after(0).market.wants_snapshot == {0}
    assert driven.market.on_snapshot(0, rest(15), driven.clock.now_ns) == 1
    assert driven.feed(depth("A", 31, 40, 30)) == 1
    assert driven.kinds() == [RESET, BOOK]
    tick = driven.books.read(0, 1)
    assert (tick[VENUE_ID], tick[EVENT_NS]) == (30, 1000 * 10**6)
    assert (tick[BID_PX], tick[BID_PX + 1], tick[ASK_PX]) == (9950000000, 99 * ONE, 10050000000)
    assert 50 * ONE not in tick, "a delta older than the snapshot was applied"


def test_the_first_delta_after_a_snapshot_newer_than_all_that_waited_must_join_it():
    for first, kinds in ((16, [RESET, GONE]), (15, [RESET, BOOK])):
        driven = futures()
        driven.feed(depth("A", 1, 10, 0))
        driven.market.on_snapshot(0, rest(15), driven.clock.now_ns)
        driven.feed(depth("A", first, 20, 10))
        assert driven.kinds() == kinds


def test_a_snapshot_older_than_what_waited_is_replaced_by_a_newer_one():
    driven = futures()
    driven.feed(depth("A", 20, 30, 19))
    driven.after(0).market.wants_snapshot.clear()
    assert driven.market.on_snapshot(0, rest(10), driven.clock.now_ns) == 0
    assert driven.states()[0] is State.BUFFERING and driven.after(0).market.wants_snapshot == set()
    assert driven.after(1).market.wants_snapshot == {0}
    driven.market.on_snapshot(0, rest(25), driven.clock.now_ns)
    assert driven.kinds() == [RESET] and driven.counts.gaps == 0


def test_a_hole_in_what_waited_is_a_gap_and_what_follows_it_is_kept():
    driven = futures()
    driven.feed(depth("A", 5, 10, 4), depth("A", 21, 30, 20))
    assert driven.market.on_snapshot(0, rest(7), driven.clock.now_ns) == 0
    assert driven.counts.gaps == 1 and driven.after(1).market.wants_snapshot == {0}
    driven.market.on_snapshot(0, rest(25), driven.clock.now_ns)
    assert driven.kinds() == [RESET] and driven.newest()[VENUE_ID] == 30


def test_the_delta_that_reveals_a_gap_waits_for_the_next_snapshot():
    driven = futures()
    driven.feed(depth("A", 1, 10, 0))
    driven.market.on_snapshot(0, rest(5), driven.clock.now_ns)
    driven.after(60).feed(depth("A", 21, 30, 20), depth("A", 31, 40, 30))
    assert driven.kinds() == [RESET, GONE] and driven.after(0).market.wants_snapshot == {0}
    driven.market.on_snapshot(0, rest(22), driven.clock.now_ns)
    assert driven.kinds() == [RESET, GONE, RESET] and driven.newest()[VENUE_ID] == 40


def test_a_snapshot_that_failed_is_asked_for_again_not_before_the_venue_allows_it():
    driven = futures()
    driven.feed(depth("A", 1, 10, 0))
    driven.after(0).market.wants_snapshot.clear()
    driven.market.on_snapshot_failed(0, driven.clock.now_ns, retry_after_s=30)
    assert driven.after(29).market.wants_snapshot == set()
    assert driven.after(2).market.wants_snapshot == {0}


def test_a_snapshot_that_cannot_be_read_is_refused_and_asked_for_again():
    driven = futures()
    driven.feed(depth("A", 1, 10, 0))
    driven.after(0).market.wants_snapshot.clear()
    assert driven.market.on_snapshot(0, b'{"code":-1121,"msg":"Invalid symbol."}', driven.clock.now_ns) == 0
    assert driven.counts.malformed == 1 and "bids" in driven.market.refused[0].error
    assert driven.after(1).market.wants_snapshot == {0}


def test_a_snapshot_that_comes_too_late_changes_nothing():
    driven = futures()
    driven.feed(depth("A", 1, 10, 0))
    for last in (5, 2):
        driven.market.on_snapshot(0, rest(last), driven.clock.now_ns)
    assert driven.kinds() == [RESET] and driven.counts.snapshots == driven.counts.ignored == 1


def test_deltas_that_wait_for_a_snapshot_that_never_comes_do_not_fill_the_memory():
    driven = futures()
    for last in range(10, 30_000, 10):
        driven.feed(depth("A", last - 9, last, last - 10, bids=[(90, 1)]))
    symbol = driven.market.symbols[0]
    assert len(symbol.buffer) == symbol.buffered_levels == 1000
    driven.market.on_snapshot(0, rest(symbol.buffer[0].first_id), driven.clock.now_ns)
    assert driven.kinds() == [RESET] and symbol.buffered_levels == 0


# ---- the connection, the process


def test_a_disconnect_invalidates_every_book_and_forgets_what_was_asked():
    driven = Driven()
    driven.feed(snapshot("A", 1), snapshot("B", 1), ticker("A", 5), delta("A", 3))
    driven.after(60)
    assert driven.market.outbox and driven.market.on_disconnect(driven.clock.now_ns) == 1
    assert driven.kinds(0) == driven.kinds(1) == [RESET, GONE]
    assert not driven.market.outbox and driven.market.valid_symbols == 0
    driven.feed(snapshot("A", 1))
    assert driven.market.valid_symbols == 1 and driven.kinds(0)[-1] == RESET


def test_a_restart_goes_on_counting_and_first_withdraws_what_the_dead_process_claimed():
    first = Driven()
    first.feed(snapshot("A", 1), delta("A", 2))
    second = Driven(books=first.books)
    assert second.kinds(0) == [RESET, BOOK, GONE] and second.kinds(1) == []
    assert second.newest(0)[BID_PX] == 99 * ONE and second.newest(0)[VENUE_ID] == 2
    assert [ref.symbol for ref in second.market.take_refs()] == [0]
    second.feed(snapshot("A", 9))
    assert second.newest(0)[SEQ] == 4
    third = Driven(books=second.books)
    fourth = Driven(books=second.books)
    assert third.newest()[SEQ] == fourth.newest()[SEQ] == 5, "what is invalid is not withdrawn twice"


# ---- anything

PRICES, SIZES = st.integers(95, 105), st.integers(0, 2)
SIDES = st.lists(st.tuples(PRICES, SIZES), max_size=3)
STEPS = st.one_of(
    st.tuples(st.just("delta"), st.sampled_from([1, 1, 1, 1, 1, 0, 2]), SIDES, SIDES),
    st.tuples(st.just("snapshot"), st.integers(0, 3), SIDES, SIDES), st.tuples(st.just("trade")),
    st.tuples(st.just("quote")), st.tuples(st.just("disconnect")), st.tuples(st.just("garbage"), st.binary(max_size=9)))


@settings(max_examples=120)
@given(st.lists(STEPS, max_size=60), st.booleans())
def test_whatever_comes_the_ring_tells_a_consistent_story(steps, by_http):
    """No tick of a book or trade while it is not valid, no valid book that is crossed, a reset after each break."""
    driven = Driven("binance-usdm" if by_http else "vectrade", ("A",), capacity=256)
    at = 1
    for kind, *rest_of in steps:
        driven.after(0.5)
        if kind == "delta":
            step, bids, asks = rest_of
            frame = depth("A", at, at + step, at, bids, asks) if by_http else delta("A", at + step, bids, asks)
            at += step
            driven.feed(frame)
        elif kind == "snapshot":
            back, bids, asks = rest_of
            if by_http:
                driven.market.on_snapshot(0, rest(max(at - back, 0), bids, asks), driven.clock.now_ns)
            else:
                driven.feed(snapshot("A", at, bids, asks))
        elif kind == "disconnect":
            driven.market.on_disconnect(driven.clock.now_ns)
        else:
            driven.feed({"trade": trade("A", 1), "quote": ticker("A", at)}.get(kind, bytes(*rest_of)))
        driven.market.symbols[0].book._check()
    valid = False
    for seq in range(1, int(driven.books.heads[0]) + 1):
        tick = driven.books.read(0, seq)
        if (tick[KIND], tick[FLAGS]) == GONE:
            assert valid, "withdrawn twice"
        elif (tick[KIND], tick[FLAGS]) != RESET:
            assert valid and tick[FLAGS] == FLAG_VALID
        valid = tick[KIND] != KIND_STATE
        assert not valid or not tick[BID_PX] or not tick[ASK_PX] or tick[BID_PX] <= tick[ASK_PX]
    assert valid == bool(driven.market.valid_symbols) and driven.books.heads[0] == driven.counts.ticks


# ---- the audit


ORDERS = {"quote first": "QCL", "delta first": "CQL", "quote late": "CLQ", "two ahead": "QACL"}


def in_order(order: str, quote: bytes) -> list[bytes]:
    """A quote of update 2 before, at and after the delta that makes it."""
    frames = {"Q": quote, "A": ticker("A", 3, bid=100), "C": delta("A", 2, bids=[("99.5", 1)]),
              "L": delta("A", 3, bids=[(100, 1)])}
    return [snapshot("A", 1), *(frames[letter] for letter in ORDERS[order])]


@pytest.mark.parametrize("order", ORDERS)
def test_a_quote_is_compared_whichever_comes_first(order):
    driven = Driven()
    driven.feed(*in_order(order, ticker("A", 2, bid="99.5")))
    assert (driven.counts.quote_checks, driven.counts.quote_mismatches) == (1 + (order == "two ahead"), 0)
    assert driven.kinds() == [RESET, BOOK, BOOK], "quotes make no ticks"


@pytest.mark.parametrize("order", ORDERS)
def test_a_quote_that_contradicts_the_book_invalidates_it_until_a_new_snapshot(order):
    driven = Driven()
    driven.feed(*in_order(order, ticker("A", 2, bid="99.4")))
    assert driven.counts.quote_mismatches == 1 and driven.market.valid_symbols == 0
    assert driven.kinds()[-1] == GONE
    driven.clock.set(driven.clock.now_ns + 10**9)
    driven.market.work()
    assert [orjson.loads(frame)["action"] for frame in driven.market.outbox] == ["unsubscribe", "subscribe"]
    driven.feed(snapshot("A", 7))
    assert driven.market.valid_symbols == 1 and driven.kinds()[-1] == RESET


def test_update_ids_that_begin_anew_are_not_taken_for_the_old_ones():
    driven = Driven()
    driven.feed(ticker("A", 0), snapshot("A", 1), delta("A", 2), delta("A", 3))
    driven.market.on_disconnect(driven.clock.now_ns)
    driven.feed(ticker("A", 2, bid=50), ticker("A", 0, bid=50), snapshot("A", 1, bids=[(50, 1)]),
                delta("A", 2), ticker("A", 1, bid=50), ticker("A", 2, bid=50))
    assert (driven.counts.quote_checks, driven.counts.quote_mismatches) == (3, 0)


def test_the_memory_of_the_audit_is_bounded():
    driven = Driven()
    driven.feed(snapshot("A", 1), *(ticker("A", 10 + i) for i in range(6000)))
    driven.feed(*(delta("A", 2 + i) for i in range(500)))
    symbol = driven.market.symbols[0]
    assert len(symbol.quotes) <= 4096


# ---- what venues send besides


def test_a_malformed_frame_is_counted_and_kept_and_ends_nothing():
    driven = Driven()
    bad = [b"", b"nonsense", b"[]", b'{"type":"strange"}', delta("A", 2)[:-1], b"\xff" * 10_000]
    driven.feed(snapshot("A", 1), *bad, *bad, delta("A", 2))
    assert driven.counts.malformed == 2 * len(bad) and len(driven.market.refused) == KEPT
    assert len(driven.market.refused[-1].frame) == KEPT_BYTES and driven.market.refused[-1].recv_ns == 1000
    assert driven.kinds() == [RESET, BOOK]


def test_a_delta_lost_to_damage_is_found_by_its_sequence():
    driven = Driven()
    driven.feed(snapshot("A", 1), delta("A", 2).replace(b"sequence", b"sequenze"), delta("A", 3))
    assert driven.kinds() == [RESET, GONE] and driven.counts.malformed == driven.counts.gaps == 1


def test_a_book_of_a_hostile_size_is_refused():
    driven = Driven(symbols=("A",))
    driven.feed(snapshot("A", 1))
    prices = iter(range(10**9, 200, -1))  # each the best so far, so that the test is quick
    for sequence in range(2, 6):
        driven.feed(delta("A", sequence, asks=[(next(prices), 1) for _ in range(40_000)]))
    assert driven.kinds() == [RESET, BOOK, BOOK, BOOK, GONE] and "too many levels" in driven.market.refused[0].error


def test_errors_of_the_venue_are_counted_and_handed_on():
    driven = Driven()
    driven.feed(b'{"type":"error","code":"UNKNOWN_CHANNEL","message":"orderbook:A"}',
                b'{"type":"heartbeat","timestamp":1}', trade("C", 1))
    assert driven.counts.venue_errors == 1 and driven.counts.ignored == 2 and driven.counts.malformed == 0
    assert driven.market.notices[0].text == "UNKNOWN_CHANNEL: orderbook:A"


def test_warming_up_twice_is_no_harm():
    warm_up()
    warm_up()
