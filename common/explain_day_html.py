"""The report of a day as one HTML file: nothing is fetched, nothing runs. The same input gives the same bytes. Pure."""

from collections.abc import Mapping
from html import escape
from typing import Any

from common.backtest_html import STYLE, card, table

_UNKNOWN = "\u2013"
_MINUS = "\u2212"


def page(tree: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """`tree` as `alpha daily --json` prints it, `pictures` as of `explain_plot.pictures`."""
    title = f"{tree['instance']}: {tree['day']}"
    symbols = [[name, str(told["orders"]), str(told["fills"]), _text(told["bought"]), _text(told["sold"]),
                _text(told["turnover"]), _text(told["fees"]), _text(told["realised"]), _text(told["position"]),
                _text(told["average_cost"]), _text(told["mark"]), _text(told["unrealised"])]
               for name, told in tree["symbols"].items()]
    latency = [[name, f"{told['count']:,}", *(_micro(told[key]) for key in ("p50", "p99", "max"))]
               for name, told in tree["latency_us"].items()]
    orders = [[state, f"{count:,}"] for state, count in tree["orders"]["states"].items()]
    reasons = [[reason, f"{count:,}"] for reason, count in tree["orders"]["reasons"].items()]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">UTC \u00b7 {tree["orders"]["count"]:,} orders, {tree["fills"]["count"]:,} fills \u00b7 '
        f'journal {escape(tree["journal"])}</p>',
        _tiles(tree["profit"], tree["fills"]),
        card(pictures["profit"]), card(pictures["positions"]),
        "<h2>Symbols</h2>",
        card(table(["symbol", "orders", "fills", "bought", "sold", "turnover", "fees", "realised", "position",
                    "average cost", "mark", "unrealised"], symbols)),
        "<h2>Orders</h2>",
        f'<div class="two">{card(table(["reached", "orders"], orders))}{card(pictures["refusals"])}</div>',
        *([card(table(["ended for", "orders"], reasons))] if reasons else []),
        "<h2>Latency of orders</h2>",
        f'<div class="two">{card(table(["station", "orders", "p50, us", "p99, us", "most, us"], latency))}'
        f'{card(pictures["latency"])}</div>',
    ]
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body><main>\n'
            + "\n".join(body) + "\n</main></body></html>\n")


def _tiles(profit: Mapping[str, Any], fills: Mapping[str, Any]) -> str:
    tiles = [("realised less fees", profit["net"]), ("realised", profit["realised"]), ("fees", profit["fees"]),
             ("unrealised now", profit["unrealised"]), ("since the day began", profit["since_opening"]),
             ("turnover", fills["turnover"])]
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b{_tone(name, value)}>{_text(value)}</b><span>{escape(name)}</span></div>'
        for name, value in tiles) + "</div>"


def _tone(name: str, value: str | None) -> str:
    if name in ("fees", "turnover") or value is None or not float(value):
        return ""
    return ' class="loss"' if float(value) < 0 else ' class="gain"'


def _text(value: str | None) -> str:
    return _UNKNOWN if value is None else value.replace("-", _MINUS)


def _micro(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.1f}"
