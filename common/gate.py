"""Whether anything may trade: what people have said by the files of the kill switch, what the executor has halted for,
and what it still waits for. It reads and writes those files, and no others.

    HALTED       until a person resumes               DISARMED   on a live venue, until a person arms
    RECONCILING  until positions are compared         REDUCING   only what shrinks a position leaves
    ACTIVE       any order may leave                  FLATTENING and all that is held does

ACTIVE, REDUCING and FLATTENING are barred all the same while what is held has no price, or the venue asks for a pause.
"""

import logging
from pathlib import Path
from typing import NamedTuple

from common import killswitch
from common.errors import ResourceError
from common.killswitch import Reduction
from common.risk import ACTIVE, FLATTENING, REDUCING

_log = logging.getLogger("executor")


class Permission(NamedTuple):
    """`barred` is the reason with which every prediction is refused, "" where none is."""

    state: str
    barred: str
    why: str


class Gate:
    """`live`: nothing trades before a person has armed it, anew at each start."""

    def __init__(self, folder: Path, live: bool) -> None:
        self._folder, self._live = folder, live
        self._halt_file = str(folder / killswitch.FILE)
        self._armed_file = str(folder / killswitch.ARMED_FILE)
        self._reduce_file = str(folder / killswitch.REDUCE_FILE)
        self._is_filed = False  # the halt is in the file
        self.halted = ""  #: why, or ""
        self.armed = not live
        self.reduction: Reduction | None = None
        self.reconciled = False  #: with the venue, since the start and since the last halt was lifted
        self.waiting_for = ""  #: while it is not
        self.paused_until_ns = 0  #: monotonic; the venue wants nothing before

    @property
    def mode(self) -> int:
        """ACTIVE, REDUCING or FLATTENING."""
        return ACTIVE if self.reduction is None else FLATTENING if self.reduction.flatten else REDUCING

    def begin(self) -> None:
        """As at a start. Raises ResourceError where that cannot be kept."""
        if self._live:
            killswitch.disarm(self._folder)

    def look(self) -> bool:
        """Follow the kill switch: halted while the file is there, to be reconciled anew once it is gone; armed while
        that file is there. Whether anything has changed. About 3 us."""
        present, changed = killswitch.present(self._halt_file), False
        if present and not self._is_filed:
            found = killswitch.state(self._folder)
            self._is_filed = changed = True
            self.halted = self.halted or (f"{found.why} (by {found.who})" if found else "the halt file")
            _log.warning("halted: %s", self.halted)
        elif not present and self._is_filed:
            _log.warning("resumed; comparing with the venue before anything trades")
            self.halted, self._is_filed, self.reconciled, changed = "", False, False, True
        if self._live and killswitch.present(self._armed_file) != self.armed:
            self.armed, changed = not self.armed, True
            _log.warning("armed" if self.armed else "disarmed")
        return changed

    def look_for_reduction(self) -> bool:
        """Follow reduce.json. Whether anything has changed."""
        present = killswitch.present(self._reduce_file)
        if not present and self.reduction is None:
            return False
        found = killswitch.reduction(self._folder) if present else None
        if found == self.reduction:
            return False
        if found is None:
            _log.warning("no longer reducing")
        elif self.reduction is None or found.flatten != self.reduction.flatten:
            _log.warning("%s: %s (by %s)", "flattening" if found.flatten else "reducing", found.why, found.who)
        self.reduction = found
        return True

    def halt(self, why: str) -> bool:
        """Stop trading, until a person resumes; whether it was not stopped before."""
        if self.halted:
            return False
        _log.error("halting: %s", why)
        self.halted = why
        try:
            killswitch.halt(self._folder, why, who="executor")
            self._is_filed = True
        except ResourceError as error:
            _log.error("%s; halted in memory, until a restart", error)
        return True

    def restrain(self, why: str, flatten: bool) -> None:
        """Let nothing leave but what shrinks a position, until a person resumes; with `flatten` leave all of them.
        Halts where that cannot be kept."""
        try:
            killswitch.reduce(self._folder, why, who="executor", flatten=flatten)
        except ResourceError as error:
            self.halt(f"{why}; {error}")
        else:
            self.look_for_reduction()

    def permission(self, marked: bool, now: int) -> Permission:
        """From all that bears on it; `marked`: what is held has a price."""
        if self.halted:
            return Permission("HALTED", "STATE_HALTED", self.halted)
        if not self.armed:
            return Permission("DISARMED", "STATE_DISARMED", "a live venue: `alpha arm` lets it trade")
        if not self.reconciled:
            return Permission("RECONCILING", "STATE_RECONCILING", self.waiting_for)
        state, why = "ACTIVE", ""
        if self.reduction:
            state, why = "FLATTENING" if self.reduction.flatten else "REDUCING", self.reduction.why
        if not marked:
            return Permission(state, "STATE_UNMARKED", "something is held that has no price: its loss is not known")
        if now < self.paused_until_ns:
            return Permission(state, "RATE_VENUE", "the venue asked for a pause")
        return Permission(state, "", why)
