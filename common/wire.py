"""Every message on every link, as one table. Fixed little-endian structs; no pickle, no JSON.

A message is a header (kind, version, count) and `count` records of one kind. Messages are doorbells: they
name a record in shared memory and carry the stamps of the stations passed so far (monotonic ns).
"""

import struct
from typing import Any, Iterator, NamedTuple, Sequence

from common.errors import WireError

VERSION = 1
CLOCK = 2**32 - 1  #: the `worker` of a prediction that no model made: a clock asks whether what is held is to be left
ABSENT = -1.0  #: the probabilities of such a one

#: make(Work, values) is Work(*values) in half the time: a named tuple without the matching of its arguments
make = tuple.__new__
_HEADER = struct.Struct("<BBH")


class TickRef(NamedTuple):
    """ingest -> feature: symbol has ticks up to `seq`."""

    symbol: int
    epoch: int  #: of the stream of ticks, low 32 bits; the same in all messages
    seq: int
    recv_ns: int
    book_ns: int


class Work(NamedTuple):
    """feature -> one worker: predict rows first..last of symbol."""

    symbol: int
    epoch: int
    lease: int  #: returned in the credit
    first: int
    last: int
    dispatched_ns: int


class Credit(NamedTuple):
    """worker -> feature: I am idle. `lease` is the work it finished, 0 in a greeting."""

    worker: int
    incarnation: int  #: start time of the worker process, monotonic ns: a new one is a new worker
    lease: int
    done: int  #: rows predicted under the lease
    invalid: int  #: rows found overwritten, torn or cold
    window: int  #: rows that the worker's model looks at: a symbol with a shorter run is not worth sending


class Prediction(NamedTuple):
    """worker -> executor, and a sample to the monitor: probability of an up-move of symbol after row `seq`."""

    symbol: int
    worker: int
    epoch: int
    seq: int
    venue_id: int
    kind: int  #: of the tick behind the row
    event_ns: int
    model: int  #: first 8 bytes of the model's SHA-256
    p_up: float
    p_down: float
    vol: float  #: rolling volatility per tick at the row, in basis points
    bid: int  #: best prices behind the row, 1e-8
    ask: int
    recv_ns: int
    book_ns: int
    row_ns: int
    dispatched_ns: int
    start_ns: int
    end_ns: int


#: what lies between the stamps of a prediction, in their order, and the decision
STATIONS = ("ingest", "feature", "dispatch", "queue", "inference", "decide")
#: and beyond, to the venue's answer; and each of the two ways as a whole: what the executor times
LATENCIES = (*STATIONS, "send", "ack", "tick_to_decision", "tick_to_order")

_FORMATS: dict[type, tuple[int, str]] = {
    TickRef: (1, "<IIqqq"),
    Work: (2, "<IIqqqq"),
    Credit: (3, "<IqqqqI"),
    Prediction: (4, "<IIIqqBqQdddqqqqqqqq"),
}
_CODERS = {kind: (code, struct.Struct(form)) for kind, (code, form) in _FORMATS.items()}
_BY_CODE = {code: (kind, coder) for kind, (code, coder) in _CODERS.items()}
_KINDS = {code: kind for kind, (code, _) in _FORMATS.items()}
# A message of one record is the common case: header and record in one struct, recognised by its first bytes.
_ALONE = {kind: (code, struct.Struct(_HEADER.format + form[1:]).pack) for kind, (code, form) in _FORMATS.items()}
_ALONE_HEAD = {kind: (_HEADER.pack(code, VERSION, 1), _HEADER.size + coder.size, coder.unpack_from)
               for kind, (code, coder) in _CODERS.items()}


def encode(records: Sequence[NamedTuple]) -> bytes:
    """One message of `records`, all of one kind, at least one. Cost: under 1 us, and 0.5 us a further record."""
    if len(records) == 1:
        record = records[0]
        code, pack = _ALONE[type(record)]
        return pack(code, VERSION, 1, *record)
    code, coder = _CODERS[type(records[0])]
    return _HEADER.pack(code, VERSION, len(records)) + b"".join([coder.pack(*record) for record in records])


def decode(message: bytes, expected: type | None = None) -> list[Any]:
    """The records of `message`. Raises WireError on another version, kind or length. Cost: under 1 us."""
    if expected is not None:
        head, size, unpack_from = _ALONE_HEAD[expected]
        if len(message) == size and message.startswith(head):
            return [tuple.__new__(expected, unpack_from(message, _HEADER.size))]
    return _decode(message, expected)


def kind_of(message: bytes) -> type | None:
    """The kind of the records of `message`, None where it is none of ours. About 100 ns."""
    return _KINDS.get(message[0]) if message else None


def _decode(message: bytes, expected: type | None) -> list[Any]:
    try:
        code, version, count = _HEADER.unpack_from(message)
        kind, coder = _BY_CODE[code]
    except (struct.error, KeyError):
        raise WireError("a message is not of this protocol", where=f"bytes={message[:16].hex()}") from None
    if version != VERSION:
        raise WireError("a message has another version", where=f"version={version}, ours={VERSION}",
                        remedy="restart every stage from the same installation")
    if expected is not None and kind is not expected:
        raise WireError("a message is of another kind",
                        where=f"got {kind.__name__}, expected {expected.__name__}")
    if len(message) != _HEADER.size + count * coder.size:
        raise WireError("a message has a wrong length", where=f"{kind.__name__} x {count}: {len(message)} bytes")
    return [kind._make(fields) for fields in coder.iter_unpack(memoryview(message)[_HEADER.size:])]


def as_dict(record: NamedTuple) -> dict[str, Any]:
    """A record with its kind, for people and for JSON."""
    return {"kind_of": type(record).__name__, **record._asdict()}


def form(kind: type) -> str:
    """The struct format of a record of `kind`: its fields in their order, so that many can be read as one array."""
    return _FORMATS[kind][1]


def kinds() -> Iterator[type]:
    return iter(_FORMATS)
