"""The benchmark: its parts by themselves, then the command as a user runs it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from common.clock import SystemClock
from common.config import Config, Market, load
from common.features.choice import DEFAULT
from common.model import Model
from common.shm import SHM_DIR, held
from common.synthetic import SyntheticMarket
from common.telemetry import Telemetry
from common.watch.access import Access
from common.watch.server import COUNTERS as PAGE_COUNTERS
from common.watch.server import Server
from common.websocket import State, WebSocket
from procs.bench import PARTS, telemetry
from procs.bench.article import Symbol
from procs.bench.bed import Bed, attached
from procs.bench.local import _features, _frames
from procs.bench.model import dense, describe, session
from procs.bench.source import Source, Tape, backlog
from procs.bench.table import Goal, Part, latency_line, machine
from tests.pipeline import free_port
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
SYMBOLS = ["BTC-USD", "AAPL"]


@pytest.fixture(scope="module")
def tape(tmp_path_factory) -> Tape:
    return Tape.record(tmp_path_factory.mktemp("tape") / "tape", SYMBOLS, 2000, 2000.0)


@pytest.fixture
def bed():
    with Bed() as bed:
        yield bed
    assert not bed.folder.exists()


def bench(*arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "procs.cli", "bench", *arguments], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def left_by(pid: int) -> list[str]:
    """Blocks in shared memory and processes that a run has left."""
    blocks = [path.name for path in SHM_DIR.glob(f"*bench{pid}-*")]
    processes = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"bench{pid}-".encode() in path.read_bytes():
                processes.append(path.parent.name)
        except OSError:
            pass  # it ended meanwhile, or belongs to somebody else
    return blocks + processes


# ---- the tape and its player

def test_a_tape_holds_the_frames_of_the_market_framed(tape):
    market = SyntheticMarket(SYMBOLS, 1, 2000 / 1.2, start_ms=1_700_000_000_000)
    expected = [frame for _, frame in market.frames(0.5)]
    client = ClientProtocol(parse_uri("ws://x"), state=1)  # open
    client.receive_data(tape.path.read_bytes()[:tape.offsets[len(expected)]])
    assert [bytes(event.data) for event in client.events_received()] == expected
    assert tape.opening == len(SYMBOLS)
    assert tape.frames >= 2000


def test_the_source_plays_what_it_is_told_and_reports(bed, tape):
    source = Source(bed, tape, bed.environment("source"))
    websocket = WebSocket(source.url + "/ws", SystemClock())
    got: list[bytes] = []

    def receive() -> bool:
        got.extend(bytes(frame) for frame, _ in websocket.recv())
        return websocket.state is State.OPEN

    until(receive)
    websocket.send(b'{"action":"subscribe","channels":["orderbook:AAPL"]}')
    source.await_subscriber()
    source.begin(0.25, 2000.0)
    until(lambda: receive() and len(got) >= 1 + 2 + 500)
    told = source.result(10)
    assert told["frames"] == 500
    assert told["late_us"]["p50"] <= told["late_us"]["p99"] <= told["late_us"]["max"]
    source.rewind()
    until(lambda: receive() and len(got) == 1 + 2 + 500 + 2)
    assert json.loads(got[0]) == {"type": "subscribed", "channels": ["orderbook:AAPL"]}
    assert got[1:3] == got[-2:], "the snapshots again"
    assert [json.loads(frame).get("type") for frame in got[1:3]] == ["snapshot"] * 2
    until(lambda: backlog(source.port) == 0)
    websocket.close()


def test_the_source_lets_a_slow_reader_wait_and_says_for_how_long(bed, tape):
    source = Source(bed, tape, bed.environment("source"))
    websocket = WebSocket(source.url + "/ws", SystemClock())
    until(lambda: websocket.recv() is not None and websocket.state is State.OPEN)
    websocket.send(b'{"action":"subscribe","channels":[]}')
    source.await_subscriber()
    source.flood(1000)
    assert source.result(10)["frames"] == 1000
    count = 0

    def all_there() -> bool:
        nonlocal count
        count += len(websocket.recv())
        return count == 1 + 2 + 1000

    until(all_there)
    with pytest.raises(ValueError, match="the tape has"):
        source.begin(100.0, 2000.0)
    websocket.close()


# ---- models

@pytest.mark.parametrize("window", [1, 20])
def test_a_written_model_is_one_that_workers_accept(tmp_path, window):
    path = dense(tmp_path / "m.onnx", window=window, hidden=8, layers=2)
    model = Model.load(path)
    rows = np.random.default_rng(1).standard_normal((window, len(DEFAULT.names))).astype(np.float32)
    up, down = model.predict(rows)
    assert 0 < up < 1 and up + down == pytest.approx(1)
    assert describe(path) == {"file": "m.onnx", "window": window, "bytes": path.stat().st_size}
    for defaults in (False, True):
        bare = session(path, defaults)
        shape = (1, window, len(DEFAULT.names)) if window > 1 else (1, len(DEFAULT.names))
        assert float(bare.run(None, {"rows": rows.reshape(shape)})[0].ravel()[0]) == pytest.approx(up)


# ---- the article's features are what they say

def test_the_article_computes_what_the_formulas_say():
    symbol = Symbol(window=3)
    symbol.on_book({"type": "snapshot", "bids": [["99", "3"], ["98", "1"]], "asks": [["101", "1"], ["102", "3"]]})
    assert symbol.update() == 100.0
    row = symbol.rows[-1]
    assert row[0] == pytest.approx((3 - 1) / (3 + 1))
    assert row[1] == 0.0
    assert row[2] == pytest.approx(200.0)  # bps of mid
    symbol.on_book({"type": "delta", "bids": [["99", "0"]], "asks": []})
    assert symbol.update() == 99.5
    symbol.on_trade({"type": "trade", "side": "SELL", "quantity": "2"})
    symbol.update()
    assert symbol.rows[-1][6] == -1.0
    assert symbol.rows[0][2] == pytest.approx(200.0), "the window slides, newest last"


# ---- the parts that need one process

def test_the_parts_of_one_process_count_what_they_do():
    told = _features()
    assert told["ticks"] > 1000 and told["ticks_per_s"] > 0 and told["us_per_live_tick"] > 0


def test_recorded_frames_pass_without_a_gap(recordings):
    files = sorted((recordings / "binance").glob("usdm_ethusdt_20240718.gz"))
    told = _frames(*map(str, files))
    assert told["frames"] == 14_003 - 1 or told["frames"] == 14_003
    assert told["ticks"] > 4000
    assert told["us"]["all"] == pytest.approx(sum(
        told["us"][part] for part in ("decode", "book", "publish")))


# ---- processes

def test_a_bed_ends_its_processes_and_says_why_one_ended_by_itself(bed):
    environment = bed.environment("x")
    lasting = bed.spawn("http.server", "--bind", "127.0.0.1", "0", environment=environment)
    assert attached(environment["ALPHA_INSTANCE__NAME"], "floor") is None
    failing = bed.spawn("procs.cli", "no-such-command", environment=environment)
    failing.wait(30)
    with pytest.raises(Exception, match="No such command"):
        bed.check()
    bed.stop()
    assert lasting.poll() is not None


# ---- the table

def test_goals_are_met_at_their_bound_and_missed_beyond_it():
    assert Goal("p50", 1.4, 1.4).met and not Goal("p50", 1.41, 1.4).met
    assert Goal("rate", 4.0, 4.0, at_least=True).met and not Goal("rate", 3.9, 4.0, at_least=True).met
    part = Part("name", "title", ["a line"], {"x": 1}, [Goal("rate", 3.9, 4.0, " x", True)], "all else")
    assert "NO   rate: 3.90 x  (goal >= 4.00 x)" in part.text() and "not shown: all else" in part.text()
    assert part.tree()["goals"][0]["met"] is False and part.tree()["x"] == 1
    assert machine()["cores"] >= 1
    assert "p99.9" in latency_line("ours", {"p50": 1.0, "p99": 2.0, "p999": 3.0, "count": 4})


# ---- the command

def test_bench_measures_everyone_and_leaves_nothing(tmp_path):
    model = dense(tmp_path / "small.onnx")
    process = bench("--quick", "--only", "latency", "--json", "--model", str(model))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    told = json.loads(out)
    assert told["machine"]["cores"] >= 1 and told["quick"]
    found = told["parts"]["latency"]
    for name in ("floor", "article", "ours"):
        assert 0 < found[name]["p50"] <= found[name]["p99"] <= found[name]["p999"]
        assert found[name]["count"] > 0
    assert found["floor"]["count"] == 2000, "every frame of a second"
    assert [goal["bound"] for goal in found["goals"]] == [1.4, 0.5, 500.0]
    assert left_by(process.pid) == []


def test_lookers_take_every_snapshot_and_scrape(bed, instance, tmp_path, run_dir):
    environment = {**os.environ, "ALPHA_INSTANCE__NAME": instance, "ALPHA_INSTANCE__STATE_DIR": str(tmp_path),
                   "ALPHA_INSTANCE__RUN_DIR": str(run_dir), "ALPHA_MONITOR__PORT": str(free_port())}
    counted = Telemetry.private("monitor", PAGE_COUNTERS)
    server = Server(load(None, environment), Access("127.0.0.1"), counted)
    server.start()
    try:
        lookers = bed.spawn("procs.bench.lookers", str(server.port), "3", environment=environment, talks=True)
        assert json.loads(lookers.stdout.readline()) == {"looking": 3}
        taken = counted.get("page_snapshots")
        until(lambda: counted.get("page_snapshots") > taken + 2, 60)
        lookers.stdin.write("\n")
        lookers.stdin.flush()
        told = json.loads(lookers.stdout.readline())
        assert told["scrapes"] >= 1 and 3 < told["snapshots"] <= 3 * counted.get("page_snapshots")
        assert told["bytes"] > 100 * told["snapshots"]
    finally:
        server.close()


def test_calls_of_telemetry_are_counted_in_the_real_stages(tmp_path):
    config = Config(market=Market(symbols=("BTC-USD", "AAPL")))
    counted = [telemetry.calls(config, dense(tmp_path / "small.onnx"), 500.0, 2.0, 1.0) for _ in range(2)]
    assert counted[0] == counted[1], "on a clock of its own, so the same each time"
    found = counted[0]
    assert 400 < found["ticks"] < 600
    assert found["feature"]["observe"] == found["inference"]["observe"] == 1.0  # each row is predicted
    assert found["executor"]["add"] > 2 and found["executor"]["observe_all"] < 0.5  # counted one by one, timed at turns
    assert found["ingest"]["observe"] == pytest.approx(2 * found["ingest"]["add"], rel=0.01)  # book and doorbell


def test_every_call_of_telemetry_has_its_cost(instance):
    spent = telemetry.costs(instance, {"observe_all": 3.0, "note_all": 3.0}, batches=3)
    assert all(one.shape == (2,) and one[0] >= 0 for one in spent.values())
    assert spent["tell"][0] > spent["add"][0] > 0 and {"set", "get", "observe", "observe_all", "note_all"} <= set(spent)
    told = telemetry.scrape(instance, Config(), 2)
    assert told["cpu_ms"] > 0 and told["bytes"] > 50_000


def test_the_cost_of_a_decision_is_told_with_and_without_its_write():
    process = bench("--quick", "--only", "decision", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    found = json.loads(out)["parts"]["decision"]
    assert found["orders"] == 300 and [goal["bound"] for goal in found["goals"]] == [30.0]
    for durability in ("process", "power"):
        told = found[durability]
        assert all(0 < told[name]["best"] <= told[name]["p50"] <= told[name]["p99"] for name in told)
        assert told["whole"]["p50"] > max(told["decision"]["p50"], told["write"]["p50"])
    assert {"wish", "answer", "context", "look"} <= set(found["parts"]) and all(found["parts"].values())
    assert left_by(process.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_stops_everything(tmp_path, run_dir, number):
    model = dense(tmp_path / "small.onnx")
    process = bench("--only", "latency", "--model", str(model), env={**os.environ, "TMPDIR": str(run_dir)})
    until(lambda: [name for name in left_by(process.pid) if "telemetry" in name], 60, "the start of the floor")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "everything has been stopped" in err
    assert left_by(process.pid) == []
    assert not list(run_dir.glob("alpha-bench-*"))


def test_a_killed_bench_takes_its_processes_along_and_the_next_one_sweeps(tmp_path, run_dir):
    model = dense(tmp_path / "small.onnx")
    process = bench("--only", "latency", "--model", str(model), env={**os.environ, "TMPDIR": str(run_dir)})
    until(lambda: [name for name in left_by(process.pid) if "telemetry" in name], 60, "the start of the floor")
    process.kill()
    process.communicate()
    until(lambda: all("telemetry" in name for name in left_by(process.pid)), 10, "the end of its processes")
    until(lambda: not held(f"bench{process.pid}-*"), 10, "the end of their locks, which outlive their memory a moment")
    with Bed():
        assert left_by(process.pid) == []


def test_a_part_that_fails_says_so_and_the_others_go_on(tmp_path):
    wrong = dense(tmp_path / "wrong.onnx")
    wrong.write_bytes(wrong.read_bytes()[:100])
    process = bench("--quick", "--only", "backtest", "--only", "features", "--json", "--model", str(wrong))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    parts = json.loads(out)["parts"]
    assert "error" in parts["backtest"] and parts["features"]["ticks_per_s"] > 0


def test_unknown_parts_and_missing_models_are_refused_plainly(tmp_path):
    process = bench("--model", str(tmp_path / "none.onnx"))
    assert "does not exist" in process.communicate(timeout=60)[1] and process.returncode == 2
    process = bench("--only", "nonsense")
    assert all(name in process.communicate(timeout=60)[1] for name in PARTS) and process.returncode == 2
    process = bench("--only", "latency", env={**os.environ, "ALPHA_INFERENCE__MODEL": str(tmp_path / "none.onnx")})
    error = process.communicate(timeout=60)[1]
    assert "there is no model to measure with" in error and process.returncode == 2


