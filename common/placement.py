"""Where stages run and how fast they wake: cores, order, idle states, the garbage collector. Each can be switched off.

Latency here is mostly waking up. Two stages that hand work to each other wake faster on one core than across
two; where several share a core, the one nearest to the order goes first, so that a tick that is under way is
finished before the next is begun; a core that never sleeps deeply wakes faster; and a collection in the middle
of a tick costs milliseconds. Every function says what is in force afterwards, for `alpha status`.
"""

import contextlib
import gc
import os
import struct
from pathlib import Path

from common.config import Placement

_CPU_DMA_LATENCY = Path("/dev/cpu_dma_latency")


def default_cores(stage: str, available: list[int]) -> list[int]:
    """The cores of `stage` on a machine with these cores.

    Two cores: producer and ingest on the first, the rest on the second, which was best or equal at every rate
    measured. Four and more: ingest, then feature with executor, then the workers on what is left. One core, or
    a stage that is not on the path of a tick: no pinning."""
    if stage == "exchange":
        return available[:1] if len(available) > 1 else []
    if len(available) in (2, 3):
        return {"ingest": available[:1]}.get(stage, available[1:] if stage in _PATH else [])
    if len(available) >= 4:
        return {"ingest": available[1:2], "feature": available[2:3], "executor": available[2:3],
                "inference": available[3:]}.get(stage, [])
    return []


_PATH = ("feature", "inference", "executor")


#: stage -> niceness: positive only, which needs no privilege
_NICENESS = {"executor": 0, "inference": 3, "feature": 6, "ingest": 0, "exchange": 10}


def order(stage: str, placement: Placement) -> int:
    """Downstream first: this thread gives way to the stages between it and the order. Returns the niceness in
    force. (On Linux niceness belongs to a thread; those that run already keep theirs.)"""
    return os.nice(_NICENESS.get(stage, 0) if placement.downstream_first else 0)


def step_back() -> None:
    """For what only looks on: run when a core has nothing else to do, and never take one from a stage."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def pin(stage: str, placement: Placement) -> list[int]:
    """Put this process on its cores; call before threads are made. Returns the cores in force."""
    available = sorted(os.sched_getaffinity(0))
    wanted = placement.cores.get(stage, default_cores(stage, available)) if placement.pin else []
    usable = [core for core in wanted if core in available]
    if usable:
        os.sched_setaffinity(0, usable)
    return sorted(os.sched_getaffinity(0))


def keep_awake(placement: Placement) -> int | None:
    """Ask the kernel for wake-ups without delay, for as long as the returned descriptor is open.

    Power-management quality of service: while any process holds 0, idle cores stay in their lightest state.
    None where it is switched off or not permitted (the device belongs to root)."""
    if not placement.keep_awake:
        return None
    try:
        fd = os.open(_CPU_DMA_LATENCY, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.write(fd, struct.pack("<i", 0))
    except OSError:
        os.close(fd)
        return None
    return fd


def freeze_collector(placement: Placement) -> bool:
    """After warm-up: what lives now lives on, and no collection starts by itself. The stage driver collects
    the youngest generation when idle, which is enough for cycles that the hot path does not make."""
    gc.collect()
    if placement.freeze_gc:
        gc.freeze()
        gc.disable()
    else:
        gc.enable()
    return placement.freeze_gc


def die_with_parent() -> None:
    """Linux: be killed when the parent dies, so that a killed supervisord leaves no orphans behind."""
    import ctypes

    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    # It died in between; or before, while this process was still loading, and somebody else is the parent by now.
    if os.getppid() != parent or os.environ.get("SUPERVISOR_ENABLED") and not _is_supervisord(parent):
        os._exit(1)


def _is_supervisord(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"supervisord" in file.read()
    except OSError:
        return False
