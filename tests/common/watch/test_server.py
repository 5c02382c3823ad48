"""The page's server: what it serves, to whom, and that whoever looks slowly or wrongly disturbs nobody."""

import asyncio
import http.client
import json
import socket
import threading
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from common import config as settings
from common import killswitch
from common.errors import ResourceError
from common.ring import Books
from common.telemetry import Telemetry
from common.watch import controls
from common.watch import server as served
from common.watch.access import SECURITY, Access
from common.watch.server import COUNTERS, FILES, Server, bind, chart_library
from tests.pipeline import free_port
from tests.ticks import write_ticks
from tests.waiting import until

TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def config(instance, tmp_path, run_dir):
    return settings.load(None, {
        "ALPHA_INSTANCE__NAME": instance, "ALPHA_INSTANCE__STATE_DIR": str(tmp_path),
        "ALPHA_INSTANCE__RUN_DIR": str(run_dir), "ALPHA_MARKET__SYMBOLS": '["A", "B"]',
        "ALPHA_MONITOR__PORT": str(free_port()), "ALPHA_MONITOR__REFRESH_MS": "50"})


@pytest.fixture
def start(config):
    """Starts a server, with the telemetry that it counts in."""
    running = []

    def start(token: str = TOKEN) -> tuple[Server, Telemetry]:
        telemetry = Telemetry.private("monitor", COUNTERS)
        telemetry.set("heartbeat_ns", time.monotonic_ns())
        server = Server(config, Access("127.0.0.1", token), telemetry)
        server.start()
        running.append(server)
        return server, telemetry

    yield start
    for server in running:
        server.close()


