"""Models as files: the ONNX graph with the manifest in its metadata, and the manifest beside it."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from common.features.choice import DEFAULT
from common.manifest import METADATA_KEY, Manifest
from common.model import Model
from models.calibrate import Calibration


def as_onnx(model: Any) -> ModelProto:
    """A scikit-learn pipeline of a StandardScaler and a LogisticRegression or MLPClassifier (relu) of two classes,
    as float32[N, F] -> probabilities float32[N, 2]."""
    nodes, weights = as_products(layers(model))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1))
    return graph(nodes, weights, ["N", len(DEFAULT.names)])


def layers(model: Any, around: np.ndarray | float = 0.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight, bias) of each layer of such a pipeline, of two classes or more, from rows less `around` to logits, relu
    between.

    The scaler is folded into the first, and softmax over (0, z) is the logistic function of z."""
    scaler, estimator = (step for _, step in model.steps)
    if hasattr(estimator, "coefs_"):
        found = list(zip(estimator.coefs_, estimator.intercepts_))
    else:
        found = [(estimator.coef_.T, estimator.intercept_)]
    first, shift = found[0]
    first = first / scaler.scale_[:, None]
    found[0] = first, shift - (scaler.mean_ - around) @ first
    last, shift = found[-1]
    if last.shape[1] == 1:
        found[-1] = np.hstack([np.zeros_like(last), last]), np.concatenate([np.zeros_like(shift), shift])
    return found


def as_products(layers: Sequence[tuple[np.ndarray, np.ndarray]], around: np.ndarray | None = None) -> tuple[
        list[Any], list[TensorProto]]:
    """(nodes, weights) from `rows` [N, F] to `logits` [N, C]: two operators a layer, and one that takes `around` off.

    In float32 a column that hardly varies about a large mean (a spread that is nearly always one increment) loses its
    digits in a product with a large weight; taken off first, its mean costs nothing.

    A general converter writes an operator of `ai.onnx.ml` for a logistic regression, whose answer for a row depends
    in its last bits on how many rows it is run with; matrix products give the same bits for one row and for many."""
    nodes, weights, flow = [], [], "rows"
    if around is not None:
        weights, flow = [numpy_helper.from_array(around, "around")], "centred"
        nodes.append(helper.make_node("Sub", ["rows", "around"], [flow]))
    for i, (weight, bias) in enumerate(layers):
        weights += [numpy_helper.from_array(weight.astype(np.float32), f"w{i}"),
                    numpy_helper.from_array(bias.astype(np.float32), f"b{i}")]
        result = f"z{i}" if i < len(layers) - 1 else "logits"
        nodes.append(helper.make_node("Gemm", [flow, f"w{i}", f"b{i}"], [result]))
        if i < len(layers) - 1:
            flow = f"h{i}"
            nodes.append(helper.make_node("Relu", [result], [flow]))
    return nodes, weights


def calibrated(nodes: Sequence[Any], weights: Sequence[TensorProto], calibration: Calibration) -> tuple[
        list[Any], list[TensorProto]]:
    """The same from `rows` to `probabilities`: softmax(scale * logits + shift), so that what trades is what was
    judged. One operator for each step, elementwise: batches keep the bits of single rows."""
    more = [numpy_helper.from_array(np.array(value, np.float32), name)
            for name, value in (("scale", calibration.scale), ("shift", calibration.shift))]
    return [*nodes, helper.make_node("Mul", ["logits", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "shift"], ["shifted"]),
            helper.make_node("Softmax", ["shifted"], ["probabilities"], axis=-1)], [*weights, *more]


def graph(nodes: Sequence[Any], weights: Sequence[TensorProto], shape: Sequence[int | str],
          classes: int = 2) -> ModelProto:
    """A model from `rows` of this shape to `probabilities` [N, classes]."""
    inner = helper.make_graph(
        list(nodes), "model", [helper.make_tensor_value_info("rows", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])], list(weights))
    domains = [helper.make_opsetid("", 17)]
    if any(node.domain == "ai.onnx.ml" for node in nodes):
        domains.append(helper.make_opsetid("ai.onnx.ml", 3))
    return helper.make_model(inner, ir_version=8, opset_imports=domains)


def save(model: ModelProto, path: Path, manifest: Manifest, golden: Sequence[np.ndarray] = ()) -> Model:
    """Write `path` and its manifest, with the answers to the `golden` windows (float32[W, F]) in it, and load both.

    Raises ModelError if what was written is not a model for this pipeline."""
    helper.set_model_props(model, {METADATA_KEY: manifest.as_json(metadata=True)})
    data = model.SerializeToString(deterministic=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    told = dataclasses.replace(manifest, sha256=hashlib.sha256(data).hexdigest())
    answers = Model.load(path, manifest=told)
    if len(golden):
        told = dataclasses.replace(told, golden={
            "inputs": [np.asarray(window).tolist() for window in golden],
            "outputs": [list(answers.predict(window)) for window in golden], "tolerance": 1e-5})
    path.with_suffix(".json").write_text(told.as_json() + "\n")
    return Model.load(path)
