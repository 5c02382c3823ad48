"""What the exchange writes down: its own record of orders and fills, and the faults that it has applied.

The record is an append-only file of JSON lines, one per event.

A line is in the file before its effect is seen by anybody, so accounts and orders are restored from it after
`kill -9`. What was appended survives the death of the process; it is not flushed to survive that of the machine.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path
from typing import Any, Iterable

import orjson

from common.errors import InstanceError, ResourceError
from common.faults import Applied
from common.matching import Event, record_line

log = logging.getLogger("exchange")


class Record:
    """Held by `flock`: one writer. Raises ResourceError where it cannot be opened, InstanceError where another
    exchange holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ResourceError("cannot open the exchange's record", where=f"{path}: {error.strerror}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise InstanceError("another exchange writes this record", where=f"{path}",
                                remedy="stop it, or choose another instance.state_dir") from None

    def lines(self) -> list[bytes]:
        """What is there. A last line that was cut off, by a full disk or a lost machine, is removed."""
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            log.warning("the last line of %s was cut off: %r removed", self.path, data[whole:][:80])
            os.ftruncate(self._fd, whole)
        return data[:whole].splitlines()

    def append(self, events: Iterable[Event]) -> None:
        """All of `events` or none. Raises ResourceError. Cost: about 10 us."""
        data = b"".join([record_line(event) for event in events])
        size = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, data)
            if written == len(data):
                return
            reason = os.strerror(errno.ENOSPC)
        except OSError as error:
            reason = error.strerror
        os.ftruncate(self._fd, size)
        raise ResourceError("cannot write the exchange's record", where=f"{self.path}: {reason}",
                            remedy="make room on the disk")

    def close(self) -> None:
        os.close(self._fd)


class FaultLog:
    """The faults of one run of the exchange, as JSON lines: first the plan, then each that was applied, with the wall
    clock's time. The file of the run before is replaced. Raises ResourceError where it cannot be written."""

    def __init__(self, path: Path, clock: Any, plan: Iterable[str], seed: int) -> None:
        self.path, self._clock = path, clock
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ResourceError("cannot open the log of faults", where=f"{path}: {error.strerror}") from None
        self._write({"time_ns": clock.wall_ns(), "plan": list(plan), "seed": seed})

    def applied(self, applied: Applied) -> None:
        self._write({"time_ns": self._clock.wall_ns(), **applied._asdict()})

    def _write(self, line: dict[str, Any]) -> None:
        try:
            os.write(self._fd, orjson.dumps(line) + b"\n")
        except OSError as error:
            raise ResourceError("cannot write the log of faults", where=f"{self.path}: {error.strerror}",
                                remedy="make room on the disk") from None

    def close(self) -> None:
        os.close(self._fd)
