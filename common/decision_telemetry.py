"""What is told of decisions: counted at once, the rest many at a time, off the way of the next one.

    counters    in telemetry, at once: decisions, refusals, and each refusal by its reason
    latencies   in telemetry: of each station, from the stamps that came with the prediction
    refusals    in telemetry, the last of them one by one: when, of which symbol, why, value and limit
    the tap     hears all of it (common.decision), while somebody listens
"""

import logging

import numpy as np

from common import decision
from common.decide import ALL_REASONS, OUTBOUND_REASONS
from common.errors import WireError
from common.links import Tap
from common.orders import Order
from common.ring import Top
from common.risk import Refusal
from common.telemetry import Telemetry
from common.wire import CLOCK, STATIONS, Prediction

NOTES = 64  #: refusals that the telemetry keeps one by one
#: the counter of each reason
COUNTER_OF = {reason: f"refusal_{reason.lower()}" for reason in ALL_REASONS + OUTBOUND_REASONS}
COUNTERS = ("decisions",
            "watched",  # decisions that the clock asked for, not a prediction
            "refusals", *COUNTER_OF.values())
TIMERS = (*STATIONS, "tick_to_decision")
_STAMPS = Prediction._fields.index("recv_ns")  # and all after it
_log = logging.getLogger("executor")


class DecisionTelemetry:
    """`telemetry` has COUNTERS, TIMERS and room for NOTES notes."""

    def __init__(self, telemetry: Telemetry, tap: Tap | None = None) -> None:
        self._telemetry, self._tap = telemetry, tap
        self._passed: list[tuple[int, ...]] = []  # of each decision its stamps, from recv_ns on
        self._refused: list[tuple[int, int, Refusal]] = []  # when, of which symbol, and why
        self._untold: list[tuple] = []  # what the tap is to hear, as `decision.encode` takes it

    @property
    def wanted(self) -> bool:
        """Whether somebody listens to the tap."""
        return self._tap is not None and self._tap.wanted

    def count(self, prediction: Prediction, refusal: Refusal | None, decided: int) -> None:
        """One decision, made at `decided`; `refusal` None for an order that left. About 0.7 us."""
        add = self._telemetry.add
        add("decisions")
        if prediction.worker == CLOCK:
            add("watched")
        else:
            self._passed.append((*prediction[_STAMPS:], decided))
        if refusal is not None:
            add("refusals")
            add(COUNTER_OF[refusal.reason])
            self._refused.append((decided, prediction.symbol, refusal))

    def keep(self, prediction: Prediction, wish_ns: int, answer_ns: int, market: Top | None, before: decision.Before,
             verdict: Order | Refusal, refusal: Refusal | None) -> None:
        """For the tap."""
        self._untold.append((prediction, wish_ns, answer_ns, market, before, verdict, refusal))

    def tell(self) -> None:
        """What has come together since the last time."""
        if self._refused:
            self._telemetry.note_all([(at, symbol, COUNTER_OF[refusal.reason], refusal.value, refusal.limit)
                                      for at, symbol, refusal in self._refused[-NOTES:]])
            self._refused.clear()
        if self._passed:
            stamps = np.array(self._passed)
            self._passed.clear()
            self._telemetry.observe_all(STATIONS, np.diff(stamps).T)
            self._telemetry.observe_all(("tick_to_decision",), (stamps[:, -1] - stamps[:, 0])[None])
        if self._untold:
            self._send()

    def _send(self) -> None:
        """Tell the tap, in one message."""
        records = []
        for told in self._untold:
            try:
                records.append(decision.encode(*told))
            except WireError as error:
                self._telemetry.add("errors")
                _log.error("%s", error)
        self._untold.clear()
        if records:
            self._tap.send(b"".join(records))
