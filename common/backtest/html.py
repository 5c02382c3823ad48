"""The report of a backtest as one HTML file: nothing is fetched, nothing runs. The same input gives the same bytes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from common.instant import to_the_second

STYLE = """
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --ink: #1f2733; --soft: #566172; --grid: #e6e9ee;
        --net: #1f5fbf; --pale: #9db7dd; --loss: #c02f3d; --gain: #11753a; }
@media (prefers-color-scheme: dark) {
  :root { --page: #12161c; --card: #1b212a; --ink: #e4e8ee; --soft: #a3adbb; --grid: #333c49;
          --net: #6ea8ff; --pale: #46648f; --loss: #ff7b84; --gain: #4cc47e; } }
body { margin: 0; background: var(--page); color: var(--ink);
       font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 22px; margin: 0 0 2px; }
h2 { font-size: 15px; margin: 28px 0 10px; }
.sub { color: var(--soft); margin: 0 0 20px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(220px, 44%), 1fr));
         gap: 12px; margin-top: 12px; }
.tile, .card { background: var(--card); border: 1px solid var(--grid); border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 19px; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 12px; }
.card { padding: 12px 14px; margin-top: 12px; overflow-x: auto; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr));
       gap: 12px; margin-top: 12px; }
.two .card { margin-top: 0; }
svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: 12px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr:last-child td { border-bottom: 0; }
.loss { color: var(--loss); } .gain { color: var(--gain); }
pre { margin: 0; font: 12px/1.5 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap;
      overflow-wrap: anywhere; }
.narrow { display: none; }
@media (max-width: 640px) {
  main { padding: 18px 12px 32px; }
  .wide { display: none; } .narrow { display: block; }
  .card { padding: 10px; }
  table.many thead { display: none; }
  table.many tr { display: grid; grid-template-columns: 1fr 1fr; gap: 0 18px; padding: 6px 0;
                  border-bottom: 1px solid var(--grid); }
  table.many td { display: flex; justify-content: space-between; gap: 8px; border: 0; padding: 2px 0;
                  text-align: right; }
  table.many td:first-child { grid-column: 1 / -1; font-weight: 600; }
  table.many td:not(:first-child)::before { content: attr(data-name); color: var(--soft); font-size: 12px;
                                            text-align: left; white-space: normal; }
  table.many td:first-child, table.few td { white-space: normal; overflow-wrap: anywhere; }
  th, td { padding: 5px 4px; } }
