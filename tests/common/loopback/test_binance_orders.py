"""Binance over the synthetic market, as its clients meet it: ours, and independent ones."""

import contextlib
import time

import orjson
import pytest

from common.config import Config, Market
from common.loopback.binance_orders import PATIENCE, Complaint, assets
from common.signing import Credentials, encoded
from tests.still_binance import still
from tests.waiting import until

SYMBOLS = ("BTCUSDT", "ETHUSDT")
VENUES = ("binance-usdm", "binance-spot")
BASE = {"binance-usdm": "/fapi/v1", "binance-spot": "/api/v3"}
KEYS = Credentials("loopback", "loopback")


def config(venue: str) -> Config:
    return Config(market=Market(venue=venue, symbols=SYMBOLS))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def order(client_id: str, **changes) -> dict:
    return {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "2", "price": "1",
            "newClientOrderId": client_id} | changes


class Account:
    """Signed requests to an exchange, by hand."""

    def __init__(self, served, venue: str) -> None:
        self.served, self.base = served, BASE[venue]

    def __call__(self, method: str, path: str, parameters: dict | None = None, key: str = "loopback",
                 signature: str | None = None, body: bool = False):
        path = path if path.startswith("/") else f"{self.base}/{path}"
        given = {"timestamp": now_ms()} | (parameters or {})
        text = encoded({name: value for name, value in given.items() if value is not None})
        text += f"&signature={KEYS.sign(text)}" if signature is None else signature
        headers = {"X-MBX-APIKEY": key} if key else {}
        if body:
            return self.served.http(method, path, text.encode(), headers)
        return self.served.http(method, f"{path}?{text}", None, headers)


@pytest.fixture(params=VENUES)
def venue(request):
    return request.param


@pytest.fixture
def account(serving, venue):
    with serving(config(venue), rate=200.0) as served:
        yield Account(served, venue)


# Market data.

def test_our_own_feed_follows_it_and_never_loses_its_place(serving, follow, venue):
    with serving(config(venue), rate=2000.0) as served:
        follower = follow(served, venue, SYMBOLS)
        follower.valid(2)
        follower.until(lambda: min(follower.books.heads) > 400, "400 ticks of each symbol")
        assert follower.market.valid_symbols == 2
        assert not [name for name in follower.counted if "gap" in name or "error" in name]


def test_an_independent_client_reads_its_markets_books_and_trades(serving, venue):
    ccxt = pytest.importorskip("ccxt")
    with serving(config(venue), rate=500.0) as served:
        client = (ccxt.binance if venue == "binance-spot" else ccxt.binanceusdm)({
            "enableRateLimit": False, "options": {"fetchCurrencies": False, "fetchMargins": False, "fetchMarkets": {
                "types": ["spot" if venue == "binance-spot" else "linear"]}, "defaultType":
                "spot" if venue == "binance-spot" else "future"}})
        for name, url in client.urls["api"].items():
            client.urls["api"][name] = f"http://{served.host}:{served.port}/" + url.split("/", 3)[3]
        name = "BTC/USDT" if venue == "binance-spot" else "BTC/USDT:USDT"
        market = client.load_markets()[name]
        assert market["active"] and float(market["precision"]["price"]) == 0.01
        assert market["limits"]["cost"]["min"] == 5
        book = client.fetch_order_book(name, 20)
        assert len(book["bids"]) >= 10 and book["bids"][0][0] < book["asks"][0][0]
        assert book["bids"] == sorted(book["bids"], reverse=True) and book["asks"] == sorted(book["asks"])
        later = client.fetch_order_book(name, 5)
        assert later["nonce"] >= book["nonce"] and len(later["asks"]) == 5
        top = client.fetch_bids_asks([name])[name]
        assert top["bid"] < top["ask"]
        client.options["fetchTradesMethod"] = (
            "publicGetTrades" if venue == "binance-spot" else "fapiPublicGetTrades")
        trades = until(lambda: client.fetch_trades(name, limit=50))
        assert {trade["side"] for trade in trades} <= {"buy", "sell"} and trades[0]["price"] > 0


