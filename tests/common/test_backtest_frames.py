"""Blocks decoded at once mean what their lines mean one by one."""

import gzip
from itertools import chain, islice

import numpy as np
import pytest

from common import captures, venues
from common.backtest_frames import Decoder, Found, batches
from common.capture_lines import Connect, Header, encode
from common.errors import VenueError
from common.events import Delta, Quote


def flat(paths, venue):
    return chain.from_iterable(batches(paths, Decoder(venue)))


def same(one, other) -> bool:
    """Two events, levels compared by their numbers."""
    if isinstance(one, Delta) and isinstance(other, Delta):
        count = one.n_bids + one.n_asks
        return np.array_equal(one.levels[:count], other.levels[:count]) and (
            one._replace(levels=None) == other._replace(levels=None))
    return one == other


@pytest.mark.parametrize("pattern, most", [("usdm_*", 30_000), ("cm_*", 10_000), ("spot_*", 10_000)])
def test_a_line_means_what_its_venue_makes_of_it(recordings, pattern, most):
    paths = sorted((recordings / "binance").glob(f"{pattern}.gz"))
    told = captures.describe(paths)
    bulk, single = (venues.create(told.venue, told.symbols) for _ in range(2))
    kinds = {Quote: 0, Found: 0, bytes: 0}
    for (recv_ns, text), (_, stamp, what) in islice(zip(captures.tape(paths), flat(paths, bulk), strict=True), most):
        assert recv_ns == stamp
        kinds[type(what)] += 1
        if isinstance(what, Quote):
            assert single.decode(text) == (what,)
        elif isinstance(what, Found):
            ours, theirs = bulk.decode(what), single.decode(text)
            assert len(ours) == len(theirs) == 1 and same(ours[0], theirs[0])
        else:
            assert what == text
    assert kinds[Quote] > most / 4 and kinds[Found] > most / 5 and kinds[bytes] < 20


def test_other_venues_and_control_lines_come_as_they_are(tmp_path):
    path = tmp_path / "capture"
    lines = [(5, encode(Header("binance-usdm", ("BTCUSDT",)))), (6, encode(Connect("ws://x"))), (7, b"[1]"),
             (8, b'{"stream":"x","data":{"e":"trade","E":1,"T":2,"s":"OTHER","t":3,"p":"1","q":"1","X":"MARKET",'
                 b'"m":true}}')]
    path.write_bytes(b"".join(b"%d %b\n" % line for line in lines))
    for name in ("binance-usdm", "kraken"):
        assert [(stamp, what) for _, stamp, what in flat([path], venues.create(name, ("BTCUSDT",)))] == lines


def test_streams_are_merged_by_time_and_a_stamp_that_went_back_stays_in_its_place(tmp_path):
    stamps = {"a": [10, 20, 15, 30, 30, 40], "b": [5, 20, 20, 30, 99], "c": [30]}
    for name, times in stamps.items():
        (tmp_path / name).write_bytes(b"".join(b'%d {"%b":%d}\n' % (at, name.encode(), i)
                                               for i, at in enumerate(times)))
    paths = [tmp_path / name for name in stamps]
    expected = list(captures.merge([captures.lines(path) for path in paths]))
    for size in (1, 16, 1 << 18):
        captures.BLOCK, block = size * 4, captures.BLOCK
        try:
            found = [(stamp, what) for _, stamp, what in flat_of_any(paths)]
        finally:
            captures.BLOCK = block
        assert found == expected


def flat_of_any(paths):
    """As `flat`, for files that are of no venue."""
    from common import backtest_frames

    def stream(path):
        decoder = Decoder(venues.create("vectrade", ("X",)))
        latest = 0
        for content in captures.blocks(path):
            times, found = decoder.decode(content, str(path), 0, None)
            order = np.maximum.accumulate(np.array([latest, *times]))[1:].tolist()
            latest = order[-1]
            yield list(zip(order, times, found))

    return chain.from_iterable(backtest_frames._merge([stream(path) for path in paths]))


def test_a_wrong_line_is_named_and_a_cut_file_is_read_to_its_last_line(recordings, tmp_path):
    source = recordings / "binance" / "usdm_ethusdt_20240718.gz"
    lines = gzip.decompress(source.read_bytes()).split(b"\n")[:3000]
    path = tmp_path / "capture"

    def venue():
        return venues.create("binance-usdm", ("ETHUSDT",))

    path.write_bytes(b"\n".join(lines)[:-5])
    words: list[str] = []
    found = [stamp for batch in batches([path], Decoder(venue()), words.append) for _, stamp, _ in batch]
    assert len(found) == 2999 and words and "cut off" in words[0] and ":3000" in words[0]
    lines[2000] = b"hello"
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(VenueError, match=f"{path}:2001"):
        list(flat([path], venue()))
