"""The checks between a wish and an order. Pure.

Each check is a small function over plain numbers, registered with the reasons it may refuse for, and is
evaluated in the order of this file; the first refusal wins. To add one, write it here: the executor counts its
reasons and the tests ask for a case, because it is listed.

Three lists, because most predictions come to nothing, and the sooner the cheaper: ADMISSION is asked of every
prediction, MOMENT of those that ask for a size, before an order is made of it, ORDER of the order. A reason reads
`CATEGORY_CONDITION`. References: SEC rule 15c3-5 and the FIA's guide to pre-trade risk controls (limits on size,
price, rate, position and loss, duplicates, kill switch).

Checks that name a limit which may be 0, or a list that may be empty, are not asked where it is: `active`.

Quantities, prices and money are counts of 1e-8, times monotonic ns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from common import fixed
from common.config import Instrument, Risk
from common.fixed import SCALE
from common.layout import FLAG_VALID
from common.orders import BUY
from common.wire import CLOCK, Prediction, make

if TYPE_CHECKING:
    from common.ring import Top


class Refusal(NamedTuple):
    """Why there is no order: the reason, the value that was found and the limit it met (0 where none applies)."""

    reason: str
    value: float = 0
    limit: float = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """`config.Risk` and the `config.Instrument` of a symbol in the units of this module; 0 where there is no limit."""

    max_order_notional: int
    max_position_notional: int
    max_gross_notional: int
    symbol_cooldown_ns: int
    max_age_ns: int
    max_book_age_ns: int
    collar_bps: float
    max_daily_loss: int
    max_net_notional: int = 0
    max_drawdown: int = 0
    max_open_orders: int = 0
    max_repeats: int = 0
    repeat_window_ns: int = 0
    duplicate_window_ns: int = 0
    max_clock_skew_ns: int = 0
    max_model_age_ns: int = 0
    max_qty: int = 0
    min_notional: int = 0
    tick: int = 0
    min_to_reduce: int = 0  #: as min_notional, of what is left by a reduce-only order: futures have none
    reject_pause_ns: int = 0
    unlisted: bool = False  #: not on a list of what may be traded
    blocked: bool = False  #: on the list of what may not

    @classmethod
    def of(cls, risk: Risk, symbol: str = "", instrument: Instrument | None = None, spot: bool = False) -> "Limits":
        """`instrument` is None for a symbol that the configuration does not describe."""
        def money(value: float) -> int:
            return round(value * SCALE)

        def ns(milliseconds: float) -> int:
            return round(milliseconds * 1e6)

        told = [fixed.parse(getattr(instrument, key), f"instruments.{symbol}.{key}")
                for key in ("max_qty", "min_notional", "tick")] if instrument else (0, 0, 0)
        return cls(
            money(risk.max_order_notional), money(risk.max_position_notional), money(risk.max_gross_notional),
            ns(risk.symbol_cooldown_ms), ns(risk.max_age_ms), ns(risk.max_book_age_ms), risk.collar_bps,
            money(risk.max_daily_loss), money(risk.max_net_notional), money(risk.max_drawdown), risk.max_open_orders,
            risk.max_repeats, ns(risk.repeat_window_ms), ns(risk.duplicate_window_ms), ns(risk.max_clock_skew_ms),
            round(risk.max_model_age_days * 86_400e9), *told, told[1] if spot else 0,
            ns(risk.reject_pause_ms),
            bool(risk.allow) and symbol not in risk.allow, symbol in risk.block)


class Rate:
    """At most `per_second` orders a second in the long run, and as many at once: a token bucket, kept as the
    time at which it will be full again (the generic cell rate algorithm), so that integers suffice."""

    __slots__ = ("_interval", "_burst", "full_ns")

    def __init__(self, per_second: float, full_ns: int = 0) -> None:
        self._interval = round(1e9 / per_second) if per_second else 0
        self._burst = max(1, round(per_second)) * self._interval
        self.full_ns = full_ns  #: when it will be full again: with `per_second`, all that there is to know of it

    def ready(self, now: int) -> bool:
        """Whether one more order may leave now."""
        interval, full = self._interval, self.full_ns
        return interval > 0 and (full - now if full > now else 0) + interval <= self._burst

    def take(self, now: int) -> None:
        self.full_ns = max(self.full_ns, now) + self._interval


_NEVER = -(2**62)
MOST_DOUBLINGS = 6  #: of reject_pause_ms
ACTIVE, REDUCING, FLATTENING = range(3)  #: what may leave: any order; those that shrink a position; and they do


class Account:
    """What holds for all symbols. The executor keeps it; the checks read it."""

    __slots__ = ("barred", "gross", "day_loss", "rate", "net_low", "net_high", "open_orders", "drawdown", "mode",
                 "offset_ns", "trained_ns")

    def __init__(self, rate: Rate, barred: str = "") -> None:
        self.barred = barred  #: the reason why nothing may trade, or "": one of the first check's reasons
        self.gross = 0  #: value of all positions, open orders counted
        self.day_loss = 0  #: realised and unrealised since the day began, fees included; below 0 a profit
        self.rate = rate
        self.net_low = self.net_high = 0  #: the sums of every symbol's `low` and `high`
        self.open_orders = 0  #: not at their end
        self.drawdown = 0  #: how far the profit is below its best of the day, 0 or more
        self.mode = ACTIVE  #: ACTIVE, REDUCING or FLATTENING
        self.offset_ns = 0  #: Unix ns less monotonic ns
        self.trained_ns = 0  #: where the training data of the model in use end, Unix ns; 0: not known


class Standing:
    """What holds for one symbol. The executor keeps it; the checks read it."""

    __slots__ = ("epoch", "seq", "unresolved", "position", "open_buy", "open_sell", "exposure", "order_ns",
                 "entered_ns", "cost", "low", "high", "last_side", "last_qty", "last_price",
                 "repeat_buy_ns", "repeat_sell_ns", "rejects", "rejected_ns")

    def __init__(self, epoch: int, seq: int = 0) -> None:
        self.epoch = epoch  #: of the stream of ticks that is followed
        self.seq = seq  #: newest prediction taken up in it
        self.unresolved = 0  #: orders whose outcome is unknown
        self.position = 0
        self.open_buy = 0  #: what working orders may still buy
        self.open_sell = 0
        self.exposure = 0  #: this symbol's share of `Account.gross`
        self.order_ns = _NEVER  #: when the last order was decided
        self.entered_ns = _NEVER  #: when what is held was begun: decision of the order; long ago if nobody knows
        self.cost = 0  #: average cost of what is held
        self.low = self.high = 0  #: signed value if all working sales, or all working purchases, are filled
        self.last_side = self.last_qty = self.last_price = 0  #: of the last order
        self.repeat_buy_ns = self.repeat_sell_ns = _NEVER  #: when the max_repeats-th last order of a side was decided
        self.rejects = 0  #: orders that were rejected, one after the other, up to the last one
        self.rejected_ns = _NEVER  #: when the last of them was


class Proposal(NamedTuple):
    """An order that is being considered, with all that the ORDER checks look at."""

    side: int
    qty: int
    lot: int
    price: int  #: limit price, above 0
    bid: int
    ask: int
    shrinks: bool  #: no more is held if this and every working order on its side are filled, nor the other way round
    after: int  #: value of what would be held then
    other_gross: int  #: value of all other symbols, open orders counted
    reduce_only: bool = False


class Check(NamedTuple):
    name: str
    reasons: tuple[str, ...]
    limit: str  #: the key in `config.Risk`, or as instruments.KEY in `config.Instrument`; "" where the check has none
    switch: str  #: the field of `Limits` which at 0 switches the check off; "": it is always on
    test: Callable[..., Refusal | None]


ADMISSION: list[Check] = []  #: test(prediction, standing, account, limits, now)
MOMENT: list[Check] = []  #: test(top, standing, account, limits, now)
ORDER: list[Check] = []  #: test(proposal, standing, account, limits, now)


def _check(checks: list[Check], *reasons: str, limit: str = "", switch: str = "") -> Callable:
    def register(test: Callable) -> Callable:
        checks.append(Check(test.__name__, reasons, limit, switch, test))
        return test
    return register


def active(checks: list[Check], limits: Limits) -> tuple[Callable, ...]:
    """The tests of those checks that these limits switch on, in their order."""
    return tuple(check.test for check in checks if not check.switch or getattr(limits, check.switch))


# ---- asked of every prediction

@_check(ADMISSION, "STATE_HALTED", "STATE_DISARMED", "STATE_RECONCILING", "STATE_UNMARKED", "RATE_VENUE")
def trading_state(prediction: Prediction, standing: Standing, account: Account, limits: Limits, now: int):
    if account.barred:
        return make(Refusal, (account.barred, 0, 0))


@_check(ADMISSION, "SEQUENCE_STALE", "SEQUENCE_EPOCH")
def newer_sequence(prediction: Prediction, standing: Standing, account: Account, limits: Limits, now: int):
    if prediction.epoch != standing.epoch:
        return Refusal("SEQUENCE_EPOCH", prediction.epoch, standing.epoch)
    if prediction.seq <= standing.seq:
        return Refusal("SEQUENCE_STALE", prediction.seq, standing.seq)


@_check(ADMISSION, "AGE_DATA", limit="max_age_ms")
def fresh_data(prediction: Prediction, standing: Standing, account: Account, limits: Limits, now: int):
    if now - prediction.recv_ns > limits.max_age_ns:
        return Refusal("AGE_DATA", now - prediction.recv_ns, limits.max_age_ns)


@_check(ADMISSION, "ORDER_UNRESOLVED")
def nothing_unresolved(prediction: Prediction, standing: Standing, account: Account, limits: Limits, now: int):
    if standing.unresolved:
        return Refusal("ORDER_UNRESOLVED", standing.unresolved)


@_check(ADMISSION, "SYMBOL_UNLISTED", limit="allow", switch="unlisted")
def allow_list(prediction: Prediction, standing: Standing, account: Account, limits: Limits, now: int):
    return Refusal("SYMBOL_UNLISTED", prediction.symbol)


@_check(ADMISSION, "SYMBOL_BLOCKED", limit="block", switch="blocked")
def block_list(prediction: Prediction, standing: Standing, account: Account, limits: Limits, now: int):
    return Refusal("SYMBOL_BLOCKED", prediction.symbol)


@_check(ADMISSION, "CLOCK_SKEW", limit="max_clock_skew_ms", switch="max_clock_skew_ns")
def clock_skew(prediction: Prediction, standing: Standing, account: Account, limits: Limits, now: int):
    if prediction.event_ns:
        skew = prediction.recv_ns + account.offset_ns - prediction.event_ns
        if abs(skew) > limits.max_clock_skew_ns:
            return Refusal("CLOCK_SKEW", skew, limits.max_clock_skew_ns)


@_check(ADMISSION, "MODEL_UNDATED", "MODEL_EXPIRED", limit="max_model_age_days", switch="max_model_age_ns")
def model_age(prediction: Prediction, standing: Standing, account: Account, limits: Limits, now: int):
    if prediction.worker == CLOCK:  # no model speaks
        return None
    if not account.trained_ns:
        return Refusal("MODEL_UNDATED", 0, limits.max_model_age_ns)
    age = now + account.offset_ns - account.trained_ns
    if age > limits.max_model_age_ns:
        return Refusal("MODEL_EXPIRED", age, limits.max_model_age_ns)


# ---- asked of the moment, once there is a size: `top` is the newest book, None where there is none

@_check(MOMENT, "BOOK_INVALID", "BOOK_EMPTY", "BOOK_CROSSED")
def usable_book(top: "Top | None", standing: Standing, account: Account, limits: Limits, now: int):
    if top is None or not top.flags & FLAG_VALID:
        return Refusal("BOOK_INVALID")
    bid, ask = top.bid, top.ask
    if bid <= 0 or ask <= 0:
        return Refusal("BOOK_EMPTY")
    if bid >= ask:
        return Refusal("BOOK_CROSSED", bid, ask)


@_check(MOMENT, "BOOK_STALE", limit="max_book_age_ms")
def fresh_book(top: "Top", standing: Standing, account: Account, limits: Limits, now: int):
    if now - top.recv_ns > limits.max_book_age_ns:
        return Refusal("BOOK_STALE", now - top.recv_ns, limits.max_book_age_ns)


@_check(MOMENT, "LOSS_DAILY", limit="max_daily_loss")
def daily_loss(top: "Top", standing: Standing, account: Account, limits: Limits, now: int):
    if account.day_loss > limits.max_daily_loss and account.mode == ACTIVE:  # what is held may always be left
        return Refusal("LOSS_DAILY", account.day_loss, limits.max_daily_loss)


@_check(MOMENT, "LOSS_DRAWDOWN", limit="max_drawdown", switch="max_drawdown")
def drawdown(top: "Top", standing: Standing, account: Account, limits: Limits, now: int):
    if account.drawdown > limits.max_drawdown and account.mode == ACTIVE:
        return Refusal("LOSS_DRAWDOWN", account.drawdown, limits.max_drawdown)


@_check(MOMENT, "ORDERS_OPEN", limit="max_open_orders", switch="max_open_orders")
def open_orders(top: "Top", standing: Standing, account: Account, limits: Limits, now: int):
    if account.open_orders >= limits.max_open_orders:
        return Refusal("ORDERS_OPEN", account.open_orders, limits.max_open_orders)


@_check(MOMENT, "RATE_SYMBOL", limit="symbol_cooldown_ms")
def symbol_cooldown(top: "Top", standing: Standing, account: Account, limits: Limits, now: int):
    since, limit = now - standing.order_ns, limits.symbol_cooldown_ns
    if since < limit:
        return make(Refusal, ("RATE_SYMBOL", since, limit))


@_check(MOMENT, "RATE_ORDERS", limit="max_orders_per_s")
def order_rate(top: "Top", standing: Standing, account: Account, limits: Limits, now: int):
    if not account.rate.ready(now):
        return make(Refusal, ("RATE_ORDERS", 0, 0))


# ---- asked of the order

@_check(ORDER, "REDUCE_ONLY")
def reduce_only(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    if p.reduce_only:
        most = closable(p.side, standing)
        if p.qty > most or not most:
            return Refusal("REDUCE_ONLY", p.qty, most)


@_check(ORDER, "QUANTITY_ZERO", "QUANTITY_LOT")
def quantity_in_lots(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    if p.qty <= 0:
        return Refusal("QUANTITY_ZERO", p.qty, p.lot)
    if p.qty % p.lot:
        return Refusal("QUANTITY_LOT", p.qty, p.lot)


@_check(ORDER, "QUANTITY_ORDER", limit="instruments.max_qty", switch="max_qty")
def order_quantity(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    if p.qty > limits.max_qty:
        return Refusal("QUANTITY_ORDER", p.qty, limits.max_qty)


@_check(ORDER, "PRICE_TICK", limit="instruments.tick", switch="tick")
def price_in_ticks(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    if p.price % limits.tick:
        return Refusal("PRICE_TICK", p.price, limits.tick)


@_check(ORDER, "NOTIONAL_MINIMUM", limit="instruments.min_notional", switch="min_notional")
def minimum_notional(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    notional, least = p.qty * p.price // SCALE, limits.min_to_reduce if p.reduce_only else limits.min_notional
    if p.qty and notional < least:
        return Refusal("NOTIONAL_MINIMUM", notional, least)


@_check(ORDER, "NOTIONAL_ORDER", limit="max_order_notional")
def order_notional(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    notional = -(-p.qty * p.price // SCALE)  # rounded up: a limit is not to be met by rounding
    if notional > limits.max_order_notional:
        return Refusal("NOTIONAL_ORDER", notional, limits.max_order_notional)


@_check(ORDER, "PRICE_COLLAR", limit="collar_bps")
def price_collar(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    twice_mid = p.bid + p.ask
    away_bps = (2 * p.price - twice_mid) * 10_000 / twice_mid
    if abs(away_bps) > limits.collar_bps:
        return Refusal("PRICE_COLLAR", away_bps, limits.collar_bps)


@_check(ORDER, "NOTIONAL_POSITION", limit="max_position_notional")
def position_notional(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    after, limit = p.after, limits.max_position_notional
    if after > limit and not p.shrinks:  # what only reduces may always pass
        return make(Refusal, ("NOTIONAL_POSITION", after, limit))


@_check(ORDER, "NOTIONAL_GROSS", limit="max_gross_notional")
def gross_notional(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    gross, limit = p.other_gross + p.after, limits.max_gross_notional
    if gross > limit and not p.shrinks:
        return make(Refusal, ("NOTIONAL_GROSS", gross, limit))


@_check(ORDER, "NOTIONAL_NET", limit="max_net_notional", switch="max_net_notional")
def net_notional(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    worth = p.qty * p.price // SCALE
    net = account.net_high + worth if p.side == BUY else worth - account.net_low
    if net > limits.max_net_notional and not p.shrinks:
        return Refusal("NOTIONAL_NET", net, limits.max_net_notional)


@_check(ORDER, "RATE_REPEATED", limit="max_repeats", switch="max_repeats")
def repeated_execution(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    since = now - (standing.repeat_buy_ns if p.side == BUY else standing.repeat_sell_ns)
    if since < limits.repeat_window_ns:
        return Refusal("RATE_REPEATED", limits.max_repeats + 1, limits.max_repeats)


@_check(ORDER, "RATE_DUPLICATE", limit="duplicate_window_ms", switch="duplicate_window_ns")
def no_duplicate(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    since = now - standing.order_ns
    if since < limits.duplicate_window_ns and (p.side, p.qty, p.price) == (
            standing.last_side, standing.last_qty, standing.last_price):
        return Refusal("RATE_DUPLICATE", since, limits.duplicate_window_ns)


@_check(ORDER, "RATE_REJECTED", limit="reject_pause_ms", switch="reject_pause_ns")
def rejected_lately(p: Proposal, standing: Standing, account: Account, limits: Limits, now: int):
    if standing.rejects:
        since = now - standing.rejected_ns
        doublings = 0 if p.reduce_only else min(standing.rejects - 1, MOST_DOUBLINGS)  # what is held is to be left soon
        pause = limits.reject_pause_ns << doublings
        if since < pause:
            return Refusal("RATE_REJECTED", since, pause)


REASONS = tuple(reason for check in ADMISSION + MOMENT + ORDER for reason in check.reasons)


def exposure(position: int, open_buy: int, open_sell: int, mark: int) -> int:
    """The most that one symbol can come to be worth if its working orders on one side are filled."""
    return max(abs(position), abs(position + open_buy), abs(position - open_sell)) * mark // SCALE


def closable(side: int, standing: Standing) -> int:
    """What an order of `side` can close at most, working orders counted."""
    if side == BUY:
        return max(0, -standing.position - standing.open_buy)
    return max(0, standing.position - standing.open_sell)
