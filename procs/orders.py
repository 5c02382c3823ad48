"""orders: what is in the journal, beside the executor that writes it or after it has gone.

    in    the journal of the configuration (common.journal), read only
    out   a line for each order, newest first; or the life cycle of orders as the code has it
"""

import json
import sys
from typing import Any

import click

from common import fixed, instant
from common.config import Config, load, told
from common.errors import ConfigError
from common.journal import Reader, located, within
from common.orders import TRANSITIONS, State, diagram
from common.stage import exit_on_error


@click.command()
@click.option("--all", "every", is_flag=True, help="Those at their end, too.")
@click.option("--state", "states", multiple=True, type=click.Choice([state.value for state in State]),
              help="Only orders in this state; may be given again.")
@click.option("--symbol", default="", help="Only orders of this symbol, of the configuration or the journal.")
@click.option("--since", help="Only orders decided since then, as 2024-07-18T12:00:00, in UTC.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many, the newest.")
@click.option("--verify", is_flag=True, help="Examine the whole journal instead: pages, checksums, what must agree.")
@click.option("--states", "table", is_flag=True, help="Print the life cycle of an order instead; reads no journal.")
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def orders(every: bool, states: tuple[str, ...], symbol: str, since: str | None, limit: int, verify: bool, table: bool,
           path: str | None, as_json: bool) -> None:
    """List orders: those that are not at their end, unless told otherwise.

    \b
    Examples
      alpha orders
      alpha orders --all --symbol BTC-USD --since 2024-07-18
      alpha orders --state rejected --state expired --json
      alpha orders --states

    Of each order that is shown its checksum is examined, and whether its fills come to what it says. That its state is
    that of its last event, and all that is not shown, is examined by --verify.

    \b
    Exit code  0  done; nothing to list is no error      2  an option or the configuration is wrong
                                                         5  there is no journal, or it is damaged
    """
    with exit_on_error():
        if verify and table:
            raise ConfigError("two things instead of the list", where="--verify, --states", remedy="ask for one")
        if table:
            _print_states(as_json)
            return
        since_ns = instant.parse(since, "--since") if since else 0
        within(since_ns, where=f"--since={since}")
        config = in_force(path)
        reader = Reader(located(config))
        try:
            if verify:
                counts = reader.verify()
                print(json.dumps(counts) if as_json else
                      "sound: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))
                return
            chosen = states or (() if every else tuple(state.value for state in State if TRANSITIONS[state]))
            rows = reader.orders(limit, states=chosen, symbol=symbol, since_ns=since_ns)
            if symbol and not rows:
                known(symbol, config, reader)
        finally:
            reader.close()
        if as_json:
            print(json.dumps([_plain(row) for row in rows], indent=1))
        else:
            _print(rows, limit)


def in_force(path: str | None) -> Config:
    """The configuration that the executor of this state folder was last started with, whose environment may have been
    another; else the configuration as it is read here."""
    config = load(path)
    found = told(config, "executor")
    return found if found.state_dir == config.state_dir else config


def known(symbol: str, config: Config, reader: Reader) -> None:
    """ConfigError for a symbol that neither the configuration nor the journal has."""
    names = {*config.symbols, *reader.symbols()}
    if symbol not in names:
        raise ConfigError("there is no such symbol", where=f"--symbol {symbol}",
                          remedy=f"known: {', '.join(sorted(names))}")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """An order without its context, prices and quantities as exact text."""
    shown = {key: value for key, value in row.items() if key not in ("id", "context")}
    return {**shown, **{key: fixed.text(row[key]) for key in ("qty", "price", "filled")}}


def _print(rows: list[dict[str, Any]], limit: int) -> None:
    for row in rows:
        print(f"{instant.utc(row['created_ns'])}  {row['client_id']:<24} {row['symbol']:<12} {row['side']:<4} "
              f"{fixed.text(row['qty']):>14} at {fixed.text(row['price']):<14} {row['state']:<14} "
              f"filled {fixed.text(row['filled'])}{'  ' + row['reason'] if row['reason'] else ''}")
    if not rows:
        print("none")
    if len(rows) == limit:
        print(f"the newest {limit}; --limit shows more", file=sys.stderr)


def _print_states(as_json: bool) -> None:
    following = {state.value: [after.value for after in State if after in TRANSITIONS[state]] for state in State}
    if as_json:
        print(json.dumps({"transitions": following, "mermaid": diagram()}, indent=1))
        return
    for state, after in following.items():
        print(f"{state:<14} -> {', '.join(after) or 'the end'}")
    print(f"\n{diagram()}", end="")
