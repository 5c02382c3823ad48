"""The whole pipeline, for real: processes, sockets, shared memory, and `kill -9`."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from common import shm
from common.features.table import TABLE_HASH
from common.journal import Reader
from common.links import Network
from common.matching import Matching
from common.ring import Rows
from common.wire import Prediction, decode
from tests.pipeline import Pipeline, command, environment
from tests.waiting import until

STAGES = ("exchange", "ingest", "feature", "inference-0", "inference-1", "executor")


@pytest.fixture
def start(instance, tmp_path, run_dir):
    """Starts pipelines of this test's own instance, and ends them whatever happens."""
    started: list[Pipeline] = []

    def start(*arguments: str, **more: str) -> Pipeline:
        pipeline = Pipeline(instance, tmp_path, run_dir, *arguments, **more)
        started.append(pipeline)
        return pipeline

    yield start
    for pipeline in started:
        pipeline.close()


def exchange_record(state_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (state_dir / "exchange.jsonl").read_text().splitlines()]


def assert_books_agree(state_dir: Path) -> None:
    """The exchange's own record against our journal: every order once, every fill known, positions equal."""
    account = Matching()
    account.restore((state_dir / "exchange.jsonl").read_bytes().splitlines())
    record = exchange_record(state_dir)
    ids = Counter(line["client_order_id"] for line in record if line["event"] in ("order", "reject"))
    assert ids and set(ids.values()) == {1}
    reader = Reader(state_dir / "journal.db")
    try:
        ours = {symbol: position.qty for symbol, position in reader.positions().items() if position.qty}
        assert ours == {symbol: position.quantity for symbol, position in account.positions.items()
                        if position.quantity}
        assert reader.counts()["fills"] == sum(line["event"] == "fill" for line in record)
    finally:
        reader.close()


@pytest.mark.kill
def test_each_process_may_be_killed_under_load_and_nothing_is_lost_or_done_twice(start, instance, tmp_path, capsys):
    pipeline = start("--rate", "400")
    pipeline.until_count("executor", "fills", 3)
    resumed = {}
    for stage in STAGES:
        resumed[stage] = pipeline.kill(stage)
        fills = pipeline.count("executor", "fills")
        pipeline.until_count("executor", "fills", fills + 1)
    told = pipeline.stop()
    with capsys.disabled():
        print("\nseconds from the start of the new process to the next decision: "
              + ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in resumed.items()))
    assert told["restarts"] == len(STAGES) and told["shm_leaked"] == 0
    assert told["decisions"] > 0 and told["orders"] > 0 and told["fills"] > 0
    assert_books_agree(tmp_path)


def test_a_run_tells_all_that_it_should_and_leaves_nothing(start, instance, tmp_path, run_dir):
    pipeline = start("--for", "4s")
    pipeline.process.wait(120)
    told = pipeline.stop()
    for name in ("frames", "ticks", "rows", "predictions", "skipped", "decisions", "refusals", "orders", "fills",
                 "position", "pnl", "gaps", "restarts", "latency_us", "shm_leaked", "errors"):
        assert name in told
    for station in ("ingest", "feature", "dispatch", "queue", "inference", "decide", "tick_to_decision"):
        assert 0 < told["latency_us"][station]["p50"] <= told["latency_us"][station]["p99"] <= (
            told["latency_us"][station]["p999"])
    assert told["ticks"] == told["rows"] and told["gaps"] == told["errors"] == told["restarts"] == 0
    assert told["decisions"] == sum(told["refusals"].values()) + told["orders"]
    assert shm.leaked(instance) == [] and not list(run_dir.glob("*.sock"))
    assert_books_agree(tmp_path)
    ours = {path for folder in (tmp_path, run_dir) for path in folder.rglob("*")} - {Path(pipeline.log.name)}
    assert not [path for path in ours if path.is_file() and path.stat().st_mode & 0o077], "readable by others"


def test_everything_killed_at_once_leaves_nothing_after_the_next_start(start, instance):
    pipeline = start()
    pipeline.until_count("executor", "decisions", 10)
    pids = [telemetry.get("pid") for telemetry in pipeline.overview.stages.values()]
    pipeline.process.send_signal(signal.SIGSTOP)  # so that it cannot tidy up
    supervisor = int(subprocess.check_output(["pgrep", "-P", str(pipeline.process.pid)]))
    subprocess.run(["kill", "-9", str(supervisor), *map(str, pids), str(pipeline.process.pid)], check=True)
    pipeline.process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what="their end")
    assert shm.leaked(instance)
    again = start("--for", "2s")
    again.process.wait(120)
    assert again.stop()["decisions"] > 0 and shm.leaked(instance) == []


def test_a_tap_attached_stalled_and_gone_changes_no_count(start, run_dir):
    pipeline = start()
    pipeline.until_count("executor", "decisions", 10)
    tap = command("tap", "predictions", env=pipeline.env)
    line = json.loads(tap.stdout.readline())
    assert line["kind_of"] == "Prediction" and 0 <= line["p_up"] <= 1 and line["symbol"] in ("BTC-USD", "ETH-USD",
                                                                                            "AAPL", "XAU-USD")
    tap.send_signal(signal.SIGSTOP)
    decisions = pipeline.count("executor", "decisions")
    pipeline.until_count("executor", "decisions", decisions + 500)
    tap.kill()
    tap.communicate()
    decisions = pipeline.count("executor", "decisions")
    pipeline.until_count("executor", "decisions", decisions + 100)
    told = pipeline.stop()
    # All that the workers sent was taken up by the executor, or was on its way when it stopped.
    assert 0 <= told["predictions"] - told["superseded"] - told["decisions"] < 50 and told["lost"] == 0


