"""The write-ahead log: a torn end is no loss, a flipped byte before other commits is, and old frames are neither."""

import sqlite3

import pytest

from common.journal.log import lost_commits

_PAGE = 4096
_FRAME = _PAGE + 24


@pytest.fixture
def log(tmp_path):
    """Ten commits of one frame each."""
    db = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for x in range(10):
        db.execute("INSERT INTO t VALUES (?)", (x,))
    data = (tmp_path / "a.db-wal").read_bytes()
    db.close()
    assert len(data) == 32 + 10 * _FRAME
    return data


def flipped(log: bytes, at: int) -> bytes:
    return log[:at] + bytes([log[at] ^ 4]) + log[at + 1:]


def test_a_whole_log_a_torn_one_and_none_lose_nothing(log):
    assert lost_commits(b"") == lost_commits(log[:32]) == lost_commits(log) == 0
    for cut in (1, 100, _FRAME, _FRAME + 1, 5 * _FRAME + 2_000):
        assert lost_commits(log[:-cut]) == 0, cut


@pytest.mark.parametrize("inside", [0, 5, 8, 12, 17, 24, 2_000, _FRAME - 1])
def test_a_flipped_bit_in_a_frame_loses_what_follows(log, inside):
    found = [lost_commits(flipped(log, 32 + frame * _FRAME + inside)) for frame in range(10)]
    salt = inside in (8, 12)  # then the frame is not known as one of this log any more
    assert found == [max(0, 9 - frame - salt) for frame in range(10)]


def test_a_flipped_bit_in_the_head_loses_all(log):
    for at in (0, 3, 8, 17, 25):
        assert lost_commits(flipped(log, at)) == 1


def test_frames_of_an_earlier_round_are_no_loss(tmp_path):
    db = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
    for x in range(10):
        db.execute("INSERT INTO t VALUES (?)", (x,))
    db.execute("PRAGMA wal_checkpoint(PASSIVE)")  # the next write begins the file anew, over the old frames
    db.execute("INSERT INTO t VALUES (10)")
    data = (tmp_path / "a.db-wal").read_bytes()
    assert len(data) > 32 + 5 * _FRAME and lost_commits(data) == 0
    db.close()
