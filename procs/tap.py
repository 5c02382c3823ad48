"""tap LINK: print, count, record, play or inject what flows on a link. Attaches to the PUB mirrors, takes nothing from
the link."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from common import injection, tap_rates
from common.clock import SystemClock
from common.config import Config, load
from common.errors import ConfigError, ResourceError
from common.injection import RECEIVERS
from common.links import FRAMES, TAPS, Listener, Network, Push
from common.locks import holder
from common.placement import step_back
from common.ring import Books
from common.stage import exit_on_error
from common.tap_file import Heard, Note, Recording, TapFile
from common.tap_rates import Rates
from common.tap_records import Told, View

_LOOK_S = 0.5
_PATIENCE_S = 10.0  # for a stage that takes what is injected
_SENDERS = {"frames": "ingest", "ticks": "ingest", "work": "feature", "credits": "inference",
            "predictions": "inference", "judged": "inference", "decisions": "executor"}
_SAFE_S = 1.0  # between two looks whether it still may be


@click.command()
@click.argument("link", type=click.Choice(TAPS))
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--raw", is_flag=True, help="Print the bytes of each message in hexadecimal (frames: as a recording has "
              "them, with its lines of what is heard).")
@click.option("--count", type=click.IntRange(1), help="Stop after so many records (with --record: messages).")
@click.option("--symbol", help="Only records of this symbol.")
@click.option("--for", "seconds", type=click.FloatRange(0, min_open=True), help="Stop after so many seconds.")
@click.option("--where", default="", help="Only records that this is true of, for example 'p_up > 0.6'.")
@click.option("--fields", help="Only these fields, in this order: a,b,c.")
@click.option("--names", is_flag=True, help="Kinds, flags, sides, modes and models by their names.")
@click.option("--decimals", is_flag=True, help="Prices, quantities and money as decimals, not as counts of 1e-8.")
@click.option("--utc", is_flag=True, help="Times as UTC, not as ns of this machine's clock.")
@click.option("--rates", is_flag=True, help="A line a second instead: messages, bytes, records by symbol, missed.")
@click.option("--json", "as_json", is_flag=True, help="--rates as JSON.")
@click.option("--record", "target", type=click.Path(dir_okay=False, path_type=Path),
              help="Write what flows into this file, which must not exist.")
@click.option("--play", "source", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Show what was recorded in this file, instead of what flows.")
@click.option("--inject", is_flag=True, help="Send what --play reads to the stage that receives LINK.")
@click.option("--speed", type=click.FloatRange(0), show_default="1",
              help="Of --inject: 1 as recorded, 0 as fast as it is taken.")
@click.option("--restream", is_flag=True, help="Of --inject: put messages on the stream of ticks that is there now.")
def tap(link: str, path: str | None, raw: bool, count: int | None, symbol: str | None, seconds: float | None,
        where: str, fields: str | None, names: bool, decimals: bool, utc: bool, rates: bool, as_json: bool,
        target: Path | None, source: Path | None, inject: bool, speed: float | None,
        restream: bool) -> None:
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
    alpha tap predictions --where 'p_up > 0.6 and symbol == "BTC-USD"' --fields seq,p_up
    alpha tap decisions --where 'outcome == ""' --names --decimals --utc
    alpha tap ticks --rates --json
    alpha tap frames --raw | head

    Raw frames begin with lines of ours, which tell the venue, its symbols and where the books stand, as a recording
    does: `alpha replay` reads what is printed.

    A filter has comparisons, and, or, not, in, arithmetic, numbers and texts; it sees fields as they are shown, but
    times as ns and, with --decimals, amounts as numbers.

    A recording holds messages as they came, each with its time. It is played with the same filters, and injected into a
    stage that is run alone, so that it does again what it did. What its sender would be must not run, and never is
    anything injected where real money may be at stake.

    \b
    alpha tap predictions --record bad-hour.tap
    alpha tap predictions --play bad-hour.tap --where 'p_up > 0.9'
    alpha tap predictions --play bad-hour.tap --inject --speed 10 --restream

    \b
    Exit codes  2 the command line, a filter or the configuration is wrong; 3 a recording is damaged; 5 the disk
                refuses, or no stage takes what is injected; 6 the real sender of the link runs
    """
    with exit_on_error():
        _check(link, raw, fields, where, symbol, rates, as_json, target, source, inject, speed, restream)
        config = load(path)
        if symbol is not None and link != FRAMES:
            _refuse_unknown(symbol, Recording(source).note.symbols if source else _symbols(config))
        view = View(link, Told(names, decimals, utc), where, fields.split(",") if fields else (), symbol)
        if not inject:
            step_back()
        network = Network(config.run_dir)
        try:
            if inject:
                speed = 1.0 if speed is None else speed
                _inject(config, network, Recording(source), link, speed, restream, count, seconds)
            elif target is not None:
                _record(config, network, link, target, count, seconds)
            else:
                heard = _played(link, source) if source else _live(config, network.listen(link), link, seconds)
                if rates:
                    _show_rates(view, heard, as_json)
                else:
                    _show(view, heard, raw, count)
        except (KeyboardInterrupt, BrokenPipeError):
            sys.stderr.close()  # the reader of a pipe may have gone; so may what flushes at exit
        finally:
            network.close()


