"""What each venue sends, for the contract tests: a module for each file of `common.venues`, found because it exists.

A module has SAMPLES: name of the venue -> a function from the folder of recordings to a Sample. Recordings are used
where there are any; otherwise, and for what they lack, frames are written here after the venue's documentation.
"""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Sample(NamedTuple):
    """`frames` are what one connection brings, from its beginning, with at least one frame of each kind (delta, trade,
    and a snapshot in band where the venue sends it so), all of symbol 1: symbol 0 is never heard of."""

    symbols: tuple[str, str]
    frames: list[bytes]
    snapshot: bytes | None = None  #: the answer to a snapshot request for symbol 1


def samples() -> dict[str, Callable[[Path], Sample]]:
    found: dict[str, Callable[[Path], Sample]] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        found |= importlib.import_module(module.name).SAMPLES
    return found
