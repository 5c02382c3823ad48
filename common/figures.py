"""How reports draw: colours, style, and a figure as SVG text. The same numbers give the same bytes.

Needs matplotlib, the extra `plot`, and imports it only when a picture is drawn.
"""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC
from typing import Any

INK, SOFT, GRID = "#1f2733", "#6b7686", "#e6e9ee"
NET, PALE, LOSS, GAIN = "#1f5fbf", "#9db7dd", "#d6404e", "#1a9850"
SYMBOLS = ("#1f5fbf", "#e0862b", "#1a9850", "#8e5bc0", "#d6404e", "#4a9aa5", "#9a7b4f", "#c25591")
METADATA = {"Date": None, "Creator": None}  #: of an SVG file: what would differ from one drawing to the next
_STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
          "font.size": 9.5, "text.color": INK, "axes.edgecolor": GRID, "axes.labelcolor": SOFT,
          "axes.titlecolor": INK, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
          "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
          "grid.color": GRID, "grid.linewidth": 0.8, "xtick.color": SOFT, "ytick.color": SOFT,
          "legend.frameon": False, "legend.fontsize": 9}


def styled(salt: str) -> AbstractContextManager:
    """Within it figures have the style of reports; `salt` makes the ids within an SVG those of this figure alone."""
    from matplotlib import rc_context

    return rc_context({**_STYLE, "svg.hashsalt": salt})


def svg(size: tuple[float, float], paint: Callable[[Any], None], salt: str) -> str:
    """The SVG element of a figure of `size` in inches, which `paint` draws on."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with styled(salt):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata=METADATA)
    text = out.getvalue()
    return text[text.index("<svg"):]


def utc_axis(axes: Any, first: Any, last: Any, label: str, ticks: tuple[int, int]) -> None:
    """The x axis from `first` to `last`, as matplotlib counts time, in UTC; `ticks`: at least and at most so many."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=UTC, minticks=ticks[0], maxticks=ticks[1])
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.set_xlim(first, last)
    axes.set_xlabel(label)


def money(axis: Any) -> None:
    """Ticks of an axis with thousands apart, and a minus as wide as a plus."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "\u2212")))