.note { color: var(--soft); font-size: 12.5px; margin: 8px 0 0; }
"""
_MINUS = "\u2212"
_MANY = 4  # columns that a phone shows side by side
#: what stands for the colours that pictures are drawn in, so that they follow the page into the dark
_THEME = {"#1f2733": "--ink", "#6b7686": "--soft", "#e6e9ee": "--grid", "#1f5fbf": "--net", "#9db7dd": "--pale",
          "#d6404e": "--loss", "#1a9850": "--gain"}


def page(tree: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """`tree` as `alpha backtest --json` prints it, `pictures` as of `backtest_plot.pictures`."""
    symbols, model = list(tree["symbols"]), tree["model"]
    title = f"Backtest of {model['name']} on {', '.join(symbols)}"
    time, two = tree["time"], lambda left, right: f'<div class="two">{left}{right}</div>'

    def drawn(name: str, words: str) -> str:
        return card(picture(pictures[name], words, pictures.get(f"{name}-narrow", "")))

    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{to_the_second(time["from_ns"])} to {to_the_second(time["to_ns"])} UTC \u00b7 '
        f'{time["seconds"]:,.0f} s \u00b7 '
        f'{tree["recording"]["frames"]:,} frames, {tree["recording"]["ticks"]:,} ticks, '
        f'{tree["decisions"]["predictions"]:,} predictions</p>',
        *([f'<p class="loss">{model["in_sample"]:.0%} of the ticks are of the time that the model learnt from: what it '
           'earns there says nothing.</p>'] if model.get("in_sample") else []),
        _tiles(tree),
        drawn("equity", "Equity and drawdown over time"), drawn("positions", "Value held over time"),
        "<h2>Costs and fills</h2>",
        two(drawn("costs", "Where the profit goes"), drawn("markout", "Markout of fills")),
        card(_fills(tree)),
        "<h2>Predictions and decisions</h2>",
        two(drawn("calibration", "Calibration of predictions"), drawn("decisions", "What became of predictions")),
        card(_calibration(tree)),
        "<h2>Symbols</h2>", card(_symbols(tree)),
        "<h2>What was run</h2>", card(_captures(tree)),
        card(f"<pre>{escape(json.dumps({key: tree[key] for key in ('model', 'timing', 'config')}, indent=1))}</pre>"),
    ]
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
            "<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n")


def _tiles(tree: Mapping[str, Any]) -> str:
    profit, trading, fills = tree["profit"], tree["trading"], tree["fills"]
    slippage = fills["slippage_bps"]["mean"]
    tiles = [
        ("net profit", _money(profit["net"], signed=True), profit["net"]),
        ("of turnover", _bps(profit["net_bps_of_turnover"]), profit["net_bps_of_turnover"]),
        ("before fees", _money(profit["gross"], signed=True), profit["gross"]),
        ("largest drawdown", _money(profit["max_drawdown"]), None),
        ("turnover", _money(trading["turnover"]), None),
        ("orders, fills", f"{trading['orders']:,}, {trading['fills']:,}", None),
        (f"hit rate of {fills['hits_of']:,} fills", _share(fills["hit_rate"]), None),
        ("slippage to the mid", _bps(slippage), None),
    ]
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b{_tone(value)}>{text}</b><span>{escape(name)}</span></div>'
        for name, text, value in tiles) + "</div>"


def _fills(tree: Mapping[str, Any]) -> str:
    fills, costs = tree["fills"], tree["costs"]
    rows = [["slippage against the mid at the decision", *_quality(fills["slippage_bps"])]]
    rows += [[f"markout after {tau} s", *_quality(told)] for tau, told in fills["markout_bps"].items()]
    made = table(["bps", "mean, by value", "median", "above 0", "fills"], rows)
    return made + (
        f'<p class="note">Decided to filled: {_number(fills["delay_ms"], 2)} ms on average; fees '
        f'{_bps(fills["fee_bps"])}. Adverse selection within 10 s: {_money(costs["adverse_selection_10s"])}. '
        f'{costs["without_mid"]:,} fills without a mid count as signal.</p>')


def _quality(told: Mapping[str, Any]) -> list[str]:
    return [_number(told["mean"], 3), _number(told["median"], 3), _share(told["earned"]), f"{told['count']:,}"]


def _calibration(tree: Mapping[str, Any]) -> str:
    heads = ["symbol", "outcomes", "flat", "unknown", "base rate", "hit rate", "Brier", "of base rate", "log loss",
             "ECE", "IC"]
    rows = [[name, f"{told['known']:,}", f"{told['flat']:,}", f"{told['unknown']:,}", _share(told["base_rate"]),
             _share(told["hit_rate"]), *(_number(told[key], 4) for key in ("brier", "brier_base", "log_loss", "ece",
                                                                           "ic"))]
            for name, told in tree["calibration"].items()]
    horizon = next((told["horizon_s"] for told in tree["calibration"].values()), 0)
    return table(heads, rows) + (
        f'<p class="note">Outcome: the mid {horizon:g} s later. Predictions closer together than that share most of '
        f'their outcome: about {tree["time"]["seconds"] / horizon if horizon else 0:,.0f} a symbol are independent. '
        "A Brier score below that of the base rate says more than the base rate does.</p>")


def _symbols(tree: Mapping[str, Any]) -> str:
    heads = ["symbol", "ticks", "predictions", "fills", "bought", "turnover", "net", "fees", "position",
             "mean spread, bps"]
    rows = [[name, f"{told['ticks']:,}", f"{told['predictions']:,}", f"{told['fills']:,}", f"{told['bought']:,}",
             _money(told["turnover"]), _money(told["net"], signed=True), _money(told["fees"]),
             f"{told['position']:.8g}".replace("-", _MINUS), _number(told["spread_bps"], 3)]
            for name, told in tree["symbols"].items()]
    return table(heads, rows)


def _captures(tree: Mapping[str, Any]) -> str:
    return table(["capture", "bytes", "SHA-256"], [
        [told["name"], f"{told['bytes']:,}", f"<code>{told['sha256'][:32]}\u2026</code>"] for told in tree["captures"]],
        raw=2)


def picture(svg: str, name: str, narrow: str = "") -> str:
    """A picture in the colours of the page, said as `name` to who cannot see it; `narrow` is for a phone."""
    if narrow:
        return f'<div class="wide">{picture(svg, name)}</div><div class="narrow">{picture(narrow, name)}</div>'
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(name)}" ', 1)


def table(heads: Sequence[str], rows: Iterable[Iterable[str]], raw: int = -1) -> str:
    """A table; column `raw` holds HTML. One of many columns becomes a list on a phone."""
    many = len(heads) > _MANY
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    lines = "".join("<tr>" + "".join(
        f'<td data-name="{escape(heads[i])}">{cell if i == raw else escape(cell)}</td>'
        for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return f"<table class='{'many' if many else 'few'}'><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def card(content: str) -> str:
    return f'<div class="card">{content}</div>'


def _tone(value: float | None) -> str:
    return "" if not value else ' class="gain"' if value > 0 else ' class="loss"'


def _money(value: float, signed: bool = False) -> str:
    return f"{value:{'+' if signed else ''},.2f}".replace("-", _MINUS)


def _bps(value: float | None) -> str:
    return f"{_number(value, 3)} bps" if value is not None else "\u2013"


def _number(value: float | None, digits: int) -> str:
    return f"{value:,.{digits}f}".replace("-", _MINUS) if value is not None else "\u2013"


def _share(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else "\u2013"
