"""An HTTP/1.1 client that never blocks: one keep-alive connection, requests answered one after another.

The protocol is h11's; here is the shell around it: name lookup, connecting, TLS, deadlines. Nothing is done
behind the caller's back: `work` moves what can move and returns the replies, and every request gets exactly
one. No redirect is followed, a proxy is used only where one is named, and nothing is decompressed.

A request is never sent twice once a byte of it may have left. A keep-alive connection that the server closed
while it was idle is noticed before a request is written to it and replaced; if the request fails all the
same, `Reply.sent` says whether the server may have seen it, and what to do is the caller's decision.

Cost: about 150 us of this process for a small request and its answer, most of it in h11.
"""

import os
import socket
import ssl
import threading
from collections import deque
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

import h11

from common.errors import ConfigError, ContractError
from common.events import HttpRequest
from common.tunnel import Proxy, Tunnel, proxy_auth

CHUNK = 65536  #: bytes per read
TOO_LATE = "its turn came too late"  #: error of a request that was not written any more
LEAVE_ALONE = frozenset({403, 418, 429})  #: answers after which nothing leaves that was given a `start_by_ns`
READS = 64  #: chunks read in one `work` before the caller's loop has its turn again


class Reply(NamedTuple):
    """The end of one request. Times are monotonic ns."""

    token: Any  #: as given to `submit`
    status: int  #: 0 when no whole answer came; then `error` says why
    headers: dict[str, str]  #: names in lower case; of a repeated header the last
    body: bytes
    error: str
    sent: bool  #: whether any byte of the request may have left this process
    sent_ns: int  #: when the first byte left, 0 if none did
    done_ns: int
    untrusted: bool = False  #: TLS failed in a way that trying again does not mend


class _Pending:
    """A request on its way, and what has come of its answer."""

    __slots__ = ("head", "body", "token", "deadline_ns", "start_by_ns", "sent_ns", "sent", "retried", "answer",
                 "received")

    def __init__(self, head: h11.Request, body: bytes, token: Any, deadline_ns: int, start_by_ns: int) -> None:
        self.head, self.body, self.token = head, body, token
        self.deadline_ns, self.start_by_ns = deadline_ns, start_by_ns
        self.sent, self.sent_ns, self.retried = False, 0, False
        self.answer: h11.Response | None = None
        self.received = bytearray()


