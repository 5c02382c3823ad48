"""The parts of `alpha run` that need no pipeline; test_pipeline has the rest."""

import configparser
import json
import socket
from pathlib import Path

import click
import pytest

from common.config import Config, Inference, Instance, Market, Monitor, load
from common.errors import ConfigError, ResourceError
from common.watch.access import ENV_TOKEN
from procs.run import ROOT, Duration, Session, _overrides, render
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
