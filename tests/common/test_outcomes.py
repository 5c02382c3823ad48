"""Outcomes found live are the labels that training would have given, on hand-made and on recorded ticks."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import layout
from common.convert import open_sources, ticks
from common.labels import Horizon, Way, moves
from common.outcomes import Outcomes
from common.ring import Books
from common.wire import Prediction

MS = 10**6


def tick(seq: int, time_ns: int, bid: int, ask: int, valid: bool = True) -> np.ndarray:
    record = np.zeros(layout.TICK_WIDTH, np.int64)
    record[layout.SEQ], record[layout.FLAGS] = seq, layout.FLAG_VALID if valid else 0
    record[layout.EVENT_NS], record[layout.BID_PX], record[layout.ASK_PX] = time_ns, bid, ask
    return record


def publish(books: Books, records: np.ndarray, symbol: int = 0) -> None:
    for record in records:
        books.ticks[symbol][record[layout.SEQ] & (books.capacity - 1)] = record
        books.heads[symbol] = record[layout.SEQ]


def prediction(record: np.ndarray, symbol: int = 0) -> Prediction:
    return Prediction(symbol, 0, 1, int(record[layout.SEQ]), 0, 1, int(record[layout.EVENT_NS]), 9, 0.5, 0.5, 0.0,
                      int(record[layout.BID_PX]), int(record[layout.ASK_PX]), *[0] * 6)


def judge(records: np.ndarray, horizon_ns: int, step: int, delay: int = 0) -> tuple[dict[int, float], set[int]]:
    """Every usable tick predicted, `delay` looks after it came; looks every `step` ticks. (seq -> move, seqs lost)"""
    books = Books.private(("X",), 1024)
    outcomes = Outcomes(books)
    found: dict[int, float] = {}
    lost: set[int] = set()
    coming: list[list[Prediction]] = [[] for _ in range(delay)]
    for start in range(0, len(records), step):
        part = records[start:start + step]
        publish(books, part)
        coming.append([prediction(record) for record in part if record[layout.FLAGS] & layout.FLAG_VALID
                       and record[layout.BID_PX] and record[layout.ASK_PX]])
        for made in coming.pop(0):
            outcomes.add(made, horizon_ns)
        for outcome in outcomes.settle():
            assert outcome.prediction.seq not in found
            found[outcome.prediction.seq] = outcome.move
        lost |= {made.seq for made in outcomes.take_lost()}
    assert not lost & found.keys()
    return found, lost


def labelled(records: np.ndarray, horizon_ns: int) -> tuple[dict[int, float], set[int]]:
    """The same from the labels of training."""
    seen = records[records[:, layout.FLAGS] & layout.FLAG_VALID > 0]
    way = Way(np.maximum.accumulate(seen[:, layout.EVENT_NS]), seen[:, layout.BID_PX], seen[:, layout.ASK_PX],
              seen[:, layout.SEQ])
    usable = np.flatnonzero((way.bid > 0) & (way.ask > 0))
    told = moves(way, usable, Horizon("s", horizon_ns / 1e9))
    seqs = way.seq[usable].tolist()
    return ({seq: move for seq, move in zip(seqs, told.move.tolist()) if move == move},
            {seq for seq, lost in zip(seqs, told.lost.tolist()) if lost})


steps = st.tuples(st.integers(0, 30), st.sampled_from([100, 101, 105, 0]), st.sampled_from([107, 108, 110, 0]),
                  st.sampled_from([True] * 15 + [False]))


@given(st.lists(steps, min_size=2, max_size=80), st.integers(1, 200), st.integers(1, 9))
@settings(max_examples=150)
def test_outcomes_are_the_labels_of_training(way, horizon_ms, step):
    time = itertools.accumulate((wait for wait, *_ in way), initial=1000)
    records = np.array([tick(seq, at * MS, bid, ask, valid)
                        for seq, (at, (_, bid, ask, valid)) in enumerate(zip(time, way), 1)])
    found, lost = judge(records, horizon_ms * MS, step)
    expected, gone = labelled(records, horizon_ms * MS)
    assert found == {seq: pytest.approx(expected[seq], abs=1e-9) for seq in found}
    assert all((found[seq] > 0, found[seq] < 0) == (expected[seq] > 0, expected[seq] < 0) for seq in found)
    # What the labels know at the very end awaits a later tick here; what is lost there may be in the last stretch.
    still = [seq for seq in expected if seq not in found]
    last = int(records[-1, layout.EVENT_NS])
    assert all(records[seq - 1, layout.EVENT_NS] + horizon_ms * MS == last for seq in still)
    assert gone <= lost and not lost & expected.keys()


@pytest.mark.parametrize("horizon_ns, delay", [(500 * MS, 0), (5000 * MS, 2)])
def test_so_they_are_on_a_recording(recordings, horizon_ns, delay):
    source = open_sources([recordings / "binance" / "usdm_btcusdt_20240718.gz"], print)
    records = np.concatenate([block for _, block in itertools.islice(ticks(source), 2)])[:6000]
    found, lost = judge(records, horizon_ns, 50, delay)
    expected, gone = labelled(records, horizon_ns)
    assert len(found) > 1000 and lost == gone
    assert all(found[seq] == pytest.approx(expected[seq], abs=1e-9) for seq in found)
    assert len(expected) - len(found) < 100  # those of the last tick's time


def test_an_outcome_is_known_once_a_later_tick_has_come_and_not_before():
    books = Books.private(("X",), 1024)
    outcomes = Outcomes(books)
    records = [tick(1, 1000 * MS, 100, 102), tick(2, 1050 * MS, 101, 103), tick(3, 1100 * MS, 102, 104),
               tick(4, 1101 * MS, 110, 112)]
    publish(books, records[:1])
    outcomes.add(prediction(records[0]), 100 * MS)
    publish(books, records[1:3])
    assert outcomes.settle() == [] and outcomes.pending == 1
    publish(books, records[3:])
    (found,) = outcomes.settle()
    assert (found.seq, found.bid, found.ask) == (3, 102, 104) and outcomes.pending == 0
    assert found.move == pytest.approx(4 / 202 * 1e4)


def test_a_mid_that_comes_back_has_not_moved_at_all():
    books = Books.private(("X",), 1024)
    outcomes = Outcomes(books)
    records = [tick(1, 1000 * MS, 33_333_333_333, 33_333_333_337), tick(2, 1050 * MS, 33_333_333_334, 33_333_333_336),
               tick(3, 3000 * MS, 1, 2)]
    publish(books, records)
    outcomes.add(prediction(records[0]), 100 * MS)
    assert [outcome.move for outcome in outcomes.settle()] == [0.0]


def test_what_was_overwritten_unseen_is_a_loss():
    books = Books.private(("X",), 64)
    outcomes = Outcomes(books)
    records = [tick(seq, seq * MS, 100, 102) for seq in range(1, 201)]
    publish(books, records[:10])
    outcomes.add(prediction(records[9]), 20 * MS)
    publish(books, records[10:])
    assert outcomes.settle() == [] and [made.seq for made in outcomes.take_lost()] == [10]
    assert outcomes.take_lost() == []


@pytest.mark.parametrize("changed", [{"event_ns": 0}, {"bid": 0}, {"ask": 0}])
def test_without_venue_time_or_mid_there_is_nothing_to_judge(changed):
    books = Books.private(("X",), 64)
    outcomes = Outcomes(books)
    outcomes.add(prediction(tick(1, MS, 100, 102))._replace(**changed), MS)
    assert outcomes.pending == 0 and len(outcomes.take_lost()) == 1


def test_one_that_comes_too_late_is_lost_and_so_is_what_waits_when_the_stream_ends():
    books = Books.private(("X", "Y"), 64)
    outcomes = Outcomes(books)
    records = [tick(seq, seq * 10 * MS, 100, 102) for seq in range(1, 6)]
    publish(books, records, symbol=1)
    outcomes.settle()
    outcomes.add(prediction(records[0], 1), 20 * MS)
    assert len(outcomes.take_lost()) == 1
    outcomes.add(prediction(records[3], 1), 60 * MS)
    assert [made.seq for made in outcomes.abandon()] == [4] and outcomes.pending == 0


def test_it_begins_with_what_the_ring_holds():
    books = Books.private(("X",), 64)
    records = [tick(seq, seq * MS, 100, 102) for seq in range(1, 101)]
    publish(books, records)
    outcomes = Outcomes(books)
    outcomes.add(prediction(records[90]), 5 * MS)
    outcomes.add(prediction(records[60]), 5 * MS)
    assert [outcome.seq for outcome in outcomes.settle()] == [96] and len(outcomes.take_lost()) == 1
