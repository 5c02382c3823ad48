"""Deribit: JSON-RPC 2.0, snapshots in band, changes that name the one before.

Requests are answered under their id; everything else is a notification. Decimals are JSON numbers, times Unix
milliseconds:

    book.SYMBOL.100ms     snapshot, then change; a level is ["new" | "change" | "delete", price, amount];
                          prev_change_id of a change is change_id of the one before, or of the snapshot
    trades.SYMBOL.100ms   direction is that of the aggressor; block trades are agreed on elsewhere and make no Trade
    heartbeat             a test_request must be answered by public/test, or the venue ends the connection

Channels that end in "raw" bring every change at once, but only to clients that have logged in: they are read as well,
since recordings have them, and not asked for. Amounts of inverse futures are in USD, all others in the base currency.
"""

from typing import Any, Sequence

import orjson

from common import fixed
from common.errors import VenueError
from common.events import GAP, JOINS, OLDER, Delta, Event, HttpRequest, Notice, Precision, Reply, Snapshot, Trade
from common.venues import fields
from common.venues.base import Base

BOOK, TRADES = "book", "trades"  #: channels
INTERVAL = "100ms"
_INTERVALS = (INTERVAL, "raw", "agg2")  # those of whole books; others are of a few levels, grouped

_HEARTBEAT_S = 10  # the venue takes no less

# Ids of requests. The last two are of symbol 0, the next two of symbol 1, and so on.
_BEAT, _TEST, _ALL, _LEAVE, _JOIN = range(1, 6)


class Deribit(Base):
    name = "deribit"
    ws_url, rest_url = "wss://www.deribit.com", "https://www.deribit.com"
    silence_s = 2.0 * _HEARTBEAT_S
    max_symbols = 500 // 2  # channels of one request; a bound of ours, the venue names none
    sends_per_s = 3.0  # subscriptions: 3,000 credits each, of which 10,000 come back in a second

    def path(self) -> str:
        return "/ws/api/v2"

    def subscriptions(self) -> list[bytes]:
        return [_request(_BEAT, "set_heartbeat", interval=_HEARTBEAT_S),
                _request(_ALL, "subscribe", channels=self._asked(_ALL))]

    def resync(self, symbol: int) -> list[bytes]:
        channels = [_channel(BOOK, self.symbols[symbol])]
        return [_request(_LEAVE + 2 * symbol, "unsubscribe", channels=channels),
                _request(_JOIN + 2 * symbol, "subscribe", channels=channels)]

    def follows(self, last_id: int, delta: Delta) -> int:
        if delta.prev_id == last_id:
            return JOINS
        return OLDER if delta.last_id <= last_id else GAP

    def precision_request(self) -> HttpRequest | None:
        return HttpRequest("GET", "/api/v2/public/get_instruments?currency=any&expired=false")

    def decode_precision(self, body: bytes) -> dict[str, Precision]:
        return fields.decode(body, self._increments)

    def answer(self, frame: bytes) -> list[bytes]:
        data = orjson.loads(frame)
        results = {"public/set_heartbeat": "ok", "public/test": {"version": "1"}}
        result = results.get(data["method"], data["params"].get("channels"))
        return [orjson.dumps({"jsonrpc": "2.0", "id": data["id"], "result": result})]

    def subscribed(self, frame: bytes) -> list[int]:
        data = orjson.loads(frame)
        if data["method"] != "public/subscribe":
            return []
        return [self._index[symbol] for kind, symbol, _ in map(_parts, data["params"]["channels"]) if kind == BOOK]

    def encode_snapshot(self, snapshot: Snapshot) -> bytes:
        rows = [["new", *map(_bare, row)] for row in snapshot.levels.tolist()]
        symbol, bids = self.symbols[snapshot.symbol], snapshot.n_bids
        return orjson.dumps({"jsonrpc": "2.0", "method": "subscription", "params": {
            "channel": _channel(BOOK, symbol), "data": {
                "type": "snapshot", "timestamp": snapshot.event_ns // fields.MS, "instrument_name": symbol,
                "change_id": snapshot.last_id, "bids": rows[:bids], "asks": rows[bids:bids + snapshot.n_asks]}}})

    def decode(self, frame: bytes | bytearray) -> Sequence[Event]:
        return fields.decode(frame, self._read)

    def _read(self, data: dict) -> Sequence[Event]:
        if "method" not in data:
            return (self._answered(data),)
        method, params = fields.text(data, "method"), fields.obj(data, "params")
        if method == "heartbeat":
            kind = fields.text(params, "type")
            return (Reply(_request(_TEST, "test")) if kind == "test_request" else Notice("info", "heartbeat"),)
        if method != "subscription":
            return (Notice("info", f"not asked for: method={fields.shown(method)}"),)
        channel = fields.text(params, "channel")
        kind, symbol, interval = _parts(channel)
        if kind not in (BOOK, TRADES) or interval not in _INTERVALS or symbol not in self._index:
            return (Notice("info", f"not asked for: channel={fields.shown(channel)}"),)
        if kind == BOOK:
            return (_book(fields.obj(params, "data"), self._index[symbol]),)
        return [_trade(trade, self._index[symbol]) for trade in fields.objects(params, "data")]

    def _answered(self, data: dict) -> Notice:
        """To a request. Channels that the venue does not know are left out of its answer, and nothing else is said."""
        number = data.get("id")
        if "error" in data:
            error = fields.obj(data, "error")
            return Notice("error", f"id={fields.shown(number)}, code={fields.shown(error.get('code'))}, "
                                   f"message={fields.shown(error.get('message'))}, "
                                   f"data={fields.shown(error.get('data'))}")
        result, asked = fields.field(data, "result"), self._asked(number)
        if asked:
            given = fields.array(data, "result")
            missing = [channel for channel in asked if channel not in given]
            if missing:
                return Notice("error", f"no such channel: {fields.shown(missing)}")
        return Notice("info", f"id={fields.shown(number)}, result={fields.shown(result)}")

    def _asked(self, number: Any) -> list[str]:
        """The channels that the request with this id subscribed to."""
        if type(number) is not int:
            return []
        if number == _ALL:
            return [_channel(kind, symbol) for symbol in self.symbols for kind in (BOOK, TRADES)]
        symbol, other = divmod(number - _JOIN, 2)
        return [] if other or not 0 <= symbol < len(self.symbols) else [_channel(BOOK, self.symbols[symbol])]

    def _increments(self, data: dict) -> Any:
        """The finest, where an instrument's tick grows with its price."""
        found = {}
        for item in fields.objects(data, "result"):
            name = fields.text(item, "instrument_name")
            if name in self._index:
                ticks = [item, *(fields.objects(item, "tick_size_steps") if "tick_size_steps" in item else ())]
                found[name] = Precision(min(fields.quantity(tick, "tick_size") for tick in ticks),
                                        fields.quantity(item, "min_trade_amount"))
        return found


