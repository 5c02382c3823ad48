"""From a prediction to an order or a refusal. Pure: what it needs is given, and it changes nothing.

    admission (common.risk)  ->  exit that is due (common.exits)
                             ->  exit by signal, or signal and size (common.sizing)
                             ->  the moment, the order (common.risk)

The order is a limit at the touch of the book as it stands now, immediate-or-cancel: it takes what is shown at
that price and leaves nothing behind. One that leaves a position, and any while the account is REDUCING, can only make
it smaller. An exit that is due needs no probability, so a prediction that has none leaves a position, too: one whose
model has failed, or that of the executor's clock (`wire.CLOCK`). Cost: about 1.5 us for a prediction inside the
threshold, 2 to 5 us for one that the moment or a limit refuses, 7 us for an order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common import fixed
from common.config import SPOT_GATEWAY, Config
from common.exits import Exit, Policy, due, turned
from common.fixed import SCALE
from common.orders import BUY, SELL, Order, client_order_id
from common.risk import (
    ACTIVE,
    ADMISSION,
    FLATTENING,
    MOMENT,
    ORDER,
    REASONS,
    Account,
    Limits,
    Proposal,
    Refusal,
    Standing,
    active,
    closable,
)
from common.sizing import Curve, break_even, half_spread_bps, lean, notional, quantity, room
from common.wire import Prediction, make

if TYPE_CHECKING:
    from common.ring import Top

SIGNAL_REASONS = ("SIGNAL_INVALID", "SIGNAL_WEAK", "SIGNAL_COST", "SIGNAL_HOLD", "SIGNAL_SHRUNK", "CAPITAL_SPENT")
SYMBOL_REASONS = ("SYMBOL_ELSEWHERE",)  #: of a feed whose venue our orders do not go to
ALL_REASONS = (*SIGNAL_REASONS, *SYMBOL_REASONS, *REASONS)
OUTBOUND_REASONS = ("ORDER_DUPLICATE", "JOURNAL_FAILED")  #: that only the way out can give, once there is an order


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says of one symbol, in the units of the hot path."""

    symbol: str
    lot: int
    curve: Curve
    limits: Limits
    traded: bool = True  #: whether orders of this symbol have a place to go
    policy: Policy = Policy()
    #: the tests of the checks that are switched on
    admission: tuple[Callable, ...] = ()
    moment: tuple[Callable, ...] = ()
    order: tuple[Callable, ...] = ()
    plain: bool = True  #: no exits, and a size that depends on nothing but the prediction
    spot: bool = False  #: nothing can be sold that is not held

    @classmethod
    def of(cls, config: Config, symbol: str) -> "Rules":
        curve, policy = Curve.of(config.decision), Policy.of(config.decision)
        spot = config.decision.long_only or config.executor.gateway == SPOT_GATEWAY
        limits = Limits.of(config.risk, symbol, config.instruments.get(symbol), spot)
        return cls(symbol, fixed.parse(config.instrument(symbol).lot, f"instruments.{symbol}.lot"), curve, limits,
                   config.executor.gateway == "paper" or symbol not in config.symbols[len(config.market.symbols):],
                   policy, *(active(checks, limits) for checks in (ADMISSION, MOMENT, ORDER)),
                   curve.plain and policy.idle, spot)


def decide(prediction: Prediction, market: "Top | None", standing: Standing, account: Account, rules: Rules,
           now: int) -> Order | Refusal:
    """The whole way. `market` is the newest book of the symbol, None where there is none; `now` is monotonic ns.

    The executor takes the two halves one by one: most predictions end in the first, and need no market."""
    wanted = wish(prediction, standing, account, rules, now)
    if type(wanted) is Refusal:
        return wanted
    return answer(wanted, prediction, market, standing, account, rules, now)


def wish(prediction: Prediction, standing: Standing, account: Account, rules: Rules, now: int) -> int | Exit | Refusal:
    """The size that the prediction asks for: signed, not 0, in quote currency (1e-8). Or that what is held be left."""
    limits = rules.limits
    if not rules.traded:
        return Refusal("SYMBOL_ELSEWHERE")
    for test in rules.admission:
        refusal = test(prediction, standing, account, limits, now)
        if refusal is not None:
            return refusal
    if standing.position:
        exit_ = leave(prediction.bid, prediction.ask, standing, account, rules.policy, now)
        if exit_ is not None:
            return exit_
    p_up, p_down, vol = prediction.p_up, prediction.p_down, prediction.vol
    if not (0.0 <= p_up <= 1.0 and 0.0 <= p_down <= 1.0 and vol >= 0.0):  # false for NaN as well
        return Refusal("SIGNAL_INVALID", p_up)
    leaning = lean(p_up, p_down)
    if not rules.plain:
        return _weigh(leaning, prediction, standing, account, rules, now)
    size = notional(leaning, vol, rules.curve)
    return size or make(Refusal, ("SIGNAL_WEAK", abs(leaning), rules.curve.threshold))


def leave(bid: int, ask: int, standing: Standing, account: Account, policy: Policy, now: int) -> Exit | None:
    """Whether what is held is to be left, whatever a model says of it; `bid` and `ask` are what it can be left at.
    About 0.3 us."""
    if account.mode == FLATTENING:
        return Exit("EXIT_FLATTEN")
    if not policy.timed:
        return None
    side, price = (BUY, bid) if standing.position > 0 else (SELL, ask)
    return due(side, now - standing.entered_ns, standing.cost, price, policy)


