"""A recording in chunks: some hundreds of lines through the book, their ticks through the features, their rows through
the model. The same objects as live and in `alpha replay`, and the same bits; what is bought is bulk.

Book, ticks, rows and predictions do not depend on what is decided, so they may run ahead of the decisions. `Chunks`
does that and tells, line by line, what came of it; who decides sees the market through `seen`, whose heads follow line
by line: it is the market as of then, though later ticks stand in the same memory.

A line that brings several ticks of a symbol is predicted once, on the newest, as live.

Cost on recorded Binance futures, of which a third of the frames make a tick: 3.3 us a frame for the book, 0.6 us a tick
for the features, 2.5 us a row for a small model in batches, 2 us for the prediction as an object.
"""

from itertools import compress, repeat
from typing import NamedTuple

import numpy as np

from common import venues
from common.backtest.frames import Frames, Tape
from common.clock import ManualClock
from common.config import Config
from common.errors import ConfigError, ContractError, ModelError
from common.features.rows import Features
from common.layout import (
    ASK_PX,
    BID_PX,
    FLAG_VALID,
    FLAGS,
    RECV_NS,
    ROW_ASK,
    ROW_BID,
    ROW_BOOK_NS,
    ROW_EVENT_NS,
    ROW_KIND,
    ROW_RECV_NS,
    ROW_RUN,
    ROW_SEQ,
    ROW_VENUE_ID,
    ROW_VOL,
)
from common.manifest import features_wanted
from common.market import Market
from common.model import Model
from common.player import Player
from common.ring import Books, Rows
from common.wire import Prediction, TickRef, make

LINES = 1024  #: of a chunk, at most
#: what a prediction says of its row
_TOLD = np.array([ROW_SEQ, ROW_VENUE_ID, ROW_KIND, ROW_EVENT_NS, ROW_BID, ROW_ASK, ROW_RECV_NS, ROW_BOOK_NS])


class Line(NamedTuple):
    """What a line of the recording brought: at least one tick."""

    recv_ns: int
    heads: list[TickRef]  #: the newest tick of each symbol that has a new one
    predictions: list[Prediction]  #: on those of them that are warm


class Behind(Books):
    """The ticks of `books` with heads of its own: the market as of an earlier time. Nothing is copied."""

    def __init__(self, books: Books) -> None:
        super().__init__(books.symbols, 1, books.epoch, None)
        self.capacity, self.table, self.ticks, self._bytes = books.capacity, books.table, books.ticks, books._bytes

    def follow(self, heads: list[TickRef]) -> None:
        """The market as of these ticks."""
        for symbol, _, seq, _, _ in heads:
            self._heads[symbol] = seq

    top = Books.peek  #: nobody writes while somebody looks


class History:
    """What went by of one symbol, as columns: for a report, which looks back."""

    def __init__(self) -> None:
        self._ticks: list[np.ndarray] = []
        self._predictions: list[tuple[np.ndarray, np.ndarray]] = []

    def saw(self, ticks: np.ndarray) -> None:
        """int64[n, 4]: recv_ns, bid, ask (1e-8; 0 where a side is empty), 1 where the book was valid."""
        self._ticks.append(ticks)

    def predicted(self, recv_ns: np.ndarray, answers: np.ndarray) -> None:
        """int64[n] and float64[n, 2], (p_up, p_down)."""
        self._predictions.append((recv_ns, answers))

    def ticks(self) -> np.ndarray:
        """All of `saw`."""
        return np.concatenate(self._ticks) if self._ticks else np.zeros((0, 4), np.int64)

    def predictions(self) -> tuple[np.ndarray, np.ndarray]:
        """All of `predicted`."""
        if not self._predictions:
            return np.zeros(0, np.int64), np.zeros((0, 2))
        times, answers = zip(*self._predictions)
        return np.concatenate(times), np.concatenate(answers)


