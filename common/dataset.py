"""A dataset: every row of some recordings, which of them are learnt from, and their labels.

Rows are stored once, in order per symbol, and samples are indices into them: a window of any length is taken when it
is needed, and 100 rows do not become 100 copies. A dataset carries the features that its rows were made with, numbers
of fitted ones included, and everything about how it was made; a model trained on it can so be refused where it does
not fit. `common.collect` makes one of recordings.

Files: `.npz`, or `.parquet` (a row each, for research; needs pyarrow). Same dataset, same bytes.
"""

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np

from common import labels
from common.errors import ConfigError, ContractError, ResourceError
from common.features.choice import FeatureSet
from common.folds import Fold, Violation, leakage, walk_forward
from common.labels import UNKNOWN, Horizon

__all__ = ["Dataset", "Horizon"]

VERSION = 1  #: of the files
_OF_ROWS = {"symbol": np.int32, "seq": np.int64, "venue_id": np.int64, "time_ns": np.int64, "recv_ns": np.int64,
            "run": np.int64, "bid": np.int64, "ask": np.int64}
_OF_SAMPLES = {"moves": np.float64, "until_ns": np.int64, "labels": np.int8}


@dataclass(frozen=True, eq=False)
class Dataset:
    """m rows, n samples of them, H horizons. Raises ContractError where the parts do not fit together, or a value is
    not finite (naming symbol, seq and column)."""

    features: FeatureSet
    symbols: tuple[str, ...]
    values: np.ndarray  #: float32[m, F]: rows of all ticks on a valid book, those of symbol 0, then of symbol 1, ...
    symbol: np.ndarray  #: int32[m]
    seq: np.ndarray  #: int64[m], of the tick in its symbol: a number that is missing was no valid book
    venue_id: np.ndarray  #: int64[m]
    time_ns: np.ndarray  #: int64[m], venue time, never going back within a symbol (`common.collect.timeline`)
    recv_ns: np.ndarray  #: int64[m]
    run: np.ndarray  #: int64[m], ROW_RUN: a window of W rows may end here if it is at least W
    bid: np.ndarray  #: int64[m], 1e-8; 0 where that side is empty
    ask: np.ndarray  #: int64[m]
    sample: np.ndarray  #: int64[n], indices of the rows that are learnt from: warm, with both sides
    horizons: tuple[Horizon, ...]
    moves: np.ndarray  #: float64[n, H], bps; NaN where the stream ends before, or the book was lost
    until_ns: np.ndarray  #: int64[n, H], the venue time at which each label is known
    labels: np.ndarray  #: int8[n, H], index into `classes`; -1 where there is none
    classes: tuple[str, ...]  #: ("down", "up") or ("down", "flat", "up")
    about: dict[str, Any]  #: JSON: recordings, options, counts, folds, thresholds, version

    def __post_init__(self) -> None:
        rows, samples = len(self.values), len(self.sample)
        shapes = {"values": (rows, len(self.features)), "sample": (samples,), **dict.fromkeys(_OF_ROWS, (rows,)),
                  **dict.fromkeys(_OF_SAMPLES, (samples, len(self.horizons)))}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ContractError("a part of the dataset has a wrong shape",
                                    where=f"{name}: {getattr(self, name).shape}, not {shape}")
        if samples and not (0 <= self.sample[0] and self.sample[-1] < rows and (np.diff(self.sample) > 0).all()):
            raise ContractError("the samples are not rows in their order, each once", where=f"rows 0..{rows - 1}")
        refuse_not_finite(self.values, self.features, lambda row: (
            f"{self.symbols[self.symbol[row]]}, seq {self.seq[row]}"))

    # ---- what is learnt from

    @property
    def rows_of_samples(self) -> np.ndarray:
        """float32[n, F]: the newest row of each sample."""
        return self.values[self.sample]

    def has_window(self, length: int) -> np.ndarray:
        """bool[n]: the samples at which a window of `length` rows ends."""
        return self.run[self.sample] >= length

    def windows(self, index: np.ndarray, length: int) -> np.ndarray:
        """float32[k, length, F]: the windows that end at the rows `index`, int64[k], oldest row first; a copy.

        Raises ContractError naming a row at which no window of that length ends."""
        short = np.flatnonzero(self.run[index] < length)
        if len(short):
            row = int(index[short[0]])
            raise ContractError("no window of this length ends at a row",
                                where=f"row {row}: run {self.run[row]}, window {length} ({len(short)} such rows)",
                                remedy="take those of has_window()")
        return self.values[np.asarray(index)[:, None] + np.arange(1 - length, 1)]

    def start_ns(self, length: int) -> np.ndarray:
        """int64[n]: the time of the first row of each sample's window, as far as there are rows."""
        return self.time_ns[self.sample - np.minimum(length, np.maximum(self.run[self.sample], 1)) + 1]

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        return sum(getattr(self, name).nbytes for name in ("values", *_OF_ROWS, "sample", *_OF_SAMPLES))

    # ---- folds

    def folds(self, horizon: int = 0, window: int = 1, *, sliding: bool = False,
              embargo_ns: int | None = None) -> list[Fold]:
        """Walk-forward folds over the samples for one horizon, with the borders that the dataset was made with: what
        was fitted was fitted before the first of them. Samples without that label or window are in none."""
        told = self.about["folds"]
        embargo = told["embargo_ns"] if embargo_ns is None else embargo_ns
        usable = (self.labels[:, horizon] != UNKNOWN) & self.has_window(window)
        return [Fold(fold.train & usable, fold.test & usable, fold.begin_ns, fold.end_ns) for fold in walk_forward(
            self.time_ns[self.sample], self.until_ns[:, horizon], len(told["borders_ns"]) - 2, embargo, sliding=sliding,
            start_ns=self.start_ns(window), borders=told["borders_ns"])]

    def leakage(self, fold: Fold, horizon: int = 0, window: int = 1, embargo_ns: int | None = None) -> list[Violation]:
        """What of the test of a fold, whoever made it, could have been known in training; empty if nothing."""
        embargo = self.about["folds"]["embargo_ns"] if embargo_ns is None else embargo_ns
        keys = np.stack([self.symbol[self.sample], self.venue_id[self.sample], self.time_ns[self.sample],
                         self.bid[self.sample], self.ask[self.sample], _bits(self.values[self.sample])], axis=1)
        found = leakage(fold, self.time_ns[self.sample], self.until_ns[:, horizon], embargo,
                        start_ns=self.start_ns(window), keys=keys)
        fit_until = self.about.get("fit_until_ns")
        if self.features.parameters and fit_until is not None:
            early = fold.test & (self.time_ns[self.sample] < fit_until)
            if early.any():
                found.append(Violation("fitted", int(early.sum()), "test samples are from before the time up to which "
                                       f"numbers of features were fitted, {fit_until}"))
        return found

    # ---- identity and files

    def digest(self) -> str:
        """SHA-256 over all of it: changes with any value, label, option or source."""
        found = hashlib.sha256(self._head().encode())
        for name in ("values", *_OF_ROWS, "sample", *_OF_SAMPLES):
            found.update(np.ascontiguousarray(getattr(self, name)).view(np.uint8))
        return found.hexdigest()

    def save(self, path: str | PathLike) -> None:
        """To `path`, .npz or .parquet; there is no half a file at any time. Raises ConfigError for another ending,
        ResourceError where it cannot be written."""
        name = fspath(path)
        write = self._save_npz if ending(name) == ".npz" else self._save_parquet
        head, tail = os.path.split(name)
        new = os.path.join(head, f".{tail}.new")
        try:
            write(new)
            os.replace(new, name)
        except OSError as error:
            raise ResourceError("cannot write a dataset", where=f"{name}: {error.strerror or error}",
                                remedy="make room, or name another place") from None
        finally:
            if os.path.exists(new):
                os.unlink(new)

    @classmethod
    def load(cls, path: str | PathLike) -> "Dataset":
        """Raises ConfigError where there is no such file, ContractError where it is no dataset, or one of another
        version, or of features that are defined otherwise here."""
        name = fspath(path)
        read = _load_npz if ending(name) == ".npz" else _load_parquet
        try:
            head, arrays = read(name)
        except OSError as error:
            raise ConfigError("cannot read a dataset", where=f"{name}: {error.strerror or error}") from None
        except (ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
            raise ContractError("not a dataset", where=f"{name}: {error}", remedy="make one with `alpha dataset`"
                                ) from None
        if head.get("version") != VERSION:
            raise ContractError("the dataset is of another version",
                                where=f"{name}: version {head.get('version')}, here {VERSION}",
                                remedy="make it anew with `alpha dataset`")
        features = FeatureSet.of(head["columns"], head["parameters"])
        if features.schema != head["schema"]:
            raise ContractError("the dataset was made for other definitions of its features",
                                where=f"{name}: dataset {head['schema'][:16]}, the same names here "
                                      f"{features.schema[:16]}", remedy="make it anew with `alpha dataset`")
        return cls(features=features, symbols=tuple(head["symbols"]), classes=tuple(head["classes"]),
                   horizons=tuple(labels.Horizon(*each) for each in head["horizons"]), about=head["about"], **arrays)

    def _head(self) -> str:
        """What is no array, as JSON."""
        return json.dumps({
            "version": VERSION, "schema": self.features.schema, "columns": self.features.names,
            "parameters": self.features.parameters, "symbols": self.symbols, "classes": self.classes,
            "horizons": self.horizons, "about": self.about}, sort_keys=True)

    def _save_npz(self, name: str) -> None:
        arrays = {key: getattr(self, key) for key in ("values", *_OF_ROWS, "sample", *_OF_SAMPLES)}
        with open(name, "wb") as file:
            np.savez(file, head=np.frombuffer(self._head().encode(), np.uint8), **arrays)

    def _save_parquet(self, name: str) -> None:
        """Columns: those of a row, the features by name, and of each horizon move, until_ns and label, which are null
        where the row is no sample."""
        pa, parquet = _pyarrow()
        columns = {key: pa.array(getattr(self, key)) for key in _OF_ROWS if key != "symbol"}
        columns["symbol"] = pa.DictionaryArray.from_arrays(pa.array(self.symbol), pa.array(self.symbols, pa.string()))
        for place, label in enumerate(self.features.names):
            columns[label] = pa.array(np.ascontiguousarray(self.values[:, place]))
        absent = np.ones(len(self.values), bool)
        absent[self.sample] = False
        for key in _OF_SAMPLES:
            for place, horizon in enumerate(self.horizons):
                full = np.zeros(len(self.values), _OF_SAMPLES[key])
                full[self.sample] = getattr(self, key)[:, place]
                columns[f"{key}_{horizon}"] = pa.array(full, mask=absent)
        columns["sample"] = pa.array(~absent)
        table = pa.table(columns).replace_schema_metadata({"alpha": self._head()})
        parquet.write_table(table, name, compression="zstd")


def ending(path: str | PathLike) -> str:
    """That of a file which can hold a dataset. Raises ConfigError where it cannot, or where pyarrow is missing."""
    found = os.path.splitext(fspath(path))[1]
    if found not in (".npz", ".parquet"):
        raise ConfigError("a dataset is .npz or .parquet", where=fspath(path))
    if found == ".parquet":
        _pyarrow()
    return found


def refuse_not_finite(values: np.ndarray, features: FeatureSet, name: Any) -> None:
    """Raises ContractError for a NaN or an infinity in float32[m, F]; `name(row)` says which row that is."""
    if np.isfinite(values.sum(dtype=np.float64)):  # one look at all of it; only then which
        return
    found = np.argwhere(~np.isfinite(values))
    if len(found):
        row, column = found[0].tolist()
        raise ContractError("a value is not finite",
                            where=f"{features.names[column]} of {name(row)}: {values[row, column]} ({len(found)} such)",
                            remedy="a feature is finite on any book: this one is wrong, or the file is damaged")


def _bits(values: np.ndarray) -> np.ndarray:
    """int64[n]: a number that differs for rows that differ in a bit (but by chance, once in 2^64)."""
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
    odd = np.random.default_rng(0).integers(0, 2**63, bits.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return (bits * odd).sum(axis=1, dtype=np.uint64).view(np.int64)


def _load_npz(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(name, allow_pickle=False) as file:
        head = json.loads(file["head"].tobytes())
        return head, {key: file[key] for key in ("values", *_OF_ROWS, "sample", *_OF_SAMPLES)}


def _load_parquet(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    _, parquet = _pyarrow()
    table = parquet.read_table(name)
    head = json.loads((table.schema.metadata or {})[b"alpha"])
    sample = np.flatnonzero(table["sample"].to_numpy())
    arrays = {key: table[key].to_numpy() for key in _OF_ROWS if key != "symbol"}
    arrays["symbol"] = table["symbol"].combine_chunks().indices.to_numpy().astype(np.int32)
    arrays["sample"] = sample
    arrays["values"] = np.empty((table.num_rows, len(head["columns"])), np.float32)
    for place, column in enumerate(head["columns"]):
        arrays["values"][:, place] = table[column].to_numpy()
    for key, kind in _OF_SAMPLES.items():
        columns = [table[f"{key}_{Horizon(*each)}"].take(sample).to_numpy() for each in head["horizons"]]
        arrays[key] = np.stack(columns, axis=1).astype(kind) if columns else np.empty((len(sample), 0), kind)
    return head, arrays


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("Parquet needs the module pyarrow", where=".parquet",
                          remedy="pip install 'predictive-alpha[parquet]'") from None
    return pyarrow, pyarrow.parquet
