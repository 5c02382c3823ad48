"""Shared-memory blocks: named, sized, described, with one writer. The only module that maps them.

    offset 0      magic, layout version            offset 48   epoch: creation, Unix ns
           16     SHA-256 of the description              56   pid of the writer
           80     1 once the block is retired             64   generation: one more at each re-attach
           88     length of the description               72   size of the body in bytes
           96     the description: canonical JSON of everything a reader must agree with
    then, from the next page on, the body, which belongs to the rings and to telemetry.

A block appears under its name complete: it is made under another name, its capacity reserved
(`posix_fallocate`, so a full /dev/shm is an error here and not a bus error later), its header written, and
renamed. Its writer holds `flock` on it. Readers never write, and never unlink.

`multiprocessing.shared_memory` has three traps that `_Mapping` takes away: below Python 3.13 every process that
attaches starts a resource tracker that unlinks the block when the process ends; the constructor unlinks the
block if mapping fails, even for a reader; and the finaliser complains while views are alive.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import mmap
import os
import platform
import struct
import sys
import threading
import time
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any, Iterator, NamedTuple

import numpy as np

from common.errors import InstanceError, LayoutError, ResourceError

SHM_DIR = Path("/dev/shm")
_MAGIC = b"ALPHA-BK"
_VERSION = 1
_FIXED = struct.Struct("<8sQ32sqqqqqq")  # magic version hash epoch pid generation size retired length
_PID, _GENERATION, _RETIRED = 56, 64, 80

if platform.machine() in ("x86_64", "AMD64"):

    def fence() -> None:
        """Nothing to do: x86-64 keeps stores in order, and loads in order."""

else:
    _lock = threading.Lock()

    def fence() -> None:
        """Taking and releasing a lock is an acquire and a release, the only fence Python has. About 170 ns."""
        with _lock:
            pass


def block_name(instance: str, name: str) -> str:
    """The name under /dev/shm of block `name` of `instance`, private to this user."""
    return f"alpha-{os.getuid()}-{instance}.{name}"  # no instance has a dot in its name


class _Mapping(shared_memory.SharedMemory):
    def __init__(self, name: str, create: bool = False, size: int = 0) -> None:
        if sys.version_info >= (3, 13):
            super().__init__(name, create, size, track=False)
        else:
            with _untracked():
                super().__init__(name, create, size)
        os.close(self._fd)  # the mapping has one of its own, and lets go of it with the last view
        self._fd = -1

    def unlink(self) -> None:
        """Called by the constructor when mapping fails. Removing a block is `Block.remove`, by its writer."""

    def __del__(self) -> None:
        """Views may outlive the block at interpreter exit; the kernel unmaps it then."""


@contextlib.contextmanager
def _untracked() -> Iterator[None]:
    """Below Python 3.13: keep the constructor from registering the block with a resource tracker."""
    from multiprocessing import resource_tracker

    register = resource_tracker.register
    resource_tracker.register = lambda name, kind: None
    try:
        yield
    finally:
        resource_tracker.register = register


class Block:
    """One mapped block. `Block.create` for its writer, `Block.attach` for readers."""

    def __init__(self, name: str, mapping: _Mapping, lock_fd: int | None) -> None:
        self.name = name
        self._mapping = mapping
        self._lock_fd = lock_fd
        fields = _FIXED.unpack_from(mapping.buf)
        self.hash, self.epoch, self.size, length = fields[2], fields[3], fields[6], fields[8]
        self.description: dict[str, Any] = json.loads(bytes(mapping.buf[_FIXED.size:_FIXED.size + length]))
        self._body = _pages(_FIXED.size + length)

    @classmethod
    def create(cls, instance: str, name: str, size: int, description: dict[str, Any]) -> "Block":
        """The writer's block of `size` bytes: the one that an earlier writer left, if it has the same
        description, else a new one (the old is retired; readers notice).

        Raises InstanceError if another process writes it, ResourceError if memory cannot be had."""
        full = block_name(instance, name)
        text = _canonical(description)
        old = _open(full)
        if old is not None:
            try:
                _lock(old, full)
                block = cls(full, _Mapping(full), old) if _readable(old) else None
            except BaseException:
                os.close(old)
                raise
            if block and not block.retired and block.hash == hashlib.sha256(text).digest() and block.size == size:
                block._put(_PID, os.getpid())
                block._put(_GENERATION, block.generation + 1)
                return block
            if block:
                block._put(_RETIRED, 1)
            # The old lock stays held until the new block has the name.
            fresh = cls._fresh(full, size, text)
            os.close(old)
            return fresh
        return cls._fresh(full, size, text)

    @classmethod
    def _fresh(cls, full: str, size: int, text: bytes) -> "Block":
        draft = f"{full}.{os.getpid()}.new"
        body = _pages(_FIXED.size + len(text))
        _remove(draft)
        fd = None
        try:
            mapping = _Mapping(draft, create=True, size=body + size)
            fd = os.open(SHM_DIR / draft, os.O_RDWR | os.O_CLOEXEC)
            os.posix_fallocate(fd, 0, body + size)
            _lock(fd, full)
            _FIXED.pack_into(mapping.buf, 0, _MAGIC, _VERSION, hashlib.sha256(text).digest(), time.time_ns(),
                             os.getpid(), 1, size, 0, len(text))
            mapping.buf[_FIXED.size:_FIXED.size + len(text)] = text
            os.rename(SHM_DIR / draft, SHM_DIR / full)
        except OSError as error:
            _remove(draft)
            if fd is not None:
                os.close(fd)
            if error.errno in (errno.ENOSPC, errno.ENOMEM):
                free = os.statvfs(SHM_DIR)
                raise ResourceError(
                    "not enough shared memory", where=f"block {full}: {(body + size) / 2**20:.1f} MiB needed, "
                    f"{free.f_bavail * free.f_frsize / 2**20:.1f} MiB free in {SHM_DIR}",
                    remedy=f"remove what fills it, enlarge it (mount -o remount,size=1G {SHM_DIR}; "
                    "docker run --shm-size 1g) or lower ring.ticks and ring.rows") from None
            raise ResourceError("cannot create a shared-memory block", where=f"{full}: {error}") from None
        return cls(full, mapping, fd)

    @classmethod
    def attach(cls, instance: str, name: str, expected: dict[str, Any] | None = None) -> "Block":
        """A reader's view. `expected` holds the parts of the description that must be equal.

        Raises FileNotFoundError while there is no such block, LayoutError naming what differs."""
        full = block_name(instance, name)
        fd = _open(full)
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, "no such shared-memory block", full)
        try:
            if not _readable(fd):
                raise LayoutError("a shared-memory block is not one of ours", where=str(SHM_DIR / full),
                                  remedy="stop the pipeline and remove the file")
            block = cls(full, _Mapping(full), None)
        finally:
            os.close(fd)
        for key, value in (expected or {}).items():
            found = block.description.get(key)
            if _canonical(found) != _canonical(value):
                raise LayoutError(f"block {full} was written with another {key}",
                                  where=f"there: {_brief(found)}; here: {_brief(value)}",
                                  remedy="start writer and reader with the same configuration and version")
        return block

    @property
    def generation(self) -> int:
        return self._get(_GENERATION)

    @property
    def writer_pid(self) -> int:
        return self._get(_PID)

    @property
    def retired(self) -> bool:
        """True once the writer has replaced or removed this block: attach again."""
        return self._get(_RETIRED) != 0

    def array(self, dtype: Any, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
        """A view of the body, C-contiguous, from `offset` bytes on; read-only for a reader."""
        view = np.frombuffer(self._mapping.buf, dtype, int(np.prod(shape)), self._body + offset).reshape(shape)
        view.flags.writeable = self._lock_fd is not None
        return view

    def remove(self) -> None:
        """The writer's orderly end: readers see `retired`, the name is gone, mappings live on."""
        if self._lock_fd is not None:
            self._put(_RETIRED, 1)
            _remove(self.name)
            os.close(self._lock_fd)
            self._lock_fd = None

    def _get(self, offset: int) -> int:
        return struct.unpack_from("<q", self._mapping.buf, offset)[0]

    def _put(self, offset: int, value: int) -> None:
        struct.pack_into("<q", self._mapping.buf, offset, value)


