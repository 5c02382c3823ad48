"""A campaign against the executor: faults of the venue, losses, kill switches and power cuts, and `kill -9` at every
step between decision and fill. A command of its own:

    python -m tests.campaign --runs 1008 --seed 1           # a table of runs by fault and by place of death
    python -m tests.campaign --seed 1 --first 17 --runs 1   # run 17 again; --keep FOLDER keeps its journal and logs

A run is an exchange (`alpha exchange`) with an empty record, and an executor (`alpha executor`) with an empty journal;
the books ring and the predictions are written by the test, and a wire between the two bends what the venue answers. The
executor trades, dies (some runs: again while it starts), lives on, trades, comes to rest and is stopped. Then the
exchange's record is held against the journal (`tests.campaign_audit`): no order twice, no fill lost or made up, the
same positions, every order at its end, none filled beyond its limit price, no limit exceeded at any moment. What else
must hold where more befalls a run than an answer that is bent stands in `tests.campaign_scenes`.

The plan of a run follows from seed and number alone; what threads and kernels make of it does not. Exit code 1 if
anything is wrong.
"""

import argparse
import itertools
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

from common import killswitch, layout, shm
from common.fixed import SCALE
from common.journal import Reader
from common.links import Network
from common.matching import Event, record_event
from common.overview import Overview
from common.ring import Books
from common.synthetic import LISTINGS
from common.wire import Prediction, encode
from tests.campaign_audit import Booked, Bounds, Mark, bounded, same
from tests.campaign_lives import POINTS, Life, Nursery
from tests.campaign_scenes import SCENES, scene
from tests.campaign_wire import FAULTS as BENT
from tests.campaign_wire import LATE_S, Wire

SYMBOLS = ("BTC-USD", "ETH-USD", "AAPL")
MIDS = {name: LISTINGS[name].price for name in SYMBOLS}
PATIENCE_S = 0.3  #: of the executor, for an answer
MAX_AGE_S = 0.25
ORDER, POSITION, GROSS, ORDERS_PER_S = 40_000, 60_000, 100_000, 4
_STEPS, _PAUSE_S = 6, 0.02  # predictions of a life, and the longest time between two
BOUNDS = Bounds(ORDER * SCALE, POSITION * SCALE, GROSS * SCALE, ORDERS_PER_S, round(1000 * MAX_AGE_S))
LIMIT_S = 30.0  #: for anything that is waited for

FAULTS = {**BENT, **SCENES}
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
    bent: str  #: what the wire does: the fault, or in a scene any of them

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
                   rng.choice((0.5, 2.0, 8.0)), "power" if rng.random() < 0.2 else "process",
                   fault if fault in BENT else rng.choice(("none", rng.choice(list(BENT)))))


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

    def __init__(self, instance: str, run_dir: Path, spread_bps: float, mids: dict[str, int]) -> None:
        self.mids, self.spread_bps = mids, spread_bps
        self._books = Books.create(instance, SYMBOLS, 1024)
        self._network = Network(run_dir)
        self._push = self._network.push("predictions")
        self._seq = [0] * len(SYMBOLS)
        self._last: tuple[int, float] | None = None
        self.sent, self.sent_s = 0, 0.0  #: predictions that the link has taken, and when it took the last
        self.show()

    def close(self) -> None:
        self._push.close()
        self._network.close()
        self._books.close()

    def offer(self, symbol: int, p_up: float) -> bool:
        """A new prediction on a book of this moment; False if nobody takes it."""
        self.show()
        self._seq[symbol] = int(self._books.heads[symbol])
        self._last = symbol, p_up
        return self._send(symbol, p_up)

    def offer_again(self) -> bool:
        """The last prediction once more, as fresh as if it were new."""
        self.show()
        return self._last is None or self._send(*self._last)

    def _send(self, symbol: int, p_up: float) -> bool:
        now = time.monotonic_ns()
        taken = self._push.send(encode([Prediction(
            symbol, 0, self._books.tag, self._seq[symbol], 0, 1, 0, 5, p_up, 1 - p_up, 1.0, 1, 2, now, now, now, now,
            now, now)]))
        self.sent, self.sent_s = self.sent + taken, time.monotonic()
        return taken

    def mark(self) -> Mark:
        """This moment."""
        return Mark(time.time_ns(), tuple(map(int, self._books.heads[:len(SYMBOLS)])))

    def move(self, shares: dict[str, float]) -> dict[str, int]:
        """The market moves: mids that are so much above those at the beginning, and the next tick. Returns them all."""
        for name, share in shares.items():
            self.mids[name] = MIDS[name] + round(MIDS[name] * share / LISTINGS[name].tick) * LISTINGS[name].tick
        self.show()
        return dict(self.mids)

    def show(self) -> None:
        """A tick of every symbol. But for `move` the mid stays, so that value is the same whoever counts it."""
        now = time.monotonic_ns()
        for index, name in enumerate(SYMBOLS):
            tick = LISTINGS[name].tick
            reach = max(1, round(MIDS[name] * self.spread_bps / 10_000 / tick)) * tick
            head = int(self._books.heads[index]) + 1
            record = self._books.ticks[index][head % 1024]
            record[:] = 0
            record[layout.FLAGS], record[layout.RECV_NS] = layout.FLAG_VALID, now
            record[layout.BID_PX], record[layout.ASK_PX] = self.mids[name] - reach, self.mids[name] + reach
            record[[layout.BID_QTY, layout.ASK_QTY]] = LISTINGS[name].size
            record[layout.SEQ] = self._books.heads[index] = head


