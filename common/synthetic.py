"""A market that can be predicted, and by how much is known: seeded order books of several symbols.

Each symbol has a latent signal a(t), an Ornstein-Uhlenbeck process of unit variance whose half-life is 20 s.
It does two things. Now, it tilts the queues (more on the bid while a > 0) and the side of the aggressors. Over
the next half minute, it drifts the efficient price P, which the quotes follow:

    dP = P0 * (DRIFT * a * dt + NOISE * exp(h) * dW)        h: log-volatility, again Ornstein-Uhlenbeck

A move over 30 s then has a standard deviation of about 9 basis points and a correlation of about 0.5 with a, so
a perfect reading of a predicts its sign with an AUC of about 0.75, and the book shows a through noise. What
a model finds is therefore real, and bounded.

One step is one message: it changes one book and takes 1/rate seconds of event time. The dynamics are set in
seconds, so `rate` changes how finely the market is seen, not how it moves. All prices and quantities are
int64 counts of 1e-8. A side is a run of adjacent prices, best first, of which some are empty: 10 to 20 levels
a side, 1 to 3 price increments apart, never crossed. Same arguments, same bytes.

Cost: about 12 us a step and 9 us for its frames, 1.2 of them, 140 bytes each on average.
"""

from __future__ import annotations

import math
from functools import lru_cache
from random import Random
from typing import Iterator, Mapping, NamedTuple, Sequence

from common import fixed

HALF_LIFE_S = 20.0  #: of the latent signal
DRIFT = 0.24e-4  #: relative price change per second at a = 1
NOISE = 1.0e-4  #: relative price change per square root of a second at h = 0
VOL_HALF_LIFE_S = 60.0
VOL_OF_VOL = 0.45  #: stationary standard deviation of h
TILT = 0.3  #: queue sizes are multiplied by exp(+TILT * a) on the bid, exp(-TILT * a) on the ask
ROUGHNESS = 0.6  #: standard deviation of the log of a queue size around its target
DEPTH = 20  #: adjacent prices that a side spans
FEWEST = 10  #: levels that are never cancelled below
MAX_SPREAD = 3  #: price increments
TRADES = 0.12  #: share of steps in which somebody takes liquidity
LOWEST = 200.0  #: P is kept above so many price increments

_PROFILE = tuple(0.6 + 0.7 * min(i, 5) / 5 for i in range(DEPTH))  #: size of a level against the typical one
_text = lru_cache(maxsize=1 << 16)(fixed.text)


class Listing(NamedTuple):
    """What is traded. `size` is the quantity of a typical level; all in 1e-8."""

    price: int
    tick: int
    lot: int
    size: int


def _listing(price: str, tick: str, lot: str, size: str) -> Listing:
    return Listing(fixed.parse(price), fixed.parse(tick), fixed.parse(lot), fixed.parse(size))


#: Increments are about half a basis point of the price, levels worth about 50,000.
LISTINGS = {
    "BTC-USD": _listing("64000", "5", "0.001", "0.8"),
    "ETH-USD": _listing("3400", "0.2", "0.01", "15"),
    "AAPL": _listing("190", "0.01", "1", "260"),
    "XAU-USD": _listing("2400", "0.1", "0.01", "20"),
}
OTHER = _listing("100", "0.01", "0.1", "500")  #: any other name

Levels = list[tuple[int, int]]  #: (price, quantity)


class Step(NamedTuple):
    """One change of one book. A quantity is the new one; 0 removes the level."""

    symbol: int
    time_ms: int
    sequence: int  #: one above that of the step before it in the same book
    bids: Levels
    asks: Levels
    trades: list[tuple[int, int, int]]  #: (id, price, quantity signed by the aggressor)


class Book:
    """One side each of adjacent prices: `bids[i]` is the quantity at `bid - i * tick`. An empty side has no
    entries, otherwise its first is above 0."""

    __slots__ = ("name", "listing", "bid", "ask", "bids", "asks", "sequence", "last", "trade_id",
                 "price", "signal", "log_vol")

    def __init__(self, name: str, listing: Listing, first: int) -> None:
        self.name, self.listing = name, listing
        self.price = listing.price / listing.tick  #: P, in price increments
        self.signal = self.log_vol = 0.0
        self.bid = self.ask = 0
        self.bids: list[int] = []
        self.asks: list[int] = []
        self.sequence = self.trade_id = first
        self.last = listing.price  #: price of the newest trade

    def levels(self, buy: bool) -> Levels:
        """The bids (`buy`) or the asks, best first, without empty levels."""
        tick = self.listing.tick
        if buy:
            return [(self.bid - i * tick, qty) for i, qty in enumerate(self.bids) if qty]
        return [(self.ask + i * tick, qty) for i, qty in enumerate(self.asks) if qty]

    @property
    def mid(self) -> int:
        """Half way between the best prices; the last trade where a side is empty."""
        return (self.bid + self.ask) // 2 if self.bids and self.asks else self.last

    def top(self) -> tuple[int, int, int, int, int]:
        """Best bid and its quantity, best ask and its quantity, last trade; zeros for an empty side."""
        return (self.bid if self.bids else 0, self.bids[0] if self.bids else 0,
                self.ask if self.asks else 0, self.asks[0] if self.asks else 0, self.last)

    def check(self) -> None:
        """Every invariant of a book, for tests."""
        for side in (self.bids, self.asks):
            assert len(side) <= DEPTH and (not side or side[0] > 0), self.describe()
            assert all(qty >= 0 for qty in side), self.describe()
        assert not (self.bids and self.asks) or self.bid < self.ask, self.describe()

    def describe(self) -> str:
        return f"{self.name} {self.sequence}: {self.levels(True)} | {self.levels(False)} around {self.price}"


