"""Metrics: every counter of every stage is declared, and the exposition says what telemetry holds."""

import dataclasses
import importlib
import math
import os
import time
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from common.config import Config, Inference, Risk
from common.fixed import SCALE
from common.orders import BUY, SELL
from common.overview import Overview
from common.positions import Position
from common.ring import Books
from common.telemetry import STANDARD, Telemetry
from common.watch import metrics
from tests.ticks import write_top

MODULES = {stage: importlib.import_module(f"procs.{stage}") for stage in metrics.STAGES}
COUNTERS = [(stage, counter) for stage, module in MODULES.items() for counter in (*STANDARD, *module.COUNTERS)]
TIMERS = [(stage, timer) for stage, module in MODULES.items() for timer in getattr(module, "TIMERS", ())]


@pytest.mark.parametrize("stage, counter", COUNTERS)
def test_every_counter_of_every_stage_is_declared(stage, counter):
    found = metrics.declared(stage, counter)
    assert found is not None, f"say in common.watch.metrics.STAGES what {counter} of {stage} is, or that it is internal"
    what, labels = found
    assert what.kind in (metrics.COUNTER, metrics.GAUGE, metrics.INTERNAL) and what.help
    assert set(labels) <= {"reason"}


@pytest.mark.parametrize("stage, timer", TIMERS)
def test_every_timer_of_every_stage_is_declared(stage, timer):
    name, _, help = metrics.TIMERS[stage][timer]
    assert name.endswith("_seconds") and help


def test_nothing_is_declared_that_no_stage_has():
    for stage, table in metrics.STAGES.items():
        for counter in table:
            prefix = counter.removesuffix("*")
            assert any(name == counter or counter.endswith("*") and name.startswith(prefix)
                       for name in MODULES[stage].COUNTERS), f"{stage}: {counter}"
    assert {(stage, timer) for stage, table in metrics.TIMERS.items() for timer in table} == set(TIMERS)
    assert set(metrics.STANDARD) == set(STANDARD)


@pytest.fixture
def pipeline(instance):
    """Makes stages with everything that the real ones have; they are removed at the end."""
    made: list[Telemetry] = []

    def make(name: str) -> Telemetry:
        module = MODULES[name.partition("-")[0]]
        made.append(Telemetry.create(instance, name, module.COUNTERS, getattr(module, "TIMERS", ())))
        return made[-1]

    yield make
    for telemetry in made:
        telemetry.close()


def scrape(overview: Overview, config: Config | None = None,
           positions: Mapping[str, Position] | None = None) -> dict[tuple[str, frozenset], float]:
    """(name without prefix, labels) -> value; a series that comes twice is an error."""
    overview.refresh()
    found: dict[tuple[str, frozenset], float] = {}
    for family in text_string_to_metric_families(metrics.exposition(overview, config, positions=positions).decode()):
        for sample in family.samples:
            key = sample.name.removeprefix("alpha_"), frozenset(sample.labels.items())
            assert sample.name.startswith("alpha_") and key not in found
            found[key] = sample.value
    return found


