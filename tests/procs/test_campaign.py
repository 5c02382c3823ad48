"""A short campaign: each fault and each death once; and the judge of its runs, who must be able to say no."""

import os
from collections import Counter

import pytest

from common import shm
from common.fixed import SCALE
from common.matching import Accepted, Cancelled, Filled, Request
from tests.campaign import DEATHS, FAULTS, Plan, campaign
from tests.campaign_audit import Booked, Bounds, bounded, same

BOUNDS = Bounds(40_000 * SCALE, 90_000 * SCALE, 150_000 * SCALE, 4.0, 0)
MIDS = {"BTC-USD": 100 * SCALE, "AAPL": 100 * SCALE}


@pytest.mark.kill
def test_no_fault_and_no_death_loses_a_fill_sends_an_order_twice_or_breaks_a_limit():
    found = []
    campaign((Plan.of(7, number) for number in range(max(len(FAULTS), len(DEATHS)))), 4, found.append)
    assert not [(one.plan, one.wrong) for one in found if one.wrong]
    assert {one.plan.fault for one in found} == set(FAULTS) and {one.plan.death for one in found} == set(DEATHS)
    assert sum(one.deaths for one in found) >= len(DEATHS) - 2
    assert sum(one.fills for one in found) > sum(one.orders for one in found) / 2 > len(found)
    assert not list(shm.SHM_DIR.glob(shm.block_name(f"campaign-{os.getpid()}-*", "*")))


def test_numbers_in_a_row_go_through_all_pairs_of_fault_and_death():
    count = len(FAULTS) * len(DEATHS)
    assert Counter((plan.fault, plan.death) for plan in (Plan.of(1, number) for number in range(count))) == {
        (fault, death): 1 for fault in FAULTS for death in DEATHS}
    assert Plan.of(1, 5) == Plan.of(1, 5) != Plan.of(2, 5)


# ---- the judge

def accepted(number: int, qty: int = 1, side: int = 1, symbol: str = "BTC-USD", price: int = 100, at: int = 0):
    return Accepted(f"O{number}", at, Request(f"c-{number}", symbol, side, "LIMIT", "IOC", qty * SCALE, price * SCALE,
                                              0))


def filled(number: int, qty: int = 1, fill: int = 1):
    return Filled(f"O{number}", 0, f"F{fill}", 100 * SCALE, qty * SCALE, 7)


def told(number: int, qty: int = 1, fill: int = 1):
    return (f"c-{number}", f"F{fill}", qty * SCALE, 100 * SCALE, 7)


RECORD = [accepted(1, 3), filled(1, 1), filled(1, 2, 2), accepted(2, 2, -1), filled(2, 1, 3),
          Cancelled("O2", 0, "TIF_IOC")]
ORDERS = [Booked("c-1", 3 * SCALE, 3 * SCALE, "filled"), Booked("c-2", 2 * SCALE, SCALE, "cancelled"),
          Booked("c-3", SCALE, 0, "rejected")]
FILLS = [told(1, 1), told(1, 2, 2), told(2, 1, 3)]
HELD = {"BTC-USD": 2 * SCALE}
ARRIVALS = {"c-1": 1, "c-2": 1, "c-3": 1}


def judged(record=RECORD, orders=ORDERS, fills=FILLS, held=HELD, arrivals=ARRIVALS):
    return same(record, orders, fills, held, arrivals)


def test_what_agrees_is_not_wrong():
    assert judged() == [] and bounded(RECORD, MIDS, BOUNDS) == []


@pytest.mark.parametrize("changed, said", [
    ({"arrivals": {**ARRIVALS, "c-1": 2}}, "order c-1 arrived 2 times"),
    ({"orders": ORDERS[:2] + [ORDERS[2]._replace(state="unknown")]}, "order c-3 is unknown"),
    ({"orders": [ORDERS[0]._replace(state="cancelled"), *ORDERS[1:]]}, "order c-1 is cancelled"),
    ({"orders": [ORDERS[0]._replace(filled=0), *ORDERS[1:]]}, "order c-1 is filled with 0"),
    ({"orders": [*ORDERS[:2], ORDERS[2]._replace(state="filled", filled=SCALE)]}, "order c-3 is filled with 1"),
    ({"orders": [ORDERS[0], ORDERS[2]]}, "order c-2 is at the exchange and not in the journal"),
    ({"fills": FILLS[1:]}, "a fill is lost: ('c-1', 'F1'"),
    ({"fills": [*FILLS, FILLS[0]]}, "a fill was made up, or booked twice: ('c-1', 'F1'"),
    ({"held": {"BTC-USD": 3 * SCALE}}, "BTC-USD: 3 in the journal, 2 at the exchange"),
    ({"held": {**HELD, "AAPL": SCALE}}, "AAPL: 1 in the journal, 0 at the exchange"),
    ({"held": {}}, "BTC-USD: 0 in the journal, 2 at the exchange"),
])
def test_each_difference_is_named_and_nothing_else(changed, said):
    [wrong] = judged(**changed)
    assert wrong.startswith(said)


def test_an_order_that_was_accepted_twice_is_named():
    record = [*RECORD, accepted(9)._replace(request=RECORD[0].request)]
    assert "order c-1 was accepted 2 times" in judged(record)


@pytest.mark.parametrize("record, said", [
    ([accepted(1, 401)], "order c-1: order 40100 is above 40000"),
    ([accepted(1, 400), filled(1, 400), accepted(2, 400), filled(2, 400), accepted(3, 101)],
     "order c-3: position 90100 is above 90000"),
    ([accepted(1, 400, -1), filled(1, 400), accepted(2, 400, -1), filled(2, 400), accepted(3, 101, -1)],
     "order c-3: position 90100 is above 90000"),
    ([accepted(1, 400), filled(1, 400), accepted(2, 400), filled(2, 400),
      accepted(3, 400, -1, "AAPL"), filled(3, 400), accepted(4, 301, -1, "AAPL")],
     "order c-4: gross 150100 is above 150000"),
    ([accepted(n, at=n) for n in range(1, 6)], "order c-5 is number 5 within 4 ms, above 4 orders a second"),
    ([accepted(n, at=180 * n) for n in range(12)], "order c-11 is"),
])
def test_the_first_order_beyond_a_limit_is_named(record, said):
    assert bounded(record[:-1], MIDS, BOUNDS) == []
    [wrong] = bounded(record, MIDS, BOUNDS)
    assert wrong.startswith(said)


def test_what_reduces_a_position_may_pass():
    record = [accepted(1, 400, price=200), filled(1, 400)]
    assert len(bounded(record, MIDS, BOUNDS)) == 1  # its value is above the limit of an order
    assert bounded([*record, accepted(2, 150, -1, price=220)], MIDS, BOUNDS) == bounded(record, MIDS, BOUNDS)
