"""What runs: stages and their supervisor, processes that lost theirs, sockets and ports."""

import configparser
import os
import socket
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common import locks
from common.doctor import procfs
from common.doctor.check import Check, Finding, error, note, ok, refused, warning
from common.doctor.patient import Patient
from common.doctor.procfs import Listener, Process
from common.errors import AlphaError
from common.overview import Overview, StageState

_YOUNG_S = 30.0  # a process of less is still starting
_LONGEST = "tap.predictions.inference-63.sock"  # name of a socket
_SHUTDOWN = 6  # supervisor.xmlrpc.Faults.SHUTDOWN_STATE
_MAX_PATH = 107  # sockaddr_un, without the closing zero


class Processes(NamedTuple):
    found: list[Process]
    parents: dict[int, str]  #: pid -> what it is


class RunFolder(NamedTuple):
    folder: str
    there: bool
    sockets: dict[str, bool]  #: name -> whether its lock is held
    locks: int
    stale: list[str]  #: words that a killed process left half written


class Port(NamedTuple):
    """Where a stage listens, or is to listen."""

    stage: str
    host: str
    port: int
    taken: Listener | None
    pid: int  #: of who listens; 0: not to be seen
    who: str
    ours: bool  #: it is that stage of this instance
    elsewhere: str  #: how to have it listen elsewhere


class Stages(NamedTuple):
    found: dict[str, StageState]
    errors: dict[str, int]  #: stage -> how often it ended with one
    expected: tuple[str, ...]


class Supervisor(NamedTuple):
    wrong: AlphaError | None  #: why its configuration cannot be made
    programs: list[str]
    sockets: dict[str, str]  #: path -> why it does not answer; "" where it does
    states: list[tuple[str, str, str]]  #: process, state, description
    stopping: tuple[str, ...] = ()  #: paths of those that shut down


def look_processes(patient: Patient) -> Processes:
    found = [one for one in procfs.processes(patient.proc, os.getuid()) if one.stage]
    return Processes(found, {one.ppid: procfs.name_of(patient.proc, one.ppid) for one in found})


def judge_processes(found: Processes) -> Iterator[Finding]:
    wrong = 0
    for one in found.found:
        words, parent = f"{one.stage} (pid {one.pid})", found.parents.get(one.ppid, "")
        lost = one.supervised and "supervisord" not in parent
        adopted = one.ppid == 1 or parent.partition(" ")[0].rpartition("/")[2] in ("systemd", "init")
        mine = [lock for lock in one.locks if lock.rpartition("/")[2].startswith(f"stage.{one.stage}.lock")]
        if lost or (not one.supervised and adopted and not one.by_systemd):
            wrong += 1
            whom = "its supervisor" if lost else "who started it"
            yield warning(f"{words} lost {whom}: its parent is pid {one.ppid}",
                          "it keeps its sockets and memory, and nobody stops or restarts it", f"kill {one.pid}")
        if mine and all(lock.endswith(" (deleted)") for lock in mine):
            wrong += 1
            yield error(f"{words} holds a lock that is gone: {mine[0].removesuffix(' (deleted)')}",
                        "a second instance can start beside it, and both would trade", f"kill {one.pid}")
        elif not mine and one.age_s > _YOUNG_S:
            wrong += 1
            yield warning(f"{words} runs for {one.age_s:,.0f} s and holds no lock of its stage",
                          "it belongs to no instance", f"kill {one.pid}")
    if not wrong:
        yield ok(f"{len(found.found)} stages of this user, each where it belongs" if found.found else "no stages run")


def look_run_folder(patient: Patient) -> RunFolder:
    folder = patient.config.run_dir
    if not folder.is_dir():
        return RunFolder(str(folder), False, {}, 0, [])
    # `alpha run` holds one lock for the supervisor that it starts.
    held = {path.name: locks.holder(path.with_name("run.lock") if path.name == "supervisor.sock" else
                                    path.with_suffix(".lock")) is not None for path in sorted(folder.glob("*.sock"))}
    return RunFolder(str(folder), True, held, len(list(folder.glob("*.lock"))),
                     [path.name for path in sorted(folder.glob("*.new"))])


