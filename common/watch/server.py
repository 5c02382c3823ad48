"""The page's server: files, figures and health over GET, snapshots over a WebSocket, in a thread of its own.

    GET / and what FILES names         the page
    GET /plotly.min.js                 the chart library of the package `plotly`, where that is installed
    GET /metrics, /healthz, /readyz    common.watch.metrics, common.watch.health
    GET /stream                        a WebSocket; everything in it is a JSON object a message

    we say    hello     {instance, refresh_ms, controls, charts, sheets}, first; `sheets`: `style_sheets`
              snapshot  what common.watch.watched takes, every monitor.refresh_ms
              history   {symbol, mid: [[Unix ns, mid], ...]}, to one who begins to watch a symbol
              answer    {id, ok, text}: what came of a control, and whether a token is the right one
    they say  watch     {symbol}: send its whole book from now on
              rest      nothing more until `watch`: nobody looks
              token     {id, token}: is it the right one? The answer to a wrong one is slow
              control   {id, do, why, token, confirm}: one of common.watch.controls; `confirm` repeats `do`

One snapshot is taken in a turn and encoded once, however many look; while nobody looks nothing is taken. Who takes
longer than a turn to receive one gets the newest next: none is ever queued. Every request is judged by
common.watch.access; no path of a file is made from what a request says.
"""

import asyncio
import gc
import gzip
import hashlib
import importlib.util
import logging
import re
import socket
import threading
import time
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from common import killswitch
from common.config import Config
from common.errors import AlphaError, ResourceError
from common.telemetry import Telemetry
from common.watch import controls, health, metrics
from common.watch.access import PROTOCOL, SECURITY, Access, Denied, Kind, address
from common.watch.watched import Watched
from common.wire import Prediction

COUNTERS = ("page_clients", "page_snapshots", "page_skipped", "page_requests", "page_denied", "page_errors")
STREAM = "/stream"
_WEB = Path(__file__).parent / "web"
#: path -> file and type; the only ones that are served
FILES = {"/": (_WEB / "index.html", "text/html; charset=utf-8"),
         "/app.js": (_WEB / "app.js", "text/javascript; charset=utf-8"),
         "/charts.js": (_WEB / "charts.js", "text/javascript; charset=utf-8"),
         "/style.css": (_WEB / "style.css", "text/css; charset=utf-8"),
         "/icon.svg": (_WEB / "icon.svg", "image/svg+xml")}
CHARTS = "/plotly.min.js"
MOST_CLIENTS = 32
MOST_CONNECTIONS = 64  #: those that have not said yet what they want among them
_MOST_BYTES = 4096  # of a message to us
_LONGEST_WHY = 200
_ON_THE_WAY = 128 * 1024  # bytes to a client that does not read: a few snapshots, soon old
_COLLECT_S = 30.0
_REFUSED_S = 0.5
_METHODS = ("GET", "HEAD")
_log = logging.getLogger("monitor")


def chart_library() -> Path | None:
    """The chart library of the package `plotly` (extra `watch`); None without it. Imports nothing."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    return path if path.is_file() else None


@cache
def style_sheets(library: Path) -> list[str]:
    """The ids of the style sheets that the chart library adds to a page which has none of that id. None of them is of
    use here, and the page's policy keeps each out and complains. About 10 ms, once."""
    return re.findall(r'\.id="([0-9a-f]{32,})",\w+\.textContent=', library.read_text(encoding="utf-8"))


