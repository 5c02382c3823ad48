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
from common.risk import ACTIVE, FLATTENING, REDUCING

ACTIONS = ("halt", "reduce", "flatten", "resume")
PATIENCE_S = 2.0  #: for the executor's confirmation
_UNSEEN = "; no executor confirms it: none runs, or it hangs (alpha status)"


class Done(NamedTuple):
    """What came of it."""

    ok: bool  #: the executor confirms it
    text: str  #: what happened, for people: a line, and one more for each order that was cancelled from here
    switch: Halt | Reduction | None = None  #: what is in force now; of a resume what was until then
    outcomes: tuple[guard.Outcome, ...] | None = None  #: of working orders, where they were cancelled from here
    problem: str = ""  #: that kept them from being cancelled


def act(config: Config, action: str, why: str, who: str, patience_s: float = PATIENCE_S) -> Done:
    """Do one of ACTIONS; returns within `patience_s`, or some seconds more where a halt is not confirmed and working
    orders are cancelled from here. Raises ResourceError if the switch cannot be written."""
    folder, instance = config.state_dir, config.instance.name
    if action == "halt":
        switch = killswitch.halt(folder, why, who)
        text = f"halted: {_reason(switch)}"
        if is_confirmed(instance, patience_s, halted=1):
            return Done(True, text, switch)
        outcomes, problem = _cancel(config)
        lines = [text + _UNSEEN, *(f"  {one.client_id} {one.symbol}: {'' if one.done else 'NOT CANCELLED: '}{one.what}"
                                   for one in outcomes)]
        if problem:
            lines.append(f"  working orders could not be cancelled from here: {problem}")
        elif not outcomes:
            lines.append("  the journal knows no working orders")
        return Done(False, "\n".join(lines), switch, outcomes, problem)
    if action == "resume":
        lifted = killswitch.resume(folder)
        text = f"lifted: {_reason(lifted)}" if lifted else "nothing was halted"
        shown = is_confirmed(instance, patience_s, halted=0, reducing=ACTIVE)
        return Done(shown, text + ("" if shown else "; the executor does not confirm that it trades (alpha status)"),
                    lifted)
    reduction = killswitch.reduce(folder, why, who, flatten=action == "flatten")
    shown = is_confirmed(instance, patience_s, reducing=FLATTENING if reduction.flatten else REDUCING)
    text = f"{'flattening' if reduction.flatten else 'reducing'}: {_reason(reduction)}"
    return Done(shown, text + ("" if shown else _UNSEEN), reduction)


def _reason(switch: Halt | Reduction) -> str:
    return f"{switch.why} (by {switch.who})"


def who() -> str:
    """Who is at the keyboard, if the machine knows: a container may not. The switch does not depend on it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def is_confirmed(instance: str, patience_s: float = PATIENCE_S, **gauges: int) -> bool:
    """Whether a living executor shows these within `patience_s`."""
    end, overview = time.monotonic() + patience_s, Overview(instance)
    while True:
        overview.refresh()
        if overview.ready("executor") and all(
                overview.get("executor", name) == value for name, value in gauges.items()):
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)


def _cancel(config: Config) -> tuple[tuple[guard.Outcome, ...], str]:
    """Cancel working orders without the executor, by the configuration that it was started with. Returns what became
    of them, and what stood in the way."""
    try:
        return tuple(guard.cancel_working(told(config, "executor"), SystemClock())), ""
    except AlphaError as error:
        return (), str(error)
