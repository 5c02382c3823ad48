"""Each feature against a plain NumPy reference on recorded data of three venues, and what holds for all of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import captures, layout, venues
from common.clock import ManualClock
from common.features.choice import DEFAULT, FeatureSet
from common.features.table import BY_NAME, FEATURES, GROUPS, LEVELS, LEVELS_Z, LIMITS, Feature, schema_hash
from common.market import Market
from common.ring import Books, Rows
from tests import feature_ticks
from tests.feature_reference import FITTED, REFERENCES, Levels, parameters
from tests.feature_ticks import BEGIN_NS, MAX, MS, Pipe, make_tick, matrix, random_ticks

#: recordings, with a tick size and a volume of buckets in 1e-8 for the fitted features
RECORDINGS = {"binance": (10**7, 10**8), "lobster": (10**6, 10**10), "coinbase": (10**6, 10**6)}


def whole(tick: int, volume: int) -> FeatureSet:
    """All features."""
    return FeatureSet.of([feature.name for feature in FEATURES], parameters(tick, volume))


class Recorded:
    """Ticks of one recording, and what the kernel makes of them."""

    def __init__(self, ticks: np.ndarray, tick: int, volume: int) -> None:
        self.ticks, self.features = ticks, whole(tick, volume)
        self.levels, self.rows = Levels(ticks), matrix(ticks, features=self.features)

    def column(self, feature: Feature) -> np.ndarray:
        return self.rows[:, FEATURES.index(feature)]

    def reference(self, feature: Feature) -> np.ndarray:
        if feature.fitted:
            return FITTED[feature.name](self.levels, self.features.parameters)
        return REFERENCES[feature.name](self.levels)


@pytest.fixture(scope="module")
def recorded_all(recordings) -> dict[str, Recorded]:
    return {name: Recorded(getattr(feature_ticks, name)(recordings), *numbers)
            for name, numbers in RECORDINGS.items()}


@pytest.fixture(scope="module")
def recorded(recorded_all) -> Recorded:
    return recorded_all["binance"]


@pytest.fixture(scope="module")
def ticks(recorded) -> np.ndarray:
    return recorded.ticks


@pytest.fixture(scope="module")
def ragged() -> Recorded:
    return Recorded(random_ticks(1500), 10**6, 5 * 10**9)


each_feature = pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)


def assert_equal(feature: Feature, recorded: Recorded) -> None:
    expected = recorded.reference(feature)
    slack = 1e-6 if feature.name.startswith("jump") else 1e-7  # one minus what may be nearly one
    np.testing.assert_allclose(recorded.column(feature), expected, rtol=3e-6, atol=slack * np.abs(expected).max())


@each_feature
def test_a_feature_equals_its_plain_reference_on_recorded_data(feature: Feature, recorded_all):
    for recorded in recorded_all.values():
        assert len(recorded.rows) > 3000
        assert_equal(feature, recorded)
    assert any(np.ptp(recorded.column(feature)) > 0 for recorded in recorded_all.values()), "it says nothing"


@each_feature
def test_a_feature_equals_its_plain_reference_where_sides_are_absent(feature: Feature, ragged):
    assert_equal(feature, ragged)


@each_feature
def test_a_feature_keeps_to_its_range(feature: Feature, recorded_all, ragged):
    low, high = LIMITS.get(feature.unit, (-1e11, 1e11))
    for recorded in (*recorded_all.values(), ragged):
        assert low <= recorded.column(feature).min() and recorded.column(feature).max() <= high


@pytest.fixture(scope="module")
def later(recorded_all) -> list[tuple[Recorded, int, np.ndarray]]:
    """Recordings, an index, and the rows of a run that begins there."""
    return [(recorded_all[name], start, matrix(recorded_all[name].ticks[start:], features=recorded_all[name].features))
            for name, start in (("binance", 1000), ("lobster", 1000))]


@each_feature
def test_a_feature_depends_on_no_tick_before_its_warm_up(feature: Feature, later):
    column = FEATURES.index(feature)
    for recorded, start, rows in later:
        t = recorded.levels.t[start:]
        warm = (np.arange(1, len(t) + 1) >= feature.warm_up) & (t - t[0] >= 1e9 * feature.warm_up_s)
        ours, theirs = rows[warm, column], recorded.rows[start:][warm, column]
        assert len(ours) > 100
        if not feature.from_run:
            np.testing.assert_array_equal(ours, theirs)


def test_the_table_has_a_reference_for_each_feature():
    assert set(BY_NAME) == set(REFERENCES) | set(FITTED) and len(BY_NAME) == len(FEATURES)
    assert {name for name, feature in BY_NAME.items() if feature.fitted} == set(FITTED)


def test_each_feature_is_in_one_group_and_all_holds_those_that_need_no_fitting():
    groups = {name: members for name, members in GROUPS.items() if name != "all"}
    assert sorted(sum(groups.values(), ())) == sorted(BY_NAME)
    assert GROUPS["all"] == tuple(feature.name for feature in FEATURES if not feature.fitted)
    assert groups["default"] == DEFAULT.names


def test_the_levels_are_in_the_order_of_deeplob():
    assert LEVELS[:5] == ("ask_px_1", "ask_qty_1", "bid_px_1", "bid_qty_1", "ask_px_2") and len(LEVELS) == 40
    assert LEVELS_Z == tuple(f"{name}_z" for name in LEVELS)
    row = matrix(np.array([make_tick(1, [(99 * 10**8, 5 * 10**8)], [(101 * 10**8, 7 * 10**8)])]),
                 features=FeatureSet.of(LEVELS))[0]
    assert row.tolist() == [101, 7, 99, 5] + [0] * 36


def test_the_first_features_are_as_models_know_them():
    assert DEFAULT.schema == "4835a96f329473021ba7e4644952e4fd4fd6d5eb3dfa9ed34ea3739cd72ec7ff"


@pytest.mark.parametrize("group", [name for name in GROUPS if name not in ("default", "all")])
def test_a_column_is_the_same_whatever_else_is_computed(group, ragged):
    alone = FeatureSet.of(GROUPS[group], ragged.features.parameters)
    places = [FEATURES.index(BY_NAME[name]) for name in GROUPS[group]]
    np.testing.assert_array_equal(matrix(ragged.ticks, features=alone), ragged.rows[:, places])


@pytest.mark.parametrize("seconds, kept", [(9, True), (11, False)])
def test_a_venue_time_that_goes_back_far_begins_what_is_counted_in_time_anew(seconds, kept):
    """By little, t waits until venue time has caught up."""
    features = FeatureSet.of(["tick_rate_60s"])
    ticks = np.array([make_tick(n, [(100, 5)], [(101, 5)], event_ns=BEGIN_NS + n * 10**9) for n in range(30)])
    ticks[20:, layout.EVENT_NS] -= (seconds + 1) * 10**9
    counted = matrix(ticks, features=features)[:, 0] * 60
    np.testing.assert_allclose(counted, [*range(1, 21), *(range(21, 31) if kept else range(1, 11))], rtol=1e-6)


def test_what_is_counted_in_time_is_0_while_no_time_is_known_and_is_never_warm():
    names = [feature.name for feature in FEATURES if feature.window_s]
    ticks = random_ticks(300)
    ticks[:, layout.EVENT_NS] = 0
    pipe = Pipe(features=FeatureSet.of(names))
    pipe.pass_on(ticks)
    assert not pipe.rows.values[0].any() and not pipe.rows.meta[0][:, layout.ROW_RUN].any()


def test_a_run_is_warm_in_time_only_when_so_much_time_has_passed():
    pipe = Pipe(features=FeatureSet.of(["return_10s", "obi_1"]))
    ticks = np.array([make_tick(n, [(100, 5)], [(101, 5)], event_ns=BEGIN_NS + n * 10**9) for n in range(1, 31)])
    pipe.pass_on(ticks)
    assert [pipe.meta(n, layout.ROW_RUN) for n in range(1, 31)] == [0] * 10 + list(range(1, 21))


def test_a_z_score_looks_at_the_past_alone():
    """It is 0 until a block of 10 s is complete, and the ticks of its own block change nothing but itself."""
    features, column = FeatureSet.of(LEVELS_Z), LEVELS_Z.index("bid_qty_1_z")
    ticks = np.array([make_tick(n, [(100, 5 + n % 3)], [(101, 5)], event_ns=BEGIN_NS + n * 10**9) for n in range(40)])
    changed = ticks.copy()
    changed[35, layout.BID_QTY] = 1000
    one, other = (matrix(found, features=features)[:, column] for found in (ticks, changed))
    first = int(np.argmax(BEGIN_NS // 10**10 != ticks[:, layout.EVENT_NS] // 10**10))
    assert not one[:first].any() and one[first:].all() | (ticks[first:, layout.BID_QTY] == 6).any()
    assert other[35] == 10 and np.array_equal(np.delete(one, 35), np.delete(other, 35))


def test_a_trade_fills_as_many_volume_buckets_as_it_is_large():
    told = parameters(1, 10)
    features = FeatureSet.of(["vpin_50"], told)
    sold_then_bought = [7, -3, 20, -10**18, 5]
    ticks = np.array([make_tick(n, [(100, 5)], [(101, 5)], traded=x) for n, x in enumerate(sold_then_bought, 1)])
    # 7 - 3 fill one bucket of 10 to 4; 20 fill two; then 50 of pure selling; 5 fill none
    np.testing.assert_allclose(matrix(ticks, features=features)[:, 0], [0, 0.4, 24 / 30, 1, 1], rtol=1e-6)


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
    ours, theirs = pipe.rows.values[0][:count + 1][-warm:], recorded.rows[-warm:, :len(DEFAULT)]
    np.testing.assert_array_equal(ours[:, compared], theirs[:, compared])


# The same bits, however the ticks arrive.

@pytest.mark.parametrize("name", RECORDINGS)
def test_tick_by_tick_and_in_bulk_give_the_same_bits(name, recorded_all):
    recorded = recorded_all[name]
    rows = matrix(recorded.ticks[:1500], step=1, features=recorded.features)
    assert rows.tobytes() == recorded.rows[:1500].tobytes()


def test_a_prefix_of_the_ticks_gives_a_prefix_of_the_matrix(ticks, recorded):
    for length in (1, 2, 20, 501, 1777):
        assert matrix(ticks[:length], features=recorded.features).tobytes() == recorded.rows[:length].tobytes()


def test_receive_times_and_the_clock_change_no_feature():
    ticks = random_ticks(300)
    later = ticks.copy()
    later[:, [layout.RECV_NS, layout.BOOK_NS]] += 12345
    one, other = (Pipe(features=whole(10**6, 10**9)) for _ in range(2))
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


ANY = whole(10**6, 10**9)
RAW = [ANY.names.index(name) for name in LEVELS]


@settings(max_examples=80)
@given(st.lists(any_tick, min_size=1, max_size=40))
def test_every_row_is_finite_on_any_book(found):
    rows = matrix(np.array(found), features=ANY)
    assert np.isfinite(rows).all() and np.abs(np.delete(rows, RAW, 1)).max() <= 1e6


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
