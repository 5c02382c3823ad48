"""Why an order is what it is: everything between a tick and its last fill, as one tree of plain values. Pure.

What is told comes from the journal: the order with its context, what happened to it, its fills, and the configuration
it was decided under. Nothing is taken on trust that can be made again: the size is calculated anew step by step, each
check is asked again with what it was asked with then, and the verdict of all is compared with the order. What the
journal does not hold, because an older version wrote it, is in `not_recorded`, and nothing is put in its place.

A check that lets pass tells no value. It is asked once more with a limit that nothing meets: what it then refuses for
is the value that it looked at. So a check that is added needs no word here.

In the tree money, prices and quantities are decimal text, exactly; durations are ns, times of day Unix ns.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from common import fixed
from common.config import Config
from common.decide import Rules, propose, propose_exit, wish
from common.decision import Decision, again
from common.exits import Exit
from common.fixed import SCALE
from common.layout import ASK_PX, BID_PX, FLAG_VALID, KIND_NAMES, LEVELS
from common.orders import BUY, SELL, SIDE_NAMES
from common.ring import Top
from common.risk import ADMISSION, MOMENT, ORDER, Account, Check, Limits, Proposal, Rate, Refusal, Standing
from common.sizing import break_even, g, half_spread_bps, kelly, lean, move_bps, notional, quantity
from common.wire import CLOCK, STATIONS, Prediction

#: who is behind a prediction: a model, or the executor's clock, which asks whether what is held is to be left
MODEL_SPOKE, CLOCK_ASKED = "model", "clock"
PASSED, REFUSED, OFF, UNKNOWN = "passes", "refuses", "off", "not recorded"  #: verdicts of a check

_STAMPS = Prediction._fields[Prediction._fields.index("recv_ns"):]
_NOTHING_MEETS = (-(2**62), 2**62)  # a limit from above, and one from below
_SIDES = {name: side for side, name in SIDE_NAMES.items()}


class NotRecorded(Exception):
    """What was asked for is not in the journal."""


def explain(order: Mapping[str, Any], context: Mapping[str, Any], history: Sequence[Mapping[str, Any]],
            fills: Sequence[Mapping[str, Any]], config: Config | None) -> dict[str, Any]:
    """`order`, `history` and `fills` (oldest first) as `journal.Reader` gives them; `context` as
    `explain_context.decode` does; `config` as the context names it, None where it is not kept. About 0.5 ms."""
    found = _Behind(order, context, config)
    return {
        "order": _order(order),
        "market": _market(found.market, found.decided_ns),
        "prediction": _prediction(found.prediction),
        "size": list(found.size()),
        "checks": list(found.checks()),
        "verdict": found.verdict(),
        "waterfall": _waterfall(found.prediction, found.decided_ns, order, history),
        "history": [dict(row) for row in history],
        "fills": [_fill(row) for row in fills],
        "totals": _totals(order, fills, found.market),
        "config": context.get("config", ""),
        "not_recorded": found.missing,
    }


def _order(row: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: row[key] for key in ("client_id", "symbol", "side", "order_type", "time_in_force", "state", "venue_id",
                                      "reason", "epoch", "seq", "created_ns")}
    return {**told, **{key: fixed.text(row[key]) for key in ("qty", "price", "filled")}}


def _market(top: Top | None, decided_ns: int) -> dict[str, Any] | None:
    if top is None:
        return None
    return {"seq": top.seq, "valid": bool(top.flags & FLAG_VALID),
            **{name: fixed.text(getattr(top, name)) for name in ("bid", "bid_qty", "ask", "ask_qty")},
            "mid": fixed.text((top.bid + top.ask) // 2),
            "spread_bps": 2 * half_spread_bps(top.bid, top.ask) if 0 < top.bid <= top.ask else None,
            "age_ns": decided_ns - top.recv_ns if decided_ns else None}


def _prediction(prediction: Prediction | None) -> dict[str, Any] | None:
    """What was predicted, and `by` whom; None for what nobody said."""
    if prediction is None:
        return None
    said = {"by": MODEL_SPOKE, "p_up": prediction.p_up, "p_down": prediction.p_down,
            "lean": lean(prediction.p_up, prediction.p_down), "vol_bps": prediction.vol,
            "model": f"{prediction.model:016x}", "worker": prediction.worker}
    if prediction.worker == CLOCK:
        said = {**dict.fromkeys(said), "by": CLOCK_ASKED}
    return {**said, "seq": prediction.seq, "tick": KIND_NAMES.get(prediction.kind, str(prediction.kind)),
            "venue_id": prediction.venue_id, "event_ns": prediction.event_ns,
            "bid": fixed.text(prediction.bid), "ask": fixed.text(prediction.ask)}


def _fill(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"fill_id": row["fill_id"], "at_ns": row["at_ns"],
            **{key: fixed.text(row[key]) for key in ("qty", "price", "fee")}}


def _totals(order: Mapping[str, Any], fills: Sequence[Mapping[str, Any]], market: Top | None) -> dict[str, Any]:
    """What the fills come to. `slippage_bps`: their mean price against the mid at the decision, above 0 where it
    cost."""
    qty = sum(row["qty"] for row in fills)
    value = sum(row["qty"] * row["price"] for row in fills)
    told = {"qty": fixed.text(qty), "value": fixed.text(value // SCALE),
            "fees": fixed.text(sum(row["fee"] for row in fills)), "price": None, "slippage_bps": None}
    if qty:
        told["price"] = fixed.text(value // qty)
        if market is not None and market.bid > 0 and market.ask > 0:
            told["slippage_bps"] = _SIDES[order["side"]] * (2 * value / qty / (market.bid + market.ask) - 1) * 1e4
    return told


def asked_by_clock(tree: Mapping[str, Any]) -> bool:
    """Whether the clock asked for an order, and no model spoke; `tree` is that of `explain`."""
    return tree["prediction"] is not None and tree["prediction"]["by"] == CLOCK_ASKED


def levels(tick: Sequence[int]) -> dict[str, list[tuple[int, int]]]:
    """The book of a tick of the books ring: `bids` and `asks`, best first, (price, quantity) in counts of 1e-8."""
    return {side: [(int(tick[column + i]), int(tick[column + LEVELS + i])) for i in range(LEVELS)
                   if tick[column + LEVELS + i]] for side, column in (("bids", BID_PX), ("asks", ASK_PX))}


class _Behind:
    """What an order was decided on, as far as it is recorded, to ask the same again."""

    def __init__(self, order: Mapping[str, Any], context: Mapping[str, Any], config: Config | None) -> None:
        self.order, self.config = order, config
        self.decided_ns: int = context.get("decided_ns", 0)
        self.wish_ns: int = context.get("wish_ns", self.decided_ns)
        self.answer_ns: int = context.get("answer_ns", self.decided_ns)
        self.prediction = Prediction(**context["prediction"]) if context.get("prediction") else None
        self.market = Top(**context["market"]) if context.get("market") else None
        self.before: Mapping[str, Any] = context.get("before") or {}
        self.rules = Rules.of(config, order["symbol"]) if config else None
        self.missing = [name for name, known in (("prediction", self.prediction), ("market", self.market),
                                                 ("config", config), ("before", self.before)) if not known]
        self.wanted: Exit | int | Refusal | None = None  # None: not known
        if not self.missing:
            self.standing, self.account = stood(self.before, config.risk.max_orders_per_s)
            self.wanted = wish(self.prediction, self.standing, self.account, self.rules, self.wish_ns)

    # ---- the size

    def size(self) -> Iterator[dict[str, Any]]:
        """From the probability to the quantity, a step at a time: what it is, how it comes about, what comes of it."""
        prediction, rules, market = self.prediction, self.rules, self.market
        if prediction is None or rules is None:
            return
        curve, strength = rules.curve, abs(lean(prediction.p_up, prediction.p_down))
        if prediction.worker != CLOCK:
            yield _step("lean", f"({prediction.p_up:.6f} - {prediction.p_down:.6f}) / 2",
                        lean(prediction.p_up, prediction.p_down))
        if type(self.wanted) is Exit:
            yield _step("exit", f"{self.wanted.reason}: {self.wanted.value:g} against {self.wanted.limit:g}", "leave")
        else:
            yield from self._entry(strength, curve)
        if market is None:
            return
        try:
            proposal = self._proposal()
        except NotRecorded:
            return
        step = quantity(abs(self.wanted), proposal.price, rules.lot) if type(self.wanted) is int else proposal.qty
        if type(self.wanted) is int:
            yield _step("quantity", f"{fixed.text(abs(self.wanted))} / {fixed.text(proposal.price)}, in lots of "
                        f"{fixed.text(rules.lot)}", fixed.text(step))
        if proposal.qty != step or type(self.wanted) is Exit:
            yield _step("cut", "to what may be closed, or capital leaves room for", fixed.text(proposal.qty))

    def _entry(self, strength: float, curve: Any) -> Iterator[dict[str, Any]]:
        prediction = self.prediction
        spread = half_spread_bps(prediction.bid, prediction.ask)
        yield _step("threshold", f"{strength:.6f} >= {curve.threshold:g}", strength >= curve.threshold)
        if curve.costed:
            yield _step("break-even", f"(half spread {spread:.4g} + fee and slippage {curve.toll_bps:.4g}) / move "
                        f"{move_bps(prediction.vol, curve):.4g} bps", break_even(spread, prediction.vol, curve))
        if curve.fraction:
            yield _step("share", f"{curve.fraction:g} of Kelly's, capital {fixed.text(curve.capital)}",
                        kelly(strength, spread, prediction.vol, curve))
        else:
            yield _step("share", f"(2 * {strength:.6f}) ** {curve.power:g}", g(2 * strength, curve.power))
        yield _step("volatility", f"min(1, {curve.vol_target:g} / {prediction.vol:.6g})",
                    min(1.0, curve.vol_target / prediction.vol) if prediction.vol > 0 else 1.0)
        if curve.inventory:
            yield self._factor("inventory", f"what is held against its limit, power {curve.inventory:g}")
        if curve.drawdown:
            yield self._factor("drawdown", f"{fixed.text(self.before.get('drawdown', 0))} of "
                               f"{fixed.text(curve.drawdown)}")
        if type(self.wanted) is int:
            size = self.wanted
        elif curve.plain:
            size = notional(lean(prediction.p_up, prediction.p_down), prediction.vol, curve)
        else:
            yield _step("size", UNKNOWN, None)
            return
        yield _step("size", f"q_max {fixed.text(curve.q_max)} times all of these", fixed.text(size))

    def _factor(self, name: str, how: str) -> dict[str, Any]:
        """What a factor does to the size: the size with it, over that with it switched off."""
        if type(self.wanted) is not int or not self.wanted:
            return _step(name, how, None)
        rules = dataclasses.replace(self.rules, curve=dataclasses.replace(self.rules.curve, **{name: 0}))
        without = wish(self.prediction, self.standing, self.account, rules, self.wish_ns)
        return _step(name, how, self.wanted / without if type(without) is int else None)

    def _proposal(self) -> Proposal:
        """The order as the checks saw it. NotRecorded if the journal has not what it was made of."""
        if self.missing or self.wanted is None or type(self.wanted) is Refusal:
            raise NotRecorded
        if type(self.wanted) is Exit:
            return propose_exit(self.market, self.standing, self.account, self.rules)
        return propose(self.wanted, self.market, self.standing, self.account, self.rules.lot, self.rules.curve.capital,
                       self.rules.spot)

    # ---- the checks

    def checks(self) -> Iterator[dict[str, Any]]:
        """Every check that there is, in the order in which they are asked."""
        if self.rules is None or self.prediction is None:
            return
        limits, market = self.rules.limits, self.market
        known = not self.missing
        prediction = _Seen("prediction", self.prediction)
        standing, account = (_Seen(name, getattr(self, name) if known else None) for name in ("standing", "account"))
        top = _Seen("top", market) if market is not None else None
        try:
            proposal = _Seen("order", self._proposal())
        except NotRecorded:  # what the order itself tells
            told = {"side": _SIDES[self.order["side"]], "qty": self.order["qty"], "price": self.order["price"],
                    "lot": self.rules.lot, "reduce_only": False}
            proposal = _Seen("order", {**told, **({"bid": market.bid, "ask": market.ask} if market else {})})
        for group, first, now in ((ADMISSION, prediction, self.wish_ns), (MOMENT, top, self.answer_ns),
                                  (ORDER, proposal, self.answer_ns)):
            for check in group:
                yield self._ask(check, (first, standing, account), limits, now)

    def _ask(self, check: Check, looked_at: Sequence[Any], limits: Limits, now: int) -> dict[str, Any]:
        """A check asked again: its verdict, the value and the limit in the units of its key, whether the value must be
        at least the limit or at most, and all that it read."""
        told = {"check": check.name, "key": _key(check.limit), "verdict": PASSED, "reason": "", "value": None,
                "limit": self._limit(check.limit), "at_least": False, "read": {}}
        if check.switch and not getattr(limits, check.switch):
            return {**told, "verdict": OFF}
        seen = [part for part in (*looked_at, _Seen("limits", limits)) if part is not None]
        for part in seen:
            part.read.clear()
        try:
            refusal = check.test(*looked_at, seen[-1], now)
        except NotRecorded:
            return {**told, "verdict": UNKNOWN}
        read = {f"{part.name}.{name}": value for part in seen for name, value in part.read.items()}
        told["read"] = {name: value for name, value in read.items() if isinstance(value, (int, float, str))}
        if refusal is not None:
            told.update(verdict=REFUSED, reason=refusal.reason, at_least=abs(refusal.value) < refusal.limit)
        elif f"limits.{_field(check.limit)}" in read:
            refusal, told["at_least"] = self._probe(lambda limits: check.test(*looked_at, limits, now), limits,
                                                    _field(check.limit))
        if refusal is not None and check.limit:
            told["value"] = _in_units(check.limit, refusal.value)
        return told

    @staticmethod
    def _probe(ask: Callable[[Limits], Refusal | None], limits: Limits, field: str) -> tuple[Refusal | None, bool]:
        """What a check refuses for, once its limit cannot be met, and whether the limit is a least value; None if it
        passes whatever the limit."""
        for limit in _NOTHING_MEETS:
            refusal = ask(dataclasses.replace(limits, **{field: limit}))
            if refusal is not None:
                return refusal, limit > 0
        return None, False

    def _limit(self, key: str) -> Any:
        section, _, name = key.rpartition(".")
        found = getattr(self.config.instrument(self.order["symbol"]) if section else self.config.risk, name, None)
        return list(found) if isinstance(found, tuple) else found

    # ---- all of it

    def verdict(self) -> dict[str, Any]:
        """The whole decision made again (`decision.again`), and whether it is the order."""
        if self.missing:
            return {"again": UNKNOWN, "same": None}
        parts = {**self.prediction._asdict(), "wish_ns": self.wish_ns, "answer_ns": self.answer_ns, **self.before,
                 **{f"top_{name}": value for name, value in self.market._asdict().items()}}
        told = Decision(*(parts.get(name, 0) for name in Decision._fields))
        found = again(told._replace(barred=0), self.rules, self.config.risk.max_orders_per_s)
        if found.reason:
            return {"again": "a refusal", "same": False}
        same = (found.side, found.qty, found.price) == (_SIDES[self.order["side"]], self.order["qty"],
                                                        self.order["price"])
        return {"again": f"{SIDE_NAMES[BUY if found.side == BUY else SELL]} {fixed.text(found.qty)} at "
                         f"{fixed.text(found.price)}", "same": same}


def stood(before: Mapping[str, Any], orders_per_s: float) -> tuple[Standing, Account]:
    """Where symbol and account stood before a decision, by name (`explain_context`). Who was barred has no order to ask
    about."""
    standing, account = Standing(before["followed"], before["newest"]), Account(
        Rate(orders_per_s, before["rate_full_ns"]))
    for target in (standing, account):
        for name in set(type(target).__slots__) & set(before) - {"barred"}:
            setattr(target, name, before[name])
    return standing, account


class _Seen:
    """Something that a check looks at; keeps what was read. Raises NotRecorded for what it does not have."""

    def __init__(self, name: str, what: Any) -> None:
        self.name, self.what, self.read = name, what, {}

    def __getattr__(self, name: str) -> Any:
        what = self.what
        if what is None or isinstance(what, dict) and name not in what:
            raise NotRecorded(name)
        self.read[name] = value = what[name] if isinstance(what, dict) else getattr(what, name)
        return value


def _step(name: str, how: str, value: Any) -> dict[str, Any]:
    return {"step": name, "how": how, "value": value}


def _key(limit: str) -> str:
    """The key of the configuration, whole."""
    return limit if not limit or "." in limit else f"risk.{limit}"


def _field(limit: str) -> str:
    """The field of `Limits` that the key becomes."""
    name = limit.rpartition(".")[2]
    for unit in ("_ms", "_days"):
        if name.endswith(unit):
            return f"{name.removesuffix(unit)}_ns"
    return name


def _in_units(key: str, value: float) -> float | str | None:
    """A value of a check in the unit of its limit's key."""
    if key.endswith("_ms"):
        return value / 1e6
    if key.endswith("_days"):
        return value / 86_400e9
    if key in ("allow", "block"):
        return None
    return value if key.endswith(("_bps", "_per_s", "_orders", "_repeats")) else fixed.text(int(value))


# ---- where the time went


def _waterfall(prediction: Prediction | None, decided_ns: int, order: Mapping[str, Any],
               history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each stage: when it began, in ns after the tick was received, or the clock asked, and how long it took. Up to the
    decision by the monotonic stamps that came along; from then on by the wall clock, when the executor learnt of it."""
    steps: list[dict[str, Any]] = []
    at = 0
    if prediction is not None:
        stamps = [*(getattr(prediction, name) for name in _STAMPS), *([decided_ns] if decided_ns else [])]
        passed = list(zip(STATIONS, stamps, stamps[1:]))
        for name, begin, end in passed[-1:] if prediction.worker == CLOCK and decided_ns else passed:
            steps.append({"stage": name, "at_ns": begin - stamps[0], "ns": end - begin, "clock": "monotonic"})
        at = stamps[-1] - stamps[0]
    last = order["created_ns"]
    for row in history:
        steps.append({"stage": "journal" if row["state"] == "sent" else row["state"], "at_ns": at,
                      "ns": row["at_ns"] - last, "clock": "wall"})
        at, last = at + row["at_ns"] - last, row["at_ns"]
    return steps
