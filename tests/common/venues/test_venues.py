"""The contract of a venue, checked for every one that is registered.

A venue that is added is tested by being there: it needs a sample in tests/common/venues/samples.
"""

import itertools
import json

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.clock import ManualClock
from common.errors import ConfigError, ContractError, VenueError
from common.events import ALL, Delta, Lost, Notice, Quote, Reply, Snapshot, Trade
from common.market import Market
from common.ring import Books
from common.venues import create, fields, registry
from tests.common.venues.samples import Sample, samples


@pytest.fixture(scope="session", params=sorted(registry()))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def sample(name, recordings) -> Sample:
    found = samples()
    assert name in found, f"write tests/common/venues/samples/*.py with SAMPLES[{name!r}]"
    return found[name](recordings)


@pytest.fixture
def venue(name, sample):
    return create(name, sample.symbols)


def plain(event):
    """An event that can be compared: its levels as a list."""
    if isinstance(event, (Delta, Snapshot)):
        return event._replace(levels=event.levels[:event.n_bids + event.n_asks].tolist())
    return event


def fresh(venue, frame: bytes | bytearray) -> list:
    """What one frame means to a connection that has just begun."""
    venue.begin()
    return [plain(event) for event in venue.decode(frame)]


def slowly(venue, frame: bytes) -> list:
    return [plain(event) for event in fields.decode(frame, venue._read)]


def has_templates(venue) -> bool:
    return hasattr(venue, "_scanner")


def played(venue, sample: Sample, frames) -> Market:
    """A market that has been given these frames, and the snapshot where it asks for one by HTTP."""
    clock = ManualClock(10**18)
    market = Market(venue, Books.private(venue.symbols, 4096), clock, seed=0)
    market.begin()
    market.on_connect(clock.now_ns)
    for frame in frames:
        clock.set(clock.now_ns + 10**9)
        market.on_frame(frame, clock.now_ns)
        market.work()
        if market.wants_snapshot:
            market.wants_snapshot.clear()
            market.on_snapshot(1, sample.snapshot, clock.now_ns)
    return market


# ---- for every venue


def test_it_is_registered_under_its_name_and_keeps_its_symbols(venue, name, sample):
    assert venue.name == name and tuple(venue.symbols) == sample.symbols
    assert venue.path().startswith("/")
    assert venue.ws_url == "" or venue.ws_url.startswith("wss://")
    assert venue.rest_url == "" or venue.rest_url.startswith("https://")
    assert all(isinstance(frame, bytes) and orjson.loads(frame) for frame in venue.subscriptions())


def test_a_snapshot_comes_either_by_http_or_in_band(venue, sample):
    request = venue.snapshot_request(1)
    if request is None:
        assert venue.resync(1) and sample.snapshot is None
        with pytest.raises(ContractError):
            venue.decode_snapshot(1, b"{}")
    else:
        assert request.path.startswith("/") and sample.symbols[1] in request.path and not venue.resync(1)
        snapshot = venue.decode_snapshot(1, sample.snapshot)
        assert snapshot.symbol == 1 and snapshot.last_id > 0 and snapshot.n_bids > 0 < snapshot.n_asks


def test_its_sample_has_every_kind_of_event_of_the_right_symbol(venue, sample):
    kinds = set()
    venue.begin()
    for frame in sample.frames:
        for event in venue.decode(frame):
            kinds.add(type(event))
            assert isinstance(event, (Notice, Reply)) or event.symbol == 1
    assert {Delta, Trade} <= kinds and (Snapshot in kinds) == (sample.snapshot is None) and Lost not in kinds


def test_its_sample_makes_a_valid_book_and_nothing_is_wrong_with_it(venue, sample):
    market = played(venue, sample, sample.frames)
    counts = market.counts
    assert market.valid_symbols == 1 and counts.snapshots == 1 and counts.trades > 0
    assert counts.gaps == counts.lost == counts.checksum_mismatches == counts.malformed == counts.crossed == 0
    assert counts.venue_errors == counts.quote_mismatches == 0
    assert (counts.checksums > 0) == (venue.checksum_depth > 0)
    market.symbols[1].book._check()


def test_a_change_that_is_missing_is_seen(venue, sample):
    """Whatever the venue has for it: numbers of changes, of frames, or checksums."""
    changes = [i for i, frame in enumerate(sample.frames) if any(
        isinstance(event, Delta) for event in fresh(venue, frame))]
    first = 40 if sample.snapshot else 0  # by then the book is joined to its snapshot
    missing = [change for change in changes[:-1] if change >= first][:10]
    assert missing, "the sample has too few changes"
    for change in missing:
        counts = played(venue, sample, sample.frames[:change] + sample.frames[change + 1:]).counts
        assert counts.gaps + counts.lost + counts.checksum_mismatches > 0, sample.frames[change]


def test_a_change_that_comes_twice_does_no_harm(venue, sample):
    changes = [i for i, frame in enumerate(sample.frames) if any(
        isinstance(event, Delta) for event in fresh(venue, frame))]
    for change in changes[:5]:
        market = played(venue, sample, sample.frames[:change + 1] + sample.frames[change:change + 1])
        whole = played(venue, sample, sample.frames[:change + 1])
        assert market.symbols[1].state is whole.symbols[1].state
        assert market.symbols[1].book.bids() == whole.symbols[1].book.bids()