def of(found: dict, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_counters_are_told_in_base_units_under_their_names(instance, pipeline):
    executor, second = pipeline("executor"), pipeline("ingest-1")
    pipeline("inference-0").add("predictions", 4)
    executor.add("decisions", 9)
    executor.add("refusal_book_stale", 2)
    executor.add("exit_stop", 1)
    executor.set("fees", 12_345_678)
    executor.set("day_loss", -5 * SCALE)
    second.add("gaps", 3)
    found = scrape(Overview(instance))
    assert of(found, "executor_decisions_total") == 9
    assert of(found, "executor_refusals_total", reason="BOOK_STALE") == 2
    assert of(found, "executor_refusals_total", reason="JOURNAL_FAILED") == 0  # from the first scrape on
    assert of(found, "executor_exits_total", reason="EXIT_STOP") == 1
    assert of(found, "executor_fees_quote") == 0.12345678 and of(found, "executor_day_loss_quote") == -5.0
    assert of(found, "ingest_gaps_total", worker="1") == 3
    assert of(found, "inference_predictions_total", worker="0") == 4
    assert not [key for key in found if "pid" in key[0]]
    labels = {label for _, labels in found for label, _ in labels}
    assert labels == {"stage", "worker", "reason", "le"}


def test_a_stage_that_lives_waits_is_killed_or_never_came(instance, pipeline):
    config = dataclasses.replace(Config(), inference=Inference(workers=1))
    feature, worker = pipeline("feature"), pipeline("inference-0")
    feature.set("ready", 1)
    feature.set("heartbeat_ns", time.monotonic_ns() + 60_000_000_000)  # as fresh as it may take
    worker.set("heartbeat_ns", worker.get("started_ns") - 60_000_000_000)
    worker.set("ready", 1)
    overview = Overview(instance)
    found = scrape(overview, config)
    for stage, up, ready in (("feature", 1, 1), ("exchange", 0, 0), ("executor", 0, 0)):
        assert (of(found, "stage_up", stage=stage), of(found, "stage_ready", stage=stage)) == (up, ready)
    assert of(found, "stage_up", stage="inference", worker="0") == 0  # it hangs
    assert of(found, "stage_heartbeat_age_seconds", stage="inference", worker="0") > 50
    assert of(found, "process_resident_memory_bytes", stage="feature") > 2**20
    assert of(found, "process_cpu_seconds_total", stage="feature") > 0
    assert of(found, "stage_uptime_seconds", stage="feature") > 0
    feature.set("pid", 2**22 + 1)  # none has such a number: killed a moment ago
    found = scrape(overview, config)
    assert of(found, "stage_up", stage="feature") == 0
    assert ("process_cpu_seconds_total", frozenset({("stage", "feature")})) not in found
    assert of(scrape(overview), "stage_up", stage="feature") == 0  # without a configuration nothing is expected
    assert ("stage_up", frozenset({("stage", "executor")})) not in scrape(overview)


def test_no_counter_goes_back_when_a_stage_is_killed_and_starts_again(instance, pipeline):
    ingest = pipeline("ingest")
    for counter in ingest.counters:
        if counter not in STANDARD:
            ingest.add(counter, 5)
    ingest.observe("book", 1000)
    overview = Overview(instance)
    before = scrape(overview)
    os.close(ingest.block._lock_fd)  # as if its process had been killed
    ingest.block._lock_fd = None
    again = pipeline("ingest")
    after = scrape(overview)
    grows = [key for key in before if key[0].endswith(("_total", "_bucket", "_count", "_sum"))]
    assert len(grows) > 30 and all(after[key] >= before[key] for key in grows if "cpu" not in key[0])
    assert of(after, "stage_restarts_total", stage="ingest", worker="0") == 1
    again.add("gaps")
    assert of(scrape(overview), "ingest_gaps_total", worker="0") == 6


@settings(max_examples=50)
@given(st.lists(st.one_of(st.integers(0, 2000), st.integers(0, 2**36), st.sampled_from(
    [bound + more for bound in metrics.BOUNDS_NS for more in (0, 1)])), max_size=60))
def test_histograms_are_exact_in_every_count_and_near_in_their_sum(durations):
    executor = Telemetry.private("executor", (), ("tick_to_order", "ack"))
    for ns in durations:
        executor.observe("tick_to_order", ns)
    overview = Overview("nothing-of-that-name")
    families = metrics._Now(overview, None, {})
    families._timers("executor", executor)
    samples = families._families["tick_to_order_seconds"].samples
    counts = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("_bucket")}
    bounds = list(counts)
    assert bounds[-1] == "+Inf" and [float(bound) for bound in bounds] == sorted(map(float, bounds))
    for bound in metrics.BOUNDS_NS:
        assert counts[floatToGoString(bound / 1e9)] == sum(ns <= bound for ns in durations)
    assert counts["+Inf"] == len(durations) == samples[-2].value and samples[-2].name.endswith("_count")
    assert samples[-1].name.endswith("_sum")
    assert samples[-1].value * 1e9 == pytest.approx(sum(durations), rel=1 / 64)
    ack = families._families["stage_latency_seconds"].samples
    assert {sample.labels["stage"] for sample in ack} == {"ack"} and ack[-2].value == 0


def test_books_are_told_by_symbol(instance, pipeline):
    pipeline("ingest")
    books = Books.create(instance, ("BTC-USD", "AAPL"), 1024)
    try:
        now = time.monotonic_ns()
        write_top(books, 0, 100 * SCALE, 101 * SCALE, now - 2_000_000_000)
        overview = Overview(instance)
        found = scrape(overview)
        assert of(found, "book_valid", symbol="BTC-USD") == 1 and of(found, "book_valid", symbol="AAPL") == 0
        assert 2 <= of(found, "book_age_seconds", symbol="BTC-USD") < 20
        assert of(found, "book_mid_price_quote", symbol="BTC-USD") == 100.5
        assert of(found, "book_spread_quote", symbol="BTC-USD") == 1.0
        assert of(found, "book_ticks_total", symbol="BTC-USD") == 1
        # No tick yet, or an empty side: no age, no price, rather than a wrong one.
        write_top(books, 0, 100 * SCALE, 0, now)
        found = scrape(overview)
        told = {name for name, labels in found if ("symbol", "AAPL") in labels}
        assert told == {"book_valid", "book_ticks_total"}
        assert ("book_spread_quote", frozenset({("symbol", "BTC-USD")})) not in found
    finally:
        books.close()
    assert of(scrape(overview), "book_valid", symbol="BTC-USD") == 0  # ingest has gone


