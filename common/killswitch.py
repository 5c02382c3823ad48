"""The kill switch: a file. While `<state_dir>/halt.json` exists, no order leaves and working ones are cancelled.

A file works from any process, outlives a restart of everything, the machine included, and costs the executor one `stat`
before each order. The executor uses it too when it halts itself, so that there is one place to look and one
way back: `resume`. Its existence is what halts; what it says is for people.

`reduce.json` beside it is the milder one: while it exists, only orders that shrink a position leave; and if it says
flatten, positions are left. The executor looks at it some fifty times a second. `resume` lifts it, too.

`armed.json` is the opposite, for live venues only: without it nothing trades, and the executor removes it whenever it
starts.
"""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from common.errors import ResourceError

FILE, REDUCE_FILE, ARMED_FILE = "halt.json", "reduce.json", "armed.json"


class Halt(NamedTuple):
    who: str
    when_ns: int  #: Unix ns; 0 if the file does not say
    why: str


class Reduction(NamedTuple):
    """As `Halt`; with `flatten` what is held is to be left."""

    who: str
    when_ns: int
    why: str
    flatten: bool = False


def halt(state_dir: Path, reason: str, who: str = "user") -> Halt:
    """Stop trading. An earlier halt stays as it is: the first reason is the one to look into. Raises ResourceError
    where none can be written."""
    told = _legible(state_dir / FILE)
    if told is not None:
        return Halt(*told[:3])
    made = Halt(who, time.time_ns(), reason)
    _write(state_dir / FILE, made._asdict())
    return made


def reduce(state_dir: Path, reason: str, who: str = "user", flatten: bool = False) -> Reduction:
    """Let nothing leave but what shrinks a position. An earlier reason stays; to flatten may be added to it, and only
    `resume` takes it back. Raises as `halt`."""
    told = _legible(state_dir / REDUCE_FILE)
    made = Reduction(who, time.time_ns(), reason) if told is None else Reduction(*told)
    if told is None or flatten and not made.flatten:
        made = made._replace(flatten=made.flatten or flatten)
        _write(state_dir / REDUCE_FILE, made._asdict())
    return made


def resume(state_dir: Path) -> Halt | Reduction | None:
    """Allow trading again; returns the halt that is lifted, or the reduction, None if there was neither. Raises
    ResourceError where one cannot be lifted."""
    found = state(state_dir) or reduction(state_dir)
    for name in (FILE, REDUCE_FILE):
        _remove(state_dir / name)
    return found


def lift(state_dir: Path) -> Halt | None:
    """Lift the halt alone: a reduction beside it stays. Returns and raises as `resume`."""
    found = state(state_dir)
    _remove(state_dir / FILE)
    return found


def state(state_dir: Path) -> Halt | None:
    """The halt in force, or None."""
    told = _read(state_dir / FILE)
    return told and Halt(*told[:3])


def reduction(state_dir: Path) -> Reduction | None:
    """The reduction in force, or None."""
    told = _read(state_dir / REDUCE_FILE)
    return told and Reduction(*told)


def _read(path: Path) -> tuple[str, int, str, bool] | None:
    """(who, when, why, whether to flatten) of a file of ours, None if it is not there. One that cannot be read or
    understood counts as there."""
    try:
        return _parsed(path)
    except OSError as error:
        return "?", 0, f"{path.name} cannot be read: {error.strerror}", False


def _legible(path: Path) -> tuple[str, int, str, bool] | None:
    """As `_read`, but None for what cannot be read: that it is there is only presumed, so it is to be written."""
    try:
        return _parsed(path)
    except OSError:
        return None


def _parsed(path: Path) -> tuple[str, int, str, bool] | None:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        told = json.loads(text)
        return _plain(told["who"]), int(told["when_ns"]), _plain(told["why"]), told.get("flatten") is True
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return "?", 0, f"{path.name} says nothing that can be read", False


def _plain(text: object) -> str:
    """As UTF-8 can say it: half a surrogate pair ends whoever shows it."""
    return str(text).encode("utf-8", "replace").decode()


def present(path: str | Path) -> bool:
    """Whether the file is there, as the executor asks before each order. About 3 us. What cannot be looked at
    counts as there: in doubt, nothing trades."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def arm(state_dir: Path, who: str = "user") -> None:
    """Allow trading on a live venue until the executor starts again."""
    _write(state_dir / ARMED_FILE, {"who": who, "when_ns": time.time_ns()})


def disarm(state_dir: Path) -> None:
    _remove(state_dir / ARMED_FILE)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError("cannot lift the kill switch", where=f"{path}: {error.strerror}",
                            remedy="remove it by hand") from None


def _write(path: Path, told: dict) -> None:
    """Whole or not at all, readable by this user alone."""
    draft = path.with_suffix(f".{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(told, file)
        os.replace(draft, path)
    except OSError as error:
        raise ResourceError("cannot write the kill switch", where=f"{path}: {error.strerror}",
                            remedy="stop the executor instead") from None
