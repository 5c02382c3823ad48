"""Binance: usd-m and coin-m futures, and spot, over combined streams.

Snapshots come by HTTP, deltas over the stream; each stream has its own rule for joining the two:

    futures   drop u < lastUpdateId;   first U <= lastUpdateId <= u;       then pu == u of the one before
    spot      drop u <= lastUpdateId;  first U <= lastUpdateId + 1 <= u;   then U == u of the one before, plus 1

`m` says that the buyer was the maker, so that the seller was the aggressor. Event time is T (of the matching
engine) where the frame has it, else E (of the sender); spot quotes have neither.

Quantities of coin-m are numbers of contracts, each worth a fixed sum of dollars. Books, quotes and trades of usd-m are
under /public; the address without it is retired.
"""

from typing import Sequence
from urllib.parse import quote

import orjson

from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Delta, Event, HttpRequest, Notice, Precision, Quote, Snapshot, Trade
from common.scan import Scanner
from common.venues import fields, shapes
from common.venues.base import Base
from common.wire import make

_SNAPSHOT_LEVELS = 1000

_STREAMS = 3  # of a symbol

_QUOTE, _TRADE, _DELTA, _SNAPSHOT = range(4)  # templates of all venues stand in this order


class _Binance(Base):
    """What the venues share. A subclass gives the templates, the streams and the rules of its market."""

    max_age_s = 24 * 3600.0
    contiguous_trades = True
    _templates: tuple[bytes, ...]
    _streams: tuple[str, ...]
    _rest: str  #: path of all requests, up to their names
    _chained: bool  #: each delta names the last id of the one before, as `pu`
    _roles: tuple[tuple[int, ...], ...]  #: of the templates but the last, as in `decode`

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        self._scanner = Scanner(self._templates, self.symbols)
        self.shapes = shapes.shapes(self._scanner, *self._roles)

    def path(self) -> str:
        streams = [f"{symbol.lower()}@{stream}" for symbol in self.symbols for stream in self._streams]
        return f"/stream?streams={'/'.join(streams)}"

    def snapshot_request(self, symbol: int) -> HttpRequest | None:
        return HttpRequest("GET", f"{self._rest}/depth?symbol={self.symbols[symbol]}&limit={_SNAPSHOT_LEVELS}")

    def precision_request(self) -> HttpRequest | None:
        return HttpRequest("GET", f"{self._rest}/exchangeInfo")

    def decode_precision(self, body: bytes) -> dict[str, Precision]:
        return fields.decode(body, self._precision)

    def _precision(self, data: dict) -> dict[str, Precision]:
        found = {}
        for item in fields.objects(data, "symbols"):
            symbol = fields.text(item, "symbol")
            if symbol in self._index:
                filters = {fields.text(rule, "filterType"): rule for rule in fields.objects(item, "filters")}
                found[symbol] = Precision(*(
                    fields.quantity(filters[kind], name) if kind in filters else 0
                    for kind, name in (("PRICE_FILTER", "tickSize"), ("LOT_SIZE", "stepSize"))))
        return found

    def _read(self, data: dict) -> Sequence[Event]:
        """Any frame, exactly."""
        if "stream" in data:
            data = fields.obj(data, "data")
        if "e" not in data:
            if "A" in data:  # spot quotes carry no event type
                return self._of_symbol(data, self._quote)
            return (self._answer(data),)
        kind = fields.text(data, "e")
        readers = {"bookTicker": self._quote, "trade": self._trade, "depthUpdate": self._delta}
        if kind not in readers:
            return (Notice("info", f"not asked for: e={fields.shown(kind)}"),)
        return self._of_symbol(data, readers[kind])

    def _of_symbol(self, data: dict, read) -> Sequence[Event]:
        symbol = fields.text(data, "s")
        if symbol not in self._index:
            return (Notice("info", f"not asked for: s={fields.shown(symbol)}"),)
        return (read(data, self._index[symbol]),)

    @staticmethod
    def _answer(data: dict) -> Notice:
        """To a request of ours, or a refusal."""
        if "result" in data:
            return Notice("info", f"result={fields.shown(data['result'])}")
        refusal = data.get("error", data)
        if isinstance(refusal, dict) and "code" in refusal:
            return Notice("error", f"code={fields.shown(refusal['code'])}, msg={fields.shown(refusal.get('msg'))}")
        raise VenueError("a frame of no known kind", where=fields.shown(data))

    @staticmethod
    def _quote(data: dict, symbol: int) -> Quote:
        """An empty side is quoted as 0 x 0."""
        return Quote(symbol, fields.integer(data, "u"), *(fields.quantity(data, name) for name in "bBaA"))

    @staticmethod
    def _trade(data: dict, symbol: int) -> Trade | Notice:
        if data.get("X", "MARKET") != "MARKET":  # futures: insurance fund, deleveraging, no trade at all
            return Notice("info", f"not a market trade: X={fields.shown(data['X'])}")
        quantity = fields.quantity(data, "q")
        return Trade(symbol, fields.integer(data, "t"), fields.time_ns(data, "T"), fields.price(data, "p"),
                     -quantity if fields.flag(data, "m") else quantity)

    def _delta(self, data: dict, symbol: int) -> Delta:
        levels, counts = fields.levels(data, "b", "a")
        return Delta(symbol, fields.integer(data, "U"), fields.integer(data, "u"),
                     fields.integer(data, "pu") if self._chained else 0,
                     fields.time_ns(data, "T" if "T" in data else "E"), levels, *counts)

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        rows, bids, ms = fields.texts(snapshot.levels), snapshot.n_bids, snapshot.event_ns // fields.MS
        return orjson.dumps({"lastUpdateId": snapshot.last_id, **({"E": ms, "T": ms} if self._chained else {}),
                             **self._named(self.symbols[snapshot.symbol]),
                             "bids": rows[:bids], "asks": rows[bids:bids + snapshot.n_asks]})

    def _named(self, symbol: str) -> dict[str, str]:
        """What a snapshot says of its symbol."""
        return {}

    def decode_snapshot(self, symbol: int, body: bytes) -> Snapshot:
        found = self._scanner.match(body)
        if found[0] == _SNAPSHOT:
            return self._matched_snapshot(symbol, found)
        return fields.decode(body, lambda data: self._snapshot(data, symbol))

    def _matched_snapshot(self, symbol: int, found: tuple[int, ...]) -> Snapshot:
        raise NotImplementedError

    @staticmethod
    def _snapshot(data: dict, symbol: int) -> Snapshot:
        levels, counts = fields.levels(data, "bids", "asks")
        return Snapshot(symbol, fields.integer(data, "lastUpdateId"),
                        fields.time_ns(data, "T") if "T" in data else 0, levels, *counts)


