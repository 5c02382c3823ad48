"""Text files of other people, plain, .gz or .zst, as numbered lines: lazily, with the errors of this project."""

import gzip
import io
import zlib
from os import PathLike, fspath
from typing import IO, Any, Iterator

from common.errors import ConfigError, VenueError


def lines(path: str | PathLike) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its end) of a file. Raises ConfigError where it cannot be opened, VenueError
    naming the line after which it is damaged or cut off."""
    name = fspath(path)
    with _open(name) as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                yield number, line.rstrip(b"\r\n")
        except (EOFError, OSError, zlib.error, *_failures(name)) as error:
            raise VenueError("a file is damaged or cut off", where=f"{name}, after line {number}: {error}",
                             remedy="decompress what is whole, or name another file") from None


def first(path: str | PathLike) -> bytes:
    """The first line; empty where the file is."""
    return next((line for _, line in lines(path)), b"")


def _open(name: str) -> IO[bytes]:
    try:
        if name.endswith(".gz"):
            return gzip.open(name, "rb")
        file: Any = open(name, "rb")
    except OSError as error:
        raise ConfigError("cannot open a file", where=f"{name}: {error.strerror}") from None
    if name.endswith(".zst"):
        reader = _zstandard(name).ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=True)
        return io.BufferedReader(reader, 1 << 18)
    return file


def _failures(name: str) -> tuple[type[Exception], ...]:
    return (_zstandard(name).ZstdError,) if name.endswith(".zst") else ()


def _zstandard(name: str) -> Any:
    try:
        import zstandard
    except ImportError:
        raise ConfigError("a .zst file needs the module zstandard", where=name,
                          remedy="pip install 'predictive-alpha[zstd]'") from None
    return zstandard
