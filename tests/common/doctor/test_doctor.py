"""Every check by the same contract, and every judgement by a table of facts; what is planted for real is in
tests/procs/test_doctor.py."""

import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import xmlrpc.client
from pathlib import Path

import pytest

from common import deployment, shm
from common.config import Config, Executor, Instance, Market, Placement, Ring, load
from common.deployment import Deployment, Pair, Ref
from common.doctor import (
    checks,
    clock,
    examine,
    files,
    installed,
    limits,
    machine,
    memory,
    network,
    procfs,
    records,
    running,
    settings,
)
from common.doctor.check import Check, Level, error, note, ok
from common.doctor.patient import Patient
from common.doctor.procfs import Listener, Mount, Process
from common.errors import AlphaError, ConfigError, ModelError, ResourceError
from common.features.choice import FeatureSet
from common.features.state import Checkpoints
from common.features.table import TABLE_HASH
from common.killswitch import Halt, Reduction
from common.overview import StageState
from common.ring import Books, Rows
from common.shm import Found
from common.telemetry import Telemetry
from common.watch.process import Usage

MIB, GIB = 2**20, 2**30
WARNING, ERROR, NOTE, OK = Level.WARNING, Level.ERROR, Level.NOTE, Level.OK
FLAGS = "fpu sse4_2 avx f16c popcnt bmi2 fma avx2"


def cpuinfo(*cores: str) -> str:
    return "".join(f"processor\t: {i}\nmodel name\t: Some CPU\nflags\t\t: {flags}\n\n" for i, flags in enumerate(cores))


def cores(**more) -> machine.Cores:
    return machine.Cores(**{"online": 4, "granted": (0, 1, 2, 3), "quota": 0.0, "throttled": 0, "stages": 7,
                            "configured": {}, **more})


def placed(**more) -> machine.Placed:
    return machine.Placed(**{"stage": "feature", "wanted": [1], "cores": [1], "settings": Placement(),
                             "kept_awake": True, "collector_frozen": True, **more})


def room(**more) -> memory.Room:
    return memory.Room(**{"size": 64 * MIB, "free": 60 * MIB, "kind": "tmpfs", "needed": {"books": 10 * MIB},
                          "unknown": "", "held": 0, "available": GIB, "largest": [("other", 50 * MIB)], **more})


def blocks(*found: Found, living: frozenset[int] = frozenset()) -> memory.Blocks:
    return memory.Blocks("mine", list(found), living)


def block(instance: str, held: bool, pid: int = 77, name: str = "rows") -> Found:
    return Found(f"alpha-0-{instance}.{name}", instance, MIB, held, pid)


def packages(**more) -> installed.Packages:
    return installed.Packages(**{
        "installed": {"numpy": "2.4.6", "tool": "1"}, "locked": {"numpy": "2.4.6", "tool": "1"},
        "needed": {"numpy": ">=2.0"}, "wrong": [], "used": frozenset({"numpy"}), "extras": {}, **more})


def process(**more) -> Process:
    return Process(**{"pid": 50, "ppid": 40, "argv": ("alpha", "feature"), "age_s": 90.0, "supervised": True,
                      "by_systemd": False, "locks": ("/run/a/stage.feature.lock",), **more})


def stages(expected: tuple[str, ...] = ("feature",), errors: int = 0, name: str = "feature", **more
           ) -> running.Stages:
    state = StageState(**{"up": True, "ready": True, "age_s": 0.1, "uptime_s": 9.0, "restarts": 0,
                          "usage": Usage(1, 1.0), "waiting_for": "", **more})
    return running.Stages({name: state}, {name: errors}, expected)


def owned(**more) -> files.Owned:
    return files.Owned(**{"path": "/s/journal.db", "what": "journal", "folder": False, "mode": 0o600, "uid": 5,
                          "exposed": True, **more})


def place(**more) -> files.Place:
    return files.Place(**{"what": "journal", "path": "/s", "kind": "ext4", "read_only": False, "writable": True,
                          "free": 50 * GIB, "size": 100 * GIB, "inodes": 1000, "locks": True, "lasting": True, **more})


def record(**more) -> records.Record:
    return records.Record(**{"path": "/s/journal.db", "there": True, "size": 4096, "problem": None,
                             "counts": {"orders": 3, "fills": 2}, "lost": 0, "alone": False, "written": False, **more})


TOLD = {"name": "m", "id": "00ff", "features": ["obi"], "window": 1, "provider": "CPUExecutionProvider",
        "latency_us": {1: {"p50": 5.0, "p99": 9.0}}}
PAIR = Pair(Ref("/m.onnx", ""), None)


