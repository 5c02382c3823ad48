"""An ONNX file read without loading it: its metadata, its id, whether its weights are numbers, and its external data:
which files it would read, and what they hold.

A model from elsewhere may name any path as its external data. Only files in its own folder are accepted. An ONNX
file is a protobuf message; what is needed of the format is a dozen field numbers.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from common.errors import ModelError


def metadata(data: bytes, path: Path) -> dict[str, str]:
    """The metadata of a model: key -> value."""
    found = {}
    try:
        for number, value in _fields(memoryview(data)):
            if number == 14 and isinstance(value, memoryview):
                entry = {n: bytes(v).decode() for n, v in _fields(value) if isinstance(v, memoryview)}
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


def identity(data: bytes, external: Mapping[str, bytes]) -> int:
    """The id of a model, which its predictions carry: the first 8 bytes of the SHA-256 of the file and, in the order
    of their names, of its external data."""
    whole = hashlib.sha256(data)
    for name in sorted(external):
        whole.update(external[name])
    return int.from_bytes(whole.digest()[:8], "big")


def model_id(path: Path) -> int:
    """`Model.id` of the model at `path`, which is not loaded. Raises ModelError if a file cannot be read."""
    path = path.resolve()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError("cannot read the model", where=f"{path}: {error.strerror}",
                         remedy="set inference.model to an .onnx file") from None
    return identity(data, external_data(data, path))


def check_weights(data: bytes, external: Mapping[str, bytes], path: Path) -> None:
    """Raises ModelError naming the first tensor that holds a NaN: a layer may swallow it, and answer all the same.
    Reads all weights once, about 1 ms for a million."""
    try:
        for name, weights in _weights(memoryview(data), external, "model"):
            bad = np.flatnonzero(np.isnan(weights))
            if len(bad):
                raise ModelError("a weight of the model is not a number",
                                 where=f"{path}: {name or 'an attribute'}[{bad[0]}], {len(bad)} of {len(weights)}",
                                 remedy="train it again")
    except (IndexError, KeyError, UnicodeDecodeError, RecursionError, ValueError):
        raise ModelError("the model is not an ONNX file", where=str(path), remedy="export it again") from None


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


_FLOATS = {1: "<f4", 10: "<f2", 11: "<f8"}  # TensorProto.DataType -> what it is in raw_data
_ATTRIBUTE_FLOATS = 7


def _weights(data: memoryview, external: Mapping[str, bytes], message: str) -> Iterator[tuple[str, np.ndarray]]:
    """(name, flat values) of all tensors of floats, and of all lists of floats in attributes (trees have theirs there),
    below a protobuf message."""
    floats: list[memoryview] = []
    for number, value in _fields(data):
        kind = _MESSAGES[message].get(number)
        if not isinstance(value, memoryview) or kind == "entry":
            continue
        if kind == "tensor":
            yield from _tensor(value, external)
        elif kind is not None:
            yield from _weights(value, external, kind)
        elif message == "attribute" and number == _ATTRIBUTE_FLOATS:
            floats.append(value)  # all at once or one by one: writers differ
    if floats:
        yield "", np.frombuffer(b"".join(floats), "<f4")


def _tensor(data: memoryview, external: Mapping[str, bytes]) -> Iterator[tuple[str, np.ndarray]]:
    parts: dict[int, memoryview] = {}
    entries: dict[str, str] = {}
    form = None
    for number, value in _fields(data):
        if number == 2:
            form = _FLOATS.get(value) if isinstance(value, int) else None
        elif isinstance(value, memoryview):
            parts[number] = value
            if number == 13:
                entry = {n: bytes(v).decode() for n, v in _fields(value) if isinstance(v, memoryview)}
                entries[entry.get(1, "")] = entry.get(2, "")
    if form is None:
        return
    name = bytes(parts.get(8, b"")).decode()
    if entries:
        start = int(entries.get("offset", 0))
        whole = memoryview(external[entries["location"]])
        yield name, np.frombuffer(whole[start:start + int(entries.get("length", len(whole) - start))], form)
    for number, kind in ((4, "<f4"), (9, form), (10, "<f8")):  # float_data, raw_data, double_data
        if number in parts:
            yield name, np.frombuffer(parts[number], kind)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(field number, contents: a number, or the bytes of anything else) of a protobuf message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at:at + size], at + size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at:at + size], at + size
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
