"""The pictures of a backtest, as SVG text. The same numbers give the same bytes.

Needs matplotlib, the extra `plot`, and imports it only when a picture is drawn.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.backtest.report import Curves
from common.errors import ConfigError
from common.figures import GAIN, LOSS, NET, PALE, SOFT, SYMBOLS, money, svg, utc_axis

_POINTS = 1500  #: of a curve that are drawn


def check(where: str) -> None:
    """Raises ConfigError if there is nothing to draw with; `where` names what asked for it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError("a report with pictures needs the module matplotlib", where=where,
                          remedy="pip install 'predictive-alpha[plot]', or ask for --out report.json") from None


def pictures(tree: Mapping[str, Any], curves: Curves) -> dict[str, str]:
    """Name -> SVG, of every picture there is something to draw for."""
    names = list(tree["symbols"])
    found = {
        "equity": svg((11, 4.6), lambda figure: _equity(figure, curves), "equity"),
        "positions": svg((11, 2.3), lambda figure: _positions(figure, curves, names), "positions"),
        "equity-narrow": svg((5.0, 4.4), lambda figure: _equity(figure, curves), "equity-narrow"),
        "positions-narrow": svg((5.0, 3.0), lambda figure: _positions(figure, curves, names, below=True),
                                    "positions-narrow"),
        "costs": svg((5.3, 3.1), lambda figure: _costs(figure, tree["costs"]), "costs"),
        "markout": svg((5.3, 3.1), lambda figure: _markout(figure, tree["fills"]), "markout"),
        "calibration": svg((5.3, 3.6), lambda figure: _calibration(figure, tree["calibration"]), "calibration"),
        "decisions": svg((5.3, 3.6), lambda figure: _decisions(figure, tree), "decisions"),
    }
    return found


def _equity(figure: Any, curves: Curves) -> None:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    times, thin = _times(curves.times), _thin(len(curves.times))
    above.plot(times[thin], curves.gross[thin], color=PALE, linewidth=1.2, label="before fees")
    above.plot(times[thin], curves.equity[thin], color=NET, linewidth=1.6, label="net")
    above.axhline(0, color=SOFT, linewidth=0.8)
    above.set_title("Equity, quote currency")
    above.legend(loc="best", ncols=2)
    below.fill_between(times[thin], curves.drawdown[thin], 0, color=LOSS, alpha=0.25, linewidth=0)
    below.plot(times[thin], curves.drawdown[thin], color=LOSS, linewidth=1)
    below.set_title("Drawdown")
    _clock(below, times)
    money(above.yaxis)
    money(below.yaxis)


def _positions(figure: Any, curves: Curves, names: list[str], below: bool = False) -> None:
    """`below`: the legend is below the picture, not beside it."""
    axes = figure.subplots()
    times, thin = _times(curves.times), _thin(len(curves.times))
    for i, name in enumerate(names):
        axes.plot(times[thin], curves.positions[i][thin], color=SYMBOLS[i % len(SYMBOLS)], linewidth=1.2, label=name)
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.set_title("Value held, quote currency")
    if below:
        figure.legend(loc="outside lower left", ncols=3)
    else:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _clock(axes, times)
    money(axes.yaxis)


def _costs(figure: Any, costs: Mapping[str, Any]) -> None:
    """From the signal to what is left of it: each bar begins where the one before ended."""
    axes = figure.subplots()
    steps = [("signal", costs["signal"]), ("latency", -costs["latency"]), ("spread", -costs["spread"]),
             ("fees", -costs["fees"])]
    level = 0.0
    for i, (_, step) in enumerate(steps):
        axes.bar(i, step, bottom=level, width=0.6, color=GAIN if step > 0 else LOSS)
        axes.plot([i - 0.3, i + 1.3], [level + step] * 2, color=SOFT, linewidth=0.7)
        level += step
    axes.bar(len(steps), level, width=0.6, color=NET)
    axes.use_sticky_edges = False
    axes.margins(y=0.08)
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.set_xticks(range(len(steps) + 1), [*(name for name, _ in steps), "net"])
    axes.grid(axis="x", visible=False)
    axes.set_title("Where the profit goes, quote currency")
    money(axes.yaxis)


def _markout(figure: Any, fills: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    points = [(float(tau), told) for tau, told in fills["markout_bps"].items() if told["count"]]
    axes.axhline(0, color=SOFT, linewidth=0.8)
    if fills["fee_bps"]:
        axes.axhline(fills["fee_bps"], color=LOSS, linewidth=1, linestyle="--", label="fee to earn back")
    places = range(len(points))
    axes.plot(places, [told["mean"] for _, told in points], color=NET, marker="o", markersize=4, linewidth=1.6,
              label="mean, by value")
    axes.plot(places, [told["median"] for _, told in points], color=PALE, marker="o", markersize=3, linewidth=1.2,
              label="median")
    axes.set_xticks(places, [f"{tau:g}" for tau, _ in points])
    axes.set_xlabel("seconds after the fill")
    axes.set_title("Markout of fills, bps")
    axes.legend(loc="best")


def _calibration(figure: Any, calibration: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.9, linestyle="--", label="perfect")
    for i, (name, told) in enumerate(calibration.items()):
        if not told["bins"]:
            continue
        said, happened, rows = (np.array(column, float) for column in zip(*told["bins"]))
        colour = SYMBOLS[i % len(SYMBOLS)]
        axes.plot(said, happened, color=colour, linewidth=1.2, label=name)
        axes.scatter(said, happened, s=8 + 90 * rows / rows.max(), color=colour, alpha=0.55, linewidths=0)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("probability of up, as predicted (area: predictions)")
    axes.set_ylabel("share that went up")
    axes.set_title("Calibration at the horizon")
    axes.legend(loc="upper left")


def _decisions(figure: Any, tree: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    counts = {"ORDER": tree["trading"]["orders"], **tree["decisions"]["refusals"]}
    shown = sorted(counts.items(), key=lambda item: (item[1], item[0]))[-12:]
    axes.barh(range(len(shown)), [count for _, count in shown], height=0.62,
              color=[NET if name == "ORDER" else PALE for name, _ in shown])
    for i, (_, count) in enumerate(shown):
        axes.annotate(f" {count:,}", (count, i), va="center", color=SOFT, fontsize=8.5)
    axes.set_yticks(range(len(shown)), [name.lower().replace("_", " ") for name, _ in shown])
    axes.margins(x=0.16)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(_few())
    axes.set_title("What became of the decisions")
    money(axes.xaxis)


def _times(times: np.ndarray) -> np.ndarray:
    """Unix ns as days, as matplotlib counts them."""
    return times / 86_400e9


def _thin(count: int) -> np.ndarray:
    """Which points of a curve to draw: all, or evenly spaced ones and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, _POINTS)).astype(int))


def _clock(axes: Any, times: np.ndarray) -> None:
    utc_axis(axes, times[0], max(times[-1], times[0] + 1e-9), "time of receipt, UTC", (4, 10))


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)
