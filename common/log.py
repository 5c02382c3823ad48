"""The log of a process: one line per event on standard error, which supervisord keeps in files and rotates.

    [log]
    level = "info"
    format = "auto"         json where supervisord collects it, text elsewhere: for a program, and for a person
    repeats = 50            of one event in repeat_window_s; the rest are counted, and told as one line; 0: no limit
    repeat_window_s = 10.0

    [log.levels]            of stages: "inference" is every worker, "inference-1" one of them
    executor = "debug"

An event is a text with its values: `log.warning("order %s rejected: %s", client_id, reason)`, further fields by
`extra={...}`. Two events are the same if stage, level and text are, whatever the values; where the text is nothing but
a value, what an error says happened counts as the text (`common.errors`).

The values of secrets that the environment holds are put out of every line, as a last line of defence: none is written
here on purpose.
"""

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from typing import TextIO
from urllib.parse import quote

from common.config import Config
from common.errors import AlphaError
from common.log_lines import Event, as_json, as_text
from common.repeats import Repeats

#: variables of the environment whose values never stand in a line
SECRETS = ("ALPHA_BOT_KEY", "ALPHA_BINANCE_KEY", "ALPHA_BINANCE_SECRET", "ALPHA_MONITOR_TOKEN", "ALPHA_ALERTS_WEBHOOK",
           "ALPHA_PROXY_AUTH")
SUPERVISED = "ALPHA_SUPERVISED"  #: set by a supervisor: log for a program (and see common.stage)
MASK = "***"
_LEAST = 4  # letters of a value: a shorter one would be found in words, and is no secret
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_TEXTLESS = "%s"


def start(stage: str, config: Config, environ: Mapping[str, str] = os.environ) -> "Handler":
    """All events of this process to standard error, as the configuration wants them. Replaces what was there before."""
    settings = config.log
    form = settings.format if settings.format != "auto" else "json" if environ.get(SUPERVISED) else "text"
    handler = Handler(stage, form, Repeats(settings.repeats, settings.repeat_window_s), environ)
    logging.basicConfig(handlers=[handler], level=level_of(stage, config).upper(), force=True)
    return handler


def tend() -> None:
    """What was held back is told when its window is over, also where nothing more is logged: to be called about once a
    second."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Handler):
            handler.tend()


def level_of(stage: str, config: Config) -> str:
    """The level of a stage: its own, or that of its kind, or that of all."""
    levels = config.log.levels
    return levels.get(stage) or levels.get(stage.partition("-")[0]) or config.log.level


class Handler(logging.Handler):
    """Writes events as lines. An event costs 50 us with all that `logging` does, one that is held back 12 us."""

    def __init__(self, stage: str, form: str, repeats: Repeats, environ: Mapping[str, str] = os.environ,
                 stream: TextIO | None = None, clock=time.monotonic) -> None:
        super().__init__()
        self._stage, self._write = stage, as_json if form == "json" else as_text
        self._repeats, self._clock = repeats, clock
        self._stream = stream
        self._masked = masked_forms(environ)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            now = self._clock()
            self._tell(now)
            if self._repeats.admits(_kind(record), now):
                self._put(self._event(record))
        except Exception:
            self.handleError(record)

    def tend(self) -> None:
        """Tell what was held back in windows that are over. About 1 us where there is nothing."""
        self.acquire()
        try:
            self._tell(self._clock())
        finally:
            self.release()

    def close(self) -> None:
        """Tell what has been held back so far."""
        self.acquire()
        try:
            self._tell(float("inf"))
        finally:
            self.release()
        super().close()

    def _tell(self, now: float) -> None:
        for kind, count in self._repeats.over(now):
            name, level, text = kind or ("", logging.WARNING, "events of many kinds")
            self._put(Event(time.time_ns(), logging.getLevelName(level).lower(), self._stage,
                            f"repeated {count:,} times: {text}", os.getpid(), logger=name,
                            fields={"repeated": count}))

    def _event(self, record: logging.LogRecord) -> Event:
        told = ""
        if record.exc_info and record.exc_info[0] is not None:
            told = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return Event(int(record.created * 1e9), record.levelname.lower(), self._stage, record.getMessage(),
                     record.process or 0, told, record.name, fields)

    def _put(self, event: Event) -> None:
        line = self._write(event)
        for secret in self._masked:
            line = line.replace(secret, MASK)
        stream = self._stream or sys.stderr
        stream.write(line + "\n")
        stream.flush()


def masked_forms(environ: Mapping[str, str]) -> list[str]:
    """Every secret in the forms in which it may stand in a line: as it is, in JSON, in an address; longest first."""
    forms = set()
    for name in SECRETS:
        value = environ.get(name, "")
        if len(value) >= _LEAST:
            forms |= {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], quote(value),
                      quote(value, safe="")}
    return sorted(forms, key=len, reverse=True)


def _kind(record: logging.LogRecord) -> tuple[str, int, str]:
    text = str(record.msg)
    if text == _TEXTLESS and record.args:
        first = record.args[0] if isinstance(record.args, tuple) else record.args
        text = first.what if isinstance(first, AlphaError) else str(first)[:200]
    return record.name, record.levelno, text
