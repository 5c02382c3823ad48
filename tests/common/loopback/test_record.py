"""The record: all of an append or nothing, one writer, a torn end removed. And the log of faults."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from common.clock import ManualClock
from common.errors import InstanceError, ResourceError
from common.faults import Applied
from common.loopback.record import FaultLog, Record
from common.matching import Cancelled, Triggered, record_line

EVENTS = [Triggered("O1", 5), Cancelled("O1", 6, "TIF_IOC")]
LINES = [record_line(event).rstrip() for event in EVENTS]


def test_what_is_appended_is_read_back(tmp_path):
    record = Record(tmp_path / "deep" / "exchange.jsonl")
    record.append(EVENTS[:1])
    record.append(EVENTS[1:])
    assert record.lines() == LINES
    record.close()
    again = Record(record.path)
    assert again.lines() == LINES
    again.close()


def test_a_torn_end_is_removed_wherever_it_tore_and_appending_goes_on(tmp_path):
    path = tmp_path / "exchange.jsonl"
    for cut in range(1, len(LINES[1]) + 1):
        path.write_bytes(LINES[0] + b"\n" + LINES[1][:cut])
        record = Record(path)
        assert record.lines() == LINES[:1]
        record.append(EVENTS[1:])
        assert record.lines() == LINES
        record.close()


def test_a_second_writer_is_refused(tmp_path):
    record = Record(tmp_path / "exchange.jsonl")
    with pytest.raises(InstanceError, match=r"exchange\.jsonl"):
        Record(record.path)
    record.close()
    Record(record.path).close()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="file"):
        Record(tmp_path / "file" / "exchange.jsonl")


def test_a_full_disk_leaves_whole_lines_and_is_said(tmp_path):
    """The limit on file size stands in for the disk; it is the process's, hence a process of its own."""
    size = len(LINES[0]) + 1 + 10
    code = f"""
import resource, sys
from common.errors import ResourceError
from common.loopback.record import Record
from common.matching import Cancelled, Triggered
record = Record(__import__("pathlib").Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
record.append([Triggered("O1", 5)])
try:
    record.append([Triggered("O1", 5), Cancelled("O1", 6, "TIF_IOC")])
except ResourceError as error:
    print(error)
"""
    path = tmp_path / "exchange.jsonl"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, capture_output=True, text=True,
                          check=True)
    assert "cannot write the exchange's record" in done.stdout and str(path) in done.stdout
    assert path.read_bytes().splitlines() == LINES[:1]


def test_faults_are_written_down_as_they_are_applied_behind_what_was_asked_for(tmp_path):
    for _ in range(2):  # the file of the run before is replaced
        log = FaultLog(tmp_path / "deep" / "faults.jsonl", ManualClock(5), ["drop:at=1"], 7)
        log.applied(Applied("drop", 1, 2, "A", ""))
        lines = [orjson.loads(line) for line in log.path.read_bytes().splitlines()]
        log.close()
        assert [{**line, "time_ns": 0} for line in lines] == [
            {"time_ns": 0, "plan": ["drop:at=1"], "seed": 7},
            {"time_ns": 0, "fault": "drop", "connection": 1, "frame": 2, "symbol": "A", "detail": ""}]


def test_a_log_of_faults_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "faults.jsonl").mkdir()
    with pytest.raises(ResourceError, match="faults.jsonl"):
        FaultLog(tmp_path / "faults.jsonl", ManualClock(5), [], 1)
