"""The state: sums as differences of totals, and what a new run forgets."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.features import kernel_state as state_of
from tests.feature_ticks import MAX


@settings(max_examples=50)
@given(st.lists(st.integers(-MAX, MAX), min_size=1, max_size=30), st.integers(1, 40))
def test_a_sum_over_a_window_is_exact_until_it_is_rounded_once(quantities, window):
    """Also where the totals themselves run over the end of their words."""
    state = np.zeros(state_of.STATE, np.int64)
    state[state_of.HISTORY_AT:state_of.HISTORY_AT + state_of.RECORD] = 2**63 - 5
    for quantity in quantities:
        old = state_of.newest(state).copy()
        state[state_of.COUNT] += 1
        state_of.newest(state)[:] = old
        with np.errstate(over="ignore"):
            state_of.add(state_of.newest(state), state_of.FLOW, quantity, 1)
    found = state_of.span(state_of.newest(state), state_of.before(state, window), state_of.FLOW)
    hi, lo = (sum(part(q) for q in quantities[-window:]) for part in (lambda q: q >> 32, lambda q: q & (2**32 - 1)))
    assert found == float(hi) * 2.0**32 + float(lo) and found == float(sum(quantities[-window:]))


def test_a_new_run_begins_with_nothing_but_where_the_stream_stands():
    state = np.full(state_of.STATE, 7, np.int64)
    state_of.begin_run(state)
    assert (state[:state_of.COUNT] == 7).all() and state[state_of.NS] == 7
    forgotten = np.delete(np.arange(state_of.COUNT, state_of.TICK_AT), state_of.NS - state_of.COUNT)
    assert not state[forgotten].any() and not state_of.newest(state).any()


def test_parts_of_the_state_do_not_overlap():
    assert state_of.VOLUME_2 + 3 <= state_of.OBI_1 and state_of.OBI_5 < state_of.RECORD
    assert state_of.LEVEL_FLOW + 20 <= state_of.SIGNS and state_of.EVENTS + 16 == state_of.TIME_WORDS
    assert state_of.ALL_LEVELS < state_of.TICK_AT
