"""The VecTrade gateway as a client meets it."""

import contextlib
import dataclasses
import itertools
import socket
import threading
import time

import orjson
import pytest
import websockets.exceptions

from common import fixed
from common.config import Config, Instrument, Market
from common.errors import ConfigError
from common.loopback import connections
from common.venues.vectrade import VecTrade

ORDERS = "/api/trade/v1/bot/orders"
NUMBERS = itertools.count(1)


def order(**changes) -> dict:
    return {"symbol": "AAPL", "asset_type": "EQUITY", "side": "BUY", "order_type": "MARKET", "quantity": "2",
            "limit_price": None, "stop_price": None, "time_in_force": "IOC",
            "client_order_id": f"t-{next(NUMBERS)}"} | changes


def subscribe(client, *channels: str, action: str = "subscribe") -> None:
    client.send(orjson.dumps({"action": action, "channels": channels}).decode())


def until(client, wanted) -> dict:
    """The first message for which `wanted` holds."""
    while True:
        message = orjson.loads(client.recv(10))
        if wanted(message):
            return message


# Channels.

def test_a_snapshot_is_followed_by_deltas_each_one_above_the_last(serving):
    with serving(rate=2000.0) as served, served.socket("/ws") as client:
        channels = [f"orderbook:{symbol}" for symbol in ("AAPL", "BTC-USD")]
        subscribe(client, *channels)
        assert orjson.loads(client.recv(10)) == {"type": "subscribed", "channels": channels}
        sequences: dict[str, int] = {}
        for _ in range(500):
            message = orjson.loads(client.recv(10))
            if message["type"] == "snapshot":
                assert message["channel"] not in sequences and len(message["bids"]) >= 10
            elif message["type"] == "delta":
                assert message["sequence"] == sequences[message["channel"]] + 1
            else:
                assert message["type"] == "heartbeat"
                continue
            sequences[message["channel"]] = message["sequence"]
        assert set(sequences) == set(channels)


def test_our_own_adapter_understands_every_frame_and_its_quotes_match_the_book(serving):
    venue = VecTrade(Config().market.symbols)
    books: list[tuple[dict, dict]] = [({}, {}) for _ in venue.symbols]
    last = [0] * len(venue.symbols)
    audited, kinds = 0, set()
    with serving(rate=2000.0) as served, served.socket(venue.path()) as client:
        for frame in venue.subscriptions():
            client.send(frame, text=True)
        for _ in range(1500):
            for event in venue.decode(client.recv(10, decode=False)):
                kinds.add(type(event).__name__)
                if type(event).__name__ in ("Delta", "Snapshot"):
                    bids, asks = books[event.symbol]
                    if type(event).__name__ == "Snapshot":
                        bids.clear()
                        asks.clear()
                    else:
                        assert event.first_id == last[event.symbol] + 1
                    last[event.symbol] = event.last_id
                    for i, (price, quantity) in enumerate(event.levels[:event.n_bids + event.n_asks].tolist()):
                        (bids if i < event.n_bids else asks)[price] = quantity
                        if not quantity:
                            (bids if i < event.n_bids else asks).pop(price)
                elif type(event).__name__ == "Quote" and event.update_id == last[event.symbol]:
                    bids, asks = books[event.symbol]
                    assert (event.bid, event.bid_qty) == max(bids.items())
                    assert (event.ask, event.ask_qty) == min(asks.items())
                    audited += 1
    assert kinds == {"Delta", "Snapshot", "Trade", "Quote", "Notice"} and audited > 100


def test_unsubscribing_and_subscribing_again_brings_a_new_snapshot_and_nothing_in_between(serving):
    with serving(rate=2000.0) as served, served.socket("/ws") as client:
        subscribe(client, "orderbook:AAPL")
        until(client, lambda message: message["type"] == "delta")
        subscribe(client, "orderbook:AAPL", action="unsubscribe")
        until(client, lambda message: message["type"] == "unsubscribed")
        subscribe(client, "orderbook:AAPL")
        message = until(client, lambda message: message["type"] != "heartbeat")
        assert message == {"type": "subscribed", "channels": ["orderbook:AAPL"]}
        snapshot = until(client, lambda message: message["type"] != "heartbeat")
        assert snapshot["type"] == "snapshot"
        assert until(client, lambda message: message["type"] == "delta")["sequence"] == snapshot["sequence"] + 1


