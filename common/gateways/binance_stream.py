"""What Binance tells of an account by itself: one WebSocket that is opened again whenever it ends.

    usd-m   a listen key is asked for (POST, then PUT every half hour); it names the stream: BASE/ws/KEY
    spot    a signed request on the WebSocket API, userDataStream.subscribe.signature; events come wrapped

The listen key is as good as a password for reading and appears in no error. What was said while nothing listened is
lost: `openings` grows with each opening, and who follows orders asks for them then.
"""

import logging
from collections.abc import Callable
from typing import Any

import orjson

from common.backoff import Backoff
from common.errors import VenueError
from common.websocket import State, WebSocket

SILENCE_NS = 20_000_000_000  #: nothing heard, pongs included: the connection counts as dead
RENEW_NS = 1_800_000_000_000  #: between renewals of a listen key, which lives for twice as long
_BACKOFF_S = (0.1, 30.0)
_MAX_FRAME = 1 << 20


class UserStream:
    """`ask_key()` has a listen key asked for, answered by `key_told` or `failed`; `renew_key(key)` has it renewed.
    Without them the stream is at `base`, and `hello()` is the request that subscribes; `refused(code)` hears why it was
    not taken."""

    def __init__(self, base: str, clock, timeout_s: float, *, ask_key: Callable[[], None] | None = None,
                 renew_key: Callable[[str], None] | None = None, hello: Callable[[], bytes] | None = None,
                 refused: Callable[[int], None] = lambda code: None) -> None:
        logging.getLogger("websockets.client").setLevel(logging.INFO)  # below, it writes down what is sent: keys
        self._base, self._clock, self._timeout_s = base, clock, timeout_s
        self._ask_key, self._renew_key, self._hello, self._refused = ask_key, renew_key, hello, refused
        self._backoff = Backoff(*_BACKOFF_S)
        self._socket: WebSocket | None = None
        self._key = ""
        self._asked = self._greeted = False
        self._retry_ns = self._renew_ns = self._ping_ns = self._quiet_ns = 0
        self.live = False  #: what happens to orders is told
        self.openings = 0  #: how often it has become live
        self.error = "it has not been opened yet"  #: why it is not live

    def work(self, now: int) -> list[dict[str, Any]]:
        """Move things on; returns the events that have come."""
        if self._socket is None:
            self._open(now)
            return []
        try:
            frames = self._socket.recv()
            if self._socket.state is State.OPEN:
                self._tend(now)
        except VenueError as error:
            self._lose(str(error), now)
            return []
        events: list[dict[str, Any]] = []
        for frame, _ in frames:
            events += self._read(frame, now)
        return events

    def key_told(self, key: str) -> None:
        if not (key.isascii() and key.isalnum()):
            return self.failed("the listen key has characters that no key has")
        self._asked, self._key = False, key

    def failed(self, reason: str) -> None:
        """No key could be had, or renewed: begin anew, after a while."""
        self._asked = False
        self._lose(reason, self._clock.monotonic_ns())

    def leave_alone(self, until_ns: int) -> None:
        """Nothing is opened, asked for or renewed before then (monotonic); what is open stays so."""
        self._quiet_ns = until_ns

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    @property
    def wants_write(self) -> bool:
        return self._socket is not None and self._socket.wants_write

    def due_ns(self) -> int:
        """When `work` is to be called at the latest."""
        if self._socket is None:
            return 0 if self._asked else max(self._retry_ns, self._quiet_ns, 1)
        heard = max(self._socket.heard_ns, self._ping_ns)
        renew_ns = max(self._renew_ns, self._quiet_ns) if self._renew_ns else 0
        dues = [heard + SILENCE_NS // 2, renew_ns] if self.live else []
        return min(filter(None, dues), default=self._clock.monotonic_ns() + int(self._timeout_s * 1e9))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self.live = None, False

    # ---- opening, and staying open

    def _open(self, now: int) -> None:
        if self._asked or now < max(self._retry_ns, self._quiet_ns):
            return
        if self._ask_key is not None and not self._key:
            self._asked = True
            self._ask_key()
            return
        url = f"{self._base}/ws/{self._key}" if self._ask_key is not None else self._base
        self._greeted = False
        self._socket = WebSocket(url, self._clock, max_frame=_MAX_FRAME, timeout_s=self._timeout_s)

    def _tend(self, now: int) -> None:
        """The connection stands: say what is to be said."""
        if not self._greeted:
            self._greeted, self._ping_ns = True, now
            if self._hello is not None:
                self._socket.send(self._hello())
            else:
                self._alive(now)
        silent = now - self._socket.heard_ns
        if silent > SILENCE_NS or not self.live and silent > self._timeout_s * 1e9:
            self._lose("nothing has been heard for too long", now)
        elif silent > SILENCE_NS // 2 and now - self._ping_ns > SILENCE_NS // 2:
            self._ping_ns = now
            self._socket.ping()
        elif self.live and 0 < self._renew_ns <= now and now >= self._quiet_ns:
            self._renew_ns = now + RENEW_NS
            self._renew_key(self._key)

    def _alive(self, now: int) -> None:
        self.live, self.error = True, ""
        self.openings += 1
        self._renew_ns = now + RENEW_NS if self._renew_key is not None else 0

    def _lose(self, reason: str, now: int) -> None:
        self.close()
        self._key, self.error = "", reason
        self._retry_ns = now + int(self._backoff.failed() * 1e9)

    def _read(self, frame: bytearray, now: int) -> list[dict[str, Any]]:
        """A frame: an event, the answer to `hello`, or the end of the stream. What is none of them ends it, too:
        something may have been missed."""
        if self._socket is None:  # lost by a frame before this one
            return []
        try:
            told = orjson.loads(frame)
        except orjson.JSONDecodeError:
            told = None
        if isinstance(told, dict) and "status" in told and not self.live:
            if told["status"] == 200:
                self._alive(now)
            else:
                error = told.get("error")
                code = error.get("code") if type(error) is dict else None
                self._lose(f"the subscription was refused: {'' if code is None else code}", now)
                self._refused(code if type(code) is int else 0)
            return []
        event = told.get("event", told) if isinstance(told, dict) else None
        if not isinstance(event, dict) or not isinstance(event.get("e"), str):
            self._lose("a frame of the user stream makes no sense", now)
            return []
        self._backoff.good(now)
        if event["e"] in ("listenKeyExpired", "eventStreamTerminated"):
            self._lose(f"the venue ended the user stream: {event['e']}", now)
            return []
        return [event]