def judge_run_folder(found: RunFolder) -> Iterator[Finding]:
    longest = len(f"{found.folder}/{_LONGEST}".encode())
    if longest > _MAX_PATH:
        yield error(f"{found.folder}: sockets in it get paths of {longest} bytes", f"the system allows {_MAX_PATH}",
                    "set a shorter instance.run_dir")
    left = [name for name, held in found.sockets.items() if not held]
    if left:
        paths = " ".join(f"{found.folder}/{name}" for name in left)
        yield note(f"{len(left)} sockets without an owner in {found.folder}: {', '.join(left)}",
                   "a killed process left them; the next one takes their place", f"rm {paths}")
    if found.stale:
        yield note(f"half-written files in {found.folder}: {', '.join(found.stale)}", "a killed process left them",
                   "rm " + " ".join(f"{found.folder}/{name}" for name in found.stale))
    if not left and longest <= _MAX_PATH:
        yield ok(f"{found.folder}: {len(found.sockets)} sockets, {found.locks} lock files" if found.there else
                 f"{found.folder} is not there yet")


def look_ports(patient: Patient) -> list[Port]:
    config = patient.config
    wanted = {"exchange": (config.exchange.host, config.exchange.port, "set ALPHA_EXCHANGE__PORT with "
                           "ALPHA_MARKET__WS_URL, ALPHA_MARKET__REST_URL and ALPHA_EXECUTOR__BASE_URL")}
    if config.monitor.enabled and config.monitor.page:
        wanted["monitor"] = config.monitor.host, config.monitor.port, "set ALPHA_MONITOR__PORT"
    overview, listening = Overview(config.instance.name), []
    overview.refresh()
    for name in ("tcp", "tcp6"):
        listening += procfs.listeners(procfs.read(patient.proc / "net" / name))
    found = []
    for stage, (host, port, elsewhere) in wanted.items():
        taken = next((one for one in listening if one.port == port and one.host in (host, "0.0.0.0", "::")), None)
        pid = procfs.owner(patient.proc, taken.inode) if taken else 0
        ours = bool(pid) and stage in overview.stages and overview.stages[stage].get("pid") == pid
        found.append(Port(stage, host, port, taken, pid, procfs.name_of(patient.proc, pid) if pid else "", ours,
                          elsewhere))
    return found


def judge_ports(found: list[Port]) -> Iterator[Finding]:
    for one in found:
        address = f"{one.host}:{one.port}"
        if one.taken is None or one.ours:
            yield ok(f"{address} is free" if one.taken is None else f"{address} is this instance's {one.stage}")
            continue
        who = f"pid {one.pid} ({one.who[:80]})" if one.pid else "a process that is not to be seen from here"
        other = f"the {one.stage} of another instance, " if (
            procfs.stage_of(tuple(one.who.split())) == one.stage) else ""
        stop = f"kill {one.pid}" if one.pid else f"stop it (ss -ltnp 'sport = :{one.port}')"
        yield error(f"port {address} is taken by {other}{who}", f"the {one.stage} of this instance cannot start",
                    f"{stop}, or {one.elsewhere}")


def look_stages(patient: Patient) -> Stages:
    overview = Overview(patient.config.instance.name)
    overview.refresh()
    errors = {name: telemetry.get("errors") for name, telemetry in overview.stages.items()}
    return Stages(overview.states(), errors, patient.started)


def judge_stages(found: Stages) -> Iterator[Finding]:
    if not found.found:
        yield ok("nothing of this instance runs")
        return
    wrong = 0
    for name, one in found.found.items():
        log, errors = f"alpha logs {name}", found.errors.get(name, 0)
        if not one.up and one.usage is not None and one.waiting_for:
            wrong += 1
            yield warning(f"{name} is silent for {one.age_s:,.0f} s: it is busy with {one.waiting_for}",
                          _without(name), "wait: the first start on a machine compiles, for a minute or two")
        elif not one.up:
            wrong += 1
            dead = "gone: its process has ended" if one.usage is None else "silent: it hangs, or the machine does"
            yield error(f"{name} is {dead}; its last sign of life was {one.age_s:,.0f} s ago", _without(name),
                        f"see {log}; {'start it' if one.usage is None else 'kill it, its supervisor starts it'} again")
        elif not one.ready:
            wrong += 1
            what = "is not connected to its venue" if not one.waiting_for and name.startswith("ingest") else \
                f"waits for {one.waiting_for or 'something that it does not tell'}"
            yield warning(f"{name} {what}", _without(name),
                          f"see {log}, and the stage that it waits for")
        if errors:
            wrong += 1
            yield warning(f"{name} ended with an error {errors} times", "what it was may come again",
                          f"see {log}")
        elif one.restarts:
            yield note(f"{name} was started again {one.restarts} times", "it was killed, or restarted by hand",
                       f"see {log}")
    missing = [name for name in found.expected if name not in found.found]
    if missing:
        wrong += 1
        yield warning(f"not started: {', '.join(missing)}", "the others wait for it",
                      "; ".join(f"alpha {_command(name)}" for name in missing) + "; or alpha run")
    if not wrong:
        yield ok(f"{len(found.found)} stages ready")


