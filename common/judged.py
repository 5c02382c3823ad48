"""The journal of judged predictions: one JSON object a line, in `judged.jsonl` in the state folder.

    model        id of the model, 16 hexadecimal digits, and its `name`
    symbol       and the `epoch` (low 32 bits) and `seq` of the row
    event_ns     venue time of the row; `horizon_ns` later the outcome counts
    p_up p_down  what the model said
    bid ask      best prices at the row, 1e-8; `then_bid`, `then_ask` those at the horizon, of tick `then_seq`

Append-only. A file that is full makes place: `judged.jsonl.1` is the one before, and so on; the oldest goes. Lines
leave in one write at a turn, so a crash costs the last turn at most and may leave a torn line, which readers pass over.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.outcomes import Outcome

NAME = "judged.jsonl"
FILE_BYTES = 32 * 2**20  #: of one file: 100,000 lines or so
FILES = 4  #: kept


class Journal:
    """The writing end; one process has it."""

    def __init__(self, folder: Path, file_bytes: int = FILE_BYTES) -> None:
        self._path, self._limit = folder / NAME, file_bytes
        self._fd = -1
        self._lines: list[str] = []

    def add(self, outcome: Outcome, name: str, symbol: str, horizon_ns: int) -> None:
        """Remember a line. About 6 us."""
        told = outcome.prediction
        self._lines.append(json.dumps({
            "model": model_text(told.model), "name": name, "symbol": symbol, "epoch": told.epoch, "seq": told.seq,
            "event_ns": told.event_ns, "horizon_ns": horizon_ns, "p_up": told.p_up, "p_down": told.p_down,
            "bid": told.bid, "ask": told.ask, "then_seq": outcome.seq, "then_bid": outcome.bid,
            "then_ask": outcome.ask}, separators=(",", ":")))

    def write(self) -> int:
        """Write what was added; returns how many lines. Raises OSError where the disk refuses: they are dropped then,
        and the next turn tries anew."""
        lines, self._lines = self._lines, []
        if not lines:
            return 0
        if self._fd < 0 or os.fstat(self._fd).st_size >= self._limit:
            self._open()
        data = "".join(f"{line}\n" for line in lines).encode()
        if os.write(self._fd, data) != len(data):
            self.close()  # a full disk: the next line begins a line of its own
            raise OSError("not everything could be written")
        return len(lines)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self.close()
        path = self._path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists() and path.stat().st_size >= self._limit:
            for number in range(FILES - 1, 0, -1):
                older = path.with_name(f"{NAME}.{number}")
                newer = path if number == 1 else path.with_name(f"{NAME}.{number - 1}")
                if newer.exists():
                    newer.replace(older)
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")  # after a torn line


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Every whole line, oldest first."""
    for number in range(FILES - 1, -1, -1):
        path = folder / (f"{NAME}.{number}" if number else NAME)
        if not path.exists():
            continue
        with path.open("rb") as file:
            for line in file:
                try:
                    found = json.loads(line)
                except ValueError:
                    continue
                if isinstance(found, dict):
                    yield found


def model_text(number: int) -> str:
    """The id of a model as people see it."""
    return f"{number:016x}"
