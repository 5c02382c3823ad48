"""Faults for the loopback exchange: what is done to what it sends, decided by a seed.

    drop:rate=0.01,symbol=BTC-USD      a fault: its name, then its options; FAULTS tells all of them

A Plan holds the faults of one run. Each connection has a Line of it, which is given every frame before it is sent
and answers with what is sent instead. A line draws from generators of its own, so one seed over the same frames gives
the same faults, whatever other connections do. What was done is told, as Applied, at once and only if it was done.

A fault that changes a frame proves it: the changed frame is decoded by the venue's own rules, and must differ in what
was meant and in nothing else. A frame that cannot be changed so is sent as it is, and counts as not disturbed.

No sockets, clocks or files here; `common.loopback.connections` does what is decided. Cost: the decoding of a frame, and
for a changed one that of some dozen tries.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from common.errors import ConfigError, VenueError
from common.events import Delta, Event, Quote, Snapshot, Trade, Venue


@dataclass(frozen=True)
class Fault:
    """One fault of a plan. Which of the options it has, FAULTS says. It is applied to frame `at` of those that it
    concerns on a connection, to each `every`-th of them, and to each with probability `rate`."""

    name: str
    rate: float = 0.0
    every: int = 0
    at: int = 0
    count: int = 0  #: at most so often in all, over all connections; 0: no limit
    symbol: str = ""  #: only this one; "": any
    what: str = "delta"  #: frames it concerns: one of WHAT
    seconds: float = 0.0
    size: int = 0  #: bytes, or frames
    how: str = ""  #: one of the ways of this fault


class Kind(NamedTuple):
    """What a fault does, its options beside the schedule, and the options it has where nothing is said."""

    text: str
    options: tuple[str, ...]
    usual: dict[str, float | int | str]
    ways: tuple[str, ...] = ()


SCHEDULE = ("rate", "every", "at", "count")
WHAT = {"delta": Delta, "trade": Trade, "quote": Quote, "snapshot": Snapshot, "any": object}

FAULTS = {
    "drop": Kind("a frame is not sent", ("symbol", "what"), {"rate": 0.01}),
    "duplicate": Kind("a frame is sent twice", ("symbol", "what"), {"rate": 0.01}),
    "reorder": Kind("a frame is sent after the next one of its symbol and kind", ("symbol", "what"), {"rate": 0.01}),
    "checksum": Kind("a digit of a quantity, or of the checksum, is changed; the frame stays valid JSON",
                     ("symbol", "what", "how"), {"rate": 0.01, "how": "quantity"}, ("quantity", "checksum")),
    "malformed": Kind("a frame is cut off, or has a byte that is not UTF-8", ("symbol", "what", "how"),
                      {"rate": 0.01, "how": "cut"}, ("cut", "utf8")),
    "oversized": Kind("a frame is filled up with spaces to `size` bytes, by default one above market.max_frame_bytes",
                      ("symbol", "what", "size"), {"at": 100, "count": 1}),
    "clock": Kind("the venue's time in a frame is `seconds` later, or earlier if below 0",
                  ("symbol", "what", "seconds"), {"rate": 0.01, "seconds": 3600.0}),
    "split": Kind("a frame leaves in writes of one byte", ("symbol", "what"), {"rate": 0.05, "what": "any"}),
    "coalesce": Kind("from this frame on, `size` frames are held back and leave in one write",
                     ("symbol", "what", "size"), {"rate": 0.02, "size": 50, "what": "any"}),
    "stalled": Kind("no more market data on this connection, or of `symbol`, until it is subscribed to anew",
                    ("symbol",), {"at": 100, "count": 1}),
    "silent": Kind("no more frames on this connection; pings of WebSocket are answered", (), {"at": 100, "count": 1}),
    "half-open": Kind("nothing on this connection is read or answered any more; TCP stays open", (),
                      {"at": 100, "count": 1}),
    "disconnect": Kind("the connection ends after this frame: without a word, or with a goodbye", ("how",),
                       {"every": 500, "how": "abort"}, ("abort", "close")),
    "storm": Kind("connections end when they are accepted, before a byte is read, or when they are open", ("how",),
                  {"every": 1, "count": 5, "how": "accept"}, ("accept", "open")),
    "http-429": Kind("a request for a snapshot is answered with status 429 and Retry-After: `seconds`",
                     ("symbol", "seconds"), {"every": 1, "count": 1, "seconds": 1.0}),
    "http-503": Kind("a request for a snapshot is answered with status 503", ("symbol",), {"every": 1, "count": 1}),
    "order-cut": Kind("the connection ends before an order is looked at: nothing is done", ("symbol",),
                      {"rate": 0.01}),
    "order-lost": Kind("an order is taken, and the connection ends without an answer", ("symbol",), {"rate": 0.01}),
    "order-slow": Kind("an order is taken, and the answer comes `seconds` late", ("symbol", "seconds"),
                       {"rate": 0.01, "seconds": 3.0}),
    "order-429": Kind("an order is refused with status 429 and Retry-After: `seconds`", ("symbol", "seconds"),
                      {"rate": 0.01, "seconds": 1.0}),
    "order-503": Kind("an order is answered with status 503, whether it was taken or not", ("symbol", "how"),
                      {"rate": 0.01, "how": "taken"}, ("taken", "not-taken")),
    "order-rejected": Kind("an order is accepted, and ended by the exchange before it trades", ("symbol",),
                           {"rate": 0.01}),
    "order-clock": Kind("with this order the venue's own clock jumps by `seconds`, back if below 0: a request that is "
                        "signed as of another time is refused (Binance)", ("symbol", "seconds"),
                        {"at": 10, "count": 1, "seconds": 3600.0}),
    "fill-twice": Kind("a fill is told twice: where it is pushed (Binance's user stream), where it is asked for, "
                       "or both", ("symbol", "how"), {"rate": 0.01, "how": "both"}, ("both", "pushed", "asked")),
    "fill-late": Kind("a fill, and all that is pushed of its order after it, is told `seconds` late; its order says at "
                      "once how much of it is filled", ("symbol", "seconds", "how"),
                      {"rate": 0.01, "seconds": 1.0, "how": "both"}, ("both", "pushed", "asked")),
    "fill-lost": Kind("a fill is not pushed, and told to who asks for it (Binance)", ("symbol",), {"rate": 0.01}),
    "slow": Kind("a snapshot arrives `seconds` late, as it was when it was asked for", ("symbol", "seconds"),
                 {"every": 1, "count": 1, "seconds": 1.0}),
}

_FRAMES = ("drop", "duplicate", "reorder", "checksum", "malformed", "oversized", "clock", "split", "coalesce")
_SESSION = ("stalled", "silent", "half-open", "disconnect")
_ANSWERS = ("http-429", "http-503", "slow")
_ORDERS = ("order-cut", "order-lost", "order-slow", "order-429", "order-503", "order-rejected",
           "order-clock")
_FILLS = ("fill-twice", "fill-late", "fill-lost")
OF_SNAPSHOTS = _ANSWERS  #: of requests for them over HTTP
OF_ORDERS = _ORDERS + _FILLS  #: not of market data


def parse(text: str) -> Fault:
    """`name:key=value,...` as a Fault. Raises ConfigError naming what is wrong and what is known."""
    name, _, rest = text.partition(":")
    if name not in FAULTS:
        raise ConfigError("unknown fault", where=f"fault={name!r}", remedy=f"known: {', '.join(sorted(FAULTS))}")
    kind = FAULTS[name]
    known = (*SCHEDULE, *kind.options)
    given: dict[str, float | int | str] = {}
    for option in filter(None, rest.split(",")):
        key, _, value = option.partition("=")
        where = f"fault={text!r}: {option!r}"
        if key not in known:
            raise ConfigError("unknown option of a fault", where=where, remedy=f"known here: {', '.join(known)}")
        given[key] = _value(key, value, kind, where)
    usual = dict(kind.usual)
    if given.keys() & {"rate", "every", "at"}:  # a schedule of one's own replaces the usual one
        usual = {key: value for key, value in usual.items() if key not in SCHEDULE}
    return Fault(name, **{**usual, **given})  # type: ignore[arg-type]


def _value(key: str, text: str, kind: Kind, where: str) -> float | int | str:
    words = {"what": tuple(WHAT), "how": kind.ways}
    if key == "symbol" and text:
        return text
    if key in words:
        if text in words[key]:
            return text
        raise ConfigError("unknown word in a fault", where=where, remedy=f"use one of {', '.join(words[key])}")
    try:
        value = float(text) if key in ("rate", "seconds") else int(text)
    except ValueError:
        value = -1.0
        key = ""
    if key == "rate" and 0 < value <= 1 or key in ("every", "at", "count", "size") and value > 0 or (
            key == "seconds" and abs(value) <= 1e6):
        return value
    raise ConfigError("a number of a fault is out of range", where=where,
                      remedy="rate: above 0, at most 1; every, at, count, size: 1 or more; seconds: up to a million")


def explained() -> str:
    """FAULTS for people, one after the other."""
    lines = []
    for name, kind in FAULTS.items():
        usual = ",".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
                         for key, value in kind.usual.items())
        more = [f"{option}={'|'.join(kind.ways)}" if option == "how" else option for option in kind.options]
        lines += [f"{name}:{usual}", f"    {kind.text}", *([f"    options: {', '.join(more)}"] if more else [])]
    return "\n".join([*lines, "", "all: rate (probability), every (each so many), at (the so-manieth of a connection),",
                      f"    count (at most so often in all); what: {'|'.join(WHAT)}"])


class Applied(NamedTuple):
    """A fault was applied."""

    fault: str
    connection: int  #: number of the WebSocket connection, from 1; 0 where it is none
    frame: int  #: number of the frame among those meant for this connection, from 1; of a request among requests
    symbol: str  #: "" where it concerns none
    detail: str


class Outcome(NamedTuple):
    """What is to be sent instead of a frame."""

    frames: Sequence[bytes]
    split: bool = False  #: in writes of one byte
    hold: int = 0  #: above 0: nothing leaves before so many frames wait
    end: str = ""  #: then the connection ends: "abort", or "close" with a goodbye


class Answer(NamedTuple):
    """What is to become of a request for a snapshot: `status` 0 is the ordinary answer, late by `delay_s`."""

    status: int
    retry_after_s: float
    delay_s: float


class Plan:
    """The faults of one run. `told` is called with each that is applied; `max_frame` is what a client takes."""

    def __init__(self, faults: Sequence[Fault], seed: int = 1, told: Callable[[Applied], None] = lambda applied: None,
                 max_frame: int = 4 * 2**20) -> None:
        self.faults, self.seed, self.max_frame = tuple(faults), seed, max_frame
        self.counts = {fault.name: 0 for fault in faults}
        self._told = told
        self._left = [fault.count or -1 for fault in faults]  # how often each may still be applied; below 0: no limit
        self._lines = 0
        self._requests = 0
        self._orders = self._fills = 0
        self._accepts = self._schedules(0, ("storm",))
        self._answers = self._schedules(0, _ANSWERS)
        self._of_orders, self._of_fills = self._schedules(0, _ORDERS), self._schedules(0, _FILLS)

    def line(self, venue: Venue) -> Line:
        """For a connection that has opened; `venue` is an object of its own."""
        self._lines += 1
        return Line(self, self._lines, venue)

    def accepts(self, how: str) -> bool:
        """Whether a connection may go on: asked with "accept" when TCP stands, with "open" after the handshake."""
        for schedule in self._accepts:
            if schedule.fault.how == how and schedule.due():
                self.note(schedule, 0 if how == "accept" else self._lines, 0, "", how)
                return False
        return True

    def snapshot(self, symbol: str) -> Answer | None:
        """For a request for the snapshot of `symbol`; None: nothing happens to it."""
        self._requests += 1
        for schedule in self._answers:
            fault = schedule.fault
            if fault.symbol in ("", symbol) and schedule.due():
                self.note(schedule, 0, self._requests, symbol, f"{fault.seconds:g} s" if fault.seconds else "")
                status = int(fault.name[5:]) if fault.name != "slow" else 0
                return Answer(status, fault.seconds if status == 429 else 0.0, 0.0 if status else fault.seconds)
        return None

    def order(self, symbol: str) -> Fault | None:
        """What befalls a request to place an order; the first of those that are due."""
        self._orders += 1
        return self._first(self._of_orders, self._orders, symbol)

    def fill(self, symbol: str) -> Fault | None:
        """What befalls the news of a fill."""
        self._fills += 1
        return self._first(self._of_fills, self._fills, symbol)

    def _first(self, schedules: Sequence[_Schedule], number: int, symbol: str) -> Fault | None:
        due = [schedule for schedule in schedules if schedule.fault.symbol in ("", symbol) and schedule.due()]
        if not due:
            return None
        self.note(due[0], 0, number, symbol, due[0].fault.how)
        return due[0].fault

    def note(self, schedule: _Schedule, connection: int, frame: int, symbol: str, detail: str) -> None:
        """It has been applied."""
        name = schedule.fault.name
        self.counts[name] += 1
        self._left[schedule.index] -= self._left[schedule.index] > 0
        self._told(Applied(name, connection, frame, symbol, detail))

    def spent(self, index: int) -> bool:
        return self._left[index] == 0

    def _schedules(self, connection: int, names: Sequence[str]) -> list[_Schedule]:
        return [_Schedule(self, index, fault, connection) for index, fault in enumerate(self.faults)
                if fault.name in names]


class _Schedule:
    """When one fault is due on one connection."""

    def __init__(self, plan: Plan, index: int, fault: Fault, connection: int) -> None:
        self._plan, self.index, self.fault = plan, index, fault
        self.random = random.Random(f"{plan.seed}/{connection}/{index}/{fault.name}")
        self._seen = 0

    def due(self) -> bool:
        """Whether it is applied to this one of those that it concerns. Draws in any case: what is applied to one
        frame changes nothing for the next."""
        self._seen += 1
        fault = self.fault
        drawn = self.random.random() < fault.rate
        return (drawn or self._seen == fault.at or bool(fault.every and self._seen % fault.every == 0)) and (
            not self._plan.spent(self.index))


class Line:
    """One connection's share of a plan."""

    def __init__(self, plan: Plan, number: int, venue: Venue) -> None:
        self.number = number
        self.deaf = False  #: nothing that comes is read
        self._plan, self._venue = plan, venue
        self._schedules = plan._schedules(number, (*_FRAMES, *_SESSION))
        self._changes = any(schedule.fault.name in _CHANGES for schedule in self._schedules)
        self._frames = 0
        self._silent = False
        self._stalled: set[str] = set()  # symbols
        self._held: list[tuple[Fault, bytes]] = []  # frames that wait for the next one of their symbol and kind
        self._ended = False
        venue.begin()

    def frame(self, message: bytes) -> Outcome:
        """What is sent instead of `message`."""
        if self._ended:
            return Outcome(())
        self._frames += 1
        before = _twin(self._venue) if self._changes else self._venue
        try:
            events = [_kept(event) for event in self._venue.decode(message)]
        except VenueError:
            events = []
        concerned = {self._venue.symbols[event.symbol] for event in events if isinstance(event, _DATA)}
        change = _Change(message, events, before)
        split, hold, end = False, 0, ""
        out: list[bytes] = [message]
        released = [held for fault, held in self._held if _concerns(fault, events, concerned)]
        self._held = [(fault, held) for fault, held in self._held if not _concerns(fault, events, concerned)]
        for schedule in self._schedules:
            fault = schedule.fault
            if not _concerns(fault, events, concerned) or not schedule.due():
                continue
            detail: str | None = ""
            if fault.name == "drop":
                out = []
            elif fault.name == "duplicate":
                out = out * 2
            elif fault.name == "reorder":
                after = replace(fault, symbol=fault.symbol or min(concerned, default=""))
                self._held += [(after, sent) for sent in out]
                out = []
            elif fault.name in _CHANGES:
                changed, detail = _CHANGES[fault.name](change, fault, schedule.random, self._plan.max_frame)
                out = [changed if sent is message else sent for sent in out]
            elif fault.name == "split":
                split = True
            elif fault.name == "coalesce":
                hold = fault.size
            elif fault.name == "disconnect":
                end = detail = fault.how
                self._ended = True
            elif fault.name == "stalled":
                self._stalled |= {fault.symbol} if fault.symbol else set(self._venue.symbols)
            else:
                self._silent, self.deaf = True, self.deaf or fault.name == "half-open"
            if detail is not None:
                symbol = fault.symbol or (min(concerned) if concerned and fault.name in _FRAMES else "")
                self._plan.note(schedule, self.number, self._frames, symbol, detail)
        out += released
        if any(isinstance(event, Snapshot) for event in events):  # it has been asked for again
            self._stalled -= concerned
        if self._silent or concerned & self._stalled:
            out = []
        return Outcome(out, split, hold, end)


