"""A recorded live session: what the pipeline made of the frames that a recorder kept beside it.

    session.json      what it is of: symbols, columns, layouts, configuration, models, captures
    ticks.bin         every tick, as it stood in the books ring
    rows.bin          every row and its meta record, as they stood in the rows ring
    predictions.bin   every prediction (common.wire)
    decisions.bin     every decision, with what it was made of (common.decision)
    missed.bin        what could not be kept: nothing is missing in silence

One folder is one stream of ticks with one set of columns: where ingest begins anew, or the columns change, another
folder begins. Each file holds records of one width, little-endian, one after the other in the order in which they were
heard, and only ever grows: it can be read while it is written, and after a kill it has all that was written but a torn
last record, which is not read. Widths, names and types of the fields come from `common.layout`, `common.wire` and
`common.decision`, and stand in session.json, so that a file can be read without this program.

Folder and files are for this user alone. Size: 456 bytes a tick, 136 + 4 F a row, 133 a prediction, 442 a decision.
"""

import json
import os
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import decision, layout
from common.config import Config, plain, restore
from common.errors import ConfigError, LayoutError, ResourceError
from common.features.choice import FeatureSet
from common.features.table import TABLE_HASH
from common.locks import private_folder
from common.recorder import write_whole
from common.ring import Books, Rows
from common.shm import fence
from common.wire import Prediction, form

VERSION = 1
FILE = "session.json"
KINDS = ("ticks", "rows", "predictions", "decisions")
MISSED = "missed"
PACKAGES = ("predictive-alpha", "numpy", "numba", "onnxruntime")  #: whose versions are written down

#: the columns of a tick by their places; a spare one has no name
TICK_COLUMNS = {getattr(layout, name): name.lower() for name in (
    "SEQ", "KIND", "FLAGS", "VENUE_ID", "EVENT_NS", "RECV_NS", "BOOK_NS", "TRADE_PX", "TRADE_QTY")} | {
    getattr(layout, name) + level: f"{name.lower()}_{level + 1}"
    for name in ("BID_PX", "BID_QTY", "ASK_PX", "ASK_QTY") for level in range(layout.LEVELS)}
#: the columns of a row's meta record by their places
META_COLUMNS = {place: name.removeprefix("ROW_").lower() for name, place in vars(layout).items()
                if name.startswith("ROW_")}


def _fields(names: Iterable[str], codes: str) -> np.dtype:
    """The records of a `struct` format as NumPy reads them."""
    return np.dtype([(name, "<" + code) for name, code in zip(names, codes.removeprefix("<"), strict=True)])


def layouts(columns: int) -> dict[str, np.dtype]:
    """The records of each file, for rows of so many columns."""
    return {
        "ticks": np.dtype([("symbol", "<i8"), ("tick", "<i8", (layout.TICK_WIDTH,))]),
        "rows": np.dtype([("symbol", "<i8"), ("meta", "<i8", (layout.META_WIDTH,)), ("values", "<f4", (columns,))]),
        "predictions": _fields(Prediction._fields, form(Prediction)),
        "decisions": _fields(decision.Decision._fields, decision.FORMAT),
        # `kind` is a place in KINDS. Ticks and rows are missed by seq, messages by count; symbol -1: of any.
        MISSED: np.dtype([("kind", "<i8"), ("symbol", "<i8"), ("first", "<i8"), ("last", "<i8"), ("count", "<i8")]),
    }


class Capture(NamedTuple):
    """A file of frames that was written beside the session."""

    session: str  #: and `part`, as in its first line: the file may be called otherwise today
    part: int
    offset_ns: int  #: its stamps less those of the machine's monotonic clock


class Known(NamedTuple):
    """A model that predicted."""

    id: int  #: as predictions carry it
    path: str  #: "": not found
    sha256: str  #: of the .onnx file
    name: str


