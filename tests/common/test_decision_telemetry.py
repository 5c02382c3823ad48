"""What telemetry and the tap are told of decisions."""

import pytest

from common import decision
from common import decision_telemetry as module
from common.decision_telemetry import COUNTER_OF, COUNTERS, NOTES, TIMERS, DecisionTelemetry
from common.risk import Account, Rate, Refusal, Standing
from common.telemetry import Telemetry
from common.wire import ABSENT, CLOCK, STATIONS, Prediction

PREDICTION = Prediction(1, 0, 7, 5, 5, 1, 0, 9, 0.6, 0.4, 1.0, 99, 101, 1_000, 1_010, 1_030, 1_060, 1_100, 1_150)
ASKED = PREDICTION._replace(worker=CLOCK, p_up=ABSENT)


@pytest.fixture
def telemetry():
    return Telemetry.private("executor", ("errors", *COUNTERS), TIMERS, NOTES)


class Heard:
    def __init__(self, wanted: bool = True) -> None:
        self.wanted, self.messages = wanted, []

    def send(self, message: bytes) -> None:
        self.messages.append(message)


def test_counters_are_there_at_once_and_the_rest_when_it_is_told(telemetry):
    tally = DecisionTelemetry(telemetry)
    tally.count(PREDICTION, None, 1_210)
    tally.count(PREDICTION, Refusal("BOOK_STALE", 7.0, 5.0), 1_300)
    tally.count(ASKED, Refusal("SIGNAL_WEAK"), 1_400)
    found = {name: value for name, value in telemetry.values().items() if value}
    assert found == {"decisions": 3, "watched": 1, "refusals": 2, "refusal_book_stale": 1, "refusal_signal_weak": 1}
    assert not telemetry.histogram("decide").sum() and not list(telemetry.notes())
    for _ in range(2):  # the second has nothing to tell
        tally.tell()
        assert all(telemetry.histogram(name).sum() == 2 for name in TIMERS)  # where the clock asked no tick began it
    assert [(note.symbol, note.value, note.limit) for note in telemetry.notes()] == [(1, 7.0, 5.0), (1, 0.0, 0.0)]


def test_each_station_is_what_lies_between_two_stamps(telemetry, monkeypatch):
    seen = {}
    monkeypatch.setattr(Telemetry, "observe_all", lambda self, names, ns: seen.update(zip(names, ns.tolist())))
    tally = DecisionTelemetry(telemetry)
    tally.count(PREDICTION, None, 1_210)
    tally.tell()
    assert seen == dict(zip((*STATIONS, "tick_to_decision"), ([10], [20], [30], [40], [50], [60], [210])))


def test_the_tap_hears_whole_decisions_in_one_message_while_somebody_listens(telemetry):
    tap = Heard()
    tally = DecisionTelemetry(telemetry, tap)
    assert tally.wanted and not DecisionTelemetry(telemetry).wanted
    assert not DecisionTelemetry(telemetry, Heard(wanted=False)).wanted
    before = decision.before(Standing(7), Account(Rate(1.0)))
    refusal = Refusal("SIGNAL_WEAK", 0.1, 0.2)
    tally.keep(PREDICTION, 1_200, 0, None, before, refusal, refusal)
    tally.keep(PREDICTION._replace(seq=2**70), 1_200, 0, None, before, refusal, refusal)  # no record can hold it
    tally.keep(PREDICTION._replace(seq=6), 1_200, 0, None, before, refusal, refusal)
    tally.tell()
    tally.tell()
    [message] = tap.messages
    assert [told.seq for told in decision.decode(message)] == [5, 6] and telemetry.get("errors") == 1


def test_every_reason_has_its_counter():
    assert set(COUNTER_OF.values()) <= set(COUNTERS) and len(set(COUNTER_OF.values())) == len(COUNTER_OF)
    assert set(COUNTER_OF) == set(decision.REASONS) - {""} and module.NOTES > 0
