"""The manifest of a model: what it is, beside its weights. The contract between training and pipeline.

It stands in `NAME.json` beside `NAME.onnx`; and, but for the hashes of the files and the golden rows, in the ONNX
metadata under METADATA_KEY, so that a file that lost its manifest still tells what it is.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config import Config
from common.errors import ContractError, ModelError
from common.features.choice import FeatureSet, expand
from common.onnx_file import metadata

METADATA_KEY = "predictive_alpha"
CLASSES = ("down", "flat", "up")
OUTPUTS = ("probabilities", "logits")
OPTIONAL_KEYS = ("parameters", "statistics")  #: left out where there are none
FILE_KEYS = ("sha256", "external", "golden", "statistics")  #: in the file only: metadata cannot hold them, or need not


@dataclass(frozen=True)
class Manifest:
    """What a model is, beside its weights."""

    name: str
    schema: str  #: hash of the feature declarations it was trained on
    columns: tuple[str, ...]
    window: int  #: rows
    horizon_s: float  #: the move that it predicts
    classes: tuple[str, ...]  #: of the output's columns, in order
    #: of fitted features: feature -> symbol -> numbers
    parameters: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    output: str = ""  #: "probabilities", "logits", or empty: found out
    labels: tuple[Any, ...] = ()  #: keys of a ZipMap in the order of `classes`; empty: sorted
    normalisation: str = "inside"  #: the graph scales its own input
    sha256: str = ""  #: of the .onnx file; empty: not checked
    external: dict[str, str] = field(default_factory=dict)  #: external data file -> its sha256
    trained: dict[str, Any] = field(default_factory=dict)  #: source and span of the training data
    metrics: dict[str, Any] = field(default_factory=dict)  #: on data not trained on
    #: of each column over the training rows: {"rows": n, "deciles": F lists of 9 numbers}; drift is measured against it
    statistics: dict[str, Any] = field(default_factory=dict)
    golden: dict[str, Any] = field(default_factory=dict)  #: inputs [n, W, F], outputs [n, 2], tolerance

    @classmethod
    def parse(cls, text: str | bytes, source: str) -> "Manifest":
        """Raises ModelError naming the source and the entry."""
        try:
            tree = json.loads(text)
        except ValueError as error:
            raise ModelError("the manifest is not valid JSON", where=f"{source}: {error}") from None
        known = {f.name: f for f in dataclasses.fields(cls)}
        if not isinstance(tree, dict):
            raise ModelError("the manifest is not a JSON object", where=source)
        unknown = sorted(tree.keys() - known.keys())
        if unknown:
            raise ModelError("the manifest has an unknown entry", where=f"{source}: {unknown[0]}",
                             remedy=f"known: {', '.join(known)}")
        missing = [name for name, f in known.items() if name not in tree and f.default is dataclasses.MISSING
                   and f.default_factory is dataclasses.MISSING]
        if missing:
            raise ModelError("the manifest lacks an entry", where=f"{source}: {missing[0]}")
        def refuse(name: str) -> ModelError:
            return ModelError("an entry of the manifest has a wrong type", where=f"{source}: {name}={tree[name]!r}")

        for name, kind in (("name", str), ("schema", str), ("columns", list), ("window", int), ("classes", list),
                           ("horizon_s", (int, float)), ("output", str), ("labels", list), ("sha256", str),
                           ("parameters", dict), ("external", dict), ("trained", dict), ("metrics", dict),
                           ("golden", dict), ("statistics", dict)):
            if name in tree and (not isinstance(tree[name], kind) or isinstance(tree[name], bool)):
                raise refuse(name)
        for name in ("columns", "classes"):
            if not all(isinstance(item, str) for item in tree[name]):
                raise refuse(name)
        for name in ("columns", "classes", "labels"):
            tree[name] = tuple(tree.get(name, ()))
        manifest = cls(**tree)
        manifest._check(source)
        return manifest

    def _check(self, source: str) -> None:
        def need(ok: bool, name: str, remedy: str) -> None:
            if not ok:
                raise ModelError("an entry of the manifest is out of range",
                                 where=f"{source}: {name}={getattr(self, name)!r}", remedy=remedy)

        need(self.window >= 1, "window", "use 1 or more rows")
        need(self.horizon_s > 0, "horizon_s", "use seconds above 0")
        need(set(self.classes) <= set(CLASSES) and "up" in self.classes
             and len(set(self.classes)) == len(self.classes) <= 3, "classes",
             f'name one to three of {", ".join(CLASSES)}, "up" among them')
        need(self.output in ("",) + OUTPUTS, "output", f"use {' or '.join(OUTPUTS)}, or leave it out")
        need(self.normalisation == "inside", "normalisation", "rows are not scaled here: put it into the graph")

    def as_json(self, metadata: bool = False) -> str:
        """For the manifest file, or for the ONNX metadata: without file hashes and golden rows."""
        tree = dataclasses.asdict(self)
        tree = {key: value for key, value in tree.items() if value or key not in OPTIONAL_KEYS}
        if metadata:
            tree = {key: value for key, value in tree.items() if key not in FILE_KEYS}
        return json.dumps(tree, indent=None if metadata else 1)


def read(path: Path) -> Manifest:
    """The manifest of the model at `path`, from the file beside it, else from its metadata; the model is not loaded.

    Raises ModelError if there is none, or a file cannot be read."""
    beside = path.with_suffix(".json")
    try:
        return Manifest.parse(beside.read_bytes(), str(beside))
    except FileNotFoundError:
        pass
    try:
        inside = metadata(path.read_bytes(), path).get(METADATA_KEY)
    except OSError as error:
        raise ModelError("cannot read the model", where=f"{path}: {error.strerror}",
                         remedy="set inference.model to an .onnx file") from None
    if inside is None:
        raise no_manifest(path)
    return Manifest.parse(inside, f"metadata of {path}")


def no_manifest(path: Path) -> ModelError:
    return ModelError("the model has no manifest",
                      where=f"neither {path.with_suffix('.json')} nor metadata {METADATA_KEY!r}",
                      remedy="python -m models.describe writes one")


def features_of(manifest: Manifest, source: str) -> FeatureSet:
    """The features that the model takes, as they are defined here.

    Raises ModelError where one does not exist here, or the definitions are not those it was trained on."""
    try:
        features = FeatureSet.of(manifest.columns, manifest.parameters)
    except ContractError as error:
        raise ModelError(f"the model does not fit this version's features: {error.what}",
                         where=f"{source}: {error.where}", remedy=error.remedy) from None
    if manifest.schema != features.schema:
        raise ModelError("the model was made for other columns, another order of them, or other definitions",
                         where=f"{source}: model {manifest.schema[:16]}, the same names here {features.schema[:16]}",
                         remedy="train it on this version's features")
    return features


def features_wanted(config: Config, models: Sequence[Path] | None = None) -> FeatureSet:
    """What the rows must carry: the features of `models`, those of the first as they stand, then `feature.columns`.

    Without `models`, those of the configuration: the one that trades, then the one in its shadow."""
    settings = config.inference
    if models is None:
        models = [config.path(name) for name in (settings.model, settings.shadow) if name]
    sets = [features_of(read(path), str(path)) for path in models]
    return FeatureSet.union([*sets, FeatureSet.of(expand(config.feature.columns))])
