"""The picture: it fits, it says what the snapshot says, and it needs no colour."""

import copy
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.watch.picture import ASCII, BLOCKS, RATES, Trails, bar, brief, picture, plain, sparkline
from common.wire import LATENCIES

NUMBERS = dict.fromkeys(("frames", "rows", "dispatched", "invalid", "superseded", "gaps", "malformed", *RATES), 0)
SYMBOL = {"name": "BTC-USD", "valid": True, "age_ms": 12.0, "stale": False, "bid": 64_000.5, "ask": 64_001.0,
          "mid": 64_000.75, "spread_bps": 0.078, "bids": None, "asks": None, "qty": -0.25,
          "average_cost": 63_999.123456,
          "unrealised": -5.5, "realised": 2.0, "fees": 0.5, "p_up": None, "p_down": None, "predicted_ns": None}
STAGE = {"name": "feature", "state": "ready", "pid": 7, "starts": 1, "errors": 0, "age_s": 0.1, "waiting_for": "",
         "note": "", "cpu": 0.25, "memory_mb": 170.0}


def snapshot(symbols: int = 4, stages: int = 7) -> dict:
    return {
        "at_ns": 1_700_000_000_000_000_000, "instance": "demo", "gateway": "paper", "venue": "vectrade",
        "state": {"state": "ACTIVE", "why": "", "armed": True, "halted": False, "reducing": False, "flattening": False,
                  "reconciled": True, "switch": {"halt": None, "reduction": None}},
        "stages": [dict(STAGE, name=f"inference-{place}") for place in range(stages)],
        "numbers": {**NUMBERS, "ticks": 12_345, "position": 100.0, "pnl": -4.0, "errors": 0, "restarts": 0,
                    "working": 2, "unresolved": 1},
        "rates": {name: 100.0 for name in RATES}, "rates_s": 1.0, "latency_s": 5.0,
        "latency_us": {name: {"now": {"p50": 100.0, "p99": 900.0, "p999": 999.0, "count": 5},
                              "all": {"p50": 7.0, "p99": 70.0, "p999": 99.0, "count": 50}} for name in LATENCIES},
        "refusals": {"SIGNAL_WEAK": 5, "RATE_SYMBOL": 9},
        "recent_refusals": [{"at_ns": 1_700_000_000_000_000_000, "symbol": "BTC-USD", "reason": "NOTIONAL_POSITION",
                             "value": 26_500.0, "limit": 25_000.0, "unit": "quote"},
                            {"at_ns": 1_700_000_000_000_000_000, "symbol": "BTC-USD", "reason": "STATE_HALTED",
                             "value": None, "limit": None, "unit": ""}],
        "symbols": [dict(SYMBOL, name=f"S{place}") for place in range(symbols)],
        "limits": [{"name": "max_gross_notional", "symbol": "", "value": 72.0, "limit": 80.0, "share": 0.9},
                   {"name": "max_daily_loss", "symbol": "", "value": 1.0, "limit": 80.0, "share": 0.0125}],
        "orders": [{"id": "1", "at_ns": 1_700_000_000_000_000_000, "symbol": f"S{place % 2}", "side": "BUY",
                    "price": 64_000.0, "qty": 0.5, "filled": 0.25, "state": "partly filled", "reason": ""}
                   for place in range(10)],
        "fills": [], "journal": {"path": "", "error": ""}, "missing": [],
        "executor": {"speaks": True, "heard_ns": 1_700_000_000_000_000_000},
        "alerts": {"wanted": True, "watched": True, "firing": [], "former": []},
    }


def text(told: dict, width: int = 120, height: int = 40, **more) -> str:
    trails = Trails()
    trails.add(told)
    return plain(picture(told, trails, width, height, **more))


@given(st.integers(1, 250), st.integers(1, 100), st.integers(0, 30), st.integers(0, 20), st.booleans())
@settings(max_examples=60)
def test_it_fits_any_terminal(width, height, symbols, stages, chosen):
    told = snapshot(symbols, stages)
    lines = picture(told, Trails(), width, height, "S1" if chosen else "")
    assert len(lines) <= height and all(sum(len(text) for text, _ in line) <= width for line in lines)


