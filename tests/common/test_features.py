"""Each feature against a plain NumPy reference on recorded data, and what holds for all of them.

The ticks come from a recorded Binance file through a book made of dictionaries, written here and sharing nothing
with the code under test.
"""

import gzip
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import feature_kernel, fixed, layout
from common.feature_kernel import Column
from common.features import COLUMNS, FEATURES, SCHEMA_HASH, WARM_UP, Feature, Features, column, schema_hash
from common.ring import Books, Rows

MS = 1_000_000
BEGIN_NS = 1_700_000_000_000 * MS


# From a recording to ticks.

@pytest.fixture(scope="module")
def ticks(recordings) -> np.ndarray:
    """int64[N, TICK_WIDTH] of recorded book changes and trades; tick n at index n - 1."""
    events = []
    snapshot = None
    with gzip.open(recordings / "binance" / "usdm_btcusdt_20240718.gz", "rt") as lines:
        for line in lines:
            message = json.loads(line.split(" ", 1)[1])
            if "stream" not in message:
                snapshot = message
            elif "@depth" in message["stream"] or "@trade" in message["stream"]:
                events.append(message["data"])
    bids = {fixed.parse(p): fixed.parse(q) for p, q in snapshot["bids"]}
    asks = {fixed.parse(p): fixed.parse(q) for p, q in snapshot["asks"]}
    found = []
    for data in events:
        if data["e"] == "depthUpdate":
            if data["u"] < snapshot["lastUpdateId"]:
                continue
            for side, changes in ((bids, data["b"]), (asks, data["a"])):
                for price, quantity in changes:
                    side[fixed.parse(price)] = fixed.parse(quantity)
                    if not side[fixed.parse(price)]:
                        del side[fixed.parse(price)]
        elif not found:
            continue
        best = sorted(bids, reverse=True)[:10], sorted(asks)[:10]
        tick = make_tick(len(found) + 1, [(p, bids[p]) for p in best[0]], [(p, asks[p]) for p in best[1]],
                         event_ns=data["T"] * MS)
        if data["e"] == "trade":
            tick[layout.KIND] = layout.KIND_TRADE
            tick[layout.TRADE_PX] = fixed.parse(data["p"])
            tick[layout.TRADE_QTY] = fixed.parse(data["q"]) * (-1 if data["m"] else 1)
        found.append(tick)
    return np.array(found)


def make_tick(seq: int, bids: list, asks: list, *, flags: int = layout.FLAG_VALID, traded: int = 0,
              event_ns: int | None = None) -> np.ndarray:
    tick = np.zeros(layout.TICK_WIDTH, np.int64)
    tick[layout.SEQ], tick[layout.FLAGS] = seq, flags
    tick[layout.KIND] = layout.KIND_TRADE if traded else layout.KIND_BOOK
    tick[layout.TRADE_QTY] = traded
    tick[layout.VENUE_ID] = seq + 1000
    tick[layout.EVENT_NS] = BEGIN_NS + 10 * MS * seq if event_ns is None else event_ns
    tick[layout.RECV_NS], tick[layout.BOOK_NS] = seq + 1, seq + 2
    for start, levels in ((layout.BID_PX, bids), (layout.ASK_PX, asks)):
        for i, (price, quantity) in enumerate(levels):
            tick[start + i], tick[start + layout.LEVELS + i] = price, quantity
    return tick


def random_ticks(count: int, seed: int = 1) -> np.ndarray:
    """A walk of books with every kind of tick in it: trades, one-sided and empty books."""
    random = np.random.default_rng(seed)
    found, price = [], 6_000_000
    for seq in range(1, count + 1):
        price += int(random.integers(-1, 2))
        bids = [((price - i) * 10**6, int(random.integers(1, 10**10))) for i in range(10)]
        asks = [((price + 1 + i) * 10**6, int(random.integers(1, 10**10))) for i in range(10)]
        traded = int(random.integers(-10**9, 10**9)) if random.random() < 0.2 else 0
        kept_bids, kept_asks = random.choice([0, 10], 2, p=[0.02, 0.98])
        found.append(make_tick(seq, bids[:kept_bids], asks[:kept_asks], traded=traded))
    return np.array(found)


