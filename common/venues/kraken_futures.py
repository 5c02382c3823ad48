"""Kraken futures (wss://futures.kraken.com/ws/v1): products as PI_XBTUSD and PF_XBTUSD, in capitals or not.

    book_snapshot   the whole book of a product, as of `seq`
    book            one level of one side; `seq` is one above that of the product's message before; quantity 0 removes
    trade           side is that of the aggressor; has a `seq` of its own
    heartbeat       every ten seconds

Decimals are JSON numbers. A gap is healed by unsubscribing from the book and subscribing again, which brings a new
snapshot.
"""

from typing import Sequence

import orjson

from common import fixed
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
from common.venues import fields
from common.venues.base import Base
from common.venues.kraken import named_levels

BOOK, TRADE, HEARTBEAT = "book", "trade", "heartbeat"  #: feeds

_TRADED = ("fill", "liquidation")  # on the book; what else is called a trade is an arrangement
_DONE = ("info", "subscribed", "unsubscribed", "pong")
_REFUSED = ("error", "alert", "subscribed_failed", "unsubscribed_failed")


class KrakenFutures(Base):
    """Futures and perpetuals."""

    name = "kraken-futures"
    ws_url, rest_url = "wss://futures.kraken.com", "https://futures.kraken.com"
    silence_s = 30.0
    sends_per_s = 50.0  # half of what is allowed

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        self._index = {symbol.upper(): i for i, symbol in enumerate(self.symbols)}

    def path(self) -> str:
        return "/ws/v1"

    def subscriptions(self) -> list[bytes]:
        return [self._request("subscribe", BOOK, self.symbols), self._request("subscribe", TRADE, self.symbols),
                orjson.dumps({"event": "subscribe", "feed": HEARTBEAT})]

    def resync(self, symbol: int) -> list[bytes]:
        return [self._request(event, BOOK, self.symbols[symbol:symbol + 1]) for event in ("unsubscribe", "subscribe")]

    def heartbeat(self) -> Heartbeat | None:
        """The venue ends a connection that has not asked for 60 s."""
        return Heartbeat(20.0, b'{"event":"ping"}')

    def precision_request(self) -> HttpRequest | None:
        return HttpRequest("GET", "/derivatives/api/v3/instruments")

    def decode_precision(self, body: bytes) -> dict[str, Precision]:
        return fields.decode(body, self._precisions)

    def answer(self, frame: bytes) -> list[bytes]:
        data = orjson.loads(frame)
        if data["event"] == "ping":
            return [b'{"event":"pong"}']
        done = {"event": f"{data['event']}d", "feed": data["feed"]}
        if "product_ids" not in data:
            return [orjson.dumps(done)]
        return [orjson.dumps(done | {"product_ids": [product.upper()]}) for product in data["product_ids"]]

    def subscribed(self, frame: bytes) -> list[int]:
        data = orjson.loads(frame)
        if data["event"] != "subscribe" or data["feed"] != BOOK:
            return []
        products = [product.upper() for product in data["product_ids"]]
        return [self._index[product] for product in products if product in self._index]

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        n_bids, n_asks = snapshot.n_bids, snapshot.n_asks
        rows = [{"price": orjson.Fragment(price), "qty": orjson.Fragment(quantity)}
                for price, quantity in fields.texts(snapshot.levels[:n_bids + n_asks])]
        return orjson.dumps({
            "feed": "book_snapshot", "product_id": self.symbols[snapshot.symbol].upper(),
            "timestamp": snapshot.event_ns // fields.MS, "seq": snapshot.last_id, "tickSize": None,
            "bids": rows[:n_bids], "asks": rows[n_bids:]})

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        return fields.decode(frame, self._read)

    @staticmethod
    def _request(event: str, feed: str, products: Sequence[str]) -> bytes:
        return orjson.dumps({"event": event, "feed": feed, "product_ids": products})

    def _read(self, data: dict) -> Sequence[Event]:
        if "event" in data:
            return (_notice(data),)
        feed = fields.text(data, "feed")
        if feed == HEARTBEAT:
            return (Notice("info", feed),)
        if feed not in _READERS:
            return (Notice("info", f"not asked for: feed={fields.shown(feed)}"),)
        product = fields.text(data, "product_id")
        if product not in self._index:
            return (Notice("info", f"not asked for: product_id={fields.shown(product)}"),)
        return (_READERS[feed](data, self._index[product]),)

    def _precisions(self, data: dict) -> dict[str, Precision]:
        if fields.text(data, "result") != "success":
            raise VenueError("the venue does not tell its instruments", where=fields.shown(data))
        found = {}
        for instrument in fields.objects(data, "instruments"):
            product = fields.text(instrument, "symbol").upper()
            if product in self._index:
                found[self.symbols[self._index[product]]] = Precision(
                    fields.price({f"{product}.tickSize": fields.field(instrument, "tickSize")}, f"{product}.tickSize"),
                    _lot(instrument, product))
        return found


def _notice(data: dict) -> Notice:
    event = fields.text(data, "event")
    about = " ".join(f"{name}={fields.shown(data[name])}" for name in ("message", "feed", "product_ids")
                     if name in data)
    if event in _DONE:
        return Notice("info", f"{event} {about}".strip())
    if event in _REFUSED:
        return Notice("error", f"{event} {about}".strip())
    raise VenueError("unknown event", where=f"event={fields.shown(event)}")


def _lot(instrument: dict, product: str) -> int:
    """10 to the power of minus its precision, which may be below 0; not always told."""
    name = "contractValueTradePrecision"
    precision = instrument.get(name)
    if precision is None:
        return 0
    if type(precision) is not int:
        raise VenueError("an integer was expected", where=f"{product}.{name}={fields.shown(precision)}")
    return fixed.parse(f"1e{-precision}", f"{product}.{name}")


def _level(data: dict, name: str) -> tuple[int, int]:
    return fields.pair(fields.field(data, "price"), fields.field(data, "qty"), name)


def _is_buy(data: dict) -> bool:
    side = fields.text(data, "side")
    if side not in ("buy", "sell"):
        raise VenueError("unknown side", where=f"side={fields.shown(side)}")
    return side == "buy"


def _delta(data: dict, symbol: int) -> Delta:
    number, buy = fields.integer(data, "seq"), _is_buy(data)
    return Delta(symbol, number, number, number - 1, fields.time_ns(data, "timestamp"),
                 fields.stacked([_level(data, BOOK)]), int(buy), int(not buy))


def _snapshot(data: dict, symbol: int) -> Snapshot:
    rows, counts = named_levels(data)
    levels = fields.stacked([fields.pair(price, quantity, "level") for price, quantity in rows])
    return Snapshot(symbol, fields.integer(data, "seq"), fields.time_ns(data, "timestamp"), levels, *counts)


def _trade(data: dict, symbol: int) -> Event:
    kind = fields.text(data, "type")
    if kind not in _TRADED:
        return Notice("info", f"not a market trade: type={fields.shown(kind)}")
    price, quantity = _level(data, TRADE)
    return Trade(symbol, fields.integer(data, "seq"), fields.time_ns(data, "time"), price,
                 quantity if _is_buy(data) else -quantity)


_READERS = {"book_snapshot": _snapshot, BOOK: _delta, TRADE: _trade}
