"""Coinbase Advanced Trade: one connection, snapshots in band, one count over all that it sends.

Text frames of compact JSON: {"channel", "timestamp", "sequence_num", "events": [...]}, decimals as strings, times in
RFC 3339. What is subscribed to as "level2" comes as channel "l2_data":

    l2_data         snapshot, then update: {side, event_time, price_level, new_quantity}; quantity "0" removes
    market_trades   update; a snapshot is history, of before the connection; `side` is that of the maker
    heartbeats      one a second, so that no channel is closed for its silence

`sequence_num` counts the messages of a connection, whatever channel they are of, so a hole may be of any book: all
are lost then. A number that has been passed is never read again. A book's changes have no number of their own, and
theirs is that of the message.

Names with -USDC are another word for those with -USD, and frames know the latter only: subscribe to BTC-USD.
"""

from datetime import datetime, timezone
from typing import Any, Sequence

import numpy as np
import orjson

from common import scan
from common.errors import VenueError
from common.events import ALL, JOINS, OLDER, Delta, Event, HttpRequest, Lost, Notice, Precision, Snapshot, Trade
from common.venues import fields
from common.venues.base import Base

BOOK, TRADES, HEARTBEATS = "level2", "market_trades", "heartbeats"  #: channels as they are subscribed to
BOOK_DATA = "l2_data"  #: what frames call the first of them

_SIDES = {"bid": 0, "offer": 1}
_ID = "sequence_num"


class Coinbase(Base):
    name = "coinbase"
    ws_url, rest_url = "wss://advanced-trade-ws.coinbase.com", "https://api.coinbase.com"
    silence_s = 5.0  # of heartbeats that come each second
    sends_per_s = 8.0

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        self._number: int | None = None  # of the newest message

    def begin(self) -> None:
        """The count begins anew, at whatever comes first."""
        self._number = None

    def subscriptions(self) -> list[bytes]:
        """A channel each; unless one of them comes within 5 s of connecting, the venue ends the connection."""
        return [_request("subscribe", HEARTBEATS), *(
            _request("subscribe", channel, *self.symbols) for channel in (TRADES, BOOK))]

    def resync(self, symbol: int) -> list[bytes]:
        return [_request(action, BOOK, self.symbols[symbol]) for action in ("unsubscribe", "subscribe")]

    def follows(self, last_id: int, delta: Delta) -> int:
        """Holes and repetitions are found by the count, in `decode`; what one message brings has one number."""
        return JOINS if delta.last_id >= last_id else OLDER

    def precision_request(self) -> HttpRequest | None:
        query = "&".join(f"product_ids={symbol}" for symbol in self.symbols)
        return HttpRequest("GET", f"/api/v3/brokerage/market/products?{query}")

    def decode_precision(self, body: bytes) -> dict[str, Precision]:
        return fields.decode(body, self._increments)

    def answer(self, frame: bytes) -> list[bytes]:
        """Uncounted, as is `encode_snapshot`: what is played to the client has a count of its own."""
        data = orjson.loads(frame)
        begun = data["type"] == "subscribe"
        channels = {data["channel"]: data.get("product_ids", [data["channel"]])} if begun else {}
        return [orjson.dumps({"channel": "subscriptions", "events": [{"subscriptions": channels}]})]

    def subscribed(self, frame: bytes) -> list[int]:
        data = orjson.loads(frame)
        if (data["type"], data["channel"]) != ("subscribe", BOOK):
            return []
        return [self._index[product] for product in data["product_ids"]]

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        bids, time = snapshot.n_bids, _iso(snapshot.event_ns)
        rows = fields.texts(snapshot.levels[:bids + snapshot.n_asks])
        updates = [{"side": "bid" if i < bids else "offer", "event_time": time, "price_level": price,
                    "new_quantity": quantity} for i, (price, quantity) in enumerate(rows)]
        return orjson.dumps({"channel": BOOK_DATA, "timestamp": time, "events": [{
            "type": "snapshot", "product_id": self.symbols[snapshot.symbol], "updates": updates}]})

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        return fields.decode(frame, self._read)

    def _read(self, data: dict) -> Sequence[Event]:
        if "channel" not in data:
            return (_complaint(data),)
        channel = fields.text(data, "channel")
        if _ID not in data:
            return self._events(channel, data)
        number, before = fields.integer(data, _ID), self._number
        if before is not None and number <= before:
            return (Notice("info", f"came before: {_ID}={number}, the newest is {before}"),)
        whole = before is None or number == before + 1
        try:
            events = self._events(channel, data)
        except VenueError:
            if whole and channel != BOOK_DATA:  # a refused change of a book stays a hole: that book has missed it
                self._number = number
            raise
        self._number = number
        return events if whole else [Lost(ALL, f"{_ID}={number} came after {before}"), *events]

    def _events(self, channel: str, data: dict) -> Sequence[Event]:
        if channel == BOOK_DATA:
            return [self._book(data, event) for event in fields.objects(data, "events")]
        if channel == TRADES:
            return [found for event in fields.objects(data, "events") for found in self._trades(event)]
        if channel == HEARTBEATS:
            return (Notice("info", "heartbeat"),)
        if channel == "subscriptions":
            return (Notice("info", f"subscriptions: {fields.shown(fields.array(data, 'events'))}"),)
        return (Notice("info", f"not asked for: channel={fields.shown(channel)}"),)

    def _book(self, data: dict, event: dict) -> Event:
        """Any number of levels of one book, of one time."""
        kind, product = fields.text(event, "type"), fields.text(event, "product_id")
        if kind not in ("snapshot", "update"):
            raise VenueError("unknown type of event", where=f"type={fields.shown(kind)}")
        if product not in self._index:
            return _not_ours(product)
        updates = fields.objects(event, "updates")
        time_ns = fields.time_iso(updates[-1], "event_time") if updates else fields.time_iso(data, "timestamp")
        levels, n_bids, n_asks = _levels(updates)
        if kind == "snapshot":
            number = fields.integer(data, _ID) if _ID in data else 0
            return Snapshot(self._index[product], number, time_ns, levels, n_bids, n_asks)
        number = fields.integer(data, _ID)
        return Delta(self._index[product], number, number, 0, time_ns, levels, n_bids, n_asks)

    def _trades(self, event: dict) -> Sequence[Event]:
        """Oldest first; the venue writes the newest first."""
        kind, trades = fields.text(event, "type"), fields.objects(event, "trades")
        if kind == "snapshot":
            return [Notice("info", f"trades of before: {len(trades)}")]
        if kind != "update":
            raise VenueError("unknown type of event", where=f"type={fields.shown(kind)}")
        return [self._trade(trade) for trade in reversed(trades)]

    def _trade(self, data: dict) -> Event:
        product, side = fields.text(data, "product_id"), fields.text(data, "side")
        if product not in self._index:
            return _not_ours(product)
        if side not in ("BUY", "SELL"):
            raise VenueError("unknown side", where=f"side={fields.shown(side)}")
        number, quantity = fields.text(data, "trade_id"), fields.quantity(data, "size")
        return Trade(self._index[product], fields.number(data, "trade_id") if number.isdigit() else 0,
                     fields.time_iso(data, "time"), fields.price(data, "price"),
                     quantity if side == "SELL" else -quantity)

    def _increments(self, data: dict) -> Any:
        found = {}
        for product in fields.objects(data, "products"):
            name = fields.text(product, "product_id")
            if name in self._index:
                found[name] = Precision(fields.quantity(product, "price_increment"),
                                        fields.quantity(product, "base_increment"))
        return found


