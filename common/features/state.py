"""The state of the features in shared memory, so that it outlives the process: what remembers more than the books ring
still holds (windows of a minute, a run) goes on after `kill -9` bit for bit.

    per symbol two copies: a stamp (int64, 0 = nothing whole), padding to 64 bytes, then int64[STATE]

They are written alternately: the stamp of the older copy becomes 0, then come its words, then its stamp, one more than
that of the other. A writer that is killed in between leaves the other copy whole. One writer; it is the reader, too, at
its next start.
"""

from collections.abc import Sequence

import numpy as np

from common.features.choice import FeatureSet
from common.features.kernel import STATE
from common.features.rows import Features
from common.features.table import TABLE_HASH
from common.shm import Block, fence

_WORDS = 8 + STATE  #: of a copy


class Checkpoints:
    """Memory: two states a symbol, 0.4 MB."""

    def __init__(self, block: Block, symbols: int) -> None:
        self._block = block
        self._copies = block.array(np.int64, (symbols, 2, _WORDS))

    @classmethod
    def create(cls, instance: str, symbols: Sequence[str], features: FeatureSet, epoch: int,
               name: str = "checkpoints") -> "Checkpoints":
        """The block that an earlier writer left, with what is in it, if it is of the same symbols, columns with the
        same numbers, table of features and stream of ticks (`epoch` of the books ring); else a new, empty one.

        Raises InstanceError if another process writes it, ResourceError if memory cannot be had."""
        return cls(Block.create(instance, name, cls.size(symbols), {
            "checkpoints": STATE, "symbols": list(symbols), "columns": list(features.labels), "table": TABLE_HASH,
            "epoch": epoch}), len(symbols))

    @staticmethod
    def size(symbols: Sequence[str]) -> int:
        """Bytes of the body of such a block."""
        return len(symbols) * 2 * _WORDS * 8

    def save(self, symbol: int, features: Features) -> None:
        """Keep the state of one symbol as it is now. About 20 us."""
        copies = self._copies[symbol]
        newer = int(copies[1, 0] > copies[0, 0])
        stamp, copy = int(copies[newer, 0]) + 1, copies[1 - newer]
        copy[0] = 0
        fence()
        copy[8:] = features.state(symbol)
        fence()
        copy[0] = stamp

    def load(self, symbol: int) -> np.ndarray | None:
        """A copy of the state that was saved last and whole, for `Features.resume`; None if there is none."""
        copies = self._copies[symbol]
        newer = copies[int(copies[1, 0] > copies[0, 0])]
        return newer[8:].copy() if newer[0] else None

    def close(self) -> None:
        """The writer's orderly end: the block goes."""
        self._block.remove()
