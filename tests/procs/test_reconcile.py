"""`alpha reconcile` beside real exchanges: each kind of difference is planted, told, and adopted; and an executor that
trades meanwhile is no difference."""

import json
import threading
import time

import pytest
from click.testing import CliRunner

from common.clock import SystemClock
from common.config import load
from common.fixed import SCALE
from common.gateways import Acked, Ended, create
from common.journal import Journal, Reader, located
from common.locks import holder
from common.orders import BUY, Order, State
from procs.daily import daily
from procs.explain import explain
from procs.orders import orders
from procs.position import position
from procs.reconcile import reconcile
from tests.procs.test_executor_binance import Desk
from tests.still_binance import PRICE, still, still_vectrade
from tests.waiting import until

SYMBOL = "BTCUSDT"
ORDER = Order("0000000a-0-1", SYMBOL, BUY, 2 * SCALE, PRICE, 10, 1)
RESTS = ORDER._replace(client_id="0000000a-0-2", price=PRICE - SCALE, seq=2, time_in_force="GTC")
GATEWAYS = ("vectrade", "binance-usdm", "binance-spot")


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """The looks come as fast as they can, where nobody trades meanwhile."""
    if "meanwhile" not in request.node.name:
        monkeypatch.setattr("procs.reconcile.LOOK_S", 0.0)


@pytest.fixture(params=GATEWAYS)
def bench(request, tmp_path):
    """A venue, a configuration file for it, a gateway of our own, and an open journal."""
    serving = still_vectrade if request.param == "vectrade" else still
    with serving(tmp_path / "exchange", request.param, symbols=(SYMBOL, "ETHUSDT")) as venue:
        made = Bench(tmp_path, request.param, venue)
        yield made
        made.close()


