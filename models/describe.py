"""Write the manifest of a model from elsewhere, for the features of this version.

    python -m models.describe my.onnx --window 100 --columns levels_z --classes down,flat,up

The order of the model's input columns must be the one that it prints: that cannot be read from an ONNX file.
"""

import hashlib
from pathlib import Path

import click

from common.errors import AlphaError
from common.features.choice import FeatureSet, expand
from common.manifest import OUTPUTS, Manifest
from common.model import Model
from common.onnx_file import external_data


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--window", type=click.IntRange(1), default=1, show_default=True, help="Rows that it takes.")
@click.option("--horizon", type=float, default=30.0, show_default=True, help="Seconds ahead that it predicts.")
@click.option("--classes", default="down,up", show_default=True, help="Meaning of the output's columns, in order.")
@click.option("--columns", default="default", show_default=True,
              help="The features that it takes, in order: names and groups of `alpha features`, commas between.")
@click.option("--output", type=click.Choice(OUTPUTS), default=None, help="Default: found out by running it.")
def main(path: Path, window: int, horizon: float, classes: str, columns: str, output: str | None) -> None:
    """Write MODEL's manifest beside it, after a check that it fits this pipeline."""
    path = path.resolve()
    try:
        features = FeatureSet.of(expand(word.strip() for word in columns.split(",")))
        data = path.read_bytes()
        external = {name: hashlib.sha256(content).hexdigest() for name, content in external_data(data, path).items()}
        manifest = Manifest(
            path.stem, features.schema, features.names, window, horizon, tuple(classes.split(",")), output=output or "",
            sha256=hashlib.sha256(data).hexdigest(), external=external)
        manifest = Manifest.parse(manifest.as_json(), "command line")
        model = Model.load(path, manifest=manifest)
    except AlphaError as error:
        raise click.ClickException(str(error)) from None
    path.with_suffix(".json").write_text(manifest.as_json() + "\n")
    click.echo(f"{path.with_suffix('.json')}: window {model.window}, output {model.output}")
    click.echo(f"input columns: {', '.join(features.names)}")


if __name__ == "__main__":
    main()
