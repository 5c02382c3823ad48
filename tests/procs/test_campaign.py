"""A short campaign: each fault and each death once; and the judge of its runs, who must be able to say no."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from common import shm
from common.fixed import SCALE
from common.matching import Accepted, Cancelled, Filled, Request
from tests.campaign import DEATHS, FAULTS, Plan, campaign
from tests.campaign_audit import Booked, Bounds, Mark, bounded, collared, growing, late, profit, same
from tests.campaign_lives import Nursery
from tests.campaign_scenes import power_cut

BOUNDS = Bounds(40_000 * SCALE, 90_000 * SCALE, 150_000 * SCALE, 4.0, 0)
MIDS = {"BTC-USD": 100 * SCALE, "AAPL": 100 * SCALE}


@pytest.mark.kill
def test_no_fault_and_no_death_loses_a_fill_sends_an_order_twice_or_breaks_a_limit():
    found = []
    campaign((Plan.of(7, number) for number in range(max(len(FAULTS), len(DEATHS)))), 6, found.append)
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


# ---- and what must hold beside

def test_an_order_that_rests_at_the_end_and_one_filled_beyond_its_limit_are_named():
    record = [*RECORD[:-1], filled(2, 1, 4)._replace(price=99 * SCALE)]
    [wrong] = bounded(record, MIDS, BOUNDS)
    assert wrong == "order c-2 was filled at 99, beyond its limit 100"
    assert "order c-2 still rests at the exchange" in judged(record[:-1])


def named(number: int, symbol: int, seq: int, **changes):
    event = accepted(number, **changes)
    return event._replace(request=event.request._replace(client_order_id=f"7f-{symbol}-{seq}"))


MARK = Mark(5_000_000_000, (10, 20))


def test_what_left_after_nothing_might_leave_is_named():
    record = [named(1, 0, 10, at=5_000), named(2, 1, 20, at=5_400)]
    decided = {"7f-0-10": 5_000_000_000, "7f-1-20": 4_900_000_000}
    assert late(record, decided, MARK, 400) == []
    assert late(record, decided, MARK, 300) == ["order 7f-1-20 was accepted 400 ms after nothing might leave"]
    assert len(late(record, {**decided, "7f-0-10": 5_000_000_001}, MARK, 400)) == 1
    assert len(late([*record, named(3, 1, 21, at=5_000)], decided, MARK, 400)) == 1


@pytest.mark.parametrize("qty, side, wrong", [(2, -1, 0), (3, -1, 1), (1, 1, 1)])
def test_while_reducing_what_does_not_shrink_is_named(qty, side, wrong):
    record = [named(1, 0, 1, qty=3), filled(1, 3), named(2, 0, 2, qty=1, side=-1)]  # the last rests
    assert len(late([*record, named(3, 0, 11, qty=qty, side=side)], {}, MARK, 0, reducing=True)) == wrong
    assert growing(record) == []
    resting = growing([*record, named(3, 0, 11, qty=qty, side=side)])
    assert resting == {(2, -1): [], (3, -1): ["7f-0-2", "7f-0-11"], (1, 1): ["7f-0-11"]}[qty, side]


def test_an_order_beyond_the_collar_of_the_market_it_was_decided_on_is_named():
    mids = {"BTC-USD": 110 * SCALE}
    assert collared([named(1, 0, 10)], {}, MIDS, mids, MARK, 3.0) == []
    assert collared([named(1, 0, 11)], {}, MIDS, mids, MARK, 3.0) == [
        "order 7f-0-11 at 100 is 909.09 bps from the mid, the collar 3"]
    assert len(collared([named(1, 0, 10, price=101)], {}, MIDS, mids, MARK, 3.0)) == 1


def test_profit_by_the_record_counts_fees_and_what_is_held():
    assert profit(RECORD, {"BTC-USD": 101 * SCALE}) == 2 * SCALE * SCALE - 21 * SCALE


def test_a_power_cut_leaves_what_was_synchronised(tmp_path):
    nursery, state = Nursery(), tmp_path / "state"
    platter = tmp_path / "platter"
    platter.mkdir()
    state.mkdir()
    try:
        code = ("import os; f = open('journal.db', 'w'); f.write('kept'); f.flush(); os.fsync(f.fileno());"
                "f.write(', and lost'); f.close()")
        subprocess.run([sys.executable, "-c", code], cwd=state, check=True,
                       env={**nursery.environ, "CAMPAIGN_PLATTER": str(platter)})
    finally:
        nursery.close()
    if "LD_PRELOAD" not in nursery.environ:
        pytest.skip("there is no compiler here")
    assert (state / "journal.db").read_text() == "kept, and lost"
    assert power_cut(state, platter) and (state / "journal.db").read_text() == "kept"
