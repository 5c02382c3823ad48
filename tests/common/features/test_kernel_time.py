"""Windows in seconds, on times that no venue should send."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.features.choice import FeatureSet
from tests.feature_ticks import BEGIN_NS, MAX, make_tick, matrix

TICK_RATES = FeatureSet.of(["tick_rate_1s", "tick_rate_10s", "tick_rate_60s"])
steps = st.sampled_from([0, 1, 10**6, 3 * 10**8, 10**9, 5 * 10**9, 11 * 10**9, 10**12, -1, -10**9, -10**10, -10**11,
                         None])


def counted(times: list[int]) -> np.ndarray:
    """Ticks in the windows, by the words at the head of the table of features."""
    found, t, kept = [], 0, []
    for time in times:
        if time > t:
            t = time
        elif 0 < time < t - 10**10:
            t, kept = time, []
        if t:
            kept.append(t)
        found.append([sum(t // (seconds * 10**9 // 64) - one // (seconds * 10**9 // 64) < 64 for one in kept)
                      for seconds in (1, 10, 60)])
    return np.array(found)


@settings(max_examples=100)
@given(st.lists(steps, min_size=1, max_size=80))
def test_ticks_in_a_window_are_those_of_its_buckets(found):
    times, now = [], BEGIN_NS
    for step in found:
        now += step or 0
        times.append(0 if step is None else now)
    ticks = np.array([make_tick(1, [(100, 5)], [(101, 5)], event_ns=time) for time in times])
    np.testing.assert_allclose(matrix(ticks, features=TICK_RATES) * [1, 10, 60], counted(times), rtol=1e-6)


def test_the_last_time_there_is_does_no_harm():
    ticks = np.array([make_tick(1, [(100, 5)], [(101, 5)], event_ns=time)
                      for time in (MAX, MAX, BEGIN_NS, BEGIN_NS + 1, MAX - 1, -MAX)])
    found = matrix(ticks, features=TICK_RATES)
    np.testing.assert_allclose(found[:, 0], [1, 2, 1, 2, 1, 2])
