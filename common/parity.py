"""Parity: whether a recorded live session is what a replay of its frames gives, bit for bit.

The frames go through the market core of ingest, the kernel of feature, the model of inference and the rules of the
executor: the same code, but in bulk. Compared are

    ticks        every column but BOOK_NS, which is a stamp of the live machine; RECV_NS of a change of validity, which
                 the recording stamps by itself; and SEQ, which need not begin at 1 where a recording begins
    rows         every value (float32), and of the meta record flags, ids, times, prices, kind and volatility; of
                 ROW_RUN whether it is above 0
    predictions  both probabilities, volatility, prices, ids and times, for every row that was predicted live
    decisions    the prediction and the book that were looked at, as above; and the verdict, made again from what the
                 session says it was made of (common.decision)

Which tick of the replay is which of the session is found by its time of receipt, which both have to the nanosecond, and
then followed by sequence, until the recording has a hole. Where the recording begins in the middle, or goes on after
a hole, the replay knows the book but not what came before: rows are compared once as many ticks have passed as the
longest window has. What is not compared is counted, with the reason.

Cost: 45 us a tick that was predicted and decided, of which 20 are the decision's. Memory: 80 bytes a tick beside the
session, which is mapped.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import captures, decision, venues
from common.capture_lines import MARK, Disconnect, Header, Missed, State, parse
from common.clock import ManualClock
from common.decide import Rules
from common.errors import ConfigError, ModelError
from common.features.rows import Features
from common.layout import (
    ASK_PX,
    ASK_QTY,
    BID_PX,
    BID_QTY,
    BOOK_NS,
    EVENT_NS,
    FLAG_VALID,
    FLAGS,
    KIND,
    KIND_NAMES,
    KIND_STATE,
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
    ROW_WRITTEN_NS,
    SEQ,
    VENUE_ID,
)
from common.market import Market
from common.model import Model
from common.player import Player
from common.recorder import STARTED_ANEW
from common.ring import Books, Rows
from common.session_log import KINDS, META_COLUMNS, MISSED, TICK_COLUMNS, Session
from common.wire import CLOCK

#: why something was not compared
OUTSIDE = "before the capture began, after it ended, or in a hole of it"
COLD = "the replay does not know enough of what came before"
LIVE_COLD = "the live row was not warm"
APART = "the book that was looked at is none of the replay's"
STREAM = "of another stream of ticks"

_ALWAYS = 1 << 40  # more ticks than any window has
_SHOWN = 3  # neighbouring ticks on each side
_TOLD_NS = 1_000_000_000
_IDENTITY = (KIND, VENUE_ID, EVENT_NS, RECV_NS)
_STAMPED = (ROW_SEQ, ROW_RUN, ROW_RECV_NS, ROW_BOOK_NS, ROW_WRITTEN_NS)  # of a row's meta record: not compared as such
_TOP_COLUMNS = {"top_flags": FLAGS, "top_bid": BID_PX, "top_bid_qty": BID_QTY, "top_ask": ASK_PX,
                "top_ask_qty": ASK_QTY, "top_recv_ns": RECV_NS}


class Difference(NamedTuple):
    """Where live and replay part."""

    at_ns: int  #: when the frame behind it was received, Unix ns
    kind: str  #: one of KINDS
    symbol: str
    seq: int  #: live
    replay_seq: int  #: 0: there is none
    venue_id: int
    tick_kind: str
    event_ns: int
    column: str
    live: Any
    replay: Any
    place: str  #: file:line of the frame
    near: list[str]  #: ticks around it, of both

    def as_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "live": shown(self.live), "replay": shown(self.replay)}


class Report:
    """What was compared, by kind and symbol, and what was not and why."""

    def __init__(self) -> None:
        self.compared: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.different: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.left_out: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}  #: by reason
        self.missed: Counter[str] = Counter()  #: by kind: what the recorder did not have
        self.lines = 0  #: of the captures
        self.models: list[str] = []
        self.first: Difference | None = None

    @property
    def differences(self) -> int:
        return sum(sum(found.values()) for found in self.different.values())

    def as_dict(self) -> dict[str, Any]:
        def plain(found: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
            return {kind: dict(sorted(counts.items())) for kind, counts in found.items() if counts}

        return {"equal": not self.differences, "differences": self.differences, "lines": self.lines,
                "models": self.models, "compared": plain(self.compared), "different": plain(self.different),
                "left_out": plain(self.left_out), "missed": dict(self.missed),
                "first": self.first.as_dict() if self.first else None}


def compare(session: Session, paths: Sequence[str], models: Sequence[Path] = (),
            say: Callable[[str], None] = lambda words: None) -> Report:
    """Replays the captures `paths`, of one feed or of several, and compares. `models` are taken in place of those that
    the session names: by their ids, and a single one for all. `say` hears of progress, once a second.

    Raises ConfigError where the captures were not recorded beside the session, ModelError where a model is not at hand
    or is another than the one that predicted, VenueError for a capture that cannot be read."""
    report = Report()
    for kind, _, _, _, count in session.records(MISSED).tolist():
        report.missed[KINDS[kind]] += count
    catalogue = _Catalogue(session, models, report)
    for header, files in _feeds(session, paths, say):
        _Feed(session, header, catalogue, report, say).run(files)
    for kind, total in catalogue.strays.items():
        report.left_out[kind][STREAM] += total
    for kind in KINDS:
        report.left_out[kind][OUTSIDE] = len(session.records(kind)) - report.compared[kind].total() - sum(
            count for reason, count in report.left_out[kind].items() if reason != OUTSIDE)
        report.left_out[kind] = +report.left_out[kind]
    return report


def shown(value: Any) -> str:
    """A number in decimal and in bits; a float in its own width."""
    if isinstance(value, np.float32):
        return f"{value!s} 0x{int(value.view(np.uint32)):08x}"
    if isinstance(value, float):
        return f"{float(value)!r} 0x{int(np.float64(value).view(np.uint64)):016x}"
    if isinstance(value, (int, np.integer)):
        return f"{int(value)} 0x{int(value) & (2**64 - 1):x}"
    return str(value)


class _Catalogue:
    """What the session has of predictions and decisions, and the models behind them."""

    def __init__(self, session: Session, paths: Sequence[Path], report: Report) -> None:
        self._session, self._report = session, report
        settings = session.config.inference
        given = [Model.configured(path, settings) for path in paths]
        self._single = given[0] if len(given) == 1 else None
        self._models = {model.id: model for model in given}
        report.models += [f"{model.name} {model.id:016x} {model.path}" for model in given]
        self._load = lambda path: Model.configured(path, settings)
        self.records = {kind: session.records(kind) for kind in ("predictions", "decisions")}
        self.strays = {kind: int((records["epoch"] != session.tag).sum()) for kind, records in self.records.items()}

    def of(self, kind: str, symbol: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the records of a symbol stand, in the order of the newest tick that they speak of, and its sequence."""
        records = self.records[kind]
        places = np.flatnonzero((records["symbol"] == symbol) & (records["epoch"] == self._session.tag))
        seqs = records["seq"][places]
        if kind == "decisions":
            seqs = np.maximum(seqs, records["top_seq"][places])
        order = np.argsort(seqs, kind="stable")
        return places[order], seqs[order]

    def model(self, number: int) -> Model:
        """The model whose id a prediction carries."""
        if number not in self._models:
            self._models[number] = self._single or self._find(number)
        return self._models[number]

    def _find(self, number: int) -> Model:
        told = next((known for known in self._session.models if known.id == number and known.path), None)
        remedy = "name the file that predicted with --model"
        if told is None:
            raise ModelError("the session does not say where the model is that predicted", where=f"id={number:016x}",
                             remedy=remedy)
        try:
            model = self._load(Path(told.path))
        except ModelError as error:
            raise ModelError(f"the model that predicted is not at hand: {error.what}", where=error.where,
                             remedy=remedy) from None
        if model.id != number:
            raise ModelError("the model is not the one that predicted any more",
                             where=f"{told.path}: id {model.id:016x}, predicted by {number:016x} "
                                   f"(sha256 {told.sha256[:16]})", remedy=remedy)
        self._report.models.append(f"{model.name} {model.id:016x} {model.path}")
        return model


