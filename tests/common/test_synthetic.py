"""The synthetic market: a pure function of its arguments, a proper book at every step, a signal of known strength."""

import itertools

import numpy as np
import orjson
import pytest

from common import fixed
from common.synthetic import DEPTH, FEWEST, LISTINGS, MAX_SPREAD, SyntheticMarket

SYMBOLS = ("BTC-USD", "ETH-USD", "AAPL", "XAU-USD")


def frames(count: int, **kwargs) -> list[tuple[int, bytes]]:
    return list(itertools.islice(SyntheticMarket(SYMBOLS, **kwargs).frames(1e9), count))


class Replica:
    """A book rebuilt from frames alone."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[int, int]] = {"bids": {}, "asks": {}}
        self.sequence = 0

    def apply(self, message: dict) -> None:
        if message["type"] == "snapshot":
            self.sides = {"bids": {}, "asks": {}}
        else:
            assert message["sequence"] == self.sequence + 1
        self.sequence = message["sequence"]
        for name, side in self.sides.items():
            prices = [price for price, _ in message[name]]
            assert len(set(prices)) == len(prices), "a price is said once"
            for price, quantity in message[name]:
                price, quantity = fixed.parse(price), fixed.parse(quantity)
                if quantity:
                    side[price] = quantity
                else:
                    side.pop(price, None)  # it may have come and gone within the step

    def levels(self) -> tuple[list, list]:
        return (sorted(self.sides["bids"].items(), reverse=True), sorted(self.sides["asks"].items()))


def test_same_arguments_same_bytes():
    assert frames(3000, seed=7, start_ms=1_700_000_000_000) == frames(3000, seed=7, start_ms=1_700_000_000_000)


def test_another_seed_is_another_market():
    assert frames(300, seed=7) != frames(300, seed=8)


def test_a_book_rebuilt_from_the_frames_is_the_book_and_never_crosses():
    market = SyntheticMarket(SYMBOLS, seed=3, start_ms=1000)
    replicas = {symbol: Replica() for symbol in SYMBOLS}
    for _, frame in market.frames(30.0):
        message = orjson.loads(frame)
        kind, _, symbol = message["channel"].partition(":")
        if kind == "orderbook":
            replicas[symbol].apply(message)
            bids, asks = replicas[symbol].levels()
            assert bids[0][0] < asks[0][0]
    for book in market.books:
        assert replicas[book.name].levels() == (book.levels(True), book.levels(False))
        assert replicas[book.name].sequence == book.sequence


def test_every_step_leaves_a_proper_book():
    market = SyntheticMarket(SYMBOLS, seed=5)
    for _ in range(20_000):
        book = market.books[market.step().symbol]
        book.check()
        assert FEWEST <= len(book.levels(True)) <= DEPTH and FEWEST <= len(book.levels(False)) <= DEPTH
        assert 1 <= (book.ask - book.bid) // book.listing.tick <= MAX_SPREAD


def test_every_step_changes_one_book_and_takes_its_share_of_time():
    market = SyntheticMarket(SYMBOLS, seed=5, rate=400.0, start_ms=50_000)
    before = [book.sequence for book in market.books]
    for number in range(1, 2000):
        step = market.step()
        assert step.bids or step.asks
        before[step.symbol] += 1
        assert step.sequence == before[step.symbol]
        assert step.time_ms == 50_000 + number * 1000 // 400
    assert before == [book.sequence for book in market.books]


def test_trades_happen_at_the_best_price_of_the_side_they_take_from():
    market = SyntheticMarket(SYMBOLS, seed=9)
    seen = 0
    for _ in range(20_000):
        tops = [(book.bid, book.ask) for book in market.books]
        step = market.step()
        for _, price, quantity in step.trades[:1]:
            assert price == tops[step.symbol][quantity > 0] and quantity
            seen += 1
    assert seen > 1000


def test_liquidity_that_is_taken_leaves_as_a_delta_and_comes_back():
    market = SyntheticMarket(("AAPL",), seed=2)
    book = market.books[0]
    replica = Replica()
    replica.apply(orjson.loads(market.snapshot(0)))
    rng = np.random.default_rng(1)
    for _ in range(300):
        buy = bool(rng.integers(2))
        levels = book.levels(not buy)[:int(rng.integers(1, DEPTH + 1))]
        if rng.integers(2):  # leave something of the last level
            levels[-1] = (levels[-1][0], max(levels[-1][1] // 3, 1))
        step = market.take(0, buy, levels)
        assert [(price, quantity if buy else -quantity) for price, quantity in levels] \
            == [(price, quantity) for _, price, quantity in step.trades]
        replica.apply(orjson.loads(market.delta(step)))
        assert replica.levels() == (book.levels(True), book.levels(False))
        for _ in range(int(rng.integers(1, 30))):
            replica.apply(orjson.loads(market.delta(market.step())))
            book.check()
        assert replica.levels() == (book.levels(True), book.levels(False))
    for _ in range(200):
        market.step()
    assert (book.ask - book.bid) // book.listing.tick <= MAX_SPREAD


def test_a_side_that_is_taken_whole_is_quoted_as_nothing_and_filled_by_the_next_step():
    market = SyntheticMarket(("AAPL",), seed=2)
    book = market.books[0]
    market.take(0, True, book.levels(False))
    assert book.levels(False) == []
    assert orjson.loads(market.ticker(0)) | {"ask": "0", "ask_size": "0"} == orjson.loads(market.ticker(0))
    market.step()
    assert len(book.levels(False)) >= FEWEST


def test_more_than_is_displayed_cannot_be_taken():
    market = SyntheticMarket(("AAPL",), seed=2)
    price, quantity = market.books[0].levels(False)[0]
    with pytest.raises(ValueError, match="more than is displayed"):
        market.take(0, True, [(price, quantity + 1)])


def test_sequences_grow_over_a_new_beginning():
    market = SyntheticMarket(SYMBOLS, seed=1, start_ms=1_000_000)
    for _ in range(4000):
        market.step()
    again = SyntheticMarket(SYMBOLS, seed=1, start_ms=market.time_ms)
    assert all(new.sequence > old.sequence for new, old in zip(again.books, market.books))


def test_a_symbol_can_begin_at_another_price():
    market = SyntheticMarket(("BTC-USD", "NEW"), seed=1, prices={"BTC-USD": fixed.parse("70003.21")})
    assert abs(market.books[0].mid - fixed.parse("70000")) <= 2 * LISTINGS["BTC-USD"].tick
    assert abs(market.books[1].mid - fixed.parse("100")) <= fixed.parse("0.02")


# What a model can find.

HORIZON_S = 30
RATE = 60.0  # the dynamics are in seconds, so that a coarse market shows the same signal


def area_under_curve(score: np.ndarray, up: np.ndarray) -> float:
    ranks = np.argsort(np.argsort(score))
    ups, downs = up.sum(), (~up).sum()
    return float((ranks[up].sum() - ups * (ups - 1) / 2) / (ups * downs))


@pytest.fixture(scope="module")
def history() -> dict[str, np.ndarray]:
    """An hour of four symbols, a sample a second: [symbol, time]."""
    market = SyntheticMarket(SYMBOLS, seed=11, rate=RATE)
    flow = [0.0] * len(SYMBOLS)
    rows: list[list[tuple]] = [[] for _ in SYMBOLS]
    for _ in range(3600):
        for _ in range(int(RATE)):
            step = market.step()
            flow[step.symbol] += sum(quantity for _, _, quantity in step.trades)
        for i, book in enumerate(market.books):
            flow[i] *= 0.9
            bid, ask = sum(book.bids[:10]), sum(book.asks[:10])
            rows[i].append(((book.bid + book.ask) / 2, (bid - ask) / (bid + ask), flow[i], book.signal))
    values = np.array(rows)
    return dict(zip(("mid", "imbalance", "flow", "signal"), np.moveaxis(values, 2, 0)))


@pytest.mark.parametrize(("feature", "low", "high"),
                         [("signal", 0.68, 0.82), ("imbalance", 0.60, 0.76), ("flow", 0.60, 0.78)])
def test_what_the_book_shows_now_predicts_the_next_half_minute(history, feature, low, high):
    move = history["mid"][:, HORIZON_S:] - history["mid"][:, :-HORIZON_S]
    score = history[feature][:, :-HORIZON_S]
    assert low < area_under_curve(score[move != 0], move[move != 0] > 0) < high


def test_the_past_half_minute_is_not_predicted_better_than_the_next(history):
    """The signal leads the price: its tie with what follows is real, not a trace of what was."""
    mid, signal = history["mid"], history["signal"][:, HORIZON_S:-HORIZON_S]
    after = (mid[:, 2 * HORIZON_S:] - mid[:, HORIZON_S:-HORIZON_S]).ravel()
    assert np.corrcoef(signal.ravel(), np.sign(after))[0, 1] > 0.3


def test_volatility_comes_in_clusters(history):
    returns = np.diff(np.log(history["mid"]), axis=1)
    size = np.abs(returns - returns.mean(axis=1, keepdims=True))
    lagged = [np.corrcoef(row[:-5], row[5:])[0, 1] for row in size]
    assert np.mean(lagged) > 0.05


def test_a_half_minute_moves_the_price_by_about_nine_basis_points(history):
    mid = np.log(history["mid"])
    moves = (mid[:, HORIZON_S:] - mid[:, :-HORIZON_S]) * 1e4
    assert 6 < moves.std() < 13
