"""The pipeline as text, for a terminal of any size: a snapshot becomes lines. Pure; the figures are the snapshot's.

A line is a list of spans, (text, mood); moods only colour what the words say already. Wide enough, it is two columns
around the table of symbols; narrower, one. What has no room is left out from below, within each panel.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from common.alerts import CRITICAL, percent
from common.orders import State
from common.watch.snapshot import EXECUTORS

Line = list[tuple[str, str]]
GOOD, WARN, BAD, DIM, HEAD = "good", "warn", "bad", "dim", "head"

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " .:-=+*#@"
RATES = ("ticks", "predictions", "decisions", "orders", "fills", "skipped")
NEAR = 0.8  #: share of a limit from which it is marked
_TWO_COLUMNS = 78
_WITH_TIME = 50  # a panel so wide tells when
_TRAIL = 300
_STATES = {"ready": GOOD, "silent": BAD, "gone": BAD, "ACTIVE": GOOD, "HALTED": BAD, "ABSENT": BAD, "SILENT": BAD}
_MOST_ALERTS = 4
_LAST_WORD = "the executor's last word"


class Trails:
    """The rates of the last snapshots, for sparklines."""

    def __init__(self) -> None:
        self.rates: dict[str, deque[float]] = {name: deque(maxlen=_TRAIL) for name in RATES}

    def add(self, snapshot: Mapping[str, Any]) -> None:
        for name, trail in self.rates.items():
            if name in snapshot["rates"]:
                trail.append(snapshot["rates"][name])


def picture(snapshot: Mapping[str, Any], trails: Trails, width: int, height: int, selected: str = "",
            paused: bool = False, blocks: str = BLOCKS) -> list[Line]:
    """At most `height` lines of `width` characters. `selected`: the symbol whose orders are shown, "" for all."""
    lines = _header(snapshot, paused, width) + _troubles(snapshot, max(1, height // 8))
    left = height - len(lines)
    stages, latency = _stages(snapshot), lambda wide: _latency(snapshot, wide, blocks)
    limits = lambda wide: _limits(snapshot, wide, blocks)  # noqa: E731
    if width >= _TWO_COLUMNS:
        half = (width - 2) // 2
        rest = width - 2 - half
        rates = _rates(snapshot, trails, rest, blocks)
        symbols = _symbols(snapshot, selected, width, max(3, min(left // 4, left - 16)))
        upper = min(max(len(stages), len(rates) + 3), max(4, (left - len(symbols)) // 2))
        lower = max(0, left - len(symbols) - upper)
        lines += _beside(stages[:upper], _stack(upper, rates, limits(rest)), half, upper)
        lines += symbols
        lines += _beside(_stack(lower, latency(half), _orders(snapshot, selected, half)),
                         _refusals(snapshot, rest, lower), half, lower)
    else:
        parts = [_symbols(snapshot, selected, width, 8), _rates(snapshot, trails, width, blocks), stages,
                 limits(width), _refusals(snapshot, width, 12), latency(width), _orders(snapshot, selected, width)]
        lines += [line for part in parts for line in part]
    return [_cut(line, width) for line in lines[:height]]


def plain(lines: Sequence[Line]) -> str:
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def brief(snapshot: Mapping[str, Any]) -> str:
    """The pipeline in one line, as often as one likes."""
    numbers, rates, state = snapshot["numbers"], snapshot["rates"], snapshot["state"]
    decided = _measured(snapshot, "tick_to_decision")
    ready = sum(stage["state"] == "ready" for stage in snapshot["stages"])
    return (f"{_clock(snapshot['at_ns'])}  {state['state']}  ready {ready}/{len(snapshot['stages'])}"
            f"  ticks {rates.get('ticks', 0):,.0f}/s  predictions {rates.get('predictions', 0):,.0f}/s"
            f"  decisions {numbers['decisions']:,}  orders {numbers['orders']:,}  fills {numbers['fills']:,}"
            f"  position {numbers['position']:,.0f}  pnl {numbers['pnl']:+,.2f}"
            f"{'' if snapshot['executor']['speaks'] else f' ({_last_word(snapshot)})'}"
            f"  tick-to-decision p50 {decided['p50']:,.0f} us p99 {decided['p99']:,.0f} us"
            f"  skips {numbers['skipped']:,}  errors {numbers['errors']:,}"
            + (f"  {state['why']}" if state["why"] else "")
            + "".join(f"  {text}" for text, _ in _wrong(snapshot))
            + "".join(f"  {alert['severity'].upper()} {_which(alert)}" for alert in snapshot["alerts"]["firing"]))


def sparkline(values: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """The last `width` values, from 0 to the largest of them."""
    shown = list(values)[-width:]
    most = max(shown, default=0.0)
    steps = len(blocks) - 1
    text = "".join(blocks[max(1, round(value / most * steps))] if value > 0 else blocks[0] for value in shown) \
        if most > 0 else blocks[0] * len(shown)
    return text.rjust(width)


def bar(parts: Sequence[float], most: float, width: int, fills: str) -> str:
    """A bar as long as the last of `parts` is of `most`, each part drawn with its own of `fills`."""
    text, done = "", 0
    for part, fill in zip(parts, fills):
        end = min(width, round(part / most * width)) if most > 0 else 0
        text += fill * (end - done)
        done = max(done, end)
    return text.ljust(width)


# ---- the parts


def _header(snapshot: Mapping[str, Any], paused: bool, width: int) -> list[Line]:
    state, numbers = snapshot["state"], snapshot["numbers"]
    mood = _STATES.get(state["state"], WARN)
    switch = state["switch"]
    line: Line = [("PAUSED  " if paused else "", WARN), (state["state"], mood)]
    if state["why"]:
        line.append((f"  {state['why']}", mood))
    if switch["halt"] and not state["halted"]:
        line.append((f"  the kill switch is set by {switch['halt']['who']}: {switch['halt']['why']}", BAD))
    elif switch["reduction"] and not state["reducing"] and not state["halted"]:
        line.append((f"  reduce is asked for by {switch['reduction']['who']}", WARN))
    heard = "" if snapshot["executor"]["speaks"] else f" ({_last_word(snapshot)})"
    title = [part for part in (snapshot["instance"], snapshot["venue"], snapshot["gateway"] and
                               f"orders {snapshot['gateway']}") if part]
    figures = [f"pnl {numbers['pnl']:+,.2f}{heard}", f"position {numbers['position']:,.0f}",
               f"errors {numbers['errors']:,}", f"restarts {numbers['restarts']:,}"]
    clock = f"  {_clock(snapshot['at_ns'])}"
    head = f"alpha {' · '.join(title)}"
    if len(head) + 2 + len(figures[0]) + len(clock) > width:
        head = f"alpha {title[0]}"
    room, money = width - len(head) - len(clock), ""
    for figure in figures:  # whole or not at all
        if len(figure) + 2 <= room:
            money, room = f"{money}  {figure}", room - len(figure) - 2
    return [[(head, HEAD), (money, BAD if numbers["errors"] else ""), (clock, DIM)], line]


def _troubles(snapshot: Mapping[str, Any], most: int) -> list[Line]:
    """What is wrong and stands in no table, and what is firing: a line each, at most so many of what is firing."""
    lines: list[Line] = [[(text, mood)] for text, mood in _wrong(snapshot)]
    alerts = snapshot["alerts"]
    firing = alerts["firing"]
    most = min(most, _MOST_ALERTS)
    for alert in firing[:most]:
        lines.append([(f"{alert['severity'].upper():<8} since {_clock(alert['since_ns'])} ",
                       BAD if alert["severity"] == CRITICAL else WARN), (f"{_which(alert)}: {alert['what']}", "")])
    if len(firing) > most:
        lines.append([(f"{len(firing) - most} more are firing: alpha alerts", WARN)])
    if alerts["former"]:
        lines.append([(f"{len(alerts['former'])} told before and not known now: alpha alerts", WARN)])
    return lines


def _which(alert: Mapping[str, Any]) -> str:
    return f"{alert['name']} {alert['subject']}".rstrip()


def _wrong(snapshot: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Sentences and their moods."""
    found, missing = [], snapshot["missing"]
    if missing and any(stage["state"] not in ("gone", "silent") for stage in snapshot["stages"]):
        workers = [name for name in missing if name.startswith("inference-")]
        if workers and not any(stage["name"].startswith("inference-") and stage["state"] != "gone"
                               for stage in snapshot["stages"]):
            found.append(("no worker runs: nothing is predicted", BAD))
            missing = [name for name in missing if name not in workers]
        if missing:
            found.append((f"not running: {', '.join(missing)}", BAD))
    if snapshot["alerts"]["wanted"] and not snapshot["alerts"]["watched"]:
        found.append(("no monitor runs: nobody looks for alerts", WARN))
    waits = any(stage["name"] == "executor" and stage["state"] == "waiting" for stage in snapshot["stages"])
    if snapshot["journal"]["error"] and snapshot["executor"]["heard_ns"] and not waits:  # who starts is to make one
        found.append((f"the journal cannot be read: {snapshot['journal']['error']}", BAD))
    return found