def test_an_independent_client_trades_on_it(serving, venue):
    """Its own signatures, its own words."""
    client = pytest.importorskip("binance.client").Client("loopback", "loopback", ping=False)
    with serving(config(venue), rate=200.0) as served:
        url = f"http://{served.host}:{served.port}"
        client.API_URL, client.FUTURES_URL = f"{url}/api", f"{url}/fapi"
        if venue == "binance-spot":
            client.ping()
            bought = client.create_order(symbol="BTCUSDT", side="BUY", type="MARKET", quantity="3",
                                         newClientOrderId="a-1")
            assert bought["status"] == "FILLED" and sum(float(fill["qty"]) for fill in bought["fills"]) == 3
            trades = client.get_my_trades(symbol="BTCUSDT", orderId=bought["orderId"])
            assert [trade["id"] for trade in trades] == [fill["tradeId"] for fill in bought["fills"]]
            assert client.get_asset_balance("BTC")["free"] == "3"
            assert client.get_open_orders(symbol="BTCUSDT") == []
        else:
            client.futures_ping()
            sold = client.futures_create_order(symbol="BTCUSDT", side="SELL", type="MARKET", quantity="3",
                                               newClientOrderId="a-1", newOrderRespType="RESULT")
            assert sold["status"] == "FILLED" and sold["executedQty"] == "3"
            trades = client.futures_account_trades(symbol="BTCUSDT", orderId=sold["orderId"])
            assert sum(float(trade["qty"]) for trade in trades) == 3
            [position] = client.futures_position_information(symbol="BTCUSDT")
            assert position["positionAmt"] == "-3"
            assert client.futures_get_open_orders() == []
        client.API_SECRET = "another"
        with pytest.raises(Exception, match="-1022"):
            client.get_account() if venue == "binance-spot" else client.futures_get_open_orders()


def test_subscriptions_are_taken_and_given_up(serving, venue):
    with serving(config(venue), rate=500.0) as served, served.socket("/stream?streams=btcusdt@bookTicker") as client:
        assert orjson.loads(client.recv(10))["stream"] == "btcusdt@bookTicker"
        client.send('{"method":"SUBSCRIBE","params":["ethusdt@depth@100ms"],"id":1}')
        client.send('{"method":"UNSUBSCRIBE","params":["btcusdt@bookTicker"],"id":2}')
        answers = {}
        while len(answers) < 2:
            message = orjson.loads(client.recv(10))
            if "id" in message:
                answers[message["id"]] = message["result"]
        assert answers == {1: None, 2: None}
        assert {orjson.loads(client.recv(10))["stream"] for _ in range(20)} == {"ethusdt@depth@100ms"}
        client.send("nonsense")
        while "error" not in (message := orjson.loads(client.recv(10))):
            assert "stream" in message


# Who asks, and for what.

def test_who_asks_must_be_known_must_sign_and_must_be_in_time(account):
    def refused(*args, **kwargs):
        answer = account(*args, **kwargs)
        return answer.status, answer.json["code"]

    assert refused("GET", "openOrders", key="") == (401, -2014)
    assert refused("GET", "openOrders", key="other") == (401, -2015)
    assert refused("GET", "openOrders", signature="") == (400, -1102)
    assert refused("GET", "openOrders", signature="&signature=00") == (400, -1022)
    assert refused("GET", "openOrders", {"timestamp": None}) == (400, -1102)
    assert refused("GET", "openOrders", {"timestamp": now_ms() - 6000}) == (400, -1021)
    assert refused("GET", "openOrders", {"timestamp": now_ms() + 60_000}) == (400, -1021)
    assert refused("GET", "openOrders", {"timestamp": now_ms() - 600, "recvWindow": 500}) == (400, -1021)
    assert refused("GET", "openOrders", {"recvWindow": 60_001}) == (400, -1131)
    assert account("GET", "openOrders", {"timestamp": now_ms() - 6000, "recvWindow": 60_000}).json == []


def test_an_order_may_be_asked_for_in_the_query_or_the_body(account):
    for client_id, body in (("t-1", False), ("t-2", True)):
        told = account("POST", "order", order(client_id, quantity="10"), body=body)
        assert told.status == 200 and told.json["clientOrderId"] == client_id and told.json["status"] == "NEW"
    assert [each["clientOrderId"] for each in account("GET", "openOrders").json] == ["t-1", "t-2"]


