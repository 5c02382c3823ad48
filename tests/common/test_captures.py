"""Recordings: any packing reads the same, damage is named, and the depth endpoint is rebuilt rightly."""

import gzip

import orjson
import pytest
import zstandard

from common.capture_lines import End, Header, Http, encode, parse
from common.captures import (
    RecordedDepth,
    describe,
    header,
    is_snapshot,
    lines,
    order,
    read,
    runs,
    tape,
    without_manifests,
)
from common.errors import ConfigError, VenueError

FRAMES = [(1_000 + i, b'{"stream":"x@trade","data":{"n":%d,"s":"%s"}}' % (i, b"y" * (i % 700))) for i in range(5000)]


def text(frames=FRAMES) -> bytes:
    return b"".join(b"%d %s\n" % frame for frame in frames)


def pack(path, content: bytes):
    packers = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    path.write_bytes(packers.get(path.suffix, bytes)(content))
    return path


@pytest.mark.parametrize("name", ["a.log", "a.gz", "a.zst"])
def test_every_packing_reads_the_same(tmp_path, name):
    assert list(read([pack(tmp_path / name, text())])) == FRAMES


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
def test_packed_files_end_to_end_are_one_file(tmp_path, name):
    half = len(FRAMES) // 2
    path = pack(tmp_path / name, text(FRAMES[:half]))
    path.write_bytes(path.read_bytes() + pack(tmp_path / f"b{path.suffix}", text(FRAMES[half:])).read_bytes())
    assert list(read([path])) == FRAMES


def test_files_that_follow_each_other_are_one_stream_in_any_order(tmp_path):
    paths = [pack(tmp_path / f"{i}.gz", text(FRAMES[i:i + 1000])) for i in range(0, 5000, 1000)]
    assert list(read(paths)) == list(read(paths[::-1])) == FRAMES


def test_files_of_the_same_time_are_interleaved_and_keep_their_own_order(tmp_path):
    a = [(1, b'{"a":1}'), (5, b'{"a":2}'), (4, b'{"a":3}'), (9, b'{"a":4}')]
    b = [(2, b'{"b":1}'), (5, b'{"b":2}'), (7, b'{"b":3}')]
    merged = list(read([pack(tmp_path / "a", text(a)), pack(tmp_path / "b", text(b))]))
    assert merged == [a[0], b[0], a[1], a[2], b[1], b[2], a[3]]


