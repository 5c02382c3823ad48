"""The interpreter and the packages: those that are needed, in the versions of the lock file."""

import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from common.doctor.check import Check, Finding, error, note, ok, warning
from common.doctor.patient import Patient

PROJECT = "predictive-alpha"
OLDEST = (3, 11)
_SHOWN = 6
_INSTALL = "pip install -c requirements.lock -e ."


class Python(NamedTuple):
    version: tuple[int, int, int]
    implementation: str
    executable: str
    isolated: bool  #: an environment of its own


class Packages(NamedTuple):
    installed: dict[str, str]  #: name -> version
    locked: dict[str, str]  #: name -> version, for this interpreter and system
    needed: dict[str, str]  #: name -> the versions that will do
    wrong: list[str]  #: needed, installed, and not of such a version
    used: frozenset[str]  #: needed, or needed by what is
    extras: dict[str, list[str]]  #: extra -> what of it is not installed


def look_python(patient: Patient) -> Python:
    return Python(sys.version_info[:3], sys.implementation.name, sys.executable, sys.prefix != sys.base_prefix)


def judge_python(found: Python) -> Iterator[Finding]:
    version = ".".join(map(str, found.version))
    if found.version[:2] < OLDEST:
        yield error(f"Python {version}, {found.executable}", "3.11 is the oldest that runs this",
                    "make PYTHON=python3.12 run")
    elif found.implementation != "cpython":
        yield error(f"Python {version} is {found.implementation}", "the compiled packages are made for CPython",
                    "make PYTHON=python3.12 run")
    else:
        yield ok(f"Python {version}")
    if not found.isolated:
        yield note(f"{found.executable} is the system's interpreter", "packages of other programs change with ours",
                   "make run, which makes an environment in .venv")


def look_packages(patient: Patient) -> Packages:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    def applicable(line: str, extra: str = "") -> Requirement | None:
        requirement = Requirement(line)
        holds = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        return requirement if holds else None

    installed = {canonicalize_name(found.metadata["Name"]): found.version for found in metadata.distributions()
                 if found.metadata["Name"]}
    locked = {}
    for line in (patient.root / "requirements.lock").read_text().splitlines():
        if line and not line.lstrip().startswith("#") and (found := applicable(line)):
            locked[canonicalize_name(found.name)] = str(found.specifier).removeprefix("==")
    project = tomllib.loads((patient.root / "pyproject.toml").read_text())["project"]
    needed, wrong = {}, []
    for line in project["dependencies"]:
        if found := applicable(line):
            name = canonicalize_name(found.name)
            needed[name] = str(found.specifier)
            if name in installed and not found.specifier.contains(installed[name], prereleases=True):
                wrong.append(name)
    extras = {}
    for extra, lines in project["optional-dependencies"].items():
        names = [canonicalize_name(found.name) for line in lines if (found := applicable(line, extra))]
        if missing := [name for name in names if name not in installed]:
            extras[extra] = missing
    used, ahead = set(), list(needed)
    while ahead:
        name = ahead.pop()
        if name in installed and name not in used:
            used.add(name)
            ahead += [canonicalize_name(found.name) for line in metadata.requires(name) or ()
                      if (found := applicable(line))]
    return Packages(installed, locked, needed, wrong, frozenset(used), extras)


def judge_packages(found: Packages) -> Iterator[Finding]:
    for name, wanted in found.needed.items():
        if name not in found.installed:
            yield error(f"{name} is not installed", f"{name}{wanted} is needed", _INSTALL)
        elif name in found.wrong:
            yield error(f"{name} {found.installed[name]} is installed", f"{name}{wanted} is needed", _INSTALL)
    other = [name for name, version in sorted(found.installed.items())
             if name in found.locked and version != found.locked[name] and name not in found.wrong]
    for level, names, whose in ((warning, [name for name in other if name in found.used], ""),
                                (note, [name for name in other if name not in found.used], ", of extras and tools")):
        if names:
            told = [f"{name} {found.installed[name]} (lock: {found.locked[name]})" for name in names[:_SHOWN]]
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            yield level(f"other versions than the lock file's{whose}: {', '.join(told)}{more}",
                        "only the locked ones were tested together",
                        f"pip install {' '.join(f'{name}=={found.locked[name]}' for name in names[:_SHOWN])}")
    missing = [name for name in found.needed if name not in found.installed]
    if not other and not missing and not found.wrong:
        count = sum(name in found.locked for name in found.installed)
        yield ok(f"{count} packages, all in the versions of the lock file")
    for extra, missing in found.extras.items():
        yield note(f"extra {extra}: {', '.join(missing)} not installed", "commands that need it say so and end",
                   f"pip install -c requirements.lock -e '.[{extra}]'")


PYTHON = Check("python", "the interpreter", look_python, judge_python)
PACKAGES = Check("packages", "installed packages against requirements.lock; extras", look_packages, judge_packages)

