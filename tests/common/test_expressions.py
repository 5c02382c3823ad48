"""Filters: what they mean is what Python means by the same text, and nothing else can be said in them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.expressions import MAX_TEXT, Expression

RECORD = {"p_up": 0.625, "seq": 7, "symbol": "BTC-USD", "flags": 3, "zero": 0}

numbers = st.one_of(st.integers(-100, 100), st.floats(-100, 100, allow_nan=False).map(lambda x: round(x, 3))).map(str)
terms = st.recursive(st.one_of(numbers, st.sampled_from(["p_up", "seq", "flags", "zero"])), lambda inner: st.one_of(
    st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(lambda t: f"({' '.join(t)})"),
    inner.map(lambda text: f"(-{text})")), max_leaves=4)
comparisons = st.one_of(
    st.tuples(terms, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), terms).map(" ".join),
    st.tuples(terms, st.sampled_from(["<", "<="]), terms, st.sampled_from([">", "!="]), terms).map(" ".join),
    st.sampled_from(['symbol == "BTC-USD"', '"BTC" in symbol', 'symbol in ("A", "BTC-USD")', 'symbol not in ["A"]',
                     "flags & 2", "flags & 4 == 4", "seq in (1, 7)", "True", "False"]))
expressions = st.recursive(comparisons, lambda inner: st.one_of(
    st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({' '.join(t)})"),
    inner.map(lambda text: f"(not {text})")), max_leaves=6)


@settings(max_examples=50)
@given(expressions)
def test_it_is_true_where_python_says_so(text):
    try:
        expected = bool(eval(text, {"__builtins__": {}}, RECORD))
    except ZeroDivisionError:
        Expression(text, RECORD)(RECORD)  # has an answer, that of NaN
        return
    assert Expression(text, RECORD)(RECORD) is expected


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_refused_in_words(text):
    try:
        found = Expression(text, RECORD)
    except ConfigError as error:
        assert str(error)
        return
    try:
        assert found(RECORD) in (True, False)
    except ConfigError as error:
        assert "filter" in str(error)


@pytest.mark.parametrize("text, what", [
    ("open('x')", "a call"), ("symbol.upper", "an attribute"), ("symbol[0]", "an index"), ("seq ** 9", "a power"),
    ("(lambda: 1)", "a function"), ("1 if seq else 2", "if and else"), ("[x for x in symbol]", "listcomp"),
    ("f'{seq}'", "an f-string"), ("(x := 1)", "an assignment"), ("seq is 7", "compare"), ("~seq", "invert"),
    ("seq << 99", "lshift"), ("{1: 2}", "dict"), ("b'x'", "constant"), ("1j", "constant"), ("None", "constant"),
    ("(1, 2)", "tuple"), ("...", "constant")])
def test_anything_else_is_refused_with_its_place(text, what):
    with pytest.raises(ConfigError, match=rf"(?s){what} cannot be in a filter.*column \d+.*allowed are"):
        Expression(text, RECORD)


def test_an_unknown_field_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"pup is no field .*column 9.*p_up, seq, symbol"):
        Expression("seq and pup > 1", RECORD)


@pytest.mark.parametrize("text", ["", "seq >", "seq = 7", "(" * 300 + ")" * 300, "seq\n>\n", "a\0b",
                                  "not " * 240 + "seq"])
def test_what_cannot_be_read_is_said(text):
    if text.startswith("not"):
        assert Expression(text, RECORD)(RECORD) is True  # deep, but fine
        return
    with pytest.raises(ConfigError, match="filter cannot be read"):
        Expression(text, RECORD)


def test_a_filter_may_not_be_expensive():
    with pytest.raises(ConfigError, match="too long"):
        Expression("1+" * MAX_TEXT + "1", RECORD)
    with pytest.raises(ConfigError, match="'BTC-USD' is no number"):
        Expression("symbol * 1000000000 == symbol", RECORD)(RECORD)


def test_values_that_cannot_be_compared_are_an_error_and_not_a_no():
    with pytest.raises(ConfigError, match="numbers with numbers"):
        Expression("symbol > 3", RECORD)(RECORD)
    with pytest.raises(ConfigError, match="whole number"):
        Expression("p_up & 1", RECORD)(RECORD)


def test_a_division_by_zero_is_no_number():
    assert not Expression("1 / zero > 0 or 1 / zero <= 0", RECORD)(RECORD)
    assert Expression("1 / zero != 1", RECORD)(RECORD) and math.isnan(
        Expression("seq % zero", RECORD)._evaluate(RECORD))


def test_a_part_that_does_not_matter_is_not_looked_at():
    assert Expression("seq == 7 or symbol > 3", RECORD)(RECORD)
