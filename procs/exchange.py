"""exchange: the loopback exchange. One port for WebSocket and HTTP, on which a venue's protocol is spoken.

    synthetic mode   a seeded market that takes orders, in the protocol of VecTrade (common.loopback.vectrade) or, where
                     market.venue names one of them, of Binance usd-m or spot (common.loopback.binance_orders)
    capture mode     any venue as it was recorded (common.loopback.venue; for foreign recordings of Binance
                     common.loopback.binance, which gives every stream and snapshot as it stands in the file)
    both             GET /loopback/status; faults, if any are asked for (common.faults)

This is the only process that uses asyncio: it serves others, and is not on the way of a tick.
"""

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import selectors
import signal
from collections.abc import Callable
from typing import Any

import click

from common import captures, faults, log, placement
from common.clock import SystemClock
from common.config import Config, load
from common.errors import ConfigError, ResourceError
from common.locks import lock_file, stage_lock
from common.loopback.binance import Playback
from common.loopback.binance_orders import SyntheticBinance
from common.loopback.connections import Connection, Mode
from common.loopback.record import FaultLog
from common.loopback.vectrade import Synthetic
from common.loopback.venue import Played
from common.notify import Notifier
from common.stage import begin_supervised, exit_on_error, hear_signals, own_folder
from common.telemetry import Telemetry
from common.venues import create

COUNTERS = ("clients", "frames", "orders", "fills", "rejected", "duplicates", "dropped", "faults")


class NoTelemetry:
    """Stands in where nobody looks."""

    def add(self, name: str, n: int = 1) -> None:
        pass

    set = add


