"""Reading decoded JSON with suspicion: the slow, exact path of every venue.

Each reader names the field and the value that it refuses. Decimals arrive as strings; where a venue writes
them as JSON numbers the frame is decoded again with its digits kept, so nothing passes through a float.
"""

import json
import re
from datetime import datetime
from decimal import Decimal
from typing import Any, Callable, Sequence

import numpy as np
import orjson

from common import fixed
from common.errors import VenueError
from common.events import Event

_SHOWN = 80  #: characters of a refused value that an error repeats
MS = 1_000_000  #: ns in a millisecond
_ISO = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")


class _Inexact(Exception):
    """A decimal came as a JSON number: decode the frame again, exactly."""


def decode(frame: bytes | bytearray, read: Callable[[Any], Sequence[Event]], kind: type | tuple = dict,
           ) -> Sequence[Event]:
    """`read` over the JSON object in `frame` (or array, where `kind` has list). Raises VenueError.

    `read` is called a second time where the first met a decimal that came as a JSON number: it must have changed
    nothing by then, so a venue reads all that is in a frame before it takes note of any of it."""
    try:
        try:
            return read(_whole(orjson.loads(frame), kind))
        except _Inexact:
            return read(_whole(json.loads(frame, parse_float=Decimal), kind))
    except (ValueError, RecursionError) as error:
        raise VenueError("a frame is not JSON", where=f"{error}: {shown(bytes(frame[:_SHOWN]))}") from None


def shown(value: Any) -> str:
    """`value` for an error message, cut to a bearable length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def obj(data: dict, name: str) -> dict:
    return _object(field(data, name), name)


def array(data: dict, name: str) -> list:
    value = field(data, name)
    if not isinstance(value, list):
        raise VenueError("a list was expected", where=f"{name}={shown(value)}")
    return value


def objects(data: dict, name: str) -> list[dict]:
    """A list of JSON objects."""
    return [_object(value, name) for value in array(data, name)]


def number(data: dict, name: str) -> int:
    """An integer from 0 to 2**63 - 1 that the venue writes as text."""
    value = text(data, name)
    if not (value.isascii() and value.isdigit() and len(value) <= 19 and int(value) <= fixed.MAX):
        raise VenueError("the digits of an integer from 0 to 2**63 - 1 were expected", where=f"{name}={shown(value)}")
    return int(value)


def time_iso(data: dict, name: str) -> int:
    """A time as RFC 3339 has it, in UTC ("2026-08-09T12:00:00.123456789Z"), as Unix ns, exactly."""
    value = text(data, name)
    found = _ISO.fullmatch(value)
    try:
        whole = int(datetime.fromisoformat(found[1] + "+00:00").timestamp()) if found else -1
    except ValueError:
        whole = -1
    if not 0 <= whole < fixed.MAX // 10**9:
        raise VenueError("a time in UTC, before the year 2262, was expected", where=f"{name}={shown(value)}")
    return whole * 10**9 + int((found[2] or "").ljust(9, "0"))


def seconds_ns(value: Any, name: str) -> int:
    """Unix seconds, a decimal as text or number, as nanoseconds."""
    return min(_quantity(value, name), fixed.MAX // 10) * (10**9 // fixed.SCALE)


def field(data: dict, name: str) -> Any:
    if name not in data:
        raise VenueError("a field is missing", where=f"{name} in {shown(data)}")
    return data[name]


def text(data: dict, name: str) -> str:
    value = field(data, name)
    if not isinstance(value, str):
        raise VenueError("a text was expected", where=f"{name}={shown(value)}")
    return value


def flag(data: dict, name: str) -> bool:
    value = field(data, name)
    if not isinstance(value, bool):
        raise VenueError("true or false was expected", where=f"{name}={shown(value)}")
    return value


def integer(data: dict, name: str) -> int:
    """An integer from 0 to 2**63 - 1."""
    value = field(data, name)
    if type(value) is not int or not 0 <= value <= fixed.MAX:
        raise VenueError("an integer from 0 to 2**63 - 1 was expected", where=f"{name}={shown(value)}")
    return value


def time_ns(data: dict, name: str) -> int:
    """Unix milliseconds as nanoseconds."""
    value = integer(data, name)
    if value > fixed.MAX // MS:
        raise VenueError("a time in milliseconds is out of range", where=f"{name}={value}")
    return value * MS


def price(data: dict, name: str) -> int:
    """Above 0, in 1e-8."""
    return _price(field(data, name), name)


def quantity(data: dict, name: str) -> int:
    """0 or more, in 1e-8."""
    return _quantity(field(data, name), name)


def levels(data: dict, *names: str, longest: int = 2) -> tuple[np.ndarray, list[int]]:
    """The arrays of levels called `names`, one after the other as int64[n, 2], and the length of each. A level is
    [price, quantity] and up to `longest` items in all, of which only these two are looked at."""
    pairs: list[tuple[int, int]] = []
    counts = []
    for name in names:
        side = field(data, name)
        if not isinstance(side, list):
            raise VenueError("a list of levels was expected", where=f"{name}={shown(side)}")
        for level in side:
            if not isinstance(level, list) or not 2 <= len(level) <= longest:
                raise VenueError("a level is not [price, quantity]", where=f"{name}: {shown(level)}")
            pairs.append(pair(level[0], level[1], name))
        counts.append(len(side))
    return stacked(pairs), counts


def pair(price: Any, quantity: Any, name: str) -> tuple[int, int]:
    """(price above 0, quantity 0 or more) of one level, in 1e-8."""
    return _price(price, f"{name}.price"), _quantity(quantity, f"{name}.quantity")


def stacked(pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Levels as events carry them: int64[n, 2]."""
    return np.array(pairs, np.int64).reshape(-1, 2)


def texts(levels: np.ndarray) -> list[list[str]]:
    """Levels as most venues write them: [["price", "quantity"], ...]."""
    return [[fixed.text(price), fixed.text(quantity)] for price, quantity in levels.tolist()]


def _whole(value: Any, kind: type | tuple) -> Any:
    if not isinstance(value, kind):
        raise VenueError("a frame is not what it should be", where=f"frame={shown(value)}",
                         remedy="a JSON object was expected" if kind is dict else "")
    return value


def _object(value: Any, name: str) -> dict:
    if not isinstance(value, dict):
        raise VenueError("a JSON object was expected", where=f"{name}={shown(value)}")
    return value


def _price(value: Any, name: str) -> int:
    found = _decimal(value, name)
    if found <= 0:
        raise VenueError("a price is not above 0", where=f"{name}={shown(value)}")
    return found


def _quantity(value: Any, name: str) -> int:
    found = _decimal(value, name)
    if found < 0:
        raise VenueError("a quantity is below 0", where=f"{name}={shown(value)}")
    return found


def _decimal(value: Any, name: str) -> int:
    if isinstance(value, float):
        raise _Inexact
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise VenueError("a decimal number was expected", where=f"{name}={shown(value)}")
    if isinstance(value, str) and len(value) > _SHOWN:
        raise VenueError("a decimal number is too long", where=f"{name}={shown(value)}")
    return fixed.parse(str(value), name)
