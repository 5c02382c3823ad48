"""The feature stage: doorbells in, rows in memory, the newest row to an idle worker, nothing lost uncounted."""

import os
from pathlib import Path

import numpy as np
import pytest

from common import deployment, layout
from common.clock import ManualClock
from common.config import Config, Inference, Instance, Ring
from common.config import Feature as Settings
from common.deployment import Pair, Ref
from common.errors import ResourceError
from common.features.choice import DEFAULT, FeatureSet
from common.features.rows import Features
from common.features.table import LEVELS_Z, TABLE_HASH
from common.links import LocalLink
from common.manifest import features_wanted
from common.ring import Books, Rows
from common.telemetry import Telemetry
from common.wire import Credit, TickRef, Work, decode, encode
from procs.feature import COUNTERS, TIMERS, Feature
from tests.onnx_made import make_model
from tests.ticks import write_ticks

WINDOW = 5
WARM = DEFAULT.warm_up + WINDOW - 1  # ticks until the first row that may be predicted


class Bench:
    """A feature stage on private memory, with the other ends of its links in our hands."""

    def __init__(self, dispatch: str = "newest", max_batch: int = 8, symbols=("A", "B"), capacity: int = 2048) -> None:
        self.clock = ManualClock(1_000_000_000)
        self.books = Books.private(symbols, capacity)
        self.rows = Rows.private(symbols, DEFAULT.names, capacity, self.books.epoch)
        self.inbox = LocalLink()
        self.work: dict[int, LocalLink] = {}
        self.config = Config(feature=Settings(dispatch=dispatch, lease_ms=100.0, max_batch=max_batch))
        self.telemetry = Telemetry.private("feature", COUNTERS, TIMERS)
        self.stage = self.make()

    def make(self) -> Feature:
        stage = Feature(self.config, self.clock, self.telemetry, self.inbox, self.link, DEFAULT,
                        lambda: self.books, lambda books: self.rows)
        assert stage.on_start()
        return stage

    def link(self, worker: int) -> LocalLink:
        return self.work.setdefault(worker, LocalLink())

    def ring_bell(self, symbol: int, count: int, flags: int = layout.FLAG_VALID) -> int:
        head = write_ticks(self.books, symbol, count, flags)
        self.inbox.send(encode([TickRef(symbol, self.books.tag, head, 0, 0)]))
        return head

    def greet(self, worker: int = 0, incarnation: int = 1, lease: int = 0) -> None:
        self.inbox.send(encode([Credit(worker, incarnation, lease, 0, 0, WINDOW)]))

    def given(self, worker: int = 0) -> list[tuple[int, int, int]]:
        found = []
        while (message := self.work.get(worker, LocalLink()).recv()) is not None:
            self.lease = decode(message, Work)[0].lease
            found += [(item.symbol, item.first, item.last) for item in decode(message, Work)]
        return found

    def count(self, name: str) -> int:
        self.stage.count()
        return self.telemetry.get(name)


def test_every_tick_becomes_a_row_and_the_newest_goes_to_an_idle_worker():
    bench = Bench()
    bench.greet()
    bench.stage.do_work()
    head = bench.ring_bell(0, WARM + 10)
    bench.stage.do_work()
    assert bench.rows.heads.tolist() == [head, 0] and bench.count("rows") == head
    assert bench.given() == [(0, head, head)]
    assert bench.count("dispatched") == 1 and bench.count("offered") == bench.count("skipped") + 1


def test_a_symbol_without_a_whole_warm_window_is_not_sent():
    bench = Bench()
    bench.greet()
    bench.stage.do_work()
    bench.ring_bell(0, WARM - 1)
    bench.stage.do_work()
    assert bench.given() == [] and bench.count("offered") == 0
    head = bench.ring_bell(0, 1)
    bench.stage.do_work()
    assert bench.given() == [(0, head, head)]


def test_no_row_of_an_invalid_book_is_sent_nor_one_that_waited_for_a_worker():
    bench = Bench()
    bench.greet()
    bench.ring_bell(0, WARM)
    bench.stage.do_work()
    bench.given()
    bench.ring_bell(0, 3)
    bench.stage.do_work()  # the only worker is busy: a row waits
    assert bench.count("waiting") == 1
    bench.ring_bell(0, 1, flags=0)
    bench.stage.do_work()
    assert bench.count("waiting") == 0
    bench.greet(lease=bench.lease)
    bench.stage.do_work()
    assert bench.given() == []


