"""Configuration: strict, overridable, and every refusal names key and value."""

import dataclasses
import json

import pytest
from click.testing import CliRunner

from common.config import Config, Inference, Instance, Market, load, tell, told
from common.errors import ConfigError
from procs.settings import config as config_command


def write(folder, text: str):
    path = folder / "alpha.toml"
    path.write_text(text)
    return path


def test_the_file_overrides_defaults_and_the_environment_overrides_the_file(tmp_path):
    path = write(tmp_path, '[inference]\nworkers = 3\nmodel = "m.onnx"\n[market]\nsymbols = ["A"]')
    config = load(path, {"ALPHA_INFERENCE__WORKERS": "5", "ALPHA_MARKET__VENUE": "binance-spot"})
    assert (config.inference.workers, config.inference.model) == (5, "m.onnx")
    assert (config.market.venue, config.market.symbols) == ("binance-spot", ("A",))
    assert config.path(config.inference.model) == tmp_path / "m.onnx"


@pytest.mark.parametrize("text, told", [
    ("[inference]\nworker = 3", "inference.worker"),
    ("[nonsense]\nx = 1", "nonsense"),
    ("[inference]\nworkers = 'two'", "inference.workers='two'"),
    ("[inference]\nworkers = true", "inference.workers=True"),
    ("[feature]\ndispatch = 'all'", "feature.dispatch='all'"),
    ("[ring]\nticks = 1000", "ring.ticks=1000"),
    ("[decision]\nthreshold = 0.7", "decision.threshold=0.7"),
    ("[risk]\nmax_daily_loss = -1", "risk.max_daily_loss=-1.0"),
    ("[risk]\nmax_drawdown = inf", "risk.max_drawdown=inf"),
    ("[risk]\nallow = 'X'", "risk.allow='X'"),
    ("[decision]\nsizing = 'martingale'", "decision.sizing='martingale'"),
    ("[decision]\nsizing = 'kelly'\nmove_bps = 5", "decision.sizing='kelly'"),
    ("[decision]\nsizing = 'kelly'\ncapital = 5", "decision.sizing='kelly'"),
    ("[decision]\ncost_aware = true", "decision.cost_aware=True"),
    ("[decision]\nhold_threshold = 0.04", "decision.hold_threshold=0.04"),
    ("[executor]\ngateway = 'carrier pigeon'", "executor.gateway='carrier pigeon'"),
    ("[instruments.X]\nmax_qty = '-1'", "instruments.X.max_qty='-1'"),
    ("[instruments.X]\nmin_notional = 'none'", "instruments.X.min_notional='none'"),
    ("[market]\nsymbols = []", "market.symbols"),
    ("[instance]\nname = 'a/b'", "instance.name='a/b'"),
    ("[exchange]\nrate = 0", "exchange.rate=0.0"),
    ("[instruments.X]\nlot = 'none'", "instruments.X.lot='none'"),
    ("[instruments.X]\ntick = '0'", "instruments.X.tick='0'"),
    ("[instruments.X]\ncolour = 'red'", "instruments.X.colour"),
    ("market = 3", "market=3"),
    ("[inference", "not valid TOML"),
])
def test_a_wrong_configuration_names_key_and_value(tmp_path, text, told):
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), {})
    assert told in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="missing.toml"):
        load(tmp_path / "missing.toml", {})


def test_what_the_command_prints_is_the_configuration_itself(tmp_path):
    path = write(tmp_path, '[instruments."BTC-USD"]\nlot = "0.5"\n[placement]\ncores = { ingest = [0] }')
    printed = CliRunner().invoke(config_command, ["--config", str(path)]).stdout
    again = load(write(tmp_path, printed), {})
    assert again == load(path, {}) and again.instrument("BTC-USD").lot == "0.5"
    as_json = CliRunner().invoke(config_command, ["--config", str(path), "--json"]).stdout
    assert json.loads(as_json)["placement"]["cores"] == {"ingest": [0]}


def test_nothing_secret_is_a_setting():
    def names(kind):
        for field in dataclasses.fields(kind):
            yield field.name
            if dataclasses.is_dataclass(field.type):
                yield from names(field.type)

    assert not [name for name in names(Config) if any(word in name for word in ("key", "secret", "password"))]


def test_more_feeds_have_names_that_their_symbols_carry_and_processes_that_keep_them():
    feeds = {"kraken": Market(venue="kraken", symbols=("BTC/USD",), process=2), "b": Market(symbols=("BTC-USD",))}
    config = Config(market=Market(symbols=("BTC-USD", "AAPL")), feeds=feeds)
    assert config.symbols == ("BTC-USD", "AAPL", "kraken:BTC/USD", "b:BTC-USD") and config.ingests == 3


@pytest.mark.parametrize("text, named", [
    ("[feeds.a]\nsymbols = []", "feeds.a.symbols"), ("[feeds.a]\nstale_s = -1.0", "feeds.a.stale_s"),
    ("[feeds.a]\nprocess = 64", "feeds.a.process"), ("[market]\nprocess = 1", "market.process"),
    ("[feeds.a]\nvenu = 1", "feeds.a.venu")])
def test_a_feed_that_is_not_well_described_is_refused_by_name(tmp_path, text, named):
    path = tmp_path / "alpha.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load(path, {})


def test_what_a_stage_was_started_with_is_told_to_other_terminals_without_secrets(tmp_path):
    mine = Config(instance=Instance(run_dir=str(tmp_path)))
    theirs = dataclasses.replace(mine, inference=Inference(model="other.onnx"), feeds={
        "far": Market(venue="kraken", symbols=("BTC/USD",), ws_url="wss://me:hidden@far/ws?token=hidden")})
    assert told(mine, "feature") is mine
    tell(theirs, "feature")
    found = told(mine, "feature")
    assert found.inference == theirs.inference and found.feeds["far"].ws_url == "wss://far/ws?"
    assert "hidden" not in (tmp_path / "feature.config.json").read_text()
    (tmp_path / "feature.config.json").write_text('{"of": "another version"}')
    assert told(mine, "feature") is mine
