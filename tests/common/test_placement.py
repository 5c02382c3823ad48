"""Placement: sound defaults for every machine, and each part can be switched off."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.config import Placement
from common.placement import default_cores, freeze_collector, keep_awake

STAGES = ("exchange", "ingest", "feature", "inference", "executor", "monitor")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_cores_that_exist_on_every_machine(stage, count):
    available = list(range(10, 10 + count))
    assert set(default_cores(stage, available)) <= set(available)


def test_on_two_cores_the_producer_is_apart_from_the_rest():
    assert [default_cores(stage, [0, 1]) for stage in STAGES] == [[0], [0], [1], [1], [1], []]


def test_a_process_is_put_on_the_cores_of_its_configuration_or_left_alone():
    program = """
import sys
from common.config import Placement
from common.placement import pin
core = sorted(__import__("os").sched_getaffinity(0))
print(pin("feature", Placement(cores={"feature": core[:1]})) == core[:1])
"""
    out = subprocess.check_output([sys.executable, "-c", program], cwd=Path(__file__).resolve().parents[2])
    assert out == b"True\n"
    program = """
import os
from common.config import Placement
from common.placement import pin
before = sorted(os.sched_getaffinity(0))
print(pin("feature", Placement(pin=False)) == before)
"""
    out = subprocess.check_output([sys.executable, "-c", program], cwd=Path(__file__).resolve().parents[2])
    assert out == b"True\n"


def test_the_stage_nearest_to_the_order_goes_first_unless_it_is_switched_off():
    program = """
import sys
from common.config import Placement
from common.placement import order
print(order(sys.argv[1], Placement(downstream_first=sys.argv[2] == "on")))
"""
    def niceness(stage: str, switch: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", program, stage, switch],
                                           cwd=Path(__file__).resolve().parents[2]))

    base = niceness("executor", "off")
    assert [niceness(stage, "on") - base for stage in ("executor", "inference", "feature")] == [0, 3, 6]
    assert niceness("feature", "off") == base


def test_cores_are_kept_awake_only_where_it_is_wanted():
    assert keep_awake(Placement(keep_awake=False)) is None
    fd = keep_awake(Placement())
    if fd is not None:
        os.close(fd)


def test_the_collector_is_frozen_only_where_it_is_wanted():
    try:
        assert not freeze_collector(Placement(freeze_gc=False)) and gc.isenabled()
        assert freeze_collector(Placement()) and gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.enable()
