"""bench_w100.onnx: a small model of 100-row windows with random weights, to measure the pipeline with.

    python -m models.bench

[N, 100, F] -> 16 units, relu -> 2 classes, softmax. It predicts nothing.
"""

from pathlib import Path

import click
import numpy as np
from onnx import helper, numpy_helper

from common.features.choice import DEFAULT
from common.manifest import Manifest
from models.export import graph, save

WINDOW, UNITS = 100, 16


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).with_name("bench_w100.onnx"))
def main(out: Path) -> None:
    """Write the model of 100-row windows that the benchmark uses."""
    random = np.random.default_rng(100)
    size = WINDOW * len(DEFAULT.names)
    weights = {
        "flat": np.array([-1, size]),
        "w1": (random.standard_normal((size, UNITS)) / size**0.5 / 10).astype(np.float32),
        "b1": np.zeros(UNITS, np.float32),
        "w2": (random.standard_normal((UNITS, 2)) / UNITS**0.5).astype(np.float32),
        "b2": np.zeros(2, np.float32),
    }
    nodes = [helper.make_node("Reshape", ["rows", "flat"], ["x"]),
             helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
             helper.make_node("Relu", ["h"], ["r"]),
             helper.make_node("Gemm", ["r", "w2", "b2"], ["z"]),
             helper.make_node("Softmax", ["z"], ["probabilities"], axis=-1)]
    model = graph(nodes, [numpy_helper.from_array(value, name) for name, value in weights.items()],
                  ["N", WINDOW, len(DEFAULT.names)])
    manifest = Manifest(out.stem, DEFAULT.schema, DEFAULT.names, WINDOW, 30.0, ("down", "up"), output="probabilities",
                        trained={"data": "none: random weights, for measuring speed"})
    loaded = save(model, out, manifest)
    click.echo(f"{out}: window {loaded.window}, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
