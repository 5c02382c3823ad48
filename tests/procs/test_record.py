"""The record command, fed from a tap as ingest would: whole files at the end, readable ones after a kill."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from common import captures, decision
from common.capture_lines import Connect, Disconnect, End, Header, Missed, State, encode, is_control, parse
from common.config import Config
from common.features.choice import DEFAULT
from common.features.table import TABLE_HASH
from common.links import DECISIONS, FRAMES, Network
from common.onnx_file import model_id
from common.ring import Books, Rows
from common.session_log import KINDS, MISSED, Session
from common.telemetry import Telemetry
from common.wire import Prediction
from common.wire import encode as encode_records
from tests.pipeline import command, environment
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
HEADER = encode(Header("vectrade", ("AAA",)))
OPENING = (HEADER, encode(Connect("ws://x")), encode(State("AAA", b'{"book":1}')))


class Ingest:
    """What the recorder hears of it."""

    def __init__(self, network: Network, who: str = "ingest") -> None:
        self.tap = network.tap(FRAMES, who)

    def heard(self) -> None:
        until(lambda: self.tap.poll() or self.tap.wanted, 30, "a listener")

    def say(self, *texts: bytes) -> None:
        for text in texts:
            self.tap.send(time.monotonic_ns().to_bytes(8, "little") + text)
        self.tap.poll()


@pytest.fixture
def pipeline(instance, run_dir, tmp_path):
    network = Network(run_dir)
    yield network, environment(instance, tmp_path, run_dir)
    network.close()


def recorder(env, out, *arguments):
    return command("record", "--out", str(out), "--json", *arguments, env=env)


def finish(process, number=signal.SIGINT) -> dict:
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return json.loads(out)


def frame(i: int) -> bytes:
    return b'{"n":%d}' % i


def files(out) -> list[str]:
    return sorted(str(path) for path in out.glob("*") if path.suffix in (".zst", ".gz")) if out.exists() else []


def frames(paths) -> list[bytes]:
    """What can be read now."""
    return [text for path in paths for _, text in captures.lines(path, lambda words: None) if not is_control(text)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_the_tap_says_is_recorded_until_it_is_told_to_stop(pipeline, tmp_path, number):
    network, env = pipeline
    out, ingest = tmp_path / "new" / "today", Ingest(network)
    process = recorder(env, out)
    ingest.heard()
    before = time.time_ns()
    ingest.say(*OPENING, *map(frame, range(5000)), encode(Disconnect("bye")))
    until(lambda: len(frames(files(out))) == 5000, 30)
    told = finish(process, number)
    [path] = files(out)
    assert frames([path]) == [frame(i) for i in range(5000)]
    assert all(before - 10**9 < recv_ns < time.time_ns() + 10**9 for recv_ns, _ in captures.read([path]))
    assert told["frames"] == 5000 and told["missed"] == 0 and told["control_lines"] == 5
    assert told["files"] == [json.load(open(f"{path}.json"))]
    assert captures.describe([path]) == ("vectrade", ("AAA",))


def test_a_killed_recorder_leaves_what_it_had(pipeline, tmp_path):
    network, env = pipeline
    ingest = Ingest(network)
    process = recorder(env, tmp_path / "out")
    ingest.heard()
    ingest.say(*OPENING, *map(frame, range(3000)))
    until(lambda: len(frames(files(tmp_path / "out"))) == 3000, 30)  # within the half second of a flush
    process.kill()
    process.communicate()
    [path] = files(tmp_path / "out")
    words = []
    found = list(captures.lines(path, words.append))
    assert len(found) == 3003 and words and not os.path.exists(f"{path}.json")


def test_each_feed_has_files_of_its_own(pipeline, tmp_path):
    network, env = pipeline
    feeds = Ingest(network), Ingest(network, "second")
    process = recorder(env, tmp_path / "out")
    for i, feed in enumerate(feeds):
        feed.heard()
        feed.say(encode(Header("vectrade", (f"S{i}",))), frame(i))
    until(lambda: len(frames(files(tmp_path / "out"))) == 2, 30)
    told = finish(process)
    assert [file["symbols"] for file in sorted(told["files"], key=lambda file: file["symbols"])] == [["S0"], ["S1"]]
    assert {os.path.basename(path).partition("-")[0] for path in files(tmp_path / "out")} == {"vectrade", "second"}


def test_files_follow_each_other_by_age(pipeline, tmp_path):
    network, env = pipeline
    ingest = Ingest(network)
    process = recorder(env, tmp_path / "out", "--max-minutes", "0.001")
    ingest.heard()
    sent = 0

    def more() -> bool:
        nonlocal sent
        ingest.say(*(OPENING if not sent else ()), frame(sent))
        sent += 1
        return len(files(tmp_path / "out")) > 3

    until(more, 30)
    until(lambda: len(frames(files(tmp_path / "out"))) == sent, 30)  # the tap sends in heaps
    told = finish(process)
    paths = files(tmp_path / "out")
    assert frames(paths) == [frame(i) for i in range(sent)] and [file["part"] for file in told["files"]] == [
        *range(len(paths))]


def test_what_a_stopped_recorder_misses_is_marked_where_it_is_missing(pipeline, tmp_path):
    network, env = pipeline
    ingest = Ingest(network)
    process = recorder(env, tmp_path / "out")
    ingest.heard()
    ingest.say(*OPENING, frame(-1))
    until(lambda: frames(files(tmp_path / "out")), 30)
    process.send_signal(signal.SIGSTOP)
    padding = b"x" * 30_000
    for i in range(6000):
        ingest.say(b'{"n":%d,"x":"%b"}' % (i, padding))
    process.send_signal(signal.SIGCONT)

    def heard_on() -> bool:  # what a tap drops is known with the next heap that arrives
        ingest.say(frame(10_000))
        return any(isinstance(line, Missed) for line in control())

    def control() -> list:
        return [parse(text) for _, text in captures.lines(files(tmp_path / "out")[0], lambda words: None)
                if is_control(text)]

    until(heard_on, 60)
    told = finish(process)
    lines = control()
    missed = sum(line.count for line in lines if isinstance(line, Missed))
    assert told["missed"] == missed > 0 and isinstance(lines[-1], End) and lines[-1].missed == missed
    kept = [text for text in frames(files(tmp_path / "out")) if b'"x"' in text]
    assert len(kept) + missed >= 6000


def test_an_ingest_that_comes_back_is_recorded_on_and_its_end_is_noted(pipeline, tmp_path, instance, run_dir,
                                                                       monkeypatch):
    env, first = pipeline[1], Network(run_dir)
    telemetry = Telemetry.create(instance, "ingest", ())
    ingest = Ingest(first)
    process = recorder(env, tmp_path / "out")
    ingest.heard()
    ingest.say(*OPENING, frame(1))
    until(lambda: len(frames(files(tmp_path / "out"))) == 1, 30)
    first.close()  # without a word, as by a kill
    telemetry.set("started_ns", time.monotonic_ns())
    again = Network(run_dir)
    with monkeypatch.context() as other:
        other.setattr(os, "getpid", lambda: 1)  # by which taps are told apart
        ingest = Ingest(again)
    ingest.heard()
    ingest.say(*OPENING, frame(2))
    until(lambda: len(frames(files(tmp_path / "out"))) == 2, 30)
    finish(process)
    again.close()
    telemetry.close()
    [path] = files(tmp_path / "out")
    found = [parse(text) if is_control(text) else text for _, text in captures.read([path])][1:-1]
    opening = [parse(text) for text in OPENING[1:]]
    assert found == [*opening, frame(1), Disconnect("ingest was started anew"), *opening, frame(2)]


def test_a_second_recorder_in_the_same_folder_is_refused(pipeline, tmp_path):
    network, env = pipeline
    ingest = Ingest(network)
    first = recorder(env, tmp_path / "out")
    ingest.heard()
    second = recorder(env, tmp_path / "out", "--for", "1")
    _, err = second.communicate(timeout=30)
    assert second.returncode == 6 and str(first.pid) in err and "--out" in err
    first.terminate()
    first.communicate(timeout=30)


def test_a_folder_that_cannot_be_written_is_a_resource_error(pipeline, tmp_path):
    _, env = pipeline
    (tmp_path / "file").write_text("")
    process = recorder(env, tmp_path / "file" / "out")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 5 and "--out" in err


def test_where_nothing_runs_nothing_is_written_and_that_is_said(pipeline, tmp_path):
    _, env = pipeline
    process = recorder(env, tmp_path / "out", "--for", "0.3")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 7 and "alpha run" in err and files(tmp_path / "out") == []
    assert json.loads(out)["files"] == []


# ---- sessions


class Rings:
    """What ingest and feature leave in shared memory, of one symbol."""

    def __init__(self, instance: str, columns=DEFAULT.labels, books: Books | None = None) -> None:
        self.books = books or Books.create(instance, ("AAA",), 1024)
        self.rows = Rows.create(instance, ("AAA",), columns, 1024, TABLE_HASH, self.books.epoch)

    def grow(self, count: int) -> None:
        for ring, records in ((self.books, self.books.ticks[0]), (self.rows, self.rows.meta[0])):
            for _ in range(count):
                seq = int(ring.heads[0]) + 1
                records[seq & 1023, 1:] = seq
                records[seq & 1023, 0] = seq
                ring.heads[0] = seq

    def close(self) -> None:
        self.rows.close()
        self.books.close()


def sessions(out) -> list[Session]:
    return [Session(path.parent) for path in sorted(out.glob("session-*/session.json"))]


def count(out, kind: str) -> int:
    return sum(len(session.records(kind)) for session in sessions(out))


def prediction(tag: int, seq: int, model: int) -> Prediction:
    return Prediction(0, 0, tag, seq, 0, 1, 0, model, 0.6, 0.4, 1.0, *[0] * 8)


def test_a_session_holds_rings_and_taps_and_names_the_model(pipeline, instance, tmp_path):
    network, env = pipeline
    out, ingest, rings = tmp_path / "out", Ingest(network), Rings(instance)
    taps = network.tap("predictions", "0"), network.tap(DECISIONS, "executor")
    process = recorder(env, out, "--session")
    ingest.heard()
    ingest.say(*OPENING, frame(1))
    for upto in (10, 700):  # who begins late begins with half a ring
        rings.grow(upto - int(rings.books.heads[0]))
        until(lambda: count(out, "rows") == upto, 30)
    until(lambda: [tap.poll() for tap in taps] and all(tap.wanted for tap in taps), 30, "listeners")
    path = Config(base=str(ROOT)).path(Config().inference.model)
    told = [prediction(rings.books.tag, seq, model) for seq, model in ((5, model_id(path)), (6, 77))]
    taps[0].send(encode_records(told))
    taps[1].send(bytes(3 * decision.SIZE))
    for tap in taps:
        tap.poll()
    until(lambda: count(out, "decisions") == 3 and count(out, "predictions") == 2, 30)
    summary = finish(process)
    [session] = sessions(out)
    assert session.records("ticks")["tick"][:, 0].tolist() == session.records("rows")["meta"][:, 0].tolist() == [
        *range(1, 701)]
    assert [Prediction._make(one) for one in session.records("predictions").tolist()] == told
    assert {known.id: known.path for known in session.models} == {77: "", model_id(path): str(path)}
    assert session.stream == rings.books.epoch
    assert session.features == DEFAULT and session.symbols == ("AAA",)
    [file] = summary["files"]
    assert [(capture.session, capture.part) for capture in session.captures] == [(file["session"], 0)]
    [one] = summary["sessions"]
    assert (one["ticks"], one["predictions"], one["missed"]) == (700, 2, 0) and one["folder"] == session.folder.name
    rings.close()


def test_what_a_stopped_recorder_misses_of_a_ring_is_noted(pipeline, instance, tmp_path):
    network, env = pipeline
    out, rings = tmp_path / "out", Rings(instance)
    process = recorder(env, out, "--session")
    rings.grow(10)
    until(lambda: count(out, "rows") == 10, 30)
    process.send_signal(signal.SIGSTOP)
    rings.grow(1500)
    process.send_signal(signal.SIGCONT)
    until(lambda: count(out, "rows") == 10 + 1024, 30)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    [session] = sessions(out)
    missed = {KINDS[kind]: (first, last, lost) for kind, _, first, last, lost in session.records(MISSED).tolist()}
    assert missed == {"ticks": (11, 486, 476), "rows": (11, 486, 476)}
    rings.close()


def test_each_stream_and_each_set_of_columns_has_a_folder_of_its_own(pipeline, instance, tmp_path):
    _, env = pipeline
    out, rings = tmp_path / "out", Rings(instance)
    process = recorder(env, out, "--session")
    rings.grow(10)
    until(lambda: count(out, "rows") == 10, 30)
    rings.rows.close()
    other = Rings(instance, DEFAULT.labels[:5], rings.books)  # the same ticks, other columns: all rows are written anew
    other.grow(5)
    until(lambda: len(sessions(out)) == 2 and count(out, "rows") == 15, 30)
    other.close()
    again = Rings(instance)
    again.grow(3)
    until(lambda: len(sessions(out)) == 3 and count(out, "rows") == 18, 30)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert [len(session.columns) for session in sessions(out)] == [len(DEFAULT), 5, len(DEFAULT)]
    first, second, third = (session.records("ticks")["tick"][:, 0].tolist() for session in sessions(out))
    assert first == [*range(1, len(first) + 1)] and 10 <= len(first) <= 15  # until the new rows were there
    assert second == [*range(1, 16)] and third == [1, 2, 3]
    again.close()


def test_a_ring_of_columns_that_no_model_takes_is_refused(pipeline, instance, tmp_path):
    _, env = pipeline
    rings = Rings(instance, ("obi_1", "somebody@12345678"))
    process = recorder(env, tmp_path / "out", "--session")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3 and "somebody@12345678" in err
    rings.close()
