"""CONNECT through a proxy: whole, byte by byte, refused, and over real sockets to a real WebSocket and HTTP server."""

import contextlib
import socket
import threading

import pytest

from common.clock import SystemClock
from common.errors import ConfigError
from common.events import HttpRequest
from common.http import HttpClient
from common.tunnel import HEAD_MAX, Proxy, Tunnel
from common.websocket import Closed, State, WebSocket
from tests.venue_server import VenueServer
from tests.waiting import until


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_answer_in_pieces_of_any_size_opens_the_tunnel(size):
    tunnel = Tunnel("venue.example", 443, "me:secret")
    assert tunnel.request == (b"CONNECT venue.example:443 HTTP/1.1\r\nHost: venue.example:443\r\n"
                              b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n")
    answer = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"
    for at in range(0, len(answer), size):
        assert not tunnel.open
        tunnel.receive(answer[at:at + size])
    assert tunnel.open and not tunnel.error


@pytest.mark.parametrize(("answer", "error"), [
    (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "status 407"),
    (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP"), (b"x" * (HEAD_MAX + 1), "does not speak HTTP"),
    (b"", "closed"), (b"HTTP/1.1 200 OK\r\n\r\nmore", "behind")])
def test_anything_else_is_refused_with_its_reason(answer, error):
    tunnel = Tunnel("::1", 80)
    assert tunnel.request.startswith(b"CONNECT [::1]:80 ")
    tunnel.receive(answer)
    assert error in tunnel.error and not tunnel.open


def test_a_proxy_is_host_and_port_and_nothing_secret():
    assert Proxy.parse("http://proxy.example:3128") == ("proxy.example", 3128) and Proxy.parse("") is None
    for url in ("proxy:3128", "https://p:1", "http://p", "http://u:secret@p:1", "http://p:1/x", "http://p:99999"):
        with pytest.raises(ConfigError) as refusal:
            Proxy.parse(url)
        assert "secret" not in str(refusal.value)


class Relay:
    """A proxy: takes CONNECT, answers with `answer`, and then carries bytes both ways."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.asked: list[bytes] = []
        self._answer, self._listener = answer, socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                head = b""
                while b"\r\n\r\n" not in head:
                    head += near.recv(4096)
                self.asked.append(head)
                near.sendall(self._answer)
                if b" 200 " not in self._answer:
                    continue
                host, _, port = head.split()[1].decode().rpartition(":")
                far = socket.create_connection((host, int(port)))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


def test_websocket_and_http_go_through_the_proxy_that_is_named():
    relay = Relay()
    with VenueServer(lambda peer: (peer.send(b"hello"), peer.hold()), lambda path: (200, {}, b"body")
                     if path == "/rest" else None) as server:
        connection = WebSocket(f"{server.ws_url}/ws", SystemClock(), proxy=relay.url)
        frames = []
        until(lambda: frames.extend(connection.recv()) or frames)
        assert bytes(frames[0][0]) == b"hello" and connection.state is State.OPEN
        client = HttpClient(server.http_url, 5.0, SystemClock(), proxy=relay.url)
        client.submit(HttpRequest("GET", "/rest"), 1)
        reply, = until(client.work)
        assert (reply.status, reply.body) == (200, b"body")
        assert [head.split()[1] for head in relay.asked] == [f"127.0.0.1:{server.port}".encode()] * 2
        connection.close()
        client.close()
    relay.close()


def test_a_proxy_that_refuses_is_told_as_such():
    relay = Relay(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    connection = WebSocket("ws://127.0.0.1:1/ws", SystemClock(), proxy=relay.url)
    with pytest.raises(Closed, match="proxy refused with status 403"):
        until(lambda: connection.recv())
    client = HttpClient("http://127.0.0.1:1", 5.0, SystemClock(), proxy=relay.url)
    client.submit(HttpRequest("GET", "/"), 1)
    reply, = until(client.work)
    assert reply.status == 0 and "proxy refused with status 403" in reply.error and not reply.sent
    relay.close()
