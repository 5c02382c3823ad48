"""Points in time, written and read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.instant import exact, parse, to_the_second, utc


def test_times_are_utc():
    assert utc(1_721_347_020_984_480_942) == "2024-07-18T23:57:00.984Z"
    assert to_the_second(1_721_347_020_984_480_942) == "2024-07-18 23:57:00"
    assert exact(1_721_347_020_984_480_942) == "2024-07-18T23:57:00.984480942Z"
    assert utc(0) == to_the_second(0) == "-" and utc(2**63 - 1) == "2262-04-11T23:47:16.854Z"


def test_a_zone_counts_and_none_is_utc():
    assert parse("2024-07-19T00:01:00", "--from") == 1_721_347_260_000_000_000
    assert parse("2024-07-19T02:01:00.000001+02:00", "--from") == 1_721_347_260_000_001_000


@given(st.integers(1, 2**63 - 1))
def test_what_is_written_is_read_again_to_the_millisecond(ns):
    assert parse(utc(ns), "") == ns // 1_000_000 * 1_000_000


def test_what_is_no_time_is_refused_with_its_place():
    with pytest.raises(ConfigError, match="--until=noon"):
        parse("noon", "--until")
