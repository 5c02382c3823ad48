"""Pictures of an explanation and of a day. The same numbers give the same bytes.

Needs matplotlib, the extra `plot`, and imports it only when a picture is drawn.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC
from os import PathLike, fspath
from textwrap import fill
from typing import Any

import numpy as np

from common.capture_plot import check  # of the ending, and that there is something to draw with
from common.errors import ConfigError
from common.explain import CLOCK_ASKED, PASSED, REFUSED
from common.instant import utc

__all__ = ["check", "draw", "pictures"]
_INK, _SOFT, _GRID = "#1f2733", "#6b7686", "#e6e9ee"
_NET, _PALE, _LOSS, _GAIN = "#1f5fbf", "#9db7dd", "#d6404e", "#1a9850"
_SYMBOLS = ("#1f5fbf", "#e0862b", "#1a9850", "#8e5bc0", "#d6404e", "#4a9aa5", "#9a7b4f", "#c25591")
_STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
          "font.size": 9.5, "text.color": _INK, "axes.edgecolor": _GRID, "axes.labelcolor": _SOFT,
          "axes.titlecolor": _INK, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
          "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
          "grid.color": _GRID, "grid.linewidth": 0.8, "xtick.color": _SOFT, "ytick.color": _SOFT,
          "legend.frameon": False, "legend.fontsize": 9}
_LEAST = 0.004  # of an axis that a bar takes at least, so that it is seen


# ---- an order


def draw(tree: Mapping[str, Any], path: str | PathLike) -> None:
    """Write the picture of an explanation; its kind by the ending of `path`. Raises ConfigError as `check`, and where
    the file cannot be written."""
    check(path)
    from matplotlib.figure import Figure

    with _style("explain"):
        figure = Figure(figsize=(13, 9), dpi=110, layout="constrained")
        grid = figure.add_gridspec(3, 2, height_ratios=(3, 2.4, 3), width_ratios=(1, 1))
        _book(figure.add_subplot(grid[0, 0]), tree)
        _size(figure.add_subplot(grid[0, 1]), tree)
        steps = tree["waterfall"]
        _waterfall(figure.add_subplot(grid[1, 0]), [step for step in steps if step["clock"] == "monotonic"],
                   "Tick received to decision, us", 1e3)
        _waterfall(figure.add_subplot(grid[1, 1]), [step for step in steps if step["clock"] == "wall"],
                   "Decision to its end, ms by the wall clock", 1e6)
        _checks(figure.add_subplot(grid[2, :]), tree["checks"])
        order = tree["order"]
        figure.suptitle(f"{order['side']} {order['qty']} {order['symbol']} at {order['price']}: {order['state']}, "
                        f"{order['filled']} filled\n{order['client_id']}, {utc(order['created_ns'])}", fontsize=12,
                        x=0.01, ha="left", linespacing=1.5)
        try:
            figure.savefig(fspath(path), **({"metadata": {"Date": None, "Creator": None}}
                                            if fspath(path).endswith(".svg") else {}))
        except OSError as error:
            raise ConfigError("cannot write the picture", where=f"{fspath(path)}: {error.strerror}") from None


def _book(axes: Any, tree: Mapping[str, Any]) -> None:
    """Price upwards, quantity to the right, and where the order and its fills are."""
    market, levels, order = tree["market"], tree.get("book"), tree["order"]
    axes.set_title("Book at the decision" if market else "Book at the decision: not recorded")
    if market is None:
        axes.set_axis_off()
        return
    sides = levels or {"bids": [(market["bid"], market["bid_qty"])], "asks": [(market["ask"], market["ask_qty"])]}
    prices = [float(price) for side in sides.values() for price, _ in side]
    height = min(np.diff(np.unique(prices)), default=prices[0] * 1e-5 or 1.0) * 0.6
    for side, colour in (("bids", _GAIN), ("asks", _LOSS)):
        axes.barh([float(price) for price, _ in sides[side]], [float(qty) for _, qty in sides[side]], height=height,
                  color=colour, alpha=0.55, label=side)
    axes.axhline(float(order["price"]), color=_NET, linewidth=1.2, label=f"{order['side']} limit")
    if tree["fills"]:
        axes.scatter([float(fill["qty"]) for fill in tree["fills"]], [float(fill["price"]) for fill in tree["fills"]],
                     color=_INK, s=18, zorder=3, label="fills")
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")
    axes.set_xlabel("quantity")
    axes.legend(loc="best")


def _size(axes: Any, tree: Mapping[str, Any]) -> None:
    axes.set_axis_off()
    axes.set_title("From the probability to the size")
    prediction, lines = tree["prediction"], []
    if prediction:
        lines.append(f"{'asked by':<12}the clock, not a model" if prediction["by"] == CLOCK_ASKED else
                     f"{'up, down':<12}{prediction['p_up']:.6f}, {prediction['p_down']:.6f}")
    for step in tree["size"]:
        value = step["value"]
        told = f"{value:.6f}" if isinstance(value, float) else str(value)
        lines += [f"{step['step']:<12}{told}", f"{'':<12}{step['how']}"]
    verdict = tree["verdict"]
    lines.append(f"{'again':<12}{verdict['again']}{': the order' if verdict['same'] else ''}")
    axes.text(0, 1, "\n".join(lines), family="monospace", fontsize=8.5, va="top", transform=axes.transAxes,
              linespacing=1.35)


def _waterfall(axes: Any, steps: Sequence[Mapping[str, Any]], title: str, unit: float) -> None:
    axes.set_title(title)
    if not steps:
        axes.set_axis_off()
        return
    start = steps[0]["at_ns"]
    end = max(step["at_ns"] + step["ns"] - start for step in steps) / unit or 1.0
    for i, step in enumerate(steps):
        begin, length = (step["at_ns"] - start) / unit, step["ns"] / unit
        axes.barh(i, max(length, end * _LEAST), left=begin, height=0.6, color=_NET if i % 2 else _PALE)
        axes.annotate(f"{length:,.3g}", (begin + max(length, end * _LEAST), i), xytext=(4, 0), va="center",
                      textcoords="offset points", fontsize=8.5)
    axes.set_yticks(range(len(steps)), [step["stage"] for step in steps])
    axes.invert_yaxis()
    axes.set_xlim(0, end * 1.12)
    axes.grid(axis="y", visible=False)


def _checks(axes: Any, checks: Sequence[Mapping[str, Any]]) -> None:
    """How much of each limit was taken up."""
    rows = [(told, _share(told)) for told in checks if told["value"] is not None and _number(told["limit"])]
    others = [told["check"] for told in checks if told["verdict"] == PASSED and told not in [row for row, _ in rows]]
    axes.set_title("Share of each limit that was taken up")
    axes.set_xlabel(fill(f"passed without a number: {', '.join(others)}", 120) if others else "")
    if not rows:
        axes.set_axis_off()
        return
    for i, (told, share) in enumerate(rows):
        axes.barh(i, max(min(share, 1.25), _LEAST), height=0.6, color=_LOSS if told["verdict"] == REFUSED else _PALE)
        axes.annotate(_words(told), (min(share, 1.25), i), xytext=(4, 0),
                      va="center", textcoords="offset points", fontsize=8.5)
    axes.axvline(1, color=_LOSS, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [f"{told['check']}  ({told['key']})" for told, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", visible=False)


def _share(told: Mapping[str, Any]) -> float:
    value, limit = float(told["value"]), float(told["limit"])
    if told["at_least"]:
        return limit / value if value > 0 else 2.0
    return (abs(value) if told["key"].endswith(("_bps", "_skew_ms")) else max(value, 0.0)) / limit


def _words(told: Mapping[str, Any]) -> str:
    return f"{_plain(told['value'])}, at {'least' if told['at_least'] else 'most'} {_plain(told['limit'])}"


def _number(value: Any) -> bool:
    try:
        return float(value) > 0
    except (TypeError, ValueError):
        return False


def _plain(value: Any) -> str:
    return f"{float(value):,.6g}"


# ---- a day


def pictures(tree: Mapping[str, Any]) -> dict[str, str]:
    """Name -> SVG of a report as `explain_day.report` makes it."""
    found = {
        "profit": _figure((11, 3.4), lambda figure: _profit(figure, tree), "profit"),
        "positions": _figure((11, 2.6), lambda figure: _positions(figure, tree), "positions"),
        "latency": _figure((5.3, 3.1), lambda figure: _latency(figure, tree), "latency"),
        "refusals": _figure((5.3, 3.1), lambda figure: _refusals(figure, tree), "refusals"),
    }
    return found


def _profit(figure: Any, tree: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    curve = tree["curve"]
    times = _times([point["at_ns"] for point in curve])
    for name, colour, width in (("realised", _PALE, 1.2), ("net", _NET, 1.6)):
        axes.step(times, [float(point[name]) for point in curve], where="post", color=colour, linewidth=width,
                  label="realised" if name == "realised" else "realised less fees")
    axes.axhline(0, color=_SOFT, linewidth=0.8)
    axes.set_title("Profit since the day began, quote currency")
    axes.legend(loc="best", ncols=2)
    _clock(axes, tree)


def _positions(figure: Any, tree: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    for i, name in enumerate(tree["symbols"]):
        points = [(point["at_ns"], float(point["held"][name])) for point in tree["curve"] if name in point["held"]]
        if points:
            times, values = zip(*points)
            axes.step(_times(times), values, where="post", color=_SYMBOLS[i % len(_SYMBOLS)], linewidth=1.2, label=name)
    axes.axhline(0, color=_SOFT, linewidth=0.8)
    axes.set_title("Held at cost, quote currency")
    if tree["symbols"]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _clock(axes, tree)


def _latency(figure: Any, tree: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    told = [(name, values) for name, values in tree["latency_us"].items() if values["count"]]
    axes.barh(range(len(told)), [values["p99"] for _, values in told], height=0.62, color=_PALE, label="p99")
    axes.barh(range(len(told)), [values["p50"] for _, values in told], height=0.34, color=_NET, label="p50")
    axes.set_yticks(range(len(told)), [name for name, _ in told])
    axes.invert_yaxis()
    if told:
        axes.set_xscale("log")
        axes.legend(loc="lower right")
    axes.grid(axis="y", visible=False)
    axes.set_title("Latency of orders, us")


def _refusals(figure: Any, tree: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    rows = list((tree["refusals"] or {}).items())[:12]
    axes.barh(range(len(rows)), [count for _, count in rows], height=0.6, color=_PALE)
    axes.set_yticks(range(len(rows)), [reason for reason, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title("Refusals since the executor's telemetry began" if rows else "Refusals: not known")


def _figure(size: tuple[float, float], paint: Callable[[Any], None], salt: str) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _style(salt):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg"):]


def _style(salt: str) -> AbstractContextManager:
    from matplotlib import rc_context
    return rc_context({**_STYLE, "svg.hashsalt": salt})


def _times(nanoseconds: Any) -> np.ndarray:
    return np.array(nanoseconds, np.int64).astype("datetime64[ns]")


def _clock(axes: Any, tree: Mapping[str, Any]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=UTC, minticks=5, maxticks=14)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    points = [point["at_ns"] for point in tree["curve"]]
    axes.set_xlim(*_times((points[0], max(points[-1], points[0] + 1_000_000_000))))
