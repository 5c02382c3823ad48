"""LOBSTER: the book rebuilt from messages equals the book file, and what does not is named."""

import zipfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.clock import ManualClock
from common.convert import open_sources, ticks
from common.errors import ConfigError, VenueError
from common.events import Delta, Lost, Snapshot, Trade
from common.fixed import SCALE
from common.imports import lobster
from common.imports.source import Prepared
from common.layout import ASK_PX, ASK_QTY, BID_PX, BID_QTY, KIND, KIND_BOOK
from common.market import Market
from common.ring import Books

NAME = "XYZ_2012-06-21_34200000_57600000_message_2.csv"
MIDNIGHT = 1_340_251_200 * 10**9  #: 2012-06-21 in New York, which was four hours behind

#: (message, book after it) of two levels a side
DAY = [
    ("34200.015105074,1,100,10,1000100,-1", "1000100,10,1000000,5,1000200,7,999900,6"),
    ("34200.5,1,101,3,1000000,1", "1000100,10,1000000,8,1000200,7,999900,6"),
    ("34201,1,102,4,1000050,1", "1000100,10,1000050,4,1000200,7,1000000,8"),  # pushes out 999900
    ("34202.000000001,4,102,1,1000050,1", "1000100,10,1000050,3,1000200,7,1000000,8"),
    ("34203,5,0,50,1000075,-1", "1000100,10,1000050,3,1000200,7,1000000,8"),
    ("34204,2,100,4,1000100,-1", "1000100,6,1000050,3,1000200,7,1000000,8"),
    ("34205,3,102,3,1000050,1", "1000100,6,1000000,8,1000200,7,999900,9"),  # 999900 is back, changed beyond
    ("34206,3,7,5,1000000,1", "1000100,6,1000000,3,1000200,7,999900,9"),  # rested before the beginning
    ("34207,3,100,6,1000100,-1", "1000200,7,1000000,3,1000300,1,999900,9"),  # 1000300 was never seen
    ("34208,3,55,7,1000200,-1", "1000300,1,1000000,3,9999999999,0,999900,9"),  # and there is no other
]


def write(folder, day=DAY, name=NAME):
    path = folder / name
    path.write_text("".join(f"{message}\n" for message, _ in day))
    (folder / name.replace("message", "orderbook")).write_text("".join(f"{book}\n" for _, book in day))
    return path


def read(*paths):
    said: list[str] = []
    source = lobster.source(paths, said.append)
    return source, list(source.messages), said


def test_a_day_becomes_the_events_that_made_it(tmp_path):
    source, messages, said = read(write(tmp_path))
    assert source[:3] == ("lobster", "vectrade", ("XYZ",)) and source.prepared and not said
    kinds = [[type(event) for event in events] for _, events in messages]
    assert kinds == [[Snapshot], [Delta], [Delta], [Trade, Delta], [Trade], [Delta], [Delta], [Delta], [Delta], [Delta]]
    assert messages[0][0] == MIDNIGHT + 34_200_015_105_074 and messages[3][0] == MIDNIGHT + 34_202_000_000_001
    assert {count: source.counts[count] for count in source.counts if source.counts[count]} == {
        "rows": 10, "equal_1": 10, "equal_5": 8, "equal_10": 8, "returned_changed": 1, "appeared": 1,
        "orders_before": 2}