def test_a_lost_doorbell_is_made_good_by_the_idle_turn():
    bench = Bench()
    bench.greet()
    bench.stage.do_work()
    head = write_ticks(bench.books, 1, WARM)
    bench.clock.set(bench.clock.now_ns + 10_000_000)
    bench.stage.do_work()
    assert bench.given() == [(1, head, head)]


def test_every_row_is_given_out_in_order_in_every_mode():
    bench = Bench("every", max_batch=4)
    bench.greet()
    bench.stage.do_work()
    head = bench.ring_bell(0, WARM + 9)
    seen = []
    for _ in range(3):
        bench.stage.do_work()
        seen += [seq for _, first, last in bench.given() for seq in range(first, last + 1)]
        bench.greet(lease=bench.lease)
    assert seen == list(range(head - 9, head + 1)) and bench.count("skipped") == 0


def test_a_worker_that_falls_silent_loses_its_row_to_another():
    bench = Bench()
    bench.greet(0)
    bench.stage.do_work()
    head = bench.ring_bell(0, WARM)
    bench.stage.do_work()
    assert bench.given(0) == [(0, head, head)]
    bench.greet(1)
    bench.stage.do_work()
    assert bench.given(1) == []
    bench.clock.set(bench.clock.now_ns + 200_000_000)
    bench.stage.do_work()
    assert bench.given(1) == [(0, head, head)] and bench.count("leases_expired") == 1


def test_a_worker_that_starts_again_gets_a_new_link():
    bench = Bench()
    bench.greet(0, incarnation=1)
    bench.ring_bell(0, WARM)
    bench.stage.do_work()
    first = bench.work.pop(0)
    bench.greet(0, incarnation=2)
    bench.stage.do_work()
    assert bench.work[0] is not first and len(bench.work[0]) == 1 and bench.count("lost") == 1


def test_a_worker_whose_link_is_not_up_yet_is_asked_again_when_it_greets():
    bench = Bench()
    bench.work[0] = LocalLink(capacity=0)
    bench.greet()
    head = bench.ring_bell(0, WARM)
    bench.stage.do_work()
    assert bench.count("send_refused") == 1 and bench.count("waiting") == 1
    bench.work[0]._capacity = None
    bench.greet()
    bench.stage.do_work()
    assert bench.given() == [(0, head, head)]


def test_a_stage_that_was_killed_goes_on_where_it_was_with_the_same_bits():
    bench, undisturbed = Bench(), Bench()
    for each in (bench, undisturbed):
        each.ring_bell(0, WARM + 20)
        each.stage.do_work()
    bench.stage = bench.make()  # as if the process had been killed and started again
    for each in (bench, undisturbed):
        head = each.ring_bell(0, 50)
        each.stage.do_work()
    window, expected = (each.rows.window(0, head, 60) for each in (bench, undisturbed))
    assert np.array_equal(window.view(np.uint32), expected.view(np.uint32))


def test_a_message_of_another_kind_is_counted():
    bench = Bench()
    bench.inbox.send(encode([Work(0, 1, 1, 1, 1, 1)]))
    bench.inbox.send(b"")
    bench.stage.do_work()
    assert bench.telemetry.get("malformed") == 2


def test_one_doorbell_of_several_does_the_work():
    bench = Bench()
    for _ in range(5):
        bench.ring_bell(0, 2)
    bench.stage.do_work()
    assert bench.count("rows") == 10 and bench.count("refs") == 5


def test_a_stream_that_begins_anew_is_followed(instance):
    """Ingest ends in order and starts again: its ring is another, and so is ours; with real blocks."""
    config = Config(instance=Instance(name=instance))
    clock, inbox = ManualClock(1), LocalLink()
    books = Books.create(instance, ("A",), 1024)
    stage = Feature(config, clock, Telemetry.private("feature", COUNTERS, TIMERS), inbox, lambda worker: LocalLink(),
                    DEFAULT)
    assert stage.on_start()
    write_ticks(books, 0, 5)
    inbox.send(encode([TickRef(0, books.tag, 5, 0, 0)]))
    stage.do_work()
    old = Rows.attach(instance, TABLE_HASH)
    books.close()
    clock.set(10_000_000)
    stage.do_work()  # nothing to attach to yet
    books = Books.create(instance, ("A",), 1024)
    write_ticks(books, 0, 3)
    clock.set(20_000_000)
    stage.do_work()
    assert stage.rows.heads.tolist() == [3] and stage.rows.epoch == books.epoch != old.epoch and old.retired
    stage.on_close()
    books.close()


def test_a_ref_to_another_stream_is_counted_and_not_followed():
    bench = Bench()
    bench.inbox.send(encode([TickRef(0, bench.books.tag ^ 1, 999, 0, 0)]))
    bench.stage.do_work()
    assert bench.count("stale_refs") == 1 and bench.count("rows") == 0