class SessionLog:
    """The writer of one folder, which must not exist yet. Every method raises ResourceError where the disk refuses, and
    nothing more is to be written then; what was written before stays readable."""

    def __init__(self, folder: Path, config: Config, stream: int, symbols: Sequence[str], features: FeatureSet) -> None:
        self.folder = folder
        self.counts = dict.fromkeys((*KINDS, MISSED), 0)  #: records; of what was missed, how much
        self.bytes = 0
        self._layouts = layouts(len(features))
        self._models: dict[int, Known] = {}
        self._captures: list[Capture] = []
        self._told = {
            "version": VERSION, "stream": stream, "symbols": list(symbols), "columns": list(features.labels),
            "features": {"names": list(features.names), "parameters": features.parameters}, "table": TABLE_HASH,
            "reasons": list(decision.REASONS), "config": plain(config),
            "versions": {name: _version(name) for name in PACKAGES},
            "layouts": {name: _told(dtype) for name, dtype in self._layouts.items()},
        }
        self._fds: dict[str, int] = {}
        try:
            private_folder(folder)
            for name in self._layouts:
                self._fds[name] = os.open(folder / f"{name}.bin", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                                          | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _refused(folder, error) from None
        self._say()

    def write(self, kind: str, records: np.ndarray) -> None:
        """Records of the layout of `kind`."""
        self._append(kind, records.tobytes())
        self.counts[kind] += len(records)

    def write_ticks(self, symbol: int, ticks: np.ndarray) -> None:
        """int64[n, TICK_WIDTH]"""
        found = np.empty(len(ticks), self._layouts["ticks"])
        found["symbol"], found["tick"] = symbol, ticks
        self.write("ticks", found)

    def write_rows(self, symbol: int, meta: np.ndarray, values: np.ndarray) -> None:
        """int64[n, META_WIDTH] and float32[n, F]"""
        found = np.empty(len(meta), self._layouts["rows"])
        found["symbol"], found["meta"], found["values"] = symbol, meta, values
        self.write("rows", found)

    def write_predictions(self, predictions: list[Prediction]) -> None:
        self.write("predictions", np.array(predictions, self._layouts["predictions"]))

    def write_decisions(self, message: bytes) -> None:
        """A message of the tap."""
        self.write("decisions", np.frombuffer(message, self._layouts["decisions"]))

    def missed(self, kind: str, count: int, symbol: int = -1, first: int = 0, last: int = 0) -> None:
        """So many records of `kind` were not had: ticks and rows first..last of a symbol, or messages."""
        self._append(MISSED, np.array([(KINDS.index(kind), symbol, first, last, count)],
                                      self._layouts[MISSED]).tobytes())
        self.counts[MISSED] += count

    def model(self, known: Known) -> None:
        self._models[known.id] = known
        self._say()

    def captured(self, capture: Capture) -> None:
        """A file of frames has been begun."""
        self._captures.append(capture)
        self._say()

    def close(self) -> None:
        """Force everything to the disk."""
        try:
            while self._fds:
                fd = self._fds.popitem()[1]
                os.fsync(fd)
                os.close(fd)
        except OSError as error:
            raise _refused(self.folder, error) from None

    def _append(self, name: str, content: bytes) -> None:
        try:
            self.bytes += len(content)
            while content:
                content = content[os.write(self._fds[name], content):]
        except OSError as error:
            raise _refused(self.folder / f"{name}.bin", error) from None

    def _say(self) -> None:
        """All of session.json, or what it was before."""
        told = self._told | {"models": [known._asdict() for known in self._models.values()],
                             "captures": [capture._asdict() for capture in self._captures]}
        write_whole(self.folder / FILE, json.dumps(told, indent=1).encode() + b"\n", 0o600)


class Session:
    """A folder, to be read. Raises ConfigError where it is none, LayoutError where another version wrote it, naming
    what differs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.told: dict[str, Any] = json.loads((folder / FILE).read_bytes())
            self.symbols: tuple[str, ...] = tuple(self.told["symbols"])
            self.columns: tuple[str, ...] = tuple(self.told["columns"])
            self.reasons: tuple[str, ...] = tuple(self.told["reasons"])
            self.stream: int = self.told["stream"]
            self.models = [Known(**known) for known in self.told["models"]]
            self.captures = [Capture(**capture) for capture in self.told["captures"]]
        except OSError as error:
            raise ConfigError("there is no recorded session here", where=f"{folder / FILE}: {error.strerror}",
                              remedy="name a folder that `alpha record --session` has made") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError("the description of a recorded session is damaged",
                              where=f"{folder / FILE}: {error!r}") from None
        self._layouts = layouts(len(self.columns))
        self._expect("version", self.told.get("version"), VERSION)
        self._expect("table of features", self.told.get("table"), TABLE_HASH)
        for name, dtype in self._layouts.items():
            self._expect(f"layout of {name}", self.told["layouts"].get(name), _told(dtype))

    @property
    def tag(self) -> int:
        """Names the stream in predictions and decisions."""
        return self.stream & 0xFFFFFFFF

    @property
    def config(self) -> Config:
        """What was in force, as the recorder read it."""
        return _config(self.told["config"], self.folder / FILE)

    @property
    def features(self) -> FeatureSet:
        """The columns of the rows."""
        told = self.told["features"]
        return FeatureSet.of(told["names"], told["parameters"])

    def records(self, name: str) -> np.ndarray:
        """All whole records of one of KINDS, or of MISSED, as they are now: mapped, not read."""
        path, dtype = self.folder / f"{name}.bin", self._layouts[name]
        try:
            count = path.stat().st_size // dtype.itemsize
            return np.memmap(path, dtype, "r", shape=(count,)) if count else np.empty(0, dtype)
        except OSError as error:
            raise ConfigError("a file of a recorded session cannot be read",
                              where=f"{path}: {error.strerror}") from None

    def _expect(self, what: str, found: Any, ours: Any) -> None:
        if found != ours:
            raise LayoutError(f"a recorded session has another {what}",
                              where=f"{self.folder}: {json.dumps(found)[:80]}, here {json.dumps(ours)[:80]}",
                              remedy="read it with the version that recorded it")


class Followed(NamedTuple):
    """What a ring has had since the last look."""

    last: int  #: newest sequence
    lost: list[tuple[int, int]]  #: first..last of each stretch that was overwritten, torn or never there
    meta: np.ndarray  #: int64[n, width]: ticks, or the meta records of rows
    values: np.ndarray | None  #: float32[n, F] of rows


def follow(ring: Books | Rows, symbol: int, last: int) -> Followed | None:
    """The records of `symbol` after `last`, copied, and checked after the copy; None if there are none. `last` -1: from
    the oldest that is sure to last until it is read. Cost: 0.2 us a tick, 0.3 us a row, 15 us a call."""
    head, capacity = int(ring.heads[symbol]), ring.capacity
    if last < 0:
        last = max(0, head - capacity // 2)
    if head <= last:
        return None
    records = (ring.ticks if isinstance(ring, Books) else ring.meta)[symbol]
    seqs = np.arange(max(last + 1, head - capacity + 1), head + 1)
    slots = seqs & (capacity - 1)
    meta = records[slots]
    values = None if isinstance(ring, Books) else ring.values[symbol][slots]
    fence()
    # SEQ is the first column of both; what the writer began to overwrite meanwhile has another one by now.
    whole = (meta[:, layout.SEQ] == seqs) & (records[slots, layout.SEQ] == seqs)
    held = np.concatenate(([last], seqs[whole], [head + 1]))
    ends = np.flatnonzero(np.diff(held) > 1)
    lost = [(int(held[at]) + 1, int(held[at + 1]) - 1) for at in ends]
    return Followed(head, lost, meta[whole], None if values is None else values[whole])


def find(folder: Path) -> Path:
    """The session in `folder`: itself, or the only one in it. Raises ConfigError where there is none, or a choice."""
    found = [path.parent for path in sorted(folder.glob(f"*/{FILE}"))]
    if (folder / FILE).exists() or not found:
        return folder
    if len(found) > 1:
        raise ConfigError("there are several recorded sessions here", where=", ".join(path.name for path in found),
                          remedy="name one of them")
    return found[0]


def _told(dtype: np.dtype) -> dict[str, Any]:
    """The layout of a record for JSON."""
    columns = {"tick": TICK_COLUMNS, "meta": META_COLUMNS}
    fields = []
    for name in dtype.names:
        field = {"name": name, "type": dtype[name].base.str, "offset": dtype.fields[name][1]}
        if dtype[name].shape:
            field["shape"] = list(dtype[name].shape)
        if name in columns:
            field["columns"] = {str(place): text for place, text in sorted(columns[name].items())}
        fields.append(field)
    return {"bytes": dtype.itemsize, "fields": fields}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _config(tree: object, source: Path) -> Config:
    try:
        return restore(tree)
    except ConfigError as error:
        raise ConfigError("the configuration of a recorded session is not one of this version",
                          where=f"{source}: {error}") from None


def _refused(path: Path, error: OSError) -> ResourceError:
    return ResourceError("cannot write a recorded session", where=f"{path}: {error.strerror}",
                         remedy="make room, or record into another folder; what was written before can be read")
