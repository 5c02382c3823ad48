"""Pictures: what is gathered for them is what the recording has, in bounded memory, and they are really drawn."""

import sys

import numpy as np
import pytest

from common import capture_plot, captures, venues
from common.capture_lines import Connect, Disconnect, encode
from common.capture_plot import COLUMNS, KEPT_TRADES, Series, check, draw
from common.errors import ConfigError
from common.verify import Judge
from tests.frames import delta, snapshot, trade

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def gathered(lines, symbols=("A",), symbol: int = 0, **limits) -> Series:
    judge = Judge(venues.create("vectrade", symbols))
    series = Series(judge, symbol, **limits)
    for number, (recv_ns, frame) in enumerate(lines, 1):
        judge.line(recv_ns, frame, "file", number)
        series.look(recv_ns)
    series.close()
    return series


def walk(count: int, step_ns: int = SECOND // 10) -> list[tuple[int, bytes]]:
    """A book whose best bid goes from 1 up, and a trade after each change."""
    lines = [(START, snapshot("A", 1, [(10, 1)], [(1000, 1)]))]
    for i in range(2, count + 2):
        lines.append((START + i * step_ns, delta("A", i, [(round(10 + i * 900 / count, 2), 2)])))
        lines.append((START + i * step_ns, trade("A", i, 500, i)))
    return lines


def pixels(path) -> np.ndarray:
    from matplotlib.image import imread

    return imread(path)


def test_columns_hold_the_last_book_and_the_extremes_of_their_time():
    series = gathered([(START, snapshot("A", 1)), (START + 1, delta("A", 2, [(100, 1)])),
                       (START + 2, delta("A", 3, [(100, 0)], [(102, 3)]))])
    (column,) = series.columns
    assert (column.low, column.high, column.bid, column.ask, column.count) == (99, 101, 99, 101, 3)
    assert column.spread / column.count == pytest.approx((2 + 1 + 2) / 3)
    levels, bids = column.depth
    assert levels.tolist() == [[99, 1], [101, 1], [102, 3]] and bids == 1


def test_the_number_of_columns_is_bounded_and_nothing_of_the_extremes_is_lost():
    series = gathered(walk(9 * COLUMNS))
    assert COLUMNS <= len(series.columns) <= 2 * COLUMNS
    assert all(b.at_ns - a.at_ns >= series.step_ns for a, b in zip(series.columns, series.columns[1:]))
    assert min(column.low for column in series.columns) == 10
    assert max(column.high for column in series.columns) == 1000
    assert sum(column.count for column in series.columns) == 2 * 9 * COLUMNS + 1, "one of each tick"
    assert all(column.depth is not None for column in series.columns)


def test_a_long_quiet_recording_has_no_more_columns_than_a_busy_one():
    series = gathered([(START + i * 3600 * SECOND, snapshot("A", i)) for i in range(1, 10)])
    assert series.step_ns * 2 * COLUMNS >= 8 * 3600 * SECOND and len(series.columns) == 9


def test_of_many_trades_the_largest_are_kept():
    lines = [(START, snapshot("A", 1))] + [(START + i, trade("A", i, 100, 1 + i % 1000)) for i in range(1, 50_001)]
    series = gathered(lines)
    assert series.trades_seen == 50_000 and KEPT_TRADES <= len(series.trades) <= 2 * KEPT_TRADES
    assert sum(quantity == 1000 for _, _, quantity in series.trades) == 50


def test_only_what_lies_between_the_limits_and_is_of_the_symbol_is_looked_at():
    lines = [(START, snapshot("A", 1)), (START, snapshot("B", 1)), (START + SECOND, trade("A", 1)),
             (START + 2 * SECOND, trade("B", 1)), (START + 2 * SECOND, trade("A", 2)),
             (START + 3 * SECOND, trade("A", 3))]
    series = gathered(lines, ("A", "B"), from_ns=START + 2 * SECOND, to_ns=START + 2 * SECOND)
    assert [recv_ns for recv_ns, _, _ in series.trades] == [START + 2 * SECOND]


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.pdf"])
def test_a_picture_is_drawn_with_gaps_and_spells(tmp_path, name):
    pytest.importorskip("matplotlib")
    lines = walk(200)
    lines += [(START + 30 * SECOND, delta("A", 900)), (START + 35 * SECOND, snapshot("A", 901)),
              (START + 40 * SECOND, encode(Disconnect("gone"))), (START + 42 * SECOND, encode(Connect(""))),
              (START + 43 * SECOND, snapshot("A", 1)), (START + 44 * SECOND, delta("A", 2))]
    series = gathered(lines)
    draw(series, series.judge.report(), tmp_path / name)
    assert (tmp_path / name).stat().st_size > 10_000
    if name.endswith(".svg"):
        text = (tmp_path / name).read_text()
        for words in ("verdict: flawed", "gaps: 1", "A on vectrade", "UTC", "spread (bps)", "book not valid",
                      "no book: none yet, disconnected"):
            assert f"<!-- {words}" in text or words in text


def test_spells_without_a_book_are_shaded_and_a_line_is_not_drawn_across_them():
    lines = walk(20) + [(START + 5 * SECOND, delta("A", 900)), (START + 9 * SECOND, snapshot("A", 901)),
                        (START + 10 * SECOND, delta("A", 902))]
    series = gathered(lines)
    series.judge.report()
    first, second = capture_plot._split(series)
    assert first[-1].at_ns < START + 5 * SECOND < START + 9 * SECOND <= second[0].at_ns + series.step_ns
    assert [spell.cause for spell in capture_plot._spells(series)] == ["gap"]
    times = np.array([START + SECOND, START + 7 * SECOND, START + 10 * SECOND])
    assert capture_plot._valid(series, times).tolist() == [True, False, True]
    assert capture_plot._gaps(series) == [START + 5 * SECOND]


@pytest.mark.parametrize("lines", [
    [(START, snapshot("A", 1))],
    [(START, snapshot("A", 1, [], []))] + [(START + 5, trade("A", 7))],
    [(START, snapshot("A", 1, [(99, 1)], [(99.00000001, 1)]))],
    [(START, snapshot("A", 1, [(1e-8, 1)], [(9e10, 1)])), (START + SECOND, delta("A", 2, [(2e-8, 9e10)]))]])
def test_degenerate_recordings_are_drawn_too(tmp_path, lines):
    pytest.importorskip("matplotlib")
    lines = [(at, frame.replace(b"1e-08", b"0.00000001").replace(b"2e-08", b"0.00000002")) for at, frame in lines]
    series = gathered(lines)
    draw(series, series.judge.report(), tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").shape == (1100, 1540, 4)


def test_what_cannot_be_drawn_is_refused_with_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no known kind.*png"):
        check(tmp_path / "a.bmp")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ConfigError, match=r"matplotlib.*pip install 'predictive-alpha\[plot\]'"):
            check(tmp_path / "a.png")
    pytest.importorskip("matplotlib")
    empty = gathered([(START, b"{}")])
    with pytest.raises(ConfigError, match="nothing to draw.*symbol=A"):
        draw(empty, empty.judge.report(), tmp_path / "a.png")
    series = gathered(walk(3))
    with pytest.raises(ConfigError, match="cannot write the picture"):
        draw(series, series.judge.report(), tmp_path / "nowhere" / "a.png")


def test_a_recording_of_binance_is_drawn_and_all_of_the_picture_is_used(recordings, tmp_path):
    pytest.importorskip("matplotlib")
    paths = [recordings / "binance" / "usdm_btcusdt_20240718.gz"]
    judge = Judge(venues.create(*captures.describe(paths)))
    series = Series(judge, 0)
    for number, (recv_ns, line) in enumerate(captures.tape(paths), 1):
        judge.line(recv_ns, line, "file", number)
        series.look(recv_ns)
    series.close()
    assert len(series.trades) == series.trades_seen == 974
    draw(series, judge.report(), tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")[..., :3]
    dark = (image.sum(axis=2) < 2.0).mean(axis=1)
    assert dark[650:1000].mean() > 0.3, "the heat map fills its panel"
