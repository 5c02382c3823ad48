"""The HTTP client against real servers: one from the standard library, one that follows a script of bytes."""

import select
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from common.clock import ManualClock, SystemClock
from common.errors import ConfigError, ContractError
from common.events import HttpRequest
from common.http import TOO_LATE, HttpClient

GET = HttpRequest("GET", "/depth")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENCE_S = 20


def drive(client: HttpClient, count: int = 1) -> list:
    """Work, waiting on the descriptor as a stage does, until `count` replies are there."""
    replies, end = [], time.monotonic() + PATIENCE_S
    while len(replies) < count:
        assert time.monotonic() < end, "no reply"
        replies += client.work()
        fd = client.fileno()
        if len(replies) < count and fd >= 0:
            readers, writers = ([], [fd]) if client.wants_write else ([fd], [])
            select.select(readers, writers, [], 0.02)
    return replies


class Script:
    """A server that reads one request on a connection, then does what the next line of its script says."""

    def __init__(self, *steps) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.steps = list(steps)
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            while self.steps:
                connection, _ = self.listener.accept()
                with connection:
                    while self.steps:
                        request = connection.recv(65536)
                        if not request:
                            break
                        self.requests.append(request)
                        if self.steps.pop(0)(connection) == "close":
                            break
                self.closed.set()
        except OSError:
            return  # the listener was closed: the test is over

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in accept
        self.listener.close()
        self.thread.join(PATIENCE_S)


