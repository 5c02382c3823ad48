"""From recordings to a dataset, by the very code that runs live: frames -> market core -> ticks -> feature kernel.

    dataset = make(lambda: sources(paths), Options(horizons=(labels.horizon("5s"),)))

There is no second implementation that training could disagree with, and nothing but a label looks ahead:
`prove_no_look_ahead` computes rows anew while no later tick exists, and compares bits.

Symbols go their own ways in the market core, so recordings of several connections and venues may go into one dataset,
each through a market of its own. Where features have fitted numbers, the recordings are read twice.

Cost: 10 us a line of a capture with the default features; where some are fitted, twice that. Memory: 60 + 4 F bytes a
row, twice that while it is put together.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any, NamedTuple

import numpy as np

from common import captures, convert, fitting, labels, layout
from common.convert import ticks
from common.dataset import Dataset, refuse_not_finite
from common.errors import ConfigError, ContractError
from common.features.choice import DEFAULT, FeatureSet
from common.features.rows import Features
from common.features.table import BY_NAME
from common.folds import edges
from common.imports.source import Source
from common.labels import Horizon, Threshold
from common.ring import Books, Rows

CHUNK = 2048  #: ticks between two calls of the kernel
PREFIX = 8192  #: ticks of each symbol that are kept to be gone through again

_log = logging.getLogger(__name__)

Tell = Callable[[int, int], None]  #: messages and ticks so far, every few thousand


def _silent(messages: int, ticks: int) -> None:
    """Nobody waits."""


# ---- ticks to rows


class Part(NamedTuple):
    """Rows of ticks on a valid book, of one symbol and in order; columns as in `Dataset`."""

    values: np.ndarray
    seq: np.ndarray
    venue_id: np.ndarray
    event_ns: np.ndarray
    recv_ns: np.ndarray
    run: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    ticks: np.ndarray  #: int64[m, len(keep)]: columns of the ticks themselves


_META = [layout.ROW_SEQ, layout.ROW_VENUE_ID, layout.ROW_EVENT_NS, layout.ROW_RECV_NS, layout.ROW_RUN, layout.ROW_BID,
         layout.ROW_ASK]


class Collector:
    """Ticks in, rows out. `keep` are columns of the ticks that are wanted beside the rows."""

    def __init__(self, symbols: Sequence[str], features: FeatureSet, keep: Sequence[int] = ()) -> None:
        self._books = Books.private(symbols, CHUNK)
        self._rows = Rows.private(symbols, features.labels, CHUNK)
        self._features = Features(self._books, self._rows, features)
        self._keep = list(keep)

    def take(self, symbol: int, ticks: np.ndarray) -> Part:
        """The rows of int64[n, TICK_WIDTH], the next ticks of a symbol."""
        parts = [self._chunk(symbol, ticks[start:start + CHUNK]) for start in range(0, len(ticks), CHUNK)]
        return parts[0] if len(parts) == 1 else joined(parts)

    def _chunk(self, symbol: int, ticks: np.ndarray) -> Part:
        head, before = int(ticks[-1, layout.SEQ]), int(self._books.heads[symbol])
        if not np.array_equal(ticks[:, layout.SEQ], np.arange(before + 1, before + 1 + len(ticks))):
            name = self._books.symbols[symbol]
            raise ContractError("the ticks of a symbol do not follow one another",
                                where=f"{name}, seq {ticks[0, layout.SEQ]} to {head} after {before}")
        slots = ticks[:, layout.SEQ] & (CHUNK - 1)
        self._books.ticks[symbol][slots] = ticks
        self._books.heads[symbol] = head
        self._features.advance(symbol, head, 0)
        valid = np.flatnonzero(ticks[:, layout.FLAGS] & layout.FLAG_VALID)
        at = slots[valid]
        meta = self._rows.meta[symbol][at]
        return Part(self._rows.values[symbol][at], *(meta[:, column] for column in _META),
                    ticks[np.ix_(valid, self._keep)])


def joined(parts: Sequence[Part]) -> Part:
    return Part(*(np.concatenate(columns) for columns in zip(*parts)))


def stream(found: Sequence[Source], symbols: Sequence[str], tell: Tell = _silent,
           say: convert.Say = _log.warning) -> Iterator[tuple[int, np.ndarray]]:
    """(index into `symbols`, the next ticks of that symbol) of all sources, one after the other."""
    place = {name: index for index, name in enumerate(symbols)}
    messages = done = 0
    for source in found:
        counts: dict[str, int] = {}
        for owners, block in ticks(source, say, counts):
            for owner in np.unique(owners):
                if source.symbols[owner] in place:
                    yield place[source.symbols[owner]], block[owners == owner]
            done += len(block)
            tell(messages + counts["messages"], done)
        messages += counts["messages"]


def timeline(event_ns: np.ndarray, recv_ns: np.ndarray) -> np.ndarray:
    """int64[m]: the venue's time of each row, carried on where it is unknown or goes back; 0 before the first one that
    is known. Where the venue never tells it, the time of receipt."""
    return np.maximum.accumulate(event_ns if event_ns.any() else recv_ns)


def sampled(time_ns: np.ndarray, usable: np.ndarray, every_ns: int, before: int = -1) -> tuple[np.ndarray, int]:
    """Indices of the first usable row in each stretch of `every_ns`, since its neighbours tell little more; 0: all of
    them. `before`, and what is returned beside it, is the stretch of the last one, for the rows that follow."""
    rows = np.flatnonzero(usable)
    if not every_ns or not len(rows):
        return rows, before
    stretch = time_ns[rows] // every_ns
    return rows[np.diff(stretch, prepend=before) != 0], int(stretch[-1])


# ---- recordings to a dataset


@dataclass(frozen=True)
class Options:
    features: tuple[str, ...] = DEFAULT.names
    horizons: tuple[Horizon, ...] = (Horizon("s", 30.0),)
    classes: int = 2
    threshold: Threshold = Threshold()
    fee_bps: float = 0.0  #: one way; with a threshold
    smooth: str = ""  #: see `common.labels`
    every_s: float = 0.5  #: between two samples of a symbol; 0: every warm row
    folds: int = 4
    embargo_s: float | None = None  #: default: the longest horizon; of ticks, the time that they take in the median
    symbols: tuple[str, ...] = ()  #: default: all
    fit_until_ns: int | None = None  #: default: the end of the first fold's training
    verify: int = 1024  #: points of each symbol at which `prove_no_look_ahead` looks; 0: none

    def __post_init__(self) -> None:
        for ok, where, remedy in (
                (self.classes in (2, 3), f"classes={self.classes}", "use 2 or 3"),
                (self.folds >= 1, f"folds={self.folds}", "use 1 or more"),
                (self.every_s >= 0, f"every={self.every_s}", "use 0 or more"),
                (self.embargo_s is None or self.embargo_s >= 0, f"embargo={self.embargo_s}", "use 0 or more"),
                (self.fee_bps >= 0, f"fee_bps={self.fee_bps}", "use 0 or more"),
                (self.verify >= 0, f"verify={self.verify}", "use 0 or more"),
                (self.smooth in labels.SMOOTH, f"smooth={self.smooth}", f"use {', '.join(labels.SMOOTH[1:])}"),
                (self.horizons and len(set(map(str, self.horizons))) == len(self.horizons),
                 f"horizons={', '.join(map(str, self.horizons))}", "name at least one, each once"),
                (self.classes == 2 or self.threshold != Threshold() or self.fee_bps > 0,
                 f"classes={self.classes}, threshold={self.threshold}",
                 "three classes need a threshold above 0 that parts flat from the others")):
            if not ok:
                raise ConfigError("a dataset cannot be made so", where=where, remedy=remedy)


def sources(paths: Sequence[str | PathLike], say: convert.Say = _log.warning) -> list[Source]:
    """What `paths` hold, not yet read: recordings of one connection each, or a foreign recording of any format that
    `common.convert` knows. May be asked for again, to read them again. Raises ConfigError, VenueError."""
    groups: dict[tuple, list[str]] = {}
    for path in paths:
        kind = convert.recognise(path)
        stream_of = captures.describe([path]) if kind == "capture" else path if kind == "session" else ""
        groups.setdefault((kind, stream_of), []).append(fspath(path))
    return [convert.open_sources(files, say) for files in groups.values()]


def make(open_again: Callable[[], Sequence[Source]], options: Options = Options(), about: Mapping[str, Any] = {},
         tell: Tell = _silent, say: convert.Say = _log.warning) -> Dataset:
    """The dataset of the sources that `open_again` opens, twice where features are fitted.

    `about` is kept in it. Raises ConfigError where there is nothing to learn from, ContractError where a value is not
    finite or a feature looks ahead."""
    found = open_again()
    symbols = _chosen(found, options.symbols)
    fitted = {name: fitting.FITTERS[name] for name in options.features if name in BY_NAME and BY_NAME[name].fitted}
    parameters, told = {}, {}
    if fitted:
        parameters, told = _fit(found, symbols, options, fitted, tell, say)
        found = open_again()
    features = FeatureSet.of(options.features, parameters)

    parts, prefix = _gathered(found, symbols, Collector(symbols, features), options.verify > 0, tell, say)
    for name, part in zip(symbols, parts):
        refuse_not_finite(part.values, features, lambda row: f"{name}, seq {part.seq[row]}")
    dataset = build(features, symbols, parts, options, {
        **about, **told, "venues": {name: source.venue for source in found for name in source.symbols}})
    dataset.about["compared"] = prove_no_look_ahead(dataset, prefix, options.verify) if options.verify else 0
    return dataset


def build(features: FeatureSet, symbols: Sequence[str], parts: Sequence[Part], options: Options,
          about: Mapping[str, Any] = {}) -> Dataset:
    """A dataset of the rows of each symbol: samples, labels, folds."""
    times = [timeline(part.event_ns, part.recv_ns) for part in parts]
    borders, embargo_ns = _folds(times, options)
    known_ns = borders[1] - embargo_ns  # what the first fold is trained on is known by then
    every_ns = round(options.every_s * 1e9)
    first, samples, moved = 0, [], []
    for part, time in zip(parts, times):
        both = (part.bid > 0) & (part.ask > 0) & (time > 0)
        rows, _ = sampled(time, both & (part.run > 0), every_ns)
        way = labels.Way(time, part.bid, part.ask, part.seq)
        moved.append([labels.moves(way, rows, each, options.smooth) for each in options.horizons])
        samples.append(rows + first)
        first += len(time)
    sample = np.concatenate(samples)
    if not len(sample):
        raise ConfigError("the recordings have no warm row with both sides", where=f"{first:,} rows; warm after "
                          f"{features.warm_up} ticks and {features.warm_up_ns / 1e9:g} s of a run",
                          remedy="take longer recordings, or features with shorter windows")
    whole = joined(parts)
    bid, ask, time_ns = whole.bid[sample], whole.ask[sample], np.concatenate(times)
    moves, until, classes, counts, limits = [], [], [], {}, {}
    for place, horizon in enumerate(options.horizons):
        move, until_ns, lost, short = (np.concatenate([each[place][k] for each in moved]) for k in range(4))
        train = (time_ns[sample] < borders[1]) & (until_ns <= known_ns)
        limit = labels.limits(options.threshold, move, bid, ask, train, options.fee_bps, options.classes)
        label = labels.classify(move, limit, options.classes)
        unknown = np.isnan(move)
        counts[str(horizon)] = {
            "labelled": int((label >= 0).sum()), "stream ends before": int((unknown & ~lost & ~short).sum()),
            "book lost within": int(lost.sum()), "too few ticks to smooth": int(short.sum()),
            "no move": int((move == 0).sum()),
            "dropped within the threshold": int((~unknown & (label < 0) & (move != 0)).sum())}
        limits[str(horizon)] = [float(found) for found in np.quantile(limit, (0.0, 0.5, 1.0))]
        moves.append(move), until.append(until_ns), classes.append(label)
    return Dataset(
        features=features, symbols=tuple(symbols), values=whole.values,
        symbol=np.repeat(np.arange(len(parts), dtype=np.int32), [len(each) for each in times]),
        seq=whole.seq, venue_id=whole.venue_id, time_ns=time_ns, recv_ns=whole.recv_ns, run=whole.run, bid=whole.bid,
        ask=whole.ask, sample=sample, horizons=options.horizons, moves=np.stack(moves, 1),
        until_ns=np.stack(until, 1), labels=np.stack(classes, 1),
        classes=labels.THREE if options.classes == 3 else labels.TWO,
        about={**about, "options": _told(options), "rows": len(time_ns), "warm": int((whole.run > 0).sum()),
               "samples": len(sample), "labels": counts, "limits_bps": limits,
               "folds": {"borders_ns": borders, "embargo_ns": embargo_ns},
               "time_back_s": [float((time - part.event_ns)[part.event_ns > 0].max(initial=0)) / 1e9
                               for part, time in zip(parts, times)],
               "receive_time": [name for name, part in zip(symbols, parts) if not part.event_ns.any()]})


def prove_no_look_ahead(dataset: Dataset, prefix: Mapping[int, np.ndarray], points: int = 1024) -> int:
    """Compute rows anew while no later tick exists, and compare their bits with those of the dataset.

    `prefix`: of each symbol's index, int64[n, TICK_WIDTH], its ticks from the first on. At `points` of them, anywhere,
    the stream is cut: the row that is newest then has to be the same. Many, since a column that seldom changes betrays
    itself seldom. Returns the number of rows compared; about 50 us each. Raises ContractError naming the column and
    both values."""
    compared = 0
    for symbol, block in prefix.items():
        collector = Collector(dataset.symbols, dataset.features)
        mine = np.flatnonzero(dataset.symbol == symbol)
        done = 0
        for end in np.unique(np.random.default_rng(0).integers(1, len(block) + 1, points)):
            found = collector.take(symbol, block[done:end])
            done = end
            row = mine[np.searchsorted(dataset.seq[mine], block[end - 1, layout.SEQ]) % len(mine)]
            if not len(found.seq) or dataset.seq[row] != found.seq[-1]:
                continue  # no valid book
            compared += 1
            differs = np.flatnonzero(dataset.values[row].view(np.uint32) != found.values[-1].view(np.uint32))
            if len(differs):
                column = int(differs[0])
                raise ContractError(
                    "a row changes with what comes after it: a feature looks ahead",
                    where=f"{dataset.features.names[column]} of {dataset.symbols[symbol]}, seq {found.seq[-1]}: in the "
                          f"dataset {dataset.values[row, column]}, before the next tick {found.values[-1, column]}",
                    remedy="features must depend on the ticks up to their own only")
    return compared


def about_files(paths: Sequence[str | PathLike]) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of each file, in the order given."""
    found = []
    for path in paths:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append({"name": fspath(path).rpartition("/")[2], "bytes": file.tell(), "sha256": digest})
    return found