class _Connection(ServerConnection):
    """One of too many is cut off at once, before it has said a word: what is open takes from what the monitor opens."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self.server.handler_tasks) > MOST_CONNECTIONS:
            transport.abort()


class _Client:
    """One WebSocket: what it watches, and the newest snapshot that it has not got."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.symbol: str | None = None
        self.looks = False
        self._newest: bytes | None = None
        self._news = asyncio.Event()

    def offer(self, text: bytes) -> bool:
        """False if that takes the place of one which has not left."""
        late, self._newest = self._newest is not None, text
        self._news.set()
        return not late

    async def send(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            text, self._newest = self._newest, None
            if text is not None:
                await self.connection.send(text, text=True)


class Server:
    """`predictions` as `Watched` takes them. The constructor binds the port: ResourceError if it is taken. `start`
    begins to serve, `close` ends it; neither waits long, and what goes wrong in between is logged and counted."""

    def __init__(self, config: Config, access: Access, telemetry: Telemetry,
                 predictions: Mapping[int, Prediction] | None = None) -> None:
        self._config, self._access, self._telemetry = config, access, telemetry
        self._predictions = predictions
        self._socket = bind(config.monitor.host, config.monitor.port)
        self.port: int = self._socket.getsockname()[1]
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._charts = chart_library()
        self._files: dict[str, tuple[str, str, bytes]] = {}  # path -> type, tag, compressed
        self._clients: set[_Client] = set()
        self._snapshots: Watched
        telemetry.set("page_clients", 0)  # whoever looked at the process before this one

    @property
    def url(self) -> str:
        """Where it is, for people on this machine; without the token."""
        return address(self._config.monitor.host, self.port)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            loop = self._loop
            if loop is not None:
                try:
                    loop.call_soon_threadsafe(self._stop.set)
                except RuntimeError:
                    pass  # the loop has ended meanwhile, which is what is wanted
            self._thread.join(3.0)
        self._socket.close()

    # ---- the thread

    def _run(self) -> None:
        """Serve until `close`; begin again after an error of ours."""
        while not self._stopping.is_set():
            try:
                asyncio.run(self._serve())
            except Exception:
                self._fail("the page's server has failed, and begins again")
                self._stopping.wait(1.0)

    def _fail(self, what: str) -> None:
        self._telemetry.add("page_errors")
        _log.exception("%s", what)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._looking, self._acting = asyncio.Event(), asyncio.Lock()
        self._clients.clear()
        self._snapshots = Watched(self._config, self._predictions)
        quiet = logging.getLogger("monitor.websockets")
        quiet.setLevel(logging.CRITICAL)  # of what strangers send; what fails here is logged here
        try:
            async with serve(self._talk, sock=self._socket.dup(), process_request=self._answer, subprotocols=[PROTOCOL],
                             select_subprotocol=_subprotocol, create_connection=_Connection, compression=None,
                             max_size=_MOST_BYTES, max_queue=4, server_header=None, open_timeout=20, close_timeout=1,
                             logger=quiet):
                tasks = [asyncio.create_task(one) for one in (self._turns(), self._tidy(), self._stop.wait())]
                if self._stopping.is_set():
                    return
                done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in others:
                    task.cancel()
                for task in done:
                    task.result()
        finally:
            self._loop = None
            self._snapshots.close()

    async def _turns(self) -> None:
        """A snapshot for all who look, then the next, while somebody does."""
        period = self._config.monitor.refresh_ms / 1000
        while True:
            await self._looking.wait()
            began = time.monotonic()
            looking = [client for client in self._clients if client.looks]
            if not looking:
                self._looking.clear()
                continue
            try:
                text = _message("snapshot", **self._snapshots.take({client.symbol for client in looking}))
            except Exception:
                self._fail("a snapshot could not be taken")
            else:
                self._telemetry.add("page_snapshots")
                self._telemetry.add("page_skipped", sum(not client.offer(text) for client in looking))
            await asyncio.sleep(max(period / 4, began + period - time.monotonic()))

    async def _tidy(self) -> None:
        """Collect what closed connections leave: the stage driver collects only what is younger than a second."""
        collected = 0
        while True:
            await asyncio.sleep(_COLLECT_S)
            if self._telemetry.get("page_requests") != collected:
                collected = self._telemetry.get("page_requests")
                gc.collect()

    # ---- a WebSocket

    async def _talk(self, connection: ServerConnection) -> None:
        client = _Client(connection)
        self._clients.add(client)
        self._telemetry.set("page_clients", len(self._clients))
        sending = None
        try:
            await connection.send(_message(
                "hello", instance=self._config.instance.name, refresh_ms=self._config.monitor.refresh_ms,
                controls=bool(self._access.token), charts=self._charts is not None,
                sheets=await asyncio.to_thread(style_sheets, self._charts) if self._charts else []), text=True)
            sending = asyncio.create_task(client.send())
            self._look(client)
            async for message in connection:
                await self._hear(client, message)
        except ConnectionClosed:
            pass  # as they do
        except Exception:
            self._fail("a client of the page could not be served")
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            self._clients.discard(client)
            self._telemetry.set("page_clients", len(self._clients))

    def _look(self, client: _Client) -> None:
        client.looks = True
        self._looking.set()

    async def _hear(self, client: _Client, message: str | bytes) -> None:
        try:
            said = orjson.loads(message)
            kind = said["type"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            await client.connection.close(1007, "one JSON object a message")
            return
        if kind == "watch":
            symbol = said.get("symbol")
            client.symbol = symbol if isinstance(symbol, str) else None
            self._look(client)
            if client.symbol is not None:
                mid = self._snapshots.history(client.symbol)
                await client.connection.send(_message("history", symbol=client.symbol, mid=mid), text=True)
        elif kind == "rest":
            client.looks = False
        elif kind == "token":
            done = await self._refused(said) or controls.Done(True, "the token is right")
            await client.connection.send(_message("answer", id=said.get("id"), ok=done.ok, text=done.text), text=True)
        elif kind == "control":
            done = await self._control(said)
            await client.connection.send(_message("answer", id=said.get("id"), ok=done.ok, text=done.text), text=True)

    async def _refused(self, said: dict[str, Any]) -> controls.Done | None:
        """Why who said that may not act; None if they may."""
        if not self._access.token:
            return controls.Done(False, "view only: this monitor was started without a token")
        if self._access.knows(said.get("token")):
            return None
        self._telemetry.add("page_denied")
        _log.warning("a %s was refused: the token is wrong", said["type"])
        await asyncio.sleep(_REFUSED_S)  # nobody guesses fast
        return controls.Done(False, "refused: the token is wrong")

    async def _control(self, said: dict[str, Any]) -> controls.Done:
        """Do what is asked, by one who has the token and has said twice what it is."""
        what, why = said.get("do"), said.get("why")
        if refused := await self._refused(said):
            return refused
        if what not in controls.ACTIONS or said.get("confirm") != what:
            return controls.Done(False, "refused: not confirmed")
        why = why.strip()[:_LONGEST_WHY] if isinstance(why, str) else ""
        if what == "halt":  # the switch waits for nobody, not for what is under way either
            try:
                await asyncio.to_thread(killswitch.halt, self._config.state_dir, why or "from the page", "page")
            except AlphaError as error:
                return controls.Done(False, str(error))
        async with self._acting:
            try:
                done = await asyncio.to_thread(controls.act, self._config, what, why or "from the page", "page",
                                               controls.PATIENCE_S)
            except AlphaError as error:
                done = controls.Done(False, str(error))
        _log.warning("%s, from the page: %s", what, "; ".join(line.strip() for line in done.text.splitlines()))
        return done

    # ---- GET

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """An answer, or None for the WebSocket, which websockets then opens."""
        self._telemetry.add("page_requests")
        try:
            response = await self._route(request)
            if response is not None and _method(request) == "HEAD":
                response.body = b""
            return response
        except Exception:
            self._fail("a request could not be answered")
            return _response(500, b"this should not have happened; the log of the monitor tells more\n")

    async def _route(self, request: Request) -> Response | None:
        if _method(request) not in _METHODS:
            self._telemetry.add("page_denied")
            return _response(405, b"this server answers GET\n", more={"Allow": ", ".join(_METHODS)})
        headers, path = request.headers, request.path.partition("?")[0]
        kind = {STREAM: Kind.SOCKET, "/metrics": Kind.DATA, "/healthz": Kind.DATA, "/readyz": Kind.DATA}.get(
            path, Kind.PAGE)
        denied = self._access.check(kind, *(headers.get_all(name) for name in (
            "Host", "Origin", "Authorization", "Sec-WebSocket-Protocol")))
        if denied is None and kind is Kind.SOCKET and len(self._clients) >= MOST_CLIENTS:
            denied = Denied(503, f"{MOST_CLIENTS} look already")
        if denied is not None:
            self._telemetry.add("page_denied")
            return _response(denied.status, denied.why.encode() + b"\n")
        if kind is Kind.SOCKET:
            return None
        if kind is Kind.DATA:
            return self._figures(path, headers.get_all("Accept"))
        if path in FILES or path == CHARTS and self._charts:
            return await self._file(path, headers)
        return _response(404, b"there is no such page\n")

    def _figures(self, path: str, accept: list[str]) -> Response:
        overview, config = self._snapshots.overview, self._config
        if path == "/healthz":
            found = health.live((time.monotonic_ns() - self._telemetry.get("heartbeat_ns")) / 1e9)
            return _response(found.status, found.body(), "application/json")
        overview.refresh()
        if path == "/readyz":
            found = health.ready(config, overview.states(), overview.tops(), overview.values("executor"))
            return _response(found.status, found.body(), "application/json")
        wanted = ", ".join(accept)
        text = metrics.exposition(overview, config, wanted, self._snapshots.positions())
        return _response(200, text, metrics.content_type(wanted))

    async def _file(self, path: str, headers: Headers) -> Response:
        """A file of the table, compressed; not again to a browser that has it."""
        if path not in self._files:
            source, kind = FILES.get(path) or (self._charts, "text/javascript; charset=utf-8")
            self._files[path] = await asyncio.to_thread(_packed, source, kind)
        kind, tag, packed = self._files[path]
        more = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if tag in headers.get_all("If-None-Match"):
            return _response(304, b"", kind, more)
        if "gzip" in ",".join(headers.get_all("Accept-Encoding")):
            return _response(200, packed, kind, {**more, "Content-Encoding": "gzip"})
        return _response(200, gzip.decompress(packed), kind, more)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. ResourceError, naming address and port, where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ResourceError("the monitor's page cannot be served", where=f"monitor.host={host!r}: {error.strerror}",
                            remedy="name an address of this machine") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ON_THE_WAY)  # of what it accepts, too
        listening.bind(address)
        listening.listen(64)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ResourceError("the port of the monitor's page is taken", where=f"{host}:{port}: {error.strerror}",
                            remedy="stop what listens there, set ALPHA_MONITOR__PORT, or switch the page off "
                                   "(monitor.page = false)") from None
    return listening


def _packed(source: Path, kind: str) -> tuple[str, str, bytes]:
    raw = source.read_bytes()
    return kind, f'"{hashlib.sha256(raw).hexdigest()[:32]}"', gzip.compress(raw, 6, mtime=0)


def _message(kind: str, **fields: Any) -> bytes:
    return orjson.dumps({"type": kind, **fields})


def _method(request: Request) -> str:
    return getattr(request, "method", _METHODS[0])  # websockets before 16 lets nothing but GET come so far


def _subprotocol(connection: ServerConnection, offered: Any) -> str | None:
    """Ours where it is offered; the token beside it is never echoed."""
    return PROTOCOL if PROTOCOL in offered else None


def _response(status: int, body: bytes, kind: str = "text/plain; charset=utf-8",
              more: Mapping[str, str] | None = None) -> Response:
    headers = Headers({"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close",
                       "Cache-Control": "no-store", **SECURITY})
    for name, value in (more or {}).items():
        if name in headers:
            del headers[name]
        headers[name] = value
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(status, HTTPStatus(status).phrase, headers, body)
