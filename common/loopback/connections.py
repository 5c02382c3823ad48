"""One port for WebSocket and HTTP: what the loopback exchange says goes through here.

`Connection` is one TCP connection. It looks at the head of the first request and hands the bytes to a `Client`
(websockets' Sans-I/O protocol) or an `HttpServer` (h11's). What is said is decided by a `Mode`, which is given
the event loop. A message is framed once and leaves as the same bytes to everybody; a client that does not read
is dropped.

Where a mode has been given a plan of faults (common.faults), each frame goes through the client's own line of it, and
what that decides is done here: whatever the mode says is disturbed in the same way.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from http import HTTPStatus
from typing import Any, Callable, Iterable, Iterator, Sequence
from urllib.parse import parse_qs

import h11
import orjson
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.protocol import State
from websockets.server import ServerProtocol

from common.events import Venue
from common.faults import Fault, Line, Outcome, Plan

MAX_HEAD = 16 * 1024  #: bytes of a request's head
MAX_BODY = 64 * 1024  #: bytes of a request's body, or of a client's message
MAX_BACKLOG = 8 * 2**20  #: bytes that wait for a client; one that lets more pile up is dropped
HIGH_WATER = 1 << 18  #: bytes that wait for a client before it counts as not ready
HELD_S = 0.25  #: longest time that a fault holds frames back
PIECES = 16  #: writes of single bytes in one turn of the loop

log = logging.getLogger("exchange")


class Mode:
    """What the exchange says. Frames are collected per client and leave in one write per turn (`flush`).

    `loop` is an event loop as asyncio has it; `telemetry` counts, see `Telemetry.add` and `set`."""

    name: str
    venue: str  #: whose protocol it speaks
    symbols: Sequence[str]
    without: Sequence[str] = ()  #: faults of what it does not do

    def __init__(self, loop: Any, telemetry: Any) -> None:
        self.loop, self.telemetry = loop, telemetry
        self.failed = loop.create_future()  #: gets the exception that ends the exchange
        self.connections: set[Connection] = set()
        self.clients: set[Client] = set()
        self.plan: Plan | None = None
        self._venue: Callable[[], Venue]
        self._unsent: set[Client] = set()
        self._sent = 0  # frames since the last flush

    # What the two modes fill in.

    def begin(self) -> None:
        """The port is open."""

    def end(self) -> None:
        """The port is closed."""

    def socket_path(self, path: str) -> bool:
        """Whether a WebSocket is served at `path`."""
        raise NotImplementedError

    def opened(self, client: Client, query: str) -> None:
        self.clients.add(client)
        self.telemetry.set("clients", len(self.clients))

    def message(self, client: Client, text: bytes) -> None:
        raise NotImplementedError

    def writable(self, client: Client) -> None:
        """What had piled up for `client` has been read."""

    def http(self, call: HttpCall) -> None:
        """Answers `call`, now or later."""
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        faults = {"faults": self.plan.counts} if self.plan is not None else {}
        return {"mode": self.name, "clients": len(self.clients), **faults}

    # What they share.

    def disturb(self, plan: Plan, venue: Callable[[], Venue]) -> None:
        """Apply the faults of `plan` from now on; `venue` makes an object that understands what is sent."""
        self.plan, self._venue = plan, venue

    def line(self) -> Line | None:
        """The faults of one more connection."""
        return self.plan.line(self._venue()) if self.plan is not None else None

    def hindered(self, call: HttpCall, symbol: str) -> bool:
        """Whether a fault has answered this request for the snapshot of `symbol`; one that makes it late lets it
        pass."""
        answer = self.plan.snapshot(symbol) if self.plan is not None else None
        if answer is None:
            return False
        call.delay_s = answer.delay_s
        if answer.status:
            wait = [("Retry-After", f"{answer.retry_after_s:.0f}")] if answer.retry_after_s else []
            call.refuse(answer.status, "FAULT", "refused by a fault that was asked for", *wait)
        return answer.status > 0

    def beset(self, call: HttpCall, symbol: str) -> Fault | None:
        """The fault that befalls this request for an order, if any. One that only concerns the answer is dealt with
        here; what is to be done instead of the order is left to the caller."""
        fault = self.plan.order(symbol) if self.plan is not None else None
        if fault is None:
            return None
        if fault.name == "order-slow":
            call.delay_s = fault.seconds
        call.lost = fault.name == "order-lost"
        if fault.name == "order-cut":
            call.hang_up()
        return fault

    def closed(self, client: Client) -> None:
        self.clients.discard(client)
        self._unsent.discard(client)
        self.telemetry.set("clients", len(self.clients))

    def later(self, when: float, call: Callable[[], None]) -> Any:
        """`call` at loop time `when`; returns the timer. An error in it ends the exchange: a market that stands
        still without a word would be worse."""
        return self.loop.call_at(when, self._guarded, call)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            if not self.failed.done():
                self.failed.set_exception(error)

    def send(self, client: Client, message: dict | bytes) -> None:
        self.send_framed((client,), framed(message if isinstance(message, bytes) else orjson.dumps(message)))

    def send_framed(self, clients: Iterable[Client], frames: bytes, count: int = 1) -> None:
        """`frames` holds `count` frames, one after the other."""
        for client in clients:
            if client.line is None:
                client.out.append(frames)
            else:
                for message in unframed(frames):
                    client.take(client.line.frame(message))
            self._unsent.add(client)
            self._sent += count

    def flush(self) -> None:
        for client in self._unsent:
            client.write()
        self._unsent.clear()
        if self._sent:
            self.telemetry.add("frames", self._sent)
            self._sent = 0


def framed(message: bytes) -> bytes:
    """`message` as one text frame of a server. Cost: about 2 us."""
    return Frame(Opcode.TEXT, message).serialize(mask=False)


def unframed(frames: bytes) -> Iterator[bytes]:
    """The messages that `framed` made frames of, which stand here one after the other."""
    at = 0
    while at < len(frames):
        size, start = frames[at + 1], at + 2
        if size > 125:
            start += 2 if size == 126 else 8
            size = int.from_bytes(frames[at + 2:start], "big")
        at = start + size
        yield frames[start:at]


class Connection:
    """One TCP connection, with the methods of an asyncio protocol; its first request makes it a WebSocket or an
    HTTP connection."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._head = b""
        self._speaker: Client | HttpServer | None = None
        self.transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        self._mode.connections.add(self)
        if self._mode.plan is not None and not self._mode.plan.accepts("accept"):
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._speaker is None:
            self._head += data
            head, found, _ = self._head.partition(b"\r\n\r\n")
            if not found and len(head) <= MAX_HEAD:
                return
            kind = Client if re.search(rb"\r\nupgrade:\s*websocket", head.lower()) else HttpServer
            self._speaker = kind(self._mode, self.transport)
            data, self._head = self._head, b""
        self._speaker.received(data)
        self._mode.flush()

    def eof_received(self) -> None:
        """A client that says no more has gone: the transport closes."""

    def connection_lost(self, error: Exception | None) -> None:
        self._mode.connections.discard(self)
        if self._speaker is not None:
            self._speaker.lost()

    def pause_writing(self) -> None:
        if isinstance(self._speaker, Client):
            self._speaker.paused = True

    def resume_writing(self) -> None:
        if isinstance(self._speaker, Client):
            self._speaker.paused = False
            self._mode.writable(self._speaker)

    def shut(self) -> None:
        """The exchange ends: say so and close."""
        if isinstance(self._speaker, Client):
            self._speaker.say_goodbye()
        self.transport.close()


