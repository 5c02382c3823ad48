"""Tardis CSV, written here after its documentation: messages as they were, ticks as they would have been."""

import gzip

import pytest

from common.clock import ManualClock
from common.errors import ConfigError, VenueError
from common.events import Delta, Snapshot, Trade
from common.imports import tardis
from common.imports.source import Prepared
from common.layout import ASK_PX, BID_PX, BID_QTY, FLAGS, KIND
from common.market import Market
from common.ring import Books

BOOK_HEAD = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount"
TRADES_HEAD = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"

BOOK = """\
binance,BTCUSDT,1700000000000000,1700000000100000,false,bid,1,1
binance,BTCUSDT,1700000001000000,1700000001100000,true,ask,36500.1,2
binance,BTCUSDT,1700000001000000,1700000001100000,true,bid,36500,1.5
binance,BTCUSDT,1700000001000000,1700000001100000,true,bid,36499.9,3
binance,BTCUSDT,1700000001000000,1700000001100000,true,ask,36502,0
binance,BTCUSDT,1700000002000000,1700000002100000,false,bid,36500,0
binance,BTCUSDT,1700000002000500,1700000002100000,false,ask,36500.1,1e-8
binance,BTCUSDT,1700000003000000,1700000003100000,false,ask,36501,4
binance,BTCUSDT,1700000004000000,1700000004100000,true,bid,36000,1
binance,BTCUSDT,1700000004000000,1700000004100000,true,ask,36001,1
binance,BTCUSDT,1700000005000000,1700000005100000,false,bid,36000.5,1
"""
TRADES = """\
binance,BTCUSDT,1700000002000000,1700000002100000,42,buy,36500.1,0.5
binance,BTCUSDT,1700000003000000,1700000003000001,a-b-c,sell,36499.9,0.25
binance,BTCUSDT,1700000003000000,1700000003000002,43,unknown,36499.9,0.25
binance,BTCUSDT,1700000003000000,1700000003000003,44,sell,36499.9,0
"""


def write(folder, name, head, rows):
    path = folder / name
    content = f"{head}\n{rows}".encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.fixture
def paths(tmp_path):
    return [write(tmp_path, "book.csv", BOOK_HEAD, BOOK), write(tmp_path, "trades.csv.gz", TRADES_HEAD, TRADES)]


def read(paths, symbols=()):
    source = tardis.source(paths, print, symbols)
    return source, list(source.messages)


def test_rows_that_came_together_are_one_message(paths):
    source, messages = read(paths)
    assert source[:3] == ("tardis", "vectrade", ("BTCUSDT",)) and source.prepared
    assert [(recv_ns, type(events[0])) for recv_ns, events in messages] == [
        (1700000000_100000_000, Delta), (1700000001_100000_000, Snapshot), (1700000002_100000_000, Trade),
        (1700000002_100000_000, Delta), (1700000003_000001_000, Trade), (1700000003_100000_000, Delta),
        (1700000004_100000_000, Snapshot), (1700000005_100000_000, Delta)]
    assert source.counts == {"rows": 15, "others": 0, "unsigned_trades": 1, "empty_trades": 1}


def test_numbers_are_exact_and_times_are_nanoseconds(paths):
    messages = read(paths)[1]
    snapshot, delta = messages[1][1][0], messages[3][1][0]
    assert snapshot.levels.tolist() == [[3650000000000, 150000000], [3649990000000, 300000000],
                                        [3650010000000, 200000000]]
    assert (snapshot.n_bids, snapshot.n_asks) == (2, 1), "an amount of 0 is no level"
    assert delta.levels.tolist() == [[3650000000000, 0], [3650010000000, 1]]
    assert delta.event_ns == 1700000002_000500_000


def test_the_side_of_a_trade_is_its_sign_and_its_number_is_kept_where_it_is_one(paths):
    trades = [event for _, events in read(paths)[1] for event in events if isinstance(event, Trade)]
    assert [(trade.trade_id, trade.qty) for trade in trades] == [(42, 50000000), (0, -25000000)]


