"""Doubles come back as the decimals that they were, or not at all."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.errors import ConfigError, VenueError
from common.fixed import MAX, SCALE
from common.imports.doubles import exact, increment


@example([4_372_796_228_221_811, 4_296_338_860_204_703, 2**26 * SCALE - 1])  # their product with 1e8 rounds
@given(st.lists(st.integers(0, 2**26 * SCALE - 1), min_size=1))
def test_every_decimal_of_eight_places_below_67_million_comes_back(counts):
    values = np.array([count / SCALE for count in counts])
    assert exact(values, 0, "px").tolist() == counts


@given(st.integers(1, 10**6), st.lists(st.integers(0, 10**9), min_size=1))
def test_every_multiple_of_an_increment_comes_back(step, multiples):
    counts = [step * multiple for multiple in multiples]
    assert exact(np.array([count / SCALE for count in counts]), step, "px").tolist() == counts


@given(st.sampled_from([1, 2, 3, 7, 10, 25, 1000, 12_345, SCALE]), st.data())
def test_a_number_that_may_be_two_multiples_is_refused_and_never_the_wrong_one(step, data):
    count = step * data.draw(st.integers(-(2**53), 2**53).filter(lambda multiple: abs(multiple * step) <= MAX // 2))
    values = np.array([count / SCALE])
    if np.spacing(abs(values[0])) * SCALE < step:
        assert exact(values, step, "px").tolist() == [count]
    else:
        with pytest.raises(VenueError):
            exact(values, step, "px")


def test_the_noise_of_adding_doubles_is_forgiven():
    values = np.array([0.1 + 0.2, 0.11244000000000001, 1.1 * 3])
    assert exact(values, 0, "qty").tolist() == [30_000_000, 11_244_000, 330_000_000]


def test_great_numbers_need_their_increment():
    shib = np.array([123_456_789_012.0])
    with pytest.raises(VenueError, match="tick and lot"):
        exact(shib, 0, "qty")
    assert exact(shib / 10, SCALE // 10, "qty").tolist() == [1_234_567_890_120_000_000]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [0.123456789, float("nan"), float("inf"), -float("inf"), 1e300])
def test_what_is_no_decimal_is_refused_with_its_row(bad):
    with pytest.raises(VenueError, match=r"a\.npz, px, row 12"):
        exact(np.array([1.0, 2.5, bad, 0.123456789]), 0, "a.npz, px", 10)


def test_a_price_between_two_ticks_is_refused_and_not_rounded():
    assert exact(np.array([100.5]), SCALE // 2, "px").tolist() == [100 * SCALE + SCALE // 2]
    with pytest.raises(VenueError, match="100.4"):
        exact(np.array([100.4]), SCALE // 2, "px")
    with pytest.raises(VenueError, match="increment 0.50000000"):
        exact(np.array([100.5000001]), SCALE // 2, "px")


def test_an_increment_is_a_decimal_above_0():
    assert increment("", "tick") == 0
    assert increment("0.01", "tick") == 1_000_000
    for bad in ("0", "-1", "x", "1e-9"):
        with pytest.raises(ConfigError, match="tick"):
            increment(bad, "tick")