def _last_word(snapshot: Mapping[str, Any]) -> str:
    """Of figures that the executor tells, where it tells nothing any more."""
    heard_ns = snapshot["executor"]["heard_ns"]
    return f"{_LAST_WORD}, {_clock(heard_ns)}" if heard_ns else "no executor came"


def _heading(text: str, more: str = "") -> Line:
    return [(text, HEAD), (f"  {more}" if more else "", DIM)]


def _told_by_executor(snapshot: Mapping[str, Any], more: str) -> str:
    """`more` of a heading over figures of the executor; its age in its place, where it does not speak."""
    return more if snapshot["executor"]["speaks"] else _last_word(snapshot)


def _stages(snapshot: Mapping[str, Any]) -> list[Line]:
    lines = [_heading(f"{'STAGES':<12}{'':<10}{'cores':>5}{'MB':>5}{'starts':>7}")]
    for stage in snapshot["stages"]:
        cores = "-" if stage["cpu"] is None else f"{stage['cpu']:.2f}"
        memory = "-" if stage["memory_mb"] is None else f"{stage['memory_mb']:.0f}"
        line: Line = [(f"{stage['name']:<12}", ""), (f"{stage['state']:<10}", _STATES.get(stage["state"], WARN)),
                      (f"{cores:>5}{memory:>5}{stage['starts']:>7}", "")]
        if stage["errors"]:
            line.append((f" {stage['errors']} errors", BAD))
        note = f"for {stage['waiting_for']}" if stage["waiting_for"] else stage["note"]
        if note:
            line.append((f" {note}", WARN))
        lines.append(line)
    return lines


