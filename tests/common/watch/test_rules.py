"""The alert rules and the dashboard load as they are, name what there is, and fire when they should."""

import json
import subprocess
from collections.abc import Iterable

import pytest

from common.watch import metrics
from tests.common.watch.expressions import DASHBOARD, RULES, expressions, names, of_dashboard, of_rules
from tests.prometheus import promtool

needs_promtool = pytest.mark.skipif(promtool() is None, reason="promtool is not installed")


def exposed() -> set[str]:
    """Every name of a sample there can be."""
    found = set()
    for name, (kind, _) in metrics.FAMILIES.items():
        suffixes = {"counter": ["_total"], "info": ["_info"], "gauge": [""]}.get(kind, ["_bucket", "_sum", "_count"])
        found |= {f"alpha_{name}{suffix}" for suffix in suffixes}
    return found


def test_every_metric_that_an_expression_names_exists():
    assert len(of_rules()) == RULES.read_text().count("- alert:") > 20 and len(of_dashboard()) > 60
    for expression in expressions():
        assert names(expression) <= exposed(), expression
    used = set().union(*map(names, expressions()))
    assert "alpha_tick_to_decision_seconds_bucket" in used and "alpha_model_info" in used


@needs_promtool
def test_promtool_takes_the_rules_and_each_expression_of_the_dashboard(tmp_path):
    checked = subprocess.run([promtool(), "check", "rules", str(RULES)], text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    plain = [text.replace("$__rate_interval", "1m").replace("$__interval", "1m").replace("$instance", ".*")
             for text in of_dashboard() if not text.startswith("label_values(")]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(plain)]
    path = tmp_path / "panels.yaml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    checked = subprocess.run([promtool(), "check", "rules", str(path)], text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dashboard_has_what_grafana_needs_to_import_it():
    board = json.loads(DASHBOARD.read_text())
    assert board["uid"] and board["title"] and board["id"] is None and board["schemaVersion"] >= 36
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        assert panel["title"] and panel["targets"] and panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all(target["expr"] and target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    for first, one in enumerate(board["panels"]):  # none lies on another, none leaves the page
        at = one["gridPos"]
        assert 0 <= at["x"] and at["x"] + at["w"] <= 24 and at["h"] > 0
        for other in board["panels"][first + 1:]:
            it = other["gridPos"]
            assert (at["x"] + at["w"] <= it["x"] or it["x"] + it["w"] <= at["x"]
                    or at["y"] + at["h"] <= it["y"] or it["y"] + it["h"] <= at["y"]), (one["title"], other["title"])
    used = set().union(*(names(text) for text in of_dashboard()))
    for what in ("pid", "latenc", "books"):
        assert what not in used
    assert variables["instance"]["definition"] == "label_values(alpha_stage_up, instance)"


LOSS = 'alpha_risk_daily_loss_limit_quote{job="alpha"}'
#: what happens, as series of one value a minute -> the alerts that fire ten minutes later, and no others
CASES: dict[str, tuple[dict[str, str], set[str]]] = {
    "all is well": ({
        'up{job="alpha"}': "1x20", 'alpha_stage_up{stage="executor"}': "1x20",
        'alpha_stage_ready{stage="executor"}': "1x20",
        'alpha_stage_restarts_total{stage="executor"}': "3x20", 'alpha_stage_errors_total{stage="executor"}': "2x20",
        'alpha_ingest_connected{worker="0"}': "1x20", 'alpha_book_age_seconds{symbol="AAPL"}': "0.5x20",
        "alpha_risk_book_age_limit_seconds": "5x20", 'alpha_book_valid{symbol="AAPL"}': "1x20",
        'alpha_ingest_gaps_total{worker="0"}': "5x20", "alpha_executor_halted": "0x20",
        "alpha_executor_day_loss_quote": "-100x20", "alpha_risk_daily_loss_limit_quote": "5000x20",
        "alpha_feature_offered_total": "0+1000x20", "alpha_feature_skipped_total": "0+100x20",
        'alpha_model_drift_changed_columns{role="live"}': "0x20"}, set()),
    "the page does not answer": ({'up{job="alpha"}': "0x20"}, {"AlphaUnreachable"}),
    "a stage is down": ({'alpha_stage_up{stage="feature"}': "0x20", 'alpha_stage_ready{stage="feature"}': "0x20"},
                        {"AlphaStageDown"}),
    "a worker is down": ({'alpha_stage_up{stage="inference",worker="1"}': "1x8 0x12"}, {"AlphaStageDown"}),
    "the monitor is down": ({'alpha_stage_up{stage="monitor"}': "0x20"}, {"AlphaMonitorDown"}),
    "a stage waits": ({'alpha_stage_up{stage="feature"}': "1x20", 'alpha_stage_ready{stage="feature"}': "0x20"},
                      {"AlphaStageNotReady"}),
    "a stage starts again and again": ({'alpha_stage_restarts_total{stage="ingest",worker="0"}': "0+1x20"},
                                       {"AlphaStageRestarting"}),
    "a stage was stopped and started, its counters begin at 0": (
        {'alpha_stage_restarts_total{stage="ingest",worker="0"}': "7x5 0x15",
         'alpha_ingest_gaps_total{worker="0"}': "90x5 0x15"}, set()),
    "a feed is stale": ({'alpha_book_age_seconds{symbol="AAPL",job="alpha"}': "0+60x20",
                         'alpha_book_age_seconds{symbol="MSFT",job="alpha"}': "1x20",
                         'alpha_risk_book_age_limit_seconds{job="alpha"}': "5x20"}, {"AlphaFeedStale"}),
    "a feed is disconnected, its books are not valid": (
        {'alpha_ingest_connected{worker="0"}': "0x20", 'alpha_book_valid{symbol="AAPL"}': "0x20"},
        {"AlphaFeedDisconnected", "AlphaBookInvalid"}),
    "a feed has gaps": ({'alpha_ingest_gaps_total{worker="0"}': "0+1x20"}, {"AlphaGaps"}),
    "a feed had one gap": ({'alpha_ingest_gaps_total{worker="0"}': "0x8 1x12"}, set()),
    "a book is contradicted": ({'alpha_ingest_checksum_mismatches_total{worker="0"}': "0x8 1x12"},
                               {"AlphaBookContradicted"}),
    "trading is halted": ({"alpha_executor_halted": "0x8 1x12"}, {"AlphaHalted"}),
    "the day's loss nears its limit": ({'alpha_executor_day_loss_quote{job="alpha"}': "0+450x20", LOSS: "5000x20"},
                                       {"AlphaDailyLossNearLimit"}),
    "the day's loss is far from its limit": (
        {'alpha_executor_day_loss_quote{job="alpha"}': "3900x20", LOSS: "5000x20"}, set()),
    "a drawdown without a limit": ({"alpha_executor_drawdown_quote": "9999999x20",
                                    "alpha_risk_drawdown_limit_quote": "Inf " * 20}, set()),
    "a drawdown nears its limit": ({"alpha_executor_drawdown_quote": "950x20",
                                    "alpha_risk_drawdown_limit_quote": "1000x20"}, {"AlphaDrawdownNearLimit"}),
    "an order's outcome is not known": ({"alpha_executor_unresolved_orders": "1x20"}, {"AlphaOrderUnresolved"}),
    "decisions are slow": ({'alpha_tick_to_decision_seconds_bucket{le="0.001048575"}': "0+90x20",
                            'alpha_tick_to_decision_seconds_bucket{le="0.004194303"}': "0+100x20",
                            'alpha_tick_to_decision_seconds_bucket{le="+Inf"}': "0+100x20"}, {"AlphaDecisionsSlow"}),
    "decisions are fast": ({'alpha_tick_to_decision_seconds_bucket{le="0.001048575"}': "0+100x20",
                            'alpha_tick_to_decision_seconds_bucket{le="+Inf"}': "0+100x20"}, set()),
    "most rows are skipped": ({"alpha_feature_offered_total": "0+1000x20", "alpha_feature_skipped_total": "0+800x20"},
                              {"AlphaRowsSkipped"}),
    "a worker is lost": ({"alpha_feature_leases_expired_total": "0x8 1x12"}, {"AlphaWorkerLost"}),
    "the journal fails": ({'alpha_executor_refusals_total{reason="JOURNAL_FAILED"}': "0x8 1x12"},
                          {"AlphaJournalErrors"}),
    "what is judged cannot be written": ({"alpha_monitor_journal_errors_total": "0x8 3x12"}, {"AlphaJournalErrors"}),
    "features drift": ({'alpha_model_drift_changed_columns{role="live",model="best",id="00"}': "2x20"},
                       {"AlphaFeatureDrift"}),
    "a challenger's features drift": ({'alpha_model_drift_changed_columns{role="shadow",model="x",id="01"}': "2x20"},
                                      set()),
    "the model is worse than its base rate": (
        {f'alpha_model_{what}{{role="live",model="best",id="00"}}': f"{value}x20" for what, value in (
            ("recent_brier_score", 0.27), ("recent_brier_base_score", 0.25), ("judged_total", 2000))},
        {"AlphaModelWorseThanBaseRate"}),
    "errors of ours": ({'alpha_stage_errors_total{stage="executor"}': "0x8 1x12"}, {"AlphaErrors"}),
}


def case(name: str, series: dict[str, str], fires: Iterable[str]) -> dict:
    """As `promtool test rules` wants it."""
    return {"name": name, "interval": "1m",
            "input_series": [{"series": key, "values": values} for key, values in series.items()],
            "promql_expr_test": [{"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "10m",
                                  "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}
                                                  for alert in sorted(fires)]}]}


