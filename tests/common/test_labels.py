"""Labels: the moves that formulas give, nothing beyond their horizon, and classes by thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import labels
from common.errors import ConfigError
from common.labels import THREE, TWO, Horizon, Threshold, Way, classify, limits, moves

S = 10**9
BEGIN = 1_700_000_000 * S


def way(seconds, mids, seq=None) -> Way:
    mids = np.asarray(mids, np.int64)
    return Way(BEGIN + (np.asarray(seconds, float) * S).astype(np.int64), mids - 1, mids + 1,
               np.arange(1, len(mids) + 1) if seq is None else np.asarray(seq))


@st.composite
def ways(draw) -> Way:
    """Any way: equal times, holes, empty sides."""
    count = draw(st.integers(2, 40))
    steps = draw(st.lists(st.sampled_from([0, 0, 1, 2, 7]), min_size=count, max_size=count))
    mids = draw(st.lists(st.integers(1000, 1100), min_size=count, max_size=count))
    holes = draw(st.lists(st.sampled_from([1, 1, 1, 1, 3]), min_size=count, max_size=count))
    found = way(np.cumsum(steps), mids, np.cumsum(holes))
    empty = np.array(draw(st.lists(st.sampled_from([False] * 5 + [True]), min_size=count, max_size=count)))
    return found._replace(bid=np.where(empty, 0, found.bid))


def plain(way: Way, row: int, horizon: Horizon, smooth: str) -> tuple[float, bool]:
    """The move by its definition, one row at a time; and whether there is none because the book was lost."""
    time, mids, mid = way.time_ns.tolist(), [], float("nan")  # there is none before the first whole book
    for bid, ask in zip(way.bid.tolist(), way.ask.tolist()):
        mid = (bid + ask) / 2 if bid and ask else mid
        mids.append(mid)
    first = row
    while first > 0 and way.seq[first] == way.seq[first - 1] + 1:
        first -= 1
    last = row
    while last + 1 < len(time) and way.seq[last + 1] == way.seq[last] + 1:
        last += 1
    if horizon.kind == "ticks":
        ahead = list(range(row + 1, row + int(horizon.length) + 1))
        behind = list(range(row - int(horizon.length) + 1, row + 1))
        known, reaches = ahead[-1] <= last, behind[0] >= first
    else:
        length = int(horizon.length * S)
        ahead = [k for k in range(row + 1, last + 1) if time[k] <= time[row] + length]
        behind = [k for k in range(first, row + 1) if time[k] > time[row] - length]
        known, reaches = time[last] >= time[row] + length, time[first] <= time[row] - length
    if not known:
        return float("nan"), last < len(time) - 1
    if smooth and not ahead or smooth == "both" and not reaches:
        return float("nan"), False
    after = mids[ahead[-1]] if ahead else mids[row]
    before = mids[row]
    if smooth:
        after = sum(mids[k] for k in ahead) / len(ahead)
    if smooth == "both":
        before = sum(mids[k] for k in behind) / len(behind)
    return (after / before - 1) * 1e4, False


HORIZONS = (Horizon("s", 3.0), Horizon("s", 0.5), Horizon("ticks", 1), Horizon("ticks", 5))


@pytest.mark.parametrize("horizon", [Horizon("s", 3.0), Horizon("ticks", 2)])
def test_a_mid_is_not_smoothed_over_rows_before_the_first_whole_book(horizon):
    seconds = np.array([0, 0, 7, 7, 7, 9, 14])
    bid = np.array([0, 0, 0, 999, 999, 999, 999])
    way = Way((1_700_000_000 + seconds) * S, bid, np.full(7, 1001), np.arange(1, 8))
    found = moves(way, np.array([3, 5]), horizon, "both")
    assert np.isnan(found.move[0]) and found.short[0] and not found.lost[0]
    assert not found.short[1] or horizon.kind == "s"  # the window of ticks begins with the first whole book


@settings(max_examples=150)
@given(ways(), st.sampled_from(HORIZONS), st.sampled_from(labels.SMOOTH))
def test_a_move_is_what_its_definition_gives(way, horizon, smooth):
    rows = np.flatnonzero((way.bid > 0) & (way.ask > 0))
    found = moves(way, rows, horizon, smooth)
    for row, move, until, lost, short in zip(rows.tolist(), *found):
        expected, gone = plain(way, row, horizon, smooth)
        assert move == pytest.approx(expected, rel=1e-12, abs=1e-9, nan_ok=True) and lost == gone
        assert until >= way.time_ns[row] and (not short or smooth and np.isnan(move) and not lost)


@settings(max_examples=150)
@given(ways(), st.sampled_from(HORIZONS), st.sampled_from(labels.SMOOTH), st.integers(0, 39))
def test_nothing_after_the_time_at_which_it_is_known_changes_a_label(way, horizon, smooth, cut):
    """Prices after a moment are doubled: labels known by then stay, bit for bit."""
    rows = np.flatnonzero((way.bid > 0) & (way.ask > 0))
    border = way.time_ns[min(cut, len(way.time_ns) - 1)]
    late = way.time_ns > border
    changed = way._replace(bid=np.where(late, way.bid * 2, way.bid), ask=np.where(late, way.ask * 2, way.ask))
    before, after = moves(way, rows, horizon, smooth), moves(changed, rows, horizon, smooth)
    known = before.until_ns <= border
    assert np.array_equal(before.move[known], after.move[known], equal_nan=True)


def test_by_hand():
    one = way([0, 1, 2, 3], [1000, 1010, 1000, 1020])
    rows = np.array([0, 1, 2, 3])
    assert moves(one, rows, Horizon("s", 2.0)).move[:2] == pytest.approx([0, 10 / 1010 * 1e4])
    assert np.isnan(moves(one, rows, Horizon("s", 2.0)).move[2:]).all()
    assert moves(one, rows, Horizon("ticks", 2), "next").move[0] == pytest.approx((1005 / 1000 - 1) * 1e4)
    assert moves(one, rows, Horizon("ticks", 2), "both").move[1] == pytest.approx((1010 / 1005 - 1) * 1e4)
    assert moves(one, rows, Horizon("s", 2.0)).until_ns.tolist()[:2] == [BEGIN + 2 * S, BEGIN + 3 * S]
    assert moves(one, rows[:0], Horizon("s", 2.0)).move.shape == (0,)


def test_a_price_that_nobody_saw_is_no_label():
    broken = way([0, 1, 2, 3, 4], [1000, 1010, 1020, 1030, 1040], [1, 2, 5, 6, 7])
    found = moves(broken, np.arange(5), Horizon("ticks", 2))
    assert np.isnan(found.move).tolist() == [True, True, False, True, True]
    assert found.lost.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("text, expected", [("30s", ("s", 30)), ("500ms", ("s", 0.5)), ("2min", ("s", 120)),
                                            ("100ticks", ("ticks", 100)), ("1tick", ("ticks", 1))])
def test_horizons_are_read(text, expected):
    assert labels.horizon(text) == expected and labels.horizon(str(labels.horizon(text))) == expected


@pytest.mark.parametrize("text", ["", "30", "0s", "-1s", "1.5ticks", "0ticks", "ticks", "nans", "infs", "1e99h"])
def test_what_is_no_horizon_is_refused(text):
    with pytest.raises(ConfigError, match="horizon"):
        labels.horizon(text)


def test_two_classes_drop_what_does_not_move_and_three_call_it_flat():
    move = np.array([-2.0, -0.5, 0.0, 0.5, 2.0, np.nan])
    assert classify(move, np.zeros(6), 2).tolist() == [0, 0, -1, 1, 1, -1]
    assert classify(move, np.ones(6), 2).tolist() == [0, -1, -1, -1, 1, -1]
    assert [THREE[k] if k >= 0 else "" for k in classify(move, np.ones(6), 3)] == [
        "down", "flat", "flat", "flat", "up", ""]
    assert TWO == ("down", "up")


def test_thresholds():
    move = np.array([-3.0, -1.0, 0.2, 1.0, 100.0, 100.0])
    bid, ask, train = np.full(6, 9_999), np.full(6, 10_001), np.array([True] * 4 + [False] * 2)

    def limit(text, fee=0.0, classes=3):
        return limits(labels.threshold(text), move, bid, ask, train, fee, classes).tolist()

    assert limit("1.5") == [1.5] * 6 and limit("1.5bps", 0.5) == [2.5] * 6
    assert limit("spread") == pytest.approx([2.0] * 6) and limit("half-spread", 2.0) == pytest.approx([5.0] * 6)
    assert limit("balanced") == [1.0] * 6  # a third of 0.2, 1, 1, 3 is at most that; the test rows are not looked at
    with pytest.raises(ConfigError, match="three classes"):
        limit("balanced", classes=2)
    with pytest.raises(ConfigError, match="no training rows"):
        limits(Threshold("balanced"), move, bid, ask, ~train & False)
    for text in ("-1", "wide", "nan", "1e5"):
        with pytest.raises(ConfigError, match="not a threshold"):
            labels.threshold(text)


def test_a_smoothing_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="known: next, both"):
        moves(way([0, 1], [10, 11]), np.array([0]), Horizon("ticks", 1), "last")
