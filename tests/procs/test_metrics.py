"""The metrics command, and the one question that matters: do all who tell a number tell the same?"""

import json
import signal
import subprocess
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from common.config import Config, load
from common.telemetry import Telemetry
from common.watch import metrics
from common.watch.snapshot import Snapshots
from procs.cli import main
from tests.common.watch.expressions import DASHBOARD, RULES, expressions, names, of_dashboard, of_rules
from tests.pipeline import Pipeline, command, environment, free_port
from tests.prometheus import Prometheus, installed, promtool
from tests.waiting import until

#: what `alpha run` calls a number -> the metric that says the same, summed over its series
METRIC_OF = {
    "frames": "ingest_frames_total", "ticks": "ingest_ticks_total", "gaps": "ingest_gaps_total",
    "malformed": "ingest_malformed_total", "quote_checks": "ingest_quote_checks_total",
    "quote_mismatches": "ingest_quote_mismatches_total", "rows": "feature_rows_total",
    "dispatched": "feature_dispatched_total", "skipped": "feature_skipped_total", "lost": "feature_lost_total",
    "predictions": "inference_predictions_total", "invalid": "inference_invalid_total",
    "superseded": "executor_superseded_total", "decisions": "executor_decisions_total",
    "orders": "executor_orders_total", "fills": "executor_fills_total", "position": "executor_position_quote",
    "realised": "executor_realised_quote", "unrealised": "executor_unrealised_quote", "fees": "executor_fees_quote",
    "halted": "executor_halted", "restarts": "stage_restarts_total", "errors": "stage_errors_total",
    "judged": "monitor_judged_total"}
OVERALL = ("tick_to_decision", "tick_to_order")


def of_summary(told: dict[str, Any]) -> dict[str, Any]:
    """What a tree with the keys of `Overview.summary` tells."""
    return {**{name: told[name] for name in (*METRIC_OF, "pnl", "reconnects", "refusals")},
            "latencies": {station: measured["count"] for station, measured in told["latency_us"].items()},
            "models": {model["id"]: model["known"] for model in told["models"]}}


def of_snapshot(told: dict[str, Any]) -> dict[str, Any]:
    """What a snapshot tells, of the page and of `alpha top`."""
    latency = {station: measured["all"] for station, measured in told["latency_us"].items()}
    return of_summary({**told["numbers"], **told["judged"], "refusals": told["refusals"], "latency_us": latency})


def of_metrics(text: str) -> dict[str, Any]:
    """What an exposition tells."""
    return of_samples((sample.name, sample.labels, sample.value)
                      for family in text_string_to_metric_families(text) for sample in family.samples)


def of_samples(samples: Iterable[tuple[str, dict[str, str], float]]) -> dict[str, Any]:
    found = defaultdict(list)
    for name, labels, value in samples:
        found[name.removeprefix("alpha_")].append((labels, value))
    total = {name: sum(value for _, value in samples) for name, samples in found.items()}
    told: dict[str, Any] = {name: total[metric] for name, metric in METRIC_OF.items()}
    told["pnl"] = told["realised"] + told["unrealised"] - told["fees"]
    told["reconnects"] = max(0, total["ingest_connects_total"] - 1)
    told["refusals"] = {labels["reason"]: value for labels, value in found["executor_refusals_total"] if value}
    told["latencies"] = {**{labels["stage"]: value for labels, value in found["stage_latency_seconds_count"]},
                         **{name: total[f"{name}_seconds_count"] for name in OVERALL}}
    told["models"] = {labels["id"]: value for labels, value in found["model_judged_total"]}
    return told


