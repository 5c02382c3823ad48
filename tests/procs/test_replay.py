"""Replay: the live stages on a recording, deterministic to the byte."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.config import Config
from common.features import COLUMNS, WARM_UP
from common.synthetic import SyntheticMarket
from procs.replay import Replay, configure, frames
from tests.pipeline import command, environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> str:
    """Forty seconds of the synthetic market, as `alpha tap frames --raw` would record it."""
    path = tmp_path_factory.mktemp("session") / "session.txt"
    market = SyntheticMarket(("BTC-USD", "AAPL"), seed=3, rate=200.0, start_ms=1_700_000_000_000)
    with path.open("wb") as file:
        for time_ns, frame in market.frames(20):
            file.write(b"%d %s\n" % (time_ns, frame))
    return str(path)


def test_twice_the_same_input_gives_the_same_bytes(session, instance, tmp_path, run_dir):
    env = environment(instance, tmp_path, run_dir)
    said = []
    for name in ("one", "two"):
        process = command("replay", session, "--out", str(tmp_path / name), "--rows", "--json", env=env)
        said.append(process.communicate()[0])
        assert process.returncode == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() and said[0] == said[1]
    found = [json.loads(line) for line in (tmp_path / "one").read_text().splitlines()]
    assert len(found) > 1000 and {line["symbol"] for line in found} == {"BTC-USD", "AAPL"}
    assert all(len(line["row"]) == len(COLUMNS) and 0 <= line["p_up"] <= 1 for line in found)
    told = json.loads(said[0])
    assert told["ticks"] == told["rows"] and told["gaps"] == told["skipped"] == told["superseded"] == 0
    assert told["decisions"] == told["predictions"] == len(found) and told["orders"] > 0


def test_every_warm_tick_is_predicted_once_and_in_order(session):
    config = configure(Config(base=str(ROOT)), (session,))
    replay = Replay(config)
    seen: dict[int, list[int]] = {}
    for recv_ns, frame, symbol in frames(config, (session,)):
        for found in replay.step(recv_ns, frame, symbol):
            seen.setdefault(found.symbol, []).append(found.seq)
            assert np.isfinite(replay.rows.window(found.symbol, found.seq, 1)).all()
    for symbol, sequences in seen.items():
        head = int(replay.books.heads[symbol])
        assert sequences == list(range(WARM_UP + replay.worker.model.window - 1, head + 1))
    replay.close()


def test_a_recording_that_is_none_is_refused(instance, tmp_path, run_dir):
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    process = command("replay", str(path), env=environment(instance, tmp_path, run_dir))
    assert f"{path}:1" in process.communicate()[1] and process.returncode == 4
