"""Each fault over real sockets against a feed as ingest has it: seen by it, confined to what it befalls, and healed.

The markets are recordings, so that what the books must be in the end is known.
"""

import itertools
import socket

import orjson
import pytest

from common import captures, faults
from common.capture_lines import Connect, Header
from common.config import Config
from common.config import Market as Settings
from common.errors import ConfigError
from common.events import Delta
from common.loopback.binance import Playback
from common.loopback.vectrade import Synthetic
from common.loopback.venue import Played
from common.synthetic import SyntheticMarket
from common.venues import create, registry
from tests import frames
from tests.common.loopback.played import MS, captured, same, truth, write
from tests.common.venues.samples import samples
from tests.waiting import until

SYMBOLS = ("A", "B", "C")
FUTURES = ("BTCUSDT", "ETHUSDT")


@pytest.fixture(scope="module")
def vectrade(tmp_path_factory):
    """A VecTrade market of three symbols, with the quotes that audit its books; 1.5 s, and what it ends as."""
    market = SyntheticMarket(SYMBOLS, rate=1000.0, start_ms=1_700_000_000_000)
    lines = [Header("vectrade", SYMBOLS), Connect("ws://venue.example/ws"), *map(market.snapshot, range(3))]
    for _ in range(1000):
        step = market.step()
        lines += [*market.trades(step), market.delta(step), market.ticker(step.symbol)]
    path = write(tmp_path_factory.mktemp("vectrade") / "a", lines, 1500 * MS // len(lines))
    return path, truth(path)


@pytest.fixture(scope="module")
def futures(tmp_path_factory, recordings):
    """Binance usd-m futures of two symbols; 1.5 s."""
    paths = [recordings / "binance" / f"usdm_{symbol.lower()}_20240718.gz" for symbol in FUTURES]
    lines = [text for _, text in itertools.islice(captures.tape(paths), 6000)]
    path = tmp_path_factory.mktemp("futures") / "a"
    write(path, [Header("binance-usdm", FUTURES), Connect("wss://venue.example/stream")], 0)
    with open(path, "ab") as file:
        for i, text in enumerate(lines):
            file.write(b"%d %s\n" % (10**18 + i * 1500 * MS // len(lines), text))
    return path, truth(path)


@pytest.fixture(params=["vectrade", "binance-usdm"])
def market(request):
    """(venue, symbols, recording, what it ends as)."""
    name = "vectrade" if request.param == "vectrade" else "futures"
    return request.param, SYMBOLS if name == "vectrade" else FUTURES, *request.getfixturevalue(name)


def applied(tmp_path, fault: str) -> list[dict]:
    lines = [orjson.loads(line) for line in (tmp_path / "faults.jsonl").read_bytes().splitlines()]
    assert lines[0]["plan"] and lines[0]["seed"] == 1
    return [line for line in lines[1:] if line["fault"] == fault]


def disturbed(serving, follow, market, *faults: str, base: Config = Config(), **settings):
    """A feed that has followed a disturbed recording to its end, and has its books again."""
    venue, symbols, path, expected = market
    with serving(base, disturb=faults, captures=(str(path),), speed=1.0) as served:
        follower = follow(served, venue, symbols, **settings)
        follower.valid(len(symbols))
        follower.until(lambda: served.http("GET", "/loopback/status").json["finished"], "the end", 30)
        follower.until(lambda: same(follower, expected, *range(len(symbols))), "the recorded books")
        told = served.http("GET", "/loopback/status").json["faults"]
        assert served.telemetry.get("faults") == sum(told.values())
    return follower


# ---- frames


def test_nothing_is_wrong_where_nothing_is_disturbed(serving, follow, market, tmp_path):
    follower = disturbed(serving, follow, market, "drop:at=1000000")
    counts = follower.counts
    assert counts.gaps == counts.malformed == counts.quote_mismatches == counts.resyncs == 0
    assert applied(tmp_path, "drop") == [] and follower.counted == {"connects": 1}


@pytest.mark.parametrize("fault", ["drop", "reorder"])
def test_a_change_that_is_missing_or_late_is_a_gap_of_its_symbol_alone(serving, follow, market, tmp_path, fault):
    target = market[1][1]
    follower = disturbed(serving, follow, market, f"{fault}:every=60,count=4,symbol={target}")
    done = applied(tmp_path, fault)
    assert 1 <= follower.counts.gaps <= len(done) <= 4 and {one["symbol"] for one in done} == {target}
    assert follower.disturbed(1) == follower.counts.gaps == follower.counts.resyncs
    assert follower.disturbed(0) == 0 and follower.counted["connects"] == 1


def test_a_change_that_comes_twice_does_no_harm(serving, follow, market, tmp_path):
    follower = disturbed(serving, follow, market, "duplicate:rate=0.1")
    assert len(applied(tmp_path, "duplicate")) > 20
    assert [follower.disturbed(i) for i in range(len(market[1]))] == [0] * len(market[1])


@pytest.mark.parametrize("how", ["cut", "utf8"])
def test_a_malformed_frame_is_counted_and_costs_its_symbol_a_gap(serving, follow, market, tmp_path, how):
    target = market[1][1]
    follower = disturbed(serving, follow, market, f"malformed:every=60,count=3,symbol={target},how={how}")
    assert follower.counts.malformed == len(applied(tmp_path, "malformed")) == 3
    assert follower.disturbed(0) == 0 < follower.disturbed(1) and follower.counted["connects"] == 1


def test_a_malformed_frame_that_is_no_change_costs_nothing_else(serving, follow, market, tmp_path):
    follower = disturbed(serving, follow, market, "malformed:every=20,count=5,what=trade")
    assert follower.counts.malformed == len(applied(tmp_path, "malformed")) == 5
    assert follower.counts.resyncs == 0


def test_a_wrong_quantity_is_found_by_the_venues_own_quotes(serving, follow, vectrade, tmp_path):
    follower = disturbed(serving, follow, ("vectrade", SYMBOLS, *vectrade), "checksum:rate=0.2,symbol=B,count=40")
    assert follower.counts.quote_mismatches > 0 and follower.disturbed(1) > 0
    assert follower.disturbed(0) == follower.disturbed(2) == 0 and len(applied(tmp_path, "checksum")) == 40


def test_an_oversized_frame_ends_the_connection_and_the_next_one_is_sound(serving, follow, market, tmp_path):
    limit = Config(market=Settings(max_frame_bytes=300_000))
    follower = disturbed(serving, follow, market, "oversized:at=150,count=1", base=limit, max_frame_bytes=300_000)
    assert follower.counted == {"connects": 2, "disconnects": 1}
    assert applied(tmp_path, "oversized")[0]["detail"] == "300001 bytes"


def test_how_bytes_are_cut_into_segments_changes_nothing(serving, follow, market, tmp_path):
    follower = disturbed(serving, follow, market, "split:rate=0.05", "coalesce:rate=0.02,size=40")
    counts = follower.counts
    assert counts.gaps == counts.malformed == counts.resyncs == 0 and follower.counted == {"connects": 1}
    assert len(applied(tmp_path, "split")) > 20 and len(applied(tmp_path, "coalesce")) > 5


def test_a_venue_whose_clock_jumps_disturbs_no_book(serving, follow, market, tmp_path):
    follower = disturbed(serving, follow, market, "clock:rate=0.1,seconds=-3600", "clock:rate=0.1,seconds=3600")
    assert len(applied(tmp_path, "clock")) > 40
    assert [follower.disturbed(i) for i in range(len(market[1]))] == [0] * len(market[1])


# ---- connections


@pytest.mark.parametrize("fault", ["silent", "half-open"])
def test_a_connection_that_says_nothing_more_is_given_up(serving, follow, market, tmp_path, fault):
    follower = disturbed(serving, follow, market, f"{fault}:at=200,count=1", stale_s=0.3)
    assert follower.counted["disconnects"] >= len(applied(tmp_path, fault)) == 1
    assert follower.counts.gaps == 0


def test_a_symbol_that_says_nothing_more_is_synchronised_anew(serving, follow, market, tmp_path):
    """Where snapshots come by HTTP nothing is subscribed to anew, so that it is again and again."""
    fault = f"stalled:at=100,count=1,symbol={market[1][1]}"
    follower = disturbed(serving, follow, market, fault, stale_book_s=0.3)
    assert follower.counts.stale >= 1 and follower.disturbed(1) >= 1 and follower.counted == {"connects": 1}
    assert len(applied(tmp_path, "stalled")) == 1


@pytest.mark.parametrize("how", ["abort", "close"])
def test_connections_that_end_again_and_again_are_made_anew(serving, follow, market, tmp_path, how):
    follower = disturbed(serving, follow, market, f"disconnect:every=300,count=4,how={how}")
    assert follower.counted["disconnects"] == len(applied(tmp_path, "disconnect")) >= 3
    assert follower.counts.gaps == 0


@pytest.mark.parametrize("how", ["accept", "open"])
def test_a_storm_passes(serving, follow, vectrade, tmp_path, how):
    follower = disturbed(serving, follow, ("vectrade", SYMBOLS, *vectrade), f"storm:count=4,how={how}")
    assert follower.counted["connects"] >= 1 and len(applied(tmp_path, "storm")) == 4
    assert follower.counted["connect_failures"] + follower.counted["disconnects"] >= 3


# ---- snapshots by HTTP


def test_snapshots_that_are_refused_or_late_come_in_the_end(serving, follow, futures, tmp_path, monkeypatch):
    monkeypatch.setattr("common.feed._LIMITED_S", 0.2)
    follower = disturbed(serving, follow, ("binance-usdm", FUTURES, *futures), "http-503:at=1,count=1",
                         "http-429:at=1,count=1,seconds=0", "slow:symbol=ETHUSDT,count=1,seconds=0.3")
    assert follower.counted["snapshot_failures"] == 2 and follower.counts.gaps == 0
    assert [len(applied(tmp_path, fault)) for fault in ("http-503", "http-429", "slow")] == [1, 1, 1]


def test_a_client_that_asks_too_often_is_told_when_to_come_again(serving, futures):
    path = create("binance-usdm", FUTURES).snapshot_request(0).path
    with serving(disturb=("http-429:seconds=7",), captures=(str(futures[0]),)) as served:
        answer = served.http("GET", path)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")


# ---- every venue, by whatever it has to prove its books with


@pytest.fixture(scope="module", params=sorted(registry()))
def sampled(request, recordings, tmp_path_factory):
    """(venue, symbols, capture, what it ends as, number of changes) of a venue's sample, over half a second."""
    sample = samples()[request.param](recordings)
    lines = captured(request.param, sample)
    path = write(tmp_path_factory.mktemp("sample") / "a", lines, 500 * MS // len(lines))
    venue = create(request.param, sample.symbols)
    venue.begin()
    changes = sum(isinstance(event, Delta) for frame in sample.frames[:400] for event in venue.decode(frame)[:1])
    return request.param, sample.symbols, path, truth(path), changes


@pytest.mark.parametrize("fault", ["drop", "checksum"])
def test_a_wrong_book_of_any_venue_is_seen_and_mended(serving, follow, tmp_path, sampled, fault):
    name, symbols, path, expected, changes = sampled
    if fault == "checksum" and not create(name, symbols).checksum_depth:
        pytest.skip("it sends no checksums")
    with serving(disturb=(f"{fault}:at={changes // 2},count=1",), captures=(str(path),), speed=1.0) as served:
        follower = follow(served, name, symbols)
        follower.until(lambda: served.http("GET", "/loopback/status").json["finished"], "the end")
        follower.until(lambda: same(follower, expected, 1), "the recorded book")
        counts = follower.counts
        assert counts.gaps + counts.lost + counts.checksum_mismatches >= len(applied(tmp_path, fault)) == 1
        assert counts.resyncs >= 1 and follower.disturbed(1) >= 1 and follower.counted["connects"] == 1


# ---- the synthetic market, and foreign recordings


def test_the_synthetic_market_is_disturbed_in_the_same_way(serving, follow, tmp_path):
    base = Config(market=Settings(symbols=SYMBOLS))
    with serving(base, disturb=("drop:every=100,count=3,symbol=B",), rate=1500.0) as served:
        follower = follow(served, "vectrade", SYMBOLS)
        follower.until(lambda: len(applied(tmp_path, "drop")) == 3, "three frames dropped")
        follower.until(lambda: follower.counts.resyncs == follower.counts.gaps > 0 == 3 - follower.market.valid_symbols)
        assert follower.disturbed(0) == follower.disturbed(2) == 0


def test_a_foreign_recording_is_disturbed_in_the_same_way(serving, follow, tmp_path, recordings):
    path = recordings / "binance" / "usdm_btcusdt_20240718.gz"
    with serving(disturb=("drop:at=300,count=1", "http-503"), captures=(str(path),), speed=30.0) as served:
        follower = follow(served, "binance-usdm", FUTURES[:1])
        follower.until(lambda: follower.counts.resyncs == 1, "a gap, healed")
        assert follower.counted["snapshot_failures"] == 1 and len(applied(tmp_path, "drop")) == 1


# ---- what is refused


def test_faults_that_cannot_be_are_refused_before_anybody_is_served(serving, vectrade):
    for fault, word in (("explode", "unknown fault"), ("drop:symbol=DOGE", "DOGE")):
        with pytest.raises(ConfigError, match=word):
            with serving(disturb=(fault,), captures=(str(vectrade[0]),)):
                pass


def test_a_half_open_connection_answers_no_ping(serving, vectrade):
    with serving(disturb=("half-open:at=1",), captures=(str(vectrade[0]),)) as served, served.socket("/ws") as client:
        client.send(create("vectrade", SYMBOLS).subscriptions()[0].decode())
        until(lambda: served.http("GET", "/loopback/status").json["faults"]["half-open"])
        assert not client.ping().wait(0.3)
        client.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: served.http("GET", "/loopback/status").json["clients"] == 0)


def test_a_fault_of_what_an_exchange_does_not_do_is_refused_by_its_name(serving, tmp_path):
    path = write(tmp_path / "a", [Header("vectrade", ("A",)), frames.snapshot("A", 1)])
    foreign = tmp_path / "b"
    foreign.write_bytes(b'0 {"stream":"btcusdt@depth","data":{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSDT","U":1,"u":2,'
                        b'"pu":0,"b":[["1.00","1.0"]],"a":[]}}\n')
    for served in ((str(path),), (str(foreign),)):
        for fault in ("order-lost", "fill-late"):
            with pytest.raises(ConfigError, match=f"--fault {fault}: a recording takes no orders"):
                with serving(captures=served, disturb=(fault,)):
                    pass
    assert Played.without == Playback.without == faults.OF_ORDERS and set(faults.OF_SNAPSHOTS) < set(Synthetic.without)
    for fault in ("http-429", "fill-lost"):
        with pytest.raises(ConfigError, match=f"--fault {fault}: vectrade"):
            with serving(disturb=(fault,)):
                pass
