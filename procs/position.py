"""position: what is held, at what cost, and what it has earned.

    in    the journal of the configuration (common.journal), and the books ring for prices; both read only
    out   a line for each symbol
"""

import json
import time
from typing import Any

import click

from common import fixed
from common.config import Config
from common.errors import LayoutError
from common.journal import Reader, located
from common.layout import FLAG_VALID
from common.positions import Position, to_fixed
from common.ring import Books
from common.stage import exit_on_error
from procs.orders import in_force, known


@click.command()
@click.option("--symbol", default="", help="Only this symbol, of the configuration or the journal.")
@click.option("--all", "every", is_flag=True, help="Symbols that are not held any more, too.")
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def position(symbol: str, every: bool, path: str | None, as_json: bool) -> None:
    """Show positions: quantity, average cost, realised and unrealised profit, fees.

    What is held comes from the journal, exactly, whether or not an executor runs: from its checkpoint and the fills
    since, whose checksums are examined (`alpha orders --verify` examines the rest). What it is worth is known while
    ingest has a valid book of it: the mid. Elsewhere there is a dash, and null in JSON. The sums are of all symbols,
    or of that of --symbol, whether they are held any more or not.

    Reads the journal, and the books ring where there is one. Writes nothing.

    \b
    Examples
      alpha position
      alpha position --all --symbol BTC-USD --json

    \b
    Exit code  0  done      2  an option or the configuration is wrong      5  there is no journal, or it is damaged
    """
    with exit_on_error():
        config = in_force(path)
        reader = Reader(located(config))
        try:
            held = {name: found for name, found in sorted(reader.positions().items()) if symbol in ("", name)}
            if symbol and not held:
                known(symbol, config, reader)
        finally:
            reader.close()
        tree = report(held, marks(config), every)
        if as_json:
            print(json.dumps(tree, indent=1))
        else:
            _print(tree)


def marks(config: Config) -> dict[str, int]:
    """Mid prices, 1e-8, of every symbol whose book is valid, and changed within market.stale_book_s: a ring outlives an
    ingest that was killed. None while no ingest runs."""
    try:
        books = Books.attach(config.instance.name)
    except (FileNotFoundError, LayoutError):
        return {}
    patience = round(config.market.stale_book_s * 1e9)
    oldest = time.monotonic_ns() - patience if patience else 0
    tops = {} if books.retired else {name: books.top(index) for index, name in enumerate(books.symbols)}
    return {name: (top.bid + top.ask) // 2 for name, top in tops.items()
            if top is not None and top.flags & FLAG_VALID and 0 < top.bid < top.ask and top.recv_ns >= oldest}


def report(held: dict[str, Position], prices: dict[str, int], every: bool = True) -> dict[str, Any]:
    """Positions by symbol, of `every` one or of those that are held, and the sums of all; `unrealised` and `profit`
    None where something held has no price."""
    symbols = {name: {"qty": fixed.text(found.qty), "average_cost": fixed.text(found.average_price),
                      "cost": fixed.text(to_fixed(found.cost)), "mark": _text(prices.get(name)),
                      "realised": fixed.text(to_fixed(found.realised)),
                      "unrealised": _unrealised(found, prices.get(name)), "fees": fixed.text(found.fees)}
               for name, found in held.items() if found.qty or every}
    realised = to_fixed(sum(found.realised for found in held.values()))
    fees = sum(found.fees for found in held.values())
    known = all(name in prices for name, found in held.items() if found.qty)
    unrealised = to_fixed(sum(found.unrealised(prices[name]) for name, found in held.items() if found.qty)
                          ) if known else None
    return {"symbols": symbols, "realised": fixed.text(realised), "unrealised": _text(unrealised),
            "fees": fixed.text(fees), "profit": _text(realised + unrealised - fees if known else None)}


def _unrealised(found: Position, mark: int | None) -> str | None:
    if not found.qty:
        return "0"
    return None if mark is None else fixed.text(to_fixed(found.unrealised(mark)))


def _text(value: int | None) -> str | None:
    return None if value is None else fixed.text(value)


_HEADS = {"qty": "held", "average_cost": "average cost", "mark": "mark", "realised": "realised",
          "unrealised": "unrealised", "fees": "fees"}


def _print(tree: dict[str, Any]) -> None:
    if not tree["symbols"]:
        print("nothing is held")
    else:
        width = max(map(len, [*tree["symbols"], "symbol"]))
        print(f"{'symbol':<{width}}" + "".join(f"{head:>19}" for head in _HEADS.values()))
    for name, found in tree["symbols"].items():
        print(f"{name:<{width}}" + "".join(f"{found[key] or '-':>19}" for key in _HEADS))
    print(f"profit {tree['profit'] or '-'}: realised {tree['realised']}, unrealised {tree['unrealised'] or '-'}, "
          f"fees {tree['fees']}")