#: kind of a stage -> what there is not while it does not work
_WITHOUT = {"exchange": "there is no venue to send ticks and take orders", "ingest": "no tick comes in",
            "feature": "no tick gets past it", "inference": "it predicts nothing",
            "executor": "nothing is decided, ordered or cancelled",
            "monitor": "no page, no alerts, and no prediction is judged; trading goes on without it"}


def _without(stage: str) -> str:
    return _WITHOUT.get(stage.partition("-")[0], "what depends on it waits")


def _command(stage: str) -> str:
    kind, _, number = stage.partition("-")
    return f"{kind} --{'worker' if kind == 'inference' else 'process'} {number}" if number else kind


def look_supervisor(patient: Patient) -> Supervisor:
    config, wrong, programs = patient.config, None, []
    if patient.render is not None:
        try:
            parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
            parser.read_string(patient.render(config))
            programs = [name.removeprefix("program:") for name in parser.sections() if name.startswith("program:")]
        except (AlphaError, configparser.Error) as problem:
            wrong = problem if isinstance(problem, AlphaError) else AlphaError(
                "the supervisor's configuration does not parse", where=str(problem))
    sockets, states, stopping = {}, [], []
    for path in (config.run_dir / "supervisor.sock", patient.root / ".alpha" / "supervisor.sock"):
        if path.exists() and str(path) not in sockets:
            try:
                found = _states(path)
            except xmlrpc.client.Fault as problem:
                if problem.faultCode == _SHUTDOWN:
                    stopping.append(str(path))
                else:
                    sockets[str(path)] = problem.faultString
            except (OSError, xmlrpc.client.Error) as problem:
                sockets[str(path)] = str(problem) or type(problem).__name__
            else:
                sockets[str(path)] = ""
                states += [(one["name"], one["statename"], one["description"]) for one in found]
    return Supervisor(wrong, programs, sockets, states, tuple(stopping))


def _states(path: Path) -> list[dict]:
    from supervisor.xmlrpc import SupervisorTransport

    with socket.socket(socket.AF_UNIX) as probe:  # it answers at all: what follows has no limit of time
        probe.settimeout(1.0)
        probe.connect(str(path))
    transport = SupervisorTransport(None, None, f"unix://{path}")
    try:
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor.getAllProcessInfo()
    finally:
        transport.close()


def judge_supervisor(found: Supervisor) -> Iterator[Finding]:
    bad = False
    if found.wrong:
        bad = True
        yield refused(found.wrong, "`alpha run` cannot start anything", "git checkout supervisord.conf")
    for path in found.stopping:
        bad = True
        yield note(f"the supervisor at {path} shuts down", "it stops its processes one after the other",
                   "wait for it to end; alpha doctor --only supervisor")
    for path, silent in found.sockets.items():
        if silent:
            bad = True
            yield note(f"no supervisor answers at {path}: {silent}", "a killed one left its socket", f"rm {path}")
    for name, state, description in found.states:
        if state in ("BACKOFF", "FATAL"):
            bad = True
            yield error(f"{name} is in {state}: {description}", "it ends whenever it is started"
                        if state == "BACKOFF" else "its supervisor has given it up",
                        f"see alpha logs {name.partition('-')[0]}; then start it again")
        elif state in ("EXITED", "STOPPED") and name != "monitor":
            bad = True
            yield warning(f"{name} is in {state}: {description}", "somebody stopped it", "start it again")
    if not bad:
        running = sum(state == "RUNNING" for _, state, _ in found.states)
        yield ok(f"its configuration has {len(found.programs)} programs" + (
            f"; {running} processes run under it" if found.states else "; no supervisor of this instance runs"))


PROCESSES = Check("processes", "stages that lost their supervisor, or belong to no instance", look_processes,
                  judge_processes)
RUN_FOLDER = Check("sockets", "sockets and locks in the run folder", look_run_folder, judge_run_folder,
                   needs_config=True)
PORTS = Check("ports", "the ports that stages listen on", look_ports, judge_ports, needs_config=True)
STAGES = Check("stages", "whether the stages are ready", look_stages, judge_stages, needs_config=True)
SUPERVISOR = Check("supervisor", "its configuration, and stages that it cannot keep up", look_supervisor,
                   judge_supervisor, needs_config=True)
