"""The wire between executor and exchange, cut and bent on cue, for `tests.campaign`.

It passes HTTP on, request by request, and knows which of them is an order. FAULTS befall one order of a run (and
"deaf" the questions after it); what the exchange does is never invented here but for "revoked", so its record is the
truth all the same. It counts every order that arrives, by client id: an order must arrive once.
"""

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ORDERS = "/api/trade/v1/bot/orders"

FAULTS = {
    "none": "nothing",
    "lost-answer": "accepted, the connection ends without an answer",
    "lost-order": "the connection ends, the order never arrives",
    "late-order": "the connection ends, the order arrives later",
    "error-before": "status 500, nothing was done",
    "error-after": "accepted, status 500",
    "slow": "accepted, the answer comes after the patience",
    "throttled": "status 429 with Retry-After",
    "cut": "accepted, half of the answer",
    "nonsense": "accepted, an answer that is not JSON",
    "split": "accepted, the answer comes byte by byte",
    "answered-twice": "accepted, the answer comes twice",
    "fills-twice": "accepted, the answer tells each fill twice",
    "fills-late": "accepted, the answer tells of no fill yet",
    "revoked": "acknowledged, and rejected when it is asked for",
    "deaf": "accepted, no answer, and status 500 for the next two questions",
    "venue-killed": "accepted, and the exchange is killed and started again",
}
LATE_S = 0.4  #: how much later a late order arrives


class Wire:
    """Between a client and the exchange at `port`. `fault` befalls order number `strike` (from 1) of the run. `told` is
    called with each of the MOMENTS of every order; `revive` kills the exchange and starts it again."""

    MOMENTS = ("arrived", "accepted", "told")  #: before the exchange has it; after; when the answer is on its way back

    def __init__(self, port: int, fault: str, strike: int, patience_s: float, told: Callable[[str], None],
                 revive: Callable[[], None]) -> None:
        self._port, self._fault, self._strike, self._patience_s = port, fault, strike, patience_s
        self._told, self._revive = told, revive
        self.arrivals: Counter[str] = Counter()  #: orders, by client id
        self.struck = False
        self._revoked: dict[str, dict] = {}
        self._deaf = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._stragglers: list[threading.Thread] = []
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                try:
                    wire._pass(self)
                except OSError:  # the client, or the exchange, has gone
                    self.close_connection = True

            do_GET = do_POST = do_DELETE = handle_any

            def log_message(self, *args) -> None:
                return None

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address) -> None:
                """Clients that are killed leave connections that are reset."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for straggler in self._stragglers:
            straggler.join()

    # ---- one request

    def _pass(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if handler.command == "POST":
            self._order(handler, body)
        else:
            self._question(handler)

    def _question(self, handler: BaseHTTPRequestHandler) -> None:
        asked = parse_qs(urlsplit(handler.path).query).get("client_order_id", [""])[0]
        with self._lock:
            deaf = self._deaf > 0 and bool(asked)
            self._deaf -= deaf
        if deaf:
            _answer(handler, 500, b"{}")
        elif asked in self._revoked:
            _answer(handler, 200, json.dumps({"orders": [self._revoked[asked]]}).encode())
        else:
            _answer(handler, *self._forward(handler, b""))

    def _order(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked = json.loads(body)
        with self._lock:
            self.arrivals[asked["client_order_id"]] += 1
            fault = self._fault if self.arrivals.total() == self._strike else "none"
            self.struck |= fault != "none"
        self._told("arrived")
        if fault in ("lost-order", "late-order", "error-before", "throttled", "revoked"):
            self._withhold(fault, handler, body, asked)
            return
        status, answer = self._forward(handler, body)
        self._told("accepted")
        self._bend(fault, handler, status, answer)
        self._told("told")

    def _withhold(self, fault: str, handler: BaseHTTPRequestHandler, body: bytes, asked: dict) -> None:
        """What befalls an order that the exchange does not get, or not yet."""
        if fault == "error-before":
            _answer(handler, 500, b"{}")
        elif fault == "throttled":
            _answer(handler, 429, b"{}", ("Retry-After", "1"))
        elif fault == "revoked":
            told = {**asked, "id": "R1", "status": "OPEN", "filled_quantity": "0", "filled_price": None, "fills": []}
            self._revoked[asked["client_order_id"]] = {**told, "status": "REJECTED", "rejection_reason": "REVOKED"}
            _answer(handler, 201, json.dumps(told).encode())
        else:
            if fault == "late-order":
                headers = dict(handler.headers)
                straggler = threading.Thread(target=self._late, args=(handler.path, headers, body), daemon=True)
                self._stragglers.append(straggler)
                straggler.start()
            handler.close_connection = True

    def _late(self, path: str, headers: dict, body: bytes) -> None:
        self._closing.wait(LATE_S)
        self._request("POST", path, headers, body)

    def _bend(self, fault: str, handler: BaseHTTPRequestHandler, status: int, answer: bytes) -> None:
        """What becomes of an answer."""
        if fault in ("lost-answer", "deaf", "venue-killed"):
            if fault == "deaf":
                self._deaf = 2
            elif fault == "venue-killed":
                self._revive()
            handler.close_connection = True
        elif fault == "error-after":
            _answer(handler, 500, b"{}")
        elif fault == "slow":
            self._closing.wait(self._patience_s + 0.05)
            _answer(handler, status, answer)
        elif fault == "cut":
            _answer(handler, status, answer, cut=len(answer) // 2)
            handler.close_connection = True
        elif fault == "nonsense":
            _answer(handler, status, b"<html>")
        elif fault == "split":
            _answer(handler, status, answer, bytewise=True)
        elif fault == "answered-twice":
            _answer(handler, status, answer)
            _answer(handler, status, answer)
        elif fault in ("fills-twice", "fills-late") and status == 201:
            told = json.loads(answer)
            if fault == "fills-twice":
                told["fills"] += told["fills"]
            else:
                told |= {"status": "OPEN", "filled_quantity": "0", "filled_price": None, "fills": []}
            _answer(handler, status, json.dumps(told).encode())
        else:
            _answer(handler, status, answer)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        return self._request(handler.command, handler.path, dict(handler.headers), body)

    def _request(self, method: str, path: str, headers: dict, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(method, path, body or None, headers)
            found = connection.getresponse()
            return found.status, found.read()
        finally:
            connection.close()


def _answer(handler: BaseHTTPRequestHandler, status: int, body: bytes, *headers: tuple[str, str], cut: int = 0,
            bytewise: bool = False) -> None:
    handler.send_response(status)
    for name, value in (("Content-Length", str(len(body))), *headers):
        handler.send_header(name, value)
    handler.end_headers()
    body = body[:cut] if cut else body
    for piece in ([body[i:i + 1] for i in range(len(body))] if bytewise else [body]):
        handler.wfile.write(piece)
