"""A recorded live session without processes: what recorder, stages and session log would have written, by one loop.

The stages are the live ones' cores; the clock is manual, so a session is the same bytes each time.
"""

from collections.abc import Iterable
from pathlib import Path

from common import decision, venues
from common.capture_lines import Connect, Disconnect, Header, State, encode
from common.clock import ManualClock
from common.config import Config, Risk
from common.config import Market as MarketSettings
from common.decide import Rules, answer, wish
from common.features.rows import Features
from common.layout import (
    ROW_ASK,
    ROW_BID,
    ROW_BOOK_NS,
    ROW_EVENT_NS,
    ROW_KIND,
    ROW_RECV_NS,
    ROW_RUN,
    ROW_VENUE_ID,
    ROW_VOL,
)
from common.market import Market
from common.model import Model
from common.orders import Order
from common.recorder import Recorder
from common.ring import Books, Rows
from common.risk import Account, Rate, Standing
from common.session_log import Capture, Known, SessionLog, follow
from common.synthetic import SyntheticMarket
from common.wire import Prediction

ROOT = Path(__file__).resolve().parents[1]
SYMBOLS = ("BTC-USD", "AAPL")
START_NS = 1_000_000_000_000
WALL_NS = 1_700_000_000_123_456_789  #: ahead of the monotonic clock


class Clock(ManualClock):
    def wall_ns(self) -> int:
        return self.now_ns + WALL_NS


def frames(seconds: float, seed: int = 3) -> list[tuple[int, bytes]]:
    """(monotonic ns, frame) of the synthetic market."""
    market = SyntheticMarket(SYMBOLS, seed=seed, rate=200.0, start_ms=1_700_000_000_000)
    found = list(market.frames(seconds))
    return [(START_NS + at - found[0][0], frame) for at, frame in found]


class Pipeline:
    """`record` from some moment on, `play` frames before and after; one row in `every` is predicted and decided on."""

    def __init__(self, folder: Path, every: int = 3) -> None:
        self.folder, self._every = folder, every
        self.config = Config(base=str(ROOT), market=MarketSettings(symbols=SYMBOLS), risk=Risk(symbol_cooldown_ms=20.0))
        self.clock = Clock(START_NS)
        self._venue = venues.create("vectrade", SYMBOLS)
        self.books = Books.private(SYMBOLS)
        self.market = Market(self._venue, self.books, self.clock, seed=0)
        self.model = Model.load(self.config.path(self.config.inference.model))
        self.rows = Rows.private(SYMBOLS, self.model.features.labels, epoch=self.books.epoch)
        self._features = Features(self.books, self.rows, self.model.features)
        self._rules = [Rules.of(self.config, symbol) for symbol in SYMBOLS]
        self._standings = [Standing(self.books.tag) for _ in SYMBOLS]
        self._account = Account(Rate(self.config.risk.max_orders_per_s))
        self.log: SessionLog | None = None
        self._recorder: Recorder | None = None
        self._last = {kind: [-1] * len(SYMBOLS) for kind in ("ticks", "rows")}
        self.market.begin()
        self.market.on_connect(START_NS)

    def record(self) -> None:
        """From now on, in the way of one that has just begun to listen."""
        self.log = SessionLog(self.folder / "session", self.config, self.books.epoch, SYMBOLS, self.model.features)
        self.log.model(Known(self.model.id, str(self.model.path), self.model.sha256, self.model.name))
        self._recorder = Recorder(self.folder, self.clock, begun=lambda header, offset_ns: self.log.captured(
            Capture(header.session, header.part, offset_ns)))
        self.tell_state()

    def tell_state(self) -> None:
        lines = [encode(Header("vectrade", SYMBOLS)), encode(Connect("ws://x"))]
        for index, name in enumerate(SYMBOLS):
            whole = self.market.whole(index)
            if whole is not None:
                lines.append(encode(State(name, self._venue.encode_snapshot(whole))))
        for line in lines:
            self.hear(line)

    def hear(self, line: bytes) -> None:
        """What the tap says."""
        if self._recorder is not None:
            self._recorder.take(self.clock.now_ns.to_bytes(8, "little") + line)

    def lose(self, count: int) -> None:
        """The tap has dropped messages, and tells the state again when it is asked."""
        self._recorder.lost(count)
        self.tell_state()

    def play(self, played: Iterable[tuple[int, bytes]], heard: bool = True) -> None:
        """Frames through the pipeline; without `heard`, behind the back of the recorder."""
        for at, frame in played:
            self.clock.set(at)
            if heard:
                self.hear(frame)
            self.market.on_frame(frame, at)
            self._work()

    def disconnect(self) -> None:
        """The connection is lost: ingest says so, and a moment later writes the ticks. Another begins with the books as
        they were."""
        books = [self._venue.encode_snapshot(self.market.whole(index)) for index in range(len(SYMBOLS))]
        self.hear(encode(Disconnect("gone")))
        self.clock.set(self.clock.now_ns + 7)
        self.market.on_disconnect(self.clock.now_ns)
        self.market.begin()
        self._work()
        self.hear(encode(Connect("ws://x")))
        self.market.on_connect(self.clock.now_ns)
        self.play((self.clock.now_ns + 1_000 * (1 + index), book) for index, book in enumerate(books))

    def close(self) -> list[str]:
        """Ends the recording; the paths of the captures."""
        self._recorder.close()
        self.log.close()
        return sorted(str(path) for path in self.folder.glob("*.zst"))

    def _work(self) -> None:
        for ref in self.market.take_refs():
            self._features.advance(ref.symbol, ref.seq, self.clock.now_ns)
            if self.log is not None:
                self._follow(ref.symbol)
            if ref.seq % self._every == 0:
                self._predict(ref.symbol, ref.seq)

    def _follow(self, symbol: int) -> None:
        for kind, ring, write in (("ticks", self.books, lambda found: self.log.write_ticks(symbol, found.meta)),
                                  ("rows", self.rows, lambda found: self.log.write_rows(
                                      symbol, found.meta, found.values))):
            found = follow(ring, symbol, self._last[kind][symbol])
            if found is not None:
                self._last[kind][symbol] = found.last
                write(found)

    def _predict(self, symbol: int, seq: int) -> None:
        meta = self.rows.read_meta(symbol, seq)
        if meta[ROW_RUN] < self.model.window:
            return
        up, down = self.model.predict(self.rows.window(symbol, seq, self.model.window))
        now = self.clock.now_ns
        told = Prediction(symbol, 0, self.books.tag, seq, meta[ROW_VENUE_ID], meta[ROW_KIND], meta[ROW_EVENT_NS],
                          self.model.id, up, down, meta[ROW_VOL] * 1e-9, meta[ROW_BID], meta[ROW_ASK],
                          meta[ROW_RECV_NS], meta[ROW_BOOK_NS], now, now, now, now)
        standing, account, rules = self._standings[symbol], self._account, self._rules[symbol]
        before, top, answer_ns = decision.before(standing, account), None, 0
        verdict = wish(told, standing, account, rules, now + 1_000)
        if type(verdict) is int:
            top, answer_ns = self.books.top(symbol), now + 2_000
            verdict = answer(verdict, told, top, standing, account, rules, answer_ns)
        standing.seq = seq
        if type(verdict) is Order:
            standing.order_ns = now + 2_500
            standing.position += verdict.side * verdict.qty
            account.rate.take(now + 2_500)
        if self.log is not None:
            self.log.write_predictions([told])
            self.log.write_decisions(decision.encode(told, now + 1_000, answer_ns, top, before, verdict,
                                                     None if type(verdict) is Order else verdict))
