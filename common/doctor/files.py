"""Files and disks: who may read and write them, room, and whether a file system keeps its promises."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common import killswitch
from common.deployment import FILE as DEPLOYED
from common.doctor import procfs
from common.doctor.check import Check, Finding, error, note, ok, warning
from common.doctor.patient import Patient
from common.journal import located

_NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "fuse.ceph", "fuse.sshfs", "fuse.glusterfs", "lustre", "afs", "gpfs",
            "fuse.s3fs", "fuse.rclone", "virtiofs", "gfs2", "ocfs2")
_MIB, _GIB = 2**20, 2**30
_OPEN = ("configuration", "model", "manifest")  # what anybody may read
_LITTLE, _LOW = 64 * _MIB, 1 * _GIB  # bytes that are free
_LOW_SHARE = 0.05  # of a disk; large ones may be fuller


class Owned(NamedTuple):
    """A file or folder that matters."""

    path: str
    what: str
    folder: bool
    mode: int
    uid: int
    exposed: bool  #: holds what is nobody else's to read, in a folder that others may look into


class Ownership(NamedTuple):
    uid: int
    found: list[Owned]


class Place(NamedTuple):
    """A folder on a disk."""

    what: str
    path: str
    kind: str  #: of file system
    read_only: bool
    writable: bool
    free: int  #: bytes
    size: int
    inodes: int  #: that are free; -1: not counted there
    locks: bool  #: SQLite or `flock` live there
    lasting: bool  #: what is there must outlive the machine's restart


class Kernels(NamedTuple):
    folder: str
    files: int
    writable: bool


def look_ownership(patient: Patient) -> Ownership:
    config, found = patient.config, []

    def add(path: Path, what: str) -> None:
        try:
            stat_ = path.stat()
        except OSError:
            return
        mode = stat.S_IMODE(stat_.st_mode)
        found.append(Owned(str(path), what, stat.S_ISDIR(stat_.st_mode), mode, stat_.st_uid,
                           what not in _OPEN and bool(path.parent.stat().st_mode & 0o055)))

    if patient.source is not None:
        add(patient.source, "configuration")
    if config is not None:
        add(config.state_dir, "state folder")
        add(config.state_dir / "log", "logs")
        add(config.run_dir, "run folder")
        for path in config.state_dir.glob("*.db*"):
            add(path, "journal")
        for path in sorted((config.state_dir / "log").glob("*.log")):
            add(path, "log")
        for name in (killswitch.FILE, killswitch.REDUCE_FILE, killswitch.ARMED_FILE, DEPLOYED):
            add(config.state_dir / name, "what is in force")
        for name in (config.inference.model, config.inference.shadow):
            if name:
                add(config.path(name), "model")
                add(config.path(name).with_suffix(".json"), "manifest")
    return Ownership(os.getuid(), found)


def judge_ownership(found: Ownership) -> Iterator[Finding]:
    wrong = 0
    for one in found.found:
        words = f"{one.what} {one.path}: mode {one.mode:04o}"
        mode = "700" if one.folder else "644" if one.what in _OPEN else "600"
        if one.uid not in (found.uid, 0):
            wrong += 1
            yield error(f"{one.what} {one.path} belongs to uid {one.uid}", "its owner decides what trades",
                        f"chown {found.uid} {one.path}")
        if one.mode & 0o022:
            wrong += 1
            yield error(words, "others may change it: what trades, the kill switch or the record",
                        f"chmod {mode} {one.path}")
        elif one.exposed and one.mode & 0o044 and one.what == "journal":
            wrong += 1
            yield warning(words, "others may read orders and positions", f"chmod {mode} {one.path}")
    open_ = [one for one in found.found if one.exposed and one.mode & 0o055 and one.what != "journal"]
    if open_:
        yield note(f"others may look into {', '.join(one.path for one in open_)}", "they tell what is traded",
                   f"chmod go= {' '.join(one.path for one in open_)}")
    if not wrong:
        yield ok(f"{len(found.found)} files and folders that nobody else may write")


def look_disks(patient: Patient) -> list[Place]:
    config = patient.config
    wanted = {"captures and working folder": (Path.cwd(), False, False),
              "cache of kernels": (patient.root / "common" / "__pycache__", False, False)}
    if config is not None:
        wanted = {"journal": (located(config).parent, True, True), "logs": (config.state_dir / "log", False, False),
                  "run folder": (config.run_dir, True, False), **wanted}
    mounts = procfs.mounts(procfs.read(patient.proc / "self/mountinfo"))
    found = []
    for what, (path, locks, lasting) in wanted.items():
        there = path
        while not there.exists():
            there = there.parent  # what is not made yet will be made there
        there = there.resolve()
        room, mount = os.statvfs(there), procfs.mount_of(str(there), mounts)
        found.append(Place(what, str(there), mount.kind if mount else "", bool(room.f_flag & os.ST_RDONLY),
                           os.access(there, os.W_OK | os.X_OK), room.f_bavail * room.f_frsize,
                           room.f_blocks * room.f_frsize, room.f_favail if room.f_files else -1, locks, lasting))
    return found


def judge_disks(found: list[Place]) -> Iterator[Finding]:
    wrong: set[str] = set()
    for one in found:
        where = f"{one.what}, {one.path}"
        if any(one.kind == kind or kind in ("nfs", "smb") and one.kind.startswith(kind) for kind in _NETWORK):
            if one.locks:
                wrong.add(one.path)
                yield error(f"{where}: on {one.kind}, a network file system",
                            "SQLite's log and file locks hold on one host's disk alone; two hosts would both trade",
                            "set instance.state_dir and instance.run_dir to a local disk")
            else:
                yield note(f"{where}: on {one.kind}, a network file system", "it may stall what writes there",
                           "use a local disk")
        if one.read_only or not one.writable:
            wrong.add(one.path)
            level = note if one.what == "cache of kernels" else warning if not one.locks else error
            yield level(f"{where}: may not be written{', mounted read-only' if one.read_only else ''}",
                        "kernels are compiled anew at each start" if one.what == "cache of kernels" else
                        "nothing can be kept there", f"chmod u+wx {one.path}, or name another folder")
        if one.lasting and one.kind in ("tmpfs", "ramfs"):
            yield warning(f"{where}: on {one.kind}", "positions and orders are forgotten with the machine's restart",
                          "set instance.state_dir to a disk")
        elif one.lasting and one.kind == "overlay":
            yield note(f"{where}: in the container's own layer", "orders are forgotten with the container",
                       "docker run -v alpha-state:/...; instance.state_dir there")
    for path in dict.fromkeys(one.path for one in found):
        here = [one for one in found if one.path == path]
        one, names = here[0], ", ".join(each.what for each in here)
        words = f"{names}, {path}: {one.free / _GIB:,.2f} of {one.size / _GIB:,.2f} GiB free"
        remedy = f"remove old recordings and logs (du -x -d2 {path} | sort -n), or name a folder on another disk"
        if one.free < _LITTLE or one.inodes == 0:
            wrong.add(path)
            inodes = ", no file can be made" if one.inodes == 0 else ""
            yield error(words + inodes, "the executor halts when its journal cannot be written" if any(
                each.locks for each in here) else "what is written there ends", remedy)
        elif one.free < min(_LOW, _LOW_SHARE * one.size):
            wrong.add(path)
            yield warning(words, "recordings fill gigabytes an hour", remedy)
        elif path not in wrong:
            yield ok(words)


def look_kernels(patient: Patient) -> Kernels:
    from common.compiled import numba  # imports the compiler: a fifth of a second

    folder = Path(numba.config.CACHE_DIR)
    files = len(list(folder.rglob("*.nbc"))) if folder.is_dir() else 0
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return Kernels(str(folder), files, os.access(there, os.W_OK | os.X_OK))


def judge_kernels(found: Kernels) -> Iterator[Finding]:
    if not found.files:
        yield note(f"no compiled kernels in {found.folder}", "the first start compiles them, for seconds",
                   "alpha warm" if found.writable else f"make it writable, then alpha warm: {found.folder}")
    else:
        yield ok(f"{found.files} compiled kernels are kept")


PERMISSIONS = Check("permissions", "who may read and write state, journal, models", look_ownership, judge_ownership)
DISK = Check("disk", "room and kind of the file systems", look_disks, judge_disks)
KERNELS = Check("kernels", "compiled code, kept between starts", look_kernels, judge_kernels)