def _request(action: str, channel: str, *products: str) -> bytes:
    return orjson.dumps({"type": action, "channel": channel, **({"product_ids": products} if products else {})})


def _complaint(data: dict) -> Notice:
    """What has no channel is an error."""
    kind = fields.text(data, "type")
    if kind != "error":
        raise VenueError("unknown type of message", where=f"type={fields.shown(kind)}")
    return Notice("error", fields.shown(fields.text(data, "message")))


def _not_ours(product: str) -> Notice:
    return Notice("info", f"not asked for: product_id={fields.shown(product)}")


def _levels(updates: Sequence[dict]) -> tuple[np.ndarray, int, int]:
    """(int64[n, 2], bids, asks). Snapshots have 50,000 levels: their texts are put together as most venues write
    levels, and read by compiled code. What that does not take is read again, slowly, which words the complaint."""
    sides: tuple[list[tuple[Any, Any]], ...] = ([], [])
    for update in updates:
        side = fields.text(update, "side")
        if side not in _SIDES:
            raise VenueError("unknown side", where=f"side={fields.shown(side)}")
        sides[_SIDES[side]].append((fields.field(update, "price_level"), fields.field(update, "new_quantity")))
    bids, asks = sides
    pairs = bids + asks
    try:
        text = b'[["%s"]]' % '"],["'.join(map('","'.join, pairs)).encode() if pairs else b"[]"
    except (TypeError, UnicodeEncodeError):  # not texts, or no good ones
        text = b""
    out = np.empty((len(pairs), 2), np.int64)
    if scan.levels(text, 0, out) != (scan.OK, len(pairs), len(text)):
        out = fields.stacked([fields.pair(price, quantity, "updates") for price, quantity in pairs])
    return out, len(bids), len(asks)


def _iso(time_ns: int) -> str:
    whole, part = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(whole, timezone.utc):%Y-%m-%dT%H:%M:%S}.{part:09d}Z"
