"""One connection to a venue: a WebSocket on which everything leaves at the pace that the venue allows.

Subscriptions, resynchronisations, replies and heartbeats wait in one queue and go out when their turn has come, so a
connection with many symbols is not refused for asking too fast. How the connection began, what was sent and how it
ended is told, as control lines, to whoever records.
"""

import math
from collections import deque
from collections.abc import Callable

from common.capture_lines import Connect, Control, Send
from common.events import Venue
from common.websocket import State, WebSocket

_PING_AFTER = 0.5  # of the patience with a silent connection
Say = Callable[[Control], None]


class Connection:
    """Begun by the constructor; the owner polls `fileno`, calls `recv` and `work`. `silence_s`: nothing heard for so
    long, pongs included, and it counts as dead. Errors as of `common.websocket`."""

    def __init__(self, url: str, venue: Venue, clock, *, max_frame: int, silence_s: float, say: Say,
                 proxy: str = "") -> None:
        self.url, self.venue = url, venue
        self._clock, self._say = clock, say
        self._socket = WebSocket(url, clock, max_frame=max_frame, proxy=proxy)
        self._queue: deque[bytes] = deque()
        self._pace_ns = math.ceil(1e9 / venue.sends_per_s) if venue.sends_per_s else 0
        self._next_send_ns = 0
        self._beat = venue.heartbeat()
        self._beat_ns = self._ping_ns = 0
        self._silence_ns = int(silence_s * 1e9)
        self.opened_ns = 0  #: 0 until it has opened
        self.frame_ns = 0  #: when the newest frame came, or the connection opened

    def recv(self) -> list[tuple[bytearray, int]]:
        """Frames as (frame, monotonic ns). The first call after it has opened sends the subscriptions."""
        frames = self._socket.recv()
        if frames:
            self.frame_ns = frames[-1][1]
        if not self.opened_ns and self._socket.state is State.OPEN:
            self.opened_ns = self.frame_ns = self._clock.monotonic_ns()
            self._say(Connect(self.url))
            self.send(self.venue.subscriptions())
        return frames

    def send(self, frames: list[bytes]) -> None:
        """Queue frames, and send those whose turn it is."""
        self._queue.extend(frames)
        self._drain(self._clock.monotonic_ns())

    def work(self, now: int) -> None:
        """What the time asks for: paced frames, heartbeats, a ping where nothing has been heard."""
        if not self.opened_ns:
            return
        if self._beat is not None and now - max(self._beat_ns, self.opened_ns) >= self._beat.every_s * 1e9:
            self._beat_ns = now
            self._queue.appendleft(self._beat.frame)
        if self._queue:
            self._drain(now)
        quiet = now - max(self._socket.heard_ns, self.opened_ns)
        if quiet > self._silence_ns * _PING_AFTER and now - self._ping_ns > self._silence_ns * _PING_AFTER:
            self._ping_ns = now
            self._socket.ping()

    def is_dead(self, now: int) -> bool:
        """Whether nothing at all has been heard for too long."""
        return bool(self.opened_ns) and now - max(self._socket.heard_ns, self.opened_ns) > self._silence_ns

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        return self._socket.wants_write

    @property
    def state(self) -> str:
        """For people."""
        return self._socket.state.name.lower()

    @property
    def due_ns(self) -> int:
        """When the next paced frame may leave; 0 if none waits."""
        return self._next_send_ns if self._queue else 0

    def _drain(self, now: int) -> None:
        while self._queue and now >= self._next_send_ns:
            frame = self._queue.popleft()
            self._next_send_ns = now + self._pace_ns
            self._socket.send(frame)
            self._say(Send(frame))
