"""Sessions of JSON lines: in order of time, one connection as a capture, and what their venues make of them."""

import base64
from collections import Counter

import orjson
import pytest
import zstandard

from common import capture_lines
from common.capture_lines import Connect, Frame, Http, Send
from common.convert import Options, convert, open_sources, ticks
from common.errors import ConfigError, VenueError
from common.imports.sessions import entries, frames, header, recognise, source

DEPTH = {"stream": "abc@depth", "data": {"e": "depthUpdate", "E": 2, "s": "ABCUSDT", "U": 6, "u": 7,
                                         "b": [["10", "2"]], "a": []}}
SNAPSHOT = {"lastUpdateId": 5, "bids": [["10", "1"]], "asks": [["11", "1"]]}

LINES = [
    {"t": "header", "exchange": "BINANCE", "config": {}},
    {"t": "http", "ts": 3.5, "url": "https://x/api/v3/depth?symbol=ABCUSDT&limit=20",
     "data": orjson.dumps(SNAPSHOT).decode()},
    {"t": "http", "ts": 0.5, "url": "https://x/api/v3/exchangeInfo", "data": "{\n}"},
    {"t": "connect", "conn": "a", "ts": 1.0, "addr": "wss://x/stream?streams=abcusdt@depth"},
    {"t": "send", "conn": "a", "ts": 1.5, "data": "hello"},
    {"t": "recv", "conn": "a", "ts": 2.000001, "data": orjson.dumps(DEPTH).decode()},
    {"t": "recv", "conn": "a", "ts": 4.0, "b64": base64.b64encode(b"\x1f\x8b\n").decode()},
    {"t": "connect", "conn": "b", "ts": 1.25, "addr": "wss://x/other"},
    {"t": "recv", "conn": "b", "ts": 3.0, "data": '{"result":null,"id":1}'},
]


def write(folder, lines=LINES, name="s.jsonl"):
    path = folder / name
    content = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    path.write_bytes(zstandard.ZstdCompressor().compress(content) if name.endswith(".zst") else content)
    return path


@pytest.mark.parametrize("name", ["s.jsonl", "s.jsonl.zst"])
def test_lines_come_by_time_and_times_are_exact_to_the_microsecond(tmp_path, name):
    path = write(tmp_path, name=name)
    assert header(path)["exchange"] == "BINANCE"
    found = entries(path)
    assert [(entry.kind, entry.recv_ns // 1000) for entry in found] == [
        ("http", 500_000), ("connect", 1_000_000), ("connect", 1_250_000), ("send", 1_500_000), ("recv", 2_000_001),
        ("recv", 3_000_000), ("http", 3_500_000), ("recv", 4_000_000)]
    assert [frame for _, frame in frames(path)][-1] == b"\x1f\x8b\n"


def test_a_session_is_recognised_by_its_first_line(tmp_path):
    assert recognise(orjson.dumps(LINES[0])) and recognise(b'{"t": "header", "x": 1}')
    assert not recognise(b'{"t":"recv"}') and not recognise(b"1 {}")


def test_one_connection_becomes_the_lines_of_a_capture(tmp_path):
    said: list[str] = []
    found = source(write(tmp_path), said.append)
    assert found[:3] == ("session", "binance-spot", ("ABCUSDT",)) and not found.prepared
    lines = [capture_lines.parse(text) if capture_lines.is_control(text) else text for _, text in found.messages]
    assert lines == [
        Http("", "/api/v3/exchangeInfo", 200, b"{\n}"), Connect("wss://x/stream?streams=abcusdt@depth"),
        Send(b"hello"), orjson.dumps(DEPTH),
        Http("ABCUSDT", "/api/v3/depth?symbol=ABCUSDT&limit=20", 200, orjson.dumps(SNAPSHOT)), Frame(b"\x1f\x8b\n")]
    assert found.counts == {"frames": 2, "answers": 2, "snapshot_answers": 1}
    assert "of 2 connections, a is taken" in said[0]


def test_a_connection_can_be_named(tmp_path):
    path = write(tmp_path)
    with pytest.raises(ConfigError, match="it has a, b"):
        source(path, print, connection="c")
    with pytest.raises(ConfigError, match="no venue finds books"):
        source(path, print, connection="b")
    said: list[str] = []
    assert source(path, said.append, connection="a").symbols == ("ABCUSDT",) and "the one named" in said[0]


def test_an_exchange_of_no_venue_is_refused_with_those_that_there_are(tmp_path):
    path = write(tmp_path, [{**LINES[0], "exchange": "NOWHERE"}, *LINES[1:]])
    with pytest.raises(ConfigError, match="NOWHERE.*known venues:.*binance-spot"):
        source(path, print)
    assert source(path, print, venue="binance-spot").symbols == ("ABCUSDT",)
    with pytest.raises(ConfigError, match="unknown venue"):
        source(path, print, venue="nowhere")


@pytest.mark.parametrize("bad, match", [
    ({"t": "recv", "ts": 1.0, "data": "x"}, "KeyError 'conn'"), ({"t": "recv", "conn": "a", "ts": 1.0}, "'data'"),
    ({"t": "recv", "conn": "a", "ts": "x", "data": "y"}, "lacks something"), ({"t": "what", "ts": 1.0}, "t='what'"),
    ({"t": "recv", "conn": "a", "ts": 1.0, "b64": "?"}, "lacks something"), ([], "not a JSON object"),
])
def test_a_bad_line_is_named_by_file_and_number(tmp_path, bad, match):
    path = write(tmp_path, [LINES[0], bad])
    with pytest.raises(VenueError, match=match) as caught:
        entries(path)
    assert "s.jsonl:2" in str(caught.value)


def test_what_is_no_session_is_refused(tmp_path):
    with pytest.raises(VenueError, match="header"):
        header(write(tmp_path, LINES[1:]))
    (tmp_path / "x.jsonl").write_bytes(b"{\n")
    with pytest.raises(VenueError, match=r"x\.jsonl:1"):
        header(tmp_path / "x.jsonl")
    with pytest.raises(ConfigError, match="none.jsonl"):
        header(tmp_path / "none.jsonl")


# The recordings.

#: exchange -> (venue, symbols, ticks of the books): all that its recording has
READ = {"BINANCE": ("binance-spot", 4, 176), "BINANCE_US": ("binance-spot", 4, 336),
        "BINANCE_FUTURES": ("binance-usdm", 4, 756)}


@pytest.mark.parametrize("exchange", READ)
def test_every_recorded_book_is_rebuilt(recordings, exchange):
    venue, symbols, books = READ[exchange]
    found = open_sources([recordings / "venues_ws" / f"{exchange}.jsonl.zst"], print)
    assert (found.venue, len(found.symbols)) == (venue, symbols)
    counts: dict[str, int] = {}
    total = sum(len(block) for _, block in ticks(found, print, counts))
    assert total - counts["trades"] == books
    assert not (counts["gaps"] or counts["crossed"] or counts["malformed"] or counts["quote_mismatches"])
    assert counts["quote_checks"] > 20 and found.counts["snapshot_answers"] == symbols


def test_a_session_converted_to_a_capture_plays_the_same(recordings, tmp_path):
    path = recordings / "venues_ws" / "BINANCE_FUTURES.jsonl.zst"
    summary = convert([path], tmp_path / "a.zst", print, Options())
    again = open_sources([summary.target], print)
    assert (again.venue, Counter(again.symbols)) == (summary.venue, Counter(summary.symbols))
    direct = list(ticks(open_sources([path], print)))
    played = list(ticks(again))
    assert all((a == b).all() for one, other in zip(direct, played, strict=True) for a, b in zip(one, other))
