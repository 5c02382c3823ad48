"""A part of the bench that is measured in a process of its own, on one core, and told as JSON."""

import json
import os
from collections.abc import Mapping
from typing import Any

from procs.bench.live import Run


def child(run: Run, module: str, *arguments: str) -> dict[str, Any]:
    """What `python -m MODULE ARGUMENTS` tells. Raises ResourceError with its last words where it fails."""
    process = run.bed.spawn(module, *arguments, environment=run.bed.environment("local", **run.settings(run.model)),
                            talks=True)
    try:
        text = process.stdout.read()
        if process.wait(60):
            run.bed.check()
    finally:
        run.bed.stop([process])
    return json.loads(text)


def alone() -> None:
    """In that process, before it measures: on the last core."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])


def tell(told: Mapping[str, Any]) -> None:
    print(json.dumps(told))
