"""A choice of features: order, numbers of fitted ones, and where columns stand in a ring."""

import pytest

from common.errors import ContractError, LayoutError
from common.features import choice as feature_set
from common.features.choice import DEFAULT, Column, FeatureSet, expand
from common.features.table import BY_NAME, FEATURES, LEVELS_Z


def test_the_order_of_the_names_is_the_order_of_the_columns_and_part_of_the_schema():
    one, other = FeatureSet.of(["obi_1", "spread"]), FeatureSet.of(["spread", "obi_1"])
    assert one.labels == ("obi_1", "spread") and one.schema != other.schema and one != other
    assert one == FeatureSet.of(["obi_1", "spread"]) and hash(one) == hash(FeatureSet.of(one.names))


@pytest.mark.parametrize("names, told", [(["obi_1", "obi_2"], "column 1: 'obi_2'"), (["spread", "spread"], "spread")])
def test_a_name_that_does_not_exist_or_comes_twice_is_refused(names, told):
    with pytest.raises(ContractError, match=told):
        FeatureSet.of(names)


@pytest.fixture
def fitted(monkeypatch) -> str:
    feature = BY_NAME["obi_1"]._replace(name="made_to_measure", fitted=True)
    monkeypatch.setitem(feature_set.BY_NAME, feature.name, feature)
    return feature.name


def test_a_fitted_feature_wants_numbers_and_is_named_by_them(fitted):
    with pytest.raises(ContractError, match="has no numbers"):
        FeatureSet.of([fitted])
    one, other = (FeatureSet.of([fitted], {fitted: {"X": [weight]}}) for weight in (1.0, 2.0))
    assert one.labels[0].startswith(f"{fitted}@") and one.labels != other.labels and one.schema != other.schema
    assert one.parameters == {fitted: {"X": [1.0]}}
    assert FeatureSet.union([one, other]).labels == (*one.labels, *other.labels), "both, side by side"


def test_a_union_begins_with_the_first_set_as_it_stands_and_has_each_column_once():
    first, second = FeatureSet.of(["spread", "obi_3"]), FeatureSet.of(["obi_1", "spread"])
    both = FeatureSet.union([first, second])
    assert both.labels == ("spread", "obi_3", "obi_1")
    assert first.places(both.labels) == slice(0, 2) and second.places(both.labels) == [2, 0]


def test_a_column_that_a_ring_lacks_is_named():
    with pytest.raises(LayoutError, match="obi_3 .*of 2 missing"):
        FeatureSet.of(["obi_1", "obi_3", "obi_5"]).places(("obi_1", "spread"))


def test_warm_up_is_that_of_the_slowest_feature():
    slow = BY_NAME["obi_1"]._replace(warm_up=999, warm_up_s=2.5)
    both = FeatureSet([Column(BY_NAME["spread"], {}), Column(slow, {})])
    assert (both.warm_up, both.warm_up_ns) == (999, 2_500_000_000)
    assert FeatureSet(()).warm_up == 1


def test_the_default_set_is_what_the_model_that_ships_takes():
    assert DEFAULT.names == tuple(feature.name for feature in FEATURES[:24]) and DEFAULT.warm_up == 251


def test_groups_stand_for_their_features_each_once():
    assert expand(["spread", "default", "spread"])[:2] == ("spread", "obi_1")
    assert len(expand(["spread", "default"])) == 24
    assert FeatureSet.of(expand(["levels_z"])).names == LEVELS_Z and expand(["no_such"]) == ("no_such",)
