"""The list of processes, as supervisord.conf has it."""

import dataclasses
from pathlib import Path

import pytest

from common.config import Config, Executor, Market
from common.errors import ConfigError
from common.programs import environment, on_this_machine, parse, stopped_before

CONF = (Path(__file__).resolve().parents[2] / "supervisord.conf").read_text()
PROGRAMS = parse(CONF)


def test_the_programs_come_in_the_order_in_which_they_stop():
    names = [program.name for program in PROGRAMS]
    assert names[:2] == ["ingest", "feature"] and names.index("executor") < names.index("exchange")
    assert all(program.stop_s > 0 and program.command.startswith("/usr/bin/env alpha ") for program in PROGRAMS)
    by_name = {program.name: program for program in PROGRAMS}
    assert by_name["inference"].command.endswith("--worker {}") and by_name["inference"].numbered
    assert by_name["inference"].stages() == ["inference-0", "inference-1"]
    assert not by_name["executor"].numbered and by_name["executor"].always and not by_name["monitor"].always


def test_each_waits_for_all_of_the_next_that_stop_before_it():
    by_name = {program.name: program for program in PROGRAMS}
    two = tuple(program._replace(count=2) if program.name == "ingest" else program for program in PROGRAMS)
    assert stopped_before(by_name["ingest"], PROGRAMS) == []
    assert stopped_before(by_name["feature"], two) == ["ingest", "ingest-1"]
    assert stopped_before(by_name["executor"], PROGRAMS) == ["inference-0", "inference-1"]
    # From one to the next, everything that stops earlier has been waited for.
    for program in PROGRAMS:
        seen, look = set(), [program]
        while look:
            for other in PROGRAMS:
                if set(other.stages()) & set(stopped_before(look[-1], PROGRAMS)) and other.name not in seen:
                    seen.add(other.name)
                    look.append(other)
                    break
            else:
                break
        assert seen == {other.name for other in PROGRAMS if other.priority > program.priority}


def test_one_that_is_not_started_with_the_others_is_left_out():
    assert "monitor" not in {program.name for program in parse(CONF.replace("autostart=true", "autostart=false"))}


@pytest.mark.parametrize("broken", [
    "[program:x]\ncommand=y\n", "[program:x\n", "[program:x]\ncommand=y\npriority=high"])
def test_a_file_that_lacks_what_every_program_has_is_refused(broken):
    with pytest.raises(ConfigError, match="supervisord.conf"):
        parse(broken)


def test_the_environment_of_all_is_read_as_it_stands():
    assert environment(CONF)["ALPHA_SUPERVISED"] == "1" and "ALPHA_CONFIG" in environment(CONF)


@pytest.mark.parametrize("changes, here", [
    ({}, True),
    ({"market": Market(ws_url="", rest_url="", live=True), "executor": Executor(gateway="paper")}, False),
    ({"market": Market(ws_url="", rest_url="")}, True),  # orders still go there
    ({"market": Market(ws_url="ws://127.0.0.1:87650", rest_url=""), "executor": Executor(gateway="paper")}, False),
    ({"market": Market(ws_url="ws://127.0.0.1:8765/ws", rest_url=""), "executor": Executor(gateway="paper")}, True),
])
def test_the_loopback_exchange_is_needed_where_something_speaks_with_it(changes, here):
    assert on_this_machine(dataclasses.replace(Config(), **changes)) is here