async def serve(config: Config, clock: Any, on_ready: Callable[[str, int], None] | None = None,
                stop: asyncio.Event | None = None, telemetry: Any = None, disturb: tuple[str, ...] = (),
                repeat: int = 1) -> None:
    """Serves until `stop`. `on_ready` is told host and port; `disturb` are faults as `common.faults.parse` takes them;
    a recording is played `repeat` times, 0: without end. Raises ResourceError where the port is taken."""
    loop = asyncio.get_running_loop()
    settings = config.exchange
    telemetry = telemetry or NoTelemetry()
    wanted = [faults.parse(text) for text in disturb]
    mode = _mode(config, clock, loop, telemetry, repeat)
    fault_log = None
    try:
        if wanted:
            fault_log = _disturb(mode, config, clock, telemetry, wanted, disturb)
        try:
            server = await loop.create_server(lambda: Connection(mode), settings.host, settings.port)
        except OSError as error:
            raise ResourceError("cannot listen", where=f"{settings.host}:{settings.port}: {error.strerror}",
                                remedy="stop what listens there, or choose another with --port") from None
        try:
            mode.begin()
            if on_ready is not None:
                on_ready(*server.sockets[0].getsockname()[:2])
            stopped = loop.create_task((stop or asyncio.Event()).wait())
            await asyncio.wait((stopped, mode.failed), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if mode.failed.done():
                mode.failed.result()
        finally:
            server.close()
            await _hang_up(mode)
    finally:
        mode.end()
        if fault_log is not None:
            fault_log.close()


def _mode(config: Config, clock: Any, loop: Any, telemetry: Any, repeat: int) -> Mode:
    paths = [config.path(name) for name in config.exchange.captures]
    if not paths:
        kind = SyntheticBinance if config.market.venue in ("binance-usdm", "binance-spot") else Synthetic
        return kind(config, clock, loop, telemetry)
    if captures.describe(paths).venue.startswith("binance") and not any(map(captures.header, paths)):
        if repeat != 1:
            raise ConfigError("a foreign recording is played once", where=f"repeat={repeat}",
                              remedy="make a capture of it: alpha record")
        return Playback(config, loop, telemetry)
    return Played(config, loop, telemetry, repeat)


def _disturb(mode: Mode, config: Config, clock: Any, telemetry: Any, wanted: list[faults.Fault],
             texts: tuple[str, ...]) -> FaultLog:
    """Lets `mode` suffer the faults that are wanted; returns where they are written down."""
    unknown = {fault.symbol for fault in wanted} - {"", *mode.symbols}
    if unknown:
        raise ConfigError("a fault is to befall a symbol that is not served", where=f"symbol={', '.join(unknown)}",
                          remedy=f"served are {', '.join(mode.symbols)}")
    for fault in wanted:
        if fault.name in mode.without:
            why = ("a recording takes no orders" if config.exchange.captures else
                   f"{mode.venue} asks for no snapshots and pushes no fills")
            raise ConfigError("a fault of something that this exchange does not do",
                              where=f"--fault {fault.name}: {why}",
                              remedy="without --capture there are orders; market.venue says in whose protocol")
    fault_log = FaultLog(config.state_dir / "faults.jsonl", clock, texts, config.exchange.seed)

    def applied(fault: faults.Applied) -> None:
        telemetry.add("faults")
        fault_log.applied(fault)

    mode.disturb(faults.Plan(wanted, config.exchange.seed, applied, config.market.max_frame_bytes),
                 lambda: create(mode.venue, mode.symbols))
    return fault_log


async def _hang_up(mode: Mode) -> None:
    """Lets what was written arrive, for a moment; then the rest is cut off."""
    for connection in list(mode.connections):
        connection.shut()
    for _ in range(20):
        if not mode.connections:
            return
        await asyncio.sleep(0.02)
    for connection in list(mode.connections):
        connection.transport.abort()
    await asyncio.sleep(0)


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@click.option("--seed", type=int, help="Of the synthetic market, and of faults.")
@click.option("--rate", type=click.FloatRange(0, min_open=True),
              help="Synthetic market: messages per second over all symbols.")
@click.option("--capture", "recordings", multiple=True, type=click.Path(exists=True, dir_okay=False),
              help="Serve this recording instead of the synthetic market; may be repeated.")
@click.option("--speed", type=click.FloatRange(0), help="Of a recording: 1 as recorded, 0 as fast as clients read.")
@click.option("--repeat", type=click.IntRange(0), default=1, show_default=True,
              help="Play a capture so often; 0: without end.")
@click.option("--fault", "disturb", multiple=True, metavar="NAME[:KEY=VALUE,...]",
              help="Disturb what is sent; may be repeated. What was done is written to faults.jsonl.")
@click.option("--list-faults", is_flag=True, help="Explain the faults, and end.")
def exchange(path: str | None, recordings: tuple[str, ...], repeat: int, disturb: tuple[str, ...], list_faults: bool,
             **given: Any) -> None:
    """A venue on this machine: a synthetic market that takes orders, or a recording.

    \b
    Synthetic market (the VecTrade protocol)
      ws://HOST:PORT/ws     -> {"action":"subscribe","channels":["orderbook:AAPL","trades:AAPL","ticker:AAPL"]}
                            <- {"channel":"orderbook:AAPL","type":"snapshot","sequence":7,"timestamp":...,
                                "bids":[["189.98","12"],...],"asks":[...]}, then "delta", quantity "0" removes
      POST /api/trade/v1/bot/orders    header X-Bot-Key: "loopback", or $ALPHA_BOT_KEY where it is set
      GET, DELETE /api/trade/v1/bot/orders/ID    GET .../orders?client_order_id=X    GET .../portfolio
      Its record of orders and fills: exchange.jsonl in the state folder; restored at the next start.

    \b
    Synthetic market where market.venue is binance-usdm or binance-spot (Binance's protocol)
      ws://HOST:PORT/stream?streams=btcusdt@depth/btcusdt@bookTicker/btcusdt@trade
      GET /fapi/v1/exchangeInfo, depth, trades, ticker/bookTicker    spot: /api/v3/...
      Orders: signed, key and secret "loopback", or $ALPHA_BINANCE_KEY and $ALPHA_BINANCE_SECRET where they are set
      User stream: listenKey and /private/ws/KEY    spot: /ws-api/v3, userDataStream.subscribe.signature
      exchange.clock_s puts its clock ahead of this machine's, by which timestamps are judged.

    \b
    Recording, from the first subscriber on: of any venue, in its own protocol, snapshots included. Of Binance:
      ws://HOST:PORT/stream?streams=btcusdt@depth@0ms/btcusdt@bookTicker/btcusdt@trade
      GET /fapi/v1/depth?symbol=BTCUSDT&limit=1000    GET /api/v3/depth?...

    \b
    Both: GET /loopback/status, and faults on request: --list-faults explains them
      alpha exchange --fault drop:rate=0.01,symbol=AAPL --fault disconnect:every=5000 --seed 7
      Each that is applied: faults.jsonl in the state folder.

    \b
    Example
      alpha exchange --port 8765 &
      curl -s -H 'X-Bot-Key: loopback' http://127.0.0.1:8765/api/trade/v1/bot/orders -d '{"symbol":"AAPL",
        "side":"BUY","order_type":"MARKET","time_in_force":"IOC","quantity":"5","client_order_id":"try-1"}'
    """
    if list_faults:
        click.echo(faults.explained())
        return
    with exit_on_error():
        config = load(path)
        chosen = {key: value for key, value in given.items() if value is not None}
        if recordings:
            chosen["captures"] = tuple(os.path.abspath(name) for name in recordings)
        run(dataclasses.replace(config, exchange=dataclasses.replace(config.exchange, **chosen)), disturb, repeat)


def run(config: Config, disturb: tuple[str, ...] = (), repeat: int = 1) -> None:
    """The exchange as this process, until SIGTERM or SIGINT; `disturb` and `repeat` as of `serve`."""
    supervised = begin_supervised()
    stopping = hear_signals()  # until the loop has them
    log.start("exchange", config)
    logging.getLogger("websockets").setLevel(logging.WARNING)
    os.umask(0o077)
    own_folder(config.run_dir)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, lock_file(stage_lock(config.run_dir, "exchange"), "stage exchange"))
        told: dict[str, Any] = {"waiting_for": "", "cores": placement.pin("exchange", config.placement),
                                "niceness": placement.order("exchange", config.placement)}
        awake = placement.keep_awake(config.placement)
        if awake is not None:
            stack.callback(os.close, awake)
        telemetry = Telemetry.create(config.instance.name, "exchange", COUNTERS)
        stack.callback(telemetry.close)
        told |= {"kept_awake": awake is not None, "collector_frozen": placement.freeze_collector(config.placement)}
        # asyncio waits in whole milliseconds with epoll, in microseconds with select; steps are that close.
        make_loop = lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())  # noqa: E731
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(_until_signal(config, telemetry, told, disturb, repeat, supervised, stopping))


