"""The feature stage: doorbells in, rows in memory, the newest row to an idle worker, nothing lost uncounted."""

import numpy as np
import pytest

from common import layout
from common.clock import ManualClock
from common.config import Config, Instance
from common.config import Feature as Settings
from common.feature_set import DEFAULT
from common.features import TABLE_HASH
from common.links import LocalLink
from common.ring import Books, Rows
from common.telemetry import Telemetry
from common.wire import Credit, TickRef, Work, decode, encode
from procs.feature import COUNTERS, TIMERS, Feature
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
