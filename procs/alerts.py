"""alerts: what is wrong now, as the monitor found it, and whether it can be told."""

import json
import logging
import sys
import time

import click

from common import alarms
from common.alert_sink import ENV_WEBHOOK, Sink, configured, payload
from common.alerts import FIRING, WARNING, Alert
from common.config import Config, load
from common.errors import ConfigError, ResourceError
from common.instant import utc
from common.overview import Overview
from common.stage import exit_on_error

_NOBODY = 7


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--test", "trial", is_flag=True, help="Send a test alert to everything that is configured.")
def alerts(path: str | None, as_json: bool, trial: bool) -> None:
    """Show what is wrong now: what the monitor has told and has not told to be over. What was told before the last
    stop is listed as former until it was found again, or told to be over.

    The monitor looks once a second at stages, feeds, books, limits, unresolved orders, errors, the journal, drift and
    latency, with the bounds of [alerts]. It tells its log, and what is configured:

    \b
    [alerts]
    command = ["notify-send", "alpha"]      gets the alert as JSON on standard input; no shell
    export ALPHA_ALERTS_WEBHOOK=https://... POST of the same; the address never stands in a file

    Each alert is told once, again when it gets worse or after alerts.repeat_s, and once more when it is over.

    \b
    alpha alerts
    alpha alerts --json | jq '.firing[].what'
    alpha alerts --test                     with the environment of this terminal

    \b
    Exit codes  0 nothing is firing, or the test arrived everywhere; 1 something is firing; 2 nothing is configured to
                be tested; 5 the test did not arrive; 7 nobody watches: no monitor runs, or alerts are switched off
    """
    with exit_on_error():
        config = load(path)
        if trial:
            _try(config, as_json)
            return
        word = alarms.told(config)
        overview = Overview(config.instance.name)
        overview.refresh()
        watched = config.alerts.enabled and overview.ready("monitor")
        # Of a monitor that has gone nothing is known now: what it had told is former, too.
        firing, former = word.known(watched)
        if as_json:
            print(json.dumps({"watched": watched, "firing": [alert._asdict() for alert in firing],
                              "former": [alert._asdict() for alert in former], "stopped_ns": word.stopped_ns,
                              "sinks": word.sinks}, indent=1))
        else:
            _print(firing, former, word, watched)
    sys.exit(_NOBODY if not watched else 1 if firing else 0)


def _print(firing: list[Alert], former: list[Alert], word: alarms.Word, watched: bool) -> None:
    if not watched:
        print("nobody watches: no monitor runs, or alerts.enabled is false", file=sys.stderr)
    for alert in firing:
        minutes = (time.time_ns() - alert.since_ns) / 60e9
        print(f"{_head(alert)}  (for {minutes:.1f} min)")
        if alert.remedy:
            print(f"{'':<8} {alert.remedy}")
    if watched and not firing:
        print("nothing is firing")
    if former:
        if watched:
            print("told before the last start, and not found since; told as over before long:")
        else:
            until = f"until it was stopped at {utc(word.stopped_ns)}" if word.stopped_ns else "when it last was"
            print(f"not known now; what the monitor had told and not resolved, {until}:")
    for alert in former:
        print(f"  {_head(alert)}  (since {utc(alert.since_ns)})")
    for name, counts in word.sinks.items():
        print(f"told by {name}: {counts['sent']:,}, given up {counts['failed']:,}, dropped {counts['dropped']:,}"
              + (f"; last error: {counts['error']}" if counts["error"] else ""))


def _head(alert: Alert) -> str:
    which = f"{alert.name} {alert.subject}".rstrip()
    return f"{alert.severity.upper():<8} {which}  {alert.what}"


def _try(config: Config, as_json: bool) -> None:
    sinks = configured(config)
    if not sinks:
        raise ConfigError("there is nowhere to tell alerts", where="alerts.command is empty, and "
                          f"${ENV_WEBHOOK} is not set", remedy="set one of them")
    now = time.time_ns()
    alert = Alert("test", "", FIRING, WARNING, now, now, "a test: alerts of this pipeline arrive here", None, None, "")
    logging.getLogger("monitor").addHandler(logging.NullHandler())  # why one did not arrive is said below
    told = {}
    for sink in sinks:
        told[sink.name] = _try_one(sink, payload(alert, config.instance.name), config.alerts.timeout_s)
    if as_json:
        print(json.dumps(told, indent=1))
    else:
        for name in (name for name, error in told.items() if not error):
            print(f"{name}: arrived")
    failed = [f"{name}: {error}" for name, error in told.items() if error]
    if failed:
        raise ResourceError("a test alert did not arrive", where="; ".join(failed))


def _try_one(sink: Sink, content: bytes, timeout_s: float) -> str:
    """Why it did not arrive, or ""."""
    sink.put(content)
    sink.close(2 * timeout_s)  # one attempt
    return "" if sink.sent else sink.error or "no answer"
