"""The files of logs: merged by time, followed across everything that may happen to them."""

import logging.handlers
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from common.log_files import Follower, found, history, last_words, rotated, stage_of
from common.log_lines import Event, as_json

S = 10**9
AT = 1_780_000_000 * S


def event(stage: str, seconds: float, text: str) -> Event:
    return Event(AT + int(seconds * S), "info", stage, text)


def write(path, *events: Event | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for one in events:
            file.write((as_json(one) if isinstance(one, Event) else one) + "\n")


def texts(events) -> list[str]:
    return [one.event for one in events]


def rotate(path, backups: int = 2) -> None:
    """As supervisord does it."""
    handler = logging.handlers.RotatingFileHandler(path, backupCount=backups)
    handler.doRollover()
    handler.close()


def test_files_are_named_by_their_stages(tmp_path):
    for name in ("ingest-0", "ingest-1", "inference-0", "inference-1", "executor", "supervisord"):
        write(tmp_path / "log" / f"{name}.log", "x")
    assert set(found(tmp_path)) == {"ingest", "ingest-1", "inference-0", "inference-1", "executor", "supervisord"}
    assert set(found(tmp_path, ["inference", "executor"])) == {"inference-0", "inference-1", "executor"}
    assert set(found(tmp_path, ["inference-1"])) == {"inference-1"} and not found(tmp_path, ["nonsense"])
    assert stage_of(tmp_path / "ingest-0.log.2") == "ingest"


def test_stages_are_merged_by_time_renamed_files_too(tmp_path):
    a, b = tmp_path / "log" / "executor.log", tmp_path / "log" / "feature.log"
    write(a, event("executor", 0, "a0"), event("executor", 3, "a3"))
    rotate(a)
    write(a, event("executor", 5, "a5"))
    rotate(a)
    write(a, event("executor", 8, "a8"), "alpha: a line without a time")
    write(b, event("feature", 1, "b1"), event("feature", 4, "b4"), event("feature", 9, "b9"))
    assert [path.name for path in rotated(a)] == ["executor.log", "executor.log.1", "executor.log.2"]
    assert texts(history(found(tmp_path))) == ["a0", "b1", "a3", "b4", "a5", "a8", "alpha: a line without a time", "b9"]


def test_the_first_ingest_is_found_as_its_file_is_named_alone(tmp_path):
    for name in ("ingest-0", "ingest-1"):
        write(tmp_path / "log" / f"{name}.log", "x")
    assert set(found(tmp_path, ["ingest-0"])) == {"ingest"}
    assert set(found(tmp_path, ["ingest"])) == {"ingest", "ingest-1"}


def test_lines_without_a_time_have_that_of_their_neighbour_and_else_of_their_file(tmp_path):
    path, bare = tmp_path / "log" / "exchange.log", tmp_path / "log" / "feature.log"
    write(path, "one", "two", event("exchange", 3, "three"), "four", event("exchange", 5, "five"))
    assert [(one.event, (one.at_ns - AT) // S) for one in history(found(tmp_path))] == [
        ("one", 3), ("two", 3), ("three", 3), ("four", 3), ("five", 5)]
    write(bare, "nothing but this")
    [only] = history({"feature": bare})
    assert only.at_ns == bare.stat().st_mtime_ns
    follower, before = Follower("feature", bare, whole=True), time.time_ns()
    assert [one.at_ns >= before for one in follower.read()] == [True]
    follower.close()


def test_the_last_words_are_those_of_the_event(tmp_path):
    path = tmp_path / "log" / "ingest-0.log"
    assert last_words(tmp_path, "ingest") == ""
    write(path, "x" * 10_000, event("ingest", 1, "the disk is full"), "", "")
    assert last_words(tmp_path, "ingest") == last_words(tmp_path, "ingest-0") == "the disk is full"
    write(path, "alpha: a wrong key")
    assert last_words(tmp_path, "ingest") == "alpha: a wrong key"


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["write", "write", "part", "rotate", "read", "rotate twice"]), max_size=25),
       st.integers(0, 3))
def test_a_follower_reads_each_line_once_in_order_whatever_happens(tmp_path_factory, steps, before):
    path = tmp_path_factory.mktemp("l") / "log" / "x.log"
    path.parent.mkdir()
    path.touch()
    count, part, heard = 0, False, []

    def put(end: str) -> None:
        nonlocal count, part
        with path.open("a") as file:
            file.write(("" if part else f"line {count}") + end)
        count += not part
        part = not end

    for _ in range(before):
        put("\n")
    earlier, follower = count, Follower("x", path)
    place = follower.place
    for step in steps:
        if step == "read":
            heard += texts(follower.read())
        elif step.startswith("rotate"):
            if not part:  # supervisord renames between two writes; a line may still be torn, see below
                rotate(path, 99)
                if step.endswith("twice"):
                    put("\n")
                    rotate(path, 99)
        else:
            put("" if step == "part" else "\n")
    if part:
        put("\n")
    heard += texts(follower.read())
    assert heard == [f"line {k}" for k in range(earlier, count)]
    # What was there before it began is history, and the two leave nothing out and have nothing twice.
    assert texts(history({"x": path}, {"x": place})) == [f"line {k}" for k in range(earlier)]
    follower.close()


def test_a_follower_waits_for_a_file_and_survives_its_removal_and_its_cutting(tmp_path):
    path = tmp_path / "log" / "x.log"
    follower = Follower("x", path, whole=True)
    assert follower.read() == [] and follower.place is None
    write(path, "one")
    assert texts(follower.read()) == ["one"]
    path.unlink()
    assert follower.read() == []
    write(path, "two")
    assert texts(follower.read()) == ["two"]
    with path.open("r+") as file:
        file.truncate()
    write(path, "3")
    assert texts(follower.read()) == ["3"]
    with path.open("a") as file:
        file.write("torn")
    assert follower.read() == []
    rotate(path)
    write(path, "four")
    assert texts(follower.read()) == ["torn", "four"]