@pytest.mark.parametrize("dispatch", ["newest", "every"])
def test_all_rows_are_accounted_for_under_overload(dispatch):
    bench = Bench(dispatch, max_batch=3)
    bench.greet()
    for burst in range(40):
        bench.ring_bell(burst % 2, 150)
        bench.stage.do_work()
        if burst % 3 == 0 and bench.given():
            bench.greet(lease=bench.lease)
    bench.stage.do_work()
    assert bench.count("offered") == bench.count("dispatched") + bench.count("skipped") + bench.count("waiting")
    assert bench.count("dispatched") == bench.count("done") + bench.count("lost") + bench.count("under_lease")
    assert bench.count("skipped") > 0


def test_a_worker_whose_model_changes_says_so_with_its_credit():
    bench = Bench()
    bench.greet()
    bench.ring_bell(0, WARM)
    bench.stage.do_work()
    assert bench.given() == [(0, WARM, WARM)]
    bench.inbox.send(encode([Credit(0, 1, bench.lease, 1, 0, WINDOW + 3)]))  # a longer window
    bench.stage.do_work()
    bench.ring_bell(0, 2)
    bench.stage.do_work()
    assert bench.given() == []
    head = bench.ring_bell(0, 1)
    bench.stage.do_work()
    assert bench.given() == [(0, head, head)]


# A live stage: other columns for a model that is deployed, and a memory that outlives it.

class Live:
    """A stage on real blocks, that follows what is deployed."""

    def __init__(self, instance: str, folder: Path) -> None:
        self.folder, self.clock, self.inbox, self.work = folder, ManualClock(1), LocalLink(), LocalLink()
        (folder / "state").mkdir()
        self.path = make_model(folder / "a.onnx", ("obi_1", "spread"))
        self.config = Config(instance=Instance(name=instance, state_dir="state"), base=str(folder),
                             inference=Inference(model="a.onnx"), ring=Ring(1024, 1024))
        self.books = Books.create(instance, ("A", "B"), 1024)
        self.telemetry = Telemetry.private("feature", COUNTERS, TIMERS)
        self.stage = self.make()

    def make(self, columns: FeatureSet | None = None) -> Feature:
        columns = columns or features_wanted(self.config, deployment.in_force(self.config).paths)
        stage = Feature(self.config, self.clock, self.telemetry, self.inbox, lambda worker: self.work, columns,
                        live=True)
        assert stage.on_start()
        return stage

    def tick(self, count: int) -> None:
        for symbol in (0, 1):
            head = write_ticks(self.books, symbol, count)
            for seq in range(head - count + 1, head + 1):  # 25 a second
                self.books.ticks[symbol][seq & 1023][layout.EVENT_NS] = 1_700_000_000_000_000_000 + seq * 40_000_000
            self.inbox.send(encode([TickRef(symbol, self.books.tag, head, 0, 0)]))
        self.stage.do_work()

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.clock.set(self.clock.now_ns + 5_000_000)
            self.stage.do_work()

    def deploy(self, *names: str) -> None:
        pair = Pair(Ref(str(make_model(self.folder / "b.onnx", names, window=20)), "12"), None)
        mine = deployment.configured(self.config)
        deployment.write(self.config.state_dir, deployment.Deployment(1, mine, mine, None, pair))

    def said(self) -> dict:
        return self.telemetry.told()["deployment"]

    def close(self) -> None:
        self.stage.on_close()
        self.books.close()


@pytest.fixture
def live(instance, tmp_path):
    found = Live(instance, tmp_path)
    yield found
    found.close()


def reference(books: Books, names: tuple[str, ...]) -> Rows:
    """The rows of all ticks, computed at once."""
    features = FeatureSet.of(names)
    rows = Rows.private(books.symbols, features.labels, 1024, books.epoch)
    writer = Features(books, rows, features)
    for symbol, head in enumerate(books.heads.tolist()):
        writer.advance(symbol, head, 1)
    return rows


def same(rows: Rows, names: tuple[str, ...], other: Rows, symbol: int, seq: int, length: int) -> bool:
    places = FeatureSet.of(names).places(rows.columns)
    window = rows.window(symbol, seq, length)[:, places]
    return window.tobytes() == other.window(symbol, seq, length).tobytes()