class BinanceUsdM(_Binance):
    """usd-m futures."""

    name = "binance-usdm"
    ws_url, rest_url = "wss://fstream.binance.com/public", "https://fapi.binance.com"
    max_symbols = 200 // _STREAMS
    sends_per_s = 10.0
    _streams = ("depth@0ms", "bookTicker", "trade")
    _rest = "/fapi/v1"
    _chained = True
    _templates = (
        b'{"stream":"%_","data":{"e":"bookTicker","u":%i,"s":"%s","b":"%q","B":"%q","a":"%q","A":"%q",'
        b'"T":%t,"E":%i}}',
        b'{"stream":"%_","data":{"e":"trade","E":%i,"T":%t,"s":"%s","t":%i,"p":"%p","q":"%q","X":"MARKET","m":%b}}',
        b'{"stream":"%_","data":{"e":"depthUpdate","E":%i,"T":%t,"s":"%s","U":%i,"u":%i,"pu":%i,"b":%l,"a":%l}}',
        b'{"lastUpdateId":%i,"E":%i,"T":%t,"bids":%l,"asks":%l}',
    )
    _roles = (shapes.quote(symbol=1, update_id=0, bid=2, bid_qty=3, ask=4, ask_qty=5),
              shapes.trade(symbol=2, trade_id=3, event_ns=1, price=4, qty=5, sells=6),
              shapes.delta(symbol=2, last_id=4, event_ns=1, n_bids=6, n_asks=7, joins=5, step=0))

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        found = self._scanner.match(frame)
        kind = found[0]
        if kind == _QUOTE:
            _, update, symbol, bid, bid_qty, ask, ask_qty, _, _ = found
            return (make(Quote, (symbol, update, bid, bid_qty, ask, ask_qty)),)
        if kind == _TRADE:
            _, _, time_ns, symbol, number, price, quantity, seller, _ = found
            return (make(Trade, (symbol, number, time_ns, price, -quantity if seller else quantity)),)
        if kind == _DELTA:
            _, _, time_ns, symbol, first, last, before, n_bids, n_asks = found
            return (make(Delta, (symbol, first, last, before, time_ns, self._scanner.levels, n_bids, n_asks, None)),)
        return fields.decode(frame, self._read)

    def _matched_snapshot(self, symbol: int, found: tuple[int, ...]) -> Snapshot:
        return Snapshot(symbol, found[1], found[3], self._scanner.levels, found[4], found[5])

    def bridges(self, snapshot_id: int, delta: Delta) -> int:
        if delta.last_id < snapshot_id:
            return OLDER
        # Ids between pu and U belong to no change of this book: pu == lastUpdateId joins without a hole too.
        return JOINS if delta.first_id <= snapshot_id or delta.prev_id == snapshot_id else GAP

    def follows(self, last_id: int, delta: Delta) -> int:
        if delta.prev_id == last_id:
            return JOINS
        return OLDER if delta.last_id <= last_id else GAP


