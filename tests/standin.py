"""A stand-in venue with VecTrade's order API and scripted faults, for the tests of the executor and its gateway.

It accepts limit orders and fills a share of each at the limit price at once. `faults` holds what happens to the
next requests, one word each (`""` for nothing):

    lost-ack        done as asked, but the connection is closed without an answer
    hang            done as asked, but no answer until `release`
    late            no answer; what was asked is done only at `arrive`
    500             nothing done, status 500            500-after   done as asked, status 500
    twice           done as asked, the answer is sent two times over
    429             nothing done, Retry-After: 1        401, 422    nothing done
    garbage         done as asked, a body that is not JSON
    truncated       done as asked, half of the answer
    other           done as asked, the answer describes another order
"""

import json
import threading
from collections import deque
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ORDERS = "/api/trade/v1/bot/orders"
PORTFOLIO = "/api/trade/v1/bot/portfolio"
STATUS = {"500": 500, "500-after": 500, "429": 429, "401": 401, "422": 422}


class StandIn:
    """The venue. `orders` by client id as the venue tells them; `submits` counts arrivals, duplicates included."""

    def __init__(self, key: str = "loopback", share: str = "1") -> None:
        self.key, self.share = key, Decimal(share)
        self.orders: dict[str, dict] = {}
        self.positions: dict[str, tuple[Decimal, Decimal]] = {}
        self.submits: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.faults: deque[str] = deque()
        self._late: list = []
        self._release = threading.Event()
        self._lock = threading.Lock()
        venue = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                venue.answer(self)

            do_GET = do_POST = do_DELETE = handle_any

            def log_message(self, *args) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._release.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def release(self) -> None:
        """Let the requests go on that hang."""
        self._release.set()

    def arrive(self) -> None:
        """Do what was asked for in requests that were late."""
        with self._lock:
            for action in self._late:
                action()
            self._late.clear()

    def quantity(self, symbol: str) -> Decimal:
        return self.positions.get(symbol, (Decimal(0), Decimal(0)))[0]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        with self._lock:
            self.requests.append((handler.command, handler.path))
            fault = self.faults.popleft() if self.faults else ""
            if fault == "late":
                self._late.append(lambda: self._do(handler.command, handler.path, body))
            if handler.headers.get("X-Bot-Key") != self.key:
                status, told = 401, {"error": {"code": "UNAUTHORISED", "field": "X-Bot-Key", "message": "wrong key"}}
            elif fault in ("500", "429", "401", "422"):
                status, told = STATUS[fault], {"error": {"code": "FAULT", "field": "", "message": fault}}
            elif fault != "late":
                status, told = self._do(handler.command, handler.path, body)
                status = STATUS.get(fault, status)
        if fault == "hang":
            self._release.wait(60)
        if fault in ("lost-ack", "late", "hang"):
            handler.close_connection = True
            return
        if fault == "other":
            told = {**told, "client_order_id": "someone-else"}
        raw = b"<html>" if fault == "garbage" else json.dumps(told).encode()
        for _ in range(2 if fault == "twice" else 1):
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(raw)))
            if status == 429:
                handler.send_header("Retry-After", "1")
            handler.end_headers()
            handler.wfile.write(raw[:len(raw) // 2] if fault == "truncated" else raw)
        if fault == "truncated":
            handler.close_connection = True

    def _do(self, method: str, path: str, body: bytes) -> tuple[int, dict]:
        url = urlsplit(path)
        if method == "POST":
            return self._accept(json.loads(body))
        if url.path == PORTFOLIO:
            return 200, {"cash": "0", "equity": "0", "realised": "0", "fees": "0", "positions": [
                {"symbol": symbol, "quantity": str(qty), "average_price": str(price)}
                for symbol, (qty, price) in self.positions.items()]}
        if url.path == ORDERS:
            found = self.orders.get(parse_qs(url.query)["client_order_id"][0])
            return 200, {"orders": [found] if found else []}
        for order in self.orders.values():
            if url.path == f"{ORDERS}/{order['id']}":
                if method == "DELETE":
                    if order["status"] not in ("OPEN", "PARTIALLY_FILLED"):
                        return 409, {"error": {"code": "FINAL", "field": "id", "message": "final already"}}
                    order["status"] = "CANCELLED"
                return 200, order
        return 404, {"error": {"code": "NOT_FOUND", "field": "id", "message": url.path}}

    def _accept(self, asked: dict) -> tuple[int, dict]:
        client_id = asked["client_order_id"]
        self.submits.append(client_id)
        if client_id in self.orders:
            return 200, self.orders[client_id]
        qty, price = Decimal(asked["quantity"]), Decimal(asked["limit_price"])
        filled = (qty * self.share).quantize(Decimal("0.0001"))
        resting = asked["time_in_force"] != "IOC"
        status = "FILLED" if filled == qty else "PARTIALLY_FILLED" if resting and filled else (
            "OPEN" if resting else "CANCELLED")
        number = len(self.orders) + 1
        halves = [filled / 2, filled - filled / 2] if filled else []
        order = {"id": f"v-{number}", **asked, "status": status, "filled_quantity": str(filled),
                 "filled_price": str(price), "rejection_reason": None, "created_at": 1,
                 "fills": [{"id": f"{number}-{i}", "price": str(price), "quantity": str(part),
                            "fee": str((part * price / 10000).quantize(Decimal("0.00000001"))), "timestamp": 5}
                           for i, part in enumerate(halves)]}
        self.orders[client_id] = order
        signed = filled if asked["side"] == "BUY" else -filled
        held = self.quantity(asked["symbol"]) + signed
        self.positions[asked["symbol"]] = (held, price)
        return 201, order
