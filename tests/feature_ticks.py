"""Ticks made by hand or from recordings, and the way from them to rows, for the tests of the features and their kernel.

Recordings become ticks through books made of dictionaries, written here and sharing nothing with the code under test.
"""

import ast
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import zstandard

from common import fixed, layout
from common.features.choice import DEFAULT, FeatureSet
from common.features.rows import Features
from common.ring import Books, Rows

MS = 1_000_000
BEGIN_NS = 1_700_000_000_000 * MS
MAX = 2**63 - 1


def make_tick(seq: int, bids: list, asks: list, *, flags: int = layout.FLAG_VALID, traded: int = 0,
              event_ns: int | None = None) -> np.ndarray:
    tick = np.zeros(layout.TICK_WIDTH, np.int64)
    tick[layout.SEQ], tick[layout.FLAGS] = seq, flags
    tick[layout.KIND] = layout.KIND_TRADE if traded else layout.KIND_BOOK
    tick[layout.TRADE_QTY] = traded
    tick[layout.VENUE_ID] = seq + 1000
    tick[layout.EVENT_NS] = BEGIN_NS + 10 * MS * seq if event_ns is None else event_ns
    tick[layout.RECV_NS], tick[layout.BOOK_NS] = seq + 1, seq + 2
    for start, levels in ((layout.BID_PX, bids), (layout.ASK_PX, asks)):
        for i, (price, quantity) in enumerate(levels):
            tick[start + i], tick[start + layout.LEVELS + i] = price, quantity
    return tick


def random_ticks(count: int, seed: int = 1) -> np.ndarray:
    """A walk of books with every kind of tick in it: trades, one-sided and empty books."""
    random = np.random.default_rng(seed)
    found, price = [], 6_000_000
    for seq in range(1, count + 1):
        price += int(random.integers(-1, 2))
        bids = [((price - i) * 10**6, int(random.integers(1, 10**10))) for i in range(10)]
        asks = [((price + 1 + i) * 10**6, int(random.integers(1, 10**10))) for i in range(10)]
        traded = int(random.integers(-10**9, 10**9)) if random.random() < 0.2 else 0
        kept_bids, kept_asks = random.choice([0, 10], 2, p=[0.02, 0.98])
        found.append(make_tick(seq, bids[:kept_bids], asks[:kept_asks], traded=traded))
    return np.array(found)


def binance(folder: Path) -> np.ndarray:
    """Book changes and trades of Binance futures."""
    events = []
    snapshot = None
    with gzip.open(folder / "binance" / "usdm_btcusdt_20240718.gz", "rt") as lines:
        for line in lines:
            message = json.loads(line.split(" ", 1)[1])
            if "stream" not in message:
                snapshot = message
            elif "@depth" in message["stream"] or "@trade" in message["stream"]:
                events.append(message["data"])
    bids = {fixed.parse(p): fixed.parse(q) for p, q in snapshot["bids"]}
    asks = {fixed.parse(p): fixed.parse(q) for p, q in snapshot["asks"]}
    found = []
    for data in events:
        if data["e"] == "depthUpdate":
            if data["u"] < snapshot["lastUpdateId"]:
                continue
            for side, changes in ((bids, data["b"]), (asks, data["a"])):
                for price, quantity in changes:
                    side[fixed.parse(price)] = fixed.parse(quantity)
                    if not side[fixed.parse(price)]:
                        del side[fixed.parse(price)]
        elif not found:
            continue
        found.append(of_book(len(found) + 1, bids, asks, data["T"] * MS))
        if data["e"] == "trade":
            trade(found[-1], fixed.parse(data["p"]), fixed.parse(data["q"]) * (-1 if data["m"] else 1))
    return np.array(found)


def lobster(folder: Path, rows: int = 3500) -> np.ndarray:
    """GOOG, 10 levels: row k of the book is the book after message k; an execution is a trade on the book before it."""
    name = "GOOG_2012-06-21_34200000_57600000_{}_10.csv"
    with zipfile.ZipFile(folder / "lobster" / "LOBSTER_SampleFile_GOOG_2012-06-21_10.zip") as archive:
        messages, books = ([*zip(range(rows), csv.reader(io.TextIOWrapper(archive.open(name.format(part)))))]
                           for part in ("message", "orderbook"))
    found, bids, asks = [], {}, {}
    for (_, message), (_, book) in zip(messages, books):
        event_ns, kind = BEGIN_NS + round(float(message[0]) * 1e9), int(message[1])
        if kind in (4, 5) and found:
            found.append(of_book(len(found) + 1, bids, asks, event_ns))
            trade(found[-1], int(message[4]) * 10**4, -int(message[5]) * int(message[3]) * 10**8)
        levels = np.array(book, np.int64).reshape(10, 4).tolist()
        asks = {price * 10**4: size * 10**8 for price, size, _, _ in levels if size}
        bids = {price * 10**4: size * 10**8 for _, _, price, size in levels if size}
        found.append(of_book(len(found) + 1, bids, asks, event_ns))
    return np.array(found)


