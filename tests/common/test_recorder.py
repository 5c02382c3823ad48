"""Writing captures: what the tap said is what is read, in whole files, and in all others up to the last flush."""

import hashlib
import json
import resource
import sys

import pytest

from common import captures
from common.capture_lines import Connect, Disconnect, End, Frame, Header, Http, Missed, State, encode, is_control, parse
from common.clock import ManualClock
from common.errors import ResourceError
from common.recorder import FLUSH_NS, Recorder, compression, is_header

SYMBOLS = ("A", "B")
HEADER, CONNECT = encode(Header("vectrade", SYMBOLS)), encode(Connect("ws://x"))
A, B = (encode(State(symbol, b'{"book":"%b"}' % symbol.encode())) for symbol in SYMBOLS)
OPENING = (HEADER, CONNECT, A, B)


class Clock(ManualClock):
    """Wall time lies `offset` ahead, which a test may change."""

    offset = 1_700_000_000_000_000_000

    def wall_ns(self) -> int:
        return self.now_ns + self.offset


@pytest.fixture(params=[".zst", ".gz"])
def make(request, tmp_path, monkeypatch):
    """make(...) -> a recorder into tmp_path, with either compression."""
    if request.param == ".gz":
        monkeypatch.setitem(sys.modules, "zstandard", None)
    assert compression() == request.param
    made = []

    def one(**options) -> Recorder:
        made.append(Recorder(tmp_path, Clock(1_000), **options))
        return made[-1]

    yield one
    monkeypatch.undo()
    for recorder in made:
        recorder.close()


def message(mono_ns: int, text: bytes) -> bytes:
    return mono_ns.to_bytes(8, "little") + text


def feed(recorder: Recorder, *texts: bytes, at: int = 1_000) -> None:
    for i, text in enumerate(texts):
        recorder.take(message(at + i, text))


def frame(i: int) -> bytes:
    return b'{"n":%d}' % i


def files(folder) -> list[str]:
    return sorted(str(path) for path in folder.iterdir() if path.suffix in (".zst", ".gz"))


def said(paths) -> list:
    """Control lines parsed, frames as they are."""
    return [parse(text) if is_control(text) else text for _, text in captures.read(paths)]


def test_what_was_said_is_what_is_read(make, tmp_path):
    recorder = make()
    feed(recorder, *OPENING, frame(1), b"pong", encode(Disconnect("gone")), CONNECT, frame(2), at=5_000)
    recorder.close()
    [path] = files(tmp_path)
    header, *lines, end = said([path])
    assert header[:2] == ("vectrade", SYMBOLS) and header.part == 0 and end == End(3, 0)
    assert lines == [Connect("ws://x"), *(parse(text) for text in (A, B)), frame(1), Frame(b"pong"),
                     Disconnect("gone"), Connect("ws://x"), frame(2)]
    assert captures.describe([path]) == ("vectrade", SYMBOLS)


def test_one_offset_makes_wall_time_of_all_stamps_of_a_file(make, tmp_path):
    recorder = make()
    stamps = [10, 10, 11, 500, 499, 10**12]
    feed(recorder, HEADER, at=10)
    for stamp in stamps:
        recorder.take(message(stamp, frame(stamp)))
        recorder._clock.offset += 10**9  # somebody sets the clock
    recorder.close()
    found = [recv_ns for recv_ns, text in captures.read(files(tmp_path)) if not is_control(text)]
    assert found == [stamp + Clock.offset for stamp in stamps]


