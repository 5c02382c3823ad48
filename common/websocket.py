"""A WebSocket client connection that never blocks, on a plain socket.

The protocol is that of `websockets.client.ClientProtocol`, which does no I/O; here is the shell around it: name
lookup, connecting, TLS, deadlines, fragments joined. No compression is offered (it costs more time than it saves
on a feed), a proxy is used only where one is named, and no redirect is followed.

Data frames that are whole, and nearly all are, are cut out of the stream here: 1.5 us each instead of 5. All
others (control frames, fragments, whatever breaks the protocol) go to the protocol, one frame at a time, so
that it always stands between two frames.

    LOOKUP -> CONNECTING -> (TUNNELLING) -> (ENCRYPTING) -> SHAKING -> OPEN -> CLOSED

The owner waits for `fileno()` (and for it to be writable if `wants_write`), then calls `recv`; also now and then
without any news, since that is when deadlines are seen. The end of a connection is always an error, and which
one says what to do: Refused by the server with a status, Untrusted for TLS that will not work by trying again,
Closed for all else.

Cost: about 1.5 us a frame, and 3 us for each read.
"""

import email.utils
import enum
import os
import socket
import ssl
import time

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.frames import Opcode
from websockets.protocol import State as Wire
from websockets.uri import parse_uri

from common.errors import ConfigError, VenueError
from common.http import _Lookup as Lookup
from common.tunnel import Proxy, Tunnel, proxy_auth

CHUNK = 8192  #: bytes per read: some 40 frames, so that the first of a burst does not wait long for its ref
_UNSENT_MAX = 1 << 20  # bytes: a server that reads nothing
_HEAD_MAX = 16384  # bytes of the answer to the handshake, without its body
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_WHOLE_TEXT, _WHOLE_BINARY = 0x80 | Opcode.TEXT, 0x80 | Opcode.BINARY  # first byte of a frame that is not a fragment


class State(enum.IntEnum):
    LOOKUP = 0
    CONNECTING = 1
    ENCRYPTING = 2
    SHAKING = 3
    OPEN = 4
    CLOSED = 5
    TUNNELLING = 6


class Closed(VenueError):
    """The connection could not be made, or has ended."""


class Refused(Closed):
    """The server answered the handshake with something else than a connection."""

    def __init__(self, status: int, retry_after_s: float, where: str) -> None:
        super().__init__(f"the venue refused the connection with status {status}", where=where)
        self.status, self.retry_after_s = status, retry_after_s


class Untrusted(VenueError):
    """TLS failed in a way that trying again does not mend: certificate, name or protocol."""