def test_an_unknown_channel_is_an_error_and_the_others_are_served(serving):
    with serving() as served, served.socket("/ws") as client:
        subscribe(client, "orderbook:NOPE", "candles:AAPL", "ticker:AAPL")
        errors = [orjson.loads(client.recv(10)) for _ in range(2)]
        assert [(error["type"], error["code"]) for error in errors] == [("error", "UNKNOWN_CHANNEL")] * 2
        assert "orderbook:NOPE" in errors[0]["message"]
        assert orjson.loads(client.recv(10)) == {"type": "subscribed", "channels": ["ticker:AAPL"]}
        assert until(client, lambda message: message["type"] == "ticker")["channel"] == "ticker:AAPL"


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"action":"fly","channels":[]}', '{"action":"subscribe"}',
                                  '{"action":"subscribe","channels":7}', '{"action":"subscribe","channels":[[]]}'])
def test_a_message_that_is_not_understood_is_answered_and_the_connection_goes_on(serving, text):
    with serving() as served, served.socket("/ws") as client:
        client.send(text)
        assert orjson.loads(client.recv(10))["code"] == "MALFORMED_MESSAGE"
        subscribe(client, "trades:AAPL")
        assert orjson.loads(client.recv(10))["type"] == "subscribed"


def test_a_heartbeat_comes_without_any_subscription(serving):
    with serving() as served, served.socket("/ws") as client:
        beat = orjson.loads(client.recv(10))
        assert beat["type"] == "heartbeat" and abs(beat["timestamp"] / 1000 - time.time()) < 60


def test_a_client_that_does_not_read_is_dropped_and_others_miss_nothing(serving, monkeypatch):
    monkeypatch.setattr(connections, "MAX_BACKLOG", 1 << 19)
    channels = [f"orderbook:{symbol}" for symbol in Config().market.symbols]
    with serving(rate=200.0) as served, served.socket("/ws") as reader:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect((served.host, served.port))
        with served.socket("/ws", sock=raw, max_queue=1) as sleeper:
            subscribe(reader, "orderbook:AAPL")
            last = 0
            while not served.telemetry.get("dropped"):
                with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                    for _ in range(100):  # each brings four snapshots
                        subscribe(sleeper, *channels)
                message = orjson.loads(reader.recv(10))
                if message["type"] == "delta":
                    assert message["sequence"] == last + 1
                last = message.get("sequence", last)
        assert until(reader, lambda message: message["type"] == "delta")["sequence"] == last + 1


# Orders.

def test_an_order_is_matched_against_the_book_and_the_liquidity_leaves_as_a_delta_and_a_trade(serving):
    with serving(rate=0.001) as served, served.socket("/ws") as client:  # a market that stands still
        subscribe(client, "orderbook:AAPL", "trades:AAPL")
        snapshot = until(client, lambda message: message["type"] == "snapshot")
        price, size = snapshot["asks"][0]
        placed = served.http("POST", ORDERS, order(quantity=size, client_order_id="mine"))
        assert placed.status == 201
        assert placed.json | {"status": "FILLED", "filled_quantity": size, "filled_price": price} == placed.json
        trade = until(client, lambda message: message["type"] == "trade")
        assert (trade["price"], trade["quantity"], trade["side"]) == (price, size, "BUY")
        delta = until(client, lambda message: message["type"] == "delta")
        assert delta["sequence"] == snapshot["sequence"] + 1 and delta["asks"] == [[price, "0"]]
        portfolio = served.http("GET", "/api/trade/v1/bot/portfolio").json
        assert portfolio["positions"] == [{"symbol": "AAPL", "quantity": size, "average_price": price}]
        assert served.http("GET", f"{ORDERS}/{placed.json['id']}").json == placed.json
        assert served.http("GET", f"{ORDERS}?client_order_id=mine").json == {"orders": [placed.json]}


def test_the_same_client_order_id_is_answered_with_the_first_order(serving):
    with serving() as served:
        first = served.http("POST", ORDERS, order(client_order_id="same"))
        again = served.http("POST", ORDERS, order(client_order_id="same", side="SELL", quantity="9"))
        assert (first.status, again.status) == (201, 200) and again.body == first.body
        assert served.telemetry.get("duplicates") == 1 and served.telemetry.get("orders") == 1
        assert served.http("GET", "/api/trade/v1/bot/portfolio").json["positions"][0]["quantity"] == "2"


