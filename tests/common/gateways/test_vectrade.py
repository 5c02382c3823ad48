"""VecTrade's order API, as it is asked and as it fails."""

import json

import pytest

from common.clock import ManualClock, SystemClock
from common.config import Config, Executor, Instrument, Market
from common.errors import ConfigError
from common.fixed import SCALE
from common.gateways import (
    Absent,
    Acked,
    Ended,
    Filled,
    NoPortfolio,
    Portfolio,
    Throttled,
    Unanswered,
    Unknown,
    vectrade,
)
from common.orders import BUY, SELL, Order, State
from tests.standin import StandIn
from tests.waiting import until

ORDER = Order("c-0-1", "AAPL", SELL, 150_000_000, 19_001_000_000, 7, 1)


@pytest.fixture
def venue():
    venue = StandIn(share="0.5")
    yield venue
    venue.close()


@pytest.fixture
def make(request):
    def make(url: str, clock=None, environ=None, timeout_s: float = 20.0):
        config = Config(executor=Executor(base_url=url, timeout_s=timeout_s), market=Market(symbols=("AAPL",)),
                        instruments={"AAPL": Instrument(asset_type="STOCK")})
        gateway = vectrade.create(config, clock or SystemClock(), environ or {})
        request.addfinalizer(gateway.close)
        return gateway
    return make


def events_of(gateway) -> list:
    events = []
    until(lambda: events.extend(gateway.work()) or not gateway.busy, 30)
    return events


def test_an_order_is_put_as_the_venue_wants_it(venue, make):
    gateway = make(venue.url)
    gateway.submit(ORDER)
    events = events_of(gateway)
    asked = venue.orders["c-0-1"]
    assert {key: asked[key] for key in ("symbol", "asset_type", "side", "order_type", "quantity", "limit_price",
                                        "time_in_force", "client_order_id")} == {
        "symbol": "AAPL", "asset_type": "STOCK", "side": "SELL", "order_type": "LIMIT", "quantity": "1.5",
        "limit_price": "190.01", "time_in_force": "IOC", "client_order_id": "c-0-1"}
    assert [type(e) for e in events] == [Acked, Filled, Filled, Ended]
    assert events[-1] == Ended("c-0-1", State.CANCELLED, 75_000_000, "")
    assert events[1] == Filled("c-0-1", "1-0", 37_500_000, ORDER.price, 712_538, 5_000_000)


@pytest.mark.parametrize("fault", ["lost-ack", "500", "500-after", "garbage", "truncated", "other"])
def test_an_outcome_that_is_not_known_is_never_a_rejection(venue, make, fault):
    gateway = make(venue.url)
    venue.faults.append(fault)
    gateway.submit(ORDER)
    [event] = events_of(gateway)
    assert type(event) is Unknown and event.reason
    assert len(venue.submits) == (fault != "500"), "and it is not sent again"
    gateway.query(ORDER)
    answered = events_of(gateway)
    assert type(answered[0]) is (Absent if fault == "500" else Acked)


def test_no_answer_in_time_is_unknown(venue, make):
    clock = ManualClock(1)
    gateway = make(venue.url, clock, timeout_s=2.0)
    venue.faults.append("hang")
    gateway.submit(ORDER)
    until(lambda: gateway.work() or venue.submits)
    clock.set(2_000_000_001)
    [event] = events_of(gateway)
    assert type(event) is Unknown and "2 s" in event.reason
    venue.release()


@pytest.mark.parametrize("fault, text", [("401", "HTTP 401"), ("422", "HTTP 422: FAULT 422")])
def test_a_refusal_is_a_rejection_with_the_words_of_the_venue(venue, make, fault, text):
    gateway = make(venue.url)
    venue.faults.append(fault)
    gateway.submit(ORDER)
    [event] = events_of(gateway)
    assert type(event) is Ended and event.state is State.REJECTED and text in event.reason


