"""The loopback exchange over a market that stands still, in Binance's forms and in VecTrade's: what is asked for can be
had, on both sides, at one price. For tests of gateways; runs in a thread, spoken to over real sockets."""

import asyncio
import contextlib
import dataclasses
import threading
from types import SimpleNamespace

from common import faults
from common.clock import SystemClock
from common.config import Config, Exchange, Instance, Market
from common.fixed import SCALE
from common.loopback.binance_orders import SyntheticBinance
from common.loopback.connections import Connection
from common.loopback.vectrade import Synthetic
from common.venues import create
from procs.exchange import NoTelemetry

PRICE = 100 * SCALE
SIZE = 50 * SCALE


class _Still:
    """`book` may be changed at any time by `call`, as may all else."""

    def __init__(self, config: Config, loop) -> None:
        super().__init__(config, SystemClock(), loop, NoTelemetry())
        self.book = [(PRICE, SIZE)], [(PRICE, SIZE)]
        self.asked: list[tuple[str, str]] = []  #: method and path of each request
        self.targets: list[str] = []
        self.bodies: list[bytes] = []
        for each in self.market.books:
            each.last = PRICE

    def begin(self) -> None:
        """Nothing moves by itself."""

    def http(self, call) -> None:
        self.asked.append((call.method, call.path))
        self.targets.append(call.target)
        self.bodies.append(call.body)
        super().http(call)

    def _book(self, symbol: int):
        return self.book

    def _marks(self) -> dict[str, int]:
        return {symbol: PRICE for symbol in self.symbols}

    def _execute(self, plan) -> None:
        super()._execute(plan._replace(taken=[]))

    def _publish(self, steps) -> None:
        """Nobody looks."""

    def move(self, bid: int, ask: int) -> None:
        """The market comes to these prices: what rests may fill."""
        self.book = [(bid, SIZE)], [(ask, SIZE)]
        for symbol in self.symbols:
            if self.matching.working.get(symbol):
                self._execute(self.matching.on_market(symbol, self.book, (), self._now_ms()))

    def hang_up(self) -> None:
        """Every WebSocket ends without a word."""
        for client in list(self.clients):
            client._transport.abort()


class Still(_Still, SyntheticBinance):
    """In one of Binance's forms."""


class StillVectrade(_Still, Synthetic):
    """In that of VecTrade."""


class Served:
    """`call` runs something in the exchange's own thread, and returns what it does."""

    def __init__(self, mode: Still, loop, port: int) -> None:
        self.mode, self._loop = mode, loop
        self.url = f"http://127.0.0.1:{port}"

    def call(self, what):
        async def run():
            return what(self.mode)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def disturb(self, *texts: str) -> None:
        self.call(lambda mode: mode.disturb(faults.Plan([faults.parse(text) for text in texts]),
                                            lambda: create(mode.venue, mode.symbols)))

    def count(self, method: str, path: str) -> int:
        return self.call(lambda mode: mode.asked.count((method, path)))


@contextlib.contextmanager
def still(folder, venue: str = "binance-usdm", symbols=("BTC-USD",), kind: type = Still, **settings):
    """An exchange with its record in `folder`; `settings` of [exchange]."""
    config = Config(instance=Instance(state_dir=str(folder)), market=Market(venue=venue, symbols=tuple(symbols)))
    config = dataclasses.replace(config, exchange=Exchange(port=0, **settings))
    ready, handles, ended = threading.Event(), SimpleNamespace(), []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stop, mode = asyncio.Event(), kind(config, loop)
        server = await loop.create_server(lambda: Connection(mode), "127.0.0.1", 0)
        handles.stop = lambda: loop.call_soon_threadsafe(stop.set)
        handles.served = Served(mode, loop, server.sockets[0].getsockname()[1])
        ready.set()
        try:
            stopped = loop.create_task(stop.wait())
            await asyncio.wait((stopped, mode.failed), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if mode.failed.done():
                mode.failed.result()
        finally:
            server.close()
            for connection in list(mode.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
            mode.end()

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
    finally:
        if hasattr(handles, "stop"):
            with contextlib.suppress(RuntimeError):
                handles.stop()
        thread.join()
    if ended:
        raise ended[0]


def still_vectrade(folder, venue: str = "vectrade", **more):
    return still(folder, venue, kind=StillVectrade, **more)
