"""The clocks of this machine: disciplined, cheap to read, steady, and in step with what feeds say."""

import ctypes
import platform
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from common import layout
from common.config import told
from common.doctor import procfs
from common.doctor.check import Check, Finding, error, note, ok, warning
from common.doctor.patient import Patient
from common.errors import AlphaError
from common.overview import Overview
from common.ring import Books

_UNSYNC, _NANO = 0x0040, 0x2000  # bits of timex.status
_TIME_ERROR = 5
_LOOSE_US = 500_000  # maxerror: half a second, about what a venue forgives
_STEP_S = 0.5
_SLOW_NS = 500.0  # a read of the clock: by the vDSO it takes some 30 to 70 ns
_REFUSED_MS, _NOTICED_MS = 1000.0, 100.0
_TICKS = 256  # of a symbol, the newest, of which the least delayed speaks for the clocks
_SYNC = "systemctl enable --now chrony (or systemd-timesyncd); in a container or a virtual machine, on the host"


class Kernel(NamedTuple):
    """What adjtimex(2) says, in microseconds."""

    state: int
    status: int
    offset_us: float
    maxerror_us: int
    esterror_us: int


class Source(NamedTuple):
    current: str
    available: tuple[str, ...]
    machine: str
    read_ns: float  #: one reading of the monotonic clock, the best of many


class Steadiness(NamedTuple):
    """How much further the wall clock went than the monotonic one, in seconds."""

    since_start: dict[str, float]  #: stage -> since it was started
    now: float  #: while the check looked


class Lag(NamedTuple):
    """Of one feed: the least (time of receipt - the venue's time) of its newest events."""

    feed: str
    least_ms: float
    events: int


class Lags(NamedTuple):
    found: list[Lag]
    limit_ms: float  #: risk.max_clock_skew_ms; 0: none
    recorded: bool  #: what is fed is a recording


class _Timex(ctypes.Structure):
    _fields_ = [("modes", ctypes.c_uint), *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror",
                "esterror")), ("status", ctypes.c_int), *((name, ctypes.c_long) for name in (
                    "constant", "precision", "tolerance", "tv_sec", "tv_usec", "tick", "ppsfreq", "jitter")),
                ("shift", ctypes.c_int), *((name, ctypes.c_long) for name in (
                    "stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")), ("tai", ctypes.c_int),
                ("reserved", ctypes.c_int * 11)]


def look_kernel(patient: Patient) -> Kernel:
    libc, found = ctypes.CDLL(None, use_errno=True), _Timex(modes=0)  # no mode: nothing is set
    state = libc.adjtimex(ctypes.byref(found))
    if state < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")
    return Kernel(state, found.status, found.offset / (1e3 if found.status & _NANO else 1), found.maxerror,
                  found.esterror)


def judge_kernel(found: Kernel) -> Iterator[Finding]:
    why = "orders are stamped with it, and a venue refuses those from another time"
    if found.state == _TIME_ERROR or found.status & _UNSYNC:
        yield warning(f"the clock is not synchronised (adjtimex: state {found.state}, status {found.status:#x}, "
                      f"error at most {found.maxerror_us / 1e6:,.1f} s)", why, _SYNC)
    elif found.maxerror_us > _LOOSE_US:
        yield warning(f"the clock may be wrong by {found.maxerror_us / 1e6:,.2f} s, as the kernel knows it", why,
                      "chronyc sources; " + _SYNC)
    else:
        yield ok(f"synchronised; offset {found.offset_us / 1e3:+.3f} ms, error at most "
                 f"{found.maxerror_us / 1e3:,.1f} ms")


def look_source(patient: Patient) -> Source:
    folder = patient.sys / "devices/system/clocksource/clocksource0"
    best = 1e9
    for _ in range(20):
        start = time.perf_counter_ns()
        for _ in range(100):
            time.monotonic_ns()
        best = min(best, (time.perf_counter_ns() - start) / 100)
    return Source(procfs.read(folder / "current_clocksource").strip(),
                  tuple(procfs.read(folder / "available_clocksource").split()), platform.machine(), best)