def _request(number: int, method: str, **params: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": number, "method": f"public/{method}", "params": params})


def _channel(kind: str, symbol: str) -> str:
    return f"{kind}.{symbol}.{INTERVAL}"


def _parts(channel: str) -> tuple[str, str, str]:
    """(kind, symbol, the rest); no symbol has a dot."""
    kind, _, rest = channel.partition(".")
    symbol, _, interval = rest.partition(".")
    return kind, symbol, interval


def _book(data: dict, symbol: int) -> Event:
    kind, number = fields.text(data, "type"), fields.integer(data, "change_id")
    time_ns, bids, asks = fields.time_ns(data, "timestamp"), _side(data, "bids"), _side(data, "asks")
    levels = fields.stacked(bids + asks)
    if kind == "snapshot":
        return Snapshot(symbol, number, time_ns, levels, len(bids), len(asks))
    if kind == "change":
        return Delta(symbol, number, number, fields.integer(data, "prev_change_id"), time_ns, levels, len(bids),
                     len(asks))
    raise VenueError("unknown type of book message", where=f"type={fields.shown(kind)}")


def _side(data: dict, name: str) -> list[tuple[int, int]]:
    found = []
    for level in fields.array(data, name):
        if not isinstance(level, list) or len(level) != 3 or level[0] not in ("new", "change", "delete"):
            raise VenueError("a level is not [new, change or delete, price, amount]",
                             where=f"{name}: {fields.shown(level)}")
        action, price, amount = level
        found.append(fields.pair(price, 0 if action == "delete" else amount, name))
    return found


def _trade(data: dict, symbol: int) -> Event:
    if "block_trade_id" in data:
        return Notice("info", f"not of the book: block_trade_id={fields.shown(data['block_trade_id'])}")
    side, amount = fields.text(data, "direction"), fields.quantity(data, "amount")
    if side not in ("buy", "sell"):
        raise VenueError("unknown direction", where=f"direction={fields.shown(side)}")
    return Trade(symbol, _trade_id(fields.text(data, "trade_id")), fields.time_ns(data, "timestamp"),
                 fields.price(data, "price"), amount if side == "buy" else -amount)


def _trade_id(text: str) -> int:
    """The number of "48079269", or of "ETH-34066065": those of most currencies carry its name; else 0."""
    digits = text.rpartition("-")[2]
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 19 else 0
    return number if number <= fixed.MAX else 0


def _bare(value: int) -> orjson.Fragment:
    """A decimal as a JSON number, exactly."""
    return orjson.Fragment(fixed.text(value))
