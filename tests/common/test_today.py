"""The day's loss and drawdown: from their definition, over days and lives, with a journal that fails."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ResourceError
from common.journal import Journal
from common.today import Today

S = 10**9
DAY = 86_400 * S
MORNING = 19_922 * DAY  # 2024-07-18


class Failing:
    """A journal that fails while it is told to."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.fails, self.written = journal, False, 0

    def __getattr__(self, name):
        if self.fails:
            raise ResourceError("the journal cannot be written")
        self.written += name == "raise_peak"
        return getattr(self.journal, name)


@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(0, DAY // 2), st.booleans()), min_size=1, max_size=30))
def test_loss_and_drawdown_are_those_of_the_day_whatever_restarts(history):
    journal, at, day, opening, best = Journal.private(), MORNING, -1, 0, 0
    today = Today(journal)
    for profit, later, restart in history:
        at += later
        if restart:
            today.keep()
            today = Today(journal)
        if at // DAY != day:
            day, opening, best = at // DAY, profit, profit
        best = max(best, profit)
        assert today.count(profit, at) == (opening - profit, best - profit)


def test_a_crash_loses_no_more_than_what_was_not_kept():
    journal = Journal.private()
    today = Today(journal)
    for second, profit in enumerate((0, 50, 70)):
        today.count(profit, MORNING)
        today.keep_now_and_then(second * S, idle=profit < 70)
    assert Today(journal).count(0, MORNING) == (0, 50)
    today.keep()
    assert Today(journal).count(0, MORNING) == (0, 70) and journal.day("2024-07-18") == (0, 70)


def test_it_is_written_at_most_once_a_second_and_half_as_often_while_there_is_no_time():
    for idle, least, most in ((True, 10, 11), (False, 5, 6)):
        journal = Failing(Journal.private())
        today = Today(journal)
        for tenth in range(100):
            today.count(tenth, MORNING)
            today.keep_now_and_then(tenth * S // 10 + S, idle)
        assert least <= journal.written <= most
    assert journal.journal.day("2024-07-18")[1] > 70


def test_a_day_ends_with_its_best():
    journal = Journal.private()
    today = Today(journal)
    today.count(0, MORNING)
    today.count(9, MORNING + DAY - 1)
    assert today.count(5, MORNING + DAY) == (0, 0)
    assert (journal.day("2024-07-18"), journal.day("2024-07-19")) == ((0, 9), (5, 5))


def test_what_the_journal_could_not_tell_or_take_is_asked_and_written_again():
    journal = Failing(Journal.private())
    today = Today(journal)
    journal.fails = True
    with pytest.raises(ResourceError):
        today.count(3, MORNING)
    journal.fails = False
    assert today.count(4, MORNING) == (0, 0) and today.count(9, MORNING) == (-5, 0)
    journal.fails = True
    with pytest.raises(ResourceError):
        today.keep()
    journal.fails = False
    today.keep()
    assert journal.journal.day("2024-07-18") == (4, 9)
