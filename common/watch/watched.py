"""What people look at: the pipeline at one moment, and what is firing.

    alerts      {wanted, watched, firing, former}: what `alpha alerts` tells (common.alarms), the worst first, then the
                oldest: [{name, subject, severity, what, remedy, since_ns, ...}]. `watched`: a monitor runs, and looks
                for them; `wanted`: the configuration asks for that. `former`: what was told in a life before and was
                neither found since nor told to be over; where nobody watches, all that was told

The alerts themselves are found in plain snapshots (common.watch.snapshot), which is why these are another kind.
"""

import time
from collections.abc import Collection
from typing import Any

from common import alarms
from common.alerts import CRITICAL, Alert
from common.watch.snapshot import Snapshots

_READ_S = 0.5  # between two readings of the file


class Watched(Snapshots):
    """Snapshots with `alerts`."""

    _alerts: dict[str, Any] = {}
    _next_read = 0.0

    def take(self, depth: Collection[str] | None = None) -> dict[str, Any]:
        told = super().take(depth)
        now = time.monotonic()
        if now >= self._next_read:
            self._next_read, self._alerts = now + _READ_S, self._read()
        return {**told, "alerts": self._alerts}

    def _stands(self, name: str) -> str:
        return self.overview.standing(name)

    def _read(self) -> dict[str, Any]:
        config, word = self._own, alarms.told(self._own)
        wanted = config.alerts.enabled and config.monitor.enabled
        watched = wanted and self.overview.ready("monitor")
        firing, former = word.known(watched)
        return {"wanted": wanted, "watched": watched, "firing": _plain(firing), "former": _plain(former)}


def _plain(alerts: list[Alert]) -> list[dict[str, Any]]:
    return [alert._asdict() for alert in sorted(alerts, key=lambda one: (one.severity != CRITICAL, one.since_ns))]
