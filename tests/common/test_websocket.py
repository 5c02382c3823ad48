"""The WebSocket connection against real servers: opening, frames, and every way to end."""

import contextlib
import itertools
import select
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State as Wire
from websockets.uri import parse_uri

from common.clock import ManualClock, SystemClock
from common.errors import ConfigError
from common.websocket import Closed, Refused, State, Untrusted, WebSocket, retry_after_s
from tests.venue_server import VenueServer
from tests.waiting import until


@pytest.fixture
def connect():
    made = []

    def make(url, **options) -> WebSocket:
        made.append(WebSocket(url, options.pop("clock", SystemClock()), **options))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def raw():
    """A server that accepts one connection and does with it what it is told: raw(action) -> url."""
    listeners, threads = [], []

    def start(action) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve():
            with contextlib.suppress(OSError):  # the client, or the test, may be gone already
                peer, _ = listener.accept()
                with peer:
                    peer.settimeout(10)
                    action(peer)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return f"ws://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()
    for thread in threads:
        thread.join(10)


def turn(connection: WebSocket) -> list:
    """Wait for the socket as ingest does, then read."""
    if connection.fileno() >= 0:
        events = select.POLLIN | (select.POLLOUT if connection.wants_write else 0)
        poll = select.poll()
        poll.register(connection.fileno(), events)
        poll.poll(20)
    return connection.recv()


def frames_of(connection: WebSocket, count: int) -> list[bytes]:
    found: list = []
    until(lambda: found.extend(turn(connection)) or len(found) >= count)
    return [bytes(frame) for frame, _ in found]


def opened(connection: WebSocket) -> WebSocket:
    until(lambda: turn(connection) or connection.state is State.OPEN)
    return connection


def end_of(connection: WebSocket, kind: type = Closed) -> Exception:
    with pytest.raises(kind) as end:
        until(lambda: turn(connection) and False)
    assert connection.state is State.CLOSED and connection.fileno() == -1
    return end.value


# ---- opening


def test_it_opens_without_blocking_and_asks_for_the_path_without_compression(connect):
    with VenueServer() as server:
        connection = connect(f"{server.ws_url}/stream?streams=a@depth/b@trade")
        assert connection.state < State.OPEN
        opened(connection)
        request = until(lambda: server.peers)[0].request
        assert request.path == "/stream?streams=a@depth/b@trade"
        assert "Sec-WebSocket-Extensions" not in request.headers


def test_proxies_of_the_environment_are_not_used(connect, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with VenueServer() as server:
        opened(connect(server.ws_url))


def test_a_host_name_is_looked_up(connect):
    with VenueServer() as server:
        opened(connect(f"ws://localhost:{server.port}"))


@pytest.mark.parametrize("url", ["http://127.0.0.1", "ws://", "127.0.0.1:80", "ws://h:99999"])
def test_an_unusable_url_is_an_error_of_the_configuration(url):
    with pytest.raises(ConfigError, match="url="):
        WebSocket(url, SystemClock())


def test_nobody_listening_says_so(connect):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "refused" in str(end_of(connect(f"ws://127.0.0.1:{port}")))


def test_an_unknown_host_says_so(connect):
    assert "no-such-host.invalid" in str(end_of(connect("ws://no-such-host.invalid")))


@pytest.mark.parametrize(("status", "headers", "pause_s"), [
    (429, {"Retry-After": "7"}, 7.0), (418, {"Retry-After": "120"}, 120.0), (403, {}, 0.0),
    (503, {"Retry-After": "soon"}, 0.0)])
def test_a_refused_handshake_has_its_status_and_the_pause_that_is_asked_for(connect, status, headers, pause_s):
    with VenueServer(answer=lambda path: (status, headers, b"no, thank you")) as server:
        end = end_of(connect(server.ws_url), Refused)
    assert (end.status, end.retry_after_s) == (status, pause_s)
    assert str(status) in str(end) and "no, thank you" in str(end)


def test_a_pause_may_be_given_as_a_date():
    assert 50 < retry_after_s(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))) <= 60
    assert retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT") == retry_after_s("") == retry_after_s("-1") == 0


