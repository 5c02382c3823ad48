"""The report of a backtest as one HTML file: nothing is fetched, nothing runs. The same input gives the same bytes."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from common.instant import to_the_second

STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f5f6f8; color: #1f2733;
       font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 22px; margin: 0 0 2px; }
h2 { font-size: 15px; margin: 28px 0 10px; }
.sub { color: #6b7686; margin: 0 0 20px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 12px; }
.tile, .card { background: #fff; border: 1px solid #e6e9ee; border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 19px; font-variant-numeric: tabular-nums; }
.tile span { color: #6b7686; font-size: 12px; }
.card { padding: 12px 14px; margin-top: 12px; overflow-x: auto; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 12px; margin-top: 12px; }
.two .card { margin-top: 0; }
svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid #eef0f3; white-space: nowrap; }
th { color: #6b7686; font-weight: 500; font-size: 12px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr:last-child td { border-bottom: 0; }
.loss { color: #c02f3d; } .gain { color: #14813f; }
pre { margin: 0; font: 12px/1.5 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap;
      overflow-wrap: anywhere; }
.note { color: #6b7686; font-size: 12.5px; margin: 8px 0 0; }
"""
_MINUS = "\u2212"


def page(tree: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """`tree` as `alpha backtest --json` prints it, `pictures` as of `backtest_plot.pictures`."""
    symbols, model = list(tree["symbols"]), tree["model"]
    title = f"Backtest of {model['name']} on {', '.join(symbols)}"
    time, two = tree["time"], lambda left, right: f'<div class="two">{left}{right}</div>'
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{to_the_second(time["from_ns"])} to {to_the_second(time["to_ns"])} UTC \u00b7 '
        f'{time["seconds"]:,.0f} s \u00b7 '
        f'{tree["recording"]["frames"]:,} frames, {tree["recording"]["ticks"]:,} ticks, '
        f'{tree["decisions"]["predictions"]:,} predictions</p>',
        *([f'<p class="loss">{model["in_sample"]:.0%} of the ticks are of the time that the model learnt from: what it '
           'earns there says nothing.</p>'] if model.get("in_sample") else []),
        _tiles(tree),
        card(pictures["equity"]), card(pictures["positions"]),
        "<h2>Costs and fills</h2>",
        two(card(pictures["costs"]), card(pictures["markout"])),
        card(_fills(tree)),
        "<h2>Predictions and decisions</h2>",
        two(card(pictures["calibration"]), card(pictures["decisions"])),
        card(_calibration(tree)),
        "<h2>Symbols</h2>", card(_symbols(tree)),
        "<h2>What was run</h2>", card(_captures(tree)),
        card(f"<pre>{escape(json.dumps({key: tree[key] for key in ('model', 'timing', 'config')}, indent=1))}</pre>"),
    ]
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body><main>\n'
            + "\n".join(body) + "\n</main></body></html>\n")


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


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], raw: int = -1) -> str:
    """A table; column `raw` holds HTML."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    lines = "".join("<tr>" + "".join(f"<td>{cell if i == raw else escape(cell)}</td>" for i, cell in enumerate(row))
                    + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


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
