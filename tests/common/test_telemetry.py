"""Telemetry: quantiles within 1/32, counts that survive the stage, and a reader that disturbs nothing."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import telemetry as module
from common.errors import LayoutError
from common.shm import Block
from common.telemetry import Note, Telemetry, quantiles


@given(st.lists(st.integers(0, 2**39), min_size=1, max_size=300))
def test_quantiles_are_right_within_a_thirty_second(values):
    telemetry = Telemetry.private("t", (), ("wait",))
    for value in values:
        telemetry.observe("wait", value)
    found = telemetry.quantiles("wait")
    ranked = sorted(values)
    assert found["count"] == len(values)
    for name, part in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
        exact = ranked[int(np.ceil(part * len(ranked))) - 1]
        assert abs(found[name] - exact) <= max(1, exact / 32)


def test_no_observation_is_lost_at_either_end():
    telemetry = Telemetry.private("t", (), ("wait",))
    for value in (-5, 0, 2**62):
        telemetry.observe("wait", value)
    assert telemetry.quantiles("wait")["count"] == 3


def test_an_interval_is_the_difference_of_two_histograms():
    telemetry = Telemetry.private("t", (), ("wait",))
    telemetry.observe("wait", 10)
    before = telemetry.histogram("wait")
    telemetry.observe("wait", 1000)
    assert telemetry.quantiles("wait", before)["count"] == 1
    assert abs(telemetry.quantiles("wait", before)["p50"] - 1000) < 32
    assert quantiles(before * 0)["count"] == 0


def test_counts_go_on_after_a_killed_stage_starts_again(instance):
    first = Telemetry.create(instance, "stage", ("ticks",), ("wait",))
    first.add("ticks", 5)
    reader = Telemetry.attach(instance, "stage")
    os.close(first.block._lock_fd)  # as if its process had been killed
    first.block._lock_fd = None
    second = Telemetry.create(instance, "stage", ("ticks",), ("wait",))
    second.add("ticks")
    assert (reader.get("ticks"), reader.get("starts"), reader.get("pid")) == (6, 2, os.getpid())
    second.close()
    assert reader.get("ticks") == 6  # a mapping outlives its name


def test_a_stage_leaves_words_for_those_who_look(instance):
    telemetry = Telemetry.create(instance, "stage", ())
    telemetry.tell({"waiting_for": "ingest"})
    assert Telemetry.attach(instance, "stage").told() == {"waiting_for": "ingest"}
    telemetry.tell({})
    assert Telemetry.attach(instance, "stage").told() == {}
    telemetry.close()


def test_many_durations_at_once_are_counted_as_each_by_itself():
    draw = np.random.default_rng(0)
    ns = np.concatenate([draw.integers(-100, 200, (2, 500)), (2 ** draw.uniform(0, 62, (2, 5000))).astype(np.int64)], 1)
    together, alone = (Telemetry.private("s", (), ("a", "b")) for _ in range(2))
    together.observe_all(("b", "a"), ns)
    for timer, values in zip(("b", "a"), ns.tolist()):
        for value in values:
            alone.observe(timer, value)
    assert all((together.histogram(timer) == alone.histogram(timer)).all() for timer in ("a", "b"))


# ---- notes

def notes(first: int, last: int) -> list[Note]:
    return [Note(n, n % 7, "ticks", n + 0.5, -n) for n in range(first, last + 1)]


@given(st.lists(st.integers(0, 30), max_size=12))
def test_the_last_notes_are_kept_in_their_order(counts):
    telemetry, told = Telemetry.private("t", ("ticks",), notes=8), 0
    for count in counts:
        telemetry.note_all(notes(told + 1, told + count))
        told += count
        assert telemetry.notes() == notes(max(1, told - 7), told)


def test_a_stage_that_keeps_no_notes_has_none():
    telemetry = Telemetry.private("t", ("ticks",))
    telemetry.note_all(notes(1, 3))
    assert telemetry.notes() == []


def test_notes_are_read_from_outside_and_go_on_after_a_killed_stage_starts_again(instance):
    first = Telemetry.create(instance, "stage", ("ticks",), ("wait",), notes=4)
    reader = Telemetry.attach(instance, "stage")
    assert reader.notes() == []
    first.note_all(notes(1, 6))
    assert reader.notes() == notes(3, 6)
    os.close(first.block._lock_fd)  # as if its process had been killed
    first.block._lock_fd = None
    second = Telemetry.create(instance, "stage", ("ticks",), ("wait",), notes=4)
    second.note_all(notes(7, 8))
    assert reader.notes() == notes(5, 8)
    second.tell({"x": "y" * 20_000})
    assert reader.notes() == notes(5, 8), "words have an end"
    second.close()


def test_a_note_that_is_being_written_is_no_note(instance, monkeypatch):
    writer = Telemetry.create(instance, "stage", ("ticks",), notes=4)
    reader = Telemetry.attach(instance, "stage")
    writer.note_all(notes(1, 4))
    read, fence = [], module.fence

    def between() -> None:
        """At every step of the writer, a look of the reader."""
        monkeypatch.setattr(module, "fence", fence)
        read.append(reader.notes())
        monkeypatch.setattr(module, "fence", between)

    monkeypatch.setattr(module, "fence", between)
    writer.note_all(notes(5, 5))
    assert read == [notes(2, 4), notes(2, 4)]

    def meanwhile() -> None:
        """Between two steps of the reader, a whole record of the writer."""
        monkeypatch.setattr(module, "fence", fence)
        writer.note_all(notes(6, 6))

    for steps in range(2):
        monkeypatch.setattr(module, "fence", fence)
        writer.note_all(notes(2, 5))
        calls = iter([fence] * steps + [meanwhile])
        monkeypatch.setattr(module, "fence", lambda: next(calls, fence)())
        assert reader.notes() == notes(3, 5)
        assert reader.notes() == notes(3, 6)
    writer.close()


def test_notes_of_another_layout_are_refused(instance, monkeypatch):
    block = Block.create(instance, "telemetry-stage", 10_000, {"stage": "stage", "counters": [], "timers": [],
                                                               "buckets": module._BUCKETS})
    with pytest.raises(LayoutError, match="another note"):
        Telemetry.attach(instance, "stage")
    block.remove()
    for size in range(505, 516):  # wherever the block ends
        written = Telemetry.create(instance, "stage", tuple(f"c{n}" for n in range(size)))
        assert Telemetry.attach(instance, "stage").notes() == []
        written.close()
