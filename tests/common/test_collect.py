"""Recordings to datasets: the rows of the live code, nothing but labels looks ahead, and what is planted is found."""

import hashlib
import itertools

import numpy as np
import pytest

from common import captures, collect, convert, layout
from common.clock import ManualClock
from common.collect import (
    Collector,
    Options,
    Part,
    about_files,
    build,
    joined,
    make,
    prove_no_look_ahead,
    sources,
    stream,
)
from common.dataset import Dataset
from common.errors import ConfigError, ContractError
from common.features.choice import DEFAULT, FeatureSet
from common.features.rows import Features
from common.labels import Horizon, Threshold
from common.market import Market
from common.player import Player
from common.ring import Books, Rows
from common.venues import create

S = 10**9
OPTIONS = Options(horizons=(Horizon("s", 5.0), Horizon("ticks", 20)), every_s=0.1, folds=2)


@pytest.fixture(scope="module")
def files(recordings) -> list[str]:
    return [str(recordings / "binance" / f"usdm_{name}_20240718.gz") for name in ("btcusdt", "ethusdt")]


@pytest.fixture(scope="module")
def data(files) -> Dataset:
    return make(lambda: sources(files), OPTIONS, {"files": about_files(files)})


def test_rows_are_those_that_the_live_code_makes_tick_by_tick(files, data):
    path = files[0]
    books, rows = Books.private(("BTCUSDT",)), Rows.private(("BTCUSDT",), DEFAULT.labels)
    venue, clock = create("binance-usdm", ("BTCUSDT",)), ManualClock()
    market, features = Market(venue, books, clock), Features(books, rows)
    player, found = Player(market, venue, clock), []
    for recv_ns, text in captures.tape([path]):
        if player.play(recv_ns, text):
            head = int(books.heads[0])
            features.advance(0, head, 0)
            slot = head & (rows.capacity - 1)
            if rows.meta[0][slot, layout.ROW_FLAGS] & layout.FLAG_VALID:
                found.append((rows.values[0][slot].tobytes(), *rows.meta[0][slot, [
                    layout.ROW_SEQ, layout.ROW_VENUE_ID, layout.ROW_RECV_NS, layout.ROW_RUN, layout.ROW_BID,
                    layout.ROW_ASK]].tolist()))
    mine = data.symbol == 0
    assert len(found) == mine.sum() > 3000
    assert found == [(row.tobytes(), *meta) for row, *meta in zip(data.values[mine], *(
        getattr(data, name)[mine].tolist() for name in ("seq", "venue_id", "recv_ns", "run", "bid", "ask")))]


def test_recordings_of_several_connections_go_together_and_each_symbol_its_own_way(files, data):
    assert data.symbols == ("BTCUSDT", "ETHUSDT") and data.about["venues"] == {
        "BTCUSDT": "binance-usdm", "ETHUSDT": "binance-usdm"}
    alone = make(lambda: sources(files[1:]), OPTIONS)
    only = make(lambda: sources(files), Options(**{**vars(OPTIONS), "symbols": ("ETHUSDT",)}))
    mine = data.symbol == 1
    for one in (alone, only):
        assert one.symbols == ("ETHUSDT",)
        assert one.values.tobytes() == data.values[mine].tobytes()
        assert (one.sample + np.argmax(mine) == data.sample[data.symbol[data.sample] == 1]).all()
    assert alone.digest() != only.digest()  # the options differ
    again = make(lambda: sources(files), OPTIONS, {"files": about_files(files)})
    assert again.digest() == data.digest()


def test_samples_are_warm_have_both_sides_and_one_stands_in_each_stretch(files, data):
    assert (data.run[data.sample] > 0).all() and (data.bid[data.sample] < data.ask[data.sample]).all()
    for symbol in (0, 1):
        stretch = data.time_ns[data.sample[data.symbol[data.sample] == symbol]] // (S // 10)
        assert (np.diff(stretch) > 0).all() and len(stretch) > 500
    every = make(lambda: sources(files[:1]), Options(every_s=0, folds=1, horizons=(Horizon("ticks", 1),)))
    assert len(every.sample) == (every.run > 0).sum() == every.about["samples"] == every.about["warm"]
    assert np.diff(data.time_ns)[np.diff(data.symbol) == 0].min() >= 0


