"""The executor on the loopback exchange, in each of its forms: it holds what the exchange says, whatever gets lost."""

import select
import time

import orjson
import pytest

from common import killswitch, layout
from common.clock import SystemClock
from common.config import Config, Market, Risk
from common.config import Executor as Settings
from common.errors import ConfigError
from common.fixed import SCALE
from common.gateways import create
from common.journal import Journal
from common.links import LocalLink
from common.ring import Books
from common.telemetry import Telemetry
from common.wire import Prediction, encode
from procs.executor import COUNTERS, TIMERS, Executor
from tests.still_binance import Served, still, still_vectrade

SYMBOLS = ("BTCUSDT", "ETHUSDT")
FAULTS = ("order-clock:every=15,seconds=-3600,count=2", "order-cut:rate=0.08", "order-lost:rate=0.08",
          "order-503:rate=0.08,how=taken", "order-429:at=9,seconds=1", "order-rejected:rate=0.05",
          "fill-twice:rate=0.2", "fill-lost:rate=0.1", "fill-late:rate=0.1,seconds=0.2")


class Desk:
    """An executor of its own folder, by the real clock. `begin` again is a restart."""

    def __init__(self, folder, venue: Served, name: str, symbols=SYMBOLS) -> None:
        self.config = Config(market=Market(venue=name, symbols=symbols), risk=Risk(symbol_cooldown_ms=0.0),
                             executor=Settings(gateway=name, base_url=venue.url, timeout_s=1.0))
        self.folder, self.clock, self.books, self.seq = folder, SystemClock(), Books.private(symbols, 1024), 0
        self.begin()

    def begin(self) -> None:
        self.inbox = LocalLink()
        self.telemetry = Telemetry.private("executor", COUNTERS, TIMERS)
        self.executor = Executor(self.config, self.clock, self.telemetry, self.inbox,
                                 create(self.config, self.clock, {}), Journal.open(self.folder / "journal.db"),
                                 lambda: self.books, self.folder)
        assert self.executor.on_start()
        self.until(lambda: self.telemetry.get("reconciled"))

    def kill(self) -> None:
        """What a `kill -9` leaves behind."""
        self.executor.gateway.close()
        self.executor.journal.close()

    def until(self, condition, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not in time; {self.telemetry.told()}"
            gateway = self.executor.gateway
            waits = [gateway.fileno()] if gateway.fileno() >= 0 else []
            select.select(waits, waits if gateway.wants_write else [], [], 0.005)
            self.executor.do_work()

    def settled(self) -> bool:
        ledger = self.executor.ledger
        return not ledger.orders and not ledger.entries

    def predict(self, p_up: float, symbol: int) -> None:
        head, now = int(self.books.heads[symbol]) + 1, self.clock.monotonic_ns()
        tick = self.books.ticks[symbol][head % 1024]
        tick[:] = 0
        tick[layout.FLAGS], tick[layout.RECV_NS] = layout.FLAG_VALID, now
        tick[layout.BID_PX], tick[layout.ASK_PX] = 100 * SCALE - SCALE // 100, 100 * SCALE + SCALE // 100
        tick[[layout.BID_QTY, layout.ASK_QTY]] = 500 * SCALE
        tick[layout.SEQ] = self.books.heads[symbol] = head
        self.seq += 1
        self.inbox.send(encode([Prediction(symbol, 0, self.books.tag, self.seq, 0, 1, 0, 5, p_up, 1 - p_up, 1.0, 1, 2,
                                           *(now - 600 + 100 * i for i in range(6)))]))
        self.executor.do_work()

    def held(self) -> dict[str, int]:
        return {symbol: position.qty for symbol, position in self.executor.ledger.positions.items() if position.qty}


@pytest.mark.parametrize("name", ["binance-usdm", "binance-spot", "vectrade"])
def test_whatever_gets_lost_it_holds_what_the_exchange_says_and_sends_nothing_twice(tmp_path, name):
    serving, vectrade = (still_vectrade, True) if name == "vectrade" else (still, False)
    with serving(tmp_path / "exchange", name, symbols=SYMBOLS) as venue:
        desk = Desk(tmp_path, venue, name)
        venue.disturb(*(fault for fault in FAULTS if not vectrade or "fill-lost" not in fault))
        for n in range(80):  # a symbol whose orders are refused is slowed down
            desk.predict(0.9 if n % 3 else 0.1, n % 2)
            if n % 20 == 19:
                desk.kill()  # with what is under way
                desk.begin()
            elif n % 4 == 3:
                desk.until(desk.settled)
        desk.until(desk.settled)
        held = venue.call(lambda mode: {symbol: position.quantity
                                        for symbol, position in mode.matching.positions.items() if position.quantity})
        counts = venue.call(lambda mode: dict(mode.plan.counts))
        posted = venue.call(lambda mode: [target.partition("newClientOrderId=")[2].partition("&")[0]
                                          for target in mode.targets if "newClientOrderId=" in target]
                            or [orjson.loads(body)["client_order_id"] for body in mode.bodies if body])
        assert desk.held() == held and held
        assert len(set(posted)) == len(posted) >= 20
        assert not desk.telemetry.get("halted") and sum(counts.values()) > 5, counts
        desk.executor.on_close()


@pytest.mark.parametrize("name", ["binance-usdm", "binance-spot"])
@pytest.mark.parametrize("symbol, fees_in", [("BNBUSDT", "BNB"), ("BNBUSDT", "bought"), ("BTCUSDT", "bought"),
                                             ("BTCUSDT", "BNB")])
def test_whatever_fees_are_taken_in_it_holds_what_the_account_holds(tmp_path, name, symbol, fees_in):
    """After purchases and sales, and after a restart, which compares."""
    with still(tmp_path / "exchange", name, symbols=(symbol, "ETHUSDT")) as venue:
        venue.call(lambda mode: setattr(mode, "fees_in", fees_in))
        desk = Desk(tmp_path, venue, name, (symbol, "ETHUSDT"))
        for p_up in (0.9, 0.8, 0.2, 0.9):
            desk.predict(p_up, 0)
            desk.until(desk.settled)
        base = symbol.removesuffix("USDT")
        held = venue.call(lambda mode: mode.matching.positions[symbol].quantity - mode._fees_of(base))
        took = venue.call(lambda mode: mode._fees_of(base))
        assert desk.held() == {symbol: held} and (took > 0) is (name == "binance-spot" and fees_in in (base, "bought"))
        desk.kill()
        desk.begin()
        assert desk.held() == {symbol: held} and not desk.telemetry.get("halted")
        desk.kill()


def test_a_rest_that_is_worth_less_than_the_venue_takes_can_be_left_on_usdm(tmp_path):
    with still(tmp_path / "exchange", "binance-usdm", symbols=SYMBOLS) as venue:
        desk = Desk(tmp_path, venue, "binance-usdm")
        few = [(99 * SCALE, 3 * SCALE // 100)], [(100 * SCALE, 3 * SCALE // 100)]
        venue.call(lambda mode: setattr(mode, "book", few))
        desk.predict(0.9, 0)
        desk.until(desk.settled)
        assert desk.held() == {"BTCUSDT": 3 * SCALE // 100}, "worth 3, and MIN_NOTIONAL is 5"
        venue.call(lambda mode: setattr(mode, "book", ([(100 * SCALE, 50 * SCALE)], [(100 * SCALE, 50 * SCALE)])))
        killswitch.reduce(tmp_path, "out", "me", True)
        desk.until(lambda: desk.predict(0.9, 0) or not desk.held())
        desk.kill()


def test_symbols_that_balances_do_not_tell_apart_are_why_nothing_trades(tmp_path):
    with still(tmp_path / "exchange", "binance-spot", symbols=("BTCUSDT", "BTCUSDC")) as venue:
        with pytest.raises(ConfigError, match="BTCUSDC and BTCUSDT both trade BTC"):
            Desk(tmp_path, venue, "binance-spot", ("BTCUSDT", "BTCUSDC"))
