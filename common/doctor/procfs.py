"""What Linux tells about processes, sockets, mounts and limits in text files, read as text."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from common.log import SUPERVISED
from common.stage import BY_SYSTEMD

STAGES = ("exchange", "ingest", "feature", "inference", "executor", "monitor")
_LISTEN = "0A"


class Process(NamedTuple):
    """A process of this user."""

    pid: int
    ppid: int
    argv: tuple[str, ...]
    age_s: float
    supervised: bool  #: started by supervisord, as its environment says
    by_systemd: bool
    locks: tuple[str, ...]  #: lock files that it has open

    @property
    def stage(self) -> str:
        """The stage that it is, as its lock is named; "" for what is none."""
        return stage_of(self.argv)


class Listener(NamedTuple):
    host: str
    port: int
    inode: int


class Mount(NamedTuple):
    point: str
    kind: str
    read_only: bool


def stage_of(argv: tuple[str, ...]) -> str:
    """`alpha STAGE` and `python -m procs.cli STAGE`, with the number of a worker or of a further ingest process."""
    for place, word in enumerate(argv[:-1]):
        if os.path.basename(word) == "alpha" or word == "procs.cli":
            stage, rest = argv[place + 1], argv[place + 2:]
            if stage not in STAGES or "--check" in rest or "--help" in rest:
                return ""
            number = 0
            for key, value in zip(rest, rest[1:]):
                if key in ("--worker", "--process") and value.isdigit():
                    number = int(value)
            return f"{stage}-{number}" if stage == "inference" or number else stage
    return ""


def processes(proc: Path, uid: int) -> list[Process]:
    """Those of `uid` that tell of themselves; others come and go between two looks."""
    found = []
    uptime = float((proc / "uptime").read_text().split()[0])
    for folder in proc.glob("[0-9]*"):
        try:
            if folder.stat().st_uid != uid:
                continue
            argv = tuple((folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0"))
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] == "Z":
                continue
            environ = _environ(folder) if stage_of(argv) else {}
            by = environ.get(SUPERVISED, "")
            locks = _open_files(folder, ".lock") if stage_of(argv) else ()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        found.append(Process(int(folder.name), int(fields[1]), argv,
                             uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK"),
                             by not in ("", BY_SYSTEMD),
                             by == BY_SYSTEMD or not by and "INVOCATION_ID" in environ, locks))
    return sorted(found)


def _environ(folder: Path) -> dict[str, str]:
    """What a process was started with of the two names that tell who did."""
    words = (word.decode(errors="replace").partition("=") for word in (folder / "environ").read_bytes().split(b"\0"))
    return {name: value for name, _, value in words if name in (SUPERVISED, "INVOCATION_ID")}


def name_of(proc: Path, pid: int) -> str:
    """What a process is, with its arguments; "" where it has gone."""
    try:
        return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _open_files(folder: Path, ending: str) -> tuple[str, ...]:
    found = []
    for link in (folder / "fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.removesuffix(" (deleted)").endswith(ending):
            found.append(target)
    return tuple(sorted(found))


def owner(proc: Path, inode: int) -> int:
    """The process that has this socket open; 0 where it is not to be seen."""
    for link in proc.glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == f"socket:[{inode}]":
                return int(link.parts[-3])
        except OSError:
            continue
    return 0


def listeners(text: str) -> list[Listener]:
    """Of /proc/net/tcp or tcp6; addresses of IPv4 as usual, of IPv6 as "::" for any and "::1", else in hexadecimal."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        address, _, port = fields[1].rpartition(":")
        if len(address) == 8:
            host = ".".join(str(part) for part in reversed(bytes.fromhex(address)))
        elif address.startswith("0" * 16 + "FFFF0000"):  # IPv4 inside IPv6
            host = ".".join(str(part) for part in reversed(bytes.fromhex(address[24:])))
        else:
            host = {"0" * 32: "::", "0" * 24 + "01000000": "::1"}.get(address, address)
        found.append(Listener(host, int(port, 16), int(fields[9])))
    return found


def mounts(text: str) -> list[Mount]:
    """Of /proc/self/mountinfo, in the order in which they were mounted."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) >= 6 and kind:
            point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
            found.append(Mount(point, kind[0], "ro" in fields[5].split(",")))
    return found


def mount_of(path: str, known: list[Mount]) -> Mount | None:
    """Where `path` lies: the longest mount point above it, of equal ones the last."""
    best = None
    for mount in known:
        if path == mount.point or path.startswith(mount.point.rstrip("/") + "/"):
            if best is None or len(mount.point) >= len(best.point):
                best = mount
    return best


def fields_of(text: str, key: str) -> list[list[str]]:
    """The words after `key :` of each line of /proc/cpuinfo that has it."""
    return [line.partition(":")[2].split() for line in text.splitlines() if line.partition(":")[0].strip() == key]


def amount(text: str, key: str) -> int:
    """Of /proc/meminfo, in bytes; 0 where it is not there."""
    found = re.search(rf"^{key}:\s+(\d+) kB$", text, re.M)
    return int(found[1]) * 1024 if found else 0


def read(path: Path) -> str:
    """The text of a file of the kernel, "" where there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
