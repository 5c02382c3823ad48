"""Frames played many at a time leave the market as frames played one by one do, to the last number."""

import gzip
from itertools import islice

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import captures, venues
from common.backtest.frames import Frames, Tape
from common.capture_lines import Connect, Disconnect, Header, Http, Missed, Stale, encode
from common.captures import Lines
from common.clock import ManualClock
from common.errors import VenueError
from common.market import COUNTERS, QUOTES, Market, State, Symbol
from common.player import Player
from common.ring import Books
from tests.frames import delta, depth, rest, snapshot, ticker, trade

S = 10**9


class Driven:
    """A market that plays a recording."""

    def __init__(self, venue: str, symbols, capacity: int = 64) -> None:
        self.clock, self.books = ManualClock(), Books.private(symbols, capacity)
        self.books.epoch = 1
        venue = venues.create(venue, symbols)
        self.market = Market(venue, self.books, self.clock, seed=0)
        self.player = Player(self.market, venue, self.clock)
        self.moved: list = []

    def singly(self, lines) -> "Driven":
        for recv_ns, text in lines:
            self.player.play(recv_ns, text)
            refs = self.market.take_refs()
            if refs:
                self.moved.append((recv_ns, refs))
        return self

    def many(self, runs, most: int = 1000, ticks: int = 1000) -> "Driven":
        frames, tape = Frames(self.player, self.clock, self.books), Tape(iter(runs))
        while count := frames.play(tape, most, ticks):
            assert count <= most
            self.moved += frames.moved
        return self

    def stands(self) -> dict:
        """All that can be told of it."""
        symbols = [[getattr(symbol, name) for name in Symbol.__slots__ if name not in (
                        "book", "ticks", "quotes", "backoff", "buffer")]
                   + [list(symbol.quotes), [delta[:5] for delta in symbol.buffer], symbol.backoff.failed(),
                      *(part.tolist() if isinstance(part, np.ndarray) else part for part in symbol.book.levels())]
                   for symbol in self.market.symbols]
        for symbol in self.market.symbols:
            symbol.book._check()
        return {"symbols": symbols, "ticks": [ticks.tolist() for ticks in self.books.ticks],
                "heads": self.books.heads.tolist(), "moved": self.moved, "clock": self.clock.now_ns,
                "counts": {name: getattr(self.market.counts, name) for name in COUNTERS},
                "refused": list(self.market.refused), "notices": list(self.market.notices),
                "missed": self.player.missed, "ask": self.market._next_ask_ns}


def run(lines) -> Lines:
    """Lines in memory."""
    texts = [text for _, text in lines]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return Lines(b"".join(texts), np.array([at for at, _ in lines], np.int64),
                 ends - np.array([len(text) for text in texts], np.int64), ends)


def both(venue: str, symbols, lines, most: int = 1000, capacity: int = 64) -> Driven:
    """The market that plays many at a time, found to be as the other."""
    one = Driven(venue, symbols, capacity).singly(lines)
    several = Driven(venue, symbols, capacity).many([run(lines)] if lines else [], most)
    assert several.stands() == one.stands()
    return several


def timed(*frames: bytes, begin: int = S) -> list[tuple[int, bytes]]:
    return [(begin + i * 1000, frame) for i, frame in enumerate(frames)]


# ---- recordings


@pytest.mark.parametrize("pattern, most", [("usdm_*", 40_000), ("cm_*", 15_000), ("spot_*", 15_000)])
def test_a_recording_makes_the_same_market(recordings, pattern, most):
    paths = sorted((recordings / "binance").glob(f"{pattern}.gz"))
    told = captures.describe(paths)
    one = Driven(told.venue, told.symbols, 4096).singly(islice(captures.tape(paths), most))
    several, taken = Driven(told.venue, told.symbols, 4096), []

    def runs():
        left = most
        for lines in captures.runs(paths):
            taken.append(lines.part(0, left))
            yield taken[-1]
            left -= taken[-1].recv_ns.size
            if not left:
                return

    singles = []
    play = several.player.play
    several.player.play = lambda *line: (singles.append(line), play(*line))
    several.many(runs())
    assert several.stands() == one.stands()
    assert len(singles) < most / 100, "nearly all of it is for the kernel"
    assert one.market.counts.ticks > most / 5 and one.market.counts.quote_checks > 100


def test_a_chunk_of_any_size_is_the_same():
    lines = timed(snapshot("A", 1), *(frame for i in range(2, 40) for frame in (
        ticker("A", i), delta("A", i, bids=[(90 + i % 5, i)]), trade("A", i), trade("B", i))))
    for most in (1, 2, 7, 1000):
        both("vectrade", ("A", "B"), lines, most)
    few = Driven("vectrade", ("A", "B")).many([run(lines)], ticks=5)
    assert few.stands() == Driven("vectrade", ("A", "B")).singly(lines).stands()


