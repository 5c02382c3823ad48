"""hftbacktest .npz, written here after its documentation: the local events as changes, trades and snapshots."""

import io
import zipfile

import numpy as np
import pytest

from common.clock import ManualClock
from common.errors import ConfigError, VenueError
from common.events import Delta, Snapshot, Trade
from common.imports import hftbacktest
from common.imports.hftbacktest import BUY, CLEAR, DEPTH, EXCHANGE, LOCAL, SELL, SNAPSHOT, TRADE
from common.imports.source import Prepared
from common.layout import ASK_PX, BID_PX, FLAGS, KIND, TRADE_QTY
from common.market import Market
from common.ring import Books

DTYPE = np.dtype([("ev", "u8"), ("exch_ts", "i8"), ("local_ts", "i8"), ("px", "f8"), ("qty", "f8"),
                  ("order_id", "u8"), ("ival", "i8"), ("fval", "f8")], align=True)
BOTH = EXCHANGE | LOCAL
E8 = 10**8

DAY = [
    (BOTH | CLEAR | BUY, 100, 110, 99.9, 0), (BOTH | SNAPSHOT | BUY, 100, 110, 100.1, 0.3),
    (BOTH | SNAPSHOT | BUY, 100, 110, 99.9, 2), (BOTH | CLEAR | SELL, 100, 110, 100.3, 0),
    (BOTH | SNAPSHOT | SELL, 100, 110, 100.2, 1), (BOTH | SNAPSHOT | SELL, 100, 110, 100.3, 0.1 + 0.2),
    (BOTH | TRADE | BUY, 200, 211, 100.2, 0.25), (BOTH | DEPTH | SELL, 200, 211, 100.2, 0.75),
    (EXCHANGE | DEPTH | BUY, 250, 255, 100.1, 9),
    (BOTH | DEPTH | BUY, 300, 312, 100.1, 0), (BOTH | DEPTH | BUY, 300, 312, 100.0, 1),
    (LOCAL | TRADE | SELL, 300, 312, 100.1, 0.5), (LOCAL | DEPTH | SELL, 300, 312, 100.4, 5),
    (BOTH | 10 | BUY, 310, 320, 100.4, 5), (BOTH | TRADE, 320, 330, 100.4, 5), (BOTH | TRADE | BUY, 320, 330, 100.4, 0),
    # A later snapshot reaches as far as 99.9 and 100.3: what lies behind stays.
    (BOTH | DEPTH | BUY, 400, 410, 90.0, 7),
    (BOTH | CLEAR | BUY, 500, 510, 99.9, 0), (BOTH | SNAPSHOT | BUY, 500, 510, 99.95, 4),
    (BOTH | CLEAR | SELL, 500, 510, 100.3, 0), (BOTH | SNAPSHOT | SELL, 500, 510, 100.15, 3),
]


def write(path, rows, dtype=DTYPE, save=np.savez_compressed):
    data = np.zeros(len(rows), dtype)
    for column, values in zip(("ev", "exch_ts", "local_ts", "px", "qty"), zip(*rows)):
        data[column] = values
    save(path, data=data)
    return path


def read(*paths, **options):
    source = hftbacktest.source(paths, print, **options)
    return source, list(source.messages)


def test_a_day_becomes_its_events(tmp_path):
    source, messages = read(write(tmp_path / "btcusdt_20240101.npz", DAY))
    assert source[:3] == ("hftbacktest", "vectrade", ("btcusdt_20240101",)) and source.prepared
    assert [(recv_ns, type(events[0])) for recv_ns, events in messages] == [
        (110, Snapshot), (211, Trade), (211, Delta), (312, Delta), (312, Trade), (312, Delta), (410, Delta),
        (510, Snapshot)]
    assert source.counts == {"rows": 21, "exchange_only": 1, "passed_over": 1, "unsigned_trades": 1,
                             "empty_trades": 1}


def test_doubles_come_back_as_decimals(tmp_path):
    messages = read(write(tmp_path / "a.npz", DAY))[1]
    assert messages[0][1][0].levels.tolist() == [[10010000000, 30000000], [9990000000, 2 * E8],
                                                 [10020000000, E8], [10030000000, 30000000]]
    assert messages[1][1] == [Trade(0, 0, 200, 10020000000, 25000000)] and messages[4][1][0].qty == -50000000


