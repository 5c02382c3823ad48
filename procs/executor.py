"""executor: predictions become decisions, decisions become orders, and orders become positions.

    in    predictions  Prediction, from every worker; of several of one symbol only the newest counts
    out   orders       through the gateway that the configuration names, each in the journal before it leaves
    tap   decisions    what was decided, on what (common.decision): orders and refusals alike
    file  journal.db   in the state folder (paper.db for a paper book): what was meant, and what came of it
    file  halt.json    in the state folder: while it is there, nothing trades (`alpha halt`, `alpha resume`)
    file  reduce.json  beside it: only what shrinks a position leaves (`alpha reduce`, `alpha resume`)

Every prediction that is taken up ends as a decision: an order, or a refusal that names its reason. The market is
read in the books ring at that moment. What is held is looked at ten times a second besides: where a stop, the horizon
or a flatten is due, the clock asks, with a prediction of its own (`wire.CLOCK`) that goes the same way, so that a
position is left although no worker speaks. At a start, what the journal left unfinished is asked for at the venue,
then positions are compared with the venue's; nothing trades before both are settled. They are compared again now and
then, and at once where somebody else's fill is heard of.
"""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import click

from common import decision, decision_telemetry, deployment, instant, manifest
from common.clock import SystemClock
from common.config import Config, load, plain
from common.decide import Rules, answer, leave, wish
from common.decision_telemetry import NOTES, DecisionTelemetry
from common.errors import AlphaError, ContractError, LifeCycleError, ResourceError, VenueError, WireError
from common.exits import EXITS, Exit
from common.explain import context as explain_context
from common.fixed import MAX, text
from common.gate import Gate
from common.gateways import (
    Absent,
    Acked,
    Ended,
    Event,
    Filled,
    Gateway,
    NoPortfolio,
    Portfolio,
    Throttled,
    Unanswered,
    Unknown,
    create,
    is_live,
)
from common.journal import Journal, Restored, located
from common.layout import ASK_PX, BID_PX, FLAG_VALID, KIND, SEQ, VENUE_ID
from common.ledger import ASK_AGAIN_NS, Ledger, absence_ns, worse
from common.links import DECISIONS, Network, Poller, Tap
from common.orders import BUY, SELL, Order, State, Working
from common.ring import Books, Top
from common.risk import ACTIVE, FLATTENING, REDUCING, Account, Rate, Refusal, closable
from common.stage import Stage, exit_on_error, run
from common.telemetry import Telemetry
from common.today import Today
from common.wire import ABSENT, CLOCK, LATENCIES, Prediction, decode

COUNTERS = ("predictions", "superseded", *decision_telemetry.COUNTERS,
            "orders", "acks", "fills", "cancels", "rejects", "unknowns",
            "position", "exposure", "realised", "unrealised", "fees", "day_loss",  # gauges, 1e-8 of quote currency
            "working", "unresolved", "halted", "armed", "reconciled", "reducing",  # gauges
            "drawdown",  # 1e-8 of quote currency
            *(reason.lower() for reason in EXITS))  # orders that leave a position, by what they are for
TIMERS = LATENCIES

LOOK_AGAIN_NS = 200_000  #: a look at the kill switch that is older than that, from the decision on, is not relied upon
DIFFERENCES = 3  #: a difference to the venue's positions counts once it was seen so often in a row
_QUESTIONS = 8  #: asked in one turn
_ENTRIES = 64  #: for the journal, before they are written although there is more to do
_WAITED_NS = 1_000_000  # a prediction this old was not taken up at once
_RETRY_NS = 200_000_000  # between attempts to write a journal that cannot be written
_TURN_NS = 20_000_000
_MARK_NS = 100_000_000
_TIDY_NS = 30_000_000_000
_LAST_WORDS = 25  # waits of 20 ms for answers that are under way when the stage is closed
_log = logging.getLogger("executor")