@pytest.mark.parametrize("size", [(80, 23), (100, 30), (160, 50), (60, 60)])
def test_every_part_has_its_place_from_80_by_24_on(size):
    shown = text(snapshot(), *size)
    for word in ("demo", "vectrade", "paper", "ACTIVE", "STAGES", "starts", "RATES", "LIMITS", "SYMBOL", "S0",
                 "LATENCY", "tick to decision", "REFUSED", "RATE_SYMBOL", "ORDERS", "BUY", "ready", "12,345",
                 "gross_notional", "90%", "NOTIONAL_POSITION 26,500/25,000"):
        assert word in shown, word


def test_a_larger_one_shows_more():
    small, large = text(snapshot(30), 80, 23), text(snapshot(30), 160, 60)
    assert small.count(" BUY ") < large.count(" BUY ") and len(large.splitlines()) > len(small.splitlines())
    assert "avg cost" in large and "avg cost" not in small
    assert "SYMBOL (30)" in small


def test_figures_stand_as_the_snapshot_has_them():
    told = snapshot()
    shown = text(told)
    for word in ("64,000.5", "64,001", "-0.25", "-4.00", "63,999.123", "0.08",
                 "26,500/25,000 quote",
                 "2 working, 1 unknown", "0.25/0.5 @ 64,000 partly filled",
                 "inference-3 ready      0.25  170"):
        assert word in shown, word
    assert "100     900" in shown and "STATE_HALTED" in shown
    told["latency_us"]["ingest"]["now"]["count"] = 0  # nothing lately: of the whole life
    assert "ingest                  7      70" in text(told)


def test_states_and_nearness_are_told_in_words_and_signs_not_in_colour_alone():
    told = snapshot()
    told["state"] |= {"state": "HALTED", "why": "by hand (by quant)", "halted": True}
    told["stages"][0] |= {"state": "waiting", "waiting_for": "the books ring"}
    told["stages"][1] |= {"state": "gone", "cpu": None, "memory_mb": None, "errors": 3}
    told["symbols"][0] |= {"stale": True}
    told["symbols"][1] |= {"valid": False, "bid": None, "unrealised": None}
    shown = text(told, selected="S2", paused=True)
    for word in ("HALTED  by hand (by quant)", "waiting", "for the books ring", "gone", "3 errors", " stale",
                 " invalid", "!gross_notional", "> S2", "PAUSED"):
        assert word in shown, word
    assert "!daily_loss" not in shown


def test_a_switch_that_nobody_has_obeyed_yet_is_told():
    told = snapshot()
    told["state"] = copy.deepcopy(told["state"])
    told["state"]["switch"]["halt"] = {"who": "me", "when_ns": 1, "why": "looks wrong"}
    assert "the kill switch is set by me: looks wrong" in text(told)


def test_what_a_silent_executor_said_last_is_marked():
    told = snapshot()
    assert "last word" not in text(told) + brief(told)
    told["executor"] = {"speaks": False, "heard_ns": 1_700_000_000_000_000_000}
    shown = text(told, 160)
    assert "pnl -4.00 (the executor's last word, 22:13:20)" in shown and "~gross_notional" in shown
    assert "LATENCY us ~" in shown
    for heading in ("LIMITS", "REFUSED", "ORDERS"):
        line = next(line for line in shown.splitlines() if heading in line)
        assert "the executor's last word, 22:13:20" in line.partition(heading)[2], heading
    assert "pnl -4.00 (the executor's last word, 22:13:20)" in brief(told)


def test_stages_that_do_not_run_and_a_journal_that_cannot_be_read_are_told():
    told = snapshot()
    told |= {"missing": ["feature", "inference-9"], "journal": {"path": "p", "error": "the journal is damaged"}}
    for shown in (text(told), brief(told)):
        assert "not running: feature, inference-9" in shown and "the journal is damaged" in shown
    told["stages"][0] |= {"name": "executor", "state": "waiting"}
    assert "the journal is damaged" not in text(told), "an executor that starts makes one"
    told |= {"missing": ["inference-0"], "stages": [dict(STAGE)]}
    assert "no worker runs: nothing is predicted" in text(told) and "not running" not in text(told)
    told["stages"] = [dict(STAGE, state="gone")]
    assert "no worker runs" not in text(told), "nothing runs at all"


