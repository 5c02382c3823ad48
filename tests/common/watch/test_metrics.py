"""Metrics: every counter of every stage is declared, and the exposition says what telemetry holds."""

import importlib

import pytest

from common.telemetry import STANDARD
from common.watch import metrics

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
