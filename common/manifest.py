"""The manifest of a model: what it is, beside its weights. The contract between training and pipeline.

It stands in `NAME.json` beside `NAME.onnx`; and, but for the hashes of the files and the golden rows, in the ONNX
metadata under METADATA_KEY, so that a file that lost its manifest still tells what it is.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from common.errors import ModelError

METADATA_KEY = "predictive_alpha"
CLASSES = ("down", "flat", "up")
OUTPUTS = ("probabilities", "logits")
FILE_KEYS = ("sha256", "external", "golden")  #: in the file only: the metadata cannot hold them, or need not


@dataclass(frozen=True)
class Manifest:
    """What a model is, beside its weights."""

    name: str
    schema: str  #: hash of the feature declarations it was trained on
    columns: tuple[str, ...]
    window: int  #: rows
    horizon_s: float  #: the move that it predicts
    classes: tuple[str, ...]  #: of the output's columns, in order
    output: str = ""  #: "probabilities", "logits", or empty: found out
    labels: tuple[Any, ...] = ()  #: keys of a ZipMap in the order of `classes`; empty: sorted
    normalisation: str = "inside"  #: the graph scales its own input
    sha256: str = ""  #: of the .onnx file; empty: not checked
    external: dict[str, str] = field(default_factory=dict)  #: external data file -> its sha256
    trained: dict[str, Any] = field(default_factory=dict)  #: source and span of the training data
    metrics: dict[str, Any] = field(default_factory=dict)  #: on data not trained on
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
                           ("external", dict), ("trained", dict), ("metrics", dict), ("golden", dict)):
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
        if metadata:
            tree = {key: value for key, value in tree.items() if key not in FILE_KEYS}
        return json.dumps(tree, indent=None if metadata else 1)