class Client:
    """A WebSocket connection. `channels` are those it has subscribed to, with what the mode notes of each."""

    def __init__(self, mode: Mode, transport: Any) -> None:
        self._mode, self._transport = mode, transport
        self._protocol = ServerProtocol(max_size=MAX_BODY)
        self._parts: list[bytes] = []  # of a message that comes in fragments
        self.out: list[bytes] = []
        self.paused = False
        self.line: Line | None = None
        self._hold = 0  # frames that wait before any leaves
        self._bytewise = False  # what waits leaves piece by piece
        self._pieces: deque[bytes] = deque()  # each a write in a turn of its own
        self.channels: dict[str, Any] = {}
        self.path = ""  #: that it asked for
        self.name = "{}:{}".format(*transport.get_extra_info("peername")[:2])

    def received(self, data: bytes) -> None:
        if self.line is not None and self.line.deaf:
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Handshake):
                self._shake_hands(event)
            elif event.opcode is Opcode.BINARY:
                self._protocol.fail(1003, "text only")
            elif event.opcode in (Opcode.TEXT, Opcode.CONT):
                self._parts.append(bytes(event.data))
                if event.fin:
                    text, self._parts = b"".join(self._parts), []
                    self._mode.message(self, text)
        self._write_protocol()

    def _shake_hands(self, request: Handshake) -> None:
        path, _, query = request.path.partition("?")
        if not self._mode.socket_path(path):
            self._protocol.send_response(self._protocol.reject(404, f"no WebSocket at {path}\n"))
            return
        self._protocol.send_response(self._protocol.accept(request))
        self.path = path
        self._write_protocol()
        if self._protocol.state is State.OPEN:
            log.info("client %s connected", self.name)
            self.line = self._mode.line()
            if self._mode.plan is not None and not self._mode.plan.accepts("open"):
                self._transport.abort()
                return
            self._mode.opened(self, query)

    def _write_protocol(self) -> None:
        """What WebSocket itself has to say: the handshake, pongs, the end."""
        for data in self._protocol.data_to_send():
            if data:
                self._put(data)
            else:
                self._transport.close()
                self._leave()

    def take(self, outcome: Outcome) -> None:
        """What a line of faults has made of a frame is to be sent."""
        for frame in map(framed, outcome.frames):
            self.out += [frame[i:i + 1] for i in range(len(frame))] if outcome.split else [frame]
        self._bytewise |= outcome.split
        if outcome.hold:
            self._hold = outcome.hold
            self._mode.later(self._mode.loop.time() + HELD_S, self._let_go)
        if outcome.end:
            self._let_go()
            self._mode.later(0.0, self.say_goodbye if outcome.end == "close" else self._transport.abort)

    def _let_go(self) -> None:
        self._hold = 0
        self.write()

    def _put(self, data: bytes) -> None:
        if self._pieces:
            self._pieces.append(data)
        else:
            self._transport.write(data)

    def _put_pieces(self) -> None:
        """A few writes, and the next in the next turn of the loop."""
        for _ in range(min(PIECES, len(self._pieces))):
            self._transport.write(self._pieces.popleft())
        if self._pieces and not self._transport.is_closing():
            self._mode.later(0.0, self._put_pieces)

    def write(self) -> None:
        """Sends what has been collected. A client that does not read is dropped: nothing can be left out of a
        book, and a backlog without bound would take the machine with it."""
        if len(self.out) < self._hold:
            return
        pieces, self.out, self._hold = self.out, [], 0
        if self._protocol.state is not State.OPEN or self._transport.is_closing():
            return
        if self._bytewise and pieces:
            waiting = bool(self._pieces)
            self._pieces += pieces
            self._bytewise = False
            if not waiting:
                self._put_pieces()
        else:
            self._put(b"".join(pieces))
        waiting = self._transport.get_write_buffer_size() + len(self._pieces)
        if waiting > MAX_BACKLOG:
            log.warning("client %s dropped: it does not read, %d bytes wait", self.name, waiting)
            self._mode.telemetry.add("dropped")
            self._transport.abort()

    def lost(self) -> None:
        self._protocol.receive_eof()
        self._leave()

    def _leave(self) -> None:
        if self in self._mode.clients:
            log.info("client %s gone", self.name)
            self._mode.closed(self)

    def say_goodbye(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1001, "the exchange ends")
            self._write_protocol()


