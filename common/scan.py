"""Frames read by their shape: compiled matching of raw bytes against templates.

A venue sends the same few shapes millions of times. Each is written once as a template, the frame's own text
with a placeholder where a value stands:

    %i  integer, 0 or more, below 2**63             %s  one of our symbols -> its index
    %t  milliseconds -> nanoseconds                 %b  true or false -> 1 or 0
    %p  price, above 0 -> count of 1e-8, exact      %l  [["price","quantity"],...] -> levels; its field is
    %q  quantity, 0 or more -> count of 1e-8            the number of levels
    %_  text without quotes, escapes or control characters, not kept

A frame that fits byte for byte is read in one pass, straight into integers. Any other frame is no match and no
error: the caller's slow path (JSON, `common.venues.fields`) decides what it means, and words the complaint.
So templates never change what is accepted, only what it costs: about 1 us for a frame of 180 bytes, 5 us for
one of 80 levels. The lines of recordings are told apart here too, 30 ns each.
"""

from typing import Sequence

import numpy as np

from common.compiled import direct, kernel
from common.fixed import DECIMALS, MAX, SCALE

# What became of a number or of an array of levels.
OK = 0
SHAPE = 1  #: not the expected text
FRACTION = 2  #: more than 8 decimals
OVERFLOW = 3  #: outside the range of 64 bits
FULL = 4  #: more levels than the buffer holds
SIGN = 5  #: a price that is not above 0, or a quantity below 0
STATUS_NAMES = {OK: "ok", SHAPE: "shape", FRACTION: "fraction", OVERFLOW: "overflow", FULL: "full", SIGN: "sign"}

FIELDS = 8  #: placeholders that one template may have, %_ not counted

# A program is the literal text, in ASCII, with these bytes for the placeholders.
_INT, _TIME, _PRICE, _QUANTITY, _SYMBOL, _BOOL, _LEVELS, _SKIP, _END = range(0x80, 0x89)
_OPS = {b"%i": _INT, b"%t": _TIME, b"%p": _PRICE, b"%q": _QUANTITY, b"%s": _SYMBOL, b"%b": _BOOL, b"%l": _LEVELS,
        b"%_": _SKIP}

_NO_MATCH = -1
_GROW = -2
FIELDS_AT = 2  #: where the fields found begin in the kernel's memory of integers, see `match`
LEVELS_AT = FIELDS_AT + FIELDS  #: and the levels
_LIMIT = MAX // 10
_DIGITS = 40  # before and after the point, as in common.fixed
_STAMP = 19  # digits of a stamp, at most: below 0 if they are more than 63 bits
_MS = 1_000_000  # ns in a millisecond
_MS_MAX = MAX // _MS
_WHOLE_MAX = MAX // SCALE
_POWERS = tuple(10**i for i in range(DECIMALS + 1))


@kernel
def _integer(frame, i, n):
    """(status, value, next): the JSON integer at frame[i:n]."""
    start, value = i, 0
    while i < n and 48 <= frame[i] <= 57:
        if value > _LIMIT:
            return OVERFLOW, 0, i
        value = value * 10 + (frame[i] - 48)
        if value < 0:
            return OVERFLOW, 0, i
        i += 1
    if i == start or (frame[start] == 48 and i - start > 1):
        return SHAPE, 0, i
    return OK, value, i


@kernel
def _decimal(frame, i, n):
    """(status, value, next): the decimal -?digits[.digits] at frame[i:n], in 1e-8."""
    negative = i < n and frame[i] == 45  # -
    if negative:
        i += 1
    status, start, whole, part, places = OK, i, 0, 0, 0
    while i < n and 48 <= frame[i] <= 57:
        whole = whole * 10 + (frame[i] - 48)
        if whole > _WHOLE_MAX:
            status, whole = OVERFLOW, 0
        i += 1
    if i == start or i - start > _DIGITS:
        return SHAPE, 0, i
    if i < n and frame[i] == 46:  # .
        i += 1
        start = i
        while i < n and 48 <= frame[i] <= 57:
            if places < DECIMALS:
                part = part * 10 + (frame[i] - 48)
                places += 1
            elif frame[i] != 48 and status == OK:
                status = FRACTION
            i += 1
        if i == start or i - start > _DIGITS:
            return SHAPE, 0, i
    value = whole * SCALE + part * _POWERS[DECIMALS - places]
    if value < 0 and status == OK:  # past 2**63 - 1 by its decimals alone
        status = OVERFLOW
    return status, -value if negative else value, i


