"""Waiting for a condition instead of for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 10.0, what: str | Callable[[], str] = "the condition") -> T:
    """The first true value of `condition`; fails after `seconds`, which is a limit and not an expectation. `what` did
    not come true, or a function that tells it as it stands then."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what() if callable(what) else what} did not come true within {seconds} s"
        time.sleep(0.002)
    return value
