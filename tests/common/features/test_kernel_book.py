"""Scores and shape on books that can be computed by hand."""

import numpy as np
import pytest

from common.features.choice import FeatureSet
from common.features.table import LEVELS_Z
from tests.feature_ticks import BEGIN_NS, make_tick, matrix

S = 10**9
BEGIN = BEGIN_NS - BEGIN_NS % (10 * S)


def books(quantities: list[int], times: list[int], bids: int = 1) -> np.ndarray:
    return np.array([make_tick(1, [(100 - i, q) for i in range(bids)] if q else [], [(101, 5)], event_ns=BEGIN + t)
                     for q, t in zip(quantities, times)])


def scores(ticks: np.ndarray) -> np.ndarray:
    return matrix(ticks, features=FeatureSet.of(LEVELS_Z))[:, LEVELS_Z.index("bid_qty_1_z")]


def test_the_block_before_judges_and_six_blocks_are_remembered():
    ticks = books([1, 3, 4, 4], [S, 2 * S, 11 * S, 69 * S])
    np.testing.assert_allclose(scores(ticks), [0, 0, 2, (4 - 8 / 3) / np.std([1, 3, 4])], rtol=1e-6)
    later = books([1, 3, 4, 4], [S, 2 * S, 11 * S, 71 * S])  # the first block is the seventh before
    assert scores(later)[-1] == 0, "of one value there is no deviation"


def test_what_is_absent_counts_in_no_mean():
    ticks = books([1, 0, 3, 4, 0], [S, 2 * S, 3 * S, 11 * S, 12 * S])
    np.testing.assert_allclose(scores(ticks), [0, 0, 0, 2, 0])


def test_a_price_keeps_its_digits_beside_a_large_base():
    """A step of 1e-8 at a price near the end of the range."""
    ticks = np.array([make_tick(1, [(2**62 + n % 3, 5)], [(2**62 + 10, 5)], event_ns=BEGIN + n * S)
                      for n in range(40)])
    found = matrix(ticks, features=FeatureSet.of(["bid_px_1_z"]))[10:, 0]
    past = np.arange(10) % 3
    np.testing.assert_allclose(found[:10], (np.arange(10, 20) % 3 - past.mean()) / past.std(), rtol=1e-6)


@pytest.mark.parametrize("bids, slope, concavity", [
    ([(9999, 10)], 0, 0),
    ([(9999, 10), (9998, 10), (9997, 10)], 1 / 3, (1 / 3 + 2 / 3 + 1 - 2) / 3),
    ([(9999, 30), (9997, 10)], 0.25 / 2, (0.75 - 1 / 3) / 2)])
def test_the_shape_of_a_side(bids, slope, concavity):
    """mid is 10,000, so that a step of 1 is one basis point."""
    found = matrix(np.array([make_tick(1, bids, [(10001, 5)])]),
                   features=FeatureSet.of(["depth_slope_bid", "depth_concavity_bid"]))[0]
    np.testing.assert_allclose(found, [slope, concavity], rtol=1e-6, atol=1e-9)
