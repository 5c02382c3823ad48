"""A live session of real processes, recorded and compared with its replay: equal, and what is planted is found.

One session for all: the synthetic market with faults and, as a second feed, a recorded day of Binance futures, each
from a loopback exchange of its own. One recorder is there before the first frame, another comes in the middle.
"""

import json
import shutil
import signal
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from common import shm
from common.layout import FLAG_VALID, FLAGS, KIND, KIND_STATE, ROW_RUN
from common.overview import Overview
from common.session_log import KINDS, Session
from procs.parity import parity
from tests.pipeline import command, environment, free_port
from tests.waiting import until

FAULTS = ("drop:rate=0.002", "reorder:rate=0.002", "disconnect:at=1500,count=1")
STAGES = ("ingest", "feature", "inference", "executor")


class Live:
    """What the session left: two recordings of the same pipeline, each with its summary."""

    def __init__(self, folder: Path, told: dict[str, dict]) -> None:
        self.folder, self.told = folder, told

    def session(self, name: str) -> Path:
        return self.folder / name / self.told[name]["sessions"][0]["folder"]

    def captures(self, name: str) -> list[str]:
        return [str(self.folder / name / file["file"]) for file in self.told[name]["files"]]


@pytest.fixture(scope="module")
def live(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    instance = f"t{uuid.uuid4().hex[:8]}"
    run_dirs = [Path(tempfile.mkdtemp(prefix="at")) for _ in range(2)]
    port = free_port()
    far = environment(f"{instance}x", folder / "far", run_dirs[1], ALPHA_EXCHANGE__PORT=str(port))
    feed = (f'{{venue = "binance-usdm", symbols = ["BTCUSDT"], ws_url = "ws://127.0.0.1:{port}", '
            f'rest_url = "http://127.0.0.1:{port}"}}')
    env = environment(instance, folder / "near", run_dirs[0], ALPHA_FEEDS__DAY=feed, ALPHA_EXECUTOR__GATEWAY="paper")
    overview, processes = Overview(instance), []

    def start(*arguments: str, env: dict = env):
        processes.append(command(*arguments, env=env))
        return processes[-1]

    def decided(count: int) -> bool:
        overview.refresh()
        return overview.get("executor", "decisions") >= count

    def recorder(name: str):
        return start("record", "--out", str(folder / name), "--session", "--json")

    try:
        first = recorder("first")
        start("exchange", "--rate", "800", *(part for fault in FAULTS for part in ("--fault", fault)))
        start("exchange", "--capture", str(recordings / "binance" / "usdm_btcusdt_20240718.gz"), "--speed", "10",
              env=far)
        stages = [start(stage) for stage in STAGES]
        until(lambda: decided(1500), 90, "decisions")
        middle = recorder("middle")
        until(lambda: list((folder / "middle").glob("session-*/decisions.bin")), 60, "a second session")
        until(lambda: decided(4500), 90, "more decisions")
        for stage in stages:  # the recorders hear the end of it
            stage.send_signal(signal.SIGTERM)
        for stage in stages:
            assert stage.wait(30) == 0, stage.stderr.read()
        told = {}
        for name, process in (("first", first), ("middle", middle)):
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
            told[name] = json.loads(out)
        yield Live(folder, told)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            process.communicate(timeout=30)
        for run_dir in run_dirs:
            shutil.rmtree(run_dir)
        for name in (instance, f"{instance}x"):
            left = shm.leaked(name)
            shm.sweep(name)
            assert left == []


def run(session: Path, captures: list[str], *arguments: str):
    return CliRunner().invoke(parity, [str(session), *captures, *arguments])


def report(session: Path, captures: list[str], code: int = 0) -> dict:
    result = run(session, captures, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def total(counts: dict[str, int]) -> int:
    return sum(counts.values())


def test_a_session_from_the_first_frame_on_is_what_its_replay_gives(live):
    session = Session(live.session("first"))
    told = report(session.folder, live.captures("first"))
    assert told["equal"] and told["first"] is None and not told["missed"]
    assert total(told["compared"]["ticks"]) > 5000 and total(told["compared"]["rows"]) > 5000
    assert total(told["compared"]["predictions"]) > 3000 and total(told["compared"]["decisions"]) > 3000
    assert {"day:BTCUSDT", "BTC-USD", "AAPL"} <= told["compared"]["decisions"].keys()
    ticks = session.records("ticks")["tick"]
    state = ticks[:, KIND] == KIND_STATE
    assert state.sum() > 10 and not (ticks[state, FLAGS] & FLAG_VALID).any(), "gaps, and a connection that was lost"
    assert {"SIGNAL_WEAK", ""} <= {
        session.reasons[number] for number in session.records("decisions")["reason"]}
    assert live.told["first"]["sessions"][0]["missed"] == 0
    assert all(live.told["first"]["sessions"][0][kind] == len(session.records(kind)) for kind in KINDS)


def test_so_is_one_that_begins_in_the_middle(live):
    told = report(live.session("middle"), live.captures("middle"))
    assert told["equal"] and total(told["compared"]["rows"]) > 1000 and total(told["compared"]["decisions"]) > 1000
    assert told["left_out"]["rows"] and told["left_out"]["ticks"]


def test_the_report_for_people_says_what_was_compared_and_what_was_not(live):
    result = run(live.folder / "middle", live.captures("middle"))
    assert result.exit_code == 0 and "no difference" in result.output and "left out: " in result.output
    assert "day:BTCUSDT" in result.output and "model default" in result.output


@pytest.fixture
def copy(live, tmp_path):
    """A copy of the first session, to plant something in."""
    shutil.copytree(live.session("first"), tmp_path / "session")

    def plant(kind: str, change) -> int:
        path = tmp_path / "session" / f"{kind}.bin"
        records = np.array(Session(tmp_path / "session").records(kind))
        at, records = change(records)
        records.tofile(path)
        return at

    return tmp_path / "session", plant


def warm(records: np.ndarray) -> int:
    return int(np.flatnonzero(records["meta"][:, ROW_RUN] > 0)[len(records) // 2])


def flipped(records: np.ndarray):
    at = warm(records)
    records["values"].view(np.uint32)[at, 7] ^= 1
    return at, records


def swapped(records: np.ndarray):
    at = warm(records)
    these = np.flatnonzero(records["symbol"] == records["symbol"][at])
    values = records["values"][these[these >= at]]
    values[:, [6, 8]] = values[:, [8, 6]]
    records["values"][these[these >= at]] = values
    return at, records


def other_quantity(records: np.ndarray):
    at = int(np.flatnonzero(records["reason"] == 0)[-1])
    records["qty"][at] += 1
    return at, records


def dropped(records: np.ndarray):
    at = len(records) // 2
    return at, np.delete(records, at)


@pytest.mark.parametrize("kind, change, column", [
    ("rows", flipped, "micro_spread"), ("rows", swapped, "spread"), ("decisions", other_quantity, "qty"),
    ("ticks", dropped, "tick")])
def test_what_is_planted_is_found(live, copy, kind, change, column):
    folder, plant = copy
    before = Session(folder).records(kind).copy()
    at = plant(kind, change)
    told = report(folder, live.captures("first"), 1)
    first = told["first"]
    seq = {"ticks": "tick", "rows": "meta"}.get(kind)
    assert first["kind"] == kind and first["column"] == column
    assert first["seq"] == int(before[seq][at][0] if seq else before["seq"][at])
    assert first["symbol"] == Session(folder).symbols[before["symbol"][at]]
    assert Path(first["place"].rpartition(":")[0]).exists() and first["near"] and "0x" in first["live"] + "0x"
    result = run(folder, live.captures("first"))
    assert result.exit_code == 1 and f"first difference: {kind}, column {column}" in result.output


def test_captures_of_another_recorder_are_refused(live):
    result = run(live.session("first"), live.captures("middle"))
    assert result.exit_code == 2 and "beside this session" in result.output


def test_a_folder_that_is_no_session_is_refused(live, tmp_path):
    assert run(tmp_path, live.captures("first")).exit_code == 2


def test_where_nothing_can_be_compared_that_is_said_and_is_no_parity(live, copy):
    folder, plant = copy
    for kind in KINDS:
        plant(kind, lambda records: (0, records[:0]))
    result = run(folder, live.captures("first"))
    assert result.exit_code == 3 and "nothing could be compared" in result.output
