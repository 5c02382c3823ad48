"""The writer of the rows ring: ticks become rows. What is computed is declared in `common.features.table`, and how in
`common.features.kernel`; this is the one that keeps the state and knows both rings.
"""

import functools
from collections.abc import Callable

import numpy as np

from common.compiled import direct
from common.errors import LayoutError
from common.features import kernel as feature_kernel
from common.features.choice import DEFAULT, FeatureSet
from common.features.table import TABLE_HASH
from common.ring import Books, Rows


class Features:
    """The writer of the rows ring: follows the books ring, tick by tick, symbol by symbol.

    Memory: 220 KB of state per symbol. Raises LayoutError if the rings have not the same symbols, or the rows not
    these columns; ContractError naming feature and symbol where a fitted feature has not its numbers. Make a new one
    when the books ring begins a new epoch.
    """

    def __init__(self, books: Books, rows: Rows, features: FeatureSet = DEFAULT) -> None:
        if (rows.symbols, rows.columns) != (books.symbols, features.labels):
            raise LayoutError("the rows ring is not made for these ticks and features",
                              where=f"rows: {rows.symbols} x {rows.columns}; "
                                    f"ticks: {books.symbols} x {features.labels}")
        self.features = features
        self._plans = [feature_kernel.plan_of(features, symbol) for symbol in books.symbols]
        self.books, self.rows = books, rows
        self._ticks = [_read_only(ticks) for ticks in books.ticks]
        self._states = [feature_kernel.new_state() for _ in books.symbols]
        self._heads = memoryview(rows.heads)  # five times faster than the array, item by item
        self._advance, self._identity = _kernel()

    def warm_up(self) -> None:
        """As the function of that name; done by making one of these."""
        warm_up()

    def advance(self, symbol: int, last_seq: int, now_ns: int) -> int:
        """Write the rows after the one last written, up to `last_seq`, a published tick; returns how many.

        A tick that is no longer in the books ring gives no row, is counted in `lost`, and ends the run.
        `now_ns` becomes ROW_WRITTEN_NS. Cost: 0.2 us a tick for the default
        columns, 0.8 us for all there are; 1 us a call."""
        return self._run(symbol, last_seq, 1, now_ns)

    def rebuild(self, symbol: int, upto_seq: int) -> None:
        """Take in the ticks still in the books ring up to `upto_seq` and write no rows.

        After a restart, with `upto_seq` the head of the rows ring, the rows that follow are those that the
        former process would have written, bit for bit, if at least `features.warm_up` ticks were still there. Only
        ROW_RUN may be lower, by the rows of the run whose ticks are gone."""
        self._states[symbol] = feature_kernel.new_state()
        self._run(symbol, upto_seq, upto_seq + 1, 0)
        self._states[symbol][feature_kernel.LOST] = 0

    def state(self, symbol: int) -> np.ndarray:
        """The state of one symbol as it stands, for `resume`: to be copied before the next `advance`."""
        return self._states[symbol]

    def resume(self, symbol: int, state: np.ndarray, upto_seq: int) -> bool:
        """As `rebuild`, but from a state that another one of these had for the same columns, numbers and stream of
        ticks (`common.features.state` keeps them): also what remembers more than the books ring still holds, and
        ROW_RUN, go on as if nothing had happened.

        Where that cannot be, since the state is younger than `upto_seq`, or ticks after it are gone, or it came from
        another version of the kernel, it does as `rebuild` and returns False."""
        kernel, last = int(state[feature_kernel.KERNEL]), int(state[feature_kernel.LAST])
        if kernel != self._identity or not upto_seq - self.books.capacity <= last <= upto_seq:
            self.rebuild(symbol, upto_seq)
            return False
        self._states[symbol] = state.copy()
        self._states[symbol][feature_kernel.LOST] = 0
        self._run(symbol, upto_seq, upto_seq + 1, 0)
        if self.lost(symbol):
            self.rebuild(symbol, upto_seq)
            return False
        return True

    def last(self, symbol: int) -> int:
        """The sequence of the last tick taken in; 0 before the first."""
        return int(self._states[symbol][feature_kernel.LAST])

    def lost(self, symbol: int) -> int:
        """Ticks that were overwritten before they were read, since the start or `rebuild`."""
        return int(self._states[symbol][feature_kernel.LOST])

    def _run(self, symbol: int, last_seq: int, write_from: int, now_ns: int) -> int:
        state, rows = self._states[symbol], self.rows
        written = self._advance(self._ticks[symbol], state, rows.values[symbol], rows.meta[symbol], last_seq,
                                write_from, now_ns, *self._plans[symbol])
        if written:
            self._heads[symbol] = state[feature_kernel.WRITTEN]
        return written


def warm_up() -> None:
    """Compile the kernel, or load it from its cache beside the source: 20 s of CPU the first time, then 0.3 s."""
    _kernel()


@functools.cache
def _kernel() -> tuple[Callable[..., int], int]:
    """The compiled `feature_kernel.build(...)` for the one set of types that it is called with, and its name."""
    books, rows = Books.private(("warm",), 2), Rows.private(("warm",), DEFAULT.labels, 2)
    state = feature_kernel.new_state()
    function = direct(feature_kernel.build(TABLE_HASH), _read_only(books.ticks[0]), state, rows.values[0], rows.meta[0],
                      0, 1, 0, *feature_kernel.plan_of(DEFAULT, "warm"))
    return function, int(state[feature_kernel.KERNEL])


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that is read-only wherever the ring lives: one array type, one compilation."""
    view = array.view()
    view.flags.writeable = False
    return view