def test_the_manifest_says_what_the_file_holds(make, tmp_path):
    told = []
    recorder = make(done=told.append)
    feed(recorder, *OPENING, *map(frame, range(500)))
    recorder.lost(3)
    recorder.close()
    [path] = files(tmp_path)
    content = open(path, "rb").read()
    [manifest] = told
    assert json.loads(open(f"{path}.json").read()) == manifest
    lines = list(captures.read([path]))
    assert manifest["frames"] == 500 and manifest["frames"] + manifest["control_lines"] == len(lines)
    assert (manifest["first_recv_ns"], manifest["last_recv_ns"]) == (lines[0][0], lines[-1][0])
    assert manifest["bytes"] == len(content) == recorder.bytes
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest() and manifest["missed"] == 3
    assert manifest["venue"] == "vectrade" and manifest["symbols"] == list(SYMBOLS) and manifest["version"] == 1
    assert lines[-1][1] == encode(End(500, 3))


def test_files_are_readable_while_they_are_written(make, tmp_path):
    recorder = make()
    for i in range(5):
        feed(recorder, *((HEADER,) if not i else ()), frame(i))
        recorder._clock.now_ns += FLUSH_NS
        recorder.work()
        words = []
        found = list(captures.lines(files(tmp_path)[0], words.append))
        assert [text for _, text in found if not is_control(text)] == [frame(k) for k in range(i + 1)]
        assert words and "cut off" in words[0]
    assert not list(tmp_path.glob("*.json"))


def test_nothing_is_written_before_the_first_header(make, tmp_path):
    recorder = make()
    feed(recorder, frame(1), CONNECT, A)
    recorder.lost(1)
    recorder.work()
    assert files(tmp_path) == [] and recorder.asks
    feed(recorder, HEADER)
    assert not recorder.asks


def test_a_file_is_succeeded_by_size_and_the_session_reads_as_one_in_any_order(make, tmp_path):
    recorder = make(max_bytes=200_000)
    noise = [hashlib.sha512(b"%d" % i).hexdigest().encode() for i in range(10_000)]
    feed(recorder, *OPENING, *(b'{"x":"%b"}' % part for part in noise))
    recorder.close()
    paths = files(tmp_path)
    assert len(paths) > 2 and len(list(tmp_path.glob("*.json"))) == len(paths)
    assert all(json.load(open(f"{path}.json"))["bytes"] < 400_000 for path in paths)
    for given in (paths, paths[::-1]):
        lines = said(given)
        assert [line for line in lines if isinstance(line, bytes)] == [b'{"x":"%b"}' % part for part in noise]
        assert [line.part for line in lines if isinstance(line, Header)] == list(range(len(paths)))
    assert captures.order(paths[::-1]) == [paths]


def test_a_file_is_succeeded_by_age_even_where_the_clock_has_gone_back(make, tmp_path):
    recorder = make(max_s=10.0)
    feed(recorder, HEADER, frame(1), at=10**9)
    recorder._clock.offset -= 3600 * 10**9
    feed(recorder, frame(2), at=10**9 + 10 * 10**9)
    feed(recorder, frame(3), at=10**9 + 11 * 10**9)
    recorder.close()
    assert len(files(tmp_path)) == 2
    assert [line for line in said(files(tmp_path)[::-1]) if isinstance(line, bytes)] == [frame(i) for i in (1, 2, 3)]


def test_the_state_is_asked_for_where_a_file_succeeds_another(make, tmp_path):
    recorder = make(max_s=1.0)
    feed(recorder, *OPENING, frame(1))
    assert not recorder.asks
    feed(recorder, frame(2), at=2 * 10**9)
    assert recorder.asks
    feed(recorder, *OPENING, frame(3), at=2 * 10**9 + 10)  # the connection is the old one: it does not begin anew
    recorder.close()
    assert said(files(tmp_path)[1:])[1:-1] == [frame(2), parse(A), parse(B), frame(3)]


def test_what_is_told_for_another_listener_is_left_out(make, tmp_path):
    recorder = make()
    feed(recorder, *OPENING, frame(1), *OPENING, frame(2))
    recorder.close()
    assert said(files(tmp_path))[1:-1] == [*(parse(text) for text in OPENING[1:]), frame(1), frame(2)]


