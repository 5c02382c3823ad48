"""The executor with a real journal, against a paper book and against a venue over HTTP that misbehaves on cue.

The clock is manual, so ages, cooldowns and patience are exact; sockets and the database are real."""

import dataclasses
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from common import decision, killswitch, layout, shm
from common.clock import ManualClock
from common.config import Config, Decision, Inference, Instance, Market, Risk
from common.config import Executor as ExecutorSettings
from common.decide import ALL_REASONS, Rules
from common.explain import context as explain_context
from common.fixed import SCALE, text
from common.gateways import Filled, Throttled, create
from common.journal import Journal, Reader
from common.links import LocalLink, Network
from common.orders import BUY, SELL, Order, State
from common.positions import Position
from common.ring import Books
from common.telemetry import Telemetry
from common.wire import CLOCK, Prediction, TickRef, encode
from procs.executor import COUNTERS, NOTES, TIMERS, Executor
from tests.standin import StandIn
from tests.waiting import until

SYMBOLS = ("BTC-USD", "AAPL")
MS = 1_000_000
S = 1_000_000_000


class Desk:
    """One executor and all around it. `begin` again is a restart: journal and venue stay, memory does not."""

    def __init__(self, folder: Path, venue: StandIn | None = None, environ=None, wrap=None, tap=None,
                 **settings) -> None:
        risk = settings.pop("risk", Risk(symbol_cooldown_ms=0.0))
        made = {name: settings.pop(name) for name in ("decision", "inference") if name in settings}
        self.config = Config(
            **made, risk=risk, market=Market(symbols=SYMBOLS, **settings),
            executor=ExecutorSettings(gateway="vectrade" if venue else "paper",
                                      base_url=venue.url if venue else "http://127.0.0.1:1", timeout_s=2.0))
        self.folder, self.venue, self.environ, self.wrap, self.tap = folder, venue, environ or {}, wrap, tap
        self.clock = ManualClock(1_700_000_000 * S)
        self.books = Books.private(SYMBOLS, 1024)
        self.seq = [0, 0]
        self.executor: Executor | None = None
        for symbol in range(len(SYMBOLS)):
            self.show(symbol)
        self.begin()

    def begin(self) -> None:
        self.inbox = LocalLink()
        self.telemetry = Telemetry.private("executor", COUNTERS, TIMERS, NOTES)
        journal = Journal.open(self.folder / "journal.db")
        gateway = create(self.config, self.clock, self.environ)
        if self.wrap:
            journal, gateway = self.wrap(journal), self.wrap(gateway)
        self.executor = Executor(self.config, self.clock, self.telemetry, self.inbox, gateway, journal,
                                 lambda: self.books, self.folder, self.tap)
        assert self.executor.on_start()

    def abandon(self) -> None:
        """What a `kill -9` leaves behind: no last words, the connection and the lock are gone."""
        executor, self.executor = self.executor, None
        executor.gateway.close()
        executor.journal.close()

    def close(self) -> None:
        if self.executor is not None:
            self.executor.on_close()

    def show(self, symbol: int = 0, bid: int = 9_999, ask: int = 10_001, qty: int = 100, flags: int = 1) -> None:
        """A tick; prices in cents."""
        head = int(self.books.heads[symbol]) + 1
        tick = self.books.ticks[symbol][head % 1024]
        tick[:] = 0
        tick[layout.FLAGS], tick[layout.RECV_NS] = flags, self.clock.now_ns
        tick[layout.BID_PX], tick[layout.ASK_PX] = bid * SCALE // 100, ask * SCALE // 100
        tick[[layout.BID_QTY, layout.ASK_QTY]] = qty * SCALE
        tick[layout.SEQ] = self.books.heads[symbol] = head

    def prediction(self, p_up: float = 0.9, symbol: int = 0, **changes) -> Prediction:
        self.seq[symbol] += 1
        now = self.clock.now_ns
        return Prediction(symbol, 0, self.books.tag, self.seq[symbol], 0, 1, 0, 5, p_up, 1 - p_up, 1.0, 1, 2,
                          now - 600, now - 500, now - 400, now - 300, now - 200, now - 100)._replace(**changes)

    def predict(self, p_up: float = 0.9, symbol: int = 0, **changes) -> None:
        self.inbox.send(encode([self.prediction(p_up, symbol, **changes)]))
        self.executor.do_work()

    def wait(self, ms: float = 1.0) -> None:
        self.clock.set(self.clock.now_ns + int(ms * MS))
        self.executor.do_work()

    def until(self, condition, seconds: float = 20.0) -> None:
        """Work until the condition holds. The clock stands still while a socket is waited for, so that no
        patience runs out because the machine is slow; it moves by leaps when nothing is under way."""
        end = time.monotonic() + seconds
        while True:
            fd = self.executor.gateway.fileno() if self.executor.gateway.busy else -1
            if fd >= 0:
                select.select([fd], [fd] if self.executor.gateway.wants_write else [], [], 0.01)
            self.wait(20 if fd < 0 else 0)
            if condition():
                return
            assert time.monotonic() < end, "the condition did not come true"

    def ready(self) -> "Desk":
        self.until(lambda: self.get("reconciled"))
        self.show(0)
        self.show(1)
        return self

    def settle(self) -> None:
        """Until no order is unfinished and the journal knows it."""
        self.until(lambda: not self.executor.ledger.orders and not self.executor.gateway.busy
                   and not self.executor.ledger.entries)

    def get(self, counter: str) -> int:
        return self.telemetry.get(counter)

    def refused(self) -> dict[str, int]:
        return {name[8:].upper(): n for name, n in self.telemetry.values().items()
                if name.startswith("refusal_") and n}

    def held(self, symbol: str = "BTC-USD") -> int:
        found = self.executor.ledger.positions.get(symbol)
        return found.qty if found else 0


