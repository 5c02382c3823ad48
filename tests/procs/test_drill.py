"""The drill, in short: a fault that must be healed, one that must be harmless, and a judge who can say no."""

import json
import subprocess
import sys
from pathlib import Path

from common import faults
from common.layout import KIND, KIND_BOOK, KIND_STATE, SEQ, VENUE_ID
from common.ring import Books
from procs.drill import DRILL, DRILL_HTTP, HARMLESS, SIGNS, Result, Spell, Watch, _judge
from procs.ingest import COUNTERS

ROOT = Path(__file__).resolve().parents[2]


def tick(books: Books, symbol: int, kind: int, venue_id: int, book_ns: int) -> None:
    seq = int(books.heads[symbol]) + 1
    record = books.ticks[symbol][seq & (books.capacity - 1)]
    record[[SEQ, KIND, VENUE_ID, 6]] = seq, kind, venue_id, book_ns
    books.heads[symbol] = seq


def test_the_judge_sees_when_a_book_was_invalid_and_what_was_missed():
    books = Books.private(("A", "B"), 16)
    watch = Watch(books)
    for kind, venue_id, at in ((KIND_BOOK, 5, 10), (KIND_STATE, 5, 20), (KIND_BOOK, 9, 50), (KIND_BOOK, 10, 60)):
        tick(books, 0, kind, venue_id, at)
    tick(books, 1, KIND_STATE, 1, 30)
    watch.look()
    assert watch.spells == [Spell(0, 20, 50, 3), Spell(1, 30)] and watch.lapped == 0


def test_the_judge_can_say_no():
    watch = Watch(Books.private(("A",), 16))

    def verdict(fault: str, **found) -> list[str]:
        usual = {"applied": 3, "decisions": 9, "spells": 2, "healed": 2, "seen_as": {"gaps": 2}}
        result = Result(fault, **{**usual, **found})
        _judge(result, faults.parse(fault), watch)
        return result.problems

    assert verdict("drop") == []
    assert verdict("drop", seen_as={}) == ["was not seen"] and verdict("drop", applied=0) == ["was never applied"]
    assert verdict("drop", healed=1) == ["1 books not valid again"] and verdict("drop", decisions=0) == ["no decisions"]
    assert verdict("drop", others_disturbed=1) == ["disturbed other symbols"]
    assert verdict("drop", orders_on_invalid=1) == ["orders on an invalid book"]
    assert verdict("split") == ["made a book invalid"] and verdict("split", spells=0, healed=0) == []


def test_a_drill_knows_only_faults_that_exist_and_counters_that_ingest_keeps():
    drilled = {faults.parse(text).name for text in (*DRILL, *DRILL_HTTP)}
    assert drilled == set(faults.FAULTS) - set(faults.OF_ORDERS) >= set(HARMLESS)
    assert set(SIGNS) <= set(COUNTERS)


def test_a_short_drill_over_real_processes_finds_everything_healed():
    ended = subprocess.run(
        [sys.executable, "-m", "procs.cli", "drill", "--seconds", "4", "--json", "--fault",
         "drop:every=40,symbol=TARGET", "--fault", "checksum:every=60,symbol=TARGET", "--fault", "split:every=20"],
        cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    dropped, wrong, split = json.loads(ended.stdout)
    assert dropped["seen_as"]["gaps"] == dropped["spells"] == dropped["healed"] > 0 and dropped["ticks_lost"] > 0
    assert wrong["seen_as"]["quote_mismatches"] > 0 and wrong["healed"] == wrong["spells"]
    assert split["applied"] > 0 and split["spells"] == 0 and split["seen_as"] == {}
    for one in (dropped, wrong, split):
        assert one["orders_on_invalid"] == one["others_disturbed"] == 0 and one["ok"]
