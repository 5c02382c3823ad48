"""Rates: what is told over all intervals is what was counted."""

from hypothesis import given, settings
from hypothesis import strategies as st

from common.tap_rates import SECOND, Rates, line


def test_an_interval_is_told_per_second_and_by_symbol():
    rates = Rates("ticks", 0)
    for _ in range(4):
        rates.add(100, ["A", "B", "A"])
    rates.missed(7)
    assert not rates.due(SECOND - 1) and rates.due(2 * SECOND)
    told = rates.take(2 * SECOND)
    assert told == {"seconds": 2.0, "link": "ticks", "messages_per_s": 2.0, "bytes_per_s": 200.0, "records_per_s": 6.0,
                    "messages": 4, "records": 12, "symbols": {"A": 8, "B": 4}, "missed": 7}
    assert line(told).split("  ")[-2:] == ["A 8", "B 4"] and "missed 7" in line(told)
    rates.missed(9)
    assert rates.take(3 * SECOND) == {**told, "seconds": 3.0, "messages_per_s": 0, "bytes_per_s": 0, "records_per_s": 0,
                                      "messages": 0, "records": 0, "symbols": {}, "missed": 2}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(0, 500), st.lists(st.sampled_from(["A", "B", ""]))),
                max_size=30))
def test_nothing_is_counted_twice_or_lost(steps):
    rates, now, told = Rates("x", 0), 0, []
    for gap, size, symbols in steps:
        now += gap
        if rates.due(now):
            told.append(rates.take(now))
        rates.add(size, symbols)
    told.append(rates.take(now + 1))
    assert sum(one["messages"] for one in told) == len(steps)
    assert sum(one["records"] for one in told) == sum(len(symbols) for *_, symbols in steps)
    for name in "AB":
        assert sum(one["symbols"].get(name, 0) for one in told) == sum(symbols.count(name) for *_, symbols in steps)
