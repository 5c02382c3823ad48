"""What a stage tells systemd about itself: that it is ready, what it waits for, that it lives, that it stops.

The protocol is sd_notify(3): one datagram of KEY=VALUE lines to the AF_UNIX socket that $NOTIFY_SOCKET names, where `@`
stands for the zero byte of the abstract namespace. Without that variable nothing is opened and nothing is sent.
"""

import os
import socket
from collections.abc import Mapping

ENV_SOCKET, ENV_WATCHDOG = "NOTIFY_SOCKET", "WATCHDOG_USEC"
_STATUS_CHARACTERS = 400


class Notifier:
    """The sending end. A datagram that cannot be delivered is dropped: systemd may be starting itself anew, and what
    is told next is newer. It never blocks. About 5 us a datagram, and it is called from housekeeping alone."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        name = environ.get(ENV_SOCKET, "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._socket = None
        if name.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        # As sd_watchdog_enabled(3) advises, with room to spare: a quarter of the time that may pass.
        self._every_ns = int(environ.get(ENV_WATCHDOG) or 0) * 1000 // 4
        self._next_ns = 0
        self._status = ""

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return self._socket is not None

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=stopping")

    def status(self, text: str) -> None:
        """A line for people, as `systemctl status` shows it; sent when it differs from the last one."""
        line = " ".join(text.split())[:_STATUS_CHARACTERS]
        if line != self._status and self._send(f"STATUS={line}"):
            self._status = line

    def alive(self, now_ns: int) -> None:
        """Called from a turn that only a living loop makes; sends no more than the watchdog needs."""
        if self._every_ns and now_ns >= self._next_ns and self._send("WATCHDOG=1"):
            self._next_ns = now_ns + self._every_ns

    def _send(self, text: str) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:  # no reader, or one whose queue is full: see above
            return False
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def words(told: dict) -> str:
    """What a stage says of itself in its telemetry, in a line: what it waits for, else its state and why."""
    if told.get("waiting_for"):
        return f"waiting for {told['waiting_for']}"
    state, why = told.get("state") or "ready", told.get("why")
    return f"{state}: {why}" if why else state
