"""Fixed point: exact both ways, or refused."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import fixed
from common.errors import VenueError


@given(st.integers(-fixed.MAX, fixed.MAX))
def test_text_and_number_are_the_same_thing(value):
    assert fixed.parse(fixed.text(value)) == value
    assert Decimal(fixed.text(value)) == Decimal(value) / fixed.SCALE


@pytest.mark.parametrize("text", ["0.000000001", "92233720368.54775808", "nan", "Infinity", "", "12a", "1,5", None,
                                  "1_0", "1.0000000000000000000000000000001", " 5 ", "1e999999", "1e-400000000", ".",
                                  "1e400", "\u0663", 5])
def test_what_is_not_exact_is_refused_and_named(text):
    with pytest.raises(VenueError, match="price="):
        fixed.parse(text, "price")


def test_trailing_zeros_and_exponents_do_not_matter():
    assert fixed.parse("61000.10") == fixed.parse("61000.1000000000") == fixed.parse("6.10001e4") == 6100010000000