def test_a_new_connection_begins_anew(venue, sample):
    market = played(venue, sample, sample.frames)
    market.on_disconnect(market._clock.now_ns)
    market.begin()
    market.on_connect(market._clock.now_ns)
    market.on_frame(sample.frames[0], market._clock.now_ns)
    assert market.counts.lost == market.counts.gaps == 0


def test_the_other_side_of_the_protocol_is_its_inverse(venue, sample):
    """What the loopback exchange says in this venue's name is understood by it."""
    wide = np.array([[10050 * 10**6, 25 * 10**7], [100 * 10**8, 10**8], [101 * 10**8, 5 * 10**8]], np.int64)
    whole = Snapshot(1, 12345, 1_700_000_000_123_000_000, wide, 2, 1)
    said = venue.encode_snapshot(whole)
    if sample.snapshot is None:
        found = [event for event in map(plain, venue.decode(said)) if isinstance(event, Snapshot)]
    else:
        found = [plain(venue.decode_snapshot(1, said))]
    expected = plain(whole)
    assert len(found) == 1 and found[0][3:6] == expected[3:6] and found[0].symbol == 1
    assert found[0].last_id in (0, 12345) and found[0].event_ns in (0, expected.event_ns)
    asked = [symbol for frame in venue.subscriptions() for symbol in venue.subscribed(frame)]
    assert sorted(asked) == ([] if not venue.subscriptions() else [0, 1])
    for symbol in (0, 1) if sample.snapshot is None else ():
        assert [found for frame in venue.resync(symbol) for found in venue.subscribed(frame)] == [symbol]
    for frame in (*venue.subscriptions(), *venue.resync(1)):
        for answer in venue.answer(frame):
            assert all(isinstance(event, Notice) and event.level == "info" for event in venue.decode(answer))
    beat = venue.heartbeat()
    if beat is not None:
        assert beat.every_s > 0
        answers = venue.answer(beat.frame)
        assert answers and all(isinstance(event, Notice) for answer in answers for event in venue.decode(answer))


def test_the_fast_path_takes_every_frame_of_the_sample(venue, sample):
    if has_templates(venue):
        assert [frame for frame in sample.frames if venue._scanner.match(frame)[0] < 0] == []


def test_the_fast_path_reads_what_the_slow_path_reads(venue, sample):
    if not has_templates(venue):
        return
    for frame in sample.frames:
        assert [plain(event) for event in venue.decode(frame)] == slowly(venue, frame)
    if sample.snapshot:
        whole = fields.decode(sample.snapshot, lambda data: venue._snapshot(data, 1))
        assert plain(venue.decode_snapshot(1, sample.snapshot)) == plain(whole)


def test_white_space_and_other_order_of_keys_change_nothing(venue, sample):
    for frame in sample.frames[:40]:
        expected = fresh(venue, frame)
        # Not by orjson: decimals that are JSON numbers keep their digits.
        tree = json.loads(frame, parse_float=lambda text: _Digits(text))
        spaced = json.dumps(tree, indent=2, sort_keys=True).encode()
        assert spaced != frame and fresh(venue, spaced) == expected


class _Digits(float):
    """A decimal that is written as it was read."""

    def __new__(cls, text: str):
        self = super().__new__(cls, text)
        self.text = text
        return self

    def __repr__(self) -> str:
        return self.text


def test_numbers_instead_of_strings_are_read_exactly(venue, sample):
    """As text, since no float holds them: 0.1 and 123456789.12345678."""
    if not has_templates(venue):
        return  # where the same field is always one or the other, the wrong type is refused
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
        assert fresh(venue, bytearray(frame)) == fresh(venue, frame)


def test_a_truncated_frame_is_refused(venue, sample):
    shortest = {}
    for frame in sample.frames:
        kind = tuple(map(type, fresh(venue, frame)))
        if len(frame) < len(shortest.get(kind, b" " * 10**6)):
            shortest[kind] = frame
    for frame in shortest.values():
        for cut in range(0, len(frame), 1 + len(frame) // 500):
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
    kinds = {tuple(map(type, fresh(venue, frame)))[:2]: frame for frame in sample.frames}
    for frame in kinds.values():
        for place in itertools.islice(_places(orjson.loads(frame)), 60):
            for wrong in WRONG:
                data = orjson.loads(frame)
                _put(data, place, wrong)
                venue.begin()
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
    return json.dumps(data, separators=(",", ":")).encode()


def _sane(event) -> bool:
    """Whatever is let through fits the rings and the book."""
    if isinstance(event, Notice):
        return event.level in ("info", "error")
    if isinstance(event, Reply):
        return isinstance(event.frame, bytes)
    if isinstance(event, Lost):
        return event.symbol in (ALL, 0, 1) and bool(event.text)
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


@settings(max_examples=150)
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
        events = fresh(venue, frame)
    except VenueError as refusal:
        assert refusal.where
    else:
        venue.begin()
        assert all(map(_sane, venue.decode(frame)))
        assert not has_templates(venue) or events == slowly(venue, bytes(frame))


_venues: dict = {}


# ---- the registry


def test_an_unknown_venue_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="binance-spot, binance-usdm, .*vectrade"):
        create("mtgox", ["A"])


@pytest.mark.parametrize("symbol", ["", 'A"B', "A\\", "\u00c4", "A" * 65, "A B", "A\n"])
def test_a_symbol_that_no_venue_could_have_is_refused(symbol):
    with pytest.raises(ConfigError, match="market.symbols"):
        create("vectrade", ["A", symbol])
