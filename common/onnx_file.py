"""The external data of an ONNX file, found without loading it: which files it would read, and what they hold.

A model from elsewhere may name any path as its external data. Only files in its own folder are accepted. An ONNX
file is a protobuf message; what is needed of the format is a dozen field numbers.
"""

from collections.abc import Iterator
from pathlib import Path

from common.errors import ModelError


def metadata(data: bytes, path: Path) -> dict[str, str]:
    """The metadata of a model: key -> value."""
    found = {}
    try:
        for number, value in _fields(memoryview(data)):
            if number == 14 and value is not None:
                entry = {n: bytes(v).decode() for n, v in _fields(value) if v is not None}
                found[entry.get(1, "")] = entry.get(2, "")
    except (IndexError, UnicodeDecodeError):
        raise ModelError("the model is not an ONNX file", where=str(path), remedy="export it again") from None
    return found


def external_data(data: bytes, path: Path) -> dict[str, bytes]:
    """Contents of the external data files that the model names, each a file in the model's own folder."""
    files: dict[str, bytes] = {}
    try:
        locations = sorted(set(_locations(memoryview(data), "model")))
    except (IndexError, UnicodeDecodeError, RecursionError):
        raise ModelError("the model is not an ONNX file", where=str(path), remedy="export it again") from None
    for location in locations:
        file = (path.parent / location).resolve()
        if not file.is_relative_to(path.parent):
            raise ModelError("the model wants external data from outside its folder",
                             where=f"{path}: {location!r}", remedy="keep its data beside it")
        try:
            files[location] = file.read_bytes()
        except OSError as error:
            raise ModelError("cannot read the model's external data", where=f"{file}: {error.strerror}",
                             remedy=f"keep {location} beside {path.name}") from None
    return files


# Where tensors may stand in an ONNX file: message -> field number -> the message there (onnx.proto3).
_MESSAGES = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}


def _locations(data: memoryview, message: str) -> Iterator[str]:
    """The `location` entries of all external tensors below a protobuf message. IndexError if it is cut off."""
    for number, value in _fields(data):
        kind = _MESSAGES[message].get(number)
        if kind is None or not isinstance(value, memoryview):
            continue
        if kind != "entry":
            yield from _locations(value, kind)
        else:
            entry = {n: bytes(v) for n, v in _fields(value) if isinstance(v, memoryview)}
            if entry.get(1) == b"location":
                yield entry.get(2, b"").decode()


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """(field number, contents of a length-delimited field or None) of a protobuf message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind, value = tag & 7, None
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at:at + size], at + size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise IndexError("not a protobuf message")
        if at > len(data):
            raise IndexError("cut off")
        yield tag >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