class Pipe:
    """A books ring, a rows ring and the features between them."""

    def __init__(self, capacity: int = 1024, rows: Rows | None = None, books: Books | None = None) -> None:
        self.books = books or Books.private(("X",), capacity)
        self.rows = rows or Rows.private(("X",), COLUMNS, capacity)
        self.features = Features(self.books, self.rows)

    def publish(self, ticks: np.ndarray) -> None:
        for tick in ticks:
            self.books.ticks[0][tick[layout.SEQ] & (self.books.capacity - 1)] = tick
            self.books.heads[0] = tick[layout.SEQ]

    def pass_on(self, ticks: np.ndarray, step: int = 256) -> None:
        """Publish `ticks` and advance after each `step` of them."""
        for start in range(0, len(ticks), step):
            self.publish(ticks[start:start + step])
            self.features.advance(0, int(self.books.heads[0]), 0)

    def row(self, seq: int) -> np.ndarray:
        assert self.rows.meta[0][seq & (self.rows.capacity - 1), layout.ROW_SEQ] == seq
        return self.rows.values[0][seq & (self.rows.capacity - 1)].copy()

    def meta(self, seq: int, name: int) -> int:
        return int(self.rows.meta[0][seq & (self.rows.capacity - 1), name])


def matrix(ticks: np.ndarray, step: int = 256) -> np.ndarray:
    """The rows of `ticks` (numbered on from the first), passed on `step` at a time."""
    capacity = 1 << (len(ticks) + step).bit_length()
    pipe = Pipe(capacity)
    renumbered = ticks.copy()
    renumbered[:, layout.SEQ] = np.arange(1, len(ticks) + 1)
    pipe.pass_on(renumbered, step)
    return pipe.rows.values[0][1:len(ticks) + 1].copy()


# The references: the formulas of the table, written out over whole columns of floats.