@pytest.fixture
def desk(tmp_path):
    made = []

    def make(*arguments, **settings) -> Desk:
        made.append(Desk(tmp_path, *arguments, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def venue():
    venue = StandIn()
    yield venue
    venue.release()
    venue.close()


# ---- decisions

def test_nothing_trades_before_the_venue_was_asked(desk):
    d = desk()
    d.predict()
    assert d.refused() == {"STATE_RECONCILING": 1} and d.get("orders") == 0
    d.ready().predict()
    assert d.get("orders") == 1


def test_every_prediction_that_is_taken_up_is_a_decision_with_its_waterfall(desk):
    d = desk().ready()
    for p_up in (0.9, 0.5, 0.1):
        d.predict(p_up)
        d.wait(2)
    assert (d.get("predictions"), d.get("decisions"), d.get("refusals"), d.get("orders")) == (3, 3, 1, 2)
    assert d.refused() == {"SIGNAL_WEAK": 1}
    d.wait(25)  # latencies are written down a few times a second
    counts = {timer: d.telemetry.quantiles(timer)["count"] for timer in TIMERS}
    assert counts == {**dict.fromkeys(TIMERS, 3), "send": 2, "ack": 2, "tick_to_order": 2}
    assert d.telemetry.quantiles("tick_to_decision")["p50"] in range(580, 620)
    assert d.telemetry.quantiles("ack")["p50"] in range(1_950_000, 2_050_000)


def test_the_last_refusals_are_kept_with_value_and_limit(desk):
    d = desk().ready()
    for n in range(NOTES + 5):
        d.predict(0.5 + n / 10_000)
    d.predict(symbol=1, recv_ns=d.clock.now_ns - 251 * MS)
    at = d.clock.now_ns
    assert d.telemetry.notes() == []
    d.wait(25)  # they are written down a few times a second
    *before, last = d.telemetry.notes()
    assert last == (at, 1, "refusal_age_data", 251 * MS, 250 * MS)
    assert [round(note.value * 10_000) for note in before] == list(range(6, NOTES + 5))
    assert {(note.symbol, note.counter, note.limit) for note in before} == {(0, "refusal_signal_weak", 0.03)}


def test_of_several_predictions_of_a_symbol_only_the_newest_counts(desk):
    d = desk().ready()
    old, new = d.prediction(0.1), d.prediction(0.9)
    d.inbox.send(encode([old, new]))
    d.inbox.send(encode([old]))
    d.inbox.send(encode([d.prediction(0.9, symbol=1)]))
    d.executor.do_work()
    assert (d.get("predictions"), d.get("superseded"), d.get("decisions")) == (4, 2, 2)
    assert {w.order.seq for w in d.executor.ledger.orders.values()} == {2, 1}
    d.inbox.send(encode([old]))
    d.executor.do_work()
    assert d.refused() == {"SEQUENCE_STALE": 1}


def test_a_start_is_no_way_around_the_limits_of_orders_in_a_time(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_orders_per_s=2.0)).ready()
    for _ in range(2):
        d.predict()
        d.settle()
    assert d.get("orders") == 2
    d.abandon()
    d.begin()
    d.ready().predict()
    assert d.refused() == {"RATE_ORDERS": 1}
    d.wait(1000)
    d.show()
    d.predict()
    assert d.get("orders") == 1


def test_an_order_becomes_a_fill_a_position_and_a_profit(desk):
    d = desk().ready()
    d.predict(0.9)
    d.settle()
    assert d.held() == 39_996 * SCALE // 1000 and d.get("fills") == d.get("acks") == 1
    d.show(0, 10_099, 10_101)
    d.wait(200)
    assert d.get("unrealised") == d.held() * 99 // 100 and d.get("realised") == 0 and d.get("fees") > 0
    assert d.get("position") == d.held() * 10_001 // 10_000 * 100 or d.get("position") > 0
    reader = Reader(d.folder / "journal.db")
    [order] = reader.orders()
    assert (order["state"], order["side"], order["qty"]) == ("filled", "BUY", d.held())
    assert [row["state"] for row in reader.history(order["client_id"])] == ["sent", "acknowledged", "filled"]
    context = explain_context.decode(order["context"])
    assert context["prediction"]["p_up"] == 0.9 and context["market"]["ask"] == 10_001 * SCALE // 100
    reader.close()


def test_a_message_that_is_nonsense_is_counted_and_costs_nothing_else(desk):
    d = desk().ready()
    for message in (b"", b"\xff" * 40, encode([TickRef(0, 1, 1, 1, 1)])):
        d.inbox.send(message)
    d.inbox.send(encode([d.prediction(0.5, symbol=1)._replace(symbol=7)]))
    d.predict(0.9)
    assert d.get("errors") == 4 and d.get("orders") == 1


def test_a_prediction_on_another_stream_or_on_old_data_is_refused(desk):
    d = desk().ready()
    d.predict(epoch=d.books.tag + 1)
    d.predict(recv_ns=d.clock.now_ns - 251 * MS)
    d.predict(p_up=float("nan"))
    assert d.refused() == {"SEQUENCE_EPOCH": 1, "AGE_DATA": 1, "SIGNAL_INVALID": 1}


def test_an_invalid_book_and_a_stale_one_are_refused(desk):
    d = desk().ready()
    d.show(0, flags=0)
    d.predict()
    d.show(0)
    d.clock.set(d.clock.now_ns + 5001 * MS)
    d.predict()
    assert d.refused() == {"BOOK_INVALID": 1, "BOOK_STALE": 1}


def test_rate_cooldown_and_position_limits_hold_in_motion(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=100.0, max_orders_per_s=2.0, max_position_notional=6_000.0)).ready()
    d.predict()
    d.predict()
    d.wait(101)
    d.predict()
    assert d.refused() == {"RATE_SYMBOL": 1, "NOTIONAL_POSITION": 1} and d.get("orders") == 1
    d.predict(symbol=1)
    d.wait(101)
    d.predict(0.1, symbol=1)
    assert d.refused()["RATE_ORDERS"] == 1 and d.get("orders") == 2


def test_every_reason_has_a_counter():
    assert {f"refusal_{reason.lower()}" for reason in ALL_REASONS} <= set(COUNTERS)


def test_a_new_ring_is_followed_as_soon_as_the_old_one_is_retired(desk):
    d = desk().ready()
    d.predict()
    d.settle()

    class Retired(Books):
        retired = True

    d.executor.books.__class__ = Retired
    d.books = Books(SYMBOLS, 1024, d.books.epoch + 1, None)
    d.seq = [0, 0]
    d.show(0)
    d.predict()
    assert d.get("orders") == 2 and d.refused() == {}
    d.settle()
    assert d.held() == 2 * 39_996 * SCALE // 1000


def test_the_same_input_gives_the_same_journal_byte_for_byte(tmp_path):
    def play(folder: Path) -> list:
        folder.mkdir()
        d = Desk(folder)
        d.books.epoch = 5
        d.executor._attach(d.books)
        d.ready()
        for n in range(40):
            d.show(n % 2, 9_990 + n, 10_010 - n % 7)
            d.predict(0.9 if n % 3 else 0.2, symbol=n % 2)
            d.wait(3)
        d.close()
        reader = Reader(folder / "journal.db")
        rows = reader.orders(), reader.fills()
        reader.close()
        return rows

    one, two = play(tmp_path / "one"), play(tmp_path / "two")
    assert one == two and len(one[0]) > 10 and one[1]


# ---- the kill switch

def test_a_halt_stops_new_orders_and_a_resume_compares_again(desk):
    d = desk().ready()
    killswitch.halt(d.folder, "lunch", who="me")
    d.predict()
    assert d.refused() == {"STATE_HALTED": 1} and d.get("halted") == 1, "seen before the order, not a turn later"
    assert d.telemetry.told()["state"] == "HALTED" and "lunch" in d.telemetry.told()["why"]
    killswitch.resume(d.folder)
    d.wait(20)
    assert (d.get("halted"), d.telemetry.told()["state"]) == (0, "RECONCILING")
    d.ready().predict()
    assert d.get("orders") == 1


def test_a_halt_outlives_a_restart(desk):
    d = desk().ready()
    killswitch.halt(d.folder, "stay down")
    d.abandon()
    d.begin()
    d.until(lambda: d.get("reconciled"))
    d.predict()
    assert d.get("halted") == 1 and d.refused() == {"STATE_HALTED": 1}


@pytest.mark.parametrize("stop", [lambda folder: killswitch.halt(folder, "enough"),
                                  lambda folder: killswitch.reduce(folder, "home")])
def test_an_order_that_waits_behind_a_slow_answer_does_not_leave_once_it_is_halted(desk, venue, stop):
    d = desk(venue).ready()
    venue.faults.append("hang")
    d.predict()
    until(lambda: venue.submits)
    d.predict(symbol=1)
    assert d.get("orders") == 2 and len(venue.submits) == 1
    stop(d.folder)
    d.wait(25)
    assert d.get("halted") or d.get("reducing")
    venue.release()
    d.settle()
    assert len(venue.submits) == 1 and d.get("rejects") == 1 and d.get("fills") == 2


def test_a_halt_cancels_what_rests_at_the_venue(desk, venue):
    venue.share = Decimal("0.25")
    d = desk(venue)
    resting = Order("rest-0-1", "BTC-USD", BUY, SCALE, 100 * SCALE, 1, 1, time_in_force="GTC")
    d.executor.journal.intent(resting, "{}", 0)
    d.executor.gateway.submit(resting)
    until(lambda: d.executor.gateway.work())
    d.abandon()
    d.begin()
    d.ready()
    assert d.held() == SCALE // 4 and d.get("working") in (0, 1)
    assert [w.state for w in d.executor.ledger.orders.values()] == [State.PARTLY_FILLED]
    killswitch.halt(d.folder, "enough")
    d.settle()
    assert venue.orders["rest-0-1"]["status"] == "CANCELLED" and d.get("cancels") == 1