def _check(link: str, raw: bool, fields: str | None, where: str, symbol: str | None, rates: bool, as_json: bool,
           target: Path | None, source: Path | None, inject: bool, speed: float | None, restream: bool) -> None:
    """What does not go together. Raises ConfigError."""
    shows = raw or fields or where or symbol or rates
    for wrong, what, remedy in (
            (inject and not source, "--inject needs what to inject", "name a recording with --play"),
            (target and source, "--record and --play do not go together", "a recording can be copied as a file"),
            (target and shows, "a recording holds messages as they came", "choose from it with --play"),
            (inject and shows, "a recording is injected as a whole", "leave filters and formats out"),
            (speed is not None and not inject, "--speed is of --inject", "add --inject, or leave it out"),
            (restream and not inject, "--restream is of --inject", "add --inject, or leave it out"),
            (as_json and not rates, "--json is of --rates", "records are JSON in any case"),
            (rates and (raw or fields), "--rates shows no records", "leave --raw and --fields out")):
        if wrong:
            raise ConfigError(what, where=f"alpha tap {link}", remedy=remedy)


def _refuse_unknown(symbol: str, known: tuple[str, ...]) -> None:
    """A symbol of which nothing can come. Raises ConfigError."""
    if symbol not in known:
        raise ConfigError(f"there is no symbol {symbol}", where="--symbol", remedy=f"symbols are: {', '.join(known)}")


# ---- where messages come from

def _anyone(config: Config, link: str) -> bool:
    """Whether a tap of `link` is there: of one that was killed its socket may be left."""
    return any(holder(path) for path in config.run_dir.glob(f"tap.{link}.*.lock"))


def _live(config: Config, listener: Listener, link: str, seconds: float | None) -> Iterator[Heard | None]:
    """What the taps mirror; None now and then where nothing comes."""
    clock, told, next_look = SystemClock(), 0, 0.0
    end = time.monotonic() + seconds if seconds else None
    note = Note("", config.symbols, 0)
    while end is None or time.monotonic() < end:
        if time.monotonic() > next_look:
            if not (listener.discover() and _anyone(config, link)) and not next_look:
                print(f"alpha tap: nobody sends on this link yet; waiting for {_SENDERS[link]}", file=sys.stderr)
            next_look = time.monotonic() + _LOOK_S
            # The clocks drift apart by little, and a step of the wall clock is to be seen.
            note = note._replace(symbols=_symbols(config), offset_ns=clock.wall_ns() - clock.monotonic_ns())
            if listener.missed > told:
                told = listener.missed
                print(f"alpha tap: missed {told} messages so far", file=sys.stderr)
        message = listener.recv(100)
        if listener.missed != note.missed:
            note = note._replace(missed=listener.missed)
        yield Heard(clock.monotonic_ns(), message, note) if message is not None else None


def _played(link: str, source: Path) -> Iterator[Heard]:
    recording = Recording(source)
    _expect(recording, link)
    yield from recording
    if recording.torn:
        print(f"alpha tap: the end of {source} was cut off: {recording.torn} bytes of a message", file=sys.stderr)


def _expect(recording: Recording, link: str) -> None:
    if recording.note.link != link:
        raise ConfigError("the recording is of another link", where=f"{recording.path}: {recording.note.link}",
                          remedy=f"alpha tap {recording.note.link} --play {recording.path}")


def _symbols(config: Config) -> tuple[str, ...]:
    """The names behind the symbol indices: those of the running stream, or of the configuration."""
    try:
        return tuple(Books.attach(config.instance.name).symbols)
    except FileNotFoundError:
        return config.symbols


# ---- what is done with them

def _show(view: View, heard: Iterator[Heard | None], raw: bool, count: int | None) -> None:
    for one in heard:
        if one is None:
            continue
        for record in view.records(one.message, one.note.symbols, one.note.offset_ns):
            if not raw:
                line = view.line(record, one.note.offset_ns)
            else:
                # As recordings have it, so that `alpha replay` reads what is printed.
                line = f"{record['recv_ns']} {record['frame']}" if view.link == FRAMES else one.message.hex()
            print(line, flush=True)
            count = None if count is None else count - 1
            if count == 0:
                return