class Bench:
    def __init__(self, folder, name: str, venue) -> None:
        self.venue, self.file, self.name = venue, folder / "alpha.toml", name
        self.file.write_text(
            f'[instance]\nname = "t-reconcile"\nstate_dir = "{folder}/state"\nrun_dir = "{folder}/run"\n'
            f'[market]\nsymbols = ["{SYMBOL}", "ETHUSDT"]\nvenue = "{name}"\n'
            f'[executor]\ngateway = "{name}"\nbase_url = "{venue.url}"\ntimeout_s = 2.0\n')
        self.config = load(self.file)
        self.gateway = create(self.config, SystemClock(), {})
        self.journal = Journal.open(located(self.config))

    def close(self) -> None:
        self.gateway.close()
        self.journal.close()

    def place(self, order: Order) -> list:
        """At the venue, not in the journal."""
        self.gateway.submit(order)
        events: list = []
        last = Acked if order.time_in_force == "GTC" else Ended
        until(lambda: events.extend(self.gateway.work()) or any(type(event) is last for event in events))
        return events

    def write(self, order: Order, *states: State, fills=(), venue_id: str = "") -> None:
        """In the journal, not at the venue."""
        now = time.time_ns()
        self.journal.intent(order, "{}", now)
        for state in states:
            self.journal.advance(order.client_id, state, now, venue_id=venue_id)
        for fill_id, qty, state in fills:
            self.journal.fill(order, fill_id, qty, order.price, SCALE // 100, state, now)

    def run(self, *arguments: str, code: int, command=reconcile, **more):
        found = CliRunner().invoke(command, [*arguments, "--config", str(self.file)], **more)
        assert found.exit_code == code, (found.output, found.exception)
        return found

    def told(self, code: int, *arguments: str) -> dict:
        return json.loads(self.run("--json", *arguments, code=code).stdout)

    def adopt(self) -> dict:
        """And what must be so afterwards."""
        self.journal.close()
        assert not holder(located(self.config).with_suffix(".lock"))
        tree = self.told(0, "--adopt", "--yes")
        reader = Reader(located(self.config))
        reader.verify()
        held = {symbol: found.qty for symbol, found in reader.positions().items() if found.qty}
        past = {symbol: found.qty for symbol, found in reader.positions(2**62).items() if found.qty}
        reader.close()
        at_venue = self.venue.call(lambda mode: {symbol: found.quantity for symbol, found in
                                                 mode.matching.positions.items() if found.quantity})
        assert held == past == at_venue
        assert self.told(0)["agrees"], "and it still does"
        json.loads(self.run("--verify", "--json", code=0, command=orders).stdout)
        self.run("--json", code=0, command=daily)
        return tree


def of(tree: dict, symbol: str = SYMBOL) -> dict:
    return tree["symbols"][symbol]


def test_what_agrees_is_told_with_exit_code_0_and_writes_nothing(bench):
    [acked] = [event for event in bench.place(RESTS) if type(event) is Acked]
    bench.write(RESTS, State.SENT, State.ACKNOWLEDGED, venue_id=acked.venue_id)
    before = located(bench.config).read_bytes()
    tree = bench.told(0)
    assert tree["agrees"] and tree["looks"] == 1 and of(tree)["verdict"] == "agrees"
    [order] = of(tree)["orders"]
    assert order["venue"] == {"state": "alive", "filled": "0", "venue_id": acked.venue_id} and not order["difference"]
    assert tree["executor_pid"], "it says who holds the journal"
    assert located(bench.config).read_bytes() == before
    assert "agree" in bench.run(code=0).stdout
    asked = bench.venue.call(lambda mode: [target for target in mode.targets if "countdown" in target])
    assert len(asked) <= 1, "only the gateway that placed the order winds up a dead man's timer"


def test_fills_that_the_journal_lacks_are_told_and_booked_as_fills(bench):
    bench.place(ORDER)
    bench.write(ORDER, State.SENT)
    tree = of(bench.told(1))
    [order] = tree["orders"]
    assert order["venue"]["state"] == "filled" and order["missing_fills"][0]["qty"] == "2"
    assert (tree["journal"], tree["venue"], tree["unexplained"]) == ("0", "2", "0"), "one difference and not two"
    assert order["remedy"] and "1 fill of 2 is not in the journal" in order["difference"]
    tree = bench.adopt()
    assert of(tree["before"])["orders"] and not of(tree)["orders"]
    assert tree["adopted"] == [f"{ORDER.client_id}: filled, 1 fill of 2 booked"]


def test_orders_that_are_over_or_were_never_there_end(bench):
    rests = bench.place(RESTS)
    bench.gateway.cancel(RESTS, next(event.venue_id for event in rests if type(event) is Acked))
    until(lambda: any(type(event) is Ended for event in bench.gateway.work()))
    bench.write(RESTS, State.SENT, State.ACKNOWLEDGED, venue_id="1")
    bench.write(ORDER, State.SENT)
    forgotten = ORDER._replace(client_id="0000000a-0-9", symbol="ETHUSDT", seq=9)
    bench.write(forgotten, State.SENT, State.ACKNOWLEDGED, venue_id="77")
    bench.write(ORDER._replace(client_id="0000000a-0-8", symbol="ETHUSDT", seq=8))
    bench.journal.close()
    tree = bench.told(1)
    found = {order["client_id"]: order for symbol in tree["symbols"].values() for order in symbol["orders"]}
    assert {name: order["venue"]["state"] for name, order in found.items()} == {
        RESTS.client_id: "cancelled", ORDER.client_id: "absent", forgotten.client_id: "absent",
        "0000000a-0-8": "absent"}
    assert "forgets old orders" in found[forgotten.client_id]["remedy"] and tree["looks"] >= 6
    bench.adopt()
    reader = Reader(located(bench.config))
    assert {row["client_id"]: row["state"] for row in reader.orders()} == {
        RESTS.client_id: "cancelled", ORDER.client_id: "rejected", forgotten.client_id: "cancelled",
        "0000000a-0-8": "rejected"}
    reader.close()


@pytest.mark.parametrize("ours", [0, 1, 5])
def test_a_position_that_nothing_explains_is_corrected_and_everybody_sees_it(bench, ours):
    """The venue holds 2 at 100; the journal nothing, less or more."""
    bench.place(ORDER._replace(client_id="by-hand"))
    if ours:
        bench.write(ORDER._replace(qty=ours * SCALE, price=90 * SCALE), State.SENT,
                    fills=[("f", ours * SCALE, State.FILLED)])
    tree = of(bench.told(1))
    assert (tree["journal"], tree["venue"], tree["unexplained"]) == (str(ours), "2", str(2 - ours))
    assert "somebody else" in tree["remedy"]
    assert "no fill tells" in bench.run(code=1).stdout
    [booked] = bench.adopt()["adopted"]
    price = 90 if ours > 2 else 100  # what is given up leaves at our own cost
    assert f"{'sold' if ours > 2 else 'bought'} {abs(2 - ours)} at {price} as adopt-" in booked
    [row] = [row for row in json.loads(bench.run("--all", "--json", code=0, command=orders).stdout)
             if row["client_id"].startswith("adopt-")]
    assert row["order_type"] == "CORRECTION" and row["state"] == "filled" and "it holds 2" in row["reason"]
    day = json.loads(bench.run("--json", code=0, command=daily).stdout)
    assert day["symbols"][SYMBOL]["position"] == "2" and day["fills"]["count"] == (2 if ours else 1)
    assert day["profit"]["realised"] == "0"
    held = json.loads(bench.run("--json", code=0, command=position).stdout)["symbols"][SYMBOL]
    assert held["qty"] == "2" and held["average_cost"] == {0: "100", 1: "95", 5: "90"}[ours]
    bench.run(row["client_id"], code=0, command=explain)


def test_a_fill_that_is_not_at_the_venue_is_told_and_corrected(bench):
    bench.place(ORDER._replace(qty=60 * SCALE))  # 50 of it can be had
    bench.write(ORDER._replace(qty=60 * SCALE), State.SENT, fills=[("none", 52 * SCALE, State.PARTLY_FILLED)])
    tree = of(bench.told(1))
    assert "1 fill of 52 is in the journal and not at the venue" in tree["orders"][0]["difference"]
    assert (tree["journal"], tree["venue"]) == ("52", "50")


def test_nothing_is_booked_unless_it_is_agreed_to_or_while_somebody_writes(bench):
    bench.place(ORDER)
    bench.write(ORDER, State.SENT)
    assert "is in use" in bench.run("--adopt", "--yes", code=6).stderr
    bench.journal.close()
    before = located(bench.config).read_bytes()
    assert "Book this" in bench.run("--adopt", code=1, input="n\n").stdout
    assert located(bench.config).read_bytes() == before
    assert bench.run("--adopt", "--json", code=2).stderr
    assert f"booked {ORDER.client_id}: filled" in bench.run("--adopt", code=0, input="y\n").stdout


def test_exit_codes(bench):
    bench.write(ORDER, State.SENT)
    text = bench.file.read_text()
    bench.file.write_text(text.replace(bench.venue.url, "http://127.0.0.1:1"))
    found = bench.run("--patience", "0.5", code=4)
    assert ORDER.client_id in found.stderr and "cannot connect" in found.stderr
    bench.file.write_text(text)
    bench.run("--patience", "0", code=2)
    bench.journal.close()
    path = located(bench.config)
    data = bytearray(path.read_bytes())
    data[data.index(ORDER.client_id.encode()) + 4] ^= 1
    path.write_bytes(data)
    assert "damaged" in bench.run(code=5).stderr
    path.unlink()
    assert "there is no journal" in bench.run(code=5).stderr


def test_a_paper_book_has_nothing_beside_it(tmp_path):
    file = tmp_path / "alpha.toml"
    file.write_text(f'[instance]\nstate_dir = "{tmp_path}"\nrun_dir = "{tmp_path}/run"\n'
                    '[executor]\ngateway = "paper"\n')
    journal = Journal.open(located(load(file)))
    journal.close()
    assert "part of the executor" in CliRunner().invoke(reconcile, ["--config", str(file)]).stdout


@pytest.mark.parametrize("name", ["binance-usdm", "binance-spot"])
def test_an_executor_that_trades_meanwhile_is_no_difference(tmp_path, name):
    with still(tmp_path / "exchange", name, symbols=(SYMBOL, "ETHUSDT")) as venue:
        file = tmp_path / "alpha.toml"
        file.write_text(f'[instance]\nstate_dir = "{tmp_path}"\nrun_dir = "{tmp_path}/run"\n'
                        f'[market]\nsymbols = ["{SYMBOL}", "ETHUSDT"]\nvenue = "{name}"\n'
                        f'[executor]\ngateway = "{name}"\nbase_url = "{venue.url}"\n')
        desk = Desk(tmp_path, venue, name)
        found: list = []
        thread = threading.Thread(target=lambda: [found.append(
            CliRunner().invoke(reconcile, ["--json", "--config", str(file)])) for _ in range(2)])
        thread.start()
        n = 0
        while thread.is_alive() or n < 12:
            n += 1
            desk.predict(0.9 if n % 3 else 0.1, n % 2)
            desk.until(lambda at=time.monotonic() + 0.02: time.monotonic() > at)
        thread.join()
        desk.until(desk.settled)
        for result in found:
            assert result.exit_code == 0 and json.loads(result.stdout)["agrees"], result.output
        rows = Reader(tmp_path / "journal.db").orders()
        assert len(found) == 2 and sum(row["state"] == "filled" for row in rows) >= 2
        assert desk.held() and not desk.telemetry.get("halted")
        desk.executor.on_close()


@pytest.mark.parametrize("name", ["binance-usdm", "binance-spot"])
def test_after_adopting_the_executor_reconciles_without_a_halt(tmp_path, name):
    """Differences of all kinds at once; without adopting, it halts."""
    with still(tmp_path / "exchange", name, symbols=(SYMBOL, "ETHUSDT")) as venue:
        bench = Bench(tmp_path, name, venue)
        bench.place(ORDER)
        bench.place(ORDER._replace(client_id="by-hand"))
        bench.write(ORDER, State.SENT)
        bench.write(ORDER._replace(client_id="0000000a-1-5", symbol="ETHUSDT", seq=5), State.SENT, State.ACKNOWLEDGED,
                    venue_id="99")
        bench.adopt()
        bench.close()
        (tmp_path / "state").rename(tmp_path / "desk")
        desk = Desk(tmp_path / "desk", venue, name)
        assert desk.telemetry.get("reconciled") and not desk.telemetry.get("halted")
        assert desk.held() == {SYMBOL: 4 * SCALE}
        desk.predict(0.5, 0)  # a price for what is held
        desk.until(lambda: desk.predict(0.9, 1) or desk.held().get("ETHUSDT"))
        desk.executor.on_close()
