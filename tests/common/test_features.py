"""Each feature against a plain NumPy reference on recorded data, and what holds for all of them.

The ticks come from a recorded Binance file through a book made of dictionaries, written here and sharing nothing
with the code under test.
"""

import gzip
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import captures, feature_kernel, fixed, layout, venues
from common.clock import ManualClock
from common.feature_kernel import Column
from common.feature_set import DEFAULT
from common.features import FEATURES, Feature, schema_hash
from common.market import Market
from common.ring import Books, Rows
from tests.feature_ticks import BEGIN_NS, MAX, MS, Pipe, make_tick, matrix, random_ticks

# From a recording to ticks.

@pytest.fixture(scope="module")
def ticks(recordings) -> np.ndarray:
    """int64[N, TICK_WIDTH] of recorded book changes and trades; tick n at index n - 1."""
    events = []
    snapshot = None
    with gzip.open(recordings / "binance" / "usdm_btcusdt_20240718.gz", "rt") as lines:
        for line in lines:
            message = json.loads(line.split(" ", 1)[1])
            if "stream" not in message:
                snapshot = message
            elif "@depth" in message["stream"] or "@trade" in message["stream"]:
                events.append(message["data"])
    bids = {fixed.parse(p): fixed.parse(q) for p, q in snapshot["bids"]}
    asks = {fixed.parse(p): fixed.parse(q) for p, q in snapshot["asks"]}
    found = []
    for data in events:
        if data["e"] == "depthUpdate":
            if data["u"] < snapshot["lastUpdateId"]:
                continue
            for side, changes in ((bids, data["b"]), (asks, data["a"])):
                for price, quantity in changes:
                    side[fixed.parse(price)] = fixed.parse(quantity)
                    if not side[fixed.parse(price)]:
                        del side[fixed.parse(price)]
        elif not found:
            continue
        best = sorted(bids, reverse=True)[:10], sorted(asks)[:10]
        tick = make_tick(len(found) + 1, [(p, bids[p]) for p in best[0]], [(p, asks[p]) for p in best[1]],
                         event_ns=data["T"] * MS)
        if data["e"] == "trade":
            tick[layout.KIND] = layout.KIND_TRADE
            tick[layout.TRADE_PX] = fixed.parse(data["p"])
            tick[layout.TRADE_QTY] = fixed.parse(data["q"]) * (-1 if data["m"] else 1)
        found.append(tick)
    return np.array(found)


# The references: the formulas of the table, written out over whole columns of floats.

