"""The decision: pure, bounded by every limit, and never worse than its refusals."""

import dataclasses
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.config import Config, Decision, Executor, Instrument, Market, Risk
from common.decide import ALL_REASONS, Rules, decide, leave, propose, wish
from common.exits import EXITS, Exit
from common.fixed import SCALE
from common.layout import FLAG_VALID
from common.orders import BUY, SELL, Order, client_order_id
from common.ring import Top
from common.risk import FLATTENING, REDUCING, Account, Rate, Refusal, Standing
from common.wire import ABSENT, CLOCK, Prediction

NOW = 10**12
CONFIG = Config(instruments={"X": Instrument(tick="0.001", lot="0.001")})
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
    filled = position + verdict.side * (pending + verdict.qty / SCALE)
    if filled * position < 0 or abs(filled) > abs(position) * (1 + 1e-9):
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
    filled = held * SCALE + proposal.side * (pending * SCALE + proposal.qty)
    assert proposal.other_gross == 13 * SCALE and proposal.after == abs(filled) * price // SCALE
    assert proposal.shrinks == (abs(filled) <= abs(held) * SCALE and filled * held >= 0)


def test_turning_a_position_around_is_not_reducing_it():
    standing, account = world()
    standing.position = 26 * SCALE
    rules = Rules.of(Config(instruments={"X": Instrument(lot="0.001")}, risk=Risk(max_position_notional=2500.0),
                            decision=Decision(order_notional=10_000.0)), "X")
    sale = prediction(0.0)
    assert decide(sale, BOOK, standing, account, rules, NOW).reason == "NOTIONAL_POSITION"
    standing.position = 80 * SCALE
    assert decide(sale, BOOK, standing, account, rules, NOW).side == SELL, "what is held after it is within the limit"
    # Far above a limit that was lowered, less would be held after it than before, and on the other side.
    standing.position = 300 * SCALE
    standing.open_sell = 230 * SCALE
    refusal = decide(sale, BOOK, standing, account, rules, NOW)
    assert refusal.reason == "NOTIONAL_POSITION" and refusal.value < 300 * 100 * SCALE
    standing.open_sell = 0
    assert decide(sale, BOOK, standing, account, rules, NOW).side == SELL, "what only shrinks may pass"


def test_on_spot_no_more_is_sold_than_is_held():
    rules = Rules.of(dataclasses.replace(CONFIG, executor=Executor(gateway="binance-spot")), "X")
    assert decide(prediction(0.1), BOOK, *holding(0), rules, NOW) == ("REDUCE_ONLY", decide(
        prediction(0.1), BOOK, *holding(0), RULES, NOW).qty, 0)
    sale = decide(prediction(0.1), BOOK, *holding(10), rules, NOW)
    assert (sale.side, sale.qty, sale.reduce_only) == (SELL, 10 * SCALE, True)
    bought = decide(prediction(0.9), BOOK, *holding(10), rules, NOW)
    assert bought == decide(prediction(0.9), BOOK, *holding(10), RULES, NOW) and not bought.reduce_only


def rules_of(risk: Risk = Risk(), **decision) -> Rules:
    return Rules.of(dataclasses.replace(CONFIG, risk=risk, decision=Decision(**decision)), "X")


def holding(position: int, **more) -> tuple[Standing, Account]:
    """`position` units of the symbol, bought or sold at 100 ten seconds ago."""
    standing, account = world()
    standing.position, standing.cost, standing.entered_ns = position * SCALE, 100 * SCALE, NOW - 10 * 10**9
    standing.exposure = account.gross = abs(position) * 100 * SCALE
    for name, value in more.items():
        setattr(account if name in account.__slots__ else standing, name, value)
    return standing, account


NARROW = BOOK._replace(bid=9_999_500_000, ask=10_000_500_000)  # 0.5 bps each side of 100


