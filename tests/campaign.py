"""A campaign against the executor: faults of the venue, and `kill -9` at every step between decision and fill.
A command of its own:

    python -m tests.campaign --runs 1000 --seed 1           # a table of runs by fault and by place of death
    python -m tests.campaign --seed 1 --first 17 --runs 1   # run 17 again; --keep FOLDER keeps its journal and logs

A run is an exchange (`alpha exchange`) with an empty record, and an executor (`alpha executor`) with an empty journal;
the books ring and the predictions are written by the test, and a wire between the two bends what the venue answers. The
executor trades, dies (some runs: again while it starts), lives on, trades, comes to rest and is stopped. Then the
exchange's record is held against the journal (`tests.campaign_audit`): no order twice, no fill lost or made up, the
same positions, every order at its end, no limit exceeded at any moment.

The plan of a run follows from seed and number alone; what threads and kernels make of it does not. Exit code 1 if
anything is wrong.
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from common import layout, shm
from common.fixed import SCALE
from common.journal import Reader
from common.links import Network
from common.matching import record_event
from common.overview import Overview
from common.ring import Books
from common.synthetic import LISTINGS
from common.wire import Prediction, encode
from tests.campaign_audit import Booked, Bounds, bounded, same
from tests.campaign_lives import POINTS, Life, Nursery
from tests.campaign_wire import FAULTS, LATE_S, Wire

SYMBOLS = ("BTC-USD", "ETH-USD", "AAPL")
MIDS = {name: LISTINGS[name].price for name in SYMBOLS}
PATIENCE_S = 0.3  #: of the executor, for an answer
MAX_AGE_S = 0.25
ORDER, POSITION, GROSS, ORDERS_PER_S = 40_000, 60_000, 100_000, 4
_STEPS, _PAUSE_S = 6, 0.02  # predictions of a life, and the longest time between two
BOUNDS = Bounds(ORDER * SCALE, POSITION * SCALE, GROSS * SCALE, ORDERS_PER_S, round(1000 * MAX_AGE_S))
LIMIT_S = 30.0  #: for anything that is waited for

#: points of an earlier life that leave an order unfinished, for those of a start that ask about it
_UNFINISHED = ("journaled", "queued", "left", "arrived", "accepted", "heard", "booking")
_STARTS = ("restoring", "restored", "asking", "answered", "comparing", "compared")
#: where the executor dies: points of its own, moments of the wire, any time, and two ways of not dying
DEATHS = {
    "none": "it is not killed",
    "stopped": "SIGTERM with orders under way",
    **{name: text for name, text in POINTS.items() if name not in _STARTS},
    "arrived": "the order is at the venue's door",
    "accepted": "the venue has accepted it, and not answered",
    "told": "the answer is on its way back",
    "any": "any time within 3 ms of a prediction",
    **{name: POINTS[name] for name in _STARTS},
    "any-start": "any time within 150 ms of a start after a death",
}


class Plan(NamedTuple):
    """A run, as seed and number decide it."""

    seed: int
    number: int
    fault: str
    death: str
    strike: int  #: which order the fault befalls
    count: int  #: the how-manieth call of the point is the last
    first: str  #: where the life before dies, where the death is one of a start
    spread_bps: float  #: half of the ring's spread: how far an order reaches into the exchange's book
    durability: str

    @classmethod
    def of(cls, seed: int, number: int) -> "Plan":
        """Numbers in a row go through all faults and all deaths, and in the end through all pairs of them."""
        rng = random.Random(f"{seed}/{number}")
        fault = list(FAULTS)[number % len(FAULTS)]
        death = list(DEATHS)[(number + number // math.lcm(len(FAULTS), len(DEATHS))) % len(DEATHS)]
        strike = rng.randint(1, 3)
        at_order = death in ("decided", "journaled", "queued", "left", "arrived", "accepted", "told")
        count = strike if at_order and rng.random() < 0.6 else rng.randint(1, 3)
        return cls(seed, number, fault, death, strike, 1 if death in _STARTS else count, rng.choice(_UNFINISHED),
                   rng.choice((0.5, 2.0, 8.0)), "power" if rng.random() < 0.2 else "process")


class Outcome(NamedTuple):
    plan: Plan
    wrong: list[str]
    orders: int  #: that arrived
    fills: int
    deaths: int
    struck: bool  #: the fault was applied
    met: bool  #: the executor died where it was to
    seconds: float


class Desk:
    """What stands before the executor: the books ring, and the link on which predictions come."""

    def __init__(self, instance: str, run_dir: Path, spread_bps: float) -> None:
        self._books = Books.create(instance, SYMBOLS, 1024)
        self._network = Network(run_dir)
        self._push = self._network.push("predictions")
        self._spread_bps = spread_bps
        self._seq = [0] * len(SYMBOLS)
        self._last: tuple[int, float] | None = None
        self.sent, self.sent_s = 0, 0.0  #: predictions that the link has taken, and when it took the last
        self._show()

    def close(self) -> None:
        self._push.close()
        self._network.close()
        self._books.close()

    def offer(self, symbol: int, p_up: float) -> bool:
        """A new prediction on a book of this moment; False if nobody takes it."""
        self._show()
        self._seq[symbol] += 1
        self._last = symbol, p_up
        return self._send(symbol, p_up)

    def offer_again(self) -> bool:
        """The last prediction once more, as fresh as if it were new."""
        self._show()
        return self._last is None or self._send(*self._last)

    def _send(self, symbol: int, p_up: float) -> bool:
        now = time.monotonic_ns()
        taken = self._push.send(encode([Prediction(
            symbol, 0, self._books.tag, self._seq[symbol], 0, 1, 0, 5, p_up, 1 - p_up, 1.0, 1, 2, now, now, now, now,
            now, now)]))
        self.sent, self.sent_s = self.sent + taken, time.monotonic()
        return taken

    def _show(self) -> None:
        """A tick of every symbol. The mid never moves, so that value is the same whoever counts it."""
        now = time.monotonic_ns()
        for index, name in enumerate(SYMBOLS):
            tick = LISTINGS[name].tick
            reach = max(1, round(MIDS[name] * self._spread_bps / 10_000 / tick)) * tick
            head = int(self._books.heads[index]) + 1
            record = self._books.ticks[index][head % 1024]
            record[:] = 0
            record[layout.FLAGS], record[layout.RECV_NS] = layout.FLAG_VALID, now
            record[layout.BID_PX], record[layout.ASK_PX] = MIDS[name] - reach, MIDS[name] + reach
            record[[layout.BID_QTY, layout.ASK_QTY]] = LISTINGS[name].size
            record[layout.SEQ] = self._books.heads[index] = head


class Run:
    """One run in a folder of its own."""

    def __init__(self, plan: Plan, nursery: Nursery, folder: Path) -> None:
        self.plan, self._nursery, self.folder = plan, nursery, folder
        self.wrong: list[str] = []
        self.deaths = 0
        self.met = True
        self._rng = random.Random(f"{plan.seed}/{plan.number}/played")
        self._way = self._rng.choice((1, -1))
        self._instance = f"campaign-{os.getpid()}-{plan.number}"
        self._config = folder / "alpha.toml"
        self._lives = 0
        self._life: Life | None = None
        self._moment, self._left = "", 0  # of the wire, at which the life ends, and how often that is still to come
        self._venue: Life | None = None
        self._port = 0

    def play(self) -> Outcome:
        begun = time.monotonic()
        wire = desk = None
        try:
            self._configure(port=0, url="http://127.0.0.1:1")
            self._open_venue()
            wire = Wire(self._port, self.plan.fault, self.plan.strike, PATIENCE_S, self._at_the_wire, self._revive)
            self._configure(self._port, wire.url)
            (self.folder / "run").mkdir(mode=0o700, exist_ok=True)
            desk = Desk(self._instance, self.folder / "run", self.plan.spread_bps)
            self._overview = Overview(self._instance)
            self._trade(desk)
        except Exhausted as error:
            self.wrong.append(str(error))
        finally:
            _end(self._life)
            if wire is not None:
                wire.close()  # before the exchange: an order that is still on its way arrives, and is found
            _end(self._venue)
            if desk is not None:
                desk.close()
            shm.sweep(self._instance)
        fills = self._audit(wire)
        return Outcome(self.plan, self.wrong, wire.arrivals.total() if wire else 0, fills, self.deaths,
                       wire.struck if wire else False, self.met, time.monotonic() - begun)

    # ---- the executor's lives

    def _trade(self, desk: Desk) -> None:
        death = self.plan.death
        if death in _STARTS or death == "any-start":
            self._live(desk, self.plan.first, 1)
            self._start(death if death in _STARTS else "")
            if death == "any-start":
                self._life.wait(self._rng.uniform(0, 0.15))
            else:
                self.met = self._ended_before(self._trades, "it reconciles")
            self._die()
        elif death != "none":
            self._live(desk, death, self.plan.count)
        if self._life is None:
            self._start()
        self._until(self._trades, "it reconciles")
        known = self._get("predictions") - desk.sent
        self._until(desk.offer_again, "the link is there")
        for _ in range(_STEPS):
            self._offer(desk)
            self._life.wait(self._rng.uniform(0, _PAUSE_S))
        self._until(lambda: self._taken_up(desk, known) and not self._unfinished(), "every order comes to its end")
        self._stop()

    def _live(self, desk: Desk, death: str, count: int) -> None:
        """A life that ends there, or else in the middle of what it does when it has traded."""
        self._start(death if death in POINTS else "", count)
        self._left = count
        self._moment = death if death in Wire.MOMENTS else ""
        if not self._ended_before(self._trades, "it reconciles"):
            self._until(lambda: self._life.wait(0) or desk.offer(0, 0.5), "the link is there")
            abrupt = death in ("any", "stopped")
            for step in range(_STEPS):
                self._offer(desk)
                if abrupt and step == count or self._life.wait(self._rng.uniform(0, _PAUSE_S)):
                    break
            if death == "any":
                self._life.wait(self._rng.uniform(0, 0.003))
            elif not abrupt:
                self._life.wait(0.5)
        self._moment = ""
        self.met = self._life.wait(0) or death in ("any", "stopped")
        if death == "stopped":
            self._stop()
        else:
            self._die()

    def _offer(self, desk: Desk) -> None:
        """A prediction, more often than not in the direction of this run, so that positions meet their limits."""
        confidence = self._rng.uniform(0.2, 0.49) * (1 if self._rng.random() < 0.8 else -1)
        desk.offer(self._rng.randrange(len(SYMBOLS)), 0.5 + self._way * confidence)

    def _start(self, point: str = "", count: int = 1) -> None:
        self._lives += 1
        self._life = self._nursery.start("executor", ["--config", str(self._config)],
                                         self.folder / f"executor-{self._lives}.log", (point, count) if point else None)
        # Its counters are those of the life before until it has begun its own.
        self._until(lambda: self._life.wait(0) or self._get("pid") == self._life.pid, "it starts")

    def _die(self) -> None:
        self._life.kill()
        status = self._life.reap()
        if status != -signal.SIGKILL:
            self.wrong.append(f"the executor ended by itself with {status}")
        self._life = None
        self.deaths += 1

    def _stop(self) -> None:
        self._life.kill(signal.SIGTERM)
        if not self._life.wait(LIMIT_S):
            raise Exhausted("the executor does not stop")
        status, self._life = self._life.reap(), None
        if status:
            self.wrong.append(f"the executor stopped with {status}")

    def _taken_up(self, desk: Desk, known: int) -> bool:
        """Whether no order can come of a prediction any more: all were taken up, or the last is too old."""
        return self._get("predictions") >= known + desk.sent or time.monotonic() > desk.sent_s + 2 * MAX_AGE_S

    def _trades(self) -> bool:
        return bool(self._get("ready") and self._get("reconciled"))

    def _ended_before(self, condition: Callable[[], object], what: str) -> bool:
        """Waits for the condition or the end of the life; whether it has ended."""
        self._until(lambda: self._life.wait(0) or condition(), what)
        return self._life.wait(0)

    def _until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            if self._life.wait(0.003) and not condition():
                raise Exhausted(f"the executor has ended before {what}")
            if time.monotonic() > end:
                raise Exhausted(f"not within {LIMIT_S:g} s: {what}")

    def _get(self, counter: str) -> int:
        self._overview.refresh()
        return self._overview.get("executor", counter)

    # ---- the venue's

    def _open_venue(self) -> None:
        log = self.folder / "exchange.log"
        begun = log.stat().st_size if log.exists() else 0
        self._venue = self._nursery.start("exchange", ["--config", str(self._config)], log)
        end = time.monotonic() + LIMIT_S
        mark = "exchange listens on 127.0.0.1:"
        while mark not in (said := log.read_text()[begun:] if log.exists() else ""):
            if self._venue.wait(0.003) or time.monotonic() > end:
                raise Exhausted("the exchange does not start")
        self._port = int(said.partition(mark)[2].partition(":")[0])

    def _revive(self) -> None:
        self._venue.kill()
        self._venue.reap()
        self._open_venue()

    def _at_the_wire(self, moment: str) -> None:
        life = self._life
        if moment == self._moment and life is not None:
            self._left -= 1
            if self._left == 0:
                life.kill()

    def _configure(self, port: int, url: str) -> None:
        instruments = "".join(f'[instruments."{name}"]\ntick = "{tick}"\nlot = "{lot}"\n' for name, tick, lot in (
            ("BTC-USD", "0.01", "0.0001"), ("ETH-USD", "0.01", "0.001"), ("AAPL", "0.01", "1")))
        self._config.write_text(f"""
