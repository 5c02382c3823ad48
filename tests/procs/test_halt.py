"""The kill switch from a terminal; test_pipeline has it with a living executor."""

import json
import os
import select
import signal

import pytest

from common import killswitch
from common.clock import SystemClock
from common.config import load
from common.fixed import SCALE
from common.gateways import Acked, Ended, create
from common.journal import Journal, Reader, located
from common.orders import BUY, Order, State
from common.overview import Overview
from tests.pipeline import command, environment
from tests.waiting import until


def test_the_switch_is_set_even_if_nobody_confirms_and_that_is_told(instance, run_dir, tmp_path):
    env = environment(instance, tmp_path, run_dir)
    process = command("halt", "looks wrong", "--json", env=env)
    assert json.loads(process.communicate()[0])["confirmed"] is False and process.returncode == 1
    assert killswitch.state(tmp_path).why == "looks wrong"
    process = command("halt", "later reason", env=env)
    assert "looks wrong" in process.communicate()[0]  # the first reason stands
    process = command("resume", env=env)
    assert "lifted: looks wrong" in process.communicate()[0] and killswitch.state(tmp_path) is None


@pytest.mark.parametrize("typo", [{"ALPHA_DECISION__THRESOLD": "0.1"}, {"ALPHA_RISK__ON_LOSS": "bogus"}])
def test_what_was_mistyped_meanwhile_keeps_nobody_from_halting(instance, run_dir, tmp_path, typo):
    env = environment(instance, tmp_path, run_dir) | typo
    for words, found in ((["halt", "now"], killswitch.state), (["flatten", "now"], killswitch.reduction)):
        process = command(*words, env=env)
        assert "now" in process.communicate()[0] and process.returncode == 1
        assert found(tmp_path).why == "now"
    process = command("resume", env=env)
    process.communicate()
    assert process.returncode == 2 and killswitch.state(tmp_path) is not None


def test_arming_says_whether_anything_waited_for_it(instance, run_dir, tmp_path):
    env = environment(instance, tmp_path, run_dir)
    assert "nothing here is live" in command("arm", env=env).communicate()[0]
    for setting in ({"ALPHA_MARKET__LIVE": "true"}, {"ALPHA_EXECUTOR__BASE_URL": "https://gateway.example"}):
        assert command("arm", env={**env, **setting}).communicate()[0] == "armed\n"


def test_reducing_and_flattening_are_set_even_if_nobody_confirms(instance, run_dir, tmp_path):
    env = environment(instance, tmp_path, run_dir)
    process = command("reduce", "thin market", env=env)
    assert "; no executor confirms it" in process.communicate()[0] and process.returncode == 1
    process = command("flatten", "later", "--json", env=env)
    told = json.loads(process.communicate()[0])
    assert told["flatten"] and told["why"] == "thin market" and not told["confirmed"]
    assert killswitch.reduction(tmp_path).flatten
    assert "lifted: thin market" in command("resume", env=env).communicate()[0]
    assert killswitch.reduction(tmp_path) is None


SYMBOLS = {"vectrade": "BTC-USD", "binance-usdm": "BTCUSDT", "binance-spot": "BTCUSDT"}
RESTING = Order("7-0-1", "", BUY, SCALE, 10 * SCALE, 7, 1, time_in_force="GTC")


class Venue:
    """Our own line to the exchange."""

    def __init__(self, env: dict[str, str]) -> None:
        self.config = load(None, env)
        self.gateway = create(self.config, SystemClock(), env)

    def heard(self) -> list:
        fd = self.gateway.fileno()
        if fd >= 0:
            select.select([fd], [fd] if self.gateway.wants_write else [], [], 0.05)
        return self.gateway.work()

    def submit(self, order: Order) -> None:
        asked = False

        def there() -> bool:
            nonlocal asked
            if not asked:
                self.gateway.submit(order)  # again, if the exchange was not there yet: the same order
                asked = True
            events = self.heard()
            asked &= not any(type(event) is Ended for event in events)
            return any(type(event) is Acked for event in events)

        until(there, 60, "the exchange takes an order")

    def state(self, order: Order) -> State | None:
        """None while it is alive."""
        self.gateway.query(order)
        events: list = []
        until(lambda: events.extend(self.heard()) or any(type(event) in (Acked, Ended) for event in events), 10,
              "an answer")
        return next((event.state for event in events if type(event) is Ended), None)


