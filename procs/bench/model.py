"""Models for the benchmark: written without the onnx package, which users of a pipeline do not need.

An ONNX file is a protobuf message; writing one takes a varint and a dozen field numbers (onnx.proto3).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import model as models
from common.features.choice import DEFAULT
from common.manifest import METADATA_KEY, Manifest

_FLOAT, _IR, _OPSET = 1, 8, 17


def dense(path: Path, window: int = 1, hidden: int = 32, layers: int = 1, seed: int = 1) -> Path:
    """A network from float32[N, window, F] to the probability of an up-move: one layer to `hidden` units, then
    `layers` times the same square one. Its weights are noise: it is as fast as a trained one, and predicts nothing."""
    random = np.random.default_rng(seed)
    width = window * len(DEFAULT.names)
    weights = {
        "first": random.standard_normal((width, hidden)) / width**0.5,
        "square": random.standard_normal((hidden, hidden)) / hidden**0.5,
        "last": random.standard_normal((hidden, 1)) / hidden**0.5,
    }
    nodes = [_node("Flatten", ["rows"], "x0"), _node("MatMul", ["x0", "first"], "x1"), _node("Tanh", ["x1"], "h0")]
    for i in range(layers):
        nodes += [_node("MatMul", [f"h{i}", "square"], f"m{i}"), _node("Tanh", [f"m{i}"], f"h{i + 1}")]
    nodes += [_node("MatMul", [f"h{layers}", "last"], "logit"), _node("Sigmoid", ["logit"], "probability")]
    shape = ("N", window, len(DEFAULT.names)) if window > 1 else ("N", len(DEFAULT.names))
    graph = (b"".join(_field(1, node) for node in nodes) + _field(2, b"bench")
             + b"".join(_field(5, _tensor(name, value)) for name, value in weights.items())
             + _field(11, _value("rows", shape)) + _field(12, _value("probability", ("N", 1))))
    manifest = Manifest(name=path.stem, schema=DEFAULT.schema, columns=DEFAULT.names, window=window, horizon_s=30.0,
                        classes=("up",), output="probabilities")
    path.write_bytes(_field(1, _IR) + _field(7, graph) + _field(8, _field(1, b"") + _field(2, _OPSET))
                     + _field(14, _field(1, METADATA_KEY.encode()) + _field(2, manifest.as_json(True).encode())))
    return path


def describe(path: Path) -> dict[str, Any]:
    """Window, and the size of the file: what a reader of a table of latencies wants to know."""
    beside = path.with_suffix(".json")
    if beside.exists():
        window = json.loads(beside.read_bytes())["window"]
    else:
        window = json.loads(session(path).get_modelmeta().custom_metadata_map[METADATA_KEY])["window"]
    return {"file": path.name, "window": window, "bytes": path.stat().st_size}


def session(path: Path, defaults: bool = False) -> Any:
    """A bare session: with the options of our workers, or with ONNX Runtime's own `defaults`."""
    if defaults:
        return models.ort.InferenceSession(str(path), providers=[models.CPU])
    return models._session(path.read_bytes(), path, (models.CPU,), ())


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def _node(kind: str, inputs: Sequence[str], output: str) -> bytes:
    return b"".join(_field(1, name.encode()) for name in inputs) + _field(2, output.encode()) + _field(4, kind.encode())


def _tensor(name: str, value: np.ndarray) -> bytes:
    return (b"".join(_field(1, size) for size in value.shape) + _field(2, _FLOAT) + _field(8, name.encode())
            + _field(9, np.ascontiguousarray(value, np.float32).tobytes()))


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(1, size) if isinstance(size, int) else _field(2, size.encode())) for size in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, dims)))
