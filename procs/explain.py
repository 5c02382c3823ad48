"""explain ORDER_ID: why an order is what it is, from the tick to its last fill.

    in    the journal (common.journal), the rings while they still hold the tick, the models in use; all read only
    out   one tree (common.explain.order) as text, JSON or a picture; and with --replay the probability made again
          from a recording, compared bit by bit (common.explain.replay)
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import orjson

from common import deployment, fixed, manifest
from common.config import Config, restore
from common.errors import AlphaError, ConfigError, LayoutError, ModelError
from common.explain import context as explain_context
from common.explain import order as pure
from common.explain.text import lines
from common.features.table import TABLE_HASH
from common.journal import Reader, located
from common.onnx_file import external_data, identity
from common.ring import Books, Rows
from common.stage import exit_on_error
from procs.orders import in_force

_DIFFERENT, _NOT_MADE_AGAIN = 1, 4  # exit codes


@click.command()
@click.argument("order_id")
@click.argument("paths", metavar="[CAPTURE]...", nargs=-1, type=click.Path(exists=True, dir_okay=False),
                callback=lambda context, parameter, paths: _captures(paths))
@click.option("--replay", "again", is_flag=True, help="Make row and probability again from the CAPTUREs, and compare.")
@click.option("--model", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The model that predicted, where it is not among those in use.")
@click.option("--out", type=click.Path(dir_okay=False), help="Draw a picture, too: .png, .svg or .pdf.")
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(order_id: str, paths: tuple[str, ...], again: bool, model: Path | None, out: str | None, path: str | None,
            as_json: bool) -> None:
    """Explain an order: what was seen, predicted, decided and checked, where the time went, what became of it.

    ORDER_ID is a client order id, a beginning of it that no other has, or the word last. The book, the size and each
    check are those of the moment of the decision, asked again from what the journal keeps; that the order follows from
    them to the last digit is checked, and said. The feature row comes from the rows ring while it holds the tick, and
    from the recording with --replay. A picture needs matplotlib: pip install 'predictive-alpha[plot]'.

    \b
    Examples
      alpha explain last
      alpha explain 66a1b2c3-0-8 --out why.svg
      alpha explain last --replay today/*.zst

    \b
    Exit code  0  done                                     3  the model is not the one that predicted
               1  what is made again is not the same       4  a capture cannot be read, or has not got its tick
               2  no such order, or several; an option     5  there is no journal, or it is damaged
    """
    with exit_on_error():
        if again != bool(paths):
            raise ConfigError("a replay needs captures, and captures are for a replay",
                              where=f"--replay, {len(paths)} CAPTURE", remedy="write: --replay CAPTURE...")
        if out:
            from common.explain import plot as explain_plot  # drawing and replaying load much: for those who ask for it

            explain_plot.check(out)
        config = in_force(path)
        tree, context = _explained(config, order_id)
        tree["model"] = told = _model(config, tree, model)
        tree["book"], tree["row"] = _rings(config, tree, told)
        if again:
            tree["replay"] = _replayed(config, paths, tree, context, model)
        if out:
            explain_plot.draw(tree, out)
        print(json.dumps(tree, indent=1) if as_json else "\n".join(lines(tree)))
    sys.exit(_exit_code(tree))


def _exit_code(tree: Mapping[str, Any]) -> int:
    replayed = tree.get("replay")
    if tree["verdict"]["same"] is False or replayed and replayed["same"] is False:
        return _DIFFERENT
    return _NOT_MADE_AGAIN if replayed and replayed["same"] is None and not pure.asked_by_clock(tree) else 0


def _captures(paths: tuple[str, ...]) -> tuple[str, ...]:
    if paths:
        from common.captures import without_manifests

        return without_manifests(paths)
    return paths


def _explained(config: Config, order_id: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What the journal tells, and the context of the order."""
    reader = Reader(located(config))
    try:
        with reader.at_once():
            order = reader.order(order_id)
            history = reader.history(order["client_id"])
            fills = reader.fills(10**9, client_id=order["client_id"])[::-1]
            context = explain_context.decode(order["context"], reader.config)
            kept = reader.config(context.get("config", ""))
    finally:
        reader.close()
    decided_by = None
    if kept is not None:
        try:
            decided_by = restore(orjson.loads(kept))
        except (ConfigError, orjson.JSONDecodeError) as error:
            print(f"alpha explain: the configuration that the order was decided under is not one of this version: "
                  f"{error}", file=sys.stderr)
    return pure.explain(order, context, history, fills, decided_by), context


# ---- the model


def _model(config: Config, tree: Mapping[str, Any], given: Path | None) -> dict[str, Any] | None:
    """What the manifest says of the model that predicted, found by its id among the models in use."""
    if tree["prediction"] is None or pure.asked_by_clock(tree):
        return None
    for path in [given] if given else deployment.known(config):
        try:
            data = path.read_bytes()
            if f"{identity(data, external_data(data, path)):016x}" != tree["prediction"]["model"]:
                continue
            told = manifest.read(path)
        except (OSError, AlphaError):  # a model that cannot be read is not known
            continue
        return {"name": told.name, "path": str(path), "sha256": hashlib.sha256(data).hexdigest(),
                "schema": told.schema, "window": told.window, "horizon_s": told.horizon_s,
                "columns": list(_labels(told, path))}
    return None


def _labels(told: manifest.Manifest, path: Path) -> tuple[str, ...]:
    """The columns as rings name them; as the manifest does, where it is not of this version's features."""
    try:
        return manifest.features_of(told, str(path)).labels
    except ModelError:
        return told.columns


# ---- what is still in memory


def _rings(config: Config, tree: Mapping[str, Any], model: Mapping[str, Any] | None
           ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """All levels of the book that was looked at, and the feature row, from the rings of a living pipeline; None for
    what they do not hold any more."""
    order, market = tree["order"], tree["market"]
    book = row = None
    try:
        books = Books.attach(config.instance.name)
        if market and books.tag == order["epoch"] and order["symbol"] in books.symbols:
            tick = books.read(books.symbols.index(order["symbol"]), market["seq"])
            book = _texts(pure.levels(tick)) if tick else None
        rows = Rows.attach(config.instance.name, TABLE_HASH)
        if not pure.asked_by_clock(tree) and rows.tag == order["epoch"] and order["symbol"] in rows.symbols:
            row = _row(rows, rows.symbols.index(order["symbol"]), order["seq"], model)
    except (FileNotFoundError, LayoutError):
        pass
    return book, row


def _row(rows: Rows, symbol: int, seq: int, model: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if rows.read_meta(symbol, seq) is None:
        return None
    values = dict(zip(rows.columns, rows.window(symbol, seq, 1)[0].tolist()))
    if not rows.holds(symbol, seq):
        return None
    if model and set(model["columns"]) <= set(values):
        values = {name: values[name] for name in model["columns"]}
    return {"source": "the rows ring", "values": values}


def _texts(sides: Mapping[str, list[tuple[int, int]]]) -> dict[str, list[tuple[str, str]]]:
    return {side: [(fixed.text(price), fixed.text(qty)) for price, qty in found] for side, found in sides.items()}


# ---- a recording


def _replayed(config: Config, paths: tuple[str, ...], tree: dict[str, Any], context: Mapping[str, Any],
              model: Path | None) -> dict[str, Any]:
    """What `explain_replay.replay` found; fills in row and book where the rings did not have them."""
    from common.explain.replay import replay
    from common.wire import Prediction
    from procs.replay import configure

    if tree["prediction"] is None:
        raise ConfigError("the journal does not say what was predicted", where=tree["order"]["client_id"])
    if pure.asked_by_clock(tree):
        return {"found": False, "same": None, "captures": list(paths),
                "why": "the clock asked, not a model: there is no probability to make again"}
    configured = configure(config, paths)
    file = model or (Path(tree["model"]["path"]) if tree["model"] else None)
    if file is None:
        raise ConfigError("the model that predicted is not among those in use",
                          where=f"id {tree['prediction']['model']}", remedy="name it with --model")
    configured = dataclasses.replace(configured, inference=dataclasses.replace(
        configured.inference, model=str(file.resolve()), shadow=""))
    symbol = tree["order"]["symbol"]
    known = configured.market.symbols
    name = symbol if symbol in known else symbol.partition(":")[2]
    if name not in known:
        raise ConfigError("the captures are of other symbols", where=f"{symbol}; they have {', '.join(known)}")
    found = replay(configured, paths, name, Prediction(**context["prediction"]))
    if found["found"]:
        tree["row"] = tree["row"] or {"source": "the recording", "values": found["values"]}
        found["book"] = _texts(found["book"])
    return found
