"""An explanation, as `common.explain.order` makes it, for people: lines of text. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from common import fixed
from common.explain.order import CLOCK_ASKED, OFF, PASSED, UNKNOWN, asked_by_clock
from common.instant import utc

_BAR = 32  # characters of the longest stage


def lines(tree: Mapping[str, Any]) -> Iterator[str]:
    """The whole of it, from the order to its fills."""
    order = tree["order"]
    yield (f"order {order['client_id']}: {order['side']} {order['qty']} {order['symbol']} at {order['price']}, "
           f"{order['order_type']} {order['time_in_force']}")
    yield (f"  {order['state']}, {order['filled']} filled, decided {utc(order['created_ns'])}"
           + (f", venue id {order['venue_id']}" if order["venue_id"] else "")
           + (f"; {order['reason']}" if order["reason"] else ""))
    if tree["not_recorded"]:
        yield f"  {UNKNOWN}: {', '.join(tree['not_recorded'])}"
    yield from _book(tree["market"], tree.get("book"))
    yield from _prediction(tree["prediction"], tree.get("model"))
    if tree.get("row") or not asked_by_clock(tree):
        yield from _row(tree.get("row"))
    yield from _size(tree)
    yield from _checks(tree["checks"])
    yield from _time(tree["waterfall"], asked_by_clock(tree))
    yield from _after(tree)
    yield from _replay(tree.get("replay"))


def _book(market: Mapping[str, Any] | None, levels: Mapping[str, Any] | None) -> Iterator[str]:
    yield "book at the decision"
    if market is None:
        yield f"  {UNKNOWN}"
        return
    spread, age = market["spread_bps"], market["age_ns"]
    yield (f"  {market['bid_qty']} at {market['bid']} | {market['ask']} for {market['ask_qty']}; mid {market['mid']}"
           + (f", spread {spread:.3f} bps" if spread is not None else "")
           + f"; tick {market['seq']}{f', {age / 1e3:,.1f} us old' if age is not None else ''}"
           + ("" if market["valid"] else ", NOT VALID"))
    if levels:
        for (bid, bid_qty), (ask, ask_qty) in zip(levels["bids"][1:], levels["asks"][1:]):
            yield f"  {bid_qty:>16} {bid:>14} | {ask:<14} {ask_qty:<16}"


def _prediction(prediction: Mapping[str, Any] | None, model: Mapping[str, Any] | None) -> Iterator[str]:
    yield "prediction"
    if prediction is None:
        yield f"  {UNKNOWN}"
        return
    if prediction["by"] == CLOCK_ASKED:
        yield (f"  none: the executor's clock asked, not a model, whether what is held is to be left; as of "
               f"{prediction['tick']} tick {prediction['seq']}, venue id {prediction['venue_id']}, "
               f"{prediction['bid']} | {prediction['ask']}")
        return
    yield (f"  up {prediction['p_up']!r}, down {prediction['p_down']!r}, lean {prediction['lean']:+.6f}; volatility "
           f"{prediction['vol_bps']:.6g} bps a tick")
    yield (f"  of {prediction['tick']} tick {prediction['seq']}, venue id {prediction['venue_id']}"
           + (f", venue time {utc(prediction['event_ns'])}" if prediction["event_ns"] else "")
           + f"; worker {prediction['worker']}")
    if model:
        yield (f"  model {model['name']} {prediction['model']}, SHA-256 {model['sha256']}"
               f"\n  schema {model['schema']}, {len(model['columns'])} columns, window {model['window']}, "
               f"{model['path']}")
    else:
        yield f"  model {prediction['model']}, whose file is not among those known here"


def _row(row: Mapping[str, Any] | None) -> Iterator[str]:
    yield "feature row"
    if not row:
        yield "  not in the rows ring any more; --replay CAPTURE makes it again"
        return
    yield f"  from {row['source']}"
    names = list(row["values"].items())
    width = max(len(name) for name, _ in names)
    half = -(-len(names) // 2)
    for left, right in zip(names[:half], [*names[half:], *([("", None)] * (2 * half - len(names)))]):
        cells = [f"{name:<{width}} {value:>14.7g}" for name, value in (left, right) if name]
        yield "  " + "   ".join(cells)


def _size(tree: Mapping[str, Any]) -> Iterator[str]:
    yield "size"
    for step in tree["size"]:
        value = step["value"]
        told = f"{value:.6f}" if isinstance(value, float) else UNKNOWN if value is None else str(value)
        yield f"  {step['step']:<11} {told:>16}   {step['how']}"
    if not tree["size"]:
        yield f"  {UNKNOWN}"
    verdict = tree["verdict"]
    words = {None: "", True: "; it is the order, to the last digit", False: "; it is NOT the order"}
    yield f"  decided again: {verdict['again']}{words[verdict['same']]}"


def _checks(checks: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "checks"
    if not checks:
        yield f"  {UNKNOWN}"
    off = [told["check"] for told in checks if told["verdict"] == OFF]
    for told in checks:
        if told["verdict"] == OFF:
            continue
        words = ""
        if told["key"]:
            value = "" if told["value"] is None else (
                f"{_short(told['value'])}, at {'least' if told['at_least'] else 'most'} ")
            words = f"{value}{told['key']} = {_short(told['limit'])}"
        elif told["verdict"] == PASSED:
            words = ", ".join(f"{name} {_read(name, value)}" for name, value in told["read"].items())
        yield f"  {told['verdict']:<13}{told['check']:<20}{words}{'  ' + told['reason'] if told['reason'] else ''}"
    if off:
        yield f"  off: {', '.join(off)}"


def _time(steps: list[Mapping[str, Any]], asked: bool) -> Iterator[str]:
    yield f"time since the {'clock asked' if asked else 'tick was received'}, us"
    longest = max((step["ns"] for step in steps), default=0) or 1
    for step in steps:
        bar = "#" * max(1 if step["ns"] > 0 else 0, round(_BAR * step["ns"] / longest))
        yield (f"  {step['stage']:<14}{step['at_ns'] / 1e3:>13,.1f}{step['ns'] / 1e3:>13,.1f}  {bar}"
               + ("  (wall clock)" if step["clock"] == "wall" else ""))


def _after(tree: Mapping[str, Any]) -> Iterator[str]:
    yield "history"
    for row in tree["history"]:
        yield f"  {utc(row['at_ns'])}  {row['state']:<14}{row['detail']}"
    for fill in tree["fills"]:
        yield f"  {utc(fill['at_ns'])}  {fill['qty']} at {fill['price']}, fee {fill['fee']}"
    totals = tree["totals"]
    if totals["price"] is not None:
        slip = totals["slippage_bps"]
        yield (f"  in all {totals['qty']} at {totals['price']}, {totals['value']} and fees of {totals['fees']}"
               + (f"; {slip:+.3f} bps against the mid at the decision" if slip is not None else ""))


def _replay(replay: Mapping[str, Any] | None) -> Iterator[str]:
    if not replay:
        return
    yield "replay"
    if not replay["found"]:
        yield f"  {replay['why']}"
        return
    yield f"  tick {replay['seq']} of {replay['frames']:,} frames of {', '.join(replay['captures'])}"
    for told in replay["compared"]:
        yield (f"  {told['name']:<8} {told['journal']:>24} {told['replay']:>24}  "
               + ("the same bits" if told["same"] else "DIFFERENT"))


def _read(name: str, value: Any) -> str:
    """What a check read, prices and quantities as decimals."""
    if name.endswith(("bid", "ask", "qty", "lot", "price")):
        return fixed.text(value)
    return _short(value) or "-"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
