"""Pictures: one of each kind, whole, and the same bytes twice."""

import builtins
import xml.etree.ElementTree as ElementTree

import pytest

from common.backtest import plot as backtest_plot
from common.backtest.report import report
from common.errors import ConfigError
from common.orders import BUY, SELL
from tests.common.backtest.test_report import fill, symbol


def run(fills):
    market = symbol([(i, 100 + i % 3, 101 + i % 3) for i in range(90)], "X & Y", [(i, i / 90) for i in range(60)])
    told, curves = report([market], fills, len(fills), 5.0)
    told |= {"decisions": {"refusals": {"SIGNAL_WEAK": 10, "RATE_SYMBOL": 0}}}
    return told, curves


FILLS = [fill(BUY, 1, 101, 0.01, 5, 4), fill(SELL, 2, 100, 0.01, 50, 50)]


@pytest.mark.parametrize("fills", [FILLS, []])
def test_every_picture_is_whole_and_drawn_the_same_twice(fills):
    found = backtest_plot.pictures(*run(fills))
    assert set(found) == {"equity", "positions", "costs", "markout", "calibration", "decisions", "equity-narrow",
                          "positions-narrow"}
    assert found == backtest_plot.pictures(*run(fills))
    for text in found.values():
        tree = ElementTree.fromstring(text)
        assert tree.tag.endswith("svg")
        assert "<dc:date>" not in text
    assert "signal weak" in found["decisions"] and "X &amp; Y" in found["calibration"]


def test_two_clips_of_one_page_are_not_taken_for_each_other():
    clips = [e.get("id") for text in backtest_plot.pictures(*run(FILLS)).values()
             for e in ElementTree.fromstring(text).iter() if e.tag.endswith("clipPath")]
    assert len(clips) == len(set(clips)) > 3


def test_without_matplotlib_the_remedy_is_named(monkeypatch):
    original = builtins.__import__

    def missing(name, *arguments, **options):
        if name == "matplotlib":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"predictive-alpha\[plot\]"):
        backtest_plot.check("--out x.html")
