"""The row and the probability behind an order made again from a recording, and compared bit by bit.

The frames go through the same book, features and model as live (common.backtest.chunks). The tick is found by what the
venue said of it, which is the same live and in a recording: its id, kind and time, and the best prices behind it.
Features depend on the frames alone once a symbol has been valid for as long as the longest window, so a recording that
begins late enough before the order gives other bits only by being another.

Cost: that of a backtest without decisions, some 100,000 frames a second.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from common import captures
from common.backtest.chunks import Chunks
from common.backtest.frames import Tape
from common.config import Config
from common.errors import ModelError
from common.explain.order import levels
from common.layout import ASK_PX, BID_PX, EVENT_NS, KIND, ROW_RUN, ROW_VOL, VENUE_ID
from common.wire import Prediction

_NOBODY = ("",)  # no symbol: what is predicted here is one row


def replay(config: Config, paths: Sequence[str], symbol: str, prediction: Prediction) -> dict[str, Any]:
    """`config` as of the recording, with the model that predicted; `symbol` by its name in the recording.

    Returns `found`, False with the reason `why` where there is no such tick, or its window is not whole; else the
    sequence `seq` of the tick in the replay, `values` by column, `book` as levels (price, quantity, 1e-8) and
    `compared`, for both probabilities and the volatility. `same`: whether all their bits are, None where nothing was
    found. Raises ModelError where the model is another than the one that predicted, VenueError for a capture that
    cannot be read."""
    chunks = Chunks(config, _NOBODY)
    if chunks.model.id != prediction.model:
        raise ModelError("the model is not the one that predicted",
                         where=f"{chunks.model.path}: id {chunks.model.id:016x}, predicted by {prediction.model:016x}",
                         remedy="name it with --model")
    place, tape, frames, last = chunks.books.symbols.index(symbol), Tape(captures.runs(list(paths))), 0, 0
    told = {"found": False, "same": None, "captures": list(paths)}
    cold = 0
    while count := chunks.play(tape):
        frames += count
        for line in chunks.moved:
            chunks.seen.follow(line.heads)
        head = int(chunks.books.heads[place])
        for seq in _matches(chunks, place, last + 1, head, prediction):
            if chunks.rows.meta[place][seq & (chunks.rows.capacity - 1)][ROW_RUN] >= chunks.model.window:
                return {**told, "found": True, "seq": seq, "frames": frames, **_told(chunks, place, seq, prediction)}
            cold = seq
        last = head
    why = (f"tick {cold} is there, but not the {chunks.model.window} warm rows that the model looks at: the captures "
           "begin too late" if cold else
           f"none of the {last:,} ticks of {symbol} has venue id {prediction.venue_id}, the kind, time and prices of "
           "the one that was predicted")
    return {**told, "frames": frames, "why": why}


def _matches(chunks: Chunks, place: int, first: int, last: int, wanted: Prediction) -> list[int]:
    """Sequences from `first` to `last` of ticks that are the one that was predicted on."""
    seqs = np.arange(first, last + 1)
    ticks = chunks.books.ticks[place][seqs & (chunks.books.capacity - 1)]
    same = np.ones(len(seqs), bool)
    for column, value in ((VENUE_ID, wanted.venue_id), (KIND, wanted.kind), (EVENT_NS, wanted.event_ns),
                          (BID_PX, wanted.bid), (ASK_PX, wanted.ask)):
        same &= ticks[:, column] == value
    return seqs[same].tolist()


def _told(chunks: Chunks, place: int, seq: int, wanted: Prediction) -> dict[str, Any]:
    features, mask = chunks.model.features, chunks.rows.capacity - 1
    window = chunks.rows.window(place, seq, chunks.model.window)[:, features.places(chunks.rows.columns)]
    p_up, p_down = chunks.model.predict(window)
    vol = int(chunks.rows.meta[place][seq & mask][ROW_VOL]) * 1e-9
    compared = [{"name": name, "journal": repr(float(theirs)), "replay": repr(float(ours)),
                 "same": _bits(theirs) == _bits(ours)}
                for name, theirs, ours in (("p_up", wanted.p_up, p_up), ("p_down", wanted.p_down, p_down),
                                           ("vol", wanted.vol, vol))]
    tick = chunks.books.ticks[place][seq & (chunks.books.capacity - 1)]
    return {"values": dict(zip(features.labels, window[-1].tolist())), "book": levels(tick), "compared": compared,
            "same": all(told["same"] for told in compared)}


def _bits(value: float) -> bytes:
    return struct.pack("<d", value)
