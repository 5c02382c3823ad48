"""A worker: rows in, predictions out, and nothing predicted from memory that was overwritten meanwhile."""

from pathlib import Path

import numpy as np
import pytest

from common import layout
from common.clock import ManualClock
from common.config import Config
from common.errors import ModelError
from common.feature_rows import Features
from common.feature_set import DEFAULT
from common.links import LocalLink
from common.model import Model
from common.ring import Books, Rows
from common.telemetry import Telemetry
from common.wire import Credit, Prediction, Work, decode, encode
from procs.inference import COUNTERS, TIMERS, Inference
from tests.ticks import write_ticks

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module", params=["default.onnx", "bench_w100.onnx"])
def model(request) -> Model:
    return Model.load(MODELS / request.param)


class Bench:
    """A worker on private memory, with the other ends of its links in our hands."""

    def __init__(self, model: Model, capacity: int = 1024) -> None:
        self.books = Books.private(("A", "B"), capacity)
        self.rows = Rows.private(("A", "B"), DEFAULT.names, capacity, self.books.epoch)
        self.features = Features(self.books, self.rows)
        self.clock = ManualClock(5)
        self.work, self.credits, self.predictions = LocalLink(), LocalLink(), LocalLink()
        self.telemetry = Telemetry.private("inference", COUNTERS, TIMERS)
        self.worker = Inference(Config(), self.clock, self.telemetry, 3, self.work, self.credits, self.predictions,
                                model, lambda: self.rows)
        assert self.worker.on_start()
        self.take_credits()

    def tick(self, symbol: int, count: int) -> int:
        head = write_ticks(self.books, symbol, count)
        self.features.advance(symbol, head, 7)
        return head

    def ask(self, *items: tuple[int, int, int], lease: int = 1, epoch: int | None = None) -> list[Prediction]:
        tag = self.rows.tag if epoch is None else epoch
        self.work.send(encode([Work(symbol, tag, lease, first, last, 6) for symbol, first, last in items]))
        self.worker.do_work()
        found: list[Prediction] = []
        while (message := self.predictions.recv()) is not None:
            found += decode(message, Prediction)
        return found

    def take_credits(self) -> list[Credit]:
        found: list[Credit] = []
        while (message := self.credits.recv()) is not None:
            found += decode(message, Credit)
        return found


def warm(model: Model) -> int:
    return DEFAULT.warm_up + model.window - 1


def test_a_prediction_carries_the_stamps_and_prices_of_its_row(model):
    bench = Bench(model)
    head = bench.tick(1, warm(model))
    (found,) = bench.ask((1, head, head), lease=9)
    tick = bench.books.newest(1)
    assert (found.symbol, found.seq, found.worker, found.epoch) == (1, head, 3, bench.books.tag)
    assert (found.venue_id, found.event_ns, found.recv_ns) == (
        tick[layout.VENUE_ID], tick[layout.EVENT_NS], tick[layout.RECV_NS])
    assert (found.bid, found.ask) == (tick[layout.BID_PX], tick[layout.ASK_PX])
    assert (found.row_ns, found.dispatched_ns, found.start_ns) == (7, 6, 5)
    assert found.model == model.id
    assert (found.p_up, found.p_down) == model.predict(bench.rows.window(1, head, model.window))
    assert found.vol == bench.rows.window(1, head, 1)[0, DEFAULT.names.index("vol_100")]


def test_each_message_of_work_is_answered_by_one_credit(model):
    bench = Bench(model)
    head = bench.tick(0, warm(model))
    bench.tick(1, warm(model))
    assert len(bench.ask((0, head, head), (1, head, head), lease=4)) == 2
    assert [(credit.lease, credit.done, credit.invalid) for credit in bench.take_credits()] == [(4, 2, 0)]


def test_a_run_of_rows_gives_the_bits_of_single_rows(model):
    bench = Bench(model)
    head = bench.tick(0, warm(model) + 7)
    together = bench.ask((0, head - 7, head))
    alone = [bench.ask((0, seq, seq))[0] for seq in range(head - 7, head + 1)]
    assert [(p.seq, p.p_up, p.p_down, p.vol) for p in together] == [(p.seq, p.p_up, p.p_down, p.vol) for p in alone]


def test_a_cold_row_is_not_predicted(model):
    bench = Bench(model)
    head = bench.tick(0, warm(model) - 1)
    assert bench.ask((0, head, head)) == [] and bench.telemetry.get("cold") == 1
    assert bench.take_credits()[-1].invalid == 1


def test_a_row_that_left_the_ring_is_not_predicted(model):
    bench = Bench(model)
    head = bench.tick(0, warm(model))
    bench.tick(0, bench.rows.capacity)
    assert bench.ask((0, head, head)) == [] and bench.telemetry.get("invalid") == 1


def test_a_window_overwritten_while_it_is_used_gives_no_prediction(model):
    bench = Bench(model)
    head = bench.tick(0, warm(model))
    predict = model.predict

    def slow(window: np.ndarray) -> tuple[float, float]:
        bench.tick(0, bench.rows.capacity - model.window + 1)  # the writer laps the oldest row of the window
        return predict(window)

    bench.worker.model = type("Slow", (), {"predict": staticmethod(slow), "window": model.window, "id": model.id})()
    assert bench.ask((0, head, head)) == [] and bench.telemetry.get("invalid") == 1


def test_a_model_that_answers_nonsense_gives_no_prediction_and_ends_nothing(model):
    bench = Bench(model)
    head = bench.tick(0, warm(model))

    def fail(*_):
        raise ModelError("the model's answer is not a number")

    bench.worker.model = type("Bad", (), {"predict": staticmethod(fail), "predict_batch": staticmethod(fail),
                                          "window": model.window, "id": model.id})()
    assert bench.ask((0, head, head)) == [] and bench.ask((0, head - 1, head)) == []
    assert bench.telemetry.get("model_errors") >= 1 and len(bench.take_credits()) == 2


def test_work_of_another_stream_is_counted_and_given_back(model):
    bench = Bench(model)
    head = bench.tick(0, warm(model))
    assert bench.ask((0, head, head), epoch=bench.rows.tag ^ 1) == []
    assert bench.telemetry.get("stale_refs") == 1 and len(bench.take_credits()) == 1


def test_a_new_stream_is_found_when_work_names_it(model):
    bench = Bench(model)
    bench.books = Books.private(("A", "B"), 1024)
    bench.books.epoch += 1
    bench.rows = Rows.private(("A", "B"), DEFAULT.names, 1024, bench.books.epoch)
    bench.features = Features(bench.books, bench.rows)
    head = bench.tick(0, warm(model))
    assert len(bench.ask((0, head, head))) == 1


def test_an_idle_worker_greets_again_and_again(model):
    bench = Bench(model)
    for _ in range(3):
        bench.clock.set(bench.clock.now_ns + 200_000_000)
        bench.worker.do_work()
    credits = bench.take_credits()
    assert len(credits) == 3 and {credit.incarnation for credit in credits} == {5}
    assert credits[0].window == model.window
