"""A worker: rows in, predictions out, and nothing predicted from memory that was overwritten meanwhile."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from common import layout
from common.clock import ManualClock
from common.config import Config, Monitor
from common.deployment import Pair, Ref
from common.errors import ModelError
from common.features.choice import DEFAULT
from common.features.rows import Features
from common.links import LocalLink
from common.model import Model
from common.ring import Books, Rows
from common.succession import Engines
from common.telemetry import Telemetry
from common.wire import Credit, Prediction, Work, decode, encode
from procs.inference import COUNTERS, TIMERS, Inference, inference
from tests.onnx_made import make_model
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


# The challenger, the monitor's sample, and changing over.

def small(tmp_path: Path, name: str, columns: tuple[str, ...], window: int = 1, seed: int = 1) -> Model:
    return Model.load(make_model(tmp_path / f"{name}.onnx", columns, window=window, seed=seed))


class Judged(Bench):
    """A worker with a monitor, and perhaps a challenger."""

    def __init__(self, model: Model, shadow: Model | None = None, sample_ms: float = 0.0) -> None:
        super().__init__(model)
        self.judged = LocalLink()
        self.worker = Inference(Config(monitor=Monitor(sample_ms=sample_ms)), self.clock, self.telemetry, 3, self.work,
                                self.credits, self.predictions, model, lambda: self.rows, shadow, self.judged)
        assert self.worker.on_start()

    def told(self) -> list[list[Prediction]]:
        self.clock.set(self.clock.now_ns + 60_000_000)  # a heap leaves
        self.worker.do_work()
        found = []
        while (message := self.judged.recv()) is not None:
            found.append(decode(message, Prediction))
        return found


def test_champion_and_challenger_are_told_together_and_only_the_champion_is_sent(tmp_path):
    champion = small(tmp_path, "a", DEFAULT.names[:3])
    challenger = small(tmp_path, "b", DEFAULT.names[5:9], window=10)
    bench = Judged(champion, challenger)
    head = bench.tick(0, DEFAULT.warm_up + 20)
    (sent,) = bench.ask((0, head, head))
    ((one, other),) = bench.told()
    assert one == sent and sent.model == champion.id and other.model == challenger.id
    assert other[:7] == one[:7] and other.bid == one.bid and other.vol == one.vol
    assert (other.p_up, other.p_down) == challenger.predict(bench.rows.window(0, head, 10)[:, 5:9])
    assert bench.telemetry.get("shadow_predictions") == 1 and bench.telemetry.get("judged") == 2


def test_a_challenger_gives_way_to_work_and_rests_nine_times_as_long_as_it_ran(tmp_path):
    champion, challenger = (small(tmp_path, name, DEFAULT.names[:3]) for name in "ab")
    bench = Judged(champion, challenger)
    head = bench.tick(0, DEFAULT.warm_up + 20)
    predict = challenger.predict

    def slow(window):
        bench.clock.set(bench.clock.now_ns + 1_000_000)
        return predict(window)

    challenger.predict = slow
    for pause_ns, ran in ((0, 1), (8_000_000, 1), (1_000_001, 2)):
        bench.clock.set(bench.clock.now_ns + pause_ns)
        bench.ask((0, head, head))
        assert bench.telemetry.get("shadow_predictions") == ran
    assert bench.telemetry.get("shadow_skipped") == 1
    bench.clock.set(bench.clock.now_ns + 1_000_000_000)
    bench.work.pending = lambda: True  # another message is there already
    bench.ask((0, head, head))
    assert bench.telemetry.get("shadow_predictions") == 2 and bench.telemetry.get("shadow_skipped") == 2


def test_a_challenger_that_fails_or_has_no_whole_window_costs_the_champion_nothing(tmp_path):
    champion = small(tmp_path, "a", DEFAULT.names[:3])
    challenger = small(tmp_path, "b", DEFAULT.names[:3], window=50)
    bench = Judged(champion, challenger)
    head = bench.tick(0, DEFAULT.warm_up + 3)
    assert len(bench.ask((0, head, head))) == 1 and bench.telemetry.get("shadow_invalid") == 1
    head = bench.tick(0, 60)

    def fail(window):
        raise ModelError("nonsense")

    challenger.predict = fail
    assert len(bench.ask((0, head, head))) == 1 and bench.telemetry.get("shadow_errors") == 1
    assert bench.told() == [] and bench.telemetry.get("model_errors") == 0


def test_one_row_of_a_symbol_in_so_much_venue_time_is_told_in_heaps(tmp_path):
    bench = Judged(small(tmp_path, "a", DEFAULT.names[:3]), sample_ms=100.0)  # a tick comes in 10 ms of venue time
    heads = [bench.tick(symbol, DEFAULT.warm_up + 99) for symbol in (0, 1)]
    for seq in range(heads[0] - 99, heads[0] + 1):
        assert len(bench.ask((0, seq, seq), (1, seq, seq))) == 2
    told = [found for heap in bench.told() for found in heap]
    for symbol in (0, 1):
        times = [found.event_ns for found in told if found.symbol == symbol]
        assert len(times) == 10 and set(np.diff(times)) == {100_000_000}
    everything = Judged(small(tmp_path, "b", DEFAULT.names[:3]))
    head = everything.tick(0, DEFAULT.warm_up + 199)
    for first in range(head - 199, head, 20):
        everything.ask((0, first, first + 19))
    heaps = everything.told()
    assert sum(map(len, heaps)) == 200 and max(map(len, heaps)) == 64


def test_what_the_monitor_does_not_take_is_counted_and_not_waited_for(tmp_path):
    bench = Judged(small(tmp_path, "a", DEFAULT.names[:3]))
    bench.judged._capacity = 0
    head = bench.tick(0, DEFAULT.warm_up)
    assert len(bench.ask((0, head, head))) == 1
    assert bench.told() == [] and bench.telemetry.get("judged_refused") == 1


def test_a_row_that_the_old_ring_has_not_is_looked_for_in_the_new_one(tmp_path):
    """The rows ring made way for another of more columns while work for its first row was under way."""
    model = small(tmp_path, "a", DEFAULT.names[3:6])
    bench = Bench(model)
    bench.tick(0, warm(model))
    old = bench.rows
    bench.rows = Rows.private(("A", "B"), DEFAULT.names, 1024, bench.books.epoch)
    bench.features = Features(bench.books, bench.rows)
    head = bench.tick(0, 3)
    assert bench.ask((0, head, head)) == [] and bench.telemetry.get("invalid") == 1  # nothing says that it is another
    old.block = SimpleNamespace(retired=True)
    for asked in ((0, head, head), (0, head - 1, head)):
        bench.worker.rows = old
        found = bench.ask(asked)
        assert len(found) == asked[2] - asked[1] + 1 and bench.worker.rows is bench.rows
        assert found[-1].p_up == model.predict(bench.rows.window(0, head, 1)[:, 3:6])[0]


def test_a_deployed_model_takes_over_between_two_messages(tmp_path):
    first, second = small(tmp_path, "a", DEFAULT.names[:3]), small(tmp_path, "b", DEFAULT.names[4:9], window=5)
    bench = Bench(first)
    head = bench.tick(0, DEFAULT.warm_up + 20)
    coming: list[Engines] = []
    pair = Pair(Ref("/a.onnx", ""), None)

    class Follow:
        state: dict = {}
        engines = Engines(pair, first, None)

        def turn(self, fits):
            assert len(fits(Engines(pair, second, None))) == 2
            return coming.pop() if coming else None

    bench.worker = Inference(Config(), bench.clock, bench.telemetry, 3, bench.work, bench.credits, bench.predictions,
                             first, lambda: bench.rows, follow=Follow())
    assert bench.worker.on_start()
    assert bench.ask((0, head, head))[0].model == first.id
    coming.append(Engines(pair, second, None))
    bench.clock.set(bench.clock.now_ns + 1_000_000_000)
    bench.worker.do_work()
    assert bench.telemetry.get("swaps") == 1 and bench.telemetry.told()["model_id"] == f"{second.id:016x}"
    bench.take_credits()
    (found,) = bench.ask((0, head, head))
    assert found.model == second.id
    assert (found.p_up, found.p_down) == second.predict(bench.rows.window(0, head, 5)[:, 4:9])
    assert bench.take_credits()[-1].window == 5


def test_check_tells_of_the_model_and_of_its_challenger(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHA_INSTANCE__STATE_DIR", str(tmp_path))
    challenger = make_model(tmp_path / "b.onnx", DEFAULT.names[:2], window=9)
    told = CliRunner().invoke(inference, ["--check", "--shadow", str(challenger)])
    assert told.exit_code == 0 and [line.partition(":")[0] for line in told.stdout.splitlines()] == ["default", "b"]
    assert CliRunner().invoke(inference, ["--check", "--shadow", str(tmp_path / "none.onnx")]).exit_code == 3
