"""Order gateways: one file per way to a venue, found here by the first word of its name.

A gateway never blocks. What it is asked for it queues; `work` moves it on and returns what has become known, as
events. It keeps no opinion about an order: the executor's journal does. Three rules bind every gateway:

- An order leaves at most once per `submit`. Nothing is sent again behind the caller's back.
- An outcome that is not known is `Unknown`, never a rejection: no answer after bytes have left, a connection
  lost, a server error, an answer that makes no sense. Only the venue's word, or the certainty that nothing
  left, ends an order.
- Events of one order come in the order in which they happened; its fills before its end. A fill may be told
  more than once (after a query); `fill_id` tells that it is the same.
"""

import importlib
import ipaddress
import os
from collections.abc import Mapping
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from common.config import Config
from common.fixed import MAX, SCALE
from common.orders import Order, State
from common.positions import Position
from common.ring import Books


class Acked(NamedTuple):
    """The venue has the order."""

    client_id: str
    venue_id: str
    sent_ns: int  #: monotonic; when its first byte left, 0 where this answers a query
    at_ns: int


class Filled(NamedTuple):
    client_id: str
    fill_id: str  #: the venue's, unique in the order
    qty: int
    price: int
    fee: int  #: quote currency, below 0 a rebate
    event_ns: int  #: the venue's time, Unix ns
    base_fee: int = 0  #: what was taken out of what is held, on either side; its worth is `fee`


class Ended(NamedTuple):
    """The order is at its end. `filled` is the venue's own total: a fill is missing where ours is smaller."""

    client_id: str
    state: State  #: FILLED, CANCELLED, REJECTED or EXPIRED
    filled: int
    reason: str


class Unknown(NamedTuple):
    """An order was sent and what became of it is not known."""

    client_id: str
    reason: str


class Absent(NamedTuple):
    """The venue says that it has no such order. It may still be on its way."""

    client_id: str


class Unanswered(NamedTuple):
    """A query or a cancel had no useful answer; nothing follows from that."""

    client_id: str
    reason: str


class Portfolio(NamedTuple):
    positions: dict[str, tuple[int, int]]  #: symbol -> (signed quantity, average price); flat ones left out


class NoPortfolio(NamedTuple):
    reason: str


class Throttled(NamedTuple):
    """The venue wants to be left alone, or cannot be reached: nothing should be sent until then (monotonic ns)."""

    until_ns: int


Event = Acked | Filled | Ended | Unknown | Absent | Unanswered | Portfolio | NoPortfolio | Throttled


class Gateway(Protocol):
    """Made by `create`; `attach` and `restore` come before anything else."""

    name: str

    def attach(self, books: Books) -> None:
        """The market as this machine sees it; again when the ring has been replaced. Gateways whose venue is
        elsewhere have no use for it."""

    def restore(self, positions: Mapping[str, Position]) -> None:
        """What the journal holds. A venue of our own starts from it; others have their own record. ConfigError where
        the symbols cannot be traded together there."""

    def observe(self) -> None:
        """Only to look from now on: nothing is started at the venue that acts on orders by itself."""

    def submit(self, order: Order, start_by_ns: int = 0) -> None:
        """Never leaves later than `start_by_ns` (monotonic; 0: no such time), but ends instead. Answered by
        Acked, Filled, Ended, or by Unknown."""

    def withdraw(self) -> None:
        """Orders that were submitted and have not left do not leave any more, but end."""

    def cancel(self, order: Order, venue_id: str) -> None:
        """Answered as `query`, or by Unanswered."""

    def query(self, order: Order) -> None:
        """Ask for an order by its client id. Answered by Acked and what happened since, Absent or Unanswered."""

    def portfolio(self) -> None:
        """Answered by Portfolio or NoPortfolio."""

    def work(self) -> list[Event]:
        """Move things on; returns what has become known. Never blocks."""

    @property
    def busy(self) -> bool:
        """Whether anything is under way, so that `work` is worth calling."""

    @property
    def wants_write(self) -> bool:
        """Whether to wait for `fileno` to become writable rather than readable."""

    def fileno(self) -> int:
        """What to wait on while busy; -1 if there is nothing to wait on."""

    def due_ns(self) -> int:
        """When `work` is to be called at the latest, monotonic ns; 0 for no such time."""

    def close(self) -> None:
        """Drop everything under way; its answers never come."""


def fits(qty: int, price: int, fee: int = 0) -> bool:
    """Whether a quantity at a price, and what both are worth with a fee, fit 64 bits as counts of 1e-8. What does not
    must not leave a gateway: it is a VenueError."""
    worth = abs(qty) * abs(price) // SCALE + abs(fee)
    return max(abs(qty), abs(price), worth) <= MAX


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_live(config: Config) -> bool:
    """Whether real money may be at stake: it is said so, or orders leave for a venue that is not a loopback one."""
    if config.market.live or any(feed.live for feed in config.feeds.values()):
        return True
    try:
        host = urlsplit(config.executor.base_url).hostname
    except ValueError:  # no address at all, which whoever makes the gateway is told
        host = None
    return config.executor.gateway != "paper" and not is_loopback(host or "")


def create(config: Config, clock, environ: Mapping[str, str] = os.environ) -> Gateway:
    """The gateway that the configuration names; the markets of one venue share a file."""
    module = importlib.import_module(f"common.gateways.{config.executor.gateway.partition('-')[0]}")
    return module.create(config, clock, environ)