def models(told: dict | None = None, problem: AlphaError | None = None, **more) -> records.Models:
    looked = records.Looked("model", "/m.onnx", problem, {**TOLD, **(told or {})})
    return records.Models(**{"found": [looked], "asked": ("CPUExecutionProvider",), "max_age_ms": 250.0,
                             "damaged": None, "deployed": None, "configured": PAIR, **more})


def reached(**more) -> network.Reached:
    return network.Reached(**{"key": "market.rest_url", "address": "https://v:443", "here": False, "running": False,
                              "step": "answer", "problem": "", "untrusted": False, "status": 200, "took_ms": 5.0,
                              "days": 90.0, **more})


def venue_time(ahead_ms: float, unsure_ms: float = 10.0, problem: str = "", limit_ms: float = 0.0) -> network.Times:
    return network.Times([network.Time("market.rest_url", ahead_ms, unsure_ms, "Date", problem, False)], limit_ms)


def told(**more) -> settings.Settings:
    return settings.Settings(**{"source": "/a.toml", "problem": None, "overrides": [], "unread": [], "missing": {},
                                "unknown": None, "orphans": [], "defaulted": [], **more})


def supervisor(**more) -> running.Supervisor:
    return running.Supervisor(**{"wrong": None, "programs": ["feature"], "sockets": {}, "states": [],
                                 **more})


def ports(taken: Listener | None, pid: int = 0, who: str = "") -> list[running.Port]:
    return [running.Port("exchange", "127.0.0.1", 8765, taken, pid, who, False, "set ALPHA_EXCHANGE__PORT")]


AWAY = Market(ws_url="wss://v", rest_url="https://v", live=True)

