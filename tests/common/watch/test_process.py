"""What /proc tells of a process, and whether it is the one that is meant."""

import os
import subprocess
import sys
import time

import pytest

from common.watch.process import usage


def test_our_own_memory_and_processor_time_are_those_that_the_kernel_counts():
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    before = sum(os.times()[:2])
    told = usage(os.getpid(), time.monotonic_ns())
    assert before - 0.02 <= told.cpu_s <= sum(os.times()[:2]) + 0.02
    resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert told.memory_bytes == pytest.approx(resident, rel=0.1)


def test_a_process_that_has_gone_or_that_began_too_late_is_another():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert usage(process.pid, time.monotonic_ns()) is not None
    assert usage(process.pid, time.monotonic_ns() - 60_000_000_000) is None  # the number was given to another
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert usage(process.pid, time.monotonic_ns()) is None  # dead, and not yet taken notice of
    process.communicate()
    assert usage(process.pid, time.monotonic_ns()) is None
