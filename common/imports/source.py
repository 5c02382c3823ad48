"""What a foreign recording becomes: a stream of lines of a capture, or of events of our own numbering.

A recording of a venue's frames becomes lines, and the venue's own class reads them. What never was a frame (tables
of changes and trades) becomes events: `Prepared` stands where a venue stands, so that the same market checks them;
and `Words` says them in frames of the VecTrade protocol, so that they can be kept as a capture.
"""

from functools import lru_cache
from typing import Iterable, Iterator, NamedTuple, Sequence

import numpy as np

from common import capture_lines, fixed
from common.capture_lines import Connect, Disconnect
from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Delta, Event, Lost, Snapshot, Trade
from common.venues.base import Base
from common.venues.fields import MS
from common.venues.vectrade import BOOK, TRADES, VecTrade

Message = tuple[int, bytes | Sequence[Event]]


class Source(NamedTuple):
    """`messages`: (recv_ns, text of a line of a capture), or where `prepared` (recv_ns, events): lazily, by time."""

    format: str
    venue: str  #: in whose words a capture of it is
    symbols: tuple[str, ...]
    messages: Iterator[Message]
    prepared: bool
    counts: dict[str, int]  #: of what was met on the way: complete when `messages` has ended


class Prepared(Base):
    """A venue whose frames are events already."""

    name = "prepared"

    def decode(self, frame: Sequence[Event]) -> Sequence[Event]:
        return frame

    def follows(self, last_id: int, delta: Delta) -> int:
        if delta.prev_id == last_id:
            return JOINS
        return OLDER if delta.last_id <= last_id else GAP


class Numbers:
    """Gives the changes of one symbol the numbers that their source lacks."""

    def __init__(self, symbol: int) -> None:
        self.symbol, self._last = symbol, 0

    def delta(self, event_ns: int, bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> Delta:
        """The next change: (price, new quantity) in 1e-8."""
        return self.change(event_ns, _stacked(bids, asks), len(bids), len(asks))

    def change(self, event_ns: int, levels: np.ndarray, n_bids: int, n_asks: int) -> Delta:
        """The same, of levels as a Delta has them."""
        before, self._last = self._last, self._last + 1
        return Delta(self.symbol, self._last, self._last, before, event_ns, levels, n_bids, n_asks)

    def snapshot(self, event_ns: int, bids: dict[int, int], asks: dict[int, int]) -> Snapshot:
        """The whole book, by price; quantities of 0 are no levels."""
        best = sorted(((px, qty) for px, qty in bids.items() if qty), reverse=True)
        asked = sorted((px, qty) for px, qty in asks.items() if qty)
        self._last += 1
        return Snapshot(self.symbol, self._last, event_ns, _stacked(best, asked), len(best), len(asked))


def _stacked(bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> np.ndarray:
    try:
        return np.array([*bids, *asks], np.int64).reshape(-1, 2)
    except OverflowError:
        raise VenueError("a price or a quantity is outside the range of 64 bits in 1e-8",
                         where=f"bids={bids}, asks={asks}"[:200]) from None


class Words:
    """Events as lines of a capture, in frames of the VecTrade protocol. Its times are milliseconds: the rest of an
    event's time is cut off; `recv_ns` keeps its nanoseconds."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._venue = VecTrade(symbols)
        self._feeds = [(f"{BOOK}:{name}".encode(), f"{TRADES}:{name}".encode()) for name in symbols]

    def lines(self, events: Iterable[Event]) -> Iterator[bytes]:
        """What says `events`. A loss cannot be said in frames: it ends the connection, and another begins."""
        for event in events:
            match event:
                case Delta():
                    yield self._delta(event)
                case Trade():
                    yield self._trade(event)
                case Snapshot():
                    yield self._venue.encode_snapshot(event)
                case Lost():
                    yield capture_lines.encode(Disconnect(event.text))
                    yield capture_lines.encode(Connect(""))

    def _delta(self, delta: Delta) -> bytes:
        rows = [b'["%b","%b"]' % (_text(price), _text(quantity)) for price, quantity in delta.levels.tolist()]
        return (b'{"channel":"%s","type":"delta","sequence":%d,"timestamp":%d,"bids":[%s],"asks":[%s]}'
                % (self._feeds[delta.symbol][0], delta.last_id, delta.event_ns // MS, b",".join(rows[:delta.n_bids]),
                   b",".join(rows[delta.n_bids:])))

    def _trade(self, trade: Trade) -> bytes:
        return (b'{"channel":"%s","type":"trade","id":%d,"timestamp":%d,"price":"%s","quantity":"%s","side":"%s"}'
                % (self._feeds[trade.symbol][1], trade.trade_id, trade.event_ns // MS,
                   _text(trade.price), _text(abs(trade.qty)), b"BUY" if trade.qty > 0 else b"SELL"))


@lru_cache(maxsize=1 << 16)
def _text(value: int) -> bytes:
    """The same prices and quantities come again and again."""
    return fixed.text(value).encode()
