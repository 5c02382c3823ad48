"""The alerts of a pipeline, from its snapshots to where they are told: the hands of `common.alerts`.

    <state_dir>/alerts.json    what is firing, what a former life told and this one has not found, how telling it goes,
                               and when the monitor was stopped: for `alpha alerts`, and for the next life
"""

import contextlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from common.alert_sink import Sink, payload
from common.alerts import FIRING, Alert, Debounce, Trend, findings
from common.config import Config
from common.errors import AlphaError
from common.recorder import write_whole
from common.watch.health import expected
from common.watch.snapshot import Snapshots

FILE = "alerts.json"
_TURN_NS = 1_000_000_000
_log = logging.getLogger("monitor")


class Word(NamedTuple):
    """What is written down."""

    firing: list[Alert]  #: as of the last look
    former: list[Alert]  #: told by a life before, neither found by this one nor told to be over
    sinks: dict[str, Any]  #: of each its counts
    stopped_ns: int = 0  #: Unix; when the monitor ended in order, 0 while it has not

    def known(self, watched: bool) -> tuple[list[Alert], list[Alert]]:
        """What is firing, and what is former. Where nobody watches any more, all that was told is former."""
        return (self.firing, self.former) if watched else ([], [*self.former, *self.firing])


class Alarms:
    """`turn` looks once a second, however often it is called, and raises nothing. About 2 ms a look; with
    alerts.enabled = false nothing is looked at."""

    def __init__(self, config: Config, clock, sinks: list[Sink]) -> None:
        self._config, self._clock, self._sinks = config, clock, sinks
        self._path = config.state_dir / FILE
        self._snapshots = Snapshots(config)
        self._trend, self._debounce = Trend(config.alerts), Debounce(config.alerts)
        self._next_ns = 0
        self._written: dict[str, Any] = {}
        before = told(config)
        if config.alerts.enabled and (before.firing or before.former):
            self._debounce.restore((*before.former, *before.firing), clock.monotonic_ns() / 1e9, self._begins())
            self._leave_word()

    def turn(self, now_ns: int) -> None:
        if now_ns < self._next_ns or not self._config.alerts.enabled:
            return
        self._next_ns = now_ns + _TURN_NS
        try:
            alerts = self._look(now_ns)
        except Exception:  # of whatever kind: judging goes on, and another look may find it mended
            _log.exception("alerts could not be looked for")
            return
        for alert in alerts:
            _log.log(logging.WARNING if alert.state == FIRING else logging.INFO, "alert %s %s: %s", alert.state,
                     f"{alert.name} {alert.subject}".rstrip(), alert.what,
                     extra={"severity": alert.severity, "value": alert.value, "limit": alert.limit})
            for sink in self._sinks:
                sink.put(payload(alert, self._config.instance.name))
        self._leave_word()

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()
        if self._config.alerts.enabled:
            self._leave_word(self._clock.wall_ns())
        self._snapshots.close()

    def _begins(self) -> bool:
        """Whether the pipeline was stopped since what is written down was true. A monitor that a supervisor started
        again after a crash has taken over the block of the one before it."""
        overview = self._snapshots.overview
        overview.refresh()
        return overview.get("monitor", "starts") < 2

    def _look(self, now_ns: int) -> list[Alert]:
        snapshot, overview = self._snapshots.take(()), self._snapshots.overview
        # Those that were ended in order; and blocks that stages of another configuration left when they were killed.
        wanted = (*expected(self._config), "exchange", "monitor")
        stopped = frozenset(name for name, telemetry in overview.stages.items() if name not in wanted or
                            telemetry.block is not None and telemetry.block.retired)
        starting = frozenset(filter(overview.starting, overview.stages))
        failures = overview.get("monitor", "journal_errors") + overview.refusals().get("JOURNAL_FAILED", 0)
        seen = self._trend.see(snapshot, stopped, failures, now_ns / 1e9, starting)
        return self._debounce.turn(findings(seen, self._config.alerts), now_ns / 1e9, self._clock.wall_ns())

    def _leave_word(self, stopped_ns: int = 0) -> None:
        told = {"firing": [alert._asdict() for alert in self._debounce.firing],
                "former": [alert._asdict() for alert in self._debounce.former],
                "sinks": {sink.name: sink.counts() for sink in self._sinks}, "stopped_ns": stopped_ns}
        if told == self._written:
            return
        self._written = told
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self._path, json.dumps(told, indent=1).encode() + b"\n", 0o600)
        except (AlphaError, OSError) as error:
            _log.error("what is firing cannot be written down: %s", error)


def told(config: Config) -> Word:
    """What was last written down; nothing where there is no file, or none of ours."""
    path: Path = config.state_dir / FILE
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        found = json.loads(path.read_bytes())
        firing, former = ([Alert(**alert) for alert in found.get(key, ())] for key in ("firing", "former"))
        return Word(firing, former, dict(found["sinks"]), int(found.get("stopped_ns", 0)))
    return Word([], [], {})