class HttpServer:
    """An HTTP/1.1 connection: keep-alive, one request after another, answers that may take their time."""

    def __init__(self, mode: Mode, transport: Any) -> None:
        self._mode, self._transport = mode, transport
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._request: h11.Request
        self._method = b""
        self._body = bytearray()
        self._reading = self._deaf = False

    def received(self, data: bytes) -> None:
        if not self._deaf:
            self._http.receive_data(data)
            self._read()

    def lost(self) -> None:
        self._deaf = True

    def _read(self) -> None:
        self._reading = True
        try:
            while not self._deaf and self._step(self._http.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            self._give_up(error.error_status_hint, "MALFORMED_REQUEST", str(error))
        self._reading = False

    def _step(self, event: Any) -> bool:
        """One event of the request; False when there is no more for now."""
        if isinstance(event, h11.Request):
            self._request, self._method, self._body = event, event.method, bytearray()
            if self._http.they_are_waiting_for_100_continue:
                self._transport.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > MAX_BODY:
                self._give_up(413, "BODY_TOO_LARGE", f"a body may have at most {MAX_BODY} bytes")
        elif isinstance(event, h11.EndOfMessage):
            call = HttpCall(self, self._request, bytes(self._body))
            if call.path == "/loopback/status":
                call.answer(200, self._mode.status())
            else:
                self._mode.http(call)
        else:  # no more data, a request that waits for our answer, or the end
            return False
        return True

    def _give_up(self, status: int, code: str, message: str) -> None:
        """An answer after which nothing more is understood. What still comes is read and ignored for a moment:
        closing at once would reset the connection before the client has read why."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = {"error": {"code": code, "field": "", "message": message}}
            self.answer(status, orjson.dumps(content), [("Connection", "close")])
        self._deaf = True
        self._mode.loop.call_later(1.0, self._transport.close)

    def hang_up(self) -> None:
        self._deaf = True
        self._transport.abort()

    def answer_later(self, delay_s: float, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        self._mode.later(self._mode.loop.time() + delay_s, lambda: self.answer(status, body, headers))

    def answer(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        if self._transport.is_closing():
            return
        http = self._http
        head = h11.Response(status_code=status, reason=HTTPStatus(status).phrase.encode(), headers=[
            ("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers])
        content = [] if self._method == b"HEAD" else [h11.Data(data=body)]
        self._transport.write(b"".join([http.send(part) for part in (head, *content, h11.EndOfMessage())]))
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
            if not self._reading:  # the answer came late: a next request may be here already
                self._read()
        elif http.their_state is not h11.SEND_BODY and http.their_state is not h11.ERROR:
            self._transport.close()


class HttpCall:
    """One HTTP request, and the place for its answer."""

    def __init__(self, server: HttpServer, head: h11.Request, body: bytes) -> None:
        self._server = server
        self.method = head.method.decode("ascii")
        self.target = head.target.decode("ascii")
        self.path, _, query = self.target.partition("?")
        self.query = {key: values[-1] for key, values in parse_qs(query).items()}
        self.headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        self.body = body
        self.delay_s = 0.0  #: how late the answer leaves
        self.lost = False  #: it does not leave at all, and the connection ends

    def hang_up(self) -> None:
        """End the connection without an answer."""
        self._server.hang_up()

    def answer(self, status: int, content: Any, *headers: tuple[str, str]) -> None:
        """`content`: JSON as bytes, or what becomes it."""
        body = content if isinstance(content, bytes) else orjson.dumps(content)
        if self.lost:
            self.hang_up()
        elif self.delay_s:
            self._server.answer_later(self.delay_s, status, body, list(headers))
        else:
            self._server.answer(status, body, list(headers))

    def refuse(self, status: int, code: str, message: str, *headers: tuple[str, str], field: str = "") -> None:
        self.answer(status, {"error": {"code": code, "field": field, "message": message}}, *headers)