[instance]
name = "{self._instance}"
state_dir = "state"
run_dir = "run"
[market]
symbols = {json.dumps(SYMBOLS)}
[exchange]
port = {port}
seed = {self.plan.number + 1}
rate = 100.0
[decision]
order_notional = {float(ORDER)}
[risk]
max_order_notional = {float(ORDER)}
max_position_notional = {float(POSITION)}
max_gross_notional = {float(GROSS)}
max_orders_per_s = {float(ORDERS_PER_S)}
symbol_cooldown_ms = 0.0
max_age_ms = {1000 * MAX_AGE_S}
max_daily_loss = 1e9
[executor]
base_url = "{url}"
timeout_s = {PATIENCE_S}
durability = "{self.plan.durability}"
[placement]
pin = false
downstream_first = false
keep_awake = false
{instruments}""")

    # ---- what has come of it

    def _unfinished(self) -> bool:
        return any(order.state not in ("filled", "cancelled", "rejected", "expired")
                   for order in self._rows("SELECT client_id, qty, filled, state FROM orders", Booked))

    def _rows(self, query: str, kind: Callable) -> list:
        path = self.folder / "state" / "journal.db"
        if not path.exists():
            return []
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            return [kind(*row) for row in db.execute(query)]
        finally:
            db.close()

    def _audit(self, wire: Wire | None) -> int:
        """Everything that is wrong at the end; returns the fills of the exchange."""
        file = self.folder / "state" / "exchange.jsonl"
        record = [record_event(line) for line in file.read_bytes().splitlines()] if file.exists() else []
        orders = self._rows("SELECT client_id, qty, filled, state FROM orders", Booked)
        fills = self._rows("SELECT client_id, fill_id, qty, price, fee FROM fills", lambda *row: row)
        if orders:
            reader = Reader(self.folder / "state" / "journal.db")
            held = {symbol: position.qty for symbol, position in reader.positions().items()}
            reader.close()
        else:
            held = {}
        self.wrong += same(record, orders, fills, held, wire.arrivals if wire else {})
        late_ms = round(1000 * LATE_S) if self.plan.fault == "late-order" else 0
        self.wrong += bounded(record, MIDS, BOUNDS._replace(delay_ms=BOUNDS.delay_ms + late_ms))
        halt = self.folder / "state" / "halt.json"
        if halt.exists():
            self.wrong.append(f"it has halted: {halt.read_text()}")
        for log in sorted(self.folder.glob("*.log")):
            said = log.read_text()
            if "Traceback" in said:
                self.wrong.append(f"{log.name}: {said[said.index('Traceback'):][-500:]}")
        return sum("fill_id" in event._fields for event in record)


def _end(life: Life | None) -> None:
    if life is not None:
        life.kill()
        life.reap()


class Exhausted(Exception):
    """What was waited for did not come."""


def play(plan: Plan, nursery: Nursery, keep: Path | None = None) -> Outcome:
    """One run. Its folder stays as `keep`/seed-number if that is given and something is wrong."""
    folder = Path(tempfile.mkdtemp(prefix="ac"))  # short: sockets have their names in it
    try:
        outcome = Run(plan, nursery, folder).play()
        if outcome.wrong and keep is not None:
            shutil.copytree(folder, keep / f"{plan.seed}-{plan.number}", dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("run"))
        return outcome
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def campaign(plans: Iterable[Plan], jobs: int, told: Callable[[Outcome], None], keep: Path | None = None) -> None:
    """All runs, `jobs` at a time: most of a run is waiting."""
    nursery, lock = Nursery(), threading.Lock()

    def one(plan: Plan) -> None:
        outcome = play(plan, nursery, keep)
        with lock:
            told(outcome)

    try:
        with ThreadPoolExecutor(jobs) as pool:
            for _ in pool.map(one, plans):
                pass
    finally:
        nursery.close()


def table(outcomes: Iterable[Outcome]) -> dict[str, dict[str, dict[str, int]]]:
    """by "fault" and by "death" -> name -> runs and what was in them."""
    found: dict[str, dict[str, Counter]] = {"fault": {}, "death": {}}
    for outcome in outcomes:
        for kind, name in (("fault", outcome.plan.fault), ("death", outcome.plan.death)):
            found[kind].setdefault(name, Counter()).update(
                runs=1, orders=outcome.orders, fills=outcome.fills, kills=outcome.deaths, struck=int(outcome.struck),
                met=int(outcome.met), wrong=int(bool(outcome.wrong)))
    return {kind: {name: dict(rows[name]) for name in names if name in rows}
            for (kind, rows), names in zip(found.items(), (FAULTS, DEATHS))}


def show(found: dict[str, dict[str, dict[str, int]]]) -> str:
    lines = []
    for kind, meanings in (("fault", FAULTS), ("death", DEATHS)):
        lines.append(f"{kind:15} {'runs':>5} {'orders':>6} {'fills':>6} {'kills':>5} {'struck':>6} {'met':>4} "
                     f"{'wrong':>5}")
        total: Counter = Counter()
        for name, row in found[kind].items():
            total.update(row)
            lines.append(f"{name:15} {_columns(row)}  {meanings[name]}")
        lines += [f"{'all':15} {_columns(total)}", ""]
    return "\n".join(lines)


def _columns(row: dict[str, int]) -> str:
    return (f"{row['runs']:5} {row['orders']:6} {row['fills']:6} {row['kills']:5} {row['struck']:6} {row['met']:4} "
            f"{row['wrong']:5}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--jobs", type=int, default=4, help="runs at a time; most of a run is waiting")
    parser.add_argument("--keep", type=Path, help="folder for journals, records and logs of runs that went wrong")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    outcomes: list[Outcome] = []

    def told(outcome: Outcome) -> None:
        outcomes.append(outcome)
        plan = outcome.plan
        for wrong in outcome.wrong:
            print(f"run {plan.number} ({plan.fault}, {plan.death}): {wrong}\n    again: python -m tests.campaign "
                  f"--seed {plan.seed} --first {plan.number} --runs 1", file=sys.stderr)
        if len(outcomes) % 20 == 0:
            print(f"{len(outcomes)} of {options.runs} runs, {sum(bool(one.wrong) for one in outcomes)} wrong",
                  file=sys.stderr)

    campaign((Plan.of(options.seed, number) for number in range(options.first, options.first + options.runs)),
             options.jobs, told, options.keep)
    found = table(outcomes)
    if options.json:
        print(json.dumps({**found, "seed": options.seed, "first": options.first,
                          "wrong": [[one.plan._asdict(), one.wrong] for one in outcomes if one.wrong]}))
    else:
        print(show(found))
    return int(any(one.wrong for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
