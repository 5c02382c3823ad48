"""The context of an order: what goes in comes out, to the last bit."""

import math

import pytest

from common.decision import before
from common.errors import ContractError
from common.explain_context import BEFORE, decode, encode
from common.ring import Top
from common.risk import Account, Rate, Standing
from common.wire import Prediction
from tests import explained


def test_what_goes_in_comes_out_to_the_last_bit():
    prediction = explained.prediction(p_up=math.nextafter(0.7, 1), vol=1e-300 / 3, model=2**64 - 1)
    standing, account = Standing(7, 41), Account(Rate(5.0, 123))
    standing.position, account.gross = -(2**62), 2**62
    found = decode(encode(prediction, explained.market(), before(standing, account), 40, 1, 2, 3, "abc"))
    assert Prediction(**found["prediction"]) == prediction and Top(**found["market"]) == explained.market()
    assert list(found["before"]) == list(BEFORE)
    assert (found["before"]["newest"], found["before"]["position"], found["before"]["gross"]) == (40, -(2**62), 2**62)
    assert (found["wish_ns"], found["answer_ns"], found["decided_ns"], found["config"]) == (1, 2, 3, "abc")


def test_the_names_are_as_many_as_what_stood():
    assert len(BEFORE) == len(before(Standing(1), Account(Rate(1.0)))) and {"position", "gross", "barred"} < set(BEFORE)


@pytest.mark.parametrize("text", ["", "[]", "{", "7"])
def test_what_is_no_context_is_refused(text):
    with pytest.raises(ContractError, match="cannot be read"):
        decode(text)
