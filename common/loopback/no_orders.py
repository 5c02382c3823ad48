"""What an exchange that serves a recording says to who wants to trade on it: no, in the words of the API asked.

    /api/trade/...                       422, {"error": {"code": "NO_ORDERS", ...}}
    /fapi/..., /dapi/..., /api/v3/...    400, {"code": ..., "msg": ...}: -2010 for a new order, -2013 and -2011 for one
                                         that is asked for or cancelled, -2015 for anything else of an account, and
                                         for exchangeInfo that is not recorded, which who trades waits for
    time, of these                       what time it is: without it nothing can be signed

All of them are refusals for good: an order has had no effect, and its sender may count it as rejected.
"""

import time

from common.loopback.connections import HttpCall

WORDS = 'a recording takes no orders: set executor.gateway = "paper"'
_BINANCE = ("/fapi/", "/dapi/", "/api/v3/")
_ORDER = {"POST": -2010, "GET": -2013, "DELETE": -2011}
_ACCOUNT = frozenset({"account", "balance", "positionRisk", "openOrders", "allOrders", "allOpenOrders", "userTrades",
                      "myTrades", "listenKey", "countdownCancelAll", "leverage", "marginType", "exchangeInfo"})


def answered(call: HttpCall) -> bool:
    """Whether this was a request of somebody who trades, which is then answered."""
    if call.path.startswith("/api/trade/"):
        call.refuse(422, "NO_ORDERS", WORDS)
        return True
    name = call.path.rpartition("/")[2]
    if not call.path.startswith(_BINANCE):
        return False
    if name == "time" and call.method == "GET":
        call.answer(200, {"serverTime": time.time_ns() // 1_000_000})
        return True
    code = _ORDER.get(call.method) if name == "order" else -2015 if name in _ACCOUNT else None
    if code is None:
        return False
    call.answer(400, {"code": code, "msg": f"{WORDS}."})
    return True