def _show_rates(view: View, heard: Iterator[Heard | None], as_json: bool) -> None:
    """Live by this machine's clock, of a recording by the times at which messages were heard."""
    rates: Rates | None = None
    now = 0
    for one in heard:
        now = one.at_ns if one is not None else time.monotonic_ns()
        rates = rates or Rates(view.link, now)
        if rates.due(now):
            _tell_rates(rates.take(now), as_json)
        if one is not None:
            rates.missed(one.note.missed)
            rates.add(len(one.message), [str(record.get("symbol", "")) for record in view.records(
                one.message, one.note.symbols, one.note.offset_ns)])
    if rates is not None:
        _tell_rates(rates.take(now), as_json)


def _tell_rates(told: dict, as_json: bool) -> None:
    print(json.dumps(told) if as_json else tap_rates.line(told), flush=True)


def _record(config: Config, network: Network, link: str, target: Path, count: int | None,
            seconds: float | None) -> None:
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: stop.append(received))
    listener, clock = network.listen(link), SystemClock()
    file = TapFile(target, Note(link, _symbols(config), clock.wall_ns() - clock.monotonic_ns()))
    note, next_flush = file.note, 0.0
    try:
        for one in _live(config, listener, link, seconds):
            if one is not None:
                note = one.note._replace(link=link)
                if note.symbols == file.note.symbols and note.missed == file.note.missed:
                    note = file.note  # the offset alone changes by little all the time
                file.write(one.at_ns, one.message, note)
            if time.monotonic() >= next_flush:
                next_flush = time.monotonic() + _LOOK_S
                file.flush()
            if stop or file.messages == count:
                break
    finally:
        file.close(note._replace(missed=listener.missed))
    print(f"{target}: {file.messages:,} messages of {link}, {file.bytes:,} bytes, missed {listener.missed:,}",
          file=sys.stderr)


def _inject(config: Config, network: Network, recording: Recording, link: str, speed: float, restream: bool,
            count: int | None, seconds: float | None) -> None:
    """At the pace at which messages left their sender. What a stage does not take in time is counted: it is there."""
    _expect(recording, link)
    injection.allow(config, link)
    books = _ring(config)
    clock, push = SystemClock(), network.push(link)
    sent = refused = 0
    start = first = next_look = 0
    end = time.monotonic() + seconds if seconds else None
    places: tuple = (None, None)

    def heard() -> Iterator[Heard]:
        nonlocal places
        for number, one in enumerate(recording):
            if not number:
                places = injection.places(books, one, restream)
            yield one

    for message in injection.timed(heard()):
        if count is not None and sent >= count or end is not None and time.monotonic() >= end:
            break
        if not sent:
            start, first = _begin(push, message, places, clock), message.sent_ns
            sent = 1
            continue
        due = start + round((message.sent_ns - first) / speed) if speed else clock.monotonic_ns()
        while (now := clock.monotonic_ns()) < due or now >= next_look:
            if now >= next_look:  # what has been started meanwhile
                next_look = now + round(_SAFE_S * 1e9)
                injection.allow(config, link)
            else:
                time.sleep(min(due - now, 50_000_000) / 1e9)
        sent += 1
        if not push.send(_moved(message, max(due, now) if not speed else due, places, clock)):
            refused += 1
    if recording.torn:
        print(f"alpha tap: the end of {recording.path} was cut off", file=sys.stderr)
    print(f"{sent:,} messages injected into {RECEIVERS[link]}, {refused:,} not taken", file=sys.stderr)
    if not sent:
        raise ConfigError("there is nothing to inject", where=str(recording.path))


def _begin(push: Push, message: injection.Timed, places: tuple, clock: SystemClock) -> int:
    """Send the first message as soon as somebody takes it; returns when it left."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        now = clock.monotonic_ns()
        if push.send(_moved(message, now, places, clock)):
            return now
        time.sleep(0.005)
    raise ResourceError("nobody takes what is injected", where=f"no {'/'.join(RECEIVERS.values())} after "
                        f"{_PATIENCE_S:g} s", remedy="start the stage first, for example: alpha executor")


def _moved(message: injection.Timed, sent_ns: int, places: tuple, clock: SystemClock) -> bytes:
    by_ns = sent_ns - message.sent_ns
    return injection.rebase(message, by_ns, by_ns + clock.wall_ns() - clock.monotonic_ns() - message.offset_ns, *places)


def _ring(config: Config) -> Books:
    try:
        return Books.attach(config.instance.name)
    except FileNotFoundError:
        raise ConfigError("there is no books ring, which the stage would look into",
                          where=f"instance {config.instance.name!r}",
                          remedy="start alpha ingest with its venue, and leave the workers out") from None
