"""Writing captures: what a tap of ingest mirrors becomes compressed files that can be read at any moment.

    VENUE-STAMP-0000.zst         the lines of `common.captures`; .gz where zstandard is not installed
    VENUE-STAMP-0000.zst.json    its manifest, written when the file is whole: one without has been cut off

A session is what one recorder writes of one feed: its files are numbered, and only the first is sure to begin with
the books; the others go on where the one before ended, and are given the state as soon as ingest has told it again.

Stamps are those of the machine's monotonic clock, turned into wall time by one offset per file, so that order and
differences within a file are exactly those of arrival, whatever happens to the wall clock.

What has been written survives a kill of this process, and what waits in the compressor is handed to the system
twice a second; a file is forced to the disk when it is closed.

Cost: about 6 us a line of 300 bytes with zstd, 9 with gzip; 7 by way of a tap.
"""

import hashlib
import json
import os
import time
import zlib
from pathlib import Path
from typing import Any, Callable

from common import capture_lines
from common.capture_lines import Connect, Disconnect, End, Frame, Header, Missed, State
from common.errors import ResourceError, VenueError

FLUSH_NS = 500_000_000  #: longest time that lines wait in the compressor
MANIFEST = ".json"  #: what the name of a manifest has after that of its file
STARTED_ANEW = "ingest was started anew"  #: why the recording has a disconnect that nobody told of
_CHUNK = 1 << 16  # bytes of lines that are compressed together
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 4
_HEADER = capture_lines.MARK + b'"capture",'


def compression() -> str:
    """What the names of new files end in: ".zst", or ".gz" where the extra `zstd` is not installed."""
    try:
        import zstandard  # noqa: F401
    except ImportError:
        return ".gz"
    return ".zst"


class CaptureFile:
    """One file, written from beginning to end. Every method may raise ResourceError; what was written before stays
    readable, and nothing more is written."""

    def __init__(self, path: Path, header: Header, recv_ns: int) -> None:
        self.path, self.header = path, header
        self.frames = self.control = self.missed = 0
        self.first_ns = self.last_ns = recv_ns
        self.bytes = 0  #: compressed
        self._lines: list[bytes] = []
        self._waiting = 0  # bytes in them
        self._dirty = False  # the compressor holds something
        self._hash = hashlib.sha256()
        self._compress, self._sync, self._finish = _compressor(path.suffix)
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _refused(path, error) from None
        self.write(recv_ns, capture_lines.encode(header))
        self.control += 1

    def write(self, recv_ns: int, text: bytes) -> None:
        """One line, which the caller counts as a frame or as a control line."""
        line = b"%d %b\n" % (recv_ns, text)
        self.last_ns = recv_ns
        self._lines.append(line)
        self._waiting += len(line)
        if self._waiting >= _CHUNK:
            self._press()

    def flush(self) -> None:
        """Everything so far can be read after this."""
        self._press()
        if self._dirty:
            self._dirty = False
            self._put(self._sync())

    def close(self) -> dict[str, Any]:
        """End the file and write its manifest, which is returned."""
        self.control += 1
        self.write(self.last_ns, capture_lines.encode(End(self.frames, self.missed)))
        self._press()
        self._put(self._finish())
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._failed(error) from None
        os.close(self._fd)
        self._fd = -1
        told = self.manifest()
        write_whole(Path(f"{self.path}{MANIFEST}"), json.dumps(told, indent=1).encode() + b"\n")
        return told

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def manifest(self) -> dict[str, Any]:
        """What is said of the file beside it. Times are Unix ns, `sha256` is that of the file as it lies there."""
        header = self.header
        return {"version": capture_lines.VERSION, "file": self.path.name, "venue": header.venue,
                "symbols": list(header.symbols), "session": header.session, "part": header.part,
                "frames": self.frames, "control_lines": self.control, "missed": self.missed,
                "first_recv_ns": self.first_ns, "last_recv_ns": self.last_ns,
                "bytes": self.bytes, "sha256": self._hash.hexdigest()}

    def _press(self) -> None:
        if self._lines:
            content, self._lines, self._waiting = b"".join(self._lines), [], 0
            self._dirty = True
            self._put(self._compress(content))

    def _put(self, content: bytes) -> None:
        try:
            while content:
                written = os.write(self._fd, content)
                self._hash.update(content[:written])
                self.bytes += written
                content = content[written:]
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> ResourceError:
        os.close(self._fd)
        self._fd = -1
        return _refused(self.path, error)