_TIMED = (Delta, Snapshot, Trade)
_DATA = (*_TIMED, Quote)


def _concerns(fault: Fault, events: Sequence[Event], concerned: set[str]) -> bool:
    if fault.name in ("silent", "half-open", "disconnect"):
        return True
    if fault.symbol and fault.symbol not in concerned:
        return False
    if fault.name == "stalled" or fault.what == "any":
        return True
    return any(isinstance(event, WHAT[fault.what]) for event in events)


# Changes of a frame. Each returns the frame and what was done to it, or the frame as it was and None.

_NUMBER = re.compile(rb"\d+(?:\.\d+)?")
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|\d{9,}(?:\.\d+)?")
_TRIES = 64  #: numbers of a frame that are tried
_NEAR_NS = 60 * 10**9  #: a number this near to the event's time is a time


class _Change:
    """A frame that may be changed: its text, its meaning, and the venue as it was before it."""

    def __init__(self, message: bytes, events: list[Event], venue: Venue) -> None:
        self.message, self.events, self._venue = message, events, venue

    def meaning(self, message: bytes) -> list[Event] | None:
        """That of another frame in this one's place; None if it is refused."""
        try:
            return [_kept(event) for event in _twin(self._venue).decode(message)]
        except VenueError:
            return None


def _wrong(change: _Change, fault: Fault, dice: random.Random, _: int) -> tuple[bytes, str | None]:
    """Another digit in one quantity, which is above 0 before and after, or in the checksum."""
    message = change.message
    differs = _one_quantity if fault.how == "quantity" else _only_checksum
    found = list(_NUMBER.finditer(message))
    dice.shuffle(found)
    for number in found[:_TRIES]:
        at = number.end() - 1
        digit = dice.choice([digit for digit in b"123456789" if digit != message[at]])
        changed = message[:at] + bytes([digit]) + message[at + 1:]
        meaning = change.meaning(changed)
        if meaning is not None and len(meaning) == len(change.events) and differs(change.events, meaning):
            return changed, f"{number[0].decode()} is {changed[number.start():number.end()].decode()}"
    return message, None


