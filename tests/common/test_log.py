"""The log: one line per event, storms counted, secrets never written."""

import io
import json
import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import log
from common.config import Config, Log, load
from common.errors import ConfigError, ResourceError, VenueError
from common.repeats import Repeats


class Said:
    """A logger with our handler, on a stream and a clock of its own."""

    def __init__(self, form: str = "json", limit: int = 3, environ: dict[str, str] | None = None) -> None:
        self.stream, self.now = io.StringIO(), 0.0
        self.handler = log.Handler("executor", form, Repeats(limit, 10.0), environ or {}, self.stream, lambda: self.now)
        self.log = logging.Logger("executor")
        self.log.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def told(self) -> list[dict]:
        return [json.loads(line) for line in self.lines]


def test_an_event_is_one_object_with_its_fields():
    said = Said()
    said.log.warning("order %s rejected: %s", "a-1", "no", extra={"symbol": "AAPL", "qty": 3, "level": "odd"})
    found = said.told[0]
    assert (found["event"], found["level"], found["stage"]) == ("order a-1 rejected: no", "warning", "executor")
    assert found["pid"] == os.getpid() and (found["symbol"], found["qty"], found["level_"]) == ("AAPL", 3, "odd")


def test_an_exception_keeps_one_line_and_all_of_its_traceback():
    said = Said()
    try:
        raise VenueError("odd", where="x=1\ny=2")
    except VenueError:
        said.log.exception("crashed\nbadly")
    assert len(said.lines) == 1
    assert said.told[0]["event"] == "crashed\nbadly" and "test_log.py" in said.told[0]["traceback"]
    assert said.told[0]["traceback"].endswith("VenueError: odd (x=1\ny=2)")


def test_a_storm_is_counted_by_its_text_and_not_by_its_values():
    said = Said()
    for k in range(1535):
        said.log.error("frame %d refused", k)
    said.log.error("another")
    assert [found["event"] for found in said.told] == [*(f"frame {k} refused" for k in range(3)), "another"]
    said.now = 11.0
    said.handler.tend()
    assert said.told[-1]["event"] == "repeated 1,532 times: frame %d refused" and said.told[-1]["repeated"] == 1532
    assert said.told[-1]["level"] == "error"
    said.log.error("frame %d refused", 9)
    assert said.told[-1]["event"] == "frame 9 refused"


def test_errors_that_are_logged_as_themselves_are_told_apart_by_what_happened():
    said = Said(limit=1)
    for k in range(5):
        said.log.error("%s", ResourceError("the disk is full", where=f"{k} bytes"))
        said.log.error("%s", VenueError("a frame is odd"))
        said.log.error("%s", f"plain {k % 2}")
    assert len(said.lines) == 4
    said.handler.close()
    assert sorted(found["repeated"] for found in said.told[4:]) == [1, 2, 4, 4]


def test_what_was_held_back_is_told_at_the_end():
    said = Said(limit=1)
    for _ in range(4):
        said.log.error("x")
    said.handler.close()
    assert said.told[-1]["event"] == "repeated 3 times: x"


def test_an_event_that_cannot_be_put_together_does_not_end_its_stage(capsys):
    said = Said()
    said.log.error("%d", "x")
    said.log.error("fine")
    assert said.told[-1]["event"] == "fine" and "Traceback" in capsys.readouterr().err


@settings(max_examples=50)
@given(st.text('qz7+/=&%"\\äé -', min_size=8, max_size=40).map(lambda text: f"sk-{text}~"),
       st.sampled_from(log.SECRETS), st.sampled_from(["json", "text"]))
def test_no_secret_is_ever_written(secret, name, form):
    said = Said(form, environ={name: secret, "OTHER": "kept"})
    try:
        raise ValueError(f"https://x/?key={secret}")
    except ValueError:
        said.log.exception("key %s, in an address %s", secret, log.quote(secret, safe=""), extra={"header": secret})
    line = said.stream.getvalue()
    assert not any(told in line for told in (secret, log.quote(secret), json.dumps(secret)[1:-1]))
    if form == "json":
        assert all(secret not in str(value) for value in json.loads(line).values())


def test_secrets_are_put_out_of_events_fields_and_tracebacks():
    secret = 'hunter2 "quoted" ä/+=&'
    for form in ("json", "text"):
        said = Said(form, environ={"ALPHA_BOT_KEY": secret})
        try:
            raise ValueError(secret)
        except ValueError:
            said.log.exception("a %s b", log.quote(secret), extra={"header": secret})
        text = said.stream.getvalue()
        assert "hunter2" not in text and text.count(log.MASK) >= 3
        if form == "json":
            assert said.told[0]["event"] == "a *** b" and said.told[0]["header"] == "***"


def test_levels_are_those_of_the_stage_or_its_kind():
    config = Config(log=Log(level="warning", levels={"inference": "debug", "inference-1": "error"}))
    assert [log.level_of(stage, config) for stage in ("executor", "inference-0", "inference-1")] == [
        "warning", "debug", "error"]


@pytest.mark.parametrize("settings, where", [
    ({"ALPHA_LOG__LEVEL": "loud"}, "log.level='loud'"), ({"ALPHA_LOG__FORMAT": "xml"}, "log.format"),
    ({"ALPHA_LOG__LEVELS": '{executor="loud"}'}, "log.levels.executor"), ({"ALPHA_LOG__REPEATS": "-1"}, "log.repeats"),
    ({"ALPHA_LOG__REPEAT_WINDOW_S": "0.0"}, "log.repeat_window_s")])
def test_a_wrong_setting_is_refused_with_its_key(settings, where):
    with pytest.raises(ConfigError, match=where):
        load(None, settings)


@pytest.mark.parametrize("supervised, form, begins", [("", "auto", "2"), ("1", "auto", "{"), ("1", "text", "2"),
                                                      ("", "json", "{")])
def test_a_program_gets_json_and_a_person_text(supervised, form, begins):
    """In a process of its own: this is what standard error of a stage has."""
    code = ("import logging; from common import log; from common.config import load; "
            "log.start('feature', load()); logging.getLogger('feature').warning('here'); "
            "[logging.getLogger('feature').error('again') for _ in range(60)]")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={
        **os.environ, "ALPHA_SUPERVISED": supervised, "ALPHA_LOG__FORMAT": form}).stderr.splitlines()
    assert said[0][0] == begins and "here" in said[0]
    assert len(said) == 52 and "repeated 10 times: again" in said[-1]
