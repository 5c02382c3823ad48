"""`alpha explain`: an order of the real executor, from journal, rings and recording; and exit codes that hold."""

import json
import math
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from common import killswitch, layout
from common.clock import ManualClock
from common.config import load, plain
from common.decision import before
from common.explain import context as explain_context
from common.features.table import TABLE_HASH
from common.fixed import SCALE
from common.gateways import create
from common.journal import Journal, Reader, located
from common.links import LocalLink
from common.orders import BUY, Order
from common.ring import Books, Rows
from common.risk import Account, Rate, Standing
from common.telemetry import Telemetry
from common.wire import encode
from procs.executor import COUNTERS, TIMERS, Executor
from procs.explain import explain
from tests import explained

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path, instance):
    path = tmp_path / "alpha.toml"
    path.write_text(f'[instance]\nname = "{instance}"\nrun_dir = "{tmp_path}/run"\n'
                    f'[inference]\nmodel = "{ROOT}/models/default.onnx"\n[executor]\ngateway = "paper"\n')
    return path


@pytest.fixture
def written(file):
    config = load(file)
    journal = Journal.open(located(config))
    explained.write(journal, config, 1)
    explained.write(journal, config, 2, 0.2, filled=0.5)
    journal.close()
    return config


def run(file, *arguments: str):
    return CliRunner().invoke(explain, [*arguments, "--config", str(file)])


def test_text_json_and_a_picture(file, written, tmp_path):
    text = run(file, "last", "--out", str(tmp_path / "why.svg"))
    assert text.exit_code == 0, text.output
    assert "SELL" in text.stdout and "it is the order, to the last digit" in text.stdout
    assert "<svg" in (tmp_path / "why.svg").read_text()
    tree = json.loads(run(file, "00000007-0-1", "--json").stdout)
    assert tree["order"]["side"] == "BUY" and tree["verdict"]["same"] and tree["not_recorded"] == []
    assert tree["model"] is None is tree["row"] is tree["book"]


def test_what_the_executor_journals_is_all_that_is_needed(file, tmp_path):
    """The real one, with a paper book."""
    config, clock = load(file), ManualClock(1_700_000_000_000_000_000)
    books, inbox = Books.private(config.symbols, 1024), LocalLink()

    def show() -> None:
        head = int(books.heads[0]) + 1
        tick = books.ticks[0][head % 1024]
        tick[:] = 0
        tick[layout.FLAGS], tick[layout.RECV_NS] = 1, clock.now_ns
        tick[layout.BID_PX], tick[layout.ASK_PX] = 9_999 * SCALE // 100, 10_001 * SCALE // 100
        tick[[layout.BID_QTY, layout.ASK_QTY]] = 100 * SCALE
        tick[layout.SEQ] = books.heads[0] = head

    executor = Executor(config, clock, Telemetry.private("executor", COUNTERS, TIMERS), inbox,
                        create(config, clock, {}), Journal.open(located(config)), lambda: books, config.state_dir)
    assert executor.on_start()
    for n in range(100):
        clock.set(clock.now_ns + 20_000_000)
        show()
        if n > 50 and n % 20 == 0:
            stamps = {name: clock.now_ns - 100 for name in ("recv_ns", "book_ns", "row_ns", "dispatched_ns", "start_ns",
                                                            "end_ns")}
            inbox.send(encode([explained.prediction(n, 0.9 if n % 40 else 0.1, epoch=books.tag, event_ns=0, **stamps)]))
        executor.do_work()
    killswitch.reduce(config.state_dir, "home", flatten=True)  # and no prediction comes
    for _ in range(20):
        clock.set(clock.now_ns + 20_000_000)
        show()
        executor.do_work()
    executor.on_close()
    reader = Reader(located(config))
    orders = reader.orders()
    reader.close()
    assert len(orders) == 3
    for order in orders:
        found = run(file, order["client_id"], "--json")
        tree = json.loads(found.stdout)
        assert tree["not_recorded"] == [] and tree["verdict"]["same"], tree["verdict"]
        assert {told["verdict"] for told in tree["checks"]} == {"passes", "off"} and found.exit_code == 0
        assert tree["prediction"]["by"] == ("clock" if order is orders[0] else "model")
    assert tree["row"] is None
    tree = json.loads(run(file, "last", "--json").stdout)
    assert tree["prediction"]["p_up"] is tree["prediction"]["model"] is None and tree["prediction"]["seq"] > 100
    assert [step["stage"] for step in tree["waterfall"]][:2] == ["decide", "journal"]
    assert [step["step"] for step in tree["size"]] == ["exit", "cut"] and "EXIT_FLATTEN" in tree["size"][0]["how"]
    picture, capture = tmp_path / "why.svg", tmp_path / "any.gz"
    capture.write_bytes(b"")
    found = run(file, "last", "--out", str(picture), "--replay", str(capture))
    assert found.exit_code == 0, found.output
    assert "the executor's clock asked, not a model" in found.stdout and "SHA-256" not in found.stdout
    assert "there is no probability to make again" in found.stdout and "time since the clock asked" in found.stdout
    assert "the clock, not a model" in picture.read_text()


