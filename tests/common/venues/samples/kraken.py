"""Kraken spot, both protocols, written after the documentation: one market with few levels, told in either."""

import zlib
from pathlib import Path

import orjson

from tests.common.venues.samples import Sample

#: (side, price, quantity as the venue writes them); each part of a step is one change
SNAPSHOT = [("b", "250.10", "1.5000"), ("b", "250.05", "0.2500"), ("b", "249.00", "12.0000"),
            ("a", "250.15", "0.7500"), ("a", "251.00", "3.0000"), ("a", "252.50", "0.0100")]
STEPS = [[("b", "250.10", "1.2500")], [("a", "250.15", "0.0000")], [("a", "250.20", "2.0000")],
         [("a", "251.50", "4.0000"), ("b", "250.12", "0.0001")], [("b", "249.00", "0.0000"), ("b", "248.75", "7.5000")],
         [("a", "252.50", "0.0200")], [("b", "250.05", "0.3000")]]


class Told:
    """The book as texts, and what the venue makes of them: the checksum without any number in between."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[str, str]] = {"a": {}, "b": {}}

    def change(self, changes: list[tuple[str, str, str]]) -> int:
        for side, price, quantity in changes:
            self.sides[side][price] = quantity
            if not float(quantity):
                del self.sides[side][price]
        best = {side: sorted(levels, key=float, reverse=side == "b")[:10] for side, levels in self.sides.items()}
        text = "".join(part.replace(".", "").lstrip("0") for side in "ab" for price in best[side]
                       for part in (price, self.sides[side][price]))
        return zlib.crc32(text.encode())


def first(folder: Path) -> Sample:
    pair, stamp, told = "XBT/USD", "1700000000.123456", Told()
    frames = [{"connectionID": 8628615390848610000, "event": "systemStatus", "status": "online", "version": "1.9.6"}]
    frames += [{"channelID": 7, "channelName": channel, "event": "subscriptionStatus", "pair": pair,
                "status": "subscribed", "subscription": {"name": channel.partition("-")[0]}}
               for channel in ("book-1000", "trade")]
    told.change(SNAPSHOT)
    frames.append([7, {f"{side}s": [[price, quantity, stamp] for of, price, quantity in SNAPSHOT if of == side]
                       for side in "ab"}, "book-1000", pair])
    frames.append({"event": "heartbeat"})
    for step in STEPS:
        checksum = told.change(step)
        parts = [{side: [[price, quantity, stamp, "r"][:4 if quantity == "7.5000" else 3]
                         for of, price, quantity in step if of == side]}
                 for side in "ab" if any(of == side for of, _, _ in step)]
        parts[-1]["c"] = str(checksum)
        frames.append([7, *parts, "book-1000", pair])
    frames.append([8, [["250.20", "0.5000", "1700000001.5", "b", "m", ""],
                       ["250.12", "0.0001", "1700000001.500001", "s", "l", ""]], "trade", pair])
    return Sample(("OTHER/USD", pair), [orjson.dumps(frame) for frame in frames])


def second(folder: Path) -> Sample:
    pair, stamp, told = "BTC/USD", "2023-11-14T22:13:20.123456Z", Told()

    def book(kind: str, step: list[tuple[str, str, str]]) -> dict:
        sides = {name: [{"price": orjson.Fragment(price), "qty": orjson.Fragment(quantity)}
                        for of, price, quantity in step if of == name[0]] for name in ("bids", "asks")}
        return {"channel": "book", "type": kind, "data": [
            {"symbol": pair, **sides, "checksum": told.change(step), "timestamp": stamp}]}

    frames = [{"channel": "status", "type": "update", "data": [
        {"version": "2.0.10", "system": "online", "api_version": "v2", "connection_id": 13834774380200032777}]}]
    frames += [{"method": "subscribe", "result": {"channel": channel, "snapshot": True} | asked, "success": True,
                "time_in": stamp, "time_out": stamp}
               for channel, asked in (("instrument", {}), ("book", {"symbol": pair, "depth": 1000}))]
    frames.append({"channel": "instrument", "type": "snapshot", "data": {"assets": [{"id": "USD"}], "pairs": [
        {"symbol": name, "base": "BTC", "quote": "USD", "status": "online", "qty_precision": 4, "price_precision": 2,
         "price_increment": orjson.Fragment("0.05"), "qty_increment": orjson.Fragment("0.0001")}
        for name in ("ALGO/USD", pair)]}})
    frames += [book("snapshot", SNAPSHOT), {"channel": "heartbeat"}, *(book("update", step) for step in STEPS)]
    frames.append({"channel": "trade", "type": "update", "data": [
        {"symbol": pair, "side": side, "price": orjson.Fragment(price), "qty": orjson.Fragment(quantity),
         "ord_type": "market", "trade_id": number, "timestamp": stamp}
        for number, side, price, quantity in ((41, "buy", "250.20", "0.5000"), (42, "sell", "250.12", "0.0001"))]})
    return Sample(("OTHER/USD", pair), [orjson.dumps(frame) for frame in frames])


SAMPLES = {"kraken-v1": first, "kraken": second}
