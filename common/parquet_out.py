"""Ticks as a Parquet file for research: one row a tick, named columns, what is absent is null.

    symbol      dictionary of text      kind        dictionary of text: book, trade, state
    seq         int64, per symbol       valid       the book is synchronised with the venue
    venue_id    int64                   reset       first tick after a snapshot: changes before it were not seen
    event_ns    int64, Unix, null where the venue gives none
    recv_ns     int64, Unix
    trade_px, trade_qty                 of trades; the quantity is below 0 where the seller was the aggressor
    bid_px_0 .. bid_px_9, bid_qty_0 .., ask_px_0 .., ask_qty_0 ..     best first

Prices and quantities are float64, because every tool for research computes with them as they are and a second set of
forty exact columns would double the file. With `exact` the same columns are int64 counts of 1e-8 instead. A double
holds each decimal of 8 places below 67 million; those that it cannot hold are counted, so nothing is rounded unnoticed.
The unit, and the count of 1e-8 in it, stand in the metadata of the file under "alpha".

Rows are in the order of the stream, all symbols together, in groups of GROUP rows. Cost: about 6 us a row.
"""

import json
import os
from os import PathLike, fspath
from typing import Any, Sequence

import numpy as np

from common import layout
from common.errors import ConfigError, ResourceError
from common.fixed import SCALE

GROUP = 1 << 16  #: rows written, and held, at a time

_WHOLE = 1 << 53  # every integer below has a double

#: name of a column of numbers -> where it stands in a tick
NUMBERS = {"trade_px": layout.TRADE_PX, "trade_qty": layout.TRADE_QTY} | {
    f"{name}_{level}": start + level for name, start in (
        ("bid_px", layout.BID_PX), ("bid_qty", layout.BID_QTY), ("ask_px", layout.ASK_PX), ("ask_qty", layout.ASK_QTY))
    for level in range(layout.LEVELS)}


class ParquetFile:
    """Written beside `path` and named so when it is whole. Raises ConfigError where pyarrow is not installed or there
    is a file already, ResourceError where it cannot be written."""

    def __init__(self, path: str | PathLike, symbols: Sequence[str], exact: bool = False,
                 about: dict[str, Any] | None = None) -> None:
        self._pa, parquet = _pyarrow()
        self.path, self._exact = fspath(path), exact
        self.rows = self.inexact = 0  #: written; numbers that a double does not hold exactly
        self._symbols = self._pa.array(list(symbols))
        self._kinds = self._pa.array(list(layout.KIND_NAMES.values()))
        self._kind_index = np.zeros(max(layout.KIND_NAMES) + 1, np.int8)
        self._kind_index[list(layout.KIND_NAMES)] = np.arange(len(layout.KIND_NAMES))
        self._blocks: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting = 0
        if os.path.exists(self.path):
            raise ConfigError("there is a file already", where=self.path, remedy="remove it, or name another")
        told = {"unit": "1e-8" if exact else "1", "scale": SCALE if exact else 1, "symbols": list(symbols),
                **(about or {})}
        self._schema = self._make_schema().with_metadata({"alpha": json.dumps(told)})
        head, tail = os.path.split(self.path)
        self._new = os.path.join(head, f".{tail}.new")
        try:
            self._file = parquet.ParquetWriter(self._new, self._schema, compression="zstd")
        except OSError as error:
            raise self._refused(error) from None

    def write(self, symbols: np.ndarray, ticks: np.ndarray) -> None:
        """int[n] indices of symbols, and their int64[n, TICK_WIDTH] ticks, which may change after this."""
        self._blocks.append((symbols.copy(), ticks.copy()))
        self._waiting += len(ticks)
        if self._waiting >= GROUP:
            self._put()

    def close(self) -> None:
        """Make the file whole."""
        try:
            if self._waiting:
                self._put()
            self._file.close()
            os.replace(self._new, self.path)
        except OSError as error:
            self.abandon()
            raise self._refused(error) from None

    def abandon(self) -> None:
        """After an error: nothing stays."""
        try:
            self._file.close()
        except OSError:
            pass
        if os.path.exists(self._new):
            os.unlink(self._new)

    def _put(self) -> None:
        symbols = np.concatenate([symbols for symbols, _ in self._blocks])
        # One column after another in memory, as a Parquet file has them.
        columns = np.ascontiguousarray(np.concatenate([ticks for _, ticks in self._blocks]).T)
        self._blocks, self._waiting = [], 0
        self.rows += len(symbols)
        try:
            self._file.write_table(self._pa.table(self._columns(symbols, columns), schema=self._schema))
        except OSError as error:
            raise self._refused(error) from None

    def _columns(self, symbols: np.ndarray, ticks: np.ndarray) -> list[Any]:
        pa, flags, event_ns = self._pa, ticks[layout.FLAGS], ticks[layout.EVENT_NS]
        return [
            pa.DictionaryArray.from_arrays(pa.array(symbols.astype(np.int32)), self._symbols),
            pa.array(ticks[layout.SEQ]),
            pa.DictionaryArray.from_arrays(pa.array(self._kind_index[ticks[layout.KIND]]), self._kinds),
            pa.array((flags & layout.FLAG_VALID) != 0),
            pa.array((flags & layout.FLAG_RESET) != 0),
            pa.array(ticks[layout.VENUE_ID]),
            pa.array(event_ns, mask=event_ns == 0),
            pa.array(ticks[layout.RECV_NS]),
            *(self._numbers(ticks[place]) for place in NUMBERS.values())]

    def _numbers(self, values: np.ndarray) -> Any:
        absent = values == 0
        if self._exact:
            return self._pa.array(values, mask=absent)
        found = values / SCALE
        if (np.abs(values) >= _WHOLE).any():  # these would be rounded twice
            whole, part = np.divmod(values, SCALE)
            found = np.where(np.abs(values) < _WHOLE, found, whole + part / SCALE)
        whole = np.floor(found)
        back = whole.astype(np.int64) * SCALE + np.rint((found - whole) * SCALE).astype(np.int64)
        self.inexact += int((back != values).sum())
        return self._pa.array(found, mask=absent)

    def _make_schema(self) -> Any:
        pa = self._pa
        number = pa.int64() if self._exact else pa.float64()
        return pa.schema([
            ("symbol", pa.dictionary(pa.int32(), pa.string())), ("seq", pa.int64()),
            ("kind", pa.dictionary(pa.int8(), pa.string())), ("valid", pa.bool_()), ("reset", pa.bool_()),
            ("venue_id", pa.int64()), ("event_ns", pa.int64()), ("recv_ns", pa.int64()),
            *((name, number) for name in NUMBERS)])

    def _refused(self, error: OSError) -> ResourceError:
        return ResourceError("cannot write a Parquet file", where=f"{self.path}: {error.strerror or error}",
                             remedy="make room, or name another place")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("Parquet needs the module pyarrow", where="target=.parquet",
                          remedy="pip install 'predictive-alpha[parquet]'") from None
    return pyarrow, pyarrow.parquet
