"""KuCoin: frames as its documentation has them, numbers made up; as many as it takes to lose each in turn."""

from pathlib import Path

import orjson

from tests.common.venues.samples import Sample

MS = 1_760_000_000_000


def message(channel: str, subject: str, data: dict) -> bytes:
    return orjson.dumps({"topic": f"/market/{channel}:BTC-USDT", "type": "message", "subject": subject, "data": data})


def change(first: int, last: int, bids=(), asks=()) -> bytes:
    return message("level2", "trade.l2update", {
        "changes": {"asks": list(asks), "bids": list(bids)}, "sequenceEnd": last, "sequenceStart": first,
        "symbol": "BTC-USDT", "time": MS + last})


def trade(number: int, side: str, price: str, quantity: str) -> bytes:
    return message("match", "trade.l3match", {
        "makerOrderId": "671b5007389355000701b1d3", "price": price, "sequence": str(number), "side": side,
        "size": quantity, "symbol": "BTC-USDT", "takerOrderId": "671b50161777ff00074c168d",
        "time": str(MS * 10**6 + number), "tradeId": str(10**15 + number), "type": "match"})


def ticker(sequence: int, bid: tuple[str, str], ask: tuple[str, str]) -> bytes:
    return message("ticker", "trade.ticker", {
        "bestAsk": ask[0], "bestAskSize": ask[1], "bestBid": bid[0], "bestBidSize": bid[1], "price": "61000.1",
        "sequence": str(sequence), "size": "0.01", "time": MS + sequence})


def snapshot(sequence: int, bids, asks) -> bytes:
    return orjson.dumps({"code": "200000", "data": {
        "time": MS + sequence, "sequence": str(sequence), "bids": list(bids), "asks": list(asks)}})


def spoken(folder: Path) -> Sample:
    """The best bid is 61000.1 x 0.5, then as of each change; every third change spans two numbers, every seventh has
    no price."""
    frames = [orjson.dumps({"id": "x1", "type": "welcome"}), orjson.dumps({"id": "1", "type": "ack"}),
              change(100, 101, bids=[["60999", "1", "100"]], asks=[["61002", "4", "101"]]),
              change(102, 102, asks=[["61000.2", "0.75", "102"]])]
    last = 102
    for i in range(44):
        first, last = last + 1, last + (2 if i % 3 == 0 else 1)
        if i % 7 == 6:
            frames.append(change(first, last, asks=[["0", "0", str(last)]]))
        else:
            frames.append(change(first, last, bids=[["61000.1", f"0.{i + 11}", str(last)]],
                                 asks=[[f"610{i + 10}.5", "0" if i % 2 else "1.5", str(first)]]))
            frames.append(ticker(last, ("61000.1", f"0.{i + 11}"), ("61000.2", "0.75")))
        if i % 5 == 0:
            frames.append(trade(last, "buy" if i % 2 else "sell", "61000.1", "0.01"))
    return Sample(("OTHER", "BTC-USDT"), frames, snapshot(
        101, [["61000.1", "0.5"], ["60999", "1"]], [["61000.3", "0.2"], ["61002", "4"]]))


SAMPLES = {"kucoin": spoken}
