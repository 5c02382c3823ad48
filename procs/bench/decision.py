"""What a decision costs: from a prediction that is there to its order in the hands of the gateway, and what of it is
the durable write.

The real executor with a real journal on disk and a real kill-switch folder, in one process that does nothing else; the
gateway only notes when it is handed an order, and says afterwards that nothing was filled. One pass has no marks but
at its beginning, around `Journal.intent` and at its end; another, by itself, times the parts. Between two orders what
came of the last is written to the journal, as live, so each finds the caches as that has left them.
"""

import contextlib
import dataclasses
import gc
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common import killswitch, layout
from common.clock import SystemClock
from common.config import Decision, Risk, load
from common.explain import context as explain_context
from common.fixed import SCALE
from common.gateways import Ended, Event, Portfolio
from common.journal import Journal
from common.ledger import Ledger
from common.links import LocalLink
from common.orders import Order, State
from common.ring import Books
from common.telemetry import Telemetry
from common.wire import Prediction, encode
from procs import executor as stage
from procs.bench.child import alone, child, tell
from procs.bench.live import Run
from procs.bench.table import Goal, Part

_ORDERS, _QUICK = 3000, 300  # of each pass
_WARM = 300
_DURABILITIES = ("process", "power")
_now = time.perf_counter_ns


