"""reconcile: the journal beside the venue, from any terminal, while an executor runs or when none does.

    in    the journal of the configuration (common.journal), read only; the venue, by the order gateway
    out   what agrees and what differs, per symbol (common.reconciliation)
    file  with --adopt: the journal, which must have no other writer (common.adoption)
"""

import json
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click

from common.adoption import adopt as book
from common.asking import PATIENCE_S, ask_orders, ask_portfolio, order_of
from common.clock import SystemClock
from common.config import Config
from common.errors import ConfigError, VenueError
from common.fixed import text
from common.gateways import Gateway, create
from common.journal import Journal, Reader, located
from common.ledger import absence_ns
from common.locks import holder
from common.orders import State
from common.reconciliation import (
    LOOK_S,
    Comparison,
    Journaled,
    OrderSight,
    Row,
    Sight,
    compare,
    following,
    remedy,
    remedy_of_position,
)
from common.stage import exit_on_error
from procs.orders import in_force

_ALL = 10**9
_RECENT = 500  # orders looked through for the newest of a symbol: more than are placed between two looks


@click.command()
@click.option("--adopt", is_flag=True, help="Then book what the venue says, while no executor runs.")
@click.option("--yes", is_flag=True, help="Do not ask before that.")
@click.option("--patience", type=click.FloatRange(0, min_open=True), default=PATIENCE_S, show_default=True,
              help="Seconds that each answer of the venue may take.")
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reconcile(adopt: bool, yes: bool, patience: float, path: str | None, as_json: bool) -> None:
    """Compare the journal with the venue: unfinished orders, their fills, and positions.

    Every order that the journal has as unfinished is asked for by its client id, and what is held. Nothing is written,
    sent or cancelled, and a running executor is not disturbed; what it is just about to write down is no difference:
    what differs is looked at again, until it has been the same for more than a second.

    With --adopt, and no executor running, the journal is made equal to the venue once you have agreed: fills that are
    missing are booked as fills, orders that are over as over, and what a position then still lacks as a correction
    without a fee, at the average price of the venue or, where a position shrinks, at our own average cost. Corrections
    are orders of type CORRECTION whose ids begin with adopt-: `alpha orders --all` and `alpha daily` show them.

    \b
    alpha reconcile
    alpha reconcile --json
    alpha reconcile --adopt --yes

    \b
    Exit code  0  they agree, with --adopt: now          1  they differ
               2  an option or the configuration is wrong
               4  the venue does not answer              5  there is no journal, or it is damaged
               6  an executor runs, so nothing can be adopted
    """
    with exit_on_error():
        if adopt and as_json and not yes:
            raise ConfigError("a program cannot be asked", where="--adopt --json", remedy="add --yes")
        config = in_force(path)
        tree = _adopt(config, patience, yes, as_json) if adopt else _tree(config, _compared(config, patience))
        if as_json:
            print(json.dumps(tree, indent=1))
        elif not adopt:
            _print(tree)
    sys.exit(0 if tree["agrees"] else 1)


def _adopt(config: Config, patience: float, yes: bool, as_json: bool) -> dict[str, Any]:
    """Compare, ask, book, and compare again. The journal is held throughout, so no executor starts meanwhile."""
    Reader(located(config)).close()  # none is made here
    journal = Journal.open(located(config), config.executor.durability)
    try:
        found = _compared(config, patience)
        tree = _tree(config, found, ours=True)
        if not as_json:
            _print(tree)
        if found.agrees:
            return tree
        moving = [symbol for symbol in found.sights if not found.settled(symbol)]
        if moving:
            raise VenueError("the venue does not stand still", where=f"symbols={', '.join(moving)}",
                             remedy="stop whoever trades on this account, and look again")
        if not yes and not click.confirm("Book this, so that the journal says what the venue says?"):
            return tree
        clock = SystemClock()
        done = book(journal, found.sights.values(), clock.monotonic_ns(), clock.wall_ns())
        after = _compared(config, patience)
        tree = _tree(config, after, ours=True) | {"before": tree, "adopted": done}
        if not as_json:
            print("".join(f"booked {line}\n" for line in done), end="")
            _print(tree)
        return tree
    finally:
        journal.close()


def _compared(config: Config, patience: float) -> Comparison:
    """Looks, until everything is settled. A paper book is a part of the executor: there is nothing beside it."""
    comparison, clock = Comparison(), SystemClock()
    reader = Reader(located(config))
    try:
        reader.verify()
        if config.executor.gateway == "paper":
            return comparison
        gateway = create(config, clock)
        try:
            gateway.observe()
            gateway.restore(reader.positions())
            absent_ns = absence_ns(config.executor.timeout_s)
            while True:
                comparison.take(look(config, reader, gateway, clock, patience,
                                     {symbol for symbol in comparison.sights if comparison.settled(symbol)}, absent_ns))
                if comparison.over:
                    return comparison
                absent_ns = 0  # what was on its way has arrived since the first look
                time.sleep(LOOK_S)
        finally:
            gateway.close()
    finally:
        reader.close()


