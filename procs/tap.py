"""tap LINK: print what flows on a link. Attaches to the PUB mirrors, takes nothing from the link."""

import json
import sys
import time

import click

from common.config import load
from common.decision import REASONS
from common.decision import decode as decisions
from common.links import DECISIONS, FRAMES, TAPS, Network
from common.placement import step_back
from common.ring import Books
from common.stage import exit_on_error
from common.wire import as_dict, decode


@click.command()
@click.argument("link", type=click.Choice(TAPS))
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--raw", is_flag=True, help="Print the bytes of each message in hexadecimal (frames: as they came).")
@click.option("--count", type=click.IntRange(1), help="Stop after so many records.")
@click.option("--symbol", help="Only records of this symbol.")
@click.option("--for", "seconds", type=float, help="Stop after so many seconds.")
def tap(link: str, path: str | None, raw: bool, count: int | None, symbol: str | None, seconds: float | None) -> None:
    """Print what flows on LINK, one JSON object a line, until Ctrl-C.

    \b
    frames       what the venue sent, before anything is done with it
    ticks        ingest -> feature
    work         feature -> workers
    credits      workers -> feature
    predictions  workers -> executor
    judged       workers -> monitor: what the models said, the challenger's too
    decisions    what the executor decided, with all that it was made of

    A listener that does not keep up misses messages, and is told how many on standard error; the pipeline
    never waits for it. A tap starts within about 100 ms, and what it shows is as old. It runs when a core is idle,
    and takes none from the stages.

    \b
    alpha tap predictions --symbol BTC-USD --count 3
    alpha tap frames --raw | head
    """
    with exit_on_error():
        config = load(path)
        step_back()
        network = Network(config.run_dir)
        try:
            _listen(config, network, link, raw, count, symbol, seconds)
        except (KeyboardInterrupt, BrokenPipeError):
            sys.stderr.close()  # the reader of a pipe may have gone; so may what flushes at exit
        finally:
            network.close()


def _listen(config, network: Network, link: str, raw: bool, count: int | None, symbol: str | None,
            seconds: float | None) -> None:
    listener = network.listen(link)
    names = config.symbols
    left, told, end = count, 0, time.monotonic() + seconds if seconds else None
    next_look = 0.0
    while left != 0 and (end is None or time.monotonic() < end):
        if time.monotonic() > next_look:
            next_look = time.monotonic() + 0.5
            listener.discover()
            names = _symbols(config)
            if listener.missed > told:
                told = listener.missed
                print(f"alpha tap: missed {told} messages so far", file=sys.stderr)
        message = listener.recv(100)
        for line in _lines(link, message, raw, symbol, names) if message is not None else ():
            print(line, flush=True)
            left = None if left is None else left - 1
            if left == 0:
                break


def _symbols(config) -> tuple[str, ...]:
    """The names behind the symbol indices: those of the running stream, or of the configuration."""
    try:
        return Books.attach(config.instance.name).symbols
    except FileNotFoundError:
        return config.symbols


def _lines(link: str, message: bytes, raw: bool, symbol: str | None, names: tuple[str, ...]):
    if link == FRAMES:
        # As recordings have it: the time of receipt by the wall clock, so that `alpha replay` reads what is printed.
        recv_ns = int.from_bytes(message[:8], "little") + time.time_ns() - time.monotonic_ns()
        frame = message[8:]
        text = frame.decode(errors="replace")
        if symbol is None or symbol.lower() in text.lower():
            yield f"{recv_ns} {text}" if raw else json.dumps({"recv_ns": recv_ns, "frame": text})
        return
    for record in decisions(message) if link == DECISIONS else decode(message):
        fields = as_dict(record)
        if "symbol" in fields:
            fields["symbol"] = names[record.symbol] if record.symbol < len(names) else record.symbol
            if symbol is not None and fields["symbol"] != symbol:
                continue
        elif symbol is not None:
            continue
        if link == DECISIONS:
            fields |= {name: REASONS[fields[name]] for name in ("barred", "reason", "outcome")}
        yield message.hex() if raw else json.dumps(fields)
