"""The VecTrade protocol has no recording: it is spoken by the loopback exchange alone."""

from pathlib import Path

from tests import frames as vectrade
from tests.common.venues.samples import Sample


def spoken(folder: Path) -> Sample:
    return Sample(("OTHER", "BTC-USD"), [
        vectrade.snapshot("BTC-USD", 1, bids=[("61000.10", "0.5")], asks=[]), vectrade.delta("BTC-USD", 2),
        vectrade.delta("BTC-USD", 3, bids=[("61000.10", 0), ("60999", "1.25")], asks=[("61000.20", 2)]),
        vectrade.trade("BTC-USD", 7, "61000.20", "0.1"), vectrade.trade("BTC-USD", 8, "60999", "0.2", "SELL"),
        vectrade.ticker("BTC-USD", 3, "60999", "1.25", "61000.20", "2"),
        vectrade.ticker("BTC-USD", 4, 0, 0, "61000.20", "2"), vectrade.delta("BTC-USD", 4, bids=[("60999", 0)])])


SAMPLES = {"vectrade": spoken}
