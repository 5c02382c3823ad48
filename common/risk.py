"""The checks between a wish and an order. Pure.

Each check is a small function over plain numbers, registered with the reasons it may refuse for, and is
evaluated in the order of this file; the first refusal wins. To add one, write it here: the executor counts its
reasons and the tests ask for a case, because it is listed.

Three lists, because most predictions come to nothing, and the sooner the cheaper: ADMISSION is asked of every
prediction, MOMENT of those that ask for a size, before an order is made of it, ORDER of the order. A reason reads
`CATEGORY_CONDITION`. References: SEC rule 15c3-5 and the FIA's guide to pre-trade risk controls (limits on size,
price, rate, position and loss, duplicates, kill switch).

Quantities, prices and money are counts of 1e-8, times monotonic ns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from common.config import Risk
from common.fixed import SCALE
from common.layout import FLAG_VALID
from common.wire import Prediction, make

if TYPE_CHECKING:
    from common.ring import Top


class Refusal(NamedTuple):
    """Why there is no order: the reason, the value that was found and the limit it met (0 where none applies)."""

    reason: str
    value: float = 0
    limit: float = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """`config.Risk` in the units of this module."""

    max_order_notional: int
    max_position_notional: int
    max_gross_notional: int
    symbol_cooldown_ns: int
    max_age_ns: int
    max_book_age_ns: int
    collar_bps: float
    max_daily_loss: int

    @classmethod
    def of(cls, risk: Risk) -> "Limits":
        money = [round(value * SCALE) for value in (
            risk.max_order_notional, risk.max_position_notional, risk.max_gross_notional, risk.max_daily_loss)]
        times = [round(value * 1e6) for value in (risk.symbol_cooldown_ms, risk.max_age_ms, risk.max_book_age_ms)]
        return cls(*money[:3], *times, risk.collar_bps, money[3])


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


class Account:
    """What holds for all symbols. The executor keeps it; the checks read it."""

    __slots__ = ("barred", "gross", "day_loss", "rate")

    def __init__(self, rate: Rate, barred: str = "") -> None:
        self.barred = barred  #: the reason why nothing may trade, or "": one of the first check's reasons
        self.gross = 0  #: value of all positions, open orders counted
        self.day_loss = 0  #: realised and unrealised since the day began, fees included; below 0 a profit
        self.rate = rate


class Standing:
    """What holds for one symbol. The executor keeps it; the checks read it."""

    __slots__ = ("epoch", "seq", "unresolved", "position", "open_buy", "open_sell", "exposure", "order_ns")

    def __init__(self, epoch: int, seq: int = 0) -> None:
        self.epoch = epoch  #: of the stream of ticks that is followed
        self.seq = seq  #: newest prediction taken up in it
        self.unresolved = 0  #: orders whose outcome is unknown
        self.position = 0
        self.open_buy = 0  #: what working orders may still buy
        self.open_sell = 0
        self.exposure = 0  #: this symbol's share of `Account.gross`
        self.order_ns = -(2**62)  #: when the last order was decided


class Proposal(NamedTuple):
    """An order that is being considered, with all that the ORDER checks look at."""

    side: int
    qty: int
    lot: int
    price: int  #: limit price, above 0
    bid: int
    ask: int
    before: int  #: value of what is held now
    after: int  #: value of what would be held if this and every working order on its side were filled
    other_gross: int  #: value of all other symbols, open orders counted


class Check(NamedTuple):
    name: str
    reasons: tuple[str, ...]
    limit: str  #: the key in `config.Risk`, "" where the check has none
    test: Callable[..., Refusal | None]


ADMISSION: list[Check] = []  #: test(prediction, standing, account, limits, now)
MOMENT: list[Check] = []  #: test(top, standing, account, limits, now)
ORDER: list[Check] = []  #: test(proposal, limits)


def _check(checks: list[Check], *reasons: str, limit: str = "") -> Callable:
    def register(test: Callable) -> Callable:
        checks.append(Check(test.__name__, reasons, limit, test))
        return test
    return register


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
    if account.day_loss > limits.max_daily_loss:
        return Refusal("LOSS_DAILY", account.day_loss, limits.max_daily_loss)


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

@_check(ORDER, "QUANTITY_ZERO", "QUANTITY_LOT")
def quantity_in_lots(p: Proposal, limits: Limits):
    if p.qty <= 0:
        return Refusal("QUANTITY_ZERO", p.qty, p.lot)
    if p.qty % p.lot:
        return Refusal("QUANTITY_LOT", p.qty, p.lot)


@_check(ORDER, "NOTIONAL_ORDER", limit="max_order_notional")
def order_notional(p: Proposal, limits: Limits):
    notional = -(-p.qty * p.price // SCALE)  # rounded up: a limit is not to be met by rounding
    if notional > limits.max_order_notional:
        return Refusal("NOTIONAL_ORDER", notional, limits.max_order_notional)


@_check(ORDER, "PRICE_COLLAR", limit="collar_bps")
def price_collar(p: Proposal, limits: Limits):
    twice_mid = p.bid + p.ask
    away_bps = (2 * p.price - twice_mid) * 10_000 / twice_mid
    if abs(away_bps) > limits.collar_bps:
        return Refusal("PRICE_COLLAR", away_bps, limits.collar_bps)


@_check(ORDER, "NOTIONAL_POSITION", limit="max_position_notional")
def position_notional(p: Proposal, limits: Limits):
    after, limit = p.after, limits.max_position_notional
    if after > limit and after > p.before:  # what reduces may always pass
        return make(Refusal, ("NOTIONAL_POSITION", after, limit))


@_check(ORDER, "NOTIONAL_GROSS", limit="max_gross_notional")
def gross_notional(p: Proposal, limits: Limits):
    gross, limit = p.other_gross + p.after, limits.max_gross_notional
    if gross > limit and p.after > p.before:
        return make(Refusal, ("NOTIONAL_GROSS", gross, limit))


REASONS = tuple(reason for check in ADMISSION + MOMENT + ORDER for reason in check.reasons)


def exposure(position: int, open_buy: int, open_sell: int, mark: int) -> int:
    """The most that one symbol can come to be worth if its working orders on one side are filled."""
    return max(abs(position), abs(position + open_buy), abs(position - open_sell)) * mark // SCALE