def test_an_order_that_ended_while_it_was_being_cancelled_is_found_out(desk, venue):
    venue.share = Decimal(0)
    d = desk(venue)
    resting = Order("rest-0-1", "BTC-USD", BUY, SCALE, 100 * SCALE, 1, 1, time_in_force="GTC")
    d.executor.journal.intent(resting, "{}", 0)
    d.executor.gateway.submit(resting)
    until(lambda: d.executor.gateway.work())
    d.abandon()
    d.begin()
    d.ready()
    assert [w.state for w in d.executor.ledger.orders.values()] == [State.ACKNOWLEDGED]
    venue.orders["rest-0-1"]["status"] = "CANCELLED"  # by somebody else; to cancel it again is refused
    killswitch.halt(d.folder, "enough")
    d.settle()
    assert d.get("cancels") == 1 and "DELETE" in {method for method, _ in venue.requests}


def test_a_live_venue_starts_disarmed_every_time(desk):
    d = desk(live=True)
    killswitch.arm(d.folder)
    d.until(lambda: d.get("reconciled"))
    d.show()
    d.predict()
    assert d.get("orders") == 1
    d.abandon()
    d.begin()
    d.until(lambda: d.executor.gate.reconciled)
    d.show()
    d.predict()
    assert d.refused() == {"STATE_DISARMED": 1} and d.telemetry.told()["state"] == "DISARMED"


def lose(d: Desk) -> int:
    """Something is bought, and a tenth of its price is lost; how much was held."""
    d.wait(200)
    d.predict()
    d.settle()
    held = d.held()
    d.show(0, 9_000, 9_002)
    d.wait(200)
    return held


def test_a_loss_above_the_limit_halts_and_stays_halted_over_a_resume(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_daily_loss=100.0)).ready()
    lose(d)
    assert d.get("halted") == 1 and "max_daily_loss" in killswitch.state(d.folder).why
    assert d.get("day_loss") > 100 * SCALE
    d.abandon()
    d.begin()
    killswitch.resume(d.folder)
    d.until(lambda: d.get("halted"))
    assert d.get("orders") == 0, "the day's loss is remembered by the journal"


@pytest.mark.parametrize("on_loss", ["reduce", "flatten"])
def test_a_loss_may_reduce_or_flatten_instead(desk, on_loss):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_daily_loss=100.0, on_loss=on_loss)).ready()
    held = lose(d)
    d.settle()
    found = killswitch.reduction(d.folder)
    assert "max_daily_loss" in found.why and found.who == "executor" and found.flatten == (on_loss == "flatten")
    assert d.get("halted") == 0 and d.held() == (0 if on_loss == "flatten" else held)
    if on_loss == "reduce":
        d.predict(0.9)
        assert d.refused() == {"REDUCE_ONLY": 1}
        d.predict(0.1)
        d.settle()
        assert d.held() < held, "what shrinks a position may leave"


def test_what_is_held_can_be_left_after_a_halt_for_loss(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_daily_loss=100.0)).ready()
    lose(d)
    assert d.get("halted") == 1 and d.held() > 0
    killswitch.reduce(d.folder, "home", flatten=True)
    d.wait(200)
    assert d.held() > 0, "a halt holds"
    killswitch.lift(d.folder)
    d.until(lambda: d.get("reconciled"))
    d.show(0, 9_000, 9_002)
    d.until(lambda: d.held() == 0)
    assert d.get("halted") == 0 and d.telemetry.told()["state"] == "FLATTENING"


def test_a_new_day_begins_without_loss(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_daily_loss=100.0)).ready()
    d.predict()
    d.settle()
    d.show(0, 9_900, 9_902)
    d.wait(200)
    assert 0 < d.get("day_loss") < 100 * SCALE
    d.clock.set(d.clock.now_ns + 86_400 * S)
    d.show(0, 9_900, 9_902)
    d.wait(200)
    assert d.get("day_loss") == 0


def test_a_drawdown_from_the_best_of_the_day_halts(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_drawdown=100.0)).ready()
    d.predict()
    d.settle()
    d.show(0, 10_399, 10_401)
    d.wait(200)
    assert d.get("drawdown") == 0 < d.get("unrealised")
    d.show(0, 10_199, 10_201)
    d.wait(200)
    assert d.get("halted") == 0 and 0 < d.get("drawdown") < 100 * SCALE
    d.show(0, 10_099, 10_101)
    d.wait(200)
    assert d.get("halted") == 1 and d.get("drawdown") > 100 * SCALE and d.get("day_loss") < 0, "still a profit"
    assert "drawdown" in killswitch.state(d.folder).why and "risk.max_drawdown 100" in killswitch.state(d.folder).why


def test_the_best_of_the_day_outlives_a_restart(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_drawdown=100.0)).ready()
    d.predict()
    d.settle()
    d.show(0, 10_399, 10_401)
    d.wait(200)
    assert d.get("drawdown") == 0
    d.wait(1000)
    d.wait(20)
    d.abandon()  # killed: what was best before the last second is in the journal
    d.begin()
    d.until(lambda: d.get("reconciled"))
    d.show(0, 10_199, 10_201)
    d.wait(200)
    assert d.get("halted") == 0 and 79 * SCALE < d.get("drawdown") < 81 * SCALE
    d.close()
    d.begin()
    d.until(lambda: d.get("reconciled"))
    d.show(0, 10_099, 10_101)
    d.wait(200)
    assert d.get("halted") == 1 and "drawdown" in killswitch.state(d.folder).why


def test_the_best_of_the_day_is_written_seldom_and_at_the_end(desk):
    written = []

    class Counting:
        def __init__(self, journal: Journal) -> None:
            self.journal = journal

        def __getattr__(self, name):
            return getattr(self.journal, name)

        def raise_peak(self, *arguments) -> None:
            written.append(arguments)
            self.journal.raise_peak(*arguments)

    d = desk(wrap=lambda made: Counting(made) if isinstance(made, Journal) else made).ready()
    d.predict()
    d.settle()
    for cents in range(40):  # it rises four times a second, for ten
        d.show(0, 10_099 + cents, 10_101 + cents)
        d.wait(250)
    assert 9 <= len(written) <= 11 and [peak for _, _, peak in written] == sorted({peak for _, _, peak in written})
    for _ in range(8):
        d.wait(250)
    count = len(written)
    d.show(0, 10_149, 10_151)
    d.wait(150)
    d.wait(20)
    assert len(written) == count + 1, "at once, if none was written lately"
    d.show(0, 10_199, 10_201)
    d.wait(150)
    assert len(written) == count + 1
    d.close()
    d.executor = None
    assert len(written) == count + 2 and written[-1][2] > written[-2][2]


# ---- reducing, and leaving positions

def test_while_reducing_only_what_shrinks_a_position_leaves(desk):
    d = desk().ready()
    d.predict(0.9)
    d.settle()
    held = d.held()
    killswitch.reduce(d.folder, "before the weekend", who="me")
    d.wait(20)
    assert d.telemetry.told()["state"] == "REDUCING" and d.get("reducing") == 1
    assert "before the weekend" in d.telemetry.told()["why"]
    d.predict(0.9)
    d.predict(0.1, symbol=1)
    assert d.refused() == {"REDUCE_ONLY": 2} and d.get("orders") == 1
    d.predict(0.1)
    d.settle()
    assert 0 <= d.held() < held and d.get("orders") == 2
    d.wait(20)
    d.predict(0.1)
    d.settle()
    assert d.held() == 0, "it may be left, and not be turned around"
    killswitch.resume(d.folder)
    d.wait(20)
    assert d.get("reducing") == 0 and d.telemetry.told()["state"] == "ACTIVE"
    d.predict(0.1)
    d.settle()
    assert d.held() < 0


def test_reducing_outlives_a_restart_and_cancels_what_would_grow(desk, venue):
    venue.share = Decimal(0)
    d = desk(venue)
    resting = Order("rest-0-1", "BTC-USD", BUY, SCALE, 100 * SCALE, 1, 1, time_in_force="GTC")
    d.executor.journal.intent(resting, "{}", 0)
    d.executor.gateway.submit(resting)
    until(lambda: d.executor.gateway.work())
    d.abandon()
    d.begin()
    d.ready()
    killswitch.reduce(d.folder, "enough")
    d.abandon()
    d.begin()
    d.ready()
    d.settle()
    assert d.get("reducing") == 1 and venue.orders["rest-0-1"]["status"] == "CANCELLED"


