"""Alerts: every rule has its case, nothing is told twice without a change, and all that is told ends."""

import copy
import inspect
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import alerts
from common.alerts import (
    CRITICAL,
    FIRING,
    RESOLVED,
    RULES,
    SEVERITIES,
    WARNING,
    WORSE,
    Alert,
    Debounce,
    Finding,
    Trend,
    findings,
)
from common.config import Alerts

S = 10**9
FINE = {
    "state": {"state": "ACTIVE", "why": "", "armed": True, "halted": False, "reducing": False, "flattening": False,
              "reconciled": True, "switch": {"halt": None, "reduction": None}},
    "stages": [{"name": name, "state": "ready", "starts": 1, "errors": 0, "age_s": 0.1}
               for name in ("ingest", "feature", "inference-0", "executor", "monitor")],
    "feeds": [{"name": "ingest", "venue": "vectrade", "connected": True}],
    "symbols": [{"name": name, "valid": True, "age_ms": 10.0} for name in ("A", "B", "other:A")],
    "numbers": {"unresolved": 0}, "limits": [], "journal": {"error": ""}, "judged": {"models": []},
    "latency_us": {"tick_to_decision": {"now": {"p99": 300.0, "count": 5000}}},
}
HALT = {"who": "me", "why": "looks wrong", "when_ns": 1}


def model(psi: float, role: str = "live") -> dict:
    return {"name": "m", "role": role, "drift": {"worst": [["obi_1", psi, None]]}}


def near(name: str, share: float) -> dict:
    return {"name": name, "symbol": "", "value": share * 100, "limit": 100.0, "share": share}


#: what is changed in FINE, and what is then found: (name, subject, severity)
CASES = {
    "halted by a person": ({"state.switch.halt": HALT}, ("trading-halted", "", WARNING)),
    "halted by the executor": ({"state.switch.halt": HALT | {"who": "executor"}}, ("trading-halted", "", CRITICAL)),
    "halted in memory": ({"state.halted": True, "state.why": "no disk"}, ("trading-halted", "", CRITICAL)),
    "reducing": ({"state.switch.reduction": HALT}, ("trading-reducing", "", WARNING)),
    "disarmed": ({"state.armed": False, "state.state": "DISARMED"}, ("trading-disarmed", "", WARNING)),
    "disconnected": ({"feeds.0.connected": False}, ("feed-disconnected", "ingest", CRITICAL)),
    "invalid": ({"symbols.1.valid": False}, ("book-invalid", "B", WARNING)),
    "one feed is stale": ({"symbols.2.age_ms": 11_000.0}, ("feed-stale", "other", CRITICAL)),
    "silent": ({"stages.3.state": "silent"}, ("stage-silent", "executor", CRITICAL)),
    "gone": ({"stages.1.state": "gone"}, ("stage-silent", "feature", CRITICAL)),
    "restarted": ({"stages.1.starts": 2}, ("stage-restarted", "feature", WARNING)),
    "again and again": ({"stages.1.starts": 4}, ("stage-restarted", "feature", CRITICAL)),
    "errors": ({"stages.2.errors": 10}, ("errors-rising", "inference-0", WARNING)),
    "no journal": ({"journal.error": "disk I/O error"}, ("journal-error", "read", CRITICAL)),
    "gross": ({"limits": [near("max_gross_notional", 0.8)]}, ("limit-near", "max_gross_notional", WARNING)),
    "loss": ({"limits": [near("max_daily_loss", 1.0)]}, ("limit-near", "max_daily_loss", CRITICAL)),
    "drawdown": ({"limits": [near("max_drawdown", 0.9)]}, ("limit-near", "max_drawdown", WARNING)),
    "position far over": ({"limits": [near("max_position_notional", 1.25) | {"symbol": "A"}]},
                          ("limit-near", "max_position_notional A", CRITICAL)),
    "position over, as prices move": ({"limits": [near("max_position_notional", 1.2) | {"symbol": "A"}]},
                                      ("limit-near", "max_position_notional A", WARNING)),
    "position": ({"limits": [near("max_position_notional", 0.9) | {"symbol": "A"}]},
                 ("limit-near", "max_position_notional A", WARNING)),
    "unresolved": ({"numbers.unresolved": 2}, ("orders-unresolved", "", CRITICAL)),
    "drift": ({"judged.models": [model(9.0, "shadow"), model(0.3)]}, ("model-drift", "m", WARNING)),
    "slow": ({"latency_us.tick_to_decision.now.p99": 900.0}, ("latency-high", "tick_to_decision", WARNING)),
}
#: and what is changed without anything being found
QUIET = {
    "nothing": {}, "a quiet symbol": {"symbols.0.age_ms": 99_000.0}, "a book that never was": {
        "symbols.0.valid": False, "symbols.0.age_ms": None},
    "a limit of another kind": {"limits": [near("max_orders_per_s", 2.0), near("max_gross_notional", 0.39),
                                       near("max_daily_loss", 0.71)]},
    "the monitor looks at itself": {"stages.4.state": "silent"}, "a challenger drifts": {
        "judged.models": [model(9.0, "shadow"), {"name": "x", "role": "live", "drift": None}]},
    "too few": {"latency_us.tick_to_decision.now": {"p99": 9e9, "count": 99}}, "nothing measured": {"latency_us": {}},
    "a few errors": {"stages.2.errors": 9}, "no journal yet": {
        "journal.error": "No such file or directory", "stages.3.state": "waiting"},
}


