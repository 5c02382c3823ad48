"""Bybit v5: linear contracts and spot, over one public connection each.

    orderbook.200.SYMBOL   snapshot, then deltas, 200 levels a side; `u` is one above the last, quantity "0" removes
    publicTrade.SYMBOL     one or several trades; S is the side of the aggressor

What leaves the 200 best levels is removed by a delta, so that nothing need be cut off here. `u` begins anew at 1 when
the service restarts: that frame is a snapshot, whatever it calls itself. A gap is healed by unsubscribing from the
order book and subscribing again. No quotes: those of this venue are numbered by the matching engine (`cs`, `seq`),
which counts other things than the changes of a book.

Event time is cts, or T (of the matching engine), where the frame has it, else ts (of the sender). The ids of linear
trades are UUIDs, thus 0. Block trades, agreed off the book, are no trades here.
"""

from typing import Any, Sequence

import orjson

from common.errors import VenueError
from common.events import (
    Delta,
    Event,
    Heartbeat,
    HttpRequest,
    Notice,
    Precision,
    Snapshot,
    Trade,
)
from common.fixed import MAX
from common.scan import Scanner
from common.venues import fields
from common.venues.base import Base
from common.wire import make

BOOK, TRADES = "orderbook.200.", "publicTrade."  #: topics, up to the symbol

_ARGS = 10  #: topics of one request: the limit of spot
_TOPICS_LENGTH = 20_000  #: characters of all topics of one connection; the limit is 21,000, brackets and all
_NAME_LENGTH = 20  #: of a symbol, at most
_PING = b'{"op":"ping"}'

_DELTA, _BUY, _SELL, _SNAPSHOT = range(4)  # templates of both venues stand in this order


class _Bybit(Base):
    """What the venues share. A subclass gives its category, the templates, and what one of them says of a trade."""

    ws_url, rest_url = "wss://stream.bybit.com", "https://api.bybit.com"
    silence_s = 20.0  # pongs
    max_symbols = _TOPICS_LENGTH // sum(len(f'"{topic}",') + _NAME_LENGTH for topic in (BOOK, TRADES))
    _templates: tuple[bytes, ...]
    _category: str
    _lot: str  #: where the increment of quantities stands
    _numbered: bool  #: ids of trades are numbers

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        self._scanner = Scanner(self._templates, self.symbols)

    def path(self) -> str:
        return f"/v5/public/{self._category}"

    def subscriptions(self) -> list[bytes]:
        topics = [f"{topic}{symbol}" for symbol in self.symbols for topic in (BOOK, TRADES)]
        return [_request("subscribe", topics[i:i + _ARGS]) for i in range(0, len(topics), _ARGS)]

    def resync(self, symbol: int) -> list[bytes]:
        return [_request(op, [f"{BOOK}{self.symbols[symbol]}"]) for op in ("unsubscribe", "subscribe")]

    def heartbeat(self) -> Heartbeat | None:
        return Heartbeat(20.0, _PING)

    def precision_request(self) -> HttpRequest | None:
        which = f"symbol={self.symbols[0]}" if len(self.symbols) == 1 else "limit=1000"
        return HttpRequest("GET", f"/v5/market/instruments-info?category={self._category}&{which}")

    def decode_precision(self, body: bytes) -> dict[str, Precision]:
        return fields.decode(body, self._precision)

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        found = self._scanner.match(frame)
        kind, symbol, _, n_bids, n_asks, number, _, time_ns, _ = found
        if kind == _DELTA:
            if number == 1:
                return (Snapshot(symbol, number, time_ns, self._scanner.levels, n_bids, n_asks),)
            return (make(Delta, (symbol, number, number, number - 1, time_ns, self._scanner.levels, n_bids, n_asks,
                                  None)),)
        if kind == _BUY or kind == _SELL:
            return (self._matched_trade(found, 1 if kind == _BUY else -1),)
        if kind == _SNAPSHOT:
            return (Snapshot(symbol, number, time_ns, self._scanner.levels, n_bids, n_asks),)
        return fields.decode(frame, self._read)

    def _matched_trade(self, found: tuple[int, ...], sign: int) -> Trade:
        raise NotImplementedError

    def _read(self, data: dict) -> Sequence[Event]:
        """Any frame, exactly."""
        if "topic" not in data:
            return (_answer(data),)
        topic = fields.text(data, "topic")
        for prefix, read in ((BOOK, self._book), (TRADES, self._trades)):
            if topic.startswith(prefix) and topic[len(prefix):] in self._index:
                return read(data, self._index[topic[len(prefix):]])
        return (Notice("info", f"not asked for: {fields.shown(topic)}"),)

    def _book(self, data: dict, symbol: int) -> Sequence[Event]:
        kind, book = fields.text(data, "type"), fields.obj(data, "data")
        if kind not in ("snapshot", "delta"):
            raise VenueError("unknown type of order book", where=f"type={fields.shown(kind)}")
        levels, counts = fields.levels(book, "b", "a")
        number, time_ns = fields.integer(book, "u"), fields.time_ns(data, "cts" if "cts" in data else "ts")
        if kind == "snapshot" or number == 1:
            return (Snapshot(symbol, number, time_ns, levels, *counts),)
        return (Delta(symbol, number, number, number - 1, time_ns, levels, *counts),)

    def _trades(self, data: dict, symbol: int) -> Sequence[Event]:
        return [self._trade(item, symbol) for item in fields.objects(data, "data")]

    def _trade(self, data: dict, symbol: int) -> Trade | Notice:
        side, quantity = fields.text(data, "S"), fields.quantity(data, "v")
        if side not in ("Buy", "Sell"):
            raise VenueError("unknown side", where=f"S={fields.shown(side)}")
        if "BT" in data and fields.flag(data, "BT"):
            return Notice("info", "a block trade")
        return Trade(symbol, _number(fields.field(data, "i")) if self._numbered else 0, fields.time_ns(data, "T"),
                     fields.price(data, "p"), quantity if side == "Buy" else -quantity)

    def _precision(self, data: dict) -> dict[str, Precision]:
        if fields.integer(data, "retCode"):
            raise VenueError("the venue refuses to tell its increments",
                             where=f"retCode={data['retCode']}, retMsg={fields.shown(data.get('retMsg'))}")
        return {item["symbol"]: Precision(fields.quantity(fields.obj(item, "priceFilter"), "tickSize"),
                                          fields.quantity(fields.obj(item, "lotSizeFilter"), self._lot))
                for item in fields.objects(fields.obj(data, "result"), "list")
                if fields.text(item, "symbol") in self._index}

    # ---- the other side

    def answer(self, frame: bytes) -> list[bytes]:
        op = orjson.loads(frame)["op"]
        return [orjson.dumps({"success": True, "ret_msg": "pong" if op == "ping" else op, "conn_id": "1", "op": op})]

    def subscribed(self, frame: bytes) -> list[int]:
        data = orjson.loads(frame)
        topics = data["args"] if data["op"] == "subscribe" else []
        return [self._index[topic[len(BOOK):]] for topic in topics if topic.startswith(BOOK)]

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        rows, bids, ms = fields.texts(snapshot.levels), snapshot.n_bids, snapshot.event_ns // fields.MS
        symbol, number = self.symbols[snapshot.symbol], snapshot.last_id
        book = {"s": symbol, "b": rows[:bids], "a": rows[bids:bids + snapshot.n_asks], "u": number, "seq": number}
        return orjson.dumps({"topic": f"{BOOK}{symbol}", "type": "snapshot", "ts": ms, "data": book, "cts": ms})


