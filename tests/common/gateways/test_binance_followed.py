"""What is known of each order: an end waits for its fills, and is told once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import VenueError
from common.fixed import SCALE
from common.gateways import Ended, Filled
from common.gateways import binance_followed as module
from common.gateways.binance_followed import ALIVE, ENDS, Following
from common.orders import State


def fill(name: str, qty: int) -> Filled:
    return Filled("o-1", name, qty, 100 * SCALE, 0, 0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_an_end_is_told_once_its_fills_add_up_in_whatever_order_they_come(parts, data):
    following = Following()
    followed = following.begin("o-1", "BTCUSDT")
    followed.ours = True
    whole = sum(parts)
    steps = data.draw(st.permutations([*enumerate(parts), "end"])) + ["again"]
    told = []
    for step in steps:
        if isinstance(step, tuple):
            followed.note([fill(str(step[0]), step[1] * SCALE)])
            followed.note([fill(str(step[0]), step[1] * SCALE)])  # twice: no harm
        else:
            following.stands(followed, "FILLED", str(whole))
        complete = sum(followed.fills.values()) == whole * SCALE and followed.end is not None
        assert followed.short == (not (complete or followed.end is None) or complete and not followed.over)
        told += following.finish(followed)
    assert told == [Ended("o-1", State.FILLED, whole * SCALE, "")] and not followed.short
    assert list(following) == [] and "o-1" in following and following.get("o-1") is followed


@pytest.mark.parametrize("status", ALIVE)
def test_what_is_alive_goes_on_and_is_looked_after(status):
    following = Following()
    followed = following.begin("o-1", "BTCUSDT")
    following.stands(followed, status, "1.5")
    assert followed.executed == 3 * SCALE // 2 and followed.short and following.finish(followed) == []
    following.stands(followed, status, "1")  # older news
    assert followed.executed == 3 * SCALE // 2 and list(following) == [followed]


@pytest.mark.parametrize("status", ENDS)
def test_every_end_is_one_of_ours(status):
    following = Following()
    followed = following.begin("o-1", "BTCUSDT")
    following.stands(followed, status, "0", "why" * 100)
    assert following.finish(followed) == [Ended("o-1", ENDS[status], 0, ("why" * 100)[:200])]
    assert following.finish(followed) == [] and "o-1" not in following, "somebody else's is forgotten"


def test_nonsense_changes_nothing():
    following = Following()
    followed = following.begin("o-1", "BTCUSDT")
    for status, executed in (("DANCING", "1"), ("FILLED", "many")):
        with pytest.raises(VenueError):
            following.stands(followed, status, executed)
    assert followed.end is None and followed.executed == 0


def test_so_many_are_remembered_and_the_oldest_goes(monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 3)
    following = Following()
    for n in range(5):
        following.begin(f"o-{n}", "BTCUSDT")
    assert [f"o-{n}" in following for n in range(5)] == [False, False, True, True, True]
    assert [one.client_id for one in following] == ["o-2", "o-3", "o-4"]
    following.forget(following.get("o-3"))
    following.settle("o-4")
    assert [one.client_id for one in following] == ["o-2"] and "o-3" not in following and "o-4" in following
