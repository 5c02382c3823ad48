"""Binance: the first frames of the recordings."""

import itertools
from pathlib import Path

from common import captures
from tests.common.venues.samples import Sample


def recorded(name: str, symbol: str):
    def read(folder: Path) -> Sample:
        lines = [frame for _, frame in itertools.islice(captures.lines(folder / "binance" / f"{name}.gz"), 400)]
        found = [frame for frame in lines if captures.is_snapshot(frame)]
        return Sample(("OTHER", symbol), [frame for frame in lines if frame not in found], found[0])

    return read


SAMPLES = {"binance-usdm": recorded("usdm_btcusdt_20240718", "BTCUSDT"),
           "binance-coinm": recorded("cm_btcusd_perp_20240808", "BTCUSD_PERP"),
           "binance-spot": recorded("spot_btcusdt_20240808", "BTCUSDT")}
