"""The journal of what was judged: whole lines, bounded, and readable after a crash."""

import pytest

from common import judged
from common.judged import Journal, read
from common.outcomes import Outcome
from common.wire import Prediction


def outcome(seq: int) -> Outcome:
    prediction = Prediction(0, 1, 7, seq, 5, 1, 1000 + seq, 2**64 - 1, 0.625, 0.375, 0.5, 100, 102, *[0] * 6)
    return Outcome(prediction, seq + 3, 101, 103)


def write(journal: Journal, *seqs: int) -> int:
    for seq in seqs:
        journal.add(outcome(seq), "best", "BTC-USD", 10**9)
    return journal.write()


def test_what_is_written_is_read(tmp_path):
    journal = Journal(tmp_path / "state")
    assert write(journal) == 0 and write(journal, 1, 2) == 2 and write(journal, 3) == 1
    journal.close()
    lines = list(read(tmp_path / "state"))
    assert [line["seq"] for line in lines] == [1, 2, 3]
    assert lines[0] == {"model": "f" * 16, "name": "best", "symbol": "BTC-USD", "epoch": 7, "seq": 1, "event_ns": 1001,
                        "horizon_ns": 10**9, "p_up": 0.625, "p_down": 0.375, "bid": 100, "ask": 102, "then_seq": 4,
                        "then_bid": 101, "then_ask": 103}
    assert (tmp_path / "state" / judged.NAME).stat().st_mode & 0o777 == 0o600


def test_it_goes_on_after_a_torn_line_which_is_passed_over(tmp_path):
    write(Journal(tmp_path), 1, 2)
    path = tmp_path / judged.NAME
    path.write_bytes(path.read_bytes()[:-20])
    assert [line["seq"] for line in read(tmp_path)] == [1]
    write(Journal(tmp_path), 3)
    assert [line["seq"] for line in read(tmp_path)] == [1, 3]


def test_it_is_bounded_and_the_oldest_goes_first(tmp_path):
    journal = Journal(tmp_path, file_bytes=2000)
    for seq in range(200):
        write(journal, seq)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [judged.NAME, *(f"{judged.NAME}.{number}" for number in range(1, judged.FILES))]
    assert all(path.stat().st_size < 2400 for path in tmp_path.iterdir())
    seqs = [line["seq"] for line in read(tmp_path)]
    assert seqs == list(range(seqs[0], 200)) and 0 < seqs[0]


def test_a_disk_that_refuses_is_told_and_tried_again(tmp_path):
    (tmp_path / "state").write_text("a file where the folder should be")
    journal = Journal(tmp_path / "state")
    with pytest.raises(OSError):
        write(journal, 1)
    (tmp_path / "state").unlink()
    assert write(journal, 2) == 1 and [line["seq"] for line in read(tmp_path / "state")] == [2]


def test_nothing_is_read_where_nothing_is(tmp_path):
    assert list(read(tmp_path / "nowhere")) == []
