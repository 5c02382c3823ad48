"""The page of the monitor in a real browser, over one pipeline of real processes, and a second that takes its place."""

import json
import os
import re
import shutil
import signal
import tempfile
import urllib.error
import urllib.request
import uuid
import xmlrpc.client
from contextlib import contextmanager
from pathlib import Path

import pytest
from supervisor.xmlrpc import SupervisorTransport

from common import killswitch, shm
from tests.browser import LIMIT_MS, TOKEN, chromium, live, missing, opened
from tests.browser import until as until_page
from tests.pipeline import Pipeline, free_port
from tests.waiting import until

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


class Bench:
    """A pipeline with a page, and a browser."""

    def __init__(self, folder: Path) -> None:
        self.instance, self.port = f"page{os.getpid()}-{uuid.uuid4().hex[:6]}", free_port()
        self.state_dir, self.run_dir = folder / "state", folder / "run"
        for made in (self.state_dir, self.run_dir):
            made.mkdir(mode=0o700)
        self.pipeline = self.begin()

    def begin(self) -> Pipeline:
        """The same places as before: what looked at one sees the next."""
        before = self.pipeline.env if hasattr(self, "pipeline") else {}
        kept = {name: before[name] for name in before if name.startswith("ALPHA_") and "__" in name}
        self.pipeline = Pipeline(self.instance, self.state_dir, self.run_dir, "--rate", "200", **{
            "ALPHA_MONITOR__PAGE": "true", "ALPHA_MONITOR__PORT": str(self.port), "ALPHA_MONITOR__REFRESH_MS": "500",
            "ALPHA_MONITOR_TOKEN": TOKEN, **kept})
        return self.pipeline

    def halted(self) -> bool:
        return bool(self.pipeline.count("executor", "halted"))


@pytest.fixture(scope="module")
def bench():
    folder = Path(tempfile.mkdtemp(prefix="ap"))
    bench = Bench(folder)
    try:
        bench.pipeline.until_count("executor", "fills", 1)
        yield bench
    finally:
        bench.pipeline.close()
        left = shm.leaked(bench.instance)
        shm.sweep(bench.instance)
        shutil.rmtree(folder, ignore_errors=True)
    assert left == []


@pytest.fixture(scope="module")
def browser(bench):
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser, bench):
    """One that stays open all the while, with the token."""
    page = opened(browser, bench.port, TOKEN)
    live(page)
    return page


def figure(page, name: str) -> str:
    return page.evaluate("name => [...document.querySelectorAll('#tiles > div')].find("
                         "box => box.firstChild.textContent === name)?.textContent", name)


def test_it_loads_its_numbers_change_and_its_charts_are_drawn(page):
    before = figure(page, "Decisions")
    until_page(page, "before => [...document.querySelectorAll('#tiles > div')].find("
                     "box => box.firstChild.textContent === 'Decisions').textContent !== before", before)
    until_page(page, "['chart-price', 'chart-depth'].every(id => document.getElementById(id).data?.[0].x.length > 1)")
    assert page.evaluate("document.querySelectorAll('#symbols tr').length") == 4
    assert "#token" not in page.url and page.evaluate("localStorage.getItem('alpha-token')") is None
    assert page.said == []  # the page's policy keeps nothing out that it asks for
    shown = page.evaluate("[...document.querySelectorAll('#tiles dd')].filter(one => one.scrollWidth > one.clientWidth)"
                          ".map(one => one.textContent)")
    assert shown == [], "cut off"


def test_what_makes_up_the_profit_comes_to_it(page):
    figures = page.evaluate("[...document.querySelectorAll('#tiles > div')].find(box => box.firstChild.textContent "
                            "=== 'Profit').children[1].textContent + ' of ' + [...document.querySelectorAll("
                            "'#tiles > div')].find(box => box.firstChild.textContent === 'Profit').children[2]"
                            ".textContent").replace(",", "")
    profit, closed, opened_, *fees = (float(found) for found in re.findall(r"[-+]?\d+\.\d+", figures))
    assert profit == pytest.approx(closed + opened_ + sum(fees), abs=0.02), figures


