"""Recorded messages into a stage under test, as if its sender were there.

Messages are doorbells and carry stamps of a moment that is over: a stage refuses them for their age. So all stamps of a
message are moved by the same amount, to now: what lay between them stays, and with speed 1 what lay between messages,
too. `seq` and `epoch` stay: the memory that they speak of must be there. Where the books ring is of another stream,
`restream` puts messages on the one that is there, symbols by their names: for a stage that only looks at the newest
book, as executor does.

An injected prediction may become an order. So nothing is injected into a pipeline that may trade real money, nor beside
the real sender of the link: there is no option for either.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from common.config import Config, told
from common.errors import ConfigError, InstanceError
from common.gateways import is_live
from common.locks import holder
from common.ring import Books
from common.tap_file import Heard
from common.wire import Prediction, TickRef, decode, encode

#: links that can be injected into, and who sends on each. Work and credits carry leases of a life that is over
SENDERS = {"ticks": "ingest", "predictions": "inference"}
RECEIVERS = {"ticks": "feature", "predictions": "executor"}
_STAMPS = {TickRef: ("recv_ns", "book_ns"),
           Prediction: ("recv_ns", "book_ns", "row_ns", "dispatched_ns", "start_ns", "end_ns")}


class Timed(NamedTuple):
    """A message, and when it left its sender, by its own last stamp: taps hear it up to 100 ms later, in heaps."""

    sent_ns: int
    records: list
    offset_ns: int  #: Unix ns less monotonic ns, then


def timed(heard: Iterator[Heard]) -> Iterator[Timed]:
    """Never back in time, whatever the order in which taps of several senders were heard."""
    last = 0
    for one in heard:
        records = decode(one.message)
        last = max(last, *(record[-1] for record in records))  # the last field of both kinds is their last stamp
        yield Timed(last, records, one.note.offset_ns)


def rebase(message: Timed, by_ns: int, unix_by_ns: int, epoch: int | None = None,
           symbols: Sequence[int] | None = None) -> bytes:
    """The message with its stamps moved by `by_ns` and the venue's time by `unix_by_ns`, 0 staying 0; on the stream
    `epoch`, with index `symbols[i]` for i, where these are given."""
    moved = []
    for record in message.records:
        changes = {name: getattr(record, name) + by_ns for name in _STAMPS[type(record)] if getattr(record, name)}
        if type(record) is Prediction and record.event_ns:
            changes["event_ns"] = record.event_ns + unix_by_ns
        if epoch is not None:
            changes["epoch"] = epoch
        if symbols is not None:
            changes["symbol"] = symbols[record.symbol]
        moved.append(record._replace(**changes))
    return encode(moved)


def allow(config: Config, link: str) -> None:
    """Raises ConfigError or InstanceError where nothing may be injected: another link, a pipeline that may trade real
    money, by this configuration or by that which its executor was started with, or one whose real sender runs."""
    if link not in SENDERS:
        raise ConfigError("nothing can be injected into this link", where=link,
                          remedy=f"links that can be: {', '.join(SENDERS)}")
    for one, whose in ((config, "this configuration"),
                       (told(config, "executor"), "what the executor was started with")):
        if is_live(one):
            raise ConfigError("nothing is injected where real money may be at stake",
                              where=f"{whose}: market.live={one.market.live}, executor.gateway={one.executor.gateway}, "
                                    f"executor.base_url={one.executor.base_url}",
                              remedy="use another instance, with executor.gateway = \"paper\" or a loopback venue")
    stage = SENDERS[link]
    for path in sorted(config.run_dir.glob(f"stage.{stage}*.lock")):
        pid = holder(path)
        if pid is not None:
            raise InstanceError(f"the real sender of {link} runs in instance {config.instance.name!r}",
                                where=f"{path.stem.removeprefix('stage.')}, pid {pid}",
                                remedy="stop it, or use an instance without it: what is injected would mix with what "
                                       "it sends")


def places(books: Books, heard: Heard, restream: bool) -> tuple[int | None, list[int] | None]:
    """(epoch, symbols) as `rebase` takes them, for a recording whose first message is `heard`. Raises ConfigError where
    it speaks of another stream than the ring and is not to be put on it, or of a symbol that the ring does not have."""
    epoch = decode(heard.message)[0].epoch
    if epoch == books.tag:
        return None, None
    if not restream:
        raise ConfigError("the recording is of another stream of ticks than the books ring",
                          where=f"epoch {epoch}, here {books.tag}",
                          remedy="keep the ingest running that it was recorded from, or put it on this stream with "
                                 "--restream")
    missing = [name for name in heard.note.symbols if name not in books.symbols]
    if missing:
        raise ConfigError("the recording has symbols that the books ring does not have",
                          where=f"{', '.join(missing)}; here {', '.join(books.symbols)}")
    return books.tag, [books.symbols.index(name) for name in heard.note.symbols]
