"""The lines of a capture: what is written is what is read, and no frame is taken for a control line."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.capture_lines import (
    Connect,
    Disconnect,
    End,
    Frame,
    Header,
    Http,
    Missed,
    Send,
    State,
    encode,
    is_control,
    parse,
    stands,
    text,
)
from common.errors import VenueError

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = st.lists(words, min_size=1, max_size=4).map(tuple)
counts = st.integers(0, 2**63 - 1)
raw = st.one_of(st.binary(max_size=60), words.map(str.encode), st.sampled_from([
    b"{}", b"[]", b'{"body":1,"frame":2}', b'{"a":"x,\\"body\\":y"}', b"{\n}", b'{"alpha":"end","frames":1,"missed":0}',
    b"", b"ping", b'{"a":1}\r', b'{"\xff":1}']))
controls = st.one_of(
    st.builds(Header, words, names, st.just(""), st.just(0)),
    st.builds(Header, words, names, words.filter(bool), counts),
    st.builds(Connect, words, st.booleans()), st.builds(Disconnect, words), st.builds(Send, raw),
    st.builds(Http, words, words, st.integers(0, 999), raw), st.builds(State, words, raw), st.builds(Frame, raw),
    st.builds(Missed, counts), st.builds(End, counts, counts))


@given(controls)
def test_every_control_line_reads_as_it_was_written_and_stands_in_a_line(control):
    line = encode(control)
    assert parse(line) == control and is_control(line)
    assert line[-1:] == b"}" and b"\n" not in line and line.decode()


@given(raw)
def test_every_frame_comes_back_and_is_told_from_control_lines(frame):
    line = text(frame)
    assert (parse(line) == Frame(frame)) if is_control(line) else line == frame
    assert stands(line)


def test_a_frame_that_looks_like_a_control_line_is_packed():
    forged = encode(Disconnect("not by us"))
    assert parse(text(forged)) == Frame(forged)


def test_raw_parts_stand_in_their_line_as_they_came():
    body = b'{"lastUpdateId": 1, "x": ",\\"body\\":"}'
    line = encode(Http("BTCUSDT", '/depth?a=",\\"body":', 200, body))
    assert line.endswith(b',"body":' + body + b"}") and parse(line).body == body
    assert orjson.loads(line)["path"] == '/depth?a=",\\"body":'


def test_a_frame_in_other_memory_is_as_good():
    assert text(bytearray(b'{"a":1}')) == b'{"a":1}' and parse(bytes(text(bytearray(b"pong")))) == Frame(b"pong")


def test_words_that_are_not_unicode_are_shown_as_such():
    assert parse(encode(Disconnect("a\udcffb"))) == Disconnect("a\\udcffb")


def test_what_others_may_add_is_passed_over():
    assert parse(b'{"alpha":"connect","url":"wss://x","attempt":3}') == Connect("wss://x")


@pytest.mark.parametrize(("line", "named"), [
    (b'{"alpha":"capture","version":2,"venue":"v","symbols":["A"]}', "version=2"),
    (b'{"alpha":"capture","version":1,"venue":"v","symbols":[]}', "symbols"),
    (b'{"alpha":"capture","version":1,"venue":"v","symbols":[1]}', "symbols"),
    (b'{"alpha":"missed","count":-1}', "count"), (b'{"alpha":"missed"}', "count"),
    (b'{"alpha":"dance"}', "dance"), (b'{"alpha":"frame","b64":"%"}', "b64"), (b'{"alpha":"http","symbol', "JSON"),
    (b'{"alpha":"http","symbol":"A","path":"/","status":"200","body":{}}', "status"),
    (b'{"alpha":"state","symbol":"A"}', "b64"), (b'{"alpha":7}', "alpha"),
])
def test_a_damaged_control_line_is_refused_by_name(line, named):
    with pytest.raises(VenueError, match=named):
        parse(line)
