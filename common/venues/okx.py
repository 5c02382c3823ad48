"""OKX, API v5: spot, swaps, futures and options, which share one space of names, over one public connection.

    books    400 levels a side: a snapshot, then updates every 100 ms; a level is [price, size, "0", orders]
    trades   side is that of the taker

Two proofs of a book, each where the venue sends it:

    seqId, prevSeqId   an update follows the one whose seqId it names as prevSeqId: also where nothing has changed for
                       long (both are equal, no levels) and where maintenance lets the numbers begin anew (seqId is
                       the lesser one)
    checksum           signed CRC32 of the best 25 levels, "bid:size:ask:size:..." with what is there of each, prices
                       and sizes in their shortest form; 0, as in all frames of late, says nothing

A gap is healed by unsubscribing from the order book and subscribing again, which brings a new snapshot. The heartbeat
is text, not JSON: "ping" is answered with "pong". What Bitget took over from this protocol stands in `Channels`.
"""

from itertools import zip_longest
from typing import Any, Sequence
from zlib import crc32

import orjson

from common import fixed
from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Delta, Event, Heartbeat, HttpRequest, Notice, Precision, Snapshot, Trade
from common.venues import fields
from common.venues.base import Base

BOOKS = "books"  #: the channel of order books
PING, PONG = b"ping", b"pong"

_LISTED = 100  #: symbols in one subscription: the venue reads at most 64 KB, and a symbol takes some 100 bytes
_LEVEL = 4  #: items of a level, at most
_NOTICES = {"subscribe": "info", "unsubscribe": "info", "channel-conn-count": "info", "error": "error",
            "channel-conn-count-error": "error",
            "notice": "error"}  # the venue is about to end the connection: worth a line in the log


