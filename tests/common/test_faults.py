"""Faults: what may be asked for, that a seed decides, and that each does what it says and nothing else."""

import itertools
import re

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError, VenueError
from common.events import Delta, Snapshot
from common.faults import FAULTS, Applied, Plan, explained, parse
from common.venues import create, registry
from tests.common.venues.samples import samples
from tests.frames import delta, snapshot, ticker, trade

FRAMES = [snapshot("A", 1, bids=((99, 5),)), snapshot("B", 1), *itertools.chain.from_iterable(
    (delta("A", i, bids=[(99, i)]), delta("B", i, asks=[(101, i)]), trade("A", i), ticker("A", i, 99, i))
    for i in range(2, 80))]


def run(*texts: str, seed: int = 1, frames=FRAMES, connections: int = 1):
    """(frames sent instead, outcomes, what was told) of the last of some connections."""
    told: list[Applied] = []
    plan = Plan([parse(text) for text in texts], seed, told.append, max_frame=5000)
    outcomes = []
    for _ in range(connections):
        line = plan.line(create("vectrade", ["A", "B"]))
        outcomes = [line.frame(frame) for frame in frames]
    return [frame for outcome in outcomes for frame in outcome.frames], outcomes, told


def of(symbol: str, frames) -> list[bytes]:
    return [frame for frame in frames if b":" + symbol.encode() + b'"' in frame]


# ---- what may be asked for


@pytest.mark.parametrize(("text", "word"), [
    ("explode", "known: "), ("drop:colour=red", "known here: rate"), ("drop:rate=0", "above 0"),
    ("drop:rate=2", "above 0"), ("drop:rate=much", "rate"), ("drop:at=0", "1 or more"), ("drop:what=all", "delta"),
    ("malformed:how=rude", "utf8"), ("clock:seconds=nan", "seconds"), ("silent:symbol=A", "known here"),
    ("drop:symbol=", "number")])
def test_what_is_no_fault_is_refused_with_what_is_known(text, word):
    with pytest.raises(ConfigError, match=word):
        parse(text)


def test_a_schedule_of_ones_own_replaces_the_usual_one():
    assert parse("drop").rate == 0.01
    fault = parse("drop:at=3,symbol=A")
    assert (fault.rate, fault.at, fault.symbol, fault.count) == (0.0, 3, "A", 0)
    assert (parse("oversized:size=9").at, parse("oversized:size=9").count) == (100, 1)


def test_every_fault_is_explained_and_may_be_asked_for_by_its_name():
    for name in FAULTS:
        assert parse(name).name == name and f"\n{name}:" in "\n" + explained()


# ---- a seed decides


@settings(max_examples=30)
@given(seed=st.integers(0, 1000))
def test_one_seed_over_the_same_frames_gives_the_same_faults(seed):
    texts = "drop:rate=0.1", "duplicate:rate=0.1", "reorder:rate=0.1", "checksum:rate=0.1", "malformed:rate=0.1"
    assert run(*texts, seed=seed) == run(*texts, seed=seed)


def test_another_seed_or_another_connection_gives_others():
    assert run("drop:rate=0.2", seed=1)[0] != run("drop:rate=0.2", seed=2)[0]
    told = run("drop:rate=0.2", connections=2)[2]
    first, second = ([one.frame for one in told if one.connection == number] for number in (1, 2))
    assert first != second and len(told) == len(first) + len(second)


@pytest.mark.parametrize("name", ["drop", "duplicate", "reorder", "checksum", "malformed", "oversized"])
def test_a_symbol_that_is_not_meant_gets_clean_frames_and_all_that_is_done_is_told(name):
    sent, outcomes, told = run(f"{name}:rate=0.3,symbol=A")
    assert of("B", sent) == of("B", FRAMES) and of("A", sent) != of("A", FRAMES)
    assert {one.symbol for one in told} == {"A"} and {one.fault for one in told} == {name}
    if name != "reorder":
        changed = [i for i, (frame, outcome) in enumerate(zip(FRAMES, outcomes), 1) if outcome.frames != [frame]]
        assert changed == [one.frame for one in told]