class Levels:
    """The columns of `ticks` as floats, as the formulas name them; level i at index i - 1."""

    def __init__(self, ticks: np.ndarray) -> None:
        def take(first: int) -> np.ndarray:
            return ticks[:, first:first + layout.LEVELS].astype(float)

        self.Pb, self.Qb, self.Pa, self.Qa = map(take, (
            layout.BID_PX, layout.BID_QTY, layout.ASK_PX, layout.ASK_QTY))
        self.mid = (self.Pb[:, 0] + self.Pa[:, 0]) / 2
        self.two_sided = (self.Qb[:, 0] > 0) & (self.Qa[:, 0] > 0)
        self.time = ticks[:, layout.EVENT_NS]
        self.x = np.where(ticks[:, layout.KIND] == layout.KIND_TRADE, ticks[:, layout.TRADE_QTY], 0).astype(float)

    def depths(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self.Qb[:, :k].sum(1), self.Qa[:, :k].sum(1)


def quotient(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole != 0)


def last(k: int, values: np.ndarray) -> np.ndarray:
    """sum_k: over the last k ticks, fewer at the beginning."""
    padded = np.concatenate([np.zeros(k), values])
    return np.lib.stride_tricks.sliding_window_view(padded, k)[1:].sum(1)


def obi(b: Levels, k: int) -> np.ndarray:
    bid, ask = b.depths(k)
    return quotient(bid - ask, bid + ask)


def in_bps_of_mid(b: Levels, value: np.ndarray) -> np.ndarray:
    return 1e4 * quotient(np.where(b.two_sided, value, 0.0), b.mid)


def mean_prices(b: Levels) -> tuple[np.ndarray, np.ndarray]:
    """vb - mid and va - mid over 5 levels."""
    return tuple(quotient((quantity[:, :5] * (price[:, :5] - b.mid[:, None])).sum(1), quantity[:, :5].sum(1))
                 for price, quantity in ((b.Pb, b.Qb), (b.Pa, b.Qa)))


def weighted_mid(b: Levels) -> np.ndarray:
    pb, qb, pa, qa = b.Pb[:, 0] - b.mid, b.Qb[:, 0], b.Pa[:, 0] - b.mid, b.Qa[:, 0]
    return in_bps_of_mid(b, quotient(pb * qa + pa * qb, qa + qb))


def micro_price(b: Levels) -> np.ndarray:
    (bid, ask), (vb, va) = b.depths(5), mean_prices(b)
    return in_bps_of_mid(b, quotient(ask * vb + bid * va, ask + bid))


def log_return(b: Levels) -> np.ndarray:
    r = np.zeros(len(b.mid))
    defined = b.two_sided[1:] & b.two_sided[:-1]
    r[1:][defined] = np.log(b.mid[1:][defined] / b.mid[:-1][defined])
    return r


def volatility(b: Levels, k: int) -> np.ndarray:
    return 1e4 * np.sqrt(last(k, np.minimum(log_return(b)**2, 2.0**-10)) / k)


def order_flow(b: Levels) -> np.ndarray:
    pb, pa = np.where(b.Qb[:, 0] > 0, b.Pb[:, 0], -np.inf), np.where(b.Qa[:, 0] > 0, b.Pa[:, 0], np.inf)
    qb, qa = b.Qb[:, 0], b.Qa[:, 0]
    e = np.zeros(len(pb))
    e[1:] = ((pb[1:] >= pb[:-1]) * qb[1:] - (pb[1:] <= pb[:-1]) * qb[:-1]
             - (pa[1:] <= pa[:-1]) * qa[1:] + (pa[1:] >= pa[:-1]) * qa[:-1])
    return e


def ofi(b: Levels, k: int) -> np.ndarray:
    return quotient(last(k, order_flow(b)), last(100, (b.Qb[:, 0] + b.Qa[:, 0]) / 2) / 100)


def trade_imbalance(b: Levels, k: int) -> np.ndarray:
    return quotient(last(k, b.x), last(k, np.abs(b.x)))


def trade_age(b: Levels) -> np.ndarray:
    age = np.full(len(b.x), 60.0)
    for n in range(len(age)):
        trades = np.flatnonzero(b.x[max(0, n - 249):n + 1])
        if len(trades):
            age[n] = np.clip((b.time[n] - b.time[max(0, n - 249) + trades[-1]]) / 1e9, 0, 60)
    return age


def front_tilt(b: Levels) -> np.ndarray:
    bid, ask = b.depths(5)
    return quotient(b.Qb[:, 0], bid) - quotient(b.Qa[:, 0], ask)


def depth_250(b: Levels) -> np.ndarray:
    depth = sum(b.depths(5))
    return np.log(np.where(depth > 0, quotient(depth, last(250, depth) / 250), 1.0))


REFERENCES: dict[str, Callable[[Levels], np.ndarray]] = {
    "obi_1": lambda b: obi(b, 1),
    "obi_3": lambda b: obi(b, 3),
    "obi_5": lambda b: obi(b, 5),
    "obi_10": lambda b: obi(b, 10),
    "weighted_mid": weighted_mid,
    "micro_price": micro_price,
    "spread": lambda b: in_bps_of_mid(b, b.Pa[:, 0] - b.Pb[:, 0]),
    "micro_spread": lambda b: in_bps_of_mid(b, mean_prices(b)[1] - mean_prices(b)[0]),
    "return_1": lambda b: 1e4 * log_return(b),
    "return_10": lambda b: 1e4 * last(10, log_return(b)),
    "return_50": lambda b: 1e4 * last(50, log_return(b)),
    "return_200": lambda b: 1e4 * last(200, log_return(b)),
    "vol_20": lambda b: volatility(b, 20),
    "vol_100": lambda b: volatility(b, 100),
    "vol_250": lambda b: volatility(b, 250),
    "ofi_1": lambda b: ofi(b, 1),
    "ofi_20": lambda b: ofi(b, 20),
    "ofi_100": lambda b: ofi(b, 100),
    "trade_imbalance_20": lambda b: trade_imbalance(b, 20),
    "trade_imbalance_100": lambda b: trade_imbalance(b, 100),
    "trade_imbalance_250": lambda b: trade_imbalance(b, 250),
    "trade_age": trade_age,
    "front_tilt": front_tilt,
    "depth_250": depth_250,
}

each_feature = pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)


