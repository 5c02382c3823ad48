"""A recording takes no orders, says so in the words of each API, and every gateway understands."""

import pytest

from common.capture_lines import Connect, Header
from common.clock import SystemClock
from common.config import Config, Executor, Market
from common.fixed import SCALE
from common.gateways import Ended, NoPortfolio, Unanswered, create
from common.loopback.no_orders import WORDS
from common.orders import BUY, Order, State
from tests import frames
from tests.common.loopback.played import write
from tests.waiting import until

ORDER = Order("00000007-0-42", "BTCUSDT", BUY, 2 * SCALE, 100 * SCALE, 7, 42)
FOREIGN = (b'0 {"stream":"btcusdt@depth","data":{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSDT","U":1,"u":2,"pu":0,'
           b'"b":[["1.00","1.0"]],"a":[]}}\n')


@pytest.fixture(params=["capture", "foreign"])
def served(request, serving, tmp_path):
    if request.param == "foreign":
        path = tmp_path / "b"
        path.write_bytes(FOREIGN)
    else:
        path = write(tmp_path / "a", [Header("vectrade", ("A",)), Connect("wss://venue.example/ws"),
                                      frames.snapshot("A", 1)])
    with serving(captures=(str(path),)) as served:
        yield served


@pytest.mark.parametrize("method, path, status, code", [
    ("POST", "/fapi/v1/order?x=1", 400, -2010), ("POST", "/api/v3/order", 400, -2010),
    ("GET", "/api/v3/order", 400, -2013), ("DELETE", "/fapi/v1/order", 400, -2011),
    ("GET", "/fapi/v3/positionRisk", 400, -2015), ("GET", "/fapi/v1/exchangeInfo?x=1", 400, -2015),
    ("GET", "/api/v3/account", 400, -2015), ("POST", "/fapi/v1/listenKey", 400, -2015)])
def test_the_refusal_is_in_the_form_of_binance(served, method, path, status, code):
    answer = served.http(method, path)
    assert (answer.status, answer.json["code"]) == (status, code) and WORDS in answer.json["msg"]


def test_the_refusal_is_in_the_form_of_vectrade_and_what_is_no_business_of_an_account_is_as_it_was(served):
    for method, path in (("POST", "orders"), ("GET", "orders?client_order_id=x"), ("GET", "portfolio")):
        answer = served.http(method, f"/api/trade/v1/bot/{path}")
        assert (answer.status, answer.json["error"]["code"]) == (422, "NO_ORDERS")
        assert answer.json["error"]["message"] == WORDS
    assert served.http("GET", "/api/v3/time").json["serverTime"] > 0
    assert served.http("GET", "/fapi/v1/ticker/price").status == 404 and served.http("GET", "/order").status == 404


@pytest.mark.parametrize("name", ["vectrade", "binance-usdm", "binance-spot"])
def test_an_order_is_rejected_for_good_and_nothing_is_held(served, name):
    gateway = create(Config(executor=Executor(gateway=name, base_url=f"http://{served.host}:{served.port}",
                                              timeout_s=1.0), market=Market(symbols=("BTCUSDT",))), SystemClock(), {})
    events: list = []
    gateway.submit(ORDER)
    gateway.query(ORDER)
    gateway.portfolio()
    wanted = {Ended, NoPortfolio, *([Unanswered] if name == "vectrade" else [])}
    until(lambda: events.extend(gateway.work()) or wanted <= set(map(type, events)))
    gateway.close()
    [ended] = [event for event in events if type(event) is Ended]
    assert (ended.state, ended.filled) == (State.REJECTED, 0) and WORDS in ended.reason
    [nothing] = [event for event in events if type(event) is NoPortfolio]
    assert WORDS in nothing.reason
    assert name != "vectrade" or [type(event) for event in events].count(Unanswered) == 1
