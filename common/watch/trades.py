"""The journal, followed while it is written: positions, and the newest orders and fills.

A look costs what is new (common.journal, `Reader.news`). Positions are those of `Reader.positions`: read once, then
each new fill is booked on them as the executor books it, and they are read again where the journal was given a new
checkpoint or more was written than one look takes in.
"""

from collections import OrderedDict, deque
from typing import Any

from common.journal import Reader
from common.orders import SIDES
from common.positions import Position

_MOST = 1000  # rows of a kind in one look


class Trades:
    """What `reader` tells. `orders` and `fills` are its rows, newest last, `keep` of them; raises what it raises."""

    def __init__(self, reader: Reader, keep: int = 60) -> None:
        self._reader, self._keep = reader, keep
        self._since: tuple[int, int, int] | None = None
        self._checkpoint: int | None = None
        self._orders: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.fills: deque[dict[str, Any]] = deque(maxlen=keep)
        self.positions: dict[str, Position] = {}

    @property
    def orders(self) -> list[dict[str, Any]]:
        return list(self._orders.values())

    def look(self) -> None:
        """Take in what is new."""
        reader, newest = self._reader, self._since and self._since[0]
        with reader.at_once():
            checkpoint = reader.checkpoint()
            news = reader.news(self._since, _MOST) if self._since and checkpoint == self._checkpoint else None
            if news is None or max(len(news.orders), len(news.fills)) == _MOST:
                self._orders.clear()
                self.fills.clear()
                news, newest, self.positions = reader.news(None, self._keep), 0, reader.positions()
            else:
                for fill in news.fills:
                    held = self.positions.setdefault(fill["symbol"], Position())
                    held.fill(SIDES[fill["side"]], fill["qty"], fill["price"], fill["fee"])
        self._since, self._checkpoint = news.through, checkpoint
        self.fills.extend(news.fills)
        for row in news.orders:
            if row["id"] > newest or row["client_id"] in self._orders:  # not one that changed long after it was let go
                self._orders[row["client_id"]] = row
        while len(self._orders) > self._keep:
            self._orders.popitem(last=False)

    def close(self) -> None:
        self._reader.close()