def test_columns_for_a_deployed_model_come_without_a_row_missed(live, instance):
    live.tick(600)
    old = Rows.attach(instance, TABLE_HASH)
    wide = ("vol_100", "obi_1", "return_50")
    live.deploy(*wide)
    live.turns(60)
    rows = Rows.attach(instance, TABLE_HASH)
    assert old.retired and not rows.retired and rows.columns == (*wide, "spread")  # the new ones side by side
    assert rows.heads.tolist() == live.stage.rows.heads.tolist() == [600, 600] and rows.epoch == live.books.epoch
    live.tick(5)
    assert rows.heads.tolist() == [605, 605] and live.telemetry.get("rings") == 1 and live.said()["state"] == "carried"
    for names in (wide, ("obi_1", "spread")):
        truth = reference(live.books, names)
        for symbol in (0, 1):
            assert all(same(rows, names, truth, symbol, seq, 20) for seq in (500, 600, 603, 605))
    assert old.holds(0, 600) and old.window(0, 600, 1).tobytes() == reference(
        live.books, ("obi_1", "spread")).window(0, 600, 1).tobytes()  # who still reads the old one reads what was there
    live.stage.count()
    assert live.telemetry.get("rows") == 2 * 605 and live.telemetry.get("lapped") == 0


def test_the_rows_in_use_stay_until_the_new_ones_are_as_warm(live, instance):
    """z-scores look back 70 s: 1,750 of these ticks, more than the books ring holds."""
    live.tick(800)
    rows = Rows.attach(instance, TABLE_HASH)
    live.deploy(*LEVELS_Z[:4])
    live.turns(20)
    for _ in range(5):
        live.turns(3)
        live.tick(180)
        assert not rows.retired and live.said()["state"] == "warming"
    assert rows.heads.tolist() == [1700, 1700]
    live.tick(90)
    live.turns(25)
    assert rows.retired and live.said()["state"] == "carried"
    rows = Rows.attach(instance, TABLE_HASH)
    assert rows.heads.tolist() == [1790, 1790] and rows.meta[0][1790 & 1023, layout.ROW_RUN] >= 20
    assert live.telemetry.get("lapped") == 0


def test_what_is_carried_already_makes_no_ring_and_what_is_given_up_none_either(live, instance):
    live.tick(300)
    rows = Rows.attach(instance, TABLE_HASH)
    live.deploy("spread")
    live.turns(60)
    assert not rows.retired and live.said()["state"] == "carried"
    live.deploy(*LEVELS_Z[:4])
    live.turns(30)
    mine = deployment.configured(live.config)
    deployment.write(live.config.state_dir, deployment.Deployment(2, mine, mine))
    live.turns(30)
    assert not rows.retired and live.said() == {"number": 2, "state": "carried", "why": ""}
    gone = Pair(Ref(str(live.folder / "gone.onnx"), "12"), None)
    deployment.write(live.config.state_dir, deployment.Deployment(3, mine, mine, None, gone))
    live.turns(30)
    assert not rows.retired and live.said()["state"] == "failed" and "gone.onnx" in live.said()["why"]


def test_without_room_for_another_ring_the_rows_stay_as_they_are(live, instance, monkeypatch):
    live.tick(400)
    create, refused = Rows.create, []

    def full(name, symbols, columns, *more):
        if len(columns) > 2:
            refused.append(columns)
            raise ResourceError("not enough shared memory")
        return create(name, symbols, columns, *more)

    monkeypatch.setattr(Rows, "create", full)
    live.deploy("vol_100")
    live.turns(60)
    assert refused and live.said()["state"] == "failed" and "shared memory" in live.said()["why"]
    live.tick(7)
    rows = Rows.attach(instance, TABLE_HASH)
    truth = reference(live.books, ("obi_1", "spread"))
    assert rows.columns == ("obi_1", "spread") and rows.heads.tolist() == [407, 407]
    assert same(rows, rows.columns, truth, 0, 407, 300) and same(rows, rows.columns, truth, 1, 407, 300)


def test_a_memory_longer_than_the_ring_survives_a_kill(live, instance):
    """The z-scores go on, and with them ROW_RUN, as if the process had not ended."""
    columns = FeatureSet.of(LEVELS_Z[:4])
    live.stage.on_close()
    live.stage = live.make(columns)
    for _ in range(9):
        live.tick(200)
        live.turns(20)
    before = int(live.stage.rows.meta[0][live.books.heads[0] & 1023, layout.ROW_RUN])
    assert before > 0
    for block in (live.stage.rows.block, live.stage._checkpoints._block):
        os.close(block._lock_fd)  # what `kill -9` does: the blocks stay, nobody holds them
    live.stage = live.make(columns)
    live.tick(10)
    assert live.stage.rows.meta[0][live.books.heads[0] & 1023, layout.ROW_RUN] == before + 10
