"""config: the configuration in force, after file and environment, as TOML that can be read back."""

import dataclasses
import json

import click

from common.config import load
from common.stage import exit_on_error


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config(path: str | None, as_json: bool) -> None:
    """Print every setting with the value in force: defaults, then the file, then ALPHA_SECTION__KEY.

    Reads the configuration. Writes nothing; what it prints can be read back as a configuration. Secrets are none of it.

    \b
    Examples
      alpha config > all.toml
      ALPHA_INFERENCE__WORKERS=3 alpha config --json | jq .inference

    Exit codes: 0 done, 2 a key is unknown or a value out of range: said with section, key and value.
    """
    with exit_on_error():
        tree = dataclasses.asdict(load(path))
        tree.pop("base")
        print(json.dumps(tree, indent=1) if as_json else "\n".join(_toml(tree)))


def _toml(tree: dict, where: str = ""):
    """TOML of plain values and tables; a JSON string, number, boolean or array is one in TOML too."""
    for key, value in tree.items():
        if not isinstance(value, dict):
            yield f"{key} = {json.dumps(value)}"
    for key, value in tree.items():
        if isinstance(value, dict):
            name = where + (key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key))
            yield f"\n[{name}]"
            yield from _toml(value, name + ".")
