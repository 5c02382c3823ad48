"""The snapshot: what every home of figures says, at one moment, through all that a pipeline goes through."""

import contextlib
import os
import time

import orjson
import pytest

from common import config as settings
from common import killswitch, risk
from common.explain.order import _in_units
from common.fixed import SCALE
from common.journal import Journal, Reader, located
from common.orders import BUY, Order, State
from common.ring import Books
from common.telemetry import Telemetry
from common.watch import health
from common.watch.snapshot import _KEYS, GROWING, Snapshots, _refusal
from common.wire import Prediction
from procs.executor import COUNTERS, TIMERS
from procs.ingest import COUNTERS as INGEST
from tests.ticks import write_ticks


@pytest.fixture
def config(instance, tmp_path, run_dir):
    return settings.load(None, {"ALPHA_INSTANCE__NAME": instance, "ALPHA_INSTANCE__STATE_DIR": str(tmp_path),
                                "ALPHA_INSTANCE__RUN_DIR": str(run_dir), "ALPHA_MARKET__SYMBOLS": '["A", "B"]',
                                "ALPHA_EXECUTOR__GATEWAY": "vectrade"})


@contextlib.contextmanager
def stage(config, name, counters, timers=(), notes=0, **told):
    telemetry = Telemetry.create(config.instance.name, name, counters, timers, notes)
    telemetry.tell(told)
    beat(telemetry)
    try:
        yield telemetry
    finally:
        telemetry.close()


def beat(*stages) -> None:
    for telemetry in stages:
        telemetry.set("ready", 1)
        telemetry.set("heartbeat_ns", time.monotonic_ns())


def taken(watched: Snapshots) -> dict:
    """A snapshot that has looked for what is new."""
    watched._next_look = watched._next_total = 0.0
    told = watched.take()
    orjson.dumps(told)
    return told


def named(rows: list[dict], name: str) -> dict:
    return next(row for row in rows if row["name"] == name)


def prediction(symbol: int, epoch: int, p_up: float) -> Prediction:
    now = time.monotonic_ns()
    return Prediction(symbol, 0, epoch, 7, 0, 1, 0, 1, p_up, 1 - p_up, 1.0, 0, 0, now, now, now, now, now, now)


def test_of_nothing_it_tells_that_nothing_is_there(config):
    told = taken(Snapshots(config))
    assert told["state"]["state"] == "ABSENT" and told["state"]["why"] == "no executor runs"
    assert told["stages"] == told["symbols"] == told["orders"] == [] and told["numbers"]["ticks"] == 0
    assert {one["share"] for one in told["limits"]} == {0.0}
    assert not told["rates"] and "No such file" in told["journal"]["error"]