def _rates(snapshot: Mapping[str, Any], trails: Trails, width: int, blocks: str) -> list[Line]:
    lines = [_heading(f"{'RATES':<11}{'per s':>7}{'in all':>12}")]
    for name in RATES:
        rate = snapshot["rates"].get(name)
        lines.append([(f"{name:<11}{'-' if rate is None else f'{rate:,.0f}' if rate >= 10 else f'{rate:.1f}':>7}"
                       f"{snapshot['numbers'][name]:>12,} ", ""),
                      (sparkline(trails.rates[name], max(0, width - 31), blocks), GOOD)])
    return lines


def _limits(snapshot: Mapping[str, Any], width: int, blocks: str) -> list[Line]:
    lines = [_heading("LIMITS", "the nearest first" if snapshot["executor"]["speaks"] else
                      f"~ {_last_word(snapshot)}")]
    room = max(4, min(20, width - 34))
    for limit in snapshot["limits"]:
        share = limit["share"]
        mood = BAD if share >= 1 else WARN if share >= NEAR else ""
        name = limit["name"].removeprefix("max_") + (f" {limit['symbol']}" if limit["symbol"] else "")
        if limit["name"] in EXECUTORS and not snapshot["executor"]["speaks"]:
            name = f"~{name}"
        lines.append([(f"{'!' if share >= NEAR else ' '}{name[:25]:<26}", mood),
                      (bar([share], 1.0, room, blocks[-1]), mood), (f"{percent(share):>4}%", mood)])
    return lines


