"""The overview: stages as they come and go, one set of numbers for all who ask."""

import time
from pathlib import Path

from common.fixed import SCALE
from common.overview import Overview, words
from common.ring import Books
from common.telemetry import Telemetry
from tests.ticks import write_top


def test_it_finds_stages_and_still_knows_their_numbers_after_they_have_gone(instance):
    ingest = Telemetry.create(instance, "ingest", ("frames", "ticks"))
    workers = [Telemetry.create(instance, f"inference-{k}", ("predictions",)) for k in range(2)]
    executor = Telemetry.create(instance, "executor",
                                ("decisions", "realised", "unrealised", "fees", "refusal_age_decision"),
                                ("tick_to_decision",))
    overview = Overview(instance)
    overview.refresh()
    assert not overview.ready("ingest") and not overview.ready("feature")
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


def test_the_models_in_use_are_those_that_ready_workers_tell(instance):
    overview = Overview(instance)
    workers = [Telemetry.create(instance, f"inference-{k}", ("predictions",)) for k in range(3)]
    for k, worker in enumerate(workers):
        worker.tell({"deployment": {"pair": [["/m/live.onnx", ""], ["/m/shadow.onnx", "ab"] if k else None]}})
        worker.set("heartbeat_ns", time.monotonic_ns())
    overview.refresh()
    assert overview.models() == []
    for worker in workers:
        worker.set("ready", 1)
    assert overview.models() == [Path("/m/live.onnx"), Path("/m/shadow.onnx")]
    for worker in workers:
        worker.close()


def test_what_the_monitor_told_is_found_and_put_into_words(instance):
    model = {"name": "best", "id": "00ff", "role": "live", "known": 1234, "brier": 0.2185, "brier_base": 0.2463,
             "ece": 0.0512, "hit_rate": 0.645, "drift": {"rows": 600, "shifted": 2, "worst": [["obi_1", 0.31, 0.0]]}}
    young = {"name": "young", "id": "00fe", "role": "shadow", "known": 0, "brier": None,
             "drift": {"rows": 5, "shifted": None, "worst": []}}
    monitor = Telemetry.create(instance, "monitor", ("judged",))
    overview = Overview(instance)
    overview.refresh()
    assert overview.judged() == {"judged": 0, "models": [], "challenger": None} and words(overview.judged()) == []
    monitor.add("judged", 1234)
    monitor.tell({"models": [model, young, {**young, "drift": None}],
                  "challenger": {"verdict": "too early to tell"}})
    assert overview.judged()["judged"] == 1234
    monitor.close()
    lines = words(overview.judged())
    assert lines[0] == ("live   best 00ff  judged 1,234  Brier 0.2185 (base rate 0.2463)  ECE 0.051  hits 64.5%"
                        "  drift: 2 columns shifted, most obi_1 (PSI 0.31)")
    assert lines[1] == "shadow young 00fe  judged 0  drift: too few rows yet (5)"
    assert lines[2].endswith("drift not measured") and lines[3] == "challenger: too early to tell"


