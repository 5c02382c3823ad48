"""A check and what comes of it."""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from common.doctor.patient import Patient
from common.errors import AlphaError

OFFLINE = "left out: offline"


class Level(enum.IntEnum):
    """How bad it is. A note is worth knowing and asks for nothing at once."""

    OK = 0
    NOTE = 1  #: worth knowing
    WARNING = 2  #: it works, but slower, less safely or not for long
    ERROR = 3  #: it does not work, or must not trade


class Finding(NamedTuple):
    level: Level
    what: str  #: what was found, with numbers
    why: str = ""  #: why it matters, in one clause
    remedy: str = ""  #: what to do, a command where there is one


def ok(what: str) -> Finding:
    return Finding(Level.OK, what)


def note(what: str, why: str, remedy: str) -> Finding:
    return Finding(Level.NOTE, what, why, remedy)


def warning(what: str, why: str, remedy: str) -> Finding:
    return Finding(Level.WARNING, what, why, remedy)


def error(what: str, why: str, remedy: str) -> Finding:
    return Finding(Level.ERROR, what, why, remedy)


def refused(problem: AlphaError, why: str, remedy: str) -> Finding:
    """One of our own errors as a finding; `remedy` where it has none itself."""
    return error(problem.what + (f" ({problem.where})" if problem.where else ""), why, problem.remedy or remedy)


class Report(NamedTuple):
    check: str
    about: str
    findings: list[Finding]
    unlooked: str = ""  #: why nothing was looked at

    @property
    def worst(self) -> Level:
        return max((finding.level for finding in self.findings), default=Level.OK)


@dataclass(frozen=True)
class Check:
    """`judge(look(patient))` are its findings. `look` reads and changes nothing; `judge` is pure: facts in, findings
    out, each that is not ok with a remedy."""

    name: str
    about: str
    look: Callable[[Patient], Any]
    judge: Callable[[Any], Iterable[Finding]]
    needs_config: bool = False  #: left out where the configuration does not load
    network: bool = False  #: asks other machines

    def examine(self, patient: Patient) -> Report:
        """Never raises: a check that fails is a finding. No secret of the environment is in what it says."""
        unlooked = ""
        try:
            findings = list(self.judge(self.look(patient)))
        except Exception as problem:  # whatever it is, it is to be told and not to end the other checks
            unlooked = f"{type(problem).__name__}: {problem}"
            findings = [warning(f"could not be looked at: {unlooked}", "what it would have found is not known",
                                f"alpha doctor --only {self.name}, and see what it needs")]
        clean = [Finding(level, *map(patient.scrub, words)) for level, *words in findings]
        return Report(self.name, self.about, clean, patient.scrub(unlooked))