def test_what_is_firing_is_told_and_what_is_too_much_is_counted():
    told = snapshot()
    alert = {"name": "book", "subject": "S1", "severity": "critical", "what": "no valid book for 12 s", "remedy": "",
             "since_ns": 1_700_000_000_000_000_000}
    told["alerts"] |= {"firing": [alert, alert | {"severity": "warning"}]}
    shown = text(told)
    assert "CRITICAL since 22:13:20 book S1: no valid book for 12 s" in shown and "WARNING  since" in shown
    assert "CRITICAL book S1" in brief(told)
    told["alerts"]["firing"] = [alert] * 12
    assert "8 more are firing" in text(told)
    told["alerts"] = {"wanted": True, "watched": False, "firing": [], "former": [alert]}
    shown = text(told)
    assert "no monitor runs: nobody looks for alerts" in shown and "1 told before and not known now" in shown
    told["alerts"] = {"wanted": False, "watched": False, "firing": [], "former": []}
    assert "monitor" not in text(told)


@given(st.integers(14, 130))
@settings(max_examples=60)
def test_a_number_is_there_whole_or_not_at_all(width):
    line = next(line for line in text(snapshot(), width, 60).splitlines() if line.startswith("  S0"))
    assert set(line.split()) <= {"S0", "64,000.5", "64,001", "0.08", "12", "-0.25", "-4.00", "63,999.123"}
    assert width < 26 or "-0.25" in line


@given(st.integers(1, 130), st.booleans())
@settings(max_examples=60)
def test_no_number_is_cut(width, speaks):
    told = snapshot()
    told["numbers"] |= {"position": 1_234_567.0, "pnl": -7_654.32}
    told["executor"]["speaks"] = speaks
    lines = text(told, width, 60).splitlines()
    numbers = re.findall(r"[\d,.:]*\d", lines[0])
    assert set(numbers) <= {"1,234,567", "7,654.32", "0", "22:13:20"}, lines[0]
    for line in lines:
        for found in re.findall(r"@ (\S+)", line):
            assert found == "64,000", line


def test_the_symbol_chosen_is_seen_among_many_and_its_orders_alone():
    shown = text(snapshot(30), 100, 30, selected="S1")
    assert "> S1 " in shown and "BUY  S1" in shown and "BUY  S0" not in shown
    assert "> S29" in text(snapshot(30), 100, 30, selected="S29")


def test_a_terminal_without_such_signs_gets_plain_ones():
    shown = text(snapshot(), blocks=ASCII)
    assert shown.replace("·", "").isascii() and "@" in shown


@given(st.lists(st.floats(0, 1e9), max_size=60), st.integers(0, 40))
@settings(max_examples=50)
def test_a_sparkline_is_as_wide_as_asked_and_highest_at_the_largest(values, width):
    line = sparkline(values, width)
    shown = values[-width:] if width else values
    if width:
        assert len(line) == width
        if any(shown):
            assert line[width - len(shown):][shown.index(max(shown))] == BLOCKS[-1]
        assert all(sign != BLOCKS[0] for value, sign in zip(reversed(shown), reversed(line)) if value > 0)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=2), st.integers(0, 30))
def test_a_bar_has_its_width(parts, width):
    assert len(bar(parts, 1.0, width, "#-")) == width
    assert bar([0.5, 1.0], 1.0, 4, "#-") == "##--"


def test_the_brief_line_says_where_it_stands():
    line = brief(snapshot())
    assert "\n" not in line and "ready 7/7" in line and "p99 900 us" in line and "pnl -4.00" in line


def test_a_limit_that_is_not_reached_is_not_shown_as_100_percent():
    told = snapshot()
    told["limits"] = [{"name": "max_drawdown", "symbol": "", "value": 79.84, "limit": 80.0, "share": 0.998}]
    [line] = [line for line in text(told).splitlines() if "drawdown" in line and "%" in line]
    assert " 99%" in line