@kernel
def _levels(frame, i, n, out, used):
    """(status, count, next): the array of levels at frame[i:n], as pairs into `out` from index `used`."""
    start = used
    if i + 1 >= n or frame[i] != 91:  # [
        return SHAPE, 0, i
    i += 1
    if frame[i] == 93:  # ]
        return OK, 0, i + 1
    while True:
        if i + 1 >= n or frame[i] != 91 or frame[i + 1] != 34:  # ["
            return SHAPE, 0, i
        status, price, i = _decimal(frame, i + 2, n)
        if status != OK:
            return status, 0, i
        if i + 2 >= n or frame[i] != 34 or frame[i + 1] != 44 or frame[i + 2] != 34:  # ","
            return SHAPE, 0, i
        status, quantity, i = _decimal(frame, i + 3, n)
        if status != OK:
            return status, 0, i
        if i + 2 >= n or frame[i] != 34 or frame[i + 1] != 93:  # "]
            return SHAPE, 0, i
        if price <= 0 or quantity < 0:
            return SIGN, 0, i
        if used + 2 > out.size:
            return FULL, 0, i
        out[used] = price
        out[used + 1] = quantity
        used += 2
        i += 2
        if frame[i] == 93:  # ]
            return OK, (used - start) // 2, i + 1
        if frame[i] != 44:  # ,
            return SHAPE, 0, i
        i += 1


@kernel
def _symbol(frame, i, n, program, count):
    """(index or -1, next): which of the `count` symbols at the head of `program` stands at frame[i:n], up to a
    quote."""
    end = i
    while end < n and frame[end] != 34:
        end += 1
    length, p = end - i, 0
    for index in range(count):
        if program[p] == length:
            k = 0
            while k < length and program[p + 1 + k] == frame[i + k]:
                k += 1
            if k == length:
                return index, end
        p += 1 + program[p]
    return -1, end


@kernel
def _bool(frame, i, n):
    """(status, value, next)"""
    if i + 3 < n and frame[i] == 116 and frame[i + 1] == 114 and frame[i + 2] == 117 and frame[i + 3] == 101:
        return OK, 1, i + 4
    if i + 4 < n and frame[i] == 102 and frame[i + 1] == 97 and frame[i + 2] == 108 and frame[i + 3] == 115 and \
            frame[i + 4] == 101:
        return OK, 0, i + 5
    return SHAPE, 0, i


@kernel
def match(frame, program, out):
    """(template, or below 0, and FIELDS values): the first template that the whole frame fits. Below 0 it fits none, or
    `out` has no room for its levels. For kernels that read many frames; for one at a time there is `Scanner`.

    frame: bytes, or uint8[n]; program: that of a Scanner
    out: int64; out[:FIELDS_AT] is the head of that Scanner; written are out[FIELDS_AT:] with the fields, in order, and
    out[LEVELS_AT:] with (price, quantity) of each level
    """
    n = len(frame)
    following = out[1]
    template = 0
    while following < program.size:
        p = following + 2
        following = p + program[following] + 256 * program[following + 1]
        i, field, used = 0, 0, LEVELS_AT
        while True:
            while i < n and program[p] == frame[i] and program[p] < _INT:
                p += 1
                i += 1
            op = program[p]
            p += 1
            status, value = OK, 0
            if op < _INT or op == _END:
                break
            elif op == _SKIP:
                while i < n and 32 <= frame[i] < 127 and frame[i] != 34 and frame[i] != 92:
                    i += 1
                continue
            elif op == _PRICE or op == _QUANTITY:
                status, value, i = _decimal(frame, i, n)
                if value < 0 or (value == 0 and op == _PRICE):
                    status = SIGN
            elif op == _INT:
                status, value, i = _integer(frame, i, n)
            elif op == _TIME:
                status, value, i = _integer(frame, i, n)
                if value > _MS_MAX:
                    status = OVERFLOW
                value *= _MS
            elif op == _LEVELS:
                status, value, i = _levels(frame, i, n, out, used)
                used += 2 * value
            elif op == _SYMBOL:
                value, i = _symbol(frame, i, n, program, out[0])
                status = SHAPE if value < 0 else OK
            else:
                status, value, i = _bool(frame, i, n)
            if status == FULL:
                return _GROW, 0, 0, 0, 0, 0, 0, 0, 0
            if status != OK:
                break
            out[FIELDS_AT + field] = value
            field += 1
        if op == _END and i == n:
            return template, out[2], out[3], out[4], out[5], out[6], out[7], out[8], out[9]
        template += 1
    return _NO_MATCH, 0, 0, 0, 0, 0, 0, 0, 0


