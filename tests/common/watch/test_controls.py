"""What the page may do, and that what it tells is what happened."""

import threading
import time

import pytest

from common import config as settings
from common import killswitch
from common.telemetry import Telemetry
from common.watch.controls import ACTIONS, act
from tests.waiting import until


@pytest.fixture
def config(instance, tmp_path, run_dir):
    return settings.load(None, {"ALPHA_INSTANCE__NAME": instance, "ALPHA_INSTANCE__STATE_DIR": str(tmp_path),
                                "ALPHA_INSTANCE__RUN_DIR": str(run_dir), "ALPHA_EXECUTOR__GATEWAY": "paper"})


class Executor:
    """Follows the kill switch as the executor does, and no more."""

    def __init__(self, config) -> None:
        self.telemetry = Telemetry.create(config.instance.name, "executor", ())
        self._folder, self._ending, self.obstinate, self.barred = config.state_dir, False, "", ""
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        while not self._ending:
            halt, reduction = killswitch.state(self._folder), killswitch.reduction(self._folder)
            state = self.obstinate or ("HALTED" if halt else "ACTIVE" if not reduction else
                                       "FLATTENING" if reduction.flatten else "REDUCING")
            self.telemetry.tell({"state": state, "why": halt.why if halt else "", "barred": self.barred})
            self.telemetry.set("heartbeat_ns", time.monotonic_ns())
            self.telemetry.set("ready", 1)
            time.sleep(0.005)

    def close(self) -> None:
        self._ending = True
        self._thread.join()
        self.telemetry.close()


def test_each_action_sets_the_switch_and_is_confirmed_by_the_executor(config):
    executor = Executor(config)
    try:
        until(lambda: executor.telemetry.get("ready"))
        done = act(config, "halt", "looks wrong", "page", 20.0)
        assert done.ok and done.text == "halted: looks wrong (by page)"
        assert killswitch.state(config.state_dir).why == "looks wrong"
        assert act(config, "halt", "so too", "page", 20.0).text == "halted already: looks wrong (by page)"
        done = act(config, "flatten", "home", "page", 0.0)
        assert not done.ok and done.text == "flattening: home (by page); but the executor is HALTED: looks wrong"
        done = act(config, "flatten", "home", "page", 20.0, lift=True)
        assert done.ok and done.text == "flattening: home (by page); lifted: looks wrong (by page)"
        assert killswitch.state(config.state_dir) is None and killswitch.reduction(config.state_dir).flatten
        assert act(config, "resume", "", "page", 20.0).text == "lifted: home (by page)"
        assert act(config, "halt", "looks wrong", "page", 20.0).ok
        done = act(config, "resume", "", "page", 20.0)
        assert done.ok and done.text == "lifted: looks wrong (by page)" and done.switch.why == "looks wrong"
        assert killswitch.state(config.state_dir) is None
        assert act(config, "reduce", "wind down", "page", 20.0).text == "reducing: wind down (by page)"
        assert act(config, "flatten", "now", "page", 20.0).text == "flattening: wind down (by page)"
        assert killswitch.reduction(config.state_dir).flatten
        assert act(config, "reduce", "x", "page", 0.0).text.startswith("still flattening: wind down (by page)")
        assert act(config, "resume", "", "page", 20.0).ok and killswitch.reduction(config.state_dir) is None
        assert act(config, "resume", "", "page", 20.0)[:3] == (True, "nothing was halted", None)
        executor.barred = "RATE_VENUE"  # it would, and may not
        until(lambda: executor.telemetry.told()["barred"])
        assert not act(config, "resume", "", "page", 0.0).ok
        executor.obstinate = "DISARMED"
        until(lambda: executor.telemetry.told()["state"] == "DISARMED")
        assert act(config, "resume", "", "page", 0.0)[:2] == (False, "nothing was halted; but the executor is DISARMED")
    finally:
        executor.close()


@pytest.mark.parametrize("action", ACTIONS)
def test_what_nobody_confirms_is_told_as_such_and_the_switch_is_set_all_the_same(config, action):
    done = act(config, action, "x", "page", 0.0)
    assert not done.ok and "no executor confirms it" in done.text
    assert ("no working orders" in done.text) == (done.outcomes == ()) == (action == "halt") and not done.problem
    assert (killswitch.state(config.state_dir) is not None) == (action == "halt")
    assert (killswitch.reduction(config.state_dir) is not None) == (action in ("reduce", "flatten"))
