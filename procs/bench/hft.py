"""hftbacktest on the same recordings, for comparison: `PYTHON procs/bench/hft.py FILE...` with any interpreter that has
it; prints JSON. It is no dependency of ours, and nothing here imports anything of ours.

Each FILE is a foreign recording of Binance usd-m futures, files of one symbol in their order. Measured are its own
conversion of the raw file to its format, and the replay of that in its compiled engine by a strategy that looks at
every event of the feed and does nothing: no features, no model, no decisions.
"""

import json
import os
import sys
import tempfile
import time

import numpy as np
from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest
from hftbacktest.data.utils import binancefutures
from numba import njit

_ROWS = 20_000_000  # of its buffer, in place of the 100 million that it takes by default


@njit
def step(hbt):
    """To the end of the data, one event of the feed at a time; returns how many there were."""
    count = 0
    while hbt.wait_next_feed(False, 10**15) == 2:
        count += 1
    return count


def replay(files: list[str]) -> int:
    asset = (BacktestAsset().data(files).linear_asset(1.0).constant_order_latency(1_300_000, 0)
             .risk_adverse_queue_model().no_partial_fill_exchange().trading_value_fee_model(0.0001, 0.0001)
             .tick_size(0.01).lot_size(0.0001))
    hbt = HashMapMarketDepthBacktest([asset])
    count = step(hbt)
    hbt.close()
    return count


def main(paths: list[str]) -> None:
    converting = replaying = events = feeds = 0
    streams: dict[str, list[str]] = {}
    for path in paths:
        streams.setdefault(os.path.basename(path).rpartition("_")[0], []).append(path)
    with tempfile.TemporaryDirectory() as folder:
        for name, files in streams.items():
            converted = []
            for i, path in enumerate(files):
                out = os.path.join(folder, f"{name}{i}.npz")
                began = time.perf_counter()
                data = binancefutures.convert(path, buffer_size=_ROWS)
                np.savez(out, data=data)
                converting += time.perf_counter() - began
                events += len(data)
                converted.append(out)
            replay(converted[:1])  # compiled now
            began = time.perf_counter()
            feeds += replay(converted)
            replaying += time.perf_counter() - began
    from importlib.metadata import version

    print(json.dumps({"version": version("hftbacktest"), "events": events, "feeds": feeds,
                      "convert_s": converting, "replay_s": replaying}))


if __name__ == "__main__":
    main(sys.argv[1:])
