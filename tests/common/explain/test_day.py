"""The report of a day: exact, whatever was held before, and silent about what is not known."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.explain.day import bounds, day_of, report
from common.fixed import SCALE, parse
from common.positions import Position

DAY = "2024-07-18"
BEGIN, END = bounds(DAY)


def fill(n: int, side: str, qty: int, price: int, fee: int = 0, symbol: str = "A") -> dict:
    return {"client_id": f"c{n}", "symbol": symbol, "side": side, "qty": qty, "price": price, "fee": fee,
            "at_ns": BEGIN + n}


def order(n: int, state: str = "filled", symbol: str = "A", reason: str = "") -> dict:
    return {"client_id": f"c{n}", "symbol": symbol, "state": state, "reason": reason, "created_ns": BEGIN + n}


def test_a_day_is_one_of_utc():
    assert (BEGIN, END - BEGIN) == (1_721_260_800_000_000_000, 86_400_000_000_000)
    assert day_of(BEGIN) == DAY == day_of(END - 1) and day_of(BEGIN - 1) == "2024-07-17"
    for words in ("yesterday", "2024-7-18", "2024-02-30"):
        with pytest.raises(ConfigError, match=f"not a day.*{words}"):
            bounds(words)


def test_profit_of_the_day_is_that_of_the_day_alone():
    before = {"A": Position(2 * SCALE, 20 * SCALE * SCALE, 7 * SCALE * SCALE, 3 * SCALE)}
    tree = report(DAY, [order(1), order(2, "rejected", "B", "no money")], [{}, {}], [],
                  [fill(1, "SELL", SCALE, 12 * SCALE, SCALE // 2)], before, 4 * SCALE, {"A": 11 * SCALE})
    assert tree["profit"] == {"realised": "2", "fees": "0.5", "net": "1.5", "unrealised": "1", "opening": "4",
                              "since_opening": "2.5"}
    assert tree["orders"] == {"count": 2, "states": {"filled": 1, "rejected": 1}, "reasons": {"no money": 1}}
    assert tree["fills"] == {"count": 1, "turnover": "12", "fees": "0.5"}
    assert tree["symbols"]["A"] == {"orders": 1, "fills": 1, "bought": "0", "sold": "1", "turnover": "12",
                                    "fees": "0.5", "realised": "2", "before": "2", "position": "1",
                                    "average_cost": "10", "mark": "11", "unrealised": "1"}
    assert [(point["at_ns"], point["net"], point["held"]["A"]) for point in tree["curve"]] == [
        (BEGIN, "0", "20"), (BEGIN + 1, "1.5", "10")]
    assert before["A"].qty == 2 * SCALE, "what was given is left as it was"
    json.dumps(tree)


def test_what_is_held_without_a_price_is_worth_nothing_that_could_be_told():
    held = {"A": Position(SCALE, SCALE * SCALE), "B": Position(0, 0, SCALE * SCALE)}
    for marks in (None, {}, {"B": 1}):
        told = report(DAY, [], [], [], [], held, 0, marks)["profit"]
        assert told["unrealised"] is None is told["since_opening"]
    assert report(DAY, [], [], [], [], held, 0, {"A": SCALE})["profit"]["since_opening"] == "1"
    assert report(DAY, [], [], [], [], {}, None, {})["profit"]["unrealised"] == "0"


@given(st.lists(st.tuples(st.sampled_from(["BUY", "SELL"]), st.integers(1, 10**10), st.integers(1, 10**12),
                          st.integers(-10**6, 10**6)), max_size=20), st.integers(-10**10, 10**10))
@settings(max_examples=50)
def test_realised_of_the_day_is_what_a_position_books(history, held):
    before = {"A": Position(held, held * 10**9)} if held else {}
    expected = Position(held, held * 10**9)
    fills = [fill(n, *each) for n, each in enumerate(history, 1)]
    for side, qty, price, fee in history:
        expected.fill(1 if side == "BUY" else -1, qty, price, fee)
    tree = report(DAY, [], [], [], fills, before)
    assert parse(tree["profit"]["realised"]) == expected.realised // SCALE
    assert parse(tree["fills"]["fees"]) == expected.fees
    assert len(tree["curve"]) == len(history) + 1
    if "A" in tree["symbols"]:
        assert parse(tree["symbols"]["A"]["position"]) == expected.qty


def test_latencies_are_of_the_stamps_and_of_the_events():
    stamps = dict(zip(("recv_ns", "book_ns", "row_ns", "dispatched_ns", "start_ns", "end_ns"),
                      (0, 1_000, 3_000, 6_000, 10_000, 15_000)))
    events = [{"client_id": "c1", "at_ns": BEGIN + 1 + 50_000, "state": "sent"},
              {"client_id": "c1", "at_ns": BEGIN + 1 + 80_000, "state": "acknowledged"},
              {"client_id": "c1", "at_ns": BEGIN + 1 + 99_000, "state": "acknowledged"},  # only the first counts
              {"client_id": "elsewhere", "at_ns": BEGIN, "state": "sent"}]
    tree = report(DAY, [order(1), order(2)], [{"prediction": stamps, "decided_ns": 21_000}, {}], events, [], {})
    found = {name: told["p50"] for name, told in tree["latency_us"].items()}
    assert found == {"ingest": 1, "feature": 2, "dispatch": 3, "queue": 4, "inference": 5, "decide": 6,
                     "tick_to_decision": 21, "journal": 50, "ack": 30, "fill": None}
    assert tree["latency_us"]["ack"]["count"] == 1 and tree["latency_us"]["fill"]["count"] == 0


def test_refusals_are_told_the_most_frequent_first_or_not_at_all():
    assert report(DAY, [], [], [], [], {})["refusals"] is None
    told = report(DAY, [], [], [], [], {}, refusals={"A": 1, "B": 5})["refusals"]
    assert list(told.items()) == [("B", 5), ("A", 1)]
