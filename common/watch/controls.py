"""What a person may do to a running pipeline: halt, reduce, flatten, resume, by the kill switch's files.

The commands of those names (procs/halt.py), the page and `alpha top` all go this way and say what it says. Whether the
executor has done it is looked up in its telemetry; where nobody confirms a halt, working orders are cancelled at the
venue from here (common.guard).
"""

import getpass
import os
import time
from typing import NamedTuple

from common import guard, killswitch
from common.clock import SystemClock
from common.config import Config, told
from common.errors import AlphaError
from common.killswitch import Halt, Reduction
from common.overview import Overview

ACTIONS = ("halt", "reduce", "flatten", "resume")
PATIENCE_S = 2.0  #: for the executor's confirmation
_HOLD_S = 0.2  #: that trading must go on for: what halted it may do so again at the next look


class Done(NamedTuple):
    """What came of it."""

    ok: bool  #: the executor confirms it
    text: str  #: what happened, for people: a line, and one more for each order that was cancelled from here
    switch: Halt | Reduction | None = None  #: what is in force now; of a resume what was until then
    outcomes: tuple[guard.Outcome, ...] | None = None  #: of working orders, where they were cancelled from here
    problem: str = ""  #: that kept them from being cancelled


def act(config: Config, action: str, why: str, who: str, patience_s: float = PATIENCE_S,
        lift: bool = False) -> Done:
    """Do one of ACTIONS; returns within `patience_s`, or some seconds more where a halt is not confirmed and working
    orders are cancelled from here. With `lift` a reduction takes the place of a halt. Raises ResourceError if the
    switch cannot be written."""
    folder, instance = config.state_dir, config.instance.name
    if action == "halt":
        switch = killswitch.halt(folder, why, who)
        # The first reason stays: it may be another than the one that was given now.
        text = f"halted{'' if (switch.why, switch.who) == (why, who) else ' already'}: {_reason(switch)}"
        unseen = _unseen(instance, patience_s, "HALTED")
        if not unseen:
            return Done(True, text, switch)
        outcomes, problem = _cancel(config)
        lines = [text + unseen, *(f"  {one.client_id} {one.symbol}: {'' if one.done else 'NOT CANCELLED: '}{one.what}"
                                   for one in outcomes)]
        if problem:
            lines.append(f"  working orders could not be cancelled from here: {problem}")
        elif not outcomes:
            lines.append("  the journal knows no working orders")
        return Done(False, "\n".join(lines), switch, outcomes, problem)
    if action == "resume":
        lifted = killswitch.resume(folder)
        text = f"lifted: {_reason(lifted)}" if lifted else "nothing was halted"
        unseen = _unseen(instance, patience_s, "ACTIVE")
        return Done(not unseen, text + unseen, lifted)
    reduction = killswitch.reduce(folder, why, who, flatten=action == "flatten")
    doing = "reducing" if not reduction.flatten else "flattening" if action == "flatten" else "still flattening"
    text = f"{doing}: {_reason(reduction)}"
    if lift and (lifted := killswitch.lift(folder)):
        text += f"; lifted: {_reason(lifted)}"
    unseen = _unseen(instance, patience_s, "FLATTENING" if reduction.flatten else "REDUCING")
    return Done(not unseen, text + unseen, reduction)


def _reason(switch: Halt | Reduction) -> str:
    return f"{switch.why} (by {switch.who})"


def who() -> str:
    """Who is at the keyboard, if the machine knows: a container may not. The switch does not depend on it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _unseen(instance: str, patience_s: float, state: str) -> str:
    """"" once the executor says within `patience_s` that it is in this state; else what it says instead."""
    end, overview, since = time.monotonic() + patience_s, Overview(instance), 0.0
    while True:
        overview.refresh()
        now, alive = time.monotonic(), overview.ready("executor")
        words = overview.stages["executor"].told() if alive else {}
        if words.get("state") != state or state != "HALTED" and words.get("barred"):
            since = 0.0
        elif now >= (since := since or now) + (_HOLD_S if state == "ACTIVE" else 0.0):
            return ""
        if now >= end and not since:
            break
        time.sleep(0.02)
    if not alive:
        return "; no executor confirms it: none runs, or it hangs (alpha status)"
    return f"; but the executor is {words.get('state')}" + (f": {words['why']}" if words.get("why") else "")


def _cancel(config: Config) -> tuple[tuple[guard.Outcome, ...], str]:
    """Cancel working orders without the executor, by the configuration that it was started with. Returns what became
    of them, and what stood in the way."""
    try:
        return tuple(guard.cancel_working(told(config, "executor"), SystemClock())), ""
    except AlphaError as error:
        return (), str(error)
