"""Telemetry: quantiles within 1/32, counts that survive the stage, and a reader that disturbs nothing."""

import os

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.telemetry import Telemetry, quantiles


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
