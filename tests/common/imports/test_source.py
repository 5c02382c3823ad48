"""Events that never were frames: numbered, checked by the market, and told in frames that mean the same."""

from collections import deque

import numpy as np
import pytest

from common import capture_lines
from common.clock import ManualClock
from common.errors import VenueError
from common.events import Delta, Lost, Snapshot, Trade
from common.imports.source import Numbers, Prepared, Words
from common.layout import FLAGS, KIND, RECV_NS, TICK_WIDTH
from common.market import Market
from common.player import Player
from common.ring import Books
from common.venues import create

MS = 1_000_000
SYMBOLS = ("A", "B-C")


def steps() -> list[tuple[int, list]]:
    """A short life of two books, with times of whole milliseconds."""
    a, b = Numbers(0), Numbers(1)
    return [
        (1000, [a.snapshot(7 * MS, {100: 5, 99: 6, 98: 0}, {102: 7})]),
        (1001, [b.snapshot(8 * MS, {50: 1}, {})]),
        (1002, [Trade(0, 77, 9 * MS, 102, 3), a.delta(9 * MS, [], [(102, 4)])]),
        (1003, [a.delta(10 * MS, [(100, 0), (97, 2)], [(101, 8)]), b.delta(10 * MS, [(49, 5)], [(60, 1)])]),
        (1004, [Trade(1, 0, 11 * MS, 50, -1)]),
        (1005, [Lost(0, "halt")]),
        (1006, [a.delta(12 * MS, [(96, 1)], [])]),
        (1007, [a.snapshot(13 * MS, {90: 1}, {91: 1}), b.snapshot(13 * MS, {50: 1}, {60: 1})]),
    ]


def ticks(books: Books, symbol: int) -> np.ndarray:
    found = books.ticks[symbol][1:int(books.heads[symbol]) + 1].copy()
    found[:, 6] = 0  # when we made it
    return found


def test_prepared_events_make_ticks_as_frames_do():
    books = Books.private(SYMBOLS, 64)
    market = Market(Prepared(SYMBOLS), books, ManualClock())
    for recv_ns, events in steps():
        market.on_frame(events, recv_ns)
    found = ticks(books, 0)
    assert found.shape == (6, TICK_WIDTH)
    assert found[:, KIND].tolist() == [1, 2, 1, 1, 3, 1]
    assert found[:, FLAGS].tolist() == [3, 1, 1, 1, 0, 3]
    assert found[:, RECV_NS].tolist() == [1000, 1002, 1002, 1003, 1005, 1007]
    assert found[3, 16:18].tolist() == [99, 97] and found[3, 36:38].tolist() == [101, 102]
    assert market.counts.ignored == 1 and market.counts.gaps == 0


def test_a_hole_in_the_numbers_is_a_gap():
    numbers, books = Numbers(0), Books.private(("A",), 8)
    market = Market(Prepared(("A",)), books, ManualClock())
    market.on_frame([numbers.snapshot(0, {1: 1}, {2: 1})], 0)
    numbers.delta(0, [(1, 2)], [])
    market.on_frame([numbers.delta(0, [(1, 3)], [])], 0)
    assert market.counts.gaps == 1


def test_told_in_words_they_are_the_same_ticks():
    """But for a loss, which ends the connection and with it the books of all symbols."""
    lost = [step for step in steps() if not isinstance(step[1][0], Lost)]
    direct, played = Books.private(SYMBOLS, 64), Books.private(SYMBOLS, 64)
    market = Market(Prepared(SYMBOLS), direct, ManualClock())
    venue = create("vectrade", SYMBOLS)
    clock = ManualClock()
    player = Player(Market(venue, played, clock), venue, clock)
    words = Words(SYMBOLS)
    for recv_ns, events in lost:
        market.on_frame(events, recv_ns)
        for text in words.lines(events):
            assert capture_lines.stands(text)
            player.play(recv_ns, text)
    for symbol in range(2):
        assert (ticks(direct, symbol) == ticks(played, symbol)).all()
    assert player.market.counts.malformed == 0


def test_a_loss_is_told_by_ending_the_connection():
    kinds = [type(capture_lines.parse(text)).__name__ for text in Words(("A",)).lines([Lost(0, "halt")])]
    assert kinds == ["Disconnect", "Connect"]


def test_the_frames_are_those_that_the_fast_path_of_the_venue_reads():
    venue, words, numbers = create("vectrade", ("A",)), Words(("A",)), Numbers(0)
    events = [numbers.snapshot(5 * MS, {100: 1}, {101: 2}), numbers.delta(6 * MS + 1, [(100, 0)], [(101, 3)]),
              Trade(0, 3, 7 * MS, 101, -2)]
    told = [venue.decode(text)[0] for text in words.lines(events)]
    assert [type(event) for event in told] == [Snapshot, Delta, Trade]
    assert told[1].event_ns == 6 * MS and told[2] == events[2]
    assert all(venue._scanner.match(text)[0] >= 0 for text in words.lines(events))


def test_a_number_beyond_64_bits_is_refused():
    with pytest.raises(VenueError, match="64 bits"):
        Numbers(0).delta(0, [(2**63, 1)], [])


def test_the_words_of_many_events_are_lazy():
    assert deque(Words(("A",)).lines(Trade(0, i, 0, 1, 1) for i in range(1000)), maxlen=1)
