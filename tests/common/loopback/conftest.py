"""An exchange on a free port, in a thread of this process, spoken to over real sockets; and a feed as ingest has it
that follows it, stepped by the test."""

import asyncio
import contextlib
import dataclasses
import http.client
import select
import threading
from collections import Counter
from types import SimpleNamespace

import orjson
import pytest
import websockets.sync.client

from common import config as settings_of
from common.clock import SystemClock
from common.config import Config, Exchange, Instance
from common.feed import Feed
from common.layout import KIND, KIND_STATE
from common.ring import Books
from common.telemetry import Telemetry
from common.venues import create
from procs.exchange import COUNTERS, serve
from tests.waiting import until


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
    """serving(rate=..., captures=..., disturb=...) -> a context in which an exchange runs; its state is in tmp_path."""
    monkeypatch.delenv("ALPHA_BOT_KEY", raising=False)

    @contextlib.contextmanager
    def start(base: Config = Config(), disturb=(), repeat=1, **settings):
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

            await serve(config, SystemClock(), on_ready, handles.stop, telemetry, disturb, repeat)

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


class Follower:
    """A feed of one venue that follows an exchange. It lives by the real clock, with short pauses."""

    def __init__(self, served: Served, venue: str, symbols, **settings) -> None:
        market = settings_of.Market(**{
            "venue": venue, "ws_url": f"ws://{served.host}:{served.port}",
            "rest_url": f"http://{served.host}:{served.port}", "symbols": tuple(symbols), "backoff_min_s": 0.02,
            "backoff_max_s": 0.1, **settings})
        self.counted: Counter = Counter()
        self.books = Books.private(symbols, 1 << 14)
        self.feed = Feed("market", market, create(venue, symbols), self.books, 0, SystemClock(),
                         lambda line, recv_ns: None, lambda name, n: self.counted.update({name: n}))

    @property
    def market(self):
        return self.feed.market

    @property
    def counts(self):
        return self.feed.market.counts

    def step(self) -> None:
        if not self.feed.receive(None) + self.feed.work(SystemClock().monotonic_ns()):
            select.select([thing.fileno() for thing in self.feed.waits_for() if thing.fileno() >= 0], [], [], 0.002)

    def until(self, condition, what: str = "the condition", seconds: float = 20.0) -> None:
        until(lambda: self.step() or condition(), seconds, what)

    def valid(self, count: int) -> None:
        self.until(lambda: self.market.valid_symbols == count, f"{count} valid books")

    def disturbed(self, symbol: int) -> int:
        """How often its book became invalid."""
        return int((self.books.ticks[symbol][:, KIND] == KIND_STATE).sum())

    def book(self, symbol: int):
        """(bids, asks) while valid, else None."""
        whole = self.market.whole(symbol)
        return (whole.levels.tolist(), whole.n_bids) if whole is not None else None


@pytest.fixture
def follow():
    made = []

    def make(*args, **settings) -> Follower:
        made.append(Follower(*args, **settings))
        return made[-1]

    yield make
    for follower in made:
        follower.feed.close()
