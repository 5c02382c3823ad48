"""Layout: columns do not overlap, and fit their records."""

from common import layout


def test_the_columns_of_a_tick_are_apart_and_fill_seven_cache_lines():
    scalar = [layout.SEQ, layout.KIND, layout.FLAGS, layout.VENUE_ID, layout.EVENT_NS, layout.RECV_NS, layout.BOOK_NS,
              layout.TRADE_PX, layout.TRADE_QTY]
    blocks = [column + level for column in (layout.BID_PX, layout.BID_QTY, layout.ASK_PX, layout.ASK_QTY)
              for level in range(layout.LEVELS)]
    assert len(set(scalar + blocks)) == len(scalar) + 4 * layout.LEVELS
    assert max(blocks) + 1 == layout.TICK_WIDTH and layout.TICK_WIDTH * 8 == 7 * 64


def test_the_columns_of_a_row_are_apart_and_fill_two_cache_lines():
    columns = [value for name, value in vars(layout).items() if name.startswith("ROW_")]
    assert sorted(columns) == list(range(len(columns))) and layout.META_WIDTH * 8 == 2 * 64
    assert len(columns) <= layout.META_WIDTH


def test_the_stamp_is_the_first_column_of_both():
    assert layout.SEQ == layout.ROW_SEQ == 0