class BybitLinear(_Bybit):
    """Perpetuals and futures that are settled in USDT or USDC."""

    name = "bybit-linear"
    _category, _lot, _numbered = "linear", "qtyStep", False
    _templates = (
        b'{"topic":"orderbook.200.%s","type":"delta","ts":%i,"data":{"s":"%_","b":%l,"a":%l,"u":%i,"seq":%i},'
        b'"cts":%t}',
        b'{"topic":"publicTrade.%s","type":"snapshot","ts":%i,"data":[{"T":%t,"s":"%_","S":"Buy","v":"%q","p":"%p",'
        b'"L":"%_","i":"%_","BT":false,"RPI":%b,"seq":%i}]}',
        b'{"topic":"publicTrade.%s","type":"snapshot","ts":%i,"data":[{"T":%t,"s":"%_","S":"Sell","v":"%q","p":"%p",'
        b'"L":"%_","i":"%_","BT":false,"RPI":%b,"seq":%i}]}',
        b'{"topic":"orderbook.200.%s","type":"snapshot","ts":%i,"data":{"s":"%_","b":%l,"a":%l,"u":%i,"seq":%i},'
        b'"cts":%t}',
    )

    def _matched_trade(self, found: tuple[int, ...], sign: int) -> Trade:
        _, symbol, _, time_ns, quantity, price, _, _, _ = found
        return make(Trade, (symbol, 0, time_ns, price, sign * quantity))


class BybitSpot(_Bybit):
    """Spot."""

    name = "bybit-spot"
    _category, _lot, _numbered = "spot", "basePrecision", True
    _templates = (
        b'{"topic":"orderbook.200.%s","ts":%i,"type":"delta","data":{"s":"%_","b":%l,"a":%l,"u":%i,"seq":%i},'
        b'"cts":%t}',
        b'{"topic":"publicTrade.%s","ts":%i,"type":"snapshot","data":[{"i":"%i","T":%t,"p":"%p","v":"%q","S":"Buy",'
        b'"seq":%i,"s":"%_","BT":false,"RPI":%b}]}',
        b'{"topic":"publicTrade.%s","ts":%i,"type":"snapshot","data":[{"i":"%i","T":%t,"p":"%p","v":"%q","S":"Sell",'
        b'"seq":%i,"s":"%_","BT":false,"RPI":%b}]}',
        b'{"topic":"orderbook.200.%s","ts":%i,"type":"snapshot","data":{"s":"%_","b":%l,"a":%l,"u":%i,"seq":%i},'
        b'"cts":%t}',
    )

    def _matched_trade(self, found: tuple[int, ...], sign: int) -> Trade:
        _, symbol, _, number, time_ns, price, quantity, _, _ = found
        return make(Trade, (symbol, number, time_ns, price, sign * quantity))


def _request(op: str, topics: Sequence[str]) -> bytes:
    return orjson.dumps({"op": op, "args": topics})


def _answer(data: dict) -> Notice:
    """To a request of ours, or to a ping."""
    op = data.get("op")
    if op == "pong" or fields.flag(data, "success"):
        return Notice("info", f"op={fields.shown(op)}")
    return Notice("error", f"op={fields.shown(op)}, ret_msg={fields.shown(data.get('ret_msg'))}")


def _number(value: Any) -> int:
    """The id of a trade, as text or number; 0 where it is none that fits."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX else 0
