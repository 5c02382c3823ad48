"""What comes and goes between two books, and trades in pairs, on cases that can be counted by hand."""

import numpy as np
import pytest

from common import layout
from common.features.choice import FeatureSet
from common.features.kernel import new_state
from common.features.kernel_flow import add_events, fill_buckets, look
from common.features.kernel_state import EVENTS, RECORD, TICK_AT, VPIN_AT
from tests.feature_ticks import make_tick, matrix

TEN = [(100 - i, 10) for i in range(10)]


def came_and_went(old: list, new: list, mirrored: bool) -> list[int]:
    """Best came, best went, ten came, ten went, of bids; or of the same book upside down as asks."""
    state, record = new_state(), np.zeros(RECORD, np.int64)
    for levels in (old, new):
        tick = make_tick(1, [], [(1000 - p, q) for p, q in levels]) if mirrored else make_tick(1, levels, [])
        state[TICK_AT:TICK_AT + layout.TICK_WIDTH] = tick
        look(state)
    add_events(state, record)
    at = EVENTS + 4 * mirrored
    return [int(record[word] << 32) + int(record[word + 1]) for word in (at, at + 2, at + 8, at + 10)]


@pytest.mark.parametrize("mirrored", [False, True], ids=["bids", "asks"])
@pytest.mark.parametrize("old, new, expected", [
    (TEN, TEN, [0, 0, 0, 0]),
    (TEN, [(100, 14), *TEN[1:]], [4, 0, 4, 0]),
    (TEN, [(100, 7), *TEN[1:]], [0, 3, 0, 3]),
    (TEN, [(101, 5), *TEN[:9]], [5, 0, 5, 0]),  # the tenth went out of sight, and nobody knows of more
    (TEN, [*TEN[1:], (90, 8)], [0, 10, 0, 10]),  # one came into sight
    (TEN, [*TEN[:4], *TEN[5:], (90, 8)], [0, 0, 0, 10]),
    (TEN[:3], [*TEN[:2], (97, 6)], [0, 0, 6, 10]),  # all levels of a side that has fewer than ten are seen
    (TEN[:3], [], [0, 10, 0, 30]),
    ([], TEN[:2], [10, 0, 20, 0]),
    ([(100, 10)], [(100, 2**62)], [2**62 - 10, 0, 2**62 - 10, 0]),
])
def test_what_came_and_went(old, new, expected, mirrored):
    assert came_and_went(old, new, mirrored) == expected


@pytest.mark.parametrize("trades", [[3, 4, 5], [25], [-10] * 3, [10**6, -7], [2**63 - 1, -2**63 + 1]])
def test_volume_buckets_hold_all_that_was_traded(trades):
    state = new_state()
    for traded in trades:
        fill_buckets(state, 0, 10, traded)
    full, filled, signed, total = state[VPIN_AT:VPIN_AT + 4].tolist()
    assert 0 <= filled < 10 and abs(signed) <= filled and filled == sum(map(abs, trades)) % 10
    kept = state[VPIN_AT + 4:VPIN_AT + 54]
    assert total == kept.sum() and np.count_nonzero(kept) <= min(full, 50) and kept.max() <= 10
    if max(map(abs, trades)) < 500:
        assert full == sum(map(abs, trades)) // 10


def test_trades_that_follow_one_another_in_sign_and_price():
    features = FeatureSet.of(["sign_autocorrelation_250", "roll_spread_250"])
    ticks = []
    for n in range(20):  # a seller and a buyer in turn, at 100 and 102
        ticks.append(make_tick(1, [(100, 5)], [(102, 5)], traded=1 if n % 2 else -1))
        ticks[-1][layout.TRADE_PX] = 102 if n % 2 else 100
    signs, spread = matrix(np.array(ticks), features=features)[-1]
    assert signs == -1 and spread == pytest.approx(2e4 * np.log(1.02), rel=1e-5)
