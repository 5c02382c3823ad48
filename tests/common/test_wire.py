"""Wire: every kind survives the journey bit for bit; anything else is refused with a reason."""

import math
import struct
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import wire
from common.errors import WireError

LIMITS = {"I": (0, 2**32 - 1), "q": (-2**63, 2**63 - 1), "Q": (0, 2**64 - 1), "B": (0, 255)}


def records(kind: type) -> st.SearchStrategy:
    codes = wire._FORMATS[kind][1].lstrip("<")
    return st.tuples(*(st.floats(allow_nan=False) if code == "d" else st.integers(*LIMITS[code])
                       for code in codes)).map(kind._make)


@pytest.mark.parametrize("kind", list(wire.kinds()), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_kind_survives_the_journey(kind, data):
    sent = data.draw(st.lists(records(kind), min_size=1, max_size=5))
    assert wire.decode(wire.encode(sent), kind) == sent
    assert typing.get_type_hints(kind).keys() == set(kind._fields)


@pytest.mark.parametrize("kind", list(wire.kinds()), ids=lambda kind: kind.__name__)
def test_the_format_told_is_that_of_the_record(kind):
    record = kind._make(range(len(kind._fields)))
    assert wire.encode([record]).endswith(struct.pack(wire.form(kind), *record))


def test_another_version_kind_or_length_is_refused_with_both_sides_named():
    message = wire.encode([wire.TickRef(0, 1, 2, 3, 4)])
    with pytest.raises(WireError, match="got TickRef, expected Work"):
        wire.decode(message, wire.Work)
    with pytest.raises(WireError, match="version=9, ours=1"):
        wire.decode(message[:1] + b"\x09" + message[2:])
    with pytest.raises(WireError, match="wrong length"):
        wire.decode(message[:-1])


@given(st.binary(max_size=200))
def test_noise_is_refused_and_never_crashes(noise):
    try:
        assert wire.decode(noise) is not None
    except WireError:
        pass


def test_probabilities_travel_bit_for_bit():
    value = math.nextafter(0.5, 1)
    message = wire.encode([wire.Prediction(*[0] * 8, value, 1 - value, 0.1, *[0] * 8)])
    assert struct.pack("<d", wire.decode(message)[0].p_up) == struct.pack("<d", value)
