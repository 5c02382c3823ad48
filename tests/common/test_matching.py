"""Matching and accounts: rules by example, then the laws that hold for any sequence of orders and markets."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import fixed, matching
from common.errors import ContractError
from common.fixed import SCALE
from common.matching import (
    LIFETIMES,
    OPENING_CASH,
    TYPES,
    Accepted,
    Cancelled,
    Filled,
    Matching,
    Plan,
    Refused,
    Rejected,
    Request,
    Triggered,
    amount,
    parse_request,
    record_event,
    record_line,
)

P = fixed.parse
BOOK = ([(P("99"), P("5")), (P("98"), P("10"))], [(P("101"), P("5")), (P("102"), P("10"))])
MARKS = {"AAPL": P("100")}
NUMBERS = iter(range(1, 10**9))


def request(side: str = "BUY", kind: str = "MARKET", lifetime: str = "GTC", quantity: str = "1", limit: str = "0",
            stop: str = "0", client_id: str = "") -> Request:
    return Request(client_id or f"c{next(NUMBERS)}", "AAPL", 1 if side == "BUY" else -1, kind, lifetime, P(quantity),
                   P(limit), P(stop))


def do(engine: Matching, plan: Plan) -> list:
    for event in plan.events:
        engine.apply(event)
    return plan.events


def place(engine: Matching, asked: Request, book=BOOK, last: str = "100") -> dict:
    events = do(engine, engine.submit(asked, book, P(last), 1000, MARKS))
    return engine.orders[events[0].order_id].as_dict()


def test_a_market_order_takes_the_best_prices_first():
    engine = Matching(fee_bps=1.0)
    order = place(engine, request(quantity="7"))
    assert order["status"] == "FILLED"
    assert [(fill["price"], fill["quantity"]) for fill in order["fills"]] == [("101", "5"), ("102", "2")]
    assert order["filled_price"] == "101.28571429"
    assert order["fills"][0]["fee"] == "0.0505"
    assert engine.cash == OPENING_CASH - P("709") - P("0.0709")


def test_what_a_market_order_does_not_find_is_cancelled():
    order = place(Matching(), request("SELL", quantity="20"))
    assert (order["status"], order["filled_quantity"], order["filled_price"]) == ("CANCELLED", "15", "98.33333333")


def test_a_market_order_against_an_empty_side_is_cancelled():
    order = place(Matching(), request(), book=([], []))
    assert (order["status"], order["filled_quantity"], order["filled_price"]) == ("CANCELLED", "0", None)


def test_a_limit_order_takes_up_to_its_price_and_waits_with_the_rest():
    order = place(Matching(), request(kind="LIMIT", quantity="7", limit="101"))
    assert (order["status"], order["filled_quantity"]) == ("PARTIALLY_FILLED", "5")


def test_a_passive_limit_order_is_open():
    assert place(Matching(), request(kind="LIMIT", limit="100"))["status"] == "OPEN"


def test_an_ioc_order_that_is_partly_filled_ends_cancelled():
    order = place(Matching(), request(kind="LIMIT", lifetime="IOC", quantity="7", limit="101"))
    assert (order["status"], order["filled_quantity"]) == ("CANCELLED", "5")


def test_a_fok_order_is_filled_whole_or_not_at_all():
    engine = Matching()
    assert place(engine, request(kind="LIMIT", lifetime="FOK", quantity="5", limit="101"))["status"] == "FILLED"
    order = place(engine, request(kind="LIMIT", lifetime="FOK", quantity="7", limit="101"))
    assert (order["status"], order["filled_quantity"]) == ("CANCELLED", "0")


def rest(engine: Matching, *args, **kwargs) -> str:
    return place(engine, request(*args, **kwargs))["id"]


def market(engine: Matching, book=BOOK, trades=()) -> Plan:
    plan = engine.on_market("AAPL", book, [(P(price), P(quantity)) for price, quantity in trades], 2000)
    do(engine, plan)
    return plan


def test_a_resting_order_fills_at_its_price_when_the_market_trades_through_it():
    engine = Matching()
    order = engine.orders[rest(engine, kind="LIMIT", quantity="3", limit="100")]
    market(engine, trades=[("100", "9")])
    assert order.status == "OPEN", "a trade at the price itself may have been somebody else's"
    market(engine, trades=[("99.99", "2")])
    assert (order.status, order.fills[0].price, order.filled) == ("PARTIALLY_FILLED", P("100"), P("2"))
    market(engine, trades=[("99", "9")])
    assert (order.status, order.filled) == ("FILLED", P("3"))


def test_a_resting_order_fills_when_the_other_side_is_quoted_at_its_price_and_uses_that_up():
    engine = Matching()
    order = engine.orders[rest(engine, "SELL", kind="LIMIT", quantity="3", limit="100")]
    plan = market(engine, book=([(P("100"), P("2")), (P("99"), P("5"))], BOOK[1]))
    assert (order.filled, order.fills[0].price) == (P("2"), P("100"))
    assert plan.taken == [("AAPL", False, [(P("100"), P("2"))], False)]


def test_resting_orders_share_what_there_is_best_price_first_then_age():
    engine = Matching()
    low = rest(engine, kind="LIMIT", quantity="2", limit="99.5")
    first, second = (rest(engine, kind="LIMIT", quantity="2", limit="100") for _ in range(2))
    market(engine, trades=[("98", "-3")])
    assert [engine.orders[key].filled for key in (first, second, low)] == [P("2"), P("1"), 0]


@pytest.mark.parametrize(("side", "stop", "near", "through"),
                         [("BUY", "105", "104.99", "105"), ("SELL", "95", "95.01", "94")])
def test_a_stop_waits_for_a_trade_at_its_price_and_then_is_a_market_order(side, stop, near, through):
    engine = Matching()
    order = engine.orders[rest(engine, side, kind="STOP", stop=stop)]
    market(engine, trades=[(near, "1")])
    assert order.status == "OPEN" and not order.triggered
    market(engine, trades=[(through, "1")])
    assert order.status == "FILLED" and order.triggered


def test_a_stop_that_is_reached_already_goes_off_at_once():
    assert place(Matching(), request(kind="STOP", stop="100"), last="100")["status"] == "FILLED"


def test_a_stop_limit_order_becomes_a_limit_order():
    engine = Matching()
    order = engine.orders[rest(engine, kind="STOP_LIMIT", stop="105", limit="100", quantity="1")]
    market(engine, trades=[("94", "9")])
    assert order.status == "OPEN" and not order.filled, "it does not work before its stop"
    market(engine, trades=[("105", "1")])
    assert order.status == "OPEN" and order.triggered
    market(engine, trades=[("99", "1")])
    assert order.status == "FILLED"


def test_day_orders_end_with_their_day():
    engine = Matching()
    day, gtc = (rest(engine, kind="LIMIT", limit="90", lifetime=lifetime) for lifetime in ("DAY", "GTC"))
    do(engine, engine.expire(matching.DAY_MS - 1))
    assert engine.orders[day].status == "OPEN"
    do(engine, engine.expire(matching.DAY_MS))
    assert (engine.orders[day].status, engine.orders[gtc].status) == ("CANCELLED", "OPEN")


def test_a_cancelled_order_stays_as_it_was_filled():
    engine = Matching()
    order = engine.orders[rest(engine, kind="LIMIT", quantity="7", limit="101")]
    do(engine, engine.cancel(order, 3000))
    assert (order.status, order.filled) == ("CANCELLED", P("5"))
    assert not engine.working["AAPL"]
    assert market(engine, trades=[("50", "9")]).events == []


def test_exposure_above_the_limit_is_rejected_but_may_always_shrink():
    engine = Matching()
    deep = ([(P("100"), P("100000"))], [(P("100"), P("100000"))])
    order = place(engine, request(quantity="40001"), book=deep)
    assert (order["status"], order["rejection_reason"]) == ("REJECTED", "RISK_EXPOSURE")
    place(engine, request(quantity="39000"), book=deep)
    engine.cash -= P("900000")  # as after a loss
    assert place(engine, request(quantity="1"), book=deep)["status"] == "REJECTED"
    assert place(engine, request("SELL", quantity="1000"), book=deep)["status"] == "FILLED"


def test_positions_are_carried_at_average_cost_through_zero():
    engine = Matching(fee_bps=0)

    def trade(side: str, quantity: str, price: str) -> tuple:
        level = [(P(price), P("100"))]
        place(engine, request(side, quantity=quantity), book=(level, level))
        held = engine.positions["AAPL"]
        return fixed.text(held.quantity), fixed.text(held.average_price), fixed.text(engine.realised)

    assert trade("BUY", "2", "100") == ("2", "100", "0")
    assert trade("BUY", "2", "110") == ("4", "105", "0")
    assert trade("SELL", "1", "115") == ("3", "105", "10")
    assert trade("SELL", "5", "100") == ("-2", "100", "-5")
    assert trade("BUY", "2", "90") == ("0", "0", "15")
    assert engine.cash == OPENING_CASH + P("15")
    assert engine.portfolio({})["positions"] == []


def test_the_portfolio_is_valued_at_the_mid():
    engine = Matching(fee_bps=0)
    place(engine, request(quantity="2"))
    assert engine.portfolio({"AAPL": P("150")}) == {
        "cash": "999798", "equity": "1000098", "realised": "0", "fees": "0",
        "positions": [{"symbol": "AAPL", "quantity": "2", "average_price": "101"}]}


def test_a_plan_changes_nothing_until_it_is_applied():
    engine = Matching()
    plan = engine.submit(request(quantity="7"), BOOK, P("100"), 1000, MARKS)
    assert engine.orders == {} and engine.cash == OPENING_CASH and len(plan.events) == 3


def test_old_final_orders_are_forgotten_and_open_ones_are_not(monkeypatch):
    monkeypatch.setattr(matching, "REMEMBERED", 3)
    engine = Matching()
    kept = rest(engine, kind="LIMIT", limit="50", client_id="open")
    done = [rest(engine, client_id=f"done-{i}") for i in range(5)]
    assert [key for key in done if key in engine.orders] == done[2:] and kept in engine.orders
    assert engine.find("done-0") is None and engine.find("done-4") is not None
    assert engine.counts["orders"] == 6


# What users send.

GOOD = {"symbol": "AAPL", "asset_type": "EQUITY", "side": "SELL", "order_type": "STOP_LIMIT", "time_in_force": "DAY",
        "quantity": "3", "limit_price": "189.50", "stop_price": "190", "client_order_id": "run-1_a"}
INCREMENTS = {"AAPL": (P("0.01"), P("1"))}


def test_an_order_is_read_exactly():
    assert parse_request(orjson.dumps(GOOD), INCREMENTS) == Request(
        "run-1_a", "AAPL", -1, "STOP_LIMIT", "DAY", P("3"), P("189.5"), P("190"))


@pytest.mark.parametrize(("change", "field"), [
    ({"symbol": "MSFT"}, "symbol"), ({"symbol": None}, "symbol"), ({"side": "buy"}, "side"), ({"side": 1}, "side"),
    ({"order_type": "ICEBERG"}, "order_type"), ({"time_in_force": "GTX"}, "time_in_force"),
    ({"quantity": 3}, "quantity"), ({"quantity": 3.5}, "quantity"), ({"quantity": "0"}, "quantity"),
    ({"quantity": "-3"}, "quantity"), ({"quantity": "1.5"}, "quantity"), ({"quantity": "1e999999"}, "quantity"),
    ({"quantity": "NaN"}, "quantity"), ({"quantity": "9" * 5000}, "quantity"),
    ({"quantity": "92233720369"}, "quantity"), ({"quantity": None}, "quantity"),
    ({"limit_price": None}, "limit_price"), ({"limit_price": "189.505"}, "limit_price"),
    ({"stop_price": " 190"}, "stop_price"), ({"order_type": "MARKET"}, "limit_price"),
    ({"order_type": "LIMIT"}, "stop_price"), ({"client_order_id": ""}, "client_order_id"),
    ({"client_order_id": "x" * 37}, "client_order_id"), ({"client_order_id": "a b"}, "client_order_id"),
    ({"client_order_id": 5}, "client_order_id"), ({"asset_type": 5}, "asset_type")])
def test_a_malformed_order_is_refused_naming_the_field(change, field):
    with pytest.raises(Refused) as caught:
        parse_request(orjson.dumps(GOOD | change), INCREMENTS)
    assert caught.value.field == field and field in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'"x"', b'{"symbol":{}}'])
def test_a_body_that_is_no_order_is_refused(body):
    with pytest.raises(Refused):
        parse_request(body, INCREMENTS)


# What the record holds.

def test_a_record_line_reads_back_as_its_event():
    asked = request("SELL", "STOP_LIMIT", "DAY", "1.25", "99.5", "98.5")
    for event in (Accepted("O1", 5, asked), Rejected("O1", 5, asked, "RISK_EXPOSURE"), Triggered("O1", 5),
                  Filled("O1", 5, "F1", P("99.5"), P("0.1"), P("0.001")), Cancelled("O1", 5, "TIF_IOC")):
        line = record_line(event)
        assert record_event(line) == event and line.endswith(b"}\n") and line.count(b"\n") == 1


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b'{"event":"party"}', b'{"event":"fill"}',
                                  b'{"event":"trigger","order_id":"O1","time_ms":1,"more":2}',
                                  b'{"event":"fill","order_id":"O1","time_ms":1,"fill_id":"F1","price":"x",'
                                  b'"quantity":"1","fee":"0"}'])
def test_a_line_that_is_not_of_a_record_is_refused(line):
    with pytest.raises(ContractError):
        record_event(line)


def test_a_record_that_does_not_fit_together_is_refused_naming_the_line():
    lines = [record_line(Accepted("O1", 5, request())), record_line(Filled("O2", 5, "F1", 1, 1, 0))]
    with pytest.raises(ContractError, match=r"exchange\.jsonl:2"):
        Matching().restore(lines, "exchange.jsonl")


# Laws.

prices = st.integers(90, 110)
quantities = st.integers(1, 40)
sides = st.lists(st.tuples(st.integers(1, 5), quantities), max_size=4)


@st.composite
def books(draw):
    mid = draw(prices)
    bids, asks = [], []
    for levels, way in ((bids, -1), (asks, 1)):
        price = mid
        for gap, quantity in draw(sides):
            price += way * gap
            levels.append((price * SCALE, quantity * SCALE // 4))
    return bids, asks


@st.composite
def orders(draw):
    kind = draw(st.sampled_from(TYPES))
    return Request("", "AAPL", draw(st.sampled_from((1, -1))), kind, draw(st.sampled_from(LIFETIMES)),
                   draw(quantities) * SCALE // 4, draw(prices) * SCALE if kind in ("LIMIT", "STOP_LIMIT") else 0,
                   draw(prices) * SCALE if kind.startswith("STOP") else 0)


trades = st.lists(st.tuples(prices.map(lambda p: p * SCALE), quantities.map(lambda q: q * SCALE // 4)), max_size=3)
moves = st.one_of(st.tuples(st.just("submit"), orders(), books(), prices),
                  st.tuples(st.just("market"), books(), trades),
                  st.tuples(st.just("cancel"), st.integers(0, 30)), st.tuples(st.just("expire"), st.integers(0, 3)))


def state(engine: Matching) -> tuple:
    return (engine.cash, engine.realised, engine.fees, engine.positions, engine.orders, engine.by_client_id,
            {symbol: list(working) for symbol, working in engine.working.items()}, engine.counts, list(engine._done))


@settings(max_examples=150)
@given(st.lists(moves, max_size=25), st.sampled_from((0.0, 1.0, 2.5)))
def test_whatever_happens_orders_cash_and_record_agree(story, fee_bps):
    engine, record, now = Matching(fee_bps), [], 0
    for number, (what, *details) in enumerate(story):
        now += 30_000_000
        plan = Plan([], [])
        book: tuple = ([], [])
        if what == "submit":
            asked, book, last = details
            plan = engine.submit(asked._replace(client_order_id=f"c{number}"), book, last * SCALE, now,
                                 {"AAPL": last * SCALE})
        elif what == "market":
            book, printed = details
            plan = engine.on_market("AAPL", book, printed, now)
        elif what == "cancel":
            order = engine.orders.get(f"O{details[0]}")
            plan = engine.cancel(order, now) if order and not order.final else plan
        else:
            plan = engine.expire(now + details[0] * matching.DAY_MS)
        for taken in plan.taken:  # never more than is displayed
            side = dict(book[taken.buy])
            assert all(quantity > 0 for _, quantity in taken.levels)
            assert all(side[price] >= quantity for price, quantity in taken.levels)
        for side, buy in zip(book, (False, True)):
            for price, displayed in side:
                assert displayed >= sum(quantity for taken in plan.taken if taken.buy == buy
                                        for at, quantity in taken.levels if at == price)
        record += [record_line(event) for event in plan.events]
        do(engine, plan)
        check(engine)
    again = Matching(fee_bps)
    again.restore(record)
    assert state(again) == state(engine)


def check(engine: Matching) -> None:
    """The laws of an account."""
    position = fees = 0
    cash = OPENING_CASH
    for order in engine.orders.values():
        r = order.request
        assert order.filled == sum(fill.quantity for fill in order.fills) <= r.quantity
        assert (order.status == "FILLED") == (order.filled == r.quantity)
        assert order.final == (order.id not in engine.working["AAPL"])
        assert order.status not in ("OPEN", "REJECTED") or not order.filled
        if r.time_in_force in ("IOC", "FOK") and not order.waits_for_stop:
            assert order.final
        if r.time_in_force == "FOK":
            assert order.filled in (0, r.quantity)
        for fill in order.fills:
            assert fill.quantity > 0 and (not r.limit_price or (r.limit_price - fill.price) * r.side >= 0)
            position += fill.quantity * r.side
            cash -= amount(fill.price, fill.quantity * r.side) + fill.fee
            fees += fill.fee
    held = engine.positions.get("AAPL")
    assert (held.quantity if held else 0) == position
    assert held is None or (held.quantity == 0) == (held.cost == 0) and held.quantity * held.cost >= 0
    assert engine.cash == cash and engine.fees == fees
    assert engine.cash + (held.cost if held else 0) == OPENING_CASH + engine.realised - engine.fees