class Levels:
    """The columns of `ticks` as floats, as the formulas name them; level i at index i - 1."""

    def __init__(self, ticks: np.ndarray) -> None:
        def take(first: int) -> np.ndarray:
            return ticks[:, first:first + layout.LEVELS].astype(float)

        self.Pb, self.Qb, self.Pa, self.Qa = map(take, (
            layout.BID_PX, layout.BID_QTY, layout.ASK_PX, layout.ASK_QTY))
        self.mid = (self.Pb[:, 0] + self.Pa[:, 0]) / 2
        self.two_sided = (self.Qb[:, 0] > 0) & (self.Qa[:, 0] > 0)
        self.time = ticks[:, layout.EVENT_NS]
        self.x = np.where(ticks[:, layout.KIND] == layout.KIND_TRADE, ticks[:, layout.TRADE_QTY], 0).astype(float)

    def depths(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self.Qb[:, :k].sum(1), self.Qa[:, :k].sum(1)


def quotient(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole != 0)


def last(k: int, values: np.ndarray) -> np.ndarray:
    """sum_k: over the last k ticks, fewer at the beginning."""
    padded = np.concatenate([np.zeros(k), values])
    return np.lib.stride_tricks.sliding_window_view(padded, k)[1:].sum(1)


def obi(b: Levels, k: int) -> np.ndarray:
    bid, ask = b.depths(k)
    return quotient(bid - ask, bid + ask)


def in_bps_of_mid(b: Levels, value: np.ndarray) -> np.ndarray:
    return 1e4 * quotient(np.where(b.two_sided, value, 0.0), b.mid)


def mean_prices(b: Levels) -> tuple[np.ndarray, np.ndarray]:
    """vb - mid and va - mid over 5 levels."""
    return tuple(quotient((quantity[:, :5] * (price[:, :5] - b.mid[:, None])).sum(1), quantity[:, :5].sum(1))
                 for price, quantity in ((b.Pb, b.Qb), (b.Pa, b.Qa)))


def weighted_mid(b: Levels) -> np.ndarray:
    pb, qb, pa, qa = b.Pb[:, 0] - b.mid, b.Qb[:, 0], b.Pa[:, 0] - b.mid, b.Qa[:, 0]
    return in_bps_of_mid(b, quotient(pb * qa + pa * qb, qa + qb))


def micro_price(b: Levels) -> np.ndarray:
    (bid, ask), (vb, va) = b.depths(5), mean_prices(b)
    return in_bps_of_mid(b, quotient(ask * vb + bid * va, ask + bid))


def log_return(b: Levels) -> np.ndarray:
    r = np.zeros(len(b.mid))
    defined = b.two_sided[1:] & b.two_sided[:-1]
    r[1:][defined] = np.log(b.mid[1:][defined] / b.mid[:-1][defined])
    return r


def volatility(b: Levels, k: int) -> np.ndarray:
    return 1e4 * np.sqrt(last(k, np.minimum(log_return(b)**2, 2.0**-10)) / k)


def order_flow(b: Levels) -> np.ndarray:
    pb, pa = np.where(b.Qb[:, 0] > 0, b.Pb[:, 0], -np.inf), np.where(b.Qa[:, 0] > 0, b.Pa[:, 0], np.inf)
    qb, qa = b.Qb[:, 0], b.Qa[:, 0]
    e = np.zeros(len(pb))
    e[1:] = ((pb[1:] >= pb[:-1]) * qb[1:] - (pb[1:] <= pb[:-1]) * qb[:-1]
             - (pa[1:] <= pa[:-1]) * qa[1:] + (pa[1:] >= pa[:-1]) * qa[:-1])
    return e


def ofi(b: Levels, k: int) -> np.ndarray:
    return quotient(last(k, order_flow(b)), last(100, (b.Qb[:, 0] + b.Qa[:, 0]) / 2) / 100)


def trade_imbalance(b: Levels, k: int) -> np.ndarray:
    return quotient(last(k, b.x), last(k, np.abs(b.x)))


def trade_age(b: Levels) -> np.ndarray:
    age = np.full(len(b.x), 60.0)
    for n in range(len(age)):
        trades = np.flatnonzero(b.x[max(0, n - 249):n + 1])
        if len(trades):
            age[n] = np.clip((b.time[n] - b.time[max(0, n - 249) + trades[-1]]) / 1e9, 0, 60)
    return age


def front_tilt(b: Levels) -> np.ndarray:
    bid, ask = b.depths(5)
    return quotient(b.Qb[:, 0], bid) - quotient(b.Qa[:, 0], ask)


def depth_250(b: Levels) -> np.ndarray:
    depth = sum(b.depths(5))
    return np.log(np.where(depth > 0, quotient(depth, last(250, depth) / 250), 1.0))


REFERENCES: dict[str, Callable[[Levels], np.ndarray]] = {
    "obi_1": lambda b: obi(b, 1),
    "obi_3": lambda b: obi(b, 3),
    "obi_5": lambda b: obi(b, 5),
    "obi_10": lambda b: obi(b, 10),
    "weighted_mid": weighted_mid,
    "micro_price": micro_price,
    "spread": lambda b: in_bps_of_mid(b, b.Pa[:, 0] - b.Pb[:, 0]),
    "micro_spread": lambda b: in_bps_of_mid(b, mean_prices(b)[1] - mean_prices(b)[0]),
    "return_1": lambda b: 1e4 * log_return(b),
    "return_10": lambda b: 1e4 * last(10, log_return(b)),
    "return_50": lambda b: 1e4 * last(50, log_return(b)),
    "return_200": lambda b: 1e4 * last(200, log_return(b)),
    "vol_20": lambda b: volatility(b, 20),
    "vol_100": lambda b: volatility(b, 100),
    "vol_250": lambda b: volatility(b, 250),
    "ofi_1": lambda b: ofi(b, 1),
    "ofi_20": lambda b: ofi(b, 20),
    "ofi_100": lambda b: ofi(b, 100),
    "trade_imbalance_20": lambda b: trade_imbalance(b, 20),
    "trade_imbalance_100": lambda b: trade_imbalance(b, 100),
    "trade_imbalance_250": lambda b: trade_imbalance(b, 250),
    "trade_age": trade_age,
    "front_tilt": front_tilt,
    "depth_250": depth_250,
}

each_feature = pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)


