"""Recordings of Binance as a client meets them: nothing missing, nothing changed, snapshots that join."""

import threading
import time

import orjson
import pytest

from common import captures
from common.events import GAP, JOINS, OLDER
from common.loopback import binance
from common.venues.binance import BinanceSpot, BinanceUsdM

USDM = "usdm_btcusdt_20240718.gz"
DEPTH = "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"


def recorded(path) -> tuple[list[bytes], bytes]:
    """All stream frames of a file, and its snapshot."""
    frames = [frame for _, frame in captures.read([path])]
    return ([frame for frame in frames if not captures.is_snapshot(frame)],
            next((frame for frame in frames if captures.is_snapshot(frame)), b""))


def receive(client, count: int) -> list[bytes]:
    return [client.recv(10, decode=False) for _ in range(count)]


def small(path, frames: list[tuple[int, bytes]]):
    path.write_bytes(b"".join(b"%d %s\n" % (stamp, frame) for stamp, frame in frames))
    return path


def depth_frame(first: int, last: int, symbol: bytes = b"BTCUSDT") -> bytes:
    return (b'{"stream":"%s@depth@0ms","data":{"e":"depthUpdate","E":1,"T":1,"s":"%s","U":%d,"u":%d,"pu":%d,'
            b'"b":[["%d.00","1.0"]],"a":[]}}' % (symbol.lower(), symbol, first, last, first - 1, last))


def snapshot_frame(last: int) -> bytes:
    return b'{"lastUpdateId":%d,"E":1,"T":1,"bids":[["1.00","5.0"]],"asks":[["900.00","5.0"]]}' % last


def test_a_playback_equals_the_file_byte_for_byte(serving, recordings):
    path = recordings / "binance" / USDM
    frames, snapshot = recorded(path)
    venue = BinanceUsdM(["BTCUSDT"])
    with serving(captures=(str(path),), speed=0.0) as served, served.socket(venue.path()) as client:
        answer = served.http("GET", DEPTH, headers={})
        assert answer.body == snapshot
        assert receive(client, len(frames)) == frames
        status = served.http("GET", "/loopback/status").json
        assert status | {"mode": "capture", "finished": True, "played": len(frames) + 1, "clients": 1,
                         "venue": "binance-usdm", "symbols": ["BTCUSDT"], "error": ""} == status
        client.ping().wait(10)  # the connection stays open


def test_only_the_streams_that_were_asked_for_come(serving, recordings):
    path = recordings / "binance" / USDM
    wanted = [frame for frame in recorded(path)[0] if b"@depth" in frame[:40]]
    with serving(captures=(str(path),), speed=0.0) as served:
        with served.socket("/stream?streams=btcusdt@depth@100ms") as client:  # recorded at @0ms
            served.http("GET", DEPTH)
            assert receive(client, len(wanted)) == wanted


def test_two_clients_get_each_what_they_asked_for(serving, tmp_path):
    rest_ns = 2 * 10**9  # in the middle, for the second client to come
    frames = [(i + rest_ns * (i >= 300), b'{"stream":"btcusdt@%s","data":{"n":%d}}' % (
        [b"trade", b"bookTicker"][i % 2], i)) for i in range(600)]
    path = small(tmp_path / "a", [(0, depth_frame(1, 2)), *frames])
    with serving(captures=(str(path),), speed=1.0) as served, served.socket("/stream") as both, \
            served.socket("/stream") as one:
        for client, params in ((one, ["btcusdt@trade"]), (both, ["btcusdt@bookTicker", "btcusdt@trade"])):
            client.send(orjson.dumps({"method": "SUBSCRIBE", "params": params, "id": 5}).decode())
        answers = []
        for client in (one, both):
            got = [client.recv(10, decode=False)]
            while b'"n":599}' not in got[-1] and not (client is one and b'"n":598}' in got[-1]):
                got.append(client.recv(10, decode=False))
            answers.append(got)
        assert answers[0][0] == b'{"result":null,"id":5}' and answers[0][1:] == [f for _, f in frames[::2]]
        assert answers[1][0] == b'{"result":null,"id":5}', "the answer comes before the first frame"
        late = [frame for _, frame in frames]
        assert answers[1][1:] == late[-len(answers[1][1:]):], "who comes later joins in the middle, without a gap"


