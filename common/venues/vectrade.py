"""The VecTrade gateway: one multiplexed connection, snapshots in band, a sequence per order book.

Text frames of compact JSON, decimals as strings, times in Unix milliseconds:

    orderbook:SYMBOL   snapshot, then deltas, each with a sequence one above the last; quantity "0" removes
    trades:SYMBOL      side is that of the aggressor
    ticker:SYMBOL      best bid and ask as of `sequence` of the order book: audits our book

A gap is healed by unsubscribing from the order book and subscribing again, which brings a new snapshot.
"""

from typing import Sequence

import orjson

from common.errors import VenueError
from common.events import Delta, Event, Notice, Quote, Snapshot, Trade
from common.scan import Scanner
from common.venues import fields, shapes
from common.venues.base import Base
from common.wire import make

BOOK, TRADES, TICKER = "orderbook", "trades", "ticker"  #: channels

_DELTA, _TICKER, _BUY, _SELL, _SNAPSHOT = range(5)
_TEMPLATES = (
    b'{"channel":"orderbook:%s","type":"delta","sequence":%i,"timestamp":%t,"bids":%l,"asks":%l}',
    b'{"channel":"ticker:%s","type":"ticker","sequence":%i,"timestamp":%i,"bid":"%q","bid_size":"%q","ask":"%q",'
    b'"ask_size":"%q","last":"%_"}',
    b'{"channel":"trades:%s","type":"trade","id":%i,"timestamp":%t,"price":"%p","quantity":"%q","side":"BUY"}',
    b'{"channel":"trades:%s","type":"trade","id":%i,"timestamp":%t,"price":"%p","quantity":"%q","side":"SELL"}',
    b'{"channel":"orderbook:%s","type":"snapshot","sequence":%i,"timestamp":%t,"bids":%l,"asks":%l}',
)
_ROLES = (  # of the templates but the last, as in `decode`
    shapes.delta(symbol=0, last_id=1, event_ns=2, n_bids=3, n_asks=4, joins=1, step=1),
    shapes.quote(symbol=0, update_id=1, bid=3, bid_qty=4, ask=5, ask_qty=6),
    shapes.trade(symbol=0, trade_id=1, event_ns=2, price=3, qty=4, sells=shapes.NEVER),
    shapes.trade(symbol=0, trade_id=1, event_ns=2, price=3, qty=4, sells=shapes.ALWAYS))


class VecTrade(Base):
    name = "vectrade"

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        self._scanner = Scanner(_TEMPLATES, self.symbols)
        self.shapes = shapes.shapes(self._scanner, *_ROLES)

    def path(self) -> str:
        return "/ws"

    def subscriptions(self) -> list[bytes]:
        channels = [f"{kind}:{symbol}" for symbol in self.symbols for kind in (BOOK, TRADES, TICKER)]
        return [orjson.dumps({"action": "subscribe", "channels": channels})]

    def resync(self, symbol: int) -> list[bytes]:
        channels = [f"{BOOK}:{self.symbols[symbol]}"]
        return [orjson.dumps({"action": action, "channels": channels}) for action in ("unsubscribe", "subscribe")]

    def answer(self, frame: bytes) -> list[bytes]:
        data = orjson.loads(frame)
        return [orjson.dumps({"type": f"{data['action']}d", "channels": data["channels"]})]

    def subscribed(self, frame: bytes) -> list[int]:
        data = orjson.loads(frame)
        channels = [channel.partition(":") for channel in data["channels"]]
        return [self._index[symbol] for feed, _, symbol in channels if feed == BOOK and data["action"] == "subscribe"]

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        rows, bids = fields.texts(snapshot.levels), snapshot.n_bids
        return orjson.dumps({"channel": f"{BOOK}:{self.symbols[snapshot.symbol]}", "type": "snapshot",
                             "sequence": snapshot.last_id, "timestamp": snapshot.event_ns // fields.MS,
                             "bids": rows[:bids], "asks": rows[bids:bids + snapshot.n_asks]})

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        kind, symbol, number, time_ns, first, second, third, fourth, _ = self._scanner.match(frame)
        if kind == _DELTA:
            return (make(Delta, (symbol, number, number, number - 1, time_ns, self._scanner.levels, first, second,
                                  None)),)
        if kind == _TICKER:
            return (make(Quote, (symbol, number, first, second, third, fourth)),)
        if kind == _BUY:
            return (make(Trade, (symbol, number, time_ns, first, second)),)
        if kind == _SELL:
            return (make(Trade, (symbol, number, time_ns, first, -second)),)
        if kind == _SNAPSHOT:
            return (Snapshot(symbol, number, time_ns, self._scanner.levels, first, second),)
        return fields.decode(frame, self._read)

    def _read(self, data: dict) -> Sequence[Event]:
        if "channel" not in data:
            return (self._notice(data),)
        channel, kind = fields.text(data, "channel"), fields.text(data, "type")
        feed, _, symbol = channel.partition(":")
        if (feed, kind) not in _READERS:
            raise VenueError("unknown channel or type",
                             where=f"channel={fields.shown(channel)}, type={fields.shown(kind)}")
        if symbol not in self._index:
            return (Notice("info", f"not asked for: {fields.shown(channel)}"),)
        return (_READERS[feed, kind](data, self._index[symbol]),)

    @staticmethod
    def _notice(data: dict) -> Notice:
        kind = fields.text(data, "type")
        if kind == "error":
            return Notice("error", f"{fields.text(data, 'code')}: {fields.text(data, 'message')}")
        if kind in ("subscribed", "unsubscribed", "heartbeat"):
            return Notice("info", kind)
        raise VenueError("unknown type of message", where=f"type={fields.shown(kind)}")


def _delta(data: dict, symbol: int) -> Delta:
    levels, counts = fields.levels(data, "bids", "asks")
    number = fields.integer(data, "sequence")
    return Delta(symbol, number, number, number - 1, fields.time_ns(data, "timestamp"), levels, *counts)


def _snapshot(data: dict, symbol: int) -> Snapshot:
    levels, counts = fields.levels(data, "bids", "asks")
    return Snapshot(symbol, fields.integer(data, "sequence"), fields.time_ns(data, "timestamp"), levels, *counts)


def _trade(data: dict, symbol: int) -> Trade:
    side = fields.text(data, "side")
    if side not in ("BUY", "SELL"):
        raise VenueError("unknown side", where=f"side={fields.shown(side)}")
    quantity = fields.quantity(data, "quantity")
    return Trade(symbol, fields.integer(data, "id"), fields.time_ns(data, "timestamp"), fields.price(data, "price"),
                 quantity if side == "BUY" else -quantity)


def _ticker(data: dict, symbol: int) -> Quote:
    """An empty side is quoted as 0 x 0."""
    return Quote(symbol, fields.integer(data, "sequence"), *(
        fields.quantity(data, name) for name in ("bid", "bid_size", "ask", "ask_size")))


_READERS = {(BOOK, "delta"): _delta, (BOOK, "snapshot"): _snapshot, (TRADES, "trade"): _trade,
            (TICKER, "ticker"): _ticker}
