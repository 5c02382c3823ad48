"""How long to wait before trying again: jittered exponential backoff with a cap.

Pure: it is told the time and does not ask for it.
"""

import random

HEALTHY_S = 10.0  #: of good data before failures are forgotten


class Backoff:
    """Waits grow from `min_s` by a factor of 2 to `max_s`; each is drawn between half and all of that, so that
    many clients that failed together do not return together.

    Succeeding once is not being healthy: a server that accepts and hangs up would be called in a tight loop.
    So failures are forgotten only after `healthy_s` of good data since the last of them.
    """

    def __init__(self, min_s: float, max_s: float, seed: int | None = None, healthy_s: float = HEALTHY_S) -> None:
        self._min_s, self._max_s = min_s, max_s
        self._healthy_ns = int(healthy_s * 1e9)
        self._random = random.Random(seed)
        self._good_since_ns: int | None = None
        self.failures = 0  #: since the last healthy period

    def failed(self) -> float:
        """Seconds to wait after one more failure."""
        limit = min(self._max_s, self._min_s * 2.0 ** min(self.failures, 60))
        self.failures += 1
        self._good_since_ns = None
        return limit * self._random.uniform(0.5, 1.0)

    def good(self, now_ns: int) -> None:
        """Good data at `now_ns` (monotonic)."""
        if self._good_since_ns is None:
            self._good_since_ns = now_ns
        elif self.failures and now_ns - self._good_since_ns >= self._healthy_ns:
            self.failures = 0

    def reset(self) -> None:
        """Forget the failures: what was tried has been good for long."""
        self.failures = 0