class SyntheticMarket:
    """Books that move one step at a time; see the head of this file.

    `rate` is in steps per second over all symbols. `start_ms` is the event time of the beginning (Unix ms) and
    also what sequences and trade ids start from, so that they keep growing when the market is begun anew.
    `prices` (1e-8, by name) moves the beginning of a symbol away from its listing."""

    def __init__(self, symbols: Sequence[str], seed: int = 1, rate: float = 400.0, start_ms: int = 0,
                 prices: Mapping[str, int] | None = None) -> None:
        self.symbols = tuple(symbols)
        self.rate, self.start_ms, self.steps = rate, start_ms, 0
        self._random = Random(seed)
        dt = len(self.symbols) / rate  # seconds between two steps of one symbol, on average
        self._drift, self._noise = DRIFT * dt, NOISE * math.sqrt(dt)
        self._keep = 0.5 ** (dt / HALF_LIFE_S)
        self._kick = math.sqrt(1 - self._keep**2)
        self._vol_keep = 0.5 ** (dt / VOL_HALF_LIFE_S)
        self._vol_kick = VOL_OF_VOL * math.sqrt(1 - self._vol_keep**2)
        self.books = []
        for name in self.symbols:
            listing = LISTINGS.get(name, OTHER)
            price = (prices or {}).get(name, listing.price)
            listing = listing._replace(price=max(price - price % listing.tick, int(LOWEST) * listing.tick))
            book = Book(name, listing, start_ms)
            book.signal = self._random.gauss(0.0, 1.0)
            self._fill(book, [], [])
            self.books.append(book)

    @property
    def time_ms(self) -> int:
        return self.start_ms + int(self.steps * 1000 / self.rate)

    def step(self) -> Step:
        """The next message of the market."""
        self.steps += 1
        random = self._random.random
        symbol = int(random() * len(self.books))
        book = self.books[symbol]
        bids: Levels = []
        asks: Levels = []
        trades: list[tuple[int, int, int]] = []
        vol = self._evolve(book)
        if len(book.bids) < DEPTH or len(book.asks) < DEPTH:
            self._fill(book, bids, asks)
        tick = book.listing.tick
        price = book.price * tick
        if price > book.ask or price < book.bid:
            self._give_way(book, price > book.ask, bids, asks, trades)
        elif random() < TRADES * min(vol, 2.0):
            self._trade(book, bids, asks, trades)
        else:
            self._requote(book, bids, asks)
        self._narrow(book, vol, bids, asks)
        book.sequence += 1
        if len(bids) > 1:  # a price that changed twice is said once, with its last quantity
            bids = list(dict(bids).items())
        if len(asks) > 1:
            asks = list(dict(asks).items())
        return Step(symbol, self.time_ms, book.sequence, bids, asks, trades)

    def take(self, symbol: int, buy: bool, fills: Levels, printed: bool = True) -> Step:
        """A taker outside the market removes liquidity: the asks where `buy`, else the bids. `fills` are
        (price, quantity) of displayed levels. The change and, where `printed`, its trades leave as a step."""
        book = self.books[symbol]
        side, best, way = (book.asks, book.ask, 1) if buy else (book.bids, book.bid, -1)
        tick = book.listing.tick
        changed: Levels = []
        trades: list[tuple[int, int, int]] = []
        for price, qty in fills:
            at = (price - best) * way // tick
            side[at] -= qty
            if side[at] < 0:
                raise ValueError(f"took more than is displayed at {price}: {book.describe()}")
            changed.append((price, side[at]))
            if printed:
                book.trade_id += 1
                book.last = price
                trades.append((book.trade_id, price, qty * way))
        self._drop_empty(book, buy)
        book.sequence += 1
        return Step(symbol, self.time_ms, book.sequence, *(([], changed) if buy else (changed, [])), trades)

    # The parts of a step. Each notes what it changed in `bids` and `asks`.

    def _evolve(self, book: Book) -> float:
        """Signal, volatility and efficient price, one step on. Returns the volatility against the usual one."""
        gauss = self._random.gauss
        book.signal = self._keep * book.signal + self._kick * gauss(0.0, 1.0)
        book.log_vol = self._vol_keep * book.log_vol + self._vol_kick * gauss(0.0, 1.0)
        vol = math.exp(book.log_vol)
        listing = book.listing
        change = self._drift * book.signal + self._noise * vol * gauss(0.0, 1.0)
        book.price = max(book.price + change * listing.price / listing.tick, LOWEST)
        return vol

    def _size(self, book: Book, buy: bool, level: int) -> int:
        """A fresh queue size, as the signal would have it."""
        tilt = TILT * book.signal if buy else -TILT * book.signal
        listing = book.listing
        size = listing.size * _PROFILE[level] * math.exp(tilt + self._random.gauss(0.0, ROUGHNESS))
        return max(int(size) // listing.lot, 1) * listing.lot

    def _clip(self, book: Book) -> int:
        """The quantity that an aggressor wants."""
        listing = book.listing
        return max(int(listing.size * 0.12 * math.exp(self._random.gauss(0.0, 0.8))) // listing.lot, 1) * listing.lot

    def _give_way(self, book: Book, up: bool, bids: Levels, asks: Levels, trades: list) -> None:
        """The efficient price has left the quotes: the levels in its way are bought up or withdrawn."""
        tick, price = book.listing.tick, book.price * book.listing.tick
        bought = 0.5 + 0.4 * math.tanh(book.signal if up else -book.signal)
        while (price > book.ask) if up else (price < book.bid):
            best, most = (book.ask, book.asks[0]) if up else (book.bid, book.bids[0])
            if self._random.random() < bought:
                qty = min(self._clip(book), most)
                book.trade_id += 1
                book.last = best
                trades.append((book.trade_id, best, qty if up else -qty))
            self._retreat(book, not up, asks if up else bids)
            # The other side follows at once where the spread would grow too wide.
            while book.ask - book.bid > MAX_SPREAD * tick:
                self._advance(book, up, bids if up else asks)

    def _trade(self, book: Book, bids: Levels, asks: Levels, trades: list) -> None:
        """Somebody takes part of the best queue, or all of it where the spread allows."""
        tick = book.listing.tick
        away = book.price - (book.bid + book.ask) / (2 * tick)
        buy = self._random.random() < 1 / (1 + math.exp(-0.8 * book.signal - 0.7 * away))
        side, best = (book.asks, book.ask) if buy else (book.bids, book.bid)
        qty = self._clip(book)
        if qty >= side[0]:
            qty = side[0] if book.ask - book.bid < MAX_SPREAD * tick else side[0] - book.listing.lot
        changed = asks if buy else bids
        if qty > 0:
            book.trade_id += 1
            book.last = best
            trades.append((book.trade_id, best, qty if buy else -qty))
            if qty == side[0]:
                self._retreat(book, not buy, changed)
            else:
                side[0] -= qty
                changed.append((best, side[0]))
        else:
            self._requote(book, bids, asks)

    def _requote(self, book: Book, bids: Levels, asks: Levels) -> None:
        """An order joins, leaves or changes a queue, mostly near the best price."""
        random = self._random.random
        buy = random() < 0.5 + 0.1 * math.tanh(book.signal)
        side, best, way, changed = ((book.bids, book.bid, -1, bids) if buy else (book.asks, book.ask, 1, asks))
        level = min(int(-4.0 * math.log(1.0 - random())), len(side) - 1)
        old = side[level]
        if level > 2 and old and random() < 0.15 and len(side) - side.count(0) > FEWEST:
            side[level] = 0
        else:
            side[level] = self._size(book, buy, level)
            if side[level] == old:
                side[level] += book.listing.lot
        changed.append((best + way * level * book.listing.tick, side[level]))

    def _narrow(self, book: Book, vol: float, bids: Levels, asks: Levels) -> None:
        """Quotes close a spread that is wider than the volatility asks for."""
        tick = book.listing.tick
        wanted = 1 if vol < 1.3 else 2
        spread = (book.ask - book.bid) // tick
        if spread > wanted and (spread > MAX_SPREAD or self._random.random() < 0.4):
            buy = book.price * tick * 2 > book.bid + book.ask
            self._advance(book, buy, bids if buy else asks)

    def _advance(self, book: Book, buy: bool, changed: Levels) -> None:
        """A new best price, one increment better; the deepest level leaves where the side is full."""
        tick = book.listing.tick
        side, way = (book.bids, 1) if buy else (book.asks, -1)
        best = (book.bid if buy else book.ask) + way * tick
        if len(side) == DEPTH and side.pop():
            changed.append((best - way * DEPTH * tick, 0))
        side.insert(0, self._size(book, buy, 0))
        changed.append((best, side[0]))
        if buy:
            book.bid = best
        else:
            book.ask = best

    def _retreat(self, book: Book, buy: bool, changed: Levels) -> None:
        """The best price is gone; the next one is quoted, and a new deepest one."""
        tick = book.listing.tick
        side, way = (book.bids, -1) if buy else (book.asks, 1)
        best = book.bid if buy else book.ask
        side.pop(0)
        changed.append((best, 0))
        best += way * tick
        if not side[0]:
            side[0] = self._size(book, buy, 0)
            changed.append((best, side[0]))
        side.append(self._size(book, buy, len(side)))
        changed.append((best + way * (len(side) - 1) * tick, side[-1]))
        if buy:
            book.bid = best
        else:
            book.ask = best

    def _fill(self, book: Book, bids: Levels, asks: Levels) -> None:
        """Quotes for every price that a side spans: at the beginning, and after an order that took levels."""
        tick = book.listing.tick
        if not book.bids:
            book.bid = min(math.floor(book.price) * tick, book.ask - tick if book.asks else 1 << 62)
        if not book.asks:
            book.ask = max(math.floor(book.price) * tick + tick, book.bid + tick)
        for buy, side, best, way, changed in ((True, book.bids, book.bid, -1, bids),
                                              (False, book.asks, book.ask, 1, asks)):
            while len(side) < DEPTH:
                side.append(self._size(book, buy, len(side)))
                changed.append((best + way * (len(side) - 1) * tick, side[-1]))

    def _drop_empty(self, book: Book, buy: bool) -> None:
        """After `take`: the best price moves back to the first level that is left."""
        side = book.asks if buy else book.bids
        gone = next((i for i, qty in enumerate(side) if qty), len(side))
        del side[:gone]
        if buy:
            book.ask += gone * book.listing.tick
        else:
            book.bid -= gone * book.listing.tick

    # The same as frames of the VecTrade protocol: compact JSON, decimals as text, milliseconds.

    def snapshot(self, symbol: int) -> bytes:
        """The whole book of `symbol` as a frame."""
        book = self.books[symbol]
        return _book_frame(book.name, "snapshot", book.sequence, self.time_ms, book.levels(True),
                           book.levels(False))

    def delta(self, step: Step) -> bytes:
        return _book_frame(self.symbols[step.symbol], "delta", step.sequence, step.time_ms, step.bids, step.asks)

    def trades(self, step: Step) -> list[bytes]:
        """One frame for each trade of `step`."""
        name = self.symbols[step.symbol]
        return [(f'{{"channel":"trades:{name}","type":"trade","id":{number},"timestamp":{step.time_ms},'
                 f'"price":"{_text(price)}","quantity":"{_text(abs(qty))}","side":"{"BUY" if qty > 0 else "SELL"}"}}'
                 ).encode() for number, price, qty in step.trades]

    def ticker(self, symbol: int) -> bytes:
        """The best prices now, with the sequence of the book that they belong to. An empty side is "0"."""
        book = self.books[symbol]
        bid, bid_size, ask, ask_size, last = book.top()
        return (f'{{"channel":"ticker:{book.name}","type":"ticker","sequence":{book.sequence},'
                f'"timestamp":{self.time_ms},"bid":"{_text(bid)}","bid_size":"{_text(bid_size)}",'
                f'"ask":"{_text(ask)}","ask_size":"{_text(ask_size)}","last":"{_text(last)}"}}').encode()

    def frames(self, seconds: float) -> Iterator[tuple[int, bytes]]:
        """(event time in Unix ns, frame) of the order-book and trade channels of all symbols over `seconds`
        of event time: a snapshot each, then what happens. Runs as fast as it is read."""
        for symbol in range(len(self.books)):
            yield self.time_ms * 1_000_000, self.snapshot(symbol)
        end = self.steps + round(seconds * self.rate)
        while self.steps < end:
            step = self.step()
            now_ns = step.time_ms * 1_000_000
            for frame in self.trades(step):
                yield now_ns, frame
            yield now_ns, self.delta(step)


def _book_frame(name: str, kind: str, sequence: int, time_ms: int, bids: Levels, asks: Levels) -> bytes:
    return (f'{{"channel":"orderbook:{name}","type":"{kind}","sequence":{sequence},"timestamp":{time_ms},'
            f'"bids":[{_pairs(bids)}],"asks":[{_pairs(asks)}]}}').encode()


def _pairs(levels: Levels) -> str:
    return ",".join([f'["{_text(price)}","{_text(qty)}"]' for price, qty in levels])
