"""Clocks: the system's are one for all processes, the manual one never goes back."""

import subprocess
import sys

from common.clock import ManualClock, SystemClock


def test_monotonic_time_is_one_clock_for_all_processes():
    before = SystemClock.monotonic_ns()
    there = int(subprocess.check_output([sys.executable, "-c", "import time; print(time.monotonic_ns())"]))
    assert before < there < SystemClock.monotonic_ns()


def test_a_manual_clock_stands_still_until_told_and_never_goes_back():
    clock = ManualClock(5)
    assert clock.monotonic_ns() == clock.wall_ns() == 5
    clock.set(9)
    clock.set(7)
    assert clock.monotonic_ns() == 9
