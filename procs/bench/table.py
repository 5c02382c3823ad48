"""What a benchmark says: figures, the goals they are held against, and the machine they were taken on."""

import importlib.metadata
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

DISTURBING = 0.1  #: cores used by others, above which figures are not to be trusted
PACKAGES = ("numpy", "numba", "pyzmq", "onnxruntime", "websockets", "orjson")


@dataclass
class Goal:
    """A figure and the bound that we hold ourselves to."""

    what: str
    value: float
    bound: float
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def line(self) -> str:
        sign = ">=" if self.at_least else "<="
        return (f"  {'yes' if self.met else 'NO ':<3}  {self.what}: {_number(self.value)}{self.unit}  "
                f"(goal {sign} {_number(self.bound)}{self.unit})")


@dataclass
class Part:
    """One thing measured: `lines` for people, `figures` for programs."""

    name: str
    title: str
    lines: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    hides: str = ""  #: what these figures do not show
    others: float = 0.0  #: cores that other programs used meanwhile
    error: str = ""

    def text(self) -> str:
        lines = [f"{self.name}: {self.title}"] + [f"  {line}" for line in self.lines]
        lines += [goal.line() for goal in self.goals]
        if self.error:
            lines.append(f"  failed: {self.error}")
        if self.others > DISTURBING:
            lines.append(f"  disturbed: other programs used {self.others:.2f} cores meanwhile")
        if self.hides:
            lines.append(f"  not shown: {self.hides}")
        return "\n".join(lines)

    def tree(self) -> dict[str, Any]:
        return {"title": self.title, **self.figures,
                "goals": [{**asdict(goal), "met": goal.met} for goal in self.goals],
                "not_shown": self.hides, "cores_used_by_others": round(self.others, 3),
                **({"error": self.error} if self.error else {})}


def latency_line(name: str, measured: dict[str, float], more: str = "") -> str:
    return (f"{name:<22} p50 {measured['p50']:>8,.0f} us  p99 {measured['p99']:>8,.0f} us  "
            f"p99.9 {measured['p999']:>8,.0f} us  of {measured['count']:>7,}  {more}").rstrip()


class Others:
    """The processor time that goes to programs that are none of ours."""

    def __init__(self) -> None:
        self._began, self._spent = time.monotonic(), _foreign_s()

    def cores(self) -> float:
        """Cores that they used since the construction, on average. Ours count once they have ended."""
        return max(0.0, (_foreign_s() - self._spent) / (time.monotonic() - self._began))


def _foreign_s() -> float:
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for disks
    return busy - sum(os.times()[:4])


def machine() -> dict[str, Any]:
    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "system": platform.system(), "python": platform.python_version(), "load_before": os.getloadavg()[0],
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES}}


def machine_line(told: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in told["packages"].items())
    return (f"{told['processor']}, {told['cores']} cores, {told['system']} {told['kernel']}, Python {told['python']}; "
            f"{packages}; load before {told['load_before']:.2f}")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # another system than Linux
    return platform.processor() or platform.machine()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
