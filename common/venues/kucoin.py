"""KuCoin: spot, over the public feed whose address and token are asked for first.

    /market/level2:SYMBOL   changes, numbered from sequenceStart to sequenceEnd; each follows the one before. A level
                            is [price, quantity, sequence], quantity "0" removes, price "0" changes nothing
    /market/match:SYMBOL    trades; side is that of the aggressor
    /market/ticker:SYMBOL   best bid and ask as of `sequence` of the order book: audits our book

Snapshots come by HTTP, from level2_100, the best 100 levels a side: the whole book, /api/v3/market/orderbook/level2,
is only for those who sign their requests with an account's key. So a level further away is not known until it
changes. Should the price walk past all that is known, the ticker contradicts the book, and a new snapshot is taken.

A symbol whose prices are finer than 1e-8 is refused. Frames have no templates: each level carries its sequence, which
these do not read; about 15 us a change.
"""

import re
from hashlib import blake2s
from typing import Sequence
from urllib.parse import quote

import numpy as np
import orjson

from common.errors import VenueError
from common.events import (
    GAP,
    JOINS,
    OLDER,
    Delta,
    Event,
    Heartbeat,
    HttpRequest,
    Notice,
    Precision,
    Quote,
    Snapshot,
    Trade,
)
from common.fixed import MAX
from common.venues import fields
from common.venues.base import Base

BOOK, TRADES, TICKER = "/market/level2", "/market/match", "/market/ticker"  #: channels

_OK = "200000"  #: code of an HTTP answer
_NONE = re.compile(r"0+(\.0+)?", re.ASCII)  #: a price that is none
_PING = b'{"id":"1","type":"ping"}'


class KuCoin(Base):
    name = "kucoin"
    rest_url = "https://api.kucoin.com"
    silence_s = 18.0  # pongs
    max_age_s = 24 * 3600.0  # of the token
    max_symbols = 100  # of one subscription; three of these are the 300 that a connection may have
    sends_per_s = 10.0

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        self._ping_s = 18.0
        self._readers = {BOOK: _delta, TRADES: _trade, TICKER: _ticker}

    def locate(self) -> HttpRequest | None:
        return HttpRequest("POST", "/api/v1/bullet-public")

    def located(self, body: bytes) -> str:
        token, server = fields.decode(body, _place)
        endpoint, ping_ms = fields.text(server, "endpoint"), fields.integer(server, "pingInterval")
        if not endpoint.startswith(("wss://", "ws://")):
            raise VenueError("not the address of a WebSocket", where=f"endpoint={fields.shown(endpoint)}")
        if not ping_ms:
            raise VenueError("a time is not above 0", where="pingInterval=0")
        self._ping_s = ping_ms / 1000
        connection = blake2s(token.encode(), digest_size=8).hexdigest()  # any name will do
        return f"{endpoint}?token={quote(token, safe='=')}&connectId={connection}"

    def heartbeat(self) -> Heartbeat | None:
        """As often as the answer to `locate` asked for."""
        return Heartbeat(self._ping_s, _PING)

    def subscriptions(self) -> list[bytes]:
        names = ",".join(self.symbols)
        return [orjson.dumps({"id": number, "type": "subscribe", "topic": f"{channel}:{names}", "response": True})
                for number, channel in enumerate((BOOK, TRADES, TICKER), 1)]

    def snapshot_request(self, symbol: int) -> HttpRequest | None:
        return HttpRequest("GET", f"/api/v1/market/orderbook/level2_100?symbol={self.symbols[symbol]}")

    def decode_snapshot(self, symbol: int, body: bytes) -> Snapshot:
        return fields.decode(body, lambda data: _snapshot(data, symbol))

    def precision_request(self) -> HttpRequest | None:
        return HttpRequest("GET", "/api/v2/symbols")

    def decode_precision(self, body: bytes) -> dict[str, Precision]:
        return fields.decode(body, self._precision)

    def follows(self, last_id: int, delta: Delta) -> int:
        """A change may begin before the end of what is known: quantities are absolute, and each price stands in it
        once, as of its end."""
        if delta.last_id <= last_id:
            return OLDER
        return JOINS if delta.first_id <= last_id + 1 else GAP

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        return fields.decode(frame, self._read)

    def _read(self, data: dict) -> Sequence[Event]:
        kind = fields.text(data, "type")
        if kind != "message":
            return (_notice(kind, data),)
        topic = fields.text(data, "topic")
        channel, _, symbol = topic.partition(":")
        if channel not in self._readers or symbol not in self._index:
            return (Notice("info", f"not asked for: {fields.shown(topic)}"),)
        return (self._readers[channel](fields.obj(data, "data"), self._index[symbol]),)

    def _precision(self, data: dict) -> dict[str, Precision]:
        _accepted(data)
        return {item["symbol"]: Precision(fields.quantity(item, "priceIncrement"),
                                          fields.quantity(item, "baseIncrement"))
                for item in fields.objects(data, "data") if fields.text(item, "symbol") in self._index}

    # ---- the other side

    def answer(self, frame: bytes) -> list[bytes]:
        data = orjson.loads(frame)
        return [orjson.dumps({"id": str(data["id"]), "type": "pong" if data["type"] == "ping" else "ack"})]

    def subscribed(self, frame: bytes) -> list[int]:
        data = orjson.loads(frame)
        channel, _, names = data.get("topic", "").partition(":")
        return [self._index[symbol] for symbol in names.split(",")] if channel == BOOK else []

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        rows, bids = fields.texts(snapshot.levels), snapshot.n_bids
        return orjson.dumps({"code": _OK, "data": {
            "time": snapshot.event_ns // fields.MS, "sequence": str(snapshot.last_id),
            "bids": rows[:bids], "asks": rows[bids:bids + snapshot.n_asks]}})

    def encode_location(self, url: str) -> bytes:
        """The answer to `locate` that leads to `url`."""
        server = {"endpoint": url, "encrypt": url.startswith("wss"), "protocol": "websocket",
                  "pingInterval": int(self._ping_s * 1000), "pingTimeout": 10_000}
        return orjson.dumps({"code": _OK, "data": {"token": "loopback", "instanceServers": [server]}})


