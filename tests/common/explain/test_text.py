"""An explanation as text: what is known is said, and what is not is said to be so."""

import pytest

from common.config import Config
from common.explain import context as explain_context
from common.explain.order import explain
from common.explain.text import lines
from common.orders import SIDE_NAMES
from tests import explained


@pytest.fixture
def tree():
    order, context = explained.decided(Config())
    row = {**order._asdict(), "side": SIDE_NAMES[order.side], "created_ns": explained.WALL, "state": "cancelled",
           "venue_id": "v1", "filled": 10**8, "reason": "too far"}
    history = [{"at_ns": explained.WALL + 40_000, "state": "sent", "detail": ""},
               {"at_ns": explained.WALL + 90_000, "state": "cancelled", "detail": "too far"}]
    fills = [{"fill_id": "f1", "at_ns": explained.WALL + 50_000, "qty": 10**8, "price": order.price, "fee": 7}]
    return explain(row, explain_context.decode(context), history, fills, Config())


def test_every_part_is_there(tree):
    text = "\n".join(lines(tree))
    for words in ("BUY 39.996 BTC-USD at 100.01, LIMIT IOC", "cancelled, 1 filled", "venue id v1; too far",
                  "100 at 99.99 | 100.01 for 90; mid 100, spread 2.000 bps", "up 0.9, down 0.09999999999999998",
                  "whose file is not among those known", "not in the rows ring any more",
                  "decided again: BUY 39.996 at 100.01; it is the order", "0.6, at most risk.max_age_ms = 250",
                  "top.bid 99.99", "off: ", "inference", "(wall clock)", "fee 0.00000007", "in all 1 at 100.01"):
        assert words in text, words


def test_what_rings_models_and_replays_add(tree):
    tree["model"] = {"name": "m", "path": "/m.onnx", "sha256": "ab", "schema": "cd", "window": 3, "columns": ["obi"]}
    tree["row"] = {"source": "the rows ring", "values": {"obi": 0.25, "spread": 1.0, "vol_100": 2.0}}
    tree["book"] = {"bids": [("99.99", "1"), ("99.98", "2")], "asks": [("100.01", "1"), ("100.02", "3")]}
    tree["replay"] = {"found": True, "seq": 9, "frames": 1000, "captures": ["a.gz"], "compared": [
        {"name": "p_up", "journal": "0.9", "replay": "0.9", "same": True},
        {"name": "vol", "journal": "1.5", "replay": "1.6", "same": False}]}
    text = "\n".join(lines(tree))
    for words in ("model m 000000000000abcd", "schema cd, 1 columns, window 3", "from the rows ring", "obi", "vol_100",
                  "99.98 | 100.02", "tick 9 of 1,000 frames of a.gz", "the same bits", "DIFFERENT"):
        assert words in text, words
    tree["replay"] = {"found": False, "why": "none of the ticks"}
    assert "none of the ticks" in "\n".join(lines(tree))


def test_what_is_not_recorded_is_said(tree):
    bare = {**tree, "market": None, "prediction": None, "size": [], "checks": [],
            "verdict": {"again": "not recorded", "same": None}, "not_recorded": ["prediction", "market"]}
    text = "\n".join(lines(bare))
    assert "not recorded: prediction, market" in text and text.count("not recorded") == 6
    assert "it is NOT the order" in "\n".join(lines({**tree, "verdict": {"again": "a refusal", "same": False}}))
