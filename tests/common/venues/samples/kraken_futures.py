"""Kraken futures, written after the documentation."""

from pathlib import Path

from tests.common.venues.samples import Sample

PRODUCT = "PF_XBTUSD"


def book(seq: int, side: str, price: str, quantity: str) -> bytes:
    return (f'{{"feed":"book","product_id":"{PRODUCT}","side":"{side}","seq":{seq},"price":{price},"qty":{quantity},'
            f'"timestamp":1700000000456}}').encode()


def trade(seq: int, side: str, price: str, quantity: str, kind: str = "fill") -> bytes:
    return (f'{{"feed":"trade","product_id":"{PRODUCT}","uid":"05af78ac-a774-478c-a50c-8b9c234e071e","side":"{side}",'
            f'"type":"{kind}","seq":{seq},"time":1700000000789,"qty":{quantity},"price":{price}}}').encode()


def written(folder: Path) -> Sample:
    return Sample(("OTHER", PRODUCT), [
        b'{"event":"info","version":1}',
        b'{"event":"subscribed","feed":"book","product_ids":["PF_XBTUSD"]}',
        b'{"event":"subscribed","feed":"heartbeat"}',
        b'{"feed":"book_snapshot","product_id":"PF_XBTUSD","timestamp":1700000000123,"seq":900,"tickSize":null,'
        b'"bids":[{"price":34892.5,"qty":6385.0},{"price":34892,"qty":10}],"asks":[{"price":34911.5,"qty":0.1234}]}',
        b'{"feed":"trade_snapshot","product_id":"PF_XBTUSD","trades":[]}',
        book(901, "buy", "34893.0", "0.5"), book(902, "buy", "34892.5", "0.0"), book(903, "sell", "34911.5", "2"),
        b'{"feed":"heartbeat","time":1700000000500}',
        book(904, "sell", "34911.0", "1.0001"), book(905, "sell", "34911.5", "0"), book(906, "buy", "34891", "3.25"),
        trade(71, "buy", "34911.0", "0.0001"), trade(72, "sell", "34893.0", "0.5", "liquidation")])


SAMPLES = {"kraken-futures": written}