class Channels(Base):
    """A venue whose channels are named by an object `arg`. A subclass gives what `arg` and trades look like, the
    numbers of a book's changes and how the venue writes its levels."""

    checksum_depth = 25
    _trades: str  #: the channel of trades
    _beat_s: float  #: between heartbeats
    _rest_of_level: tuple[str, ...] = ()  #: what stands in a level behind price and quantity

    def _arg(self, channel: str, symbol: str) -> dict[str, str]:
        return {"channel": channel, "instId": symbol}

    def _concerns(self, arg: dict) -> bool:
        """Whether the names in `arg` are those of our market."""
        return True

    def _numbers(self, row: dict, whole: bool) -> tuple[int, int]:
        """(last_id, prev_id) of a change, or of a whole book; 0 where the venue sends none."""
        raise NotImplementedError

    def _numbered(self, last_id: int) -> dict[str, int]:
        """The fields that `_numbers` reads, of a whole book."""
        raise NotImplementedError

    def _traded(self, symbol: int, data: dict) -> Sequence[Event]:
        """A frame of the channel of trades."""
        raise NotImplementedError

    def _texts(self, symbol: int, levels: Sequence[Sequence[int]]) -> list[list[str]]:
        """[price, quantity] of each level, as the venue writes them."""
        return [[fixed.text(price), fixed.text(quantity)] for price, quantity in levels]

    # ---- what is sent

    def subscriptions(self) -> list[bytes]:
        # Trades first: the newest one comes at once, and is past before the book is there.
        return [orjson.dumps({"op": "subscribe", "args": [
            self._arg(channel, symbol) for channel in (self._trades, BOOKS)
            for symbol in self.symbols[start:start + _LISTED]]}) for start in range(0, len(self.symbols), _LISTED)]

    def resync(self, symbol: int) -> list[bytes]:
        args = [self._arg(BOOKS, self.symbols[symbol])]
        return [orjson.dumps({"op": op, "args": args}) for op in ("unsubscribe", "subscribe")]

    def heartbeat(self) -> Heartbeat | None:
        return Heartbeat(self._beat_s, PING)

    # ---- what comes

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        if frame == PONG:
            return (Notice("info", "pong"),)
        return fields.decode(frame, self._read)

    def _read(self, data: dict) -> Sequence[Event]:
        if "event" in data:
            return (self._answer(data),)
        arg = fields.obj(data, "arg")
        channel, name = fields.text(arg, "channel"), fields.text(arg, "instId")
        if channel not in (BOOKS, self._trades) or name not in self._index or not self._concerns(arg):
            return (Notice("info", f"not asked for: {_named(arg)}"),)
        symbol = self._index[name]
        return self._books(symbol, data) if channel == BOOKS else self._traded(symbol, data)

    @staticmethod
    def _answer(data: dict) -> Notice:
        """To a request of ours, or what the venue says of itself."""
        event = fields.text(data, "event")
        if event not in _NOTICES:
            raise VenueError("unknown event", where=f"event={fields.shown(event)}")
        if _NOTICES[event] == "error":
            return Notice("error", f"{event}: code={fields.shown(data.get('code'))}, "
                                   f"msg={fields.shown(data.get('msg'))}")
        return Notice("info", f"{event}: {_named(data['arg'])}" if isinstance(data.get("arg"), dict) else event)

    def _books(self, symbol: int, data: dict) -> Sequence[Event]:
        action = fields.text(data, "action")
        if action not in ("snapshot", "update"):
            raise VenueError("unknown action", where=f"action={fields.shown(action)}")
        return [self._book(symbol, row, action == "snapshot") for row in fields.objects(data, "data")]

    def _book(self, symbol: int, row: dict, whole: bool) -> Snapshot | Delta:
        levels, (n_bids, n_asks) = fields.levels(row, "bids", "asks", longest=_LEVEL)
        last_id, prev_id = self._numbers(row, whole)
        event_ns = time_ns(row, "ts")
        checksum = (integer(row, "checksum", 32) or None) if "checksum" in row else None
        if whole:
            return Snapshot(symbol, last_id, event_ns, levels, n_bids, n_asks, checksum)
        return Delta(symbol, last_id, last_id, prev_id, event_ns, levels, n_bids, n_asks, checksum)

    def follows(self, last_id: int, delta: Delta) -> int:
        if delta.prev_id == last_id:
            return JOINS
        # One connection brings everything in order: what does not join is no old change, but for the last one again.
        return OLDER if delta.last_id == last_id else GAP

    def checksum(self, symbol: int, bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> int:
        return _crc(self._texts(symbol, bids), self._texts(symbol, asks))

    # ---- the other side

    def answer(self, frame: bytes) -> list[bytes]:
        if frame == PING:
            return [PONG]
        data = orjson.loads(frame)
        return [orjson.dumps({"event": data["op"], "arg": arg}) for arg in data["args"]]

    def subscribed(self, frame: bytes) -> list[int]:
        data: dict[str, Any] = {"op": "ping"} if frame == PING else orjson.loads(frame)
        if data["op"] != "subscribe":
            return []
        return [self._index[arg["instId"]] for arg in data["args"] if arg["channel"] == BOOKS]

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        """With its checksum; without a number where `snapshot` has none."""
        rows = self._texts(snapshot.symbol, snapshot.levels[:snapshot.n_bids + snapshot.n_asks].tolist())
        bids, asks = rows[:snapshot.n_bids], rows[snapshot.n_bids:]
        whole = {"asks": [[*row, *self._rest_of_level] for row in asks],
                 "bids": [[*row, *self._rest_of_level] for row in bids],
                 "ts": str(snapshot.event_ns // fields.MS),
                 "checksum": _crc(bids[:self.checksum_depth], asks[:self.checksum_depth]),
                 **(self._numbered(snapshot.last_id) if snapshot.last_id else {})}
        return orjson.dumps({"action": "snapshot", "arg": self._arg(BOOKS, self.symbols[snapshot.symbol]),
                             "data": [whole]})


class Okx(Channels):
    """Increments are asked for by kind of instrument, one kind a request: those of the first symbol's kind are told."""

    name = "okx"
    ws_url, rest_url = "wss://ws.okx.com:8443", "https://www.okx.com"
    silence_s = 30.0  # a pong at the latest, every _beat_s
    sends_per_s = 3.0
    depth = 400
    _trades = "trades"
    _beat_s = 20.0  # the venue ends a connection on which nothing was said for 30 s
    _rest_of_level = ("0", "1")

    def path(self) -> str:
        return "/ws/v5/public"

    def precision_request(self) -> HttpRequest | None:
        if not self.symbols:
            return None
        return HttpRequest("GET", f"/api/v5/public/instruments?instType={_kind(self.symbols[0])}")

    def decode_precision(self, body: bytes) -> dict[str, Precision]:
        return fields.decode(body, self._precisions)

    def _precisions(self, data: dict) -> dict[str, Precision]:
        if fields.text(data, "code") != "0":
            raise VenueError("the venue does not tell its instruments", where=f"code={fields.shown(data['code'])}, "
                                                                              f"msg={fields.shown(data.get('msg'))}")
        rows = ((fields.text(row, "instId"), row) for row in fields.objects(data, "data"))
        return {name: Precision(_increment(row, "tickSz"), _increment(row, "lotSz"))
                for name, row in rows if name in self._index}

    def _numbers(self, row: dict, whole: bool) -> tuple[int, int]:
        if "seqId" not in row:
            return 0, 0
        return fields.integer(row, "seqId"), 0 if whole else fields.integer(row, "prevSeqId")

    def _numbered(self, last_id: int) -> dict[str, int]:
        return {"seqId": last_id, "prevSeqId": -1}

    def _traded(self, symbol: int, data: dict) -> Sequence[Event]:
        return [Trade(symbol, fields.number(row, "tradeId"), time_ns(row, "ts"), fields.price(row, "px"),
                      signed(fields.quantity(row, "sz"), fields.text(row, "side")))
                for row in fields.objects(data, "data")]


def time_ns(data: dict, name: str) -> int:
    """Unix milliseconds, written as text, as nanoseconds."""
    return fields.time_ns({name: fields.number(data, name)}, name)


def integer(data: dict, name: str, bits: int) -> int:
    """A signed integer of so many bits."""
    value = fields.field(data, name)
    if type(value) is not int or not -2**(bits - 1) <= value < 2**(bits - 1):
        raise VenueError(f"a signed integer of {bits} bits was expected", where=f"{name}={fields.shown(value)}")
    return value


def signed(quantity: int, side: str) -> int:
    """The quantity of a trade, below 0 where the aggressor sold."""
    if side not in ("buy", "sell"):
        raise VenueError("unknown side", where=f"side={fields.shown(side)}")
    return quantity if side == "buy" else -quantity


def _named(arg: dict) -> str:
    """What an `arg` is of, for a notice."""
    return ", ".join(f"{name}={fields.shown(arg[name])}" for name in ("instType", "channel", "instId") if name in arg)


def _increment(row: dict, name: str) -> int:
    """In 1e-8; an empty text where the venue does not say, as before an instrument is listed."""
    return fields.quantity(row, name) if row.get(name) != "" else 0


def _kind(symbol: str) -> str:
    """BTC-USDT, BTC-USDT-SWAP, BTC-USD-270326 and BTC-USD-270326-90000-C, as the query asks for them."""
    parts = symbol.split("-")
    if len(parts) < 3:
        return "SPOT"
    if len(parts) > 3:
        return f"OPTION&instFamily={parts[0]}-{parts[1]}"
    return "SWAP" if parts[2] == "SWAP" else "FUTURES"


def _crc(bids: list[list[str]], asks: list[list[str]]) -> int:
    """The checksum of these levels, best first. About 10 us for 25 a side, their texts not counted."""
    parts: list[str] = []
    for bid, ask in zip_longest(bids, asks, fillvalue=[]):
        parts += bid
        parts += ask
    found = crc32(":".join(parts).encode())
    return found - 2**32 if found >= 2**31 else found
