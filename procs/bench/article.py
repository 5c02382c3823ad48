"""The architecture of the article as it stands, written as a competent engineer would from its description.

    source ==ws==> one asyncio process ==multiprocessing.Queue(10)==> one worker ==multiprocessing.Queue==> router

The asyncio process parses each frame, keeps the books in dictionaries, computes features with NumPy over sliding
buffers and puts the window on the queue, or drops it where the queue is full. The worker runs an ONNX Runtime
session with its default options. The router, a thread of the first process, applies the threshold and sizes the
order. Nothing is pinned and nothing is tuned; websockets, asyncio and multiprocessing are at their defaults.

It is given less to do than ours: of the 24 columns that the model takes it computes 11 and leaves the others zero,
it checks no sequence, keeps no journal and knows no risk limit.

    python -m procs.bench.article [--wait]      --wait: a full queue holds up the reader, so that nothing is lost
"""

import asyncio
import math
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
import orjson
from websockets.asyncio.client import connect

from common import placement
from common.config import Config, load
from common.features.choice import DEFAULT
from common.telemetry import Telemetry
from procs.bench.bed import TIMER, Bed, attached, instance_of
from procs.bench.model import describe, session

_QUEUE = 10
_LEVELS = 5
_RETURNS = (1, 10, 50, 200)
_MIDS = max(_RETURNS) + 1


class Symbol:
    """One book and its sliding buffers, newest last."""

    def __init__(self, window: int) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.mids = np.zeros(_MIDS)
        self.returns = np.zeros(100)
        self.flows = np.zeros(100)
        self.rows = np.zeros((window, len(DEFAULT.names)), np.float32)
        self.count = 0

    def on_book(self, message: dict[str, Any]) -> None:
        if message["type"] == "snapshot":
            self.bids.clear()
            self.asks.clear()
        for side, changes in ((self.bids, message["bids"]), (self.asks, message["asks"])):
            for price, quantity in changes:
                if quantity == "0":
                    side.pop(float(price), None)
                else:
                    side[float(price)] = float(quantity)
        _append(self.flows, 0.0)

    def on_trade(self, message: dict[str, Any]) -> None:
        _append(self.flows, float(message["quantity"]) * (1 if message["side"] == "BUY" else -1))

    def update(self) -> float:
        """A new row at the end of `rows`; returns the mid price."""
        bids = sorted(self.bids, reverse=True)[:_LEVELS]
        asks = sorted(self.asks)[:_LEVELS]
        bid_volumes = np.array([self.bids[price] for price in bids])
        ask_volumes = np.array([self.asks[price] for price in asks])
        mid = (bids[0] + asks[0]) / 2
        before = self.mids[-1]
        _append(self.mids, mid)
        _append(self.returns, math.log(mid / before) if before else 0.0)
        self.count += 1
        bid_volume, ask_volume = bid_volumes.sum(), ask_volumes.sum()
        micro_price = (asks[0] * bid_volume + bids[0] * ask_volume) / (bid_volume + ask_volume)
        traded = np.abs(self.flows).sum()
        self.rows[:-1] = self.rows[1:]
        row = self.rows[-1]
        row[0] = (bid_volumes[0] - ask_volumes[0]) / (bid_volumes[0] + ask_volumes[0])
        row[1] = (bid_volume - ask_volume) / (bid_volume + ask_volume)
        row[2] = (asks[0] - bids[0]) / mid * 1e4
        row[3] = (micro_price - mid) / mid * 1e4
        row[4] = self.returns[-20:].std() * 1e4
        row[5] = self.returns.std() * 1e4
        row[6] = self.flows.sum() / traded if traded else 0.0
        if self.count >= _MIDS:
            for column, length in enumerate(_RETURNS, 7):
                row[column] = (mid / self.mids[-1 - length] - 1) * 1e4
        return mid


def _append(buffer: np.ndarray, value: float) -> None:
    """Slide by one."""
    buffer[:-1] = buffer[1:]
    buffer[-1] = value