def test_an_order_is_in_the_record_before_its_answer_leaves(serving, tmp_path):
    with serving() as served:
        for _ in range(5):
            asked = order()
            answer = served.http("POST", ORDERS, asked).json
            lines = [orjson.loads(line) for line in (tmp_path / "exchange.jsonl").read_bytes().splitlines()]
            assert [line["event"] for line in lines if line["order_id"] == answer["id"]][:2] == ["order", "fill"]
            assert sum(line.get("client_order_id") == asked["client_order_id"] for line in lines) == 1


def test_accounts_and_orders_survive_a_restart_and_open_orders_go_on(serving):
    with serving() as served:
        done = served.http("POST", ORDERS, order(client_order_id="done")).json
        far = order(order_type="LIMIT", limit_price="100", time_in_force="GTC", client_order_id="far")
        near = order(order_type="LIMIT", limit_price="300", time_in_force="GTC", side="SELL", client_order_id="near")
        opened = [served.http("POST", ORDERS, asked).json for asked in (far, near)]
        portfolio = served.http("GET", "/api/trade/v1/bot/portfolio").json
    with serving() as served:
        assert served.http("GET", f"{ORDERS}?client_order_id=done").json["orders"] == [done]
        assert served.http("GET", ORDERS).json["orders"] == opened
        assert served.http("POST", ORDERS, order(client_order_id="done")).status == 200
        restored = served.http("GET", "/api/trade/v1/bot/portfolio").json
        assert {**restored, "equity": ""} == {**portfolio, "equity": ""}
        assert served.http("DELETE", f"{ORDERS}/{opened[0]['id']}").json["status"] == "CANCELLED"
        assert served.http("POST", ORDERS, order()).json["id"] == "O4"


def test_the_book_starts_near_the_last_fill(serving):
    base = dataclasses.replace(Config(), market=Market(symbols=("AAPL",)))
    with serving(base, rate=0.001) as served:
        pushed = served.http("POST", ORDERS, order(quantity="5000")).json
    last = fixed.parse(pushed["fills"][-1]["price"])
    assert last > fixed.parse("190.1")
    with serving(base, rate=0.001) as served, served.socket("/ws") as client:
        subscribe(client, "ticker:AAPL")
        ticker = until(client, lambda message: message["type"] == "ticker")
        assert abs(fixed.parse(ticker["bid"]) - last) < fixed.parse("0.03")


def test_a_resting_order_fills_when_the_market_comes_to_it(serving):
    with serving() as served, served.socket("/ws") as client:
        subscribe(client, "ticker:AAPL")
        ticker = until(client, lambda message: message["type"] == "ticker")
        asked = [order(side=side, order_type="LIMIT", time_in_force="GTC", limit_price=ticker[best])
                 for side, best in (("BUY", "bid"), ("SELL", "ask"))]
        ids = [served.http("POST", ORDERS, each).json["id"] for each in asked]
        while not served.telemetry.get("fills"):
            until(client, lambda message: True)
        fills = [fill for order_id in ids for fill in served.http("GET", f"{ORDERS}/{order_id}").json["fills"]]
        assert fills and {fill["price"] for fill in fills} <= {ticker["bid"], ticker["ask"]}


def test_a_risk_refusal_is_an_order_with_status_rejected(serving):
    with serving() as served:
        answer = served.http("POST", ORDERS, order(quantity="50000", client_order_id="big"))
        assert (answer.status, answer.json["status"]) == (201, "REJECTED")
        assert answer.json["rejection_reason"] == "RISK_EXPOSURE"
        assert served.http("POST", ORDERS, order(client_order_id="big")).json == answer.json


@pytest.mark.parametrize("headers", [{}, {"X-Bot-Key": "wrong"}, {"X-Bot-Key": ""}, {"X-Bot-Key": "\xe9"}])
def test_without_the_key_nothing_is_answered(serving, headers):
    with serving() as served:
        for method, path in (("POST", ORDERS), ("GET", ORDERS), ("GET", "/api/trade/v1/bot/portfolio")):
            answer = served.http(method, path, order() if method == "POST" else None, headers)
            assert (answer.status, answer.json["error"]["code"]) == (401, "UNAUTHORIZED")
        assert served.telemetry.get("orders") == 0


