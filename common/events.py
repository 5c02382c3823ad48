"""What a venue's frame can mean, and the contract that turns frames into it.

A venue is an object without sockets, clocks or files: bytes in, events out, and "here is what you must
send" where the protocol wants an answer. The same object serves ingest, replay and the tests.
"""

from typing import NamedTuple, Protocol, Sequence

import numpy as np


class Delta(NamedTuple):
    """Changes of one book. `levels[:n_bids]` are bids, the next `n_asks` asks: (price, new quantity) in
    1e-8, quantity 0 removes. `levels` is scratch memory, valid until the next `decode`."""

    symbol: int
    first_id: int
    last_id: int
    prev_id: int  #: last_id of the delta before this one where the venue says so, else 0
    event_ns: int
    levels: np.ndarray  #: int64[>= n_bids + n_asks, 2]
    n_bids: int
    n_asks: int


class Snapshot(NamedTuple):
    """The whole book of one symbol as of `last_id`; fields as in Delta."""

    symbol: int
    last_id: int
    event_ns: int
    levels: np.ndarray
    n_bids: int
    n_asks: int


class Trade(NamedTuple):
    symbol: int
    trade_id: int
    event_ns: int
    price: int
    qty: int  #: signed by the aggressor: above 0 a buyer lifted the ask


class Quote(NamedTuple):
    """The venue's own best bid and ask as of `update_id`: used to audit our book, never to build it."""

    symbol: int
    update_id: int
    bid: int
    bid_qty: int
    ask: int
    ask_qty: int


class Notice(NamedTuple):
    """Anything else the protocol allows: acknowledgements, heartbeats, channels we did not ask for.
    `level` is "info" or "error"; an error is counted and logged, and ends nothing by itself."""

    level: str
    text: str


Event = Delta | Snapshot | Trade | Quote | Notice

OLDER, JOINS, GAP = -1, 0, 1  #: verdicts of Venue.follows and Venue.bridges


class HttpRequest(NamedTuple):
    """A request that the shell must make. `path` begins with "/" and is relative to the venue's REST base."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Venue(Protocol):
    """One file per venue in `common/venues`, registered by its `name`. Symbols are the venue's own
    names; events carry the index of the symbol in the sequence given at construction."""

    name: str
    symbols: Sequence[str]

    def path(self) -> str:
        """Path and query of the WebSocket endpoint, relative to the configured base URL."""

    def subscriptions(self) -> list[bytes]:
        """Frames to send once connected."""

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        """All events of one frame, in order. Raises VenueError naming the field and the value."""

    def resync(self, symbol: int) -> list[bytes]:
        """Frames to send to obtain a new in-band snapshot; empty where snapshots come by HTTP."""

    def snapshot_request(self, symbol: int) -> HttpRequest | None:
        """The HTTP request that answers with a snapshot; None where the venue sends it in band."""

    def decode_snapshot(self, symbol: int, body: bytes) -> Snapshot:
        """The answer to `snapshot_request`."""

    def bridges(self, snapshot_id: int, delta: Delta) -> int:
        """The first delta after a snapshot: OLDER (drop it), JOINS, or GAP (take a newer snapshot)."""

    def follows(self, last_id: int, delta: Delta) -> int:
        """Any later delta: OLDER (drop it), JOINS, or GAP (invalidate and resynchronise)."""
