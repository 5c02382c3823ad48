"""Placement: sound defaults for every machine, and each part can be switched off."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.config import Placement
from common.placement import default_cores, freeze_collector, keep_awake
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
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


def test_who_was_orphaned_before_it_could_say_so_ends(tmp_path):
    """supervisord, killed just after it has started a stage again: the stage is still loading."""
    program = ("import os, sys; from pathlib import Path; from common import placement\n"
               "while os.getppid() == int(sys.argv[1]): os.sched_yield()\n"
               "placement.die_with_parent(); Path(sys.argv[2]).touch()")
    lived = tmp_path / "lived"
    command = ["sh", "-c", '"$0" -c "$1" $$ "$2" >/dev/null 2>&1 & echo $!', sys.executable, program, str(lived)]
    for supervised in (True, False):
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        environ.pop("SUPERVISOR_ENABLED", None)
        child = int(subprocess.check_output(command, env=environ | ({"SUPERVISOR_ENABLED": "1"} if supervised else {})))
        until(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child), 30)
        assert lived.exists() == (not supervised)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
