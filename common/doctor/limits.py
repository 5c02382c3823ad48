"""What a process of this user may have: files, processes, locked memory, core files."""

import os
import resource
from collections.abc import Iterator
from typing import NamedTuple

from common.doctor.check import Check, Finding, error, ok, warning
from common.doctor.patient import Patient

FILES = 1024  #: supervisord.conf asks for as many
TASKS = 256  #: processes and threads of a pipeline, with room


class Limits(NamedTuple):
    """Soft and hard; -1: none."""

    files: tuple[int, int]
    tasks: tuple[int, int]
    locked: tuple[int, int]
    core: tuple[int, int]
    root: bool  #: whom the limit of processes does not bind


def look(patient: Patient) -> Limits:
    return Limits(*(resource.getrlimit(kind) for kind in (
        resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK, resource.RLIMIT_CORE)),
        os.getuid() == 0)


def judge(found: Limits) -> Iterator[Finding]:
    if 0 <= found.files[1] < FILES:
        yield error(f"at most {found.files[1]} open files", f"supervisord wants {FILES} and does not start",
                    f"LimitNOFILE={FILES} in the unit; limits.conf; docker run --ulimit nofile={FILES}")
    elif 0 <= found.files[0] < FILES:
        yield warning(f"{found.files[0]} open files, {found.files[1]} on demand",
                      "a stage that is started by hand has no more", f"ulimit -n {FILES}")
    if not found.root and 0 <= found.tasks[0] < TASKS:
        yield error(f"at most {found.tasks[0]} processes and threads of this user",
                    "stages fail at their start, at random", f"ulimit -u {4 * TASKS}; limits.conf")
    if found.core[0]:
        size = "of any size" if found.core[0] < 0 else f"up to {found.core[0] / 2**20:,.1f} MiB"
        yield warning(f"a crash writes a core file {size}", "it holds the keys of the venue and fills the disk",
                      "ulimit -c 0; LimitCORE=0 in the unit")
    yield ok(f"open files {_text(found.files[0])}, processes {_text(found.tasks[0])}, locked memory "
             f"{_text(found.locked[0])} (nothing here locks any), core files {_text(found.core[0])}")


def _text(limit: int) -> str:
    return "unlimited" if limit < 0 else f"{limit:,}"


LIMITS = Check("limits", "limits of a process", look, judge)
