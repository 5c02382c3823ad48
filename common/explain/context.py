"""What the journal keeps beside an order: all that the decision was made of. Pure.

    prediction   the fields of `wire.Prediction`
    market       the fields of `ring.Top`: the newest book when it was looked at
    before       where symbol and account stood, by the names of `common.decision`
    wish_ns, answer_ns, decided_ns   when it was asked what the prediction is worth, when the market was looked at, and
                 when the order was there; monotonic ns
    config       id of the configuration, whose text the journal keeps as well

A context is a JSON array: the id of its layout, then the values in its order. The names stand in the layout, `LAYOUT`,
which the journal keeps once, as it keeps configurations, so that a journal can be read by whoever has it. (Until
version 2 of the journal a context was an object with all the names in it, which took three times as long to write.)
Prices and quantities are counts of 1e-8. Floats are written so that they read back to the same bits; what is no number
is null, and reads back as NaN.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from common.decision import Decision
from common.errors import ContractError
from common.wire import Prediction

if TYPE_CHECKING:
    from common.ring import Top

#: names of what `decision.before` gives, in its order
BEFORE = Decision._fields[Decision._fields.index("followed"):Decision._fields.index("reason")]
_TOP = tuple(name.removeprefix("top_") for name in Decision._fields if name.startswith("top_"))
#: the names of a context, in the order of its values, as JSON; within `before` comes what was the newest until then
LAYOUT = json.dumps(["config", "wish_ns", "answer_ns", "decided_ns", *(f"prediction.{name}" for name in
                     Prediction._fields), *(f"market.{name}" for name in _TOP), *(f"before.{name}" for name in BEFORE),
                     "before.newest"])
_ID = hashlib.sha256(LAYOUT.encode()).hexdigest()[:16]  # as `journal.configured` names it


def encode(prediction: Prediction, market: "Top", before: Sequence[Any], newest: int, wish_ns: int, answer_ns: int,
           decided_ns: int, config: str) -> str:
    """`before` may be taken after the prediction was noted as taken up: `newest` is the sequence that was the newest
    until then, and the last word. About 2 us."""
    return orjson.dumps((_ID, config, wish_ns, answer_ns, decided_ns, *prediction, *market, *before, newest)).decode()


def decode(text: str, kept: Callable[[str], str | None] = lambda name: None) -> dict[str, Any]:
    """What `encode` was given, by name; of an older version what it wrote, which may be nothing. `kept` finds the
    layout of another version by its id (`journal.Reader.config`). Raises ContractError for what cannot be read."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if isinstance(found, dict):
        return found
    if not isinstance(found, list) or not found:
        raise ContractError("the context of an order cannot be read", where=repr(text[:80]))
    layout = LAYOUT if found[0] == _ID else kept(str(found[0]))
    names = orjson.loads(layout) if layout else []
    if len(names) != len(found) - 1:
        raise ContractError("the context of an order cannot be read", where=repr(text[:80]) if layout else
                            f"layout {found[0]}, which the journal does not keep, of {len(found) - 1} values")
    told: dict[str, Any] = {}
    for name, value in zip(names, found[1:]):
        group, _, field = name.rpartition(".")
        (told.setdefault(group, {}) if group else told)[field] = math.nan if value is None else value
    return told
