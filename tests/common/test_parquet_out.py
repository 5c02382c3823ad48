"""Ticks as Parquet: every column means what it says, absent is null, and no digit is lost unnoticed."""

import json
import sys
from decimal import Decimal

import numpy as np
import pyarrow.parquet as pq
import pytest

from common.errors import ConfigError, ResourceError
from common.fixed import SCALE
from common.layout import (
    ASK_PX,
    ASK_QTY,
    BID_PX,
    BID_QTY,
    EVENT_NS,
    FLAG_RESET,
    FLAG_VALID,
    FLAGS,
    KIND,
    KIND_BOOK,
    KIND_STATE,
    KIND_TRADE,
    RECV_NS,
    SEQ,
    TICK_WIDTH,
    TRADE_PX,
    TRADE_QTY,
    VENUE_ID,
)
from common.parquet_out import GROUP, NUMBERS, ParquetFile


def ticks() -> np.ndarray:
    found = np.zeros((3, TICK_WIDTH), np.int64)
    for row, values in enumerate((
            {SEQ: 1, KIND: KIND_BOOK, FLAGS: FLAG_VALID | FLAG_RESET, VENUE_ID: 9, EVENT_NS: 5, RECV_NS: 7,
             BID_PX: 6100010000000, BID_QTY: 1, ASK_PX: 6100020000000, ASK_QTY: 150000000, ASK_PX + 9: 7 * SCALE,
             ASK_QTY + 9: SCALE},
            {SEQ: 2, KIND: KIND_TRADE, FLAGS: FLAG_VALID, RECV_NS: 8, TRADE_PX: 6100020000000, TRADE_QTY: -1},
            {SEQ: 3, KIND: KIND_STATE, RECV_NS: 9})):
        for column, value in values.items():
            found[row, column] = value
    return found


def write(path, blocks, symbols=("A", "B"), **options) -> ParquetFile:
    file = ParquetFile(path, symbols, **options)
    for owners, block in blocks:
        file.write(np.array(owners), block)
    file.close()
    return file


def test_every_column_means_what_it_says(tmp_path):
    write(tmp_path / "a.parquet", [([0, 1, 0], ticks())])
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert rows[0] == {
        "symbol": "A", "seq": 1, "kind": "book", "valid": True, "reset": True, "venue_id": 9, "event_ns": 5,
        "recv_ns": 7, **dict.fromkeys(NUMBERS), "bid_px_0": 61000.1, "bid_qty_0": 1e-8, "ask_px_0": 61000.2,
        "ask_qty_0": 1.5, "ask_px_9": 7.0, "ask_qty_9": 1.0}
    assert rows[1] == {
        "symbol": "B", "seq": 2, "kind": "trade", "valid": True, "reset": False, "venue_id": 0, "event_ns": None,
        "recv_ns": 8, **dict.fromkeys(NUMBERS), "trade_px": 61000.2, "trade_qty": -1e-8}
    assert (rows[2]["kind"], rows[2]["valid"]) == ("state", False)


def test_the_file_says_what_it_is(tmp_path):
    write(tmp_path / "a.parquet", [([0, 1, 0], ticks())], about={"venue": "vectrade"})
    write(tmp_path / "b.parquet", [([0, 1, 0], ticks())], exact=True)
    told = [json.loads(pq.read_schema(tmp_path / name).metadata[b"alpha"]) for name in ("a.parquet", "b.parquet")]
    assert told[0] == {"unit": "1", "scale": 1, "symbols": ["A", "B"], "venue": "vectrade"}
    assert told[1] == {"unit": "1e-8", "scale": SCALE, "symbols": ["A", "B"]}


def test_exact_columns_are_counts(tmp_path):
    write(tmp_path / "a.parquet", [([0, 1, 0], ticks())], exact=True)
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert rows[0]["bid_px_0"] == 6100010000000 and rows[1]["trade_qty"] == -1 and rows[2]["trade_px"] is None


def test_doubles_come_back_exactly_and_those_that_cannot_are_counted(tmp_path):
    rng = np.random.default_rng(1)
    block = np.zeros((1000, TICK_WIDTH), np.int64)
    block[:, KIND] = KIND_TRADE
    block[:, TRADE_PX] = rng.integers(1, 2**26 * SCALE, 1000)
    block[:, TRADE_QTY] = -rng.integers(1, 90_000_000_000, 1000) * SCALE  # whole numbers are exact to the end
    file = write(tmp_path / "a.parquet", [(np.zeros(1000, int), block)])
    found = pq.read_table(tmp_path / "a.parquet")
    assert file.inexact == 0 and file.rows == 1000
    for name, column in (("trade_px", TRADE_PX), ("trade_qty", TRADE_QTY)):
        assert [round(Decimal(value) * SCALE) for value in found[name].to_pylist()] == block[:, column].tolist()
    block[7, BID_QTY] = 2**62 + 1
    block[8, BID_QTY] = -(2**62 + 1)
    assert write(tmp_path / "b.parquet", [(np.zeros(1000, int), block)]).inexact == 2


def test_long_streams_are_written_in_groups_in_their_order(tmp_path):
    block = np.zeros((1000, TICK_WIDTH), np.int64)
    block[:, KIND] = KIND_BOOK
    count = 2 * GROUP // 1000 + 10
    blocks = []
    for i in range(count):
        block[:, SEQ] = np.arange(i * 1000, i * 1000 + 1000)
        blocks.append((np.full(1000, i % 2), block.copy()))
    write(tmp_path / "a.parquet", blocks)
    found = pq.ParquetFile(tmp_path / "a.parquet")
    assert found.num_row_groups == 3
    assert (found.read(["seq"])["seq"].to_numpy() == np.arange(count * 1000)).all()


def test_an_empty_file_is_a_file(tmp_path):
    write(tmp_path / "a.parquet", [])
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0


def test_nothing_is_there_until_it_is_whole_and_nothing_stays_of_what_was_abandoned(tmp_path):
    file = ParquetFile(tmp_path / "a.parquet", ("A",))
    file.write(np.array([0, 0, 0]), ticks())
    assert not (tmp_path / "a.parquet").exists()
    file.abandon()
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "a.parquet").write_text("mine")
    with pytest.raises(ConfigError, match="already"):
        ParquetFile(tmp_path / "a.parquet", ("A",))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ResourceError, match="nowhere"):
        ParquetFile(tmp_path / "nowhere" / "a.parquet", ("A",))


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"predictive-alpha\[parquet\]"):
        ParquetFile(tmp_path / "a.parquet", ("A",))