@pytest.fixture(scope="module")
def recorded(ticks) -> tuple[Levels, np.ndarray]:
    return Levels(ticks), matrix(ticks)


@each_feature
def test_a_feature_equals_its_plain_reference_on_recorded_data(feature: Feature, recorded):
    levels, found = recorded
    assert len(found) > 4000
    expected = REFERENCES[feature.name](levels)
    values = found[:, column(feature.name)]
    assert np.ptp(values) > 0
    np.testing.assert_allclose(values, expected, rtol=3e-6, atol=1e-7 * np.abs(expected).max())


@each_feature
def test_a_feature_equals_its_plain_reference_where_sides_are_absent(feature: Feature):
    ticks = random_ticks(1500)
    expected = REFERENCES[feature.name](Levels(ticks))
    values = matrix(ticks)[:, column(feature.name)]
    np.testing.assert_allclose(values, expected, rtol=3e-6, atol=1e-7 * np.abs(expected).max())


@each_feature
def test_a_feature_depends_on_no_tick_before_its_warm_up(feature: Feature, ticks, recorded):
    start = 1000
    later = matrix(ticks[start:start + 1200])[:, column(feature.name)]
    whole = recorded[1][start:start + 1200, column(feature.name)]
    np.testing.assert_array_equal(later[feature.warm_up - 1:], whole[feature.warm_up - 1:])
    assert feature.warm_up <= WARM_UP and feature.window_ticks < feature_kernel.HISTORY


def test_the_table_has_a_reference_for_each_column_and_the_kernel_computes_each():
    assert len(COLUMNS) == len(set(COLUMNS)) == 24
    assert set(COLUMNS) == set(REFERENCES) == set(Column.__members__)
    with pytest.raises(ValueError, match="obi_7"):
        feature_kernel.build((*COLUMNS[1:], "obi_7"), WARM_UP, SCHEMA_HASH)


def test_the_schema_hash_changes_with_every_entry_of_the_table():
    hashes = {SCHEMA_HASH, schema_hash(FEATURES[::-1]), schema_hash(FEATURES[:-1])}
    for name in Feature._fields:
        value = getattr(FEATURES[3], name)
        changed = FEATURES[3]._replace(**{name: value + 1 if isinstance(value, int) else value + "'"})
        hashes.add(schema_hash((*FEATURES[:3], changed, *FEATURES[4:])))
    assert len(hashes) == 3 + len(Feature._fields)


# The same bits, however the ticks arrive.

def test_tick_by_tick_and_in_bulk_give_the_same_bits(ticks, recorded):
    assert matrix(ticks[:1500], step=1).tobytes() == recorded[1][:1500].tobytes()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=12))
def test_any_cut_into_bursts_gives_the_same_bits(sizes):
    ticks = random_ticks(700)
    pipe = Pipe()
    for end in np.minimum(np.cumsum(sizes), len(ticks)):
        pipe.publish(ticks[int(pipe.books.heads[0]):end])
        pipe.features.advance(0, int(end), 0)
    written = int(pipe.rows.heads[0])
    assert pipe.rows.values[0][1:written + 1].tobytes() == matrix(ticks)[:written].tobytes()


def test_a_prefix_of_the_ticks_gives_a_prefix_of_the_matrix(ticks, recorded):
    for length in (1, 2, 20, 501, 1777):
        assert matrix(ticks[:length]).tobytes() == recorded[1][:length].tobytes()


def test_receive_times_and_the_clock_change_no_feature():
    ticks = random_ticks(300)
    later = ticks.copy()
    later[:, [layout.RECV_NS, layout.BOOK_NS]] += 12345
    one, other = Pipe(), Pipe()
    one.publish(ticks)
    other.publish(later)
    one.features.advance(0, 300, 1)
    other.features.advance(0, 300, 99)
    assert one.rows.values[0].tobytes() == other.rows.values[0].tobytes()


