"""features: list what there is to choose from, and what each feature is. Reads nothing and runs nothing."""

import json
from typing import Any

import click

from common.errors import ConfigError
from common.features.table import BY_NAME, FEATURES, GROUPS, LIMITS, Feature
from common.stage import exit_on_error


@click.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of features, whole.")
def features(names: tuple[str, ...], as_json: bool) -> None:
    """List the features that a model can take; with NAME, a feature or a group, tell all about it.

    Words that the formulas use are explained at the head of common/features/table.py. A feature marked `fitted` has
    numbers from training data (`alpha dataset` fits them); one marked `run` remembers its whole run, not only its
    window.

    \b
    Examples
      alpha features                     groups, and each feature in a line
      alpha features ofi_100 clock       formula, window, warm-up, range, source
      alpha features --json levels_z     for programs
    """
    with exit_on_error():
        chosen = _chosen(names)
        if as_json:
            click.echo(json.dumps([_told(feature) for feature in chosen], indent=1))
        elif names:
            click.echo("\n\n".join("\n".join(_whole(feature)) for feature in chosen))
        else:
            click.echo("\n".join(_list()))


def _chosen(names: tuple[str, ...]) -> list[Feature]:
    found: dict[str, Feature] = {}
    for name in names or ("all", "fitted"):
        members = GROUPS.get(name) or ((name,) if name in BY_NAME else ())
        if not members:
            near = [other for other in (*GROUPS, *BY_NAME) if name.lower() in other]
            raise ConfigError("there is no such feature or group", where=name,
                              remedy=f"perhaps {', '.join(near[:8])}" if near else "`alpha features` lists them")
        found.update((member, BY_NAME[member]) for member in members)
    return list(found.values())


def _group(feature: Feature) -> str:
    return next(group for group, names in GROUPS.items() if feature.name in names)


def _range(feature: Feature) -> str:
    low, high = LIMITS.get(feature.unit, (None, None))
    return "unbounded" if low is None else f"{low:g} to {high:g}"


def _warm_up(feature: Feature) -> str:
    ticks, seconds = f"{feature.warm_up} ticks", f"{feature.warm_up_s:g} s"
    return f"{ticks} and {seconds}" if feature.warm_up_s else ticks


def _window(feature: Feature) -> str:
    if feature.from_run:
        return "the run"
    ticks = f"{feature.window_ticks} ticks" if feature.window_ticks > 1 or not feature.window_s else ""
    seconds = f"{feature.window_s:g} s" if feature.window_s else ""
    return ", ".join(part for part in (ticks, seconds) if part)


def _told(feature: Feature) -> dict[str, Any]:
    low, high = LIMITS.get(feature.unit, (None, None))
    return {**feature._asdict(), "group": _group(feature), "low": low, "high": high}


def _list() -> list[str]:
    lines = []
    for group, names in GROUPS.items():
        if group == "all":
            continue
        lines.append(f"{group}: {len(names)}")
        for name in names:
            feature = BY_NAME[name]
            marks = " ".join(mark for mark, has in (("fitted", feature.fitted), ("run", feature.from_run)) if has)
            lines.append(f"  {name:<26} {feature.unit:<22} {_window(feature):<18} warm after {_warm_up(feature):<18} "
                         f"{marks:<10} {feature.source.split(',')[0].split(':')[0]}".rstrip())
    lines.append(f"all: {len(GROUPS['all'])}, those that need no fitting, of {len(FEATURES)}")
    return lines


def _whole(feature: Feature) -> list[str]:
    told = [("group", _group(feature)), ("formula", feature.formula), ("unit", feature.unit),
            ("range", _range(feature)), ("window", _window(feature)), ("warm", f"after {_warm_up(feature)} of a run")]
    if feature.fitted:
        told.append(("fitted", "has numbers for each symbol, in the model's manifest"))
    if feature.from_run:
        told.append(("memory", "of its whole run: after a restart it goes on from a checkpoint"))
    told += [("cost", "O(1) a tick"), ("source", feature.source)]
    return [feature.name, *(f"  {name:<8} {text}" for name, text in told)]
