"""A dataset with something to find in it: what the tests of training learn from."""

import numpy as np

from common.dataset import Dataset
from common.features.choice import DEFAULT, FeatureSet
from common.folds import edges
from common.labels import THREE, TWO, Horizon, classify

S = 10**9
START_NS = 1_700_000_000 * S
EVERY_NS, HORIZON_NS = S // 10, 5 * S


def planted(rows: int = 1500, classes: int = 2, strength: float = 1.0, features: FeatureSet = DEFAULT, folds: int = 3,
            seed: int = 0, column: int = 0, steady: int = 0) -> Dataset:
    """Two symbols of `rows` rows each, one every 100 ms, labels 5 s ahead. The move is `strength` times the column, of
    which the others know nothing, and noise: the best possible model is known. With `steady`, for windows, all columns
    tell the same for so many rows."""
    random = np.random.default_rng(seed)
    m = 2 * rows
    values = random.standard_normal((m, len(features))).astype(np.float32)
    if steady:
        values = 0.2 * values + np.repeat(random.standard_normal(m // steady + 1), steady)[:m, None].astype(np.float32)
    time_ns = START_NS + np.tile(np.arange(rows), 2) * EVERY_NS
    bid = (100 + random.integers(-50, 50, m)) * 10**8
    sample = np.flatnonzero(np.tile(np.arange(rows), 2) >= 30)
    move = strength * values[sample, column] + random.standard_normal(len(sample))
    until = time_ns[sample] + HORIZON_NS
    move[until > time_ns[-1]] = np.nan
    labels = classify(move, np.full(len(move), 0.0 if classes == 2 else 0.5), classes)
    borders = edges(int(time_ns[sample].min()), int(time_ns.max()), folds)
    return Dataset(
        features, ("BTC-USD", "AAPL"), values, np.repeat([0, 1], rows).astype(np.int32), np.tile(np.arange(rows), 2),
        np.arange(m), time_ns, time_ns, np.tile(np.arange(rows) + 1, 2), bid, bid + 10**6, sample,
        (Horizon("s", 5.0),), move[:, None], until[:, None], labels[:, None], TWO if classes == 2 else THREE,
        {"folds": {"borders_ns": borders, "embargo_ns": HORIZON_NS}})