async def _until_signal(config: Config, telemetry: Telemetry, told: dict[str, Any], disturb: tuple[str, ...],
                        repeat: int, supervised: bool, stopping: list[int]) -> None:
    loop, stop, clock, notifier = asyncio.get_running_loop(), asyncio.Event(), SystemClock(), Notifier()

    def end() -> None:
        notifier.stopping()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if stopping:
        end()

    def ready(host: str, port: int) -> None:
        settings = config.exchange
        if settings.captures:
            what = f"{len(settings.captures)} recordings, speed {settings.speed:g}"
        else:
            what = f"{', '.join(config.market.symbols)}, {settings.rate:g} messages/s, seed {settings.seed}"
        what += f", faults: {' '.join(disturb)}" if disturb else ""
        if supervised:  # whose files have events, each with its time
            logging.getLogger("exchange").info("exchange listens on %s:%d: %s", host, port, what)
        else:
            print(f"exchange listens on {host}:{port}: {what}", flush=True)
        telemetry.tell(told | {"address": f"{host}:{port}"})
        telemetry.set("ready", 1)
        notifier.status(f"listens on {host}:{port}")
        notifier.ready()

    def housekeep(turn: int) -> None:
        now = clock.monotonic_ns()
        telemetry.set("heartbeat_ns", now)
        notifier.alive(now)
        if turn % 10 == 0:
            gc.collect(0)
            log.tend()
        loop.call_later(0.1, housekeep, turn + 1)

    housekeep(1)
    await serve(config, clock, ready, stop, telemetry, disturb, repeat)


if __name__ == "__main__":
    exchange()
