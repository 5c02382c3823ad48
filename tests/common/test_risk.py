"""Every check refuses alone, for each of its reasons, and passes at its limit; found because it is listed."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Instrument, Risk
from common.fixed import SCALE
from common.layout import FLAG_VALID
from common.orders import BUY, SELL
from common.ring import Top
from common.risk import (
    ADMISSION,
    FLATTENING,
    MOMENT,
    ORDER,
    REASONS,
    REDUCING,
    Account,
    Limits,
    Proposal,
    Rate,
    Refusal,
    Standing,
    active,
    closable,
    exposure,
    rejected_lately,
)
from common.wire import Prediction

NOW = 10**12
MS = 10**6
S = 10**9
DAY = 86_400 * S
#: every limit is set
LIMITS = Limits.of(
    Risk(max_net_notional=50_000.0, max_drawdown=2_000.0, max_open_orders=3, max_repeats=2, repeat_window_ms=1000.0,
         duplicate_window_ms=500.0, max_clock_skew_ms=100.0, max_model_age_days=2.0, allow=("X",)),
    "X", Instrument(tick="0.005", lot="0.01", max_qty="200", min_notional="1"))
PREDICTION = Prediction(symbol=0, worker=0, epoch=7, seq=100, venue_id=0, kind=1, event_ns=0, model=0, p_up=0.9,
                        p_down=0.1, vol=1.0, bid=0, ask=0, recv_ns=NOW - MS, book_ns=0, row_ns=0,
                        dispatched_ns=0, start_ns=0, end_ns=0)
GOOD = Proposal(side=BUY, qty=SCALE, lot=SCALE // 100, price=100 * SCALE, bid=9999 * SCALE // 100, ask=100 * SCALE,
                shrinks=False, after=100 * SCALE, other_gross=0)
TOP = Top(5, FLAG_VALID, NOW - MS, NOW - MS, 9999 * SCALE // 100, SCALE, 100 * SCALE, SCALE)

#: reason -> (what is wrong, the same just within the limit or None where there is no such thing)
ORDER_CASES = {
    "QUANTITY_ZERO": (dict(qty=0), dict(qty=SCALE // 100)),
    "QUANTITY_LOT": (dict(qty=SCALE + 1), None),
    "NOTIONAL_ORDER": (dict(qty=100 * SCALE + SCALE // 100), dict(qty=100 * SCALE)),
    "PRICE_COLLAR": (dict(bid=99 * SCALE - SCALE // 50), dict(bid=99 * SCALE + SCALE // 50)),
    "NOTIONAL_POSITION": (dict(after=25_000 * SCALE + 1), dict(after=25_000 * SCALE)),
    "NOTIONAL_GROSS": (dict(other_gross=79_900 * SCALE + 1), dict(other_gross=79_900 * SCALE)),
    "REDUCE_ONLY": (dict(reduce_only=True, position=-SCALE + 1), dict(reduce_only=True, position=-SCALE)),
    "QUANTITY_ORDER": (dict(qty=200 * SCALE + SCALE // 100, price=10 * SCALE, bid=10 * SCALE, ask=10 * SCALE),
                       dict(qty=200 * SCALE, price=10 * SCALE, bid=10 * SCALE, ask=10 * SCALE)),
    "PRICE_TICK": (dict(price=100 * SCALE - 1), dict(price=100 * SCALE - SCALE // 200)),
    "NOTIONAL_MINIMUM": (dict(qty=SCALE // 100, price=100 * SCALE - SCALE // 200), dict(qty=SCALE // 100)),
    "NOTIONAL_NET": (dict(net_high=49_900 * SCALE + 1), dict(net_high=49_900 * SCALE)),
    "RATE_REPEATED": (dict(repeat_buy_ns=NOW - 1000 * MS + 1), dict(repeat_buy_ns=NOW - 1000 * MS)),
    "RATE_REJECTED": (dict(rejects=1, rejected_ns=NOW - 500 * MS + 1), dict(rejects=1, rejected_ns=NOW - 500 * MS)),
    "RATE_DUPLICATE": (dict(order_ns=NOW - 500 * MS + 1, last_side=BUY, last_qty=SCALE, last_price=100 * SCALE),
                       dict(order_ns=NOW - 500 * MS, last_side=BUY, last_qty=SCALE, last_price=100 * SCALE)),
}
#: the same, of the market, the account and the standing
MOMENT_CASES = {
    "BOOK_INVALID": (dict(flags=0), None),
    "BOOK_EMPTY": (dict(bid=0), None),
    "BOOK_CROSSED": (dict(bid=100 * SCALE), dict(bid=100 * SCALE - 1)),
    "BOOK_STALE": (dict(recv_ns=NOW - 5000 * MS - 1), dict(recv_ns=NOW - 5000 * MS)),
    "LOSS_DAILY": (dict(day_loss=5000 * SCALE + 1), dict(day_loss=5000 * SCALE)),
    "LOSS_DRAWDOWN": (dict(drawdown=2000 * SCALE + 1), dict(drawdown=2000 * SCALE)),
    "ORDERS_OPEN": (dict(open_orders=3), dict(open_orders=2)),
    "RATE_SYMBOL": (dict(order_ns=NOW - 250 * MS + 1), dict(order_ns=NOW - 250 * MS)),
    "RATE_ORDERS": (dict(rate=Rate(20.0, NOW + 951 * MS)), dict(rate=Rate(20.0, NOW + 950 * MS))),
}
#: reason -> (changes to the prediction, the account, the standing, the limits; the same just within the limit or None)
ADMISSION_CASES = {
    "STATE_HALTED": (dict(barred="STATE_HALTED"), None),
    "STATE_DISARMED": (dict(barred="STATE_DISARMED"), None),
    "STATE_RECONCILING": (dict(barred="STATE_RECONCILING"), None),
    "STATE_UNMARKED": (dict(barred="STATE_UNMARKED"), None),
    "RATE_VENUE": (dict(barred="RATE_VENUE"), None),
    "SEQUENCE_STALE": (dict(seq=99), dict(seq=100)),
    "SEQUENCE_EPOCH": (dict(epoch=8), None),
    "AGE_DATA": (dict(recv_ns=NOW - 250 * MS - 1), dict(recv_ns=NOW - 250 * MS)),
    "ORDER_UNRESOLVED": (dict(unresolved=1), None),
    "SYMBOL_UNLISTED": (dict(unlisted=True), None),
    "SYMBOL_BLOCKED": (dict(blocked=True), None),
    "CLOCK_SKEW": (dict(offset_ns=DAY, event_ns=NOW + DAY - 101 * MS - 1),
                   dict(offset_ns=DAY, event_ns=NOW + DAY - 101 * MS)),
    "MODEL_UNDATED": (dict(trained_ns=0), None),
    "MODEL_EXPIRED": (dict(trained_ns=NOW - 2 * DAY - 1), dict(trained_ns=NOW - 2 * DAY)),
}


def refusals(checks, subject, limits: Limits = LIMITS, **changes) -> list[Refusal]:
    """What the checks say with these changes to whatever has such a name; each is asked, whatever the others say."""
    account, standing = world()
    for name, value in changes.items():
        if name in subject._fields:
            subject = subject._replace(**{name: value})
        elif name in {f.name for f in dataclasses.fields(Limits)}:
            limits = dataclasses.replace(limits, **{name: value})
        else:
            setattr(account if name in account.__slots__ else standing, name, value)
    found = [test(subject, standing, account, limits, NOW) for test in active(checks, limits)]
    return [refusal for refusal in found if refusal is not None]


def verdicts(proposal: Proposal, **changes) -> list[Refusal]:
    return refusals(ORDER, proposal, **changes)


def moment(**changes) -> list[Refusal]:
    return refusals(MOMENT, TOP, **changes)


def world() -> tuple[Account, Standing]:
    account = Account(Rate(20.0))
    account.trained_ns = NOW
    return account, Standing(7, 99)


def test_every_reason_of_every_check_has_a_case_here():
    assert {*ORDER_CASES, *MOMENT_CASES, *ADMISSION_CASES} == set(REASONS) and len(REASONS) == len(set(REASONS))


def test_every_limit_of_the_configuration_belongs_to_a_check():
    limits = {check.limit for check in ADMISSION + MOMENT + ORDER} - {""}
    ours = {limit for limit in limits if not limit.startswith("instruments.")}
    assert ours == {f.name for f in dataclasses.fields(Risk)} - {"repeat_window_ms", "on_loss"}
    assert {limit.removeprefix("instruments.") for limit in limits - ours} <= {
        f.name for f in dataclasses.fields(Instrument)}


def test_a_good_proposal_passes_every_check_with_every_limit_set():
    assert verdicts(GOOD) == moment() == refusals(ADMISSION, PREDICTION) == []
    on = dataclasses.replace(LIMITS, unlisted=True, blocked=True)
    for checks in (ADMISSION, MOMENT, ORDER):
        assert active(checks, on) == tuple(check.test for check in checks)


def test_by_default_the_optional_checks_are_off():
    limits = Limits.of(Risk(), "X")
    for checks in (ADMISSION, MOMENT, ORDER):
        assert active(checks, limits) == tuple(check.test for check in checks if not check.switch
                                               or check.name == "rejected_lately")
    assert rejected_lately not in active(ORDER, Limits.of(Risk(reject_pause_ms=0.0), "X"))


def test_the_lists_name_symbols():
    def of(symbol: str, **lists) -> tuple[bool, bool]:
        limits = Limits.of(Risk(**lists), symbol)
        return limits.unlisted, limits.blocked

    assert of("X") == (False, False)
    assert of("X", allow=("X",), block=("Y",)) == (False, False)
    assert of("Y", allow=("X",), block=("Y",)) == (True, True)


@pytest.mark.parametrize("reason", ORDER_CASES)
def test_an_order_check_refuses_alone_and_passes_at_its_limit(reason):
    wrong, at_the_limit = ORDER_CASES[reason]
    assert [refusal.reason for refusal in verdicts(GOOD, **wrong)] == [reason]
    if at_the_limit is not None:
        assert verdicts(GOOD, **at_the_limit) == []


@pytest.mark.parametrize("reason", MOMENT_CASES)
def test_a_check_of_the_moment_refuses_alone_and_passes_at_its_limit(reason):
    wrong, at_the_limit = MOMENT_CASES[reason]
    assert [refusal.reason for refusal in moment(**wrong)] == [reason]
    if at_the_limit is not None:
        assert moment(**at_the_limit) == []


def test_without_a_book_nothing_else_is_asked():
    assert MOMENT[0].test(None, *world()[::-1], LIMITS, NOW).reason == "BOOK_INVALID"


@pytest.mark.parametrize("reason", ADMISSION_CASES)
def test_an_admission_check_refuses_alone_and_passes_at_its_limit(reason):
    wrong, at_the_limit = ADMISSION_CASES[reason]
    assert [refusal.reason for refusal in refusals(ADMISSION, PREDICTION, **wrong)] == [reason]
    if at_the_limit is not None:
        assert refusals(ADMISSION, PREDICTION, **at_the_limit) == []


@pytest.mark.parametrize("reason, value, limit", [
    ("NOTIONAL_ORDER", 10_001 * SCALE, 10_000 * SCALE), ("NOTIONAL_NET", 50_000 * SCALE + 1, 50_000 * SCALE),
    ("QUANTITY_ORDER", 200 * SCALE + SCALE // 100, 200 * SCALE), ("PRICE_TICK", 100 * SCALE - 1, SCALE // 200),
    ("NOTIONAL_MINIMUM", SCALE - SCALE // 20_000, SCALE), ("REDUCE_ONLY", SCALE, SCALE - 1), ("RATE_REPEATED", 3, 2),
    ("RATE_DUPLICATE", 500 * MS - 1, 500 * MS), ("LOSS_DRAWDOWN", 2000 * SCALE + 1, 2000 * SCALE),
    ("ORDERS_OPEN", 3, 3), ("CLOCK_SKEW", 100 * MS + 1, 100 * MS), ("MODEL_EXPIRED", 2 * DAY + 1, 2 * DAY)])
def test_the_refusal_of_a_limit_names_value_and_limit(reason, value, limit):
    for checks, subject, cases in ((ADMISSION, PREDICTION, ADMISSION_CASES), (MOMENT, TOP, MOMENT_CASES),
                                   (ORDER, GOOD, ORDER_CASES)):
        if reason in cases:
            assert refusals(checks, subject, **cases[reason][0]) == [(reason, value, limit)]


def test_clocks_may_differ_either_way_and_an_event_without_a_time_says_nothing():
    ahead = dict(offset_ns=DAY, event_ns=NOW + DAY - MS + 100 * MS)
    assert refusals(ADMISSION, PREDICTION, **ahead) == []
    ahead["event_ns"] += 1
    assert refusals(ADMISSION, PREDICTION, **ahead) == [("CLOCK_SKEW", -100 * MS - 1, 100 * MS)]
    assert refusals(ADMISSION, PREDICTION, offset_ns=DAY) == []


def test_sales_are_held_against_what_is_short():
    sale = GOOD._replace(side=SELL)
    assert verdicts(sale, net_low=-49_900 * SCALE, net_high=10**9 * SCALE) == []
    assert verdicts(sale, net_low=-49_900 * SCALE - 1) == [("NOTIONAL_NET", 50_000 * SCALE + 1, 50_000 * SCALE)]
    assert verdicts(sale, repeat_sell_ns=NOW)[0].reason == "RATE_REPEATED" and verdicts(sale, repeat_buy_ns=NOW) == []


@given(st.sampled_from([BUY, SELL]), *[st.integers(0, 100)] * 2, st.integers(-100, 100))
def test_what_can_be_closed_never_turns_a_position_around(side, buys, sells, held):
    standing = Standing(7)
    standing.position, standing.open_buy, standing.open_sell = held, buys, sells
    most = closable(side, standing)
    pending = buys if side == BUY else sells
    assert most == 0 or held * side < 0 and abs(held) == most + pending


def test_a_refusal_names_the_value_and_the_limit():
    [refusal] = moment(day_loss=6000 * SCALE)
    assert refusal == ("LOSS_DAILY", 6000 * SCALE, 5000 * SCALE)


def test_what_reduces_a_position_passes_although_the_position_is_above_its_limit():
    reducing = GOOD._replace(shrinks=True, after=29_900 * SCALE, other_gross=10**9 * SCALE)
    net = dict(net_high=10**9 * SCALE)
    assert verdicts(reducing, **net) == []
    growing = reducing._replace(shrinks=False)
    assert {refusal.reason for refusal in verdicts(growing, **net)} == {
        "NOTIONAL_POSITION", "NOTIONAL_GROSS", "NOTIONAL_NET"}


def test_what_a_symbol_waits_after_rejections_doubles_up_to_64_times():
    for rejects, times in ((0, 0), (1, 1), (2, 2), (3, 4), (7, 64), (8, 64), (1000, 64)):
        pause = times * 500 * MS
        assert verdicts(GOOD, rejects=rejects, rejected_ns=NOW - pause) == []
        if times:
            assert verdicts(GOOD, rejects=rejects, rejected_ns=NOW - pause + 1) == [("RATE_REJECTED", pause - 1, pause)]
            leaving = dict(rejects=rejects, position=-10 * SCALE)  # no longer than the first time
            assert verdicts(GOOD._replace(reduce_only=True), rejected_ns=NOW - 500 * MS, **leaving) == []
            assert verdicts(GOOD._replace(reduce_only=True), rejected_ns=NOW - 500 * MS + 1, **leaving)


def test_a_loss_keeps_nobody_from_leaving_what_is_held():
    lost = dict(day_loss=6000 * SCALE, drawdown=6000 * SCALE)
    assert [refusal.reason for refusal in moment(**lost)] == ["LOSS_DAILY", "LOSS_DRAWDOWN"]
    assert moment(mode=REDUCING, **lost) == moment(mode=FLATTENING, **lost) == []


def test_the_least_notional_holds_for_what_leaves_a_position_on_spot_alone():
    instrument = Instrument(tick="0.005", lot="0.01", min_notional="1000")
    leaving = GOOD._replace(reduce_only=True)
    for spot, expected in ((False, []), (True, [("NOTIONAL_MINIMUM", 100 * SCALE, 1000 * SCALE)])):
        limits = Limits.of(Risk(), "X", instrument, spot)
        assert refusals(ORDER, leaving, limits, position=-10 * SCALE) == expected
        assert [refusal.reason for refusal in refusals(ORDER, GOOD, limits)] == ["NOTIONAL_MINIMUM"]


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