def test_labels_and_counts_tell_what_became_of_the_mid(data):
    mid = (data.bid + data.ask) / 2
    for place, name in enumerate(("5s", "20ticks")):
        told, label, move = data.about["labels"][name], data.labels[:, place], data.moves[:, place]
        assert told["labelled"] == (label >= 0).sum() and told["book lost within"] == 0
        assert told["labelled"] + told["no move"] + told["stream ends before"] == len(data.sample)
        assert (np.sign(move[label >= 0]) == np.where(label[label >= 0] == 1, 1, -1)).all()
    for k in range(0, len(data.sample), 97):
        row = data.sample[k]
        if not np.isnan(data.moves[k, 1]):
            assert data.moves[k, 1] == pytest.approx((mid[row + 20] / mid[row] - 1) * 1e4)
            assert data.until_ns[k, 1] == data.time_ns[row + 20]


def test_folds_are_clean_and_the_embargo_is_the_longest_horizon(data):
    assert data.about["folds"]["embargo_ns"] == 5 * S
    for horizon in (0, 1):
        for window in (1, 100):
            for fold in data.folds(horizon, window):
                assert fold.train.any() and fold.test.any()
                assert not data.leakage(fold, horizon, window)


def test_it_is_what_the_files_are(files, data):
    told, = about_files(files[:1])
    with open(files[0], "rb") as file:
        assert told["sha256"] == hashlib.sha256(file.read()).hexdigest() and data.about["files"][0] == told


def test_a_capture_of_ours_gives_what_the_foreign_file_gave(files, data, tmp_path):
    convert.convert(files[:1], tmp_path / "ours.zst")
    ours = make(lambda: sources([tmp_path / "ours.zst"]), OPTIONS)
    mine = data.symbol == 0
    assert ours.values.tobytes() == data.values[mine].tobytes() and (ours.seq == data.seq[mine]).all()


def test_foreign_formats_become_rows(recordings):
    found = sources([recordings / "lobster" / "LOBSTER_SampleFile_GOOG_2012-06-21_5.zip"])
    assert found[0].symbols == ("GOOG",)
    collector = Collector(("GOOG",), DEFAULT)
    part = joined([collector.take(0, block) for _, block in itertools.islice(stream(found, ("GOOG",)), 2)])
    assert (part.run > 0).sum() > 5000 and np.isfinite(part.values).all()


# ---- what is planted is found


def shifted(monkeypatch) -> None:
    """A kernel whose return_1 is that of the next tick, wherever there is one already."""
    advance = Features.advance

    def looks_ahead(self, symbol, last_seq, now_ns):
        written = advance(self, symbol, last_seq, now_ns)
        at = np.arange(last_seq - written + 1, last_seq) & (self.rows.capacity - 1)
        column = self.features.names.index("return_1")
        self.rows.values[symbol][at, column] = self.rows.values[symbol][(at + 1) & (self.rows.capacity - 1), column]
        return written

    monkeypatch.setattr(Features, "advance", looks_ahead)


def test_a_feature_that_looks_ahead_is_refused(files, monkeypatch):
    shifted(monkeypatch)
    with pytest.raises(ContractError, match=r"looks ahead \(return_1 of BTCUSDT, seq \d+: in the dataset "):
        make(lambda: sources(files[:1]), OPTIONS)


def test_rows_that_do_not_belong_to_their_ticks_are_found(files, data):
    block = np.concatenate([ticks for _, ticks in stream(sources(files[:1]), ("BTCUSDT",))])[:3000]
    alone = make(lambda: sources(files[:1]), OPTIONS)
    assert prove_no_look_ahead(alone, {0: block}, 50) > 40
    values = alone.values.copy()
    values[:-1] = values[1:]
    object.__setattr__(alone, "values", values)
    with pytest.raises(ContractError, match="looks ahead"):
        prove_no_look_ahead(alone, {0: block}, 50)