# Restarts.

@pytest.mark.parametrize("died_at", [700, 1500, 3000])
def test_a_restarted_process_continues_bit_for_bit(died_at, recorded, ticks):
    before = Pipe(1024)
    before.pass_on(ticks[:died_at])
    before.publish(ticks[died_at:died_at + 40])  # while it was down
    after = Pipe(1024, before.rows, before.books)
    after.features.rebuild(0, int(before.rows.heads[0]))
    assert after.features.last(0) == died_at and after.features.lost(0) == 0
    assert after.features.advance(0, died_at + 40, 0) == 40
    for seq in range(died_at + 1, died_at + 41):
        assert after.row(seq).tobytes() == recorded[1][seq - 1].tobytes()
        assert after.meta(seq, layout.ROW_RUN) >= min(died_at, 1024 - 40) - WARM_UP
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
    assert after.meta(3000, layout.ROW_RUN) == 1024 - WARM_UP + 1
    assert after.row(3000).tobytes() == matrix(ticks[-1024:])[-1].tobytes()


def test_a_start_in_the_middle_of_a_stream_takes_what_the_ring_still_holds():
    pipe = Pipe(1024)
    pipe.publish(random_ticks(2000))
    assert pipe.features.advance(0, 2000, 0) == 1024
    assert pipe.features.lost(0) == 0


# Runs.

def runs(pipe: Pipe, count: int) -> list[int]:
    return [pipe.meta(seq, layout.ROW_RUN) for seq in range(1, count + 1)]


def test_a_run_counts_the_rows_whose_features_are_all_warm():
    pipe = Pipe()
    pipe.pass_on(random_ticks(600))
    assert runs(pipe, 600) == [0] * (WARM_UP - 1) + list(range(1, 600 - WARM_UP + 2))


def resynchronised(ticks: np.ndarray, at: int, seconds: float, invalid: int = 2) -> np.ndarray:
    """`ticks` with the book lost for the `invalid` ticks before index `at`, and found again `seconds` later."""
    changed = ticks.copy()
    changed[at - invalid:at, layout.FLAGS] = 0
    changed[at - invalid:at, layout.KIND] = layout.KIND_STATE
    changed[at - invalid:at, layout.BID_PX:] = 10**12  # whatever the book was when it was found to be wrong
    changed[at, layout.FLAGS] |= layout.FLAG_RESET
    changed[at:, layout.EVENT_NS] += int(seconds * 1e9)
    return changed


@pytest.mark.parametrize("invalid", [0, 3])
def test_a_book_found_again_late_begins_a_run_that_knows_nothing_of_the_time_before(invalid):
    ticks = resynchronised(random_ticks(1000), 400, 10.1, invalid)
    pipe = Pipe()
    pipe.pass_on(ticks)
    until = 400 - invalid - WARM_UP + 1
    assert runs(pipe, 1000) == ([0] * (WARM_UP - 1) + list(range(1, until + 1)) + [0] * (invalid + WARM_UP - 1)
                                + list(range(1, 1000 - 400 - WARM_UP + 2)))
    assert pipe.rows.values[0][401:1001].tobytes() == matrix(ticks[400:]).tobytes()


def test_a_book_found_again_soon_is_warm_at_once_and_divides_the_run():
    ticks = resynchronised(random_ticks(1000), 400, 9.9)
    pipe = Pipe()
    pipe.pass_on(ticks)
    until = 400 - 2 - WARM_UP + 1
    assert runs(pipe, 1000) == [0] * (WARM_UP - 1) + list(range(1, until + 1)) + [0, 0] + list(range(1, 601))


