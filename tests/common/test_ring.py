"""Rings: a window is one contiguous view, and a record that was overwritten is never taken for another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import layout, shm
from common.errors import ConfigError, LayoutError
from common.ring import Books, Rows

CAPACITY = 16


def write_tick(books: Books, symbol: int, seq: int) -> None:
    record = books.ticks[symbol][seq % books.capacity]
    record[layout.SEQ] = 0
    record[1:] = seq * 1000 + np.arange(1, layout.TICK_WIDTH)
    record[layout.SEQ] = seq
    books.heads[symbol] = seq


def write_row(rows: Rows, seq: int) -> None:
    slot = seq % rows.capacity
    rows.meta[0][slot, layout.ROW_SEQ] = 0
    rows.values[0][slot] = rows.values[0][slot + rows.capacity] = seq
    rows.meta[0][slot, layout.ROW_SEQ] = seq
    rows.heads[0] = seq


@given(st.integers(1, 200), st.integers(1, CAPACITY))
def test_every_window_is_a_contiguous_view_of_its_rows(last, length):
    rows = Rows.private(["A"], ["x", "y"], CAPACITY)
    for seq in range(1, last + 1):
        write_row(rows, seq)
    window = rows.window(0, last, length)
    assert window.flags.c_contiguous and window.base is not None and window.shape == (length, 2)
    expected = [max(0, seq) for seq in range(last - length + 1, last + 1)]
    assert window[:, 0].tolist() == expected == window[:, 1].tolist()


@given(st.integers(1, 100), st.integers(1, 100))
def test_a_tick_is_read_whole_or_not_at_all(head, wanted):
    books = Books.private(["A"], CAPACITY)
    for seq in range(1, head + 1):
        write_tick(books, 0, seq)
    record = books.read(0, wanted)
    if head - CAPACITY < wanted <= head:
        assert record[layout.SEQ] == wanted and record[5] == wanted * 1000 + 5
    else:
        assert record is None
    assert books.newest(0)[layout.SEQ] == head == books.top(0).seq


def test_a_row_that_is_being_written_is_not_held():
    rows = Rows.private(["A"], ["x"], CAPACITY)
    write_row(rows, 1)
    assert rows.holds(0, 1) and rows.read_meta(0, 1)[layout.ROW_SEQ] == 1
    rows.meta[0][1, layout.ROW_SEQ] = 0
    assert not rows.holds(0, 1) and rows.read_meta(0, 1) is None


def test_top_gives_the_best_prices_of_the_newest_tick():
    books = Books.private(["A", "B"], CAPACITY)
    assert books.top(1) is None and books.newest(1) is None
    write_tick(books, 1, 3)
    top = books.top(1)
    assert (top.bid, top.ask_qty) == (3000 + layout.BID_PX, 3000 + layout.ASK_QTY)


def test_both_rings_are_shared_between_writer_and_reader(instance):
    books = Books.create(instance, ["A", "B"], 1024)
    write_tick(books, 1, 5)
    reader = Books.attach(instance)
    assert reader.symbols == ("A", "B") and reader.tag == books.tag and reader.newest(1) == books.newest(1)
    rows = Rows.create(instance, ["A"], ["x", "y"], 1024, "hash", books.epoch)
    write_row(rows, 9)
    assert Rows.attach(instance, "hash").window(0, 9, 1).tolist() == [[9, 9]]
    with pytest.raises(LayoutError, match="another table"):
        Rows.attach(instance, "another")
    rows.close()
    books.close()
    assert reader.retired and shm.leaked(instance) == []


def test_rows_of_another_stream_are_another_block(instance):
    first = Rows.create(instance, ["A"], ["x"], 1024, "hash", epoch=1)
    reader = Rows.attach(instance, "hash")
    import os

    os.close(first.block._lock_fd)  # as if its writer had been killed
    first.block._lock_fd = None
    second = Rows.create(instance, ["A"], ["x"], 1024, "hash", epoch=2)
    assert reader.retired and second.epoch == 2 and second.heads[0] == 0
    second.close()


def test_a_capacity_that_is_no_power_of_two_is_refused():
    with pytest.raises(ConfigError, match="power of two"):
        Books.private(["A"], 1000)
