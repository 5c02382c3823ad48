"""What makes this instance the only one, and its folders private: `flock` and modes."""

import fcntl
import os
import stat
from pathlib import Path

from common.errors import InstanceError, ResourceError


def private_folder(folder: Path) -> None:
    """Make `folder` for this user alone, or make sure that it is; raises ResourceError if it is not."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (folder, folder.parent) if folder.parent.name.startswith("alpha-") else (folder,):
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise ResourceError("a folder belongs to somebody else", where=f"{path}: uid {found.st_uid}",
                                remedy="set instance.run_dir and instance.state_dir to folders of your own")
        if found.st_mode & 0o077:
            path.chmod(0o700)


def stage_lock(run_dir: Path, stage: str) -> Path:
    """What a stage holds with `lock_file` for as long as it lives."""
    return run_dir / f"stage.{stage}.lock"


def lock_file(path: Path, what: str) -> int:
    """Hold `path` for as long as the descriptor is open; raises InstanceError naming the holder's pid."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 64, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise InstanceError(f"{what} is in use", where=f"held by pid {holder}, lock {path}",
                            remedy="stop that process, or choose another instance.name") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def holder(path: Path) -> int | None:
    """The pid of who holds `path` by `lock_file`, None where nobody does. Only looks, in the kernel's table: asking for
    the lock would now and then be in the way of who wants it alone."""
    try:
        inode, told = path.stat().st_ino, path.read_text().strip()
    except FileNotFoundError:
        return None
    for line in Path("/proc/locks").read_text().splitlines():
        _, kind, *_, pid, where, _, _ = line.split()
        # The device is not always the one that `stat` tells.
        if kind == "FLOCK" and where.endswith(f":{inode}") and pid == told:
            return int(pid)
    return None