def test_a_bridge_counts_the_return_over_the_gap_but_not_its_square_nor_the_order_flow():
    before = [make_tick(i, [(10**10 + i % 2 * 10**5, 5)], [(10**10 + 4 * 10**5, 7)]) for i in range(1, 300)]
    lost = make_tick(300, [], [], flags=0)
    after = [make_tick(i, [(10**10 + 10**7, 9)], [(10**10 + 10**7 + 4, 4)],
                       flags=layout.FLAG_VALID | (layout.FLAG_RESET if i == 301 else 0)) for i in range(301, 320)]
    found = matrix(np.array([*before, lost, *after]))
    gap = 1e4 * math.log((2 * 10**10 + 2 * 10**7 + 4) / (2 * 10**10 + 5 * 10**5))
    assert found[300, column("return_1")] == pytest.approx(gap, rel=1e-6)
    assert found[310, column("return_50")] > 0.9 * gap
    assert found[300, column("ofi_1")] == 0
    small = found[298, column("vol_20")]
    assert 0 < found[300, column("vol_20")] < small
    assert found[319 - 1, column("vol_20")] < small


def test_the_row_of_an_invalid_book_is_all_zeros_and_tells_what_the_tick_said():
    ticks = resynchronised(random_ticks(600), 400, 1.0)
    pipe = Pipe()
    pipe.pass_on(ticks)
    assert not pipe.rows.values[0][399:401].any()
    assert pipe.meta(399, layout.ROW_KIND) == layout.KIND_STATE and pipe.meta(399, layout.ROW_FLAGS) == 0
    assert pipe.meta(399, layout.ROW_BID) == 10**12


def test_a_restart_after_a_bridge_continues_bit_for_bit():
    ticks = resynchronised(random_ticks(1000), 800, 2.0)
    before = Pipe(1024)
    before.pass_on(ticks[:900])
    after = Pipe(1024, Rows.private(("X",), COLUMNS, 1024), before.books)
    after.features.rebuild(0, 900)
    for pipe in (before, after):
        pipe.publish(ticks[900:])
        pipe.features.advance(0, 1000, 0)
    assert after.rows.values[0][901:1001].tobytes() == before.rows.values[0][901:1001].tobytes()
    assert np.array_equal(after.rows.meta[0][901:1001], before.rows.meta[0][901:1001])


@pytest.mark.parametrize("before, after", [(0, BEGIN_NS), (BEGIN_NS, 0), (BEGIN_NS, -5), (1, 2**63 - 1)])
def test_without_usable_venue_times_nothing_is_bridged(before, after):
    ticks = random_ticks(600)
    ticks[299, layout.EVENT_NS], ticks[300, layout.EVENT_NS] = before, after
    ticks[300, layout.FLAGS] |= layout.FLAG_RESET
    pipe = Pipe()
    pipe.pass_on(ticks)
    assert pipe.meta(301, layout.ROW_RUN) == 0 and pipe.meta(300 + WARM_UP, layout.ROW_RUN) == 1


@pytest.mark.parametrize("stamp", [0, 301 - 1024, 301 + 1024], ids=["being written", "stale", "lapped"])
def test_a_tick_that_is_not_there_gives_no_row_and_ends_the_run(stamp):
    ticks = random_ticks(1000)
    pipe = Pipe()
    pipe.publish(ticks)
    pipe.books.ticks[0][301, layout.SEQ] = stamp
    assert pipe.features.advance(0, 1000, 0) == 999
    assert pipe.features.lost(0) == 1
    assert pipe.rows.read_meta(0, 301) is None
    assert pipe.meta(300, layout.ROW_SEQ) == 300 and pipe.meta(302, layout.ROW_RUN) == 0
    assert pipe.rows.values[0][302:1001].tobytes() == matrix(ticks[301:]).tobytes()


def test_the_head_stays_at_the_last_row_where_the_newest_tick_is_lost():
    pipe = Pipe()
    pipe.publish(random_ticks(10))
    pipe.books.ticks[0][10, layout.SEQ] = 0
    assert pipe.features.advance(0, 10, 0) == 9
    assert int(pipe.rows.heads[0]) == 9 and pipe.features.last(0) == 10


def test_nothing_new_writes_nothing():
    pipe = Pipe()
    pipe.pass_on(random_ticks(10))
    before = pipe.rows.meta[0].copy()
    assert pipe.features.advance(0, 10, 5) == pipe.features.advance(0, 4, 5) == 0
    assert np.array_equal(before, pipe.rows.meta[0])