def test_a_fault_is_applied_so_often_at_most_as_it_may_be():
    assert len(run("drop:rate=1,count=3")[2]) == 3
    assert len(run("drop:rate=1,count=3", connections=4)[2]) == 3
    assert [one.frame for one in run("drop:at=2,what=any", connections=2)[2]] == [2, 2]
    assert [one.frame for one in run("drop:every=100,what=any")[2]] == [100, 200, 300]


# ---- each does what it says


def test_frames_are_dropped_doubled_and_put_behind_the_next_of_their_symbol():
    deltas = [frame for frame in of("A", FRAMES) if b"delta" in frame]
    assert of("A", run("drop:at=5,symbol=A")[0]) == [frame for frame in of("A", FRAMES) if frame != deltas[4]]
    doubled = run("duplicate:at=5,symbol=A")[0]
    assert doubled.count(deltas[4]) == 2 and len(doubled) == len(FRAMES) + 1
    swapped = run("reorder:at=5,symbol=A")[0]
    at = swapped.index(deltas[4])
    assert sorted(swapped) == sorted(FRAMES) and swapped[at - 1] == deltas[5]
    assert [frame for frame in swapped if frame != deltas[4]] == [frame for frame in FRAMES if frame != deltas[4]]


def test_what_is_dropped_may_be_of_any_kind():
    for what in ("trade", "quote", "snapshot"):
        told = run(f"drop:rate=1,what={what},symbol=A")[2]
        assert len(told) == (1 if what == "snapshot" else 78)


def test_a_malformed_frame_is_one_that_no_venue_takes():
    for how in ("cut", "utf8"):
        sent, _, told = run(f"malformed:rate=1,how={how},what=any")
        assert len(told) == len(sent) == len(FRAMES)
        for frame in sent:
            with pytest.raises(VenueError):
                create("vectrade", ["A", "B"]).decode(frame)


def test_an_oversized_frame_is_above_the_limit_and_valid():
    sent = run("oversized:at=5")[0]
    big = [frame for frame in sent if len(frame) > 5000]
    assert len(big) == 1 and len(big[0]) == 5001 and orjson.loads(big[0])
    assert max(map(len, run("oversized:at=5,size=7777")[0])) == 7777


def test_a_connection_falls_silent_or_deaf_and_stays_so():
    for name, deaf in (("silent", False), ("half-open", True)):
        plan = Plan([parse(f"{name}:at=5,count=1")])
        line = plan.line(create("vectrade", ["A", "B"]))
        sent = [len(line.frame(frame).frames) for frame in FRAMES]
        assert sent == [1] * 4 + [0] * (len(FRAMES) - 4) and line.deaf == deaf and plan.counts == {name: 1}
        other = plan.line(create("vectrade", ["A", "B"]))
        assert all(other.frame(frame).frames for frame in FRAMES) and not other.deaf


def test_a_symbol_falls_silent_until_it_is_subscribed_to_anew():
    beat = b'{"type":"heartbeat","timestamp":1}'
    more = [beat, delta("A", 80), snapshot("A", 80), delta("A", 81)]
    sent = run("stalled:at=10,symbol=A", frames=FRAMES + more)[0]
    assert of("B", sent) == of("B", FRAMES) and of("A", sent) == of("A", FRAMES)[:9] + more[2:] and beat in sent
    assert of("B", run("stalled:at=10", frames=FRAMES + more)[0]) != of("B", FRAMES)


def test_how_frames_leave_and_when_connections_end_is_told_to_the_shell():
    outcomes = run("split:every=10", "coalesce:every=7,size=3", "disconnect:every=100,how=close")[1]
    assert [i for i, outcome in enumerate(outcomes, 1) if outcome.split] == list(range(10, 101, 10))
    assert {outcome.hold for outcome in outcomes} == {0, 3}
    assert [i for i, outcome in enumerate(outcomes, 1) if outcome.end] == [100] and outcomes[99].end == "close"
    assert not any(outcome.frames for outcome in outcomes[100:]), "nothing is sent behind the end"


