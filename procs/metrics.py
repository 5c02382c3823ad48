"""metrics: the pipeline's metrics, once; and what Prometheus and Grafana need to read them."""

import importlib.resources
import sys

import click

from common.config import load
from common.stage import exit_on_error
from common.watch.metrics import exposition
from common.watch.snapshot import Snapshots

RULES, DASHBOARD = "rules.yaml", "dashboard.json"  #: in common/watch
_SCRAPE = """scrape_configs:
  - job_name: alpha  # the alert AlphaUnreachable names it
    scrape_interval: 5s
    static_configs:
      - targets: ["{target}"]
    # Beyond loopback the page wants $ALPHA_MONITOR_TOKEN: put it into a file that Prometheus alone can read.
    # authorization: {{type: Bearer, credentials_file: alpha.token}}
rule_files:
  - alpha-rules.yaml  # alpha metrics --rules
"""


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--openmetrics", is_flag=True, help="Print OpenMetrics instead of Prometheus' text format.")
@click.option("--dashboard", "what", flag_value=DASHBOARD, help="Print a dashboard, to import into Grafana.")
@click.option("--rules", "what", flag_value=RULES, help="Print alert rules, for Prometheus.")
@click.option("--scrape-config", "what", flag_value="scrape", help="Print what prometheus.yml must say.")
@click.option("--target", metavar="HOST:PORT", help="With --scrape-config: where the page is (default: as configured).")
def metrics(path: str | None, openmetrics: bool, what: str | None, target: str | None) -> None:
    """Print the metrics of the running pipeline, as Prometheus would scrape them. Needs no server.

    \b
    alpha metrics | grep latency
    alpha metrics --rules > alpha-rules.yaml
    alpha metrics --scrape-config >> prometheus.yml
    alpha metrics --dashboard > alpha.json        then in Grafana: Dashboards, New, Import

    Exit code 0, or 7 if nothing runs: then the stages that should are told to be down.
    """
    with exit_on_error():
        if what in (RULES, DASHBOARD):
            click.echo(importlib.resources.files("common.watch").joinpath(what).read_text(), nl=False)
            return
        config = load(path)
        if what == "scrape":
            click.echo(_SCRAPE.format(target=target or f"{config.monitor.host}:{config.monitor.port}"), nl=False)
            return
        snapshots = Snapshots(config)
        positions, overview = snapshots.positions(), snapshots.overview
        text = exposition(overview, config, "application/openmetrics-text" if openmetrics else "", positions)
        snapshots.close()
        click.echo(text, nl=False)
    sys.exit(0 if overview.stages else 7)