#: who can be asked while a pipeline runs: a name, and how its answer becomes comparable
LIVE = {
    "alpha status --json": lambda pipeline: of_summary(json.loads(said("status", "--json", env=pipeline.env))),
    "alpha top --once --json": lambda pipeline: of_snapshot(json.loads(said("top", "--once", "--json",
                                                                            env=pipeline.env))),
    "the page's /metrics": lambda pipeline: of_metrics(page(pipeline, "/metrics")),
    "the page's snapshot": lambda pipeline: of_snapshot(streamed(pipeline)),
    "alpha metrics": lambda pipeline: of_metrics(said("metrics", env=pipeline.env)),
    "alpha metrics --openmetrics": lambda pipeline: of_metrics(said("metrics", "--openmetrics", env=pipeline.env)),
}


#: who tells what is held, and how its answer becomes comparable: symbol -> quantity, unrealised, realised, fees
HOLDING = {
    "alpha position": lambda pipeline: {symbol: [float(found[key]) for key in ("qty", *PROFIT)] for symbol, found in
                                        json.loads(said("position", "--all", "--json", env=pipeline.env))[
                                            "symbols"].items()},
    "alpha top --once --json": lambda pipeline: shown(json.loads(said("top", "--once", "--json", env=pipeline.env))),
    "the page's snapshot": lambda pipeline: shown(streamed(pipeline)),
    "alpha metrics": lambda pipeline: sampled(said("metrics", env=pipeline.env)),
    "the page's /metrics": lambda pipeline: sampled(page(pipeline, "/metrics")),
}
PROFIT = ("unrealised", "realised", "fees")


def shown(told: dict[str, Any]) -> dict[str, list[float]]:
    return {one["name"]: [one[key] for key in ("qty", *PROFIT)] for one in told["symbols"]
            if one["fees"] or one["realised"] or one["qty"]}


def sampled(text: str) -> dict[str, list[float]]:
    names = ["alpha_position_quantity", *(f"alpha_position_{key}_quote" for key in PROFIT)]
    found = {(sample.name, sample.labels.get("symbol")): sample.value
             for family in text_string_to_metric_families(text) for sample in family.samples}
    return {symbol: [found[name, symbol] for name in names] for name, symbol in found if name == names[0]}


def said(*arguments: str, env: dict[str, str]) -> str:
    process = command(*arguments, env=env)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out


