"""Binance as it was recorded: the server's side of the protocol that `common.venues.binance` speaks as a client.

    /stream?streams=a/b/c                the recorded frames of those streams, byte for byte
    /fapi/v1/depth, /api/v3/depth        the recorded snapshot; later, the book as of the frame just played

A playback begins with the first subscriber and is one for all: who comes later joins in the middle, as at a
venue. At speed 0 the clients set the pace: it goes on as long as none of them has anything left to read. What
is served then has been framed beforehand, as far as it fits into PREPARED bytes.

Cost at speed 0: about 10 us a frame to prepare, 2 us to serve.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Iterator, NamedTuple
from urllib.parse import parse_qs

import orjson

from common import captures, faults
from common.config import Config
from common.errors import AlphaError
from common.loopback import no_orders
from common.loopback.connections import Client, HttpCall, Mode, framed

DEPTH_PATHS = ("/fapi/v1/depth", "/dapi/v1/depth", "/api/v3/depth")
CHUNK = 1 << 16  #: bytes that are served as one where the clients set the pace
PREPARED = 1 << 28  #: bytes that may be framed before they are served
TURN_S = 0.005  #: longest work between two looks at the sockets
LATE_S = 1.0  #: a playback that has fallen behind by more goes on from now, and does not rush
LONGEST_PAUSE_S = 10.0  #: a longer silence in a recording is played as this
HOLD_S = 1.0  #: how long a playback at the clients' pace waits for the snapshot to be asked for

log = logging.getLogger("exchange")


class Line(NamedTuple):
    """A line of a recording. `channel` is empty for a depth snapshot of `symbol`."""

    recv_ns: int
    symbol: str
    channel: str
    frame: bytes


@dataclass(slots=True)
class Chunk:
    """Lines that are played together. A snapshot ends a chunk."""

    recv_ns: int  #: of the first
    channels: list[str] = field(default_factory=list)  #: of each frame
    frames: list[bytes] = field(default_factory=list)  #: framed
    depth: list[tuple[str, bytes]] = field(default_factory=list)  #: symbol and frame of each depth update
    snapshot: tuple[str, bytes] | None = None  #: symbol and body
    size: int = 0  #: bytes of all frames


class Depth:
    """The depth endpoint of one symbol: who waits for an answer, and whether the recorded one was given."""

    def __init__(self) -> None:
        self.book = captures.RecordedDepth()
        self.waiting: list[tuple[HttpCall, int]] = []
        self.given = False


class Playback(Mode):
    """`Client.channels` here: channel -> (stream as it was asked for, lines played before). Each stream comes at
    the update speed that was recorded, whichever was asked for."""

    name = "capture"
    without = faults.OF_ORDERS

    def __init__(self, config: Config, loop: Any, telemetry: Any) -> None:
        super().__init__(loop, telemetry)
        self._paths = [str(config.path(name)) for name in config.exchange.captures]
        self.venue, self.symbols = captures.describe(self._paths)
        self._speed = config.exchange.speed
        self._source = self._chunks(1 if self._speed else CHUNK)
        self._prepared: deque[Chunk] = deque()
        self._prepared_bytes = 0
        self._depths = {symbol: Depth() for symbol in self.symbols}
        self._next: Chunk | None = None
        self._due = self._held_until = 0.0
        self._played = 0
        self._started = self._finished = False
        self._error = ""
        self._timer: Any = None

    def begin(self) -> None:
        if not self._speed:
            self._prepare()

    def status(self) -> dict[str, Any]:
        return super().status() | {
            "venue": self.venue, "symbols": self.symbols, "files": self._paths, "speed": self._speed,
            "played": self._played, "finished": self._finished, "error": self._error,
            "snapshots_waiting": [symbol for symbol, depth in self._depths.items() if depth.waiting]}

    # The clients.

    def socket_path(self, path: str) -> bool:
        return path == "/stream"

    def opened(self, client: Client, query: str) -> None:
        super().opened(client, query)
        for streams in parse_qs(query).get("streams", ()):
            self._subscribe(client, streams.split("/"))

    def closed(self, client: Client) -> None:
        super().closed(client)
        self._schedule()  # the others need not wait for it any more

    def writable(self, client: Client) -> None:
        self._schedule()

    def message(self, client: Client, text: bytes) -> None:
        number = result = None
        try:
            asked = orjson.loads(text)
            number = asked.get("id")
            method, streams = asked["method"], asked.get("params", [])
            if method == "SUBSCRIBE":
                self._subscribe(client, streams)
            elif method == "UNSUBSCRIBE":
                for stream in streams:
                    client.channels.pop(_channel(stream), None)
            elif method == "LIST_SUBSCRIPTIONS":
                result = [stream for stream, _ in client.channels.values()]
            else:
                raise ValueError(f"unknown method {method!r}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.send(client, {"error": {"code": 2, "msg": f"Invalid request: {error!r}"}, "id": number})
        else:
            self.send(client, {"result": result, "id": number})

    def _subscribe(self, client: Client, streams: Iterable[str]) -> None:
        for stream in streams:
            client.channels.setdefault(_channel(stream), (stream, self._played))
        if client.channels and not self._started:
            self._started = True
            self._due = self.loop.time()
            self._load()
        self._schedule()

    # The playback.

    def _schedule(self) -> None:
        """The next turn, unless it is planned, or the clients set the pace and one of them is not ready."""
        if self._timer is None and self._next is not None and (self._speed or self._ready()):
            self._timer = self.later(self._due if self._speed else self._held_until, self._turn)

    def _ready(self) -> bool:
        listening = [client for client in self.clients if client.channels]
        return bool(listening) and not any(client.paused for client in listening)

    def _turn(self) -> None:
        """Every line that is due; at the clients' pace, until one of them has enough."""
        self._timer = None
        now = self.loop.time()
        if self._speed and now - self._due > LATE_S:
            self._due = now
        while self._next is not None and self.loop.time() - now < TURN_S:
            if (self._due > now) if self._speed else (self._held_until > now or not self._ready()):
                break
            self._play(self._next)
            self._load()
            if not self._speed:
                self.flush()  # tells who is paused
        self.flush()
        self._schedule()

    def _play(self, chunk: Chunk) -> None:
        """Sends a chunk to those who asked for its streams, and keeps what the depth endpoint needs."""
        self._played += len(chunk.frames) + (chunk.snapshot is not None)
        channels = set(chunk.channels)
        for client in self.clients:
            if channels <= client.channels.keys():
                self.send_framed((client,), b"".join(chunk.frames), len(chunk.frames))
            else:
                wanted = [frame for channel, frame in zip(chunk.channels, chunk.frames) if channel in client.channels]
                self.send_framed((client,), b"".join(wanted), len(wanted))
        for symbol, frame in chunk.depth:
            self._depths[symbol].book.frame(frame)
        for symbol in {symbol for symbol, _ in chunk.depth}:
            self._answer(symbol, moved=True)
        if chunk.snapshot is not None:
            symbol, frame = chunk.snapshot
            depth = self._depths[symbol]
            depth.book.snapshot(frame)
            # At the clients' pace, all of a recording could be on its way before their request is: wait for it.
            if not depth.given and not self._speed:
                self._held_until = self.loop.time() + HOLD_S
            self._answer(symbol, moved=False)

    def _load(self) -> None:
        """The next chunk, and when it is due."""
        before = self._next
        if self._prepared:
            self._next = self._prepared.popleft()
            self._prepared_bytes -= self._next.size
        else:
            self._next = next(self._source, None)
        if self._next is None:
            self._finished = True
            log.info("played to the end: %d lines", self._played)
            for symbol in self._depths:
                self._answer(symbol, moved=True)
        elif before is not None and self._speed:
            pause = (self._next.recv_ns - before.recv_ns) / 1e9
            self._due += min(max(pause, 0.0), LONGEST_PAUSE_S) / self._speed

    def _prepare(self) -> None:
        """Frames what will be served, a few milliseconds at a time, until the recording or the room ends."""
        start = self.loop.time()
        while self._prepared_bytes < PREPARED and self.loop.time() - start < TURN_S:
            chunk = next(self._source, None)
            if chunk is None:
                return
            self._prepared.append(chunk)
            self._prepared_bytes += chunk.size
        if self._prepared_bytes < PREPARED:
            self.later(0.0, self._prepare)

    def _chunks(self, most: int) -> Iterator[Chunk]:
        """The recordings in chunks of up to `most` bytes, but at least one line. Ends early where a file does."""
        chunk = None
        try:
            for recv_ns, symbol, channel, frame in captures.merge([_lines(path) for path in self._paths]):
                chunk = chunk or Chunk(recv_ns)
                if channel:
                    chunk.channels.append(channel)
                    chunk.frames.append(framed(frame))
                    chunk.size += len(frame)
                    if channel.endswith("@depth") and symbol in self._depths:
                        chunk.depth.append((symbol, frame))
                elif symbol in self._depths:
                    chunk.snapshot = symbol, frame
                if chunk.snapshot or chunk.size >= most:
                    yield chunk
                    chunk = None
        except AlphaError as error:
            self._error = str(error)
            log.error("the recording ends early: %s", error)
        if chunk is not None:
            yield chunk

    # The depth endpoint.

    def http(self, call: HttpCall) -> None:
        if no_orders.answered(call):
            return
        if call.path not in DEPTH_PATHS:
            call.refuse(404, "NOT_FOUND", f"nothing at {call.path}")
        elif call.method != "GET":
            call.refuse(405, "METHOD_NOT_ALLOWED", f"no {call.method} here", ("Allow", "GET"))
        elif "symbol" not in call.query:
            call.answer(400, {"code": -1102, "msg": "Mandatory parameter 'symbol' was not sent."})
        elif call.query["symbol"] not in self._depths:
            call.answer(400, {"code": -1121, "msg": f"Invalid symbol: recorded are {', '.join(self.symbols)}."})
        elif not re.fullmatch("[1-9][0-9]{0,3}", limit := call.query.get("limit", "500")):
            call.answer(400, {"code": -1130, "msg": "Data sent for parameter 'limit' is not valid."})
        elif not self.hindered(call, call.query["symbol"]):
            self._depths[call.query["symbol"]].waiting.append((call, int(limit)))
            self._answer(call.query["symbol"], moved=self._finished)

    def _answer(self, symbol: str, moved: bool) -> None:
        """Answers those who wait for a snapshot of `symbol`, if it can be. `moved`: a depth frame was just played.

        Who has listened from the beginning gets the recorded one, once. Everybody else gets the book as of the
        frame that was just played: they have that frame, so the snapshot joins what they received."""
        depth = self._depths[symbol]
        if not depth.waiting:
            return
        if depth.book.recorded is None:
            if self._finished:
                self._reply(depth, lambda limit: (400, {"code": -1000, "msg": "The recording holds no snapshot."}))
            return
        channel = f"{symbol.lower()}@depth"
        joined_late = any(client.channels[channel][1] for client in self.clients if channel in client.channels)
        recorded = not depth.given and not joined_late
        if recorded or moved:
            depth.given = True
            self._reply(depth, lambda limit: (200, depth.book.answer(limit, recorded)))
            if self._held_until:
                self._held_until = 0.0
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                self._schedule()

    @staticmethod
    def _reply(depth: Depth, content: Callable[[int], tuple[int, Any]]) -> None:
        waiting, depth.waiting = depth.waiting, []
        for call, limit in waiting:
            call.answer(*content(limit))


def _channel(stream: str) -> str:
    """`BTCUSDT@depth@100ms` -> `btcusdt@depth`: what identifies a stream of a recording."""
    name, _, kind = stream.partition("@")
    return f"{name.lower()}@{kind.partition('@')[0]}"


def _lines(path: str) -> Iterator[Line]:
    """The lines of one file. A snapshot does not name its symbol: it is that of the streams of its file."""
    symbol = ""
    early: list[tuple[int, bytes]] = []
    channels: dict[bytes, tuple[str, str]] = {}
    for recv_ns, frame in captures.lines(path, log.warning):
        if captures.is_snapshot(frame):
            if symbol:
                yield Line(recv_ns, symbol, "", frame)
            else:
                early.append((recv_ns, frame))
            continue
        name = frame[11:frame.find(b'"', 11)] if frame.startswith(b'{"stream":"') else b""
        if name not in channels:
            channel = _channel(name.decode("ascii", "replace"))
            channels[name] = channel.partition("@")[0].upper(), channel
        symbol, channel = channels[name]
        for early_ns, snapshot in early:
            yield Line(early_ns, symbol, "", snapshot)
        early.clear()
        yield Line(recv_ns, symbol, channel, frame)
