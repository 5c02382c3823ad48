"""Explanations: made again from what was recorded, told as not recorded where it was not."""

import dataclasses
import json

import pytest

from common.config import Config, Decision, Risk
from common.explain import context as explain_context
from common.explain.order import OFF, PASSED, REFUSED, UNKNOWN, explain, levels
from common.journal import Journal, Reader
from common.layout import ASK_PX, ASK_QTY, BID_PX, BID_QTY, TICK_WIDTH
from common.orders import State
from common.risk import ADMISSION, MOMENT, ORDER
from tests import explained

CHECKS = [check.name for check in ADMISSION + MOMENT + ORDER]


@pytest.fixture
def told(tmp_path):
    """(order, context, history, fills) of what `explained.write` wrote."""
    def make(config: Config = Config(), **changes):
        journal = Journal.open(tmp_path / "journal.db")
        order = explained.write(journal, config, **changes)
        journal.close()
        reader = Reader(tmp_path / "journal.db")
        row = reader.order(order.client_id)
        found = (row, explain_context.decode(row["context"]), reader.history(order.client_id),
                 reader.fills(client_id=order.client_id)[::-1])
        reader.close()
        return found

    return make


def check(tree, name: str) -> dict:
    return next(found for found in tree["checks"] if found["check"] == name)


def steps(tree) -> dict:
    return {step["step"]: step["value"] for step in tree["size"]}


def test_an_order_follows_from_what_was_recorded(told):
    tree = explain(*told(), Config())
    assert tree["not_recorded"] == [] and tree["verdict"] == {"again": "BUY 39.996 at 100.01", "same": True}
    assert steps(tree) == {"lean": pytest.approx(0.4), "threshold": True, "share": pytest.approx(0.8),
                           "volatility": 1.0, "size": "4000", "quantity": "39.996"}
    assert [found["check"] for found in tree["checks"]] == CHECKS
    assert {found["verdict"] for found in tree["checks"]} == {PASSED, OFF}
    assert tree["market"] == {"seq": 1, "valid": True, "bid": "99.99", "bid_qty": "100", "ask": "100.01",
                              "ask_qty": "90", "mid": "100", "spread_bps": pytest.approx(2.0), "age_ns": 59_000}
    assert tree["prediction"]["model"] == "000000000000abcd" and tree["prediction"]["tick"] == "book"
    assert tree["totals"]["price"] == "100.01" and tree["totals"]["slippage_bps"] == pytest.approx(1.0)
    assert tree["totals"]["fees"] == "0.00000006" and len(tree["fills"]) == 2
    json.dumps(tree)


def test_each_check_tells_value_and_limit_in_the_unit_of_its_key(told):
    tree = explain(*told(held=10 * 10**8), Config())
    found = {name: (check(tree, name)["value"], check(tree, name)["key"], check(tree, name)["limit"])
             for name in ("fresh_data", "fresh_book", "order_notional", "price_collar", "position_notional",
                          "gross_notional", "daily_loss")}
    assert found == {
        "fresh_data": (0.6, "risk.max_age_ms", 250.0),
        "fresh_book": (pytest.approx(0.051), "risk.max_book_age_ms", 5000.0),
        "order_notional": ("3999.99996", "risk.max_order_notional", 10_000.0),
        "price_collar": (pytest.approx(1.0), "risk.collar_bps", 50.0),
        "position_notional": ("5000.09996", "risk.max_position_notional", 25_000.0),
        "gross_notional": ("5000.09996", "risk.max_gross_notional", 80_000.0),
        "daily_loss": ("0", "risk.max_daily_loss", 5_000.0),
    }
    assert check(tree, "newer_sequence")["read"] == {
        "prediction.epoch": 7, "standing.epoch": 7, "prediction.seq": 1, "standing.seq": 0}


def test_a_limit_from_below_is_told_as_one(told):
    row, context, history, fills = told()
    context["before"]["order_ns"] = explained.NOW - 400_000_000
    found = check(explain(row, context, history, fills, Config()), "symbol_cooldown")
    assert (found["value"], found["limit"], found["at_least"]) == (pytest.approx(400.001), 250.0, True)
    context["before"]["order_ns"] = explained.NOW - 100_000_000
    found = check(explain(row, context, history, fills, Config()), "symbol_cooldown")
    assert (found["verdict"], found["at_least"]) == (REFUSED, True)
    assert not check(explain(row, context, history, fills, Config()), "fresh_data")["at_least"]


def test_a_profit_is_a_value_of_the_loss_too(told):
    row, context, history, fills = told()
    context["before"]["day_loss"] = -5 * 10**8
    assert check(explain(row, context, history, fills, Config()), "daily_loss")["value"] == "-5"


