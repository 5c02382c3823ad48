"""The pipeline at one moment, as one tree of plain values: what the page of `alpha monitor` and `alpha top` show.

Read only, from outside: the telemetry blocks of the stages (common.overview), the books ring, the journal, and the
files of the kill switch. What is not there yet is waited for, what has begun anew is followed, and a pipeline that has
stopped is told as it stood, with `stages` and the ages of books to see it by. The figures are those that their one home
gives: counts and latency from `Overview`, positions from `Reader.positions`. Taps are not listened to: they cost the
pipeline.

    at_ns           Unix ns; every other `_ns` too
    instance        and `gateway`, `venue`, as the stages tell; "" before
    state           {state, why, armed, halted, reducing, flattening, reconciled, switch}: the executor's word for what
                    it does, ABSENT or SILENT where nobody says it, and
                    `why` what it said last; `switch`: {halt, reduction}, who and why
    executor        {speaks, heard_ns}: whether the executor is there and gives signs of life, and when it last gave one
                    (None: never). Where it does not speak, all that is its own is its last word: `numbers`, but for
                    frames to invalid, `latency_us`, refusals, and the limits on exposure, loss, drawdown and orders
    missing         the stages that the configuration wants and that have no process, in the order of a tick
    stages          [{name, state, pid, starts, errors, age_s, waiting_for, note, cpu, memory_mb}], in the order of a
                    tick; `state` is ready, waiting, connecting, silent or gone (Overview.standing); `cpu` in cores
    numbers         Overview.numbers, and `day_loss`, `drawdown`, `exposure`, `working`, `unresolved`
    rates           per second, of those numbers that only grow, over the last `rates_s`
    latency_us      {station: {now, all}}, each p50, p99, p999, count; `now` over the last `latency_s`
    refusals        {reason: count}; `recent_refusals` [{at_ns, symbol, reason, value, limit, unit}], newest last, in
                    the units of the configuration
    symbols         [{name, valid, age_ms, stale, bid, ask, mid, spread_bps, bids, asks, qty, average_cost, unrealised,
                    realised, p_up, p_down, predicted_ns}], best level first; None where it is not known
    threshold       {enter, hold} around 0.5
    limits          [{name, symbol, value, limit, share}], the nearest first
    orders, fills   the newest, newest last
    judged          Overview.judged
    feeds           [{name, venue, connection, connected, valid, ...}], one for each ingest
    workers         [{name, model, model_id, provider, shadow, predictions, errors, p50_us, p99_us}]
    journal         {path, error}

Prices, quantities and money are floats of whole units, for showing: exact as far as a double is.
"""

import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from common import killswitch, layout, risk
from common.config import Config, told
from common.errors import LayoutError, ResourceError
from common.fixed import SCALE
from common.journal import Reader, located
from common.overview import Overview, StageState
from common.positions import MONEY, Position
from common.ring import Books
from common.telemetry import Telemetry, quantiles
from common.watch import health
from common.watch.trades import Trades
from common.wire import Prediction

PATH = ("exchange", "ingest", "feature", "inference", "executor", "monitor")  #: stages, as a tick meets them
GROWING = ("frames", "ticks", "rows", "dispatched", "skipped", "predictions", "invalid", "superseded", "decisions",
           "orders", "fills", "gaps", "malformed")
#: limits that are measured by what the executor tells
EXECUTORS = frozenset(("max_gross_notional", "max_daily_loss", "max_drawdown", "max_open_orders", "max_orders_per_s"))
_RATES_S, _LATENCY_S = 1.0, 5.0
_LOOK_S = 0.5  # between two looks for stages, rings and a journal that are new
_TOTAL_S = 1.0  # between two readings of the latency since the start
_NEAREST = 12  # limits that are told
_REFUSED = 40  # refusals that are told one by one
_SPEECHLESS = ("silent", "gone", "absent")


