"""One port for two protocols, and for whatever else comes to it."""

import contextlib
import socket

import orjson
import pytest
import websockets.exceptions
from hypothesis import given
from hypothesis import strategies as st

from common.loopback import connections

STATUS = b"GET /loopback/status HTTP/1.1\r\nHost: x\r\n\r\n"


def raw(served, *pieces: bytes) -> socket.socket:
    connection = socket.create_connection((served.host, served.port), timeout=10)
    for piece in pieces:
        connection.sendall(piece)
    return connection


def answers(connection: socket.socket, count: int = 1) -> bytes:
    """Bytes until `count` answers came or the server closed."""
    data = b""
    with connection, contextlib.suppress(ConnectionResetError):
        while data.count(b"HTTP/1.1") < count or not data.endswith(b"}"):
            more = connection.recv(65536)
            if not more:
                break
            data += more
    return data


def test_http_and_websocket_share_the_port(serving):
    with serving() as served, served.socket("/ws") as client:
        assert served.http("GET", "/loopback/status").json["clients"] == 1
        client.ping().wait(10)


def test_a_request_may_come_byte_by_byte(serving):
    with serving() as served:
        pieces = [STATUS[i:i + 1] for i in range(len(STATUS))]
        assert answers(raw(served, *pieces)).startswith(b"HTTP/1.1 200 OK")


def test_requests_may_be_pipelined_and_the_connection_stays(serving):
    with serving() as served:
        data = answers(raw(served, STATUS * 3), count=3)
        assert data.count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize(("nonsense", "status"), [
    (b"\x00\x01\x02\x03\r\n\r\n", 400), (b"GET / HTTP/1.1\r\n\r\n", 400), (b"GET  HTTP/9.9\r\n\r\n", 400),
    (b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", 404), (b"GET /?%zz=%ff&&=& HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000, 431)])
def test_nonsense_is_refused_and_the_exchange_goes_on(serving, nonsense, status):
    with serving() as served:
        assert answers(raw(served, nonsense)).startswith(b"HTTP/1.1 %d " % status)
        assert served.http("GET", "/loopback/status").status == 200


@pytest.mark.parametrize("method", [b"HEAD", b"CONNECT", b"OPTIONS", b"BREW"])
def test_unusual_methods_are_answered(serving, method):
    with serving() as served:
        with raw(served, b"%s /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % method) as connection:
            data = b"".join(iter(lambda: connection.recv(65536), b""))
        assert data.startswith(b"HTTP/1.1 404 ") and data.endswith(b"\r\n\r\n") == (method == b"HEAD")


def test_a_body_that_is_too_large_is_refused_with_413(serving):
    with serving() as served:
        answer = served.http("POST", "/api/trade/v1/bot/orders", b"x" * (connections.MAX_BODY + 1))
        assert (answer.status, answer.json["error"]["code"]) == (413, "BODY_TOO_LARGE")


def test_a_client_that_goes_in_the_middle_of_a_request_is_forgotten(serving):
    with serving() as served:
        raw(served, b"POST /api/trade/v1/bot/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{").close()
        raw(served, b"GET").close()
        assert served.http("GET", "/loopback/status").status == 200


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(serving):
    with serving() as served:
        connection = raw(served, b"POST /nothing HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                                 b"Content-Length: 2\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert answers(connection).startswith(b"HTTP/1.1 404 Not Found")


def test_a_websocket_elsewhere_is_404(serving):
    with serving() as served:
        with pytest.raises(websockets.exceptions.InvalidStatus, match="404"):
            served.socket("/elsewhere")


def test_a_handshake_that_is_wrong_is_refused(serving):
    with serving() as served:
        head = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        data = answers(raw(served, head))
        assert data.startswith(b"HTTP/1.1 400 ")


def test_messages_in_fragments_and_pings_are_understood(serving):
    with serving() as served, served.socket("/ws") as client:
        client.send(['{"action":"sub', 'scribe","chan', 'nels":["trades:AAPL"]}'])
        assert orjson.loads(client.recv(10)) == {"type": "subscribed", "channels": ["trades:AAPL"]}
        assert client.ping(b"x").wait(10)


@pytest.mark.parametrize(("message", "code"), [(b"binary", 1003), ("x" * (connections.MAX_BODY + 1), 1009)])
def test_what_the_socket_does_not_take_ends_the_connection_with_a_reason(serving, message, code):
    with serving() as served, served.socket("/ws") as client:
        client.send(message)
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            while True:
                client.recv(10)
        assert closed.value.rcvd.code == code


def test_clients_are_told_when_the_exchange_ends(serving):
    with contextlib.ExitStack() as stack:
        with serving() as served:
            client = stack.enter_context(served.socket("/ws"))
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            while True:
                client.recv(10)
    assert closed.value.rcvd.code == 1001


@given(st.lists(st.binary(max_size=300) | st.sampled_from([b"x" * 125, b"x" * 126, b"x" * 65535, b"x" * 65536])))
def test_frames_are_taken_apart_as_they_were_put_together(messages):
    assert list(connections.unframed(b"".join(map(connections.framed, messages)))) == messages


def test_a_pong_does_not_come_between_the_bytes_of_a_frame(serving):
    with serving(disturb=("split:rate=1",), rate=100.0) as served, served.socket("/ws", max_queue=None) as client:
        client.send('{"action":"subscribe","channels":["orderbook:AAPL","orderbook:BTC-USD"]}')
        for _ in range(20):
            assert client.ping().wait(10)
            assert orjson.loads(client.recv(10))


def test_frames_that_are_held_back_leave_after_a_moment_at_the_latest(serving):
    with serving(disturb=("coalesce:at=1,size=1000",), rate=1.0) as served, served.socket("/ws") as client:
        client.send('{"action":"subscribe","channels":["orderbook:AAPL"]}')
        assert orjson.loads(client.recv(10))["type"] == "subscribed"