@pytest.mark.parametrize(("change", "usdm", "spot"), [
    ({"symbol": "NONE"}, -1121, -1121), ({"symbol": None}, -1102, -1102), ({"side": "HOLD"}, -1117, -1117),
    ({"type": "STOP"}, -1116, -1116), ({"timeInForce": "DAY"}, -1115, -1115), ({"timeInForce": None}, -1102, -1102),
    ({"newClientOrderId": "a b"}, -1100, -1100), ({"price": "1.001"}, -4014, -1013), ({"price": "x"}, -1100, -1100),
    ({"quantity": "0.00001"}, -1111, -1013), ({"quantity": "1"}, -4164, -1013),
    ({"quantity": "9000000", "price": "100"}, -2019, -2010),
    ({"newClientOrderId": "first", "quantity": "10"}, -4116, -2010)])
def test_what_is_wrong_with_an_order_is_said_in_the_codes_of_binance(account, venue, change, usdm, spot):
    assert account("POST", "order", order("first", quantity="10")).status == 200
    answer = account("POST", "order", order("t-1") | change)
    assert (answer.status, answer.json["code"]) == (400, spot if venue == "binance-spot" else usdm)


def test_what_there_is_not_cannot_be_shown_or_cancelled(account):
    assert account("GET", "order", {"symbol": "BTCUSDT", "origClientOrderId": "none"}).json["code"] == -2013
    assert account("DELETE", "order", {"symbol": "BTCUSDT", "origClientOrderId": "none"}).json["code"] == -2011
    number = account("POST", "order", order("t-1", quantity="10")).json["orderId"]
    assert account("GET", "order", {"symbol": "ETHUSDT", "orderId": number}).json["code"] == -2013
    told = account("DELETE", "order", {"symbol": "BTCUSDT", "orderId": number}).json
    assert told["status"] == "CANCELED" and "t-1" in (told["clientOrderId"], told.get("origClientOrderId"))
    assert account("DELETE", "order", {"symbol": "BTCUSDT", "orderId": number}).json["code"] == -2011
    assert account("GET", "nothing").status == 404


def test_a_countdown_cancels_what_nobody_comes_back_for(serving):
    with serving(config("binance-usdm"), rate=100.0) as served:
        account = Account(served, "binance-usdm")
        for number in (1, 2):
            account("POST", "order", order(f"c-{number}", quantity="10"))
        for ms in (60_000, 0, 60_000, 20):  # begun, ended, begun, begun anew
            answer = account("POST", "countdownCancelAll", {"symbol": "BTCUSDT", "countdownTime": ms})
            assert answer.json == {"symbol": "BTCUSDT", "countdownTime": str(ms)}
        until(lambda: account("GET", "openOrders").json == [])
        told = account("GET", "order", {"symbol": "BTCUSDT", "origClientOrderId": "c-2"}).json
        assert told["status"] == "CANCELED"
        assert account("POST", "countdownCancelAll", {"symbol": "BTCUSDT", "countdownTime": "x"}).json["code"] == -1130


def test_too_many_requests_are_refused_and_who_goes_on_is_banned(serving, venue):
    with serving(config(venue), requests_per_minute=3) as served:
        statuses = [served.http("GET", f"{BASE[venue]}/time") for _ in range(4 + PATIENCE)]
        assert [answer.status for answer in statuses] == [200] * 3 + [429] * PATIENCE + [418]
        assert all(answer.json["code"] == -1003 and int(answer.headers["Retry-After"]) > 0 for answer in statuses[3:])
    with serving(config(venue), orders_per_minute=1) as served:
        account = Account(served, venue)
        assert account("POST", "order", order("u-1", quantity="10")).status == 200
        answer = account("POST", "order", order("u-2", quantity="10"))
        assert (answer.status, answer.json["code"]) == (429, -1015) and answer.headers["Retry-After"]


# What is pushed.

@contextlib.contextmanager
def listen(served, venue: str):
    """A user stream that is open."""
    if venue == "binance-usdm":
        key = served.http("POST", "/fapi/v1/listenKey", None, {"X-MBX-APIKEY": "loopback"}).json["listenKey"]
        assert served.http("POST", "/fapi/v1/listenKey", None, {"X-MBX-APIKEY": "other"}).json["code"] == -2015
        with served.socket(f"/private/ws/{key}") as client:
            yield client
        return
    with served.socket("/ws-api/v3") as client:
        for keys, status in ((Credentials("loopback", "wrong"), 400), (KEYS, 200)):
            client.send(orjson.dumps({"id": "s", "method": "userDataStream.subscribe.signature",
                                      "params": keys.frame({"timestamp": now_ms()})}), text=True)
            assert orjson.loads(client.recv(10))["status"] == status
        yield client


def pushed(client) -> dict:
    message = orjson.loads(client.recv(10))
    if "event" in message:
        return message["event"]
    assert message["e"] == "ORDER_TRADE_UPDATE"
    return message["o"]