@pytest.mark.parametrize("name", ["a.log", "a.gz", "a.zst"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_read_to_its_last_whole_line_and_says_so(tmp_path, name, share):
    whole = pack(tmp_path / f"whole-{name}", text()).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[:int(len(whole) * share)])
    said: list[str] = []
    found = list(lines(path, said.append))
    assert found == FRAMES[:len(found)] and len(found) < len(FRAMES)
    assert said and all("cut off" in word and name in word for word in said)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kept", [1, 3, 9, 0.5, 0.9, -1])
def test_a_cut_within_the_last_of_several_packed_files_keeps_the_ones_before(tmp_path, suffix, kept):
    parts = [pack(tmp_path / f"{i}{suffix}", text(FRAMES[i:i + 1000])).read_bytes() for i in range(0, 3000, 1000)]
    length = int(len(parts[2]) * kept) if isinstance(kept, float) else kept  # -1: all but the last byte
    path = tmp_path / f"all{suffix}"
    path.write_bytes(parts[0] + parts[1] + parts[2][:length])
    said: list[str] = []
    found = list(lines(path, said.append))
    assert found == FRAMES[:len(found)] and 2000 <= len(found) <= 3000
    assert any("cut off" in word and path.name in word for word in said)


def test_a_whole_file_says_nothing(tmp_path):
    for suffix in (".gz", ".zst", ".log"):
        said: list[str] = []
        assert len(list(lines(pack(tmp_path / f"a{suffix}", text()), said.append))) == 5000 and said == []


def test_every_cut_of_a_short_file_gives_its_whole_lines(tmp_path):
    content = text(FRAMES[:3])
    for length in range(len(content)):
        path = tmp_path / "cut"
        path.write_bytes(content[:length])
        said: list[str] = []
        found = list(lines(path, said.append))
        expected = content[:length].count(b"\n") + (content[length:length + 1] == b"\n")  # only its end is missing
        assert found == FRAMES[:expected]
        assert bool(said) == (content[:length][-1:] not in (b"", b"\n") and content[length:length + 1] != b"\n")


@pytest.mark.parametrize("bad", [b"", b"nonsense", b"12 ", b"12", b'12 {"a":1', b'x {"a":1}', b'-5 {"a":1}',
                                 b'{"a":1}', b'12.5 {"a":1}', b'12 "text"'])
def test_a_bad_line_is_named_by_file_and_number(tmp_path, bad):
    path = tmp_path / "a.log"
    path.write_bytes(text(FRAMES[:2]) + bad + b"\n" + text(FRAMES[2:4]))
    stream = read([path])
    assert [next(stream), next(stream)] == FRAMES[:2]
    with pytest.raises(VenueError, match=r"a\.log:3"):
        next(stream)


def test_a_file_from_another_system_may_end_its_lines_in_two_characters(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(text(FRAMES[:3]).replace(b"\n", b"\r\n"))
    assert list(read([path])) == FRAMES[:3]


def test_a_damaged_file_is_named(tmp_path):
    path = pack(tmp_path / "a.gz", text())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(VenueError, match=r"a\.gz"):
        list(read([path]))


def test_a_missing_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="nothing-here"):
        list(read([tmp_path / "nothing-here.gz"]))


def test_reading_is_lazy(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(text() + b"garbage\n")
    assert next(read([path])) == FRAMES[0]


# Captures of our own.

def capture(path, of: Header, frames=FRAMES[:3]):
    return pack(path, text([(frames[0][0], encode(of)), *frames, (frames[-1][0], encode(End(len(frames), 0)))]))


def test_a_capture_says_what_it_is_of(tmp_path):
    one = capture(tmp_path / "a.zst", Header("kraken", ("BTC/USD", "ETH/USD")))
    other = capture(tmp_path / "b.gz", Header("kraken", ("ETH/USD", "SOL/USD")))
    assert describe([one, other]) == ("kraken", ("BTC/USD", "ETH/USD", "SOL/USD"))
    assert header(one) == Header("kraken", ("BTC/USD", "ETH/USD"))
    assert header(pack(tmp_path / "c.log", text())) is None
    with pytest.raises(VenueError, match="several venues"):
        describe([one, capture(tmp_path / "d", Header("okx", ("BTC-USDT",)))])


def test_the_files_of_a_session_are_read_as_they_were_written_whatever_the_clock_said(tmp_path):
    paths = []
    for part, at in enumerate((5000, 1000, 3000)):  # the wall clock was set twice
        frames = [(at + i, b'{"part":%d,"n":%d}' % (part, i)) for i in range(10)]
        paths.append(str(capture(tmp_path / f"{9 - part}.gz", Header("okx", ("A",), "s", part), frames)))
    alone = str(capture(tmp_path / "alone.gz", Header("okx", ("A",)), [(10_000, b'{"alone":1}')]))
    assert order([alone, *paths[::-1]]) == [[alone], paths]
    for stream in (read, tape):
        found = [line for _, line in stream([alone, *paths[::-1]]) if b"alpha" not in line]
        assert found == [b'{"part":%d,"n":%d}' % (part, i) for part in range(3) for i in range(10)] + [b'{"alone":1}']


def test_a_foreign_snapshot_is_told_as_the_answer_that_it_was(tmp_path):
    depth = b'{"stream":"btcusdt@depth","data":{"e":"depthUpdate","s":"BTCUSDT","U":1,"u":2,"pu":0,"b":[],"a":[]}}'
    body = b'{"lastUpdateId":1,"E":1,"T":1,"bids":[],"asks":[]}'
    path = pack(tmp_path / "a.gz", text([(1, body), (2, depth), (3, body)]))
    found = list(tape([path]))
    assert found[1] == (2, depth) and [recv_ns for recv_ns, _ in found] == [1, 2, 3]
    assert parse(found[0][1]) == parse(found[2][1]) == Http("BTCUSDT", "", 200, body)


def told(paths) -> tuple[list[tuple[int, bytes]], str]:
    """The lines of runs, and what is wrong with the one after them."""
    found = []
    try:
        for run in runs(paths):
            assert run.recv_ns.size
            found += [(int(at), run.line(i)) for i, at in enumerate(run.recv_ns)]
    except VenueError as error:
        return found, str(error)
    return found, ""


@pytest.mark.parametrize("size", [4, 64, 1 << 18])
@pytest.mark.parametrize("bad", [None, "a", "b", "c"])
def test_runs_are_the_lines_of_a_tape_up_to_the_one_that_is_wrong(tmp_path, monkeypatch, size, bad):
    monkeypatch.setattr("common.captures.BLOCK", size)
    stamps = {"a": [10, 20, 15, 30, 30, 40], "b": [5, 20, 20, 30, 99], "c": [30, 31, 30, 200]}
    for name, times in stamps.items():
        rows = [b'%d {"%b":%d}' % (at, name.encode(), i) for i, at in enumerate(times)]
        rows[1] += b" \r"
        rows[3:3] = [b"99999999999999999999 {}"] if name == bad else []
        (tmp_path / name).write_bytes(b"\n".join(rows) + b"\n")
    paths, expected, error = [tmp_path / name for name in stamps], [], ""
    try:
        for line in tape(paths):
            expected.append(line)
    except VenueError as wrong:
        error = str(wrong)
    assert told(paths) == (expected, error) and (f"{bad}:4" in error if bad else len(expected) == 15)


def test_runs_tell_a_foreign_snapshot_as_a_tape_does(tmp_path):
    depth = b'{"stream":"btcusdt@depth","data":{"e":"depthUpdate","s":"BTCUSDT","U":1,"u":2,"pu":0,"b":[],"a":[]}}'
    body = b'{"lastUpdateId":1,"E":1,"T":1,"bids":[],"asks":[]}'
    path = pack(tmp_path / "a", text([(1, body), (2, depth), (3, body + b"\r"), (4, b'{"like":1}')]))
    assert told([path]) == (list(tape([path])), "") and b"http" in told([path])[0][2][1]


# The recordings.

def test_the_recordings_are_described(recordings):
    folder = recordings / "binance"
    usdm = [folder / f"usdm_{pair}_20240718.gz" for pair in ("ethusdt", "btcusdt")]
    assert describe(usdm) == ("binance-usdm", ("ETHUSDT", "BTCUSDT"))
    assert describe([folder / "spot_btcusdt_20240808.gz"]) == ("binance-spot", ("BTCUSDT",))
    assert describe([folder / "cm_btcusd_perp_20240808.gz"]) == ("binance-coinm", ("BTCUSD_PERP",))
    with pytest.raises(VenueError, match="several venues"):
        describe([usdm[0], folder / "spot_btcusdt_20240808.gz"])


def test_what_holds_no_depth_frame_is_not_described(tmp_path):
    with pytest.raises(VenueError, match="a.log"):
        describe([pack(tmp_path / "a.log", text(FRAMES[:10]))])


@pytest.mark.parametrize(("name", "updates"), [("usdm_btcusdt_20240718", 3326), ("spot_btcusdt_20240808", 3451)])
def test_a_rebuilt_snapshot_bridges_and_equals_the_book_at_any_point(recordings, name, updates):
    depth, count, checked = RecordedDepth(), 0, 0
    last = 0  # `u` of the frame before
    sides: tuple[dict, dict] = ({}, {})  # the book, kept along the way
    early: list[dict] = []  # frames before the snapshot
    for _, frame in read([recordings / "binance" / f"{name}.gz"]):
        if is_snapshot(frame):
            depth.snapshot(frame)
            assert depth.answer(1000, recorded=True) == frame
            snapshot = orjson.loads(frame)
            for side, key in zip(sides, ("bids", "asks")):
                side.clear()
                side.update(snapshot[key])
            for data in early:
                if data["u"] > snapshot["lastUpdateId"]:
                    change(sides, data)
            continue
        if b'"depthUpdate"' not in frame:
            continue
        data = orjson.loads(frame)["data"]
        depth.frame(frame)
        count += 1
        if not sides[0]:
            early.append(data)
            continue
        if last and count % 400 == 0:  # asked for just before this frame, answered just after
            answer = orjson.loads(depth.answer(1000, recorded=False))
            assert answer["lastUpdateId"] == data["u"] and list(answer) == list(snapshot)
            change(sides, data)
            for key, side, way in (("bids", sides[0], -1), ("asks", sides[1], 1)):
                best_first = sorted(side.items(), key=lambda level: way * float(level[0]))
                assert answer[key] == [list(level) for level in best_first[:1000]]
            assert [depth_side[:5] for depth_side in (answer["bids"], answer["asks"])] \
                == [orjson.loads(depth.answer(5, recorded=False))[key] for key in ("bids", "asks")]
            checked += 1
        else:
            change(sides, data)
        assert not last or data.get("pu", data["U"] - 1) == last, "the next frame joins the answer"
        last = data["u"]
    assert count == updates and checked == updates // 400


def change(sides: tuple[dict, dict], data: dict) -> None:
    for side, changes in zip(sides, (data["b"], data["a"])):
        for price, quantity in changes:
            if float(quantity):
                side[price] = quantity
            else:
                side.pop(price, None)


def test_the_recorded_snapshot_can_be_cut_to_fewer_levels():
    depth = RecordedDepth()
    depth.snapshot(b'{"lastUpdateId":7,"bids":[["3","1"],["2","1"]],"asks":[["4","1"],["5","1"]]}')
    assert depth.answer(1, recorded=True) == b'{"lastUpdateId":7,"bids":[["3","1"]],"asks":[["4","1"]]}'


def test_a_manifest_beside_its_recording_is_no_recording(tmp_path):
    for name in ("a.zst", "a.zst.json", "b.json"):
        (tmp_path / name).touch()
    assert without_manifests(sorted(tmp_path.iterdir())) == tuple(
        str(tmp_path / name) for name in ("a.zst", "b.json"))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_recording_that_is_not_compressed_as_its_name_says_is_told_from_a_damaged_one(tmp_path, ending):
    path = tmp_path / f"day{ending}"
    path.write_bytes(b'1 {"lastUpdateId":1}\n' * 10)
    with pytest.raises(VenueError, match="not compressed as its name says"):
        list(lines(path))