def changed(changes: dict) -> dict:
    snapshot = copy.deepcopy(FINE)
    for path, value in changes.items():
        *way, last = path.split(".")
        place = snapshot
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        place[last] = value
    return snapshot


def found(changes: dict, stopped: frozenset = frozenset(), failures: int = 0) -> list[Finding]:
    bounds = Alerts(p99_us=500.0)
    trend = Trend(bounds)
    trend.see(FINE, frozenset(), 0, 0.0)
    return findings(trend.see(changed(changes), stopped, failures, 1.0), bounds)


@pytest.mark.parametrize("case", CASES)
def test_each_rule_finds_what_it_is_for(case):
    changes, expected = CASES[case]
    assert [one[:3] for one in found(changes)] == [expected]
    assert all(one.what for one in found(changes))


@pytest.mark.parametrize("case", QUIET)
def test_what_is_nothing_wrong_is_not_found(case):
    assert found(QUIET[case]) == []


def test_every_rule_and_every_alert_has_its_case():
    written = set(re.findall(r'Finding\("([a-z-]+)"', inspect.getsource(alerts)))
    assert {expected[0] for _, expected in CASES.values()} == written and len(RULES) == 9


def test_a_strategy_that_uses_its_room_is_not_told_of_every_time_it_touches_a_limit():
    for name, hold_s in (("max_gross_notional", 30.0), ("max_position_notional", 30.0), ("max_daily_loss", 2.0)):
        assert [one.hold_s for one in found({"limits": [near(name, 1.0)]})] == [hold_s]


@pytest.mark.parametrize("share, told", [(0.9, "90%"), (0.998, "99%"), (1.0, "100%"), (1.29, "129%")])
def test_a_limit_that_is_not_reached_is_not_told_as_100_percent(share, told):
    [one] = found({"limits": [near("max_drawdown", share)]})
    assert one.what.endswith(f"is {told} of its limit")


def test_a_limit_that_has_been_told_is_over_only_once_it_is_well_below():
    def step(at_s: float, share: float) -> tuple[float, list[Finding]]:
        return at_s, found({"limits": [near("max_position_notional", share)]})

    shares = [1.0] * 4 + [0.79, 0.5, 1.02, 0.41, 0.39, 1.0, 0.39, 0.3, 0.3]
    steps = (step(10 * k, share) for k, share in enumerate(shares))
    told_now = turns(Debounce(Alerts(clear_s=5.0, repeat_s=0.0)), *steps)
    assert [(k, states) for k, states in enumerate(told_now) if states] == [(3, [FIRING]), (11, [RESOLVED])]
    assert not any(turns(Debounce(SETTINGS), *(step(10 * k, 0.79) for k in range(9))))


def test_one_restart_says_what_is_critical_and_has_not_met_that_limit():
    [one], [three] = found({"stages.1.starts": 2}), found({"stages.1.starts": 4})
    assert (one.value, one.limit, three.value, three.limit) == (1, 1, 3, 3) and "3 times would be critical" in one.what


