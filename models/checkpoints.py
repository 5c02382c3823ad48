"""What a long training has done so far, as files in a folder, so that it can be interrupted and go on.

A part is an .npz of arrays, whole or not there. What it all depends on stands in `key.json`: where that has changed,
the parts are dropped, and it is said why.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from common.errors import InstanceError, ResourceError
from common.locks import lock_file

_KEY, _LOCK = "key.json", "lock"
_OURS = (_KEY, "fold-*", "export.*")  #: what may be dropped


class Checkpoints:
    """The parts that are done, by names that begin with "fold-"; a draft of the result is called "export". Nothing else
    in the folder is touched. Raises ResourceError where it cannot be written, InstanceError where another training
    works in it. To be closed."""

    def __init__(self, folder: Path, key: Mapping[str, str], tell: Callable[[str], None] = lambda words: None) -> None:
        """`key` names what the parts depend on; `tell` hears what is made of what was there."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(folder / _LOCK, "")
            former = _read(folder / _KEY)
            done = len(list(folder.glob("fold-*.npz")))
            if former == dict(key):
                tell(f"continues in {folder}: {done} parts are done" if done else f"continues in {folder}")
                return
            if former is not None:
                changed = next(name for name in {**former, **key} if former.get(name) != key.get(name))
                tell(f"starts anew, {done} parts dropped: {changed} was {former.get(changed)!r:.60}, "
                     f"is {key.get(changed)!r:.60}")
            self._drop()
            self._write(_KEY, json.dumps(dict(key), indent=1).encode())
        except OSError as error:
            raise ResourceError("cannot keep what training has done", where=f"{folder}: {error.strerror or error}",
                                remedy="make room, or name another place with --out") from None
        except InstanceError as error:
            raise InstanceError("another training is making this model", where=error.where,
                                remedy="wait for it, or name another place with --out") from None

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a part; None if it is not done, or its file is damaged."""
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, EOFError, KeyError, BadZipFile):
            return None

    def put(self, name: str, **arrays: np.ndarray | float | str) -> None:
        """A part is done."""
        part = self.folder / f"{name}.part"
        try:
            with open(part, "wb") as file:
                np.savez(file, **{key: np.asarray(value) for key, value in arrays.items()})
            os.replace(part, self.folder / f"{name}.npz")
        except OSError as error:
            raise ResourceError("cannot keep what training has done", where=f"{part}: {error.strerror or error}",
                                remedy="make room, or name another place with --out") from None

    def close(self) -> None:
        os.close(self._lock)

    def remove(self) -> None:
        """All is done: nothing is kept."""
        self._drop()
        (self.folder / _LOCK).unlink()
        try:
            self.folder.rmdir()
        except OSError:
            pass  # somebody else's file is in it

    def _drop(self) -> None:
        for name in _OURS:
            for file in self.folder.glob(name):
                file.unlink()

    def _write(self, name: str, data: bytes) -> None:
        part = self.folder / f"{name}.part"
        part.write_bytes(data)
        os.replace(part, self.folder / name)


def _read(path: Path) -> dict[str, str] | None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}