def test_a_wrong_key_is_rejected_and_appears_nowhere(venue, make):
    gateway = make(venue.url, environ={"ALPHA_BOT_KEY": "s3cr3t-key"})
    gateway.submit(ORDER)
    gateway.portfolio()
    events = sorted(events_of(gateway), key=lambda event: type(event) is NoPortfolio)
    assert [type(e) for e in events] == [Ended, NoPortfolio] and "401" in events[0].reason
    assert "s3cr3t" not in repr(events) and "s3cr3t" not in repr(gateway)


def test_too_many_requests_are_a_rejection_and_a_time_to_wait(venue, make):
    clock = ManualClock(5)
    gateway = make(venue.url, clock)
    venue.faults.append("429")
    gateway.submit(ORDER)
    throttled, ended = events_of(gateway)
    assert throttled == Throttled(1_000_000_005) and ended.state is State.REJECTED
    venue.faults.append("429")
    gateway.query(ORDER)
    assert [type(e) for e in events_of(gateway)] == [Throttled, Unanswered]


def test_an_answer_that_is_sent_twice_counts_once(venue, make):
    gateway = make(venue.url)
    venue.faults.append("twice")
    gateway.submit(ORDER)
    assert [type(e) for e in events_of(gateway)] == [Acked, Filled, Filled, Ended]
    gateway.portfolio()
    assert [type(e) for e in events_of(gateway)] == [Portfolio]


def test_a_venue_that_is_not_there_never_got_the_order_and_is_left_alone_for_a_while(make):
    venue = StandIn()
    venue.close()
    gateway = make(venue.url, ManualClock(7))
    gateway.submit(ORDER)
    gateway.query(ORDER)
    gateway.portfolio()
    events = events_of(gateway)
    assert events[0] == Throttled(250_000_007)
    ended, _ = [event for event in events if type(event) in (Ended, Unanswered)]
    assert ended.state is State.REJECTED and "never left" in ended.reason
    assert {type(event) for event in events} == {Throttled, Ended, Unanswered, NoPortfolio}


def test_no_order_waits_behind_the_question_for_positions(venue, make):
    gateway = make(venue.url)
    venue.faults.append("hang")
    gateway.portfolio()
    until(lambda: gateway.work() == [] and any("portfolio" in path for _, path in venue.requests))
    gateway.submit(ORDER)
    found: list = []
    until(lambda: found.extend(gateway.work()) or any(type(event) is Ended for event in found))
    assert gateway.busy  # the venue still thinks about positions
    venue.release()
    until(lambda: found.extend(gateway.work()) or not gateway.busy)


def test_a_resting_order_can_be_cancelled_once(venue, make):
    gateway = make(venue.url)
    resting = ORDER._replace(time_in_force="GTC")
    gateway.submit(resting)
    acked = events_of(gateway)[0]
    gateway.cancel(resting, acked.venue_id)
    assert events_of(gateway)[-1] == Ended("c-0-1", State.CANCELLED, 75_000_000, "")
    gateway.cancel(resting, acked.venue_id)
    [event] = events_of(gateway)
    assert type(event) is Unanswered and "409" in event.reason


@pytest.mark.parametrize("change", [
    {"status": "BROKEN"}, {"status": None}, {"id": None}, {"fills": None}, {"fills": [{}]}, {"quantity": "2"},
    {"side": "BUY"}, {"symbol": "TSLA"}, {"filled_quantity": "1.123456789"}, {"filled_quantity": 1},
    {"fills": [{"id": "1", "price": "-1", "quantity": "1", "fee": "0", "timestamp": 5}]},
    {"fills": [{"id": "1", "price": "1", "quantity": "1", "fee": "0", "timestamp": "now"}]},
    {"fills": [{"id": "1", "price": "1", "quantity": "1", "fee": "0", "timestamp": 2**62}]},
    {"fills": [{"id": "1", "price": "92233720368", "quantity": "1.5", "fee": "0", "timestamp": 5}]},
    {"fills": [{"id": "1", "price": "1", "quantity": "1", "fee": "-92233720368", "timestamp": 5}]}])
