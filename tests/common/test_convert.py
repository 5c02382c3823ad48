"""Conversions: every format ends as the same ticks, by way of a capture or at once; mistakes are named."""

import shutil
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from common import capture_lines, captures, convert
from common.capture_lines import Connect, Disconnect, End, Header, Http, Missed, State
from common.clock import ManualClock
from common.convert import Options, open_sources, recognise, ticks
from common.errors import ConfigError, ResourceError, VenueError
from common.layout import BOOK_NS, EVENT_NS, RECV_NS, SEQ
from common.market import Market
from common.player import Player
from common.ring import Books
from common.venues import create
from tests.common.imports.test_hftbacktest import DAY as EVENTS
from tests.common.imports.test_hftbacktest import write as write_npz
from tests.common.imports.test_lobster import write as write_lobster
from tests.common.imports.test_sessions import LINES as SESSION
from tests.common.imports.test_sessions import write as write_session
from tests.common.imports.test_tardis import BOOK, BOOK_HEAD, TRADES, TRADES_HEAD
from tests.common.imports.test_tardis import write as write_tardis

FRAME = b'{"channel":"orderbook:A","type":"%s","sequence":%d,"timestamp":%d,"bids":[["%d","1"]],"asks":[["200","1"]]}'


def frame(number: int, kind: bytes = b"delta") -> bytes:
    return FRAME % (kind, number, number, 100 + number % 50)


def capture(path, lines):
    path.write_bytes(b"".join(b"%d %s\n" % (recv_ns, text if isinstance(text, bytes) else capture_lines.encode(text))
                              for recv_ns, text in lines))
    return path


LINES = [(1, Header("vectrade", ("A",))), (2, Connect("ws://x")), (3, frame(1, b"snapshot")),
         *((10 + i, frame(i)) for i in range(2, 40)), (60, Missed(3)), (61, State("A", frame(50, b"snapshot"))),
         (62, frame(51)), (63, Disconnect("done")), (64, End(41, 3))]


@pytest.fixture
def ours(tmp_path):
    return capture(tmp_path / "ours.log", LINES)


def run(sources, target, **options):
    said: list[str] = []
    return convert.convert(sources, target, said.append, Options(**options)), said


def all_ticks(path, **options) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(ticks(open_sources([path], print, Options(**options))))


def equal(one, other, columns=slice(None)) -> bool:
    return all((a[0] == b[0]).all() and (a[1][:, columns] == b[1][:, columns]).all()
               for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["a.log", "a.gz", "a.zst"])
def test_a_capture_is_packed_anew_and_plays_the_same(tmp_path, ours, name):
    summary, said = run([ours], tmp_path / name)
    assert summary == (str(tmp_path / name), "capture", "vectrade", ("A",), len(LINES) - 2, 0, {}) and not said
    again = list(captures.lines(tmp_path / name))
    assert again[1:-1] == list(captures.lines(ours))[1:-1]
    assert capture_lines.parse(again[-1][1]) == End(40, 3)
    assert equal(all_ticks(ours), all_ticks(tmp_path / name))


def test_ticks_are_those_of_the_live_market(tmp_path, ours):
    """A market that is driven by hand, and what stands in the Parquet file."""
    books, venue, clock = Books.private(("A",), 64), create("vectrade", ("A",)), ManualClock()
    player = Player(Market(venue, books, clock), venue, clock)
    for recv_ns, text in captures.tape([ours]):
        player.play(recv_ns, text)
    expected = books.ticks[0][1:int(books.heads[0]) + 1]
    (symbols, found), = all_ticks(ours)
    assert not symbols.any() and (found == expected).all(), "the book is stamped when the frame was received"
    summary, _ = run([ours], tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert summary.ticks == len(expected) == table.num_rows and summary.counts["snapshots"] == 2
    assert table["recv_ns"].to_numpy().tolist() == expected[:, RECV_NS].tolist()
    assert table["valid"].to_pylist()[-1] is False


def test_ticks_of_several_symbols_come_in_the_order_of_the_stream(tmp_path):
    other = [(recv_ns, text.replace(b"book:A", b"book:B") if isinstance(text, bytes) else text)
             for recv_ns, text in LINES[2:41]]
    path = capture(tmp_path / "a.log", [(1, Header("vectrade", ("A", "B"))), *(
        line for pair in zip(LINES[2:41], other) for line in pair)])
    (symbols, found), = all_ticks(path)
    assert symbols.tolist() == [0, 1] * 39
    assert found[::2, SEQ].tolist() == found[1::2, SEQ].tolist() == list(range(1, 40))


def test_long_captures_are_taken_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "_RING", 64)
    monkeypatch.setattr(convert, "_FRAME_TICKS", 32)
    monkeypatch.setattr(convert, "SAY_EVERY", 500)
    path = capture(tmp_path / "a.log", [(1, Header("vectrade", ("A",))), (2, frame(1, b"snapshot")), *(
        (i, frame(i)) for i in range(2, 2001))])
    blocks = all_ticks(path)
    assert len(blocks) > 50 and np.concatenate([block[:, SEQ] for _, block in blocks]).tolist() == list(range(1, 2001))
    summary, said = run([path], tmp_path / "a.parquet")
    assert summary.ticks == 2000 and said[0] == "500 messages, 499 ticks"


