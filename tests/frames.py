"""Frames of the VecTrade protocol and of Binance usd-m futures, as short as a test can say them."""

import orjson


def _channel(kind: str, symbol: str, **rest) -> bytes:
    return orjson.dumps({"channel": f"{kind}:{symbol}", **rest})


def _levels(side) -> list[list[str]]:
    return [[str(price), str(quantity)] for price, quantity in side]


def snapshot(symbol: str, sequence: int, bids=((99, 1),), asks=((101, 1),)) -> bytes:
    return _channel("orderbook", symbol, type="snapshot", sequence=sequence, timestamp=1000 + sequence,
                    bids=_levels(bids), asks=_levels(asks))


def delta(symbol: str, sequence: int, bids=(), asks=()) -> bytes:
    return _channel("orderbook", symbol, type="delta", sequence=sequence, timestamp=1000 + sequence,
                    bids=_levels(bids), asks=_levels(asks))


def trade(symbol: str, number: int, price=100, quantity=1, side: str = "BUY") -> bytes:
    return _channel("trades", symbol, type="trade", id=number, timestamp=2000 + number, price=str(price),
                    quantity=str(quantity), side=side)


def ticker(symbol: str, sequence: int, bid=99, bid_size=1, ask=101, ask_size=1) -> bytes:
    return _channel("ticker", symbol, type="ticker", sequence=sequence, timestamp=1000 + sequence, bid=str(bid),
                    bid_size=str(bid_size), ask=str(ask), ask_size=str(ask_size), last="100")


def depth(symbol: str, first: int, last: int, before: int, bids=(), asks=()) -> bytes:
    """A delta of usd-m futures."""
    return orjson.dumps({"stream": f"{symbol.lower()}@depth@0ms", "data": {
        "e": "depthUpdate", "E": 1001, "T": 1000, "s": symbol, "U": first, "u": last, "pu": before,
        "b": _levels(bids), "a": _levels(asks)}})


def rest(last: int, bids=((99, 1),), asks=((101, 1),)) -> bytes:
    """A snapshot of usd-m futures."""
    return orjson.dumps({"lastUpdateId": last, "E": 901, "T": 900, "bids": _levels(bids), "asks": _levels(asks)})
