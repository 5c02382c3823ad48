"""Pictures of an explanation and of a day. The same numbers give the same bytes.

Needs matplotlib, the extra `plot`, and imports it only when a picture is drawn.
"""

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from textwrap import fill
from typing import Any

import numpy as np

from common.capture_plot import check  # of the ending, and that there is something to draw with
from common.errors import ConfigError
from common.explain.order import CLOCK_ASKED, PASSED, REFUSED
from common.figures import GAIN, INK, LOSS, METADATA, NET, PALE, SOFT, SYMBOLS, money, styled, svg, utc_axis
from common.instant import utc

__all__ = ["check", "draw", "pictures"]
_MULTIPLES = ("price_in_ticks",)  # checks whose limit is a step, of which nothing is taken up
_LEAST = 0.004  # of an axis that a bar takes at least, so that it is seen


# ---- an order


def draw(tree: Mapping[str, Any], path: str | PathLike) -> None:
    """Write the picture of an explanation; its kind by the ending of `path`. Raises ConfigError as `check`, and where
    the file cannot be written."""
    check(path)
    from matplotlib.figure import Figure

    with styled("explain"):
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
            figure.savefig(fspath(path), **({"metadata": METADATA}
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
    for side, colour in (("bids", GAIN), ("asks", LOSS)):
        axes.barh([float(price) for price, _ in sides[side]], [float(qty) for _, qty in sides[side]], height=height,
                  color=colour, alpha=0.55, label=side)
    axes.axhline(float(order["price"]), color=NET, linewidth=1.2, label=f"{order['side']} limit")
    if tree["fills"]:
        axes.scatter([float(fill["qty"]) for fill in tree["fills"]], [float(fill["price"]) for fill in tree["fills"]],
                     color=INK, s=18, zorder=3, label="fills")
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
        axes.barh(i, max(length, end * _LEAST), left=begin, height=0.6, color=NET if i % 2 else PALE)
        axes.annotate(f"{length:,.3g}", (begin + max(length, end * _LEAST), i), xytext=(4, 0), va="center",
                      textcoords="offset points", fontsize=8.5)
    axes.set_yticks(range(len(steps)), [step["stage"] for step in steps])
    axes.invert_yaxis()
    axes.set_xlim(0, end * 1.12)
    axes.grid(axis="y", visible=False)


def _checks(axes: Any, checks: Sequence[Mapping[str, Any]]) -> None:
    """How much of each limit was taken up."""
    rows = [(told, _share(told)) for told in checks if told["value"] is not None and _number(told["limit"])
            and told["check"] not in _MULTIPLES]
    others = [told["check"] for told in checks if told["verdict"] == PASSED and told not in [row for row, _ in rows]]
    axes.set_title("Share of each limit that was taken up")
    axes.set_xlabel(fill(f"passed without a number: {', '.join(others)}", 120) if others else "")
    if not rows:
        axes.set_axis_off()
        return
    for i, (told, share) in enumerate(rows):
        axes.barh(i, max(min(share, 1.25), _LEAST), height=0.6, color=LOSS if told["verdict"] == REFUSED else PALE)
        axes.annotate(_words(told), (min(share, 1.25), i), xytext=(4, 0),
                      va="center", textcoords="offset points", fontsize=8.5)
    axes.axvline(1, color=LOSS, linewidth=1, linestyle="--")
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
    """Name -> SVG of a report of common.explain.day, of all there is something to draw for; what is wide has a picture
    for a phone beside it, NAME-narrow."""
    found = {}
    if tree["fills"]["count"]:
        for name, size in (("profit", (11, 3.4)), ("profit-narrow", (5.0, 3.4))):
            found[name] = svg(size, lambda figure: _profit(figure, tree), name)
    if any(point["held"] for point in tree["curve"]):
        for name, size in (("positions", (11, 2.8)), ("positions-narrow", (5.0, 3.4))):
            found[name] = svg(size, lambda figure: _positions(figure, tree), name)
    if any(told["count"] for told in tree["latency_us"].values()):
        found["latency"] = svg((5.3, 3.4), lambda figure: _latency(figure, tree), "latency")
    if tree["refusals"]:
        found["refusals"] = svg((5.3, 3.1), lambda figure: _refusals(figure, tree), "refusals")
    return found


def _profit(figure: Any, tree: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    times, points = _drawn(tree)
    for name, colour, width in (("realised", PALE, 1.2), ("net", NET, 1.6)):
        axes.step(times, [float(point[name]) for point in points], where="post", color=colour, linewidth=width,
                  label="realised" if name == "realised" else "realised less fees")
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.set_title("Profit since the day began, quote currency")
    figure.legend(loc="outside lower left", ncols=2)
    money(axes.yaxis)
    utc_axis(axes, times[0], times[-1], "time, UTC", (3, 8))


def _positions(figure: Any, tree: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    times, points = _drawn(tree)
    for i, name in enumerate(tree["symbols"]):
        axes.step(times, [float(point["held"].get(name, 0)) for point in points], where="post",
                  color=SYMBOLS[i % len(SYMBOLS)], linewidth=1.2, label=name)
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.set_title("Held at cost, quote currency")
    figure.legend(loc="outside lower left", ncols=4)
    money(axes.yaxis)
    utc_axis(axes, times[0], times[-1], "time, UTC", (3, 8))


def _drawn(tree: Mapping[str, Any]) -> tuple[np.ndarray, list[Mapping[str, Any]]]:
    """The curve from shortly before the first fill to shortly after the last: a day is long, and may be young."""
    curve = tree["curve"]
    at = [point["at_ns"] for point in curve]
    first = at[1] if len(at) > 1 else at[0]
    margin = max((at[-1] - first) // 30, 1_000_000_000)
    at = [max(at[0], first - margin), *at[1:], min(max(at[-1] + margin, first), tree["to_ns"])]
    return _times(at), [*curve, curve[-1]]


def _latency(figure: Any, tree: Mapping[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes = figure.subplots()
    told = [(name, values) for name, values in tree["latency_us"].items() if values["count"]]
    axes.barh(range(len(told)), [values["p99"] for _, values in told], height=0.62, color=PALE, label="p99")
    axes.barh(range(len(told)), [values["p50"] for _, values in told], height=0.34, color=NET, label="p50")
    axes.set_yticks(range(len(told)), [name.replace("_", " ") for name, _ in told])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("us, logarithmic")
    figure.legend(loc="outside lower left", ncols=2)
    axes.grid(axis="y", visible=False)
    axes.set_title("Latency of orders, us")


def _refusals(figure: Any, tree: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    rows = list(tree["refusals"].items())[:12]
    axes.barh(range(len(rows)), [count for _, count in rows], height=0.6, color=PALE)
    axes.set_yticks(range(len(rows)), [reason for reason, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("decisions")
    money(axes.xaxis)
    axes.set_title("Refusals since the executor's telemetry began")


def _times(nanoseconds: Any) -> np.ndarray:
    return np.array(nanoseconds, np.int64).astype("datetime64[ns]")
