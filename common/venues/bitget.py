"""Bitget: spot and USDT futures, each a venue of its own, since the same names are in use on both.

The public channels of API v2, and of v1 before it, which recordings are of:

    books   a snapshot, then updates; v2 numbers them: an update follows the one that `pseq` names, or, where that is
            not sent, any with a lesser `seq`
    trade   a snapshot of the newest trades, which are past, then updates; newest first; side is that of the taker

`checksum`, where it is sent and not 0, is OKX's, over the texts of the levels as they were sent: on this venue all
prices of a symbol have the same number of decimals, and so have all quantities ("113.50", "6.40"). How many is learned
from the levels themselves, from each snapshot anew.

A gap is healed as on OKX, whose protocol this is; see `common.venues.okx.Channels` for the rest.
"""

from typing import Any, Sequence

from common import fixed
from common.errors import VenueError
from common.events import JOINS, OLDER, Delta, Event, HttpRequest, Notice, Precision, Trade
from common.venues import fields
from common.venues.okx import Channels, signed, time_ns


class _Style:
    """How a symbol's prices, or its quantities, are written."""

    __slots__ = ("places", "padded")

    def __init__(self) -> None:
        self.places = 0  #: the most decimals seen
        self.padded = False  #: zeros fill up the decimals: without one seen yet the shortest form is the same text

    def note(self, text: str) -> None:
        part = text.partition(".")[2]
        self.places = max(self.places, len(part))
        self.padded |= part.endswith("0")

    def text(self, value: int) -> str:
        if not self.padded:
            return fixed.text(value)
        whole, part = divmod(value, fixed.SCALE)
        return f"{whole}.{f'{part:08d}'.ljust(self.places, '0')[:self.places]}"


class _Bitget(Channels):
    """What the venues share. A subclass gives its market and where its increments are."""

    ws_url, rest_url = "wss://ws.bitget.com", "https://api.bitget.com"
    silence_s = 40.0  # a pong at the latest, every _beat_s
    max_age_s = 24 * 3600.0
    max_symbols = 25  # 50 channels: the venue takes 1,000, and advises against more than these
    sends_per_s = 10.0
    _trades = "trade"
    _beat_s = 25.0  # the venue asks for one every 30 s
    _markets: tuple[str, ...]  #: instType of v2, and of v1
    _increments: str  #: path of the request

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        self.begin()

    def begin(self) -> None:
        self._styles = [(_Style(), _Style()) for _ in self.symbols]  # of prices, of quantities
        self._heard: set[int] = set()  # symbols that have had their snapshot of trades

    def path(self) -> str:
        return "/v2/ws/public"

    def _arg(self, channel: str, symbol: str) -> dict[str, str]:
        return {"instType": self._markets[0], "channel": channel, "instId": symbol}

    def _concerns(self, arg: dict) -> bool:
        return fields.text(arg, "instType").upper() in self._markets

    # ---- books

    def _books(self, symbol: int, data: dict) -> Sequence[Event]:
        events = super()._books(symbol, data)  # all has been read: from here on it may be noted
        for row in data["data"]:
            if data["action"] == "snapshot":
                self._styles[symbol] = _Style(), _Style()
            prices, quantities = self._styles[symbol]
            for level in (*row["bids"], *row["asks"]):
                prices.note(str(level[0]))
                quantities.note(str(level[1]))
        return events

    def _texts(self, symbol: int, levels: Sequence[Sequence[int]]) -> list[list[str]]:
        prices, quantities = self._styles[symbol]
        return [[prices.text(price), quantities.text(quantity)] for price, quantity in levels]

    def _numbers(self, row: dict, whole: bool) -> tuple[int, int]:
        return _number(row, "seq"), 0 if whole else _number(row, "pseq")

    def _numbered(self, last_id: int) -> dict[str, int]:
        return {"seq": last_id}

    def bridges(self, snapshot_id: int, delta: Delta) -> int:
        # Levels are absolute: a change that began before the snapshot and ends after it makes the book right, too.
        if delta.prev_id and delta.prev_id <= snapshot_id < delta.last_id:
            return JOINS
        return OLDER if 0 < delta.last_id <= snapshot_id else self.follows(snapshot_id, delta)

    def follows(self, last_id: int, delta: Delta) -> int:
        if delta.prev_id == 0 and (delta.last_id == 0 or delta.last_id > last_id):
            return JOINS  # as far as numbers tell: the checksum tells the rest
        return super().follows(last_id, delta)

    # ---- trades

    def _traded(self, symbol: int, data: dict) -> Sequence[Event]:
        rows = fields.array(data, "data")
        if fields.text(data, "action") == "snapshot" and symbol not in self._heard:
            self._heard.add(symbol)
            return (Notice("info", f"trades before the subscription: {len(rows)}"),)
        trades = [_trade(symbol, row) for row in reversed(rows)]
        self._heard.add(symbol)
        return sorted(trades, key=lambda trade: (trade.event_ns, trade.trade_id))

    # ---- increments

    def precision_request(self) -> HttpRequest | None:
        return HttpRequest("GET", self._increments)

    def decode_precision(self, body: bytes) -> dict[str, Precision]:
        return fields.decode(body, self._precisions)

    def _precisions(self, data: dict) -> dict[str, Precision]:
        if fields.text(data, "code") != "00000":
            raise VenueError("the venue does not tell its symbols", where=f"code={fields.shown(data['code'])}, "
                                                                          f"msg={fields.shown(data.get('msg'))}")
        rows = ((fields.text(row, "symbol").partition("_")[0], row) for row in fields.objects(data, "data"))
        return {name: self._precision(row) for name, row in rows if name in self._index}

    def _precision(self, row: dict) -> Precision:
        raise NotImplementedError


