"""Every check refuses alone, for each of its reasons, and passes at its limit; found because it is listed."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Risk
from common.fixed import SCALE
from common.layout import FLAG_VALID
from common.orders import BUY
from common.ring import Top
from common.risk import ADMISSION, MOMENT, ORDER, REASONS, Account, Limits, Proposal, Rate, Refusal, Standing, exposure
from common.wire import Prediction

NOW = 10**12
MS = 10**6
LIMITS = Limits.of(Risk())
PREDICTION = Prediction(symbol=0, worker=0, epoch=7, seq=100, venue_id=0, kind=1, event_ns=0, model=0, p_up=0.9,
                        p_down=0.1, vol=1.0, bid=0, ask=0, recv_ns=NOW - MS, book_ns=0, row_ns=0,
                        dispatched_ns=0, start_ns=0, end_ns=0)
GOOD = Proposal(side=BUY, qty=SCALE, lot=SCALE // 100, price=100 * SCALE, bid=9999 * SCALE // 100, ask=100 * SCALE,
                before=0, after=100 * SCALE, other_gross=0)
TOP = Top(5, FLAG_VALID, NOW - MS, NOW - MS, 9999 * SCALE // 100, SCALE, 100 * SCALE, SCALE)

#: reason -> (what is wrong, the same just within the limit or None where there is no such thing)
ORDER_CASES = {
    "QUANTITY_ZERO": (dict(qty=0), dict(qty=SCALE // 100)),
    "QUANTITY_LOT": (dict(qty=SCALE + 1), None),
    "NOTIONAL_ORDER": (dict(qty=100 * SCALE + SCALE // 100), dict(qty=100 * SCALE)),
    "PRICE_COLLAR": (dict(bid=99 * SCALE - SCALE // 50), dict(bid=99 * SCALE + SCALE // 50)),
    "NOTIONAL_POSITION": (dict(before=20_000 * SCALE, after=25_000 * SCALE + 1),
                          dict(before=20_000 * SCALE, after=25_000 * SCALE)),
    "NOTIONAL_GROSS": (dict(other_gross=79_900 * SCALE + 1), dict(other_gross=79_900 * SCALE)),
}
#: the same, of the market, the account and the standing
MOMENT_CASES = {
    "BOOK_INVALID": (dict(flags=0), None),
    "BOOK_EMPTY": (dict(bid=0), None),
    "BOOK_CROSSED": (dict(bid=100 * SCALE), dict(bid=100 * SCALE - 1)),
    "BOOK_STALE": (dict(recv_ns=NOW - 5000 * MS - 1), dict(recv_ns=NOW - 5000 * MS)),
    "LOSS_DAILY": (dict(day_loss=5000 * SCALE + 1), dict(day_loss=5000 * SCALE)),
    "RATE_SYMBOL": (dict(order_ns=NOW - 250 * MS + 1), dict(order_ns=NOW - 250 * MS)),
    "RATE_ORDERS": (dict(rate=Rate(20.0, NOW + 951 * MS)), dict(rate=Rate(20.0, NOW + 950 * MS))),
}
#: reason -> (changes to the prediction, to the account, to the standing)
ADMISSION_CASES = {
    "STATE_HALTED": ({}, dict(barred="STATE_HALTED"), {}),
    "STATE_DISARMED": ({}, dict(barred="STATE_DISARMED"), {}),
    "STATE_RECONCILING": ({}, dict(barred="STATE_RECONCILING"), {}),
    "STATE_UNMARKED": ({}, dict(barred="STATE_UNMARKED"), {}),
    "RATE_VENUE": ({}, dict(barred="RATE_VENUE"), {}),
    "SEQUENCE_STALE": (dict(seq=99), {}, {}),
    "SEQUENCE_EPOCH": (dict(epoch=8), {}, {}),
    "AGE_DATA": (dict(recv_ns=NOW - 250 * MS - 1), {}, {}),
    "ORDER_UNRESOLVED": ({}, {}, dict(unresolved=1)),
}


def verdicts(proposal: Proposal) -> list[Refusal]:
    return [refusal for check in ORDER if (refusal := check.test(proposal, LIMITS)) is not None]


def moment(**changes) -> list[Refusal]:
    account, standing = world()
    top = TOP._replace(**{name: value for name, value in changes.items() if name in Top._fields})
    for thing in (account, standing):
        for name in {*thing.__slots__} & {*changes}:
            setattr(thing, name, changes[name])
    found = [check.test(top, standing, account, LIMITS, NOW) for check in MOMENT]
    return [refusal for refusal in found if refusal is not None]


def admitted(prediction: Prediction, account: Account, standing: Standing) -> list[Refusal]:
    found = [check.test(prediction, standing, account, LIMITS, NOW) for check in ADMISSION]
    return [refusal for refusal in found if refusal is not None]


def world() -> tuple[Account, Standing]:
    return Account(Rate(20.0)), Standing(7, 99)


def test_every_reason_of_every_check_has_a_case_here():
    assert {*ORDER_CASES, *MOMENT_CASES, *ADMISSION_CASES} == set(REASONS) and len(REASONS) == len(set(REASONS))


def test_every_limit_of_the_configuration_belongs_to_a_check():
    assert {check.limit for check in ADMISSION + MOMENT + ORDER} - {""} == {f.name for f in dataclasses.fields(Risk)}


def test_a_good_proposal_passes_every_check():
    assert verdicts(GOOD) == moment() == admitted(PREDICTION, *world()) == []


@pytest.mark.parametrize("reason", ORDER_CASES)
def test_an_order_check_refuses_alone_and_passes_at_its_limit(reason):
    wrong, at_the_limit = ORDER_CASES[reason]
    assert [refusal.reason for refusal in verdicts(GOOD._replace(**wrong))] == [reason]
    if at_the_limit is not None:
        assert verdicts(GOOD._replace(**at_the_limit)) == []


@pytest.mark.parametrize("reason", MOMENT_CASES)
def test_a_check_of_the_moment_refuses_alone_and_passes_at_its_limit(reason):
    wrong, at_the_limit = MOMENT_CASES[reason]
    assert [refusal.reason for refusal in moment(**wrong)] == [reason]
    if at_the_limit is not None:
        assert moment(**at_the_limit) == []


def test_without_a_book_nothing_else_is_asked():
    assert MOMENT[0].test(None, *world()[::-1], LIMITS, NOW).reason == "BOOK_INVALID"


@pytest.mark.parametrize("reason", ADMISSION_CASES)
def test_an_admission_check_refuses_alone(reason):
    changes, for_account, for_standing = ADMISSION_CASES[reason]
    account, standing = world()
    for name, value in for_account.items():
        setattr(account, name, value)
    for name, value in for_standing.items():
        setattr(standing, name, value)
    assert [refusal.reason for refusal in admitted(PREDICTION._replace(**changes), account, standing)] == [reason]


def test_a_refusal_names_the_value_and_the_limit():
    [refusal] = moment(day_loss=6000 * SCALE)
    assert refusal == ("LOSS_DAILY", 6000 * SCALE, 5000 * SCALE)


def test_what_reduces_a_position_passes_although_the_position_is_above_its_limit():
    reducing = GOOD._replace(before=30_000 * SCALE, after=29_900 * SCALE, other_gross=10**9 * SCALE)
    assert verdicts(reducing) == verdicts(reducing._replace(after=30_000 * SCALE)) == []
    growing = reducing._replace(after=30_000 * SCALE + 1)
    assert {refusal.reason for refusal in verdicts(growing)} == {"NOTIONAL_POSITION", "NOTIONAL_GROSS"}


@given(st.floats(0.1, 100), st.lists(st.integers(0, 10**9), max_size=200))
def test_no_window_holds_more_orders_than_the_rate_and_one_burst(per_second, gaps):
    rate, now, taken = Rate(per_second), 0, []
    for gap in gaps:
        now += gap
        if rate.ready(now):
            rate.take(now)
            taken.append(now)
    burst = max(1, round(per_second))
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            allowed = burst + (taken[last] - start) * per_second / 1e9
            assert last - first + 1 <= allowed * (1 + 1e-6) + 1e-6


def test_a_rate_of_zero_lets_nothing_pass():
    assert not Rate(0.0).ready(10**18)


def test_a_burst_is_allowed_and_then_the_rate():
    rate = Rate(2.0)
    assert [rate.ready(0) and (rate.take(0) or True) for _ in range(3)] == [True, True, False]
    assert not rate.ready(499_999_999) and rate.ready(500_000_000)


@given(*[st.integers(-100, 100)], *[st.integers(0, 100)] * 2)
def test_exposure_covers_every_way_in_which_the_open_orders_can_fill(position, buys, sells):
    worst = exposure(position, buys, sells, SCALE)
    assert all(abs(position + b - s) <= worst for b in (0, buys) for s in (0, sells))


@given(per_second=st.floats(0.1, 1000), steps=st.lists(st.integers(0, 10**9), min_size=1, max_size=30))
def test_a_rate_goes_on_where_another_stood(per_second, steps):
    rate, now = Rate(per_second), 10**12
    for step in steps:
        now += step
        again = Rate(per_second, rate.full_ns)
        assert again.ready(now) == rate.ready(now)
        if rate.ready(now):
            rate.take(now)
            again.take(now)
        assert again.full_ns == rate.full_ns
