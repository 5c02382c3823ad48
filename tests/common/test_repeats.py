"""Repeats: nothing passes more often than it may, and what does not pass is counted exactly."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from common.repeats import MAX_KINDS, Repeats


@settings(max_examples=50)
@given(st.integers(1, 4), st.floats(0.5, 5), st.lists(st.tuples(st.floats(0, 3), st.sampled_from("abc")), max_size=80))
def test_what_passed_and_what_was_told_is_all_that_came(limit, window_s, steps):
    repeats, now, came, passed, told = Repeats(limit, window_s), 0.0, Counter(), Counter(), Counter()
    times: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    for gap, kind in steps:
        now += gap
        for over, count in repeats.over(now):
            assert count > 0
            told[over] += count
        came[kind] += 1
        if repeats.admits(kind, now):
            passed[kind] += 1
            times[kind].append(now)
        assert repeats.held_back == sum(came.values()) - sum(passed.values()) - sum(told.values())
    for over, count in repeats.over(float("inf")):
        told[over] += count
    assert passed + told == came and repeats.held_back == 0
    for found in times.values():  # two windows that follow one another may both be full
        assert all(sum(begin <= at < begin + window_s for at in found) <= 2 * limit for begin in found)


def test_a_storm_costs_a_few_lines_and_is_told_once():
    repeats = Repeats(20, 10.0)
    assert sum(repeats.admits("x", 1.0 + k / 1e6) for k in range(1552)) == 20
    assert not list(repeats.over(10.9)) and list(repeats.over(11.1)) == [("x", 1532)] and not list(repeats.over(99))


def test_without_a_limit_everything_passes():
    repeats = Repeats(0, 10.0)
    assert all(repeats.admits("x", 0.0) for _ in range(1000)) and not list(repeats.over(1e9))


def test_memory_is_bounded_whatever_comes():
    repeats = Repeats(1, 10.0)
    passed = sum(repeats.admits(k, 0.0) for k in range(5 * MAX_KINDS))
    assert passed == MAX_KINDS + 1 and list(repeats.over(20.0)) == [(None, 4 * MAX_KINDS - 1)]
