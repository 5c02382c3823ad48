"""drill: each fault, one after the other, let loose on the whole pipeline, and what became of it.

    exchange with the fault --> ingest --> feature --> inference --> executor --> exchange

Real processes and sockets, an instance and a state folder of its own for each fault, on a free port; nothing is left
behind. The judge reads the books ring as it is written, the exchange's log of applied faults, the counters of ingest
and the journal. It holds that a fault is seen (some counter of ingest grew that stays at rest otherwise), that each
book is valid again, that no symbol but the one that was meant became invalid where the fault is of one symbol, and
that no order was decided while its symbol's book was invalid.
"""

import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from common import captures, faults, layout
from common.config import load
from common.explain import context as explain_context
from common.journal import Reader
from common.ring import Books
from common.stage import exit_on_error
from common.telemetry import Telemetry
from procs.bench.bed import Bed, attached, instance_of

#: The faults of a whole drill. TARGET is the first symbol; faults of a connection, and of HTTP, concern all symbols.
DRILL = (
    "drop:every=40,symbol=TARGET", "duplicate:every=40,symbol=TARGET", "reorder:every=40,symbol=TARGET",
    "checksum:every=40,symbol=TARGET", "malformed:every=40,symbol=TARGET",
    "malformed:every=40,symbol=TARGET,how=utf8", "oversized:at=200,count=1", "clock:every=20,symbol=TARGET",
    "split:every=20", "coalesce:every=100", "stalled:at=200,count=1,symbol=TARGET", "silent:at=400,count=1",
    "half-open:at=400,count=1", "disconnect:every=400", "disconnect:every=400,how=close", "storm:every=1,count=5",
    "storm:every=1,count=5,how=open")
#: and of one over a capture whose snapshots come by HTTP
DRILL_HTTP = ("http-429:every=1,count=2", "http-503:every=1,count=2", "slow:every=1,count=1,seconds=1",
              "drop:every=40,symbol=TARGET", "reorder:every=40,symbol=TARGET", "disconnect:every=4000")
HARMLESS = ("duplicate", "clock", "split", "coalesce", "slow")  #: must leave every book valid
#: counters of ingest that stay at rest while nothing is wrong, and what they say
SIGNS = {"gaps": "gap", "lost": "lost", "checksum_mismatches": "checksum", "quote_mismatches": "quote", "crossed":
         "crossed", "malformed": "malformed", "stale": "stale book", "disconnects": "connection lost",
         "connect_failures": "no connection", "snapshot_failures": "no snapshot", "clock_jumps": "clock"}
_SETTLE_S = 6.0  # the longest wait for books that are not valid yet when the time is over


@dataclass
class Spell:
    """A time during which a book was invalid: from the tick that said so to the one that ended it."""

    symbol: int
    from_ns: int
    until_ns: int = 0  #: 0: it has not ended
    missed: int = 0  #: changes of the book between the last before and the first after, where ids count them


@dataclass
class Watch:
    """Follows the books ring, tick by tick."""

    books: Books
    spells: list[Spell] = field(default_factory=list)
    lapped: int = 0
    _at: list[int] = field(default_factory=list)
    _open: dict[int, Spell] = field(default_factory=dict)
    _ids: dict[int, int] = field(default_factory=dict)

    def look(self) -> None:
        self._at = self._at or [0] * len(self.books.symbols)
        for symbol, head in enumerate(self.books.heads.tolist()):
            for seq in range(self._at[symbol] + 1, head + 1):
                tick = self.books.read(symbol, seq)
                if tick is None:
                    self.lapped += 1
                else:
                    self._take(symbol, tick)
            self._at[symbol] = head

    def _take(self, symbol: int, tick: tuple[int, ...]) -> None:
        spell, kind = self._open.get(symbol), tick[layout.KIND]
        if kind == layout.KIND_STATE:
            if spell is None:
                self._open[symbol] = Spell(symbol, tick[layout.BOOK_NS])
                self.spells.append(self._open[symbol])
        elif kind == layout.KIND_BOOK:
            number = tick[layout.VENUE_ID]
            if spell is not None:
                spell.until_ns = tick[layout.BOOK_NS]
                spell.missed = max(0, number - self._ids.get(symbol, number) - 1)
                del self._open[symbol]
            self._ids[symbol] = number


