"""What a tap shows: by default what a message holds and no more, and in words what is asked for."""

import json

import pytest

from common.decision import Decision, before
from common.decision import encode as decision
from common.errors import ConfigError, WireError
from common.fixed import SCALE
from common.instant import parse
from common.links import DECISIONS, FRAMES, TAPS
from common.orders import BUY, Order
from common.ring import Top
from common.risk import Account, Rate, Standing
from common.tap_records import AMOUNTS, Told, View, fields_of
from common.wire import Credit, Prediction, TickRef, Work, encode

SYMBOLS = ("AAA", "BBB")
OFFSET = 1_700_000_000 * 10**9
PREDICTION = Prediction(1, 0, 1, 7, 5, 2, 1_721_347_020_984_480_942, 0xABC, 0.625, 0.375, 0.5, 6_100_010_000_000,
                        6_100_020_000_000, 1, 2, 3, 4, 0, 6)
PREDICTIONS = encode([PREDICTION, PREDICTION._replace(symbol=0, seq=8, p_up=0.5)])
ORDER = decision(PREDICTION, 5, 6, Top(9, 3, 1, 2, 100 * SCALE, SCALE // 2, 101 * SCALE, SCALE),
                 before(Standing(1), Account(Rate(20.0))),
                 Order("x", "BBB", BUY, SCALE // 4, 101 * SCALE, 1, 7, "LIMIT", "IOC", False), None)
MESSAGES = {FRAMES: (1).to_bytes(8, "little") + b'{"a": "AAA"}', "ticks": encode([TickRef(0, 1, 2, 3, 4)]),
            "work": encode([Work(1, 1, 2, 3, 4, 5)]), "credits": encode([Credit(0, 1, 2, 3, 4, 5)]),
            "predictions": PREDICTIONS, "judged": PREDICTIONS, DECISIONS: ORDER}


def shown(link: str, **more) -> list[dict]:
    view = View(link, **more)
    return [json.loads(view.line(record, OFFSET)) for record in view.records(MESSAGES[link], SYMBOLS, OFFSET)]


@pytest.mark.parametrize("link", TAPS)
def test_every_link_is_shown_with_the_fields_that_it_says_it_has(link):
    found = shown(link)
    assert found and all(tuple(one) == fields_of(link) for one in found)
    assert set(shown(link, told=Told(True, True, True))[0]) == set(fields_of(link))


def test_by_default_nothing_is_put_in_words_but_symbols_and_reasons():
    assert shown("predictions")[0] == {"kind_of": "Prediction", **PREDICTION._asdict(), "symbol": "BBB"}
    found = shown(DECISIONS)[0]
    assert (found["top_flags"], found["side"], found["kind"], found["outcome"], found["reason"]) == (3, 1, 2, "", "")


def test_names_amounts_and_times_in_words():
    found = shown(DECISIONS, told=Told(names=True, decimals=True, utc=True))[0]
    assert (found["kind"], found["model"]) == ("trade", "0000000000000abc")
    assert (found["top_flags"], found["side"], found["mode"], found["last_side"]) == (["valid", "reset"], "BUY",
                                                                                     "ACTIVE", "")
    assert (found["bid"], found["ask"], found["top_bid_qty"], found["qty"]) == ("61000.1", "61000.2", "0.5", "0.25")
    assert found["event_ns"] == "2024-07-18T23:57:00.984480942Z"
    assert parse(found["wish_ns"][:26] + "Z", "") == OFFSET and found["wish_ns"].endswith(".000000005Z")
    assert found["order_ns"] is None and found["dispatched_ns"].startswith("2023-11-14")
    assert isinstance(found["offset_ns"], int) and found["start_ns"] is None


def test_every_amount_is_a_field_of_something():
    assert AMOUNTS <= {*Decision._fields, *Prediction._fields}


def test_a_filter_sees_records_as_they_are_shown():
    assert [one["seq"] for one in shown("predictions", where="p_up > 0.6")] == [7]
    assert [one["seq"] for one in shown("predictions", where='symbol == "AAA"')] == [8]
    assert not shown("predictions", where='kind == "trade"') and shown("predictions", where='kind == "trade"',
                                                                       told=Told(names=True))
    assert shown("predictions", where="bid == 6100010000000")
    assert len(shown("predictions", where="61000 < bid < 61001", told=Told(decimals=True))) == 2
    assert shown(FRAMES, where='"AAA" in frame') and not shown(FRAMES, where='"BBB" in frame')


def test_a_symbol_is_chosen_by_its_name_and_in_frames_by_its_letters():
    assert [one["seq"] for one in shown("predictions", symbol="BBB")] == [7]
    assert shown(FRAMES, symbol="aaa") and not shown(FRAMES, symbol="bbb") and not shown("credits", symbol="AAA")


def test_fields_are_chosen_in_their_order_and_an_unknown_one_names_the_known():
    assert [list(one.items()) for one in shown("ticks", fields=("seq", "symbol"))] == [[("seq", 2), ("symbol", "AAA")]]
    with pytest.raises(ConfigError, match="p_up is no field of ticks.*fields are: kind_of, symbol, epoch"):
        View("ticks", fields=("p_up",))
    with pytest.raises(ConfigError, match="p_up is no field .*fields are: kind_of"):
        View("ticks", where="p_up > 0")


def test_an_index_without_a_name_is_shown_as_it_is():
    view = View("ticks")
    assert [one["symbol"] for one in view.records(MESSAGES["ticks"], (), 0)] == [0]


def test_what_is_no_message_of_the_link_is_an_error():
    with pytest.raises(WireError):
        list(View("ticks").records(b"nonsense", SYMBOLS, 0))
