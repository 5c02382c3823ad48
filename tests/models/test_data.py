"""Rows and labels for training: the live code's rows, and labels that look only as far as they say."""

import numpy as np
import pytest

from common.features.choice import DEFAULT
from common.synthetic import SyntheticMarket
from models.data import Dataset, collect, moves, split, synthetic

SYMBOLS = ("BTC-USD", "AAPL")
S = 10**9


@pytest.fixture(scope="module")
def data() -> Dataset:
    return synthetic(SYMBOLS, 5, 200.0, 60.0, 0.5)


def test_rows_are_warm_sampled_once_a_stretch_and_in_order(data):
    assert data.values.shape == (len(data), len(DEFAULT.names)) and data.values.dtype == np.float32
    assert np.isfinite(data.values).all() and set(data.symbol.tolist()) == {0, 1}
    for symbol in (0, 1):
        time = data.time_ns[data.symbol == symbol]
        assert (np.diff(time // (S // 2)) >= 1).all()
        assert len(time) > 2 * (60 - DEFAULT.warm_up / 100) * 0.9
        assert len(data.ways[symbol][0]) > 5000
    assert data.ticks == sum(way.shape[1] for way in data.ways)


def test_the_same_seed_gives_the_same_rows(data):
    again = synthetic(SYMBOLS, 5, 200.0, 60.0, 0.5)
    assert again.values.tobytes() == data.values.tobytes()
    assert synthetic(SYMBOLS, 6, 200.0, 5.0, 0.5).values.tobytes() != data.values[:1].tobytes()


def test_an_interrupted_stream_gives_the_first_part_of_the_rows(data):
    market = SyntheticMarket(SYMBOLS, 5, 200.0, start_ms=1_700_000_000_000)
    part = collect("vectrade", SYMBOLS, market.frames(30.0), 0.5)
    for symbol in (0, 1):
        head = part.values[part.symbol == symbol]
        assert len(head) and head.tobytes() == data.values[data.symbol == symbol][:len(head)].tobytes()


def test_a_label_is_the_move_to_the_newest_tick_within_the_horizon(data):
    found = moves(data, 10.0)
    for i in np.random.default_rng(0).integers(0, len(data), 50):
        time, mid = data.ways[data.symbol[i]]
        if time[-1] < data.time_ns[i] + 10 * S:
            assert np.isnan(found[i])
        else:
            later = mid[time <= data.time_ns[i] + 10 * S][-1]
            assert found[i] == (later / data.mid[i] - 1) * 1e4


def test_a_label_does_not_see_beyond_its_horizon(data):
    """Changing every price after a moment changes no label whose horizon ends before it."""
    border = int(data.time_ns.min() + 30 * S)
    ways = [np.stack([time, np.where(time > border, mid * 2, mid)]) for time, mid in data.ways]
    changed = Dataset(data.values, data.symbol, data.time_ns, data.mid, ways, data.ticks)
    before, after = moves(data, 10.0), moves(changed, 10.0)
    inside = data.time_ns + 10 * S <= border
    assert np.array_equal(before[inside], after[inside])
    assert not np.array_equal(before[~inside], after[~inside], equal_nan=True)


def test_book_imbalance_tells_the_future_of_the_synthetic_market(data):
    """The label has the right sign: a heavy bid is followed by a rise more often than not."""
    move = moves(data, 5.0)
    known = ~np.isnan(move)
    assert np.corrcoef(data.values[known, DEFAULT.names.index("obi_10")], move[known])[0, 1] > 0.05


def test_spans_follow_one_another_with_an_embargo_between():
    time = np.arange(1000) * S
    masks = split(time, (6, 2, 2), 30)
    assert [int(mask.sum()) for mask in masks] == [570, 170, 200]
    assert [int(np.flatnonzero(mask)[0]) for mask in masks] == [0, 600, 800]
    assert sum(mask.astype(int) for mask in masks).max() == 1