#: check -> (facts, how bad, what it says, what is to be done): at least one fault for each check
PLANTED = {
    "python": [(installed.Python((3, 10, 1), "cpython", "/p", True), ERROR, "3.10.1", "PYTHON="),
               (installed.Python((3, 12, 1), "pypy", "/p", True), ERROR, "pypy", "PYTHON="),
               (installed.Python((3, 12, 1), "cpython", "/usr/bin/python3", False), NOTE, "system's", "make run")],
    "packages": [
        (packages(installed={"numpy": "2.4.5"}), WARNING, "numpy 2.4.5 (lock: 2.4.6)", "numpy==2.4.6"),
        (packages(installed={"numpy": "2.4.6", "tool": "2"}), NOTE, "tool 2 (lock: 1)", "tool==1"),
        (packages(installed={}), ERROR, "numpy is not installed", "pip install -c requirements.lock"),
        (packages(installed={"numpy": "1.9"}, wrong=["numpy"]), ERROR, "numpy 1.9", "pip install"),
        (packages(extras={"torch": ["torch"]}), NOTE, "extra torch: torch", "'.[torch]'")],
    "cpu": [(machine.Processor("x86_64", cpuinfo(FLAGS, FLAGS.replace(" avx2", ""))), WARNING, "no AVX2", "-cpu host"),
            (machine.Processor("x86_64", cpuinfo(FLAGS.replace(" fma", ""))), WARNING, "no FMA", "-cpu host"),
            (machine.Processor("aarch64", "Features\t: fp asimd\n"), WARNING, "no ATOMICS", "processor"),
            (machine.Processor("x86_64", ""), NOTE, "does not tell", "lscpu")],
    "cores": [(cores(granted=(0,)), WARNING, "1 core", "--cpuset-cpus"),
              (cores(granted=(0, 1)), NOTE, "2 of 4", "cpuset"),
              (cores(quota=1.5, throttled=7), WARNING, "1.5 of 4 cores, suspended 7 times", "quota"),
              (cores(configured={"feature": [9]}), WARNING, "feature names [9]", "placement.cores.feature")],
    "governor": [(machine.Governors({"powersave": 4}), WARNING, "powersave on 4", "cpupower")],
    "wakeups": [(machine.Wakeups(True, True, False), WARNING, "may not be written", "udev"),
                (machine.Wakeups(True, False, False), NOTE, "no /dev/cpu_dma_latency", "--device"),
                (machine.Wakeups(False, True, True), NOTE, "keep_awake is off", "keep_awake = true")],
    "placement": [([placed(cores=[0, 1])], WARNING, "feature runs on cores [0, 1], wanted [1]", "restart feature"),
                  ([placed(collector_frozen=False)], WARNING, "not frozen", "restart"),
                  ([placed(kept_awake=False)], WARNING, "no stage keeps", "wakeups")],
    "shm": [(room(size=8 * MIB, free=8 * MIB), ERROR, "take 10.0", "remount,size="),
            (room(free=4 * MIB), ERROR, "10.0 more are needed", "remove what fills it (other 50.0 MiB)"),
            (room(free=12 * MIB), WARNING, "12.0 of 64.0", "remove what fills it"),
            (room(available=MIB), ERROR, "1.0 MiB of memory", "ring.rows"),
            (room(kind="ext4"), ERROR, "on ext4", "mount -t tmpfs"),
            (room(unknown="no such model"), NOTE, "no such model", "model")],
    "blocks": [(blocks(block("gone", False)), WARNING, "gone: 1 blocks (1.0 MiB) left by pid 77: rows", "--fix"),
               (blocks(block("mine", False), block("mine", True, name="books")), WARNING, "no writer for rows",
                "alpha status"),
               (blocks(block("mine", False), living=frozenset({77})), WARNING, "pid 77 lives", "look again")],
    "limits": [(limits.Limits((256, 512), (-1, -1), (0, 0), (0, 0), False), ERROR, "at most 512", "nofile"),
               (limits.Limits((256, 4096), (-1, -1), (0, 0), (0, 0), False), WARNING, "256 open files", "ulimit -n"),
               (limits.Limits((-1, -1), (50, 50), (0, 0), (0, 0), False), ERROR, "50 processes", "ulimit -u"),
               (limits.Limits((-1, -1), (-1, -1), (0, 0), (-1, -1), False), WARNING, "core file of any",
                "ulimit -c 0")],
    "clock": [(clock.Kernel(5, 0x40, 0.0, 16_000_000, 0), WARNING, "not synchronised", "chrony"),
              (clock.Kernel(0, 0x2001, 5.0, 900_000, 0), WARNING, "wrong by 0.90 s", "chronyc sources")],
    "clocksource": [(clock.Source("hpet", ("hpet", "tsc"), "x86_64", 900.0), WARNING, "hpet", "echo tsc"),
                    (clock.Source("acpi_pm", ("acpi_pm",), "x86_64", 900.0), WARNING, "acpi_pm", "tsc=reliable"),
                    (clock.Source("tsc", ("tsc",), "x86_64", 900.0), WARNING, "900 ns", "host")],
    "clockstep": [(clock.Steadiness({"ingest": -3600.0}, 0.0), WARNING, "-3600.0 s", "restart"),
                  (clock.Steadiness({}, 0.5), WARNING, "+500.0 ms", "who sets it")],
    "feedtime": [(clock.Lags([clock.Lag("market", -2500.0, 9)], 0.0, False), ERROR, "-2,500.0 ms", "chrony"),
                 (clock.Lags([clock.Lag("market", 700.0, 9)], 500.0, False), ERROR, "+700.0 ms", "chrony"),
                 (clock.Lags([clock.Lag("market", 300.0, 9)], 0.0, False), WARNING, "+300.0", "chrony"),
                 (clock.Lags([clock.Lag("market", -2.0, 9)], 0.0, False), NOTE, "-2.0 ms", "chrony")],
    "processes": [
        (running.Processes([process(ppid=1)], {1: "/sbin/init"}), WARNING, "feature (pid 50) lost its supervisor",
         "kill 50"),
        (running.Processes([process(ppid=1, supervised=False)], {1: "/sbin/init"}), WARNING, "lost who started it",
         "kill 50"),
        (running.Processes([process(locks=())], {40: "supervisord"}), WARNING, "holds no lock", "kill 50"),
        (running.Processes([process(locks=("/run/a/stage.feature.lock (deleted)",))], {40: "supervisord"}), ERROR,
         "a lock that is gone: /run/a/stage.feature.lock", "kill 50")],
    "sockets": [(running.RunFolder("/r", True, {"ticks.sock": False}, 3, []), NOTE, "ticks.sock", "rm /r/ticks.sock"),
                (running.RunFolder("/r", True, {}, 3, ["feature.config.new"]), NOTE, "half-written", "rm /r/feature"),
                (running.RunFolder("/r" * 50, True, {}, 3, []), ERROR, "134 bytes", "instance.run_dir")],
    "ports": [(ports(Listener("127.0.0.1", 8765, 1), 9, "python -m procs.cli exchange"),
               ERROR, "the exchange of another instance, pid 9", "kill 9, or set ALPHA_EXCHANGE__PORT"),
              (ports(Listener("::", 8765, 1)), ERROR, "not to be seen", "ss -l")],
    "stages": [(stages(age_s=9, up=False), ERROR, "feature is silent: it hangs", "logs feature; kill it"),
               (stages(age_s=9, up=False, waiting_for="its kernels"), WARNING, "busy with its kernels", "wait"),
               (stages(up=False, usage=None), ERROR, "gone: its process has ended", "start it again"),
               (stages(ready=False, waiting_for="books"), WARNING, "for books", "alpha logs feature"),
               (stages(errors=2), WARNING, "an error 2 times", "alpha logs"),
               (stages(restarts=3), NOTE, "started again 3 times", "alpha logs"),
               (stages(("feature", "inference-1")), WARNING, "not started: inference-1", "inference --worker 1")],
    "supervisor": [
        (supervisor(states=[("feature", "FATAL", "exited too quickly")]), ERROR, "feature is in FATAL",
         "alpha logs feature"),
        (supervisor(states=[("feature", "BACKOFF", "x")]), ERROR, "BACKOFF", "alpha logs feature"),
        (supervisor(states=[("feature", "STOPPED", "x")]), WARNING, "STOPPED", "start it"),
        (supervisor(stopping=("/r/s.sock",)), NOTE, "the supervisor at /r/s.sock shuts down", "wait"),
        (supervisor(sockets={"/r/s.sock": "refused"}), NOTE, "no supervisor answers", "rm /r/s.sock"),
        (supervisor(wrong=ConfigError("no numprocs line", where="feature")), ERROR, "numprocs", "git checkout")],
    "config": [
        (told(problem=ConfigError("unknown configuration key", where="market.venu", remedy="known here: venue")), ERROR,
         "unknown configuration key (market.venu)", "known here: venue"),
        (told(unknown=ConfigError("unknown venue", where="x")), ERROR, "unknown venue", "correct /a.toml"),
        (told(missing={"inference.model": "/gone.onnx"}), ERROR, "there is no /gone.onnx", "correct inference.model"),
        (told(unread=["ALPHA_MARKET_VENUE"]), WARNING, "ALPHA_MARKET_VENUE", "two underscores"),
        (told(overrides=["ALPHA_RING__ROWS"]), NOTE, "ALPHA_RING__ROWS", "into the file"),
        (told(orphans=["BTC"]), NOTE, "BTC", "remove"), (told(source=""), NOTE, "no configuration file", "--config")],
    "live": [
        (Config(market=Market(ws_url="wss://v", rest_url="https://v")), WARNING, "market.live is false", "live = true"),
        (Config(market=Market(ws_url="ws://v", rest_url="https://v", live=True)), WARNING, "ws://v is not encrypted",
         "wss://"),
        (Config(market=AWAY), WARNING, "orders go to 127.0.0.1:8765", '"paper"'),
        (Config(executor=Executor(gateway="binance-usdm")), WARNING, "market.venue vectrade", 'venue = "binance-usdm"'),
        (Config(market=AWAY, executor=Executor(base_url="https://v")), NOTE, 'durability is "process"', '= "power"'),
        (Config(market=AWAY, executor=Executor(base_url="https://v")), WARNING, "no tick and lot for BTC-USD", "tick")],
    "secrets": [
        (settings.Secrets("vectrade", ConfigError("no key for the order gateway", remedy="set ALPHA_BOT_KEY"), {}, []),
         ERROR, "no key", "set ALPHA_BOT_KEY"),
        (settings.Secrets("paper", None, {}, ["market.ws_url"]), ERROR, "market.ws_url has a name", "take it out")],
    "proxy": [((["HTTPS_PROXY"], []), NOTE, "HTTPS_PROXY", "market.proxy")],
    "permissions": [
        (files.Ownership(5, [owned(mode=0o666)]), ERROR, "/s/journal.db: mode 0666", "chmod 600 /s/journal.db"),
        (files.Ownership(5, [owned(mode=0o644)]), WARNING, "mode 0644", "chmod 600"),
        (files.Ownership(5, [owned(uid=6)]), ERROR, "belongs to uid 6", "chown 5 /s/journal.db"),
        (files.Ownership(5, [owned(what="state folder", folder=True, mode=0o777)]), ERROR, "mode 0777", "chmod 700"),
        (files.Ownership(5, [owned(what="state folder", folder=True, mode=0o755)]), NOTE, "look into", "chmod go= /s")],
    "disk": [([place(free=10 * MIB)], ERROR, "0.01 of 100.00 GiB", "remove old recordings"),
             ([place(free=900 * MIB)], WARNING, "0.88 of", "another disk"),
             ([place(inodes=0)], ERROR, "no file", "remove"),
             ([place(kind="nfs4")], ERROR, "nfs4, a network file system", "instance.state_dir"),
             ([place(kind="nfs4", locks=False)], NOTE, "network", "local disk"),
             ([place(kind="tmpfs")], WARNING, "on tmpfs", "instance.state_dir"),
             ([place(kind="overlay")], NOTE, "container's", "docker run -v"),
             ([place(writable=False)], ERROR, "may not be written", "chmod"),
             ([place(read_only=True, what="cache of kernels", locks=False)], NOTE, "read-only", "chmod")],
    "kernels": [(files.Kernels("/k", 0, True), NOTE, "no compiled kernels in /k", "alpha warm")],
    "journal": [
        (record(problem=ResourceError("the journal is damaged", where="x", remedy="move it away")), ERROR, "is damaged",
         "move it away"),
        (record(lost=4), ERROR, "at least 4 commits", "-wal"), (record(alone=True, there=False), ERROR, "gone", "-wal"),
        (record(counts={}, size=GIB), NOTE, "1,024 MiB", "alpha orders --verify"),
        (record(counts={"orders": 1, "unsummed": 9}), NOTE, "9 rows", "nothing to do")],
    "model": [
        (models(problem=ModelError("the model does not fit", where="w")), ERROR, "does not fit", "alpha model check"),
        (models({"latency_us": {1: {"p50": 3e5, "p99": 4e5}}}), ERROR, "p50 300,000.0 us", "smaller model"),
        (models({"latency_us": {1: {"p50": 9e4, "p99": 2e5}}}), WARNING, "p99 200,000.0", "smaller model"),
        (models(asked=("CUDAExecutionProvider",)), WARNING, "asked for is CUDAExecutionProvider", "install"),
        (models({"remarks": ["no golden rows"]}), NOTE, "no golden rows", "models.describe"),
        (models(damaged=ConfigError("what is deployed is damaged")), ERROR, "deployed is damaged", "remove"),
        (models(deployed=Deployment(1, Pair(Ref("/x", ""), None), PAIR)), NOTE, "is not in force", "deploy"),
        (models(deployed=Deployment(1, PAIR, PAIR, next=PAIR)), WARNING, "half-way", "alpha model deploy")],
    "switch": [(records.Switch(Halt("me", 1, "looks wrong"), None, False, False, True), WARNING, "looks wrong",
                "alpha resume"),
               (records.Switch(None, Reduction("me", 1, "news", True), False, False, True), WARNING, "flattening",
                "alpha resume"),
               (records.Switch(None, None, True, False, True), NOTE, "not armed", "alpha arm")],
    "venue": [
        (reached(step="name", problem="unknown name"), None, "unknown name", "resolv.conf"),
        (reached(step="connect", problem="timed out"), None, "timed out", "firewall"),
        (reached(step="proxy", problem="407"), None, "407", "ALPHA_PROXY_AUTH"),
        (reached(step="tls", problem="expired", untrusted=True), None, "expired", "ca-certificates"),
        (reached(key="market.ws_url", status=200), None, "no WebSocket", "correct market.ws_url"),
        (reached(status=451), None, "451", "market.proxy"), (reached(status=429), None, "429", "Retry-After"),
        (reached(status=503), WARNING, "503", "status page"), (reached(days=3.0), WARNING, "ends in 3.0 days", "date")],
    "venuetime": [(venue_time(90_000.0), ERROR, "90,000 ms (+-10) behind", "chronyc makestep"),
                  (venue_time(-400.0), WARNING, "400 ms (+-10) ahead", "chronyc"),
                  (venue_time(-400.0, limit_ms=300.0), ERROR, "400 ms", "chronyc"),
                  (venue_time(0.0, problem="timed out"), NOTE, "not known", "check venue")],
}
PLANTED["venue"] = [([facts], level or ERROR, *words) for facts, level, *words in PLANTED["venue"]]

