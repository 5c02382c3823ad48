"""An exchange on a free port, in a thread of this process, spoken to over real sockets."""

import asyncio
import contextlib
import dataclasses
import http.client
import threading
from types import SimpleNamespace

import orjson
import pytest
import websockets.sync.client

from common.clock import SystemClock
from common.config import Config, Exchange, Instance
from common.telemetry import Telemetry
from procs.exchange import COUNTERS, serve


class Served:
    """The address of an exchange, and the two ways to talk to it."""

    def __init__(self, host: str, port: int, telemetry: Telemetry) -> None:
        self.host, self.port, self.telemetry = host, port, telemetry

    def socket(self, path: str, **kwargs):
        return websockets.sync.client.connect(f"ws://{self.host}:{self.port}{path}", proxy=None, compression=None,
                                              max_size=None, close_timeout=0.5, **kwargs)

    def http(self, method: str, path: str, body: object = None, headers: dict | None = None) -> SimpleNamespace:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        with contextlib.closing(connection):
            content = body if isinstance(body, (bytes, type(None))) else orjson.dumps(body)
            connection.request(method, path, content, {"X-Bot-Key": "loopback"} if headers is None else headers)
            answer = connection.getresponse()
            content = answer.read()
            return SimpleNamespace(status=answer.status, headers=answer.headers, body=content,
                                   json=orjson.loads(content) if content else None)


@pytest.fixture
def serving(tmp_path, monkeypatch):
    """serving(rate=..., captures=...) -> a context in which an exchange runs; its state is in tmp_path."""
    monkeypatch.delenv("ALPHA_BOT_KEY", raising=False)

    @contextlib.contextmanager
    def start(base: Config = Config(), **settings):
        config = dataclasses.replace(base, instance=Instance(state_dir=str(tmp_path)),
                                     exchange=Exchange(port=0, **settings))
        telemetry = Telemetry.private("exchange", COUNTERS)
        ready, ended = threading.Event(), []
        handles = SimpleNamespace()

        async def main() -> None:
            handles.loop, handles.stop = asyncio.get_running_loop(), asyncio.Event()

            def on_ready(host: str, port: int) -> None:
                handles.served = Served(host, port, telemetry)
                ready.set()

            await serve(config, SystemClock(), on_ready, handles.stop, telemetry)

        def run() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:
                ended.append(error)
            finally:
                ready.set()

        thread = threading.Thread(target=run)
        thread.start()
        ready.wait()
        try:
            if hasattr(handles, "served"):
                yield handles.served
                handles.loop.call_soon_threadsafe(handles.stop.set)
        except BaseException:
            handles.loop.call_soon_threadsafe(handles.stop.set)
            raise
        finally:
            thread.join()
        if ended:
            raise ended[0]

    return start
