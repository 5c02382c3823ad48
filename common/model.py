"""One ONNX model behind one question: the probability of an up-move (and of a down-move) after a window of rows.

A model is `NAME.onnx` and its manifest, in `NAME.json` and in the ONNX metadata (`common.manifest`); one is enough,
and both must agree. `Model.load` refuses whatever does not fit this pipeline, and says both sides.

Accepted, as converters produce it:

    input    one float32 tensor: [N, F] (window 1), [N, W * F], [N, W, F] or [N, 1, W, F]; N free or 1
    output   probabilities or logits, [N, C] or [N] with C = 1 (of "up"), 2 or 3, alone or beside a label;
             or ZipMap's list of dictionaries

`classes` in the manifest names the columns: "up", "down", "flat". `output` says "probabilities" or "logits"; where
the manifest is silent, 32 random windows decide: probabilities if each row lies within 0..1 and sums to 1 (one
column: lies within 0..1), else logits, which go through softmax (one column: the logistic function).

The only module that imports onnxruntime. One thread, sequential, no spinning: a worker waits for work most of
the time, and a spinning pool takes a whole core from the others.
"""

import dataclasses
import hashlib
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from common.config import Inference
from common.errors import ModelError
from common.manifest import FILE_KEYS, METADATA_KEY, Manifest, features_of, no_manifest
from common.onnx_file import check_weights, external_data, identity

CPU = "CPUExecutionProvider"

_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_CHUNK = 32  #: most rows in one run
_LOOSEST = 0.05  #: tolerance of golden rows, as a probability
_SIZES = (2, 3, 4, 5, 6, 7, 8, 12, 16, 24, _CHUNK)  #: batches compared with single rows at the start


