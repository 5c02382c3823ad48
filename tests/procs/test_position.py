"""`alpha position`: exact, with a price where there is one and a dash where there is none."""

import json
import sqlite3
import time

import pytest
from click.testing import CliRunner

from common import layout
from common.config import load
from common.fixed import SCALE
from common.journal import Journal, located
from common.positions import Position
from common.ring import Books
from procs.position import position, report
from tests import explained


@pytest.fixture
def file(tmp_path, instance):
    path = tmp_path / "alpha.toml"
    path.write_text(f'[instance]\nname = "{instance}"\nrun_dir = "{tmp_path}/run"\n')
    config = load(path)
    journal = Journal.open(located(config))
    explained.write(journal, config, 1)
    explained.write(journal, config, 2, 0.1, "AAPL")
    explained.write(journal, config, 3, 0.9, "AAPL")
    journal.close()
    return path


def run(file, *arguments: str):
    return CliRunner().invoke(position, [*arguments, "--config", str(file)])


def test_what_is_held_without_a_price(file):
    told = json.loads(run(file, "--json").stdout)
    assert told["symbols"]["BTC-USD"] == {
        "qty": "39.996", "average_cost": "100.01", "cost": "3999.99996", "mark": None, "realised": "0",
        "unrealised": None, "fees": "0.00000006"}
    assert told["unrealised"] is None is told["profit"]
    text = run(file).stdout
    assert "39.996" in text and "profit -" in text


def test_a_valid_book_gives_a_price_and_an_invalid_one_none(file, instance):
    books = Books.create(instance, ("BTC-USD", "AAPL"), 1024)
    try:
        for symbol, flags in ((0, 1), (1, 0)):
            tick = books.ticks[symbol][1]
            tick[layout.FLAGS], tick[layout.BID_PX], tick[layout.ASK_PX] = flags, 101 * SCALE, 103 * SCALE
            tick[layout.RECV_NS] = time.monotonic_ns()
            tick[layout.SEQ] = books.heads[symbol] = 1
        told = json.loads(run(file, "--json", "--symbol", "BTC-USD").stdout)
        assert told["symbols"]["BTC-USD"]["mark"] == "102"
        assert told["symbols"]["BTC-USD"]["unrealised"] == told["unrealised"] == "79.59204"
        assert told["profit"] == "79.59203994"
        every = json.loads(run(file, "--json", "--all").stdout)
        assert every["symbols"]["AAPL"]["mark"] is None
        books.ticks[0][1][layout.RECV_NS] -= 61 * 10**9
        assert json.loads(run(file, "--json").stdout)["symbols"]["BTC-USD"]["mark"] is None, "of an ingest that died"
    finally:
        books.close()


def test_a_symbol_that_is_not_held_any_more_counts_in_the_sums_alone():
    held = {"A": Position(0, 0, 7 * SCALE * SCALE, SCALE), "B": Position(SCALE, SCALE * SCALE)}
    told = report(held, {"B": 3 * SCALE}, every=False)
    assert list(told["symbols"]) == ["B"] and (told["realised"], told["profit"]) == ("7", "8")


def test_a_changed_fill_is_not_printed(file):
    with sqlite3.connect(located(load(file))) as db:
        db.execute("UPDATE fills SET qty = qty + 1 WHERE id = 1")
    found = run(file)
    assert found.exit_code == 5 and "damaged" in found.stderr and not found.stdout


def test_positions_that_are_gone_need_no_price():
    told = report({"A": Position(0, 0, 7 * SCALE * SCALE, SCALE)}, {})
    assert told["symbols"]["A"]["unrealised"] == "0" and told["profit"] == "6" and told["realised"] == "7"


def test_nothing_held_and_no_journal(file):
    assert run(file, "--symbol", "XAU-USD").stdout == (
        "nothing is held\nprofit 0: realised 0, unrealised 0, fees 0\n")
    unknown = run(file, "--symbol", "NOPE")
    assert unknown.exit_code == 2 and "there is no such symbol" in unknown.stderr
    located(load(file)).unlink()
    assert run(file).exit_code == 5