class Run:
    """One run in a folder of its own."""

    def __init__(self, plan: Plan, nursery: Nursery, folder: Path) -> None:
        self.plan, self._nursery, self.folder = plan, nursery, folder
        self.wrong: list[str] = []
        self.deaths = 0
        self.met = True
        self.state, self.platter = folder / "state", folder / "platter"
        self.mids = dict(MIDS)  # of the ring
        self.rng = random.Random(f"{plan.seed}/{plan.number}/played")
        self.way = self.rng.choice((1, -1))
        self._scene = scene(plan.fault, self)
        self._instance = f"campaign-{os.getpid()}-{plan.number}"
        self._config = folder / "alpha.toml"
        self._lives = 0
        self.life: Life | None = None
        self._known = 0  # predictions that the last life has counted, less those that were sent by then
        self._moment, self._left = "", 0  # of the wire, at which the life ends, and how often that is still to come
        self._venue: Life | None = None
        self._port = 0

    def play(self) -> Outcome:
        begun = time.monotonic()
        wire = desk = None
        try:
            self._configure(port=0, url="http://127.0.0.1:1")
            self._open_venue()
            wire = Wire(self._port, self.plan.bent, self.plan.strike, PATIENCE_S, self._at_the_wire, self._revive)
            self._configure(self._port, wire.url)
            (self.folder / "run").mkdir(mode=0o700, exist_ok=True)
            desk = Desk(self._instance, self.folder / "run", self.plan.spread_bps, self.mids)
            self._overview = Overview(self._instance)
            self._trade(desk)
        except Exhausted as error:
            self.wrong.append(str(error))
        finally:
            _end(self.life)
            if wire is not None:
                wire.close()  # before the exchange: an order that is still on its way arrives, and is found
            _end(self._venue)
            if desk is not None:
                desk.close()
            shm.sweep(self._instance)
        fills = self._audit(wire)
        return Outcome(self.plan, self.wrong, wire.arrivals.total() if wire else 0, fills, self.deaths,
                       self._scene.struck or self.plan.fault in BENT and bool(wire and wire.struck), self.met,
                       time.monotonic() - begun)

    # ---- the executor's lives

    def _trade(self, desk: Desk) -> None:
        death = self.plan.death
        if death in _STARTS or death == "any-start":
            self._live(desk, self.plan.first, 1)
            self.start(death if death in _STARTS else "")
            if death == "any-start":
                self.life.wait(self.rng.uniform(0, 0.15))
            else:
                self.met = self._ended_before(self.trades, "it reconciles")
            self.die()
        elif death != "none":
            self._live(desk, death, self.plan.count)
        if self.life is None:
            self.start()
        self.until(self.trades, "it reconciles")
        self._known = self.get("predictions") - desk.sent
        self.until(desk.offer_again, "the link is there")
        for step in range(_STEPS):
            self._scene.step(desk, 2, step)
            self.offer(desk)
            self.life.wait(self.rng.uniform(0, _PAUSE_S))
        self.until(lambda: self.taken_up(desk), "predictions are taken up")
        self._scene.finish(desk)
        self.until(lambda: not self.unfinished(), "every order comes to its end")
        self._stop()

    def _live(self, desk: Desk, death: str, count: int) -> None:
        """A life that ends there, or else in the middle of what it does when it has traded."""
        self.start(death if death in POINTS else "", count)
        self._left = count
        self._moment = death if death in Wire.MOMENTS else ""
        if not self._ended_before(self.trades, "it reconciles"):
            self.until(lambda: self.life.wait(0) or desk.offer(0, 0.5), "the link is there")
            abrupt = death in ("any", "stopped")
            for step in range(_STEPS):
                self._scene.step(desk, 1, step)
                self.offer(desk)
                if abrupt and step == count or self.life.wait(self.rng.uniform(0, _PAUSE_S)):
                    break
            if death == "any":
                self.life.wait(self.rng.uniform(0, 0.003))
            elif not abrupt:
                self.life.wait(0.5)
        self._moment = ""
        self.met = self.life.wait(0) or death in ("any", "stopped")
        if death == "stopped":
            self._stop()
        else:
            self.die()

    def offer(self, desk: Desk, confidence: float = 0.0) -> None:
        """A prediction, more often than not in the direction of this run, so that positions meet their limits."""
        confidence = confidence or self.rng.uniform(0.2, 0.49) * (1 if self.rng.random() < 0.8 else -1)
        desk.offer(self.rng.randrange(len(SYMBOLS)), 0.5 + self.way * confidence)

    def start(self, point: str = "", count: int = 1) -> None:
        self._scene.starting()
        self._lives += 1
        if self._scene.cuts:
            self.platter.mkdir(exist_ok=True)
        self.life = self._nursery.start(
            "executor", ["--config", str(self._config)], self.folder / f"executor-{self._lives}.log",
            (point, count) if point else None, self._scene.rests, self.platter if self._scene.cuts else None)
        # Its counters are those of the life before until it has begun its own.
        self.until(lambda: self.life.wait(0) or self.get("pid") == self.life.pid, "it starts")

    def die(self) -> None:
        self.life.kill()
        status = self.life.reap()
        if status != -signal.SIGKILL:
            self.wrong.append(f"the executor ended by itself with {status}")
        self.life = None
        self.deaths += 1
        if self._scene.cuts:
            self._scene.cut()

    def _stop(self) -> None:
        self.life.kill(signal.SIGTERM)
        if not self.life.wait(LIMIT_S):
            raise Exhausted("the executor does not stop")
        status, self.life = self.life.reap(), None
        if status:
            self.wrong.append(f"the executor stopped with {status}")

    def taken_up(self, desk: Desk) -> bool:
        """Whether no order can come of a prediction to the last life any more: all were taken up, or the last is too
        old."""
        return self.get("predictions") >= self._known + desk.sent or time.monotonic() > desk.sent_s + 2 * MAX_AGE_S

    def settled(self) -> bool:
        """Whether the executor that lives has made its first turns: it has reconciled, or is halted."""
        return bool(self.get("ready") and (self.get("reconciled") or self.get("halted")))

    def trades(self) -> bool:
        return bool(self.get("ready") and self.get("reconciled"))

    def _ended_before(self, condition: Callable[[], object], what: str) -> bool:
        """Waits for the condition or the end of the life; whether it has ended."""
        self.until(lambda: self.life.wait(0) or condition(), what)
        return self.life.wait(0)

    def until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            if self.life.wait(0.003) and not condition():
                raise Exhausted(f"the executor has ended before {what}")
            if time.monotonic() > end:
                raise Exhausted(f"not within {LIMIT_S:g} s: {what}")

    def get(self, counter: str) -> int:
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
        life = self.life
        if moment == self._moment and life is not None:
            self._left -= 1
            if self._left == 0:
                life.kill()

    def _configure(self, port: int, url: str) -> None:
        sections = {
            "instance": {"name": self._instance, "state_dir": "state", "run_dir": "run"},
            "market": {"symbols": SYMBOLS},
            "exchange": {"port": port, "seed": self.plan.number + 1, "rate": 100.0},
            "decision": {"order_notional": float(ORDER)},
            "risk": {"max_order_notional": float(ORDER), "max_position_notional": float(POSITION),
                     "max_gross_notional": float(GROSS), "max_orders_per_s": float(ORDERS_PER_S),
                     "symbol_cooldown_ms": 0.0, "max_age_ms": 1000 * MAX_AGE_S, "max_daily_loss": 1e9},
            "executor": {"base_url": url, "timeout_s": PATIENCE_S, "durability": self.plan.durability},
            "placement": {"pin": False, "downstream_first": False, "keep_awake": False},
            **{f'instruments."{name}"': {"tick": "0.01", "lot": lot} for name, lot in (
                ("BTC-USD", "0.0001"), ("ETH-USD", "0.001"), ("AAPL", "1"))}}
        for name, value in self._scene.settings.items():
            section, _, key = name.partition(".")
            sections[section][key] = value
        self._config.write_text("".join(f"[{section}]\n" + "".join(
            f"{key} = {json.dumps(value)}\n" for key, value in keys.items()) for section, keys in sections.items()))

    # ---- what has come of it

    def unfinished(self) -> bool:
        return any(order.state not in ("filled", "cancelled", "rejected", "expired")
                   for order in self._rows("SELECT client_id, qty, filled, state FROM orders", Booked))

    def _rows(self, query: str, kind: Callable) -> list:
        path = self.state / "journal.db"
        if not path.exists():
            return []
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            return [kind(*row) for row in db.execute(query)]
        finally:
            db.close()

    def record(self) -> list[Event]:
        """What the exchange has written down so far."""
        file = self.state / "exchange.jsonl"
        return [record_event(line) for line in file.read_bytes().splitlines()] if file.exists() else []

    def decided(self) -> dict[str, int]:
        """When each order in the journal was decided, Unix ns, by client id."""
        return dict(self._rows("SELECT client_id, created_ns FROM orders", lambda *row: row))

    @property
    def delay_ms(self) -> int:
        """Longest time between a decision and the order's arrival at the exchange."""
        return BOUNDS.delay_ms + round(1000 * LATE_S if self.plan.bent == "late-order" else 0)

    def _audit(self, wire: Wire | None) -> int:
        """Everything that is wrong at the end; returns the fills of the exchange."""
        record = self.record()
        orders = self._rows("SELECT client_id, qty, filled, state FROM orders", Booked)
        fills = self._rows("SELECT client_id, fill_id, qty, price, fee FROM fills", lambda *row: row)
        if orders:
            reader = Reader(self.state / "journal.db")
            held = {symbol: position.qty for symbol, position in reader.positions().items()}
            reader.close()
        else:
            held = {}
        self.wrong += same(record, orders, fills, held, wire.arrivals if wire else {})
        more = self._scene.slack
        self.wrong += bounded(record, MIDS, BOUNDS._replace(
            order=round(BOUNDS.order * more), position=round(BOUNDS.position * more),
            gross=round(BOUNDS.gross * more), delay_ms=self.delay_ms))
        self.wrong += self._scene.audit(record, self._rows(
            "SELECT at_ns, client_id, fill_id FROM fills", lambda *row: row))
        halt = killswitch.state(self.state)
        if halt and not (self._scene.halts and halt.why.startswith(self._scene.halts)):
            self.wrong.append(f"it has halted: {halt}")
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
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only runs of this one; may be given again")
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

    plans = (Plan.of(options.seed, number) for number in itertools.count(options.first))
    campaign(itertools.islice((plan for plan in plans if plan.fault in (options.fault or FAULTS)), options.runs),
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
