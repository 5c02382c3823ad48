"""The compiled scan reads exactly what the slow path reads, or steps aside."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import fixed, scan
from common.errors import VenueError
from common.scan import FRACTION, FULL, OK, OVERFLOW, SHAPE, SIGN, Scanner

DIGITS = st.text("0123456789", min_size=1, max_size=14)
DECIMALS = st.builds(lambda sign, whole, part: sign + whole + part, st.sampled_from(["", "-"]), DIGITS,
                     st.one_of(st.just(""), st.text("0123456789", min_size=1, max_size=12).map("." .__add__)))
PRICES = st.builds(lambda v: fixed.text(v), st.integers(1, fixed.MAX))
QUANTITIES = st.builds(lambda v: fixed.text(v), st.integers(0, fixed.MAX))
LEVELS = st.lists(st.tuples(PRICES, QUANTITIES), max_size=6)
TEMPLATE = b'{"s":"%s","u":%i,"T":%t,"p":"%p","q":"%q","m":%b,"x":"%_","b":%l,"a":%l}'


def array(levels) -> bytes:
    return ("[" + ",".join(f'["{price}","{quantity}"]' for price, quantity in levels) + "]").encode()


@given(DECIMALS)
def test_a_decimal_is_read_as_fixed_reads_it_and_refused_where_fixed_refuses_it(text):
    status, value = scan.decimal(text.encode())
    if status == OK:
        assert value == fixed.parse(text) == Fraction(text) * fixed.SCALE
    else:
        assert status in (FRACTION, OVERFLOW)
        with pytest.raises(VenueError):
            fixed.parse(text)


@pytest.mark.parametrize(("text", "status"), [
    (b"0", OK), (b"-0.5", OK), (b"007.10", OK), (b"1.000000000000", OK), (b"92233720368.54775807", OK),
    (b"92233720368.54775808", OVERFLOW), (b"-92233720368.54775808", OVERFLOW), (b"92233720369", OVERFLOW),
    (b"9" * 40, OVERFLOW), (b"0" * 40, OK), (b"0" * 41, SHAPE), (b"1." + b"0" * 41, SHAPE),
    (b"0.000000001", FRACTION), (b"1.123456789", FRACTION), (b"", SHAPE), (b"-", SHAPE),
    (b".5", SHAPE), (b"5.", SHAPE), (b"+1", SHAPE), (b" 1", SHAPE), (b"1 ", SHAPE), (b"1e5", SHAPE), (b"1_0", SHAPE),
    (b"1.2.3", SHAPE), (b"nan", SHAPE), (b"\xd9\xa1", SHAPE)])
def test_the_edges_of_a_decimal(text, status):
    assert scan.decimal(text)[0] == status


@given(LEVELS, st.binary(max_size=5))
def test_an_array_of_levels_is_read_and_its_end_found(levels, tail):
    text, out = array(levels), np.zeros((8, 2), np.int64)
    assert scan.levels(b"x" + text + tail, 1, out) == (OK, len(levels), 1 + len(text))
    assert out[:len(levels)].tolist() == [[fixed.parse(price), fixed.parse(quantity)] for price, quantity in levels]


@given(LEVELS.filter(bool), st.data())
def test_a_truncated_array_is_never_taken_for_a_whole_one(levels, data):
    text = array(levels)
    cut = data.draw(st.integers(0, len(text) - 1))
    assert scan.levels(text[:cut], 0, np.zeros((8, 2), np.int64))[0] == SHAPE


@given(st.binary(max_size=60))
def test_any_bytes_are_survived(text):
    scan.levels(text, 0, np.zeros((4, 2), np.int64))
    scan.levels(b'[["' + text, 0, np.zeros((4, 2), np.int64))
    scan.decimal(text)
    Scanner([TEMPLATE, b"%i", b'"%_"%b'], ["A"]).match(text)


@pytest.mark.parametrize(("text", "status"), [
    (b'[["1","1"],["1","1"],["1","1"]]', FULL), (b'[["0","1"]]', SIGN), (b'[["-1","1"]]', SIGN),
    (b'[["1","-1"]]', SIGN), (b'[["1","0.000000001"]]', FRACTION), (b'[["99999999999","1"]]', OVERFLOW),
    (b"[[1,1]]", SHAPE), (b'[["1", "1"]]', SHAPE), (b'[["1","1","1"]]', SHAPE), (b'[["1"]]', SHAPE), (b"[[]]", SHAPE),
    (b'[["1","1"],]', SHAPE), (b"null", SHAPE)])
def test_an_array_that_is_not_as_expected_has_a_status(text, status):
    assert scan.levels(text, 0, np.zeros((2, 2), np.int64))[0] == status


def frame(symbol="B", u=7, time=2, price="1.5", quantity="0", flag="true", text="any", bids=(("2", "1"),), asks=()):
    head = f'{{"s":"{symbol}","u":{u},"T":{time},"p":"{price}","q":"{quantity}","m":{flag},"x":"{text}","b":'
    return head.encode() + array(bids) + b',"a":' + array(asks) + b"}"


def test_a_template_gives_its_fields_in_order_and_its_levels_one_after_the_other():
    scanner = Scanner([b"%i", TEMPLATE], ["A", "B"])
    for kind in (bytes, bytearray):
        found = scanner.match(kind(frame(asks=(("3", "0"), ("4", "0.1")))))
        assert found == (1, 1, 7, 2_000_000, 150_000_000, 0, 1, 1, 2)
        assert scanner.levels[:3].tolist() == [[2 * 10**8, 10**8], [3 * 10**8, 0], [4 * 10**8, 10**7]]


@pytest.mark.parametrize("other", [
    {"symbol": "C"}, {"symbol": "BB"}, {"symbol": ""}, {"u": "-1"}, {"u": "01"}, {"u": 2**63}, {"u": "1.0"},
    {"u": ""},
    {"time": fixed.MAX // 10**6 + 1}, {"price": "0"}, {"price": "-1"}, {"quantity": "-1"}, {"quantity": "1e5"},
    {"flag": "True"}, {"flag": "tru"}, {"flag": "1"}, {"text": "a\\n"}, {"text": 'a"'}, {"text": "\u00e9"},
    {"bids": (("0", "1"),)}])
def test_a_frame_that_differs_in_anything_is_no_match(other):
    assert Scanner([TEMPLATE], ["A", "B"]).match(frame(**other))[0] == -1


def test_a_truncated_frame_or_one_with_a_tail_is_no_match():
    scanner, whole = Scanner([TEMPLATE], ["A", "B"]), frame()
    assert scanner.match(whole)[0] == 0
    assert {scanner.match(whole[:cut])[0] for cut in range(len(whole))} == {-1}
    assert scanner.match(whole + b" ")[0] == scanner.match(whole + b"\0")[0] == -1


def test_the_buffer_of_levels_grows_with_the_frame():
    scanner = Scanner([TEMPLATE], ["A", "B"])
    many = [(str(i + 1), "1") for i in range(5000)]
    assert scanner.match(frame(bids=many, asks=many))[7:] == (5000, 5000)
    assert scanner.levels[:10000:5000].tolist() == [[10**8, 10**8]] * 2


def test_a_template_with_too_many_fields_or_strange_text_is_refused():
    for template in (b"%i" * 9, "\u00e9".encode()):
        with pytest.raises(ValueError, match="a template"):
            Scanner([template], [])


@pytest.mark.parametrize("cut", range(0, len(frame()) + 1, 3))
def test_no_kernel_reads_past_the_end(cut):
    """In plain Python an index past the end raises."""
    text, out = frame()[:cut], np.zeros((8, 2), np.int64).reshape(-1)
    program = bytes(Scanner([TEMPLATE], ["A", "B"]).program)
    out[:2] = 2, 4
    scan.match.py_func(text, np.frombuffer(program, np.uint8).astype(np.int64), out)
    for start in range(cut + 1):
        for kernel in (scan._integer, scan._decimal, scan._bool):
            kernel.py_func(text, start, cut)
        scan._levels.py_func(text, start, cut, out, 0)
        scan._symbol.py_func(text, start, cut, program, 2)
