"""Bybit: frames as its documentation and its connections of today have them, keys in their order, numbers made up."""

from pathlib import Path

import orjson

from tests.common.venues.samples import Sample

MS = 1_760_000_000_000
UUID = "0c9d1a2b-1111-5222-8333-abcdefabcdef"


def _book(spot: bool, kind: str, number: int, bids, asks) -> bytes:
    head = {"ts": MS + number, "type": kind} if spot else {"type": kind, "ts": MS + number}
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": number, "seq": 7_000_000 + 31 * number}
    return orjson.dumps({"topic": "orderbook.200.BTCUSDT", **head, "data": data, "cts": MS + number - 3})


def _trade(spot: bool, number: int, side: str, price: str, quantity: str) -> bytes:
    if spot:
        head = {"ts": MS + 5, "type": "snapshot"}
        item = {"i": str(22 * 10**17 + number), "T": MS + number, "p": price, "v": quantity, "S": side,
                "seq": 7_000_100 + number, "s": "BTCUSDT", "BT": False, "RPI": number % 2 == 1}
    else:
        head = {"type": "snapshot", "ts": MS + 5}
        item = {"T": MS + number, "s": "BTCUSDT", "S": side, "v": quantity, "p": price, "L": "PlusTick", "i": UUID,
                "BT": False, "RPI": number % 2 == 1, "seq": 7_000_100 + number}
    return orjson.dumps({"topic": "publicTrade.BTCUSDT", **head, "data": [item]})


def _spoken(spot: bool):
    def speak(folder: Path) -> Sample:
        return Sample(("OTHER", "BTCUSDT"), [
            _book(spot, "snapshot", 900, [["61000.1", "0.5"], ["61000", "1.25"], ["60998.5", "3"]],
                  [["61000.2", "0.75"], ["61001", "2"]]),
            _book(spot, "delta", 901, [["61000.1", "0.4"]], []),
            _trade(spot, 1, "Sell", "61000.1", "0.1"),
            _book(spot, "delta", 902, [], [["61000.2", "0"], ["61000.5", "0.333333"]]),
            _book(spot, "delta", 903, [["61000.3", "1"], ["60998.5", "0"]], [["61001", "2.5"]]),
            _trade(spot, 2, "Buy", "61000.5", "0.333"),
            _book(spot, "delta", 904, [], []),
            _book(spot, "delta", 905, [["61000.3", "0"]], [["61000.5", "0.000333"]]),
            _book(spot, "delta", 906, [["61000.2", "0.9"]], [["61002.5", "7"]]),
            _book(spot, "delta", 907, [["61000.2", "0.8"]], []),
        ])

    return speak


SAMPLES = {"bybit-linear": _spoken(spot=False), "bybit-spot": _spoken(spot=True)}