def test_a_storm_ends_so_many_connections():
    plan = Plan([parse("storm:count=3"), parse("storm:how=open,every=2,count=1")])
    assert [plan.accepts("accept") for _ in range(5)] == [False] * 3 + [True] * 2
    assert [plan.accepts("open") for _ in range(4)] == [True, False, True, True]


def test_requests_for_snapshots_are_refused_or_late():
    told: list[Applied] = []
    plan = Plan([parse("http-429:symbol=A,seconds=7"), parse("http-503:every=2,count=1"), parse("slow:at=3,seconds=2")],
                told=told.append)
    assert plan.snapshot("B") is None
    assert plan.snapshot("A") == (429, 7.0, 0.0)
    assert plan.snapshot("B") == (503, 0.0, 0.0)
    assert plan.snapshot("B") is None and plan.snapshot("A") == (0, 0.0, 2.0)
    assert [(one.fault, one.symbol, one.frame) for one in told] == [
        ("http-429", "A", 2), ("http-503", "B", 3), ("slow", "A", 5)]


# ---- changes of a frame, in the words of every venue


@pytest.fixture(scope="module", params=sorted(registry()))
def changed(request, recordings):
    """changed(text) -> (frame, frame sent instead) for each of a venue's sample that the fault changed, with what
    both mean."""
    sample = samples()[request.param](recordings)

    def change(text: str):
        told: list[Applied] = []
        line = Plan([parse(text)], told=told.append).line(create(request.param, sample.symbols))
        before, after = (create(request.param, sample.symbols) for _ in range(2))
        before.begin()
        after.begin()
        found = []
        for number, frame in enumerate(map(dated, sample.frames[:200]), 1):
            sent = line.frame(frame).frames[0]
            old, new = meaning(before, frame), meaning(after, sent)
            assert (sent != frame) == (bool(told) and told[-1].frame == number)
            if sent != frame:
                found.append((old, new))
        return before, found

    return change


def dated(frame: bytes) -> bytes:
    """The sample of VecTrade is of the first seconds of 1970, where a time looks like any number."""
    return re.sub(rb'"timestamp":(\d{4}),', rb'"timestamp":170000000\1,', frame)


def meaning(venue, frame: bytes) -> list:
    return [event._replace(levels=event.levels[:event.n_bids + event.n_asks].tolist())
            if isinstance(event, (Delta, Snapshot)) else event for event in venue.decode(frame)]


def test_a_wrong_quantity_is_one_digit_of_one_level_in_every_venues_words(changed):
    _, found = changed("checksum:rate=1")
    assert found
    for old, new in found:
        differing = 0
        for one, other in zip(old, new, strict=True):
            if one == other:
                continue
            assert one._replace(levels=[]) == other._replace(levels=[])
            differing += sum(a != b for a, b in zip(one.levels, other.levels, strict=True))
            assert all(a[0] == b[0] and (a == b or a[1] and b[1]) for a, b in zip(one.levels, other.levels))
        assert differing == 1


def test_a_wrong_checksum_leaves_the_levels_alone(changed):
    venue, found = changed("checksum:rate=1,how=checksum")
    assert found or not venue.checksum_depth
    for old, new in found:
        assert [event._replace(checksum=0) if isinstance(event, (Delta, Snapshot)) else event for event in old] == [
            event._replace(checksum=0) if isinstance(event, (Delta, Snapshot)) else event for event in new]


@pytest.mark.parametrize("seconds", [3600, -7])
def test_the_venues_clock_jumps_by_so_much_in_every_venues_words(changed, seconds):
    _, found = changed(f"clock:rate=1,seconds={seconds}")
    assert found
    for old, new in found:
        for one, other in zip(old, new, strict=True):
            if isinstance(one, (Delta, Snapshot)):
                assert one._replace(event_ns=one.event_ns + seconds * 10**9) == other
