"""Chunks: what went by, in order, whatever the size of a chunk."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from common import captures
from common.backtest import chunks as backtest
from common.backtest.chunks import Behind, Chunks
from common.backtest.frames import Tape
from common.config import Config
from common.errors import ConfigError, ContractError
from common.layout import ASK_PX, BID_PX, FLAG_VALID, FLAGS, RECV_NS
from common.ring import Books
from common.wire import TickRef
from procs.replay import configure

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def path(recordings) -> str:
    return str(recordings / "binance" / "usdm_btcusdt_20240718.gz")


def config(path: str) -> Config:
    return configure(Config(base=str(ROOT)), (path,))


def play(path: str, most: int = 4000, limit: int | None = None) -> tuple[list, Chunks]:
    chunks, found, left = Chunks(config(path)), [], most
    tape = Tape(captures.runs([path]))
    while left and (count := chunks.play(tape, min(limit or left, left))):
        left -= count
        for line in chunks.moved:
            chunks.seen.follow(line.heads)
            found.append((line.recv_ns, line.heads, line.predictions, [chunks.seen.top(0)]))
    return found, chunks


def test_chunks_of_any_size_tell_the_same(path, monkeypatch):
    whole, chunks = play(path)
    monkeypatch.setattr(backtest, "LINES", 37)
    small, _ = play(path)
    single, _ = play(path, most=1000, limit=1)
    assert small == whole and single == whole[:len(single)] and len(single) > 200
    assert sum(len(predictions) for _, _, predictions, _ in whole) > 500
    assert chunks.market.counts.frames == 3999, "all lines but the snapshot"


def test_the_market_is_seen_as_of_each_line(path):
    found, chunks = play(path)
    ring = chunks.books
    for recv_ns, heads, predictions, (top,) in found:
        assert top.seq == heads[0].seq and top.recv_ns == recv_ns
        assert all(prediction.seq == heads[0].seq and prediction.recv_ns == recv_ns for prediction in predictions)
    assert found[-1][3][0].seq == int(ring.heads[0])


def test_history_holds_every_tick_and_every_prediction(path):
    found, chunks = play(path)
    ticks = chunks.history[0].ticks()
    head = int(chunks.books.heads[0])
    assert len(ticks) == head <= chunks.books.capacity
    ring = chunks.books.ticks[0][1:head + 1]
    assert (ticks[:, :3] == ring[:, (RECV_NS, BID_PX, ASK_PX)]).all()
    assert (ticks[:, 3] == (ring[:, FLAGS] & FLAG_VALID)).all()
    times, answers = chunks.history[0].predictions()
    made = [prediction for _, _, predictions, _ in found for prediction in predictions]
    assert times.tolist() == [prediction.recv_ns for prediction in made]
    assert answers.tolist() == [[prediction.p_up, prediction.p_down] for prediction in made]


def test_only_wanted_symbols_are_predicted(recordings):
    paths = tuple(str(recordings / "binance" / f"usdm_{name}_20240718.gz") for name in ("btcusdt", "ethusdt"))
    chunks = Chunks(configure(Config(base=str(ROOT)), paths), ("ETHUSDT",))
    tape, made = Tape(captures.runs(paths)), []
    for _ in range(6):
        chunks.play(tape)
        for line in chunks.moved:
            chunks.seen.follow(line.heads)
            made += line.predictions
    assert {prediction.symbol for prediction in made} == {1}
    assert not len(chunks.history[0].predictions()[0]) and len(chunks.history[0].ticks())


def test_nothing_that_is_still_seen_is_overwritten(path):
    chunks = Chunks(dataclasses.replace(config(path), ring=dataclasses.replace(Config().ring, ticks=1024)))
    tape = Tape(captures.runs([path]))
    with pytest.raises(ContractError, match="before the one before"):
        while chunks.play(tape):
            pass


def test_a_window_that_does_not_fit_the_ring_is_refused(path, monkeypatch):
    load = backtest.Model.configured

    def loaded(*arguments):
        model = load(*arguments)
        model.window = 300
        return model

    monkeypatch.setattr(backtest.Model, "configured", loaded)
    ring = dataclasses.replace(Config().ring, ticks=1024, rows=1024)
    with pytest.raises(ConfigError, match="window 300"):
        Chunks(dataclasses.replace(config(path), ring=ring))


def test_a_model_whose_answer_is_no_number_makes_no_prediction(path, monkeypatch):
    whole, _ = play(path, 2000)
    predict = backtest.Model.predict

    def fails(self, window: np.ndarray) -> tuple[float, float]:
        if window[0, 0] > 0.5:
            raise backtest.ModelError("no number")
        return predict(self, window)

    def refuses(self, windows: np.ndarray) -> np.ndarray:
        raise backtest.ModelError("no number")

    load = backtest.Model.configured

    def loaded(*arguments):
        model = load(*arguments)
        model.predict, model.predict_batch = fails.__get__(model), refuses.__get__(model)
        return model

    monkeypatch.setattr(backtest.Model, "configured", loaded)
    found, chunks = play(path, 2000)
    made, all_ = ([p for _, _, predictions, _ in lines for p in predictions] for lines in (found, whole))
    assert 0 < chunks.model_errors == len(all_) - len(made) and set(made) < set(all_)


def test_behind_shows_an_earlier_market_in_the_same_memory():
    books = Books.private(("A",), 8)
    behind = Behind(books)
    for seq in (1, 2, 3):
        books.ticks[0][seq, :] = seq
        books.heads[0] = seq
    assert behind.top(0) is None
    behind.follow([TickRef(0, 1, 2, 0, 0)])
    assert behind.top(0).seq == behind.newest(0)[0] == 2 and books.top(0).seq == 3
