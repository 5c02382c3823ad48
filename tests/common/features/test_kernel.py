"""The kernel as a writer of rows: runs, lost ticks, what readers find, and sums that never overflow."""

import math

import numpy as np
import pytest

from common import layout
from common.errors import ContractError
from common.features import kernel as feature_kernel
from common.features import kernel_state
from common.features.choice import DEFAULT, FeatureSet
from common.features.rows import Features
from common.features.table import FEATURES
from common.ring import Books, Rows
from tests.feature_reference import parameters
from tests.feature_ticks import BEGIN_NS, MAX, MS, Pipe, make_tick, matrix, random_ticks

# Runs.

def runs(pipe: Pipe, count: int) -> list[int]:
    return [pipe.meta(seq, layout.ROW_RUN) for seq in range(1, count + 1)]


def test_a_run_counts_the_rows_whose_features_are_all_warm():
    pipe = Pipe()
    pipe.pass_on(random_ticks(600))
    assert runs(pipe, 600) == [0] * (DEFAULT.warm_up - 1) + list(range(1, 600 - DEFAULT.warm_up + 2))


def resynchronised(ticks: np.ndarray, at: int, seconds: float, invalid: int = 2) -> np.ndarray:
    """`ticks` with the book lost for the `invalid` ticks before index `at`, and found again `seconds` later."""
    changed = ticks.copy()
    changed[at - invalid:at, layout.FLAGS] = 0
    changed[at - invalid:at, layout.KIND] = layout.KIND_STATE
    changed[at - invalid:at, layout.BID_PX:] = 10**12  # whatever the book was when it was found to be wrong
    changed[at, layout.FLAGS] |= layout.FLAG_RESET
    changed[at:, layout.EVENT_NS] += int(seconds * 1e9)
    return changed


@pytest.mark.parametrize("invalid", [0, 3])
def test_a_book_found_again_late_begins_a_run_that_knows_nothing_of_the_time_before(invalid):
    ticks = resynchronised(random_ticks(1000), 400, 10.1, invalid)
    pipe = Pipe()
    pipe.pass_on(ticks)
    until = 400 - invalid - DEFAULT.warm_up + 1
    assert runs(pipe, 1000) == ([0] * (DEFAULT.warm_up - 1) + list(range(1, until + 1))
                                + [0] * (invalid + DEFAULT.warm_up - 1)
                                + list(range(1, 1000 - 400 - DEFAULT.warm_up + 2)))
    assert pipe.rows.values[0][401:1001].tobytes() == matrix(ticks[400:]).tobytes()


def test_a_book_found_again_soon_is_warm_at_once_and_divides_the_run():
    ticks = resynchronised(random_ticks(1000), 400, 9.9)
    pipe = Pipe()
    pipe.pass_on(ticks)
    until = 400 - 2 - DEFAULT.warm_up + 1
    assert runs(pipe, 1000) == [0] * (DEFAULT.warm_up - 1) + list(range(1, until + 1)) + [0, 0] + list(range(1, 601))


def test_a_bridge_counts_the_return_over_the_gap_but_not_its_square_nor_the_order_flow():
    before = [make_tick(i, [(10**10 + i % 2 * 10**5, 5)], [(10**10 + 4 * 10**5, 7)]) for i in range(1, 300)]
    lost = make_tick(300, [], [], flags=0)
    after = [make_tick(i, [(10**10 + 10**7, 9)], [(10**10 + 10**7 + 4, 4)],
                       flags=layout.FLAG_VALID | (layout.FLAG_RESET if i == 301 else 0)) for i in range(301, 320)]
    found = matrix(np.array([*before, lost, *after]))
    gap = 1e4 * math.log((2 * 10**10 + 2 * 10**7 + 4) / (2 * 10**10 + 5 * 10**5))
    assert found[300, DEFAULT.names.index("return_1")] == pytest.approx(gap, rel=1e-6)
    assert found[310, DEFAULT.names.index("return_50")] > 0.9 * gap
    assert found[300, DEFAULT.names.index("ofi_1")] == 0
    small = found[298, DEFAULT.names.index("vol_20")]
    assert 0 < found[300, DEFAULT.names.index("vol_20")] < small
    assert found[319 - 1, DEFAULT.names.index("vol_20")] < small


def test_the_row_of_an_invalid_book_is_all_zeros_and_tells_what_the_tick_said():
    ticks = resynchronised(random_ticks(600), 400, 1.0)
    pipe = Pipe()
    pipe.pass_on(ticks)
    assert not pipe.rows.values[0][399:401].any()
    assert pipe.meta(399, layout.ROW_KIND) == layout.KIND_STATE and pipe.meta(399, layout.ROW_FLAGS) == 0
    assert pipe.meta(399, layout.ROW_BID) == 10**12


