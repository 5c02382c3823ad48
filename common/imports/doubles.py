"""Doubles back to the decimals that they were: counts of 1e-8, exactly, or refused.

A double carries 15 to 17 digits: below 67 million each decimal with eight places has a double of its own. With the
increment of the symbol, its tick or lot, the multiple of it is found for greater numbers, too. What is not such a
decimal is not rounded but refused; what a few additions of doubles leave behind is forgiven where it cannot be
anything else.
"""

import numpy as np

from common.errors import ConfigError, VenueError
from common.fixed import MAX, SCALE, parse

_NOISE = 4  #: units in the last place by which a double may miss its decimal


def increment(text: str, option: str) -> int:
    """A tick or lot as an option gives it, in 1e-8; 0 where it gives none."""
    try:
        found = parse(text, option) if text else 0
    except VenueError as error:
        raise ConfigError("an increment is not a decimal number", where=error.where) from None
    if text and found <= 0:
        raise ConfigError("an increment is not above 0", where=f"{option}={text!r}")
    return found


def exact(values: np.ndarray, step: int, where: str, first_row: int = 0) -> np.ndarray:
    """float64[n] as int64[n] counts of 1e-8, multiples of `step` where that is above 0. Raises VenueError naming the
    row of the first that is none. About 80 ns a number."""
    unit = step or 1
    small = np.abs(values) < MAX / SCALE
    near = np.where(small, values, 0.0)
    counts, beside = _product(near)
    nearest = (counts + unit // 2) // unit * unit
    miss = np.abs((nearest - counts) - beside)
    size = np.spacing(np.abs(near)) * SCALE
    # The double of a decimal is within half a unit in the last place of it. Another multiple must be farther away than
    # the noise, or the number could be either.
    sound = (miss <= 0.5 * size) & (size < unit) | (miss <= _NOISE * size) & (2 * _NOISE * size < unit)
    sound &= small & (np.abs(nearest) < MAX)
    if not sound.all():
        bad = int(np.argmin(sound))
        raise VenueError("a number is not a decimal of this symbol" if step else "a number is no decimal of 8 places",
                         where=f"{where}, row {first_row + bad}: {float(values[bad])!r}"
                         + (f", increment {step / SCALE:.8f}" if step else ""),
                         remedy="give the increments of the symbol, tick and lot" if not step
                         else "give the increment that the data have")
    return nearest


def _product(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """values * 1e8 with no rounding: the nearest whole numbers, int64[n], and what is beside them, float64[n].

    The product of doubles rounds, above 33 million by half a count; its error is found after Dekker (1971), by
    splitting one factor. The other, below 2**27, needs no splitting."""
    high = values * (2.0**27 + 1)
    high -= high - values
    product = values * SCALE
    error = (high * SCALE - product) + (values - high) * SCALE
    whole = np.rint(product)
    beside = (product - whole) + error
    more = np.rint(beside)
    return whole.astype(np.int64) + more.astype(np.int64), beside - more
