"""A recording of a tap: the messages of one link as they came, each with the time at which it was heard.

    MAGIC
    length u32 | crc32 u32 | what u8 | at_ns i64 | content      as often as there is something, little-endian

`length` is that of `content`, `crc32` covers all after itself. `what` is

    NOTE     JSON: what holds from here on, all keys at once
                 link, symbols (names behind the indices), offset_ns (Unix ns less monotonic ns, of the machine), and
                 missed, how many messages the listener has missed so far
    MESSAGE  a message of the link, byte for byte

The first is a NOTE, and there is another one whenever what it says has changed. A file only grows: it can be read while
it is written. What was cut off at its end, by a kill or a full disk, is noticed and not read; a damaged byte anywhere
before is an error.

`common.session_log` is no home for these: it keeps records of one width, beside the rings that they speak of, as parity
needs them; a tap hears messages of any link, frames and credits too, and needs no ring.
"""

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import ConfigError, ResourceError, WireError

MAGIC = b"alpha tap 1\n"
NOTE, MESSAGE = range(2)
MAX_BYTES = 1 << 28  #: of a content; a longer one is damage
_HEAD = struct.Struct("<II")
_BODY = struct.Struct("<Bq")
_ROOM = 1 << 16  # bytes that wait to be written


class Note(NamedTuple):
    link: str
    symbols: tuple[str, ...]
    offset_ns: int
    missed: int = 0


class Heard(NamedTuple):
    """A message, when it was heard (monotonic ns of the machine that recorded it), and what held then."""

    at_ns: int
    message: bytes
    note: Note


class TapFile:
    """The writer. Every method raises ResourceError where the disk refuses; what was written before can be read."""

    def __init__(self, path: Path, note: Note) -> None:
        self.path, self.note = path, note
        self.messages = self.bytes = 0
        self._waiting = bytearray(MAGIC)
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise ConfigError("there is a file already", where=str(path),
                              remedy="name another: a recording is never written over") from None
        except OSError as error:
            raise self._refused(error) from None
        self._note(note, 0)

    def write(self, at_ns: int, message: bytes, note: Note) -> None:
        """A message, and what holds now. About 2 us."""
        if note != self.note:
            self._note(note, at_ns)
        self._put(MESSAGE, at_ns, message)
        self.messages += 1

    def flush(self) -> None:
        """Everything so far can be read after this."""
        waiting = memoryview(bytes(self._waiting))
        self._waiting.clear()
        try:
            while waiting:
                written = os.write(self._fd, waiting)
                self.bytes += written
                waiting = waiting[written:]
        except OSError as error:
            raise self._refused(error) from None

    def close(self, note: Note | None = None) -> None:
        """With what holds at the end."""
        try:
            if note is not None and note != self.note:
                self._note(note, 0)
            self.flush()
            # A pipe or a device has nothing to force to a disk.
            with contextlib.suppress(OSError):
                os.fsync(self._fd)
        finally:
            os.close(self._fd)

    def _note(self, note: Note, at_ns: int) -> None:
        self.note = note
        self._put(NOTE, at_ns, json.dumps(note._asdict()).encode())

    def _put(self, what: int, at_ns: int, content: bytes) -> None:
        body = _BODY.pack(what, at_ns)
        self._waiting += _HEAD.pack(len(content), zlib.crc32(content, zlib.crc32(body))) + body + content
        if len(self._waiting) >= _ROOM:
            self.flush()

    def _refused(self, error: OSError) -> ResourceError:
        return ResourceError("cannot write a recording", where=f"{self.path}: {error.strerror}",
                             remedy="make room, or name another file; what was written before can be read")


class Recording:
    """A file, to be read. Raises ConfigError where it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = 0  #: bytes of a record that was cut off at the end, once all else has been read
        try:
            self._file = path.open("rb")
            if self._file.read(len(MAGIC)) != MAGIC:
                raise ConfigError("not a recording of a tap", where=str(path),
                                  remedy="name a file that `alpha tap LINK --record FILE` has made")
        except OSError as error:
            raise ConfigError("cannot read a recording", where=f"{path}: {error.strerror}") from None
        self.note = self._first()

    @property
    def missed(self) -> int:
        """Messages that the recorder had missed by where this has been read to."""
        return self.note.missed

    def __iter__(self) -> Iterator[Heard]:
        """What has not been read yet. Raises WireError at a damaged byte."""
        for what, at_ns, content in self._records():
            if what == NOTE:
                self.note = self._noted(content)
            elif what == MESSAGE:
                yield Heard(at_ns, content, self.note)
            else:
                raise self._damaged(f"a record of kind {what}")

    def close(self) -> None:
        self._file.close()

    def _first(self) -> Note:
        for what, _, content in self._records():
            if what == NOTE:
                return self._noted(content)
            raise self._damaged("it does not begin with what it is of")
        raise ConfigError("a recording of a tap is empty", where=str(self.path))

    def _records(self) -> Iterator[tuple[int, int, bytes]]:
        while head := self._read(_HEAD.size):
            length, crc = _HEAD.unpack(head)
            if length > MAX_BYTES:
                raise self._damaged(f"a record of {length} bytes")
            rest = self._read(_BODY.size + length, len(head))
            if not rest:
                return
            if zlib.crc32(rest) != crc:
                raise self._damaged("a record's checksum is wrong")
            yield *_BODY.unpack_from(rest), rest[_BODY.size:]

    def _read(self, size: int, before: int = 0) -> bytes:
        """So many bytes, or none: then `torn` says how many there are, those `before` included."""
        found = self._file.read(size)
        if len(found) == size:
            return found
        self.torn = before + len(found)
        return b""

    def _noted(self, content: bytes) -> Note:
        try:
            told = json.loads(content)
            symbols: Sequence[str] = told["symbols"]
            return Note(str(told["link"]), tuple(map(str, symbols)), int(told["offset_ns"]), int(told["missed"]))
        except (ValueError, KeyError, TypeError):
            raise self._damaged("a note that cannot be read") from None

    def _damaged(self, what: str) -> WireError:
        return WireError("a recording of a tap is damaged", where=f"{self.path}: {what}, before byte "
                         f"{self._file.tell()}", remedy="what stands before it has been read")
