"""What is done is kept, what is damaged or of something else is not taken for done, and nobody's files are touched."""

import json

import numpy as np
import pytest

from common.errors import InstanceError, ResourceError
from models.checkpoints import Checkpoints

KEY = {"dataset": "d1", "recipe": "r"}


@pytest.fixture
def opened():
    """`Checkpoints`, of which the one before is closed, as the process that held it would have ended."""
    held = []

    def again(*arguments) -> Checkpoints:
        for each in held:
            each.close()
        held[:] = []
        held.append(Checkpoints(*arguments))
        return held[0]

    yield again
    for each in held:
        each.close()


def test_a_part_comes_back_and_one_that_is_not_done_does_not(opened, tmp_path):
    said = []
    kept = opened(tmp_path / "x" / "m.train", KEY, said.append)
    kept.put("fold-a", p=np.eye(2), told=json.dumps({"n": 1}), loss=0.5)
    again = opened(tmp_path / "x" / "m.train", KEY, said.append)
    part = again.get("fold-a")
    assert np.array_equal(part["p"], np.eye(2)) and json.loads(str(part["told"])) == {"n": 1}
    assert float(part["loss"]) == 0.5 and again.get("fold-b") is None
    assert len(said) == 1 and said[0].endswith("1 parts are done")


@pytest.mark.parametrize("harm", [lambda data: data[:-30], lambda data: b"", lambda data: b"junk" * 50])
def test_a_damaged_part_is_not_done(opened, tmp_path, harm):
    kept = opened(tmp_path, KEY)
    kept.put("fold-a", p=np.arange(100))
    file = tmp_path / "fold-a.npz"
    file.write_bytes(harm(file.read_bytes()))
    assert opened(tmp_path, KEY).get("fold-a") is None


def test_another_key_starts_anew_and_says_what_changed(opened, tmp_path):
    opened(tmp_path, KEY).put("fold-a", p=1.0)
    said = []
    kept = opened(tmp_path, KEY | {"dataset": "d2"}, said.append)
    assert kept.get("fold-a") is None and "dataset was 'd1', is 'd2'" in said[0] and "1 parts dropped" in said[0]
    assert opened(tmp_path, KEY | {"dataset": "d2"}, said.append) and "continues" in said[1]


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_key_starts_anew(opened, tmp_path, text):
    opened(tmp_path, KEY).put("fold-a", p=1.0)
    (tmp_path / "key.json").write_text(text)
    assert opened(tmp_path, KEY).get("fold-a") is None


def test_in_the_end_only_what_is_not_ours_stays(opened, tmp_path):
    folder = tmp_path / "m.train"
    kept = opened(folder, KEY)
    kept.put("fold-a", p=1.0)
    kept.remove()
    assert not folder.exists()
    kept = opened(folder, KEY)
    (folder / "mine.npz").write_text("mine")
    kept.remove()
    assert [file.name for file in folder.iterdir()] == ["mine.npz"]
    opened(folder, KEY).remove()
    assert [file.name for file in folder.iterdir()] == ["mine.npz"]


def test_a_folder_that_cannot_be_written_is_named(opened, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="file/m.train"):
        opened(tmp_path / "file" / "m.train", KEY)


def test_two_trainings_of_one_model_do_not_mix(opened, tmp_path):
    kept = opened(tmp_path / "m.train", KEY)
    kept.put("fold-a", p=1.0)
    with pytest.raises(InstanceError, match="another training is making this model .*held by pid"):
        Checkpoints(tmp_path / "m.train", KEY | {"dataset": "d2"})
    assert kept.get("fold-a") is not None
