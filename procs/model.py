"""model: is it one for this pipeline, which are there, and put one in force while everything runs."""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from common import deployment, manifest, venues
from common.clock import ManualClock
from common.config import Config, load
from common.deployment import Pair
from common.errors import AlphaError, ConfigError, ModelError
from common.features.choice import FeatureSet
from common.layout import ROW_RUN
from common.model import Model
from common.onnx_file import model_id
from common.overview import Overview
from common.ring import Books, Rows
from common.rollout import deploy as roll_out
from common.stage import exit_on_error
from common.synthetic import SyntheticMarket

SHIPPED = Path(__file__).resolve().parent.parent / "models"
BATCHES = (1, 2, 4, 8, 16, 32)
_RUNS, _RUN_S = 500, 0.25  #: of one batch size: at most so many, for at most so long
_SAMPLES = 4  #: predictions that are shown
_PAST_S = 300.0  #: of a synthetic market, after which features that are still cold are given up
_NOTHING = 7  # runs: an exit code


@click.group()
def model() -> None:
    """Check, list and deploy models.

    \b
    Examples
      alpha model check models/mine.onnx
      alpha model list
      alpha model deploy models/mine.onnx --shadow

    A model is NAME.onnx and its manifest NAME.json. `alpha train` writes both; for a model from elsewhere
    `python -m models.describe NAME.onnx --window W --classes down,flat,up` writes the manifest.
    """