def test_the_kill_switch_holds_and_lets_go_again(start):
    pipeline = start()
    pipeline.until_count("executor", "orders", 1)
    halted = command("halt", "a test", "--json", env=pipeline.env)
    assert json.loads(halted.communicate()[0])["confirmed"] and halted.returncode == 0
    orders, decisions = pipeline.count("executor", "orders"), pipeline.count("executor", "decisions")
    pipeline.until_count("executor", "decisions", decisions + 500)
    assert pipeline.count("executor", "orders") == orders
    resumed = command("resume", env=pipeline.env)
    assert "lifted: a test" in resumed.communicate()[0] and resumed.returncode == 0
    pipeline.until_count("executor", "orders", orders + 1)
    status = command("status", "--json", env=pipeline.env)
    told = json.loads(status.communicate()[0])
    assert status.returncode == 0 and told["ready"] and set(told["stages"]) == {*STAGES, "monitor"}
    assert pipeline.stop()["errors"] == 0


def test_a_second_instance_of_the_same_name_is_refused(start):
    pipeline = start()
    pipeline.until_count("executor", "decisions", 1)
    second = command("run", env=pipeline.env)
    assert "in use" in second.communicate()[1] and second.returncode == 6
    stage = command("feature", env=pipeline.env)
    assert f"pid {pipeline.overview.stages['feature'].get('pid')}" in stage.communicate()[1] and stage.returncode == 6
    pipeline.stop()


@pytest.mark.kill
def test_a_killed_supervisord_leaves_no_stage_and_no_memory(start, instance):
    pipeline = start()
    pipeline.until_count("executor", "decisions", 1)
    pid = pipeline.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    supervisord = next(child for child in children if b"supervisord" in Path(f"/proc/{child}/cmdline").read_bytes())
    os.kill(int(supervisord), signal.SIGKILL)
    assert pipeline.process.wait(60) == 5 and "supervisord has ended" in pipeline.said()
    assert shm.leaked(instance) == []


def test_a_taken_port_and_a_wrong_model_are_refused_before_anything_starts(instance, tmp_path, run_dir):
    import socket

    env = environment(instance, tmp_path, run_dir)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(env["ALPHA_EXCHANGE__PORT"])))
        taken.listen()
        run = command("run", env=env)
        assert f"127.0.0.1:{env['ALPHA_EXCHANGE__PORT']}" in run.communicate()[1] and run.returncode == 5
    run = command("run", "--model", str(tmp_path / "none.onnx"), env=env)
    assert "none.onnx" in run.communicate()[1] and run.returncode == 3
    run = command("run", env={**env, "ALPHA_FEATURE__DISPATCHER": "x"})
    assert "feature.dispatcher" in run.communicate()[1] and run.returncode == 2


def test_stages_started_alone_in_reverse_order_find_each_other(instance, tmp_path, run_dir):
    env = environment(instance, tmp_path, run_dir)
    stages = []
    try:
        for arguments in (["executor"], ["inference", "--worker", "0"], ["feature"], ["ingest"], ["exchange"]):
            stages.append(command(*arguments, env=env))
            time.sleep(0.3)  # apart, as in terminals; nothing waits for it
        from common.overview import Overview

        overview = Overview(instance)
        until(lambda: overview.refresh() or overview.get("executor", "decisions") > 50, 60, "decisions")
    finally:
        for stage in stages:
            stage.send_signal(signal.SIGTERM)
        said = [stage.communicate(timeout=30) for stage in stages]
    assert [stage.returncode for stage in stages] == [0] * 5, said


def test_a_recording_runs_live_and_replays_to_the_same_bits(start, instance, run_dir, recordings):
    """Every tick that the live run predicted has the same row and probability, bit for bit, in the replay."""
    paths = tuple(str(recordings / "binance" / f"usdm_btcusdt_{day}.gz") for day in ("20240718", "20240719"))
    pipeline = start("--capture", paths[0], "--capture", paths[1], "--speed", "40", "--for", "9s")
    network = Network(run_dir)
    live: dict[tuple[int, int], tuple] = {}
    try:
        until(lambda: list(run_dir.glob("tap.predictions.*.sock")), 60)
        listener = network.listen("predictions")
        rows = None
        while pipeline.process.poll() is None:
            listener.discover()
            message = listener.recv(200)
            if message is None:
                continue
            rows = rows or Rows.attach(instance, TABLE_HASH)
            for found in decode(message, Prediction):
                row = rows.window(0, found.seq, 1).tobytes()
                if rows.holds(0, found.seq):
                    live[found.kind, found.venue_id] = found.p_up, found.p_down, row
        listener.close()
    finally:
        network.close()
    told = pipeline.stop()
    assert told["gaps"] == told["quote_mismatches"] == told["errors"] == 0 and told["quote_checks"] > 0
    assert len(live) > 500

    from common import captures
    from common.config import Config
    from procs.replay import Replay, configure

    config = configure(Config(base=str(Path(__file__).resolve().parents[2])), paths)
    replay = Replay(config)
    compared = 0
    for recv_ns, text in captures.tape(paths):
        for found in replay.step(recv_ns, text):
            before = live.pop((found.kind, found.venue_id), None)
            if before is not None:
                row = replay.rows.window(0, found.seq, 1).tobytes()
                assert before == (found.p_up, found.p_down, row), found
                compared += 1
        if not live:
            break
    replay.close()
    assert compared > 500 and not live
