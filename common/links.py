"""Links between stages (PUSH/PULL over ipc), their taps, and waiting. The only module that imports zmq.

    link         message     from        to          binds
    ticks        TickRef     ingest      feature     feature
    work-K       Work        feature     worker K    worker K
    credits      Credit      worker      feature     feature
    predictions  Prediction  worker      executor    executor
    judged       Prediction  worker      monitor     monitor

The receiving side binds, because it is the one that exists once; senders connect and connect again by
themselves, so the order of starting does not matter. A sender never blocks: what nobody takes is refused and
counted by its caller, since memory holds the truth and the message is only a doorbell.

A tap is a PUB mirror of what one sender put on a link; it drops rather than waits, and while nobody listens it
costs nothing because its owner does not even build the message (`wanted`). What it mirrors leaves in heaps, a few
times a second: one by one, each would wake the machinery of a socket, which costs as much as the pipeline's own
work. A heap is the number of the tap, a counter by which a listener knows what it missed, the length of each
message, and then the link's own bytes.

Sockets are files in a folder that only this user may enter. A second bind on an ipc path would silently
steal the traffic of the first, so every bound path is held by `flock` first.
"""

import collections
import contextlib
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import zmq

from common.errors import ConfigError, ResourceError
from common.locks import lock_file, private_folder

LINKS = ("ticks", "work", "credits", "predictions", "judged")
FRAMES = "frames"  #: a tap without a link: raw venue frames, each after its 8-byte receive time
DECISIONS = "decisions"  #: another one: what the executor decided, and on what (common.decision)
TAPS = (FRAMES, *LINKS, DECISIONS)

_MAX_PATH = 107  # sockaddr_un, without the closing zero
_HIGH_WATER = 1000  # messages per pipe; doorbells only, so a deep queue would hold nothing but stale ones
_TAP_HIGH_WATER = 1000  # heaps per listener and side
_HEAP_BYTES = 32_768  # a heap leaves when it has so many, or so many messages
_HEAP_MESSAGES = 512
# Plain integers: the enumerations that zmq has of them cost microseconds in every expression.
_EVENTS, _POLLIN, _POLLOUT, _NOBLOCK = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.POLLOUT), int(zmq.NOBLOCK)
_LAST_HEAPS_MS = 200  # for a listener to take what is under way when the process ends
_HEAP_HEAD = struct.Struct("<IQI")  # number of the tap, messages before this heap, messages in it