def test_a_hole_stands_where_it_was_and_the_books_begin_anew(make, tmp_path):
    recorder = make()
    feed(recorder, *OPENING, frame(1))
    recorder.lost(12)
    assert recorder.asks
    feed(recorder, frame(2), *OPENING, frame(3), at=2_000)
    recorder.close()
    opening = [parse(text) for text in OPENING[1:]]
    assert said(files(tmp_path))[1:] == [*opening, frame(1), Missed(12), frame(2), *opening, frame(3), End(3, 12)]


def test_an_ingest_that_was_killed_ends_what_it_had(make, tmp_path):
    recorder = make()
    feed(recorder, *OPENING, frame(1), at=1_000)
    late = message(3_000, HEADER)
    assert is_header(late)
    recorder.began(500, message(1_010, HEADER))  # the same, for another listener
    recorder.began(2_000, late)
    feed(recorder, *OPENING, frame(2), at=3_000)
    recorder.close()
    opening = [parse(text) for text in OPENING[1:]]
    lines = said(files(tmp_path))[1:-1]
    assert lines[:4] == [*opening, frame(1)] and isinstance(lines[4], Disconnect) and lines[5:] == [*opening, frame(2)]


def test_other_symbols_are_another_session(make, tmp_path):
    recorder = make()
    feed(recorder, *OPENING, frame(1))
    feed(recorder, encode(Header("vectrade", ("C",))), frame(2), at=10**6)
    recorder.close()
    first, second = files(tmp_path)
    assert captures.describe([first]) == ("vectrade", SYMBOLS) and captures.describe([second]) == ("vectrade", ("C",))
    assert captures.order([second, first]) == [[second], [first]]


def test_an_answer_on_several_lines_is_packed_and_a_forged_line_is_kept_as_a_frame(make, tmp_path):
    recorder = make()
    spliced = encode(Http("A", "/", 200, b'{"x":1}')).replace(b'{"x"', b'{\n"x"')
    feed(recorder, HEADER, spliced, b'{"alpha":"dance"}', b'{"alpha":\n"end"}')
    recorder.close()
    assert said(files(tmp_path))[1:] == [Http("A", "/", 200, b'{\n"x":1}'), Frame(b'{"alpha":"dance"}'),
                                         Frame(b'{"alpha":\n"end"}'), End(2, 0)]


def test_a_full_disk_is_a_clear_error_that_leaves_a_readable_file(make, tmp_path):
    recorder = make()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = [b'{"x":"%b"}' % hashlib.sha512(b"%d" % i).hexdigest().encode() for i in range(20_000)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        with pytest.raises(ResourceError, match=str(tmp_path)):
            feed(recorder, HEADER, *noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    recorder.close()
    [path] = files(tmp_path)
    words = []
    found = [text for _, text in captures.lines(path, words.append)][1:]
    assert len(found) > 1000 and found == noise[:len(found)] and words
    assert not list(tmp_path.glob("*.json")), "it is not whole"


def test_a_folder_that_is_not_there_is_named(make, tmp_path):
    recorder = make()
    recorder._folder = tmp_path / "nowhere"
    with pytest.raises(ResourceError, match="nowhere"):
        feed(recorder, HEADER)


def test_each_file_tells_how_its_stamps_follow_from_the_monotonic_clock(tmp_path):
    begun = []
    recorder = Recorder(tmp_path, Clock(1_000), max_s=1.0, begun=lambda *told: begun.append(told))
    feed(recorder, *OPENING, frame(1))
    recorder._clock.offset += 77
    feed(recorder, frame(2), at=2_000_000_000)
    recorder.close()
    found = dict(zip(files(tmp_path), begun))
    assert [header.part for header, _ in begun] == [0, 1]
    assert [offset - Clock.offset for _, offset in begun] == [0, 77]
    for path, (header, offset) in found.items():
        lines = list(captures.lines(path))
        assert parse(lines[0][1]) == header
        assert [recv_ns - offset for recv_ns, text in lines if text in (frame(1), frame(2))] in (
            [1_004], [2_000_000_000])
