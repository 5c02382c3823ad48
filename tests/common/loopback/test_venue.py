"""Recordings of every venue as a client meets them: its own protocol, books that are the recorded ones, at any time."""

import orjson
import pytest
import websockets.exceptions

from common.capture_lines import Connect, Disconnect, Frame, Header, Http, Missed, State
from common.venues import create, registry
from tests import frames as vectrade
from tests.common.loopback.played import captured, same, truth, write
from tests.common.venues.samples import Sample, samples
from tests.waiting import until


@pytest.fixture(scope="module", params=sorted(registry()))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def sample(name, recordings) -> Sample:
    return samples()[name](recordings)


def nothing_wrong(counts) -> bool:
    return not (counts.gaps or counts.lost or counts.checksum_mismatches or counts.crossed or counts.malformed
                or counts.quote_mismatches or counts.venue_errors)


# ---- for every venue


def test_a_client_of_any_venue_ends_with_the_recorded_book(serving, follow, tmp_path, name, sample):
    path = write(tmp_path / "a", captured(name, sample))
    with serving(captures=(str(path),), speed=0.0) as served:
        follower = follow(served, name, sample.symbols)
        follower.until(lambda: served.http("GET", "/loopback/status").json["finished"], "the end")
        follower.until(lambda: same(follower, truth(path), 1), "the recorded book")
        assert nothing_wrong(follower.counts) and follower.counts.snapshots >= 1 and follower.counts.trades > 0


def test_a_client_of_any_venue_may_join_in_the_middle(serving, follow, tmp_path, name, sample):
    path = write(tmp_path / "a", captured(name, sample))
    expected = truth(path)
    with serving(captures=(str(path),), speed=1.0) as served:
        first = follow(served, name, sample.symbols)
        first.valid(1)
        second = follow(served, name, sample.symbols)
        first.until(lambda: second.step() or same(first, expected, 1) and same(second, expected, 1), "the same books")
        assert nothing_wrong(first.counts) and nothing_wrong(second.counts)


# ---- what a recording may hold


HEAD = [Header("vectrade", ("A", "B")), Connect("wss://venue.example/ws")]
SUBSCRIBE = create("vectrade", ["A", "B"]).subscriptions()[0].decode()


def received(client, count: int) -> list[bytes]:
    return [client.recv(10, decode=False) for _ in range(count)]


def status(served) -> dict:
    return served.http("GET", "/loopback/status").json


def test_frames_come_byte_for_byte_and_only_those_of_the_symbols_that_were_asked_for(serving, tmp_path):
    odd = b'{"channel":"orderbook:A",  "type":"delta","sequence":2,"timestamp":5,"bids":[],"asks":[]}'
    of_a = [vectrade.snapshot("A", 1), odd, b'{"type":"heartbeat","timestamp":1}', b"rubbish\n\xff"]
    path = write(tmp_path / "a", [*HEAD, vectrade.snapshot("B", 1), of_a[0], of_a[1], vectrade.delta("B", 2), of_a[2],
                                  Frame(of_a[3])])
    with serving(captures=(str(path),), speed=0.0) as served, served.socket("/ws") as client:
        client.send('{"action":"subscribe","channels":["orderbook:A"]}')
        assert received(client, 5) == [b'{"type":"subscribed","channels":["orderbook:A"]}', *of_a]
        told = status(served)
        assert told | {"mode": "capture", "venue": "vectrade", "symbols": ["A", "B"], "finished": True,
                       "played": 8, "valid_symbols": 2, "error": ""} == told


def test_who_subscribes_again_gets_the_book_as_it_is_now(serving, tmp_path):
    path = write(tmp_path / "a", [*HEAD, vectrade.snapshot("A", 1), vectrade.delta("A", 2, bids=[(98, 7)])])
    with serving(captures=(str(path),), speed=0.0) as served, served.socket("/ws") as client:
        client.send(SUBSCRIBE)
        received(client, 3)
        for frame in create("vectrade", ["A"]).resync(0):
            client.send(frame.decode())
        book = orjson.loads(received(client, 3)[-1])
        assert book["sequence"] == 2 and book["bids"] == [["99", "1"], ["98", "7"]] and book["timestamp"] == 1002


@pytest.mark.parametrize("line", [Disconnect("gone"), Missed(3), Connect("wss://venue.example/ws"), HEAD[0]])
def test_where_the_recording_breaks_off_the_connections_end_and_begin_anew(serving, follow, tmp_path, line):
    path = write(tmp_path / "a", [*HEAD, vectrade.snapshot("A", 1), vectrade.delta("A", 2), line,
                                  vectrade.snapshot("A", 1), vectrade.delta("A", 2, bids=[(97, 3)])])
    with serving(captures=(str(path),), speed=0.0) as served:
        follower = follow(served, "vectrade", ("A", "B"))
        follower.until(lambda: same(follower, truth(path), 0), "the book of the second connection")
        assert follower.counted == {"connects": 2, "disconnects": 1} and nothing_wrong(follower.counts)