def seen(p_up: float, **changes) -> Prediction:
    """A prediction that saw the narrow market."""
    return prediction(p_up, bid=NARROW.bid, ask=NARROW.ask, **changes)


def test_a_trade_must_earn_spread_and_fee_on_the_market_that_was_seen_and_on_that_which_is():
    rules = rules_of(cost_aware=True, fee_bps=1.0, move_bps=10.0)  # from 0.15 on
    refusal = decide(seen(0.64), NARROW, *world(), rules, NOW)
    assert refusal.reason == "SIGNAL_COST" and (refusal.value, refusal.limit) == (
        pytest.approx(0.14), pytest.approx(0.15))
    assert decide(seen(0.66), NARROW, *world(), rules, NOW).side == BUY
    assert decide(seen(0.34), NARROW, *world(), rules, NOW).side == SELL
    wider = NARROW._replace(ask=10_002_500_000)  # 1.5 bps
    refusal = decide(seen(0.66), wider, *world(), rules, NOW)
    assert refusal == ("SIGNAL_COST", pytest.approx(0.16), pytest.approx(0.25, rel=1e-3))
    assert decide(seen(0.52), None, *world(), rules, NOW).reason == "SIGNAL_WEAK", "the threshold stands beside it"
    assert decide(prediction(0.99, bid=0, ask=0), NARROW, *world(), rules, NOW).reason == "SIGNAL_COST"


def test_three_classes_are_held_against_the_same_costs():
    rules = rules_of(cost_aware=True, fee_bps=1.0, move_bps=10.0)
    assert decide(seen(0.5, p_down=0.18), NARROW, *world(), rules, NOW).side == BUY
    assert decide(seen(0.5, p_down=0.22), NARROW, *world(), rules, NOW).reason == "SIGNAL_COST"


@pytest.mark.parametrize("way", [1, -1])
def test_it_takes_more_to_enter_than_to_stay(way):
    rules = rules_of(threshold=0.1, exit_on_signal=True, hold_threshold=0.02, min_hold_s=5.0)
    def told(leaning: float, held: int, **more):
        return decide(seen(0.5 + way * leaning), NARROW, *holding(way * held, **more), rules, NOW)

    assert told(0.05, 0).reason == told(0.05, 10).reason == "SIGNAL_WEAK", "neither entered nor left"
    left = told(0.01, 10)
    assert (left.side, left.qty, left.reduce_only) == (-way, 10 * SCALE, True)
    assert told(0.01, 10, entered_ns=NOW - 10**9).reason == "SIGNAL_WEAK"
    young = told(-0.2, 10, entered_ns=NOW - 10**9)
    assert young == ("SIGNAL_HOLD", 10**9, 5 * 10**9), "too young to be turned around"
    turned = told(-0.2, 10)
    assert (turned.side, turned.qty, turned.reduce_only) == (-way, 10 * SCALE, True), "left, before it is turned around"
    assert told(0.2, 10).side == way and not told(0.2, 10).reduce_only


@pytest.mark.parametrize("way", [1, -1])
@pytest.mark.parametrize("decision, reason", [
    (dict(exit_after_s=10.0), "EXIT_HORIZON"), (dict(stop_bps=100.0), "EXIT_STOP"),
    (dict(exit_on_signal=True), "EXIT_SIGNAL")])
def test_what_is_held_is_left(decision, reason, way):
    rules = rules_of(**decision)
    p_up = 0.5 + way * (-0.01 if reason == "EXIT_SIGNAL" else 0.4)
    cost = 100 * SCALE + way * 2 * SCALE  # 2 % lost
    standing, account = holding(way * 10, cost=cost)
    wanted = wish(seen(p_up), standing, account, rules, NOW)
    assert type(wanted) is Exit and wanted.reason == reason in EXITS
    order = decide(seen(p_up), NARROW, standing, account, rules, NOW)
    assert (order.side, order.qty, order.reduce_only) == (-way, 10 * SCALE, True)
    assert order.price == (NARROW.bid if way > 0 else NARROW.ask)


