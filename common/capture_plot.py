"""A picture of a recording: price and trades, spread, and depth around the mid, over time.

    series = Series(judge, symbol, from_ns, to_ns)
    series.look(recv_ns)                     after every line that the judge was given
    draw(series, report, "picture.png")

Time is cut into columns of one length, at most twice COLUMNS of them: when time has gone beyond the last, each two
become one. Of a column the last book is drawn, the lowest bid and highest ask, and the mean spread over its ticks; of
the trades the KEPT_TRADES largest. Memory is bounded by that, about 30 MB. Drawing takes a second or two.

Needs matplotlib, the extra `plot`; nothing else here does, and nothing imports it before a picture is drawn.
"""

import math
from os import PathLike, fspath
from typing import Any, Iterator

import numpy as np

from common.errors import ConfigError
from common.events import Trade
from common.figures import utc_axis
from common.fixed import SCALE
from common.instant import to_the_second
from common.market import State
from common.verify import Judge

COLUMNS = 1500
KEPT_TRADES = 20_000
LEVELS = 300  #: of each side of the book of a column
FORMATS = (".png", ".svg", ".pdf")

_FIRST_STEP_NS = 1_000_000
_BINS = 180  #: price bins of the heat map
_SHADED = dict.fromkeys(("start", "disconnect", "stale"), "#d3dcec")  #: without a valid book, and rightly so
_WRONG = "#f6c9c5"  #: without a valid book for any other cause
_UNKNOWN = "#f4f4f4"  #: deeper than what is known of a book
_MID, _BUY, _SELL, _GAP = "#1b1b1b", "#1a9850", "#d6404e", "#b2182b"
_BID, _ASK = "#3ddc84", "#4fb8ff"  #: on the dark of the heat map


class Column:
    """What is drawn of a short time."""

    __slots__ = ("at_ns", "low", "high", "spread", "count", "bid", "ask", "depth")

    def __init__(self, at_ns: int) -> None:
        self.at_ns = at_ns
        self.low, self.high = math.inf, -math.inf  #: best bid and ask, in prices
        self.spread, self.count = 0.0, 0  #: sum of the spreads, and of how many books
        self.bid = self.ask = math.nan  #: the last
        self.depth: tuple[np.ndarray, int] | None = None  #: levels float64[n, 2], how many are bids

    def absorb(self, later: "Column") -> None:
        self.low, self.high = min(self.low, later.low), max(self.high, later.high)
        self.spread, self.count = self.spread + later.spread, self.count + later.count
        if later.count:
            self.bid, self.ask, self.depth = later.bid, later.ask, later.depth


