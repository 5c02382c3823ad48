"""The two clocks. Durations and stamps are monotonic; only records for people use wall time.

On Linux `time.monotonic_ns` reads CLOCK_MONOTONIC, which is one clock for all processes of a host,
so stamps taken in different stages may be subtracted. They mean nothing on another host.
"""

import time


class SystemClock:
    """The machine's clocks, in integer nanoseconds. Cost: about 65 ns a call."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    wall_ns = staticmethod(time.time_ns)


class ManualClock:
    """A clock that stands still until it is told; drives replay, backtest and tests."""

    def __init__(self, now_ns: int = 0) -> None:
        self.now_ns = now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns

    def set(self, now_ns: int) -> None:
        """Move to `now_ns`; never backwards (recordings may carry equal or stepped stamps)."""
        if now_ns > self.now_ns:
            self.now_ns = now_ns