def test_a_server_that_never_answers_is_given_up(connect, raw):
    clock = ManualClock()
    connection = connect(raw(lambda peer: peer.recv(65536) and peer.recv(1)), clock=clock, timeout_s=3)
    until(lambda: turn(connection) or connection.state is State.SHAKING)
    clock.set(2_999_999_999)
    assert turn(connection) == []
    clock.set(3_000_000_000)
    assert "within 3 s" in str(end_of(connection))


@pytest.mark.parametrize("answer", [
    b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\0" * 9000, b"\0" * 99_000, b""])
def test_a_server_that_speaks_something_else_is_an_error(connect, raw, answer):
    def action(peer):
        peer.recv(65536)
        peer.sendall(answer)

    end_of(connect(raw(action)))


# ---- frames


def test_frames_come_in_order_with_the_time_at_which_they_left_the_socket(connect):
    with VenueServer(lambda peer: (peer.send(*(b"%d" % i for i in range(500))), peer.hold())) as server:
        clock = ManualClock(77)
        connection = connect(server.ws_url, clock=clock)
        found: list = []
        until(lambda: found.extend(turn(connection)) or len(found) >= 500)
    assert [bytes(frame) for frame, _ in found] == [b"%d" % i for i in range(500)]
    assert {recv_ns for _, recv_ns in found} == {77}


def test_fragments_are_joined_and_a_ping_between_them_is_answered(connect):
    def talk(peer):
        def parts():
            yield b'{"a":'
            pinged.append(peer.connection.ping())
            yield b"1"
            yield b"}"

        peer.connection.send(parts(), text=True)
        peer.connection.send([b"bin", b"ary"])
        peer.connection.send(b"")
        peer.hold()

    pinged: list = []
    with VenueServer(talk) as server:
        connection = connect(server.ws_url)
        assert frames_of(connection, 3) == [b'{"a":1}', b"binary", b""]
        until(lambda: turn(connection) or pinged[0].is_set(), what="the pong")


def test_what_is_sent_arrives(connect):
    with VenueServer() as server:
        connection = opened(connect(server.ws_url))
        big = b"x" * 300_000
        connection.send(b'{"action":"subscribe"}')
        connection.send(big)
        until(lambda: turn(connection) or (server.peers and len(server.peers[0].received) == 2))
        assert server.peers[0].received == [b'{"action":"subscribe"}', big] and not connection.wants_write


def test_frames_of_any_size_up_to_the_limit_come_and_one_above_it_ends_the_connection(connect):
    sizes = (0, 1, 125, 126, 65535, 65536, 100_000)
    with VenueServer(lambda peer: (peer.send(*(b"x" * n for n in sizes), b"y" * 100_001), peer.hold())) as server:
        connection = connect(server.ws_url, max_frame=100_000)
        assert [len(frame) for frame in frames_of(connection, len(sizes))] == list(sizes)
        assert "100001 bytes" in str(end_of(connection))


def test_fragments_count_together_against_the_limit(connect):
    with VenueServer(lambda peer: (peer.connection.send([b"x" * 600, b"y" * 600], text=True), peer.hold())) as server:
        assert "broke the protocol" in str(end_of(connect(server.ws_url, max_frame=1000)))


DATA = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
WIRE = st.lists(st.tuples(st.sampled_from([*DATA, Opcode.PING, Opcode.PONG, Opcode.CLOSE]),
                          st.one_of(st.binary(max_size=130),
                                    st.sampled_from([b"x" * 126, b"y" * 70_000, b"\x03\xe8"])),
                          st.sampled_from([True, True, True, False]),  # whether it is the last fragment
                          st.sampled_from(["", "", "", "", "", "masked", "reserved bits"])), max_size=8)


@settings(max_examples=200)
@given(WIRE, st.binary(max_size=4), st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_however_the_bytes_are_cut_the_frames_are_those_of_the_protocol(wire, tail, cuts):
    """Also where the server breaks the protocol: masked frames, reserved bits, stray fragments, garbage."""
    stream = b""
    for opcode, data, fin, fault in wire:
        frame = Frame(opcode, data, fin) if opcode in DATA else Frame(opcode, data[:125], True)
        raw = frame.serialize(mask=fault == "masked")
        stream += raw if fault != "reserved bits" else b"\xf1" + raw[1:]
    stream += tail
    reference = ClientProtocol(parse_uri("ws://host"), state=Wire.OPEN, max_size=60_000)
    reference.receive_data(stream)
    expected, parts = [], b""
    for event in reference.events_received():
        if event.opcode in DATA:
            parts += event.data
            if event.fin:
                expected.append(parts)
                parts = b""
    connection = WebSocket("ws://127.0.0.1:9", ManualClock(), max_frame=60_000)
    connection.state, connection._protocol = State.OPEN, ClientProtocol(
        connection._uri, state=Wire.OPEN, max_size=60_000)
    found: list = []
    at = 0
    for cut in itertools.cycle(cuts):
        connection._received += stream[at:at + cut * cut]
        connection._cut(found, 0)
        at += cut * cut
        if at >= len(stream):
            break
    assert [bytes(frame) for frame, _ in found] == expected
    assert connection._protocol.state == reference.state or connection._received
    assert connection._protocol.close_rcvd == reference.close_rcvd
    connection._drop()


# ---- the end


def test_frames_before_the_end_are_delivered_first_and_the_reason_is_given(connect):
    def talk(peer):
        peer.send(b"1", b"2")
        peer.connection.close(1012, "restart")

    with VenueServer(talk) as server:
        connection = connect(server.ws_url)
        assert frames_of(connection, 2) == [b"1", b"2"]
        assert "1012" in str(end_of(connection)) and "restart"


def test_a_connection_that_is_cut_is_closed(connect):
    def talk(peer):
        peer.send(b"1")
        peer.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.connection.socket.close()

    with VenueServer(talk) as server:
        assert "lost" in str(end_of(connect(server.ws_url)))


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\x83\x00", b"\x80\x00", b"\x81\x80abcd", b"\xc1\x00"])
def test_garbage_on_the_wire_ends_the_connection(connect, garbage):
    def talk(peer):
        peer.connection.socket.sendall(garbage)
        peer.hold()

    with VenueServer(talk) as server:
        assert "broke the protocol" in str(end_of(connect(server.ws_url)))


def test_closing_says_goodbye_and_may_be_repeated(connect):
    with VenueServer() as server:
        connection = opened(connect(server.ws_url))
        peer = until(lambda: server.peers)[0]
        connection.close()
        connection.close()
        until(lambda: peer.connection.close_code == 1000)
        with pytest.raises(Closed):
            connection.recv()


def test_closing_while_it_opens_leaves_nothing_open(connect, raw):
    connection = connect(raw(lambda peer: peer.recv(65536)))
    turn(connection)
    connection._drop()
    assert connection.fileno() == -1 and connection.state is State.CLOSED


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    try:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the openssl command is needed to make a certificate")
    return key, cert


@pytest.fixture
def secure(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    frames = [b"%04d" % i * 2000 for i in range(40)]
    with VenueServer(lambda peer: (peer.send(*frames), peer.hold()), ssl=context) as server:
        yield server


def test_frames_over_tls_all_come_though_the_socket_falls_silent(connect, secure, certificate):
    trusted = ssl.create_default_context(cafile=str(certificate[1]))
    connection = connect(f"wss://localhost:{secure.port}", tls=trusted)
    assert frames_of(connection, 40) == [b"%04d" % i * 2000 for i in range(40)]


def test_an_untrusted_certificate_is_fatal_and_says_so(connect, secure):
    error = end_of(connect(f"wss://localhost:{secure.port}"), Untrusted)
    assert "certificate" in str(error) and "market.ws_url" in error.remedy


def test_a_port_that_speaks_no_tls_is_fatal_and_says_so(connect, raw):
    url = raw(lambda peer: (peer.recv(65536), peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")))
    assert "TLS failed" in str(end_of(connect(url.replace("ws:", "wss:")), Untrusted))


def test_a_connection_lost_during_the_tls_handshake_may_be_tried_again(connect, raw):
    error = end_of(connect(raw(lambda peer: peer.recv(65536)).replace("ws:", "wss:")))
    assert not isinstance(error, Untrusted) and "TLS handshake" in str(error)
