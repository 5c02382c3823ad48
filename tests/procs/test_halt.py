"""The kill switch from a terminal; test_pipeline has it with a living executor."""

import json

from common import killswitch
from tests.pipeline import command, environment


def test_the_switch_is_set_even_if_nobody_confirms_and_that_is_told(instance, run_dir, tmp_path):
    env = environment(instance, tmp_path, run_dir)
    process = command("halt", "looks wrong", "--json", env=env)
    assert json.loads(process.communicate()[0])["confirmed"] is False and process.returncode == 1
    assert killswitch.state(tmp_path).why == "looks wrong"
    process = command("halt", "later reason", env=env)
    assert "looks wrong" in process.communicate()[0]  # the first reason stands
    process = command("resume", env=env)
    assert "lifted: looks wrong" in process.communicate()[0] and killswitch.state(tmp_path) is None


def test_arming_says_whether_anything_waited_for_it(instance, run_dir, tmp_path):
    env = environment(instance, tmp_path, run_dir)
    assert "nothing here is live" in command("arm", env=env).communicate()[0]
    for setting in ({"ALPHA_MARKET__LIVE": "true"}, {"ALPHA_EXECUTOR__BASE_URL": "https://gateway.example"}):
        assert command("arm", env={**env, **setting}).communicate()[0] == "armed\n"
