"""The pipeline's telemetry in the formats that Prometheus scrapes.

What each counter and timer of each stage is, stands here and nowhere else (`STAGES`, `TIMERS`): its name in telemetry,
what it means, its kind and its unit. The name of its metric follows from that:

    executor, "decisions", counter            alpha_executor_decisions_total
    executor, "day_loss", gauge in quote      alpha_executor_day_loss_quote
    executor, "refusal_book_stale"            alpha_executor_refusals_total{reason="BOOK_STALE"}

Base units: seconds, bytes, quote currency (not counts of 1e-8). Labels: `stage` and `worker` (of which there may be
several: ingest and inference), `symbol`, `reason`, `model` with its `id` and `role`; never the id of an order. A
counter counts on through `kill -9` of its stage, since its block survives; after an orderly stop and a new start it
begins at 0, which is what Prometheus calls a reset. Of a stage that has gone the last values stay.

Histograms have the bounds 2^k and 1.5 * 2^k ns, each less 1 ns: there a bucket of `common.telemetry` ends, so every
count is exact, none is interpolated. `_sum` takes each duration for the middle of its bucket: exact below 64 ns,
within 1/64 of the truth above.

Read from shared memory, /proc and the journal alone: no stage notices a scrape.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import floatToGoString

from common.config import Config
from common.fixed import SCALE
from common.overview import BookState, Overview
from common.positions import MONEY, Position
from common.telemetry import Telemetry, bucket_of, middle_of
from common.watch.health import expected

COUNTER, GAUGE, HISTOGRAM, INFO, INTERNAL = "counter", "gauge", "histogram", "info", "internal"
PREFIX = "alpha"
#: bounds of every histogram in ns: 1 us to 6 s
BOUNDS_NS = tuple(bound - 1 for power in range(10, 33) for bound in (1 << power, 3 << power - 1))


class Declared(NamedTuple):
    """What one counter of a stage is."""

    kind: str  #: COUNTER, GAUGE, or INTERNAL: then `help` says where it is shown instead
    help: str
    unit: str = ""  #: the last part of a gauge's name
    scale: int = 1  #: counts in one unit
    name: str = ""  #: of the metric, without prefix and suffix, where it is not the counter's own


def _counter(help: str, name: str = "") -> Declared:
    return Declared(COUNTER, help, name=name)


def _gauge(help: str, name: str = "") -> Declared:
    return Declared(GAUGE, help, name=name)


def _money(help: str, name: str = "") -> Declared:
    return Declared(GAUGE, f"{help}, in quote currency", "quote", SCALE, name)


def _internal(where: str) -> Declared:
    return Declared(INTERNAL, where)


#: of every stage
STANDARD = {
    "pid": _internal("alpha_process_*"),
    "starts": _internal("alpha_stage_restarts_total"),
    "started_ns": _internal("alpha_stage_uptime_seconds"),
    "heartbeat_ns": _internal("alpha_stage_heartbeat_age_seconds"),
    "ready": _internal("alpha_stage_ready"),
    "errors": _internal("alpha_stage_errors_total"),
}

#: stage -> counter in telemetry -> what it is; "x_*" is one metric, whose label `reason` is the rest
STAGES: dict[str, dict[str, Declared]] = {
    "exchange": {
        "clients": _gauge("Clients of the loopback exchange that are connected"),
        "frames": _counter("Frames sent to clients"),
        "orders": _counter("Orders taken"),
        "fills": _counter("Fills of orders"),
        "rejected": _counter("Orders rejected"),
        "duplicates": _counter("Orders that came again under a client order id, and were answered as the first"),
        "dropped": _counter("Clients cut off because they did not read"),
        "faults": _counter("Faults let loose on request"),
    },
    "ingest": {
        "frames": _counter("Frames received from the venue"),
        "ticks": _counter("Ticks written into the books ring"),
        "trades": _counter("Trades among the ticks"),
        "quotes": _counter("Best quotes of the venue's own received"),
        "snapshots": _counter("Snapshots of books loaded"),
        "gaps": _counter("Holes in the sequence of a symbol: its book was synchronised anew"),
        "crossed": _counter("Books whose bid was above their ask"),
        "resyncs": _counter("Books made valid again"),
        "malformed": _counter("Frames and snapshots refused"),
        "ignored": _counter("Events without effect: older than the book, not asked for, or while it was not valid"),
        "venue_errors": _counter("Error messages from the venue"),
        "quote_checks": _counter("Quotes of the venue compared with the book"),
        "quote_mismatches": _counter("Quotes of the venue that contradicted the book"),
        "checksums": _counter("Checksums of the venue compared with the book"),
        "checksum_mismatches": _counter("Checksums of the venue that contradicted the book"),
        "lost": _counter("Holes in the venue's own numbering of what it sends"),
        "stale": _counter("Books given up because nothing had changed them for too long"),
        "handovers": _counter("Hand-overs to a younger connection"),
        "clock_jumps": _counter("Jumps of the venue's time against ours of more than ten seconds"),
        "connects": _counter("Connections that opened"),
        "connect_failures": _counter("Connections that did not open"),
        "disconnects": _counter("Open connections that ended"),
        "snapshot_failures": _counter("Requests that brought no snapshot"),
        "refs": _counter("Doorbells sent to feature"),
        "refs_dropped": _counter("Doorbells that feature did not take; the ring holds what they announced"),
        "connected": _gauge("1 while every feed of this process is connected"),
        "valid_symbols": _gauge("Symbols whose book is valid"),
    },
    "feature": {
        "refs": _counter("Doorbells received from ingest"),
        "rows": _counter("Rows written, one for each tick"),
        "warm_rows": _counter("Rows with a whole warm window behind them"),
        "invalid": _counter("Rows that workers gave back without a prediction"),
        "offered": _counter("Rows offered to workers"),
        "dispatched": _counter("Rows handed to workers"),
        "skipped": _counter("Rows passed over for a newer one of their symbol"),
        "done": _counter("Rows that workers were done with"),
        "lost": _counter("Rows lost with the worker that held them"),
        "waiting": _gauge("Rows that wait for a worker", "waiting_rows"),
        "under_lease": _gauge("Rows in the hands of workers", "leased_rows"),
        "workers_seen": _counter("Worker processes that reported for work"),
        "leases_expired": _counter("Leases that ran out: a worker died or hung"),
        "send_refused": _counter("Messages to workers that could not be sent"),
        "stale_refs": _counter("Doorbells of another stream of ticks"),
        "malformed": _counter("Messages that were not understood"),
        "lapped": _counter("Ticks overwritten before they were read"),
        "rings": _counter("Rows rings made for the columns of a deployed model"),
    },
    "inference": {
        "work": _counter("Items of work taken"),
        "rows": _counter("Rows asked for"),
        "predictions": _counter("Predictions made"),
        "invalid": _counter("Rows that were gone, or were overwritten while they were used"),
        "cold": _counter("Rows whose window was not warm"),
        "model_errors": _counter("Rows on which the model failed, or answered nonsense"),
        "stale_refs": _counter("Work on another stream of ticks"),
        "batches": _counter("Runs of several rows"),
        "predictions_refused": _counter("Predictions that could not be sent"),
        "credits_refused": _counter("Credits that could not be sent"),
        "swaps": _counter("Models taken over from"),
        "shadow_predictions": _counter("Predictions of the challenger"),
        "shadow_skipped": _counter("Rows that the challenger had no time for"),
        "shadow_invalid": _counter("Rows that were gone when the challenger came to them"),
        "shadow_errors": _counter("Rows on which the challenger failed, or answered nonsense"),
        "judged": _counter("Predictions told to the monitor"),
        "judged_refused": _counter("Predictions that the monitor did not take"),
        "fresh_errors": _gauge("As model_errors, since the model in use came"),
        "fresh_shadow_errors": _gauge("As shadow_errors, since the models in use came"),
    },
    "executor": {
        "predictions": _counter("Predictions received"),
        "superseded": _counter("Predictions passed over for a newer one of their symbol"),
        "watched": _counter("Decisions that the clock asked for, whether what is held is to be left"),
        "decisions": _counter("Decisions: orders and refusals"),
        "orders": _counter("Orders that left"),
        "acks": _counter("Orders that the venue acknowledged"),
        "fills": _counter("Fills"),
        "cancels": _counter("Orders that ended unfilled, or not wholly filled"),
        "rejects": _counter("Orders that the venue rejected, or that never arrived"),
        "unknowns": _counter("Orders whose outcome was not known for a while"),
        "refusals": _internal("sum of alpha_executor_refusals_total"),
        "refusal_*": _counter("Decisions against an order, by reason", "refusals"),
        "exit_*": _counter("Orders that leave a position, by reason", "exits"),
        "position": _money("Net notional of all positions, at cost"),
        "exposure": _money("Gross notional over all symbols, open orders included"),
        "realised": _money("Realised profit before fees, over the life of the journal"),
        "unrealised": _money("Unrealised profit before fees"),
        "fees": _money("Fees, over the life of the journal"),
        "day_loss": _money("Loss of the day, realised and unrealised, after fees; below 0 a profit"),
        "drawdown": _money("How far profit stands below the day's best"),
        "working": _gauge("Orders that are not at their end", "working_orders"),
        "unresolved": _gauge("Orders whose outcome is not known", "unresolved_orders"),
        "halted": _gauge("1 while nothing may trade, until a person resumes"),
        "armed": _gauge("1 where orders may leave: always, but for a live venue that is not armed"),
        "reconciled": _gauge("1 once positions agree with the venue's"),
        "reducing": _gauge("1 while only orders leave that shrink a position, 2 while positions are left"),
    },
    "monitor": {
        "received": _counter("Predictions taken in"),
        "judged": _counter("Predictions whose outcome is known"),
        "unmoved": _counter("Predictions after which the mid stood where it had been"),
        "lost": _counter("Predictions whose outcome will not be known"),
        "pending": _gauge("Predictions whose outcome is not known yet"),
        "thinned": _counter("Predictions passed over by sampling"),
        "unknown_model": _counter("Predictions of a model that is not known", "unknown_models"),
        "drift_rows": _counter("Rows compared with the training rows"),
        "drift_missed": _counter("Rows that were gone when they were to be compared"),
        "journaled": _counter("Judged predictions written down"),
        "journal_errors": _counter("Attempts to write judged predictions down that failed"),
        "page_clients": _gauge("Pages that are open"),
        "page_snapshots": _counter("Snapshots taken for pages"),
        "page_skipped": _counter("Snapshots that a page did not get, because a newer one was there"),
        "page_requests": _counter("Requests to the server of the page"),
        "page_denied": _counter("Requests and controls that were refused: by name, origin, or for want of the token"),
        "page_errors": _counter("Errors of the page's server"),
    },
}

#: stage -> timer in telemetry -> name of the histogram, its label `stage` or "", what it measures
TIMERS: dict[str, dict[str, tuple[str, str, str]]] = {
    "ingest": {"book": ("ingest_book_seconds", "", "Frame received to book updated"),
               "ref": ("ingest_ref_seconds", "", "Frame received to its doorbell sent")},
    "feature": {"feature": ("feature_turn_seconds", "", "Doorbell heard to work handed out")},
    "inference": {"inference": ("inference_run_seconds", "", "One run of the model that trades"),
                  "shadow": ("inference_shadow_run_seconds", "", "One run of the challenger")},
    "executor": {
        **{name: ("stage_latency_seconds", name, "Time of a decided tick, or of its order, between two stations")
           for name in ("ingest", "feature", "dispatch", "queue", "inference", "decide", "send", "ack")},
        "tick_to_decision": ("tick_to_decision_seconds", "", "Frame received to decision made"),
        "tick_to_order": ("tick_to_order_seconds", "", "Frame received to order sent"),
    },
}


#: what is shown beside counters and timers: name -> kind, what it means
OTHERS: dict[str, tuple[str, str]] = {
    "stage_up": (GAUGE, "1 while the process lives and gave a sign of life within 2 s"),
    "stage_ready": (GAUGE, "1 while it is up and has all it waits for"),
    "stage_heartbeat_age_seconds": (GAUGE, "Since the last sign of life"),
    "stage_uptime_seconds": (GAUGE, "Since the process began; 0 while it is not up"),
    "stage_restarts": (COUNTER, "Starts after the first"),
    "stage_errors": (COUNTER, "Errors that are none of the venue's"),
    "process_resident_memory_bytes": (GAUGE, "Resident memory, touched shared memory included"),
    "process_cpu_seconds": (COUNTER, "Processor time of all threads, user and kernel mode"),
    "model": (INFO, "What each worker predicts with"),
    "book_valid": (GAUGE, "1 while the book agrees with the venue"),
    "book_ticks": (COUNTER, "Ticks since the stream began"),
    "book_age_seconds": (GAUGE, "Since the newest tick was received"),
    "book_mid_price_quote": (GAUGE, "Middle of the best prices"),
    "book_spread_quote": (GAUGE, "Best ask less best bid"),
    # By the journal, of every symbol that was ever held.
    "position_quantity": (GAUGE, "What is held, below 0 if sold short"),
    "position_cost_quote": (GAUGE, "What that has cost, below 0 if sold short"),
    "position_unrealised_quote": (GAUGE, "Profit if it were left at the mid of a valid book, before fees"),
    "position_realised_quote": (GAUGE, "Realised profit before fees, over the life of the journal"),
    "position_fees_quote": (GAUGE, "Fees, over the life of the journal"),
    # As the monitor last told, of one life of it.
    "model_judged": (COUNTER, "Predictions whose outcome is known"),
    "model_brier_score": (GAUGE, "Mean squared error of its probabilities; lower is better"),
    "model_brier_base_score": (GAUGE, "The same of one who always says the base rate"),
    "model_recent_brier_score": (GAUGE, "As model_brier_score, of the last 1,000 outcomes"),
    "model_recent_brier_base_score": (GAUGE, "As model_brier_base_score, of the last 1,000 outcomes"),
    "model_log_loss": (GAUGE, "Mean negative logarithm of the probability of what happened"),
    "model_calibration_error": (GAUGE, "Expected calibration error"),
    "model_hit_ratio": (GAUGE, "Share of moves whose direction was foretold"),
    "model_information_coefficient": (GAUGE, "Correlation of its leaning with the move"),
    "model_drift_rows": (GAUGE, "Rows that drift is judged by"),
    "model_drift_shifted_columns": (GAUGE, "Columns whose population stability index is above 0.1"),
    "model_drift_changed_columns": (GAUGE, "Columns whose population stability index is above 0.25"),
    "model_drift_worst_psi": (GAUGE, "Population stability index of the column that shifted most"),
    "challenger_rows": (GAUGE, "Rows that both models predicted"),
    "challenger_gain": (GAUGE, "Brier score of the champion less the challenger's: above 0 the challenger is better"),
    "challenger_gain_standard_error": (GAUGE, "Standard error of challenger_gain"),
    # What alerts compare with.
    "risk_daily_loss_limit_quote": (GAUGE, "Loss of a day above which the executor halts"),
    "risk_drawdown_limit_quote": (GAUGE, "Drawdown above which the executor halts; infinite: there is none"),
    "risk_gross_limit_quote": (GAUGE, "Gross notional above which no order leaves"),
    "risk_book_age_limit_seconds": (GAUGE, "Age of a book above which no order leaves"),
    "risk_data_age_limit_seconds": (GAUGE, "Age of the data behind a decision above which no order leaves"),
}
#: metric -> what the monitor calls it in its report of a model
_JUDGED = {"model_brier_score": "brier", "model_brier_base_score": "brier_base",
           "model_recent_brier_score": "brier_recent", "model_recent_brier_base_score": "brier_base_recent",
           "model_log_loss": "log_loss", "model_calibration_error": "ece", "model_hit_ratio": "hit_rate",
           "model_information_coefficient": "ic"}


def split(name: str) -> tuple[str, dict[str, str]]:
    """A stage by the name of its process, and its label `worker` where there may be several."""
    stage, _, number = name.partition("-")
    return stage, {"worker": number or "0"} if stage in ("ingest", "inference") else {}


def declared(stage: str, counter: str) -> tuple[Declared, dict[str, str]] | None:
    """What a counter is, and the labels that its name gives it; None where it is not declared."""
    table = STAGES.get(stage, {})
    found = STANDARD.get(counter) or table.get(counter)
    if found is not None:
        return found, {}
    found = table.get(f"{counter.partition('_')[0]}_*")
    return (found, {"reason": counter.removeprefix("refusal_").upper()}) if found else None


def content_type(accept: str = "") -> str:
    """Of what `exposition` gives to one who sends this Accept header."""
    return choose_encoder(accept)[1]


def exposition(overview: Overview, config: Config | None = None, accept: str = "",
               positions: Mapping[str, Position] | None = None) -> bytes:
    """Everything that is known now: the text format of Prometheus, or OpenMetrics if `accept` asks for it. Refresh the
    overview before. With `config` also what it expects: stages that never came, and the limits; with `positions` what
    is held of each symbol (`Snapshots.positions`)."""
    return choose_encoder(accept)[0](_Now(overview, config, positions or {}))


def metric_of(stage: str, counter: str, what: Declared) -> str:
    """The name of the metric of a counter, without prefix and `_total`."""
    return "_".join(filter(None, (stage, what.name or counter, what.unit)))


def _families() -> dict[str, tuple[str, str]]:
    """Every metric there can be: name without prefix and suffix -> kind, what it means."""
    found = dict(OTHERS)
    for stage, table in STAGES.items():
        found |= {metric_of(stage, counter, what): (what.kind, what.help) for counter, what in table.items()
                  if what.kind != INTERNAL}
    for timers in TIMERS.values():
        found |= {metric: (HISTOGRAM, help) for metric, _, help in timers.values()}
    return found


FAMILIES = _families()
_SUFFIX = {COUNTER: "_total", GAUGE: "", INFO: "_info"}


class _Now:
    """What an encoder asks for the families of metrics; made anew for each scrape, so nothing is registered."""

    def __init__(self, overview: Overview, config: Config | None, positions: Mapping[str, Position]) -> None:
        self._overview, self._config, self._positions = overview, config, positions
        self._families = {name: Family(f"{PREFIX}_{name}", help, kind) for name, (kind, help) in FAMILIES.items()}

    def collect(self) -> Iterable[Family]:
        self._stages()
        for name, telemetry in sorted(self._overview.stages.items()):
            self._counters(name, telemetry)
            self._timers(name, telemetry)
            self._models_in_use(name, telemetry)
        self._books()
        self._judged()
        if self._config is not None:
            self._limits(self._config)
        return self._families.values()

    def _add(self, name: str, labels: dict[str, str], value: float | None) -> None:
        """A sample, unless there is no value."""
        if value is not None:
            family = self._families[name]
            family.add_sample(family.name + _SUFFIX[family.type], labels, float(value))

    def _stages(self) -> None:
        states = self._overview.states()
        absent = [name for name in (expected(self._config) if self._config else ()) if name not in states]
        for name in (*states, *absent):
            stage, labels = split(name)
            labels, state = {"stage": stage, **labels}, states.get(name)
            self._add("stage_up", labels, state is not None and state.up)
            self._add("stage_ready", labels, state is not None and state.ready)
            if state is None:
                continue
            self._add("stage_heartbeat_age_seconds", labels, state.age_s)
            self._add("stage_uptime_seconds", labels, state.uptime_s)
            self._add("stage_restarts", labels, state.restarts)
            self._add("stage_errors", labels, self._overview.stages[name].get("errors"))
            if state.usage is not None:
                self._add("process_resident_memory_bytes", labels, state.usage.memory_bytes)
                self._add("process_cpu_seconds", labels, state.usage.cpu_s)

    def _counters(self, name: str, telemetry: Telemetry) -> None:
        stage, worker = split(name)
        for counter, value in telemetry.values().items():
            found = declared(stage, counter)
            if found is not None and found[0].kind != INTERNAL:
                what, labels = found
                self._add(metric_of(stage, counter, what), {**worker, **labels}, value / what.scale)

    def _timers(self, name: str, telemetry: Telemetry) -> None:
        stage, worker = split(name)
        for timer in telemetry.timers:
            if timer not in TIMERS.get(stage, {}):
                continue
            metric, station, _ = TIMERS[stage][timer]
            labels = {**worker, "stage": station} if station else worker
            counts = telemetry.histogram(timer)
            below = np.cumsum(counts)
            family = self._families[metric]
            for text, upto in zip(_BOUND_TEXTS, [*below[_LAST_BUCKETS].tolist(), int(below[-1])]):
                family.add_sample(f"{family.name}_bucket", {**labels, "le": text}, upto)
            family.add_sample(f"{family.name}_count", labels, int(below[-1]))
            family.add_sample(f"{family.name}_sum", labels, float(counts @ _MIDDLES) / 1e9)

    def _models_in_use(self, name: str, telemetry: Telemetry) -> None:
        stage, labels = split(name)
        if stage != "inference":
            return
        told = telemetry.told()
        for role, model, number in (("live", "model", "model_id"), ("shadow", "shadow", "shadow_id")):
            if told.get(model):
                self._add("model", {**labels, "model": told[model], "id": told.get(number, ""), "role": role,
                                    "provider": told.get("provider", "")}, 1)

    def _books(self) -> None:
        tops = self._overview.tops()
        for symbol, held in self._positions.items():
            self._held({"symbol": symbol}, held, tops.get(symbol))
        for symbol, top in tops.items():
            labels = {"symbol": symbol}
            self._add("book_valid", labels, top.valid)
            self._add("book_ticks", labels, top.ticks)
            self._add("book_age_seconds", labels, top.age_s)
            if top.bid and top.ask:
                self._add("book_mid_price_quote", labels, (top.bid + top.ask) / 2 / SCALE)
                self._add("book_spread_quote", labels, (top.ask - top.bid) / SCALE)

    def _held(self, labels: dict[str, str], held: Position, top: BookState | None) -> None:
        self._add("position_quantity", labels, held.qty / SCALE)
        self._add("position_cost_quote", labels, held.cost / MONEY)
        if not held.qty or top is not None and top.valid and 0 < top.bid < top.ask:
            mid = (top.bid + top.ask) // 2 if held.qty else 0
            self._add("position_unrealised_quote", labels, held.unrealised(mid) / MONEY)
        self._add("position_realised_quote", labels, held.realised / MONEY)
        self._add("position_fees_quote", labels, held.fees / SCALE)

    def _judged(self) -> None:
        told = self._overview.judged()
        for model in told["models"]:
            labels = {"model": model["name"], "id": model["id"], "role": model["role"]}
            self._add("model_judged", labels, model["known"])
            for metric, key in _JUDGED.items():
                self._add(metric, labels, model.get(key))
            drift = model.get("drift") or {}
            for metric, key in (("model_drift_rows", "rows"), ("model_drift_shifted_columns", "shifted"),
                                ("model_drift_changed_columns", "changed")):
                self._add(metric, labels, drift.get(key))
            for _, psi, _ in drift.get("worst", ())[:1]:
                self._add("model_drift_worst_psi", labels, psi)
        challenger = told["challenger"] or {}
        for metric, key in (("challenger_rows", "rows"), ("challenger_gain", "gain"),
                            ("challenger_gain_standard_error", "standard_error")):
            self._add(metric, {}, challenger.get(key))

    def _limits(self, config: Config) -> None:
        risk = config.risk
        self._add("risk_daily_loss_limit_quote", {}, risk.max_daily_loss)
        self._add("risk_drawdown_limit_quote", {}, risk.max_drawdown or math.inf)
        self._add("risk_gross_limit_quote", {}, risk.max_gross_notional)
        self._add("risk_book_age_limit_seconds", {}, risk.max_book_age_ms / 1000)
        self._add("risk_data_age_limit_seconds", {}, risk.max_age_ms / 1000)


_BOUND_TEXTS = (*(floatToGoString(bound / 1e9) for bound in BOUNDS_NS), "+Inf")
_LAST_BUCKETS = np.array([bucket_of(bound) for bound in BOUNDS_NS])  # each ends at its bound
_MIDDLES = np.array([middle_of(bucket) for bucket in range(len(Telemetry.private("", (), ("any",)).histogram("any")))],
                    np.float64)