HEALTHY = {
    "python": installed.Python((3, 12, 1), "cpython", "/p", True), "packages": packages(),
    "cpu": machine.Processor("x86_64", cpuinfo(FLAGS, FLAGS)), "cores": cores(),
    "governor": machine.Governors({"performance": 4}), "wakeups": machine.Wakeups(True, True, True),
    "placement": [placed()], "shm": room(), "blocks": blocks(block("mine", True)),
    "limits": limits.Limits((4096, 4096), (-1, -1), (0, 0), (0, 0), False),
    "clock": clock.Kernel(0, 0x2001, 100.0, 2000, 10), "clocksource": clock.Source("tsc", ("tsc",), "x86_64", 40.0),
    "clockstep": clock.Steadiness({"ingest": 0.01}, 0.0),
    "feedtime": clock.Lags([clock.Lag("market", 12.0, 9)], 0.0, False),
    "processes": running.Processes([process()], {40: "python supervisord"}),
    "sockets": running.RunFolder("/r", True, {"ticks.sock": True}, 3, []),
    "ports": ports(None),
    "stages": stages(),
    "supervisor": supervisor(states=[("feature", "RUNNING", "pid 1")], sockets={"/r": ""}), "config": told(),
    "live": Config(), "secrets": settings.Secrets("paper", None, {"ALPHA_BOT_KEY": False}, []), "proxy": ([], []),
    "permissions": files.Ownership(5, [owned()]), "disk": [place()], "kernels": files.Kernels("/k", 9, True),
    "journal": record(), "model": models(), "switch": records.Switch(None, None, True, True, True),
    "venue": [reached(), reached(key="market.ws_url", status=101)], "venuetime": venue_time(20.0)}