def test_the_key_comes_from_the_environment(serving, monkeypatch):
    monkeypatch.setenv("ALPHA_BOT_KEY", "s3cret")
    with serving() as served:
        assert served.http("GET", ORDERS).status == 401
        assert served.http("GET", ORDERS, headers={"X-Bot-Key": "s3cret"}).status == 200


@pytest.mark.parametrize(("body", "field"), [
    (b"", ""), (b"nonsense", ""), (b"[]", ""), (order(symbol="NOPE"), "symbol"), (order(quantity="0.5"), "quantity"),
    (order(quantity=2), "quantity"), (order(order_type="LIMIT"), "limit_price"), (order(side="HOLD"), "side"),
    (order(order_type="LIMIT", limit_price="190.005"), "limit_price"),
    (order(client_order_id="a b"), "client_order_id")])
def test_a_malformed_order_is_422_and_names_the_field(serving, body, field):
    base = dataclasses.replace(Config(), instruments={"AAPL": Instrument(lot="1")})
    with serving(base) as served:
        answer = served.http("POST", ORDERS, body)
        assert answer.status == 422 and answer.json["error"]["field"] == field and answer.json["error"]["message"]
        assert served.telemetry.get("orders") == 0


def test_above_a_limit_the_answer_is_429_and_says_when_to_retry(serving, tmp_path):
    with serving(orders_per_minute=3) as served:
        asked = [order() for _ in range(4)]
        answers = [served.http("POST", ORDERS, each) for each in asked]
        assert [answer.status for answer in answers] == [201, 201, 201, 429]
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 60
        assert served.http("POST", ORDERS, asked[0]).status == 200, "a retry is not a new order"
        assert served.http("GET", f"{ORDERS}?client_order_id={asked[3]['client_order_id']}").json == {"orders": []}
    with serving(requests_per_minute=2) as served:
        assert [served.http("GET", ORDERS).status for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(("changes", "named"), [({"tick": "0"}, "instruments.AAPL.tick"), ({"lot": "x"}, "AAPL.lot")])
def test_increments_that_make_no_sense_are_refused_at_the_start(serving, changes, named):
    base = dataclasses.replace(Config(), instruments={"AAPL": Instrument(**changes)})
    with pytest.raises(ConfigError, match=named), serving(base):
        pass


def test_paths_methods_and_orders_that_do_not_exist(serving):
    with serving() as served:
        assert served.http("GET", "/").status == 404
        assert served.http("GET", "/api/trade/v1/bot/nothing").status == 404
        assert served.http("GET", f"{ORDERS}/O99").status == served.http("DELETE", f"{ORDERS}/O99").status == 404
        refused = served.http("PUT", ORDERS, b"")
        assert (refused.status, refused.headers["Allow"]) == (405, "POST, GET")
        done = served.http("POST", ORDERS, order()).json
        assert served.http("DELETE", f"{ORDERS}/{done['id']}").status == 409


def test_the_status_tells_what_is_going_on(serving):
    with serving(rate=1000.0) as served, served.socket("/ws"):
        served.http("POST", ORDERS, order())
        status = served.http("GET", "/loopback/status", headers={}).json
        assert status | {"mode": "synthetic", "finished": False, "clients": 1, "orders": 1} == status


def test_many_clients_place_orders_at_once_and_the_accounts_add_up(serving, tmp_path):
    with serving(rate=2000.0) as served:
        def trade(name: str) -> None:
            for i in range(15):
                side = "BUY" if i % 2 else "SELL"
                assert served.http("POST", ORDERS, order(side=side, client_order_id=f"{name}-{i}")).status == 201

        threads = [threading.Thread(target=trade, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        portfolio = served.http("GET", "/api/trade/v1/bot/portfolio").json
    lines = [orjson.loads(line) for line in (tmp_path / "exchange.jsonl").read_bytes().splitlines()]
    sides = {line["order_id"]: line["side"] for line in lines if line["event"] == "order"}
    assert len(sides) == 60
    held = sum(fixed.parse(line["quantity"]) * (1 if sides[line["order_id"]] == "BUY" else -1)
               for line in lines if line["event"] == "fill")
    assert held == sum(fixed.parse(position["quantity"]) for position in portfolio["positions"])
