"""The same event again and again: a few are let through, the rest are counted. Pure: it is told the time.

In each window of `window_s`, which begins with an event, the first `limit` events of a kind pass; when the window is
over, how many did not is told, once. So a storm costs a line per kind and window, however long it lasts, and nothing is
lost without being counted.
"""

from collections.abc import Hashable, Iterator

MAX_KINDS = 1000  #: that are kept apart; what comes beyond them in one window shares a kind, None


class Repeats:
    """`limit` 0: everything passes."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit, self._window_s = limit, window_s
        self._windows: dict[Hashable, list] = {}  # kind -> [when it ends, how many came]
        self._due = float("inf")  # when the first of them ends
        self.held_back = 0  #: not told yet

    def admits(self, kind: Hashable, now: float) -> bool:
        """Whether an event of `kind` passes at `now`, in seconds, after `over` was asked at this `now`."""
        if not self._limit:
            return True
        if kind not in self._windows and len(self._windows) >= MAX_KINDS:
            kind = None
        window = self._windows.get(kind)
        if window is None:
            self._windows[kind] = [now + self._window_s, 1]
            self._due = min(self._due, now + self._window_s)
            return True
        window[1] += 1
        if window[1] <= self._limit:
            return True
        self.held_back += 1
        return False

    def over(self, now: float) -> Iterator[tuple[Hashable, int]]:
        """(kind, how many did not pass) of the windows that are over. About 0.1 us where none is."""
        if now < self._due:
            return
        ended = [kind for kind, window in self._windows.items() if now >= window[0]]
        found = [(kind, self._windows.pop(kind)[1] - self._limit) for kind in ended]
        self._due = min((window[0] for window in self._windows.values()), default=float("inf"))
        for kind, count in found:
            if count > 0:
                self.held_back -= count
                yield kind, count
