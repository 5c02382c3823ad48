"""`alpha daily`: a day as text, JSON and HTML, and exit codes that hold."""

import json

import pytest
from click.testing import CliRunner

from common.config import load
from common.journal import Journal, located
from common.telemetry import Telemetry
from procs import daily as module
from procs.daily import daily
from procs.executor import COUNTERS, TIMERS
from tests import explained

DAY = "2024-07-18"


@pytest.fixture
def file(tmp_path, instance):
    path = tmp_path / "alpha.toml"
    path.write_text(f'[instance]\nname = "{instance}"\nrun_dir = "{tmp_path}/run"\n')
    config = load(path)
    journal = Journal.open(located(config))
    explained.write(journal, config, 1)
    explained.write(journal, config, 2, 0.2, filled=0.5)
    explained.write(journal, config, 86_400, 0.2)  # the day after
    journal.open_day(DAY, -5)
    journal.close()
    return path


def run(file, *arguments: str):
    return CliRunner().invoke(daily, [*arguments, "--config", str(file)])


def test_a_day_as_text_and_json(file):
    tree = json.loads(run(file, DAY, "--json").stdout)
    assert tree["orders"]["states"] == {"cancelled": 1, "filled": 1} and tree["fills"]["count"] == 4
    assert tree["profit"]["realised"] == "-0.30003" and tree["profit"]["opening"] == "-0.00000005"
    assert tree["profit"]["unrealised"] is None is tree["refusals"] and tree["latency_us"]["decide"]["p50"] == 109
    text = run(file, DAY)
    assert text.exit_code == 0 and "realised -0.30003" in text.stdout and "nothing more at this price" in text.stdout
    after = json.loads(run(file, "2024-07-19", "--json").stdout)
    assert after["symbols"]["BTC-USD"]["before"] == "24.9945" and after["orders"]["count"] == 1
    assert json.loads(run(file, "--json").stdout)["orders"]["count"] == 0, "today"


def test_today_has_refusals_of_the_executor(file, instance, monkeypatch):
    monkeypatch.setattr(module, "day_of", lambda ns: DAY)
    telemetry = Telemetry.create(instance, "executor", COUNTERS, TIMERS)
    try:
        telemetry.add("refusal_signal_weak", 9)
        told = json.loads(run(file, "--json").stdout)
        assert told["day"] == DAY and told["refusals"] == {"SIGNAL_WEAK": 9}
    finally:
        telemetry.close()


def test_reports_as_files(file, tmp_path):
    pytest.importorskip("matplotlib")
    assert run(file, DAY, "--out", str(tmp_path / "day.html")).exit_code == 0
    page = (tmp_path / "day.html").read_text()
    assert page.count("<svg") == 4 and "BTC-USD" in page and "journal.db" in page
    assert run(file, DAY, "--out", str(tmp_path / "day.json")).exit_code == 0
    assert json.loads((tmp_path / "day.json").read_text())["day"] == DAY


def test_exit_codes(file, tmp_path):
    assert run(file, "someday").exit_code == run(file, DAY, "--out", "day.pdf").exit_code == 2
    assert run(file, DAY, "--out", str(tmp_path / "no" / "day.json")).exit_code == 5
    located(load(file)).unlink()
    assert run(file, DAY).exit_code == 5