def test_a_restart_after_a_bridge_continues_bit_for_bit():
    ticks = resynchronised(random_ticks(1000), 800, 2.0)
    before = Pipe(1024)
    before.pass_on(ticks[:900])
    after = Pipe(1024, Rows.private(("X",), DEFAULT.names, 1024), before.books)
    after.features.rebuild(0, 900)
    for pipe in (before, after):
        pipe.publish(ticks[900:])
        pipe.features.advance(0, 1000, 0)
    assert after.rows.values[0][901:1001].tobytes() == before.rows.values[0][901:1001].tobytes()
    assert np.array_equal(after.rows.meta[0][901:1001], before.rows.meta[0][901:1001])


@pytest.mark.parametrize("before, after", [(0, BEGIN_NS), (BEGIN_NS, 0), (BEGIN_NS, -5), (1, 2**63 - 1)])
def test_without_usable_venue_times_nothing_is_bridged(before, after):
    ticks = random_ticks(600)
    ticks[299, layout.EVENT_NS], ticks[300, layout.EVENT_NS] = before, after
    ticks[300, layout.FLAGS] |= layout.FLAG_RESET
    pipe = Pipe()
    pipe.pass_on(ticks)
    assert pipe.meta(301, layout.ROW_RUN) == 0 and pipe.meta(300 + DEFAULT.warm_up, layout.ROW_RUN) == 1


@pytest.mark.parametrize("stamp", [0, 301 - 1024, 301 + 1024], ids=["being written", "stale", "lapped"])
def test_a_tick_that_is_not_there_gives_no_row_and_ends_the_run(stamp):
    ticks = random_ticks(1000)
    pipe = Pipe()
    pipe.publish(ticks)
    pipe.books.ticks[0][301, layout.SEQ] = stamp
    assert pipe.features.advance(0, 1000, 0) == 999
    assert pipe.features.lost(0) == 1
    assert pipe.rows.read_meta(0, 301) is None
    assert pipe.meta(300, layout.ROW_SEQ) == 300 and pipe.meta(302, layout.ROW_RUN) == 0
    assert pipe.rows.values[0][302:1001].tobytes() == matrix(ticks[301:]).tobytes()


def test_the_head_stays_at_the_last_row_where_the_newest_tick_is_lost():
    pipe = Pipe()
    pipe.publish(random_ticks(10))
    pipe.books.ticks[0][10, layout.SEQ] = 0
    assert pipe.features.advance(0, 10, 0) == 9
    assert int(pipe.rows.heads[0]) == 9 and pipe.features.last(0) == 10


def test_nothing_new_writes_nothing():
    pipe = Pipe()
    pipe.pass_on(random_ticks(10))
    before = pipe.rows.meta[0].copy()
    assert pipe.features.advance(0, 10, 5) == pipe.features.advance(0, 4, 5) == 0
    assert np.array_equal(before, pipe.rows.meta[0])


# Rows as readers find them.

def test_a_window_is_one_contiguous_view_at_every_position_of_the_ring():
    ticks = random_ticks(2500)
    pipe = Pipe(1024)
    expected = matrix(ticks)
    for end in range(100, 2501, 37):
        pipe.publish(ticks[int(pipe.books.heads[0]):end])
        pipe.features.advance(0, end, 0)
        window = pipe.rows.window(0, end, 100)
        assert window.flags.c_contiguous and window.base is not None
        assert window.tobytes() == expected[end - 100:end].tobytes()


def test_a_row_carries_what_its_tick_said():
    pipe = Pipe()
    ticks = random_ticks(5)
    ticks[3] = make_tick(4, [(100, 7)], [], flags=layout.FLAG_VALID | layout.FLAG_RESET, traded=-3)
    pipe.publish(ticks)
    pipe.features.advance(0, 5, 777)
    tick, meta = ticks[3], pipe.rows.read_meta(0, 4)
    assert meta[layout.ROW_SEQ] == 4 and meta[layout.ROW_WRITTEN_NS] == 777
    assert meta[layout.ROW_BID] == 100 and meta[layout.ROW_ASK] == 0
    for row_column, tick_column in ((layout.ROW_FLAGS, layout.FLAGS), (layout.ROW_VENUE_ID, layout.VENUE_ID),
                                    (layout.ROW_EVENT_NS, layout.EVENT_NS), (layout.ROW_RECV_NS, layout.RECV_NS),
                                    (layout.ROW_BOOK_NS, layout.BOOK_NS), (layout.ROW_KIND, layout.KIND)):
        assert meta[row_column] == tick[tick_column]


def test_symbols_do_not_touch_one_another():
    ticks = random_ticks(900)
    books, rows = Books.private(("X", "Y"), 1024), Rows.private(("X", "Y"), DEFAULT.names, 1024)
    features = Features(books, rows)
    for symbol, part in ((0, ticks[:600]), (1, ticks[600:])):
        books.ticks[symbol][1:len(part) + 1] = part
        books.ticks[symbol][1:len(part) + 1, layout.SEQ] = np.arange(1, len(part) + 1)
        books.heads[symbol] = len(part)
    for step in range(1, 601):
        for symbol in (0, 1):
            features.advance(symbol, min(step, int(books.heads[symbol])), 0)
    assert rows.values[0][1:601].tobytes() == matrix(ticks[:600]).tobytes()
    assert rows.values[1][1:301].tobytes() == matrix(ticks[600:]).tobytes()


# Plans.