@dataclass
class Result:
    """What became of one fault."""

    fault: str
    applied: int = 0
    seen_as: dict[str, int] = field(default_factory=dict)
    spells: int = 0
    healed: int = 0
    heal_ms: list[float] = field(default_factory=list)  #: p50 and the longest, from invalid to valid again
    ticks_lost: int = 0
    others_disturbed: int = 0
    decisions: int = 0
    orders: int = 0
    orders_on_invalid: int = 0
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        seen = ", ".join(f"{SIGNS[name]} {count}" for name, count in self.seen_as.items()) or "-"
        heal = f"{self.heal_ms[0]:,.0f} / {self.heal_ms[1]:,.0f} ms" if self.heal_ms else "-"
        verdict = "; ".join(self.problems) or "ok"
        return (f"{self.fault:44} applied {self.applied:>4}  seen as {seen:38} invalid {self.spells:>3} x, healed in "
                f"{heal:>16}  ids missed {self.ticks_lost:>6}  others {self.others_disturbed}  "
                f"orders {self.orders:>3}, on invalid books {self.orders_on_invalid}  {verdict}")


def disturb(bed: Bed, fault: str, seconds: float, seed: int, say: Callable[[str], None],
            recordings: tuple[str, ...] = (), speed: float = 1.0) -> Result:
    """One fault against one pipeline: on the synthetic market, or on recordings with a paper account."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    more: dict[str, Any] = {"EXECUTOR__GATEWAY": "vectrade", "EXECUTOR__BASE_URL": f"http://127.0.0.1:{port}"}
    if recordings:
        told = captures.describe(recordings)
        more = {"EXCHANGE__CAPTURES": [str(Path(name).resolve()) for name in recordings], "EXCHANGE__SPEED": speed,
                "MARKET__VENUE": told.venue, "MARKET__SYMBOLS": list(told.symbols)}
    environment = bed.environment(
        "drill", **more, EXECUTOR__JOURNAL="journal.db", EXCHANGE__PORT=port, EXCHANGE__SEED=seed,
        MARKET__WS_URL=f"ws://127.0.0.1:{port}", MARKET__REST_URL=f"http://127.0.0.1:{port}",
        MARKET__STALE_S=1.5, MARKET__STALE_BOOK_S=2.0, EXCHANGE__RATE=1000.0, INFERENCE__WORKERS=1)
    config = load(environ=environment)
    fault = fault.replace("TARGET", config.market.symbols[0])
    parsed = faults.parse(fault)
    result = Result(fault)
    instance, state = instance_of(environment), Path(environment["ALPHA_INSTANCE__STATE_DIR"])
    say(f"{fault}: starting")
    processes = [bed.spawn("procs.cli", *command, environment=environment) for command in (
        ["exchange", "--fault", fault], ["ingest"], ["feature"], ["inference", "--worker", "0"], ["executor"])]
    stages = {name: bed.until(lambda name=name: attached(instance, name), f"the start of {name}")
              for name in ("ingest", "executor")}
    watch = Watch(bed.until(lambda: _books(instance), "the books ring"))
    bed.until(lambda: watch.look() or (watch.books.heads > 0).all(), "the first ticks")
    say(f"{fault}: {seconds:g} s")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        watch.look()
        time.sleep(0.01)
    ended = time.monotonic() + _SETTLE_S
    while time.monotonic() < ended and any(not spell.until_ns for spell in watch.spells):
        watch.look()
        time.sleep(0.01)
    bed.check()
    _count(result, parsed, watch, stages)
    applied = [json.loads(line) for line in (state / "faults.jsonl").read_text().splitlines()[1:]]
    result.applied = len(applied)
    bed.stop(processes)
    _judge_orders(result, watch, state / "journal.db")
    _judge(result, parsed, watch)
    return result


def _books(instance: str) -> Books | None:
    try:
        return Books.attach(instance)
    except FileNotFoundError:
        return None


def _count(result: Result, fault: faults.Fault, watch: Watch, stages: dict[str, Telemetry]) -> None:
    ingest, executor = stages["ingest"], stages["executor"]
    result.seen_as = {name: ingest.get(name) for name in SIGNS if ingest.get(name)}
    result.decisions, result.orders = executor.get("decisions"), executor.get("orders")
    result.spells = len(watch.spells)
    whole = [spell for spell in watch.spells if spell.until_ns]
    result.healed = len(whole)
    if whole:
        heal = np.array([spell.until_ns - spell.from_ns for spell in whole]) / 1e6
        result.heal_ms = [round(float(np.median(heal)), 1), round(float(heal.max()), 1)]
    result.ticks_lost = sum(spell.missed for spell in whole)
    if fault.symbol:
        target = watch.books.symbols.index(fault.symbol)
        result.others_disturbed = sum(spell.symbol != target for spell in watch.spells)


def _judge_orders(result: Result, watch: Watch, journal: Path) -> None:
    """Orders whose decision fell into a spell of their symbol: stamps of both are of one clock."""
    reader = Reader(journal)
    try:
        for order in reader.orders(1_000_000):
            context = explain_context.decode(order["context"], reader.config)
            symbol, decided = context["prediction"]["symbol"], context["decided_ns"]
            flags = context["market"]["flags"]
            inside = any(spell.symbol == symbol and spell.from_ns < decided and (
                not spell.until_ns or decided < spell.until_ns) for spell in watch.spells)
            result.orders_on_invalid += inside or not flags & layout.FLAG_VALID
    finally:
        reader.close()


def _judge(result: Result, fault: faults.Fault, watch: Watch) -> None:
    problems = result.problems
    if not result.applied:
        problems.append("was never applied")
    if fault.name in HARMLESS:
        if result.spells:
            problems.append("made a book invalid")
    elif not result.seen_as:
        problems.append("was not seen")
    if result.healed < result.spells:
        problems.append(f"{result.spells - result.healed} books not valid again")
    if result.others_disturbed:
        problems.append("disturbed other symbols")
    if result.orders_on_invalid:
        problems.append("orders on an invalid book")
    if not result.decisions:
        problems.append("no decisions")
    if watch.lapped:
        problems.append(f"{watch.lapped} ticks were not seen by the judge")


@click.command()
@click.option("--fault", "chosen", multiple=True, metavar="NAME[:KEY=VALUE,...]",
              help="Only this one; may be repeated. As of alpha exchange --list-faults.")
@click.option("--capture", "recordings", multiple=True, type=click.Path(exists=True, dir_okay=False),
              help="Serve this recording instead of the synthetic market; may be repeated.")
@click.option("--speed", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True,
              help="Of a recording.")
@click.option("--seconds", type=click.FloatRange(1), default=10.0, show_default=True, help="For each fault.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the market and of the faults.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def drill(chosen: tuple[str, ...], recordings: tuple[str, ...], speed: float, seconds: float, seed: int,
          as_json: bool) -> None:
    """Let each fault loose on a pipeline of its own, and judge what becomes of it.

    Starts an instance of its own, which nothing else sees. Reads the configuration, and the recording where one is
    named; writes nothing that stays.

    \b
    Examples
      alpha drill
      alpha drill --fault drop:rate=0.02 --fault disconnect --seconds 20
      alpha drill --capture day1.gz --json

    Exit code 0 if every fault was seen and healed, disturbed nobody else, and led to no order on an invalid book; 1
    otherwise. Takes five minutes for all of them.
    """
    with exit_on_error():
        wanted = chosen or (DRILL_HTTP if recordings else DRILL)
        for text in wanted:
            faults.parse(text)
        results = []
        with Bed() as bed:
            for number, text in enumerate(wanted):
                results.append(disturb(bed, text, seconds, seed, lambda words, number=number: print(
                    f"{number + 1} of {len(wanted)}  {words}", file=sys.stderr, flush=True), recordings, speed))
                if not as_json:
                    print(results[-1].line(), flush=True)
        if as_json:
            print(json.dumps([_tree(result) for result in results], indent=1))
        sys.exit(1 if any(result.problems for result in results) else 0)


def _tree(result: Result) -> dict[str, Any]:
    return {**vars(result), "ok": not result.problems}