def test_captures_of_sessions_that_follow_each_other_become_one(tmp_path, ours):
    later = capture(tmp_path / "later.log", [(recv_ns + 1000, text) for recv_ns, text in LINES])
    run([later, ours], tmp_path / "both.zst")
    kinds = [type(capture_lines.parse(text)).__name__ for _, text in captures.lines(tmp_path / "both.zst")
             if capture_lines.is_control(text)]
    assert kinds == ["Header", "Connect", "Missed", "State", "Disconnect", "Disconnect", "Connect", "Connect", "Missed",
                     "State", "Disconnect", "End"]
    joined = list(ticks(open_sources([later, ours], print)))
    assert equal(joined, all_ticks(tmp_path / "both.zst"))


# Each foreign format: at once to ticks, and by way of a capture.

@pytest.fixture(params=["lobster", "archive", "tardis", "hftbacktest", "session"])
def foreign(request, tmp_path):
    """(format, files)"""
    if request.param == "lobster":
        return "lobster", [write_lobster(tmp_path)]
    if request.param == "archive":
        path = write_lobster(tmp_path)
        with zipfile.ZipFile(tmp_path / "day.zip", "w") as archive:
            for name in (path.name, path.name.replace("message", "orderbook")):
                archive.write(tmp_path / name, name)
        return "lobster", [tmp_path / "day.zip"]
    if request.param == "tardis":
        return "tardis", [write_tardis(tmp_path, "b.csv.gz", BOOK_HEAD, BOOK),
                          write_tardis(tmp_path, "t.csv", TRADES_HEAD, TRADES)]
    if request.param == "hftbacktest":
        return "hftbacktest", [write_npz(tmp_path / "btcusdt.npz", EVENTS)]
    return "session", [write_session(tmp_path, SESSION[:-3] + SESSION[-2:], name="s.jsonl.zst")]


def test_every_format_is_recognised(foreign):
    kind, paths = foreign
    assert {recognise(path) for path in paths} == {kind}


