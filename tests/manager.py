"""A systemd that runs our units for real, for tests: a user's manager in namespaces of its own, which sees no units but
those that it is given, and whose end takes everything that it started with it."""

import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

from tests.waiting import until

SYSTEMD = "/lib/systemd/systemd"
#: what every unit depends on by default: here they do nothing
_STANDARD = ("basic", "sysinit", "shutdown", "default", "paths", "sockets", "timers")
_GROUPS = [path for path in (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
           if (path / "cgroup.procs").exists()]
_BOOT = """
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/user || exit 3
for group in {groups}; do echo $$ > $group/cgroup.procs || exit 3; done
{systemd} --user --unit=none.target --log-level=info --log-target=console & wait
"""


class Manager:
    """Runs the units of `folder`. Raises OSError where this machine does not let one be started (needs root)."""

    def __init__(self, folder: Path) -> None:
        if os.getuid() or not shutil.which("unshare") or not Path(SYSTEMD).exists() or not _GROUPS:
            raise OSError("no systemd, or not root")
        self._name = f"at-{uuid.uuid4().hex[:8]}"
        for name in _STANDARD:
            (folder / f"{name}.target").write_text(f"[Unit]\nDescription={name}\nDefaultDependencies=no\n")
        (folder / "none.target").write_text("[Unit]\nDescription=none\n")
        self._groups = [group / self._name for group in _GROUPS]
        for group in self._groups:
            group.mkdir()
        self.log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c",
             _BOOT.format(groups=" ".join(map(str, self._groups)), systemd=SYSTEMD)],
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), "XDG_RUNTIME_DIR": "/run/user",
                 "SYSTEMD_UNIT_PATH": str(folder)}, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        until(lambda: self._process.poll() is not None or self.show("none.target", "ActiveState") == "active", 20,
              "systemd")
        if self._process.poll() is not None:
            said = self.said()
            self.close()
            raise OSError(f"systemd cannot be started: {said}")

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        child = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not child:
            return ""
        done = subprocess.run(["nsenter", "-t", child[0], "-m", "-p", "systemctl", "--user", *arguments],
                              env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": "/run/user",
                                   "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"},
                              capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr + self.said()
        return done.stdout.strip()

    def show(self, unit: str, prop: str) -> str:
        """A property of a unit, "" where it cannot be had."""
        return self.systemctl("show", unit, "-P", prop, check=False)

    def holds(self, pid: int) -> bool:
        """Whether a process is one of its own."""
        try:
            return self._name in Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            return False

    def said(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()[-4000:]

    def close(self) -> None:
        self._process.send_signal(signal.SIGKILL)  # with it goes its child, the first process of the namespace
        self._process.wait()
        for group in self._groups:
            for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                until(lambda: _removed(folder), 10, f"the end of {folder}")
            until(lambda: _removed(group), 10, f"the end of {group}")
        for other in Path("/sys/fs/cgroup").glob(f"*/{self._name}"):  # of controllers that the manager used
            for folder in (*sorted((path for path in other.rglob("*") if path.is_dir()), reverse=True), other):
                _removed(folder)
        self.log.close()


def _removed(folder: Path) -> bool:
    """A control group can be removed once its last process is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
