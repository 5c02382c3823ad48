"""Rows of LOBSTER files: text is read exactly or refused, and a row follows from the one before or does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.imports.lobster_rows import EXPLAINED, N_CHANGES, N_NEW, PUSHED, PUSHED_SHARES, Bad, compare, parse

WHOLE = np.zeros(3, np.int64)


def test_columns_are_read_exactly_in_their_units():
    found = parse(b"34200.015105074,-7,12,more\n0,0,-0,\n999999999.9,5.0,123456789012345678\n", np.array([9, 1, 0]), 3)
    assert found.tolist() == [[34200015105074, -70, 12], [0, 0, 0], [999999999900000000, 50, 123456789012345678]]


@given(st.lists(st.lists(st.integers(-10**17, 10**17), min_size=3, max_size=3), min_size=1, max_size=20))
def test_what_is_written_is_read(rows):
    text = "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    assert parse(text, WHOLE, len(rows)).tolist() == rows


@pytest.mark.parametrize("bad", [b"", b"1,2", b"1,,3", b"1,2,x", b"1,2,-", b"1,2,3.5", b"1,2,3 ", b"1,2,+3", b"1;2,3",
                                 b"1,2,1234567890123456789", b"--1,2,3", b"1.2.3,2,3"])
def test_what_is_wrong_is_named_by_its_row(bad):
    assert parse(b"1,2,3\n" + bad + b"\n4,5,6\n", WHOLE, 3) == Bad(1)


@given(st.binary(max_size=60), st.integers(1, 5))
def test_no_text_is_read_beyond_its_end(text, rows):
    found = parse(text, np.array([9, 0, 0]), rows)
    assert isinstance(found, Bad) or found.shape == (rows, 3)


# Two levels a side: ask, shares, bid, shares, ...
BEFORE = (11, 1, 10, 5, 13, 2, 8, 6)
EMPTY = 9_999_999_999


def told(now, side, price, shares, before=BEFORE):
    rows, changes, found = np.array([before, now]), np.zeros((10, 2), np.int64), np.zeros(5, np.int64)
    compare(rows, 1, side, price, shares, changes, found)
    return found.tolist(), changes[:found[N_CHANGES]].tolist()


@pytest.mark.parametrize("now, message, changes, new, pushed", [
    (BEFORE, (1, 9, 0), [], 0, (0, 0)),
    ((11, 1, 10, 7, 13, 2, 8, 6), (1, 10, 2), [[10, 7]], 0, (0, 0)),
    ((11, 1, 10, 5, 13, 2, 8, 1), (1, 8, -5), [[8, 1]], 0, (0, 0)),
    ((11, 1, 10, 5, 13, 2, 9, 3), (1, 9, 3), [[9, 3], [8, 0]], 0, (8, 6)),  # pushes the last out
    ((11, 1, 10, 5, 12, 9, 8, 6), (-1, 12, 9), [[12, 9], [13, 0]], 0, (13, 2)),
    ((11, 1, 8, 6, 13, 2, 7, 4), (1, 10, -5), [[10, 0], [7, 4]], 1, (0, 0)),  # the next comes in
    ((11, 1, 8, 6, 13, 2, -EMPTY, 0), (1, 10, -5), [[10, 0]], 0, (0, 0)),  # or there is none
    ((13, 2, 10, 5, 99, 1, 8, 6), (-1, 11, -1), [[11, 0], [99, 1]], 1, (0, 0)),
])
def test_a_row_follows_from_the_one_before(now, message, changes, new, pushed):
    found, changed = told(now, *message)
    assert found[EXPLAINED] == 1 and changed == changes
    assert found[N_NEW] == new and (found[PUSHED], found[PUSHED_SHARES]) == pushed


@pytest.mark.parametrize("now, message", [
    ((11, 1, 10, 5, 13, 2, 8, 7), (1, 9, 0)),  # something changed without a message
    ((11, 2, 10, 7, 13, 2, 8, 6), (1, 10, 2)),  # or on the other side
    ((11, 1, 10, 6, 13, 2, 8, 6), (1, 10, 2)),  # by another number of shares
    (BEFORE, (1, 9, -1)),  # there is no such level
    (BEFORE, (1, 10, -6)),  # nor so many shares at it
    ((11, 1, 9, 4, 13, 2, 8, 6), (1, 10, -5)),  # what comes in is not behind all that is known
    ((11, 1, 10, 5, 13, 2, -EMPTY, 0), (1, 9, 3)),  # nothing vanishes
])
def test_a_row_that_does_not_follow_is_not_explained(now, message):
    assert told(now, *message)[0][EXPLAINED] == 0


def test_only_a_full_row_has_more_behind_it():
    short = (11, 1, 10, 5, 13, 2, -EMPTY, 0)
    assert told((11, 1, 10, 5, 13, 2, 7, 1), 1, 9, 0, short)[0][EXPLAINED] == 0
    assert told((11, 1, 10, 5, 13, 2, 7, 1), 1, 7, 1, short)[0][EXPLAINED] == 1
    assert told((11, 1, -EMPTY, 0, 13, 2, -EMPTY, 0), 1, 10, -5, short)[0][EXPLAINED] == 1
