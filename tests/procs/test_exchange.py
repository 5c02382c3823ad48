"""The exchange as a process: it starts, says where, survives `kill -9`, ends cleanly, and names what is wrong."""

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import orjson
import pytest
import websockets.exceptions
import websockets.sync.client

ROOT = Path(__file__).resolve().parents[2]
ORDERS = "/api/trade/v1/bot/orders"


class Process:
    """`alpha exchange` on a free port, with state and sockets in `folder`."""

    def __init__(self, folder: Path, *arguments: str, port: str = "0", listening: bool = True) -> None:
        self.name = f"test-{uuid.uuid4().hex[:12]}"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ALPHA_")}
        environment |= {"ALPHA_INSTANCE__NAME": self.name, "ALPHA_INSTANCE__STATE_DIR": str(folder / "state"),
                        "ALPHA_INSTANCE__RUN_DIR": str(folder / "run"), "ALPHA_PLACEMENT__PIN": "false"}
        self.process = subprocess.Popen([sys.executable, "-m", "procs.exchange", "--port", port, *arguments],
                                        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        self.first_line = self.process.stdout.readline() if listening else ""
        self.port = int(self.first_line.split(":")[1]) if self.first_line else 0

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()
        for path in self.blocks():  # what kill -9 leaves
            path.unlink()

    def blocks(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"*{self.name}*"))

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors

    def http(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, path, json.dumps(body) if body else None, {"X-Bot-Key": "loopback"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def socket(self, path: str = "/ws"):
        return websockets.sync.client.connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None, compression=None,
                                              close_timeout=0.5)


def order(client_id: str, **changes) -> dict:
    return {"symbol": "BTC-USD", "side": "BUY", "order_type": "MARKET", "time_in_force": "IOC", "quantity": "0.01",
            "client_order_id": client_id} | changes


def record(folder: Path) -> list[dict]:
    return [orjson.loads(line) for line in (folder / "state" / "exchange.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_one_line_when_it_listens_and_ends_cleanly(tmp_path, number):
    with Process(tmp_path, "--rate", "100") as exchange:
        assert exchange.first_line.startswith("exchange listens on 127.0.0.1:")
        assert "BTC-USD" in exchange.first_line and "100 messages/s" in exchange.first_line
        with exchange.socket() as client:
            assert exchange.http("GET", "/loopback/status")[1]["clients"] == 1
            code, errors = exchange.end(number)
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                while True:
                    client.recv(10)
        assert code == 0 and closed.value.rcvd.code == 1001 and "Traceback" not in errors
        assert not exchange.blocks()


def test_a_signal_that_comes_while_it_starts_leaves_nothing(tmp_path):
    with Process(tmp_path, listening=False) as exchange:
        end = time.monotonic() + 60
        while not exchange.blocks():  # at once, not at the next look of a patient wait
            assert exchange.process.poll() is None and time.monotonic() < end
        assert exchange.end() == (0, "")
        assert not exchange.blocks()


def test_kill_9_in_the_middle_of_trading_loses_nothing_that_was_answered(tmp_path):
    answered: dict[str, dict] = {}
    lock = threading.Lock()

    def trade(exchange: Process, name: str) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            for i in range(10_000):
                asked = order(f"{name}-{i}", side="SELL" if i % 2 else "BUY")
                if i % 5 == 4:
                    asked |= {"order_type": "LIMIT", "limit_price": "1", "time_in_force": "GTC", "side": "BUY"}
                status, answer = exchange.http("POST", ORDERS, asked)
                assert status == 201
                with lock:
                    answered[asked["client_order_id"]] = answer

    for life in range(3):
        with Process(tmp_path) as exchange:
            for client_id, answer in answered.items():
                assert exchange.http("GET", f"{ORDERS}?client_order_id={client_id}")[1]["orders"] == [answer]
                assert exchange.http("POST", ORDERS, order(client_id))[0] == 200
            threads = [threading.Thread(target=trade, args=(exchange, f"{life}{name}")) for name in "abc"]
            before = len(answered)
            for thread in threads:
                thread.start()
            while len(answered) < before + 40:
                threads[0].join(0.01)
            exchange.process.kill()
            for thread in threads:
                thread.join()
    lines = record(tmp_path)
    ids = [line["client_order_id"] for line in lines if line["event"] == "order"]
    assert len(set(ids)) == len(ids) >= 120 and set(ids) >= set(answered)
    with Process(tmp_path) as exchange:
        sides = {line["order_id"]: 1 if line["side"] == "BUY" else -1 for line in lines if line["event"] == "order"}
        held = sum(round(float(line["quantity"]) * 100) * sides[line["order_id"]] for line in lines
                   if line["event"] == "fill")
        positions = exchange.http("GET", "/api/trade/v1/bot/portfolio")[1]["positions"]
        assert sum(round(float(position["quantity"]) * 100) for position in positions) == held
        assert exchange.end()[0] == 0


def test_a_record_that_cannot_grow_refuses_orders_and_goes_on_when_it_can(tmp_path):
    """The limit on file size stands in for a full disk."""
    with Process(tmp_path) as exchange:
        assert exchange.http("POST", ORDERS, order("a"))[0] == 201
        size = (tmp_path / "state" / "exchange.jsonl").stat().st_size
        unlimited = resource.prlimit(exchange.process.pid, resource.RLIMIT_FSIZE, (size + 50, resource.RLIM_INFINITY))
        status, answer = exchange.http("POST", ORDERS, order("b"))
        assert (status, answer["error"]["code"]) == (503, "RECORD_UNAVAILABLE")
        assert exchange.http("GET", f"{ORDERS}?client_order_id=b")[1] == {"orders": []}
        assert (tmp_path / "state" / "exchange.jsonl").stat().st_size == size
        resource.prlimit(exchange.process.pid, resource.RLIMIT_FSIZE, unlimited)
        assert exchange.http("POST", ORDERS, order("b"))[0] == 201
        assert exchange.end()[0] == 0
    assert [line["client_order_id"] for line in record(tmp_path) if line["event"] == "order"] == ["a", "b"]


def test_a_torn_record_is_mended_and_a_damaged_one_is_named(tmp_path):
    with Process(tmp_path) as exchange:
        exchange.http("POST", ORDERS, order("a"))
        exchange.end()
    path = tmp_path / "state" / "exchange.jsonl"
    path.write_bytes(path.read_bytes() + b'{"event":"order","order_')
    with Process(tmp_path) as exchange:
        assert exchange.http("POST", ORDERS, order("a"))[0] == 200
        exchange.end()
    path.write_bytes(b"rubbish\n" + path.read_bytes())
    with Process(tmp_path) as exchange:
        _, errors = exchange.process.communicate(timeout=20)
        assert exchange.process.returncode == 3 and "exchange.jsonl:1" in errors and "Traceback" not in errors


def test_a_taken_port_is_named_with_a_remedy(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Process(tmp_path, port=str(port)) as exchange:
            _, errors = exchange.process.communicate(timeout=20)
    assert exchange.process.returncode == 5 and exchange.first_line == ""
    assert f"127.0.0.1:{port}" in errors and "--port" in errors and "Traceback" not in errors
    assert not exchange.blocks()


def test_a_second_exchange_of_one_instance_is_refused(tmp_path):
    with Process(tmp_path) as first, Process(tmp_path) as second:
        _, errors = second.process.communicate(timeout=20)
        assert second.process.returncode == 6 and str(first.process.pid) in errors


def test_a_recording_is_served_from_the_command_line(tmp_path, recordings):
    path = recordings / "binance" / "usdm_btcusdt_20240718.gz"
    with Process(tmp_path, "--capture", str(path), "--speed", "0") as exchange:
        assert "1 recordings, speed 0" in exchange.first_line
        with exchange.socket("/stream?streams=btcusdt@trade") as client:
            exchange.http("GET", "/fapi/v1/depth?symbol=BTCUSDT")
            trades = [orjson.loads(client.recv(10)) for _ in range(974)]
        assert {trade["stream"] for trade in trades} == {"btcusdt@trade"}
        numbers = [trade["data"]["t"] for trade in trades]
        assert numbers == list(range(numbers[0], numbers[0] + 974))
        assert exchange.http("GET", "/loopback/status")[1]["finished"]
        assert exchange.end()[0] == 0


def test_a_capture_is_served_again_and_again_with_faults_that_are_written_down(tmp_path):
    frames = [b'{"channel":"orderbook:A","type":"%s","sequence":%d,"timestamp":5,"bids":[["1","%d"]],"asks":[]}' % (
        b"delta" if i else b"snapshot", i, i + 1) for i in range(50)]
    capture = tmp_path / "a.cap"
    capture.write_bytes(b"".join(b"%d %s\n" % (10**18 + i, line) for i, line in enumerate(
        [b'{"alpha":"capture","version":1,"venue":"vectrade","symbols":["A"]}', *frames])))
    with Process(tmp_path, "--capture", str(capture), "--speed", "0", "--repeat", "0", "--seed", "5", "--fault",
                 "drop:every=10,symbol=A") as exchange:
        assert "1 recordings" in exchange.first_line and "drop:every=10,symbol=A" in exchange.first_line
        for _ in range(3):
            with exchange.socket() as client:
                client.send('{"action":"subscribe","channels":["orderbook:A"]}')
                got = []
                with pytest.raises(websockets.exceptions.ConnectionClosed):
                    while True:
                        got.append(orjson.loads(client.recv(10)).get("sequence"))
            assert got[-1] == 49 and 9 in got and 10 not in got
        assert exchange.http("GET", "/loopback/status")[1]["faults"]["drop"] >= 12
        assert exchange.end()[0] == 0
    lines = [orjson.loads(line) for line in (tmp_path / "state" / "faults.jsonl").read_bytes().splitlines()]
    assert (lines[0]["plan"], lines[0]["seed"]) == (["drop:every=10,symbol=A"], 5)
    assert {(line["fault"], line["symbol"]) for line in lines[1:]} == {("drop", "A")}


def test_an_unknown_fault_is_refused_with_the_known_ones(tmp_path):
    with Process(tmp_path, "--fault", "explode") as exchange:
        _, errors = exchange.process.communicate(timeout=20)
    assert exchange.process.returncode == 2 and "half-open" in errors and "Traceback" not in errors


def test_faults_are_explained():
    text = subprocess.run([sys.executable, "-m", "procs.exchange", "--list-faults"], cwd=ROOT, capture_output=True,
                          text=True, check=True).stdout
    for name in ("drop", "checksum", "half-open", "storm", "http-429", "clock"):
        assert f"\n{name}:" in "\n" + text


def test_the_help_tells_sockets_and_messages():
    text = subprocess.run([sys.executable, "-m", "procs.exchange", "--help"], cwd=ROOT, capture_output=True,
                          text=True, check=True).stdout
    for word in ("/ws", "subscribe", "/api/trade/v1/bot/orders", "X-Bot-Key", "/stream?streams=", "/fapi/v1/depth",
                 "--capture", "exchange.jsonl", "--fault", "faults.jsonl", "--repeat"):
        assert word in text