class Model:
    """A loaded model, warmed and checked. Made by `load`."""

    @classmethod
    def load(cls, path: str | os.PathLike, providers: Sequence[str] = (CPU,), allow_fallback: bool = False,
             manifest: Manifest | None = None, custom_ops: Sequence[str] = ()) -> "Model":
        """The model at `path`; `manifest` takes the place of the manifest file, and `custom_ops` are libraries of
        operators, whose code runs in this process.

        Raises ModelError if a file is missing, corrupt or not the one that the manifest names, if its features are not
        defined here as they were where it was trained, if window, types, shapes, classes or golden rows do not fit, or
        if another provider than `providers[0]` would run it, or a single node of it, and `allow_fallback` is False."""
        return cls(Path(path), tuple(providers), allow_fallback, manifest, tuple(custom_ops))

    @classmethod
    def configured(cls, path: str | os.PathLike, settings: Inference) -> "Model":
        """`load` as the configuration wants it: live, in a replay, a backtest and a comparison alike."""
        return cls.load(path, settings.providers, settings.allow_fallback, custom_ops=settings.custom_ops)

    def __init__(self, path: Path, providers: tuple[str, ...], allow_fallback: bool, manifest: Manifest | None,
                 custom_ops: tuple[str, ...]) -> None:
        self.path = path = path.resolve()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError("cannot read the model", where=f"{path}: {error.strerror}",
                             remedy="set inference.model to an .onnx file") from None
        self.sha256 = hashlib.sha256(data).hexdigest()
        external = external_data(data, path)
        self.id = identity(data, external)
        self.size = len(data) + sum(map(len, external.values()))  #: bytes
        check_weights(data, external, path)
        _check_available(providers, allow_fallback)
        self._session = _session(data, path, providers, custom_ops)
        self.providers: list[str] = self._session.get_providers()
        self.nodes = _assigned(self._session)  #: of the graph as it is run: provider -> how many; empty: not known
        self.provider = next((name for name in self.providers if name in self.nodes), self.providers[0])
        if not allow_fallback:
            self._check_provider(providers[0])
        self.manifest = _manifest(path, self._session, manifest)
        self._check_contract({n: hashlib.sha256(d).hexdigest() for n, d in external.items()})
        self.features = features_of(self.manifest, str(path))
        self.name, self.window = self.manifest.name, self.manifest.window
        self._shape = (self.window, len(self.features))
        self._bind_input()
        self._bind_output()
        self._warm_up()
        self._check_golden()

    def predict(self, window: np.ndarray) -> tuple[float, float]:
        """(p_up, p_down) after `window`, float32[W, F], which is copied once, into a buffer bound for good.

        Raises ModelError if the answer is not a finite number. Cost for a small model: about 6 us."""
        if window.shape != self._shape:
            raise ModelError("a window has another shape than the model's",
                             where=f"{list(window.shape)}, {self.path.name} {list(self._shape)}")
        if self._binding is None:
            return self._answer(self._run(np.ascontiguousarray(window, np.float32).reshape(self._single))[0].tolist())
        self._input[...] = window
        self._run_bound(self._binding, None)
        if self._direct:
            up, down = self._direct_output[self._up], self._direct_output[self._down]
            if math.isfinite(up) and math.isfinite(down):
                return up, down
        return self._answer(self._direct_output.tolist())

    def predict_batch(self, windows: np.ndarray | Sequence[np.ndarray], exact: bool = True) -> np.ndarray:
        """float64[N, 2], (p_up, p_down) of N windows: an array [N, W, F] or a sequence of [W, F].

        With `exact`, each row gets the very bits that `predict` gives: in one run where the warm-up found that a
        batch gives them (`batch_exact`), else row by row. Raises ModelError as `predict` does."""
        result = np.empty((len(windows), 2))
        if self._fixed or (exact and not self.batch_exact):
            for i, window in enumerate(windows):
                result[i] = self.predict(window)
            return result
        for start in range(0, len(windows), _CHUNK):
            chunk = np.ascontiguousarray(windows[start:start + _CHUNK], np.float32)
            rows = self._run(chunk.reshape(len(chunk), *self._single[1:]))
            if self._direct:
                found = result[start:start + len(rows)]
                found[:, 0], found[:, 1] = rows[:, self._up], rows[:, self._down]
                if np.isfinite(found).all():
                    continue
            result[start:start + len(rows)] = [self._answer(row) for row in rows.tolist()]
        return result

    def describe(self) -> dict[str, object]:
        """What the graph takes and gives: names, types, shapes."""
        def told(entry: ort.NodeArg) -> str:
            return f"{entry.name}: {entry.type} {entry.shape}"

        return {"input": told(self._session.get_inputs()[0]), "outputs": [told(o) for o in self._session.get_outputs()]}

    # What follows runs at the start, or in the two methods above.

    def _check_provider(self, wanted: str) -> None:
        elsewhere = {name: count for name, count in self.nodes.items() if name != wanted}
        if self.provider != wanted or elsewhere:
            in_use = ", ".join(f"{name} for {n} of {sum(self.nodes.values())} nodes" for name, n in elsewhere.items())
            raise ModelError("another execution provider runs the model than was requested",
                             where=f"{self.path}: requested {wanted}, in use {in_use or self.provider}",
                             remedy="mend its installation, or set inference.allow_fallback")

    def _check_contract(self, external: dict[str, str]) -> None:
        told = self.manifest
        if told.sha256 and told.sha256 != self.sha256:
            raise ModelError("the model is not the file that its manifest describes",
                             where=f"{self.path}: sha256 {self.sha256[:16]}, manifest {told.sha256[:16]}",
                             remedy="export both together")
        if told.external and told.external != external:
            raise ModelError("the external data are not the files that the manifest describes",
                             where=f"{self.path}: {_short(external)}, manifest {_short(told.external)}")

    def _bind_input(self) -> None:
        inputs = self._session.get_inputs()
        window, width = self._shape
        if len(inputs) != 1:
            raise ModelError("the model takes more than one input", where=f"{self.path}: {[i.name for i in inputs]}",
                             remedy="export it with one input of rows")
        told = inputs[0]
        if told.type != "tensor(float)":
            raise ModelError("the model's input has another type than the rows",
                             where=f"{self.path}: input {told.name} is {told.type}, rows are tensor(float)")
        shapes = [(window, width), (1, window, width), (window * width,)]
        shape = next((s for s in shapes if len(told.shape) == 1 + len(s)
                      and all(not isinstance(d, int) or d == size for d, size in zip(told.shape[1:], s))), None)
        if shape is None or (isinstance(told.shape[0], int) and told.shape[0] != 1):
            raise ModelError("the model's input has another shape than the window",
                             where=f"{self.path}: input {told.name} is {told.shape}, the window {list(self._shape)}",
                             remedy="use [N, W, F], [N, 1, W, F] or [N, W * F] with N free or 1")
        self._input_name = told.name
        self._fixed = told.shape[0] == 1  #: takes one window at a time
        self._single = (1, *shape)

    def _bind_output(self) -> None:
        told = self._session.get_outputs()
        usable = [o for o in told if o.type in _DTYPES or o.type.startswith("seq(map(")]
        if len(usable) > 1:
            usable = [o for o in usable if "prob" in o.name.lower()]
        if len(usable) != 1:
            raise ModelError("the model has not one output of probabilities",
                             where=f"{self.path}: outputs {[f'{o.name}: {o.type}' for o in told]}",
                             remedy="export probabilities or logits as one float tensor")
        self._output_name, self._binding = usable[0].name, None
        self._zipmap = usable[0].type not in _DTYPES
        values = self._run(np.zeros(self._single, np.float32))
        columns, classes = len(values[0]), self.manifest.classes
        if len(values) != 1 or columns not in (1, len(classes)) or (columns == 1 and len(classes) == 3):
            raise ModelError("the model's output does not have the classes of its manifest",
                             where=f"{self.path}: {len(values)} x {columns} values for one window, "
                                   f"classes {list(classes)}")
        if columns == 1:
            self._up = self._down = 0
        else:
            self._up = classes.index("up")
            self._down = classes.index("down") if "down" in classes else -1
        if columns > 1 and self._down < 0:
            raise ModelError('the model has more than one class and none is "down"',
                             where=f"{self.path}: classes {list(classes)}")
        self._columns = columns
        if not self._zipmap:
            self._bind(_DTYPES[usable[0].type], self._session.run([self._output_name], {
                self._input_name: np.zeros(self._single, np.float32)})[0].shape)

    def _bind(self, dtype: type, shape: tuple[int, ...]) -> None:
        """Buffers of our own, bound once: half the cost of passing arrays with each call."""
        source, result = _aligned(self._single, np.float32), _aligned(shape, dtype)
        binding = self._session.io_binding()
        binding.bind_input(self._input_name, "cpu", 0, np.float32, self._single, source.ctypes.data)
        binding.bind_output(self._output_name, "cpu", 0, dtype, shape, result.ctypes.data)
        self._input = source.reshape(self._shape)
        self._direct_output = memoryview(result.reshape(-1))
        self._keep = source, result  # ONNX Runtime holds bare pointers to them
        # The call beneath `run_with_iobinding`, whose checks (of one session's binding given to another, of graph
        # capture on WebGPU) cost half as much as the model and cannot fail here.
        self._run_bound, self._binding = self._session._sess.run_with_iobinding, binding._iobinding

    def _run(self, array: np.ndarray) -> np.ndarray:
        """The model's numbers for each window of `array`, one row each, in the order of `classes`."""
        try:
            result = self._session.run([self._output_name], {self._input_name: array})[0]
        except Exception as error:  # onnxruntime raises a dozen types with no other common base
            raise ModelError("the model cannot be run on a window", where=f"{self.path}: {_line(error)}") from error
        if self._zipmap:
            keys = self.manifest.labels or sorted(result[0])
            if set(keys) != set(result[0]):
                raise ModelError("the model gives other labels than its manifest names",
                                 where=f"{self.path}: {list(result[0])}, manifest {list(keys)}")
            return np.array([[float(row[key]) for key in keys] for row in result])
        if result.size % len(array):
            raise ModelError("the model does not give the same values for each window",
                             where=f"{self.path}: output {list(result.shape)} for {len(array)} windows")
        return result.reshape(len(array), -1)

    def _answer(self, row: list[float]) -> tuple[float, float]:
        """(p_up, p_down) from the model's numbers for one window. The same code for one window and for many."""
        if self.output == "logits":
            row = _softmax(row) if len(row) > 1 else [_logistic(row[0])]
        up = row[self._up]
        down = row[self._down] if len(row) > 1 else 1.0 - up
        if not (math.isfinite(up) and math.isfinite(down)):
            raise ModelError("the model's answer is not a number", where=f"{self.path}: {row}")
        return up, down

    def _warm_up(self) -> None:
        """Run every size, find out what the output is, and whether batches give the bits of single windows."""
        self.output, self._direct, self.batch_exact = "probabilities", False, False
        random = np.random.default_rng(0)
        probes = random.standard_normal((_CHUNK, *self._single[1:]), np.float32)
        single = [self._run(probes[i:i + 1])[0].tolist() for i in range(_CHUNK)]
        if any(len(row) != self._columns for row in single):
            raise ModelError("the model does not give the same values for each window", where=str(self.path))
        found = "probabilities" if all(map(_is_distribution, single)) else "logits"
        self.output = self.manifest.output or found
        if (self.output, found) == ("probabilities", "logits"):
            worst = next(row for row in single if not _is_distribution(row))
            raise ModelError("the manifest says probabilities, the model gives something else",
                             where=f"{self.path}: output {worst}", remedy='say "output": "logits"')
        self._direct = self.output == "probabilities" and self._columns > 1
        if not self._fixed:
            self.batch_exact = all(self._run(probes[:size]).tolist() == single[:size] for size in _SIZES)
        for probe in probes[:8]:
            self.predict(probe.reshape(self._shape))

    def _check_golden(self) -> None:
        golden = self.manifest.golden
        try:
            inputs, outputs = (np.asarray(golden.get(key, []), float) for key in ("inputs", "outputs"))
            tolerance = float(golden.get("tolerance", 1e-5))
        except (TypeError, ValueError) as error:
            raise ModelError("the golden rows of the manifest are not numbers",
                             where=f"{self.path}: {error}") from None
        count = len(inputs)
        if len(outputs) != count or (count and (inputs.shape[1:], outputs.shape[1:]) != (self._shape, (2,))):
            raise ModelError("the golden rows of the manifest have other shapes than the model's",
                             where=f"{self.path}: inputs {list(inputs.shape)}, outputs {list(outputs.shape)}; "
                                   f"one window is {list(self._shape)}, one answer [2]")
        if not (np.isfinite(inputs).all() and np.isfinite(outputs).all() and 0 <= tolerance <= _LOOSEST):
            raise ModelError("the golden rows of the manifest are not finite, or prove nothing",
                             where=f"{self.path}: tolerance {tolerance}, not finite: {_not_finite(inputs)} inputs, "
                                   f"{_not_finite(outputs)} outputs", remedy="export it again")
        for i, (window, expected) in enumerate(zip(inputs, outputs)):
            got = self.predict(window.astype(np.float32))
            if not np.abs(np.subtract(got, expected)).max() <= tolerance:
                raise ModelError("the model does not reproduce the golden rows of its manifest",
                                 where=f"{self.path}: row {i} gives {list(got)}, manifest {expected.tolist()}",
                                 remedy="another provider or version may compute differently; export it again")