def test_what_is_held_is_told_by_symbol(instance, pipeline):
    pipeline("ingest")
    held = {"BTC-USD": Position(), "AAPL": Position(), "MSFT": Position()}
    held["BTC-USD"].fill(SELL, 2 * SCALE, 101 * SCALE, SCALE // 4)
    held["AAPL"].fill(BUY, SCALE, 50 * SCALE, 0)
    held["MSFT"].fill(BUY, SCALE, 10 * SCALE, 0)
    held["MSFT"].fill(SELL, SCALE, 12 * SCALE, 0)
    books = Books.create(instance, ("BTC-USD", "AAPL"), 1024)
    try:
        write_top(books, 0, 100 * SCALE, 101 * SCALE, time.monotonic_ns())
        found = scrape(Overview(instance), positions=held)
        assert of(found, "position_quantity", symbol="BTC-USD") == -2
        assert of(found, "position_cost_quote", symbol="BTC-USD") == -202
        assert of(found, "position_unrealised_quote", symbol="BTC-USD") == 1.0  # sold at 101, the mid is 100.5
        assert of(found, "position_fees_quote", symbol="BTC-USD") == 0.25
        assert ("position_unrealised_quote", frozenset({("symbol", "AAPL")})) not in found  # it has no price
        assert of(found, "position_unrealised_quote", symbol="MSFT") == 0  # none is needed
        assert of(found, "position_realised_quote", symbol="MSFT") == 2
    finally:
        books.close()
    found = scrape(Overview(instance), positions=held)  # ingest has gone
    assert ("position_unrealised_quote", frozenset({("symbol", "BTC-USD")})) not in found


def test_models_in_use_and_as_judged(instance, pipeline):
    worker, monitor = pipeline("inference-0"), pipeline("monitor")
    worker.tell({"model": "best", "model_id": "00ff", "shadow": "young", "shadow_id": "00fe",
                 "provider": "CPUExecutionProvider"})
    best = {"name": "best", "id": "00ff", "role": "live", "known": 1234, "brier": 0.2185, "brier_base": 0.2463,
            "ece": 0.0512, "hit_rate": 0.645, "log_loss": None,
            "drift": {"rows": 600, "shifted": 2, "changed": 1, "worst": [["obi_1", 0.31, 0.0], ["vol", 0.1, None]]}}
    young = {"name": "young", "id": "00fe", "role": "shadow", "known": 0, "brier": None, "drift": None}
    monitor.tell({"models": [best, young], "challenger": {"rows": 50, "gain": 0.01, "standard_error": None}})
    found = scrape(Overview(instance))
    common = {"worker": "0", "provider": "CPUExecutionProvider"}
    assert of(found, "model_info", model="best", id="00ff", role="live", **common) == 1
    assert of(found, "model_info", model="young", id="00fe", role="shadow", **common) == 1
    live = {"model": "best", "id": "00ff", "role": "live"}
    assert of(found, "model_judged_total", **live) == 1234 and of(found, "model_brier_score", **live) == 0.2185
    assert of(found, "model_drift_changed_columns", **live) == 1 and of(found, "model_drift_worst_psi", **live) == 0.31
    assert ("model_log_loss", frozenset(live.items())) not in found
    assert of(found, "challenger_gain") == 0.01
    assert ("challenger_gain_standard_error", frozenset()) not in found


def test_limits_are_those_of_the_configuration(instance):
    found = scrape(Overview(instance), Config(risk=Risk(max_daily_loss=700.0, max_book_age_ms=1500.0)))
    assert of(found, "risk_daily_loss_limit_quote") == 700 and of(found, "risk_book_age_limit_seconds") == 1.5
    assert of(found, "risk_drawdown_limit_quote") == math.inf
    found = scrape(Overview(instance), Config(risk=Risk(max_drawdown=50.0)))
    assert of(found, "risk_drawdown_limit_quote") == 50


def test_openmetrics_is_given_to_who_asks_for_it_and_says_the_same(instance, pipeline):
    pipeline("executor").observe("ack", 5_000_000)
    pipeline("ingest").add("frames", 7)
    overview = Overview(instance)
    overview.refresh()
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    assert metrics.content_type(accept).startswith("application/openmetrics-text; version=1.0.0")
    assert metrics.content_type() == metrics.content_type("text/html") == "text/plain; version=0.0.4; charset=utf-8"
    text = metrics.exposition(overview, None, accept).decode()
    assert text.endswith("# EOF\n")

    def values(families) -> dict:
        return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families
                for sample in family.samples if not sample.name.endswith(("age_seconds", "uptime_seconds"))}

    strict = values(openmetrics_families(text))
    plain = values(text_string_to_metric_families(metrics.exposition(overview).decode()))
    assert strict.keys() == plain.keys() and strict["alpha_ingest_frames_total", frozenset({("worker", "0")})] == 7


def test_what_is_not_ours_is_left_out(instance):
    other = Telemetry.create(instance, "floor", ("decisions",), ("hop",))
    try:
        other.set("heartbeat_ns", time.monotonic_ns() + 60_000_000_000)
        found = scrape(Overview(instance))
        assert {key for key in found if key[0].startswith("floor")} == set()
        assert of(found, "stage_up", stage="floor") == 1
    finally:
        other.close()
