"""Working orders are cancelled without the executor, whatever the venue answers, and what was not is named."""

from decimal import Decimal

import pytest

from common import guard
from common.clock import ManualClock, SystemClock
from common.config import Config, Executor, Instance, Market
from common.errors import ConfigError
from common.fixed import SCALE
from common.gateways import Absent, Acked, Ended, Throttled, Unanswered
from common.journal import Journal
from common.ledger import ABSENCE_NS
from common.orders import BUY, SELL, Order, State
from tests.standin import StandIn
from tests.waiting import until

ORDER = Order("o-0-1", "BTC-USD", BUY, SCALE, 100 * SCALE, 1, 1, time_in_force="GTC")
S = 10**9


@pytest.fixture
def venue():
    venue = StandIn(share="0")
    yield venue
    venue.release()
    venue.close()


def config(folder, url: str, **more) -> Config:
    return Config(instance=Instance(state_dir=str(folder)), market=Market(symbols=("BTC-USD",)),
                  executor=Executor(base_url=url, timeout_s=0.5, **more))


def journaled(config: Config, *orders: Order) -> None:
    journal = Journal.open(config.state_dir / "journal.db")
    for order in orders:
        journal.intent(order, "{}", 0)
    journal.close()


def submitted(config: Config, *orders: Order) -> None:
    gateway = guard.create(config, SystemClock())
    for order in orders:
        gateway.submit(order)
        until(lambda: gateway.work())
    gateway.close()


def test_what_rests_is_cancelled_and_what_never_arrived_is_told(tmp_path, venue):
    settings = config(tmp_path, venue.url)
    resting, lost = ORDER, ORDER._replace(client_id="o-0-2", side=SELL, seq=2)
    journaled(settings, resting, lost)
    submitted(settings, resting)
    found = guard.cancel_working(settings, SystemClock(), 10.0)
    assert [(one.client_id, one.done, one.what) for one in found] == [
        ("o-0-1", True, "cancelled"), ("o-0-2", True, "the venue does not know it")]
    assert venue.orders["o-0-1"]["status"] == "CANCELLED" and venue.submits == ["o-0-1"], "nothing was sent again"


def test_what_is_filled_already_is_left_alone(tmp_path, venue):
    venue.share = Decimal(1)
    settings = config(tmp_path, venue.url)
    journaled(settings, ORDER)
    submitted(settings, ORDER)
    assert guard.cancel_working(settings, SystemClock()) == [("o-0-1", "BTC-USD", True, "filled")]
    assert not [path for method, path in venue.requests if method == "DELETE"]


@pytest.mark.parametrize("fault", ["500", "lost-ack", "garbage"])
def test_a_question_without_an_answer_is_asked_again(tmp_path, venue, fault):
    settings = config(tmp_path, venue.url)
    journaled(settings, ORDER)
    submitted(settings, ORDER)
    venue.faults += ["", fault]
    assert guard.cancel_working(settings, SystemClock(), 10.0) == [("o-0-1", "BTC-USD", True, "cancelled")]


def test_a_venue_that_is_not_there_is_told_with_the_orders_that_are_left(tmp_path):
    settings = config(tmp_path, "http://127.0.0.1:1")
    journaled(settings, ORDER)
    [one] = guard.cancel_working(settings, SystemClock(), 0.3)
    assert one.client_id == "o-0-1" and not one.done and one.what


def test_without_keys_the_orders_that_are_left_are_named(tmp_path):
    settings = config(tmp_path, "https://venue.example")
    journaled(settings, ORDER)
    with pytest.raises(ConfigError, match="not cancelled: o-0-1"):
        guard.cancel_working(settings, SystemClock())


def test_without_a_journal_or_with_a_paper_book_there_is_nothing_to_do(tmp_path):
    assert guard.cancel_working(config(tmp_path, "http://127.0.0.1:1"), SystemClock()) == []
    paper = config(tmp_path, "http://127.0.0.1:1", gateway="paper", journal="journal.db")
    journaled(paper, ORDER)
    assert guard.cancel_working(paper, SystemClock()) == []


class Script:
    """A gateway that answers as it is told, a list of events for each question; the clock moves with each look."""

    busy, wants_write = False, False

    def __init__(self, clock: ManualClock, *answers: list) -> None:
        self.clock, self.answers, self.asked, self.due = clock, list(answers), [], []

    def query(self, order: Order) -> None:
        self._ask("query")

    def cancel(self, order: Order, venue_id: str) -> None:
        self._ask(f"cancel {venue_id}")

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        self.due = self.answers.pop(0) if self.answers else []

    def work(self) -> list:
        self.clock.set(self.clock.now_ns + S // 10)
        found, self.due = self.due, []
        return found

    def fileno(self) -> int:
        return -1

    def due_ns(self) -> int:
        return 1


ALIVE = Acked("o-0-1", "v1", 0, 0)
GONE, FILLED = Ended("o-0-1", State.CANCELLED, 0, ""), Ended("o-0-1", State.FILLED, SCALE, "")


@pytest.mark.parametrize("answers, asked, outcome", [
    ([[ALIVE], [ALIVE, GONE]], ["query", "cancel v1"], (True, "cancelled")),
    ([[ALIVE], [Unanswered("o-0-1", "no")], [ALIVE], [GONE]], ["query", "cancel v1"] * 2, (True, "cancelled")),
    ([[ALIVE], [ALIVE], [ALIVE, FILLED]], ["query", "cancel v1", "query"], (True, "filled")),
    ([[Absent("o-0-1")], [ALIVE], [GONE]], ["query", "query", "cancel v1"], (True, "cancelled")),
    ([[Unanswered("o-0-1", "no route")]] * 99, None, (False, "no route")),
    ([[Absent("o-0-1")]] * 99, None, (True, "the venue does not know it")),
])
def test_a_talk_with_a_venue(answers, asked, outcome):
    clock = ManualClock(S)
    gateway = Script(clock, *answers)
    [one] = guard.cancel([ORDER], gateway, clock, 5.0)
    assert (one.done, one.what) == outcome
    assert asked is None or gateway.asked == asked
    if outcome[1].startswith("the venue does not"):
        assert clock.now_ns - S > ABSENCE_NS, "it might have been on its way"


def test_a_venue_that_wants_to_be_left_alone_is():
    clock = ManualClock(S)
    gateway = Script(clock, [Throttled(3 * S), Unanswered("o-0-1", "429")], [ALIVE], [GONE])
    [one] = guard.cancel([ORDER], gateway, clock, 5.0)
    assert one.done and clock.now_ns > 3 * S and gateway.asked == ["query", "query", "cancel v1"]
