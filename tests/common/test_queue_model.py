"""Places in a queue: nobody is served before those in front."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.queue_model import MODELS, POWER, RISK_AVERSE, UNSEEN, Power, RiskAverse, create

quantities = st.integers(0, 1000)


@pytest.mark.parametrize("name", MODELS)
def test_trades_serve_those_in_front_first(name):
    model = create(name)
    place = model.join(10)
    assert [model.trade(place, 4), model.trade(place, 4), model.trade(place, 4)] == [0, 0, 2]
    assert place.ahead == 0 and model.trade(place, 7) == 7


@pytest.mark.parametrize("name", MODELS)
def test_what_is_shown_bounds_what_is_in_front(name):
    model = create(name)
    place = model.join(10)
    model.change(place, 10, 3)
    assert place.ahead <= 3
    model.change(place, 3, 50)
    assert place.ahead <= 3, "who comes later stands behind"
    model.change(place, 50, 0)
    assert place.ahead == 0


@pytest.mark.parametrize("name", MODELS)
def test_a_price_out_of_sight_serves_nobody_until_it_is_seen(name):
    model = create(name)
    place = model.join(UNSEEN)
    assert model.trade(place, 10**15) == 0
    model.change(place, UNSEEN, 5)
    assert place.ahead == 5 and model.trade(place, 6) == 1


def test_the_risk_averse_model_takes_cancellations_to_be_behind():
    place = RiskAverse().join(10)
    RiskAverse().change(place, 25, 12)
    assert place.ahead == 10


def test_the_power_model_shares_cancellations_by_the_length_of_the_parts():
    model = Power(2.0)
    place = model.join(10)
    model.change(place, 30, 20)  # 10 in front, 20 behind: front^2 / (front^2 + back^2) = 1/5 of the 10 that left
    assert place.ahead == 8
    alone = model.join(10)
    model.change(alone, 10, 6)  # nobody behind: all of it was in front
    assert alone.ahead == 6


def test_what_was_traded_is_no_cancellation():
    model = Power(1.0)
    place = model.join(10)
    model.trade(place, 4)
    model.change(place, 30, 26)  # the book now says what the trade said before
    assert place.ahead == 6


@given(st.integers(0, 1000), st.lists(st.tuples(st.booleans(), quantities), max_size=30), st.sampled_from([1.0, 3.0]))
def test_nobody_is_served_before_the_queue_in_front_has_gone_and_power_is_never_behind_risk_averse(shown, events, n):
    models = RiskAverse(), Power(n)
    places = [model.join(shown) for model in models]
    front = [place.ahead for place in places]
    for is_trade, qty in events:
        for i, (model, place) in enumerate(zip(models, places)):
            before = place.ahead
            if is_trade:
                served = model.trade(place, qty)
                assert served == max(0, qty - before) and place.ahead == max(0, before - qty)
            else:
                model.change(place, shown, qty)
                assert 0 <= place.ahead <= min(before, qty)
            assert place.ahead <= front[i]
            front[i] = place.ahead
        shown = max(0, shown - qty) if is_trade else qty
    assert places[1].ahead <= places[0].ahead


def test_an_unknown_model_is_refused():
    with pytest.raises(ConfigError, match="no such queue model"):
        create("fifo")
    assert MODELS == (RISK_AVERSE, POWER)
