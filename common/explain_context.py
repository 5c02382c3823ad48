"""What the journal keeps beside an order, as JSON: all that the decision was made of, by name. Pure.

    prediction   the fields of `wire.Prediction`
    market       the fields of `ring.Top`: the newest book when it was looked at
    before       where symbol and account stood, by the names of `common.decision`
    wish_ns, answer_ns, decided_ns   when it was asked what the prediction is worth, when the market was looked at, and
                 when the order was there; monotonic ns
    config       id of the configuration, whose text the journal keeps as well

Prices and quantities are counts of 1e-8. Floats are written so that they read back to the same bits.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from common.decision import Decision
from common.errors import ContractError
from common.wire import Prediction

if TYPE_CHECKING:
    from common.ring import Top

#: names of what `decision.before` gives, in its order
BEFORE = Decision._fields[Decision._fields.index("followed"):Decision._fields.index("reason")]
_NEWEST = BEFORE.index("newest")


def encode(prediction: Prediction, market: "Top", before: Sequence[Any], newest: int, wish_ns: int, answer_ns: int,
           decided_ns: int, config: str) -> str:
    """`before` may be taken after the prediction was noted as taken up: `newest` is the sequence that was the newest
    until then. About 6 us."""
    stood = dict(zip(BEFORE, before))
    stood["newest"] = newest
    return orjson.dumps({"prediction": prediction._asdict(), "market": market._asdict(), "before": stood,
                         "wish_ns": wish_ns, "answer_ns": answer_ns, "decided_ns": decided_ns,
                         "config": config}).decode()


def decode(text: str) -> dict[str, Any]:
    """What `encode` was given, by name; of an older version what it wrote, which may be nothing. Raises ContractError
    if it is no JSON object."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ContractError("the context of an order cannot be read", where=repr(text[:80]))
    return found