class Executor(Stage):
    """`books_source` attaches the books ring or raises FileNotFoundError; `state_dir` holds the kill switch."""

    name = "executor"

    def __init__(self, config: Config, clock, telemetry: Telemetry, inbox, gateway: Gateway, journal: Journal,
                 books_source: Callable[[], Books] | None = None, state_dir: Path | None = None,
                 tap: Tap | None = None, tally: DecisionTelemetry | None = None) -> None:
        self._config, self._clock, self._telemetry, self._inbox = config, clock, telemetry, inbox
        self.gateway, self.journal = gateway, journal
        self._tally = tally or DecisionTelemetry(telemetry, tap)
        self._books_source = books_source or (lambda: Books.attach(config.instance.name))
        self.gate = Gate(state_dir or config.state_dir, is_live(config))
        self.books: Books | None = None
        self.ledger = Ledger(Account(Rate(config.risk.max_orders_per_s), "STATE_RECONCILING"), config.risk.max_repeats,
                             absence_ns(config.executor.timeout_s))
        self._rules: list[Rules] = []
        self._tag = 0  #: of the stream in `books`
        self._streams: dict[str, list[tuple[int, int]]] = {}
        self._virgin = False
        self._model = -1 if config.risk.max_model_age_days else None  # whose date is known; None: nobody asks
        self._portfolio_asked = False
        self._portfolio_ns = self._differences = 0
        self._doubts = 0  # reasons to compare positions anew, so far
        self._asked_at = (0, 0, 0)  # those, orders and fills when the venue was asked for its positions
        self._configuration = ""  #: by which the journal knows it
        self._settled: tuple = ()  # what telemetry shows of the state
        self._today = Today(journal)
        self._next_turn = self._next_mark = self._next_tidy = self._retry_ns = 0
        self._found: Restored | None = None
        self._poller: Poller | None = None
        self._watched = (-1, False)

    # ---- the stage

    def on_start(self) -> bool:
        found = self._found = self._found or self.journal.restore()  # damage is told before anything is awaited
        try:
            books = self._books_source()
        except FileNotFoundError:
            self._telemetry.tell({"waiting_for": "the books ring, which ingest makes"})
            return False
        self.gate.begin()
        self._keep_configuration()
        self._streams, self._virgin = found.streams, found.virgin
        self._set_offset()
        self.ledger.restore(found.positions, found.working, self._clock.wall_ns(), found.begun)
        self.gateway.restore(self.ledger.positions)
        self._attach(books)
        self.ledger.recall(found.recent, self._clock.monotonic_ns(), self._clock.wall_ns())
        self._flush()
        self._look()
        self._look_for_reduction()
        self._settle_state()
        return True

    def do_work(self) -> int:
        handled = 0
        newest: dict[int, Prediction] = {}
        inbox = self._inbox
        while (message := inbox.take()) is not None:
            try:
                predictions = decode(message, Prediction)
            except WireError as error:
                self._telemetry.add("errors")
                _log.error("%s", error)
                continue
            for prediction in predictions:
                handled += 1
                held = newest.get(prediction.symbol)
                if held is None or prediction.seq > held.seq or prediction.epoch != held.epoch:
                    newest[prediction.symbol] = prediction
            if self._clock.monotonic_ns() - predictions[-1].end_ns > _WAITED_NS:
                inbox.wait(0)  # it has stood in a queue: newer ones may stand behind it
        if handled:
            for prediction in newest.values():
                self.consider(prediction)
            self._telemetry.add("predictions", handled)
            if handled > len(newest):
                self._telemetry.add("superseded", handled - len(newest))
        if self.gateway.busy:
            for event in self.gateway.work():
                handled += 1
                self._learn(event)
        if self.ledger.entries and (not handled or len(self.ledger.entries) > _ENTRIES) and (
                self._clock.monotonic_ns() >= self._retry_ns):
            self._flush()  # off the way of what arrives: as soon as nothing does
        now = self._clock.monotonic_ns()
        if now >= self._next_turn:
            self._turn(now, idle=not handled)
        return handled

    def wait(self, timeout_ms: float) -> None:
        gateway = self.gateway
        if self.ledger.entries and self._clock.monotonic_ns() >= self._retry_ns:
            self._inbox.wait(0)  # only look: if nothing has come, the next turn is idle and writes them down
            return
        if not gateway.busy:
            self._inbox.wait(timeout_ms)
            return
        if self._poller is None:
            self._poller = Poller()
            self._poller.add(self._inbox)
        watched = (gateway.fileno(), gateway.wants_write)
        if watched != self._watched:
            self._poller.remove(gateway)
            if watched[0] >= 0:
                self._poller.add(gateway, watched[1])
            self._watched = watched
        due = gateway.due_ns()
        if due:
            timeout_ms = min(timeout_ms, max(1, math.ceil((due - self._clock.monotonic_ns()) / 1e6)))
        if self._inbox in self._poller.wait(timeout_ms):
            self._inbox.wait(0)

    def on_close(self) -> None:
        """Hear what is under way, then write everything down. What stays unknown is asked for at the next start."""
        for _ in range(_LAST_WORDS):
            if not self.gateway.busy:
                break
            poller = Poller()
            if self.gateway.fileno() >= 0:
                poller.add(self.gateway, self.gateway.wants_write)
            poller.wait(20)
            for event in self.gateway.work():
                self._learn(event)
        self._flush()
        self._guarded(self._today.keep)
        self._tally.tell()
        self.gateway.close()
        self.journal.close()
        self._inbox.close()

    # ---- a prediction becomes a decision

    def consider(self, prediction: Prediction) -> None:
        """Decide on one prediction, as of now; what comes of the order is told by the gateway later."""
        symbol, epoch = prediction.symbol, prediction.epoch
        if epoch != self._tag or symbol >= len(self._rules):
            self._unexpected(prediction)
            if symbol >= len(self._rules):
                return
        clock, ledger, rules = self._clock.monotonic_ns, self.ledger, self._rules[symbol]
        standing, account = ledger.standings[symbol], ledger.account
        asked = prediction.worker == CLOCK
        if self._model is not None and prediction.model != self._model and not asked:
            self._date_model(prediction.model)
        told = self._tally.wanted
        before = decision.before(standing, account) if told else None
        wish_ns, market, answer_ns = clock(), None, 0
        verdict = wanted = wish(prediction, standing, account, rules, wish_ns)
        if type(wanted) is not Refusal:  # worth a look at the market
            market, answer_ns = self.books.top(symbol), clock()
            verdict = answer(wanted, prediction, market, standing, account, rules, answer_ns)
        decided_ns = clock()
        newest = standing.seq
        if epoch == standing.epoch and prediction.seq > newest and not (asked and type(verdict) is Refusal):
            standing.seq = prediction.seq
        refusal = verdict
        if type(verdict) is Order:
            refusal = self._place(prediction, verdict, market, before or decision.before(standing, account), newest,
                                  wish_ns, answer_ns, decided_ns)
        self._tally.count(prediction, refusal, decided_ns)
        if refusal is not None and refusal.reason in LOSSES:
            self._stop_losing(refusal)
        if type(wanted) is Exit and refusal is None:
            self._telemetry.add(wanted.reason.lower())
            _log.info("leaving %s: %s, %g, limit %g", rules.symbol, *wanted)
        if told:
            self._tally.keep(prediction, wish_ns, answer_ns, market, before, verdict, refusal)

    def _stop_losing(self, refusal: Refusal) -> None:
        """As risk.on_loss says. While nothing but what shrinks a position may leave, it has been done already."""
        what, key = LOSSES[refusal.reason]
        why = f"the day's {what} {text(refusal.value)} is above risk.{key} {text(refusal.limit)}"
        if self._config.risk.on_loss == "halt":
            self._halt(why)
        else:
            self.gate.restrain(why, self._config.risk.on_loss == "flatten")
            self.ledger.account.mode = self.gate.mode
            self._settle_state()

    def _date_model(self, model: int) -> None:
        """Another model predicts: find out where the training data end of the one that trades."""
        self._model, account = model, self.ledger.account
        account.trained_ns = 0
        try:
            told = manifest.read(deployment.known(self._config)[0]).trained.get("to")
            account.trained_ns = instant.parse(str(told), "trained.to") if told else 0
        except (AlphaError, OSError) as error:
            _log.error("the age of the model is not known: %s", error)

    def _place(self, prediction: Prediction, order: Order, market: Top, before: decision.Before, newest: int,
               wish_ns: int, answer_ns: int, decided_ns: int) -> Refusal | None:
        """Journal, then send, then book: the order is not to wait for what only the next one needs to know. Returns why
        not, or None when the order is out. From `before` on it is what `explain_context` keeps of the decision."""
        self._look()  # the kill switch, as of this moment
        ledger, account = self.ledger, self.ledger.account
        if account.barred:
            return Refusal(account.barred)
        context = explain_context.encode(prediction, market, before, newest, wish_ns, answer_ns, decided_ns,
                                         self._configuration)
        try:
            self.journal.intent(order, context, self._clock.wall_ns())
        except ContractError as error:
            _log.error("%s", error)
            return Refusal("ORDER_DUPLICATE")
        except ResourceError as error:
            self._halt(str(error))
            return Refusal("JOURNAL_FAILED")
        if self._clock.monotonic_ns() - decided_ns > LOOK_AGAIN_NS:
            self._look()  # writing to the journal has taken its time
        sent, problem = self._clock.wall_ns(), ""
        try:
            if account.barred:
                raise VenueError(f"{account.barred} came in between")
            self.gateway.submit(order, prediction.recv_ns + self._rules[prediction.symbol].limits.max_age_ns)
        except AlphaError as error:  # it cannot be put into words, or must not leave: nothing has left
            problem = str(error)
        working = ledger.opened(order, (market.bid + market.ask) // 2,
                                prediction.recv_ns if prediction.worker != CLOCK else 0, decided_ns)
        account.rate.take(decided_ns)
        self._virgin = False
        self._telemetry.add("orders")
        ledger.sent(working, sent)
        if problem:
            self._learn(Ended(order.client_id, State.REJECTED, 0, problem))
        for event in self.gateway.work():
            self._learn(event)
        return None

    def _unexpected(self, prediction: Prediction) -> None:
        """A prediction on a stream that is not ours: perhaps ingest has begun a new one."""
        if self.books.retired:
            self._attach_again()
        if prediction.symbol >= len(self._rules):
            self._telemetry.add("errors")
            _log.error("a prediction names a symbol that does not exist (symbol=%d)", prediction.symbol)

    # ---- what the gateway has learnt

    def _learn(self, event: Event) -> None:
        if type(event) is Throttled:
            self.gate.paused_until_ns = max(self.gate.paused_until_ns, event.until_ns)
            self._settle_state()
        elif type(event) is Portfolio:
            self._compare(event)
        elif type(event) is NoPortfolio:
            self._portfolio_asked = False
            self._portfolio_ns = self._clock.monotonic_ns() + ASK_AGAIN_NS
            if not self.gate.reconciled:
                self.gate.waiting_for = f"the venue's positions: {event.reason}"
                self._settle_state()
        else:
            working = self._find(event.client_id)
            if working is None:
                self._telemetry.add("errors")
                _log.error("the venue speaks of an order that is not ours (client_id=%s)", event.client_id)
                if type(event) is Filled:
                    self._compare_anew("somebody else trades on this account")
                return
            try:
                self._learn_of(working, event)
            except AlphaError as error:
                self._telemetry.add("errors")
                _log.error("%s", error)
                self._lose(working, str(error))
                if isinstance(error, LifeCycleError):  # more was filled than ordered, or worse
                    self._halt(str(error))

    def _learn_of(self, working: Working, event: Event) -> None:
        ledger, telemetry = self.ledger, self._telemetry
        now, wall = self._clock.monotonic_ns(), self._clock.wall_ns()
        match event:
            case Acked():
                if ledger.acked(working, event, now, wall):
                    telemetry.add("acks")
                if event.sent_ns and working.decided_ns:
                    telemetry.observe("send", event.sent_ns - working.decided_ns)
                    if working.recv_ns:  # not where the clock asked: there was no tick to begin with
                        telemetry.observe("tick_to_order", event.sent_ns - working.recv_ns)
                    telemetry.observe("ack", event.at_ns - event.sent_ns)
            case Filled():
                if ledger.filled(working, event, wall):
                    telemetry.add("fills")
                    if problem := worse(working.order, event):
                        self._halt(problem)
            case Ended():
                news = working.order.client_id in ledger.orders
                ledger.ended(working, event, wall)
                if event.state is State.REJECTED and news:
                    telemetry.add("rejects")
                    _log.warning("order %s rejected: %s", event.client_id, event.reason)
                elif news and event.state is not State.FILLED:
                    telemetry.add("cancels")
            case Unknown():
                self._lose(working, event.reason)
            case Absent():
                if ledger.absent(working, now, wall):
                    _log.warning("order %s never arrived", event.client_id)
                    telemetry.add("rejects")
            case Unanswered():
                ledger.unanswered(working, now)

    def _lose(self, working: Working, reason: str) -> None:
        """The outcome of an order is not known: its symbol is blocked, and the venue is asked."""
        if self.ledger.unknown(working, reason, self._clock.monotonic_ns(), self._clock.wall_ns()):
            self._telemetry.add("unknowns")
            _log.warning("order %s is unknown: %s", working.order.client_id, reason)

    def _find(self, client_id: str) -> Working | None:
        """An order by its client id; one at its end from the journal, which must know all that memory does."""
        working = self.ledger.orders.get(client_id) or self.ledger.ended_lately.get(client_id)
        if working is None and self._flush():
            working = self.journal.find(client_id)
        return working

    # ---- reconciliation

    def _reconcile(self, now: int) -> None:
        """Ask about unfinished orders; once nothing is unknown, compare positions with the venue's. Later on they are
        compared now and then, while no order is out, and trading goes on meanwhile."""
        if now < self.gate.paused_until_ns:
            return
        for working in self.ledger.to_ask(now)[:_QUESTIONS]:
            working.asking = True
            if working.state is State.CANCELLING and (self.gate.halted or self.gate.reduction) and working.queried:
                working.queried = False  # by turns: a venue may not say of an order at its end that it is there
                self.gateway.cancel(working.order, working.venue_id)
            else:
                working.queried = True
                self.gateway.query(working.order)
        if self._portfolio_asked or now < self._portfolio_ns:
            return
        if self.gate.reconciled:
            idle = not self.ledger.orders and not self.ledger.account.barred and self.gate.mode == ACTIVE
            if self._config.executor.compare_s and idle:
                self._ask_portfolio()
            return
        open_questions = [working.order.client_id for working in self.ledger.orders.values()
                          if working.state in (State.SENT, State.UNKNOWN)]
        if open_questions:
            self.gate.waiting_for = f"the venue's word on {len(open_questions)} orders, {open_questions[0]} the first"
        elif self._differences < DIFFERENCES:
            self.gate.waiting_for = "the venue's positions"
            self._ask_portfolio()

    def _ask_portfolio(self) -> None:
        self._portfolio_asked, self._asked_at = True, (self._doubts, *self._traded())
        self.gateway.portfolio()

    def _compare(self, portfolio: Portfolio) -> None:
        self._portfolio_asked = False
        if self._asked_at[0] != self._doubts:  # asked before there was a reason to ask again
            self._portfolio_ns = 0
            return
        self._portfolio_ns = self._clock.monotonic_ns() + max(ASK_AGAIN_NS, round(
            self._config.executor.compare_s * 1e9))
        found = self.ledger.differences(portfolio.positions)
        if self.gate.reconciled:
            if found and not self.ledger.orders and self._asked_at[1:] == self._traded():
                self._compare_anew("the venue holds something else than the journal")
            return
        if found and self._virgin:
            if is_live(self._config):
                told = ", ".join(f"{name} {text(portfolio.positions[name][0])}" for name in found)
                self._differences = DIFFERENCES  # not to be asked again before a person has done something
                self._halt(f"the journal is empty, and the venue holds {told}: close it there, or stop the executor "
                           "and take it over with `alpha reconcile --adopt`; then `alpha resume`")
                return
            found = self._adopt({name: portfolio.positions[name] for name in found})
        if found:
            self._differences += 1
            self._portfolio_ns = self._clock.monotonic_ns() + ASK_AGAIN_NS
            if self._differences >= DIFFERENCES:
                told = ", ".join(f"{name} {text(ours)} in the journal, {text(theirs)} at the venue"
                                 for name, (ours, theirs) in found.items())
                self._halt(f"positions differ: {told}; find out why, mend it at the venue, then `alpha resume`")
            return
        self.gate.reconciled, self._differences, self.gate.waiting_for = True, 0, ""
        self._virgin = False  # what comes from now on is not what was there before
        _log.info("reconciled with the venue, %d symbols held", len(portfolio.positions))
        self._settle_state()

    def _compare_anew(self, why: str) -> None:
        """Nothing trades until positions are found to be the venue's; if they are not, it halts."""
        self._doubt()
        if self.gate.reconciled:
            _log.warning("%s; comparing positions before anything trades", why)
            self.gate.reconciled, self.gate.waiting_for = False, "the venue's positions"
            self._settle_state()

    def _doubt(self) -> None:
        """Whatever was asked about positions is to be asked again."""
        self._doubts += 1
        self._differences = self._portfolio_ns = 0

    def _traded(self) -> tuple[int, int]:
        return self._telemetry.get("orders"), self._telemetry.get("fills")

    def _adopt(self, held: dict[str, tuple[int, int]]) -> dict:
        """An empty journal takes over what the venue holds. Returns what still differs."""
        try:
            self.journal.adopt(held)
        except ResourceError as error:
            self._halt(str(error))
            return {"journal": (0, 0)}
        _log.warning("the journal is empty and takes over the venue's positions: %s",
                     {name: text(qty) for name, (qty, _) in held.items()})
        now = self._clock.wall_ns()
        self.ledger.restore(self.journal.restore().positions, (), now, dict.fromkeys(held, now))
        self.ledger.follow(self.books.symbols, self.books.tag, self._streams)
        self.gateway.restore(self.ledger.positions)
        self._virgin = False
        return {}

    # ---- now and then

    def _turn(self, now: int, idle: bool) -> None:
        self._next_turn = now + _TURN_NS
        self._tally.tell()
        self._look()
        self._look_for_reduction()
        self._set_offset()
        if self.books.retired:
            self._attach_again()
        if self.gate.halted or self.gate.reduction:
            # While flattening all of them: an order that rests far away would keep the place of one that leaves now.
            flat = self.gate.halted or self.gate.reduction.flatten
            for working in self.ledger.to_cancel(growing=not flat):
                self.gateway.cancel(working.order, working.venue_id)
                working.queried = False
                self.ledger.cancelling(working, now, self._clock.wall_ns())
        self._reconcile(now)
        if now >= self._next_mark:
            self._next_mark = now + _MARK_NS
            self._mark()
            self._watch()
        self._guarded(self._today.keep_now_and_then, now, idle)
        if idle and now >= self._next_tidy:
            self._next_tidy = now + _TIDY_NS
            self._guarded(self.journal.tidy)
        self._settle_state()

    def _mark(self) -> None:
        """Mark positions to the market, count the day's loss, and show both."""
        ledger, telemetry = self.ledger, self._telemetry
        for index, symbol in enumerate(self.books.symbols):
            top = self.books.top(index)
            if top is not None and top.flags & FLAG_VALID and 0 < top.bid < top.ask:
                ledger.mark(symbol, (top.bid + top.ask) // 2)
        realised, unrealised, fees = ledger.profit()
        if ledger.marked():
            self._count_loss(realised + unrealised - fees)
        for name, value in (("position", ledger.net_cost()), ("exposure", ledger.account.gross),
                            ("realised", realised), ("unrealised", unrealised), ("fees", fees),
                            ("day_loss", ledger.account.day_loss), ("working", len(ledger.orders)),
                            ("drawdown", ledger.account.drawdown),
                            ("unresolved", sum(standing.unresolved for standing in ledger.standings))):
            telemetry.set(name, max(-MAX, min(value, MAX)))

    def _watch(self) -> None:
        """Ask of all that is held whether it is due to be left, unless its newest tick was decided on already. A
        refusal leaves that tick to the models, and to the next look."""
        account = self.ledger.account
        for symbol, standing in enumerate(self.ledger.standings):
            held, rules = standing.position, self._rules[symbol]
            if not held or closable(SELL if held > 0 else BUY, standing) < rules.lot:
                continue  # or it is being left already, or too little to be left
            tick, now = self.books.newest(symbol), self._clock.monotonic_ns()
            if tick is None or tick[SEQ] <= standing.seq:
                continue  # it has been decided on: an order would have the id of the one that came of it
            bid, ask = tick[BID_PX], tick[ASK_PX]
            if leave(bid, ask, standing, account, rules.policy, now) is not None:
                self.consider(Prediction(symbol, CLOCK, self._tag, tick[SEQ], tick[VENUE_ID], tick[KIND], 0, 0, ABSENT,
                                         ABSENT, 0.0, bid, ask, *(now,) * 6))

    def _count_loss(self, profit: int) -> None:
        account, limits = self.ledger.account, self._rules[0].limits
        counted = self._guarded(self._today.count, profit, self._clock.wall_ns())
        if counted is None:
            return
        account.day_loss, account.drawdown = counted
        if self.gate.halted or self.gate.mode == FLATTENING or (
                self.gate.mode == REDUCING and self._config.risk.on_loss != "flatten"):
            return
        if account.day_loss > limits.max_daily_loss:
            self._stop_losing(Refusal("LOSS_DAILY", account.day_loss, limits.max_daily_loss))
        elif account.drawdown > limits.max_drawdown > 0:
            self._stop_losing(Refusal("LOSS_DRAWDOWN", account.drawdown, limits.max_drawdown))

    def _attach(self, books: Books) -> None:
        self.books, self._tag = books, books.tag
        self._rules = [Rules.of(self._config, symbol) for symbol in books.symbols]
        self.ledger.follow(books.symbols, books.tag, self._streams)
        self.gateway.attach(books)

    def _attach_again(self) -> None:
        """Ingest has replaced the books ring. Until the new one is there, the old book only grows older."""
        try:
            books = self._books_source()
        except FileNotFoundError:
            return
        if books.epoch != self.books.epoch or books.symbols != self.books.symbols:
            self._attach(books)

    # ---- whether anything may trade

    def _look(self) -> None:
        """Follow the kill switch. Once a halt is lifted, positions are compared anew."""
        halted = self.gate.halted
        if self.gate.look():
            if halted and not self.gate.halted:
                self._doubt()
            self._settle_state()

    def _look_for_reduction(self) -> None:
        """Follow reduce.json. What leaves is unrestricted for a turn at most after it is there."""
        if self.gate.look_for_reduction():
            self.ledger.account.mode = self.gate.mode
            self._settle_state()

    def _set_offset(self) -> None:
        self.ledger.account.offset_ns = self._clock.wall_ns() - self._clock.monotonic_ns()

    def _halt(self, why: str) -> None:
        """Stop trading, until a person resumes."""
        if self.gate.halt(why):
            self._settle_state()

    def _settle_state(self) -> None:
        """Act on what the gate says, and show it."""
        gate = self.gate
        permission = gate.permission(self.ledger.marked(), self._clock.monotonic_ns())
        self.ledger.account.barred = permission.barred
        settled = permission, gate.halted, gate.armed, gate.reconciled, gate.reduction
        if settled == self._settled:
            return
        self._settled, telemetry = settled, self._telemetry
        if permission.barred or permission.state != "ACTIVE":
            self.gateway.withdraw()  # what was decided before, and waits behind a slow answer
        telemetry.set("halted", int(bool(gate.halted)))
        telemetry.set("armed", int(gate.armed))
        telemetry.set("reducing", gate.mode)
        telemetry.set("reconciled", int(gate.reconciled))
        telemetry.tell({**telemetry.told(), "waiting_for": "", "gateway": self.gateway.name, "state": permission.state,
                        "why": permission.why, "barred": permission.barred})

    # ---- the journal

    def _keep_configuration(self) -> None:
        """What decisions are made by, once in the journal, so that each order can name it; and what its context is
        called."""
        now = self._clock.wall_ns()
        self._configuration = self.journal.configured(json.dumps(plain(self._config), sort_keys=True), now)
        self.journal.configured(explain_context.LAYOUT, now)

    def _flush(self) -> bool:
        """Write what memory knows; what cannot be written is kept, and nothing trades meanwhile."""
        if not self.ledger.entries:
            return True
        try:
            with self.journal.batch():
                for method, arguments in self.ledger.entries:
                    getattr(self.journal, method)(*arguments)
        except (ResourceError, OverflowError) as error:
            self._retry_ns = self._clock.monotonic_ns() + _RETRY_NS
            self._halt(str(error))
            return False
        self.ledger.entries.clear()
        return True

    def _guarded(self, call: Callable, *arguments):
        """A journal call whose failure halts and is no more than that."""
        try:
            return call(*arguments)
        except (ResourceError, OverflowError) as error:
            self._halt(str(error))
            return None


#: the losses that stop trading: what they are called, and their limit
LOSSES = {"LOSS_DAILY": ("loss", "max_daily_loss"), "LOSS_DRAWDOWN": ("drawdown", "max_drawdown")}


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
def executor(path: str | None) -> None:
    """Turn predictions into decisions, and decisions into orders.

    \b
    Receives  predictions (Prediction, from every worker); binds it.
    Sends     orders over HTTP, or to a local paper book: [executor] gateway.
    Memory    reads the books ring.
    Tap       alpha tap decisions
    Files     journal.db in the state folder; and halt.json and reduce.json there, which stop or restrain it.
    Key       $ALPHA_BOT_KEY; a loopback exchange needs none.
    Starts in any order: it waits for the books ring, and for the venue before it trades.

    \b
    Examples
      alpha executor
      ALPHA_EXECUTOR__GATEWAY=paper alpha executor

    Exit codes: 0 stopped, 2 the configuration is wrong, 5 the journal is damaged or in use, 6 it runs already.
    """
    with exit_on_error():
        config = load(path)
        run("executor", config, lambda network, telemetry: _build(config, network, telemetry), COUNTERS, TIMERS,
            notes=NOTES)


def _build(config: Config, network: Network, telemetry: Telemetry) -> Executor:
    clock = SystemClock()
    gateway = create(config, clock)
    journal = Journal.open(located(config), config.executor.durability)
    return Executor(config, clock, telemetry, network.pull("predictions"), gateway, journal,
                    tap=network.tap(DECISIONS, "executor") if config.tap.enabled else None)
