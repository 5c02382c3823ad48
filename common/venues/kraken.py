"""Kraken spot: the first protocol (wss://ws.kraken.com) and the second (wss://ws.kraken.com/v2).

    kraken-v1   [channel id, {"bs": [...], "as": [...]}, "book-1000", "XBT/USD"]    a snapshot
                [channel id, {"b": [...]}, {"a": [...], "c": "..."}, ...]           an update, in one part or in two
                decimals are strings; a level is [price, quantity, seconds], and "r" behind it where it is told again
    kraken      {"channel": "book", "type": "snapshot" or "update", "data": [{"symbol": "BTC/USD", ...}]}
                decimals are JSON numbers; a level is {"price", "qty"}

Nothing is numbered. Instead each update carries the CRC-32 of the ten best asks and then bids, as the digits of price
and quantity without point and leading zeros; so it depends on how many decimals the venue writes. Both protocols
write the same number of them for all levels of a pair: it is learned from the snapshot, and never lowered by an
update. The second protocol tells it as well, in the channel `instrument`; what that says goes first.

The venue keeps the subscribed number of levels up to date and says nothing of those that fall behind them: the book is
cut to it after each change. Prices with more than 8 decimals (some pairs of tiny unit price) are refused.
"""

import zlib
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Sequence

import orjson

from common import fixed
from common.errors import VenueError
from common.events import JOINS, Delta, Event, Heartbeat, HttpRequest, Notice, Precision, Snapshot, Trade
from common.venues import fields
from common.venues.base import Base

BOOK, TRADE, INSTRUMENT, STATUS, HEARTBEAT = "book", "trade", "instrument", "status", "heartbeat"  #: channels

_DECIMALS_MAX = 40  # of a pair: more than any number that is read can have
_SIDES = {"b": 1, "s": -1, "buy": 1, "sell": -1}