def test_the_last_refusals_are_told_with_their_symbol_and_time(instance):
    executor = Telemetry.create(instance, "executor", ("refusal_age_data", "refusal_signal_weak"), notes=4)
    overview = Overview(instance)
    assert overview.recent_refusals() == []
    overview.refresh()
    assert overview.recent_refusals() == []
    now = time.monotonic_ns()
    executor.note_all([(now - 5_000_000_000, 1, "refusal_signal_weak", 0.01, 0.03),
                       (now, 0, "refusal_age_data", 3e8, 2.5e8)])
    told = overview.recent_refusals()
    assert [refused["symbol"] for refused in told] == [1, 0]
    books = Books.create(instance, ("BTC-USD",), 8)
    told = overview.recent_refusals()
    assert [(refused.pop("at_ns") - time.time_ns()) // 1_000_000_000 for refused in told] == [-6, -1]
    assert told == [{"symbol": 1, "reason": "SIGNAL_WEAK", "value": 0.01, "limit": 0.03},
                    {"symbol": "BTC-USD", "reason": "AGE_DATA", "value": 3e8, "limit": 2.5e8}]
    books.close()
    executor.close()


def test_an_empty_pipeline_is_all_zeros():
    told = Overview("nothing-of-that-name").summary()
    assert told["ticks"] == 0 and told["refusals"] == {} and told["latency_us"] == {}


def test_an_ingest_without_its_venue_is_started_but_not_ready_and_each_state_has_its_word(instance, monkeypatch):
    import time

    overview, ingest = Overview(instance), Telemetry.create(instance, "ingest", ("connected",))
    try:
        fresh, old = time.monotonic_ns() + 60_000_000_000, time.monotonic_ns() - 3_000_000_000
        ingest.set("heartbeat_ns", old)
        overview.refresh()
        assert overview.standing("feature") == "absent" and overview.standing("ingest") == "waiting"
        monkeypatch.setattr("common.overview._START_NS", 0)  # no start takes so long
        assert overview.standing("ingest") == "silent" and not overview.started("ingest")
        ingest.set("heartbeat_ns", fresh)
        assert overview.standing("ingest") == "waiting"
        ingest.set("ready", 1)
        assert overview.standing("ingest") == "connecting"
        assert overview.started("ingest") and not overview.ready("ingest")
        ingest.set("connected", 1)
        assert overview.standing("ingest") == "ready" and overview.ready("ingest")
        ingest.set("heartbeat_ns", old)
        assert overview.standing("ingest") == "silent"
        ingest.set("pid", 2**22 + 1)
        assert overview.standing("ingest") == "gone"
    finally:
        ingest.close()


def test_the_state_of_a_stage_is_that_of_its_process(instance):
    import os
    import time

    overview = Overview(instance)
    feature = Telemetry.create(instance, "feature", ("rows",))
    feature.tell({"waiting_for": "the books ring"})
    overview.refresh()
    fresh = time.monotonic_ns() + 60_000_000_000  # however long this test takes
    feature.set("heartbeat_ns", fresh)
    told = overview.states()["feature"]
    assert told.up and not told.ready and told.waiting_for == "the books ring" and told.restarts == 0
    assert told.usage.memory_bytes > 0 and told.uptime_s > 0
    feature.set("ready", 1)
    assert overview.states()["feature"].ready and overview.ready("feature")
    feature.set("heartbeat_ns", time.monotonic_ns() - 3_000_000_000)  # it hangs
    assert not overview.states()["feature"].up and not overview.ready("feature")
    feature.set("heartbeat_ns", fresh)
    feature.set("pid", 2**22 + 1)  # none has such a number: it was killed a moment ago
    assert overview.states()["feature"].usage is None and not overview.ready("feature")
    feature.set("pid", os.getpid())
    feature.close()
    assert not overview.states()["feature"].up and overview.values("feature")["rows"] == 0
    assert overview.values("executor") == {}


def test_the_books_ring_is_followed_through_its_lives(instance):
    import time

    overview = Overview(instance)
    assert overview.books() is None and overview.tops() == {}
    for symbols in (("A", "B"), ("C",)):
        books = Books.create(instance, symbols, 1024)
        write_top(books, 0, 99, 101, time.monotonic_ns())
        told = overview.tops()
        assert list(told) == list(symbols) and told[symbols[0]][:1] == (True,)
        assert told[symbols[0]][2:] == (1, 99, 101) and 0 <= told[symbols[0]].age_s < 10
        write_top(books, 0, 99, 101, time.monotonic_ns(), flags=0)
        assert not overview.tops()[symbols[0]].valid
        write_top(books, 0, 99, 101, time.monotonic_ns())
        books.close()
        assert not overview.tops()[symbols[0]].valid and overview.books().retired  # as it stood, and known to be old
