"""Dispatch: work-conserving, newest wins, every row accounted for, whatever workers do."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from common.dispatch import Dispatcher, Item

LEASE = 100


def newest(**more) -> Dispatcher:
    return Dispatcher(False, LEASE, 8, **more)


def every(max_batch: int = 8) -> Dispatcher:
    return Dispatcher(True, LEASE, max_batch)


def test_an_idle_worker_is_given_the_newest_row_at_once():
    dispatcher = newest()
    dispatcher.credit(0, 1, 0)
    dispatcher.offer(5, 1, 3)
    assert dispatcher.next(0).items == [Item(5, 3, 3)]
    assert (dispatcher.skipped, dispatcher.dispatched, dispatcher.idle) == (2, 1, 0)


def test_superseded_rows_are_skipped_and_counted_while_workers_are_busy():
    dispatcher = newest()
    for seq in range(1, 11):
        dispatcher.offer(0, seq, seq)
    dispatcher.credit(0, 1, 0)
    assert dispatcher.next(0).items == [Item(0, 10, 10)] and dispatcher.skipped == 9


def test_the_symbol_that_has_waited_longest_goes_first_and_keeps_its_place_when_it_is_renewed():
    dispatcher = Dispatcher(False, LEASE, 1)
    dispatcher.offer(1, 1, 1)
    dispatcher.offer(2, 1, 1)
    dispatcher.offer(1, 2, 2)
    dispatcher.credit(0, 1, 0)
    dispatcher.credit(1, 1, 0)
    assert [dispatcher.next(0).items[0] for _ in range(2)] == [Item(1, 2, 2), Item(2, 1, 1)]


def test_a_worker_that_lets_its_lease_run_out_loses_its_rows_to_another():
    dispatcher = newest()
    dispatcher.credit(0, 1, 0)
    dispatcher.offer(7, 4, 4)
    dispatcher.next(0)
    dispatcher.credit(1, 1, 0)
    assert dispatcher.expire(LEASE - 1) == [] and dispatcher.expire(LEASE) == [0]
    again = dispatcher.next(LEASE)
    assert (again.worker, again.items, dispatcher.lost) == (1, [Item(7, 4, 4)], 1)


def test_a_lost_row_is_not_offered_again_when_a_newer_one_waits():
    dispatcher = newest()
    dispatcher.credit(0, 1, 0)
    dispatcher.offer(7, 4, 4)
    dispatcher.next(0)
    dispatcher.offer(7, 5, 5)
    dispatcher.expire(LEASE)
    dispatcher.credit(1, 1, 0)
    assert dispatcher.next(LEASE).items == [Item(7, 5, 5)]


def test_a_lost_row_does_not_come_back_after_newer_ones_were_given_out():
    dispatcher = newest()
    dispatcher.credit(0, 1, 0)
    dispatcher.offer(7, 4, 4)
    dispatcher.next(0)
    dispatcher.credit(1, 1, 0)
    dispatcher.offer(7, 9, 9)
    done = dispatcher.next(50).lease
    dispatcher.credit(1, 1, done)
    dispatcher.expire(LEASE)
    assert dispatcher.next(LEASE) is None and dispatcher.lost == 1


def test_two_lost_runs_of_a_symbol_both_come_back():
    dispatcher = every(max_batch=4)
    dispatcher.offer(0, 1, 8)
    for worker in (0, 1):
        dispatcher.credit(worker, 1, 0)
        dispatcher.next(0)
    dispatcher.expire(LEASE)
    assert dispatcher.waiting == 8 and dispatcher.lost == 8


def test_a_worker_that_comes_back_as_another_process_frees_what_it_held():
    dispatcher = newest()
    dispatcher.credit(0, 1, 0)
    dispatcher.offer(7, 4, 4)
    dispatcher.next(0)
    assert dispatcher.credit(0, 2, 0)
    assert dispatcher.next(0).items == [Item(7, 4, 4)] and dispatcher.lost == 1


def test_a_greeting_that_crosses_with_work_gives_no_second_credit():
    dispatcher = newest()
    dispatcher.credit(0, 1, 0)
    dispatcher.offer(7, 4, 4)
    lease = dispatcher.next(0).lease
    dispatcher.offer(7, 5, 5)
    assert not dispatcher.credit(0, 1, 0) and dispatcher.next(0) is None
    dispatcher.credit(0, 1, lease)
    assert dispatcher.next(0).items == [Item(7, 5, 5)] and dispatcher.done == 1


def test_every_row_is_given_out_once_in_runs_no_longer_than_a_batch():
    dispatcher = every(max_batch=4)
    dispatcher.offer(0, 1, 10)
    given, lease = [], 0
    for _ in range(3):
        dispatcher.credit(0, 1, lease)
        assignment = dispatcher.next(0)
        lease = assignment.lease
        given += [seq for item in assignment.items for seq in range(item.first, item.last + 1)]
    assert given == list(range(1, 11)) and dispatcher.skipped == 0


def test_a_message_that_could_not_be_sent_leaves_everything_as_it_was_but_the_worker():
    dispatcher = every()
    dispatcher.credit(0, 1, 0)
    dispatcher.offer(0, 1, 3)
    dispatcher.refuse(dispatcher.next(0).worker)
    assert (dispatcher.waiting, dispatcher.dispatched, dispatcher.idle) == (3, 0, 0)
    dispatcher.credit(0, 1, 0)
    assert dispatcher.next(0).items == [Item(0, 1, 3)]


def test_rows_that_left_the_ring_are_withdrawn_and_counted():
    dispatcher = every()
    dispatcher.offer(0, 1, 10)
    dispatcher.withdraw(0, 8)
    assert (dispatcher.waiting, dispatcher.skipped) == (3, 7)
    dispatcher.withdraw(0, 100)
    assert (dispatcher.waiting, dispatcher.skipped) == (0, 10)


class Accounts(RuleBasedStateMachine):
    """Whatever happens: every row offered is dispatched, skipped or waiting; every dispatched one is done, lost
    or held; nobody idles while something waits; newest mode gives out the newest only."""

    @initialize(mode=st.booleans(), batch=st.integers(1, 6))
    def begin(self, mode, batch):
        self.dispatcher = Dispatcher(mode, LEASE, batch)
        self.heads, self.now, self.held, self.births = {}, 0, {}, {}

    @rule(symbol=st.integers(0, 3), count=st.integers(1, 5))
    def rows_are_written(self, symbol, count):
        first = self.heads.get(symbol, 0) + 1
        self.heads[symbol] = first + count - 1
        self.dispatcher.offer(symbol, first, self.heads[symbol])
        self.hand_out()

    @rule(worker=st.integers(0, 2), reborn=st.booleans())
    def a_worker_greets(self, worker, reborn):
        self.births[worker] = self.births.get(worker, 1) + reborn
        if reborn:
            self.held.pop(worker, None)
        self.dispatcher.credit(worker, self.births[worker], 0)
        self.hand_out()

    @rule(worker=st.integers(0, 2))
    def a_worker_finishes(self, worker):
        if worker in self.held:
            self.dispatcher.credit(worker, self.births[worker], self.held.pop(worker))
            self.hand_out()

    @rule(step=st.integers(1, 150))
    def time_passes(self, step):
        self.now += step
        self.dispatcher.expire(self.now)
        self.hand_out()

    @rule()
    def the_stream_begins_anew(self):
        self.dispatcher.forget()

    @rule(symbol=st.integers(0, 3), back=st.integers(0, 5))
    def rows_leave_the_ring(self, symbol, back):
        self.dispatcher.withdraw(symbol, self.heads.get(symbol, 0) - back)

    def hand_out(self):
        while (assignment := self.dispatcher.next(self.now)) is not None:
            self.held[assignment.worker] = assignment.lease
            for item in assignment.items:
                if not self.dispatcher.every:
                    assert item.first == item.last
                assert item.last <= self.heads[item.symbol]

    @invariant()
    def all_rows_are_accounted_for(self):
        if hasattr(self, "dispatcher"):
            d = self.dispatcher
            assert d.offered == d.dispatched + d.skipped + d.waiting, d
            assert d.dispatched == d.done + d.lost + d.under_lease, d
            assert not (d.idle and d.waiting), d


Accounts.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAccounts = Accounts.TestCase