def test_who_listens_is_told_each_step_of_an_order(account, venue):
    with listen(account.served, venue) as client:
        account("POST", "order", order("p-1", quantity="10"))
        account("DELETE", "order", {"symbol": "BTCUSDT", "origClientOrderId": "p-1"})
        account("POST", "order", order("p-2", type="MARKET", timeInForce=None, price=None, quantity="2"))
        steps = [pushed(client) for _ in range(4)]
    assert [(step["x"], step["X"]) for step in steps] == [
        ("NEW", "NEW"), ("CANCELED", "CANCELED"), ("NEW", "NEW"), ("TRADE", "FILLED")]
    assert steps[1].get("C" if venue == "binance-spot" else "c") == "p-1"
    assert steps[3]["l"] == steps[3]["z"] == "2" and float(steps[3]["n"]) > 0 and steps[3]["N"] == "USDT"
    path = "myTrades" if venue == "binance-spot" else "userTrades"
    [trade] = account("GET", path, {"symbol": "BTCUSDT", "orderId": steps[3]["i"]}).json
    assert (trade["id"], trade["qty"], trade["commission"]) == (steps[3]["t"], "2", steps[3]["n"])


@pytest.mark.parametrize("fees_in, buying, selling", [("", "USDT", "USDT"), ("bought", "BTC", "USDT"),
                                                      ("BTC", "BTC", "BTC"), ("ETH", "ETH", "ETH")])
def test_fees_may_be_taken_in_any_asset_and_on_spot_out_of_its_balance(tmp_path, venue, fees_in, buying, selling):
    """At the price of the fill, or of that asset; each place tells the same."""
    with still(tmp_path, venue, symbols=SYMBOLS) as served:
        told: list[dict] = []
        served.call(lambda mode: (setattr(mode, "fees_in", fees_in),
                                  setattr(mode, "_push_now", lambda event: told.append(event))))
        for client_id, change in (("b-1", {}), ("s-1", {"side": "SELL", "quantity": "1"})):
            served.call(lambda mode: mode._place_order(Call(), order(client_id, price="100") | change))
        until(lambda: len(told) == 4)
        pushed = [event.get("o") or event if isinstance(event.get("o"), dict) else event for event in told]
        pushed = [(event["n"], event["N"]) for event in pushed if event["x"] == "TRADE"]
        asked = served.call(lambda mode: mode._own_trades({"symbol": "BTCUSDT"}))
        assert pushed == [(trade["commission"], trade["commissionAsset"]) for trade in asked]
        paid = [("0.02" if asset == "USDT" else "0.0002", asset) for asset in (buying, selling)]
        assert pushed == [paid[0], ("0.01" if selling == "USDT" else "0.0001", selling)]
        if venue == "binance-spot":
            held = {item["asset"]: item["free"] for item in served.call(lambda mode: mode._balances({}))["balances"]}
            assert held["BTC"] == {"": "1", "bought": "0.9998", "BTC": "0.9997", "ETH": "1"}[fees_in]
            full = order("s-2", side="SELL", price="100", quantity="1")
            with pytest.raises(Complaint) if fees_in in ("bought", "BTC") else contextlib.nullcontext():
                served.call(lambda mode: mode._place_order(Call(), full))


def test_own_trades_come_in_pages_the_newest_or_from_one_on(tmp_path, venue):
    with still(tmp_path, venue, symbols=SYMBOLS) as served:
        for number in range(5):
            served.call(lambda mode: mode._place_order(Call(), order(f"t-{number}", price="100", quantity="1")))
        ids = lambda **given: [trade["id"] for trade in served.call(  # noqa: E731
            lambda mode: mode._own_trades({"symbol": "BTCUSDT"} | given))]
        every = ids()
        assert len(every) == 5 and every == sorted(every)
        assert ids(limit="2") == every[-2:] and ids(limit="2", fromId="0") == every[:2]
        assert ids(limit="2", fromId=str(every[1])) == every[1:3] and ids(fromId=str(every[-1] + 1)) == []
        assert ids(orderId="2", fromId="0") == every[1:2]
        with pytest.raises(Complaint):
            ids(fromId="x")


def test_there_is_no_stream_for_a_key_that_was_not_given(account, venue):
    with pytest.raises(Exception, match="404"):
        with account.served.socket("/private/ws/other"):
            pass