#: of the table of symbols, in their order, and how wide each is; and in that in which they are given room
_COLUMNS = {"bid": 12, "ask": 12, "bps": 8, "age ms": 8, "position": 11, "pnl": 11, "avg cost": 14}
_NEEDED = ("position", "pnl", "bid", "ask", "age ms", "bps", "avg cost")


def _symbols(snapshot: Mapping[str, Any], selected: str, width: int, most: int) -> list[Line]:
    symbols = snapshot["symbols"]
    wide = width >= 100
    title = "SYMBOL" if len(symbols) < most else f"SYMBOL ({len(symbols)})"
    names, room = [], width - 14
    for name in _NEEDED:  # a column that has not room enough for whole numbers is not there
        if _COLUMNS[name] <= room:
            names, room = [*names, name], room - _COLUMNS[name]
    names = [name for name in _COLUMNS if name in names and (wide or name != "avg cost")]
    lines = [_heading(f"  {title:<12}" + "".join(f"{name:>{_COLUMNS[name]}}" for name in names))]
    at = next((place for place, symbol in enumerate(symbols) if symbol["name"] == selected), 0)
    rows = max(1, most - 1)
    first = max(0, min(at - rows // 2, len(symbols) - rows))
    for symbol in symbols[first:first + rows]:
        known = symbol["unrealised"] is not None
        pnl = symbol["unrealised"] + symbol["realised"] - symbol["fees"] if known else None
        spread = "-" if symbol["spread_bps"] is None else f"{symbol['spread_bps']:.2f}"
        state = "" if symbol["valid"] and not symbol["stale"] else " stale" if symbol["valid"] else " invalid"
        figures = {"bid": (_price(symbol["bid"]), ""), "ask": (_price(symbol["ask"]), ""), "bps": (spread, ""),
                   "age ms": (_age(symbol["age_ms"]), WARN if symbol["stale"] else ""),
                   "position": (f"{symbol['qty']:,.6g}", ""),
                   "pnl": ("-" if pnl is None else f"{pnl:+,.2f}", BAD if (pnl or 0) < 0 else ""),
                   "avg cost": (_price(symbol["average_cost"], 8), "")}
        line: Line = [("> " if symbol["name"] == selected else "  ", HEAD),
                      (f"{symbol['name'][:11]:<12}", HEAD if symbol["name"] == selected else "")]
        line += [(f"{figures[name][0]:>{_COLUMNS[name]}}", figures[name][1]) for name in names]
        lines.append([*line, (state, BAD)])
    return lines


def _latency(snapshot: Mapping[str, Any], width: int, blocks: str) -> list[Line]:
    # What matters most first: from a tick to what came of it; then the way there.
    names = sorted(snapshot["latency_us"], key=lambda name: not name.startswith("tick_to"))
    measured = {name: _measured(snapshot, name) for name in names}
    measured = {name: one for name, one in measured.items() if one["count"]}
    most = max((one["p99"] for one in measured.values()), default=0.0)
    room = max(0, width - 34)
    fills = (blocks[-1], "░" if blocks is BLOCKS else "-")
    mark = "" if snapshot["executor"]["speaks"] else " ~"
    lines = [_heading(f"{'LATENCY us' + mark:<17}{'p50':>8}{'p99':>8} ")]
    for name, one in measured.items():
        lines.append([(f"{name.replace('_', ' '):<17}{one['p50']:>8,.0f}{one['p99']:>8,.0f} ", ""),
                      (bar([one["p50"], one["p99"]], most, room, fills), GOOD)])
    return lines


def _orders(snapshot: Mapping[str, Any], selected: str, width: int) -> list[Line]:
    numbers = snapshot["numbers"]
    lines = [_heading(f"ORDERS{f' {selected}' if selected else ''}",
                      _told_by_executor(snapshot, f"{numbers['working']} working, {numbers['unresolved']} unknown"))]
    for order in reversed(snapshot["orders"]):
        if not selected or order["symbol"] == selected:
            mood = BAD if order["state"] == State.REJECTED else WARN if order["state"] == State.UNKNOWN else ""
            lines.append([(f"{_clock(order['at_ns'])} " if width >= _WITH_TIME else "", DIM),
                          (f"{order['side']:<4} {order['symbol']} {order['filled']:.6g}/{order['qty']:.6g}"
                           f" @ {_price(order['price'])} ", ""), (order["state"], mood)])
    return lines


def _refusals(snapshot: Mapping[str, Any], width: int, height: int) -> list[Line]:
    counts = sorted(snapshot["refusals"].items(), key=lambda item: -item[1])
    latest = list(reversed(snapshot["recent_refusals"]))
    lines = [_heading("REFUSED", _told_by_executor(snapshot, "by reason; latest value/limit"))]
    lines += [[(f"{reason:<24}{count:>11,}", "")] for reason, count in counts[:max(2, min(8, height // 3))]]
    for one in latest:
        found = "" if one["value"] is None else f" {_figure(one['value'])}/{_figure(one['limit'])} {one['unit']}"
        lines.append([(f"{_clock(one['at_ns'])} " if width >= _WITH_TIME else "", DIM), (f"{one['symbol']} ", ""),
                      (one["reason"], WARN), (found, "")])
    return lines


def _measured(snapshot: Mapping[str, Any], station: str) -> Mapping[str, float]:
    """Of the last seconds; of the whole life where nothing came in them."""
    told = snapshot["latency_us"].get(station)
    if told is None:
        return {"p50": 0.0, "p99": 0.0, "count": 0}
    return told["now"] if told["now"]["count"] else told["all"]


# ---- putting together


def _stack(height: int, *panels: list[Line]) -> list[Line]:
    """Panels one under the other: what has too little room gives way from the last on, but for its first lines."""
    lines: list[Line] = []
    for place, panel in enumerate(panels):
        later = sum(min(3, len(other)) for other in panels[place + 1:])
        lines += panel[:max(0, height - len(lines) - later)]
    return lines[:height]


def _beside(left: list[Line], right: list[Line], wide: int, height: int) -> list[Line]:
    lines = []
    for place in range(height):
        first = left[place] if place < len(left) else []
        lines.append([*_cut(first, wide, pad=True), ("  ", ""), *(right[place] if place < len(right) else [])])
    return lines


def _cut(line: Line, width: int, pad: bool = False) -> Line:
    """At most `width` characters of a line. A word with a digit in it is there whole or not at all: half a number is
    another number."""
    cut: Line = []
    room, whole = width, "".join(text for text, _ in line)
    if len(whole) > width and whole[width - 1:width + 1].strip() == whole[width - 1:width + 1]:
        start = whole.rfind(" ", 0, width) + 1
        if any(sign.isdigit() for sign in whole[start:].partition(" ")[0]):
            room = start
    left = room
    for text, mood in line:
        if left <= 0:
            break
        if text:
            cut.append((text[:left], mood))
            left -= len(cut[-1][0])
    missing = width - sum(len(text) for text, _ in cut)
    return [*cut, (" " * missing, "")] if pad and missing > 0 else cut


def _clock(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 10**9, timezone.utc).strftime("%H:%M:%S")


def _price(value: float | None, digits: int = 10) -> str:
    return "-" if value is None else f"{value:,.{digits}g}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _age(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:,.0f}" if ms < 100_000 else f"{ms / 1000:,.0f} s"
