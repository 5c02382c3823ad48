"""The report against sums done by hand, and identities that must hold for any trading."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.backtest.report import Fill, Symbol, Track, report
from common.fixed import SCALE
from common.orders import BUY, SELL

S = 10**9


def symbol(rows, name: str = "X", predictions=()) -> Symbol:
    """`rows`: (second, bid, ask) and maybe False where the book was not valid."""
    ticks = np.array([(int(row[0] * S), round(row[1] * SCALE), round(row[2] * SCALE), *(row[3:] or (1,)))
                      for row in rows], np.int64).reshape(-1, 4)
    return Symbol(name, ticks, np.array([int(at * S) for at, _ in predictions], np.int64),
                  np.array([(p, 1 - p) for _, p in predictions]).reshape(-1, 2))


def fill(side: int, qty: float, price: float, fee: float, at: float, decided: float, of: int = 0) -> Fill:
    return Fill(of, side, round(qty * SCALE), round(price * SCALE), round(fee * SCALE), int(at * S), int(decided * S))


def test_a_round_trip_by_hand():
    market = symbol([(0, 99, 101), (1, 100, 102), (2, 109, 111), (40, 109, 111)])
    told, curves = report([market], [fill(BUY, 2, 102, 0.1, 1.5, 0.5), fill(SELL, 2, 109, 0.1, 2.5, 2.2)], 3, 30.0)
    assert told["profit"]["gross"] == 14.0 and told["profit"]["net"] == pytest.approx(13.8)
    assert told["profit"]["net_1e16"] == str(138 * 10**15)
    costs = told["costs"]
    assert (costs["latency"], costs["spread"], costs["fees"]) == (2.0, 4.0, pytest.approx(0.2))
    assert costs["signal"] == pytest.approx(20.0), "bought at a mid of 100, sold at one of 110"
    assert told["trading"] == {"orders": 3, "fills": 2, "turnover": 422.0, "turnover_per_hour": 422.0 * 90,
                               "largest_position": 220.0}
    assert told["fills"]["markout_bps"]["1"]["mean"] == pytest.approx(
        (204 * (110 - 102) / 102 + 218 * (109 - 110) / 109) / 422 * 1e4)
    assert told["fills"]["slippage_bps"]["median"] == pytest.approx((200 + 1 / 110 * 1e4) / 2)
    assert told["profit"]["max_drawdown"] == pytest.approx(2.1), "a mid of 101 after paying 102, and the fee"
    assert curves.equity[-1] == pytest.approx(13.8) and told["symbols"]["X"]["position"] == 0


def test_without_fills_and_without_ticks_there_is_a_report_too():
    told, curves = report([symbol([(0, 99, 101), (1, 99, 101)]), symbol([], "Y")], [], 0, 1.0)
    assert told["profit"]["net"] == 0 and told["fills"]["hit_rate"] is None and len(curves.equity)
    assert report([symbol([])], [], 0, 1.0)[0]["trading"]["turnover"] == 0


def test_no_mid_while_the_book_is_not_valid_nor_outside_the_recording():
    track = Track(symbol([(1, 99, 101), (2, 99, 101, 0), (3, 0, 101), (4, 100, 102)]).ticks)
    found = track.at(np.array([0.5, 1, 1.5, 2.5, 3.5, 4, 5]) * S)
    assert np.isnan(found[[0, 3, 4, 6]]).all() and found[[1, 2, 5]].tolist() == [100, 100, 101]
    assert track.last() == 202 * SCALE


def test_outcomes_of_predictions_are_moves_of_the_mid_at_the_horizon():
    market = symbol([(0, 99, 101), (10, 100, 102), (20, 99, 101), (30, 99, 101)],
                    predictions=[(0, 0.9), (5, 0.9), (10, 0.2), (20, 0.5), (25, 0.5)])
    told = report([market], [], 0, 10.0)[0]["calibration"]["X"]
    assert (told["known"], told["flat"], told["unknown"], told["base_rate"]) == (4, 1, 1, pytest.approx(2 / 3))
    assert told["brier"] == pytest.approx((0.01 + 0.01 + 0.04) / 3) and told["hit_rate"] == 1.0


moves = st.lists(st.tuples(st.integers(1, 3), st.integers(90, 110), st.integers(1, 4)), min_size=2, max_size=15)
trades = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([BUY, SELL]), st.integers(1, 9), st.integers(80, 120),
                            st.integers(-3, 9), st.integers(0, 20), st.integers(0, 3)), max_size=12)


@given(moves, moves, trades)
def test_the_parts_of_a_profit_are_the_whole_and_equity_ends_there(one, other, history):
    markets = [symbol([(sum(m[0] for m in moved[:i + 1]), m[1], m[1] + m[2]) for i, m in enumerate(moved)], name)
               for moved, name in ((one, "X"), (other, "Y"))]
    end = max(int(m.ticks[-1, 0]) for m in markets)
    fills = sorted((fill(side, qty, price, fee, min(at, end / S), max(0, min(at, end / S) - delay), of)
                    for of, side, qty, price, fee, at, delay in history), key=lambda f: f.at_ns)
    told, curves = report(markets, fills, len(fills), 5.0)
    costs = told["costs"]
    assert costs["signal"] - costs["latency"] - costs["spread"] - costs["fees"] == pytest.approx(costs["net"], abs=1e-9)
    exact = sum(-f.side * f.qty * f.price - f.fee * SCALE for f in fills)
    for i, market in enumerate(markets):
        doubled = int(market.ticks[-1, 1] + market.ticks[-1, 2])
        exact += sum(f.side * f.qty for f in fills if f.symbol == i) * doubled // 2
    assert abs(int(told["profit"]["net_1e16"]) - exact) <= 2
    assert told["profit"]["net"] == pytest.approx(exact / 1e16)
    assert told["profit"]["max_drawdown"] >= -1e-9
    if all(int(m.ticks[-1, 0]) == end for m in markets):
        assert curves.equity[-1] == pytest.approx(exact / 1e16, abs=1e-6)
