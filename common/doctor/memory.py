"""Shared memory: room for the rings, and blocks that nobody writes any more."""

import mmap
import os
from collections.abc import Iterator
from typing import NamedTuple

from common import deployment, shm
from common.doctor import procfs
from common.doctor.check import Check, Finding, error, note, ok, warning
from common.doctor.patient import Patient
from common.errors import AlphaError
from common.features.state import Checkpoints
from common.manifest import features_wanted
from common.ring import Books, Rows
from common.telemetry import Telemetry

_HEADER = 2 * mmap.PAGESIZE  # of a block: some numbers and its description
_MIB = 2**20


class Room(NamedTuple):
    """In bytes."""

    size: int  #: of /dev/shm
    free: int
    kind: str  #: of its file system
    needed: dict[str, int]  #: block -> what it takes
    unknown: str  #: why the rows ring is not among them; ""
    held: int  #: what this instance has already
    available: int  #: memory that the machine can still give; 0: not known
    largest: list[tuple[str, int]]  #: files there, of anybody


class Blocks(NamedTuple):
    instance: str
    found: list[shm.Found]
    living: frozenset[int]  #: processes


def needs(patient: Patient) -> tuple[dict[str, int], str]:
    """Bytes of every block of the instance by the layouts themselves, and why the rows ring is not among them."""
    config, unknown = patient.config, ""
    found = {"books": Books.size(config.symbols, config.ring.ticks), "checkpoints": Checkpoints.size(config.symbols)}
    try:
        columns = features_wanted(config, deployment.in_force(config).paths).labels
        found["rows"] = Rows.size(config.symbols, columns, config.ring.rows)
    except AlphaError as problem:
        unknown = problem.what
    for stage in patient.started:
        names = patient.stages.get(stage.partition("-")[0])
        if names:
            found[f"telemetry-{stage}"] = Telemetry.size(*names)
    return {name: size + _HEADER for name, size in found.items()}, unknown


def look_room(patient: Patient) -> Room:
    needed, unknown = needs(patient)
    stat = os.statvfs(shm.SHM_DIR)
    mine = sum(block.size for block in shm.survey() if block.instance == patient.config.instance.name and block.held)
    mount = procfs.mount_of(str(shm.SHM_DIR), procfs.mounts(procfs.read(patient.proc / "self/mountinfo")))
    largest = []
    for entry in os.scandir(shm.SHM_DIR):
        try:
            if entry.is_file(follow_symlinks=False):
                largest.append((entry.name, entry.stat(follow_symlinks=False).st_blocks * 512))
        except OSError:
            continue
    return Room(stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize, mount.kind if mount else "", needed,
                unknown, mine, procfs.amount(procfs.read(patient.proc / "meminfo"), "MemAvailable"),
                sorted(largest, key=lambda one: -one[1])[:3])


def judge_room(found: Room) -> Iterator[Finding]:
    needed = sum(found.needed.values())
    sizes = f"{found.free / _MIB:,.1f} of {found.size / _MIB:,.1f} MiB free in {shm.SHM_DIR}"
    missing = max(0, needed - found.held)
    enlarge = (f"mount -o remount,size={max(64, 2 ** (2 * needed // _MIB).bit_length())}M {shm.SHM_DIR}; "
               "docker run --shm-size 1g; or lower ring.ticks and ring.rows")
    filled = ", ".join(f"{name} {size / _MIB:,.1f} MiB" for name, size in found.largest if size)
    if found.unknown:
        yield note(f"how large the rows ring is to be is not known: {found.unknown}", "it is left out of the sum here",
                   "see the check model")
    if found.kind not in ("tmpfs", "ramfs", "shm", ""):
        yield error(f"{shm.SHM_DIR} is on {found.kind}", "rings on a disk are as slow as the disk",
                    f"mount -t tmpfs tmpfs {shm.SHM_DIR}")
    if found.size < needed:
        yield error(f"{sizes}, the blocks of this instance take {needed / _MIB:,.1f}", "stages end at their start",
                    enlarge)
    elif found.free < missing:
        yield error(f"{sizes}, {missing / _MIB:,.1f} more are needed", "stages end at their start",
                    f"remove what fills it ({filled}); {enlarge}")
    elif found.available and found.available < missing:
        yield error(f"{found.available / _MIB:,.1f} MiB of memory are left, {missing / _MIB:,.1f} are needed",
                    "the kernel ends processes when memory runs out",
                    "end other programs, or lower ring.ticks and ring.rows")
    elif found.free - missing < found.size // 20:
        yield warning(f"{sizes}, of which {missing / _MIB:,.1f} are needed",
                      "more columns, or another program, and a stage ends at its start",
                      f"remove what fills it ({filled}); {enlarge}")
    else:
        yield ok(f"{sizes}; the blocks of this instance take {needed / _MIB:,.1f}"
                 + (", which it has" if found.held and not missing else ""))


def look_blocks(patient: Patient) -> Blocks:
    found = shm.survey()
    living = frozenset(block.pid for block in found if block.pid and (patient.proc / str(block.pid)).exists())
    return Blocks(patient.config.instance.name if patient.config else "", found, living)


def judge_blocks(found: Blocks) -> Iterator[Finding]:
    wrong = False
    for instance in sorted({block.instance for block in found.found}):
        blocks = [block for block in found.found if block.instance == instance]
        free = [block for block in blocks if not block.held]
        size = sum(block.size for block in free) / _MIB
        names = ", ".join(block.name.partition(".")[2] for block in free)
        who = "this instance" if instance == found.instance else f"instance {instance}"
        if free and len(free) < len(blocks):
            wrong = True
            yield warning(f"{who}: no writer for {names} ({size:,.1f} MiB), while others of its blocks have one",
                          "a stage has died, and what reads these waits",
                          "alpha status; start the stage again, or let its supervisor")
        elif free:
            wrong = True
            strange = [block.name for block in free if not block.pid]
            by = ", ".join(sorted({str(block.pid) for block in free if block.pid})) or "unknown"
            if any(block.pid in found.living for block in free):
                yield warning(f"{who}: {len(free)} blocks ({size:,.1f} MiB) are held by nobody, but pid {by} lives: "
                              f"{names}", "it is starting, or another program has its number",
                              "look again in a moment: alpha doctor --only blocks")
            elif strange:
                paths = " ".join(str(shm.SHM_DIR / name) for name in strange)
                rest = "; then alpha doctor --fix" if len(strange) < len(free) else ""
                yield warning(f"{who}: {len(strange)} blocks do not say who wrote them: {', '.join(strange)}",
                              "they are of another version, or none of ours, so --fix leaves this instance alone",
                              f"stop what uses them, then rm {paths}{rest}")
            else:
                yield warning(f"{who}: {len(free)} blocks ({size:,.1f} MiB) left by pid {by}: {names}",
                              "killed stages leave their memory taken", "alpha doctor --fix")
    if not wrong:
        held = len(found.found)
        yield ok(f"{held} blocks, each with a writer" if held else "no blocks")


def leftovers(patient: Patient) -> list[str]:
    """Instances of this user of which blocks are left and nothing lives: no lock is held, no writer is there."""
    found = look_blocks(patient)
    return sorted({block.instance for block in found.found} - {
        block.instance for block in found.found if block.held or not block.pid or block.pid in found.living})


ROOM = Check("shm", "room in /dev/shm, against the rings", look_room, judge_room, needs_config=True)
BLOCKS = Check("blocks", "shared memory that nobody writes", look_blocks, judge_blocks)
