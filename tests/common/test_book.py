"""The compiled book against a plain dictionary, and at its edges."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from common.book import CROSSED, LOCKED, MAX_LEVELS, SOUND, Book, write_top
from common.errors import VenueError
from common.layout import ASK_PX, BID_PX, LEVELS, TICK_WIDTH

SIDE = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=25)


def levels(*sides) -> np.ndarray:
    return np.array([level for side in sides for level in side], np.int64).reshape(-1, 2)


def apply(book: Book, bids=(), asks=()) -> int:
    return book.apply(levels(bids, asks), len(bids), len(asks))


class AgainstADict(RuleBasedStateMachine):
    @initialize(capacity=st.sampled_from([1, 8, 1024]))
    def begin(self, capacity):
        self.book, self.bids, self.asks = Book(capacity), {}, {}

    def change(self, bids, asks):
        for side, changes in ((self.bids, bids), (self.asks, asks)):
            for price, quantity in changes:
                side[price] = quantity
                if not quantity:
                    del side[price]

    def expected(self):
        if not self.bids or not self.asks or max(self.bids) < min(self.asks):
            return SOUND
        return CROSSED if max(self.bids) > min(self.asks) else LOCKED

    @rule(bids=SIDE, asks=SIDE)
    def apply(self, bids, asks):
        self.change(bids, asks)
        assert apply(self.book, bids, asks) == self.expected()

    @rule(bids=SIDE, asks=SIDE)
    def load(self, bids, asks):
        self.bids, self.asks = {}, {}
        bids, asks = list(dict(bids).items()), list(dict(asks).items())
        self.change(bids, asks)
        assert self.book.load(levels(bids, asks), len(bids), len(asks)) == self.expected()

    @rule()
    def clear(self):
        self.book.clear()
        self.bids, self.asks = {}, {}

    @invariant()
    def the_same(self):
        bids, asks = sorted(self.bids.items(), reverse=True), sorted(self.asks.items())
        self.book._check()
        assert self.book.bids() == bids and self.book.asks() == asks
        assert self.book.best() == (*(bids or [(0, 0)])[0], *(asks or [(0, 0)])[0])
        record = np.full(TICK_WIDTH, -1, np.int64)
        write_top(self.book.state, record)
        for column, side in ((BID_PX, bids), (ASK_PX, asks)):
            padded = (side + [(0, 0)] * LEVELS)[:LEVELS]
            assert record[column:column + LEVELS].tolist() == [price for price, _ in padded]
            assert record[column + LEVELS:column + 2 * LEVELS].tolist() == [quantity for _, quantity in padded]
        assert (record[:BID_PX] == -1).all()


AgainstADict.TestCase.settings = settings(max_examples=60, stateful_step_count=20)
TestAgainstADict = AgainstADict.TestCase


def test_the_last_change_of_a_level_in_one_delta_wins():
    book = Book()
    apply(book, bids=[(5, 1), (5, 7), (6, 1), (6, 0)])
    assert book.bids() == [(5, 7)] and book.asks() == []


def test_a_snapshot_may_come_in_any_order():
    bids, asks = [(10, 1), (8, 2), (9, 3)], [(12, 1), (14, 1), (13, 0)]
    book = Book()
    assert book.load(levels(bids, asks), 3, 3) == SOUND
    assert book.bids() == [(10, 1), (9, 3), (8, 2)] and book.asks() == [(12, 1), (14, 1)]


def test_it_grows_as_far_as_it_must_and_no_further_than_it_may():
    book = Book(capacity=2)
    prices = range(1, 5001)
    apply(book, asks=[(price, 1) for price in prices])
    book._check()
    assert [price for price, _ in book.asks()] == list(prices)
    with pytest.raises(VenueError, match="levels="):
        book.apply(np.ones((MAX_LEVELS + 1, 2), np.int64), 0, MAX_LEVELS + 1)


def test_changes_far_from_the_best_price_are_found_too():
    book = Book()
    apply(book, bids=[(price, price) for price in range(2, 2002, 2)])
    apply(book, bids=[(2, 0), (1000, 5), (1001, 6), (1, 7), (2001, 8)])
    assert book.bids(1) == [(2001, 8)] and book.bids()[-1] == (1, 7)
    assert {(1000, 5), (1001, 6)} <= set(book.bids()) and 2 not in dict(book.bids())
    book._check()


@pytest.mark.parametrize(("damage", "message"), [
    ((0, 5), "count within capacity"), ((0, 3), "keys rise"), ((4, 99), "keys rise"),
    ((5, 0), "quantities above 0"), ((4, -3), "prices above 0")])
def test_the_check_finds_damage_and_shows_the_state(damage, message):
    book = Book(capacity=4)
    apply(book, bids=[(5, 1), (6, 1)], asks=[(8, 1)])
    at, value = damage
    book.state[at] = value
    with pytest.raises(AssertionError, match=message) as found:
        book._check()
    assert "best first" in str(found.value)
