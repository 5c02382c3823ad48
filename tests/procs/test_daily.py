"""`alpha daily`: a day as text, JSON and HTML, and exit codes that hold."""

import json
import shutil

import pytest
from click.testing import CliRunner

from common import killswitch
from common.backtest import html as backtest_html
from common.backtest import plot as backtest_plot
from common.config import load
from common.journal import Journal, located
from common.telemetry import Telemetry
from procs import daily as module
from procs.daily import daily
from procs.executor import COUNTERS, TIMERS
from tests import explained
from tests.common.backtest import test_html, test_plot

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
    assert page.count("<svg") == 5 and "BTC-USD" in page and "journal.db" in page
    assert run(file, DAY, "--out", str(tmp_path / "day.json")).exit_code == 0
    assert json.loads((tmp_path / "day.json").read_text())["day"] == DAY


def test_a_halt_is_told_on_its_day_and_a_day_that_goes_on_says_so(file, tmp_path, monkeypatch):
    config = load(file)
    killswitch.halt(config.state_dir, "looks <wrong>", "me")
    assert "HALTED   looks <wrong> (by me)" in run(file).stdout and json.loads(run(file, "--json").stdout)["as_of_ns"]
    before = run(file, DAY, "--json").stdout
    assert json.loads(before)["halt"] is None is json.loads(before)["as_of_ns"]
    pytest.importorskip("matplotlib")
    assert run(file, "--out", str(tmp_path / "day.html")).exit_code == 0
    page = (tmp_path / "day.html").read_text()
    assert "Halted since" in page and "looks &lt;wrong&gt;" in page and "so far, at" in page
    assert "Nothing was ordered on this day." in page and "What was held over the day" in page
    assert "Profit over the day" not in page, "there was none to draw"


def test_reports_in_a_browser_are_legible_to_all_and_fit_a_phone(file, tmp_path):
    pytest.importorskip("matplotlib")
    api, axe = pytest.importorskip("playwright.sync_api"), pytest.importorskip("axe_playwright_python.sync_playwright")
    chromium = shutil.which("chromium") or pytest.skip("there is no Chromium here")
    assert run(file, DAY, "--out", str(tmp_path / "day.html")).exit_code == 0
    fills = test_html.tree(test_plot.FILLS)
    _, curves = test_plot.run(test_plot.FILLS)
    (tmp_path / "backtest.html").write_text(backtest_html.page(fills, backtest_plot.pictures(fills, curves)))
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[
            "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"])
        for name in ("day.html", "backtest.html"):
            for scheme, width in (("light", 1280), ("dark", 390)):
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                page.goto((tmp_path / name).as_uri())
                found = axe.Axe().run(page).response["violations"]
                assert [(one["id"], one["nodes"][0]["html"]) for one in found
                        if one["impact"] in ("serious", "critical")] == [], (name, scheme, width)
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.evaluate("[...document.querySelectorAll('.card')].filter("
                                     "card => card.scrollWidth > card.clientWidth).length") == 0, (name, width)
                page.close()
        browser.close()


@pytest.mark.parametrize("day", ["2999-01-01", "1600-01-01", "2262-04-11", "1677-09-21"])
def test_a_day_beyond_what_a_journal_holds_is_a_wrong_argument(file, day):
    found = run(file, day)
    assert found.exit_code == 2 and "no journal can hold" in found.stderr and day in found.stderr


@pytest.mark.parametrize("day", ["2262-04-10", "1677-09-22"])
def test_the_first_and_the_last_day_are_empty(file, day):
    assert run(file, day).exit_code == 0


def test_a_damaged_journal_is_told_in_a_line(file):
    path = located(load(file))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    found = run(file, DAY)
    assert found.exit_code == 5 and "the journal is damaged" in found.stderr and isinstance(found.exception, SystemExit)


def test_exit_codes(file, tmp_path):
    assert run(file, "someday").exit_code == run(file, DAY, "--out", "day.pdf").exit_code == 2
    assert run(file, DAY, "--out", str(tmp_path / "no" / "day.json")).exit_code == 5
    located(load(file)).unlink()
    assert run(file, DAY).exit_code == 5
