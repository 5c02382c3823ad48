"""The gate: every state from all that bears on it, and the files of the kill switch followed."""

import pytest

from common import killswitch
from common.gate import Gate, Permission
from common.risk import ACTIVE, FLATTENING, REDUCING


def gate_of(folder, live=False, **fields) -> Gate:
    gate = Gate(folder, live)
    gate.reconciled = True
    for name, value in fields.items():
        setattr(gate, name, value)
    return gate


REDUCED = killswitch.Reduction("quant", 1, "wind down")
#: what is so -> the standing; later ones hold earlier circumstances too, and none of them shows through
STANDINGS = [
    ({}, Permission("ACTIVE", "", "")),
    ({"reduction": REDUCED}, Permission("REDUCING", "", "wind down")),
    ({"reduction": REDUCED._replace(flatten=True)}, Permission("FLATTENING", "", "wind down")),
    ({"paused_until_ns": 101}, Permission("ACTIVE", "RATE_VENUE", "the venue asked for a pause")),
    ({"marked": False}, Permission("ACTIVE", "STATE_UNMARKED",
                                 "something is held that has no price: its loss is not known")),
    ({"reconciled": False, "waiting_for": "positions"}, Permission("RECONCILING", "STATE_RECONCILING", "positions")),
    ({"armed": False}, Permission("DISARMED", "STATE_DISARMED", "a live venue: `alpha arm` lets it trade")),
    ({"halted": "looks wrong"}, Permission("HALTED", "STATE_HALTED", "looks wrong")),
]


@pytest.mark.parametrize("case", range(len(STANDINGS)))
def test_the_gravest_circumstance_is_the_standing(tmp_path, case):
    alone, expected = STANDINGS[case]
    together = {name: value for fields, _ in STANDINGS[:case + 1] for name, value in fields.items()}
    for fields in (dict(alone), together):
        marked, restrained = fields.pop("marked", True), "reduction" in fields
        found = gate_of(tmp_path, **fields).permission(marked, 100)
        # What is left is left once the pause is over, or there is a price: it stays the word for what is done.
        state = "FLATTENING" if restrained and case > 1 and expected.state == "ACTIVE" else expected.state
        assert found == expected._replace(state=state)
    assert gate_of(tmp_path, paused_until_ns=100).permission(True, 100).barred == ""  # it is over


def test_a_halt_holds_until_its_file_is_gone_and_then_positions_are_to_be_compared(tmp_path):
    gate = gate_of(tmp_path)
    assert not gate.look() and gate.halted == ""
    killswitch.halt(tmp_path, "looks wrong", "quant")
    assert gate.look() and gate.halted == "looks wrong (by quant)" and gate.reconciled
    assert not gate.look()
    killswitch.resume(tmp_path)
    assert gate.look() and gate.halted == "" and not gate.reconciled
    assert not gate.look()


def test_it_halts_itself_once_and_for_all_who_look(tmp_path):
    gate = gate_of(tmp_path)
    assert gate.halt("a loss") and not gate.halt("another")
    assert not gate.look() and gate.halted == "a loss"  # the file is its own
    assert killswitch.state(tmp_path).why == "a loss" and gate_of(tmp_path).look()
    killswitch.resume(tmp_path)
    assert gate.look() and gate.halted == ""


def test_a_halt_that_cannot_be_written_holds_in_memory(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    gate = gate_of(tmp_path / "file")  # no folder
    assert gate.halt("a loss") and "halted in memory" in caplog.text
    (tmp_path / "file").unlink()
    assert not gate.look() and gate.halted == "a loss"


def test_what_cannot_be_looked_at_halts(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    gate = gate_of(tmp_path / "loop")
    assert gate.look() and gate.permission(True, 0).barred == "STATE_HALTED"


def test_a_live_venue_is_armed_by_its_file_and_disarmed_at_each_start(tmp_path):
    gate = gate_of(tmp_path, live=True)
    killswitch.arm(tmp_path)
    gate.begin()
    assert not gate.look() and not gate.armed
    killswitch.arm(tmp_path)
    assert gate.look() and gate.armed and gate.permission(True, 0).state == "ACTIVE"
    killswitch.disarm(tmp_path)
    assert gate.look() and not gate.armed
    killswitch.arm(tmp_path)
    gate_of(tmp_path).begin()  # nothing is live: somebody else's file is left alone
    assert killswitch.present(tmp_path / killswitch.ARMED_FILE)


def test_a_reduction_is_followed_and_may_become_a_flatten(tmp_path):
    gate = gate_of(tmp_path)
    assert not gate.look_for_reduction() and gate.mode == ACTIVE
    killswitch.reduce(tmp_path, "wind down", "quant")
    assert gate.look_for_reduction() and gate.mode == REDUCING and not gate.look_for_reduction()
    killswitch.reduce(tmp_path, "now", "quant", flatten=True)
    assert gate.look_for_reduction() and gate.mode == FLATTENING
    killswitch.resume(tmp_path)
    assert gate.look_for_reduction() and gate.mode == ACTIVE and gate.reduction is None
