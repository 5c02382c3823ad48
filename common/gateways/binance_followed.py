"""What is known of each order that Binance has spoken of: its fills, and its end, which waits for them. Pure.

An end is told once the fills that were told add up to what the venue says was executed, whichever way each of them
came, so neither a lost frame nor one that comes twice does harm.
"""

from collections import OrderedDict
from collections.abc import Iterator

from common.errors import VenueError
from common.gateways import Ended, Filled
from common.gateways.binance_filters import rounded
from common.orders import State

REMEMBERED = 10_000  #: orders whose client id is not sent again
ENDS = {"FILLED": State.FILLED, "CANCELED": State.CANCELLED, "REJECTED": State.REJECTED, "EXPIRED": State.EXPIRED,
        "EXPIRED_IN_MATCH": State.EXPIRED}
ALIVE = ("NEW", "PARTIALLY_FILLED", "PENDING_NEW", "PENDING_CANCEL", "ACCEPTED")


class Followed:
    """An order of which something was said: what was told of its fills, and its end."""

    __slots__ = ("client_id", "symbol", "venue_id", "fills", "executed", "end", "over", "ask_ns", "posted", "heard",
                 "hold_ns", "ours")

    def __init__(self, client_id: str, symbol: str) -> None:
        self.client_id, self.symbol, self.venue_id = client_id, symbol, ""
        self.fills: dict[str, int] = {}  #: fill id -> quantity
        self.executed = 0  #: what the venue says was filled, at least
        self.end: Ended | None = None
        self.over = False  #: the end has been told
        self.ask_ns = 0  #: when to ask for its fills; 0: no need to
        self.ours = False  #: somebody asked for it here; others on the same account are only heard of
        self.posted = False  #: it was sent, and that is not answered yet
        self.heard: list[dict] = []  #: what the stream has said meanwhile
        self.hold_ns = 0  #: until when that may wait; 0: nothing waits

    @property
    def short(self) -> bool:
        """Fills are missing, or its end has not been told."""
        return sum(self.fills.values()) < self.executed or self.end is not None and not self.over

    def note(self, told: list[Filled]) -> list[Filled]:
        """These are told now: not before all of an answer has been understood, for else none of it is told."""
        self.fills.update((fill.fill_id, fill.qty) for fill in told)
        return told


class Following:
    """Orders by client id, the last REMEMBERED of them. Iterates over those that are not over, as of now."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Followed] = OrderedDict()
        self._unsettled: dict[str, Followed] = {}  # those of them that are not over

    def __contains__(self, client_id: str) -> bool:
        return client_id in self._known

    def __iter__(self) -> Iterator[Followed]:
        return iter(list(self._unsettled.values()))

    def get(self, client_id: str) -> Followed | None:
        return self._known.get(client_id)

    def begin(self, client_id: str, symbol: str) -> Followed:
        followed = self._known[client_id] = self._unsettled[client_id] = Followed(client_id, symbol)
        if len(self._known) > REMEMBERED:
            self._unsettled.pop(self._known.popitem(last=False)[0], None)
        return followed

    def forget(self, followed: Followed) -> None:
        self._known.pop(followed.client_id, None)
        self.settle(followed.client_id)

    def settle(self, client_id: str) -> None:
        """Nothing of it is waited for any more; its client id is not sent again."""
        self._unsettled.pop(client_id, None)

    def stands(self, followed: Followed, status: str, executed: str, reason: str = "") -> None:
        """What `status` means for the order, of which `executed` is filled. Raises VenueError for what is none."""
        if status not in ENDS and status not in ALIVE:
            raise VenueError("an order has a status that does not exist", where=f"status={status!r}"[:100])
        filled = rounded(executed, "executed quantity")
        followed.executed = max(followed.executed, filled)
        if not followed.over:
            if status in ENDS:
                followed.end = Ended(followed.client_id, ENDS[status], filled, reason[:200])
            self._unsettled[followed.client_id] = followed

    def finish(self, followed: Followed) -> list[Ended]:
        """The end of the order, once, when the fills that were told add up to it."""
        if followed.end is None or followed.over or sum(followed.fills.values()) != followed.end.filled:
            return []
        followed.over, followed.ask_ns = True, 0
        if followed.ours:
            self.settle(followed.client_id)
        else:  # nobody will ask for it, and ours must not be crowded out
            self.forget(followed)
        return [followed.end]
