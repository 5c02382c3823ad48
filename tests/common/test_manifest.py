"""The manifest: what is read is what was written, and what is wrong with one is said."""

import json

import pytest

from common.errors import ModelError
from common.manifest import FILE_KEYS, Manifest

GOOD = Manifest("m", "hash", ("a", "b"), 3, 30.0, ("down", "up"), "logits", (0, 1), sha256="x", external={"w": "y"},
                trained={"rows": 5}, metrics={"auc": 0.7}, golden={"inputs": []})


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
