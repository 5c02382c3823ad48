"""daily [DAY]: what a day came to.

    in    the journal of the configuration (common.journal); of a running pipeline its prices and telemetry, too
    out   a report (common.explain.day) as text, as JSON, and as one HTML file with pictures
"""

import json
import time
from pathlib import Path
from typing import Any

import click

from common import killswitch
from common.config import Config
from common.errors import ConfigError, ResourceError
from common.explain import context as explain_context
from common.explain.day import bounds, day_of, report
from common.explain.day_html import page
from common.journal import Reader, located
from common.overview import Overview
from common.stage import exit_on_error
from procs.orders import in_force
from procs.position import marks

_ALL = 10**9


@click.command()
@click.argument("day", required=False)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a report: .html or .json.")
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def daily(day: str | None, out: Path | None, path: str | None, as_json: bool) -> None:
    """Report a day: orders, fills, fees, profit, positions, latency. DAY is one of UTC, as 2024-07-18; default: today.

    Profits are exact, of any day that the journal holds. What is held is valued at the mid of now, so unrealised profit
    is told of today alone, while ingest runs; refusals are those that the telemetry of the executor has counted since
    it was made, of today alone, too. The checksum of every row that this is made of is examined.

    An HTML report needs matplotlib: pip install 'predictive-alpha[plot]'.

    \b
    Examples
      alpha daily
      alpha daily 2024-07-18 --out 2024-07-18.html

    \b
    Exit code  0  done      2  an option or the configuration is wrong      5  there is no journal, or it is damaged
    """
    with exit_on_error():
        if out and out.suffix not in (".html", ".json"):
            raise ConfigError("a report of no known kind", where=f"--out {out}", remedy="known: .html, .json")
        if out and out.suffix == ".html":
            from common.explain import plot as explain_plot  # drawing loads much: for those who ask for it

            explain_plot.check(out.with_suffix(".svg"))
        config = in_force(path)
        today = day_of(time.time_ns())
        tree = _report(config, day or today, today)
        if out:
            text = page(tree, explain_plot.pictures(tree)) if out.suffix == ".html" else json.dumps(tree, indent=1)
            try:
                out.write_text(text, encoding="utf-8")
            except OSError as error:
                raise ResourceError("cannot write the report", where=f"{out}: {error.strerror}") from None
        if as_json:
            print(json.dumps(tree, indent=1))
        else:
            _print(tree)


def _report(config: Config, day: str, today: str) -> dict[str, Any]:
    begin, end = bounds(day)
    reader = Reader(located(config))
    try:
        with reader.at_once():
            orders = reader.orders(_ALL, since_ns=begin, until_ns=end)[::-1]
            fills = reader.fills(_ALL, since_ns=begin, until_ns=end)[::-1]
            events, before = reader.events(begin, end), reader.positions(begin)
            opening = reader.days().get(day)
            contexts = [explain_context.decode(row["context"], reader.config) for row in orders]
    finally:
        reader.close()
    live = day == today
    tree = report(day, orders, contexts, events, fills, before, opening, marks(config) if live else None,
                  _refusals(config) if live else None)
    halt = killswitch.state(config.state_dir)
    if halt and not (live or begin <= halt.when_ns < end):
        halt = None  # of another day
    return {"instance": config.instance.name, "journal": located(config).name,
            "as_of_ns": time.time_ns() if live else None, "halt": halt and halt._asdict(), **tree}


def _refusals(config: Config) -> dict[str, int] | None:
    overview = Overview(config.instance.name)
    overview.refresh()
    return overview.refusals() if "executor" in overview.stages else None


def _print(tree: dict[str, Any]) -> None:
    orders, fills, profit = tree["orders"], tree["fills"], tree["profit"]
    print(f"{tree['day']} UTC{', so far' if tree['as_of_ns'] else ''}, {tree['instance']}, {tree['journal']}")
    if tree["halt"]:
        print(f"  HALTED   {tree['halt']['why']} (by {tree['halt']['who']})")
    states = "".join(f", {count:,} {state}" for state, count in orders["states"].items())
    print(f"  orders   {orders['count']:,}{states}")
    for reason, count in orders["reasons"].items():
        print(f"           {count:,} {reason}")
    print(f"  fills    {fills['count']:,}, turnover {fills['turnover']}, fees {fills['fees']}")
    print(f"  profit   realised {profit['realised']}, less fees {profit['net']}, unrealised "
          f"{profit['unrealised'] or '-'}, since the day began {profit['since_opening'] or '-'}")
    for name, told in tree["symbols"].items():
        print(f"  {name:<12} {told['orders']:,} orders, {told['fills']:,} fills, bought {told['bought']}, sold "
              f"{told['sold']}, realised {told['realised']}, fees {told['fees']}; holds {told['position']} at "
              f"{told['average_cost']}, unrealised {told['unrealised'] or '-'}")
    for name, told in tree["latency_us"].items():
        if told["count"]:
            print(f"  {name:<17} p50 {told['p50']:>11,.1f} us   p99 {told['p99']:>11,.1f} us   most "
                  f"{told['max']:>11,.1f} us   of {told['count']:,}")
    for reason, count in (tree["refusals"] or {}).items():
        print(f"  refused {count:>9,}  {reason}")
