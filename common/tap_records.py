"""What a message of a tap is to people: records with fields, told as they are or in words. Pure.

As they are, a record is what `common.wire` and `common.decision` say: numbers, times in ns of one machine's clock,
prices and quantities as counts of 1e-8. What is asked for is put in words: `names` for kinds, flags, sides and models,
`decimals` for prices, quantities and money, `utc` for times. Which field is what stands here, once.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from common.decision import REASONS, Decision
from common.decision import decode as decisions
from common.errors import ConfigError
from common.expressions import Expression
from common.fixed import SCALE, text
from common.instant import exact
from common.judged import model_text
from common.layout import FLAG_RESET, FLAG_VALID, KIND_NAMES
from common.links import DECISIONS, FRAMES
from common.orders import BUY, SELL
from common.risk import ACTIVE, FLATTENING, REDUCING
from common.wire import Credit, Prediction, TickRef, Work, as_dict, decode

_KINDS = {"ticks": TickRef, "work": Work, "credits": Credit, "predictions": Prediction, "judged": Prediction,
          DECISIONS: Decision}
_FRAME = ("recv_ns", "frame")
_REASONS = ("barred", "reason", "outcome")

#: counts of 1e-8
AMOUNTS = frozenset((
    "bid", "ask", "top_bid", "top_bid_qty", "top_ask", "top_ask_qty", "position", "open_buy", "open_sell", "exposure",
    "cost", "low", "high", "last_qty", "last_price", "gross", "day_loss", "net_low", "net_high", "drawdown", "qty",
    "price"))
#: Unix ns; every other field that ends in _ns is monotonic, but for a difference
_UNIX = frozenset(("event_ns", "trained_ns"))
_DIFFERENCES = frozenset(("offset_ns",))
_SIDES = {BUY: "BUY", SELL: "SELL", 0: ""}
_MODES = {ACTIVE: "ACTIVE", REDUCING: "REDUCING", FLATTENING: "FLATTENING"}


class Told(NamedTuple):
    """What is put in words."""

    names: bool = False
    decimals: bool = False
    utc: bool = False


def fields_of(link: str) -> tuple[str, ...]:
    """The fields that records of `link` have, in their order."""
    return _FRAME if link == FRAMES else ("kind_of", *_KINDS[link]._fields)


class View:
    """What is shown of `link`: the records that `where` is true of, and of them `fields`, all where there are none.
    `where` sees each record as it is shown, but amounts and times as numbers. Raises ConfigError for unknown fields."""

    def __init__(self, link: str, told: Told = Told(), where: str = "", fields: Sequence[str] = (),
                 symbol: str | None = None) -> None:
        self.link, self._told, self._fields, self._symbol = link, told, tuple(fields), symbol
        known = fields_of(link)
        for name in self._fields:
            if name not in known:
                raise ConfigError(f"{name} is no field of {link}", where=f"--fields {','.join(fields)}",
                                  remedy=f"fields are: {', '.join(known)}")
        self._where = Expression(where, known) if where else None

    def records(self, message: bytes, symbols: Sequence[str], offset_ns: int) -> Iterator[dict[str, Any]]:
        """The records that are shown. `symbols` are the names behind the indices, `offset_ns` is Unix ns less monotonic
        ns, of the machine and the time of the message. Raises WireError for what is none of the link."""
        for record in _decoded(self.link, message, symbols, offset_ns):
            if self._symbol is not None and not self._is_of_symbol(record):
                continue
            if self._told.names:
                record = _named(record)
            if self._where is not None and not self._where(_numbers(record) if self._told.decimals else record):
                continue
            yield record

    def line(self, record: dict[str, Any], offset_ns: int) -> str:
        """A record of `records` as JSON."""
        if self._told.decimals:
            record = {name: text(value) if name in AMOUNTS else value for name, value in record.items()}
        if self._told.utc:
            record = {name: _utc(name, value, 0 if self.link == FRAMES else offset_ns)
                      for name, value in record.items()}
        if self._fields:
            record = {name: record[name] for name in self._fields}
        return json.dumps(record)

    def _is_of_symbol(self, record: dict[str, Any]) -> bool:
        if self.link == FRAMES:
            return self._symbol.lower() in record["frame"].lower()
        return record.get("symbol") == self._symbol


def _decoded(link: str, message: bytes, symbols: Sequence[str], offset_ns: int) -> Iterator[dict[str, Any]]:
    if link == FRAMES:
        # As recordings have it: the time of receipt by the wall clock.
        yield {"recv_ns": int.from_bytes(message[:8], "little") + offset_ns,
               "frame": message[8:].decode(errors="replace")}
        return
    for record in decisions(message) if link == DECISIONS else decode(message):
        fields = as_dict(record)
        if "symbol" in fields and record.symbol < len(symbols):
            fields["symbol"] = symbols[record.symbol]
        if link == DECISIONS:
            fields |= {name: REASONS[fields[name]] for name in _REASONS}
        yield fields


def _named(record: dict[str, Any]) -> dict[str, Any]:
    changed = {}
    if "model" in record:
        changed["model"] = model_text(record["model"])
    if "kind" in record:
        changed["kind"] = KIND_NAMES.get(record["kind"], record["kind"])
    if "top_flags" in record:
        flags = record["top_flags"]
        changed["top_flags"] = [name for flag, name in ((FLAG_VALID, "valid"), (FLAG_RESET, "reset")) if flags & flag]
        changed["mode"] = _MODES.get(record["mode"], record["mode"])
        for name in ("side", "last_side"):
            changed[name] = _SIDES.get(record[name], record[name])
    return {**record, **changed}


def _numbers(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value / SCALE if name in AMOUNTS else value for name, value in record.items()}


def _utc(name: str, value: Any, offset_ns: int) -> Any:
    if not name.endswith("_ns") or name in _DIFFERENCES:
        return value
    # 0 is what was not stamped, and what lies before 1970 never was.
    return exact(value if name in _UNIX else value + offset_ns) if value > 0 else None