class Recorder:
    """The files of one feed. `take` is given each message of its tap. A file is succeeded by another once it has
    `max_bytes` (compressed) or is `max_s` old; 0: never. `name` begins the names of the files; without it, that of the
    venue does. `begun` hears of each new file its header, and its stamps less those of the monotonic clock; `done` of
    each whole one its manifest."""

    def __init__(self, folder: Path, clock, *, name: str = "", max_bytes: int = 0, max_s: float = 0.0,
                 begun: Callable[[Header, int], None] = lambda header, offset_ns: None,
                 done: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
        self._folder, self._clock, self._name, self._begun, self._done = folder, clock, name, begun, done
        self._max_bytes, self._max_ns = max_bytes, int(max_s * 1e9)
        self._suffix = compression()
        self.file: CaptureFile | None = None
        self.frames = self.control = self.missed = 0  #: of all files
        self._whole = 0  # bytes of the files that are whole
        self.asks = False  #: ingest is to tell again what it hears and where the books stand; set back by who asks
        self._offset = self._opened_ns = self._flushed_ns = 0
        self._last_ns = 0  # monotonic stamp of the newest message
        self._connected = False  # as the recording has it
        self._needs: set[str] = set()  # symbols whose state is not known to it
        self._repeated = False  # a connection that is told of next may be an old one, told for another listener

    @property
    def bytes(self) -> int:
        """Of all files, compressed."""
        return self._whole + (self.file.bytes if self.file is not None else 0)

    def take(self, message: bytes) -> None:
        """8 bytes of monotonic receive time, then a line. What comes before the first header is of no use."""
        mono_ns, line = int.from_bytes(message[:8], "little"), message[8:]
        if line.startswith(capture_lines.MARK):
            self._last_ns = mono_ns
            self._control(mono_ns, line)
            return
        if self.file is None:
            self.asks = True
            return
        self._last_ns, self._repeated = mono_ns, False
        if self._is_full(mono_ns):
            self._succeed(mono_ns)
        self.file.frames += 1
        self.frames += 1
        self.file.write(mono_ns + self._offset, capture_lines.text(line))

    def lost(self, count: int) -> None:
        """The tap has dropped `count` messages before the next: books are no longer known."""
        self.missed += count
        if self.file is not None:
            self.file.missed += count
            self._say(Missed(count))
            self._forget()
            self.asks = True

    def began(self, started_ns: int, message: bytes) -> None:
        """The sender of `message` was started at `started_ns`, monotonic: if that was after the message before it, the
        one that sent that has gone without a word."""
        if self.file is not None and self._last_ns < started_ns <= int.from_bytes(message[:8], "little"):
            self._say(Disconnect(STARTED_ANEW))
            self._forget()

    def work(self) -> None:
        """Call it several times a second."""
        now = self._clock.monotonic_ns()
        if self.file is not None and now - self._flushed_ns >= FLUSH_NS:
            self._flushed_ns = now
            self.file.flush()

    def close(self) -> None:
        """End the session. Nothing is left to do after an error: the file that met it stays as it is."""
        if self.file is not None and self.file.is_open:
            self._finish()
        self.file = None

    # ---- control lines

    def _control(self, mono_ns: int, text: bytes) -> None:
        try:
            line = capture_lines.parse(text)
        except VenueError:  # not one of ours, whatever it looks like: kept as it came
            line = Frame(text)
        if isinstance(line, Header):
            self._repeated = True
            if self.file is None or (line.venue, line.symbols) != self.file.header[:2]:
                self._begin(mono_ns, line)
            return
        if self.file is None:
            return
        repeated, self._repeated = self._repeated, False
        if isinstance(line, Connect):
            if repeated and self._connected and not line.handover:
                return
            self._connected = True
            if not line.handover and not repeated:
                self._needs.clear()
        elif isinstance(line, Disconnect):
            self._connected = False
            self._needs.clear()
        elif isinstance(line, State):
            if line.symbol not in self._needs:
                return
            self._needs.discard(line.symbol)
        if self._is_full(mono_ns):
            self._succeed(mono_ns)
        if isinstance(line, Frame):
            self.file.frames += 1
            self.frames += 1
        else:
            self.file.control += 1
            self.control += 1
        # As it came, unless it cannot stand in a line: the body of an answer may.
        self.file.write(mono_ns + self._offset, text if capture_lines.stands(text) and not isinstance(line, Frame)
                        else capture_lines.encode(line))

    def _say(self, line: Disconnect | Missed) -> None:
        self.file.control += 1
        self.control += 1
        self.file.write(self._last_ns + self._offset, capture_lines.encode(line))

    def _forget(self) -> None:
        self._connected = False
        self._needs = set(self.file.header.symbols)

    # ---- files

    def _begin(self, mono_ns: int, told: Header) -> None:
        """A session."""
        self.close()
        self._offset = self._clock.wall_ns() - self._clock.monotonic_ns()
        seconds, ns = divmod(mono_ns + self._offset, 1_000_000_000)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds)) + f".{ns // 1000:06}Z"
        self._open(mono_ns, Header(told.venue, told.symbols, f"{self._name or told.venue}-{stamp}"))
        self._forget()
        self.asks = False

    def _succeed(self, mono_ns: int) -> None:
        """The next file of the session."""
        header = self.file.header
        self._finish()
        self._offset = self._clock.wall_ns() - self._clock.monotonic_ns()
        self._open(mono_ns, header._replace(part=header.part + 1))
        self._needs, self.asks = set(header.symbols), True

    def _open(self, mono_ns: int, header: Header) -> None:
        path = self._folder / f"{header.session}-{header.part:04}{self._suffix}"
        self.file = CaptureFile(path, header, mono_ns + self._offset)
        self._opened_ns = mono_ns
        self.control += 1
        self._begun(header, self._offset)

    def _finish(self) -> None:
        manifest = self.file.close()
        self.control += 1
        self._whole += manifest["bytes"]
        self._done(manifest)

    def _is_full(self, mono_ns: int) -> bool:
        return bool(self._max_bytes and self.file.bytes >= self._max_bytes
                    or self._max_ns and mono_ns - self._opened_ns >= self._max_ns)


def is_header(message: bytes) -> bool:
    """Whether a message of a tap is the first line of what a listener is told."""
    return message.startswith(_HEADER, 8)


def _compressor(suffix: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes], Callable[[], bytes]]:
    """What compresses, what makes all of it readable, and what ends the stream."""
    if suffix == ".gz":
        gzip = zlib.compressobj(_GZIP_LEVEL, wbits=31)
        return gzip.compress, lambda: gzip.flush(zlib.Z_SYNC_FLUSH), gzip.flush
    import zstandard

    zstd = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
    return zstd.compress, lambda: zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK), zstd.flush


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """All of the file or none of it; raises ResourceError."""
    new = path.with_name(f".{path.name}.new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise _refused(path, error) from None


def _refused(path: Path, error: OSError) -> ResourceError:
    return ResourceError("cannot write a recording", where=f"{path}: {error.strerror}",
                         remedy="make room, or record into another folder; what was written before can be read")