def test_flattening_takes_the_place_of_an_order_that_rests_far_away(desk, venue):
    d = desk(venue).ready()
    d.predict(p_up=1.0)
    d.settle()
    held, venue.share = d.held(), Decimal(0)
    far = Order("rest-0-1", "BTC-USD", SELL, held, 900 * SCALE, 1, 1, time_in_force="GTC")
    d.executor.journal.intent(far, "{}", 0)
    d.executor.gateway.submit(far)
    until(lambda: d.executor.gateway.work())
    d.abandon()
    d.begin()
    d.ready()
    assert held > 0 and [w.state for w in d.executor.ledger.orders.values()] == [State.ACKNOWLEDGED]
    killswitch.reduce(d.folder, "home", flatten=True)
    d.settle()
    assert venue.orders["rest-0-1"]["status"] == "CANCELLED"
    venue.share = Decimal(1)
    d.wait(300)
    d.show()
    d.predict()
    d.settle()
    assert d.held() == 0


def test_flattening_leaves_everything_by_itself(desk):
    d = desk().ready()
    for symbol, p_up in ((0, 0.9), (1, 0.1)):
        d.predict(p_up, symbol=symbol)
    d.settle()
    assert d.held() > 0 > d.held("AAPL")
    killswitch.reduce(d.folder, "home", flatten=True)
    d.wait(20)
    for symbol, p_up in ((0, 0.9), (1, 0.5)):
        d.predict(p_up, symbol=symbol)
    d.settle()
    assert d.held() == d.held("AAPL") == 0 and d.get("exit_flatten") == 2 and d.get("reducing") == 2
    d.predict(0.9)
    assert d.refused() == {"REDUCE_ONLY": 1}


@pytest.mark.parametrize("decision, reason", [
    (Decision(stop_bps=50.0), "exit_stop"), (Decision(exit_after_s=5.0), "exit_horizon"),
    (Decision(exit_on_signal=True, hold_threshold=0.01, min_hold_s=5.0), "exit_signal")])
def test_a_position_is_left_by_a_reduce_only_order(desk, decision, reason):
    d = desk(decision=decision).ready()
    d.predict(0.9)
    d.settle()
    held = d.held()
    d.predict(0.5, bid=9_999 * SCALE // 100, ask=10_001 * SCALE // 100)
    assert (d.held(), d.get("orders")) == (held, 1) and d.refused() == {"SIGNAL_WEAK": 1}
    d.clock.set(d.clock.now_ns + 5 * S)
    d.show(0, 9_899, 9_901)
    d.predict(0.505, bid=9_899 * SCALE // 100, ask=9_901 * SCALE // 100)
    [working] = d.executor.ledger.orders.values()
    assert working.order.reduce_only and (working.order.side, working.order.qty) == (-BUY, held)
    d.settle()
    assert d.held() == 0 and d.get(reason) == 1


# ---- the clock asks

@pytest.mark.parametrize("decision, reason", [
    (Decision(stop_bps=50.0), "exit_stop"), (Decision(exit_after_s=5.0), "exit_horizon"), (Decision(), "exit_flatten")])
def test_a_position_is_left_although_no_prediction_comes(desk, decision, reason):
    d = desk(decision=decision).ready()
    d.predict(0.9)
    d.predict(0.1, symbol=1)
    d.settle()
    bought, sold, orders = d.held(), d.held("AAPL"), d.get("orders")
    for _ in range(10):
        d.wait(100)
        d.show()
        d.show(1)
    assert (d.held(), d.held("AAPL"), d.get("watched"), d.get("decisions")) == (bought, sold, 0, 2), "nothing is due"
    if reason == "exit_flatten":
        killswitch.reduce(d.folder, "home", flatten=True)
    d.clock.set(d.clock.now_ns + 4 * S)
    for symbol, cents in ((0, 9_900), (1, 10_100)):
        d.show(symbol, cents - 1, cents + 1)
    d.wait(100)
    d.settle()
    assert d.held() == d.held("AAPL") == 0 and d.get(reason) == d.get("watched") == 2
    assert (d.get("orders"), d.get("decisions"), d.get("predictions"), d.get("refusals")) == (orders + 2, 4, 2, 0)
    d.wait(200)
    counts = {timer: d.telemetry.quantiles(timer)["count"] for timer in TIMERS}
    assert counts == {**dict.fromkeys(TIMERS, 2), "send": 4, "ack": 4}, "what the clock asks has no waterfall"
    reader = Reader(d.folder / "journal.db")
    last = explain_context.decode(reader.order("last")["context"])
    reader.close()
    assert last["prediction"]["worker"] == CLOCK and last["prediction"]["p_up"] == -1.0
    assert last["prediction"]["seq"] == int(d.books.heads[1])


def test_without_exits_the_clock_asks_nothing(desk):
    d = desk(decision=Decision(exit_on_signal=True, min_hold_s=1.0)).ready()
    d.predict(0.9)
    d.settle()
    d.clock.set(d.clock.now_ns + 3600 * S)
    d.show(0, 1_000, 1_001)
    d.wait(200)
    assert d.held() > 0 and (d.get("watched"), d.get("decisions")) == (0, 1)


def test_the_clock_asks_once_of_a_tick_that_became_an_order_and_again_of_one_that_did_not(desk):
    d = desk(decision=Decision(exit_after_s=1.0), risk=Risk(symbol_cooldown_ms=1500.0)).ready()
    d.predict(0.9)
    d.settle()
    d.show()
    tick = int(d.books.heads[0])
    d.wait(1200)
    d.wait(100)
    assert d.refused() == {"RATE_SYMBOL": 2} and d.get("watched") == 2
    assert d.executor.ledger.standings[0].seq < tick, "the tick is left to the models"
    d.wait(200)
    assert d.get("orders") == 2 and d.executor.ledger.standings[0].seq == tick
    d.settle()
    assert d.held() == 0 and d.executor.journal.find(f"{d.books.tag:08x}-0-{tick}")


def test_what_is_being_left_already_is_not_asked_about_again(desk, venue):
    d = desk(venue, decision=Decision(exit_after_s=1.0)).ready()
    d.predict(0.9)
    d.settle()
    venue.share = Decimal(0)
    venue.faults.append("hang")
    d.clock.set(d.clock.now_ns + S)
    d.show()
    d.wait(100)
    d.show()
    d.wait(100)
    assert d.get("watched") == 1 and d.refused() == {}
    venue.release()
    d.settle()
    venue.share = Decimal(1)
    d.show()
    d.until(lambda: d.held() == 0)
    assert d.get("watched") == 2 and d.refused() == {}


def test_a_halt_an_invalid_book_and_an_unknown_order_hold_the_clock_too(desk):
    d = desk(decision=Decision(exit_after_s=1.0)).ready()
    d.predict(0.9)
    d.settle()
    killswitch.halt(d.folder, "wait")
    d.clock.set(d.clock.now_ns + S)
    d.show()
    d.wait(100)
    assert set(d.refused()) == {"STATE_HALTED"} and d.held() > 0
    killswitch.resume(d.folder)
    d.show(flags=0)
    d.until(lambda: "BOOK_INVALID" in d.refused())
    assert d.held() > 0
    d.show()
    d.until(lambda: d.held() == 0)


def test_the_clock_speaks_of_the_model_that_trades_no_word(desk, tmp_path):
    """Neither is a model dated by it, nor does it wait for one."""
    d = desk(decision=Decision(exit_after_s=1.0)).ready()
    d.predict(0.9)
    d.settle()
    d.close()
    d = desk(decision=Decision(exit_after_s=1.0), risk=Risk(symbol_cooldown_ms=0.0, max_model_age_days=1.0)).ready()
    d.clock.set(d.clock.now_ns + 2 * S)
    d.show()
    d.wait(100)
    d.settle()
    assert d.held() == 0 and d.executor._model == -1


def test_the_age_of_a_position_begins_anew_when_it_is_turned_around(desk):
    d = desk().ready()
    d.predict(0.6)
    d.settle()
    standing = d.executor.ledger.standings[0]
    begun = standing.entered_ns
    d.wait(1000)
    d.show()
    d.predict(0.6)
    d.settle()
    assert standing.entered_ns == begun and standing.cost == 10_001 * SCALE // 100
    d.wait(1000)
    d.show()
    d.predict(0.1)
    d.settle()
    assert d.held() < 0 and standing.entered_ns > begun


def test_a_position_is_as_old_after_a_restart_as_before(desk):
    d = desk(decision=Decision(exit_after_s=5.0)).ready()
    d.predict(0.9)
    d.settle()
    entered, lives = d.executor.ledger.standings[0].entered_ns, []
    for _ in range(2):
        d.wait(1000)
        d.show()
        d.abandon()
        d.begin()
        d.ready()
        lives.append(d.executor.ledger.standings[0].entered_ns)
        assert d.held() > 0, "it is not left because it is of another life"
    assert all(abs(found - entered) < MS for found in lives)
    d.clock.set(entered + 5 * S)
    d.show()
    d.until(lambda: d.held() == 0)
    assert d.get("exit_horizon") == 1


def test_a_fill_that_is_learnt_of_after_a_restart_is_as_old_as_its_order(desk, venue):
    d = desk(venue, decision=Decision(exit_after_s=5.0)).ready()
    venue.faults.append("lost-ack")
    d.predict(0.9)
    d.abandon()
    d.clock.set(d.clock.now_ns + 2 * S)
    d.begin()
    decided = d.clock.now_ns - 2 * S
    d.ready()
    d.settle()
    assert d.held() > 0 and abs(d.executor.ledger.standings[0].entered_ns - decided) < 10 * MS


# ---- checks that need a memory

def test_so_many_orders_of_a_side_in_a_window_and_no_more(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_repeats=2, repeat_window_ms=1000.0)).ready()
    for _ in range(3):
        d.predict(0.6)
        d.settle()
    assert d.get("orders") == 2 and d.refused() == {"RATE_REPEATED": 1}
    d.predict(0.4)
    d.settle()
    assert d.get("orders") == 3, "the other side has its own"
    d.clock.set(d.clock.now_ns + 1000 * MS)
    d.show()
    d.predict(0.6)
    assert d.get("orders") == 4


def test_the_same_order_again_is_refused_for_a_while(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, duplicate_window_ms=100.0)).ready()
    d.predict(0.6)
    d.predict(0.6)
    d.predict(0.62)
    assert d.get("orders") == 2 and d.refused() == {"RATE_DUPLICATE": 1}
    d.wait(100)
    d.predict(0.62)
    assert d.get("orders") == 3


