"""The contract of a venue, checked for every one that is registered; and what is particular to each.

A venue that is added is tested by being there: it needs an entry in SAMPLES.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import captures, fixed
from common.errors import ConfigError, ContractError, VenueError
from common.events import GAP, JOINS, OLDER, Delta, Notice, Quote, Snapshot, Trade
from common.venues import create, fields, registry
from tests import frames as vectrade

ONE = fixed.SCALE


class Sample(NamedTuple):
    symbols: tuple[str, ...]
    frames: list[bytes]  #: with at least one of each kind
    snapshot: bytes | None  #: the answer to a snapshot request


def recorded(name: str, symbol: str):
    def read(folder: Path) -> Sample:
        lines = [frame for _, frame in itertools.islice(captures.lines(folder / "binance" / f"{name}.gz"), 400)]
        found = [frame for frame in lines if captures.is_snapshot(frame)]
        return Sample(("OTHER", symbol), [frame for frame in lines if frame not in found], found[0])

    return read


def spoken(folder: Path) -> Sample:
    """The VecTrade protocol has no recording: it is spoken by the loopback exchange alone."""
    return Sample(("OTHER", "BTC-USD"), [
        vectrade.snapshot("BTC-USD", 1, bids=[("61000.10", "0.5")], asks=[]), vectrade.delta("BTC-USD", 2),
        vectrade.delta("BTC-USD", 3, bids=[("61000.10", 0), ("60999", "1.25")], asks=[("61000.20", 2)]),
        vectrade.trade("BTC-USD", 7, "61000.20", "0.1"), vectrade.trade("BTC-USD", 8, "60999", "0.2", "SELL"),
        vectrade.ticker("BTC-USD", 3, "60999", "1.25", "61000.20", "2"),
        vectrade.ticker("BTC-USD", 4, 0, 0, "61000.20", "2")], None)


SAMPLES = {"binance-usdm": recorded("usdm_btcusdt_20240718", "BTCUSDT"),
           "binance-spot": recorded("spot_btcusdt_20240808", "BTCUSDT"), "vectrade": spoken}


@pytest.fixture(scope="session", params=sorted(registry()))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def sample(name, recordings) -> Sample:
    return SAMPLES[name](recordings)


@pytest.fixture
def venue(name, sample):
    return create(name, sample.symbols)


def plain(event):
    """An event that can be compared: its levels as a list."""
    if isinstance(event, (Delta, Snapshot)):
        return event._replace(levels=event.levels[:event.n_bids + event.n_asks].tolist())
    return event


def slowly(venue, frame: bytes) -> list:
    return [plain(event) for event in fields.decode(frame, venue._read)]


# ---- for every venue


def test_it_is_registered_under_its_name_and_keeps_its_symbols(venue, name, sample):
    assert venue.name == name and tuple(venue.symbols) == sample.symbols
    assert venue.path().startswith("/")
    assert all(isinstance(orjson.loads(frame), dict) for frame in venue.subscriptions())


def test_a_snapshot_comes_either_by_http_or_in_band(venue, sample):
    request = venue.snapshot_request(1)
    if request is None:
        assert venue.resync(1) and sample.snapshot is None
        with pytest.raises(ContractError):
            venue.decode_snapshot(1, b"{}")
    else:
        assert request.path.startswith("/") and sample.symbols[1] in request.path and not venue.resync(1)
        snapshot = venue.decode_snapshot(1, sample.snapshot)
        assert snapshot.symbol == 1 and snapshot.last_id > 0 and snapshot.n_bids == snapshot.n_asks == 1000


def test_its_sample_has_every_kind_of_event_of_the_right_symbol(venue, sample):
    kinds = set()
    for frame in sample.frames:
        for event in venue.decode(frame):
            kinds.add(type(event))
            assert event.symbol == 1
    assert {Delta, Trade, Quote} <= kinds and (Snapshot in kinds) == (sample.snapshot is None)


def test_the_fast_path_takes_every_frame_of_the_sample(venue, sample):
    assert [frame for frame in sample.frames if venue._scanner.match(frame)[0] < 0] == []


def test_the_fast_path_reads_what_the_slow_path_reads(venue, sample):
    for frame in sample.frames:
        assert [plain(event) for event in venue.decode(frame)] == slowly(venue, frame)
    if sample.snapshot:
        whole = fields.decode(sample.snapshot, lambda data: venue._snapshot(data, 1))
        assert plain(venue.decode_snapshot(1, sample.snapshot)) == plain(whole)


def test_white_space_and_other_order_of_keys_change_nothing(venue, sample):
    for frame in sample.frames[:40]:
        expected = [plain(event) for event in venue.decode(frame)]
        spaced = orjson.dumps(orjson.loads(frame), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        assert spaced != frame and [plain(event) for event in venue.decode(spaced)] == expected


def test_numbers_instead_of_strings_are_read_exactly(venue, sample):
    """As text, since no float holds them: 0.1 and 123456789.12345678."""
    for frame in sample.frames[:40]:
        bare = _without_quotes(frame)
        assert [plain(event) for event in venue.decode(bare)] == [plain(event) for event in venue.decode(frame)]


def _without_quotes(frame: bytes) -> bytes:
    """Every string that is a decimal number as a JSON number."""
    out = frame.split(b'"')
    for i in range(1, len(out) - 1, 2):
        if out[i].replace(b".", b"").isdigit():
            out[i] = b"\1" + out[i] + b"\1"
    return b'"'.join(out).replace(b'"\1', b"").replace(b'\1"', b"")


def test_a_bytearray_is_as_good_as_bytes(venue, sample):
    for frame in sample.frames[:40]:
        assert list(map(plain, venue.decode(bytearray(frame)))) == list(map(plain, venue.decode(frame)))


def test_a_truncated_frame_is_refused(venue, sample):
    shortest = {}
    for frame in sample.frames:
        kind = venue._scanner.match(frame)[0]
        if len(frame) < len(shortest.get(kind, b" " * 10**6)):
            shortest[kind] = frame
    for frame in shortest.values():
        for cut in range(len(frame)):
            with pytest.raises(VenueError):
                venue.decode(frame[:cut])


def test_trailing_garbage_is_refused(venue, sample):
    for tail in (b"x", b"}", b"\0", b"{}", b'"'):
        with pytest.raises(VenueError, match="not JSON"):
            venue.decode(sample.frames[0] + tail)


@pytest.mark.parametrize("frame", [
    b"", b"null", b"1", b"[]", b'"text"', b"{}", b"{", b"\xff\xfe", b"[" * 2000, b'{"a":' * 2000, b"NaN",
    b'{"stream":1}', b'{"stream":"x","data":[]}', b'{"channel":1}', b'{"type":1}', b'{"e":1}'])
def test_what_is_no_frame_of_the_protocol_is_refused(venue, frame):
    with pytest.raises(VenueError) as refusal:
        venue.decode(frame)
    assert refusal.value.where, "the error says where"


WRONG = [None, True, [], {}, "x", -1, 1.5, 2**64, "1e400", "-5", "0.000000001", "99999999999", "1" * 500]


def test_a_wrong_type_in_any_field_is_refused_or_not_read_and_never_anything_else(venue, sample):
    kinds = {venue._scanner.match(frame)[0]: frame for frame in sample.frames}
    for frame in kinds.values():
        for place in _places(orjson.loads(frame)):
            for wrong in WRONG:
                data = orjson.loads(frame)
                _put(data, place, wrong)
                try:
                    events = venue.decode(orjson.dumps(data) if wrong != 2**64 else _dumps_big(data))
                except VenueError as refusal:
                    assert refusal.where
                else:
                    assert all(_sane(event) for event in events)


def _places(data, path=()):
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from itertools.islice(_places(value, (*path, key)), 20)


def _put(data, path, value) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


def _dumps_big(data) -> bytes:
    import json

    return json.dumps(data, separators=(",", ":")).encode()


def _sane(event) -> bool:
    """Whatever is let through fits the rings and the book."""
    if isinstance(event, Notice):
        return event.level in ("info", "error")
    numbers = [value for value in event if isinstance(value, int)]
    assert all(-2**63 <= number < 2**63 for number in numbers)
    if isinstance(event, (Delta, Snapshot)):
        levels = event.levels[:event.n_bids + event.n_asks]
        assert levels.dtype == np.int64 and (levels[:, 0] > 0).all() and (levels[:, 1] >= 0).all()
    if isinstance(event, Trade):
        assert event.price > 0
    if isinstance(event, Quote):
        assert min(event[2:]) >= 0
    return True


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damaged_frames_are_refused_or_sane_and_both_paths_agree(name, sample, data):
    venue = _venues.setdefault(name, create(name, sample.symbols))
    frame = bytearray(data.draw(st.sampled_from(sample.frames[:60])))
    for _ in range(data.draw(st.integers(1, 3))):
        at, kind = data.draw(st.integers(0, len(frame) - 1)), data.draw(st.integers(0, 2))
        if kind == 0:
            frame[at] = data.draw(st.sampled_from(b'0123456789.-"[]{},:eE \\u\x00\xff'))
        elif kind == 1:
            del frame[at:at + data.draw(st.integers(1, 9))]
        else:
            frame[at:at] = frame[at:at + data.draw(st.integers(1, 9))]
        if not frame:
            break
    try:
        events = list(map(plain, venue.decode(frame)))
    except VenueError as refusal:
        assert refusal.where
    else:
        assert all(map(_sane, venue.decode(frame)))
        assert events == slowly(venue, bytes(frame))


_venues: dict = {}


# ---- the registry


def test_an_unknown_venue_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="binance-spot, binance-usdm, vectrade"):
        create("mtgox", ["A"])


@pytest.mark.parametrize("symbol", ["", 'A"B', "A\\", "\u00c4", "A" * 65, "A B", "A\n"])
def test_a_symbol_that_no_venue_could_have_is_refused(symbol):
    with pytest.raises(ConfigError, match="market.symbols"):
        create("vectrade", ["A", symbol])


# ---- VecTrade


def test_vectrade_subscribes_to_the_three_channels_of_each_symbol():
    venue = create("vectrade", ["A", "B"])
    assert orjson.loads(venue.subscriptions()[0]) == {"action": "subscribe", "channels": [
        "orderbook:A", "trades:A", "ticker:A", "orderbook:B", "trades:B", "ticker:B"]}
    assert [orjson.loads(frame) for frame in venue.resync(1)] == [
        {"action": action, "channels": ["orderbook:B"]} for action in ("unsubscribe", "subscribe")]


def test_vectrade_counts_by_one():
    venue = create("vectrade", ["A"])
    for sequence, verdict in ((4, OLDER), (5, OLDER), (6, JOINS), (7, GAP)):
        delta = venue.decode(vectrade.delta("A", sequence))[0]
        assert venue.follows(5, delta) == venue.bridges(5, delta) == verdict


@pytest.mark.parametrize(("frame", "notice"), [
    (b'{"type":"subscribed","channels":["trades:A"]}', Notice("info", "subscribed")),
    (b'{"type":"unsubscribed","channels":[]}', Notice("info", "unsubscribed")),
    (b'{"type":"heartbeat","timestamp":1}', Notice("info", "heartbeat")),
    (b'{"type":"error","code":"C","message":"m"}', Notice("error", "C: m")),
    (vectrade.delta("Z", 1), Notice("info", "not asked for: 'orderbook:Z'"))])
def test_vectrade_notices(frame, notice):
    assert create("vectrade", ["A"]).decode(frame) == (notice,)


@pytest.mark.parametrize(("frame", "named"), [
    (b'{"type":"strange"}', "type='strange'"), (vectrade.trade("A", 1, side="UP"), "side='UP'"),
    (vectrade.trade("A", 1, price=0), "price='0'"), (vectrade.trade("A", 1, quantity="-1"), "quantity='-1'"),
    (b'{"channel":"orderbook:A","type":"trade"}', "type='trade'"),
    (vectrade.delta("A", 1, bids=[("0.123456789", 1)]), "bids.price='0.123456789'"),
    (vectrade.delta("A", 1, asks=[(1, "1e20")]), "asks.quantity='1e20'")])
def test_vectrade_errors_name_field_and_value(frame, named):
    with pytest.raises(VenueError) as refusal:
        create("vectrade", ["A"]).decode(frame)
    assert named in refusal.value.where


# ---- Binance


def test_binance_puts_its_streams_into_the_path():
    assert create("binance-usdm", ["BTCUSDT"]).path() == \
        "/stream?streams=btcusdt@depth@0ms/btcusdt@bookTicker/btcusdt@trade"
    assert create("binance-spot", ["A", "B"]).path() == (
        "/stream?streams=a@depth@100ms/a@bookTicker/a@trade/b@depth@100ms/b@bookTicker/b@trade")
    assert create("binance-usdm", ["BTCUSDT"]).snapshot_request(0)[:2] == (
        "GET", "/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
    assert create("binance-spot", ["BTCUSDT"]).snapshot_request(0).path == "/api/v3/depth?symbol=BTCUSDT&limit=1000"


@pytest.mark.parametrize(("first", "last", "before", "verdict"), [
    (90, 99, 80, OLDER), (90, 100, 80, JOINS), (100, 110, 90, JOINS), (90, 110, 80, JOINS), (101, 110, 99, GAP),
    (105, 110, 100, JOINS)])
def test_the_first_futures_delta_contains_the_snapshot(first, last, before, verdict):
    venue = create("binance-usdm", ["A"])
    assert venue.bridges(100, venue.decode(vectrade.depth("A", first, last, before))[0]) == verdict


@pytest.mark.parametrize(("first", "last", "before", "verdict"), [
    (105, 110, 100, JOINS), (101, 110, 99, GAP), (105, 110, 101, GAP), (90, 100, 80, OLDER), (80, 90, 70, OLDER)])
def test_any_later_futures_delta_names_the_one_before(first, last, before, verdict):
    venue = create("binance-usdm", ["A"])
    assert venue.follows(100, venue.decode(vectrade.depth("A", first, last, before))[0]) == verdict


def spot_depth(first: int, last: int) -> bytes:
    return orjson.dumps({"stream": "a@depth@100ms", "data": {
        "e": "depthUpdate", "E": 5, "s": "A", "U": first, "u": last, "b": [], "a": []}})


@pytest.mark.parametrize(("first", "last", "bridges", "follows"), [
    (90, 100, OLDER, OLDER), (90, 101, JOINS, GAP), (101, 105, JOINS, JOINS), (102, 105, GAP, GAP),
    (101, 101, JOINS, JOINS)])
def test_spot_deltas_adjoin(first, last, bridges, follows):
    venue = create("binance-spot", ["A"])
    delta = venue.decode(spot_depth(first, last))[0]
    assert (venue.bridges(100, delta), venue.follows(100, delta)) == (bridges, follows)
    assert delta.event_ns == 5 * 10**6 and delta.prev_id == 0


def usdm_trade(**changes) -> bytes:
    return orjson.dumps({"stream": "a@trade", "data": {
        "e": "trade", "E": 3, "T": 2, "s": "A", "t": 9, "p": "100.10", "q": "0.5", "X": "MARKET", "m": False,
        **changes}})


def test_the_maker_tells_the_aggressor():
    venue = create("binance-usdm", ["A"])
    assert venue.decode(usdm_trade()) == (Trade(0, 9, 2 * 10**6, 10010 * ONE // 100, ONE // 2),)
    assert venue.decode(usdm_trade(m=True))[0].qty == -ONE // 2


@pytest.mark.parametrize(("frame", "level"), [
    (usdm_trade(X="INSURANCE_FUND", p="0"), "info"), (usdm_trade(s="Z"), "info"),
    (usdm_trade(e="markPriceUpdate"), "info"),
    (b'{"result":null,"id":1}', "info"), (b'{"error":{"code":2,"msg":"Invalid request"},"id":1}', "error"),
    (b'{"code":3,"msg":"Invalid JSON"}', "error"), (b'{"stream":"x","data":{"e":"serverShutdown","E":1}}', "info")])
def test_binance_notices(frame, level):
    event, = create("binance-usdm", ["A"]).decode(frame)
    assert isinstance(event, Notice) and event.level == level


def test_a_raw_frame_without_its_stream_is_understood():
    venue = create("binance-usdm", ["A"])
    inner = orjson.dumps(orjson.loads(usdm_trade())["data"])
    assert venue.decode(inner) == venue.decode(usdm_trade())


def test_a_futures_delta_without_pu_is_refused():
    data = orjson.loads(vectrade.depth("A", 1, 2, 0))
    del data["data"]["pu"]
    with pytest.raises(VenueError, match="pu"):
        create("binance-usdm", ["A"]).decode(orjson.dumps(data))
