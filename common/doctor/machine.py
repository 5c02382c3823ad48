"""The processor, the cores that are granted, and how fast they wake."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.config import Placement, told
from common.doctor import procfs
from common.doctor.check import Check, Finding, note, ok, warning
from common.doctor.patient import Patient
from common.overview import Overview
from common.placement import default_cores

#: flags of /proc/cpuinfo that the compiled code uses where it finds them, and what goes slower without
X86 = {"avx2": "matrix products of onnxruntime and NumPy run on half the width",
       "fma": "multiply-add of onnxruntime and NumPy takes two instructions",
       "avx": "onnxruntime runs its SSE kernels", "sse4_2": "NumPy refuses to start, or runs its plain loops",
       "f16c": "float16 models convert in software", "popcnt": "NumPy refuses to start, or runs its plain loops",
       "bmi2": "what numba compiles has no fast shifts"}
ARM = {"asimd": "everything that computes on vectors does so one by one",
       "atomics": "locks and fences between processes take a loop", "asimddp": "int8 models of onnxruntime are slower"}


class Processor(NamedTuple):
    machine: str
    cpuinfo: str  #: text


class Cores(NamedTuple):
    online: int
    granted: tuple[int, ...]  #: that this process may run on
    quota: float  #: of the container, in cores; 0: none
    throttled: int  #: periods in which it was suspended for its quota
    stages: int
    configured: dict[str, list[int]]


class Governors(NamedTuple):
    found: dict[str, int]  #: governor -> cores


class Wakeups(NamedTuple):
    wanted: bool
    device: bool
    permitted: bool


class Placed(NamedTuple):
    """One running stage: what is wanted and what is in force."""

    stage: str
    wanted: list[int]  #: empty: anywhere
    cores: list[int]  #: as the kernel has it now
    settings: Placement
    kept_awake: bool
    collector_frozen: bool


def look_processor(patient: Patient) -> Processor:
    return Processor(platform.machine(), procfs.read(patient.proc / "cpuinfo"))


def judge_processor(found: Processor) -> Iterator[Finding]:
    arm = found.machine in ("aarch64", "arm64")
    lines = procfs.fields_of(found.cpuinfo, "Features" if arm else "flags")
    name = " ".join((procfs.fields_of(found.cpuinfo, "model name") or [[found.machine]])[0])
    if not lines:
        yield note(f"{name}: /proc/cpuinfo does not tell its features", "which kernels will run is not known",
                   "see lscpu")
        return
    flags = set.intersection(*map(set, lines))  # of every core
    missing = {flag: slower for flag, slower in (ARM if arm else X86).items() if flag not in flags}
    for flag, slower in missing.items():
        yield warning(f"{name} has no {flag.upper()}", slower,
                      "run on a processor with it, or let the hypervisor pass it on (QEMU: -cpu host)")
    if not missing:
        yield ok(f"{name}: {', '.join(flag.upper() for flag in (ARM if arm else X86))}"
                 + (", AVX512F" if "avx512f" in flags else ""))


def look_cores(patient: Patient) -> Cores:
    quota, throttled = 0.0, 0
    for folder in _cgroups(patient):
        text = procfs.read(folder / "cpu.max").split()
        if len(text) == 2 and text[0] != "max":
            quota = min(quota or 1e9, int(text[0]) / int(text[1]))
        old, period = procfs.read(folder / "cpu.cfs_quota_us"), procfs.read(folder / "cpu.cfs_period_us")
        if old and period and int(old) > 0:
            quota = min(quota or 1e9, int(old) / int(period))
        for line in procfs.read(folder / "cpu.stat").splitlines():
            if line.startswith("nr_throttled "):
                throttled = max(throttled, int(line.split()[1]))
    config = patient.config
    return Cores(os.cpu_count() or 1, tuple(sorted(os.sched_getaffinity(0))), quota, throttled, len(patient.started),
                 dict(config.placement.cores) if config and config.placement.pin else {})


def _cgroups(patient: Patient) -> list[Path]:
    """The folders of this process's control group and those above it, of version 2 and of the cpu controller of 1."""
    found = []
    for line in procfs.read(patient.proc / "self" / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or "cpu" in controllers.split(","):
            top = patient.sys / "fs" / "cgroup" / ("" if number == "0" else "cpu")
            folder = top / path.lstrip("/")
            found += [folder, *(above for above in folder.parents if above == top or top in above.parents), top]
    return list(dict.fromkeys(found))


def judge_cores(found: Cores) -> Iterator[Finding]:
    granted = len(found.granted)
    if granted == 1:
        yield warning("1 core for everything", "each hand-over between stages waits for the stage before it to pause",
                      "grant at least 2 (docker run --cpuset-cpus 0,1; taskset)")
    elif granted < found.online:
        yield note(f"{granted} of {found.online} cores are granted", "stages are placed on these alone",
                   "widen the cpuset or the affinity of the shell if that is not meant")
    if found.quota and found.quota < granted:
        suspended = f", suspended {found.throttled:,} times so far" if found.throttled else ""
        yield warning(f"the container may use {found.quota:g} of {granted} cores{suspended}",
                      "once it has, every stage stands still for the rest of the period, tens of milliseconds",
                      "give it whole cores in place of a quota (docker run --cpuset-cpus; in Kubernetes the static "
                      "CPU manager)")
    for stage, cores in found.configured.items():
        missing = sorted(set(cores) - set(found.granted))
        if missing:
            yield warning(f"placement.cores.{stage} names {missing}, granted are {list(found.granted)}",
                          "the stage is left where it is, or on fewer cores" if len(missing) == len(cores) else
                          "the stage runs on the others alone", f"correct placement.cores.{stage}")
    if granted > 1:
        sharing = "; stages share cores" if found.stages > granted else ""
        yield ok(f"{granted} cores for {found.stages} stages{sharing}")


def look_governors(patient: Patient) -> Governors:
    found: dict[str, int] = {}
    for path in (patient.sys / "devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"):
        name = procfs.read(path).strip()
        found[name] = found.get(name, 0) + 1
    return Governors(found)


def judge_governors(found: Governors) -> Iterator[Finding]:
    slow = {name: count for name, count in found.found.items() if name != "performance"}
    for name, count in slow.items():
        yield warning(f"frequency governor {name} on {count} cores", "a core that was idle begins each tick slowly",
                      "cpupower frequency-set -g performance")
    if not found.found:
        yield ok("no frequency governor here: the host decides, or the frequency is fixed")
    elif not slow:
        yield ok("frequency governor performance")


def look_wakeups(patient: Patient) -> Wakeups:
    device = patient.dev / "cpu_dma_latency"
    permitted = False
    if device.exists():
        try:
            os.close(os.open(device, os.O_WRONLY | os.O_CLOEXEC))  # asks for nothing: that takes a write
            permitted = True
        except OSError:
            pass
    return Wakeups(patient.config is None or patient.config.placement.keep_awake, device.exists(), permitted)


def judge_wakeups(found: Wakeups) -> Iterator[Finding]:
    slower = "idle cores sleep deeply and wake later, at every hand-over between stages"
    if not found.wanted:
        yield note("placement.keep_awake is off", slower, "placement.keep_awake = true")
    elif not found.device:
        yield note("there is no /dev/cpu_dma_latency", slower,
                   "docker run --device /dev/cpu_dma_latency; in a virtual machine the host decides")
    elif not found.permitted:
        yield warning("/dev/cpu_dma_latency may not be written", slower,
                      "chgrp alpha /dev/cpu_dma_latency && chmod g+w /dev/cpu_dma_latency, by a udev rule; or, to say "
                      "that it is meant, placement.keep_awake = false")
    else:
        yield ok("/dev/cpu_dma_latency may be written")


def look_placement(patient: Patient) -> list[Placed]:
    config, overview = patient.config, Overview(patient.config.instance.name)
    overview.refresh()
    found, available = [], sorted(os.sched_getaffinity(0))
    for stage, telemetry in sorted(overview.stages.items()):
        if not overview.ready(stage):
            continue
        words, settings = telemetry.told(), told(config, stage).placement
        core = stage.partition("-")[0]
        wanted = settings.cores.get(core, default_cores(core, available)) if settings.pin else []
        try:
            cores = sorted(os.sched_getaffinity(telemetry.get("pid")))
        except OSError:
            continue  # it went between two looks
        found.append(Placed(stage, [core for core in wanted if core in available], cores, settings,
                            bool(words.get("kept_awake")), bool(words.get("collector_frozen"))))
    return found


def judge_placement(found: list[Placed]) -> Iterator[Finding]:
    wrong = 0
    for one in found:
        if one.wanted and one.cores != sorted(one.wanted):
            wrong += 1
            yield warning(f"{one.stage} runs on cores {one.cores}, wanted {sorted(one.wanted)}",
                          "it is in the way of others, or far from them", f"restart {one.stage}; look who moves it")
        if one.settings.freeze_gc and not one.collector_frozen:
            wrong += 1
            yield warning(f"the collector of {one.stage} is not frozen", "a collection costs milliseconds in a tick",
                          f"restart {one.stage}")
    asleep = [one.stage for one in found if one.settings.keep_awake and not one.kept_awake]
    if asleep and len(asleep) == len([one for one in found if one.settings.keep_awake]):
        wrong += 1  # one that holds it keeps every core awake
        yield warning(f"no stage keeps the cores awake ({', '.join(asleep)})",
                      "idle cores sleep deeply and wake later", "see the check wakeups, then restart the stages")
    if not found:
        yield ok("nothing of this instance runs")
    elif not wrong:
        yield ok("; ".join(f"{one.stage} on {one.cores}" for one in found))


PROCESSOR = Check("cpu", "what the processor can do", look_processor, judge_processor)
CORES = Check("cores", "cores that are granted, against the stages", look_cores, judge_cores)
GOVERNOR = Check("governor", "frequency of the cores", look_governors, judge_governors)
WAKEUPS = Check("wakeups", "whether cores can be kept awake", look_wakeups, judge_wakeups)
PLACEMENT = Check("placement", "where running stages are, against the configuration", look_placement, judge_placement,
                  needs_config=True)
