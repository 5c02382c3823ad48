"""The report of a day as one HTML file: nothing is fetched, nothing runs. The same input gives the same bytes. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from html import escape
from typing import Any

from common.backtest.html import STYLE, card, picture, table
from common.instant import to_the_second

_UNKNOWN = "\u2013"
_MINUS = "\u2212"


def page(tree: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """`tree` as `alpha daily --json` prints it, `pictures` as of `explain_plot.pictures`. Money is rounded to
    hundredths here, prices to eight digits; the JSON is exact."""
    title = f"{tree['instance']}: {tree['day']}"
    symbols = [[name, str(told["orders"]), str(told["fills"]), _text(told["bought"]), _text(told["sold"]),
                _money(told["turnover"]), _money(told["fees"]), _money(told["realised"]), _text(told["position"]),
                _price(told["average_cost"]), _price(told["mark"]), _money(told["unrealised"])]
               for name, told in tree["symbols"].items()]
    latency = [[name.replace("_", " "), f"{told['count']:,}", *(_micro(told[key]) for key in ("p50", "p99", "max"))]
               for name, told in tree["latency_us"].items()]
    orders = [[state, f"{count:,}"] for state, count in tree["orders"]["states"].items()]
    reasons = [[reason, f"{count:,}"] for reason, count in tree["orders"]["reasons"].items()]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">UTC{_so_far(tree)} \u00b7 {tree["orders"]["count"]:,} orders, '
        f'{tree["fills"]["count"]:,} fills \u00b7 journal {escape(tree["journal"])}</p>',
        _halted(tree.get("halt")),
        _tiles(tree["profit"], tree["fills"]),
        *(card(picture(pictures[name], words, pictures.get(f"{name}-narrow", ""))) for name, words in (
            ("profit", "Profit over the day"), ("positions", "What was held over the day")) if name in pictures)]
    if symbols:
        body += ["<h2>Symbols</h2>", card(table(
            ["symbol", "orders", "fills", "bought", "sold", "turnover", "fees", "realised", "position", "average cost",
             "mark", "unrealised"], symbols))]
    body.append("<h2>Orders</h2>")
    if orders or "refusals" in pictures:
        body.append(_beside(card(table(["reached", "orders"], orders)) if orders else card("<p>none</p>"),
                            pictures.get("refusals"), "Refusals by reason"))
        if "refusals" not in pictures:
            body.append('<p class="note">Refusals are told of today alone, while the telemetry of the executor is '
                        "there.</p>")
    else:
        body.append(card("<p>Nothing was ordered on this day.</p>"))
    if reasons:
        body.append(card(table(["ended for", "orders"], reasons)))
    if "latency" in pictures:
        body += ["<h2>Latency of orders</h2>", _beside(
            card(table(["station", "orders", "p50, us", "p99, us", "most, us"], latency)), pictures["latency"],
            "Latency of orders by station")]
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
            "<body><main>\n" + "\n".join(part for part in body if part) + "\n</main></body></html>\n")


def _so_far(tree: Mapping[str, Any]) -> str:
    """That the day goes on, if it does."""
    return f" \u00b7 so far, at {to_the_second(tree['as_of_ns'])}" if tree.get("as_of_ns") else ""


def _halted(halt: Mapping[str, Any] | None) -> str:
    if not halt:
        return ""
    when = f" since {to_the_second(halt['when_ns'])}" if halt["when_ns"] else ""
    return card(f'<b class="loss">Halted{when}</b>, by {escape(halt["who"])}: {escape(halt["why"])}')


def _beside(left: str, svg: str | None, words: str) -> str:
    return f'<div class="two">{left}{card(picture(svg, words)) if svg else ""}</div>'


def _tiles(profit: Mapping[str, Any], fills: Mapping[str, Any]) -> str:
    tiles = [("realised less fees", profit["net"]), ("realised", profit["realised"]), ("fees", profit["fees"]),
             ("unrealised now", profit["unrealised"]), ("since the day began", profit["since_opening"]),
             ("turnover", fills["turnover"])]
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b{_tone(name, value)}>{_money(value)}</b><span>{escape(name)}</span></div>'
        for name, value in tiles) + "</div>"


def _tone(name: str, value: str | None) -> str:
    if name in ("fees", "turnover") or value is None or not float(value):
        return ""
    return ' class="loss"' if float(value) < 0 else ' class="gain"'


def _money(value: str | None) -> str:
    return _UNKNOWN if value is None else f"{Decimal(value):,.2f}".replace("-", _MINUS)


def _price(value: str | None) -> str:
    return _UNKNOWN if value is None else f"{float(value):,.8g}".replace("-", _MINUS)


def _text(value: str | None) -> str:
    return _UNKNOWN if value is None else f"{Decimal(value):,}".replace("-", _MINUS)


def _micro(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.1f}"
