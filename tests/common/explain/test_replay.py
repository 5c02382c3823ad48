"""Row and probability made again from a recording: the same bits, or what differs."""

import dataclasses
import math
from pathlib import Path

import pytest

from common import captures
from common.backtest.chunks import Chunks
from common.backtest.frames import Tape
from common.config import Config
from common.errors import ModelError
from common.explain.replay import replay
from procs.replay import configure

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def path(recordings) -> str:
    return str(recordings / "binance" / "usdm_btcusdt_20240718.gz")


@pytest.fixture(scope="module")
def config(path) -> Config:
    return configure(Config(base=str(ROOT)), (path,))


@pytest.fixture(scope="module")
def made(path, config):
    """The 700th prediction of the recording, the row behind it, and the best prices then."""
    chunks, tape, count = Chunks(config), Tape(captures.runs([path])), 0
    while chunks.play(tape):
        for line in chunks.moved:
            chunks.seen.follow(line.heads)
            for prediction in line.predictions:
                count += 1
                if count == 700:
                    row = chunks.rows.window(0, prediction.seq, 1)[0].tolist()
                    return prediction, row
    raise AssertionError("the recording is too short")


def test_the_recording_gives_the_same_bits(path, config, made):
    prediction, row = made
    # Live, sequences and stamps of this machine are others.
    found = replay(config, [path], "BTCUSDT", prediction._replace(seq=5, recv_ns=1, book_ns=2, epoch=9))
    assert found["found"] and found["same"] and found["seq"] == prediction.seq
    assert list(found["values"].values()) == row and len(found["values"]) == 24
    assert [told["name"] for told in found["compared"]] == ["p_up", "p_down", "vol"]
    assert found["book"]["bids"][0][0] == prediction.bid and found["book"]["asks"][0][0] == prediction.ask


def test_one_bit_of_difference_is_told(path, config, made):
    prediction = made[0]
    found = replay(config, [path], "BTCUSDT", prediction._replace(p_up=math.nextafter(prediction.p_up, 2)))
    assert found["found"] and not found["same"]
    assert [told["same"] for told in found["compared"]] == [False, True, True]
    assert found["compared"][0]["journal"] != found["compared"][0]["replay"]


def test_a_tick_that_is_not_there_is_said_to_be_so(path, config, made):
    found = replay(config, [path], "BTCUSDT", made[0]._replace(bid=made[0].bid + 1))
    assert not found["found"] and f"venue id {made[0].venue_id}" in found["why"] and found["frames"] > 10_000


def test_a_tick_whose_window_is_not_whole_is_said_to_be_so(path, config):
    cold = Chunks(config)
    cold.play(Tape(captures.runs([path])), 50)
    tick = cold.books.ticks[0][1]
    from common.layout import ASK_PX, BID_PX, EVENT_NS, KIND, VENUE_ID
    from tests import explained

    prediction = explained.prediction(venue_id=int(tick[VENUE_ID]), kind=int(tick[KIND]), event_ns=int(tick[EVENT_NS]),
                                      bid=int(tick[BID_PX]), ask=int(tick[ASK_PX]), model=cold.model.id)
    found = replay(config, [path], "BTCUSDT", prediction)
    assert not found["found"] and "begin too late" in found["why"]


def test_another_model_is_refused(path, config, made):
    with pytest.raises(ModelError, match="not the one that predicted"):
        replay(dataclasses.replace(config), [path], "BTCUSDT", made[0]._replace(model=1))
