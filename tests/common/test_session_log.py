"""The files of a session: what was written is read, at any moment and after any end; and a ring is followed whole."""

import dataclasses
import json
import os
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import decision, layout
from common.config import Config, Instrument, Market
from common.errors import ConfigError, ResourceError
from common.features.choice import DEFAULT
from common.ring import Books, Rows
from common.session_log import (
    FILE,
    KINDS,
    META_COLUMNS,
    MISSED,
    TICK_COLUMNS,
    Capture,
    Known,
    Session,
    SessionLog,
    find,
    follow,
    layouts,
)
from common.wire import Prediction, form

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Config(feeds={"other": Market(venue="kraken", symbols=("BTC/USD",), ws_url="wss://me:secret@x/ws?token=secret")},
                instruments={"A": Instrument(lot="0.001")}, market=Market(symbols=("A", "B")))


def log(folder: Path, **more) -> SessionLog:
    return SessionLog(folder / "s", **{"config": CONFIG, "stream": 5 << 32 | 9, "symbols": ("A", "other:BTC/USD"),
                                       "features": DEFAULT, **more})


def ticks(first: int, count: int) -> np.ndarray:
    found = np.arange(count * layout.TICK_WIDTH).reshape(count, layout.TICK_WIDTH)
    found[:, layout.SEQ] = np.arange(first, first + count)
    return found


def prediction(seq: int) -> Prediction:
    return Prediction(1, 2, 9, seq, 4, 1, 6, 2**64 - 1, 0.1 + 0.2, 0.7, 1e-300, 8, 9, 10, 11, 12, 13, 14, 15)


def test_what_was_written_is_read(tmp_path):
    written = log(tmp_path)
    values = np.random.default_rng(0).standard_normal((3, len(DEFAULT)), np.float32)
    written.write_ticks(1, ticks(7, 4))
    written.write_rows(1, ticks(7, 3)[:, :layout.META_WIDTH], values)
    written.write_predictions([prediction(7), prediction(8)])
    written.write_decisions(bytes(range(256)) + bytes(2 * decision.SIZE - 256))
    written.missed("rows", 1, 1, 10, 10)
    written.missed("predictions", 5)
    written.model(Known(2**64 - 1, "/m.onnx", "ab", "m"))
    written.captured(Capture("venue-1", 0, 123))
    written.close()
    read = Session(tmp_path / "s")
    assert (read.symbols, read.columns, read.tag) == (("A", "other:BTC/USD"), DEFAULT.labels, 9)
    assert (read.records("ticks")["tick"] == ticks(7, 4)).all() and set(read.records("ticks")["symbol"]) == {1}
    assert read.records("rows")["values"].tobytes() == values.tobytes()
    assert [Prediction._make(one) for one in read.records("predictions").tolist()] == [prediction(7), prediction(8)]
    assert read.records("decisions").tobytes()[:256] == bytes(range(256))
    assert read.records(MISSED).tolist() == [(1, 1, 10, 10, 1), (2, -1, 0, 0, 5)]
    assert read.models == [Known(2**64 - 1, "/m.onnx", "ab", "m")] and read.captures == [Capture("venue-1", 0, 123)]
    assert read.features == DEFAULT and read.reasons == decision.REASONS
    assert written.counts == {"ticks": 4, "rows": 3, "predictions": 2, "decisions": 2, MISSED: 6}
    assert written.bytes == sum(path.stat().st_size for path in (tmp_path / "s").glob("*.bin"))


def test_the_configuration_is_kept_without_what_is_secret(tmp_path):
    log(tmp_path).close()
    text = (tmp_path / "s" / FILE).read_text()
    found = Session(tmp_path / "s").config
    assert "secret" not in text and found.feeds["other"].ws_url == "wss://x/ws?"
    plain = dataclasses.replace(CONFIG.feeds["other"], ws_url="wss://x/ws?")
    assert found == dataclasses.replace(CONFIG, feeds={"other": plain})


def test_folder_and_files_are_for_this_user_alone(tmp_path):
    log(tmp_path).close()
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "s").iterdir()} == {0o600}


def test_it_is_read_while_it_grows(tmp_path):
    written = log(tmp_path)
    read = Session(tmp_path / "s")
    assert len(read.records("ticks")) == 0
    for count in range(1, 4):
        written.write_ticks(0, ticks(count, 1))
        found = read.records("ticks")
        assert isinstance(found, np.memmap) and found["tick"][:, layout.SEQ].tolist() == [*range(1, count + 1)]
    written.close()