@model.command()
@click.argument("path", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("--config", "config_path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(path: Path, config_path: str | None, as_json: bool) -> None:
    """Load MODEL as a worker would, and tell what it is: inputs, outputs, features, provider in use, latency by batch
    size, and a few predictions.

    Reads the model, its manifest and the configuration. Writes nothing.

    \b
    Examples
      alpha model check models/mine.onnx
      alpha model check models/mine.onnx --json

    Exit code 0 if it fits this pipeline, 3 if it does not.
    """
    with exit_on_error():
        config = load(config_path)
        try:
            told = examine(path, config)
        except (ModelError, ConfigError) as error:
            told = {"ok": False, "path": str(path), "verdict": str(error)}
        if as_json:
            print(json.dumps(told, indent=1))
        elif told["ok"]:
            _print_check(told)
    if not told["ok"]:
        print(f"alpha: {told['verdict']}", file=sys.stderr)
        sys.exit(ModelError.exit_code)


def examine(path: Path, config: Config, batches: Sequence[int] = BATCHES) -> dict[str, Any]:
    """What `alpha model check` tells, with the latency of these `batches`, up to a quarter of a second each. Raises
    ModelError if the model does not fit this pipeline, or gives no answer for golden or for synthetic rows."""
    settings = config.inference
    start = time.perf_counter()
    found = Model.configured(path, settings)
    load_ms = 1e3 * (time.perf_counter() - start)
    if found.window > config.ring.rows // 2:
        raise ModelError("the model's window is too long for the rows ring",
                         where=f"{path}: window {found.window}, ring.rows {config.ring.rows}",
                         remedy="set ring.rows to twice the window or more")
    told = found.manifest
    source, windows = _windows(found, config)
    answers = found.predict_batch(windows)
    remarks = []
    if len(answers) > 1 and np.ptp(answers, axis=0).max() == 0:
        remarks.append("the answer is the same for all rows")
    if not told.golden.get("inputs"):
        remarks.append("the manifest has no golden rows: what it computes elsewhere is not compared")
    if not told.statistics:
        remarks.append("the manifest has no statistics: drift of its features cannot be told")
    latency = {size: _latency(found, np.resize(windows, (size, *windows.shape[1:]))) for size in batches}
    return {
        "ok": True, "path": str(found.path), "name": found.name, "id": f"{found.id:016x}", "sha256": found.sha256,
        "bytes": found.size, "load_ms": round(load_ms, 1), "provider": found.provider, "nodes": found.nodes,
        **found.describe(), "classes": list(told.classes), "output": found.output, "window": found.window,
        "horizon_s": told.horizon_s, "features": list(found.features.names), "labels": list(found.features.labels),
        "schema": told.schema, "batch_exact": found.batch_exact, "trained": told.trained, "metrics": told.metrics,
        "golden": len(told.golden.get("inputs", ())), "latency_us": latency, "sample_rows": source,
        "samples": [{"p_up": up, "p_down": down} for up, down in answers[:_SAMPLES].tolist()],
        "remarks": remarks, "verdict": "fits this pipeline"}


def _windows(found: Model, config: Config) -> tuple[str, np.ndarray]:
    """(where from, float32[n, W, F]): golden rows, or rows of the synthetic market."""
    golden = found.manifest.golden.get("inputs")
    if golden:
        return "golden", np.asarray(golden, np.float32)
    fitted = next(iter(found.features.parameters.values()), {})
    return "synthetic", synthetic_windows(found.features, found.window, tuple(fitted) or config.market.symbols[:1])


def synthetic_windows(features: FeatureSet, window: int, symbols: Sequence[str], count: int = 32) -> np.ndarray:
    """float32[n, W, F]: up to `count` warm windows, one after another, of the first symbol of a synthetic market.

    Raises ModelError where the features want a past of more than _PAST_S."""
    from common.features.rows import Features  # numba takes longer to import than all the rest
    from common.market import Market

    clock, books = ManualClock(), Books.private(symbols)
    rows = Rows.private(symbols, features.labels, max(4096, 1 << (2 * window).bit_length()), books.epoch)
    writer, market = Features(books, rows, features), Market(venues.create("vectrade", symbols), books, clock, seed=0)
    frames = SyntheticMarket(symbols, seed=1, start_ms=1_700_000_000_000).frames(_PAST_S)
    for i, (time_ns, frame) in enumerate(frames):
        clock.set(time_ns)
        market.on_frame(frame, time_ns)
        if i % 256 == 255:
            writer.advance(0, int(books.heads[0]), time_ns)
            head = int(rows.heads[0])
            found = min(count, int(rows.meta[0][head & (rows.capacity - 1), ROW_RUN]) - window + 1) if head else 0
            if found > 0:
                return np.stack([rows.window(0, seq, window) for seq in range(head - found + 1, head + 1)])
    raise ModelError("no row is warm after a long synthetic past", where=f"{_PAST_S:g} s; window {window}, warm-up "
                     f"{features.warm_up} ticks and {features.warm_up_ns / 1e9:g} s",
                     remedy="give the manifest golden rows")


def _latency(found: Model, windows: np.ndarray) -> dict[str, float]:
    """Of `predict` for one window and of `predict_batch`, as a worker calls it, for more; in microseconds."""
    taken = []
    end = time.perf_counter() + _RUN_S
    while len(taken) < _RUNS and time.perf_counter() < end:
        start = time.perf_counter_ns()
        if len(windows) == 1:
            found.predict(windows[0])
        else:
            found.predict_batch(windows)
        taken.append(time.perf_counter_ns() - start)
    p50, p99 = np.percentile(taken, (50, 99)) / 1e3
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "runs": len(taken)}


def _print_check(told: dict[str, Any]) -> None:
    for key in ("path", "name", "id", "bytes", "load_ms", "provider", "nodes", "input", "outputs", "classes", "output",
                "window", "horizon_s", "schema", "batch_exact", "trained", "golden"):
        print(f"{key:<12} {_short(told[key])}")
    print(f"{'features':<12} {len(told['features'])}: {', '.join(told['features'])}")
    for size, found in told["latency_us"].items():
        print(f"{'latency' if size == 1 else '':<12} batch {size:<3} p50 {found['p50']:>9.1f} us   "
              f"p99 {found['p99']:>9.1f} us")
    for i, sample in enumerate(told["samples"]):
        print(f"{'samples' if not i else '':<12} p_up {sample['p_up']:.6f}   p_down {sample['p_down']:.6f}   "
              f"({told['sample_rows']} row)")
    for remark in told["remarks"]:
        print(f"{'remark':<12} {remark}")
    print(f"{'verdict':<12} {told['verdict']}")


def _short(value: object) -> str:
    text = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
    return text if len(text) <= 90 else text[:87] + "..."


@model.command(name="list")
@click.option("--config", "config_path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(config_path: str | None, as_json: bool) -> None:
    """List the models beside inference.model, those that ship, and those that are deployed; and which is live, and
    which in its shadow, in the running instance.

    Reads folders and the telemetry of the workers. Writes nothing.

    \b
    Examples
      alpha model list
      alpha model list --json
    """
    with exit_on_error():
        config = load(config_path)
        running, paths = _running(config)
        found = [_entry(path) for path in dict.fromkeys((*paths, *_models(config)))]
        for entry in found:
            entry["role"] = running.get(entry["id"], "")
        if as_json:
            print(json.dumps({"instance": config.instance.name, "models": found}, indent=1))
            return
        for entry in found:
            print(f"{entry['role'] or '-':<7} {entry['name']:<18} {entry['id']}  window {entry['window']:<4} "
                  f"{entry['features']:>3} features  {entry['horizon_s']:g} s  {entry['path']}")
            for key in ("trained", "metrics", "problem"):
                if entry[key]:
                    print(f"        {key} {_short(entry[key])}")


def _models(config: Config) -> list[Path]:
    """Those that are deployed, that stand beside the configured one, and that ship."""
    folders = [config.path(config.inference.model).parent, SHIPPED]
    found = [path.resolve() for folder in folders for path in sorted(folder.glob("*.onnx"))]
    return [*deployment.known(config), *found]


def _entry(path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(path), "name": path.stem, "id": "", "window": 0, "features": 0,
                             "horizon_s": 0.0, "trained": {}, "metrics": {}, "problem": ""}
    try:
        entry["id"] = f"{model_id(path):016x}"
        told = manifest.read(path)
        entry |= {"name": told.name, "window": told.window, "features": len(told.columns),
                  "horizon_s": told.horizon_s, "trained": told.trained, "metrics": told.metrics}
        manifest.features_of(told, str(path))
    except AlphaError as error:
        entry["problem"] = str(error)
    return entry


def _running(config: Config) -> tuple[dict[str, str], list[Path]]:
    """Model id -> its role, and where the models are, as the workers tell; empty if none runs."""
    overview = Overview(config.instance.name)
    overview.refresh()
    roles: dict[str, str] = {}
    paths: list[Path] = []
    for name, telemetry in overview.stages.items():
        if name.startswith("inference-") and overview.ready(name):
            words = telemetry.told()
            roles |= {words.get("shadow_id", ""): "shadow"} | {words.get("model_id", ""): "live"}
            pair = deployment.pair_of((words.get("deployment") or {}).get("pair"))
            paths += pair.paths if pair else []
    roles.pop("", None)
    return roles, paths


@model.command()
@click.argument("path", metavar="[MODEL]", required=False, type=click.Path(path_type=Path))
@click.option("--shadow", is_flag=True, help="MODEL becomes the challenger: judged on the same rows, never traded.")
@click.option("--no-shadow", is_flag=True, help="Let go of the challenger.")
@click.option("--config", "config_path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--timeout", type=click.FloatRange(0.1), default=180.0, show_default=True,
              help="Seconds that workers have to load it, and the rows to gather the past that its features need.")
@click.option("--watch", type=click.FloatRange(0), default=2.0, show_default=True,
              help="Seconds for which it is watched afterwards.")
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
def deploy(path: Path | None, shadow: bool, no_shadow: bool, config_path: str | None, timeout: float, watch: float,
           as_json: bool) -> None:
    """Put MODEL in force in the running instance: checked, loaded by every worker beside the model that serves, and
    taken over by all between two messages. No tick is lost.

    \b
    Examples
      alpha model deploy models/my.onnx             it trades from now on
      alpha model deploy models/my.onnx --shadow    it is judged beside the one that trades
      alpha model deploy --no-shadow

    If a worker cannot take it, is not ready in time or fails with it within the time of watching, the former model
    is in force, as if nothing had been. What is deployed is copied into the state folder, and holds until
    inference.model or inference.shadow is changed in the configuration.

    \b
    Exit codes  0 it is in force; 2 the command line or the configuration is wrong; 3 the model does not fit, or the
                former one is in force again; 6 no worker is ready, or another deployment is under way; 7 nothing runs
    """
    with exit_on_error():
        if no_shadow == (path is not None):
            raise ConfigError("name a model to deploy, or --no-shadow", where=f"MODEL={path}, no_shadow={no_shadow}")
        config = load(config_path)
        if path is not None:
            examine(path, config, batches=())  # in this process: a wrong model disturbs no worker
        _end_where_nothing_runs(config)
        outcome = roll_out(config, lambda live, folder: _wanted(live, folder, path, shadow), timeout, watch,
                           lambda text: print(text, file=sys.stderr))
        if as_json:
            print(json.dumps({"ok": True, **dataclasses.asdict(outcome)}, indent=1))
        else:
            role, ref = ("challenger", outcome.live.shadow) if shadow or no_shadow else ("model", outcome.live.model)
            print(f"{role}: {ref.path if ref else 'none'}; {outcome.predictions} predictions since")


def _end_where_nothing_runs(config: Config) -> None:
    overview = Overview(config.instance.name)
    overview.refresh()
    if not any(state.usage for state in overview.states().values()):
        print(f"nothing of instance {config.instance.name!r} runs; start it with alpha run, or set inference.model for "
              "its next start", file=sys.stderr)
        sys.exit(_NOTHING)


def _wanted(live: Pair, folder: Path, path: Path | None, shadow: bool) -> Pair:
    """`live` with MODEL, copied into `folder`, as one of its two. A challenger that is promoted leaves the shadow."""
    if path is None:
        return live._replace(shadow=None)
    ref = deployment.store(path, folder)
    if shadow:
        return live._replace(shadow=ref)
    return Pair(ref, None if live.shadow == ref else live.shadow)