def page(pipeline: Pipeline, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{pipeline.env['ALPHA_MONITOR__PORT']}{path}", timeout=60) as answer:
        return answer.read().decode()


def streamed(pipeline: Pipeline) -> dict[str, Any]:
    """The first snapshot that the page is sent once it has found the stages."""
    address = f"127.0.0.1:{pipeline.env['ALPHA_MONITOR__PORT']}"
    with connect(f"ws://{address}/stream", origin=f"http://{address}", subprotocols=["alpha"], compression=None,
                 open_timeout=60, max_size=None) as stream:
        for text in stream:
            told = json.loads(text)
            if told["type"] == "snapshot" and told["latency_us"].get("decide", {}).get("all", {}).get("count"):
                return told
    raise AssertionError("the page's stream has ended")


def agree(answers: dict[str, dict[str, Any]]) -> None:
    first, *others = answers
    for name in others:
        for key, value in answers[first].items():
            assert answers[name][key] == (pytest.approx(value, abs=1e-6) if key == "pnl" else value), (
                f"{key}: {first} says {value}, {name} says {answers[name][key]}")


@pytest.fixture
def pipeline(instance, tmp_path, run_dir, recordings):
    """A recording that is played to its end, with `alpha run` itself held up so that it does not stop then."""
    path = str(recordings / "binance" / "usdm_btcusdt_20240718.gz")
    # Nothing is to happen after the end that only time brings about; and the rings hold the whole of it, so that a
    # monitor that comes late finds every row.
    more = {"ALPHA_MARKET__STALE_S": "600.0", "ALPHA_MARKET__STALE_BOOK_S": "0.0", "ALPHA_MONITOR__SAMPLE_MS": "20.0",
            "ALPHA_RING__TICKS": "16384", "ALPHA_RING__ROWS": "16384", "ALPHA_RISK__MAX_DRAWDOWN": "1000.0",
            "ALPHA_MONITOR__PAGE": "true", "ALPHA_MONITOR__PORT": str(free_port())}
    pipeline = Pipeline(instance, tmp_path, run_dir, "--capture", path, "--speed", "20", **more)
    try:
        pipeline.until_count("executor", "decisions", 1, 120)
        pipeline.process.send_signal(signal.SIGSTOP)
        yield pipeline
    finally:
        pipeline.process.send_signal(signal.SIGCONT)
        pipeline.close()


def quiet(pipeline: Pipeline, frames: int) -> None:
    """Wait until the recording is at its end, the monitor has taken in all it was sent, and every stage has lived on
    for two seconds of its own without moving a counter: one that gets no core has not."""
    def counts() -> dict[str, dict[str, int]]:
        pipeline.overview.refresh()
        return {name: telemetry.values() for name, telemetry in pipeline.overview.stages.items()}

    def moving(found: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        return {name: {**values, "heartbeat_ns": 0} for name, values in found.items()}

    stood, since_ns = moving(counts()), time.monotonic_ns()

    def still() -> bool:
        nonlocal stood, since_ns
        now = counts()
        taken = sum(now["monitor"][name] for name in ("received", "thinned", "unknown_model"))
        sent = sum(values["judged"] for name, values in now.items() if name.startswith("inference"))
        if moving(now) != stood or now["exchange"]["frames"] < frames or taken < sent:
            stood, since_ns = moving(now), time.monotonic_ns()
        return all(values["heartbeat_ns"] > since_ns + 2_000_000_000 for values in now.values())

    until(still, 120, "the end of the recording")


def test_every_number_is_the_same_whoever_is_asked(pipeline):
    quiet(pipeline, 11_000)
    config = load(None, pipeline.env)
    live = {name: ask(pipeline) for name, ask in LIVE.items()}
    if installed():
        live["prometheus"] = scraped(pipeline, config)
    agree(live)
    asked = live["alpha metrics"]
    for name in ("frames", "ticks", "rows", "predictions", "decisions", "orders", "fills", "judged", "quote_checks"):
        assert asked[name] > 0, f"nothing was compared: {name} is 0"
    assert asked["decisions"] == asked["orders"] + sum(asked["refusals"].values()) == asked["latencies"]["decide"]
    held = {name: ask(pipeline) for name, ask in HOLDING.items()}
    assert held["alpha position"], "nothing was traded"
    for name, positions in held.items():
        assert positions == {symbol: pytest.approx(values, abs=1e-8)
                             for symbol, values in held["alpha position"].items()}, name
    text = page(pipeline, "/metrics")
    metrics.exposition(pipeline.overview, config)  # attaches to the books ring before it goes
    check_what_is_built_on(text)

    pipeline.process.send_signal(signal.SIGCONT)
    pipeline.process.wait(90)
    assert pipeline.process.returncode == 0, pipeline.said()
    summary = of_summary(json.loads(pipeline.summary_path.read_text()))
    after = metrics.exposition(pipeline.overview, config).decode()
    agree({"alpha run --summary": summary, "metrics": of_metrics(after)})
    assert summary["frames"] == asked["frames"] and summary["orders"] == asked["orders"]
    ups = [sample.value for family in text_string_to_metric_families(after) for sample in family.samples
           if sample.name in ("alpha_stage_up", "alpha_book_valid")]
    assert ups and not any(ups)  # nothing is said to run any more


def scraped(pipeline: Pipeline, config: Config) -> dict[str, Any]:
    """What a real Prometheus makes of it, with our rules; each expression of the dashboard has an answer, and nothing
    of a pipeline in order is an alert."""
    snapshots = Snapshots(config)

    def expose(accept: str) -> bytes:
        return metrics.exposition(pipeline.overview, config, accept, positions)

    positions = snapshots.positions()
    snapshots.close()

    with Prometheus(pipeline.state_dir / "prometheus", free_port(), expose,
                    lambda target: printed("--scrape-config", "--target", target), printed("--rules")) as prometheus:
        assert "application/openmetrics-text" in prometheus.asked[0]
        rules = prometheus.rules()
        assert len(rules) == len(of_rules()) and all(rule["health"] in ("ok", "unknown") for rule in rules), rules
        firing = {rule["name"] for rule in rules for alert in rule["alerts"] if alert["state"] == "firing"}
        assert firing <= {"AlphaFeedStale"}  # the recording is at its end
        for text in of_dashboard():
            if not text.startswith(("label_values(", "changes(")) and "challenger" not in text:
                plain = text.replace("$__rate_interval", "1m").replace("$instance", ".*").removesuffix(" > 0")
                assert prometheus.query(plain), plain
        return of_samples((sample["metric"].pop("__name__"), sample["metric"], float(sample["value"][1]))
                          for sample in prometheus.query('{__name__=~"alpha_.+"}'))


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["metrics", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def check_what_is_built_on(text: str) -> None:
    """Every metric in alerts and dashboard exists and has a value in a real run, but for a challenger's, where there
    is none. And the exposition is as Prometheus' own tool wants it."""
    found = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    used = set().union(*map(names, expressions()))
    assert len(used) > 40
    assert {name for name in used - found if not name.startswith("alpha_challenger_")} == set()
    if promtool():
        checked = subprocess.run([promtool(), "check", "metrics"], input=text, text=True, capture_output=True)
        assert checked.returncode == 0 and checked.stdout == checked.stderr == "", checked.stdout + checked.stderr


def test_one_number_that_differs_is_found():
    told = {**dict.fromkeys(METRIC_OF, 5), "pnl": 1.5, "reconnects": 0, "refusals": {"SIGNAL_WEAK": 3},
            "latencies": {"decide": 5}, "models": {"00ff": 7}}
    agree({"one": told, "other": dict(told), "third": {**told, "pnl": 1.5 + 1e-9}})
    for key, value in told.items():
        wrong = {**value, "more": 1} if isinstance(value, dict) else value + 1
        with pytest.raises(AssertionError, match=f"{key}: one says"):
            agree({"one": told, "other": told, "third": {**told, key: wrong}})


def test_metrics_of_a_pipeline_that_does_not_run_say_that_it_is_down(instance, run_dir, tmp_path):
    env = environment(instance, tmp_path, run_dir)
    process = command("metrics", env=env)
    out = process.communicate()[0]
    assert process.returncode == 7
    assert 'alpha_stage_up{stage="executor"} 0.0' in out and 'alpha_stage_up{stage="inference",worker="1"} 0.0' in out
    executor = Telemetry.create(instance, "executor", ("decisions",))
    try:
        executor.set("heartbeat_ns", time.monotonic_ns() + 60_000_000_000)
        executor.add("decisions", 3)
        process = command("metrics", env=env)
        out = process.communicate()[0]
        assert process.returncode == 0 and "alpha_executor_decisions_total 3.0" in out
        assert 'alpha_stage_up{stage="executor"} 1.0' in out
    finally:
        executor.close()


def test_what_prometheus_and_grafana_need_is_printed(tmp_path):
    assert printed("--rules") == RULES.read_text() and printed("--dashboard") == DASHBOARD.read_text()
    assert "127.0.0.1:9999" in printed("--scrape-config", "--target", "127.0.0.1:9999")
    monitor = load().monitor
    assert f'"{monitor.host}:{monitor.port}"' in printed("--scrape-config")
    if promtool():
        (tmp_path / "prometheus.yml").write_text(printed("--scrape-config"))
        (tmp_path / "alpha-rules.yaml").write_text(printed("--rules"))
        checked = subprocess.run([promtool(), "check", "config", str(tmp_path / "prometheus.yml")], text=True,
                                 capture_output=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