@pytest.fixture(scope="module")
def recorded(ticks) -> tuple[Levels, np.ndarray]:
    return Levels(ticks), matrix(ticks)


@each_feature
def test_a_feature_equals_its_plain_reference_on_recorded_data(feature: Feature, recorded):
    levels, found = recorded
    assert len(found) > 4000
    expected = REFERENCES[feature.name](levels)
    values = found[:, DEFAULT.names.index(feature.name)]
    assert np.ptp(values) > 0
    np.testing.assert_allclose(values, expected, rtol=3e-6, atol=1e-7 * np.abs(expected).max())


@pytest.fixture(scope="module")
def ragged() -> tuple[Levels, np.ndarray]:
    ticks = random_ticks(1500)
    return Levels(ticks), matrix(ticks)


@each_feature
def test_a_feature_equals_its_plain_reference_where_sides_are_absent(feature: Feature, ragged):
    expected = REFERENCES[feature.name](ragged[0])
    values = ragged[1][:, DEFAULT.names.index(feature.name)]
    np.testing.assert_allclose(values, expected, rtol=3e-6, atol=1e-7 * np.abs(expected).max())


@each_feature
def test_a_feature_depends_on_no_tick_before_its_warm_up(feature: Feature, ticks, recorded):
    start = 1000
    later = matrix(ticks[start:start + 1200])[:, DEFAULT.names.index(feature.name)]
    whole = recorded[1][start:start + 1200, DEFAULT.names.index(feature.name)]
    np.testing.assert_array_equal(later[feature.warm_up - 1:], whole[feature.warm_up - 1:])
    assert feature.warm_up <= DEFAULT.warm_up and feature.window_ticks < feature_kernel.HISTORY


def test_the_table_has_a_reference_for_each_column_and_the_kernel_computes_each():
    assert len(DEFAULT.names) == len(set(DEFAULT.names)) == 24
    assert set(DEFAULT.names) == set(REFERENCES) == set(Column.__members__)


def test_the_schema_hash_changes_with_every_entry_of_the_table():
    hashes = {DEFAULT.schema, schema_hash(FEATURES[::-1]), schema_hash(FEATURES[:-1])}
    for name in Feature._fields:
        value = getattr(FEATURES[3], name)
        changed = FEATURES[3]._replace(**{name: value + "'" if isinstance(value, str) else value + 1})
        hashes.add(schema_hash((*FEATURES[:3], changed, *FEATURES[4:])))
    assert len(hashes) == 3 + len(Feature._fields)


def test_the_books_of_the_pipeline_give_the_rows_of_the_books_of_this_test(recordings, recorded):
    """From raw frames, through the market core: all but the age of trades, for which the times differ."""
    books = Books.private(("BTCUSDT",), 8192)
    market = Market(venues.create("binance-usdm", ("BTCUSDT",)), books, ManualClock(), seed=0)
    for recv_ns, frame in captures.lines(str(recordings / "binance" / "usdm_btcusdt_20240718.gz")):
        if captures.is_snapshot(frame):
            market.on_snapshot(0, frame, recv_ns)
        else:
            market.on_frame(frame, recv_ns)
    count = market.counts.ticks
    pipe = Pipe(8192, Rows.private(("BTCUSDT",), DEFAULT.names, 8192), books)
    assert pipe.features.advance(0, count, 0) == count
    assert pipe.meta(count, layout.ROW_RUN) == count - DEFAULT.warm_up + 1
    compared = [DEFAULT.names.index(name) for name in DEFAULT.names if name != "trade_age"]
    warm = count - DEFAULT.warm_up
    assert warm > 3500
    ours, theirs = pipe.rows.values[0][:count + 1][-warm:], recorded[1][-warm:]
    np.testing.assert_array_equal(ours[:, compared], theirs[:, compared])


# The same bits, however the ticks arrive.

def test_tick_by_tick_and_in_bulk_give_the_same_bits(ticks, recorded):
    assert matrix(ticks[:1500], step=1).tobytes() == recorded[1][:1500].tobytes()


def test_a_prefix_of_the_ticks_gives_a_prefix_of_the_matrix(ticks, recorded):
    for length in (1, 2, 20, 501, 1777):
        assert matrix(ticks[:length]).tobytes() == recorded[1][:length].tobytes()


