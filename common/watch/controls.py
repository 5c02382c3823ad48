"""What may be done to a running pipeline from afar: halt, reduce, flatten, resume, by the kill switch's files.

The commands of those names (procs/halt.py) do the same, with the same parts. Whether the executor has done it is looked
up in its telemetry; where nobody confirms a halt, working orders are cancelled at the venue from here (common.guard).
"""

import getpass
import os
import time
from typing import NamedTuple

from common import guard, killswitch
from common.clock import SystemClock
from common.config import Config, told
from common.errors import AlphaError
from common.overview import Overview
from common.risk import ACTIVE, FLATTENING, REDUCING

ACTIONS = ("halt", "reduce", "flatten", "resume")
PATIENCE_S = 2.0  #: for the executor's confirmation


class Done(NamedTuple):
    """What came of it. `ok` if the executor confirms; `text` says what happened, for people."""

    ok: bool
    text: str


def act(config: Config, action: str, why: str, who: str, patience_s: float = PATIENCE_S) -> Done:
    """Do one of ACTIONS; returns within `patience_s`, or some seconds more where a halt is not confirmed and working
    orders are cancelled from here. Raises ResourceError if the switch cannot be written."""
    folder = config.state_dir
    if action == "halt":
        found = killswitch.halt(folder, why, who)
        if is_confirmed(config.instance.name, patience_s, halted=1):
            return Done(True, f"halted: {found.why} (by {found.who})")
        return Done(False, f"halted: {found.why}; no executor confirms it: none runs, or it hangs. "
                           f"{_cancelled(config)}")
    if action == "resume":
        lifted = killswitch.resume(folder)
        text = f"lifted: {lifted.why} (by {lifted.who})" if lifted else "nothing was halted"
        shown = is_confirmed(config.instance.name, patience_s, halted=0, reducing=ACTIVE)
        return Done(shown, text if shown else f"{text}; the executor does not confirm that it trades")
    found = killswitch.reduce(folder, why, who, flatten=action == "flatten")
    shown = is_confirmed(config.instance.name, patience_s, reducing=FLATTENING if found.flatten else REDUCING)
    text = f"{'flattening' if found.flatten else 'reducing'}: {found.why} (by {found.who})"
    return Done(shown, text if shown else f"{text}; no executor confirms it: none runs, or it hangs")


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


def cancel(config: Config) -> tuple[list[guard.Outcome], str]:
    """Cancel working orders without the executor, by the configuration that it was started with. Returns what became
    of them, and what stood in the way."""
    try:
        return guard.cancel_working(told(config, "executor"), SystemClock()), ""
    except AlphaError as error:
        return [], str(error)


def _cancelled(config: Config) -> str:
    outcomes, problem = cancel(config)
    if problem:
        return f"Working orders could not be cancelled from here: {problem}"
    if not outcomes:
        return "The journal knows no working orders."
    return "; ".join(f"{one.client_id} {one.symbol}: {'' if one.done else 'NOT CANCELLED: '}{one.what}"
                     for one in outcomes)
