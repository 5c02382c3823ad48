"""What became of predictions: the mid after their horizon, found in the books ring while the market goes on.

The same definition as that of the labels that models are trained on (`common.labels`, a horizon in time, not
smoothed): the outcome is the mid at the newest tick at or before event time + horizon; of a tick with one side only,
that of the tick before. It is known once a later tick has come. Where the book was lost in between there is none.

Every tick is looked at once. One that was overwritten before that is a loss of the book as well: what nobody saw may
have been one.
"""

import heapq
from typing import NamedTuple

import numpy as np

from common import layout
from common.ring import Books
from common.wire import Prediction

LIMIT = 100_000  #: predictions of one symbol that may wait
_COLUMNS = np.array([layout.SEQ, layout.FLAGS, layout.EVENT_NS, layout.BID_PX, layout.ASK_PX])


class Outcome(NamedTuple):
    prediction: Prediction
    seq: int  #: of the tick at the horizon
    bid: int  #: best prices there, 1e-8
    ask: int

    @property
    def move(self) -> float:
        """Of the mid, in bps; exactly 0 if and only if it is where it was."""
        before = self.prediction.bid + self.prediction.ask
        return (self.bid + self.ask - before) / before * 1e4


class _Symbol:
    """How far the ticks of one symbol have been looked at, and what waits."""

    def __init__(self, seq: int) -> None:
        self.seq = self.broken = seq  # the newest tick seen; the newest at which the book was lost
        self.time_ns = 0  # newest venue time
        self.last: tuple[int, int, int] | None = None  # seq, bid, ask of the newest tick, None where the book is lost
        self.waiting: list[tuple[int, int, Prediction]] = []  # heap by the time at which the outcome is known


class Outcomes:
    """Of the predictions of one stream of ticks. A new stream needs a new one: what waits in the old is lost."""

    def __init__(self, books: Books) -> None:
        """Begins in the middle of what the ring holds, so that predictions under way find their rows."""
        self.books = books
        self._symbols = [_Symbol(max(0, head - books.capacity // 2)) for head in books.heads.tolist()]
        self._count = 0
        self.lost: list[Prediction] = []  #: since `take_lost`

    @property
    def pending(self) -> int:
        return sum(len(symbol.waiting) for symbol in self._symbols)

    def take_lost(self) -> list[Prediction]:
        """Predictions without an outcome, once each."""
        found, self.lost = self.lost, []
        return found

    def abandon(self) -> list[Prediction]:
        """All that waits, and what was lost: the stream has ended."""
        for symbol in self._symbols:
            self.lost += [prediction for _, _, prediction in symbol.waiting]
            symbol.waiting = []
        return self.take_lost()

    def add(self, prediction: Prediction, horizon_ns: int) -> None:
        """Let a prediction wait for its outcome. One without venue time or mid has none. About 1 us."""
        symbol = self._symbols[prediction.symbol]
        due = prediction.event_ns + horizon_ns
        if (prediction.seq <= symbol.broken or due < symbol.time_ns or len(symbol.waiting) >= LIMIT
                or min(prediction.event_ns, prediction.bid, prediction.ask) <= 0):
            self.lost.append(prediction)
            return
        self._count += 1
        heapq.heappush(symbol.waiting, (due, self._count, prediction))

    def settle(self) -> list[Outcome]:
        """Look at the ticks that have come; returns the outcomes that are known now. About 50 us a symbol."""
        found: list[Outcome] = []
        for number, head in enumerate(self.books.heads.tolist()):
            if head > self._symbols[number].seq:
                self._follow(self._symbols[number], self.books.ticks[number], head, found)
        return found

    def _follow(self, symbol: _Symbol, ticks: np.ndarray, head: int, found: list[Outcome]) -> None:
        mask = self.books.capacity - 1
        seqs = np.arange(symbol.seq + 1, head + 1)
        symbol.seq = head
        # The writer overwrites the oldest first: as that one still stands after the copy, all of it is whole.
        if len(seqs) > mask or int(ticks[seqs[0] & mask, layout.SEQ]) != seqs[0]:
            return self._break(symbol, head, found)
        seen = ticks[(seqs & mask)[:, None], _COLUMNS]
        if int(ticks[seqs[0] & mask, layout.SEQ]) != seqs[0]:
            return self._break(symbol, head, found)
        start = 0
        for stop in np.flatnonzero(seen[:, 1] & layout.FLAG_VALID == 0).tolist():
            self._walk(symbol, seen[start:stop], found)
            self._break(symbol, int(seqs[stop]), found)
            start = stop + 1
        self._walk(symbol, seen[start:], found)

    def _walk(self, symbol: _Symbol, seen: np.ndarray, found: list[Outcome]) -> None:
        """Ticks in a row on a valid book."""
        if not len(seen):
            return
        if symbol.last is not None:
            seq, bid, ask = symbol.last
            seen = np.concatenate([[[seq, 0, symbol.time_ns, bid, ask]], seen])
        times = np.maximum.accumulate(np.maximum(seen[:, 2], symbol.time_ns))
        both = (seen[:, 3] > 0) & (seen[:, 4] > 0)
        carried = np.maximum.accumulate(np.where(both, np.arange(len(seen)), 0))
        prices, seqs = seen[carried, 3:5], seen[:, 0]
        symbol.time_ns = int(times[-1])
        symbol.last = (int(seqs[-1]), *prices[-1].tolist())
        waiting = symbol.waiting
        while waiting and waiting[0][0] < symbol.time_ns:
            due, _, prediction = heapq.heappop(waiting)
            at = int(np.searchsorted(times, due, side="right")) - 1
            if at < 0 or seqs[at] < prediction.seq or not prices[at].all():
                self.lost.append(prediction)
            else:
                found.append(Outcome(prediction, int(seqs[at]), *prices[at].tolist()))

    def _break(self, symbol: _Symbol, seq: int, found: list[Outcome]) -> None:
        """The book was lost at tick `seq`: what was to be known by then is known, the rest of it never."""
        stay = []
        for entry in symbol.waiting:
            due, _, prediction = entry
            if prediction.seq > seq:
                stay.append(entry)
            elif symbol.last is not None and due <= symbol.time_ns:
                found.append(Outcome(prediction, *symbol.last))
            else:
                self.lost.append(prediction)
        heapq.heapify(stay)
        symbol.waiting, symbol.broken, symbol.last = stay, seq, None
