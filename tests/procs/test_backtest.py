"""Backtest: what the line-by-line replay decides, in bulk; and a report that says it twice in the same bytes."""

import dataclasses
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from common import captures
from common.backtest.report import Symbol
from common.config import Config
from common.journal import Journal
from common.synthetic import SyntheticMarket
from procs.backtest import Backtest, Notes, in_sample
from procs.replay import Desk, Replay, configure
from tests.pipeline import command, environment

ROOT = Path(__file__).resolve().parents[2]


class Noted(Journal):
    """The real journal, which also notes what it is told."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.noted = Notes()

    def intent(self, *arguments) -> None:
        super().intent(*arguments)
        self.noted.intent(*arguments)

    def fill(self, *arguments) -> bool:
        news = super().fill(*arguments)
        if news:
            self.noted.fill(*arguments)
        return news


@pytest.fixture(scope="module")
def binance(recordings) -> tuple[str, ...]:
    return tuple(str(recordings / "binance" / f"usdm_{name}_20240718.gz") for name in ("btcusdt", "ethusdt"))


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> tuple[str, ...]:
    """Frames of another venue: prices that move, snapshots in band, no bulk decoding."""
    path = tmp_path_factory.mktemp("session") / "session.txt"
    market = SyntheticMarket(("BTC-USD", "AAPL"), seed=3, rate=200.0, start_ms=1_700_000_000_000)
    path.write_bytes(b"".join(b"%d %s\n" % line for line in market.frames(20)))
    return (str(path),)


def replayed(config: Config, paths, latency_ns: int, limit: int) -> tuple[Replay, Notes, list]:
    replay, made = Replay(config, latency_ns, journal := Noted.private()), []
    for recv_ns, text in islice(captures.tape(paths), limit):
        made += replay.step(recv_ns, text)
    replay.finish()
    return replay, journal.noted, made


def backtested(config: Config, paths, latency_ns: int, limit: int) -> tuple[Backtest, list]:
    run, made = Backtest(config, latency_ns), []
    for _ in run.run(paths, limit):
        made += [prediction for line in run.chunks.moved for prediction in line.predictions]
    return run, made


@pytest.mark.parametrize("source, limit, latency_us, paper_ms", [
    ("binance", 8000, 300, 1.0), ("binance", 4000, 0, 0.0), ("binance", 8000, 20_000, 100.0),
    ("synthetic", 10**6, 300, 5.0), ("synthetic", 10**6, 4000, 1.0)])
def test_orders_fills_and_probabilities_are_those_of_the_replay(request, source, limit, latency_us, paper_ms):
    paths = request.getfixturevalue(source)
    config = configure(Config(base=str(ROOT)), paths)
    config = dataclasses.replace(config, executor=dataclasses.replace(config.executor, paper_latency_ms=paper_ms))
    replay, journal, expected = replayed(config, paths, latency_us * 1000, limit)
    run, made = backtested(config, paths, latency_us * 1000, limit)
    assert made == expected and len(made) > 500, "the same bits, stamps included"
    assert run.notes.orders == journal.orders and len(journal.orders) > 20
    assert run.notes.fills == journal.fills and len(journal.fills) > 20
    assert run.desk.telemetry.values() == replay.desk.telemetry.values(), "refusals, profit, fees, day's loss"
    counts = run.chunks.market.counts, replay.market.counts
    assert {name: getattr(counts[0], name) for name in counts[0].__slots__} == {
        name: getattr(counts[1], name) for name in counts[1].__slots__}
    profit = run.report()[0]["profit"]
    told = replay.summary()
    assert profit["fees"] == pytest.approx(told["fees"], abs=1e-7)
    assert profit["net"] == pytest.approx(told["pnl"], abs=1e-6)
    replay.close()
    run.close()


def test_orders_meet_a_later_market_the_later_they_are(synthetic):
    """Latency costs: the mid at the fill is not that of the decision, and some orders come too late."""
    config = configure(Config(base=str(ROOT)), synthetic)
    found = {}
    for delay in (0.0, 200.0):
        late = dataclasses.replace(config, executor=dataclasses.replace(config.executor, paper_latency_ms=delay))
        run, _ = backtested(late, synthetic, 0, 10**6)
        told = run.report()[0]
        found[delay] = told["costs"]["latency"], told["decisions"]["cancels"]
        assert told["fills"]["delay_ms"] == pytest.approx(delay)
        run.close()
    assert found[0.0] == (0.0, 0) and abs(found[200.0][0]) > 0 and found[200.0][1] > 0


def test_only_what_is_asked_for_is_traded(binance):
    config = configure(Config(base=str(ROOT)), binance)
    first = next(iter(captures.lines(binance[0])))[0]
    run = Backtest(config, 0, ("ETHUSDT",), from_ns=first + 60 * 10**9)
    for _ in run.run(binance, to_ns=first + 90 * 10**9):
        pass
    times = [ordered.at_ns - first for ordered in run.notes.orders]
    assert times and min(times) >= 60e9 and max(times) <= 90e9
    assert {ordered.order.symbol for ordered in run.notes.orders} == {"ETHUSDT"}
    run.close()


def test_the_notes_know_what_a_journal_knows(binance):
    config = configure(Config(base=str(ROOT)), binance)
    run, _ = backtested(config, binance, 0, 6000)
    for ordered in run.notes.orders:
        working = run.notes.find(ordered.order.client_id)
        assert working.order == ordered.order and working.filled == sum(
            fill.qty for fill in run.notes.fills if fill.order == ordered.order)
    with pytest.raises(Exception, match="already"):
        run.notes.intent(run.notes.orders[0].order, "", 0)
    assert isinstance(run.desk, Desk)
    run.close()


def test_twice_the_same_input_gives_the_same_bytes_in_json_and_html(binance, instance, tmp_path, run_dir):
    env = environment(instance, tmp_path, run_dir)
    said = []
    for name in ("one", "two"):
        process = command("backtest", *binance, "--limit", "9000", "--json", "--out", str(tmp_path / f"{name}.html"),
                          "--out", str(tmp_path / f"{name}.json"), env=env)
        said.append(process.communicate()[0])
        assert process.returncode == 0
    assert said[0] == said[1] == (tmp_path / "one.json").read_text()
    html = (tmp_path / "one.html").read_text()
    assert html == (tmp_path / "two.html").read_text() and html.count("<svg") == 8
    told = json.loads(said[0])
    assert told["recording"]["lines"] == 9000 and told["decisions"]["predictions"] > 1000
    assert {name: len(capture["sha256"]) for name, capture in ((c["name"], c) for c in told["captures"])} == {
        Path(path).name: 64 for path in binance}
    assert str(tmp_path) not in html and str(ROOT) not in html


def test_time_that_the_model_learnt_from_is_told():
    ticks = np.zeros((4, 4), np.int64)
    ticks[:, 0] = [1_721_347_020_000_000_000 + k * 1_000_000_000 for k in range(4)]  # from 2024-07-18T23:57:00Z on
    symbol = Symbol("X", ticks, ticks[:0, 0], np.zeros((0, 2)))
    trained = {"from": "2024-07-18T23:50:00.000Z", "to": "2024-07-18T23:57:02.000Z"}
    assert in_sample(trained, [symbol]) == 0.75
    assert in_sample(trained | {"to": "2024-07-18T23:51:00.000Z"}, [symbol]) == 0
    assert in_sample({}, [symbol]) is in_sample({"from": 5, "to": "x"}, [symbol]) is None


def test_inverse_contracts_are_refused(recordings, instance, tmp_path, run_dir):
    capture = str(recordings / "binance" / "cm_btcusd_perp_20240808.gz")
    process = command("backtest", capture, env=environment(instance, tmp_path, run_dir))
    assert "inverse" in process.communicate()[1] and process.returncode == 2


def test_what_cannot_be_done_is_refused_at_once(binance, instance, tmp_path, run_dir):
    env = environment(instance, tmp_path, run_dir)
    for arguments, word in ((("--symbols", "DOGE"), "DOGE"), (("--out", "x.pdf"), "x.pdf")):
        process = command("backtest", binance[0], *arguments, env=env)
        assert word in process.communicate()[1] and process.returncode == 2
    process = command("backtest", binance[0], "--limit", "2000", "--out", str(tmp_path / "none" / "x.json"), env=env)
    assert "cannot be written" in process.communicate()[1] and process.returncode == 5
