"""From a prediction to an order or a refusal. Pure: what it needs is given, and it changes nothing.

    admission (common.risk)  ->  signal and size (common.sizing)  ->  the moment, the order (common.risk)

The order is a limit at the touch of the book as it stands now, immediate-or-cancel: it takes what is shown at
that price and leaves nothing behind. Cost: about 1.5 us for a prediction inside the threshold, 2 to 5 us for one
that the moment or a limit refuses, 7 us for an order.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common import fixed
from common.config import Config
from common.fixed import SCALE
from common.orders import BUY, SELL, Order, client_order_id
from common.risk import ADMISSION, MOMENT, ORDER, REASONS, Account, Limits, Proposal, Refusal, Standing
from common.sizing import Curve, lean, notional, quantity
from common.wire import Prediction, make

if TYPE_CHECKING:
    from common.ring import Top

SIGNAL_REASONS = ("SIGNAL_INVALID", "SIGNAL_WEAK")
SYMBOL_REASONS = ("SYMBOL_ELSEWHERE",)  #: of a feed whose venue our orders do not go to
ALL_REASONS = (*SIGNAL_REASONS, *SYMBOL_REASONS, *REASONS)
OUTBOUND_REASONS = ("ORDER_DUPLICATE", "JOURNAL_FAILED")  #: that only the way out can give, once there is an order
_ADMISSION, _MOMENT, _ORDER = (tuple(check.test for check in checks) for checks in (ADMISSION, MOMENT, ORDER))


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says of one symbol, in the units of the hot path."""

    symbol: str
    lot: int
    curve: Curve
    limits: Limits
    traded: bool = True  #: whether orders of this symbol have a place to go

    @classmethod
    def of(cls, config: Config, symbol: str) -> "Rules":
        return cls(symbol, fixed.parse(config.instrument(symbol).lot, f"instruments.{symbol}.lot"),
                   Curve.of(config.decision), Limits.of(config.risk),
                   config.executor.gateway == "paper" or symbol not in config.symbols[len(config.market.symbols):])


def decide(prediction: Prediction, market: "Top | None", standing: Standing, account: Account, rules: Rules,
           now: int) -> Order | Refusal:
    """The whole way. `market` is the newest book of the symbol, None where there is none; `now` is monotonic ns.

    The executor takes the two halves one by one: most predictions end in the first, and need no market."""
    size = wish(prediction, standing, account, rules, now)
    if type(size) is Refusal:
        return size
    return answer(size, prediction, market, standing, account, rules, now)


def wish(prediction: Prediction, standing: Standing, account: Account, rules: Rules, now: int) -> int | Refusal:
    """The size that the prediction asks for: signed, not 0, in quote currency (1e-8)."""
    limits = rules.limits
    if not rules.traded:
        return Refusal("SYMBOL_ELSEWHERE")
    for test in _ADMISSION:
        refusal = test(prediction, standing, account, limits, now)
        if refusal is not None:
            return refusal
    p_up, p_down, vol = prediction.p_up, prediction.p_down, prediction.vol
    if not (0.0 <= p_up <= 1.0 and 0.0 <= p_down <= 1.0 and vol >= 0.0):  # false for NaN as well
        return Refusal("SIGNAL_INVALID", p_up)
    leaning = lean(p_up, p_down)
    size = notional(leaning, vol, rules.curve)
    return size or make(Refusal, ("SIGNAL_WEAK", abs(leaning), rules.curve.threshold))


def answer(size: int, prediction: Prediction, market: "Top | None", standing: Standing, account: Account,
           rules: Rules, now: int) -> Order | Refusal:
    """The order of that size at the touch, if every check lets it pass."""
    limits = rules.limits
    for test in _MOMENT:
        refusal = test(market, standing, account, limits, now)
        if refusal is not None:
            return refusal
    proposal = propose(size, market, standing, account, rules.lot)
    for test in _ORDER:
        refusal = test(proposal, limits)
        if refusal is not None:
            return refusal
    return Order(client_order_id(prediction.epoch, prediction.symbol, prediction.seq), rules.symbol,
                 proposal.side, proposal.qty, proposal.price, prediction.epoch, prediction.seq)


def propose(size: int, market: "Top", standing: Standing, account: Account, lot: int) -> Proposal:
    """The order that `size` (signed, quote currency) asks for at the touch of a usable book: the checks have the last
    word."""
    bid, ask, held = market.bid, market.ask, standing.position
    if size > 0:
        side, price, qty = BUY, ask, quantity(size, ask, lot)
        filled = held + standing.open_buy + qty
    else:
        side, price, qty = SELL, bid, quantity(-size, bid, lot)
        filled = held - standing.open_sell - qty
    return make(Proposal, (side, qty, lot, price, bid, ask, abs(held) * price // SCALE, abs(filled) * price // SCALE,
                           account.gross - standing.exposure))
