"""The command group: every command helps, and a wrong word is told."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from procs.cli import COMMANDS, SECTIONS, main


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


def commands(group: click.Group = main, name: str = "alpha") -> Iterator[tuple[str, click.Command]]:
    """Every command with its whole name, those below a command as well."""
    for word in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), word)
        yield f"{name} {word}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")


EVERY = dict(commands())


def examples(text: str) -> list[str]:
    """The lines of a help text that are command lines of ours, each up to its comment, its pipe and its redirection."""
    found = []
    for line in text.splitlines():
        line = re.sub(r"^(?:[A-Z][A-Z_]+=\S+ )+", "", line.strip())
        if re.match(r"alpha [a-z]", line):
            found.append(re.match(r"""(?:'[^']*'|"[^"]*"|(?!\s{2,}| [|&><] ?|, alpha ).)*""", line)[0])
    return found


def parsed(line: str) -> None:
    """Reads a command line as click would, and runs nothing. Raises click.UsageError where an option does not exist, or
    has a value that it cannot have; whether files exist is not asked."""
    words = shlex.split(line)
    command, name = main, words.pop(0)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = f"{name} {words[0]}"
        command = EVERY.get(f"{name}")
        if command is None:
            raise click.UsageError(f"no such command: {name}")
        words.pop(0)
    with pytest.MonkeyPatch.context() as patch:
        for kind in (click.Path, click.File):
            patch.setattr(kind, "convert", lambda self, value, parameter, context: value)
        if isinstance(command, click.Group):
            command.make_parser(click.Context(command)).parse_args(words)
        else:
            command.make_context(name, words)


@pytest.mark.parametrize("name", EVERY)
def test_every_command_says_what_it_does_and_has_an_example_of_itself(name):
    text = EVERY[name].help or ""
    assert len(text.split("\n\n")) > 1 and text[0].isupper(), "what it does, then more"
    assert any(line == name or line.startswith(f"{name} ") for line in examples(text)), f"an example: {name} ..."


@pytest.mark.parametrize("name", EVERY)
def test_examples_have_only_options_that_exist_and_values_that_they_may_have(name):
    for line in examples(EVERY[name].help or ""):
        try:
            parsed(line)
        except click.ClickException as error:
            pytest.fail(f"{line}: {error.format_message()}")


@pytest.mark.parametrize("line", ["alpha nonsense", "alpha run --speed -1", "alpha run --nonsense", "alpha run word",
                                  "alpha tap nonsense", "alpha model check", "alpha capture nonsense day1.gz",
                                  "alpha run --for soon", "alpha record"])
def test_a_wrong_example_is_found(line):
    with pytest.raises(click.ClickException):
        parsed(line)


def test_every_command_stands_in_one_section():
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS), "SECTIONS in procs/cli.py: what is it for?"
    out = CliRunner().invoke(main, ["--help"]).output
    assert all(f"{title}:" in out for title in SECTIONS)