# ---- what goes wrong

KINDS = ["delta"] * 12 + ["trade"] * 4 + ["quote"] * 6 + [
    "snapshot", "snapshot", "wrong quote", "gap", "old", "garbage", "connect", "handover", "disconnect", "missed",
    "stale", "spaces", "error"]
STEPS = st.lists(st.tuples(
    st.sampled_from(KINDS), st.integers(0, 1), st.lists(st.tuples(st.integers(95, 105), st.integers(0, 2)), max_size=3),
    st.lists(st.tuples(st.integers(100, 110), st.integers(0, 2)), max_size=3), st.integers(-2, 3)), max_size=80)


def story(steps, by_http: bool) -> list[tuple[int, bytes]]:
    """A recording in which a book is mostly followed, and anything else happens too."""
    names, at, numbers, lines = "AB", [1, 1], [0, 0], []

    def whole(s: int, bids, asks) -> bytes:
        bids, asks = [(94, 1), *bids], [(111, 1), *asks]
        if by_http:
            return encode(Http(names[s], "", 200, rest(at[s], bids, asks)))
        return snapshot(names[s], at[s], bids, asks)

    def changed(s: int, before: int, last: int, bids, asks) -> bytes:
        return depth(names[s], last, last, before, bids, asks) if by_http else delta(names[s], last, bids, asks)

    steps = [("snapshot", 0, [], [], 0), ("snapshot", 1, [], [], 0), *steps]
    for i, (kind, s, bids, asks, n) in enumerate(steps):
        name = names[s]
        before, numbers[s] = at[s], numbers[s] + 1
        if kind in ("delta", "gap", "spaces"):
            at[s] += 2 if kind == "gap" else 1
        bids = [level for level in bids if level[0] < 100 or n == 3]  # it is crossed at times
        frame = {
            "delta": lambda: changed(s, before, at[s], bids, asks),
            "gap": lambda: changed(s, before + 1, at[s], bids, asks),
            "old": lambda: changed(s, before - 2, at[s] - 1, bids, asks),
            "spaces": lambda: changed(s, before, at[s], bids, asks).replace(b",", b" ,", 1),
            "snapshot": lambda: whole(s, bids, asks),
            "trade": lambda: of_usdm("trade", name, numbers[s] - max(n, 0), side=n > 0) if by_http else trade(
                name, numbers[s] - max(n, 0), side="BUY" if n > 0 else "SELL"),
            "quote": lambda: quoted(name, at[s] + n, by_http, 0),
            "wrong quote": lambda: quoted(name, at[s] + n, by_http, 7),
            "garbage": lambda: b'{"a":1}', "error": lambda: b'{"code":-1,"msg":"no"}',
            "connect": lambda: encode(Connect("ws://x")), "handover": lambda: encode(Connect("ws://x", True)),
            "disconnect": lambda: encode(Disconnect("x")), "missed": lambda: encode(Missed(3)),
            "stale": lambda: encode(Stale(name))}[kind]()
        lines.append((S + i * 400_000_000 + n, frame))
    return lines


def of_usdm(kind: str, symbol: str, number: int, bid=(94, 1), ask=(111, 1), side: bool = True) -> bytes:
    if kind == "trade":
        data = {"e": "trade", "E": 1, "T": 1000 + number, "s": symbol, "t": number, "p": "100", "q": "1",
                "X": "MARKET", "m": side}
    else:
        data = {"e": "bookTicker", "u": number, "s": symbol, "b": str(bid[0]), "B": str(bid[1]), "a": str(ask[0]),
                "A": str(ask[1]), "T": 1000, "E": 1}
    return orjson.dumps({"stream": "x", "data": data})


def quoted(symbol: str, number: int, by_http: bool, off: int) -> bytes:
    number = max(number, 0)
    return of_usdm("quote", symbol, number, (94 + off, 1)) if by_http else ticker(symbol, number, 94 + off, 1, 111, 1)


@settings(max_examples=150)
@given(STEPS, st.booleans(), st.sampled_from([3, 1000]))
def test_whatever_happens_both_ways_tell_the_same_story(steps, by_http, most):
    both("binance-usdm" if by_http else "vectrade", ("A", "B"), story(steps, by_http), most, capacity=16)


def test_a_crossed_book_is_withdrawn_and_the_others_go_on():
    lines = timed(snapshot("A", 1), snapshot("B", 1), delta("A", 2, bids=[(102, 1)]), delta("B", 2), delta("A", 3),
                  snapshot("A", 3), delta("A", 4))
    several = both("vectrade", ("A", "B"), lines)
    assert several.market.counts.crossed == 1 and several.market.valid_symbols == 2


