"""What befalls a run of `tests.campaign` beside answers that are bent: losses, collars, kill switches, a power cut.

A scene is a part of a run: what the configuration says, what happens while the executor trades and once it has, and
what must then hold. The judge is the exchange's record. A moment from which on nothing may leave is a `Mark`: which
predictions had been offered by then, and when it was. It is taken as soon as the switch is there, where the executor
looks before each order; else after it has confirmed, or before it is started on a switch that is there. So an order
that is late by it is wrong, by however little.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from time import monotonic, time_ns

from common import killswitch
from common.fixed import SCALE
from common.matching import Cancelled, Event
from tests.campaign_audit import Mark, collared, growing, held, late, profit

SCENES = {
    "loss": "fees are more than risk.max_daily_loss: it halts; after kill and resume again",
    "way-out": "as loss, and then told to flatten in the place of the halt",
    "drawdown": "the day's profit falls by more than risk.max_drawdown: it halts, and is killed",
    "collar": "spreads within and beyond a tight collar, and a market that jumps",
    "halt": "halted at some moment while orders rest",
    "reduce": "told to reduce at some moment while orders rest",
    "flatten": "told to flatten at some moment while orders rest",
    "power-cut": "where it dies, what was not yet on the disk is lost; durability power",
}
LOSS, FALL = 300, 300  #: limits of the day's loss and of the drawdown
COLLAR_BPS = 3.0
JUMP = 0.003  #: of the market, as a share
NOTICE_NS = 500_000_000  #: longest time from a loss that is booked to the halt: mark, turn, age of a prediction
_NOTHING = 1e-6  # a leaning that no threshold lets through: what leaves all the same is an exit
_AFTERWARDS = 15  # predictions that are offered once nothing may leave


class Scene:
    """None in particular. `run` is a `campaign.Run`, `desk` its `campaign.Desk`."""

    settings: dict[str, float | str] = {}  #: of the configuration, by section.key
    slack = 1.0  #: by how much more is worth where the market moves, or orders rest away from it
    rests = False  #: whether orders rest at the exchange
    cuts = False  #: whether a death is a power cut
    halts = ""  #: what the reason of the halt begins with that is there at the end

    def __init__(self, name: str, run) -> None:
        self.name, self.run = name, run
        self.struck = False
        self.wrong: list[str] = []

    def starting(self) -> None:
        """A life is about to begin."""

    def step(self, desk, life: int, number: int) -> None:
        """A prediction of a life is about to be offered."""

    def finish(self, desk) -> None:
        """The last life has traded: what is left to be done before all orders come to their end."""

    def audit(self, record: list[Event], fills: list[tuple]) -> list[str]:
        """What is wrong by the record. `fills`: Unix ns, client id, fill id, of when the executor booked them."""
        return []


class Loss(Scene):
    settings = {"exchange.fee_bps": 40.0, "risk.max_daily_loss": float(LOSS)}
    halts = "the day's loss"

    def finish(self, desk) -> None:
        run = self.run
        run.until(lambda: _again(run, desk, run.get("halted")), "it halts for its losses")
        self.mark = desk.mark()
        self.struck = True
        run.die()
        run.start()
        _insist(run, desk)
        killswitch.resume(run.state)
        run.until(lambda: _again(run, desk, killswitch.present(run.state / killswitch.FILE) and run.get("halted")),
                  "it halts again for the same losses")
        _insist(run, desk)

    def audit(self, record, fills):
        if not self.struck:
            return []
        wrong = late(record, self.run.decided(), self.mark, self.run.delay_ms)
        # When the executor had booked enough to see the loss; the mid does not move in this scene.
        booked = {(client_id, fill_id): at_ns for at_ns, client_id, fill_id in fills}
        names = {event.order_id: event.request.client_order_id for event in record if hasattr(event, "request")}
        known = next((max(booked.get((names[event.order_id], event.fill_id), 0) for event in record[:end + 1]
                          if hasattr(event, "fill_id"))
                      for end, event in enumerate(record)
                      if profit(record[:end + 1], self.run.mids) < -LOSS * SCALE * SCALE), 0)
        if not known:
            return [*wrong, "it halted for a loss that the record does not show"]
        return wrong + [f"order {name} was decided {(at - known) / 1e6:.0f} ms after the loss was known"
                        for name, at in self.run.decided().items() if at > known + NOTICE_NS]


class WayOut(Loss):
    halts = ""  # no more: it would bar the way

    def finish(self, desk) -> None:
        super().finish(desk)
        run = self.run
        desk.spread_bps = 20.0  # so that what leaves a position reaches far enough
        killswitch.reduce(run.state, "a way out", "the campaign", flatten=True)
        killswitch.lift(run.state)
        if run.rng.random() < 0.5:
            run.die()
            run.start()
        run.until(lambda: _again(run, desk, not any(held(run.record()).values()), least=0.0), "nothing is held")

    def audit(self, record, fills):
        if not self.struck:
            return []
        return late(record, self.run.decided(), self.mark, self.run.delay_ms, reducing=True) + [
            f"{qty} of {name} are held at the end" for name, qty in held(record).items() if qty]


class Drawdown(Scene):
    settings = {"risk.max_drawdown": float(FALL), "risk.max_daily_loss": 1e9}
    slack = 1.1
    halts = "the day's drawdown"

    def finish(self, desk) -> None:
        run = self.run

        def worth() -> int:
            return sum(abs(qty) * run.mids[name] // SCALE for name, qty in held(run.record()).items())

        run.until(lambda: _again(run, desk, worth() >= 20_000 * SCALE, way=1), "something is held")
        run.until(lambda: run.taken_up(desk) and not run.unfinished(), "orders come to their end")
        holds, value = held(run.record()), worth()

        def moved(money: int) -> dict[str, float]:
            share = money * SCALE / value
            return {name: share if qty > 0 else -share for name, qty in holds.items() if qty}

        self.before, self.holds = len(run.record()), holds
        self.high = desk.move(moved(1_000))
        run.until(lambda: desk.show() or run.get("unrealised") > 500 * SCALE, "the profit is seen")
        self.low = desk.move(moved(200))
        self.fell_ns = time_ns()
        run.until(lambda: _again(run, desk, run.get("halted")), "it halts for its drawdown")
        self.mark = desk.mark()
        self.struck = True
        run.die()
        run.start()
        _insist(run, desk)

    def audit(self, record, fills):
        if not self.struck:
            return []
        fall = profit(record[:self.before], self.high) - profit(record[:self.before], self.low)
        wrong = [] if fall > FALL * SCALE * SCALE else ["it halted for a drawdown that the record does not show"]
        wrong += late(record, self.run.decided(), self.mark, self.run.delay_ms)
        return wrong + [f"order {name} was decided {(at - self.fell_ns) / 1e6:.0f} ms after the fall"
                        for name, at in self.run.decided().items() if at > self.fell_ns + NOTICE_NS]


class Collar(Scene):
    settings = {"risk.collar_bps": COLLAR_BPS}
    slack = 1.02
    jumped: Mark | None = None

    def step(self, desk, life, number):
        desk.spread_bps = self.run.rng.choice((0.5, 2.0, 8.0, 30.0))

    def finish(self, desk) -> None:
        run = self.run
        self.first = dict(run.mids)
        way = run.rng.choice((1, -1))
        self.last = desk.move({name: way * JUMP for name in run.mids})
        self.jumped = desk.mark()
        for number in range(_AFTERWARDS):
            self.step(desk, 0, number)
            run.offer(desk)
            run.life.wait(run.rng.uniform(0, 0.03))
        run.until(lambda: _again(run, desk, run.get("refusal_price_collar"), self.step), "one is beyond the collar")
        run.until(lambda: run.taken_up(desk), "predictions are taken up")
        self.struck = True

    def audit(self, record, fills):
        jumped = self.jumped or Mark(2**63, {})
        last = self.last if self.jumped else self.run.mids
        return collared(record, self.run.decided(), getattr(self, "first", self.run.mids), last, jumped, COLLAR_BPS)


class Switch(Scene):
    """The kill switch, or one of its milder forms, is thrown in some life, or between two."""

    slack = 1.03
    rests = True
    mark: Mark | None = None
    halted: Mark | None = None  #: where something milder was thrown, at the end
    thrown = False

    def __init__(self, name, run):
        super().__init__(name, run)
        self.halts = "a switch"
        self._life, self._step = run.rng.choice((1, 2, 2, 0)), run.rng.randint(2, 5)
        self._kill = run.rng.random() < 0.5
        self._desk = None

    def starting(self):
        if self._life == 0 and self._desk is not None and not self.thrown:  # between two lives
            self._throw()
        if self.thrown and self.mark is None:
            self.mark = self._desk.mark()

    def step(self, desk, life, number):
        self._desk = desk
        self.run.way = self.run.rng.choice((1, -1))  # so that what rests would shrink what is held, too
        if life == self._life and number >= self._step and not self.thrown:
            self._throw()

    def finish(self, desk) -> None:
        run, self._desk = self.run, desk
        desk.spread_bps = 20.0  # so that what leaves a position reaches far enough
        if not self.thrown:
            self._throw()
        if self._kill:
            run.die()
            run.start()  # marks, too
        gauge = "halted" if self.name == "halt" else "reducing"
        run.until(lambda: run.get(gauge), "the switch is seen")
        self.mark = self.mark or desk.mark()
        _insist(run, desk, least=0.0 if self.name == "flatten" else 0.3)
        if self.name != "halt":
            self._milder(desk)
            killswitch.halt(run.state, "a switch at the end", "the campaign")
            run.until(lambda: run.get("halted"), "the halt is seen")
            self.halted = desk.mark()
            _insist(run, desk)

    def _milder(self, desk) -> None:
        """What reduces goes on, what grows is cancelled; flattening comes to an end."""
        run = self.run

        def done() -> bool:
            record = run.record()
            return not growing(record) and not (self.name == "flatten" and any(held(record).values()))

        what = "nothing is held" if self.name == "flatten" else "what may grow is cancelled"
        least = 0.0 if self.name == "flatten" else 0.2
        run.until(lambda: _again(run, desk, done(), least=least), f"{what}, by the exchange's record")

    def _throw(self) -> None:
        self.thrown = True
        if self.name == "halt":
            killswitch.halt(self.run.state, "a switch", "the campaign")
            self.mark = self._desk.mark()  # it is looked at before each order, and again when the journal has it
        else:
            killswitch.reduce(self.run.state, "a switch", "the campaign", flatten=self.name == "flatten")

    def audit(self, record, fills):
        if self.mark is None:
            return []
        self.struck = any(isinstance(event, Cancelled) and event.reason not in ("TIF_IOC", "TIF_FOK")
                          for event in record)
        decided, delay_ms = self.run.decided(), self.run.delay_ms
        wrong = late(record, decided, self.mark, delay_ms, reducing=self.name != "halt")
        if self.halted:
            wrong += late(record, decided, self.halted, delay_ms)
        if self.name == "flatten":
            wrong += [f"{qty} of {name} are held at the end" for name, qty in held(record).items() if qty]
        return wrong


class PowerCut(Scene):
    settings = {"executor.durability": "power"}
    cuts = True

    def finish(self, desk) -> None:
        run = self.run
        if not self.struck:  # it did not die: it does so now, at rest
            run.until(lambda: not run.unfinished(), "every order comes to its end")
            run.die()
            run.start()
            run.until(run.trades, "it reconciles")

    def cut(self) -> None:
        """The executor is dead, and so is its machine: its journal is what had reached the disk."""
        self.struck = power_cut(self.run.state, self.run.platter)


def power_cut(state: Path, platter: Path) -> bool:
    """Put what was synchronised, and no more, in the place of the journal. False if nothing kept what was
    (campaign_lives.platter)."""
    if not platter.is_dir():
        return False
    for path in state.glob("journal.*"):
        if path.suffix != ".lock":
            path.unlink()
    first, log = platter / "journal.new", platter / "journal.db-wal"
    found = platter / "journal.db" if (platter / "journal.db").exists() else first
    if found.exists():
        shutil.copy(found, state / "journal.db")
        if log.exists():
            shutil.copy(log, state / "journal.db-wal")
    return True


_KINDS: dict[str, type[Scene]] = {"loss": Loss, "way-out": WayOut, "drawdown": Drawdown, "collar": Collar,
                                  "power-cut": PowerCut, "halt": Switch, "reduce": Switch, "flatten": Switch}


def scene(name: str, run) -> Scene:
    return _KINDS.get(name, Scene)(name, run)


def _again(run, desk, condition, step: Callable = lambda *_: None, way: int = 0, least: float = 0.2) -> bool:
    """Another prediction, in the direction of the run (`way` is 1) or either way, unless the condition holds."""
    if not condition:
        step(desk, 0, 0)
        run.offer(desk, (way or run.rng.choice((1, -1))) * run.rng.uniform(least, 0.49) if least else _NOTHING)
        run.life.wait(run.rng.uniform(0.002, 0.02))
    return bool(condition)


def _insist(run, desk, least: float = 0.3) -> None:
    """Predictions on everything, either way, of which nothing may come, or not everything."""
    run.until(run.settled, "it has looked around")
    begun = run.get("predictions")
    for _ in range(_AFTERWARDS):
        run.offer(desk, run.rng.choice((1, -1)) * run.rng.uniform(least, 0.49) if least else _NOTHING)
        run.life.wait(0.005)
    end = monotonic() + 2.0
    run.until(lambda: run.get("predictions") >= begun + _AFTERWARDS or monotonic() > end, "predictions are taken up")