def test_it_shows_the_fills_that_the_exchange_itself_has_on_record(page, bench):
    until_page(page, "document.querySelector('#fills tr[data-order]') !== null")
    shown = page.evaluate("[...document.querySelectorAll('#fills tr[data-order]')].map(row => ["
                          "row.dataset.order, ...[1, 2, 3, 4].map(n => row.children[n].textContent)])")
    record = [json.loads(line) for line in (bench.state_dir / "exchange.jsonl").read_text().splitlines()]
    orders = {one["order_id"]: one for one in record if one["event"] == "order"}
    fills = {(of["client_order_id"], of["symbol"], of["side"].capitalize(), float(one["quantity"]), float(one["price"]))
             for one in record if one["event"] == "fill" for of in [orders[one["order_id"]]]}
    assert shown
    for order, symbol, side, quantity, price in shown:
        told = (order, symbol, side, float(quantity.replace(",", "")), float(price.replace(",", "")))
        assert told in fills


def test_another_symbol_is_chosen_and_its_book_comes(page):
    page.get_by_role("button", name="ETH-USD").dispatch_event("click")
    until_page(page, "document.querySelector('.depth .symbol').textContent === 'ETH-USD'")
    until_page(page, "(() => { const one = document.getElementById('chart-depth').data?.[0];"
                     " return one && one.x.length > 3 && one.x[0] < 10000; })()")


#: a tab to whose front another comes while its first snapshot is on the way
_AWAY = """
Object.defineProperty(document, "hidden", { get: () => window.away === true });
const parse = JSON.parse;
JSON.parse = (text) => {
  const message = parse(text);
  if (message.type === "snapshot" && window.away === undefined) {
    window.away = true;
    document.dispatchEvent(new Event("visibilitychange"));
  }
  return message;
};
"""


def test_a_tab_in_the_background_rests_until_somebody_looks_at_it(browser, bench, page):
    came, said = [], []

    def listen(socket) -> None:
        socket.on("framereceived", lambda text: came.append(json.loads(text)["type"]))
        socket.on("framesent", lambda text: said.append(json.loads(text)["type"]))

    def taken() -> int:
        tab.wait_for_timeout(50)  # playwright tells of frames while it waits
        return bench.pipeline.count("monitor", "page_snapshots")

    tab = browser.new_context().new_page()
    tab.set_default_timeout(LIMIT_MS)
    tab.add_init_script(_AWAY)
    tab.on("websocket", listen)
    tab.goto(f"http://127.0.0.1:{bench.port}/")
    until(lambda: taken() and said, 60, "a word of the tab")
    then = taken()
    until(lambda: taken() > then + 5, 60, "snapshots for the page that is looked at")
    assert said == ["rest"] and came.count("snapshot") <= 2  # those that were on their way
    tab.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    until(lambda: taken() and came.count("snapshot") > 5, 60, "snapshots for the tab")
    tab.context.close()


@pytest.mark.parametrize("scheme, size", [("light", (1280, 900)), ("dark", (390, 844)), ("light", (320, 640))])
def test_nothing_serious_stands_in_anybodys_way(browser, bench, scheme, size):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = opened(browser, bench.port, TOKEN, scheme, size)
    live(page)
    until_page(page, "document.body.dataset.controls === 'open'")
    until_page(page, "document.querySelector('#fills tr[data-order]') && document.querySelector('#refusals tr')")
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]  # no sideways scrolling
    page.evaluate("""() => { const halt = document.querySelector('[data-do=halt]'); halt.click(); }""")
    for context in ("#confirm", "body"):
        found = axe.Axe().run(page, context=context).response["violations"]
        assert "\n".join(f"{one['id']}: {node['html'][:100]} {node['failureSummary'][:200]}" for one in found
                         for node in one["nodes"]) == ""
        page.keyboard.press("Escape")
    assert killswitch.state(bench.state_dir) is None
    page.context.close()


