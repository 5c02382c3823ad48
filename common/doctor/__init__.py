"""What may be wrong with a machine and an instance, each thing a check, known by existing.

A module of this package that holds instances of `Check` adds them; nothing else needs to be told of it. A check looks
(files of /proc, sockets, the journal: `look`) and judges what it saw (`judge`, which is pure). Nothing here changes
anything, and whatever goes wrong with a check is a finding of it.
"""

import importlib
import pkgutil
import threading
from collections.abc import Callable, Sequence
from functools import cache

from common.doctor.check import OFFLINE, Check, Report, note, warning
from common.doctor.patient import Patient
from common.errors import ConfigError

LIMIT_S = 20.0  #: that one check may take once all before it have ended


@cache
def checks() -> dict[str, Check]:
    """Every check by its name, those of one module together."""
    found: dict[str, Check] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for item in vars(importlib.import_module(module.name)).values():
            if isinstance(item, Check):
                found[item.name] = item
    return found


def examine(patient: Patient, names: Sequence[str] = (), offline: bool = False,
            progress: Callable[[str], None] = lambda name: None, limit_s: float = LIMIT_S) -> list[Report]:
    """The reports of the checks `names`, or of all, in their order. Those that use the network are under way from the
    beginning, beside the others. Raises ConfigError for a name that no check has."""
    known = checks()
    for name in names:
        if name not in known:
            raise ConfigError("there is no such check", where=name, remedy=f"known: {', '.join(known)}")
    chosen = [check for name, check in known.items() if not names or name in names]
    turns = {check.name: _Turn(check, patient) for check in chosen if check.network and not offline}
    for turn in turns.values():
        turn.start()
    reports = {}
    for check in sorted(chosen, key=lambda check: check.network):
        progress(check.name)
        if check.network and offline:
            reports[check.name] = Report(check.name, check.about, [], OFFLINE)
            continue
        turn = turns.get(check.name)
        if turn is None:
            turn = _Turn(check, patient)
            turn.start()
        reports[check.name] = turn.report(limit_s)
    return [reports[check.name] for check in chosen]


class _Turn:
    """One check in a thread of its own: what waits for a disk or a name server for ever does not keep the others."""

    def __init__(self, check: Check, patient: Patient) -> None:
        self._check, self._patient = check, patient
        self._found: list = []
        self._thread = threading.Thread(target=self._go, name=check.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def report(self, limit_s: float) -> Report:
        check = self._check
        self._thread.join(limit_s)
        if self._thread.is_alive():
            late = warning(f"could not be looked at: no end after {limit_s:g} s", "it may be this that hangs",
                           f"alpha doctor --only {check.name}; look for a disk or a name server that does not answer")
            return Report(check.name, check.about, [late], "it did not end")
        return self._found[0]

    def _go(self) -> None:
        check, patient = self._check, self._patient
        if check.needs_config and patient.config is None:
            unknown = note("not looked at: it needs a configuration that loads", "what depends on it is not known",
                           "mend the configuration first")
            self._found.append(Report(check.name, check.about, [unknown], "no configuration"))
            return
        self._found.append(check.examine(patient))