def test_a_value_that_is_not_finite_is_refused_and_named(files, monkeypatch):
    advance = Features.advance

    def poisoned(self, symbol, last_seq, now_ns):
        written = advance(self, symbol, last_seq, now_ns)
        if last_seq - written < 2500 <= last_seq:
            self.rows.values[symbol][2500 & (self.rows.capacity - 1), self.features.names.index("vol_20")] = np.nan
        return written

    monkeypatch.setattr(Features, "advance", poisoned)
    with pytest.raises(ContractError, match="vol_20 of BTCUSDT, seq 2500: nan"):
        make(lambda: sources(files[:1]), OPTIONS)


# ---- what was asked wrongly


def test_recordings_without_what_is_asked_for_are_refused(files, recordings):
    with pytest.raises(ConfigError, match="no such symbol .*DOGE.*known: BTCUSDT, ETHUSDT"):
        make(lambda: sources(files), Options(symbols=("DOGE",)))
    spot = str(recordings / "binance" / "spot_btcusdt_20240808.gz")
    with pytest.raises(ConfigError, match="several recordings that are not one stream .BTCUSDT"):
        make(lambda: sources([files[0], spot]), OPTIONS)
    without = str(recordings / "binance" / "usdm_btcusdt_20240719.gz")  # has no snapshot: no book is ever valid
    with pytest.raises(ConfigError, match="no valid book of a symbol .BTCUSDT"):
        make(lambda: beginning(without), OPTIONS)
    with pytest.raises(ContractError, match="no such feature"):
        make(lambda: sources(files), Options(features=("nothing",)))


def beginning(path: str):
    return [source._replace(messages=itertools.islice(source.messages, 3000)) for source in sources([path])]


@pytest.mark.parametrize("changes, what", [
    ({"classes": 4}, "classes=4"), ({"folds": 0}, "folds=0"), ({"every_s": -1}, "every=-1"),
    ({"smooth": "x"}, "smooth=x"), ({"horizons": ()}, "horizons="), ({"fee_bps": -1}, "fee_bps=-1"),
    ({"horizons": (Horizon("s", 5), Horizon("s", 5.0))}, "5s, 5s"), ({"classes": 3}, "threshold above 0"),
    ({"embargo_s": -1}, "embargo=-1"), ({"verify": -1}, "verify=-1")])
def test_options_that_cannot_be_are_refused(changes, what):
    with pytest.raises(ConfigError, match=what):
        Options(**changes)


# ---- parts made by hand


def part(seconds, mids, seq=None, run=None) -> Part:
    count = len(mids)
    time, mid = 1_700_000_000 * S + (np.asarray(seconds, float) * S).astype(np.int64), np.asarray(mids, np.int64)
    return Part(np.zeros((count, 1), np.float32), np.arange(1, count + 1) if seq is None else np.asarray(seq),
                np.arange(count), time, time, np.ones(count, np.int64) if run is None else np.asarray(run), mid - 1,
                mid + 1, np.zeros((count, 0), np.int64))


def test_a_label_across_a_lost_book_is_counted_as_such():
    one = part(range(10), [100 + k for k in range(10)], seq=[1, 2, 3, 4, 5, 7, 8, 9, 10, 11])
    made = build(FeatureSet.of(("spread",)), ("A",), [one], Options(
        horizons=(Horizon("ticks", 2),), every_s=0, folds=1))
    assert made.about["labels"]["2ticks"] == {
        "labelled": 6, "stream ends before": 2, "book lost within": 2, "too few ticks to smooth": 0, "no move": 0,
        "dropped within the threshold": 0}


