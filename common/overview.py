"""The pipeline as one picture, read from the telemetry blocks of its stages; disturbs none of them.

The latency of a station is counted by the executor from the stamps that travelled with each prediction, so
all stations speak of the same ticks; `send` and what follows speak of orders only.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import shm
from common.fixed import SCALE
from common.layout import FLAG_VALID
from common.ring import Books
from common.telemetry import Telemetry, quantiles
from common.watch.process import Usage, usage
from common.wire import LATENCIES

_ALIVE_NS = 2_000_000_000
_START_NS = 300_000_000_000  # that a start may take: the first one on a machine compiles
_REFUSAL = "refusal_"  # begins the name of a reason's counter


class StageState(NamedTuple):
    """How one stage stands now."""

    up: bool  #: its process lives, and gave a sign of life within 2 s
    ready: bool  #: up, and all that it waits for is there: an ingest is connected to its venues
    age_s: float  #: since its last sign of life
    uptime_s: float  #: since its process took over its block; 0 when it is not up
    restarts: int
    usage: Usage | None  #: None where the process has gone
    waiting_for: str


class BookState(NamedTuple):
    """The book of one symbol now. Prices are counts of 1e-8, 0 where a side is empty."""

    valid: bool
    age_s: float | None  #: since the frame of the newest tick was received; None before the first
    ticks: int  #: since the stream began
    bid: int
    ask: int


class Overview:
    """Attaches to stages as they appear. Blocks stay readable here after their stage has gone, so a summary may
    be taken after the stop."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.stages: dict[str, Telemetry] = {}
        self._books: Books | None = None

    def refresh(self) -> None:
        """Find stages that have appeared, or have begun a new block."""
        prefix = shm.block_name(self.instance, "telemetry-")
        for name in shm.leaked(self.instance):
            stage = name.removeprefix(prefix)
            if not name.startswith(prefix) or "." in stage:  # a dot: not published yet
                continue
            known = self.stages.get(stage)
            if known is None or known.block.retired:
                try:
                    self.stages[stage] = Telemetry.attach(self.instance, stage)
                except FileNotFoundError:
                    pass  # it went between the listing and the look

    def get(self, stage: str, counter: str) -> int:
        """A counter of one stage, or summed over all workers where `stage` is "inference"; 0 if absent."""
        return sum(telemetry.get(counter) for name, telemetry in self.stages.items()
                   if (name == stage or name.partition("-")[0] == stage) and counter in telemetry.counters)

    def values(self, stage: str) -> dict[str, int]:
        """All counters of one stage; empty where it never came."""
        telemetry = self.stages.get(stage)
        return telemetry.values() if telemetry else {}

    def ready(self, stage: str) -> bool:
        telemetry = self.stages.get(stage)
        return telemetry is not None and self._state(stage, telemetry).ready

    def started(self, stage: str) -> bool:
        """Whether it is up and does its work, though that may be to connect again and again."""
        telemetry = self.stages.get(stage)
        return telemetry is not None and self._state(stage, telemetry).up and bool(telemetry.get("ready"))

    def starting(self, stage: str) -> bool:
        """Whether it has not done anything yet, and that is no reason to worry: it may be compiling."""
        telemetry = self.stages[stage]
        return not telemetry.get("ready") and time.monotonic_ns() - telemetry.get("started_ns") < _START_NS

    def standing(self, stage: str) -> str:
        """In a word: ready, waiting (for what it needs to start), connecting (to the venue), silent (no sign of life
        for 2 s), gone (its process has ended), absent (it never came). Who compiles at its start is waiting."""
        telemetry = self.stages.get(stage)
        if telemetry is None:
            return "absent"
        state = self._state(stage, telemetry)
        if state.usage is None:
            return "gone"
        if self.starting(stage):
            return "waiting"
        if not state.up:
            return "silent"
        return "ready" if state.ready else "connecting" if telemetry.get("ready") else "waiting"

    def age_s(self, stage: str) -> float:
        """Seconds since the stage last gave a sign of life."""
        return (time.monotonic_ns() - self.stages[stage].get("heartbeat_ns")) / 1e9

    def states(self) -> dict[str, StageState]:
        """Every stage that was ever seen, by name. About 0.1 ms each."""
        return {name: self._state(name, telemetry) for name, telemetry in sorted(self.stages.items())}

    def _state(self, name: str, telemetry: Telemetry) -> StageState:
        age_s, started_ns = self.age_s(name), telemetry.get("started_ns")
        found = None
        retired = telemetry.block is not None and telemetry.block.retired
        if not retired and telemetry.get("pid"):
            found = usage(telemetry.get("pid"), started_ns)
        up = found is not None and age_s < _ALIVE_NS / 1e9
        connected = "connected" not in telemetry.counters or telemetry.get("connected")
        return StageState(up, up and bool(telemetry.get("ready") and connected), age_s,
                          (time.monotonic_ns() - started_ns) / 1e9 if up else 0.0,
                          max(0, telemetry.get("starts") - 1), found, telemetry.told().get("waiting_for") or "")

    def books(self) -> Books | None:
        """The books ring; None before there was one. After the stop it is the last one, and says `retired`. Raises
        LayoutError where it is of another version."""
        if self._books is None or self._books.retired:
            try:
                self._books = Books.attach(self.instance)
            except FileNotFoundError:
                pass  # ingest has not begun, or has gone
        return self._books

    def tops(self) -> dict[str, BookState]:
        """The book of every symbol in the ring, by name. Of a ring that has gone no book is valid. About 2 us each."""
        books = self.books()
        if books is None:
            return {}
        now, gone, found = time.monotonic_ns(), books.retired, {}
        for index, symbol in enumerate(books.symbols):
            top = books.top(index) or books.top(index)  # the writer may have come by in between
            found[symbol] = BookState(False, None, 0, 0, 0) if top is None else BookState(
                bool(top.flags & FLAG_VALID) and not gone, max(0, now - top.recv_ns) / 1e9, top.seq, top.bid, top.ask)
        return found

    def models(self) -> list[Path]:
        """Every model that workers have in use, as they tell: those that trade first."""
        told = [telemetry.told().get("deployment") or {} for name, telemetry in sorted(self.stages.items())
                if name.startswith("inference-") and self.ready(name)]
        pairs = [words.get("pair") for words in told]
        refs = [pair[place] for place in (0, 1) for pair in pairs if pair]
        return list(dict.fromkeys(Path(ref[0]) for ref in refs if ref))

    def histograms(self) -> dict[str, np.ndarray]:
        """Copies of the latency histograms, to measure an interval from."""
        executor = self.stages.get("executor")
        if executor is None:
            return {}
        return {name: executor.histogram(name) for name in LATENCIES if name in executor.timers}

    def latency_us(self, since: dict[str, np.ndarray] | None = None) -> dict[str, dict[str, float]]:
        """p50, p99 and p999 per station in microseconds, and the count behind them."""
        found = {}
        for name, buckets in self.histograms().items():
            lately = buckets - since[name] if since and name in since else buckets
            measured = quantiles(buckets if (lately < 0).any() else lately)  # an executor that began anew
            found[name] = {key: value if key == "count" else value / 1000 for key, value in measured.items()}
        return found

    def refusals(self) -> dict[str, int]:
        """Refused decisions by reason."""
        executor = self.stages.get("executor")
        if executor is None:
            return {}
        return {name.removeprefix(_REFUSAL).upper(): value for name, value in executor.values().items()
                if name.startswith(_REFUSAL) and value}

    def recent_refusals(self) -> list[dict[str, Any]]:
        """The last refusals of the executor, oldest first: `at_ns` (Unix), `symbol` by its name, or by its index where
        the books ring is not there to name it, `reason`, and the `value` that was found with the `limit` it met, as
        the checks count them: money, prices and quantities by 1e-8, times in ns (common.risk). About 0.1 ms."""
        executor = self.stages.get("executor")
        if executor is None:
            return []
        symbols, offset = self._symbols(), time.time_ns() - time.monotonic_ns()
        return [{"at_ns": note.at_ns + offset,
                 "symbol": symbols[note.symbol] if note.symbol < len(symbols) else note.symbol,
                 "reason": note.counter.removeprefix(_REFUSAL).upper(), "value": note.value, "limit": note.limit}
                for note in executor.notes()]

    def _symbols(self) -> tuple[str, ...]:
        """Of the books ring, by their index; none where no ring has been there."""
        if self._books is None or self._books.retired:
            try:
                self._books = Books.attach(self.instance)
            except FileNotFoundError:
                pass
        return self._books.symbols if self._books else ()

    def judged(self) -> dict[str, Any]:
        """How many predictions were `judged`, and what the monitor last told of the `models` and of the `challenger`
        against the one that trades: an empty list and None where nothing is judged."""
        monitor = self.stages.get("monitor")
        told = monitor.told() if monitor else {}
        return {"judged": self.get("monitor", "judged"), "models": told.get("models", []),
                "challenger": told.get("challenger")}

    def numbers(self) -> dict[str, Any]:
        """The counts that people ask for. Money in the quote currency, position as net notional at cost."""
        get = self.get
        pnl = (get("executor", "realised") + get("executor", "unrealised") - get("executor", "fees")) / SCALE
        return {
            "frames": get("ingest", "frames"), "ticks": get("ingest", "ticks"), "gaps": get("ingest", "gaps"),
            "malformed": get("ingest", "malformed"), "reconnects": max(0, get("ingest", "connects") - 1),
            "quote_checks": get("ingest", "quote_checks"), "quote_mismatches": get("ingest", "quote_mismatches"),
            "rows": get("feature", "rows"), "dispatched": get("feature", "dispatched"),
            "skipped": get("feature", "skipped"), "lost": get("feature", "lost"),
            "predictions": get("inference", "predictions"), "invalid": get("inference", "invalid"),
            "superseded": get("executor", "superseded"), "watched": get("executor", "watched"),
            "decisions": get("executor", "decisions"),
            "orders": get("executor", "orders"), "fills": get("executor", "fills"),
            "position": get("executor", "position") / SCALE, "realised": get("executor", "realised") / SCALE,
            "unrealised": get("executor", "unrealised") / SCALE, "fees": get("executor", "fees") / SCALE,
            "pnl": pnl, "halted": bool(get("executor", "halted")),
            "restarts": sum(max(0, telemetry.get("starts") - 1) for telemetry in self.stages.values()),
            "errors": sum(telemetry.get("errors") for telemetry in self.stages.values()),
        }

    def summary(self) -> dict[str, Any]:
        """Everything but what was judged; `refusals` by reason."""
        return {**self.numbers(), "refusals": self.refusals(), "latency_us": self.latency_us()}


def words(told: dict[str, Any]) -> list[str]:
    """What `judged` told, a line for each model and one for the comparison."""
    lines = []
    for model in told["models"]:
        line = f"{model['role']:<6} {model['name']} {model['id']}  judged {model['known']:,}"
        if model["brier"] is not None:
            line += (f"  Brier {model['brier']:.4f} (base rate {model['brier_base']:.4f})  ECE {model['ece']:.3f}"
                     f"  hits {model['hit_rate']:.1%}")
        drift = model["drift"]
        if drift is None:
            line += "  drift not measured"
        elif drift["shifted"] is None:
            line += f"  drift: too few rows yet ({drift['rows']:,})"
        else:
            column, psi, _ = drift["worst"][0]
            line += f"  drift: {drift['shifted']} columns shifted, most {column} (PSI {psi:.2f})"
        lines.append(line)
    if told["challenger"]:
        lines.append(f"challenger: {told['challenger']['verdict']}")
    return lines
