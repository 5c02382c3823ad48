"""The overview: stages as they come and go, one set of numbers for all who ask."""

from common.fixed import SCALE
from common.overview import Overview
from common.telemetry import Telemetry


def test_it_finds_stages_and_still_knows_their_numbers_after_they_have_gone(instance):
    ingest = Telemetry.create(instance, "ingest", ("frames", "ticks"))
    workers = [Telemetry.create(instance, f"inference-{k}", ("predictions",)) for k in range(2)]
    executor = Telemetry.create(instance, "executor",
                                ("decisions", "realised", "unrealised", "fees", "refusal_age_decision"),
                                ("tick_to_decision",))
    overview = Overview(instance)
    overview.refresh()
    assert not overview.ready("ingest") and not overview.ready("feature")
    import time

    ingest.set("ready", 1)
    ingest.set("heartbeat_ns", time.monotonic_ns())
    ingest.add("ticks", 7)
    for worker in workers:
        worker.add("predictions", 3)
    executor.set("realised", 3 * SCALE)
    executor.set("fees", SCALE)
    executor.add("refusal_age_decision")
    executor.observe("tick_to_decision", 200_000)
    assert overview.ready("ingest")
    for telemetry in (ingest, *workers, executor):
        telemetry.close()
    told = overview.summary()
    assert (told["ticks"], told["predictions"], told["pnl"], told["restarts"]) == (7, 6, 2.0, 0)
    assert told["refusals"] == {"AGE_DECISION": 1}
    assert abs(told["latency_us"]["tick_to_decision"]["p50"] - 200) < 7
    assert not overview.ready("ingest")


def test_an_empty_pipeline_is_all_zeros():
    told = Overview("nothing-of-that-name").summary()
    assert told["ticks"] == 0 and told["refusals"] == {} and told["latency_us"] == {}