@needs_promtool
def test_each_alert_fires_when_it_should_and_no_other(tmp_path):
    tests = [case(name, series, fires) for name, (series, fires) in CASES.items()]
    # What it says, too, of one.
    tests[0]["alert_rule_test"] = [{"eval_time": "10m", "alertname": "AlphaHalted", "exp_alerts": []}]
    tests.append({**case("words", {'alpha_stage_up{stage="inference",worker="1"}': "0x20"}, {"AlphaStageDown"}),
                  "alert_rule_test": [{"eval_time": "10m", "alertname": "AlphaStageDown", "exp_alerts": [{
                      "exp_labels": {"severity": "critical", "stage": "inference", "worker": "1"},
                      "exp_annotations": {"summary": "inference 1 is down.", "action": "See its log in the state "
                                          "folder; supervisord starts it again unless it was stopped."}}]}]})
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    told = subprocess.run([promtool(), "test", "rules", str(path)], text=True, capture_output=True)
    assert told.returncode == 0, told.stdout + told.stderr
    assert len(set().union(*(fires for _, fires in CASES.values()))) >= 18


@needs_promtool
def test_an_expectation_that_is_wrong_is_found(tmp_path):
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [
        case("wrong", {"alpha_executor_halted": "1x20"}, {"AlphaGaps"})]}))
    assert subprocess.run([promtool(), "test", "rules", str(path)], capture_output=True).returncode == 1
