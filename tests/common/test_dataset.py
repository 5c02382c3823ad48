"""A dataset: its parts fit together, windows are those of its rows, files hold it bit by bit, and what is wrong is
refused with both sides named."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from common import dataset as module
from common.dataset import Dataset
from common.errors import ConfigError, ContractError, ResourceError
from common.features.choice import FeatureSet
from common.labels import Horizon

S = 10**9
FEATURES = FeatureSet.of(("obi_1", "spread", "return_10"))


def small(rows: int = 400, **changes) -> Dataset:
    """Two symbols, half the rows each; every fourth row a sample, but for the first ten, which are cold."""
    random = np.random.default_rng(1)
    half = rows // 2
    seq = np.tile(np.arange(1, half + 1), 2)
    sample = np.flatnonzero((seq > 10) & (seq % 4 == 0))
    time = np.tile(np.arange(half) * S, 2)
    parts = dict(
        features=FEATURES, symbols=("A", "B"), values=random.normal(size=(rows, 3)).astype(np.float32),
        symbol=np.repeat(np.arange(2, dtype=np.int32), half), seq=seq, venue_id=seq + 1000, time_ns=time,
        recv_ns=time + 5, run=np.maximum(seq - 10, 0), bid=np.full(rows, 99), ask=np.full(rows, 101), sample=sample,
        horizons=(Horizon("s", 5.0), Horizon("ticks", 3)), moves=random.normal(size=(len(sample), 2)),
        until_ns=np.stack([time[sample] + 5 * S, time[sample] + 3 * S], 1),
        labels=random.integers(-1, 2, (len(sample), 2)).astype(np.int8), classes=("down", "up"),
        about={"folds": {"borders_ns": [0, half * S // 2, half * S], "embargo_ns": 5 * S}})
    return Dataset(**(parts | changes))


def same(one: Dataset, other: Dataset) -> None:
    for field in dataclasses.fields(Dataset):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(ours, np.ndarray):
            assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes()), field
        else:
            assert ours == theirs, field


def test_windows_are_the_rows_that_end_there():
    data = small()
    assert data.rows_of_samples.shape == (len(data.sample), 3)
    for length in (1, 5, 50):
        rows = data.sample[data.has_window(length)]
        found = data.windows(rows, length)
        assert found.shape == (len(rows), length, 3) and found.dtype == np.float32
        for row, window in zip(rows, found):
            assert window.tobytes() == data.values[row - length + 1:row + 1].tobytes()
            assert (data.symbol[row - length + 1:row + 1] == data.symbol[row]).all()
        assert (data.start_ns(length)[data.has_window(length)] == data.time_ns[rows] - (length - 1) * S).all()
    short = np.flatnonzero(data.run == 3)[:1]
    with pytest.raises(ContractError, match="run 3, window 4"):
        data.windows(short, 4)


@pytest.mark.parametrize("name", ["a.npz", "a.parquet"])
def test_a_file_holds_it_bit_by_bit(tmp_path, name):
    data = small(moves=np.where(small().labels < 0, np.nan, small().moves))
    data.save(tmp_path / name)
    again = Dataset.load(tmp_path / name)
    same(data, again)
    assert again.digest() == data.digest()
    first = (tmp_path / name).read_bytes()
    again.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == first and len(list(tmp_path.iterdir())) == 1


def test_a_parquet_file_can_be_read_by_other_tools(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    data = small()
    data.save(tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["symbol"][0] == "A" and table["seq"] == data.seq.tolist()
    assert table["spread"] == data.values[:, 1].tolist()
    assert [value for value in table["labels_3ticks"] if value is not None] == data.labels[:, 1].tolist()


def test_the_digest_changes_with_anything():
    data = small()
    values, moves = data.values.copy(), data.moves.copy()
    values[7, 1] = np.nextafter(values[7, 1], np.float32(9))
    moves[3, 0] += 1e-9
    others = [small(values=values), small(moves=moves), small(about={**data.about, "x": 1}), small(symbols=("A", "C"))]
    assert len({each.digest() for each in (data, *others)}) == 5 and small().digest() == data.digest()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_and_named(value):
    values = small().values
    values[205, 1] = value
    with pytest.raises(ContractError, match=r"spread of B, seq 6: "):
        small(values=values)


@pytest.mark.parametrize("changes, what", [
    ({"values": np.zeros((400, 4), np.float32)}, r"values: \(400, 4\), not \(400, 3\)"),
    ({"run": np.zeros(3, np.int64)}, "run"), ({"sample": np.array([5, 3])}, "shape"),
    ({"sample": small().sample[::-1]}, "in their order"), ({"sample": small().sample + 300}, "not rows")])
def test_parts_that_do_not_fit_together_are_refused(changes, what):
    with pytest.raises(ContractError, match=what):
        small(**changes)


def test_folds_take_labelled_samples_with_a_window_and_are_clean():
    data = small()
    for horizon in (0, 1):
        for window in (1, 30):
            fold, = data.folds(horizon, window)
            assert fold.train.any() and fold.test.any() and not data.leakage(fold, horizon, window)
            for mask in (fold.train, fold.test):
                assert (data.labels[mask, horizon] >= 0).all() and data.has_window(window)[mask].all()
    begin = data.folds()[0].begin_ns
    assert (data.start_ns(30)[data.folds(0, 30)[0].test] >= begin - 5 * S).all()


def test_leakage_is_found_in_the_data():
    data = small()
    fold, = data.folds()
    late = data.until_ns.copy()
    late[:, 0] += 60 * S
    assert [flaw.kind for flaw in small(until_ns=late).leakage(fold)] == ["label", "window"]
    train, test = data.sample[fold.train][0], data.sample[fold.test][0]
    same_event = {name: getattr(data, name).copy() for name in ("values", "venue_id", "time_ns")}
    for name, column in same_event.items():  # what is tested is what was trained on
        column[test] = column[train]
    copied = dataclasses.replace(data, **same_event)
    assert "duplicate" in [flaw.kind for flaw in copied.leakage(fold)]


def test_a_number_that_was_fitted_on_the_test_is_found(monkeypatch):
    data = small()
    fold, = data.folds()
    monkeypatch.setattr(FeatureSet, "parameters", {"something": {"A": [1.0]}})
    data.about["fit_until_ns"] = fold.begin_ns - 1
    assert not data.leakage(fold)
    data.about["fit_until_ns"] = fold.begin_ns + 20 * S
    assert [flaw.kind for flaw in data.leakage(fold)] == ["fitted"]


def forge(path, **changes) -> None:
    """Change what the head of a file says."""
    with np.load(path) as file:
        arrays = dict(file)
    head = json.loads(arrays["head"].tobytes()) | changes
    np.savez(path, **(arrays | {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}))


@pytest.mark.parametrize("changes, what", [
    ({"version": 99}, "version 99, here 1"), ({"schema": "0" * 64}, f"dataset {'0' * 16}.*{FEATURES.schema[:16]}"),
    ({"columns": ["spread", "obi_1", "return_10"]}, f"dataset {FEATURES.schema[:16]}.*here"),
    ({"columns": ["obi_1", "spread", "nothing"]}, "'nothing'")])
def test_a_file_of_other_definitions_is_refused_with_both_sides_named(tmp_path, changes, what):
    small().save(tmp_path / "a.npz")
    forge(tmp_path / "a.npz", **changes)
    with pytest.raises(ContractError, match=what):
        Dataset.load(tmp_path / "a.npz")


@pytest.mark.parametrize("name, content", [("a.npz", b"nothing"), ("a.parquet", b"nothing"), ("a.npz", b"")])
def test_what_is_no_dataset_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ContractError, match="not a dataset"):
        Dataset.load(tmp_path / name)


def test_a_file_that_is_cut_off_or_damaged_is_refused(tmp_path):
    small().save(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:-100])
    with pytest.raises(ContractError, match="not a dataset"):
        Dataset.load(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(ContractError, match="not a dataset"):
        Dataset.load(tmp_path / "a.npz")


def test_places_that_cannot_be_used_are_refused(tmp_path):
    for action in (small().save, Dataset.load):
        with pytest.raises(ConfigError, match="npz or .parquet"):
            action(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="cannot read a dataset"):
        Dataset.load(tmp_path / "a.npz")
    with pytest.raises(ResourceError, match="cannot write a dataset"):
        small().save(tmp_path / "nowhere" / "a.npz")


def test_without_pyarrow_parquet_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pip install"):
        module.ending(tmp_path / "a.parquet")
