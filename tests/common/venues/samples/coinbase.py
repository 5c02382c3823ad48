"""Coinbase: frames as it writes them, with numbers of our own; and the words they are made of."""

from pathlib import Path

import orjson

from tests.common.venues.samples import Sample

SYMBOL = "BTC-USD"


def message(channel: str, number: int, *events: dict) -> bytes:
    return orjson.dumps({"channel": channel, "timestamp": "2026-01-02T03:04:05.123456789Z", "sequence_num": number,
                         "events": events})


def change(*levels: tuple[str, str, str], symbol: str = SYMBOL, kind: str = "update") -> dict:
    """Of one book: (side, price, quantity)."""
    return {"type": kind, "product_id": symbol, "updates": [
        {"side": side, "event_time": "2026-01-02T03:04:05.1Z", "price_level": price, "new_quantity": quantity}
        for side, price, quantity in levels]}


def book(number: int, *levels: tuple[str, str, str], **kwargs) -> bytes:
    return message("l2_data", number, change(*levels, **kwargs))


def trade(number: int, price: str, size: str, side: str, symbol: str = SYMBOL) -> dict:
    return {"product_id": symbol, "trade_id": str(number), "price": price, "size": size,
            "time": "2026-01-02T03:04:05.25Z", "side": side}


def trades(number: int, *found: dict, kind: str = "update") -> bytes:
    return message("market_trades", number, {"type": kind, "trades": found})


def heartbeat(number: int) -> bytes:
    return message("heartbeats", number, {"current_time": "2026-01-02 03:04:05.1 +0000 UTC m=+7.5",
                                          "heartbeat_counter": 7})


def spoken(folder: Path) -> Sample:
    return Sample(("ETH-USD", SYMBOL), [
        trades(0, trade(70, "100", "1", "BUY"), kind="snapshot"),
        message("subscriptions", 1, {"subscriptions": {"market_trades": ["ETH-USD", SYMBOL]}}),
        book(2, ("bid", "100", "1.5"), ("bid", "99.99", "2"), ("offer", "100.01", "0.25"), ("offer", "100.03", "7"),
             kind="snapshot"),
        heartbeat(3),
        book(4, ("bid", "100", "0"), ("offer", "100.01", "0.5")),
        book(5, ("bid", "99.98", "0.00000001")),
        trades(6, trade(72, "100.01", "0.1", "SELL"), trade(71, "99.99", "0.2", "BUY")),
        book(7, ("offer", "100.02", "12345.5")),
        book(8, ("offer", "100.01", "0"), ("offer", "100.03", "0")),
        book(9, ("bid", "100.01", "3")),
        heartbeat(10)])


SAMPLES = {"coinbase": spoken}
