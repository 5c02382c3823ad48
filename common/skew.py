"""Two clocks: the venue's, which stamps an event when it happens, and the recorder's, when its frame comes."""

from typing import Any

import numpy as np

_S = 1_000_000_000


class Clocks:
    """How far the recorder's clock stands ahead of the venue's: recv - event of each delta and trade.

    `median_ms` is that of all events, to 0.1 ms. The lower envelope shows the clocks rather than the traffic: of each
    10 s it takes the 1 % quantile, that is the frames that were least delayed, but not the one odd stamp; and
    `envelope_ms` is the median of these. `drift_ms_per_hour` is the slope of the envelope: the median of the slopes
    between its points at least a third of the recording apart (after Theil and Sen), so that some minutes of a
    network gone slow do not move it; None below 60 s.

    What it cannot tell: one way only is measured, so the offset of the clocks and the shortest way of a frame
    are one number. An envelope of -1,400 ms proves that the recorder's clock was behind by at least that much; one
    of +20 ms may be a good clock and a way of 20 ms, or a clock 15 ms ahead and a way of 5. Nor can it see what
    the venue's own stamp leaves out: most round to a millisecond, and some stamp before they queue."""

    WINDOW_NS = 10 * _S
    STEP_NS = 100_000  #: resolution of the median
    _BINS = 1 << 16
    _LEAST = 20  #: events of a window from which an envelope is taken

    def __init__(self) -> None:
        self.pending: list[int] = []  #: recv - event of the window in hand: appended by the judge
        self._from_ns = 0
        self._bins: dict[int, int] = {}
        self._lows: list[tuple[int, float]] = []

    def turn(self, recv_ns: int) -> None:
        """A window may have ended."""
        if self.pending:
            values = np.array(self.pending, np.int64)
            self.pending.clear()
            if len(self._bins) < self._BINS:  # a hostile stream has no median worth its memory
                keys, counts = np.unique(values // self.STEP_NS, return_counts=True)
                for key, count in zip(keys.tolist(), counts.tolist()):
                    self._bins[key] = self._bins.get(key, 0) + count
            if len(values) >= self._LEAST:
                self._lows.append((self._from_ns, float(np.quantile(values, 0.01))))
                if len(self._lows) > 4096:  # half a day: from here on, every other one
                    del self._lows[::2]
        self._from_ns = recv_ns

    def report(self) -> dict[str, Any]:
        """None in place of what there are too few events for."""
        if not self._bins:
            return {"events": 0, "median_ms": None, "envelope_ms": None, "drift_ms_per_hour": None}
        keys = np.array(sorted(self._bins))
        counts = np.cumsum([self._bins[key] for key in keys.tolist()])
        median = keys[np.searchsorted(counts, counts[-1] / 2)] * self.STEP_NS
        lows = np.array(self._lows).reshape(-1, 2)
        return {"events": int(counts[-1]), "median_ms": round(median / 1e6, 1),
                "envelope_ms": round(float(np.median(lows[:, 1])) / 1e6, 3) if len(lows) else None,
                "drift_ms_per_hour": self._drift(lows)}

    @staticmethod
    def _drift(lows: np.ndarray) -> float | None:
        lows = lows[::max(1, len(lows) // 500)]
        if len(lows) < 3 or lows[-1, 0] - lows[0, 0] < 60 * _S:
            return None
        apart = lows[:, 0][None] - lows[:, 0][:, None]
        far = apart >= (lows[-1, 0] - lows[0, 0]) / 3
        slopes = (lows[:, 1][None] - lows[:, 1][:, None])[far] / apart[far]
        return round(float(np.median(slopes)) * 3600 * 1e3, 3)  # ns per ns, as ms an hour