class Noting:
    """A gateway that notes when it was handed an order."""

    name = "noting"
    wants_write = busy = False

    def __init__(self) -> None:
        self.handed_ns = 0
        self._events: list[Event] = [Portfolio({})]

    def attach(self, books: Books) -> None:
        pass

    def restore(self, positions: dict) -> None:
        pass

    def submit(self, order: Order, start_by_ns: int = 0) -> None:
        self.handed_ns = _now()
        self._events.append(Ended(order.client_id, State.CANCELLED, 0, "nothing is traded here"))

    def withdraw(self) -> None:
        pass

    def portfolio(self) -> None:
        pass

    def work(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def fileno(self) -> int:
        return -1

    def due_ns(self) -> int:
        return 0

    def close(self) -> None:
        pass


class Noted(Journal):
    """A journal that notes how long the durable write took."""

    write_ns = 0

    def intent(self, order: Order, context: str, now: int) -> None:
        began = _now()
        super().intent(order, context, now)
        self.write_ns = _now() - began


class Bench:
    """One executor and what it needs; `order` makes it decide."""

    def __init__(self, folder: Path, durability: str) -> None:
        config = load()
        self._config = dataclasses.replace(config, decision=Decision(), feeds={}, risk=Risk(
            symbol_cooldown_ms=0.0, max_orders_per_s=1e6, max_age_ms=60_000.0, max_book_age_ms=60_000.0))
        symbols = self._config.symbols
        self.books, self.inbox, self.gateway = Books.private(symbols, 1024), LocalLink(), Noting()
        self.journal = Noted.open(folder / "journal.db", durability)
        clock = SystemClock()
        telemetry = Telemetry.private("executor", stage.COUNTERS, stage.TIMERS, stage.NOTES)
        self.executor = stage.Executor(self._config, clock, telemetry, self.inbox, self.gateway, self.journal,
                                       lambda: self.books, folder)
        self.telemetry, self._seq = telemetry, 0
        for symbol in range(len(symbols)):
            self._show(symbol)
        self.executor.on_start()
        self.executor.gateway.busy = True  # there is something to hear: the venue's positions
        self.executor.do_work()
        self.executor.gateway.busy = False

    def order(self) -> tuple[int, int]:
        """ns from a prediction that is there to its order at the gateway; and of them those of the durable write."""
        self._seq += 1
        symbol = self._seq % len(self.books.symbols)
        now = time.monotonic_ns()
        self.inbox.send(encode([Prediction(symbol, 0, self.books.tag, self._seq, self._seq, 1, 0, 7, 0.9, 0.1, 1.0,
                                           9_999 * SCALE // 100, 10_001 * SCALE // 100, *(now,) * 6)]))
        began = _now()
        self.executor.do_work()
        took = self.gateway.handed_ns - began
        self.executor.do_work()  # nothing has come: what memory knows is written down
        return took, self.journal.write_ns

    def close(self) -> None:
        self.executor.on_close()

    def _show(self, symbol: int) -> None:
        head = int(self.books.heads[symbol]) + 1
        tick = self.books.ticks[symbol][head % 1024]
        tick[layout.SEQ] = 0
        tick[layout.FLAGS], tick[layout.RECV_NS] = layout.FLAG_VALID, time.monotonic_ns()
        tick[layout.BID_PX], tick[layout.ASK_PX] = 9_999 * SCALE // 100, 10_001 * SCALE // 100
        tick[[layout.BID_QTY, layout.ASK_QTY]] = 100 * SCALE
        tick[layout.SEQ] = self.books.heads[symbol] = head


#: the parts that are timed: where they are called, and by what name
_PARTS = {"wish": (stage, "wish"), "answer": (stage, "answer"), "book": (Books, "top"),
          "context": (explain_context, "encode"), "look": (killswitch, "present"), "opened": (Ledger, "opened"),
          "sent": (Ledger, "sent"), "before": (stage.decision, "before"), "decode": (stage, "decode")}


@contextlib.contextmanager
def _timed(spent: dict[str, list[int]]) -> Iterator[None]:
    """Each part notes what it takes, ns, until the end of the block."""
    def noting(name: str, call: Callable) -> Callable:
        found = spent[name]

        def noted(*arguments: Any, **more: Any) -> Any:
            began = _now()
            try:
                return call(*arguments, **more)
            finally:
                found.append(_now() - began)
        return noted

    kept = {name: (home, word, getattr(home, word)) for name, (home, word) in _PARTS.items()}
    try:
        for name, (home, word, call) in kept.items():
            setattr(home, word, noting(name, call))
        yield
    finally:
        for home, word, call in kept.values():
            setattr(home, word, call)


def decision(run: Run) -> Part:
    """The cost of a decision, and that of its write under either durability."""
    part = Part("decision", "a prediction that is there to its order at the gateway, one process, journal on disk")
    run.say("decision")
    told = child(run, __name__, str(_QUICK if run.seconds <= 1 else _ORDERS))
    costs = told["process"]["decision"]
    part.lines = [_line("without the write", costs)]
    part.lines += [_line(f'write, "{durability}"', told[durability]["write"]) for durability in _DURABILITIES]
    part.lines += [_line(f'in all, "{durability}"', told[durability]["whole"]) for durability in _DURABILITIES]
    part.lines.append("of it, p50 with its own timing: " + ", ".join(
        f"{name} {us:.1f}" for name, us in told["parts"].items()))
    part.figures, part.goals = told, [Goal("decision without the write, p50", costs["p50"], 30.0, " us")]
    part.hides = ("what the gateway does with the order; books that change meanwhile; the write is to the disk beneath "
                  "the folder for temporary files")
    return part


def _line(name: str, figures: dict[str, float]) -> str:
    return f"{name:<18} p50 {figures['p50']:>7.1f} us  p99 {figures['p99']:>8.1f} us  best {figures['best']:>7.1f} us"


# ---- in the child

def measure(folder: str, orders: int) -> dict[str, Any]:
    """p50 and p99 in us by durability: `decision` without the write, `write`, `whole`; and the `parts`, p50."""
    told: dict[str, Any] = {"orders": orders}
    for durability in _DURABILITIES:
        place = Path(folder) / durability
        place.mkdir()
        bench = Bench(place, durability)
        try:
            for _ in range(min(_WARM, orders)):
                bench.order()
            gc.collect()
            gc.freeze()
            gc.disable()
            made = np.array([bench.order() for _ in range(orders)])
            told[durability] = {"decision": _figures(made[:, 0] - made[:, 1]), "write": _figures(made[:, 1]),
                                "whole": _figures(made[:, 0])}
            if durability == "process":
                told["parts"] = _parts(bench, orders // 3)
            refused = {name: count for name, count in bench.telemetry.values().items()
                       if name.startswith("refusal_") and count}
            if refused:
                raise RuntimeError(f"what was measured is not an order each time: {refused}")
        finally:
            gc.enable()
            bench.close()
    return told


def _parts(bench: Bench, orders: int) -> dict[str, float]:
    spent: dict[str, list[int]] = defaultdict(list)
    with _timed(spent):
        for _ in range(orders):
            bench.order()
    return {name: float(np.median(values)) / 1e3 for name, values in spent.items()}


def _figures(ns: np.ndarray) -> dict[str, float]:
    p50, p99 = np.quantile(ns, (0.5, 0.99)) / 1e3
    return {"p50": float(p50), "p99": float(p99), "best": float(ns.min()) / 1e3}



if __name__ == "__main__":
    alone()
    with tempfile.TemporaryDirectory() as place:
        tell(measure(place, int(sys.argv[1])))
