"""The manifest: what is read is what was written, and what is wrong with one is said."""

import dataclasses
import json

import pytest

from common.config import Config, Feature, Inference
from common.errors import ModelError
from common.features.choice import DEFAULT, FeatureSet
from common.features.table import FEATURES
from common.manifest import FILE_KEYS, Manifest, features_of, features_wanted, read
from tests.onnx_made import make_model

GOOD = Manifest("m", "hash", ("a", "b"), 3, 30.0, ("down", "up"), {"a": {"X": [1.5]}}, "logits", (0, 1), sha256="x",
                external={"w": "y"}, trained={"rows": 5}, metrics={"auc": 0.7}, statistics={"rows": 5},
                golden={"inputs": []})


def test_a_manifest_comes_back_as_it_was_written():
    assert Manifest.parse(GOOD.as_json(), "here") == GOOD


def test_the_metadata_hold_all_but_the_hashes_of_files_and_the_golden_rows():
    inside = json.loads(GOOD.as_json(metadata=True))
    assert set(json.loads(GOOD.as_json())) - set(inside) == set(FILE_KEYS)
    assert Manifest.parse(GOOD.as_json(metadata=True), "here").columns == GOOD.columns


@pytest.mark.parametrize("change, said", [
    ({"clases": ["up"]}, "unknown entry (here: clases)"),
    ({"window": None}, "window=None"),
    ({"window": 0}, "window=0"),
    ({"window": True}, "window=True"),
    ({"window": "3"}, "window='3'"),
    ({"columns": "abc"}, "columns='abc'"),
    ({"columns": ["a", 7]}, "columns=['a', 7]"),
    ({"horizon_s": -1}, "horizon_s=-1"),
    ({"classes": ["down", "flat"]}, "classes=('down', 'flat')"),
    ({"classes": ["up", "sideways"]}, "sideways"),
    ({"classes": ["up", "up"]}, "classes=('up', 'up')"),
    ({"output": "odds"}, "output='odds'"),
    ({"normalisation": "outside"}, "normalisation='outside'"),
])
def test_a_wrong_entry_is_refused_by_name_and_value(change, said):
    with pytest.raises(ModelError) as error:
        Manifest.parse(json.dumps({**json.loads(GOOD.as_json()), **change}), "here")
    assert said in str(error.value) and "here" in str(error.value)


@pytest.mark.parametrize("name", ["name", "schema", "columns", "window", "horizon_s", "classes"])
def test_a_missing_entry_is_named(name):
    tree = json.loads(GOOD.as_json())
    del tree[name]
    with pytest.raises(ModelError, match=f"lacks an entry .here: {name}"):
        Manifest.parse(json.dumps(tree), "here")


@pytest.mark.parametrize("text", ["", "{", "[]", "7", b"\xff\xfe"])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(ModelError, match="here"):
        Manifest.parse(text, "here")


def test_the_manifest_of_a_file_is_read_without_loading_it(tmp_path):
    path = make_model(tmp_path / "m.onnx", ("obi_1", "spread"))
    assert read(path).columns == ("obi_1", "spread")
    path.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match="no manifest"):
        read(path)
    with pytest.raises(ModelError, match="none.onnx"):
        read(tmp_path / "none.onnx")


def test_a_model_takes_the_features_it_names_as_they_are_defined_here(tmp_path):
    told = read(make_model(tmp_path / "m.onnx", ("spread", "obi_1")))
    assert features_of(told, "here") == FeatureSet.of(("spread", "obi_1"))
    swapped = dataclasses.replace(told, columns=("obi_1", "spread"))
    with pytest.raises(ModelError, match="another order.*here: model"):
        features_of(swapped, "here")
    with pytest.raises(ModelError, match="no such feature.*here: column 0: 'x'"):
        features_of(dataclasses.replace(told, columns=("x",)), "here")


def test_rows_carry_what_every_model_takes_the_first_one_as_it_stands(tmp_path):
    one = make_model(tmp_path / "a.onnx", ("spread", "obi_1"))
    other = make_model(tmp_path / "b.onnx", ("obi_1", "vol_20"))
    config = Config(inference=Inference(model="a.onnx", shadow="b.onnx"), base=str(tmp_path))
    assert features_wanted(config).names == ("spread", "obi_1", "vol_20")
    assert features_wanted(config, [other]).names == ("obi_1", "vol_20")
    assert features_wanted(config, [other, one]).names == ("obi_1", "vol_20", "spread")
    more = dataclasses.replace(config, feature=Feature(columns=("micro_price",)))
    assert features_wanted(more, [one]).names == ("spread", "obi_1", "micro_price")
    every = dataclasses.replace(config, feature=Feature(columns=("all",)))
    assert set(features_wanted(every).names) == {feature.name for feature in FEATURES if not feature.fitted}
    assert DEFAULT.places(features_wanted(every).labels)