def test_its_figures_are_those_of_their_one_home(config):
    journal = Journal.open(located(config))
    order = Order("00000007-0-1", "A", BUY, 2 * SCALE, 101 * SCALE, 7, 1)
    journal.intent(order, "{}", 10)
    journal.fill(order, "f1", 2 * SCALE, 101 * SCALE, SCALE // 100, State.FILLED, 12)
    books, predictions = Books.create(config.instance.name, ["A", "B"], 1024), {}
    with stage(config, "ingest", INGEST, venue="vectrade", connection="open") as ingest, stage(
            config, "executor", COUNTERS, TIMERS, 8, gateway="vectrade", state="ACTIVE", why="") as executor:
        write_ticks(books, 0, 50, now_ns=time.monotonic_ns())
        watched = Snapshots(config, predictions)
        predictions[0] = prediction(0, books.tag, 0.7)
        predictions[1] = prediction(1, books.tag + 1, 0.7)  # of another stream
        for name, value in (("exposure", 60_000), ("day_loss", 4_000), ("working", 3)):
            executor.set(name, value * SCALE if name != "working" else value)
        ingest.add("ticks", 100)
        executor.add("refusal_signal_weak", 5)
        executor.note_all([(1, 0, "refusal_age_data", 300e6, 250e6), (2, 1, "refusal_state_halted", 0, 0)])
        executor.observe("tick_to_decision", 200_000)
        told = taken(watched)

        assert told["numbers"].items() >= watched.overview.numbers().items() and told["numbers"]["ticks"] == 100
        assert told["latency_us"]["tick_to_decision"]["all"] == watched.overview.latency_us()["tick_to_decision"]
        assert told["refusals"] == {"SIGNAL_WEAK": 5} == watched.overview.refusals()
        aged, halted = ({key: row[key] for key in row if key != "at_ns"} for row in told["recent_refusals"])
        assert aged == {"symbol": "A", "reason": "AGE_DATA", "value": 300.0, "limit": 250.0, "unit": "ms"}
        assert halted == {"symbol": "B", "reason": "STATE_HALTED", "value": None, "limit": None, "unit": ""}
        assert told["state"].items() >= {"state": "ACTIVE", "halted": False, "reducing": False}.items()
        assert (told["gateway"], told["venue"], told["journal"]["error"]) == ("vectrade", "vectrade", "")

        held, first = Reader(located(config)).positions()["A"], named(told["symbols"], "A")
        top = books.top(0)
        assert (first["bid"], first["ask"]) == (top.bid / SCALE, top.ask / SCALE) and first["valid"]
        assert first["bids"][0] == [top.bid / SCALE, top.bid_qty / SCALE] and len(first["asks"]) == 10
        assert first["qty"] == 2.0 and first["average_cost"] == 101.0
        assert first["unrealised"] == held.unrealised((top.bid + top.ask) // 2) / SCALE**2
        assert (first["p_up"], abs(first["predicted_ns"] - time.time_ns()) < 60e9) == (0.7, True)
        second = named(told["symbols"], "B")
        assert second["mid"] is second["p_up"] is second["bids"] is None and not second["valid"]

        assert [row["id"] for row in told["orders"]] == ["00000007-0-1"] and told["orders"][0]["filled"] == 2.0
        assert [(row["price"], row["qty"], row["side"]) for row in told["fills"]] == [(101.0, 2.0, "BUY")]
        near = {one["name"]: one["share"] for one in told["limits"]}
        assert near["max_daily_loss"] == 0.8 and near["max_gross_notional"] == 0.75
        shares = [one["share"] for one in told["limits"]]
        assert shares == sorted(shares, reverse=True)
        watched.close()
    books.close()
    journal.close()


def test_rates_and_latency_are_those_of_the_last_while_and_begin_anew_with_the_counters(config):
    watched = Snapshots(config)
    with stage(config, "executor", COUNTERS, TIMERS) as executor:
        executor.add("decisions", 1000)
        executor.observe("decide", 900_000)
        taken(watched)
        sample = watched._samples[0]
        watched._samples[0] = sample._replace(at_s=sample.at_s - 2.0)  # two seconds go by
        executor.add("decisions", 50)
        executor.observe("decide", 50_000)
        told = taken(watched)
        assert told["rates"]["decisions"] == pytest.approx(50 / told["rates_s"]) and told["rates_s"] > 1.9
        assert abs(told["latency_us"]["decide"]["now"]["p50"] - 50) < 2
        assert told["latency_us"]["decide"]["all"]["count"] == 2
    with stage(config, "executor", COUNTERS, TIMERS) as executor:
        executor.add("decisions", 3)
        told = taken(watched)
        assert told["rates"] == {} and told["numbers"]["decisions"] == 3
    assert set(GROWING) <= set(told["numbers"])


def test_a_stage_that_is_silent_stopped_or_gone_never_looks_ready(config):
    watched = Snapshots(config)
    with stage(config, "executor", COUNTERS, TIMERS, state="ACTIVE") as executor, stage(
            config, "inference-10", ("predictions",), ("inference",)) as tenth, stage(
            config, "inference-9", ("predictions",), ("inference",), model="m") as ninth:
        told = taken(watched)
        assert [one["name"] for one in told["stages"]] == ["inference-9", "inference-10", "executor"]
        assert {one["state"] for one in told["stages"]} == {"ready"} and told["workers"][0]["model"] == "m"
        tenth.set("ready", 0)
        ninth.set("heartbeat_ns", time.monotonic_ns() - 3_000_000_000)
        executor.set("heartbeat_ns", time.monotonic_ns() - 3_000_000_000)
        told = taken(watched)
        assert [one["state"] for one in told["stages"]] == ["silent", "waiting", "silent"]
        assert told["state"]["state"] == "SILENT" and told["state"]["why"] == "last it said ACTIVE"
        ninth.set("pid", _ended())
        assert named(taken(watched)["stages"], "inference-9")["state"] == "gone"
    told = taken(watched)
    assert {one["state"] for one in told["stages"]} == {"gone"} and told["state"]["state"] == "ABSENT"


def test_what_a_silent_executor_said_last_is_told_as_that_and_flattening_has_one_name(config):
    watched = Snapshots(config)
    assert taken(watched)["executor"] == {"speaks": False, "heard_ns": None}
    with stage(config, "executor", COUNTERS, TIMERS, state="REDUCING", why="wind down") as executor:
        assert taken(watched)["state"]["state"] == "REDUCING"
        executor.set("reducing", risk.FLATTENING)
        executor.tell({"state": "FLATTENING", "why": "wind down"})
        told = taken(watched)
        assert told["state"]["state"] == "FLATTENING" and told["state"]["flattening"] and told["executor"]["speaks"]
        assert 0 <= told["at_ns"] - told["executor"]["heard_ns"] < 60e9
        executor.set("heartbeat_ns", time.monotonic_ns() - 100_000_000_000)
        told = taken(watched)
        assert told["state"] | {"state": "SILENT", "why": "last it said FLATTENING: wind down"} == told["state"]
        assert not told["executor"]["speaks"] and told["at_ns"] - told["executor"]["heard_ns"] >= 100e9
    told = taken(watched)
    assert (told["state"]["state"], told["executor"]["speaks"]) == ("ABSENT", False)


def test_stages_that_are_wanted_and_have_no_process_are_missing(config):
    watched, wanted = Snapshots(config), list(health.expected(config))
    assert taken(watched)["missing"] == wanted and "inference-0" in wanted
    with stage(config, "inference-0", ("predictions",), ("inference",)) as worker:
        assert taken(watched)["missing"] == [name for name in wanted if name != "inference-0"]
        worker.set("heartbeat_ns", time.monotonic_ns() - 3_000_000_000)
        assert "inference-0" not in taken(watched)["missing"], "it hangs, and its process is there"
        worker.set("pid", _ended())
        assert taken(watched)["missing"] == wanted


def test_rings_and_journals_that_begin_anew_are_followed(config, tmp_path):
    watched = Snapshots(config)
    books = Books.create(config.instance.name, ["A"], 1024)
    write_ticks(books, 0, 5, now_ns=time.monotonic_ns())
    journal = Journal.open(located(config))
    journal.adopt({"A": (SCALE, 5)})
    told = taken(watched)
    assert told["symbols"][0]["valid"] and told["symbols"][0]["qty"] == 1.0
    books.close()
    told = taken(watched)
    assert not told["symbols"][0]["valid"] and told["symbols"][0]["mid"]  # its last book, and not as if it were one now
    journal.close()
    for path in tmp_path.glob("journal.db*"):
        path.unlink()
    books, journal = Books.create(config.instance.name, ["B", "A"], 2048), Journal.open(located(config))
    journal.adopt({"A": (3 * SCALE, 5), "C": (SCALE, 5)})
    told = taken(watched)
    assert [(one["name"], one["qty"]) for one in told["symbols"]] == [("B", 0.0), ("A", 3.0), ("C", 1.0)]
    watched.close()
    journal.close()
    books.close()


def test_a_damaged_journal_is_told_and_the_rest_goes_on(config):
    located(config).write_bytes(b"x" * 5000)
    told = taken(Snapshots(config))
    assert "journal" in told["journal"]["error"] and told["orders"] == []


def test_the_kill_switch_is_told_with_who_and_why(config):
    watched = Snapshots(config)
    killswitch.halt(config.state_dir, "looks wrong", "me")
    killswitch.reduce(config.state_dir, "wind down", "me", flatten=True)
    switch = taken(watched)["state"]["switch"]
    assert (switch["halt"]["why"], switch["halt"]["who"]) == ("looks wrong", "me") and switch["reduction"]["flatten"]
    killswitch.resume(config.state_dir)
    assert taken(watched)["state"]["switch"] == {"halt": None, "reduction": None}


def test_only_the_books_that_are_asked_for_are_told_in_full(config):
    books = Books.create(config.instance.name, ["A", "B"], 1024)
    write_ticks(books, 0, 5)
    write_ticks(books, 1, 5)
    told = Snapshots(config).take({"B"})
    assert named(told["symbols"], "A")["bids"] is None and named(told["symbols"], "A")["mid"]
    assert len(named(told["symbols"], "B")["bids"]) == 10
    books.close()


def test_history_is_what_the_ring_still_has_of_valid_books(config):
    watched = Snapshots(config)
    assert watched.history("A") == []
    books, now = Books.create(config.instance.name, ["A"], 1024), time.monotonic_ns()
    write_ticks(books, 0, 3000, now_ns=now)
    write_ticks(books, 0, 1, flags=0, now_ns=now)
    taken(watched)
    found = watched.history("A", points=50)
    assert 45 <= len(found) <= 50 and len(set(found)) > 1
    assert found[-1][1] == (books.read(0, 3000)[16] + books.read(0, 3000)[36]) / 2 / SCALE  # the newest valid one
    assert abs(found[-1][0] - time.time_ns()) < 60e9
    assert watched.history("A", seconds=0.0) == watched.history("B") == []
    books.close()


def test_every_reason_is_told_in_the_units_of_its_limit():
    for reason, key in _KEYS.items():
        if key and key not in ("allow", "block"):
            told = _refusal({"reason": reason, "value": 3 * SCALE, "limit": 2 * SCALE, "symbol": 0})
            assert told["value"] == float(_in_units(key, 3 * SCALE)), reason


def _ended() -> int:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
