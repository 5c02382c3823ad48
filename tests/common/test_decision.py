"""A decision that was told is made again from what was told, bit for bit, whatever it was made of."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import decision
from common.config import Config, Decision, Instrument, Risk
from common.decide import ALL_REASONS, OUTBOUND_REASONS, Rules, answer, wish
from common.errors import WireError
from common.fixed import SCALE
from common.orders import Order
from common.ring import Top
from common.risk import ADMISSION, Account, Rate, Refusal, Standing
from common.wire import Prediction, form

NOW = 10**15
CONFIG = Config(decision=Decision(threshold=0.02), instruments={"X": Instrument(lot="0.001")},
                risk=Risk(max_orders_per_s=5.0))
RULES = Rules.of(CONFIG, "X")
RATE = CONFIG.risk.max_orders_per_s
INT64 = st.integers(-(2**63), 2**63 - 1)
AMOUNT = st.integers(-(10**14), 10**14)
SOON = st.integers(NOW - 10**9, NOW + 10**9)

predictions = st.builds(
    Prediction, symbol=st.integers(0, 2**32 - 1), worker=st.integers(0, 63), epoch=st.sampled_from([7, 8]),
    seq=st.integers(1, 200), venue_id=INT64, kind=st.integers(0, 3), event_ns=INT64, model=st.integers(0, 2**64 - 1),
    p_up=st.floats(0, 1) | st.floats(), p_down=st.floats(0, 1) | st.floats(), vol=st.floats(0, 10) | st.floats(),
    bid=AMOUNT, ask=AMOUNT, recv_ns=SOON, book_ns=INT64, row_ns=INT64, dispatched_ns=INT64, start_ns=INT64,
    end_ns=INT64)
tops = st.none() | st.builds(
    Top, seq=st.integers(1, 2**62), flags=st.integers(0, 3), recv_ns=SOON, book_ns=INT64,
    bid=st.integers(0, 200 * SCALE), bid_qty=AMOUNT, ask=st.integers(0, 200 * SCALE), ask_qty=AMOUNT)


@st.composite
def worlds(draw) -> tuple[Standing, Account]:
    standing = Standing(7, draw(st.integers(0, 100)))
    standing.unresolved = draw(st.sampled_from([0, 0, 0, 1]))
    standing.position, standing.exposure = draw(AMOUNT), draw(st.integers(0, 10**14))
    standing.open_buy, standing.open_sell = draw(st.integers(0, 10**12)), draw(st.integers(0, 10**12))
    standing.order_ns = draw(st.just(-(2**62)) | SOON)
    account = Account(Rate(RATE, draw(st.just(0) | SOON)), draw(st.sampled_from(["", "", "", *ADMISSION[0].reasons])))
    account.gross, account.day_loss = draw(AMOUNT), draw(AMOUNT)
    return standing, account


def make(prediction: Prediction, top: Top | None, world: tuple[Standing, Account], after: int = 0) -> bytes:
    """A decision as the executor makes and tells it."""
    before, looked = decision.before(*world), 0
    verdict = wish(prediction, *world, RULES, NOW)
    if type(verdict) is int:
        looked = NOW + after
        verdict = answer(verdict, prediction, top, *world, RULES, looked)
    else:
        top = None
    return decision.encode(prediction, NOW, looked, top, before, verdict, None if type(verdict) is Order else verdict)


def same(ours: tuple, theirs: tuple) -> bool:
    return [struct.pack("<d", x) if isinstance(x, float) else x for x in ours] == [
        struct.pack("<d", x) if isinstance(x, float) else x for x in theirs]


@given(prediction=predictions, top=tops, world=worlds(), after=st.integers(0, 10**6))
def test_what_was_decided_is_decided_again_from_the_record_alone(prediction, top, world, after):
    message = make(prediction, top, world, after)
    [told] = decision.decode(message)
    assert same(told.prediction, prediction)
    assert same(decision.again(told, RULES, RATE), told.verdict)


@given(predictions, tops, worlds())
def test_a_record_holds_all_it_was_made_of(prediction, top, world):
    [told] = decision.decode(make(prediction, top, world))
    standing, account = world
    assert (told.followed, told.newest, told.position, told.rate_full_ns) == (
        standing.epoch, standing.seq, standing.position, account.rate.full_ns)
    assert decision.REASONS[told.barred] == account.barred and told.gross == account.gross
    assert told.top == (top if told.answer_ns else None)
    assert (told.reason == 0) == (told.side != 0) == (told.outcome == 0)


def good(p_up: float = 0.9) -> tuple:
    prediction = Prediction(0, 0, 7, 101, 0, 1, 0, 5, p_up, 1 - p_up, 1.0, 1, 2, NOW - 600, 0, 0, 0, 0, 0)
    top = Top(101, 1, NOW - 600, NOW - 500, 9_990 * SCALE // 100, SCALE, 100 * SCALE, SCALE)
    return prediction, top, (Standing(7, 100), Account(Rate(RATE)))


@pytest.mark.parametrize("change, made", [
    ({"p_up": 0.5, "p_down": 0.5}, "SIGNAL_WEAK"), ({"p_up": math.nan}, "SIGNAL_INVALID"),
    ({"top_flags": 0}, "BOOK_INVALID"), ({"top_seq": 0}, "BOOK_INVALID"), ({"top_ask": 99 * SCALE}, "BOOK_CROSSED"),
    ({"position": 10**13}, "NOTIONAL_POSITION"), ({"order_ns": NOW - 1}, "RATE_SYMBOL"),
    ({"rate_full_ns": NOW + 10**9}, "RATE_ORDERS"), ({"unresolved": 1}, "ORDER_UNRESOLVED"),
    ({"newest": 101}, "SEQUENCE_STALE"), ({"followed": 9}, "SEQUENCE_EPOCH"), ({"wish_ns": NOW + 10**9}, "AGE_DATA"),
    ({"barred": decision.REASONS.index("STATE_HALTED")}, "STATE_HALTED"), ({"day_loss": 10**13}, "LOSS_DAILY")])
def test_a_changed_input_gives_another_verdict(change, made):
    [told] = decision.decode(make(*good()))
    assert told.reason == 0 and told.side and told.qty
    again = decision.again(told._replace(**change), RULES, RATE)
    assert decision.REASONS[again.reason] == made


def test_the_way_out_may_refuse_what_was_decided():
    prediction, top, world = good()
    order = answer(wish(prediction, *world, RULES, NOW), prediction, top, *world, RULES, NOW)
    message = decision.encode(prediction, NOW, NOW, top, decision.before(*world), order, Refusal("ORDER_DUPLICATE"))
    [told] = decision.decode(message)
    assert told.reason == 0 and told.qty == order.qty and decision.REASONS[told.outcome] == "ORDER_DUPLICATE"


def test_a_reason_that_the_version_did_not_know_has_the_number_after_the_last():
    [told] = decision.decode(make(*good(0.5)))
    assert decision.again(told, RULES, RATE, ("", "AGE_DATA")).reason == 2


def test_many_stand_in_one_message_and_a_part_of_one_is_refused():
    messages = [make(*good(p)) for p in (0.9, 0.5, 0.1)]
    told = list(decision.decode(b"".join(messages)))
    assert [one.p_up for one in told] == [0.9, 0.5, 0.1] and list(decision.decode(b"")) == []
    with pytest.raises(WireError, match="wrong length"):
        decision.decode(messages[0][:-1])


def test_a_number_that_no_record_can_hold_is_refused():
    prediction, top, world = good()
    world[1].gross = 2**63
    with pytest.raises(WireError, match="seq=101"):
        make(prediction, top, world)


def test_the_record_begins_with_the_prediction_and_knows_every_reason():
    assert decision.Decision._fields[:len(Prediction._fields)] == Prediction._fields
    assert decision.FORMAT.startswith(form(Prediction)) and decision.SIZE == struct.calcsize(decision.FORMAT)
    assert set(decision.REASONS) == {"", *ALL_REASONS, *OUTBOUND_REASONS} and decision.REASONS[0] == ""
    assert len(set(decision.REASONS)) == len(decision.REASONS)
