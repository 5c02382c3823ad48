"""The source of a benchmark: one WebSocket server that plays a tape of VecTrade frames by schedule.

The tape is made beforehand, WebSocket framing included, so that playing it costs one `send` a wake. Frame k of a
step is due at start + k / rate whatever happened to the frames before it: a receiver that stalls finds what it
missed waiting, as at a venue, and does not slow the venue down. How late the source itself was is part of each
report; latencies are counted from the receiver's own stamp.

As a process (`python -m procs.bench.source TAPE`) it is told what to do on its standard input and answers on its
standard output, one JSON object a line:

    -> (start)                        <- {"port": N}
                                      <- {"subscribed": true}          snapshots have been sent
    -> {"frames": N, "rate": R}       <- {"frames", "seconds", "blocked_s", "late_us": {"p50", "p99", "max"}}
    -> {"rewind": true}               <- {"left": N}                   snapshots have been sent again

R in frames per second; 0: as fast as the receiver takes them.
"""

import contextlib
import ctypes
import json
import select
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, Sequence

import numpy as np
from websockets.server import ServerProtocol

from common import placement
from common.config import load
from common.synthetic import SyntheticMarket
from procs.bench.bed import Bed

_HEAP_NS = 200_000  # the least pause: at high rates frames leave in small heaps, as a busy venue's do
_SERVICE_NS = 50_000_000
FRAMES_PER_STEP = 1.2  #: of the synthetic market: a change, and now and then trades


