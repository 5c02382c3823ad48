"""The floor: the cheapest thing that has the shape of the pipeline, on the same cores and with the same settings.

    source ==ws==> shell ==36 bytes==> relay ==44 bytes==> model ==137 bytes==> sink

Four processes and three PUSH/PULL links over ipc with blocking receives. The shell takes frames as ingest does and
parses each with orjson, the relay passes on, the model runs once on an input that never changes, the sink takes the
time. No book, no features, no shared memory, no decision, no check of anything. Messages have the sizes of ours.

    python -m procs.bench.floor STATION
"""

import signal
import struct
import sys
import time
from collections.abc import Callable

import numpy as np
import orjson

from common import placement, wire
from common.clock import SystemClock
from common.config import Config, load
from common.links import Network, Poller
from common.telemetry import Telemetry
from common.websocket import State, WebSocket
from procs.bench.bed import TIMER, Bed, attached, instance_of
from procs.bench.model import session

STATIONS = {"shell": "ingest", "relay": "feature", "model": "inference", "sink": "executor"}  #: and their cores
_STAMP = struct.Struct("<q")


def _message(kind: type) -> bytes:
    """A message of the size of one record of ours."""
    fields = [0.0 if form is float else 0 for form in kind.__annotations__.values()]
    return wire.encode([kind(*fields)])


def shell(config: Config, network: Network) -> Callable[[], None]:
    websocket = WebSocket(f"{config.market.ws_url}/ws", SystemClock())
    send = network.push("ticks").socket.send
    padding = _message(wire.TickRef)[_STAMP.size:]
    poller = Poller()
    while websocket.state is not State.OPEN:
        websocket.recv()
        time.sleep(0.001)
    websocket.send(b'{"action":"subscribe","channels":[]}')
    poller.add(websocket)

    def turn() -> None:
        poller.wait(1000)
        for frame, recv_ns in websocket.recv():
            orjson.loads(frame)
            send(_STAMP.pack(recv_ns) + padding)

    return turn


def relay(config: Config, network: Network) -> Callable[[], None]:
    recv, send = network.pull("ticks").socket.recv, network.push("work-0").socket.send
    padding = _message(wire.Work)[_STAMP.size:]

    def turn() -> None:
        send(recv()[:_STAMP.size] + padding)

    return turn


def model(config: Config, network: Network) -> Callable[[], None]:
    recv, send = network.pull("work-0").socket.recv, network.push("predictions").socket.send
    padding = _message(wire.Prediction)[_STAMP.size:]
    network_of = session(config.path(config.inference.model))
    told = network_of.get_inputs()[0]
    feed = {told.name: np.zeros([size if isinstance(size, int) else 1 for size in told.shape], np.float32)}
    run = network_of.run
    for _ in range(100):
        run(None, feed)

    def turn() -> None:
        stamp = recv()[:_STAMP.size]
        run(None, feed)
        send(stamp + padding)

    return turn


def sink(config: Config, network: Network) -> Callable[[], None]:
    recv = network.pull("predictions").socket.recv
    telemetry = Telemetry.create(config.instance.name, "floor", ("decisions",), (TIMER,))

    def turn() -> None:
        stamp = _STAMP.unpack_from(recv())[0]
        telemetry.observe(TIMER, time.monotonic_ns() - stamp)
        telemetry.add("decisions")

    telemetry.set("ready", 1)
    return turn


class Floor:
    """Its processes, as the benchmark sees them."""

    name = "floor"

    def __init__(self, bed: Bed, url: str, environment: dict[str, str]) -> None:
        self._bed = bed
        environment = {**environment, "ALPHA_MARKET__WS_URL": url}
        self.stations = list(STATIONS)
        self.processes = [bed.spawn("procs.bench.floor", station, environment=environment)
                          for station in reversed(self.stations)][::-1]
        self.telemetry = bed.until(lambda: attached(instance_of(environment), "floor"), "the start of the floor")

    def ready(self) -> None:
        """The first frames, which come with the subscription, have gone all the way."""
        self._bed.until(lambda: self.telemetry.get("decisions"), "the first frame through the floor")

    def stop(self) -> None:
        self._bed.stop(self.processes)


def main(station: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    config = load()
    placement.pin(STATIONS[station], config.placement)
    awake = placement.keep_awake(config.placement)  # noqa: F841  in force while it is open
    turn = globals()[station](config, Network(config.run_dir))
    placement.order(STATIONS[station], config.placement)
    placement.freeze_collector(config.placement)
    while True:
        turn()


if __name__ == "__main__":
    main(*sys.argv[1:])
