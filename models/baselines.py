"""Plain guesses to stand beside a model: what anyone would try first.

    base rate     how often each class came in the training rows
    sign of OBI   level-1 order-book imbalance above 0: up; below: down       (needs the column `obi_1`)
    last move     the last change of the mid goes on

The latter two see one of three states, -, 0, +. Their decision is the sign, and their probabilities are how often each
class followed the state in the training rows, so that they compete in Brier score with honest numbers; the size of the
imbalance and of the last move ranks rows. Fitted on the same rows as the model, and on nothing else.
"""

from typing import NamedTuple

import numpy as np


class Answers(NamedTuple):
    """What a contender says about n rows."""

    p: np.ndarray  #: float64[n, C]
    guess: np.ndarray  #: int64[n]: the class that it takes for the likeliest
    even: np.ndarray  #: int64[n]: the class that it would take if all came as often
    rise: np.ndarray  #: float64[n]: orders rows from the surest fall to the surest rise


def of_model(p: np.ndarray, often: np.ndarray, classes: tuple[str, ...]) -> Answers:
    """The answers of probabilities: the likeliest class, the one that is likeliest against `often`, how often each came
    in training, and p_up - p_down."""
    return Answers(p, p.argmax(1), (p / often).argmax(1), p[:, classes.index("up")] - p[:, classes.index("down")])


def answers(signals: dict[str, np.ndarray], train: np.ndarray, test: np.ndarray, labels: np.ndarray,
            classes: tuple[str, ...]) -> dict[str, Answers]:
    """Of each signal, float[n] with a sign, and of the base rate, on the rows `test` after the rows `train` (indices;
    those of `train` have labels). Cost O(n)."""
    count = len(classes)
    often = shares(labels[train], count)
    same = np.full(len(test), often.argmax())
    found = {"base rate": Answers(np.tile(often, (len(test), 1)), same, same, np.zeros(len(test)))}
    down, up = classes.index("down"), classes.index("up")
    for name, signal in signals.items():
        state = np.sign(signal[train]).astype(int) + 1
        table = np.array([shares(labels[train][state == i], count, often) for i in range(3)])
        now = np.sign(signal[test]).astype(int) + 1
        guess = np.array([down, often.argmax(), up])[now]
        found[name] = Answers(table[now], guess, guess, signal[test].astype(float))
    return found


def last_move(bid: np.ndarray, ask: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """float64[m]: the last change of bid + ask up to each row, in counts of 1e-8; 0 before the first change since
    `starts`, rows where another stream begins. All rows of a dataset, in order."""
    mid = bid + ask
    change = np.diff(mid, prepend=mid[:1])
    change[starts] = 0
    which = np.where(change != 0, np.arange(len(mid)), -1)
    first = np.zeros(len(mid), int)
    first[starts] = starts
    first, which = np.maximum.accumulate(first), np.maximum.accumulate(which)
    return np.where(which >= first, change[which], 0).astype(float)


def shares(labels: np.ndarray, classes: int, prior: np.ndarray | None = None) -> np.ndarray:
    """How often each class comes, with one row's worth of `prior` (equal shares) added, so that none is 0."""
    prior = np.full(classes, 1 / classes) if prior is None else prior
    return (np.bincount(labels, minlength=classes) + prior) / (len(labels) + 1)