def test_so_many_orders_are_open_at_once_and_no_more(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_open_orders=1)).ready()
    d.predict()
    d.predict(symbol=1)
    assert d.get("orders") == 1 and d.refused() == {"ORDERS_OPEN": 1}
    d.settle()
    d.predict(symbol=1)
    assert d.get("orders") == 2


def test_a_venue_whose_clock_differs_too_much_is_not_traded(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_clock_skew_ms=50.0)).ready()
    d.predict(event_ns=d.clock.now_ns - 51 * MS)
    d.predict(event_ns=d.clock.now_ns + 51 * MS)
    assert d.refused() == {"CLOCK_SKEW": 2}
    d.predict(event_ns=d.clock.now_ns - 49 * MS)
    assert d.get("orders") == 1


def test_a_model_trained_too_long_ago_or_nobody_knows_when_is_not_traded(desk, tmp_path):
    told = json.loads((Path(__file__).resolve().parents[2] / "models/default.json").read_text())
    (tmp_path / "m.json").write_text(json.dumps({**told, "trained": {}}))
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_model_age_days=2.0),
             inference=Inference(model=str(tmp_path / "m.onnx"))).ready()
    d.predict(model=1)
    assert d.refused() == {"MODEL_UNDATED": 1}
    for model, trained_to in ((2, "2023-11-12T22:13:20"), (3, "2023-11-13T22:13:20")):  # now is 2023-11-14T22:13:20
        (tmp_path / "m.json").write_text(json.dumps({**told, "trained": {"to": trained_to}}))
        d.predict(model=model)
    assert d.refused() == {"MODEL_UNDATED": 1, "MODEL_EXPIRED": 1} and d.get("orders") == 1


# ---- outcomes that are not known

@pytest.mark.parametrize("fault", ["lost-ack", "500-after", "garbage", "truncated", "other", "twice"])
def test_an_order_that_was_accepted_is_found_whatever_the_answer_was(desk, venue, fault):
    d = desk(venue).ready()
    venue.faults.append(fault)
    d.predict()
    d.settle()
    assert d.held() == 39_996 * SCALE // 1000 and text(d.held()) == str(venue.quantity("BTC-USD").normalize())
    assert len(venue.submits) == 1 and d.get("unknowns") == (fault != "twice") and d.get("fills") == 2


def test_an_unknown_order_blocks_its_symbol_until_it_is_settled(desk, venue):
    d = desk(venue).ready()
    venue.faults.append("lost-ack")
    d.predict()
    d.until(lambda: d.get("unknowns"))
    d.predict()
    d.predict(symbol=1)
    assert d.refused() == {"ORDER_UNRESOLVED": 1} and d.get("orders") == 2
    d.settle()
    d.show()
    d.predict()
    d.settle()
    assert d.get("orders") == 3 and len(venue.orders) == 3


def test_an_order_that_never_arrived_is_declared_so_after_a_second_look(desk, venue):
    d = desk(venue).ready()
    venue.faults.append("500")
    d.predict()
    [working] = d.executor.ledger.orders.values()
    d.until(lambda: working.absent_ns)
    first = d.clock.now_ns
    asked = len(venue.requests)
    for _ in range(9):
        d.wait(100)
    assert working.state is State.UNKNOWN and len(venue.requests) == asked
    d.settle()
    assert d.clock.now_ns - first >= S and d.get("rejects") == 1 and d.held() == 0
    reader = Reader(d.folder / "journal.db")
    assert reader.orders()[0]["reason"] == "it never arrived"
    reader.close()


def test_an_order_that_arrives_late_is_found_by_the_second_look(desk, venue):
    d = desk(venue).ready()
    venue.faults.append("late")
    d.predict()
    [working] = d.executor.ledger.orders.values()
    d.until(lambda: working.absent_ns)
    venue.arrive()
    d.settle()
    assert working.state is State.FILLED and text(d.held()) == str(venue.quantity("BTC-USD").normalize())


def test_no_answer_in_time_is_unknown_and_then_settled(desk, venue):
    d = desk(venue).ready()
    venue.faults.append("hang")
    d.predict()
    d.until(lambda: venue.submits)
    d.wait(2001)
    assert d.get("unknowns") == 1
    d.settle()
    assert d.get("fills") == 2 and len(venue.submits) == 1


@pytest.mark.parametrize("fault", ["422", "401"])
def test_a_refusal_by_the_venue_is_the_end_of_the_order(desk, venue, fault):
    d = desk(venue).ready()
    venue.faults.append(fault)
    d.predict()
    d.settle()
    assert d.get("rejects") == 1 and d.get("unknowns") == 0 and d.held() == 0
    d.show()
    d.predict()
    assert d.refused() == {"RATE_REJECTED": 1}
    d.wait(500)
    d.show()
    d.predict()
    d.settle()
    assert d.held() > 0


