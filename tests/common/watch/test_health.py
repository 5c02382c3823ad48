"""Health: each reason for which the pipeline may not be relied on is told, and no other."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Config, Executor, Inference, Market, Risk
from common.overview import BookState, StageState
from common.watch.health import TURN_LIMIT_S, expected, live, ready, traded

CONFIG = Config()
STATES = {name: StageState(True, True, 0.1, 10.0, 0, None, "") for name in expected(CONFIG)}
TOPS = {symbol: BookState(True, 0.2, 5, 99, 101) for symbol in CONFIG.symbols}
EXECUTOR = {"halted": 0, "armed": 1, "reconciled": 1, "decisions": 7}


def test_a_pipeline_in_order_is_ready():
    told = ready(CONFIG, STATES, TOPS, EXECUTOR)
    assert told.ok and told.reasons == [] and told.status == 200
    assert len(told.checks) == len(STATES) + len(TOPS) + 3


def test_each_stage_that_is_missing_or_waits_is_named():
    for name in STATES:
        gone = ready(CONFIG, {key: value for key, value in STATES.items() if key != name}, TOPS, EXECUTOR)
        assert not gone.ok and gone.status == 503
        assert gone.reasons == [f"stage {name}: it was not started, or was stopped"]
        waits = STATES[name]._replace(ready=False, waiting_for="the books ring")
        assert ready(CONFIG, {**STATES, name: waits}, TOPS, EXECUTOR).reasons == [
            f"stage {name}: waits for the books ring"]
        silent = STATES[name]._replace(ready=False, up=False, age_s=3.25)
        assert ready(CONFIG, {**STATES, name: silent}, TOPS, EXECUTOR).reasons == [
            f"stage {name}: last sign of life 3.2 s ago"]


@pytest.mark.parametrize("top, why", [
    (None, "no tick yet"),
    (BookState(False, None, 0, 0, 0), "no tick yet"),
    (BookState(False, 0.1, 9, 99, 101), "not valid: it is being synchronised with the venue"),
    (BookState(True, 5.6, 9, 99, 101), "nothing has changed it for 5.6 s"),
])
def test_a_book_must_be_valid_and_as_young_as_the_risk_limit_says(top, why):
    told = ready(CONFIG, STATES, {**TOPS, "AAPL": top}, EXECUTOR)
    assert told.reasons == [f"book AAPL: {why}"]
    check = next(check for check in told.checks if check.name == "book AAPL")
    assert check.limit == CONFIG.risk.max_book_age_ms / 1000 and check.value == (top.age_s if top else None)


def test_halted_disarmed_and_unreconciled_are_told():
    told = ready(CONFIG, STATES, TOPS, {"halted": 1, "armed": 0, "reconciled": 0})
    assert [reason.partition(":")[0] for reason in told.reasons] == [
        "executor halted", "executor armed", "executor reconciled"]
    assert all("never came" in reason for reason in ready(CONFIG, STATES, TOPS, {}).reasons)


def test_the_loopback_exchange_is_wanted_where_something_goes_there():
    venue = Market(ws_url="wss://venue.example/ws", rest_url="https://venue.example")
    away = dataclasses.replace(CONFIG, market=venue, executor=Executor(base_url="https://venue.example"))
    assert "exchange" in expected(CONFIG) and "exchange" not in expected(away)
    # Orders alone may go there, and so may the market data of one feed.
    assert "exchange" in expected(dataclasses.replace(away, executor=CONFIG.executor))
    assert "exchange" in expected(dataclasses.replace(away, feeds={"other": Market(process=1)}))
    paper = dataclasses.replace(away, executor=Executor(gateway="paper"))
    assert "exchange" not in expected(paper)


def test_every_ingest_process_and_worker_is_wanted():
    config = dataclasses.replace(CONFIG, inference=Inference(workers=3), feeds={"other": Market(process=2)})
    assert expected(config) == ("exchange", "ingest", "ingest-2", "feature", "inference-0", "inference-1",
                                "inference-2", "executor")


def test_only_books_of_symbols_that_may_be_traded_matter():
    config = dataclasses.replace(CONFIG, feeds={"other": Market(symbols=("AAPL",), process=1)},
                                 risk=Risk(allow=("AAPL", "ETH-USD", "other:AAPL"), block=("ETH-USD",)))
    assert traded(config) == ("AAPL",)  # the other feed is of a venue that orders do not go to
    assert traded(dataclasses.replace(config, executor=Executor(gateway="paper"))) == ("AAPL", "other:AAPL")


@given(st.floats(0, 100), st.floats(0.1, 100))
def test_a_process_lives_while_its_loop_turns(age_s, limit_s):
    told = live(age_s, limit_s)
    assert told.ok == (age_s <= limit_s) and bool(told.reasons) != told.ok
    assert told.status == (200 if told.ok else 503)


def test_the_body_tells_each_check_with_value_and_limit():
    told = json.loads(live(9.0).body())
    assert told == {"ok": False, "reasons": ["loop: has not turned for 9.0 s"], "checks": [
        {"name": "loop", "ok": False, "value": 9.0, "limit": TURN_LIMIT_S, "why": "has not turned for 9.0 s"}]}
    told = json.loads(ready(CONFIG, STATES, TOPS, EXECUTOR).body())
    assert told["ok"] and [check["name"] for check in told["checks"]][:2] == ["stage exchange", "stage ingest"]