def _check_available(providers: tuple[str, ...], allow_fallback: bool) -> None:
    available = ort.get_available_providers()
    if not providers or (not allow_fallback and providers[0] not in available):
        raise ModelError("the execution provider is not available", where=f"requested {list(providers)}, "
                         f"available {available}", remedy="install its package, or set inference.allow_fallback")


def _session(data: bytes, path: Path, providers: tuple[str, ...], custom_ops: tuple[str, ...]) -> ort.InferenceSession:
    usable = [name for name in providers if name in ort.get_available_providers()]
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for library in custom_ops:
        try:
            options.register_custom_ops_library(library)
        except Exception as error:  # onnxruntime raises a dozen types with no other common base
            raise ModelError("a library of custom operators cannot be loaded", where=f"{library}: {_line(error)}",
                             remedy="correct inference.custom_ops") from error
    try:
        session = ort.InferenceSession(data, options, providers=usable or [CPU])
    except Exception as error:  # as above
        text = _line(error)
        remedy = "export it again"
        if "is not a registered" in text:
            remedy = "export it with standard operators, or name the library of its own in inference.custom_ops"
        raise ModelError("ONNX Runtime refuses the model", where=f"{path}: {text}", remedy=remedy) from error
    session.disable_fallback()
    return session


def _assigned(session: ort.InferenceSession) -> dict[str, int]:
    """How many nodes each provider runs; empty where this version of ONNX Runtime does not tell."""
    told = getattr(session, "get_provider_graph_assignment_info", None)
    counts: Counter[str] = Counter()
    for part in told() if told else ():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(counts)