def test_what_the_venue_rejects_is_tried_more_and_more_seldom_and_soon_again_once_it_takes_it(desk, venue):
    d = desk(venue).ready()
    venue.faults.extend(["422"] * 5)
    sent = []
    while len(sent) < 6:
        d.show()
        d.predict()
        if d.get("orders") > len(sent):
            sent.append(d.clock.now_ns)
            d.settle()
        d.wait(100)
    gaps = [round((later - earlier) / S, 1) for earlier, later in zip(sent, sent[1:])]
    assert all(gap >= least for gap, least in zip(gaps, (0.5, 1, 2, 4, 8))) and gaps[4] < 9 and d.held() > 0
    d.show()
    d.predict(0.2)
    assert d.get("orders") == 7


def test_a_venue_that_wants_a_pause_gets_it(desk, venue):
    d = desk(venue).ready()
    venue.faults.append("429")
    d.predict()
    d.until(lambda: d.get("rejects"))
    d.predict()
    d.wait(900)
    d.show()
    d.predict()
    assert d.refused() == {"RATE_VENUE": 2} and d.get("orders") == 1
    d.wait(200)
    d.predict()
    assert d.get("orders") == 2


def test_a_venue_that_is_down_gets_no_orders_until_it_is_back(desk, venue):
    venue.faults += ["500"] * 3
    d = desk(venue)
    d.predict()
    d.until(lambda: "positions" in d.telemetry.told().get("why", ""))
    d.ready().predict()
    d.settle()
    assert d.refused() == {"STATE_RECONCILING": 1} and len(venue.orders) == 1


def test_an_immediate_order_that_fills_in_part_ends_cancelled_with_its_fills(desk, venue):
    venue.share = Decimal("0.5")
    d = desk(venue).ready()
    d.predict()
    d.settle()
    assert (d.get("cancels"), d.get("fills")) == (1, 2) and d.held() == 19_998 * SCALE // 1000
    assert d.executor.ledger.standings[0].open_buy == 0


def test_a_venue_that_fills_more_than_was_ordered_halts(desk, venue):
    d = desk(venue).ready()
    venue.faults.append("lost-ack")
    d.predict()
    d.until(lambda: venue.orders)
    [order] = venue.orders.values()
    order["fills"].append({**order["fills"][0], "id": "one too many"})
    d.until(lambda: d.get("halted"))
    assert "exceeds" in killswitch.state(d.folder).why and d.get("errors") >= 1


@pytest.mark.parametrize("took_us, leaves", [(150, True), (201, False)])
def test_the_kill_switch_is_looked_at_again_if_the_write_took_its_time(desk, venue, took_us, leaves):
    """A halt comes while an order is written down: it holds that order, unless it was decided a moment ago."""
    class Slow:
        def __init__(self, journal: Journal) -> None:
            self.journal = journal

        def __getattr__(self, name):
            return getattr(self.journal, name)

        def intent(self, *arguments) -> None:
            self.journal.intent(*arguments)
            d.clock.set(d.clock.now_ns + took_us * 1000)
            killswitch.halt(d.folder, "stop")

    d = desk(venue, wrap=lambda made: Slow(made) if isinstance(made, Journal) else made).ready()
    d.predict()
    d.settle()
    assert d.get("orders") == 1 and (len(venue.orders) == 1) == leaves
    assert (d.get("rejects"), bool(d.get("fills"))) == (not leaves, leaves)
    d.predict()
    assert d.refused() == {"STATE_HALTED": 1} and len(venue.orders) == leaves
    reader = Reader(d.folder / "journal.db")
    assert reader.order("last")["reason"] == ("" if leaves else "STATE_HALTED came in between")
    reader.close()


# ---- reconciliation

def test_a_difference_to_the_venue_halts_and_names_both_sides(desk, venue):
    d = desk(venue).ready()
    d.predict()
    d.settle()
    d.abandon()
    venue.positions["BTC-USD"] = (Decimal("1.5"), Decimal("100"))
    d.begin()
    d.until(lambda: d.get("halted"))
    why = killswitch.state(d.folder).why
    assert "BTC-USD 39.996 in the journal, 1.5 at the venue" in why
    d.predict()
    assert d.refused() == {"STATE_HALTED": 1}
    venue.positions["BTC-USD"] = (Decimal("39.996"), Decimal("100"))
    killswitch.resume(d.folder)
    d.ready().predict()
    assert d.get("orders") == 1


def test_an_empty_journal_takes_over_what_the_venue_holds(desk, venue):
    venue.positions["AAPL"] = (Decimal("-3"), Decimal("101"))
    venue.positions["not ours"] = (Decimal("7"), Decimal("1"))
    d = desk(venue).ready()
    assert d.held("AAPL") == -3 * SCALE and d.executor.ledger.positions["AAPL"].average_price == 101 * SCALE
    assert d.executor.ledger.standings[1].position == -3 * SCALE and d.held("not ours") == 0
    d.abandon()
    d.begin()
    d.ready()
    assert d.held("AAPL") == -3 * SCALE


def test_what_was_taken_over_is_no_older_than_that(tmp_path, venue):
    venue.positions["AAPL"] = (Decimal("3"), Decimal("100"))
    d = Desk(tmp_path, venue, decision=Decision(exit_after_s=60.0)).ready()
    d.wait(1000)
    assert d.held("AAPL") == 3 * SCALE and d.get("orders") == 0
    d.wait(60_000)
    d.show(1)
    d.until(lambda: d.held("AAPL") == 0)
    assert d.get("exit_horizon") == 1
    d.close()


def test_on_a_live_venue_an_empty_journal_takes_nothing_over(desk, venue):
    venue.positions["AAPL"] = (Decimal("3"), Decimal("101"))
    d = desk(venue, live=True)
    d.until(lambda: d.get("halted"))
    why = killswitch.state(d.folder).why
    assert "the journal is empty, and the venue holds AAPL 3" in why and "alpha reconcile --adopt" in why
    assert d.held("AAPL") == 0 and d.get("reconciled") == 0
    killswitch.resume(d.folder)
    d.wait(30)
    d.until(lambda: d.get("halted"))  # nothing has changed
    del venue.positions["AAPL"]
    killswitch.resume(d.folder)
    d.until(lambda: d.get("reconciled"))


def test_positions_are_compared_now_and_then_and_trading_goes_on_meanwhile(desk, venue):
    d = desk(venue).ready()
    d.predict()
    d.settle()

    def compared() -> int:
        return sum("/portfolio" in path for _, path in venue.requests)

    for n in range(3):
        before = compared()
        d.wait(60_000)
        d.until(lambda: compared() > before and not d.executor.gateway.busy)
        assert d.get("reconciled") == 1
    venue.positions["BTC-USD"] = (Decimal("1.5"), Decimal("100"))  # somebody has sold
    d.wait(60_000)
    d.until(lambda: d.get("halted"))
    assert "BTC-USD 39.996 in the journal, 1.5 at the venue" in killswitch.state(d.folder).why


def test_a_comparison_that_an_order_came_in_between_of_says_nothing(desk, venue):
    d = desk(venue).ready()
    d.wait(60_000)
    assert d.executor.gateway.busy  # it has asked
    d.show()
    d.predict()
    d.settle()
    d.until(lambda: not d.executor.gateway.busy)
    assert d.get("reconciled") == 1 and d.get("halted") == 0 and d.get("fills") == 2


def test_somebody_elses_fill_stops_trading_until_positions_are_the_venues(desk, venue):
    d = desk(venue).ready()
    theirs = Filled("somebody-else", "1", SCALE, 100 * SCALE, 0, 0)
    d.executor._learn(theirs)
    assert d.get("reconciled") == 0 and d.telemetry.told()["state"] == "RECONCILING"
    d.predict()
    assert d.refused() == {"STATE_RECONCILING": 1}
    d.until(lambda: d.get("reconciled"))  # it was another symbol
    venue.positions["BTC-USD"] = (Decimal("1"), Decimal("100"))
    d.executor._learn(theirs)
    d.until(lambda: d.get("halted"))
    assert "BTC-USD 0 in the journal, 1 at the venue" in killswitch.state(d.folder).why