def get(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def stream(server: Server, origin: str | None = "", **options):
    own = f"http://127.0.0.1:{server.port}"
    return connect(f"ws://127.0.0.1:{server.port}/stream", origin=own if origin == "" else origin, open_timeout=60,
                   subprotocols=["alpha"], compression=None, **options)


async def read(connection, kind: str) -> dict:
    while True:
        found = json.loads(await asyncio.wait_for(connection.recv(), 60))
        if found["type"] == kind:
            return found


def test_the_page_is_whole_and_every_answer_carries_its_guards(start):
    server, _ = start()
    for path, (source, kind) in FILES.items():
        status, headers, body = get(server, path)
        assert (status, headers["Content-Type"], body) == (200, kind, source.read_bytes())
        assert SECURITY.items() <= headers.items()
        assert get(server, path, **{"If-None-Match": headers["ETag"]})[0] == 304
    status, headers, body = get(server, "/", **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip" and len(body) < FILES["/"][0].stat().st_size
    assert "Server" not in headers


def test_the_chart_library_is_that_of_the_package_or_is_not_there(start, monkeypatch):
    pytest.importorskip("plotly")
    server, _ = start()
    assert get(server, "/plotly.min.js")[2] == chart_library().read_bytes()
    monkeypatch.setattr(served, "chart_library", lambda: None)
    server.close()
    other, _ = start()
    assert get(other, "/plotly.min.js")[0] == 404

    async def hello():
        async with stream(other) as connection:
            return await read(connection, "hello")

    assert asyncio.run(hello())["charts"] is False


@pytest.mark.parametrize("path", [
    "/../../../../etc/passwd", "/..%2f..%2fetc/passwd", "/web/app.js", "/app.js/", "//app.js", "/index.html", "/%00",
    "/static/../app.js", "/app.js%00.html", "/server.py", "/favicon.ico", "/metrics/", "/\\..\\x"])
def test_what_is_not_in_the_table_is_not_there(start, path):
    server, _ = start()
    status, headers, body = get(server, path)
    assert status == 404 and body == b"there is no such page\n" and headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/stream", "/metrics", "/nothing"])
def test_there_is_nothing_to_do_but_to_get(start, method, path):
    server, telemetry = start()
    status, headers, _ = get(server, path, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD") and telemetry.get("page_denied") == 1
    assert SECURITY.items() <= headers.items()


def test_a_head_is_the_answer_without_its_body(start):
    server, _ = start()
    status, headers, body = get(server, "/", "HEAD")
    assert (status, body) == (200, b"") and int(headers["Content-Length"]) == FILES["/"][0].stat().st_size


def test_figures_and_health_are_told_and_never_kept(start, config):
    server, telemetry = start()
    status, headers, body = get(server, "/metrics")
    assert status == 200 and headers["Cache-Control"] == "no-store" and b"alpha_stage_up" in body
    assert headers["Content-Type"].startswith("text/plain")
    assert "openmetrics" in get(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")[1][
        "Content-Type"]
    assert get(server, "/healthz")[0] == 200
    telemetry.set("heartbeat_ns", time.monotonic_ns() - 60_000_000_000)  # the judging hangs
    assert get(server, "/healthz")[0] == 503
    status, _, body = get(server, "/readyz")
    assert status == 503 and "stage executor: it was not started, or was stopped" in json.loads(body)["reasons"]


def test_a_foreign_name_and_a_foreign_page_are_kept_out(start):
    server, telemetry = start()
    for path in ("/", "/metrics", "/stream"):
        assert get(server, path, Host="evil.example")[0] == 421

    async def refused(origin):
        with pytest.raises(InvalidStatus) as caught:
            async with stream(server, origin):
                pass
        return caught.value.response.status_code

    for origin in ("http://evil.example", "null", None, f"http://127.0.0.1:{server.port + 1}"):
        assert asyncio.run(refused(origin)) == 403
    assert telemetry.get("page_denied") == 7


def test_snapshots_come_to_who_looks_and_none_is_taken_for_nobody(start, config):
    server, telemetry = start()
    books = Books.create(config.instance.name, ["A", "B"], 1024)  # after the server has begun
    write_ticks(books, 0, 50, now_ns=time.monotonic_ns())
    write_ticks(books, 1, 50, now_ns=time.monotonic_ns())

    async def look():
        async with stream(server) as one, stream(server) as other:
            hello = await read(one, "hello")
            assert hello["controls"] and hello["instance"] == config.instance.name
            while not (await read(one, "snapshot"))["symbols"]:  # it is looked for twice a second
                pass
            await one.send(json.dumps({"type": "watch", "symbol": "B"}))
            history = await read(one, "history")
            assert history["symbol"] == "B" and len(history["mid"]) == 50
            while True:
                told = {row["name"]: row for row in (await read(one, "snapshot"))["symbols"]}
                if told["B"]["bids"]:
                    break
            assert told["A"]["bids"] is None and told["A"]["bid"]
            await read(other, "snapshot")
            for connection in (one, other):
                await connection.send(json.dumps({"type": "rest"}))
            await asyncio.sleep(0.5)  # so that the rest has been heard: nothing tells of it
            before = telemetry.get("page_snapshots")
            await asyncio.sleep(0.5)
            assert telemetry.get("page_snapshots") == before and telemetry.get("page_clients") == 2
            await one.send(json.dumps({"type": "watch", "symbol": None}))
            while telemetry.get("page_snapshots") == before:
                await read(one, "snapshot")

    asyncio.run(look())
    until(lambda: telemetry.get("page_clients") == 0, 60)
    before = telemetry.get("page_snapshots")
    time.sleep(0.3)
    assert telemetry.get("page_snapshots") - before <= 1 and telemetry.get("page_errors") == 0
    books.close()


def test_who_does_not_read_gets_the_newest_next_and_holds_up_nobody(start, config):
    server, telemetry = start()
    books = Books.create(config.instance.name, [f"S{n:03}" for n in range(200)], 1024)  # some 60 kB a snapshot

    async def look():
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little is on the way
        narrow.connect(("127.0.0.1", server.port))
        async with stream(server, max_queue=1, sock=narrow) as slow, stream(server) as quick:
            while telemetry.get("page_skipped") < 5:
                found = await read(quick, "snapshot")
            assert time.time_ns() - found["at_ns"] < 10e9
            times = []
            for _ in range(20_000):
                times.append((await read(slow, "snapshot"))["at_ns"])
                if times[-1] > found["at_ns"]:
                    break
            # Some were on the way already; then the newest, and not all that came in between.
            assert times == sorted(times) and times[-1] > found["at_ns"]

    asyncio.run(look())
    books.close()
    assert telemetry.get("page_errors") == 0


def test_there_is_room_for_so_many_and_no_more(start, monkeypatch):
    monkeypatch.setattr(served, "MOST_CLIENTS", 2)
    server, _ = start()

    async def look():
        async with stream(server) as one, stream(server) as two:
            await read(one, "hello")
            await read(two, "hello")
            with pytest.raises(InvalidStatus) as caught:
                async with stream(server):
                    pass
            assert caught.value.response.status_code == 503

    asyncio.run(look())


def ask(server: Server, **said) -> dict:
    async def asked():
        async with stream(server) as connection:
            await read(connection, "hello")
            await connection.send(json.dumps({"type": "control", "id": 7, **said}))
            return await read(connection, "answer")

    return asyncio.run(asked())


def test_a_control_takes_the_token_and_its_confirmation(start, config, monkeypatch):
    monkeypatch.setattr("common.watch.controls.PATIENCE_S", 0.0)
    monkeypatch.setattr(served, "_REFUSED_S", 0.0)
    server, telemetry = start()
    for said in ({"token": TOKEN[:-1]}, {"token": ""}, {}, {"token": None}, {"token": [TOKEN]}):
        answer = ask(server, do="halt", confirm="halt", **said)
        assert answer == {"type": "answer", "id": 7, "ok": False, "text": "refused: the token is wrong"}
    assert telemetry.get("page_denied") == 5
    for said in ({"do": "halt"}, {"do": "halt", "confirm": "resume"}, {"do": "arm", "confirm": "arm"}, {}):
        assert ask(server, token=TOKEN, **said)["text"] == "refused: not confirmed"
    assert killswitch.state(config.state_dir) is None
    answer = ask(server, do="halt", confirm="halt", why=" x" * 500, token=TOKEN)
    assert not answer["ok"] and "no executor confirms it" in answer["text"]
    found = killswitch.state(config.state_dir)
    assert found.who == "page" and len(found.why) <= 200
    assert "lifted" in ask(server, do="resume", confirm="resume", token=TOKEN)["text"]
    assert killswitch.state(config.state_dir) is None


def test_a_token_is_right_or_wrong_and_the_answer_to_a_wrong_one_is_slow(start, monkeypatch):
    waited = []

    async def sleep(seconds: float, real=asyncio.sleep) -> None:
        waited.append(seconds)
        await real(0)

    server, telemetry = start()
    monkeypatch.setattr(served.asyncio, "sleep", sleep)
    assert ask(server, type="token", token=TOKEN)["ok"] and served._REFUSED_S not in waited
    for wrong in (TOKEN[:-1], "", None, [TOKEN]):
        answer = ask(server, type="token", token=wrong)
        assert answer == {"type": "answer", "id": 7, "ok": False, "text": "refused: the token is wrong"}
    assert waited.count(served._REFUSED_S) == telemetry.get("page_denied") == 4


def test_without_a_token_there_is_nothing_but_to_look(start, config):
    server, _ = start("")
    for token in ("", None, "x"):
        assert "view only" in ask(server, do="halt", confirm="halt", token=token)["text"]
        told = ask(server, type="token", token=token)
        assert not told["ok"] and "view only" in told["text"]
    assert killswitch.state(config.state_dir) is None


@pytest.mark.parametrize("message", ["", "[", "[1]", "7", '"x"', "{}", b"\xff\xfe", "x" * 5000, "null"])
def test_what_is_not_understood_ends_that_connection_alone(start, message):
    server, telemetry = start()

    async def talk():
        async with stream(server) as one, stream(server) as other:
            await one.send(message)
            with pytest.raises(ConnectionClosed):
                while True:
                    await asyncio.wait_for(one.recv(), 60)
            await read(other, "snapshot")

    asyncio.run(talk())
    assert telemetry.get("page_errors") == 0


def test_garbage_instead_of_http_is_no_error_of_ours(start):
    server, telemetry = start()
    for garbage in (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9\r\n\r\n",
                    b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
            raw.sendall(garbage)
            raw.shutdown(socket.SHUT_WR)
            assert b"200 OK" not in raw.recv(4096)
    assert get(server, "/")[0] == 200 and telemetry.get("page_errors") == 0


def test_a_snapshot_that_fails_is_counted_and_the_next_comes(start, monkeypatch):
    server, telemetry = start()
    real, failing = served.Watched.take, [3]

    def take(self, depth):
        if failing[0]:
            failing[0] -= 1
            raise RuntimeError("a test")
        return real(self, depth)

    monkeypatch.setattr(served.Watched, "take", take)

    async def look():
        async with stream(server) as connection:
            await read(connection, "snapshot")

    asyncio.run(look())
    assert telemetry.get("page_errors") == 3


def test_a_server_that_breaks_begins_again(start, monkeypatch):
    real, failing = Server._turns, [1]

    async def turns(self):
        if failing[0]:
            failing[0] -= 1
            raise RuntimeError("a test")
        await real(self)

    monkeypatch.setattr(Server, "_turns", turns)
    server, telemetry = start()
    until(lambda: telemetry.get("page_errors") == 1, 60)
    assert get(server, "/healthz")[0] == 200


def test_a_port_that_is_taken_is_named(start, config):
    server, _ = start()
    with pytest.raises(ResourceError, match=str(server.port)):
        bind("127.0.0.1", server.port)
    with pytest.raises(ResourceError, match="no.such.host.invalid"):
        bind("no.such.host.invalid", 1)
    server.close()
    bind("127.0.0.1", server.port).close()


def test_a_halt_waits_for_nothing_that_is_under_way(start, config, monkeypatch):
    began, over = threading.Event(), threading.Event()

    def slow(config, what, *rest):
        if what == "resume":
            began.set()
            assert over.wait(60)
        return controls.Done(True, what)

    monkeypatch.setattr(served.controls, "act", slow)
    server, _ = start()

    async def play() -> None:
        async with stream(server) as one, stream(server) as other:
            for connection, what in ((one, "resume"), (other, "halt")):
                await connection.send(json.dumps({"type": "control", "id": 1, "do": what, "confirm": what, "why": "x",
                                                  "token": TOKEN}))
                await asyncio.to_thread(began.wait, 60)
            await asyncio.to_thread(until, lambda: killswitch.state(config.state_dir), 60)
            over.set()
            assert (await read(other, "answer"))["ok"]

    asyncio.run(play())


def test_connections_that_say_nothing_leave_room_for_the_monitor(start, monkeypatch):
    monkeypatch.setattr(served, "MOST_CONNECTIONS", 5)
    server, _ = start()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(12)]

    def cut_off(one: socket.socket) -> bool:
        one.settimeout(0.01)
        try:
            return one.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    ended: set[int] = set()

    def most_are_gone() -> bool:
        ended.update(i for i, one in enumerate(silent) if i not in ended and cut_off(one))
        return len(ended) >= 6

    until(most_are_gone, 60)
    for one in silent:
        one.close()

    def answers() -> bool:
        try:
            return get(server, "/healthz")[0] == 200
        except ConnectionError:  # the silent ones have not all been missed yet
            return False

    until(answers, 60)
