"""How much to trade on a probability. Pure.

    size = q_max * g(2 |p - 0.5|) * min(1, vol_target / vol),   g(x) = x ** power,   0 inside the threshold

after the article's rule that a size grows with confidence: 0.51 gives almost nothing, 0.85 a lot. The second
factor keeps the risk of a position about level while volatility changes (volatility targeting; it only ever
makes a size smaller, so q_max is the largest size there is). Probabilities and volatility are floats; what
leaves is an integer count of 1e-8, rounded towards zero.
"""

from dataclasses import dataclass

from common.config import Decision
from common.fixed import SCALE


@dataclass(frozen=True, slots=True)
class Curve:
    """The constants of the rule above."""

    threshold: float  #: no trade while |p - 0.5| is below it
    q_max: int  #: quote currency at full confidence, 1e-8
    power: float
    vol_target: float  #: basis points per tick, as `vol`

    @classmethod
    def of(cls, decision: Decision) -> "Curve":
        return cls(decision.threshold, round(decision.order_notional * SCALE), decision.power,
                   decision.vol_target_bps)


def lean(p_up: float, p_down: float) -> float:
    """How far the model leans, in [-0.5, 0.5], above 0 for up: p - 0.5 of a model with two classes, where
    p_down = 1 - p_up; with a class for "no move", half the difference of the other two."""
    return 0.5 * (p_up - p_down)


def g(x: float, power: float) -> float:
    """Confidence in [0, 1] -> share of the largest size in [0, 1]; 0 at 0, 1 at 1, never falling."""
    return x**power


def notional(leaning: float, vol: float, curve: Curve) -> int:
    """Signed size in quote currency (1e-8), above 0 to buy; 0 inside the threshold.

    `leaning` is in [-0.5, 0.5] and `vol` is 0 or more; the caller has refused anything else."""
    strength = abs(leaning)
    if strength < curve.threshold or not strength:
        return 0
    share = g(2.0 * strength, curve.power)
    if vol > curve.vol_target:
        share *= curve.vol_target / vol
    size = int(curve.q_max * share)
    return size if leaning > 0 else -size


def quantity(size: int, price: int, lot: int) -> int:
    """The largest multiple of `lot` (1e-8) that costs at most `size` (quote currency, 1e-8, unsigned) at
    `price`. Exact."""
    count = size * SCALE // price
    return count - count % lot
