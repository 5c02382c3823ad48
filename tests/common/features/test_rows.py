"""The writer of the rows ring: bursts of any size, restarts, and rings that belong together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import layout
from common.errors import LayoutError
from common.features.choice import DEFAULT
from common.features.rows import Features
from common.ring import Books, Rows
from tests.feature_ticks import Pipe, matrix, random_ticks


@pytest.mark.parametrize("died_at", [700, 1500, 3000])
def test_a_restarted_process_continues_bit_for_bit(died_at):
    ticks = random_ticks(3100)
    expected = matrix(ticks)
    before = Pipe(1024)
    before.pass_on(ticks[:died_at])
    before.publish(ticks[died_at:died_at + 40])  # while it was down
    after = Pipe(1024, before.rows, before.books)
    after.features.rebuild(0, int(before.rows.heads[0]))
    assert after.features.last(0) == died_at and after.features.lost(0) == 0
    assert after.features.advance(0, died_at + 40, 0) == 40
    for seq in range(died_at + 1, died_at + 41):
        assert after.row(seq).tobytes() == expected[seq - 1].tobytes()
        assert after.meta(seq, layout.ROW_RUN) >= min(died_at, 1024 - 40) - DEFAULT.warm_up
    assert int(after.rows.heads[0]) == died_at + 40


def test_a_row_that_its_writer_did_not_finish_is_written_again():
    ticks = random_ticks(800)
    before = Pipe()
    before.pass_on(ticks)
    whole = before.row(800)
    before.rows.meta[0][800 & 1023, layout.ROW_SEQ] = 0  # killed between the row and its stamp
    before.rows.values[0][800] = np.nan
    before.rows.heads[0] = 799
    after = Pipe(1024, before.rows, before.books)
    after.features.rebuild(0, 799)
    after.features.advance(0, 800, 0)
    assert after.row(800).tobytes() == whole.tobytes()


def test_after_a_long_absence_the_run_begins_again():
    ticks = random_ticks(3000)
    before = Pipe(1024)
    before.pass_on(ticks[:600])
    before.publish(ticks[600:])
    after = Pipe(1024, before.rows, before.books)
    after.features.rebuild(0, 600)
    assert after.features.advance(0, 3000, 0) == 1024
    assert after.features.lost(0) == 3000 - 600 - 1024
    assert after.meta(3000, layout.ROW_RUN) == 1024 - DEFAULT.warm_up + 1
    assert after.row(3000).tobytes() == matrix(ticks[-1024:])[-1].tobytes()


def test_a_start_in_the_middle_of_a_stream_takes_what_the_ring_still_holds():
    pipe = Pipe(1024)
    pipe.publish(random_ticks(2000))
    assert pipe.features.advance(0, 2000, 0) == 1024
    assert pipe.features.lost(0) == 0


@settings(max_examples=25)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=12))
def test_any_cut_into_bursts_gives_the_same_bits(sizes):
    ticks = random_ticks(700)
    pipe = Pipe()
    for end in np.minimum(np.cumsum(sizes), len(ticks)):
        pipe.publish(ticks[int(pipe.books.heads[0]):end])
        pipe.features.advance(0, int(end), 0)
    written = int(pipe.rows.heads[0])
    assert pipe.rows.values[0][1:written + 1].tobytes() == matrix(ticks)[:written].tobytes()


@pytest.mark.parametrize("symbols, columns", [
    (("Y",), DEFAULT.names), (("X",), DEFAULT.names[:-1]), (("X",), DEFAULT.names[::-1])])
def test_rings_that_do_not_belong_together_are_refused(symbols, columns):
    with pytest.raises(LayoutError, match="not made for these"):
        Features(Books.private(("X",), 16), Rows.private(symbols, columns, 16))
