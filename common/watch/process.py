"""What a process of ours takes of the machine, as Linux tells it in /proc."""

import os
import time
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _START, _RSS = 11, 12, 19, 21  # fields of /proc/PID/stat behind the name, from 0


class Usage(NamedTuple):
    """Of one process since it began."""

    memory_bytes: int  #: resident, shared memory that it has touched included
    cpu_s: float  #: in user and kernel mode, all threads


def usage(pid: int, before_ns: int) -> Usage | None:
    """None where no process `pid` lives that began before `before_ns`, on the monotonic clock: a number is given to
    another process once its first owner has gone. About 30 us."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name is in brackets, and may hold any character.
    state, *fields = text.rpartition(b")")[2].split()
    asleep_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    began_s = int(fields[_START - 1]) / _TICKS_PER_S - asleep_s
    if state in (b"Z", b"X") or began_s > before_ns / 1e9 + 1:
        return None
    return Usage(int(fields[_RSS - 1]) * _PAGE,
                 (int(fields[_UTIME - 1]) + int(fields[_STIME - 1])) / _TICKS_PER_S)