def look(config: Config, reader: Reader, gateway: Gateway, clock, patience: float,
         settled: Collection[str] = (), absent_ns: int = 0) -> dict[str, Sight]:
    """One look at both sides, at all symbols that are not `settled`; an order that the venue does not know it must not
    know after `absent_ns` either. VenueError if the venue does not answer."""
    before = {symbol: row for symbol, row in _rows(config, reader).items() if symbol not in settled}
    orders = [one.order for row in before.values() for one in row.orders]
    told = _answered(ask_orders(orders, gateway, clock, patience + absent_ns / 1e9, absent_ns))
    held = ask_portfolio(gateway, clock, patience)
    if isinstance(held, str):
        raise VenueError("the venue does not say what it holds", where=held,
                         remedy="see that it can be reached, and the keys of this terminal")
    again = _answered(ask_orders(orders, gateway, clock, patience, 0))
    return compare(before, _rows(config, reader), told, again, held)


def _answered(told: Mapping[str, Any]) -> dict[str, Any]:
    for name, one in told.items():
        if isinstance(one, str):
            raise VenueError("the venue does not say what became of an order", where=f"order={name}: {one}",
                             remedy="see that it can be reached, and the keys of this terminal")
    return dict(told)


def _rows(config: Config, reader: Reader) -> dict[str, Row]:
    """What the journal has, as of one moment."""
    with reader.at_once():
        unfinished = [Journaled(order_of(row), State(row["state"]), row["venue_id"], {
            fill["fill_id"]: fill["qty"] for fill in reader.fills(_ALL, client_id=row["client_id"])})
                      for row in reader.open_orders()]
        positions = reader.positions()
        newest: dict[str, int] = {}
        for row in reader.orders(_RECENT):
            newest.setdefault(row["symbol"], row["id"])
    return following(unfinished, config.market.symbols, positions, newest)


def _tree(config: Config, found: Comparison, ours: bool = False) -> dict[str, Any]:
    """The findings as JSON has them. `ours`: the journal is held by this process."""
    path: Path = located(config)
    pid = 0 if ours else holder(path.with_suffix(".lock"))
    symbols = {symbol: _symbol(sight, found.settled(symbol), bool(pid)) for symbol, sight in found.sights.items()}
    return {"agrees": found.agrees, "gateway": config.executor.gateway, "journal": str(path),
            "executor_pid": pid or None, "looks": found.taken, "symbols": symbols}


def _symbol(sight: Sight, settled: bool, running: bool) -> dict[str, Any]:
    verdict = "not settled" if not settled else "differs" if sight.differs else "agrees"
    return {"verdict": verdict, "journal": text(sight.ours.qty), "venue": text(sight.theirs.qty),
            "unexplained": text(sight.unexplained), "venue_price": text(sight.theirs.price),
            "remedy": remedy_of_position(sight, running), "orders": [_order(one, running) for one in sight.orders]}


def _order(sight: OrderSight, running: bool) -> dict[str, Any]:
    ours, told = sight.ours, sight.theirs
    state = "absent" if not told.known else told.end.state.value if told.end else "alive"
    return {"client_id": ours.order.client_id, "symbol": ours.order.symbol, "qty": text(ours.order.qty),
            "price": text(ours.order.price),
            "journal": {"state": ours.state.value, "filled": text(ours.filled)},
            "venue": {"state": state, "filled": text(told.end.filled if told.end else told.filled),
                      "venue_id": told.venue_id},
            "missing_fills": [{"fill_id": fill.fill_id, "qty": text(fill.qty), "price": text(fill.price),
                               "fee": text(fill.fee)} for fill in sight.missing],
            "difference": sight.difference, "remedy": remedy(sight, running)}


def _print(tree: dict[str, Any]) -> None:
    if tree["gateway"] == "paper":
        print("a paper book is a part of the executor: there is no venue beside the journal")
        return
    for symbol, told in tree["symbols"].items():
        line = f"{symbol:<12} {told['verdict']:<12} journal {told['journal']}, venue {told['venue']}"
        if told["unexplained"] != "0":
            line += f", of which no fill tells {told['unexplained']}"
        print(line + (f"\n    {told['remedy']}" if told["remedy"] else ""))
        for one in told["orders"]:
            ours, theirs = one["journal"], one["venue"]
            print(f"  {one['client_id']:<24} of {one['qty']}: journal {ours['state']}, filled {ours['filled']}; venue "
                  f"{theirs['state']}, filled {theirs['filled']}")
            if one["difference"]:
                print(f"    {one['difference']}\n    {one['remedy']}")
    if tree["agrees"]:
        print("the journal and the venue agree")
    elif any(told["verdict"] == "not settled" for told in tree["symbols"].values()):
        print("not settled: each look was another; `alpha halt`, and look again")
