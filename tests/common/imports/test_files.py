"""Text files of others: any packing reads the same, and damage is named with its place."""

import gzip

import pytest
import zstandard

from common.errors import ConfigError, VenueError
from common.imports.files import first, lines

LINES = [b"line %d %s" % (i, b"x" * (i % 300)) for i in range(20_000)]
PACKERS = {".csv": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


def write(path, content: bytes):
    path.write_bytes(PACKERS[path.suffix](content))
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.gz", "a.zst"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_every_packing_and_end_of_line_reads_the_same(tmp_path, name, end):
    path = write(tmp_path / name, end.join(LINES) + end)
    assert list(lines(path)) == list(enumerate(LINES, 1))
    assert first(path) == LINES[0]


def test_packed_files_end_to_end_are_one(tmp_path):
    path = tmp_path / "a.zst"
    path.write_bytes(PACKERS[".zst"](b"a\nb\n") + PACKERS[".zst"](b"c\n"))
    assert [line for _, line in lines(path)] == [b"a", b"b", b"c"]


def test_an_empty_file_has_no_lines(tmp_path):
    assert first(write(tmp_path / "a.csv", b"")) == b""


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
def test_a_damaged_file_is_named_with_the_line_before_the_damage(tmp_path, name):
    path = write(tmp_path / name, b"\n".join(LINES))
    content = bytearray(path.read_bytes())
    content[len(content) // 2:len(content) // 2 + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(VenueError, match=rf"{name}, after line \d+"):
        list(lines(path))


def test_a_file_that_is_cut_off_is_refused_after_its_whole_lines(tmp_path):
    path = write(tmp_path / "a.gz", b"\n".join(LINES))
    path.write_bytes(path.read_bytes()[:-2000])
    found = []
    with pytest.raises(VenueError, match="damaged or cut off"):
        for line in lines(path):
            found.append(line)
    assert found and found == list(enumerate(LINES, 1))[:len(found)]


@pytest.mark.parametrize("name", ["no.csv", "no.gz", "no.zst"])
def test_a_missing_file_is_a_configuration_error(tmp_path, name):
    with pytest.raises(ConfigError, match=name):
        list(lines(tmp_path / name))