def _chosen(found: Sequence[Source], wanted: Sequence[str]) -> tuple[str, ...]:
    known = [name for source in found for name in source.symbols]
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        raise ConfigError("a symbol is of several recordings that are not one stream", where=twice[0],
                          remedy="make a dataset of each venue, or of files with the same symbols")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError("the recordings have no such symbol", where=unknown[0], remedy=f"known: {', '.join(known)}")
    return tuple(name for name in known if not wanted or name in wanted)


def _gathered(found: Sequence[Source], symbols: Sequence[str], collector: Collector, prefix: bool, tell: Tell,
              say: convert.Say) -> tuple[list[Part], dict[int, np.ndarray]]:
    """The rows of each symbol, and the first ticks of each where they are wanted."""
    parts: list[list[Part]] = [[] for _ in symbols]
    first: list[list[np.ndarray]] = [[] for _ in symbols]
    held = [0] * len(symbols)
    for symbol, block in stream(found, symbols, tell, say):
        parts[symbol].append(collector.take(symbol, block))
        if prefix and held[symbol] < PREFIX:
            first[symbol].append(block[:PREFIX - held[symbol]])
            held[symbol] += len(first[symbol][-1])
    missing = [name for name, each in zip(symbols, parts) if not any(len(part.seq) for part in each)]
    if missing:
        raise ConfigError("the recordings have no valid book of a symbol", where=missing[0],
                          remedy="judge them with `alpha capture verify`, or leave it out with --symbols")
    return [joined(each) for each in parts], {index: np.concatenate(each) for index, each in enumerate(first) if each}