def test_its_record_is_restored(serving, venue):
    for life in range(2):
        with serving(config(venue), rate=100.0) as served:
            account = Account(served, venue)
            if not life:
                account("POST", "order", order("r-1", type="MARKET", timeInForce=None, price=None))
                before = account("GET", "order", {"symbol": "BTCUSDT", "origClientOrderId": "r-1"}).json
            assert account("GET", "order", {"symbol": "BTCUSDT", "origClientOrderId": "r-1"}).json == before
            assert before["status"] == "FILLED"


# Faults of orders, here and with the other protocol.

@pytest.mark.parametrize(("fault", "status", "taken"), [
    ("order-cut", 0, False), ("order-lost", 0, True), ("order-429:every=1,seconds=9", 429, False),
    ("order-503:every=1,how=taken", 503, True), ("order-503:every=1,how=not-taken", 503, False),
    ("order-slow:every=1,seconds=0.05", 200, True)])
@pytest.mark.parametrize("venue", [*VENUES, "vectrade"], indirect=True)
def test_faults_befall_requests_for_orders_and_nothing_else(serving, venue, fault, status, taken):
    fault = fault if ":" in fault else f"{fault}:every=1"
    symbols = SYMBOLS if venue in VENUES else Config().market.symbols
    base = Config(market=Market(venue=venue, symbols=symbols))
    with serving(base, rate=100.0, disturb=(fault,)) as served:
        if venue == "vectrade":
            body = {"symbol": "AAPL", "side": "BUY", "order_type": "LIMIT", "limit_price": "1", "quantity": "2",
                    "time_in_force": "GTC", "client_order_id": "f-1"}
            place = lambda: served.http("POST", "/api/trade/v1/bot/orders", body)  # noqa: E731
            find = lambda: bool(served.http(  # noqa: E731
                "GET", "/api/trade/v1/bot/orders?client_order_id=f-1").json["orders"])
        else:
            account = Account(served, venue)
            place = lambda: account("POST", "order", order("f-1", quantity="10"))  # noqa: E731
            find = lambda: account("GET", "order", {"symbol": "BTCUSDT",  # noqa: E731
                                                    "origClientOrderId": "f-1"}).status == 200
        if status:
            answer = place()
            assert answer.status == (201 if venue == "vectrade" and status == 200 else status)
            assert status != 429 or answer.headers["Retry-After"] == "9"
        else:
            with pytest.raises((ConnectionError, OSError)):
                place()
        assert find() is taken
        assert served.http("GET", "/loopback/status").json["faults"] == {fault.partition(":")[0]: 1}


def test_an_order_can_be_ended_after_it_was_accepted(serving, venue):
    with serving(config(venue), rate=100.0, disturb=("order-rejected:every=1",)) as served:
        account = Account(served, venue)
        assert account("POST", "order", order("f-1", quantity="10")).json["status"] == "NEW"
        told = account("GET", "order", {"symbol": "BTCUSDT", "origClientOrderId": "f-1"}).json
        assert told["status"] == ("REJECTED" if venue == "binance-spot" else "EXPIRED")


@pytest.mark.parametrize("fault, news", [("fill-twice:every=1", 2), ("fill-lost:every=1", 0),
                                         ("fill-late:every=1,seconds=0.05", 1)])
def test_faults_befall_the_news_of_fills(tmp_path, venue, fault, news):
    with still(tmp_path, venue, symbols=SYMBOLS) as served:
        served.disturb(fault)
        heard: list[str] = []
        served.call(lambda mode: setattr(mode, "_push_now", lambda event: heard.append(event)))
        text = KEYS.query(order("n-1", price="100", timestamp=now_ms()))
        served.call(lambda mode: mode._place_order(Call(), dict(item.split("=") for item in text.split("&"))))
        until(lambda: len(heard) >= 1 + news)
        kinds = [(event.get("o") or event)["x"] if isinstance(event.get("o"), dict) else event["x"] for event in heard]
        assert kinds == ["NEW"] + ["TRADE"] * news


class Call:
    """A request whose answer nobody reads."""

    lost, delay_s = False, 0.0

    def answer(self, *args) -> None:
        pass


def test_names_of_symbols_are_taken_apart():
    assert assets("BTCUSDT") == ("BTC", "USDT") and assets("ETHBTC") == ("ETH", "BTC")
    assert assets("BTC-USD") == ("BTC", "USD") and assets("ODD") == ("ODD", "USDT")