class Series:
    """What a picture shows of one symbol, received from `from_ns` to `to_ns`: gathered while a judge goes through
    a recording."""

    def __init__(self, judge: Judge, symbol: int, from_ns: int = 0, to_ns: int = 2**63 - 1) -> None:
        self.judge, self.symbol, self.from_ns, self.to_ns = judge, symbol, from_ns, to_ns
        self.name = judge.venue.symbols[symbol]
        self.columns: list[Column] = []
        self.step_ns = _FIRST_STEP_NS
        self.trades: list[tuple[int, float, float]] = []  #: (recv ns, price, signed quantity)
        self.trades_seen = 0
        self.first_ns = self.last_ns = 0  #: of what was looked at
        self._seq = 0
        self._open = False  # the book of the last column is not in it yet

    def look(self, recv_ns: int) -> None:
        """The judge has been given a line that was received at `recv_ns`."""
        if not self.from_ns <= recv_ns <= self.to_ns:
            return
        self.first_ns, self.last_ns = self.first_ns or recv_ns, max(recv_ns, self.last_ns)
        for event in self.judge.events:
            if type(event) is Trade and event.symbol == self.symbol:
                self._trade(recv_ns, event)
        symbol = self.judge.market.symbols[self.symbol]
        if symbol.state is not State.VALID:
            self.close()  # the next book is another
            return
        if symbol.seq == self._seq:
            return
        self._seq = symbol.seq
        top = self.judge.books.top(self.symbol)
        if not (top and top.bid and top.ask):
            return
        column = self._column(recv_ns, symbol.book)
        bid, ask = top.bid / SCALE, top.ask / SCALE
        column.low, column.high = min(column.low, bid), max(column.high, ask)
        column.bid, column.ask = bid, ask
        column.spread += ask - bid
        column.count += 1

    def close(self) -> None:
        """No line follows."""
        if self._open:
            self._seal(self.columns[-1], self.judge.market.symbols[self.symbol].book)

    def _trade(self, recv_ns: int, trade: Trade) -> None:
        self.trades.append((recv_ns, trade.price / SCALE, trade.qty / SCALE))
        self.trades_seen += 1
        if len(self.trades) > 2 * KEPT_TRADES:
            self.trades.sort(key=lambda kept: -abs(kept[2]))
            del self.trades[KEPT_TRADES:]

    def _column(self, recv_ns: int, book: Any) -> Column:
        """The column of now. The book in the one before is that of its end, as nearly as the first change after."""
        if self.columns and recv_ns >= self.columns[-1].at_ns + self.step_ns:
            if self._open:
                self._seal(self.columns[-1], book)
            while recv_ns - self.columns[0].at_ns >= 2 * COLUMNS * self.step_ns:
                self._halve()
        if not self.columns or recv_ns >= self.columns[-1].at_ns + self.step_ns:
            self.columns.append(Column(recv_ns - recv_ns % self.step_ns))
        self._open = True
        return self.columns[-1]

    def _seal(self, column: Column, book: Any) -> None:
        levels, n_bids, n_asks = book.levels()
        kept = np.concatenate((levels[:n_bids][:LEVELS], levels[n_bids:n_bids + n_asks][:LEVELS]))
        column.depth, self._open = (kept / SCALE, min(n_bids, LEVELS)), False

    def _halve(self) -> None:
        self.step_ns *= 2
        halved: list[Column] = []
        for column in self.columns:
            at_ns = column.at_ns - column.at_ns % self.step_ns
            if halved and halved[-1].at_ns == at_ns:
                halved[-1].absorb(column)
            else:
                column.at_ns = at_ns
                halved.append(column)
        self.columns = halved


def check(path: str | PathLike) -> None:
    """Raises ConfigError where no picture could be drawn: before a long recording is gone through for it."""
    if not fspath(path).endswith(FORMATS):
        raise ConfigError("a picture of no known kind", where=fspath(path), remedy=f"known: {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError("a picture needs the module matplotlib", where=fspath(path),
                          remedy="pip install 'predictive-alpha[plot]'") from None


