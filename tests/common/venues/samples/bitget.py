"""Bitget: frames of API v2 as the documentation has them, and of v1, of a small book of our own.

All texts of a symbol have the same number of decimals, as the venue writes them, and so they stand in the checksums.
"""

from pathlib import Path

import orjson

from tests.common.venues.samples import Sample
from tests.common.venues.samples.okx import TS, Teller


def arg(channel: str, market: str = "SPOT", symbol: str = "BTCUSDT") -> dict:
    return {"instType": market, "channel": channel, "instId": symbol}


def frame(action: str, told: dict, market: str = "SPOT", **numbers) -> bytes:
    """A frame of the order book: `numbers` are seq and pseq, where it has them."""
    return orjson.dumps({"action": action, "arg": arg("books", market), "data": [{**told, **numbers, "ts": TS}],
                         "ts": int(TS) + 4})


def trades(*rows, action: str = "update", market: str = "SPOT") -> bytes:
    return orjson.dumps({"action": action, "arg": arg("trade", market), "data": rows, "ts": int(TS) + 4})


def trade(number: int = 1116461060594286593, side: str = "buy", ms: str = TS, **changes) -> dict:
    return {"ts": ms, "price": "101.5", "size": "0.25", "side": side, "tradeId": str(number), **changes}


def book(market: str, **numbers) -> list[bytes]:
    """A snapshot and its changes. None of them is undone whole by the next: the checksums tell each that is missing."""
    teller = Teller()
    bids = {f"{100 - i / 2:.2f}": f"{i + 1}.000" for i in range(12)}
    asks = {f"{101 + i / 2:.2f}": f"0.{i + 1:02d}1" for i in range(30)}
    changes = [({"100.00": "2.500"}, {}), ({"98.00": "0"}, {"101.00": "0"}),
               ({"100.50": "1.250", "99.00": "0"}, {"101.10": "0.300"}), ({}, {"101.10": "0", "102.00": "7.001"}),
               ({"99.50": "4.000"}, {"102.50": "0.500"}), ({"1.00": "9.000"}, {"101.00": "1.000"})]
    frames = [frame("snapshot", teller.change(bids, asks), market, **numbers)]
    for i, (bids, asks) in enumerate(changes):
        later = {"seq": numbers["seq"] + 7 * (i + 1), "pseq": numbers["seq"] + 7 * i} if "pseq" in numbers else {
            name: value + 7 * (i + 1) for name, value in numbers.items()}
        frames.append(frame("update", teller.change(bids, asks), market, **later))
    return frames


def spoken(market: str, **numbers):
    def read(folder: Path) -> Sample:
        frames = [orjson.dumps({"event": "subscribe", "arg": arg(channel, market)}) for channel in ("trade", "books")]
        frames += [*book(market, **numbers), trades(trade(side="sell"), trade(5), action="snapshot", market=market)]
        frames[6:6] = [trades(trade(), market=market), trades(trade(9, "sell"), market=market)]
        return Sample(("OTHER", "BTCUSDT"), frames)

    return read


SAMPLES = {"bitget": spoken("SPOT", seq=1000), "bitget-usdt-futures": spoken("USDT-FUTURES", seq=1000, pseq=0)}
