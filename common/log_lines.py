"""A line of a log, written and read. Pure.

As JSON, one object a line, which is what a file holds:

    at         UTC, ISO 8601, to the millisecond: 2026-12-01T08:15:30.123Z
    level      debug, info, warning, error or critical
    stage      who says it, with its number: executor, inference-1
    pid        of its process
    event      what happened, in words
    traceback  of an exception, all its lines in one text
    logger     the part of the program that says it, where that is not the stage
    NAME       further fields, as the event gives them

As text, which is what a terminal shows:

    2026-12-01T08:15:30.123 WARNING executor halted: by hand (by me)

in local time, with fields as NAME=value behind the event. Both are read, and supervisord's own lines, and whatever else
a process may have written to its standard error: that has the time of what stands before it, or else after it.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from common.config import LOG_LEVELS

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_OURS = ("at", "level", "stage", "pid", "event", "traceback", "logger")
_TEXT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\.(\d{3}) (DEBUG|INFO|WARNING|ERROR|CRITICAL) +(\S+) (.*)")
_SUPERVISOR = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d),(\d{3}) (BLAT|TRAC|DEBG|INFO|WARN|ERRO|CRIT) (.*)")
_SHORT = {"BLAT": "debug", "TRAC": "debug", "DEBG": "debug", "WARN": "warning", "ERRO": "error", "CRIT": "critical"}


class Event(NamedTuple):
    """`at_ns` is Unix ns, 0 where a line does not say; then it goes with its neighbour."""

    at_ns: int
    level: str
    stage: str
    event: str
    pid: int = 0
    traceback: str = ""
    logger: str = ""
    fields: dict[str, Any] = {}


def utc(at_ns: int) -> str:
    ms = at_ns // 1_000_000
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def as_json(event: Event) -> str:
    """One line, whatever the event holds: what JSON does not know is written as text."""
    told: dict[str, Any] = {"at": utc(event.at_ns), "level": event.level, "stage": event.stage, "pid": event.pid,
                            "event": event.event}
    if event.logger not in ("", event.stage, event.stage.partition("-")[0]):
        told["logger"] = event.logger
    for name, value in event.fields.items():
        told[f"{name}_" if name in _OURS else name] = value
    if event.traceback:
        told["traceback"] = event.traceback
    return json.dumps(told, default=str, ensure_ascii=False)


def as_text(event: Event) -> str:
    """For people: the event on one line, a traceback below it."""
    ms = event.at_ns // 1_000_000
    text = (f"{datetime.fromtimestamp(ms // 1000):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d} {event.level.upper():<7} "
            f"{event.stage} {_on_one_line(event.event)}")
    text += "".join(f" {name}={_on_one_line(str(value))}" for name, value in event.fields.items())
    return f"{text}\n{event.traceback}" if event.traceback else text


def parse(line: str, stage: str) -> Event:
    """What a line says, of the file of `stage`."""
    line = line.rstrip("\r\n")
    if line.startswith("{"):
        found = _parse_json(line, stage)
        if found is not None:
            return found
    if matched := _TEXT.fullmatch(line):
        day, time, ms, level, who, event = matched.groups()
        return Event(_local(day, time, ms), level.lower(), who, event)
    if matched := _SUPERVISOR.fullmatch(line):
        day, time, ms, level, event = matched.groups()
        return Event(_local(day, time, ms), _SHORT.get(level, "info"), stage, event)
    return Event(0, "info", stage, line)


def _parse_json(line: str, stage: str) -> Event | None:
    try:
        told = json.loads(line)
        at = datetime.fromisoformat(told["at"])
        at_ns = int(at.replace(microsecond=0).timestamp()) * 10**9 + at.microsecond * 1000
        level = told["level"] if told["level"] in LOG_LEVELS else "info"
        return Event(at_ns, level, str(told.get("stage", stage)), str(told["event"]), int(told.get("pid", 0)),
                     str(told.get("traceback", "")), str(told.get("logger", "")),
                     {name: value for name, value in told.items() if name not in _OURS})
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # something of another program that looks like ours


def _local(day: str, time: str, ms: str) -> int:
    try:
        return int(datetime.fromisoformat(f"{day}T{time}").timestamp()) * 10**9 + int(ms) * 1_000_000
    except (ValueError, OverflowError):
        return 0


def _on_one_line(text: str) -> str:
    """Without line ends, and without what a terminal takes for a command: an answer of a venue may hold anything."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], "\\n".join(text.splitlines()))
