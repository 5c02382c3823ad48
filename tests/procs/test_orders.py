"""`alpha orders`: what is asked for, in text and JSON, and exit codes that hold."""

import json
import sqlite3

import pytest
from click.testing import CliRunner

from common.config import Config, load, tell
from common.journal import Journal, located
from common.orders import TRANSITIONS, State
from procs.orders import in_force, orders
from tests import explained


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "alpha.toml"
    path.write_text(f'[instance]\nname = "t-orders"\nrun_dir = "{tmp_path}/run"\n')
    return path


@pytest.fixture
def written(file):
    config = load(file)
    journal = Journal.open(located(config))
    explained.write(journal, config, 1)
    explained.write(journal, config, 2, 0.2, filled=0.5)
    explained.write(journal, config, 3, 0.9, "AAPL", end=State.SENT)
    journal.close()
    return config


def run(file, *arguments: str):
    return CliRunner().invoke(orders, [*arguments, "--config", str(file)])


def test_open_orders_unless_told_otherwise(file, written):
    found = json.loads(run(file, "--json").stdout)
    assert [(row["symbol"], row["state"], row["qty"]) for row in found] == [("AAPL", "sent", "39.996")]
    assert "context" not in found[0] and "crc" not in found[0]
    text = run(file)
    assert text.exit_code == 0 and "00000007-2-3" in text.stdout and len(text.stdout.splitlines()) == 1


@pytest.mark.parametrize("wanted, seqs", [
    (["--all"], [3, 2, 1]), (["--all", "--symbol", "BTC-USD"], [2, 1]), (["--all", "--limit", "1"], [3]),
    (["--state", "filled", "--state", "cancelled"], [2, 1]), (["--all", "--since", "2024-07-18T10:53:22"], [3, 2]),
    (["--all", "--since", "2024-07-19"], []),
])
def test_orders_by_state_symbol_and_time(file, written, wanted, seqs):
    assert [row["seq"] for row in json.loads(run(file, "--json", *wanted).stdout)] == seqs
    assert run(file, *wanted).stdout.startswith("none") == (not seqs)


def test_the_life_cycle_is_the_table_of_the_code_and_needs_no_journal(file):
    text = run(file, "--states").stdout
    assert "partly filled  -> partly filled, filled, cancelling, cancelled, expired, unknown" in text
    assert "stateDiagram-v2" in text and "filled         -> the end" in text
    told = json.loads(run(file, "--states", "--json").stdout)
    assert {state: set(after) for state, after in told["transitions"].items()} == {
        state.value: {after.value for after in TRANSITIONS[state]} for state in State}


def test_the_whole_journal_is_examined(file, written):
    assert json.loads(run(file, "--verify", "--json").stdout) == {
        "orders": 3, "events": 10, "fills": 4, "days": 0, "unsummed": 0}
    assert run(file, "--verify").stdout.startswith("sound: 3 orders")
    path = located(written)
    data = bytearray(path.read_bytes())
    data[data.index(b"nothing more at this price")] ^= 1
    path.write_bytes(data)
    found = run(file, "--verify")
    assert found.exit_code == 5 and "damaged" in found.stderr and "00000007-0-2" in found.stderr


@pytest.mark.parametrize("since", ["2999-01-01", "1600-01-01", "9999-12-31T23:59:59", "0001-01-01"])
def test_a_time_beyond_what_a_journal_holds_is_a_wrong_option(file, written, since):
    found = run(file, "--all", "--since", since)
    assert found.exit_code == 2 and "no journal can hold" in found.stderr and f"--since={since}" in found.stderr


def test_a_changed_number_is_not_printed(file, written):
    with sqlite3.connect(located(written)) as db:
        db.execute("UPDATE orders SET qty = qty + 1 WHERE client_id LIKE '%-2'")
    found = run(file, "--all")
    assert found.exit_code == 5 and "damaged" in found.stderr and "00000007-0-2" in found.stderr and not found.stdout
    assert run(file, "--all", "--since", "2024-07-18T10:53:23").exit_code == 0, "that it was not asked for"


def test_a_symbol_that_nobody_knows_is_a_wrong_option(file, written):
    found = run(file, "--symbol", "NOPE")
    assert found.exit_code == 2 and "there is no such symbol" in found.stderr and "BTC-USD" in found.stderr
    assert run(file, "--symbol", "XAU-USD").stdout == "none\n"


def test_exit_codes(file, written):
    assert run(file, "--verify", "--states").exit_code == 2
    assert run(file, "--since", "yesterday").exit_code == 2
    assert run(file, "--state", "lost").exit_code == 2
    located(written).unlink()
    missing = run(file)
    assert missing.exit_code == 5 and "there is no journal" in missing.stderr


def test_the_executor_says_which_journal_it_writes(file, tmp_path, monkeypatch):
    import dataclasses

    config = load(file)
    paper = dataclasses.replace(config, executor=dataclasses.replace(config.executor, gateway="paper"))
    config.run_dir.mkdir()
    tell(paper, "executor")
    assert located(in_force(str(file))).name == "paper.db"
    tell(dataclasses.replace(paper, base=str(tmp_path / "elsewhere")), "executor")
    assert located(in_force(str(file))).name == "journal.db", "one of another state folder has no say"
    assert located(Config()).name == "journal.db"
