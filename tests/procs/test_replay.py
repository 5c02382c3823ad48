"""Replay: the live stages on a recording, deterministic to the byte."""

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from common import captures, venues
from common.capture_lines import Connect, Disconnect, Header, Http, Missed, State, encode
from common.clock import ManualClock
from common.config import Config, Decision, Executor
from common.config import Market as MarketSettings
from common.decide import Rules
from common.errors import ConfigError
from common.features.choice import DEFAULT
from common.market import Market
from common.ring import Books
from common.synthetic import SyntheticMarket
from procs.replay import Replay, configure
from tests.pipeline import command, environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> str:
    """Some seconds of the synthetic market, as `alpha tap frames --raw` would record it."""
    path = tmp_path_factory.mktemp("session") / "session.txt"
    market = SyntheticMarket(("BTC-USD", "AAPL"), seed=3, rate=200.0, start_ms=1_700_000_000_000)
    with path.open("wb") as file:
        for time_ns, frame in market.frames(10):
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
    assert all(len(line["row"]) == len(DEFAULT.names) and 0 <= line["p_up"] <= 1 for line in found)
    told = json.loads(said[0])
    assert told["ticks"] == told["rows"] and told["gaps"] == told["skipped"] == told["superseded"] == 0
    assert told["decisions"] == told["predictions"] == len(found) and told["orders"] > 0


def test_a_replay_may_sell_what_it_could_live_and_feeds_of_today_have_no_say(session):
    live = Config(base=str(ROOT), feeds={"other": MarketSettings(symbols=("X",), live=True, process=1)})
    assert not configure(live, (session,)).decision.long_only and configure(live, (session,)).feeds == {}
    for config in (dataclasses.replace(live, executor=Executor(gateway="binance-spot")),
                   dataclasses.replace(live, decision=Decision(long_only=True))):
        made = configure(config, (session,))
        assert made.executor.gateway == "paper" and Rules.of(made, made.market.symbols[0]).spot
        with contextlib.closing(Replay(made)) as replay:
            for recv_ns, text in captures.tape([session]):
                replay.step(recv_ns, text)
            replay.finish()
            held = replay.desk.executor.ledger.positions.values()
            told = replay.summary()
        assert told["refusals"]["REDUCE_ONLY"] and told["orders"] and all(position.qty >= 0 for position in held)


def test_every_warm_tick_is_predicted_once_and_in_order(session):
    config = configure(Config(base=str(ROOT)), (session,))
    replay = Replay(config)
    seen: dict[int, list[int]] = {}
    for recv_ns, text in captures.tape([session]):
        for found in replay.step(recv_ns, text):
            seen.setdefault(found.symbol, []).append(found.seq)
            assert np.isfinite(replay.rows.window(found.symbol, found.seq, 1)).all()
    for symbol, sequences in seen.items():
        head = int(replay.books.heads[symbol])
        assert sequences == list(range(DEFAULT.warm_up + replay.worker.model.window - 1, head + 1))
    replay.close()


def run(path) -> tuple[list, dict]:
    """(symbol, venue id, probability, row) of each prediction, and the summary."""
    replay = Replay(configure(Config(base=str(ROOT)), (str(path),)))
    found = [(made.symbol, made.venue_id, made.kind, made.p_up, replay.rows.window(made.symbol, made.seq, 1).tobytes())
             for recv_ns, text in captures.tape([path]) for made in replay.step(recv_ns, text)]
    told = replay.summary()
    replay.close()
    return found, told


def write(path, lines) -> Path:
    path.write_bytes(b"".join(b"%d %b\n" % line for line in lines))
    return path


def test_a_capture_gives_what_its_frames_give_and_begins_anew_where_it_must(session, tmp_path):
    frames = list(captures.read([session]))
    symbols = captures.describe([session]).symbols
    start = frames[0][0]
    opening = [(start, encode(Header("vectrade", symbols))), (start, encode(Connect("ws://x")))]
    whole, told = run(write(tmp_path / "whole", opening + frames))
    assert whole == run(session)[0] and len(whole) > 1000 and told["missed"] == 0
    at = len(frames) // 2
    for line in (Missed(3), Disconnect("gone")):
        broken, told = run(write(tmp_path / "broken", [*opening, *frames[:at], (frames[at][0], encode(line)),
                                                       *frames[at:]]))
        assert broken == whole[:len(broken)] and 0 < len(broken) < len(whole), "no book, no prediction"
        assert told["missed"] == (3 if isinstance(line, Missed) else 0)


def test_a_capture_that_begins_in_the_middle_goes_on_from_the_state_of_the_books(session, tmp_path):
    frames = list(captures.read([session]))
    symbols = captures.describe([session]).symbols
    at = len(frames) // 3
    venue = venues.create("vectrade", symbols)
    market = Market(venue, Books.private(symbols), ManualClock())
    for recv_ns, frame in frames[:at]:
        market.on_frame(frame, recv_ns)
    now = frames[at][0]
    states = [(now, encode(State(name, venue.encode_snapshot(market.whole(i))))) for i, name in enumerate(symbols)]
    cut, told = run(write(tmp_path / "cut", [(now, encode(Header("vectrade", symbols))), *states, *frames[at:]]))
    whole, _ = run(session)
    assert told["gaps"] == told["malformed"] == 0
    last = {symbol: [found[:3] for found in whole if found[0] == symbol][-1] for symbol in (0, 1)}
    assert {symbol: [found[:3] for found in cut if found[0] == symbol][-1] for symbol in (0, 1)} == last


def test_a_capture_of_a_venue_with_snapshots_over_http_is_replayed(recordings, tmp_path):
    path = recordings / "binance" / "usdm_btcusdt_20240718.gz"
    frames = [line for _, line in zip(range(8000), captures.read([path]))]
    foreign = write(tmp_path / "foreign", frames)
    told = [(recv_ns, encode(Http("BTCUSDT", "/fapi/v1/depth", 200, text)) if captures.is_snapshot(text) else text)
            for recv_ns, text in frames]
    header = frames[0][0], encode(Header("binance-usdm", ("BTCUSDT",)))
    found = run(write(tmp_path / "capture", [header, *told]))
    assert found == run(foreign) and len(found[0]) > 500 and found[1]["gaps"] == 0


def test_captures_of_several_connections_are_refused(tmp_path):
    paths = [write(tmp_path / name, [(1, encode(Header("vectrade", (name,))))]) for name in "ab"]
    with pytest.raises(ConfigError, match="several connections"):
        configure(Config(base=str(ROOT)), tuple(map(str, paths)))


def test_a_recording_that_is_none_is_refused(instance, tmp_path, run_dir):
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    process = command("replay", str(path), env=environment(instance, tmp_path, run_dir))
    assert f"{path}:1" in process.communicate()[1] and process.returncode == 4