def test_an_order_that_makes_no_sense_is_not_believed(venue, make, change):
    gateway = make(venue.url)
    gateway.submit(ORDER)
    events_of(gateway)
    venue.orders["c-0-1"].update(change)
    gateway.query(ORDER)
    [event] = events_of(gateway)
    assert type(event) is Unanswered and event.reason


@pytest.mark.parametrize("told", [[], {"orders": {}}, {"orders": [7]}, 7, None])
def test_a_query_answered_with_nonsense_is_no_answer(venue, make, told, monkeypatch):
    gateway = make(venue.url)
    monkeypatch.setattr(venue, "_do", lambda *asked: (200, told))
    gateway.query(ORDER)
    gateway.portfolio()
    assert {type(e) for e in events_of(gateway)} == {Unanswered, NoPortfolio}


def test_ids_may_be_numbers(venue, make):
    gateway = make(venue.url)
    gateway.submit(ORDER)
    events_of(gateway)
    venue.orders["c-0-1"].update(json.loads('{"id": 12}'))
    gateway.query(ORDER)
    assert events_of(gateway)[0].venue_id == "12"


def test_the_portfolio_leaves_out_what_is_flat(venue, make):
    gateway = make(venue.url)
    venue.positions = {"AAPL": ("-1.5", "190.01"), "X": ("0", "0")}
    gateway.portfolio()
    assert events_of(gateway) == [Portfolio({"AAPL": (-150_000_000, 19_001_000_000)})]


def test_a_portfolio_that_does_not_fit_64_bits_is_none(venue, make):
    gateway = make(venue.url)
    venue.positions = {"AAPL": ("90000000000", "90000000000")}
    gateway.portfolio()
    [event] = events_of(gateway)
    assert type(event) is NoPortfolio and "64 bits" in event.reason


@pytest.mark.parametrize("url", ["http://me:s3cr3t@venue.example", "https://me:s3cr3t@venue.example",
                                 "https://:s3cr3t@venue.example", "https://me:s3cr3t@[::1", "https://s3cr3t@[::1]:x",
                                 "https://me:s3cr3t/x@venue.example", "http://me:s3cr3t@127.0.0.1:1"])
def test_a_password_in_the_address_is_refused_and_not_shown(make, url):
    with pytest.raises(ConfigError) as caught:
        make(url)
    assert "s3cr3t" not in str(caught.value)


def test_without_a_key_only_a_loopback_venue_is_used(make):
    assert vectrade.bot_key("http://localhost:1", {}) == vectrade.bot_key("http://127.0.0.1:1", {}) == "loopback"
    assert vectrade.bot_key("http://[::1]:1", {}) == "loopback"
    assert vectrade.bot_key("https://venue.example", {"ALPHA_BOT_KEY": "k"}) == "k"
    with pytest.raises(ConfigError, match="ALPHA_BOT_KEY"):
        vectrade.bot_key("https://venue.example", {})


@pytest.mark.parametrize("key", ["s3cr3t\n", "s3cr3t x", "s3cr3té"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key):
    with pytest.raises(ConfigError) as caught:
        vectrade.bot_key("https://venue.example", {"ALPHA_BOT_KEY": key})
    assert "s3cr3t" not in str(caught.value)


def test_amounts_are_exact_texts(venue, make):
    gateway = make(venue.url)
    gateway.submit(ORDER._replace(side=BUY, qty=1, price=SCALE * 123 + 1))
    events_of(gateway)
    assert (venue.orders["c-0-1"]["quantity"], venue.orders["c-0-1"]["limit_price"]) == ("0.00000001", "123.00000001")


def test_a_key_does_not_travel_in_clear_to_another_host():
    with pytest.raises(ConfigError, match="https"):
        vectrade.bot_key("http://gateway.example", {"ALPHA_BOT_KEY": "k"})
    assert vectrade.bot_key("https://gateway.example", {"ALPHA_BOT_KEY": "k"}) == "k"