def coinbase(folder: Path, messages: int = 8000, skipped: int = 4400) -> np.ndarray:
    """BTC-USD as it was sent: a snapshot, changes, matches, whose side is that of the order that rested. Of the
    snapshot the 400 best levels a side are enough, for the price moves by less; not at all in the first 45 s, which
    are left out."""
    found, bids, asks = [], {}, {}
    for row in _rows(folder / "coinbase_2018" / "20180416_raw_mongo_all_messages.csv.zst", messages):
        if row["type"] == "snapshot":
            bids, asks = ({fixed.parse(p): fixed.parse(q) for p, q in ast.literal_eval(row[side])[:400]}
                          for side in ("bids", "asks"))
        elif bids and row["type"] in ("l2update", "match"):
            event_ns = round(datetime.fromisoformat(row["time"].replace("Z", "+00:00")).timestamp() * 1000) * MS
            if row["type"] == "l2update":
                for side, price, quantity in ast.literal_eval(row["changes"]):
                    book = bids if side == "buy" else asks
                    book[fixed.parse(price)] = fixed.parse(quantity)
                    if not book[fixed.parse(price)]:
                        del book[fixed.parse(price)]
            found.append(of_book(len(found) + 1, bids, asks, event_ns))
            if row["type"] == "match":
                trade(found[-1], fixed.parse(row["price"]),
                      fixed.parse(row["size"]) * (-1 if row["side"] == "buy" else 1))
    return np.array(found[skipped:])


def _rows(path: Path, count: int) -> Iterator[dict[str, str]]:
    csv.field_size_limit(1 << 26)
    with open(path, "rb") as file:
        text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file))
        for _, row in zip(range(count), csv.DictReader(text)):
            yield row


def of_book(seq: int, bids: dict[int, int], asks: dict[int, int], event_ns: int) -> np.ndarray:
    best = sorted(bids, reverse=True)[:10], sorted(asks)[:10]
    return make_tick(seq, [(p, bids[p]) for p in best[0]], [(p, asks[p]) for p in best[1]], event_ns=event_ns)


def trade(tick: np.ndarray, price: int, quantity: int) -> None:
    """Make a tick that of a trade."""
    tick[layout.KIND], tick[layout.TRADE_PX], tick[layout.TRADE_QTY] = layout.KIND_TRADE, price, quantity


class Pipe:
    """A books ring, a rows ring and the features between them."""

    def __init__(self, capacity: int = 1024, rows: Rows | None = None, books: Books | None = None,
                 features: FeatureSet = DEFAULT) -> None:
        self.books = books or Books.private(("X",), capacity)
        self.rows = rows or Rows.private(("X",), features.labels, capacity)
        self.features = Features(self.books, self.rows, features)

    def publish(self, ticks: np.ndarray) -> None:
        for tick in ticks:
            self.books.ticks[0][tick[layout.SEQ] & (self.books.capacity - 1)] = tick
            self.books.heads[0] = tick[layout.SEQ]

    def pass_on(self, ticks: np.ndarray, step: int = 256) -> None:
        """Publish `ticks` and advance after each `step` of them."""
        for start in range(0, len(ticks), step):
            self.publish(ticks[start:start + step])
            self.features.advance(0, int(self.books.heads[0]), 0)

    def row(self, seq: int) -> np.ndarray:
        assert self.rows.meta[0][seq & (self.rows.capacity - 1), layout.ROW_SEQ] == seq
        return self.rows.values[0][seq & (self.rows.capacity - 1)].copy()

    def meta(self, seq: int, name: int) -> int:
        return int(self.rows.meta[0][seq & (self.rows.capacity - 1), name])


def matrix(ticks: np.ndarray, step: int = 256, features: FeatureSet = DEFAULT) -> np.ndarray:
    """The rows of `ticks` (numbered on from the first), passed on `step` at a time."""
    capacity = 1 << (len(ticks) + step).bit_length()
    pipe = Pipe(capacity, features=features)
    renumbered = ticks.copy()
    renumbered[:, layout.SEQ] = np.arange(1, len(ticks) + 1)
    pipe.pass_on(renumbered, step)
    return pipe.rows.values[0][1:len(ticks) + 1].copy()
