"""Checkpoints: a process that was killed goes on with what it remembered, bit for bit."""

import numpy as np
import pytest

from common import shm
from common.errors import InstanceError
from common.features.choice import FeatureSet
from common.features.state import Checkpoints
from common.features.table import FEATURES
from common.ring import Rows
from tests.feature_reference import parameters
from tests.feature_ticks import Pipe, random_ticks

ALL = FeatureSet.of([feature.name for feature in FEATURES], parameters(10**6, 5 * 10**9))


@pytest.fixture
def checkpoints(instance):
    made = Checkpoints.create(instance, ("X", "Y"), ALL, 7)
    yield made
    made.close()


@pytest.fixture
def before() -> Pipe:
    pipe = Pipe(1024, features=ALL)
    pipe.pass_on(random_ticks(3000)[:2600])
    return pipe


def anew(before: Pipe) -> Pipe:
    """A writer after the one that died, with rows of its own to compare."""
    return Pipe(1024, Rows.private(("X",), ALL.labels, 1024), before.books, ALL)


def test_a_state_comes_back_as_it_was_saved_last(checkpoints, before):
    assert checkpoints.load(0) is None and checkpoints.load(1) is None
    for seq in (2600, 2700, 2800):
        before.pass_on(random_ticks(3000)[before.features.last(0):seq])
        checkpoints.save(0, before.features)
        assert np.array_equal(checkpoints.load(0), before.features.state(0))
    assert checkpoints.load(1) is None


@pytest.mark.parametrize("behind", [0, 60])
def test_a_writer_that_resumes_goes_on_bit_for_bit_with_what_the_ring_no_longer_holds(checkpoints, before, behind):
    ticks = random_ticks(3000)
    checkpoints.save(0, before.features)
    before.pass_on(ticks[2600:2600 + behind])
    after = anew(before)
    assert after.features.resume(0, checkpoints.load(0), 2600 + behind)
    for pipe in (before, after):
        pipe.publish(ticks[2600 + behind:2900])
        pipe.features.advance(0, 2900, 0)
    rows = np.arange(2601 + behind, 2901) & 1023
    assert before.rows.values[0][rows].tobytes() == after.rows.values[0][rows].tobytes()
    assert np.array_equal(before.rows.meta[0][rows], after.rows.meta[0][rows])
    rebuilt = anew(before)
    rebuilt.features.rebuild(0, 2600)
    rebuilt.features.advance(0, 2900, 0)
    assert before.rows.values[0][rows].tobytes() != rebuilt.rows.values[0][rows].tobytes(), "the ring is not enough"


@pytest.mark.parametrize("what", ["younger", "gone", "another kernel"])
def test_a_state_that_does_not_fit_is_rebuilt_from_the_ring(before, what):
    state, upto = before.features.state(0).copy(), 2600
    if what == "younger":
        upto = 2500
    elif what == "gone":
        before.pass_on(random_ticks(4000)[2600:])
        upto = 4000
    else:
        state[0] += 1
    resumed, rebuilt = anew(before), anew(before)
    assert not resumed.features.resume(0, state, upto)
    rebuilt.features.rebuild(0, upto)
    assert np.array_equal(resumed.features.state(0), rebuilt.features.state(0))
    assert resumed.features.lost(0) == 0 and resumed.features.last(0) == upto


def test_a_writer_killed_while_it_saves_leaves_the_copy_before(checkpoints, before):
    for _ in range(2):
        checkpoints.save(0, before.features)
    whole = checkpoints.load(0)
    copies = checkpoints._copies[0]
    older = int(copies[1, 0] < copies[0, 0])
    copies[older, 0] = 0
    copies[older, 8:] = -1
    assert np.array_equal(checkpoints.load(0), whole)
    before.pass_on(random_ticks(3000)[2600:2700])
    checkpoints.save(0, before.features)
    assert checkpoints.load(0)[1] == 2700


def test_the_next_writer_finds_them_unless_columns_or_stream_are_others(instance, before):
    first = Checkpoints.create(instance, ("X",), ALL, 7)
    first.save(0, before.features)
    with pytest.raises(InstanceError):
        Checkpoints.create(instance, ("X",), ALL, 7)
    shm.os.close(first._block._lock_fd)  # as when its process is killed
    again = Checkpoints.create(instance, ("X",), ALL, 7)
    assert again.load(0)[1] == 2600
    for features, epoch in ((ALL, 8), (FeatureSet.of(["obi_1"]), 8)):
        shm.os.close(again._block._lock_fd)
        again = Checkpoints.create(instance, ("X",), features, epoch)
        assert again.load(0) is None
    again.close()


def test_what_is_kept_is_not_large(before):
    assert before.features.state(0).nbytes <= 256 << 10
