"""The tap command: decoded, filtered, counted; raw frames can be replayed."""

import itertools
import json
import os
import signal
import threading
import time

import pytest
from click.testing import CliRunner

from common.decision import before
from common.decision import encode as decision
from common.errors import ConfigError
from common.links import FRAMES, Network
from common.locks import lock_file
from common.overview import Overview
from common.ring import Books
from common.risk import Account, Rate, Refusal, Standing
from common.tap_file import Note, Recording, TapFile
from common.wire import Prediction, TickRef, decode, encode
from procs.cli import main
from procs.tap import _expect
from tests.pipeline import command, environment
from tests.ticks import write_ticks
from tests.waiting import until


@pytest.fixture
def pipeline(instance, run_dir, tmp_path):
    """A network with a books ring behind it, as a tap finds it."""
    books = Books.create(instance, ["AAA", "BBB"], 1024)
    network = Network(run_dir)
    yield network, environment(instance, tmp_path, run_dir)
    network.close()
    books.close()


def feed(tap, messages: list[bytes], process) -> None:
    until(lambda: tap.poll() or tap.wanted, 30)
    for message in messages:
        tap.send(message)
    tap.poll()


def prediction(symbol: int, seq: int) -> Prediction:
    return Prediction(symbol, 0, 1, seq, 5, 1, 0, 0, 0.625, 0.375, 0.5, *[0] * 8)


def test_records_are_decoded_filtered_by_symbol_and_counted(pipeline):
    network, env = pipeline
    tap = network.tap("predictions", "0")
    process = command("tap", "predictions", "--symbol", "BBB", "--count", "2", env=env)
    feed(tap, [encode([prediction(k % 2, k), prediction(0, 100 + k)]) for k in range(10)], process)
    out, err = process.communicate(timeout=30)
    found = [json.loads(line) for line in out.splitlines()]
    assert [(line["symbol"], line["seq"], line["p_up"]) for line in found] == [("BBB", 1, 0.625), ("BBB", 3, 0.625)]
    assert process.returncode == 0 and err == ""


def test_a_decision_is_shown_with_its_reason(pipeline):
    network, env = pipeline
    tap = network.tap("decisions", "executor")
    process = command("tap", "decisions", "--count", "1", env=env)
    weak = Refusal("SIGNAL_WEAK", 0.01, 0.03)
    stood = before(Standing(1), Account(Rate(20.0)))
    feed(tap, [decision(prediction(1, 7), 5, 0, None, stood, weak, weak)], process)
    out, err = process.communicate(timeout=30)
    found = json.loads(out)
    assert (found["symbol"], found["seq"]) == ("BBB", 7) and found["reason"] == found["outcome"] == "SIGNAL_WEAK"
    assert (found["value"], found["limit"], found["barred"]) == (0.01, 0.03, "") and err == ""


def test_raw_gives_the_bytes_of_the_message(pipeline):
    network, env = pipeline
    tap = network.tap("ticks", "ingest")
    process = command("tap", "ticks", "--raw", "--count", "1", env=env)
    message = encode([TickRef(0, 1, 2, 3, 4)])
    feed(tap, [message], process)
    out, _ = process.communicate(timeout=30)
    assert bytes.fromhex(out.strip()) == message and decode(message) == [TickRef(0, 1, 2, 3, 4)]


def test_raw_frames_are_lines_of_a_recording(pipeline, tmp_path):
    network, env = pipeline
    tap = network.tap(FRAMES, "ingest")
    process = command("tap", "frames", "--raw", "--count", "2", env=env)
    frame = b'{"channel":"orderbook:AAA","type":"snapshot","sequence":1,"timestamp":1,"bids":[],"asks":[]}'
    feed(tap, [time.monotonic_ns().to_bytes(8, "little") + frame] * 2, process)
    out, _ = process.communicate(timeout=30)
    path = tmp_path / "session.txt"
    path.write_text(out)
    from common import captures

    found = list(captures.read([path]))
    assert [line[1] for line in found] == [frame, frame] and abs(found[0][0] - time.time_ns()) < 60e9
    assert captures.describe([path]) == ("vectrade", ("AAA",))


def test_it_ends_when_its_time_is_over(pipeline):
    _, env = pipeline
    process = command("tap", "work", "--for", "0.2", env=env)
    out, err = process.communicate(timeout=30)
    assert not out and "nobody sends on this link yet" in err and process.returncode == 0


def test_where_only_sockets_of_the_killed_are_left_it_says_for_whom_it_waits(pipeline, run_dir):
    _, env = pipeline
    (run_dir / "tap.ticks.ingest.sock").touch()  # and nobody holds its lock
    (run_dir / "tap.ticks.ingest.lock").write_text("1")
    out, err = command("tap", "ticks", "--for", "0.2", env=env).communicate(timeout=30)
    assert not out and err == "alpha tap: nobody sends on this link yet; waiting for ingest\n"