def test_one_order_leaves_as_much_as_it_may_and_not_what_is_being_left_already():
    rules = rules_of(stop_bps=1.0, risk=Risk(max_order_notional=1000.0))
    order = decide(seen(0.9), NARROW, *holding(50, cost=200 * SCALE), rules, NOW)
    assert order.qty * order.price <= 1000 * SCALE**2 < (order.qty + rules.lot) * order.price
    order = decide(seen(0.9), NARROW, *holding(5, cost=200 * SCALE, open_sell=3 * SCALE), rules, NOW)
    assert order.qty == 2 * SCALE
    refusal = decide(seen(0.9), NARROW, *holding(5, cost=200 * SCALE, open_sell=5 * SCALE), rules, NOW)
    assert refusal == ("REDUCE_ONLY", 0, 0)


def test_while_reducing_only_what_shrinks_a_position_leaves_and_it_never_turns_around():
    for held, p_up in ((0, 0.9), (0, 0.1), (10, 0.9), (-10, 0.1)):
        assert decide(prediction(p_up), BOOK, *holding(held, mode=REDUCING), RULES, NOW).reason == "REDUCE_ONLY"
    sale = decide(prediction(0.1), BOOK, *holding(10, mode=REDUCING), RULES, NOW)
    assert (sale.side, sale.qty, sale.reduce_only) == (SELL, 10 * SCALE, True)
    part = decide(prediction(0.1), BOOK, *holding(100, mode=REDUCING), RULES, NOW)
    assert part.qty == decide(prediction(0.1), BOOK, *holding(100), RULES, NOW).qty < 100 * SCALE


def test_flattening_leaves_whatever_is_held_whatever_is_predicted():
    for held, p_up in ((10, 0.9), (10, 0.5), (10, math.nan), (-10, 0.1)):
        order = decide(prediction(p_up), BOOK, *holding(held, mode=FLATTENING), RULES, NOW)
        assert (order.side * held, order.qty, order.reduce_only) == (-abs(held), 10 * SCALE, True)
    assert decide(prediction(0.9), BOOK, *holding(0, mode=FLATTENING), RULES, NOW).reason == "REDUCE_ONLY"


def clock(**changes) -> Prediction:
    """What the executor's clock asks."""
    return seen(ABSENT, p_down=ABSENT, worker=CLOCK, vol=0.0, model=0, **changes)


@pytest.mark.parametrize("way", [1, -1])
@pytest.mark.parametrize("decision, more, reason", [
    (dict(exit_after_s=10.0), {}, "EXIT_HORIZON"), (dict(stop_bps=100.0), {}, "EXIT_STOP"),
    ({}, {"mode": FLATTENING}, "EXIT_FLATTEN"),
    (dict(exit_after_s=10.0, stop_bps=100.0), {"mode": FLATTENING}, "EXIT_FLATTEN")])
def test_an_exit_that_is_due_needs_no_probability(decision, more, reason, way):
    rules, cost = rules_of(**decision), 100 * SCALE + way * 2 * SCALE
    for asked in (clock(), seen(math.nan), seen(0.5, p_down=math.nan), seen(1.5), seen(0.9, vol=math.nan),
                  seen(0.5 + way * 0.4)):
        standing, account = holding(way * 10, cost=cost, **more)
        assert leave(asked.bid, asked.ask, standing, account, rules.policy, NOW).reason == reason
        assert wish(asked, standing, account, rules, NOW).reason == reason in EXITS
        order = decide(asked, NARROW, standing, account, rules, NOW)
        assert (order.side, order.qty, order.reduce_only) == (-way, 10 * SCALE, True)


def test_what_is_not_due_needs_one():
    rules = rules_of(exit_on_signal=True, hold_threshold=0.4, exit_after_s=20.0, stop_bps=300.0)
    for asked in (clock(), seen(math.nan), seen(1.5)):
        for held in (10, -10, 0):
            assert decide(asked, NARROW, *holding(held), rules, NOW).reason == "SIGNAL_INVALID"