def test_a_handover_between_connections_goes_on_with_the_same_books(serving, follow, tmp_path):
    path = write(tmp_path / "a", [*HEAD, vectrade.snapshot("A", 1), Connect("wss://venue.example/ws", handover=True),
                                  vectrade.delta("A", 2, bids=[(97, 3)])])
    with serving(captures=(str(path),), speed=0.0) as served:
        follower = follow(served, "vectrade", ("A", "B"))
        follower.until(lambda: same(follower, truth(path), 0))
        assert follower.counted == {"connects": 1}


def test_a_recording_that_begins_in_the_middle_serves_the_book_as_it_was(serving, follow, tmp_path):
    path = write(tmp_path / "a", [*HEAD, State("A", vectrade.snapshot("A", 9)), vectrade.delta("A", 10)])
    with serving(captures=(str(path),), speed=0.0) as served:
        follower = follow(served, "vectrade", ("A", "B"))
        follower.until(lambda: same(follower, truth(path), 0))
        assert follower.counts.gaps == 0 and follower.market.symbols[0].last_id == 10


def test_a_recording_may_be_played_several_times(serving, follow, tmp_path):
    path = write(tmp_path / "a", [*HEAD, vectrade.snapshot("A", 1), vectrade.delta("A", 2)])
    with serving(captures=(str(path),), speed=0.0, repeat=3) as served:
        follower = follow(served, "vectrade", ("A", "B"))
        follower.until(lambda: status(served)["finished"])
        follower.until(lambda: same(follower, truth(path), 0))
        assert status(served)["times"] == 3 and follower.counted == {"connects": 3, "disconnects": 2}


def test_errors_of_the_recorded_connection_are_not_for_others(serving, tmp_path):
    error = b'{"type":"error","code":"UNKNOWN_CHANNEL","message":"of long ago"}'
    path = write(tmp_path / "a", [*HEAD, error, vectrade.snapshot("A", 1)])
    with serving(captures=(str(path),), speed=0.0) as served, served.socket("/ws") as client:
        client.send(SUBSCRIBE)
        assert received(client, 2)[1] == vectrade.snapshot("A", 1)


def test_nonsense_from_a_client_is_ignored_and_a_damaged_line_ends_the_playback(serving, tmp_path):
    path = write(tmp_path / "a", [*HEAD, vectrade.snapshot("A", 1)])
    with open(path, "ab") as file:
        file.write(b'2000000000000000000 {"alpha":"dance"}\n')
    with serving(captures=(str(path),), speed=0.0) as served, served.socket("/ws") as client:
        for nonsense in ("{", "[]", "7", "null", '{"action":"dance"}'):
            client.send(nonsense)
        client.send(SUBSCRIBE)
        assert received(client, 2)[1] == vectrade.snapshot("A", 1)
        until(lambda: status(served)["finished"])
        assert "dance" in status(served)["error"]


def test_a_path_that_is_not_the_venues_is_404(serving, tmp_path):
    path = write(tmp_path / "a", [*HEAD, vectrade.snapshot("A", 1)])
    with serving(captures=(str(path),), speed=0.0) as served:
        with pytest.raises(websockets.exceptions.InvalidStatus, match="404"):
            served.socket("/elsewhere")
        assert served.http("GET", "/nothing").status == 404
        answer = served.http("POST", "/api/trade/v1/bot/orders", {"symbol": "A"})
        assert answer.status == 422 and "paper" in answer.json["error"]["message"]


# ---- HTTP


FUTURES = [Header("binance-usdm", ("A",)), Connect("wss://venue.example/stream")]
DEPTH = create("binance-usdm", ["A"]).snapshot_request(0).path


def test_snapshots_by_http_are_of_the_moment_and_recorded_answers_are_given_as_they_were(serving, tmp_path):
    path = write(tmp_path / "a", [
        *FUTURES, Http("", "/fapi/v1/exchangeInfo", 200, b'{"symbols":[ ]}'), vectrade.depth("A", 1, 10, 0),
        Http("A", DEPTH, 200, vectrade.rest(10)), vectrade.depth("A", 11, 20, 10, bids=[(98, 5)])])
    with serving(captures=(str(path),), speed=0.0) as served:
        with served.socket("/stream?streams=a@depth@0ms") as client:
            assert received(client, 2)[1] == vectrade.depth("A", 11, 20, 10, bids=[(98, 5)])
        answer = served.http("GET", DEPTH)
        assert answer.json["lastUpdateId"] == 20 and answer.json["bids"] == [["99", "1"], ["98", "5"]]
        assert served.http("GET", "/fapi/v1/exchangeInfo").body == b'{"symbols":[ ]}'
        assert served.http("POST", DEPTH, b"").status == 405


def test_a_book_that_the_recording_never_tells_is_refused_at_its_end(serving, tmp_path):
    path = write(tmp_path / "a", [*FUTURES, vectrade.depth("A", 1, 10, 0)])
    with serving(captures=(str(path),), speed=0.0) as served, served.socket("/stream?streams=a@depth") as client:
        received(client, 1)
        answer = served.http("GET", DEPTH)
        assert (answer.status, answer.json["error"]["code"]) == (503, "NO_BOOK")