@settings(max_examples=20)
@given(cut=st.integers(0, 3 * layouts(24)["ticks"].itemsize))
def test_a_torn_tail_is_not_read(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("torn")
    written = log(folder)
    written.write_ticks(0, ticks(1, 3))
    written.close()
    path = folder / "s" / "ticks.bin"
    os.truncate(path, cut)
    found = Session(folder / "s").records("ticks")
    assert found["tick"].tobytes() == ticks(1, cut // 456).tobytes()


def test_a_killed_writer_leaves_what_it_had(tmp_path):
    script = ("import sys, time; from pathlib import Path; import numpy as np; "
              "from tests.common.test_session_log import log, ticks\n"
              "written = log(Path(sys.argv[1]))\n"
              "for first in range(1, 10**9):\n    written.write_ticks(0, ticks(first, 1)); print(first, flush=True)")
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        told = 0
        while told < 1000:
            told = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.communicate()
    seqs = Session(tmp_path / "s").records("ticks")["tick"][:, layout.SEQ]
    assert len(seqs) >= told and (seqs == np.arange(1, len(seqs) + 1)).all()


def test_a_full_disk_is_a_resource_error_and_nothing_before_it_is_lost(tmp_path):
    written = log(tmp_path)
    written.write_ticks(0, ticks(1, 10))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (15 * 456 + 100, limits[1]))
        with pytest.raises(ResourceError, match="ticks.bin"):
            written.write_ticks(0, ticks(11, 10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Session(tmp_path / "s").records("ticks")["tick"][:, layout.SEQ].tolist() == [*range(1, 16)]
    written.close()


def test_a_folder_that_exists_is_not_written_over(tmp_path):
    log(tmp_path).close()
    with pytest.raises(ResourceError, match="File exists"):
        log(tmp_path)


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"symbols": 3}'])
def test_a_folder_that_is_no_session_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError):
        Session(tmp_path)


def test_a_configuration_of_another_version_is_refused(tmp_path):
    log(tmp_path).close()
    told = json.loads((tmp_path / "s" / FILE).read_text())
    told["config"]["risk"]["max_hope"] = 1.0
    (tmp_path / "s" / FILE).write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="max_hope"):
        Session(tmp_path / "s").config


def test_the_only_session_of_a_folder_is_found(tmp_path):
    log(tmp_path).close()
    assert find(tmp_path) == find(tmp_path / "s") == tmp_path / "s"
    log(tmp_path / "more").close()
    (tmp_path / "more" / "s").rename(tmp_path / "t")
    with pytest.raises(ConfigError, match="s, t"):
        find(tmp_path)
    assert find(tmp_path / "none") == tmp_path / "none"


def test_the_layouts_are_those_of_the_rings_and_the_links():
    found = layouts(24)
    assert found["predictions"].itemsize == struct.calcsize(form(Prediction))
    assert found["decisions"].itemsize == decision.SIZE and found["ticks"].itemsize == 8 + 8 * layout.TICK_WIDTH
    assert found["rows"].itemsize == 8 + 8 * layout.META_WIDTH + 4 * 24 and set(found) == {*KINDS, MISSED}
    assert TICK_COLUMNS[layout.ASK_QTY + 9] == "ask_qty_10" and META_COLUMNS[layout.ROW_VOL] == "vol"
    assert sorted(TICK_COLUMNS) == [*range(9), *range(16, 56)] and sorted(META_COLUMNS) == [*range(12)]


# ---- following a ring


def fill(ring: Books | Rows, symbol: int, upto: int) -> None:
    records = (ring.ticks if isinstance(ring, Books) else ring.meta)[symbol]
    for seq in range(int(ring.heads[symbol]) + 1, upto + 1):
        records[seq & (ring.capacity - 1)] = seq
        if isinstance(ring, Rows):
            ring.values[symbol][[seq & (ring.capacity - 1), (seq & (ring.capacity - 1)) + ring.capacity]] = seq
        ring.heads[symbol] = seq


@pytest.mark.parametrize("make", [lambda: Books.private(("A", "B"), 16), lambda: Rows.private(("A", "B"), "xyz", 16)])
@given(steps=st.lists(st.integers(0, 40), max_size=8))
def test_every_record_is_had_once_or_is_told_to_be_lost(make, steps):
    ring, last, had, lost, head = make(), 0, [], [], 0
    for step in steps:
        head += step
        fill(ring, 1, head)
        found = follow(ring, 1, last)
        assert (found is None) == (step == 0)
        if found is not None:
            last = found.last
            had += found.meta[:, 0].tolist()
            lost += [seq for first, end in found.lost for seq in range(first, end + 1)]
            assert found.values is None or (found.values[:, 0] == found.meta[:, 0]).all()
    assert sorted(had + lost) == [*range(1, head + 1)] and had == sorted(had)
    assert len(lost) == sum(max(0, step - 16) for step in steps)
    assert follow(ring, 0, 0) is None


def test_what_is_torn_or_was_never_there_is_lost(tmp_path):
    books = Books.private(("A",), 16)
    fill(books, 0, 10)
    books.ticks[0][3, layout.SEQ] = 0  # being written
    books.ticks[0][7, layout.SEQ] = 7 - 16  # left out, and left over from before
    found = follow(books, 0, 1)
    assert found.lost == [(3, 3), (7, 7)] and found.meta[:, 0].tolist() == [2, 4, 5, 6, 8, 9, 10] and found.last == 10


def test_who_begins_late_begins_with_what_will_last(tmp_path):
    books = Books.private(("A",), 16)
    fill(books, 0, 100)
    found = follow(books, 0, -1)
    assert found.lost == [] and found.meta[:, 0].tolist() == [*range(93, 101)]
    books = Books.private(("A",), 16)
    fill(books, 0, 3)
    assert follow(books, 0, -1).meta[:, 0].tolist() == [1, 2, 3]