def draw(series: Series, report: dict[str, Any], path: str | PathLike) -> None:
    """Write the picture; its kind by the ending of `path`. Raises ConfigError as `check`, and where there is nothing
    to draw or the file cannot be written."""
    check(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not series.columns and not series.trades:
        raise ConfigError("nothing to draw: no valid book and no trade", where=f"symbol={series.name}",
                          remedy="choose another --symbol, --from or --to")
    figure = Figure(figsize=(14, 10), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, height_ratios=(3, 1, 3), width_ratios=(60, 1))
    price = figure.add_subplot(grid[0, 0])
    spread = figure.add_subplot(grid[1, 0], sharex=price)
    depth = figure.add_subplot(grid[2, 0], sharex=price)
    scale = figure.add_subplot(grid[2, 1])
    _price(price, series)
    _spread(spread, series)
    _depth(figure, depth, scale, series)
    for axes in (price, spread, depth):
        _shade(axes, series)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
    _time(depth, series)
    for axes in (price, spread):
        axes.tick_params(labelbottom=False)
    _legend(price, series)
    figure.suptitle(_title(series, report), fontsize=11, x=0.01, ha="left", linespacing=1.5)
    try:
        figure.savefig(fspath(path))
    except OSError as error:
        raise ConfigError("cannot write the picture", where=f"{fspath(path)}: {error.strerror}") from None


def _times(nanoseconds: Any) -> np.ndarray:
    return np.array(nanoseconds, np.int64).astype("datetime64[ns]")


def _split(series: Series) -> list[list[Column]]:
    """Runs of columns with no spell without a book between them: a line is not drawn across what is not known."""
    ends = sorted(spell.to_ns for spell in series.judge.spells if spell.symbol == series.name)
    runs: list[list[Column]] = [[]]
    for column in series.columns:
        if runs[-1] and np.searchsorted(ends, runs[-1][-1].at_ns + series.step_ns) != np.searchsorted(
                ends, column.at_ns + series.step_ns):
            runs.append([])
        runs[-1].append(column)
    return [run for run in runs if run]


def _runs(series: Series) -> Iterator[tuple[np.ndarray, list[Column]]]:
    """(times, columns) of each run, the last column twice: it lasts until the book ceases to be valid."""
    for run in _split(series):
        last = run[-1].at_ns
        end = min([spell.from_ns for spell in _spells(series) if spell.from_ns >= last], default=series.last_ns)
        times = [max(column.at_ns, series.first_ns) for column in run]
        yield _times([*times, max(end, times[-1])]), [*run, run[-1]]


def _price(axes: Any, series: Series) -> None:
    for times, run in _runs(series):
        axes.fill_between(times, [column.low for column in run], [column.high for column in run], step="post",
                          color=_MID, alpha=0.18, linewidth=0)
        axes.step(times, [(column.bid + column.ask) / 2 for column in run], where="post", color=_MID, linewidth=1)
    if series.trades:
        times, prices, quantities = (np.array(values) for values in zip(*series.trades))
        sizes = 3 + 60 * np.abs(quantities) / np.abs(quantities).max()
        for side, colour in ((quantities > 0, _BUY), (quantities < 0, _SELL)):
            axes.scatter(_times(times[side]), prices[side], s=sizes[side], color=colour, alpha=0.55, linewidths=0,
                         zorder=3)
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")
    axes.set_ylabel("price")
    axes.margins(x=0)


def _spread(axes: Any, series: Series) -> None:
    highest = 0.0
    for times, run in _runs(series):
        spreads = np.array([column.spread / column.count for column in run])
        spreads *= 1e4 / np.array([(column.bid + column.ask) / 2 for column in run])
        axes.step(times, spreads, where="post", color="#4575b4", linewidth=0.9)
        highest = max(highest, spreads.max())
    axes.set_ylabel("spread (bps)")
    axes.set_ylim(0, highest * 1.1 or 1)


def _depth(figure: Any, axes: Any, scale: Any, series: Series) -> None:
    """Quantity per bin of price on a logarithmic scale of colour, with the best bid and ask through the middle."""
    from matplotlib.colors import LogNorm

    columns = [column for column in series.columns if column.depth is not None and column.count]
    axes.set_ylabel("price (colour: depth)")
    axes.set_facecolor(_UNKNOWN)
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")
    if not columns:
        scale.set_axis_off()
        return
    reach = _reach(columns)
    edges = np.linspace(min(column.bid for column in columns) - reach,
                        max(column.ask for column in columns) + reach, _BINS + 1)
    # Time in even steps: a column without a change shows the book of the one before, unless it was not valid.
    start, step = columns[0].at_ns, series.step_ns
    count = int((max(columns[-1].at_ns, series.last_ns) - start) // step) + 1
    image = np.full((_BINS, count), np.nan)
    known = _valid(series, start + step * np.arange(count))
    for column, after in zip(columns, [*columns[1:], None]):
        first = int((column.at_ns - start) // step)
        last = int((after.at_ns - start) // step) if after else count
        image[:, first:last] = np.where(known[first:last], _histogram(column, edges)[:, None], np.nan)
    found = image[image > 0]
    if not found.size:
        scale.set_axis_off()
        return
    low, high = np.quantile(found, (0.02, 0.998))
    mesh = axes.pcolormesh(_times(start + step * np.arange(count + 1)), edges,
                           np.ma.masked_invalid(np.maximum(image, low * 1e-3)),
                           norm=LogNorm(low, max(high, low * 1.01)), cmap="inferno", shading="flat", rasterized=True)
    for times, run in _runs(series):
        axes.step(times, [column.bid for column in run], where="post", color=_BID, linewidth=0.8)
        axes.step(times, [column.ask for column in run], where="post", color=_ASK, linewidth=0.8)
    axes.set_ylim(edges[0], edges[-1])
    figure.colorbar(mesh, cax=scale, label=f"quantity per {edges[1] - edges[0]:.3g} of price")


def _reach(columns: list[Column]) -> float:
    """How far beyond the best prices the heat map goes: what the 80 best levels of a side do, as a rule; in a thin
    book less, as far as what moved can still be seen."""
    near, far = [], []
    for column in columns[::max(1, len(columns) // 200)]:
        levels, bids = column.depth
        for side, best in ((levels[:bids], column.bid), (levels[bids:], column.ask)):
            if len(side):
                near.append(abs(side[min(15, len(side)) - 1, 0] - best))
                far.append(abs(side[min(80, len(side)) - 1, 0] - best))
    moved = max(column.ask for column in columns) - min(column.bid for column in columns)
    reach = min(np.median(far), max(np.median(near), 4 * moved)) if far else 0.0
    return max(float(reach), columns[-1].ask * 1e-6)


def _histogram(column: Column, edges: np.ndarray) -> np.ndarray:
    """Quantity per bin; not a number beyond the last level that is known, or was kept."""
    levels, bids = column.depth
    found = np.histogram(levels[:, 0], edges, weights=levels[:, 1])[0].astype(float)
    low = levels[bids - 1, 0] if bids else column.bid
    high = levels[-1, 0] if len(levels) > bids else column.ask
    found[(edges[1:] < low) | (edges[:-1] > high)] = np.nan
    return found


def _valid(series: Series, times: np.ndarray) -> np.ndarray:
    known = np.ones(len(times), bool)
    for spell in _spells(series):
        known &= (times < spell.from_ns) | (times + series.step_ns > spell.to_ns) & (spell.to_ns < series.last_ns)
    return known


def _spells(series: Series) -> list[Any]:
    return [spell for spell in series.judge.spells
            if spell.symbol == series.name and spell.to_ns > series.first_ns and spell.from_ns < series.last_ns]


def _shade(axes: Any, series: Series) -> None:
    """Spells without a valid book, and the gaps."""
    for spell in _spells(series):
        axes.axvspan(*_times((max(spell.from_ns, series.first_ns), min(spell.to_ns, series.last_ns))),
                     color=_SHADED.get(spell.cause, _WRONG), zorder=0.5, linewidth=0)
    for at_ns in _gaps(series):
        axes.axvline(_times(at_ns), color=_GAP, linewidth=0.8, linestyle="--", zorder=4)


def _gaps(series: Series) -> list[int]:
    found = series.judge.found
    return [entry["at_ns"] for name in ("gaps", "lost") for entry in found[name].first
            if entry["symbol"] in ("", series.name) and series.first_ns <= entry["at_ns"] <= series.last_ns]


def _time(axes: Any, series: Series) -> None:
    first, last = _times((series.first_ns, max(series.last_ns, series.first_ns + 1_000_000)))
    utc_axis(axes, first, last, "time of receipt, UTC", (5, 16))


def _legend(axes: Any, series: Series) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def dot(colour: str, label: str) -> Any:
        return Line2D([], [], linestyle="", marker="o", markersize=5, color=colour, label=label)

    spells = _spells(series)
    handles = [Line2D([], [], color=_MID, linewidth=1, label="mid"),
               Patch(color=_MID, alpha=0.18, linewidth=0, label="bid to ask")]
    if series.trades:
        handles += [dot(_BUY, "buyer lifted the ask"), dot(_SELL, "seller hit the bid")]
    handles += [Line2D([], [], color=colour, linewidth=1.6, label=label) for colour, label in (
        (_BID, "best bid, below"), (_ASK, "best ask, below"))]
    if any(spell.cause in _SHADED for spell in spells):
        handles.append(Patch(color=_SHADED["start"], label="no book: none yet, disconnected, or given up"))
    if any(spell.cause not in _SHADED for spell in spells):
        handles.append(Patch(color=_WRONG, label="book not valid"))
    if _gaps(series):
        handles.append(Line2D([], [], color=_GAP, linewidth=0.8, linestyle="--", label="gap"))
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), fontsize=8.5,
                frameon=False, borderaxespad=0.2, handlelength=1.6, columnspacing=1.4)


def _title(series: Series, report: dict[str, Any]) -> str:
    checks = [f"verdict: {report['verdict']}", f"{report['frames']:,} frames",
              f"gaps: {report['findings']['gaps']['count']:,}"]
    for name, right, wrong, words in (("checksums", "right", "wrong", "checksums right"),
                                      ("quote_checks", "equal", "unequal", "best quotes equal to the venue's")):
        every = report[name][right] + report[name][wrong]
        if every:
            checks.append(f"{report[name][right]:,} of {every:,} {words}")
    checks.append(f"book valid {report['symbols'][series.name]['valid_share']:.2%} of the time")
    if series.trades_seen > len(series.trades):
        checks.append(f"the {len(series.trades):,} largest of {series.trades_seen:,} trades")
    span = f"{to_the_second(series.first_ns)} to {to_the_second(series.last_ns)} UTC"
    return (f"{series.name} on {report['venue']}, {span}\n"
            + " · ".join(checks))