def test_requests_over_the_socket_are_answered(serving, tmp_path):
    path = small(tmp_path / "a", [(0, depth_frame(1, 2))])
    with serving(captures=(str(path),)) as served, served.socket("/stream") as client:
        for request, answer in (
                ({"method": "SUBSCRIBE", "params": ["ethusdt@depth"], "id": 1}, {"result": None, "id": 1}),
                ({"method": "LIST_SUBSCRIPTIONS", "id": 2}, {"result": ["ethusdt@depth"], "id": 2}),
                ({"method": "UNSUBSCRIBE", "params": ["ethusdt@depth"], "id": 3}, {"result": None, "id": 3}),
                ({"method": "LIST_SUBSCRIPTIONS", "id": 4}, {"result": [], "id": 4})):
            client.send(orjson.dumps(request).decode())
            assert orjson.loads(client.recv(10)) == answer
        for nonsense in ("{", "[]", '{"method":"DANCE","id":9}', '{"method":"SUBSCRIBE","params":[7]}'):
            client.send(nonsense)
            assert orjson.loads(client.recv(10))["error"]["code"] == 2


def test_a_snapshot_that_is_asked_for_too_early_waits_for_its_line(serving, tmp_path):
    path = small(tmp_path / "a", [(0, depth_frame(1, 5)), (1, snapshot_frame(5)), (2, depth_frame(6, 8))])
    with serving(captures=(str(path),)) as served:
        answers: list = []
        thread = threading.Thread(target=lambda: answers.append(served.http("GET", DEPTH)))
        thread.start()
        while not served.http("GET", "/loopback/status").json["snapshots_waiting"]:
            time.sleep(0.005)
        assert not answers
        with served.socket("/stream?streams=btcusdt@depth"):
            thread.join(10)
        assert answers[0].body == snapshot_frame(5)


@pytest.mark.parametrize(("kind", "name"), [(BinanceUsdM, USDM), (BinanceSpot, "spot_btcusdt_20240808.gz")])
def test_snapshots_bridge_by_the_venues_own_rules_at_the_start_and_in_the_middle(serving, recordings, kind, name):
    path = recordings / "binance" / name
    venue = kind(["BTCUSDT"])
    request = venue.snapshot_request(0)
    with serving(captures=(str(path),), speed=200.0) as served, served.socket(venue.path()) as client:
        for _ in range(4):  # the recorded one, then rebuilt ones
            waiting: list = []
            thread = threading.Thread(target=lambda: waiting.append(served.http("GET", request.path).body))
            thread.start()
            deltas = []
            snapshot = None
            verdict = OLDER
            while verdict != JOINS:
                for event in venue.decode(client.recv(10, decode=False)):
                    if type(event).__name__ == "Delta":
                        deltas.append(event)
                if snapshot is None and waiting:
                    snapshot = venue.decode_snapshot(0, waiting[0])
                while snapshot is not None and deltas and verdict != JOINS:
                    verdict = venue.bridges(snapshot.last_id, deltas.pop(0))
                    assert verdict != GAP
            thread.join()
            last = None
            for _ in range(300):
                for event in venue.decode(client.recv(10, decode=False)):
                    if type(event).__name__ == "Delta":
                        assert last is None or venue.follows(last, event) == JOINS
                        last = event.last_id


def test_a_client_that_joins_late_gets_a_snapshot_that_joins_what_it_receives(serving, tmp_path):
    frames = [depth_frame(10 * i + 1, 10 * i + 10) for i in range(2000)]
    lines = [(i * 1_000_000, frame) for i, frame in enumerate(frames)]
    path = small(tmp_path / "a", [lines[0], (0, snapshot_frame(10)), *lines[1:]])
    with serving(captures=(str(path),)) as served, served.socket("/stream?streams=btcusdt@depth") as first:
        receive(first, 20)
        with served.socket("/stream?streams=btcusdt@depth") as late:
            taken = orjson.loads(served.http("GET", DEPTH).body)
            updates = [orjson.loads(frame)["data"] for frame in receive(late, 50)]
            assert taken["lastUpdateId"] in [data["u"] for data in updates]
            assert len(taken["bids"]) == taken["lastUpdateId"] // 10, "every update so far, and the recorded level"