def test_what_is_resolved_says_that_it_is_over_and_what_was_told():
    debounce = Debounce(SETTINGS)
    debounce.turn([Finding("a", "", WARNING, "it is 91%", 91.0)], 0, 0)
    debounce.turn([Finding("a", "", WARNING, "it is 80%", 80.0)], 1, S)
    debounce.turn([], 2, 2 * S)
    [over] = debounce.turn([], 8, 8 * S)
    assert (over.what, over.value) == ("over; what was told: it is 91%", 91.0)


def test_a_stage_that_starts_is_neither_silent_nor_without_its_venue_but_one_that_has_gone_is():
    snapshot = changed({"stages.0.state": "silent", "feeds.0.connected": False, "stages.1.state": "gone"})
    trend, starting = Trend(Alerts()), frozenset(("ingest", "feature"))
    trend.see(FINE, frozenset(), 0, 0.0)
    names = [one[:2] for one in findings(trend.see(snapshot, frozenset(), 0, 1.0, starting), Alerts())]
    assert names == [("stage-silent", "feature")]
    assert len(findings(trend.see(snapshot, frozenset(), 0, 2.0), Alerts())) == 3


def test_what_is_stopped_in_order_is_nothing_wrong():
    assert found({"stages.1.state": "gone", "stages.1.starts": 2}, frozenset(["feature"])) == []
    assert found({"symbols.0.valid": False, "feeds.0.connected": False}, frozenset(["ingest"])) == []


def test_failures_to_write_are_found_and_pass():
    assert [one[:3] for one in found({}, failures=2)] == [("journal-error", "write", CRITICAL)]


@pytest.mark.parametrize("setting, case", [("silent_s", "silent"), ("restarts", "restarted"), ("stale_s", "invalid"),
                                           ("unresolved_s", "unresolved"), ("errors_per_min", "errors"),
                                           ("psi", "drift"), ("limit_share", "loss"), ("p99_us", "slow")])
def test_a_limit_of_0_is_none(setting, case):
    bounds = Alerts(**{"p99_us": 500.0, setting: 0})
    trend = Trend(bounds)
    trend.see(FINE, frozenset(), 0, 0.0)
    assert findings(trend.see(changed(CASES[case][0]), frozenset(), 0, 1.0), bounds) == []


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0.1, 200), st.integers(0, 3), st.booleans()), max_size=20))
def test_restarts_in_the_window_are_counted_exactly(steps):
    """Also where the count begins anew, as after a new start of everything."""
    trend, now, starts, events = Trend(Alerts(restart_window_s=300.0)), 0.0, 1, []
    trend.see(changed({"stages.1.starts": 1}), frozenset(), 0, now)
    for gap, more, anew in steps:
        now += gap
        starts = 1 if anew else starts + more
        if not anew:
            events.append((now, more))
        seen = trend.see(changed({"stages.1.starts": starts}), frozenset(), 0, now)
        assert seen.restarts["feature"] == sum(count for at, count in events if at > now - 300.0)


# ---- when it is told

KEYS = [("a", ""), ("b", "x"), ("b", "y")]
looks = st.lists(st.tuples(st.floats(0.1, 40), st.dictionaries(st.sampled_from(KEYS), st.tuples(
    st.sampled_from(SEVERITIES), st.one_of(st.none(), st.floats(0.1, 100)), st.booleans()))), max_size=60)
SETTINGS = Alerts(clear_s=5.0, repeat_s=60.0)


def look(present: dict) -> list[Finding]:
    return [Finding(*key, severity, "it", value, hold_s=2.0, measured=measured)
            for key, (severity, value, measured) in present.items()]