def test_a_clock_is_not_asked_how_old_its_model_is():
    rules = rules_of(risk=Risk(max_model_age_days=1.0), exit_after_s=1.0)
    assert decide(seen(0.5), NARROW, *holding(10), rules, NOW).reason == "MODEL_UNDATED"
    assert decide(clock(), NARROW, *holding(10), rules, NOW).reduce_only


def test_one_capital_serves_all_symbols():
    rules = rules_of(capital=6_000.0)
    whole = decide(seen(0.9), NARROW, *world(), rules, NOW)
    rest = decide(seen(0.9), NARROW, *holding(0, gross=5_000 * SCALE), rules, NOW)
    assert rest.qty < whole.qty and 999 * SCALE < rest.qty * rest.price // SCALE <= 1000 * SCALE
    spent = decide(seen(0.9), NARROW, *holding(0, gross=6_000 * SCALE), rules, NOW)
    assert spent == ("CAPITAL_SPENT", 6_000 * SCALE, 6_000 * SCALE)
    smaller = decide(seen(0.1), NARROW, *holding(60, gross=9_000 * SCALE), rules, NOW)
    assert smaller.side == SELL, "what shrinks a position may pass"


def test_a_position_near_its_limit_is_added_to_in_smaller_steps():
    rules = rules_of(inventory=1.0)
    assert decide(seen(0.9), NARROW, *holding(0), rules, NOW).qty == 2 * decide(
        seen(0.9), NARROW, *holding(125), rules, NOW).qty  # 12,500 of 25,000
    assert decide(seen(0.1), NARROW, *holding(125), rules, NOW).qty == decide(
        seen(0.1), NARROW, *holding(0), rules, NOW).qty


def test_what_shrinks_to_nothing_says_why():
    rules = rules_of(inventory=1.0, drawdown=100.0)
    assert decide(seen(0.9), NARROW, *holding(250), rules, NOW) == ("SIGNAL_SHRUNK", 1.0, 1.0)
    assert decide(seen(0.9), NARROW, *holding(0, drawdown=100 * SCALE), rules, NOW) == (
        "SIGNAL_SHRUNK", 100 * SCALE, 100 * SCALE)
    rules = rules_of(sizing="kelly", capital=1e6, move_bps=10.0, fee_bps=1.0)
    assert decide(seen(0.64), NARROW, *world(), rules, NOW) == (
        "SIGNAL_COST", pytest.approx(0.14), pytest.approx(0.15))


decisions = st.fixed_dictionaries(dict(
    threshold=st.sampled_from([0.0, 0.05]), cost_aware=st.booleans(), fee_bps=st.floats(0, 5),
    move_bps=st.floats(1, 50), sizing=st.sampled_from(["linear", "power", "kelly"]),
    kelly_fraction=st.floats(0.001, 1), capital=st.sampled_from([0.0, 20_000.0, 60_000.0]),
    inventory=st.floats(0, 2), drawdown=st.sampled_from([0.0, 500.0]),
    exit_on_signal=st.booleans(), exit_after_s=st.sampled_from([0.0, 5.0, 20.0]),
    stop_bps=st.sampled_from([0.0, 5.0]), min_hold_s=st.sampled_from([0.0, 5.0, 20.0])))


@example(dict(threshold=0.0, cost_aware=False, fee_bps=0.0, move_bps=1.0, sizing="linear", kelly_fraction=1.0,
              capital=20_000.0, inventory=0.0, drawdown=0.0, exit_on_signal=False, exit_after_s=0.0, stop_bps=0.0,
              min_hold_s=0.0), 0.5, 0.0, 130, 20, 1, 0, 0, 0)
