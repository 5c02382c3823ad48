"""Models as files: the ONNX graph with the manifest in its metadata, and the manifest beside it."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from common.features import COLUMNS, SCHEMA_HASH
from common.manifest import METADATA_KEY, Manifest
from common.model import Model


def save(model: onnx.ModelProto, path: Path, manifest: Manifest, golden: Sequence[np.ndarray] = ()) -> Model:
    """Write `path` and its manifest, with the answers to the `golden` windows (float32[W, F]) in it, and load both.

    Raises ModelError if what was written is not a model for this pipeline."""
    onnx.helper.set_model_props(model, {METADATA_KEY: manifest.as_json(metadata=True)})
    data = model.SerializeToString(deterministic=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    told = dataclasses.replace(manifest, sha256=hashlib.sha256(data).hexdigest())
    answers = Model.load(path, COLUMNS, SCHEMA_HASH, manifest=told)
    if len(golden):
        told = dataclasses.replace(told, golden={
            "inputs": [np.asarray(window).tolist() for window in golden],
            "outputs": [list(answers.predict(window)) for window in golden], "tolerance": 1e-5})
    path.with_suffix(".json").write_text(told.as_json() + "\n")
    return Model.load(path, COLUMNS, SCHEMA_HASH)
