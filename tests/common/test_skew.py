"""Two clocks against each other: offsets, drift, and what traffic must not do to either."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.skew import Clocks

SECOND = 1_000_000_000


def clocks(pairs) -> dict:
    """The report on (recv ns, recv - event)."""
    of, end = Clocks(), 0
    for recv_ns, behind in pairs:
        if recv_ns >= end:
            of.turn(recv_ns)
            end = recv_ns + Clocks.WINDOW_NS
        of.pending.append(behind)
    of.turn(0)
    return of.report()


@given(st.lists(st.integers(-10**12, 10**12), min_size=1, max_size=300))
def test_the_median_is_that_of_all_events_to_a_tenth_of_a_millisecond(values):
    told = clocks((i * SECOND, value) for i, value in enumerate(values))
    lower = np.sort(values)[(len(values) - 1) // 2]
    assert told["median_ms"] == pytest.approx(lower / 1e6, abs=0.15) and told["events"] == len(values)


def test_the_envelope_is_the_clock_and_not_the_traffic_and_odd_stamps_do_not_move_it():
    random = np.random.default_rng(1)
    offset, shortest = -1_500_000_000, 5_000_000
    values = offset + shortest + random.exponential(20e6, 20_000)
    values[::997] -= 3e9  # odd stamps
    told = clocks((int(i * 1e7), int(value)) for i, value in enumerate(values))
    assert told["envelope_ms"] == pytest.approx((offset + shortest) / 1e6, abs=1.0)
    assert told["median_ms"] > told["envelope_ms"] + 10


def test_drift_is_the_slope_of_the_envelope_also_where_the_network_is_slow_for_a_while():
    random = np.random.default_rng(2)
    recv = np.arange(60_000) * 10_000_000  # ten minutes
    values = recv * 50e-6 + random.exponential(2e6, recv.size)  # 50 ppm: 180 ms an hour
    values[20_000:26_000] += 300e6
    assert clocks(zip(recv.tolist(), values.astype(int).tolist()))["drift_ms_per_hour"] == pytest.approx(180, rel=0.1)


def test_too_few_events_have_no_envelope_and_a_short_recording_no_drift():
    assert clocks([(1, 5)])["envelope_ms"] is None
    assert clocks((i, 5) for i in range(1000))["drift_ms_per_hour"] is None
    assert clocks([])["median_ms"] is None