def _one_quantity(old: Sequence[Event], new: Sequence[Event]) -> bool:
    """Whether one quantity differs, and nothing else."""
    count = 0
    for one, other in zip(old, new):
        if isinstance(one, (Delta, Snapshot)) and type(other) is type(one) and one.levels.shape == other.levels.shape:
            places = (one.levels != other.levels).nonzero()
            count += len(places[0])
            if places[1].any() and one.levels[places].min() > 0 and _equal(one, other._replace(levels=one.levels)):
                continue
        if not _equal(one, other):
            return False
    return count == 1


def _only_checksum(old: Sequence[Event], new: Sequence[Event]) -> bool:
    other = [event._replace(checksum=before.checksum) if isinstance(event, (Delta, Snapshot)) and isinstance(
        before, (Delta, Snapshot)) else event for before, event in zip(old, new)]
    return all(map(_equal, old, other)) and not all(map(_equal, old, new))


def _malformed(change: _Change, fault: Fault, dice: random.Random, _: int) -> tuple[bytes, str | None]:
    message = change.message
    for _ in range(_TRIES):
        at = dice.randrange(1, max(len(message), 2))
        changed = message[:at] if fault.how == "cut" else message[:at] + b"\xff" + message[at + 1:]
        if change.meaning(changed) is None:
            return changed, f"{fault.how} at byte {at}"
    return message, None


