"""The list of features, as people and programs read it."""

import json

import pytest
from click.testing import CliRunner

from common.features.table import FEATURES, GROUPS
from procs.features import features


def run(*arguments: str):
    return CliRunner().invoke(features, arguments)


def test_each_feature_is_listed_once_under_its_group():
    told = run()
    assert told.exit_code == 0
    listed = [line.split()[0] for line in told.stdout.splitlines() if line.startswith("  ")]
    assert sorted(listed) == sorted(feature.name for feature in FEATURES)
    assert all(f"\n{group}: {len(names)}" in f"\n{told.stdout}" for group, names in GROUPS.items())


def test_a_name_tells_the_whole_entry_and_a_group_tells_its_members():
    told = run("ofi_100", "vpin_50", "clock").stdout
    assert "sum_100 e / mean_100" in told and "10.1093/jjfinec/nbt003" in told and "after 101 ticks of a run" in told
    assert "of its whole run" in told and "model's manifest" in told and all(name in told for name in GROUPS["clock"])


def test_programs_read_json():
    told = json.loads(run("--json", "levels_z", "obi_1").stdout)
    assert [entry["name"] for entry in told] == [*GROUPS["levels_z"], "obi_1"]
    assert told[0]["warm_up_s"] == 70 and told[-1]["low"] == -1 and told[-1]["high"] == 1
    assert len(json.loads(run("--json").stdout)) == len(FEATURES)


@pytest.mark.parametrize("name, told", [("ofi", "perhaps mlofi, ofi_1"), ("xyz", "lists them")])
def test_what_does_not_exist_is_said(name, told):
    found = run(name)
    assert found.exit_code == 2 and told in found.output