def _manifest(path: Path, session: ort.InferenceSession, given: Manifest | None) -> Manifest:
    """The one given, or the one in the file beside the model; or, without, the one in its metadata."""
    beside = path.with_suffix(".json")
    inside = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    metadata = Manifest.parse(inside, f"metadata of {path}") if inside is not None else None
    try:
        manifest = given or Manifest.parse(beside.read_bytes(), str(beside))
    except FileNotFoundError:
        if metadata is None:
            raise no_manifest(path) from None
        return metadata
    if metadata is not None:
        for entry in dataclasses.fields(Manifest):
            ours, theirs = getattr(manifest, entry.name), getattr(metadata, entry.name)
            if entry.name not in FILE_KEYS and ours != theirs:
                raise ModelError("the manifest and the model's metadata differ",
                                 where=f"{path}: {entry.name}={_brief(ours)}, metadata {_brief(theirs)}",
                                 remedy="export both together")
    return manifest


def _not_finite(array: np.ndarray) -> int:
    return int((~np.isfinite(array)).sum())


def _aligned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """A zeroed array that begins at a multiple of 64 bytes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + size].view(dtype).reshape(shape)


def _is_distribution(row: list[float]) -> bool:
    inside = all(-1e-6 <= p <= 1 + 1e-6 for p in row)
    return inside and (len(row) == 1 or abs(sum(row) - 1) <= 1e-3)


def _softmax(row: list[float]) -> list[float]:
    highest = max(row)
    weights = [math.exp(value - highest) for value in row]
    total = sum(weights)
    return [weight / total for weight in weights]


def _logistic(value: float) -> float:
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value))
    weight = math.exp(value)
    return weight / (1.0 + weight)


def _short(files: dict[str, str]) -> str:
    return ", ".join(f"{name} {digest[:16]}" for name, digest in sorted(files.items())) or "none"


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _line(error: Exception) -> str:
    """An error of onnxruntime in one line."""
    return " ".join(str(error).split())[:300]
