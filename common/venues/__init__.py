"""The venues that ingest can speak to: one module each, known by existing.

A module of this package holds one class, or several, that satisfy `common.events.Venue`; each is registered
under its `name`. Nothing else needs to be told of it.
"""

import importlib
import pkgutil
import re
from functools import cache
from typing import Sequence

from common.errors import ConfigError
from common.events import Venue


@cache
def registry() -> dict[str, type[Venue]]:
    """Every venue class by its name."""
    found: dict[str, type[Venue]] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for item in vars(importlib.import_module(module.name)).values():
            if isinstance(item, type) and item.__module__ == module.name and isinstance(
                    getattr(item, "name", None), str):
                found[item.name] = item
    return found


def create(name: str, symbols: Sequence[str]) -> Venue:
    """The venue called `name` for `symbols`. Raises ConfigError on an unknown name."""
    known = registry()
    if name not in known:
        raise ConfigError("unknown venue", where=f"market.venue={name!r}",
                          remedy=f"known: {', '.join(sorted(known))}")
    for symbol in symbols:
        if not re.fullmatch(r"[!#-\[\]-~]{1,64}", symbol):
            raise ConfigError("not the name of a symbol", where=f"market.symbols: {symbol!r}",
                              remedy="use 1 to 64 printable ASCII characters without spaces and quotes")
    return known[name](symbols)