@kernel
def split(text, ends, begins, stops, stamps):
    """How many of the lines `<stamp> <json>` that end at `ends` are such lines, up to the first that is not: of each,
    where the JSON begins and stops, and the stamp, of at most 63 bits. Blanks and a carriage return at the end are not
    part of it. text: uint8[n]; all else int64[lines]"""
    start = 0
    for i in range(ends.size):
        stop, at, stamp = ends[i], start, 0
        while stop > start and (text[stop - 1] == 13 or text[stop - 1] == 32):
            stop -= 1
        while at < stop and 48 <= text[at] <= 57 and at - start < _STAMP:
            stamp = stamp * 10 + (text[at] - 48)
            at += 1
        if at == start or stamp < 0 or at + 1 >= stop or text[at] != 32 or (
                text[at + 1] != 123 and text[at + 1] != 91) or (text[stop - 1] != 125 and text[stop - 1] != 93):
            return i
        begins[i], stops[i], stamps[i] = at + 1, stop, stamp
        start = ends[i] + 1
    return ends.size


class Scanner:
    """Matches frames (bytes or bytearray) against templates, in the order given; the first that fits wins.

    `levels` is int64[n, 2], (price, quantity) in 1e-8: the levels of the last match, one %l after the other.
    It is scratch memory, overwritten by the next match.
    """

    def __init__(self, templates: Sequence[bytes], symbols: Sequence[str]) -> None:
        names = [symbol.encode() for symbol in symbols]
        table = b"".join(bytes([len(name)]) + name for name in names)
        codes = [_assemble(template) for template in templates]
        program = table + b"".join(len(code).to_bytes(2, "little") + code for code in codes)
        #: for `match`: the symbols (length and name each), then the templates (length and code each)
        self.program = np.frombuffer(program, np.uint8).copy()
        self.head = (len(names), len(table))  #: how many symbols, and where the templates start
        self.templates = len(codes)  #: how many
        self._resize(1 << 10)
        self._match = direct(match, b"", self.program, self._out)

    def match(self, frame: bytes | bytearray) -> tuple[int, ...]:
        """(index of the template, its fields in order, what is left of FIELDS); the index is -1 for no match."""
        found = self._match(frame if type(frame) is bytes else bytes(frame), self.program, self._out)
        if found[0] == _GROW:
            self._resize(max(2 * len(self.levels), len(frame) // 9))  # a level takes 10 bytes or more
            return self.match(frame)
        return found

    def _resize(self, count: int) -> None:
        self._out = np.zeros(LEVELS_AT + 2 * count, np.int64)
        self._out[:FIELDS_AT] = self.head
        self.levels = self._out[LEVELS_AT:].reshape(-1, 2)


def _assemble(template: bytes) -> bytes:
    """The text of a template with each placeholder as one byte above ASCII, and an end mark."""
    if not template.isascii():
        raise ValueError(f"a template is ASCII text: {template!r}")
    code, fields = template, 0
    for placeholder, op in _OPS.items():
        fields += 0 if op == _SKIP else code.count(placeholder)
        code = code.replace(placeholder, bytes([op]))
    if fields > FIELDS:
        raise ValueError(f"a template has at most {FIELDS} fields: {template!r}")
    return code + bytes([_END])


def decimal(text: bytes) -> tuple[int, int]:
    """(status, value in 1e-8) of the whole of `text`; what templates read as %p and %q."""
    status, value, end = _decimal(text, 0, len(text))
    return (status, value) if end == len(text) else (SHAPE, 0)


def levels(text: bytes, start: int, out: np.ndarray) -> tuple[int, int, int]:
    """(status, number of levels, index after the array) of the array of levels at text[start:]; what templates
    read as %l. `out`: int64[n, 2], contiguous; on a status other than OK its content is undefined."""
    return _levels(text, start, len(text), out.reshape(-1), 0)
