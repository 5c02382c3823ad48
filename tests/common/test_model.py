"""Every shape that converters produce is accepted and computes the same; everything else is refused, with both
sides named."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from common.errors import ModelError
from common.features.choice import DEFAULT, FeatureSet
from common.manifest import METADATA_KEY, Manifest
from common.model import CPU, Model
from common.onnx_file import model_id

FEATURES = FeatureSet.of(DEFAULT.names[:4])
COLUMNS = FEATURES.names
WIDTH = len(COLUMNS)
LEVELS = FeatureSet.of([f"{side}_{what}_{level}_z" for level in range(1, 11) for side in ("ask", "bid")
                        for what in ("px", "qty")])  #: in the order of FI-2010
TWO, THREE = ("down", "up"), ("down", "flat", "up")
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def weights(size: int, columns: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((size, columns), np.float32)


def make(path: Path, *, window: int = 1, shape: list | None = None, columns: int = 2, head: str = "softmax",
         dtype: int = FLOAT, result: list | None = None, beside: tuple = (), metadata: str | None = None,
         extra_input: bool = False) -> Path:
    """A linear model with one of the heads below, as an ONNX file."""
    size = window * WIDTH
    shape = ["N", size] if shape is None else shape
    nodes = [helper.make_node("Cast", ["x"], ["rows"], to=FLOAT),
             helper.make_node("Reshape", ["rows", "flat"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["z"])]
    kind = FLOAT
    if head == "softmax":
        nodes.append(helper.make_node("Softmax", ["z"], ["y"], axis=-1))
    elif head == "sigmoid":
        nodes.append(helper.make_node("Sigmoid", ["z"], ["y"]))
    elif head == "logits":
        nodes.append(helper.make_node("Identity", ["z"], ["y"]))
    elif head == "squeezed":
        nodes += [helper.make_node("Sigmoid", ["z"], ["s"]), helper.make_node("Squeeze", ["s", "one"], ["y"])]
    elif head == "nan":
        nodes.append(helper.make_node("Sqrt", ["z"], ["y"]))
    elif head == "double":
        nodes += [helper.make_node("Softmax", ["z"], ["s"]), helper.make_node("Cast", ["s"], ["y"], to=DOUBLE)]
        kind = DOUBLE
    elif head == "zipmap":
        nodes += [helper.make_node("Softmax", ["z"], ["s"], axis=-1),
                  helper.make_node("ZipMap", ["s"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[*range(columns)])]
    elif head == "custom":
        nodes.append(helper.make_node("Mystery", ["z"], ["y"], domain="com.example"))
    outputs = [helper.make_tensor_value_info("y", kind, ["N", columns] if result is None else result)]
    if head == "zipmap":
        outputs = [helper.make_value_info("y", helper.make_sequence_type_proto(
            helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))))]
    for name in beside:  # a label comes first, as converters have it
        nodes.append(helper.make_node("ArgMax", ["z"], [name], axis=1, keepdims=0))
        outputs.insert(0, helper.make_tensor_value_info(name, INT64, ["N"]))
    inputs = [helper.make_tensor_value_info("x", dtype, shape)]
    if extra_input:
        inputs.append(helper.make_tensor_value_info("state", FLOAT, [1, 8]))
    graph = helper.make_graph(nodes, "g", inputs, outputs, [
        numpy_helper.from_array(weights(size, columns), "w"),
        numpy_helper.from_array(np.array([-1, size]), "flat"), numpy_helper.from_array(np.array([1]), "one")])
    model = helper.make_model(graph, ir_version=9, opset_imports=[
        helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("com.example", 1)])
    if metadata is not None:
        helper.set_model_props(model, {METADATA_KEY: metadata})
    onnx.save(model, path)
    return path


def manifest(window: int = 1, classes: tuple = TWO, **more) -> Manifest:
    return Manifest("test", FEATURES.schema, COLUMNS, window, 30.0, classes, **more)


def load(path: Path, told: Manifest | None = None, **more) -> Model:
    return Model.load(path, manifest=told, **more)


def expected(windows: np.ndarray, columns: int = 2) -> np.ndarray:
    """float64[N, columns]: the numbers before the head."""
    flat = windows.reshape(len(windows), -1).astype(float)
    return flat @ weights(flat.shape[1], columns).astype(float)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def windows(count: int, window: int = 1) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, window, WIDTH), np.float32)


# Accepted.

@pytest.mark.parametrize("window, shape", [
    (1, ["N", 4]), (1, [None, 4]), (1, ["N", "M"]), (1, [1, 4]), (1, ["N", 1, 4]), (1, ["N", 1, 1, 4]),
    (5, ["N", 20]), (5, ["N", 5, 4]), (5, ["N", 1, 5, 4]), (5, [1, 5, 4]), (5, [1, 1, 5, 4]), (5, ["N", "W", "F"]),
], ids=str)
def test_each_input_shape_computes_the_same(tmp_path, window, shape):
    model = load(make(tmp_path / "m.onnx", window=window, shape=shape), manifest(window))
    given = windows(70, window)
    truth = softmax(expected(given))[:, ::-1]
    np.testing.assert_allclose([model.predict(w) for w in given], truth, rtol=1e-5)
    np.testing.assert_allclose(model.predict_batch(given), truth, rtol=1e-5)
    assert model.provider == CPU and model.window == window and model.output == "probabilities"


@pytest.mark.parametrize("head, columns, classes, told, reference", [
    ("softmax", 2, TWO, "", lambda z: softmax(z)[:, [1, 0]]),
    ("softmax", 2, ("up", "down"), "", lambda z: softmax(z)),
    ("softmax", 3, THREE, "", lambda z: softmax(z)[:, [2, 0]]),
    ("softmax", 3, ("up", "flat", "down"), "probabilities", lambda z: softmax(z)[:, [0, 2]]),
    ("logits", 2, TWO, "", lambda z: softmax(z)[:, [1, 0]]),
    ("logits", 3, THREE, "logits", lambda z: softmax(z)[:, [2, 0]]),
    ("sigmoid", 1, TWO, "", lambda z: np.hstack([1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))])),
    ("sigmoid", 1, ("up",), "", lambda z: np.hstack([1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))])),
    ("squeezed", 1, TWO, "", lambda z: np.hstack([1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))])),
    ("logits", 1, TWO, "", lambda z: np.hstack([1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))])),
    ("zipmap", 2, TWO, "", lambda z: softmax(z)[:, [1, 0]]),
    ("zipmap", 3, THREE, "", lambda z: softmax(z)[:, [2, 0]]),
    ("double", 2, TWO, "", lambda z: softmax(z)[:, [1, 0]]),
])
@pytest.mark.parametrize("beside", [(), ("label",)], ids=["alone", "beside a label"])
def test_each_output_is_understood(tmp_path, head, columns, classes, told, reference, beside):
    path = make(tmp_path / "m.onnx", columns=columns, head=head, beside=beside,
                result=["N"] if head == "squeezed" else None)
    assert len(onnx.load(path).graph.output) == 1 + len(beside)
    model = load(path, manifest(classes=classes, output=told))
    assert model.output == ("logits" if head == "logits" else "probabilities")
    given = windows(20)
    found = model.predict_batch(given)
    np.testing.assert_allclose(found, reference(expected(given, columns)), rtol=2e-5, atol=1e-7)
    assert [model.predict(w) for w in given] == [tuple(row) for row in found.tolist()]


def test_zipmap_labels_may_be_named_in_the_order_of_the_classes(tmp_path):
    path = make(tmp_path / "m.onnx", head="zipmap")
    straight, turned = load(path, manifest(labels=(0, 1))), load(path, manifest(labels=(1, 0)))
    assert straight.predict(windows(1)[0]) == turned.predict(windows(1)[0])[::-1]


def test_a_model_may_answer_in_the_metadata_alone_or_in_both_places(tmp_path):
    inside = manifest().as_json(metadata=True)
    path = make(tmp_path / "m.onnx", metadata=inside)
    assert load(path).manifest == manifest()
    told = manifest(sha256=load(path).sha256)
    path.with_suffix(".json").write_text(told.as_json())
    assert load(path).manifest == told


def test_a_symbolic_link_to_a_model_leads_to_its_manifest(tmp_path):
    (tmp_path / "v3").mkdir()
    path = make(tmp_path / "v3" / "m.onnx", metadata=manifest().as_json(metadata=True))
    (tmp_path / "current.onnx").symlink_to(path)
    assert load(tmp_path / "current.onnx").path == path


# What predict promises.

def test_a_batch_gives_the_bits_of_single_windows(tmp_path):
    model = load(make(tmp_path / "m.onnx", window=5), manifest(5))
    given = windows(150, 5)
    single = np.array([model.predict(w) for w in given])
    for size in (1, 2, 3, 8, 32, 33, 64, 150):
        assert model.predict_batch(given[:size]).tobytes() == single[:size].tobytes()
    model.batch_exact = False  # a model or machine where batches differ: row by row, unless told otherwise
    assert model.predict_batch(given).tobytes() == single.tobytes()
    np.testing.assert_allclose(model.predict_batch(given, exact=False), single, rtol=1e-6)
    assert model.predict_batch(given[:0]).shape == (0, 2)


def test_windows_may_be_read_only_views_of_a_ring(tmp_path):
    model = load(make(tmp_path / "m.onnx", window=5), manifest(5))
    ring = np.random.default_rng(1).standard_normal((40, WIDTH), np.float32)
    ring.flags.writeable = False
    before = ring.copy()
    views = [ring[i:i + 5] for i in range(30)]
    assert [tuple(row) for row in model.predict_batch(views).tolist()] == [model.predict(v) for v in views]
    assert np.array_equal(ring, before)
    apart = np.asfortranarray(views[3])
    assert not apart.flags.c_contiguous and model.predict(apart) == model.predict(views[3])


@pytest.mark.parametrize("head", ["softmax", "zipmap"])
def test_a_window_of_another_shape_is_refused(tmp_path, head):
    model = load(make(tmp_path / "m.onnx", window=5, head=head), manifest(5))
    for shape in ((4,), (1, 4), (4, 5), (20,)):
        with pytest.raises(ModelError, match=r"\[5, 4\]"):
            model.predict(np.zeros(shape, np.float32))


def test_an_answer_that_is_not_a_number_is_an_error_and_not_a_probability(tmp_path):
    model = load(make(tmp_path / "m.onnx"), manifest())
    bad = np.full((1, WIDTH), np.nan, np.float32)
    with pytest.raises(ModelError, match="not a number"):
        model.predict(bad)
    with pytest.raises(ModelError, match="not a number"):
        model.predict_batch(np.stack([windows(1)[0], bad]))
    assert math.isfinite(model.predict(windows(1)[0])[0])


def test_one_thread_that_does_not_spin(tmp_path):
    options = load(make(tmp_path / "m.onnx"), manifest())._session.get_session_options()
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_the_id_follows_the_file(tmp_path):
    one, other = make(tmp_path / "a.onnx"), make(tmp_path / "b.onnx", head="logits")
    assert load(one, manifest()).id == int(load(one, manifest()).sha256[:16], 16) != load(other, manifest()).id
    assert 0 <= load(one, manifest()).id < 2**64


# Refused.

def refused(path: Path, told: Manifest | None = None, **more) -> str:
    with pytest.raises(ModelError) as error:
        load(path, told, **more)
    return str(error.value)


@pytest.mark.parametrize("change, said", [
    ({"shape": ["N", 5]}, ["['N', 5]", "[1, 4]"]),
    ({"shape": ["N", 4, 1]}, ["['N', 4, 1]", "[1, 4]"]),
    ({"shape": [4]}, ["[4]", "[1, 4]"]),
    ({"shape": [8, 4]}, ["[8, 4]", "N free or 1"]),
    ({"dtype": DOUBLE}, ["tensor(double)", "tensor(float)"]),
    ({"dtype": INT64}, ["tensor(int64)", "tensor(float)"]),
    ({"columns": 3}, ["3 values", "['down', 'up']"]),
    ({"columns": 5}, ["5 values", "['down', 'up']"]),
    ({"extra_input": True}, ["['x', 'state']"]),
    ({"head": "nan"}, ["not a number"]),
    ({"head": "custom"}, ["Mystery", "inference.custom_ops"]),
], ids=str)
def test_a_graph_that_does_not_fit_is_refused_with_both_sides(tmp_path, change, said):
    text = refused(make(tmp_path / "m.onnx", **change), manifest())
    assert all(part in text for part in [*said, "m.onnx"]), text


@pytest.mark.parametrize("change, said", [
    ({"columns": ("obi_1", "no_such", "obi_5", "obi_10")}, ["column 1: 'no_such'"]),
    ({"columns": ("obi_1", "obi_3", "obi_10", "obi_5")}, ["another order", f"model {FEATURES.schema[:16]}"]),
    ({"columns": ("obi_1", "obi_3", "obi_5")}, ["other columns", f"model {FEATURES.schema[:16]}"]),
    ({"schema": "other"}, ["model other", f"the same names here {FEATURES.schema[:16]}"]),
    ({"sha256": "0" * 64}, ["manifest 0000000000000000", "sha256 "]),
    ({"window": 3}, ["['N', 4]", "[3, 4]"]),
    ({"classes": THREE}, ["2 values", "['down', 'flat', 'up']"]),
    ({"classes": ("flat", "up")}, ["['flat', 'up']"]),
    ({"external": {"w": "1"}}, ["none, manifest w 1"]),
    ({"golden": {"inputs": [[[0.0] * 4]], "outputs": [[0.9, 0.1]]}}, ["row 0 gives [0.5, 0.5]", "[0.9, 0.1]"]),
    ({"golden": {"inputs": [[[0.0] * 5]], "outputs": [[0.5, 0.5]]}}, ["[1, 1, 5]", "[1, 4]"]),
    ({"golden": {"inputs": [[[0.0] * 4]], "outputs": []}}, ["inputs [1, 1, 4], outputs [0]"]),
    ({"golden": {"inputs": [[["x"] * 4]], "outputs": [[0, 1]]}}, ["not numbers", "'x'"]),
    ({"golden": {"inputs": [[[math.nan] * 4]], "outputs": [[0.5, 0.5]]}}, ["not finite: 4 inputs, 0 outputs"]),
    ({"golden": {"inputs": [[[0.0] * 4]], "outputs": [[math.nan, 0.5]]}}, ["not finite: 0 inputs, 1 outputs"]),
    ({"golden": {"inputs": [[[0.0] * 4]], "outputs": [[0.9, 0.1]], "tolerance": 1.0}}, ["prove nothing", "1.0"]),
], ids=str)
def test_a_manifest_that_does_not_fit_is_refused_with_both_sides(tmp_path, change, said):
    text = refused(make(tmp_path / "m.onnx"), dataclasses.replace(manifest(), **change))
    assert all(part in text for part in said), text


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_golden_rows_that_are_no_numbers_are_refused_from_a_file_too(tmp_path, value):
    path = make(tmp_path / "m.onnx")
    golden = {"inputs": [[[value] * 4]], "outputs": [[0.5, 0.5]]}
    path.with_suffix(".json").write_text(manifest(golden=golden).as_json())
    assert "not finite: 4 inputs" in refused(path)


@pytest.mark.parametrize("swallowed", [False, True], ids=["in the open", "swallowed by a layer"])
def test_a_weight_that_is_no_number_is_refused_by_name(tmp_path, swallowed):
    path = make(tmp_path / "m.onnx")
    model = onnx.load(path)
    bad = weights(4, 2)
    bad[1, 1] = np.nan
    if swallowed:  # it stands where no row of the warm-up leads
        model.graph.initializer.append(numpy_helper.from_array(np.array([np.nan, 1], np.float32), "w2"))
        model.graph.node.append(helper.make_node("Identity", ["w2"], ["unused"]))
    else:
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(bad, "w"))
    onnx.save(model, path)
    text = refused(path, manifest())
    assert "not a number" in text and ("w2[0], 1 of 2" if swallowed else "w[3], 1 of 8") in text


def test_golden_rows_within_their_tolerance_pass(tmp_path):
    golden = {"inputs": [[[0.0] * 4]], "outputs": [[0.501, 0.499]], "tolerance": 0.01}
    assert load(make(tmp_path / "m.onnx"), manifest(golden=golden)).name == "test"


def test_probabilities_that_are_none_are_refused(tmp_path):
    text = refused(make(tmp_path / "m.onnx", head="logits"), manifest(output="probabilities"))
    assert "manifest says probabilities" in text


def test_labels_that_the_model_does_not_give_are_refused(tmp_path):
    text = refused(make(tmp_path / "m.onnx", head="zipmap"), manifest(labels=("down", "up")))
    assert "[0, 1]" in text and "['down', 'up']" in text


def test_two_outputs_that_could_be_meant_are_refused_unless_one_is_named_so(tmp_path):
    path = make(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Identity", ["z"], ["scores"]))
    model.graph.output.append(helper.make_tensor_value_info("scores", FLOAT, ["N", 2]))
    onnx.save(model, path)
    text = refused(path, manifest())
    assert "y: tensor(float)" in text and "scores: tensor(float)" in text
    model.graph.node.append(helper.make_node("Identity", ["y"], ["probabilities"]))
    model.graph.output.append(helper.make_tensor_value_info("probabilities", FLOAT, ["N", 2]))
    onnx.save(model, path)
    assert load(path, manifest()).output == "probabilities"


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x07", b"\x3a\xff\xff\xff\xff\x7f"], ids=repr)
def test_a_file_that_is_no_model_is_refused(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    assert "m.onnx" in refused(tmp_path / "m.onnx", manifest())


def test_a_model_cut_off_at_any_byte_is_refused(tmp_path):
    whole = make(tmp_path / "m.onnx").read_bytes()
    for size in range(0, len(whole) - 1, 37):
        (tmp_path / "cut.onnx").write_bytes(whole[:size])
        assert "cut.onnx" in refused(tmp_path / "cut.onnx", manifest())


def test_a_missing_model_and_a_missing_manifest_are_named(tmp_path):
    assert "nowhere.onnx" in refused(tmp_path / "nowhere.onnx")
    text = refused(make(tmp_path / "m.onnx"))
    assert "m.json" in text and METADATA_KEY in text


def test_a_manifest_and_metadata_that_differ_are_refused(tmp_path):
    path = make(tmp_path / "m.onnx", metadata=manifest().as_json(metadata=True))
    path.with_suffix(".json").write_text(dataclasses.replace(manifest(), horizon_s=10.0).as_json())
    text = refused(path)
    assert "horizon_s=10.0" in text and "metadata 30.0" in text


def test_a_library_of_operators_that_cannot_be_loaded_is_named(tmp_path):
    text = refused(make(tmp_path / "m.onnx"), manifest(), custom_ops=(str(tmp_path / "ops.so"),))
    assert "ops.so" in text and "inference.custom_ops" in text


def test_nodes_that_another_provider_runs_are_refused_unless_allowed(tmp_path):
    """A provider that is there and takes no node of this graph: ONNX Runtime itself says nothing of it."""
    others = [name for name in onnxruntime.get_available_providers() if name != CPU]
    if not others:
        pytest.skip("this build of ONNX Runtime has the CPU provider alone")
    path = make(tmp_path / "m.onnx")
    text = refused(path, manifest(), providers=(others[-1], CPU))
    assert f"requested {others[-1]}, in use {CPU} for" in text
    model = load(path, manifest(), providers=(others[-1], CPU), allow_fallback=True)
    assert model.provider == CPU and set(model.nodes) == {CPU} and model.nodes[CPU] >= 2


def test_another_provider_than_requested_is_refused_unless_allowed(tmp_path):
    path = make(tmp_path / "m.onnx")
    wanted = ("NoSuchExecutionProvider", CPU)
    text = refused(path, manifest(), providers=wanted)
    assert "NoSuchExecutionProvider" in text and "available ['" in text
    assert load(path, manifest(), providers=wanted, allow_fallback=True).provider == CPU
    assert load(path, manifest(), providers=wanted[:1], allow_fallback=True).provider == CPU


# Models from elsewhere.

@pytest.mark.parametrize("name, window, output", [("deeplob", 100, "probabilities"), ("cflob", 10, "logits")])
def test_published_models_load_and_reproduce_their_reference(recordings, name, window, output):
    folder = recordings / "onnx_models"
    told = Manifest(name, LEVELS.schema, LEVELS.names, window, 10.0, ("up", "flat", "down"))
    model = Model.load(folder / f"{name}.onnx", manifest=told)
    reference = np.load(folder / "reference_io.npz")
    outputs = reference[f"{name}__out"].reshape(-1, 3).astype(float)
    truth = (outputs if output == "probabilities" else softmax(outputs))[:, [0, 2]]
    found = model.predict_batch(reference[f"{name}__in"].reshape(-1, window, 40))
    np.testing.assert_allclose(found, truth, atol=2e-6)
    assert model.output == output


def test_the_id_of_a_model_with_external_data_follows_those_too(recordings, tmp_path):
    told = Manifest("cflob", LEVELS.schema, LEVELS.names, 10, 10.0, ("up", "flat", "down"))
    ids = set()
    for change in (0, 1):
        for name in ("cflob.onnx", "cflob.onnx.data"):
            data = bytearray((recordings / "onnx_models" / name).read_bytes())
            data[100] ^= change if name.endswith("data") else 0
            (tmp_path / name).write_bytes(data)
        ids.add(Model.load(tmp_path / "cflob.onnx", manifest=told).id)
        assert model_id(tmp_path / "cflob.onnx") in ids
    assert len(ids) == 2
