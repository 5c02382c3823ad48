"""Recordings of a tap: what was written is read, whole or up to where it was cut off, and damage is seen."""

import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError, ResourceError, WireError
from common.tap_file import MAGIC, Heard, Note, Recording, TapFile

NOTE = Note("ticks", ("A", "Bé"), 17)
notes = st.builds(Note, st.just("ticks"), st.lists(st.text(max_size=5), max_size=3).map(tuple),
                  st.integers(-2**62, 2**62), st.integers(0, 2**40))
messages = st.lists(st.builds(Heard, st.integers(0, 2**62), st.binary(max_size=200), notes), max_size=8)


def write(path, heard: list[Heard]) -> None:
    file = TapFile(path, heard[0].note if heard else NOTE)
    for one in heard:
        file.write(*one)
    file.close()


def read(path) -> tuple[list[Heard], Recording]:
    recording = Recording(path)
    found = list(recording)
    recording.close()
    return found, recording


@settings(max_examples=40)
@given(messages)
def test_what_was_written_is_read_byte_for_byte_with_its_time_and_what_held(tmp_path_factory, heard):
    path = tmp_path_factory.mktemp("t") / "a.tap"
    write(path, heard)
    found, recording = read(path)
    assert found == heard and recording.torn == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@settings(max_examples=40)
@given(messages.filter(bool), st.data())
def test_a_torn_end_is_noticed_and_all_before_it_is_read(tmp_path_factory, heard, data):
    path = tmp_path_factory.mktemp("t") / "a.tap"
    write(path, heard)
    content = path.read_bytes()
    begin = len(MAGIC) + 17 + int.from_bytes(content[len(MAGIC):len(MAGIC) + 4], "little")
    size = data.draw(st.integers(begin, len(content)))
    path.write_bytes(content[:size])
    found, recording = read(path)
    assert found == heard[:len(found)]
    ends = {begin}
    while (at := max(ends)) < len(content):
        ends.add(at + 17 + int.from_bytes(content[at:at + 4], "little"))
    assert (recording.torn == 0) == (size in ends) and max(end for end in ends if end <= size) + recording.torn == size


@settings(max_examples=40)
@given(messages.filter(bool), st.data())
def test_a_damaged_byte_is_never_read_as_a_message(tmp_path_factory, heard, data):
    path = tmp_path_factory.mktemp("t") / "a.tap"
    write(path, heard)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        recording = Recording(path)
        found = []
        for one in recording:
            found.append(one)
    except (WireError, ConfigError):
        found = None
    # A damaged length may look like an end that was cut off: told as that.
    assert found is None or recording.torn and found == heard[:len(found)]


def test_it_grows_and_can_be_read_meanwhile(tmp_path):
    file = TapFile(tmp_path / "a.tap", NOTE)
    file.write(1, b"one", NOTE)
    file.flush()
    assert [one.message for one in Recording(tmp_path / "a.tap")] == [b"one"]
    file.write(2, b"two", NOTE._replace(missed=3))
    file.close(NOTE._replace(missed=5))
    found, recording = read(tmp_path / "a.tap")
    assert [(one.message, one.note.missed) for one in found] == [(b"one", 0), (b"two", 3)] and recording.missed == 5


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "a.tap").write_bytes(b"x")
    with pytest.raises(ConfigError, match="there is a file already"):
        TapFile(tmp_path / "a.tap", NOTE)
    with pytest.raises(ResourceError, match="cannot write a recording"):
        TapFile(tmp_path / "nowhere" / "a.tap", NOTE)


def test_a_full_disk_is_said_and_what_was_written_can_be_read(tmp_path, monkeypatch):
    file = TapFile(tmp_path / "a.tap", NOTE)
    file.write(1, b"one", NOTE)
    file.flush()
    monkeypatch.setattr(os, "write", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    file.write(2, b"two", NOTE)
    with pytest.raises(ResourceError, match="No space left"):
        file.flush()
    monkeypatch.undo()
    assert [one.message for one in Recording(tmp_path / "a.tap")] == [b"one"]


@pytest.mark.parametrize("content, what", [(b"", "not a recording"), (b"hello world, hello", "not a recording"),
                                           (MAGIC, "is empty"), (MAGIC + b"\x01", "is empty")])
def test_what_is_none_is_refused(tmp_path, content, what):
    (tmp_path / "a.tap").write_bytes(content)
    with pytest.raises(ConfigError, match=what):
        Recording(tmp_path / "a.tap")
