"""completion: what a shell may offer while an `alpha` command is typed, and the script that makes it ask.

Names of commands come from the table in `procs.cli`, without importing anything; options from the command that is being
typed; values from here, by the name of the parameter: symbols and order ids of the instance, features, faults, venues.
Where something cannot be read, nothing is offered: a shell has no place for errors.
"""

import os
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

VARIABLE = "_ALPHA_COMPLETE"  #: set by the script when it asks
_ORDERS = 200  #: order ids that are offered: the newest


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes a shell complete `alpha` commands, options, symbols, order ids and more.

    Reads nothing now; the script asks `alpha` while you type, which reads the configuration and the journal. Writes
    nothing.

    \b
    Examples
      alpha completion bash > ~/.local/share/bash-completion/completions/alpha
      alpha completion zsh > ~/.zfunc/_alpha        in ~/.zshrc, before compinit: fpath+=~/.zfunc
      alpha completion fish > ~/.config/fish/completions/alpha.fish

    For this shell alone: eval "$(alpha completion bash)"
    """
    from procs.cli import main

    click.echo(get_completion_class(shell)(main, {}, "alpha", VARIABLE).source())


def _config(context: click.Context):
    from common.config import load

    return load(context.params.get("path"))


def symbols(context: click.Context) -> Iterable[tuple[str, str]]:
    return ((symbol, "") for symbol in _config(context).symbols)


def order_ids(context: click.Context) -> Iterable[tuple[str, str]]:
    from common.journal import Reader, located

    yield "last", "the newest order"
    reader = Reader(located(_config(context)))
    try:
        for row in reader.orders(_ORDERS):
            yield row["client_id"], f"{row['side']} {row['symbol']}, {row['state']}"
    finally:
        reader.close()


def features(context: click.Context) -> Iterable[tuple[str, str]]:
    from common.features.table import FEATURES, GROUPS

    yield from ((group, f"{len(names)} features") for group, names in GROUPS.items())
    yield from ((feature.name, feature.unit) for feature in FEATURES)


def faults(context: click.Context) -> Iterable[tuple[str, str]]:
    from common.faults import FAULTS

    return ((name, kind.text) for name, kind in FAULTS.items())


def venues(context: click.Context) -> Iterable[tuple[str, str]]:
    from common.venues import registry

    return ((name, "") for name in registry())


def stages(context: click.Context) -> Iterable[tuple[str, str]]:
    from common.programs import parse
    from procs.run import ROOT, render

    config = _config(context)
    conf = render((ROOT / "supervisord.conf").read_text(), config, ROOT / "alpha.toml")
    return ((stage, "") for program in parse(conf) for stage in program.stages())


def checks(context: click.Context) -> Iterable[tuple[str, str]]:
    from common.doctor import checks

    return ((name, check.about) for name, check in checks().items())


def fields(context: click.Context) -> Iterable[tuple[str, str]]:
    from common.links import TAPS
    from common.tap_records import fields_of

    # Of an option whose value is being typed, click has not parsed what stands before it.
    links = [word for word in (context.params.get("link"), *context.args) if word in TAPS]
    return ((name, "") for name in dict.fromkeys(name for link in links[:1] or TAPS for name in fields_of(link)))


#: name of a parameter that takes text -> what it may be
VALUES: dict[str, Callable[[click.Context], Iterable[tuple[str, str]]]] = {
    "symbol": symbols, "symbols": symbols, "order_id": order_ids, "names": features, "columns": features,
    "disturb": faults, "chosen": faults, "venue": venues, "stage": stages, "stages": stages}
#: the same, of a parameter that is something else in one command: (command, parameter)
ELSEWHERE = {("doctor", "names"): checks, ("tap", "fields"): fields}
#: parameters that take a path as text
FILES = ("path", "config_path", "model", "shadow", "out", "outs")


def attach(command: click.Command) -> None:
    """Let the parameters of `command`, and of those below it, offer what they may be."""
    for parameter in command.params:
        if isinstance(parameter.type, click.Choice) or isinstance(parameter.type, click.Path):
            continue  # click knows
        values = ELSEWHERE.get((command.name, parameter.name)) or VALUES.get(parameter.name)
        if values:
            parameter.shell_complete = _offer(values)
        elif parameter.name in FILES:
            parameter.shell_complete = lambda context, incomplete: [CompletionItem(incomplete, type="file")]
    for below in getattr(command, "commands", {}).values():
        attach(below)


def _offer(values: Callable[[click.Context], Iterable[tuple[str, str]]]):
    def offer(context: click.Context, incomplete: str) -> list[CompletionItem]:
        from common.errors import AlphaError

        # Of a list with commas, what comes after the last one.
        before, comma, last = incomplete.rpartition(",")
        found = []
        try:
            for value, text in values(context):
                if value.startswith(last):
                    found.append(CompletionItem(before + comma + value, help=text or None))
        except (AlphaError, OSError):  # what was found before is offered all the same
            pass
        return found

    return offer


def asked() -> bool:
    """Whether a shell asks, rather than a person."""
    return VARIABLE in os.environ