def test_a_check_that_refuses_today_says_so_and_the_verdict_differs(told):
    row, context, history, fills = told()
    tight = dataclasses.replace(Config(), risk=Risk(max_position_notional=3_000.0))
    tree = explain(row, context, history, fills, tight)
    refused = check(tree, "position_notional")
    assert (refused["verdict"], refused["reason"]) == (REFUSED, "NOTIONAL_POSITION")
    assert (refused["value"], refused["limit"]) == ("3999.99996", 3_000.0)
    assert tree["verdict"] == {"again": "a refusal", "same": False}


def test_an_order_of_another_size_than_what_follows_is_noticed(told):
    row, context, history, fills = told()
    assert explain({**row, "qty": row["qty"] + 1}, context, history, fills, Config())["verdict"]["same"] is False


def test_what_reduces_passes_whatever_the_limit_and_tells_no_value(told):
    tree = explain(*told(p_up=0.1, held=100 * 10**8), Config())
    found = check(tree, "position_notional")
    assert tree["order"]["side"] == "SELL" and (found["verdict"], found["value"]) == (PASSED, None)


def test_what_an_older_version_wrote_is_told_as_far_as_it_goes(told):
    row, context, history, fills = told()
    old = {key: context[key] for key in ("prediction", "market", "decided_ns")}
    tree = explain(row, old, history, fills, Config())
    assert tree["not_recorded"] == ["before"] and tree["verdict"] == {"again": UNKNOWN, "same": None}
    for name in ("trading_state", "newer_sequence", "nothing_unresolved", "daily_loss", "order_rate",
                 "position_notional", "gross_notional"):
        assert check(tree, name)["verdict"] == UNKNOWN, name
    for name in ("fresh_data", "usable_book", "fresh_book", "quantity_in_lots", "order_notional", "price_collar"):
        assert check(tree, name)["verdict"] == PASSED, name
    assert check(tree, "order_notional")["value"] == "3999.99996" and steps(tree)["size"] == "4000"
    for config, context, missing in ((None, context, ["config"]),
                                     (None, {}, ["prediction", "market", "config", "before"])):
        tree = explain(row, context, history, fills, config)
        assert tree["not_recorded"] == missing and tree["checks"] == tree["size"] == []
        assert [step["stage"] for step in tree["waterfall"]][-4:] == ["journal", "acknowledged", "partly filled",
                                                                      "filled"]


@pytest.mark.parametrize("decision, factor", [
    (Decision(inventory=2.0), "inventory"), (Decision(cost_aware=True, move_bps=50.0), "break-even"),
    (Decision(sizing="kelly", capital=100_000.0, move_bps=50.0), "share"), (Decision(drawdown=500.0), "drawdown"),
])
def test_whatever_rule_made_the_size_is_told(told, decision, factor):
    config = dataclasses.replace(Config(), decision=decision)
    tree = explain(*told(config, held=10 * 10**8), config)
    assert factor in steps(tree) and tree["verdict"]["same"]
    if factor == "inventory":
        assert steps(tree)["inventory"] == pytest.approx((1 - 1_000 / 25_000) ** 2)


def test_an_exit_is_told_as_one(told):
    config = dataclasses.replace(Config(), decision=Decision(exit_on_signal=True))
    tree = explain(*told(config, p_up=0.2, held=10 * 10**8), config)
    assert steps(tree) == {"lean": pytest.approx(-0.3), "exit": "leave", "cut": "10"} and tree["verdict"]["same"]


def test_the_waterfall_adds_up(told):
    tree = explain(*told(), Config())
    steps = tree["waterfall"]
    assert [(step["stage"], step["ns"]) for step in steps] == [
        ("ingest", 100_000), ("feature", 100_000), ("dispatch", 100_000), ("queue", 100_000), ("inference", 100_000),
        ("decide", 109_000), ("journal", 40_000), ("acknowledged", 860_000), ("partly filled", 50_001), ("filled", 1)]
    for step, after in zip(steps, steps[1:]):
        assert after["at_ns"] == step["at_ns"] + step["ns"]
    assert [step["clock"] for step in steps] == ["monotonic"] * 6 + ["wall"] * 4


def test_an_order_that_is_still_out_has_no_end(told):
    tree = explain(*told(end=State.SENT), Config())
    assert tree["order"]["state"] == "sent" and tree["fills"] == [] and tree["totals"]["price"] is None


def test_levels_are_those_that_are_there():
    tick = [0] * TICK_WIDTH
    tick[BID_PX], tick[BID_QTY], tick[BID_PX + 1], tick[BID_QTY + 1], tick[ASK_PX], tick[ASK_QTY] = 9, 1, 8, 2, 10, 3
    assert levels(tick) == {"bids": [(9, 1), (8, 2)], "asks": [(10, 3)]}
