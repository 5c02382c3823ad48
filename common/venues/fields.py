"""Reading decoded JSON with suspicion: the slow, exact path of every venue.

Each reader names the field and the value that it refuses. Decimals arrive as strings; where a venue writes
them as JSON numbers the frame is decoded again with its digits kept, so nothing passes through a float.
"""

import json
from decimal import Decimal
from typing import Any, Callable, Sequence

import numpy as np
import orjson

from common import fixed
from common.errors import VenueError
from common.events import Event

_SHOWN = 80  #: characters of a refused value that an error repeats
MS = 1_000_000  #: ns in a millisecond


class _Inexact(Exception):
    """A decimal came as a JSON number: decode the frame again, exactly."""


def decode(frame: bytes | bytearray, read: Callable[[dict], Sequence[Event]]) -> Sequence[Event]:
    """`read` over the JSON object in `frame`. Raises VenueError."""
    try:
        try:
            return read(_object(orjson.loads(frame), "frame"))
        except _Inexact:
            return read(_object(json.loads(frame, parse_float=Decimal), "frame"))
    except (ValueError, RecursionError) as error:
        raise VenueError("a frame is not JSON", where=f"{error}: {shown(bytes(frame[:_SHOWN]))}") from None


def shown(value: Any) -> str:
    """`value` for an error message, cut to a bearable length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def obj(data: dict, name: str) -> dict:
    return _object(field(data, name), name)


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


def levels(data: dict, *names: str) -> tuple[np.ndarray, list[int]]:
    """The arrays of levels called `names`, one after the other as int64[n, 2], and the length of each."""
    pairs: list[tuple[int, int]] = []
    counts = []
    for name in names:
        side = field(data, name)
        if not isinstance(side, list):
            raise VenueError("a list of levels was expected", where=f"{name}={shown(side)}")
        for level in side:
            if not isinstance(level, list) or len(level) != 2:
                raise VenueError("a level is not [price, quantity]", where=f"{name}: {shown(level)}")
            pairs.append((_price(level[0], f"{name}.price"), _quantity(level[1], f"{name}.quantity")))
        counts.append(len(side))
    return np.array(pairs, np.int64).reshape(-1, 2), counts


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
