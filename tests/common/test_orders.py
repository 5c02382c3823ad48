"""The life cycle: the table is the law, whatever is thrown at an order."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.config import GATEWAYS
from common.errors import LifeCycleError
from common.orders import BUY, TERMINAL, TRANSITIONS, Order, State, Working, client_order_id, diagram

ORDER = Order("a-1-2", "BTC-USD", BUY, 100, 7, 1, 2)
states = st.sampled_from(State)


@pytest.mark.parametrize("start", State)
@pytest.mark.parametrize("end", State)
def test_a_move_is_allowed_if_and_only_if_the_table_says_so(start, end):
    working = Working(ORDER, start)
    if end in TRANSITIONS[start]:
        working.move(end)
        assert working.state is end
    else:
        with pytest.raises(LifeCycleError, match=rf"from {start} to {end}.*a-1-2"):
            working.move(end)
        assert working.state is start


def test_every_state_is_in_the_table_and_can_be_reached():
    assert set(TRANSITIONS) == set(State)
    seen, todo = set(), {State.INTENT}
    while todo:
        state = todo.pop()
        seen.add(state)
        todo |= TRANSITIONS[state] - seen
    assert seen == set(State)


def test_the_readme_draws_the_table_as_it_is():
    text = (Path(__file__).resolve().parents[2] / "common" / "gateways" / "README.md").read_text()
    drawn = text.partition("<!-- states: begin -->")[2].partition("<!-- states: end -->")[0]
    assert drawn == f"\n```mermaid\n{diagram()}```\n", "put what `alpha orders --states` draws between the comments"
    told = set(re.findall(r"^\| ([a-z, ]+) \|", text.partition("## What a venue's answer")[0], re.M))
    assert {state for names in told for state in names.split(", ")} - {"state"} == {state.value for state in State}
    assert all(f"`{name}`" in text for name in GATEWAYS)


def test_the_diagram_shows_every_transition_and_no_other():
    lines = diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    names = {state.value.replace(" ", "_"): state for state in State}
    arrows = [tuple(line.split(" --> ")) for line in map(str.strip, lines) if "-->" in line]
    drawn = [(names[start], names[end]) for start, end in arrows if "[*]" not in (start, end)]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {(start, end) for start, ends in TRANSITIONS.items() for end in ends}
    assert [names[end] for start, end in arrows if start == "[*]"] == [State.INTENT]
    assert {names[start] for start, end in arrows if end == "[*]"} == TERMINAL
    assert '    state "partly filled" as partly_filled' in lines


def test_every_state_leads_to_an_end():
    for state in State:
        assert state in TERMINAL or TRANSITIONS[state] & TERMINAL
    assert TERMINAL == {State.FILLED, State.CANCELLED, State.REJECTED, State.EXPIRED}


@given(st.integers(0, 2**64 - 1), st.integers(0, 9999), st.integers(1, 2**63 - 1))
def test_a_client_order_id_fits_every_venue(epoch, symbol, seq):
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,36}", client_order_id(epoch, symbol, seq))


def test_client_order_ids_tell_decisions_apart():
    ids = {client_order_id(e, s, q) for e in (1, 2, 16) for s in (1, 2, 11) for q in (1, 2, 12)}
    assert len(ids) == 27 and client_order_id(2**32 + 5, 1, 1) == client_order_id(5, 1, 1)


class Life(RuleBasedStateMachine):
    """Any sequence of moves and fills: nothing but the table decides, and quantities stay in bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.working = Working(ORDER)
        self.trail = [State.INTENT]
        self.booked = 0

    @rule(state=states)
    def move(self, state):
        before = self.working.state
        try:
            self.working.move(state)
        except LifeCycleError:
            assert state not in TRANSITIONS[before] and self.working.state is before
        else:
            self.trail.append(state)

    @rule(qty=st.integers(-5, 60))
    def fill(self, qty):
        before = self.working.state
        try:
            self.working.fill(qty)
        except LifeCycleError:
            assert qty <= 0 or self.booked + qty > ORDER.qty or before is State.INTENT
            assert self.working.filled == self.booked and self.working.state is before
        else:
            self.booked += qty
            if self.working.state is not before:
                self.trail.append(self.working.state)

    @precondition(lambda self: self.working.state in TERMINAL)
    @rule()
    def nothing_leaves_an_end(self):
        assert all(end not in TRANSITIONS[self.working.state] for end in State)

    @invariant()
    def quantities_are_in_bounds(self):
        working = self.working
        assert working.filled == self.booked <= ORDER.qty
        assert working.open_qty == (0 if working.state in TERMINAL else ORDER.qty - self.booked)

    @invariant()
    def every_step_was_in_the_table(self):
        assert all(b in TRANSITIONS[a] for a, b in zip(self.trail, self.trail[1:]))


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=20)
