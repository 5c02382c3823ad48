"""The command group: every command helps, and a wrong word is told."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from procs.cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0 and "Usage:" in result.output and len(result.output.splitlines()) > 4


@pytest.mark.parametrize("stage", ["exchange", "ingest", "feature", "inference", "executor", "monitor"])
def test_the_help_of_a_stage_tells_its_sockets_and_messages(stage):
    help_text = CliRunner().invoke(main, [stage, "--help"]).output
    words = {"exchange": "ws://", "ingest": "ticks", "feature": "work", "inference": "predictions",
             "executor": "predictions", "monitor": "judged"}
    assert words[stage] in help_text


def test_an_unknown_command_is_told():
    result = CliRunner().invoke(main, ["nonsense"])
    assert result.exit_code == 2 and "No such command" in result.output


def test_the_group_lists_its_commands_without_importing_them():
    program = ("import sys; from click.testing import CliRunner; from procs.cli import main\n"
               "print(CliRunner().invoke(main, ['--help']).output)\n"
               "assert not {'numba', 'onnxruntime', 'zmq'} & set(sys.modules)")
    out = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=Path(__file__).resolve().parents[2])
    assert all(name in out for name in COMMANDS)