def test_a_filter_and_fields_choose_what_is_printed(pipeline):
    network, env = pipeline
    tap = network.tap("predictions", "0")
    process = command("tap", "predictions", "--where", 'symbol == "BBB" and seq in (3, 5)', "--fields", "seq,kind",
                      "--names", "--count", "2", env=env)
    feed(tap, [encode([prediction(1, k)]) for k in range(10)], process)
    out, err = process.communicate(timeout=30)
    assert out.splitlines() == ['{"seq": 3, "kind": "book"}', '{"seq": 5, "kind": "book"}'] and err == ""


@pytest.mark.parametrize("arguments, what", [
    (("--where", "p_up >"), "a filter cannot be read"), (("--where", "nonsense > 1"), "nonsense is no field"),
    (("--fields", "seq,nonsense"), "nonsense is no field"), (("--inject",), "--inject needs what to inject"),
    (("--record", "x.tap", "--where", "seq > 1"), "a recording holds messages as they came"),
    (("--speed", "3"), "--speed is of --inject"), (("--symbol", "NOPE"), "there is no symbol NOPE"),
    (("--for", "-1"), "-1.0 is not in the range"), (("--for", "0"), "is not in the range"),
    (("--json",), "--json is of --rates"), (("--restream",), "--restream is of --inject")])
def test_what_makes_no_sense_is_refused_in_words(pipeline, arguments, what):
    found = CliRunner().invoke(main, ["tap", "predictions", *arguments], env=pipeline[1])
    assert found.exit_code == 2 and what in found.stderr and found.stdout == ""


def test_what_is_recorded_is_played_with_the_same_filters_and_rates(pipeline, tmp_path):
    network, env = pipeline
    tap, file = network.tap("predictions", "0"), tmp_path / "a.tap"
    process = command("tap", "predictions", "--record", str(file), "--count", "10", env=env)
    messages = [encode([prediction(k % 2, k), prediction(0, 100 + k)]) for k in range(10)]
    feed(tap, messages, process)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and out == "" and "10 messages of predictions" in err and "missed 0" in err
    recording = Recording(file)
    assert [one.message for one in recording] == messages and recording.note.symbols == ("AAA", "BBB")

    def play(*arguments: str) -> tuple[str, str, int]:
        player = command("tap", *arguments, "--play", str(file), env=env)
        return *player.communicate(timeout=30), player.returncode

    out, err, code = play("predictions", "--where", 'symbol == "BBB"', "--fields", "seq")
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [1, 3, 5, 7, 9] and (err, code) == ("", 0)
    told = json.loads(play("predictions", "--rates", "--json")[0])
    assert (told["messages"], told["records"], told["symbols"]) == (10, 20, {"AAA": 15, "BBB": 5})
    with pytest.raises(ConfigError, match=f"another link .*alpha tap predictions --play {file}"):
        _expect(Recording(file), "ticks")
    content = file.read_bytes()
    file.write_bytes(content[:-3])
    out, err, code = play("predictions", "--raw")
    assert out.splitlines() == [message.hex() for message in messages[:9] for _ in "12"] and code == 0
    assert "was cut off" in err
    file.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    assert play("predictions")[2] == 3


def test_a_stalled_recorder_slows_nobody_and_tells_what_it_missed(pipeline, tmp_path):
    network, env = pipeline
    tap, file = network.tap("ticks", "ingest"), tmp_path / "a.tap"
    process = command("tap", "ticks", "--record", str(file), env=env)
    until(lambda: tap.poll() or tap.wanted, 30)
    message = encode([TickRef(0, 1, 2, 3, 4)])
    tap.send(message)
    tap.poll()
    until(lambda: file.exists() and message in file.read_bytes(), 30)
    process.send_signal(signal.SIGSTOP)
    count = 12_000  # heaps: far more than the pipe and its queues hold
    for _ in range(count):
        tap.send(message)
        tap.poll()
    # Had that waited for the one that is stopped, we would not be here.
    process.send_signal(signal.SIGCONT)

    def recorded() -> int:
        tap.send(message)
        tap.poll()
        return sum(1 for _ in Recording(file))

    until(lambda: recorded() and _missed(file), 60)
    tap.poll()
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    recording = Recording(file)
    heard = sum(1 for _ in recording)
    assert recording.missed > 0 and f"missed {recording.missed:,}" in err and heard + recording.missed > count


def _missed(file) -> int:
    recording = Recording(file)
    for _ in recording:
        pass
    return recording.missed


def test_injected_ticks_reach_whoever_binds_the_link_on_the_stream_that_is_there(pipeline, run_dir, tmp_path):
    network, env = pipeline
    file, then = tmp_path / "a.tap", 10**9
    recording = TapFile(file, Note("ticks", ("BBB", "AAA"), 0))  # of another stream, with another order of symbols
    for k in range(5):
        stamp = then + k * 1000
        recording.write(stamp, encode([TickRef(k % 2, 7, k + 1, stamp - 30, stamp)]), recording.note)
    recording.close()
    arguments = ("tap", "ticks", "--play", str(file), "--inject", "--speed", "0")
    refused = command(*arguments, env=env)
    assert "another stream of ticks" in refused.communicate(timeout=60)[1] and refused.returncode == 2
    inbox, began = network.pull("ticks"), time.monotonic_ns()
    process = command(*arguments, "--restream", env=env)
    heard: list[TickRef] = []

    def all_came() -> bool:
        inbox.wait(20)
        message = inbox.take()
        heard.extend(decode(message) if message else ())
        return len(heard) == 5

    until(all_came, 60, "five ticks")
    tag = Books.attach(env["ALPHA_INSTANCE__NAME"]).tag
    assert [(ref.symbol, ref.epoch, ref.seq, ref.book_ns - ref.recv_ns) for ref in heard] == [
        (1 - k % 2, tag, k + 1, 30) for k in range(5)]
    assert all(began < ref.recv_ns < time.monotonic_ns() for ref in heard)
    assert "5 messages injected into feature, 0 not taken" in process.communicate(timeout=60)[1]
    inbox.close()


