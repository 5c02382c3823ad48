"""The profit of a UTC day: against where it began, which is its loss, and against its best, which is the drawdown.

Both ends are in the journal, so a start goes on with them. The best is written down when it has risen, at most once a
second while there is time, and at the end of the day and of the process: a crash loses what it rose by since, and the
drawdown is that much too small until profit is there again. Profits are counts of 1e-8, times Unix ns or monotonic
(`now`).
"""

from datetime import date
from typing import Protocol

_DAY_NS = 86_400_000_000_000
_EPOCH = date(1970, 1, 1).toordinal()
_KEPT_NS = 1_000_000_000  # between two writes of the best; as long again while there is no time


class Days(Protocol):
    """What of the journal it takes: `common.journal.Journal`."""

    def day(self, day: str) -> tuple[int, int] | None: ...

    def open_day(self, day: str, opening: int) -> None: ...

    def raise_peak(self, day: str, opening: int, peak: int) -> None: ...


class Today:
    """Whatever it raises is the journal's ResourceError; it is then as before, and may be asked again."""

    def __init__(self, journal: Days) -> None:
        self._journal = journal
        self._number, self._name = -1, ""  # UTC days since 1970
        self._opening = self._best = self._kept = 0  # profit when it began, its best since, and that in the journal
        self._next_ns = 0

    def count(self, profit: int, wall: int) -> tuple[int, int]:
        """Loss and drawdown of the day that it is, with `profit` over the life of the journal; the first count of a day
        is where it begins, if the journal does not know it."""
        number = wall // _DAY_NS
        if number != self._number:
            self.keep()  # the best of the day that is over
            name = date.fromordinal(_EPOCH + number).isoformat()
            found = self._journal.day(name)
            if found is None:
                found = profit, profit
                self._journal.open_day(name, profit)
            self._number, self._name, (self._opening, self._best) = number, name, found
            self._kept = self._best
        self._best = max(self._best, profit)
        return self._opening - profit, self._best - profit

    def keep_now_and_then(self, now: int, idle: bool) -> None:
        """Write the best down if that is due; `idle`: there is time."""
        if self._best > self._kept and now >= self._next_ns + (0 if idle else _KEPT_NS):
            self._next_ns = now + _KEPT_NS
            self.keep()

    def keep(self) -> None:
        """Write the best down, if it has risen."""
        if self._best > self._kept:
            self._journal.raise_peak(self._name, self._opening, self._best)
            self._kept = self._best
