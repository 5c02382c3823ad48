"""Lines of logs: what is written is read again, one line each, and every other line is read as something."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import LOG_LEVELS
from common.log_lines import Event, as_json, as_text, parse, utc

MS = 1_000_000
AT = 1_780_000_000_123 * MS
names = st.text("abcdefgh_", min_size=1, max_size=8)
shown = st.text(st.characters(exclude_categories=["Cc", "Cs"], include_characters="\n\r\t"))  # the others are spelt out
events = st.builds(Event, st.integers(MS, 2**62).map(lambda ns: ns // MS * MS), st.sampled_from(LOG_LEVELS),
                   st.sampled_from(["executor", "inference-1"]), shown, st.integers(0, 2**22), st.text(),
                   st.sampled_from(["", "deployment"]), st.dictionaries(names, st.one_of(st.integers(), st.text())))


QUICK = settings(max_examples=50)


@QUICK
@given(events)
def test_what_is_written_as_json_is_read_again_from_one_line(event):
    line = as_json(event)
    assert "\n" not in line and "\r" not in line
    found = parse(line + "\n", "x")
    assert found == event
    assert list(json.loads(line))[:5] == ["at", "level", "stage", "pid", "event"]


def test_json_is_as_documented():
    assert as_json(Event(AT, "warning", "inference-1", "batch of 3", 17, "Traceback\n  x", "inference", {"n": 1})) == (
        '{"at": "2026-05-28T20:26:40.123Z", "level": "warning", "stage": "inference-1", "pid": 17, "event": '
        '"batch of 3", "n": 1, "traceback": "Traceback\\n  x"}')
    assert "logger" not in as_json(Event(AT, "info", "inference-1", "x", logger="inference-1"))
    assert json.loads(as_json(Event(AT, "info", "x", "y", fields={"at": 1, "odd": {1, }})))["at_"] == 1


@QUICK
@given(events.filter(lambda event: len(event.event.splitlines()) < 2))
def test_what_is_written_as_text_is_read_again(event):
    lines = as_text(event._replace(fields={}, event=event.event.strip() or "x")).split("\n")
    found = parse(lines[0], "other")
    assert (found.level, found.stage) == (event.level, event.stage) and found.event == (event.event.strip() or "x")
    assert abs(found.at_ns - event.at_ns) <= 3600 * 10**9  # but for the hour that comes twice in autumn


def test_lines_of_older_versions_and_of_supervisord_are_read():
    local = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(AT / 1e9))
    found = parse(f"{local}.123 WARNING executor halted: by hand (by me)\n", "x")
    assert found == Event(AT, "warning", "executor", "halted: by hand (by me)")
    found = parse(f"{local.replace('T', ' ')},123 WARN exited: executor (terminated by SIGKILL)", "supervisord")
    assert found == Event(AT, "warning", "supervisord", "exited: executor (terminated by SIGKILL)")


@pytest.mark.parametrize("line", ["alpha: the model cannot be loaded", "  File \"x.py\", line 3", "", '{"a": 1}', "{",
                                  '{"at": "noon", "level": "info", "event": "x"}', "[" * 5000, "{" * 5000])
def test_anything_else_is_an_event_without_a_time(line):
    assert parse(line, "feature") == Event(0, "info", "feature", line)


@QUICK
@given(st.text())
def test_no_line_is_an_error(line):
    parse(line, "x")


@QUICK
@given(events)
def test_text_has_the_event_on_one_line(event):
    assert len(as_text(event._replace(traceback="")).split("\n")) == 1
    assert utc(event.at_ns).endswith("Z")


def test_no_line_tells_a_terminal_what_to_do():
    line = as_text(Event(AT, "warning", "executor", "rejected: \x1b[2Jall is well\x07"))
    assert "\x1b" not in line
    assert "\\x1b[2Jall is well\\x07" in line