class Alone:
    """An executor that is run alone, on a books ring that stands still, with a state folder of its own, and what it
    decides, as a tap tells it."""

    FIELDS = "symbol,epoch,seq,p_up,event_ns,reason,value,side,qty,price,outcome"

    def __init__(self, env: dict[str, str], folder, warm_up) -> None:
        folder.mkdir()
        self.env = {**env, "ALPHA_INSTANCE__STATE_DIR": str(folder)}
        self.process = command("executor", env=self.env)
        overview = Overview(env["ALPHA_INSTANCE__NAME"])
        until(lambda: overview.refresh() or overview.get("executor", "reconciled"), 60)
        self.listener = command("tap", "decisions", "--fields", self.FIELDS, env=env)
        self.heard: list[dict] = []
        threading.Thread(target=lambda: self.heard.extend(map(json.loads, self.listener.stdout)), daemon=True).start()
        until(lambda: warm_up() and self.heard, 60)

    def decided(self) -> dict[str, dict]:
        return {one["symbol"]: one for one in self.heard if one["symbol"] != WARM}

    def stop(self) -> None:
        self.listener.kill()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0, self.process.communicate()[1]
        self.listener.communicate()


WARM = "WARM"


def test_injected_predictions_give_the_decisions_that_the_recording_had(instance, run_dir, tmp_path):
    """Recorded from what a worker sends; injected into an executor without any worker, in another life."""
    symbols = [*(f"S{k}" for k in range(24)), WARM]  # one prediction each: of several only the newest counts
    env = environment(instance, tmp_path, run_dir, ALPHA_EXECUTOR__GATEWAY="paper", ALPHA_RISK__MAX_AGE_MS="100000",
                      ALPHA_RISK__MAX_BOOK_AGE_MS="100000", ALPHA_MARKET__SYMBOLS=json.dumps(symbols),
                      ALPHA_RISK__MAX_ORDERS_PER_S="1000", ALPHA_RISK__MAX_GROSS_NOTIONAL="1e9")
    books = Books.create(instance, symbols, 1024)
    for symbol in range(len(symbols)):
        write_ticks(books, symbol, 5, now_ns=time.monotonic_ns())
    network, file, seq = Network(run_dir), tmp_path / "predictions.tap", itertools.count(1)

    def send(symbol: int, p_up: float) -> bool:
        now = time.monotonic_ns()
        sent = push.send(encode([Prediction(symbol, 0, books.tag, next(seq), 0, 1, time.time_ns(), 7, p_up, 1 - p_up,
                                            1.0, 1, 2, *range(now - 5, now + 1))]))
        tap.poll()
        return sent

    try:
        tap = network.tap("predictions", "0")
        push = network.push("predictions", tap)
        first = Alone(env, tmp_path / "first", lambda: send(24, 0.5))
        recorder = command("tap", "predictions", "--record", str(file), env=env)
        until(lambda: tap.poll() or tap.wanted, 30)
        for k in range(24):
            until(lambda: send(k, 0.3 + k / 60), 30)
        until(lambda: len(first.decided()) == 24, 30, "24 decisions")
        until(lambda: sum(1 for _ in Recording(file)) >= 24, 30, "24 recorded")
        recorder.send_signal(signal.SIGINT)
        recorder.communicate(timeout=30)
        told = first.decided()
        first.stop()
        assert {"", "SIGNAL_WEAK"} == {one["outcome"] for one in told.values()}
        second = Alone(env, tmp_path / "second", lambda: send(24, 0.5))
        assert not second.decided()
        held = lock_file(run_dir / "stage.inference-0.lock", "a worker")
        arguments = ("tap", "predictions", "--play", str(file), "--inject", "--speed", "2")
        assert "real sender of predictions runs" in command(*arguments, env=env).communicate(timeout=60)[1]
        os.close(held)
        err = command(*arguments, env=env).communicate(timeout=60)[1]
        assert "messages injected into executor, 0 not taken" in err
        until(lambda: len(second.decided()) == 24, 30, "24 decisions")
        for symbol, one in second.decided().items():
            # What moved is the time, by no more than since it was recorded.
            assert one["event_ns"] > told[symbol]["event_ns"]
            assert one | {"event_ns": 0} == told[symbol] | {"event_ns": 0}
        second.stop()
    finally:
        network.close()
        books.close()
