"""The context of an order: what goes in comes out, to the last bit."""

import math

import orjson
import pytest

from common.decision import before
from common.errors import ContractError
from common.explain.context import BEFORE, LAYOUT, decode, encode
from common.journal import Journal
from common.ring import Top
from common.risk import Account, Rate, Standing
from common.wire import ABSENT, Prediction
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


def test_what_is_no_number_comes_out_as_none():
    prediction = explained.prediction()._replace(p_up=math.nan, p_down=ABSENT)
    told = decode(encode(prediction, explained.market(), before(Standing(7), Account(Rate(1.0))), 0, 1, 2, 3, ""))
    assert math.isnan(told["prediction"]["p_up"]) and told["prediction"]["p_down"] == ABSENT


def test_the_layout_of_another_version_is_found_by_its_id_and_what_is_older_has_its_names():
    journal = Journal.private()
    name = journal.configured('["config", "decided_ns", "prediction.p_up"]', 1)
    kept = {name: '["config", "decided_ns", "prediction.p_up"]'}.get
    text = f'["{name}", "abc", 5, 0.5]'
    assert decode(text, kept) == {"config": "abc", "decided_ns": 5, "prediction": {"p_up": 0.5}}
    for wrong in (lambda: decode(text), lambda: decode(f'["{name}", "abc", 5]', kept)):
        with pytest.raises(ContractError, match="cannot be read"):
            wrong()
    ours = encode(explained.prediction(), explained.market(), before(Standing(7), Account(Rate(1.0))), 0, 1, 2, 3, "")
    assert orjson.loads(ours)[0] == journal.configured(LAYOUT, 1), "the journal names it as the context does"
    assert decode('{"decided_ns": 5}') == {"decided_ns": 5} and decode("{}") == {}


@pytest.mark.parametrize("text", ["", "[]", "{", "7"])
def test_what_is_no_context_is_refused(text):
    with pytest.raises(ContractError, match="cannot be read"):
        decode(text)
