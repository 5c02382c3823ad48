"""What is deployed: the file that says which model trades, which is in its shadow, and which are to come.

A running pipeline changes its model in two steps. `next` is written: each worker loads it beside the one that serves,
and the rows ring is given the columns that it takes. When all are ready, `next` becomes `live`, and each worker changes
over between two messages. Whoever is killed at whatever moment finds in the file one whole pair to go on with, `live`.

The file is `deployed.json` in the state folder, replaced by a rename and readable by this user alone. What is deployed
is copied beside it first, so that what was checked is what runs: to train over the original changes nothing.

The configuration has the first word: a deployment stands for as long as `inference.model` and `inference.shadow` are
those that it took the place of. Where they have been changed since, the configuration is in force again.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from common.config import Config
from common.errors import ConfigError, ModelError, ResourceError
from common.onnx_file import external_data

FILE = "deployed.json"
STORE = "models"  #: folder of the copies, in the state folder

_log = logging.getLogger("deployment")


class Ref(NamedTuple):
    """One model as a file."""

    path: str  #: absolute
    fingerprint: str  #: as `fingerprint` gives it; empty: the configured one, which is taken as it stands

    def verify(self) -> None:
        """Raises ModelError if the files are not those that were deployed."""
        if not self.fingerprint:
            return
        found = fingerprint(Path(self.path))
        if found != self.fingerprint:
            raise ModelError("the deployed model is not the one that was checked",
                             where=f"{self.path}: {found[:16]}, deployed {self.fingerprint[:16]}",
                             remedy="deploy it again, or remove deployed.json from the state folder")


class Pair(NamedTuple):
    """The model that trades, and the challenger in its shadow."""

    model: Ref
    shadow: Ref | None

    @property
    def paths(self) -> list[Path]:
        return [Path(ref.path) for ref in self if ref]


@dataclass(frozen=True)
class Deployment:
    number: int  #: Unix ns of the deployment: tells one from another
    configured: Pair  #: what the configuration said
    live: Pair
    former: Pair | None = None  #: what `live` took the place of: the way back
    next: Pair | None = None  #: what workers are to load, and be ready to change to

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @property
    def paths(self) -> list[Path]:
        """Of every model that may be in use somewhere, the one that trades first, each once."""
        pairs = [pair for pair in (self.live, self.next, self.former) if pair]
        return list(dict.fromkeys(path for pair in pairs for path in pair.paths))


def configured(config: Config) -> Pair:
    """What the configuration says."""
    settings = config.inference
    shadow = Ref(str(config.path(settings.shadow)), "") if settings.shadow else None
    return Pair(Ref(str(config.path(settings.model)), ""), shadow)


def in_force(config: Config) -> Pair:
    """What a process that starts now is to use. Raises ConfigError if the file is not one of ours."""
    told = read(config.state_dir)
    mine = configured(config)
    if told is None:
        return mine
    if told.configured != mine:
        _log.warning("the configured model has changed since the deployment of %s: the configuration is in force",
                     told.live.model.path)
        return mine
    return told.live


def known(config: Config) -> list[Path]:
    """Every model that predictions may come from now, the one that trades first."""
    told = read(config.state_dir)
    mine = configured(config)
    return mine.paths if told is None or told.configured != mine else told.paths


def read(folder: Path) -> Deployment | None:
    """The deployment in the state folder, None where there never was one. Raises ConfigError if it is damaged."""
    path = folder / FILE
    try:
        tree = json.loads(path.read_bytes())
        pairs = {name: pair_of(tree[name]) for name in ("configured", "live", "former", "next")}
        return Deployment(int(tree["number"]), **pairs)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError("cannot read what is deployed", where=f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError("the file of what is deployed is damaged", where=f"{path}: {error!r}",
                          remedy="remove it: the configured model is then in force") from None


def write(folder: Path, deployment: Deployment) -> None:
    """Replace the file in one step; raises ResourceError where the disk refuses."""
    draft = folder / f"{FILE}.new"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            file.write(deployment.as_json())
            file.flush()
            os.fsync(fd)
        os.rename(draft, folder / FILE)
    except OSError as error:
        raise ResourceError("cannot write what is deployed", where=f"{folder / FILE}: {error.strerror}") from None


def fingerprint(path: Path) -> str:
    """SHA-256 over the model, its manifest file and its external data. Raises ModelError if one cannot be read."""
    whole = hashlib.sha256()
    for name, content in _files(path).items():
        whole.update(f"{len(content)} {'' if name == path.name else Path(name).suffix} ".encode())
        whole.update(content)
    return whole.hexdigest()


def store(path: Path, folder: Path) -> Ref:
    """Copy the model at `path`, with its manifest and its external data, into the state folder, and say where it is.
    The same files are stored once."""
    path = path.resolve()
    found = fingerprint(path)
    home = folder / STORE / found[:16]
    ref = Ref(str(home / path.name), found)
    if home.exists():
        ref.verify()
        return ref
    draft = home.with_name(f"{home.name}.new")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, mode=0o700)
        for name, content in _files(path).items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(content)
        draft.rename(home)
    except OSError as error:
        raise ResourceError("cannot store the model", where=f"{home}: {error.strerror}") from None
    ref.verify()
    return ref


def prune(folder: Path, deployment: Deployment) -> None:
    """Remove the copies that `deployment` does not name."""
    named = {path.parent for path in deployment.paths}
    for home in (folder / STORE).glob("*"):
        if home not in named:
            shutil.rmtree(home, ignore_errors=True)


class Watch:
    """Whether the file has changed, for a look of a few microseconds, a few times a second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path, self._seen = str(folder / FILE), self._stat()

    def changed(self) -> bool:
        """True once for each change since the last call."""
        before, self._seen = self._seen, self._stat()
        return self._seen != before

    def _stat(self) -> tuple[int, int] | None:
        try:
            found = os.stat(os.fspath(self.folder / FILE))
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino


def _files(path: Path) -> dict[str, bytes]:
    """Name -> contents: the model, its manifest where it stands beside it, its external data."""
    try:
        data = path.read_bytes()
        beside = path.with_suffix(".json")
        manifest = {beside.name: beside.read_bytes()} if beside.exists() else {}
    except OSError as error:
        raise ModelError("cannot read the model", where=f"{path}: {error.strerror}",
                         remedy="name an .onnx file") from None
    return {path.name: data, **manifest, **dict(sorted(external_data(data, path).items()))}


def pair_of(tree: Any) -> Pair | None:
    """A pair that came back from JSON."""
    if tree is None:
        return None
    model, shadow = tree
    return Pair(Ref(*map(str, model)), Ref(*map(str, shadow)) if shadow else None)