def test_a_fill_worse_than_its_limit_is_booked_and_halts(desk, venue):
    d = desk(venue).ready()
    venue.faults.append("late")
    d.predict()
    [working] = d.executor.ledger.orders.values()
    d.executor._learn(Filled(working.order.client_id, "1", SCALE, 200 * SCALE, 0, 0))
    assert "worse than the limit" in killswitch.state(d.folder).why and d.held() == SCALE
    assert d.executor.ledger.orders == {working.order.client_id: working}  # the rest of it is still waited for


def test_what_is_held_is_left_soon_although_entries_were_rejected(desk, venue):
    d = desk(venue).ready()
    d.predict()
    d.settle()
    held = d.held()
    venue.faults.extend(["422"] * 4)
    for _ in range(4):
        d.wait(9000)
        d.show()
        d.predict()
        d.settle()
    assert d.executor.ledger.standings[0].rejects == 4 and d.held() == held > 0
    killswitch.reduce(d.folder, "home", flatten=True)
    began = d.clock.now_ns
    d.show()
    d.until(lambda: d.held() == 0)
    assert d.clock.now_ns - began < 1_500 * MS  # the pause after the first rejection, and a look


def test_a_pause_that_the_venue_wants_holds_for_what_waits_already(desk, venue):
    d = desk(venue).ready()
    venue.faults += ["429"]
    d.predict()
    d.predict(0.2, symbol=1)  # waits on the same connection, unless the answer was there already
    d.until(lambda: d.get("rejects") + d.get("refusal_rate_venue") == 2)
    assert len(venue.submits) == 0 and d.telemetry.told()["barred"] == "RATE_VENUE"


def test_an_answer_about_positions_that_is_older_than_the_doubt_settles_nothing(desk, venue):
    d = desk(venue).ready()
    venue.faults.append("hang")
    d.wait(60_000)
    d.until(lambda: len(venue.requests) and not venue.faults)
    venue.positions["BTC-USD"] = (Decimal("1"), Decimal("100"))
    d.executor._learn(Filled("somebody-else", "1", SCALE, 100 * SCALE, 0, 0))
    assert d.get("reconciled") == 0
    venue.release()  # what was held before
    d.until(lambda: d.get("halted"))
    assert "BTC-USD 0 in the journal, 1 at the venue" in killswitch.state(d.folder).why


@pytest.mark.parametrize("compare_s", [0.0, 60.0])
def test_a_venue_is_not_asked_again_and_again_while_a_person_is_waited_for(desk, venue, compare_s):
    venue.positions["AAPL"] = (Decimal("3"), Decimal("101"))
    d = desk(venue, live=True)
    d.executor._config = dataclasses.replace(d.config, executor=dataclasses.replace(
        d.config.executor, compare_s=compare_s))
    d.until(lambda: d.get("halted"))
    before = len(venue.requests)
    for _ in range(100):
        d.wait(50)
    assert len(venue.requests) == before


def test_flattening_for_a_loss_goes_beyond_reducing(desk):
    d = desk(risk=Risk(symbol_cooldown_ms=0.0, max_daily_loss=100.0, on_loss="flatten")).ready()
    d.wait(200)
    d.predict()
    d.settle()
    killswitch.reduce(d.folder, "into the close")
    d.wait(50)
    d.show(0, 9_000, 9_002)
    d.wait(200)
    d.settle()
    assert killswitch.reduction(d.folder).flatten and d.held() == 0


@pytest.mark.parametrize("price", [10**11, -10**11])
def test_what_no_gauge_can_show_is_shown_as_the_most_it_can(desk, price):
    d = desk().ready()
    d.executor.ledger.positions["BTC-USD"] = Position(10**18, 10**18 * price)
    d.wait(200)
    assert abs(d.get("position")) == 2**63 - 1


def test_positions_and_sequences_survive_a_restart(desk, venue):
    d = desk(venue).ready()
    first = d.prediction()
    d.inbox.send(encode([first]))
    d.executor.do_work()
    d.settle()
    d.close()
    d.begin()
    d.ready()
    assert d.held() == 39_996 * SCALE // 1000
    d.inbox.send(encode([first]))
    d.executor.do_work()
    assert d.refused() == {"SEQUENCE_STALE": 1} and len(venue.submits) == 1


# ---- the journal fails

def test_without_room_in_the_journal_nothing_is_sent_and_no_fill_is_lost(desk, venue):
    d = desk(venue).ready()
    venue.faults.append("hang")
    d.predict()
    d.until(lambda: venue.submits)
    db = d.executor.journal._db
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    venue.release()
    d.wait(2001)
    [name] = d.executor.ledger.orders
    for _ in range(200):  # until the room in the last page is used up
        d.executor.ledger.entries.append(("advance", (name, State.UNKNOWN, 0, "x" * 200, "")))
    d.until(lambda: d.get("halted") and d.held())
    assert "journal" in killswitch.state(d.folder).why and d.executor.ledger.entries
    d.show(1)
    d.predict(symbol=1)
    assert len(venue.submits) == 1 and d.refused() == {"STATE_HALTED": 1}
    db.execute("PRAGMA max_page_count = 1000000")
    killswitch.resume(d.folder)
    d.settle()
    d.abandon()
    d.begin()
    d.ready()
    assert text(d.held()) == "39.996" and len(venue.submits) == 1


def test_an_intent_that_cannot_be_written_is_not_sent(desk, venue):
    d = desk(venue).ready()
    db = d.executor.journal._db
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    for n in range(100):
        d.show(n % 2)
        d.predict(0.9 if n % 4 < 2 else 0.1, symbol=n % 2)
        d.until(lambda: not d.executor.gateway.busy)
        if d.get("halted"):
            break
    assert d.refused().get("JOURNAL_FAILED", 0) + d.refused().get("STATE_HALTED", 0) >= 1
    assert len(venue.submits) == d.get("orders") == len(venue.orders)


def test_a_decision_that_is_in_the_journal_already_is_not_sent_again(desk, venue):
    d = desk(venue).ready()
    prediction = d.prediction()
    d.inbox.send(encode([prediction]))
    d.executor.do_work()
    d.settle()
    d.executor.ledger.standings[0].seq = 0  # memory forgets; the journal does not
    d.inbox.send(encode([prediction]))
    d.executor.do_work()
    assert d.refused() == {"ORDER_DUPLICATE": 1} and len(venue.submits) == 1


# ---- crashes

class Crash(BaseException):
    """The process ends here."""