class Chunks:
    """`config` names venue, symbols, rings and model; `wanted` are the symbols that are predicted, all if empty.

    Raises ModelError if the model does not fit the rows, ConfigError if its window does not fit the ring."""

    def __init__(self, config: Config, wanted: tuple[str, ...] = ()) -> None:
        symbols, settings, ring = config.market.symbols, config.inference, config.ring
        venue = venues.create(config.market.venue, symbols)
        features = features_wanted(config)
        self.clock = ManualClock()
        self.books = Books.private(symbols, ring.ticks)
        self.books.epoch = 1  # nothing depends on when it is made
        self.rows = Rows.private(symbols, features.labels, ring.rows, self.books.epoch)
        self.market = Market(venue, self.books, self.clock, seed=0)
        self.player = Player(self.market, venue, self.clock)
        self.model = Model.configured(config.path(settings.model), settings)
        self.seen = Behind(self.books)
        self.history = [History() for _ in symbols]
        self.moved: list[Line] = []  #: of the last chunk, those that brought ticks
        self.model_errors = 0  #: rows on which the model's answer was no number
        self._frames = Frames(self.player, self.clock, self.books)
        self._features = Features(self.books, self.rows, features)
        self._wanted = [not wanted or symbol in wanted for symbol in symbols]
        self._places = self.model.features.places(self.rows.columns)
        #: ticks of one symbol in a chunk: what was published before is then still there for who decides
        self._most = min(ring.ticks, ring.rows) // 4
        if self.model.window > self._most:
            raise ConfigError("the model's window is too long for the rows ring",
                              where=f"window {self.model.window}, ring.rows {ring.rows}",
                              remedy="set ring.ticks and ring.rows to four times the window or more")

    def play(self, tape: Tape, limit: int | None = None) -> int:
        """The next chunk of lines, at most `limit` of them: returns how many, 0 at the end, and leaves those that
        brought ticks in `moved`.

        Raises ContractError if ticks that `seen` shows may be overwritten: it must `follow` what `moved` holds;
        VenueError for a line that cannot be played, when those before it have been."""
        if (self.books.heads - self.seen.heads).max() > self.books.capacity - 2 * self._most:
            raise ContractError("a chunk is asked for before the one before it was seen",
                                where=f"{(self.books.heads - self.seen.heads).max()} ticks")
        count = self._frames.play(tape, LINES if limit is None else min(limit, LINES), self._most)
        moved = self.moved = [Line(recv_ns, heads, []) for recv_ns, heads in self._frames.moved]
        for symbol, head in enumerate(self.books.heads.tolist()):
            last = self._features.last(symbol)
            if head > last:
                self._features.advance(symbol, head, self.clock.now_ns)
                found = self.books.ticks[symbol][np.arange(last + 1, head + 1) & (self.books.capacity - 1)]
                seen = found[:, (RECV_NS, BID_PX, ASK_PX, FLAGS)]
                seen[:, 3] &= FLAG_VALID
                self.history[symbol].saw(seen)
        self._predict(moved)
        return count

    def _predict(self, moved: list[Line]) -> None:
        """The predictions of a chunk, of every symbol in one batch."""
        asked: list[list[tuple[int, Line]]] = [[] for _ in self.rows.symbols]
        for line in moved:
            for symbol, _, seq, _, _ in line.heads:
                asked[symbol].append((seq, line))
        length, mask, windows, found = self.model.window, self.rows.capacity - 1, [], []
        for symbol, wanted in enumerate(self._wanted):
            if not (wanted and asked[symbol]):
                continue
            slots = np.array([seq for seq, _ in asked[symbol]], np.int64) & mask
            meta = self.rows.meta[symbol][slots]
            warm = np.flatnonzero(meta[:, ROW_RUN] >= length)
            if warm.size:
                first = (slots[warm] - (length - 1)) & mask
                windows.append(self.rows.values[symbol][first[:, None] + np.arange(length)][:, :, self._places])
                found.append((symbol, [asked[symbol][i][1] for i in warm.tolist()], meta[warm]))
        if not windows:
            return
        answers = self._answers(np.concatenate(windows))
        tag, model_id, done = self.books.tag, self.model.id, 0
        for symbol, lines, meta in found:
            mine = answers[done:done + len(lines)]
            done += len(lines)
            known = ~np.isnan(mine[:, 0])
            self.history[symbol].predicted(meta[known, ROW_RECV_NS], mine[known])
            if not known.all():
                lines, mine, meta = list(compress(lines, known.tolist())), mine[known], meta[known]
            seq, venue_id, kind, event_ns, bid, ask, recv_ns, book_ns = meta[:, _TOLD].T.tolist()
            fields = zip(repeat(symbol), repeat(0), repeat(tag), seq, venue_id, kind, event_ns, repeat(model_id),
                         *mine.T.tolist(), (meta[:, ROW_VOL] * 1e-9).tolist(), bid, ask, recv_ns, *[book_ns] * 5)
            for line, prediction in zip(lines, map(make, repeat(Prediction), fields)):
                line.predictions.append(prediction)

    def _answers(self, windows: np.ndarray) -> np.ndarray:
        """float64[n, 2], (p_up, p_down) of each window; NaN where the model's answer is no number."""
        try:
            return self.model.predict_batch(windows)
        except ModelError:
            return np.array([self._answer(window) for window in windows])

    def _answer(self, window: np.ndarray) -> tuple[float, float]:
        try:
            return self.model.predict(window)
        except ModelError:
            self.model_errors += 1
            return np.nan, np.nan
