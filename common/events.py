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
    checksum: int | None = None  #: of the book after this change, where the venue sends one: see Venue.checksum


class Snapshot(NamedTuple):
    """The whole book of one symbol as of `last_id`; fields as in Delta."""

    symbol: int
    last_id: int
    event_ns: int
    levels: np.ndarray
    n_bids: int
    n_asks: int
    checksum: int | None = None


class Trade(NamedTuple):
    symbol: int
    trade_id: int  #: 0 where the venue gives none that is a number below 2**63
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


ALL = -1  #: in place of a symbol: every symbol of the connection


class Lost(NamedTuple):
    """Frames of `symbol`, or of ALL, did not arrive: the venue numbers what it sends, and there is a hole. Only for
    venues whose numbers are not those of a book's changes, which Delta carries; comes before what follows the hole."""

    symbol: int
    text: str


class Reply(NamedTuple):
    """The venue asks for an answer: `frame` must be sent, now."""

    frame: bytes


Event = Delta | Snapshot | Trade | Quote | Notice | Lost | Reply

OLDER, JOINS, GAP = -1, 0, 1  #: verdicts of Venue.follows and Venue.bridges


class HttpRequest(NamedTuple):
    """A request that the shell must make. `path` begins with "/" and is relative to the venue's REST base."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Heartbeat(NamedTuple):
    """What the client must send while the connection stands, or the venue ends it."""

    every_s: float
    frame: bytes


class Precision(NamedTuple):
    """How fine the prices and quantities of a symbol are: increments, in 1e-8; 0 where the venue does not say."""

    tick: int
    lot: int


class Venue(Protocol):
    """One file per venue in `common/venues`, registered by its `name`; most of what stands here has a default in
    `common.venues.base`. Symbols are the venue's own names; events carry the index of the symbol in the sequence
    given at construction."""

    name: str
    symbols: Sequence[str]
    ws_url: str  #: of the venue itself; "" where there is no such place
    rest_url: str
    silence_s: float  #: a healthy connection brings some frame at least so often; 0: it may be silent for long
    max_age_s: float  #: the venue ends a connection at this age; 0: it does not
    max_symbols: int  #: of one connection; 0: no limit
    sends_per_s: float  #: frames that may be sent to the venue; 0: no limit
    depth: int  #: levels per side that the venue keeps up to date: farther ones are cut off; 0: all of them
    inverse: bool  #: quantities are contracts worth a fixed sum of quote currency, and profit is in the base currency
    contiguous_trades: bool  #: the trades of a symbol are numbered one by one
    checksum_depth: int  #: levels per side that `checksum` wants; 0: the venue sends no checksums

    def begin(self) -> None:
        """A new connection begins: forget what belonged to the one before (numbering, channels)."""

    def locate(self) -> HttpRequest | None:
        """The request whose answer tells where to connect; None where that is always the same place."""

    def located(self, body: bytes) -> str:
        """The whole URL to connect to, from the answer to `locate`."""

    def heartbeat(self) -> Heartbeat | None:
        """What to send, and how often; None where answering pings of WebSocket itself is enough."""

    def precision_request(self) -> HttpRequest | None:
        """The request that answers with the increments of prices and quantities; None where there is none."""

    def decode_precision(self, body: bytes) -> dict[str, Precision]:
        """The answer to `precision_request`: our symbols that are in it."""

    def checksum(self, symbol: int, bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> int:
        """What the venue would send as the checksum of a book with these levels (price, quantity), best first,
        at most `checksum_depth` a side."""

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

    # The other side of the protocol, for the loopback exchange. Each is the inverse of what is read above.

    def answer(self, frame: bytes) -> list[bytes]:
        """What the venue sends back at once for `frame`, which a client of this class sent: acknowledgements, pongs."""

    def subscribed(self, frame: bytes) -> list[int]:
        """The symbols whose order book `frame`, from a client of this class, subscribes to anew."""

    def encode_location(self, url: str) -> bytes:
        """An answer to `locate` that says `url`."""

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        """A frame, or the body of an HTTP answer where snapshots come by HTTP, that means `snapshot`."""