@pytest.mark.parametrize("order", ["QCL", "CQL", "CLQ", "QACL"])
@pytest.mark.parametrize("bid, mismatches", [("99.5", 0), ("99.4", 1)])
def test_a_quote_is_compared_whichever_comes_first(order, bid, mismatches):
    frames = {"Q": ticker("A", 2, bid=bid), "A": ticker("A", 3, bid=100), "C": delta("A", 2, bids=[("99.5", 1)]),
              "L": delta("A", 3, bids=[(100, 1)])}
    several = both("vectrade", ("A",), timed(snapshot("A", 1), *(frames[letter] for letter in order)))
    counts = several.market.counts
    assert counts.quote_mismatches == mismatches and counts.quote_checks == 1 + (order == "QACL" and not mismatches)
    assert (several.market.symbols[0].state is State.VALID) == (not mismatches)
    assert len(several.moved[-1][1]) == 1, "the newest tick of a symbol stands for those before it"


def test_quotes_far_ahead_of_the_book_are_bounded():
    lines = timed(snapshot("A", 1), *(ticker("A", 10 + i) for i in range(QUOTES + 1500)),
                  b'{"not":"known"}', ticker("A", 9000), *(delta("A", 2 + i) for i in range(2000)))
    several = both("vectrade", ("A",), lines)
    assert several.market.counts.quote_checks == 2001 - 1510 and len(several.market.symbols[0].quotes) < QUOTES


def test_a_book_grows_and_each_keeps_its_own():
    lines = timed(snapshot("A", 1), snapshot("B", 1), *(
        frame for i in range(5) for frame in (
            delta("A", 2 + i, bids=[(f"{1 + i * 8 + k / 100:.2f}", 1) for k in range(700)]),
            delta("B", 2 + i, asks=[(200 + i, 1)]))))
    several = both("vectrade", ("A", "B"), lines)
    assert several.market.symbols[0].book.state[2] > 1024 == several.market.symbols[1].book.state[2]
    assert several.market.valid_symbols == 2


def test_a_frame_of_more_levels_than_there_is_room_for_is_played_too():
    bids = [(f"{1 + i / 1000:.3f}", 1) for i in range(9000)]
    lines = timed(snapshot("A", 1), delta("A", 2, bids=bids), delta("A", 3))
    assert both("vectrade", ("A",), lines).books.heads[0] == 3


def test_stamps_that_go_back_or_lie_far_apart_are_kept_as_they_are():
    top = 2**63 - 1
    frames = [snapshot("A", 1), delta("A", 2), trade("A", 1), delta("A", 3), delta("A", 4), trade("A", 2)]
    for stamps in ([5, 4, 3, 2, 1, 1], [1, top, 1, 10**18, top, 2], [1, 10**11, 1, 10**11, 5 * 10**10, 1]):
        several = both("vectrade", ("A",), list(zip(stamps, frames, strict=True)))
        assert several.clock.now_ns == max(stamps)
    assert several.market.counts.clock_jumps == 5


def test_control_lines_and_venues_without_shapes_are_played_line_by_line(tmp_path):
    lines = [(5, encode(Header("kraken", ("BTC/USD",)))), (6, encode(Connect("ws://x"))), (7, b"[1]"),
             (8, b'{"channel":"heartbeat"}')]
    several = both("kraken", ("BTC/USD",), lines)
    assert several.market.counts.frames == 2 and several.clock.now_ns == 8


def test_a_line_that_cannot_be_played_is_told_when_those_before_it_were_seen(recordings, tmp_path):
    source = recordings / "binance" / "usdm_ethusdt_20240718.gz"
    lines = gzip.decompress(source.read_bytes()).split(b"\n")[:3000]
    for bad, match in ((b"hello", ":2001"), (b'1721300000000000000 {"alpha":"nonsense"}', "no known kind")):
        lines[2000] = bad
        path = tmp_path / "capture"
        path.write_bytes(b"\n".join(lines) + b"\n")
        driven = Driven("binance-usdm", ("ETHUSDT",), 4096)
        frames, tape, moved = Frames(driven.player, driven.clock, driven.books), Tape(captures.runs([path])), 0
        with pytest.raises(VenueError, match=match):
            while frames.play(tape, 1024, 1024):
                moved += len(frames.moved)
        assert tape.played == 2000 and moved == driven.market.counts.ticks > 200
        with pytest.raises(VenueError, match=match):
            frames.play(tape, 1024, 1024)