# Rows as readers find them.

def test_a_window_is_one_contiguous_view_at_every_position_of_the_ring():
    ticks = random_ticks(2500)
    pipe = Pipe(1024)
    expected = matrix(ticks)
    for end in range(100, 2501, 37):
        pipe.publish(ticks[int(pipe.books.heads[0]):end])
        pipe.features.advance(0, end, 0)
        window = pipe.rows.window(0, end, 100)
        assert window.flags.c_contiguous and window.base is not None
        assert window.tobytes() == expected[end - 100:end].tobytes()


def test_a_row_carries_what_its_tick_said():
    pipe = Pipe()
    ticks = random_ticks(5)
    ticks[3] = make_tick(4, [(100, 7)], [], flags=layout.FLAG_VALID | layout.FLAG_RESET, traded=-3)
    pipe.publish(ticks)
    pipe.features.advance(0, 5, 777)
    tick, meta = ticks[3], pipe.rows.read_meta(0, 4)
    assert meta[layout.ROW_SEQ] == 4 and meta[layout.ROW_WRITTEN_NS] == 777
    assert meta[layout.ROW_BID] == 100 and meta[layout.ROW_ASK] == 0
    for row_column, tick_column in ((layout.ROW_FLAGS, layout.FLAGS), (layout.ROW_VENUE_ID, layout.VENUE_ID),
                                    (layout.ROW_EVENT_NS, layout.EVENT_NS), (layout.ROW_RECV_NS, layout.RECV_NS),
                                    (layout.ROW_BOOK_NS, layout.BOOK_NS), (layout.ROW_KIND, layout.KIND)):
        assert meta[row_column] == tick[tick_column]


def test_symbols_do_not_touch_one_another():
    ticks = random_ticks(900)
    books, rows = Books.private(("X", "Y"), 1024), Rows.private(("X", "Y"), COLUMNS, 1024)
    features = Features(books, rows)
    for symbol, part in ((0, ticks[:600]), (1, ticks[600:])):
        books.ticks[symbol][1:len(part) + 1] = part
        books.ticks[symbol][1:len(part) + 1, layout.SEQ] = np.arange(1, len(part) + 1)
        books.heads[symbol] = len(part)
    for step in range(1, 601):
        for symbol in (0, 1):
            features.advance(symbol, min(step, int(books.heads[symbol])), 0)
    assert rows.values[0][1:601].tobytes() == matrix(ticks[:600]).tobytes()
    assert rows.values[1][1:301].tobytes() == matrix(ticks[600:]).tobytes()


# Books that no market should show.

MAX = 2**63 - 1
any_number = st.sampled_from([0, 1, 2, 10**8, 61_000 * 10**8, 10**15, 9 * 10**18, MAX, -1, -MAX, -MAX - 1])
any_level = st.tuples(any_number, any_number)
any_tick = st.builds(
    lambda bids, asks, flags, traded, time: make_tick(1, bids, asks, flags=flags, traded=traded, event_ns=time),
    st.lists(any_level, max_size=10), st.lists(any_level, max_size=10), st.sampled_from([1, 1, 1, 1, 0, 3]),
    any_number, any_number)


@settings(max_examples=150, deadline=None)
@given(st.lists(any_tick, min_size=1, max_size=40))
def test_every_row_is_finite_on_any_book(found):
    rows = matrix(np.array(found))
    assert np.isfinite(rows).all() and np.abs(rows).max() <= 1e6