def _oversized(change: _Change, fault: Fault, _: random.Random, max_frame: int) -> tuple[bytes, str | None]:
    size = fault.size or max_frame + 1
    return change.message.ljust(size), f"{size} bytes"


def _clock(change: _Change, fault: Fault, _: random.Random, __: int) -> tuple[bytes, str | None]:
    """All times near to that of the event, moved; the event's own must be among them. Numbers that only look like a
    time stay: then one alone is moved."""
    message, moved = change.message, int(fault.seconds * 10**9)
    times = [event.event_ns for event in change.events if isinstance(event, _TIMED) and event.event_ns]
    if not times:
        return message, None
    expected = [event._replace(event_ns=event.event_ns + moved) if isinstance(event, _TIMED) and event.event_ns
                else event for event in change.events]
    places = [(found.span(), later) for found in _TIME.finditer(message)
              if (later := _later(found[0], times[0], moved)) is not None]
    for chosen in (places, *([place] for place in places)):
        changed = message
        for (start, end), later in reversed(chosen):
            changed = changed[:start] + later + changed[end:]
        meaning = change.meaning(changed)
        if meaning is not None and len(meaning) == len(expected) and all(map(_equal, expected, meaning)):
            return changed, f"{fault.seconds:g} s"
    return message, None


def _later(text: bytes, near_ns: int, moved: int) -> bytes | None:
    """A time, RFC 3339 to the second or Unix in s, ms, us or ns, later by `moved` ns; None if it is not near."""
    if b"T" in text:
        time = datetime.fromisoformat(text.decode() + "+00:00")
        if abs(int(time.timestamp()) * 10**9 - near_ns) >= _NEAR_NS:
            return None
        return (time + timedelta(microseconds=moved // 1000)).strftime("%Y-%m-%dT%H:%M:%S").encode()
    whole, point, part = text.partition(b".")
    for unit in (10**9, 10**6, 10**3, 1):
        if abs(int(whole) * unit - near_ns) < _NEAR_NS and moved % unit == 0:
            return b"%d" % (int(whole) + moved // unit) + point + part
    return None


_CHANGES = {"checksum": _wrong, "malformed": _malformed, "oversized": _oversized, "clock": _clock}


def _kept(event: Event) -> Event:
    """An event whose levels nobody overwrites."""
    if isinstance(event, (Delta, Snapshot)):
        return event._replace(levels=event.levels[:event.n_bids + event.n_asks].copy())
    return event


def _equal(one: Event, other: Event) -> bool:
    if isinstance(one, (Delta, Snapshot)):
        return type(one) is type(other) and one.levels.tolist() == other.levels.tolist() and (
            one._replace(levels=0) == other._replace(levels=0))
    return one == other


def _twin(venue: Venue) -> Venue:
    """`venue` as it stands, to try something on: numbers and containers of its own, the same scratch memory."""
    twin = copy.copy(venue)
    inside = {id(venue): twin}
    inside |= {id(value): value for value in vars(venue).values() if not isinstance(value, (dict, list, set))}
    for name, value in vars(venue).items():
        if isinstance(value, (dict, list, set)):
            setattr(twin, name, copy.deepcopy(value, inside))
    return twin