def test_an_order_that_does_not_follow_is_exit_code_1(file, written):
    config = written
    journal = Journal.open(located(config))
    order, context = explained.decided(config, 5, name=journal.configured(orjson.dumps(plain(config)).decode(), 1))
    journal.intent(order._replace(qty=order.qty + 10_000), context, 9)
    journal.close()
    found = run(file, "last")
    assert found.exit_code == 1 and "it is NOT the order" in found.stdout


def test_an_order_without_a_context_is_told_as_far_as_it_goes(file, written):
    journal = Journal.open(located(written))
    journal.intent(Order("rest-0-1", "BTC-USD", BUY, SCALE, 100 * SCALE, 1, 1), "{}", 9)
    journal.close()
    found = run(file, "rest")
    assert found.exit_code == 0 and "not recorded: prediction, market, config, before" in found.stdout


def test_a_configuration_of_another_version_is_no_hindrance(file, written):
    journal = Journal.open(located(written))
    order, context = explained.decided(written, 5, name=journal.configured('{"decision": {"luck": 1}}', 1))
    journal.intent(order, context, 9)
    journal.close()
    found = run(file, "last")
    assert found.exit_code == 0 and "luck" in found.stderr and "not recorded: config" in found.stdout


def test_the_rings_add_book_and_row_while_they_hold_them(file, written, instance):
    books = Books.create(instance, written.symbols, 1024)
    rows = Rows.create(instance, written.symbols, ("obi", "spread"), 1024, TABLE_HASH, books.epoch)
    try:
        journal = Journal.open(located(written))
        order, context = explained.decided(written, 5)
        journal.intent(order._replace(epoch=books.tag), context, 9)
        journal.close()
        tick = books.ticks[0][5]
        tick[layout.BID_PX:layout.BID_PX + 2], tick[layout.BID_QTY:layout.BID_QTY + 2] = (9 * SCALE, 8 * SCALE), SCALE
        tick[layout.ASK_PX], tick[layout.ASK_QTY] = 10 * SCALE, 2 * SCALE
        tick[layout.SEQ] = books.heads[0] = 5
        rows.values[0][5], rows.values[0][5 + 1024] = (0.25, 2.0), (0.25, 2.0)
        rows.meta[0][5][layout.ROW_SEQ] = rows.heads[0] = 5
        tree = json.loads(run(file, "last", "--json").stdout)
        assert tree["book"] == {"bids": [["9", "1"], ["8", "1"]], "asks": [["10", "2"]]}
        assert tree["row"] == {"source": "the rows ring", "values": {"obi": 0.25, "spread": 2.0}}
        rows.meta[0][5][layout.ROW_SEQ] = 5 + 1024
        assert json.loads(run(file, "last", "--json").stdout)["row"] is None
    finally:
        books.close()
        rows.close()


def test_a_replay_compares_bits(file, recordings, tmp_path):
    from common import captures
    from common.backtest.chunks import Chunks
    from common.backtest.frames import Tape
    from procs.replay import configure

    path = str(recordings / "binance" / "usdm_btcusdt_20240718.gz")
    config = configure(load(file), (path,))
    chunks, tape, made = Chunks(config), Tape(captures.runs([path])), []
    while len(made) < 200 and chunks.play(tape):
        for line in chunks.moved:
            chunks.seen.follow(line.heads)
            made += line.predictions
    standing, journal = before(Standing(7), Account(Rate(1.0))), Journal.open(located(config))
    elsewhere = made[150]._replace(venue_id=made[150].venue_id + 1)
    for n, found in enumerate((made[150], made[150]._replace(p_up=math.nextafter(made[150].p_up, 2)), elsewhere)):
        context = explain_context.encode(found, explained.market(), standing, 0, 1, 2, 3, "")
        journal.intent(Order(f"order-{n}", "BTCUSDT", BUY, SCALE, SCALE, 7, found.seq), context, n)
    journal.close()
    same = run(file, "order-0", "--replay", path)
    assert same.exit_code == 0, same.output
    assert same.stdout.count("the same bits") == 3 and "from the recording" in same.stdout
    assert "model logistic" in same.stdout or "SHA-256" in same.stdout
    tree = json.loads(run(file, "order-1", "--replay", path, "--json").stdout)
    assert [told["same"] for told in tree["replay"]["compared"]] == [False, True, True]
    assert run(file, "order-1", "--replay", path).exit_code == 1
    other = run(file, "order-2", "--replay", path)  # of another hour: nothing differs, there is nothing to compare
    assert other.exit_code == 4 and "none of the" in other.stdout


@pytest.mark.parametrize("asked", ["last", "00000007-0-1"])
def test_a_damaged_journal_is_told_in_a_line(file, written, asked):
    path = located(load(file))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    found = run(file, asked)
    assert found.exit_code == 5 and "the journal is damaged" in found.stderr and isinstance(found.exception, SystemExit)


def test_exit_codes(file, written, recordings, tmp_path):
    path = str(recordings / "binance" / "usdm_btcusdt_20240718.gz")
    assert run(file, "nobody").exit_code == run(file, "0000").exit_code == 2
    assert run(file, "last", path).exit_code == run(file, "last", "--replay").exit_code == 2
    assert run(file, "last", "--out", "why.txt").exit_code == 2
    assert run(file, "last", "--replay", path).exit_code == 2, "the model is not known"
    assert run(file, "last", "--replay", path, "--model", f"{ROOT}/models/default.onnx").exit_code == 2, "BTC-USD"
    located(written).write_bytes(b"")
    assert run(file, "last").exit_code == 5
