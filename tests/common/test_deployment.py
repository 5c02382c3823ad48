"""The file of what is deployed: whole at every moment, and the configuration has the first word."""

import dataclasses
import json
import stat
from pathlib import Path

import pytest

from common import deployment
from common.config import Config, Inference, Instance
from common.deployment import Deployment, Pair, Ref
from common.errors import ConfigError, ModelError, ResourceError
from tests.onnx_made import make_model

CONFIGURED = Pair(Ref("/a.onnx", ""), None)
OTHER = Pair(Ref("/b.onnx", "12"), Ref("/c.onnx", "34"))


@pytest.fixture
def config(tmp_path) -> Config:
    (tmp_path / "state").mkdir()
    return Config(instance=Instance(state_dir="state"), inference=Inference(model="a.onnx"), base=str(tmp_path))


@pytest.mark.parametrize("told", [
    Deployment(1, CONFIGURED, CONFIGURED), Deployment(2, CONFIGURED, OTHER, CONFIGURED),
    Deployment(3, CONFIGURED, CONFIGURED, None, OTHER), Deployment(4, CONFIGURED, OTHER, CONFIGURED, OTHER)])
def test_what_is_read_is_what_was_written(tmp_path, told):
    deployment.write(tmp_path, told)
    assert deployment.read(tmp_path) == told
    assert stat.S_IMODE((tmp_path / deployment.FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [deployment.FILE]


def test_without_a_deployment_the_configuration_is_in_force(config):
    assert deployment.read(config.state_dir) is None
    mine = deployment.configured(config)
    assert deployment.in_force(config) == mine and mine.shadow is None
    assert mine.model.path == str(Path(config.base) / "a.onnx")
    assert deployment.known(config) == [Path(mine.model.path)]


def test_a_deployment_holds_until_the_configured_model_is_changed(config, caplog):
    told = Deployment(1, deployment.configured(config), OTHER, former=deployment.configured(config))
    deployment.write(config.state_dir, told)
    assert deployment.in_force(config) == OTHER
    assert deployment.known(config) == [Path("/b.onnx"), Path("/c.onnx"), Path(config.base) / "a.onnx"]
    for change in ({"model": "z.onnx"}, {"shadow": "z.onnx"}):
        changed = dataclasses.replace(config, inference=dataclasses.replace(config.inference, **change))
        assert deployment.in_force(changed) == deployment.configured(changed)
        assert "/b.onnx" in caplog.text and "configuration is in force" in caplog.text
        assert Path("/b.onnx") not in deployment.known(changed)


def test_while_another_is_prepared_what_is_live_stays_in_force(config):
    deployment.write(config.state_dir, Deployment(1, deployment.configured(config), CONFIGURED, None, OTHER))
    assert deployment.in_force(config) == CONFIGURED
    assert Path("/b.onnx") in deployment.known(config)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"number": 1}', '{"number": 1, "configured": null, "live": 3, '
                                  '"former": null, "next": null}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / deployment.FILE).write_text(text)
    with pytest.raises(ConfigError, match=deployment.FILE):
        deployment.read(tmp_path)


def test_a_disk_that_refuses_is_named_and_the_file_stays_as_it_was(tmp_path):
    deployment.write(tmp_path, Deployment(1, CONFIGURED, CONFIGURED))
    (tmp_path / f"{deployment.FILE}.new").mkdir()  # so that it cannot be written
    with pytest.raises(ResourceError, match=deployment.FILE):
        deployment.write(tmp_path, Deployment(2, CONFIGURED, OTHER))
    assert deployment.read(tmp_path).number == 1


def test_each_change_is_seen_once(tmp_path):
    watch = deployment.Watch(tmp_path)
    assert not watch.changed()
    for number in (1, 2):
        deployment.write(tmp_path, Deployment(number, CONFIGURED, OTHER))
        assert watch.changed() and not watch.changed()
    (tmp_path / deployment.FILE).unlink()
    assert watch.changed() and not watch.changed()


def test_a_model_is_stored_once_and_what_is_stored_does_not_follow_the_original(tmp_path):
    path = make_model(tmp_path / "m.onnx", ("obi_1",))
    ref = deployment.store(path, tmp_path / "state")
    assert ref.fingerprint == deployment.fingerprint(path) and Path(ref.path).read_bytes() == path.read_bytes()
    assert deployment.store(path, tmp_path / "state") == ref
    manifest = path.with_suffix(".json")
    tree = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**tree, "horizon_s": 5.0}))  # the same graph, told otherwise: another model
    other = deployment.store(path, tmp_path / "state")
    assert other.path != ref.path and other.fingerprint != ref.fingerprint
    ref.verify()
    deployment.prune(tmp_path / "state", Deployment(1, CONFIGURED, Pair(ref, None)))
    assert [home.name for home in (tmp_path / "state" / deployment.STORE).iterdir()] == [Path(ref.path).parent.name]


def test_external_data_are_stored_too(recordings, tmp_path):
    ref = deployment.store(recordings / "onnx_models" / "cflob.onnx", tmp_path)
    assert Path(ref.path).with_name("cflob.onnx.data").exists()


def test_a_stored_model_that_was_changed_or_removed_is_refused_with_both_sides(tmp_path):
    ref = deployment.store(make_model(tmp_path / "m.onnx", ("obi_1",)), tmp_path)
    with open(ref.path, "ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match=ref.fingerprint[:16]):
        ref.verify()
    Path(ref.path).unlink()
    with pytest.raises(ModelError, match="m.onnx"):
        ref.verify()
    Ref(ref.path, "").verify()  # the configured one is taken as it stands
