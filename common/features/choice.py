"""A choice of features: what one model takes, or what a ring carries for several.

A feature that is fitted (a principal component, a table of expected moves) has numbers for each symbol, which came from
training data and stand in the model's manifest. Two models may have fitted the same feature differently, so a column of
a ring is named by its label: the name of the feature, and where it is fitted `name@` and a digest of its numbers.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from common.errors import ContractError, LayoutError
from common.features.table import BY_NAME, FEATURES, GROUPS, Feature, schema_hash

Parameters = Mapping[str, Sequence[float]]  #: symbol -> the numbers of one fitted feature


def expand(words: Iterable[str]) -> tuple[str, ...]:
    """Names of features and of groups of them as names of features, each once."""
    return tuple(dict.fromkeys(name for word in words for name in GROUPS.get(word, (word,))))


class Column(NamedTuple):
    feature: Feature
    parameters: Parameters  #: empty where the feature is not fitted

    @property
    def label(self) -> str:
        if not self.feature.fitted:
            return self.feature.name
        text = json.dumps(self.parameters, sort_keys=True, separators=(",", ":"))
        return f"{self.feature.name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class FeatureSet:
    """Columns in their order. Immutable; equal if the labels are."""

    def __init__(self, columns: Iterable[Column]) -> None:
        self.columns = tuple(columns)
        self.names = tuple(column.feature.name for column in self.columns)
        self.labels = tuple(column.label for column in self.columns)
        self.warm_up: int = max((column.feature.warm_up for column in self.columns), default=1)  #: ticks of a run
        self.warm_up_ns = round(1e9 * max((column.feature.warm_up_s for column in self.columns), default=0.0))

    @classmethod
    def of(cls, names: Sequence[str], parameters: Mapping[str, Parameters] | None = None) -> "FeatureSet":
        """The features called `names`, in this order; `parameters` holds the numbers of each fitted one.

        Raises ContractError naming a feature that does not exist, comes twice, or has no numbers."""
        given, columns = parameters or {}, []
        for name in names:
            feature = BY_NAME.get(name)
            if feature is None:
                raise ContractError("there is no such feature", where=f"column {len(columns)}: {name!r}",
                                    remedy="`alpha features` lists them")
            if feature.fitted and not given.get(name):
                raise ContractError("a fitted feature has no numbers", where=f"{name}: parameters of {sorted(given)}",
                                    remedy="`alpha dataset` fits it on training data and `alpha train` keeps what it "
                                           "found in the manifest")
            columns.append(Column(feature, dict(given[name]) if feature.fitted else {}))
        found = cls(columns)
        twice = sorted({name for name in found.names if found.names.count(name) > 1})
        if twice:
            raise ContractError("a feature is named twice", where=twice[0])
        return found

    @classmethod
    def union(cls, sets: Iterable["FeatureSet"]) -> "FeatureSet":
        """The columns of all `sets`, those of the first as they stand, so that its windows need no copy."""
        found: dict[str, Column] = {}
        for each in sets:
            for column in each.columns:
                found.setdefault(column.label, column)
        return cls(found.values())

    @property
    def schema(self) -> str:
        """The hash that a model's manifest carries."""
        return schema_hash([column.feature for column in self.columns], self.parameters)

    @property
    def parameters(self) -> dict[str, Parameters]:
        """Of the fitted features: feature -> symbol -> numbers."""
        return {column.feature.name: column.parameters for column in self.columns if column.feature.fitted}

    def places(self, labels: Sequence[str]) -> slice | list[int]:
        """Where these columns stand among `labels`, those of a ring: a slice if side by side, so that taking them
        copies nothing. Raises LayoutError naming a column that is missing."""
        where = {label: place for place, label in enumerate(labels)}
        missing = [label for label in self.labels if label not in where]
        if missing:
            raise LayoutError("the rows have not all columns that the model takes", where=f"{missing[0]} (of "
                              f"{len(missing)} missing); the rows have {len(labels)}: {', '.join(labels)[:200]}",
                              remedy="let feature read this model's manifest, or name them in feature.columns")
        found = [where[label] for label in self.labels]
        if found == list(range(found[0], found[0] + len(found))):
            return slice(found[0], found[0] + len(found))
        return found

    def __len__(self) -> int:
        return len(self.columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureSet) and self.labels == other.labels

    def __hash__(self) -> int:
        return hash(self.labels)

    def __repr__(self) -> str:
        return f"FeatureSet({', '.join(self.labels)})"


DEFAULT = FeatureSet.of([feature.name for feature in FEATURES[:24]])  #: what the model that ships takes
