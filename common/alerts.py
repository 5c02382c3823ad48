"""What is wrong with the pipeline, and when that is told. Pure.

    snapshot (common.watch.snapshot)  ->  rules  ->  findings  ->  debounce  ->  alerts, firing and resolved

A rule looks at one snapshot, and at what has changed lately, and yields what it finds. A finding becomes an alert once
it has held for as long as it says; it is told again when it has got worse, or after `repeat_s`, and told as resolved
once it was not found for `clear_s`. So what flickers is told once. What another life of this has told and not resolved
is not claimed to be firing before it was found in this one; it is told as resolved all the same, once.

To add a rule, write it here: it is asked because it is listed.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from common.config import Alerts as Settings

WARNING, CRITICAL = "warning", "critical"
FIRING, RESOLVED = "firing", "resolved"
SEVERITIES = (WARNING, CRITICAL)  #: the worse the later
WORSE = 2.0  #: times the value that was told: worth another word
_MINUTE_S = 60.0
_DRIFT_S, _LATENCY_S = 30.0, 10.0  # that these must hold: they come and go
_LEAST_LATENCIES = 100  # behind a p99
_NEAR = {"max_position_notional": "position", "max_gross_notional": "gross", "max_daily_loss": "day's loss",
         "max_drawdown": "drawdown"}
#: A strategy that uses its room touches these all the time, and prices move what is held: only what stays there is
#: told, once until it has been left for good, and it is critical only where no order of ours would have brought it.
_TOUCHED, _TOUCHED_S, _EXCEEDED = ("max_position_notional", "max_gross_notional"), 30.0, 1.25
_LEFT, _TOUCHED_LEFT = 0.9, 0.5  # of the share that is told: below it a limit is no longer near


class Finding(NamedTuple):
    """`name` and `subject` say which; one that holds is found at every look."""

    name: str
    subject: str  #: the stage, symbol, model or limit; "" where there is one only
    severity: str
    what: str
    value: float | None = None
    limit: float | None = None
    remedy: str = ""
    hold_s: float = 0.0
    measured: bool = True  #: a greater value is worse; False where it grows by itself, as an age does
    lingers: bool = False  #: what has been told goes on; nothing is told for it alone


class Alert(NamedTuple):
    """What is told. Times are Unix ns; `value` and `limit` of a resolved one are as it was last told, and `what` says
    that it is over, and what it was."""

    name: str
    subject: str
    state: str
    severity: str
    since_ns: int  #: when it was first found
    at_ns: int  #: when this was told
    what: str
    value: float | None
    limit: float | None
    remedy: str


class Seen(NamedTuple):
    """What rules look at."""

    snapshot: dict[str, Any]
    stopped: frozenset[str]  #: stages whose silence is nothing wrong: they were stopped in order, or nobody wants them
    journal_errors: int  #: that the monitor and the executor counted, since they began
    restarts: dict[str, int]  #: of each stage in restart_window_s
    errors: dict[str, int]  #: of each stage in a minute
    journal_failures: int  #: in a minute
    was_armed: bool
    starting: frozenset[str]  #: stages that were begun a while ago at most, and have not been ready since


class Trend:
    """What has changed lately, from counters that only grow."""

    def __init__(self, settings: Settings) -> None:
        self._window_s = settings.restart_window_s
        self._samples: deque[tuple[float, dict[str, tuple[int, int]], int]] = deque()
        self._was_armed = False

    def see(self, snapshot: dict[str, Any], stopped: frozenset[str], journal_errors: int, now_s: float,
            starting: frozenset[str] = frozenset()) -> Seen:
        counts = {stage["name"]: (stage["starts"], stage["errors"]) for stage in snapshot["stages"]}
        self._samples.append((now_s, counts, journal_errors))
        while len(self._samples) > 1 and self._samples[1][0] <= now_s - max(self._window_s, _MINUTE_S):
            self._samples.popleft()
        self._was_armed = self._was_armed or snapshot["state"]["armed"]
        restarts = {name: self._grown(now_s - self._window_s, name, 0) for name in counts}
        errors = {name: self._grown(now_s - _MINUTE_S, name, 1) for name in counts}
        before = next(sample[2] for sample in self._samples if sample[0] >= now_s - _MINUTE_S)
        return Seen(snapshot, stopped, journal_errors, restarts, errors, max(0, journal_errors - before),
                    self._was_armed, starting)

    def _grown(self, since_s: float, name: str, place: int) -> int:
        """By how much, since then or since the stage was first seen. One that begins anew counts from nothing."""
        grown, before = 0, None
        for at_s, counts, _ in self._samples:
            if name not in counts:
                continue
            value = counts[name][place]
            if before is not None and at_s > since_s:
                grown += max(0, value - before)
            before = value
        return grown


Rule = Callable[[Seen, Settings], Iterator[Finding]]
RULES: list[Rule] = []


def _rule(rule: Rule) -> Rule:
    RULES.append(rule)
    return rule


def findings(seen: Seen, settings: Settings) -> list[Finding]:
    """What all rules find."""
    return [found for rule in RULES for found in rule(seen, settings)]


# ---- the rules

@_rule
def trading(seen: Seen, settings: Settings) -> Iterator[Finding]:
    state = seen.snapshot["state"]
    halt, reduction = state["switch"]["halt"], state["switch"]["reduction"]
    if state["halted"] or halt:
        why = f"{halt['why']} (by {halt['who']})" if halt else state["why"]
        yield Finding("trading-halted", "", CRITICAL if not halt or halt["who"] == "executor" else WARNING,
                      f"halted: {why}", remedy="find out why, then: alpha resume", hold_s=settings.for_s)
    elif state["reducing"] or reduction:
        why = f"{reduction['why']} (by {reduction['who']})" if reduction else state["why"]
        yield Finding("trading-reducing", "", WARNING, f"only what shrinks a position leaves: {why}",
                      remedy="alpha resume lifts it", hold_s=settings.for_s)
    elif seen.was_armed and not state["armed"] and state["state"] == "DISARMED":
        yield Finding("trading-disarmed", "", WARNING, "it was armed, and is no longer: the executor was started again",
                      remedy="look at alpha logs executor, then: alpha arm", hold_s=settings.for_s)


@_rule
def feeds(seen: Seen, settings: Settings) -> Iterator[Finding]:
    if not settings.stale_s or any(name.partition("-")[0] == "ingest" for name in seen.stopped):
        return
    for feed in seen.snapshot["feeds"]:
        if not feed["connected"] and feed["name"] not in seen.starting:
            yield Finding("feed-disconnected", feed["name"], CRITICAL,
                          f"no connection to {feed['venue'] or 'the venue'}",
                          remedy="alpha status says what is waited for", hold_s=settings.stale_s)
    ages: dict[str, float] = {}
    for symbol in seen.snapshot["symbols"]:
        feed = symbol["name"].rpartition(":")[0] or "market"
        if symbol["age_ms"] is not None:
            ages[feed] = min(ages.get(feed, symbol["age_ms"]), symbol["age_ms"])
            if not symbol["valid"]:
                yield Finding("book-invalid", symbol["name"], WARNING, "its book is not that of the venue",
                              remedy="alpha status; it is asked for again by itself", hold_s=settings.stale_s)
    for feed, age_ms in ages.items():
        if age_ms > settings.stale_s * 1000:
            yield Finding("feed-stale", feed, CRITICAL, f"no tick of any symbol for {age_ms / 1000:.0f} s",
                          age_ms / 1000, settings.stale_s, "is the venue open? alpha status", measured=False)


@_rule
def stages(seen: Seen, settings: Settings) -> Iterator[Finding]:
    for stage in seen.snapshot["stages"]:
        name = stage["name"]
        if name in seen.stopped:
            continue
        silent = stage["state"] == "gone" or stage["state"] == "silent" and name not in seen.starting
        if settings.silent_s and silent and name != "monitor":
            yield Finding("stage-silent", name, CRITICAL, "it gives no sign of life", stage["age_s"], settings.silent_s,
                          f"alpha logs {name}", hold_s=settings.silent_s, measured=False)
        count = seen.restarts.get(name, 0)
        if settings.restarts and count:
            again = count >= settings.restarts
            yield Finding("stage-restarted", name, CRITICAL if again else WARNING,
                          f"it was started again{f' {count} times' if count > 1 else ''} in the last "
                          f"{settings.restart_window_s:g} s" + ("" if again else
                                                                f"; {settings.restarts} times would be critical"),
                          count, settings.restarts if again else 1, f"alpha logs {name}")


@_rule
def errors(seen: Seen, settings: Settings) -> Iterator[Finding]:
    for name, count in seen.errors.items():
        if settings.errors_per_min and count >= settings.errors_per_min:
            yield Finding("errors-rising", name, WARNING, f"{count} errors in a minute", count,
                          settings.errors_per_min, f"alpha logs {name} --level error --since 5m")


@_rule
def journal(seen: Seen, settings: Settings) -> Iterator[Finding]:
    error = seen.snapshot["journal"]["error"]
    executor = next((stage for stage in seen.snapshot["stages"] if stage["name"] == "executor"), None)
    if error and executor and executor["state"] == "ready":
        yield Finding("journal-error", "read", CRITICAL, error, remedy="is the disk full? alpha logs executor",
                      hold_s=settings.for_s)
    if seen.journal_failures:
        yield Finding("journal-error", "write", CRITICAL, "what was meant or judged could not be written down",
                      seen.journal_failures, 0, "is the disk full? alpha logs executor monitor --level error")


def percent(share: float) -> int:
    """In whole percent, downwards: what is not reached is never told as 100. 0.29 is 29, although as a double it is
    less."""
    return math.floor(100 * share + 1e-9)


@_rule
def limits(seen: Seen, settings: Settings) -> Iterator[Finding]:
    for limit in seen.snapshot["limits"]:
        name, share, touched = limit["name"], limit["share"], limit["name"] in _TOUCHED
        near = settings.limit_share
        if not near or name not in _NEAR or share < near * (_TOUCHED_LEFT if touched else _LEFT):
            continue
        yield Finding("limit-near", f"{name} {limit['symbol']}".strip(),
                      CRITICAL if share >= (_EXCEEDED if touched else 1) else WARNING,
                      f"the {_NEAR[name]} is {percent(share)}% of its limit", limit["value"], limit["limit"],
                      f"alpha position; risk.{name}", hold_s=_TOUCHED_S if touched else settings.for_s,
                      lingers=share < near)


@_rule
def unresolved(seen: Seen, settings: Settings) -> Iterator[Finding]:
    count = seen.snapshot["numbers"]["unresolved"]
    if settings.unresolved_s and count:
        yield Finding("orders-unresolved", "", CRITICAL, f"the venue does not say what became of {count} orders", count,
                      0, "alpha orders; look at the venue", hold_s=settings.unresolved_s)


@_rule
def drift(seen: Seen, settings: Settings) -> Iterator[Finding]:
    for model in seen.snapshot["judged"]["models"]:
        worst = (model.get("drift") or {}).get("worst")
        if settings.psi and model["role"] == "live" and worst and worst[0][1] >= settings.psi:
            yield Finding("model-drift", model["name"], WARNING,
                          f"{worst[0][0]} does not look as it did in training (PSI {worst[0][1]:.2f})", worst[0][1],
                          settings.psi, "alpha status; train it on newer data", hold_s=_DRIFT_S)


@_rule
def latency(seen: Seen, settings: Settings) -> Iterator[Finding]:
    now = (seen.snapshot["latency_us"].get("tick_to_decision") or {}).get("now") or {"count": 0}
    if settings.p99_us and now["count"] >= _LEAST_LATENCIES and now["p99"] > settings.p99_us:
        yield Finding("latency-high", "tick_to_decision", WARNING, f"p99 of tick to decision is {now['p99']:,.0f} us",
                      now["p99"], settings.p99_us, "alpha status shows the stations", hold_s=_LATENCY_S)


# ---- when what is found is told

class _Case:
    """One finding from when it was first there."""

    __slots__ = ("finding", "since_s", "since_ns", "told", "told_s", "gone_s", "former", "anew")

    def __init__(self, finding: Finding, since_s: float, since_ns: int) -> None:
        self.finding, self.since_s, self.since_ns = finding, since_s, since_ns
        self.told: Finding | None = None  #: as it was told last
        self.told_s = 0.0
        self.gone_s: float | None = None
        self.former = False  #: told by another life, and not claimed by this one yet
        self.anew = False  #: it has to hold again, and counts from then


class Debounce:
    """Findings of each look in, alerts out. Seconds are monotonic."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cases: dict[tuple[str, str], _Case] = {}

    def turn(self, found: Iterable[Finding], now_s: float, wall_ns: int) -> list[Alert]:
        alerts, settings = [], self._settings
        present = {(one.name, one.subject): one for one in found if not one.lingers or self._is_told(one)}
        for key, finding in present.items():
            case = self._cases.get(key)
            if case is None:
                case = self._cases[key] = _Case(finding, now_s, wall_ns)
            elif case.former and case.anew and case.gone_s is not None:
                case.since_s, case.since_ns = now_s, wall_ns
            case.finding, case.gone_s = finding, None
            held = now_s - case.since_s >= finding.hold_s
            case.former = case.former and case.anew and not held
            if case.told is None:
                due = held
            else:
                due = not case.former and (_is_worse(finding, case.told) or
                                           0 < settings.repeat_s <= now_s - case.told_s)
            if due:
                case.told, case.told_s = finding, now_s
                alerts.append(_alert(case, FIRING, wall_ns))
        for key, case in list(self._cases.items()):
            if key in present:
                continue
            if case.gone_s is None:
                case.gone_s = now_s
            if case.told is None:
                del self._cases[key]
            elif now_s - case.gone_s >= settings.clear_s:
                del self._cases[key]
                alerts.append(_alert(case, RESOLVED, wall_ns))
        return alerts

    def _is_told(self, finding: Finding) -> bool:
        case = self._cases.get((finding.name, finding.subject))
        return case is not None and case.told is not None

    @property
    def firing(self) -> list[Alert]:
        """What has been told and is not resolved, as it was last found; the worst and the oldest first."""
        return self._list(False)

    @property
    def former(self) -> list[Alert]:
        """What another life has told, and this one has not found: not claimed, and resolved before long. In order."""
        return self._list(True)

    def _list(self, former: bool) -> list[Alert]:
        alerts = [_alert(case, FIRING, case.since_ns) for case in self._cases.values()
                  if case.told is not None and case.former == former]
        return sorted(alerts, key=lambda alert: (-SEVERITIES.index(alert.severity), alert.since_ns))

    def restore(self, firing: Iterable[Alert], now_s: float, anew: bool = False) -> None:
        """What another life of this has told and not resolved: not told again, and resolved once it is over. It is
        firing from the look that finds it on; `anew`: once it has held, and since then, as what it was told of was
        stopped meanwhile."""
        for alert in firing:
            finding = Finding(alert.name, alert.subject, alert.severity, alert.what, alert.value, alert.limit,
                              alert.remedy)
            case = self._cases[alert.name, alert.subject] = _Case(finding, now_s, alert.since_ns)
            case.told, case.told_s, case.gone_s, case.former, case.anew = finding, now_s, now_s, True, anew


def _is_worse(finding: Finding, told: Finding) -> bool:
    if finding.severity != told.severity:
        return SEVERITIES.index(finding.severity) > SEVERITIES.index(told.severity)
    return bool(finding.measured and finding.value and told.value and finding.value >= WORSE * told.value > 0)


def _alert(case: _Case, state: str, at_ns: int) -> Alert:
    finding = case.finding if state == FIRING else case.told or case.finding
    what = finding.what if state == FIRING else f"over; what was told: {finding.what}"
    return Alert(finding.name, finding.subject, state, finding.severity, case.since_ns, at_ns, what, finding.value,
                 finding.limit, finding.remedy)
