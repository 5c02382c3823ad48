"""Ours, as the benchmark sees it: the real stages as real processes, read through their telemetry.

Started one by one and not under supervisord, so that what is measured is the stages; an instance, a run folder and
a journal of its own; orders go to the paper book.
"""

from typing import Any

from common.overview import Overview
from procs.bench.bed import Bed, config_of, cpu_s, instance_of, settled

#: counters that must stay at rest while nothing is lost
LOSSES = (("feature", "skipped"), ("feature", "lost"), ("feature", "lapped"), ("inference", "invalid"),
          ("inference", "stale_refs"), ("inference", "predictions_refused"), ("ingest", "gaps"),
          ("ingest", "malformed"), ("executor", "errors"))


class Ours:
    """Ingest, feature, workers and executor, connected to a source."""

    name = "ours"

    def __init__(self, bed: Bed, url: str, environment: dict[str, str]) -> None:
        self._bed = bed
        environment = {**environment, "ALPHA_MARKET__WS_URL": url}
        self.environment = environment
        config = config_of(environment)
        workers = range(config.inference.workers)
        self.stations = ["ingest", "feature", *(f"inference-{k}" for k in workers), "executor"]
        commands = [["ingest"], ["feature"], *(["inference", "--worker", str(k)] for k in workers), ["executor"]]
        self.overview = Overview(instance_of(environment))
        self.processes = [bed.spawn("procs.cli", *command, environment=environment) for command in commands]

    def ready(self) -> None:
        def all_ready() -> bool:
            self.overview.refresh()
            return all(self.overview.ready(stage) for stage in self.stations)

        self._bed.until(all_ready, "the start of the stages")
        self._bed.until(lambda: self.get("ingest", "valid_symbols") and self.get("feature", "workers_seen"),
                        "valid books and known workers")

    @property
    def telemetry(self):
        return self.overview.stages["executor"]

    def get(self, stage: str, counter: str) -> int:
        return self.overview.get(stage, counter)

    def counts(self) -> dict[str, int]:
        """What the way of a tick counts, station by station."""
        get = self.get
        return {"ticks": get("ingest", "ticks"), "rows": get("feature", "rows"),
                "warm": get("feature", "warm_rows"), "offered": get("feature", "offered"),
                "dispatched": get("feature", "dispatched"), "skipped": get("feature", "skipped"),
                "waiting": get("feature", "waiting"), "predictions": get("inference", "predictions"),
                "decisions": get("executor", "decisions") - get("executor", "watched"),  # of predictions
                "superseded": get("executor", "superseded"),
                "losses": sum(get(stage, counter) for stage, counter in LOSSES)}

    def settle(self) -> tuple[dict[str, int], float]:
        """Counts once nothing moves any more, and after how many seconds the last change was seen."""
        return settled(self.counts)

    def in_force(self) -> dict[str, Any]:
        """What the stages say of their placement."""
        told = {name: telemetry.told() for name, telemetry in self.overview.stages.items()}
        return {"cores": {name: words.get("cores") for name, words in told.items()},
                "kept_awake": all(words.get("kept_awake") for words in told.values()),
                "collector_frozen": all(words.get("collector_frozen") for words in told.values())}

    def stop(self) -> None:
        self._bed.stop(self.processes)


def cpu_us_per_tick(system: Any, before: list[float], ticks: int) -> dict[str, float]:
    """Processor time of each process since `before`, per tick."""
    used = [now - then for now, then in zip(cpu_s(system.processes), before)]
    return {name: round(seconds / max(ticks, 1) * 1e6, 1) for name, seconds in zip(system.stations, used)}