class Tape:
    """data: the frames, framed, end to end; offsets: int64[frames + 1]; the first `opening` are snapshots."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offsets = np.load(path.with_suffix(".npy"))
        self.opening = int(self.offsets[0])
        self.offsets[0] = 0
        self.frames = len(self.offsets) - 1

    @classmethod
    def record(cls, path: Path, symbols: Sequence[str], frames: int, rate: float, seed: int = 1) -> "Tape":
        """At least `frames` frames of a market that makes `rate` of them a second. About 20 us a frame."""
        market = SyntheticMarket(symbols, seed, rate / FRAMES_PER_STEP, start_ms=1_700_000_000_000)
        offsets = [len(symbols)]
        size = 0
        with path.open("wb") as file:
            for _, frame in market.frames(frames / rate * 1.05 + 1):
                framed = _framed(frame)
                file.write(framed)
                size += len(framed)
                offsets.append(size)
        np.save(path.with_suffix(".npy"), np.array(offsets, np.int64))
        return cls(path)


def _framed(payload: bytes) -> bytes:
    """A final text frame of a server: not masked."""
    size = len(payload)
    return (struct.pack("!BB", 0x81, size) if size < 126 else struct.pack("!BBH", 0x81, 126, size)) + payload


class Source:
    """The end of the benchmark that drives such a process."""

    def __init__(self, bed: Bed, tape: Tape, environment: dict[str, str]) -> None:
        self._bed, self._tape, self._at = bed, tape, 0
        self.process = bed.spawn("procs.bench.source", str(tape.path), environment=environment, talks=True)
        self.port = self._answer()["port"]
        self.url = f"ws://127.0.0.1:{self.port}"

    def await_subscriber(self) -> None:
        self._answer(60.0)
        self._at = self._tape.opening

    def begin(self, seconds: float, rate: float) -> int:
        """Play that long at `rate`, from the start of the tape again if the rest of it does not suffice; returns
        the number of frames."""
        frames = round(seconds * rate)
        if self._at + frames > self._tape.frames:
            raise ValueError(f"the tape has {self._tape.frames} frames, {frames} after {self._at} were asked for")
        self._at += frames
        self._ask({"frames": frames, "rate": rate})
        return frames

    def result(self, limit_s: float) -> dict[str, Any]:
        """The report of what was begun last, when it is done."""
        return self._answer(limit_s)

    def play(self, seconds: float, rate: float) -> dict[str, Any]:
        self.begin(seconds, rate)
        return self.result(3 * seconds + 30)

    def flood(self, frames: int) -> None:
        """Begin to play `frames` frames as fast as they are taken."""
        self._at += frames
        self._ask({"frames": frames, "rate": 0})

    @property
    def left(self) -> int:
        return self._tape.frames - self._at

    def rewind(self) -> None:
        """Back to the start of the tape: books begin anew with its snapshots."""
        self._ask({"rewind": True})
        self._answer()
        self._at = self._tape.opening

    def stop(self) -> None:
        self._bed.stop([self.process])

    def _ask(self, command: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def _answer(self, limit_s: float = 30.0) -> dict[str, Any]:
        ready = self._bed.until(lambda: select.select([self.process.stdout], [], [], 0.05)[0], "the source", limit_s)
        return json.loads(ready[0].readline())


def backlog(port: int) -> int:
    """Bytes under way on the connections of `port`: sent and not acknowledged, or not yet read by the receiver."""
    total, name = 0, f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state, queues = line.split()[1:5]
        if state == "01" and name in (local[-5:], remote[-5:]):
            sending, _, waiting = queues.partition(":")
            total += int(sending, 16) + int(waiting, 16)
    return total


class _Player:
    """The process: one connection, one tape."""

    def __init__(self, tape: Tape, connection: socket.socket) -> None:
        self._tape, self._connection, self._at = tape, connection, 0
        self._data = memoryview(tape.path.read_bytes())
        self._protocol = ServerProtocol()
        self.subscribed = False
        self._shaken = False
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)

    def fileno(self) -> int:
        return self._connection.fileno()

    def service(self) -> None:
        """Answer the handshake, subscriptions and pings. Only between frames."""
        protocol = self._protocol
        with contextlib.suppress(BlockingIOError):
            data = self._connection.recv(65536)
            if not data:
                raise SystemExit
            protocol.receive_data(data)
        for event in protocol.events_received():
            if not self._shaken:
                protocol.send_response(protocol.accept(event))
                self._shaken = True
            elif not self.subscribed and b'"subscribe"' in event.data:
                channels = json.loads(event.data)["channels"]
                protocol.send_text(json.dumps({"type": "subscribed", "channels": channels}).encode())
                self.subscribed = True
        self._send(memoryview(b"".join(protocol.data_to_send())))

    def beat(self) -> None:
        """A sign of life while nothing is played."""
        self._protocol.send_text(b'{"type":"heartbeat","timestamp":%d}' % (time.time_ns() // 1_000_000))
        self._send(memoryview(b"".join(self._protocol.data_to_send())))

    def open(self) -> None:
        """The snapshots."""
        self._at = self._tape.opening
        self._send(self._data[:self._tape.offsets[self._at]])

    def rewind(self) -> dict[str, Any]:
        self.open()
        return {"left": self._tape.frames - self._at}

    def play(self, frames: int, rate: float) -> dict[str, Any]:
        first, last = self._at, min(self._at + frames, self._tape.frames)
        offsets, late = self._tape.offsets.tolist(), np.zeros(last - first, np.int64)
        step = 1e9 / rate if rate else 0.0
        blocked = 0
        start = time.monotonic_ns() + 1_000_000
        serviced, at = start, first
        while at < last:
            now = time.monotonic_ns()
            # At full speed: heaps of what a socket takes.
            due = min(last, first + int((now - start) / step) + 1 if rate else at + 256)
            if due <= at:
                time.sleep(max(start + (at - first) * step - now, _HEAP_NS) / 1e9)
                continue
            blocked += self._send(self._data[offsets[at]:offsets[due]])
            late[at - first:due - first] = now - start - step * np.arange(at - first, due - first)
            at = due
            if now - serviced > _SERVICE_NS:
                serviced = now
                self.service()
        self._at = last
        seconds = (time.monotonic_ns() - start) / 1e9
        worst = np.percentile(late, (50, 99, 100)) / 1000 if rate and len(late) else np.zeros(3)
        return {"frames": last - first, "seconds": seconds, "blocked_s": blocked / 1e9,
                "late_us": dict(zip(("p50", "p99", "max"), worst.round(1).tolist()))}

    def _send(self, data: memoryview) -> int:
        """Send all of it; returns the ns for which the receiver did not take it."""
        blocked = 0
        while data:
            try:
                data = data[self._connection.send(data):]
            except BlockingIOError:
                now = time.monotonic_ns()
                select.select([], [self], [], 1.0)
                blocked += time.monotonic_ns() - now
        return blocked


def main(path: str) -> None:
    config = load()
    placement.pin("exchange", config.placement)
    ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK: wake on time, not within 50 us of it
    tape = Tape(Path(path))

    def answer(told: dict[str, Any]) -> None:
        print(json.dumps(told), flush=True)

    listener = socket.create_server(("127.0.0.1", 0))
    answer({"port": listener.getsockname()[1]})
    player = _Player(tape, listener.accept()[0])
    placement.freeze_collector(config.placement)
    with contextlib.suppress(ConnectionError):
        while True:
            ready = select.select([player, sys.stdin], [], [], 1.0)[0]
            if not ready and player.subscribed:
                player.beat()
            if player in ready:
                before = player.subscribed
                player.service()
                if player.subscribed and not before:
                    player.open()
                    answer({"subscribed": True})
            if sys.stdin in ready:
                line = sys.stdin.readline()
                if not line:
                    break
                told = json.loads(line)
                answer(player.rewind() if told.get("rewind") else player.play(told["frames"], told["rate"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