def judge_source(found: Source) -> Iterator[Finding]:
    good = {"x86_64": ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page")}.get(found.machine, (found.current,))
    if found.current not in good or found.read_ns > _SLOW_NS:
        remedy = "boot with tsc=reliable, if the processor has an invariant TSC; in a virtual machine, ask the host"
        if "tsc" in found.available and found.current != "tsc":
            remedy = "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
        yield warning(f"clock source {found.current or 'unknown'}, {found.read_ns:,.0f} ns a reading",
                      "each tick reads the clock some ten times", remedy)
    else:
        yield ok(f"clock source {found.current}, {found.read_ns:.0f} ns a reading")


def look_steadiness(patient: Patient) -> Steadiness:
    before = time.time_ns() - time.monotonic_ns()
    since = {}
    if patient.config is not None:
        overview = Overview(patient.config.instance.name)
        overview.refresh()
        for stage, telemetry in overview.stages.items():
            # The block was made some microseconds before `started_ns` was set; later starts keep the block.
            if telemetry.get("starts") == 1 and overview.ready(stage):
                since[stage] = (before - (telemetry.block.epoch - telemetry.get("started_ns"))) / 1e9
    time.sleep(0.1)
    return Steadiness(since, (time.time_ns() - time.monotonic_ns() - before) / 1e9)


def judge_steadiness(found: Steadiness) -> Iterator[Finding]:
    why = "ages of books and days of profit go by the wall clock"
    stepped = {stage: step for stage, step in found.since_start.items() if abs(step) > _STEP_S}
    if stepped:
        stage, step = max(stepped.items(), key=lambda item: abs(item[1]))
        yield warning(f"the wall clock went {step:+.1f} s against the monotonic one since {stage} was started",
                      why, "it was set, or the machine slept: let chrony slew it, and restart the pipeline")
    if abs(found.now) > 0.01:
        yield warning(f"the wall clock went {1e3 * found.now:+.1f} ms against the monotonic one in a tenth of a second",
                      why, "see who sets it: " + _SYNC)
    if not stepped and abs(found.now) <= 0.01:
        yield ok("wall and monotonic clock go together")


def look_lags(patient: Patient) -> Lags:
    config, found = told(patient.config, "ingest"), []
    recorded = bool(config.exchange.captures)
    try:
        books = Books.attach(config.instance.name)
    except (FileNotFoundError, AlphaError):
        return Lags([], config.risk.max_clock_skew_ms, recorded)
    offset = time.time_ns() - time.monotonic_ns()
    feeds: dict[str, np.ndarray] = {}
    for name, ticks in zip(books.symbols, books.ticks):
        newest = ticks[np.argsort(ticks[:, layout.SEQ])[-_TICKS:]]
        stamped = newest[(newest[:, (layout.SEQ, layout.EVENT_NS, layout.RECV_NS)] > 0).all(axis=1)]
        feed = name.partition(":")[0] if name.partition(":")[0] in config.feeds else "market"
        lags = (stamped[:, layout.RECV_NS] + offset - stamped[:, layout.EVENT_NS]) / 1e6
        feeds[feed] = np.concatenate((feeds.get(feed, np.zeros(0)), lags))
    for feed, lags in feeds.items():
        if len(lags):
            found.append(Lag(feed, float(lags.min()), len(lags)))
    return Lags(found, config.risk.max_clock_skew_ms, recorded)


def judge_lags(found: Lags) -> Iterator[Finding]:
    """Events come after they happened: a negative lag proves a clock that is behind, a long one may be the way."""
    if found.recorded:
        yield ok("a recording is fed: its times are of its day")
        return
    refused = found.limit_ms or _REFUSED_MS
    for one in found.found:
        words = (f"{one.feed}: received {one.least_ms:+,.1f} ms after the venue's time at the least, "
                 f"of {one.events} events")
        if abs(one.least_ms) > refused:
            yield error(words, "orders are refused for their time" if not found.limit_ms else
                        f"the executor refuses above risk.max_clock_skew_ms = {found.limit_ms:g}", _SYNC)
        elif one.least_ms < 0 or one.least_ms > _NOTICED_MS:
            level = note if one.least_ms > -5 and one.least_ms <= _NOTICED_MS else warning
            yield level(words, "ages of data are wrong by as much" if one.least_ms < 0 else
                        "the clock is ahead, or the way is long", _SYNC)
        else:
            yield ok(words)
    if not found.found:
        yield ok("no feed runs that tells times")


KERNEL = Check("clock", "is the clock synchronised", look_kernel, judge_kernel)
SOURCE = Check("clocksource", "what the clock is read from", look_source, judge_source)
STEADY = Check("clockstep", "whether the wall clock was set", look_steadiness, judge_steadiness)
LAGS = Check("feedtime", "times of the running feeds against this clock", look_lags, judge_lags, needs_config=True)
