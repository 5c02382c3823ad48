"""When a position is left again. Pure.

    stop      it has lost `stop_bps` against its average cost, at the price at which it could be left
    horizon   it is as old as `after_ns`: what the model predicted has happened by then, or has not
    signal    the model no longer leans its way by `hold`, and it is older than `min_hold_ns`

An exit is a wish like any other: it becomes an order that can only make the position smaller, and the checks have the
last word. Prices are counts of 1e-8, times monotonic ns. A position is looked at with each prediction of its symbol; a
stop and the horizon, which need none, are looked at by the executor's clock, too, some ten times a second: they hold
while no model speaks, as long as the book does.
"""

from dataclasses import dataclass
from typing import NamedTuple

from common.config import Decision

EXITS = ("EXIT_FLATTEN", "EXIT_STOP", "EXIT_HORIZON", "EXIT_SIGNAL")
_BPS = 10_000


class Exit(NamedTuple):
    """Why a position is to be left: the value that was found and the limit it met."""

    reason: str  #: one of EXITS
    value: float = 0
    limit: float = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """The constants of the rules above; 0 where there is no such rule."""

    on_signal: bool = False
    hold: float = 0.0
    after_ns: int = 0
    stop_bps: float = 0.0
    min_hold_ns: int = 0
    timed: bool = False  #: whether there is a rule that needs no prediction

    @classmethod
    def of(cls, decision: Decision) -> "Policy":
        return cls(decision.exit_on_signal, decision.hold_threshold, round(decision.exit_after_s * 1e9),
                   decision.stop_bps, round(decision.min_hold_s * 1e9),
                   bool(decision.stop_bps or decision.exit_after_s))

    @property
    def idle(self) -> bool:
        """Whether no rule is in force."""
        return not (self.on_signal or self.after_ns or self.stop_bps or self.min_hold_ns)


def due(side: int, age_ns: int, cost: int, price: int, policy: Policy) -> Exit | None:
    """Whether to leave a position whatever is predicted. `side` is 1 for one that was bought, `cost` its average cost,
    `price` what it can be left at; where either is 0 it is not known, and no stop is met."""
    if policy.stop_bps and cost > 0 and price > 0:
        lost = side * (cost - price) * _BPS / cost
        if lost >= policy.stop_bps:
            return Exit("EXIT_STOP", lost, policy.stop_bps)
    if policy.after_ns and age_ns >= policy.after_ns:
        return Exit("EXIT_HORIZON", age_ns, policy.after_ns)
    return None


def turned(side: int, leaning: float, age_ns: int, policy: Policy) -> Exit | None:
    """Whether to leave a position because the model no longer leans its way."""
    if policy.on_signal and side * leaning < policy.hold and age_ns >= policy.min_hold_ns:
        return Exit("EXIT_SIGNAL", side * leaning, policy.hold)
    return None