@settings(max_examples=50)
@given(looks)
def test_nothing_is_told_twice_without_a_change_and_all_that_is_told_ends(steps):
    debounce, now = Debounce(SETTINGS), 0.0
    firing: dict[tuple, tuple[float, str, float | None]] = {}  # when it was told, and how
    since: dict[tuple, float] = {}
    gone: dict[tuple, float] = {}
    for gap, present in [*steps, (100.0, {}), (100.0, {})]:
        now += gap
        told_now = debounce.turn(look(present), now, int(now * S))
        assert len({alert[:2] for alert in told_now}) == len(told_now)
        for key in present:
            since.setdefault(key, now)
            gone.pop(key, None)
        for key in set(since) - set(present):
            gone.setdefault(key, now)
            if key not in firing:
                del since[key], gone[key]
        for alert in told_now:
            key = alert[:2]
            if alert.state == RESOLVED:
                assert key in firing and key not in present and now - gone[key] >= SETTINGS.clear_s
                del firing[key], since[key], gone[key]
                continue
            severity, value, measured = present[key]
            assert now - since[key] >= 2.0 and (alert.severity, alert.value) == (severity, value)
            if key in firing:
                at, before, told = firing[key]
                worse = SEVERITIES.index(severity) > SEVERITIES.index(before) or (
                    measured and value and told and severity == before and value >= WORSE * told)
                assert worse or now - at >= SETTINGS.repeat_s
            firing[key] = now, severity, value
        assert {alert[:2] for alert in debounce.firing} == set(firing)
    assert not firing and debounce.firing == []


def turns(debounce: Debounce, *steps: tuple[float, list[Finding]]) -> list[list[str]]:
    return [[alert.state for alert in debounce.turn(present, now, int(now * S))] for now, present in steps]


def test_it_is_told_once_and_again_when_it_is_worse_or_long_and_when_it_is_over():
    one = Finding("a", "", WARNING, "it", 10.0, hold_s=2.0)
    assert turns(Debounce(SETTINGS), (0, [one]), (1, [one]), (2, [one]), (3, [one]), (4, [one._replace(value=19.9)]),
                 (5, [one._replace(value=20.0)]), (6, [one._replace(severity=CRITICAL)]), (7, [one]), (67, [one]),
                 (70, []), (74, []), (75, []), (80, [])) == [
        [], [], [FIRING], [], [], [FIRING], [FIRING], [], [FIRING], [], [], [RESOLVED], []]


def test_what_flickers_is_told_once_or_never():
    one = Finding("a", "", WARNING, "it", hold_s=2.0)
    assert not any(turns(Debounce(SETTINGS), *((k, [one] if k % 2 else []) for k in range(50))))
    held = one._replace(hold_s=0.0)
    assert turns(Debounce(SETTINGS), *((k, [held] if k % 2 else []) for k in range(50))).count([FIRING]) == 1


def test_another_life_claims_what_was_told_once_it_finds_it_and_does_not_tell_it_again():
    first, one = Debounce(SETTINGS), Finding("a", "x", WARNING, "it", 10.0)
    first.turn([one], 5.0, 5 * S)
    second = Debounce(SETTINGS)
    second.restore(first.firing, 1.0)
    assert second.firing == [] and second.former == first.firing
    assert turns(second, (2, [one])) == [[]] and second.former == []
    assert second.firing == [Alert("a", "x", FIRING, WARNING, 5 * S, 5 * S, "it", 10.0, None, "")]
    assert turns(second, (3, []), (8, [])) == [[], [RESOLVED]]


def test_after_a_stop_it_has_to_hold_again_and_counts_from_then_and_is_told_to_be_over_once():
    one = Finding("a", "x", WARNING, "it", 10.0, hold_s=2.0)
    told_before = [Alert("a", "x", FIRING, WARNING, 5 * S, 5 * S, "it", 10.0, None, "")]
    again, over = Debounce(SETTINGS), Debounce(SETTINGS)
    for debounce in (again, over):
        debounce.restore(told_before, 100.0, anew=True)
    assert turns(again, (101, [one]), (102, [])) == [[], []] and again.firing == []
    assert turns(again, (103, [one]), (105, [one])) == [[], []] and again.former == []
    assert [alert.since_ns for alert in again.firing] == [103 * S]
    assert turns(over, (101, []), (105, []), (106, [])) == [[], [RESOLVED], []] and over.former == []


def test_the_worst_and_oldest_is_shown_first():
    debounce = Debounce(SETTINGS)
    debounce.turn([Finding("a", "", WARNING, "")], 0, 1)
    debounce.turn([Finding("a", "", WARNING, ""), Finding("b", "", CRITICAL, ""), Finding("c", "", WARNING, "")], 1, 2)
    assert [alert.name for alert in debounce.firing] == ["b", "a", "c"]