def test_at_the_clients_pace_a_reader_that_pauses_holds_the_playback_and_loses_nothing(serving, tmp_path):
    frames = [b'{"stream":"btcusdt@trade","data":{"n":%d,"x":"%s"}}' % (i, b"x" * 1000) for i in range(30_000)]
    path = small(tmp_path / "a", [(0, depth_frame(1, 2)), *((i, frame) for i, frame in enumerate(frames))])
    with serving(captures=(str(path),), speed=0.0) as served:
        with served.socket("/stream?streams=btcusdt@trade", max_queue=4) as client:
            got = receive(client, 10)
            played = -1
            while (now := served.http("GET", "/loopback/status").json)["played"] != played:
                played = now["played"]
                time.sleep(0.05)
            assert played < len(frames) and not now["finished"]
            assert got + receive(client, len(frames) - 10) == frames


def test_files_of_two_symbols_are_played_together_and_have_each_their_snapshot(serving, recordings):
    paths = [recordings / "binance" / f"usdm_{pair}_20240718.gz" for pair in ("btcusdt", "ethusdt")]
    snapshots = [recorded(path)[1] for path in paths]
    with serving(captures=tuple(map(str, paths)), speed=0.0) as served:
        with served.socket(BinanceUsdM(["BTCUSDT", "ETHUSDT"]).path()) as client:
            for symbol, snapshot in zip(("BTCUSDT", "ETHUSDT"), snapshots):
                assert served.http("GET", f"/fapi/v1/depth?symbol={symbol}&limit=1000").body == snapshot
            frames = [frame for _, frame in captures.read(paths) if not captures.is_snapshot(frame)]
            assert receive(client, len(frames)) == frames


def test_what_the_depth_endpoint_refuses(serving, tmp_path):
    path = small(tmp_path / "a", [(0, depth_frame(1, 2))])
    with serving(captures=(str(path),), speed=0.0) as served:
        for query, code in (("", -1102), ("?symbol=DOGEUSDT", -1121), ("?symbol=BTCUSDT&limit=many", -1130),
                            ("?symbol=BTCUSDT&limit=0", -1130)):
            answer = served.http("GET", f"/api/v3/depth{query}")
            assert (answer.status, answer.json["code"]) == (400, code)
        with served.socket("/stream?streams=btcusdt@depth") as client:
            receive(client, 1)
            answer = served.http("GET", "/api/v3/depth?symbol=BTCUSDT")
            assert (answer.status, answer.json["msg"]) == (400, "The recording holds no snapshot.")
        assert served.http("POST", DEPTH, b"").status == 405
        assert served.http("GET", "/api/v3/ping").status == 404


def test_a_recording_takes_no_orders_and_says_what_to_do(serving, tmp_path):
    path = small(tmp_path / "a", [(0, depth_frame(1, 2))])
    with serving(captures=(str(path),)) as served:
        answer = served.http("POST", "/api/trade/v1/bot/orders", {"symbol": "BTCUSDT"})
        assert answer.status == 422 and "paper" in answer.json["error"]["message"]


def test_a_recording_with_a_bad_line_is_played_up_to_it_and_says_so(serving, tmp_path):
    path = small(tmp_path / "a", [(0, depth_frame(1, 2)), (1, depth_frame(3, 4)), (2, b"rubbish"),
                                  (3, depth_frame(5, 6))])
    with serving(captures=(str(path),), speed=0.0) as served:
        with served.socket("/stream?streams=btcusdt@depth") as client:
            assert receive(client, 2) == [depth_frame(1, 2), depth_frame(3, 4)]
            status = served.http("GET", "/loopback/status").json
            assert status["finished"] and "a:3" in status["error"]


def test_a_long_silence_in_a_recording_is_cut_short(serving, tmp_path, monkeypatch):
    monkeypatch.setattr(binance, "LONGEST_PAUSE_S", 0.01)
    path = small(tmp_path / "a", [(0, depth_frame(1, 2)), (10**15, depth_frame(3, 4)), (1, depth_frame(5, 6))])
    with serving(captures=(str(path),)) as served, served.socket("/stream?streams=btcusdt@depth") as client:
        assert len(receive(client, 3)) == 3
