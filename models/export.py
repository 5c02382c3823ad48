"""Models as files: the ONNX graph with the manifest in its metadata, and the manifest beside it."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from common.feature_set import DEFAULT
from common.manifest import METADATA_KEY, Manifest
from common.model import Model


def as_onnx(model: Any) -> ModelProto:
    """A scikit-learn pipeline of a StandardScaler and a LogisticRegression or MLPClassifier (relu) of two classes,
    as float32[N, F] -> probabilities float32[N, 2], in two operators a layer.

    A general converter writes an operator of `ai.onnx.ml` for a logistic regression, whose answer for a row depends
    in its last bits on how many rows it is run with; matrix products give the same bits for one row and for many.
    The scaler is folded into the first layer, and softmax over (0, z) is the logistic function of z."""
    scaler, estimator = (step for _, step in model.steps)
    if hasattr(estimator, "coefs_"):
        layers = list(zip(estimator.coefs_, estimator.intercepts_))
    else:
        layers = [(estimator.coef_.T, estimator.intercept_)]
    first, shift = layers[0]
    first = first / scaler.scale_[:, None]
    layers[0] = first, shift - scaler.mean_ @ first
    last, shift = layers[-1]
    layers[-1] = np.hstack([np.zeros_like(last), last]), np.concatenate([np.zeros_like(shift), shift])
    nodes, weights, flow = [], [], "rows"
    for i, (weight, bias) in enumerate(layers):
        weights += [numpy_helper.from_array(weight.astype(np.float32), f"w{i}"),
                    numpy_helper.from_array(bias.astype(np.float32), f"b{i}")]
        nodes.append(helper.make_node("Gemm", [flow, f"w{i}", f"b{i}"], [f"z{i}"]))
        if i < len(layers) - 1:
            flow = f"h{i}"
            nodes.append(helper.make_node("Relu", [f"z{i}"], [flow]))
    nodes.append(helper.make_node("Softmax", [f"z{len(layers) - 1}"], ["probabilities"], axis=-1))
    return graph(nodes, weights, ["N", len(DEFAULT.names)])


def graph(nodes: Sequence[Any], weights: Sequence[TensorProto], shape: Sequence[int | str]) -> ModelProto:
    """A model from `rows` of this shape to `probabilities` [N, 2]."""
    inner = helper.make_graph(
        list(nodes), "model", [helper.make_tensor_value_info("rows", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])], list(weights))
    return helper.make_model(inner, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


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