class Bitget(_Bitget):
    """Spot."""

    name = "bitget"
    _markets = ("SPOT", "SP")
    _increments = "/api/v2/spot/public/symbols"

    def _precision(self, row: dict) -> Precision:
        older = "priceScale" in row
        return Precision(_power(row, "priceScale" if older else "pricePrecision"),
                         _power(row, "quantityScale" if older else "quantityPrecision"))


class BitgetUsdtFutures(_Bitget):
    """Perpetual and dated futures that are margined in USDT."""

    name = "bitget-usdt-futures"
    _markets = ("USDT-FUTURES", "MC")
    _increments = "/api/v2/mix/market/contracts?productType=USDT-FUTURES"

    def _precision(self, row: dict) -> Precision:
        return Precision(_power(row, "pricePlace") * fields.number(row, "priceEndStep"),
                         fields.quantity(row, "sizeMultiplier") if "sizeMultiplier" in row
                         else _power(row, "volumePlace"))


def _number(row: dict, name: str) -> int:
    """A number of a change, written as text or not; 0 where there is none."""
    value = row.get(name, 0)
    return fields.number(row, name) if isinstance(value, str) else fields.integer({name: value}, name)


def _trade(symbol: int, row: Any) -> Trade:
    """[time, price, size, side] of v1, or the object of v2."""
    if isinstance(row, list) and len(row) == 4:
        row = dict(zip(("ts", "price", "size", "side"), row), tradeId="0")
    if not isinstance(row, dict):
        raise VenueError("a trade is neither an object nor [time, price, size, side]",
                         where=f"data={fields.shown(row)}")
    return Trade(symbol, fields.number(row, "tradeId"), time_ns(row, "ts"), fields.price(row, "price"),
                 signed(fields.quantity(row, "size"), fields.text(row, "side")))


def _power(row: dict, name: str) -> int:
    """The increment, in 1e-8, of a number with so many decimals."""
    places = fields.number(row, name)
    if places > fixed.DECIMALS:
        raise VenueError(f"more than {fixed.DECIMALS} decimals", where=f"{name}={places}")
    return 10 ** (fixed.DECIMALS - places)
