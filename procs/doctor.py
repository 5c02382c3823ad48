"""doctor: what is wrong with this machine and this instance, and how to mend it."""

import json
import os
import sys
from collections.abc import Mapping, Sequence

import click

from common import shm
from common.doctor import checks, examine
from common.doctor.check import OFFLINE, Finding, Level, Report
from common.doctor.memory import leftovers
from common.doctor.patient import Patient
from common.stage import exit_on_error

EXIT_CODES = {Level.OK: 0, Level.NOTE: 0, Level.WARNING: 1, Level.ERROR: 5}
_WIDTH = 12


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--only", "names", multiple=True, metavar="NAME", help="This check alone; may be repeated.")
@click.option("--offline", is_flag=True, help="Ask no other machine, nor the loopback exchange.")
@click.option("--fix", is_flag=True, help="First remove shared memory of instances of which nothing lives any more.")
@click.option("--verbose", is_flag=True, help="Also tell what is well, check by check.")
@click.option("--list", "listing", is_flag=True, help="List the checks, and look at nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(path: str | None, names: tuple[str, ...], offline: bool, fix: bool, verbose: bool, listing: bool,
           as_json: bool) -> None:
    """Look for what is wrong with this machine and this instance, and tell how to mend each thing.

    \b
    alpha doctor                          everything, in some seconds; the worst comes last
    alpha doctor --only shm --only disk
    alpha doctor --offline --json         for programs

    It changes nothing, whether the pipeline runs or not, and says no secret. A configuration that does not load is a
    finding, and what does not need it is looked at all the same. With --fix it removes what is left in shared memory
    where no lock is held and no writer lives; every other remedy is left to you.

    \b
    Exit codes
      0  nothing worse than a note
      1  a warning: it works, but slower, less safely or not for long
      2  a check of --only does not exist
      5  an error: it does not work, or must not trade
    """
    if listing:
        _list(as_json)
        return
    with exit_on_error():
        patient = patient_of(path)
        swept = [name for instance in leftovers(patient) for name in shm.sweep(instance)] if fix else []
        try:
            reports = examine(patient, names, offline, _say)
        finally:
            _say("")
    worst = max(report.worst for report in reports)
    if as_json:
        print(json.dumps({"worst": worst.name.lower(), "exit_code": EXIT_CODES[worst], "removed": swept,
                          "checks": [_plain(report) for report in reports]}, indent=1))
    else:
        for name in swept:
            print(f"removed {name}")
        _print(reports, verbose)
    sys.exit(EXIT_CODES[worst])


def patient_of(path: str | None, environ: Mapping[str, str] = os.environ) -> Patient:
    """With what belongs to the commands: stages' counters, the model's examination, the supervisor's configuration."""
    from procs import exchange, executor, feature, inference, ingest, monitor
    from procs.model import examine as examine_model
    from procs.run import ROOT, render

    modules = (exchange, ingest, feature, inference, executor, monitor)
    stages = {module.__name__.rpartition(".")[2]: (
        module.COUNTERS, getattr(module, "TIMERS", ()), getattr(module, "NOTES", 0)) for module in modules}
    source = Patient.of(path, environ).source or ROOT / "alpha.toml"
    return Patient.of(path, environ, stages=stages,
                      examine_model=lambda model, config: examine_model(model, config, (1,)),
                      render=lambda config: render((ROOT / "supervisord.conf").read_text(), config, source))


def _list(as_json: bool) -> None:
    told = [{"name": check.name, "about": check.about, "network": check.network} for check in checks().values()]
    if as_json:
        print(json.dumps(told, indent=1))
        return
    for check in told:
        print(f"{check['name']:<{_WIDTH}} {check['about']}{' (network)' if check['network'] else ''}")


def _say(name: str) -> None:
    """What is looked at, where there is a terminal; each word takes the place of the one before."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{name}{' ...' if name else ''}")
        sys.stderr.flush()


def _plain(report: Report) -> dict:
    return {"name": report.check, "about": report.about, "level": report.worst.name.lower(),
            "unlooked": report.unlooked, "findings": [{**finding._asdict(), "level": finding.level.name.lower()}
                                                      for finding in report.findings]}


def _print(reports: Sequence[Report], verbose: bool) -> None:
    """The worst comes last, next to the prompt."""
    found = sorted(((finding, report.check) for report in reports for finding in report.findings),
                   key=lambda pair: pair[0].level)
    well = sorted({report.check for report in reports if report.findings and report.worst == Level.OK})
    for finding, check in found:
        if finding.level > Level.OK:
            _show(finding, check)
        elif verbose:
            print(f"{'ok':<8} {check:<{_WIDTH}} {finding.what}")
    out = [report.check for report in reports if report.unlooked == OFFLINE]
    if out:
        print(f"left out {', '.join(out)}: --offline")
    if well and not verbose:
        print(f"ok       {', '.join(well)}")
    counts = {level: sum(finding.level == level for finding, _ in found) for level in Level}
    print(f"{counts[Level.ERROR]} errors, {counts[Level.WARNING]} warnings, {counts[Level.NOTE]} notes "
          f"by {len(reports)} checks")


def _show(finding: Finding, check: str) -> None:
    level = finding.level.name.lower()
    colour = {Level.ERROR: "red", Level.WARNING: "yellow"}.get(finding.level)
    click.echo(f"{click.style(f'{level:<8}', fg=colour)} {check:<{_WIDTH}} {finding.what}")
    indent = " " * (10 + _WIDTH)
    click.echo(f"{indent}why: {finding.why}")
    click.echo(f"{indent}mend: {finding.remedy}")