@pytest.mark.parametrize("bids, asks, expected", [
    ([], [], {"obi_1": 0, "obi_10": 0, "spread": 0, "weighted_mid": 0, "micro_spread": 0, "front_tilt": 0}),
    ([(100, 5)], [], {"obi_1": 1, "obi_10": 1, "spread": 0, "weighted_mid": 0, "front_tilt": 1}),
    ([], [(100, 5)], {"obi_1": -1, "obi_10": -1, "spread": 0, "micro_price": 0, "front_tilt": -1}),
    ([(100, 5)], [(100, 15)], {"obi_1": -0.5, "spread": 0, "weighted_mid": 0, "micro_price": 0}),
    ([(101, 5)], [(99, 5)], {"obi_1": 0, "spread": -200, "weighted_mid": 0, "micro_spread": -200}),
    ([(0, 5)], [(-3, 5)], {"obi_1": 0, "spread": 0}),
    ([(1, MAX)] * 10, [(MAX, MAX)] * 10, {"obi_1": 0, "obi_10": 0, "spread": 20_000, "micro_price": 0}),
], ids=["empty", "bids only", "asks only", "locked", "crossed", "prices not above 0", "huge"])
def test_a_degenerate_book_gives_the_stated_values(bids, asks, expected):
    row = matrix(np.array([make_tick(1, bids, asks)]))[0]
    assert {name: row[column(name)] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_prices_come_back_after_an_empty_book_without_a_jump():
    book = make_tick(1, [(10**10, 5)], [(10**10 + 2, 5)])
    higher = make_tick(3, [(10**11, 5)], [(10**11 + 2, 5)])
    found = matrix(np.array([book, make_tick(2, [], []), higher]))
    assert found[2, column("return_10")] == found[2, column("vol_20")] == 0


def test_no_sum_overflows_at_the_extremes_of_64_bits():
    """Books that flip between the ends of the range, for longer than the longest window; every sum against
    Python's integers."""
    low = make_tick(0, [(1, MAX)] * 10, [(2, MAX)] * 10, traded=MAX)
    high = make_tick(0, [(MAX - 1, MAX)] * 10, [(MAX, MAX)] * 10, traded=-MAX - 1)
    always_up = make_tick(0, [(1, MAX)] * 10, [], traded=MAX)
    for pattern in ([low, high], [low] * 3 + [high], [always_up, make_tick(0, [], [(MAX, MAX)] * 10, traded=MAX)]):
        ticks = np.array([pattern[i % len(pattern)] for i in range(1100)])
        assert np.isfinite(matrix(ticks)).all()
        pipe = Pipe(2048)
        ticks[:, layout.SEQ] = np.arange(1, 1101)
        pipe.pass_on(ticks)
        state = pipe.features._states[0].tolist()
        records = [state[feature_kernel.HISTORY_AT + (n & 255) * feature_kernel.RECORD:][:feature_kernel.RECORD]
                   for n in range(1101 - 250, 1101)]
        for k, (word, window) in enumerate(feature_kernel.SUMS):
            exact = sum(record[word] for record in records[-window:])
            assert -2**63 <= exact < 2**63 and state[feature_kernel.SUMS_AT + k] == exact
        depth = [(r[feature_kernel.DEPTH] << 32) + r[feature_kernel.DEPTH + 1] for r in records]
        assert max(depth) == MAX * 5 * (1 if pattern[0] is always_up else 2)
        assert max(abs(r[feature_kernel.RETURN]) for r in records) <= 2**53
        assert max(r[feature_kernel.SQUARE] for r in records) <= 2**53


def test_a_sudden_jump_counts_for_the_stated_most():
    ticks = [make_tick(i, [(price, 5)], [(price + 2, 5)]) for i, price in enumerate([10**10, 2 * 10**10])]
    row = matrix(np.array(ticks))[1]
    assert row[column("return_1")] == pytest.approx(1e4 * math.log(2), rel=1e-6)
    assert row[column("vol_20")] == pytest.approx(1e4 * math.sqrt(2.0**-10 / 20), rel=1e-6)


def test_a_trade_ages_in_venue_time_and_is_forgotten_after_250_ticks():
    first = make_tick(1, [(100, 5)], [(101, 5)], traded=7, event_ns=BEGIN_NS)
    quiet = [make_tick(i, [(100, 5)], [(101, 5)], event_ns=BEGIN_NS + i * 50 * MS) for i in range(1, 400)]
    age = matrix(np.array([first, *quiet]))[:, column("trade_age")]
    np.testing.assert_allclose(age[:250], np.arange(250) * 0.05, rtol=1e-6)
    assert (age[250:] == 60).all()