class WebSocket:
    """One connection, begun by the constructor. `timeout_s` is for everything up to OPEN; a frame, or the sum of
    its fragments, is at most `max_frame` bytes. Raises ConfigError on an unusable URL."""

    def __init__(self, url: str, clock, *, max_frame: int = 32 * 2**20, timeout_s: float = 10.0,
                 tls: ssl.SSLContext | None = None, proxy: str = "") -> None:
        try:
            self._uri = parse_uri(url)
        except (InvalidURI, ValueError) as error:
            raise ConfigError("a WebSocket URL is not usable", where=f"url={url}: {error}",
                              remedy="write ws://host:port or wss://host") from None
        self._where = f"{self._uri.host}:{self._uri.port}"
        self._clock, self._timeout_s = clock, timeout_s
        self._deadline_ns = clock.monotonic_ns() + int(timeout_s * 1e9)
        self._tls = tls or (ssl.create_default_context() if self._uri.secure else None)
        self._protocol = ClientProtocol(self._uri, max_size=max_frame)
        self._max_frame = max_frame
        self._received = bytearray()  # and not yet handled
        self._head_read = False  # of the answer to the handshake
        self._sock: socket.socket | None = None
        self._unsent = bytearray()
        self._parts: bytearray | None = None  # fragments so far
        self._addresses: list[tuple] = []
        self._tls_wants_write = False
        self._end: VenueError | None = None  # raised by the next `recv`
        self.heard_ns = 0  #: when bytes came last, pongs included
        self.state = State.LOOKUP
        self._proxy = Proxy.parse(proxy)
        self._tunnel: Tunnel | None = None
        self._lookup: Lookup | None = Lookup(*(self._proxy or (self._uri.host, self._uri.port)))

    def recv(self) -> list[tuple[bytearray, int]]:
        """What has arrived, as (frame, monotonic ns at which it left the socket); at most one read's worth.
        Moves the opening of the connection on while it is not OPEN. Raises Closed, Refused or Untrusted once."""
        if self._end is not None:
            end, self._end = self._end, None
            raise end
        try:
            if self.state is State.OPEN:
                return self._read()
            if self.state is State.CLOSED:
                raise Closed("the connection is closed", where=self._where)
            if self._clock.monotonic_ns() >= self._deadline_ns:
                raise Closed(f"the connection did not open within {self._timeout_s:g} s",
                             where=f"{self._where}, while {self.state.name.lower()}")
            while self._open_further():
                pass
            return self._read() if self.state in (State.SHAKING, State.OPEN) else []
        except VenueError:
            self._drop()
            raise

    def send(self, frame: bytes) -> None:
        """Queue a text frame, and send what the socket takes. Only while OPEN."""
        try:
            self._protocol.send_text(frame)
        except WebSocketException as error:  # the other end has begun to close
            raise Closed("the connection is closing", where=self._where) from error
        self._flush()

    def ping(self) -> None:
        """Ask whether the other end is there; the answer shows in `heard_ns`. Only while OPEN."""
        try:
            self._protocol.send_ping(b"")
        except WebSocketException as error:
            raise Closed("the connection is closing", where=self._where) from error
        self._flush()

    def close(self) -> None:
        """Say goodbye if there is room for it, and let go."""
        if self.state is State.OPEN:
            try:
                self._protocol.send_close(1000)
                self._flush()
            except (VenueError, WebSocketException):
                pass  # it is gone already, which is what was wanted
        self._drop()

    def fileno(self) -> int:
        """What to wait on; -1 when there is nothing. It changes while the connection opens."""
        if self._sock is not None:
            return self._sock.fileno()
        return self._lookup.fileno() if self._lookup is not None else -1

    @property
    def wants_write(self) -> bool:
        """Whether to wait for `fileno` to become writable too."""
        if self.state is State.ENCRYPTING:
            return self._tls_wants_write
        return self.state is State.CONNECTING or len(self._unsent) > 0

    # ---- opening, one step at a time; each returns True if another may be possible at once

    def _open_further(self) -> bool:
        if self.state is State.LOOKUP:
            return self._look_up()
        if self.state is State.CONNECTING:
            return self._connect()
        if self.state is State.TUNNELLING:
            return self._dig()
        if self.state is State.ENCRYPTING:
            return self._encrypt()
        return False

    def _look_up(self) -> bool:
        if not self._lookup.ready():
            return False
        lookup, self._lookup = self._lookup, None
        if lookup.error:
            raise Closed(lookup.error, where=self._where)
        self._addresses = lookup.addresses
        return self._next_address("it has no address")

    def _next_address(self, error: str) -> bool:
        """Begin to connect to the next address; `error` is reported when none is left."""
        if not self._addresses:
            raise Closed(f"cannot connect: {error}", where=self._where)
        family, address = self._addresses.pop(0)
        self.state = State.CONNECTING
        try:
            self._sock = socket.socket(family, socket.SOCK_STREAM)
            self._sock.setblocking(False)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock.connect(address)
        except BlockingIOError:
            return False
        except OSError as problem:
            self._close_socket()
            return self._next_address(problem.strerror or str(problem))
        return True

    def _connect(self) -> bool:
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._close_socket()
            return self._next_address(os.strerror(code))
        try:
            self._sock.getpeername()
        except OSError:  # still on its way
            return False
        if self._proxy is None:
            return self._secure()
        self.state, self._tunnel = State.TUNNELLING, Tunnel(self._uri.host, self._uri.port, proxy_auth())
        try:
            self._sock.sendall(self._tunnel.request)
        except OSError as error:
            raise Closed(f"the connection was lost: {error}", where=self._where) from None
        return True

    def _dig(self) -> bool:
        """What the proxy says."""
        try:
            self._tunnel.receive(self._sock.recv(CHUNK))
        except BlockingIOError:
            return False
        except OSError as error:
            raise Closed(f"the connection was lost: {error}", where=self._where) from None
        if self._tunnel.error:
            raise Closed(self._tunnel.error, where=f"{self._proxy.host}:{self._proxy.port} for {self._where}")
        return self._secure() if self._tunnel.open else True

    def _secure(self) -> bool:
        if self._tls is None:
            return self._shake()
        try:
            self._sock = self._tls.wrap_socket(self._sock, server_hostname=self._uri.host,
                                               do_handshake_on_connect=False)
        except OSError as error:
            raise Closed(f"the connection was lost: {error}", where=self._where) from None
        self.state = State.ENCRYPTING
        return True

    def _encrypt(self) -> bool:
        try:
            self._sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as want:
            self._tls_wants_write = isinstance(want, ssl.SSLWantWriteError)
            return False
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise Closed("the connection was lost during the TLS handshake", where=self._where) from None
        except ssl.SSLCertVerificationError as error:
            raise Untrusted(f"TLS: the certificate is not trusted: {error.verify_message}", where=self._where,
                            remedy="check market.ws_url, the clock and the system's certificates") from None
        except ssl.SSLError as error:
            raise Untrusted(f"TLS failed: {error.reason or error}", where=self._where,
                            remedy="check that market.ws_url names a TLS port") from None
        except OSError as error:
            raise Closed(f"the connection was lost during the TLS handshake: {error}", where=self._where) from None
        return self._shake()

    def _shake(self) -> bool:
        self.state = State.SHAKING
        self._addresses.clear()
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        return False

    # ---- bytes

    def _read(self) -> list[tuple[bytearray, int]]:
        """Read once, and on while TLS holds bytes that no poll would show."""
        frames: list[tuple[bytearray, int]] = []
        if self._unsent:
            self._flush()
        while True:
            try:
                data = self._sock.recv(CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return frames
            except ssl.SSLError:
                data = b""
            except OSError as error:
                return self._finish(frames, Closed(f"the connection was lost: {error.strerror}", where=self._where))
            recv_ns = self.heard_ns = self._clock.monotonic_ns()
            protocol = self._protocol
            self._received += data
            if self.state is State.SHAKING:
                self._read_answer()
            if self.state is State.OPEN:
                self._cut(frames, recv_ns)
            if not data:
                protocol.receive_eof()
            try:
                if protocol.writes:
                    self._flush()
            except Closed as end:
                return self._finish(frames, end)
            if protocol.state is not Wire.OPEN and (self.state is State.OPEN or protocol.handshake_exc or not data):
                return self._finish(frames, self._reason())
            if self._tls is None or not self._sock.pending():
                return frames

    def _read_answer(self) -> None:
        """The answer to the handshake, up to where frames begin."""
        received = self._received
        end = len(received) if self._head_read else received.find(b"\r\n\r\n") + 4
        if end < 4 and not self._head_read:
            if len(received) <= _HEAD_MAX:
                return
            end = len(received)
        self._head_read = True
        self._protocol.receive_data(received[:end])
        del received[:end]
        for response in self._protocol.events_received():
            problem = self._protocol.handshake_exc
            if problem is None:
                self.state = State.OPEN
            elif isinstance(problem, InvalidStatus):
                raise Refused(response.status_code, retry_after_s(response.headers.get("Retry-After", "")),
                              f"{self._where}: {bytes(response.body[:200])!r}")

    def _cut(self, frames: list[tuple[bytearray, int]], recv_ns: int) -> None:
        """Take the frames that have arrived; what is left is the beginning of one."""
        received, protocol = self._received, self._protocol
        at, size = 0, len(received)
        while size - at >= 2 and protocol.state is Wire.OPEN:
            length, start = received[at + 1], at + 2
            masked = length > 127  # which no server may do
            if length == 126 or length == 127:
                start += 2 if length == 126 else 8
                if start > size:
                    break
                length = int.from_bytes(received[at + 2:start], "big")
            end = start + length
            if masked or length > self._max_frame:
                protocol.receive_data(received[at:])  # refuses it by its head
                break
            if end > size:
                break
            whole = received[at] == _WHOLE_TEXT or received[at] == _WHOLE_BINARY
            if whole and protocol.current_size is None:  # and not among the fragments of another
                frames.append((received[start:end], recv_ns))
            else:
                protocol.receive_data(received[at:end])
                for event in protocol.events_received():
                    if event.opcode in _DATA:
                        self._join(event, frames, recv_ns)
            at = end
        del received[:at]

    def _join(self, event, frames: list[tuple[bytearray, int]], recv_ns: int) -> None:
        """Fragments: a frame is received when its last fragment is."""
        if event.opcode is Opcode.CONT:
            self._parts += event.data
        else:
            self._parts = bytearray(event.data)
        if event.fin:
            frames.append((self._parts, recv_ns))
            self._parts = None

    def _reason(self) -> VenueError:
        """Why the protocol is not open any more, or will never be."""
        protocol = self._protocol
        if protocol.handshake_exc is not None:
            return Closed(f"the venue does not speak WebSocket: {protocol.handshake_exc}", where=self._where)
        if protocol.state is Wire.CONNECTING:
            return Closed("the connection was lost during the handshake", where=self._where)
        if protocol.close_rcvd is not None:
            return Closed("the venue closed the connection", where=f"{self._where}: {protocol.close_rcvd}")
        if isinstance(protocol.parser_exc, WebSocketException):
            return Closed(f"the venue broke the protocol: {protocol.parser_exc}", where=self._where)
        return Closed("the connection was lost", where=self._where)

    def _finish(self, frames: list[tuple[bytearray, int]], end: VenueError) -> list[tuple[bytearray, int]]:
        """What came before the end is delivered first."""
        if not frames:
            raise end
        self._end = end
        self._drop()
        return frames

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            self._unsent += data  # the empty one asks for a half-close; closing follows soon enough
        if len(self._unsent) > _UNSENT_MAX:
            raise Closed("the venue does not read what is sent", where=f"{self._where}: {len(self._unsent)} bytes")
        try:
            while self._unsent:
                del self._unsent[:self._sock.send(self._unsent)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # the rest follows when the socket takes it
        except OSError as error:
            raise Closed(f"the connection was lost: {error.strerror}", where=self._where) from None

    def _drop(self) -> None:
        self.state = State.CLOSED
        self._unsent.clear()
        self._close_socket()
        if self._lookup is not None:
            self._lookup.close()
            self._lookup = None

    def _close_socket(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def retry_after_s(value: str) -> float:
    """A Retry-After header, in seconds or as a date; 0 if there is none or it makes no sense."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
