"""Pictures of an explanation and of a day: drawn whatever is missing, the same bytes from the same numbers."""

import pytest

from common.config import Config
from common.errors import ConfigError
from common.explain import context as explain_context
from common.explain import plot as explain_plot
from common.explain.day import report
from common.explain.order import PASSED, explain
from common.orders import SIDE_NAMES
from common.positions import Position
from tests import explained

pytest.importorskip("matplotlib")


@pytest.fixture
def tree():
    order, context = explained.decided(Config())
    row = {**order._asdict(), "side": SIDE_NAMES[order.side], "created_ns": explained.WALL, "state": "filled",
           "venue_id": "v1", "filled": order.qty, "reason": ""}
    history = [{"at_ns": explained.WALL + 40_000, "state": "sent", "detail": ""}]
    fills = [{"fill_id": "f1", "at_ns": explained.WALL + 50_000, "qty": 10**8, "price": order.price, "fee": 7}]
    return explain(row, explain_context.decode(context), history, fills, Config())


def test_the_same_order_gives_the_same_picture(tree, tmp_path):
    for name in ("one.svg", "two.svg", "three.png"):
        explain_plot.draw(tree, tmp_path / name)
    one = (tmp_path / "one.svg").read_text()
    assert one == (tmp_path / "two.svg").read_text() and (tmp_path / "three.png").stat().st_size > 10_000
    for words in ("BUY 39.996 BTC-USD", "inference", "order_notional", "4,000, at most 10,000", "BUY limit"):
        assert words in one, words


def test_a_picture_is_drawn_of_what_is_there(tree, tmp_path):
    bare = {**tree, "market": None, "prediction": None, "size": [], "checks": [], "waterfall": [], "fills": []}
    explain_plot.draw(bare, tmp_path / "bare.svg")
    assert "not recorded" in (tmp_path / "bare.svg").read_text()
    deep = {**tree, "book": {"bids": [("99.99", "1"), ("99.98", "2")], "asks": []}}
    explain_plot.draw(deep, tmp_path / "deep.svg")


def test_a_price_in_ticks_takes_up_nothing_of_a_limit(tree, tmp_path):
    told = {"check": "price_in_ticks", "key": "instruments.tick", "value": "100", "limit": "0.01", "at_least": False,
            "verdict": PASSED}
    explain_plot.draw({**tree, "checks": [*tree["checks"], told]}, tmp_path / "ticks.svg")
    one = (tmp_path / "ticks.svg").read_text()
    assert "price_in_ticks" in one and "at most 0.01" not in one


def test_a_picture_that_cannot_be_written_is_a_clear_error(tree, tmp_path):
    with pytest.raises(ConfigError, match="no known kind"):
        explain_plot.draw(tree, tmp_path / "why.txt")
    with pytest.raises(ConfigError, match="cannot write the picture"):
        explain_plot.draw(tree, tmp_path / "nowhere" / "why.svg")


def test_a_day_has_pictures_of_what_there_is_and_no_empty_ones():
    empty = report("2024-07-18", [], [], [], [], {})
    assert explain_plot.pictures(empty) == {}
    held = report("2024-07-18", [], [], [], [], {"BTC-USD": Position(10**8, 9 * 10**16)})
    assert set(explain_plot.pictures(held)) == {"positions", "positions-narrow"}
    fill = {"client_id": "a", "symbol": "BTC-USD", "side": "SELL", "qty": 10**8, "price": 10**9, "fee": 5,
            "at_ns": explained.WALL}
    full = report("2024-07-18", [], [], [], [fill], {"BTC-USD": Position(10**8, 9 * 10**16)}, 0,
                  {"BTC-USD": 10**9}, {"SIGNAL_WEAK": 7})
    one, two = (explain_plot.pictures(full) for _ in range(2))
    assert set(one) == {"profit", "profit-narrow", "positions", "positions-narrow", "refusals"}
    assert one == two and "SIGNAL_WEAK" in one["refusals"] and "BTC-USD" in one["positions"]