def _accepted(data: dict) -> None:
    """Raises VenueError where an HTTP answer is a refusal."""
    code = fields.text(data, "code")
    if code != _OK:
        raise VenueError("the venue refuses a request",
                         where=f"code={fields.shown(code)}, msg={fields.shown(data.get('msg'))}")


def _place(data: dict) -> tuple[str, dict]:
    _accepted(data)
    found = fields.obj(data, "data")
    servers = fields.objects(found, "instanceServers")
    if not servers:
        raise VenueError("the venue names no place to connect to", where="instanceServers=[]")
    return fields.text(found, "token"), servers[0]


def _snapshot(data: dict, symbol: int) -> Snapshot:
    _accepted(data)
    book = fields.obj(data, "data")
    levels, counts = fields.levels(book, "bids", "asks")
    return Snapshot(symbol, fields.number(book, "sequence"), fields.time_ns(book, "time"), levels, *counts)


def _delta(data: dict, symbol: int) -> Delta:
    levels, counts = _changes(fields.obj(data, "changes"))
    return Delta(symbol, fields.integer(data, "sequenceStart"), fields.integer(data, "sequenceEnd"), 0,
                 fields.time_ns(data, "time") if "time" in data else 0, levels, *counts)


def _changes(data: dict) -> tuple[np.ndarray, list[int]]:
    """As `fields.levels`, without the levels that change nothing."""
    pairs, counts = [], []
    for name in ("bids", "asks"):
        before = len(pairs)
        for level in fields.array(data, name):
            if not isinstance(level, list) or not 2 <= len(level) <= 3:
                raise VenueError("a level is not [price, quantity, sequence]", where=f"{name}: {fields.shown(level)}")
            if not _NONE.fullmatch(str(level[0])):
                pairs.append(fields.pair(level[0], level[1], name))
        counts.append(len(pairs) - before)
    return fields.stacked(pairs), counts


def _trade(data: dict, symbol: int) -> Trade:
    side, quantity, number = fields.text(data, "side"), fields.quantity(data, "size"), fields.text(data, "tradeId")
    if side not in ("buy", "sell"):
        raise VenueError("unknown side", where=f"side={fields.shown(side)}")
    # Older ids are hexadecimal, of 96 bits.
    fits = number.isascii() and number.isdigit() and len(number) <= 19 and int(number) <= MAX
    return Trade(symbol, int(number) if fits else 0, fields.number(data, "time"), fields.price(data, "price"),
                 quantity if side == "buy" else -quantity)


def _ticker(data: dict, symbol: int) -> Quote:
    """An empty side is quoted as 0 x 0."""
    return Quote(symbol, fields.number(data, "sequence"), *(
        fields.quantity(data, name) for name in ("bestBid", "bestBidSize", "bestAsk", "bestAskSize")))


def _notice(kind: str, data: dict) -> Notice:
    if kind == "error":
        return Notice("error", f"code={fields.shown(data.get('code'))}, data={fields.shown(data.get('data'))}")
    if kind in ("welcome", "ack", "pong"):
        return Notice("info", kind)
    raise VenueError("unknown type of message", where=f"type={fields.shown(kind)}")
