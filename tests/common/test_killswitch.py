"""The kill switch is a file, and in doubt it halts."""

import os
import stat

import pytest

from common import killswitch
from common.errors import ResourceError


def test_a_halt_says_who_when_and_why_until_it_is_lifted(tmp_path):
    assert killswitch.state(tmp_path) is None and not killswitch.present(tmp_path / killswitch.FILE)
    made = killswitch.halt(tmp_path, "too many rejects", who="me")
    assert killswitch.present(tmp_path / killswitch.FILE)
    assert killswitch.state(tmp_path) == made and (made.who, made.why) == ("me", "too many rejects")
    assert made.when_ns > 0
    assert killswitch.resume(tmp_path) == made
    assert killswitch.state(tmp_path) is None and killswitch.resume(tmp_path) is None


def test_the_first_reason_stays(tmp_path):
    first = killswitch.halt(tmp_path, "first")
    assert killswitch.halt(tmp_path, "second") == first == killswitch.state(tmp_path)


def test_it_makes_its_folder_and_is_readable_by_its_owner_alone(tmp_path):
    killswitch.halt(tmp_path / "run", "x")
    assert stat.S_IMODE((tmp_path / "run" / killswitch.FILE).stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "run") == [killswitch.FILE]


def test_a_reduction_is_a_file_of_its_own_that_may_become_a_flattening_and_never_less(tmp_path):
    assert killswitch.reduction(tmp_path) is None
    made = killswitch.reduce(tmp_path, "first", who="me")
    assert killswitch.reduction(tmp_path) == made and not made.flatten and killswitch.state(tmp_path) is None
    assert killswitch.reduce(tmp_path, "second") == made
    more = killswitch.reduce(tmp_path, "third", flatten=True)
    assert more == made._replace(flatten=True) == killswitch.reduction(tmp_path)
    assert killswitch.reduce(tmp_path, "fourth") == more
    halt = killswitch.halt(tmp_path, "all of it")
    assert killswitch.resume(tmp_path) == halt and killswitch.reduction(tmp_path) is killswitch.state(tmp_path) is None
    killswitch.reduce(tmp_path, "again")
    assert killswitch.resume(tmp_path).why == "again"


@pytest.mark.parametrize("text", ["", "[]", "{}", '"x"'])
def test_a_reduction_that_cannot_be_understood_reduces_and_does_not_flatten(tmp_path, text):
    (tmp_path / killswitch.REDUCE_FILE).write_text(text)
    found = killswitch.reduction(tmp_path)
    assert found.who == "?" and not found.flatten


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"who": 1}', '{"who":"a","when_ns":"x","why":"b"}'])
def test_a_file_that_cannot_be_understood_halts_all_the_same(tmp_path, text):
    (tmp_path / killswitch.FILE).write_text(text)
    assert killswitch.state(tmp_path).who == "?"
    killswitch.resume(tmp_path)
    assert killswitch.state(tmp_path) is None


def test_what_cannot_be_looked_at_counts_as_a_halt(tmp_path):
    (tmp_path / "file").write_text("")
    assert killswitch.present(tmp_path / "file" / killswitch.FILE)


def test_a_switch_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    for write in (killswitch.arm, lambda folder: killswitch.halt(folder, "x"),
                  lambda folder: killswitch.reduce(folder, "x")):
        with pytest.raises(ResourceError, match="kill switch"):  # and not an earlier one that is only presumed
            write(tmp_path / "file")


def test_arming_is_a_file_too(tmp_path):
    killswitch.arm(tmp_path)
    assert killswitch.present(tmp_path / killswitch.ARMED_FILE)
    killswitch.disarm(tmp_path)
    killswitch.disarm(tmp_path)
    assert not killswitch.present(tmp_path / killswitch.ARMED_FILE)


@pytest.mark.parametrize("content", [b"caf\xe9", b"[" * 100_000, b'{"who": "a", "when_ns": 1e999, "why": "b"}'])
def test_a_halt_that_says_nonsense_halts_all_the_same(tmp_path, content):
    (tmp_path / killswitch.FILE).write_bytes(content)
    assert "can be read" in killswitch.state(tmp_path).why


def test_a_reason_can_be_shown_whatever_a_terminal_made_of_it(tmp_path):
    killswitch.halt(tmp_path, "caf\udce9")
    assert killswitch.state(tmp_path).why == "caf?"