def test_every_format_makes_the_same_ticks_by_way_of_a_capture(tmp_path, foreign):
    """But for the event's time, of which the words of a capture keep the milliseconds."""
    kind, paths = foreign
    direct, _ = run(paths, tmp_path / "direct.parquet", exact=True)
    told, _ = run(paths, tmp_path / "told.zst")
    played, _ = run([told.target], tmp_path / "played.parquet", exact=True)
    assert direct.format == kind and direct.ticks == played.ticks > 0 and direct.venue == played.venue == told.venue
    one, other = (pq.read_table(tmp_path / name) for name in ("direct.parquet", "played.parquet"))
    columns = [name for name in one.column_names if name not in ("event_ns", "venue_id")]
    assert one.select(columns).to_pylist() == other.select(columns).to_pylist()
    if direct.venue == "vectrade":
        assert [(row or 0) // 1_000_000 for row in one["event_ns"].to_pylist()] == [
            (row or 0) // 1_000_000 for row in other["event_ns"].to_pylist()]
    else:
        assert one["event_ns"].to_pylist() == other["event_ns"].to_pylist()


def test_every_format_passes_the_checks_of_the_market(foreign):
    counts: dict[str, int] = {}
    list(ticks(open_sources(foreign[1], print), print, counts))
    assert counts["ticks"] and not any(counts[name] for name in ("gaps", "crossed", "malformed", "lost"))


# Mistakes.

def test_what_is_there_is_not_overwritten(tmp_path, ours):
    with pytest.raises(ConfigError, match="already"):
        run([ours], ours)
    assert list(captures.lines(ours))


@pytest.mark.parametrize("name", ["a.parquet", "a.zst", "a.gz", "a.log"])
def test_nothing_half_stays_after_an_error(tmp_path, ours, name):
    ours.write_bytes(ours.read_bytes() + b"nonsense\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(VenueError, match=r"ours\.log:\d+"):
        run([ours], tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["a.parquet", "a.zst", "a.log"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, ours, name):
    with pytest.raises(ResourceError, match=name):
        run([ours], tmp_path / "nowhere" / name)


def test_unknown_files_are_refused_with_what_is_known(tmp_path, ours):
    (tmp_path / "x.csv").write_text("time,price\n1,2\n")
    with pytest.raises(ConfigError, match="capture, session, lobster, tardis, hftbacktest"):
        recognise(tmp_path / "x.csv")
    with pytest.raises(ConfigError, match="none.csv"):
        recognise(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="several formats"):
        run([ours, write_npz(tmp_path / "a.npz", EVENTS)], tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="unknown format"):
        run([ours], tmp_path / "a.parquet", format="excel")
    with pytest.raises(ConfigError, match="at least one"):
        run([], tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="one by one"):
        run([write_session(tmp_path), write_session(tmp_path, name="t.jsonl")], tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="of one symbol"):
        run([tmp_path / "a.npz"], tmp_path / "a.parquet", symbols=("A", "B"))


def test_a_format_can_be_named_where_names_mislead(tmp_path):
    path = write_tardis(tmp_path, "XYZ_2012-06-21_1_2_message_3.csv", BOOK_HEAD, BOOK)
    assert recognise(path) == "lobster"
    assert open_sources([path], print, Options(format="tardis")).format == "tardis"


def test_numbers_with_more_digits_than_a_double_are_told(tmp_path):
    path = write_npz(tmp_path / "a.npz", [(*row[:3], row[3], 80_000_000_000.5 if row[4] == 2 else row[4])
                                          for row in EVENTS[:6]])
    _, said = run([path], tmp_path / "a.parquet", lot="0.1")
    assert not said, "a half is exact in a double of any size"
    found = pq.read_table(tmp_path / "a.parquet")
    assert found["bid_qty_1"].to_pylist() == [80_000_000_000.5]


def test_a_refused_frame_is_told_and_the_stream_goes_on(tmp_path):
    path = capture(tmp_path / "a.log", [LINES[0], (2, frame(1, b"snapshot")), (3, b'{"channel":"x","type":"y"}'),
                                        (4, frame(2))])
    summary, said = run([path], tmp_path / "a.parquet")
    assert summary.ticks == 2 and summary.counts["malformed"] == 1 and "unknown channel" in said[0]


def test_an_empty_source_has_nothing_to_write(tmp_path):
    path = capture(tmp_path / "a.log", LINES[:1])
    with pytest.raises(VenueError, match="nothing in it"):
        run([path], tmp_path / "b.zst")
    assert run([path], tmp_path / "b.parquet")[0].ticks == 0


# The recordings.

def test_foreign_recordings_of_binance_become_captures_with_their_control_lines(recordings, tmp_path):
    source = recordings / "binance" / "usdm_btcusdt_20240718.gz"
    summary, said = run([source], tmp_path / "a.zst")
    assert not said and (summary.venue, summary.symbols) == ("binance-usdm", ("BTCUSDT",))
    controls = [capture_lines.parse(text) for _, text in captures.lines(tmp_path / "a.zst")
                if capture_lines.is_control(text)]
    assert [type(line) for line in controls] == [Header, Connect, Http, End]
    assert controls[2].symbol == "BTCUSDT" and controls[3].frames == 11_413
    assert equal(all_ticks(source), all_ticks(tmp_path / "a.zst"))


def test_a_recording_of_binance_becomes_ticks(recordings, tmp_path):
    source = shutil.copy(recordings / "binance" / "usdm_btcusdt_20240718.gz", tmp_path / "copy.gz")
    summary, _ = run([source], tmp_path / "a.parquet")
    counts = summary.counts
    assert summary.ticks == counts["ticks"] and counts["quote_checks"] > 30 and "quote_mismatches" not in counts
    table = pq.read_table(tmp_path / "a.parquet")
    blocks = np.concatenate([block for _, block in all_ticks(source)])
    assert (table["event_ns"].to_numpy() == blocks[:, EVENT_NS]).all() and (blocks[:, BOOK_NS] > 0).all()
