"""A venue for tests: a real WebSocket server, and real HTTP on the same port, from the websockets library.

The test says what happens on a connection (`talk`) and what a path answers (`answer`); everything runs in
threads of the server and is over when the `with` block ends.
"""

import contextlib
import socket
import threading
from collections.abc import Callable

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response
from websockets.sync.server import ServerConnection, serve


class Peer:
    """One connection, from the server's side."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.request = connection.request
        self.path = connection.request.path
        self.received: list[bytes] = []

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.connection.send(frame, text=True)

    def recv(self, timeout: float = 10) -> bytes:
        """The next frame of the client."""
        self.received.append(self.connection.recv(timeout, decode=False))
        return self.received[-1]

    def hold(self) -> None:
        """Stay, reading what comes, until the client goes or the test ends."""
        while True:
            self.recv(timeout=60)


def nothing(peer: Peer) -> None:
    peer.hold()


class VenueServer:
    """`talk(peer)` runs for each connection; when it returns the connection is closed. `answer(path)` gives
    (status, headers, body) for plain HTTP, or None where a WebSocket lives. Both may be changed at any time."""

    def __init__(self, talk: Callable[[Peer], None] = nothing,
                 answer: Callable[[str], tuple[int, dict, bytes] | None] = lambda path: None, **options) -> None:
        self.talk, self.answer = talk, answer
        self.peers: list[Peer] = []
        self.asked: list[str] = []  #: paths of all requests
        self._server = serve(self._handle, "127.0.0.1", 0, process_request=self._process, compression=None,
                             ping_interval=None, close_timeout=0.05, **options)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> "VenueServer":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.connection.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _handle(self, connection: ServerConnection) -> None:
        peer = Peer(connection)
        self.peers.append(peer)
        try:
            self.talk(peer)
        except (ConnectionClosed, OSError, EOFError):
            pass  # the client or the test went away

    def _process(self, connection: ServerConnection, request) -> Response | None:
        self.asked.append(request.path)
        answer = self.answer(request.path)
        if answer is None:
            return None
        status, headers, body = answer
        headers = Headers({"Content-Length": str(len(body)), "Connection": "close", **headers})
        return Response(status, "as asked", headers, body)