def test_a_balanced_threshold_looks_at_nothing_after_the_first_training_span():
    """Whatever the test spans hold, the classes of the training rows stay."""
    random = np.random.default_rng(0)
    steps = random.normal(0, 50, 400).round().astype(int)
    one, other = (100_000 + np.cumsum(np.where(np.arange(400) < 200, steps, steps * factor)) for factor in (1, 20))
    options = Options(horizons=(Horizon("ticks", 3),), every_s=0, folds=1, classes=3, threshold=Threshold("balanced"))
    first, second = (build(FeatureSet.of(("spread",)), ("A",), [part(range(400), mids)], options)
                     for mids in (one, other))
    assert first.about["limits_bps"] == second.about["limits_bps"]
    fold, = first.folds()
    shares = np.bincount(first.labels[fold.train, 0], minlength=3) / fold.train.sum()
    assert shares[1] == pytest.approx(1 / 3, abs=0.02) and shares.min() > 0.2


def test_nothing_warm_is_refused_with_how_long_it_takes():
    cold = part(range(5), [100] * 5, run=[0] * 5)
    with pytest.raises(ConfigError, match="no warm row.*warm after 1 ticks"):
        build(FeatureSet.of(("spread",)), ("A",), [cold], Options(folds=1))


def test_times_are_carried_on_where_the_venue_says_nothing_or_goes_back():
    event, recv = np.array([0, 5, 0, 4, 7]), np.array([1, 2, 3, 4, 5])
    assert collect.timeline(event, recv).tolist() == [0, 5, 5, 5, 7]
    assert collect.timeline(event * 0, recv).tolist() == [1, 2, 3, 4, 5]


def test_a_hole_in_the_ticks_is_refused(files):
    block = next(ticks for _, ticks in stream(sources(files[:1]), ("BTCUSDT",)))
    collector = Collector(("BTCUSDT",), DEFAULT)
    collector.take(0, block[:100])
    for wrong in (block[200:300], block[50:150], block[100:300:2]):
        with pytest.raises(ContractError, match="do not follow one another.*after 100"):
            collector.take(0, wrong)
    assert len(collector.take(0, block[100:200]).seq) == 100


# ---- fitted features


FITTED = ("obi_1", "integrated_ofi_100", "micro_price_fitted", "vpin_50")


def test_numbers_are_fitted_for_each_symbol_on_rows_before_the_first_test(files):
    made = make(lambda: sources(files), Options(features=FITTED, horizons=(Horizon("s", 5.0),), every_s=0.1, folds=2))
    assert set(made.features.parameters) == set(FITTED[1:])
    for numbers in made.features.parameters.values():
        assert set(numbers) == {"BTCUSDT", "ETHUSDT"}
    begin = made.folds()[0].begin_ns
    assert made.about["fit_until_ns"] == begin - 5 * S and min(made.about["fit_rows"].values()) > 500
    assert not any(made.leakage(fold) for fold in made.folds())

    def until(path, border):
        """The recording as if nothing later had been recorded."""
        source, = sources([path])
        return source._replace(messages=((recv_ns, text) for recv_ns, text in source.messages if recv_ns < border))

    # The clock of the recorder runs behind the venue's by seconds: ten more hold all that was fitted on.
    shorter = make(lambda: [until(path, begin + 10 * S) for path in files], Options(
        features=FITTED, horizons=(Horizon("s", 5.0),), every_s=0.1, folds=1, fit_until_ns=begin - 5 * S))
    assert shorter.features.parameters == made.features.parameters


def test_what_was_fitted_goes_with_the_file(files, tmp_path):
    made = make(lambda: sources(files[:1]), Options(features=FITTED, horizons=(Horizon("s", 5.0),), folds=2))
    made.save(tmp_path / "a.npz")
    again = Dataset.load(tmp_path / "a.npz")
    assert again.features == made.features and again.features.schema == made.features.schema
    assert again.digest() == made.digest()


def test_too_short_a_training_span_is_refused(files):
    with pytest.raises(ConfigError, match="too little to fit a feature on"):
        make(lambda: sources(files[:1]), Options(features=("micro_price_fitted",), fit_until_ns=1))