def test_receive_times_and_the_clock_change_no_feature():
    ticks = random_ticks(300)
    later = ticks.copy()
    later[:, [layout.RECV_NS, layout.BOOK_NS]] += 12345
    one, other = Pipe(), Pipe()
    one.publish(ticks)
    other.publish(later)
    one.features.advance(0, 300, 1)
    other.features.advance(0, 300, 99)
    assert one.rows.values[0].tobytes() == other.rows.values[0].tobytes()


# Books that no market should show.

any_number = st.sampled_from([0, 1, 2, 10**8, 61_000 * 10**8, 10**15, 9 * 10**18, MAX, -1, -MAX, -MAX - 1])
any_level = st.tuples(any_number, any_number)
any_tick = st.builds(
    lambda bids, asks, flags, traded, time: make_tick(1, bids, asks, flags=flags, traded=traded, event_ns=time),
    st.lists(any_level, max_size=10), st.lists(any_level, max_size=10), st.sampled_from([1, 1, 1, 1, 0, 3]),
    any_number, any_number)


@settings(max_examples=150, deadline=None)
@given(st.lists(any_tick, min_size=1, max_size=40))
def test_every_row_is_finite_on_any_book(found):
    rows = matrix(np.array(found))
    assert np.isfinite(rows).all() and np.abs(rows).max() <= 1e6


@pytest.mark.parametrize("bids, asks, expected", [
    ([], [], {"obi_1": 0, "obi_10": 0, "spread": 0, "weighted_mid": 0, "micro_spread": 0, "front_tilt": 0}),
    ([(100, 5)], [], {"obi_1": 1, "obi_10": 1, "spread": 0, "weighted_mid": 0, "front_tilt": 1}),
    ([], [(100, 5)], {"obi_1": -1, "obi_10": -1, "spread": 0, "micro_price": 0, "front_tilt": -1}),
    ([(100, 5)], [(100, 15)], {"obi_1": -0.5, "spread": 0, "weighted_mid": 0, "micro_price": 0}),
    ([(101, 5)], [(99, 5)], {"obi_1": 0, "spread": -200, "weighted_mid": 0, "micro_spread": -200}),
    ([(0, 5)], [(-3, 5)], {"obi_1": 0, "spread": 0}),
    ([(1, MAX)] * 10, [(MAX, MAX)] * 10, {"obi_1": 0, "obi_10": 0, "spread": 20_000, "micro_price": 0}),
], ids=["empty", "bids only", "asks only", "locked", "crossed", "prices not above 0", "huge"])
def test_a_degenerate_book_gives_the_stated_values(bids, asks, expected):
    row = matrix(np.array([make_tick(1, bids, asks)]))[0]
    assert {name: row[DEFAULT.names.index(name)] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_prices_come_back_after_an_empty_book_without_a_jump():
    book = make_tick(1, [(10**10, 5)], [(10**10 + 2, 5)])
    higher = make_tick(3, [(10**11, 5)], [(10**11 + 2, 5)])
    found = matrix(np.array([book, make_tick(2, [], []), higher]))
    assert found[2, DEFAULT.names.index("return_10")] == found[2, DEFAULT.names.index("vol_20")] == 0


def test_a_sudden_jump_counts_for_the_stated_most():
    ticks = [make_tick(i, [(price, 5)], [(price + 2, 5)]) for i, price in enumerate([10**10, 2 * 10**10])]
    row = matrix(np.array(ticks))[1]
    assert row[DEFAULT.names.index("return_1")] == pytest.approx(1e4 * math.log(2), rel=1e-6)
    assert row[DEFAULT.names.index("vol_20")] == pytest.approx(1e4 * math.sqrt(2.0**-10 / 20), rel=1e-6)


def test_a_trade_ages_in_venue_time_and_is_forgotten_after_250_ticks():
    first = make_tick(1, [(100, 5)], [(101, 5)], traded=7, event_ns=BEGIN_NS)
    quiet = [make_tick(i, [(100, 5)], [(101, 5)], event_ns=BEGIN_NS + i * 50 * MS) for i in range(1, 400)]
    age = matrix(np.array([first, *quiet]))[:, DEFAULT.names.index("trade_age")]
    np.testing.assert_allclose(age[:250], np.arange(250) * 0.05, rtol=1e-6)
    assert (age[250:] == 60).all()