def sweep(instance: str) -> list[str]:
    """Remove every block of `instance` that no writer holds, as left by `kill -9`. Returns their names."""
    swept = []
    for path in sorted(SHM_DIR.glob(block_name(instance, "*"))):
        fd = _open(path.name)
        if fd is None:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _readable(fd):
                os.pwrite(fd, struct.pack("<q", 1), _RETIRED)  # whoever still reads it is to attach again
            _remove(path.name)
            swept.append(path.name)
        except BlockingIOError:
            pass  # its writer lives
        finally:
            os.close(fd)
    return swept


def held(instance: str) -> list[str]:
    """Names of the blocks of `instance` whose writers live."""
    found = []
    for name in leaked(instance):
        fd = _open(name)
        if fd is None:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(name)
        finally:
            os.close(fd)
    return found


class Found(NamedTuple):
    """What is known of a block from outside, mapped by nobody for it."""

    name: str  #: under /dev/shm
    instance: str
    size: int  #: bytes that it takes
    held: bool  #: its writer lives
    pid: int  #: of its last writer; 0 where the file does not say


def survey() -> list[Found]:
    """Every block of this user, of all instances, by name. Asks for each lock for a microsecond, and keeps none."""
    found = []
    for path in sorted(SHM_DIR.glob(f"alpha-{os.getuid()}-*.*")):
        fd = _open(path.name)
        if fd is None:
            continue
        held = False
        try:
            head, size = os.pread(fd, _FIXED.size, 0), os.fstat(fd).st_blocks * 512
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            held = True
        finally:
            os.close(fd)
        known, last = len(head) == _FIXED.size and head.startswith(_MAGIC), path.name.split(".")[-2]
        pid = _FIXED.unpack(head)[4] if known else int(last) if path.suffix == ".new" and last.isdigit() else 0
        instance = path.name.removeprefix(f"alpha-{os.getuid()}-").partition(".")[0]
        found.append(Found(path.name, instance, size, held, pid))
    return found


def leaked(instance: str) -> list[str]:
    """Names of the blocks of `instance` that exist now."""
    return sorted(path.name for path in SHM_DIR.glob(block_name(instance, "*")))


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _open(full: str) -> int | None:
    try:
        return os.open(SHM_DIR / full, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _readable(fd: int) -> bool:
    """Whether the file starts with our header; a block of another version is none of ours."""
    head = os.pread(fd, _FIXED.size, 0)
    return len(head) == _FIXED.size and _FIXED.unpack(head)[:2] == (_MAGIC, _VERSION)


def _lock(fd: int, full: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        head = os.pread(fd, _FIXED.size, 0)
        pid = _FIXED.unpack(head)[4] if len(head) == _FIXED.size else "unknown"
        raise InstanceError("a shared-memory block has a writer already", where=f"{full}: pid {pid}",
                            remedy="stop it, or choose another instance.name") from None


def _remove(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SHM_DIR / name)