_OUTSIDE = {"os", "socket", "time", "open", "Path", "subprocess", "statvfs", "read", "ctypes", "ssl"}


# ---- the contract

@pytest.mark.parametrize("name", checks())
def test_a_check_has_planted_faults_and_a_healthy_state(name):
    check = checks()[name]
    assert re.fullmatch(r"[a-z]{3,12}", name) and check.about and len(check.about) < 70
    assert PLANTED[name] and name in HEALTHY


@pytest.mark.parametrize("name", checks())
def test_a_judgement_looks_at_nothing_but_the_facts(name):
    code = checks()[name].judge.__code__
    assert not _OUTSIDE & set(code.co_names) and len(inspect.signature(checks()[name].judge).parameters) == 1


@pytest.mark.parametrize("name", checks())
def test_what_is_well_is_said_in_one_line_and_asks_for_nothing(name):
    found = list(checks()[name].judge(HEALTHY[name]))
    assert found and all(finding.level == OK and finding.what and not finding.remedy for finding in found)


@pytest.mark.parametrize("name, case", [(name, case) for name, cases in PLANTED.items() for case in range(len(cases))])
def test_a_fault_is_named_with_its_remedy(name, case):
    facts, level, what, remedy = PLANTED[name][case]
    found = list(checks()[name].judge(facts))
    assert [one for one in found if one.level == level and what in one.what and remedy in one.remedy], found
    for one in found:
        assert one.level == OK or one.what and one.why and one.remedy and "\n" not in one.what + one.why + one.remedy


