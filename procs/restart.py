"""restart STAGE: one stage ends in order and begins again, by the supervisor that keeps it; the others go on."""

import os
import signal
import sys
import time
import xmlrpc.client
from pathlib import Path

import click

from common import programs
from common.config import DEFAULT_FILE, ENV_CONFIG, Config, load
from common.errors import AlphaError, ConfigError, InstanceError, ResourceError
from common.log_files import last_words
from common.overview import Overview
from common.programs import Program
from common.stage import BY_SYSTEMD, SUPERVISED, exit_on_error
from common.units import service_name
from procs.run import ROOT, Duration, render, supervisor_at

_NOTHING = 7
_NOT_RUNNING, _ALREADY_STARTED = 70, 60  # faults of supervisord that are none here
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.argument("stage")
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--timeout", type=Duration(), default="90s", show_default=True,
              help="How long the stage may take to be ready again.")
def restart(stage: str, path: str | None, timeout: float) -> None:
    """Start STAGE again, named as in `alpha status`, and wait until it is ready: it ends in order first.

    Asks the supervisord of this instance, that of `alpha run` or one that was started with supervisord.conf. The stage
    reads the configuration anew, but in the environment in which supervisord was started. The others go on; what the
    stage had in memory is taken up as after a crash, and its counters begin at 0. An executor on a live venue is
    disarmed afterwards. Stages under systemd are for systemctl: the command is told. Writes nothing.

    \b
    Examples
      alpha restart feature
      alpha restart inference-1 --timeout 3m

    \b
    Exit codes  0 it is ready again; 2 there is no such stage, or the configuration is wrong; 5 it does not become
                ready; 6 something else keeps it: systemd, or a terminal; 7 nothing runs
    """
    with exit_on_error():
        config = load(path)
        program, number = _program(config, path, stage)
        name = program.stage(number)
        overview = Overview(config.instance.name)
        overview.refresh()
        if not any(state.usage for state in overview.states().values()):
            print(f"nothing of instance {config.instance.name!r} runs; start it with: alpha run", file=sys.stderr)
            sys.exit(_NOTHING)
        supervisor, asked = _find(config, overview, program, number)
        before = overview.get(name, "pid"), overview.get(name, "started_ns")
        armed = name == "executor" and overview.get(name, "armed")
        began = time.monotonic()
        _again(supervisor, asked)
        _await(config, overview, supervisor, asked, name, before, timeout)
        print(f"{name} is ready again after {time.monotonic() - began:.1f} s, pid {overview.get(name, 'pid')}")
        if armed and not overview.get(name, "armed"):
            print("it is disarmed, as after every start on a live venue: alpha arm")


def _program(config: Config, path: str | None, stage: str) -> tuple[Program, int]:
    """The program of supervisord.conf that a stage is, and its number. Raises ConfigError where there is none."""
    source = Path(path or os.environ.get(ENV_CONFIG) or DEFAULT_FILE).resolve()
    found = {}
    for program in programs.parse(render((ROOT / "supervisord.conf").read_text(), config, source)):
        for number in range(program.count):
            found[program.stage(number)] = found[_process(program, number)] = program, number
    if stage not in found:
        names = sorted({program.stage(number) for program, number in found.values()})
        raise ConfigError(f"there is no stage {stage}", where=f"instance {config.instance.name!r}",
                          remedy=f"stages are: {', '.join(names)}")
    return found[stage]


def _process(program: Program, number: int) -> str:
    """What supervisord calls it."""
    return f"{program.name}-{number}" if program.numbered else program.name


def _find(config: Config, overview: Overview, program: Program, number: int) -> tuple[xmlrpc.client.ServerProxy, str]:
    """The supervisord of this instance, and how the stage is asked for. Raises InstanceError where there is none."""
    pids = {telemetry.get("pid") for telemetry in overview.stages.values()}
    asked = _process(program, number)
    for control in (config.run_dir / "supervisor.sock", ROOT / ".alpha" / "supervisor.sock"):
        try:
            supervisor = supervisor_at(control)
            kept = supervisor.getAllProcessInfo()
        except (OSError, xmlrpc.client.Error):
            continue  # none listens there
        # One that was started by hand keeps whatever instance its environment named.
        if control.parent == config.run_dir or pids & {one["pid"] for one in kept if one["pid"]}:
            if any(one["name"] == asked and one["group"] == program.name for one in kept):
                return supervisor, f"{program.name}:{asked}"
    raise _kept_elsewhere(config, overview, program, number)


def _kept_elsewhere(config: Config, overview: Overview, program: Program, number: int) -> AlphaError:
    name = program.stage(number)
    state = overview.states().get(name)
    pid = overview.get(name, "pid") if state and state.usage else 0
    # A stage that has gone is kept by whoever keeps the others.
    for one in [pid] if pid else [telemetry.get("pid") for telemetry in overview.stages.values()]:
        if f"{SUPERVISED}={BY_SYSTEMD}".encode() in _read(f"/proc/{one}/environ").split(b"\0"):
            user = "" if b"user@" not in _read(f"/proc/{one}/cgroup") else " --user"
            service = service_name(config.instance.name, program, number if program.numbered else None)
            return InstanceError("systemd keeps the stages of this instance", where=name,
                                 remedy=f"systemctl{user} restart {service}")
    command = program.command.removeprefix("/usr/bin/env ").format(number)
    return InstanceError(f"no supervisor keeps {name}", where=f"pid {pid}" if pid else "it does not run",
                         remedy=f"{f'kill {pid}, then ' if pid else ''}{command}")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it has ended, or is somebody else's
        return b""


def _again(supervisor: xmlrpc.client.ServerProxy, asked: str) -> None:
    """Stop and start; what would end this command meanwhile waits, so that the stage is not left stopped."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        # It is waited for the end, not for the beginning: that is seen in telemetry, and sooner.
        for call, waits, harmless in ((supervisor.stopProcess, True, _NOT_RUNNING),
                                      (supervisor.startProcess, False, _ALREADY_STARTED)):
            try:
                call(asked, waits)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode != harmless:
                    raise ResourceError("supervisord does not start it again",
                                        where=f"{asked}: {fault.faultString}") from None
            except (OSError, xmlrpc.client.Error) as error:
                raise ResourceError("supervisord does not answer", where=f"{asked}: {error}") from None
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _await(config: Config, overview: Overview, supervisor: xmlrpc.client.ServerProxy, asked: str, name: str,
           before: tuple[int, int], seconds: float) -> None:
    """Until another process of that name is ready. Raises ResourceError where it does not become so."""
    end = time.monotonic() + seconds
    while True:
        overview.refresh()
        if (overview.get(name, "pid"), overview.get(name, "started_ns")) != before and overview.ready(name):
            return
        try:
            state = supervisor.getProcessInfo(asked)["statename"]
        except (OSError, xmlrpc.client.Error):
            state = "supervisord has ended"
        if state not in ("STARTING", "RUNNING", "STOPPING") or time.monotonic() > end:
            told = overview.stages[name].told() if name in overview.stages else {}
            raise ResourceError(f"{name} is not ready again", where=told.get("waiting_for") or (
                f"{state.lower()}: {last_words(config.state_dir, name)}"), remedy=f"alpha logs {name}")
        time.sleep(0.05)
