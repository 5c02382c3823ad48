"""Waits grow, are jittered and capped, and are forgotten only after good data."""

from common.backoff import Backoff

S = 10**9


def test_waits_double_up_to_the_cap_each_between_half_and_all_of_it():
    backoff = Backoff(0.1, 3.0, seed=1)
    for limit in (0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0):
        assert limit / 2 <= backoff.failed() <= limit


def test_the_same_seed_waits_the_same_and_another_does_not():
    waits = [[backoff.failed() for _ in range(5)] for backoff in (Backoff(1, 9, 1), Backoff(1, 9, 1), Backoff(1, 9, 2))]
    assert waits[0] == waits[1] != waits[2]


def test_a_connection_that_opens_and_closes_at_once_does_not_reset_the_wait():
    backoff = Backoff(0.1, 10.0, seed=1, healthy_s=5.0)
    for attempt in range(6):
        backoff.good(attempt * S)
        backoff.failed()
    assert backoff.failures == 6


def test_it_is_reset_by_good_data_over_the_healthy_period():
    backoff = Backoff(0.1, 10.0, seed=1, healthy_s=5.0)
    for _ in range(6):
        backoff.failed()
    backoff.good(100 * S)
    backoff.good(104 * S)
    assert backoff.failures == 6
    backoff.good(105 * S)
    assert backoff.failures == 0 and backoff.failed() <= 0.1


def test_good_data_before_a_failure_do_not_count_after_it():
    backoff = Backoff(0.1, 10.0, seed=1, healthy_s=5.0)
    backoff.good(0)
    backoff.failed()
    backoff.good(6 * S)
    assert backoff.failures == 1
    backoff.reset()
    assert backoff.failures == 0


def test_failures_without_end_do_not_overflow():
    backoff = Backoff(0.1, 10.0, seed=1)
    backoff.failures = 5000
    assert 5.0 <= backoff.failed() <= 10.0
