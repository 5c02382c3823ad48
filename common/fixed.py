"""Exact decimals as integers: every price and quantity is a count of 1e-8.

Exchanges send decimals as text. Held as int64 in units of 1e-8 they are exact, compare and hash
exactly, and leave the system as the same text. The range is +-92,233,720,368; a value outside it or
with a ninth non-zero decimal is refused rather than rounded.
"""

import re
from decimal import Context, Decimal

from common.errors import VenueError

DECIMALS = 8
SCALE = 10**DECIMALS
MAX = 2**63 - 1
_EXACT = Context(prec=200)  # more digits than a number that `_NUMBER` lets pass can have
_NUMBER = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,2})?", re.ASCII)


def parse(text: str, field: str = "number") -> int:
    """`"61000.10"` -> 6100010000000. Raises VenueError naming `field` and the text."""
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise VenueError(f"{field} is not a decimal number", where=f"{field}={text!r}")
    value = Decimal(text).scaleb(DECIMALS, _EXACT)
    if value != value.to_integral_value():
        raise VenueError(f"{field} has more than {DECIMALS} decimals", where=f"{field}={text!r}")
    if not -MAX <= value <= MAX:
        raise VenueError(f"{field} is outside the range of 64 bits", where=f"{field}={text!r}")
    return int(value)


def text(value: int) -> str:
    """6100010000000 -> `"61000.1"`: plain notation, no exponent, no trailing zeros."""
    whole, part = divmod(abs(value), SCALE)
    tail = f"{part:08d}".rstrip("0")
    return f"{'-' if value < 0 else ''}{whole}{'.' + tail if tail else ''}"