class _Lookup:
    """Name resolution, which the system offers only as a blocking call: a thread makes it, and the read end
    of a socket pair wakes whoever waits. Numeric addresses are resolved at once."""

    def __init__(self, host: str, port: int) -> None:
        self.addresses: list[tuple] = []
        self.error = ""
        self._wake: socket.socket | None = None
        try:
            self._find(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            self._wake, done = socket.socketpair()
            self._wake.setblocking(False)
            threading.Thread(target=self._run, args=(host, port, done), name="lookup", daemon=True).start()

    def _find(self, host: str, port: int, flags: int) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        self.addresses = [(family, address) for family, _, _, _, address in found]

    def _run(self, host: str, port: int, done: socket.socket) -> None:
        try:
            self._find(host, port, 0)
        except OSError as error:
            self.error = f"cannot find the address of {host}: {error.strerror}"
        done.close()

    def ready(self) -> bool:
        if self._wake is None:
            return True
        try:
            self._wake.recv(1)
        except BlockingIOError:
            return False
        self.close()
        return True

    def fileno(self) -> int:
        return self._wake.fileno() if self._wake else -1

    def close(self) -> None:
        if self._wake:
            self._wake.close()
            self._wake = None


def address(base_url: str) -> SplitResult:
    """The parts of a base URL. Raises ConfigError for one that is not usable, and tells no more of it than its host:
    there may be a password in it."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # whose text may quote the address
        parts, usable = None, False
    if not usable or "@" in parts.netloc:
        raise ConfigError("a base URL is not usable", where=f"host={parts.hostname if usable else '?'}",
                          remedy="write http://host:port or https://host, with no user name or password in it")
    return parts


class HttpClient:
    """Requests to one server. `timeout_s` runs from `submit` to the last byte of the answer: a request that
    is still waiting its turn by then fails without having been sent. `secrets` are struck out of what comes back: a
    server that repeats them must not bring them into a log or a journal."""

    def __init__(self, base_url: str, timeout_s: float, clock, *, max_body: int = 16 * 2**20,
                 tls: ssl.SSLContext | None = None, proxy: str = "", secrets: tuple[str, ...] = ()) -> None:
        parts = address(base_url)
        self.host, self.prefix = parts.hostname, parts.path.rstrip("/")
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self._authority = parts.netloc
        self._tls = tls or (ssl.create_default_context() if parts.scheme == "https" else None)
        self._proxy = Proxy.parse(proxy)
        self._tunnel: Tunnel | None = None
        self._secrets = tuple(secret.encode() for secret in secrets if secret)
        self._timeout_ns, self._clock, self._max_body = int(timeout_s * 1e9), clock, max_body
        self._queue: deque[_Pending] = deque()
        self._current: _Pending | None = None
        self._replies: list[Reply] = []
        self._lookup: _Lookup | None = None
        self._addresses: list[tuple] = []  # those that have not been tried yet
        self._sock: socket.socket | None = None
        self._handshaking = self._connected = False
        self._tls_wants_write = False
        self._http: h11.Connection | None = None
        self._out = memoryview(b"")

    # ---- what the caller sees

    def submit(self, request: HttpRequest, token: Any, start_by_ns: int = 0) -> None:
        """Queue `request`; its reply carries `token`. If its turn to be written comes after `start_by_ns` (0: no such
        time) it is not, and the reply's error is TOO_LATE. Raises ContractError if it is not valid HTTP."""
        headers = [("Host", self._authority), *request.headers]
        if request.body or request.method in ("POST", "PUT"):
            headers.append(("Content-Length", str(len(request.body))))
        try:
            head = h11.Request(method=request.method, target=self.prefix + request.path, headers=headers)
        except (h11.LocalProtocolError, UnicodeEncodeError):  # its text may quote a header, and that a secret
            raise ContractError("a request cannot be put into HTTP",
                                where=f"{request.method} {request.path!r}",
                                remedy="no spaces or line ends in the target, none at the ends of a header") from None
        deadline = self._clock.monotonic_ns() + self._timeout_ns
        self._queue.append(_Pending(head, request.body, token, deadline, start_by_ns))

    def withdraw(self) -> None:
        """Let no request be written any more that was given a `start_by_ns`, as if its time had passed."""
        for pending in (*self._queue, *([self._current] if self._current else [])):
            if pending.start_by_ns and not (pending is self._current and self._connected):
                pending.start_by_ns = 1

    def work(self) -> list[Reply]:
        """Move what can move without waiting, and return the replies that are complete."""
        self._expire()
        for _ in range(READS):
            if not self._advance():
                break
        replies, self._replies = self._replies, []
        return replies

    @property
    def in_flight(self) -> int:
        """Requests submitted whose reply has not been returned."""
        return len(self._queue) + (self._current is not None) + len(self._replies)

    @property
    def wants_write(self) -> bool:
        """Whether to wait for `fileno` to become writable rather than readable."""
        if self._sock is None:
            return False
        if not self._connected:
            return self._tls_wants_write if self._handshaking else self._tunnel is None
        return len(self._out) > 0

    def fileno(self) -> int:
        """What to wait on; -1 while nothing is connected. It changes with every connection."""
        if self._sock is not None:
            return self._sock.fileno()
        return self._lookup.fileno() if self._lookup else -1

    def deadline_ns(self) -> int:
        """When `work` must be called next although nothing arrived; 0 if never."""
        if self._current is not None:
            return self._current.deadline_ns
        return self._queue[0].deadline_ns if self._queue else 0

    def close(self) -> None:
        """Drop the connection and every request; their replies never come."""
        self._queue.clear()
        self._current = None
        self._disconnect()

    # ---- one step at a time; each returns True if another may be possible at once

    def _advance(self) -> bool:
        if self._current is None:
            if not self._queue:
                if self._connected:
                    self._check_idle()
                return False
            self._current = self._queue.popleft()
            if self._connected and self._check_idle():
                self._write_request()
        if self._connected:
            return self._exchange()
        if self._sock is not None:
            if self._tunnel is not None:
                return self._dig()
            return self._handshake() if self._handshaking else self._connect()
        if self._lookup is None:
            self._lookup = _Lookup(*(self._proxy or (self.host, self.port)))
        if not self._lookup.ready():
            return False
        self._addresses, error = self._lookup.addresses, self._lookup.error
        self._lookup = None
        if error:
            self._fail(error)
            return True
        return self._next_address("no address")

    def _next_address(self, error: str) -> bool:
        """Begin to connect to the next address; `error` is reported when none is left."""
        if not self._addresses:
            self._fail(f"cannot connect to {self.host}:{self.port}: {error}")
            return True
        family, address = self._addresses.pop(0)
        try:
            self._sock = socket.socket(family, socket.SOCK_STREAM)
            self._sock.setblocking(False)
            self._sock.connect(address)
        except BlockingIOError:
            return False
        except OSError as problem:
            self._close_socket()
            return self._next_address(problem.strerror or str(problem))
        return True

    def _connect(self) -> bool:
        """The socket has been told to connect: see what came of it."""
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._close_socket()
            return self._next_address(os.strerror(code))
        try:
            self._sock.getpeername()
        except OSError:  # still on its way
            return False
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._proxy is None:
            return self._secure()
        self._tunnel = Tunnel(self.host, self.port, proxy_auth())
        try:
            self._sock.sendall(self._tunnel.request)
        except OSError as error:
            self._fail(f"the connection to the proxy was lost: {error}")
        return True

    def _dig(self) -> bool:
        """What the proxy says."""
        tunnel = self._tunnel
        try:
            tunnel.receive(self._sock.recv(CHUNK))
        except BlockingIOError:
            return False
        except OSError as error:
            tunnel.error = f"the connection to the proxy was lost: {error}"
        if tunnel.error:
            self._fail(tunnel.error)
            return True
        if tunnel.open:
            self._tunnel = None
            return self._secure()
        return True

    def _secure(self) -> bool:
        if self._tls is None:
            self._begin()
            return True
        try:
            self._sock = self._tls.wrap_socket(self._sock, server_hostname=self.host,
                                               do_handshake_on_connect=False)
        except (OSError, ValueError) as error:
            self._fail(f"TLS with {self.host}:{self.port} failed: {error}", _is_untrusted(error))
            return True
        self._handshaking = True
        return True

    def _handshake(self) -> bool:
        try:
            self._sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as want:
            self._tls_wants_write = isinstance(want, ssl.SSLWantWriteError)
            return False
        except OSError as error:  # ssl.SSLError among them: a bad certificate is not tried elsewhere
            self._fail(f"TLS with {self.host}:{self.port} failed: {error}", _is_untrusted(error))
            return True
        self._begin()
        return True

    def _begin(self) -> None:
        self._connected, self._handshaking, self._addresses = True, False, []
        self._http = h11.Connection(h11.CLIENT)
        self._write_request()

    def _write_request(self) -> None:
        pending, http = self._current, self._http
        parts = [http.send(pending.head)]
        if pending.body:
            parts.append(http.send(h11.Data(data=pending.body)))
        parts.append(http.send(h11.EndOfMessage()))
        self._out = memoryview(b"".join(parts))

    def _exchange(self) -> bool:
        """Write what is left of the request, then read what there is of the answer."""
        pending = self._current
        if self._out:
            if self._tls is not None:
                self._mark_sent(pending)  # TLS may put a part on the wire and still ask for more room
            try:
                count = self._sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                count = 0
            except OSError as error:
                if not pending.sent and not pending.retried:  # an idle connection died: nothing has left
                    pending.retried = True
                    self._disconnect()
                    return True
                self._fail(f"the connection was lost while sending: {error}")
                return True
            if count:
                self._mark_sent(pending)
                self._out = self._out[count:]
        try:
            data = self._sock.recv(CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            self._fail(f"the connection was lost before the answer: {error}")
            return True
        if not data and pending.answer is None:
            self._fail("the server closed the connection before the answer")
            return True
        self._http.receive_data(data)
        self._read_answer(pending)
        return True

    def _read_answer(self, pending: _Pending) -> None:
        try:
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    return
                if isinstance(event, h11.Response):
                    pending.answer = event
                elif isinstance(event, h11.Data):
                    pending.received += event.data
                    if len(pending.received) > self._max_body:
                        return self._fail(f"the answer is larger than {self._max_body} bytes")
                elif isinstance(event, h11.EndOfMessage):
                    return self._complete(pending)
                elif not isinstance(event, h11.InformationalResponse):
                    return self._fail("the server closed the connection before the answer")
        except h11.RemoteProtocolError as error:
            self._fail(f"the answer is cut short or is not HTTP: {error}")

    def _complete(self, pending: _Pending) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in pending.answer.headers}
        self._current = None
        self._replies.append(Reply(pending.token, pending.answer.status_code, headers,
                                   self._struck(bytes(pending.received)), "", pending.sent, pending.sent_ns,
                                   self._clock.monotonic_ns()))
        if pending.answer.status_code in LEAVE_ALONE:
            self.withdraw()  # before the next one leaves: nobody has heard of it yet
            self._expire()
        http = self._http
        reusable = not self._out and http.our_state is h11.DONE and http.their_state is h11.DONE
        if reusable and http.trailing_data == (b"", False):
            http.start_next_cycle()
        else:
            self._disconnect()

    def _check_idle(self) -> bool:
        """Whether the idle connection still stands; if not, it is dropped. Whatever is readable on it ends it:
        data that nobody asked for, the end, or a reset."""
        try:
            self._sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            self._disconnect()
            return False
        self._disconnect()
        return False

    # ---- ends

    def _mark_sent(self, pending: _Pending) -> None:
        if not pending.sent:
            pending.sent, pending.sent_ns = True, self._clock.monotonic_ns()

    def _expire(self) -> None:
        if self._current is None and not self._queue:
            return
        now = self._clock.monotonic_ns()
        if self._current is not None and now >= self._current.deadline_ns:
            self._fail(f"no answer within {self._timeout_ns / 1e9:g} s")
        for pending in [pending for pending in self._queue if 0 < pending.start_by_ns < now]:
            self._queue.remove(pending)
            self._report(pending, TOO_LATE)
        if self._current is not None and not self._connected and 0 < self._current.start_by_ns < now:
            self._fail(TOO_LATE)  # still connecting
        while self._queue and now >= self._queue[0].deadline_ns:
            self._report(self._queue.popleft(), f"not sent within {self._timeout_ns / 1e9:g} s")

    def _fail(self, error: str, untrusted: bool = False) -> None:
        """End the current request without an answer; the connection cannot be trusted any more."""
        pending, self._current = self._current, None
        self._disconnect()
        self._report(pending, error, untrusted)

    def _report(self, pending: _Pending, error: str, untrusted: bool = False) -> None:
        self._replies.append(Reply(pending.token, 0, {}, b"", self._struck(error.encode()).decode(), pending.sent,
                                   pending.sent_ns, self._clock.monotonic_ns(), untrusted))

    def _struck(self, text: bytes) -> bytes:
        for secret in self._secrets:
            text = text.replace(secret, b"***")
        return text

    def _disconnect(self) -> None:
        self._close_socket()
        self._addresses, self._http, self._out = [], None, memoryview(b"")
        if self._lookup is not None:
            self._lookup.close()
            self._lookup = None

    def _close_socket(self) -> None:
        self._connected = self._handshaking = self._tls_wants_write = False
        self._tunnel = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _is_untrusted(error: Exception) -> bool:
    """A certificate, a name or a protocol; not a connection that was lost during the handshake."""
    return isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
