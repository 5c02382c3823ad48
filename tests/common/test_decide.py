"""The decision: pure, bounded by every limit, and never worse than its refusals."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Config, Decision, Executor, Instrument, Market, Risk
from common.decide import ALL_REASONS, Rules, decide, propose
from common.fixed import SCALE
from common.layout import FLAG_VALID
from common.orders import BUY, SELL, Order, client_order_id
from common.ring import Top
from common.risk import Account, Rate, Refusal, Standing
from common.wire import Prediction

NOW = 10**12
CONFIG = Config(instruments={"X": Instrument(lot="0.001")})
RULES = Rules.of(CONFIG, "X")
BOOK = Top(5, FLAG_VALID, NOW - 1000, NOW - 900, 9999 * SCALE // 100, 5 * SCALE, 10001 * SCALE // 100, 7 * SCALE)


def prediction(p_up: float = 0.9, p_down: float | None = None, **changes) -> Prediction:
    down = 1 - p_up if p_down is None else p_down
    return Prediction(symbol=3, worker=0, epoch=7, seq=100, venue_id=0, kind=1, event_ns=0, model=0, p_up=p_up,
                      p_down=down, vol=1.0, bid=1, ask=2, recv_ns=NOW - 1000, book_ns=0, row_ns=0,
                      dispatched_ns=0, start_ns=0, end_ns=0)._replace(**changes)


def world() -> tuple[Standing, Account]:
    return Standing(7), Account(Rate(20.0))


def test_an_up_move_is_bought_at_the_ask_and_a_down_move_sold_at_the_bid():
    up = decide(prediction(0.9), BOOK, *world(), RULES, NOW)
    down = decide(prediction(0.1), BOOK, *world(), RULES, NOW)
    assert (up.side, up.price, down.side, down.price) == (BUY, BOOK.ask, SELL, BOOK.bid)
    assert (up.symbol, up.order_type, up.time_in_force) == ("X", "LIMIT", "IOC")
    assert up.client_id == client_order_id(7, 3, 100) == down.client_id
    assert up.qty == 39_996 * SCALE // 1000  # 5000 * 0.8 / 100.01 = 39.9960003...


@pytest.mark.parametrize("p_up, p_down", [(math.nan, 0.5), (0.5, math.nan), (1.1, 0.0), (-0.1, 0.5), (0.9, 1.5),
                                          (math.inf, 0.1)])
def test_a_probability_that_is_none_is_refused(p_up, p_down):
    assert decide(prediction(p_up, p_down), BOOK, *world(), RULES, NOW).reason == "SIGNAL_INVALID"


@pytest.mark.parametrize("vol", [math.nan, -1.0])
def test_a_volatility_that_is_none_is_refused(vol):
    assert decide(prediction(vol=vol), BOOK, *world(), RULES, NOW).reason == "SIGNAL_INVALID"


def test_inside_the_threshold_nothing_is_asked_of_the_book():
    refusal = decide(prediction(0.52), None, *world(), RULES, NOW)
    assert refusal.reason == "SIGNAL_WEAK" and refusal.limit == CONFIG.decision.threshold
    assert refusal.value == pytest.approx(0.02)


def test_the_state_refuses_before_the_signal_is_looked_at():
    standing, account = world()
    account.barred = "STATE_HALTED"
    assert decide(prediction(0.5), BOOK, standing, account, RULES, NOW).reason == "STATE_HALTED"


def test_without_a_book_there_is_no_order():
    assert decide(prediction(), None, *world(), RULES, NOW).reason == "BOOK_INVALID"
    assert decide(prediction(), BOOK._replace(flags=0), *world(), RULES, NOW).reason == "BOOK_INVALID"
    assert decide(prediction(), BOOK._replace(ask=0), *world(), RULES, NOW).reason == "BOOK_EMPTY"


def test_a_size_below_one_lot_is_refused_and_not_rounded_up():
    rules = Rules.of(Config(instruments={"X": Instrument(lot="1000")}), "X")
    assert decide(prediction(), BOOK, *world(), rules, NOW).reason == "QUANTITY_ZERO"


@given(p=st.floats(0, 1), vol=st.floats(0, 100), bid=st.integers(1, 10**6), spread=st.integers(-10, 1000),
       position=st.integers(-10**6, 10**6), open_buy=st.integers(0, 10**4), open_sell=st.integers(0, 10**4),
       others=st.integers(0, 10**5), limits=st.tuples(*[st.floats(0, 50_000)] * 3))
def test_no_order_is_ever_above_any_limit(p, vol, bid, spread, position, open_buy, open_sell, others, limits):
    risk = Risk(max_order_notional=limits[0], max_position_notional=limits[1], max_gross_notional=limits[2])
    config = Config(risk=risk, decision=Decision(threshold=0.05))
    rules, market = Rules.of(config, "X"), BOOK._replace(bid=bid * SCALE, ask=(bid + spread) * SCALE)
    standing, account = world()
    standing.position, standing.open_buy, standing.open_sell = position * SCALE, open_buy * SCALE, open_sell * SCALE
    account.gross = others * SCALE
    verdict = decide(prediction(p, vol=vol), market, standing, account, rules, NOW)
    assert verdict == decide(prediction(p, vol=vol), market, standing, account, rules, NOW), "it changes nothing"
    if isinstance(verdict, Refusal):
        assert verdict.reason in ALL_REASONS
        return
    assert isinstance(verdict, Order) and abs(p - 0.5) >= 0.05 and (verdict.side == BUY) == (p > 0.5)
    cost = verdict.qty * verdict.price / SCALE**2
    assert 0 < cost <= min(risk.max_order_notional, config.decision.order_notional) * (1 + 1e-12)
    assert abs(verdict.price - (market.bid + market.ask) / 2) / market.bid <= 0.0051
    pending = open_buy if verdict.side == BUY else open_sell
    after = abs(position + verdict.side * (pending + verdict.qty / SCALE)) * verdict.price / SCALE
    if after > abs(position) * verdict.price / SCALE * (1 + 1e-9):
        assert after <= risk.max_position_notional * (1 + 1e-9) + 1e-6
        assert after + others <= risk.max_gross_notional * (1 + 1e-9) + 1e-6


def test_a_symbol_of_another_feed_is_never_sent_to_this_venue_but_may_be_traded_on_paper():
    feeds = {"other": Market(symbols=("X",))}
    assert not Rules.of(Config(feeds=feeds), "other:X").traded and Rules.of(Config(feeds=feeds), "BTC-USD").traded
    assert Rules.of(Config(feeds=feeds, executor=Executor(gateway="paper")), "other:X").traded
    refusal = decide(prediction(0.9), BOOK, *world(), dataclasses.replace(RULES, traded=False), NOW)
    assert refusal.reason == "SYMBOL_ELSEWHERE"


@pytest.mark.parametrize("size", [5000 * SCALE, -5000 * SCALE])
@pytest.mark.parametrize("held, open_buy, open_sell", [(0, 0, 0), (300, 10, 20), (-300, 10, 20), (30, 0, 50)])
def test_a_proposal_values_what_is_held_now_and_what_would_be(size, held, open_buy, open_sell):
    standing, account = world()
    standing.position, standing.open_buy, standing.open_sell = held * SCALE, open_buy * SCALE, open_sell * SCALE
    standing.exposure, account.gross = 7 * SCALE, 20 * SCALE
    proposal = propose(size, BOOK, standing, account, SCALE // 1000)
    price, pending = (BOOK.ask, open_buy) if size > 0 else (BOOK.bid, open_sell)
    assert (proposal.side, proposal.price) == ((BUY, BOOK.ask) if size > 0 else (SELL, BOOK.bid))
    assert proposal.before == abs(held) * price and proposal.other_gross == 13 * SCALE
    assert proposal.after == abs(held * SCALE + proposal.side * (pending * SCALE + proposal.qty)) * price // SCALE


def test_turning_a_position_around_is_not_reducing_it():
    standing, account = world()
    standing.position = 26 * SCALE
    rules = Rules.of(Config(instruments={"X": Instrument(lot="0.001")}, risk=Risk(max_position_notional=2500.0),
                            decision=Decision(order_notional=10_000.0)), "X")
    sale = prediction(0.0)
    assert decide(sale, BOOK, standing, account, rules, NOW).reason == "NOTIONAL_POSITION"
    standing.position = 80 * SCALE
    assert decide(sale, BOOK, standing, account, rules, NOW).side == SELL, "less is held after it than before"