class _Kraken(Base):
    """What both protocols share."""

    ws_url, rest_url = "wss://ws.kraken.com", "https://api.kraken.com"
    silence_s = 10.0  # a heartbeat comes every second that is quiet
    sends_per_s = 5.0  # the venue has a limit and does not tell it
    depth = 1000
    checksum_depth = 10

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        self.begin()

    def begin(self) -> None:
        self._told: dict[int, tuple[int, int]] = {}  # decimals of price and quantity, as the venue states them
        self._seen: dict[int, tuple[int, int]] = {}  # the same, as they are in its frames

    def follows(self, last_id: int, delta: Delta) -> int:
        """Nothing is numbered: what is missing shows in the checksum."""
        return JOINS

    def checksum(self, symbol: int, bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> int:
        price_scale, quantity_scale = (10**decimals for decimals in self._decimals(symbol))
        return zlib.crc32("".join([
            f"{price * price_scale // fixed.SCALE}{quantity * quantity_scale // fixed.SCALE}"
            for side in (asks, bids) for price, quantity in side]).encode())

    def precision_request(self) -> HttpRequest | None:
        return HttpRequest("GET", "/0/public/AssetPairs")

    def decode_precision(self, body: bytes) -> dict[str, Precision]:
        return fields.decode(body, self._precisions)

    def _precisions(self, data: dict) -> dict[str, Precision]:
        if fields.array(data, "error"):
            raise VenueError("the venue does not tell its pairs", where=f"error={fields.shown(data['error'])}")
        pairs, found = fields.obj(data, "result"), {}
        for name in pairs:
            pair = fields.obj(pairs, name)
            name = pair.get("wsname")  # pairs off the public book have none
            symbol = self._symbol_of(name) if isinstance(name, str) else None
            if symbol in self._index:
                tick = (fields.price(pair, "tick_size") if "tick_size" in pair
                        else _increment(pair, "pair_decimals", symbol))
                found[symbol] = Precision(tick, _increment(pair, "lot_decimals", symbol))
        return found

    def _symbol_of(self, name: str) -> str:
        """What the protocol calls the pair that the list of pairs calls `name`."""
        return name

    def _decimals(self, symbol: int) -> tuple[int, int]:
        """Of prices and quantities of a pair; where nothing is known, all that we can hold."""
        return self._told.get(symbol) or self._seen.get(symbol, (fixed.DECIMALS, fixed.DECIMALS))

    def _learn(self, symbol: int, decimals: tuple[int, int], whole: bool) -> None:
        """From a `whole` book, or from a change: that may be without trailing zeros, since 0 has none to keep."""
        known = (0, 0) if whole else self._seen.get(symbol, (0, 0))
        self._seen[symbol] = max(known[0], decimals[0]), max(known[1], decimals[1])

    def _written(self, snapshot: Snapshot) -> list[tuple[str, str]]:
        """All levels with as many decimals as the venue writes."""
        price_decimals, quantity_decimals = self._decimals(snapshot.symbol)
        return [(_text(price, price_decimals), _text(quantity, quantity_decimals))
                for price, quantity in snapshot.levels[:snapshot.n_bids + snapshot.n_asks].tolist()]


class KrakenV1(_Kraken):
    """The first protocol: pairs as XBT/USD."""

    name = "kraken-v1"
    _book = f"{BOOK}-{_Kraken.depth}"  # the channel as it is called in frames

    def subscriptions(self) -> list[bytes]:
        return [self._request("subscribe", self.symbols, {"name": BOOK, "depth": self.depth}),
                self._request("subscribe", self.symbols, {"name": TRADE})]

    def resync(self, symbol: int) -> list[bytes]:
        return [self._request(event, self.symbols[symbol:symbol + 1], {"name": BOOK, "depth": self.depth})
                for event in ("unsubscribe", "subscribe")]

    def heartbeat(self) -> Heartbeat | None:
        return Heartbeat(self.silence_s / 2, b'{"event":"ping"}')

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        return fields.decode(frame, self._read, (dict, list))

    def answer(self, frame: bytes) -> list[bytes]:
        data = orjson.loads(frame)
        if data["event"] == "ping":
            return [orjson.dumps(data | {"event": "pong"})]
        asked = data["subscription"]
        channel = self._book if asked["name"] == BOOK else asked["name"]
        return [orjson.dumps({"channelName": channel, "event": "subscriptionStatus", "pair": pair,
                              "status": f"{data['event']}d", "subscription": asked}) for pair in data["pair"]]

    def subscribed(self, frame: bytes) -> list[int]:
        data = orjson.loads(frame)
        if data["event"] != "subscribe" or data["subscription"]["name"] != BOOK:
            return []
        return [self._index[pair] for pair in data["pair"] if pair in self._index]

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        seconds, ns = divmod(snapshot.event_ns, 10**9)
        rows = [(price, quantity, f"{seconds}.{ns // 1000:06d}") for price, quantity in self._written(snapshot)]
        return orjson.dumps([0, {"as": rows[snapshot.n_bids:], "bs": rows[:snapshot.n_bids]}, self._book,
                             self.symbols[snapshot.symbol]])

    @staticmethod
    def _request(event: str, pairs: Sequence[str], subscription: dict) -> bytes:
        return orjson.dumps({"event": event, "pair": pairs, "subscription": subscription})

    def _read(self, data: dict | list) -> Sequence[Event]:
        if isinstance(data, dict):
            return (self._notice(data),)
        if len(data) < 4:
            raise VenueError("a frame is not [channel id, content, channel, pair]", where=f"frame={fields.shown(data)}")
        names = {"channel": data[-2], "pair": data[-1]}
        channel, pair = fields.text(names, "channel"), fields.text(names, "pair")
        if pair not in self._index or channel not in (self._book, TRADE):
            return (Notice("info", f"not asked for: {fields.shown(channel)} of {fields.shown(pair)}"),)
        symbol = self._index[pair]
        if channel == TRADE:
            return [_old_trade(trade, symbol) for trade in fields.array({TRADE: data[1]}, TRADE)]
        return (self._change(_united(data[1:-2]), symbol),)

    def _change(self, book: dict, symbol: int) -> Event:
        whole = "as" in book or "bs" in book
        names = ("bs", "as") if whole else ("b", "a")
        if not whole:
            book = {"b": [], "a": [], **book}
        levels, counts = fields.levels(book, *names, longest=4)
        rows = [row for name in names for row in book[name]]
        if any(len(row) < 3 for row in rows):
            raise VenueError("a level has no time", where=fields.shown(min(rows, key=len)))
        event_ns = _newest([row[2] for row in rows])
        checksum = None if whole else fields.number(book, "c")
        self._learn(symbol, _decimals_in([row[:2] for row in rows]), whole)
        if whole:
            return Snapshot(symbol, 0, event_ns, levels, *counts)
        return Delta(symbol, 0, 0, 0, event_ns, levels, *counts, checksum)

    @staticmethod
    def _notice(data: dict) -> Notice:
        if "Error" in data:
            return Notice("error", fields.text(data, "Error"))
        event = fields.text(data, "event")
        if event in ("heartbeat", "pong"):
            return Notice("info", event)
        if event == "error":
            return Notice("error", fields.text(data, "errorMessage"))
        status = fields.text(data, "status") if event in ("systemStatus", "subscriptionStatus") else ""
        if event == "systemStatus":
            return _status(status, "the venue")
        if status == "error":
            return Notice("error", f"{fields.text(data, 'errorMessage')}: {fields.shown(data.get('pair'))}")
        if status:
            return Notice("info", f"{status}: {fields.shown(data.get('channelName'))} of "
                                  f"{fields.shown(data.get('pair'))}")
        raise VenueError("unknown event", where=f"event={fields.shown(event)}")


class Kraken(_Kraken):
    """The second protocol: pairs as BTC/USD."""

    name = "kraken"

    def path(self) -> str:
        return "/v2"

    def subscriptions(self) -> list[bytes]:
        return [self._request("subscribe", {"channel": INSTRUMENT, "snapshot": True}),
                self._request("subscribe", self._of_books(self.symbols)),
                self._request("subscribe", {"channel": TRADE, "symbol": self.symbols, "snapshot": False})]

    def resync(self, symbol: int) -> list[bytes]:
        return [self._request(method, self._of_books(self.symbols[symbol:symbol + 1]))
                for method in ("unsubscribe", "subscribe")]

    def heartbeat(self) -> Heartbeat | None:
        return Heartbeat(self.silence_s / 2, b'{"method":"ping"}')

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        return fields.decode(frame, self._read)

    def answer(self, frame: bytes) -> list[bytes]:
        data = orjson.loads(frame)
        if data["method"] == "ping":
            return [orjson.dumps(data | {"method": "pong"})]
        asked = data["params"]
        each = [asked | {"symbol": symbol} for symbol in asked["symbol"]] if "symbol" in asked else [asked]
        answers = [{"method": data["method"], "result": result, "success": True} for result in each]
        if asked["channel"] == INSTRUMENT:
            answers.append({"channel": INSTRUMENT, "type": "snapshot", "data": {"assets": [], "pairs": [
                {"symbol": self.symbols[symbol], "status": "online", "price_precision": price,
                 "qty_precision": quantity}
                for symbol, (price, quantity) in self._told.items()]}})
        return [orjson.dumps(answer) for answer in answers]

    def subscribed(self, frame: bytes) -> list[int]:
        data = orjson.loads(frame)
        if data["method"] != "subscribe" or data["params"]["channel"] != BOOK:
            return []
        return [self._index[symbol] for symbol in data["params"]["symbol"] if symbol in self._index]

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        symbol, n_bids = snapshot.symbol, snapshot.n_bids
        rows = [{"price": orjson.Fragment(price), "qty": orjson.Fragment(quantity)}
                for price, quantity in self._written(snapshot)]
        pairs = snapshot.levels[:len(rows)].tolist()
        top = self.checksum_depth
        book = {"symbol": self.symbols[symbol], "bids": rows[:n_bids], "asks": rows[n_bids:],
                "checksum": self.checksum(symbol, pairs[:n_bids][:top], pairs[n_bids:][:top])}
        if snapshot.event_ns:
            seconds, ns = divmod(snapshot.event_ns, 10**9)
            time = datetime.fromtimestamp(seconds, timezone.utc)
            book["timestamp"] = f"{time:%Y-%m-%dT%H:%M:%S}.{ns // 1000:06d}Z"
        return orjson.dumps({"channel": BOOK, "type": "snapshot", "data": [book]})

    def _symbol_of(self, name: str) -> str:
        return "/".join({"XBT": "BTC", "XDG": "DOGE"}.get(asset, asset) for asset in name.split("/"))

    @staticmethod
    def _request(method: str, params: dict) -> bytes:
        return orjson.dumps({"method": method, "params": params})

    def _of_books(self, symbols: Sequence[str]) -> dict:
        return {"channel": BOOK, "symbol": symbols, "depth": self.depth, "snapshot": True}

    def _read(self, data: dict) -> Sequence[Event]:
        if "channel" not in data:
            return (self._answered(data),)
        channel = fields.text(data, "channel")
        if channel == HEARTBEAT:
            return (Notice("info", channel),)
        readers = {BOOK: self._books, TRADE: self._trades, INSTRUMENT: self._instruments, STATUS: self._statuses}
        if channel not in readers:
            return (Notice("info", f"not asked for: channel={fields.shown(channel)}"),)
        kind = fields.text(data, "type")
        if kind not in ("snapshot", "update"):
            raise VenueError("unknown type of message", where=f"type={fields.shown(kind)}")
        return readers[channel](data, kind == "snapshot")

    @staticmethod
    def _answered(data: dict) -> Notice:
        """To a request of ours, or a refusal."""
        for name in ("error", "Error"):
            if name in data:
                asked = data.get("symbol", data.get("method", "request"))
                return Notice("error", f"{fields.text(data, name)}: {fields.shown(asked)}")
        method = fields.text(data, "method")
        if method == "pong":
            return Notice("info", method)
        if method not in ("subscribe", "unsubscribe"):
            raise VenueError("unknown method", where=f"method={fields.shown(method)}")
        done, result = fields.flag(data, "success"), fields.obj(data, "result") if "result" in data else {}
        about = " ".join(fields.shown(result[name]) for name in ("channel", "symbol") if name in result)
        return Notice("info" if done else "error", f"{method}: {about}")

    def _books(self, data: dict, whole: bool) -> Sequence[Event]:
        events, learned = [], []
        for book in fields.objects(data, "data"):
            name = fields.text(book, "symbol")
            if name not in self._index:
                events.append(_not_asked_for(name))
                continue
            symbol = self._index[name]
            rows, counts = named_levels(book)
            levels = fields.stacked([fields.pair(price, quantity, BOOK) for price, quantity in rows])
            event_ns = fields.time_iso(book, "timestamp") if "timestamp" in book else 0
            checksum = fields.integer(book, "checksum")
            events.append(Snapshot(symbol, 0, event_ns, levels, *counts, checksum) if whole
                          else Delta(symbol, 0, 0, 0, event_ns, levels, *counts, checksum))
            learned.append((symbol, _decimals_in(rows)))
        for symbol, decimals in learned:
            self._learn(symbol, decimals, whole)
        return events

    def _trades(self, data: dict, past: bool) -> Sequence[Event]:
        if past:
            return (Notice("info", "not asked for: trades of the past"),)
        return [self._trade(trade) for trade in fields.objects(data, "data")]

    def _trade(self, data: dict) -> Event:
        name = fields.text(data, "symbol")
        if name not in self._index:
            return _not_asked_for(name)
        price, quantity = fields.pair(fields.field(data, "price"), fields.field(data, "qty"), TRADE)
        return Trade(self._index[name], fields.integer(data, "trade_id"), fields.time_iso(data, "timestamp"), price,
                     quantity * _sign(fields.text(data, "side")))

    def _instruments(self, data: dict, _: bool) -> Sequence[Event]:
        """A pair that is not traded as usual is an error to tell of: its book may stand still."""
        content, told = fields.obj(data, "data"), {}
        notices = []
        for pair in fields.objects(content, "pairs") if "pairs" in content else ():
            name = fields.text(pair, "symbol")
            if name in self._index:
                told[self._index[name]] = _told(pair, "price_precision"), _told(pair, "qty_precision")
                notices.append(_status(fields.text(pair, "status"), name))
        self._told |= told
        return notices or (Notice("info", "not asked for: other pairs"),)

    @staticmethod
    def _statuses(data: dict, _: bool) -> Sequence[Event]:
        return [_status(fields.text(status, "system"), "the venue") for status in fields.objects(data, "data")]


def named_levels(data: dict) -> tuple[list[tuple[Any, Any]], list[int]]:
    """The levels of "bids" and then "asks", each an object with "price" and "qty", as (price, quantity) just as they
    are in the frame; and the length of each side."""
    sides = [fields.objects(data, name) for name in ("bids", "asks")]
    rows = [(fields.field(level, "price"), fields.field(level, "qty")) for side in sides for level in side]
    return rows, [len(side) for side in sides]


def _united(parts: list) -> dict:
    """The parts of one change as one."""
    book: dict = {}
    for part in parts:
        if not isinstance(part, dict) or book.keys() & part.keys():
            raise VenueError("a change is not in parts that add up", where=f"content={fields.shown(parts)}")
        book |= part
    return book


def _old_trade(trade: Any, symbol: int) -> Trade:
    """[price, quantity, seconds, side of the aggressor, ...]; trades have no numbers."""
    if not isinstance(trade, list) or len(trade) < 4:
        raise VenueError("a trade is not [price, quantity, time, side, ...]", where=f"trade={fields.shown(trade)}")
    price, quantity = fields.pair(trade[0], trade[1], TRADE)
    return Trade(symbol, 0, fields.seconds_ns(trade[2], "trade.time"), price,
                 quantity * _sign(fields.text({"side": trade[3]}, "side")))


def _sign(side: str) -> int:
    if side not in _SIDES:
        raise VenueError("unknown side", where=f"side={fields.shown(side)}")
    return _SIDES[side]


def _status(status: str, whose: str) -> Notice:
    return Notice("info" if status == "online" else "error", f"{whose} is {fields.shown(status)}")


def _not_asked_for(name: str) -> Notice:
    return Notice("info", f"not asked for: symbol={fields.shown(name)}")


def _told(pair: dict, name: str) -> int:
    decimals = fields.integer(pair, name)
    if decimals > _DECIMALS_MAX:
        raise VenueError("a number of decimals is out of range", where=f"{name}={decimals}")
    return decimals


def _increment(pair: dict, name: str, symbol: str) -> int:
    return fixed.parse(f"1e-{fields.integer(pair, name)}", f"{symbol}.{name}")


def _decimals_in(rows: list) -> tuple[int, int]:
    """The most decimals that a price, and that a quantity has; `rows` are known to hold numbers."""
    prices, quantities = zip(*rows) if rows else ((), ())
    return max(map(_places, prices), default=0), max(map(_places, quantities), default=0)


def _places(value: Any) -> int:
    text = str(value)
    if "e" in text.lower():
        return max(0, -Decimal(text).as_tuple().exponent)
    return len(text.partition(".")[2])


def _newest(times: list[Any]) -> int:
    """The last of the Unix seconds, in ns; 0 if there are none. Texts of one length stand in the order of their
    numbers, so that only one is read of the thousand levels of a snapshot."""
    if len({len(time) if isinstance(time, str) else 0 for time in times}) == 1:
        times = [max(times, key=str)]
    return max((fields.seconds_ns(time, "time of a level") for time in times), default=0)


def _text(value: int, decimals: int) -> str:
    """With at least so many decimals; none of the value's own is left out."""
    whole, part = divmod(value, fixed.SCALE)
    digits = f"{part:0{fixed.DECIMALS}d}".rstrip("0").ljust(decimals, "0")
    return f"{whole}.{digits}" if digits else str(whole)