@given(decisions, st.floats(-0.5, 0.5), st.floats(0, 20), st.integers(-300, 300), st.integers(0, 20),
       st.integers(0, 50_000), st.sampled_from([0, 0, REDUCING, FLATTENING]), st.integers(0, 600), st.integers(-30, 30))
def test_it_is_symmetric_and_never_above_any_limit_whatever_is_switched_on(
        decision, leaning, vol, held, pending, others, mode, lost, cost):
    """The mirrored world, in which what was bought is sold: its book lies as far below 1e9 as this one above."""
    risk = Risk(max_net_notional=70_000.0)
    rules = rules_of(risk=risk, **decision)

    def verdict(way: int):
        standing, account = holding(way * held, mode=mode, drawdown=lost * SCALE)
        standing.open_buy, standing.open_sell = (pending * SCALE, 0)[::way]
        standing.cost += way * cost * SCALE // 100
        standing.exposure = (abs(held) + pending) * 100 * SCALE
        account.gross = standing.exposure + others * SCALE
        return decide(seen(0.5 + way * leaning, vol=vol), NARROW, standing, account, rules, NOW)

    one, other = verdict(1), verdict(-1)
    if type(one) is Refusal:
        assert type(other) is Refusal and one.reason == other.reason
        return
    # What the two hold afterwards differs as the two prices do, by a basis point.
    assert type(other) is Order and other.side == -one.side and other.reduce_only == one.reduce_only
    most = max(one.qty, other.qty) + (abs(held) + pending) * SCALE
    assert abs(one.qty - other.qty) <= most * 2e-4 + 2 * rules.lot
    working = pending if one.side == BUY else 0
    after = abs(held * SCALE + one.side * (working * SCALE + one.qty)) * one.price // SCALE
    filled = held * SCALE + one.side * (working * SCALE + one.qty)
    assert one.qty * one.price <= risk.max_order_notional * SCALE**2
    if one.reduce_only:
        assert held * one.side < 0 and one.qty <= abs(held) * SCALE - working * SCALE
    elif abs(filled) > abs(held) * SCALE or filled * held < 0:
        assert after <= 25_000 * SCALE and after + others * SCALE <= 80_000 * SCALE
        assert not decision["capital"] or after + others * SCALE <= decision["capital"] * SCALE
    if mode:
        assert one.reduce_only


@given(decisions, st.integers(-300, 300), st.integers(0, 20), st.integers(0, 20),
       st.sampled_from([0, REDUCING, FLATTENING]), st.integers(-300, 300), st.sampled_from([100.0, 10_000.0]))
def test_what_a_clock_asks_for_can_only_shrink_a_position(decision, held, buying, selling, mode, cost, most):
    rules = rules_of(risk=Risk(max_order_notional=most), **decision)
    standing, account = holding(held, mode=mode, open_buy=buying * SCALE, open_sell=selling * SCALE,
                                cost=(100 * 100 + cost) * SCALE // 100)
    verdict = decide(clock(), NARROW, standing, account, rules, NOW)
    if type(verdict) is Refusal:
        return
    working = selling if held > 0 else buying
    assert verdict.reduce_only and verdict.side * held < 0
    assert 0 < verdict.qty <= (abs(held) - working) * SCALE and verdict.qty * verdict.price <= most * SCALE**2


@given(decisions, st.floats(0, 0.5), st.floats(0, 0.5), st.integers(-200, 200))
def test_more_confidence_never_gives_a_smaller_order(decision, one, other, held):
    rules = rules_of(**{**decision, "exit_on_signal": False, "exit_after_s": 0.0, "stop_bps": 0.0})
    verdicts = [decide(seen(0.5 + leaning), NARROW, *holding(held), rules, NOW) for leaning in sorted((one, other))]
    quantities = [verdict.qty if type(verdict) is Order else 0 for verdict in verdicts]
    # what would exceed a limit is refused, not made smaller: that is the only way to less
    assert quantities[0] <= quantities[1] or verdicts[1].reason.startswith("NOTIONAL")