class Network:
    """The sockets of one process. Close it last; it leaves no file behind for what it bound."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        private_folder(run_dir)
        self._context = zmq.Context()
        self._context.set(zmq.BLOCKY, False)
        self._locks: list[tuple[int, Path]] = []
        self.taps: list[Tap] = []

    def pull(self, *links: str) -> "Pull":
        """The receiving end of one link, or of several that one stage waits for together; raises InstanceError
        naming the process that has one already."""
        paths = [self._claim(link) for link in links]
        socket = self._context.socket(zmq.PULL)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, _HIGH_WATER)
        for path in paths:
            self._bind(socket, path)
        return Pull(socket)

    def push(self, link: str, tap: "Tap | None" = None) -> "Push":
        """A sending end; it may be made before the receiver exists."""
        socket = self._context.socket(zmq.PUSH)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, _HIGH_WATER)
        # Only to a receiver that is there: what waits for a dead one would be stale when it comes back.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, 10)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        socket.connect(f"ipc://{_path(self.run_dir, link)}")
        return Push(socket, tap)

    def tap(self, link: str, who: str) -> "Tap":
        """The mirror of what `who` sends on `link`."""
        path = self._claim(f"tap.{link}.{who}")
        socket = self._context.socket(zmq.XPUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, _TAP_HIGH_WATER)
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)  # tell of every listener that comes and goes, not of first and last
        self._bind(socket, path)
        tap = Tap(socket, zlib.crc32(f"{link}.{who}.{os.getpid()}".encode()))
        self.taps.append(tap)
        return tap

    def listen(self, link: str, who: str = "*") -> "Listener":
        """Everything that the taps of `link` mirror, of sender `who` or of all, present and future."""
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, _TAP_HIGH_WATER)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        return Listener(socket, self.run_dir, f"tap.{link}.{who}.sock")

    def close(self) -> None:
        for tap in self.taps:
            tap.poll()
        listened = any(tap.wanted for tap in self.taps)
        self._context.destroy(linger=_LAST_HEAPS_MS if listened else 0)
        for fd, path in self._locks:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            os.close(fd)
        self._locks.clear()

    def _claim(self, link: str) -> Path:
        path = _path(self.run_dir, link)
        if len(str(path)) > _MAX_PATH:
            raise ConfigError("the path of a socket is too long",
                              where=f"{path}: {len(str(path))} bytes, at most {_MAX_PATH}",
                              remedy="set a shorter instance.run_dir")
        self._locks.append((lock_file(self.run_dir / f"{link}.lock", f"link {link}"), path))
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # left by a killed process; the lock says that it is gone
        return path

    def _bind(self, socket: zmq.Socket, path: Path) -> None:
        try:
            socket.bind(f"ipc://{path}")
        except zmq.ZMQError as error:
            socket.close()
            raise ResourceError("cannot bind a socket", where=f"{path}: {error}",
                                remedy="check the folder's permissions and free space") from None


class Pull:
    """A receiving end. A stage calls `wait`, which fetches, and then `take`, which hands out what was fetched and
    never looks further: to find out that nothing is there costs zmq more than a message does."""

    def __init__(self, socket: zmq.Socket) -> None:
        self.socket = socket
        self._recv, self._get = socket.recv, socket.get
        self._fetched: bytes | None = None
        self._timeout_ms = -1

    def wait(self, timeout_ms: float) -> None:
        """Block until there is a message, and fetch it. About 1 us where one is there already."""
        if self._fetched is not None:
            return
        if timeout_ms and timeout_ms != self._timeout_ms:
            self._timeout_ms = timeout_ms
            self.socket.set(zmq.RCVTIMEO, math.ceil(timeout_ms))
        try:
            self._fetched = self._recv() if timeout_ms else self._recv(_NOBLOCK)
        except zmq.Again:
            pass

    def take(self) -> bytes | None:
        """What `wait` has fetched, once."""
        message, self._fetched = self._fetched, None
        return message

    def pending(self) -> bool:
        """Whether a message is there. About 3 us."""
        return self._fetched is not None or self._get(_EVENTS) & _POLLIN != 0

    def recv(self) -> bytes | None:
        """The next message, or None. Never blocks. About 1 us, but 8 where there is none."""
        if self._fetched is not None:
            return self.take()
        try:
            return self._recv(_NOBLOCK)
        except zmq.Again:
            return None

    def close(self) -> None:
        self.socket.close(0)


class Push:
    """A sending end, with the tap that mirrors what it sends."""

    def __init__(self, socket: zmq.Socket, tap: "Tap | None") -> None:
        self.socket = socket
        # The send of pyzmq's core, without the Python around it, which asks for what a PUSH socket has not.
        self._send = super(zmq.Socket, socket).send
        self._tap = tap

    def send(self, message: bytes) -> bool:
        """True if a receiver took it; False if there is none or it does not keep up. Never blocks."""
        try:
            self._send(message, _NOBLOCK)
        except zmq.Again:
            return False
        if self._tap is not None and self._tap.wanted:
            self._tap.send(message)
        return True

    def close(self) -> None:
        self.socket.close(0)


class Tap:
    """A mirror. `poll`, which the stage driver calls a few times a second, refreshes `wanted` and sends."""

    def __init__(self, socket: zmq.Socket, number: int) -> None:
        self.socket, self._number = socket, number
        self.wanted = False
        self.joined = 0  #: listeners that have come so far
        self._listeners = 0
        self._count = 0
        self._heap: list[bytes] = []
        self._size = 0

    def send(self, message: bytes) -> None:
        """Put `message` on the heap. About 100 ns, and 20 us when the heap leaves."""
        self._heap.append(message)
        self._size += len(message)
        if self._size >= _HEAP_BYTES or len(self._heap) >= _HEAP_MESSAGES:
            self._flush()

    def poll(self) -> None:
        """Send what is there, and count listeners come and gone."""
        if self._heap:
            self._flush()
        with contextlib.suppress(zmq.Again):
            while True:
                came = self.socket.recv(_NOBLOCK)[0]
                self._listeners += 1 if came else -1
                self.joined += came
        self.wanted = self._listeners > 0

    def _flush(self) -> None:
        heap, self._heap, self._size = self._heap, [], 0
        head = _HEAP_HEAD.pack(self._number, self._count, len(heap))
        self._count += len(heap)
        # XPUB drops for a listener that does not keep up; with NOBLOCK it cannot wait for anything.
        self.socket.send(b"".join((head, struct.pack(f"<{len(heap)}I", *map(len, heap)), *heap)), _NOBLOCK)


class Listener:
    """The far end of the taps of one link."""

    def __init__(self, socket: zmq.Socket, run_dir: Path, pattern: str) -> None:
        self.socket, self._run_dir, self._pattern = socket, run_dir, pattern
        self._connected: set[Path] = set()
        self._counts: dict[int, int] = {}
        self._heap: collections.deque[bytes] = collections.deque()
        self.missed = 0  #: messages that taps dropped because this end did not keep up
        self.discover()

    def discover(self) -> int:
        """Connect to taps that have appeared; returns how many are known. Call it now and then."""
        for path in self._run_dir.glob(self._pattern):
            if path not in self._connected:
                self.socket.connect(f"ipc://{path}")
                self._connected.add(path)
        return len(self._connected)

    def recv(self, timeout_ms: int) -> bytes | None:
        """The next message as it went over the link, or None after `timeout_ms`."""
        if not self._heap:
            if not self.socket.poll(timeout_ms):
                return None
            heap = self.socket.recv()
            number, before, count = _HEAP_HEAD.unpack_from(heap)
            self.missed += before - self._counts.get(number, before)
            self._counts[number] = before + count
            at = _HEAP_HEAD.size + 4 * count
            for size in struct.unpack_from(f"<{count}I", heap, _HEAP_HEAD.size):
                self._heap.append(heap[at:at + size])
                at += size
        return self._heap.popleft()

    def close(self) -> None:
        self.socket.close(0)


class LocalLink:
    """Both ends of a link in one process: for composition, replay and tests."""

    def __init__(self, capacity: int | None = None) -> None:
        self._messages: collections.deque[bytes] = collections.deque()
        self._capacity = capacity

    def send(self, message: bytes) -> bool:
        if self._capacity is not None and len(self._messages) >= self._capacity:
            return False
        self._messages.append(message)
        return True

    def wait(self, timeout_ms: float) -> None:
        """There is nothing to wait for: who sends is this very process."""

    def pending(self) -> bool:
        return bool(self._messages)

    def recv(self) -> bytes | None:
        return self._messages.popleft() if self._messages else None

    take = recv

    def __len__(self) -> int:
        return len(self._messages)

    def close(self) -> None:
        self._messages.clear()


class Poller:
    """Waits for links and for anything with `fileno()`."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._by_key: dict[Any, Any] = {}
        self._keys: dict[Any, Any] = {}

    def add(self, thing: Any, write: bool = False) -> None:
        """Wait for `thing` to be readable (and writable, if `write`); again to change what is waited for."""
        key = thing.socket if isinstance(thing, (Pull, Tap, Listener)) else thing.fileno()
        if self._keys.get(thing, key) != key:
            self.remove(thing)
        self._poller.register(key, _POLLIN | (_POLLOUT if write else 0))
        self._keys[thing] = key
        self._by_key[key] = thing

    def remove(self, thing: Any) -> None:
        key = self._keys.pop(thing, None)
        if key is not None:
            self._by_key.pop(key, None)
            with contextlib.suppress(KeyError):
                self._poller.unregister(key)

    def wait(self, timeout_ms: float) -> list[Any]:
        """What is ready, as given to `add`; empty after `timeout_ms`."""
        return [self._by_key[key] for key, _ in self._poller.poll(timeout_ms) if key in self._by_key]


def _path(run_dir: Path, link: str) -> Path:
    return run_dir / f"{link}.sock"