def test_a_plan_computes_what_its_columns_need_and_no_more():
    assert feature_kernel.plan_of(DEFAULT, "X")[0][feature_kernel.P_WORKS] == 0
    works = {name: int(feature_kernel.plan_of(FeatureSet.of([name]), "X")[0][feature_kernel.P_WORKS])
             for name in ("ofi_level_1", "vol_10s", "ewma_vol_1s", "ofi_100")}
    bits = {name: 1 << place for place, name in enumerate(feature_kernel.WORKS)}
    assert works == {"ofi_level_1": bits["mlofi"], "vol_10s": bits["volatility"] | bits["times"],
                     "ewma_vol_1s": bits["ewma"], "ofi_100": 0}


def test_columns_stand_where_they_are_asked_for_however_they_are_cut_into_runs():
    names = [feature.name for feature in FEATURES if not feature.fitted]
    mixed = [*names[:9], *names[100:130], *names[99:40:-1], names[150], names[30]]
    ticks = random_ticks(300)
    expected = matrix(ticks, features=FeatureSet.of(names))[:, [names.index(name) for name in mixed]]
    np.testing.assert_array_equal(matrix(ticks, features=FeatureSet.of(mixed)), expected)


@pytest.mark.parametrize("name, numbers, told", [
    ("vpin_50", {"Y": [1.0]}, "vpin_50: X; it has Y"), ("vpin_50", {"X": [1.5]}, "whole number"),
    ("vpin_50", {"X": [1.0, 2.0]}, "one volume"), ("integrated_ofi_100", {"X": [0.1] * 9}, "10 weights"),
    ("integrated_ofi_100", {"X": [math.nan] * 10}, "not all finite"),
    ("micro_price_fitted", {"X": [1.0, 2.0, 2.0, 0.0]}, "moves are needed"),
    ("micro_price_fitted", {"X": [0.0, 1.0, 1.0, 0.0]}, "tick > 0")])
def test_numbers_of_fitted_features_that_are_missing_or_wrong_are_refused(name, numbers, told):
    features = FeatureSet.of([name], {name: numbers})
    with pytest.raises(ContractError, match=told):
        Features(Books.private(("X",), 16), Rows.private(("X",), features.labels, 16), features)


def test_two_fits_of_a_feature_stand_side_by_side_and_there_is_an_end_to_it():
    ticks = random_ticks(400)
    sets = [FeatureSet.of(["vpin_50"], parameters(1, volume)) for volume in range(10**9, 10**9 + 9)]
    both = matrix(ticks, features=FeatureSet.union(sets[:2]))
    for place, alone in enumerate(sets[:2]):
        np.testing.assert_array_equal(both[:, place], matrix(ticks, features=alone)[:, 0])
    assert (both[:, 0] != both[:, 1]).any()
    with pytest.raises(ContractError, match="too many fitted"):
        feature_kernel.plan_of(FeatureSet.union(sets), "X")


# The extremes.

def test_no_sum_overflows_at_the_extremes_of_64_bits():
    """Books that flip between the ends of the range, for longer than the longest window; every sum against
    Python's integers."""
    low = make_tick(0, [(1, MAX)] * 10, [(2, MAX)] * 10, traded=MAX)
    high = make_tick(0, [(MAX - 1, MAX)] * 10, [(MAX, MAX)] * 10, traded=-MAX - 1)
    low[layout.TRADE_PX], high[layout.TRADE_PX] = 1, MAX
    always_up = make_tick(0, [(1, MAX)] * 10, [], traded=MAX)
    for pattern in ([low, high], [low] * 3 + [high], [always_up, make_tick(0, [], [(MAX, MAX)] * 10, traded=MAX)]):
        ticks = np.array([pattern[i % len(pattern)] for i in range(1100)])
        ticks[:, layout.SEQ] = np.arange(1, 1101)
        ticks[:, layout.EVENT_NS] += 10 * MS * ticks[:, layout.SEQ]
        assert np.isfinite(matrix(ticks)).all()
        pipe = Pipe(2048, features=FeatureSet.of([feature.name for feature in FEATURES], parameters(1, 2**53)))
        added = []  # by each tick to each total, which cannot be more than 2^62
        for tick in ticks:
            before = _newest(pipe)
            pipe.pass_on(tick[None])
            added.append([(new - old + 2**63) % 2**64 - 2**63 for new, old in zip(_newest(pipe), before)])
            assert np.isfinite(pipe.row(int(tick[layout.SEQ]))).all()
        assert max(abs(word) for record in added for word in record[:kernel_state.OBI_1]) < 2**54
        words = [[record[word] for record in added[-250:]] for word in range(kernel_state.OBI_1)]
        assert max(abs(sum(word)) for word in words) < 2**62, "the sum over a window fits its word"
        depth = [(record[kernel_state.DEPTH] << 32) + record[kernel_state.DEPTH + 1] for record in added[1:]]
        assert max(depth) == MAX * 5 * (1 if pattern[0] is always_up else 2)


def _newest(pipe: Pipe) -> list[int]:
    return kernel_state.newest(pipe.features.state(0)).tolist()