class _Sample(NamedTuple):
    at_s: float
    numbers: dict[str, Any]
    histograms: dict[str, np.ndarray]
    executor: Telemetry | None


class Snapshots:
    """`predictions`: symbol -> its newest prediction, where somebody has them; they may be written while they are read
    here. All calls from one thread."""

    def __init__(self, config: Config, predictions: Mapping[int, Prediction] | None = None) -> None:
        self.overview = Overview(config.instance.name)
        self._own, self._config = config, config  # as read here, and as the executor was started with
        self._state_dir = config.state_dir
        self._words: dict[str, dict[str, Any]] = {}  # what each stage told
        self._states: dict[str, StageState] = {}
        self._standings: dict[str, str] = {}
        self._cores: dict[str, tuple[int, float, float, float]] = {}  # pid, when, processor seconds, cores since before
        self._predictions = predictions if predictions is not None else {}
        self._books: Books | None = None
        self._trades: Trades | None = None
        self._file: tuple[str, int] = "", 0
        self._journal_error = ""
        self._executor_pid = -1
        self._samples: deque[_Sample] = deque()
        self._totals: dict[str, dict[str, float]] = {}
        self._next_look = self._next_total = 0.0

    def take(self, depth: Collection[str] | None = None) -> dict[str, Any]:
        """The pipeline now; books below the best prices only of the symbols in `depth`, None for all. Raises nothing
        that a pipeline that starts, stops or breaks might cause. About 1.5 ms with four symbols."""
        now = time.monotonic()
        positions = self.positions()
        overview, trades = self.overview, self._trades
        numbers = overview.numbers()
        for gauge in ("day_loss", "drawdown", "exposure"):
            numbers[gauge] = overview.get("executor", gauge) / SCALE
        for gauge in ("working", "unresolved"):
            numbers[gauge] = overview.get("executor", gauge)
        rates, rates_s, latency_now, latency_s = self._interval(now, numbers)
        if now >= self._next_total:
            self._next_total, self._totals = now + _TOTAL_S, overview.latency_us()
        symbols = self._symbols(positions, depth)
        executor, heard_ns = overview.stages.get("executor"), None
        words = executor.told() if executor else {}  # what bears on trading is never older than this snapshot
        if executor:
            heard_ns = time.time_ns() - round(overview.age_s("executor") * 1e9)
        return {
            "at_ns": time.time_ns(), "instance": self._own.instance.name,
            "gateway": words.get("gateway", ""), "venue": self._words.get("ingest", {}).get("venue", ""),
            "state": self._state(words), "executor": {
                "speaks": self._standing("executor") not in _SPEECHLESS, "heard_ns": heard_ns},
            "missing": [name for name in health.expected(self._config) if self._standing(name) in ("gone", "absent")],
            "stages": self._stages(), "numbers": numbers, "rates": rates,
            "rates_s": rates_s, "latency_s": latency_s,
            "latency_us": {name: {"now": latency_now.get(name, _NOTHING), "all": whole}
                           for name, whole in self._totals.items()},
            "refusals": overview.refusals(),
            "recent_refusals": [_refusal(row) for row in overview.recent_refusals()[-_REFUSED:]],
            "symbols": symbols,
            "threshold": {"enter": self._config.decision.threshold, "hold": self._config.decision.hold_threshold},
            "limits": self._limits(numbers, rates, symbols),
            "orders": [_order(row) for row in trades.orders] if trades else [],
            "fills": [_fill(row) for row in trades.fills] if trades else [],
            "judged": overview.judged(), "feeds": self._feeds(), "workers": self._workers(),
            "journal": {"path": self._file[0], "error": self._journal_error},
        }

    def positions(self) -> Mapping[str, Position]:
        """What is held of each symbol by the journal, as of now; {} while there is none."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_S
            self._look()
        self._follow()
        return self._trades.positions if self._trades is not None else {}

    def history(self, symbol: str, seconds: float = 120.0, points: int = 240) -> list[tuple[int, float]]:
        """(Unix ns, mid) of a symbol over the last so many seconds, as far as the ring reaches back, at most `points`:
        evenly chosen, the newest among them. Invalid books and empty sides are left out. About 1 ms."""
        books = self._books
        if books is None or symbol not in books.symbols:
            return []
        now, offset = time.monotonic_ns(), time.time_ns() - time.monotonic_ns()
        # The ring goes round: what its writer overtook meanwhile has another sequence in it, and is left out.
        index = books.symbols.index(symbol)
        head = int(books.heads[index])
        seqs = np.arange(max(1, head - books.capacity + 1), head + 1)
        slots, table = seqs & (books.capacity - 1), books.ticks[index]
        flags, received, bid, ask, found = (table[slots, column] for column in (
            layout.FLAGS, layout.RECV_NS, layout.BID_PX, layout.ASK_PX, layout.SEQ))  # what was read, then its seq
        usable = (found == seqs) & (received >= now - seconds * 1e9) & (flags & layout.FLAG_VALID != 0) & (0 < bid) & (
            bid < ask)
        chosen = np.flatnonzero(usable)
        chosen = chosen[np.unique(np.linspace(len(chosen) - 1, 0, min(points, len(chosen))).astype(int))]
        return list(zip((received[chosen] + offset).tolist(), ((bid[chosen] + ask[chosen]) / 2 / SCALE).tolist()))

    def close(self) -> None:
        """Let go of the journal; blocks need nothing."""
        if self._trades is not None:
            self._trades.close()
            self._trades = None

    # ---- what there is to look at

    def _look(self) -> None:
        """Find what is new: stages, a ring, a journal; and what the executor that now runs was started with."""
        self.overview.refresh()
        self._words = {name: telemetry.told() for name, telemetry in self.overview.stages.items()}
        self._states = self.overview.states()
        self._standings = {name: self._stands(name) for name in self.overview.stages}
        self._weigh()
        try:
            self._books = self.overview.books()
        except LayoutError:  # of another version
            self._books = None
        pid = self.overview.get("executor", "pid")
        if pid != self._executor_pid:
            self._executor_pid = pid
            found = told(self._own, "executor")
            self._config = found if found.state_dir == self._state_dir else self._own
        path = located(self._config)
        try:
            file = str(path), path.stat().st_ino
        except OSError as error:
            file, self._journal_error = (str(path), 0), error.strerror or str(error)
        if file != self._file:
            self.close()
            self._file = file
        if self._trades is None and file[1]:
            try:
                self._trades = Trades(Reader(path))
                self._journal_error = ""
            except ResourceError as error:
                self._journal_error = str(error)

    def _follow(self) -> None:
        if self._trades is not None:
            try:
                self._trades.look()
            except ResourceError as error:  # another look, at another reader, may find it mended
                self._journal_error = str(error)
                self.close()

    # ---- the parts

    def _interval(self, now: float, numbers: dict[str, Any]) -> tuple[dict[str, float], float, dict, float]:
        """Rates and latency of the last while, and how long each was; {} at first."""
        samples, executor = self._samples, self.overview.stages.get("executor")
        if samples and (samples[-1].executor is not executor or any(
                numbers[name] < samples[-1].numbers[name] for name in GROWING)):
            samples.clear()  # counted from nothing again
        while len(samples) > 1 and samples[1].at_s <= now - _LATENCY_S:
            samples.popleft()
        if not samples or now - samples[-1].at_s >= _RATES_S / 4:
            samples.append(_Sample(now, numbers, self.overview.histograms(), executor))
        then = next((one for one in reversed(samples) if now - one.at_s >= 0.95 * _RATES_S), samples[0])
        rates_s, latency_s = now - then.at_s, now - samples[0].at_s
        rates = {name: (numbers[name] - then.numbers[name]) / rates_s for name in GROWING} if rates_s else {}
        return rates, rates_s, self.overview.latency_us(samples[0].histograms) if latency_s else {}, latency_s

    def _state(self, words: dict[str, Any]) -> dict[str, Any]:
        overview = self.overview
        state, why = words.get("state") or "STARTING", words.get("why") or words.get("waiting_for", "")
        here, mode = self._standing("executor"), overview.get("executor", "reducing")
        if here in _SPEECHLESS:
            said = f"last it said {state}" + (f": {why}" if why else "")
            state, why = ("SILENT", said) if here == "silent" else ("ABSENT", said if words else "no executor runs")
        halt = reduction = None
        if killswitch.present(self._state_dir / killswitch.FILE):
            halt = killswitch.state(self._state_dir)
        if killswitch.present(self._state_dir / killswitch.REDUCE_FILE):
            reduction = killswitch.reduction(self._state_dir)
        return {"state": state, "why": why, "armed": bool(overview.get("executor", "armed")),
                "halted": bool(overview.get("executor", "halted")), "reducing": mode != risk.ACTIVE,
                "flattening": mode == risk.FLATTENING, "reconciled": bool(overview.get("executor", "reconciled")),
                "switch": {"halt": halt and halt._asdict(), "reduction": reduction and reduction._asdict()}}

    def _standing(self, name: str) -> str:
        """As of the last look."""
        return self._standings.get(name, "absent")

    def _stands(self, name: str) -> str:
        """As `Overview.standing`, but that one which gives no sign of life at its start is silent, too: who counts for
        how long (common.alarms) gives a start its time by itself."""
        found = self.overview.standing(name)
        return "silent" if found == "waiting" and not self._states[name].up else found

    def _weigh(self) -> None:
        """The cores that each process used since the last look."""
        now = time.monotonic()
        for name, state in self._states.items():
            pid, when, spent, _ = self._cores.get(name, (0, 0.0, 0.0, 0.0))
            here = self.overview.stages[name].get("pid")
            if state.usage is not None and (pid != here or now - when >= 1.0):
                cores = (state.usage.cpu_s - spent) / (now - when) if pid == here else 0.0
                self._cores[name] = here, now, state.usage.cpu_s, cores

    def _stages(self) -> list[dict[str, Any]]:
        found = []
        for name in sorted(self.overview.stages, key=_place):
            telemetry, words = self.overview.stages[name], self._words.get(name, {})
            deployment, standing = words.get("deployment") or {}, self._standing(name)
            usage = self._states[name].usage if name in self._states else None
            found.append({
                "name": name, "state": standing, "pid": telemetry.get("pid"),
                "starts": telemetry.get("starts"), "errors": telemetry.get("errors"),
                "age_s": round(self.overview.age_s(name), 3), "waiting_for": words.get("waiting_for", ""),
                "note": deployment.get("error") or deployment.get("why") or "",
                "cpu": self._cores[name][3] if name in self._cores and standing != "gone" else None,
                "memory_mb": usage.memory_bytes / 1e6 if usage and standing != "gone" else None})
        return found

    def _symbols(self, positions: Mapping[str, Position], depth: Collection[str] | None) -> list[dict[str, Any]]:
        books, offset = self._books, time.time_ns() - time.monotonic_ns()
        now, stale_ns = time.monotonic_ns(), self._config.risk.max_book_age_ms * 1e6
        found, names = [], books.symbols if books else ()
        for index, name in enumerate(names):
            tick = books.newest(index) or books.newest(index)  # overwritten while being read: once more
            told = dict(_UNKNOWN, name=name)
            mark = None
            if tick is not None:
                bid, ask = tick[layout.BID_PX], tick[layout.ASK_PX]
                valid, age_ns = bool(tick[layout.FLAGS] & layout.FLAG_VALID), now - tick[layout.RECV_NS]
                told.update(valid=valid and not books.retired, age_ms=age_ns / 1e6, stale=age_ns > stale_ns,
                            bid=bid / SCALE or None, ask=ask / SCALE or None)
                if 0 < bid < ask:
                    mid = (bid + ask) // 2
                    told.update(mid=(bid + ask) / 2 / SCALE, spread_bps=(ask - bid) / mid * 1e4)
                    mark = mid if valid else None
                if depth is None or name in depth:
                    told.update(bids=_levels(tick, layout.BID_PX, layout.BID_QTY),
                                asks=_levels(tick, layout.ASK_PX, layout.ASK_QTY))
            prediction = self._predictions.get(index)
            if prediction is not None and prediction.epoch == books.tag:
                told.update(p_up=prediction.p_up, p_down=prediction.p_down, predicted_ns=prediction.end_ns + offset)
            told.update(_held(positions.get(name), mark))
            found.append(told)
        found += [dict(_UNKNOWN, name=name, **_held(held, None)) for name, held in positions.items()
                  if name not in names and held.qty]
        return found

    def _limits(self, numbers: dict[str, Any], rates: dict[str, float], symbols: list) -> list[dict[str, Any]]:
        limits, found = self._config.risk, []

        def limit(name: str, value: float, most: float, symbol: str = "") -> None:
            if most > 0:
                found.append({"name": name, "symbol": symbol, "value": value, "limit": most, "share": value / most})

        limit("max_gross_notional", numbers["exposure"], limits.max_gross_notional)
        limit("max_daily_loss", max(0.0, numbers["day_loss"]), limits.max_daily_loss)
        limit("max_drawdown", numbers["drawdown"], limits.max_drawdown)
        limit("max_open_orders", numbers["working"], limits.max_open_orders)
        limit("max_orders_per_s", rates.get("orders", 0.0), limits.max_orders_per_s)
        for symbol in symbols:
            if symbol["qty"] and symbol["mid"]:
                limit("max_position_notional", abs(symbol["qty"]) * symbol["mid"], limits.max_position_notional,
                      symbol["name"])
        ages = [(symbol["age_ms"], symbol["name"]) for symbol in symbols if symbol["age_ms"] is not None]
        if ages:
            limit("max_book_age_ms", max(ages)[0], limits.max_book_age_ms, max(ages)[1])
        return sorted(found, key=lambda one: -one["share"])[:_NEAREST]

    def _feeds(self) -> list[dict[str, Any]]:
        found = []
        for name in sorted(self.overview.stages, key=_place):
            if name.partition("-")[0] != "ingest":
                continue
            telemetry, words = self.overview.stages[name], self._words.get(name, {})
            values = telemetry.values()
            found.append({
                "name": name, "venue": words.get("venue", ""), "connection": words.get("connection", ""),
                "connected": bool(values.get("connected")) and self._standing(name) == "ready",
                "valid": values.get("valid_symbols", 0), "reconnects": max(0, values.get("connects", 0) - 1),
                **{key: values.get(key, 0) for key in (
                    "frames", "gaps", "resyncs", "crossed", "malformed", "quote_mismatches", "checksum_mismatches",
                    "stale", "venue_errors", "connect_failures", "snapshot_failures")}})
        return found

    def _workers(self) -> list[dict[str, Any]]:
        found = []
        for name in sorted(self.overview.stages, key=_place):
            if name.partition("-")[0] != "inference":
                continue
            telemetry, words = self.overview.stages[name], self._words.get(name, {})
            values, spent = telemetry.values(), telemetry.quantiles("inference")
            found.append({"name": name, "model": words.get("model", ""), "model_id": words.get("model_id", ""),
                          "provider": words.get("provider", ""), "shadow": words.get("shadow", ""),
                          **{key: values.get(key, 0) for key in ("predictions", "invalid", "model_errors", "swaps")},
                          "p50_us": spent["p50"] / 1000, "p99_us": spent["p99"] / 1000})
        return found


_NOTHING = quantiles(np.zeros(1, np.int64))
_UNKNOWN: dict[str, Any] = dict.fromkeys((
    "name", "valid", "age_ms", "stale", "bid", "ask", "mid", "spread_bps", "bids", "asks", "qty", "average_cost",
    "unrealised", "realised", "fees", "p_up", "p_down", "predicted_ns")) | {"valid": False, "stale": True}


def _held(held: Position | None, mark: int | None) -> dict[str, Any]:
    """A position as shown; worth something while there is a `mark`, 1e-8."""
    if held is None:
        return {"qty": 0.0, "average_cost": None, "unrealised": 0.0, "realised": 0.0, "fees": 0.0}
    unrealised = 0.0 if not held.qty else None if mark is None else held.unrealised(mark) / MONEY
    return {"qty": held.qty / SCALE, "average_cost": held.average_price / SCALE if held.qty else None,
            "unrealised": unrealised, "realised": held.realised / MONEY, "fees": held.fees / SCALE}


def _levels(tick: tuple[int, ...], px: int, qty: int) -> list[list[float]]:
    return [[tick[px + level] / SCALE, tick[qty + level] / SCALE] for level in range(layout.LEVELS) if tick[px + level]]


def _order(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["client_id"], "at_ns": row["created_ns"], "symbol": row["symbol"], "side": row["side"],
            "price": row["price"] / SCALE, "qty": row["qty"] / SCALE, "filled": row["filled"] / SCALE,
            "state": row["state"], "reason": row["reason"]}


def _fill(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"{row['client_id']}/{row['fill_id']}", "order": row["client_id"], "at_ns": row["at_ns"],
            "symbol": row["symbol"], "side": row["side"], "price": row["price"] / SCALE, "qty": row["qty"] / SCALE,
            "fee": row["fee"] / SCALE}


def _place(name: str) -> tuple[int, str, int]:
    """In the order of a tick; the second of a kind after the first, the tenth after the ninth."""
    kind, _, number = name.partition("-")
    place = PATH.index(kind) if kind in PATH else len(PATH)
    return place, kind, int(number) if number.isdigit() else 0


#: reason -> the key of the limit that it met
_KEYS = {reason: check.limit for checks in (risk.ADMISSION, risk.MOMENT, risk.ORDER) for check in checks
         for reason in check.reasons}
#: ending of a key -> counts in one unit, and the unit
_UNITS = {"_ms": (1e6, "ms"), "_days": (86_400e9, "days"), "_bps": (1, "bps"), "_per_s": (1, "/s"), "_orders": (1, ""),
          "_repeats": (1, ""), "_notional": (SCALE, "quote"), "_loss": (SCALE, "quote"), "_drawdown": (SCALE, "quote"),
          "_qty": (SCALE, ""), ".tick": (SCALE, "")}
#: reasons without such a key
_OTHERS = {"SIGNAL_HOLD": (1e9, "s"), "CAPITAL_SPENT": (SCALE, "quote"), "BOOK_CROSSED": (SCALE, ""),
           "REDUCE_ONLY": (SCALE, ""), "QUANTITY_ZERO": (SCALE, ""), "QUANTITY_LOT": (SCALE, "")}


def _refusal(row: dict[str, Any]) -> dict[str, Any]:
    """As shown; `value` and `limit` None where the reason says it all."""
    reason, key = row["reason"], _KEYS.get(row["reason"], "")
    scale, unit = _OTHERS.get(reason) or next((found for end, found in _UNITS.items() if key.endswith(end)), (1, ""))
    if reason == "SIGNAL_SHRUNK" and row["limit"] != 1.0:  # by the drawdown; else by what of the limit is used
        scale, unit = SCALE, "quote"
    told = bool(row["value"] or row["limit"])
    return {**row, "symbol": str(row["symbol"]), "value": row["value"] / scale if told else None,
            "limit": row["limit"] / scale if told else None, "unit": unit}
