"""Completion: what is offered, in a real bash too, and how little is imported for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from common.fixed import SCALE
from common.journal import Journal
from common.orders import BUY, Order
from common.venues import registry
from procs.cli import COMMANDS, main
from procs.completion import ELSEWHERE, VALUES, VARIABLE
from tests.pipeline import ROOT
from tests.procs.test_cli import EVERY


@pytest.fixture
def environment(tmp_path, monkeypatch) -> dict[str, str]:
    """A configuration, and a journal with two orders."""
    (tmp_path / "my.toml").write_text('[instance]\nstate_dir = "state"\n[market]\nsymbols = ["AAA", "AAB", "ZZZ"]\n'
                                      '[executor]\ngateway = "paper"\n[inference]\nworkers = 1\n')
    (tmp_path / "state").mkdir()
    journal = Journal.open(tmp_path / "state" / "paper.db")
    for number in (1, 2):
        journal.intent(Order(f"6650000{number}-0-1", "AAA", BUY, SCALE, SCALE, 7, 1), "{}", number)
    journal.close()
    monkeypatch.setenv("ALPHA_CONFIG", str(tmp_path / "my.toml"))
    monkeypatch.setenv(VARIABLE, "bash_complete")
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def offered(*words: str) -> list[str]:
    """For the last word, which is not whole."""
    complete = ShellComplete(main, {}, "alpha", VARIABLE)
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize("words, some", [
    (("ta",), ["tap"]), (("",), list(COMMANDS)), (("tap", ""), ["ticks", "predictions"]),
    (("tap", "ticks", "--sym"), ["--symbol"]), (("tap", "ticks", "--symbol", "AA"), ["AAA", "AAB"]),
    (("orders", "--symbol", "Z"), ["ZZZ"]), (("orders", "--state", "rej"), ["rejected"]),
    (("explain", ""), ["last", "66500002-0-1", "66500001-0-1"]), (("explain", "66500001"), ["66500001-0-1"]),
    (("features", "ofi_1"), ["ofi_100"]), (("dataset", "--features", "default,levels_"), ["default,levels_z"]),
    (("exchange", "--fault", "dr"), ["drop"]), (("drill", "--fault", "mal"), ["malformed"]),
    (("capture", "convert", "--venue", ""), sorted(registry())), (("capture", "ver"), ["verify"]),
    (("model", "dep"), ["deploy"]), (("completion", ""), ["bash", "zsh", "fish"]),
    (("restart", "ex"), ["exchange", "executor"]), (("doctor", "--only", "dis"), ["disk"]),
    (("tap", "predictions", "--fields", "seq,p_"), ["seq,p_up"]), (("tap", "frames", "--fields", "r"), ["recv_ns"]),
    (("backtest", "day.gz", "--symbols", "AAA,AA"), ["AAA,AAA", "AAA,AAB"]), (("run", "--model", "mo"), ["mo"])])
def test_what_may_come_is_offered(environment, words, some):
    found = offered(*words)
    assert set(some) <= set(found) and all(value.startswith(words[-1]) for value in found)
    assert len(found) == len(set(found))


def test_an_order_is_told_with_what_it_was(environment):
    complete = ShellComplete(main, {}, "alpha", VARIABLE)
    items = {item.value: item.help for item in complete.get_completions(["explain"], "66")}
    assert items["66500002-0-1"] == "BUY AAA, intent"


def test_where_nothing_can_be_read_nothing_is_offered_and_nothing_fails(environment, tmp_path):
    (tmp_path / "my.toml").write_text("[nonsense]\n")
    assert offered("tap", "ticks", "--symbol", "") == []
    assert offered("explain", "") == ["last"]


def test_every_source_of_values_is_used_and_every_parameter_that_names_a_symbol_has_one():
    parameters = {parameter.name for command in EVERY.values() for parameter in command.params}
    assert not set(VALUES) - parameters
    assert set(ELSEWHERE) <= {(command.name, parameter.name) for command in EVERY.values()
                                              for parameter in command.params}
    assert {name for name in parameters if "symbol" in name} <= set(VALUES)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_every_shell_asks_alpha(shell, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    script = CliRunner().invoke(main, ["completion", shell]).stdout
    assert f"{VARIABLE}={shell}_complete" in script and "alpha" in script
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_a_real_bash_completes(environment):
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    ask = 'COMP_WORDS=({}); COMP_CWORD={}; COMPREPLY=(); _alpha_completion alpha; echo "${{COMPREPLY[*]}}"\n'
    lines = [("alpha ta", 1), ("alpha tap --symbol A", 3), ("alpha explain 6650", 2), ("alpha exchange --fault du", 3)]
    env = {name: value for name, value in environment.items() if name != VARIABLE}
    done = subprocess.run(["bash", "--norc"], text=True, capture_output=True, env=env,
                          input=script + "".join(ask.format(words, at) for words, at in lines))
    assert done.stdout.splitlines() == ["tap", "AAA AAB", "66500002-0-1 66500001-0-1", "duplicate"], done.stderr


def test_names_of_commands_are_completed_without_importing_them(environment):
    program = ("import sys; from click.shell_completion import ShellComplete; from procs.cli import main\n"
               f"complete = ShellComplete(main, {{}}, 'alpha', '{VARIABLE}')\n"
               "print([one.value for one in complete.get_completions([], 't')])\n"
               "print(sorted({'numba', 'numpy', 'zmq', 'onnxruntime', 'procs.run'} & set(sys.modules)))")
    out = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT, env=environment)
    assert out.splitlines() == [str([name for name in COMMANDS if name.startswith("t")]), "[]"]
