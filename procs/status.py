"""status: what runs, what it waits for, what is in force, and the counts."""

import json
import sys

import click

from common import shm
from common.config import load
from common.overview import Overview, words
from common.stage import exit_on_error
from common.watch.health import expected

_LOST = ("silent", "gone")
_WAITS = {"waiting": " for {}", "connecting": " to {}", "ready": ", waits for {}"}


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(path: str | None, as_json: bool) -> None:
    """Show each stage, what it waits for, where it is placed, the counts of the pipeline, and how its models do.

    Reads the telemetry of the stages in shared memory, and disturbs none of them. Writes nothing.

    \b
    A stage is
      ready         it has all that it waits for
      waiting       it starts, or waits for what is named
      connecting    to the venue: an ingest that is not connected, and why
      silent        it gave no sign of life for two seconds: it hangs, or the machine does
      gone          its process has ended, not in order
      absent        the configuration wants it, and it was not started, or was stopped

    What a stage that is silent or gone said last is marked with its age.

    \b
    Examples
      alpha status
      alpha status --json | jq .stages.executor.state

    Exit codes: 0 every stage that was started or that the configuration wants is ready, 1 one is not, 2 the
    configuration is wrong, 7 nothing runs.
    """
    with exit_on_error():
        config = load(path)
        overview = Overview(config.instance.name)
        overview.refresh()
        runs = any(state.usage for state in overview.states().values())
        wanted = expected(config) if runs else ()
        stages = {name: _stage(overview, name) for name in sorted({*overview.stages, *wanted})}
        ready = all(stage["ready"] for stage in stages.values())
        if as_json:
            print(json.dumps({"instance": config.instance.name, "ready": ready and runs, "stages": stages,
                              "stale": [name for name, stage in stages.items() if stage["standing"] in _LOST],
                              **overview.summary(), **overview.judged(),
                              "blocks": shm.leaked(config.instance.name)}, indent=1))
        elif stages:
            _print(config.instance.name, stages, overview)
        else:
            print(f"nothing of instance {config.instance.name!r} runs; start it with: alpha run")
    sys.exit(7 if not runs else 0 if ready else 1)


def _stage(overview: Overview, name: str) -> dict:
    telemetry = overview.stages.get(name)
    if telemetry is None:
        return {"ready": False, "standing": "absent"}
    return {"ready": overview.ready(name), "standing": overview.standing(name), "pid": telemetry.get("pid"),
            "starts": telemetry.get("starts"), "errors": telemetry.get("errors"),
            "age_s": round(overview.age_s(name), 3), **telemetry.told(), "counters": telemetry.values(),
            "timers_us": {timer: {key: value if key == "count" else value / 1000
                                  for key, value in telemetry.quantiles(timer).items()}
                          for timer in telemetry.timers}}


def _print(instance: str, stages: dict[str, dict], overview: Overview) -> None:
    print(f"instance {instance}")
    for name, stage in stages.items():
        standing = stage["standing"]
        if standing == "absent":
            print(f"  {name:<12} absent: it was not started, or was stopped")
            continue
        lost = standing in _LOST
        if stage.get("waiting_for"):
            standing += _WAITS.get(standing, "").format(stage["waiting_for"])
        pid = f"{'last pid' if stage['standing'] == 'gone' else 'pid'} {stage['pid']}"
        print(f"  {name:<12} {standing:<28} {pid:<12} starts {stage['starts']}  errors {stage['errors']}")
        known = {"ready", "standing", "pid", "starts", "errors", "age_s", "waiting_for", "counters", "timers_us",
                 "models", "challenger", "deployment"}
        more = [f"{key}={_short(value)}" for key, value in stage.items() if key not in known]
        more += [f"deployment {key}={value}" for key, value in (stage.get("deployment") or {}).items()
                 if key in ("state", "why", "error") and value]
        if lost:
            more.insert(0, f"last said {stage['age_s']:.0f} s ago:")
        if more:
            print(f"  {'':<12} {'  '.join(more)}")
    executor = stages.get("executor", {})
    if executor.get("standing") in _LOST:
        print(f"  the executor is {executor['standing']}: decisions, orders, positions, profit and latency as it left "
              f"them, {executor['age_s']:.0f} s ago")
    print("  " + "  ".join(f"{key} {_short(value)}" for key, value in overview.numbers().items()))
    for reason, count in overview.refusals().items():
        print(f"    refused {count:>9}  {reason}")
    for station, measured in overview.latency_us().items():
        if measured["count"]:
            print(f"    {station:<17} p50 {measured['p50']:>9.1f} us   p99 {measured['p99']:>9.1f} us   "
                  f"p99.9 {measured['p999']:>9.1f} us   of {measured['count']}")
    judged = words(overview.judged())
    if judged:
        print("  models, by what became of their predictions")
    for line in judged:
        print(f"    {line}")


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)
