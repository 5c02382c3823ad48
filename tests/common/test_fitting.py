"""Fitted numbers: what the papers' formulas give, on books made by a known rule and on recorded ones."""

import numpy as np
import pytest

from common import fitting
from common.collect import Collector, joined, sources, stream, timeline
from common.errors import ConfigError
from common.features.choice import FeatureSet
from common.fitting import IMBALANCES, Seen, integrated_ofi, micro_price, vpin
from common.layout import KIND_BOOK, KIND_TRADE

SCALE = 10**8


def seen(count: int, **changes) -> Seen:
    """A book that does not move, without trades."""
    parts = dict(symbol="A", values={}, run=np.arange(count), seq=np.arange(count), time_ns=np.arange(count) * 10**9,
                 bid=np.full(count, 100 * SCALE), ask=np.full(count, 101 * SCALE),
                 ticks=np.tile(np.array([KIND_BOOK, 0, SCALE, SCALE]), (count, 1)))
    return Seen(**(parts | changes))


def table(numbers: list[float]) -> tuple[int, np.ndarray]:
    tick, imbalances, spreads = map(int, numbers[:3])
    assert imbalances == IMBALANCES and len(numbers) == 3 + imbalances * spreads
    return tick, np.array(numbers[3:]).reshape(imbalances, spreads)


# ---- the micro-price


def walk(count: int = 60_000, tick: int = 5) -> Seen:
    """The imbalance wanders over its buckets; the price moves a tick the way it leans, with a chance that grows with
    it, and the imbalance is drawn anew: so g* is what one move is worth, times what follows, which is nothing."""
    random = np.random.default_rng(3)
    bucket, mid = 0, 20_000 * tick
    buckets, mids = [], []
    for _ in range(count):
        buckets.append(bucket), mids.append(mid)
        lean = (bucket + 0.5) / IMBALANCES
        if random.random() < 0.2:
            mid += tick if random.random() < lean else -tick
            bucket = int(random.integers(IMBALANCES))
    share = (np.array(buckets) + 0.5) / IMBALANCES
    ticks = np.zeros((count, 4), np.int64)
    ticks[:, 0], ticks[:, 2], ticks[:, 3] = KIND_BOOK, np.rint(share * 1000), np.rint((1 - share) * 1000)
    mids = np.array(mids)
    return seen(count, bid=mids * SCALE, ask=(mids + tick) * SCALE, ticks=ticks)


def test_the_limit_is_known_where_every_move_makes_the_imbalance_anew():
    """Then B leads to a state of expectation 0, so g* = G1 = P(up) - P(down) = 2 lean - 1 ticks."""
    tick, g = table(micro_price(walk()))
    assert tick == 5 * SCALE and g.shape == (IMBALANCES, 1)
    assert g[:, 0] == pytest.approx(2 * (np.arange(IMBALANCES) + 0.5) / IMBALANCES - 1, abs=0.08)