class BinanceCoinM(BinanceUsdM):
    """Coin-m futures: as usd-m, but that frames name the pair too, which nothing here needs."""

    name = "binance-coinm"
    inverse = True
    ws_url, rest_url = "wss://dstream.binance.com", "https://dapi.binance.com"
    _rest = "/dapi/v1"
    _templates = (  # with the same fields in the same order
        b'{"stream":"%_","data":{"u":%i,"e":"bookTicker","s":"%s","ps":"%_","b":"%q","B":"%q","a":"%q","A":"%q",'
        b'"T":%t,"E":%i}}',
        b'{"stream":"%_","data":{"e":"trade","E":%i,"T":%t,"s":"%s","t":%i,"p":"%p","q":"%q","X":"MARKET","m":%b}}',
        b'{"stream":"%_","data":{"e":"depthUpdate","E":%i,"T":%t,"s":"%s","ps":"%_","U":%i,"u":%i,"pu":%i,"b":%l,'
        b'"a":%l}}',
        b'{"lastUpdateId":%i,"E":%i,"T":%t,"symbol":"%_","pair":"%_","bids":%l,"asks":%l}',
    )

    def _named(self, symbol: str) -> dict[str, str]:
        return {"symbol": symbol, "pair": symbol.partition("_")[0]}


class BinanceSpot(_Binance):
    """Spot."""

    name = "binance-spot"
    ws_url, rest_url = "wss://stream.binance.com:9443", "https://api.binance.com"
    max_symbols = 1024 // _STREAMS
    sends_per_s = 5.0
    _streams = ("depth@100ms", "bookTicker", "trade")
    _rest = "/api/v3"
    _chained = False
    _templates = (
        b'{"stream":"%_","data":{"u":%i,"s":"%s","b":"%q","B":"%q","a":"%q","A":"%q"}}',
        b'{"stream":"%_","data":{"e":"trade","E":%i,"s":"%s","t":%i,"p":"%p","q":"%q","T":%t,"m":%b,"M":true}}',
        b'{"stream":"%_","data":{"e":"depthUpdate","E":%t,"s":"%s","U":%i,"u":%i,"b":%l,"a":%l}}',
        b'{"lastUpdateId":%i,"bids":%l,"asks":%l}',
    )
    _roles = (shapes.quote(symbol=1, update_id=0, bid=2, bid_qty=3, ask=4, ask_qty=5),
              shapes.trade(symbol=1, trade_id=2, event_ns=5, price=3, qty=4, sells=6),
              shapes.delta(symbol=1, last_id=3, event_ns=0, n_bids=4, n_asks=5, joins=2, step=1))

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        found = self._scanner.match(frame)
        kind = found[0]
        if kind == _QUOTE:
            _, update, symbol, bid, bid_qty, ask, ask_qty, _, _ = found
            return (make(Quote, (symbol, update, bid, bid_qty, ask, ask_qty)),)
        if kind == _TRADE:
            _, _, symbol, number, price, quantity, time_ns, seller, _ = found
            return (make(Trade, (symbol, number, time_ns, price, -quantity if seller else quantity)),)
        if kind == _DELTA:
            _, time_ns, symbol, first, last, n_bids, n_asks, _, _ = found
            return (make(Delta, (symbol, first, last, 0, time_ns, self._scanner.levels, n_bids, n_asks, None)),)
        return fields.decode(frame, self._read)

    def _matched_snapshot(self, symbol: int, found: tuple[int, ...]) -> Snapshot:
        return Snapshot(symbol, found[1], 0, self._scanner.levels, found[2], found[3])

    def precision_request(self) -> HttpRequest | None:
        """By name: the answer for all is too long."""
        names = quote(orjson.dumps(self.symbols), safe=",")
        return HttpRequest("GET", f"{self._rest}/exchangeInfo?symbols={names}")

    def bridges(self, snapshot_id: int, delta: Delta) -> int:
        if delta.last_id <= snapshot_id:
            return OLDER
        return JOINS if delta.first_id <= snapshot_id + 1 else GAP

    def follows(self, last_id: int, delta: Delta) -> int:
        if delta.first_id == last_id + 1:
            return JOINS
        return OLDER if delta.last_id <= last_id else GAP
