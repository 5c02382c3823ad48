"""A worker's models and their successors: loaded beside them, taken over when committed, kept where they fail."""

import dataclasses
from pathlib import Path

import pytest

from common import deployment, succession
from common.config import Config, Inference, Instance
from common.deployment import Deployment, Pair, Ref
from common.errors import LayoutError, ModelError
from common.features.choice import DEFAULT
from common.succession import FAILED, LIVE, READY, WAITING, Succession
from tests.onnx_made import make_model
from tests.waiting import until


class Bench:
    """A worker's succession in a folder of its own, and the file in our hands."""

    def __init__(self, folder: Path) -> None:
        (folder / "state").mkdir()
        make_model(folder / "a.onnx", DEFAULT.names[:3])
        self.folder = folder
        self.config = Config(instance=Instance(state_dir="state"), inference=Inference(model="a.onnx"),
                             base=str(folder))
        self.configured = deployment.configured(self.config)
        self.succession = Succession(self.config, succession.load(deployment.in_force(self.config),
                                                                  self.config.inference))
        self.told = Deployment(0, self.configured, self.configured)
        self.lacking = ""

    def store(self, name: str, **how) -> Pair:
        return Pair(deployment.store(make_model(self.folder / name, DEFAULT.names[:3], **how),
                                     self.config.state_dir), None)

    def write(self, **change) -> None:
        self.told = dataclasses.replace(self.told, number=self.told.number + 1, **change)
        deployment.write(self.config.state_dir, self.told)

    def turn(self):
        return self.succession.turn(self.fits)

    def fits(self, engines) -> None:
        if self.lacking:
            raise LayoutError(self.lacking)

    def until(self, state: str) -> None:
        def reached() -> bool:
            assert self.turn() is None
            return self.succession.state.get("state") == state

        until(reached)
        assert self.succession.state["number"] == self.told.number


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def test_without_a_deployment_nothing_changes(bench):
    assert bench.turn() is None and bench.succession.state == {}


def test_prepared_committed_and_back_without_loading_again(bench):
    other, before = bench.store("b.onnx", seed=2), bench.succession.engines
    bench.write(next=other)
    bench.until(READY)
    assert bench.succession.engines is before
    bench.write(live=other, former=bench.configured, next=None)
    engines = bench.turn()
    assert engines is bench.succession.engines and engines.pair == other and engines.model.id != before.model.id
    assert bench.succession.state["state"] == LIVE and bench.turn() is None
    bench.write(live=bench.configured, former=None)
    assert bench.turn() is before


def test_what_is_given_up_changes_nothing(bench):
    before = bench.succession.engines
    bench.write(next=bench.store("b.onnx", seed=2))
    bench.until(READY)
    bench.write(next=None)
    bench.until(LIVE)
    assert bench.succession.engines is before


def test_a_model_that_cannot_be_loaded_leaves_the_old_one_and_says_why(bench):
    before, good = bench.succession.engines, bench.store("b.onnx", seed=2)
    gone = good._replace(model=Ref(str(bench.folder / "gone.onnx"), "12"))
    bench.write(next=gone)
    bench.until(FAILED)
    assert "gone.onnx" in bench.succession.state["error"]
    bench.write(live=gone, next=None)  # even if somebody commits it
    bench.until(FAILED)
    assert bench.succession.engines is before
    bench.write(live=bench.configured, next=good)
    bench.until(READY)


def test_a_model_that_was_changed_after_it_was_deployed_is_refused(bench):
    pair = bench.store("b.onnx", seed=2)
    make_model(Path(pair.model.path), DEFAULT.names[:3], seed=3)
    bench.write(next=pair)
    bench.until(FAILED)
    assert pair.model.fingerprint[:16] in bench.succession.state["error"]
    with pytest.raises(ModelError, match=pair.model.fingerprint[:16]):  # as a worker that starts with it
        succession.load(pair, bench.config.inference)


def test_it_waits_for_the_columns(bench):
    bench.lacking = "no column x"
    bench.write(next=bench.store("b.onnx", seed=2))
    bench.until(WAITING)
    assert "no column x" in bench.succession.state["error"]
    bench.lacking = ""
    bench.until(READY)


def test_a_challenger_comes_and_is_promoted_without_loading_again(bench):
    model, other = bench.configured.model, bench.store("b.onnx", seed=2).model
    bench.write(next=Pair(model, other))
    bench.until(READY)
    bench.write(live=Pair(model, other), next=None)
    first = bench.turn()
    assert first.shadow.name == "b"
    bench.write(next=Pair(other, None))
    bench.until(READY)
    bench.write(live=Pair(other, None), next=None)
    second = bench.turn()
    assert second.model is first.shadow and second.shadow is None


def test_the_deployment_of_another_configuration_is_not_taken(bench):
    other = bench.store("b.onnx", seed=2)
    bench.write(configured=other, live=other)
    assert bench.turn() is None and bench.succession.engines.pair == bench.configured


def test_a_damaged_file_changes_nothing(bench, caplog):
    (bench.config.state_dir / deployment.FILE).write_text("{")
    assert bench.turn() is None and "damaged" in caplog.text
    bench.write(next=bench.store("b.onnx", seed=2))
    bench.until(READY)
