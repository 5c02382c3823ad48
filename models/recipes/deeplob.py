"""A sequence model of DeepLOB's kind (Zhang, Zohren, Roberts 2019, arXiv 1808.03668), smaller, in PyTorch.

Windows [W, 40] of z-scored levels, ask price, ask quantity, bid price, bid quantity of each of ten levels. Convolutions
over the columns join price and quantity, then the sides, then the levels; convolutions over time see short patterns;
three of them side by side see several spans (an Inception module); an LSTM reads what is left. The paper has 32
channels, 64 in each branch and 64 units (about 144,000 weights); here 16, 16 and 32 (about 23,000): less data, one row
at a time on a processor. It trains with dropout of 20 % before the last layer, and stops when rows held out, which come
later, have not been better predicted for some epochs.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto
from torch import nn

from common.errors import ContractError, ModelError
from common.features.table import LEVELS_Z
from models.calibrate import Calibration
from models.recipes import Effort, Rows

_CHANNELS, _BRANCH, _UNITS = 16, 16, 32
_BATCH, _RATE, _PATIENCE = 64, 1e-3, 4
_CHUNK = 1024  #: windows at a time where nothing is learnt
_LEAST_WINDOW = 20  #: the convolutions over time use up 18 rows


class Network(nn.Module):
    """[N, W, 40] -> logits [N, C]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.columns = nn.Sequential(*_block(1, (1, 2)), *_block(_CHANNELS, (1, 2)), *_block(_CHANNELS, (1, 10)))
        self.branches = nn.ModuleList([
            nn.Sequential(*_layer(_CHANNELS, _BRANCH, (1, 1)), *_layer(_BRANCH, _BRANCH, (3, 1), (1, 0))),
            nn.Sequential(*_layer(_CHANNELS, _BRANCH, (1, 1)), *_layer(_BRANCH, _BRANCH, (5, 1), (2, 0))),
            nn.Sequential(nn.MaxPool2d((3, 1), 1, (1, 0)), *_layer(_CHANNELS, _BRANCH, (1, 1)))])
        self.memory = nn.LSTM(3 * _BRANCH, _UNITS, batch_first=True)
        self.last = nn.Sequential(nn.Dropout(0.2), nn.Linear(_UNITS, classes))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        seen = self.columns(rows.unsqueeze(1))
        seen = torch.cat([branch(seen) for branch in self.branches], dim=1)
        memory, _ = self.memory(seen.squeeze(3).transpose(1, 2))
        return self.last(memory[:, -1])


def _layer(inside: int, outside: int, kernel: tuple[int, int], padding: tuple[int, int] = (0, 0),
           stride: tuple[int, int] = (1, 1)) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, kernel, stride, padding), nn.LeakyReLU(0.01), nn.BatchNorm2d(outside)]


def _block(inside: int, join: tuple[int, int]) -> list[nn.Module]:
    """Join columns, then look along time twice."""
    return [*_layer(inside, _CHANNELS, join, stride=join), *_layer(_CHANNELS, _CHANNELS, (4, 1)),
            *_layer(_CHANNELS, _CHANNELS, (4, 1))]


class DeepLob:
    name, window = "deeplob", 100

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        missing = [name for name in LEVELS_Z if name not in names]
        if missing:
            raise ContractError("the recipe takes the z-scored levels, and the dataset lacks some",
                                where=f"{missing[0]} (of {len(missing)} missing); it has {', '.join(names)[:200]}",
                                remedy="alpha dataset --features levels_z")
        return tuple(LEVELS_Z)

    def candidates(self) -> tuple[str, ...]:
        return (f"{_CHANNELS} channels, {_UNITS} units",)

    def fit(self, candidate: str, rows: Rows, train: np.ndarray, held_out: np.ndarray, effort: Effort) -> "Net":
        if rows.window < _LEAST_WINDOW:
            raise ModelError("the window is too short for the convolutions",
                             where=f"window={rows.window}, at least {_LEAST_WINDOW}")
        torch.set_num_threads(effort.threads)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(effort.seed)
            network = Network(len(rows.classes))
            optimiser = torch.optim.Adam(network.parameters(), lr=_RATE)
            best, least, since, start = _copy(network), float("inf"), 0, 0
            if effort.file is not None and effort.file.exists():
                kept = torch.load(effort.file, weights_only=True)
                network.load_state_dict(kept["network"])
                optimiser.load_state_dict(kept["optimiser"])
                best, least, since, start = kept["best"], kept["least"], kept["since"], kept["epochs"]
                effort.tell(f"continues after epoch {start}")
            for epoch in range(start, effort.epochs):
                if since >= _PATIENCE:
                    break
                torch.manual_seed(effort.seed * 1_000_003 + epoch)  # so that an epoch is the same after a pause
                _learn(network, optimiser, rows, train)
                loss = _loss(network, rows, held_out)
                since = 0 if loss < least else since + 1
                if not since:
                    best, least = _copy(network), loss
                effort.tell(f"epoch {epoch + 1} of at most {effort.epochs}: log loss of the rows held out {loss:.4f}")
                if effort.file is not None:
                    _keep(effort.file, {"network": network.state_dict(), "optimiser": optimiser.state_dict(),
                                        "best": best, "least": least, "since": since, "epochs": epoch + 1})
            network.load_state_dict(best)
        return Net(network.eval(), rows.window, len(rows.columns))


def _learn(network: Network, optimiser: torch.optim.Optimizer, rows: Rows, train: np.ndarray) -> None:
    network.train()
    order = torch.randperm(len(train)).numpy()
    for start in range(0, len(order), _BATCH):
        index = train[order[start:start + _BATCH]]
        if len(index) < 2 <= len(train):
            continue  # a batch norm has nothing to say about one
        optimiser.zero_grad()
        answers = network(torch.from_numpy(rows.take(index)))
        nn.functional.cross_entropy(answers, torch.from_numpy(rows.labels[index])).backward()
        optimiser.step()


def _loss(network: Network, rows: Rows, index: np.ndarray) -> float:
    network.eval()
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(index), _CHUNK):
            part = index[start:start + _CHUNK]
            total += float(nn.functional.cross_entropy(network(torch.from_numpy(rows.take(part))),
                                                       torch.from_numpy(rows.labels[part]), reduction="sum"))
    return total / len(index)


def _copy(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _keep(path: Path, state: dict) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


class Net:
    """A fitted network."""

    def __init__(self, network: Network, window: int, width: int) -> None:
        self._network, self._window, self._width = network, window, width

    def logits(self, rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self._network(torch.from_numpy(rows)).numpy().astype(float)

    def as_onnx(self, calibration: Calibration) -> ModelProto:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's, about itself
            program = torch.onnx.export(
                _Calibrated(self._network, calibration).eval(), (torch.zeros(2, self._window, self._width),),
                input_names=["rows"], output_names=["probabilities"], dynamic_shapes=({0: torch.export.Dim("N")},),
                dynamo=True, verbose=False)
        model = program.model_proto
        for entry in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
            del entry.metadata_props[:]  # where the exporter came from, paths of this machine among it
        return model


class _Calibrated(nn.Module):
    def __init__(self, network: Network, calibration: Calibration) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", torch.tensor(calibration.scale))
        self.register_buffer("shift", torch.tensor(calibration.shift))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network(rows) * self.scale + self.shift, dim=1)


RECIPE = DeepLob()
