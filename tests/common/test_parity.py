"""Parity: equal where it is equal, wherever recording begins and whatever it missed; and any changed bit is found."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import captures, decision
from common.config import Config
from common.decide import Rules, answer, wish
from common.errors import ConfigError, LayoutError, ModelError
from common.layout import ASK_PX, BID_PX, FLAG_VALID, FLAGS, KIND, KIND_STATE, RECV_NS, ROW_RUN, SEQ, VENUE_ID
from common.parity import COLD, LIVE_COLD, OUTSIDE, STREAM, Report, compare, shown
from common.risk import FLATTENING, Account, Rate, Standing
from common.session_log import KINDS, META_COLUMNS, TICK_COLUMNS, Session
from common.wire import ABSENT, CLOCK, Prediction
from tests.live_session import ROOT, SYMBOLS, Pipeline, frames


def recorded(folder: Path, seconds: float = 12, begin: int = 0) -> list[str]:
    """A session of the synthetic market that begins after `begin` frames, with a loss of the connection in it."""
    played = frames(seconds)
    pipeline = Pipeline(folder)
    pipeline.play(played[:begin])
    pipeline.record()
    pipeline.play(played[begin:-300])
    pipeline.disconnect()
    pipeline.play(played[-300:])
    return pipeline.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder / "session", recorded(folder)


def totals(report: Report) -> dict[str, int]:
    return {kind: report.compared[kind].total() for kind in KINDS}


def test_a_session_recorded_from_the_first_frame_on_is_compared_whole(whole):
    folder, paths = whole
    session = Session(folder)
    report = compare(session, paths)
    assert report.first is None and report.differences == 0 and not any(report.left_out.values())
    assert totals(report) == {kind: len(session.records(kind)) for kind in KINDS}
    assert report.compared["ticks"].keys() == set(SYMBOLS) and min(totals(report).values()) > 300
    ticks = session.records("ticks")["tick"]
    assert (ticks[:, KIND] == KIND_STATE).sum() == len(SYMBOLS) and ticks[-1, FLAGS] == FLAG_VALID, "lost, found again"
    reasons = {session.reasons[number] for number in session.records("decisions")["reason"]}
    assert {"", "SIGNAL_WEAK"} < reasons, "orders, and refusals of several kinds"
    assert report.as_dict()["equal"] and json.dumps(report.as_dict())


def test_a_session_that_begins_in_the_middle_is_compared_once_the_replay_knows_enough(tmp_path):
    paths = recorded(tmp_path, begin=900)
    session = Session(tmp_path / "session")
    report = compare(session, paths)
    assert report.first is None and min(totals(report).values()) > 100
    # The session has what the ring still had when it began; the capture has not.
    assert report.left_out["ticks"][OUTSIDE] > 500
    assert report.left_out["rows"][COLD] >= 2 * session.features.warm_up - 2
    assert report.left_out["predictions"][COLD] > 0


def test_what_the_recorder_missed_of_the_frames_is_left_out_and_no_more(tmp_path):
    played = frames(16)
    pipeline = Pipeline(tmp_path)
    pipeline.record()
    pipeline.play(played[:1200])
    pipeline.play(played[1200:1240], heard=False)
    pipeline.lose(40)
    pipeline.play(played[1240:])
    paths = pipeline.close()
    report = compare(Session(tmp_path / "session"), paths)
    assert report.first is None and 0 < report.left_out["ticks"][OUTSIDE] <= 40
    assert 400 < report.left_out["rows"][COLD] < 2 * 300 and totals(report)["rows"] > 1500


def ask(pipeline: Pipeline, symbol: int) -> None:
    """The clock asks to leave what is held, as of the newest tick."""
    tick, now = pipeline.books.newest(symbol), pipeline.clock.now_ns
    asked = Prediction(symbol, CLOCK, pipeline.books.tag, tick[SEQ], tick[VENUE_ID], tick[KIND], 0, 0, ABSENT, ABSENT,
                       0.0, tick[BID_PX], tick[ASK_PX], *(now,) * 6)
    standing, account = Standing(pipeline.books.tag), Account(Rate(20.0))
    standing.position, account.mode = 10**8, FLATTENING
    before, top, rules = decision.before(standing, account), pipeline.books.top(symbol), Rules.of(Config(), "X")
    order = answer(wish(asked, standing, account, rules, now), asked, top, standing, account, rules, now)
    assert order.reduce_only
    pipeline.log.write_decisions(decision.encode(asked, now, now, top, before, order, None))


def test_what_the_clock_asked_is_decided_again_although_nothing_was_predicted(tmp_path):
    played, pipeline = frames(8), Pipeline(tmp_path)
    pipeline.record()
    for part in range(0, len(played), 200):
        pipeline.play(played[part:part + 200])
        ask(pipeline, part // 200 % 2)
    paths, session = pipeline.close(), Session(tmp_path / "session")
    report = compare(session, paths)
    asked = np.flatnonzero(session.records("decisions")["worker"] == CLOCK)
    assert report.first is None and not any(report.left_out.values()) and len(asked) > 3
    assert totals(report) == {kind: len(session.records(kind)) for kind in KINDS}
    for name in ("qty", "top_bid"):
        records = edit(tmp_path / "session", "decisions")
        records[name][asked[-1]] += 1
        records.flush()
        found = compare(Session(tmp_path / "session"), paths)
        assert found.differences == 1 and (found.first.kind, found.first.column) == ("decisions", name)
        records[name][asked[-1]] -= 1
        records.flush()


def edit(folder: Path, kind: str) -> np.ndarray:
    session = Session(folder)
    return np.memmap(folder / f"{kind}.bin", session.records(kind).dtype, "r+")


@pytest.fixture
def copy(whole, tmp_path) -> tuple[Path, list[str]]:
    """A session to spoil."""
    folder, paths = whole
    shutil.copytree(folder, tmp_path / "session")
    return tmp_path / "session", paths


_STAMPS = {"ticks": {"book_ns"}, "rows": {"seq", "run", "recv_ns", "book_ns", "written_ns"}}
_COMPARED = ("p_up", "p_down", "vol", "bid", "ask", "venue_id", "kind", "event_ns", "recv_ns")


def fields(kind: str, session: Session) -> list[tuple[str, int, str]]:
    """(field, place in it, name) of all that is compared."""
    if kind == "ticks":
        return [("tick", place, name) for place, name in TICK_COLUMNS.items() if name not in _STAMPS[kind] | {"seq"}]
    if kind == "rows":
        found = [("meta", place, name) for place, name in META_COLUMNS.items() if name not in _STAMPS[kind]]
        return found + [("values", place, name) for place, name in enumerate(session.columns)]
    more = ("reason", "value", "limit", "side", "qty", "price") if kind == "decisions" else ()
    return [(name, 0, name) for name in (*_COMPARED, *more)]


def test_a_wrong_time_of_the_first_tick_is_found_too(whole, tmp_path):
    folder, paths = whole
    spoilt = tmp_path / "session"
    shutil.copytree(folder, spoilt)
    records = edit(spoilt, "ticks")
    records["tick"][0, RECV_NS] ^= 1 << 40
    records.flush()
    report = compare(Session(spoilt), paths)
    assert report.different["ticks"].total() == 1 and report.first.kind == "ticks" and report.first.column == "recv_ns"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bit_that_is_changed_is_found_and_named(whole, tmp_path_factory, data):
    folder, paths = whole
    session = Session(folder)
    kind = data.draw(st.sampled_from(KINDS), "kind")
    field, place, name = data.draw(st.sampled_from(fields(kind, session)), "column")
    count = len(session.records(kind))
    at = data.draw(st.integers(0, count - 1), "record")
    spoilt = tmp_path_factory.mktemp("spoilt") / "session"
    shutil.copytree(folder, spoilt)
    records = edit(spoilt, kind)
    cell = np.atleast_1d(records[field][at])[place:place + 1].copy()
    bit = data.draw(st.integers(0, 4 if name == "reason" else 8 * cell.nbytes - 1), "bit")
    cell.view(np.uint8)[bit // 8] ^= 1 << bit % 8
    if records[field].ndim > 1:
        records[field][at, place] = cell[0]
    else:
        records[field][at] = cell[0]
    records.flush()
    state = name == "recv_ns" and kind == "ticks" and records["tick"][at, KIND] == KIND_STATE
    report = compare(Session(spoilt), paths)
    if state:  # a stamp that live and recording take by themselves
        assert report.first is None
        return
    first = report.first
    assert first is not None and first.kind == kind and report.different[kind].total() == 1, report.as_dict()
    assert (first.symbol, first.column) == (SYMBOLS[records["symbol"][at]], name)
    line = int(first.place.rpartition(":")[2])
    recv_ns, text = list(captures.lines(first.place.rpartition(":")[0]))[line - 1]
    assert recv_ns == first.at_ns and (str(first.venue_id).encode() in text or first.tick_kind == "state")


def test_swapped_columns_are_found_at_the_first_row(copy):
    folder, paths = copy
    records = edit(folder, "rows")
    warm = int(np.flatnonzero(records["meta"][:, ROW_RUN] > 0)[0])
    values = records["values"].copy()
    values[:, [3, 5]] = values[:, [5, 3]]
    records["values"][:] = values
    records.flush()
    report = compare(Session(folder), paths)
    assert report.first.kind == "rows" and report.first.column in (Session(folder).columns[3],
                                                                    Session(folder).columns[5])
    assert report.different["rows"].total() > 0.9 * (len(records) - warm)
    assert report.different["ticks"].total() == report.different["predictions"].total() == 0


@pytest.mark.parametrize("kind", ["ticks", "rows"])
def test_a_record_that_is_gone_is_found_unless_it_was_noted(copy, kind):
    folder, paths = copy
    records = np.array(edit(folder, kind))
    at = len(records) // 2
    symbol, seq = int(records["symbol"][at]), int(records[("tick" if kind == "ticks" else "meta")][at][SEQ])
    np.delete(records, at).tofile(folder / f"{kind}.bin")
    report = compare(Session(folder), paths)
    assert report.differences == 1
    assert (report.first.kind, report.first.symbol, report.first.seq) == (kind, SYMBOLS[symbol], seq)
    assert (report.first.live, report.first.replay) == ("absent", "present")
    np.array([(KINDS.index(kind), symbol, seq, seq, 1)], Session(folder).records("missed").dtype).tofile(
        folder / "missed.bin")
    report = compare(Session(folder), paths)
    assert report.first is None and report.missed[kind] == 1


def test_a_frame_that_is_gone_from_the_capture_is_found(whole, tmp_path):
    folder, paths = whole
    lines = [b"%d %b\n" % line for line in captures.read(paths)]
    at = next(i for i in range(len(lines) // 2, len(lines)) if b'"channel":"orderbook:' in lines[i])
    path = tmp_path / "cut.txt"
    path.write_bytes(b"".join(lines[:at] + lines[at + 1:]))
    report = compare(Session(folder), [str(path)])
    assert report.first.kind == "ticks" and report.different["ticks"].total() >= 1


def test_a_live_row_that_was_not_warm_is_left_out(copy):
    folder, paths = copy
    records = edit(folder, "rows")
    at = int(np.flatnonzero(records["meta"][:, ROW_RUN] > 0)[5])
    records["meta"][at, ROW_RUN], records["values"][at] = 0, 7.0
    records.flush()
    report = compare(Session(folder), paths)
    assert report.first is None and report.left_out["rows"] == {LIVE_COLD: 1}


def test_records_of_another_stream_are_left_out(copy):
    folder, paths = copy
    for kind in ("predictions", "decisions"):
        records = edit(folder, kind)
        records["epoch"][:5] ^= 1
        records.flush()
    report = compare(Session(folder), paths)
    assert report.first is None and report.left_out["predictions"] == report.left_out["decisions"] == {STREAM: 5}


def test_another_model_gives_other_probabilities(copy, tmp_path):
    folder, paths = copy
    other = tmp_path / "other.onnx"
    graph = onnx.load(ROOT / "models" / "default.onnx")
    weights = next(tensor for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    weights.CopyFrom(onnx.numpy_helper.from_array(1.01 * onnx.numpy_helper.to_array(weights), weights.name))
    onnx.save(graph, other)
    told = json.loads((ROOT / "models" / "default.json").read_text())
    other.with_suffix(".json").write_text(json.dumps({**told, "sha256": "", "golden": {}}))
    report = compare(Session(folder), paths, [other])
    assert report.first.kind == "predictions" and report.first.column == "p_up"
    assert report.different["predictions"].total() == report.compared["predictions"].total() > 300
    assert report.different["ticks"].total() == report.different["rows"].total() == 0


def test_a_model_that_has_been_replaced_is_refused(copy, tmp_path):
    folder, paths = copy
    told = json.loads((folder / "session.json").read_text())
    model = told["models"][0]
    for change, what in (({"path": str(tmp_path / "none.onnx")}, "not at hand"), ({"path": ""}, "does not say where")):
        told["models"] = [model | change]
        (folder / "session.json").write_text(json.dumps(told))
        with pytest.raises(ModelError, match=what):
            compare(Session(folder), paths)


def test_captures_of_another_session_are_refused(whole, tmp_path):
    folder, paths = whole
    other = recorded(tmp_path, seconds=8, begin=200)
    said = []
    with pytest.raises(ConfigError, match="beside this session"):
        compare(Session(folder), other, say=said.append)
    assert len(said) == len(other) and compare(Session(folder), [*other, *paths]).first is None


def test_a_session_of_another_version_is_refused(copy):
    folder, _ = copy
    told = json.loads((folder / "session.json").read_text())
    for key, value in (("version", 99), ("table", "x"), ("layouts", {})):
        (folder / "session.json").write_text(json.dumps(told | {key: value}))
        with pytest.raises(LayoutError, match="another"):
            Session(folder)


def test_numbers_are_shown_in_decimal_and_in_bits():
    assert shown(np.float32(1.5)) == "1.5 0x3fc00000" and shown(1.5) == "1.5 0x3ff8000000000000"
    assert shown(-1) == "-1 0xffffffffffffffff" and shown(np.int64(255)) == "255 0xff" and shown("absent") == "absent"