def test_by_the_keyboard_alone_it_halts_and_resumes(page, bench):
    page.evaluate("document.activeElement.blur()")

    def reach(action: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.do") == action:
                return
        raise AssertionError(f"Tab does not lead to {action}")

    reach("halt")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    until_page(page, "document.getElementById('confirm').open")
    assert not killswitch.present(bench.state_dir / killswitch.FILE)  # not before it is confirmed
    page.keyboard.press("Enter")
    until_page(page, "document.getElementById('done-said').textContent.startsWith('Done: halted')")
    assert not page.evaluate("document.getElementById('confirm').open"), "what was asked is done"
    assert killswitch.state(bench.state_dir).who == "page" and bench.halted()
    until_page(page, "document.getElementById('trading-text').textContent === 'HALTED'")
    orders = bench.pipeline.count("executor", "orders")
    decisions = bench.pipeline.count("executor", "decisions")
    bench.pipeline.until_count("executor", "decisions", decisions + 50)
    assert bench.pipeline.count("executor", "orders") == orders
    reach("resume")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    until_page(page, "document.getElementById('done-said').textContent.startsWith('Done: lifted')")
    assert killswitch.state(bench.state_dir) is None
    until(lambda: not bench.halted(), 30)
    bench.pipeline.until_count("executor", "orders", orders + 1)


def test_without_the_token_nothing_can_be_done_and_with_a_wrong_one_neither(browser, bench):
    page = opened(browser, bench.port)
    live(page)
    halt = page.locator("[data-do=halt]")
    assert halt.get_attribute("aria-disabled") == "true"
    halt.dispatch_event("click")
    page.locator("#token-in").fill("a-wrong-token-0123456789")
    page.keyboard.press("Enter")
    until_page(page, "document.getElementById('token-said').textContent.includes('not the token')")
    assert halt.get_attribute("aria-disabled") == "true" and page.evaluate("document.body.dataset.controls") == "locked"
    assert page.evaluate("sessionStorage.getItem('alpha-token')") is None
    page.locator("#token-in").fill(TOKEN)
    page.keyboard.press("Enter")
    until_page(page, "document.querySelector('[data-do=halt]').getAttribute('aria-disabled') === 'false'")
    assert not page.evaluate("document.getElementById('token').open")
    page.context.close()
    page = opened(browser, bench.port, "a-wrong-token-0123456789")  # behind the # of the address
    live(page)
    until_page(page, "document.getElementById('done-said').textContent.includes('not that of this run')")
    assert page.evaluate("document.body.dataset.controls") == "locked"
    page.context.close()
    assert killswitch.state(bench.state_dir) is None and not bench.halted()


def test_a_page_of_elsewhere_and_a_name_of_elsewhere_get_nothing(browser, bench):
    def status(path: str, **headers: str) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{bench.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert status("/") == status("/metrics") == 200
    assert status("/", Host="evil.example") == status("/metrics", Host=f"evil.example:{bench.port}") == 421
    assert status("/../../../../etc/passwd") == status("/nothing") == 404
    # A page of another origin, in the same browser: its WebSocket is refused, and nobody frames ours.
    other = browser.new_context()
    page = other.new_page()
    page.route("http://localhost:1/", lambda route: route.fulfill(content_type="text/html", body="<title>x</title>"))
    page.goto("http://localhost:1/")
    assert page.evaluate("""port => new Promise(done => {
        const own = new WebSocket(`ws://127.0.0.1:${port}/stream`, ["alpha"]);
        own.onopen = () => done("open"); own.onerror = () => done("refused"); })""", bench.port) == "refused"
    other.close()


@pytest.mark.kill
def test_an_executor_that_hangs_has_said_its_last_word_and_the_alert_is_on_the_page(page, bench):
    bench.pipeline.overview.refresh()
    pid = bench.pipeline.overview.stages["executor"].get("pid")
    os.kill(pid, signal.SIGSTOP)
    try:
        until_page(page, "document.body.dataset.executor === 'silent'")
        assert "last word" in figure(page, "Profit") and "last word" in page.text_content(".refusals h2")
        assert "last word" not in page.text_content(".markets h2") and "last word" not in figure(page, "Ticks")
        assert "The executor is silent" in page.text_content("#banner")
        assert page.evaluate("getComputedStyle(document.querySelector('.latency')).filter") == "grayscale(1)"
        assert page.evaluate("getComputedStyle(document.querySelector('.markets')).filter") == "none"
        until_page(page, "[...document.querySelectorAll('#firing li')].some("
                         "row => row.textContent.includes('executor'))")
    finally:
        os.kill(pid, signal.SIGCONT)
    until_page(page, "document.body.dataset.executor === 'speaks' && document.getElementById('banner').hidden")
    assert "last word" not in figure(page, "Profit")


def test_where_no_worker_runs_the_page_says_so(page, bench):
    with supervised(bench.run_dir) as supervisor:
        workers = [f"{one['group']}:{one['name']}" for one in supervisor.getAllProcessInfo()
                   if one["group"] == "inference"]
        for worker in workers:
            supervisor.stopProcess(worker)
        until_page(page, "document.getElementById('banner').textContent.includes('No worker runs')")
        for worker in workers:
            supervisor.startProcess(worker, False)
    until_page(page, "document.getElementById('banner').hidden")


@contextmanager
def supervised(run_dir: Path):
    transport = SupervisorTransport(None, None, f"unix://{run_dir / 'supervisor.sock'}")
    try:
        yield xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor
    finally:
        transport.close()


@pytest.mark.kill
def test_stages_are_killed_and_the_page_goes_on(page, bench):
    bench.pipeline.overview.refresh()
    for stage in ("ingest", "inference-0", "executor"):
        bench.pipeline.kill(stage)
        until_page(page, "name => [...document.querySelectorAll('#stages tr')].some(row => row.children[0].textContent "
                         "=== name && row.children[1].textContent.startsWith('ready') && row.children[3].textContent "
                         ">= '1')", stage)
    fills = figure(page, "Fills")
    until_page(page, "before => [...document.querySelectorAll('#tiles > div')].find("
                     "box => box.firstChild.textContent === 'Fills').textContent !== before", fills)
    assert page.evaluate("document.body.dataset.link") == "live"


@pytest.mark.kill
def test_the_monitor_is_killed_and_the_page_finds_the_next_one(page, bench):
    os.kill(bench.pipeline.overview.stages["monitor"].get("pid"), signal.SIGKILL)
    until_page(page, "document.body.dataset.link !== 'live'")
    until_page(page, "getComputedStyle(document.getElementById('main')).filter === 'grayscale(1)'")
    live(page)
    until_page(page, "getComputedStyle(document.getElementById('main')).filter === 'none'")


@pytest.mark.kill
def test_a_pipeline_that_ends_never_looks_alive_and_the_next_is_found(page, bench):
    told = bench.pipeline.stop()
    assert told["shm_leaked"] == 0
    until_page(page, "document.body.dataset.link === 'reconnecting' && !document.getElementById('banner').hidden")
    assert "s old" in page.text_content("#banner")
    bench.begin().until_count("executor", "decisions", 1)
    live(page)
    until_page(page, "document.getElementById('trading-text').textContent === 'ACTIVE'")
    log = "".join(path.read_text() for path in (bench.state_dir / "log").glob("*"))
    assert TOKEN not in log + bench.pipeline.said()
    for path in (*bench.run_dir.iterdir(), *bench.state_dir.iterdir()):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
