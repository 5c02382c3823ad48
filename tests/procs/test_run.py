"""The parts of `alpha run` that need no pipeline; test_pipeline has the rest."""

import configparser
import json
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

import procs.run
from common.config import Config, Inference, Instance, Market, Monitor, load
from common.errors import ConfigError, ResourceError
from common.telemetry import Telemetry
from common.watch.access import ENV_TOKEN
from procs.cli import main
from procs.run import ROOT, Duration, Session, _line, _overrides, render
from tests.pipeline import free_port

CONF = (ROOT / "supervisord.conf").read_text()
STAGES = {"exchange", "ingest", "feature", "inference", "executor", "monitor"}


def parsed(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    parser.read_string(text)
    return parser


def test_the_supervisor_starts_every_stage_and_restarts_it():
    parser = parsed(CONF)
    programs = {name.removeprefix("program:") for name in parser.sections() if name.startswith("program:")}
    assert programs == STAGES
    for name in programs:
        section = parser[f"program:{name}"]
        assert section["command"].startswith(f"/usr/bin/env alpha {name}")
        # The monitor may be switched off, and then ends by itself.
        assert section["autorestart"] == ("unexpected" if name == "monitor" else "true")
        assert section["stopsignal"] == "TERM" and int(section["startretries"]) >= 100
    assert "inet_http_server" not in parser.sections()
    # The first to start is the last to stop: when the others have ended, a core is idle.
    assert min(programs, key=lambda name: int(parser[f"program:{name}"]["priority"])) == "monitor"


def test_the_rendered_file_has_this_runs_workers_folders_and_sockets(tmp_path):
    config = Config(instance=Instance(run_dir=str(tmp_path / "run"), state_dir="state"), base=str(tmp_path),
                    inference=Inference(workers=5), feeds={"other": Market(process=1)})
    assert 'ALPHA_CONFIG=""' in render(CONF, config, tmp_path / "mine.toml")  # a file that is not there
    (tmp_path / "mine.toml").touch()
    text = render(CONF, config, tmp_path / "mine.toml")
    parser = parsed(text)
    assert parser["program:inference"]["numprocs"] == "5" and parser["program:ingest"]["numprocs"] == "2"
    assert "%(here)s" not in text
    assert parser["unix_http_server"]["file"] == str(tmp_path / "run" / "supervisor.sock")
    assert parser["program:ingest"]["stdout_logfile"] == str(tmp_path / "state" / "log" / "ingest-%(process_num)d.log")
    assert f'ALPHA_CONFIG="{tmp_path / "mine.toml"}"' in parser["supervisord"]["environment"]
    with pytest.raises(ConfigError):
        render("[program:inference]", config, Path("x"))


def test_a_monitor_that_is_switched_off_is_not_started(tmp_path):
    for enabled in (True, False):
        parser = parsed(render(CONF, Config(base=str(tmp_path), monitor=Monitor(enabled=enabled)), tmp_path / "x"))
        assert parser["program:monitor"]["autostart"] == str(enabled).lower()
        assert "autostart" not in parser["program:executor"]
    with pytest.raises(ConfigError, match="program:monitor"):
        render(CONF.replace("autostart", "a"), Config(base=str(tmp_path), monitor=Monitor(enabled=False)), tmp_path)


@pytest.mark.parametrize("text, seconds", [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_durations_are_read_as_people_write_them(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1d", "5 s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(click.BadParameter, match="90s"):
        Duration().convert(text, None, None)


def test_options_reach_the_stages_through_the_environment(recordings):
    path = str((recordings / "binance" / "spot_btcusdt_20240808.gz").resolve())
    environment = _overrides(8765, (path,), 0.0, 3, None, 7, "models/default.onnx", "models/bench_w100.onnx")
    assert all(name.startswith("ALPHA_") and isinstance(value, str) for name, value in environment.items())
    config = load(None, environment)
    assert (config.market.venue, config.market.symbols) == ("binance-spot", ("BTCUSDT",))
    assert (config.exchange.speed, config.inference.workers, config.exchange.seed) == (0.0, 3, 7)
    assert config.inference.shadow == str(Path("models/bench_w100.onnx").resolve())
    assert config.executor.gateway == "paper" and config.exchange.captures == (path,)
    assert json.loads(environment["ALPHA_EXCHANGE__CAPTURES"]) == [path]


@pytest.fixture
def session(instance, tmp_path, run_dir, monkeypatch):
    """Sessions with ports of their own, on a terminal or not."""
    def session(lively: bool, **more: str) -> Session:
        env = {"ALPHA_INSTANCE__NAME": instance, "ALPHA_INSTANCE__STATE_DIR": str(tmp_path),
               "ALPHA_INSTANCE__RUN_DIR": str(run_dir), "ALPHA_EXCHANGE__PORT": str(free_port()),
               "ALPHA_MONITOR__PORT": str(free_port()), **more}
        made = Session(load(None, env), None, env)
        made._lively = lively
        return made

    return session


def test_a_token_is_made_for_a_terminal_told_there_once_and_passed_to_the_stages(session, capsys):
    one, other = session(True), session(True)
    for made in (one, other):
        made._check()
        made._tell_address()
    said = capsys.readouterr().err
    tokens = [made._stage_environment()[ENV_TOKEN] for made in (one, other)]
    assert len(set(tokens)) == 2 and all(len(token) >= 32 and said.count(token) == 1 for token in tokens)
    assert f"http://127.0.0.1:{one.config.monitor.port}/#token={tokens[0]}" in said


def test_no_token_is_made_where_it_would_be_kept_and_that_of_the_user_is_not_repeated(session, capsys):
    silent, users = session(False), session(True, **{ENV_TOKEN: "chosen-by-the-user-0"})
    for made in (silent, users):
        made._check()
        made._tell_address()
    said = capsys.readouterr().err
    assert "token" not in said and "chosen" not in said and said.count("page: http://127.0.0.1:") == 2
    assert ENV_TOKEN not in silent._stage_environment()
    session(True, ALPHA_MONITOR__PAGE="false")._tell_address()
    assert capsys.readouterr().err == ""


def test_a_taken_port_of_the_page_and_an_open_page_without_a_token_are_refused_at_the_start(session):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"monitor's page is taken .*127.0.0.1:{port}"):
            session(False, ALPHA_MONITOR__PORT=str(port))._check()
    with pytest.raises(ConfigError, match="open to other machines"):
        session(True, ALPHA_MONITOR__HOST="0.0.0.0")._check()
    session(True, ALPHA_MONITOR__HOST="0.0.0.0", **{ENV_TOKEN: "chosen-by-the-user-0"})._check()


NUMBERS = {"ticks": 900, "predictions": 400, "decisions": 12_345, "orders": 67, "fills": 66, "position": -7_889.0,
           "pnl": -0.74, "skipped": 120, "halted": False}
MEASURED = {"tick_to_decision": {"p50": 356.0, "p99": 3_572.0, "count": 400}}


def test_the_live_line_has_all_where_there_is_room_and_a_dash_where_nothing_was_measured():
    before = dict.fromkeys(NUMBERS, 0)
    whole = _line(65.0, 2.0, before, NUMBERS, MEASURED)
    assert whole == ("01:05  ticks 450/s  predictions 200/s  decisions 12,345  orders 67  fills 66  position -7,889"
                     "  pnl -0.74  tick-to-decision p50 356 us p99 3,572 us  skips 120")
    for latency in ({}, {"tick_to_decision": {"p50": 0, "p99": 0, "count": 0}}):
        assert "p50 - p99 -" in _line(65.0, 2.0, before, NUMBERS, latency)
    again = _line(65.0, 2.0, dict.fromkeys(NUMBERS, 10_000), NUMBERS, {})  # the stage counts from 0 again
    assert "ticks 450/s" in again


def test_the_live_line_is_cut_to_the_terminal_and_says_first_what_is_wrong():
    before, troubles = dict.fromkeys(NUMBERS, 0), ["feature silent", "inference-0 gone"]
    for width in range(1, 200):
        line = _line(65.0, 2.0, before, NUMBERS, MEASURED, width=width)
        assert len(line) < width or width < 6
    assert _line(65.0, 2.0, before, NUMBERS, MEASURED, width=80) == (
        "01:05  ticks 450/s  predictions 200/s  decisions 12,345  orders 67  pnl -0.74")
    halted = _line(65.0, 2.0, before, {**NUMBERS, "halted": True}, MEASURED, troubles, 80)
    assert halted.startswith("01:05  HALTED  FEATURE SILENT  INFERENCE-0 GONE  ticks 450/s") and len(halted) < 80
    many = _line(65.0, 2.0, before, NUMBERS, MEASURED, [f"inference-{k} gone" for k in range(9)], 80)
    assert len(many) < 80 and many.endswith("…")


def test_a_stage_that_is_silent_or_gone_is_named(session, instance):
    made = session(False, ALPHA_INFERENCE__WORKERS="1")
    stages = {name: Telemetry.create(instance, name, ()) for name in made.stages}
    try:
        for telemetry in stages.values():
            telemetry.set("ready", 1)
            telemetry.set("heartbeat_ns", time.monotonic_ns() + 60 * 10**9)
        made.overview.refresh()
        assert made._troubles() == []
        stages["feature"].set("heartbeat_ns", time.monotonic_ns() - 3 * 10**9)
        stages["executor"].set("pid", 2**22 + 1)
        assert made._troubles() == ["feature silent", "executor gone"]
    finally:
        for telemetry in stages.values():
            telemetry.close()


def test_a_stage_that_ends_again_and_again_at_its_start_is_found_the_first_ingest_too(session, monkeypatch):
    made = session(False)
    for process, stage in (("ingest-0", "ingest"), ("feature", "feature"), ("monitor", None)):
        asked = SimpleNamespace(getAllProcessInfo=lambda: [
            {"name": "executor", "statename": "RUNNING"}, {"name": process, "statename": "BACKOFF"}])
        monkeypatch.setattr(made, "_supervisor", lambda: asked)
        assert made._failed(made.stages) == stage


def test_a_passing_line_stays_on_one_line_of_the_terminal(session, capsys, monkeypatch):
    made = session(True)
    monkeypatch.setattr(procs.run, "_width", lambda: 20)
    made._say("starting: " + "x" * 100, passing=True)
    made._say("short", passing=True)
    made._say("page: " + "x" * 100)
    said = capsys.readouterr().err.split("\r\033[K")
    assert [len(one.rstrip("\n")) for one in said] == [0, 19, 5, 106] and said[1].endswith("…")


@pytest.mark.parametrize("section", ["STATE_DIR", "RUN_DIR"])
def test_a_folder_that_cannot_be_made_is_told_with_what_to_do(section, tmp_path):
    (tmp_path / "file").touch()
    env = {"ALPHA_INSTANCE__STATE_DIR": str(tmp_path), "ALPHA_INSTANCE__RUN_DIR": str(tmp_path / "run"),
           f"ALPHA_INSTANCE__{section}": str(tmp_path / "file" / "nope"), "ALPHA_INSTANCE__NAME": "t-no-folder"}
    for words in (["run", "--for", "1s"], *([["feature"], ["exchange"]] if section == "RUN_DIR" else [])):
        found = CliRunner().invoke(main, words, env=env)
        assert found.exit_code == 5 and found.stderr.startswith("alpha: a folder cannot be made"), found.output
        assert "set instance.state_dir" in found.stderr


def test_a_summary_that_cannot_be_written_is_refused_before_anything_starts(tmp_path):
    env = {"ALPHA_INSTANCE__STATE_DIR": str(tmp_path / "state"), "ALPHA_INSTANCE__RUN_DIR": str(tmp_path / "run")}
    found = CliRunner().invoke(main, ["run", "--for", "1s", "--summary", str(tmp_path / "no" / "x.json")], env=env)
    assert found.exit_code == 2 and f"there is no folder {tmp_path / 'no'}" in found.stderr
    assert not (tmp_path / "state").exists()
