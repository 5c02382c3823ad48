"""Small models with their manifests, made for a test: a linear one over the columns that are asked for."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common.features.choice import FeatureSet
from common.manifest import Manifest


def make_model(path: Path, names: tuple[str, ...], window: int = 1, seed: int = 7, head: str = "softmax") -> Path:
    """softmax of a linear map of all numbers of a window. With `head` "fails live" it gives no number where all of them
    are above 0, which those of `Model.load`'s own trials and its golden rows never are."""
    size = window * len(names)
    weights = np.random.default_rng(seed).standard_normal((size, 2)).astype(np.float32) * np.float32(0.01)
    nodes = [helper.make_node("Reshape", ["rows", "flat"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["z"])]
    flow = "z"
    if head == "fails live":
        nodes += [helper.make_node("ReduceMin", ["f", "one"], ["lowest"], keepdims=1),
                  helper.make_node("Neg", ["lowest"], ["below"]), helper.make_node("Sqrt", ["below"], ["root"]),
                  helper.make_node("Add", ["z", "root"], ["y"])]
        flow = "y"
    nodes.append(helper.make_node("Softmax", [flow], ["probabilities"], axis=-1))
    constants = {"w": weights, "flat": np.array([-1, size]), "one": np.array([1])}
    shape = ["N", size] if window == 1 else ["N", window, len(names)]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes, "made", [helper.make_tensor_value_info("rows", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)]), path)
    features = FeatureSet.of(names)
    zeros = np.zeros((1, window, len(names))).tolist()
    told = Manifest(path.stem, features.schema, features.names, window, 30.0, ("down", "up"),
                    golden={"inputs": zeros, "outputs": [[0.5, 0.5]]})
    path.with_suffix(".json").write_text(told.as_json())
    return path
