"""How good live probabilities are: kept up to date outcome by outcome, in O(1), in a few hundred bytes.

A model says p_up and p_down; the outcome is the move of the mid over the model's horizon. What is judged is

    p = p_up / (p_up + p_down)

the probability that the move, if there is one, goes up: for a model of two classes that is p_up, and one of three
classes is asked no more than what its orders live by. A mid that did not move decides nothing: it is counted apart.
Every figure is the one that `models.score` computes over the same rows at once; tests compare them.

Paired: two models that saw the same rows are compared by the difference of their squared errors on each. Rows within
one horizon share most of their outcome, so the standard error comes from blocks of time and not from rows: of a ratio
of sums over blocks (Cochran 1977, Sampling Techniques, ISBN 978-0-471-16240-7, section 6.4).
"""

import math
from typing import Any

BINS = 10  #: of equal width, as in models.score
RECENT = 1000  #: outcomes that the forgetful figures look back over, by exponential weights
MIN_BLOCKS = 20  #: before two models are told apart
_SPREAD = 2.09  #: standard errors of a 95 % interval with so many blocks (Student's t, 20 degrees of freedom)
_CLIP = 1e-9  #: of probabilities, for the logarithm


def probability(p_up: float, p_down: float) -> float:
    """The probability that a move goes up; 1/2 where the model excludes both."""
    total = p_up + p_down
    return p_up / total if total > 0 else 0.5


class Calibration:
    """The figures of one model. `add` costs about 2 us."""

    def __init__(self) -> None:
        self.known = 0  #: outcomes, the flat ones counted
        self.flat = 0  #: outcomes without a move
        self._ups = self._hits = 0
        self._brier = self._log_loss = 0.0
        self._bins = [[0.0, 0, 0] for _ in range(BINS)]  # sum of p, moves up, rows
        self._recent_weight = self._recent_brier = self._recent_ups = 0.0
        self._means, self._moments = [0.0, 0.0], [0.0, 0.0, 0.0]  # of lean and move: Welford's recurrence

    def add(self, p_up: float, p_down: float, move: float) -> float | None:
        """Take in one outcome, `move` in any unit; returns the squared error, None where nothing moved."""
        self.known += 1
        self._correlate(p_up - p_down, move)
        if not move:
            self.flat += 1
            return None
        p, up = probability(p_up, p_down), move > 0
        error = (p - up) ** 2
        clipped = min(max(p, _CLIP), 1 - _CLIP)
        self._ups += up
        self._hits += (p > 0.5) == up
        self._brier += error
        self._log_loss -= math.log(clipped if up else 1 - clipped)
        cell = self._bins[min(int(p * BINS), BINS - 1)]
        cell[0] += p
        cell[1] += up
        cell[2] += 1
        keep = 1 - 1 / RECENT
        self._recent_weight = self._recent_weight * keep + 1
        self._recent_brier = self._recent_brier * keep + error
        self._recent_ups = self._recent_ups * keep + up
        return error

    def _correlate(self, lean: float, move: float) -> None:
        means, moments, n = self._means, self._moments, self.known
        before = lean - means[0], move - means[1]
        means[0] += before[0] / n
        means[1] += before[1] / n
        moments[0] += before[0] * (lean - means[0])
        moments[1] += before[1] * (move - means[1])
        moments[2] += before[0] * (move - means[1])

    def report(self) -> dict[str, Any]:
        """The figures; None where there is nothing to compute one from. `brier_base` is the Brier score of one who
        always says the base rate; `ic` the correlation (Pearson) of p_up - p_down with the move, flat ones counted;
        `bins` holds (mean probability, share of moves up, rows) of the bins that are not empty."""
        n = self.known - self.flat
        told: dict[str, Any] = {"known": self.known, "flat": self.flat}
        if not n:
            return {**told, "brier": None, "brier_base": None, "base_rate": None, "log_loss": None, "ece": None,
                    "hit_rate": None, "ic": self._ic(), "brier_recent": None, "brier_base_recent": None, "bins": []}
        base, recent = self._ups / n, self._recent_ups / self._recent_weight
        return {**told, "brier": self._brier / n, "brier_base": base * (1 - base), "base_rate": base,
                "log_loss": self._log_loss / n,
                "ece": sum(abs(total - ups) for total, ups, _ in self._bins) / n, "hit_rate": self._hits / n,
                "ic": self._ic(), "brier_recent": self._recent_brier / self._recent_weight,
                "brier_base_recent": recent * (1 - recent),
                "bins": [(total / rows, ups / rows, rows) for total, ups, rows in self._bins if rows]}

    def _ic(self) -> float | None:
        spread = self._moments[0] * self._moments[1]
        return self._moments[2] / math.sqrt(spread) if spread > 0 else None


class Comparison:
    """A challenger against the champion, on rows that both predicted.

    `block_ns`: blocks of time, at least as long as outcomes overlap. The interval holds at any one look; who looks
    again and again until it excludes 0 will see it do so by chance more often than once in twenty."""

    def __init__(self, block_ns: int) -> None:
        self._block_ns = block_ns
        self.rows = self.blocks = 0  #: in closed blocks
        self._sum = self._squares = self._mixed = 0.0  # over blocks: of sums, of their squares, of sum times rows
        self._row_squares = 0
        self._block, self._open, self._open_rows = -1, 0.0, 0

    def add(self, time_ns: int, champion: float, challenger: float) -> None:
        """Squared errors of both on one row. A row that comes late counts in the block that is open."""
        block = time_ns // self._block_ns
        if block > self._block:
            self._close()
            self._block = block
        self._open += champion - challenger
        self._open_rows += 1

    def _close(self) -> None:
        total, rows = self._open, self._open_rows
        if rows:
            self.rows, self.blocks = self.rows + rows, self.blocks + 1
            self._sum += total
            self._squares += total * total
            self._mixed += total * rows
            self._row_squares += rows * rows
        self._open, self._open_rows = 0.0, 0

    @property
    def gain(self) -> float:
        """Mean of champion's squared error less challenger's: above 0 the challenger is better."""
        return self._sum / self.rows if self.rows else 0.0

    @property
    def standard_error(self) -> float:
        """Of `gain`; infinite with fewer than two blocks."""
        if self.blocks < 2:
            return math.inf
        gain = self.gain
        residual = self._squares - 2 * gain * self._mixed + gain * gain * self._row_squares
        return math.sqrt(max(residual, 0.0) * self.blocks / (self.blocks - 1)) / self.rows

    def report(self) -> dict[str, Any]:
        error = self.standard_error
        return {"rows": self.rows, "blocks": self.blocks, "gain": self.gain,
                "standard_error": error if math.isfinite(error) else None, "verdict": self.verdict()}

    def verdict(self) -> str:
        """One sentence, for people."""
        if self.blocks < MIN_BLOCKS:
            return f"too early to tell: {self.blocks} of at least {MIN_BLOCKS} blocks of {self._block_ns / 1e9:g} s"
        gain, margin = self.gain, _SPREAD * self.standard_error
        words = ("the challenger is better" if gain > margin else
                 "the champion is better" if gain < -margin else "no difference is shown")
        return (f"{words}: Brier of the challenger lower by {gain:+.5f} (95 % interval {gain - margin:+.5f} to "
                f"{gain + margin:+.5f}) on {self.rows} rows in {self.blocks} blocks")