@pytest.fixture(params=SYMBOLS)
def stages(request, instance, run_dir, tmp_path):
    """An exchange, an ingest and an executor that looks after an order of another life, which rests at the venue."""
    more = {} if request.param == "vectrade" else {
        "ALPHA_MARKET__VENUE": request.param, "ALPHA_EXECUTOR__GATEWAY": request.param,
        "ALPHA_MARKET__SYMBOLS": '["BTCUSDT", "ETHUSDT"]'}
    env = environment(instance, tmp_path, run_dir, **more)
    resting = RESTING._replace(symbol=SYMBOLS[request.param])
    processes = {name: command(name, env=env) for name in ("exchange", "ingest")}
    venue = Venue(env)
    try:
        venue.submit(resting)
        journal = Journal.open(located(venue.config))
        journal.intent(resting, "{}", 0)
        journal.close()
        processes["executor"] = command("executor", env=env)
        overview = Overview(instance)

        def reconciled() -> bool:
            overview.refresh()
            return bool(overview.ready("executor") and overview.get("executor", "reconciled"))

        until(reconciled, 60, "the executor is reconciled")
        venue.gateway.close()  # whoever is asked from here on is the executor, or the switch
        venue.gateway = create(venue.config, SystemClock(), env)
        venue.gateway.observe()
        yield processes, venue, env, overview, resting
    finally:
        venue.gateway.close()
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in processes.values():
            process.communicate(timeout=30)


def test_working_orders_are_cancelled_although_the_executor_hangs(stages):
    processes, venue, env, overview, resting = stages
    assert venue.state(resting) is None
    process = command("reconcile", "--json", env=env)
    told = json.loads(process.communicate()[0])
    assert process.returncode == 0 and told["executor_pid"] == processes["executor"].pid
    assert told["symbols"][resting.symbol]["orders"][0]["venue"]["state"] == "alive"
    os.kill(processes["executor"].pid, signal.SIGSTOP)
    process = command("halt", "it hangs", "--json", env=env)
    told = json.loads(process.communicate()[0])
    assert process.returncode == 1 and not told["confirmed"] and told["problem"] == ""
    assert told["orders"] == [{"client_id": resting.client_id, "symbol": resting.symbol, "done": True,
                               "what": "cancelled"}]
    assert venue.state(resting) is State.CANCELLED
    os.kill(processes["executor"].pid, signal.SIGCONT)

    def halted() -> bool:
        overview.refresh()
        return bool(overview.get("executor", "halted")) and not overview.get("executor", "working")

    until(halted, 30, "the executor has woken up, has seen the halt and knows of the end of its order")
    reader = Reader(located(venue.config))
    until(lambda: reader.orders()[0]["state"] == "cancelled", 10, "the journal knows it, too")
    reader.close()


def test_a_position_is_left_although_no_worker_speaks(instance, run_dir, tmp_path):
    """By its age, and by `alpha flatten`: the worker stands still, ticks go on."""
    env = environment(instance, tmp_path, run_dir)
    stages = {"exchange": ["exchange", "--rate", "400"], "ingest": ["ingest"], "feature": ["feature"],
              "inference": ["inference", "--worker", "0"]}
    processes = {name: command(*words, env=env) for name, words in stages.items()}
    overview, journal = Overview(instance), located(load(None, env))

    def held() -> bool:
        if not journal.exists():
            return False
        reader = Reader(journal)
        try:
            return any(position.qty for position in reader.positions().values())
        finally:
            reader.close()

    def count(name: str) -> int:
        overview.refresh()
        return overview.get("executor", name)

    def left_by(reason: str, setting: dict[str, str], act=lambda: None) -> None:
        """An executor with that setting, a position, no worker any more: what is held is left, for that reason."""
        processes["executor"] = command("executor", env={**env, **setting})
        until(lambda: overview.refresh() or overview.ready("executor"), 60, "the executor")

        def left() -> bool:
            processes["inference"].send_signal(signal.SIGCONT)
            until(held, 60, "a position")
            processes["inference"].send_signal(signal.SIGSTOP)
            act()
            until(lambda: not held(), 60, f"nothing is held any more: {reason}")
            return bool(count(reason) and count("watched"))  # else the last word before the stop had left it

        until(left, 90, "the clock has asked")
        processes["executor"].terminate()
        assert processes["executor"].wait(30) == 0

    def flatten() -> None:
        process = command("flatten", "home", env=env)
        assert "flattening: home" in process.communicate()[0] and process.returncode == 0

    try:
        left_by("exit_horizon", {"ALPHA_DECISION__EXIT_AFTER_S": "1.0"})
        reader = Reader(journal)
        told = command("explain", reader.order("last")["client_id"], env=env)
        reader.close()
        assert "the executor's clock asked, not a model" in told.communicate()[0] and told.returncode == 0
        left_by("exit_flatten", {}, flatten)
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in processes.values():
            process.communicate(timeout=30)
