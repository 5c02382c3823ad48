"""The tap command: decoded, filtered, counted; raw frames can be replayed."""

import json
import time

import pytest

from common.decision import before
from common.decision import encode as decision
from common.links import FRAMES, Network
from common.ring import Books
from common.risk import Account, Rate, Refusal, Standing
from common.wire import Prediction, TickRef, decode, encode
from tests.pipeline import command, environment
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
    assert process.communicate(timeout=30) == ("", "") and process.returncode == 0
