"""External data are found wherever tensors may stand, and only the model's own folder is read."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from common.errors import ModelError
from common.onnx_file import external_data


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
