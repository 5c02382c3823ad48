"""Deribit: frames as it writes them, with numbers of our own; and the words they are made of."""

from pathlib import Path

import orjson

from tests.common.venues.samples import Sample

SYMBOL = "BTC-PERPETUAL"


def notification(channel: str, data: dict | list) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}})


def book(kind: str, number: int, before: int = 0, bids=(), asks=(), symbol: str = SYMBOL, interval: str = "100ms",
         ) -> bytes:
    """Levels: (action, price, amount), numbers."""
    return notification(f"book.{symbol}.{interval}", {
        "type": kind, "timestamp": 1_700_000_000_123, "instrument_name": symbol, "change_id": number,
        **({"prev_change_id": before} if before else {}), "bids": bids, "asks": asks})


def trade(number: str, price: float, amount: float, direction: str, **more) -> dict:
    return {"trade_seq": 5, "trade_id": number, "timestamp": 1_700_000_000_456, "tick_direction": 0, "price": price,
            "mark_price": 50000.17, "instrument_name": SYMBOL, "index_price": 50001.2, "direction": direction,
            "amount": amount, **more}


def trades(*found: dict, symbol: str = SYMBOL, interval: str = "100ms") -> bytes:
    return notification(f"trades.{symbol}.{interval}", found)


def heartbeat(kind: str) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": kind}})


def answer(number: int | str, result) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": number, "result": result, "usIn": 1_700_000_000_123_000,
                         "usOut": 1_700_000_000_123_500, "usDiff": 500, "testnet": False})


def spoken(folder: Path) -> Sample:
    return Sample(("ETH-PERPETUAL", SYMBOL), [
        answer(1, "ok"),
        answer(3, [f"{kind}.{symbol}.100ms" for symbol in ("ETH-PERPETUAL", SYMBOL) for kind in ("trades", "book")]),
        book("snapshot", 900, bids=[("new", 50000.0, 10.0), ("new", 49999.5, 2500.0)],
             asks=[("new", 50000.5, 40.0), ("new", 50002.0, 0.1)]),
        book("change", 905, 900, bids=[("change", 50000.0, 20.0)]),
        heartbeat("heartbeat"),
        book("change", 911, 905, asks=[("delete", 50000.5, 0.0), ("new", 50001, 3)]),
        trades(trade("48079269", 50001.0, 30.0, "buy"), trade("BTC-48079270", 50000.0, 10.0, "sell")),
        heartbeat("test_request"),
        book("change", 912, 911, bids=[("new", 49998.5, 123456.7)], asks=[("change", 50001.0, 1e-05)]),
        book("change", 920, 912, bids=[("delete", 50000.0, 0.0)]),
        book("change", 933, 920, bids=[("new", 50000.5, 50.0)])])


SAMPLES = {"deribit": spoken}