class Steps:
    """Wraps journal and gateway so that the process ends before or after their n-th effect."""

    EFFECTS = {"intent", "advance", "fill", "batch", "submit", "work", "query", "portfolio", "adopt"}

    def __init__(self, left: int | None) -> None:
        self.left = left

    def step(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Crash

    def __call__(self, thing):
        steps = self

        class Wrapped:
            def __getattr__(self, name):
                found = getattr(thing, name)
                if name not in Steps.EFFECTS:
                    return found

                def effect(*arguments):
                    if name != "work":
                        steps.step()
                    result = found(*arguments)
                    if name != "work" or result:  # heard from the venue, told to nobody yet
                        steps.step()
                    return result
                return effect
        return Wrapped()


def session(desk: Desk, venue: StandIn, faults: list[str]) -> bool:
    """Two orders with these faults on the way. False if the process ended."""
    try:
        desk.ready()
        venue.faults += faults
        desk.predict(0.9)
        desk.settle()
        venue.faults.clear()
        desk.wait(500)  # after a rejection
        desk.show()
        desk.predict(0.2)
        desk.settle()
        return True
    except Crash:
        return False


@pytest.mark.parametrize("faults", [[], ["lost-ack"], ["500-after", "500"], ["500"]],
                         ids=lambda faults: "+".join(faults) or "none")
def test_a_crash_between_any_two_steps_loses_no_fill_and_sends_nothing_twice(tmp_path, faults):
    step, completed = 0, False
    while not completed:
        folder, venue = tmp_path / str(step), StandIn(share="0.5")
        folder.mkdir()
        try:
            d = Desk(folder, venue, wrap=Steps(step))
            completed = session(d, venue, faults)
            d.abandon()
            venue.faults.clear()
            d.wrap = None
            d.begin()
            d.ready()
            d.settle()
            assert text(d.held()) == plain(venue.quantity("BTC-USD")), f"after step {step}"
            assert len(venue.submits) == len(set(venue.submits)), f"after step {step}"
            reader = Reader(folder / "journal.db")
            told = sorted(fill["id"] for order in venue.orders.values() for fill in order["fills"])
            assert sorted(row["fill_id"] for row in reader.fills()) == told, f"after step {step}"
            assert set(venue.orders) <= {row["client_id"] for row in reader.orders()}, f"after step {step}"
            reader.close()
            d.close()
        finally:
            venue.close()
        step += 1
    assert step > 25, "there are that many steps at least"


def plain(number: Decimal) -> str:
    return format(number.normalize(), "f") if number else "0"


# ---- secrets, and the process

def test_the_key_appears_in_no_log_journal_or_telemetry(desk, caplog):
    caplog.set_level(logging.DEBUG)
    venue = StandIn(key="pl4nted-s3cret")
    d = desk(venue, environ={"ALPHA_BOT_KEY": "pl4nted-s3cret"}).ready()
    for fault in ("", "lost-ack", "500", "garbage", "401"):
        venue.faults.append(fault)
        d.show()
        d.predict()
        d.settle()
        d.wait(1500)
    venue.close()
    d.show()
    d.predict()
    d.until(lambda: not d.executor.gateway.busy)
    d.close()
    written = b"".join(file.read_bytes() for file in d.folder.iterdir() if file.is_file())
    assert b"pl4nted" not in written and "pl4nted" not in caplog.text and caplog.text
    assert "pl4nted" not in json.dumps(d.telemetry.told())


@pytest.fixture
def instance(tmp_path):
    name = f"executor-test-{os.getpid()}"
    yield Config(instance=Instance(name=name, state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run")))
    assert not shm.leaked(name)


def test_the_process_trades_is_killed_comes_back_and_leaves_nothing(instance, venue, tmp_path):
    name, clock = instance.instance.name, ManualClock()
    environ = {**os.environ, "ALPHA_INSTANCE__NAME": name, "ALPHA_INSTANCE__STATE_DIR": instance.instance.state_dir,
               "ALPHA_INSTANCE__RUN_DIR": instance.instance.run_dir, "ALPHA_EXECUTOR__BASE_URL": venue.url,
               "ALPHA_MARKET__SYMBOLS": '["BTC-USD"]', "ALPHA_RISK__SYMBOL_COOLDOWN_MS": "0"}
    command = [sys.executable, "-c", "from procs.executor import executor; executor()"]

    def start() -> subprocess.Popen:
        return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])

    books = Books.create(name, ("BTC-USD",), 1024)
    network = Network(instance.run_dir)
    push = network.push("predictions")
    d = Desk.__new__(Desk)
    d.books, d.clock, d.seq = books, clock, [0]

    def trade() -> None:
        """One prediction on fresh data, sent until the venue has one order more."""
        before = len(venue.orders)

        def attempt():
            clock.set(time.monotonic_ns())
            d.show(0)
            push.send(encode([d.prediction(0.9 if before % 2 else 0.1)]))
            return len(venue.orders) > before
        until(attempt, 30)

    process = start()
    try:
        trade()
        process.kill()
        process.wait()
        process.stderr.close()
        process = start()
        trade()
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=30)[1]
        assert process.returncode == 0, log
    finally:
        process.kill()
        process.wait()
        push.close()
        network.close()
        books.close()
    assert len(venue.submits) == len(set(venue.submits))
    reader = Reader(Path(instance.instance.state_dir) / "journal.db")
    assert text(reader.positions()["BTC-USD"].qty) == plain(venue.quantity("BTC-USD"))
    assert sorted(row["fill_id"] for row in reader.fills()) == sorted(
        fill["id"] for order in venue.orders.values() for fill in order["fills"])
    reader.close()
    for stray in shm.leaked(name):
        (shm.SHM_DIR / stray).unlink()


# ---- what the tap hears


class Heard:
    """A tap that somebody listens to."""

    def __init__(self, wanted: bool = True) -> None:
        self.wanted, self.messages = wanted, []

    def send(self, message: bytes) -> None:
        self.messages.append(message)

    def told(self) -> list[decision.Decision]:
        return [one for message in self.messages for one in decision.decode(message)]


def test_every_decision_is_told_with_what_it_was_made_of(tmp_path):
    tap = Heard()
    desk = Desk(tmp_path, tap=tap).ready()
    tap.messages.clear()
    desk.predict(0.9)
    desk.predict(0.51)
    desk.predict(0.2, 1)
    desk.wait(30)
    desk.predict(0.9, epoch=1)
    desk.predict(0.9, recv_ns=0)
    desk.wait(30)
    told = tap.told()
    assert [decision.REASONS[one.reason] for one in told] == ["", "SIGNAL_WEAK", "", "SEQUENCE_EPOCH", "AGE_DATA"]
    assert len(told) == desk.get("decisions") == desk.get("orders") + desk.get("refusals")
    order, weak, other, *_ = told
    assert order.top.ask == 10_001 * SCALE // 100 and order.price == order.top_ask and order.outcome == 0
    assert weak.answer_ns == 0 and weak.top is None and weak.seq == 2 and weak.newest == 1
    assert other.symbol == 1 and other.rate_full_ns > 0 and other.open_buy == other.position == 0
    rules = [Rules.of(desk.config, symbol) for symbol in SYMBOLS]
    for one in told:
        assert decision.again(one, rules[one.symbol], desk.config.risk.max_orders_per_s) == one.verdict
    desk.close()


def test_what_the_way_out_refuses_is_told_beside_what_was_decided(tmp_path):
    tap = Heard()
    desk = Desk(tmp_path, tap=tap).ready()
    tap.messages.clear()
    killswitch.halt(tmp_path, "now", "a test")  # between the last look and the order
    desk.predict(0.9)
    desk.close()  # and what was not told yet is told at the end
    [told] = tap.told()
    assert told.reason == 0 and told.qty and decision.REASONS[told.outcome] == "STATE_HALTED"


def test_while_nobody_listens_nothing_is_kept(tmp_path):
    tap = Heard(wanted=False)
    desk = Desk(tmp_path, tap=tap).ready()
    desk.predict(0.9)
    assert desk.executor._tally._untold == []
    desk.close()
    assert tap.messages == []


def test_a_decision_that_no_record_can_hold_is_counted_and_the_next_is_told(tmp_path):
    tap = Heard()
    desk = Desk(tmp_path, tap=tap).ready()
    tap.messages.clear()
    errors = desk.get("errors")
    desk.executor.ledger.account.gross = 2**63
    desk.predict(0.5)
    desk.executor.ledger.account.gross = 0
    desk.predict(0.5)
    desk.wait(30)
    assert desk.get("errors") == errors + 1 and [one.seq for one in tap.told()] == [2]
    desk.close()


def test_predictions_may_be_given_without_a_link(tmp_path):
    desk = Desk(tmp_path).ready()
    for p in (0.5, 0.51, 0.49):
        desk.executor.consider(desk.prediction(p))
    assert desk.get("decisions") == 3 and desk.refused() == {"SIGNAL_WEAK": 3}
    desk.close()


def test_a_halt_file_that_cannot_be_understood_halts(desk):
    one = desk().ready()
    (one.folder / "halt.json").write_bytes(b"caf\xe9\n")
    one.wait(30)
    assert one.get("halted") == 1


def test_a_shorter_pause_does_not_end_a_longer_one(desk):
    one = desk().ready()
    now = one.clock.now_ns
    one.executor._learn(Throttled(now + 120 * S))
    one.executor._learn(Throttled(now + 250 * MS))
    one.wait(300)
    one.show(0)
    one.predict()
    assert not one.get("orders") and "RATE_VENUE" in one.refused()
