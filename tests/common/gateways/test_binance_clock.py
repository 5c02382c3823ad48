"""A venue's clock is known as well as the quickest answer allows, and no better than it was last seen."""

from hypothesis import given
from hypothesis import strategies as st

from common.clock import ManualClock
from common.gateways.binance_clock import AGAIN_NS, EVERY_NS, SAMPLES, VenueClock

MS = 1_000_000
S = 1000 * MS


def shown(clock: ManualClock, venue: VenueClock, ahead_ns: int, there_ns: int, back_ns: int) -> None:
    """A question that takes so long there and back, at a venue whose clock is so far ahead of the monotonic one."""
    assert venue.due(clock.now_ns)
    venue.asked()
    assert not venue.due(clock.now_ns) and venue.due_ns() == 0
    sent = clock.now_ns
    clock.set(sent + there_ns)
    server_ms = (clock.now_ns + ahead_ns) // MS
    clock.set(clock.now_ns + back_ns)
    venue.told(server_ms, sent, clock.now_ns)


def off(clock: ManualClock, venue: VenueClock, ahead_ns: int) -> float:
    """How far what it shows is from what is so, ns."""
    return abs(venue.now_ms() * MS - (clock.now_ns + ahead_ns))


@given(st.integers(-10**15, 10**18), st.lists(st.tuples(st.integers(0, S), st.integers(0, S)), min_size=SAMPLES,
                                              max_size=SAMPLES))
def test_it_is_wrong_by_half_of_the_quickest_round_trip_at_most(ahead_ns, trips):
    clock = ManualClock(10 * S)
    venue = VenueClock(clock)
    for there, back in trips:
        shown(clock, venue, ahead_ns, there, back)
        assert venue.known
    assert off(clock, venue, ahead_ns) <= min(there + back for there, back in trips) / 2 + 2 * MS
    assert venue.due_ns() == clock.now_ns + EVERY_NS


def test_a_slow_answer_while_it_is_known_changes_nothing_before_the_round_is_over():
    clock = ManualClock(S)
    venue = VenueClock(clock)
    for _ in range(SAMPLES):
        shown(clock, venue, 5 * S, 0, 0)
    clock.set(clock.now_ns + EVERY_NS)
    shown(clock, venue, 5 * S, 3 * S, 0)
    assert off(clock, venue, 5 * S) <= 2 * MS
    for _ in range(SAMPLES - 1):
        shown(clock, venue, 6 * S, 0, 0)
    assert off(clock, venue, 6 * S) <= 2 * MS, "it has drifted, and was followed"


def test_a_refused_time_is_a_reason_to_ask_unless_it_is_older_than_what_is_known():
    clock = ManualClock(S)
    venue = VenueClock(clock)
    venue.doubt(S)
    assert not venue.known and not venue.ever
    for _ in range(SAMPLES):
        shown(clock, venue, 5 * S, MS, MS)
    venue.doubt(S)  # signed before
    assert venue.known
    venue.doubt(clock.now_ns)
    assert not venue.known and venue.ever and venue.error and venue.due(clock.now_ns)
    venue.asked()
    venue.told(1, S, clock.now_ns)  # asked before that
    assert not venue.known
    shown(clock, venue, 8 * S, MS, MS)
    assert venue.known and off(clock, venue, 8 * S) <= 3 * MS


def test_a_question_without_an_answer_is_asked_again_later_and_its_reason_told():
    clock = ManualClock(S)
    venue = VenueClock(clock)
    venue.asked()
    venue.missed("no route")
    assert venue.error == "no route" and not venue.due(clock.now_ns) and venue.due(clock.now_ns + AGAIN_NS)
    clock.set(clock.now_ns + AGAIN_NS)
    shown(clock, venue, 0, 0, 0)
    clock.set(clock.now_ns + MS)
    venue.asked()
    venue.missed("no route")
    assert venue.known and venue.error == "", "what is known stays known"