def test_a_snapshot_replaces_only_what_it_reaches(tmp_path):
    books = Books.private(("A",), 16)
    market = Market(Prepared(("A",)), books, ManualClock())
    for recv_ns, events in read(write(tmp_path / "a.npz", DAY), symbol="A")[1]:
        market.on_frame(events, recv_ns)
    found = books.ticks[0][1:int(books.heads[0]) + 1]
    assert found[:, KIND].tolist() == [1, 2, 1, 1, 2, 1, 1, 1] and found[[0, -1], FLAGS].tolist() == [3, 3]
    assert found[-1, BID_PX:BID_PX + 3].tolist() == [9995000000, 9000000000, 0]
    assert found[-1, ASK_PX:ASK_PX + 3].tolist() == [10015000000, 10040000000, 0]
    assert found[4, TRADE_QTY] == -50000000


def test_without_a_side_everything_is_cleared(tmp_path):
    rows = [*DAY[:6], (BOTH | CLEAR, 600, 610, 0, 0), (BOTH | SNAPSHOT | BUY, 600, 610, 1, 1)]
    messages = read(write(tmp_path / "a.npz", rows))[1]
    assert messages[-1][1][0].levels.tolist() == [[E8, E8]]


def test_files_follow_one_another_by_time(tmp_path):
    later = write(tmp_path / "a.npz", DAY[6:])
    first = write(tmp_path / "b.npz", DAY[:6])
    whole = write(tmp_path / "c.npz", DAY)
    assert repr(read(later, first)[1]) == repr(read(whole)[1])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_long_files_are_read_block_by_block(tmp_path, save):
    rows = DAY[:6] + [(BOTH | DEPTH | BUY, 1000 + i, 1010 + i, 50 + i % 100 / 10, 1 + i % 7) for i in range(40_000)]
    source, messages = read(write(tmp_path / "a.npz", rows, save=save))
    assert len(messages) == 40_001 and source.counts["rows"] == 40_006


def test_increments_make_great_numbers_exact_and_refuse_what_is_none(tmp_path):
    path = write(tmp_path / "a.npz", [(BOTH | SNAPSHOT | BUY, 1, 2, 0.00001234, 12_345_678_901.0)])
    with pytest.raises(VenueError, match=r"a\.npz, qty, row 0: 12345678901.0.*tick and lot"):
        read(path)
    messages = read(path, lot="1", tick="0.00000001")[1]
    assert messages[0][1][0].levels.tolist() == [[1234, 1_234_567_890_100_000_000]]
    with pytest.raises(VenueError, match="px, row 0"):
        read(path, lot="1", tick="0.0000001")
    with pytest.raises(ConfigError, match="tick"):
        read(path, tick="fine")


@pytest.mark.parametrize("row, match", [
    ((BOTH | DEPTH, 700, 710, 1, 1), "neither side"), ((BOTH | DEPTH | BUY | SELL, 700, 710, 1, 1), "of both"),
    ((BOTH | 99 | BUY, 700, 710, 1, 1), "no known kind"), ((BOTH | DEPTH | BUY, 700, 710, -1, 1), "out of range"),
    ((BOTH | DEPTH | BUY, 700, 710, 1, -1), "out of range"), ((BOTH | DEPTH | BUY, -7, 710, 1, 1), "out of range"),
    ((BOTH | DEPTH | BUY, 700, 710, float("nan"), 1), "px, row 21"),
    ((BOTH | DEPTH | BUY, 700, 710, 1, 0.123456789), "qty, row 21"),
])
def test_a_bad_row_is_named_by_file_and_number(tmp_path, row, match):
    with pytest.raises(VenueError, match=match) as caught:
        read(write(tmp_path / "bad.npz", [*DAY, row]))
    assert "bad.npz" in str(caught.value) and "row 21" in str(caught.value)


def test_another_layout_is_refused(tmp_path):
    np.savez(tmp_path / "v1.npz", data=np.zeros((3, 6)))
    with pytest.raises(VenueError, match="ev, exch_ts, local_ts, px, qty"):
        read(tmp_path / "v1.npz")
    np.savez(tmp_path / "two.npz", a=np.zeros(3, DTYPE), b=np.zeros(3))
    with pytest.raises(VenueError, match=r"two\.npz: a\.npy, b\.npy"):
        read(tmp_path / "two.npz")
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"no\.npz"):
        read(tmp_path / "no.npz")


def test_a_file_that_holds_less_than_it_says_is_refused(tmp_path):
    content = io.BytesIO()
    np.save(content, np.zeros(10, DTYPE))
    with zipfile.ZipFile(tmp_path / "cut.npz", "w") as archive:
        archive.writestr("data.npy", content.getvalue()[:-100])
    with pytest.raises(VenueError, match="cut off"):
        read(tmp_path / "cut.npz")