def _weigh(leaning: float, prediction: Prediction, standing: Standing, account: Account, rules: Rules,
           now: int) -> int | Exit | Refusal:
    """As `wish`, with all that the configuration can switch on. About 2 us more."""
    curve, policy, limits, vol = rules.curve, rules.policy, rules.limits, prediction.vol
    strength, position = abs(leaning), standing.position
    side = BUY if position > 0 else SELL
    if position:
        age = now - standing.entered_ns
        exit_ = turned(side, leaning, age, policy)
        if exit_ is not None:
            return exit_
        if side * leaning < 0 and age < policy.min_hold_ns:
            return Refusal("SIGNAL_HOLD", age, policy.min_hold_ns)
    if strength < curve.threshold or not strength:
        return Refusal("SIGNAL_WEAK", strength, curve.threshold)
    half_spread = half_spread_bps(prediction.bid, prediction.ask)
    if curve.costed:
        least = break_even(half_spread, vol, curve)
        if strength < least:
            return Refusal("SIGNAL_COST", strength, least)
    used = 0.0
    if position and side * leaning > 0:
        used = standing.exposure / limits.max_position_notional if limits.max_position_notional else 1.0
    size = notional(leaning, vol, curve, half_spread, used, account.drawdown)
    if size:
        return size
    if curve.drawdown and account.drawdown >= curve.drawdown:
        return Refusal("SIGNAL_SHRUNK", account.drawdown, curve.drawdown)
    if curve.inventory and used >= 1.0:
        return Refusal("SIGNAL_SHRUNK", used, 1.0)
    return Refusal("SIGNAL_COST", strength, break_even(half_spread, vol, curve)) if curve.fraction else Refusal(
        "SIGNAL_WEAK", strength, curve.threshold)


def answer(wanted: int | Exit, prediction: Prediction, market: "Top | None", standing: Standing, account: Account,
           rules: Rules, now: int) -> Order | Refusal:
    """The order for what `wish` asked for, at the touch, if every check lets it pass."""
    limits = rules.limits
    for test in rules.moment:
        refusal = test(market, standing, account, limits, now)
        if refusal is not None:
            return refusal
    if type(wanted) is Exit:
        proposal = propose_exit(market, standing, account, rules)
    else:
        curve = rules.curve
        if curve.costed:  # the spread as it stands now, too
            strength = abs(lean(prediction.p_up, prediction.p_down))
            least = break_even(half_spread_bps(market.bid, market.ask), prediction.vol, curve)
            if strength < least:
                return Refusal("SIGNAL_COST", strength, least)
        proposal = propose(wanted, market, standing, account, rules.lot, curve.capital, rules.spot)
        if not proposal.qty and curve.capital and not proposal.reduce_only and quantity(
                abs(wanted), proposal.price, rules.lot):
            return Refusal("CAPITAL_SPENT", account.gross, curve.capital)
    for test in rules.order:
        refusal = test(proposal, standing, account, limits, now)
        if refusal is not None:
            return refusal
    return make(Order, (client_order_id(prediction.epoch, prediction.symbol, prediction.seq), rules.symbol,
                        proposal.side, proposal.qty, proposal.price, prediction.epoch, prediction.seq,
                        "LIMIT", "IOC", proposal.reduce_only))


def propose(size: int, market: "Top", standing: Standing, account: Account, lot: int, capital: int = 0,
            spot: bool = False) -> Proposal:
    """The order that `size` (signed, quote currency) asks for at the touch of a usable book, cut down to what `capital`
    leaves room for, or while the account is not ACTIVE, and of a sale on `spot`, to what can be closed: the checks have
    the last word."""
    held, reduce_only = standing.position, account.mode != ACTIVE or spot and size < 0
    if size > 0:
        side, price = BUY, market.ask
        filled = held + standing.open_buy
    else:
        side, price, size = SELL, market.bid, -size
        filled = held - standing.open_sell
    qty = quantity(size, price, lot)
    if reduce_only:
        most = closable(side, standing)
        if 0 < most < qty:
            qty = most - most % lot
    elif capital:
        most = room(capital, account.gross - standing.exposure, side * filled, price)
        if most < qty:
            qty = most - most % lot
    filled += side * qty
    return make(Proposal, (side, qty, lot, price, market.bid, market.ask, _shrinks(held, filled),
                           abs(filled) * price // SCALE, account.gross - standing.exposure, reduce_only))


def propose_exit(market: "Top", standing: Standing, account: Account, rules: Rules) -> Proposal:
    """The order that leaves what is held, or as much of it as one order may: at the touch, and reduce-only."""
    held, limits = standing.position, rules.limits
    side, price, pending = (SELL, market.bid, standing.open_sell) if held > 0 else (BUY, market.ask, standing.open_buy)
    qty = min(closable(side, standing), limits.max_order_notional * SCALE // price)
    if limits.max_qty:
        qty = min(qty, limits.max_qty)
    qty -= qty % rules.lot
    filled = held + side * (pending + qty)
    return Proposal(side, qty, rules.lot, price, market.bid, market.ask, _shrinks(held, filled),
                    abs(filled) * price // SCALE, account.gross - standing.exposure, True)


def _shrinks(held: int, filled: int) -> bool:
    """Whether `filled` is no more than `held`, and not on the other side of nothing."""
    return held * filled >= 0 and abs(filled) <= abs(held)