@pytest.fixture
def script():
    servers = []

    def make(*steps) -> Script:
        servers.append(Script(*steps))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def client_of():
    clients = []

    def make(url: str, timeout_s: float = PATIENCE_S, clock=None, **options) -> HttpClient:
        clients.append(HttpClient(url, timeout_s, clock or SystemClock(), **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def answer(data: bytes, then: str = ""):
    def step(connection: socket.socket) -> str:
        connection.sendall(data)
        return then
    return step


def silence(connection: socket.socket) -> str:
    connection.recv(1)  # until the client gives up
    return "close"


def hang_up(connection: socket.socket) -> str:
    return "close"


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _echo(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        text = f"{self.command} {self.path} {self.headers.get('X-Bot-Key')} ".encode() + body
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Peer", str(self.client_address[1]))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = _echo

    def log_message(self, *args) -> None:
        return None


@pytest.fixture
def echo():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(PATIENCE_S)


def test_requests_are_answered_in_order_over_one_connection(echo, client_of):
    client = client_of(f"http://127.0.0.1:{echo.server_port}/base/")
    for token in range(5):
        client.submit(HttpRequest("POST", f"/orders/{token}", (("X-Bot-Key", "k"),), b"{}"), token)
    assert client.in_flight == 5
    replies = drive(client, 5)
    assert [r.token for r in replies] == [0, 1, 2, 3, 4]
    assert replies[3].body == b"POST /base/orders/3 k {}" and replies[3].status == 200
    assert len({r.headers["x-peer"] for r in replies}) == 1
    assert all(r.sent and 0 < r.sent_ns <= r.done_ns for r in replies)
    assert client.in_flight == 0


def test_get_and_delete_carry_no_body(echo, client_of):
    client = client_of(f"http://localhost:{echo.server_port}")
    client.submit(GET, "g")
    client.submit(HttpRequest("DELETE", "/x"), "d")
    assert [r.body for r in drive(client, 2)] == [b"GET /depth None ", b"DELETE /x None "]


def test_a_large_body_is_written_in_pieces_and_a_large_answer_read_in_pieces(echo, client_of):
    client, body = client_of(f"http://127.0.0.1:{echo.server_port}"), b"x" * 8_000_000
    client.submit(HttpRequest("POST", "/", (), body), 0)
    assert drive(client)[0].body == b"POST / None " + body


def test_a_refused_connection_says_so_and_sent_nothing(client_of):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    client = client_of(f"http://127.0.0.1:{port}")
    client.submit(GET, 1)
    client.submit(GET, 2)
    for reply in drive(client, 2):
        assert reply.status == 0 and not reply.sent and "refused" in reply.error
    assert client.fileno() == -1


def test_an_unknown_host_name_is_an_error_and_not_a_hang(client_of):
    client = client_of("http://no-such-host.invalid:1")
    client.submit(GET, 1)
    reply = drive(client)[0]
    assert reply.status == 0 and not reply.sent and "no-such-host.invalid" in reply.error


def test_a_silent_server_ends_at_the_deadline_of_the_given_clock(script, client_of):
    server, clock = script(silence, answer(OK)), ManualClock(1)
    client = client_of(server.url, 2.0, clock)
    client.submit(GET, "first")
    while not server.requests:
        assert client.work() == []
    assert client.deadline_ns() == 2_000_000_001
    clock.set(2_000_000_001)
    [reply] = client.work()
    assert reply.status == 0 and reply.sent and "2 s" in reply.error
    client.submit(GET, "second")
    assert drive(client)[0].body == b"ok"


def test_a_request_that_never_got_its_turn_expires_unsent(script, client_of):
    server, clock = script(silence), ManualClock(1)
    client = client_of(server.url, 2.0, clock)
    client.submit(GET, "first")
    client.submit(GET, "second")
    while not server.requests:
        client.work()
    clock.set(3_000_000_000)
    first, second = client.work()
    assert first.sent and not second.sent and second.token == "second"


def test_a_server_that_hangs_up_after_the_request_leaves_the_outcome_open(script, client_of):
    server = script(hang_up, answer(OK))
    client = client_of(server.url)
    client.submit(GET, 1)
    reply = drive(client)[0]
    assert reply.status == 0 and reply.sent and "closed" in reply.error
    assert len(server.requests) == 1, "never sent again by itself"
    client.submit(GET, 2)
    assert drive(client)[0].status == 200


@pytest.mark.parametrize("part", [b"HTT", b"HTTP/1.1 200 OK\r\nContent-Len", OK[:-1],
                                  b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"])
def test_a_truncated_answer_is_no_answer(script, client_of, part):
    client = client_of(script(answer(part, "close")).url)
    client.submit(GET, 1)
    reply = drive(client)[0]
    assert reply.status == 0 and reply.sent and reply.body == b""
    assert "cut short" in reply.error or "closed" in reply.error


def test_an_answer_byte_by_byte_is_the_same_answer(script, client_of):
    def drip(connection: socket.socket) -> str:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"HTTP/1.1 100 Continue\r\n\r\n" + OK:
            connection.sendall(bytes([byte]))
        return ""

    client = client_of(script(drip).url)
    client.submit(GET, 1)
    assert drive(client)[0].body == b"ok"


def test_an_answer_that_ends_with_the_connection_is_whole(script, client_of):
    client = client_of(script(answer(b"HTTP/1.1 200 OK\r\n\r\nall of it", "close")).url)
    client.submit(GET, 1)
    assert drive(client)[0].body == b"all of it"


def test_nonsense_instead_of_an_answer_is_an_error(script, client_of):
    client = client_of(script(answer(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")).url)
    client.submit(GET, 1)
    reply = drive(client)[0]
    assert reply.status == 0 and reply.sent and "not HTTP" in reply.error


def test_an_oversized_answer_is_cut_off(script, client_of):
    huge = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 300_000
    client = client_of(script(answer(huge)).url, max_body=100_000)
    client.submit(GET, 1)
    reply = drive(client)[0]
    assert reply.status == 0 and "larger than 100000" in reply.error


def test_endless_headers_are_cut_off(script, client_of):
    client = client_of(script(answer(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000)).url)
    client.submit(GET, 1)
    assert drive(client)[0].status == 0


@pytest.mark.parametrize("farewell", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
def test_a_stale_keep_alive_connection_is_replaced_before_anything_is_sent(script, client_of, farewell):
    server = script(answer(OK + farewell, "close" if not farewell else ""), answer(OK))
    client = client_of(server.url)
    client.submit(GET, 1)
    drive(client)
    if not farewell:
        assert server.closed.wait(PATIENCE_S)
    client.submit(GET, 2)
    reply = drive(client)[0]
    assert reply.status == 200 and len(server.requests) == 2


def test_the_end_of_an_idle_connection_is_noticed_by_work(script, client_of):
    server = script(answer(OK, "close"))
    client = client_of(server.url)
    client.submit(GET, 1)
    drive(client)
    end = time.monotonic() + PATIENCE_S
    while client.fileno() >= 0 and time.monotonic() < end:
        select.select([client.fileno()], [], [], 0.05)
        client.work()
    assert client.fileno() == -1


def test_connection_close_is_honoured(script, client_of):
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    server = script(answer(closing), answer(OK))
    client = client_of(server.url)
    client.submit(GET, 1)
    assert drive(client)[0].body == b"ok" and client.fileno() == -1


def test_a_request_that_is_not_http_is_our_own_error(client_of):
    client = client_of("http://127.0.0.1:1")
    with pytest.raises(ContractError, match="/a b"):
        client.submit(HttpRequest("GET", "/a b"), 1)
    with pytest.raises(ContractError):
        client.submit(HttpRequest("GET", "/a", (("X", "a\r\nInjected: 1"),)), 1)
    assert client.in_flight == 0


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://h:99999", "http://user:secret@h", "127.0.0.1:80",
                                 "http://:secret@h", "https://secret@h", "https://:secret/x@h", "http://@h",
                                 "https://u:secret@[::1", "https://u:secret@h\u2100", "https://u:secret@h:port"])
def test_an_unusable_base_url_is_refused_without_showing_a_password(url):
    with pytest.raises(ConfigError) as caught:
        HttpClient(url, 1.0, SystemClock())
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    try:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("the openssl command is needed to make a certificate")
    return key, cert


@pytest.fixture
def tls_echo(certificate):
    key, cert = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *args: None  # the refused handshake is what the test is about
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(PATIENCE_S)


def test_tls_with_a_trusted_certificate(tls_echo, certificate, client_of):
    trusted = ssl.create_default_context(cafile=str(certificate[1]))
    client = client_of(f"https://localhost:{tls_echo.server_port}", tls=trusted)
    for token in range(3):
        client.submit(HttpRequest("POST", "/", (), b"x" * 200_000), token)
    replies = drive(client, 3)
    assert [r.status for r in replies] == [200] * 3 and len({r.headers["x-peer"] for r in replies}) == 1


def test_tls_with_an_untrusted_certificate_is_refused_before_anything_is_sent(tls_echo, client_of):
    client = client_of(f"https://localhost:{tls_echo.server_port}")
    client.submit(GET, 1)
    reply = drive(client)[0]
    assert reply.status == 0 and not reply.sent and "certificate" in reply.error.lower() and reply.untrusted


def test_a_request_whose_turn_comes_too_late_is_not_written(script):
    server, clock = script(answer(b""), answer(b"")), ManualClock(1)  # takes requests and never answers
    client = HttpClient(server.url, 100.0, clock)
    client.submit(GET, "first")
    client.submit(GET, "second", start_by_ns=1_000)
    end = time.monotonic() + PATIENCE_S
    while not server.requests:
        assert client.work() == [] and time.monotonic() < end
    clock.set(2_000)
    (reply,) = client.work()
    assert (reply.token, reply.error, reply.sent, reply.status) == ("second", TOO_LATE, False, 0)
    assert client.in_flight == 1 and len(server.requests) == 1
    client.close()