def test_it_is_the_sum_of_its_series():
    """g* as the paper sums it, term by term, from matrices counted by loops."""
    data = walk(6000)
    tick, g = table(micro_price(data))
    mids = (data.bid + data.ask) // 2
    stay, gone, moved = np.zeros((10, 10)), np.zeros((10, 10)), np.zeros(10)
    state = np.minimum(data.ticks[:, 2] * 10 // (data.ticks[:, 2] + data.ticks[:, 3]), 9)
    for mirror in (False, True):
        for n in range(len(mids) - 1):
            x, y, change = int(state[n]), int(state[n + 1]), (mids[n + 1] - mids[n]) / tick
            if mirror:
                x, y, change = 9 - x, 9 - y, -change
            (gone if change else stay)[x, y] += 1
            moved[x] += change
    visits = (stay + gone).sum(axis=1)
    inverse = np.linalg.inv(np.eye(10) - stay / visits[:, None])
    term, total = inverse @ (moved / visits), np.zeros(10)
    for _ in range(200):
        total += term
        term = inverse @ (gone / visits[:, None]) @ term
    assert g[:, 0] == pytest.approx(total, abs=1e-6) and np.abs(term).max() < 1e-9


@pytest.fixture(scope="module")
def bitcoin(recordings) -> Seen:
    found = sources([recordings / "binance" / f"usdm_btcusdt_{day}.gz" for day in (20240718, 20240719)])
    collector = Collector(found[0].symbols, FeatureSet.of(("spread",)), fitting.TICK_COLUMNS)
    part = joined([collector.take(0, block) for _, block in stream(found, found[0].symbols)])
    time_ns = timeline(part.event_ns, part.recv_ns)
    return Seen("BTCUSDT", {}, part.run, part.seq, time_ns, part.bid, part.ask, part.ticks)


def cut(data: Seen, rows: slice) -> Seen:
    return data._replace(**{name: getattr(data, name)[rows] for name in (
        "run", "seq", "time_ns", "bid", "ask", "ticks")})


def test_it_is_antisymmetric_and_grows_with_the_imbalance_on_recorded_books(bitcoin):
    tick, g = table(micro_price(bitcoin))
    assert tick == SCALE // 10
    assert g == pytest.approx(-g[::-1], abs=1e-12) and np.isfinite(g).all()
    assert (np.diff(g[:, 0]) > 0).all()


def test_it_tells_later_moves_of_the_mid_better_than_nothing_and_than_the_weighted_mid(bitcoin):
    """Fitted on the first 60 %, looked at on the rest: squared error of the move over 100 ticks."""
    border, ahead = len(bitcoin.bid) * 6 // 10, 100
    tick, g = table(micro_price(cut(bitcoin, slice(0, border))))
    later = cut(bitcoin, slice(border, None))
    bid, ask, bid_qty, ask_qty = (column.astype(float) for column in (
        later.bid, later.ask, later.ticks[:, 2], later.ticks[:, 3]))
    mid = (bid + ask) / 2
    imbalance = np.minimum((bid_qty / (bid_qty + ask_qty) * IMBALANCES).astype(int), IMBALANCES - 1)
    spread = np.clip(np.rint((ask - bid) / tick).astype(int), 1, g.shape[1]) - 1
    fitted = g[imbalance, spread] * tick
    weighted = (bid * ask_qty + ask * bid_qty) / (bid_qty + ask_qty) - mid
    move = mid[ahead:] - mid[:-ahead]
    nothing, plain, ours = (np.mean((move - guess[:-ahead]) ** 2) for guess in (0 * mid, weighted, fitted))
    assert ours < 0.85 * nothing and ours < 0.85 * plain


def test_holes_are_no_moves():
    """Where the book was lost and found elsewhere, no move is counted."""
    data = walk(4000)
    seq = np.arange(4000) + (np.arange(4000) >= 2000)
    jump = np.where(np.arange(4000) >= 2000, 1000 * 5 * SCALE, 0)
    broken = micro_price(data._replace(seq=seq, bid=data.bid + jump, ask=data.ask + jump))
    assert broken == pytest.approx(micro_price(data._replace(seq=seq)))
    assert micro_price(data._replace(bid=data.bid + jump, ask=data.ask + jump)) != pytest.approx(broken)


# ---- the others


def test_weights_are_the_first_component():
    random = np.random.default_rng(0)
    truth = np.linspace(1.0, 0.1, 10)
    flows = random.normal(size=(20_000, 1)) * -truth + 0.05 * random.normal(size=(20_000, 10))
    values = {f"ofi_level_{k + 1}": flows[:, k].astype(np.float32) for k in range(10)}
    weights = integrated_ofi(seen(20_000, values=values, run=np.full(20_000, 1)))
    assert weights == pytest.approx(truth / truth.sum(), abs=2e-3) and sum(map(abs, weights)) == pytest.approx(1)
    cold = integrated_ofi(seen(20_000, values={**values, "ofi_level_1": values["ofi_level_1"] * 50},
                               run=np.arange(20_000) // 15_000))
    warm = integrated_ofi(seen(5000, values={name: column[15_000:] * (50 if name.endswith("_1") else 1)
                                             for name, column in values.items()}, run=np.full(5000, 1)))
    assert cold == pytest.approx(warm)  # rows that are not warm are not looked at


def test_a_bucket_is_what_is_traded_in_a_fiftieth_of_a_day_or_of_a_fifth_of_the_span():
    trades = np.tile(np.array([[KIND_TRADE, -3 * SCALE, 1, 1], [KIND_BOOK, 7 * SCALE, 1, 1]]), (500, 1))
    assert vpin(seen(1000, ticks=trades)) == [500 * 3 * SCALE / 5 / 50]
    days = seen(1000, ticks=trades, time_ns=np.linspace(0, 10 * 86_400 * 10**9, 1000).astype(np.int64))
    assert vpin(days) == [500 * 3 * SCALE / 10 / 50]
    with pytest.raises(ConfigError, match="vpin_50 of A: no trade"):
        vpin(seen(10))


@pytest.mark.parametrize("fit, what", [(integrated_ofi, "integrated_ofi_100 of A: 1 warm"),
                                       (micro_price, "micro_price_fitted of A: 2 rows")])
def test_too_little_to_fit_on_is_refused(fit, what):
    values = {f"ofi_level_{k + 1}": np.zeros(2, np.float32) for k in range(10)}
    with pytest.raises(ConfigError, match=what):
        fit(seen(2, values=values))


def test_a_book_that_never_moves_has_nothing_to_expect():
    numbers = micro_price(seen(1000))
    assert numbers[:3] == [SCALE, IMBALANCES, 1] and not any(numbers[3:])