def test_they_make_the_ticks_that_the_market_would_have_made(paths):
    books = Books.private(("BTCUSDT",), 16)
    market = Market(Prepared(("BTCUSDT",)), books, ManualClock())
    for recv_ns, events in read(paths)[1]:
        market.on_frame(events, recv_ns)
    found = books.ticks[0][1:int(books.heads[0]) + 1]
    assert found[:, KIND].tolist() == [1, 2, 1, 2, 1, 1, 1] and found[:, FLAGS].tolist() == [3, 1, 1, 1, 1, 3, 1]
    assert found[2, BID_PX:BID_PX + 2].tolist() == [3649990000000, 0]
    assert found[-1, [BID_PX, BID_QTY, ASK_PX]].tolist() == [3600050000000, 100000000, 3600100000000]
    assert market.counts.ignored == 1, "changes before the first snapshot are of no book"


def test_columns_may_stand_in_another_order(tmp_path, paths):
    rows = "".join(",".join(row.split(",")[::-1]) + "\n" for row in BOOK.splitlines())
    other = write(tmp_path, "other.csv", ",".join(BOOK_HEAD.split(",")[::-1]), rows)
    assert repr(read([other])[1]) == repr(read(paths[:1])[1])


def test_of_several_symbols_those_that_are_wanted_are_read(tmp_path):
    path = write(tmp_path, "all.csv", BOOK_HEAD, BOOK + BOOK.replace("BTC", "ETH"))
    with pytest.raises(VenueError, match=r"all\.csv:13: symbol=b'ETHUSDT'"):
        read([path])
    source, messages = read([path], ("ETHUSDT",))
    assert source.symbols == ("ETHUSDT",) and len(messages) == 6 and source.counts["others"] == 11
    both, messages = read([path], ("BTCUSDT", "ETHUSDT"))
    assert {event.symbol for _, events in messages for event in events} == {0, 1} and len(messages) == 12


def test_files_of_several_symbols_are_merged_by_time(tmp_path, paths):
    other = write(tmp_path, "eth.csv", BOOK_HEAD, BOOK.replace("BTC", "ETH"))
    source, messages = read([paths[0], other])
    assert source.symbols == ("BTCUSDT", "ETHUSDT")
    assert [recv_ns for recv_ns, _ in messages] == sorted(recv_ns for recv_ns, _ in messages)


@pytest.mark.parametrize("bad, match", [
    ("binance,BTCUSDT,1,2,true,bid,1", r"columns.*2: 7"),
    ("binance,BTCUSDT,x,2,true,bid,1,1", "timestamp=b'x'"),
    ("binance,BTCUSDT,1,-2,true,bid,1,1", "local_timestamp=b'-2'"),
    ("binance,BTCUSDT,1,2,maybe,bid,1,1", "is_snapshot=b'maybe'"),
    ("binance,BTCUSDT,1,2,true,buy,1,1", "side=b'buy'"),
    ("binance,BTCUSDT,1,2,true,bid,0,1", "price=b'0'"),
    ("binance,BTCUSDT,1,2,true,bid,1,-1", "amount=b'-1'"),
    ("binance,BTCUSDT,1,2,true,bid,0.123456789,1", "price has more than 8 decimals"),
    ("binance,BTCUSDT,1,2,true,bid,nan,1", "price='nan'"),
])
def test_a_bad_row_is_named_by_file_line_and_field(tmp_path, bad, match):
    with pytest.raises(VenueError, match=match) as caught:
        read([write(tmp_path, "bad.csv", BOOK_HEAD, bad + "\n")])
    assert "bad.csv:2" in str(caught.value)


def test_a_trade_of_an_unknown_side_of_a_book_is_refused(tmp_path):
    with pytest.raises(VenueError, match=r"a\.csv:2: side=b'bid'"):
        read([write(tmp_path, "a.csv", TRADES_HEAD, "b,S,1,2,3,bid,1,1\n")])


def test_what_is_no_such_file_is_refused(tmp_path):
    with pytest.raises(VenueError, match="first line must name"):
        read([write(tmp_path, "a.csv", "time,price", "")])
    with pytest.raises(VenueError, match="no rows"):
        read([write(tmp_path, "b.csv", BOOK_HEAD, "")])
    with pytest.raises(ConfigError, match="nothing.csv"):
        read([tmp_path / "nothing.csv"])