def test_what_a_stage_that_does_not_work_keeps_from_happening_is_of_that_stage():
    told = {name: list(running.judge_stages(stages((name,), name=name, ready=False)))[0].why
            for name in ("exchange", "ingest-1", "feature", "inference-2", "executor", "monitor")}
    assert len(set(told.values())) == 6 and "trading goes on" in told["monitor"] and "ordered" in told["executor"]


def test_a_supervisor_that_shuts_down_is_no_killed_one(tmp_path, monkeypatch):
    config = Config(instance=Instance(run_dir=str(tmp_path)))
    (tmp_path / "supervisor.sock").touch()

    def answer(path):
        raise xmlrpc.client.Fault(6, "SHUTDOWN_STATE")

    monkeypatch.setattr(running, "_states", answer)
    found = running.look_supervisor(Patient(config, None, None, {}, root=tmp_path))
    assert found.stopping == (str(tmp_path / "supervisor.sock"),) and not found.sockets
    told = str(list(running.judge_supervisor(found)))
    assert "shuts down" in told and "Fault" not in told and "killed" not in told


def test_a_block_that_says_nothing_is_not_left_to_a_remedy_that_leaves_it(instance):
    path = shm.SHM_DIR / shm.block_name(instance, "rows")
    path.write_bytes(bytes(1000))
    try:
        patient = Patient(Config(instance=Instance(name=instance)), None, None, {})
        assert instance not in memory.leftovers(patient)
        told = [one for one in memory.judge_blocks(memory.look_blocks(patient)) if path.name in one.what]
        assert f"rm {path}" in told[0].remedy and "alpha doctor --fix" not in told[0].remedy
    finally:
        path.unlink()


def test_no_table_speaks_of_a_check_that_is_gone():
    assert set(PLANTED) == set(HEALTHY) == set(checks())


# ---- the examination

def patient(environ: dict | None = None, path: str | None = None, **more) -> Patient:
    return Patient.of(path, environ or {}, **more)


def failing(look, name: str = "limits") -> Check:
    return Check(name, "about", look, lambda facts: [ok("fine")])


def test_a_check_that_fails_is_a_finding_and_keeps_no_secret():
    def look(patient):
        raise ValueError("cannot send key s3cr3t-key of user joe:hunter22")

    report = failing(look).examine(patient({"ALPHA_BOT_KEY": "s3cr3t-key", "HTTPS_PROXY": "http://joe:hunter22@p:1"}))
    assert report.worst == WARNING and "could not be looked at: ValueError" in report.findings[0].what
    assert report.findings[0].remedy and "s3cr3t" not in str(report) and "hunter22" not in str(report)


def test_a_check_that_judges_badly_is_a_finding_too():
    report = Check("x", "about", lambda patient: None, lambda facts: [facts.nothing]).examine(patient())
    assert "could not be looked at: AttributeError" in report.findings[0].what