class _Live:
    """Ticks and rows of one symbol in the session."""

    def __init__(self, session: Session, symbol: int, ticks: np.ndarray, rows: np.ndarray, missed: np.ndarray) -> None:
        self.ticks, self.rows = ticks, rows
        self.places = {"ticks": np.flatnonzero(ticks["symbol"] == symbol),
                       "rows": np.flatnonzero(rows["symbol"] == symbol)}
        self.seqs = {"ticks": ticks["tick"][self.places["ticks"], SEQ],
                     "rows": rows["meta"][self.places["rows"], ROW_SEQ]}
        times = ticks["tick"][self.places["ticks"], RECV_NS]
        order = np.argsort(times, kind="stable")  # one wrong stamp must not hide the others
        self.recv_ns, self.by_time = times[order], self.places["ticks"][order]
        self._missed = {kind: missed[(missed["kind"] == KINDS.index(kind)) & (missed["symbol"] == symbol)]
                        for kind in self.places}
        for kind, seqs in self.seqs.items():
            if (np.diff(seqs) <= 0).any():
                raise ConfigError("a recorded session is damaged: its sequences do not rise",
                                  where=f"{session.folder / kind}.bin, symbol {session.symbols[symbol]}")

    def find(self, kind: str, seqs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the records of `seqs` stand in their file, and which of them are there."""
        ours = self.seqs[kind]
        if not len(ours):
            return np.zeros(len(seqs), np.int64), np.zeros(len(seqs), bool)
        at = np.minimum(np.searchsorted(ours, seqs), len(ours) - 1)
        return self.places[kind][at], ours[at] == seqs

    def unexplained(self, kind: str, seqs: np.ndarray) -> np.ndarray:
        """Of sequences that are not there, those that should be: within the session, and not noted as missed."""
        ours = self.seqs[kind]
        if not len(ours):
            return seqs[:0]
        inside = seqs[(seqs > ours[0]) & (seqs < ours[-1])]
        for missed in self._missed[kind]:
            inside = inside[(inside < missed["first"]) | (inside > missed["last"])]
        return inside


class _Replayed:
    """One symbol of the replay, of the last ticks, by their slots in the ring."""

    def __init__(self, capacity: int) -> None:
        self.examined = 0  #: sequence up to which all has been compared
        self.begun = 0  #: of the newest tick that is the recorder's: a state told, or a hole marked
        self.shift: int | None = None  #: live sequence less the replay's; None: not known
        self.known = 0  #: valid ticks since `begun`
        self.known_ns = 0  #: venue time of the first of them
        self.lines: list[tuple[int, int, int, int]] = []  #: last seq, file, line and offset_ns of each line since
        self.shifts = np.full(capacity, -1, np.int64)
        self.warmth = np.zeros(capacity, np.int64)  #: `known` at the tick; 0 while too little time has passed
        self.file, self.line, self.offset_ns = (np.zeros(capacity, np.int64) for _ in range(3))


class _Feed:
    """The replay of one feed beside the session."""

    def __init__(self, session: Session, header: Header, catalogue: _Catalogue, report: Report,
                 say: Callable[[str], None]) -> None:
        names = _names(session, header)
        self._session, self._catalogue, self.report, self._say = session, catalogue, report, say
        self._names, self._indices = names, [session.symbols.index(name) for name in names]
        config = session.config
        self._clock = ManualClock()
        venue = venues.create(header.venue, header.symbols)
        self._capacity = config.ring.ticks  # as live: an audit looks back as far as the ring does
        self._books = Books.private(names, self._capacity)
        self._features = session.features
        self._rows = Rows.private(names, self._features.labels, self._capacity)
        self._kernel = Features(self._books, self._rows, self._features)
        self._market = Market(venue, self._books, self._clock, seed=0)
        self._player = Player(self._market, venue, self._clock)
        self._rules = [Rules.of(config, name) for name in names]
        self._orders_per_s = config.risk.max_orders_per_s
        ticks, rows, missed = (session.records(kind) for kind in ("ticks", "rows", MISSED))
        self._live = [_Live(session, index, ticks, rows, missed) for index in self._indices]
        self._records = [{kind: catalogue.of(kind, index) for kind in ("predictions", "decisions")}
                         for index in self._indices]
        self._replayed = [_Replayed(self._capacity) for _ in names]
        self._offsets = {capture[:2]: capture.offset_ns for capture in session.captures}
        self._files: list[str] = []
        self._offset_ns = 0

    # ---- the replay

    def run(self, files: Sequence[str]) -> None:
        """Play all, and compare a quarter of a ring at a time."""
        self._files = list(files)
        numbers = {name: number for number, name in enumerate(self._files)}
        limit, most, told = self._capacity // 4, 0, time.monotonic_ns()
        play, take_refs = self._player.play, self._market.take_refs
        for recv_ns, line, text, name in _numbered(self._files):
            self.report.lines += 1
            if text.startswith(MARK):
                self._control(recv_ns, text, numbers[name], line)
            elif play(recv_ns, text):
                for ref in take_refs():
                    replayed = self._replayed[ref.symbol]
                    replayed.lines.append((ref.seq, numbers[name], line, self._offset_ns))
                    most = max(most, ref.seq - replayed.examined)
                if most >= limit:
                    self._examine()
                    most = 0
                    if time.monotonic_ns() - told > _TOLD_NS:
                        told = time.monotonic_ns()
                        self._say(f"{self.report.lines:,} lines, {self.report.compared['ticks'].total():,} ticks "
                                  f"compared, {self.report.differences:,} differences")
        self._examine()

    def _control(self, recv_ns: int, text: bytes, file: int, line: int) -> None:
        """A line of the recorder's own, or of ingest. Where it says that something was not heard, what follows is not
        what followed live."""
        found = parse(text)
        if isinstance(found, Header):
            self._offset_ns = self._offsets[found.session, found.part]
        hole = isinstance(found, Missed) or isinstance(found, Disconnect) and found.reason == STARTED_ANEW
        told = isinstance(found, (Header, State))
        if hole or told:
            self._examine()
        before = self._books.heads.tolist()
        self._player.play(recv_ns, text)
        self._market.take_refs()
        for symbol, replayed in enumerate(self._replayed):
            head = int(self._books.heads[symbol])
            if head > before[symbol]:
                replayed.lines.append((head, file, line, self._offset_ns))
            if hole or told and head > before[symbol]:
                replayed.begun, replayed.shift, replayed.known, replayed.known_ns = head, None, 0, 0

    def _examine(self) -> None:
        """Compare what has been played since the last time."""
        for symbol, replayed in enumerate(self._replayed):
            head = int(self._books.heads[symbol])
            if head == replayed.examined:
                continue
            self._kernel.advance(symbol, head, 0)
            seqs = np.arange(replayed.examined + 1, head + 1)
            slots = seqs & (self._capacity - 1)
            ends, *columns = np.array(replayed.lines).T
            counts = np.diff(ends, prepend=replayed.examined)
            for kept, column in zip((replayed.file, replayed.line, replayed.offset_ns), columns):
                kept[slots] = np.repeat(column, counts)
            replayed.shifts[slots], replayed.warmth[slots] = -1, 0
            self._warm(symbol, seqs, slots)
            self._match(symbol, seqs, slots)
            replayed.examined = head
            replayed.lines.clear()

    def _warm(self, symbol: int, seqs: np.ndarray, slots: np.ndarray) -> None:
        """How much the replay knows of what came before each tick."""
        replayed, ticks = self._replayed[symbol], self._books.ticks[symbol][slots]
        valid = (ticks[:, FLAGS] & FLAG_VALID != 0) & (seqs > replayed.begun)
        known = replayed.known + np.cumsum(valid)
        timed = ticks[valid & (ticks[:, EVENT_NS] > 0), EVENT_NS]
        if not replayed.known_ns and len(timed):
            replayed.known_ns = int(timed[0])
        passed = ticks[:, EVENT_NS] - replayed.known_ns if replayed.known_ns else np.zeros(len(ticks), np.int64)
        enough = (passed >= self._features.warm_up_ns) | (known >= _ALWAYS)
        replayed.warmth[slots] = np.where(enough, known, 0)
        replayed.known = int(known[-1])

    # ---- which tick is which

    def _match(self, symbol: int, seqs: np.ndarray, slots: np.ndarray) -> None:
        replayed, live = self._replayed[symbol], self._live[symbol]
        ticks = self._books.ticks[symbol][slots]
        ticks[:, RECV_NS] -= replayed.offset_ns[slots]
        start = int(np.searchsorted(seqs, replayed.begun, "right"))
        while start < len(seqs):
            if replayed.shift is None:
                replayed.shift = self._align(live, ticks[start:])
                if replayed.shift is None:
                    self._strange(symbol, seqs[start:], ticks[start:])
                    return
                if replayed.shift == 0 and not replayed.begun:
                    replayed.known = _ALWAYS  # both from the very first tick: they know the same
                    replayed.warmth[slots[start:]] = _ALWAYS
            start += self._segment(symbol, seqs[start:], slots[start:], ticks[start:])

    def _align(self, live: _Live, ticks: np.ndarray) -> int | None:
        """Live sequence less that of the replay, from the first tick whose time of receipt the session has."""
        at = np.searchsorted(live.recv_ns, ticks[:, RECV_NS])
        for place in np.flatnonzero(at < len(live.recv_ns)):
            where = int(at[place])
            while where < len(live.recv_ns) and live.recv_ns[where] == ticks[place, RECV_NS]:
                theirs = live.ticks["tick"][live.by_time[where]]
                if (theirs[list(_IDENTITY)] == ticks[place, list(_IDENTITY)]).all():
                    return int(theirs[SEQ] - ticks[place, SEQ])
                where += 1
        return None

    def _strange(self, symbol: int, seqs: np.ndarray, ticks: np.ndarray) -> None:
        """Ticks of the replay whose like the session has not: a difference where it has others of that time."""
        live = self._live[symbol]
        if len(live.recv_ns):
            times = ticks[:, RECV_NS]
            for place in np.flatnonzero((times > live.recv_ns[0]) & (times < live.recv_ns[-1])):
                self._differ("ticks", symbol, int(seqs[place]), None, "tick", "absent", "present")

    def _segment(self, symbol: int, seqs: np.ndarray, slots: np.ndarray, ticks: np.ndarray) -> int:
        """Compare from here on for as long as ticks are the same ones; returns how many that were."""
        replayed, live = self._replayed[symbol], self._live[symbol]
        theirs = seqs + replayed.shift
        places, there = live.find("ticks", theirs)
        ours, found = ticks[there], live.ticks["tick"][places[there]]
        ours[:, SEQ], ours[:, BOOK_NS] = found[:, SEQ], found[:, BOOK_NS]
        state = ours[:, KIND] == KIND_STATE
        ours[state, RECV_NS] = found[state, RECV_NS]
        differs = ours != found
        other = np.flatnonzero(differs[:, list(_IDENTITY)].any(axis=1))
        length = len(seqs)
        if len(other):  # another tick stands here: find out anew which is which
            length = int(np.flatnonzero(there)[other[0]])
            count = int(other[0]) + 1
            there[length + 1:] = False
            differs, found, ours = differs[:count], found[:count], ours[:count]
        self.report.compared["ticks"][self._names[symbol]] += len(found)
        for row, column in _firsts(differs):
            self._differ("ticks", symbol, int(found[row, SEQ]) - replayed.shift, int(found[row, SEQ]),
                         TICK_COLUMNS.get(column, str(column)), found[row, column], ours[row, column])
        for seq in live.unexplained("ticks", theirs[:length][~there[:length]]).tolist():
            self._differ("ticks", symbol, seq - replayed.shift, seq, "tick", "absent", "present")
        replayed.shifts[slots[:length]] = replayed.shift
        if length:
            self._compare_rows(symbol, seqs[:length], slots[:length])
            self._compare_records(symbol, int(theirs[0]), int(theirs[length - 1]))
        if length == len(seqs):
            return length
        replayed.begun, replayed.shift, replayed.known, replayed.known_ns = int(seqs[length]), None, 0, 0
        self._warm(symbol, seqs[length:], slots[length:])
        return length + 1

    # ---- what was made of the ticks

    def _compare_rows(self, symbol: int, seqs: np.ndarray, slots: np.ndarray) -> None:
        replayed, live, name = self._replayed[symbol], self._live[symbol], self._names[symbol]
        left_out = self.report.left_out["rows"]
        theirs = seqs + replayed.shift
        places, there = live.find("rows", theirs)
        for seq in live.unexplained("rows", theirs[~there]).tolist():
            self._differ("rows", symbol, seq - replayed.shift, seq, "row", "absent", "present")
        places, slots = places[there], slots[there]
        warm = replayed.warmth[slots] >= self._features.warm_up
        left_out[COLD] += int((~warm).sum())
        places, slots = places[warm], slots[warm]
        meta = live.rows["meta"][places]
        ours = self._rows.meta[symbol][slots].copy()
        lost = (meta[:, ROW_RUN] == 0) & (ours[:, ROW_RUN] > 0)
        left_out[LIVE_COLD] += int(lost.sum())
        places, slots, meta, ours = places[~lost], slots[~lost], meta[~lost], ours[~lost]
        values, mine = live.rows["values"][places], self._rows.values[symbol][slots]
        self.report.compared["rows"][name] += len(places)
        runs = ours[:, ROW_RUN]
        for column in _STAMPED:
            ours[:, column] = meta[:, column]
        ours[(runs == 0) & (meta[:, ROW_RUN] > 0), ROW_RUN] = 0
        wide = np.concatenate((values.view(np.int32) != mine.view(np.int32), meta != ours), axis=1)
        for row, column in _firsts(wide):
            seq, count = int(meta[row, ROW_SEQ]), len(self._features)
            if column < count:
                told = self._features.labels[column], values[row, column], mine[row, column]
            else:
                column -= count
                told = META_COLUMNS.get(column, str(column)), meta[row, column], ours[row, column]
            self._differ("rows", symbol, seq - replayed.shift, seq, *told)

    def _compare_records(self, symbol: int, first: int, last: int) -> None:
        """Predictions and decisions whose newest tick is one of these, by their live sequences."""
        for kind, (places, seqs) in self._records[symbol].items():
            found = self._catalogue.records[kind][
                places[np.searchsorted(seqs, first):np.searchsorted(seqs, last, "right")]]
            if not len(found):
                continue
            same = found["worker"] == CLOCK  # nothing was predicted: only the book and the verdict can be compared
            self.report.compared[kind][self._names[symbol]] += int(same.sum())
            same[~same] = self._compare_predictions(kind, symbol, found[~same], last)
            if kind == "decisions":
                found = found[same]
                for told in found[self._compare_tops(symbol, found)].tolist():
                    self._compare_verdict(symbol, decision.Decision._make(told))

    def _compare_predictions(self, kind: str, symbol: int, records: np.ndarray, last: int) -> np.ndarray:
        """Compare what records say of a prediction with what the replay predicts. bool[n]: where it is the same."""
        replayed, rows = self._replayed[symbol], self._rows
        mask = self._capacity - 1
        seqs = records["seq"] - replayed.shift
        same = np.zeros(len(records), bool)
        for number in np.unique(records["model"]).tolist():
            model = self._catalogue.model(number)
            places = model.features.places(rows.columns)
            # In the ring with all of its window, on the same side of any hole, and warm.
            held = (seqs - model.window > last - replayed.shift - self._capacity) & (seqs >= model.window)
            known = replayed.shifts[seqs & mask] == replayed.shift
            oldest = (seqs - model.window + 1) & mask
            warm = (replayed.warmth[oldest] >= self._features.warm_up) & (replayed.shifts[oldest] == replayed.shift) & (
                rows.meta[symbol][seqs & mask, ROW_RUN] >= model.window)
            mine = records["model"] == number
            asked = np.flatnonzero(mine & held & known & warm)
            self.report.left_out[kind][COLD] += int(mine.sum()) - len(asked)
            if not len(asked):
                continue
            windows = [rows.window(symbol, int(seq), model.window)[:, places] for seq in seqs[asked]]
            answers = model.predict_batch(windows)
            slots = seqs[asked] & mask
            meta = rows.meta[symbol][slots]
            expected = {"p_up": answers[:, 0], "p_down": answers[:, 1], "vol": meta[:, ROW_VOL] * 1e-9,
                        "bid": meta[:, ROW_BID], "ask": meta[:, ROW_ASK], "venue_id": meta[:, ROW_VENUE_ID],
                        "kind": meta[:, ROW_KIND], "event_ns": meta[:, ROW_EVENT_NS],
                        "recv_ns": meta[:, ROW_RECV_NS] - replayed.offset_ns[slots]}
            found = records[asked]
            wide = np.stack([_bits(found[name]) != _bits(values) for name, values in expected.items()], axis=1)
            same[asked] = ~wide.any(axis=1)
            self.report.compared[kind][self._names[symbol]] += len(asked)
            names = list(expected)
            for row, column in _firsts(wide):
                seq = int(found["seq"][row])
                self._differ(kind, symbol, seq - replayed.shift, seq, names[column],
                             found[names[column]][row].item(), expected[names[column]][row].item())
        return same

    def _compare_tops(self, symbol: int, records: np.ndarray) -> np.ndarray:
        """Compare the books that decisions looked at with those of the replay. bool[n]: where they are the same, or
        nobody looked."""
        replayed, ring = self._replayed[symbol], self._books.ticks[symbol]
        same = records["top_seq"] == 0
        seqs = records["top_seq"] - replayed.shift
        slots = seqs & (self._capacity - 1)
        known = (ring[slots, SEQ] == seqs) & (replayed.shifts[slots] == replayed.shift)
        apart = int((~same & ~known).sum())
        self.report.left_out["decisions"][APART] += apart
        self.report.compared["decisions"][self._names[symbol]] -= apart
        looked = np.flatnonzero(~same & known)
        ticks = ring[slots[looked]]
        ticks[:, RECV_NS] -= replayed.offset_ns[slots[looked]]
        state = ticks[:, KIND] == KIND_STATE
        ticks[state, RECV_NS] = records["top_recv_ns"][looked[state]]
        wide = np.stack([records[name][looked] != ticks[:, column] for name, column in _TOP_COLUMNS.items()], axis=1)
        same[looked] = ~wide.any(axis=1)
        for row, column in _firsts(wide):
            name, seq = list(_TOP_COLUMNS)[column], int(records["seq"][looked[row]])
            self._differ("decisions", symbol, seq - replayed.shift, seq, name, records[name][looked[row]],
                         ticks[row, _TOP_COLUMNS[name]])
        return same

    def _compare_verdict(self, symbol: int, told: decision.Decision) -> None:
        """Make a decision again."""
        reasons, theirs = self._session.reasons, told.verdict
        ours = decision.again(told, self._rules[symbol], self._orders_per_s, reasons)
        if ours == theirs:
            return
        names = [name for name, one, other in zip(theirs._fields, theirs, ours)
                 if one != other and (one == one or other == other)]  # two that are not numbers are the same
        if names:
            values = [getattr(one, names[0]) for one in (theirs, ours)]
            if names[0] == "reason":
                values = ["an order" if not number else reasons[number] if number < len(reasons)
                          else "a reason that is new" for number in values]
            self._differ("decisions", symbol, told.seq - self._replayed[symbol].shift, told.seq, names[0], *values)

    # ---- what is found

    def _differ(self, kind: str, symbol: int, seq: int, live_seq: int | None, column: str, live: Any,
                replay: Any) -> None:
        """One record differs. Only the first one, by the time of its frame, is told in full."""
        replayed, first = self._replayed[symbol], self.report.first
        self.report.different[kind][self._names[symbol]] += 1
        slot = seq & (self._capacity - 1)
        tick = self._books.ticks[symbol][slot]
        key = int(tick[RECV_NS]), KINDS.index(kind)
        if first is not None and (first.at_ns, KINDS.index(first.kind)) <= key:
            return
        self.report.first = Difference(
            key[0], kind, self._names[symbol], live_seq or 0, seq, int(tick[VENUE_ID]),
            KIND_NAMES.get(int(tick[KIND]), "?"), int(tick[EVENT_NS]), column, live, replay,
            f"{self._files[replayed.file[slot]]}:{replayed.line[slot]}", self._near(symbol, seq, live_seq))

    def _near(self, symbol: int, seq: int, live_seq: int | None) -> list[str]:
        lines = []
        ring, live = self._books.ticks[symbol], self._live[symbol]
        for step in range(-_SHOWN, _SHOWN + 1):
            tick = ring[(seq + step) & (self._capacity - 1)]
            if tick[SEQ] == seq + step > 0:
                lines.append(f"replay {_brief(tick)}")
            if live_seq is not None:
                place, there = live.find("ticks", np.array([live_seq + step]))
                if there[0]:
                    lines.append(f"live   {_brief(live.ticks['tick'][place[0]])}")
        return lines


def _feeds(session: Session, paths: Sequence[str], say: Callable[[str], None]) -> list[tuple[Header, list[str]]]:
    """The captures of each feed that were recorded beside the session, in the order in which they were written."""
    known = {capture[:2] for capture in session.captures}
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    heads: dict[tuple[str, tuple[str, ...]], Header] = {}
    for files in captures.order(paths):
        for name in files:
            header = captures.header(name)
            if header is None or (header.session, header.part) not in known:
                say(f"{name} was not recorded beside this session: left out")
                continue
            heads.setdefault(header[:2], header)
            found.setdefault(header[:2], []).append(name)
    if not found:
        named = sorted({capture.session for capture in session.captures})
        raise ConfigError("none of the captures was recorded beside this session",
                          where=f"{session.folder}: it names {', '.join(named) or 'none'}",
                          remedy="name those that `alpha record --session` wrote with it")
    return [(heads[feed], files) for feed, files in found.items()]


def _names(session: Session, header: Header) -> tuple[str, ...]:
    """What the symbols of a feed are called in the session."""
    config = session.config
    if (config.market.venue, config.market.symbols) == header[:2]:
        return header.symbols
    for name, feed in config.feeds.items():
        if (feed.venue, feed.symbols) == header[:2]:
            return tuple(f"{name}:{symbol}" for symbol in header.symbols)
    raise ConfigError("a capture is of no feed of the session", where=f"{header.venue}: {', '.join(header.symbols)}")


def _numbered(files: Sequence[str]) -> Iterator[tuple[int, int, bytes, str]]:
    """(recv_ns, line number, text, file) of all lines; the files are those of one feed, one after the other."""
    for name in files:
        for number, (recv_ns, text) in enumerate(captures.lines(name), 1):
            yield recv_ns, number, text, name


def _firsts(differs: np.ndarray) -> Iterator[tuple[int, int]]:
    """(row, first column) of each row of bool[n, k] that has any."""
    rows = np.flatnonzero(differs.any(axis=1))
    return zip(rows.tolist(), differs[rows].argmax(axis=1).tolist())


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.int64) if values.dtype == np.float64 else values.astype(np.int64)


def _brief(tick: np.ndarray) -> str:
    kind = KIND_NAMES.get(int(tick[KIND]), "?")
    return (f"seq {tick[SEQ]}  {kind:<5} flags {tick[FLAGS]}  id {tick[VENUE_ID]}  event_ns {tick[EVENT_NS]}  "
            f"bid {tick[BID_PX]} x {tick[BID_QTY]}  ask {tick[ASK_PX]} x {tick[ASK_QTY]}")