def test_who_executes_is_the_other_side(tmp_path):
    trades = [event for _, events in read(write(tmp_path))[1] for event in events if isinstance(event, Trade)]
    assert [(trade.trade_id, trade.price, trade.qty) for trade in trades] == [
        (4, 100_00500000 * 100 // 100, -1 * SCALE), (5, 100_00750000, 50 * SCALE)]


def test_a_change_is_what_differs_and_levels_that_leave_are_removed(tmp_path):
    messages = read(write(tmp_path))[1]
    delta = messages[2][1][0]
    assert delta.levels.tolist() == [[100_00500000, 4 * SCALE], [99_99000000, 0]] and delta.n_asks == 0


def test_a_halt_ends_the_validity_of_the_book_until_trading_resumes(tmp_path):
    book = DAY[1][1]
    day = [DAY[0], DAY[1], ("34201,7,0,0,-1,-1", book), ("34202,7,0,0,0,-1", book),
           ("34203,1,9,1,1000000,1", "1000100,10,1000000,9,1000200,7,999900,6"),
           ("34204,7,0,0,1,-1", "1000100,10,1000000,9,1000200,7,999900,6")]
    source, messages, _ = read(write(tmp_path, day))
    assert [type(event) for _, events in messages for event in events] == [Snapshot, Delta, Lost, Snapshot]
    assert source.counts["halts"] == 1 and messages[-1][1][0].levels[0].tolist() == [100_00000000, 9 * SCALE]


def test_an_auction_has_no_aggressor(tmp_path):
    source, messages, _ = read(write(tmp_path, [DAY[0], ("34201,6,-1,500,1000000,1", DAY[0][1])]))
    assert len(messages) == 1 and source.counts["crosses"] == 1


@pytest.mark.parametrize("number, book", [
    (1, "1000100,10,1000000,9,1000200,7,999900,6"),  # another size at the level of the message
    (1, "1000100,11,1000000,8,1000200,7,999900,6"),  # the other side changed
    (1, "1000100,10,1000000,8,1000200,7,999800,6"),  # a level was swapped, nothing having left
    (4, "1000100,10,1000050,3,1000200,7,999900,8"),  # a hidden execution changes nothing
    (6, "1000100,6,1000010,1,1000200,7,1000000,8"),  # what comes in is not behind all that is known
])
def test_a_row_that_contradicts_its_message_is_counted_said_and_taken_as_a_snapshot(tmp_path, number, book):
    day = [*DAY[:number], (DAY[number][0], book)]
    source, messages, said = read(write(tmp_path, day))
    assert source.counts["contradictions"] == 1 and f"orderbook_2.csv:{number + 1}" in said[0]
    assert isinstance(messages[-1][1][-1], Snapshot)


@pytest.mark.parametrize("message", ["34206,3,101,9,1000000,1", "34206,2,101,5,1000000,1", "34206,4,100,1,1000000,1"])
def test_a_message_that_contradicts_its_order_is_counted(tmp_path, message):
    source, _, _ = read(write(tmp_path, [*DAY[:2], (message, "1000100,10,1000000,4,1000200,7,999900,6")]))
    assert source.counts["orders_wrong"] == 1


@pytest.mark.parametrize("bad", ["", "x", "34200,9,1,1,1,1", "34200,1,1,1,1,2", "34200,1,1,-1,1,1", "34200,1,1,1,0,1",
                                 "34200,1,1,0,5,1", "34200.0000000001,1,1,1,1,1", "-1,1,1,1,1,1", "34200,1,1,1,1"])
def test_a_bad_message_is_named_by_file_and_line(tmp_path, bad):
    with pytest.raises(VenueError, match=r"message_2\.csv:2: "):
        read(write(tmp_path, [DAY[0], (bad, DAY[1][1])]))


@pytest.mark.parametrize("bad", ["", "1,2,3", DAY[1][1] + ",5,5,5,5", DAY[1][1].replace("6", "six")])
def test_a_bad_row_is_named_by_file_and_line(tmp_path, bad):
    with pytest.raises(VenueError, match=r":2: "):
        read(write(tmp_path, [DAY[0], (DAY[1][0], bad)]))


def test_files_must_belong_together(tmp_path):
    path = write(tmp_path)
    book = tmp_path / NAME.replace("message", "orderbook")
    book.write_text("".join(book.read_text().splitlines(True)[:-1]))
    with pytest.raises(VenueError, match=r"orderbook_2\.csv:10"):
        read(path)
    book.unlink()
    with pytest.raises(ConfigError, match="orderbook_2"):
        read(path)
    with pytest.raises(ConfigError, match="keep its name"):
        read(tmp_path / "messages.csv")


def test_days_follow_one_another_and_symbols_are_merged_by_time(tmp_path):
    later = write(tmp_path, name=NAME.replace("06-21", "06-22"))
    other = write(tmp_path, name=NAME.replace("XYZ", "ABC"))
    source, messages, _ = read(later, write(tmp_path), other)
    assert source.symbols == ("ABC", "XYZ")
    stamps = [recv_ns for recv_ns, _ in messages]
    assert stamps == sorted(stamps) and len(messages) == 30
    assert Counter(event.symbol for _, events in messages for event in events) == {0: 11, 1: 22}


def test_an_archive_reads_as_its_files(tmp_path):
    path = write(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (NAME, NAME.replace("message", "orderbook")):
            archive.write(tmp_path / name, name)
    assert repr(read(tmp_path / "a.zip")[1]) == repr(read(path)[1])


def test_an_archive_without_what_belongs_to_it_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="a.zip"):
        read(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(NAME, "")
    with pytest.raises(VenueError, match="lacks its book"):
        read(tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(VenueError, match="c.zip"):
        read(tmp_path / "c.zip")


class Exchange:
    """A whole book of orders, of which LOBSTER records what touches the best two levels a side."""

    def __init__(self) -> None:
        self.orders: dict[int, tuple[int, int, int]] = {}  # id -> side, price, shares
        self.day: list[tuple[str, str]] = []
        self.last_id = 0

    def row(self) -> str:
        sides = {}
        for side in (1, -1):
            levels: Counter[int] = Counter()
            for of, price, shares in self.orders.values():
                if of == side:
                    levels[price] += shares
            best = sorted(levels.items(), reverse=side > 0)[:2]
            sides[side] = best + [(-side * 9_999_999_999, 0)] * (2 - len(best))
        return ",".join(f"{a},{n},{b},{m}" for (a, n), (b, m) in zip(sides[-1], sides[1]))

    def step(self, what: int, price: int, shares: int, which: int) -> None:
        before = self.row()
        side = 1 if price < 100 else -1
        if what == 1 or not self.orders:
            self.last_id += 1
            kind, number = 1, self.last_id
            self.orders[number] = (side, price, shares)
        else:
            number = sorted(self.orders)[which % len(self.orders)]
            side, price, held = self.orders.pop(number)
            kind = what if what != 2 or held > 1 else 3
            shares = held if kind == 3 else min(shares, held if kind == 4 else held - 1)
            if shares < held:
                self.orders[number] = (side, price, held - shares)
        if self.row() != before:
            self.day.append((f"{34200 + len(self.day)},{kind},{number},{shares},{price},{side}", self.row()))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from([1, 1, 2, 3, 4]), st.integers(95, 105), st.integers(1, 5),
                                st.integers(0, 50)), min_size=20, max_size=80), early=st.integers(0, 15))
def test_whatever_orders_do_no_row_contradicts_and_the_book_is_that_of_the_file(tmp_path, steps, early):
    exchange = Exchange()
    for step in steps:
        exchange.step(*step)
    day = exchange.day[early:] or exchange.day
    source, messages, said = read(write(tmp_path, day))
    assert not said and source.counts["contradictions"] == source.counts["orders_wrong"] == 0
    books = Books.private(("XYZ",), 8)
    market = Market(Prepared(("XYZ",)), books, ManualClock())
    for (_, events), (_, row) in zip(messages, day, strict=True):
        market.on_frame(events, 0)
        cells, tick = list(map(int, row.split(","))), books.newest(0)
        for start, columns, scale in ((ASK_PX, cells[0::4], 10_000), (BID_PX, cells[2::4], 10_000),
                                      (ASK_QTY, cells[1::4], SCALE), (BID_QTY, cells[3::4], SCALE)):
            assert list(tick[start:start + 3]) == [
                value * scale if abs(value) < 9_999_999_999 else 0 for value in columns] + [0]


# The recordings.

ARCHIVE = "LOBSTER_SampleFile_GOOG_2012-06-21_{}.zip"


@pytest.mark.parametrize("levels, rows, equal", [(1, 49_482, (38_275,) * 3), (5, 112_673, (112_673, 80_770, 80_770))])
def test_every_row_of_the_recordings_is_explained(recordings, levels, rows, equal):
    """The message file of more levels tells of all that happens at the best: every row of it is then as rebuilt."""
    source, _, said = read(recordings / "lobster" / ARCHIVE.format(levels))
    counts = source.counts
    assert not said and not counts["contradictions"] and not counts["orders_wrong"]
    assert counts["rows"] == rows and tuple(counts[f"equal_{depth}"] for depth in (1, 5, 10)) == equal
    adopted = counts["returned"] + counts["returned_changed"] + counts["appeared"]
    assert adopted == rows - equal[1], "one level at most comes in with a row, and always the last"


@pytest.mark.parametrize("levels", [1, 5])
def test_the_ticks_of_a_recording_are_the_rows_of_its_book_file(recordings, levels):
    path = recordings / "lobster" / ARCHIVE.format(levels)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if "orderbook" in name)
        rows = np.array([line.split(b",") for line in archive.read(name).split()], np.int64)
    counts: dict[str, int] = {}
    found = np.concatenate([block for _, block in ticks(open_sources([path], print), print, counts)])
    books = found[found[:, KIND] == KIND_BOOK]
    # Hidden executions change no row: the rows that differ from the one before are those with a tick of the book.
    changed = rows[np.append(True, (rows[1:] != rows[:-1]).any(axis=1))]
    assert len(books) == len(changed) > 40_000
    for start, first, scale in ((ASK_PX, 0, 10_000), (ASK_QTY, 1, SCALE), (BID_PX, 2, 10_000), (BID_QTY, 3, SCALE)):
        assert (books[:, start:start + levels] == changed[:, first::4] * scale).all()
        assert not books[:, start + levels:start + 10].any()
    assert not (counts["crossed"] or counts["gaps"] or counts["malformed"]) and counts["snapshots"] == 1