def test_one_that_hangs_keeps_no_other(monkeypatch):
    stuck = threading.Event()
    known = {"limits": failing(lambda patient: stuck.wait(60)), "shm": failing(lambda patient: None, "shm")}
    monkeypatch.setattr("common.doctor.checks", lambda: known)
    try:
        slow, fine = examine(patient(), limit_s=0.05)
    finally:
        stuck.set()
    assert "no end after 0.05 s" in slow.findings[0].what and slow.unlooked
    assert fine.worst == OK and not fine.unlooked


def test_without_a_configuration_the_rest_is_looked_at(tmp_path):
    (tmp_path / "a.toml").write_text("[market]\nvenu = 'x'\n")
    ill = patient(path=str(tmp_path / "a.toml"))
    config, shm_, python = [
        report for name in ("config", "shm", "python") for report in examine(ill, (name,))]
    assert config.worst == ERROR and "market.venu" in config.findings[0].what
    assert "known here" in config.findings[0].remedy
    assert shm_.unlooked == "no configuration" and shm_.findings[0].level == NOTE
    assert python.worst <= NOTE and not python.unlooked


def test_offline_asks_nobody_and_says_so():
    (report,) = examine(patient(), ("venue",), offline=True)
    assert report.unlooked == "left out: offline" and not report.findings


def test_a_check_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="known: .*shm"):
        examine(patient(), ("shmm",))


def test_levels_go_from_well_to_bad():
    assert OK < NOTE < WARNING < ERROR == error("", "", "").level and note("", "", "").level == NOTE


# ---- what is read

def test_stages_are_known_by_their_command_line():
    python = ("/v/bin/python", "-m", "procs.cli")
    for argv, stage in (((*python, "feature"), "feature"),
                        (("python", "/v/bin/alpha", "ingest", "--process", "2"), "ingest-2"),
                        ((*python, "inference", "--worker", "0"), "inference-0"), ((*python, "status"), ""),
                        (("alpha", "ingest", "--process", "0"), "ingest"), ((*python, "inference", "--check"), ""),
                        (("vim", "alpha"), ""), ((*python, "exchange", "rec.gz"), "exchange"), (("",), "")):
        assert procfs.stage_of(argv) == stage


@pytest.mark.parametrize("environ, supervised, by_systemd", [
    ({"ALPHA_SUPERVISED": "1"}, True, False), ({"ALPHA_SUPERVISED": "systemd", "INVOCATION_ID": "x"}, False, True),
    ({"INVOCATION_ID": "x"}, False, True), ({}, False, False)])
def test_who_started_a_stage_is_read_of_its_environment(environ, supervised, by_systemd):
    """systemd has no process of its own above a stage that could be looked for."""
    stage = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()", "alpha", "feature"], env=environ,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        stage.stdout.readline()
        (one,) = [one for one in procfs.processes(Path("/proc"), os.getuid()) if one.pid == stage.pid]
    finally:
        stage.communicate(b"\n")
    assert (one.stage, one.ppid, one.supervised, one.by_systemd) == ("feature", os.getpid(), supervised, by_systemd)
    under_init = one._replace(ppid=1, locks=("/r/stage.feature.lock",))
    lost = any("lost" in finding.what for finding in running.judge_processes(
        running.Processes([under_init], {1: "/usr/lib/systemd/systemd"})))
    assert lost != by_systemd


def test_listening_sockets_are_read_of_both_families():
    head = "  sl  local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n"
    rest = "00000000:0000 {} 00000000:00000000 00:00000000 00000000 0 0 {} 1 0"
    four = head + f"0: 0100007F:223D {rest.format('0A', 11)}\n1: 0100007F:2240 {rest.format('01', 12)}\n"
    six = head + "".join(f"{i}: {address}:0050 {rest.format('0A', 20 + i)}\n" for i, address in enumerate(
        ("0" * 32, "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F")))
    assert procfs.listeners(four) == [Listener("127.0.0.1", 8765, 11)]
    assert [one.host for one in procfs.listeners(six)] == ["::", "::1", "127.0.0.1"]


def test_the_mount_of_a_path_is_the_longest_and_the_last():
    text = ("1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /a\\040b rw - nfs4 host:/x rw\n"
            "3 1 0:6 / /a\\040b ro - tmpfs t rw\n"
            "4 1 0:7 / /ab rw - xfs x rw\n")
    mounts = procfs.mounts(text)
    assert procfs.mount_of("/a b/c", mounts) == Mount("/a b", "tmpfs", True)
    assert procfs.mount_of("/abc", mounts).kind == "ext4" and procfs.mount_of("/ab", mounts).kind == "xfs"


def test_memory_is_read_in_bytes():
    assert procfs.amount("MemTotal: 9 kB\nMemAvailable:  2 kB\n", "MemAvailable") == 2048
    assert procfs.amount("", "MemAvailable") == 0