def _folds(times: Sequence[np.ndarray], options: Options) -> tuple[list[int], int]:
    """Borders and embargo, from the times of all symbols' rows: the same before and after numbers are fitted. The first
    training span begins when the windows in time are full."""
    starts = [int(time[time > 0][0]) for time in times if time.any()]
    if not starts:
        raise ConfigError("no row has a time", where=f"{sum(map(len, times)):,} rows")
    warm_ns = round(1e9 * max((BY_NAME[name].warm_up_s for name in options.features if name in BY_NAME), default=0.0))
    borders = edges(min(starts) + warm_ns, max(int(time[-1]) for time in times), options.folds)
    if options.embargo_s is not None:
        return borders, round(options.embargo_s * 1e9)
    return borders, max(_span_ns(time, each) for time in times for each in options.horizons)


def _span_ns(time_ns: np.ndarray, horizon: Horizon) -> int:
    """The venue time that a horizon takes."""
    if horizon.kind == "s":
        return round(horizon.length * 1e9)
    ticks = min(int(horizon.length), len(time_ns) - 1)
    return int(np.median(time_ns[ticks:] - time_ns[:len(time_ns) - ticks]))


def _fit(found: Sequence[Source], symbols: Sequence[str], options: Options, fitted: Mapping[str, "fitting.Fitter"],
         tell: Tell, say: convert.Say) -> tuple[dict, dict]:
    """The numbers of fitted features, and what is to be told of them."""
    needs = tuple(dict.fromkeys(name for fitter in fitted.values() for name in fitter.needs)) or ("spread",)
    columns = FeatureSet.of(needs)
    whole, _ = _gathered(found, symbols, Collector(symbols, columns, fitting.TICK_COLUMNS), False, tell, say)
    times = [timeline(part.event_ns, part.recv_ns) for part in whole]
    until_ns = options.fit_until_ns
    if until_ns is None:
        borders, embargo_ns = _folds(times, options)
        until_ns = borders[1] - embargo_ns
    parameters: dict[str, dict[str, list[float]]] = {name: {} for name in fitted}
    rows = {}
    for name, part, time in zip(symbols, whole, times):
        count = int(np.searchsorted(time, until_ns))
        rows[name] = count
        seen = fitting.Seen(
            name, {feature: part.values[:count, place] for place, feature in enumerate(columns.names)},
            part.run[:count], part.seq[:count], time[:count], part.bid[:count], part.ask[:count], part.ticks[:count])
        for feature, fitter in fitted.items():
            parameters[feature][name] = fitter.fit(seen)
    return parameters, {"fit_until_ns": until_ns, "fit_rows": rows}


def _told(options: Options) -> dict[str, Any]:
    return {"features": list(options.features), "horizons": [str(each) for each in options.horizons],
            "classes": options.classes, "threshold": str(options.threshold), "fee_bps": options.fee_bps,
            "smooth": options.smooth, "every_s": options.every_s, "folds": options.folds,
            "embargo_s": options.embargo_s, "symbols": list(options.symbols),
            "fit_until_ns": options.fit_until_ns, "verify": options.verify}
