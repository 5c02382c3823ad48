"""What most venues have in common: the defaults of `common.events.Venue`.

A venue derives from `Base`, gives its `name`, `decode`, `path`, `subscriptions`, and whatever of the rest
is not as it stands here.
"""

from typing import Sequence

from common.errors import ContractError
from common.events import GAP, JOINS, OLDER, Delta, Heartbeat, HttpRequest, Precision, Snapshot
from common.venues.shapes import Shapes


class Base:
    """A venue with snapshots in band, without checksums, heartbeats or limits."""

    name: str
    ws_url = ""
    rest_url = ""
    silence_s = 0.0
    max_age_s = 0.0
    max_symbols = 0
    sends_per_s = 0.0
    depth = 0
    checksum_depth = 0
    contiguous_trades = False
    inverse = False
    shapes: Shapes | None = None  #: of its common frames, for who plays many of them at once

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self._index = {symbol: i for i, symbol in enumerate(self.symbols)}

    def begin(self) -> None:
        """Nothing belongs to a connection."""

    def path(self) -> str:
        return "/"

    def subscriptions(self) -> list[bytes]:
        return []

    def resync(self, symbol: int) -> list[bytes]:
        return []

    def locate(self) -> HttpRequest | None:
        return None

    def located(self, body: bytes) -> str:
        raise ContractError("this venue is always at the same place", where=f"venue={self.name}")

    def encode_location(self, url: str) -> bytes:
        raise ContractError("this venue is always at the same place", where=f"venue={self.name}")

    def heartbeat(self) -> Heartbeat | None:
        return None

    def precision_request(self) -> HttpRequest | None:
        return None

    def decode_precision(self, body: bytes) -> dict[str, Precision]:
        raise ContractError("this venue does not tell its increments", where=f"venue={self.name}")

    def snapshot_request(self, symbol: int) -> HttpRequest | None:
        return None

    def decode_snapshot(self, symbol: int, body: bytes) -> Snapshot:
        raise ContractError("this venue sends its snapshots in band", where=f"venue={self.name}")

    def checksum(self, symbol: int, bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> int:
        raise ContractError("this venue sends no checksums", where=f"venue={self.name}")

    def bridges(self, snapshot_id: int, delta: Delta) -> int:
        return self.follows(snapshot_id, delta)

    def follows(self, last_id: int, delta: Delta) -> int:
        """By default numbers go up one by one."""
        if delta.first_id == last_id + 1:
            return JOINS
        return GAP if delta.first_id > last_id else OLDER

    def answer(self, frame: bytes) -> list[bytes]:
        return []

    def subscribed(self, frame: bytes) -> list[int]:
        """By default what this class itself would send: at the beginning for all, at a resynchronisation for one."""
        if frame in self.subscriptions():
            return list(range(len(self.symbols)))
        return [symbol for symbol in range(len(self.symbols)) if frame in self.resync(symbol)[-1:]]

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        raise NotImplementedError