class Pipeline:
    """The asyncio process."""

    def __init__(self, config: Config, wait: bool) -> None:
        self._config, self._wait = config, wait
        context = multiprocessing.get_context("fork")  # the default on Linux for long
        path = str(config.path(config.inference.model))
        self._windows, self._predictions = context.Queue(maxsize=_QUEUE), context.Queue()
        self._window = describe(config.path(config.inference.model))["window"]
        self._symbols = {name: Symbol(self._window) for name in config.market.symbols}
        self._orders: list[dict[str, Any]] = []
        self._telemetry = Telemetry.create(config.instance.name, "article", ("decisions", "orders", "rows", "dropped"),
                                           (TIMER,))
        self._worker = context.Process(target=work, args=(path, self._windows, self._predictions), daemon=True)
        self._worker.start()
        self._predictions.get()  # the worker is ready
        threading.Thread(target=self._route, daemon=True).start()

    def stop(self) -> None:
        """At once, whatever stands in the queues."""
        self._worker.terminate()
        self._worker.join()
        os._exit(0)

    async def run(self) -> None:
        names = list(self._symbols)
        async with connect(f"{self._config.market.ws_url}/ws", proxy=None) as websocket:
            channels = [f"{kind}:{name}" for name in names for kind in ("orderbook", "trades")]
            await websocket.send(orjson.dumps({"action": "subscribe", "channels": channels}).decode())
            self._telemetry.set("ready", 1)
            async for message in websocket:
                received = time.monotonic_ns()
                self._on_message(orjson.loads(message), received)

    def _on_message(self, message: dict[str, Any], received: int) -> None:
        feed, _, name = message.get("channel", "").partition(":")
        if not name:
            return
        symbol = self._symbols[name]
        if feed == "orderbook":
            symbol.on_book(message)
        else:
            symbol.on_trade(message)
        mid = symbol.update()
        if symbol.count < DEFAULT.warm_up + self._window:
            return
        self._telemetry.add("rows")
        item = (name, mid, received, symbol.rows.copy())
        if self._wait:
            self._windows.put(item)
            return
        try:
            self._windows.put_nowait(item)
        except queue.Full:
            self._telemetry.add("dropped")

    def _route(self) -> None:
        """Threshold and size; the payload is where an order would leave."""
        settings = self._config.decision
        while True:
            name, mid, received, probability = self._predictions.get()
            confidence = abs(probability - 0.5)
            if confidence >= settings.threshold:
                notional = settings.order_notional * (2 * confidence) ** settings.power
                self._orders.append({
                    "symbol": name, "side": "BUY" if probability > 0.5 else "SELL", "order_type": "LIMIT",
                    "quantity": f"{notional / mid:.4f}", "limit_price": f"{mid:.2f}", "time_in_force": "IOC"})
                del self._orders[:-100]
                self._telemetry.add("orders")
            self._telemetry.observe(TIMER, time.monotonic_ns() - received)
            self._telemetry.add("decisions")


def work(path: str, windows: Any, predictions: Any) -> None:
    """The worker process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    placement.die_with_parent()
    network = session(path, defaults=True)
    told = network.get_inputs()[0]
    width = told.shape[1:]
    output = network.get_outputs()[-1].name  # behind a label, where there is one
    network.run([output], {told.name: np.zeros((1, *width), np.float32)})
    predictions.put(None)
    while True:
        name, mid, received, rows = windows.get()
        found = network.run([output], {told.name: rows.reshape((1, *width))})[0]
        predictions.put((name, mid, received, float(np.ravel(found)[-1])))


class Article:
    """Its processes, as the benchmark sees them."""

    name = "article"
    stations = ["asyncio, worker"]

    def __init__(self, bed: Bed, url: str, environment: dict[str, str], wait: bool = False) -> None:
        self._bed = bed
        environment = {**environment, "ALPHA_MARKET__WS_URL": url}
        self.processes = [bed.spawn("procs.bench.article", *(["--wait"] if wait else []), environment=environment)]
        self.telemetry = bed.until(lambda: attached(instance_of(environment), "article"), "the start of the article's")

    def ready(self) -> None:
        """Nothing more to wait for."""

    def stop(self) -> None:
        self._bed.stop(self.processes)


def main(*arguments: str) -> None:
    pipeline = Pipeline(load(), "--wait" in arguments)
    signal.signal(signal.SIGTERM, lambda *_: pipeline.stop())
    asyncio.run(pipeline.run())


if __name__ == "__main__":
    main(*sys.argv[1:])
