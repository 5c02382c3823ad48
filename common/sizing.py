"""How much to trade on a probability. Pure.

    size = q_max * share * min(1, vol_target / vol) * (1 - used) ** inventory * (1 - lost / drawdown)
    share = g(2 |p - 0.5|) = (2 |p - 0.5|) ** power,   or of Kelly, below;   0 inside the threshold

after the article's rule that a size grows with confidence: 0.51 gives almost nothing, 0.85 a lot. The second
factor keeps the risk of a position about level while volatility changes (volatility targeting), the third shrinks what
would add to a position that nears its limit (`used` of it is there), the last all sizes while the day's profit is
`lost` below its best. Factors only ever make a size smaller, so q_max is the largest size there is.

What a trade must earn. If the model is right the price moves by m, else by -m, where m is `move_bps` or
vol * sqrt(move_ticks), the standard deviation of a random walk over the ticks of the model's horizon; a class for "no
move" stays where it is. In and out again, taking both times, costs c = 2 * (half spread + fee + slippage). The expected
profit (p_up - p_down) * m - c is above 0 from the break-even probability on:

    |p - 0.5| >= (half spread + fee + slippage) / m

Kelly's fraction of capital, where moves are small, is expected profit over variance (E. O. Thorp, "The Kelly criterion
in blackjack, sports betting, and the stock market", 2006, on the continuous approximation):

    share * q_max = fraction * capital * (2 |p - 0.5| m - c) / m ** 2,   at most q_max

Probabilities, volatility and basis points are floats; what leaves is an integer count of 1e-8, rounded towards zero.
"""

import math
from dataclasses import dataclass

from common.config import Decision
from common.fixed import SCALE

_BPS = 10_000.0


@dataclass(frozen=True, slots=True)
class Curve:
    """The constants of the rules above."""

    threshold: float  #: no trade while |p - 0.5| is below it
    q_max: int  #: quote currency at full confidence, 1e-8
    power: float
    vol_target: float  #: basis points per tick, as `vol`
    costed: bool = False  #: no trade below the break-even probability
    toll_bps: float = 0.0  #: fee and slippage, one way
    move_bps: float = 0.0  #: m; 0: from volatility
    sqrt_ticks: float = 0.0  #: square root of move_ticks
    fraction: float = 0.0  #: of Kelly's; 0: the power curve
    capital: int = 0  #: quote currency, 1e-8
    inventory: float = 0.0  #: 0: no such factor
    drawdown: int = 0  #: quote currency, 1e-8; 0: no such factor

    @classmethod
    def of(cls, decision: Decision) -> "Curve":
        kelly, linear = decision.sizing == "kelly", decision.sizing == "linear"
        return cls(decision.threshold, round(decision.order_notional * SCALE), 1.0 if linear else decision.power,
                   decision.vol_target_bps, decision.cost_aware, decision.fee_bps + decision.slippage_bps,
                   decision.move_bps, math.sqrt(decision.move_ticks), decision.kelly_fraction if kelly else 0.0,
                   round(decision.capital * SCALE), decision.inventory, round(decision.drawdown * SCALE))

    @property
    def plain(self) -> bool:
        """Whether a size depends on nothing but probability and volatility."""
        return not (self.costed or self.fraction or self.inventory or self.drawdown)


def lean(p_up: float, p_down: float) -> float:
    """How far the model leans, in [-0.5, 0.5], above 0 for up: p - 0.5 of a model with two classes, where
    p_down = 1 - p_up; with a class for "no move", half the difference of the other two."""
    return 0.5 * (p_up - p_down)


def g(x: float, power: float) -> float:
    """Confidence in [0, 1] -> share of the largest size in [0, 1]; 0 at 0, 1 at 1, never falling."""
    return x**power


def half_spread_bps(bid: int, ask: int) -> float:
    """What taking costs against the mid; infinite where there is no market to take."""
    return (ask - bid) / (ask + bid) * _BPS if 0 < bid <= ask else math.inf


def move_bps(vol: float, curve: Curve) -> float:
    """The size of the move that is expected, 0 or more."""
    return curve.move_bps or vol * curve.sqrt_ticks


def break_even(half_spread: float, vol: float, curve: Curve) -> float:
    """The least |p - 0.5| that earns its costs; infinite where nothing is expected to move. `half_spread` in bps."""
    move = move_bps(vol, curve)
    return (half_spread + curve.toll_bps) / move if move > 0 else math.inf


def kelly(strength: float, half_spread: float, vol: float, curve: Curve) -> float:
    """The fraction of Kelly's size, as a share of the largest size in [0, 1]."""
    move = move_bps(vol, curve)
    profit = 2.0 * (strength * move - half_spread - curve.toll_bps)
    if not profit > 0 or not curve.q_max:  # no profit as well where the spread is not known
        return 0.0
    return min(1.0, curve.fraction * (curve.capital / curve.q_max) * (profit * _BPS / move / move))


def notional(leaning: float, vol: float, curve: Curve, half_spread: float = 0.0, used: float = 0.0,
             lost: int = 0) -> int:
    """Signed size in quote currency (1e-8), above 0 to buy; 0 inside the threshold.

    `leaning` is in [-0.5, 0.5] and `vol` is 0 or more; the caller has refused anything else. `used` is the share of the
    position limit that is held in the direction of the leaning, below 0 the other way; `lost` is the day's drawdown."""
    strength = abs(leaning)
    if strength < curve.threshold or not strength:
        return 0
    share = kelly(strength, half_spread, vol, curve) if curve.fraction else g(2.0 * strength, curve.power)
    if vol > curve.vol_target:
        share *= curve.vol_target / vol
    if curve.inventory and used > 0:
        share *= max(0.0, 1.0 - used) ** curve.inventory
    if curve.drawdown and lost > 0:
        share *= max(0.0, 1.0 - lost / curve.drawdown)
    size = int(curve.q_max * share)
    return size if leaning > 0 else -size


def quantity(size: int, price: int, lot: int) -> int:
    """The largest multiple of `lot` (1e-8) that costs at most `size` (quote currency, 1e-8, unsigned) at
    `price`. Exact."""
    count = size * SCALE // price
    return count - count % lot


def room(capital: int, others: int, filled: int, price: int) -> int:
    """The largest quantity (1e-8, 0 or more) that leaves the value of everything within `capital`: `others` is that of
    the other symbols, `filled` what is held once every working order of the side is filled, above 0 on that side."""
    return max(0, (capital - others) * SCALE // price - filled)