@pytest.mark.parametrize("layout", ["2", "1"])
def test_a_quota_is_read_of_every_group_above(layout, tmp_path):
    if layout == "2":
        folder, line = tmp_path / "sys/fs/cgroup/a/b", "0::/a/b"
        folder.mkdir(parents=True)
        (folder / "cpu.max").write_text("max 100000\n")
        (folder.parent / "cpu.max").write_text("150000 100000\n")
        (folder.parent / "cpu.stat").write_text("usage_usec 1\nnr_throttled 12\n")
    else:
        folder, line = tmp_path / "sys/fs/cgroup/cpu/a", "3:cpu,cpuacct:/a"
        folder.mkdir(parents=True)
        (folder / "cpu.cfs_quota_us").write_text("150000")
        (folder / "cpu.cfs_period_us").write_text("100000")
        (folder / "cpu.stat").write_text("nr_periods 1\nnr_throttled 12\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(line + "\n")
    found = machine.look_cores(patient(proc=tmp_path / "proc", sys=tmp_path / "sys"))
    assert (found.quota, found.throttled) == (1.5, 12) and set(found.granted) == os.sched_getaffinity(0)


def test_a_governor_is_read_of_every_core(tmp_path):
    for core, name in enumerate(("powersave", "powersave", "performance")):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{name}\n")
    assert machine.look_governors(patient(sys=tmp_path)).found == {"powersave": 2, "performance": 1}


def test_room_is_reckoned_by_the_layouts_of_the_blocks(instance):
    """Against blocks as they are really made."""
    config = Config(instance=Instance(name=instance), ring=Ring(1024, 2048), market=Market(symbols=("A", "B", "C")),
                    base=str(Path(__file__).resolve().parents[3]))
    counters, timers = ("a", "b"), ("t",)
    needed, unknown = memory.needs(Patient(config, None, None, {}, {"feature": (counters, timers, 5)}))
    assert not unknown
    columns = FeatureSet.of(deployment_columns(config))
    books = Books.create(instance, config.symbols, config.ring.ticks)
    made = [books, Rows.create(instance, config.symbols, columns.labels, config.ring.rows, TABLE_HASH, books.epoch),
            Checkpoints.create(instance, config.symbols, columns, books.epoch),
            Telemetry.create(instance, "feature", counters, timers, 5)]
    try:
        sizes = {name.removeprefix(shm.block_name(instance, "")): (shm.SHM_DIR / name).stat().st_size
                 for name in shm.leaked(instance)}
        assert set(sizes) == set(needed) == {"books", "rows", "checkpoints", "telemetry-feature"}
        for name, size in sizes.items():
            assert size <= needed[name] <= size + 3 * 4096, name
    finally:
        for one in made:
            one.close()


def deployment_columns(config: Config) -> tuple[str, ...]:
    from common.manifest import read

    return read(deployment.in_force(config).paths[0]).columns


def test_blocks_are_surveyed_with_their_writers(instance):
    held = Books.create(instance, ("A",), 1024)
    code = f"from common.telemetry import Telemetry; Telemetry.create({instance!r}, 'x', ()); import os, signal; "\
        "os.kill(os.getpid(), signal.SIGKILL)"
    dead = subprocess.Popen([sys.executable, "-c", code])
    assert dead.wait() == -signal.SIGKILL
    try:
        found = {block.name.rpartition(".")[2]: block for block in shm.survey() if block.instance == instance}
        assert found["books"].held and found["books"].pid == os.getpid()
        assert not found["telemetry-x"].held and found["telemetry-x"].pid == dead.pid
        assert instance not in memory.leftovers(patient())  # one of its writers lives
    finally:
        held.close()
        assert instance in memory.leftovers(patient())
        shm.sweep(instance)


def test_the_clock_is_asked_and_not_set():
    found = clock.look_kernel(patient())
    assert 0 <= found.state <= 5 and found.maxerror_us > 0
    assert clock.look_source(patient()).read_ns > 0


def test_a_configuration_that_loads_is_looked_at_for_paths_and_names(tmp_path):
    (tmp_path / "a.toml").write_text('[market]\nsymbols = ["A"]\n[inference]\nmodel = "gone.onnx"\n[instruments.B]\n')
    found = settings.look_settings(patient({"ALPHA_RING__ROWS": "1024", "ALPHA_MARKET_VENUE": "x",
                                            "ALPHA_BOT_KEY": "y"}, str(tmp_path / "a.toml")))
    assert found.missing == {"inference.model": str(tmp_path / "gone.onnx")}
    assert found.orphans == ["B"] and found.defaulted == ["A"]
    assert found.overrides == ["ALPHA_RING__ROWS"] and found.unread == ["ALPHA_MARKET_VENUE"]
    assert load(str(tmp_path / "a.toml"), {}).symbols == ("A",)
