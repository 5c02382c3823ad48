"""External data are found wherever tensors may stand, and only the model's own folder is read."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from common.errors import ModelError
from common.onnx_file import check_weights, external_data, identity, metadata, model_id


def tensor(location: str, name: str = "w") -> TensorProto:
    found = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("offset", "0"), ("location", location), ("length", "8")):
        found.external_data.add(key=key, value=value)
    return found


def model(initializers=(), nodes=(), functions=()) -> bytes:
    graph = helper.make_graph(list(nodes), "g", [], [], list(initializers))
    return helper.make_model(graph, functions=list(functions)).SerializeToString()


def test_the_files_of_all_tensors_are_found_and_read(tmp_path):
    inner = helper.make_graph([], "inner", [], [], [tensor("branch")])
    nodes = [helper.make_node("Constant", [], ["a"], value=tensor("constant")),
             helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)]
    function = helper.make_function("local", "F", [], ["a"], nodes[:1], [helper.make_opsetid("", 17)])
    names = ("initializer", "constant", "branch", "in/folder")
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    inside = onnx.numpy_helper.from_array(np.zeros(9))
    data = model([tensor("initializer"), tensor("in/folder"), inside], nodes, [function])
    assert external_data(data, tmp_path / "m.onnx") == {name: name.encode() for name in names}


def test_a_model_without_external_data_has_none(tmp_path):
    assert external_data(model([onnx.numpy_helper.from_array(np.ones(3, np.float32), "w")]), tmp_path / "m") == {}


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "in/../../secret", "link"])
def test_data_outside_the_folder_is_refused(tmp_path, location):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="outside its folder") as error:
        external_data(model([tensor(location)]), folder / "m.onnx")
    assert location in str(error.value)


def test_missing_data_are_named(tmp_path):
    with pytest.raises(ModelError, match="weights.bin"):
        external_data(model([tensor("weights.bin")]), tmp_path / "m.onnx")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    try:
        external_data(data, tmp_path_factory.getbasetemp() / "m.onnx")
    except ModelError as error:
        assert "m.onnx" in str(error) or "data" in str(error)


@given(st.integers(0, 400))
def test_a_file_that_was_cut_off_is_read_or_refused(tmp_path_factory, size):
    whole = model([tensor("weights.bin")])
    try:
        external_data(whole[:size], tmp_path_factory.getbasetemp() / "m.onnx")
    except ModelError:
        pass


@pytest.mark.parametrize("dtype, raw", [(np.float32, True), (np.float64, True), (np.float16, True),
                                        (np.float32, False), (np.float64, False)])
def test_a_weight_that_is_no_number_is_found_wherever_tensors_stand(tmp_path, dtype, raw):
    values = np.array([1, 2, np.nan, np.inf], dtype)
    if raw:
        bad = onnx.numpy_helper.from_array(values, "bad")
    else:
        bad = helper.make_tensor("bad", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [4], values.tolist())
    good = onnx.numpy_helper.from_array(np.array([1, np.inf], dtype), "good")  # a mask may hold infinities
    inner = helper.make_graph([], "inner", [], [], [bad])
    for data in (model([good, bad]), model(nodes=[helper.make_node("Constant", [], ["a"], value=bad)]),
                 model(nodes=[helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)])):
        with pytest.raises(ModelError, match=r"m: bad\[2\], 1 of 4"):
            check_weights(data, {}, tmp_path / "m")
    check_weights(model([good]), {}, tmp_path / "m")


def test_lists_of_floats_in_attributes_are_weights_too(tmp_path):
    for values, good in (([1.0, 2.0], True), ([1.0, float("nan")], False)):
        data = model(nodes=[helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml",
                                             nodes_values=values, aggregate_function="SUM")])
        if good:
            check_weights(data, {}, tmp_path / "m")
        else:
            with pytest.raises(ModelError, match="an attribute"):
                check_weights(data, {}, tmp_path / "m")


def test_weights_in_external_data_are_looked_at(tmp_path):
    for values, good in (([1.0, 2.0], True), ([np.nan, 2.0], False)):
        content = {"w.bin": np.array(values, np.float32).tobytes()}
        if good:
            check_weights(model([tensor("w.bin")]), content, tmp_path / "m")
        else:
            with pytest.raises(ModelError, match=r"w\[0\]"):
                check_weights(model([tensor("w.bin")]), content, tmp_path / "m")


@given(st.binary(max_size=200))
def test_weights_of_any_bytes_are_looked_at_or_refused(tmp_path_factory, data):
    try:
        check_weights(data, {}, tmp_path_factory.getbasetemp() / "m.onnx")
    except ModelError as error:
        assert "m.onnx" in str(error)


def test_the_id_is_that_of_the_file_and_of_its_data(tmp_path):
    data = model([tensor("b"), tensor("a")])
    (tmp_path / "m.onnx").write_bytes(data)
    for name in "ab":
        (tmp_path / name).write_bytes(bytes(8))
    assert model_id(tmp_path / "m.onnx") == identity(data, {"b": bytes(8), "a": bytes(8)})
    (tmp_path / "a").write_bytes(b"\1" + bytes(7))
    assert model_id(tmp_path / "m.onnx") != identity(data, {"b": bytes(8), "a": bytes(8)})
    with pytest.raises(ModelError, match="none.onnx"):
        model_id(tmp_path / "none.onnx")


def test_metadata_are_read_without_loading(tmp_path):
    found = onnx.load_from_string(model())
    helper.set_model_props(found, {"one": "1", "two": "zwei"})
    assert metadata(found.SerializeToString(), tmp_path / "m") == {"one": "1", "two": "zwei"}
