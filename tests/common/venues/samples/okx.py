"""OKX: frames as the documentation has them, of a small book of our own, with numbers and checksums.

`Teller` keeps the book as the texts that were told, so that a checksum here owes nothing to the code under test.
"""

import itertools
import zlib
from decimal import Decimal
from pathlib import Path

import orjson

from tests.common.venues.samples import Sample

TS = "1700000000123"


class Teller:
    """Tells one book: `change` takes {price: quantity} as texts and returns the three fields of a book's frame."""

    def __init__(self) -> None:
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}

    def change(self, bids: dict[str, str], asks: dict[str, str]) -> dict:
        for side, changes in ((self.bids, bids), (self.asks, asks)):
            side |= changes
            for price in [price for price, quantity in side.items() if quantity == "0"]:
                del side[price]
        return {"asks": [list(level) for level in asks.items()], "bids": [list(level) for level in bids.items()],
                "checksum": self.checksum()}

    def checksum(self) -> int:
        bids = sorted(self.bids.items(), key=lambda level: -Decimal(level[0]))[:25]
        asks = sorted(self.asks.items(), key=lambda level: Decimal(level[0]))[:25]
        parts = [text for both in itertools.zip_longest(bids, asks, fillvalue=()) for level in both for text in level]
        return int.from_bytes(zlib.crc32(":".join(parts).encode()).to_bytes(4, "big"), "big", signed=True)


def arg(channel: str, symbol: str = "BTC-USDT") -> dict:
    return {"channel": channel, "instId": symbol}


def frame(action: str, told: dict, last: int | None, previous: int | None, symbol: str = "BTC-USDT") -> bytes:
    """A frame of the order book; without numbers where they are None, as in the recording."""
    row = {"asks": [[*level, "0", "1"] for level in told["asks"]],
           "bids": [[*level, "0", "1"] for level in told["bids"]], "ts": TS}
    numbers = {} if last is None else {"prevSeqId": previous, "seqId": last}
    return orjson.dumps({"arg": arg("books", symbol), "action": action, "data": [
        {**row, "checksum": told["checksum"], **numbers}]})


def trade(number: int = 7, side: str = "buy", price: str = "101.5", size: str = "0.25", **changes) -> bytes:
    return orjson.dumps({"arg": arg("trades"), "data": [{
        "instId": "BTC-USDT", "tradeId": str(number), "px": price, "sz": size, "side": side, "ts": TS, "count": "1",
        **changes}]})


def spoken(folder: Path) -> Sample:
    book = Teller()
    bids = {str(100 - i / 2).removesuffix(".0"): f"{i + 1}" for i in range(12)}
    asks = {str(101 + i / 2).removesuffix(".0"): f"0.{i + 1:02d}1" for i in range(30)}
    changes = [({"100": "2.5"}, {}), ({"100": "0"}, {"101": "0"}), ({"100.5": "1.25", "99": "0"}, {"101.1": "0.3"}),
               ({}, {"101.1": "0", "102": "7.00000001"}), ({"99.5": "4"}, {"102.5": "0.5"}), ({"1": "9"}, {"101": "1"})]
    frames = [orjson.dumps({"event": "subscribe", "arg": arg(channel), "connId": "a4d3ae55"})
              for channel in ("trades", "books")]
    frames.append(frame("snapshot", book.change(bids, asks), 1000, -1))
    for i, (bids, asks) in enumerate(changes):
        frames.append(frame("update", book.change(bids, asks), 1007 + 7 * i, 1000 + 7 * i))
    frames[5:5] = [trade(), trade(8, "sell", "100.5", "0.00000001")]
    return Sample(("OTHER", "BTC-USDT"), frames)


SAMPLES = {"okx": spoken}
